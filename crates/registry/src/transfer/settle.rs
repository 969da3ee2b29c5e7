//! What nodes do for transfers by themselves (自动办结): answer, close, and pass an erasure on.
//!
//! Every step is found from the ledgers, may be tried again at any time, and is gone on with at every
//! start: the new owner states an acceptance once it is cosigned, and refuses what was withdrawn or
//! is past its time; the old owner writes `transfer-out` once it knows the proof, then ends the
//! grant; what the new owner erased is erased here. Refuses to undo anything.

use std::sync::PoisonError;

use minicbor::bytes::ByteArray;
use record::authority::Statement;
use record::entry::{Operation, RecordEntry, SUITE};
use record::id::{Hash, Kind, Origin, UnixMillis};
use record::transfer::{
    Acceptance, TransferAnswer, TransferEvent, TransferOffer, TransferStep, TransferWord,
};
use sha2::{Digest, Sha256};

use super::{Moved, PURPOSE, cut_here};
use crate::erase::Ending;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock, purpose, word};
use crate::table::{self, Head, Tiles};

impl Registry {
    /// [`Registry::tend_transfers`] where a failure is no reason to stop: it is tried again later.
    pub(crate) fn go_on_transferring(&self, now: UnixMillis) {
        if let Err(error) = self.tend_transfers(now) {
            tracing::warn!(%error, "a transfer is not finished; it is gone on with later");
        }
    }

    /// Does for transfers what can be done at present.
    ///
    /// # Errors
    /// A failure of the store; nothing is lost, and the next call goes on.
    pub fn tend_transfers(&self, now: UnixMillis) -> Result<()> {
        if self.keys.is_locked() {
            return Ok(());
        }
        let own = &self.config.division;
        let offers: Vec<TransferOffer> = {
            let authority = self.authority();
            let mine = |offer: &&TransferOffer| offer.origin.division() == *own || offer.to == *own;
            let settled = lock(&self.transfers.settled);
            let open = authority
                .single_offers()
                .filter(|offer| !settled.contains(&offer.id));
            open.filter(mine).cloned().collect()
        };
        let mut erased = false;
        {
            let _one = lock(&self.transfers.one);
            erased |= self.tend_batches(now)?;
            for offer in offers.iter().filter(|offer| offer.to == *own) {
                self.answer_offer(offer, now)?;
            }
            for offer in offers.iter().filter(|o| o.origin.division() == *own) {
                erased |= self.settle_offer(offer, now)?;
            }
            // Last: what was erased above may itself have come from elsewhere.
            self.tell_erasures(&offers, now)?;
        }
        if erased {
            cut_here(10)?;
            self.finish_destroying(now)?;
        }
        Ok(())
    }

    /// The new owner's word: yes once it is cosigned, no when it cannot be yes any more.
    fn answer_offer(&self, offer: &TransferOffer, now: UnixMillis) -> Result<()> {
        let (over, answered) = {
            let authority = self.authority();
            let over = match authority.grant(&offer.id) {
                _ if authority.withdrawn(offer) => Some("withdrawn"),
                _ if authority.grant_ended(&offer.id).is_some() => Some("ended"),
                Some(grant) if grant.not_after <= now => Some("expired"),
                _ => None,
            };
            (over, authority.answer(offer).is_some())
        };
        if answered {
            if over.is_some() && self.moved_to(offer).is_none() {
                lock(&self.transfers.settled).insert(offer.id);
            }
            return Ok(());
        }
        let word = match self.arrived(offer)? {
            Some(arrived) => self.acceptance(&arrived)?.map(TransferWord::Accepted),
            None => over.map(|reason| TransferWord::Refused {
                reason: word(reason),
            }),
        };
        let Some(word) = word else {
            return Ok(());
        };
        cut_here(4)?;
        let answer = TransferAnswer {
            transfer: offer.id,
            origin: offer.origin.clone(),
            word,
        };
        let signer = self.service(purpose(PURPOSE));
        self.state(vec![Statement::TransferAnswer(answer)], &signer, now)?;
        cut_here(5)
    }

    /// The proof that what arrived is under a cosigned checkpoint; none while it is not.
    fn acceptance(&self, arrived: &Moved) -> Result<Option<Acceptance>> {
        let (origin, at) = (&arrived.origin, arrived.index);
        let store = self.store.as_ref();
        let Some(note) = Head::read(store, origin)?.cosigned else {
            return Ok(None);
        };
        let size = checkpoint_of(&note)?.size();
        if size <= at {
            return Ok(None);
        }
        let damaged = |e: String| RegistryError::damaged(format!("`{origin}` {at}: {e}"));
        let proof = ledger::proof::inclusion(&Tiles { store, origin }, at, size)
            .map_err(|e| damaged(e.to_string()))?;
        let entry = store
            .get(&table::entry(origin, at))?
            .ok_or_else(|| damaged("it is not here".into()))?;
        Ok(Some(Acceptance {
            origin: origin.clone(),
            index: at,
            entry: entry.into(),
            proof: proof.into_iter().map(ByteArray::from).collect(),
            checkpoint: note,
        }))
    }

