//! Scopes of grants: rows by grid, status and condition, other terms in place, the history that a
//! grant allows, a holder that was away, and what a holder proves offline.
//!
//! Nodes are open in this process, and replicate by the messages of `sync`, unless a test says that
//! they are processes.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use record::authority::{History, Level, Role};
use record::entry::{Entry, GrantEntry, GrantOperation};
use record::id::{GrantId, Hash, Origin, RecordId, UnixMillis};
use record::plan::Work;
use registry::audit::changes::ChangesRequest;
use registry::grant::GrantRequest;
use registry::grant::amend::AmendRequest;
use registry::grant::ending::GrantState;
use registry::grant::export::{export_grant, verify_file};
use registry::grant::proof::verify_grants;
use registry::plan::request::PlanRequest;
use registry::read::{AnswerRow, Comparison, Filter, ReadRequest};
use registry::register::Amendment;
use registry::session::Session;
use registry::{RegistryError, Result};
use store::{Snapshot, Store};
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Row, Site, division, forge, kind, origin, purpose, replicate,
    rows, settle,
};

const PERSONS: usize = 24;
/// Persons of the first grid.
const FIRST: usize = PERSONS / 2;

struct World {
    _base: tempfile::TempDir,
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
            let grid = if at < FIRST { "G-01" } else { "G-02" };
            row.insert("grid".into(), grid.into());
            row.insert("name".into(), format!("居民{}", numeral(at)));
            row.insert("phone".into(), format!("154{at:08}"));
        }
        community.import(&clerk, "person", &persons, NOW);
        let world = Self {
            _base: base,
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

    /// Everything in the background, everywhere, until all is at rest.
    fn come_to_rest(&self, now: UnixMillis) {
        self.community.registry.tend_grants(now).unwrap();
        while self.community.registry.reseal_step(now).unwrap() {}
        for _ in 0..2 {
            self.settle(now);
            for site in [&self.community, &self.department] {
                site.registry.tend_grants(now).unwrap();
            }
            for site in [
                &self.community,
                &self.town,
                &self.district,
                &self.department,
            ] {
                site.registry.go_on_destroying(now);
            }
        }
        self.settle(now);
    }

    fn grant(&self, request: &GrantRequest) -> GrantId {
        let officer = &self.community.officer;
        let id = self.community.registry.grant(officer, request, NOW);
        self.settle(NOW);
        id.unwrap()
    }

    fn approved(&self, request: &PlanRequest, now: UnixMillis) -> Hash {
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        let plan = registry.plan(officer, request, now).unwrap();
        let id = registry::plan::approve::plan_id(&plan.id).unwrap();
        registry.approve(&self.second, &id, true, now).unwrap();
        id
    }

    fn run(&self, request: &PlanRequest, now: UnixMillis) {
        let plan = self.approved(request, now);
        let (registry, officer) = (&self.community.registry, &self.community.officer);
        registry.run_plan(officer, &plan, now).unwrap();
    }

    fn amend_grant(&self, grant: GrantId, to: AmendRequest) {
        self.run(&PlanRequest::AmendGrant { grant, to }, NOW);
        self.come_to_rest(NOW);
    }

    fn rotate(&self, now: UnixMillis) {
        let request = PlanRequest::RotateEpoch {
            kind: kind("person"),
            compromised: false,
        };
        self.run(&request, now);
        self.come_to_rest(now);
    }

    /// What the department reads, by name.
    fn read(&self) -> BTreeMap<String, AnswerRow> {
        self.read_as(&self.reader, NOW).unwrap()
    }

    fn read_as(&self, reader: &Session, now: UnixMillis) -> Result<BTreeMap<String, AnswerRow>> {
        let request = ReadRequest {
            closed: true,
            purpose: purpose("welfare"),
            ..reading(&[])
        };
        let answer = self.department.registry.read(reader, &request, now)?;
        let rows = &answer.value().rows;
        let row = |row: &AnswerRow| AnswerRow {
            record: row.record,
            origin: row.origin.clone(),
            version: row.version,
            fields: row.fields.clone(),
        };
        // Another grant may give rows without the name.
        let named = rows
            .iter()
            .filter_map(|r| Some((r.fields.get("name")?.clone(), row(r))));
        Ok(named.collect())
    }

    fn names(&self) -> BTreeSet<String> {
        self.read().into_keys().collect()
    }

    /// The names of persons by their numbers.
    fn of(&self, persons: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
        let name = |at: usize| self.persons[at]["name"].clone();
        persons.into_iter().map(name).collect()
    }

    fn find(&self, person: usize) -> (RecordId, u64) {
        let number = self.persons[person]["citizen_number"].as_str();
        let request = reading(&[("citizen_number", number)]);
        let registry = &self.community.registry;
        let answer = registry.read(&self.clerk, &request, NOW).unwrap();
        let row = &answer.value().rows[0];
        (row.record, row.version)
    }

    fn change(&self, person: usize, changes: &[(&str, &str)]) -> RecordId {
        let (record, version) = self.find(person);
        self.community
            .amend(&self.clerk, "person", record, version, changes, NOW);
        record
    }

    /// The versions of a record that the department has.
    fn versions(&self, record: RecordId) -> Vec<u64> {
        let request = ChangesRequest {
            kind: kind("person"),
            record,
            purpose: purpose("welfare"),
            basis: None,
        };
        let changes = self
            .department
            .registry
            .changes(&self.reader, &request, NOW)
            .unwrap();
        changes.value().versions.iter().map(|v| v.version).collect()
    }

    fn line(&self, id: &GrantId, now: UnixMillis) -> registry::grant::GrantLine {
        let lines = self.community.registry.grants(now).unwrap();
        lines.into_iter().find(|line| line.id == *id).unwrap()
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

    #[track_caller]
    fn proven(&self, id: &GrantId, records: usize) {
        let proof = verify_grants(&self.department.dir, Some(id))
            .unwrap()
            .remove(0);
        assert!(proof.ok, "{:?}", proof.findings);
        assert_eq!((proof.records, proof.unvouched), (records as u64, 0));
        let shard = origin("jinfu", "person");
        let status = self.community.registry.status().unwrap();
        let line = status.ledgers.iter().find(|l| l.origin == shard).unwrap();
        assert_eq!(proof.checkpoint.unwrap().root, line.root, "current");
    }
}

/// A number in the script of names.
fn numeral(at: usize) -> String {
    let digits: Vec<char> = "零一二三四五六七八九".chars().collect();
    let text = format!("{at:02}");
    text.bytes()
        .map(|b| digits[usize::from(b - b'0')])
        .collect()
}

fn reading(filters: &[(&str, &str)]) -> ReadRequest {
    ReadRequest {
        closed: false,
        kind: kind("person"),
        filters: filters
            .iter()
            .map(|(field, value)| Filter {
                field: (*field).into(),
                comparison: Comparison::Equals,
                value: (*value).into(),
            })
            .collect(),
        fields: None,
        purpose: purpose("registration"),
        basis: None,
        limit: None,
    }
}

fn request(fields: &[&str], rows: &[(&str, &str)], history: History) -> GrantRequest {
    GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: fields.iter().map(|field| (*field).into()).collect(),
        rows: conditions(rows),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-2026-001".into(),
        days: 90,
        history,
    }
}

