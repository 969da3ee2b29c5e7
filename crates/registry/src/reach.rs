//! What each neighbour is known to hold (对端所持), for whoever asks what an offline peer lacks.
//!
//! Owns the rows `LOCAL/reach`: by peer, the size of each ledger that it said is durable there. They
//! are written at most twice a minute and when a session ends, so after a crash a peer may seem to
//! lack more than it does until it connects again, never less. Bytes and the next try are of this
//! process only.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{Origin, UnixMillis};
use store::Store;
use sync::output::{LedgerStatus, Side};

use crate::addresses::Transport;
use crate::error::Result;
use crate::node::{Registry, lock};
use crate::table::{self, LOCAL};

/// Between two writings of what a peer holds, while its session lasts.
const KEEP_MILLIS: u64 = 30_000;
/// The most peers whose rows are read.
const PEERS_MAX: usize = 4096;

/// The most characters of an error that are shown.
const ERROR_CHARS_MAX: usize = 300;

/// What is known of one peer's side.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Reach {
    /// Entries that the peer holds of each ledger that it is given.
    #[n(0)]
    pub held: BTreeMap<Origin, u64>,
    /// When it last spoke.
    #[n(1)]
    pub seen: Option<UnixMillis>,
    /// Entries of each ledger that the peer offered.
    #[cbor(skip)]
    pub offered: BTreeMap<Origin, u64>,
    /// Since when this node lacks some of them.
    #[cbor(skip)]
    pub waiting: BTreeMap<Origin, UnixMillis>,
    /// What went wrong last with a ledger, in words; cleared by progress.
    #[cbor(skip)]
    pub errors: BTreeMap<Origin, String>,
    /// Bytes of messages to the peer.
    #[cbor(skip)]
    pub sent: u64,
    /// Bytes of messages from it.
    #[cbor(skip)]
    pub received: u64,
    /// When it is dialled next.
    #[cbor(skip)]
    pub next_try: Option<UnixMillis>,
    /// What carries its session, or carried the last one.
    #[cbor(skip)]
    pub transport: Option<Transport>,
    /// Why it is not the preferred one, in words.
    #[cbor(skip)]
    pub fell_back: Option<String>,
    #[cbor(skip)]
    kept: u64,
    #[cbor(skip)]
    moved: bool,
}

impl Reach {
    /// Takes in where a session stands. A ledger of which the peer has said nothing in this session
    /// stays as it was known.
    fn learn(&mut self, ledgers: Vec<LedgerStatus>, now: UnixMillis) {
        self.seen = Some(now);
        self.errors.clear();
        self.offered.clear();
        let mut waiting = BTreeMap::new();
        for ledger in ledgers {
            let behind = ledger.behind() > 0;
            let LedgerStatus {
                origin,
                offered_by,
                offered_size,
                held_size,
                error,
            } = ledger;
            if let Some(error) = error {
                // The peer's own words: no line of another's, no escape for a terminal.
                let words = error.chars().filter(|c| !c.is_control());
                let words = words.take(ERROR_CHARS_MAX).collect();
                self.errors.insert(origin.clone(), words);
            }
            if offered_by == Side::Own {
                if held_size > 0 && self.held.get(&origin) != Some(&held_size) {
                    self.moved = true;
                    self.held.insert(origin, held_size);
                }
            } else {
                if behind {
                    let since = self.waiting.get(&origin).copied().unwrap_or(now);
                    waiting.insert(origin.clone(), since);
                }
                self.offered.insert(origin, offered_size);
            }
        }
        self.waiting = waiting;
    }
}

/// Every row kept.
pub(crate) fn load(store: &dyn Store) -> Result<BTreeMap<String, Reach>> {
    let mut all = BTreeMap::new();
    for (key, bytes) in store.scan(LOCAL, table::REACH, b"", PEERS_MAX)? {
        let peer = String::from_utf8_lossy(&key).into_owned();
        all.insert(peer, table::decode("reach of a peer", &bytes)?);
    }
    Ok(all)
}

