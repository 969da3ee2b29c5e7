//! Ending a grant (终止): before its time by a plan, at its time by itself.
//!
//! Owns both sides. The owner says that it ended, retracts every row in scope, and destroys what it
//! kept of the grant. The holder drops index, parcels and envelope when the owner says so, or when
//! the time is over and the owner says nothing, and signs a receipt. Refuses to wait for anybody.

use record::authority::{DestructionReceipt, Finality, GrantEnded, GrantStatement, Statement};
use record::entry::{Entry, GrantEntry, GrantOperation, SUITE};
use record::id::{GrantId, Kind, Origin, RecordId, UnixMillis};
use record::plan::{Task, Work};
use serde::Serialize;
use store::Batch;

use super::{Cursor, cursor_key};
use crate::book::{Leaf, Signer, commit};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, purpose, word};
use crate::plan::Warrant;
use crate::session::Session;
use crate::table::{self, Head};

/// How many rows one act retracts, and how many bodies one commit destroys.
const STEP: usize = 512;
/// A holder's receipt is overdue after this long.
pub const RECEIPT_MILLIS: u64 = 7 * 24 * 3600 * 1000;

/// Where a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantState {
    /// The holder gets what changes.
    InForce,
    /// The policies in force would refuse it: the holder gets nothing new.
    Refused,
    /// The holder has no keys of the present epoch.
    Unkeyed,
    /// It ended, and the holder's receipt is awaited.
    Awaiting,
    /// It ended, and the holder's receipt is late.
    Overdue,
    /// It ended, and the holder signed that it dropped everything.
    Dropped,
}

impl Registry {
    /// Where a grant stands.
    pub fn grant_state(&self, grant: &GrantStatement, now: UnixMillis) -> GrantState {
        let ended = {
            let authority = self.authority();
            authority.grant_ended(&grant.id).map(|it| it.ended_at)
        };
        let ended = ended.or_else(|| (grant.not_after <= now).then_some(grant.not_after));
        let judged = grant.origin.division() == self.config.division
            && ended.is_none()
            && !crate::transfer::carries(grant);
        if judged && self.why_refused(grant).is_some() {
            return GrantState::Refused;
        }
        let authority = self.authority();
        let ledger = grant.origin.grant(&grant.id);
        match ended {
            None if grant.epoch < authority.current_epoch(&grant.origin) => GrantState::Unkeyed,
            None => GrantState::InForce,
            Some(_) if authority.dropped(&grant.holder, &ledger) => GrantState::Dropped,
            Some(at) if at.0 + RECEIPT_MILLIS < now.0 => GrantState::Overdue,
            Some(_) => GrantState::Awaiting,
        }
    }

    /// Own grants whose holder's receipt is late.
    pub fn overdue_grants(&self, now: UnixMillis) -> Vec<GrantStatement> {
        let own: Vec<GrantStatement> = self
            .authority()
            .grants()
            .filter(|grant| grant.origin.division() == self.config.division)
            .cloned()
            .collect();
        own.into_iter()
            .filter(|grant| self.grant_state(grant, now) == GrantState::Overdue)
            .collect()
    }

    /// Ends a grant before its time.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when it is not this node's or has ended.
    pub(crate) fn end_grant(&self, by: &Session, warrant: &Warrant, now: UnixMillis) -> Result<()> {
        let Some(Work::EndGrant { grant, reason }) = warrant.work() else {
            return Err(RegistryError::BadRequest(
                "the plan is for other work".into(),
            ));
        };
        let carries = {
            let authority = self.authority();
            authority.offer(grant).is_some() || authority.batch(grant).is_some()
        };
        if carries {
            return Err(RegistryError::BadRequest(
                "此授权用于迁移，请撤回迁移 / the grant carries a transfer; take that back with `fangzhi transfer withdraw`".into(),
            ));
        }
        let signer = by.signer(purpose("security"), None);
        self.close_grant(grant, reason, &signer, now)
    }

    pub(crate) fn close_grant(
        &self,
        id: &GrantId,
        reason: &Kind,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let grant = self
            .authority()
            .grant(id)
            .filter(|grant| grant.origin.division() == self.config.division)
            .cloned()
            .ok_or(RegistryError::NotFound {
                what: "授权 / grant",
                name: id.to_string(),
                next: "see `fangzhi grant list`; only its owner ends a grant",
            })?;
        if self.authority().grant_ended(id).is_none() {
            let ended = GrantEnded {
                grant: *id,
                origin: grant.origin.clone(),
                reason: reason.clone(),
                ended_at: now,
            };
            self.state(vec![Statement::GrantEnded(ended)], signer, now)?;
        }
        self.retract_all(&grant, now)
    }

