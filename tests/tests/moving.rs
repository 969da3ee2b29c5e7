//! Shards that move: split, merged, given to a first node; each record in exactly one count after
//! every step and every crash; and closings that do not hold.
//!
//! A district, its town with two communities, all in this process; the last journeys are with real
//! processes.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ledger::hash::leaf_hash;
use record::authority::{AuthorityEntry, Level, Role, Statement};
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::moving::{BatchAcceptance, BatchAnswer, Moving, ShardClosed};
use record::plan::ClassTerm;
use registry::RegistryError;
use registry::audit::history::history;
use registry::audit::missing::{SiteSide, Why, missing};
use registry::audit::realm::audit;
use registry::audit::view::View;
use registry::moving::MoveRequest;
use registry::moving::show::{MovingLine, MovingState};
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::register::{Amendment, IMPORT_ROWS, ImportChunk};
use registry::transfer::CUT_AT;
use registry::transfer::offer::TransferRequest;
use store::{Snapshot, Store};
use tests::moved::{clean, clerk, count_at, entries, fields, state, total};
use tests::realm::forge::{self, keystore};
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Row, Site, division, kind, origin, purpose, replicate, rows,
};

/// The steps at which a move of a shard can be cut off.
const STEPS: std::ops::RangeInclusive<u32> = 21..=30;
const NAMES: [&str; 4] = ["jiangjin", "shuangfu", "jinfu", "xianfeng"];

/// Persons of the old community, in two grids.
const FIRST_GRID: usize = 9;
const SECOND_GRID: usize = 6;
/// Persons of the new one.
const THERE: usize = 2;
/// Past every term.
const LONG_AGO: UnixMillis = UnixMillis(NOW.0 - 11 * 366 * DAY);
const ALL: u64 = (FIRST_GRID + SECOND_GRID + THERE) as u64;

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    old: Site,
    new: Site,
    persons: Vec<Row>,
    now: Cell<UnixMillis>,
    /// How many records count; nothing while that changes.
    all: Cell<Option<u64>>,
}

fn operators(site: &Site) {
    site.operator(Role::Clerk, None, NOW);
    site.enrol("second", Role::SecurityOfficer, None, NOW);
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, NAMES[0], NOW);
        let town = Site::join(&district, at, NAMES[1], Level::Town, NOW);
        let old = Site::join(&town, at, NAMES[2], Level::Community, NOW);
        let new = Site::join(&town, at, NAMES[3], Level::Community, NOW);
        for site in [&town, &old, &new] {
            operators(site);
        }
        let mut persons = rows("person", 7, FIRST_GRID, 1);
        persons.truncate(FIRST_GRID);
        old.import(&clerk(&old), "person", &persons, NOW);
        let mut others = rows("person", 8, SECOND_GRID, 2);
        others.truncate(SECOND_GRID);
        import_more(&old, &others, "others");
        persons.extend(others);
        let mut there = rows("person", 9, THERE, 3);
        there.truncate(THERE);
        new.import(&clerk(&new), "person", &there, NOW);
        let world = Self {
            base,
            district,
            town,
            old,
            new,
            persons,
            now: Cell::new(NOW),
            all: Cell::new(None),
        };
        world.settle_to(ALL);
        world
    }

    fn now(&self) -> UnixMillis {
        self.now.get()
    }

    fn sites(&self) -> [&Site; 4] {
        [&self.district, &self.town, &self.old, &self.new]
    }

    fn links(&self) -> [(&Site, &Site); 3] {
        [
            (&self.old, &self.town),
            (&self.new, &self.town),
            (&self.town, &self.district),
        ]
    }

    /// Sessions over every link and what nodes do in the background, until all rests; after each,
    /// every record is in exactly one count.
    fn settle(&self) {
        for _ in 0..30 {
            let before = self.heads();
            self.round();
            if self.heads() == before {
                return;
            }
        }
        panic!("the realm does not come to rest");
    }

    /// The same where records were registered, closed or erased: so many count when all rests.
    #[track_caller]
    fn settle_to(&self, all: u64) {
        self.all.set(None);
        self.settle();
        self.all.set(Some(all));
        self.counted();
    }

    fn round(&self) {
        for _ in 0..3 {
            for (child, parent) in self.links() {
                replicate(child, parent, self.now());
                self.counted();
            }
        }
        for site in self.sites() {
            // As a running node does, and as there a failure is no end of it.
            let _ = site.registry.tend_transfers(self.now());
            self.counted();
            while site.registry.moving_step(self.now()).unwrap_or(false) {
                self.counted();
            }
            let _ = site.registry.tend_grants(self.now());
        }
    }

    fn heads(&self) -> Vec<String> {
        let status = |site: &Site| {
            let status = site.registry.status().unwrap();
            serde_json::to_string(&status.ledgers).unwrap()
        };
        self.sites().map(status).into()
    }

    #[track_caller]
    fn counted(&self) {
        if let Some(all) = self.all.get() {
            assert_eq!(total(&self.district), all, "{:?}", self.counts());
        }
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

    fn grid(&self, person: usize) -> String {
        self.persons[person]["grid"].clone()
    }

    /// A plan of the old owner, approved and run.
    fn planned(&self, grids: &[String], close: bool) -> Hash {
        planned(&self.old, &move_to("xianfeng", grids, close), self.now())
    }

    /// The new owner's officers agree.
    fn agreed(&self, plan: &Hash) -> Hash {
        for (child, parent) in self.links() {
            replicate(child, parent, self.now());
            replicate(&self.new, &self.town, self.now());
        }
        planned(&self.new, &receive(plan), self.now())
    }

    fn line(&self, plan: &Hash) -> MovingLine {
        self.old.registry.moving(plan, self.now()).unwrap()
    }

    fn find(&self, site: &Site, person: usize) -> Option<RecordId> {
        fields(site, &self.persons[person], self.now()).map(|found| found.0)
    }

    /// Ends a node as if its process had been killed, and starts it again.
    fn again(mut self, name: &str) -> Self {
        let now = self.now();
        let placeholder = Site {
            dir: PathBuf::new(),
            registry: self.district.registry.clone(),
            officer: self
                .district
                .registry
                .login("anquan", PASSPHRASE, now)
                .unwrap(),
        };
        let site = match name {
            "jinfu" => &mut self.old,
            "xianfeng" => &mut self.new,
            _ => panic!("{name}"),
        };
        let dir = site.dir.clone();
        // Dropped, not closed: nothing is written on the way out.
        drop(std::mem::replace(site, placeholder));
        let opened = Site::open(&dir, now);
        match name {
            "jinfu" => self.old = opened,
            _ => self.new = opened,
        }
        self
    }

    /// Closes a node, changes its directory, and opens it again.
    fn altered(mut self, name: &str, change: impl FnOnce(&Path)) -> Self {
        self = self.again(name);
        let dir = match name {
            "jinfu" => self.old.dir.clone(),
            _ => self.new.dir.clone(),
        };
        let now = self.now();
        let placeholder = Site {
            dir: PathBuf::new(),
            registry: self.district.registry.clone(),
            officer: self
                .district
                .registry
                .login("anquan", PASSPHRASE, now)
                .unwrap(),
        };
        match name {
            "jinfu" => drop(std::mem::replace(&mut self.old, placeholder)),
            _ => drop(std::mem::replace(&mut self.new, placeholder)),
        }
        change(&dir);
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
        drop((self.old, self.new, self.town, self.district));
        for name in NAMES {
            clean(&base.path().join(name), now);
        }
    }
}

