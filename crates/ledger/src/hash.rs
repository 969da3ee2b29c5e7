//! Hashing of RFC 6962 section 2.1: leaves, inner nodes and the root over a list of leaves.
//!
//! Owns the two domain prefixes (0x00 for a leaf, 0x01 for an inner node).
//! Refuses nothing: every byte string is a leaf.

use sha2::{Digest, Sha256};

/// A SHA-256 value: of a leaf, of an inner node, or a root.
pub type Hash = [u8; 32];

/// The largest tree this crate handles, 2^63 - 1 leaves, so that no index arithmetic overflows.
pub const SIZE_MAX: u64 = (1 << 63) - 1;

/// Hash of a leaf: SHA-256(0x00 || entry), RFC 6962 section 2.1.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update([0x00]);
    sha.update(entry);
    sha.finalize().into()
}

/// Hash of an inner node: SHA-256(0x01 || left || right), RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut preimage = [0x01; 65];
    preimage[1..33].copy_from_slice(left);
    preimage[33..].copy_from_slice(right);
    Sha256::digest(preimage).into()
}

/// Root of the tree without leaves: SHA-256 of the empty string.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Root over leaf hashes (not entries), by the recursive definition of RFC 6962 section 2.1.
///
/// It needs all leaves in memory; [`crate::frontier::Frontier`] gives the same root while keeping
/// only one hash per level.
pub fn root_of(leaf_hashes: &[Hash]) -> Hash {
    match leaf_hashes {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaf_hashes.split_at(largest_power_below(leaf_hashes.len()));
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two strictly smaller than `count`, which must be at least 2.
fn largest_power_below(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}

/// [`largest_power_below`] for tree sizes, which may exceed the machine word.
pub(crate) fn split_point(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}
