//! Tiles (C2SP tlog-tiles): the stored form of the tree, 256 hashes at a time.
//!
//! Owns which tiles an append touches and what their bytes become.
//! Refuses stored tiles that are shorter than the tree says.
//!
//! The caller stores one value per (level, index) and overwrites it as the tile grows. A tile at
//! level l holds the roots of full tiles at level l - 1, so a partial tile is in no tile above it.

mod bundle;
mod path;

pub use bundle::{BundleError, ENTRY_BYTES_MAX, encode_bundle, parse_bundle};
pub use path::{PathError, TilePath, TileTree};

use crate::frontier::{Frontier, FrontierError};
use crate::hash::{Hash, SIZE_MAX, root_of};
use std::collections::BTreeMap;
use std::error::Error;

/// Levels of the tree between two levels of tiles.
pub const TILE_HEIGHT: u32 = 8;

/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;

/// Where stored tiles are read from.
pub trait TileReader {
    /// The stored bytes of the widest version of a tile; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError`] when the storage fails; a missing tile is no failure.
    fn tile(&self, level: u8, index: u64) -> Result<Option<Vec<u8>>, ReadError>;
}

/// Tiles in memory, keyed by (level, index).
impl TileReader for BTreeMap<(u8, u64), Vec<u8>> {
    fn tile(&self, level: u8, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.get(&(level, index)).cloned())
    }
}

/// The storage below a [`TileReader`] failed; the source says how.
#[derive(Debug, thiserror::Error)]
#[error("the storage of tiles failed; see its own report, then try again")]
pub struct ReadError(#[source] Box<dyn Error + Send + Sync>);

impl ReadError {
    /// Wraps what the storage reported.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Why hashes could not be had from stored tiles.
#[derive(Debug, thiserror::Error)]
pub enum TileError {
    /// The storage failed.
    #[error("tile `{level}/{index}` could not be read")]
    Read {
        /// Level of the tile.
        level: u8,
        /// Index within the level.
        index: u64,
        /// What the storage reported.
        source: ReadError,
    },
    /// The tree has this tile, the storage does not.
    #[error("tile `{level}/{index}` is not stored; rebuild the tiles from the entries")]
    Missing {
        /// Level of the tile.
        level: u8,
        /// Index within the level.
        index: u64,
    },
    /// The stored tile has fewer hashes than the tree says, or is not whole hashes.
    #[error(
        "tile `{level}/{index}` has `{length}` bytes, the tree needs `{needed}`; rebuild the tiles from the entries"
    )]
    Short {
        /// Level of the tile.
        level: u8,
        /// Index within the level.
        index: u64,
        /// Bytes stored.
        length: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The tree is larger than this crate handles.
    #[error("the tree size exceeds the limit")]
    Size(#[from] FrontierError),
}

/// One tile to be stored, replacing what is stored at (level, index).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileWrite {
    /// Level of the tile, 0 for leaf hashes.
    pub level: u8,
    /// Index within the level.
    pub index: u64,
    /// The hashes, 32 bytes each.
    pub bytes: Vec<u8>,
    /// Number of hashes, 1 to [`TILE_WIDTH`].
    pub width: u16,
}

impl TileWrite {
    /// The path under which C2SP clients ask for it.
    pub fn path(&self) -> TilePath {
        TilePath::of(
            TileTree::Hashes { level: self.level },
            self.index,
            self.width,
        )
    }
}

/// The right edge of a tree: its frontier, and the hashes of the partial tile at each level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeEdge {
    frontier: Frontier,
    /// By level; each has floor(size / 256^level) mod 256 hashes.
    partial: Vec<Vec<Hash>>,
}

