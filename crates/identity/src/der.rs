//! Cutting DER by hand where the exact bytes matter: what was signed, and which algorithm was named.

use x509_parser::asn1_rs::{Any, FromDer as _};

/// The identifier byte of a SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// The identifier byte of a BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;

/// The first element of some DER.
pub(crate) struct Element<'a> {
    /// Its content.
    pub(crate) content: &'a [u8],
    /// What follows it.
    pub(crate) rest: &'a [u8],
}

/// Reads the first element, whose first byte must be exactly `identifier`. The parser alone compares only the tag
/// number, and would take an element of another class for it.
pub(crate) fn element(der: &[u8], identifier: u8) -> Option<Element<'_>> {
    if der.first() != Some(&identifier) {
        return None;
    }
    let (rest, element) = Any::from_der(der).ok()?;
    Some(Element { content: element.data, rest })
}
