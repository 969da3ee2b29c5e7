//! Answering: a clerk accepts, accepts with changes, or refuses what somebody proposed.
//!
//! The change is made first, by the ordinary way of writing, under an act of the clerk whose source
//! is the proposal's leaf hash; the answer follows. A crash between the two leaves a change without
//! an answer, which the next start gives: the shard remembers which entry was written at which
//! proposal, in the commit that wrote it. Refuses a second answer, and a change to another version
//! than the proposer or the clerk saw.

use std::collections::BTreeMap;

use policy::Action;
use record::id::{DivisionId, Kind, Purpose, RecordId, UnixMillis};
use record::letter::Step;
use record::proposal::{About, Answer, Proposal, WORDS_BYTES_MAX, Wanted, Written};
use record::schema::{Position, Schema};
use serde::{Deserialize, Serialize};

use super::desk::{Changes, Desk, Item};
use super::inbox::Reply;
use super::send::gone;
use super::{Line, State};
use crate::book::Signer;
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, word};
use crate::register::{Amendment, Registered};
use crate::session::Session;

/// How a clerk accepts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// What is written otherwise than proposed: field id to text.
    #[serde(default)]
    pub changes: BTreeMap<String, String>,
    /// The version of the record that the clerk saw; else the one that the proposer saw.
    #[serde(default)]
    pub version: Option<u64>,
    /// What for.
    pub purpose: Purpose,
    /// To the proposer, in words.
    #[serde(default)]
    pub words: Option<String>,
}

/// How a clerk refuses.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// A code, such as `wrong-person`.
    pub reason: Kind,
    /// To the proposer, in words.
    #[serde(default)]
    pub words: Option<String>,
    /// What for.
    pub purpose: Purpose,
}

/// A proposal that was answered, and what was written.
#[derive(Debug, Clone, Serialize)]
pub struct AnsweredLine {
    /// The proposal.
    #[serde(flatten)]
    pub line: Line,
    /// The record's version that was written.
    pub written: Option<Registered>,
}

fn too_long(words: Option<&String>) -> Result<()> {
    if words.map_or(0, String::len) > WORDS_BYTES_MAX {
        return Err(RegistryError::BadRequest(format!(
            "答复过长 / the words have more than {WORDS_BYTES_MAX} bytes; shorten them"
        )));
    }
    Ok(())
}

impl Registry {
    /// Makes the change that was proposed, as proposed or with other values, and answers.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::BadRequest`] when it ended already,
    /// [`RegistryError::Stale`] when the record has another version than was seen, and all of
    /// [`Registry::amend`]. Nothing is answered then.
    pub fn accept_proposal(
        &self,
        session: &Session,
        proposer: &DivisionId,
        index: u64,
        acceptance: &Acceptance,
        now: UnixMillis,
    ) -> Result<AnsweredLine> {
        too_long(acceptance.words.as_ref())?;
        let desk = self.inbox_desk(proposer);
        let _one = lock(&self.answering);
        let (item, proposal) = self.open_item(&desk, index, now)?;
        let schema = self.schema_version(&proposal.kind, proposal.schema)?;
        let otherwise = self.canonical_of(schema, &acceptance.changes)?;
        let written =
            match self.written_at_proposal(&self.shard(&proposal.kind), Some(&item.leaf))? {
                Some(written) => written,
                None => self.carry_out(session, &item, &proposal, schema, acceptance, now)?,
            };
        let changed: Vec<Position> = { otherwise.into_iter() }
            .filter(|(at, value)| proposal.changes.get(at) != Some(value))
            .map(|(at, _)| at)
            .collect();
        let mut reply =
            self.reply_of(&item, Some(&proposal), &written, acceptance.words.clone())?;
        if !changed.is_empty() {
            reply.step = Step::Amend;
            reply.answer.otherwise = changed;
        }
        let signer = session.signer(acceptance.purpose.clone(), None);
        let line = self.give(
            &desk,
            (index, item),
            &signer,
            reply,
            Some(written.record),
            now,
        )?;
        self.changed();
        Ok(AnsweredLine {
            line,
            written: Some(written),
        })
    }

    /// Refuses what was proposed, with a reason.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::BadRequest`] when it ended already,
    /// [`RegistryError::Denied`] for whoever may not make the change either.
    pub fn refuse_proposal(
        &self,
        session: &Session,
        proposer: &DivisionId,
        index: u64,
        refusal: &Refusal,
        now: UnixMillis,
    ) -> Result<AnsweredLine> {
        too_long(refusal.words.as_ref())?;
        let desk = self.inbox_desk(proposer);
        let _one = lock(&self.answering);
        let (item, proposal) = self.open_item(&desk, index, now)?;
        let schema = self.schema_version(&proposal.kind, proposal.schema)?;
        self.may_write(session, schema, &super::fields(&proposal), &refusal.purpose)?;
        let own = &self.config.division;
        let permit = self.may_see(session, own, &proposal, Action::Amend, &refusal.purpose)?;
        self.in_own_rows(&proposal, self.proposed_record(&proposal)?.as_ref(), permit)?;
        if self
            .written_at_proposal(&self.shard(&proposal.kind), Some(&item.leaf))?
            .is_some()
        {
            return Err(RegistryError::BadRequest(
                "变更已作出，不能再拒绝 / the change was made already; accept it, which sends the answer".into(),
            ));
        }
        let reply = Reply {
            item: (item.id, item.leaf),
            step: Step::Refuse,
            answer: Answer {
                reason: refusal.reason.clone(),
                words: refusal.words.clone(),
                rule: None,
                written: None,
                otherwise: Vec::new(),
            },
            entry: None,
        };
        let signer = session.signer(refusal.purpose.clone(), None);
        let line = self.give(&desk, (index, item), &signer, reply, None, now)?;
        self.changed();
        Ok(AnsweredLine {
            line,
            written: None,
        })
    }

