//! Evidence that a log signed two histories, which convinces anyone who has the log's public key.
//!
//! Owns the two forms: one size with two roots, and one index with two leaves.
//! Refuses whatever honest conduct could also have produced: a proof that fails or never comes is
//! a refusal, not evidence.

use crate::checkpoint::{self, OpenError};
use crate::hash::Hash;
use crate::note::Verifier;
use crate::proof::{TlogProof, VerifyProofError};

/// Why two documents do not convict a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEvidence {
    /// A note is not a checkpoint that the log signed.
    #[error(
        "a document is not a checkpoint signed by the log; only what the log signed can convict it"
    )]
    Unsigned(#[from] OpenError),
    /// A proof does not lead to a checkpoint that the log signed.
    #[error(
        "a document does not prove its leaf under the log's signature; only what the log signed can convict it"
    )]
    Unproven(#[from] VerifyProofError),
    /// The checkpoints are of different sizes, which honest growth explains.
    #[error(
        "the checkpoints are of sizes `{first}` and `{second}`; ask the log for a consistency proof between them"
    )]
    DifferentSizes {
        /// Size of the first.
        first: u64,
        /// Size of the second.
        second: u64,
    },
    /// The proofs are of different indexes.
    #[error(
        "the proofs are of leaves `{first}` and `{second}`, which may differ; compare proofs of one index"
    )]
    DifferentIndexes {
        /// Index of the first.
        first: u64,
        /// Index of the second.
        second: u64,
    },
    /// Both say the same.
    #[error("the two documents agree; there is nothing to hold against the log")]
    Same,
}

/// Two signed statements of one log that cannot both be true.
///
/// It holds the documents as received, so that [`Evidence::check`] can be repeated by a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    origin: String,
    form: Form,
}

/// The statements, by form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Two checkpoints of one size with different roots.
    Roots {
        /// The signed notes, as received.
        notes: [Vec<u8>; 2],
    },
    /// Two proofs of one index with different leaf hashes.
    Leaves {
        /// The leaf hashes that the proofs are of.
        leaf_hashes: [Hash; 2],
        /// The proofs, each with its signed checkpoint.
        proofs: Box<[TlogProof; 2]>,
    },
}

impl Evidence {
    /// Two checkpoints of one size with different roots, both signed by `log`.
    ///
    /// # Errors
    /// [`NotEvidence`].
    pub fn from_notes(first: &[u8], second: &[u8], log: &Verifier) -> Result<Self, NotEvidence> {
        let notes = [first.to_vec(), second.to_vec()];
        Self::checked(Form::Roots { notes }, log)
    }

    /// Two proofs of one index with different leaf hashes, each under a checkpoint signed by `log`.
    ///
    /// The checkpoints may be of different sizes.
    ///
    /// # Errors
    /// [`NotEvidence`].
    pub fn from_proofs(
        first: (Hash, TlogProof),
        second: (Hash, TlogProof),
        log: &Verifier,
    ) -> Result<Self, NotEvidence> {
        let leaf_hashes = [first.0, second.0];
        let proofs = Box::new([first.1, second.1]);
        let form = Form::Leaves {
            leaf_hashes,
            proofs,
        };
        Self::checked(form, log)
    }

    /// Checks again, from the documents alone, as whoever receives the evidence should.
    ///
    /// # Errors
    /// [`NotEvidence`], when the key is another or the documents were altered.
    pub fn check(&self, log: &Verifier) -> Result<(), NotEvidence> {
        contradiction(&self.form, log)
    }

    /// The log that signed both.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The documents.
    pub fn form(&self) -> &Form {
        &self.form
    }

    fn checked(form: Form, log: &Verifier) -> Result<Self, NotEvidence> {
        contradiction(&form, log)?;
        // Opening accepts only checkpoints whose origin is the name of the key.
        let origin = log.name().to_owned();
        Ok(Self { origin, form })
    }
}

fn contradiction(form: &Form, log: &Verifier) -> Result<(), NotEvidence> {
    let same = match form {
        Form::Roots { notes } => {
            let first = checkpoint::open(&notes[0], log)?;
            let second = checkpoint::open(&notes[1], log)?;
            if first.size() != second.size() {
                let (first, second) = (first.size(), second.size());
                return Err(NotEvidence::DifferentSizes { first, second });
            }
            first.root() == second.root()
        }
        Form::Leaves {
            leaf_hashes,
            proofs,
        } => {
            proofs[0].verify(&leaf_hashes[0], log)?;
            proofs[1].verify(&leaf_hashes[1], log)?;
            if proofs[0].index() != proofs[1].index() {
                let (first, second) = (proofs[0].index(), proofs[1].index());
                return Err(NotEvidence::DifferentIndexes { first, second });
            }
            leaf_hashes[0] == leaf_hashes[1]
        }
    };
    if same {
        return Err(NotEvidence::Same);
    }
    Ok(())
}
