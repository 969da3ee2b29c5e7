//! Honest growth is proven, two histories are evidence, and what merely lacks a proof is neither.

use std::collections::BTreeMap;

use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, NoteSigner};
use ledger::tile::plan_append;

use super::*;
use crate::audit::check::document;

const ORIGIN: &str = "jiangjin.example/jinfu/person";

struct Log {
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    note: String,
    leaves: Vec<Hash>,
}

fn signer(seed: u8) -> NoteSigner {
    NoteSigner::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

/// A log of `size` leaves; from `fork` on they are others.
fn log(size: u64, fork: u64, seed: u8) -> Log {
    let leaves: Vec<Hash> = (0..size)
        .map(|at| {
            let word = if at < fork { "one" } else { "other" };
            leaf_hash(format!("{word} {at}").as_bytes())
        })
        .collect();
    let (edge, writes) = plan_append(&TreeEdge::new(), &leaves);
    let tiles = writes
        .into_iter()
        .map(|w| ((w.level, w.index), w.bytes))
        .collect();
    let note = Checkpoint::new(ORIGIN, size, edge.frontier().root())
        .unwrap()
        .sign(&signer(seed))
        .unwrap();
    Log {
        tiles,
        note,
        leaves,
    }
}

impl Log {
    fn side(&self) -> Side<'_> {
        Side {
            note: self.note.as_bytes(),
            tiles: Some(&self.tiles),
        }
    }

    fn note_alone(&self) -> Side<'_> {
        Side {
            tiles: None,
            ..self.side()
        }
    }
}

fn keys() -> Vec<Verifier> {
    vec![signer(1).verifier(KeyKind::Note)]
}

fn outcome(a: Side<'_>, b: Side<'_>) -> Outcome {
    compare(a, b, &keys()).unwrap().outcome
}

#[test]
fn growth_is_proven_from_the_larger_ones_tiles_alone() {
    for (old, new) in [(1, 2), (5, 300), (255, 256), (256, 257), (300, 70_000)] {
        let (small, large) = (log(old, old, 1), log(new, new, 1));
        for (a, b) in [
            (small.side(), large.side()),
            (small.note_alone(), large.side()),
        ] {
            let Outcome::Extends { entries, proof } = outcome(a, b) else {
                panic!("{old} to {new}");
            };
            assert_eq!(entries, new - old);
            assert!(!proof.is_empty());
        }
    }
    let one = log(7, 7, 1);
    assert!(matches!(
        outcome(one.note_alone(), one.note_alone()),
        Outcome::Same
    ));
}

#[test]
fn a_ledger_that_is_shorter_than_it_was_does_not_hold() {
    let (before, today) = (log(304, 304, 1), log(302, 302, 1));
    let compared = compare(before.side(), today.note_alone(), &keys()).unwrap();
    assert!(matches!(
        compared.outcome,
        Outcome::Shorter { entries: 2, .. }
    ));
    assert!(!compared.holds());
    // In their order it is growth.
    let compared = compare(today.note_alone(), before.side(), &keys()).unwrap();
    assert!(compared.holds());
    // And of another history nothing better is said.
    let other = log(302, 17, 1);
    assert!(matches!(
        outcome(before.side(), other.side()),
        Outcome::Evidence(_)
    ));
}

#[test]
fn two_roots_at_one_size_are_evidence_without_any_tiles() {
    let (first, second) = (log(300, 300, 1), log(300, 17, 1));
    let Outcome::Evidence(EvidenceLine::Roots { notes }) =
        outcome(first.note_alone(), second.note_alone())
    else {
        panic!("no evidence");
    };
    assert_eq!(notes, [first.note, second.note]);
}

