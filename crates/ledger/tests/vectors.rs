//! Bytes that others published or made: the same inputs must give the same bytes here.
//!
//! Sources: C2SP signed-note, tlog-checkpoint, tlog-cosignature and tlog-tiles (examples);
//! golang.org/x/mod/sumdb/note (the keys and notes of its tests); the Certificate Transparency
//! reference tree (RFC 6962 section 2.1.3 has its shape); one log made with pyca/cryptography.

#![expect(
    clippy::unwrap_used,
    reason = "a vector that does not decode fails its test"
)]

use data_encoding::{BASE64, HEXLOWER};
use ledger::checkpoint::{self, Checkpoint};
use ledger::hash::{self, Hash, leaf_hash, root_of};
use ledger::note::{KeyError, KeyKind, Note, NoteSigner, SignatureLine, Verifier, VerifyError};
use ledger::proof;
use ledger::tile::{TreeEdge, plan_append};
use std::collections::BTreeMap;

fn hex(text: &str) -> Hash {
    HEXLOWER
        .decode(text.as_bytes())
        .unwrap()
        .try_into()
        .unwrap()
}

fn key(vkey: &str) -> Verifier {
    Verifier::parse(vkey.as_bytes()).unwrap()
}

/// The entries of the Certificate Transparency reference tree.
const CT_ENTRIES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

/// Its roots at sizes 1 to 8.
const CT_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn ct_leaves() -> Vec<Hash> {
    CT_ENTRIES
        .iter()
        .map(|entry| leaf_hash(&HEXLOWER.decode(entry.as_bytes()).unwrap()))
        .collect()
}

fn stored(leaves: &[Hash]) -> BTreeMap<(u8, u64), Vec<u8>> {
    let (_, writes) = plan_append(&TreeEdge::new(), leaves);
    writes
        .into_iter()
        .map(|write| ((write.level, write.index), write.bytes))
        .collect()
}

