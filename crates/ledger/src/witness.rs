//! Asking a witness to cosign (C2SP tlog-witness): the request's text and what a witness checks.
//!
//! Owns the text of `add-checkpoint` and the decision. Refuses to decide without the size and root
//! that the witness cosigned last: the caller keeps them, and writes the new ones before it
//! replies. Requests over 64 KiB and proofs of more than 63 hashes are refused unread.

use crate::checkpoint::{self, Checkpoint, OpenError};
use crate::format::{decimal, hash_from_text, hash_text};
use crate::hash::Hash;
use crate::note::Verifier;
use crate::proof::verify_consistency;

/// The largest request in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The most hashes of a consistency proof.
pub const PROOF_HASHES_MAX: usize = 63;

/// A request to cosign a checkpoint.
///
/// ```text
/// old 20852014
/// <base64 hash>
/// ...
///
/// <signed checkpoint>
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness is thought to have cosigned last.
    pub old_size: u64,
    /// Consistency proof from there to the checkpoint.
    pub proof: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub note: String,
}

/// Why a request is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request is not of the form `old N`, hashes, an empty line, a checkpoint; see C2SP tlog-witness"
)]
pub struct RequestError;

/// Why a checkpoint is not cosigned, with the HTTP status that C2SP gives it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// 403: no valid signature of the log.
    #[error("the checkpoint is not signed by the log: {0}")]
    Signature(#[from] OpenError),
    /// 400: the old size is beyond the checkpoint.
    #[error("the old size {old} is greater than the checkpoint's size {size}; correct the request")]
    Backward {
        /// As requested.
        old: u64,
        /// Of the checkpoint.
        size: u64,
    },
    /// 409: the witness cosigned another size last; ask again from there.
    #[error("this witness cosigned size {size} last; ask again with `old {size}`")]
    Conflict {
        /// The size cosigned last.
        size: u64,
    },
    /// 409: the same size with another root: evidence of two histories.
    #[error(
        "this witness cosigned another root of the same size {size}; the two checkpoints are evidence"
    )]
    Fork {
        /// The size of both.
        size: u64,
    },
    /// 422: the proof does not hold.
    #[error(
        "the consistency proof from {old} to {size} does not hold; the log's history was changed, or the proof is damaged"
    )]
    Proof {
        /// As requested.
        old: u64,
        /// Of the checkpoint.
        size: u64,
    },
}

impl Refusal {
    /// The HTTP status of the refusal.
    pub fn status(&self) -> u16 {
        match self {
            Self::Signature(_) => 403,
            Self::Backward { .. } => 400,
            Self::Conflict { .. } | Self::Fork { .. } => 409,
            Self::Proof { .. } => 422,
        }
    }
}

