//! Ledger (账本): verifying, appending, proving, and many replicas at one parent.
//!
//! Owns made-up entries and the order of the parts. Each part prints its limit beside it: SHA-256
//! over the same bytes, the signatures alone, an fsync.

mod appending;
mod proving;
mod replicas;
mod verifying;

use std::path::Path;

use ed25519_dalek::SigningKey;
use ledger::hash::{leaf_hash, root_of};
use record::act::{Act, Capacity};
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{DivisionId, Hash, IdError, Origin, Purpose, RecordId};
use sha2::{Digest as _, Sha256};

use super::figures::Figures;
use crate::fault::{Fault, Result};

pub fn run(dir: &Path, figures: &mut Figures) -> Result<()> {
    verifying::run(figures)?;
    appending::run(dir, figures)?;
    proving::run(figures)?;
    replicas::run(dir, figures)
}

fn words(error: impl std::fmt::Display) -> Fault {
    Fault::failed(error.to_string())
}

fn origin() -> Result<Origin> {
    Origin::parse("bench.example/child/person").map_err(words)
}

/// What every entry here has in common with its like.
struct Maker {
    origin: Origin,
    organization: DivisionId,
    purpose: Purpose,
    operator: SigningKey,
}

impl Maker {
    fn new() -> Result<Self> {
        let make = || -> std::result::Result<_, IdError> {
            Ok((DivisionId::new("child")?, Purpose::new("registration")?))
        };
        let (organization, purpose) = make().map_err(words)?;
        Ok(Self {
            origin: origin()?,
            organization,
            purpose,
            operator: SigningKey::from_bytes(&[1; 32]),
        })
    }

    /// The entry of a body, of a record of its own.
    fn entry(&self, serial: u64, body: &[u8]) -> Entry {
        let digest: Hash = Sha256::digest(serial.to_be_bytes()).into();
        let mut record = [0; 16];
        record.copy_from_slice(&digest[..16]);
        Entry::Record(RecordEntry {
            suite: SUITE,
            record: RecordId(record),
            version: 2,
            operation: Operation::Amend,
            previous: Some(digest),
            schema: 1,
            epoch: 1,
            content: leaf_hash(&digest),
            body: Sha256::digest(body).into(),
            recorded_at: api::now(),
        })
    }

    /// The act over entries that lie at `first` and after.
    fn act(&self, first: u64, leaves: &[Hash], previous: Option<Hash>) -> Entry {
        let act = Act {
            suite: SUITE,
            capacity: Capacity::Operator,
            key: [0; 32],
            organization: self.organization.clone(),
            purpose: self.purpose.clone(),
            source: None,
            first,
            count: leaves.len() as u32,
            root: root_of(leaves),
            previous,
            authority_size: 9,
            authority_root: [3; 32],
            signed_at: api::now(),
            signature: [0; 64],
        };
        Entry::Act(act.sign(&self.origin, &self.operator))
    }
}
