//! Rotations in one process: the node works on, and what was sealed before opens after.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use record::authority::{Level, Role};
use record::entry::Operation;
use record::id::{DivisionId, Kind, Origin, Realm, UnixMillis};
use record::plan::Work;

use crate::config::KeyCustody;
use crate::error::Result;
use crate::keys::Opener;
use crate::node::{NewNode, Registry, purpose};
use crate::plan::approve::plan_id;
use crate::plan::request::PlanRequest;
use crate::read::{Comparison, Filter, ReadRequest};
use crate::register::{Amendment, ImportChunk};
use crate::session::{NewOperator, Session};
use crate::table::{self, Head};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const PASSPHRASE: &str = "only for rotations";

struct Node {
    registry: Registry,
    officer: Session,
    second: Session,
    clerk: Session,
    dir: tempfile::TempDir,
}

fn open(dir: &Path) -> Registry {
    Registry::open(dir, &Opener::File, NOW).unwrap()
}

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let new = NewNode {
        realm: Realm::new("rotation.example").unwrap(),
        division: DivisionId::new("jinfu").unwrap(),
        name: "金福".into(),
        level: Level::Community,
        codes: vec![],
        http: "127.0.0.1:1".into(),
        listen: "127.0.0.1:2".into(),
        custody: KeyCustody::File,
        quorum: 1,
    };
    crate::node::init(dir.path(), new, &Opener::File, NOW).unwrap();
    let registry = open(dir.path());
    let enrol = |by: Option<&Session>, login: &str, role| {
        let new = NewOperator {
            login: login.into(),
            passphrase: PASSPHRASE.into(),
            role,
            grid: None,
        };
        registry.enrol_operator(by, &new, NOW).unwrap();
        registry.login(login, PASSPHRASE, NOW).unwrap()
    };
    let officer = enrol(None, "anquan", Role::SecurityOfficer);
    let second = enrol(Some(&officer), "anquan-er", Role::SecurityOfficer);
    let clerk = enrol(Some(&officer), "dengji", Role::Clerk);
    Node {
        registry,
        officer,
        second,
        clerk,
        dir,
    }
}

fn units() -> Kind {
    Kind::new("unit").unwrap()
}

impl Node {
    fn shard(&self) -> Origin {
        self.registry.shard(&units())
    }

    /// Registers units with these numbers in their names.
    fn register(&self, numbers: std::ops::Range<u64>) {
        let row = |number: u64| {
            BTreeMap::from([
                ("unit_name".to_owned(), format!("长寿路{number}号段")),
                ("registered_address".to_owned(), format!("S{number:06}")),
            ])
        };
        for numbers in numbers.collect::<Vec<_>>().chunks(256) {
            let chunk = ImportChunk {
                kind: units(),
                source: "11".repeat(32),
                numbers: numbers.to_vec(),
                rows: numbers.iter().copied().map(row).collect(),
                dry_run: false,
            };
            let report = self.registry.import(&self.clerk, &chunk, NOW).unwrap();
            assert_eq!(report.violations, []);
        }
    }

    fn approved(&self, work: Work) -> record::id::Hash {
        let plan = self
            .registry
            .state_plan(&self.officer, work, vec![], NOW)
            .unwrap();
        self.registry
            .approve(&self.second, &plan.id(), true, NOW)
            .unwrap();
        plan.id()
    }

    fn run(&self, work: Work) -> Result<()> {
        let plan = self.approved(work);
        self.registry.run_plan(&self.officer, &plan, NOW)
    }

    fn rotate(&self) -> Result<()> {
        self.run(Work::RotateEpoch {
            origin: self.shard(),
            compromised: false,
        })
    }

    fn reseal_all(&self) {
        while self.registry.reseal_step(NOW).unwrap() {}
    }

    /// Name by code, as the clerk reads them.
    fn read(&self, code: &str) -> Vec<String> {
        let request = ReadRequest {
            closed: false,
            kind: units(),
            filters: vec![Filter {
                field: "registered_address".into(),
                comparison: Comparison::Equals,
                value: code.into(),
            }],
            fields: None,
            purpose: purpose("registration"),
            basis: None,
            limit: None,
        };
        let answer = self.registry.read(&self.clerk, &request, NOW).unwrap();
        let rows = &answer.value().rows;
        rows.iter()
            .map(|row| row.fields["unit_name"].clone())
            .collect()
    }

    fn reopen(self) -> Node {
        let Node {
            registry,
            officer,
            second,
            clerk,
            dir,
        } = self;
        drop(registry);
        Node {
            registry: open(dir.path()),
            officer,
            second,
            clerk,
            dir,
        }
    }

