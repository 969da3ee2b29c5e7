//! The tables of a ledger's shard in the store, and their keys.
//!
//! A shard's name is the ledger's origin, so everything of a ledger lies together.

use minicbor::{Decode, Encode};
use record::cbor;
use record::entry::{Operation, RecordEntry};
use record::id::{Hash, Origin};
use store::{Key, Store};

use crate::error::{RegistryError, Result};

/// Entries by index.
pub const ENTRY: &str = "entry";
/// Bodies by the index of their entry.
pub const BODY: &str = "body";
/// Hash tiles by level and index.
pub const TILE: &str = "tile";
/// Size, checkpoint and last act of the ledger.
pub const HEAD: &str = "head";
/// Newest version of each record.
pub const RECORD: &str = "record";
/// How far resealing came, and what could not be resealed.
pub const RESEAL: &str = "reseal";
/// Every entry of a record in a shard's or a grant's ledger, own or replica: record, then index.
/// The row without a record says that none is missing, or up to which entry.
pub const CHAIN: &str = "chain";
/// Destructions that an entry ordered, by its index, until they are done and told.
pub const DESTROY: &str = "destroy";
/// Where the chunks end, in each page of record secrets, that records of this ledger point to.
pub const PAGE: &str = "page";
/// Of an own shard: records that came back from the parent without their secrets, each with the index
/// of its first entry that came.
pub const LOST: &str = "lost";
/// Import chunks that were taken.
pub const IMPORT: &str = "import";
/// Records in scope of a grant, and how far the shard was worked through.
pub const SCOPE: &str = "scope";
/// Alarms about this ledger.
pub const ALARM: &str = "alarm";
/// Grants made, with their secrets, sealed.
pub const GRANT: &str = "grant";
/// Invitations given out.
pub const INVITATION: &str = "invitation";
/// Leaves to fetch a lost node's recovery.
pub const LEAVE: &str = "leave";
/// Charters whose node lost its keys and may be chartered again.
pub const REPLACEMENT: &str = "replacement";

/// Of records that moved here: where their versions lie in the shard that they left, and the proof.
pub const MOVED_IN: &str = "moved-in";

/// Of plans that move a shard: which records they name, sealed; which of them cannot move; of batches
/// that came, what was not taken and why.
pub const MOVING: &str = "moving";

/// The rotation of this node's own keys that is under way.
pub const RENEWAL: &str = "renewal";

/// Pages of record secrets that were written again: old number to new.
pub const MOVED: &str = "moved";

/// What was sealed last for a recovery: a keyed hash of it.
pub const RECOVERY: &str = "recovery";
/// In a ledger that a recovered node waits for: that it had one.
pub const AWAITED: &str = "awaited";

/// Of an own shard: which entry was written at whose proposal. Of an own ledger of proposals: what
/// became of each. Of a replica of letters: how many lie there.
pub const PROPOSAL: &str = "proposal";
/// Of an own ledger of answers: the proposals that it answers.
pub const INBOX: &str = "inbox";
/// Sets that are to be published and wait for approval, by their hash.
pub const PUBLISHED: &str = "published";

/// Checkpoints cosigned of ledgers that are not held here.
pub const WITNESS: &str = "witness";

/// Bundles packed for a neighbour and opened of its, by division.
pub const FERRY: &str = "ferry";

/// What each neighbour is known to hold, by division.
pub const REACH: &str = "reach";

/// The shard of what a node keeps for itself, beside its ledgers.
pub const LOCAL: &str = "local";

pub(crate) fn key(origin: &Origin, table: &str, rest: &[u8]) -> Key {
    Key::new(origin.as_str(), table, rest)
        .expect("origins, tables and rests are within the key limits")
}

pub(crate) fn local(table: &str, rest: &[u8]) -> Key {
    Key::new(LOCAL, table, rest).expect("tables and rests are within the key limits")
}

pub(crate) fn entry(origin: &Origin, index: u64) -> Key {
    key(origin, ENTRY, &index.to_be_bytes())
}

