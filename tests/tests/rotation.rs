//! Key epochs over nodes that are open in this process: a community under a town under a district,
//! and a department that holds a grant of the community's persons.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use record::authority::{Level, Role};
use record::id::{GrantId, Hash, RecordId, UnixMillis};
use registry::audit::missing::{SiteSide, Why, missing};
use registry::audit::realm::audit;
use registry::audit::view::View;
use registry::grant::GrantRequest;
use registry::grant::ending::GrantState;
use registry::plan::request::PlanRequest;
use registry::read::{Comparison, Filter, ReadRequest};
use registry::session::Session;
use registry::{RegistryError, Result};
use store::{Batch, Key, Snapshot, Store};
use tests::copy_dir;
use tests::realm::forge::open_store;
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Row, Site, division, kind, origin, purpose, replicate, rows,
    settle,
};

const PERSONS: usize = 300;

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    community: Site,
    department: Site,
    second: Session,
    clerk: Session,
    reader: Session,
    persons: Vec<Row>,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
        let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
        let second = community.operator(Role::SecurityOfficer, None, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let reader = department.operator(Role::DepartmentOfficer, None, NOW);
        let mut persons = rows("person", 7, PERSONS, 1);
        for (at, row) in persons.iter_mut().enumerate() {
            let residence = if at % 2 == 0 { "10" } else { "20" };
            row.insert("residence_kind".into(), residence.into());
        }
        community.import(&clerk, "person", &persons, NOW);
        let world = Self {
            base,
            district,
            town,
            community,
            department,
            second,
            clerk,
            reader,
            persons,
        };
        world.settle(NOW);
        world
    }

    fn settle(&self, now: UnixMillis) {
        settle(
            &[
                (&self.community, &self.town),
                (&self.town, &self.district),
                (&self.department, &self.district),
            ],
            now,
        );
    }

    fn grant(&self, now: UnixMillis) -> GrantId {
        let request = GrantRequest {
            kind: kind("person"),
            holder: division("minzheng"),
            fields: ["name", "sex", "birth_date", "residence_kind"]
                .map(str::to_owned)
                .to_vec(),
            rows: BTreeMap::from([("residence_kind".into(), "10".into())]),
            purpose: purpose("welfare"),
            basis: "社会救助暂行办法".into(),
            assessment: "PIA-2026-001".into(),
            days: 30,
            history: record::authority::History::default(),
        };
        let officer = &self.community.officer;
        let id = self.community.registry.grant(officer, &request, now);
        self.settle(now);
        id.unwrap()
    }

    /// Plans, and has another officer approve.
    fn approved(&self, request: &PlanRequest, now: UnixMillis) -> Hash {
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        let plan = registry.plan(officer, request, now).unwrap();
        let id = registry::plan::approve::plan_id(&plan.id).unwrap();
        registry.approve(&self.second, &id, true, now).unwrap();
        id
    }

    fn run(&self, request: &PlanRequest, now: UnixMillis) -> Result<()> {
        let plan = self.approved(request, now);
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        registry.run_plan(officer, &plan, now)
    }

    fn rotate(&self, compromised: bool, now: UnixMillis) -> Result<()> {
        let kind = kind("person");
        self.run(&PlanRequest::RotateEpoch { kind, compromised }, now)
    }

    fn retirement(&self, now: UnixMillis) -> Hash {
        let kind = kind("person");
        self.approved(&PlanRequest::RetireEpoch { kind, epoch: 1 }, now)
    }

    fn retire(&self, plan: &Hash, now: UnixMillis) -> Result<()> {
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        registry.run_plan(officer, plan, now)
    }

    fn reseal(&self, now: UnixMillis) {
        self.community.registry.tend_grants(now).unwrap();
        while self.community.registry.reseal_step(now).unwrap() {}
    }

    /// Everything in the background, everywhere, until all is at rest.
    fn come_to_rest(&self, now: UnixMillis) {
        self.reseal(now);
        for _ in 0..2 {
            self.settle(now);
            for site in [&self.community, &self.department] {
                site.registry.tend_grants(now).unwrap();
            }
        }
        self.settle(now);
    }

    /// Names that the department reads, ascending.
    fn read(&self, now: UnixMillis) -> Result<Vec<String>> {
        self.read_as(&self.reader, now)
    }

    fn read_as(&self, reader: &Session, now: UnixMillis) -> Result<Vec<String>> {
        let request = ReadRequest {
            closed: false,
            kind: kind("person"),
            filters: vec![],
            fields: None,
            purpose: purpose("welfare"),
            basis: None,
            limit: None,
        };
        let answer = self.department.registry.read(reader, &request, now)?;
        let rows = &answer.value().rows;
        let mut names: Vec<String> = rows.iter().map(|r| r.fields["name"].clone()).collect();
        names.sort();
        Ok(names)
    }

    fn granted(&self) -> Vec<String> {
        let granted = self.persons.iter().filter(|r| r["residence_kind"] == "10");
        let mut names: Vec<String> = granted.map(|r| r["name"].clone()).collect();
        names.sort();
        names
    }

    fn state(&self, id: &GrantId, now: UnixMillis) -> GrantState {
        let lines = self.community.registry.grants(now).unwrap();
        lines.into_iter().find(|line| line.id == *id).unwrap().state
    }

    fn clerks_record(&self, name: &str) -> (RecordId, u64) {
        let request = ReadRequest {
            closed: false,
            kind: kind("person"),
            filters: vec![Filter {
                field: "name".into(),
                comparison: Comparison::Equals,
                value: name.into(),
            }],
            fields: None,
            purpose: purpose("registration"),
            basis: None,
            limit: None,
        };
        let registry = &self.community.registry;
        let answer = registry.read(&self.clerk, &request, NOW).unwrap();
        let row = &answer.value().rows[0];
        (row.record, row.version)
    }

    #[track_caller]
    fn verifies(&self) {
        for site in [
            &self.community,
            &self.town,
            &self.district,
            &self.department,
        ] {
            let report = registry::verify::verify(&site.dir).unwrap();
            assert!(report.ok, "{}: {:?}", site.dir.display(), report.findings);
        }
    }

    /// How many bodies of a ledger a node's disk has.
    fn bodies(site: &Site, ledger: &str) -> usize {
        let store = Snapshot::open(&site.dir).unwrap();
        store.scan(ledger, "body", b"", usize::MAX).unwrap().len()
    }
}

