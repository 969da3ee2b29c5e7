//! Counting records (计数): each in exactly one shard, also while it moves.
//!
//! Owns the one rule of where a record counts: at the old owner until the new owner's statement that
//! it was registered and cosigned is known, and from then on at the new one. Both sides of the rule
//! ask the same question of the same ledgers, so their sum at one node is one at every moment.
//! Refuses to open a cell: an entry's operation says enough.

use std::collections::{BTreeMap, BTreeSet};

use record::entry::{Entry, Operation, RecordEntry};
use record::id::{Hash, Origin, RecordId};
use record::transfer::TransferOffer;
use serde::Serialize;

use crate::chain;
use crate::error::Result;
use crate::node::{Registry, lock};
use crate::table::{self, Head};

const SCAN: usize = 1024;

/// How many records count in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CountLine {
    /// The shard.
    pub origin: Origin,
    /// Records in force that count there.
    pub records: u64,
}

/// What the entries of a shard add up to, as far as it was read.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    size: u64,
    /// Records in force by what the entries say alone.
    pub(crate) in_force: u64,
    /// The newest `transfer-in` of each record that came.
    pub(crate) came: BTreeMap<RecordId, Came>,
    /// Records that left.
    left: BTreeSet<RecordId>,
    /// Records that are here and out of force.
    out: BTreeSet<RecordId>,
    /// Records that came and were erased since.
    pub(crate) came_and_erased: BTreeSet<RecordId>,
}

/// A version that came from another shard.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub at: u64,
    pub version: u64,
    pub content: Hash,
}

/// What is known to have moved out of and into a shard.
#[derive(Debug, Default)]
struct Moves {
    /// Records that moved away, each once, however often it was offered.
    away: BTreeSet<RecordId>,
    /// Records that came, and whether each is in force.
    here: BTreeMap<RecordId, bool>,
}

fn is_in_force(operation: Operation) -> bool {
    !matches!(
        operation,
        Operation::Close | Operation::TransferOut | Operation::Erase | Operation::TransferInClosed
    )
}

