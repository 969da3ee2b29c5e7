//! Erasing a record: after it and its receipts nothing of it is in any byte of any node, nothing
//! that was kept of it opens, and everything else goes on.
//!
//! A district, its town, a community under that and a department, all in this process; the
//! community erases. Who looks for what is left reads the files, and has every key of every node.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use record::authority::{Level, Role};
use record::entry::{Entry, GrantOperation};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::schema::{Catalogue, Position};
use registry::audit::check;
use registry::audit::disclose::DiscloseRequest;
use registry::audit::view::View;
use registry::destroy::{CUT_AT, STEPS};
use registry::grant::GrantRequest;
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::session::Session;
use seal::body::{Body, CellContext, open_cell};
use seal::derive::{field_key, row_key};
use seal::grant::{EnvelopeInfo, open_envelope};
use seal::page::open_chunk;
use seal::secret::{FieldKey, RecordSecret, RowKey};
use store::Snapshot;
use store::pages::Pages;
use tests::realm::forge::{self, keystore};
use tests::realm::{
    DAY, NOW, REALM, Row, Site, division, kind, origin, purpose, reading_person, rows, settle,
};

const PERSONS: usize = 24;
const GRANTED: [&str; 4] = ["name", "sex", "birth_date", "residence_kind"];

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    community: Site,
    department: Site,
    second: Session,
    clerk: Session,
    persons: Vec<Row>,
}

fn sites(base: &Path) -> [std::path::PathBuf; 4] {
    ["jiangjin", "shuangfu", "jinfu", "minzheng"].map(|name| base.join(name))
}

impl World {
    /// With a copy of every directory, from before the first record, in `old`.
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
        let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let second = community.operator(Role::SecurityOfficer, None, NOW);
        for dir in sites(at) {
            tests::copy_dir(&dir, &at.join("old").join(dir.file_name().unwrap()));
        }
        let mut persons = rows("person", 7, PERSONS, 1);
        for row in &mut persons {
            row.insert("residence_kind".into(), "10".into());
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
            persons,
        };
        world.settle(NOW);
        let request = GrantRequest {
            kind: kind("person"),
            holder: division("minzheng"),
            fields: GRANTED.map(str::to_owned).to_vec(),
            rows: BTreeMap::new(),
            purpose: purpose("welfare"),
            basis: "社会救助暂行办法".into(),
            assessment: "PIA-2026-001".into(),
            days: 30,
            history: record::authority::History::default(),
        };
        let community = &world.community;
        community
            .registry
            .grant(&community.officer, &request, NOW)
            .unwrap();
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

    /// The record of a person, and its version.
    fn find(&self, person: usize) -> Option<(RecordId, u64)> {
        find(&self.community, &self.clerk, &self.persons[person])
    }

    /// The record of a person with three versions, replicated and granted.
    fn amended(&self, person: usize) -> RecordId {
        let (record, version) = self.find(person).unwrap();
        for (step, education) in [(0, "21"), (1, "31")] {
            self.community.amend(
                &self.clerk,
                "person",
                record,
                version + step,
                &[("education", education)],
                NOW,
            );
            self.settle(NOW);
        }
        record
    }

    fn approved(&self, record: RecordId) -> Hash {
        approved(&self.community, &self.second, record, NOW)
    }

    fn erase(&self, record: RecordId) {
        let plan = self.approved(record);
        let community = &self.community;
        community
            .registry
            .run_plan(&community.officer, &plan, NOW)
            .unwrap();
    }

    fn verify(&self) {
        for dir in sites(self.base.path()) {
            verified(&dir);
        }
    }
}

fn find(community: &Site, clerk: &Session, person: &Row) -> Option<(RecordId, u64)> {
    let request = reading_person(person, "registration");
    let answer = community.registry.read(clerk, &request, NOW).unwrap();
    let rows = &answer.value().rows;
    rows.first().map(|row| (row.record, row.version))
}