fn import_more(site: &Site, rows: &[Row], source: &str) {
    assert!(rows.len() <= IMPORT_ROWS);
    let chunk = ImportChunk {
        kind: kind("person"),
        source: data_encoding::HEXLOWER.encode(&<[u8; 32]>::from(
            <sha2::Sha256 as sha2::Digest>::digest(source),
        )),
        numbers: (1..=rows.len() as u64).collect(),
        rows: rows.to_vec(),
        dry_run: false,
    };
    let report = site.registry.import(&clerk(site), &chunk, NOW).unwrap();
    assert_eq!(
        report.accepted,
        rows.len() as u64,
        "{:?}",
        report.violations
    );
}

fn move_to(to: &str, grids: &[String], close: bool) -> PlanRequest {
    PlanRequest::MoveShard(MoveRequest {
        kind: kind("person"),
        to: division(to),
        grids: grids.to_vec(),
        rows: BTreeMap::new(),
        close,
        basis: "区划调整 2026-3".into(),
    })
}

fn receive(plan: &Hash) -> PlanRequest {
    PlanRequest::ReceiveShard {
        plan: data_encoding::HEXLOWER.encode(plan),
    }
}

/// A plan that another officer approved, and that was run.
fn planned(site: &Site, request: &PlanRequest, now: UnixMillis) -> Hash {
    let line = site.registry.plan(&site.officer, request, now).unwrap();
    let plan = plan_id(&line.id).unwrap();
    let early = site.registry.run_plan(&site.officer, &plan, now);
    assert_eq!(early.unwrap_err().code(), "not-approved");
    let second = site.registry.login("second", PASSPHRASE, NOW).unwrap();
    site.registry.approve(&second, &plan, true, now).unwrap();
    site.registry.run_plan(&site.officer, &plan, now).unwrap();
    plan
}

fn erase(site: &Site, record: RecordId) {
    let request = PlanRequest::Erase {
        kind: kind("person"),
        record,
        basis: "个人信息保护法 第四十七条".into(),
    };
    planned(site, &request, NOW);
}

/// Puts a record out of force.
fn close(site: &Site, record: RecordId, version: u64, at: UnixMillis) {
    let mut out = amendment(record, version);
    out.changes.clear();
    out.close = true;
    site.registry.amend(&clerk(site), &out, at).unwrap();
}

/// And into force again.
fn reopening(record: RecordId, version: u64) -> Amendment {
    Amendment {
        changes: BTreeMap::new(),
        reopen: true,
        ..amendment(record, version)
    }
}

fn amendment(record: RecordId, version: u64) -> Amendment {
    Amendment {
        kind: kind("person"),
        record,
        version,
        changes: BTreeMap::from([("education".into(), "21".into())]),
        close: false,
        reopen: false,
        purpose: purpose("correction"),
    }
}

