//! Records that move between divisions: in exactly one count after every step and every crash, the
//! same field by field, with their history, and erased in both places at once.
//!
//! A district, its town with two communities, and a third community beside the town, all in this
//! process; the last journey is with real processes.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteArray;
use record::authority::{AuthorityEntry, Level, Role, Statement};
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{GrantId, RecordId, UnixMillis};
use record::transfer::{Acceptance, TransferAnswer, TransferWord};
use registry::RegistryError;
use registry::audit::changes::ChangesRequest;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::register::Amendment;
use registry::transfer::offer::TransferRequest;
use registry::transfer::{CUT_AT, STEPS, TransferState};
use store::{Batch, Snapshot, Store};
use tests::moved::{self, clean, clerk, count_at, entries, fields, total};
use tests::realm::forge;
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Row, Site, division, kind, origin, purpose, replicate, rows,
};
use tests::trio::has_all_of;

const PERSONS: u64 = 10;

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    old: Site,
    new: Site,
    far: Site,
    persons: Vec<Row>,
    now: Cell<UnixMillis>,
}

const NAMES: [&str; 5] = ["jiangjin", "shuangfu", "jinfu", "xianfeng", "degan"];

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, NAMES[0], NOW);
        let town = Site::join(&district, at, NAMES[1], Level::Town, NOW);
        let old = Site::join(&town, at, NAMES[2], Level::Community, NOW);
        let new = Site::join(&town, at, NAMES[3], Level::Community, NOW);
        let far = Site::join(&district, at, NAMES[4], Level::Community, NOW);
        for site in [&old, &new, &far] {
            site.operator(Role::Clerk, None, NOW);
            site.enrol("second", Role::SecurityOfficer, None, NOW);
        }
        let persons = rows("person", 7, PERSONS as usize, 1);
        old.import(&clerk(&old), "person", &persons, NOW);
        let one = rows("person", 9, 1, 2);
        new.import(&clerk(&new), "person", &one, NOW);
        far.import(&clerk(&far), "person", &rows("person", 11, 1, 3), NOW);
        let world = Self {
            base,
            district,
            town,
            old,
            new,
            far,
            persons,
            now: Cell::new(NOW),
        };
        world.replicate();
        world
    }

    fn now(&self) -> UnixMillis {
        self.now.get()
    }

    /// Sessions over every link until all rests; after each, every record is in exactly one count.
    fn settle(&self) {
        for _ in 0..8 {
            let before = self.heads();
            self.replicate();
            self.counted();
            for site in [&self.old, &self.new, &self.far] {
                site.registry.tend_transfers(self.now()).unwrap();
                self.counted();
                site.registry.tend_grants(self.now()).unwrap();
            }
            if self.heads() == before {
                return;
            }
        }
        panic!("the realm does not come to rest");
    }

    fn replicate(&self) {
        for _ in 0..3 {
            for (child, parent) in [
                (&self.old, &self.town),
                (&self.new, &self.town),
                (&self.town, &self.district),
                (&self.far, &self.district),
            ] {
                replicate(child, parent, self.now());
            }
        }
    }

    /// One session of one link at a time, with the count taken after each.
    fn one_by_one(&self) {
        for _ in 0..6 {
            for (child, parent) in [
                (&self.far, &self.district),
                (&self.old, &self.town),
                (&self.town, &self.district),
                (&self.new, &self.town),
            ] {
                replicate(child, parent, self.now());
                self.counted();
            }
        }
    }

    fn heads(&self) -> Vec<String> {
        let sites = [&self.district, &self.town, &self.old, &self.new, &self.far];
        let status = |site: &Site| {
            let status = site.registry.status().unwrap();
            serde_json::to_string(&status.ledgers).unwrap()
        };
        sites.map(status).into()
    }

    /// Every person is in exactly one count at the district, which aggregates all of them.
    #[track_caller]
    fn counted(&self) {
        assert_eq!(total(&self.district), PERSONS + 2, "{:?}", self.counts());
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let counts = self.district.registry.counts().unwrap();
        counts
            .into_iter()
            .map(|line| (line.origin.to_string(), line.records))
            .collect()
    }

    fn count_of(&self, name: &str) -> u64 {
        count_at(&self.district, name)
    }

    fn offer(&self, person: usize, to: &str) -> Result<GrantId, RegistryError> {
        let (record, _) = self.find(&self.old, person).unwrap();
        self.offer_record(record, to)
    }

    fn offer_record(&self, record: RecordId, to: &str) -> Result<GrantId, RegistryError> {
        let request = request(record, to);
        let old = &self.old.registry;
        old.offer_transfer(&clerk(&self.old), &request, self.now())
    }

    fn accept(&self, id: &GrantId) -> Result<RecordId, RegistryError> {
        let registry = &self.new.registry;
        let registered = registry.accept_transfer(&clerk(&self.new), id, self.now())?;
        Ok(registered.record)
    }

    fn find(&self, site: &Site, person: usize) -> Option<(RecordId, u64)> {
        let found = fields(site, &self.persons[person], self.now())?;
        Some((found.0, found.1))
    }

    fn state(&self, site: &Site, id: &GrantId) -> TransferState {
        site.registry.transfer(id, self.now()).unwrap().state
    }

    /// A person with three versions, replicated.
    fn amended(&self, person: usize) -> RecordId {
        let (record, version) = self.find(&self.old, person).unwrap();
        for (step, education) in [(0, "21"), (1, "31")] {
            let changes = [("education", education)];
            let clerk = clerk(&self.old);
            self.old
                .amend(&clerk, "person", record, version + step, &changes, NOW);
        }
        self.replicate();
        record
    }

    fn erase(&self, site: &Site, record: RecordId) -> Result<(), RegistryError> {
        let request = PlanRequest::Erase {
            kind: kind("person"),
            record,
            basis: "个人信息保护法 第四十七条".into(),
        };
        let line = site.registry.plan(&site.officer, &request, self.now())?;
        let plan = plan_id(&line.id).unwrap();
        let second = site.registry.login("second", PASSPHRASE, NOW).unwrap();
        site.registry.approve(&second, &plan, true, self.now())?;
        site.registry.run_plan(&site.officer, &plan, self.now())
    }

    /// Ends a node as if its process had been killed, and starts it again.
    fn again(mut self, name: &str) -> Self {
        let now = self.now();
        let site = match name {
            "jinfu" => &mut self.old,
            "xianfeng" => &mut self.new,
            _ => panic!("{name}"),
        };
        let dir = site.dir.clone();
        let placeholder = Site {
            dir: PathBuf::new(),
            registry: self.district.registry.clone(),
            officer: self
                .district
                .registry
                .login("anquan", PASSPHRASE, now)
                .unwrap(),
        };
        // Dropped, not closed: nothing is written on the way out.
        drop(std::mem::replace(site, placeholder));
        let opened = Site::open(&dir, now);
        match name {
            "jinfu" => self.old = opened,
            _ => self.new = opened,
        }
        self
    }

    /// Verifies every node from its bytes, and audits it.
    fn verified(self) {
        let now = self.now();
        let base = self.base;
        drop((self.old, self.new, self.far, self.town, self.district));
        for name in NAMES {
            clean(&base.path().join(name), now);
        }
    }
}

