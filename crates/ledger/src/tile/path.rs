//! Paths of tiles and entry bundles, as C2SP tlog-tiles spells them in a URL.
//!
//! Owns the spelling `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`.
//! Refuses every other spelling, so that one tile has one path.

use super::TILE_WIDTH;
use crate::format::decimal;
use std::fmt;

/// The highest level that a path may name.
const LEVEL_MAX: u64 = 63;

/// The longest path that is looked at: 19 digits of index with separators stay below it.
const PATH_BYTES_MAX: usize = 64;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileTree {
    /// Hashes at a level of the tree, 0 for leaf hashes.
    Hashes {
        /// 0 to 63.
        level: u8,
    },
    /// The entries below the level-0 tile of the same index.
    Entries,
}

/// Why a path is not a tile's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not of the form `tile/<L>/<N>` or `tile/entries/<N>`.
    #[error(
        "the path is not `tile/<level>/<index>` or `tile/entries/<index>`; see C2SP tlog-tiles"
    )]
    Shape,
    /// The level is not a plain number of at most 63.
    #[error("the level of the tile path is not a plain number from 0 to 63")]
    Level,
    /// The index is not in groups of three digits in their one spelling.
    #[error("the index of the tile path is not in groups of three digits like `x001/x234/067`")]
    Index,
    /// The width is not a plain number from 1 to 255.
    #[error(
        "the width of the tile path is not a plain number from 1 to 255; leave `.p/` out for a full tile"
    )]
    Width,
}

/// Which tile or bundle, and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    tree: TileTree,
    index: u64,
    /// 1 to [`TILE_WIDTH`].
    width: u16,
}

impl TilePath {
    /// A path out of its parts; `None` when level or width is out of range.
    pub fn new(tree: TileTree, index: u64, width: u16) -> Option<Self> {
        let level_fits = match tree {
            TileTree::Hashes { level } => u64::from(level) <= LEVEL_MAX,
            TileTree::Entries => true,
        };
        let width_fits = (1..=TILE_WIDTH).contains(&usize::from(width));
        (level_fits && width_fits).then_some(Self { tree, index, width })
    }

    /// A path out of parts that are in range.
    pub(super) fn of(tree: TileTree, index: u64, width: u16) -> Self {
        Self { tree, index, width }
    }

    /// Reads a path, without a leading slash.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(path: &[u8]) -> Result<Self, PathError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::Shape);
        }
        let path = str::from_utf8(path).map_err(|_| PathError::Shape)?;
        let (tree, rest) = path
            .strip_prefix("tile/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(PathError::Shape)?;
        let tree = match tree {
            "entries" => TileTree::Entries,
            level => {
                let level = decimal(level).filter(|level| *level <= LEVEL_MAX);
                let level = level.ok_or(PathError::Level)? as u8;
                TileTree::Hashes { level }
            }
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH as u16),
            Some((index, width)) => {
                let width = decimal(width).filter(|width| (1..TILE_WIDTH as u64).contains(width));
                (index, width.ok_or(PathError::Width)? as u16)
            }
        };
        let index = parse_index(index).ok_or(PathError::Index)?;
        Ok(Self { tree, index, width })
    }

    /// Hashes or entries.
    pub fn tree(&self) -> TileTree {
        self.tree
    }

    /// Index within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of hashes or entries, 256 for a full tile.
    pub fn width(&self) -> u16 {
        self.width
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tree {
            TileTree::Hashes { level } => write!(formatter, "tile/{level}/")?,
            TileTree::Entries => write!(formatter, "tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        let last = groups[0];
        for group in groups.iter().skip(1).rev() {
            write!(formatter, "x{group:03}/")?;
        }
        write!(formatter, "{last:03}")?;
        if usize::from(self.width) < TILE_WIDTH {
            write!(formatter, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// An index in groups of three digits, all but the last behind an `x`, the first not `x000`.
fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        let plain = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let redundant = first && groups.peek().is_some() && digits == "000";
        if !plain || redundant {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        first = false;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        let hashes = |level| TileTree::Hashes { level };
        for (text, tree, index, width) in [
            ("tile/0/000", hashes(0), 0, 256),
            ("tile/0/x001/x234/067", hashes(0), 1_234_067, 256),
            ("tile/1/000.p/17", hashes(1), 0, 17),
            ("tile/63/999.p/255", hashes(63), 999, 255),
            ("tile/entries/x001/000.p/1", TileTree::Entries, 1000, 1),
            (
                "tile/0/x018/x446/x744/x073/x709/x551/615",
                hashes(0),
                u64::MAX,
                256,
            ),
        ] {
            let path = TilePath::parse(text.as_bytes()).unwrap();
            assert_eq!(path, TilePath::new(tree, index, width).unwrap());
            assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for (text, error) in [
            ("", PathError::Shape),
            ("/tile/0/000", PathError::Shape),
            ("tile/8/0/000", PathError::Index),
            ("tile/0", PathError::Shape),
            ("tile/00/000", PathError::Level),
            ("tile/64/000", PathError::Level),
            ("tile/-1/000", PathError::Level),
            ("tile/0/0", PathError::Index),
            ("tile/0/", PathError::Index),
            ("tile/0/0000", PathError::Index),
            ("tile/0/x000/001", PathError::Index),
            ("tile/0/001/002", PathError::Index),
            ("tile/0/x001", PathError::Index),
            ("tile/0/x001/", PathError::Index),
            ("tile/0/+01", PathError::Index),
            ("tile/0/x018/x446/x744/x073/x709/x551/616", PathError::Index),
            ("tile/0/000.p/0", PathError::Width),
            ("tile/0/000.p/256", PathError::Width),
            ("tile/0/000.p/01", PathError::Width),
            ("tile/0/000.p/", PathError::Width),
            ("tile/0/000.p", PathError::Index),
        ] {
            assert_eq!(TilePath::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(TilePath::new(TileTree::Entries, 0, 0), None);
        assert_eq!(TilePath::new(TileTree::Entries, 0, 257), None);
        assert_eq!(TilePath::new(TileTree::Hashes { level: 64 }, 0, 1), None);
    }
}
