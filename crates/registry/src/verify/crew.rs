//! The crew: one thread a core, each looking through the next stretch of any ledger, then walking the
//! ledger on by what was found in it, if nobody else is at that.
//!
//! So one large ledger keeps every core busy as many small ones do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use record::id::Origin;

use super::Known;
use super::read::{End, STRETCH, Stretch, stretch};
use super::walk::Walk;
use crate::node::lock;

/// Stretches of one ledger that wait to be walked: more, and whoever read one waits, too.
const WAITING_MAX: usize = 8;
/// Threads, however many cores there are.
const CREW_MAX: usize = 16;

/// One ledger being walked.
struct Path<'a> {
    origin: &'a Origin,
    /// Opened by whoever walks first.
    walk: Mutex<Option<Walk<'a>>>,
    /// Stretches that were read, by their first index.
    waiting: Mutex<BTreeMap<u64, Stretch<'a>>>,
    /// Somebody has read its end.
    ended: AtomicBool,
}

/// The next stretch to read: which ledger, and from where.
#[derive(Default)]
struct Next {
    path: usize,
    from: u64,
}

/// Walks every ledger to its end. Also whether a thread stopped before that.
pub(super) fn walk_all<'a>(known: &'a Known<'a>, origins: &'a [Origin]) -> (Vec<Walk<'a>>, bool) {
    let paths: Vec<Path<'a>> = origins
        .iter()
        .map(|origin| Path {
            origin,
            walk: Mutex::new(None),
            waiting: Mutex::default(),
            ended: AtomicBool::new(false),
        })
        .collect();
    let next = Mutex::new(Next::default());
    let crew = std::thread::available_parallelism().map_or(1, usize::from);
    let stopped = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..crew.min(CREW_MAX))
            .map(|_| {
                scope.spawn(|| {
                    while let Some((path, from)) = take(&paths, &next) {
                        path.read(known, from);
                    }
                })
            })
            .collect();
        threads.into_iter().any(|thread| thread.join().is_err())
    });
    let walks = paths.into_iter().filter_map(|path| {
        path.walk
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    });
    (walks.collect(), stopped)
}

fn take<'p, 'a>(paths: &'p [Path<'a>], next: &Mutex<Next>) -> Option<(&'p Path<'a>, u64)> {
    let mut next = lock(next);
    loop {
        let path = paths.get(next.path)?;
        if path.ended.load(Ordering::Acquire) {
            *next = Next {
                path: next.path + 1,
                from: 0,
            };
            continue;
        }
        let from = next.from;
        next.from += STRETCH;
        return Some((path, from));
    }
}

impl<'a> Path<'a> {
    fn read(&self, known: &'a Known<'a>, from: u64) {
        let stretch = stretch(known.snapshot, self.origin, from..from + STRETCH);
        if !matches!(stretch.end, End::More) {
            self.ended.store(true, Ordering::Release);
        }
        let waiting = {
            let mut waiting = lock(&self.waiting);
            waiting.insert(from, stretch);
            waiting.len()
        };
        loop {
            let mut walk = if waiting > WAITING_MAX {
                lock(&self.walk)
            } else {
                match self.walk.try_lock() {
                    Ok(walk) => walk,
                    Err(TryLockError::Poisoned(walk)) => walk.into_inner(),
                    // Whoever walks looks again for what was read meanwhile.
                    Err(TryLockError::WouldBlock) => return,
                }
            };
            let walk_on = walk.get_or_insert_with(|| Walk::new(known, self.origin));
            loop {
                let stretch = lock(&self.waiting).remove(&walk_on.size());
                let Some(stretch) = stretch else { break };
                walk_on.go_on(stretch);
            }
            let size = walk_on.size();
            drop(walk);
            if !lock(&self.waiting).contains_key(&size) {
                return;
            }
        }
    }
}
