//! Verifying: the state that the segments alone give, and everything that is wrong with them.
//!
//! Owns a reading of `dir/segments/` that needs neither lock nor index and changes nothing.
//! Refuses to write, and to pass over a single bit: every byte lies under some checksum, and each
//! that fails is a [`Finding`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::batch::Batch;
use crate::error::{CommitError, ReadError};
use crate::format::Pointer;
use crate::frame::Held;
use crate::key::{self, Key};
use crate::segment::{Segments, Wanted};
use crate::{Row, Stats, Store};

mod scan;

pub use scan::scan_segments;

/// Something wrong with a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Bytes fail their check, contradict each other or are missing.
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where the damaged part begins.
        offset: u64,
        /// Whose value it is, when that is certain.
        key: Option<Key>,
        /// What is wrong there.
        what: &'static str,
    },
    /// The file ends within a group: a write that was interrupted, or is under way.
    Unfinished {
        /// The segment file.
        file: PathBuf,
        /// Where the group begins.
        offset: u64,
        /// How much there is of it.
        bytes: u64,
    },
    /// A later group says that this body is erased, and it is not, or not wholly. Opening the
    /// store once finishes the erasure.
    NotErased {
        /// The segment file.
        file: PathBuf,
        /// Where the frame begins.
        offset: u64,
        /// Whose value it was.
        key: Key,
    },
}

impl Finding {
    /// The segment file that it is about.
    pub fn file(&self) -> &Path {
        match self {
            Finding::Damaged { file, .. }
            | Finding::Unfinished { file, .. }
            | Finding::NotErased { file, .. } => file,
        }
    }

    /// Where in that file it begins, in bytes.
    pub fn offset(&self) -> u64 {
        match self {
            Finding::Damaged { offset, .. }
            | Finding::Unfinished { offset, .. }
            | Finding::NotErased { offset, .. } => *offset,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file().display();
        match self {
            Finding::Damaged {
                offset, key, what, ..
            } => {
                write!(f, "`{file}` is damaged at byte {offset}: {what}")?;
                key.iter().try_for_each(|key| write!(f, " (key `{key}`)"))
            }
            Finding::Unfinished { offset, bytes, .. } => {
                write!(
                    f,
                    "`{file}` ends in {bytes} bytes of an unfinished group at byte {offset}; opening the store cuts them off"
                )
            }
            Finding::NotErased { offset, key, .. } => {
                write!(
                    f,
                    "`{file}` still holds the erased body of `{key}` at byte {offset}; opening the store finishes the erasure"
                )
            }
        }
    }
}

/// What the scan comes by, in the order of the files.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A group with a good header: one committed batch.
    Group {
        /// The segment file.
        file: &'a Path,
        /// Where it begins.
        offset: u64,
        /// The shard that it belongs to.
        shard: &'a str,
        /// The shard's head after it.
        head: u64,
    },
    /// A frame with a good checksum that concerns a key.
    Frame {
        /// The segment file.
        file: &'a Path,
        /// Where it begins.
        offset: u64,
        /// The key.
        key: Key,
        /// The value it gave the key; `None` for a deletion and for a body that is erased.
        value: Option<&'a [u8]>,
    },
    /// Something wrong.
    Finding(Finding),
}

/// The state that the segments give, read without index and lock. As a [`Store`] it reads only.
///
/// While it is there, compaction takes no file away.
pub struct Snapshot {
    segments: Segments,
    _held: std::fs::File,
    state: BTreeMap<Vec<u8>, Pointer>,
    heads: BTreeMap<String, u64>,
    findings: Vec<Finding>,
    findings_count: u64,
    bytes: u64,
    files: u64,
}

impl Snapshot {
    /// Scans the segments in `dir` and keeps only the state and the findings.
    ///
    /// # Errors
    /// As for [`scan_segments`].
    pub fn open(dir: &Path) -> Result<Snapshot, ReadError> {
        scan_segments(dir, &mut |_| {})
    }

    /// What is wrong, up to a thousand findings; empty when every byte is as it was written.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings there were.
    pub fn findings_count(&self) -> u64 {
        self.findings_count
    }

    /// The file and the offset of the frame that holds the value of `key`.
    pub fn place(&self, key: &Key) -> Option<(PathBuf, u64)> {
        let pointer = self.state.get(key.as_bytes())?;
        let path = self.segments.path(pointer.segment);
        Some((path, u64::from(pointer.offset)))
    }

    fn values(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let found = keys.iter().enumerate().filter_map(|(slot, &key)| {
            let pointer = *self.state.get(key)?;
            Some(Wanted { slot, key, pointer })
        });
        let mut wanted: Vec<_> = found.collect();
        let mut values = vec![None; keys.len()];
        let mut failed = None;
        self.segments.read(&mut wanted, |frame, held| match held {
            Ok(Held::Value(value)) => values[frame.slot] = Some(value.to_vec()),
            Ok(Held::Erased) => {
                let what = "the body is overwritten and no group says why";
                failed = Some(self.segments.damaged(frame.pointer, what));
            }
            Err(error) => failed = Some(error),
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(values),
        }
    }
}

impl Store for Snapshot {
    fn head(&self, shard: &str) -> Result<u64, ReadError> {
        Ok(self.heads.get(shard).copied().unwrap_or(0))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.values(&[key.as_bytes()])?.pop().flatten())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        self.values(&keys.iter().map(Key::as_bytes).collect::<Vec<_>>())
    }

    fn scan(
        &self,
        shard: &str,
        table: &str,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let (start, end) = key::table_range(shard, table, from)?;
        let prefix = end.len();
        let rows = self.state.range(start..end).take(limit);
        let keys: Vec<&[u8]> = rows.map(|(key, _)| key.as_slice()).collect();
        let rows = std::iter::zip(&keys, self.values(&keys)?)
            .filter_map(|(key, value)| Some((key[prefix..].to_vec(), value?)));
        Ok(rows.collect())
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.heads.keys().cloned().collect())
    }

    /// Always [`CommitError::ReadOnly`].
    fn commit(&self, _: &Batch) -> Result<u64, CommitError> {
        Err(CommitError::ReadOnly)
    }

    fn stats(&self) -> Stats {
        Stats {
            shards: self.heads.len() as u64,
            bytes: self.bytes,
            segments: self.files,
            ..Stats::default()
        }
    }
}