pub(crate) fn body(origin: &Origin, index: u64) -> Key {
    key(origin, BODY, &index.to_be_bytes())
}

pub(crate) fn tile(origin: &Origin, level: u8, index: u64) -> Key {
    let mut rest = vec![level];
    rest.extend(index.to_be_bytes());
    key(origin, TILE, &rest)
}

pub(crate) fn head(origin: &Origin) -> Key {
    key(origin, HEAD, b"")
}

/// Every whole checkpoint that was received of a ledger, by size: one of two that contradict.
pub const NOTE: &str = "note";

pub(crate) fn note(origin: &Origin, size: u64) -> Key {
    key(origin, NOTE, &size.to_be_bytes())
}

/// What is known of a ledger's end, replaced with every commit to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// How many entries are stored here.
    #[n(0)]
    pub size: u64,
    /// Root over them.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub root: Hash,
    /// The newest checkpoint whose entries are all here, with the signatures known.
    #[n(2)]
    pub whole: Option<String>,
    /// Of a replica in transfer: the checkpoint, ahead of `size`, that the entries were proven to belong to.
    #[n(3)]
    pub target: Option<String>,
    /// The newest checkpoint that has its quorum of cosignatures.
    #[n(4)]
    pub cosigned: Option<String>,
    /// Leaf hash of the newest act.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub act: Option<Hash>,
    /// How many entries follow the newest act.
    #[n(6)]
    pub tail: u64,
}

impl Head {
    /// The head of a ledger that has no entry.
    pub fn empty() -> Self {
        Self {
            size: 0,
            root: ledger::hash::empty_root(),
            whole: None,
            target: None,
            cosigned: None,
            act: None,
            tail: 0,
        }
    }

    pub(crate) fn read(store: &dyn Store, origin: &Origin) -> Result<Self> {
        match store.get(&head(origin))? {
            None => Ok(Self::empty()),
            Some(bytes) => decode("ledger head", &bytes),
        }
    }
}

/// The newest version of a record, and where its secret lies.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Newest {
    /// Index of the newest entry.
    #[n(0)]
    pub at: u64,
    /// Its version.
    #[n(1)]
    pub version: u64,
    /// Its leaf hash.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub leaf: Hash,
    /// Page of the record's secret.
    #[n(3)]
    pub page: u32,
    /// Offset of the chunk in the page.
    #[n(4)]
    pub offset: u64,
    /// Length of the chunk.
    #[n(5)]
    pub length: u32,
}

impl Newest {
    /// What it is after one more entry of the record, at `at`, with this leaf hash.
    pub(crate) fn after(old: Option<Self>, entry: &RecordEntry, at: u64, leaf: Hash) -> Self {
        let (page, offset, length) = match &old {
            // Nothing opens an erased record any more.
            _ if entry.operation == Operation::Erase => (0, 0, 0),
            Some(old) => (old.page, old.offset, old.length),
            None => (0, 0, 0),
        };
        // A reseal of an earlier version leaves the newest one where it is.
        let (at, version) = match &old {
            Some(old) if entry.version < old.version => (old.at, old.version),
            _ => (at, entry.version),
        };
        Self {
            at,
            version,
            leaf,
            page,
            offset,
            length,
        }
    }
}

/// Reads a value that this program wrote.
pub(crate) fn decode<T>(what: &'static str, bytes: &[u8]) -> Result<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    cbor::from_slice(what, bytes, store::VALUE_BYTES_MAX)
        .map_err(|e| RegistryError::damaged(e.to_string()))
}

/// Tiles of a ledger as the `ledger` crate reads them.
pub(crate) struct Tiles<'a> {
    pub store: &'a dyn Store,
    pub origin: &'a Origin,
}

impl ledger::tile::TileReader for Tiles<'_> {
    fn tile(
        &self,
        level: u8,
        index: u64,
    ) -> std::result::Result<Option<Vec<u8>>, ledger::tile::ReadError> {
        self.store
            .get(&tile(self.origin, level, index))
            .map_err(ledger::tile::ReadError::new)
    }
}
