//! Entries (条目): the leaves of every ledger, as canonical bytes.
//!
//! An entry can never be erased, so nothing in it may describe a person:
//! it carries identifiers, hashes and times only. What a record says lies in
//! its body, sealed, beside the ledger.
//!
//! ```text
//! entry = [format: 1, type: uint, value: map]
//! type  = 1 record, 2 act, 3 authority, 4 access, 5 grant, 6 recovery, 7 letter
//! ```

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::act::Act;
use crate::authority::AuthorityEntry;
use crate::cbor::{self, CborError};
use crate::id::{Hash, RecordId, UnixMillis};
use crate::letter::LetterEntry;

mod quick;

pub use quick::RecordRef;

/// The version of the entry format.
pub const FORMAT: u8 = 1;
/// The largest entry, so that C2SP entry bundles (u16 lengths) can carry it.
pub const ENTRY_MAX: usize = 65_535;
/// Suite 1: SHA-256, HKDF-SHA256, XChaCha20-Poly1305, Ed25519, X-Wing.
pub const SUITE: u8 = 1;

/// One leaf of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A version of a record, in a shard's ledger.
    Record(RecordEntry),
    /// Who signed the entries before this one.
    Act(Act),
    /// Charters, operators, grants, policies, schemas: who may do what.
    Authority(AuthorityEntry),
    /// One reading, or one record that a reading returned.
    Access(AccessEntry),
    /// One change of what a grant's holder has.
    Grant(GrantEntry),
    /// One part of what a lost station is rebuilt from.
    Recovery(RecoveryEntry),
    /// A proposal to the owner of a record, its answer, or the end of either.
    Letter(LetterEntry),
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Operation {
    /// First version (登记).
    #[n(1)]
    Register,
    /// Later version (变更).
    #[n(2)]
    Amend,
    /// No longer in force (注销).
    #[n(3)]
    Close,
    /// In force again (恢复).
    #[n(4)]
    Reopen,
    /// Handed to another division (迁出).
    #[n(5)]
    TransferOut,
    /// Taken over from another division (迁入).
    #[n(6)]
    TransferIn,
    /// Body and secret destroyed (销毁).
    #[n(7)]
    Erase,
    /// The same content under the keys of another epoch (重封).
    #[n(8)]
    Reseal,
    /// The same content without the cells of fields that are past their term (销项).
    #[n(9)]
    Redact,
    /// Taken over from another division, where it was out of force; here it is so, too (迁入注销).
    #[n(10)]
    TransferInClosed,
}

impl Operation {
    /// Whether the entry is a version of before once more, in another body.
    pub fn is_anew(self) -> bool {
        matches!(self, Operation::Reseal | Operation::Redact)
    }

    /// Whether the entry takes a version over from another division.
    pub fn takes_over(self) -> bool {
        matches!(self, Operation::TransferIn | Operation::TransferInClosed)
    }

    /// Whether the record is out of force after the entry, though it is still here.
    pub fn puts_out_of_force(self) -> bool {
        matches!(self, Operation::Close | Operation::TransferInClosed)
    }
}

/// A version of a record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecordEntry {
    /// The crypto suite of content and body.
    #[n(0)]
    pub suite: u8,
    /// Which record.
    #[n(1)]
    pub record: RecordId,
    /// 1 for the first version, one more for each later one.
    #[n(2)]
    pub version: u64,
    /// What happened.
    #[n(3)]
    pub operation: Operation,
    /// Leaf hash of the record's previous entry; absent in the first.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub previous: Option<Hash>,
    /// The version of the kind's schema.
    #[n(5)]
    pub schema: u32,
    /// The shard's key epoch.
    #[n(6)]
    pub epoch: u32,
    /// Root over the field commitments.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub content: Hash,
    /// SHA-256 of the sealed body.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub body: Hash,
    /// When the owner's node recorded it.
    #[n(9)]
    pub recorded_at: UnixMillis,
}

impl RecordEntry {
    /// As [`Entry::orders_destruction`].
    pub fn orders_destruction(&self) -> bool {
        self.operation == Operation::Erase || self.operation.is_anew()
    }

    /// As [`Entry::destroys_body_of`].
    pub fn destroys_body_of(&self, earlier: &Self) -> bool {
        let resealed = self.operation.is_anew() && earlier.content == self.content;
        earlier.record == self.record && (self.operation == Operation::Erase || resealed)
    }
}