    /// Epochs and operations of the shard's entries whose bodies are here.
    fn bodies(&self) -> Vec<(u32, Operation)> {
        let shard = self.shard();
        let size = Head::read(self.registry.store.as_ref(), &shard)
            .unwrap()
            .size;
        let mut found = vec![];
        for at in 0..size {
            let body = self.registry.store.get(&table::body(&shard, at)).unwrap();
            if let Some((_, entry)) = self.registry.record_entry(&shard, at).unwrap()
                && body.is_some()
            {
                found.push((entry.epoch, entry.operation));
            }
        }
        found
    }

    #[track_caller]
    fn verifies(&self) {
        let report = crate::verify::verify(self.dir.path()).unwrap();
        assert!(report.ok, "{:?}", report.findings);
    }
}

#[test]
fn a_rotation_reseals_every_body_while_reads_and_writes_go_on() {
    let node = node();
    node.register(0..600);
    node.rotate().unwrap();
    assert_eq!(node.read("S000007"), ["长寿路7号段"]);
    node.register(600..610);
    assert!(node.registry.reseal_step(NOW).unwrap());
    assert!(node.registry.reseal_step(NOW).unwrap());
    let progress = node
        .registry
        .reseal_progress(&node.shard())
        .unwrap()
        .unwrap();
    assert_eq!(
        (progress.total, progress.done, progress.failed),
        (600, 256, 0)
    );
    assert_eq!(node.read("S000007"), ["长寿路7号段"], "resealed");
    assert_eq!(node.read("S000599"), ["长寿路599号段"], "not yet resealed");
    node.reseal_all();
    let progress = node
        .registry
        .reseal_progress(&node.shard())
        .unwrap()
        .unwrap();
    assert_eq!((progress.done, progress.finished), (600, true));
    assert_eq!(node.bodies().len(), 610);
    assert!(node.bodies().iter().all(|(epoch, _)| *epoch == 2));
    assert_eq!(node.read("S000599"), ["长寿路599号段"]);
    node.verifies();
    let node = node.reopen();
    assert_eq!(node.read("S000007"), ["长寿路7号段"]);
}

#[test]
fn an_epoch_is_retired_only_when_nothing_is_left_under_it() {
    let node = node();
    node.register(0..300);
    let retire = Work::RetireEpoch {
        origin: node.shard(),
        epoch: 1,
    };
    assert!(node.run(retire.clone()).is_err(), "it is the present one");
    node.rotate().unwrap();
    node.registry.reseal_step(NOW).unwrap();
    node.registry.reseal_step(NOW).unwrap();
    let refused = node.run(retire.clone()).unwrap_err().to_string();
    assert!(refused.contains("44 bodies"), "{refused}");
    node.reseal_all();
    node.run(retire.clone()).unwrap();
    assert!(
        !node
            .registry
            .keys
            .epochs(&node.shard())
            .unwrap()
            .contains_key(&1)
    );
    assert!(node.run(retire).is_err(), "retired before");
    let node = node.reopen();
    assert_eq!(node.read("S000007"), ["长寿路7号段"]);
    node.verifies();
}

#[test]
fn a_second_rotation_is_refused_while_one_is_under_way_unless_a_key_is_known_to_others() {
    let node = node();
    node.register(0..300);
    node.rotate().unwrap();
    let refused = node.rotate().unwrap_err().to_string();
    assert!(refused.contains("正在轮换"), "{refused}");
    node.registry.reseal_step(NOW).unwrap();
    node.registry.reseal_step(NOW).unwrap();
    assert!(node.rotate().is_err());
    node.run(Work::RotateEpoch {
        origin: node.shard(),
        compromised: true,
    })
    .unwrap();
    node.reseal_all();
    assert!(node.bodies().iter().all(|(epoch, _)| *epoch == 3));
    assert_eq!(node.read("S000007"), ["长寿路7号段"]);
    node.rotate().unwrap();
    node.verifies();
}

#[test]
fn every_version_is_resealed_and_the_numbers_that_clerks_see_stay() {
    let node = node();
    node.register(0..3);
    let shard = node.shard();
    let record = node
        .registry
        .record_entry(&shard, 0)
        .unwrap()
        .unwrap()
        .1
        .record;
    let amend = |version, name: &str| {
        let amendment = Amendment {
            kind: units(),
            record,
            version,
            changes: BTreeMap::from([("unit_name".into(), name.into())]),
            close: false,
            reopen: false,
            purpose: purpose("correction"),
        };
        node.registry.amend(&node.clerk, &amendment, NOW).unwrap()
    };
    amend(1, "新名路");
    node.rotate().unwrap();
    let second = amend(2, "再改路");
    assert_eq!(second.version, 3);
    node.reseal_all();
    let newest = node.registry.newest(&shard, &record).unwrap().unwrap();
    assert_eq!((newest.version, newest.at), (3, second.index));
    assert_eq!(amend(3, "末名路").version, 4);
    assert_eq!(node.read("S000000"), ["末名路"]);
    node.verifies();
    // The index made anew from the ledger shows the newest version, not the one resealed last.
    let node = node.reopen();
    assert_eq!(node.read("S000000"), ["末名路"]);
}

