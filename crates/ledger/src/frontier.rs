//! The frontier of a tree: the roots of its complete subtrees, enough to append and to state the root.
//!
//! Owns the correspondence between a size and its peaks: one peak for each bit set in the size,
//! the tallest subtree first.
//! Refuses parts that do not correspond.
//! This is all that a parent keeps of a ledger in order to verify what is appended to it.

use crate::hash::{Hash, SIZE_MAX, empty_root, node_hash};

/// Size and peaks of an append-only tree (a "compact range" that starts at leaf 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One per bit set in `size`, tallest subtree first.
    peaks: Vec<Hash>,
}

/// Why parts or bytes are not a frontier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The size exceeds [`SIZE_MAX`].
    #[error(
        "a tree size of `{size}` exceeds the limit of `{SIZE_MAX}`; the source is damaged, fetch it again"
    )]
    TooLarge {
        /// The size given.
        size: u64,
    },
    /// The number of peaks is not the number of bits set in the size.
    #[error(
        "a tree of `{size}` leaves has `{expected}` peaks, not `{given}`; the source is damaged, fetch it again"
    )]
    PeakCount {
        /// The size given.
        size: u64,
        /// Peaks that a tree of this size has.
        expected: usize,
        /// Peaks given.
        given: usize,
    },
    /// The bytes are not 8 bytes of size followed by whole hashes.
    #[error("a frontier of `{length}` bytes is cut; fetch it again")]
    Cut {
        /// Length of the bytes given.
        length: usize,
    },
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier out of its size and its peaks, tallest subtree first.
    ///
    /// # Errors
    /// [`FrontierError`] when the two do not correspond. Whether the peaks are the right ones only a
    /// signed root can tell: compare [`Frontier::root`].
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > SIZE_MAX {
            return Err(FrontierError::TooLarge { size });
        }
        let expected = size.count_ones() as usize;
        if peaks.len() != expected {
            let given = peaks.len();
            return Err(FrontierError::PeakCount {
                size,
                expected,
                given,
            });
        }
        Ok(Self { size, peaks })
    }

    /// The size as 8 bytes, big-endian, then the peaks of 32 bytes each.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.peaks.iter().flatten());
        bytes
    }

    /// The frontier that [`Frontier::encode`] wrote.
    ///
    /// # Errors
    /// [`FrontierError`] when the bytes are cut, too long, or do not correspond to each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrontierError> {
        let cut = FrontierError::Cut {
            length: bytes.len(),
        };
        let Some((size, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(cut);
        };
        let (peaks, []) = rest.as_chunks::<32>() else {
            return Err(cut);
        };
        // The count is checked before the peaks are copied: a frontier has at most 63 of them.
        let size = u64::from_be_bytes(*size);
        let expected = size.count_ones() as usize;
        if peaks.len() != expected {
            let given = peaks.len();
            return Err(FrontierError::PeakCount {
                size,
                expected,
                given,
            });
        }
        Self::from_parts(size, peaks.to_vec())
    }

    /// Appends one leaf by its hash; one inner node is hashed per leaf on average.
    pub fn append(&mut self, leaf_hash: Hash) {
        self.append_visiting(leaf_hash, |_, _| {});
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, tallest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Root of the tree, RFC 6962 section 2.1.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => empty_root(),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// Appends, and shows each node of a complete subtree that comes into being, with its height,
    /// from the leaf (height 0) upward.
    pub(crate) fn append_visiting(&mut self, leaf_hash: Hash, mut visit: impl FnMut(u32, Hash)) {
        visit(0, leaf_hash);
        let mut node = leaf_hash;
        // Each trailing one bit of the old size is a peak as tall as what is being added.
        for height in 1..=self.size.trailing_ones() {
            let left = self
                .peaks
                .pop()
                .expect("there is a peak for every bit set in the size");
            node = node_hash(&left, &node);
            visit(height, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{leaf_hash, root_of};

    #[test]
    fn the_frontier_states_the_root_of_the_recursive_definition() {
        let mut frontier = Frontier::new();
        let mut leaves = Vec::new();
        for number in 0..600u32 {
            assert_eq!(frontier.root(), root_of(&leaves));
            assert_eq!(frontier.size(), u64::from(number));
            assert_eq!(Frontier::parse(&frontier.encode()).unwrap(), frontier);
            let leaf = leaf_hash(&number.to_be_bytes());
            leaves.push(leaf);
            frontier.append(leaf);
        }
    }

    #[test]
    fn parts_that_do_not_correspond_are_refused() {
        assert!(Frontier::from_parts(0, vec![]).is_ok());
        assert!(Frontier::from_parts(5, vec![[0; 32]; 2]).is_ok());
        for (size, count) in [(0, 1), (5, 1), (5, 3), (8, 0), (8, 3)] {
            assert!(matches!(
                Frontier::from_parts(size, vec![[0; 32]; count]),
                Err(FrontierError::PeakCount { .. })
            ));
        }
        assert!(matches!(
            Frontier::from_parts(1 << 63, vec![[0; 32]]),
            Err(FrontierError::TooLarge { .. })
        ));
    }

    #[test]
    fn bytes_that_are_cut_or_padded_are_refused() {
        let mut frontier = Frontier::new();
        frontier.append([1; 32]);
        let bytes = frontier.encode();
        for length in 0..bytes.len() {
            assert!(Frontier::parse(&bytes[..length]).is_err());
        }
        assert!(Frontier::parse(&[bytes.clone(), vec![0]].concat()).is_err());
        assert!(Frontier::parse(&[bytes, vec![0; 32]].concat()).is_err());
    }
}
