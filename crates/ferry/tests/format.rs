//! The format as a whole: a bundle made by the crate itself, and everything that may not be read.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use ed25519_dalek::SigningKey;
use ferry::manifest::{Acknowledged, Kind, LedgerRange, Part, Party, Payload};
use ferry::{ContentError, Contents, Extends, Frame, Hex, Manifest, ManifestError, Opener, Sealer};
use ledger::checkpoint::Checkpoint;
use ledger::note::NoteSigner;
use proptest::prelude::*;
use record::authority::{Charter, Level, NodeKeys};
use record::entry::SUITE;
use record::id::{DivisionId, Origin, Realm, UnixMillis};
use seal::secret::FerryKey;
use sha2::{Digest, Sha256};
use sync::message::{Entries, Offer, Seen, Want};
use sync::{Item, Message};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn division(id: &str) -> DivisionId {
    DivisionId::new(id).unwrap()
}

fn origin(ledger: &str) -> Origin {
    Origin::parse(&format!("a.example/jinfu/{ledger}")).unwrap()
}

fn charter() -> Charter {
    Charter {
        suite: SUITE,
        realm: Realm::new("a.example").unwrap(),
        division: division("jinfu"),
        name: "示例社区".into(),
        level: Level::Community,
        parent: division("shuangfu"),
        codes: vec![],
        keys: NodeKeys {
            sign: key().verifying_key().to_bytes(),
            witness: [2; 32],
            held: [3; 32],
            transport: [4; 32],
            seal: vec![5; 1216],
        },
        serial: 1,
        not_before: UnixMillis(1),
        not_after: UnixMillis(2),
        signature: [0; 64],
    }
    .sign(&key())
}

fn note(ledger: &str, size: u64) -> String {
    let name = origin(ledger);
    let checkpoint = Checkpoint::new(name.as_str(), size, [size as u8; 32]).unwrap();
    let signer = NoteSigner::new(name.as_str(), key()).unwrap();
    checkpoint.sign(&signer).unwrap()
}

fn offer(ledger: &str, size: u64) -> Frame {
    message(Message::Offer(Offer {
        origin: origin(ledger),
        note: note(ledger, size),
    }))
}

fn entries(ledger: &str, first: u64, count: usize, head_size: u64) -> Frame {
    let item = Item {
        entry: vec![7; 20],
        body: None,
        gone: None,
    };
    message(Message::Entries(Entries {
        origin: origin(ledger),
        head_size,
        first,
        items: vec![item; count],
        proof: vec![],
        extends: vec![],
    }))
}

fn proof(ledger: &str, known_size: u64) -> Frame {
    Frame::Extends(Extends {
        origin: origin(ledger),
        known_size,
        proof: vec![8; 64],
    })
}

fn message(message: Message) -> Frame {
    Frame::Message(Box::new(message))
}

/// Authority from 0 to 3, persons from 4 to 9.
fn frames() -> Vec<Frame> {
    vec![
        offer("authority", 3),
        entries("authority", 0, 3, 3),
        offer("person", 9),
        proof("person", 6),
        entries("person", 4, 2, 9),
        entries("person", 6, 3, 9),
        message(Message::Seen(Seen {
            origin: origin("unit"),
            notes: vec![note("unit", 2)],
        })),
    ]
}

fn range(ledger: &str, from: u64, to: u64) -> LedgerRange {
    LedgerRange {
        origin: origin(ledger),
        from,
        to,
        root: Hex([to as u8; 32]),
    }
}

/// A bundle: its manifest, and the payload in parts of 300 bytes.
fn bundle() -> (Manifest, Vec<Vec<u8>>) {
    let mut payload = Vec::new();
    let mut sealer = Sealer::new(FerryKey::from_bytes([9; 32]));
    for frame in frames() {
        sealer.frame(&frame, &mut payload);
    }
    let count = sealer.finish(&mut payload);
    let parts: Vec<Vec<u8>> = payload.chunks(300).map(<[u8]>::to_vec).collect();
    let declared = parts.iter().map(|part| Part {
        bytes: part.len() as u64,
        sha256: Hex(Sha256::digest(part).into()),
    });
    let manifest = Manifest {
        format: 1,
        kind: Kind::Bundle,
        realm: Realm::new("a.example").unwrap(),
        from: Party {
            division: division("jinfu"),
            charter: Hex(charter().id()),
        },
        to: Party {
            division: division("shuangfu"),
            charter: Hex([2; 32]),
        },
        number: 4,
        after: 3,
        previous: Some(Hex([3; 32])),
        one_way: false,
        made: UnixMillis(1_795_000_000_000),
        acknowledges: Some(Acknowledged {
            number: 1,
            manifest: Hex([1; 32]),
        }),
        ledgers: vec![range("authority", 0, 3), range("person", 4, 9)],
        payload: Payload {
            suite: SUITE,
            key: Hex([6; seal::ferry::SEALED_KEY_BYTES]),
            bytes: payload.len() as u64,
            frames: count,
        },
        parts: declared.collect(),
        chain: vec![data_encoding::HEXLOWER.encode(&charter().encode())],
    };
    (manifest, parts)
}

