//! Grants that stand, judged again by policies that were published since: what these refuse gets
//! nothing new, is listed, still loses what leaves it, and goes on once they permit it.
//!
//! A district, a community under it, and a department of the district, all in this process.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use record::authority::{History, Level, Role};
use record::id::{GrantId, RecordId, UnixMillis};
use record::plan::ClassTerm;
use record::published::{SetFile, What};
use registry::grant::amend::AmendRequest;
use registry::grant::ending::GrantState;
use registry::grant::proof::verify_grants;
use registry::grant::{GrantLine, GrantRequest};
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::published::plan::PublishRequest;
use registry::session::Session;
use tests::realm::{DAY, NOW, REALM, Row, Site, division, kind, purpose, reading, rows, settle};

const PERSONS: usize = 8;

macro_rules! policy_files {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../policies/", $name)))),*]
    };
}

struct World {
    _base: tempfile::TempDir,
    district: Site,
    fu: Session,
    community: Site,
    second: Session,
    clerk: Session,
    department: Site,
    reader: Session,
    persons: Vec<Row>,
    now: Cell<UnixMillis>,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let fu = district.enrol("fu", Role::SecurityOfficer, None, NOW);
        let community = Site::join(&district, at, "jinfu", Level::Community, NOW);
        let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
        let second = community.enrol("second", Role::SecurityOfficer, None, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let reader = department.operator(Role::DepartmentOfficer, None, NOW);
        let persons = rows("person", 7, PERSONS, 1);
        community.import(&clerk, "person", &persons, NOW);
        let world = Self {
            _base: base,
            district,
            fu,
            community,
            second,
            clerk,
            department,
            reader,
            persons,
            now: Cell::new(NOW),
        };
        world.settle();
        world
    }

    fn settle(&self) {
        for _ in 0..3 {
            let links = [
                (&self.community, &self.district),
                (&self.department, &self.district),
            ];
            settle(&links, self.now.get());
            self.community.registry.tend_grants(self.now.get()).unwrap();
            while self.community.registry.reseal_step(self.now.get()).unwrap() {}
            self.department
                .registry
                .tend_grants(self.now.get())
                .unwrap();
            for site in [&self.community, &self.district, &self.department] {
                site.registry.go_on_destroying(self.now.get());
            }
        }
    }

    /// Publishes the policies of the program, with what may be granted to departments up to a class.
    fn publish(&self, sensitivity: u8) {
        let files = policy_files!(
            "auditing.cedar",
            "purposes.json",
            "reading.cedar",
            "schema.cedarschema",
            "security.cedar",
            "sharing.cedar",
            "transferring.cedar",
            "writing.cedar"
        );
        let file = |(name, text): (&str, &str)| SetFile {
            name: name.into(),
            text: match name {
                "sharing.cedar" => {
                    let limit =
                        format!("resource.sensitivity <= {sensitivity}\n}};\n\n// {sensitivity}");
                    text.replacen("resource.sensitivity <= 3\n};", &limit, 1)
                        .replace("[Purpose::\"welfare\", ", "[")
                }
                _ => text.to_owned(),
            },
        };
        let request = PublishRequest {
            what: What::Policies,
            files: files.into_iter().map(file).collect(),
            lowers: vec![],
            dry_run: false,
        };
        let (registry, officer) = (&self.district.registry, &self.district.officer);
        let proposed = registry
            .publish_plan(officer, &request, self.now.get())
            .unwrap();
        let id = plan_id(&proposed.plan.unwrap().id).unwrap();
        registry
            .approve(&self.fu, &id, true, self.now.get())
            .unwrap();
        registry.run_plan(officer, &id, self.now.get()).unwrap();
        self.settle();
    }

    fn run(&self, request: &PlanRequest) {
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        let plan = registry.plan(officer, request, self.now.get()).unwrap();
        let id = plan_id(&plan.id).unwrap();
        registry
            .approve(&self.second, &id, true, self.now.get())
            .unwrap();
        registry.run_plan(officer, &id, self.now.get()).unwrap();
        self.settle();
    }

    fn grant(&self, fields: &[&str], rows: &[(&str, &str)]) -> GrantId {
        let request = GrantRequest {
            kind: kind("person"),
            holder: division("minzheng"),
            fields: fields.iter().map(|field| (*field).into()).collect(),
            rows: rows
                .iter()
                .map(|(f, v)| ((*f).into(), (*v).into()))
                .collect(),
            purpose: purpose("welfare"),
            basis: "社会救助暂行办法".into(),
            assessment: "PIA-1".into(),
            days: 90,
            history: History::Since,
        };
        let officer = &self.community.officer;
        let id = self
            .community
            .registry
            .grant(officer, &request, self.now.get());
        self.settle();
        id.unwrap()
    }