    /// What grants need from time to time: those whose time is over end, the others get the keys
    /// that they lack, and what was granted to this node and ended is dropped.
    ///
    /// # Errors
    /// A failure of the store; then it is done the next time.
    pub fn tend_grants(&self, now: UnixMillis) -> Result<()> {
        let own: Vec<GrantStatement> = self
            .authority()
            .grants()
            .filter(|grant| grant.origin.division() == self.config.division)
            .cloned()
            .collect();
        let signer = self.service(purpose("sharing"));
        for grant in own {
            let ended = self.authority().grant_ended(&grant.id).is_some();
            if ended {
                // What a crash cut off.
                self.retract_all(&grant, now)?;
            } else if crate::transfer::carries(&grant) {
                // It ends when the new owner has answered.
            } else if grant.not_after <= now {
                self.close_grant(&grant.id, &word("expired"), &signer, now)?;
            } else if self.authority().revoked(&grant.holder_charter)
                && self
                    .authority()
                    .charter(&grant.holder)
                    .is_some_and(|newest| {
                        // Replaced is not revoked: then the newest is sealed to.
                        newest.id() == grant.holder_charter
                    })
                && self
                    .standing_warrant(Task::Retract, &grant.origin, now)
                    .is_some()
            {
                self.close_grant(&grant.id, &word("charter-revoked"), &signer, now)?;
            }
        }
        self.key_grants(now)?;
        self.advance_grants(now)?;
        self.drop_ended(now)?;
        self.forget_seals(now)
    }

    /// Retracts every row that the holder has; the entries destroy the parcels.
    fn retract_all(&self, grant: &GrantStatement, now: UnixMillis) -> Result<()> {
        let ledger = grant.origin.grant(&grant.id);
        let store = self.store.as_ref();
        let kept = table::key(&ledger, table::GRANT, b"");
        if store.get(&kept)?.is_none() {
            return Ok(());
        }
        // Shards' books come before those of their grants.
        let (shard_size, shard_root) = {
            let shard = self.book(&grant.origin)?;
            let shard = lock(&shard);
            (shard.size(), shard.root())
        };
        let book = self.book(&ledger)?;
        let mut book = lock(&book);
        loop {
            // The cursor's row is shorter than a record's.
            let rows = store.scan(ledger.as_str(), table::SCOPE, b"", STEP + 1)?;
            let records: Vec<RecordId> = rows
                .iter()
                .filter_map(|(rest, _)| rest.as_slice().try_into().ok().map(RecordId))
                .take(STEP)
                .collect();
            if records.is_empty() {
                break;
            }
            let leaf = |record: &RecordId| Leaf {
                entry: Entry::Grant(GrantEntry {
                    suite: SUITE,
                    operation: GrantOperation::Retract,
                    record: Some(*record),
                    shard_size,
                    shard_root,
                    parcel: None,
                    recorded_at: now,
                }),
                body: None,
            };
            let leaves = records.iter().map(leaf).collect();
            let signer = self.service(purpose("sharing"));
            self.append(&mut book, &signer, leaves, now, |batch, _, _| {
                for record in &records {
                    batch.delete(table::key(&ledger, table::SCOPE, &record.0));
                }
            })?;
        }
        let cursor = Cursor {
            target: None,
            rework: None,
            made_again: None,
            ..self.cursor(&ledger)?
        };
        // Last: without the secret nothing is retracted a second time, and nothing sealed.
        book.extend(store, |batch| {
            batch.put(cursor_key(&ledger), record::cbor::to_vec(&cursor));
            batch.delete(kept);
        })?;
        drop(book);
        self.changed();
        Ok(())
    }

    /// Whether a grant to this node is over: its owner said so, or its time is.
    pub(crate) fn is_over(&self, grant: &GrantStatement, now: UnixMillis) -> bool {
        self.is_over_in(&self.authority(), grant, now)
    }

    pub(crate) fn is_over_in(
        &self,
        authority: &crate::authority::Authority,
        grant: &GrantStatement,
        now: UnixMillis,
    ) -> bool {
        grant.not_after <= now || authority.grant_ended(&grant.id).is_some()
    }

    /// Drops what is held of grants that are over, and signs for it.
    fn drop_ended(&self, now: UnixMillis) -> Result<()> {
        let mine: Vec<GrantStatement> = self
            .authority()
            .grants()
            .filter(|grant| grant.holder == self.config.division)
            .cloned()
            .collect();
        for grant in mine {
            if self.is_over(&grant, now) {
                self.drop_grant(&grant.origin.grant(&grant.id), now)?;
            }
        }
        Ok(())
    }

    fn drop_grant(&self, ledger: &Origin, now: UnixMillis) -> Result<()> {
        self.forget_holding(ledger)?;
        let store = self.store.as_ref();
        let size = Head::read(store, ledger)?.size;
        let mut bodies = 0;
        loop {
            let rows = store.scan(ledger.as_str(), table::BODY, b"", STEP)?;
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new(ledger.as_str(), None);
            for (rest, _) in &rows {
                batch.delete(table::key(ledger, table::BODY, rest));
            }
            commit(store, ledger, &batch)?;
            bodies += rows.len() as u64;
        }
        let own = &self.config.division;
        if size == 0 || (bodies == 0 && self.authority().dropped(own, ledger)) {
            return Ok(());
        }
        // What lay sealed of the working index opens with nothing before the receipt is signed.
        self.renew_generation()?;
        let receipt = DestructionReceipt {
            origin: ledger.clone(),
            index: size - 1,
            record: None,
            bodies,
            finality: Finality::KeysDestroyed,
        };
        let signer = self.service(purpose("security"));
        self.state(vec![Statement::Receipt(receipt)], &signer, now)?;
        Ok(())
    }
}
