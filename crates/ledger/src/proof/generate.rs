//! Making proofs out of stored tiles, for the present size or any earlier one.
//!
//! Owns which hashes a proof has (RFC 6962 sections 2.1.1 and 2.1.2).
//! Refuses places outside the tree; reads each tile once, O(log size) of them.

use crate::hash::{Hash, SIZE_MAX, node_hash, root_of, split_point};
use crate::tile::{TILE_HEIGHT, TILE_WIDTH, TileError, TileReader, read_tile};
use std::collections::BTreeMap;

/// Why a proof was not made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The index is not below the size.
    #[error(
        "there is no leaf `{index}` in a tree of `{size}`; ask for a lower index or a larger tree"
    )]
    NoSuchLeaf {
        /// Index asked for.
        index: u64,
        /// Size asked for.
        size: u64,
    },
    /// The older size is above the newer.
    #[error("a tree of `{new_size}` leaves cannot extend one of `{old_size}`; swap the sizes")]
    Backward {
        /// Older size asked for.
        old_size: u64,
        /// Newer size asked for.
        new_size: u64,
    },
    /// The tiles do not have what is needed.
    #[error("the proof could not be made from the stored tiles")]
    Tile(#[from] TileError),
}

/// The hashes that prove leaf `index` to be in the tree of `size` leaves, leaf to root.
///
/// `size` may be any size up to the one stored.
///
/// # Errors
/// [`ProveError`].
pub fn inclusion(tiles: &impl TileReader, index: u64, size: u64) -> Result<Vec<Hash>, ProveError> {
    if index >= size || size > SIZE_MAX {
        return Err(ProveError::NoSuchLeaf { index, size });
    }
    let mut nodes = Nodes::new(tiles, size);
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split_point(end - start);
        if index < middle {
            proof.push(nodes.range(middle, end)?);
            end = middle;
        } else {
            proof.push(nodes.range(start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that prove the tree of `new_size` leaves to begin with that of `old_size`.
///
/// Empty when the sizes are equal or the older tree is empty. Both sizes may be any size up to the
/// one stored.
///
/// # Errors
/// [`ProveError`].
pub fn consistency(
    tiles: &impl TileReader,
    old_size: u64,
    new_size: u64,
) -> Result<Vec<Hash>, ProveError> {
    if old_size > new_size || new_size > SIZE_MAX {
        return Err(ProveError::Backward { old_size, new_size });
    }
    if old_size == 0 || old_size == new_size {
        return Ok(Vec::new());
    }
    let mut nodes = Nodes::new(tiles, new_size);
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, new_size);
    while end != old_size {
        let middle = start + split_point(end - start);
        if old_size <= middle {
            proof.push(nodes.range(middle, end)?);
            end = middle;
        } else {
            proof.push(nodes.range(start, middle)?);
            start = middle;
        }
    }
    // When nothing was cut off on the left, what remains is the old tree itself, whose root the
    // verifier has.
    if start != 0 {
        proof.push(nodes.range(start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Inner nodes of a tree of one size, each tile read once.
struct Nodes<'a, R> {
    tiles: &'a R,
    size: u64,
    read: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl<'a, R: TileReader> Nodes<'a, R> {
    fn new(tiles: &'a R, size: u64) -> Self {
        let read = BTreeMap::new();
        Self { tiles, size, read }
    }

    /// Root over leaves `start..end`, a subtree of the RFC 6962 tree.
    fn range(&mut self, start: u64, end: u64) -> Result<Hash, TileError> {
        // Complete subtrees from left to right, each smaller than the one before.
        let mut peaks = Vec::new();
        let mut from = start;
        while from < end {
            let height = (end - from).ilog2();
            peaks.push(self.complete(height, from >> height)?);
            from += 1 << height;
        }
        let right = peaks.pop().expect("a range has at least one leaf");
        Ok(peaks
            .iter()
            .rfold(right, |right, left| node_hash(left, &right)))
    }

    /// Root of the complete subtree of 2^height leaves that is the `position`-th of its height.
    fn complete(&mut self, height: u32, position: u64) -> Result<Hash, TileError> {
        let level = height / TILE_HEIGHT;
        let spread = height % TILE_HEIGHT;
        let first = position << spread;
        let index = first / TILE_WIDTH as u64;
        let offset = (first % TILE_WIDTH as u64) as usize;
        let tile = self.tile(level, index)?;
        Ok(root_of(&tile[offset..offset + (1 << spread)]))
    }

    fn tile(&mut self, level: u32, index: u64) -> Result<&[Hash], TileError> {
        let key = (level as u8, index);
        if !self.read.contains_key(&key) {
            // The tile must be as wide as this tree has it, so every slice of it exists.
            let hashes = self.size >> (TILE_HEIGHT * level);
            let width = (hashes - index * TILE_WIDTH as u64).min(TILE_WIDTH as u64);
            let tile = read_tile(self.tiles, key.0, index, width as usize)?;
            self.read.insert(key, tile);
        }
        Ok(&self.read[&key])
    }
}