    fn line(&self, id: &GrantId) -> GrantLine {
        let lines = self.community.registry.grants(self.now.get()).unwrap();
        lines.into_iter().find(|line| line.id == *id).unwrap()
    }

    /// As the department lists it.
    fn held(&self, id: &GrantId) -> GrantLine {
        let lines = self.department.registry.grants(self.now.get()).unwrap();
        lines.into_iter().find(|line| line.id == *id).unwrap()
    }

    fn warned(&self) -> bool {
        let checks = self.community.registry.doctor(self.now.get()).unwrap();
        let check = checks.iter().find(|check| check.check == "grants-refused");
        let warned = check.unwrap().health != registry::status::Health::Ok;
        let metrics = self.community.registry.metrics().unwrap();
        assert_eq!(metrics.contains("fangzhi_grants_refused 0"), !warned);
        warned
    }

    /// What the department reads: the education of each name.
    fn read(&self) -> BTreeMap<String, Option<String>> {
        let request = reading("person", "welfare");
        let registry = &self.department.registry;
        let answer = registry
            .read(&self.reader, &request, self.now.get())
            .unwrap();
        let rows = answer.value().rows.iter();
        rows.map(|row| {
            let education = row.fields.get("education").cloned();
            (row.fields["name"].clone(), education)
        })
        .collect()
    }

    fn find(&self, person: usize) -> (RecordId, u64) {
        let found =
            tests::moved::fields(&self.community, &self.persons[person], self.now.get()).unwrap();
        (found.0, found.1)
    }

    fn change(&self, person: usize, education: &str) {
        let (record, version) = self.find(person);
        let changes = [("education", education)];
        self.community.amend(
            &self.clerk,
            "person",
            record,
            version,
            &changes,
            self.now.get(),
        );
        self.settle();
    }

    fn add(&self, seed: u64) -> Row {
        let mut more = rows("person", seed, 1, 2);
        more.truncate(1);
        self.community
            .import(&self.clerk, "person", &more, self.now.get());
        self.settle();
        more.remove(0)
    }

    fn verifies(&self) {
        for site in [&self.community, &self.district, &self.department] {
            let report = registry::verify::verify(&site.dir).unwrap();
            assert!(report.ok, "{}: {:?}", site.dir.display(), report.findings);
        }
    }
}

const WIDE: [&str; 3] = ["name", "education", "phone"];

#[test]
fn a_grant_that_narrower_policies_refuse_gets_nothing_new_is_listed_and_goes_on_under_wider_ones() {
    let world = World::new();
    let id = world.grant(&WIDE, &[]);
    let before = world.read();
    assert_eq!(before.len(), PERSONS);
    assert!(!world.warned() && world.line(&id).refused.is_none());
    let size = world.line(&id).size;
    // Phones are P3: departments may have up to P2 from here on, for welfare, too.
    world.publish(2);
    let line = world.line(&id);
    assert_eq!(line.state, GrantState::Refused);
    let refused = line.refused.unwrap();
    assert_eq!(refused.rule, "default-nothing");
    assert_eq!(refused.field, Some(11));
    assert!(world.warned());

    // Neither a version, nor a row, nor the keys of an epoch come to the holder; it keeps what it has.
    world.change(0, "10");
    let new = world.add(21);
    world.run(&PlanRequest::RotateEpoch {
        kind: kind("person"),
        compromised: false,
    });
    assert_eq!(world.line(&id).epoch, 1);
    assert_eq!(world.line(&id).size, size, "no entry was written for it");
    assert_eq!(world.read(), before);
    let again = world
        .community
        .registry
        .renew_grant(&world.community.officer, &id, 30, NOW);
    assert_eq!(again.unwrap_err().code(), "denied");
    // A node that is started anew says the same.
    let dir = world.community.dir.clone();
    let opened = world.reopened();
    assert_eq!(opened.community.dir, dir);
    assert_eq!(opened.line(&id).state, GrantState::Refused);

    // Wider again: everything that it missed comes.
    let world = opened;
    world.publish(3);
    assert_eq!(world.line(&id).state, GrantState::InForce);
    assert_eq!(world.line(&id).epoch, 2);
    assert!(!world.warned());
    let read = world.read();
    assert_eq!(read.len(), PERSONS + 1);
    assert!(read.contains_key(&new["name"]));
    assert_eq!(read[&world.persons[0]["name"]].as_deref(), Some("10"));
    let proof = verify_grants(&world.department.dir, Some(&id))
        .unwrap()
        .remove(0);
    assert!(proof.ok, "{:?}", proof.findings);
    assert_eq!((proof.records, proof.unvouched), (PERSONS as u64 + 1, 0));
    world.verifies();
}