    /// The old owner's side; `true` when it erased what it had of a record.
    fn settle_offer(&self, offer: &TransferOffer, now: UnixMillis) -> Result<bool> {
        let moved = self.moved_to(offer).is_some();
        let (ended, refused, revoked, erased, claimed) = {
            let authority = self.authority();
            let word = authority.answer(offer).map(|answer| &answer.word);
            let claimed = matches!(word, Some(TransferWord::Accepted(_)));
            let refused = match word {
                Some(TransferWord::Refused { reason }) => Some(reason.clone()),
                _ => None,
            };
            let charter = authority.charter(&offer.to).map(|charter| charter.id());
            (
                authority.grant_ended(&offer.id).is_some(),
                refused,
                charter.is_some_and(|charter| authority.revoked(&charter)),
                authority.erased_there(offer),
                claimed,
            )
        };
        if moved {
            self.write_transfer_out(offer, now)?;
            if !ended {
                cut_here(6)?;
                self.end_offer(offer, &word("transferred"), now)?;
            }
            cut_here(7)?;
            return match erased {
                Some(plan) => self.erase_here(offer, &plan, now),
                None => Ok(false),
            };
        }
        if ended {
            return Ok(false);
        }
        if claimed {
            let ledger = Origin::new(&offer.origin.realm(), &offer.to, &word("authority"));
            let why = format!(
                "`{0}` 称已接收迁移 {1}，证明不成立 / `{0}` claims to have accepted transfer {1}, and its proof does not hold",
                offer.to, offer.id
            );
            self.alarm(&ledger, "transfer", &why, vec![], now);
        }
        if let Some(reason) = refused {
            self.end_offer(offer, &reason, now)?;
        } else if revoked {
            // Whoever has no charter answers nothing any more that would be believed.
            self.end_offer(offer, &word("charter-revoked"), now)?;
        }
        Ok(false)
    }

    fn end_offer(&self, offer: &TransferOffer, reason: &Kind, now: UnixMillis) -> Result<()> {
        let signer = self.service(purpose(PURPOSE));
        self.close_grant(&offer.id, reason, &signer, now)
    }

    /// Closes the record here, once.
    fn write_transfer_out(&self, offer: &TransferOffer, now: UnixMillis) -> Result<()> {
        self.write_transfers_out(&offer.origin, std::slice::from_ref(offer), now)
    }

    /// Closes records of an own shard that moved, each once, in one commit.
    pub(crate) fn write_transfers_out(
        &self,
        origin: &Origin,
        offers: &[TransferOffer],
        now: UnixMillis,
    ) -> Result<()> {
        let holding = self.holding(origin)?;
        let book = self.book(origin)?;
        let mut book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let mut leaving = Vec::with_capacity(offers.len());
        for offer in offers {
            let last = self.last_event(origin, &offer.record, u64::MAX)?;
            let gone = last.is_none_or(|(_, entry)| {
                matches!(entry.operation, Operation::TransferOut | Operation::Erase)
            });
            let Some(newest) = self.newest(origin, &offer.record)?.filter(|_| !gone) else {
                continue;
            };
            let before = self.newest_entry(origin, &newest)?;
            let body = offer.id.0.to_vec();
            let entry = RecordEntry {
                suite: SUITE,
                record: offer.record,
                version: newest.version + 1,
                operation: Operation::TransferOut,
                previous: Some(newest.leaf),
                schema: before.schema,
                epoch: before.epoch,
                content: before.content,
                body: Hash::from(Sha256::digest(&body)),
                recorded_at: now,
            };
            leaving.push(Ending {
                entry,
                before: newest,
                body,
            });
        }
        if leaving.is_empty() {
            return Ok(());
        }
        let signer = self.service(purpose(PURPOSE));
        self.append_last(&mut book, &mut holding, &leaving, &signer, now)?;
        drop(holding);
        drop(book);
        self.changed();
        Ok(())
    }

    /// Erases what is left here of a record that its new owner erased.
    pub(crate) fn erase_here(
        &self,
        offer: &TransferOffer,
        plan: &Hash,
        now: UnixMillis,
    ) -> Result<bool> {
        let last = self.last_event(&offer.origin, &offer.record, u64::MAX)?;
        if last.is_none_or(|(_, entry)| entry.operation == Operation::Erase) {
            lock(&self.transfers.settled).insert(offer.id);
            return Ok(false);
        }
        cut_here(9)?;
        let signer = self.service(purpose(PURPOSE));
        self.erase_records(&offer.origin, &[offer.record], plan, &signer, now)?;
        Ok(true)
    }

    /// Tells the old owners of records that came and were erased here since.
    fn tell_erasures(&self, offers: &[TransferOffer], now: UnixMillis) -> Result<()> {
        let own = &self.config.division;
        for offer in offers.iter().filter(|offer| offer.to == *own) {
            let Some(moved) = self.moved_to(offer) else {
                continue;
            };
            if self.authority().erased_there(offer).is_some() {
                if offer.origin.division() != *own {
                    lock(&self.transfers.settled).insert(offer.id);
                }
                continue;
            }
            let last = self.last_event(&moved.origin, &moved.record, u64::MAX)?;
            let Some((at, entry)) = last.filter(|(_, e)| e.operation == Operation::Erase) else {
                continue;
            };
            self.tell_erasure(offer, &moved, (at, &entry), now)?;
        }
        Ok(())
    }

    /// Tells the old owner under which plan a record that came was erased.
    pub(crate) fn tell_erasure(
        &self,
        offer: &TransferOffer,
        moved: &Moved,
        (at, entry): (u64, &RecordEntry),
        now: UnixMillis,
    ) -> Result<()> {
        let body = self.body(&moved.origin, at)?;
        let plan: Hash = body.as_slice().try_into().map_err(|_| {
            RegistryError::damaged(format!(
                "`{}` {at}: erasure {} names no plan",
                moved.origin, entry.version
            ))
        })?;
        cut_here(8)?;
        let step = TransferStep {
            transfer: offer.id,
            origin: offer.origin.clone(),
            event: TransferEvent::Erased { plan },
        };
        let signer = self.service(purpose(PURPOSE));
        self.state(vec![Statement::TransferStep(step)], &signer, now)?;
        Ok(())
    }
}