#[test]
fn a_rotation_reaches_parents_and_holders_and_nothing_stays_under_the_old_epoch() {
    let world = World::new();
    let id = world.grant(NOW);
    assert_eq!(world.read(NOW).unwrap(), world.granted());
    world.rotate(false, NOW).unwrap();
    world.come_to_rest(NOW);
    assert_eq!(world.read(NOW).unwrap(), world.granted());
    assert_eq!(world.state(&id, NOW), GrantState::InForce);
    world.retire(&world.retirement(NOW), NOW).unwrap();
    world.settle(NOW);
    let shard = origin("jinfu", "person");
    for site in [&world.community, &world.town, &world.district] {
        assert_eq!(World::bodies(site, shard.as_str()), PERSONS);
    }
    // A node that never had any of it gets what is left, with proofs of what was destroyed.
    let ledger = shard.grant(&id);
    let parcels = World::bodies(&world.community, ledger.as_str());
    assert_eq!(World::bodies(&world.department, ledger.as_str()), parcels);
    world.verifies();
    // What is written from here on arrives, too.
    let (record, version) = world.clerks_record(&world.granted()[0]);
    let change = [("name", "改名者")];
    let clerk = &world.clerk;
    world
        .community
        .amend(clerk, "person", record, version, &change, NOW);
    world.come_to_rest(NOW);
    assert!(world.read(NOW).unwrap().contains(&"改名者".to_owned()));
    world.verifies();
}

#[test]
fn a_grant_made_while_bodies_are_resealed_comes_whole() {
    let world = World::new();
    world.rotate(false, NOW).unwrap();
    world.community.registry.reseal_step(NOW).unwrap();
    world.community.registry.reseal_step(NOW).unwrap();
    let id = world.grant(NOW);
    assert!(world.read(NOW).unwrap_or_default().is_empty());
    world.come_to_rest(NOW);
    assert_eq!(world.read(NOW).unwrap(), world.granted());
    assert_eq!(world.state(&id, NOW), GrantState::InForce);
    world.retire(&world.retirement(NOW), NOW).unwrap();
    world.verifies();
}

