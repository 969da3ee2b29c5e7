//! The test vectors of `docs/formats/transfer.md`: the page and the code must say the same bytes.

use data_encoding::HEXLOWER;
use record::authority::{AuthorityEntry, Statement};
use record::entry::{Entry, SUITE};
use record::id::{DivisionId, GrantId, Kind, Origin, RecordId, UnixMillis};
use record::transfer::{
    Acceptance, TransferAnswer, TransferEvent, TransferOffer, TransferStep, TransferWord,
};

const PAGE: &str = include_str!("../../../docs/formats/transfer.md");
const TIME: UnixMillis = UnixMillis(1_700_000_000_000);
const ID: GrantId = GrantId([1; 16]);

fn vector(name: &str) -> String {
    let heading = format!("### {name}\n");
    let (_, after) = PAGE.split_once(&heading).expect("the page has this vector");
    let block = after.split("```").nth(1).expect("a vector has a block");
    let (_, hex) = block.split_once('\n').expect("a block opens with its kind");
    hex.chars().filter(|c| !c.is_whitespace()).collect()
}

fn shard() -> Origin {
    Origin::parse("a.example/b/person").expect("an origin")
}

/// The vector's bytes are those of the statement, and no cut or longer bytes are read.
fn check(name: &str, statement: Statement) {
    let entry = Entry::Authority(AuthorityEntry {
        suite: SUITE,
        statement,
        recorded_at: TIME,
    });
    let bytes = entry.encode();
    assert_eq!(HEXLOWER.encode(&bytes), vector(name), "{name}");
    assert_eq!(Entry::decode(&bytes).as_ref(), Ok(&entry), "{name}");
    for end in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..end]).is_err(), "{name} cut at {end}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Entry::decode(&longer).is_err(), "{name}");
}

#[test]
fn the_offer_of_the_page_holds() {
    check(
        "An offer",
        Statement::TransferOffer(TransferOffer {
            id: ID,
            origin: shard(),
            record: RecordId([2; 16]),
            version: 3,
            leaf: [4; 32],
            content: [5; 32],
            to: DivisionId::new("c").expect("a slug"),
            basis: "2026-118".into(),
            offered_at: TIME,
            closed_at: None,
        }),
    );
}

#[test]
fn both_answers_of_the_page_hold() {
    let answer = |word| {
        Statement::TransferAnswer(TransferAnswer {
            transfer: ID,
            origin: shard(),
            word,
        })
    };
    let acceptance = Acceptance {
        origin: Origin::parse("a.example/c/person").expect("an origin"),
        index: 7,
        entry: vec![0x83, 1, 1].into(),
        proof: vec![[6; 32].into()],
        checkpoint: "a note\n".into(),
    };
    check("An acceptance", answer(TransferWord::Accepted(acceptance)));
    let reason = Kind::new("withdrawn").expect("a slug");
    check("A refusal", answer(TransferWord::Refused { reason }));
}

#[test]
fn both_steps_of_the_page_hold_and_statement_27_is_refused() {
    let step = |event| {
        Statement::TransferStep(TransferStep {
            transfer: ID,
            origin: shard(),
            event,
        })
    };
    check("A withdrawal", step(TransferEvent::Withdrawn));
    check("An erasure", step(TransferEvent::Erased { plan: [8; 32] }));
    let mut bytes = HEXLOWER
        .decode(vector("A withdrawal").as_bytes())
        .expect("hexadecimal");
    let at = bytes.windows(2).position(|pair| pair == [0x18, 28]);
    bytes[at.expect("the statement's number") + 1] = 27;
    assert!(Entry::decode(&bytes).is_err());
}