#[test]
fn a_grid_in_which_nobody_is_makes_no_plan_and_those_that_are_there_are_named() {
    let world = World::new();
    let wanted = [world.grid(0), "G-none".into()];
    let request = move_to("xianfeng", &wanted, false);
    let old = &world.old;
    let refused = old.registry.plan(&old.officer, &request, NOW);
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), "bad-request");
    let told = refused.to_string();
    let (chinese, english) = told.split_once(" / ").unwrap();
    assert!(chinese.contains("`G-none`"), "{told}");
    assert!(english.contains("in the grid `G-none`"), "{told}");
    for person in [0, FIRST_GRID] {
        assert!(english.contains(&world.grid(person)), "{told}");
    }
}

#[test]
fn a_split_moves_the_records_of_its_grid_whole_and_leaves_the_others() {
    let world = World::new();
    assert_ne!(world.grid(0), world.grid(FIRST_GRID));
    // One of them has a history.
    let (record, version, _) = fields(&world.old, &world.persons[0], NOW).unwrap();
    let old = &world.old.registry;
    old.amend(&clerk(&world.old), &amendment(record, version), NOW)
        .unwrap();
    world.settle();
    let before: Vec<_> = (0..FIRST_GRID)
        .map(|person| fields(&world.old, &world.persons[person], NOW).unwrap())
        .collect();
    let plan = world.planned(&[world.grid(0)], false);
    let figures = old.plan_line(&plan, NOW).unwrap().figures;
    let figure = |name: &str| {
        let of = figures.iter().find(|figure| figure.name.as_str() == name);
        of.unwrap().count
    };
    assert_eq!(figure("records"), FIRST_GRID as u64);
    assert_eq!(figure("versions"), FIRST_GRID as u64 + 1);
    assert_eq!(figure("unmovable"), 0);
    assert!(figure("bytes") > 1000);

    // Nothing is offered before the new owner's officers agree.
    world.settle();
    assert_eq!(world.line(&plan).state, MovingState::WaitsForReceiver);
    assert_eq!(world.line(&plan).under_way, 0);
    let old = &world.old.registry;
    old.amend(&clerk(&world.old), &amendment(record, 2), NOW)
        .unwrap();

    world.agreed(&plan);
    world.settle();
    for site in world.sites() {
        let line = site.registry.moving(&plan, NOW).unwrap();
        assert_eq!(line.state, MovingState::Done, "{}", site.dir.display());
        assert_eq!(
            (line.total, line.done),
            (FIRST_GRID as u64, FIRST_GRID as u64)
        );
        assert_eq!((line.under_way, line.failed, line.eta), (0, 0, None));
    }
    assert_eq!(world.count_of("jinfu"), SECOND_GRID as u64);
    assert_eq!(world.count_of("xianfeng"), (FIRST_GRID + THERE) as u64);
    for (person, (was, version, values)) in before.iter().enumerate() {
        let (is, at, there) = fields(&world.new, &world.persons[person], NOW).unwrap();
        assert_ne!(is, *was);
        if person > 0 {
            assert_eq!((&there, at), (values, *version), "field by field");
        } else {
            assert_eq!(at, 3, "every version came");
        }
        assert!(world.find(&world.old, person).is_none());
        let old = entries(&world.town.dir, &origin("jinfu", "person"), *was);
        let new = entries(&world.town.dir, &origin("xianfeng", "person"), is);
        let contents = |all: &[(RecordEntry, bool)]| {
            let all = all.iter().map(|(e, _)| (e.version, e.content));
            all.collect::<Vec<_>>()
        };
        assert_eq!(contents(&old[..old.len() - 1]), contents(&new));
        assert_eq!(old.last().unwrap().0.operation, Operation::TransferOut);
        let provenance = world.new.registry.provenance(&kind("person"), &is);
        assert_eq!(provenance.unwrap().unwrap().record, *was);
    }
    for person in FIRST_GRID..FIRST_GRID + SECOND_GRID {
        assert!(world.find(&world.old, person).is_some());
    }
    // What went with the batch is gone everywhere.
    for site in world.sites() {
        let store = Snapshot::open(&site.dir).unwrap();
        let grants = store.shards().unwrap();
        for ledger in grants.iter().filter(|name| name.contains("/grant/")) {
            let ledger = Origin::parse(ledger).unwrap();
            let left = forge::leaves(&store, &ledger).into_iter();
            let parcels = left.filter(|(entry, body)| entry.record().is_some() && body.is_some());
            assert_eq!(parcels.count(), 0, "{}", site.dir.display());
        }
    }
    assert!(world.old.registry.alarms().unwrap().is_empty());
    world.verified();
}

