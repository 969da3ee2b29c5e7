//! What the segments give in the end: for each key where its value lies, and what was noted of it.
//!
//! Owns the form of that in memory. Entries and bodies have the keys 0, 1, 2, … as eight bytes and
//! are most of what there is: they lie in a list. Changes of other keys are kept as they came and
//! are put in order when somebody asks for the table, which nobody does for most.
//! Refuses to know what a value means.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::OnceLock;

use crate::format::Pointer;
use crate::key;

/// The longest gap between numbers that is kept as such.
const GAP_MAX: u64 = 8;

/// Where the value of a key lies, and the note of it.
#[derive(Debug)]
pub(super) struct Slot<N> {
    pub pointer: Pointer,
    pub note: Option<N>,
}

/// A slot as it is found.
pub(super) struct Found<'a, N> {
    pub pointer: Pointer,
    pub note: Option<&'a N>,
}

impl<'a, N> Found<'a, N> {
    fn of(slot: &'a Slot<N>) -> Self {
        Found {
            pointer: slot.pointer,
            note: slot.note.as_ref(),
        }
    }
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

/// A table under its name.
struct Named<N> {
    /// What tells it from others at a glance: most names have no more than these bytes.
    first: u64,
    name: Box<[u8]>,
    table: Table<N>,
}

impl<N> Named<N> {
    /// Whether it is the table of this name, of which `first` are the first eight bytes.
    fn is(&self, first: u64, name: &[u8]) -> bool {
        self.first == first
            && self.name.len() == name.len()
            && (name.len() <= 8 || *self.name == *name)
    }
}

/// All tables of all shards.
pub(super) struct Tables<N> {
    numbers: HashMap<Box<str>, usize>,
    /// The tables of each shard; a dozen at most, so a name is found by looking.
    shards: Vec<Vec<Named<N>>>,
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
    pub(super) fn set(&mut self, shard: usize, table: &[u8], rest: &[u8], slot: Option<Slot<N>>) {
        let tables = &mut self.shards[shard];
        let first = first_eight(table);
        let at = tables.iter().position(|named| named.is(first, table));
        let at = at.unwrap_or_else(|| {
            tables.push(Named {
                first,
                name: table.into(),
                table: Table::new(),
            });
            tables.len() - 1
        });
        tables[at].table.set(rest, slot);
    }

    /// The slot of a key, in the bytes that [`crate::Key::as_bytes`] gives.
    pub(super) fn get(&self, key: &[u8]) -> Option<Found<'_, N>> {
        let (shard, table, rest) = key::split(key)?;
        self.table(shard, table)?.get(rest)
    }

    pub(super) fn table(&self, shard: &str, table: &str) -> Option<&Table<N>> {
        let mut tables = self.shards[*self.numbers.get(shard)?].iter();
        let first = first_eight(table.as_bytes());
        let found = tables.find(|named| named.is(first, table.as_bytes()));
        found.map(|named| &named.table)
    }
}

/// One table of a shard.
pub(super) struct Table<N> {
    /// Under 0, 1, 2, … as eight bytes, from 0 on without a gap of more than [`GAP_MAX`] but for what
    /// was deleted.
    dense: Vec<Option<Slot<N>>>,
    /// Under other numbers of eight bytes; all are beyond the end of `dense`.
    ahead: BTreeMap<u64, Slot<N>>,
    /// Changes of all other keys, in the order in which they came.
    changes: Vec<Change>,
    /// The rests of their keys, one after the other.
    rests: Vec<u8>,
    /// What was noted of their values: of most tables nothing is.
    notes: Vec<N>,
    /// The changes that count in the end, by key; made when first asked for.
    settled: OnceLock<Vec<usize>>,
}

struct Change {
    rest_at: usize,
    rest_len: u16,
    /// Where the value lies, if there is one.
    pointer: Option<Pointer>,
    /// How many notes there are up to its own, if it has one.
    note: Option<NonZeroUsize>,
}

impl<N> Table<N> {
    fn new() -> Table<N> {
        Table {
            dense: Vec::new(),
            ahead: BTreeMap::new(),
            changes: Vec::new(),
            rests: Vec::new(),
            notes: Vec::new(),
            settled: OnceLock::new(),
        }
    }

    fn set(&mut self, rest: &[u8], slot: Option<Slot<N>>) {
        let Ok(number) = <[u8; 8]>::try_from(rest).map(u64::from_be_bytes) else {
            self.settled.take();
            let (pointer, note) = slot.map(|slot| (slot.pointer, slot.note)).unzip();
            let note = note.flatten().and_then(|note| {
                self.notes.push(note);
                NonZeroUsize::new(self.notes.len())
            });
            self.changes.push(Change {
                rest_at: self.rests.len(),
                rest_len: rest.len() as u16,
                pointer,
                note,
            });
            return self.rests.extend_from_slice(rest);
        };
        let end = self.dense.len() as u64;
        if number < end {
            self.dense[number as usize] = slot;
        } else if number - end > GAP_MAX {
            match slot {
                Some(slot) => drop(self.ahead.insert(number, slot)),
                None => drop(self.ahead.remove(&number)),
            }
        } else {
            // Acts have no body, so the bodies of a ledger have gaps of one.
            self.dense
                .extend((end..number).map(|gap| self.ahead.remove(&gap)));
            self.ahead.remove(&number);
            self.dense.push(slot);
            while let Some(next) = self.ahead.remove(&(self.dense.len() as u64)) {
                self.dense.push(Some(next));
            }
        }
    }

