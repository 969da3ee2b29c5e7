//! The bytes of messages: one spelling each, and every limit.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use ledger::proof::PROOF_HASHES_MAX;
use record::authority::{CHARTER_MAX, Charter, NodeKeys, Renewal, Succession};
use record::entry::ENTRY_MAX;
use record::id::{DivisionId, Hash, Origin, Realm, UnixMillis};
use sync::limits::{
    BODY_BYTES_MAX, ITEMS_MAX, LINE_BYTES_MAX, LINES_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX,
    REASON_BYTES_MAX,
};
use sync::message::{
    Cosigned, Enrol, Enrolled, Entries, Hello, MessageError, Offer, Refused, Rejected, Successions,
    Want, Welcome,
};
use sync::{Gone, Item, Message, RefusalCode, RejectCode, Secret, fill};

fn origin() -> Origin {
    Origin::parse("a.example/b/person").unwrap()
}

fn item() -> Item {
    Item {
        entry: vec![1, 2],
        body: Some(vec![3]),
        gone: Some(Gone {
            index: 9,
            entry: vec![4],
            proof: vec![[5; 32]],
        }),
    }
}

fn entries(items: Vec<Item>, proof: Vec<Hash>) -> Message {
    Message::Entries(Entries {
        origin: origin(),
        head_size: 9,
        first: 7,
        items,
        proof,
        extends: vec![],
    })
}

fn keys() -> NodeKeys {
    NodeKeys {
        sign: [1; 32],
        witness: [2; 32],
        held: [3; 32],
        transport: [4; 32],
        seal: vec![5; 1216],
    }
}

fn charter() -> Charter {
    Charter {
        suite: 1,
        realm: Realm::new("a.example").unwrap(),
        division: DivisionId::new("b").unwrap(),
        name: "示例".into(),
        level: record::authority::Level::Town,
        parent: DivisionId::new("b").unwrap(),
        codes: vec![],
        keys: keys(),
        serial: 1,
        not_before: UnixMillis(1),
        not_after: UnixMillis(2),
        signature: [6; 64],
    }
}

fn rejected(reason: String, note: Option<String>) -> Message {
    Message::Rejected(Rejected {
        origin: origin(),
        code: RejectCode::Fork,
        size: 4,
        reason,
        note,
    })
}

/// One of each.
fn samples() -> Vec<Message> {
    let now = UnixMillis(5);
    let chain = vec![charter()];
    vec![
        Message::Enrol(Enrol {
            division: DivisionId::new("b").unwrap(),
            secret: Secret::new([7; 32]),
            keys: keys(),
        }),
        Message::Enrolled(Enrolled {
            chain: chain.clone(),
        }),
        Message::Hello(Hello {
            realm: Realm::new("a.example").unwrap(),
            chain: chain.clone(),
            now,
            successions: Successions::default(),
        }),
        Message::Welcome(Welcome {
            chain,
            now,
            successions: Successions::default(),
        }),
        Message::Refused(Refused {
            code: RefusalCode::Expired,
            reason: "过期 / expired".into(),
        }),
        Message::Offer(Offer {
            origin: origin(),
            note: "note\n".into(),
        }),
        Message::Want(Want {
            origin: origin(),
            from: 3,
            head_size: 9,
            known_size: Some(5),
        }),
        entries(vec![item()], vec![[8; 32]; 2]),
        Message::Cosigned(Cosigned {
            origin: origin(),
            size: 9,
            lines: vec!["line\n".into()],
        }),
        rejected("分叉 / fork".into(), Some("note\n".into())),
        Message::Renew(Renewal {
            division: DivisionId::new("b").unwrap(),
            plan: [1; 32],
            replaces: [2; 32],
            keys: keys(),
            old: [3; 64],
            new: [4; 64],
        }),
        Message::Welcome(Welcome {
            chain: vec![charter()],
            now,
            successions: Successions(vec![Succession {
                before: charter(),
                charter: charter(),
                signature: [6; 64],
            }]),
        }),
    ]
}

#[test]
fn every_message_reads_back_from_its_bytes_and_from_no_part_of_them() {
    for message in samples() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes).unwrap().encode(), bytes);
        for end in 0..bytes.len() {
            let cut = Message::decode(&bytes[..end]);
            assert!(cut.is_err(), "{} cut at {end}", message.name());
        }
        let longer = [bytes, vec![0]].concat();
        assert!(Message::decode(&longer).is_err(), "{}", message.name());
    }
}

