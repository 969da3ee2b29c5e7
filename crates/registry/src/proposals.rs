//! Proposals (变更建议): asking the owner of a record for a change, and being answered.
//!
//! A proposer writes letters into `<realm>/<proposer>/proposals/<owner>`, the owner answers in
//! `<realm>/<owner>/answers/<proposer>`; both are handed up to the nearest common ancestor and down
//! to the addressee only, who alone opens them. Owns both ledgers and their bounds: how many letters
//! may lie there, here and at whoever carries them. Refuses to change a record: a clerk of the owner
//! does, by the ordinary way of writing, once for each proposal however often it is cut off.
//!
//! Read in this order: `desk` (what is kept beside a ledger of letters), [`send`], [`inbox`],
//! [`answer`], [`show`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use minicbor::{Decode, Encode};
use policy::{Action, Asker, Target};
use record::authority::GrantStatement;
use record::cbor;
use record::entry::Entry;
use record::id::{DivisionId, GrantId, Hash, LetterId, Origin, RecordId, UnixMillis};
use record::proposal::{About, Proposal};
use record::schema::{Position, STATUS, Schema, VALID_FROM};
use serde::Serialize;
use store::Batch;

use crate::arrived::Arrived;
use crate::chain::Destroyed;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::register::Registered;
use crate::table;

pub mod answer;
pub(crate) mod desk;
pub mod inbox;
pub mod send;
pub mod show;

/// The most open proposals of one proposer to one owner.
pub const OPEN_MAX: u64 = 256;
/// The most proposals of one proposer to one owner in a day.
pub const DAY_MAX: u64 = 1000;
/// For how many days a proposal may wait.
pub const DAYS_MAX: u32 = 90;
/// For how long a seal key of a charter before is kept for letters that are under way: as long as a
/// proposal waits, and a month for the way of its answer.
pub(crate) const UNDER_WAY_MILLIS: u64 = (DAYS_MAX as u64 + 30) * DAY;
/// How long either side keeps what was said, once it was answered.
pub const KEPT_MILLIS: u64 = 366 * DAY;
/// How long a proposer waits beyond a proposal's end for the owner to say that it expired.
pub const GRACE_MILLIS: u64 = 7 * DAY;
/// How long a proposal may wait before the doctor says so.
pub const ANSWER_MILLIS: u64 = 7 * DAY;
/// What was kept long enough is looked for so often.
const SWEEP_MILLIS: u64 = 3600 * 1000;
const DAY: u64 = 24 * 3600 * 1000;

/// Whoever carries letters holds twice what their writer may write: clocks and days differ.
const CARRIED: u64 = 2;
/// Entries that each proposal needs at most: itself, its end, and an act for each.
const ENTRIES: u64 = 6;

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum State {
    /// It waits for an answer.
    #[n(1)]
    Open,
    /// The owner made the change as proposed.
    #[n(2)]
    Accepted,
    /// The owner made another change.
    #[n(3)]
    Amended,
    /// The owner makes no change.
    #[n(4)]
    Refused,
    /// Nobody answered in time.
    #[n(5)]
    Expired,
    /// The proposer took it back.
    #[n(6)]
    Withdrawn,
}

/// One proposal as listed at either side: nothing of what it says.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// `<division of the other side>/<index>`, by which commands name it on both sides.
    pub name: String,
    /// The other side.
    pub with: DivisionId,
    /// Index of its entry in the ledger of proposals.
    pub index: u64,
    /// Its identifier.
    pub id: LetterId,
    /// Where it stands.
    pub state: State,
    /// When it was proposed.
    pub at: UnixMillis,
    /// Until when it may be answered.
    pub until: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
}

/// How many proposals wait, for status and metrics.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProposalCounts {
    /// Received and not answered.
    pub inbox_open: u64,
    /// Since when the oldest of them waits.
    pub inbox_oldest: Option<UnixMillis>,
    /// Sent and not answered.
    pub sent_open: u64,
    /// Since when the oldest of them waits.
    pub sent_oldest: Option<UnixMillis>,
}

/// Which entry of an own shard was written at a proposal.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Source {
    #[n(0)]
    at: u64,
}

fn source_key(shard: &Origin, source: &Hash) -> store::Key {
    table::key(shard, table::PROPOSAL, source)
}

/// Notes in a shard's batch that an entry is written at a proposal, whose leaf hash its act names.
pub(crate) fn note_source(batch: &mut Batch, shard: &Origin, source: &Hash, at: u64) {
    batch.put(source_key(shard, source), cbor::to_vec(&Source { at }));
}