fn conditions(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pair = |(field, value): &(&str, &str)| ((*field).into(), (*value).into());
    rows.iter().map(pair).collect()
}

fn fields(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|id| (*id).into()).collect())
}

fn ledger(id: &GrantId) -> Origin {
    origin("jinfu", "person").grant(id)
}

/// How many bodies of a ledger a node's disk has.
fn bodies(site: &Site, ledger: &Origin) -> usize {
    let store = Snapshot::open(&site.dir).unwrap();
    let rows = store.scan(ledger.as_str(), "body", b"", usize::MAX);
    rows.unwrap().len()
}

#[test]
fn a_record_that_changes_its_grid_leaves_one_grant_and_enters_another() {
    let world = World::new();
    let [first, second] = ["G-01", "G-02"].map(|grid| {
        let request = request(&["name", "grid"], &[("grid", grid)], History::Since);
        world.grant(&request)
    });
    assert_eq!(world.line(&first, NOW).records, Some(FIRST as u64));
    let record = world.change(0, &[("grid", "G-02")]);
    world.come_to_rest(NOW);
    assert_eq!(world.line(&first, NOW).records, Some(FIRST as u64 - 1));
    assert_eq!(world.line(&second, NOW).records, Some(FIRST as u64 + 1));
    let why = world
        .community
        .registry
        .why(&record, &division("minzheng"), NOW)
        .unwrap();
    let steps: BTreeMap<GrantId, (Vec<&str>, bool)> = why
        .iter()
        .map(|line| {
            let steps = line.steps.iter().map(|step| step.operation).collect();
            (line.grant.id, (steps, line.holds))
        })
        .collect();
    assert_eq!(steps[&first], (vec!["enter", "retract"], false));
    assert_eq!(steps[&second], (vec!["enter"], true));
    // It was dropped, and signed for, by the holder and by whoever carried it.
    assert!(
        world
            .community
            .registry
            .destructions(NOW)
            .unwrap()
            .is_empty()
    );
    let row = &world.read()[&world.persons[0]["name"]];
    assert_eq!(row.fields["grid"], "G-02");
    world.proven(&first, FIRST - 1);
    world.proven(&second, FIRST + 1);
    world.verifies();
}

#[test]
fn a_record_that_goes_out_of_force_leaves_a_grant_of_those_in_force_and_comes_back() {
    let world = World::new();
    let id = world.grant(&request(&["name"], &[("status", "10")], History::Since));
    let all = world.names();
    assert_eq!(all, world.of(0..PERSONS));
    let (record, version) = world.find(3);
    let amendment = |version, close| Amendment {
        kind: kind("person"),
        record,
        version,
        changes: BTreeMap::new(),
        close,
        reopen: !close,
        purpose: purpose("correction"),
    };
    let registry = &world.community.registry;
    registry
        .amend(&world.clerk, &amendment(version, true), NOW)
        .unwrap();
    world.come_to_rest(NOW);
    assert!(!world.names().contains(&world.persons[3]["name"]));
    registry
        .amend(&world.clerk, &amendment(version + 1, false), NOW)
        .unwrap();
    world.come_to_rest(NOW);
    assert_eq!(world.names(), all);
    world.proven(&id, PERSONS);
    world.verifies();
}

#[test]
fn grants_of_two_kinds_are_two_ledgers_and_neither_gives_rows_of_the_other() {
    let world = World::new();
    let addresses = rows("address", 7, PERSONS, 1);
    world
        .community
        .import(&world.clerk, "address", &addresses, NOW);
    world.settle(NOW);
    let persons = world.grant(&request(&["name"], &[], History::Since));
    let of_addresses = GrantRequest {
        kind: kind("address"),
        ..request(&["grid"], &[], History::Since)
    };
    let places = world.grant(&of_addresses);
    assert_eq!(world.line(&persons, NOW).records, Some(PERSONS as u64));
    let line = world.line(&places, NOW);
    assert_eq!(line.origin, origin("jinfu", "address"));
    assert_eq!(line.records, Some(addresses.len() as u64));
    assert_eq!(world.names().len(), PERSONS);
    world.verifies();
}

