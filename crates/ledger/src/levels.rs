//! A whole tree at the levels of tiles: its leaves, the roots of 256 leaves, of 65,536, and so on.
//!
//! Owns the root of every beginning of the tree, and every tile in its widest form, for whoever
//! checks a ledger that is stored. It needs all leaves in memory; what appends to a ledger keeps a
//! [`crate::tile::TreeEdge`].
//! Refuses nothing.

use crate::hash::{Hash, empty_root, root_of};
use crate::tile::TILE_WIDTH;

/// The hashes of a tree, by level of tiles; none is empty but the only one.
#[derive(Clone, Debug)]
pub struct Levels(Vec<Vec<Hash>>);

impl Levels {
    /// The tree over these leaf hashes.
    pub fn of(leaves: Vec<Hash>) -> Self {
        let roots = above(&leaves);
        Self::with_roots(leaves, roots)
    }

    /// The same, with the roots of all full tiles of leaves, in order, which the caller computed: on
    /// several threads perhaps.
    pub fn with_roots(leaves: Vec<Hash>, roots: Vec<Hash>) -> Self {
        debug_assert_eq!(roots.len(), leaves.len() / TILE_WIDTH);
        let mut levels = vec![leaves];
        let mut next = roots;
        while !next.is_empty() {
            let over = above(&next);
            levels.push(next);
            next = over;
        }
        Self(levels)
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.0[0].len() as u64
    }

    /// The root of the tree of the first `size` leaves; `None` when there are fewer.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        let size = usize::try_from(size).ok()?;
        self.0[0].get(..size)?;
        // What is under no full tile yet: it stands to the right of the tiles as one node.
        let mut rest = None;
        let mut count = size;
        for level in &self.0 {
            let full = count / TILE_WIDTH;
            let mut nodes = level[full * TILE_WIDTH..count].to_vec();
            nodes.extend(rest);
            rest = (!nodes.is_empty()).then(|| root_of(&nodes));
            count = full;
        }
        Some(rest.unwrap_or_else(empty_root))
    }

    /// Every tile in its widest form: level, index, hashes.
    pub fn tiles(&self) -> impl Iterator<Item = (u8, u64, &[Hash])> {
        (0..).zip(&self.0).flat_map(|(level, hashes)| {
            let tiles = (0..).zip(hashes.chunks(TILE_WIDTH));
            tiles.map(move |(index, tile)| (level, index, tile))
        })
    }
}

fn above(hashes: &[Hash]) -> Vec<Hash> {
    let (tiles, _) = hashes.as_chunks::<TILE_WIDTH>();
    tiles.iter().map(|tile| root_of(tile)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::tile::{TreeEdge, plan_append};
    use std::collections::BTreeMap;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn every_beginning_has_the_root_that_appending_gives() {
        // Beyond two levels of full tiles.
        let all = leaves(66_000);
        let levels = Levels::of(all.clone());
        assert_eq!(levels.size(), 66_000);
        assert_eq!(levels.root_at(66_001), None);
        for size in (0..1030)
            .chain((1030..66_000).step_by(4_999))
            .chain(65_530..65_800)
        {
            let expected = root_of(&all[..size as usize]);
            assert_eq!(levels.root_at(size), Some(expected), "{size}");
        }
    }

    #[test]
    fn the_tiles_are_those_that_appending_writes() {
        for size in [0, 1, 255, 256, 257, 512, 66_000] {
            let all = leaves(size);
            let (_, writes) = plan_append(&TreeEdge::new(), &all);
            let written: BTreeMap<(u8, u64), Vec<u8>> = writes
                .into_iter()
                .map(|write| ((write.level, write.index), write.bytes))
                .collect();
            let levels = Levels::of(all);
            let given: BTreeMap<(u8, u64), Vec<u8>> = levels
                .tiles()
                .map(|(level, index, tile)| ((level, index), tile.concat()))
                .collect();
            assert_eq!(given, written, "{size}");
        }
    }
}