/// No statement says that a grant is suspended: its holder sees that heartbeats stop, and since when.
#[test]
fn a_holder_lists_when_the_last_heartbeat_of_a_grant_was_and_its_owner_that_it_is_suspended() {
    let world = World::new();
    let id = world.grant(&WIDE, &[]);
    let later = |hours: u64| {
        let now = UnixMillis(NOW.0 + hours * 3_600_000);
        world.now.set(now);
        now
    };
    assert_eq!(world.held(&id).heartbeat_at, Some(NOW));
    let last = later(1);
    world.change(0, "10");
    assert_eq!(world.held(&id).heartbeat_at, Some(last));
    world.publish(2);
    later(2);
    world.change(0, "20");
    for (line, state) in [
        (world.line(&id), GrantState::Refused),
        (world.held(&id), GrantState::InForce),
    ] {
        assert_eq!((line.state, line.heartbeat_at), (state, Some(last)));
    }
    let again = later(3);
    world.publish(3);
    assert_eq!(world.held(&id).heartbeat_at, Some(again));
    assert_eq!(world.line(&id).heartbeat_at, Some(again));
}

#[test]
fn a_refused_grant_loses_what_is_destroyed_and_an_officer_narrows_it_to_what_is_permitted() {
    let world = World::new();
    let grid = world.persons[0]["grid"].clone();
    let id = world.grant(&WIDE, &[("grid", &grid)]);
    let scope: BTreeSet<String> = world.read().into_keys().collect();
    assert!(scope.contains(&world.persons[0]["name"]));
    world.publish(2);
    assert_eq!(world.line(&id).state, GrantState::Refused);

    // One goes to another grid, the phone of another is past its term.
    let elsewhere = world.add(23);
    assert!(!world.read().contains_key(&elsewhere["name"]));
    let (moved, version) = world.find(0);
    let changes = [("grid", "999999100009999")];
    world
        .community
        .amend(&world.clerk, "person", moved, version, &changes, NOW);
    world.settle();
    let mut left = scope.clone();
    left.remove(&world.persons[0]["name"]);
    assert_eq!(world.read().into_keys().collect::<BTreeSet<_>>(), left);
    let past = (1..PERSONS).find(|at| left.contains(&world.persons[*at]["name"]));
    let past = past.unwrap();
    let long_ago = record::id::UnixMillis(NOW.0 - 1000 * DAY);
    world
        .community
        .close_record(&world.clerk, "person", world.find(past), long_ago);
    let registry = &world.community.registry;
    world.settle();
    world.run(&PlanRequest::Fields {
        classes: vec![ClassTerm {
            kind: kind("person"),
            group: kind("contact"),
            days: 365,
        }],
        days: 30,
    });
    registry
        .run_retention(&world.community.officer, NOW)
        .unwrap();
    world.settle();
    left.remove(&world.persons[past]["name"]);
    assert_eq!(world.read().into_keys().collect::<BTreeSet<_>>(), left);
    assert!(registry.destructions(NOW).unwrap().is_empty(), "receipted");

    // Without the phone it is permitted: what is in scope comes, once more and whole.
    let to = AmendRequest {
        fields: Some(vec!["name".into(), "education".into()]),
        ..AmendRequest::default()
    };
    world.run(&PlanRequest::AmendGrant { grant: id, to });
    assert_eq!(world.line(&id).state, GrantState::InForce);
    left.insert(world.persons[past]["name"].clone());
    assert_eq!(world.read().into_keys().collect::<BTreeSet<_>>(), left);
    let proof = verify_grants(&world.department.dir, Some(&id))
        .unwrap()
        .remove(0);
    assert!(proof.ok, "{:?}", proof.findings);
    world.verifies();
}

impl World {
    /// The community's node, closed and opened again.
    fn reopened(self) -> Self {
        let dir = self.community.close();
        let community = Site::open(&dir, NOW);
        let login = |name| {
            community
                .registry
                .login(name, tests::realm::PASSPHRASE, NOW)
                .unwrap()
        };
        let (second, clerk) = (login("second"), login("clerk"));
        Self {
            community,
            second,
            clerk,
            ..self
        }
    }
}
