//! Taking a batch: the new owner registers what was offered, under its own keys, and says so once it
//! is cosigned.
//!
//! All records of a batch come in one act and one commit, each with every version, so a batch is
//! here or it is not. That their `content` is here is how it is known again: what a crash or a
//! recovery leaves, the ledger says. Refuses a batch under a plan that two officers of the old owner
//! did not approve, or that two here did not say to take; and of a batch, a record that is registered
//! here already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use ledger::hash::leaf_hash;
use ledger::tile::TreeEdge;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use record::authority::Statement;
use record::cbor;
use record::id::{GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::moving::{BATCH_VERSIONS_MAX, BatchAcceptance, BatchAnswer, BatchRefusal, Moving};
use record::plan::Work;
use record::schema::Position;
use record::transfer::{TransferOffer, TransferWord};
use seal::secret::RecordSecret;

use crate::authority::transfers::Batch;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::keys::rng;
use crate::node::{Registry, lock, purpose, word};
use crate::table::{self, Head, Newest, Tiles};
use crate::transfer::count::Came;
use crate::transfer::offer::VERSIONS_MAX;
use crate::transfer::{PURPOSE, cut_here};

/// What was not taken of a batch and why, as it is kept until it is stated.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
struct NotTaken {
    #[n(0)]
    refused: Vec<BatchRefusal>,
}

fn row_key(batch: &GrantId) -> Vec<u8> {
    [b"batch".as_slice(), &batch.0].concat()
}

/// A record that comes, sealed under this node's keys.
struct Coming {
    record: RecordId,
    secret: RecordSecret,
    package: crate::transfer::accept::Package,
    texts: BTreeMap<Position, String>,
}

impl Registry {
    /// The offers of a batch, in order.
    pub(crate) fn batch_offers(&self, batch: &Batch) -> Vec<TransferOffer> {
        let authority = self.authority();
        let offers = batch.ids().filter_map(|id| authority.offer(&id));
        offers.cloned().collect()
    }

    /// Batches to this node that it has not answered.
    fn incoming(&self) -> Vec<Batch> {
        let authority = self.authority();
        let mine = { authority.batches() }
            .filter(|batch| batch.to == self.config.division && !authority.batch_answered(batch));
        mine.cloned().collect()
    }

    /// Why a batch cannot be taken any more.
    fn batch_over(&self, batch: &Batch, now: UnixMillis) -> Option<&'static str> {
        let authority = self.authority();
        if authority.grant_ended(&batch.id).is_some() {
            return Some("ended");
        }
        if authority.plan_closed(&batch.plan) == Some(record::plan::Outcome::Withdrawn) {
            return Some("withdrawn");
        }
        if !authority.is_received(&batch.plan, &batch.to) {
            // Never agreed to here, or not any more.
            return Some("not-agreed");
        }
        let grant = authority.grant(&batch.id)?;
        (grant.not_after <= now).then_some("expired")
    }

    /// Whether officers of both sides want it: a plan of the old owner that names this shard and this
    /// node, and one here that takes it.
    fn is_wanted(&self, batch: &Batch) -> bool {
        let authority = self.authority();
        let plan = authority.moving_plan(&batch.plan);
        plan.is_some_and(|plan| {
            matches!(&plan.work, Work::MoveShard { origin, to, .. }
                if *origin == batch.origin && *to == batch.to)
                && authority.was_approved(plan)
                && authority.is_received(&batch.plan, &batch.to)
        })
    }

    /// Registers one batch that was offered to this node; `true` when it did.
    pub(super) fn take_batch(&self, now: UnixMillis) -> Result<bool> {
        for batch in self.incoming() {
            let ready = self.batch_over(&batch, now).is_none() && self.is_wanted(&batch);
            if !ready {
                continue;
            }
            let _one = lock(&self.transfers.one);
            // The row alone is of a registration that a crash may have cut off.
            let none = { self.not_taken(&batch)? }
                .is_some_and(|refused| refused.len() == usize::from(batch.items));
            if none || !self.arrived_of(&batch)?.is_empty() {
                continue;
            }
            match self.register_batch(&batch, now) {
                Ok(()) => return Ok(true),
                // Not all of it has come.
                Err(RegistryError::BadRequest(_)) => {}
                Err(error @ RegistryError::Damaged { .. }) => {
                    // What is not what was offered never will be.
                    let why = format!(
                        "批次 {0} 与所提不符，未接收：{error} / batch {0} is not what was offered and was not taken: {error}",
                        batch.id
                    );
                    self.alarm(&batch.origin, "transfer", &why, vec![], now);
                    self.keep_not_taken(&batch, &refuse_all(&batch, "not-proven"))?;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn not_taken(&self, batch: &Batch) -> Result<Option<Vec<BatchRefusal>>> {
        let row = self
            .store
            .get(&table::local(table::MOVING, &row_key(&batch.id)))?;
        let row: Option<NotTaken> = row
            .map(|bytes| table::decode("batch", &bytes))
            .transpose()?;
        Ok(row.map(|row| row.refused))
    }

    fn keep_not_taken(&self, batch: &Batch, refused: &[BatchRefusal]) -> Result<()> {
        let row = NotTaken {
            refused: refused.to_vec(),
        };
        self.keep_local(table::MOVING, &row_key(&batch.id), cbor::to_vec(&row))
    }

    /// Opens a batch, and registers what of it is not here yet, in one commit.
    fn register_batch(&self, batch: &Batch, now: UnixMillis) -> Result<()> {
        let kind = batch.origin.ledger();
        let schema = self.schema(&kind)?;
        let shard = self.shard(&kind);
        if self.authority().closing(&shard).is_some() {
            return self.keep_not_taken(batch, &refuse_all(batch, "closed"));
        }
        let grant = self.authority().grant(&batch.id).cloned();
        let grant = grant.ok_or_else(|| RegistryError::damaged("a batch without its grant"))?;
        let offers = self.batch_offers(batch);
        let most = match offers.len() {
            1 => VERSIONS_MAX,
            _ => BATCH_VERSIONS_MAX,
        };
        let (sender, mut parcels) = self.open_sender(&grant, most)?;
        let mut rng = rng()?;
        let mut coming = Vec::with_capacity(offers.len());
        for offer in &offers {
            let of = parcels.remove(&offer.record).unwrap_or_default();
            let package = self.open_record(&sender, offer, of)?;
            let mut record = [0u8; 16];
            rand_core::Rng::fill_bytes(&mut rng, &mut record);
            coming.push(Coming {
                record: RecordId(record),
                secret: RecordSecret::generate(&mut rng),
                texts: package.texts(),
                package,
            });
        }
        let holding = self.holding(&shard)?;
        let book = self.book(&shard)?;
        // From here to the commit nobody else writes this shard.
        let mut book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let unique: Vec<Position> = { schema.fields.iter() }
            .filter(|field| field.unique)
            .map(|field| field.position)
            .collect();
        let mut refused = Vec::new();
        let mut seen: BTreeSet<(Position, &str)> = BTreeSet::new();
        let mut taken: Vec<&Coming> = Vec::with_capacity(coming.len());
        for (place, one) in (0u16..).zip(&coming) {
            // What is out of force is in nobody's way.
            let counts = one.package.operation == record::entry::Operation::TransferIn;
            let values = { unique.iter().filter(|_| counts) }
                .filter_map(|at| Some((*at, one.texts.get(at)?.as_str())));
            let values: Vec<_> = values.collect();
            let double = values.iter().any(|(at, value)| {
                holding.index.exists(*at, value).is_some() || seen.contains(&(*at, *value))
            });
            if double {
                let reason = word("registered-already");
                refused.push(BatchRefusal { place, reason });
                continue;
            }
            seen.extend(values);
            taken.push(one);
        }
        // First: what of the reasons a crash loses is only why.
        self.keep_not_taken(batch, &refused)?;
        if taken.is_empty() {
            return Ok(());
        }
        let secrets: Vec<_> = taken.iter().map(|one| (one.record, &one.secret)).collect();
        let page = self.keep_secrets(&secrets)?;
        cut_here(23)?;
        let mut leaves = Vec::new();
        // For each record, where its newest version lies behind the first entry.
        let mut last = Vec::with_capacity(taken.len());
        for one in &taken {
            let sealed = self.sealed_here(&holding, &one.package, one.record, &one.secret, now)?;
            leaves.extend(sealed);
            last.push(leaves.len() - 1);
        }
        let signer = self.service(purpose(PURPOSE));
        let appended = self.append(&mut book, &signer, leaves, now, |out, first, hashes| {
            crate::secrets::point_to(out, &shard, page);
            for (one, last) in taken.iter().zip(&last) {
                let version = one.package.versions.len() as u64;
                let newest = Newest {
                    at: first + *last as u64,
                    version,
                    leaf: hashes[*last],
                    page: page.page,
                    offset: page.offset,
                    length: page.len,
                };
                let row = table::key(&shard, table::RECORD, &one.record.0);
                out.put(row, cbor::to_vec(&newest));
                let row = table::key(&shard, table::MOVED_IN, &one.record.0);
                out.put(row, cbor::to_vec(&one.package.provenance));
            }
        })?;
        for (one, last) in taken.iter().zip(&last) {
            let version = one.package.versions.len() as u64;
            let at = appended.first + *last as u64;
            holding.index.upsert(one.record, version, at, &one.texts);
        }
        holding.index.set_applied(appended.size);
        drop(holding);
        drop(book);
        self.counters.registered(taken.len() as u64);
        self.changed();
        cut_here(24)
    }

    /// The places of a batch whose records are here, each with its newest `transfer-in`.
    pub(super) fn arrived_of(&self, batch: &Batch) -> Result<BTreeMap<u16, Came>> {
        let shard = self.shard(&batch.origin.ledger());
        if batch.to != self.config.division || Head::read(self.store.as_ref(), &shard)?.size == 0 {
            return Ok(BTreeMap::new());
        }
        let offers = self.batch_offers(batch);
        let wanted: BTreeMap<(Hash, u64), u16> = (0u16..)
            .zip(&offers)
            .map(|(place, offer)| ((offer.content, offer.version), place))
            .collect();
        let tally = self.tally(&shard)?;
        let authority = self.authority();
        let here = tally.came.into_values().filter_map(|came| {
            let place = wanted.get(&(came.content, came.version))?;
            // It may have been here before: then another transfer is proven by that entry.
            let other = authority.claimants(&shard, came.at).next().is_some();
            (!other).then_some((*place, came))
        });
        Ok(here.collect())
    }

    /// This node's word on the batches that were offered to it: which are registered and cosigned,
    /// and which never will be.
    pub(super) fn answer_batches(&self, now: UnixMillis) -> Result<()> {
        for batch in self.incoming() {
            let arrived = self.arrived_of(&batch)?;
            let (refused, acceptance) = if arrived.is_empty() {
                let refused = match (self.not_taken(&batch)?, self.batch_over(&batch, now)) {
                    (Some(refused), _) if refused.len() == usize::from(batch.items) => refused,
                    (_, Some(over)) => refuse_all(&batch, over),
                    _ => continue,
                };
                (refused, None)
            } else {
                let Some(acceptance) = self.batch_acceptance(&batch, &arrived)? else {
                    continue;
                };
                let known = self.not_taken(&batch)?.unwrap_or_default();
                let reason = |place| {
                    let known = known.iter().find(|refusal| refusal.place == place);
                    known.map_or_else(|| word("not-taken"), |known| known.reason.clone())
                };
                let refused = { 0..batch.items }
                    .filter(|place| !arrived.contains_key(place))
                    .map(|place| BatchRefusal {
                        place,
                        reason: reason(place),
                    });
                (refused.collect(), Some(acceptance))
            };
            cut_here(25)?;
            let answer = BatchAnswer {
                batch: batch.id,
                origin: batch.origin.clone(),
                refused,
                acceptance,
            };
            let moving = Statement::Moving(Box::new(Moving::Answered(answer)));
            let signer = self.service(purpose(PURPOSE));
            self.state(vec![moving], &signer, now)?;
            cut_here(26)?;
        }
        Ok(())
    }

    /// The one proof that what arrived of a batch is under a cosigned checkpoint; none while it is not.
    fn batch_acceptance(
        &self,
        batch: &Batch,
        arrived: &BTreeMap<u16, Came>,
    ) -> Result<Option<BatchAcceptance>> {
        let origin = self.shard(&batch.origin.ledger());
        let store = self.store.as_ref();
        let Some(note) = Head::read(store, &origin)?.cosigned else {
            return Ok(None);
        };
        let size = checkpoint_of(&note)?.size();
        let (Some(first), Some(last)) = (
            arrived
                .values()
                .map(|came| came.at + 1 - came.version)
                .min(),
            arrived.values().map(|came| came.at).max(),
        ) else {
            return Ok(None);
        };
        if size <= last {
            return Ok(None);
        }
        let named: BTreeSet<u64> = arrived.values().map(|came| came.at).collect();
        let wrong = |e: String| RegistryError::damaged(format!("`{origin}` {first}: {e}"));
        let mut leaves = Vec::new();
        for at in first..=last {
            let bytes = store.get(&table::entry(&origin, at))?;
            let bytes = bytes.ok_or_else(|| wrong(format!("entry {at} is not here")))?;
            leaves.push(match named.contains(&at) {
                true => ByteVec::from(bytes),
                false => ByteVec::from(leaf_hash(&bytes).to_vec()),
            });
        }
        let tiles = Tiles {
            store,
            origin: &origin,
        };
        let before = TreeEdge::load(&tiles, first).map_err(|e| wrong(e.to_string()))?;
        let proof =
            ledger::proof::consistency(&tiles, last + 1, size).map_err(|e| wrong(e.to_string()))?;
        Ok(Some(BatchAcceptance {
            first,
            peaks: { before.frontier().peaks().iter() }
                .map(|hash| ByteArray::from(*hash))
                .collect(),
            leaves,
            proof: proof.into_iter().map(ByteArray::from).collect(),
            checkpoint: note,
            origin,
        }))
    }

    /// Tells the old owners of records of batches that were erased here since.
    pub(super) fn tell_batch_erasures(&self, now: UnixMillis) -> Result<()> {
        let kinds: Vec<Kind> = { self.catalogue().kinds().into_iter() }
            .map(|schema| schema.kind.clone())
            .collect();
        for shard in kinds.iter().map(|kind| self.shard(kind)) {
            for (record, came) in self.came_and_erased(&shard)? {
                let Some(offer) = self.offer_that_brought(&shard, &record, &came) else {
                    continue;
                };
                let Some(moved) = self.moved_to(&offer) else {
                    continue;
                };
                let last = self.last_event(&shard, &record, u64::MAX)?;
                if let Some((at, entry)) = last {
                    self.tell_erasure(&offer, &moved, (at, &entry), now)?;
                }
            }
        }
        Ok(())
    }

    /// The transfer in a batch by which a record came, if its erasure was not told.
    fn offer_that_brought(
        &self,
        shard: &Origin,
        record: &RecordId,
        came: &Came,
    ) -> Option<TransferOffer> {
        let authority = self.authority();
        let mut claimants = authority.claimants(shard, came.at);
        let offer = claimants.find(|offer| authority.is_carried(&offer.id))?;
        let named = match &authority.answer(offer)?.word {
            TransferWord::Accepted(acceptance) => acceptance.entry.as_slice(),
            TransferWord::Refused { .. } => return None,
        };
        let same = matches!(record::entry::Entry::decode(named),
            Ok(record::entry::Entry::Record(entry)) if entry.record == *record);
        (same && authority.erased_there(offer).is_none()).then(|| offer.clone())
    }
}

fn refuse_all(batch: &Batch, reason: &'static str) -> Vec<BatchRefusal> {
    let one = |place| BatchRefusal {
        place,
        reason: word(reason),
    };
    (0..batch.items).map(one).collect()
}
