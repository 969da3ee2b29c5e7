//! The vectors of batches and closings in `docs/formats/transfer.md`: the page and the code must say
//! the same bytes.

use data_encoding::HEXLOWER;
use record::authority::{AuthorityEntry, Statement};
use record::entry::{Entry, SUITE};
use record::id::{DivisionId, GrantId, Kind, Origin, RecordId, UnixMillis};
use record::moving::{
    BatchAcceptance, BatchAnswer, BatchItem, BatchOffer, BatchRefusal, Moving, ShardClosed, item_id,
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

fn origin(text: &str) -> Origin {
    Origin::parse(text).expect("an origin")
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

fn batch(closed_at: Option<UnixMillis>) -> Statement {
    let offer = BatchOffer {
        id: ID,
        plan: [9; 32],
        origin: origin("a.example/b/person"),
        to: DivisionId::new("c").expect("a slug"),
        basis: "2026-118".into(),
        offered_at: TIME,
        items: vec![BatchItem {
            record: RecordId([2; 16]),
            version: 3,
            leaf: [4; 32],
            content: [5; 32],
            closed_at,
        }],
    };
    Statement::Moving(Box::new(Moving::Offered(offer)))
}

#[test]
fn the_batch_of_the_page_holds_with_a_closed_record_too() {
    check("A batch", batch(None));
    check("A batch of a closed record", batch(Some(TIME)));
}

#[test]
fn both_answers_to_a_batch_of_the_page_hold() {
    let answer = |refused, acceptance| {
        Statement::Moving(Box::new(Moving::Answered(BatchAnswer {
            batch: ID,
            origin: origin("a.example/b/person"),
            refused,
            acceptance,
        })))
    };
    let acceptance = BatchAcceptance {
        origin: origin("a.example/c/person"),
        first: 2,
        peaks: vec![[6; 32].into()],
        leaves: vec![vec![7; 32].into(), vec![0x83, 1, 1].into()],
        proof: vec![[8; 32].into()],
        checkpoint: "a note\n".into(),
    };
    check("A batch taken", answer(vec![], Some(acceptance)));
    let refusal = BatchRefusal {
        place: 0,
        reason: Kind::new("registered-already").expect("a slug"),
    };
    check("A batch not taken", answer(vec![refusal], None));
}

#[test]
fn the_closing_of_the_page_holds() {
    let closed = ShardClosed {
        origin: origin("a.example/b/person"),
        plan: [9; 32],
        size: 12,
        root: [3; 32],
        checkpoint: "a note\n".into(),
        successors: vec![origin("a.example/c/person")],
        closed_at: TIME,
    };
    check("A closing", Statement::ShardClosed(Box::new(closed)));
}

#[test]
fn the_transfer_of_one_record_of_a_batch_has_the_id_of_the_page() {
    assert_eq!(item_id(&ID, 0).to_string(), vector("The first of a batch"));
    assert_ne!(item_id(&ID, 0), item_id(&ID, 1));
    assert_ne!(item_id(&ID, 0), item_id(&GrantId([2; 16]), 0));
}
