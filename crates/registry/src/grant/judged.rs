//! Judging standing grants again (复核): what the policies in force would refuse to grant gets nothing
//! that is new.
//!
//! A grant was judged when it was made, renewed or amended, by the policies of that day; the realm's
//! root publishes others since. Owns the verdict, which is derived from what is in force whenever
//! it is asked for, so that no row can say otherwise; and what a refused grant still gets: what
//! takes away, nothing that gives. Refuses to end a grant: an officer does, or narrows it; and under
//! policies that permit it again it goes on where it stopped.

use std::collections::BTreeMap;
use std::sync::Mutex;

use record::authority::{Charter, GrantStatement, Role};
use record::cbor;
use record::id::{GrantId, Hash, OperatorId, UnixMillis};
use record::schema::Position;
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::Batch;

use super::rows::Stretch;
use super::{Cursor, STEP, Terms, checkpoint_of, cursor_key};
use crate::book::Book;
use crate::error::Result;
use crate::node::{Registry, lock, purpose};
use crate::table::Head;

/// Why a grant that stands would not be made under the policies in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The rule that denies it.
    pub rule: String,
    /// Whom to ask.
    pub ask: String,
    /// The field that is refused, if one is.
    pub field: Option<Position>,
}

/// What was judged, and of what: it is judged again when anything of that is other.
#[derive(Default)]
pub(crate) struct Verdicts(Mutex<BTreeMap<GrantId, (Hash, Option<Refused>)>>);

impl Registry {
    /// Why the policies in force would refuse an own grant; none when they would permit it.
    ///
    /// A holder whose charter is not known is refused: what cannot be judged is denied.
    pub(crate) fn why_refused(&self, grant: &GrantStatement) -> Option<Refused> {
        let unknown = |rule: &str| {
            Some(Refused {
                rule: rule.to_owned(),
                ask: "本单位安全员 / the security officer of this division".to_owned(),
                field: None,
            })
        };
        let holder = self.authority().charter(&grant.holder).cloned();
        let Some(holder) = holder else {
            return unknown("no-charter");
        };
        let of = self.judged_of(grant, &holder);
        if let Some((known, verdict)) = lock(&self.judged.0).get(&grant.id)
            && *known == of
        {
            return verdict.clone();
        }
        let Ok(schema) = self.schema_version(&grant.origin.ledger(), grant.schema) else {
            return unknown("no-schema");
        };
        // As an officer of this division would ask for it today.
        let asker = policy::Asker {
            operator: OperatorId([0; 16]),
            role: Role::SecurityOfficer,
            organization: self.config.division.clone(),
            level: self.config.level,
            grid: None,
        };
        let terms = Terms {
            shard: &grant.origin,
            assessment: &grant.assessment,
            purpose: &grant.purpose,
            instead_of: Some(grant.id),
        };
        let positions = grant.fields.iter().copied().collect();
        let verdict = self.judge(&asker, schema, &positions, &holder, &terms);
        let verdict = verdict.err().map(|denied| Refused {
            rule: denied.rule,
            ask: denied.ask,
            field: denied.field,
        });
        if let Some(refused) = &verdict {
            tracing::warn!(grant = %grant.id, rule = refused.rule.as_str(), "the policies in force would refuse a grant that stands; its holder gets nothing new");
        }
        lock(&self.judged.0).insert(grant.id, (of, verdict.clone()));
        verdict
    }

    /// Own grants that did not end and that the policies in force would refuse. One that is past its
    /// time ends by itself.
    pub fn refused_grants(&self) -> Vec<(GrantId, Refused)> {
        let grants = self.grants_in_force(UnixMillis(0)).into_iter();
        let refused = grants.filter_map(|grant| Some((grant.id, self.why_refused(&grant)?)));
        refused.collect()
    }

    /// Everything that a verdict depends on.
    fn judged_of(&self, grant: &GrantStatement, holder: &Charter) -> Hash {
        let authority = self.authority();
        let above = authority.ancestors(&self.config.division);
        let mut hash = Sha256::new();
        hash.update(self.policies().hash());
        hash.update(self.catalogue().hash());
        hash.update(holder.id());
        hash.update(cbor::to_vec(&above));
        let of_holder = { authority.grants() }.filter(|other| {
            other.holder == grant.holder
                && other.origin == grant.origin
                && (other.id == grant.id || authority.grant_ended(&other.id).is_none())
        });
        for other in of_holder {
            hash.update(cbor::to_vec(other));
        }
        hash.finalize().into()
    }

    /// What a refused grant still gets, one step of it: rows that were erased, redacted, moved away or
    /// left the scope are retracted. `true` when there is more to do.
    ///
    /// Its cursor stays, so that nothing is left out when it goes on; a checkpoint that it worked
    /// up to is let go of, because it would hold up resealing for as long as it is refused.
    pub(super) fn take_away(
        &self,
        grant: &GrantStatement,
        book: &mut Book,
        now: UnixMillis,
    ) -> Result<bool> {
        let ledger = grant.origin.grant(&grant.id);
        let Some(cursor) = self.resumed(grant, book)? else {
            return Ok(false);
        };
        let note = Head::read(self.store.as_ref(), &grant.origin)?.cosigned;
        let Some(checkpoint) = note.as_deref().map(checkpoint_of).transpose()? else {
            return Ok(false);
        };
        let (target, root) = (checkpoint.size(), *checkpoint.root());
        let from = cursor.looked.unwrap_or(0).max(cursor.shard_size);
        if from >= target && cursor.target.is_none() {
            return Ok(false);
        }
        let kept = self.kept(&ledger)?;
        let mut stretch = Stretch::new(self, (grant, &kept, &ledger), (target, root), now);
        let mut at = from;
        while at < target.min(from + STEP) && !stretch.is_full() {
            if let Some((_, entry)) = self.record_entry(&grant.origin, at)? {
                stretch.only_take(at, entry)?;
            }
            at += 1;
        }
        let next = Cursor {
            target: None,
            looked: Some(at.max(from)),
            ..cursor
        };
        let (leaves, rows) = stretch.done();
        let extend = |batch: &mut Batch| {
            batch.put(cursor_key(&ledger), cbor::to_vec(&next));
            rows.write(batch);
        };
        if leaves.is_empty() {
            book.extend(self.store.as_ref(), extend)?;
        } else {
            let signer = self.service(purpose("sharing"));
            self.append(book, &signer, leaves, now, |batch, _, _| extend(batch))?;
        }
        self.changed();
        Ok(at < target)
    }
}
