//! sled as the index over the segments: key to pointer, never a value.
//!
//! Owns `dir/index/`. sled takes about 100,000 entries a second, so one entry of it holds a whole
//! block of neighbouring keys. And what sled 0.34.7 leaves undone is done here: its `flush` does
//! not fsync, so a checkpoint syncs its file through a handle of our own.
//! Refuses to be the truth: whatever is wrong with it, it is rebuilt from the segments.
//!
//! A block lies under its greatest possible key, inclusive, and names the bound below it,
//! exclusive; the last lies under [`LAST`]. So the blocks cover all keys without a gap, and a
//! block that sled lost shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::{CommitError, ReadError, is_full};
use crate::recent::Layer;
use crate::segment;

mod block;

use block::Block;
pub(crate) use block::Entry;

/// The file that asks the next opening to rebuild the index.
pub(crate) const SUSPECT: &str = "index.suspect";

/// Above every key: a shard's name is UTF-8, so no key begins with this byte.
const LAST: &[u8] = &[0xff];

/// sled failed.
#[derive(Clone, Debug)]
pub(crate) struct IndexError {
    /// sled's own text.
    pub detail: String,
    /// The index contradicts itself, so reading it again would not help.
    suspect: bool,
    /// There was no room, which says nothing against what lies there.
    pub full: bool,
}