/// The same for entries of an own shard that come back from the parent.
pub(crate) fn note_sources<'a>(
    batch: &mut Batch,
    origin: &Origin,
    entries: impl Iterator<Item = &'a Entry>,
) {
    if !origin.is_shard() {
        return;
    }
    let mut noted = BTreeSet::new();
    for entry in entries {
        if let Entry::Act(act) = entry
            && let Some(source) = act.source.filter(|_| act.count == 1)
            && noted.insert(source)
        {
            note_source(batch, origin, &source, act.first);
        }
    }
}

/// How many letters lie in a replica, and how many entries came on one day.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Tally {
    #[n(0)]
    bodies: u64,
    #[n(1)]
    day: u64,
    #[n(2)]
    entries: u64,
}

/// What somebody proposes, to be decided by policy.
pub(crate) struct Proposing<'a> {
    pub asker: &'a Asker,
    pub owner: &'a DivisionId,
    pub schema: &'a Schema,
    pub proposal: &'a Proposal,
}

/// The fields that a proposal writes.
pub(crate) fn fields(proposal: &Proposal) -> BTreeSet<Position> {
    let mut fields: BTreeSet<Position> = proposal.changes.keys().copied().collect();
    if proposal.wanted.changes_status() {
        fields.insert(STATUS);
    }
    if let About::Value { position, .. } = &proposal.about {
        fields.insert(*position);
    }
    fields
}

impl Registry {
    /// Whether policy lets somebody propose this: in the own tree, or what a grant in force gives to
    /// the proposer's organization. Both sides ask; `in_scope` says whether a grant has the record.
    /// Gives the grant, if it takes one.
    pub(crate) fn may_propose(
        &self,
        proposing: &Proposing<'_>,
        in_scope: &dyn Fn(&GrantStatement, &RecordId) -> Result<bool>,
        now: UnixMillis,
    ) -> Result<Option<GrantId>> {
        let Proposing {
            asker,
            owner,
            schema,
            proposal,
        } = proposing;
        let shard = Origin::new(&self.config.realm, owner, &schema.kind);
        let (ancestors, grants) = {
            let authority = self.authority();
            let grants: Vec<GrantStatement> = authority
                .grants()
                .filter(|grant| grant.holder == asker.organization && grant.origin == shard)
                .filter(|grant| grant.not_after > now && authority.grant_ended(&grant.id).is_none())
                .cloned()
                .collect();
            (authority.ancestors(owner), grants)
        };
        let positions = fields(proposal);
        let may = |held_by_grant| {
            let target = Target::Fields {
                schema,
                positions: &positions,
                division: owner,
                ancestors: &ancestors,
                held_by_grant,
            };
            let purpose = &proposal.purpose;
            policy::may(self.policies(), asker, Action::Propose, &target, purpose)
        };
        let mut denied = match may(None) {
            Ok(_) => return Ok(None),
            Err(denied) => RegistryError::from(denied),
        };
        for grant in &grants {
            let covers = positions
                .iter()
                .all(|p| [STATUS, VALID_FROM].contains(p) || grant.fields.contains(p));
            let scope = match &proposal.about {
                About::Record { record, .. } => in_scope(grant, record)?,
                About::New | About::Value { .. } => true,
            };
            if !covers || !scope {
                denied = RegistryError::Denied {
                    rule: "not-granted".into(),
                    ask: format!("{owner} 的安全员 / the security officer of `{owner}`"),
                    reason: "提议限于授权给提议方的字段和记录 / a proposal is about fields and records that its proposer was granted"
                        .into(),
                };
                continue;
            }
            match may(Some(&grant.purpose)) {
                Ok(_) => return Ok(Some(grant.id)),
                Err(refused) => denied = refused.into(),
            }
        }
        Err(denied)
    }

    /// The record that was written at a proposal, if one was.
    pub(crate) fn written_at_proposal(
        &self,
        shard: &Origin,
        source: Option<&Hash>,
    ) -> Result<Option<Registered>> {
        let Some(source) = source else {
            return Ok(None);
        };
        let Some(bytes) = self.store.get(&source_key(shard, source))? else {
            return Ok(None);
        };
        let Source { at } = table::decode("source", &bytes)?;
        let written = self.record_entry(shard, at)?;
        Ok(written.map(|(_, entry)| Registered {
            record: entry.record,
            version: entry.version,
            origin: shard.clone(),
            index: at,
        }))
    }

