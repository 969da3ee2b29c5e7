//! Erasing (销毁): a record's bodies and secret are destroyed here and at everybody who holds them.
//!
//! One commit has the `erase` entry, destroys every body of the record in the shard, and leaves the
//! row from which [`crate::destroy`] goes on; from that commit on it is finished, come what may.
//! The entries stay, so history and every other record's proof hold.

use std::sync::PoisonError;

use record::cbor;
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::plan::{Task, Work};
use sha2::{Digest, Sha256};

use crate::book::{Book, Leaf, Signer};
use crate::chain;
use crate::error::{RegistryError, Result};
use crate::holding::Holding;
use crate::node::{Registry, lock, purpose};
use crate::plan::Warrant;
use crate::session::Session;
use crate::table::{self, Newest};

/// How many records one act erases.
const STEP: usize = 1000;

/// How a record ends in a shard: erased, or gone to another owner.
pub(crate) struct Ending {
    /// Its last entry.
    pub entry: RecordEntry,
    /// What was newest before that.
    pub before: Newest,
    /// What goes with the entry.
    pub body: Vec<u8>,
}

impl Registry {
    /// Erases the record that a plan names.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when there is no such record or another plan erased it,
    /// [`RegistryError::BadRequest`] when the plan is for something else, or a failure of the
    /// store. When the entry was written, what remains is finished later in any case.
    pub(crate) fn erase(&self, by: &Session, warrant: &Warrant, now: UnixMillis) -> Result<()> {
        let Some(Work::Erase { origin, record, .. }) = warrant.work() else {
            return Err(wrong_warrant());
        };
        if !origin.is_shard() || origin.division() != self.config.division {
            return Err(RegistryError::NotFound {
                what: "本单位账本 / own ledger",
                name: origin.to_string(),
                next: "only a record's owner erases it",
            });
        }
        let signer = by.signer(purpose("security"), None);
        self.erase_records(origin, &[*record], &warrant.plan(), &signer, now)?;
        self.finish_destroying(now)?;
        self.tend_transfers(now)
    }

    /// Erases records that are past their retention, under a standing order.
    ///
    /// # Errors
    /// As for [`Registry::erase`].
    pub(crate) fn erase_retained(
        &self,
        origin: &Origin,
        records: &[RecordId],
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        if warrant.task() != Some(Task::Retention) {
            return Err(wrong_warrant());
        }
        for part in records.chunks(STEP) {
            let signer = self.service(purpose("security"));
            self.erase_records(origin, part, &warrant.plan(), &signer, now)?;
        }
        self.finish_destroying(now)?;
        self.tend_transfers(now)
    }

    /// Writes the `erase` entries. Records that this very plan erased already are passed over: a
    /// run that was cut off is run again.
    pub(crate) fn erase_records(
        &self,
        origin: &Origin,
        records: &[RecordId],
        plan: &Hash,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let holding = self.holding(origin)?;
        let book = self.book(origin)?;
        let mut book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let body = Hash::from(Sha256::digest(plan));
        let mut erased = Vec::new();
        for record in records {
            let unknown = || RegistryError::NotFound {
                what: "记录 / record",
                name: record.to_string(),
                next: "it was erased before, or is not of this node's own shard; see `fangzhi erase --status`",
            };
            let newest = self.newest(origin, record)?.ok_or_else(unknown)?;
            let entry = self.newest_entry(origin, &newest)?;
            if entry.operation == Operation::Erase {
                if entry.body == body {
                    continue;
                }
                return Err(unknown());
            }
            self.refuse_offered(origin, record)?;
            let erase = RecordEntry {
                suite: SUITE,
                record: *record,
                version: newest.version + 1,
                operation: Operation::Erase,
                previous: Some(newest.leaf),
                schema: entry.schema,
                epoch: entry.epoch,
                content: entry.content,
                body,
                recorded_at: now,
            };
            erased.push(Ending {
                entry: erase,
                before: newest,
                body: plan.to_vec(),
            });
        }
        if erased.is_empty() {
            return Ok(());
        }
        self.append_last(&mut book, &mut holding, &erased, signer, now)?;
        drop(holding);
        drop(book);
        self.changed();
        Ok(())
    }

    /// Appends the last entries of records, in one commit, and takes the records out of the index.
    pub(crate) fn append_last(
        &self,
        book: &mut Book,
        holding: &mut Holding,
        endings: &[Ending],
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let origin = holding.origin.clone();
        let leaves = endings
            .iter()
            .map(|ending| Leaf {
                entry: Entry::Record(ending.entry.clone()),
                body: Some(ending.body.clone()),
            })
            .collect();
        let appended = self.append(book, signer, leaves, now, |batch, first, hashes| {
            for ((at, ending), leaf) in (first..).zip(endings).zip(hashes) {
                let Ending { entry, before, .. } = ending;
                let next = Newest::after(Some(before.clone()), entry, at, *leaf);
                batch.put(
                    table::key(&origin, table::RECORD, &entry.record.0),
                    cbor::to_vec(&next),
                );
            }
        })?;
        for ending in endings {
            holding.index.remove(ending.entry.record);
        }
        holding.index.set_applied(appended.size);
        Ok(())
    }

    /// The entry of a record's newest version.
    pub(crate) fn newest_entry(&self, origin: &Origin, newest: &Newest) -> Result<RecordEntry> {
        let at = newest.at;
        let bytes = self
            .store
            .get(&table::entry(origin, at))?
            .ok_or_else(|| RegistryError::damaged(format!("`{origin}` lacks entry {at}")))?;
        match chain::decode(origin, at, &bytes)? {
            Entry::Record(entry) => Ok(entry),
            _ => Err(RegistryError::damaged(format!(
                "`{origin}` {at} is not a record"
            ))),
        }
    }
}

fn wrong_warrant() -> RegistryError {
    RegistryError::BadRequest(
        "方案不是销毁方案 / the plan is not one for erasing; see `fangzhi keys show`".into(),
    )
}