#[test]
fn a_rotation_works_with_the_parent_cut_off_and_a_holder_silent_for_a_month() {
    let world = World::new();
    world.grant(NOW);
    // The line to the town is cut from here on.
    world.rotate(false, NOW).unwrap();
    world.reseal(NOW);
    let (record, version) = world.clerks_record(&world.granted()[0]);
    let change = [("name", "断网时改名")];
    let clerk = &world.clerk;
    world
        .community
        .amend(clerk, "person", record, version, &change, NOW);
    // The parcels of the new epoch wait for the parent's cosignature: the old one cannot go yet.
    let retirement = world.retirement(NOW);
    let refused = world.retire(&retirement, NOW).unwrap_err().to_string();
    assert!(refused.contains("epoch 1"), "{refused}");
    // The line is back, the department is still away.
    let later = UnixMillis(NOW.0 + 5 * DAY);
    for _ in 0..3 {
        replicate(&world.community, &world.town, later);
        replicate(&world.town, &world.district, later);
        world.community.registry.tend_grants(later).unwrap();
    }
    world.retire(&retirement, later).unwrap();
    assert_eq!(
        world.read(NOW).unwrap(),
        world.granted(),
        "what it had, it has"
    );
    // A month after the grant's beginning it comes back, in time for one more day.
    let month = UnixMillis(NOW.0 + 29 * DAY);
    world.come_to_rest(month);
    let reader = world
        .department
        .registry
        .login("department-officer", PASSPHRASE, month);
    let names = world.read_as(&reader.unwrap(), month).unwrap();
    assert!(names.contains(&"断网时改名".to_owned()));
    assert_eq!(names.len(), world.granted().len());
    world.verifies();
}

#[test]
fn after_a_compromise_no_holder_gets_the_new_keys_until_an_officer_grants_again() {
    let world = World::new();
    let id = world.grant(NOW);
    world.rotate(true, NOW).unwrap();
    world.come_to_rest(NOW);
    assert_eq!(world.state(&id, NOW), GrantState::Unkeyed);
    let retirement = world.retirement(NOW);
    let refused = world.retire(&retirement, NOW);
    assert!(
        matches!(&refused, Err(RegistryError::BadRequest(why)) if why.contains("grant renew")),
        "{refused:?}"
    );
    // The plan had said so.
    let plan = world.community.registry.plan_line(&retirement, NOW);
    let figures = plan.unwrap().figures;
    let parcels = figures.iter().find(|f| f.name.as_str() == "grant-parcels");
    assert!(
        parcels.is_some_and(|figure| figure.count > 0),
        "{figures:?}"
    );
    world
        .community
        .registry
        .renew_grant(&world.community.officer, &id, 30, NOW)
        .unwrap();
    world.come_to_rest(NOW);
    assert_eq!(world.state(&id, NOW), GrantState::InForce);
    assert_eq!(world.read(NOW).unwrap(), world.granted());
    world.verifies();
}