fn request(record: RecordId, to: &str) -> TransferRequest {
    TransferRequest {
        kind: kind("person"),
        record,
        to: division(to),
        basis: "迁移登记 2026-118".into(),
        days: 30,
    }
}

/// The list of changed fields of every version, which opens each of them.
fn changes(site: &Site, record: RecordId, now: UnixMillis) -> Vec<(u64, Option<Vec<String>>)> {
    let request = ChangesRequest {
        kind: kind("person"),
        record,
        purpose: purpose("registration"),
        basis: None,
    };
    let marked = site.registry.changes(&clerk(site), &request, now).unwrap();
    let versions = &marked.value().versions;
    versions
        .iter()
        .map(|version| (version.version, version.fields.clone()))
        .collect()
}

#[test]
fn a_record_moves_whole_and_counts_in_one_place_after_every_step() {
    let world = World::new();
    let record = world.amended(0);
    let (_, version, before) = fields(&world.old, &world.persons[0], NOW).unwrap();
    let history = changes(&world.old, record, NOW);
    assert_eq!(version, 3);
    world.counted();
    assert_eq!(world.count_of("jinfu"), PERSONS);

    let id = world.offer(0, "xianfeng").unwrap();
    world.counted();
    world.one_by_one();
    assert_eq!(world.state(&world.new, &id), TransferState::Offered);
    assert_eq!(world.count_of("jinfu"), PERSONS);
    assert_eq!(world.old.registry.transfer_counts().unwrap().outgoing, 1);
    assert_eq!(world.new.registry.transfer_counts().unwrap().incoming, 1);

    let moved = world.accept(&id).unwrap();
    world.counted();
    assert_eq!(world.state(&world.new, &id), TransferState::Arrived);
    assert_eq!(
        count_at(&world.new, "xianfeng"),
        1,
        "not cosigned, not counted"
    );
    world.one_by_one();
    world.settle();
    assert_eq!(world.count_of("jinfu"), PERSONS - 1);
    assert_eq!(world.count_of("xianfeng"), 2);
    for site in [&world.old, &world.new, &world.town, &world.district] {
        assert_eq!(world.state(site, &id), TransferState::Closed);
    }
    assert_eq!(count_at(&world.old, "jinfu"), PERSONS - 1);
    assert_eq!(count_at(&world.new, "xianfeng"), 2);
    assert_eq!(total(&world.town), PERSONS + 1);
    assert_eq!(world.old.registry.transfer_counts().unwrap().outgoing, 0);

    // Field by field the same, and every old version opens with what it changed.
    let (there, version, after) = fields(&world.new, &world.persons[0], NOW).unwrap();
    assert_eq!((there, version), (moved, 3));
    assert_eq!(after, before);
    assert_eq!(changes(&world.new, moved, NOW), history);
    assert!(fields(&world.old, &world.persons[0], NOW).is_none());

    // Anybody who holds both histories can compare them without a key.
    let old = entries(&world.town.dir, &origin("jinfu", "person"), record);
    let new = entries(&world.town.dir, &origin("xianfeng", "person"), moved);
    assert_eq!(old.len(), 4);
    assert_eq!(old[3].0.operation, Operation::TransferOut);
    assert!(
        new.iter()
            .all(|(e, _)| e.operation == Operation::TransferIn)
    );
    let contents = |all: &[(RecordEntry, bool)]| {
        let all = all.iter().map(|(e, _)| (e.version, e.content));
        all.collect::<Vec<_>>()
    };
    assert_eq!(contents(&old[..3]), contents(&new));
    let provenance = world.new.registry.provenance(&kind("person"), &moved);
    let provenance = provenance.unwrap().unwrap();
    assert_eq!((provenance.record, provenance.versions.len()), (record, 3));

    // What went with the offer is gone everywhere; the record lives on at its new owner.
    let ledger = origin("jinfu", "person").grant(&id);
    for site in [&world.old, &world.new, &world.town] {
        let store = Snapshot::open(&site.dir).unwrap();
        let left = forge::leaves(&store, &ledger).into_iter();
        let parcels = left.filter(|(entry, body)| entry.record().is_some() && body.is_some());
        assert_eq!(parcels.count(), 0, "{}", site.dir.display());
    }
    let clerk = clerk(&world.new);
    world
        .new
        .amend(&clerk, "person", moved, 3, &[("education", "41")], NOW);
    world.settle();
    world.verified();
}

