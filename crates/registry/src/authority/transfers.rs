//! What the authority ledgers say of records that move (迁移), one by one or many at a time.
//!
//! Owns whose word counts: an offer and its withdrawal in the ledger of the shard's own division,
//! the first answer and the erasure in that of the division to which the offer was made, the closing
//! of a shard in that of its own. What anybody else states of a transfer is kept under their name
//! and never asked for. A batch is taken apart here: each of its records is a transfer like any
//! other, carried by the grant of the batch and proven by its one proof.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use record::authority::GrantEnded;
use record::id::{DivisionId, GrantId, Hash, Origin, RecordId};
use record::moving::{
    BATCH_RECORDS_MAX, BatchAnswer, BatchOffer, Moving, SUCCESSORS_MAX, ShardClosed, item_id,
};
use record::transfer::{
    Acceptance, TransferAnswer, TransferEvent, TransferOffer, TransferStep, TransferWord,
};

use super::Authority;

/// Every statement about transfers, under the division whose ledger has it.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Transfers {
    #[n(0)]
    offers: BTreeMap<GrantId, TransferOffer>,
    /// The newest offer of a record.
    #[n(1)]
    newest: BTreeMap<(Origin, RecordId), GrantId>,
    #[n(2)]
    answers: BTreeMap<(DivisionId, GrantId), TransferAnswer>,
    #[n(3)]
    withdrawn: BTreeSet<(DivisionId, GrantId)>,
    #[n(4)]
    erased: BTreeMap<(DivisionId, GrantId), Hash>,
    #[n(5)]
    batches: BTreeMap<GrantId, Batch>,
    /// Of every record of a batch, which it is.
    #[n(6)]
    carried: BTreeMap<GrantId, GrantId>,
    /// The proof of each answer to a batch; none when nothing was taken.
    #[n(7)]
    proofs: BTreeMap<(DivisionId, GrantId), Option<BatchProof>>,
    /// The transfers that an entry is said to be the proof of.
    #[n(8)]
    claims: BTreeMap<(Origin, u64), Vec<(DivisionId, GrantId)>>,
    /// What was stated of a shard's end; the first counts.
    #[n(9)]
    closings: BTreeMap<Origin, Vec<ShardClosed>>,
}

/// Records that are offered together.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Batch {
    /// The batch, and the grant that carries it.
    #[n(0)]
    pub id: GrantId,
    /// The plan of the old owner.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub plan: Hash,
    /// The shard that the records leave.
    #[n(2)]
    pub origin: Origin,
    /// Who is to own them.
    #[n(3)]
    pub to: DivisionId,
    /// How many they are.
    #[n(4)]
    pub items: u16,
}

impl Batch {
    /// The transfers of its records, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GrantId> {
        let id = self.id;
        (0..self.items).map(move |place| item_id(&id, place))
    }
}

/// What proves that the records of a batch were registered; their entries are in the answers.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct BatchProof {
    #[n(0)]
    pub origin: Origin,
    /// Index of the first leaf.
    #[n(1)]
    pub first: u64,
    /// The peaks of the tree before it.
    #[n(2)]
    pub peaks: Vec<ByteArray<32>>,
    /// Leaf hashes from there on.
    #[n(3)]
    pub leaves: Vec<ByteArray<32>>,
    /// Consistency of the tree that ends with them.
    #[n(4)]
    pub proof: Vec<ByteArray<32>>,
    #[n(5)]
    pub checkpoint: String,
}

impl Transfers {
    pub(super) fn offered(&mut self, division: &DivisionId, offer: &TransferOffer) {
        if offer.origin.division() != *division || self.offers.contains_key(&offer.id) {
            return;
        }
        self.newest
            .insert((offer.origin.clone(), offer.record), offer.id);
        self.offers.insert(offer.id, offer.clone());
    }

    pub(super) fn answered(&mut self, division: &DivisionId, answer: &TransferAnswer) {
        let at = (division.clone(), answer.transfer);
        if self.answers.contains_key(&at) {
            return;
        }
        if let TransferWord::Accepted(acceptance) = &answer.word {
            let entry = (acceptance.origin.clone(), acceptance.index);
            self.claims.entry(entry).or_default().push(at.clone());
        }
        self.answers.insert(at, answer.clone());
    }

    pub(super) fn stepped(&mut self, division: &DivisionId, step: &TransferStep) {
        let at = (division.clone(), step.transfer);
        match step.event {
            TransferEvent::Withdrawn => {
                self.withdrawn.insert(at);
            }
            TransferEvent::Erased { plan } => {
                self.erased.entry(at).or_insert(plan);
            }
        }
    }

    pub(super) fn moving(&mut self, division: &DivisionId, moving: &Moving) {
        match moving {
            Moving::Offered(offer) => self.batch_offered(division, offer),
            Moving::Answered(answer) => self.batch_answered(division, answer),
        }
    }

