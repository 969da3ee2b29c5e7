//! The embedded engine: segment files, sled over them, one process.
//!
//! Owns a folder: `segments/`, `index/`, `cut/`, `lock`.
//! Refuses a second process, and every batch after a write whose outcome it does not know.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{CommitError, OpenError, ReadError, open_io};
use crate::format::Pointer;
use crate::frame::Held;
use crate::index::Index;
use crate::key::{self, Key};
use crate::queue::{Queue, Ticket};
use crate::recover;
pub use crate::recover::{Cut, Opened};
use crate::segment::{Segments, Wanted};
use crate::{Row, Stats, Store};

mod commit;

mod writer;

use writer::Writer;

/// How often a reading looks a key up again when the frame it found was erased meanwhile; each
/// time somebody must have committed in between.
const LOOKUPS_MAX: usize = 16;

/// How the embedded engine behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that has reached this size takes no more groups; 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// sled's cache.
    pub cache_bytes: u64,
    /// The index is made durable after this many bytes of commits; what lies behind is read again
    /// at the next opening.
    pub checkpoint_bytes: u64,
    /// The index is made durable by the first commit after this time.
    pub checkpoint_every: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 32 << 20,
            checkpoint_every: Duration::from_secs(30),
        }
    }
}

/// A store in a folder of this machine.
///
/// Dropping it makes the index durable, so that the next opening is quick; nothing acknowledged
/// depends on that.
pub struct Embedded {
    dir: PathBuf,
    options: Options,
    opened: Opened,
    index: Index,
    segments: Segments,
    /// Heads of all shards. Whoever looks something up in the index holds it for reading, and a
    /// commit enters the index while holding it for writing: so a reading sees whole batches.
    heads: RwLock<BTreeMap<String, u64>>,
    queue: Queue,
    writer: Mutex<Writer>,
    commits: AtomicU64,
    syncs: AtomicU64,
    /// Held until the end: the system frees it with the process.
    _lock: File,
}

impl Embedded {
    /// Opens the store in `dir`, or begins one there: takes the lock, brings the index up to date
    /// with the segments (rebuilding it if it is missing or damaged) and cuts off a write that
    /// was interrupted. [`Embedded::opened`] tells what was done.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed on [`OpenError::Locked`] and [`OpenError::Damaged`]
    /// but for an index that is being rebuilt.
    pub fn open(dir: &Path, options: Options) -> Result<Embedded, OpenError> {
        let range = 4 << 10..=1 << 30;
        if !range.contains(&options.segment_bytes) {
            return Err(OpenError::Option {
                name: "segment_bytes",
                value: options.segment_bytes,
                range: "4096 to 1073741824",
            });
        }
        recover::make_dir(dir)?;
        let lock = lock(dir)?;
        let recovered = recover::recover(dir, &options)?;
        let writer = Writer::open(dir, recovered.end)?;
        Ok(Embedded {
            dir: dir.to_owned(),
            options,
            opened: recovered.opened,
            index: recovered.index,
            segments: Segments::new(dir),
            heads: RwLock::new(recovered.heads),
            queue: Queue::default(),
            writer: Mutex::new(writer),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// What opening found and did.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Makes the index durable and gives the folder free.
    ///
    /// # Errors
    /// [`CommitError::Index`] or [`CommitError::Stopped`]; nothing acknowledged is lost, the next
    /// opening has more to read.
    pub fn close(self) -> Result<(), CommitError> {
        self.checkpoint()
    }

    fn heads(&self) -> RwLockReadGuard<'_, BTreeMap<String, u64>> {
        // The map is only ever inserted into, one whole entry at a time.
        self.heads.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up<'a>(
        &self,
        keys: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<Vec<Wanted<'a>>, ReadError> {
        let _whole_batches = self.heads();
        let mut wanted = Vec::new();
        for (slot, key) in keys {
            if let Some((pointer, _)) = self.index.get(key).map_err(|e| self.index_failed(e))? {
                wanted.push(Wanted { slot, key, pointer });
            }
        }
        Ok(wanted)
    }

    /// Reads the values under `keys`; `found` are their pointers where they are known already.
    fn values(
        &self,
        keys: &[&[u8]],
        found: Option<Vec<Pointer>>,
    ) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let mut values = vec![None; keys.len()];
        let mut wanted = match found {
            Some(pointers) => std::iter::zip(keys, pointers)
                .enumerate()
                .map(|(slot, (&key, pointer))| Wanted { slot, key, pointer })
                .collect(),
            None => self.look_up(keys.iter().copied().enumerate())?,
        };
        for attempt in 1.. {
            let mut failed = Vec::new();
            self.segments.read(&mut wanted, |frame, held| match held {
                Ok(Held::Value(value)) => values[frame.slot] = Some(value.to_vec()),
                Ok(Held::Erased) => {
                    let what = "the body was erased and the index still names it";
                    let error = self.segments.damaged(frame.pointer, what);
                    failed.push((frame.slot, frame.pointer, error));
                }
                Err(error) => failed.push((frame.slot, frame.pointer, error)),
            });
            if failed.is_empty() {
                break;
            }
            // A body may have been erased between looking up and reading. Then the index names
            // another frame or none; a frame that it still names is damaged.
            wanted = self.look_up(failed.iter().map(|(slot, ..)| (*slot, keys[*slot])))?;
            for (slot, pointer, error) in failed {
                let same = |frame: &Wanted<'_>| frame.slot == slot && frame.pointer == pointer;
                if attempt == LOOKUPS_MAX || wanted.iter().any(same) {
                    return Err(error);
                }
            }
        }
        Ok(values)
    }

    fn index_failed(&self, error: crate::index::IndexError) -> ReadError {
        error.note(&self.dir);
        error.into()
    }
}

impl Store for Embedded {
    fn head(&self, shard: &str) -> Result<u64, ReadError> {
        Ok(self.heads().get(shard).copied().unwrap_or(0))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        let mut values = self.values(&[key.as_bytes()], None)?;
        Ok(values.pop().flatten())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        self.values(&keys, None)
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
        let rows = {
            let _whole_batches = self.heads();
            let rows = self.index.range(&start, &end, limit);
            rows.map_err(|error| self.index_failed(error))?
        };
        let keys: Vec<&[u8]> = rows.iter().map(|(key, _)| key.as_ref()).collect();
        let pointers = rows.iter().map(|(_, pointer)| *pointer).collect();
        let values = self.values(&keys, Some(pointers))?;
        // A row without a value was deleted since the range was read.
        let rows = std::iter::zip(keys, values)
            .filter_map(|(key, value)| Some((key[prefix..].to_vec(), value?)));
        Ok(rows.collect())
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.heads().keys().cloned().collect())
    }

    fn commit(&self, batch: &Batch) -> Result<u64, CommitError> {
        let ticket = Ticket::new(batch)?;
        self.queue.submit(ticket, |round| self.write(round))
    }

    fn stats(&self) -> Stats {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            shards: self.heads().len() as u64,
            bytes: writer.bytes(),
            segments: u64::from(writer.number()),
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            stopped: writer.is_stopped(),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the index was not made durable on closing");
        }
    }
}

/// Takes the lock, which the system frees when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(open_io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only to name the holder: what cannot be read is left out.
            let _ = (&file).take(20).read_to_string(&mut pid);
            let holder = match pid.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            let dir = dir.to_owned();
            return Err(OpenError::Locked { dir, holder });
        }
        Err(TryLockError::Error(source)) => return Err(open_io(&path)(source)),
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(open_io(&path))?;
    Ok(file)
}
