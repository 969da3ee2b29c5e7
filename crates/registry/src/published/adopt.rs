//! Adopting: what the root published takes the place of what was in force, while the node runs.
//!
//! Owns the order: own shards get the keys and columns of further fields first, then the schema is
//! what new records are written under, then granted subsets are made anew. Refuses to leave a node
//! half changed: what fails leaves what was in force, and the next start tries again.

use record::id::{Kind, Origin, UnixMillis};
use record::schema::Catalogue;

use super::{Running, authority_of, held, realm_root};
use crate::error::Result;
use crate::holding::Access;
use crate::node::{Registry, lock};

/// The code of the alarm about a set that is not approved, or older than another.
const FORGED: &str = "published-forged";

impl Registry {
    /// Adopts what is new in the realm root's ledger, if this ledger is that.
    pub(crate) fn adopt_from(&self, ledger: &Origin, now: UnixMillis) {
        let of_root = realm_root(&self.config).is_ok_and(|root| root == ledger.division());
        if of_root
            && !self.keys.is_locked()
            && let Err(error) = self.adopt_published(now)
        {
            tracing::error!(%error, "what the realm published could not be adopted");
        }
    }

    /// Puts what the realm's root published in force here, and states which versions that are.
    ///
    /// # Errors
    /// A failure of the store; then what was in force stays.
    pub(crate) fn adopt_published(&self, now: UnixMillis) -> Result<()> {
        let _one = lock(&self.published.adopting);
        let root = realm_root(&self.config)?;
        let (before, after, forged) = {
            let authority = self.authority();
            let before = self.published.running();
            let after = before.after(self.store.as_ref(), &authority, &root)?;
            let (_, forged) = held(self.store.as_ref(), &authority, &root)?;
            let ledger = authority_of(&authority, &root);
            (
                before,
                after,
                ledger
                    .filter(|_| !forged.is_empty())
                    .zip(forged.first().cloned()),
            )
        };
        if let Some((ledger, (size, _))) = forged {
            let words = format!(
                "第 {} 条发布未经两名安全员批准，或版本不新 / entry {0} publishes a set that two officers did not approve, or that is not newer than the one before it",
                size - 1
            );
            self.alarm(&ledger, FORGED, &words, vec![], now);
        }
        if after.is(&before) {
            return Ok(());
        }
        let changed = self.changed_holdings(&before, after.catalogue);
        for origin in changed.iter().filter(|o| o.is_shard()) {
            self.remake(origin, after.catalogue)?;
        }
        self.published.replace(after.clone());
        for origin in changed.iter().filter(|o| !o.is_shard()) {
            // Its rows may have come under the schema before that was known here.
            if let Err(error) = self.remake(origin, after.catalogue) {
                tracing::error!(%origin, %error, "a granted subset could not be made anew");
            } else {
                self.clear_alarm(origin, "holding")?;
            }
        }
        self.open_awaiting(now)?;
        for declined in &after.declined {
            tracing::warn!(
                what = declined.what.as_str(),
                version = declined.version,
                reason = %declined.reason,
                "a published set is not adopted"
            );
        }
        tracing::info!(
            policies = after.version("policies"),
            schemas = after.version("schemas"),
            "published sets are in force"
        );
        self.state_versions(now)
    }

    /// The ledgers held whose kind has another schema than before.
    fn changed_holdings(&self, before: &Running, after: &Catalogue) -> Vec<Origin> {
        let version =
            |catalogue: &Catalogue, kind: &Kind| catalogue.schema(kind).map(|s| s.version);
        let holdings = self
            .holdings
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        holdings
            .iter()
            .filter(|(origin, holding)| {
                let holding = holding
                    .read()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let own = matches!(holding.access, Access::Own(_));
                own == origin.is_shard()
                    && version(before.catalogue, &holding.kind) != version(after, &holding.kind)
            })
            .map(|(origin, _)| origin.clone())
            .collect()
    }

    fn remake(&self, origin: &Origin, catalogue: &'static Catalogue) -> Result<()> {
        match catalogue.schema(&origin.ledger()) {
            Some(schema) => self.remake_holding(origin, schema),
            None => Ok(()),
        }
    }
}