#[test]
fn a_merged_shard_closes_when_it_is_empty_refuses_registrations_and_names_who_follows() {
    let world = World::new();
    // One is out of force: it goes, too.
    let last = FIRST_GRID + SECOND_GRID - 1;
    let (closed, version, _) = fields(&world.old, &world.persons[last], NOW).unwrap();
    close(&world.old, closed, version, NOW);
    world.settle_to(ALL - 1);
    let record = world.find(&world.old, 0).unwrap();
    let plan = world.planned(&[], true);
    let (old, new) = (&world.old.registry, &world.new.registry);
    assert!(old.closed_shards().is_empty());
    world.agreed(&plan);
    world.settle();
    assert_eq!(world.count_of("jinfu"), 0);
    assert_eq!(world.count_of("xianfeng"), ALL - 1);
    let shard = origin("jinfu", "person");
    for site in world.sites() {
        let line = site.registry.moving(&plan, NOW).unwrap();
        assert_eq!(line.state, MovingState::Closed, "{}", site.dir.display());
        let status = site.registry.status().unwrap();
        assert_eq!(status.closed.len(), 1);
        assert_eq!(status.closed[0].origin, shard);
        assert_eq!(status.closed[0].successors, [origin("xianfeng", "person")]);
        assert!(site.registry.alarms().unwrap().is_empty());
    }

    // Writing there is refused, and who follows is named.
    let more = rows("person", 21, 1, 4);
    let chunk = ImportChunk {
        kind: kind("person"),
        source: "00".repeat(32),
        numbers: vec![1],
        rows: more[..1].to_vec(),
        dry_run: false,
    };
    let back = TransferRequest {
        kind: kind("person"),
        record: world.find(&world.new, 0).unwrap(),
        to: division("jinfu"),
        basis: "x".into(),
        days: 30,
    };
    let id = new.offer_transfer(&clerk(&world.new), &back, NOW).unwrap();
    world.settle();
    let who = clerk(&world.old);
    for error in [
        old.import(&who, &chunk, NOW).unwrap_err(),
        old.accept_transfer(&who, &id, NOW).unwrap_err(),
        old.plan(&world.old.officer, &move_to("xianfeng", &[], false), NOW)
            .unwrap_err(),
    ] {
        let words = error.to_string();
        assert!(
            words.contains("jiangjin.example/xianfeng/person"),
            "{words}"
        );
    }
    let again = old.amend(&who, &reopening(closed, version + 2), NOW);
    assert!(again.unwrap_err().to_string().contains("xianfeng"));
    let reason = kind("closed");
    old.refuse_transfer(&who, &id, &reason, NOW).unwrap();
    world.settle();

    // An erasure there runs here, too, also of what is out of force.
    let gone = world.find(&world.new, last).unwrap();
    erase(&world.new, gone);
    let there = world.find(&world.new, 0).unwrap();
    erase(&world.new, there);
    world.settle_to(ALL - 2);
    for record in [record, closed] {
        let last = entries(&world.old.dir, &shard, record);
        assert_eq!(last.last().unwrap().0.operation, Operation::Erase);
    }
    for site in world.sites() {
        assert!(site.registry.alarms().unwrap().is_empty());
    }
    // Its history is followed under the name that it has in the successor, either way.
    let view = View::open(&world.town.dir).unwrap();
    for name in [record, there] {
        let lines = history(&view, &name, None).unwrap();
        let of = |shard: &Origin| {
            let of = lines.iter().filter(|line| line.ledger == *shard);
            of.map(|line| line.operation).collect::<Vec<_>>()
        };
        assert_eq!(of(&shard), ["register", "transfer-out", "erase"]);
        assert_eq!(of(&origin("xianfeng", "person")), ["transfer-in", "erase"]);
    }
    // An export that lacks it is explained by its successor, where that is.
    let lacking = |ledgers: &[&Origin]| SiteSide {
        ledgers: ledgers.iter().map(ToString::to_string).collect(),
        ..SiteSide::default()
    };
    let successors = vec![origin("xianfeng", "person")];
    for (there, why) in [
        (
            &successors[0],
            Why::Moved {
                successors: successors.clone(),
            },
        ),
        (&origin("xianfeng", "room"), Why::Unexplained),
    ] {
        let found = missing(&lacking(&[&shard, there]), &lacking(&[there]), Some(&view));
        assert_eq!((found.len(), &found[0].why), (1, &why));
        assert_eq!(found[0].explained, why != Why::Unexplained);
    }
    let report = audit(&world.town.dir, NOW).unwrap();
    let noted = report.findings.iter().find(|f| f.code == "shard-closed");
    assert!(
        noted
            .unwrap()
            .en
            .contains("jiangjin.example/xianfeng/person")
    );
    world.verified();
}

/// A person of the second grid is out of force for so long, past the term of its phone number, which
/// is destroyed; another one is, since today, and what they were.
fn closed_and_redacted(world: &World) -> [(RecordId, BTreeMap<String, String>); 2] {
    let (redacted, closed) = (FIRST_GRID, FIRST_GRID + 1);
    let find = |person: usize| fields(&world.old, &world.persons[person], NOW).unwrap();
    let (first, version, _) = find(redacted);
    let amended =
        world
            .old
            .registry
            .amend(&clerk(&world.old), &amendment(first, version), LONG_AGO);
    close(&world.old, first, amended.unwrap().version, LONG_AGO);
    let (second, version, _) = find(closed);
    close(&world.old, second, version, NOW);
    world.settle_to(ALL - 2);
    let class = ClassTerm {
        kind: kind("person"),
        group: kind("contact"),
        days: 365,
    };
    let order = PlanRequest::Fields {
        classes: vec![class],
        days: 30,
    };
    planned(&world.old, &order, NOW);
    let registry = &world.old.registry;
    registry.run_retention(&world.old.officer, NOW).unwrap();
    world.settle();
    assert!(registry.destructions(NOW).unwrap().is_empty());
    [redacted, closed].map(|person| {
        let (record, _, values) = find(person);
        assert_eq!(values.contains_key("phone"), person == closed);
        (record, values)
    })
}

