//! What one commit writes: puts and deletes of one shard, on top of one head.
//!
//! Owns the limits of a batch and the check that every engine makes before it writes.
//! Refuses keys of another shard, a key named twice, and sizes that a segment cannot hold.

use std::collections::HashSet;

use crate::error::CommitError;
use crate::key::{self, Key};

/// The longest value, in bytes (16 MiB).
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// The most that the keys and values of one batch may weigh, in bytes (256 MiB).
pub const BATCH_BYTES_MAX: usize = 256 << 20;

/// What an engine adds to each write at most; it counts against [`BATCH_BYTES_MAX`], so that the
/// group of a batch always fits a segment.
const WRITE_OVERHEAD: usize = 64;

/// What kind of frame a value lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Stays in the segment files for good, also when replaced or deleted.
    Plain,
    /// Is overwritten in the segment files when replaced or deleted, before that commit returns.
    Body,
}

/// Writes that become durable together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The shard that all keys belong to.
    pub shard: String,
    /// The head that the shard must have; `None` writes on top of whatever it is.
    pub expected: Option<u64>,
    puts: Vec<(Key, Vec<u8>, Frame)>,
    deletes: Vec<Key>,
}

impl Batch {
    /// An empty batch for a shard; committed as it is, it only moves the head on by one.
    pub fn new(shard: impl Into<String>, expected: Option<u64>) -> Batch {
        Batch {
            shard: shard.into(),
            expected,
            puts: Vec::new(),
            deletes: Vec::new(),
        }
    }

    /// Writes a value that never has to be erased.
    pub fn put(&mut self, key: Key, value: Vec<u8>) -> &mut Batch {
        self.puts.push((key, value, Frame::Plain));
        self
    }

    /// Writes a value that a later delete or put of the same key destroys on disk.
    pub fn put_body(&mut self, key: Key, value: Vec<u8>) -> &mut Batch {
        self.puts.push((key, value, Frame::Body));
        self
    }

    /// Removes a key; one that is absent is no error. A body is overwritten on disk.
    pub fn delete(&mut self, key: Key) -> &mut Batch {
        self.deletes.push(key);
        self
    }

    /// The values to write, in the order of the calls.
    pub fn puts(&self) -> &[(Key, Vec<u8>, Frame)] {
        &self.puts
    }

    /// The keys to remove.
    pub fn deletes(&self) -> &[Key] {
        &self.deletes
    }

    /// Whether it holds no write.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// What every engine checks before it writes anything; returns the bytes of keys and values.
    ///
    /// # Errors
    /// [`CommitError::Name`], [`CommitError::ForeignKey`], [`CommitError::KeyTwice`] or
    /// [`CommitError::TooLarge`].
    pub fn check(&self) -> Result<usize, CommitError> {
        key::check_shard(&self.shard)?;
        let mut seen = HashSet::with_capacity(self.puts.len() + self.deletes.len());
        let mut bytes = 0;
        let puts = self.puts.iter().map(|(key, value, _)| (key, value.len()));
        for (key, value) in puts.chain(self.deletes.iter().map(|key| (key, 0))) {
            if !key::is_of_shard(key.as_bytes(), &self.shard) {
                return Err(CommitError::ForeignKey {
                    shard: self.shard.clone(),
                    key: key.clone(),
                });
            }
            if !seen.insert(key.as_bytes()) {
                return Err(CommitError::KeyTwice { key: key.clone() });
            }
            if value > VALUE_BYTES_MAX {
                return Err(CommitError::TooLarge {
                    what: "value",
                    bytes: value,
                    max: VALUE_BYTES_MAX,
                });
            }
            bytes += key.as_bytes().len() + value + WRITE_OVERHEAD;
        }
        if bytes > BATCH_BYTES_MAX {
            return Err(CommitError::TooLarge {
                what: "batch",
                bytes,
                max: BATCH_BYTES_MAX,
            });
        }
        Ok(bytes)
    }
}

/// Compare and swap: whether a batch that expects `expected` may follow `head`.
pub(crate) fn check_head(shard: &str, expected: Option<u64>, head: u64) -> Result<(), CommitError> {
    match expected {
        Some(expected) if expected != head => Err(CommitError::Conflict {
            shard: shard.to_owned(),
            expected,
            head,
        }),
        _ => Ok(()),
    }
}
