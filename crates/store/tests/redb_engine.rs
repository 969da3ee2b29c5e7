//! A second opinion: redb behind the trait, held to the same suite, so that the choice of engine
//! stays a default and not a bet.
//!
//! Owns an engine of one file for tests and benches.
//! Refuses to be used for a register: redb keeps deleted values on disk, so nothing is erased.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use store::{Batch, CommitError, Key, ReadError, Row, Stats, Store};

const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");
const HEADS: TableDefinition<'_, &str, u64> = TableDefinition::new("heads");

/// A store in one redb file.
pub struct Redb {
    db: Database,
    path: std::path::PathBuf,
    commits: AtomicU64,
}

impl Redb {
    /// Opens or begins it in `dir`.
    pub fn open(dir: &Path) -> Redb {
        let path = dir.join("store.redb");
        let db = Database::builder()
            .set_cache_size(64 << 20)
            .create(&path)
            .unwrap();
        let write = db.begin_write().unwrap();
        write.open_table(VALUES).unwrap();
        write.open_table(HEADS).unwrap();
        write.commit().unwrap();
        Redb {
            db,
            path,
            commits: AtomicU64::new(0),
        }
    }

    fn read_error(&self, error: impl std::fmt::Display) -> ReadError {
        ReadError::Io {
            file: self.path.clone(),
            source: Arc::new(std::io::Error::other(error.to_string())),
        }
    }

    fn write(&self, batch: &Batch) -> Result<Result<u64, CommitError>, redb::Error> {
        let write = self.db.begin_write()?;
        let next = {
            let mut heads = write.open_table(HEADS)?;
            let head = heads
                .get(batch.shard.as_str())?
                .map_or(0, |head| head.value());
            if let Some(expected) = batch.expected.filter(|expected| *expected != head) {
                let shard = batch.shard.clone();
                return Ok(Err(CommitError::Conflict {
                    shard,
                    expected,
                    head,
                }));
            }
            heads.insert(batch.shard.as_str(), head + 1)?;
            let mut values = write.open_table(VALUES)?;
            for (key, value, _) in batch.puts() {
                values.insert(key.as_bytes(), value.as_slice())?;
            }
            for key in batch.deletes() {
                values.remove(key.as_bytes())?;
            }
            head + 1
        };
        write.commit()?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(Ok(next))
    }
}

impl Store for Redb {
    fn head(&self, shard: &str) -> Result<u64, ReadError> {
        let read = || -> Result<u64, redb::Error> {
            let heads = self.db.begin_read()?.open_table(HEADS)?;
            Ok(heads.get(shard)?.map_or(0, |head| head.value()))
        };
        read().map_err(|error| self.read_error(error))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.get_many(std::slice::from_ref(key))?.pop().flatten())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let read = || -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
            let values = self.db.begin_read()?.open_table(VALUES)?;
            let value = |key: &Key| {
                let found = values.get(key.as_bytes())?;
                Ok(found.map(|value| value.value().to_vec()))
            };
            keys.iter().map(value).collect()
        };
        read().map_err(|error| self.read_error(error))
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
        let start = [prefix, from].concat();
        let mut end = prefix.to_vec();
        *end.last_mut().unwrap() = 1;
        let read = || -> Result<Vec<Row>, redb::Error> {
            let values = self.db.begin_read()?.open_table(VALUES)?;
            let rows = values.range(start.as_slice()..end.as_slice())?.take(limit);
            let mut found = Vec::new();
            for row in rows {
                let (key, value) = row?;
                let rest = key.value()[prefix.len()..].to_vec();
                found.push((rest, value.value().to_vec()));
            }
            Ok(found)
        };
        if start >= end {
            return Ok(Vec::new());
        }
        read().map_err(|error| self.read_error(error))
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        let read = || -> Result<Vec<String>, redb::Error> {
            let heads = self.db.begin_read()?.open_table(HEADS)?;
            let names = heads.iter()?.map(|row| Ok(row?.0.value().to_owned()));
            names.collect()
        };
        read().map_err(|error| self.read_error(error))
    }

    fn commit(&self, batch: &Batch) -> Result<u64, CommitError> {
        batch.check()?;
        self.write(batch).unwrap_or_else(|error| {
            Err(CommitError::Io {
                file: self.path.clone(),
                source: Arc::new(std::io::Error::other(error.to_string())),
            })
        })
    }

    fn stats(&self) -> Stats {
        Stats {
            shards: self.shards().map_or(0, |shards| shards.len() as u64),
            commits: self.commits.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

#[test]
fn the_suite_holds_on_redb() {
    let dir = tempfile::tempdir().unwrap();
    store::suite::run(&mut || Box::new(Redb::open(dir.path())));
}
