//! Receipts of destruction (销毁回执): who said that it destroyed what an entry ordered, and who has not.
//!
//! Receipts are statements of the authority ledgers, so they come by replication and cannot be
//! taken back. Owns the list of what is still waited for; refuses to believe anybody's word for another.

use std::collections::BTreeSet;

use record::authority::Finality;
use record::entry::{Entry, GrantOperation, Operation};
use record::id::{DivisionId, Kind, Origin, RecordId, UnixMillis};
use serde::Serialize;

use crate::chain::{self, Order};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock};
use crate::table;

const DAY_MILLIS: u64 = 86_400_000;

/// A receipt that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptLine {
    /// Who signed it.
    pub division: DivisionId,
    /// How many bodies it destroyed.
    pub bodies: u64,
    /// How far that reaches at once.
    pub finality: Finality,
}

/// A destruction that this node's ledgers ordered, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct DestructionLine {
    /// The ledger whose entry ordered it: a shard's, or a grant's.
    pub origin: Origin,
    /// The entry's index.
    pub index: u64,
    /// Which record.
    pub record: RecordId,
    /// When it was ordered.
    pub ordered_at: UnixMillis,
    /// Whether everything here is destroyed.
    pub done_here: bool,
    /// The receipts that came, this node's own among them.
    pub receipts: Vec<ReceiptLine>,
    /// Whose receipts are missing.
    pub missing: Vec<DivisionId>,
    /// Whether they should have come by now.
    pub overdue: bool,
}

/// How many destructions wait for receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DestructionCounts {
    /// Not finished here yet.
    pub unfinished: u64,
    /// With receipts missing.
    pub waiting: u64,
    /// Of these, for longer than is allowed.
    pub overdue: u64,
}

impl Registry {
    fn destruction(
        &self,
        origin: &Origin,
        at: u64,
        order: &Order,
        now: UnixMillis,
    ) -> DestructionLine {
        let wanted = self.receipts_from(origin);
        let own = &self.config.division;
        let authority = self.authority();
        let mut receipts = Vec::new();
        let mut missing = Vec::new();
        for division in std::iter::once(own).chain(&wanted) {
            match authority.receipt(division, origin, at) {
                Some(receipt) => receipts.push(ReceiptLine {
                    division: division.clone(),
                    bodies: receipt.bodies,
                    finality: receipt.finality,
                }),
                None if division == own => {}
                None => missing.push(division.clone()),
            }
        }
        let allowed = u64::from(self.config.receipt_days) * DAY_MILLIS;
        DestructionLine {
            origin: origin.clone(),
            index: at,
            record: order.record,
            ordered_at: order.recorded_at,
            done_here: order.done || !origin.is_shard(),
            overdue: !missing.is_empty() && now.0 > order.recorded_at.0.saturating_add(allowed),
            receipts,
            missing,
        }
    }

    /// The destructions of own ledgers that are not finished, or whose receipts have not all come.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn destructions(&self, now: UnixMillis) -> Result<Vec<DestructionLine>> {
        let ledgers = lock(&self.destructions).clone();
        let mut lines = Vec::new();
        for origin in ledgers
            .iter()
            .filter(|o| o.division() == self.config.division)
        {
            for (at, order) in Order::all(self.store.as_ref(), origin)? {
                let line = self.destruction(origin, at, &order, now);
                if !line.done_here || !line.missing.is_empty() {
                    lines.push(line);
                }
            }
        }
        Ok(lines)
    }

    /// How many there are, for the status page.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn destruction_counts(&self, now: UnixMillis) -> Result<DestructionCounts> {
        let mut counts = DestructionCounts::default();
        for line in self.destructions(now)? {
            counts.unfinished += u64::from(!line.done_here);
            counts.waiting += u64::from(!line.missing.is_empty());
            counts.overdue += u64::from(line.overdue);
        }
        Ok(counts)
    }

    /// What became of the erasure of one own record: the shard's entry first, then each grant's.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the record was not erased.
    pub fn erasure(
        &self,
        kind: &Kind,
        record: &RecordId,
        now: UnixMillis,
    ) -> Result<Vec<DestructionLine>> {
        self.schema(kind)?;
        let shard = self.shard(kind);
        let mut ledgers = vec![shard.clone()];
        ledgers.extend(
            self.authority()
                .grants()
                .filter(|grant| grant.origin == shard)
                .map(|grant| shard.grant(&grant.id)),
        );
        let mut lines = Vec::new();
        let store = self.store.as_ref();
        for origin in &ledgers {
            for at in chain::entries_of(store, origin, record, 0)? {
                let Some(bytes) = store.get(&table::entry(origin, at))? else {
                    continue;
                };
                let (recorded_at, told) = match chain::decode(origin, at, &bytes)? {
                    Entry::Record(e) => (e.recorded_at, e.operation == Operation::Erase),
                    Entry::Grant(e) => (e.recorded_at, e.operation == GrantOperation::Retract),
                    _ => continue,
                };
                if !told {
                    continue;
                }
                let row = store.get(&Order::key(origin, at))?;
                let order = match row {
                    Some(row) => table::decode("order", &row)?,
                    // All receipts came, and the row went.
                    None => Order {
                        record: *record,
                        bodies: 0,
                        recorded_at,
                        done: true,
                        page: 0,
                        redacts: None,
                    },
                };
                lines.push(self.destruction(origin, at, &order, now));
            }
        }
        if lines.first().is_none_or(|line| line.origin != shard) {
            return Err(RegistryError::NotFound {
                what: "销毁 / erasure of record",
                name: record.to_string(),
                next: "it was not erased here; plan it with `fangzhi erase`",
            });
        }
        Ok(lines)
    }

    /// Drops the rows of own destructions that are finished and whose receipts have all come.
    pub(crate) fn settle_receipts(&self) -> Result<()> {
        let ledgers = lock(&self.destructions).clone();
        let own = |origin: &&Origin| origin.division() == self.config.division;
        for origin in ledgers.iter().filter(own) {
            let wanted = self.receipts_from(origin);
            let rows = Order::all(self.store.as_ref(), origin)?;
            let came = |at: u64| {
                let authority = self.authority();
                let mut from = wanted.iter();
                from.all(|division| authority.receipt(division, origin, at).is_some())
            };
            let settled: BTreeSet<u64> = rows
                .iter()
                .filter(|(at, order)| order.done && came(*at))
                .map(|(at, _)| *at)
                .collect();
            if !settled.is_empty() {
                let book = self.book(origin)?;
                lock(&book).extend(self.store.as_ref(), |batch| {
                    for at in &settled {
                        batch.delete(Order::key(origin, *at));
                    }
                })?;
            }
            if settled.len() == rows.len() {
                // Rows that came meanwhile are found again at the next start, or say so themselves.
                lock(&self.destructions).remove(origin);
            }
        }
        Ok(())
    }
}