#[test]
fn the_golden_bytes_of_a_want_hold() {
    let golden = [
        "83",
        "01",
        "07", // version 1, type 7 (Want)
        "a4", // four fields
        "00",
        "72",
        "612e6578616d706c652f622f706572736f6e", // origin
        "01",
        "03", // from
        "02",
        "09", // head size
        "03",
        "05", // known size
    ]
    .concat();
    let hex: String = samples()[6]
        .encode()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, golden);
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let mut bytes = samples()[6].encode();
    bytes[1] = 2;
    assert_eq!(
        Message::decode(&bytes).unwrap_err(),
        MessageError::Version { version: 2 }
    );
}

#[test]
fn whatever_is_over_its_limit_is_refused() {
    let big = |entry: usize, body: usize| Item {
        entry: vec![0; entry],
        body: Some(vec![0; body]),
        gone: None,
    };
    let line = |count, size| {
        Message::Cosigned(Cosigned {
            origin: origin(),
            size: 1,
            lines: vec!["x".repeat(size); count],
        })
    };
    let note = |size| {
        Message::Offer(Offer {
            origin: origin(),
            note: "x".repeat(size),
        })
    };
    let small = || Item {
        entry: vec![],
        body: None,
        gone: None,
    };
    let mut wide = charter();
    wide.name = "x".repeat(CHARTER_MAX);
    let wide = Message::Enrolled(Enrolled { chain: vec![wide] });
    let pairs = [
        (
            entries(vec![big(ENTRY_MAX, BODY_BYTES_MAX)], vec![]),
            entries(vec![big(9, BODY_BYTES_MAX + 1)], vec![]),
        ),
        (
            entries(vec![big(9, 9)], vec![]),
            entries(vec![big(ENTRY_MAX + 1, 9)], vec![]),
        ),
        (
            entries((0..ITEMS_MAX).map(|_| small()).collect(), vec![]),
            entries((0..=ITEMS_MAX).map(|_| small()).collect(), vec![]),
        ),
        (
            entries(vec![], vec![[0; 32]; PROOF_HASHES_MAX]),
            entries(vec![], vec![[0; 32]; PROOF_HASHES_MAX + 1]),
        ),
        (line(LINES_MAX, LINE_BYTES_MAX), line(LINES_MAX + 1, 9)),
        (line(1, 9), line(1, LINE_BYTES_MAX + 1)),
        (note(NOTE_BYTES_MAX), note(NOTE_BYTES_MAX + 1)),
        (
            rejected("x".repeat(REASON_BYTES_MAX), None),
            rejected("x".repeat(REASON_BYTES_MAX + 1), None),
        ),
        (
            rejected("x".into(), None),
            rejected("x\u{1b}[2J".into(), None),
        ),
        (
            rejected("x".into(), Some("x".repeat(NOTE_BYTES_MAX))),
            rejected("x".into(), Some("x".repeat(NOTE_BYTES_MAX + 1))),
        ),
        (
            Message::Enrolled(Enrolled {
                chain: vec![charter(); 8],
            }),
            Message::Enrolled(Enrolled {
                chain: vec![charter(); 9],
            }),
        ),
        (
            Message::Enrolled(Enrolled {
                chain: vec![charter()],
            }),
            wide,
        ),
    ];
    for (within, over) in pairs {
        Message::decode(&within.encode()).unwrap();
        assert!(Message::decode(&over.encode()).is_err(), "{}", over.name());
    }
    assert!(Message::decode(&vec![0x83; MESSAGE_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_declared_length_costs_no_memory() {
    // Entries with 2^32 items declared and none there.
    let mut bytes = entries(vec![], vec![]).encode();
    let at = bytes.iter().rposition(|byte| *byte == 0x80).unwrap();
    bytes.splice(at..=at, [0x9a, 0xff, 0xff, 0xff, 0xff]);
    assert!(Message::decode(&bytes).is_err());
}

#[test]
fn items_are_taken_while_they_fit_and_at_least_one() {
    let item = |size| Item {
        entry: vec![0; size],
        body: None,
        gone: None,
    };
    assert_eq!(fill([item(500), item(1)], 100).len(), 1);
    assert_eq!(fill([item(10), item(10), item(500)], 200).len(), 2);
    assert!(fill([], 100).is_empty());
}