#[test]
fn closed_and_redacted_records_move_with_their_shard_field_by_field_and_stay_out_of_force() {
    let world = World::new();
    let [redacted, closed] = closed_and_redacted(&world);
    let retention = |site: &Site| {
        let lines = site.registry.retention(NOW).unwrap();
        let of = lines.into_iter().find(|line| line.kind == kind("person"));
        let of = of.unwrap();
        (of.closed, of.due)
    };
    assert_eq!(retention(&world.old), (2, 1));
    let plan = world.planned(&[], true);
    let figures = world.old.registry.plan_line(&plan, NOW).unwrap().figures;
    let figure = |name: &str| {
        let of = figures.iter().find(|figure| figure.name.as_str() == name);
        of.unwrap().count
    };
    let all = (FIRST_GRID + SECOND_GRID) as u64;
    let said = ["records", "closed", "unmovable"].map(figure);
    assert_eq!(said, [all, 2, 0]);
    world.agreed(&plan);
    world.settle();
    let line = world.line(&plan);
    assert_eq!(line.state, MovingState::Closed, "{line:?}");
    assert_eq!((line.total, line.done, line.failed), (all, all, 0));
    assert_eq!(world.count_of("jinfu"), 0);
    assert_eq!(world.count_of("xianfeng"), ALL - 2);
    // They are closed there, with their term as it ran before.
    assert_eq!(retention(&world.old), (0, 0));
    assert_eq!(retention(&world.new), (2, 1));
    let (from, to) = (origin("jinfu", "person"), origin("xianfeng", "person"));
    for (person, (record, values)) in (FIRST_GRID..).zip([redacted, closed]) {
        let (there, _, here) = fields(&world.new, &world.persons[person], NOW).unwrap();
        assert_eq!(here, values, "field by field");
        let old = entries(&world.town.dir, &from, record);
        let new = entries(&world.town.dir, &to, there);
        let contents = |all: &[(RecordEntry, bool)]| {
            let all = all.iter().filter(|(e, _)| !e.operation.is_anew());
            let all = all.map(|(e, _)| (e.version, e.content));
            all.collect::<Vec<_>>()
        };
        let (left, before) = contents(&old)
            .split_last()
            .map(|(l, b)| (*l, b.to_vec()))
            .unwrap();
        assert_eq!(before, contents(&new), "every version came");
        assert_eq!(left.0, before.last().unwrap().0 + 1);
        assert!(
            new.iter()
                .all(|(e, _)| e.operation == Operation::TransferInClosed)
        );
        let lines = history(&View::open(&world.town.dir).unwrap(), &there, None).unwrap();
        let words: Vec<_> = lines.iter().map(|line| line.operation).collect();
        assert!(
            words.contains(&"close") && words.contains(&"transfer-in-closed"),
            "{words:?}"
        );
    }
    // In force again, it counts; as it is after the nodes were made anew from their files, too.
    let back = world.find(&world.new, FIRST_GRID + 1).unwrap();
    let version = world
        .new
        .registry
        .amend(&clerk(&world.new), &reopening(back, 2), NOW);
    assert_eq!(version.unwrap().version, 3);
    world.settle_to(ALL - 1);
    world.verified();
}

#[test]
fn a_redacted_record_is_offered_by_itself_and_moves_on_from_its_next_owner() {
    let world = World::new();
    let [(record, values), _] = closed_and_redacted(&world);
    let offer = |site: &Site, record, to: &str| {
        let request = TransferRequest {
            kind: kind("person"),
            record,
            to: division(to),
            basis: "x".into(),
            days: 30,
        };
        let id = site
            .registry
            .offer_transfer(&clerk(site), &request, NOW)
            .unwrap();
        world.settle();
        id
    };
    let id = offer(&world.old, record, "xianfeng");
    let here = world
        .new
        .registry
        .accept_transfer(&clerk(&world.new), &id, NOW)
        .unwrap();
    world.settle();
    let (there, _, found) = fields(&world.new, &world.persons[FIRST_GRID], NOW).unwrap();
    assert_eq!((there, &found), (here.record, &values));
    // And back, to a third name: what it was taken over from is itself without these cells.
    let id = offer(&world.new, there, "jinfu");
    let again = world
        .old
        .registry
        .accept_transfer(&clerk(&world.old), &id, NOW)
        .unwrap();
    world.settle();
    let (back, _, found) = fields(&world.old, &world.persons[FIRST_GRID], NOW).unwrap();
    assert_eq!((back, &found), (again.record, &values));
    let retention = world.old.registry.retention(NOW).unwrap();
    let of = retention
        .iter()
        .find(|line| line.kind == kind("person"))
        .unwrap();
    assert_eq!(
        (of.closed, of.due),
        (2, 1),
        "the term runs from its closing"
    );
    world.verified();
}

