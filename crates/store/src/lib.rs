//! Keeping bytes: append-only segment files as the truth, sled as the index over them.
//!
//! Owns every file of a node but its configuration: segments, their index, pages of record
//! secrets, and small files that are replaced whole.
//! Refuses to know what the bytes mean, to hold a plaintext or a key of its own, and to be
//! asynchronous.
//!
//! Its one promise: **when [`Store::commit`] returns Ok, the batch survives a power cut, whole;
//! on [`CommitError::Conflict`] nothing was written; on any other error, reopen and read the
//! head.** One [`suite`] runs on every engine.
//!
//! The modules in reading order: [`key`] and [`batch`] say what is written; [`error`] what can go
//! wrong, and [`said`] what the system says of a file; [`memory`] is the smallest engine; `format`, `frame`, `segment` and `walk` are the bytes on
//! disk; `fs` changes files; `index`, `recent`, `cut`, `recover`, `queue` and [`embedded`] are the engine over them; [`snapshot`] verifies
//! the same files without any of that; [`pages`] and [`atomic`] keep bytes outside the store.
//!
//! ```
//! use store::{Batch, Key, Store, memory::Memory};
//!
//! let store = Memory::new();
//! let key = Key::new("example.org/110101/person", "entry", &7u64.to_be_bytes())?;
//! let mut batch = Batch::new("example.org/110101/person", Some(0));
//! batch.put(key.clone(), b"opaque".to_vec());
//! assert_eq!(store.commit(&batch)?, 1);
//! assert_eq!(store.get(&key)?.as_deref(), Some(&b"opaque"[..]));
//! // The head is at 1, so a batch that expects 0 writes nothing.
//! assert!(store.commit(&batch).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod key;

pub mod batch;

pub mod said;

pub mod error;

pub mod memory;

mod format;

mod frame;

mod segment;

mod walk;

mod fs;

mod index;

mod recent;

mod cut;

mod recover;

mod queue;

pub mod embedded;

pub mod snapshot;

pub mod pages;

pub mod atomic;

pub mod files;

pub mod suite;

#[cfg(test)]
mod crashes;

pub use batch::{BATCH_BYTES_MAX, Batch, Frame, VALUE_BYTES_MAX};
pub use error::{CommitError, OpenError, ReadError};
pub use key::{KEY_BYTES_MAX, Key, KeyError, SHARD_BYTES_MAX};
pub use snapshot::{
    Finding, Look, Rest, Seen, Snapshot, Value, is_in_use, scan_looking, scan_segments,
};

/// What lies after the table in a key, and the value: one row of a [`Store::scan`].
pub type Row = (Vec<u8>, Vec<u8>);

/// A place that keeps bytes under keys, shard by shard.
///
/// Every reading sees whole batches only: a batch that is being committed is either absent from
/// one `get_many` or `scan`, or there with all its writes.
pub trait Store: Send + Sync {
    /// The number of batches that the shard has taken; 0 for a shard that nobody wrote.
    ///
    /// # Errors
    /// [`ReadError`] when the engine cannot be read.
    fn head(&self, shard: &str) -> Result<u64, ReadError>;

    /// The value under `key`, or `None`.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when its bytes on disk fail their checksum.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError>;

    /// The values under `keys`, in their order; one call reads neighbouring values together.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when the bytes of one of them fail their checksum.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError>;

    /// Up to `limit` rows of one table of a shard in the order of their keys, beginning with the
    /// first whose rest is `from` or greater.
    ///
    /// The values are held in memory together: choose `limit` accordingly.
    ///
    /// # Errors
    /// [`ReadError::Name`] when shard or table cannot be part of a key, else as for `get`.
    fn scan(
        &self,
        shard: &str,
        table: &str,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, ReadError>;

    /// Every shard that has taken a batch, in order.
    ///
    /// # Errors
    /// [`ReadError`] when the engine cannot be read.
    fn shards(&self) -> Result<Vec<String>, ReadError>;

    /// Writes the batch, whole and durably, and returns the shard's head after it.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when the head is not the expected one: nothing was written; read
    /// again and plan again. After any other error that [`CommitError::is_refusal`] does not
    /// name, reopen the store and read the head before planning again.
    fn commit(&self, batch: &Batch) -> Result<u64, CommitError>;

    /// Counters for the operator.
    fn stats(&self) -> Stats;
}

/// Counters of a store since it was opened, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Shards that have taken a batch.
    pub shards: u64,
    /// Bytes of all segment files; 0 for an engine without files.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Batches committed since opening.
    pub commits: u64,
    /// Calls of fdatasync on segments for these batches; fewer than `commits` when they shared.
    pub syncs: u64,
    /// True when a write failed and the store takes no more batches until it is reopened.
    pub stopped: bool,
    /// Bytes of segment files that no key points to; an estimate after a power cut.
    pub dead_bytes: u64,
    /// Keys whose places are not in the index yet; they are in memory, and in the segments.
    pub index_lag: u64,
    /// Bytes of segment files behind `marker`: what the next opening reads if it came now.
    pub lag_bytes: u64,
    /// The segment and the offset in it up to where the index has everything durably; the next
    /// opening reads from there.
    pub marker: (u32, u32),
    /// Since a write was last made durable.
    pub last_sync: std::time::Duration,
    /// Bytes that may still be written to the file system; 0 when it does not say.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub disk_bytes: u64,
}
