//! Offering a batch: the next records that a plan names, in one grant.
//!
//! Owns which records are next: those that the plan names, in force or not, and that are neither on
//! their way nor known to be unable to move. Refuses to have more than a few batches under way, so that what
//! is frozen, sent and kept in memory at once is bounded however large the shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use index::{Found, Match};
use record::authority::{Charter, Statement};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::moving::{BATCH_RECORDS_MAX, BATCH_VERSIONS_MAX, BatchItem, BatchOffer, Moving};
use record::transfer::TransferWord;

use super::{Failure, OwnMoving, Selection, failure_key};
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock, purpose, word};
use crate::table::{self, Head};
use crate::transfer::offer::{Carried, Carrier, Going, Sealed, Unmovable, VERSIONS_MAX};
use crate::transfer::{PURPOSE, bad, cut_here};

/// How many batches of one plan are on their way at most.
pub const UNDER_WAY_MAX: usize = 4;
/// The most bytes of bodies in a batch, unless it has one record.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// For how long a batch may be taken.
const STANDS_MILLIS: u64 = 30 * 24 * 3600 * 1000;
/// How many records are looked at in one go.
const PAGE: usize = 1024;

/// What the records that a plan names come to.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub records: u64,
    pub versions: u64,
    pub bytes: u64,
    /// Of the records, those that are out of force.
    pub closed: u64,
    /// Of the records, those that cannot move.
    pub unmovable: u64,
}

