//! A log, its parent and a stranger: what extends is verified, what contradicts is evidence, and
//! altered bytes are refused.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

use ledger::checkpoint::{self, Checkpoint, CheckpointError, CosignError, OpenError, SignError};
use ledger::evidence::{Evidence, NotEvidence};
use ledger::frontier::Frontier;
use ledger::hash::{Hash, leaf_hash, root_of};
use ledger::note::{
    KeyKind, NOTE_BYTES_MAX, Note, NoteError, NoteSigner, SIGNATURES_MAX, Verifier, VerifyError,
};
use ledger::proof::{self, ProofTextError, TlogProof};
use ledger::tile::{TreeEdge, plan_append};
use ledger::verify::{ExtensionError, extension};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ORIGIN: &str = "example.org/riverside/unit";

fn log() -> NoteSigner {
    NoteSigner::from_seed(ORIGIN, &[1; 32]).unwrap()
}

fn log_key() -> Verifier {
    log().verifier(KeyKind::Note)
}

fn parent() -> NoteSigner {
    NoteSigner::from_seed("example.org/district", &[2; 32]).unwrap()
}

fn parent_key() -> Verifier {
    parent().verifier(KeyKind::Cosignature)
}

fn leaves(count: u32) -> Vec<Hash> {
    (0..count)
        .map(|number| leaf_hash(&number.to_be_bytes()))
        .collect()
}

/// A checkpoint over the leaves, signed by the log.
fn signed(leaves: &[Hash]) -> String {
    let size = leaves.len() as u64;
    let checkpoint = Checkpoint::new(ORIGIN, size, root_of(leaves)).unwrap();
    checkpoint.sign(&log()).unwrap()
}

fn cosigned(leaves: &[Hash], time_secs: u64) -> String {
    let note = signed(leaves);
    let line = checkpoint::cosign(note.as_bytes(), &parent(), time_secs).unwrap();
    checkpoint::add_signature_line(note.as_bytes(), line.as_bytes()).unwrap()
}

fn frontier(leaves: &[Hash]) -> Frontier {
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    frontier
}

fn inclusion(leaves: &[Hash], index: u64) -> TlogProof {
    let (edge, writes) = plan_append(&TreeEdge::new(), leaves);
    let tiles: BTreeMap<_, _> = writes
        .into_iter()
        .map(|write| ((write.level, write.index), write.bytes))
        .collect();
    let hashes = proof::inclusion(&tiles, index, edge.size()).unwrap();
    TlogProof::new(Vec::new(), index, hashes, signed(leaves).as_bytes()).unwrap()
}

#[test]
fn a_parent_that_holds_a_frontier_verifies_every_growth() {
    let leaves = leaves(70);
    for held in 0..leaves.len() {
        for size in held..leaves.len() {
            let note = signed(&leaves[..size]);
            let held_frontier = frontier(&leaves[..held]);
            let new = &leaves[held..size];
            let verified =
                extension(&held_frontier, new, note.as_bytes(), &log_key(), ORIGIN).unwrap();
            assert_eq!(verified.checkpoint().size(), size as u64);
            assert_eq!(verified.frontier(), &frontier(&leaves[..size]));
            assert_eq!(verified.note(), note.as_bytes());
        }
    }
}

#[test]
fn a_child_that_rewrites_one_old_entry_is_caught() {
    let honest = leaves(20);
    let mut rewritten = honest.clone();
    rewritten[3] = leaf_hash(b"something else");
    let held = frontier(&honest[..10]);
    let check = |new: &[Hash], note: &str| {
        extension(&held, new, note.as_bytes(), &log_key(), ORIGIN).unwrap_err()
    };
    let mismatch = |size| ExtensionError::Mismatch { size };
    assert_eq!(check(&honest[10..], &signed(&rewritten)), mismatch(20));
    assert_eq!(check(&[], &signed(&rewritten[..10])), mismatch(10));
    // New leaves that are not those of the checkpoint, or in another order.
    let mut swapped = honest.clone();
    swapped.swap(12, 13);
    assert_eq!(check(&swapped[10..], &signed(&honest)), mismatch(20));
}

