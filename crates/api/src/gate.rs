//! The gate before whatever stretches a passphrase: logging in, and opening the node.
//!
//! Owns how many passphrases are stretched at a time, who waits for that, and who is told to come
//! again later. It goes by the name that is tried, not by the address: behind a proxy all have one.
//! Whoever is known has turns of their own, which nobody else's failures or floods touch: one who
//! brings a token that this process gave to that login before, however old, or who reads `run.json`.
//! Keeps no name and no token, only their hashes under a key of this process, and of each so many
//! at most. Refuses to hold a place for a request whose work is still going on.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Passphrases of strangers stretched at a time, each in 64 MiB of memory.
const STRANGERS_AT_ONCE: usize = 2;
/// Passphrases of those who are known.
const KNOWN_AT_ONCE: usize = 1;
/// The most who wait for a turn or have one, in each of the two lanes.
const INSIDE_MAX: usize = 128;
/// The most of these under one name.
const INSIDE_OF_ONE_MAX: usize = 16;
/// Failures under one name that cost nothing but their own time.
const FREE_FAILURES: u32 = 5;
/// The longest that a name has to wait: whoever fails on purpose keeps nobody out for longer.
const WAIT_SECS_MAX: u64 = 30;
/// Failures are forgotten after so long without another.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// The most names whose failures are counted; beyond that the oldest are forgotten.
const NAMES_MAX: usize = 4096;
/// The most tokens by which somebody is known; beyond that the oldest are forgotten.
const TOKENS_MAX: usize = 10_000;

/// Why a passphrase is not looked at for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Later {
    /// After how many seconds to come again.
    pub secs: u64,
}

/// By what somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller<'a> {
    /// By nothing.
    Stranger,
    /// Perhaps by a token of before.
    Token(&'a str),
    /// By reading the secret of `run.json`.
    Local,
}

/// The gate of a node.
pub(crate) struct Gate {
    hasher: RandomState,
    lanes: [Arc<Semaphore>; 2],
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    inside: [Inside; 2],
    failures: HashMap<u64, Failures>,
    /// Whose token each was, and how often it came with a wrong passphrase since the last right one.
    tokens: HashMap<u64, (u64, u32)>,
    /// The tokens in the order in which they were given.
    given: VecDeque<u64>,
}

/// Who is in a lane, by the hash of name or token.
#[derive(Default)]
struct Inside {
    all: usize,
    of: HashMap<u64, usize>,
}

struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn wait(&self) -> Duration {
        match self.count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(beyond) => {
                let secs = 1u64.checked_shl(beyond).unwrap_or(WAIT_SECS_MAX);
                Duration::from_secs(secs.min(WAIT_SECS_MAX))
            }
        }
    }
}

/// A place in a lane, given back when dropped.
struct Place {
    gate: Arc<Gate>,
    lane: usize,
    of: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.gate.book();
        let inside = &mut book.inside[self.lane];
        inside.all = inside.all.saturating_sub(1);
        if let Some(count) = inside.of.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                inside.of.remove(&self.of);
            }
        }
    }
}

/// A turn to stretch one passphrase. To be held until that is done.
pub(crate) struct Turn {
    place: Place,
    name: u64,
    token: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            hasher: RandomState::new(),
            lanes: [STRANGERS_AT_ONCE, KNOWN_AT_ONCE].map(|turns| Arc::new(Semaphore::new(turns))),
            book: Mutex::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing in it is left half done by a panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn under a name.
    ///
    /// # Errors
    /// [`Later`] when too many wait, or the name failed too often just now.
    pub async fn enter(
        self: &Arc<Self>,
        name: &str,
        caller: Caller<'_>,
        now: Instant,
    ) -> Result<Turn, Later> {
        let name = self.hasher.hash_one(name);
        let (place, token) = self.place(name, caller, now)?;
        let turns = self.lanes[place.lane].clone();
        // Never closed.
        let permit = turns.acquire_owned().await.map_err(|_| Later { secs: 1 })?;
        Ok(Turn {
            place,
            name,
            token,
            _permit: permit,
        })
    }

