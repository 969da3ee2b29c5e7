//! Proposing: what a proposer's operator asks of an owner, and taking in what the owner answers.
//!
//! Owns the own ledger of proposals. Refuses what its own policies do not allow, a record that is
//! another owner's, and more proposals than may wait: the owner's node would not keep them.

use std::collections::{BTreeMap, BTreeSet};

use record::entry::{Entry, SUITE};
use record::id::{DivisionId, Kind, LetterId, Origin, Purpose, RecordId, UnixMillis};
use record::letter::{LetterEntry, Step};
use record::proposal::{About, Answer, FIELDS_MAX, Proposal, WORDS_BYTES_MAX, Wanted};
use record::schema::{CHANGED, Position, STATUS, Schema};
use seal::letter::{LetterInfo, salted};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::desk::{Changes, Desk, Item};
use super::{DAY, DAY_MAX, DAYS_MAX, GRACE_MILLIS, KEPT_MILLIS, Line, OPEN_MAX, Proposing, State};
use crate::book::{Book, Leaf, Signer};
use crate::chain;
use crate::error::{RegistryError, Result};
use crate::holding::Access;
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::Session;

/// What an operator asks the owner of a record to do.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeRequest {
    /// The owner.
    pub to: DivisionId,
    /// The kind of the record.
    pub kind: Kind,
    /// The record; absent of one that is not registered, or known by a value only.
    #[serde(default)]
    pub record: Option<RecordId>,
    /// Field id and value by which the owner finds the record: one field that no two records share.
    #[serde(default)]
    pub find: BTreeMap<String, String>,
    /// Field id to text; an empty text removes the value.
    #[serde(default)]
    pub changes: BTreeMap<String, String>,
    /// Take the record out of force.
    #[serde(default)]
    pub close: bool,
    /// Put it into force again.
    #[serde(default)]
    pub reopen: bool,
    /// A code, such as `death`.
    pub reason: Kind,
    /// Legal basis.
    pub basis: String,
    /// In words, for the owner's clerk.
    #[serde(default)]
    pub note: Option<String>,
    /// What for.
    pub purpose: Purpose,
    /// For how many days it may wait.
    pub days: u32,
}

fn bad(words: &str) -> RegistryError {
    RegistryError::BadRequest(words.to_owned())
}

impl Registry {
    /// Proposes a change to the owner of a record.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NoCharter`] when the owner is not known
    /// here, [`RegistryError::Invalid`] for values that are none, [`RegistryError::BadRequest`].
    pub fn propose(
        &self,
        session: &Session,
        request: &ProposeRequest,
        now: UnixMillis,
    ) -> Result<Line> {
        if now >= session.expires || !self.in_good_standing(session) {
            return Err(RegistryError::NoSession);
        }
        if request.to == self.config.division {
            return Err(bad(
                "本节点的记录请直接变更 / this node owns the record; amend it instead",
            ));
        }
        if request.days == 0 || request.days > DAYS_MAX {
            return Err(bad(&format!(
                "期限为 1 至 {DAYS_MAX} 天 / a proposal waits 1 to {DAYS_MAX} days"
            )));
        }
        let owner = self
            .authority()
            .charter(&request.to)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(request.to.clone()))?;
        let schema = self.schema(&request.kind)?;
        let mut proposal = self.proposal(schema, request)?;
        let asker = self.asker(session);
        let proposing = Proposing {
            asker: &asker,
            owner: &request.to,
            schema,
            proposal: &proposal,
        };
        let in_scope = |grant: &record::authority::GrantStatement, record: &RecordId| {
            self.holds_in(&grant.origin.grant(&grant.id), record)
        };
        proposal.grant = self.may_propose(&proposing, &in_scope, now)?;