#[test]
fn a_checkpoint_that_is_not_held_plus_these_leaves_is_refused() {
    let leaves = leaves(20);
    let held = frontier(&leaves[..10]);
    let check = |new: &[Hash], note: &str| {
        extension(&held, new, note.as_bytes(), &log_key(), ORIGIN).unwrap_err()
    };
    assert_eq!(
        check(&[], &signed(&leaves[..9])),
        ExtensionError::Short {
            held: 10,
            signed: 9
        }
    );
    let note = signed(&leaves[..15]);
    let (needed, given) = (5, 4);
    assert_eq!(
        check(&leaves[10..14], &note),
        ExtensionError::Missing { needed, given }
    );
    let (needed, given) = (5, 6);
    assert_eq!(
        check(&leaves[10..16], &note),
        ExtensionError::Surplus { needed, given }
    );
    assert!(matches!(
        check(&[], "no note"),
        ExtensionError::Malformed(NoteError::Unsigned)
    ));
    let other = Note::sign("only text\n", &log()).unwrap().encode();
    assert!(matches!(
        check(&[], &other),
        ExtensionError::NotACheckpoint(CheckpointError::Lines)
    ));
}

#[test]
fn a_checkpoint_of_another_log_or_key_is_refused() {
    let leaves = leaves(5);
    let held = Frontier::new();
    let root = root_of(&leaves);
    let other = NoteSigner::from_seed("example.org/hillside/unit", &[3; 32]).unwrap();
    let other_note = Checkpoint::new(other.name(), 5, root)
        .unwrap()
        .sign(&other)
        .unwrap();
    let check = |note: &str, key: &Verifier| {
        extension(&held, &leaves, note.as_bytes(), key, ORIGIN).unwrap_err()
    };
    let unsigned = ExtensionError::BadSignature {
        origin: ORIGIN.to_owned(),
        source: VerifyError::NoKnownKey,
    };
    assert_eq!(check(&other_note, &log_key()), unsigned);
    let wrong_origin = ExtensionError::WrongOrigin {
        expected: ORIGIN.to_owned(),
        found: other.name().to_owned(),
    };
    assert_eq!(
        check(&other_note, &other.verifier(KeyKind::Note)),
        wrong_origin
    );
    // The right key under the text of another log.
    let text = Checkpoint::new(other.name(), 5, root).unwrap().to_text();
    let crossed = Note::sign(&text, &log()).unwrap().encode();
    assert_eq!(check(&crossed, &log_key()), wrong_origin);
    // An impostor's key under the right name, and a cosigner's key.
    let impostor = NoteSigner::from_seed(ORIGIN, &[4; 32]).unwrap();
    let note = signed(&leaves);
    assert_eq!(check(&note, &impostor.verifier(KeyKind::Note)), unsigned);
    let cosigner = log().verifier(KeyKind::Cosignature);
    assert!(matches!(
        check(&note, &cosigner),
        ExtensionError::WrongKind { .. }
    ));
}

#[test]
fn a_log_signs_under_its_own_origin_only() {
    let checkpoint = Checkpoint::new(ORIGIN, 0, root_of(&[])).unwrap();
    let refused = checkpoint.sign(&parent()).unwrap_err();
    assert!(matches!(refused, SignError::WrongKey { .. }));
}

#[test]
fn a_cosignature_states_its_time_and_is_no_log_signature() {
    let note = cosigned(&leaves(5), 1_767_225_600);
    let time_secs = checkpoint::verify_cosignature(note.as_bytes(), &parent_key()).unwrap();
    assert_eq!(time_secs, 1_767_225_600);
    assert!(checkpoint::open(note.as_bytes(), &log_key()).is_ok());
    // Neither stands in for the other.
    let as_log = checkpoint::open(note.as_bytes(), &parent().verifier(KeyKind::Note));
    assert!(matches!(as_log, Err(OpenError::Signature { .. })));
    let kind = checkpoint::open(note.as_bytes(), &parent_key());
    assert!(matches!(kind, Err(OpenError::WrongKind { .. })));
    let kind = checkpoint::verify_cosignature(note.as_bytes(), &log_key());
    assert!(matches!(kind, Err(OpenError::WrongKind { .. })));
    let alone = checkpoint::verify_cosignature(signed(&leaves(5)).as_bytes(), &parent_key());
    assert!(matches!(alone, Err(OpenError::Signature { .. })));
}

