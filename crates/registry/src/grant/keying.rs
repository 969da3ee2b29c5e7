//! Giving holders the keys of an epoch: at a rotation, and when a holder has a new charter.
//!
//! Owns who gets them by itself: every grant in force whose holder's charter holds, unless a key was
//! known to others; then an officer grants again, one by one. The statement of the grant is made
//! anew under the same id, with the new epoch and envelope; the one before stays in the ledger.

use ledger::hash::empty_root;
use record::authority::{Charter, GrantStatement, Statement};
use record::entry::{Entry, GrantEntry, GrantOperation, SUITE};
use record::id::{GrantId, Origin, UnixMillis};
use record::plan::Work;
use seal::parcel::Parcel;
use seal::secret::GrantSecret;
use sha2::{Digest, Sha256};

use super::{DAYS_MAX, Kept};
use crate::book::{Leaf, Signer};
use crate::error::{RegistryError, Result};
use crate::holding::envelope_info;
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::Session;
use crate::table;

const SCAN: usize = 512;

impl Registry {
    /// Gives the keys of the present epoch to every holder that is to have them. A grant whose keys
    /// cannot be given at present is tried again.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn key_grants(&self, now: UnixMillis) -> Result<()> {
        for grant in self.grants_in_force(now) {
            let current = self.authority().current_epoch(&grant.origin);
            let Some(holder) = self.valid_charter(&grant, now) else {
                continue;
            };
            let newer_charter = holder.id() != grant.holder_charter;
            let due = grant.epoch < current || newer_charter;
            // After a compromise no holder gets the new keys by itself, and none that policies refuse.
            let given = !self.was_compromised(&grant.origin, grant.epoch, current);
            if due && given && self.why_refused(&grant).is_none() {
                let signer = self.service(purpose("sharing"));
                self.key_grant(&grant, &holder, grant.not_after, &signer, now)?;
            }
        }
        Ok(())
    }

    /// Grants again what a grant gives: the keys of the present epoch, for so many days from now.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] when the grant is not this
    /// node's or has ended, [`RegistryError::NoCharter`] when the holder's charter does not hold.
    pub fn renew_grant(
        &self,
        session: &Session,
        id: &GrantId,
        days: u32,
        now: UnixMillis,
    ) -> Result<()> {
        let grant = self
            .grants_in_force(now)
            .into_iter()
            .find(|grant| grant.id == *id)
            .ok_or(RegistryError::NotFound {
                what: "授权 / grant",
                name: id.to_string(),
                next: "see `fangzhi grant list`; one that ended is made anew",
            })?;
        if days == 0 || days > DAYS_MAX {
            return Err(RegistryError::BadRequest(format!(
                "授权期限 1 至 {DAYS_MAX} 天 / a grant lasts 1 to {DAYS_MAX} days; renew it later"
            )));
        }
        let holder = self
            .valid_charter(&grant, now)
            .ok_or_else(|| RegistryError::NoCharter(grant.holder.clone()))?;
        let schema = self.schema_version(&grant.origin.ledger(), grant.schema)?;
        self.may_hold(
            session,
            schema,
            &grant.fields.iter().copied().collect(),
            &holder,
            &super::Terms {
                shard: &grant.origin,
                assessment: &grant.assessment,
                purpose: &grant.purpose,
                instead_of: Some(*id),
            },
        )?;
        let signer = session.signer(grant.purpose.clone(), None);
        let not_after = UnixMillis(now.0 + u64::from(days) * 86_400_000);
        self.key_grant(&grant, &holder, not_after, &signer, now)?;
        self.advance_grants(now)
    }

    /// The holder's newest charter, if it holds now.
    pub(super) fn valid_charter(&self, grant: &GrantStatement, now: UnixMillis) -> Option<Charter> {
        let authority = self.authority();
        let charter = authority.charter(&grant.holder)?;
        let holds = charter.not_before <= now
            && now <= charter.not_after
            && !authority.revoked(&charter.id());
        holds.then(|| charter.clone())
    }

    /// Whether an epoch after `from`, up to `to`, began because a key was known to others.
    fn was_compromised(&self, origin: &Origin, from: u32, to: u32) -> bool {
        let authority = self.authority();
        (from..to).any(|before| {
            let plan = authority
                .epoch_plan(origin, before + 1)
                .and_then(|id| authority.plan(&id).cloned());
            matches!(
                plan.map(|p| p.work),
                Some(Work::RotateEpoch {
                    compromised: true,
                    ..
                })
            )
        })
    }

    fn key_grant(
        &self,
        grant: &GrantStatement,
        holder: &Charter,
        not_after: UnixMillis,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let ledger = grant.origin.grant(&grant.id);
        let book = self.book(&ledger)?;
        let mut book = lock(&book);
        // Held to the end: of two that give keys at once, the second finds them given.
        if self.authority().grant(&grant.id) != Some(grant) {
            return Ok(());
        }
        if self.cursor(&ledger)?.target.is_some() {
            // It works up to a checkpoint under the keys that the holder has; then it is keyed.
            return Ok(());
        }
        let positions = grant.fields.iter().copied().collect();
        let (epoch, keys) = self.granted_keys(&grant.origin, &positions)?;
        let old = self.kept(&ledger)?;
        if self
            .keys
            .blind("grant-rows", &super::row_bytes(&grant.id, &old.rows))?
            != grant.rows
        {
            // An amendment that was cut off: its plan is run again.
            return Ok(());
        }
        let mut rng = rng()?;
        let same = epoch == grant.epoch;
        let secret = if same {
            GrantSecret::from_bytes(old.secret)
        } else {
            GrantSecret::generate(&mut rng)
        };
        let mut statement = GrantStatement {
            holder_charter: holder.id(),
            owner_charter: self.own_charter()?,
            epoch,
            policy: self.policies().hash(),
            not_after,
            ..grant.clone()
        };
        let info = envelope_info(&statement);
        let envelope =
            seal::grant::seal_envelope(&info, &holder.keys.seal, &secret, &keys, &mut rng)
                .map_err(|e| {
                    RegistryError::BadRequest(format!(
                        "the charter of `{}` has no usable seal key: {e}",
                        grant.holder
                    ))
                })?;
        statement.envelope = Sha256::digest(&envelope).into();
        let kept = Kept {
            secret: *secret.expose(),
            rows: old.rows.clone(),
            envelope: Some(statement.envelope),
        };
        let sealed = self.seal_kept(&ledger, &kept)?;
        let leaf = Leaf {
            entry: Entry::Grant(GrantEntry {
                suite: SUITE,
                operation: GrantOperation::Keys,
                record: None,
                shard_size: 0,
                shard_root: empty_root(),
                parcel: Some(statement.envelope),
                recorded_at: now,
            }),
            body: Some(envelope),
        };
        // An envelope that the statement never follows is named by nobody, and given again.
        self.append(&mut book, signer, vec![leaf], now, |batch, _, _| {
            batch.put_body(table::key(&ledger, table::GRANT, b""), sealed);
        })?;
        self.state(vec![Statement::Grant(statement)], signer, now)?;
        Ok(())
    }

    /// How many parcels of an own shard's grants hold cells of an epoch.
    pub(crate) fn parcels_under(&self, shard: &Origin, epoch: u32) -> Result<u64> {
        let ledgers: Vec<Origin> = self
            .authority()
            .grants()
            .filter(|grant| grant.origin == *shard)
            .map(|grant| shard.grant(&grant.id))
            .collect();
        let mut count = 0;
        for ledger in ledgers {
            let mut from = Vec::new();
            loop {
                let rows = self.store.scan(ledger.as_str(), table::BODY, &from, SCAN)?;
                let last = rows.last().map(|(rest, _)| rest.clone());
                // Envelopes and heartbeats are no parcels.
                let of = |body: &[u8]| Parcel::decode(body).is_ok_and(|p| p.entry().epoch == epoch);
                count += rows.iter().filter(|(_, body)| of(body)).count() as u64;
                let Some(mut last) = last.filter(|_| rows.len() == SCAN) else {
                    break;
                };
                last.push(0);
                from = last;
            }
        }
        Ok(count)
    }
}
