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

fn is_in_force(operation: Operation) -> bool {
    !matches!(
        operation,
        Operation::Close | Operation::TransferOut | Operation::Erase
    )
}

impl Registry {
    /// How many records count in every shard held here, and in those below this node that a record
    /// is known to have moved to before their ledger came.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn counts(&self) -> Result<Vec<CountLine>> {
        let mut shards: BTreeSet<Origin> = self
            .store
            .shards()?
            .iter()
            .filter_map(|shard| Origin::parse(shard).ok())
            .filter(Origin::is_shard)
            .collect();
        let offers: Vec<TransferOffer> = self.authority().offers().cloned().collect();
        for moved in offers.iter().filter_map(|offer| self.moved_to(offer)) {
            let division = moved.origin.division();
            if self.authority().within(&division, &self.config.division) {
                shards.insert(moved.origin);
            }
        }
        let line = |origin: Origin| {
            let records = self.counted(&origin)?;
            Ok(CountLine { origin, records })
        };
        shards.into_iter().map(line).collect()
    }

    /// How many records count in a shard, as far as is known here.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn counted(&self, origin: &Origin) -> Result<u64> {
        let tally = self.tally(origin)?;
        let offers: Vec<TransferOffer> = {
            let authority = self.authority();
            let kind = origin.ledger();
            let about = |offer: &&TransferOffer| {
                offer.origin == *origin
                    || (offer.to == origin.division() && offer.origin.ledger() == kind)
            };
            authority.offers().filter(about).cloned().collect()
        };
        let mut more = 0u64;
        // By record: one that was offered twice leaves once.
        let mut gone = BTreeSet::new();
        let mut named = BTreeSet::new();
        for offer in &offers {
            let Some(moved) = self.moved_to(offer) else {
                continue;
            };
            if offer.origin == *origin
                && !tally.left.contains(&offer.record)
                && self.is_counted(origin, &offer.record, tally.size)?
            {
                // It moved; the entry that says so here is still to come.
                gone.insert(offer.record);
            }
            if moved.origin == *origin {
                named.insert(moved.record);
                // It is known to be there before the shard's entries came.
                more += u64::from(!tally.came.contains_key(&moved.record));
            }
        }
        let mut less = gone.len() as u64;
        for record in tally.came.keys().filter(|record| !named.contains(record)) {
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
            Operation::Register | Operation::Reopen => self.in_force += 1,
            Operation::TransferIn => {
                // One record comes in as many entries as it had versions.
                self.in_force += u64::from(entry.version == 1);
                let came = Came {
                    at,
                    version: entry.version,
                    content: entry.content,
                };
                self.came.insert(entry.record, came);
            }
            Operation::Close => self.in_force = self.in_force.saturating_sub(1),
            Operation::TransferOut => {
                self.in_force = self.in_force.saturating_sub(1);
                self.left.insert(entry.record);
            }
            Operation::Erase => {
                self.in_force = self.in_force.saturating_sub(u64::from(was));
                if self.came.contains_key(&entry.record) {
                    self.came_and_erased.insert(entry.record);
                }
            }
            Operation::Amend | Operation::Reseal | Operation::Redact => {}
        }
    }
}
