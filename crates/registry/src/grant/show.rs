//! What a grant comes to, before it is made and after: who could open what, and why.
//!
//! Owns the count of everything that a holder could open over all its grants of a shard: keys of
//! fields and keys of rows combine, whichever grant they came with. Shows no value, only counts.

use std::collections::{BTreeMap, BTreeSet};

use record::entry::{Entry, GrantEntry, GrantOperation};
use record::id::{DivisionId, GrantId, Kind, Origin, RecordId, UnixMillis};
use record::schema::{Position, Schema};
use serde::Serialize;

use super::{GrantLine, GrantRequest, Terms, matches, positions, row_conditions};
use crate::chain;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::session::Session;
use crate::table;

const SCAN: usize = 512;

/// All that a holder could open of a group of fields.
#[derive(Debug, Clone, Serialize)]
pub struct Openable {
    /// The group, whose fields one row key opens.
    pub group: Kind,
    /// The fields whose keys the holder would have.
    pub fields: Vec<String>,
    /// Of them, those that it has no key of at present.
    pub added: Vec<String>,
    /// The rows whose keys of this group the holder would have.
    pub rows: u64,
    /// The rows whose keys it has at present.
    pub rows_before: u64,
}

/// What a grant would come to.
#[derive(Debug, Clone, Serialize)]
pub struct GrantPlan {
    /// The shard.
    pub origin: Origin,
    /// Who would receive.
    pub holder: DivisionId,
    /// Rows in scope of this grant alone, at present.
    pub rows: u64,
    /// The holder's other grants in force, which combine with it.
    pub grants: Vec<GrantId>,
    /// By group of fields.
    pub openable: Vec<Openable>,
    /// Whether the holder has a connection to this node through one that is connected at present.
    pub unreachable: Vec<DivisionId>,
}

/// Why a holder has a record, or had it.
#[derive(Debug, Clone, Serialize)]
pub struct WhyLine {
    /// The grant.
    pub grant: GrantLine,
    /// The fields that the condition on rows looks at; every row is in scope when there is none.
    /// Known at the owner only.
    pub conditions: Option<Vec<String>>,
    /// What the grant's ledger says of the record, the oldest first.
    pub steps: Vec<WhyStep>,
    /// Whether the holder has it at present.
    pub holds: bool,
}

/// One entry of a grant's ledger about a record.
#[derive(Debug, Clone, Serialize)]
pub struct WhyStep {
    /// Its index.
    pub index: u64,
    /// `enter`, `update`, `reseal` or `retract`.
    pub operation: &'static str,
    /// When the owner recorded it.
    pub recorded_at: UnixMillis,
    /// The size of the shard that it speaks of.
    pub shard_size: u64,
}

/// What is known of one grant.
#[derive(Debug, Clone, Serialize)]
pub struct GrantDetails {
    /// As listed.
    pub line: GrantLine,
    /// Reference of the impact assessment.
    pub assessment: String,
    /// The epochs whose keys the holder was given, in order.
    pub epochs: Vec<u32>,
    /// The size of the shard up to which the holder was told that nothing is missing.
    pub heartbeat: Option<u64>,
}