impl Registry {
    /// Takes in where the session with a peer stands and what went over the line since it was told
    /// last. `ended` has it kept at once.
    pub fn peer_stands(
        &self,
        peer: &str,
        ledgers: Vec<LedgerStatus>,
        (sent, received): (u64, u64),
        ended: bool,
        now: UnixMillis,
    ) {
        let due = {
            let mut peers = lock(&self.peers);
            let Some(reach) = peers.reach(peer) else {
                return;
            };
            reach.learn(ledgers, now);
            reach.sent += sent;
            reach.received += received;
            reach.next_try = None;
            ended || now.0 >= reach.kept.saturating_add(KEEP_MILLIS)
        };
        if due && let Err(error) = self.keep_reach(peer, now) {
            tracing::warn!(peer, %error, "what the peer holds was not kept");
        }
    }

    /// When a peer that cannot be reached is dialled again.
    pub fn peer_tried(&self, peer: &str, next: UnixMillis) {
        if let Some(reach) = lock(&self.peers).reach(peer) {
            reach.next_try = Some(next);
        }
    }

    /// Says what carries the session with a peer.
    pub fn peer_over(&self, peer: &str, transport: Transport) {
        if let Some(reach) = lock(&self.peers).reach(peer) {
            reach.transport = Some(transport);
        }
    }

    /// Says why a peer is not reached by the transport that is preferred; `None` when it is.
    pub fn peer_fell_back(&self, peer: &str, why: Option<String>) {
        if let Some(reach) = lock(&self.peers).reach(peer) {
            reach.fell_back = why.map(|why| why.chars().take(ERROR_CHARS_MAX).collect());
        }
    }

    /// Keeps what every peer holds, as the node ends.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn keep_peers(&self, now: UnixMillis) -> Result<()> {
        let peers: Vec<String> = lock(&self.peers).reaches.keys().cloned().collect();
        peers.iter().try_for_each(|peer| self.keep_reach(peer, now))
    }

    fn keep_reach(&self, peer: &str, now: UnixMillis) -> Result<()> {
        let bytes = {
            let mut peers = lock(&self.peers);
            let Some(reach) = peers.reaches.get_mut(peer) else {
                return Ok(());
            };
            if !std::mem::take(&mut reach.moved) {
                return Ok(());
            }
            reach.kept = now.0;
            cbor::to_vec(&*reach)
        };
        self.keep_local(table::REACH, peer.as_bytes(), bytes)
            .inspect_err(|_| {
                if let Some(reach) = lock(&self.peers).reaches.get_mut(peer) {
                    reach.moved = true;
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ledger: &str, offered_by: Side, offered: u64, held: u64) -> LedgerStatus {
        LedgerStatus {
            origin: Origin::parse(&format!("a.example/{ledger}")).unwrap(),
            offered_by,
            offered_size: offered,
            held_size: held,
            error: None,
        }
    }

    #[test]
    fn what_a_peer_holds_outlasts_a_session_that_says_nothing_of_it_and_the_process() {
        let mut reach = Reach::default();
        reach.learn(vec![line("town/person", Side::Own, 9, 7)], UnixMillis(1));
        assert!(std::mem::take(&mut reach.moved));
        // A new session has not heard of it yet.
        reach.learn(vec![line("town/person", Side::Own, 9, 0)], UnixMillis(2));
        assert!(!reach.moved, "nothing new is written");
        let kept: Reach = table::decode("reach", &cbor::to_vec(&reach)).unwrap();
        assert_eq!(kept.held.values().copied().collect::<Vec<_>>(), [7]);
        assert_eq!(kept.seen, Some(UnixMillis(2)));
    }

    #[test]
    fn waiting_begins_when_it_was_learned_and_ends_when_nothing_lacks() {
        let mut reach = Reach::default();
        let offered = |held| vec![line("town/person", Side::Peer, 9, held)];
        reach.learn(offered(3), UnixMillis(10));
        reach.learn(offered(5), UnixMillis(20));
        assert_eq!(reach.waiting.values().next(), Some(&UnixMillis(10)));
        reach.learn(offered(9), UnixMillis(30));
        assert!(reach.waiting.is_empty());
    }

    #[test]
    fn the_peers_words_bring_no_control_character_and_are_bounded() {
        let mut reach = Reach::default();
        let mut bad = line("town/person", Side::Own, 9, 3);
        bad.error = Some(format!("\u{1b}[31m{}", "x".repeat(1000)));
        reach.learn(vec![bad], UnixMillis(1));
        let words = reach.errors.values().next().unwrap();
        assert!(words.chars().count() <= ERROR_CHARS_MAX && !words.contains('\u{1b}'));
    }
}