#[test]
fn a_cosignature_fits_one_checkpoint_and_one_name() {
    let line = |note: &str| checkpoint::cosign(note.as_bytes(), &parent(), 7).unwrap();
    let (first, second) = (signed(&leaves(5)), signed(&leaves(6)));
    let moved = checkpoint::add_signature_line(second.as_bytes(), line(&first).as_bytes()).unwrap();
    let refused = checkpoint::verify_cosignature(moved.as_bytes(), &parent_key()).unwrap_err();
    assert!(matches!(
        refused,
        OpenError::Signature {
            source: VerifyError::BadSignature { .. },
            ..
        }
    ));
    let renamed = line(&first).replace("example.org/district", "example.org/town");
    let note = checkpoint::add_signature_line(first.as_bytes(), renamed.as_bytes()).unwrap();
    let town = NoteSigner::from_seed("example.org/town", &[2; 32]).unwrap();
    let refused =
        checkpoint::verify_cosignature(note.as_bytes(), &town.verifier(KeyKind::Cosignature));
    assert!(refused.is_err(), "the key id binds the name");
}

#[test]
fn a_time_beyond_the_format_is_not_cosigned() {
    let note = signed(&leaves(1));
    let cosign = |time_secs| checkpoint::cosign(note.as_bytes(), &parent(), time_secs);
    assert!(cosign((1 << 63) - 1).is_ok());
    assert_eq!(
        cosign(1 << 63),
        Err(CosignError::Time { time_secs: 1 << 63 })
    );
}

#[test]
fn lines_are_merged_without_doubles_and_the_latest_cosignature_stays() {
    let note = signed(&leaves(5));
    let line = |time_secs| checkpoint::cosign(note.as_bytes(), &parent(), time_secs).unwrap();
    let add = |note: &str, line: &str| {
        checkpoint::add_signature_line(note.as_bytes(), line.as_bytes()).unwrap()
    };
    let once = add(&note, &line(7));
    assert_eq!(add(&once, &line(7)), once);
    let later = add(&once, &line(9));
    assert_eq!(later, add(&note, &line(9)));
    assert_eq!(add(&later, &line(7)), later);
    let (_, log_line) = note.split_once("\n\n").unwrap();
    assert_eq!(add(&later, log_line), later);
    for bad in [
        "",
        "\n",
        "— a AAAAAAA=",
        "— a AAAAAAA=\n\n",
        "- a AAAAAAA=\n",
    ] {
        let refused = checkpoint::add_signature_line(note.as_bytes(), bad.as_bytes());
        assert_eq!(
            refused,
            Err(NoteError::SignatureLine { line: 1 }),
            "{bad:?}"
        );
    }
}

#[test]
fn a_note_has_bounds() {
    let note = signed(&leaves(1));
    let line = |number: usize| format!("— witness{number} AAAAAAA=\n");
    let many = |count| (0..count).map(line).collect::<String>();
    let full = format!("{note}{}", many(SIGNATURES_MAX - 1));
    assert!(checkpoint::open(full.as_bytes(), &log_key()).is_ok());
    let over = format!("{note}{}", many(SIGNATURES_MAX));
    assert_eq!(
        Note::parse(over.as_bytes()),
        Err(NoteError::TooManySignatures)
    );
    assert_eq!(
        checkpoint::add_signature_line(full.as_bytes(), line(SIGNATURES_MAX).as_bytes()),
        Err(NoteError::TooManySignatures)
    );
    let huge = "x".repeat(NOTE_BYTES_MAX) + "\n";
    assert_eq!(Note::sign(&huge, &log()), Err(NoteError::TooLarge));
    assert_eq!(
        Note::parse(huge.as_bytes()),
        Err(NoteError::TooLarge),
        "size is checked first"
    );
}