    fn place(
        self: &Arc<Self>,
        name: u64,
        caller: Caller<'_>,
        now: Instant,
    ) -> Result<(Place, Option<u64>), Later> {
        let mut book = self.book();
        let token = match caller {
            Caller::Token(token) => Some(self.hasher.hash_one(token)),
            Caller::Stranger | Caller::Local => None,
        };
        let token = token.filter(|token| {
            let known = book.tokens.get(token);
            known.is_some_and(|(of, failed)| *of == name && *failed < FREE_FAILURES)
        });
        let (lane, of) = match (token, caller) {
            (Some(token), _) => (1, token),
            (None, Caller::Local) => (1, name),
            (None, _) => {
                if let Some(failures) = book.failures.get(&name) {
                    let left = (failures.last + failures.wait()).saturating_duration_since(now);
                    if !left.is_zero() {
                        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                        return Err(Later { secs });
                    }
                }
                (0, name)
            }
        };
        let inside = &mut book.inside[lane];
        let count = inside.of.get(&of).copied().unwrap_or(0);
        if inside.all >= INSIDE_MAX || count >= INSIDE_OF_ONE_MAX {
            return Err(Later { secs: 2 });
        }
        inside.all += 1;
        inside.of.insert(of, count + 1);
        let gate = self.clone();
        Ok((Place { gate, lane, of }, token))
    }

    /// Remembers a token that was given to a login.
    pub fn know(&self, name: &str, token: &str) {
        let (name, token) = (self.hasher.hash_one(name), self.hasher.hash_one(token));
        let mut book = self.book();
        if book.tokens.len() >= TOKENS_MAX
            && let Some(oldest) = book.given.pop_front()
        {
            book.tokens.remove(&oldest);
        }
        book.tokens.insert(token, (name, 0));
        book.given.push_back(token);
    }
}

impl Turn {
    /// The passphrase was right.
    pub fn right(self) {
        let mut book = self.place.gate.book();
        // Of one who is known it says nothing about those who are not.
        match self.token {
            Some(token) => {
                if let Some((_, failed)) = book.tokens.get_mut(&token) {
                    *failed = 0;
                }
            }
            None if self.place.lane == 0 => drop(book.failures.remove(&self.name)),
            None => {}
        }
    }

    /// The passphrase was wrong.
    pub fn wrong(self, now: Instant) {
        let mut book = self.place.gate.book();
        if let Some(token) = self.token {
            if let Some((_, failed)) = book.tokens.get_mut(&token) {
                *failed += 1;
            }
            return;
        }
        if self.place.lane == 1 {
            return;
        }
        let forgotten = |failures: &Failures| now.saturating_duration_since(failures.last) > FORGET;
        if book.failures.len() >= NAMES_MAX && !book.failures.contains_key(&self.name) {
            book.failures.retain(|_, failures| !forgotten(failures));
            let oldest = book
                .failures
                .iter()
                .min_by_key(|(_, failures)| failures.last);
            if let Some(oldest) = oldest.map(|(name, _)| *name)
                && book.failures.len() >= NAMES_MAX
            {
                book.failures.remove(&oldest);
            }
        }
        let failures = book.failures.entry(self.name).or_insert(Failures {
            count: 0,
            last: now,
        });
        if forgotten(failures) {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// What the gate says at once; `None` when it has whoever comes wait.
    fn ask(
        gate: &Arc<Gate>,
        name: &str,
        caller: Caller<'_>,
        now: Instant,
    ) -> Option<Result<Turn, Later>> {
        let future = pin!(gate.enter(name, caller, now));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        }
    }

    fn turn(gate: &Arc<Gate>, name: &str, caller: Caller<'_>, now: Instant) -> Turn {
        ask(gate, name, caller, now)
            .unwrap()
            .unwrap_or_else(|later| panic!("{later:?}"))
    }

    fn refused(gate: &Arc<Gate>, name: &str, caller: Caller<'_>, now: Instant) -> u64 {
        let said = ask(gate, name, caller, now);
        said.and_then(Result::err).map_or(0, |later| later.secs)
    }

    #[test]
    fn failures_slow_down_the_name_that_was_tried_and_no_other() {
        let (gate, start) = (Gate::new(), Instant::now());
        for _ in 0..FREE_FAILURES {
            turn(&gate, "clerk", Caller::Stranger, start).wrong(start);
        }
        assert_eq!(refused(&gate, "clerk", Caller::Stranger, start), 1);
        turn(&gate, "officer", Caller::Stranger, start).right();
        let mut now = start;
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(refused(&gate, "clerk", Caller::Stranger, now), wait);
            now += Duration::from_secs(wait);
            turn(&gate, "clerk", Caller::Stranger, now).wrong(now);
        }
        // Somebody else's failures end with the first right passphrase, or by being long ago.
        now += Duration::from_secs(30);
        turn(&gate, "clerk", Caller::Stranger, now).right();
        turn(&gate, "clerk", Caller::Stranger, now).wrong(now);
        assert_eq!(refused(&gate, "clerk", Caller::Stranger, now), 0);
    }

