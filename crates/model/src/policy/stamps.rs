//! The mesh's stamps: what it does to every request, each of which an operator may switch off and on again while it runs.

use std::collections::BTreeSet;
use std::fmt;

/// What can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stamp {
    /// The gateway asks for a token. Off, it takes everybody's requests, as nobody's.
    Jwt,
    /// Rate limits of routes.
    RateLimit,
    /// Second tries.
    Retry,
    /// Traces are kept, and their ids written into bodies where that was asked for.
    Tracing,
}

impl Stamp {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Jwt, Self::RateLimit, Self::Retry, Self::Tracing];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::RateLimit => "rate-limit",
            Self::Retry => "retry",
            Self::Tracing => "tracing",
        }
    }

    /// Reads a word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.as_str() == text)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which stamps are off; those that are not are on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamps {
    /// Those that are off.
    pub off: BTreeSet<Stamp>,
}

impl Stamps {
    /// Whether one is off.
    pub fn is_off(&self, stamp: Stamp) -> bool {
        self.off.contains(&stamp)
    }
}
