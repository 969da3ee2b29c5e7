//! A hash table of 32-bit slots whose keys lie elsewhere.
//!
//! Owns open addressing with linear probing; the caller says how a slot hashes and
//! whether it is the one sought. Four bytes a slot, at most three of four in use:
//! a general map would keep the keys twice.

use std::hash::{DefaultHasher, Hash, Hasher};

const EMPTY: u32 = u32::MAX;
const SLOTS_FIRST: usize = 8;

#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<u32>,
    used: usize,
}

/// SipHash under a fixed key: the index is pure and takes no randomness.
///
/// Somebody who can import values could choose colliding ones; each costs the
/// attacker millions of hashes and the node a few comparisons.
pub(crate) fn hash_of(key: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Table {
    /// The slot for which `same` holds.
    pub(crate) fn get(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        self.place(hash, same).map(|at| self.slots[at])
    }

    /// Adds a slot that is not there yet, below `u32::MAX`.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32, rehash: impl Fn(u32) -> u64) {
        debug_assert_ne!(slot, EMPTY);
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow(rehash);
        }
        self.put(hash, slot);
        self.used += 1;
    }

    /// Puts `slot` where `old` is, under the same hash.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, slot: u32) {
        if let Some(at) = self.place(hash, |found| found == old) {
            self.slots[at] = slot;
        }
    }

    /// Removes a slot, and moves back those that it had pushed on.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32, rehash: impl Fn(u32) -> u64) {
        let Some(mut hole) = self.place(hash, |found| found == slot) else {
            return;
        };
        let count = self.slots.len();
        let mut at = hole;
        loop {
            at = (at + 1) % count;
            if self.slots[at] == EMPTY {
                break;
            }
            let home = home(rehash(self.slots[at]), count);
            // A slot may move back to the hole unless that lies before its home.
            if (at + count - home) % count >= (at + count - hole) % count {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
    }

    /// All slots in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().copied().filter(|slot| *slot != EMPTY)
    }

    fn place(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = home(hash, self.slots.len());
        // Ends at an empty slot: a quarter of the slots is always empty.
        while self.slots[at] != EMPTY {
            if same(self.slots[at]) {
                return Some(at);
            }
            at = (at + 1) % self.slots.len();
        }
        None
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let mut at = home(hash, self.slots.len());
        while self.slots[at] != EMPTY {
            at = (at + 1) % self.slots.len();
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self, rehash: impl Fn(u32) -> u64) {
        // Growing by half keeps a large table between one half and three quarters full.
        let count = (self.slots.len() + self.slots.len() / 2).max(SLOTS_FIRST);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; count]);
        for slot in old.into_iter().filter(|slot| *slot != EMPTY) {
            self.put(rehash(slot), slot);
        }
    }
}

/// Where the search for a hash begins, for any number of slots.
fn home(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Four hashes only, so that runs are long and wrap around the end.
    fn crowded(slot: u32) -> u64 {
        u64::from(slot % 4) << 62 | u64::MAX >> 2
    }

    #[test]
    fn a_crowded_table_agrees_with_a_set() {
        let mut table = Table::default();
        let mut set = BTreeSet::new();
        let mut state = 1_u64;
        for _ in 0..4000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let slot = (state >> 33) as u32 % 64;
            if set.remove(&slot) {
                table.remove(crowded(slot), slot, crowded);
            } else {
                table.insert(crowded(slot), slot, crowded);
                set.insert(slot);
            }
            for probe in 0..64 {
                let found = table.get(crowded(probe), |s| s == probe);
                assert_eq!(found.is_some(), set.contains(&probe));
            }
            assert_eq!(table.iter().collect::<BTreeSet<_>>(), set);
        }
    }
}
