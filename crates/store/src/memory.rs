//! The smallest engine: everything in memory, gone with the last handle.
//!
//! Owns nothing on disk; it is for tests and for planning against a copy.
//! Refuses what every engine refuses, so that a test on it means something.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::batch::{self, Batch};
use crate::key::{self, Key};
use crate::{CommitError, ReadError, Row, Stats, Store};

/// A store in memory. A clone is another handle on the same store.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    heads: BTreeMap<String, u64>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    commits: u64,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing below can panic between two writes of one batch.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn head(&self, shard: &str) -> Result<u64, ReadError> {
        Ok(self.read().heads.get(shard).copied().unwrap_or(0))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.read().values.get(key.as_bytes()).cloned())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let state = self.read();
        let value = |key: &Key| state.values.get(key.as_bytes()).cloned();
        Ok(keys.iter().map(value).collect())
    }

    fn scan(
        &self,
        shard: &str,
        table: &str,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let (start, end) = key::table_range(shard, table, from)?;
        let prefix = start.len() - from.len();
        let state = self.read();
        let rows = state.values.range(start..end).take(limit);
        Ok(rows
            .map(|(key, value)| (key[prefix..].to_vec(), value.clone()))
            .collect())
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.read().heads.keys().cloned().collect())
    }

    fn commit(&self, batch: &Batch) -> Result<u64, CommitError> {
        batch.check()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let head = state.heads.get(&batch.shard).copied().unwrap_or(0);
        batch::check_head(&batch.shard, batch.expected, head)?;
        for (key, value, _) in batch.puts() {
            state.values.insert(key.as_bytes().to_vec(), value.clone());
        }
        for key in batch.deletes() {
            state.values.remove(key.as_bytes());
        }
        state.heads.insert(batch.shard.clone(), head + 1);
        state.commits += 1;
        Ok(head + 1)
    }

    fn stats(&self) -> Stats {
        let state = self.read();
        Stats {
            shards: state.heads.len() as u64,
            commits: state.commits,
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_holds_in_memory() {
        let store = Memory::new();
        crate::suite::run(&mut || Box::new(store.clone()));
    }
}
