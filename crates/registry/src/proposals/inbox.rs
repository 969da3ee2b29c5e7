//! The inbox (收件): taking in what others propose to this node.
//!
//! Owns who may propose: the signature under a letter, and this node's own policies, whatever the
//! proposer's decided. What may not be, came twice, came too late or cannot be opened is answered by
//! the node itself, with the rule that says so; what is left waits for a clerk. Refuses to open
//! anything while the node is locked: letters wait in their ledger.

use std::collections::BTreeMap;

use policy::Asker;
use record::act::Capacity;
use record::authority::{Charter, GrantStatement};
use record::entry::{Entry, Operation, SUITE};
use record::id::{Hash, LetterId, Origin, RecordId, UnixMillis};
use record::letter::{LetterEntry, Step};
use record::proposal::{About, Answer, Proposal};
use seal::letter::{LetterInfo, salted, unsalted};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::desk::{Changes, Desk, Item, Signed};
use super::send::end;
use super::{DAY, DAYS_MAX, OPEN_MAX, Proposing, State};
use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose, word};
use crate::table;

/// Until when a proposal that comes now may wait.
fn longest(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0 + u64::from(DAYS_MAX) * DAY)
}

/// What a node makes of a letter.
enum Weighed {
    /// It waits for a clerk: what it says, and the record that it is about.
    Waits(Zeroizing<Vec<u8>>, Option<RecordId>),
    /// It is answered at once.
    No(Step, &'static str, Option<String>),
    /// Who signed it is not known yet, or not what this node owns.
    Unknown,
}

impl Weighed {
    fn no(reason: &'static str) -> Self {
        Self::No(Step::Refuse, reason, None)
    }
}

/// An answer to be sealed and signed.
pub(crate) struct Reply {
    pub item: (LetterId, Hash),
    pub step: Step,
    pub answer: Answer,
    /// Leaf hash of the entry that made the change.
    pub entry: Option<Hash>,
}

impl Reply {
    /// One that the node gives of its own accord.
    fn of_node(
        item: (LetterId, Hash),
        step: Step,
        reason: &'static str,
        rule: Option<String>,
    ) -> Self {
        Self {
            item,
            step,
            answer: Answer {
                reason: word(reason),
                words: None,
                rule,
                written: None,
                otherwise: Vec::new(),
            },
            entry: None,
        }
    }
}

/// Where the answers of this node to proposals lie, by the proposal's leaf hash.
type Answered = BTreeMap<Hash, (State, Hash, UnixMillis)>;

impl Registry {
    /// Takes in the letters of a proposer that came since the last time.
    pub(crate) fn take_proposals(&self, proposals: &Origin, now: UnixMillis) -> Result<()> {
        let desk = self.inbox_desk(&proposals.division());
        let _one = lock(&self.answering);
        let mut moved = false;
        while self.take_some(&desk, proposals, now)? {
            moved = true;
        }
        if moved {
            self.changed();
        }
        Ok(())
    }

