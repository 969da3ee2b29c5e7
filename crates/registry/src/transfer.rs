//! Moving a record to another division (迁移): offered, accepted, closed; in exactly one count.
//!
//! The old owner offers ([`offer`]): a grant of this record alone, all fields and its whole history,
//! goes to the new owner's node in a ledger of its own. The new owner accepts ([`accept`]): every
//! version is registered again under its own keys, with the same `content`. Once that is cosigned its
//! node says so in its authority ledger, with the proof; whoever knows that statement knows where
//! the record counts ([`count`]). The rest nodes do alone ([`settle`]): the old owner writes
//! `transfer-out` and ends the grant, and an erasure there runs here.
//! Owns what a transfer's state is, from ledgers alone: no table says it. Refuses to end an offer
//! before the new owner's word: until then nobody knows that it was not accepted.

pub mod accept;
pub mod count;
pub mod offer;
pub mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use ledger::hash::leaf_hash;
use record::authority::GrantStatement;
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{DivisionId, GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::transfer::{Acceptance, TransferOffer, TransferWord};
use serde::Serialize;

use crate::chain;
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock};
use crate::table;

/// What a grant that carries a transfer is for. It is no code of the purpose list, so that no other
/// grant can have it.
pub(crate) const PURPOSE: &str = "transfer";

/// Whether a grant carries a transfer.
pub(crate) fn carries(grant: &GrantStatement) -> bool {
    grant.purpose.as_str() == PURPOSE
}

/// What is done for records that move is done one at a time; and what was checked before is not
/// checked again. Lost at a restart, and found again from the ledgers.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) one: Mutex<()>,
    /// Acceptances whose proof holds.
    proven: Mutex<BTreeMap<GrantId, Moved>>,
    tallies: Mutex<BTreeMap<Origin, count::Tally>>,
    /// Transfers of this node with which nothing more can happen.
    pub(crate) settled: Mutex<BTreeSet<GrantId>>,
    /// Batches whose proof holds.
    pub(crate) proven_batches: Mutex<BTreeSet<GrantId>>,
    /// Closings of shards that were looked at.
    pub(crate) checked: Mutex<crate::moving::close::Checked>,
}

/// Where a record is that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The shard.
    pub origin: Origin,
    /// The record there.
    pub record: RecordId,
    /// Index of the entry that registered the offered version.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: Hash,
}

/// Where a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferState {
    /// The new owner has not answered.
    Offered,
    /// Registered here, and not cosigned yet: it counts at the old owner.
    Arrived,
    /// Registered at the new owner and cosigned: it counts there. The old owner closes next.
    Accepted,
    /// The old owner closed its record.
    Closed,
    /// Taken back; the new owner's word is awaited.
    Withdrawing,
    /// Its time is over; the new owner's word is awaited.
    Expired,
    /// The new owner refused.
    Refused,
    /// Ended by the old owner alone, because the new owner's charter was revoked.
    Ended,
}

/// A transfer as listed.
#[derive(Debug, Clone, Serialize)]
pub struct TransferLine {
    /// The transfer.
    pub id: GrantId,
    /// The shard that the record leaves.
    pub origin: Origin,
    /// The record there.
    pub record: RecordId,
    /// The version offered.
    pub version: u64,
    /// Who is to own it.
    pub to: DivisionId,
    /// The reason or legal basis.
    pub basis: String,
    /// When it was offered.
    pub offered_at: UnixMillis,
    /// Until when it can be accepted.
    pub not_after: UnixMillis,
    /// Where it stands.
    pub state: TransferState,
    /// Why it was refused or ended.
    pub reason: Option<Kind>,
    /// The shard that has it since it moved.
    pub new_origin: Option<Origin>,
    /// The record there.
    pub new_record: Option<RecordId>,
    /// Index of its entry there.
    pub new_index: Option<u64>,
    /// Whether the new owner erased it since.
    pub erased: bool,
    /// Whether the old owner signed that it destroyed what it had of it.
    pub erased_at_old_owner: bool,
}

/// How many transfers of this node's records, or to it, are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TransferCounts {
    /// Offered by this node.
    pub outgoing: u64,
    /// Offered to this node.
    pub incoming: u64,
    /// When the oldest of them was offered.
    pub oldest: Option<UnixMillis>,
}

impl Registry {
    /// Every transfer of one record by itself known here, the oldest first; of those that move many at
    /// a time see [`Registry::movings`].
    pub fn transfers(&self, now: UnixMillis) -> Result<Vec<TransferLine>> {
        let offers: Vec<TransferOffer> = self.authority().single_offers().cloned().collect();
        let mut lines = Vec::with_capacity(offers.len());
        for offer in offers {
            lines.extend(self.transfer_line(&offer, now)?);
        }
        lines.sort_by_key(|line| (line.offered_at.0, line.id));
        Ok(lines)
    }

