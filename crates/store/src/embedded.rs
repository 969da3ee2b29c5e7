//! The embedded engine: segment files, sled over them, one process.
//!
//! Owns a folder: `segments/`, `index/`, `cut/`, `lock`. Two threads work beside the callers: the
//! mover brings pointers into the index, the compactor takes dead bytes out of old segments.
//! Refuses a second process, and every batch after a write whose outcome it does not know.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{CommitError, Holder, OpenError, ReadError, is_full, open_io};
use crate::format::Pointer;
use crate::frame::Held;
use crate::fs::{Fs, Real};
use crate::index::{Index, Place};
use crate::key::{self, Key};
use crate::queue::{Queue, Ticket};
use crate::recent::Recent;
use crate::recover;
pub use crate::recover::{Cut, Opened};
use crate::segment::{Live, Segments, Wanted};
use crate::{Row, Stats, Store};

mod commit;

mod writer;

mod mover;

mod compact;

mod stats;

pub use compact::Compacted;
use mover::Work;
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
    /// The index is brought up to date after this many bytes of commits; what lies behind is read
    /// again at the next opening.
    pub checkpoint_bytes: u64,
    /// The index is brought up to date this often.
    pub checkpoint_every: Duration,
    /// A segment of which this many percent are dead is compacted; above 100 none is.
    pub compact_percent: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 32 << 20,
            checkpoint_every: Duration::from_secs(30),
            compact_percent: 50,
        }
    }
}

/// A store in a folder of this machine.
///
/// Dropping it brings the index up to date, so that the next opening is quick; nothing
/// acknowledged depends on that.
pub struct Embedded {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: Options,
    opened: Opened,
    index: Index,
    segments: Segments,
    /// Whoever looks something up holds it for reading, and a commit makes itself visible while
    /// holding it for writing: so a reading sees whole batches.
    state: RwLock<State>,
    queue: Queue,
    /// Taken before `state`, never after it.
    writer: Mutex<Writer>,
    /// What the two threads have to do; taken last.
    work: Work,
    /// One compaction at a time.
    compacting: Mutex<()>,
    commits: AtomicU64,
    syncs: AtomicU64,
    /// Held until the end: the system frees it with the process.
    _lock: File,
}

/// What readings look at.
struct State {
    heads: BTreeMap<String, u64>,
    recent: Recent,
    /// The segment files in order.
    files: Vec<Live>,
    /// Bytes of each file that no key points to, as far as is known.
    dead: BTreeMap<u32, u64>,
    /// Up to where the index has everything durably.
    marker: Place,
    /// The last groups announce erasures that are not done yet; the index must not pass them.
    erasing: bool,
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
        Embedded::open_on(Arc::new(Real), dir, options)
    }

    pub(crate) fn open_on(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: Options,
    ) -> Result<Embedded, OpenError> {
        let range = 4 << 10..=1 << 30;
        if !range.contains(&options.segment_bytes) {
            return Err(OpenError::Option {
                name: "segment_bytes",
                value: options.segment_bytes,
                range: "4096 to 1073741824",
            });
        }
        recover::make_dir(&*fs, dir)?;
        let lock = lock(dir)?;
        let recovered = recover::recover(&*fs, dir, &options)?;
        let writer = Writer::open(fs.clone(), dir, recovered.end)?;
        let inner = Arc::new(Inner {
            fs,
            dir: dir.to_owned(),
            options,
            opened: recovered.opened,
            index: recovered.index,
            segments: Segments::new(dir),
            state: RwLock::new(State {
                heads: recovered.heads,
                recent: Recent::new(recovered.end),
                files: recovered.order.files,
                dead: recovered.dead,
                marker: recovered.end,
                erasing: false,
            }),
            queue: Queue::default(),
            writer: Mutex::new(writer),
            work: Work::default(),
            compacting: Mutex::default(),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            _lock: lock,
        });
        let mut store = Embedded {
            inner,
            threads: Vec::new(),
        };
        store.begin("store-mover", Inner::keep_moving)?;
        store.begin("store-compactor", Inner::keep_compacting)?;
        Ok(store)
    }

    fn begin(&mut self, name: &str, job: fn(&Inner)) -> Result<(), OpenError> {
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || job(&inner));
        self.threads.push(thread.map_err(open_io(&self.inner.dir))?);
        Ok(())
    }

    /// What opening found and did.
    pub fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    /// Brings the index up to date, durably, and gives the folder free.
    ///
    /// # Errors
    /// [`CommitError::Index`] or [`CommitError::Stopped`]; nothing acknowledged is lost, the next
    /// opening has more to read.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.finish()
    }

    /// Compacts what is due, at once rather than when the store finds time, and says what it did.
    ///
    /// # Errors
    /// [`CommitError`] when a file cannot be read or written; commits go on unless the store says
    /// that it stopped.
    pub fn compact(&self) -> Result<Compacted, CommitError> {
        self.inner.bring_up_to_date()?;
        self.inner.compact_all()
    }

    fn finish(&mut self) -> Result<(), CommitError> {
        self.inner.freeze();
        self.inner.work.stop();
        for thread in self.threads.drain(..) {
            // A panic in it was caught and noted; there is nothing to hand on.
            let _ = thread.join();
        }
        self.inner.writer().usable()
    }
}

impl Inner {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Whatever changes it does so in steps that cannot panic.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up<'a>(
        &self,
        keys: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<Vec<Wanted<'a>>, ReadError> {
        let state = self.state();
        let mut cursor = self.index.cursor();
        let mut wanted = Vec::new();
        for (slot, key) in keys {
            let found = state.recent.get(key, &mut cursor);
            if let Some(entry) = found.map_err(|error| self.index_failed(error))? {
                let pointer = entry.pointer;
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
        Ok(self.inner.state().heads.get(shard).copied().unwrap_or(0))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        let mut values = self.inner.values(&[key.as_bytes()], None)?;
        Ok(values.pop().flatten())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        self.inner.values(&keys, None)
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
        let inner = &self.inner;
        let rows = {
            let state = inner.state();
            let rows = state.recent.range(&inner.index, &start, &end, limit);
            rows.map_err(|error| inner.index_failed(error))?
        };
        let keys: Vec<&[u8]> = rows.iter().map(|(key, _)| key.as_slice()).collect();
        let pointers = rows.iter().map(|(_, pointer)| *pointer).collect();
        let values = inner.values(&keys, Some(pointers))?;
        // A row without a value was deleted since the range was read.
        let rows = std::iter::zip(rows, values).filter_map(|((mut key, _), value)| {
            key.drain(..prefix);
            Some((key, value?))
        });
        Ok(rows.collect())
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.inner.state().heads.keys().cloned().collect())
    }

    fn commit(&self, batch: &Batch) -> Result<u64, CommitError> {
        let ticket = Ticket::new(batch)?;
        let inner = &self.inner;
        inner.queue.submit(ticket, |round| inner.write(round))
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "the index was not brought up to date on closing");
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
                Ok(pid) => Holder::Process(pid),
                Err(_) => Holder::Somebody,
            };
            let dir = dir.to_owned();
            return Err(OpenError::Locked { dir, holder });
        }
        Err(TryLockError::Error(source)) => return Err(open_io(&path)(source)),
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    match noted {
        // The number only names the holder; the lock itself takes no room.
        Err(error) if is_full(&error) => Ok(file),
        Err(error) => Err(open_io(&path)(error)),
        Ok(()) => Ok(file),
    }
}