#[test]
fn a_keystore_older_than_the_ledger_is_refused_and_no_key_is_made_up() {
    let node = node();
    node.register(0..2);
    let path = node.dir.path().join("keystore");
    let old = std::fs::read(&path).unwrap();
    node.rotate().unwrap();
    node.register(2..4);
    let Node { registry, dir, .. } = node;
    drop(registry);
    std::fs::write(&path, old).unwrap();
    let refused = Registry::open(dir.path(), &Opener::File, NOW)
        .map(|_| ())
        .unwrap_err();
    assert!(refused.to_string().contains("epoch 2"), "{refused}");
}

#[test]
fn a_body_that_does_not_open_is_named_tried_again_and_keeps_its_epoch_from_being_retired() {
    let node = node();
    node.register(0..5);
    let (shard, store) = (node.shard(), node.registry.store.as_ref());
    let whole = store.get(&table::body(&shard, 3)).unwrap().unwrap();
    let put = |body: Vec<u8>| {
        let mut batch = store::Batch::new(shard.as_str(), None);
        batch.put_body(table::body(&shard, 3), body);
        store.commit(&batch).unwrap();
        // The book's head of the store moved under it.
        node.registry.forget_book(&shard);
    };
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    put(damaged);
    node.rotate().unwrap();
    node.reseal_all();
    let progress = node.registry.reseal_progress(&shard).unwrap().unwrap();
    assert_eq!(
        (progress.done, progress.failed, progress.finished),
        (4, 1, false)
    );
    assert_eq!(progress.failures[0].index, 3);
    let retire = node.approved(Work::RetireEpoch {
        origin: shard.clone(),
        epoch: 1,
    });
    let refused = node.registry.run_plan(&node.officer, &retire, NOW);
    assert!(refused.unwrap_err().to_string().contains("1 bodies"));
    // Not at once, but later, when it was mended.
    put(whole);
    assert!(!node.registry.reseal_step(NOW).unwrap());
    let later = UnixMillis(NOW.0 + 600_000);
    while node.registry.reseal_step(later).unwrap() {}
    let progress = node.registry.reseal_progress(&shard).unwrap().unwrap();
    assert_eq!(
        (progress.done, progress.failed, progress.finished),
        (5, 0, true)
    );
    node.registry
        .run_plan(&node.officer, &retire, later)
        .unwrap();
    assert_eq!(node.read("S000003"), ["长寿路3号段"]);
    node.verifies();
}

#[test]
fn what_is_sealed_under_an_epoch_that_was_not_in_force_is_found() {
    let node = node();
    node.register(0..2);
    let shard = node.shard();
    // A node that lost its memory of the rotation goes on under the old keys.
    let old = node.registry.own_keys(&shard).unwrap();
    node.rotate().unwrap();
    let holding = node.registry.holding(&shard).unwrap();
    holding.write().unwrap().access = crate::holding::Access::Own(old);
    node.register(2..3);
    let report = crate::verify::verify(node.dir.path()).unwrap();
    let told = |what: &str| report.findings.iter().any(|f| f.what.contains(what));
    assert!(
        told("sealed under epoch 1, while 2 was in force"),
        "{:?}",
        report.findings
    );
}

#[test]
fn a_plan_cut_off_after_its_epoch_began_is_run_again_and_begins_no_other() {
    let node = node();
    node.register(0..2);
    let plan = node.approved(Work::RotateEpoch {
        origin: node.shard(),
        compromised: false,
    });
    let warrant = node.registry.warrant(&plan, NOW).unwrap();
    node.registry
        .rotate_epoch(&node.officer, &warrant, NOW)
        .unwrap();
    node.reseal_all();
    let node = node.reopen();
    node.registry.run_plan(&node.officer, &plan, NOW).unwrap();
    let current = node.registry.authority().current_epoch(&node.shard());
    assert_eq!(current, 2);
}