/// A plan to erase a record that two officers are behind.
fn approved(site: &Site, second: &Session, record: RecordId, now: UnixMillis) -> Hash {
    let request = PlanRequest::Erase {
        kind: kind("person"),
        record,
        basis: "个人信息保护法 第四十七条".into(),
    };
    let line = site.registry.plan(&site.officer, &request, now).unwrap();
    let plan = plan_id(&line.id).unwrap();
    site.registry.approve(second, &plan, true, now).unwrap();
    plan
}

fn verified(dir: &Path) {
    let report = registry::verify::verify(dir).unwrap();
    assert!(report.ok, "{}: {:#?}", dir.display(), report.findings);
}

fn shard() -> Origin {
    origin("jinfu", "person")
}

/// The grant's ledger: there is one.
fn granted(dir: &Path) -> Origin {
    let store = Snapshot::open(dir).unwrap();
    let shards = store::Store::shards(&store).unwrap();
    let mut all = shards.iter().filter_map(|s| Origin::parse(s).ok());
    all.find(|o| o.grant_id().is_some()).unwrap()
}

/// Byte strings with the names of what they are.
type Named = Vec<(String, Vec<u8>)>;
/// A record's entries with the bodies that they name.
type Bodies = Vec<(Entry, Vec<u8>)>;

/// Byte strings to look for, found by their beginnings.
struct Needles {
    by_start: HashMap<[u8; 12], usize>,
    all: Named,
}

impl Needles {
    fn new(all: Named) -> Self {
        let starts = all.iter().enumerate();
        let by_start = starts
            .map(|(at, (_, bytes))| (bytes[..12].try_into().unwrap(), at))
            .collect();
        Self { by_start, all }
    }

    /// The names of those that stand in some file under a directory.
    fn in_dir(&self, dir: &Path) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                found.extend(self.in_dir(&path));
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for window in bytes.windows(12) {
                let start: [u8; 12] = window.try_into().unwrap();
                if let Some(at) = self.by_start.get(&start) {
                    found.insert(self.all[*at].0.as_str());
                }
            }
        }
        found
    }
}

/// Everything of a record that lies sealed in its owner's files: each cell of each version, each
/// parcel's beginning and end, by name; and the bodies themselves.
fn sealed(dir: &Path, record: RecordId) -> (Named, Bodies) {
    let store = Snapshot::open(dir).unwrap();
    let mut needles = Vec::new();
    let mut bodies = Vec::new();
    for (at, (entry, body)) in forge::leaves(&store, &shard()).into_iter().enumerate() {
        let (Some(bytes), true) = (body, entry.record() == Some(record)) else {
            continue;
        };
        let body = Body::decode(&bytes).unwrap();
        for position in body.positions() {
            let cell = body.cell(position).unwrap().to_vec();
            needles.push((format!("shard {at} cell {position}"), cell));
        }
        needles.push((format!("shard {at} nonce"), body.nonce().to_vec()));
        bodies.push((entry, bytes));
    }
    for (at, (entry, body)) in forge::leaves(&store, &granted(dir)).into_iter().enumerate() {
        let (Some(bytes), true) = (body, entry.record() == Some(record)) else {
            continue;
        };
        // The beginning of a parcel is the entry, which stays; cells and keys come after it.
        let end = bytes.len() - 16;
        needles.push((format!("grant {at} end"), bytes[end..].to_vec()));
        needles.push((
            format!("grant {at} before"),
            bytes[end - 40..end - 16].to_vec(),
        ));
    }
    (needles, bodies)
}

/// Every record's secret that a node's files open to.
fn secrets(dir: &Path) -> Vec<(RecordId, RecordSecret)> {
    let keys = keystore(dir);
    let pages = Pages::open(dir).unwrap();
    let mut all = Vec::new();
    for page in pages.numbers().unwrap() {
        let key = &keys.pages[&u64::from(page)];
        for (_, chunk) in pages.chunks(page).unwrap() {
            all.extend(open_chunk(key, page.into(), &chunk).unwrap());
        }
    }
    all
}

