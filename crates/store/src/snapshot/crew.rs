//! The crew: one thread a core, each reading the next piece, checking it and looking at its values;
//! whoever is free takes what was checked, in the order of the files.
//!
//! Owns the order and the bound on what waits for its turn. Refuses to judge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::pieces::{Event, Piece, Reader};
use super::{Look, Value};
use crate::error::ReadError;
use crate::format::GROUP_FIXED;
use crate::frame::{self, FrameRef, Inspection};
use crate::segment::Order;

/// Threads, however many cores there are.
const CREW_MAX: usize = 16;
/// Files of fewer bytes in all are not worth a second thread.
const ALONE_BYTES: u64 = 1 << 20;
/// Pieces that wait for their turn, for each thread: more, and whoever checked one waits too. Few, so
/// that the same room is used again while it is in the cache.
const WAITING_MAX: usize = 2;

/// Values that a piece is expected to have.
const VALUES: usize = 1024;

/// A piece with what its groups are.
pub(super) struct Checked<N> {
    pub piece: Piece,
    /// Of each group: how many frames it has, and what its inside is.
    pub inside: Vec<(usize, Inspection)>,
    /// The frames of all groups.
    pub frames: Vec<FrameRef>,
    /// A place for each frame that shows a value.
    pub notes: Vec<Option<N>>,
}

impl<N> Default for Checked<N> {
    fn default() -> Checked<N> {
        Checked {
            piece: Piece::default(),
            inside: Vec::new(),
            frames: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Checks all files, and hands every piece to `take` in order, emptied by it to be used again.
/// Gives the last segment, and up to where it was read.
pub(super) fn check_all<L: Look>(
    dir: &Path,
    order: &Order,
    look: &L,
    take: impl FnMut(&mut Checked<L::Note>) + Send,
) -> Result<Option<(u32, u64)>, ReadError> {
    let bytes: u64 = order.files.iter().map(|file| file.bytes).sum();
    let threads = match bytes < ALONE_BYTES {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, |n| n.get().min(CREW_MAX)),
    };
    let line = Line {
        reader: Mutex::new(Reader::new(dir, order)),
        failed: Mutex::default(),
        waiting: Mutex::default(),
        spare: Mutex::default(),
        taking: Mutex::new((0, take)),
        waiting_max: threads * WAITING_MAX,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| line.work(look));
        }
        line.work(look);
    });
    let failed = line.failed.into_inner();
    match failed.unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(lock(&line.reader).end()),
    }
}

struct Line<'a, N, T> {
    reader: Mutex<Reader<'a>>,
    failed: Mutex<Option<ReadError>>,
    /// What was checked before its turn, by serial number.
    waiting: Mutex<BTreeMap<u64, Checked<N>>>,
    /// Room to be used again.
    spare: Mutex<Vec<Checked<N>>>,
    /// The serial number whose turn it is, and who takes it.
    taking: Mutex<(u64, T)>,
    waiting_max: usize,
}

impl<N, T: FnMut(&mut Checked<N>)> Line<'_, N, T> {
    fn work<L: Look<Note = N>>(&self, look: &L) {
        loop {
            let mut checked = lock(&self.spare).pop().unwrap_or_default();
            match lock(&self.reader).read(&mut checked.piece) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    *lock(&self.failed) = Some(error);
                    return;
                }
            }
            checked.check(look);
            self.hand_on(checked);
        }
    }

    fn hand_on(&self, checked: Checked<N>) {
        let waiting = {
            let mut waiting = lock(&self.waiting);
            waiting.insert(checked.piece.serial, checked);
            waiting.len()
        };
        loop {
            let mut taking = match waiting > self.waiting_max {
                true => lock(&self.taking),
                false => match self.taking.try_lock() {
                    Ok(taking) => taking,
                    Err(TryLockError::Poisoned(taking)) => taking.into_inner(),
                    // Whoever takes looks again for what was handed on meanwhile.
                    Err(TryLockError::WouldBlock) => return,
                },
            };
            let (turn, take) = &mut *taking;
            loop {
                let next = lock(&self.waiting).remove(turn);
                let Some(mut checked) = next else { break };
                take(&mut checked);
                *turn += 1;
                lock(&self.spare).push(checked);
            }
            let turn = *turn;
            drop(taking);
            if !lock(&self.waiting).contains_key(&turn) {
                return;
            }
        }
    }
}

impl<N> Checked<N> {
    /// Checks every byte of the groups, and looks at the values.
    fn check<L: Look<Note = N>>(&mut self, look: &L) {
        let Checked {
            piece,
            inside,
            frames,
            notes,
        } = self;
        inside.clear();
        frames.clear();
        notes.clear();
        let groups = piece.events.iter().filter_map(|event| match event {
            Event::Group { at, header, .. } => {
                Some((&piece.bytes[*at..*at + header.len as usize], header))
            }
            _ => None,
        });
        let mut values = Vec::with_capacity(VALUES);
        for (bytes, header) in groups {
            let begun = frames.len();
            let inspection = frame::inspect(bytes, header, frames);
            inside.push((frames.len() - begun, inspection));
            let shard = &bytes[GROUP_FIXED..GROUP_FIXED + header.shard_len as usize];
            // The header was accepted only with a name in UTF-8.
            let shard = std::str::from_utf8(shard).unwrap_or_default();
            let shown = frames[begun..].iter().filter(|frame| frame.shows_value());
            values.extend(shown.map(|frame| {
                // A good frame has a key of its shard.
                let (table, rest) = frame.in_shard(bytes, shard).unwrap_or_default();
                Value {
                    shard,
                    table,
                    rest,
                    bytes: frame.value(bytes),
                }
            }));
        }
        notes.resize_with(values.len(), || None);
        look.look(&values, notes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
