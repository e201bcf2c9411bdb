//! Join tokens: a secret of 256 random bits that lets one workload on another host ask for its first certificate.
//!
//! The control plane stores only the hash. The text is never written to a log and never given as a flag.

use std::fmt;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// What a join token starts with, so that secret scanners recognise one.
const PREFIX: &str = "hms-join-";
/// The random part, in bytes; twice as many hexadecimal digits in the text.
const BYTES: usize = 32;

/// Why a token could not be made or read. The text itself is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The operating system gave no randomness.
    #[error("no randomness for a join token")]
    Generation,
    /// Not `hms-join-` and 64 lower-case hexadecimal digits.
    #[error("a join token is hms-join- followed by 64 hexadecimal digits")]
    Malformed,
}

/// A join token in clear. Wiped on drop; `Debug` shows nothing of it.
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// Makes a token from the operating system's randomness.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = Zeroizing::new([0_u8; BYTES]);
        OsRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_error| TokenError::Generation)?;
        // Sized beforehand: a string that grows leaves copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * BYTES));
        text.push_str(PREFIX);
        push_hex(&mut text, bytes.as_slice());
        Ok(Self(text))
    }

    /// Reads a token as a workload presents it; white space around it (of a file) is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
        if digits.len() != 2 * BYTES || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(TokenError::Malformed);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, to be handed to the operator once or sent over a verified TLS connection.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash to store. Plain SHA-256 suffices: 256 random bits cannot be guessed from it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(secret)")
    }
}

/// The SHA-256 of a join token; safe to store. Compared in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// A hash read back from the store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash as 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        let mut text = String::with_capacity(64);
        push_hex(&mut text, &self.0);
        text
    }

    /// Whether `token` has this hash. Takes the same time whatever the answer.
    pub fn matches(self, token: &JoinToken) -> bool {
        self.same(token.hash()).into()
    }

    fn same(self, other: Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.same(*other).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Appends the bytes as lower-case hexadecimal digits.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_its_own_hash_and_no_other() {
        let (one, other) = (JoinToken::generate().unwrap(), JoinToken::generate().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert!(one.hash().matches(&one));
        assert!(!one.hash().matches(&other));
        let stored = TokenHash::from_bytes(*one.hash().as_bytes());
        assert!(stored.matches(&JoinToken::parse(one.reveal()).unwrap()));
        assert!(stored == one.hash() && stored != other.hash());
    }

    #[test]
    fn a_token_has_256_random_bits_and_a_name_scanners_know() {
        let token = JoinToken::generate().unwrap();
        let digits = token.reveal().strip_prefix("hms-join-").unwrap();
        assert_eq!(digits.len(), 64);
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn nothing_of_a_token_shows_in_its_hash_or_debug_output() {
        let token = JoinToken::generate().unwrap();
        let digits = token.reveal().strip_prefix(PREFIX).unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken(secret)");
        assert_eq!(format!("{:?}", token.hash()), "TokenHash(..)");
        assert!(!token.hash().to_hex().contains(digits));
        assert_eq!(token.hash().to_hex().len(), 64);
    }

    #[test]
    fn a_file_with_a_newline_still_holds_a_token() {
        let token = JoinToken::generate().unwrap();
        let read = JoinToken::parse(&format!("{}\n", token.reveal())).unwrap();
        assert!(token.hash().matches(&read));
    }

    #[test]
    fn anything_but_the_exact_shape_is_no_token() {
        let good = "0123456789abcdef".repeat(4);
        assert!(JoinToken::parse(&format!("hms-join-{good}")).is_ok());
        let wrong = [
            String::new(),
            good.clone(),
            format!("hms-join-{}", good.to_uppercase()),
            format!("HMS-JOIN-{good}"),
            format!("hms-join-{good}0"),
            format!("hms-join-{}", &good[1..]),
            format!("hms-join- {}", &good[1..]),
            format!("hms-join-{}é", &good[2..]),
            format!("hms-join-{}\0", &good[1..]),
        ];
        for text in wrong {
            assert_eq!(JoinToken::parse(&text).unwrap_err(), TokenError::Malformed, "{text:?}");
        }
    }
}