#[test]
fn a_grant_narrowed_to_fewer_rows_retracts_the_others_and_each_is_receipted() {
    let world = World::new();
    let id = world.grant(&request(&["name", "grid"], &[], History::Since));
    assert_eq!(world.names().len(), PERSONS);
    let to = AmendRequest {
        rows: Some(conditions(&[("grid", "G-01")])),
        ..AmendRequest::default()
    };
    let registry = &world.community.registry;
    let shown = registry
        .plan_amendment(&world.community.officer, &id, &to, NOW)
        .unwrap();
    assert_eq!((shown.rows, shown.entering, shown.leaving), (12, 0, 12));
    let envelopes = |site: &Site| {
        let proofs = verify_grants(&site.dir, Some(&id)).unwrap();
        proofs[0].size
    };
    let before = envelopes(&world.department);
    world.run(
        &PlanRequest::AmendGrant {
            grant: id,
            to: to.clone(),
        },
        NOW,
    );
    world.settle(NOW);
    // The holder has it, its word that it dropped them is still on its way.
    world.come_to_rest(NOW);
    assert_eq!(world.names(), world.of(0..FIRST));
    assert!(envelopes(&world.department) > before);
    assert!(registry.destructions(NOW).unwrap().is_empty());
    let line = world.line(&id, NOW);
    assert_eq!((line.receipts_missing, line.receipts_overdue), (0, 0));
    // Only the parcels of those who stay are left, and the envelopes and heartbeats.
    let parcels = bodies(&world.department, &ledger(&id));
    assert_eq!(parcels, FIRST + 2 + 2);
    // The plan names no row: a hash of the condition, which only the owner can make.
    let authority = Snapshot::open(&world.department.dir).unwrap();
    let said = authority
        .scan(
            origin("jinfu", "authority").as_str(),
            "entry",
            b"",
            usize::MAX,
        )
        .unwrap();
    assert!(said.iter().all(|(_, bytes)| {
        let grid = b"G-01";
        !bytes.windows(grid.len()).any(|window| window == grid)
    }));
    world.proven(&id, FIRST);
    world.verifies();
}

#[test]
fn a_grant_widened_in_rows_and_fields_gives_what_is_new_and_needs_another_officer() {
    let world = World::new();
    let id = world.grant(&request(&["name"], &[("grid", "G-01")], History::Since));
    let to = AmendRequest {
        fields: fields(&["name", "phone", "grid"]),
        rows: Some(BTreeMap::new()),
        assessment: Some("PIA-2026-009".into()),
        ..AmendRequest::default()
    };
    let (registry, officer) = (&world.community.registry, &world.community.officer);
    let shown = registry.plan_amendment(officer, &id, &to, NOW).unwrap();
    assert_eq!((shown.entering, shown.leaving), (12, 0));
    assert_eq!(shown.fields_added, ["grid", "phone"]);
    let contact = |of: &str| {
        let groups = shown.openable.iter();
        let mut of = groups.filter(|g| g.fields.iter().any(|f| f == of));
        of.next().unwrap().rows
    };
    assert_eq!(contact("phone"), PERSONS as u64);

    let request = PlanRequest::AmendGrant { grant: id, to };
    let plan = registry.plan(officer, &request, NOW).unwrap();
    let plan_id = registry::plan::approve::plan_id(&plan.id).unwrap();
    assert!(registry.run_plan(officer, &plan_id, NOW).is_err());
    assert!(matches!(
        registry.plan(officer, &request, NOW),
        Err(RegistryError::Underway { .. })
    ));
    let figures: BTreeMap<&str, u64> = plan
        .figures
        .iter()
        .map(|figure| (figure.name.as_str(), figure.count))
        .collect();
    assert_eq!((figures["entering"], figures["fields-added"]), (12, 2));
    registry
        .approve(&world.second, &plan_id, true, NOW)
        .unwrap();
    registry.run_plan(officer, &plan_id, NOW).unwrap();
    world.come_to_rest(NOW);
    let rows = world.read();
    assert_eq!(rows.len(), PERSONS);
    for (at, person) in world.persons.iter().enumerate() {
        let row = &rows[&person["name"]];
        assert_eq!(row.fields["phone"], format!("154{at:08}"));
    }
    assert_eq!(world.line(&id, NOW).state, GrantState::InForce);
    // Nothing was taken away, so nothing is to be receipted.
    assert!(registry.destructions(NOW).unwrap().is_empty());
    // What is written from here on comes with the new fields.
    world.change(2, &[("phone", "15499999999")]);
    world.come_to_rest(NOW);
    assert_eq!(
        world.read()[&world.persons[2]["name"]].fields["phone"],
        "15499999999"
    );
    world.proven(&id, PERSONS);
    world.verifies();
}

#[test]
fn a_field_taken_away_is_dropped_and_receipted_and_its_key_does_not_come_with_the_next_epoch() {
    let world = World::new();
    let id = world.grant(&request(
        &["name", "phone"],
        &[("grid", "G-01")],
        History::Since,
    ));
    let phone = |rows: &BTreeMap<String, AnswerRow>| {
        rows.values()
            .filter(|r| r.fields.contains_key("phone"))
            .count()
    };
    assert_eq!(phone(&world.read()), FIRST);
    let to = AmendRequest {
        fields: fields(&["name"]),
        ..AmendRequest::default()
    };
    // Everybody is asked for a receipt, and until the department answers one is missing of each row.
    world.run(&PlanRequest::AmendGrant { grant: id, to }, NOW);
    for _ in 0..3 {
        replicate(&world.community, &world.town, NOW);
        world.community.registry.tend_grants(NOW).unwrap();
    }
    let line = world.line(&id, NOW);
    assert_eq!(line.receipts_missing, FIRST as u64);
    let week = UnixMillis(NOW.0 + 8 * DAY);
    assert_eq!(world.line(&id, week).receipts_overdue, FIRST as u64);
    world.come_to_rest(NOW);
    assert_eq!(world.line(&id, NOW).receipts_missing, 0);
    let rows = world.read();
    assert_eq!((rows.len(), phone(&rows)), (FIRST, 0));
    let store = Snapshot::open(&world.department.dir).unwrap();
    let at = record::schema::Catalogue::builtin()
        .schema(&kind("person"))
        .unwrap()
        .field("phone")
        .unwrap()
        .position;
    let with_phone = |store: &Snapshot| {
        let bodies = store.scan(ledger(&id).as_str(), "body", b"", usize::MAX);
        let bodies = bodies.unwrap();
        let parcels = bodies
            .iter()
            .filter_map(|(_, body)| seal::parcel::Parcel::decode(body).ok());
        parcels.filter(|p| p.positions().any(|p| p == at)).count()
    };
    assert_eq!(with_phone(&store), 0, "no cell of it is left");
    world.verifies();
    // With the next epoch the department has no key of the field at all.
    world.rotate(NOW);
    let statement = statement(&world.department, &id);
    assert_eq!(statement.epoch, 2);
    assert!(!statement.fields.contains(&at));
    assert_eq!(world.read().len(), FIRST);
    world.proven(&id, FIRST);
    world.verifies();
}