        let mut rng = rng()?;
        let mut id = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng, &mut id);
        let id = LetterId(id);
        let desk = self.sent_desk(&request.to);
        let book = self.book(&desk.own)?;
        let mut book = lock(&book);
        self.has_room(&desk, now)?;
        let index = book.size();
        let until = UnixMillis(now.0 + u64::from(request.days) * DAY);
        let salted = salted(&proposal.encode(), &mut rng);
        let info = LetterInfo {
            origin: desk.own.clone(),
            index,
            id,
            step: Step::Propose,
            reader: owner.id(),
        };
        let body = seal::letter::seal_letter(&info, &owner.keys.seal, &salted, &mut rng)
            .map_err(|e| bad(&e.to_string()))?;
        let letter = LetterEntry {
            suite: SUITE,
            step: Step::Propose,
            id,
            answers: None,
            entry: None,
            content: Some(seal::letter::content(&salted)),
            body: Some(Sha256::digest(&body).into()),
            until: Some(until),
            recorded_at: now,
        };
        let mut item = Item {
            id,
            leaf: [0; 32],
            at: now,
            until,
            state: State::Open,
            ended_at: None,
            answer: None,
            record: match &proposal.about {
                About::Record { record, .. } => Some(*record),
                About::New | About::Value { .. } => None,
            },
        };
        let said = self.keep_said(&desk, false, index, &salted)?;
        let leaf = Leaf {
            entry: Entry::Letter(letter),
            body: Some(body),
        };
        let signer = session.signer(request.purpose.clone(), None);
        self.append(&mut book, &signer, vec![leaf], now, |batch, _, hashes| {
            item.leaf = hashes[0];
            let changes = Changes {
                items: [(index, item.clone())].into(),
                said: [(index, said)].into(),
                names: [(id, index)].into(),
                ..Changes::default()
            };
            desk.write(batch, &changes);
        })?;
        drop(book);
        self.changed();
        let item = self.letter_item(&desk, index)?;
        Ok(desk.line(index, &item))
    }

    /// What is asked for, in canonical values, about a record that is the owner's.
    fn proposal(&self, schema: &Schema, request: &ProposeRequest) -> Result<Proposal> {
        let wanted = match (request.close, request.reopen) {
            (true, true) => return Err(bad("either close or reopen, not both")),
            (true, false) => Wanted::Close,
            (false, true) => Wanted::Reopen,
            (false, false) if request.record.is_none() && request.find.is_empty() => {
                Wanted::Register
            }
            (false, false) => Wanted::Amend,
        };
        let about = match (request.record, request.find.iter().next()) {
            (Some(record), None) => About::Record {
                record,
                version: self.version_seen(schema, &request.to, &record)?,
            },
            (None, Some((id, text))) if request.find.len() == 1 => {
                let field = schema.field(id).filter(|field| field.unique);
                let field = field.ok_or_else(|| {
                    bad("此字段不能唯一确定记录 / the field does not identify a record: use one that is unique, such as `citizen_number`")
                })?;
                let value = self.canonical_of(schema, &[(id.clone(), text.clone())].into())?;
                let value = value.into_values().next().unwrap_or_default();
                About::Value {
                    position: field.position,
                    value,
                }
            }
            (None, None) => About::New,
            _ => {
                return Err(bad(
                    "记录号与识别字段只用其一 / name the record, or one field that identifies it, not both",
                ));
            }
        };
        if request.changes.len() > FIELDS_MAX {
            return Err(bad(&format!(
                "最多 {FIELDS_MAX} 个字段 / at most {FIELDS_MAX} fields in one proposal"
            )));
        }
        let changes = self.canonical_of(schema, &request.changes)?;
        if changes.contains_key(&STATUS) || changes.contains_key(&CHANGED) {
            return Err(bad(
                "状态用注销或恢复提出 / propose the status with close or reopen",
            ));
        }
        if request.basis.trim().is_empty() {
            return Err(bad("请注明依据 / state the legal basis"));
        }
        let proposal = Proposal {
            kind: schema.kind.clone(),
            schema: schema.version,
            wanted,
            about,
            changes,
            reason: request.reason.clone(),
            basis: request.basis.trim().to_owned(),
            note: request.note.clone().filter(|note| !note.trim().is_empty()),
            purpose: request.purpose.clone(),
            grant: None,
        };
        if !proposal.is_within_bounds() {
            return Err(bad(&format!(
                "建议为空或过长 / the proposal changes nothing, names no record to close or reopen, or is too long: basis and note have at most {WORDS_BYTES_MAX} bytes each"
            )));
        }
        Ok(proposal)
    }

    /// Texts as values of a schema; an empty one stays empty.
    pub(crate) fn canonical_of(
        &self,
        schema: &Schema,
        texts: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<Position, String>> {
        let mut values = BTreeMap::new();
        let mut violations = Vec::new();
        for (id, text) in texts {
            let Some(field) = schema.field(id) else {
                return Err(bad(&format!(
                    "没有这个字段 / kind `{}` lacks a field that is named; see `fangzhi schema show {0}`",
                    schema.kind
                )));
            };
            match record::check::canonical(field, self.catalogue(), text) {
                Ok(value) => {
                    values.insert(field.position, value.unwrap_or_default());
                }
                Err(reason) => violations.push(record::draft::Violation {
                    field: id.clone(),
                    reason,
                }),
            }
        }
        if violations.is_empty() {
            Ok(values)
        } else {
            Err(RegistryError::Invalid(violations))
        }
    }

    /// The version of an owner's record that is known here: of what is held of it by a grant, or of
    /// its ledger, which lies here for whoever is above the owner.
    fn version_seen(
        &self,
        schema: &Schema,
        owner: &DivisionId,
        record: &RecordId,
    ) -> Result<Option<u64>> {
        for holding in self.holdings_of(&schema.kind) {
            let holding = holding
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let (division, found) = (holding.origin.division(), holding.index.get(*record));
            let Some(found) = found else { continue };
            if division == *owner {
                return Ok(Some(found.version));
            }
            return Err(RegistryError::BadRequest(format!(
                "记录属于 `{division}` / the record is of `{division}`; propose to that division"
            )));
        }
        let shard = Origin::new(&self.config.realm, owner, &schema.kind);
        let store = self.store.as_ref();
        let newest = chain::entries_of(store, &shard, record, 0)?.pop();
        let entry = newest.map(|at| self.record_entry(&shard, at)).transpose()?;
        match entry.flatten() {
            Some((_, entry)) => Ok(Some(entry.version)),
            None => Err(RegistryError::NotFound {
                what: "记录 / record",
                name: record.to_string(),
                next: "no grant has it and no ledger here; propose it by a field that identifies it",
            }),
        }
    }

    /// Whether a grant's ledger, held here, has a record in scope.
    fn holds_in(&self, ledger: &Origin, record: &RecordId) -> Result<bool> {
        if !self.holds_grant(ledger) {
            return Ok(false);
        }
        let holding = self.holding(ledger)?;
        let holding = holding
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(matches!(holding.access, Access::Grant { .. }) && holding.index.get(*record).is_some())
    }

    /// Whether one more proposal may be made to this owner.
    fn has_room(&self, desk: &Desk, now: UnixMillis) -> Result<()> {
        let store = self.store.as_ref();
        let open = desk.open(store)?;
        if open.len() as u64 >= OPEN_MAX {
            return Err(bad(&format!(
                "已有 {OPEN_MAX} 件待答复 / {OPEN_MAX} proposals to this owner wait for an answer; wait for some, or withdraw them"
            )));
        }
        let today = |item: &Item| item.at.0 / DAY == now.0 / DAY;
        let items = open.iter().filter(|(_, item)| today(item)).count();
        let ended = desk.ended(store)?;
        let ended = ended.iter().filter(|(_, item)| today(item)).count();
        if (items + ended) as u64 >= DAY_MAX {
            return Err(bad(&format!(
                "今日已提 {DAY_MAX} 件 / {DAY_MAX} proposals were made to this owner today; go on tomorrow"
            )));
        }
        Ok(())
    }

    /// Takes a proposal back, unless it was answered: what it says is destroyed everywhere.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::BadRequest`] when it ended already,
    /// [`RegistryError::Denied`].
    pub fn withdraw_proposal(
        &self,
        session: &Session,
        owner: &DivisionId,
        index: u64,
        now: UnixMillis,
    ) -> Result<Line> {
        let desk = self.sent_desk(owner);
        let _one = lock(&self.answering);
        let item = self.letter_item(&desk, index)?;
        if item.state != State::Open {
            return Err(bad("建议已办结 / the proposal ended already"));
        }
        let proposal = self.proposal_said(&desk, index)?.ok_or_else(gone)?;
        self.may_see(
            session,
            owner,
            &proposal,
            policy::Action::Propose,
            &proposal.purpose,
        )?;
        let signer = session.signer(proposal.purpose.clone(), None);
        let ended = Item {
            state: State::Withdrawn,
            ended_at: Some(now),
            ..item
        };
        let changes = Changes {
            items: [(index, ended.clone())].into(),
            ..Changes::default()
        };
        let book = self.book(&desk.own)?;
        self.write_letters(
            &mut lock(&book),
            &desk,
            &signer,
            vec![end(ended.id, None, now)],
            changes,
            now,
        )?;
        self.changed();
        Ok(desk.line(index, &ended))
    }

    /// Appends letters and what follows from them, in one commit; only what follows when there is no
    /// letter.
    pub(crate) fn write_letters(
        &self,
        book: &mut Book,
        desk: &Desk,
        signer: &Signer<'_>,
        leaves: Vec<Leaf>,
        changes: Changes,
        now: UnixMillis,
    ) -> Result<()> {
        if leaves.is_empty() {
            if !changes.is_empty() {
                book.extend(self.store.as_ref(), |batch| desk.write(batch, &changes))?;
            }
            return Ok(());
        }
        self.append(book, signer, leaves, now, |batch, _, _| {
            desk.write(batch, &changes);
        })?;
        Ok(())
    }

    /// Takes in what an owner answered: keeps it, and ends the proposal, whose body is destroyed by
    /// that everywhere.
    pub(crate) fn take_answers(&self, answers: &Origin, now: UnixMillis) -> Result<()> {
        let desk = self.sent_desk(&answers.division());
        let _one = lock(&self.answering);
        let store = self.store.as_ref();
        let mut moved = false;
        loop {
            let book = self.book(&desk.own)?;
            let mut book = lock(&book);
            let from = desk.cursor(store)?.unwrap_or(0);
            let (signed, next) = self.letters(answers, from)?;
            if next == from {
                break;
            }
            let mut changes = Changes {
                cursor: Some(next),
                ..Changes::default()
            };
            let mut leaves = Vec::new();
            for signed in &signed {
                let letter = &signed.letter;
                let Some(state) = State::after(letter.step) else {
                    continue;
                };
                let Some(index) = desk.by_id(store, &letter.id)? else {
                    continue;
                };
                let known = changes.items.get(&index).cloned();
                let item = match known {
                    Some(item) => Some(item),
                    None => desk.item(store, index)?,
                };
                // The first answer counts, and only one to this very proposal.
                let Some(item) =
                    item.filter(|i| letter.answers == Some(i.leaf) && i.answer.is_none())
                else {
                    continue;
                };
                let body = store.get(&crate::table::body(answers, signed.at))?;
                let opened = body
                    .map(|body| self.open_letter(answers, signed, &body))
                    .transpose()?
                    .flatten();
                if let Some(salted) =
                    opened.filter(|salted| Answer::decode(seal::letter::unsalted(salted)).is_ok())
                {
                    let sealed = self.keep_said(&desk, true, index, &salted)?;
                    changes.answered.insert(index, sealed);
                }
                leaves.push(end(letter.id, Some(signed.leaf), now));
                let item = Item {
                    state,
                    ended_at: Some(letter.recorded_at),
                    answer: Some(signed.leaf),
                    ..item
                };
                changes.items.insert(index, item);
            }
            let signer = self.service(purpose("registration"));
            self.write_letters(&mut book, &desk, &signer, leaves, changes, now)?;
            moved = true;
        }
        if moved {
            self.changed();
        }
        Ok(())
    }

    /// Ends what the owner left unanswered long beyond its end, and destroys what was said in
    /// proposals that ended long ago.
    pub(crate) fn tend_sent(&self, own: &Origin, sweep: bool, now: UnixMillis) -> Result<()> {
        let desk = Desk { own: own.clone() };
        let _one = lock(&self.answering);
        if self.guard.is_halted(own) {
            return Ok(());
        }
        let store = self.store.as_ref();
        let mut changes = Changes::default();
        let mut leaves = Vec::new();
        self.make_rows_again(&desk)?;
        for (index, item) in desk.open(store)? {
            if item.until.0.saturating_add(GRACE_MILLIS) < now.0 {
                leaves.push(end(item.id, None, now));
                let item = Item {
                    state: State::Expired,
                    ended_at: Some(now),
                    ..item
                };
                changes.items.insert(index, item);
            }
        }
        if sweep {
            changes.forgotten = self.long_ended(&desk, now)?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        let book = self.book(&desk.own)?;
        let signer = self.service(purpose("registration"));
        self.write_letters(&mut lock(&book), &desk, &signer, leaves, changes, now)
    }

    /// Makes the rows of proposals again that were lost with a directory, from the ledger that came
    /// back; what was said in them did not come back. Answers are taken in anew after that.
    fn make_rows_again(&self, desk: &Desk) -> Result<()> {
        let store = self.store.as_ref();
        if !desk.open(store)?.is_empty() || !desk.ended(store)?.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::default();
        let mut from = 0;
        loop {
            let (signed, next) = self.letters(&desk.own, from)?;
            for signed in signed {
                let letter = signed.letter;
                if let Some(until) = letter.until {
                    let item = Item {
                        id: letter.id,
                        leaf: signed.leaf,
                        at: letter.recorded_at,
                        until,
                        state: State::Open,
                        ended_at: None,
                        answer: None,
                        record: None,
                    };
                    changes.items.insert(signed.at, item);
                    changes.names.insert(letter.id, signed.at);
                } else if let Some(item) =
                    { changes.names.get(&letter.id) }.and_then(|index| changes.items.get_mut(index))
                {
                    // Of one that was answered the answer says more.
                    item.state = State::Withdrawn;
                    item.ended_at = Some(letter.recorded_at);
                }
            }
            if next == from {
                break;
            }
            from = next;
        }
        if changes.is_empty() {
            return Ok(());
        }
        changes.cursor = Some(0);
        let book = self.book(&desk.own)?;
        lock(&book).extend(store, |batch| desk.write(batch, &changes))
    }

    /// The proposals that ended so long ago that nothing of what was said is kept any more.
    pub(crate) fn long_ended(&self, desk: &Desk, now: UnixMillis) -> Result<Vec<u64>> {
        let store = self.store.as_ref();
        let mut long = BTreeSet::new();
        for (index, item) in desk.ended(store)? {
            let ended = item.ended_at.unwrap_or(item.until);
            let long_ago = ended.0.saturating_add(KEPT_MILLIS) < now.0;
            if desk.keeps(store, index)? && (long_ago || !self.still_known(desk, &item)?) {
                long.insert(index);
            }
        }
        Ok(long.into_iter().collect())
    }

    /// Whether a proposer still holds the record that it named: what was said of one that left its
    /// grants, or was erased, goes with it.
    fn still_known(&self, desk: &Desk, item: &Item) -> Result<bool> {
        let (owner, Some(record)) = (desk.with(), item.record) else {
            return Ok(true);
        };
        if desk.is_inbox() {
            return Ok(true);
        }
        let above = self.authority().within(&owner, &self.config.division);
        for schema in self.catalogue().kinds() {
            for holding in self.holdings_of(&schema.kind) {
                let holding = holding
                    .read()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if holding.origin.division() == owner && holding.index.get(record).is_some() {
                    return Ok(true);
                }
            }
            if !above {
                continue;
            }
            let shard = Origin::new(&self.config.realm, &owner, &schema.kind);
            let newest = chain::entries_of(self.store.as_ref(), &shard, &record, 0)?.pop();
            if let Some((_, entry)) = newest
                .map(|at| self.record_entry(&shard, at))
                .transpose()?
                .flatten()
            {
                return Ok(entry.operation != record::entry::Operation::Erase);
            }
        }
        Ok(false)
    }
}

/// The end of a letter in its writer's ledger.
pub(crate) fn end(id: LetterId, taken: Option<record::id::Hash>, now: UnixMillis) -> Leaf {
    Leaf {
        entry: Entry::Letter(LetterEntry {
            suite: SUITE,
            step: Step::Close,
            id,
            answers: taken,
            entry: None,
            content: None,
            body: None,
            until: None,
            recorded_at: now,
        }),
        body: None,
    }
}

pub(crate) fn gone() -> RegistryError {
    RegistryError::NotFound {
        what: "变更建议内容 / what the proposal says",
        name: "requested".into(),
        next: "it was withdrawn, its record was erased, or it ended long ago; the ledgers show that it was there",
    }
}