#[test]
fn a_record_moves_to_a_community_under_another_parent_through_the_common_ancestor() {
    let world = World::new();
    let id = world.offer(1, "degan").unwrap();
    world.one_by_one();
    let far = &world.far.registry;
    far.accept_transfer(&clerk(&world.far), &id, NOW).unwrap();
    world.counted();
    world.one_by_one();
    world.settle();
    assert_eq!(world.state(&world.old, &id), TransferState::Closed);
    assert_eq!(total(&world.town), PERSONS);
    assert_eq!(world.count_of("degan"), 2);
    assert!(fields(&world.far, &world.persons[1], NOW).is_some());
    world.verified();
}

#[test]
fn offers_that_are_refused_withdrawn_or_past_their_time_end_and_the_record_stays() {
    let world = World::new();
    let refused = world.offer(0, "xianfeng").unwrap();
    let withdrawn = world.offer(1, "xianfeng").unwrap();
    let expired = world.offer(2, "xianfeng").unwrap();
    world.settle();
    let new = &world.new.registry;
    let reason = kind("not-ours");
    new.refuse_transfer(&clerk(&world.new), &refused, &reason, NOW)
        .unwrap();
    let old = &world.old.registry;
    old.withdraw_transfer(&clerk(&world.old), &withdrawn, NOW)
        .unwrap();
    assert_eq!(
        world.state(&world.old, &withdrawn),
        TransferState::Withdrawing
    );
    world.settle();
    for id in [&refused, &withdrawn] {
        assert_eq!(world.state(&world.old, id), TransferState::Refused);
    }
    assert_eq!(world.state(&world.old, &expired), TransferState::Offered);
    world.now.set(UnixMillis(NOW.0 + 31 * DAY));
    assert_eq!(world.state(&world.old, &expired), TransferState::Expired);
    let late = new.login("clerk", PASSPHRASE, world.now()).unwrap();
    assert!(new.accept_transfer(&late, &expired, world.now()).is_err());
    world.settle();
    let line = old.transfer(&expired, world.now()).unwrap();
    assert_eq!(line.state, TransferState::Refused);
    assert_eq!(line.reason, Some(kind("expired")));
    assert_eq!(old.transfer_counts().unwrap().outgoing, 0);
    assert_eq!(count_at(&world.district, "jinfu"), PERSONS);
    world.now.set(NOW);
    // What was not taken is the owner's to change, and to offer again.
    let (record, version) = world.find(&world.old, 0).unwrap();
    let changes = [("education", "21")];
    world
        .old
        .amend(&clerk(&world.old), "person", record, version, &changes, NOW);
}

