//! What both nodes do for batches by themselves: answer, close, pass erasures on, close the shard.
//!
//! Every step is found from the ledgers and may be tried again at any time. Owns also whether the one
//! proof of a batch holds. Refuses to end a batch while a record of it that is said to have moved is
//! not proven to have.

use ledger::frontier::Frontier;
use record::id::{Hash, Kind, Origin, UnixMillis};
use record::transfer::{TransferOffer, TransferWord};

use crate::authority::transfers::{Batch, BatchProof};
use crate::error::Result;
use crate::node::{Registry, lock, purpose, word};
use crate::transfer::{Moved, PURPOSE, cut_here};

impl Registry {
    /// Does for batches what can be done at present; `true` when a record was erased here. The caller
    /// holds the desk.
    pub(crate) fn tend_batches(&self, now: UnixMillis) -> Result<bool> {
        self.answer_batches(now)?;
        let own = &self.config.division;
        let outgoing: Vec<Batch> = {
            let authority = self.authority();
            let open = { authority.batches() }
                .filter(|batch| batch.origin.division() == *own)
                .filter(|batch| authority.grant_ended(&batch.id).is_none());
            open.cloned().collect()
        };
        for batch in &outgoing {
            self.settle_batch(batch, now)?;
        }
        let erased: Vec<(TransferOffer, Hash)> = {
            let authority = self.authority();
            let settled = lock(&self.transfers.settled);
            let mine = { authority.erased_in_batches() }.filter(|(offer, _)| {
                offer.origin.division() == *own && !settled.contains(&offer.id)
            });
            mine.map(|(offer, plan)| (offer.clone(), plan)).collect()
        };
        let mut any = false;
        for (offer, plan) in &erased {
            // Closed first: what was never seen to move is not erased on another's word.
            let over = self.authority().offer_ended(offer).is_some();
            if over && self.moved_to(offer).is_some() {
                any |= self.erase_here(offer, plan, now)?;
            }
        }
        // After what was erased above, which may itself have come from elsewhere.
        self.tell_batch_erasures(now)?;
        self.close_empty(now)?;
        self.check_closings(now)?;
        Ok(any)
    }

    /// The old owner's side of a batch.
    fn settle_batch(&self, batch: &Batch, now: UnixMillis) -> Result<()> {
        let (answered, revoked) = {
            let authority = self.authority();
            let charter = authority.charter(&batch.to).map(|charter| charter.id());
            (
                authority.batch_answered(batch),
                charter.is_some_and(|charter| authority.revoked(&charter)),
            )
        };
        if !answered {
            // Whoever has no charter answers nothing any more that would be believed.
            return match revoked {
                true => self.end_batch(batch, &word("charter-revoked"), now),
                false => Ok(()),
            };
        }
        let offers = self.batch_offers(batch);
        let (mut moved, mut claimed) = (Vec::new(), 0);
        for offer in offers {
            let accepted = matches!(
                self.authority().answer(&offer).map(|answer| &answer.word),
                Some(TransferWord::Accepted(_))
            );
            claimed += usize::from(accepted);
            if accepted && self.moved_to(&offer).is_some() {
                moved.push(offer);
            }
        }
        let reason = match moved.is_empty() {
            true => "refused",
            false => "transferred",
        };
        self.write_transfers_out(&batch.origin, &moved, now)?;
        if moved.len() < claimed {
            let ledger = Origin::new(&batch.origin.realm(), &batch.to, &word("authority"));
            let why = format!(
                "`{0}` 称已接收批次 {1}，证明不成立 / `{0}` claims to have taken batch {1}, and its proof does not hold",
                batch.to, batch.id
            );
            self.alarm(&ledger, "transfer", &why, vec![], now);
            return match revoked {
                true => self.end_batch(batch, &word("charter-revoked"), now),
                false => Ok(()),
            };
        }
        cut_here(27)?;
        self.end_batch(batch, &word(reason), now)?;
        cut_here(28)
    }

    fn end_batch(&self, batch: &Batch, reason: &Kind, now: UnixMillis) -> Result<()> {
        let signer = self.service(purpose(PURPOSE));
        self.close_grant(&batch.id, reason, &signer, now)
    }

    /// Whether an entry is among those that the proof of its batch is for, and the proof holds.
    pub(crate) fn is_in_proven_batch(&self, offer: &TransferOffer, moved: &Moved) -> bool {
        let (batch, proof) = {
            let authority = self.authority();
            let batch = authority.carrier(&offer.id);
            (batch, authority.batch_proof(&batch).cloned())
        };
        let Some(proof) = proof else { return false };
        let place = moved.index.checked_sub(proof.first);
        let leaf = place
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| proof.leaves.get(place));
        if proof.origin != moved.origin || leaf.is_none_or(|leaf| **leaf != moved.leaf) {
            return false;
        }
        if lock(&self.transfers.proven_batches).contains(&batch) {
            return true;
        }
        let holds = self.batch_proof_holds(&proof);
        if holds {
            lock(&self.transfers.proven_batches).insert(batch);
        }
        holds
    }

    fn batch_proof_holds(&self, proof: &BatchProof) -> bool {
        let peaks = proof.peaks.iter().map(|hash| **hash).collect();
        let Ok(mut frontier) = Frontier::from_parts(proof.first, peaks) else {
            return false;
        };
        for leaf in &proof.leaves {
            frontier.append(**leaf);
        }
        let Some(checkpoint) = self.cosigned_checkpoint(&proof.origin, &proof.checkpoint) else {
            return false;
        };
        let path: Vec<Hash> = proof.proof.iter().map(|hash| **hash).collect();
        let (size, root) = (checkpoint.size(), checkpoint.root());
        ledger::proof::verify_consistency(frontier.size(), &frontier.root(), size, root, &path)
            .is_ok()
    }
}