    fn batch_offered(&mut self, division: &DivisionId, offer: &BatchOffer) {
        let distinct: BTreeSet<RecordId> = offer.items.iter().map(|item| item.record).collect();
        let Some(items) = u16::try_from(offer.items.len())
            .ok()
            .filter(|items| usize::from(*items) <= BATCH_RECORDS_MAX)
        else {
            return;
        };
        let known = self.batches.contains_key(&offer.id) || self.offers.contains_key(&offer.id);
        if offer.origin.division() != *division || distinct.len() != offer.items.len() || known {
            return;
        }
        let batch = Batch {
            id: offer.id,
            plan: offer.plan,
            origin: offer.origin.clone(),
            to: offer.to.clone(),
            items,
        };
        for (id, item) in batch.ids().zip(&offer.items) {
            self.carried.insert(id, offer.id);
            let one = TransferOffer {
                id,
                origin: offer.origin.clone(),
                record: item.record,
                version: item.version,
                leaf: item.leaf,
                content: item.content,
                to: offer.to.clone(),
                basis: offer.basis.clone(),
                offered_at: offer.offered_at,
                closed_at: item.closed_at,
            };
            self.offered(division, &one);
        }
        self.batches.insert(offer.id, batch);
    }

    /// An answer may be learned before what it answers: places alone say which record is meant.
    fn batch_answered(&mut self, division: &DivisionId, answer: &BatchAnswer) {
        let at = (division.clone(), answer.batch);
        if self.proofs.contains_key(&at) {
            return;
        }
        let refused: BTreeMap<u16, _> = answer.refused.iter().map(|r| (r.place, r)).collect();
        if refused.len() != answer.refused.len() {
            return;
        }
        let mut words: Vec<(u16, TransferWord)> = Vec::new();
        for refusal in &answer.refused {
            let reason = refusal.reason.clone();
            words.push((refusal.place, TransferWord::Refused { reason }));
        }
        let mut proof = None;
        if let Some(acceptance) = &answer.acceptance {
            let mut places = (0..).filter(|place| !refused.contains_key(place));
            let mut leaves = Vec::with_capacity(acceptance.leaves.len());
            for (index, leaf) in (acceptance.first..).zip(&acceptance.leaves) {
                let bytes: &[u8] = leaf;
                if let Ok(hash) = <[u8; 32]>::try_from(bytes) {
                    leaves.push(hash.into());
                    continue;
                }
                leaves.push(ledger::hash::leaf_hash(bytes).into());
                let Some(place) = places.next() else { return };
                let one = Acceptance {
                    origin: acceptance.origin.clone(),
                    index,
                    entry: leaf.clone(),
                    // That of the batch is the proof.
                    proof: Vec::new(),
                    checkpoint: String::new(),
                };
                words.push((place, TransferWord::Accepted(one)));
            }
            proof = Some(BatchProof {
                origin: acceptance.origin.clone(),
                first: acceptance.first,
                peaks: acceptance.peaks.clone(),
                leaves,
                proof: acceptance.proof.clone(),
                checkpoint: acceptance.checkpoint.clone(),
            });
        }
        if words.len() > BATCH_RECORDS_MAX {
            return;
        }
        for (place, word) in words {
            let one = TransferAnswer {
                transfer: item_id(&answer.batch, place),
                origin: answer.origin.clone(),
                word,
            };
            self.answered(division, &one);
        }
        self.proofs.insert(at, proof);
    }

    pub(super) fn closed(&mut self, division: &DivisionId, closed: &ShardClosed) {
        let own = closed.origin.division() == *division && closed.origin.is_shard();
        let named = (1..=SUCCESSORS_MAX).contains(&closed.successors.len());
        if !own || !named {
            return;
        }
        let all = self.closings.entry(closed.origin.clone()).or_default();
        // One more than counts is enough to know that there was one.
        if all.len() < 2 && !all.contains(closed) {
            all.push(closed.clone());
        }
    }

    /// Between whom records move or were to move.
    pub(super) fn dealings(&self) -> impl Iterator<Item = (DivisionId, DivisionId)> {
        let offers = self.offers.values();
        let offers = offers.map(|offer| (offer.origin.division(), offer.to.clone()));
        let answers = self.answers.iter();
        offers.chain(answers.map(|((by, _), answer)| (by.clone(), answer.origin.division())))
    }
}

impl Authority {
    /// The grant that carries a transfer: its own, or that of its batch.
    pub(crate) fn carrier(&self, transfer: &GrantId) -> GrantId {
        let carried = self.transfers.carried.get(transfer);
        carried.copied().unwrap_or(*transfer)
    }

    /// Whether a transfer is of a record of a batch.
    pub(crate) fn is_carried(&self, transfer: &GrantId) -> bool {
        self.transfers.carried.contains_key(transfer)
    }

    /// An offer, when the grant that carries it is known and says the same.
    pub(crate) fn offer(&self, id: &GrantId) -> Option<&TransferOffer> {
        let offer = self.transfers.offers.get(id)?;
        let grant = self.grant(&self.carrier(id))?;
        (grant.origin == offer.origin && grant.holder == offer.to).then_some(offer)
    }