#[test]
fn malformed_notes_are_refused() {
    let text = "a\nb\n";
    let line = "— example.org/x AAAAAAA=\n";
    assert!(Note::parse(format!("{text}\n{line}").as_bytes()).is_ok());
    for (note, error) in [
        (String::new(), NoteError::Unsigned),
        (text.to_owned(), NoteError::Unsigned),
        (format!("{text}\n"), NoteError::Unsigned),
        (format!("{text}{line}"), NoteError::Unsigned),
        (format!("{text}\n{}", line.trim_end()), NoteError::Unsigned),
        (format!("\u{1}{text}\n{line}"), NoteError::Text),
        (format!("a\r\n\n{line}"), NoteError::Text),
        (format!("a\tb\n\n{line}"), NoteError::Text),
    ] {
        assert_eq!(Note::parse(note.as_bytes()), Err(error), "{note:?}");
    }
    let invalid = [b"\xff".as_slice(), format!("{text}\n{line}").as_bytes()].concat();
    assert_eq!(Note::parse(&invalid), Err(NoteError::Text));
    for bad in [
        "— Bad Name AAAAAAA=",
        "— bad+name AAAAAAA=",
        "— bad\u{a0}name AAAAAAA=",
        "—  AAAAAAA=",
        "— name",
        "— name ",
        "— name AAAAAA==",
        "— name AAAAAAA",
        "— name AAAAAAB=",
        "— name AAAA AAA=",
        "— name AAAAAA==AAAA",
        "—name AAAAAAA=",
        "– name AAAAAAA=",
        "extra line",
    ] {
        let note = format!("{text}\n{line}{bad}\n");
        let refused = Err(NoteError::SignatureLine { line: 2 });
        assert_eq!(Note::parse(note.as_bytes()), refused, "{bad:?}");
    }
}

#[test]
fn malformed_checkpoints_are_refused() {
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let parse = |text: &str| Checkpoint::parse(text.as_bytes());
    let good = format!("o\n0\n{root}\n");
    assert_eq!(parse(&good).unwrap().to_text(), good);
    let extended = format!("o\n0\n{root}\nextension\n");
    let checkpoint = parse(&extended).unwrap();
    assert_eq!(checkpoint.extensions(), ["extension"]);
    assert_eq!(checkpoint.to_text(), extended);
    let text = |error| CheckpointError::Text(error);
    for (bad, error) in [
        (String::new(), text(NoteError::Text)),
        (format!("o\n0\n{root}"), text(NoteError::Text)),
        (format!("o\r\n0\n{root}\n"), text(NoteError::Text)),
        ("\n".to_owned(), CheckpointError::Lines),
        ("o\n0\n".to_owned(), CheckpointError::Lines),
        (format!("\n0\n{root}\n"), CheckpointError::Lines),
        (format!("o\n0\n{root}\n\n"), CheckpointError::Lines),
        (format!("o\n0\n{root}\n\nx\n"), CheckpointError::Lines),
        (format!("o\n00\n{root}\n"), CheckpointError::Size),
        (format!("o\n+1\n{root}\n"), CheckpointError::Size),
        (
            format!("o\n9223372036854775808\n{root}\n"),
            CheckpointError::Size,
        ),
        (format!("o\n0\n{root}=\n"), CheckpointError::Root),
        ("o\n0\nAAAA\n".to_owned(), CheckpointError::Root),
    ] {
        assert_eq!(parse(&bad), Err(error), "{bad:?}");
    }
    for origin in ["", "a\nb", "a\tb"] {
        let refused = Checkpoint::new(origin, 0, [0; 32]);
        assert_eq!(refused, Err(CheckpointError::Origin));
    }
}

#[test]
fn any_flipped_bit_of_a_cosigned_checkpoint_is_noticed() {
    let note = cosigned(&leaves(5), 1_767_225_600).into_bytes();
    for bit in 0..note.len() * 8 {
        let mut flipped = note.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let log = checkpoint::open(&flipped, &log_key());
        let witness = checkpoint::verify_cosignature(&flipped, &parent_key());
        assert!(log.is_err() || witness.is_err(), "bit {bit}");
    }
}

