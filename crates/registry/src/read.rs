//! Reading (查询): decide, find, record the reading, open, mark. In this order, always.
//!
//! No receipt, no result: the access entry is committed before anything is opened, and
//! `api` can send only what is marked with its receipt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use index::Match;
use minicbor::{Decode, Encode};
use policy::{Action, Decision, Denied, Question, Shown};
use record::cbor;
use record::entry::{AccessEntry, Entry, SUITE};
use record::id::{Hash, Kind, OperatorId, Origin, Purpose, RecordId, UnixMillis};
use record::schema::{Position, STATUS, Schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use watermark::{Marked, Opened, Receipt};

use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Holding, Version};
use crate::keys::rng;
use crate::node::{Registry, lock};
use crate::session::Session;

mod joined;

use joined::{Hit, Search, Source, Withheld};

/// The most records one reading opens.
pub const READ_RECORDS_MAX: usize = 1000;
const FILTERS_MAX: usize = 8;
/// The access ledger's key is not rotated by epochs.
const ACCESS_EPOCH: u32 = 1;

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Comparison {
    /// The whole value.
    #[default]
    #[n(1)]
    Equals,
    /// The value's beginning.
    #[n(2)]
    Prefix,
    /// Any part of the value.
    #[n(3)]
    Contains,
}

/// One condition of a reading.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The field's id.
    #[n(0)]
    pub field: String,
    /// How it compares.
    #[serde(default)]
    #[n(1)]
    pub comparison: Comparison,
    /// With what.
    #[n(2)]
    pub value: String,
}