    /// How an offer ended, if its owner ended it: a record of a batch with all others of it.
    pub(crate) fn offer_ended(&self, offer: &TransferOffer) -> Option<&GrantEnded> {
        self.grant_ended(&self.carrier(&offer.id))
    }

    /// Every offer known.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &TransferOffer> {
        self.transfers.offers.values()
    }

    /// Every offer of one record by itself.
    pub(crate) fn single_offers(&self) -> impl Iterator<Item = &TransferOffer> {
        let all = self.transfers.offers.values();
        all.filter(|offer| !self.is_carried(&offer.id))
    }

    /// The newest offer of a record of a shard.
    pub(crate) fn offer_of(&self, origin: &Origin, record: &RecordId) -> Option<&TransferOffer> {
        let at = (origin.clone(), *record);
        self.offer(self.transfers.newest.get(&at)?)
    }

    /// The first word of the division that an offer was made to.
    pub(crate) fn answer(&self, offer: &TransferOffer) -> Option<&TransferAnswer> {
        let at = (offer.to.clone(), offer.id);
        let answer = self.transfers.answers.get(&at)?;
        (answer.origin == offer.origin).then_some(answer)
    }

    /// The offers whose acceptance names an entry.
    pub(crate) fn claimants(
        &self,
        origin: &Origin,
        index: u64,
    ) -> impl Iterator<Item = &TransferOffer> {
        let at = (origin.clone(), index);
        let named = self.transfers.claims.get(&at).into_iter().flatten();
        named.filter_map(|(division, id)| {
            let offer = self.offer(id).filter(|offer| offer.to == *division)?;
            self.answer(offer).map(|_| offer)
        })
    }

    /// Whether its owner took an offer back: itself, or the plan of its batch.
    pub(crate) fn withdrawn(&self, offer: &TransferOffer) -> bool {
        let at = (offer.origin.division(), offer.id);
        if let Some(batch) = self.transfers.carried.get(&offer.id) {
            let batch = self.transfers.batches.get(batch);
            return batch.is_some_and(|batch| {
                self.plan_closed(&batch.plan) == Some(record::plan::Outcome::Withdrawn)
            });
        }
        self.transfers.withdrawn.contains(&at)
    }

    /// The plan under which the new owner erased a record that moved.
    pub(crate) fn erased_there(&self, offer: &TransferOffer) -> Option<Hash> {
        let at = (offer.to.clone(), offer.id);
        self.transfers.erased.get(&at).copied()
    }

    /// The offers of records of batches that were erased where they moved.
    pub(crate) fn erased_in_batches(&self) -> impl Iterator<Item = (&TransferOffer, Hash)> {
        self.transfers.erased.iter().filter_map(|((to, id), plan)| {
            let offer = self.offer(id).filter(|offer| offer.to == *to)?;
            self.is_carried(id).then_some((offer, *plan))
        })
    }

    /// Every batch whose grant is known and says the same.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Batch> {
        let all = self.transfers.batches.values();
        all.filter(|batch| self.batch(&batch.id).is_some())
    }

    /// A batch, when its grant is known and says the same.
    pub(crate) fn batch(&self, id: &GrantId) -> Option<&Batch> {
        let batch = self.transfers.batches.get(id)?;
        let grant = self.grant(id)?;
        (grant.origin == batch.origin && grant.holder == batch.to).then_some(batch)
    }

    /// Whether the division that a batch was offered to answered it.
    pub(crate) fn batch_answered(&self, batch: &Batch) -> bool {
        let at = (batch.to.clone(), batch.id);
        self.transfers.proofs.contains_key(&at)
    }

    /// The proof that came with the answer to a batch.
    pub(crate) fn batch_proof(&self, batch: &GrantId) -> Option<&BatchProof> {
        let to = &self.transfers.batches.get(batch)?.to;
        let at = (to.clone(), *batch);
        self.transfers.proofs.get(&at)?.as_ref()
    }

    /// How a shard was closed; the first word of its owner counts.
    pub(crate) fn closing(&self, origin: &Origin) -> Option<&ShardClosed> {
        self.transfers.closings.get(origin)?.first()
    }

    /// Every shard that was closed, with what its owner stated first, and whether it stated another.
    pub(crate) fn closings(&self) -> impl Iterator<Item = (&ShardClosed, bool)> {
        let all = self.transfers.closings.values();
        all.filter_map(|stated| Some((stated.first()?, stated.len() > 1)))
    }

    /// Whether a division signed that it destroyed what it held of a record of a shard.
    pub(crate) fn has_receipt(
        &self,
        division: &DivisionId,
        origin: &Origin,
        record: &RecordId,
    ) -> bool {
        let of =
            (division.clone(), origin.clone(), 0)..=(division.clone(), origin.clone(), u64::MAX);
        let mut all = self.receipts.range(of);
        all.any(|(_, receipt)| receipt.record == Some(*record))
    }
}