#[test]
fn any_flipped_bit_of_a_portable_proof_is_noticed() {
    let leaves = leaves(5);
    let proof = inclusion(&leaves, 3);
    let text = proof.encode().into_bytes();
    let verifies = |text: &[u8]| {
        TlogProof::parse(text).is_ok_and(|proof| proof.verify(&leaves[3], &log_key()).is_ok())
    };
    assert!(verifies(&text));
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!verifies(&flipped), "bit {bit}");
    }
    assert!(proof.verify(&leaves[2], &log_key()).is_err());
}

#[test]
fn a_portable_proof_has_one_spelling() {
    let leaves = leaves(5);
    let plain = inclusion(&leaves, 3);
    let text = plain.encode();
    assert_eq!(TlogProof::parse(text.as_bytes()).unwrap(), plain);
    let extra = TlogProof::new(b"salt".to_vec(), 3, plain.hashes().to_vec(), plain.note()).unwrap();
    let with_extra = extra.encode();
    assert!(with_extra.starts_with("c2sp.org/tlog-proof@v1\nextra c2FsdA==\nindex 3\n"));
    assert_eq!(TlogProof::parse(with_extra.as_bytes()).unwrap(), extra);
    assert!(extra.verify(&leaves[3], &log_key()).is_ok());
    for (bad, error) in [
        (text.replace("@v1", "@v2"), ProofTextError::Version),
        (text.replace("index 3", "index 03"), ProofTextError::Index),
        (text.replace("index 3", "3"), ProofTextError::Index),
        (with_extra.replace("c2FsdA==", ""), ProofTextError::Extra),
        (
            with_extra.replace("c2FsdA==", "c2FsdA"),
            ProofTextError::Extra,
        ),
        (
            with_extra.replace("extra c", "extrac"),
            ProofTextError::Extra,
        ),
        (
            text.replace("index 3\n", "index 3\nAAAA\n"),
            ProofTextError::Hashes,
        ),
        (text.replace('\n', "\r\n"), ProofTextError::Shape),
        (text.replace("\n\n", "\n"), ProofTextError::Shape),
        (String::new(), ProofTextError::Shape),
        (" ".repeat(300_000), ProofTextError::TooLarge),
    ] {
        assert_eq!(TlogProof::parse(bad.as_bytes()), Err(error), "{bad}");
    }
    let refused = TlogProof::new(vec![0; 70_000], 0, vec![], plain.note());
    assert_eq!(refused, Err(ProofTextError::TooLarge));
    let refused = TlogProof::new(vec![], 0, vec![[0; 32]; 65], plain.note());
    assert_eq!(refused, Err(ProofTextError::Hashes));
}

#[test]
fn two_roots_of_one_size_are_evidence() {
    let first = signed(&leaves(5));
    let mut forked = leaves(5);
    forked[4] = leaf_hash(b"fork");
    let second = signed(&forked);
    let evidence = Evidence::from_notes(first.as_bytes(), second.as_bytes(), &log_key()).unwrap();
    assert_eq!(evidence.origin(), ORIGIN);
    assert_eq!(evidence.check(&log_key()), Ok(()));
    let impostor = NoteSigner::from_seed(ORIGIN, &[4; 32]).unwrap();
    let stranger = evidence.check(&impostor.verifier(KeyKind::Note));
    assert!(matches!(stranger, Err(NotEvidence::Unsigned(_))));
}

#[test]
fn honest_conduct_is_no_evidence() {
    let (five, six) = (signed(&leaves(5)), signed(&leaves(6)));
    let cosigned_five = cosigned(&leaves(5), 7);
    let check = |first: &str, second: &str| {
        Evidence::from_notes(first.as_bytes(), second.as_bytes(), &log_key()).unwrap_err()
    };
    assert_eq!(check(&five, &five), NotEvidence::Same);
    assert_eq!(check(&five, &cosigned_five), NotEvidence::Same);
    let (first, second) = (5, 6);
    assert_eq!(
        check(&five, &six),
        NotEvidence::DifferentSizes { first, second }
    );
    // What somebody else signed convicts nobody.
    let forger = NoteSigner::from_seed(ORIGIN, &[4; 32]).unwrap();
    let forged = Checkpoint::new(ORIGIN, 5, [0; 32])
        .unwrap()
        .sign(&forger)
        .unwrap();
    assert!(matches!(check(&five, &forged), NotEvidence::Unsigned(_)));
    let altered = five.replace("\n5\n", "\n6\n");
    assert!(matches!(check(&six, &altered), NotEvidence::Unsigned(_)));
}