/// How many entries the record of accesses at a node has.
fn accesses(site: &Site) -> u64 {
    let status = site.registry.status().unwrap();
    let access = origin(site.registry.config().division.as_str(), "access");
    let line = status.ledgers.iter().find(|line| line.origin == access);
    line.map_or(0, |line| line.size)
}

#[test]
fn receiving_that_says_who_is_registered_is_recorded_before_it_is_answered() {
    let world = World::new();
    // Registered at both, which neither can see of the other.
    let twin = [world.persons[0].clone()];
    world.new.import(&clerk(&world.new), "person", &twin, NOW);
    let known = world.offer(0, "xianfeng").unwrap();
    let unknown = world.offer(1, "xianfeng").unwrap();
    world.replicate();
    let before = accesses(&world.new);
    let refused = world.accept(&known).unwrap_err();
    let RegistryError::Invalid(violations) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(violations[0].field, "citizen_number");
    assert_eq!(accesses(&world.new), before + 2, "the answer and its act");
    assert_eq!(world.state(&world.new, &known), TransferState::Offered);
    // What tells nothing of anybody leaves nothing.
    world.accept(&unknown).unwrap();
    assert_eq!(accesses(&world.new), before + 2);
    world.verified();
}

#[test]
fn while_a_record_is_offered_nobody_changes_erases_or_offers_it_and_nobody_amends_what_left() {
    let world = World::new();
    let (record, version) = world.find(&world.old, 0).unwrap();
    let id = world.offer(0, "xianfeng").unwrap();
    let amendment = Amendment {
        kind: kind("person"),
        record,
        version,
        changes: BTreeMap::from([("education".into(), "21".into())]),
        close: false,
        reopen: false,
        purpose: purpose("correction"),
    };
    let old = &world.old.registry;
    let amend = || old.amend(&clerk(&world.old), &amendment, NOW).unwrap_err();
    assert_eq!(amend().code(), "bad-request");
    assert_eq!(world.offer(0, "degan").unwrap_err().code(), "bad-request");
    let erased = world.erase(&world.old, record).unwrap_err();
    assert_eq!(erased.code(), "bad-request", "{erased}");
    world.settle();
    let moved = world.accept(&id).unwrap();
    world.settle();
    let amendment = Amendment {
        version: version + 1,
        ..amendment.clone()
    };
    let error = old.amend(&clerk(&world.old), &amendment, NOW).unwrap_err();
    assert!(error.to_string().contains("xianfeng"), "{error}");
    assert_eq!(
        world.offer_record(record, "degan").unwrap_err().code(),
        "bad-request"
    );
    // It may come back, as another record, and then it is the old owner's again.
    let back = request(moved, "jinfu");
    let new = &world.new.registry;
    let id = new.offer_transfer(&clerk(&world.new), &back, NOW).unwrap();
    world.settle();
    let home = old.accept_transfer(&clerk(&world.old), &id, NOW).unwrap();
    world.settle();
    assert_ne!(home.record, record);
    assert_eq!(world.state(&world.new, &id), TransferState::Closed);
    assert_eq!(world.count_of("jinfu"), PERSONS);
    world.verified();
}

