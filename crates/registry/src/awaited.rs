//! Schemas that a ledger needs and that are not here yet (待到的登记表): after a rebuild, records may
//! come back before what the realm published.
//!
//! Owns which ledgers wait for one, the alarm that says so, and that they are opened when it came.
//! Refuses to answer from such a ledger, or to write to it: what is there would seem to be less.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::PoisonError;

use record::id::{Kind, Origin, UnixMillis};

use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock};

/// The code of the alarm.
const AWAITED: &str = "schema-awaited";

/// Which version each ledger waits for.
pub(crate) type Awaited = BTreeMap<Origin, u32>;

impl Registry {
    /// Refuses a ledger that waits for a schema.
    pub(crate) fn refuse_awaiting(&self, origin: &Origin) -> Result<()> {
        match lock(&self.awaited).get(origin) {
            Some(version) => Err(RegistryError::NoSchema {
                kind: origin.ledger(),
                version: *version,
            }),
            None => Ok(()),
        }
    }

    /// Refuses the own shard of a kind while it waits for a schema.
    pub(crate) fn refuse_awaiting_kind(&self, kind: &Kind) -> Result<()> {
        self.refuse_awaiting(&self.shard(kind))
    }

    /// Opens a ledger, or notes that it waits for a schema: the rest of the node works on.
    pub(crate) fn advance_or_await(&self, origin: &Origin, now: UnixMillis) -> Result<()> {
        match self.advance_holding(origin) {
            Err(RegistryError::NoSchema { kind, version }) => {
                lock(&self.awaited).insert(origin.clone(), version);
                self.holdings
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(origin);
                let words = format!(
                    "`{kind}` 第 {version} 版登记表尚未收到，其记录暂不能查、不能登记，待与上级联通后自动补齐 / version {version} of the schema of `{kind}` has not come here yet: its records are neither read nor written until it comes with the root's authority ledger"
                );
                tracing::warn!(%origin, version, "a ledger waits for a schema that the realm published");
                self.alarm(origin, AWAITED, &words, vec![], now);
                Ok(())
            }
            Ok(()) => {
                if lock(&self.awaited).remove(origin).is_some() {
                    tracing::info!(%origin, "the schema of a ledger came");
                }
                self.clear_alarm(origin, AWAITED)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens what waited, after other schemas came into force.
    pub(crate) fn open_awaiting(&self, now: UnixMillis) -> Result<()> {
        let waiting: Vec<Origin> = lock(&self.awaited).keys().cloned().collect();
        for origin in waiting {
            self.advance_or_await(&origin, now)?;
        }
        Ok(())
    }
}