/// One leaf of an access ledger. Everything about the reading is in its body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AccessEntry {
    /// The crypto suite of the body.
    #[n(0)]
    pub suite: u8,
    /// The access ledger's key epoch.
    #[n(1)]
    pub epoch: u32,
    /// SHA-256 of tag, salt and clear body: lets a reading be disclosed to its subject.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub content: Hash,
    /// SHA-256 of the sealed body.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Hash,
    /// When the reading was recorded.
    #[n(4)]
    pub recorded_at: UnixMillis,
}

/// What a grant's ledger says of one record, or of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum GrantOperation {
    /// The record is in scope from here on.
    #[n(1)]
    Enter,
    /// A later version of a record in scope.
    #[n(2)]
    Update,
    /// The record left the scope: drop it and sign a receipt.
    #[n(3)]
    Retract,
    /// Nothing is missing up to this size of the shard's ledger.
    #[n(4)]
    Heartbeat,
    /// The envelope of keys, sealed to the holder.
    #[n(5)]
    Keys,
    /// A record in scope anew, under the keys of another epoch, with other fields, or in its newest
    /// version only; every parcel of the record before it is destroyed.
    #[n(6)]
    Reseal,
}

impl GrantOperation {
    /// Whether every parcel of the record before this entry is to be destroyed.
    pub fn replaces_parcels(self) -> bool {
        matches!(self, GrantOperation::Retract | GrantOperation::Reseal)
    }

    /// Whether the entry brings a parcel of a record.
    pub fn brings_parcel(self) -> bool {
        matches!(
            self,
            GrantOperation::Enter | GrantOperation::Update | GrantOperation::Reseal
        )
    }
}

/// One leaf of a grant's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantEntry {
    /// The crypto suite of the parcel.
    #[n(0)]
    pub suite: u8,
    /// What changes for the holder.
    #[n(1)]
    pub operation: GrantOperation,
    /// The record; absent in a heartbeat and in keys.
    #[n(2)]
    pub record: Option<RecordId>,
    /// Size of the shard's ledger that this entry speaks of.
    #[n(3)]
    pub shard_size: u64,
    /// Root of the shard's ledger at that size.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub shard_root: Hash,
    /// SHA-256 of the parcel: cells, sealed row keys and proofs.
    /// In a heartbeat, of the shard's checkpoint with its cosignatures;
    /// with keys, of the sealed envelope.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub parcel: Option<Hash>,
    /// When the owner recorded it.
    #[n(6)]
    pub recorded_at: UnixMillis,
}

/// What a part of the recovery (恢复) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RecoveryPart {
    /// Keys, operators' files and the like, sealed to the recovery key.
    #[n(1)]
    Keys,
    /// A chunk of record secrets, as it lies in its page.
    #[n(2)]
    Chunk {
        /// The page.
        #[n(0)]
        page: u32,
        /// Where in the page's file it begins.
        #[n(1)]
        offset: u64,
    },
    /// A page was destroyed. No body.
    #[n(3)]
    Dropped {
        /// The page.
        #[n(0)]
        page: u32,
    },
    /// The sharing ended: no shares open anything from here on. No body.
    #[n(4)]
    Ended,
}

impl RecoveryPart {
    /// What a part is kept together with, as the identifier of a record is: its page, or the keys.
    pub fn group(&self) -> RecordId {
        let mut id = [0; 16];
        if let Self::Chunk { page, .. } | Self::Dropped { page } = self {
            id[0] = 1;
            id[12..].copy_from_slice(&page.to_be_bytes());
        }
        RecordId(id)
    }

    /// Whether a later part makes this one's body void, so that everybody destroys it.
    pub fn is_replaced_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Keys, Self::Keys | Self::Ended) => true,
            (Self::Chunk { page, .. }, Self::Dropped { page: dropped }) => page == dropped,
            // What an interrupted write left at a page's end is written over.
            (
                Self::Chunk { page, offset },
                Self::Chunk {
                    page: later,
                    offset: from,
                },
            ) => page == later && offset >= from,
            _ => false,
        }
    }
}

/// One leaf of a recovery ledger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryEntry {
    /// The crypto suite of the body.
    #[n(0)]
    pub suite: u8,
    /// What it is.
    #[n(1)]
    pub part: RecoveryPart,
    /// The nonce of the ceremony whose shares open it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ceremony: [u8; 16],
    /// SHA-256 of the sealed body; absent where there is none.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Option<Hash>,
    /// When the owner recorded it.
    #[n(4)]
    pub recorded_at: UnixMillis,
}

