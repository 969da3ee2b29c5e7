//! Amending a grant (变更授权): other fields, other rows or another history, in place.
//!
//! Owns the preview, the plan and its running. Another officer approves; the statement and an
//! envelope of the keys that are granted from here on come first, then every record of the shard is
//! looked at once under the new terms. What the holder is no longer to have is retracted, and
//! receipted; a field that is taken away is closed to the holder for good with the next epoch, whose
//! key of it the holder never gets. Refuses what policy refuses, over all grants of the holder.

use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::empty_root;
use record::authority::{GrantAmendment, GrantStatement, History, Statement};
use record::cbor;
use record::entry::{Entry, GrantEntry, GrantOperation, SUITE};
use record::id::{DivisionId, GrantId, Hash, Origin, RecordId, UnixMillis};
use record::plan::{Figure, Work};
use record::schema::{Position, Schema};
use seal::secret::GrantSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::show::Openable;
use super::{Kept, Rework, Terms, cursor_key, positions, row_bytes, row_conditions};
use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::holding::envelope_info;
use crate::keys::rng;
use crate::node::{Registry, lock, purpose, word};
use crate::plan::Warrant;
use crate::session::Session;
use crate::table;

/// The longest basis or assessment, in bytes.
const TEXT_MAX: usize = 1000;

/// What is to be other about a grant; what is left out stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmendRequest {
    /// Field ids, all that are granted from here on.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// Field id to value: a row is in scope when all hold; every row when empty.
    #[serde(default)]
    pub rows: Option<BTreeMap<String, String>>,
    /// Which versions of a record in scope.
    #[serde(default)]
    pub history: Option<History>,
    /// Legal basis.
    #[serde(default)]
    pub basis: Option<String>,
    /// Reference of the impact assessment.
    #[serde(default)]
    pub assessment: Option<String>,
}

/// What an amendment would come to.
#[derive(Debug, Clone, Serialize)]
pub struct AmendmentPlan {
    /// The grant.
    pub grant: GrantId,
    /// The shard.
    pub origin: Origin,
    /// Who receives.
    pub holder: DivisionId,
    /// Rows in scope then.
    pub rows: u64,
    /// Rows that come into scope.
    pub entering: u64,
    /// Rows that leave it, which the holder drops and signs for.
    pub leaving: u64,
    /// Fields whose keys the holder gets.
    pub fields_added: Vec<String>,
    /// Fields that are taken away. The holder drops their cells and signs for it; its keys of them
    /// open what was sealed up to the next epoch, so rotate the epoch if that matters.
    pub fields_removed: Vec<String>,
    /// Which versions of a record in scope.
    pub history: History,
    /// All that the holder could open then, over all its grants, by group of fields.
    pub openable: Vec<Openable>,
    /// Who has to be connected for it to arrive, and is not.
    pub unreachable: Vec<DivisionId>,
}

/// A grant, and what it is to give.
struct NewTerms {
    grant: GrantStatement,
    fields: BTreeSet<Position>,
    rows: Vec<(Position, String)>,
    rows_hash: Hash,
    history: History,
    basis: String,
    assessment: String,
}

/// How much a history gives.
pub(super) fn reach(history: History) -> u8 {
    match history {
        History::None => 0,
        History::Since => 1,
        History::All => 2,
    }
}

fn ids(schema: &Schema, positions: impl Iterator<Item = Position>) -> Vec<String> {
    positions
        .filter_map(|at| schema.at(at))
        .map(|field| field.id.clone())
        .collect()
}

fn pending_key(ledger: &Origin, rows: &Hash) -> store::Key {
    table::key(ledger, table::GRANT, rows)
}

