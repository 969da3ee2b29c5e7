//! Content: one commitment per field, and the tree over them that an entry's `content` names.
//!
//! A commitment hides its value behind a random salt, so the ledger confirms no guess,
//! and binds it, so a value with its salt can be shown to a third person and checked.
//! This module hashes and proves; sealing and opening are in [`crate::body`].

use std::collections::BTreeMap;

use ledger::hash::{leaf_hash, node_hash, root_of};
use record::id::Hash;
use record::schema::{POSITION_MAX, Position};
use sha2::{Digest, Sha256};

/// The random bytes inside each cell that hide its value from guesses.
pub type Salt = [u8; 16];

/// The commitment to a field that has a cell: present with this value, or sealed as absent.
///
/// Present: SHA-256(`"fangzhi/field/v1" 0x00 || position || salt || value`).
/// Absent: SHA-256(`"fangzhi/absent/v1" 0x00 || position || salt`).
pub fn commitment(position: Position, salt: &Salt, value: Option<&str>) -> Hash {
    let mut sha = Sha256::new();
    sha.update(match value {
        Some(_) => b"fangzhi/field/v1\0".as_slice(),
        None => b"fangzhi/absent/v1\0".as_slice(),
    });
    sha.update([position]);
    sha.update(salt);
    sha.update(value.unwrap_or_default().as_bytes());
    sha.finalize().into()
}

/// The public commitment of a position without a cell: an absent field of P0 to P2,
/// or a position at which the schema has no field.
pub fn no_cell() -> Hash {
    Sha256::digest(b"fangzhi/no-cell/v1\0").into()
}

/// The commitments of all positions from 0 to `leaves`, with [`no_cell`] where none is given.
///
/// Positions at or above `leaves` are left out; a schema has none.
pub fn commitments(leaves: usize, given: impl IntoIterator<Item = (Position, Hash)>) -> Vec<Hash> {
    let mut all = vec![no_cell(); leaves];
    for (position, commitment) in given {
        if let Some(place) = all.get_mut(usize::from(position)) {
            *place = commitment;
        }
    }
    all
}

/// An entry's `content`: the RFC 6962 root whose leaf data are the commitments by position.
pub fn content_root(commitments: &[Hash]) -> Hash {
    root_of(&leaves(commitments))
}

fn leaves(commitments: &[Hash]) -> Vec<Hash> {
    commitments.iter().map(|c| leaf_hash(c)).collect()
}

/// The hashes that, with the commitments at `positions`, give the content root.
///
/// Subtrees without any of the positions, from left to right, each by its root.
/// The positions may come in any order; those beyond the tree are ignored.
pub fn prove(commitments: &[Hash], positions: &[Position]) -> Vec<Hash> {
    let mut siblings = Vec::new();
    let wanted = |at: usize| positions.iter().any(|p| usize::from(*p) == at);
    collect(&leaves(commitments), 0, &wanted, &mut siblings);
    siblings
}

fn collect(
    leaves: &[Hash],
    first: usize,
    wanted: &impl Fn(usize) -> bool,
    siblings: &mut Vec<Hash>,
) {
    if leaves.is_empty() {
        return;
    }
    if !(first..first + leaves.len()).any(wanted) {
        siblings.push(root_of(leaves));
    } else if leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        collect(left, first, wanted, siblings);
        collect(right, first + left.len(), wanted, siblings);
    }
}

/// The content root of a tree of `leaves` that has `known` at these positions, by the
/// hashes of [`prove`].
///
/// `None` when a position lies outside the tree, the tree is larger than a schema can be,
/// a sibling is missing, or one is left over.
pub fn root_from(
    leaves: usize,
    known: &BTreeMap<Position, Hash>,
    siblings: &[Hash],
) -> Option<Hash> {
    if leaves == 0 || leaves > usize::from(POSITION_MAX) + 1 {
        return None;
    }
    if known
        .keys()
        .any(|position| usize::from(*position) >= leaves)
    {
        return None;
    }
    let mut siblings = siblings.iter();
    let root = rebuild(0, leaves, known, &mut siblings)?;
    siblings.next().is_none().then_some(root)
}