impl Entry {
    /// The canonical bytes, the data of a ledger's leaf.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads an entry from exactly these bytes.
    ///
    /// # Errors
    /// [`CborError`] when they are too long, malformed or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        if let Some(entry) = RecordRef::read(bytes) {
            return Ok(Entry::Record(entry.to_entry()));
        }
        let entry: Entry = cbor::from_slice("entry", bytes, ENTRY_MAX)?;
        match entry.suite() {
            SUITE => Ok(entry),
            _ => Err(CborError::Malformed { what: "entry" }),
        }
    }

    fn suite(&self) -> u8 {
        match self {
            Entry::Record(e) => e.suite,
            Entry::Act(e) => e.suite,
            Entry::Authority(e) => e.suite,
            Entry::Access(e) => e.suite,
            Entry::Grant(e) => e.suite,
            Entry::Recovery(e) => e.suite,
            Entry::Letter(e) => e.suite,
        }
    }

    /// The hash of the body that lies beside this entry, if it has one.
    pub fn body_hash(&self) -> Option<Hash> {
        match self {
            Entry::Record(e) => Some(e.body),
            Entry::Access(e) => Some(e.body),
            Entry::Grant(e) => e.parcel,
            Entry::Recovery(e) => e.body,
            Entry::Letter(e) => e.body,
            Entry::Authority(e) => e.statement.body_hash(),
            Entry::Act(_) => None,
        }
    }

    /// The record that this entry is about, in a shard's ledger or a grant's; what an entry is kept
    /// together with in others.
    pub fn record(&self) -> Option<RecordId> {
        match self {
            Entry::Record(e) => Some(e.record),
            Entry::Grant(e) => e.record,
            Entry::Recovery(e) => Some(e.part.group()),
            Entry::Letter(e) => Some(RecordId(e.id.0)),
            Entry::Act(_) | Entry::Authority(_) | Entry::Access(_) => None,
        }
    }

    /// Whether this entry may order bodies of earlier entries of its record to be destroyed.
    pub fn orders_destruction(&self) -> bool {
        match self {
            Entry::Record(e) => e.orders_destruction(),
            Entry::Grant(e) => e.operation.replaces_parcels() && e.record.is_some(),
            Entry::Recovery(_) => true,
            Entry::Letter(e) => e.step == crate::letter::Step::Close,
            Entry::Act(_) | Entry::Authority(_) | Entry::Access(_) => false,
        }
    }

    /// Whether this entry, later in the same ledger, says that the body of `earlier` was to be
    /// destroyed: an erasure that of every version of the record, a reseal or redaction that of the
    /// content which it seals anew, a retraction or a reseal in a grant's ledger that of every
    /// parcel of the record, the end of a proposal that of the proposal or of its answer.
    pub fn destroys_body_of(&self, earlier: &Entry) -> bool {
        match (earlier, self) {
            (Entry::Record(earlier), Entry::Record(later)) => later.destroys_body_of(earlier),
            (Entry::Grant(earlier), Entry::Grant(later)) => {
                earlier.record.is_some()
                    && earlier.record == later.record
                    && later.operation.replaces_parcels()
            }
            (Entry::Recovery(earlier), Entry::Recovery(later)) => {
                earlier.part.is_replaced_by(&later.part)
            }
            (Entry::Letter(earlier), Entry::Letter(later)) => later.ends(earlier),
            _ => false,
        }
    }
}