    #[test]
    fn whoever_is_known_is_kept_out_neither_by_failures_nor_by_a_flood() {
        let (gate, now) = (Gate::new(), Instant::now());
        gate.know("clerk", "a token of before");
        for _ in 0..FREE_FAILURES {
            turn(&gate, "clerk", Caller::Stranger, now).wrong(now);
        }
        let held: Vec<Turn> = (0..STRANGERS_AT_ONCE)
            .map(|n| turn(&gate, &format!("name-{n}"), Caller::Stranger, now))
            .collect();
        assert!(ask(&gate, "another", Caller::Stranger, now).is_none());
        let known = Caller::Token("a token of before");
        turn(&gate, "clerk", known, now).right();
        turn(&gate, "clerk", Caller::Local, now).right();
        // It is a token of that login, and of no other.
        assert!(ask(&gate, "officer", known, now).is_none());
        assert!(refused(&gate, "clerk", Caller::Token("a guess"), now) > 0);
        // Nor does it let its holder guess for ever.
        for _ in 0..FREE_FAILURES {
            turn(&gate, "clerk", known, now).wrong(now);
        }
        assert!(refused(&gate, "clerk", known, now) > 0);
        drop(held);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_places_come_back() {
        let (gate, now) = (Gate::new(), Instant::now());
        let mut waiting: Vec<_> = (0..INSIDE_MAX)
            .map(|n| gate.place(n as u64, Caller::Stranger, now).unwrap())
            .collect();
        assert_eq!(refused(&gate, "one more", Caller::Stranger, now), 2);
        waiting.clear();
        for _ in 0..INSIDE_OF_ONE_MAX {
            waiting.push(gate.place(7, Caller::Stranger, now).unwrap());
        }
        assert!(gate.place(7, Caller::Stranger, now).is_err());
        assert!(gate.place(8, Caller::Stranger, now).is_ok());
        waiting.clear();
        let book = gate.book();
        assert!(
            book.inside
                .iter()
                .all(|lane| lane.all == 0 && lane.of.is_empty())
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (gate, now) = (Gate::new(), Instant::now());
        for n in 0..NAMES_MAX + 10 {
            let at = now + Duration::from_millis(n as u64);
            turn(&gate, &format!("name-{n}"), Caller::Stranger, at).wrong(at);
        }
        for n in 0..TOKENS_MAX + 10 {
            gate.know("clerk", &format!("token-{n}"));
        }
        let book = gate.book();
        assert_eq!(book.failures.len(), NAMES_MAX);
        assert_eq!(
            (book.tokens.len(), book.given.len()),
            (TOKENS_MAX, TOKENS_MAX)
        );
    }
}