#[test]
fn an_erasure_at_the_new_owner_erases_at_the_old_one_too_with_receipts() {
    let world = World::new();
    let record = world.amended(0);
    let id = world.offer(0, "xianfeng").unwrap();
    world.settle();
    let moved = world.accept(&id).unwrap();
    world.settle();
    let shards = [
        (origin("jinfu", "person"), record),
        (origin("xianfeng", "person"), moved),
    ];
    world.erase(&world.new, moved).unwrap();
    world.replicate();
    world.replicate();
    for (shard, record) in &shards {
        for site in [&world.old, &world.new, &world.town, &world.district] {
            let all = entries(&site.dir, shard, *record);
            let holds = shard.division().as_str() == site.registry.config().division.as_str()
                || site.registry.config().level < Level::Community;
            if !holds {
                continue;
            }
            let (last, before) = all.split_last().unwrap();
            assert_eq!(last.0.operation, Operation::Erase, "{shard}");
            assert!(
                before.iter().all(|(_, here)| !here),
                "a body of `{shard}` is left"
            );
        }
    }
    let line = world.new.registry.transfer(&id, NOW).unwrap();
    assert!(line.erased && line.erased_at_old_owner);
    // The old owner's own parents signed for it as for any erasure.
    assert!(world.old.registry.destructions(NOW).unwrap().is_empty());
    assert_eq!(total(&world.district), PERSONS + 1);
    world.verified();
}

#[test]
fn a_transfer_that_is_cut_off_at_any_step_is_finished_and_never_counts_twice() {
    let mut world = World::new();
    for step in 1..=STEPS {
        // From here on the steps are those of an erasure.
        let to_erase = step >= 8;
        let before = total(&world.district);
        let all = |world: &World| {
            let counts = world.counts();
            assert_eq!(
                total(&world.district),
                before,
                "cut at step {step}: {counts:?}"
            );
        };
        let person = (0..world.persons.len())
            .find(|person| world.find(&world.old, *person).is_some())
            .unwrap();
        let (record, _) = world.find(&world.old, person).unwrap();
        CUT_AT.set(step);
        let offered = world.offer(person, "xianfeng");
        CUT_AT.set(0);
        let id = match offered {
            Ok(id) => id,
            Err(_) => {
                world = world.again("jinfu");
                all(&world);
                world.offer(person, "xianfeng").unwrap()
            }
        };
        all(&world);
        replicate_all(&world, &all);
        CUT_AT.set(step);
        let accepted = world.accept(&id);
        CUT_AT.set(0);
        if accepted.is_err() {
            world = world.again("xianfeng");
            all(&world);
            if world.state(&world.new, &id) == TransferState::Offered {
                world.accept(&id).unwrap();
            }
        }
        all(&world);
        CUT_AT.set(step);
        replicate_all(&world, &all);
        CUT_AT.set(0);
        world = world.again("xianfeng").again("jinfu");
        all(&world);
        replicate_all(&world, &all);
        assert_eq!(
            world.state(&world.old, &id),
            TransferState::Closed,
            "cut at {step}"
        );
        let (moved, _) = world.find(&world.new, person).unwrap();
        assert!(world.find(&world.old, person).is_none());
        let new = entries(&world.new.dir, &origin("xianfeng", "person"), moved);
        assert_eq!(new.len(), 1, "cut at {step}: it was registered once");
        let old = entries(&world.old.dir, &origin("jinfu", "person"), record);
        let out = old
            .iter()
            .filter(|(e, _)| e.operation == Operation::TransferOut);
        assert_eq!(out.count(), 1, "cut at {step}: it was closed once");
        if to_erase {
            CUT_AT.set(step);
            let _ = world.erase(&world.new, moved);
            world.replicate();
            CUT_AT.set(0);
            world = world.again("xianfeng").again("jinfu");
            for _ in 0..3 {
                world.replicate();
            }
            let old = entries(&world.old.dir, &origin("jinfu", "person"), record);
            let erased = old.iter().filter(|(e, _)| e.operation == Operation::Erase);
            assert_eq!(erased.count(), 1, "cut at {step}");
            let line = world.new.registry.transfer(&id, NOW).unwrap();
            assert!(line.erased_at_old_owner, "cut at {step}");
            assert_eq!(total(&world.district), before - 1, "cut at {step}");
        }
    }
    world.verified();
}