    /// One transfer.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or a failure of the store.
    pub fn transfer(&self, id: &GrantId, now: UnixMillis) -> Result<TransferLine> {
        let offer = self.known_offer(id)?;
        self.transfer_line(&offer, now)?.ok_or_else(|| unknown(id))
    }

    /// How many are open here, for the status page.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn transfer_counts(&self) -> Result<TransferCounts> {
        let own = &self.config.division;
        let authority = self.authority();
        let mut counts = TransferCounts::default();
        for offer in authority.offers() {
            let (leaves, comes) = (offer.origin.division() == *own, offer.to == *own);
            if !(leaves || comes) || authority.offer_ended(offer).is_some() {
                continue;
            }
            counts.outgoing += u64::from(leaves);
            counts.incoming += u64::from(comes);
            let oldest = counts.oldest.map_or(offer.offered_at.0, |at| at.0);
            counts.oldest = Some(UnixMillis(oldest.min(offer.offered_at.0)));
        }
        Ok(counts)
    }

    fn transfer_line(
        &self,
        offer: &TransferOffer,
        now: UnixMillis,
    ) -> Result<Option<TransferLine>> {
        let moved = self.moved_to(offer);
        let arrived = match &moved {
            None if offer.to == self.config.division => self.arrived(offer)?,
            _ => None,
        };
        let authority = self.authority();
        let Some(grant) = authority.grant(&authority.carrier(&offer.id)) else {
            return Ok(None);
        };
        let ended = authority.offer_ended(offer);
        let refused = match authority.answer(offer).map(|answer| &answer.word) {
            Some(TransferWord::Refused { reason }) => Some(reason.clone()),
            _ => None,
        };
        let state = if moved.is_some() {
            match ended {
                Some(_) => TransferState::Closed,
                None => TransferState::Accepted,
            }
        } else if refused.is_some() {
            TransferState::Refused
        } else if ended.is_some() {
            TransferState::Ended
        } else if arrived.is_some() {
            TransferState::Arrived
        } else if authority.withdrawn(offer) {
            TransferState::Withdrawing
        } else if grant.not_after <= now {
            TransferState::Expired
        } else {
            TransferState::Offered
        };
        let reason = match moved {
            Some(_) => None,
            None => refused.or_else(|| ended.map(|ended| ended.reason.clone())),
        };
        let place = moved.or(arrived);
        Ok(Some(TransferLine {
            id: offer.id,
            origin: offer.origin.clone(),
            record: offer.record,
            version: offer.version,
            to: offer.to.clone(),
            basis: offer.basis.clone(),
            offered_at: offer.offered_at,
            not_after: grant.not_after,
            state,
            reason,
            new_origin: place.as_ref().map(|place| place.origin.clone()),
            new_record: place.as_ref().map(|place| place.record),
            new_index: place.as_ref().map(|place| place.index),
            erased: authority.erased_there(offer).is_some(),
            erased_at_old_owner: authority.has_receipt(
                &offer.origin.division(),
                &offer.origin,
                &offer.record,
            ),
        }))
    }

    fn known_offer(&self, id: &GrantId) -> Result<TransferOffer> {
        let offer = self.authority().offer(id).cloned();
        offer.ok_or_else(|| unknown(id))
    }

    /// Where a record is, when its new owner's word and proof say that it moved.
    pub(crate) fn moved_to(&self, offer: &TransferOffer) -> Option<Moved> {
        if let Some(moved) = lock(&self.transfers.proven).get(&offer.id) {
            return Some(moved.clone());
        }
        let authority = self.authority();
        let answer = authority.answer(offer)?;
        let TransferWord::Accepted(acceptance) = &answer.word else {
            return None;
        };
        // One entry is the proof of one transfer: of several, the first that was offered.
        let mut named = authority.claimants(&acceptance.origin, acceptance.index);
        let claimed =
            named.any(|other| (other.offered_at.0, other.id) < (offer.offered_at.0, offer.id));
        drop(named);
        let acceptance = acceptance.clone();
        drop(authority);
        let moved = self.proven(offer, &acceptance).filter(|_| !claimed)?;
        lock(&self.transfers.proven).insert(offer.id, moved.clone());
        Some(moved)
    }

    /// Whether an acceptance proves that the offered version was registered and witnessed.
    fn proven(&self, offer: &TransferOffer, acceptance: &Acceptance) -> Option<Moved> {
        let (origin, note) = (&acceptance.origin, &acceptance.checkpoint);
        let same_kind = origin.is_shard() && origin.ledger() == offer.origin.ledger();
        if !same_kind || origin.division() != offer.to || origin.realm() != offer.origin.realm() {
            return None;
        }
        let Ok(Entry::Record(entry)) = Entry::decode(&acceptance.entry) else {
            return None;
        };
        if entry.operation != operation_of(offer)
            || entry.version != offer.version
            || entry.content != offer.content
        {
            return None;
        }
        let leaf = leaf_hash(&acceptance.entry);
        let moved = Moved {
            origin: origin.clone(),
            record: entry.record,
            index: acceptance.index,
            leaf,
        };
        if self.authority().is_carried(&offer.id) {
            return self.is_in_proven_batch(offer, &moved).then_some(moved);
        }
        let checkpoint = self.cosigned_checkpoint(origin, note)?;
        let proof: Vec<Hash> = acceptance.proof.iter().map(|hash| **hash).collect();
        ledger::proof::verify_inclusion(
            &leaf,
            acceptance.index,
            checkpoint.size(),
            &proof,
            checkpoint.root(),
        )
        .ok()?;
        Some(moved)
    }

    /// A checkpoint that the owner of a ledger signed and that has its quorum of cosignatures.
    pub(crate) fn cosigned_checkpoint(
        &self,
        origin: &Origin,
        note: &str,
    ) -> Option<ledger::checkpoint::Checkpoint> {
        let sign = self.authority().signer_of(origin, note)?.keys.sign;
        let log = crate::replicate::log_verifier(origin, &sign).ok()?;
        let checkpoint = ledger::checkpoint::open(note.as_bytes(), &log).ok()?;
        self.has_quorum(origin, note).then_some(checkpoint)
    }

    /// What happened to a record last, below an index; sealing it anew is nothing that happened.
    pub(crate) fn last_event(
        &self,
        origin: &Origin,
        record: &RecordId,
        below: u64,
    ) -> Result<Option<(u64, RecordEntry)>> {
        let store = self.store.as_ref();
        for at in chain::entries_of(store, origin, record, 0)?
            .into_iter()
            .rev()
        {
            if at >= below {
                continue;
            }
            let Some(bytes) = store.get(&table::entry(origin, at))? else {
                continue;
            };
            match chain::decode(origin, at, &bytes)? {
                Entry::Record(entry) if !entry.operation.is_anew() => {
                    return Ok(Some((at, entry)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Refuses what would change a record that is offered to another division.
    pub(crate) fn refuse_offered(&self, origin: &Origin, record: &RecordId) -> Result<()> {
        let authority = self.authority();
        let Some(offer) = authority.offer_of(origin, record) else {
            return Ok(());
        };
        if authority.offer_ended(offer).is_some() {
            return Ok(());
        }
        Err(RegistryError::BadRequest(format!(
            "记录正在迁往 `{0}`（迁移 {1}），请先撤回或等其办结 / the record is offered to `{0}` (transfer {1}); withdraw it, or wait until it is closed",
            offer.to, offer.id
        )))
    }

    /// The same, and refuses what would change a record that left.
    pub(crate) fn refuse_moving(&self, origin: &Origin, record: &RecordId) -> Result<()> {
        self.refuse_offered(origin, record)?;
        let last = self.last_event(origin, record, u64::MAX)?;
        if last.is_none_or(|(_, entry)| entry.operation != Operation::TransferOut) {
            return Ok(());
        }
        let to = self
            .authority()
            .offer_of(origin, record)
            .map(|offer| offer.to.to_string())
            .unwrap_or_default();
        Err(RegistryError::BadRequest(format!(
            "记录已迁往 `{to}`，由其变更 / the record moved to `{to}`; it is amended there"
        )))
    }
}

/// How a record is taken over: as it was offered, in force or not.
pub(crate) fn operation_of(offer: &TransferOffer) -> Operation {
    match offer.closed_at {
        None => Operation::TransferIn,
        Some(_) => Operation::TransferInClosed,
    }
}

pub(crate) fn unknown(id: &GrantId) -> RegistryError {
    RegistryError::NotFound {
        what: "迁移 / transfer",
        name: id.to_string(),
        next: "see `fangzhi transfer list`; an offer is known once the old owner's authority ledger has been replicated",
    }
}

pub(crate) fn bad(words: impl Into<String>) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

thread_local! {
    /// At which step of a transfer this thread ends it, as if the process had been killed there.
    /// The seam for tests of crashes; 0, which no step is, everywhere else.
    #[doc(hidden)]
    pub static CUT_AT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// How many steps there are to be cut at.
#[doc(hidden)]
pub const STEPS: u32 = 10;

pub(crate) fn cut_here(step: u32) -> Result<()> {
    if CUT_AT.get() == step {
        return Err(RegistryError::Store(format!("cut at step {step}")));
    }
    Ok(())
}
