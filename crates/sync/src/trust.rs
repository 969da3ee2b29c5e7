//! What the shell knows and a session must ask: keys, revocations, and what is held of a ledger.
//!
//! Owns the questions. Refuses to guess: without an answer nothing is accepted.

use std::collections::VecDeque;

use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::note::Verifier;
use record::act::ACT_ENTRIES_MAX;
use record::authority::Charter;
use record::entry::Entry;
use record::id::{Hash, Origin};

/// Answers from the node's own store.
pub trait Trust {
    /// The realm root's `sign` key.
    fn realm_root(&self) -> [u8; 32];

    /// The chain in force for the keys that a peer shows: its charter may have been issued anew for
    /// the same keys, because whoever issued it has other keys since. `None` when the chain shown is
    /// all there is to know. What is given here is checked like a chain that was shown.
    fn renewed(&self, _shown: &[Charter]) -> Option<Vec<Charter>> {
        None
    }

    /// Whether the charter with this id is known to be revoked.
    fn is_revoked(&self, charter: &Hash) -> bool;

    /// The key of a ledger's log that may have signed `note`, if its owner's charter is known;
    /// whoever holds the ledger.
    fn log(&self, origin: &Origin, note: &str) -> Option<Verifier>;

    /// Whether a head that a peer says it has seen may tell something: it does not when nothing of
    /// that ledger is known here to compare it with, or when it says what is known. Asked before
    /// its signature is checked, since neighbours tell each other every head that moves.
    fn is_news(&self, _origin: &Origin, _head: &Checkpoint) -> bool {
        true
    }

    /// Whether this peer may bring this ledger, and what is held of it.
    ///
    /// A session only knows that the peer is parent or child: that the origin's division lies on
    /// the peer's side, and with which of the owner's keys `note` may be signed, is answered here.
    ///
    /// # Errors
    /// [`Refusal`], whose words the peer and this node's status page show.
    fn accept(&self, peer: &Charter, origin: &Origin, note: &str) -> Result<Accept, Refusal>;
}

/// How a ledger is received.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The log's key, whose name is the origin.
    pub verifier: Verifier,
    /// What is held; `None` when the ledger is not known yet.
    pub held: Option<Held>,
    /// Whether this node cosigns the ledger.
    pub cosign: bool,
}

/// What a node holds of a ledger that it received, stored with each [`crate::chunk::Delivery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The entries that are durable here.
    pub frontier: Frontier,
    /// The signed head that they are proven to belong to. It may be larger than the frontier,
    /// when a transfer was interrupted.
    pub note: String,
    /// The entries after the last act.
    pub tail: Tail,
}

/// Why a ledger is not received from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// In words for people; never personal data.
    pub reason: String,
    /// It may pass by itself: a charter is likely to be on its way.
    pub passing: bool,
}

/// The end of a ledger, from its last act on: what the next act can sign.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    previous_act: Option<Hash>,
    /// At most [`ACT_ENTRIES_MAX`], the latest last.
    leaves: VecDeque<Hash>,
}

impl Tail {
    /// The tail of the empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tail right after an act with this leaf hash; add what follows with [`Tail::follow`].
    pub fn after_act(leaf: Hash) -> Self {
        Self {
            previous_act: Some(leaf),
            leaves: VecDeque::new(),
        }
    }

    /// Goes on by one entry with its leaf hash.
    pub fn follow(&mut self, entry: &Entry, leaf: Hash) {
        if matches!(entry, Entry::Act(_)) {
            *self = Self::after_act(leaf);
            return;
        }
        if self.leaves.len() == ACT_ENTRIES_MAX as usize {
            // No act can reach this far back.
            self.leaves.pop_front();
        }
        self.leaves.push_back(leaf);
    }

    /// Leaf hash of the last act, if there was one.
    pub fn previous_act(&self) -> Option<&Hash> {
        self.previous_act.as_ref()
    }

    /// How many entries follow the last act, counted up to [`ACT_ENTRIES_MAX`].
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether the ledger is empty or ends in an act.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Root over the last `count` leaves, if there are so many.
    pub(crate) fn root(&mut self, count: usize) -> Option<Hash> {
        let start = self.leaves.len().checked_sub(count)?;
        Some(ledger::hash::root_of(
            &self.leaves.make_contiguous()[start..],
        ))
    }
}