impl Registry {
    /// How many records count in every shard held here, and in those below this node that a record
    /// is known to have moved to before their ledger came.
    ///
    /// What moves meanwhile counts once, too: all shards are asked by one and the same knowledge of
    /// who moved, and that is taken after the entries were read, because an entry that closes a
    /// record follows what is known of its moving.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn counts(&self) -> Result<Vec<CountLine>> {
        let mut tallies: BTreeMap<Origin, Tally> = BTreeMap::new();
        for shard in self.store.shards()? {
            if let Some(origin) = Origin::parse(&shard).ok().filter(Origin::is_shard) {
                let tally = self.tally(&origin)?;
                tallies.insert(origin, tally);
            }
        }
        let offers: Vec<TransferOffer> = self.authority().offers().cloned().collect();
        let mut moves: BTreeMap<Origin, Moves> = BTreeMap::new();
        for (offer, moved) in offers.iter().filter_map(|o| Some((o, self.moved_to(o)?))) {
            let division = moved.origin.division();
            if self.authority().within(&division, &self.config.division) {
                tallies.entry(moved.origin.clone()).or_default();
            }
            let away = moves.entry(offer.origin.clone()).or_default();
            away.away.insert(offer.record);
            moves
                .entry(moved.origin)
                .or_default()
                .here
                .insert(moved.record, offer.closed_at.is_none());
        }
        let none = Moves::default();
        let line = |(origin, tally): (Origin, Tally)| {
            let records = self.counted(&origin, &tally, moves.get(&origin).unwrap_or(&none))?;
            Ok(CountLine { origin, records })
        };
        tallies.into_iter().map(line).collect()
    }

    /// How many records count in a shard, by its entries and by what is known to have moved.
    fn counted(&self, origin: &Origin, tally: &Tally, moves: &Moves) -> Result<u64> {
        let (mut more, mut less) = (0u64, 0u64);
        for record in moves.away.iter().filter(|r| !tally.left.contains(r)) {
            // It moved; the entry that says so here is still to come.
            less += u64::from(self.is_counted(origin, record, tally.size)?);
        }
        for (record, in_force) in &moves.here {
            // It is known to be there before the shard's entries came.
            more += u64::from(*in_force && !tally.came.contains_key(record));
        }
        for record in tally.came.keys().filter(|r| !moves.here.contains_key(r)) {
            // Registered, and not proven to be cosigned: it counts where it comes from.
            less += u64::from(self.is_counted(origin, record, tally.size)?);
        }
        Ok((tally.in_force + more).saturating_sub(less))
    }

    fn is_counted(&self, origin: &Origin, record: &RecordId, below: u64) -> Result<bool> {
        let last = self.last_event(origin, record, below)?;
        Ok(last.is_some_and(|(_, entry)| is_in_force(entry.operation)))
    }

    /// Records of an own shard that came from another and were erased since.
    pub(crate) fn came_and_erased(&self, origin: &Origin) -> Result<Vec<(RecordId, Came)>> {
        if Head::read(self.store.as_ref(), origin)?.size == 0 {
            return Ok(Vec::new());
        }
        let tally = self.tally(origin)?;
        let gone = tally.came_and_erased.iter();
        Ok(gone
            .filter_map(|record| Some((*record, tally.came.get(record)?.clone())))
            .collect())
    }

    /// The tally of a shard, brought up to what is held of it.
    pub(crate) fn tally(&self, origin: &Origin) -> Result<Tally> {
        let size = Head::read(self.store.as_ref(), origin)?.size;
        let mut tallies = lock(&self.transfers.tallies);
        let tally = tallies.entry(origin.clone()).or_default();
        if tally.size > size {
            // Taken back by a repair.
            *tally = Tally::default();
        }
        while tally.size < size {
            let limit = usize::try_from(size - tally.size).unwrap_or(SCAN).min(SCAN);
            let from = tally.size.to_be_bytes();
            let rows = self
                .store
                .scan(origin.as_str(), table::ENTRY, &from, limit)?;
            if rows.is_empty() {
                break;
            }
            for (_, bytes) in &rows {
                let at = tally.size;
                if let Entry::Record(entry) = chain::decode(origin, at, bytes)? {
                    let was = match entry.operation {
                        Operation::Erase => self.is_counted(origin, &entry.record, at)?,
                        _ => false,
                    };
                    tally.take(at, &entry, was);
                }
                tally.size += 1;
            }
        }
        Ok(tally.clone())
    }
}

impl Tally {
    /// Takes in an entry; of an erasure, whether the record counted before it.
    fn take(&mut self, at: u64, entry: &RecordEntry, was: bool) {
        match entry.operation {
            Operation::Register => self.in_force += 1,
            Operation::Reopen => {
                self.in_force += 1;
                self.out.remove(&entry.record);
            }
            Operation::TransferIn | Operation::TransferInClosed => {
                match entry.operation {
                    // One record comes in as many entries as it had versions.
                    Operation::TransferIn => self.in_force += u64::from(entry.version == 1),
                    _ => {
                        self.out.insert(entry.record);
                    }
                }
                let came = Came {
                    at,
                    version: entry.version,
                    content: entry.content,
                };
                self.came.insert(entry.record, came);
            }
            Operation::Close => {
                self.in_force = self.in_force.saturating_sub(1);
                self.out.insert(entry.record);
            }
            Operation::TransferOut => {
                // What is out of force leaves without having counted.
                let counted = !self.out.remove(&entry.record);
                self.in_force = self.in_force.saturating_sub(u64::from(counted));
                self.left.insert(entry.record);
            }
            Operation::Erase => {
                self.in_force = self.in_force.saturating_sub(u64::from(was));
                self.out.remove(&entry.record);
                if self.came.contains_key(&entry.record) {
                    self.came_and_erased.insert(entry.record);
                }
            }
            Operation::Amend | Operation::Reseal | Operation::Redact => {}
        }
    }
}