#[test]
fn a_grant_that_is_ended_is_retracted_dropped_and_receipted() {
    let world = World::new();
    let id = world.grant(NOW);
    let ledger = origin("jinfu", "person").grant(&id);
    world
        .run(
            &PlanRequest::EndGrant {
                grant: id,
                reason: kind("agreement-ended"),
            },
            NOW,
        )
        .unwrap();
    assert_eq!(world.state(&id, NOW), GrantState::Awaiting);
    // The holder hears of it, destroys what it has, and is stopped before it signs for that.
    world.settle(NOW);
    let stopped = world.base.path().join("stopped");
    copy_dir(&world.department.dir, &stopped);
    let store = open_store(&stopped);
    let rows = store
        .scan(ledger.as_str(), "body", b"", usize::MAX)
        .unwrap();
    assert!(!rows.is_empty());
    let mut batch = Batch::new(ledger.as_str(), None);
    for (rest, _) in rows {
        batch.delete(Key::new(ledger.as_str(), "body", &rest).unwrap());
    }
    store.commit(&batch).unwrap();
    drop(store);
    let report = registry::verify::verify(&stopped).unwrap();
    assert!(report.ok, "{:?}", report.findings);
    world.come_to_rest(NOW);
    assert!(world.read(NOW).is_err());
    assert_eq!(world.state(&id, NOW), GrantState::Dropped);
    assert_eq!(World::bodies(&world.department, ledger.as_str()), 0);
    // It is finished: nobody waits for a heartbeat any more, neither the holder nor the owner.
    for site in [&world.department, &world.community] {
        let proofs = registry::grant::proof::verify_grants(&site.dir, Some(&id)).unwrap();
        let proof = &proofs[0];
        assert!(proof.ok && proof.finished, "{:?}", proof.findings);
        assert_eq!((proof.unvouched, proof.ended_at), (0, Some(NOW)));
        let report = audit(&site.dir, NOW).unwrap();
        let open = report.findings.iter().filter(|f| f.code == "unfinished");
        assert_eq!(
            open.map(|f| &f.en).collect::<Vec<_>>(),
            Vec::<&String>::new()
        );
        let line = report
            .grants
            .iter()
            .find(|g| g.id == id.to_string())
            .unwrap();
        assert_eq!((line.state, line.not_after), ("ended", NOW));
        // An export without it lacks nothing, if one knows; without the shard it does.
        let shard = origin("jinfu", "person");
        let older = SiteSide {
            ledgers: [&ledger, &shard].map(ToString::to_string).into(),
            ..SiteSide::default()
        };
        let view = View::open(&site.dir).unwrap();
        for (view, grant) in [(Some(&view), Why::GrantEnded), (None, Why::Unexplained)] {
            let missing = missing(&older, &SiteSide::default(), view);
            let why = missing.into_iter().map(|one| (one.origin, one.why));
            let expected = [
                (shard.to_string(), Why::Unexplained),
                (ledger.to_string(), grant),
            ];
            assert_eq!(why.collect::<Vec<_>>(), expected);
        }
    }
    world.rotate(false, NOW).unwrap();
    world.come_to_rest(NOW);
    // The retired epoch does not wait for a holder that is none any more.
    world.retire(&world.retirement(NOW), NOW).unwrap();
    world.verifies();
}

#[test]
fn a_grant_is_at_fault_only_while_its_holder_has_no_charter() {
    let world = World::new();
    let ended = world.grant(NOW);
    world
        .run(
            &PlanRequest::EndGrant {
                grant: ended,
                reason: kind("agreement-ended"),
            },
            NOW,
        )
        .unwrap();
    world.come_to_rest(NOW);
    let id = world.grant(NOW);
    let at_fault = || -> Vec<String> {
        settle(
            &[
                (&world.community, &world.town),
                (&world.town, &world.district),
            ],
            NOW,
        );
        let report = audit(&world.community.dir, NOW).unwrap();
        let faults = report.findings.into_iter();
        faults
            .filter(|f| f.code == "grant-to-revoked")
            .map(|f| f.subject)
            .collect()
    };
    assert_eq!(at_fault(), Vec::<String>::new());
    let (district, holder) = (&world.district, division("minzheng"));
    district
        .registry
        .revoke(&district.officer, &holder, &kind("lost-key"), NOW)
        .unwrap();
    let ledger = origin("jinfu", "person").grant(&id);
    assert_eq!(at_fault(), [ledger.to_string()]);
    // Chartered again, under other keys: then the grant is to be renewed, which is no fault.
    district.replace_charter("minzheng", NOW);
    let again = world.base.path().join("again");
    let fresh = Site::join(district, &again, "minzheng", Level::Department, NOW);
    assert_eq!(fresh.charter().serial, 2);
    assert_eq!(at_fault(), Vec::<String>::new());
    fresh.close();
}

