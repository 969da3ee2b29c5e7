//! What the authority ledgers say of records that move (迁移).
//!
//! Owns whose word counts: an offer and its withdrawal in the ledger of the shard's own division,
//! the first answer and the erasure in that of the division to which the offer was made. What
//! anybody else states of a transfer is kept under their name and never asked for.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use record::id::{DivisionId, GrantId, Hash, Origin, RecordId};
use record::transfer::{TransferAnswer, TransferEvent, TransferOffer, TransferStep};

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
        self.answers.entry(at).or_insert_with(|| answer.clone());
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
}

impl Authority {
    /// An offer, when the grant that carries it is known and says the same.
    pub(crate) fn offer(&self, id: &GrantId) -> Option<&TransferOffer> {
        let offer = self.transfers.offers.get(id)?;
        let grant = self.grant(id)?;
        (grant.origin == offer.origin && grant.holder == offer.to).then_some(offer)
    }

    /// Every offer known.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &TransferOffer> {
        self.transfers.offers.values()
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

    /// Whether its owner took an offer back.
    pub(crate) fn withdrawn(&self, offer: &TransferOffer) -> bool {
        let at = (offer.origin.division(), offer.id);
        self.transfers.withdrawn.contains(&at)
    }

    /// The plan under which the new owner erased a record that moved.
    pub(crate) fn erased_there(&self, offer: &TransferOffer) -> Option<Hash> {
        let at = (offer.to.clone(), offer.id);
        self.transfers.erased.get(&at).copied()
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
