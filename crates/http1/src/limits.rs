//! How large a head may be.

/// The most lines that a head is ever parsed with, whatever [`Limits::fields`] says.
pub(crate) const MOST_FIELDS: usize = 128;

/// Bounds of one head. A message beyond them is refused as soon as that is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, from its first to the end of its empty line.
    pub head: usize,
    /// Bytes of a request target; of a response, of its status line.
    pub target: usize,
    /// Bytes of one field line without its line end.
    pub field: usize,
    /// Field lines, at most 128.
    pub fields: usize,
}

impl Limits {
    /// Requests that come from outside the mesh.
    pub const EDGE: Self = Self { head: 32 << 10, target: 8 << 10, field: 16 << 10, fields: 100 };
    /// Requests that come from a workload or another proxy of the mesh.
    pub const MESH: Self = Self { head: 64 << 10, target: 16 << 10, field: 32 << 10, fields: 100 };
    /// Requests that another proxy passes on: what it may have taken from a workload, and what it adds itself.
    pub const PEER: Self = Self { head: 72 << 10, fields: 120, ..Self::MESH };
    /// Responses. Their fields are bounded as the mesh's are; a status line has no business being longer than 1 KiB.
    pub const RESPONSE: Self = Self { head: 64 << 10, target: 1 << 10, field: 32 << 10, fields: 100 };
    /// Responses that another proxy passes on: what it may have taken from its application, and what it adds itself.
    pub const RESPONSE_OF_PEER: Self = Self { head: 72 << 10, fields: 120, ..Self::RESPONSE };
}