#[test]
fn a_grant_whose_time_is_over_is_dropped_even_when_its_owner_is_silent() {
    let world = World::new();
    let id = world.grant(NOW);
    let ledger = origin("jinfu", "person").grant(&id);
    let over = UnixMillis(NOW.0 + 31 * DAY);
    world.department.registry.tend_grants(over).unwrap();
    assert_eq!(World::bodies(&world.department, ledger.as_str()), 0);
    let status = world.department.registry.status().unwrap();
    assert!(status.holdings.iter().all(|h| h.origin != ledger));
    // The owner ends it by itself, and finds the receipt.
    world.community.registry.tend_grants(over).unwrap();
    world.settle(over);
    assert_eq!(world.state(&id, over), GrantState::Dropped);
    world.verifies();
}

#[test]
fn a_holder_that_signs_nothing_is_listed_as_overdue() {
    let world = World::new();
    let id = world.grant(NOW);
    world
        .run(
            &PlanRequest::EndGrant {
                grant: id,
                reason: kind("agreement-ended"),
            },
            NOW,
        )
        .unwrap();
    let later = UnixMillis(NOW.0 + 8 * DAY);
    assert_eq!(world.state(&id, later), GrantState::Overdue);
    let overdue = world.community.registry.overdue_grants(later);
    assert_eq!(overdue.iter().map(|g| g.id).collect::<Vec<_>>(), [id]);
}

#[test]
fn a_holder_proves_its_subset_whole_up_to_a_named_checkpoint_from_its_files_alone() {
    let world = World::new();
    let id = world.grant(NOW);
    world.rotate(false, NOW).unwrap();
    world.come_to_rest(NOW);
    let proofs = registry::grant::proof::verify_grants(&world.department.dir, Some(&id)).unwrap();
    let proof = &proofs[0];
    assert!(proof.ok, "{:?}", proof.findings);
    assert_eq!(proof.records, world.granted().len() as u64);
    assert_eq!(proof.unvouched, 0);
    let checkpoint = proof.checkpoint.as_ref().unwrap();
    let status = world.community.registry.status().unwrap();
    let shard = origin("jinfu", "person");
    let line = status.ledgers.iter().find(|l| l.origin == shard).unwrap();
    assert_eq!((checkpoint.size, &checkpoint.root), (line.size, &line.root));
    assert!(
        checkpoint
            .signers
            .iter()
            .any(|name| name.ends_with("/witness"))
    );
    let unknown = GrantId([9; 16]);
    assert!(registry::grant::proof::verify_grants(&world.department.dir, Some(&unknown)).is_err());
}

#[test]
fn what_a_holder_could_open_over_all_its_grants_is_shown_before_and_explained_after() {
    let world = World::new();
    world.grant(NOW);
    let request = |fields: &[&str], residence: &str| GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: fields.iter().map(|f| (*f).to_owned()).collect(),
        rows: BTreeMap::from([("residence_kind".into(), residence.into())]),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-2026-002".into(),
        days: 30,
        history: record::authority::History::default(),
    };
    let (registry, officer) = (&world.community.registry, &world.community.officer);
    let plan = registry
        .plan_grant(officer, &request(&["name"], "20"), NOW)
        .unwrap();
    assert_eq!(plan.grants.len(), 1);
    assert_eq!(plan.rows, (PERSONS / 2) as u64);
    let group = |of: &str| {
        plan.openable
            .iter()
            .find(|g| g.fields.iter().any(|f| f == of))
            .unwrap()
    };
    // Within the group of the name, the keys of the one grant open rows of the other.
    let identity = group("name");
    assert_eq!((identity.rows_before, identity.rows), (150, 300));
    assert!(identity.fields.contains(&"birth_date".to_owned()));
    assert!(identity.added.is_empty());
    let (record, _) = world.clerks_record(&world.granted()[0]);
    let why = registry.why(&record, &division("minzheng"), NOW).unwrap();
    assert_eq!(why.len(), 1);
    assert!(why[0].holds);
    assert_eq!(
        why[0].conditions.as_deref(),
        Some(&["residence_kind".to_owned()][..])
    );
    assert_eq!(
        why[0].steps.iter().map(|s| s.operation).collect::<Vec<_>>(),
        ["enter"]
    );
}
