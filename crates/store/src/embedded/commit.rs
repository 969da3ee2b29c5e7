//! Writing: a round of batches becomes groups in a segment, then pointers in the index.
//!
//! Owns the order that the promise rests on: write, sync, index, erase, sync, acknowledge.
//! Refuses to go on after a failure that leaves the disk's content unknown.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::Inner;
use super::writer::Writer;
use crate::batch;
use crate::error::CommitError;
use crate::format::Pointer;
use crate::frame::Kind;
use crate::index::{Entry, IndexError};
use crate::queue::{Outcome, Ticket};
use crate::segment::Live;

/// The buffer of a round is given back to the system when it has grown beyond this.
const BUFFER_KEPT_MAX: usize = 4 << 20;

/// A layer of pointers that takes this much memory is handed to the mover.
const LAYER_BYTES_MAX: usize = 12 << 20;

/// A batch of the round that will be written.
struct Planned {
    /// Its place in the round.
    slot: usize,
    head: u64,
    /// Where its first frame lies in the segment.
    frames_at: u32,
}

impl Inner {
    /// Writes one round; gives an outcome for every ticket, whatever happens.
    pub(super) fn write(&self, mut round: Vec<Ticket>) -> Vec<Outcome> {
        let written = catch_unwind(AssertUnwindSafe(|| self.round(&mut round)));
        written.unwrap_or_else(|_| {
            let error = IndexError::panicked();
            error.note(&self.dir);
            let error = self.writer().stop(error.into());
            round.iter().map(|_| Err(error.clone())).collect()
        })
    }

    fn round(&self, round: &mut [Ticket]) -> Vec<Outcome> {
        let mut writer = self.writer();
        if let Err(error) = self.make_ready(&mut writer) {
            return round.iter().map(|_| Err(error.clone())).collect();
        }
        let before = writer.end;
        let mut displaced = Vec::new();
        let mut erasures = Vec::new();
        let mut planned = Vec::with_capacity(round.len());
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(round.len());
        writer.buffer.clear();
        for (slot, ticket) in round.iter_mut().enumerate() {
            let outcome = self.plan(ticket, &mut erasures, &mut displaced);
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
        let done = self.carry_out(&mut writer, round, &planned, &mut erasures, &displaced);
        if let Err(error) = done {
            if matches!(error, CommitError::Full { .. }) {
                writer.end = before;
            }
            for plan in &planned {
                outcomes[plan.slot] = Err(error.clone());
            }
        }
        outcomes
    }

    /// Waits until the mover has caught up, and begins a segment when the last is full.
    fn make_ready(&self, writer: &mut Writer) -> Result<(), CommitError> {
        writer.usable()?;
        if self.work.wait_for_room().is_err() {
            return Err(writer.stop(self.index_broken()));
        }
        let before = writer.end;
        if writer.roll(self.options.segment_bytes)? {
            let number = writer.end.segment;
            let mut state = self.state_mut();
            if let Some(last) = state.files.last_mut() {
                last.bytes = before.offset.into();
            }
            state.files.push(Live {
                number,
                from: number,
                to: number,
                bytes: writer.end.offset.into(),
            });
        }
        Ok(())
    }

    /// Compares heads and, where bodies are replaced or deleted, adds the frames that announce
    /// their erasure; returns the shard's next head. `displaced` gathers what loses its key.
    fn plan(
        &self,
        ticket: &mut Ticket,
        erasures: &mut Vec<(Pointer, Vec<u8>)>,
        displaced: &mut Vec<Pointer>,
    ) -> Result<u64, CommitError> {
        let state = self.state();
        let head = state.heads.get(&ticket.shard).copied().unwrap_or(0);
        batch::check_head(&ticket.shard, ticket.expected, head)?;
        let begun = erasures.len();
        let mut cursor = self.index.cursor();
        for frame in &ticket.frames {
            let key = frame.key(&ticket.bytes);
            match state.recent.get(key, &mut cursor) {
                Ok(Some(Entry { pointer, kind })) => {
                    displaced.push(pointer);
                    if kind == Kind::Body {
                        erasures.push((pointer, key.to_vec()));
                    }
                }
                Ok(None) => {}
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
        displaced: &[Pointer],
    ) -> Result<(), CommitError> {
        let bytes = writer.buffer.len() as u64;
        let appended = writer.append();
        if writer.buffer.capacity() > BUFFER_KEPT_MAX {
            writer.buffer = Vec::new();
        }
        appended?;
        writer.since_freeze += bytes;
        self.enter(writer, round, planned, !erasures.is_empty());
        for pointer in displaced {
            writer.displace(*pointer);
        }
        if !erasures.is_empty() {
            // Readers find the new frames from here on, so the old ones can go, from the copy
            // that compaction took the place of too.
            let copies = self.work.wait_for_destruction();
            if let Err(error) = copies.and_then(|()| writer.erase(erasures)) {
                return Err(writer.stop(error));
            }
        }
        let mut state = self.state_mut();
        state.erasing = false;
        let due = writer.since_freeze >= self.options.checkpoint_bytes;
        if due || state.recent.open.weight >= LAYER_BYTES_MAX {
            writer.since_freeze = 0;
            self.freeze_in(&mut state);
        }
        drop(state);
        self.commits
            .fetch_add(planned.len() as u64, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes durable groups visible.
    fn enter(&self, writer: &Writer, round: &[Ticket], planned: &[Planned], erasing: bool) {
        let mut state = self.state_mut();
        let state = &mut *state;
        state.erasing = erasing;
        let layer = &mut state.recent.open;
        for plan in planned {
            let ticket = &round[plan.slot];
            for frame in &ticket.frames {
                let key = frame.key(&ticket.bytes);
                let pointer = Pointer {
                    segment: writer.end.segment,
                    offset: plan.frames_at + frame.at,
                    len: frame.len(),
                };
                let kind = frame.kind;
                match kind {
                    Kind::Put | Kind::Body => layer.insert(key, Some(Entry { pointer, kind })),
                    Kind::Delete => layer.insert(key, None),
                    Kind::Erase => {}
                }
            }
            layer.head(&ticket.shard, plan.head);
            match state.heads.get_mut(&ticket.shard) {
                Some(known) => *known = plan.head,
                None => drop(state.heads.insert(ticket.shard.clone(), plan.head)),
            }
        }
        layer.end = writer.end;
        if let Some(last) = state.files.last_mut() {
            last.bytes = writer.end.offset.into();
        }
    }
}
