//! The portable proof of one leaf (C2SP tlog-proof): index, hashes and checkpoint in one text.
//!
//! Owns the text form `c2sp.org/tlog-proof@v1`, and checking such a proof offline.
//! Refuses texts over 256 KiB and any second spelling. Its `extra` is authenticated by nobody.

use super::{PROOF_HASHES_MAX, ProofError, verify_inclusion};
use crate::checkpoint::{self, Checkpoint, CheckpointError, OpenError};
use crate::format::{base64, decimal, hash_from_text, hash_text};
use crate::hash::Hash;
use crate::note::{Note, NoteError, Verifier};
use data_encoding::BASE64;

/// The largest proof, in bytes of text.
pub const PROOF_BYTES_MAX: usize = 256 * 1024;

/// The most extra data, in bytes before base64.
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Why something is not a proof in text form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofTextError {
    /// Over [`PROOF_BYTES_MAX`] or [`EXTRA_BYTES_MAX`].
    #[error("the proof is larger than 262144 bytes or its extra data than 65536; drop extra data")]
    TooLarge,
    /// Not UTF-8, or without a blank line before the checkpoint.
    #[error("the proof is not text with a checkpoint below a blank line; fetch it again, whole")]
    Shape,
    /// The first line is another one.
    #[error(
        "the proof does not begin with `c2sp.org/tlog-proof@v1`; it is of another version or no proof"
    )]
    Version,
    /// The extra line is not base64 of at least one byte.
    #[error("the extra line of the proof is not base64; fetch the proof again")]
    Extra,
    /// The index line is not a plain number.
    #[error("the index line of the proof is not `index` and a plain number; fetch the proof again")]
    Index,
    /// A hash line is not 32 bytes in base64, or there are more than a tree can need.
    #[error(
        "a hash line of the proof is not 32 bytes in base64, or there are over 64; fetch the proof again"
    )]
    Hashes,
    /// What is below the blank line is no note.
    #[error("the proof does not end in a signed note")]
    Note(#[from] NoteError),
    /// The note is no checkpoint.
    #[error("the proof does not end in a checkpoint")]
    Checkpoint(#[from] CheckpointError),
}

/// Why a proof in text form does not prove the leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyProofError {
    /// The checkpoint is not the log's.
    #[error("the checkpoint of the proof is not acceptable")]
    Checkpoint(#[from] OpenError),
    /// The hashes do not lead from the leaf to the checkpoint's root.
    #[error("the proof does not lead from this leaf to its checkpoint")]
    Proof(#[from] ProofError),
}

/// A leaf's place in a log, provable offline with the log's public key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Opaque, unauthenticated; empty means none.
    extra: Vec<u8>,
    index: u64,
    /// Leaf to root.
    hashes: Vec<Hash>,
    /// A well-formed note over a well-formed checkpoint, verbatim.
    note: String,
}

impl TlogProof {
    /// A proof out of its parts; `extra` may be empty.
    ///
    /// # Errors
    /// [`ProofTextError`] when a part is malformed or too large. Whether the proof proves anything,
    /// [`TlogProof::verify`] tells.
    pub fn new(
        extra: Vec<u8>,
        index: u64,
        hashes: Vec<Hash>,
        note: &[u8],
    ) -> Result<Self, ProofTextError> {
        if extra.len() > EXTRA_BYTES_MAX {
            return Err(ProofTextError::TooLarge);
        }
        if index > crate::hash::SIZE_MAX {
            return Err(ProofTextError::Index);
        }
        if hashes.len() > PROOF_HASHES_MAX {
            return Err(ProofTextError::Hashes);
        }
        let note = Note::parse(note)?;
        Checkpoint::parse(note.text().as_bytes())?;
        Ok(Self {
            extra,
            index,
            hashes,
            // A note has one spelling, so this is verbatim.
            note: note.encode(),
        })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`ProofTextError`].
    pub fn parse(text: &[u8]) -> Result<Self, ProofTextError> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(ProofTextError::TooLarge);
        }
        let text = str::from_utf8(text).map_err(|_| ProofTextError::Shape)?;
        // No line above the checkpoint may be empty, so the first blank line separates.
        let (head, note) = text.split_once("\n\n").ok_or(ProofTextError::Shape)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(ProofTextError::Version);
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra"))
            .map(parse_extra)
            .transpose()?
            .unwrap_or_default();
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(decimal)
            .ok_or(ProofTextError::Index)?;
        let hashes = lines
            .take(PROOF_HASHES_MAX + 1)
            .map(hash_from_text)
            .collect::<Option<Vec<_>>>()
            .ok_or(ProofTextError::Hashes)?;
        Self::new(extra, index, hashes, note.as_bytes())
    }

    /// The text form, conventionally in a file `*.tlog-proof`.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if !self.extra.is_empty() {
            text.push_str(&format!("extra {}\n", BASE64.encode(&self.extra)));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            text.push_str(&hash_text(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Checks log signature and path, and gives the checkpoint that the leaf is in.
    ///
    /// Cosignatures are the caller's policy: [`checkpoint::verify_cosignature`] over
    /// [`TlogProof::note`].
    ///
    /// # Errors
    /// [`VerifyProofError`].
    pub fn verify(&self, leaf_hash: &Hash, log: &Verifier) -> Result<Checkpoint, VerifyProofError> {
        let checkpoint = checkpoint::open(self.note.as_bytes(), log)?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(leaf_hash, self.index, size, &self.hashes, root)?;
        Ok(checkpoint)
    }

    /// Extra data, which nobody authenticates; empty when there is none.
    pub fn extra(&self) -> &[u8] {
        &self.extra
    }

    /// Index of the leaf.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The path, leaf to root.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The signed checkpoint, verbatim.
    pub fn note(&self) -> &[u8] {
        self.note.as_bytes()
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, ProofTextError> {
    line.strip_prefix("extra ")
        .and_then(base64)
        .filter(|extra| !extra.is_empty())
        .ok_or(ProofTextError::Extra)
}