/// Killed after the work and before the word that the plan was run: running it again says the word,
/// and makes no keys.
#[test]
fn a_change_of_node_keys_that_was_done_is_not_begun_again_under_its_plan() {
    let node = node();
    let plan = node
        .registry
        .plan(&node.officer, &PlanRequest::RotateNode {}, NOW)
        .unwrap();
    let plan = plan_id(&plan.id).unwrap();
    node.registry
        .approve(&node.second, &plan, true, NOW)
        .unwrap();
    let warrant = node.registry.warrant(&plan, NOW).unwrap();
    node.registry
        .rotate_node(&node.officer, &warrant, NOW)
        .unwrap();
    for _ in 0..8 {
        node.registry.renewal_step(NOW).unwrap();
    }
    assert!(node.registry.renewal().unwrap().is_none());
    let charter = node.registry.chain().unwrap().swap_remove(0);

    node.registry.run_plan(&node.officer, &plan, NOW).unwrap();
    assert!(node.registry.renewal().unwrap().is_none());
    assert!(node.registry.keys.unlocked().unwrap().next().is_none());
    node.registry.renewal_step(NOW).unwrap();
    assert_eq!(node.registry.chain().unwrap()[0], charter);
    // It was run, and is not run again.
    assert!(node.registry.run_plan(&node.officer, &plan, NOW).is_err());
}

#[test]
fn what_could_never_be_run_is_not_planned_and_nobody_approves_twice() {
    use crate::plan::request::PlanRequest;
    use record::plan::ShareHolder;
    let node = node();
    node.register(0..3);
    let plan = |request: &PlanRequest| node.registry.plan(&node.officer, request, NOW);
    let retire = |epoch| PlanRequest::RetireEpoch {
        kind: units(),
        epoch,
    };
    for epoch in [0, 1, 2] {
        let refused = plan(&retire(epoch)).unwrap_err();
        assert!(refused.to_string().contains("不是旧密钥期"), "{refused}");
    }
    node.rotate().unwrap();
    let line = plan(&retire(1)).unwrap();
    let count = |name: &str| {
        let mut figures = line.figures.iter();
        let found = figures.find(|figure| figure.name.as_str() == name);
        found.map(|figure| figure.count)
    };
    assert_eq!(
        (count("bodies"), count("grant-parcels")),
        (Some(3), Some(0))
    );
    let id = crate::plan::approve::plan_id(&line.id).unwrap();
    let approve = |by: &Session, approved| node.registry.approve(by, &id, approved, NOW);
    assert_eq!(approve(&node.second, true).unwrap().approvals.len(), 1);
    let refused = approve(&node.second, true).unwrap_err();
    assert!(refused.to_string().contains("再批不计"), "{refused}");
    assert_eq!(
        node.registry.plan_line(&id, NOW).unwrap().approvals.len(),
        1
    );
    node.reseal_all();
    node.registry.run_plan(&node.officer, &id, NOW).unwrap();
    let refused = plan(&retire(1)).unwrap_err();
    assert!(refused.to_string().contains("已退役"), "{refused}");
    let holder = |session: &Session| ShareHolder {
        organization: node.registry.config().division.clone(),
        operator: session.operator,
        key: None,
    };
    let share = |other: &Session| PlanRequest::Share {
        threshold: 2,
        holders: vec![holder(&node.officer), holder(other)],
    };
    let refused = plan(&share(&node.clerk)).unwrap_err();
    assert!(refused.to_string().contains("安全员"), "{refused}");
    plan(&share(&node.second)).unwrap();
}

#[test]
fn an_operator_is_named_when_there_is_none_and_a_grid_worker_needs_a_grid() {
    let node = node();
    let disable = |login: &str| node.registry.disable_operator(&node.officer, login, NOW);
    let refused = disable("nosuch").unwrap_err().to_string();
    assert!(refused.contains("`nosuch`"), "{refused}");
    disable("dengji").unwrap();
    let refused = disable("dengji").unwrap_err().to_string();
    assert!(refused.contains("早已停用"), "{refused}");
    for (role, grid) in [(Role::GridWorker, None), (Role::Clerk, Some("G-01"))] {
        let new = NewOperator {
            login: "wangge".into(),
            passphrase: PASSPHRASE.into(),
            role,
            grid: grid.map(str::to_owned),
        };
        let refused = node.registry.enrol_operator(Some(&node.officer), &new, NOW);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("--grid"), "{refused}");
    }
}

#[test]
fn an_invitation_that_was_replaced_is_told_from_a_wrong_one() {
    use crate::replicate::NewInvitation;
    let node = node();
    let new = NewInvitation {
        division: DivisionId::new("below").unwrap(),
        name: "下级".into(),
        level: Level::Department,
        codes: vec![],
        address: "127.0.0.1:3".into(),
    };
    let invite = || node.registry.invite(&node.officer, &new, NOW).unwrap();
    let (first, second) = (invite(), invite());
    assert!(!first.replaces && second.replaces);
    let enrol = |secret: &str| {
        let secret = crate::config::key_from_hex(secret).unwrap();
        let keys = node.registry.keys.public();
        let refused = node.registry.enrol(&new.division, &secret, &keys, NOW);
        refused.unwrap_err().to_string()
    };
    assert!(enrol(&first.secret).contains("已被后发的邀请取代"));
    assert!(enrol(&"07".repeat(32)).contains("邀请无效"));
}
