//! What the segments give in the end: for each key where its value lies, and what was noted of it.
//!
//! Owns the form of that in memory. Entries and bodies have the keys 0, 1, 2, … as eight bytes and
//! are most of what there is: they lie in a list. Changes of other keys are kept as they came and
//! are put in order when somebody asks for the table, which nobody does for most.
//! Refuses to know what a value means.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::OnceLock;

use crate::format::Pointer;
use crate::key;

/// Where the value of a key lies, and the note of it.
#[derive(Debug)]
pub(super) struct Slot<N> {
    pub pointer: Pointer,
    pub note: Option<N>,
}

/// What distinguishes a key within its table; the bytes of it when dereferenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest<'a> {
    /// Eight bytes, which are mostly a number, big-endian.
    Eight([u8; 8]),
    /// Any other bytes.
    Other(&'a [u8]),
}

impl Deref for Rest<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Rest::Eight(bytes) => bytes,
            Rest::Other(bytes) => bytes,
        }
    }
}

/// All tables of all shards.
pub(super) struct Tables<N> {
    numbers: HashMap<Box<str>, usize>,
    /// The tables of each shard; a dozen at most, so a name is found by looking.
    shards: Vec<Vec<(Box<str>, Table<N>)>>,
}

impl<N> Tables<N> {
    pub(super) fn new() -> Tables<N> {
        Tables {
            numbers: HashMap::new(),
            shards: Vec::new(),
        }
    }

    /// The number of a shard, under which its keys are set.
    pub(super) fn number(&mut self, shard: &str) -> usize {
        if let Some(number) = self.numbers.get(shard) {
            return *number;
        }
        let number = self.shards.len();
        self.numbers.insert(shard.into(), number);
        self.shards.push(Vec::new());
        number
    }

    /// Gives a key of the shard of this number its slot, or takes it away.
    pub(super) fn set(&mut self, shard: usize, table: &str, rest: &[u8], slot: Option<Slot<N>>) {
        let tables = &mut self.shards[shard];
        let at = tables.iter().position(|(name, _)| **name == *table);
        let at = at.unwrap_or_else(|| {
            tables.push((table.into(), Table::new()));
            tables.len() - 1
        });
        tables[at].1.set(rest, slot);
    }

    /// The slot of a key, in the bytes that [`crate::Key::as_bytes`] gives.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot<N>> {
        let (shard, table, rest) = key::split(key)?;
        self.table(shard, table)?.get(rest)
    }

    pub(super) fn table(&self, shard: &str, table: &str) -> Option<&Table<N>> {
        let mut tables = self.shards[*self.numbers.get(shard)?].iter();
        tables.find(|(name, _)| **name == *table).map(|(_, t)| t)
    }
}

/// One table of a shard.
pub(super) struct Table<N> {
    /// Under 0, 1, 2, … as eight bytes, from 0 on without a gap but for what was deleted.
    dense: Vec<Option<Slot<N>>>,
    /// Under other numbers of eight bytes; all are beyond the end of `dense`.
    ahead: BTreeMap<u64, Slot<N>>,
    /// Changes of all other keys, in the order in which they came.
    changes: Vec<Change<N>>,
    /// The rests of their keys, one after the other.
    rests: Vec<u8>,
    /// The changes that count in the end, by key; made when first asked for.
    settled: OnceLock<Vec<usize>>,
}

struct Change<N> {
    rest_at: usize,
    rest_len: u16,
    slot: Option<Slot<N>>,
}

impl<N> Table<N> {
    fn new() -> Table<N> {
        Table {
            dense: Vec::new(),
            ahead: BTreeMap::new(),
            changes: Vec::new(),
            rests: Vec::new(),
            settled: OnceLock::new(),
        }
    }

    fn set(&mut self, rest: &[u8], slot: Option<Slot<N>>) {
        let Ok(number) = <[u8; 8]>::try_from(rest).map(u64::from_be_bytes) else {
            self.settled.take();
            self.changes.push(Change {
                rest_at: self.rests.len(),
                rest_len: rest.len() as u16,
                slot,
            });
            return self.rests.extend_from_slice(rest);
        };
        let end = self.dense.len() as u64;
        if number < end {
            self.dense[number as usize] = slot;
        } else if number > end {
            match slot {
                Some(slot) => drop(self.ahead.insert(number, slot)),
                None => drop(self.ahead.remove(&number)),
            }
        } else if let Some(slot) = slot {
            self.dense.push(Some(slot));
            while let Some(next) = self.ahead.remove(&(self.dense.len() as u64)) {
                self.dense.push(Some(next));
            }
        }
    }

    fn rest(&self, change: &Change<N>) -> &[u8] {
        &self.rests[change.rest_at..change.rest_at + usize::from(change.rest_len)]
    }