/// Whether a body that somebody kept opens in any cell with any key of any node: the field keys of
/// every epoch, and the row keys of this record from every secret and every key that is left.
fn opens(base: &Path, entry: &Entry, bytes: &[u8]) -> bool {
    let Entry::Record(entry) = entry else {
        panic!("a record's");
    };
    let shard = shard();
    let schema = Catalogue::builtin().schema(&kind("person")).unwrap();
    let body = Body::decode(bytes).unwrap();
    let mut raw: BTreeSet<[u8; 32]> = BTreeSet::new();
    let mut epochs = Vec::new();
    for dir in sites(base) {
        let keys = keystore(&dir);
        raw.extend([
            *keys.sign.expose(),
            *keys.seal.expose(),
            *keys.index.expose(),
            *keys.access.expose(),
            *keys.mark.expose(),
        ]);
        raw.extend(keys.pages.values().map(|key| *key.expose()));
        for ((_, epoch), secret) in keys.epochs {
            raw.insert(*secret.expose());
            epochs.push((epoch, secret));
        }
        raw.extend(secrets(&dir).iter().map(|(_, secret)| *secret.expose()));
    }
    let context = CellContext::of(&shard, entry);
    body.positions().any(|position| {
        let field = schema.at(position).unwrap();
        let mut fields: Vec<FieldKey> = epochs
            .iter()
            .map(|(epoch, secret)| field_key(secret, &shard, *epoch, position))
            .collect();
        fields.extend(granted_fields(base, position));
        let rows = raw.iter().flat_map(|key| {
            let secret = RecordSecret::from_bytes(*key);
            [
                RowKey::from_bytes(*key),
                row_key(&secret, &shard, &entry.record, &field.group),
            ]
        });
        let rows: Vec<RowKey> = rows.collect();
        fields.iter().any(|field_key| {
            rows.iter().any(|row| {
                open_cell(&body, position, field_key, row, &context, field.width).is_ok()
            })
        })
    })
}

/// The key of a field that the department got in its envelope.
fn granted_fields(base: &Path, position: Position) -> Option<FieldKey> {
    let [_, _, jinfu, minzheng] = sites(base);
    let store = Snapshot::open(&minzheng).unwrap();
    let ledger = granted(&minzheng);
    let statement = forge::leaves(&store, &origin("jinfu", "authority"))
        .into_iter()
        .find_map(|(entry, _)| match entry {
            Entry::Authority(entry) => match entry.statement {
                record::authority::Statement::Grant(grant) => Some(grant),
                _ => None,
            },
            _ => None,
        })?;
    let charter = |dir: &Path| {
        let config = registry::config::NodeConfig::read(dir).unwrap();
        config.charters().unwrap()[0].id()
    };
    let info = EnvelopeInfo {
        grant: statement.id,
        owner_charter: charter(&jinfu),
        holder_charter: charter(&minzheng),
        origin: statement.origin.clone(),
        epoch: statement.epoch,
        fields: statement.fields.clone(),
    };
    let (_, envelope) = forge::leaves(&store, &ledger).into_iter().find(
        |(entry, _)| matches!(entry, Entry::Grant(e) if e.operation == GrantOperation::Keys),
    )?;
    let seal = keystore(&minzheng).seal;
    let (_, fields) = open_envelope(&info, &seal, &envelope?).unwrap();
    let key = fields.get(&position)?;
    Some(FieldKey::from_bytes(*key.expose()))
}

