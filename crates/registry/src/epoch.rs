//! The keys of an own shard, by epoch (密钥期): the newest seals, every one that is left opens.
//!
//! Owns the rule by which a shard's present epoch is known: the newest that the authority ledger
//! says began. Refuses to make a secret up for an epoch that sealed something before.

use std::collections::BTreeMap;

use record::id::Origin;
use record::schema::Schema;
use seal::derive::FieldKeys;

use crate::authority::FIRST_EPOCH;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::table::Head;

/// The field keys of an own shard.
pub(crate) struct ShardKeys {
    current: u32,
    keys: BTreeMap<u32, FieldKeys>,
}

impl ShardKeys {
    /// The epoch that seals, and its keys.
    pub(crate) fn current(&self) -> (u32, &FieldKeys) {
        (self.current, &self.keys[&self.current])
    }

    /// What opens bodies of an epoch, unless it was retired.
    pub(crate) fn of(&self, epoch: u32) -> Option<&FieldKeys> {
        self.keys.get(&epoch)
    }
}

impl Registry {
    /// Derives the keys of every epoch of an own shard that this node has the secret of.
    pub(crate) fn shard_keys(&self, origin: &Origin, schema: &Schema) -> Result<ShardKeys> {
        let current = self.authority().current_epoch(origin);
        let mut secrets = self.keys.epochs(origin)?;
        if let std::collections::btree_map::Entry::Vacant(missing) = secrets.entry(current) {
            let fresh =
                current == FIRST_EPOCH && Head::read(self.store.as_ref(), origin)?.size == 0;
            if !fresh {
                // A keystore older than the ledger: another secret would open nothing.
                return Err(RegistryError::damaged(format!(
                    "密钥库缺少 `{origin}` 第 {current} 期的密钥 / the keystore lacks the secret of epoch {current} of `{origin}`: it is older than the ledger; put the newest keystore back, or run `fangzhi recover`"
                )));
            }
            missing.insert(self.keys.make_epoch(origin, current)?);
        }
        let keys = secrets
            .iter()
            // A secret beyond the present epoch was made for a beginning that was never stated.
            .filter(|(epoch, _)| **epoch <= current)
            .map(|(epoch, secret)| (*epoch, FieldKeys::derive(secret, origin, *epoch, schema)))
            .collect();
        Ok(ShardKeys { current, keys })
    }
}