#[test]
fn a_closed_record_is_no_reason_to_refuse_whoever_is_registered_at_the_new_owner_since() {
    let world = World::new();
    let last = FIRST_GRID;
    let (closed, version, _) = fields(&world.old, &world.persons[last], NOW).unwrap();
    close(&world.old, closed, version, NOW);
    import_more(
        &world.new,
        &world.persons[last..=last],
        "moved on their own",
    );
    world.settle_to(ALL);
    let plan = world.planned(&[], true);
    world.agreed(&plan);
    world.settle();
    assert_eq!(world.line(&plan).state, MovingState::Closed);
    assert_eq!(world.count_of("xianfeng"), ALL);
    world.verified();
}

#[test]
fn a_first_node_gets_what_the_town_kept_for_its_community() {
    let world = World::new();
    // The town kept these two grids; the community got its node.
    let mut kept = rows("person", 31, 5, 5);
    kept.truncate(5);
    world.town.import(&clerk(&world.town), "person", &kept, NOW);
    world.settle_to(ALL + 5);
    let grid = kept[0]["grid"].clone();
    let plan = planned(&world.town, &move_to("xianfeng", &[grid], false), NOW);
    world.settle();
    planned(&world.new, &receive(&plan), NOW);
    world.settle();
    let line = world.town.registry.moving(&plan, NOW).unwrap();
    assert_eq!((line.state, line.done), (MovingState::Done, 5));
    assert_eq!(world.count_of("shuangfu"), 0);
    assert_eq!(world.count_of("xianfeng"), (THERE + 5) as u64);
    assert!(
        kept.iter()
            .all(|row| fields(&world.new, row, NOW).is_some())
    );
    world.verified();
}

#[test]
fn what_cannot_move_is_named_and_stays_usable_and_another_plan_tries_it_again() {
    let world = World::new();
    // Registered at the new owner already, by mistake.
    import_more(&world.new, &world.persons[1..2], "double");
    world.settle_to(ALL + 1);
    let plan = world.planned(&[], true);
    world.agreed(&plan);
    world.settle();
    let line = world.line(&plan);
    assert_eq!(line.state, MovingState::Done);
    assert_eq!((line.done, line.failed), (ALL - THERE as u64 - 1, 1));
    assert_eq!(line.failures[0].reason.as_str(), "registered-already");
    let double = world.find(&world.old, 1).unwrap();
    assert_eq!(line.failures[0].record, double);
    // The shard is not closed: a record counts there, and can be worked on.
    let old = &world.old.registry;
    assert!(old.closed_shards().is_empty());
    assert_eq!(world.count_of("jinfu"), 1);
    // Its double goes; as it is it is not offered again, and as another version it is.
    erase(&world.new, world.find(&world.new, 1).unwrap());
    world.settle_to(ALL);
    assert_eq!(world.line(&plan).failed, 1);
    old.amend(&clerk(&world.old), &amendment(double, 1), NOW)
        .unwrap();
    world.settle();
    let line = world.line(&plan);
    assert_eq!((line.state, line.failed), (MovingState::Closed, 0));
    assert_eq!(world.count_of("jinfu"), 0);
    world.verified();
}

#[test]
fn either_side_stops_it_and_what_was_on_its_way_is_answered() {
    for stopper in ["jinfu", "xianfeng"] {
        let world = World::new();
        let plan = world.planned(&[], false);
        let theirs = world.agreed(&plan);
        for (child, parent) in world.links() {
            replicate(child, parent, NOW);
        }
        replicate(&world.old, &world.town, NOW);
        assert!(
            world.old.registry.moving_step(NOW).unwrap(),
            "it is offered"
        );
        let line = world.line(&plan);
        assert_eq!(line.under_way, (FIRST_GRID + SECOND_GRID) as u64);
        let record = world.find(&world.old, 0).unwrap();
        let frozen = world
            .old
            .registry
            .amend(&clerk(&world.old), &amendment(record, 1), NOW);
        assert!(frozen.unwrap_err().to_string().contains("xianfeng"));
        match stopper {
            "jinfu" => world.old.registry.withdraw(&world.old.officer, &plan, NOW),
            _ => world
                .new
                .registry
                .withdraw(&world.new.officer, &theirs, NOW),
        }
        .unwrap();
        world.settle();
        let line = world.line(&plan);
        assert_eq!((line.done, line.under_way), (0, 0), "{stopper}");
        assert_eq!(world.count_of("jinfu"), (FIRST_GRID + SECOND_GRID) as u64);
        world
            .old
            .registry
            .amend(&clerk(&world.old), &amendment(record, 1), NOW)
            .unwrap();
        world.verified();
    }
}

