//! What moved (动静): which shards took a batch since somebody last looked, for sessions that would
//! otherwise look at every ledger after each commit.
//!
//! Owns the store that notes each commit by itself, so that no commit has to remember to tell.
//! Refuses to say what changed: whoever asks reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use store::{Batch, CommitError, Key, ReadError, Row, Stats, Store};

use crate::node::lock;

/// The order in which shards moved last.
#[derive(Debug, Default)]
pub(crate) struct Moves(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    of: HashMap<String, u64>,
    /// One row a shard, by its last move.
    order: BTreeMap<u64, String>,
}

impl Moves {
    fn note(&self, shard: &str) {
        let mut state = lock(&self.0);
        let State { last, of, order } = &mut *state;
        *last += 1;
        match of.get_mut(shard) {
            Some(at) => {
                let name = order.remove(at).unwrap_or_else(|| shard.to_owned());
                *at = *last;
                order.insert(*last, name);
            }
            None => {
                of.insert(shard.to_owned(), *last);
                order.insert(*last, shard.to_owned());
            }
        }
    }

    /// The shards that moved after `since`, and up to where that is.
    pub(crate) fn since(&self, since: u64) -> (u64, Vec<String>) {
        let state = lock(&self.0);
        let later = state.order.range(since.saturating_add(1)..);
        (state.last, later.map(|(_, shard)| shard.clone()).collect())
    }
}

/// A store whose commits are noted.
pub(crate) struct Watched<S> {
    store: S,
    moves: Arc<Moves>,
}

impl<S> Watched<S> {
    pub(crate) fn new(store: S, moves: Arc<Moves>) -> Self {
        Self { store, moves }
    }
}

impl<S: Store> Store for Watched<S> {
    fn head(&self, shard: &str) -> Result<u64, ReadError> {
        self.store.head(shard)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        self.store.get(key)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        self.store.get_many(keys)
    }

    fn scan(
        &self,
        shard: &str,
        table: &str,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        self.store.scan(shard, table, from, limit)
    }

    fn shards(&self) -> Result<Vec<String>, ReadError> {
        self.store.shards()
    }

    fn commit(&self, batch: &Batch) -> Result<u64, CommitError> {
        let done = self.store.commit(batch);
        // A failure may have written something too: then looking finds nothing new, or finds it.
        self.moves.note(&batch.shard);
        done
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_that_moved_is_named_once_and_whoever_has_looked_hears_of_later_ones_only() {
        let moves = Arc::new(Moves::default());
        let store = Watched::new(store::memory::Memory::new(), moves.clone());
        for shard in ["a", "b", "a"] {
            store.commit(&Batch::new(shard, None)).unwrap();
        }
        let (seen, moved) = moves.since(0);
        assert_eq!(moved, ["b", "a"]);
        assert!(moves.since(seen).1.is_empty());
        store.commit(&Batch::new("b", None)).unwrap();
        assert_eq!(moves.since(seen).1, ["b"]);
    }
}