    /// Some of them; `false` when there are no more, or the next must wait.
    fn take_some(&self, desk: &Desk, proposals: &Origin, now: UnixMillis) -> Result<bool> {
        let store = self.store.as_ref();
        let writer = proposals.division();
        if self.guard.is_halted(&desk.own) || self.guard.is_halted(&self.own("authority")) {
            // What was answered before comes back from the parent first.
            return Ok(false);
        }
        let charter = self.authority().charter(&writer).cloned();
        let charter = charter.ok_or_else(|| RegistryError::NoCharter(writer.clone()))?;
        let book = self.book(&desk.own)?;
        let mut book = lock(&book);
        let known = desk.cursor(store)?;
        let from = known.unwrap_or(0);
        let (signed, next) = self.letters(proposals, from)?;
        if next == from {
            return Ok(false);
        }
        // Rows that were lost with a directory are made again from both ledgers.
        let answered = match known {
            None => self.answered(&desk.own)?,
            Some(_) => Answered::new(),
        };
        let mut open = desk.open(store)?.len() as u64;
        let mut changes = Changes {
            cursor: Some(next),
            ..Changes::default()
        };
        let mut names: BTreeMap<LetterId, u64> = BTreeMap::new();
        let mut replies = Vec::new();
        let mut ends = Vec::new();
        for signed in &signed {
            let letter = &signed.letter;
            let named = match names.get(&letter.id) {
                Some(index) => Some(*index),
                None => desk.by_id(store, &letter.id)?,
            };
            match (letter.step, named) {
                (Step::Propose, named) => {
                    if desk.item(store, signed.at)?.is_some() {
                        continue;
                    }
                    let mut item = Item {
                        id: letter.id,
                        leaf: signed.leaf,
                        at: letter.recorded_at,
                        // Whatever a proposer says, nothing waits here longer than may be.
                        until: letter.until.unwrap_or(now).min(longest(now)),
                        state: State::Open,
                        ended_at: None,
                        answer: None,
                        record: None,
                    };
                    if named.is_none() {
                        names.insert(letter.id, signed.at);
                    }
                    if let Some((state, leaf, at)) = answered.get(&signed.leaf) {
                        item.state = *state;
                        item.answer = Some(*leaf);
                        item.ended_at = Some(*at);
                        changes.items.insert(signed.at, item);
                        continue;
                    }
                    let Some(body) = store.get(&table::body(proposals, signed.at))? else {
                        // It was taken back before it was read.
                        item.state = State::Withdrawn;
                        item.ended_at = Some(now);
                        changes.items.insert(signed.at, item);
                        continue;
                    };
                    if named.is_some_and(|first| self.is_leaf(desk, &changes, first, &item.leaf)) {
                        // The very same letter once more: an answer would be one to its first.
                        item.state = State::Refused;
                        item.ended_at = Some(now);
                        changes.items.insert(signed.at, item);
                        continue;
                    }
                    let weighed = if named.is_some() {
                        Weighed::no("replayed")
                    } else if open >= OPEN_MAX {
                        Weighed::no("too-many")
                    } else {
                        self.weigh(proposals, signed, &charter, &body, now)?
                    };
                    match weighed {
                        Weighed::Unknown => {
                            // What follows waits, too: letters are taken in their order.
                            changes.cursor = (signed.act.first > from).then_some(signed.act.first);
                            names.remove(&letter.id);
                            break;
                        }
                        Weighed::Waits(salted, record) => {
                            open += 1;
                            item.record = record;
                            let said = self.keep_said(desk, false, signed.at, &salted)?;
                            changes.said.insert(signed.at, said);
                        }
                        Weighed::No(step, reason, rule) => {
                            let of = (letter.id, signed.leaf);
                            replies.push((signed.at, Reply::of_node(of, step, reason, rule)));
                        }
                    }
                    changes.items.insert(signed.at, item);
                }
                (Step::Close, Some(index)) => {
                    let item = match changes.items.get(&index) {
                        Some(item) => Some(item.clone()),
                        None => desk.item(store, index)?,
                    };
                    let Some(item) = item else { continue };
                    if item.state == State::Open {
                        // Also one that would be refused by the node: it is gone all the same.
                        replies.retain(|(at, _)| *at != index);
                        changes.said.remove(&index);
                        changes.forgotten.push(index);
                        open = open.saturating_sub(1);
                        let item = Item {
                            state: State::Withdrawn,
                            ended_at: Some(letter.recorded_at),
                            ..item
                        };
                        changes.items.insert(index, item);
                    } else if letter.answers.is_some() && letter.answers == item.answer {
                        // The answer arrived: what it says need not lie anywhere on the way.
                        ends.push(letter.id);
                    }
                }
                _ => {}
            }
        }
        if changes.cursor.is_none() && changes.is_empty() {
            return Ok(false);
        }
        let mut leaves = Vec::new();
        for (index, reply) in replies {
            let at = book.size() + leaves.len() as u64;
            let (leaf, said) = self.sealed_reply(desk, &charter, at, &reply, now)?;
            changes
                .answered
                .insert(index, self.keep_said(desk, true, index, &said)?);
            if let Some(item) = changes.items.get_mut(&index) {
                item.state = State::after(reply.step).unwrap_or(State::Refused);
                item.ended_at = Some(now);
                item.answer = Some(ledger::hash::leaf_hash(&leaf.entry.encode()));
            }
            leaves.push(leaf);
        }
        ends.sort_unstable();
        ends.dedup();
        leaves.extend(ends.into_iter().map(|id| end(id, None, now)));
        changes.names = names;
        let more = changes.cursor == Some(next);
        let signer = self.service(purpose("registration"));
        self.write_letters(&mut book, desk, &signer, leaves, changes, now)?;
        Ok(more)
    }