#[test]
fn two_leaves_at_one_index_are_evidence_across_sizes() {
    let honest = leaves(9);
    let mut forked = honest[..6].to_vec();
    forked[2] = leaf_hash(b"fork");
    let claim = |leaves: &[Hash], index: usize| (leaves[index], inclusion(leaves, index as u64));
    let evidence = Evidence::from_proofs(claim(&honest, 2), claim(&forked, 2), &log_key()).unwrap();
    assert_eq!(evidence.check(&log_key()), Ok(()));
    let check = |first, second| Evidence::from_proofs(first, second, &log_key()).unwrap_err();
    assert_eq!(
        check(claim(&honest, 2), claim(&honest[..6], 2)),
        NotEvidence::Same
    );
    let (first, second) = (2, 3);
    assert_eq!(
        check(claim(&honest, 2), claim(&forked, 3)),
        NotEvidence::DifferentIndexes { first, second }
    );
    let (_, proof) = claim(&honest, 2);
    let lie = (leaf_hash(b"lie"), proof);
    assert!(matches!(
        check(lie, claim(&honest, 2)),
        NotEvidence::Unproven(_)
    ));
}

#[test]
fn a_signer_does_not_show_its_key() {
    let shown = format!("{:?}", log());
    assert_eq!(shown, format!("NoteSigner({ORIGIN})"));
}

#[test]
fn names_that_a_line_cannot_carry_are_refused() {
    for name in ["", "a b", "a+b", "a\nb", "a\u{2003}b", &"x".repeat(256)] {
        assert!(NoteSigner::from_seed(name, &[1; 32]).is_err(), "{name:?}");
        assert!(Verifier::new(name, KeyKind::Note, log_key().key()).is_err());
    }
    assert!(NoteSigner::from_seed(&"x".repeat(255), &[1; 32]).is_ok());
    assert!(NoteSigner::from_seed("示例.中国/江边/单位", &[1; 32]).is_ok());
}

#[test]
fn weak_public_keys_are_refused() {
    // The neutral element of the curve verifies forgeries under lenient rules.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert!(Verifier::new("name", KeyKind::Note, &neutral).is_err());
    assert!(Verifier::new("name", KeyKind::Note, &[0; 32]).is_err());
}

proptest! {
    #[test]
    fn decoders_survive_any_bytes_and_accept_one_spelling(bytes: Vec<u8>) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.encode().into_bytes(), bytes.clone());
        }
        if let Ok(frontier) = Frontier::parse(&bytes) {
            prop_assert_eq!(frontier.encode(), bytes.clone());
        }
        let _ = Checkpoint::parse(&bytes);
        let _ = TlogProof::parse(&bytes);
        let _ = Verifier::parse(&bytes);
        let _ = ledger::tile::TilePath::parse(&bytes);
        let _ = ledger::tile::parse_bundle(&bytes);
    }

    #[test]
    fn decoders_survive_spliced_documents(
        at in 0usize..400, length in 0usize..40, splice in "[ \\n—+=A-Za-z0-9/.]{0,12}",
    ) {
        let proof = inclusion(&leaves(5), 3).encode().into_bytes();
        let at = at.min(proof.len());
        let end = (at + length).min(proof.len());
        let spliced = [&proof[..at], splice.as_bytes(), &proof[end..]].concat();
        if let Ok(parsed) = TlogProof::parse(&spliced) {
            prop_assert_eq!(parsed.encode().into_bytes(), spliced.clone());
        }
        if let Ok(note) = Note::parse(&spliced) {
            prop_assert_eq!(note.encode().into_bytes(), spliced);
        }
    }
}
