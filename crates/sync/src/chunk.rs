//! Checking one chunk of a ledger before anything of it is kept.
//!
//! Owns the only way to a [`Delivery`]. Refuses entries that do not continue what is held up to
//! the signed head, that do not belong in the ledger, whose bodies are not the ones they name, or
//! whose acts do not hold.

use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::hash::{digests, leaf_hash, leaf_hashes};
use ledger::proof::{verify_consistency, verify_inclusion};
use ledger::verify::Verified;
use record::act::{ACT_ENTRIES_MAX, Act};
use record::entry::Entry;
use record::id::{Hash, Origin};

use crate::code::RejectCode;
use crate::message::{Entries, Gone, Item};
use crate::trust::{Held, Tail};

/// Entries that were verified to continue what is held; only this module makes one.
///
/// Commit items, frontier, note and tail in one batch, then call [`crate::Session::stored`].
/// Those of one ledger follow one another: commit them in the order in which they came.
#[derive(Debug)]
pub struct Delivery {
    origin: Origin,
    first: u64,
    items: Vec<Item>,
    entries: Vec<Entry>,
    leaf_hashes: Vec<Hash>,
    held: Held,
    complete: bool,
    verified: Option<Box<Verified>>,
}

impl Delivery {
    /// Which ledger.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Index of the first entry: the size that must still be held when this is committed.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Entries and bodies, as received.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The entries, read.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Their leaf hashes.
    pub fn leaf_hashes(&self) -> &[Hash] {
        &self.leaf_hashes
    }

    /// What is held once this is committed: frontier, signed head and tail.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whether this reaches the signed head.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The signed head that this reaches, if this node cosigns it: its cosignatures may lie in the
    /// same batch, and be given away once that is durable.
    pub fn verified(&self) -> Option<&Verified> {
        self.verified.as_deref()
    }

    pub(crate) fn may_be_cosigned(&mut self, verified: Verified) {
        self.verified = Some(Box::new(verified));
    }

    /// Entries and bodies, without copying them.
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }
}

/// Why a chunk is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error("the answer is not to what was asked; nothing of it is kept")]
    NotAsked,
    #[error(
        "the entries up to {end} do not continue what is held to the signed head of {head_size}; the ledger's history was changed, or the answer is damaged"
    )]
    Mismatch { end: u64, head_size: u64 },
    #[error(
        "the signed head of {head_size} is not proven to extend the signed head of {known_size} seen before; the ledger's history was changed, or the answer is damaged"
    )]
    NotExtending { known_size: u64, head_size: u64 },
    #[error("entry {index} is malformed; the owner's node must be repaired")]
    Malformed { index: u64 },
    #[error("entry {index} is of another kind than the ledger `{origin}` takes")]
    WrongKind { index: u64, origin: Origin },
    #[error("the body of entry {index} is missing; send it again with its body")]
    BodyMissing { index: u64 },
    #[error("entry {index} names no body, but one came with it")]
    BodySurplus { index: u64 },
    #[error("the body of entry {index} is not the one that the entry names")]
    BodyForged { index: u64 },
    #[error("entry {by} does not show that the body of entry {index} was to be destroyed")]
    BodyNotGone { index: u64, by: u64 },
    #[error("the signature of the act at {index} does not verify in this ledger")]
    ActSignature { index: u64 },
    #[error("the act at {index} does not sign the entries before it")]
    ActRange { index: u64 },
    #[error("the act at {index} does not name the act before it")]
    ActOrder { index: u64 },
    #[error("more than {ACT_ENTRIES_MAX} entries before {index} are signed by no act")]
    Unsigned { index: u64 },
}

impl ChunkError {
    pub(crate) fn code(&self) -> RejectCode {
        match self {
            Self::NotAsked | Self::Mismatch { .. } | Self::NotExtending { .. } => {
                RejectCode::Mismatch
            }
            Self::Malformed { .. } | Self::WrongKind { .. } => RejectCode::Entry,
            Self::BodyMissing { .. }
            | Self::BodySurplus { .. }
            | Self::BodyForged { .. }
            | Self::BodyNotGone { .. } => RejectCode::Body,
            Self::ActSignature { .. }
            | Self::ActRange { .. }
            | Self::ActOrder { .. }
            | Self::Unsigned { .. } => RejectCode::Act,
        }
    }
}

/// What a chunk is checked against.
pub(crate) struct Expected<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) frontier: &'a Frontier,
    pub(crate) tail: &'a Tail,
    /// The signed head, which the log's key was checked on.
    pub(crate) head: &'a Checkpoint,
    /// Its note.
    pub(crate) note: &'a str,
    /// A signed head between frontier and head that was seen before.
    pub(crate) known: Option<&'a Checkpoint>,
}

impl Expected<'_> {
    /// Whether the answer is to this question.
    pub(crate) fn is_answered_by(&self, entries: &Entries) -> bool {
        entries.first == self.frontier.size() && entries.head_size == self.head.size()
    }
}