#[test]
fn an_erased_record_is_in_no_byte_of_any_node_and_no_key_opens_what_was_kept_of_it() {
    let world = World::new();
    let record = world.amended(3);
    let other = world.amended(4);
    let base = world.base.path();
    let (needles, bodies) = sealed(&world.community.dir, record);
    let secret = secrets(&world.community.dir)
        .into_iter()
        .find(|(id, _)| *id == record)
        .unwrap()
        .1;
    let (_, kept) = sealed(&world.community.dir, other);
    let needles = Needles::new(needles);
    let names = |prefix: &str| -> BTreeSet<&str> {
        let all = needles.all.iter().map(|(name, _)| name.as_str());
        all.filter(|name| name.starts_with(prefix)).collect()
    };
    let (cells, parcels) = (names("shard"), names("grant"));
    assert!(cells.len() > 30 && parcels.len() >= 6, "{}", cells.len());

    // Before: the owner, its town and district hold the cells; with the department, the parcels.
    let [jiangjin, shuangfu, jinfu, minzheng] = sites(base);
    for dir in [&jiangjin, &shuangfu, &jinfu] {
        let found = needles.in_dir(dir);
        assert!(found.is_superset(&cells), "{}", dir.display());
        assert!(found.is_superset(&parcels), "{}", dir.display());
    }
    // A parcel carries the granted cells as they are in the shard, and no other.
    let held = needles.in_dir(&minzheng);
    assert!(held.is_superset(&parcels) && held.len() < parcels.len() + cells.len() / 2);
    // And what was kept of them opens, so that the search for keys is one that finds.
    assert!(bodies.iter().all(|(entry, body)| opens(base, entry, body)));
    let old_index = keystore(&jinfu).index;
    let old_pages = keystore(&jinfu).pages;

    world.erase(record);
    world.settle(NOW);

    for dir in sites(base) {
        assert_eq!(
            needles.in_dir(&dir),
            BTreeSet::new(),
            "left at {}",
            dir.display()
        );
    }
    for (entry, body) in &bodies {
        assert!(!opens(base, entry, body), "an old copy opens");
    }
    for (entry, body) in &kept {
        assert!(opens(base, entry, body), "another record's does not");
    }
    let left = secrets(&jinfu);
    assert!(left.iter().all(|(id, s)| *id != record && *s != secret));
    assert_eq!(left.len(), PERSONS, "only one secret went");
    // The keys of the page and of the working index were replaced.
    assert_ne!(keystore(&jinfu).index, old_index);
    assert!(
        !keystore(&jinfu)
            .pages
            .values()
            .any(|key| old_pages.values().any(|old| old == key))
    );

    // History holds everywhere, and the other records are read as before.
    world.verify();
    assert_eq!(world.find(3), None);
    let (_, version) = world.find(4).unwrap();
    assert_eq!(version, 3);

    // Everybody said so, and nothing is waited for.
    let lines = world
        .community
        .registry
        .erasure(&kind("person"), &record, NOW)
        .unwrap();
    assert_eq!(lines.len(), 2, "the shard's and the grant's");
    for line in &lines {
        assert!(line.missing.is_empty() && line.done_here, "{line:?}");
    }
    let bodies_of = |at: usize, name: &str| {
        let receipts = &lines[at].receipts;
        receipts
            .iter()
            .find(|r| r.division == division(name))
            .map(|r| r.bodies)
    };
    for name in ["jinfu", "shuangfu", "jiangjin"] {
        assert_eq!(bodies_of(0, name), Some(3), "{name}");
    }
    assert_eq!(bodies_of(1, "minzheng"), Some(3));
    assert!(
        world
            .community
            .registry
            .destructions(NOW)
            .unwrap()
            .is_empty()
    );
    // An erased record is not amended.
    let again = world.community.registry.plan(
        &world.community.officer,
        &PlanRequest::Erase {
            kind: kind("person"),
            record,
            basis: "again".into(),
        },
        NOW,
    );
    assert!(again.is_err(), "it is erased");

    // It goes on: the next version is registered, granted and replicated.
    world.amended(5);
    world.verify();
}

/// Drops the node as a kill does: nothing of it is written any more.
fn killed(site: Site) -> std::path::PathBuf {
    site.dir
}

