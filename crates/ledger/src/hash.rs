//! Hashing of RFC 6962 section 2.1: leaves, inner nodes and the root over a list of leaves.
//!
//! Owns the two domain prefixes (0x00 for a leaf, 0x01 for an inner node).
//! Refuses nothing: every byte string is a leaf.

use std::hint::black_box;

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

/// Root over leaf hashes (not entries), RFC 6962 section 2.1.
///
/// Level by level, which is the recursive definition from below: a node without a neighbour goes
/// up as it is. It needs all leaves in memory; [`crate::frontier::Frontier`] gives the same root
/// while keeping only one hash per level.
pub fn root_of(leaf_hashes: &[Hash]) -> Hash {
    let mut level = match leaf_hashes {
        [] => return empty_root(),
        [leaf] => return *leaf,
        _ => parents(leaf_hashes),
    };
    while level.len() > 1 {
        level = parents(&level);
    }
    level[0]
}

/// The nodes over these hashes, two at a time: see [`digests`]. One that is left over is the last
/// as it is.
pub fn parents(hashes: &[Hash]) -> Vec<Hash> {
    let (nodes, rest) = hashes.as_chunks::<2>();
    let mut parents = Vec::with_capacity(nodes.len() + 1);
    // Laid out some nodes ahead: a core that hashes what it has just written waits for it.
    let mut laid_out = [[[0; 64]; 2]; 16];
    for nodes in nodes.chunks(laid_out.len()) {
        for (blocks, node) in laid_out.iter_mut().zip(nodes) {
            *blocks = node_blocks(node);
        }
        let (pairs, last) = laid_out[..nodes.len()].as_chunks::<2>();
        for [left, right] in pairs {
            let (mut a, mut b) = (INITIAL, INITIAL);
            for (left, right) in left.iter().zip(right) {
                compress256(&mut a, std::slice::from_ref(left));
                compress256(&mut b, std::slice::from_ref(right));
            }
            parents.extend([bytes(a), bytes(b)]);
        }
        for blocks in last {
            let mut state = INITIAL;
            compress256(&mut state, blocks);
            parents.push(bytes(state));
        }
    }
    parents.extend(rest);
    parents
}

/// What is hashed for an inner node, padded.
fn node_blocks([left, right]: &[Hash; 2]) -> [[u8; 64]; 2] {
    let mut blocks = [[0; 64]; 2];
    blocks[0][0] = 0x01;
    blocks[0][1..33].copy_from_slice(left);
    blocks[0][33..].copy_from_slice(&right[..31]);
    blocks[1][0] = right[31];
    blocks[1][1] = 0x80;
    // 65 bytes are 520 bits.
    blocks[1][62..].copy_from_slice(&520u16.to_be_bytes());
    blocks
}

/// The largest power of two strictly smaller than `size`, which must be at least 2.
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

/// Messages that are laid out before they are hashed: enough that none is waited for, few enough
/// for the innermost cache.
const AHEAD: usize = 32;

