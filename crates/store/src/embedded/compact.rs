//! Compaction: what is still alive in a run of old segments moves to one file that stands for
//! them, and they are destroyed.
//!
//! Owns the choice of the run and the order of the steps, each safe to be the last: copy and sync
//! under an unfinished name, where commits meanwhile erase what they erase, rename, tell the index,
//! overwrite and remove the old files.
//! Refuses to touch segments that the index does not have durably, to copy a body that is erased,
//! and to take a file away from somebody who verifies the store.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::writer::Copying;
use super::{Inner, State};
use crate::error::{CommitError, commit_io, is_full};
use crate::fs;
use crate::recover::UNFINISHED;
use crate::segment::{self, KEPT, Live};

mod copy;

use copy::Copy;
pub(super) use copy::{Shared, hold};

/// So many neighbours that are nearly empty are put together though nothing in them died.
const SMALL_FILES: usize = 8;
/// How long the last step waits for a verification that is under way, and how often it looks.
const ALONE_TRIES: u32 = 100;
const ALONE_EVERY: Duration = Duration::from_millis(50);

/// What compacting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segment files taken away.
    pub files: u64,
    /// Their bytes.
    pub before: u64,
    /// Bytes of the files that stand for them.
    pub after: u64,
}

impl Inner {
    /// The compactor's life.
    pub(super) fn keep_compacting(&self) {
        while self.work.wait_for_compaction() {
            if let Err(error) = self.compact_all() {
                // The segments are as they were; the next layer in the index brings it here again.
                tracing::warn!(%error, "segments were not compacted");
            }
        }
    }

    /// Compacts one run after the other until none is due.
    pub(super) fn compact_all(&self) -> Result<Compacted, CommitError> {
        let one = self.compacting.lock();
        let _one = one.unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut done = Compacted::default();
        let mut refused = HashSet::new();
        loop {
            if self.work.is_stopping() || self.writer().is_stopped() {
                return Ok(done);
            }
            let Some(run) = self.due(&refused) else {
                return Ok(done);
            };
            // A run that could not be compacted is left alone this time.
            refused.extend(run.iter().map(|file| file.number));
            let made = self.compact_run(&run);
            // Whatever became of it, commits need not tell it more.
            self.writer().copying = None;
            if let Some(after) = made? {
                done.files += run.len() as u64;
                done.before += run.iter().map(|file| file.bytes).sum::<u64>();
                done.after += after;
            }
        }
    }

