//! Second opinions: the crates `tlog_tiles` and `signed_note`, which share no line with this one.
//!
//! What one makes the other verifies, at random sizes; what is forged both refuse.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

use std::collections::BTreeMap;

use data_encoding::BASE64;
use ledger::checkpoint::{self, Checkpoint};
use ledger::hash::{Hash, leaf_hash, root_of};
use ledger::note::{KeyKind, Note, NoteSigner, Verifier};
use ledger::proof::{consistency, inclusion, verify_consistency, verify_inclusion};
use ledger::tile::{TreeEdge, plan_append};
use proptest::prelude::*;
use signed_note::{StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{self as theirs, HashReader, stored_hashes};

const ORIGIN: &str = "example.org/riverside/unit";
const LEAVES_MAX: u64 = 700;

fn data(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A tree as `tlog_tiles` keeps it: every complete node in the order in which it came to be.
struct Stored(Vec<theirs::Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<theirs::Hash>, theirs::Error> {
        let at = |index: &u64| self.0.get(*index as usize).copied();
        indexes
            .iter()
            .map(|index| at(index).ok_or(theirs::Error::BadMath))
            .collect()
    }
}

fn stored(size: u64) -> Stored {
    let mut tree = Stored(Vec::new());
    for number in 0..size {
        let hashes = stored_hashes(number, &data(number), &tree).unwrap();
        tree.0.extend(hashes);
    }
    tree
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|number| leaf_hash(&data(number))).collect()
}

fn tiles(size: u64) -> BTreeMap<(u8, u64), Vec<u8>> {
    let (_, writes) = plan_append(&TreeEdge::new(), &leaves(size));
    writes
        .into_iter()
        .map(|write| ((write.level, write.index), write.bytes))
        .collect()
}

fn to_theirs(hashes: &[Hash]) -> Vec<theirs::Hash> {
    hashes.iter().copied().map(theirs::Hash).collect()
}

fn to_ours(hashes: &[theirs::Hash]) -> Vec<Hash> {
    hashes.iter().map(|hash| hash.0).collect()
}

/// A proof with one hash altered, one missing and one too many.
fn forged(proof: &[Hash], at: usize) -> Vec<Vec<Hash>> {
    let longer = [proof, &[[7; 32]]].concat();
    let mut all = vec![longer];
    if let Some(last) = proof.len().checked_sub(1) {
        let mut altered = proof.to_vec();
        altered[at % proof.len()][at % 32] ^= 1;
        all.extend([altered, proof[..last].to_vec(), proof[1..].to_vec()]);
    }
    all
}

/// A size and a smaller number.
fn size_and_below() -> impl Strategy<Value = (u64, u64)> {
    (1..LEAVES_MAX).prop_flat_map(|size| (Just(size), 0..size))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn roots_and_tiles_are_the_same(size in 0..LEAVES_MAX) {
        let tree = stored(size);
        prop_assert_eq!(theirs::tree_hash(size, &tree).unwrap().0, root_of(&leaves(size)));
        let ours = tiles(size);
        let expected = theirs::Tile::new_tiles(8, 0, size);
        prop_assert_eq!(ours.len(), expected.len());
        for tile in expected {
            let bytes = tile.read_data(&tree).unwrap();
            prop_assert_eq!(&bytes, &ours[&(tile.level(), tile.level_index())]);
        }
    }

    #[test]
    fn an_inclusion_proof_of_one_holds_in_the_other((size, index) in size_and_below(), at: usize) {
        let (root, leaf) = (root_of(&leaves(size)), leaf_hash(&data(index)));
        let check = |proof: &[Hash], root: Hash, index: u64, leaf: Hash| {
            let ours = verify_inclusion(&leaf, index, size, proof, &root).is_ok();
            let (root, leaf) = (theirs::Hash(root), theirs::Hash(leaf));
            let other = theirs::check_record(&to_theirs(proof), size, root, index, leaf).is_ok();
            assert_eq!(ours, other, "size {size}, index {index}, {} hashes", proof.len());
            ours
        };
        let proof = inclusion(&tiles(size), index, size).unwrap();
        let other = theirs::prove_record(size, index, &stored(size)).unwrap();
        prop_assert_eq!(&proof, &to_ours(&other));
        prop_assert!(check(&proof, root, index, leaf));
        for forged in forged(&proof, at) {
            prop_assert!(!check(&forged, root, index, leaf));
        }
        prop_assert!(!check(&proof, leaf_hash(b"another"), index, leaf));
        prop_assert!(!check(&proof, root, index, leaf_hash(b"another")));
        prop_assert!(!check(&proof, root, size, leaf));
        if size > 1 {
            prop_assert!(!check(&proof, root, (index + 1) % size, leaf));
        }
    }

    #[test]
    fn a_consistency_proof_of_one_holds_in_the_other((size, below) in size_and_below(), at: usize) {
        // `tlog_tiles` proves nothing of the empty tree.
        let old = below + 1;
        let (root, old_root) = (root_of(&leaves(size)), root_of(&leaves(old)));
        let check = |proof: &[Hash], root: Hash, old_root: Hash| {
            let ours = verify_consistency(old, &old_root, size, &root, proof).is_ok();
            let (root, old_root) = (theirs::Hash(root), theirs::Hash(old_root));
            let other = theirs::check_tree(&to_theirs(proof), size, root, old, old_root).is_ok();
            assert_eq!(ours, other, "from {old} to {size}, {} hashes", proof.len());
            ours
        };
        let proof = consistency(&tiles(size), old, size).unwrap();
        let other = theirs::prove_tree(size, old, &stored(size)).unwrap();
        prop_assert_eq!(&proof, &to_ours(&other));
        prop_assert!(check(&proof, root, old_root));
        for forged in forged(&proof, at) {
            prop_assert!(!check(&forged, root, old_root));
        }
        prop_assert!(!check(&proof, leaf_hash(b"another"), old_root));
        prop_assert!(!check(&proof, root, leaf_hash(b"another")));
    }

    #[test]
    fn a_signed_checkpoint_of_one_opens_in_the_other(
        seed: [u8; 32], size in 0..1u64 << 62, root: [u8; 32], at: usize,
    ) {
        let signer = NoteSigner::from_seed(ORIGIN, &seed).unwrap();
        let key = signer.verifier(KeyKind::Note);
        let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&key.vkey()).unwrap())]);
        let opens_there = |note: &[u8]| {
            signed_note::Note::from_bytes(note).is_ok_and(|note| {
                let signed = note.verify(&known).is_ok_and(|(signed, _)| signed.len() == 1);
                let read = theirs::Checkpoint::from_bytes(note.text());
                signed && read.is_ok_and(|read| read.origin() == ORIGIN)
            })
        };

        let ours = Checkpoint::new(ORIGIN, size, root).unwrap();
        let text = theirs::Checkpoint::new(ORIGIN, size, theirs::Hash(root), "").unwrap().to_bytes();
        prop_assert_eq!(ours.to_text().into_bytes(), text.clone());
        let note = ours.sign(&signer).unwrap();
        prop_assert!(opens_there(note.as_bytes()));

        let mut other = signed_note::Note::new(&text, &[]).unwrap();
        other.add_sigs(&[&their_signer(&key, &seed)]).unwrap();
        // Ed25519 signs the same text in the same way, so not a byte differs.
        prop_assert_eq!(other.to_bytes(), note.as_bytes());
        prop_assert_eq!(&checkpoint::open(&other.to_bytes(), &key).unwrap(), &ours);

        let mut altered = note.clone().into_bytes();
        let at = at % altered.len();
        altered[at] ^= 1;
        prop_assert!(checkpoint::open(&altered, &key).is_err(), "byte {}", at);
        prop_assert!(!opens_there(&altered), "byte {}", at);
        let stranger = NoteSigner::from_seed(ORIGIN, &root).unwrap();
        prop_assume!(seed != root);
        let note = ours.sign(&stranger).unwrap();
        prop_assert!(checkpoint::open(note.as_bytes(), &key).is_err());
        prop_assert!(!opens_there(note.as_bytes()));
    }

    #[test]
    fn a_cosigned_note_is_read_by_the_other_and_its_log_still_known(size in 1..LEAVES_MAX, time in 0..1u64 << 40) {
        let signer = NoteSigner::from_seed(ORIGIN, &[1; 32]).unwrap();
        let witness = NoteSigner::from_seed("example.org/district/witness", &[2; 32]).unwrap();
        let note = Checkpoint::new(ORIGIN, size, root_of(&leaves(size))).unwrap();
        let note = note.sign(&signer).unwrap();
        let line = checkpoint::cosign(note.as_bytes(), &witness, time).unwrap();
        let note = checkpoint::add_signature_line(note.as_bytes(), line.as_bytes()).unwrap();

        let key = signer.verifier(KeyKind::Note);
        let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&key.vkey()).unwrap())]);
        let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        let (signed, unknown) = read.verify(&known).unwrap();
        prop_assert_eq!((signed.len(), unknown.len()), (1, 1));
        prop_assert_eq!(unknown[0].name(), witness.name());
        prop_assert_eq!(unknown[0].id(), witness.verifier(KeyKind::Cosignature).id());
        prop_assert_eq!(read.to_bytes(), note.as_bytes());
        prop_assert_eq!(Note::parse(&read.to_bytes()).unwrap().encode(), note);
    }
}

/// The same key in the other's hands.
fn their_signer(key: &Verifier, seed: &[u8; 32]) -> StandardSigner {
    let secret = BASE64.encode(&[&[1], seed.as_slice()].concat());
    let text = format!("PRIVATE+KEY+{}+{:08x}+{secret}", key.name(), key.id());
    StandardSigner::new(&text).unwrap()
}
