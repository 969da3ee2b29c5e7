//! Group commit: concurrent committers wait in a line, and one of them writes for all.
//!
//! Owns who leads and who waits; the line is no longer than the threads that commit.
//! Refuses to know what is written, and to write two batches of one shard in one round, so that a
//! round never has to look at its own writes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

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
    /// Who waits for it.
    committer: Option<Thread>,
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
            committer: None,
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

/// The longest that a round waits for batches that are likely to come.
const PATIENCE_MAX: Duration = Duration::from_millis(1);

/// The line of committers.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Ticket>,
    done: HashMap<u64, Outcome>,
    /// Somebody writes a round.
    leading: bool,
    /// Nobody writes yet: this batch's thread waits until then for company, and leads when none
    /// comes.
    gathering: Option<(u64, Instant)>,
    /// Shards that were in line or in the round when the last one ended: their committers are
    /// likely to be back soon.
    company: usize,
    /// How long it is worth waiting for them: as long as a round takes, since they would wait that
    /// long for the next one otherwise; on a quick disk, waking them takes as long as the sync.
    patience: Duration,
    next: u64,
}

/// What a thread in line does next.
enum Turn {
    /// It was written.
    Done(Outcome),
    /// Wait until woken, or that long at most.
    Wait(Option<Duration>),
    /// Write for all in line.
    Lead,
}

impl State {
    /// The turn of the thread whose batch is `id`.
    ///
    /// More batches may be likely to come than are in line; then it is worth waiting a little, so
    /// that they share a sync: without it, committers fall into two groups that take turns. The
    /// one that comes last leads at once, since it is awake.
    fn turn(&mut self, id: u64) -> Turn {
        if let Some(outcome) = self.done.remove(&id) {
            return Turn::Done(outcome);
        }
        if self.leading {
            return Turn::Wait(None);
        }
        if distinct(&self.waiting, &[]) < self.company {
            let begun = (id, Instant::now() + self.patience);
            let (gatherer, until) = *self.gathering.get_or_insert(begun);
            let left = until.saturating_duration_since(Instant::now());
            match gatherer == id {
                true if left.is_zero() => {}
                true => return Turn::Wait(Some(left)),
                false => return Turn::Wait(None),
            }
        }
        self.gathering = None;
        self.leading = true;
        Turn::Lead
    }
}

impl Queue {
    /// Waits until the batch was written, by this thread or another. `write` gets the tickets of
    /// one round and gives their outcomes in the same order; it must not panic.
    pub(crate) fn submit(
        &self,
        mut ticket: Ticket,
        write: impl Fn(Vec<Ticket>) -> Vec<Outcome>,
    ) -> Outcome {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        ticket.id = id;
        ticket.committer = Some(std::thread::current());
        state.waiting.push(ticket);
        loop {
            match state.turn(id) {
                Turn::Done(outcome) => return outcome,
                Turn::Wait(at_most) => {
                    drop(state);
                    // Woken by whoever leads; a wake that came before is not lost.
                    match at_most {
                        Some(time) => std::thread::park_timeout(time),
                        None => std::thread::park(),
                    }
                }
                Turn::Lead => {
                    let round = take_round(&mut state.waiting);
                    drop(state);
                    self.lead(round, id, &write);
                }
            }
            state = self.state();
        }
    }

    /// Writes a round and wakes its committers, but for the one that leads.
    fn lead(&self, round: Vec<Ticket>, leader: u64, write: &impl Fn(Vec<Ticket>) -> Vec<Outcome>) {
        let members: Vec<_> = round
            .iter()
            .map(|ticket| (ticket.id, ticket.committer.clone()))
            .collect();
        let shards: Vec<String> = round.iter().map(|ticket| ticket.shard.clone()).collect();
        let begun = Instant::now();
        let outcomes = write(round);
        let took = begun.elapsed();
        let mut state = self.state();
        state.patience = took.min(PATIENCE_MAX);
        state.company = distinct(&state.waiting, &shards);
        let ids = members.iter().map(|(id, _)| *id);
        state.done.extend(ids.zip(outcomes));
        state.leading = false;
        let next = state.waiting.first().map(|ticket| ticket.committer.clone());
        // Only then, or whoever wakes finds the line locked and sleeps again.
        drop(state);
        let others = members.into_iter().filter(|(id, _)| *id != leader);
        let woken = next
            .into_iter()
            .chain(others.map(|(_, committer)| committer));
        woken.flatten().for_each(|committer| committer.unpark());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many shards there are in line and in a round together.
fn distinct(waiting: &[Ticket], round: &[String]) -> usize {
    let waiting = waiting.iter().map(|ticket| &ticket.shard);
    waiting.chain(round).collect::<HashSet<_>>().len()
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
