//! A desk (案头): what a node keeps beside its own ledger of letters to one other node.
//!
//! Owns the rows: one for each proposal, and what was said in it and in its answer, sealed under a
//! key of this node, so that it outlasts the node's seal key and the letters themselves. They lie in
//! the shard of the own ledger, so that a letter and what follows from it are one commit. All of it
//! can be made again from the ledgers, except what was said in letters that were ended.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use record::act::Act;
use record::cbor;
use record::entry::Entry;
use record::id::{DivisionId, Hash, LetterId, Origin, RecordId, UnixMillis};
use record::letter::{LetterEntry, Step};
use record::proposal::{Answer, Proposal};
use seal::letter::{LetterInfo, unsalted};
use store::{Batch, Key, Store};
use zeroize::Zeroizing;

use super::{Line, State};
use crate::chain;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::Registry;
use crate::table::{self, Head};

/// Letters taken in at a time.
const TAKE: usize = 256;
/// Entries read for that: an act signs at most so many before it.
const SCAN: usize = TAKE + record::act::ACT_ENTRIES_MAX as usize + 1;
const ROWS: usize = 1024;

const OPEN: u8 = b'o';
const ENDED: u8 = b'e';
const BY_ID: u8 = b'i';
const SAID: u8 = b's';
const ANSWERED: u8 = b'a';
const CURSOR: u8 = b'c';

/// One proposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Item {
    #[n(0)]
    pub id: LetterId,
    /// Leaf hash of the proposal's entry.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub leaf: Hash,
    #[n(2)]
    pub at: UnixMillis,
    #[n(3)]
    pub until: UnixMillis,
    #[n(4)]
    pub state: State,
    #[n(5)]
    pub ended_at: Option<UnixMillis>,
    /// Leaf hash of the answer's entry.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub answer: Option<Hash>,
    /// The record that it is about, as far as this node knows.
    #[n(7)]
    pub record: Option<RecordId>,
}

/// A letter, the act that signed it, and where it lies.
pub(crate) struct Signed {
    pub at: u64,
    pub leaf: Hash,
    pub letter: LetterEntry,
    pub act: Act,
}

/// The rows beside an own ledger of letters.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    /// The own ledger.
    pub own: Origin,
}

/// Rows that change with a commit, by the proposal's index.
#[derive(Default)]
pub(crate) struct Changes {
    pub items: BTreeMap<u64, Item>,
    /// What was said in proposals, and in answers, sealed.
    pub said: BTreeMap<u64, Vec<u8>>,
    pub answered: BTreeMap<u64, Vec<u8>>,
    /// Ids that are taken from here on, by the first proposal that bears them.
    pub names: BTreeMap<LetterId, u64>,
    /// Proposals of which nothing is kept any more.
    pub forgotten: Vec<u64>,
    /// How far the other side's ledger was taken in.
    pub cursor: Option<u64>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.forgotten.is_empty() && self.cursor.is_none()
    }
}

impl Desk {
    pub(crate) fn is_inbox(&self) -> bool {
        !self.own.is_proposals()
    }

    /// The other side.
    pub(crate) fn with(&self) -> DivisionId {
        self.own.addressee().unwrap_or_else(|| self.own.division())
    }

    /// The ledger of proposals: here at the proposer, a replica at the owner.
    pub(crate) fn proposals(&self) -> Origin {
        match self.own.counterpart() {
            Some(theirs) if self.is_inbox() => theirs,
            _ => self.own.clone(),
        }
    }

