//! A hash that is the same in every proxy and every release, which the standard library does not promise of its hashers.
//!
//! It has no secret: whoever sends a key can find others that lead to the same place. What is decided by it must not matter
//! to security.

/// FNV-1a's offset basis (Fowler, Noll, Vo).
pub(crate) const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, from `seed` on.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finaliser of `SplitMix64`: FNV leaves neighbours alike in the high bits.
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