/// What an operator asks for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    /// The kind.
    pub kind: Kind,
    /// Conditions, all of which hold.
    #[serde(default, rename = "where")]
    pub filters: Vec<Filter>,
    /// Field ids wanted; all that policy allows when absent.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// What for: a code of the purpose list.
    pub purpose: Purpose,
    /// Legal basis or case number, as the operator states it.
    #[serde(default)]
    pub basis: Option<String>,
    /// Whether records that are out of force (status 60) are answered too; they are when a
    /// condition names the status.
    #[serde(default)]
    pub closed: bool,
    /// The most records to answer, at most [`READ_RECORDS_MAX`].
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A field that was asked for and is not in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeniedField {
    /// The field's id.
    pub field: String,
    /// The rule that denied.
    pub rule: String,
    /// Whom to ask.
    pub ask: String,
    /// In how many rows it is missing, when others have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// One record of an answer.
#[derive(Serialize)]
pub struct AnswerRow {
    /// The record.
    pub record: RecordId,
    /// The ledger that its value was checked against: the owner's shard.
    pub origin: Origin,
    /// The version.
    pub version: u64,
    /// Field id to value; a field without a value is absent.
    pub fields: BTreeMap<String, String>,
}

/// What a reading found.
#[derive(Serialize)]
pub struct Answer {
    /// The kind.
    pub kind: Kind,
    /// The records.
    pub rows: Vec<AnswerRow>,
    /// Fields shown in part.
    pub masked: Vec<String>,
    /// Fields asked for and withheld.
    pub denied: Vec<DeniedField>,
    /// Whether there are more records than were answered.
    pub more: bool,
}

/// What an access entry's sealed body says: one per reading, one per record.
#[derive(Clone, Encode, Decode)]
pub enum AccessBody {
    /// The reading.
    #[n(1)]
    Reading(#[n(0)] Reading),
    /// One record that it returned.
    #[n(2)]
    Returned(#[n(0)] Returned),
}

/// Who asked for what.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Reading {
    /// The operator.
    #[n(0)]
    pub operator: OperatorId,
    /// The role, as policies write it.
    #[n(1)]
    pub role: String,
    /// What for.
    #[n(2)]
    pub purpose: Purpose,
    /// On which basis.
    #[n(3)]
    pub basis: Option<String>,
    /// The kind.
    #[n(4)]
    pub kind: Kind,
    /// The conditions.
    #[n(5)]
    pub filters: Vec<Filter>,
    /// Field ids in the answer.
    #[n(6)]
    pub fields: Vec<String>,
    /// SHA-256 of the policy set that decided.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub policy: Hash,
    /// How many records were returned.
    #[n(8)]
    pub records: u64,
    /// The rule that denied the whole reading, if one did.
    #[n(9)]
    pub denied: Option<String>,
}

/// One version of a record that was opened; a row that comes with two grants has one of each.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Returned {
    /// The ledger of the reading node that it came from.
    #[n(0)]
    pub origin: Origin,
    /// The record.
    #[n(1)]
    pub record: RecordId,
    /// Index of the entry in that ledger.
    #[n(2)]
    pub at: u64,
    /// The version.
    #[n(3)]
    pub version: u64,
}

impl From<Denied> for RegistryError {
    fn from(denied: Denied) -> Self {
        RegistryError::Denied {
            rule: denied.rule,
            ask: denied.ask,
            reason: denied.reason.to_string(),
        }
    }
}

impl Registry {
    /// Answers a reading: marked with the receipt of its access entry.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] (which is itself recorded), [`RegistryError::NoKind`],
    /// [`RegistryError::BadRequest`].
    pub fn read(
        &self,
        session: &Session,
        request: &ReadRequest,
        now: UnixMillis,
    ) -> Result<Marked<Answer>> {
        if now >= session.expires || !self.in_good_standing(session) {
            return Err(RegistryError::NoSession);
        }
        let basis = request.basis.iter().map(|basis| ("basis", basis.as_str()));
        let sought = request
            .filters
            .iter()
            .map(|filter| ("where", filter.value.as_str()));
        for (what, text) in basis.chain(sought) {
            crate::session::short(what, text)?;
        }
        let schema = self.schema(&request.kind)?;
        let wanted = wanted(schema, request)?;
        let filters = self.filters(schema, request)?;
        let limit = request.limit.unwrap_or(READ_RECORDS_MAX);
        if limit == 0 || limit > READ_RECORDS_MAX {
            return Err(RegistryError::BadRequest(format!(
                "`limit` 取 1 至 {READ_RECORDS_MAX} / `limit` is 1 to {READ_RECORDS_MAX}"
            )));
        }
        let positions: Vec<Position> = filters.iter().map(|(position, _)| *position).collect();

        let mut hits: Vec<(Origin, Hit)> = Vec::new();
        let mut without_rows = Vec::new();
        let mut more = false;
        let mut denial = None;
        let mut fields: BTreeSet<Position> = BTreeSet::new();
        let mut answered = false;
        // A locked node has no index either: it must not say that there is nothing.
        self.keys.unlocked()?;
        // Nor what waits for its schema.
        self.refuse_awaiting_kind(&request.kind)?;
        let search = Search {
            filters: &filters,
            closed: request.closed || positions.contains(&STATUS),
            wanted: &wanted,
        };
        for (shard, holdings) in self.by_shard(&request.kind) {
            let mut sources = Vec::new();
            for holding in &holdings {
                let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
                if let Access::Grant { statement, .. } = &holding.access
                    && statement.not_after < now
                {
                    continue;
                }
                match self.source(session, holding, schema, request, &search) {
                    Ok(source) => sources.push(source),
                    Err(denied) => denial = Some(denied),
                }
            }
            if let Some(denied) = joined::unanswerable(&sources, &positions) {
                denial = denied.or(denial);
                continue;
            }
            answered = true;
            let (found, others) = joined::join(&sources, &search, limit - hits.len())
                .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
            more |= others;
            hits.extend(found.into_iter().map(|hit| (shard.clone(), hit)));
            without_rows.push(joined::withheld(&sources, &wanted));
            let permits = sources.iter().filter_map(|source| source.permit.as_ref());
            fields.extend(permits.flat_map(|permit| permit.shown().keys().copied()));
        }
        if !answered {
            let denied = denial.map_or_else(
                || RegistryError::NotFound {
                    what: "数据 / data of kind",
                    name: request.kind.to_string(),
                    next: "import records, or ask their owner for a grant",
                },
                RegistryError::from,
            );
            if let RegistryError::Denied { rule, .. } = &denied {
                let reading = self.reading(session, request, vec![], 0, Some(rule.clone()));
                self.record_access(session, reading, vec![], now)?;
                self.counters.denied();
            }
            return Err(denied);
        }

        let ids = fields
            .iter()
            .filter_map(|p| schema.at(*p))
            .map(|f| f.id.clone())
            .collect();
        let reading = self.reading(session, request, ids, hits.len() as u64, None);
        let parts = hits
            .iter()
            .flat_map(|(_, hit)| hit.parts.iter().map(move |part| (hit, part)));
        let returned = parts
            .map(|(hit, part)| Returned {
                origin: part.holding.clone(),
                record: hit.record,
                at: part.at,
                version: hit.version,
            })
            .collect();
        // The commit: from here on the reading is known, whatever becomes of the answer.
        let receipt = self.record_access(session, reading, returned, now)?;

        let mut rows = Vec::with_capacity(hits.len());
        for (shard, hit) in &hits {
            let mut fields = BTreeMap::new();
            for part in &hit.parts {
                let holding = self.holding(&part.holding)?;
                let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
                let version = self.open_version(&holding, part.at)?;
                let schema = self.schema_version(&request.kind, version.entry.schema)?;
                fields.extend(shown(schema, &version, &part.fields));
            }
            rows.push(AnswerRow {
                record: hit.record,
                origin: shard.clone(),
                version: hit.version,
                fields,
            });
        }
        // Without rows it is told what none would give.
        let withheld: Vec<&Withheld> = match hits.is_empty() {
            true => without_rows.iter().collect(),
            false => hits.iter().map(|(_, hit)| &hit.withheld).collect(),
        };
        let answer = Answer {
            kind: request.kind.clone(),
            rows,
            masked: masked(schema, &hits),
            denied: joined::denied_fields(schema, withheld.into_iter()),
            more,
        };
        self.counters.answered(answer.rows.len() as u64);
        Ok(watermark::mark(
            &self.keys.mark_key()?,
            &receipt,
            Opened::new(answer),
        ))
    }

    /// The holdings of a kind by the shard that they are of: a record of one shard may come with
    /// several grants.
    fn by_shard(&self, kind: &Kind) -> BTreeMap<Origin, Vec<Arc<RwLock<Holding>>>> {
        let mut shards: BTreeMap<Origin, Vec<_>> = BTreeMap::new();
        for holding in self.holdings_of(kind) {
            let read = holding.read().unwrap_or_else(PoisonError::into_inner);
            let shard = read.origin.shard();
            drop(read);
            shards.entry(shard).or_default().push(holding);
        }
        shards
    }

    /// What policy says of a holding.
    fn source<'a>(
        &self,
        session: &Session,
        holding: RwLockReadGuard<'a, Holding>,
        schema: &Schema,
        request: &ReadRequest,
        search: &Search<'_>,
    ) -> std::result::Result<Source<'a>, Denied> {
        let positions: Vec<Position> = search.filters.iter().map(|(at, _)| *at).collect();
        let held = granted(&holding, search.wanted);
        let decision = self.decision(session, &holding, schema, request)?;
        let permit = match decision.permit(&held, &positions) {
            Ok(permit) => Some(permit),
            // It may still find what another grant shows.
            Err(_) if held.is_empty() && positions.iter().all(|at| decision.may_filter(*at)) => {
                None
            }
            Err(denied) => return Err(denied),
        };
        Ok(Source {
            searched: ungranted_filter(&holding, &positions).is_none(),
            holding,
            decision,
            permit,
        })
    }

    fn decision(
        &self,
        session: &Session,
        holding: &Holding,
        schema: &Schema,
        request: &ReadRequest,
    ) -> std::result::Result<Decision, Denied> {
        let division = holding.origin.division();
        let ancestors = self.authority().ancestors(&division);
        let held_by_grant = match &holding.access {
            Access::Own(_) => None,
            Access::Grant { statement, .. } => Some(&statement.purpose),
        };
        policy::decide(
            self.policies(),
            &Question {
                asker: &self.asker(session),
                action: Action::Read,
                schema,
                division: &division,
                ancestors: &ancestors,
                held_by_grant,
                purpose: &request.purpose,
            },
        )
    }

    pub(crate) fn reading(
        &self,
        session: &Session,
        request: &ReadRequest,
        fields: Vec<String>,
        records: u64,
        denied: Option<String>,
    ) -> Reading {
        Reading {
            operator: session.operator,
            role: session.role.as_str().to_owned(),
            purpose: request.purpose.clone(),
            basis: request.basis.clone(),
            kind: request.kind.clone(),
            filters: request.filters.clone(),
            fields,
            policy: self.policies().hash(),
            records,
            denied,
        }
    }

    /// Commits a reading to the access ledger: one leaf for it and one for each record,
    /// signed by the operator.
    pub(crate) fn record_access(
        &self,
        session: &Session,
        reading: Reading,
        returned: Vec<Returned>,
        now: UnixMillis,
    ) -> Result<Receipt> {
        let origin = self.own("access");
        let key = self.keys.access_key()?;
        let book = self.book(&origin)?;
        let mut book = lock(&book);
        let mut rng = rng()?;
        let purpose = reading.purpose.clone();
        let bodies = std::iter::once(AccessBody::Reading(reading))
            .chain(returned.into_iter().map(AccessBody::Returned));
        let leaves = (book.size()..)
            .zip(bodies)
            .map(|(at, body)| {
                let mut salt = [0u8; 16];
                rand_core::Rng::fill_bytes(&mut rng, &mut salt);
                let mut plain = zeroize::Zeroizing::new(salt.to_vec());
                plain.extend(cbor::to_vec(&body));
                let mut content = Sha256::new();
                content.update(b"fangzhi/access/v1\0");
                content.update(plain.as_slice());
                let sealed =
                    seal::blob::seal_blob(&key, &access_aad(&origin, at), &plain, &mut rng);
                Leaf {
                    entry: Entry::Access(AccessEntry {
                        suite: SUITE,
                        epoch: ACCESS_EPOCH,
                        content: content.finalize().into(),
                        body: Sha256::digest(&sealed).into(),
                        recorded_at: now,
                    }),
                    body: Some(sealed),
                }
            })
            .collect();
        let signer = session.signer(purpose, None);
        let appended = self.append(&mut book, &signer, leaves, now, |_, _, _| {})?;
        drop(book);
        self.changed();
        Ok(Receipt::committed(
            origin,
            appended.first,
            appended.leaves[0],
            now,
        ))
    }

    fn filters(&self, schema: &Schema, request: &ReadRequest) -> Result<Vec<(Position, Match)>> {
        if request.filters.len() > FILTERS_MAX {
            return Err(RegistryError::BadRequest(format!(
                "at most {FILTERS_MAX} conditions; drop some"
            )));
        }
        request
            .filters
            .iter()
            .map(|filter| {
                let field = schema
                    .field(&filter.field)
                    .ok_or_else(|| no_field(schema, &filter.field))?;
                let value = filter.value.trim().to_owned();
                let comparison = match filter.comparison {
                    Comparison::Equals => {
                        // Typed as a clerk would: `x` for `X`, a name for a code.
                        let typed = record::check::canonical(field, self.catalogue(), &value);
                        Match::Equals(typed.ok().flatten().unwrap_or(value))
                    }
                    Comparison::Prefix => Match::Prefix(value),
                    Comparison::Contains => Match::Contains(value),
                };
                Ok((field.position, comparison))
            })
            .collect()
    }
}

