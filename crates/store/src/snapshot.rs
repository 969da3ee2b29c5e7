//! Verifying: the state that the segments alone give, and everything that is wrong with them.
//!
//! Owns a reading of `dir/segments/` that needs neither lock nor index and changes nothing.
//! Refuses to write, and to pass over a single bit: every byte lies under some checksum, and each
//! that fails is a [`Finding`].

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::batch::Batch;
use crate::error::{CommitError, ReadError};
use crate::frame::Held;
use crate::key::Key;
use crate::segment::{Segments, Wanted};
use crate::{Row, Stats, Store};

mod tables;

mod pieces;

mod crew;

mod later;

mod scan;

use later::{Later, each_since};
pub use scan::{scan_looking, scan_segments};
pub use tables::Rest;
use tables::Tables;

/// Whether a process has the store open. Nobody who opens it meanwhile is kept from that for longer
/// than the question takes.
pub fn is_in_use(dir: &Path) -> bool {
    let lock = File::open(dir.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Looks at values while their segments are scanned, on any thread, in any order.
pub trait Look: Sync {
    /// What is kept of a value, as long as it is what its key has.
    type Note: Send + Sync;

    /// Looks at neighbouring values whose checksums hold, and notes what is to be kept of each in
    /// the place of the same index. Many of them, or all, may be older than what their keys have.
    fn look(&self, values: &[Value<'_>], notes: &mut [Option<Self::Note>]);
}

/// Notes nothing.
impl Look for () {
    type Note = ();

    fn look(&self, _: &[Value<'_>], _: &mut [Option<()>]) {}
}

/// A value that is being looked at.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The shard of its key.
    pub shard: &'a str,
    /// The table of its key, in UTF-8.
    pub table: &'a [u8],
    /// The rest of its key.
    pub rest: &'a [u8],
    /// The value.
    pub bytes: &'a [u8],
}

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
/// While it is there, compaction takes no file away. A store that is in use goes on: what it commits
/// is not in the snapshot, and a body that it erases since is no more, in the snapshot too. `N` is what a [`Look`] noted of the values.
pub struct Snapshot<N = ()> {
    segments: Segments,
    _held: File,
    tables: Tables<N>,
    heads: BTreeMap<String, u64>,
    findings: Vec<Finding>,
    findings_count: u64,
    dir: PathBuf,
    /// The last segment, and where in it comes what is committed since.
    end: Option<(u32, u64)>,
    /// Which bodies were erased since.
    later: Mutex<Later>,
    bytes: u64,
    files: u64,
}

impl Snapshot {
    /// Scans the segments in `dir` and keeps only the state and the findings.
    ///
    /// # Errors
    /// As for [`scan_segments`].
    pub fn open(dir: &Path) -> Result<Snapshot, ReadError> {
        scan_looking(dir, &(), &mut |_| {})
    }
}

impl<N> Snapshot<N> {
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
        let pointer = self.tables.get(key.as_bytes())?.pointer;
        let path = self.segments.path(pointer.segment);
        Some((path, u64::from(pointer.offset)))
    }

    /// The note of the value of a key; `None` also when its bytes fail their checksum, or were erased
    /// while they were read.
    pub fn note(&self, shard: &str, table: &str, rest: &[u8]) -> Option<&N> {
        self.tables.table(shard, table)?.get(rest)?.note
    }

    /// The rows of one table in the order of their keys, with what was noted of each value:
    /// `None` also where its bytes fail their checksum, which reading it says, or were erased while
    /// they were read, and reading gives none.
    pub fn notes<'a>(
        &'a self,
        shard: &str,
        table: &str,
        from: &[u8],
    ) -> impl Iterator<Item = (Rest<'a>, Option<&'a N>)> + use<'a, N> {
        let table = self.tables.table(shard, table);
        let rows = table.map(|table| table.range(from));
        let rows = rows.into_iter().flatten();
        rows.map(|(rest, slot)| (rest, slot.note))
    }

    fn values(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let found = keys.iter().enumerate().filter_map(|(slot, &key)| {
            let pointer = self.tables.get(key)?.pointer;
            Some(Wanted { slot, key, pointer })
        });
        let mut wanted: Vec<_> = found.collect();
        let mut values = vec![None; keys.len()];
        let mut failed = Vec::new();
        self.segments.read(&mut wanted, |frame, held| match held {
            Ok(Held::Value(value)) => values[frame.slot] = Some(value.to_vec()),
            Ok(Held::Erased) => {
                let what = "the body is overwritten and no group says why";
                failed.push((frame.pointer, self.segments.damaged(frame.pointer, what)));
            }
            Err(error) => failed.push((frame.pointer, error)),
        });
        if !failed.is_empty() {
            let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
            later.read_on()?;
            failed.retain(|(body, _)| !later.erases(body));
        }
        match failed.pop() {
            Some((_, error)) => Err(error),
            None => Ok(values),
        }
    }

    /// The rows that a table was given since the snapshot, by a store that is in use; the newest
    /// value of each key. What was deleted since is not told.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the last segment cannot be read.
    pub fn rows_since(&self, shard: &str, table: &str) -> Result<Vec<Row>, ReadError> {
        let mut rows = BTreeMap::new();
        each_since(&self.dir, self.end, &mut |group| {
            if group.shard() != shard {
                return;
            }
            for frame in group.frames.iter().filter(|frame| frame.shows_value()) {
                if let Some((of, rest)) = frame.in_shard(group.bytes, shard)
                    && of == table.as_bytes()
                {
                    rows.insert(rest.to_vec(), frame.value(group.bytes).to_vec());
                }
            }
        })?;
        Ok(rows.into_iter().collect())
    }
}

impl<N: Send + Sync> Store for Snapshot<N> {
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
        let prefix = Key::new(shard, table, &[])?;
        let prefix = prefix.as_bytes();
        let rows = self.tables.table(shard, table);
        let rows = rows.into_iter().flat_map(|table| table.range(from));
        let keys: Vec<Vec<u8>> = rows
            .take(limit)
            .map(|(rest, _)| [prefix, &rest].concat())
            .collect();
        let values = self.values(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let rows = std::iter::zip(keys, values).filter_map(|(mut key, value)| {
            key.drain(..prefix.len());
            Some((key, value?))
        });
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
