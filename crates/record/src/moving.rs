//! Moving a shard (整本迁移): what the two owners state of records that move many at a time.
//!
//! The old owner offers a batch of records under an approved plan, with one grant; the new owner
//! answers all of them at once, with one proof; when nothing is left, the old owner closes the shard
//! and names who follows it. Each is a statement of an `authority` ledger. Nothing here describes a
//! person. Refuses nothing by itself: what a statement is worth is answered by `registry::moving`.
//! Format: `docs/formats/transfer.md`.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::id::{DivisionId, GrantId, Hash, Kind, Origin, RecordId, UnixMillis};

/// The most records of a batch.
pub const BATCH_RECORDS_MAX: usize = 256;
/// The most versions of all records of a batch, unless it has one record.
pub const BATCH_VERSIONS_MAX: usize = 512;
/// The most shards that follow one.
pub const SUCCESSORS_MAX: usize = 16;

/// A batch of records, offered or answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Moving {
    /// By the owner of the shard that the records leave.
    #[n(1)]
    Offered(#[n(0)] BatchOffer),
    /// By the division that they are offered to.
    #[n(2)]
    Answered(#[n(0)] BatchAnswer),
}

/// Records are offered to another division together, under a plan.
///
/// A grant of the same id, of these records alone with all their fields, goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BatchOffer {
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
    /// The reason or legal basis, as a reference.
    #[n(4)]
    pub basis: String,
    /// When they were offered.
    #[n(5)]
    pub offered_at: UnixMillis,
    /// The records, none twice. The place of one, from 0, names it in the answer.
    #[n(6)]
    pub items: Vec<BatchItem>,
}

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BatchItem {
    /// The record in the shard that it leaves.
    #[n(0)]
    pub record: RecordId,
    /// Its newest version, which is offered with all before it.
    #[n(1)]
    pub version: u64,
    /// Leaf hash of the entry under which that version is sealed.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub leaf: Hash,
    /// `content` of that version.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub content: Hash,
    /// Since when the record is out of force; absent when it is in force.
    #[n(4)]
    pub closed_at: Option<UnixMillis>,
}

/// What the division that a batch is offered to says of all its records. Its first word counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BatchAnswer {
    /// The batch.
    #[n(0)]
    pub batch: GrantId,
    /// The shard that the records leave.
    #[n(1)]
    pub origin: Origin,
    /// Those that it does not take, by ascending place.
    #[n(2)]
    pub refused: Vec<BatchRefusal>,
    /// The proof that all others are registered and witnessed; absent when there are none.
    #[n(3)]
    pub acceptance: Option<BatchAcceptance>,
}

/// A record of a batch that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BatchRefusal {
    /// Its place in the offer.
    #[n(0)]
    pub place: u16,
    /// A reason code such as `registered-already`.
    #[n(1)]
    pub reason: Kind,
}

/// The proof that the records of a batch were registered at their new owner, which anybody can check.
///
/// Their entries lie one after another, so that one proof does for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BatchAcceptance {
    /// The shard that has them.
    #[n(0)]
    pub origin: Origin,
    /// Index of the first of their `transfer-in` entries.
    #[n(1)]
    pub first: u64,
    /// The peaks of the shard's tree of `first` entries, the tallest first.
    #[n(2)]
    pub peaks: Vec<ByteArray<32>>,
    /// From there on, in order: of the offered version of each record the entry, of versions before
    /// it the leaf hash, which is 32 bytes as no entry is.
    #[n(3)]
    pub leaves: Vec<ByteVec>,
    /// Proves the tree that ends with them to be a beginning of the checkpoint's.
    #[n(4)]
    pub proof: Vec<ByteArray<32>>,
    /// A checkpoint of the shard with its quorum of cosignatures.
    #[n(5)]
    pub checkpoint: String,
}

/// A shard in which no record counts any more is closed, and these follow it (后继).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShardClosed {
    /// The shard.
    #[n(0)]
    pub origin: Origin,
    /// The plan that it was done under.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub plan: Hash,
    /// How many entries it had.
    #[n(2)]
    pub size: u64,
    /// The root over them.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub root: Hash,
    /// Its checkpoint of that size with its quorum of cosignatures.
    #[n(4)]
    pub checkpoint: String,
    /// The shards that have what it had, ascending, at least one.
    #[n(5)]
    pub successors: Vec<Origin>,
    /// When.
    #[n(6)]
    pub closed_at: UnixMillis,
}

/// The transfer of one record of a batch.
pub fn item_id(batch: &GrantId, place: u16) -> GrantId {
    let hash = Sha256::new()
        .chain_update(b"fangzhi/batch-item/v1\0")
        .chain_update(batch.0)
        .chain_update(place.to_be_bytes())
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    GrantId(id)
}
