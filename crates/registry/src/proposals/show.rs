//! Looking at proposals: lists that say nothing of what is proposed, and one proposal, opened.
//!
//! Opening one is a reading like any other: policy decides, the access entry is committed first, and
//! the answer is marked. At the owner the operator sees what may be read of the own records, beside
//! it what the record has at present; at the proposer, what may be proposed. Owns which words go with
//! a field that is withheld: none, for a note may repeat it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use policy::{Action, Permit, Question, Shown as How};
use record::id::{DivisionId, Kind, Origin, Purpose, RecordId, UnixMillis};
use record::proposal::{About, Proposal, Written};
use record::schema::{GRID, Position, STATUS, Schema};
use serde::{Deserialize, Serialize};
use watermark::{Marked, Opened};

use super::desk::{Desk, Item};
use super::send::gone;
use super::{Line, State};
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::read::{DeniedField, ReadRequest, Returned};
use crate::session::Session;
use crate::table::Newest;

/// What for a proposal is opened.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// What for; at the proposer, what it was proposed for when absent.
    #[serde(default)]
    pub purpose: Option<Purpose>,
    /// Legal basis or case number, as the operator states it.
    #[serde(default)]
    pub basis: Option<String>,
}

/// One proposal, opened.
#[derive(Serialize)]
pub struct Opening {
    /// Where it stands.
    pub line: Line,
    /// The kind of the record.
    pub kind: Kind,
    /// `register`, `amend`, `close` or `reopen`.
    pub wanted: &'static str,
    /// The record, when it is named or was found.
    pub record: Option<RecordId>,
    /// The version that the proposer saw.
    pub seen: Option<u64>,
    /// At the owner: the record's newest version, to be given when it is another than was seen.
    pub newest: Option<u64>,
    /// The value by which the record is named: field id to value.
    pub find: BTreeMap<String, String>,
    /// What is proposed: field id to value; an empty one removes the value.
    pub changes: BTreeMap<String, String>,
    /// At the owner: what the record has of these fields.
    pub current: BTreeMap<String, String>,
    /// The reason's code.
    pub reason: Kind,
    /// Legal basis.
    pub basis: String,
    /// In words; withheld with any field.
    pub note: Option<String>,
    /// What it was proposed for.
    pub purpose: Purpose,
    /// Fields that are withheld, and whom to ask.
    pub denied: Vec<DeniedField>,
    /// What the owner said.
    pub answer: Option<AnswerShown>,
}

/// An answer, opened.
#[derive(Serialize)]
pub struct AnswerShown {
    /// Its reason's code.
    pub reason: Kind,
    /// In words.
    pub words: Option<String>,
    /// The rule that denied.
    pub rule: Option<String>,
    /// Where the change lies; only for whom had named the record.
    pub record: Option<RecordId>,
    /// The version written.
    pub version: Option<u64>,
    /// Index of the entry in the owner's shard.
    pub index: Option<u64>,
    /// Fields written otherwise than proposed.
    pub otherwise: Vec<String>,
}

