//! Proofs that a leaf is in a tree, and that one tree extends another.
//!
//! Owns verification (RFC 9162 sections 2.1.3.2 and 2.1.4.2), generation out of stored tiles, and
//! the portable text form.
//! Refuses proofs that are longer or shorter than the sizes demand, whatever they hash to.

mod generate;
mod text;

pub use generate::{ProveError, consistency, inclusion};
pub use text::{EXTRA_BYTES_MAX, PROOF_BYTES_MAX, ProofTextError, TlogProof, VerifyProofError};

use crate::hash::{Hash, SIZE_MAX, empty_root, node_hash};

/// The most hashes that a proof in a tree of [`SIZE_MAX`] leaves has.
pub const PROOF_HASHES_MAX: usize = 64;

/// Why a proof does not prove what it is given for. No such failure is evidence against anybody:
/// a proof may just be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not below the size, the older size is above the newer, or a size is too large.
    #[error("the proof speaks of a place outside the tree; ask for it again with the right sizes")]
    OutOfRange,
    /// The number of hashes is not what the sizes demand.
    #[error("the proof has the wrong number of hashes for these sizes; ask for it again")]
    Length,
    /// The hashes lead to another root.
    #[error(
        "the proof leads to another root than the one it was checked against; ask for it again, and keep both checkpoints"
    )]
    Mismatch,
}

/// Checks that the tree of `size` leaves under `root` has `leaf_hash` at `index`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > SIZE_MAX {
        return Err(ProofError::OutOfRange);
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf_hash);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            // A node without a right sibling moves up unhashed until it is a right child.
            climb_while(&mut at, &mut last, |at| at & 1 == 0 && at != 0);
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash != *root {
        return Err(ProofError::Mismatch);
    }
    Ok(())
}

/// Checks that the tree of `new_size` leaves begins with the tree of `old_size` leaves.
///
/// The empty tree begins every tree; its proof is empty and its root is checked.
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size || new_size > SIZE_MAX {
        return Err(ProofError::OutOfRange);
    }
    if old_size == 0 || old_size == new_size {
        let same = match old_size {
            0 => *old_root == empty_root() && (new_size > 0 || old_root == new_root),
            _ => old_root == new_root,
        };
        return match (proof, same) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::Mismatch),
            _ => Err(ProofError::Length),
        };
    }
    // A complete old tree is a node of the new one, so its root need not be sent.
    let (start, rest) = if old_size.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (start, rest) = proof.split_first().ok_or(ProofError::Length)?;
        (*start, rest)
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    climb_while(&mut at, &mut last, |at| at & 1 == 1);
    let (mut old, mut new) = (start, start);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            climb_while(&mut at, &mut last, |at| at & 1 == 0 && at != 0);
        } else {
            new = node_hash(&new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old != *old_root || new != *new_root {
        return Err(ProofError::Mismatch);
    }
    Ok(())
}

/// Moves both positions up one level at a time while the condition holds of the first.
fn climb_while(at: &mut u64, last: &mut u64, condition: impl Fn(u64) -> bool) {
    while condition(*at) {
        *at >>= 1;
        *last >>= 1;
    }
}