impl Registry {
    /// What a grant would come to. Nothing is granted.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy when the holder could open too much,
    /// [`RegistryError::NoCharter`], [`RegistryError::BadRequest`] for unknown fields.
    pub fn plan_grant(
        &self,
        session: &Session,
        request: &GrantRequest,
        now: UnixMillis,
    ) -> Result<GrantPlan> {
        let schema = self.schema(&request.kind)?;
        let fields = positions(schema, &request.fields)?;
        let conditions = row_conditions(schema, &request.rows, self.catalogue())?;
        let holder = self
            .authority()
            .charter(&request.holder)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(request.holder.clone()))?;
        let origin = self.shard(&request.kind);
        let terms = Terms {
            shard: &origin,
            assessment: &request.assessment,
            purpose: &request.purpose,
            instead_of: None,
        };
        self.may_hold(session, schema, &fields, &holder, &terms)?;
        let new_rows = self.rows_that_match(&origin, &conditions)?;
        let mut others = Vec::new();
        for grant in self.grants_in_force(now) {
            if grant.holder == request.holder && grant.origin == origin {
                let rows = self.scope_of(&origin.grant(&grant.id))?;
                others.push((grant.id, grant.fields.iter().copied().collect(), rows));
            }
        }
        let openable = openable(schema, &fields, &new_rows, &others);
        Ok(GrantPlan {
            unreachable: self.unreachable_holder(&request.holder),
            origin,
            holder: request.holder.clone(),
            rows: new_rows.len() as u64,
            grants: others.into_iter().map(|(id, _, _)| id).collect(),
            openable,
        })
    }

    /// The newest versions of an own shard's records that fit a condition on rows.
    pub(super) fn rows_that_match(
        &self,
        origin: &Origin,
        conditions: &[(Position, String)],
    ) -> Result<BTreeSet<RecordId>> {
        let keys = self.own_keys(origin)?;
        let mut rows = BTreeSet::new();
        let mut from = Vec::new();
        loop {
            let found = self
                .store
                .scan(origin.as_str(), table::RECORD, &from, SCAN)?;
            for (rest, bytes) in &found {
                let Ok(id) = rest.as_slice().try_into() else {
                    continue;
                };
                let newest: table::Newest = table::decode("newest version", bytes)?;
                // One whose values are destroyed or lost is in no scope.
                let fits = newest.page != 0
                    && self
                        .open_own(origin, &keys, newest.at)
                        .is_ok_and(|version| matches(&version, conditions));
                if fits {
                    rows.insert(RecordId(id));
                }
            }
            match found.last() {
                Some((last, _)) if found.len() == SCAN => {
                    from.clone_from(last);
                    from.push(0);
                }
                _ => return Ok(rows),
            }
        }
    }

    /// The records in scope of an own grant.
    pub(super) fn scope_of(&self, ledger: &Origin) -> Result<BTreeSet<RecordId>> {
        let rows = self
            .store
            .scan(ledger.as_str(), table::SCOPE, b"", usize::MAX)?;
        let ids = rows
            .iter()
            .filter_map(|(rest, _)| rest.as_slice().try_into().ok().map(RecordId));
        Ok(ids.collect())
    }

    pub(super) fn unreachable_holder(&self, holder: &DivisionId) -> Vec<DivisionId> {
        let own = &self.config.division;
        let authority = self.authority();
        let mut path = vec![holder.clone()];
        path.extend(authority.ancestors(holder));
        drop(authority);
        let below = path.iter().position(|d| d == own);
        let next = match below {
            Some(at) => at.checked_sub(1).and_then(|at| path.get(at)).cloned(),
            None => self.config.parent.as_ref().map(|p| p.division.clone()),
        };
        let peers = crate::node::lock(&self.peers);
        let away = |division: &DivisionId| {
            let line = peers.lines.get(division.as_str());
            !line.is_some_and(|line| line.connected)
        };
        next.into_iter().filter(away).collect()
    }

    /// One grant, by its id.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or a failure of the store.
    pub fn grant_details(&self, id: &GrantId, now: UnixMillis) -> Result<GrantDetails> {
        let line = self
            .grants(now)?
            .into_iter()
            .find(|line| line.id == *id)
            .ok_or(RegistryError::NotFound {
                what: "授权 / grant",
                name: id.to_string(),
                next: "see `fangzhi grant list`",
            })?;
        let statements = self.authority().grant_statements(id).to_vec();
        let heartbeat = self.newest_heartbeat(&line.ledger, line.size)?;
        Ok(GrantDetails {
            assessment: statements
                .last()
                .map(|s| s.assessment.clone())
                .unwrap_or_default(),
            epochs: statements.iter().map(|s| s.epoch).collect(),
            line,
            heartbeat: heartbeat.map(|entry| entry.shard_size),
        })
    }

    /// The newest heartbeat of a grant's ledger that is here.
    pub(super) fn newest_heartbeat(
        &self,
        ledger: &Origin,
        size: u64,
    ) -> Result<Option<GrantEntry>> {
        // It is near the end, mostly right before the newest act.
        let (mut end, mut step) = (size, 4);
        while end > 0 {
            let from = end.saturating_sub(step);
            let count = usize::try_from(end - from).unwrap_or(SCAN);
            let rows =
                self.store
                    .scan(ledger.as_str(), table::ENTRY, &from.to_be_bytes(), count)?;
            let mut entries = rows.iter().rev().map(|(_, bytes)| Entry::decode(bytes));
            let found = entries.find_map(|entry| match entry {
                Ok(Entry::Grant(e)) if e.operation == GrantOperation::Heartbeat => Some(e),
                _ => None,
            });
            if found.is_some() {
                return Ok(found);
            }
            (end, step) = (from, SCAN as u64);
        }
        Ok(None)
    }

    /// Why a holder has a record: every grant whose ledger ever spoke of it.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn why(
        &self,
        record: &RecordId,
        holder: &DivisionId,
        now: UnixMillis,
    ) -> Result<Vec<WhyLine>> {
        let store = self.store.as_ref();
        let mut lines = Vec::new();
        for grant in self
            .grants(now)?
            .into_iter()
            .filter(|g| g.holder == *holder)
        {
            let mut steps = Vec::new();
            for index in chain::entries_of(store, &grant.ledger, record, 0)? {
                let bytes = store.get(&table::entry(&grant.ledger, index))?;
                let Some(Ok(Entry::Grant(entry))) = bytes.as_deref().map(Entry::decode) else {
                    continue;
                };
                steps.push(WhyStep {
                    index,
                    operation: word_of(entry.operation),
                    recorded_at: entry.recorded_at,
                    shard_size: entry.shard_size,
                });
            }
            if steps.is_empty() {
                continue;
            }
            lines.push(WhyLine {
                conditions: self.condition_fields(&grant)?,
                holds: steps.last().is_some_and(|step| step.operation != "retract"),
                steps,
                grant,
            });
        }
        Ok(lines)
    }

    /// The fields that a grant's condition looks at, where the owner still keeps it.
    fn condition_fields(&self, grant: &GrantLine) -> Result<Option<Vec<String>>> {
        let kept = table::key(&grant.ledger, table::GRANT, b"");
        if self.store.get(&kept)?.is_none() {
            return Ok(None);
        }
        let kept = self.kept(&grant.ledger)?;
        let schema = self.schema(&grant.origin.ledger())?;
        let ids = kept.rows.iter().filter_map(|(at, _)| schema.at(*at));
        Ok(Some(ids.map(|field| field.id.clone()).collect()))
    }
}

