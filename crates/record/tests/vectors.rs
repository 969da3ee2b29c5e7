//! The test vectors of `docs/formats/entry.md`: the page and the code must say the same bytes.

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use record::act::{Act, Capacity};
use record::authority::{AuthorityEntry, DivisionCode, Revocation, Statement};
use record::authority::{Charter, InForce, Level, NodeKeys, OperatorCertificate, Role};
use record::entry::{
    AccessEntry, Entry, GrantEntry, GrantOperation, Operation, RecordEntry, SUITE,
};
use record::id::{DivisionId, Kind, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis};
use record::plan::{Approval, Figure, Outcome, Plan, PlanClosed, StandingOrder, Task, Work};
use record::published::{Published, What};

const PAGE: &str = include_str!("../../../docs/formats/entry.md");
const TIME: UnixMillis = UnixMillis(1_700_000_000_000);

/// The hexadecimal digits of the block under a vector's heading.
fn vector(name: &str) -> String {
    let heading = format!("### {name}\n");
    let (_, after) = PAGE.split_once(&heading).expect("the page has this vector");
    let block = after.split("```").nth(1).expect("a vector has a block");
    let (_, hex) = block.split_once('\n').expect("a block opens with its kind");
    hex.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect()
}

fn check(name: &str, entry: &Entry) {
    let bytes = entry.encode();
    assert_eq!(HEXLOWER.encode(&bytes), vector(name), "{name}");
    assert_eq!(Entry::decode(&bytes).as_ref(), Ok(entry), "{name}");
}

fn division(name: &str) -> DivisionId {
    DivisionId::new(name).expect("a slug")
}

fn kind(name: &str) -> Kind {
    Kind::new(name).expect("a slug")
}

fn authority(statement: Statement) -> Entry {
    Entry::Authority(AuthorityEntry {
        suite: SUITE,
        statement,
        recorded_at: TIME,
    })
}

#[test]
fn the_record_entry_of_the_page_holds() {
    check(
        "A record entry",
        &Entry::Record(RecordEntry {
            suite: SUITE,
            record: RecordId([1; 16]),
            version: 1,
            operation: Operation::Register,
            previous: None,
            schema: 1,
            epoch: 1,
            content: [2; 32],
            body: [3; 32],
            recorded_at: TIME,
        }),
    );
}

#[test]
fn the_act_of_the_page_holds_and_verifies_in_its_ledger() {
    let origin = Origin::parse("a.example/b/person").expect("an origin");
    let act = Act {
        suite: SUITE,
        capacity: Capacity::Operator,
        key: [0; 32],
        organization: division("b"),
        purpose: Purpose::new("registration").expect("a slug"),
        source: None,
        first: 0,
        count: 1,
        root: [4; 32],
        previous: None,
        authority_size: 3,
        authority_root: [5; 32],
        signed_at: TIME,
        signature: [0; 64],
    };
    let act = act.sign(&origin, &SigningKey::from_bytes(&[9; 32]));
    assert_eq!(act.verify(&origin), Ok(()));
    check("An act", &Entry::Act(act));
}

#[test]
fn the_access_and_grant_entries_of_the_page_hold() {
    check(
        "An access entry",
        &Entry::Access(AccessEntry {
            suite: SUITE,
            epoch: 1,
            content: [2; 32],
            body: [3; 32],
            recorded_at: TIME,
        }),
    );
    check(
        "A heartbeat of a grant",
        &Entry::Grant(GrantEntry {
            suite: SUITE,
            operation: GrantOperation::Heartbeat,
            record: None,
            shard_size: 300,
            shard_root: [6; 32],
            parcel: Some([7; 32]),
            recorded_at: TIME,
        }),
    );
}

