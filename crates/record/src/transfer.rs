//! Transfers (迁移): what the two owners of a record that moves state of it.
//!
//! The old owner offers, the new owner accepts with a proof or refuses, the old owner withdraws, the
//! new owner erases later on. Each is a statement of an `authority` ledger, so everybody who holds
//! both ledgers comes to the same answer. Nothing here describes a person.
//! Refuses nothing by itself: what a statement is worth is answered by `registry::transfer`.
//! Format: `docs/formats/transfer.md`.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::id::{DivisionId, GrantId, Hash, Kind, Origin, RecordId, UnixMillis};

/// A record is offered to another division, by its owner.
///
/// A grant of the same id, of this record alone with all its fields, goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransferOffer {
    /// The transfer, and the grant that carries it.
    #[n(0)]
    pub id: GrantId,
    /// The shard that the record leaves.
    #[n(1)]
    pub origin: Origin,
    /// The record in that shard.
    #[n(2)]
    pub record: RecordId,
    /// Its newest version, which is offered with all before it.
    #[n(3)]
    pub version: u64,
    /// Leaf hash of the entry under which that version is sealed.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub leaf: Hash,
    /// `content` of that version: what the new owner registers has the same.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub content: Hash,
    /// Who is to own it.
    #[n(6)]
    pub to: DivisionId,
    /// The reason or legal basis, as a reference.
    #[n(7)]
    pub basis: String,
    /// When it was offered.
    #[n(8)]
    pub offered_at: UnixMillis,
    /// Since when the record is out of force; absent when it is in force.
    #[n(9)]
    pub closed_at: Option<UnixMillis>,
}

/// What the division that a record is offered to says. Its first word counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransferAnswer {
    /// The transfer.
    #[n(0)]
    pub transfer: GrantId,
    /// The shard that the record leaves.
    #[n(1)]
    pub origin: Origin,
    /// The word.
    #[n(2)]
    pub word: TransferWord,
}

/// Yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TransferWord {
    /// It is registered at the new owner, and witnessed.
    #[n(1)]
    Accepted(#[n(0)] Acceptance),
    /// It never will be.
    #[n(2)]
    Refused {
        /// A reason code such as `not-resident`, `withdrawn` or `expired`.
        #[n(0)]
        reason: Kind,
    },
}

/// The proof that a record was registered at its new owner, which anybody can check.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Acceptance {
    /// The shard that has it.
    #[n(0)]
    pub origin: Origin,
    /// Index of the `transfer-in` entry of the offered version.
    #[n(1)]
    pub index: u64,
    /// That entry's bytes.
    #[n(2)]
    pub entry: ByteVec,
    /// Its inclusion proof to the checkpoint.
    #[n(3)]
    pub proof: Vec<ByteArray<32>>,
    /// A checkpoint of the shard with its quorum of cosignatures.
    #[n(4)]
    pub checkpoint: String,
}

/// What else one of the two owners says of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransferStep {
    /// The transfer.
    #[n(0)]
    pub transfer: GrantId,
    /// The shard that the record leaves or left.
    #[n(1)]
    pub origin: Origin,
    /// What happened.
    #[n(2)]
    pub event: TransferEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TransferEvent {
    /// The old owner takes the offer back. It is over when the new owner has answered.
    #[n(1)]
    Withdrawn,
    /// The new owner erased the record; the old owner is to erase what it has of it.
    #[n(2)]
    Erased {
        /// The plan that it was erased under.
        #[cbor(n(0), with = "minicbor::bytes")]
        plan: Hash,
    },
}