    /// Bounds what others' letters may take here, whoever carries them: a delivery beyond it is not
    /// kept.
    pub(crate) fn count_letters(
        &self,
        batch: &mut Batch,
        arrived: &Arrived,
        destroyed: &Destroyed,
        now: UnixMillis,
    ) -> Result<()> {
        let origin = arrived.origin();
        if origin.addressee().is_none() || origin.division() == self.config.division {
            return Ok(());
        }
        let key = table::key(origin, table::PROPOSAL, b"tally");
        let mut tally: Tally = match self.store.get(&key)? {
            Some(bytes) => table::decode("tally", &bytes)?,
            None => Tally::default(),
        };
        let day = now.0 / DAY;
        if tally.day != day {
            (tally.day, tally.entries) = (day, 0);
        }
        tally.entries += arrived.entries().count() as u64;
        let arriving = (arrived.first()..)
            .zip(arrived.items())
            .filter(|(at, item)| item.body.is_some() && !destroyed.arriving.contains(at));
        let too_long = arrived.items().any(|item| {
            let body = item.body.as_ref().map_or(0, Vec::len);
            body > seal::letter::LETTER_MAX || item.entry.len() > seal::letter::LETTER_MAX
        });
        tally.bodies =
            (tally.bodies + arriving.count() as u64).saturating_sub(destroyed.stored.len() as u64);
        let too_many =
            tally.bodies > CARRIED * OPEN_MAX || tally.entries > CARRIED * ENTRIES * DAY_MAX;
        if too_long || too_many {
            let words = if too_long {
                "函件过大，未收 / a letter is larger than any may be; it was not kept"
            } else {
                "函件过多，暂不再收 / more letters than may wait or come in a day; they are not kept for now"
            };
            self.alarm(origin, "letters", words, vec![], now);
            return Err(RegistryError::BadRequest(format!("`{origin}`: {words}")));
        }
        batch.put(key, cbor::to_vec(&tally));
        Ok(())
    }

    /// Takes in letters to this node, if the ledger is one of them or may let one be understood.
    /// What fails is tried again.
    pub(crate) fn take_letters(&self, origin: &Origin, now: UnixMillis) {
        let ledgers = match origin.addressee() {
            Some(addressee) if addressee == self.config.division => vec![origin.clone()],
            Some(_) => return,
            // Who signed a letter may be known from here on.
            None if origin.ledger().as_str() == "authority" => {
                self.letters_here(&origin.division())
            }
            None => return,
        };
        for ledger in ledgers {
            self.take(&ledger, now);
        }
    }

    fn take(&self, ledger: &Origin, now: UnixMillis) {
        let taken = if ledger.is_proposals() {
            self.take_proposals(ledger, now)
        } else {
            self.take_answers(ledger, now)
        };
        if let Err(error) = taken {
            tracing::warn!(origin = %ledger, %error, "letters could not be taken in and are tried again");
        }
    }

    /// The ledgers of letters from a division to this node.
    fn letters_here(&self, from: &DivisionId) -> Vec<Origin> {
        let (realm, own) = (&self.config.realm, &self.config.division);
        if from == own {
            return Vec::new();
        }
        let both = [
            Origin::proposals(realm, from, own),
            Origin::answers(realm, from, own),
        ];
        let there = |origin: &Origin| self.store.head(origin.as_str()).is_ok_and(|head| head > 0);
        both.into_iter().filter(there).collect()
    }

    /// What a node does of its own accord: takes in what came, finishes answers that were cut off,
    /// lets expire what nobody answered, and destroys what need not be kept. Tried again when it
    /// fails.
    pub fn tend_letters(&self, now: UnixMillis) {
        let Ok(shards) = self.store.shards() else {
            return;
        };
        let swept = self.letters_swept.load(Ordering::Relaxed);
        let sweep = now.0.saturating_sub(swept) >= SWEEP_MILLIS;
        if sweep {
            self.letters_swept.store(now.0, Ordering::Relaxed);
        }
        let origins = shards.iter().filter_map(|shard| Origin::parse(shard).ok());
        for origin in origins.filter(|origin| origin.addressee().is_some()) {
            if self.keys.is_locked() {
                return;
            }
            if origin.addressee().as_ref() == Some(&self.config.division) {
                self.take(&origin, now);
            } else if origin.division() == self.config.division {
                let tended = if origin.is_proposals() {
                    self.tend_sent(&origin, sweep, now)
                } else {
                    self.tend_inbox(&origin, sweep, now)
                };
                if let Err(error) = tended {
                    tracing::warn!(%origin, %error, "letters could not be tended and are tried again");
                }
            }
        }
    }

    /// How many proposals wait here.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn proposal_counts(&self) -> Result<ProposalCounts> {
        let mut counts = ProposalCounts::default();
        for desk in self.desks()? {
            for (_, item) in desk.open(self.store.as_ref())? {
                let (open, oldest) = if desk.is_inbox() {
                    (&mut counts.inbox_open, &mut counts.inbox_oldest)
                } else {
                    (&mut counts.sent_open, &mut counts.sent_oldest)
                };
                *open += 1;
                *oldest = Some(oldest.map_or(item.at, |at: UnixMillis| at.min(item.at)));
            }
        }
        Ok(counts)
    }
}
