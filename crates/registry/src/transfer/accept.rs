//! Accepting (接收): the new owner's clerk registers what was offered, under this node's own keys.
//!
//! Every version is opened, compared with the ledger that it comes from, and sealed again with the
//! same salts: each `transfer-in` entry has the `content` of the version that it takes over, so
//! anybody can compare the two histories without a key. One commit has all of them, and the proofs.
//! That `content`, which a random salt makes unique, is the link: no row beside the ledger is needed
//! to know what arrived. Refuses what is not whole, not proven, or not offered to this node.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use ledger::checkpoint::Checkpoint;
use ledger::hash::leaf_hash;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use record::authority::{GrantStatement, Statement};
use record::cbor;
use record::draft::Violation;
use record::entry::{Entry, GrantOperation, Operation, RecordEntry, SUITE};
use record::id::{GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::schema::{Position, STATUS};
use record::transfer::{TransferAnswer, TransferOffer, TransferWord};
use seal::body::{CellContext, Opened};
use seal::parcel::Parcel;
use seal::secret::{FieldKey, GrantSecret, RecordSecret};

use super::offer::VERSIONS_MAX;
use super::{Moved, PURPOSE, bad, cut_here};
use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Holding, envelope_info};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::register::{Registered, registered_already};
use crate::session::Session;
use crate::table::{self, Head, Newest};

/// Where the versions of a record that moved here lie in the shard that they come from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Provenance {
    /// The transfer.
    #[n(0)]
    pub transfer: GrantId,
    /// The shard that the record left.
    #[n(1)]
    pub origin: Origin,
    /// The record there.
    #[n(2)]
    pub record: RecordId,
    /// The versions, ascending.
    #[n(3)]
    pub versions: Vec<ProvenVersion>,
    /// The cosigned checkpoint of that shard which they are proven under.
    #[n(4)]
    pub checkpoint: String,
}

/// One version and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProvenVersion {
    /// The entry's bytes.
    #[n(0)]
    pub entry: ByteVec,
    /// Its index.
    #[n(1)]
    pub index: u64,
    /// Its inclusion proof.
    #[n(2)]
    pub inclusion: Vec<ByteArray<32>>,
}

/// What came with an offer, opened and checked.
pub(crate) struct Package {
    pub versions: Vec<(RecordEntry, BTreeMap<Position, Opened>)>,
    /// How it is registered here.
    pub operation: Operation,
    pub provenance: Provenance,
}

impl Package {
    /// The values of the newest version, for finding.
    pub(crate) fn texts(&self) -> BTreeMap<Position, String> {
        let newest = self.versions.last().map(|(_, values)| values);
        { newest.into_iter().flatten() }
            .filter_map(|(at, opened)| Some((*at, opened.value()?.to_owned())))
            .collect()
    }
}

/// What opens the parcels of one transfer's ledger.
pub(crate) struct Sender {
    shard: Origin,
    id: GrantId,
    secret: GrantSecret,
    fields: BTreeMap<Position, FieldKey>,
    checkpoint: Checkpoint,
    note: String,
}