impl IndexError {
    pub(crate) fn inconsistent(detail: &str) -> IndexError {
        let detail = detail.to_owned();
        IndexError {
            detail,
            suspect: true,
            full: false,
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
            full: matches!(&error, sled::Error::Io(error) if is_full(error)),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

/// sled's trees.
pub(crate) struct Index {
    path: PathBuf,
    db: sled::Db,
    /// Blocks of keys and pointers.
    keys: sled::Tree,
    heads: sled::Tree,
    /// Files made by compaction whose places the index knows.
    kept: sled::Tree,
    /// Bytes of each file that no key points to.
    dead: sled::Tree,
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
            let index = Index {
                path: path.to_owned(),
                keys: db.open_tree("keys")?,
                heads: db.open_tree("heads")?,
                kept: db.open_tree("kept")?,
                dead: db.open_tree("dead")?,
                meta: db.open_tree("meta")?,
                db,
            };
            if index.marker()?.is_none() && index.keys.is_empty() {
                index.keys.insert(LAST, block::encode(&[], &[]))?;
            }
            Ok(index)
        }));
        opened.unwrap_or_else(|_| Err(IndexError::panicked()))
    }

    /// Up to where everything is durably in the index; `None` when there is no such note.
    pub(crate) fn marker(&self) -> Result<Option<Place>, IndexError> {
        let Some(bytes) = self.meta.get("marker")? else {
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

    /// The files made by compaction whose places the index durably has.
    pub(crate) fn kept(&self) -> Result<BTreeSet<u32>, IndexError> {
        self.kept
            .iter()
            .keys()
            .map(|key| file_number(&key?))
            .collect()
    }

    /// Bytes of each file that no key points to.
    pub(crate) fn dead(&self) -> Result<BTreeMap<u32, u64>, IndexError> {
        let malformed = || IndexError::inconsistent("its count of dead bytes is malformed");
        let rows = self.dead.iter().map(|row| {
            let (file, bytes) = row?;
            let bytes = bytes.as_ref().try_into().map_err(|_| malformed())?;
            Ok((file_number(&file)?, u64::from_le_bytes(bytes)))
        });
        rows.collect()
    }

    /// A place to look keys up from; quick for keys in order.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            index: self,
            block: None,
        }
    }

    /// The rows of a range, one by one.
    pub(crate) fn rows(&self, start: &[u8], end: &[u8]) -> Rows {
        Rows {
            blocks: self.keys.range(start..),
            block: None,
            at: 0,
            start: start.to_vec(),
            end: end.to_vec(),
        }
    }

    /// The block that `key` belongs to, under its upper bound.
    fn covering(&self, key: &[u8]) -> Result<(sled::IVec, sled::IVec), IndexError> {
        let found = self.keys.range(key..).next().transpose()?;
        let (upper, bytes) = found.ok_or_else(gap)?;
        match parse(&bytes)?.lower < key {
            true => Ok((upper, bytes)),
            false => Err(gap()),
        }
    }

    /// Takes in the pointers of a layer; returns the bytes of each file that lost theirs by it.
    /// To take the same layer in again changes nothing.
    pub(crate) fn merge(&self, layer: &Layer) -> Result<BTreeMap<u32, u64>, IndexError> {
        let mut dead = BTreeMap::new();
        let mut changes = layer.entries.iter().peekable();
        while let Some((first, _)) = changes.peek() {
            let (upper, bytes) = self.covering(first)?;
            let block = parse(&bytes)?;
            let find = |key: &[u8]| block.lower_bound(key).ok_or_else(malformed);
            let entry = |at| block.entry(at).ok_or_else(malformed);
            let whole = |rest: &[u8]| [block.prefix, rest].concat();
            // Keys that come behind all others will go on coming there.
            let appended = find(first)? == block.len();
            let mut merged = Vec::with_capacity(block.len() + 16);
            let mut at = 0;
            while let Some((key, change)) = changes.next_if(|(key, _)| ***key <= *upper) {
                let to = find(key)?;
                for at in at..to {
                    let (rest, entry) = entry(at)?;
                    merged.push((whole(rest), entry));
                }
                at = to;
                if at < block.len() {
                    let (rest, old) = entry(at)?;
                    if key.strip_prefix(block.prefix) == Some(rest) {
                        at += 1;
                        if change.is_none_or(|change| change.pointer != old.pointer) {
                            *dead.entry(old.pointer.segment).or_default() +=
                                u64::from(old.pointer.len);
                        }
                    }
                }
                merged.extend(change.map(|entry| (key.to_vec(), entry)));
            }
            for at in at..block.len() {
                let (rest, entry) = entry(at)?;
                merged.push((whole(rest), entry));
            }
            self.write(&upper, block.lower, &merged, appended)?;
        }
        Ok(dead)
    }

    /// Writes the keys between two bounds as one block or several. A reader meets each key in the
    /// wider block until the narrower one is there, and a crash in between leaves either both, or
    /// a gap that shows.
    fn write(
        &self,
        upper: &[u8],
        lower: &[u8],
        entries: &[(Vec<u8>, Entry)],
        appended: bool,
    ) -> Result<(), IndexError> {
        if entries.is_empty() && upper != LAST {
            return self.remove(upper, lower);
        }
        let shared = match (entries.first(), entries.last()) {
            (Some((first, _)), Some((last, _))) => std::iter::zip(first, last)
                .take_while(|(a, b)| a == b)
                .count(),
            _ => 0,
        };
        let weight = |key: &[u8]| block::weight(key) - shared;
        let total: usize = entries.iter().map(|(key, _)| weight(key)).sum();
        let pieces = entries
            .len()
            .div_ceil(block::ENTRIES_MAX)
            .max(total.div_ceil(block::BYTES_MAX))
            .max(1);
        let count_max = match appended {
            true => block::ENTRIES_MAX,
            false => entries.len().div_ceil(pieces),
        };
        let (mut lower, mut rest) = (lower.to_vec(), entries);
        loop {
            let mut bytes = 0;
            let fits = |(key, _): &&(Vec<u8>, Entry)| {
                bytes += weight(key);
                bytes <= block::BYTES_MAX
            };
            let count = rest
                .iter()
                .take_while(fits)
                .count()
                .clamp(1, count_max.max(1));
            if count >= rest.len() {
                self.keys.insert(upper, block::encode(&lower, rest))?;
                return Ok(());
            }
            let (piece, later) = rest.split_at(count);
            let bound = piece[count - 1].0.clone();
            self.keys.insert(&bound, block::encode(&lower, piece))?;
            lower = bound;
            rest = later;
        }
    }

    /// Takes an empty block away; the next one covers its keys.
    fn remove(&self, upper: &[u8], lower: &[u8]) -> Result<(), IndexError> {
        let mut after = upper.to_vec();
        after.push(0);
        let next = self.keys.range(after..).next().transpose()?;
        let (next_upper, bytes) = next.ok_or_else(gap)?;
        let block = parse(&bytes)?;
        let entries = (0..block.len()).map(|at| {
            let (rest, entry) = block.entry(at)?;
            Some(([block.prefix, rest].concat(), entry))
        });
        let entries: Option<Vec<_>> = entries.collect();
        let wider = block::encode(lower, &entries.ok_or_else(malformed)?);
        self.keys.insert(next_upper, wider)?;
        self.keys.remove(upper)?;
        Ok(())
    }

    /// Makes everything merged so far durable, then notes that the index has all groups before
    /// the end of `layer`, and `dead` as the count of dead bytes.
    pub(crate) fn checkpoint(
        &self,
        layer: &Layer,
        dead: &BTreeMap<u32, u64>,
    ) -> Result<(), IndexError> {
        for (shard, head) in &layer.heads {
            self.heads.insert(shard.as_bytes(), &head.to_le_bytes())?;
        }
        for (file, bytes) in dead {
            self.dead.insert(file.to_be_bytes(), &bytes.to_le_bytes())?;
        }
        self.sync()?;
        // Only behind the sync: a note that outruns what it speaks of would lose keys.
        for file in &layer.gone {
            self.kept.remove(file.to_be_bytes())?;
            self.dead.remove(file.to_be_bytes())?;
        }
        for file in &layer.kept {
            self.kept.insert(file.to_be_bytes(), &[])?;
        }
        self.meta.insert("marker", &layer.end.encode())?;
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

/// Looks keys up and remembers the block that the last one lay in.
pub(crate) struct Cursor<'a> {
    index: &'a Index,
    block: Option<(sled::IVec, sled::IVec)>,
}