/// Two messages are under way at any time, each a lane: one that ends makes room for the next.
fn pairwise<T: AsRef<[u8]>>(prefix: &[u8], messages: &[T]) -> Vec<Hash> {
    let mut hashes = vec![[0; 32]; messages.len()];
    let mut copied = Vec::new();
    for (hashes, messages) in hashes.chunks_mut(AHEAD).zip(messages.chunks(AHEAD)) {
        // Ahead of all hashing: a core that hashes what it has just written waits for it.
        copied.clear();
        let mut ends = [0; AHEAD];
        for (end, message) in ends.iter_mut().zip(messages) {
            fetch(message.as_ref());
            lay_out(prefix, message.as_ref(), &mut copied);
            *end = copied.len();
        }
        let mut begin = 0;
        let mut queue = hashes.iter_mut().zip(messages).zip(ends);
        let mut next = || {
            let ((hash, message), end) = queue.next()?;
            let (whole, _) = in_place(prefix, message.as_ref());
            let copied = &copied[std::mem::replace(&mut begin, end)..end];
            let state = INITIAL;
            Some(Lane {
                hash,
                state,
                whole,
                copied,
            })
        };
        let (mut one, mut other) = (next(), next());
        while let (Some(left), Some(right)) = (&mut one, &mut other) {
            let (of_left, of_right) = (left.blocks(), right.blocks());
            let both = of_left.len().min(of_right.len());
            let (mut a, mut b) = (left.state, right.state);
            for (left, right) in of_left.iter().zip(of_right) {
                compress256(&mut a, std::slice::from_ref(left));
                compress256(&mut b, std::slice::from_ref(right));
            }
            (left.state, right.state) = (a, b);
            let (left_ends, right_ends) = (left.ends_after(both), right.ends_after(both));
            if left_ends {
                one = next();
            }
            if right_ends {
                other = next();
            }
        }
        if let Some(mut last) = one.or(other) {
            compress256(&mut last.state, last.whole);
            compress256(&mut last.state, last.copied);
            *last.hash = bytes(last.state);
        }
    }
    hashes
}

/// Brings a message into the innermost cache: its lines are waited for all at once, not one after
/// the other while it is hashed.
fn fetch(message: &[u8]) {
    let lines = message.iter().step_by(64);
    black_box(lines.fold(0, |all, byte| all ^ byte));
}

/// A message being hashed: the blocks in place, then those with the prefix or the padding.
struct Lane<'h, 'b> {
    hash: &'h mut Hash,
    state: [u32; 8],
    /// Blocks of the message as it lies there.
    whole: &'b [[u8; 64]],
    /// What had to be copied: all of a message with a prefix, else its end.
    copied: &'b [[u8; 64]],
}

impl<'b> Lane<'_, 'b> {
    /// The blocks that follow.
    fn blocks(&self) -> &'b [[u8; 64]] {
        match self.whole {
            [] => self.copied,
            whole => whole,
        }
    }

    /// Goes on after so many blocks; whether they were the last, and the hash is there.
    fn ends_after(&mut self, count: usize) -> bool {
        match self.whole {
            [] => self.copied = &self.copied[count..],
            whole => self.whole = &whole[count..],
        }
        let ends = self.whole.is_empty() && self.copied.is_empty();
        if ends {
            *self.hash = bytes(self.state);
        }
        ends
    }
}

/// The blocks of a message that can be hashed where they lie, and the rest.
fn in_place<'a>(prefix: &[u8], message: &'a [u8]) -> (&'a [[u8; 64]], &'a [u8]) {
    match prefix {
        [] => message.as_chunks(),
        _ => (&[][..], message),
    }
}

/// Appends what has to be copied of a message, padded: there is always some.
fn lay_out(prefix: &[u8], message: &[u8], copied: &mut Vec<[u8; 64]>) {
    let (_, rest) = in_place(prefix, message);
    let (begin, len) = (copied.len(), prefix.len() + rest.len());
    // FIPS 180-4 section 5.1.1: a one bit, zeros, and the length in bits.
    copied.resize(begin + (len + 9).div_ceil(64), [0; 64]);
    let flat = copied[begin..].as_flattened_mut();
    flat[..prefix.len()].copy_from_slice(prefix);
    flat[prefix.len()..len].copy_from_slice(rest);
    flat[len] = 0x80;
    let bits = 8 * (prefix.len() + message.len()) as u64;
    let end = flat.len() - 8;
    flat[end..].copy_from_slice(&bits.to_be_bytes());
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

    /// RFC 6962 section 2.1 word by word.
    fn recursive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split_point(leaves.len() as u64) as usize);
                node_hash(&recursive(left), &recursive(right))
            }
        }
    }

    #[test]
    fn the_root_level_by_level_is_that_of_the_recursive_definition() {
        let leaves: Vec<Hash> = (0..300u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        for size in 0..leaves.len() {
            assert_eq!(
                root_of(&leaves[..size]),
                recursive(&leaves[..size]),
                "{size}"
            );
        }
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