#[test]
fn an_erasure_cut_off_at_any_step_is_finished_at_the_next_start() {
    let mut world = World::new();
    for step in 1..=STEPS {
        let person = step as usize;
        let record = world.amended(person);
        let (needles, bodies) = sealed(&world.community.dir, record);
        let needles = Needles::new(needles);
        let plan = world.approved(record);
        CUT_AT.set(step);
        let community = &world.community;
        let cut = community.registry.run_plan(&community.officer, &plan, NOW);
        CUT_AT.set(0);
        assert!(cut.is_err(), "step {step} is not passed");
        let dir = killed(world.community);
        // From its first commit on nothing of it is read, and a copy of the whole directory taken
        // now opens no more of it than its secret, if that is there yet.
        world.community = Site::open(&dir, NOW);
        let community = &world.community;
        assert_eq!(needles.in_dir(&dir), BTreeSet::new(), "step {step}");
        assert_eq!(world.find(person), None, "step {step}");
        let (left, base) = (secrets(&dir), world.base.path());
        assert!(left.iter().all(|(id, _)| *id != record), "step {step}");
        assert!(
            bodies.iter().all(|(e, b)| !opens(base, e, b)),
            "step {step}"
        );
        // The keystore has the keys of the pages that there are, and of no other.
        let numbers = Pages::open(&dir).unwrap().numbers().unwrap();
        let keys = keystore(&dir).pages;
        let known: Vec<u32> = keys.keys().map(|page| *page as u32).collect();
        assert!(
            known
                .iter()
                .all(|page| numbers.contains(page) || *page > numbers[0])
        );
        let lines = community
            .registry
            .erasure(&kind("person"), &record, NOW)
            .unwrap();
        assert!(
            lines.iter().all(|line| line.done_here),
            "step {step}: {lines:?}"
        );
        // The plan is run again and ends; nothing is erased twice, no receipt signed twice.
        community
            .registry
            .run_plan(&community.officer, &plan, NOW)
            .unwrap();
        let store = Snapshot::open(&dir).unwrap();
        let receipts = forge::leaves(&store, &origin("jinfu", "authority"))
            .into_iter()
            .filter(|(entry, _)| match entry {
                Entry::Authority(entry) => matches!(
                    &entry.statement,
                    record::authority::Statement::Receipt(r) if r.record == Some(record)
                ),
                _ => false,
            });
        assert_eq!(receipts.count(), 1, "step {step}");
        world.settle(NOW);
        verified(&dir);
    }
    world.verify();
    // Every other record opens, through however many rewritings of its page.
    for person in STEPS as usize + 1..PERSONS {
        world.find(person).unwrap();
    }
    world.amended(PERSONS - 1);
}

#[test]
fn fresh_replicas_and_other_records_disclosures_hold_after_an_erasure() {
    let mut world = World::new();
    let [_, shuangfu, jinfu, minzheng] = sites(world.base.path());
    let other = world.amended(1);
    let community = &world.community;
    let request = DiscloseRequest {
        kind: kind("person"),
        record: other,
        fields: vec!["name".into(), "birth_date".into()],
        version: None,
        purpose: purpose("registration"),
        basis: None,
    };
    let disclosure = community
        .registry
        .disclose(&world.clerk, &request, NOW)
        .unwrap();
    let disclosure = serde_json::to_vec(&disclosure).unwrap();
    let checks = || {
        let view = View::open(&jinfu).unwrap();
        let keys = [view.log(&shard(), None).unwrap()];
        check::document(&disclosure, &keys, None).unwrap()
    };
    assert!(checks().shown.is_some());

    let record = world.amended(2);
    let (needles, _) = sealed(&jinfu, record);
    let needles = Needles::new(needles);
    world.erase(record);
    world.settle(NOW);
    assert!(checks().shown.is_some(), "a disclosure made before holds");

    // Town and department as they were before anything of the community came: they fetch it all.
    let World {
        town,
        department,
        base: at,
        ..
    } = &mut world;
    for (site, name) in [(town, "shuangfu"), (department, "minzheng")] {
        *site = restored(at.path(), name, site);
    }
    world.settle(NOW);
    assert_eq!(needles.in_dir(&shuangfu), BTreeSet::new());
    let size = |dir: &Path, ledger: &Origin| {
        let store = Snapshot::open(dir).unwrap();
        forge::head(&store, ledger).size
    };
    assert_eq!(size(&shuangfu, &shard()), size(&jinfu, &shard()));
    let ledger = granted(&jinfu);
    assert_eq!(size(&minzheng, &ledger), size(&jinfu, &ledger));
    world.verify();
    let held = world.department.registry.status().unwrap();
    assert_eq!(held.holdings[0].records, PERSONS as u64 - 1);
    world.amended(5);
    world.verify();
}

