//! A grant whose time runs out while nobody says anything: its holder drops what it has, and signs
//! for it afterwards. What verification says between the two, and what it still calls a fault.
//!
//! A district, a community under it that grants, and a department that holds, all in this process.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use record::authority::{History, Level, Role};
use record::id::{GrantId, Origin, UnixMillis};
use registry::audit::realm::{Severity, audit};
use registry::grant::GrantRequest;
use registry::grant::ending::GrantState;
use registry::grant::proof::{GrantProof, verify_grants_to};
use registry::session::Session;
use registry::verify::{VerifyReport, verify, verify_at};
use store::{Batch, Key, Snapshot, Store};
use tests::realm::forge::open_store;
use tests::realm::{
    DAY, NOW, REALM, Row, Site, clock, division, kind, origin, purpose, reading_person, rows,
    settle,
};
use tests::{call, copy_dir};

const PERSONS: usize = 6;
const DAYS: u64 = 30;

struct World {
    base: tempfile::TempDir,
    /// When it began, and the grant was made.
    start: UnixMillis,
    district: Site,
    community: Site,
    clerk: Session,
    department: Site,
    persons: Vec<Row>,
    grant: GrantId,
    ledger: Origin,
}

impl World {
    fn new(start: UnixMillis) -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", start);
        let community = Site::join(&district, at, "jinfu", Level::Community, start);
        let department = Site::join(&district, at, "minzheng", Level::Department, start);
        let clerk = community.operator(Role::Clerk, None, start);
        let persons = rows("person", 7, PERSONS, 1);
        community.import(&clerk, "person", &persons, start);
        let links = [(&community, &district), (&department, &district)];
        settle(&links, start);
        let request = GrantRequest {
            kind: kind("person"),
            holder: division("minzheng"),
            fields: vec!["name".into(), "education".into()],
            rows: BTreeMap::new(),
            purpose: purpose("welfare"),
            basis: "社会救助暂行办法".into(),
            assessment: "PIA-1".into(),
            days: DAYS as u32,
            history: History::Since,
        };
        let grant = community
            .registry
            .grant(&community.officer, &request, start);
        let grant = grant.unwrap();
        let world = Self {
            base,
            start,
            district,
            community,
            clerk,
            department,
            persons,
            ledger: origin("jinfu", "person").grant(&grant),
            grant,
        };
        world.come_to_rest(start);
        // One more version, and another heartbeat after the first.
        let (community, clerk) = (&world.community, &world.clerk);
        let request = reading_person(&world.persons[0], "registration");
        let answer = community.registry.read(clerk, &request, start).unwrap();
        let row = &answer.value().rows[0];
        let changes = [("education", "10")];
        community.amend(clerk, "person", row.record, row.version, &changes, start);
        world.come_to_rest(start);
        world
    }

    fn settle(&self, now: UnixMillis) {
        let links = [
            (&self.community, &self.district),
            (&self.department, &self.district),
        ];
        settle(&links, now);
    }

    fn come_to_rest(&self, now: UnixMillis) {
        for _ in 0..2 {
            self.settle(now);
            self.community.registry.tend_grants(now).unwrap();
            self.department.registry.tend_grants(now).unwrap();
        }
        self.settle(now);
    }

    fn after(&self, days: u64) -> UnixMillis {
        UnixMillis(self.start.0 + days * DAY)
    }

    /// How many bodies of the grant a directory has.
    fn bodies(&self, dir: &Path) -> usize {
        let snapshot = Snapshot::open(dir).unwrap();
        let rows = snapshot.scan(self.ledger.as_str(), "body", b"", usize::MAX);
        rows.unwrap().len()
    }

    /// A node that destroys the first bodies of the grant, and is stopped before anything else.
    fn stopped(&self, site: &Site, name: &str, gone: usize) -> PathBuf {
        let dir = self.base.path().join(name);
        copy_dir(&site.dir, &dir);
        destroy(&self.ledger, &dir, gone);
        dir
    }

    /// The department, closed, and opened again after something was done to its directory.
    fn reopened(self, now: UnixMillis, meanwhile: impl FnOnce(&Path)) -> Self {
        let dir = self.department.close();
        meanwhile(&dir);
        let department = Site::open(&dir, now);
        Self { department, ..self }
    }

    fn state(&self, now: UnixMillis) -> GrantState {
        let lines = self.community.registry.grants(now).unwrap();
        let mut lines = lines.into_iter();
        lines.find(|line| line.id == self.grant).unwrap().state
    }

    fn dropped(&self, report: &VerifyReport) -> u64 {
        let mut lines = report.ledgers.iter();
        lines.find(|l| l.origin == self.ledger).unwrap().dropped
    }

    fn proof(&self, dir: &Path, now: UnixMillis) -> GrantProof {
        let proofs = verify_grants_to(dir, Some(&self.grant), None, now);
        proofs.unwrap().remove(0)
    }
}

/// Destroys the first bodies of a ledger.
fn destroy(ledger: &Origin, dir: &Path, gone: usize) {
    let store = open_store(dir);
    let rows = store.scan(ledger.as_str(), "body", b"", gone).unwrap();
    assert_eq!(rows.len(), gone);
    let mut batch = Batch::new(ledger.as_str(), None);
    for (rest, _) in rows {
        batch.delete(Key::new(ledger.as_str(), "body", &rest).unwrap());
    }
    store.commit(&batch).unwrap();
}

#[track_caller]
fn holds(report: &VerifyReport) {
    assert!(report.ok, "{:?}", report.findings);
}

