//! Delta discovery as two state machines without I/O, one for each end of a stream.
//!
//! A proxy subscribes to scopes ([`Scope`](hms_model::snapshot::Scope)) and is kept equal to what the control plane wants it
//! to hold, resource by resource. One response is one transaction, and at most one is under way per stream: while the proxy
//! works on it, later changes merge into the next. So a slow proxy costs the control plane one diff and no queue, and
//! neither end ever has to guess which of several answers an acknowledgement means.
//!
//! A version that is recorded as held was applied, always. What a proxy refused, or may or may not have applied when its
//! stream broke, it presents under the empty version at the next connect: the name is known, its content is not. The server
//! then sends it again, or says that it is gone.

pub mod client;
pub mod server;

use std::sync::Arc;

/// The content hash under which a resource is sent; never empty. Shared, because every stream remembers what it sent.
pub type Version = Arc<str>;

/// The version of a resource whose name is known to a proxy, but not its content.
pub const UNKNOWN_VERSION: &str = "";

/// Names one stream may be subscribed to.
pub const SUBSCRIPTIONS: usize = 16_384;

/// Resources one proxy may hold, and so the most one response may bring.
pub const HELD: usize = 65_536;

/// Where a response is cut, in bytes of resources and names. What is left follows after the acknowledgement.
pub const RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Longest reason of a refusal, in bytes; the rest is cut off.
pub const REASON_BYTES: usize = 1024;

/// The type URL of what a refusing acknowledgement carries.
pub(crate) const REFUSED_TYPE_URL: &str = "type.googleapis.com/hms.v1.RefusedResources";

/// What the other end did that the protocol does not allow. The stream is to be closed; the other end may connect again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The first request names no node.
    #[error("the first request names no node")]
    NoNode,
    /// A later request names another node.
    #[error("the node of the stream changed")]
    NodeChanged,
    /// Another type than ours.
    #[error("a type URL that is not `{}`", crate::TYPE_URL)]
    TypeUrl,
    /// An acknowledgement or refusal of something that was never sent.
    #[error("an acknowledgement or refusal of something that was never sent")]
    NeverSent,
    /// A refusal without the nonce of what it refuses.
    #[error("a refusal of nothing")]
    RefusalOfNothing,
    /// Versions after the first request.
    #[error("initial versions after the first request")]
    LateVersions,
    /// A subscription to a resource instead of to its scope.
    #[error("a subscription to a resource instead of to its scope")]
    NotAScope,
    /// A longer list than is taken.
    #[error("more than {0} {1}")]
    TooMany(usize, &'static str),
    /// A name longer than [`NAME_BYTES`](crate::NAME_BYTES), or a version or nonce of that length.
    #[error("a name of more than {} bytes", crate::NAME_BYTES)]
    LongName,
    /// A second response before the first was acknowledged.
    #[error("a second response before the first was acknowledged")]
    TooEager,
    /// A response without a nonce of its own.
    #[error("a response without a nonce of its own")]
    NoNonce,
    /// A resource without a version.
    #[error("a resource without a version")]
    NoVersion,
    /// One name twice in a response.
    #[error("one name twice in a response")]
    Twice,
    /// A response while no stream is open.
    #[error("no stream is open")]
    NotConnected,
}

/// Cuts a text at a character boundary.
pub(crate) fn shorten(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Refuses what is longer than any real name.
pub(crate) fn bounded(text: &str) -> Result<(), ProtocolError> {
    if text.len() > crate::NAME_BYTES { Err(ProtocolError::LongName) } else { Ok(()) }
}
