//! Writing: a round of batches becomes groups in a segment, then pointers in the index.
//!
//! Owns the order that the promise rests on: write, sync, index, erase, sync, acknowledge.
//! Refuses to go on after a failure that leaves the disk's content unknown.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Embedded;
use super::writer::Writer;
use crate::batch;
use crate::error::CommitError;
use crate::format::Pointer;
use crate::frame::Kind;
use crate::index::{Changes, IndexError};
use crate::queue::{Outcome, Ticket};

/// The buffer of a round is given back to the system when it has grown beyond this.
const BUFFER_KEPT_MAX: usize = 4 << 20;

/// A batch of the round that will be written.
struct Planned {
    /// Its place in the round.
    slot: usize,
    head: u64,
    /// Where its first frame lies in the segment.
    frames_at: u32,
}

impl Embedded {
    /// Writes one round; gives an outcome for every ticket, whatever happens.
    pub(super) fn write(&self, mut round: Vec<Ticket>) -> Vec<Outcome> {
        let written = catch_unwind(AssertUnwindSafe(|| self.round(&mut round)));
        written.unwrap_or_else(|_| {
            let error = IndexError::panicked();
            error.note(&self.dir);
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let error = writer.stop(error.into());
            round.iter().map(|_| Err(error.clone())).collect()
        })
    }

    fn round(&self, round: &mut [Ticket]) -> Vec<Outcome> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = writer
            .usable()
            .and_then(|()| writer.roll(self.options.segment_bytes));
        if let Err(error) = ready {
            return round.iter().map(|_| Err(error.clone())).collect();
        }
        let before = writer.end;
        let mut erasures = Vec::new();
        let mut planned = Vec::with_capacity(round.len());
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(round.len());
        writer.buffer.clear();
        for (slot, ticket) in round.iter_mut().enumerate() {
            let outcome = self.plan(ticket, &mut erasures);
            if let Ok(head) = outcome {
                let frames_at = writer.push(ticket, head);
                planned.push(Planned {
                    slot,
                    head,
                    frames_at,
                });
            }
            outcomes.push(outcome);
        }
        if planned.is_empty() {
            return outcomes;
        }
        if let Err(error) = self.carry_out(&mut writer, round, &planned, &mut erasures) {
            if matches!(error, CommitError::Full { .. }) {
                writer.end = before;
            }
            for plan in &planned {
                outcomes[plan.slot] = Err(error.clone());
            }
        }
        outcomes
    }

    /// Compares heads and, where bodies are replaced or deleted, adds the frames that announce
    /// their erasure; returns the shard's next head.
    fn plan(
        &self,
        ticket: &mut Ticket,
        erasures: &mut Vec<(Pointer, Vec<u8>)>,
    ) -> Result<u64, CommitError> {
        let head = self.heads().get(&ticket.shard).copied().unwrap_or(0);
        batch::check_head(&ticket.shard, ticket.expected, head)?;
        let begun = erasures.len();
        for frame in &ticket.frames {
            let key = frame.key(&ticket.bytes);
            match self.index.get(key) {
                Ok(Some((pointer, Kind::Body))) => erasures.push((pointer, key.to_vec())),
                Ok(_) => {}
                Err(error) => {
                    erasures.truncate(begun);
                    error.note(&self.dir);
                    return Err(error.into());
                }
            }
        }
        for (pointer, key) in &erasures[begun..] {
            ticket.push(Kind::Erase, key, &pointer.encode());
        }
        Ok(head + 1)
    }

    /// From the buffer to the acknowledgement. Each step rests on the one before.
    fn carry_out(
        &self,
        writer: &mut Writer,
        round: &[Ticket],
        planned: &[Planned],
        erasures: &mut [(Pointer, Vec<u8>)],
    ) -> Result<(), CommitError> {
        let bytes = writer.buffer.len() as u64;
        let appended = writer.append();
        if writer.buffer.capacity() > BUFFER_KEPT_MAX {
            writer.buffer = Vec::new();
        }
        appended?;
        self.enter(writer, round, planned)?;
        // Readers find the new frames from here on, so the old ones can go.
        if let Err(error) = writer.erase(erasures) {
            return Err(writer.stop(error));
        }
        self.commits
            .fetch_add(planned.len() as u64, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        writer.since_checkpoint += bytes;
        let due = writer.since_checkpoint >= self.options.checkpoint_bytes
            || writer.checkpointed.elapsed() >= self.options.checkpoint_every;
        if due {
            // The batches are durable either way; a failure stops the next ones.
            let _ = self.checkpoint_with(writer);
        }
        Ok(())
    }

    /// Brings durable groups into the index and the heads.
    fn enter(
        &self,
        writer: &mut Writer,
        round: &[Ticket],
        planned: &[Planned],
    ) -> Result<(), CommitError> {
        let mut changes = Changes::default();
        let mut moved = HashMap::with_capacity(planned.len());
        for plan in planned {
            let ticket = &round[plan.slot];
            for frame in &ticket.frames {
                let key = frame.key(&ticket.bytes);
                let pointer = Pointer {
                    segment: writer.end.segment,
                    offset: plan.frames_at + frame.at,
                    len: frame.len(),
                };
                match frame.kind {
                    Kind::Put | Kind::Body => changes.insert(key, pointer, frame.kind),
                    Kind::Delete => changes.remove(key),
                    Kind::Erase => {}
                }
            }
            changes.head(&ticket.shard, plan.head);
            moved.insert(&ticket.shard, plan.head);
        }
        let mut heads = self.heads.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.index.apply(changes, writer.end) {
            error.note(&self.dir);
            return Err(writer.stop(error.into()));
        }
        for (shard, head) in moved {
            match heads.get_mut(shard) {
                Some(known) => *known = head,
                None => drop(heads.insert(shard.clone(), head)),
            }
        }
        Ok(())
    }

    /// Makes the index durable, if anything is behind it.
    pub(super) fn checkpoint(&self) -> Result<(), CommitError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.usable()?;
        if writer.since_checkpoint == 0 {
            return Ok(());
        }
        self.checkpoint_with(&mut writer)
    }

    fn checkpoint_with(&self, writer: &mut Writer) -> Result<(), CommitError> {
        let made = catch_unwind(AssertUnwindSafe(|| self.index.checkpoint(writer.end)));
        match made.unwrap_or_else(|_| Err(IndexError::panicked())) {
            Ok(()) => {
                writer.since_checkpoint = 0;
                writer.checkpointed = Instant::now();
                Ok(())
            }
            Err(error) => {
                error.note(&self.dir);
                Err(writer.stop(error.into()))
            }
        }
    }
}