/// So many bodies are missing, and that is a fault.
#[track_caller]
fn lacks(report: &VerifyReport, bodies: usize) {
    let missing = |what: &str| what.contains("is missing, and no later entry");
    let found = report.findings.iter().filter(|f| missing(&f.what));
    assert_eq!(found.count(), bodies, "{:?}", report.findings);
    assert!(!report.ok);
}

#[test]
fn what_a_holder_drops_when_the_time_of_a_grant_runs_out_verifies_before_and_after_its_receipt() {
    let world = World::new(NOW);
    let over = world.after(DAYS + 1);
    let all = world.bodies(&world.department.dir);
    // Its envelope, every row with its first heartbeat; then the later version with another.
    assert_eq!(all, 1 + PERSONS + 1 + 2);
    for (name, gone) in [("half", all - 2), ("whole", all)] {
        let stopped = world.stopped(&world.department, name, gone);
        let report = verify_at(&stopped, over).unwrap();
        holds(&report);
        assert_eq!(world.dropped(&report), gone as u64);
        // Nobody signed anything since: that a clock alone says so is seen.
        let [remark] = &report.remarks[..] else {
            panic!("{:?}", report.remarks);
        };
        assert!(remark.contains("by the clock"), "{remark}");
        let report = audit(&stopped, over).unwrap();
        assert!(report.ok, "{:?}", report.findings);
        let mut notes = report.findings.iter().filter(|f| f.code == "unfinished");
        let note = notes.next().unwrap();
        assert_eq!(note.severity, Severity::Note);
        assert!(note.zh.contains("到期"), "{}", note.zh);
        // What is half dropped is not shown as whole.
        let proof = world.proof(&stopped, over);
        assert_eq!((proof.ok, proof.finished), (gone == all, gone == all));
        // A day before its end it is a fault, and without any clock, too.
        let before = world.after(DAYS - 1);
        lacks(&verify_at(&stopped, before).unwrap(), gone);
        lacks(&verify(&stopped).unwrap(), gone);
        assert!(!audit(&stopped, before).unwrap().ok);
        assert!(!world.proof(&stopped, before).ok);
    }
    // The node itself is stopped there, and goes on: it signs for what it dropped.
    let ledger = world.ledger.clone();
    let world = world.reopened(over, |dir| {
        destroy(&ledger, dir, all);
        holds(&verify_at(dir, over).unwrap());
    });
    world.department.registry.tend_grants(over).unwrap();
    let (dir, now) = (&world.department.dir, UnixMillis(0));
    for time in [now, over] {
        let report = verify_at(dir, time).unwrap();
        holds(&report);
        assert_eq!(report.remarks, [""; 0]);
        let proof = world.proof(dir, time);
        assert!(proof.ok && proof.finished, "{:?}", proof.findings);
    }
    assert!(audit(dir, over).unwrap().ok);
    world.come_to_rest(over);
    assert_eq!(world.state(over), GrantState::Dropped);
    for site in [&world.district, &world.community, &world.department] {
        holds(&verify(&site.dir).unwrap());
    }
}

#[test]
fn a_witness_who_cosigned_after_the_end_of_a_grant_shows_without_a_clock_that_it_is_over() {
    let world = World::new(NOW);
    let over = world.after(DAYS + 1);
    let all = world.bodies(&world.department.dir);
    // The department signs something else; its own word for the time is not believed.
    world.department.operator(Role::Auditor, None, over);
    let own = world.stopped(&world.department, "own", all);
    lacks(&verify(&own).unwrap(), all);
    // The district cosigns that.
    let links = [(&world.department, &world.district)];
    settle(&links, over);
    let witnessed = world.stopped(&world.department, "witnessed", all);
    for now in [UnixMillis(0), over] {
        let report = verify_at(&witnessed, now).unwrap();
        holds(&report);
        let [remark] = &report.remarks[..] else {
            panic!("{:?}", report.remarks);
        };
        assert!(remark.contains("a cosignature is later"), "{remark}");
    }
}

#[test]
fn a_parcel_of_a_grant_that_was_renewed_or_is_another_nodes_is_missed_whatever_the_time() {
    let world = World::new(NOW);
    let over = world.after(DAYS + 1);
    // Whoever gave it, or hands it down, keeps it until an entry orders otherwise.
    for (name, site) in [("owner", &world.community), ("above", &world.district)] {
        let stopped = world.stopped(site, name, 1);
        lacks(&verify_at(&stopped, over).unwrap(), 1);
    }
    let (registry, officer) = (&world.community.registry, &world.community.officer);
    let (id, last) = (&world.grant, world.after(DAYS - 1));
    registry.renew_grant(officer, id, 60, last).unwrap();
    world.come_to_rest(last);
    let stopped = world.stopped(&world.department, "renewed", 2);
    lacks(&verify_at(&stopped, over).unwrap(), 2);
    assert!(!audit(&stopped, over).unwrap().ok);
}

#[test]
fn the_commands_that_verify_go_by_the_clock_of_their_machine() {
    let world = World::new(UnixMillis(clock().0 - (DAYS + 1) * DAY));
    let all = world.bodies(&world.department.dir);
    let gone = world.stopped(&world.department, "gone", all);
    let gone = gone.to_str().unwrap();
    for words in [&["verify"][..], &["audit", "all"], &["grant", "verify"]] {
        let done = call([words, &["--dir", gone, "--json"]].concat());
        assert_eq!(done.code, 0, "{words:?}: {}", done.stdout);
    }
}