/// Puts the directory that was copied at the beginning in the place of a node's.
fn restored(base: &Path, name: &str, site: &mut Site) -> Site {
    let dir = base.join(name);
    // Whoever holds the node lets go of it before the directory is replaced.
    *site = Site::root(&base.join("nobody").join(name), REALM, "nobody", NOW);
    std::fs::remove_dir_all(&dir).unwrap();
    tests::copy_dir(&base.join("old").join(name), &dir);
    Site::open(&dir, NOW)
}

#[test]
fn a_copy_restored_after_an_erasure_erases_again_before_it_signs() {
    let mut world = World::new();
    let record = world.amended(3);
    let [_, _, jinfu, _] = sites(world.base.path());
    let (needles, bodies) = sealed(&jinfu, record);
    let needles = Needles::new(needles);
    let old = world.base.path().join("old/jinfu");
    std::fs::remove_dir_all(&old).unwrap();
    tests::copy_dir(&jinfu, &old);
    world.erase(record);
    world.settle(NOW);

    let base = world.base.path().to_owned();
    world.community = restored(&base, "jinfu", &mut world.community);
    assert!(
        !needles.in_dir(&jinfu).is_empty(),
        "the copy has everything"
    );
    assert!(bodies.iter().all(|(e, b)| opens(&base, e, b)));
    let plan =
        world
            .community
            .registry
            .plan(&world.community.officer, &PlanRequest::RotateKek {}, NOW);
    assert!(
        plan.is_err(),
        "it signs nothing before it has the rest back"
    );
    world.settle(NOW);
    assert_eq!(needles.in_dir(&jinfu), BTreeSet::new());
    assert!(!bodies.iter().any(|(e, b)| opens(&base, e, b)));
    assert!(secrets(&jinfu).iter().all(|(id, _)| *id != record));
    assert_eq!(world.find(3), None);
    world.verify();
    world.amended(5);
    world.verify();
}

#[test]
fn receipts_that_do_not_come_are_overdue_and_a_body_kept_against_the_order_is_found() {
    let world = World::new();
    let record = world.amended(3);
    let [_, shuangfu, jinfu, _] = sites(world.base.path());
    let (_, bodies) = sealed(&jinfu, record);
    world.erase(record);
    // Nobody is reached.
    let registry = &world.community.registry;
    let waiting = registry.destructions(NOW).unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!(
        waiting[0].missing,
        [division("jiangjin"), division("shuangfu")]
    );
    assert!(waiting.iter().all(|line| line.done_here && !line.overdue));
    let later = UnixMillis(NOW.0 + 8 * DAY);
    assert_eq!(registry.destruction_counts(later).unwrap().overdue, 2);
    let checks = registry.doctor(later).unwrap();
    let check = checks
        .iter()
        .find(|check| check.check == "receipts")
        .unwrap();
    assert_ne!(check.health, registry::status::Health::Ok);
    world.settle(NOW);
    assert!(registry.destructions(later).unwrap().is_empty());

    // The town puts back what it had.
    let base = world.base;
    drop((
        world.community,
        world.town,
        world.district,
        world.department,
    ));
    verified(&shuangfu);
    forge::replace_body(&shuangfu, &shard(), 3, bodies[0].1.clone());
    let report = registry::verify::verify(&shuangfu).unwrap();
    assert!(!report.ok);
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.index == Some(3) && f.what.contains("still here"))
    );
    // And a body that goes without an order is missed.
    let store = forge::open_store(&jinfu);
    let mut batch = store::Batch::new(shard().as_str(), None);
    batch.delete(forge::key(&shard(), registry::table::BODY, 7));
    store::Store::commit(&store, &batch).unwrap();
    drop(store);
    let report = registry::verify::verify(&jinfu).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.index == Some(7) && f.what.contains("missing"))
    );
    drop(base);
}

