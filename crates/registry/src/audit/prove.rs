//! Proving one entry: a C2SP tlog-proof that anybody checks with the log's public key alone.
//!
//! Owns against which checkpoint a proof is made: the newest with its quorum of cosignatures; the
//! newest signed one only of a ledger that never had any.
//! Refuses to hand out a proof that does not verify.

use ledger::hash::leaf_hash;
use ledger::proof::TlogProof;
use record::id::Origin;

use super::view::View;
use super::words;
use crate::error::{RegistryError, Result};

/// A proof, and what it is of.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The proof; its extra data is the leaf hash.
    pub proof: TlogProof,
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// Size of the checkpoint.
    pub size: u64,
    /// Whether the checkpoint has its quorum of cosignatures.
    pub cosigned: bool,
}

/// Proves that an entry is in its ledger.
///
/// # Errors
/// [`RegistryError::NotFound`] for an entry that is not here, [`RegistryError::BadRequest`] for one
/// that no checkpoint covers yet.
pub fn prove(view: &View, origin: &Origin, index: u64) -> Result<Proved> {
    let entry = view.entry(origin, index)?;
    let shown = view
        .shown(origin)?
        .filter(|shown| index < shown.checkpoint.size())
        .ok_or_else(|| not_covered(origin, index))?;
    let damaged = |what: String| RegistryError::damaged(format!("`{origin}` {index}: {what}"));
    let hashes = ledger::proof::inclusion(&view.tiles(origin), index, shown.checkpoint.size())
        .map_err(|e| damaged(words(&e)))?;
    let leaf = leaf_hash(&entry);
    let proof = TlogProof::new(leaf.to_vec(), index, hashes, shown.note.as_bytes())
        .map_err(|e| damaged(words(&e)))?;
    proof
        .verify(&leaf, &view.log(origin, Some(&shown.note))?)
        .map_err(|e| damaged(words(&e)))?;
    Ok(Proved {
        proof,
        entry,
        size: shown.checkpoint.size(),
        cosigned: shown.cosigned,
    })
}

/// No checkpoint that others may be shown has the entry.
pub(crate) fn not_covered(origin: &Origin, index: u64) -> RegistryError {
    RegistryError::BadRequest(format!(
        "`{origin}` 第 {index} 条尚未被联署的账头覆盖，请稍后再试 / no cosigned checkpoint of `{origin}` covers entry {index} yet; wait until the parent has cosigned, then try again"
    ))
}