impl Registry {
    /// What an amendment would come to. Nothing changes.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy when the holder could open too much,
    /// [`RegistryError::NotFound`] when the grant is not this node's or has ended,
    /// [`RegistryError::BadRequest`] for unknown fields, or when nothing would change.
    pub fn plan_amendment(
        &self,
        session: &Session,
        id: &GrantId,
        request: &AmendRequest,
        now: UnixMillis,
    ) -> Result<AmendmentPlan> {
        let terms = self.new_terms(id, request, now)?;
        self.may_amend(session, &terms)?;
        let origin = terms.grant.origin.clone();
        let schema = self.schema_version(&origin.ledger(), terms.grant.schema)?;
        let (rows, entering, leaving) = self.movements(&terms)?;
        let mut others = Vec::new();
        for grant in self.grants_in_force(now) {
            if grant.holder == terms.grant.holder && grant.origin == origin && grant.id != *id {
                let rows = self.scope_of(&origin.grant(&grant.id))?;
                others.push((grant.id, grant.fields.iter().copied().collect(), rows));
            }
        }
        let before: BTreeSet<Position> = terms.grant.fields.iter().copied().collect();
        Ok(AmendmentPlan {
            grant: *id,
            holder: terms.grant.holder.clone(),
            rows: rows.len() as u64,
            entering,
            leaving,
            fields_added: ids(schema, terms.fields.difference(&before).copied()),
            fields_removed: ids(schema, before.difference(&terms.fields).copied()),
            history: terms.history,
            openable: super::show::openable(schema, &terms.fields, &rows, &others),
            unreachable: self.unreachable_holder(&terms.grant.holder),
            origin,
        })
    }

    /// The rows of an amended grant, how many of them enter, and how many others leave.
    fn movements(&self, terms: &NewTerms) -> Result<(BTreeSet<RecordId>, u64, u64)> {
        let origin = &terms.grant.origin;
        let rows = self.rows_that_match(origin, &terms.rows)?;
        let now = self.scope_of(&origin.grant(&terms.grant.id))?;
        let entering = rows.difference(&now).count() as u64;
        let leaving = now.difference(&rows).count() as u64;
        Ok((rows, entering, leaving))
    }

    fn new_terms(&self, id: &GrantId, request: &AmendRequest, now: UnixMillis) -> Result<NewTerms> {
        let grant = self.own_grant_in_force(id, now)?;
        let schema = self.schema_version(&grant.origin.ledger(), grant.schema)?;
        let fields = match &request.fields {
            Some(fields) => positions(schema, fields)?,
            None => grant.fields.iter().copied().collect(),
        };
        let rows = match &request.rows {
            Some(rows) => row_conditions(schema, rows, self.catalogue())?,
            None => self.kept(&grant.origin.grant(id))?.rows.clone(),
        };
        let text = |given: &Option<String>, known: &str| match given {
            Some(given) if given.trim().is_empty() || given.len() > TEXT_MAX => {
                Err(RegistryError::BadRequest(format!(
                    "法律依据和影响评估不得为空，各至多 {TEXT_MAX} 字节 / a grant needs its legal basis and its impact assessment, at most {TEXT_MAX} bytes each"
                )))
            }
            Some(given) => Ok(given.clone()),
            None => Ok(known.to_owned()),
        };
        let terms = NewTerms {
            rows_hash: self.keys.blind("grant-rows", &row_bytes(id, &rows))?,
            history: request.history.unwrap_or(grant.history()),
            basis: text(&request.basis, &grant.basis)?,
            assessment: text(&request.assessment, &grant.assessment)?,
            fields,
            rows,
            grant,
        };
        let same = terms.fields.iter().eq(&terms.grant.fields)
            && terms.rows_hash == terms.grant.rows
            && terms.history == terms.grant.history();
        if same {
            return Err(RegistryError::BadRequest(
                "与现行授权相同，无须变更 / these are the terms of the grant already; name other fields, rows or history".into(),
            ));
        }
        Ok(terms)
    }

    fn own_grant_in_force(&self, id: &GrantId, now: UnixMillis) -> Result<GrantStatement> {
        self.grants_in_force(now)
            .into_iter()
            .find(|grant| grant.id == *id)
            .ok_or(RegistryError::NotFound {
                what: "授权 / grant",
                name: id.to_string(),
                next: "see `fangzhi grant list`; only its owner amends a grant, and one that ended is made anew",
            })
    }