/// The newest statement of a grant that a node has.
fn statement(site: &Site, id: &GrantId) -> record::authority::GrantStatement {
    use record::authority::Statement;
    use record::entry::Entry;
    let store = Snapshot::open(&site.dir).unwrap();
    let rows = store.scan(
        origin("jinfu", "authority").as_str(),
        "entry",
        b"",
        usize::MAX,
    );
    rows.unwrap()
        .iter()
        .filter_map(|(_, bytes)| match Entry::decode(bytes).unwrap() {
            Entry::Authority(entry) => match entry.statement {
                Statement::Grant(grant) => Some(grant),
                Statement::GrantAmended(amendment) => Some(amendment.grant),
                _ => None,
            },
            _ => None,
        })
        .rfind(|grant| grant.id == *id)
        .unwrap()
}

#[test]
fn an_amendment_that_policy_refuses_or_that_changes_nothing_is_no_plan() {
    let world = World::new();
    let market = GrantRequest {
        purpose: purpose("market"),
        ..request(&["name"], &[], History::Since)
    };
    let id = world.grant(&market);
    let (registry, officer) = (&world.community.registry, &world.community.officer);
    let plan =
        |to: AmendRequest| registry.plan(officer, &PlanRequest::AmendGrant { grant: id, to }, NOW);
    let excess = AmendRequest {
        fields: fields(&["name", "welfare"]),
        ..AmendRequest::default()
    };
    assert!(matches!(
        registry.plan_amendment(officer, &id, &excess, NOW),
        Err(RegistryError::Denied { .. })
    ));
    assert!(matches!(plan(excess), Err(RegistryError::Denied { .. })));
    let same = AmendRequest {
        fields: fields(&["name"]),
        ..AmendRequest::default()
    };
    assert!(matches!(plan(same), Err(RegistryError::BadRequest(_))));
    let no_plan = |work: &Work| !matches!(work, Work::AmendGrant { .. });
    assert!(registry.plans(NOW).iter().all(|line| no_plan(&line.work)));
}

#[test]
fn a_field_of_one_purpose_is_not_opened_in_rows_that_came_for_another() {
    // The new grant alone, and under its purpose, would be allowed. But within a group its field
    // key opens the rows of the grant before, which came for a purpose that does not allow it.
    let world = World::new();
    let (registry, officer) = (&world.community.registry, &world.community.officer);
    let market = GrantRequest {
        purpose: purpose("market"),
        ..request(&["guardian_name"], &[("grid", "G-01")], History::Since)
    };
    let welfare = request(&["welfare"], &[("grid", "G-02")], History::Since);
    assert!(registry.plan_grant(officer, &welfare, NOW).is_ok());
    world.grant(&market);
    assert!(matches!(
        registry.plan_grant(officer, &welfare, NOW),
        Err(RegistryError::Denied { .. })
    ));
    assert!(matches!(
        registry.grant(officer, &welfare, NOW),
        Err(RegistryError::Denied { .. })
    ));
    // In another group the purposes do not meet.
    let contact = request(&["phone"], &[("grid", "G-02")], History::Since);
    assert!(registry.grant(officer, &contact, NOW).is_ok());
}

#[test]
fn a_record_that_enters_comes_with_the_history_that_the_grant_allows() {
    let grants = [History::None, History::Since, History::All].map(|history| {
        let one = request(&["name", "phone", "changed"], &[("grid", "G-01")], history);
        (history, one)
    });
    for (history, one) in grants {
        let world = World::new();
        let id = world.grant(&one);
        let person = FIRST;
        for phone in ["15411111111", "15422222222"] {
            world.change(person, &[("phone", phone)]);
        }
        let record = world.change(person, &[("grid", "G-01")]);
        world.come_to_rest(NOW);
        let expected = match history {
            History::None | History::Since => vec![4],
            History::All => vec![1, 2, 3, 4],
        };
        assert_eq!(world.versions(record), expected, "{history:?}");
        world.change(person, &[("phone", "15433333333")]);
        world.come_to_rest(NOW);
        let expected = match history {
            History::None => vec![5],
            History::Since => vec![4, 5],
            History::All => vec![1, 2, 3, 4, 5],
        };
        assert_eq!(world.versions(record), expected, "{history:?}");
        // A turn of the epoch changes nothing of it.
        world.rotate(NOW);
        assert_eq!(world.versions(record), expected, "{history:?}");
        world.proven(&id, FIRST + 1);
        // Nor does the old epoch stay behind anywhere.
        let retire = PlanRequest::RetireEpoch {
            kind: kind("person"),
            epoch: 1,
        };
        world.run(&retire, NOW);
        world.verifies();
        // Less history is retracted, more comes.
        let to = |history| AmendRequest {
            history: Some(history),
            ..AmendRequest::default()
        };
        if history == History::All {
            world.amend_grant(id, to(History::None));
            assert_eq!(world.versions(record), [5]);
            assert!(
                world
                    .community
                    .registry
                    .destructions(NOW)
                    .unwrap()
                    .is_empty()
            );
            world.amend_grant(id, to(History::All));
            assert_eq!(world.versions(record), [1, 2, 3, 4, 5]);
            world.verifies();
        }
    }
}