    fn settled(&self) -> &[usize] {
        self.settled.get_or_init(|| {
            let rest = |at: &usize| self.rest(&self.changes[*at]);
            let mut order: Vec<usize> = (0..self.changes.len()).collect();
            order.sort_unstable_by(|a, b| rest(a).cmp(rest(b)).then(b.cmp(a)));
            // The last change of each key comes first of its like.
            order.dedup_by(|later, kept| rest(later) == rest(kept));
            order.retain(|at| self.changes[*at].slot.is_some());
            order
        })
    }

    pub(super) fn get(&self, rest: &[u8]) -> Option<&Slot<N>> {
        if let Ok(number) = <[u8; 8]>::try_from(rest).map(u64::from_be_bytes) {
            return match self.dense.get(usize::try_from(number).ok()?) {
                Some(slot) => slot.as_ref(),
                None => self.ahead.get(&number),
            };
        }
        let settled = self.settled();
        let change = |at: &usize| &self.changes[*at];
        let found = settled.binary_search_by(|at| self.rest(change(at)).cmp(rest));
        change(&settled[found.ok()?]).slot.as_ref()
    }

    /// The slots from a rest on, in the order of keys.
    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
    ) -> impl Iterator<Item = (Rest<'a>, &'a Slot<N>)> + use<'a, N> {
        let mut numbers = self.numbers(from).peekable();
        let settled = self.settled();
        let change = |at: &usize| &self.changes[*at];
        let begin = settled.partition_point(|at| self.rest(change(at)) < from);
        let mut others = settled[begin..].iter().map(change).peekable();
        std::iter::from_fn(move || {
            let number = numbers.peek().map(|(number, _)| number.to_be_bytes());
            let other = others.peek().map(|change| self.rest(change));
            let first = match (&number, other) {
                (Some(number), Some(other)) => number.as_slice() < other,
                (number, _) => number.is_some(),
            };
            match first {
                true => numbers
                    .next()
                    .map(|(number, slot)| (Rest::Eight(number.to_be_bytes()), slot)),
                false => {
                    let change = others.next()?;
                    Some((Rest::Other(self.rest(change)), change.slot.as_ref()?))
                }
            }
        })
    }

    /// The slots under numbers of eight bytes from a rest on.
    fn numbers<'a>(&'a self, from: &[u8]) -> impl Iterator<Item = (u64, &'a Slot<N>)> + use<'a, N> {
        let (head, more) = from.split_at(from.len().min(8));
        let mut first = [0; 8];
        first[..head.len()].copy_from_slice(head);
        let first = u64::from_be_bytes(first);
        // A longer rest comes after the eight bytes that it begins with.
        let first = match more {
            [] => Some(first),
            _ => first.checked_add(1),
        };
        let end = self.dense.len();
        let begin = first.map_or(end, |first| {
            usize::try_from(first).map_or(end, |f| f.min(end))
        });
        let dense = (begin as u64..).zip(&self.dense[begin..]);
        let dense = dense.filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        let ahead = first.map(|first| self.ahead.range(first..));
        dense.chain(
            ahead
                .into_iter()
                .flatten()
                .map(|(number, slot)| (*number, slot)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(offset: u32) -> Option<Slot<()>> {
        let pointer = Pointer {
            segment: 1,
            offset,
            len: 9,
        };
        Some(Slot {
            pointer,
            note: None,
        })
    }

    /// Every change in turn, against a plain map of keys.
    #[test]
    fn a_table_gives_what_a_sorted_map_gives() {
        let mut rests: Vec<Vec<u8>> = (0..12u64).map(|n| n.to_be_bytes().to_vec()).collect();
        rests.extend([
            vec![],
            vec![0],
            vec![0; 9],
            vec![0; 7],
            b"\0\0\0\0\0\0\0\x03x".to_vec(),
        ]);
        rests.extend([
            u64::MAX.to_be_bytes().to_vec(),
            vec![0xff; 9],
            vec![0xff; 3],
        ]);
        let (mut table, mut map) = (Table::new(), BTreeMap::new());
        let mut random = 7u64;
        for step in 0..4000u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let rest = &rests[(random >> 33) as usize % rests.len()];
            if random >> 62 == 0 {
                table.set(rest, None);
                map.remove(rest);
            } else {
                table.set(rest, slot(step));
                map.insert(rest.clone(), step);
            }
            if step % 20 != 0 {
                continue;
            }
            for from in &rests {
                let found: Vec<(Vec<u8>, u32)> = table
                    .range(from)
                    .map(|(rest, slot)| (rest.to_vec(), slot.pointer.offset))
                    .collect();
                let expected = map
                    .range(from.clone()..)
                    .map(|(rest, at)| (rest.clone(), *at));
                assert_eq!(
                    found,
                    expected.collect::<Vec<_>>(),
                    "step {step} from {from:?}"
                );
                let one = table.get(from).map(|slot| slot.pointer.offset);
                assert_eq!(one, map.get(from).copied(), "step {step} at {from:?}");
            }
        }
    }
}