impl Cursor<'_> {
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Entry>, IndexError> {
        if let Some((upper, bytes)) = &self.block
            && key <= upper.as_ref()
        {
            let block = parse(bytes)?;
            if block.lower < key {
                return block.get(key).ok_or_else(malformed);
            }
        }
        let (_, bytes) = self.block.insert(self.index.covering(key)?);
        parse(bytes)?.get(key).ok_or_else(malformed)
    }
}

/// Goes through a range of keys.
pub(crate) struct Rows {
    blocks: sled::Iter,
    block: Option<(sled::IVec, sled::IVec)>,
    at: usize,
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Rows {
    pub(crate) fn next(&mut self) -> Result<Option<(Vec<u8>, Entry)>, IndexError> {
        loop {
            if let Some((_, bytes)) = &self.block {
                let block = parse(bytes)?;
                if self.at < block.len() {
                    let (rest, entry) = block.entry(self.at).ok_or_else(malformed)?;
                    self.at += 1;
                    let mut key = Vec::with_capacity(block.prefix.len() + rest.len());
                    key.extend_from_slice(block.prefix);
                    key.extend_from_slice(rest);
                    return Ok((key < self.end).then_some((key, entry)));
                }
            }
            let last = self.block.take();
            let Some((upper, bytes)) = self.blocks.next().transpose()? else {
                return match last.is_none_or(|(upper, _)| upper.as_ref() == LAST) {
                    true => Ok(None),
                    false => Err(gap()),
                };
            };
            let block = parse(&bytes)?;
            match &last {
                // A wider block stands there until the mover has narrowed it.
                Some((before, _)) if block.lower > before.as_ref() => return Err(gap()),
                None if block.lower >= self.start.as_slice() => return Err(gap()),
                _ => {}
            }
            if last.is_some() && block.lower >= self.end.as_slice() {
                return Ok(None);
            }
            self.at = match &last {
                Some((before, _)) if block.lower < before.as_ref() => {
                    let after = [before.as_ref(), &[0]].concat();
                    block.lower_bound(&after).ok_or_else(malformed)?
                }
                Some(_) => 0,
                None => block.lower_bound(&self.start).ok_or_else(malformed)?,
            };
            self.block = Some((upper, bytes));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Block<'_>, IndexError> {
    Block::parse(bytes).ok_or_else(malformed)
}

fn malformed() -> IndexError {
    IndexError::inconsistent("one of its blocks is malformed")
}

fn gap() -> IndexError {
    IndexError::inconsistent("one of its blocks is missing")
}

fn file_number(key: &[u8]) -> Result<u32, IndexError> {
    let malformed = || IndexError::inconsistent("one of its file numbers is malformed");
    Ok(u32::from_be_bytes(key.try_into().map_err(|_| malformed())?))
}