#[test]
fn a_holder_whose_process_was_off_for_a_month_catches_up_in_order() {
    let mut world = World::new();
    let id = world.grant(&request(
        &["name", "phone", "grid", "changed"],
        &[("grid", "G-01")],
        History::Since,
    ));
    assert_eq!(world.names(), world.of(0..FIRST));
    let dir = world.department.dir.clone();
    // The department's process ends; the others go on for a month.
    let elsewhere = tempfile::tempdir().unwrap();
    let nobody = Site::root(elsewhere.path(), REALM, "nobody", NOW);
    std::mem::replace(&mut world.department, nobody).close();
    let mut expected: BTreeSet<usize> = (0..FIRST).collect();
    let quiet = |now: UnixMillis| {
        world.community.registry.tend_grants(now).unwrap();
        while world.community.registry.reseal_step(now).unwrap() {}
        for _ in 0..3 {
            replicate(&world.community, &world.town, now);
            replicate(&world.town, &world.district, now);
            world.community.registry.tend_grants(now).unwrap();
        }
    };
    for day in 1..=30u64 {
        let now = UnixMillis(NOW.0 + day * DAY);
        let person = (day as usize * 7) % PERSONS;
        let inside = expected.contains(&person);
        match day % 3 {
            0 => {
                let grid = if inside { "G-02" } else { "G-01" };
                world.change(person, &[("grid", grid)]);
                if inside {
                    expected.remove(&person);
                } else {
                    expected.insert(person);
                }
            }
            _ => {
                world.change(person, &[("phone", &format!("155{day:08}"))]);
            }
        }
        if day == 15 {
            let request = PlanRequest::RotateEpoch {
                kind: kind("person"),
                compromised: false,
            };
            world.run(&request, now);
        }
        if day % 5 == 0 {
            quiet(now);
        }
    }
    let month = UnixMillis(NOW.0 + 31 * DAY);
    quiet(month);
    let week_late = world.line(&id, month);
    assert!(week_late.receipts_overdue > 0, "the list says who is late");
    // It starts again, and fetches what it missed.
    world.department = Site::open(&dir, month);
    world.come_to_rest(month);
    let reader = world
        .department
        .registry
        .login("department-officer", PASSPHRASE, month)
        .unwrap();
    let rows = world.read_as(&reader, month).unwrap();
    let names: BTreeSet<String> = rows.keys().cloned().collect();
    assert_eq!(names, world.of(expected.iter().copied()));
    for person in &expected {
        let (record, version) = world.find(*person);
        let row = &rows[&world.persons[*person]["name"]];
        assert_eq!((row.record, row.version), (record, version));
    }
    let line = world.line(&id, month);
    assert_eq!(
        (line.receipts_missing, line.state),
        (0, GrantState::InForce)
    );
    world.proven(&id, expected.len());
    world.verifies();
}

// ---- processes -----------------------------------------------------------------------------

