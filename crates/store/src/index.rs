//! sled as the index over the segments: key to pointer, never a value.
//!
//! Owns `dir/index/`; what sled 0.34.7 leaves undone is done here: its `flush` does not fsync,
//! so a checkpoint syncs its file through a handle of our own.
//! Refuses to be the truth: whatever is wrong with it, it is rebuilt from the segments.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::{CommitError, ReadError};
use crate::format::Pointer;
use crate::frame::Kind;
use crate::segment;

/// The file that asks the next opening to rebuild the index.
pub(crate) const SUSPECT: &str = "index.suspect";

/// sled failed.
#[derive(Clone, Debug)]
pub(crate) struct IndexError {
    /// sled's own text.
    pub detail: String,
    /// The index contradicts itself, so reading it again would not help.
    suspect: bool,
}

impl IndexError {
    pub(crate) fn inconsistent(detail: &str) -> IndexError {
        let detail = detail.to_owned();
        IndexError {
            detail,
            suspect: true,
        }
    }

    pub(crate) fn panicked() -> IndexError {
        IndexError::inconsistent("sled panicked")
    }

    /// Asks the next opening of the store in `dir` to rebuild a suspect index. Best effort:
    /// without the note the same fault shows again.
    pub(crate) fn note(&self, dir: &Path) {
        if !self.suspect {
            return;
        }
        if let Err(error) = std::fs::write(dir.join(SUSPECT), b"") {
            tracing::warn!(%error, "cannot note that the index has to be rebuilt");
        }
    }
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> IndexError {
        IndexError {
            detail: error.to_string(),
            // A disk that is full or gone says nothing against what lies on it.
            suspect: !matches!(error, sled::Error::Io(_)),
        }
    }
}

impl From<IndexError> for ReadError {
    fn from(error: IndexError) -> ReadError {
        ReadError::Index {
            detail: error.detail,
        }
    }
}

impl From<IndexError> for CommitError {
    fn from(error: IndexError) -> CommitError {
        CommitError::Index {
            detail: error.detail,
        }
    }
}

/// Where a group ends and the next begins, and the sequence number that the next will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub segment: u32,
    pub offset: u32,
    pub sequence: u64,
}

impl Place {
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Place> {
        Some(Place {
            segment: u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?),
            offset: u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?),
            sequence: u64::from_le_bytes(bytes.get(8..)?.try_into().ok()?),
        })
    }
}

/// What one or more groups change in the index.
#[derive(Default)]
pub(crate) struct Changes {
    keys: sled::Batch,
    heads: sled::Batch,
    count: usize,
}

impl Changes {
    pub(crate) fn insert(&mut self, key: &[u8], pointer: Pointer, kind: Kind) {
        let mut bytes = [0; 13];
        bytes[..12].copy_from_slice(&pointer.encode());
        bytes[12] = kind as u8;
        self.keys.insert(key, &bytes);
        self.count += 1;
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.keys.remove(key);
        self.count += 1;
    }

    pub(crate) fn head(&mut self, shard: &str, head: u64) {
        self.heads.insert(shard.as_bytes(), &head.to_le_bytes());
        self.count += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// sled's three trees.
pub(crate) struct Index {
    path: PathBuf,
    db: sled::Db,
    keys: sled::Tree,
    heads: sled::Tree,
    meta: sled::Tree,
}

impl Index {
    /// Opens or makes it. sled panics on some damage; that is an error here like any other.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Index, IndexError> {
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Index, IndexError> {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                .flush_every_ms(None)
                .open()?;
            Ok(Index {
                path: path.to_owned(),
                keys: db.open_tree("keys")?,
                heads: db.open_tree("heads")?,
                meta: db.open_tree("meta")?,
                db,
            })
        }));
        opened.unwrap_or_else(|_| Err(IndexError::panicked()))
    }

    /// Up to where everything is durably in the index; `None` when there is no such note.
    pub(crate) fn marker(&self) -> Result<Option<Place>, IndexError> {
        self.place("marker")
    }

    /// Up to where groups were durable in the segments when the index last heard of one.
    pub(crate) fn applied(&self) -> Result<Option<Place>, IndexError> {
        self.place("applied")
    }

    fn place(&self, name: &str) -> Result<Option<Place>, IndexError> {
        let Some(bytes) = self.meta.get(name)? else {
            return Ok(None);
        };
        match Place::decode(&bytes) {
            Some(place) => Ok(Some(place)),
            None => Err(IndexError::inconsistent("one of its notes is malformed")),
        }
    }

    pub(crate) fn heads(&self) -> Result<BTreeMap<String, u64>, IndexError> {
        let malformed = || IndexError::inconsistent("its list of heads is malformed");
        let mut heads = BTreeMap::new();
        for row in &self.heads {
            let (shard, head) = row?;
            let shard = std::str::from_utf8(&shard).map_err(|_| malformed())?;
            let head = head.as_ref().try_into().map_err(|_| malformed())?;
            heads.insert(shard.to_owned(), u64::from_le_bytes(head));
        }
        Ok(heads)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<(Pointer, Kind)>, IndexError> {
        self.keys.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// The first `limit` keys of a range.
    pub(crate) fn range(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<(sled::IVec, Pointer)>, IndexError> {
        let rows = self.keys.range(start..end).take(limit);
        rows.map(|row| {
            let (key, bytes) = row?;
            Ok((key, decode(&bytes)?.0))
        })
        .collect()
    }

    /// Takes in groups that are durable and end at `applied`.
    pub(crate) fn apply(&self, changes: Changes, applied: Place) -> Result<(), IndexError> {
        // First, so that an index that knows of a group also knows that the group was durable.
        self.meta.insert("applied", &applied.encode())?;
        self.keys.apply_batch(changes.keys)?;
        self.heads.apply_batch(changes.heads)?;
        Ok(())
    }

    /// Makes everything applied so far durable, then notes that it is.
    pub(crate) fn checkpoint(&self, marker: Place) -> Result<(), IndexError> {
        self.sync()?;
        // Only behind the sync: a note that outruns what it speaks of would lose keys.
        self.meta.insert("marker", &marker.encode())?;
        self.sync()
    }

    fn sync(&self) -> Result<(), IndexError> {
        self.db.flush()?;
        File::open(self.path.join("db"))
            .and_then(|file| file.sync_data())
            .and_then(|()| segment::sync_dir(&self.path))
            .map_err(|error| sled::Error::Io(error).into())
    }
}

fn decode(bytes: &[u8]) -> Result<(Pointer, Kind), IndexError> {
    let pointer = bytes.get(..12).and_then(Pointer::decode);
    let kind = bytes.get(12).and_then(|&kind| Kind::from_byte(kind));
    pointer
        .zip(kind)
        .ok_or_else(|| IndexError::inconsistent("one of its pointers is malformed"))
}