#[test]
fn closed_records_past_their_term_are_erased_under_a_standing_order_only() {
    let world = World::new();
    let community = &world.community;
    let registry = &community.registry;
    // One went out of force eleven years ago, one today.
    let long_ago = UnixMillis(NOW.0 - 11 * 366 * DAY);
    let mut closed = Vec::new();
    for (person, at) in [(2, long_ago), (5, NOW)] {
        let (record, version) = world.find(person).unwrap();
        world
            .community
            .close_record(&world.clerk, "person", (record, version), at);
        closed.push(record);
    }
    world.settle(NOW);
    let person = || {
        let lines = registry.retention(NOW).unwrap();
        let line = lines.into_iter().find(|line| line.kind == kind("person"));
        let line = line.unwrap();
        (line.closed, line.due, line.ordered)
    };
    let erased = |record| registry.erasure(&kind("person"), record, NOW).is_ok();
    assert_eq!(person(), (2, 1, false));
    registry.run_retention(&community.officer, NOW).unwrap();
    assert!(!erased(&closed[0]), "nobody ordered it");

    let request = PlanRequest::Order {
        tasks: vec![record::plan::Task::Retention],
        kinds: vec![kind("person")],
        days: 30,
    };
    let line = registry.plan(&community.officer, &request, NOW).unwrap();
    let plan = plan_id(&line.id).unwrap();
    registry.approve(&world.second, &plan, true, NOW).unwrap();
    assert_eq!(person(), (2, 1, false), "not before it is in force");
    registry.run_plan(&community.officer, &plan, NOW).unwrap();
    assert_eq!(person(), (2, 1, true));
    let (needles, _) = sealed(&community.dir, closed[0]);
    registry.run_retention(&community.officer, NOW).unwrap();
    assert!(erased(&closed[0]) && !erased(&closed[1]));
    assert_eq!(person(), (1, 0, true));
    world.settle(NOW);
    let needles = Needles::new(needles);
    for dir in sites(world.base.path()) {
        assert_eq!(needles.in_dir(&dir), BTreeSet::new());
    }
    assert!(registry.destructions(NOW).unwrap().is_empty());
    world.verify();
}

#[test]
fn the_command_line_plans_an_erasure_and_shows_what_became_of_it() {
    let base = tempfile::tempdir().unwrap();
    let site = tests::Site::alone(base.path());
    site.enrol("fuhe", "security-officer", None);
    let table = tests::rows::community(7, 20).persons;
    let csv = tests::rows::write(&table, &base.path().join("person.csv"));
    site.json(["import", "person", csv.to_str().unwrap(), "--as", "dengji"]);
    let read = |site: &tests::Site| {
        let answer = site.json(["read", "person", "--as", "dengji", "--purpose", "service"]);
        let rows = answer["value"]["rows"].as_array().unwrap().clone();
        let ids = rows
            .iter()
            .map(|row| row["record"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let records = read(&site);
    let record = records[0].as_str();
    let running = site.start();
    let erase = |more: &[&str]| {
        let args = ["erase", record, "--kind", "person", "--as", "anquan"];
        site.run(args.iter().chain(more).chain(&["--json"]))
    };
    // Without a basis it is no request, and before it is run there is nothing to show.
    assert_ne!(erase(&[]).code, 0);
    assert_ne!(erase(&["--status"]).code, 0);
    let plan = erase(&["--basis", "个人信息保护法 第四十七条"])
        .expect_code(0)
        .json();
    let id = plan["id"].as_str().unwrap();
    assert_ne!(site.run(["keys", "run", id, "--as", "anquan"]).code, 0);
    assert_eq!(read(&site).len(), 20, "one officer erases nothing");
    site.json(["keys", "approve", id, "--as", "fuhe"]);
    site.json(["keys", "run", id, "--as", "anquan"]);

    let left = read(&site);
    assert_eq!(left.len(), 19);
    assert!(!left.contains(&record.to_owned()));
    let shown = erase(&["--status"]).expect_code(0).json();
    let line = &shown["destructions"][0];
    assert_eq!(
        (&line["done_here"], &line["missing"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert_eq!(line["receipts"][0]["finality"], "keys-destroyed");
    // A node without a parent waits for nobody.
    let waiting = site.json(["receipts", "--as", "anquan"]);
    assert_eq!(waiting["destructions"], serde_json::json!([]));
    let retention = site.json(["retention", "plan", "--as", "anquan"]);
    assert_eq!(retention["retention"][0]["due"], 0);
    running.stop();
    site.verified();
}