impl Registry {
    /// Records of an own shard that a selection names, in force or not, after one of them.
    pub(crate) fn selected(
        &self,
        origin: &Origin,
        selection: &Selection,
        after: Option<RecordId>,
    ) -> Result<(Vec<Found>, bool)> {
        let filters: Vec<_> = { selection.rows.iter() }
            .map(|(position, value)| (*position, Match::Equals(value.clone())))
            .collect();
        let rows = |row: &index::Attributes<'_>| {
            let grid = row.grid.unwrap_or_default();
            selection.grids.is_empty() || selection.grids.iter().any(|g| g == grid)
        };
        let holding = self.holding(origin)?;
        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        if holding.incomplete {
            return Err(RegistryError::damaged(format!(
                "`{origin}` 有记录打不开，暂不能迁移 / `{origin}` has records whose secrets could not be read; run `fangzhi doctor`, then go on"
            )));
        }
        let page = holding.index.find(&filters, &rows, PAGE, after);
        let page = page.map_err(|e| bad(e.to_string()))?;
        Ok((page.found, page.more))
    }

    /// What a selection comes to.
    pub(crate) fn count_selected(
        &self,
        origin: &Origin,
        selection: &Selection,
    ) -> Result<Selected> {
        let (mut counted, mut after) = (Selected::default(), None);
        loop {
            let (found, more) = self.selected(origin, selection, after)?;
            for one in &found {
                counted.records += 1;
                counted.versions += one.version;
                let entries =
                    crate::chain::entries_of(self.store.as_ref(), origin, &one.record, 0)?;
                let keys: Vec<_> = entries.iter().map(|at| table::body(origin, *at)).collect();
                let bodies = self.store.get_many(&keys)?;
                counted.bytes += bodies.iter().flatten().map(|b| b.len() as u64).sum::<u64>();
                let closed = self.out_of_force_since(origin, &one.record)?.is_some();
                counted.closed += u64::from(closed);
                counted.unmovable += u64::from(one.version > VERSIONS_MAX as u64);
            }
            after = found.last().map(|one| one.record);
            if !more {
                return Ok(counted);
            }
        }
    }

    /// Offers the next batch of a plan; `true` when one was offered.
    pub(super) fn offer_batch(&self, moving: &OwnMoving, now: UnixMillis) -> Result<bool> {
        let origin = &moving.origin;
        let ready = {
            let authority = self.authority();
            let open = { authority.batches() }
                .filter(|batch| batch.plan == moving.plan)
                .filter(|batch| authority.grant_ended(&batch.id).is_none());
            open.count() < UNDER_WAY_MAX && authority.is_received(&moving.plan, &moving.to)
        };
        let Some(holder) = self.may_own(&moving.to, now).ok().filter(|_| ready) else {
            return Ok(false);
        };
        let selection = self.selection(&moving.rows)?;
        let _one = lock(&self.transfers.one);
        // Held to the end: what is offered is the newest version, and stays it.
        let book = self.book(origin)?;
        let _book = lock(&book);
        let Some(note) = Head::read(self.store.as_ref(), origin)?.cosigned else {
            return Ok(false);
        };
        let size = checkpoint_of(&note)?.size();
        let records = self.next_records(moving, &selection, size)?;
        if records.is_empty() {
            return Ok(false);
        }
        self.put_offer(moving, &holder, &records, &note, now)?;
        Ok(true)
    }

    /// The whole histories of the next records that a plan names.
    fn next_records(
        &self,
        moving: &OwnMoving,
        selection: &Selection,
        size: u64,
    ) -> Result<Vec<Vec<Sealed>>> {
        let origin = &moving.origin;
        let unsettled = self.unsettled(origin)?;
        let failed = self.failed_versions(moving)?;
        let mut records: Vec<Vec<Sealed>> = Vec::new();
        let (mut versions, mut bytes, mut after) = (0, 0, None);
        loop {
            let (found, more) = self.selected(origin, selection, after)?;
            for one in &found {
                if unsettled.contains(&one.record) || !self.may_move(moving, one, &failed) {
                    continue;
                }
                let history = match self.whole_history(origin, &one.record, size)? {
                    Ok(history) => history,
                    Err(why) => {
                        self.note_unmovable(moving, one, why)?;
                        continue;
                    }
                };
                let more_bytes = self.bytes_of(origin, &history)?;
                let full = versions + history.len() > BATCH_VERSIONS_MAX
                    || bytes + more_bytes > BATCH_BYTES_MAX;
                if full && !records.is_empty() {
                    return Ok(records);
                }
                versions += history.len();
                bytes += more_bytes;
                records.push(history);
                if records.len() == BATCH_RECORDS_MAX || full {
                    return Ok(records);
                }
            }
            after = found.last().map(|one| one.record);
            if !more {
                return Ok(records);
            }
        }
    }

    /// The version that each record of a plan could not move with.
    fn failed_versions(&self, moving: &OwnMoving) -> Result<BTreeMap<RecordId, u64>> {
        let failures = self.failures(&moving.plan)?.into_iter();
        Ok(failures.map(|it| (it.record, it.version)).collect())
    }

    /// Whether a record is neither known to be unable to move nor spoken for.
    fn may_move(&self, moving: &OwnMoving, one: &Found, failed: &BTreeMap<RecordId, u64>) -> bool {
        let stands = failed.get(&one.record) == Some(&one.version);
        !stands && !self.is_spoken_for(moving, &one.record, one.version)
    }

    /// Whether a record that a plan names has still to move, or to be found unable to.
    pub(super) fn is_left(&self, moving: &OwnMoving) -> Result<bool> {
        let selection = self.selection(&moving.rows)?;
        let failed = self.failed_versions(moving)?;
        let mut after = None;
        loop {
            let (found, more) = self.selected(&moving.origin, &selection, after)?;
            if found.iter().any(|one| self.may_move(moving, one, &failed)) {
                return Ok(true);
            }
            after = found.last().map(|one| one.record);
            if !more {
                return Ok(false);
            }
        }
    }

    /// Whether a record is on its way, or was refused under this plan as it is.
    fn is_spoken_for(&self, moving: &OwnMoving, record: &RecordId, version: u64) -> bool {
        let authority = self.authority();
        let Some(offer) = authority.offer_of(&moving.origin, record) else {
            return false;
        };
        if authority.offer_ended(offer).is_none() {
            return true;
        }
        let of_plan = { authority.batch(&authority.carrier(&offer.id)) }
            .is_some_and(|batch| batch.plan == moving.plan);
        let refused = match authority.answer(offer).map(|answer| &answer.word) {
            // Its time was over: nobody looked at the record.
            Some(TransferWord::Refused { reason }) => reason.as_str() != "expired",
            _ => false,
        };
        of_plan && refused && offer.version == version
    }

    fn note_unmovable(&self, moving: &OwnMoving, one: &Found, why: Unmovable) -> Result<()> {
        let Some(reason) = why.lasting() else {
            return Ok(());
        };
        let failure = Failure {
            record: one.record,
            version: one.version,
            reason: word(reason),
        };
        let rest = failure_key(&moving.plan, &one.record);
        self.keep_local(table::MOVING, &rest, record::cbor::to_vec(&failure))
    }

    fn bytes_of(&self, origin: &Origin, history: &[Sealed]) -> Result<usize> {
        let keys: Vec<_> = history
            .iter()
            .map(|one| table::body(origin, one.at))
            .collect();
        let bodies = self.store.get_many(&keys)?;
        Ok(bodies.iter().flatten().map(Vec::len).sum())
    }

    fn put_offer(
        &self,
        moving: &OwnMoving,
        holder: &Charter,
        records: &[Vec<Sealed>],
        note: &str,
        now: UnixMillis,
    ) -> Result<()> {
        let origin = &moving.origin;
        let mut items = Vec::with_capacity(records.len());
        let mut schema = 0;
        for versions in records {
            let Some(newest) = versions.last() else {
                return Err(RegistryError::damaged(format!(
                    "`{origin}`: a record without a version"
                )));
            };
            let entry = &newest.version.entry;
            schema = schema.max(entry.schema);
            items.push(BatchItem {
                record: newest.version.record,
                version: entry.version,
                leaf: ledger::hash::leaf_hash(&newest.bytes),
                content: entry.content,
                closed_at: self.out_of_force_since(origin, &newest.version.record)?,
            });
        }
        let positions: BTreeSet<_> =
            self.positions_in(&origin.ledger(), records.iter().flatten())?;
        let Carrier {
            statement: grant,
            secret,
            envelope,
        } = self.carrier(Carried {
            shard: origin,
            holder,
            positions: &positions,
            schema,
            of: &moving.plan,
            basis: &moving.basis,
            not_after: UnixMillis(now.0 + STANDS_MILLIS),
        })?;
        let id = grant.id;
        let going = Going {
            grant: &grant,
            secret: &secret,
            envelope,
            records,
            note,
        };
        // What a crash leaves before the statements is a ledger that nobody's word names.
        self.write_parcels(going, &|| self.service(purpose(PURPOSE)), now)?;
        cut_here(21)?;
        let offer = BatchOffer {
            id,
            plan: moving.plan,
            origin: origin.clone(),
            to: moving.to.clone(),
            basis: moving.basis.clone(),
            offered_at: now,
            items,
        };
        let moving = Statement::Moving(Box::new(Moving::Offered(offer)));
        self.state(
            vec![Statement::Grant(grant), moving],
            &self.service(purpose(PURPOSE)),
            now,
        )?;
        cut_here(22)
    }

    /// Records that cannot move under a plan of this node.
    pub(crate) fn failures(&self, plan: &Hash) -> Result<Vec<Failure>> {
        let prefix = [b"fail".as_slice(), plan].concat();
        let mut failures = Vec::new();
        let mut from = prefix.clone();
        loop {
            let rows = self.store.scan(table::LOCAL, table::MOVING, &from, PAGE)?;
            let full = rows.len() == PAGE;
            for (rest, bytes) in rows {
                if !rest.starts_with(&prefix) {
                    return Ok(failures);
                }
                failures.push(table::decode("failure", &bytes)?);
                from = [rest.as_slice(), &[0]].concat();
            }
            if !full {
                return Ok(failures);
            }
        }
    }
}
