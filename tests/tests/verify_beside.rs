//! `verify` and `audit all` beside a node that reseals, erases and rewrites pages of secrets without
//! pause: nothing of that is a fault, and a flipped byte is one all the same.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use record::authority::Role;
use record::id::{Hash, RecordId};
use registry::audit::realm::audit;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::read::ReadRequest;
use registry::session::Session;
use registry::verify::{VerifyFinding, verify};
use store::Snapshot;
use tests::realm::forge::key;
use tests::realm::{NOW, REALM, Site, kind, origin, reading, rows};

const PERSONS: usize = 120;
/// Rotations that are to be whole before and after the byte is flipped, and verifications.
const ROTATIONS: u32 = 2;
const VERIFICATIONS: usize = 12;

struct World {
    site: Site,
    second: Session,
    clerk: Session,
    rotations: AtomicU32,
    ended: AtomicBool,
}

impl World {
    /// Plans, has another officer approve, and runs it.
    fn run(&self, request: &PlanRequest) {
        let (registry, officer) = (&self.site.registry, &self.site.officer);
        let plan = registry.plan(officer, request, NOW).unwrap();
        let id: Hash = plan_id(&plan.id).unwrap();
        registry.approve(&self.second, &id, true, NOW).unwrap();
        registry.run_plan(officer, &id, NOW).unwrap();
    }

    fn records(&self) -> Vec<RecordId> {
        let request = ReadRequest {
            closed: false,
            ..reading("person", "registration")
        };
        let answer = self.site.registry.read(&self.clerk, &request, NOW).unwrap();
        answer.value().rows.iter().map(|row| row.record).collect()
    }

    /// Rotates and reseals, and erases a record each time, until it is told to end.
    fn work(&self) {
        let mut records = self.records().into_iter();
        while !self.ended.load(Ordering::SeqCst) {
            self.run(&PlanRequest::RotateEpoch {
                kind: kind("person"),
                compromised: false,
            });
            while self.site.registry.reseal_step(NOW).unwrap() {}
            if let Some(record) = records.next() {
                self.run(&PlanRequest::Erase {
                    kind: kind("person"),
                    record,
                    basis: "个人信息保护法 第四十七条".into(),
                });
            }
            self.rotations.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Verifies again and again, while so many rotations are gone through.
    fn again(&self, mut look: impl FnMut()) {
        let until = self.rotations.load(Ordering::SeqCst) + ROTATIONS;
        let mut looked = 0;
        while looked < VERIFICATIONS || self.rotations.load(Ordering::SeqCst) < until {
            look();
            looked += 1;
        }
    }
}

#[test]
fn a_node_that_reseals_and_erases_meanwhile_verifies_and_a_flipped_byte_is_found() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::root(base.path(), REALM, "jinfu", NOW);
    let second = site.operator(Role::SecurityOfficer, None, NOW);
    let clerk = site.operator(Role::Clerk, None, NOW);
    site.import(&clerk, "room", &rows("room", 7, 8, 1), NOW);
    site.import(&clerk, "person", &rows("person", 7, PERSONS, 1), NOW);
    let world = World {
        site,
        second,
        clerk,
        rotations: AtomicU32::new(0),
        ended: AtomicBool::new(false),
    };
    let dir = world.site.dir.clone();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| world.work());
        // Also when a check fails: the scope waits for its threads.
        scopeguard::defer!(world.ended.store(true, Ordering::SeqCst));
        world.again(|| {
            let report = verify(&dir).unwrap();
            assert!(report.ok, "{:#?}", report.findings);
            assert!(!worker.is_finished(), "the node stopped working");
        });
        let report = audit(&dir, NOW).unwrap();
        assert!(report.ok, "{:#?}", report.findings);

        // An entry of a ledger that is left alone.
        let room = origin("jinfu", "room");
        let (path, offset) = {
            let snapshot = Snapshot::open(&dir).unwrap();
            snapshot.place(&key(&room, "entry", 3)).unwrap()
        };
        let mut how = std::fs::File::options();
        let file = how.read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset + 90).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset + 90).unwrap();
        world.again(|| {
            let report = verify(&dir).unwrap();
            assert!(!report.ok);
            let places: Vec<_> = report.findings.iter().map(|f| f.offset).collect();
            assert!(places.contains(&Some(offset)), "{:#?}", report.findings);
            // What the byte was of is a finding of its ledger, too; nothing else is one.
            let of_room = |f: &&VerifyFinding| {
                f.offset == Some(offset) || f.origin.as_deref() == Some(room.as_str())
            };
            let others = report.findings.iter().filter(|f| !of_room(f)).count();
            assert_eq!(others, 0, "{:#?}", report.findings);
            assert!(!worker.is_finished(), "the node stopped working");
        });
    });
}