fn replicate_all(world: &World, check: &dyn Fn(&World)) {
    for _ in 0..2 {
        for (child, parent) in [
            (&world.old, &world.town),
            (&world.town, &world.district),
            (&world.new, &world.town),
        ] {
            replicate(child, parent, NOW);
            check(world);
        }
    }
}

#[test]
fn an_offer_is_accepted_once_by_the_node_that_it_is_for_and_an_erased_record_is_not_offered() {
    let world = World::new();
    let (record, _) = world.find(&world.old, 3).unwrap();
    world.erase(&world.old, record).unwrap();
    world.replicate();
    assert_eq!(
        world.offer_record(record, "xianfeng").unwrap_err().code(),
        "not-found"
    );
    let before = total(&world.district);

    let id = world.offer(0, "xianfeng").unwrap();
    world.replicate();
    // Whoever has to do with it is told for whom it is; nobody else hears of it at all.
    for (site, code, words) in [
        (&world.old, "bad-request", "xianfeng"),
        (&world.far, "not-found", "transfer"),
    ] {
        let accepted = site.registry.accept_transfer(&clerk(site), &id, NOW);
        let other = accepted.unwrap_err();
        assert_eq!(other.code(), code, "{other}");
        assert!(other.to_string().contains(words), "{other}");
    }
    world.accept(&id).unwrap();
    let twice = world.accept(&id).unwrap_err();
    assert_eq!(twice.code(), "bad-request", "{twice}");
    world.replicate();
    world.replicate();
    assert_eq!(world.state(&world.old, &id), TransferState::Closed);
    assert!(world.accept(&id).is_err());
    assert_eq!(total(&world.district), before);
    let officer = &world.old.officer;
    let request = request(world.find(&world.old, 1).unwrap().0, "xianfeng");
    let denied = world.old.registry.offer_transfer(officer, &request, NOW);
    assert_eq!(denied.unwrap_err().code(), "denied");
    world.verified();
}

/// The same, as a node states what has no body.
fn state(dir: &Path, name: &str, statement: Statement) {
    let at = moved::state(dir, name, statement);
    let authority = origin(name, "authority");
    let store = forge::open_store(dir);
    let mut batch = Batch::new(authority.as_str(), None);
    batch.delete(forge::key(&authority, registry::table::BODY, at));
    store.commit(&batch).unwrap();
}

#[test]
fn a_forged_acceptance_moves_nothing_whoever_states_it() {
    let world = World::new();
    let genuine = world.offer(0, "xianfeng").unwrap();
    let id = world.offer(1, "xianfeng").unwrap();
    world.replicate();
    world.accept(&genuine).unwrap();
    world.settle();
    let before = world.counts();

    // The new owner itself claims the entry of the other record; another community claims one, too.
    let acceptance = {
        let store = Snapshot::open(&world.new.dir).unwrap();
        let stated = forge::leaves(&store, &origin("xianfeng", "authority"));
        let mut answers = stated.into_iter().filter_map(|(entry, _)| match entry {
            Entry::Authority(AuthorityEntry {
                statement: Statement::TransferAnswer(answer),
                ..
            }) => Some(answer),
            _ => None,
        });
        match answers.next().unwrap().word {
            TransferWord::Accepted(acceptance) => acceptance,
            TransferWord::Refused { .. } => panic!("it was accepted"),
        }
    };
    let claim = |acceptance: Acceptance| {
        Statement::TransferAnswer(TransferAnswer {
            transfer: id,
            origin: origin("jinfu", "person"),
            word: TransferWord::Accepted(acceptance),
        })
    };
    // Another place in the tree: the proof does not lead there.
    let mut elsewhere = acceptance.clone();
    elsewhere.index += 1;
    elsewhere.proof.push(ByteArray::from([0; 32]));
    let World {
        base,
        district,
        town,
        old,
        new,
        far,
        persons,
        now,
    } = world;
    let (new, far) = (new.close(), far.close());
    state(&far, "degan", claim(acceptance.clone()));
    state(&new, "xianfeng", claim(elsewhere));
    state(&new, "xianfeng", claim(acceptance));
    let world = World {
        base,
        district,
        town,
        old,
        new: Site::open(&new, NOW),
        far: Site::open(&far, NOW),
        persons,
        now,
    };
    world.replicate();
    for site in [&world.old, &world.town, &world.district] {
        assert_eq!(world.state(site, &id), TransferState::Offered);
    }
    let alarms = world.old.registry.alarms().unwrap();
    assert!(alarms.iter().any(|alarm| alarm.code == "transfer"));
    assert_eq!(world.counts(), before);
    assert!(fields(&world.old, &world.persons[1], NOW).is_some());
    assert_eq!(world.state(&world.old, &genuine), TransferState::Closed);
}