impl Registry {
    /// What was proposed to this node: what waits, or all of it.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn inbox(&self, all: bool) -> Result<Vec<Line>> {
        self.lines(true, all)
    }

    /// What this node proposed to others: what waits, or all of it.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn proposals(&self, all: bool) -> Result<Vec<Line>> {
        self.lines(false, all)
    }

    fn lines(&self, inbox: bool, all: bool) -> Result<Vec<Line>> {
        let store = self.store.as_ref();
        let mut lines = Vec::new();
        for desk in self.desks()?.into_iter().filter(|d| d.is_inbox() == inbox) {
            let mut items = desk.open(store)?;
            if all {
                items.extend(desk.ended(store)?);
            }
            lines.extend(items.iter().map(|(index, item)| desk.line(*index, item)));
        }
        lines.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
        Ok(lines)
    }

    /// Opens a proposal to this node, recorded as a reading.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] (which is itself recorded), [`RegistryError::NotFound`].
    pub fn show_inbox(
        &self,
        session: &Session,
        proposer: &DivisionId,
        index: u64,
        request: &ShowRequest,
        now: UnixMillis,
    ) -> Result<Marked<Opening>> {
        let purpose = request.purpose.clone().ok_or_else(|| {
            RegistryError::BadRequest("请注明用途 / state the purpose of the reading".into())
        })?;
        self.open_item_for(
            session,
            &self.inbox_desk(proposer),
            index,
            (purpose, request),
            now,
        )
    }

    /// Opens a proposal of this node, with its answer, recorded as a reading.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] (which is itself recorded), [`RegistryError::NotFound`].
    pub fn show_proposal(
        &self,
        session: &Session,
        owner: &DivisionId,
        index: u64,
        request: &ShowRequest,
        now: UnixMillis,
    ) -> Result<Marked<Opening>> {
        let desk = self.sent_desk(owner);
        let said = self.proposal_said(&desk, index)?.ok_or_else(gone)?;
        let purpose = request.purpose.clone().unwrap_or(said.purpose.clone());
        self.open_item_for(session, &desk, index, (purpose, request), now)
    }

    fn open_item_for(
        &self,
        session: &Session,
        desk: &Desk,
        index: u64,
        (purpose, request): (Purpose, &ShowRequest),
        now: UnixMillis,
    ) -> Result<Marked<Opening>> {
        if now >= session.expires || !self.in_good_standing(session) {
            return Err(RegistryError::NoSession);
        }
        let item = self.letter_item(desk, index)?;
        let proposal = self.proposal_said(desk, index)?.ok_or_else(gone)?;
        let schema = self.schema_version(&proposal.kind, proposal.schema)?;
        let (owner, action) = if desk.is_inbox() {
            (self.config.division.clone(), Action::Read)
        } else {
            (desk.with(), Action::Propose)
        };
        let asked = ReadRequest {
            kind: proposal.kind.clone(),
            filters: Vec::new(),
            fields: None,
            purpose: purpose.clone(),
            basis: request.basis.clone(),
            closed: true,
            limit: None,
        };
        let target = if desk.is_inbox() {
            self.proposed_record(&proposal)?
        } else {
            None
        };
        let permit = self
            .may_see(session, &owner, &proposal, action, &purpose)
            .and_then(|permit| self.in_own_rows(&proposal, target.as_ref(), permit));
        let permit = match permit {
            Ok(permit) => permit,
            Err(denied) => {
                if let RegistryError::Denied { rule, .. } = &denied {
                    let reading = self.reading(session, &asked, Vec::new(), 0, Some(rule.clone()));
                    self.record_access(session, reading, Vec::new(), now)?;
                    self.counters.denied();
                }
                return Err(denied);
            }
        };
        let ids = permit.shown().keys().filter_map(|at| schema.at(*at));
        let ids = ids.map(|field| field.id.clone()).collect();
        let mut returned = vec![Returned {
            origin: desk.proposals(),
            record: item.record.unwrap_or(RecordId(item.id.0)),
            at: index,
            version: 0,
        }];
        returned.extend(target.as_ref().map(|(record, newest)| Returned {
            origin: self.shard(&proposal.kind),
            record: *record,
            at: newest.at,
            version: newest.version,
        }));
        let reading = self.reading(session, &asked, ids, returned.len() as u64, None);
        // The commit: from here on the reading is known.
        let receipt = self.record_access(session, reading, returned, now)?;
        let opening = self.opening(desk, (index, &item), &proposal, schema, &permit, target)?;
        self.counters.answered(1);
        Ok(watermark::mark(
            &self.keys.mark_key()?,
            &receipt,
            Opened::new(opening),
        ))
    }

    fn opening(
        &self,
        desk: &Desk,
        (index, item): (u64, &Item),
        proposal: &Proposal,
        schema: &Schema,
        permit: &Permit,
        target: Option<(RecordId, Newest)>,
    ) -> Result<Opening> {
        let shown = |position: &Position, value: &str| -> Option<(String, String)> {
            let field = schema.at(*position)?;
            let value = match permit.shown().get(position)? {
                How::Shown => value.to_owned(),
                How::Masked => policy::mask(value, field.field_type),
                How::Withheld => return None,
            };
            Some((field.id.clone(), value))
        };
        let whole =
            permit.denied().is_empty() && permit.shown().values().all(|how| *how == How::Shown);
        let find = match &proposal.about {
            About::Value { position, value } => shown(position, value),
            About::New | About::Record { .. } => None,
        };
        let mut current = BTreeMap::new();
        if let Some((_, newest)) = &target {
            let holding = self.holding(&self.shard(&proposal.kind))?;
            let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
            let version = self.open_version(&holding, newest.at)?;
            for (position, opened) in &version.values {
                current.extend(opened.value().and_then(|value| shown(position, value)));
            }
        }
        let seen = match &proposal.about {
            About::Record { version, .. } => *version,
            About::New | About::Value { .. } => None,
        };
        let answer = match item.state {
            State::Open => None,
            _ => self.answer_said(desk, index)?,
        };
        let denied = permit.denied().iter().filter_map(|(position, refusal)| {
            let field = schema.at(*position)?;
            Some(DeniedField {
                field: field.id.clone(),
                rule: refusal.rule.clone(),
                ask: refusal.ask.clone(),
                rows: None,
            })
        });
        Ok(Opening {
            line: desk.line(index, item),
            kind: proposal.kind.clone(),
            wanted: proposal.wanted.as_str(),
            record: target.as_ref().map(|(record, _)| *record).or(item.record),
            seen,
            newest: target.as_ref().map(|(_, newest)| newest.version),
            find: find.into_iter().collect(),
            changes: { proposal.changes.iter() }
                .filter_map(|(position, value)| shown(position, value))
                .collect(),
            current,
            reason: proposal.reason.clone(),
            basis: proposal.basis.clone(),
            note: proposal.note.clone().filter(|_| whole),
            purpose: proposal.purpose.clone(),
            denied: denied.collect(),
            answer: answer.map(|answer| {
                let Written {
                    record,
                    version,
                    index,
                } = answer.written.clone().unwrap_or(Written {
                    record: RecordId([0; 16]),
                    version: 0,
                    index: 0,
                });
                let told = answer.written.is_some();
                AnswerShown {
                    reason: answer.reason.clone(),
                    words: answer.words.clone().filter(|_| whole),
                    rule: answer.rule.clone(),
                    record: told.then_some(record),
                    version: told.then_some(version),
                    index: told.then_some(index),
                    otherwise: { answer.otherwise.iter() }
                        .filter_map(|at| schema.at(*at).map(|field| field.id.clone()))
                        .collect(),
                }
            }),
        })
    }

    /// Which of a proposal's fields an operator may see: of the own records what may be read, of
    /// another owner's what may be proposed.
    pub(super) fn may_see(
        &self,
        session: &Session,
        owner: &DivisionId,
        proposal: &Proposal,
        action: Action,
        purpose: &Purpose,
    ) -> Result<Permit> {
        let schema = self.schema_version(&proposal.kind, proposal.schema)?;
        let (ancestors, granted) = {
            let authority = self.authority();
            let grant = proposal.grant.and_then(|id| authority.grant(&id).cloned());
            let ended = |grant: &record::authority::GrantStatement| {
                authority.grant_ended(&grant.id).is_some()
            };
            let grant = grant.filter(|grant| action == Action::Propose && !ended(grant));
            (authority.ancestors(owner), grant.map(|grant| grant.purpose))
        };
        let decision = policy::decide(
            self.policies(),
            &Question {
                asker: &self.asker(session),
                action,
                schema,
                division: owner,
                ancestors: &ancestors,
                held_by_grant: granted.as_ref(),
                purpose,
            },
        )?;
        let mut fields = super::fields(proposal);
        if fields.is_empty() {
            fields.insert(STATUS);
        }
        Ok(decision.permit(&fields, &[])?)
    }

    /// The own record that a proposal is about, and its newest version.
    pub(super) fn proposed_record(
        &self,
        proposal: &Proposal,
    ) -> Result<Option<(RecordId, Newest)>> {
        let record = match &proposal.about {
            About::New => return Ok(None),
            About::Record { record, .. } => *record,
            About::Value { position, value } => {
                match self.record_with(&proposal.kind, *position, value) {
                    Ok(record) => record,
                    Err(RegistryError::NotFound { .. }) => return Ok(None),
                    Err(other) => return Err(other),
                }
            }
        };
        let shard: Origin = self.shard(&proposal.kind);
        let newest = self.newest(&shard, &record)?;
        // Of an erased record, or one whose secret is lost, there is nothing to show.
        Ok(newest
            .filter(|newest| newest.page != 0)
            .map(|newest| (record, newest)))
    }

    /// A grid worker sees proposals about rows of the own grid.
    pub(super) fn in_own_rows(
        &self,
        proposal: &Proposal,
        target: Option<&(RecordId, Newest)>,
        permit: Permit,
    ) -> Result<Permit> {
        let own = &self.config.division;
        if permit.division() != own {
            return Ok(permit);
        }
        let proposed = |grid: Option<&str>, status: &str| {
            permit.rows().matches(&policy::RowAttributes {
                grid,
                status,
                division: own.as_str(),
            })
        };
        let fits = match target {
            None => proposed(
                proposal.changes.get(&GRID).map(String::as_str),
                record::check::STATUS_DEFAULT,
            ),
            Some((record, _)) => {
                let holding = self.holding(&self.shard(&proposal.kind))?;
                let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
                let before = u128::from_be_bytes(record.0).checked_sub(1);
                let after = before.map(|id| RecordId(id.to_be_bytes()));
                let rows = |row: &index::Attributes<'_>| proposed(row.grid, row.status);
                let page = holding
                    .index
                    .find(&[], &rows, 1, after)
                    .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
                page.found.first().map(|found| found.record) == Some(*record)
            }
        };
        if fits {
            Ok(permit)
        } else {
            Err(RegistryError::NotFound {
                what: "变更建议 / proposal",
                name: "requested".into(),
                next: "it is about a row of another grid; the clerk answers it",
            })
        }
    }
}
