//! Who may approve what: every way in which an approval does not count, with its reason.

use ed25519_dalek::SigningKey;
use record::authority::{Charter, Level, NodeKeys, OperatorCertificate, Role, Statement};
use record::id::{DivisionId, OperatorId, Realm, UnixMillis};
use record::plan::{Approval, Outcome, Plan, PlanClosed, StandingOrder, Task, Work};

use super::{Discounted, NotApproved};
use crate::authority::Authority;
use crate::plan::list::PlanState;

const NOW: UnixMillis = UnixMillis(1_000);

fn division(name: &str) -> DivisionId {
    DivisionId::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn charter(name: &str, parent: &str) -> Charter {
    Charter {
        suite: 1,
        realm: Realm::new("jiangjin.example").unwrap(),
        division: division(name),
        name: "示例".into(),
        level: Level::Town,
        parent: division(parent),
        codes: vec![],
        keys: NodeKeys {
            sign: [1; 32],
            witness: [1; 32],
            held: [2; 32],
            transport: [3; 32],
            seal: vec![4; 1216],
        },
        serial: 1,
        not_before: UnixMillis(0),
        not_after: UnixMillis(9_999),
        signature: [0; 64],
    }
}

/// A district with officer 1, a town with 2 and 3, a sister of the town with 4, and the town's clerk 5.
/// Each one's key is made of the same number.
fn realm() -> Authority {
    let mut authority = Authority::default();
    for (name, parent) in [
        ("district", "district"),
        ("town", "district"),
        ("sister", "district"),
    ] {
        authority.trust(charter(name, parent));
    }
    for (name, number) in [("district", 1), ("town", 2), ("town", 3), ("sister", 4)] {
        enrol(&mut authority, name, number, number, Role::SecurityOfficer);
    }
    enrol(&mut authority, "town", 5, 5, Role::Clerk);
    authority
}

fn enrol(authority: &mut Authority, name: &str, operator: u8, seed: u8, role: Role) {
    let certificate = OperatorCertificate {
        operator: OperatorId([operator; 16]),
        key: key(seed).verifying_key().to_bytes(),
        organization: division(name),
        role,
        not_after: UnixMillis(9_000),
        grid: None,
    };
    // Each is an entry of its own.
    let size = u64::from(operator);
    authority.learn(&division(name), &Statement::Operator(certificate), size);
}

/// A plan of the town by officer 2.
fn plan(authority: &mut Authority, work: Work) -> Plan {
    let plan = Plan {
        suite: 1,
        division: division("town"),
        work,
        made_by: OperatorId([2; 16]),
        made_at: UnixMillis(900),
        not_after: UnixMillis(2_000),
        figures: vec![],
        nonce: [0; 16],
        signature: [0; 64],
    }
    .sign(&key(2));
    authority.learn(&division("town"), &Statement::Plan(plan.clone()), 1);
    plan
}

fn rotate() -> Work {
    Work::RotateKek {
        division: division("town"),
    }
}

fn word(plan: &Plan, organization: &str, operator: u8, seed: u8) -> Approval {
    Approval {
        suite: 1,
        plan: plan.id(),
        division: plan.division.clone(),
        organization: division(organization),
        operator: OperatorId([operator; 16]),
        approved: true,
        signed_at: NOW,
        signature: [0; 64],
    }
    .sign(&key(seed))
}

fn say(authority: &mut Authority, approval: Approval) {
    let at = approval.organization.clone();
    authority.learn(&at, &Statement::Approval(approval), 1);
}

#[test]
fn another_officer_here_or_above_approves_and_nobody_else_does() {
    let mut authority = realm();
    let plan = plan(&mut authority, rotate());
    let check = |approval: Approval| authority.weigh(&plan, &approval, NOW);
    assert_eq!(check(word(&plan, "town", 3, 3)), Ok(()));
    assert_eq!(check(word(&plan, "district", 1, 1)), Ok(()));
    assert_eq!(
        check(word(&plan, "sister", 4, 4)),
        Err(Discounted::NotAbove)
    );
    assert_eq!(
        check(word(&plan, "town", 5, 5)),
        Err(Discounted::NotSecurityOfficer)
    );
    assert_eq!(check(word(&plan, "town", 9, 9)), Err(Discounted::NoOfficer));
    assert_eq!(
        check(word(&plan, "town", 3, 1)),
        Err(Discounted::BadSignature)
    );
    let mut late = word(&plan, "town", 3, 3);
    late.signed_at = UnixMillis(2_001);
    assert_eq!(check(late.sign(&key(3))), Err(Discounted::Late));
    assert_eq!(
        authority.weigh(&plan, &word(&plan, "town", 3, 3), UnixMillis(9_000)),
        Err(Discounted::NoOfficer),
        "the certificate ran out"
    );
}

#[test]
fn the_makers_own_word_does_not_count_under_whatever_name_it_comes() {
    let mut authority = realm();
    let plan = plan(&mut authority, rotate());
    // Another login at the node, and one at the district, with the very same key.
    enrol(&mut authority, "town", 6, 2, Role::SecurityOfficer);
    enrol(&mut authority, "district", 7, 2, Role::SecurityOfficer);
    // A key that the maker got later, enrolled at the district, too.
    enrol(&mut authority, "town", 2, 8, Role::SecurityOfficer);
    enrol(&mut authority, "district", 9, 8, Role::SecurityOfficer);
    // The maker was disabled since: that does not make the own word another's.
    authority.learn(
        &division("town"),
        &Statement::OperatorDisabled(OperatorId([2; 16])),
        99,
    );
    for approval in [
        word(&plan, "town", 6, 2),
        word(&plan, "district", 7, 2),
        word(&plan, "district", 9, 8),
    ] {
        assert_eq!(
            authority.weigh(&plan, &approval, NOW),
            Err(Discounted::OwnPlan)
        );
        say(&mut authority, approval);
    }
    assert_eq!(
        authority.approved(&plan.id(), NOW),
        Err(NotApproved::Missing { missing: 1 })
    );
}

#[test]
fn an_approval_of_one_plan_lets_no_other_run() {
    let mut authority = realm();
    let first = plan(&mut authority, rotate());
    let second = plan(
        &mut authority,
        Work::RotateNode {
            division: division("town"),
        },
    );
    let approval = word(&first, "district", 1, 1);
    assert_eq!(
        authority.weigh(&second, &approval, NOW),
        Err(Discounted::OtherPlan)
    );
    say(&mut authority, approval.clone());
    assert!(authority.approved(&first.id(), NOW).is_ok());
    assert!(matches!(
        authority.approved(&second.id(), NOW),
        Err(NotApproved::Missing { missing: 1 })
    ));
    // Moved to the other plan, the signature no longer holds.
    let mut moved = approval;
    moved.plan = second.id();
    assert_eq!(
        authority.weigh(&second, &moved, NOW),
        Err(Discounted::BadSignature)
    );
}

#[test]
fn a_plan_made_in_anothers_name_is_not_run_even_with_approvals() {
    let mut authority = realm();
    let mut forged = plan(&mut authority, rotate());
    // Officer 3 writes officer 2 as the maker, to approve it then.
    forged.nonce = [7; 16];
    let forged = forged.sign(&key(3));
    authority.learn(&division("town"), &Statement::Plan(forged.clone()), 1);
    say(&mut authority, word(&forged, "district", 1, 1));
    assert_eq!(
        authority.approved(&forged.id(), NOW),
        Err(NotApproved::Forged)
    );
    assert_eq!(
        authority.weigh(&forged, &word(&forged, "town", 3, 3), NOW),
        Err(Discounted::OwnPlan)
    );
}

#[test]
fn a_plan_that_expired_was_refused_or_was_closed_is_not_run_and_says_which() {
    let mut authority = realm();
    let plan = plan(&mut authority, rotate());
    assert_eq!(authority.approved(&[9; 32], NOW), Err(NotApproved::Unknown));
    say(&mut authority, word(&plan, "district", 1, 1));
    assert!(authority.approved(&plan.id(), UnixMillis(2_000)).is_ok());
    assert_eq!(
        authority.approved(&plan.id(), UnixMillis(2_001)),
        Err(NotApproved::Expired)
    );
    let mut no = word(&plan, "town", 3, 3);
    no.approved = false;
    say(&mut authority, no.sign(&key(3)));
    assert_eq!(
        authority.approved(&plan.id(), NOW),
        Err(NotApproved::Refused)
    );
    let closed = PlanClosed {
        plan: plan.id(),
        outcome: Outcome::Run,
    };
    // Another division's ledger closes nothing.
    authority.learn(
        &division("sister"),
        &Statement::PlanClosed(closed.clone()),
        1,
    );
    assert_eq!(authority.plan_closed(&plan.id()), None);
    authority.learn(&division("town"), &Statement::PlanClosed(closed), 1);
    assert_eq!(
        authority.approved(&plan.id(), NOW),
        Err(NotApproved::Closed)
    );
}

#[test]
fn an_approval_of_an_officer_who_was_disabled_does_not_count_until_a_new_one() {
    let mut authority = realm();
    let plan = plan(&mut authority, rotate());
    say(&mut authority, word(&plan, "town", 3, 3));
    authority.learn(
        &division("town"),
        &Statement::OperatorDisabled(OperatorId([3; 16])),
        99,
    );
    assert_eq!(
        authority.approved(&plan.id(), NOW),
        Err(NotApproved::Missing { missing: 1 })
    );
    // Enrolled again with another key: the word under the old one stays without effect.
    enrol(&mut authority, "town", 3, 30, Role::SecurityOfficer);
    assert_eq!(
        authority.weigh(&plan, &word(&plan, "town", 3, 3), NOW),
        Err(Discounted::BadSignature)
    );
    assert_eq!(
        authority.weigh(&plan, &word(&plan, "town", 3, 30), NOW),
        Ok(())
    );
}

#[test]
fn a_lost_key_is_replaced_on_two_officers_word_and_the_same_one_twice_is_one() {
    let mut authority = realm();
    let plan = plan(
        &mut authority,
        Work::ReplaceCharter {
            division: division("community"),
            keys: None,
        },
    );
    say(&mut authority, word(&plan, "town", 3, 3));
    let mut again = word(&plan, "town", 3, 3);
    again.signed_at = UnixMillis(1_001);
    say(&mut authority, again.sign(&key(3)));
    // The same key under another name is the same person.
    enrol(&mut authority, "district", 8, 3, Role::SecurityOfficer);
    say(&mut authority, word(&plan, "district", 8, 3));
    assert_eq!(
        authority.approved(&plan.id(), NOW),
        Err(NotApproved::Missing { missing: 1 })
    );
    say(&mut authority, word(&plan, "district", 1, 1));
    assert!(authority.approved(&plan.id(), NOW).is_ok());
}

#[test]
fn a_standing_order_allows_its_tasks_on_its_shards_until_it_ends_or_is_withdrawn() {
    let mut authority = realm();
    let shard = |text: &str| record::id::Origin::parse(text).unwrap();
    let person = shard("jiangjin.example/town/person");
    let order = StandingOrder {
        tasks: vec![Task::Reseal],
        origins: vec![person.clone()],
        not_after: UnixMillis(1_500),
        classes: None,
    };
    let plan = plan(&mut authority, Work::Order(order));
    assert_eq!(authority.standing_order(Task::Reseal, &person, NOW), None);
    let close = |outcome| {
        Statement::PlanClosed(PlanClosed {
            plan: plan.id(),
            outcome,
        })
    };
    // Closed as run without an approval, by software that does not ask: it is not in force.
    authority.learn(&division("town"), &close(Outcome::Run), 1);
    assert_eq!(authority.standing_order(Task::Reseal, &person, NOW), None);
    say(&mut authority, word(&plan, "district", 1, 1));
    assert_eq!(
        authority.standing_order(Task::Reseal, &person, NOW),
        Some(plan.id())
    );
    assert_eq!(authority.plan_state(&plan, NOW), PlanState::InForce);
    assert_eq!(authority.standing_order(Task::Retract, &person, NOW), None);
    let unit = shard("jiangjin.example/town/unit");
    assert_eq!(authority.standing_order(Task::Reseal, &unit, NOW), None);
    let after = UnixMillis(1_501);
    assert_eq!(authority.standing_order(Task::Reseal, &person, after), None);
    assert_eq!(authority.plan_state(&plan, after), PlanState::Lapsed);
    authority.learn(&division("town"), &close(Outcome::Withdrawn), 1);
    authority.learn(&division("town"), &close(Outcome::Run), 1);
    assert_eq!(authority.standing_order(Task::Reseal, &person, NOW), None);
    assert_eq!(authority.plan_state(&plan, NOW), PlanState::Withdrawn);
}