    fn may_amend(&self, session: &Session, terms: &NewTerms) -> Result<()> {
        let grant = &terms.grant;
        let holder = self
            .authority()
            .charter(&grant.holder)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(grant.holder.clone()))?;
        let schema = self.schema_version(&grant.origin.ledger(), grant.schema)?;
        self.may_hold(
            session,
            schema,
            &terms.fields,
            &holder,
            &Terms {
                shard: &grant.origin,
                assessment: &terms.assessment,
                purpose: &grant.purpose,
                instead_of: Some(grant.id),
            },
        )
    }

    /// The work of a plan that amends a grant. The condition on rows is put aside, sealed: the plan
    /// names its hash only.
    pub(crate) fn amendment(
        &self,
        session: &Session,
        id: &GrantId,
        request: &AmendRequest,
        now: UnixMillis,
    ) -> Result<Work> {
        let terms = self.new_terms(id, request, now)?;
        self.may_amend(session, &terms)?;
        if terms.rows_hash != terms.grant.rows {
            let ledger = terms.grant.origin.grant(id);
            let aside = Kept {
                secret: [0; 32],
                rows: terms.rows.clone(),
                envelope: None,
            };
            let sealed = self.seal_kept(&ledger, &aside)?;
            let book = self.book(&ledger)?;
            lock(&book).extend(self.store.as_ref(), |batch| {
                batch.put_body(pending_key(&ledger, &terms.rows_hash), sealed);
            })?;
        }
        Ok(Work::AmendGrant {
            grant: *id,
            fields: terms.fields.iter().copied().collect(),
            rows: terms.rows_hash,
            history: terms.history,
            basis: terms.basis.clone(),
            assessment: terms.assessment.clone(),
        })
    }

    /// What a plan that amends a grant comes to, for whoever approves it.
    pub(crate) fn amendment_figures(&self, work: &Work, now: UnixMillis) -> Result<Vec<Figure>> {
        let terms = self.planned_terms(work, now)?;
        let (rows, entering, leaving) = self.movements(&terms)?;
        let before: BTreeSet<Position> = terms.grant.fields.iter().copied().collect();
        let figure = |name: &'static str, count: u64| Figure {
            name: word(name),
            count,
        };
        Ok(vec![
            figure("records", rows.len() as u64),
            figure("entering", entering),
            figure("leaving", leaving),
            figure(
                "fields-added",
                terms.fields.difference(&before).count() as u64,
            ),
            figure(
                "fields-removed",
                before.difference(&terms.fields).count() as u64,
            ),
            figure("holders", 1),
        ])
    }

    /// The terms that a plan names.
    fn planned_terms(&self, work: &Work, now: UnixMillis) -> Result<NewTerms> {
        let Work::AmendGrant {
            grant: id,
            fields,
            rows: rows_hash,
            history,
            basis,
            assessment,
        } = work
        else {
            return Err(RegistryError::BadRequest(
                "the plan is for other work".into(),
            ));
        };
        let grant = self.own_grant_in_force(id, now)?;
        let ledger = grant.origin.grant(id);
        let rows = if *rows_hash == grant.rows {
            self.kept(&ledger)?.rows.clone()
        } else {
            self.kept_at(&ledger, pending_key(&ledger, rows_hash))?
                .rows
                .clone()
        };
        if self.keys.blind("grant-rows", &row_bytes(id, &rows))? != *rows_hash {
            return Err(RegistryError::damaged(format!(
                "the condition on rows of the plan for grant {id} is not the one that was put aside; make the plan again"
            )));
        }
        Ok(NewTerms {
            grant,
            fields: fields.iter().copied().collect(),
            rows,
            rows_hash: *rows_hash,
            history: *history,
            basis: basis.clone(),
            assessment: assessment.clone(),
        })
    }

    /// Amends the grant that a plan names.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] when it is not this node's or
    /// has ended, [`RegistryError::NoCharter`] when the holder's charter does not hold,
    /// [`RegistryError::BadRequest`] while it works up to a checkpoint.
    pub(crate) fn amend_grant(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(work) = warrant.work() else {
            return Err(RegistryError::BadRequest(
                "the plan is for other work".into(),
            ));
        };
        let terms = self.planned_terms(work, now)?;
        self.may_amend(by, &terms)?;
        // Up to here under the terms as they were.
        self.advance_grants(now)?;
        self.put_terms(by, &warrant.plan(), terms, now)?;
        self.advance_grants(now)
    }

    fn put_terms(&self, by: &Session, plan: &Hash, terms: NewTerms, now: UnixMillis) -> Result<()> {
        let id = terms.grant.id;
        let ledger = terms.grant.origin.grant(&id);
        let book = self.book(&ledger)?;
        let mut book = lock(&book);
        let grant = self.own_grant_in_force(&id, now)?;
        let mut amended = GrantStatement {
            fields: terms.fields.iter().copied().collect(),
            rows: terms.rows_hash,
            history: Some(terms.history),
            basis: terms.basis.clone(),
            assessment: terms.assessment.clone(),
            policy: self.policies().hash(),
            owner_charter: self.own_charter()?,
            ..grant.clone()
        };
        if amended.has_terms_of(&grant) {
            // Run before, and cut off before the plan was closed.
            return Ok(());
        }
        let resumed = self.resumed(&grant, &mut book)?;
        let Some(cursor) = resumed.filter(|cursor| cursor.target.is_none()) else {
            return Err(RegistryError::BadRequest(
                "授权正在推进到新的账头，稍后再执行 / the grant is being worked up to a checkpoint; run the plan again in a moment".into(),
            ));
        };
        let holder = self
            .valid_charter(&grant, now)
            .ok_or_else(|| RegistryError::NoCharter(grant.holder.clone()))?;
        let old = self.kept(&ledger)?;
        let (epoch, keys) = self.granted_keys(&grant.origin, &terms.fields)?;
        let removed = grant.fields.iter().any(|at| !terms.fields.contains(at));
        let anew = epoch != grant.epoch
            || amended.fields != grant.fields
            || terms.history != grant.history();
        let before = cursor.rework.as_ref();
        let rework = Rework {
            after: None,
            anew: anew || before.is_some_and(|rework| rework.anew),
            drops: removed
                || reach(terms.history) < reach(grant.history())
                || before.is_some_and(|rework| rework.drops),
        };
        let mut rng = rng()?;
        // Another secret wherever parcels are made anew: keys of other terms open none of them.
        let secret = match anew {
            true => GrantSecret::generate(&mut rng),
            false => GrantSecret::from_bytes(old.secret),
        };
        amended.epoch = epoch;
        amended.holder_charter = holder.id();
        let info = envelope_info(&amended);
        let envelope =
            seal::grant::seal_envelope(&info, &holder.keys.seal, &secret, &keys, &mut rng)
                .map_err(|e| {
                    RegistryError::BadRequest(format!(
                        "the charter of `{}` has no usable seal key: {e}",
                        grant.holder
                    ))
                })?;
        amended.envelope = Sha256::digest(&envelope).into();
        let kept = Kept {
            secret: *secret.expose(),
            rows: terms.rows.clone(),
            envelope: Some(amended.envelope),
        };
        let sealed = self.seal_kept(&ledger, &kept)?;
        let next = super::Cursor {
            shard_size: cursor.shard_size,
            target: None,
            rework: Some(rework),
            made_again: None,
            looked: None,
        };
        let leaf = Leaf {
            entry: Entry::Grant(GrantEntry {
                suite: SUITE,
                operation: GrantOperation::Keys,
                record: None,
                shard_size: 0,
                shard_root: empty_root(),
                parcel: Some(amended.envelope),
                recorded_at: now,
            }),
            body: Some(envelope),
        };
        let signer = by.signer(purpose("security"), None);
        // Nothing is given under the envelope before the statement names it; when a crash comes
        // between, the plan is run again.
        self.append(&mut book, &signer, vec![leaf], now, |batch, _, _| {
            batch.put_body(table::key(&ledger, table::GRANT, b""), sealed);
            batch.put(cursor_key(&ledger), cbor::to_vec(&next));
        })?;
        let amendment = GrantAmendment {
            plan: *plan,
            grant: amended,
        };
        self.state(vec![Statement::GrantAmended(amendment)], &signer, now)?;
        let aside = pending_key(&ledger, &terms.rows_hash);
        if self.store.get(&aside)?.is_some() {
            book.extend(self.store.as_ref(), |batch| {
                batch.delete(aside);
            })?;
        }
        Ok(())
    }
}