#[test]
fn two_sizes_of_two_histories_are_evidence_at_the_first_leaf_that_differs() {
    let (small, large) = (log(300, 300, 1), log(700, 258, 1));
    let Outcome::Evidence(EvidenceLine::Leaves {
        index,
        leaves,
        proofs,
    }) = outcome(small.side(), large.side())
    else {
        panic!("no evidence");
    };
    assert_eq!(index, 258);
    assert_eq!(leaves, [hex(&small.leaves[258]), hex(&large.leaves[258])]);
    for (proof, leaf) in proofs.iter().zip([small.leaves[258], large.leaves[258]]) {
        let proof = TlogProof::parse(proof.as_bytes()).unwrap();
        proof.verify(&leaf, &keys()[0]).unwrap();
    }
    // Without the smaller one's tiles the contradiction is proven, and named as what it is.
    assert!(matches!(
        outcome(small.note_alone(), large.side()),
        Outcome::Contradiction { .. }
    ));
}

#[test]
fn missing_or_damaged_tiles_are_no_evidence() {
    let (small, large) = (log(300, 300, 1), log(700, 700, 1));
    assert!(matches!(
        outcome(small.side(), large.note_alone()),
        Outcome::Unproven { .. }
    ));
    let mut damaged = log(700, 700, 1);
    for bytes in damaged.tiles.values_mut() {
        bytes[0] ^= 1;
    }
    assert!(matches!(
        outcome(small.side(), damaged.side()),
        Outcome::Unproven { .. }
    ));
    let mut cut = log(700, 700, 1);
    cut.tiles.remove(&(0, 1));
    assert!(matches!(
        outcome(small.note_alone(), cut.side()),
        Outcome::Unproven { .. }
    ));
}

#[test]
fn a_checkpoint_that_the_log_did_not_sign_is_not_compared() {
    let (small, stranger) = (log(3, 3, 1), log(9, 9, 2));
    let error = compare(small.side(), stranger.side(), &keys()).unwrap_err();
    assert!(matches!(error, CheckError::Signature { .. }));
    let error = compare(small.side(), small.side(), &[]).unwrap_err();
    assert!(matches!(error, CheckError::UnknownLog { .. }));
}

#[test]
fn a_proof_holds_for_its_own_entry_index_and_log_only() {
    let log = log(300, 300, 1);
    let proof = |index, extra: Vec<u8>| {
        let hashes = proof::inclusion(&log.tiles, 17, 300).unwrap();
        TlogProof::new(extra, index, hashes, log.note.as_bytes())
            .unwrap()
            .encode()
    };
    let leaf = leaf_hash(b"one 17").to_vec();
    let good = proof(17, leaf.clone());
    let check = |text: &str, keys: &[Verifier], entry: Option<&[u8]>| {
        document(text.as_bytes(), keys, entry).map(|checked| checked.index)
    };
    assert_eq!(check(&good, &keys(), None).unwrap(), Some(17));
    assert_eq!(check(&good, &keys(), Some(b"one 17")).unwrap(), Some(17));

    let error = check(&good, &keys(), Some(b"one 18")).unwrap_err();
    assert!(matches!(error, CheckError::OtherEntry));
    let error = check(&proof(18, leaf.clone()), &keys(), None).unwrap_err();
    assert!(matches!(error, CheckError::Proof { .. }));
    let other = leaf_hash(b"one 18").to_vec();
    let error = check(&proof(17, other), &keys(), None).unwrap_err();
    assert!(matches!(error, CheckError::Proof { .. }));
    let error = check(&proof(17, Vec::new()), &keys(), None).unwrap_err();
    assert!(matches!(error, CheckError::NoEntry));
    assert!(check(&proof(17, Vec::new()), &keys(), Some(b"one 17")).is_ok());
    let error = check(&good, &[signer(2).verifier(KeyKind::Note)], None).unwrap_err();
    assert!(matches!(error, CheckError::Signature { .. }));
    let error = check(&good, &[], None).unwrap_err();
    assert!(matches!(error, CheckError::UnknownLog { .. }));
    for end in 0..good.len() {
        let cut = document(&good.as_bytes()[..end], &keys(), None);
        assert!(cut.is_err(), "cut at {end}");
    }
}
