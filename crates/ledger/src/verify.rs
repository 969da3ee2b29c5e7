//! Verifying that a log only grew: what a parent or witness does before it stores or cosigns.
//!
//! Owns the only way to a [`Verified`].
//! Refuses a checkpoint that is not exactly what is held plus the leaves given.

use crate::checkpoint::{self, Checkpoint, CheckpointError, CosignError, OpenError};
use crate::frontier::Frontier;
use crate::hash::Hash;
use crate::note::{NoteError, NoteSigner, Verifier, VerifyError};

/// Why a checkpoint does not extend what is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// The bytes are no note.
    #[error("the bytes are not a signed note")]
    Malformed(#[source] NoteError),
    /// The note is no checkpoint.
    #[error("the signed note is not a checkpoint")]
    NotACheckpoint(#[source] CheckpointError),
    /// The log's signature is missing or wrong.
    #[error(
        "the checkpoint of `{origin}` is not signed by its log; keep it apart and ask the log for another"
    )]
    BadSignature {
        /// Origin expected.
        origin: String,
        /// What is wrong with the signatures.
        source: VerifyError,
    },
    /// The key is a witness's, not a log's.
    #[error(
        "the key `{name}` is of the kind that witnesses cosign with; use the log's vkey, type 0x01"
    )]
    WrongKind {
        /// Name of the key.
        name: String,
    },
    /// The key or the checkpoint is of another log.
    #[error(
        "expected a checkpoint and a log key of `{expected}`, got one of `{found}`; check which ledger was asked for"
    )]
    WrongOrigin {
        /// Origin expected.
        expected: String,
        /// Name of the key, or origin of the checkpoint, that was found.
        found: String,
    },
    /// The log shows fewer leaves than it has shown before.
    #[error(
        "the log shows `{signed}` leaves where `{held}` are held; send it the rest, it lost them or hides them"
    )]
    Short {
        /// Leaves held.
        held: u64,
        /// Leaves that the checkpoint speaks of.
        signed: u64,
    },
    /// The leaves given are fewer than the checkpoint speaks of.
    #[error("the checkpoint adds `{needed}` leaves, only `{given}` came; fetch the rest")]
    Missing {
        /// Leaves between what is held and the checkpoint.
        needed: u64,
        /// Leaves given.
        given: u64,
    },
    /// The leaves given are more than the checkpoint speaks of.
    #[error("the checkpoint adds `{needed}` leaves, but `{given}` came; fetch a newer checkpoint")]
    Surplus {
        /// Leaves between what is held and the checkpoint.
        needed: u64,
        /// Leaves given.
        given: u64,
    },
    /// Held leaves and given leaves do not have the signed root: one of them is not the log's.
    #[error(
        "the root over `{size}` leaves is not the signed one; fetch the leaves again, and if it stays so, the log changed its history: raise the alarm"
    )]
    Mismatch {
        /// Size of the checkpoint.
        size: u64,
    },
}

/// A checkpoint that was verified to extend what was held. Only [`extension`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    checkpoint: Checkpoint,
    /// Of the checkpoint's size, with its root.
    frontier: Frontier,
    /// As received.
    note: Vec<u8>,
}

impl Verified {
    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The frontier to hold from here on.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The signed note, as received.
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// The witness's signature line (with its newline) on this checkpoint.
    ///
    /// Store the frontier durably before the line leaves, or a crash lets a second history be
    /// cosigned.
    ///
    /// # Errors
    /// [`CosignError::Time`].
    pub fn cosign(&self, witness: &NoteSigner, time_secs: u64) -> Result<String, CosignError> {
        checkpoint::cosign(&self.note, witness, time_secs)
    }
}

/// Checks that a signed checkpoint is what is held, plus exactly these leaves, and nothing else.
///
/// No leaves and an unchanged size is a valid extension: the same tree, signed again.
///
/// # Errors
/// [`ExtensionError`]; what is held stays as it is.
pub fn extension(
    held: &Frontier,
    new_leaf_hashes: &[Hash],
    note: &[u8],
    log: &Verifier,
    origin: &str,
) -> Result<Verified, ExtensionError> {
    let checkpoint = open(note, log, origin)?;
    let signed = checkpoint.size();
    let given = new_leaf_hashes.len() as u64;
    let needed = signed
        .checked_sub(held.size())
        .ok_or(ExtensionError::Short {
            held: held.size(),
            signed,
        })?;
    if given < needed {
        return Err(ExtensionError::Missing { needed, given });
    }
    if given > needed {
        return Err(ExtensionError::Surplus { needed, given });
    }
    let mut frontier = held.clone();
    for leaf_hash in new_leaf_hashes {
        frontier.append(*leaf_hash);
    }
    if frontier.root() != *checkpoint.root() {
        return Err(ExtensionError::Mismatch { size: signed });
    }
    Ok(Verified {
        checkpoint,
        frontier,
        note: note.to_vec(),
    })
}

/// The checkpoint of the expected origin.
fn open(note: &[u8], log: &Verifier, origin: &str) -> Result<Checkpoint, ExtensionError> {
    let wrong_origin = |found: &str| ExtensionError::WrongOrigin {
        expected: origin.to_owned(),
        found: found.to_owned(),
    };
    if log.name() != origin {
        return Err(wrong_origin(log.name()));
    }
    checkpoint::open(note, log).map_err(|error| match error {
        OpenError::Note(source) => ExtensionError::Malformed(source),
        OpenError::Checkpoint(source) => ExtensionError::NotACheckpoint(source),
        OpenError::Signature { source, .. } => ExtensionError::BadSignature {
            origin: origin.to_owned(),
            source,
        },
        OpenError::WrongOrigin { origin, .. } => wrong_origin(&origin),
        OpenError::WrongKind { name } => ExtensionError::WrongKind { name },
    })
}