/// Checks a chunk: history first, so that only what the owner signed is read any further.
pub(crate) fn verify(expected: &Expected<'_>, entries: Entries) -> Result<Delivery, ChunkError> {
    let (first, head) = (expected.frontier.size(), expected.head);
    if !expected.is_answered_by(&entries) || entries.items.is_empty() {
        return Err(ChunkError::NotAsked);
    }
    let leaves: Vec<&[u8]> = entries.items.iter().map(|i| i.entry.as_slice()).collect();
    let leaf_hashes = leaf_hashes(&leaves);
    let frontier = history(expected, &leaf_hashes, &entries)?;
    let bodies: Vec<&[u8]> = entries
        .items
        .iter()
        .filter_map(|item| item.body.as_deref())
        .collect();
    let mut body_hashes = digests(&bodies).into_iter();
    let mut tail = expected.tail.clone();
    let mut read = Vec::with_capacity(entries.items.len());
    for ((item, leaf), index) in entries.items.iter().zip(&leaf_hashes).zip(first..) {
        let entry = Entry::decode(&item.entry).map_err(|_| ChunkError::Malformed { index })?;
        kind(expected.origin, &entry, index)?;
        let found = item.body.as_ref().and_then(|_| body_hashes.next());
        body(head, item, found, &entry, index)?;
        match &entry {
            Entry::Act(entry) => act(expected.origin, entry, &mut tail, index)?,
            _ if expected.origin.is_shard() && tail.len() == ACT_ENTRIES_MAX as usize => {
                return Err(ChunkError::Unsigned { index });
            }
            _ => {}
        }
        tail.follow(&entry, *leaf);
        read.push(entry);
    }
    Ok(Delivery {
        origin: expected.origin.clone(),
        first,
        complete: frontier.size() == head.size(),
        items: entries.items,
        entries: read,
        leaf_hashes,
        held: Held {
            frontier,
            note: expected.note.to_owned(),
            tail,
        },
        verified: None,
    })
}

/// The frontier after the chunk, proven to be a prefix of the signed head.
fn history(
    expected: &Expected<'_>,
    leaf_hashes: &[Hash],
    entries: &Entries,
) -> Result<Frontier, ChunkError> {
    let head = expected.head;
    let mut frontier = expected.frontier.clone();
    for leaf in leaf_hashes {
        frontier.append(*leaf);
    }
    let (end, root) = (frontier.size(), frontier.root());
    verify_consistency(end, &root, head.size(), head.root(), &entries.proof).map_err(|_| {
        ChunkError::Mismatch {
            end,
            head_size: head.size(),
        }
    })?;
    let extends = match expected.known {
        Some(known) => verify_consistency(
            known.size(),
            known.root(),
            head.size(),
            head.root(),
            &entries.extends,
        )
        .is_ok(),
        None => entries.extends.is_empty(),
    };
    if !extends {
        return Err(ChunkError::NotExtending {
            known_size: expected.known.map_or(0, Checkpoint::size),
            head_size: head.size(),
        });
    }
    Ok(frontier)
}

/// A shard takes records, a grant's ledger grants, `authority` and `access` their own; all take acts.
fn kind(origin: &Origin, entry: &Entry, index: u64) -> Result<(), ChunkError> {
    let fits = match entry {
        Entry::Act(_) => true,
        Entry::Record(_) => origin.is_shard(),
        Entry::Grant(_) => origin.grant_id().is_some(),
        Entry::Authority(_) => {
            origin.grant_id().is_none() && origin.ledger().as_str() == "authority"
        }
        Entry::Access(_) => origin.grant_id().is_none() && origin.ledger().as_str() == "access",
        Entry::Recovery(_) => origin.grant_id().is_none() && origin.ledger().as_str() == "recovery",
        Entry::Letter(letter) => origin.addressee().is_some() && letter.fits(origin.is_proposals()),
    };
    if fits {
        Ok(())
    } else {
        let origin = origin.clone();
        Err(ChunkError::WrongKind { index, origin })
    }
}

/// `found` is the hash of the body that came.
fn body(
    head: &Checkpoint,
    item: &Item,
    found: Option<Hash>,
    entry: &Entry,
    index: u64,
) -> Result<(), ChunkError> {
    match (entry.body_hash(), found, &item.gone) {
        (None, None, None) => Ok(()),
        (None, _, _) | (Some(_), Some(_), Some(_)) => Err(ChunkError::BodySurplus { index }),
        (Some(hash), Some(found), None) if hash == found => Ok(()),
        (Some(_), Some(_), None) => Err(ChunkError::BodyForged { index }),
        (Some(_), None, None) => Err(ChunkError::BodyMissing { index }),
        (Some(_), None, Some(gone)) if is_gone(head, gone, entry, index) => Ok(()),
        (Some(_), None, Some(gone)) => Err(ChunkError::BodyNotGone {
            index,
            by: gone.index,
        }),
    }
}

/// Whether a later entry under the signed head says that this entry's body was to be destroyed.
fn is_gone(head: &Checkpoint, gone: &Gone, entry: &Entry, index: u64) -> bool {
    let leaf = leaf_hash(&gone.entry);
    let included = verify_inclusion(&leaf, gone.index, head.size(), &gone.proof, head.root());
    let Ok(later) = Entry::decode(&gone.entry) else {
        return false;
    };
    let says_so = later.destroys_body_of(entry);
    gone.index > index && included.is_ok() && says_so
}

/// Checks an act against the entries before it.
fn act(origin: &Origin, act: &Act, tail: &mut Tail, index: u64) -> Result<(), ChunkError> {
    act.verify(origin)
        .map_err(|_| ChunkError::ActSignature { index })?;
    let count = act.count as usize;
    // In a shard every entry is somebody's, and so is every letter: an act leaves none before it
    // unsigned.
    let of_somebody = origin.is_shard() || origin.addressee().is_some();
    let leaves_gap = of_somebody && count != tail.len();
    let precedes = act.first.checked_add(u64::from(act.count)) == Some(index);
    if leaves_gap || !precedes || tail.root(count) != Some(act.root) {
        return Err(ChunkError::ActRange { index });
    }
    if act.previous.as_ref() != tail.previous_act() {
        return Err(ChunkError::ActOrder { index });
    }
    Ok(())
}