#[test]
fn the_empty_root_is_that_of_rfc_6962() {
    assert_eq!(
        BASE64.encode(&hash::empty_root()),
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
    assert_eq!(root_of(&[]), hash::empty_root());
}

#[test]
fn the_ct_reference_tree_has_its_published_roots() {
    let leaves = ct_leaves();
    for (size, root) in (1..).zip(CT_ROOTS) {
        assert_eq!(root_of(&leaves[..size]), hex(root));
        let (edge, _) = plan_append(&TreeEdge::new(), &leaves[..size]);
        assert_eq!(edge.frontier().root(), hex(root));
    }
}

#[test]
fn the_ct_reference_tree_has_its_published_proofs() {
    const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const F: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    const G: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";
    let leaves = ct_leaves();
    let tiles = stored(&leaves);
    let hashes = |texts: &[&str]| texts.iter().map(|text| hex(text)).collect::<Vec<_>>();

    let inclusion: [(u64, u64, &[&str]); 5] = [
        (0, 1, &[]),
        (0, 8, &[A, B, C]),
        (5, 8, &[D, E, CT_ROOTS[3]]),
        (2, 3, &[CT_ROOTS[1]]),
        (1, 5, &[CT_ROOTS[0], B, D]),
    ];
    for (index, size, expected) in inclusion {
        let proof = proof::inclusion(&tiles, index, size).unwrap();
        assert_eq!(proof, hashes(expected));
        let root = hex(CT_ROOTS[size as usize - 1]);
        proof::verify_inclusion(&leaves[index as usize], index, size, &proof, &root).unwrap();
    }
    let consistency: [(u64, u64, &[&str]); 5] = [
        (1, 1, &[]),
        (1, 8, &[A, B, C]),
        (6, 8, &[F, E, CT_ROOTS[3]]),
        (2, 5, &[B, D]),
        (6, 7, &[F, G, CT_ROOTS[3]]),
    ];
    for (old, new, expected) in consistency {
        let proof = proof::consistency(&tiles, old, new).unwrap();
        assert_eq!(proof, hashes(expected));
        let (old_root, new_root) = (CT_ROOTS[old as usize - 1], CT_ROOTS[new as usize - 1]);
        proof::verify_consistency(old, &hex(old_root), new, &hex(new_root), &proof).unwrap();
    }
}

#[test]
fn the_tree_of_70000_has_the_tiles_that_tlog_tiles_counts() {
    let leaves: Vec<Hash> = (0..70_000)
        .map(|number| leaf_hash(format!("entry {number}").as_bytes()))
        .collect();
    let (edge, writes) = plan_append(&TreeEdge::new(), &leaves);
    let widths = |level: u8| -> Vec<u16> {
        let of_level = writes.iter().filter(|write| write.level == level);
        of_level.map(|write| write.width).collect()
    };
    assert_eq!(widths(0), [vec![256; 273], vec![112]].concat());
    assert_eq!(widths(1), [256, 17]);
    assert_eq!(widths(2), [1]);
    assert_eq!(writes.len(), 273 + 1 + 2 + 1);
    let last = writes.last().unwrap();
    assert_eq!(last.path().to_string(), "tile/2/000.p/1");
    // As computed by aics-tlog 0.2.1 from the same entries.
    let root = "o5IPun8jmgcam9EHIfE0Gt3vuu3ttBx+JEN6nRa98Ao=";
    assert_eq!(BASE64.encode(&edge.frontier().root()), root);
}

#[test]
fn the_signed_note_example_verifies() {
    let verifier = key("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    let text = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = Note::parse(text.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.encode(), text);
    let known = [verifier];
    let signed = note.verify(&known).unwrap();
    assert_eq!(signed.len(), 1);
    assert_eq!(signed[0].verifier.name(), "example.com/foo");
    assert_eq!(signed[0].time_secs, None);
}

#[test]
fn a_note_text_may_have_blank_lines() {
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = Note::parse(text.as_bytes()).unwrap();
    assert!(note.text().ends_with("\n\ned è subito sera.\n"));
    assert_eq!(note.signatures().len(), 1);
    assert_eq!(note.encode(), text);
}

const PETER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const ENOCH_KEY: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETER_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH_LINE: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

#[test]
fn a_key_of_the_go_implementation_signs_the_same_note() {
    // What follows the signature type in PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALV...
    let seed = BASE64
        .decode(b"AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
        .unwrap();
    let signer = NoteSigner::from_seed("PeterNeumann", seed[1..].try_into().unwrap()).unwrap();
    assert_eq!(signer.verifier(KeyKind::Note).vkey(), PETER_KEY);
    assert_eq!(key(PETER_KEY).vkey(), PETER_KEY);
    let note = Note::sign(GO_TEXT, &signer).unwrap();
    assert_eq!(note.encode(), format!("{GO_TEXT}\n{PETER_LINE}"));
}

#[test]
fn unknown_signers_are_ignored_and_a_bad_known_one_refuses_the_note() {
    let (peter, enoch) = (key(PETER_KEY), key(ENOCH_KEY));
    let parse = |lines: &str| Note::parse(format!("{GO_TEXT}\n{lines}").as_bytes()).unwrap();
    let names = |note: &Note, known: &[Verifier]| -> Result<Vec<String>, VerifyError> {
        let signed = note.verify(known)?;
        let names = signed.iter().map(|signed| signed.verifier.name());
        Ok(names.map(str::to_owned).collect())
    };
    let both = parse(&format!("{PETER_LINE}{ENOCH_LINE}"));
    let only_peter = [peter.clone()];
    let known = [peter.clone(), enoch.clone()];
    assert_eq!(names(&both, &only_peter).unwrap(), ["PeterNeumann"]);
    assert_eq!(names(&both, &known).unwrap(), ["PeterNeumann", "EnochRoot"]);
    assert_eq!(names(&both, &[]), Err(VerifyError::NoKnownKey));

    // Peter's signature under Enoch's name and id, and a line with three bytes too many.
    let blob = |line: &str| {
        let (_, blob) = line.trim_end().rsplit_once(' ').unwrap();
        BASE64.decode(blob.as_bytes()).unwrap()
    };
    let stolen = [&blob(ENOCH_LINE)[..4], &blob(PETER_LINE)[4..]].concat();
    let stolen = BASE64.encode(&stolen);
    let longer = format!("{}ABCD{}", &ENOCH_LINE[..60], &ENOCH_LINE[60..]);
    for bad in [format!("— EnochRoot {stolen}\n"), longer] {
        let note = parse(&format!("{PETER_LINE}{bad}"));
        let refused = Err(VerifyError::BadSignature {
            name: "EnochRoot".to_owned(),
        });
        assert_eq!(names(&note, &known), refused);
        // To whoever does not know Enoch, it is one more unknown line.
        assert_eq!(names(&note, &only_peter).unwrap(), ["PeterNeumann"]);
        // The good line above the bad one does not help.
        let note = parse(&format!("{ENOCH_LINE}{bad}"));
        assert_eq!(names(&note, &known), refused);
    }
}

#[test]
fn a_mangled_vkey_is_no_key() {
    let bytes = PETER_KEY.as_bytes();
    for start in 0..bytes.len() {
        for end in start + 1..=bytes.len() {
            if end - start < bytes.len() {
                assert!(Verifier::parse(&bytes[start..end]).is_err());
            }
        }
    }
    for at in 0..bytes.len() {
        let mut mangled = bytes.to_vec();
        mangled[at] += 1;
        assert!(Verifier::parse(&mangled).is_err(), "byte {at}");
    }
    for (vkey, error) in [
        // Too long a key and an unknown type, both with the id adjusted.
        (
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            KeyError::Shape,
        ),
        (
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            KeyError::Kind { kind: 0x65 },
        ),
        (
            "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            KeyError::Shape,
        ),
    ] {
        assert_eq!(Verifier::parse(vkey.as_bytes()), Err(error));
    }
}

#[test]
fn the_checkpoint_and_cosignature_examples_have_their_fields() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = Note::parse(text.as_bytes()).unwrap();
    assert_eq!(note.encode(), text);
    let checkpoint = Checkpoint::parse(note.text().as_bytes()).unwrap();
    assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size(), 20_852_163);
    assert_eq!(checkpoint.to_text(), note.text());
    let witness: &SignatureLine = &note.signatures()[1];
    assert_eq!(witness.name(), "witness.example.com/w1");
    assert_eq!(witness.id(), 0x8d66_cf3f);
    assert_eq!(witness.signature().len(), 8 + 64);
    // The time of the specification's signed message.
    assert_eq!(witness.signature()[..8], 1_679_315_147u64.to_be_bytes());
}

/// Made with Python: hashlib for tree and key ids, pyca/cryptography 48 for the signatures, the
/// seeds being 32 bytes of 1 (log) and of 2 (witness), the entries `entry 0` to `entry 299`.
const PYTHON_NOTE: &str = "example.org/riverside/unit\n300\nyjk9Apa+xeC43KuYO9H7fRRh9RLnJny4ljGtJv1m2Eg=\n\n— example.org/riverside/unit 1AhKLmGlI8/V1K/7cQOCjl0hpp9pKCG5Mj7EFVDeF6maA/+XQsJsiCRr4N/Kf6xPHS3YxSjgUTEuZ/X8EhyNDjFIBQM=\n— example.org/district k3s57wAAAABpVbkAru/rydl0kulwngJiJpqmMNGLzTSwrVj3pbABw9R3h5V7Ak6VMjp9ZxlTvAKDmSPsMR17l/d6OmV2zeqxXcWqCw==\n";

#[test]
fn a_cosigned_checkpoint_made_in_python_is_made_here_byte_for_byte() {
    let origin = "example.org/riverside/unit";
    let log = NoteSigner::from_seed(origin, &[1; 32]).unwrap();
    let witness = NoteSigner::from_seed("example.org/district", &[2; 32]).unwrap();
    let log_key =
        key("example.org/riverside/unit+d4084a2e+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c");
    let witness_key =
        key("example.org/district+937b39ef+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU");
    assert_eq!(log.verifier(KeyKind::Note), log_key);
    assert_eq!(witness.verifier(KeyKind::Cosignature), witness_key);

    let leaves: Vec<Hash> = (0..300)
        .map(|number| leaf_hash(format!("entry {number}").as_bytes()))
        .collect();
    let checkpoint = Checkpoint::new(origin, 300, root_of(&leaves)).unwrap();
    let note = checkpoint.sign(&log).unwrap();
    let line = checkpoint::cosign(note.as_bytes(), &witness, 1_767_225_600).unwrap();
    let note = checkpoint::add_signature_line(note.as_bytes(), line.as_bytes()).unwrap();
    assert_eq!(note, PYTHON_NOTE);

    let opened = checkpoint::open(PYTHON_NOTE.as_bytes(), &log_key).unwrap();
    assert_eq!(opened, checkpoint);
    let time_secs = checkpoint::verify_cosignature(PYTHON_NOTE.as_bytes(), &witness_key).unwrap();
    assert_eq!(time_secs, 1_767_225_600);
}

#[test]
fn the_format_page_shows_these_vectors() {
    let page = include_str!("../../../docs/formats/ledger.md");
    assert!(page.contains(PYTHON_NOTE));
    for root in CT_ROOTS {
        assert!(page.contains(root));
    }
    for vkey in [
        "example.org/riverside/unit+d4084a2e+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
        "example.org/district+937b39ef+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU",
        "o5IPun8jmgcam9EHIfE0Gt3vuu3ttBx+JEN6nRa98Ao=",
    ] {
        assert!(page.contains(vkey));
    }
}