fn word_of(operation: GrantOperation) -> &'static str {
    match operation {
        GrantOperation::Enter => "enter",
        GrantOperation::Update => "update",
        GrantOperation::Retract => "retract",
        GrantOperation::Reseal => "reseal",
        GrantOperation::Heartbeat => "heartbeat",
        GrantOperation::Keys => "keys",
    }
}

/// Keys of fields combine over grants, and within a group keys of rows do.
pub(super) fn openable(
    schema: &Schema,
    fields: &BTreeSet<Position>,
    rows: &BTreeSet<RecordId>,
    others: &[(GrantId, BTreeSet<Position>, BTreeSet<RecordId>)],
) -> Vec<Openable> {
    let mut groups: BTreeMap<&Kind, BTreeSet<Position>> = BTreeMap::new();
    for field in &schema.fields {
        groups
            .entry(&field.group)
            .or_default()
            .insert(field.position);
    }
    let ids = |positions: &BTreeSet<Position>| {
        let known = positions.iter().filter_map(|at| schema.at(*at));
        known.map(|field| field.id.clone()).collect()
    };
    let mut lines = Vec::new();
    for (group, members) in groups {
        let before: BTreeSet<Position> = others
            .iter()
            .flat_map(|(_, fields, _)| fields.intersection(&members).copied())
            .collect();
        let new: BTreeSet<Position> = fields.intersection(&members).copied().collect();
        let rows_before: BTreeSet<&RecordId> = others
            .iter()
            .filter(|(_, fields, _)| !fields.is_disjoint(&members))
            .flat_map(|(_, _, rows)| rows)
            .collect();
        let mut rows_after = rows_before.clone();
        if !new.is_empty() {
            rows_after.extend(rows);
        }
        let all: BTreeSet<Position> = before.union(&new).copied().collect();
        if all.is_empty() {
            continue;
        }
        let added = all.difference(&before).copied().collect();
        lines.push(Openable {
            group: group.clone(),
            fields: ids(&all),
            added: ids(&added),
            rows: rows_after.len() as u64,
            rows_before: rows_before.len() as u64,
        });
    }
    lines
}