#[test]
fn a_move_that_is_cut_off_at_any_step_goes_on_and_never_counts_twice() {
    for step in STEPS {
        let mut world = World::new();
        let [(redacted, _), _] = closed_and_redacted(&world);
        let plan = world.planned(&[], true);
        world.agreed(&plan);
        CUT_AT.set(step);
        for _ in 0..4 {
            world.round();
        }
        CUT_AT.set(0);
        world.counted();
        world = world.again("xianfeng").again("jinfu");
        world.counted();
        world.settle();
        let line = world.line(&plan);
        assert_eq!(line.state, MovingState::Closed, "cut at {step}: {line:?}");
        assert_eq!(world.count_of("xianfeng"), ALL - 2, "cut at {step}");
        let came = {
            let store = Snapshot::open(&world.new.dir).unwrap();
            let all = forge::leaves(&store, &origin("xianfeng", "person"));
            all.into_iter().filter(
                |(entry, _)| matches!(entry, Entry::Record(entry) if entry.operation.takes_over()),
            )
        };
        // One of the closed has three versions, the other two.
        assert!(world.find(&world.old, FIRST_GRID).is_none(), "{redacted}");
        assert_eq!(
            came.count(),
            world.persons.len() + 3,
            "cut at {step}: each was registered once"
        );
        world.verified();
    }
}

/// The closing that a node stated, out of its authority ledger.
fn stated_closing(dir: &Path, name: &str) -> ShardClosed {
    let store = Snapshot::open(dir).unwrap();
    let stated = forge::leaves(&store, &origin(name, "authority"));
    let mut closings = stated.into_iter().filter_map(|(entry, _)| match entry {
        Entry::Authority(AuthorityEntry {
            statement: Statement::ShardClosed(closed),
            ..
        }) => Some(*closed),
        _ => None,
    });
    closings.next().unwrap()
}

fn shard_alarm(site: &Site) -> Option<String> {
    let alarms = site.registry.alarms().unwrap();
    let found = alarms
        .into_iter()
        .find(|alarm| alarm.code == "shard-closed");
    found.map(|alarm| alarm.reason)
}

/// What `verify` finds of a shard at a node.
fn found(dir: &Path, shard: &Origin) -> Vec<String> {
    let report = registry::verify::verify(dir).unwrap();
    let of = report
        .findings
        .into_iter()
        .filter(|f| f.origin.as_deref() == Some(shard.as_str()));
    of.map(|finding| finding.what).collect()
}

#[test]
fn a_closing_of_another_division_or_while_records_count_moves_nothing_and_is_found() {
    let mut world = World::new();
    let shard = origin("jinfu", "person");
    let (size, root, note) = {
        let store = Snapshot::open(&world.old.dir).unwrap();
        let head = forge::head(&store, &shard);
        (head.size, head.root, head.cosigned.unwrap())
    };
    let closing = ShardClosed {
        origin: shard.clone(),
        plan: [7; 32],
        size,
        root,
        checkpoint: note,
        successors: vec![origin("xianfeng", "person")],
        closed_at: NOW,
    };
    // Somebody else closes it: nobody's word.
    let foreign = closing.clone();
    world = world.altered("xianfeng", |dir| {
        state(dir, "xianfeng", Statement::ShardClosed(Box::new(foreign)));
    });
    world.settle();
    for site in world.sites() {
        assert!(site.registry.closed_shards().is_empty());
        assert!(shard_alarm(site).is_none());
    }
    // Its owner closes it, with everything in it and without a plan.
    world = world.altered("jinfu", |dir| {
        state(dir, "jinfu", Statement::ShardClosed(Box::new(closing)));
    });
    world.settle();
    assert_eq!(world.count_of("jinfu"), (FIRST_GRID + SECOND_GRID) as u64);
    for site in [&world.town, &world.district] {
        let words = shard_alarm(site).unwrap();
        assert!(words.contains("without a plan"), "{words}");
        assert!(words.contains("15 records were in force"), "{words}");
        let found = found(&site.dir, &shard);
        assert_eq!(found.len(), 2, "{found:?}");
        let report = audit(&site.dir, NOW).unwrap();
        assert!(!report.ok);
    }
}

#[test]
fn what_is_written_after_a_closing_and_a_second_successor_are_found_wherever_the_shard_is_held() {
    let mut world = World::new();
    let shard = origin("jinfu", "person");
    let plan = world.planned(&[], true);
    world.agreed(&plan);
    world.settle();
    let genuine = stated_closing(&world.old.dir, "jinfu");
    // Another successor, later.
    let mut other = genuine.clone();
    other.successors = vec![origin("shuangfu", "person")];
    world = world.altered("jinfu", |dir| {
        state(dir, "jinfu", Statement::ShardClosed(Box::new(other)));
    });
    world.settle();
    for site in [&world.town, &world.district, &world.new] {
        let closed = site.registry.closed_shards();
        assert_eq!(closed[0].successors, [origin("xianfeng", "person")]);
        assert!(shard_alarm(site).unwrap().contains("stated twice"));
    }
    assert_eq!(found(&world.town.dir, &shard).len(), 1);

    // And something written by software that does not ask.
    let world = World::new();
    let plan = world.planned(&[], true);
    world.agreed(&plan);
    world.settle();
    let before = world.counts();
    let world = world.altered("jinfu", |dir| {
        let store = forge::open_store(dir);
        let leaves = forge::leaves(&store, &shard);
        let authority = forge::head(&store, &origin("jinfu", "authority"));
        drop(store);
        let mut outs = leaves.into_iter().filter_map(|(entry, body)| match entry {
            Entry::Record(entry) if entry.operation == Operation::TransferOut => {
                Some((entry, body))
            }
            _ => None,
        });
        let (mut entry, body) = outs.next_back().unwrap();
        let before = leaf_hash(&Entry::Record(entry.clone()).encode());
        (entry.version, entry.previous) = (entry.version + 1, Some(before));
        let sign = keystore(dir).sign.signing_key();
        let Entry::Act(act) = forge::act("jinfu", (authority.size, authority.root), NOW) else {
            panic!("an act");
        };
        let body = body.unwrap_or_default();
        let record = (Entry::Record(entry), body);
        forge::append(dir, &shard, &sign, record, (act, &sign));
    });
    for _ in 0..3 {
        for (child, parent) in world.links() {
            replicate(child, parent, NOW);
        }
    }
    world.town.registry.tend_transfers(NOW).unwrap();
    let words = shard_alarm(&world.town).unwrap();
    assert!(words.contains("was written after"), "{words}");
    let of = found(&world.town.dir, &shard);
    assert!(
        of.iter().any(|what| what.contains("was written after")),
        "{of:?}"
    );
    let successor = |counts: &[(String, u64)]| {
        let of = counts.iter().find(|(name, _)| name.contains("xianfeng"));
        of.map(|(_, count)| *count)
    };
    assert_eq!(successor(&world.counts()), successor(&before));
}