    /// The run of neighbours that gives back most.
    fn due(&self, refused: &HashSet<u32>) -> Option<Vec<Live>> {
        if self.options.compact_percent > 100 {
            return None;
        }
        let state = self.state();
        let live = |file: &Live| file.bytes.saturating_sub(dead(&state, file));
        let is_due = |file: &Live| {
            dead(&state, file) * 100 >= file.bytes * u64::from(self.options.compact_percent)
        };
        let small = |file: &Live| live(file) <= self.options.segment_bytes / SMALL_FILES as u64;
        let old = |file: &&Live| file.to < state.marker.segment && !refused.contains(&file.number);
        let mut best: Option<(u64, Vec<Live>)> = None;
        let mut rest = state.files.as_slice();
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |file: &&Live| {
                bytes += live(file);
                bytes <= self.options.segment_bytes
            };
            let take = |file: &&Live| is_due(file) || small(file);
            let run = rest
                .iter()
                .take_while(old)
                .take_while(take)
                .take_while(fits);
            let run: Vec<Live> = run.copied().collect();
            let gain = run.iter().map(|file| dead(&state, file)).sum();
            let worth = run.iter().any(is_due) || run.len() >= SMALL_FILES;
            if worth && best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, run));
            }
            rest = rest.strip_prefix(&[*first]).unwrap_or_default();
        }
        best.map(|(_, run)| run)
    }

    /// Compacts a run; the size of the file that stands for it, or `None` when somebody verifies
    /// the store and the run stays.
    fn compact_run(&self, run: &[Live]) -> Result<Option<u64>, CommitError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(None);
        };
        let number = {
            let state = self.state();
            let kept = state.files.iter().map(|file| file.number);
            kept.filter(|number| number & KEPT != 0)
                .max()
                .unwrap_or(KEPT)
                + 1
        };
        let target = segment::path(&self.dir, number);
        let unfinished = target.with_extension(UNFINISHED);
        let copied = Copy::new(self, run, &unfinished).and_then(|copy| {
            let sink = copy.sink();
            self.writer().copying = Some(Copying {
                files: run.iter().map(|file| file.number).collect(),
                displaced: HashSet::new(),
                sink: sink.clone(),
            });
            let (header, bytes) = copy.run(number)?;
            Ok((header, bytes, sink))
        });
        let (header, bytes, sink) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                self.abandon(&unfinished);
                return match error {
                    copy::CopyError::Read(error) => {
                        tracing::warn!(%error, from = first.from, to = last.to, "not compacted");
                        Ok(None)
                    }
                    copy::CopyError::Write(error) if is_full(&error) => {
                        Err(CommitError::Full { file: target })
                    }
                    copy::CopyError::Write(error) => Err(commit_io(&target)(error)),
                };
            }
        };
        let Some(_alone) = self.wait_to_be_alone().map_err(commit_io(&self.dir))? else {
            self.abandon(&unfinished);
            return Ok(None);
        };
        let live = Live {
            number,
            from: header.from,
            to: header.to,
            bytes,
        };
        self.take_the_place(run, live, &sink, &unfinished)?;
        let destroyed = self.destroy(run);
        let failed = destroyed.map_err(commit_io(&self.dir)).err();
        self.work.end_destroying(failed.clone());
        match failed {
            // A body that is erased from here on may still lie in an old file.
            Some(error) => Err(self.writer().stop(error)),
            None => Ok(Some(bytes)),
        }
    }

    fn wait_to_be_alone(&self) -> io::Result<Option<std::fs::File>> {
        for _ in 0..ALONE_TRIES {
            if let Some(alone) = segment::lock_alone(&self.dir)? {
                return Ok(Some(alone));
            }
            if self.work.is_stopping() {
                break;
            }
            std::thread::sleep(ALONE_EVERY);
        }
        Ok(None)
    }

    /// The copy gets its name, and readers and commits use it from here on.
    fn take_the_place(
        &self,
        run: &[Live],
        live: Live,
        sink: &Shared,
        unfinished: &Path,
    ) -> Result<(), CommitError> {
        let target = segment::path(&self.dir, live.number);
        // Commits wait from here on, so that nothing is displaced unseen.
        let mut writer = self.writer();
        if let Err(error) = writer.usable() {
            drop(writer);
            self.abandon(unfinished);
            return Err(error);
        }
        let displaced = writer.copying.take().map(|copying| copying.displaced);
        let named = self.fs.rename(unfinished, &target);
        if let Err(error) = named.and_then(|()| self.fs.sync_dir(&segment::folder(&self.dir))) {
            // Whether the name is durable is not known; the next opening decides by what is there.
            return Err(writer.stop(commit_io(&target)(error)));
        }
        let mut layer = {
            let mut sink = hold(sink);
            let mut layer = std::mem::take(&mut sink.places);
            for displaced in displaced.iter().flatten() {
                if let Some((key, _)) = sink.origins.get(displaced) {
                    layer.entries.remove(key);
                }
            }
            layer
        };
        layer.kept = vec![live.number];
        layer.gone = run.iter().map(|file| file.number).collect();
        let mut state = self.state_mut();
        state.dead.retain(|number, _| !layer.gone.contains(number));
        let at = state.files.iter().position(|file| file.from == live.from);
        let at = at.unwrap_or(0);
        state.files.splice(at..at + run.len(), [live]);
        self.push_layer(&mut state, layer);
        self.work.begin_destroying();
        Ok(())
    }

    fn destroy(&self, run: &[Live]) -> io::Result<()> {
        for file in run {
            self.segments.forget(file.number);
            fs::destroy(&*self.fs, &segment::path(&self.dir, file.number))?;
        }
        self.fs.sync_dir(&segment::folder(&self.dir))
    }

    /// Takes an unfinished copy away. It holds bodies, so it is overwritten; what fails here is
    /// done at the next opening.
    fn abandon(&self, unfinished: &Path) {
        if let Err(error) = fs::destroy(&*self.fs, unfinished) {
            tracing::warn!(%error, file = %unfinished.display(), "cannot remove an unfinished copy");
        }
    }
}

fn dead(state: &State, file: &Live) -> u64 {
    state.dead.get(&file.number).copied().unwrap_or(0)
}