impl<C> Encode<C> for Entry {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.u8(FORMAT)?;
        match self {
            Entry::Record(entry) => e.u8(1)?.encode_with(entry, ctx)?,
            Entry::Act(entry) => e.u8(2)?.encode_with(entry, ctx)?,
            Entry::Authority(entry) => e.u8(3)?.encode_with(entry, ctx)?,
            Entry::Access(entry) => e.u8(4)?.encode_with(entry, ctx)?,
            Entry::Grant(entry) => e.u8(5)?.encode_with(entry, ctx)?,
            Entry::Recovery(entry) => e.u8(6)?.encode_with(entry, ctx)?,
            Entry::Letter(entry) => e.u8(7)?.encode_with(entry, ctx)?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Entry {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(3) || d.u8()? != FORMAT {
            return Err(minicbor::decode::Error::message("unknown entry format"));
        }
        match d.u8()? {
            1 => Ok(Entry::Record(d.decode_with(ctx)?)),
            2 => Ok(Entry::Act(d.decode_with(ctx)?)),
            3 => Ok(Entry::Authority(d.decode_with(ctx)?)),
            4 => Ok(Entry::Access(d.decode_with(ctx)?)),
            5 => Ok(Entry::Grant(d.decode_with(ctx)?)),
            6 => Ok(Entry::Recovery(d.decode_with(ctx)?)),
            7 => Ok(Entry::Letter(d.decode_with(ctx)?)),
            _ => Err(minicbor::decode::Error::message("unknown entry type")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::Record(RecordEntry {
            suite: SUITE,
            record: RecordId([1; 16]),
            version: 1,
            operation: Operation::Register,
            previous: None,
            schema: 1,
            epoch: 1,
            content: [2; 32],
            body: [3; 32],
            recorded_at: UnixMillis(1_700_000_000_000),
        })
    }

    #[test]
    fn an_entry_reads_back_from_its_bytes() {
        assert_eq!(Entry::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn the_golden_bytes_of_a_record_entry_hold() {
        let golden = [
            "83",
            "01",
            "01", // format 1, type 1 (record)
            "a9", // nine fields
            "00",
            "01", // suite 1
            "01",
            "50",
            "01010101010101010101010101010101", // record
            "02",
            "01", // version 1
            "03",
            "01", // register
            "05",
            "01",
            "06",
            "01", // schema 1, epoch 1; no previous entry
            "07",
            "5820",
            "0202020202020202020202020202020202020202020202020202020202020202",
            "08",
            "5820",
            "0303030303030303030303030303030303030303030303030303030303030303",
            "09",
            "1b",
            "0000018bcfe56800", // recorded at
        ]
        .concat();
        assert_eq!(data_encoding::HEXLOWER.encode(&sample().encode()), golden);
    }

    #[test]
    fn the_golden_bytes_of_a_recovery_entry_hold() {
        let entry = Entry::Recovery(RecoveryEntry {
            suite: SUITE,
            part: RecoveryPart::Chunk {
                page: 3,
                offset: 64,
            },
            ceremony: [4; 16],
            body: Some([5; 32]),
            recorded_at: UnixMillis(1_700_000_000_000),
        });
        let golden = [
            "83",
            "01",
            "06", // format 1, type 6 (recovery)
            "a5", // five fields
            "00",
            "01", // suite 1
            "01",
            "82",
            "02",
            "82",
            "03",
            "1840", // a chunk: page 3, offset 64
            "02",
            "50",
            "04040404040404040404040404040404", // ceremony
            "03",
            "5820",
            "0505050505050505050505050505050505050505050505050505050505050505",
            "04",
            "1b",
            "0000018bcfe56800", // recorded at
        ]
        .concat();
        assert_eq!(data_encoding::HEXLOWER.encode(&entry.encode()), golden);
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn a_part_is_replaced_by_what_makes_it_void_and_by_nothing_else() {
        use RecoveryPart::{Chunk, Dropped, Ended, Keys};
        let chunk = Chunk {
            page: 2,
            offset: 50,
        };
        assert!(Keys.is_replaced_by(&Keys) && Keys.is_replaced_by(&Ended));
        assert!(!Keys.is_replaced_by(&chunk) && !chunk.is_replaced_by(&Keys));
        assert!(chunk.is_replaced_by(&Dropped { page: 2 }));
        assert!(!chunk.is_replaced_by(&Dropped { page: 3 }));
        assert!(chunk.is_replaced_by(&Chunk {
            page: 2,
            offset: 50
        }));
        assert!(!chunk.is_replaced_by(&Chunk {
            page: 2,
            offset: 90
        }));
        assert!(!chunk.is_replaced_by(&Chunk {
            page: 3,
            offset: 50
        }));
        assert!(!Dropped { page: 2 }.is_replaced_by(&Ended));
    }

    #[test]
    fn every_truncation_extension_and_long_form_is_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Entry::decode(&longer).is_err());
        // The version 1 written in two bytes (0x18 0x01) is the same number, not the same entry.
        let at = 3 + 1 + 2 + 1 + 1 + 16 + 1;
        let mut long_form = bytes[..at].to_vec();
        long_form.extend([0x18, 0x01]);
        long_form.extend(&bytes[at + 1..]);
        assert!(matches!(
            Entry::decode(&long_form),
            Err(CborError::NotCanonical { .. })
        ));
    }

    #[test]
    fn an_unknown_suite_is_refused() {
        let Entry::Record(mut entry) = sample() else {
            unreachable!()
        };
        entry.suite = 9;
        assert!(Entry::decode(&Entry::Record(entry).encode()).is_err());
    }
}