fn rebuild(
    first: usize,
    count: usize,
    known: &BTreeMap<Position, Hash>,
    siblings: &mut std::slice::Iter<'_, Hash>,
) -> Option<Hash> {
    // At most 64 positions, so both bounds fit the type.
    let from = Position::try_from(first).ok()?;
    let to = Position::try_from(first + count).ok()?;
    let Some((_, commitment)) = known.range(from..to).next() else {
        return siblings.next().copied();
    };
    if count == 1 {
        return Some(leaf_hash(commitment));
    }
    let left = split(count);
    let left_root = rebuild(first, left, known, siblings)?;
    let right_root = rebuild(first + left, count - left, known, siblings)?;
    Some(node_hash(&left_root, &right_root))
}

/// The largest power of two below `count`, which is at least 2 (RFC 6962 section 2.1).
fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(leaves: usize) -> Vec<Hash> {
        (0..leaves)
            .map(|at| commitment(at as Position, &[at as u8; 16], Some("x")))
            .collect()
    }

    fn subset(commitments: &[Hash], mask: u32) -> BTreeMap<Position, Hash> {
        (0..commitments.len())
            .filter(|at| mask & (1 << at) != 0)
            .map(|at| (at as Position, commitments[at]))
            .collect()
    }

    #[test]
    fn every_subset_of_every_small_tree_proves_its_root_and_nothing_else() {
        for size in 1..=8 {
            let all = sample(size);
            let root = content_root(&all);
            for mask in 1..(1_u32 << size) {
                let known = subset(&all, mask);
                let positions: Vec<Position> = known.keys().copied().collect();
                let siblings = prove(&all, &positions);
                assert_eq!(root_from(size, &known, &siblings), Some(root));

                for position in &positions {
                    let mut altered = known.clone();
                    altered.insert(*position, [9; 32]);
                    assert_ne!(root_from(size, &altered, &siblings), Some(root));
                    let mut missing = known.clone();
                    missing.remove(position);
                    assert_ne!(root_from(size, &missing, &siblings), Some(root));
                }
                for at in 0..siblings.len() {
                    let mut altered = siblings.clone();
                    altered[at][0] ^= 1;
                    assert_ne!(root_from(size, &known, &altered), Some(root));
                }
                if let Some((_, cut)) = siblings.split_last() {
                    assert_eq!(root_from(size, &known, cut), None);
                }
                let mut longer = siblings;
                longer.push([0; 32]);
                assert_eq!(root_from(size, &known, &longer), None);
            }
        }
    }

    #[test]
    fn the_largest_tree_proves_its_last_field() {
        let all = sample(64);
        let siblings = prove(&all, &[63]);
        assert_eq!(siblings.len(), 6);
        let known = BTreeMap::from([(63, all[63])]);
        assert_eq!(root_from(64, &known, &siblings), Some(content_root(&all)));
        assert_eq!(root_from(65, &known, &siblings), None);
        assert_eq!(root_from(63, &known, &siblings), None);
    }

    #[test]
    fn absent_empty_and_no_cell_are_three_different_commitments() {
        let salt = [7; 16];
        let empty = commitment(4, &salt, Some(""));
        let absent = commitment(4, &salt, None);
        assert_ne!(empty, absent);
        assert_ne!(empty, no_cell());
        assert_ne!(absent, no_cell());
    }

    #[test]
    fn a_commitment_depends_on_position_salt_and_value() {
        let base = commitment(4, &[7; 16], Some("13800000000"));
        assert_ne!(base, commitment(5, &[7; 16], Some("13800000000")));
        assert_ne!(base, commitment(4, &[8; 16], Some("13800000000")));
        assert_ne!(base, commitment(4, &[7; 16], Some("13800000001")));
    }

    #[test]
    fn the_golden_commitments_hold() {
        let hex = |hash: Hash| data_encoding::HEXLOWER.encode(&hash);
        // printf 'fangzhi/no-cell/v1\0' | sha256sum
        assert_eq!(
            hex(no_cell()),
            "b369473d913b3349bf58786e835da084ac87ef9b58d901ef18144e47ae9d95cc"
        );
        // printf 'fangzhi/field/v1\0\004<16 bytes 07>A' | sha256sum
        assert_eq!(
            hex(commitment(4, &[7; 16], Some("A"))),
            "5d7a0ae7b2206e16ba47ac9f3ef94928269ab3fd92f634a9d6af850c39922356"
        );
        assert_eq!(
            hex(commitment(4, &[7; 16], None)),
            "b57c399dc7850d221a81da7c30f2e22ca42d9c82f7f5e4ef13cc2444da4d8ebb"
        );
    }
}