impl Registry {
    /// Takes over a record that was offered to this node.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] when no such offer was made
    /// to this node, [`RegistryError::Invalid`] when a unique value is registered here already,
    /// [`RegistryError::BadRequest`] when it was answered, is over, or has not come whole.
    pub fn accept_transfer(
        &self,
        session: &Session,
        id: &GrantId,
        now: UnixMillis,
    ) -> Result<Registered> {
        self.may(session, policy::Action::Transfer, &purpose("registration"))?;
        let _one = lock(&self.transfers.one);
        let (offer, grant) = self.open_offer(id, now)?;
        let package = self.open_package(&offer, &grant)?;
        let kind = offer.origin.ledger();
        let schema = self.schema(&kind)?;
        let shard = self.shard(&kind);
        self.refuse_closed(&shard)?;
        let holding = self.holding(&shard)?;
        let book = self.book(&shard)?;
        let mut book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let texts = package.texts();
        let doubles: Vec<Violation> = schema
            .fields
            .iter()
            // What is out of force is in nobody's way.
            .filter(|field| field.unique && offer.closed_at.is_none())
            .filter(|field| {
                let value = texts.get(&field.position);
                value.is_some_and(|value| holding.index.exists(field.position, value).is_some())
            })
            .map(|field| registered_already(&field.id))
            .collect();
        if !doubles.is_empty() {
            drop(holding);
            drop(book);
            let of = (&kind, &purpose("registration"));
            return Err(self.invalid(session, of, doubles, now));
        }

        let mut rng = rng()?;
        let mut record = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng, &mut record);
        let record = RecordId(record);
        let secret = RecordSecret::generate(&mut rng);
        let page = self.keep_secrets(&[(record, &secret)])?;
        cut_here(2)?;
        let leaves = self.sealed_here(&holding, &package, record, &secret, now)?;
        let last = leaves.len() as u64 - 1;
        let signer = session.signer(purpose(PURPOSE), None);
        let appended = self.append(&mut book, &signer, leaves, now, |batch, first, hashes| {
            crate::secrets::point_to(batch, &shard, page);
            let newest = Newest {
                at: first + last,
                version: offer.version,
                leaf: hashes[last as usize],
                page: page.page,
                offset: page.offset,
                length: page.len,
            };
            batch.put(
                table::key(&shard, table::RECORD, &record.0),
                cbor::to_vec(&newest),
            );
            batch.put(
                table::key(&shard, table::MOVED_IN, &record.0),
                cbor::to_vec(&package.provenance),
            );
        })?;
        let index = appended.first + last;
        holding.index.upsert(record, offer.version, index, &texts);
        holding.index.set_applied(appended.size);
        drop(holding);
        drop(book);
        self.counters.registered(1);
        self.changed();
        cut_here(3)?;
        Ok(Registered {
            record,
            version: offer.version,
            origin: shard,
            index,
        })
    }

    /// The entries of a record that comes, each with the content of the version that it takes over.
    pub(crate) fn sealed_here(
        &self,
        holding: &Holding,
        package: &Package,
        record: RecordId,
        secret: &RecordSecret,
        now: UnixMillis,
    ) -> Result<Vec<Leaf>> {
        let shard = &holding.origin;
        let Access::Own(keys) = &holding.access else {
            return Err(RegistryError::damaged("an own shard is held by grant"));
        };
        let (epoch, keys) = keys.current();
        let mut rng = rng()?;
        let mut previous: Option<Hash> = None;
        let mut leaves = Vec::with_capacity(package.versions.len());
        for (old, values) in &package.versions {
            let context = CellContext {
                origin: shard,
                record,
                version: old.version,
                epoch,
                schema: old.schema,
            };
            let of = self.schema_version(&shard.ledger(), old.schema)?;
            let body = seal::body::reseal_body(values, of, &context, keys, secret, &mut rng)
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
            if body.content != old.content {
                return Err(RegistryError::damaged(
                    "sealed here it would have another content",
                ));
            }
            let entry = Entry::Record(RecordEntry {
                suite: SUITE,
                record,
                version: old.version,
                operation: package.operation,
                previous,
                schema: old.schema,
                epoch,
                content: body.content,
                body: body.hash,
                recorded_at: now,
            });
            previous = Some(leaf_hash(&entry.encode()));
            leaves.push(Leaf {
                entry,
                body: Some(body.bytes),
            });
        }
        Ok(leaves)
    }

    /// Refuses a record that was offered to this node.
    ///
    /// # Errors
    /// As for [`Registry::accept_transfer`].
    pub fn refuse_transfer(
        &self,
        session: &Session,
        id: &GrantId,
        reason: &Kind,
        now: UnixMillis,
    ) -> Result<()> {
        self.may(session, policy::Action::Transfer, &purpose("registration"))?;
        let _one = lock(&self.transfers.one);
        let (offer, _) = self.open_offer(id, now)?;
        let answer = TransferAnswer {
            transfer: offer.id,
            origin: offer.origin,
            word: TransferWord::Refused {
                reason: reason.clone(),
            },
        };
        let signer = session.signer(purpose(PURPOSE), None);
        self.state(vec![Statement::TransferAnswer(answer)], &signer, now)?;
        Ok(())
    }

    /// Where the versions of a record that moved here come from, with their proofs.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn provenance(&self, kind: &Kind, record: &RecordId) -> Result<Option<Provenance>> {
        let key = table::key(&self.shard(kind), table::MOVED_IN, &record.0);
        let row = self.store.get(&key)?;
        row.map(|bytes| table::decode("provenance", &bytes))
            .transpose()
    }

    /// An offer to this node that may be answered.
    fn open_offer(&self, id: &GrantId, now: UnixMillis) -> Result<(TransferOffer, GrantStatement)> {
        let offer = self.known_offer(id)?;
        if offer.to != self.config.division {
            return Err(bad(format!(
                "迁移是提给 `{0}` 的，只有其节点可以答复 / the transfer is offered to `{0}`; only its node answers it",
                offer.to
            )));
        }
        if let Some(moved) = self.moved_to(&offer).or(self.arrived(&offer)?) {
            return Err(bad(format!(
                "已接收为记录 {0} / the record was accepted already, as {0}",
                moved.record
            )));
        }
        let authority = self.authority();
        if authority.answer(&offer).is_some() {
            return Err(bad(
                "已答复，不能再答 / the transfer was answered; ask the old owner to offer it again",
            ));
        }
        let grant = authority
            .grant(id)
            .cloned()
            .ok_or_else(|| super::unknown(id))?;
        if authority.withdrawn(&offer)
            || authority.grant_ended(id).is_some()
            || grant.not_after <= now
        {
            return Err(bad(
                "提出方已撤回，或已过期 / the offer was withdrawn or its time is over; ask the old owner to offer it again",
            ));
        }
        Ok((offer, grant))
    }

    /// The `transfer-in` of an offer that is in an own shard and that no other transfer is proven by.
    pub(super) fn arrived(&self, offer: &TransferOffer) -> Result<Option<Moved>> {
        let shard = self.shard(&offer.origin.ledger());
        if offer.to != self.config.division || Head::read(self.store.as_ref(), &shard)?.size == 0 {
            return Ok(None);
        }
        let tally = self.tally(&shard)?;
        let named = {
            let authority = self.authority();
            let mut named = std::collections::BTreeSet::new();
            for other in authority
                .single_offers()
                .filter(|other| other.id != offer.id)
            {
                if let Some(TransferWord::Accepted(a)) = authority.answer(other).map(|a| &a.word)
                    && a.origin == shard
                {
                    named.insert(a.index);
                }
            }
            named
        };
        let mut fitting = tally.came.iter().filter(|(_, came)| {
            came.content == offer.content
                && came.version == offer.version
                && !named.contains(&came.at)
        });
        let Some((record, came)) = fitting.next() else {
            return Ok(None);
        };
        let bytes = self.store.get(&table::entry(&shard, came.at))?;
        let bytes = bytes
            .ok_or_else(|| RegistryError::damaged(format!("`{shard}` lacks entry {}", came.at)))?;
        Ok(Some(Moved {
            origin: shard,
            record: *record,
            index: came.at,
            leaf: leaf_hash(&bytes),
        }))
    }

    /// Opens what came with an offer, and checks it against the old owner's ledger.
    fn open_package(&self, offer: &TransferOffer, grant: &GrantStatement) -> Result<Package> {
        let (sender, mut parcels) = self.open_sender(grant, VERSIONS_MAX)?;
        self.open_record(
            &sender,
            offer,
            parcels.remove(&offer.record).unwrap_or_default(),
        )
    }

    /// Opens the envelope of a transfer's ledger. Gives the parcels of each record, unopened.
    pub(crate) fn open_sender(
        &self,
        grant: &GrantStatement,
        parcels_max: usize,
    ) -> Result<(Sender, BTreeMap<RecordId, Vec<Parcel>>)> {
        let shard = &grant.origin;
        let ledger = shard.grant(&grant.id);
        let wrong = |what: &str| not_proven(&ledger, what);
        let (envelope, parcels, heartbeat) = self.package_of(grant, &ledger, parcels_max)?;
        let own = self.own_charter()?;
        let keys = self.keys.unlocked()?;
        let (secret, fields) = keys.open_envelope(&envelope_info(grant), &envelope).map_err(|e| match own == grant.holder_charter {
            true => wrong(&e.to_string()),
            false => bad(
                "递件封给本节点的旧证书，请对方撤回后重新提出 / it was sealed to an earlier charter of this node; ask the old owner to withdraw it and offer it again",
            ),
        })?;
        let note = String::from_utf8(heartbeat).map_err(|_| wrong("the heartbeat is no text"))?;
        let log = self.standing_log(shard, &note)?;
        let checkpoint =
            ledger::checkpoint::open(note.as_bytes(), &log).map_err(|e| wrong(&e.to_string()))?;
        if !self.has_quorum(shard, &note) {
            return Err(wrong("its checkpoint is not cosigned"));
        }
        let sender = Sender {
            shard: shard.clone(),
            id: grant.id,
            secret,
            fields,
            checkpoint,
            note,
        };
        Ok((sender, parcels))
    }

    /// Opens every version of one record, and checks it against the old owner's ledger.
    pub(crate) fn open_record(
        &self,
        sender: &Sender,
        offer: &TransferOffer,
        parcels: Vec<Parcel>,
    ) -> Result<Package> {
        let shard = &sender.shard;
        let ledger = shard.grant(&sender.id);
        let wrong = |what: &str| not_proven(&ledger, what);
        let mut versions = Vec::with_capacity(parcels.len());
        let mut proven = Vec::with_capacity(parcels.len());
        let mut leaf = [0; 32];
        for (parcel, version) in parcels.iter().zip(1u64..) {
            let entry = parcel.entry().clone();
            let inclusion = parcel.inclusion();
            leaf = leaf_hash(parcel.leaf());
            ledger::proof::verify_inclusion(
                &leaf,
                parcel.index(),
                sender.checkpoint.size(),
                &inclusion,
                sender.checkpoint.root(),
            )
            .map_err(|e| wrong(&e.to_string()))?;
            if entry.record != offer.record || entry.version != version {
                return Err(wrong("a version is missing or of another record"));
            }
            let schema = self.schema_version(&shard.ledger(), entry.schema)?;
            let values = parcel
                .open_whole(&sender.secret, &sender.fields, sender.id, shard, schema)
                .map_err(|e| wrong(&e.to_string()))?;
            proven.push(ProvenVersion {
                entry: parcel.leaf().to_vec().into(),
                index: parcel.index(),
                inclusion: inclusion.into_iter().map(ByteArray::from).collect(),
            });
            versions.push((entry, values));
        }
        let newest = versions
            .last()
            .map(|(entry, _)| (entry.version, entry.content));
        if newest != Some((offer.version, offer.content)) || leaf != offer.leaf {
            return Err(wrong("it is not the version that was offered"));
        }
        let package = Package {
            versions,
            operation: super::operation_of(offer),
            provenance: Provenance {
                transfer: offer.id,
                origin: shard.clone(),
                record: offer.record,
                versions: proven,
                checkpoint: sender.note.clone(),
            },
        };
        if let Some(closed_at) = offer.closed_at {
            // When it was closed is before the body was last sealed, and its status says so, too.
            let since = package.versions.last().map(|(entry, _)| entry.recorded_at);
            let closed = package
                .texts()
                .get(&STATUS)
                .is_some_and(|it| it == index::CLOSED);
            if !closed || since.is_none_or(|since| since < closed_at) {
                return Err(wrong("it is said to be out of force and is not"));
            }
        }
        Ok(package)
    }

    /// Envelope, parcels and heartbeat of a transfer's ledger, when all of them have come.
    #[expect(clippy::type_complexity, reason = "named where it is taken apart")]
    fn package_of(
        &self,
        grant: &GrantStatement,
        ledger: &Origin,
        parcels_max: usize,
    ) -> Result<(Vec<u8>, BTreeMap<RecordId, Vec<Parcel>>, Vec<u8>)> {
        let (mut envelope, mut heartbeat) = (None, None);
        let mut parcels: BTreeMap<RecordId, Vec<Parcel>> = BTreeMap::new();
        let mut count = 0;
        crate::chain::each_entry(self.store.as_ref(), ledger, |at, _, entry| {
            let Entry::Grant(entry) = entry else {
                return Ok(());
            };
            match entry.operation {
                GrantOperation::Keys if entry.parcel == Some(grant.envelope) => {
                    envelope = Some(self.body(ledger, at)?);
                }
                GrantOperation::Heartbeat => heartbeat = Some(self.body(ledger, at)?),
                operation if operation.brings_parcel() => {
                    let record = entry.record.unwrap_or(RecordId([0; 16]));
                    if count == parcels_max {
                        return Err(not_proven(ledger, "more versions than may move"));
                    }
                    count += 1;
                    let parcel = Parcel::decode(&self.body(ledger, at)?)
                        .map_err(|e| not_proven(ledger, &format!("{at}: {e}")))?;
                    parcels.entry(record).or_default().push(parcel);
                }
                _ => {}
            }
            Ok(())
        })?;
        match (envelope, heartbeat) {
            (Some(envelope), Some(heartbeat)) => Ok((envelope, parcels, heartbeat)),
            _ => Err(bad(
                "递件尚未到齐，请稍后再试 / what was offered has not all come yet; try again when `fangzhi sync status` shows the parent up to date",
            )),
        }
    }
}

fn not_proven(ledger: &Origin, what: &str) -> RegistryError {
    RegistryError::damaged(format!(
        "`{ledger}`: {what}; tell the security officer of the old owner"
    ))
}
