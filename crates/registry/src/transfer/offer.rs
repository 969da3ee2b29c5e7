//! Offering (提出迁移): the old owner's clerk gives a record, whole, to another division's node.
//!
//! Owns what goes out: one envelope of the shard's field keys, a parcel for every version with its
//! row keys, cells and proof, a heartbeat that cites the cosigned checkpoint, and two statements.
//! Refuses a record that is erased, offered already, not cosigned yet or not resealed yet.
//! From the statements on the record is not changed here until the transfer is over.

use std::collections::BTreeSet;

use record::authority::{Charter, GrantStatement, History, Level, Statement};
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, SUITE};
use record::id::{DivisionId, GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::schema::Position;
use record::transfer::{TransferEvent, TransferOffer, TransferStep};
use seal::secret::GrantSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{PURPOSE, bad, cut_here};
use crate::book::{Leaf, Signer};
use crate::error::{RegistryError, Result};
use crate::grant::{Kept, checkpoint_of};
use crate::holding::{Version, envelope_info};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::{BASIS_MAX, Session};
use crate::table;

/// The most versions that a record may have that moves.
pub const VERSIONS_MAX: usize = 1000;
/// The longest that an offer stands.
const DAYS_MAX: u32 = 90;
/// How many parcels one act signs.
const STEP: usize = 128;

/// What a clerk offers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The kind.
    pub kind: Kind,
    /// The record.
    pub record: RecordId,
    /// Who is to own it.
    pub to: DivisionId,
    /// The reason or legal basis, as a reference; not a person's name.
    pub basis: String,
    /// For how many days it may be accepted.
    #[serde(default = "month")]
    pub days: u32,
}

fn month() -> u32 {
    30
}

/// One version, where it is sealed at present.
pub(crate) struct Sealed {
    pub at: u64,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
    pub version: Version,
}

/// Why a record cannot move, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmovable {
    /// It has more versions than may move.
    Long,
    /// A rotation has not come to it yet.
    NotResealed,
    /// Its newest version is not under the cosigned head yet.
    NotCosigned,
}

impl Unmovable {
    /// Why it never will; none when it may the next time.
    pub(crate) fn lasting(self) -> Option<&'static str> {
        match self {
            Unmovable::Long => Some("too-many-versions"),
            Unmovable::NotResealed | Unmovable::NotCosigned => None,
        }
    }

    fn error(self) -> RegistryError {
        match self {
            Unmovable::Long => bad(format!(
                "版本超过 {VERSIONS_MAX} 个，不能迁移 / a record of more than {VERSIONS_MAX} versions does not move; register it anew there"
            )),
            Unmovable::NotResealed => bad(
                "密钥轮换后的重封尚未完成，请稍后再试 / the record is not sealed under the present epoch yet; try again when `fangzhi keys status` says that resealing is done",
            ),
            Unmovable::NotCosigned => not_cosigned(),
        }
    }
}

/// What a grant that carries records to their next owner is about.
pub(crate) struct Carried<'a> {
    pub shard: &'a Origin,
    /// The next owner.
    pub holder: &'a Charter,
    pub positions: &'a BTreeSet<Position>,
    pub schema: u32,
    /// Which records: the record, or the plan.
    pub of: &'a [u8],
    pub basis: &'a str,
    pub not_after: UnixMillis,
}

/// A grant that carries records to their next owner, ready to be stated.
pub(crate) struct Carrier {
    pub statement: GrantStatement,
    pub secret: GrantSecret,
    pub envelope: Vec<u8>,
}

/// What goes out with a grant that carries a transfer.
pub(crate) struct Going<'a> {
    pub grant: &'a GrantStatement,
    pub secret: &'a GrantSecret,
    pub envelope: Vec<u8>,
    /// Every version of each record.
    pub records: &'a [Vec<Sealed>],
    /// The cosigned checkpoint that they are proven under.
    pub note: &'a str,
}