fn access_aad(origin: &Origin, at: u64) -> Vec<u8> {
    cbor::to_vec(&("fangzhi/access/v1", origin.as_str(), at))
}

fn no_field(schema: &Schema, id: &str) -> RegistryError {
    let known: Vec<&str> = schema
        .fields
        .iter()
        .map(|field| field.id.as_str())
        .collect();
    // A mistyped field name may be personal data in the wrong place: it is not repeated.
    let _ = id;
    RegistryError::BadRequest(format!(
        "没有这个字段 / a field named in the request is not in kind `{}`; its fields are {}",
        schema.kind,
        known.join(", ")
    ))
}

fn wanted(schema: &Schema, request: &ReadRequest) -> Result<BTreeSet<Position>> {
    match &request.fields {
        None => Ok(schema.fields.iter().map(|field| field.position).collect()),
        Some(ids) => ids
            .iter()
            .map(|id| {
                schema
                    .field(id)
                    .map(|field| field.position)
                    .ok_or_else(|| no_field(schema, id))
            })
            .collect(),
    }
}

fn shown(
    schema: &Schema,
    version: &Version,
    fields: &BTreeMap<Position, Shown>,
) -> BTreeMap<String, String> {
    fields
        .iter()
        .filter_map(|(position, how)| {
            let field = schema.at(*position)?;
            let value = version.values.get(position)?.value()?;
            match how {
                Shown::Shown => Some((field.id.clone(), value.to_owned())),
                Shown::Masked => Some((field.id.clone(), policy::mask(value, field.field_type))),
                Shown::Withheld => None,
            }
        })
        .collect()
}

fn masked(schema: &Schema, hits: &[(Origin, Hit)]) -> Vec<String> {
    let shown = hits.iter().flat_map(|(_, hit)| hit.shown());
    let positions: BTreeSet<Position> = shown
        .filter(|(_, how)| *how == Shown::Masked)
        .map(|(position, _)| position)
        .collect();
    positions
        .into_iter()
        .filter_map(|p| schema.at(p))
        .map(|f| f.id.clone())
        .collect()
}

/// A filter on a field that the grant left out: the index knows nothing of it, and an empty answer
/// would be a lie.
fn ungranted_filter(holding: &Holding, filters: &[Position]) -> Option<Position> {
    match &holding.access {
        Access::Own(_) => None,
        Access::Grant { statement, .. } => filters
            .iter()
            .copied()
            .find(|position| !statement.fields.contains(position)),
    }
}

/// The wanted fields that this node has keys for.
fn granted(holding: &Holding, wanted: &BTreeSet<Position>) -> BTreeSet<Position> {
    match &holding.access {
        Access::Own(_) => wanted.clone(),
        Access::Grant { statement, .. } => {
            let fields = wanted.iter().copied();
            fields.filter(|at| statement.fields.contains(at)).collect()
        }
    }
}