/// Reads the parts in the order given, as a receiver does.
fn open(manifest: &Manifest, parts: &[Vec<u8>]) -> Result<(), String> {
    let payload = parts.concat();
    let mut opener = Opener::new(FerryKey::from_bytes([9; 32]), manifest.payload.bytes);
    let mut contents = Contents::new(manifest);
    let mut at = 0;
    loop {
        while let Some(frame) = opener.frame().map_err(|e| e.to_string())? {
            contents.take(&frame).map_err(|e| e.to_string())?;
        }
        if opener.wants() == 0 {
            return contents.finish().map_err(|e| e.to_string());
        }
        let chunk = payload.get(at..at + opener.wants()).ok_or("cut")?;
        at += chunk.len();
        opener.chunk(chunk).map_err(|e| e.to_string())?;
    }
}

#[test]
fn what_was_packed_is_read_and_its_signature_is_the_senders() {
    let (manifest, parts) = bundle();
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
    let signature = Manifest::sign(&bytes, &key());
    assert_eq!(manifest.verify(&bytes, &signature), Ok(()));
    let other = Manifest::sign(&bytes, &SigningKey::from_bytes(&[2; 32]));
    let refused = manifest.verify(&bytes, &other);
    assert_eq!(refused, Err(ManifestError::Signature));
    assert!(parts.len() > 2);
    open(&manifest, &parts).unwrap();
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_though_it_were_signed() {
    let changes: Vec<fn(&mut Manifest)> = vec![
        |m| m.format = 2,
        |m| m.payload.suite = 9,
        |m| m.number = 3,
        |m| m.after = 0,
        |m| m.previous = None,
        |m| m.kind = Kind::Receipt,
        |m| m.to.division = division("jinfu"),
        |m| m.from.division = division("other"),
        |m| m.from.charter = Hex([0; 32]),
        |m| m.realm = Realm::new("b.example").unwrap(),
        |m| m.chain.clear(),
        |m| m.chain[0].truncate(10),
        |m| m.chain = vec![m.chain[0].clone(); 9],
        |m| m.acknowledges.as_mut().unwrap().number = 0,
        |m| m.ledgers[1].from = 10,
        |m| m.ledgers[1].origin = origin("authority"),
        |m| m.ledgers[1].origin = Origin::parse("b.example/jinfu/person").unwrap(),
        |m| m.payload.bytes = u64::MAX,
        |m| m.payload.bytes += 1,
        |m| m.payload.bytes = 0,
        |m| m.payload.frames = u64::MAX,
        |m| m.parts.clear(),
        |m| m.parts[0].bytes = 0,
        |m| m.parts[0].bytes = u64::MAX,
        |m| m.parts.truncate(1),
        |m| {
            // A last chunk of a tag's length or less says nothing.
            m.payload.bytes = 65_552 + 16;
            m.parts.truncate(1);
            m.parts[0].bytes = 65_552 + 16;
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let (mut manifest, _) = bundle();
        change(&mut manifest);
        let refused = Manifest::decode(&manifest.encode());
        assert!(refused.is_err(), "change {at} was read");
    }
}

#[test]
fn another_spelling_of_a_manifest_is_refused() {
    let (manifest, _) = bundle();
    let text = String::from_utf8(manifest.encode()).unwrap();
    for (from, to) in [
        ("\"number\": 4", "\"number\":  4"),
        ("\"number\": 4", "\"number\": 4.0"),
        ("\"number\": 4", "\"number\": 4, \"number\": 4"),
        ("\"one_way\": false", "\"one_way\": false, \"note\": 1"),
        ("jinfu/person", "jinfu\\/person"),
        ("jinfu/person", "\\u006ainfu/person"),
        ("\n}\n", "\n}"),
        ("\n}\n", "\n}\n\n"),
        ("bundle", "Bundle"),
    ] {
        assert!(text.contains(from));
        let other = text.replacen(from, to, 1);
        assert!(Manifest::decode(other.as_bytes()).is_err(), "{to}");
    }
    let long = vec![b' '; ferry::limits::MANIFEST_BYTES_MAX + 1];
    assert_eq!(Manifest::decode(&long), Err(ManifestError::TooLong));
}

/// What the contents come to when the frames are changed so.
fn contents(change: impl FnOnce(&mut Vec<Frame>, &mut Manifest)) -> Result<(), ContentError> {
    let (mut manifest, _) = bundle();
    let mut frames = frames();
    change(&mut frames, &mut manifest);
    manifest.payload.frames = frames.len() as u64;
    let mut contents = Contents::new(&manifest);
    for frame in &frames {
        contents.take(frame)?;
    }
    contents.finish()
}

#[test]
fn frames_that_are_missing_doubled_moved_or_of_another_kind_are_refused() {
    assert_eq!(contents(|_, _| {}), Ok(()));
    for at in 0..frames().len() - 1 {
        // The proof may be there or not; without it an interrupted receiver waits.
        let refused = contents(|frames, _| drop(frames.remove(at)));
        assert_eq!(refused.is_err(), at != 3, "without frame {at}");
        let moved = contents(|frames, _| frames.swap(at, at + 1));
        assert!(moved.is_err(), "frames {at} and {} exchanged", at + 1);
        let again = contents(|frames, _| {
            let twice = self::frames().swap_remove(at);
            frames.insert(at, twice);
        });
        assert_eq!(again.is_err(), at != 3, "frame {at} twice");
    }
    let put = |at: usize, frame: Frame| {
        contents(|frames, _| drop(std::mem::replace(&mut frames[at], frame)))
    };
    assert!(put(0, offer("authority", 4)).is_err(), "another head");
    assert!(put(1, entries("authority", 0, 4, 3)).is_err(), "too many");
    assert!(put(1, entries("authority", 1, 2, 3)).is_err(), "a gap");
    assert!(put(1, entries("person", 0, 3, 3)).is_err(), "of another");
    assert!(
        put(3, proof("person", 4)).is_err(),
        "of what is held anyway"
    );
    assert!(put(3, proof("unit", 6)).is_err(), "of another ledger");
    let want = message(Message::Want(Want {
        origin: origin("person"),
        from: 0,
        head_size: 9,
        known_size: None,
    }));
    assert!(put(6, want).is_err(), "a question");
    let surplus = contents(|frames, manifest| {
        frames.push(self::frames().pop().unwrap());
        manifest.payload.frames += 1;
    });
    assert_eq!(surplus, Ok(()), "heads that were seen may be many");
    let fewer = contents(|_, manifest| manifest.ledgers.truncate(1));
    assert!(fewer.is_err(), "a ledger that is not declared");
    let more = contents(|_, manifest| manifest.ledgers.push(range("unit", 0, 0)));
    assert_eq!(more, Err(ContentError::Count));
    let receipt = contents(|_, manifest| manifest.kind = Kind::Receipt);
    assert!(receipt.is_err(), "a receipt with ledgers");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_byte_of_a_manifest_changed_or_cut_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (manifest, _) = bundle();
        let bytes = manifest.encode();
        let signature = Manifest::sign(&bytes, &key());
        let at = at.index(bytes.len());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        let refused = match Manifest::decode(&flipped) {
            Ok(manifest) => manifest.verify(&flipped, &signature).is_err(),
            Err(_) => true,
        };
        prop_assert!(refused);
        prop_assert!(Manifest::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn any_byte_of_any_part_changed_and_parts_reordered_left_out_or_cut_are_refused(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        order in Just((0..bundle().1.len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (manifest, parts) = bundle();
        let part = at.index(parts.len());
        let mut flipped = parts.clone();
        let byte = at.index(flipped[part].len());
        flipped[part][byte] ^= 1 << bit;
        prop_assert!(open(&manifest, &flipped).is_err());
        let mut cut = parts.clone();
        cut[part].pop();
        prop_assert!(open(&manifest, &cut).is_err());
        let mut fewer = parts.clone();
        fewer.remove(part);
        prop_assert!(open(&manifest, &fewer).is_err());
        let sorted = order.windows(2).all(|pair| pair[0] < pair[1]);
        let shuffled: Vec<Vec<u8>> = order.iter().map(|at| parts[*at].clone()).collect();
        prop_assert_eq!(open(&manifest, &shuffled).is_ok(), sorted);
    }
}
