//! Who needs whose authority ledger, as statements and letters come.

use record::authority::{GrantStatement, Statement};
use record::id::{GrantId, Kind, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis};
use record::moving::{BatchAnswer, Moving};
use record::plan::{Plan, Work};
use record::transfer::{TransferAnswer, TransferOffer, TransferWord};

use crate::authority::Authority;
use crate::authority::tests::{charter, division};

/// A district with two towns: `shuangfu` with two communities, `degan` with one, `baisha` without;
/// and a department.
fn realm() -> Authority {
    let mut authority = Authority::default();
    for (name, parent) in [
        ("district", "district"),
        ("shuangfu", "district"),
        ("degan", "district"),
        ("baisha", "district"),
        ("minzheng", "district"),
        ("jinfu", "shuangfu"),
        ("fucheng", "shuangfu"),
        ("dazhong", "degan"),
    ] {
        authority.trust(charter(name, parent, 1, 1));
    }
    authority
}

fn shard(of: &str) -> Origin {
    let realm = Realm::new("jiangjin.example").unwrap();
    Origin::new(&realm, &division(of), &Kind::new("person").unwrap())
}

fn grant(owner: &str, holder: &str) -> Statement {
    Statement::Grant(GrantStatement {
        id: GrantId([1; 16]),
        origin: shard(owner),
        holder: division(holder),
        holder_charter: [0; 32],
        fields: vec![1],
        schema: 1,
        rows: [0; 32],
        purpose: Purpose::new("welfare").unwrap(),
        basis: "示例".into(),
        assessment: "PIA-1".into(),
        epoch: 1,
        envelope: [0; 32],
        policy: [0; 32],
        not_after: UnixMillis(9),
        owner_charter: [0; 32],
        history: None,
    })
}

fn plan(of: &str, work: Work) -> Statement {
    Statement::Plan(Plan {
        suite: 1,
        division: division(of),
        work,
        made_by: OperatorId([1; 16]),
        made_at: UnixMillis(1),
        not_after: UnixMillis(9),
        figures: vec![],
        nonce: [0; 16],
        signature: [0; 64],
    })
}

/// Whether each of two needs the other's ledger.
fn both(authority: &Authority, one: &str, other: &str) -> [bool; 2] {
    let (one, other) = (division(one), division(other));
    [
        authority.is_needed(&one, &other),
        authority.is_needed(&other, &one),
    ]
}

#[test]
fn everybody_needs_the_ledgers_of_those_who_have_others_under_them_and_nobody_those_of_others() {
    let authority = realm();
    for of in ["district", "shuangfu", "degan"] {
        assert!(authority.is_needed(&division(of), &division("jinfu")));
        assert!(authority.is_needed(&division(of), &division("minzheng")));
    }
    for of in ["fucheng", "dazhong", "baisha", "minzheng"] {
        assert!(!authority.is_needed(&division(of), &division("jinfu")));
        assert!(!authority.is_needed(&division(of), &division("shuangfu")));
    }
}

#[test]
fn whoever_charters_somebody_is_needed_by_all_from_then_on() {
    let mut authority = realm();
    let before = authority.bearing();
    authority.trust(charter("new", "baisha", 2, 1));
    assert!(authority.is_needed(&division("baisha"), &division("jinfu")));
    assert_ne!(authority.bearing(), before, "all is looked at anew");
}

#[test]
fn a_grant_makes_owner_and_holder_need_each_other_and_those_above_them_but_nobody_else() {
    let mut authority = realm();
    let before = authority.bearing();
    authority.learn(&division("jinfu"), &grant("jinfu", "dazhong"), 1);
    assert_ne!(authority.bearing(), before, "all is looked at anew");
    assert_eq!(both(&authority, "jinfu", "dazhong"), [true, true]);
    // On the way down: the town of either has to hand it on.
    assert!(authority.is_needed(&division("jinfu"), &division("degan")));
    assert!(authority.is_needed(&division("dazhong"), &division("shuangfu")));
    assert!(!authority.is_needed(&division("jinfu"), &division("minzheng")));
    assert!(!authority.is_needed(&division("dazhong"), &division("fucheng")));
}

#[test]
fn a_grant_that_is_stated_by_another_than_its_owner_makes_nobody_need_anybody() {
    let mut authority = realm();
    authority.learn(&division("fucheng"), &grant("jinfu", "dazhong"), 1);
    assert_eq!(both(&authority, "jinfu", "dazhong"), [false, false]);
}

#[test]
fn offers_answers_plans_to_move_and_letters_are_dealings_too_and_are_known_again_after_a_start() {
    let offer = Statement::TransferOffer(TransferOffer {
        id: GrantId([2; 16]),
        origin: shard("jinfu"),
        record: RecordId([3; 16]),
        version: 1,
        leaf: [0; 32],
        content: [0; 32],
        to: division("dazhong"),
        basis: "示例".into(),
        offered_at: UnixMillis(1),
        closed_at: None,
    });
    let answer = Statement::TransferAnswer(TransferAnswer {
        transfer: GrantId([2; 16]),
        origin: shard("jinfu"),
        word: TransferWord::Refused {
            reason: Kind::new("withdrawn").unwrap(),
        },
    });
    let batch = Statement::Moving(Box::new(Moving::Answered(BatchAnswer {
        batch: GrantId([2; 16]),
        origin: shard("jinfu"),
        refused: vec![],
        acceptance: None,
    })));
    let leaving = plan(
        "jinfu",
        Work::MoveShard {
            origin: shard("jinfu"),
            to: division("dazhong"),
            rows: [0; 32],
            closes: true,
            basis: "示例".into(),
        },
    );
    let receiving = plan(
        "dazhong",
        Work::ReceiveShard {
            origin: shard("jinfu"),
            plan: [0; 32],
        },
    );
    for (by, statement, is_kept) in [
        ("jinfu", &offer, true),
        ("dazhong", &answer, true),
        // Of an answer that says nothing of any record nothing is kept.
        ("dazhong", &batch, false),
        ("jinfu", &leaving, true),
        ("dazhong", &receiving, true),
    ] {
        let mut authority = realm();
        authority.learn(&division(by), statement, 1);
        assert_eq!(both(&authority, "jinfu", "dazhong"), [true, true]);
        authority.recall_dealings();
        assert_eq!(both(&authority, "jinfu", "dazhong"), [is_kept, is_kept]);
        assert!(authority.has_issued(&division("degan")));
    }
    let realm_name = Realm::new("jiangjin.example").unwrap();
    let mut authority = realm();
    let (one, other) = (division("jinfu"), division("dazhong"));
    authority.deal_by_letters(&Origin::proposals(&realm_name, &one, &other));
    assert_eq!(both(&authority, "jinfu", "dazhong"), [true, true]);
    let before = authority.bearing();
    authority.deal_by_letters(&Origin::answers(&realm_name, &other, &one));
    assert_eq!(authority.bearing(), before, "known already");
}
