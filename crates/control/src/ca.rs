//! The certificate authority: who the mesh believes, and why.
//!
//! A root (ten years, offline in spirit: it only ever signs issuers) and an issuer (one year) sign workload certificates.
//! Of a request nothing but its public key reaches a certificate; the identity comes from [`attest`] alone. What a gateway
//! shows to the outside comes from a second, unrelated and name-constrained root, [`edge`], so that trusting the one never
//! means trusting the other.
//!
//! | file | what | mode |
//! |---|---|---|
//! | `<data>/control/ca/root.pem`, `root.key` | the root of the trust domain | 0600 |
//! | `<data>/control/ca/issuer.pem`, `issuer.key` | the issuer | 0600 |
//! | `<user data>/edge-ca.pem`, `edge-ca.key` | the edge root, one per user | 0600 |

pub mod attest;
pub mod edge;
pub(crate) mod files;
pub mod issuer;
pub mod root;
pub mod service;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rand::TryRngCore as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, SerialNumber};

pub use issuer::{Ca, Issued};

/// How far a certificate is dated back so that a slow clock accepts it (reliability.md §6).
const BACKDATE: Duration = Duration::from_mins(5);

/// One day.
const DAY: Duration = Duration::from_hours(24);

/// How long workload certificates live. The longest is what a stolen key is worth, the shortest what renewal can keep up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// When nothing is asked for. 24 h (ruling R4).
    pub default: Duration,
    /// Anything shorter is raised to this. 60 s; tests go down to 5 s.
    pub minimum: Duration,
    /// Anything longer is cut to this. 7 days.
    pub maximum: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: DAY, minimum: Duration::from_mins(1), maximum: DAY * 7 }
    }
}

impl Lifetimes {
    /// The shortest life that can still be renewed in time.
    pub const FLOOR: Duration = Duration::from_secs(5);

    /// The life given for the life asked for; nothing asked is the default.
    pub fn clamp(&self, asked: Option<Duration>) -> Duration {
        let minimum = self.minimum.max(Self::FLOOR);
        asked.unwrap_or(self.default).clamp(minimum, self.maximum.max(minimum))
    }
}

/// Why an authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or directory could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory that others could read or replace.
    #[error("{path} is not safe to keep keys in: {reason}", path = .path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{present} exists but {missing} does not; move the first away to start over with new keys, or bring the second back", present = .present.display(), missing = .missing.display())]
    Half {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// A pair that was not made by us, or not together.
    #[error("{path} does not fit: {reason}", path = .path.display())]
    Mismatch {
        /// The certificate.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The state belongs to another trust domain.
    #[error("{path} belongs to the trust domain `{found}`, not `{wanted}`", path = .path.display())]
    OtherDomain {
        /// The root certificate.
        path: PathBuf,
        /// Its domain.
        found: Box<str>,
        /// The domain asked for.
        wanted: Box<str>,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request was refused; says why.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// The identity is none of this trust domain.
    #[error("{0} is no identity of this trust domain")]
    ForeignIdentity(String),
    /// A name the edge authority may not vouch for.
    #[error("the edge authority may not vouch for `{0}`")]
    ForeignHost(String),
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// When the authority's own certificates end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// End of the root.
    pub root: SystemTime,
    /// End of the issuer.
    pub issuer: SystemTime,
}

/// A serial number with 128 random bits and more (RFC 5280 §4.1.2.2: positive, at most 20 bytes). The first of its 17 bytes is
/// 0x40 to 0x7f, so that it has one length and one spelling everywhere.
fn serial() -> Result<[u8; 17], String> {
    let mut serial = [0; 17];
    rand::rngs::OsRng.try_fill_bytes(&mut serial).map_err(|error| error.to_string())?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(serial)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    })
}

/// What every certificate of ours has in common: a random serial, key identifiers, a life, and no name but the one added by
/// [`named`]. The serial comes back in hexadecimal as well.
fn parameters(life: &Life) -> Result<(CertificateParams, String), String> {
    let mut parameters = CertificateParams::default();
    let serial = serial()?;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = life.not_before.into();
    parameters.not_after = life.not_after.into();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.use_authority_key_identifier_extension = true;
    Ok((parameters, hex(&serial)))
}

/// Adds a subject that people recognise; nothing is ever decided by it. Cut to the 64 characters of RFC 5280 (ub-common-name).
fn named(parameters: &mut CertificateParams, name: &str) {
    parameters.distinguished_name.push(DnType::OrganizationName, "HMS Mesh");
    parameters.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
}

/// From when until when, in whole seconds as certificates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Life {
    /// A life that begins now. It is dated back by five minutes, or by a tenth of a life so short that five minutes would
    /// make it look half spent to whoever renews it at a third.
    fn from(now: SystemTime, length: Duration) -> Self {
        let whole = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(whole);
        Self { not_before: now - BACKDATE.min(length / 10), not_after: now + length }
    }

    /// The same life, not longer than another.
    fn within(self, end: SystemTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "root until {}, issuer until {}",
            jiff::Timestamp::try_from(self.root).unwrap_or_default(),
            jiff::Timestamp::try_from(self.issuer).unwrap_or_default()
        )
    }
}