    fn rest(&self, change: &Change) -> &[u8] {
        &self.rests[change.rest_at..change.rest_at + usize::from(change.rest_len)]
    }

    fn found(&self, change: &Change) -> Option<Found<'_, N>> {
        let note = change.note.map(|count| &self.notes[count.get() - 1]);
        let pointer = change.pointer?;
        Some(Found { pointer, note })
    }

    fn settled(&self) -> &[usize] {
        self.settled.get_or_init(|| {
            let rest = |at: usize| self.rest(&self.changes[at]);
            // Most keys differ in their first eight bytes, which are compared as one number.
            let changes = 0..self.changes.len();
            let mut order: Vec<(u64, usize)> =
                changes.map(|at| (first_eight(rest(at)), at)).collect();
            order.sort_unstable_by(|(first, a), (other, b)| {
                let by_rest = || rest(*a).cmp(rest(*b)).then(b.cmp(a));
                first.cmp(other).then_with(by_rest)
            });
            // The last change of each key comes first of its like.
            order.dedup_by(|(other, later), (first, kept)| {
                first == other && rest(*later) == rest(*kept)
            });
            let settled = order.into_iter().map(|(_, at)| at);
            settled
                .filter(|at| self.changes[*at].pointer.is_some())
                .collect()
        })
    }

    pub(super) fn get(&self, rest: &[u8]) -> Option<Found<'_, N>> {
        if let Ok(number) = <[u8; 8]>::try_from(rest).map(u64::from_be_bytes) {
            let slot = match self.dense.get(usize::try_from(number).ok()?) {
                Some(slot) => slot.as_ref(),
                None => self.ahead.get(&number),
            };
            return slot.map(Found::of);
        }
        let settled = self.settled();
        let change = |at: &usize| &self.changes[*at];
        let found = settled.binary_search_by(|at| self.rest(change(at)).cmp(rest));
        self.found(change(&settled[found.ok()?]))
    }

    /// The slots from a rest on, in the order of keys.
    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
    ) -> impl Iterator<Item = (Rest<'a>, Found<'a, N>)> + use<'a, N> {
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
                    .map(|(number, slot)| (Rest::Eight(number.to_be_bytes()), Found::of(slot))),
                false => {
                    let change = others.next()?;
                    Some((Rest::Other(self.rest(change)), self.found(change)?))
                }
            }
        })
    }

    /// The slots under numbers of eight bytes from a rest on.
    fn numbers<'a>(&'a self, from: &[u8]) -> impl Iterator<Item = (u64, &'a Slot<N>)> + use<'a, N> {
        let first = first_eight(from);
        let more = &from[from.len().min(8)..];
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

/// Zeros stand for what is not there, so this is ordered as the bytes are, or equal.
fn first_eight(rest: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = rest.len().min(8);
    first[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of some values something is noted.
    fn slot(offset: u32) -> Option<Slot<u32>> {
        let pointer = Pointer {
            segment: 1,
            offset,
            len: 9,
        };
        Some(Slot {
            pointer,
            note: noted(offset),
        })
    }

    fn noted(offset: u32) -> Option<u32> {
        (!offset.is_multiple_of(3)).then_some(offset)
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
                let found: Vec<(Vec<u8>, u32, Option<u32>)> = table
                    .range(from)
                    .map(|(rest, slot)| (rest.to_vec(), slot.pointer.offset, slot.note.copied()))
                    .collect();
                let expected = map
                    .range(from.clone()..)
                    .map(|(rest, at)| (rest.clone(), *at, noted(*at)));
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

    /// Acts have no body: else all bodies after the first act would lie in the map.
    #[test]
    fn numbers_beside_short_gaps_lie_in_the_list_and_a_far_one_joins_it_when_reached() {
        let mut table = Table::new();
        let number = |number: u64| number.to_be_bytes();
        table.set(&number(600), slot(600));
        let there = |at: &u64| at % 257 != 256 && at % 5 != 4;
        for at in (0..600).filter(there) {
            table.set(&number(at), slot(at as u32));
        }
        assert_eq!(table.ahead.len(), 1, "only what is too far");
        table.set(&number(599), slot(599));
        assert!(table.ahead.is_empty());
        let expected: Vec<u64> = (0..=600u64).filter(|at| there(at) || *at >= 599).collect();
        let found: Vec<u64> = table
            .range(&[])
            .map(|(_, found)| u64::from(found.pointer.offset))
            .collect();
        assert_eq!(found, expected);
    }
}
