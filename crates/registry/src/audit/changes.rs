//! Listing which fields the versions of a record changed.
//!
//! The list is a cell, so this is a reading: policy decides, the access entry is committed first,
//! and the answer is marked. Owns which versions a holding has.
//! Refuses a grant that does not carry the list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use policy::Action;
use record::entry::Entry;
use record::id::{Kind, Origin, Purpose, RecordId, UnixMillis};
use record::schema::{CHANGED, Position, Schema};
use serde::{Deserialize, Serialize};
use watermark::{Marked, Opened};

use super::disclose::{Asked, no_record, whole};
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Holding};
use crate::node::Registry;
use crate::session::Session;
use crate::table;

/// The most versions whose changes one reading lists, the newest.
pub const VERSIONS_MAX: usize = 1000;

/// Whose changes are to be listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// The kind.
    pub kind: Kind,
    /// The record.
    pub record: RecordId,
    /// What for.
    pub purpose: Purpose,
    /// Legal basis or case number, as the operator states it.
    #[serde(default)]
    pub basis: Option<String>,
}

/// Which fields each version of a record changed.
#[derive(Debug, Clone, Serialize)]
pub struct Changes {
    /// The record.
    pub record: RecordId,
    /// The owner's shard.
    pub origin: Origin,
    /// By version, ascending.
    pub versions: Vec<ChangedIn>,
}

/// Which fields one version changed.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedIn {
    /// The version.
    pub version: u64,
    /// Field ids; absent in a version that states no changes, such as the first.
    pub fields: Option<Vec<String>>,
}

impl Registry {
    /// Lists which fields each version of a record changed.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] (which is itself recorded), [`RegistryError::NotFound`] when no
    /// holding of this node has the record.
    pub fn changes(
        &self,
        session: &Session,
        request: &ChangesRequest,
        now: UnixMillis,
    ) -> Result<Marked<Changes>> {
        if now >= session.expires || !self.in_good_standing(session) {
            return Err(RegistryError::NoSession);
        }
        crate::session::short("basis", request.basis.as_deref().unwrap_or_default())?;
        let schema = self.schema(&request.kind)?;
        let wanted = BTreeSet::from([CHANGED]);
        let asked = Asked {
            kind: &request.kind,
            record: request.record,
            purpose: &request.purpose,
            basis: request.basis.as_ref(),
            action: Action::Read,
            fields: &wanted,
        };
        let holding = self
            .holdings_of(&request.kind)
            .into_iter()
            .find(|holding| {
                let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
                holding.index.get(request.record).is_some()
            })
            .ok_or_else(|| no_record(&request.record))?;
        // The books come before holdings: none of these locks is kept while a reading is recorded.
        let (permit, found) = {
            let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
            let permit = self
                .granted_changes(&holding, now)
                .and_then(|()| self.permit_for(session, &holding, schema, &asked))
                .and_then(|permit| whole(&permit, &wanted));
            let found = permit
                .is_ok()
                .then(|| self.versions_in(&holding, &request.record))
                .transpose()?
                .unwrap_or_default();
            (permit, (holding.origin.clone(), found))
        };
        if let Err(denied) = permit {
            return self.refused(session, &asked, denied, now);
        }
        let (origin, places) = found;
        let receipt = self.record_reading(session, &asked, &origin, places.clone(), now)?;

        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        let mut versions = Vec::with_capacity(places.len());
        for (at, _) in places {
            let version = self.open_version(&holding, at)?;
            let schema = self.schema_version(&request.kind, version.entry.schema)?;
            let changed = version.values.get(&CHANGED).and_then(|o| o.value());
            versions.push(ChangedIn {
                version: version.entry.version,
                fields: changed.map(|list| ids(schema, list)),
            });
        }
        let changes = Changes {
            record: request.record,
            origin: holding.origin.shard(),
            versions,
        };
        self.counters.answered(1);
        Ok(watermark::mark(
            &self.keys.mark_key()?,
            &receipt,
            Opened::new(changes),
        ))
    }

    /// Whether the list of changed fields is this node's to open.
    fn granted_changes(&self, holding: &Holding, now: UnixMillis) -> Result<()> {
        match &holding.access {
            Access::Grant { statement, .. }
                if statement.not_after < now || !statement.fields.contains(&CHANGED) =>
            {
                let owner = holding.origin.division();
                Err(RegistryError::Denied {
                    rule: "not-granted".into(),
                    ask: format!("{owner} 的安全员 / the security officer of `{owner}`"),
                    reason: "变更项未授权给本节点 / the list of changed fields is not granted to this node".into(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Where the versions of a record lie in a holding's ledger, the newest [`VERSIONS_MAX`].
    fn versions_in(&self, holding: &Holding, record: &RecordId) -> Result<Vec<(u64, u64)>> {
        let newest = holding
            .index
            .get(*record)
            .ok_or_else(|| no_record(record))?;
        let mut places = BTreeMap::new();
        self.entries(&holding.origin, newest.at + 1, |at, _, entry| match entry {
            // A reseal is no version; the version before opens where it is sealed since.
            Entry::Record(entry) if entry.record == *record && !entry.operation.is_anew() => {
                places.insert(at, entry.version);
            }
            Entry::Grant(entry)
                if entry.record.as_ref() == Some(record) && entry.operation.brings_parcel() =>
            {
                // The version is in the parcel; the access entry names the place, which is exact.
                places.insert(at, 0);
            }
            _ => {}
        })?;
        if holding.origin.grant_id().is_some() {
            let keys: Vec<_> = places
                .keys()
                .map(|at| table::body(&holding.origin, *at))
                .collect();
            let here = self.store.get_many(&keys)?;
            let mut here = here.iter().map(Option::is_some);
            // What a later parcel of another epoch replaced is destroyed.
            places.retain(|_, _| here.next().unwrap_or(false));
        }
        let surplus = places.len().saturating_sub(VERSIONS_MAX);
        Ok(places.into_iter().skip(surplus).collect())
    }
}

/// A list of positions as field ids.
fn ids(schema: &Schema, list: &str) -> Vec<String> {
    list.split(',')
        .map(|text| {
            let position = text.parse::<Position>().ok();
            let field = position.and_then(|position| schema.at(position));
            field.map_or_else(|| format!("#{text}"), |field| field.id.clone())
        })
        .collect()
}