    fn table(&self) -> &'static str {
        if self.is_inbox() {
            table::INBOX
        } else {
            table::PROPOSAL
        }
    }

    fn key(&self, tag: u8, rest: &[u8]) -> Key {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(rest);
        table::key(&self.own, self.table(), &bytes)
    }

    fn row(&self, tag: u8, index: u64) -> Key {
        self.key(tag, &index.to_be_bytes())
    }

    /// The item of a proposal.
    pub(crate) fn item(&self, store: &dyn Store, index: u64) -> Result<Option<Item>> {
        for tag in [OPEN, ENDED] {
            if let Some(bytes) = store.get(&self.row(tag, index))? {
                return Ok(Some(table::decode("item", &bytes)?));
            }
        }
        Ok(None)
    }

    /// The index of the first proposal that bore this id.
    pub(crate) fn by_id(&self, store: &dyn Store, id: &LetterId) -> Result<Option<u64>> {
        let bytes = store.get(&self.key(BY_ID, &id.0))?;
        bytes.map(|bytes| index_of(&bytes)).transpose()
    }

    /// How far the other side's ledger was taken in; nothing when never.
    pub(crate) fn cursor(&self, store: &dyn Store) -> Result<Option<u64>> {
        let bytes = store.get(&self.key(CURSOR, b""))?;
        bytes.map(|bytes| index_of(&bytes)).transpose()
    }

    /// The open items, in order.
    pub(crate) fn open(&self, store: &dyn Store) -> Result<Vec<(u64, Item)>> {
        self.rows(store, OPEN)
    }

    /// The items that ended, in order.
    pub(crate) fn ended(&self, store: &dyn Store) -> Result<Vec<(u64, Item)>> {
        self.rows(store, ENDED)
    }

    fn rows(&self, store: &dyn Store, tag: u8) -> Result<Vec<(u64, Item)>> {
        let mut items = Vec::new();
        let mut start = vec![tag];
        loop {
            let rows = store.scan(self.own.as_str(), self.table(), &start, ROWS)?;
            let full = rows.len() == ROWS;
            for (rest, bytes) in rows {
                let Some(index) = rest.strip_prefix(&[tag]) else {
                    return Ok(items);
                };
                let index = index_of(index)?;
                items.push((index, table::decode("item", &bytes)?));
                start = vec![tag];
                start.extend((index + 1).to_be_bytes());
            }
            if !full {
                return Ok(items);
            }
        }
    }

    /// Whether what was said in a proposal is still kept.
    pub(crate) fn keeps(&self, store: &dyn Store, index: u64) -> Result<bool> {
        for tag in [SAID, ANSWERED] {
            if store.get(&self.row(tag, index))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes what changed.
    pub(crate) fn write(&self, batch: &mut Batch, changes: &Changes) {
        for (index, item) in &changes.items {
            let (to, from) = match item.state {
                State::Open => (OPEN, ENDED),
                _ => (ENDED, OPEN),
            };
            batch.put(self.row(to, *index), cbor::to_vec(item));
            batch.delete(self.row(from, *index));
        }
        for (tag, bodies) in [(SAID, &changes.said), (ANSWERED, &changes.answered)] {
            for (index, sealed) in bodies {
                batch.put_body(self.row(tag, *index), sealed.clone());
            }
        }
        for (id, index) in &changes.names {
            batch.put(self.key(BY_ID, &id.0), index.to_be_bytes().to_vec());
        }
        for index in &changes.forgotten {
            batch.delete(self.row(SAID, *index));
            batch.delete(self.row(ANSWERED, *index));
        }
        if let Some(cursor) = changes.cursor {
            batch.put(self.key(CURSOR, b""), cursor.to_be_bytes().to_vec());
        }
    }

    pub(crate) fn line(&self, index: u64, item: &Item) -> Line {
        let with = self.with();
        Line {
            name: format!("{with}/{index}"),
            with,
            index,
            id: item.id,
            state: item.state,
            at: item.at,
            until: item.until,
            ended_at: item.ended_at,
        }
    }

    fn aad(&self, tag: u8, index: u64) -> Vec<u8> {
        cbor::to_vec(&("fangzhi/letter-kept/v1", self.own.as_str(), tag, index))
    }
}

fn index_of(bytes: &[u8]) -> Result<u64> {
    let index = bytes.try_into().map(u64::from_be_bytes);
    index.map_err(|_| RegistryError::damaged("a row of letters has no index"))
}

impl State {
    /// What an answer makes of a proposal.
    pub(crate) fn after(step: Step) -> Option<Self> {
        match step {
            Step::Accept => Some(Self::Accepted),
            Step::Amend => Some(Self::Amended),
            Step::Refuse => Some(Self::Refused),
            Step::Expire => Some(Self::Expired),
            Step::Propose | Step::Close => None,
        }
    }
}

impl Registry {
    /// The desk with what this node proposes to an owner.
    pub(crate) fn sent_desk(&self, owner: &DivisionId) -> Desk {
        let (realm, own) = (&self.config.realm, &self.config.division);
        Desk {
            own: Origin::proposals(realm, own, owner),
        }
    }

    /// The desk with what a proposer proposes to this node.
    pub(crate) fn inbox_desk(&self, proposer: &DivisionId) -> Desk {
        let (realm, own) = (&self.config.realm, &self.config.division);
        Desk {
            own: Origin::answers(realm, own, proposer),
        }
    }

    /// Every desk of this node.
    pub(crate) fn desks(&self) -> Result<Vec<Desk>> {
        let shards = self.store.shards()?;
        let origins = shards.iter().filter_map(|shard| Origin::parse(shard).ok());
        let own = origins.filter(|origin| {
            origin.addressee().is_some() && origin.division() == self.config.division
        });
        Ok(own.map(|own| Desk { own }).collect())
    }

    /// The letters of a ledger from an index on, some at a time, and where the next ones begin.
    pub(crate) fn letters(&self, origin: &Origin, from: u64) -> Result<(Vec<Signed>, u64)> {
        let store = self.store.as_ref();
        let size = Head::read(store, origin)?.size;
        let rows = store.scan(origin.as_str(), table::ENTRY, &from.to_be_bytes(), SCAN)?;
        let (mut signed, mut open, mut next) = (Vec::new(), Vec::new(), from);
        for (at, (_, bytes)) in (from..size).zip(&rows) {
            match chain::decode(origin, at, bytes)? {
                Entry::Letter(letter) => open.push((at, ledger::hash::leaf_hash(bytes), letter)),
                Entry::Act(act) => {
                    for (at, leaf, letter) in open.drain(..) {
                        let act = act.clone();
                        signed.push(Signed {
                            at,
                            leaf,
                            letter,
                            act,
                        });
                    }
                    next = at + 1;
                    if signed.len() >= TAKE {
                        break;
                    }
                }
                _ => {}
            }
        }
        Ok((signed, next))
    }

    /// Opens a letter to this node: its salted bytes. Nothing when it does not open, or is not what
    /// its entry commits to. One that was under way when this node's charter changed is sealed to
    /// the charter before, and opens while the key of that is here.
    pub(crate) fn open_letter(
        &self,
        origin: &Origin,
        signed: &Signed,
        body: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let own = &self.config.division;
        let ever = self.authority().charters_ever(own).to_vec();
        if ever.is_empty() {
            return Err(RegistryError::NoCharter(own.clone()));
        }
        let keys = self.keys.unlocked()?;
        let opened = ever.iter().rev().find_map(|charter| {
            let info = LetterInfo {
                origin: origin.clone(),
                index: signed.at,
                id: signed.letter.id,
                step: signed.letter.step,
                reader: charter.id(),
            };
            keys.with_seal_of(&charter.keys.seal, |key| {
                seal::letter::open_letter(&info, key, body).ok()
            })
        });
        Ok(opened.filter(|salted| Some(seal::letter::content(salted)) == signed.letter.content))
    }

    /// Seals what was said for this node's own keeping.
    pub(crate) fn keep_said(
        &self,
        desk: &Desk,
        is_answer: bool,
        index: u64,
        salted: &[u8],
    ) -> Result<Vec<u8>> {
        let tag = if is_answer { ANSWERED } else { SAID };
        let key = self.keys.kept_key()?;
        let aad = desk.aad(tag, index);
        Ok(seal::blob::seal_blob(&key, &aad, salted, &mut rng()?))
    }

    fn said(&self, desk: &Desk, tag: u8, index: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(sealed) = self.store.get(&desk.row(tag, index))? else {
            return Ok(None);
        };
        let key = self.keys.kept_key()?;
        seal::blob::open_blob(&key, &desk.aad(tag, index), &sealed)
            .map(Some)
            .map_err(|e| RegistryError::damaged(format!("`{}` {index}: {e}", desk.own)))
    }

    /// What was proposed, while it is kept.
    pub(crate) fn proposal_said(&self, desk: &Desk, index: u64) -> Result<Option<Proposal>> {
        let salted = self.said(desk, SAID, index)?;
        salted
            .map(|salted| Proposal::decode(unsalted(&salted)))
            .transpose()
            .map_err(|e| RegistryError::damaged(format!("`{}` {index}: {e}", desk.own)))
    }

    /// What was answered, while it is kept.
    pub(crate) fn answer_said(&self, desk: &Desk, index: u64) -> Result<Option<Answer>> {
        let salted = self.said(desk, ANSWERED, index)?;
        salted
            .map(|salted| Answer::decode(unsalted(&salted)))
            .transpose()
            .map_err(|e| RegistryError::damaged(format!("`{}` {index}: {e}", desk.own)))
    }

    /// The item of a proposal by the name that people use.
    pub(crate) fn letter_item(&self, desk: &Desk, index: u64) -> Result<Item> {
        desk.item(self.store.as_ref(), index)?
            .ok_or_else(|| RegistryError::NotFound {
                what: "变更建议 / proposal",
                name: format!("{}/{index}", desk.with()),
                next: "see `fangzhi inbox list` at the owner, `fangzhi proposals list` at the proposer",
            })
    }
}
