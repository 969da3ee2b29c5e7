//! Fetching a recovery (取回恢复资料): a new machine asks its parent for what a lost node is made from.
//!
//! Owns the two halves of message 17: the question, which shows a secret that the parent's officer
//! handed out for this one replacement, and a piece of the recovery file. The file is ciphertext that
//! opens with officers' shares alone; yet a stranger gets none of it.
//! Refuses pieces that are longer than a message before `Welcome` may be.

use minicbor::{Decode, Encode};
use record::id::{DivisionId, Hash};

use crate::message::Secret;

/// The longest piece of a recovery file: fits the messages that strangers may send and get.
pub const PIECE_BYTES_MAX: usize = 128 * 1024;

/// See [`crate::Message::Recovery`].
#[derive(Debug, Encode, Decode)]
pub enum Recovery {
    /// The new machine asks for a piece.
    #[n(1)]
    Ask(#[n(0)] RecoveryAsk),
    /// The parent gives it.
    #[n(2)]
    Piece(#[n(0)] RecoveryPiece),
}

/// The question for a piece of a recovery file.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryAsk {
    /// The lost node's division.
    #[n(0)]
    pub division: DivisionId,
    /// What the parent's officer handed over.
    #[n(1)]
    pub secret: Secret,
    /// SHA-256 of the file of which a beginning is here; absent at first.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub file: Option<Hash>,
    /// How many bytes of that file are here. All of them: the file is whole, and the secret is of no
    /// more use.
    #[n(3)]
    pub offset: u64,
}

/// A piece of a recovery file.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryPiece {
    /// SHA-256 of the whole file. Another than the one asked about: begin at 0 again.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub file: Hash,
    /// Bytes of the whole file.
    #[n(1)]
    pub total: u64,
    /// Where the piece begins.
    #[n(2)]
    pub offset: u64,
    /// The piece; empty at the end.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for RecoveryPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryPiece")
            .field("total", &self.total)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