#[test]
fn the_authority_entries_of_the_page_hold() {
    check(
        "An operator",
        &authority(Statement::Operator(OperatorCertificate {
            operator: OperatorId([1; 16]),
            key: [2; 32],
            organization: division("b"),
            role: Role::Clerk,
            not_after: TIME,
            grid: None,
        })),
    );
    check(
        "A grid worker",
        &authority(Statement::Operator(OperatorCertificate {
            operator: OperatorId([1; 16]),
            key: [2; 32],
            organization: division("b"),
            role: Role::GridWorker,
            not_after: TIME,
            grid: Some([3; 32]),
        })),
    );
    check(
        "A disabled operator",
        &authority(Statement::OperatorDisabled(OperatorId([1; 16]))),
    );
    check(
        "A catalogue in force",
        &authority(Statement::InForce(InForce {
            what: kind("schemas"),
            version: 2,
            hash: [8; 32],
        })),
    );
    let published = authority(Statement::Published(Published {
        what: What::Codes,
        version: 2,
        hash: [8; 32],
        plan: [9; 32],
    }));
    check("A published set", &published);
    assert_eq!(published.body_hash(), Some([8; 32]));
    check(
        "A revocation",
        &authority(Statement::Revocation(Revocation {
            charter: [8; 32],
            division: division("b"),
            reason: kind("lost-key"),
        })),
    );
}

#[test]
fn the_charter_of_the_page_holds_and_verifies_under_its_issuer() {
    let root = SigningKey::from_bytes(&[1; 32]);
    let charter = Charter {
        suite: SUITE,
        realm: Realm::new("a.example").expect("a domain"),
        division: division("b"),
        name: "清河社区".to_owned(),
        level: Level::Community,
        parent: division("a"),
        codes: vec![DivisionCode {
            scheme: kind("nbs"),
            code: "999999001001".to_owned(),
            valid_from: "2026-01-01".to_owned(),
        }],
        keys: NodeKeys {
            sign: [2; 32],
            witness: [3; 32],
            held: [4; 32],
            transport: [5; 32],
            // An X-Wing key has 1,216 bytes; three stand for them on the page.
            seal: vec![6; 3],
        },
        serial: 1,
        not_before: UnixMillis(0),
        not_after: TIME,
        signature: [0; 64],
    }
    .sign(&root);
    assert_eq!(charter.verify(&root.verifying_key().to_bytes()), Ok(()));
    check("A charter", &authority(Statement::Charter(charter)));
}

/// The plan of the page, signed by the secret key of 32 bytes `09`.
fn plan(work: Work) -> Plan {
    Plan {
        suite: SUITE,
        division: division("b"),
        work,
        made_by: OperatorId([1; 16]),
        made_at: UnixMillis(0),
        not_after: TIME,
        figures: vec![Figure {
            name: kind("bodies"),
            count: 300,
        }],
        nonce: [2; 16],
        signature: [0; 64],
    }
    .sign(&SigningKey::from_bytes(&[9; 32]))
}

fn erasing() -> Plan {
    plan(Work::Erase {
        origin: Origin::parse("a.example/b/person").expect("an origin"),
        record: RecordId([1; 16]),
        basis: "PIPL 47".to_owned(),
    })
}

#[test]
fn the_plans_of_the_page_hold_and_are_signed_by_their_maker() {
    let made = erasing();
    let maker = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    assert!(made.is_signed_by(&maker));
    assert_eq!(HEXLOWER.encode(&made.id()), vector("The id of that plan"));
    check("A plan", &authority(Statement::Plan(made)));
    let order = StandingOrder {
        tasks: vec![Task::Reseal, Task::Retract],
        origins: vec![],
        not_after: TIME,
        classes: None,
    };
    check(
        "The plan of a standing order",
        &authority(Statement::Plan(plan(Work::Order(order)))),
    );
}

#[test]
fn the_approval_of_the_page_holds_and_is_signed_by_its_officer() {
    let officer = SigningKey::from_bytes(&[8; 32]);
    let approval = Approval {
        suite: SUITE,
        plan: erasing().id(),
        division: division("b"),
        organization: division("a"),
        operator: OperatorId([3; 16]),
        approved: true,
        signed_at: UnixMillis(1),
        signature: [0; 64],
    }
    .sign(&officer);
    assert!(approval.is_signed_by(&officer.verifying_key().to_bytes()));
    check("An approval", &authority(Statement::Approval(approval)));
    check(
        "A plan that was run",
        &authority(Statement::PlanClosed(PlanClosed {
            plan: erasing().id(),
            outcome: Outcome::Run,
        })),
    );
}