    /// An item that waits, and what it says.
    fn open_item(&self, desk: &Desk, index: u64, now: UnixMillis) -> Result<(Item, Proposal)> {
        let item = self.letter_item(desk, index)?;
        if item.state != State::Open {
            return Err(RegistryError::BadRequest(
                "该建议已办结 / the proposal ended already: it was answered, withdrawn, or expired"
                    .into(),
            ));
        }
        if item.until < now {
            return Err(RegistryError::BadRequest(
                "该建议已逾期 / the proposal is past its time; the proposer may send it again"
                    .into(),
            ));
        }
        let proposal = self.proposal_said(desk, index)?.ok_or_else(gone)?;
        Ok((item, proposal))
    }

    /// Writes what was proposed, once.
    pub(super) fn carry_out(
        &self,
        session: &Session,
        item: &Item,
        proposal: &Proposal,
        schema: &Schema,
        acceptance: &Acceptance,
        now: UnixMillis,
    ) -> Result<Registered> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        let id = |position: &Position| schema.at(*position).map(|field| field.id.clone());
        for (position, value) in &proposal.changes {
            texts.extend(id(position).map(|id| (id, value.clone())));
        }
        texts.extend(acceptance.changes.clone());
        let (record, seen) = match &proposal.about {
            About::New => {
                let place = (&proposal.kind, texts);
                return self.register_from(session, place, &acceptance.purpose, item.leaf, now);
            }
            About::Record { record, version } => (*record, acceptance.version.or(*version)),
            About::Value { position, value } => {
                let record = self.record_with(&proposal.kind, *position, value)?;
                (record, acceptance.version)
            }
        };
        let shard = self.shard(&proposal.kind);
        let version = match seen {
            Some(version) => version,
            None => self
                .newest(&shard, &record)?
                .map_or(0, |newest| newest.version),
        };
        let amendment = Amendment {
            kind: proposal.kind.clone(),
            record,
            version,
            changes: texts,
            close: proposal.wanted == Wanted::Close,
            reopen: proposal.wanted == Wanted::Reopen,
            purpose: acceptance.purpose.clone(),
        };
        self.amend_from(session, &amendment, Some(item.leaf), now)
    }

    /// The own record with a value that no two share.
    pub(super) fn record_with(
        &self,
        kind: &Kind,
        position: Position,
        value: &str,
    ) -> Result<RecordId> {
        let holding = self.holding(&self.shard(kind))?;
        let holding = holding
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        holding
            .index
            .exists(position, value)
            .ok_or_else(|| RegistryError::NotFound {
                what: "记录 / record",
                name: "proposed".into(),
                next: "no record in force here has the value by which it is named; refuse the proposal with a reason",
            })
    }

    /// The answer to a proposal that was carried out. Only who had named the record is told where
    /// the change lies.
    pub(super) fn reply_of(
        &self,
        item: &Item,
        proposal: Option<&Proposal>,
        written: &Registered,
        words: Option<String>,
    ) -> Result<Reply> {
        let leaf = self.record_entry(&written.origin, written.index)?;
        let (bytes, _) = leaf.ok_or_else(|| {
            RegistryError::damaged(format!(
                "`{}` lacks entry {}",
                written.origin, written.index
            ))
        })?;
        let named = proposal.is_some_and(|p| matches!(p.about, About::Record { .. }));
        Ok(Reply {
            item: (item.id, item.leaf),
            step: Step::Accept,
            answer: Answer {
                reason: word("done"),
                words,
                rule: None,
                written: named.then_some(Written {
                    record: written.record,
                    version: written.version,
                    index: written.index,
                }),
                otherwise: Vec::new(),
            },
            entry: Some(ledger::hash::leaf_hash(&bytes)),
        })
    }

    /// Seals and signs an answer: with it the item ends, in one commit.
    pub(super) fn give(
        &self,
        desk: &Desk,
        (index, item): (u64, Item),
        signer: &Signer<'_>,
        reply: Reply,
        record: Option<RecordId>,
        now: UnixMillis,
    ) -> Result<Line> {
        let proposer = desk.with();
        let charter = self.authority().charter(&proposer).cloned();
        let charter = charter.ok_or(RegistryError::NoCharter(proposer))?;
        let book = self.book(&desk.own)?;
        let mut book = lock(&book);
        let (leaf, said) = self.sealed_reply(desk, &charter, book.size(), &reply, now)?;
        let item = Item {
            state: State::after(reply.step).unwrap_or(State::Refused),
            ended_at: Some(now),
            answer: Some(ledger::hash::leaf_hash(&leaf.entry.encode())),
            record: item.record.or(record),
            ..item
        };
        let changes = Changes {
            items: [(index, item.clone())].into(),
            answered: [(index, self.keep_said(desk, true, index, &said)?)].into(),
            ..Changes::default()
        };
        self.write_letters(&mut book, desk, signer, vec![leaf], changes, now)?;
        Ok(desk.line(index, &item))
    }
}