#[test]
fn a_department_whose_process_is_stopped_catches_up_and_the_command_line_amends_its_grant() {
    let base = tempfile::tempdir().unwrap();
    let trio = tests::trio::Trio::start(base.path(), "G-01", &[]);
    let community = trio.community.site.clone();
    community.enrol("fuhe", "security-officer", None);
    let mut table = tests::rows::community(7, 12).persons;
    let grid = table.headers.iter().position(|id| *id == "grid").unwrap();
    for (at, row) in table.rows.iter_mut().enumerate() {
        row[grid] = if at < 8 { "G-01" } else { "G-02" }.into();
    }
    let csv = tests::rows::write(&table, &base.path().join("person.csv"));
    community.json(["import", "person", csv.to_str().unwrap(), "--as", "dengji"]);
    trio.grant("name,grid", &["grid=G-01"]);
    let held = |trio: &tests::trio::Trio| {
        tests::site::records_in(&trio.department.http.status(), "person")
    };
    tests::until("the subset", || held(&trio) == 8);
    let list = || community.json(["grant", "list"])["grants"][0].clone();
    let id = list()["id"].as_str().unwrap().to_owned();
    // What the table says is what the other commands take.
    let table = community.run(["grant", "list"]).expect_code(0).printed();
    assert!(table.contains(&id) && table.contains("until"), "{table}");
    let renewed = community.json(["grant", "renew", &id, "--days", "90", "--as", "anquan"]);
    assert_eq!(renewed["not_after"], list()["not_after"], "{renewed}");

    // The department's process ends. Rows leave and enter, and the epoch turns.
    let department = trio.department.site.clone();
    trio.department.stop();
    let rows = community.json(["read", "person", "--as", "dengji", "--purpose", "service"]);
    let rows = rows["value"]["rows"].as_array().unwrap().clone();
    let of = |grid: &str| {
        let of = rows.iter().filter(|row| row["fields"]["grid"] == grid);
        of.map(|row| row["record"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let move_to = |record: &str, version: &str, grid: &str| {
        let set = format!("grid={grid}");
        community.json([
            "amend",
            "person",
            record,
            "--as",
            "dengji",
            "--version",
            version,
            "--set",
            &set,
        ]);
    };
    let (inside, outside) = (of("G-01"), of("G-02"));
    for record in &inside[..3] {
        move_to(record, "1", "G-02");
    }
    move_to(&outside[0], "1", "G-01");
    let run = |plan: &serde_json::Value| {
        let plan = plan["id"].as_str().unwrap();
        community.json(["keys", "approve", plan, "--as", "fuhe"]);
        community.json(["keys", "run", plan, "--as", "anquan"]);
    };
    run(&community.json(["keys", "plan", "rotate-epoch", "person", "--as", "anquan"]));
    // One comes back under the new epoch.
    move_to(&inside[0], "2", "G-01");
    tests::until("the owner works the grant through", || {
        let line = list();
        line["current"] == true && line["records"] == 7 && line["epoch"] == 2
    });
    assert!(list()["receipts_missing"].as_u64().unwrap() >= 3);

    let department = department.start();
    tests::until("the department has caught up", || {
        tests::site::records_in(&department.http.status(), "person") == 7
    });
    tests::until("its receipts", || list()["receipts_missing"] == 0);
    let names = department
        .site
        .json(["read", "person", "--as", "jingban", "--purpose", "welfare"]);
    let names = names["value"]["rows"].as_array().unwrap();
    assert!(names.iter().all(|row| row["fields"]["grid"] == "G-01"));
    assert_eq!(names.len(), 7);

    // Everybody of the community, without the grid: shown first, then planned.
    let amend = |more: &[&str]| {
        let args = [
            "grant",
            "amend",
            id.as_str(),
            "--as",
            "anquan",
            "--fields",
            "name",
        ];
        community.run(args.iter().chain(["--all-rows"].iter()).chain(more))
    };
    let shown = amend(&["--dry-run", "--json"]).expect_code(0).json();
    assert_eq!(shown["comes_to"]["entering"], 5);
    assert_eq!(
        shown["comes_to"]["fields_removed"],
        serde_json::json!(["grid"])
    );
    assert_eq!(shown["plan"], serde_json::Value::Null);
    let planned = amend(&["--json"]).expect_code(0).json();
    run(&planned["plan"]);
    tests::until("all rows", || {
        tests::site::records_in(&department.http.status(), "person") == 12
    });
    tests::until("its receipts", || list()["receipts_missing"] == 0);

    // What it has is proven as a file, up to the checkpoint that the community shows.
    let shard = list()["origin"].as_str().unwrap().to_owned();
    let note = base.path().join("checkpoint");
    tests::until("a heartbeat up to the checkpoint shown", || {
        let url = format!(
            "{}/ledger/{shard}/checkpoint",
            community_url(&trio.community)
        );
        let text = ureq::get(url).call().unwrap().into_body().read_to_string();
        std::fs::write(&note, text.unwrap()).unwrap();
        let file = base.path().join("grant.fzg");
        let _ = std::fs::remove_file(&file);
        let out = file.to_str().unwrap();
        department.site.json(["grant", "export", &id, "--out", out]);
        let checked = tests::process::call(
            [
                "grant",
                "verify",
                "--file",
                out,
                "--checkpoint",
                note.to_str().unwrap(),
                "--json",
            ]
            .map(std::ffi::OsString::from),
        );
        let answer = checked.json();
        checked.code == 0 && answer["grants"][0]["records"] == 12
    });
    department.stop();
    for site in [&department_site(base.path()), &community] {
        site.verified();
    }
}

fn department_site(base: &std::path::Path) -> tests::Site {
    tests::Site::at(&base.join("minzheng"))
}

fn community_url(running: &tests::site::Running) -> String {
    let run = tests::site::read_json(&running.site.dir.join("run.json")).unwrap();
    run["url"].as_str().unwrap().to_owned()
}

// ---- fields past their term --------------------------------------------------------------------

/// The shard's bodies of a record at a node, as they lie there.
fn sealed(site: &Site, record: RecordId) -> Vec<seal::body::Body> {
    let store = Snapshot::open(&site.dir).unwrap();
    let leaves = forge::leaves(&store, &origin("jinfu", "person"));
    let of = leaves.into_iter().filter_map(|(entry, body)| match entry {
        Entry::Record(entry) if entry.record == record => body,
        _ => None,
    });
    of.map(|bytes| seal::body::Body::decode(&bytes).unwrap())
        .collect()
}

#[test]
fn a_group_of_fields_past_its_term_is_destroyed_everywhere_and_the_record_stays() {
    let world = World::new();
    let registry = &world.community.registry;
    let officer = &world.community.officer;
    let with = world.grant(&request(
        &["name", "phone"],
        &[("grid", "G-01")],
        History::All,
    ));
    let without = world.grant(&request(
        &["birth_date"],
        &[("grid", "G-01")],
        History::Since,
    ));
    // Two versions of a phone number; one record went out of force long ago, one today.
    let long_ago = UnixMillis(NOW.0 - 400 * DAY);
    let mut closed = Vec::new();
    for (person, at) in [(0, long_ago), (1, NOW)] {
        world.change(person, &[("phone", "15400000099")]);
        let (record, version) = world.find(person);
        world
            .community
            .close_record(&world.clerk, "person", (record, version), at);
        closed.push(record);
    }
    world.come_to_rest(NOW);
    let phone = record::schema::Catalogue::builtin()
        .schema(&kind("person"))
        .unwrap()
        .field("phone")
        .unwrap()
        .position;
    let cells = |site: &Site, record| {
        let bodies = sealed(site, record);
        bodies.iter().filter(|b| b.cell(phone).is_some()).count()
    };
    let homes = [&world.community, &world.town, &world.district];
    assert!(homes.iter().all(|site| cells(site, closed[0]) == 3));
    let lines = |group: &str| {
        let lines = registry.retention(NOW).unwrap();
        let line = lines
            .into_iter()
            .find(|line| line.group.as_ref().is_some_and(|of| of.as_str() == group));
        line.map(|line| (line.closed, line.due))
    };
    registry.run_retention(officer, NOW).unwrap();
    assert_eq!(lines("contact"), None, "nobody ordered it");
    assert_eq!(cells(&world.community, closed[0]), 3);

    let class = |group: &str, days| record::plan::ClassTerm {
        kind: kind("person"),
        group: kind(group),
        days,
    };
    let order = |classes| PlanRequest::Fields { classes, days: 30 };
    // What says what a record is cannot be ordered away, and an unknown group is none.
    for group in ["control", "nothing"] {
        let refused = registry.plan(officer, &order(vec![class(group, 365)]), NOW);
        assert!(matches!(refused, Err(RegistryError::BadRequest(_))));
    }
    world.run(&order(vec![class("contact", 365)]), NOW);
    assert_eq!(lines("contact"), Some((2, 1)));
    // An order for fields is none for whole records.
    let whole = registry.retention(NOW).unwrap();
    let whole = whole.iter().filter(|line| line.group.is_none());
    assert!(whole.map(|line| line.ordered).all(|ordered| !ordered));
    registry.run_retention(officer, NOW).unwrap();
    assert_eq!(lines("contact"), Some((2, 0)));
    let waiting = registry.destructions(NOW).unwrap();
    assert!(waiting.iter().any(|line| !line.missing.is_empty()));
    world.come_to_rest(NOW);
    // Nowhere is a cell of it left, of no version; of the other record all are.
    for site in homes {
        assert_eq!(cells(site, closed[0]), 0);
        assert_eq!(cells(site, closed[1]), 3);
        for body in sealed(site, closed[0]) {
            assert_eq!(
                body.destroyed().map(|(at, _)| at).collect::<Vec<_>>(),
                [phone]
            );
        }
    }
    assert!(registry.destructions(NOW).unwrap().is_empty(), "receipted");
    // The record stays, with its other fields, for the clerk and for the holders.
    let request = ReadRequest {
        closed: true,
        ..reading(&[("citizen_number", &world.persons[0]["citizen_number"])])
    };
    let answer = registry.read(&world.clerk, &request, NOW).unwrap();
    let row = &answer.value().rows[0];
    assert_eq!(row.fields["name"], world.persons[0]["name"]);
    assert!(!row.fields.contains_key("phone"));
    let rows = world.read();
    let held = &rows[&world.persons[0]["name"]];
    assert!(!held.fields.contains_key("phone"));
    assert!(rows[&world.persons[1]["name"]].fields.contains_key("phone"));
    world.proven(&with, FIRST);
    world.proven(&without, FIRST);
    world.verifies();
    let why = registry
        .why(&closed[0], &division("minzheng"), NOW)
        .unwrap();
    for line in why {
        let steps: Vec<&str> = line.steps.iter().map(|step| step.operation).collect();
        let retracted = steps.contains(&"retract");
        assert_eq!(retracted, line.grant.id == with, "{steps:?}");
        assert!(line.holds);
    }
    // What is left of the history is proven as before: under another epoch, too.
    world.rotate(NOW);
    for site in homes {
        assert_eq!(cells(site, closed[0]), 0);
    }
    let retire = PlanRequest::RetireEpoch {
        kind: kind("person"),
        epoch: 1,
    };
    world.run(&retire, NOW);
    assert!(
        !world.read()[&world.persons[0]["name"]]
            .fields
            .contains_key("phone")
    );
    world.verifies();
    // A node that is opened anew from its files says the same.
    let dir = world.community.dir.clone();
    std::fs::remove_dir_all(dir.join("working-index")).unwrap();
    world.community.close();
    let community = Site::open(&dir, NOW);
    let clerk = community.registry.login("clerk", PASSPHRASE, NOW).unwrap();
    let answer = community.registry.read(&clerk, &request, NOW).unwrap();
    assert!(!answer.value().rows[0].fields.contains_key("phone"));
}

// ---- what a holder proves, and what is found -------------------------------------------------

/// The checkpoint of the shard that the community shows at present.
fn shown(world: &World) -> String {
    let store = Snapshot::open(&world.community.dir).unwrap();
    let head = forge::head(&store, &origin("jinfu", "person"));
    head.cosigned.unwrap()
}

#[test]
fn an_exported_file_proves_the_subset_up_to_a_named_checkpoint_without_any_directory() {
    let world = World::new();
    let id = world.grant(&request(&["name"], &[("grid", "G-01")], History::Since));
    let first = shown(&world);
    let at = tempfile::tempdir().unwrap();
    let file = at.path().join("grant.fzg");
    let exported = export_grant(&world.department.dir, &id, &file).unwrap();
    assert!(exported.ledgers.contains(&ledger(&id)));
    let checked = verify_file(&file, Some(&first)).unwrap();
    assert_eq!(checked.holder, division("minzheng"));
    assert_eq!(
        checked.root,
        data_encoding::HEXLOWER.encode(&world.district.charter().keys.sign)
    );
    let proof = &checked.grants[0];
    assert!(proof.ok, "{:?}", proof.findings);
    assert_eq!(proof.records, FIRST as u64);
    assert!(proof.named.as_ref().unwrap().reached);
    // Nothing in it opens: no name, no number.
    let bytes = std::fs::read(&file).unwrap();
    for person in &world.persons {
        for field in ["name", "citizen_number"] {
            let value = person[field].as_bytes();
            assert!(!bytes.windows(value.len()).any(|w| w == value));
        }
    }
    // The register goes on: the same file is true, and no longer current.
    world.change(1, &[("name", "新名字")]);
    world.come_to_rest(NOW);
    let later = shown(&world);
    let stale = verify_file(&file, Some(&later)).unwrap().grants.remove(0);
    assert!(!stale.ok && !stale.named.unwrap().reached);
    assert!(verify_file(&file, None).unwrap().grants[0].ok);
    let newer = at.path().join("newer.fzg");
    export_grant(&world.department.dir, &id, &newer).unwrap();
    for note in [&first, &later] {
        let proof = verify_file(&newer, Some(note)).unwrap().grants.remove(0);
        assert!(proof.ok, "{:?}", proof.findings);
    }
    // A checkpoint that the owner did not sign proves nothing.
    let forged = later.replacen("\u{2014} ", "\u{2014} x", 1);
    let answer = verify_file(&newer, Some(&forged));
    assert!(answer.is_err() || !answer.unwrap().grants[0].ok);
    // An exported file is not written over.
    assert!(export_grant(&world.department.dir, &id, &file).is_err());
}

#[test]
fn a_file_that_was_cut_or_changed_in_one_bit_proves_nothing() {
    let world = World::new();
    let id = world.grant(&request(&["name"], &[("grid", "G-01")], History::Since));
    let at = tempfile::tempdir().unwrap();
    let file = at.path().join("grant.fzg");
    export_grant(&world.department.dir, &id, &file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let holds = |bytes: &[u8]| {
        let path = at.path().join("altered.fzg");
        std::fs::write(&path, bytes).unwrap();
        match verify_file(&path, None) {
            Ok(v) => v.grants.iter().all(|g| g.ok) && !v.grants.is_empty(),
            Err(error) => {
                assert_eq!(error.code(), "altered", "{error}");
                assert!(!error.to_string().contains("fangzhi verify"), "{error}");
                false
            }
        }
    };
    assert!(holds(&bytes));
    for cut in [10, bytes.len() / 2, bytes.len() - 1] {
        assert!(!holds(&bytes[..cut]));
    }
    // One bit in a parcel, in an entry and in a head.
    let store = Snapshot::open(&world.department.dir).unwrap();
    let leaves = forge::leaves(&store, &ledger(&id));
    let parcel = leaves
        .iter()
        .find(|(entry, _)| matches!(entry, Entry::Grant(e) if e.operation == GrantOperation::Enter))
        .unwrap();
    for needle in [parcel.1.clone().unwrap(), parcel.0.encode()] {
        let place = bytes
            .windows(needle.len())
            .position(|w| w == needle)
            .unwrap();
        let mut altered = bytes.clone();
        altered[place + needle.len() / 2] ^= 1;
        assert!(!holds(&altered));
    }
}

#[test]
fn a_parcel_dropped_rows_reordered_an_old_heartbeat_and_a_forged_retraction_are_found() {
    let world = World::new();
    let id = world.grant(&request(&["name"], &[("grid", "G-01")], History::Since));
    world.change(1, &[("name", "改名")]);
    world.change(2, &[("grid", "G-02")]);
    world.come_to_rest(NOW);
    let ledger = ledger(&id);
    let holder = world.department.dir.clone();
    let owner = forge::keystore(&world.community.dir).sign;
    let owner = ed25519_dalek::SigningKey::from_bytes(owner.expose());
    for site in [
        world.community,
        world.town,
        world.district,
        world.department,
    ] {
        site.close();
    }
    let is = |entry: &Entry, wanted: GrantOperation| matches!(entry, Entry::Grant(e) if e.operation == wanted);
    let proof = |dir: &std::path::Path| verify_grants(dir, Some(&id)).unwrap().remove(0);
    assert!(proof(&holder).ok);
    let check = |what: &str, change: &dyn Fn(&std::path::Path)| {
        let copy = tempfile::tempdir().unwrap();
        let dir = copy.path().join("minzheng");
        copy_dir(&holder, &dir);
        change(&dir);
        let proof = proof(&dir);
        assert!(!proof.ok, "{what} is not found");
        assert!(!proof.findings.is_empty(), "{what}");
    };
    check("a parcel dropped", &|dir| {
        let store = forge::open_store(dir);
        let leaves = forge::leaves(&store, &ledger);
        let at = leaves
            .iter()
            .position(|(entry, body)| is(entry, GrantOperation::Enter) && body.is_some())
            .unwrap();
        let mut batch = store::Batch::new(ledger.as_str(), None);
        batch.delete(forge::key(&ledger, "body", at as u64));
        store.commit(&batch).unwrap();
    });
    check("two rows changed places", &|dir| {
        let store = forge::open_store(dir);
        let leaves = forge::leaves(&store, &ledger);
        let places: Vec<usize> = (0..leaves.len())
            .filter(|at| is(&leaves[*at].0, GrantOperation::Enter))
            .take(2)
            .collect();
        let mut batch = store::Batch::new(ledger.as_str(), None);
        for (to, from) in [(places[0], places[1]), (places[1], places[0])] {
            batch.put(
                forge::key(&ledger, "entry", to as u64),
                leaves[from].0.encode(),
            );
            if let Some(body) = leaves[from].1.clone() {
                batch.put_body(forge::key(&ledger, "body", to as u64), body);
            }
        }
        store.commit(&batch).unwrap();
    });
    // Signed by the owner itself, who goes back on its word.
    check("an old heartbeat", &|dir| {
        forge::rewrite(dir, &ledger, &owner, |leaves| {
            let beats: Vec<usize> = (0..leaves.len())
                .filter(|at| is(&leaves[*at].0, GrantOperation::Heartbeat))
                .collect();
            let old = leaves[beats[0]].clone();
            let last = *beats.last().unwrap();
            leaves[last] = old;
        });
    });
    // By a hop, which has not the owner's key.
    let hop = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    check("a forged retraction", &|dir| {
        forge::rewrite(dir, &ledger, &hop, |leaves| {
            let row = leaves
                .iter()
                .find_map(|(entry, _)| match entry {
                    Entry::Grant(e) if e.operation == GrantOperation::Enter => Some(e.clone()),
                    _ => None,
                })
                .unwrap();
            let end = leaves.len() - 1;
            leaves.insert(
                end,
                (
                    Entry::Grant(GrantEntry {
                        operation: GrantOperation::Retract,
                        parcel: None,
                        ..row
                    }),
                    None,
                ),
            );
        });
    });
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