#[test]
fn a_record_that_left_stays_gone_after_a_rotation_and_a_lost_index_and_its_history_rotates_on() {
    let world = World::new();
    let record = world.amended(0);
    let id = world.offer(0, "xianfeng").unwrap();
    world.settle();
    let moved = world.accept(&id).unwrap();
    world.settle();
    let before = fields(&world.new, &world.persons[0], NOW).unwrap();
    let history = changes(&world.new, moved, NOW);
    for site in [&world.old, &world.new] {
        let request = PlanRequest::RotateEpoch {
            kind: kind("person"),
            compromised: false,
        };
        let registry = &site.registry;
        let line = registry.plan(&site.officer, &request, NOW).unwrap();
        let plan = plan_id(&line.id).unwrap();
        let second = registry.login("second", PASSPHRASE, NOW).unwrap();
        registry.approve(&second, &plan, true, NOW).unwrap();
        registry.run_plan(&site.officer, &plan, NOW).unwrap();
        while registry.reseal_step(NOW).unwrap() {}
        let retire = PlanRequest::RetireEpoch {
            kind: kind("person"),
            epoch: 1,
        };
        let line = registry.plan(&site.officer, &retire, NOW).unwrap();
        let plan = plan_id(&line.id).unwrap();
        registry.approve(&second, &plan, true, NOW).unwrap();
        registry.run_plan(&site.officer, &plan, NOW).unwrap();
    }
    world.settle();
    for dir in [&world.old.dir, &world.new.dir] {
        let _ = std::fs::remove_dir_all(dir.join("working-index"));
    }
    let world = world.again("jinfu").again("xianfeng");
    assert!(fields(&world.old, &world.persons[0], NOW).is_none());
    assert_eq!(fields(&world.new, &world.persons[0], NOW).unwrap(), before);
    assert_eq!(changes(&world.new, moved, NOW), history);
    assert_eq!(count_at(&world.old, "jinfu"), PERSONS - 1);
    assert!(
        world
            .old
            .registry
            .refuse_transfer(&clerk(&world.old), &id, &kind("x"), NOW)
            .is_err()
    );
    let amended = world.offer_record(record, "degan");
    assert_eq!(amended.unwrap_err().code(), "bad-request");
    world.verified();
}

/// The transfer of a node's list with this id, by the node itself.
fn line(node: &tests::Running, id: &str) -> serde_json::Value {
    let token = node.http.login("dengji");
    let path = format!("/api/v1/transfers/{id}");
    let answer = node.http.get(&path, Some(&token));
    match answer.status {
        200 => answer.json(),
        _ => serde_json::Value::Null,
    }
}

/// How many persons count in each shard, at a node.
fn count(node: &tests::Running) -> u64 {
    let token = node.http.login("anquan");
    let counts = node.http.get("/api/v1/counts", Some(&token));
    let counts = counts.expect_status(200).json();
    let lines = counts.as_array().unwrap().iter();
    lines.map(|line| line["records"].as_u64().unwrap()).sum()
}

