//! Hashing of RFC 6962 section 2.1: leaves, inner nodes and the root over a list of leaves.
//!
//! Owns the two domain prefixes (0x00 for a leaf, 0x01 for an inner node).
//! Refuses nothing: every byte string is a leaf.

use sha2::block_api::compress256;
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

/// [`leaf_hash`] of each entry, two at a time: see [`digests`].
pub fn leaf_hashes<T: AsRef<[u8]>>(entries: &[T]) -> Vec<Hash> {
    pairwise(&[0x00], entries)
}

/// SHA-256 of each message, two at a time.
///
/// A core that hashes in hardware spends half its time waiting for its own last step; the step of
/// another message fits in there. Messages of like length gain most, about half as much again.
pub fn digests<T: AsRef<[u8]>>(messages: &[T]) -> Vec<Hash> {
    pairwise(&[], messages)
}

/// The initial hash value of SHA-256, FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

fn pairwise<T: AsRef<[u8]>>(prefix: &[u8], messages: &[T]) -> Vec<Hash> {
    let mut hashes = Vec::with_capacity(messages.len());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (pairs, last) = messages.as_chunks::<2>();
    for [one, other] in pairs {
        pad(&mut left, prefix, one.as_ref());
        pad(&mut right, prefix, other.as_ref());
        let (left, right) = (left.as_chunks::<64>().0, right.as_chunks::<64>().0);
        let (mut a, mut b) = (INITIAL, INITIAL);
        let both = left.len().min(right.len());
        for (left, right) in left.iter().zip(right) {
            compress256(&mut a, std::slice::from_ref(left));
            compress256(&mut b, std::slice::from_ref(right));
        }
        compress256(&mut a, &left[both..]);
        compress256(&mut b, &right[both..]);
        hashes.extend([bytes(a), bytes(b)]);
    }
    for message in last {
        let mut sha = Sha256::new();
        sha.update(prefix);
        sha.update(message.as_ref());
        hashes.push(sha.finalize().into());
    }
    hashes
}

/// Prefix and message with the padding of FIPS 180-4 section 5.1.1: whole blocks.
fn pad(padded: &mut Vec<u8>, prefix: &[u8], message: &[u8]) {
    padded.clear();
    padded.extend_from_slice(prefix);
    padded.extend_from_slice(message);
    let bits = 8 * padded.len() as u64;
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&bits.to_be_bytes());
}

fn bytes(state: [u32; 8]) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_a_time_gives_the_hashes_that_one_by_one_gives() {
        let messages: Vec<Vec<u8>> = (0..301usize)
            .map(|number| {
                (0..number * 37 % 301)
                    .map(|at| (at * number) as u8)
                    .collect()
            })
            .collect();
        let one_by_one: Vec<Hash> = messages.iter().map(|m| Sha256::digest(m).into()).collect();
        assert_eq!(digests(&messages), one_by_one);
        let leaves: Vec<Hash> = messages.iter().map(|m| leaf_hash(m)).collect();
        assert_eq!(leaf_hashes(&messages), leaves);
        assert_eq!(leaf_hashes(&messages[..1]), leaves[..1]);
        assert!(digests::<Vec<u8>>(&[]).is_empty());
    }

    #[test]
    fn every_length_around_a_block_is_padded_rightly() {
        for length in 0..200 {
            let pair = [vec![7u8; length], vec![9u8; 200 - length]];
            let expected: Vec<Hash> = pair.iter().map(|m| Sha256::digest(m).into()).collect();
            assert_eq!(digests(&pair), expected, "length {length}");
        }
    }
}