impl Registry {
    /// Makes the grant of every version and all fields that carries records to their next owner.
    pub(crate) fn carrier(&self, carried: Carried<'_>) -> Result<Carrier> {
        let (shard, holder) = (carried.shard, carried.holder);
        let (epoch, keys) = self.granted_keys(shard, carried.positions)?;
        if keys.len() != carried.positions.len() {
            return Err(RegistryError::damaged(
                "the schema lacks a field that an old version has",
            ));
        }
        let mut rng = rng()?;
        let mut id = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng, &mut id);
        let id = GrantId(id);
        let secret = GrantSecret::generate(&mut rng);
        let scope = [id.0.as_slice(), carried.of].concat();
        let mut statement = GrantStatement {
            id,
            origin: shard.clone(),
            holder: holder.division.clone(),
            holder_charter: holder.id(),
            fields: carried.positions.iter().copied().collect(),
            schema: carried.schema,
            rows: self.keys.blind("transfer-rows", &scope)?,
            purpose: purpose(PURPOSE),
            basis: carried.basis.to_owned(),
            assessment: PURPOSE.to_owned(),
            epoch,
            envelope: [0; 32],
            policy: self.policies().hash(),
            not_after: carried.not_after,
            owner_charter: self.own_charter()?,
            history: Some(History::All),
        };
        let info = envelope_info(&statement);
        let envelope =
            seal::grant::seal_envelope(&info, &holder.keys.seal, &secret, &keys, &mut rng)
                .map_err(|e| bad(format!("the charter of `{}`: {e}", holder.division)))?;
        statement.envelope = Sha256::digest(&envelope).into();
        Ok(Carrier {
            statement,
            secret,
            envelope,
        })
    }

    /// Offers a record of an own shard to another division.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] for a record that is not
    /// here or was erased, [`RegistryError::NoCharter`], [`RegistryError::BadRequest`] with what
    /// keeps the record from being offered now.
    pub fn offer_transfer(
        &self,
        session: &Session,
        request: &TransferRequest,
        now: UnixMillis,
    ) -> Result<GrantId> {
        self.may(session, policy::Action::Transfer, &purpose("registration"))?;
        self.schema(&request.kind)?;
        let basis = request.basis.trim();
        if basis.is_empty() || basis.len() > BASIS_MAX {
            return Err(bad(format!(
                "迁移必须注明依据，至多 {BASIS_MAX} 字节 / a transfer needs its basis, of at most {BASIS_MAX} bytes; state the reference"
            )));
        }
        if request.days == 0 || request.days > DAYS_MAX {
            return Err(bad(format!(
                "期限 1 至 {DAYS_MAX} 天 / an offer stands for 1 to {DAYS_MAX} days"
            )));
        }
        let holder = self
            .authority()
            .charter(&request.to)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(request.to.clone()))?;
        if request.to == self.config.division || holder.level == Level::Department {
            return Err(bad(
                "请指定另一个登记单位 / name another division that keeps a register, not this one and no department",
            ));
        }
        if self.authority().revoked(&holder.id()) || holder.not_after < now {
            return Err(RegistryError::NoCharter(request.to.clone()));
        }
        let shard = self.shard(&request.kind);
        self.refuse_closed(&shard)?;
        let _one = lock(&self.transfers.one);
        // Held to the end: what is offered is the newest version, and stays it.
        let book = self.book(&shard)?;
        let _book = lock(&book);
        let note = self.offered_under(&shard, request)?;
        let target = checkpoint_of(&note)?;
        let versions = self
            .whole_history(&shard, &request.record, target.size())?
            .map_err(Unmovable::error)?;
        let Some(newest) = versions.last() else {
            return Err(not_here(&request.record));
        };
        let positions = self.positions_in(&request.kind, versions.iter())?;
        let Carrier {
            statement,
            secret,
            envelope,
        } = self.carrier(Carried {
            shard: &shard,
            holder: &holder,
            positions: &positions,
            schema: newest.version.entry.schema,
            of: &request.record.0,
            basis,
            not_after: UnixMillis(now.0 + u64::from(request.days) * 86_400_000),
        })?;
        let id = statement.id;
        let offer = TransferOffer {
            id,
            origin: shard.clone(),
            record: request.record,
            version: newest.version.entry.version,
            leaf: ledger::hash::leaf_hash(&newest.bytes),
            content: newest.version.entry.content,
            to: request.to.clone(),
            basis: basis.to_owned(),
            offered_at: now,
            closed_at: self.out_of_force_since(&shard, &request.record)?,
        };
        // What a crash leaves before the statements is a ledger that nobody's word names.
        let going = Going {
            grant: &statement,
            secret: &secret,
            envelope,
            records: &[versions],
            note: &note,
        };
        let signer = || session.signer(purpose(PURPOSE), None);
        self.write_parcels(going, &signer, now)?;
        cut_here(1)?;
        self.state(
            vec![Statement::Grant(statement), Statement::TransferOffer(offer)],
            &session.signer(purpose(PURPOSE), None),
            now,
        )?;
        Ok(id)
    }

    /// Takes an offer back. It is over when the new owner's node has answered, which it does by
    /// itself.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] when it is not this node's
    /// offer, [`RegistryError::BadRequest`] when it was answered or is over.
    pub fn withdraw_transfer(
        &self,
        session: &Session,
        id: &GrantId,
        now: UnixMillis,
    ) -> Result<()> {
        self.may(session, policy::Action::Transfer, &purpose("registration"))?;
        let offer = self.known_offer(id)?;
        if offer.origin.division() != self.config.division {
            return Err(super::unknown(id));
        }
        let _one = lock(&self.transfers.one);
        let over = {
            let authority = self.authority();
            authority.answer(&offer).is_some() || authority.grant_ended(id).is_some()
        };
        if over {
            return Err(bad(
                "迁移已有答复，不能撤回 / the transfer was answered and cannot be withdrawn; see `fangzhi transfer show`",
            ));
        }
        if self.authority().withdrawn(&offer) {
            return Ok(());
        }
        let step = TransferStep {
            transfer: *id,
            origin: offer.origin.clone(),
            event: TransferEvent::Withdrawn,
        };
        let signer = session.signer(purpose(PURPOSE), None);
        self.state(vec![Statement::TransferStep(step)], &signer, now)?;
        Ok(())
    }

    /// The cosigned checkpoint that a record is offered under.
    fn offered_under(&self, shard: &Origin, request: &TransferRequest) -> Result<String> {
        self.refuse_offered(shard, &request.record)?;
        let last = self.last_event(shard, &request.record, u64::MAX)?;
        match last.map(|(_, entry)| entry.operation) {
            None | Some(Operation::Erase) => return Err(not_here(&request.record)),
            Some(Operation::TransferOut) => self.refuse_moving(shard, &request.record)?,
            Some(_) => {}
        }
        let unsettled = self.unsettled(shard)?.contains(&request.record);
        let head = table::Head::read(self.store.as_ref(), shard)?;
        match head.cosigned {
            Some(note) if !unsettled => Ok(note),
            _ => Err(not_cosigned()),
        }
    }

    /// Records that came to an own shard and are not known to count there yet.
    pub(crate) fn unsettled(&self, shard: &Origin) -> Result<BTreeSet<RecordId>> {
        let mut came: BTreeSet<RecordId> = self.tally(shard)?.came.into_keys().collect();
        if came.is_empty() {
            return Ok(came);
        }
        let offers: Vec<TransferOffer> = {
            let authority = self.authority();
            let here = |offer: &&TransferOffer| offer.to == self.config.division;
            authority.offers().filter(here).cloned().collect()
        };
        for moved in offers.iter().filter_map(|offer| self.moved_to(offer)) {
            if moved.origin == *shard {
                came.remove(&moved.record);
            }
        }
        Ok(came)
    }

    /// Every version of a record, where it is sealed at present, opened; or why it cannot move.
    pub(crate) fn whole_history(
        &self,
        shard: &Origin,
        record: &RecordId,
        size: u64,
    ) -> Result<std::result::Result<Vec<Sealed>, Unmovable>> {
        let store = self.store.as_ref();
        let keys = self.own_keys(shard)?;
        let (epoch, _) = keys.current();
        let mut versions = Vec::new();
        for at in crate::chain::entries_of(store, shard, record, 0)? {
            let Some((_, entry)) = self.record_entry(shard, at)? else {
                continue;
            };
            if entry.operation.is_anew() {
                continue;
            }
            if versions.len() == VERSIONS_MAX {
                return Ok(Err(Unmovable::Long));
            }
            let (at, sealed, _) = self.sealed_at(shard, at)?;
            if sealed.epoch != epoch {
                return Ok(Err(Unmovable::NotResealed));
            }
            if at >= size {
                return Ok(Err(Unmovable::NotCosigned));
            }
            let Some((bytes, _)) = self.record_entry(shard, at)? else {
                return Err(RegistryError::damaged(format!(
                    "`{shard}` {at} is no record"
                )));
            };
            let version = self.open_own(shard, &keys, at)?;
            versions.push(Sealed { at, bytes, version });
        }
        Ok(Ok(versions))
    }

    /// Every field that a version may have.
    pub(crate) fn positions_in<'a>(
        &self,
        kind: &Kind,
        versions: impl Iterator<Item = &'a Sealed>,
    ) -> Result<BTreeSet<Position>> {
        let mut positions = BTreeSet::new();
        let schemas: BTreeSet<u32> = versions.map(|v| v.version.entry.schema).collect();
        for schema in schemas {
            let schema = self.schema_version(kind, schema)?;
            positions.extend(schema.fields.iter().map(|field| field.position));
        }
        Ok(positions)
    }

    /// Writes the ledger of a grant that carries records: the envelope, a parcel for each version, a
    /// heartbeat.
    pub(crate) fn write_parcels<'a>(
        &self,
        going: Going<'_>,
        signer: &dyn Fn() -> Signer<'a>,
        now: UnixMillis,
    ) -> Result<()> {
        let grant = going.grant;
        let ledger = grant.origin.grant(&grant.id);
        let checkpoint = checkpoint_of(going.note)?;
        let (size, root) = (checkpoint.size(), *checkpoint.root());
        let kept = Kept::of(going.secret);
        let sealed = self.seal_kept(&ledger, &kept)?;
        let leaf = |operation, record, shard: (u64, Hash), body: Vec<u8>| Leaf {
            entry: Entry::Grant(GrantEntry {
                suite: SUITE,
                operation,
                record,
                shard_size: shard.0,
                shard_root: shard.1,
                parcel: Some(Sha256::digest(&body).into()),
                recorded_at: now,
            }),
            body: Some(body),
        };
        let empty = (0, ledger::hash::empty_root());
        let mut leaves = vec![leaf(GrantOperation::Keys, None, empty, going.envelope)];
        // In scope from the first commit on: ending the grant retracts every row.
        let mut scope: Vec<(RecordId, u64)> = Vec::with_capacity(going.records.len());
        for versions in going.records {
            let mut operation = GrantOperation::Enter;
            for one in versions {
                let parcel = self.parcel(grant, &kept, &one.version, &one.bytes, one.at, size)?;
                leaves.push(leaf(
                    operation,
                    Some(one.version.record),
                    (size, root),
                    parcel,
                ));
                operation = GrantOperation::Update;
            }
            scope.extend(versions.last().map(|one| (one.version.record, one.at)));
        }
        let heartbeat = going.note.as_bytes().to_vec();
        leaves.push(leaf(
            GrantOperation::Heartbeat,
            None,
            (size, root),
            heartbeat,
        ));
        let book = self.book(&ledger)?;
        let mut book = lock(&book);
        let mut first = Some(sealed);
        let mut leaves = leaves.into_iter().peekable();
        while leaves.peek().is_some() {
            let part: Vec<Leaf> = leaves.by_ref().take(STEP).collect();
            let kept = first.take();
            self.append(&mut book, &signer(), part, now, |batch, _, _| {
                let Some(kept) = kept else {
                    return;
                };
                batch.put_body(table::key(&ledger, table::GRANT, b""), kept);
                for (record, last) in &scope {
                    let row = table::key(&ledger, table::SCOPE, &record.0);
                    batch.put(row, last.to_be_bytes().to_vec());
                }
                crate::grant::put_cursor(batch, &ledger, size);
            })?;
        }
        Ok(())
    }
}

fn not_here(record: &RecordId) -> RegistryError {
    RegistryError::NotFound {
        what: "记录 / record",
        name: record.to_string(),
        next: "only records of this node's own shards that were not erased can be offered",
    }
}

fn not_cosigned() -> RegistryError {
    bad(
        "记录尚未联署，请待节点连上上级后再试 / the record's newest version is not cosigned yet; let the node reach its parent, then offer it",
    )
}
