//! What moved (动静): which shards took a batch since somebody last looked, for sessions that would
//! otherwise look at every ledger after each commit.
//!
//! Owns the store that notes each commit by itself, so that no commit has to remember to tell, and
//! which ledgers can go down at all: with hundreds of children most of what moves is what one of
//! them sent up, and none of the others is to look at it. Refuses to say what changed: whoever asks
//! reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use record::id::Origin;
use store::{Batch, CommitError, Key, ReadError, Row, Stats, Store};

use crate::node::lock;

/// Which shards somebody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them.
    Any,
    /// Those of which a child may be offered what others wrote.
    Downward,
}

/// Whether a ledger may go down to a node that is not its owner: authority, a grant's, letters.
pub(crate) fn may_go_down(origin: &Origin) -> bool {
    origin.ledger().as_str() == "authority"
        || origin.grant_id().is_some()
        || origin.addressee().is_some()
}

/// The order in which shards moved last.
#[derive(Debug, Default)]
pub(crate) struct Moves(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    of: HashMap<String, Last>,
    /// One row a shard, by its last move.
    order: BTreeMap<u64, String>,
    /// The same of the shards that may go down.
    downward: BTreeMap<u64, String>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: u64,
    goes_down: bool,
}

impl State {
    fn of_which(&self, which: Which) -> &BTreeMap<u64, String> {
        match which {
            Which::Any => &self.order,
            Which::Downward => &self.downward,
        }
    }
}

impl Moves {
    fn note(&self, shard: &str) {
        let mut state = lock(&self.0);
        let State {
            last,
            of,
            order,
            downward,
        } = &mut *state;
        *last += 1;
        let known = match of.get_mut(shard) {
            Some(known) => known,
            None => {
                let goes_down = Origin::parse(shard).is_ok_and(|origin| may_go_down(&origin));
                of.entry(shard.to_owned())
                    .or_insert(Last { at: 0, goes_down })
            }
        };
        let before = std::mem::replace(&mut known.at, *last);
        let orders = [Some(order), known.goes_down.then_some(downward)];
        for order in orders.into_iter().flatten() {
            let name = order.remove(&before).unwrap_or_else(|| shard.to_owned());
            order.insert(*last, name);
        }
    }

    /// Whether a shard moved after `since`.
    pub(crate) fn is_later(&self, which: Which, since: u64) -> bool {
        let state = lock(&self.0);
        let last = state.of_which(which).last_key_value();
        last.is_some_and(|(last, _)| *last > since)
    }

    /// The shards that moved after `since`, and up to where that is.
    pub(crate) fn since(&self, which: Which, since: u64) -> (u64, Vec<String>) {
        let state = lock(&self.0);
        let later = state.of_which(which).range(since.saturating_add(1)..);
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
        let (seen, moved) = moves.since(Which::Any, 0);
        assert_eq!(moved, ["b", "a"]);
        assert!(moves.since(Which::Any, seen).1.is_empty());
        store.commit(&Batch::new("b", None)).unwrap();
        assert_eq!(moves.since(Which::Any, seen).1, ["b"]);
    }

    #[test]
    fn whoever_is_below_is_shown_authority_grants_and_letters_only() {
        let moves = Arc::new(Moves::default());
        let store = Watched::new(store::memory::Memory::new(), moves.clone());
        let grant = format!("a.example/jinfu/person/grant/{}", "0a".repeat(16));
        let downward = [
            "a.example/jinfu/authority",
            grant.as_str(),
            "a.example/jinfu/proposals/fucheng",
            "a.example/fucheng/answers/jinfu",
        ];
        let others = [
            "a.example/jinfu/person",
            "a.example/jinfu/access",
            "a.example/jinfu/recovery",
            "local",
        ];
        for shard in downward.iter().chain(&others).chain(&downward[..1]) {
            store.commit(&Batch::new(*shard, None)).unwrap();
        }
        let (seen, moved) = moves.since(Which::Downward, 0);
        assert_eq!(
            moved,
            [downward[1], downward[2], downward[3], downward[0]],
            "each once, by its last move"
        );
        store.commit(&Batch::new(others[0], None)).unwrap();
        assert!(moves.since(Which::Downward, seen).1.is_empty());
        assert!(!moves.is_later(Which::Downward, seen));
        assert_eq!(moves.since(Which::Any, seen).1, [others[0]]);
        assert!(moves.is_later(Which::Any, seen));
    }
}
