//! What the index has not taken in yet: the pointers of the last commits, in memory.
//!
//! Owns the layers: one that commits write to, and frozen ones on their way into the index. A
//! reading asks the newest layer first and the index last, so it never waits for the index.
//! Refuses to grow without bound: a layer that is full is frozen, and commits wait while too many
//! are.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::sync::Arc;

use crate::format::Pointer;
use crate::index::{Cursor, Entry, Index, IndexError, Place};

/// What an entry of a layer costs besides its key.
const ENTRY_OVERHEAD: usize = 64;

/// Changes of keys and heads, up to a place in the segments.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    /// The pointer that each key has since; `None` when it was deleted.
    pub entries: BTreeMap<Box<[u8]>, Option<Entry>>,
    pub heads: BTreeMap<String, u64>,
    /// Bytes of each file that lost their key within this layer.
    pub dead: BTreeMap<u32, u64>,
    /// Files made by compaction that the layer has the places of.
    pub kept: Vec<u32>,
    /// Files that compaction took away.
    pub gone: Vec<u32>,
    /// All groups before it are in this layer or older ones.
    pub end: Place,
    /// About how many bytes of memory it takes.
    pub weight: usize,
}

impl Layer {
    pub(crate) fn insert(&mut self, key: &[u8], entry: Option<Entry>) {
        if let Some(known) = self.entries.get_mut(key) {
            if let Some(old) = std::mem::replace(known, entry) {
                *self.dead.entry(old.pointer.segment).or_default() += u64::from(old.pointer.len);
            }
            return;
        }
        self.weight += key.len() + ENTRY_OVERHEAD;
        self.entries.insert(key.into(), entry);
    }

    pub(crate) fn head(&mut self, shard: &str, head: u64) {
        match self.heads.get_mut(shard) {
            Some(known) => *known = head,
            None => {
                self.weight += shard.len() + ENTRY_OVERHEAD;
                self.heads.insert(shard.to_owned(), head);
            }
        }
    }

    /// Whether merging it would change nothing but the marker.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.heads.is_empty() && self.kept.is_empty()
    }
}

/// The layers over the index.
pub(crate) struct Recent {
    /// The one that commits write to.
    pub open: Layer,
    /// Oldest first.
    pub frozen: VecDeque<Arc<Layer>>,
}

impl Recent {
    pub(crate) fn new(end: Place) -> Recent {
        Recent {
            open: empty(end),
            frozen: VecDeque::new(),
        }
    }

    /// Hands the open layer over, if it holds anything, and begins another.
    pub(crate) fn freeze(&mut self) {
        if !self.open.is_empty() {
            let next = empty(self.open.end);
            let full = std::mem::replace(&mut self.open, next);
            self.frozen.push_back(Arc::new(full));
        }
    }

    /// Freezes the open layer, and puts a full one over it.
    pub(crate) fn freeze_with(&mut self, mut layer: Layer) {
        self.freeze();
        layer.end = self.open.end;
        self.frozen.push_back(Arc::new(layer));
    }

    /// Keys that the index does not have yet.
    pub(crate) fn len(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|layer| layer.entries.len()).sum();
        self.open.entries.len() + frozen
    }

    fn newest_first(&self) -> impl Iterator<Item = &Layer> {
        let frozen = self.frozen.iter().rev().map(Arc::as_ref);
        std::iter::once(&self.open).chain(frozen)
    }

    /// The entry of one key; `cursor` looks into the index.
    pub(crate) fn get(
        &self,
        key: &[u8],
        cursor: &mut Cursor<'_>,
    ) -> Result<Option<Entry>, IndexError> {
        for layer in self.newest_first() {
            if let Some(change) = layer.entries.get(key) {
                return Ok(*change);
            }
        }
        cursor.get(key)
    }

    /// The first `limit` keys of a range with their pointers.
    pub(crate) fn range(
        &self,
        index: &Index,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Pointer)>, IndexError> {
        let mut rows = Vec::new();
        if limit == 0 || start >= end {
            return Ok(rows);
        }
        let mut layers: Vec<_> = self
            .newest_first()
            .map(|layer| {
                let range = layer.entries.range::<[u8], _>((
                    std::ops::Bound::Included(start),
                    std::ops::Bound::Excluded(end),
                ));
                range.peekable()
            })
            .collect();
        layers.retain_mut(|layer| layer.peek().is_some());
        let mut base = index.rows(start, end);
        let mut under = base.next()?;
        while rows.len() < limit {
            let over = layers.iter_mut().filter_map(next_key).min();
            let hidden = match (&over, &under) {
                (Some(over), Some((key, _))) => *over <= key.as_slice(),
                (Some(_), None) => true,
                (None, _) => false,
            };
            let Some(over) = over.filter(|_| hidden) else {
                let Some((key, entry)) = under else { break };
                rows.push((key, entry.pointer));
                under = base.next()?;
                continue;
            };
            if under.as_ref().is_some_and(|(key, _)| key == over) {
                under = base.next()?;
            }
            let key = over.to_vec();
            let mut newest = None;
            for layer in &mut layers {
                if let Some((_, change)) = layer.next_if(|(next, _)| ***next == *key) {
                    newest = newest.or(Some(*change));
                }
            }
            if let Some(entry) = newest.flatten() {
                rows.push((key, entry.pointer));
            }
        }
        Ok(rows)
    }
}

fn next_key<'a, I>(layer: &mut Peekable<I>) -> Option<&'a [u8]>
where
    I: Iterator<Item = (&'a Box<[u8]>, &'a Option<Entry>)>,
{
    let (key, _) = *layer.peek()?;
    Some(key)
}

fn empty(end: Place) -> Layer {
    Layer {
        end,
        ..Layer::default()
    }
}
