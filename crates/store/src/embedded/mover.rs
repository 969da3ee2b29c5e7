//! The thread that brings pointers from memory into the index.
//!
//! Owns what waits for it and what waits on it; commits wait when it is behind by
//! [`FROZEN_MAX`] layers, so that memory and the replay at the next opening stay bounded.
//! Refuses to drop a layer that the index does not have durably.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Inner, State};
use crate::error::CommitError;
use crate::index::IndexError;
use crate::recent::Layer;

/// Frozen layers that may wait before commits do.
const FROZEN_MAX: usize = 2;

/// What the store's threads have to do, and how far they are.
#[derive(Default)]
pub(super) struct Work {
    state: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Default)]
struct Todo {
    /// Layers that are frozen and not yet in the index.
    frozen: usize,
    /// The index failed; the mover has ended.
    failed: Option<IndexError>,
    /// Segments may be due for compaction.
    compact: bool,
    /// Files that compaction took the place of are being destroyed.
    destroying: bool,
    /// One of them could not be.
    undestroyed: Option<CommitError>,
    stop: bool,
}

impl Work {
    fn todo(&self) -> MutexGuard<'_, Todo> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Todo)) {
        change(&mut self.todo());
        self.changed.notify_all();
    }

    fn wait<'a>(&'a self, todo: MutexGuard<'a, Todo>) -> MutexGuard<'a, Todo> {
        let waited = self.changed.wait(todo);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The threads finish what waits and end.
    pub(super) fn stop(&self) {
        self.change(|todo| todo.stop = true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.todo().stop
    }

    /// Waits until another layer may be filled.
    pub(super) fn wait_for_room(&self) -> Result<(), IndexError> {
        self.wait_until(|todo| todo.frozen < FROZEN_MAX)
    }

    /// Waits until the index has all frozen layers.
    pub(super) fn wait_for_all(&self) -> Result<(), IndexError> {
        self.wait_until(|todo| todo.frozen == 0)
    }

    fn wait_until(&self, done: impl Fn(&Todo) -> bool) -> Result<(), IndexError> {
        let mut todo = self.todo();
        loop {
            match &todo.failed {
                Some(error) => return Err(error.clone()),
                None if done(&todo) => return Ok(()),
                None => todo = self.wait(todo),
            }
        }
    }

    /// Waits until no body is there twice.
    pub(super) fn wait_for_destruction(&self) -> Result<(), CommitError> {
        let mut todo = self.todo();
        while todo.destroying {
            todo = self.wait(todo);
        }
        todo.undestroyed.clone().map_or(Ok(()), Err)
    }

    pub(super) fn begin_destroying(&self) {
        self.change(|todo| todo.destroying = true);
    }

    pub(super) fn end_destroying(&self, failed: Option<CommitError>) {
        self.change(|todo| {
            todo.destroying = false;
            todo.undestroyed = failed;
        });
    }

    /// Waits until compaction may be due; false when the thread has to end.
    pub(super) fn wait_for_compaction(&self) -> bool {
        let mut todo = self.todo();
        while !todo.compact && !todo.stop && todo.failed.is_none() {
            todo = self.wait(todo);
        }
        todo.compact = false;
        !todo.stop && todo.failed.is_none()
    }

    /// Waits for the next layer; false when there is none left and the thread has to end, `None`
    /// when it is time to freeze what there is.
    fn wait_for_layer(&self, at_most: Duration) -> Option<bool> {
        let mut todo = self.todo();
        while todo.frozen == 0 {
            if todo.stop {
                return Some(false);
            }
            let waited = self.changed.wait_timeout(todo, at_most);
            let timeout;
            (todo, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && todo.frozen == 0 {
                return None;
            }
        }
        Some(true)
    }
}

impl Inner {
    /// Hands what is in memory to the mover.
    pub(super) fn freeze(&self) {
        self.freeze_in(&mut self.state_mut());
    }

    pub(super) fn freeze_in(&self, state: &mut State) {
        if state.erasing {
            // The next opening has to come by these groups to finish what they announce.
            return;
        }
        let before = state.recent.frozen.len();
        state.recent.freeze();
        let more = state.recent.frozen.len() - before;
        if more > 0 {
            self.work.change(|todo| todo.frozen += more);
        }
    }

    /// Hands one more layer to the mover, newer than all in memory.
    pub(super) fn push_layer(&self, state: &mut State, layer: Layer) {
        state.recent.freeze_with(layer);
        let frozen = state.recent.frozen.len();
        self.work.change(|todo| todo.frozen = frozen);
    }

    /// Brings the index up to date with everything committed before the call.
    pub(super) fn bring_up_to_date(&self) -> Result<(), CommitError> {
        self.freeze();
        Ok(self.work.wait_for_all()?)
    }

    pub(super) fn index_broken(&self) -> CommitError {
        let failed = self.work.todo().failed.clone();
        failed.unwrap_or_else(IndexError::panicked).into()
    }

    /// The mover's life.
    pub(super) fn keep_moving(&self) {
        loop {
            match self.work.wait_for_layer(self.options.checkpoint_every) {
                Some(true) => {}
                Some(false) => return,
                None => {
                    self.freeze();
                    continue;
                }
            }
            let moved = catch_unwind(AssertUnwindSafe(|| self.move_one()));
            if let Err(error) = moved.unwrap_or_else(|_| Err(IndexError::panicked())) {
                error.note(&self.dir);
                // First, for a commit may hold the writer and wait for room.
                self.work.change(|todo| todo.failed = Some(error.clone()));
                self.writer().stop(error.into());
                return;
            }
        }
    }

    /// Brings the oldest frozen layer into the index.
    fn move_one(&self) -> Result<(), IndexError> {
        let layer = self.state().recent.frozen.front().cloned();
        let Some(layer) = layer else { return Ok(()) };
        let merged = self.index.merge(&layer)?;
        let dead: BTreeMap<u32, u64> = {
            let mut state = self.state_mut();
            for (file, bytes) in merged.iter().chain(&layer.dead) {
                *state.dead.entry(*file).or_default() += bytes;
            }
            let State { files, dead, .. } = &mut *state;
            let numbers: std::collections::HashSet<u32> =
                files.iter().map(|file| file.number).collect();
            dead.retain(|number, _| numbers.contains(number));
            let touched = merged.keys().chain(layer.dead.keys());
            touched
                .filter_map(|file| Some((*file, *dead.get(file)?)))
                .collect()
        };
        self.index.checkpoint(&layer, &dead)?;
        let mut state = self.state_mut();
        state.recent.frozen.pop_front();
        state.marker = state.marker.max(layer.end);
        let frozen = state.recent.frozen.len();
        self.work.change(|todo| {
            todo.frozen = frozen;
            todo.compact = true;
        });
        Ok(())
    }
}
