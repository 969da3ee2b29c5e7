//! Key epochs (密钥期): beginning one, and retiring those under which nothing is left.
//!
//! Owns the order: the secret is durable, then the authority ledger says that the epoch began,
//! then the first body is sealed under it. Refuses a second rotation while one is under way, and
//! to destroy a secret while anything that it opens is here.

use std::sync::{Arc, PoisonError};

use record::authority::{EpochChange, EpochStep, Statement};
use record::id::{Hash, Origin, UnixMillis};
use record::plan::Work;

use crate::book::Signer;
use crate::error::{RegistryError, Result};
use crate::holding::Access;
use crate::node::{Registry, lock, purpose};
use crate::plan::Warrant;
use crate::session::Session;
use crate::table::Head;

impl Registry {
    /// Begins a new epoch of a shard.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] while bodies of the shard are still being resealed, unless a
    /// key is known to others; a failure of the store.
    pub(crate) fn rotate_epoch(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::RotateEpoch {
            origin,
            compromised,
        }) = warrant.work()
        else {
            return Err(other_work());
        };
        let signer = by.signer(purpose("security"), None);
        // A plan that was cut off after its epoch began is run once more, and begins no other.
        if !self.authority().began_under(origin, &warrant.plan()) {
            self.begin_epoch(origin, *compromised, warrant.plan(), &signer, now)?;
        }
        if let Err(error) = self.key_grants(now) {
            tracing::warn!(%origin, %error, "holders get the keys of the new epoch later");
        }
        Ok(())
    }

    fn begin_epoch(
        &self,
        origin: &Origin,
        compromised: bool,
        plan: Hash,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let schema = self.shard_of_own(origin)?;
        // From here on nobody else writes the shard: every entry after this is under the new epoch.
        let holding = self.holding(origin)?;
        let book = self.book(origin)?;
        let _book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        if !compromised && self.is_resealing(origin)? {
            return Err(RegistryError::BadRequest(format!(
                "`{origin}` 正在轮换，须等重封完成（见 `fangzhi keys status`） / a rotation of this shard is under way; wait until `fangzhi keys status` shows it finished, or plan it as compromised"
            )));
        }
        let epoch = self
            .authority()
            .current_epoch(origin)
            .checked_add(1)
            .ok_or_else(|| RegistryError::damaged("there are no more epochs"))?;
        self.keys.make_epoch(origin, epoch)?;
        let begun = EpochChange {
            origin: origin.clone(),
            epoch,
            step: EpochStep::Begun,
            plan,
        };
        self.state(vec![Statement::Epoch(begun)], signer, now)?;
        holding.access = Access::Own(Arc::new(self.shard_keys(origin, schema)?));
        Ok(())
    }

    /// Destroys the secret of an epoch under which nothing is sealed any more.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] while anything is, or when the epoch is the present one.
    pub(crate) fn retire_epoch(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::RetireEpoch { origin, epoch }) = warrant.work() else {
            return Err(other_work());
        };
        let schema = self.shard_of_own(origin)?;
        self.may_be_retired(origin, *epoch)?;
        let (bodies, parcels) = self.left_under(origin, *epoch)?;
        if bodies > 0 {
            return Err(RegistryError::BadRequest(format!(
                "第 {epoch} 期下还有 {bodies} 份正文 / {bodies} bodies of `{origin}` still lie under epoch {epoch}; wait for the resealing, see `fangzhi keys status`"
            )));
        }
        if parcels > 0 {
            return Err(RegistryError::BadRequest(format!(
                "第 {epoch} 期下还有 {parcels} 份授权递件：等上级联署、持有方换齐；密钥外泄后的授权须续订（grant renew）或终止 / {parcels} parcels of grants of `{origin}` still lie under epoch {epoch}: they wait for the parent's cosignature, or, after a compromise, for `fangzhi grant renew` or the grant's end; see `fangzhi grant list`"
            )));
        }
        // Destroyed before it is said to be; when the word is lost, running the plan again finds
        // nothing left and says it.
        self.keys.remove_epoch(origin, *epoch)?;
        let holding = self.holding(origin)?;
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        holding.access = Access::Own(Arc::new(self.shard_keys(origin, schema)?));
        drop(holding);
        let retired = EpochChange {
            origin: origin.clone(),
            epoch: *epoch,
            step: EpochStep::Retired,
            plan: warrant.plan(),
        };
        let signer = by.signer(purpose("security"), None);
        self.state(vec![Statement::Epoch(retired)], &signer, now)?;
        Ok(())
    }

    /// How many bodies of an own shard, and parcels of its grants, lie under an epoch: found by
    /// looking at each.
    pub(crate) fn left_under(&self, origin: &Origin, epoch: u32) -> Result<(u64, u64)> {
        let end = Head::read(self.store.as_ref(), origin)?.size;
        let bodies = self.count_under(origin, end, &|of| of == epoch)?;
        Ok((bodies, self.parcels_under(origin, epoch)?))
    }

    /// Refuses the present epoch, those that never were, and those that are retired.
    pub(crate) fn may_be_retired(&self, origin: &Origin, epoch: u32) -> Result<()> {
        let current = self.authority().current_epoch(origin);
        if epoch >= current || epoch == 0 {
            return Err(RegistryError::BadRequest(format!(
                "第 {epoch} 期不是旧密钥期 / epoch {epoch} is not one before the present epoch {current} of `{origin}`; see `fangzhi keys status`"
            )));
        }
        if self.authority().epoch(origin, epoch) == Some(EpochStep::Retired) {
            return Err(RegistryError::BadRequest(format!(
                "第 {epoch} 期已退役 / epoch {epoch} of `{origin}` was retired before"
            )));
        }
        Ok(())
    }

    fn shard_of_own(&self, origin: &Origin) -> Result<&record::schema::Schema> {
        let own = origin.is_shard() && *origin == self.shard(&origin.ledger());
        let schema = self.schema(&origin.ledger())?;
        own.then_some(schema).ok_or_else(|| {
            RegistryError::BadRequest(format!("`{origin}` is not a shard of this node"))
        })
    }
}

fn other_work() -> RegistryError {
    RegistryError::BadRequest("the plan is for other work".into())
}

#[cfg(test)]
mod tests;