impl AddCheckpoint {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`] when it is malformed or over its bounds.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(RequestError);
        }
        let text = str::from_utf8(body).map_err(|_| RequestError)?;
        let (head, note) = text.split_once("\n\n").ok_or(RequestError)?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(decimal)
            .ok_or(RequestError)?;
        let proof = lines
            .map(|line| hash_from_text(line).ok_or(RequestError))
            .collect::<Result<Vec<_>, _>>()?;
        if proof.len() > PROOF_HASHES_MAX {
            return Err(RequestError);
        }
        Ok(Self {
            old_size,
            proof,
            note: note.to_owned(),
        })
    }

    /// The request's text.
    pub fn encode(&self) -> String {
        let mut text = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            text.push_str(&hash_text(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Whether a witness that cosigned `latest` (size and root; `None` for never) may cosign this.
    ///
    /// # Errors
    /// [`Refusal`], whose status answers the request.
    pub fn decide(
        &self,
        latest: Option<(u64, Hash)>,
        log: &Verifier,
    ) -> Result<Checkpoint, Refusal> {
        let checkpoint = checkpoint::open(self.note.as_bytes(), log)?;
        let (old, size) = (self.old_size, checkpoint.size());
        if old > size {
            return Err(Refusal::Backward { old, size });
        }
        let (latest_size, latest_root) = latest.unwrap_or((0, crate::hash::empty_root()));
        if size == latest_size && latest.is_some() && *checkpoint.root() != latest_root {
            return Err(Refusal::Fork { size });
        }
        if old != latest_size {
            return Err(Refusal::Conflict { size: latest_size });
        }
        verify_consistency(old, &latest_root, size, checkpoint.root(), &self.proof)
            .map_err(|_| Refusal::Proof { old, size })?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{leaf_hash, root_of};
    use crate::note::{KeyKind, NoteSigner};
    use crate::proof::consistency;
    use crate::tile::{TreeEdge, plan_append};
    use std::collections::BTreeMap;

    const ORIGIN: &str = "jiangjin.example/jinfu/person";

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
    }

    fn signer() -> NoteSigner {
        NoteSigner::from_seed(ORIGIN, &[7; 32]).unwrap()
    }

    fn note(leaves: &[Hash]) -> String {
        Checkpoint::new(ORIGIN, leaves.len() as u64, root_of(leaves))
            .unwrap()
            .sign(&signer())
            .unwrap()
    }

    fn request(old: u64, leaves: &[Hash]) -> AddCheckpoint {
        let (_, writes) = plan_append(&TreeEdge::new(), leaves);
        let tiles: BTreeMap<(u8, u64), Vec<u8>> = writes
            .into_iter()
            .map(|w| ((w.level, w.index), w.bytes))
            .collect();
        let proof = consistency(&tiles, old, leaves.len() as u64).unwrap();
        AddCheckpoint {
            old_size: old,
            proof,
            note: note(leaves),
        }
    }

    fn log() -> Verifier {
        signer().verifier(KeyKind::Note)
    }

    #[test]
    fn a_request_reads_back_from_its_text_and_from_no_cut_of_it() {
        let request = request(3, &leaves(11));
        let text = request.encode();
        assert_eq!(AddCheckpoint::parse(text.as_bytes()).unwrap(), request);
        let head = text.find("\n\n").unwrap();
        for end in 0..head + 1 {
            assert!(AddCheckpoint::parse(&text.as_bytes()[..end]).is_err());
        }
        assert!(AddCheckpoint::parse(b"old 01\n\nx").is_err());
        assert!(AddCheckpoint::parse(b"old 1\nAAAA\n\nx").is_err());
    }

    #[test]
    fn a_growing_log_is_cosigned_from_the_size_cosigned_last_only() {
        let old = leaves(5);
        let latest = Some((5, root_of(&old)));
        let grown = request(5, &leaves(12));
        assert_eq!(grown.decide(latest, &log()).unwrap().size(), 12);
        assert!(matches!(
            request(3, &leaves(12)).decide(latest, &log()),
            Err(Refusal::Conflict { size: 5 })
        ));
        assert!(request(0, &leaves(12)).decide(None, &log()).is_ok());
        assert!(request(5, &leaves(5)).decide(latest, &log()).is_ok());
    }

    #[test]
    fn another_history_a_forged_signature_and_a_backward_request_are_refused() {
        let latest = Some((5, root_of(&leaves(5))));
        let mut other = leaves(12);
        other[2] = [9; 32];
        assert!(matches!(
            request(5, &other).decide(latest, &log()),
            Err(Refusal::Proof { .. })
        ));
        assert!(matches!(
            request(5, &other[..5]).decide(latest, &log()),
            Err(Refusal::Fork { size: 5 })
        ));
        let stranger = NoteSigner::from_seed(ORIGIN, &[8; 32])
            .unwrap()
            .verifier(KeyKind::Note);
        let refused = request(5, &leaves(12)).decide(latest, &stranger);
        assert_eq!(refused.map_err(|r| r.status()).unwrap_err(), 403);
        let mut backward = request(5, &leaves(12));
        backward.old_size = 13;
        assert!(matches!(
            backward.decide(latest, &log()),
            Err(Refusal::Backward { .. })
        ));
    }
}
