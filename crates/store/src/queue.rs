//! Group commit: concurrent committers wait in a line, and one of them writes for all.
//!
//! Owns who leads and who waits; the line is no longer than the threads that commit.
//! Refuses to know what is written, and to write two batches of one shard in one round, so that a
//! round never has to look at its own writes.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};

use sha2::Sha256;

use crate::batch::Batch;
use crate::error::CommitError;
use crate::frame::{self, FrameRef, Kind};

/// The most that one round writes, unless a single batch is larger.
const ROUND_BYTES_MAX: usize = 32 << 20;

/// A batch as it will lie in its group; made by the committing thread, outside every lock.
pub(crate) struct Ticket {
    pub shard: String,
    pub expected: Option<u64>,
    /// The frames' bytes, one after the other.
    pub bytes: Vec<u8>,
    /// Where the frames lie in `bytes`.
    pub frames: Vec<FrameRef>,
    /// The group's trailer, fed with the frames.
    pub trailer: Sha256,
    id: u64,
}

impl Ticket {
    /// Checks the batch and lays out its frames.
    pub(crate) fn new(batch: &Batch) -> Result<Ticket, CommitError> {
        let room = batch.check()?;
        let mut ticket = Ticket {
            shard: batch.shard.clone(),
            expected: batch.expected,
            bytes: Vec::with_capacity(room),
            frames: Vec::with_capacity(batch.puts().len() + batch.deletes().len()),
            trailer: Sha256::default(),
            id: 0,
        };
        for (key, value, frame) in batch.puts() {
            ticket.push(Kind::from(*frame), key.as_bytes(), value);
        }
        for key in batch.deletes() {
            ticket.push(Kind::Delete, key.as_bytes(), &[]);
        }
        Ok(ticket)
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        let frame = frame::push_frame(&mut self.bytes, &mut self.trailer, kind, key, value);
        self.frames.push(frame);
    }
}

/// What becomes of a committed batch: the new head, or why not.
pub(crate) type Outcome = Result<u64, CommitError>;

/// The line of committers.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Ticket>,
    done: HashMap<u64, Outcome>,
    leading: bool,
    next: u64,
}

impl Queue {
    /// Waits until the batch was written, by this thread or another. `write` gets the tickets of
    /// one round and gives their outcomes in the same order; it must not panic.
    pub(crate) fn submit(
        &self,
        mut ticket: Ticket,
        write: impl Fn(Vec<Ticket>) -> Vec<Outcome>,
    ) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let id = state.next;
        state.next += 1;
        ticket.id = id;
        state.waiting.push(ticket);
        loop {
            if let Some(outcome) = state.done.remove(&id) {
                return outcome;
            }
            if state.leading {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let round = take_round(&mut state.waiting);
            drop(state);
            let ids: Vec<u64> = round.iter().map(|ticket| ticket.id).collect();
            let outcomes = write(round);
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.done.extend(ids.into_iter().zip(outcomes));
            state.leading = false;
            self.changed.notify_all();
        }
    }
}

/// The longest beginning of the line, in order, that one round may write; later batches of a
/// shard stay in line.
fn take_round(waiting: &mut Vec<Ticket>) -> Vec<Ticket> {
    let mut shards = HashSet::new();
    let mut bytes = 0;
    let mut open = true;
    let mut round = Vec::with_capacity(waiting.len());
    let mut later = Vec::new();
    for ticket in waiting.drain(..) {
        open = open && (round.is_empty() || bytes + ticket.bytes.len() <= ROUND_BYTES_MAX);
        if open && shards.insert(ticket.shard.clone()) {
            bytes += ticket.bytes.len();
            round.push(ticket);
        } else {
            later.push(ticket);
        }
    }
    *waiting = later;
    round
}