impl TreeEdge {
    /// The edge of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of the tree of `size` leaves, out of its stored tiles (one per level).
    ///
    /// Stored tiles may be wider than `size` says: after a crash between two writes, or when an
    /// older size is asked for. Compare the frontier's root with the signed checkpoint.
    ///
    /// # Errors
    /// [`TileError`].
    pub fn load(tiles: &impl TileReader, size: u64) -> Result<Self, TileError> {
        if size > SIZE_MAX {
            return Err(FrontierError::TooLarge { size }.into());
        }
        let mut partial = Vec::new();
        let mut peaks = Vec::new();
        let mut hashes = size;
        for level in 0.. {
            if hashes == 0 {
                break;
            }
            let width = (hashes % TILE_WIDTH as u64) as usize;
            let index = hashes / TILE_WIDTH as u64;
            partial.push(match width {
                0 => Vec::new(),
                _ => read_tile(tiles, level, index, width)?,
            });
            hashes = index;
        }
        for tile in partial.iter().rev() {
            peaks.extend(peaks_within(tile));
        }
        let frontier = Frontier::from_parts(size, peaks)?;
        Ok(Self { frontier, partial })
    }

    /// The frontier of the tree.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }
}

/// Which tiles to store so that the tree of `state` grows by these leaves, and the edge after it.
///
/// Each touched tile comes once, in its final form, ordered by (level, index). `state` stays as it
/// is: keep the edge returned only once the tiles are stored.
pub fn plan_append(state: &TreeEdge, leaf_hashes: &[Hash]) -> (TreeEdge, Vec<TileWrite>) {
    let mut edge = state.clone();
    let mut writes = Vec::new();
    let TreeEdge { frontier, partial } = &mut edge;
    for leaf_hash in leaf_hashes {
        let index = frontier.size();
        frontier.append_visiting(*leaf_hash, |height, node| {
            if height % TILE_HEIGHT != 0 {
                return;
            }
            let level = (height / TILE_HEIGHT) as usize;
            if partial.len() == level {
                partial.push(Vec::with_capacity(TILE_WIDTH));
            }
            let tile = &mut partial[level];
            tile.push(node);
            if tile.len() == TILE_WIDTH {
                writes.push(write(level, index, tile));
                tile.clear();
            }
        });
    }
    let added = leaf_hashes.len() as u64;
    for (level, tile) in edge.partial.iter().enumerate() {
        // A level is touched when the append added at least one hash to it.
        let hashes_before = hashes_at(level, edge.frontier.size() - added);
        if !tile.is_empty() && hashes_at(level, edge.frontier.size()) > hashes_before {
            writes.push(write(level, edge.frontier.size(), tile));
        }
    }
    writes.sort_by_key(|write| (write.level, write.index));
    (edge, writes)
}

/// Number of hashes at a level of tiles in a tree of `size` leaves.
fn hashes_at(level: usize, size: u64) -> u64 {
    size.checked_shr(TILE_HEIGHT * level as u32).unwrap_or(0)
}

/// The write of the tile at `level` that covers leaf `leaf`.
fn write(level: usize, leaf: u64, tile: &[Hash]) -> TileWrite {
    TileWrite {
        level: level as u8,
        index: hashes_at(level + 1, leaf),
        bytes: tile.concat(),
        width: tile.len() as u16,
    }
}

/// The first `width` hashes of a stored tile.
pub(crate) fn read_tile(
    tiles: &impl TileReader,
    level: u8,
    index: u64,
    width: usize,
) -> Result<Vec<Hash>, TileError> {
    let bytes = tiles
        .tile(level, index)
        .map_err(|source| TileError::Read {
            level,
            index,
            source,
        })?
        .ok_or(TileError::Missing { level, index })?;
    match bytes.as_chunks::<32>() {
        (hashes, []) if (width..=TILE_WIDTH).contains(&hashes.len()) => {
            Ok(hashes[..width].to_vec())
        }
        _ => Err(TileError::Short {
            level,
            index,
            length: bytes.len(),
            needed: width * 32,
        }),
    }
}

/// Roots of the complete subtrees over a partial tile's hashes, tallest first.
fn peaks_within(mut tile: &[Hash]) -> Vec<Hash> {
    let mut peaks = Vec::new();
    while !tile.is_empty() {
        let (complete, rest) = tile.split_at(1 << tile.len().ilog2());
        peaks.push(root_of(complete));
        tile = rest;
    }
    peaks
}