    /// Whether the proposal at an index is this very letter.
    fn is_leaf(&self, desk: &Desk, changes: &Changes, index: u64, leaf: &Hash) -> bool {
        let known = changes.items.get(&index).cloned();
        let known = known.or_else(|| desk.item(self.store.as_ref(), index).ok().flatten());
        known.is_some_and(|item| item.leaf == *leaf)
    }

    /// What this node makes of a letter.
    fn weigh(
        &self,
        proposals: &Origin,
        signed: &Signed,
        writer: &Charter,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<Weighed> {
        if signed.act.capacity != Capacity::Operator {
            // Asking is somebody's doing.
            return Ok(Weighed::no("no-operator"));
        }
        let signer = {
            let authority = self.authority();
            let term = authority.term(&writer.division, &signed.act.key);
            let of = term.filter(|term| term.covers(signed.act.authority_size));
            of.and_then(|term| {
                let all = authority.certificates(&writer.division, &term.operator);
                let mut own = all.iter().filter(|c| c.key == signed.act.key);
                own.next_back().map(|c| (term.operator, c.role))
            })
        };
        let Some((operator, role)) = signer else {
            return Ok(Weighed::Unknown);
        };
        if signed.letter.until.is_some_and(|until| until < now) {
            return Ok(Weighed::No(Step::Expire, "expired", None));
        }
        let Some(salted) = self.open_letter(proposals, signed, body)? else {
            return Ok(Weighed::no("unreadable"));
        };
        let Ok(proposal) = Proposal::decode(unsalted(&salted)) else {
            return Ok(Weighed::no("malformed"));
        };
        let Some(schema) = self.catalogue().version(&proposal.kind, proposal.schema) else {
            return Ok(Weighed::no("unknown-kind"));
        };
        if super::fields(&proposal)
            .iter()
            .any(|at| schema.at(*at).is_none())
        {
            return Ok(Weighed::no("unknown-field"));
        }
        let own = &self.config.division;
        let shard = self.shard(&proposal.kind);
        if self.guard.is_halted(&shard) {
            return Ok(Weighed::Unknown);
        }
        let record = match &proposal.about {
            About::Record { record, .. } => match self.newest(&shard, record)? {
                Some(newest)
                    if self.newest_entry(&shard, &newest)?.operation != Operation::Erase =>
                {
                    Some(*record)
                }
                _ => return Ok(Weighed::no("not-here")),
            },
            About::New | About::Value { .. } => None,
        };
        let asker = Asker {
            operator,
            role,
            organization: writer.division.clone(),
            level: writer.level,
            grid: None,
        };
        let proposing = Proposing {
            asker: &asker,
            owner: own,
            schema,
            proposal: &proposal,
        };
        let in_scope = |grant: &GrantStatement, record: &RecordId| {
            self.in_scope(&grant.origin.grant(&grant.id), record)
        };
        match self.may_propose(&proposing, &in_scope, now) {
            Ok(_) => Ok(Weighed::Waits(salted, record)),
            Err(RegistryError::Denied { rule, .. }) => {
                self.counters.denied();
                Ok(Weighed::No(Step::Refuse, "denied", Some(rule)))
            }
            Err(other) => Err(other),
        }
    }

    /// Seals an answer to the proposer, for an index of the own ledger: its leaf and what it says.
    pub(crate) fn sealed_reply(
        &self,
        desk: &Desk,
        reader: &Charter,
        at: u64,
        reply: &Reply,
        now: UnixMillis,
    ) -> Result<(Leaf, Zeroizing<Vec<u8>>)> {
        let mut rng = rng()?;
        let (id, proposal) = reply.item;
        let salted = salted(&reply.answer.encode(), &mut rng);
        let info = LetterInfo {
            origin: desk.own.clone(),
            index: at,
            id,
            step: reply.step,
            reader: reader.id(),
        };
        let body = seal::letter::seal_letter(&info, &reader.keys.seal, &salted, &mut rng)
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        let letter = LetterEntry {
            suite: SUITE,
            step: reply.step,
            id,
            answers: Some(proposal),
            entry: reply.entry,
            content: Some(seal::letter::content(&salted)),
            body: Some(Sha256::digest(&body).into()),
            until: None,
            recorded_at: now,
        };
        let leaf = Leaf {
            entry: Entry::Letter(letter),
            body: Some(body),
        };
        Ok((leaf, salted))
    }

    /// What this node answered already, from its ledger alone.
    fn answered(&self, answers: &Origin) -> Result<Answered> {
        let mut answered = Answered::new();
        let mut from = 0;
        loop {
            let (signed, next) = self.letters(answers, from)?;
            for signed in signed {
                if let (Some(state), Some(proposal)) =
                    (State::after(signed.letter.step), signed.letter.answers)
                {
                    let at = signed.letter.recorded_at;
                    answered.entry(proposal).or_insert((state, signed.leaf, at));
                }
            }
            if next == from {
                return Ok(answered);
            }
            from = next;
        }
    }

    /// Answers what ran out of time; finishes answers that were cut off after the change was made;
    /// destroys what was said in proposals that were answered long ago.
    pub(crate) fn tend_inbox(&self, own: &Origin, sweep: bool, now: UnixMillis) -> Result<()> {
        let desk = Desk { own: own.clone() };
        let _one = lock(&self.answering);
        let store = self.store.as_ref();
        for (index, item) in desk.open(store)? {
            if let Some(written) = self.written_somewhere(&item.leaf)? {
                let proposal = self.proposal_said(&desk, index)?;
                let signer = self.service(purpose("registration"));
                let reply = self.reply_of(&item, proposal.as_ref(), &written, None)?;
                self.give(
                    &desk,
                    (index, item),
                    &signer,
                    reply,
                    Some(written.record),
                    now,
                )?;
            } else if item.until < now || !desk.keeps(store, index)? {
                let signer = self.service(purpose("registration"));
                let of = (item.id, item.leaf);
                let reply = if item.until < now {
                    Reply::of_node(of, Step::Expire, "expired", None)
                } else {
                    // The record was erased meanwhile, and what was said of it.
                    Reply::of_node(of, Step::Refuse, "erased", None)
                };
                self.give(&desk, (index, item), &signer, reply, None, now)?;
            }
        }
        if !sweep {
            return Ok(());
        }
        let changes = Changes {
            forgotten: self.long_ended(&desk, now)?,
            ..Changes::default()
        };
        let book = self.book(&desk.own)?;
        let signer = self.service(purpose("registration"));
        self.write_letters(&mut lock(&book), &desk, &signer, Vec::new(), changes, now)
    }

    /// Destroys what was said of a record that is erased, in every proposal about it.
    pub(crate) fn forget_letters_about(&self, record: &RecordId) -> Result<()> {
        let store = self.store.as_ref();
        for desk in self.desks()? {
            let about = |items: Vec<(u64, Item)>| {
                let of = items.into_iter().filter(|(_, i)| i.record == Some(*record));
                of.map(|(index, _)| index).collect::<Vec<_>>()
            };
            let mut forgotten = about(desk.open(store)?);
            forgotten.extend(about(desk.ended(store)?));
            if forgotten.is_empty() {
                continue;
            }
            let changes = Changes {
                forgotten,
                ..Changes::default()
            };
            let book = self.book(&desk.own)?;
            lock(&book).extend(store, |batch| desk.write(batch, &changes))?;
        }
        Ok(())
    }

    /// The kind of a proposal is sealed: the change that it led to is looked for in every own shard.
    pub(crate) fn written_somewhere(
        &self,
        leaf: &Hash,
    ) -> Result<Option<crate::register::Registered>> {
        for schema in self.catalogue().kinds() {
            let shard = self.shard(&schema.kind);
            let written = self.written_at_proposal(&shard, Some(leaf))?;
            if written.is_some() {
                return Ok(written);
            }
        }
        Ok(None)
    }
}
