//! Why bytes are none of our messages.

use std::fmt;

/// Why something received is refused. The text is for an operator: it names the field and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not protobuf, or not of this shape.
    #[error("not a message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Longer than allowed, in bytes.
    #[error("{length} bytes, at most {limit} are taken")]
    TooLarge {
        /// What it has.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Made for a newer proxy: applying the part that is understood would mean something else than was asked.
    #[error("requires level {requires}, this release has level {level}", level = crate::LEVEL)]
    Level {
        /// What the sender says is needed.
        requires: u32,
    },
    /// No kind of resource, or one that this release does not know.
    #[error("a kind of resource that is missing or unknown")]
    Kind,
    /// Under a type URL that is not [`TYPE_URL`](crate::TYPE_URL).
    #[error("an unknown type URL")]
    TypeUrl,
    /// Sent under a name that is not its own.
    #[error("sent under the name `{sent}`, but it is `{own}`")]
    Name {
        /// The name it was sent under.
        sent: String,
        /// The name it has.
        own: String,
    },
    /// More resources than one proxy keeps.
    #[error("the proxy already holds {0} resources")]
    Full(usize),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A list that is longer than allowed.
    #[error("{field} has {length} entries, at most {limit} are taken")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// What it has.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A field outside its bounds.
    #[error("{field}: {why}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl WireError {
    /// A field outside its bounds, with the reason in whatever words it has.
    pub(crate) fn field(field: &'static str, why: &dyn fmt::Display) -> Self {
        Self::Field { field, why: why.to_string() }
    }
}