/// Two communities under a town, each a process, killed at every stage of a transfer.
#[test]
fn running_nodes_move_a_record_and_go_on_after_kills() {
    use tests::{Site, rows, until};

    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let town = Site::root(base, "shuangfu", "town").start();
    let join = |name: &str| {
        let site = Site::join(base, &town, name, "community");
        site.enrol("dengji", "clerk", None);
        site.enrol("second", "security-officer", None);
        site.start()
    };
    let again = |node: tests::Running| {
        let site = node.site.clone();
        node.kill_9();
        site.start()
    };
    let (old, new) = (join("jinfu"), join("xianfeng"));
    let community = rows::community(3, 12);
    let file = rows::write(&community.persons, &base.join("person.csv"));
    old.site.json(["import", "person", file.to_str().unwrap()]);
    let there = || {
        let status = old.http.status();
        let ledgers = status["ledgers"].as_array().unwrap().clone();
        let persons = ledgers
            .iter()
            .find(|l| l["origin"] == "journey.example/jinfu/person");
        persons.is_some_and(|l| l["cosigned"] == l["size"])
            && has_all_of("shuangfu/authority", &old, &town)
    };
    until("the town has cosigned the persons", there);
    let persons = count(&town);
    let token = old.http.login("dengji");
    let body = serde_json::json!({ "kind": "person", "purpose": "registration", "limit": 1 });
    let read = old
        .http
        .post("/api/v1/read", Some(&token), &body)
        .expect_status(200);
    let row = read.json()["value"]["rows"][0].clone();
    let record = row["record"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", read.text()))
        .to_owned();

    let offered = old.site.json([
        "transfer",
        "offer",
        &record,
        "--kind",
        "person",
        "--to",
        "xianfeng",
        "--basis",
        "迁移登记 2026-118",
    ]);
    let id = offered["transfer"].as_str().unwrap().to_owned();
    let old = again(old);
    assert_eq!(count(&town), persons);
    until("the offer reaches the new owner", || {
        line(&new, &id)["state"] == "offered"
    });
    let new = again(new);
    let mut accepted = serde_json::Value::Null;
    until("what was offered came whole, and is accepted", || {
        let token = new.http.login("dengji");
        let path = format!("/api/v1/transfers/{id}/accepted");
        let answer = new.http.post(&path, Some(&token), &serde_json::json!({}));
        assert_eq!(count(&town), persons);
        if answer.status == 200 {
            accepted = answer.json();
        }
        answer.status == 200
    });
    let new = again(new);
    let old = again(old);
    until("the old owner closes", || {
        assert_eq!(count(&town), persons);
        line(&old, &id)["state"] == "closed"
    });
    until("all is at rest", || {
        count(&town) == persons && line(&new, &id)["state"] == "closed"
    });
    let token = new.http.login("dengji");
    let there = new
        .http
        .post("/api/v1/read", Some(&token), &body)
        .expect_status(200);
    let moved = there.json()["value"]["rows"][0].clone();
    assert_eq!(moved["record"], accepted["record"]);
    assert_eq!(moved["fields"], row["fields"], "field by field");
    let shown = new.site.json(["transfer", "show", &id, "--as", "dengji"]);
    assert_eq!(shown["new_record"], accepted["record"]);
    let list = old.site.json(["transfer", "list", "--as", "dengji"]);
    assert_eq!(list["transfers"].as_array().unwrap().len(), 1);
    let values = new.http.get("/metrics", None).expect_status(200).text();
    assert!(values.contains("fangzhi_transfers_open{is=\"incoming\"} 0"));

    // Erased at the new owner, it is erased at the old one.
    let record = accepted["record"].as_str().unwrap();
    let plan = new.site.json([
        "erase", record, "--kind", "person", "--basis", "PIPL 47", "--as", "anquan",
    ]);
    let plan = plan["id"].as_str().unwrap().to_owned();
    new.site.json(["keys", "approve", &plan, "--as", "second"]);
    new.site.json(["keys", "run", &plan, "--as", "anquan"]);
    let new = again(new);
    until("the old owner has signed its receipt", || {
        line(&new, &id)["erased_at_old_owner"] == true
    });
    until("it counts nowhere any more", || count(&town) == persons - 1);
    let sites = [old.site.clone(), new.site.clone(), town.site.clone()];
    for node in [old, new, town] {
        node.stop();
    }
    let now = UnixMillis(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
    );
    for site in &sites {
        site.verified();
        clean(&site.dir, now);
    }
}