#[test]
fn a_batch_that_is_claimed_without_proof_moves_nothing_and_without_agreement_is_not_taken() {
    let mut world = World::new();
    // Some move; their answer is what is forged from.
    let first = world.planned(&[world.grid(0)], false);
    world.agreed(&first);
    world.settle();
    let genuine = {
        let store = Snapshot::open(&world.new.dir).unwrap();
        let stated = forge::leaves(&store, &origin("xianfeng", "authority"));
        let mut answers = stated.into_iter().filter_map(|(entry, _)| match entry {
            Entry::Authority(AuthorityEntry {
                statement: Statement::Moving(moving),
                ..
            }) => match *moving {
                Moving::Answered(answer) => answer.acceptance,
                Moving::Offered(_) => None,
            },
            _ => None,
        });
        answers.next().unwrap()
    };
    // Others are offered, and the new owner claims them under proofs that are not of them.
    let second = world.planned(&[world.grid(FIRST_GRID)], false);
    world.agreed(&second);
    for (child, parent) in world.links() {
        replicate(child, parent, NOW);
    }
    replicate(&world.old, &world.town, NOW);
    assert!(world.old.registry.moving_step(NOW).unwrap());
    let batch = {
        let store = Snapshot::open(&world.old.dir).unwrap();
        let stated = forge::leaves(&store, &origin("jinfu", "authority"));
        let mut offers = stated.into_iter().filter_map(|(entry, _)| match entry {
            Entry::Authority(AuthorityEntry {
                statement: Statement::Moving(moving),
                ..
            }) => match *moving {
                Moving::Offered(offer) => Some(offer),
                Moving::Answered(_) => None,
            },
            _ => None,
        });
        offers.next_back().unwrap()
    };
    assert_eq!(batch.items.len(), SECOND_GRID);
    let mut forged = genuine.clone();
    forged.leaves.truncate(SECOND_GRID);
    for (leaf, item) in forged.leaves.iter_mut().zip(&batch.items) {
        // The offered content, in an entry that is under no head.
        let Ok(Entry::Record(mut entry)) = Entry::decode(leaf) else {
            panic!("an entry");
        };
        (entry.content, entry.version) = (item.content, item.version);
        *leaf = Entry::Record(entry).encode().into();
    }
    let answer = |acceptance: BatchAcceptance| {
        Statement::Moving(Box::new(Moving::Answered(BatchAnswer {
            batch: batch.id,
            origin: origin("jinfu", "person"),
            refused: vec![],
            acceptance: Some(acceptance),
        })))
    };
    let before = world.counts();
    let statement = answer(forged);
    world = world.altered("xianfeng", |dir| {
        state(dir, "xianfeng", statement);
    });
    world.settle();
    assert_eq!(world.counts(), before);
    assert_eq!(world.line(&second).done, 0);
    let alarms = world.old.registry.alarms().unwrap();
    assert!(alarms.iter().any(|alarm| alarm.code == "transfer"));
    for person in FIRST_GRID..FIRST_GRID + SECOND_GRID {
        assert!(world.find(&world.old, person).is_some());
    }
    assert_eq!(world.line(&first).done, FIRST_GRID as u64);

    // A clerk neither makes such a plan nor agrees to one.
    let world = World::new();
    let denied: RegistryError = world
        .old
        .registry
        .plan(&clerk(&world.old), &move_to("xianfeng", &[], true), NOW)
        .unwrap_err();
    assert_eq!(denied.code(), "denied");
    let plan = world.planned(&[], false);
    world.settle();
    let denied = {
        world
            .new
            .registry
            .plan(&clerk(&world.new), &receive(&plan), NOW)
    }
    .unwrap_err();
    assert_eq!(denied.code(), "denied");
    let wrong = { world.town.registry }.plan(&world.town.officer, &receive(&plan), NOW);
    assert_eq!(wrong.unwrap_err().code(), "not-found", "it is for another");
}
