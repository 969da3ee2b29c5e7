//! Proposals among nodes in this process: what policy, clocks, forgeries and erasures do to them.

use std::collections::BTreeMap;

use record::authority::{Level, Role};
use record::entry::Entry;
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::letter::{LetterEntry, Step};
use registry::RegistryError;
use registry::grant::GrantRequest;
use registry::proposals::answer::{Acceptance, Refusal};
use registry::proposals::send::ProposeRequest;
use registry::proposals::show::{Opening, ShowRequest};
use registry::proposals::{DAY_MAX, Line, OPEN_MAX, State};
use registry::read::ReadRequest;
use registry::session::Session;
use serde_json::{Value, json};
use store::{Snapshot, Store};
use tests::realm::forge::{self, keystore};
use tests::realm::{
    DAY, NOW, REALM, Row, Site, division, kind, origin, purpose, reading_person, rows, settle,
};

const FIELDS: [&str; 4] = ["name", "citizen_number", "phone", "room_code"];

struct World {
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    community: Site,
    other: Site,
    department: Site,
    clerk: Session,
    officer: Session,
    aggregator: Session,
    persons: Vec<Row>,
}

fn grant_request(days: u32) -> GrantRequest {
    GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: FIELDS.map(str::to_owned).to_vec(),
        rows: BTreeMap::new(),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法 第九条".into(),
        assessment: "PIA-1".into(),
        history: record::authority::History::default(),
        days,
    }
}

fn propose(record: Option<RecordId>, changes: &[(&str, &str)]) -> ProposeRequest {
    ProposeRequest {
        to: division("jinfu"),
        kind: kind("person"),
        record,
        find: BTreeMap::new(),
        changes: { changes.iter() }
            .map(|(field, value)| ((*field).into(), (*value).into()))
            .collect(),
        close: false,
        reopen: false,
        reason: kind("moved"),
        basis: "户口登记条例 第十七条".into(),
        note: Some("以救助申请材料为准".into()),
        purpose: purpose("welfare"),
        days: 30,
    }
}

fn accept(version: Option<u64>) -> Acceptance {
    Acceptance {
        changes: BTreeMap::new(),
        version,
        purpose: purpose("correction"),
        words: None,
    }
}

fn refuse(reason: &str) -> Refusal {
    Refusal {
        reason: kind(reason),
        words: Some("与底册不符，请核对证件".into()),
        purpose: purpose("correction"),
    }
}

fn value(opening: &watermark::Marked<Opening>) -> Value {
    json!(opening.value())
}

impl World {
    fn new(days: u32) -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
        let other = Site::join(&town, at, "fucheng", Level::Community, NOW);
        let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let officer = department.operator(Role::DepartmentOfficer, None, NOW);
        let aggregator = district.operator(Role::DistrictOfficer, None, NOW);
        let persons = rows("person", 5, 6, 1);
        community.import(&clerk, "person", &persons, NOW);
        let world = Self {
            base,
            district,
            town,
            community,
            other,
            department,
            clerk,
            officer,
            aggregator,
            persons,
        };
        world.settle(NOW);
        let request = grant_request(days);
        let officer = &world.community.officer;
        world
            .community
            .registry
            .grant(officer, &request, NOW)
            .unwrap();
        world.settle(NOW);
        world
    }

    fn settle(&self, now: UnixMillis) {
        let links = [
            (&self.community, &self.town),
            (&self.other, &self.town),
            (&self.town, &self.district),
            (&self.department, &self.district),
        ];
        settle(&links, now);
    }

    /// A person's record and newest version, as a holder reads it.
    fn person(&self, at: usize) -> RecordId {
        let request = ReadRequest {
            fields: Some(vec!["name".into()]),
            ..reading_person(&self.persons[at], "welfare")
        };
        let registry = &self.department.registry;
        let answer = registry.read(&self.officer, &request, NOW).unwrap();
        answer.value().rows[0].record
    }

    /// What the owner has of a person.
    fn owned(&self, record: RecordId, field: &str, now: UnixMillis) -> (u64, Option<String>) {
        let request = ReadRequest {
            kind: kind("person"),
            filters: vec![],
            fields: None,
            purpose: purpose("service"),
            basis: None,
            closed: true,
            limit: None,
        };
        let registry = &self.community.registry;
        let clerk = registry
            .login("clerk", tests::realm::PASSPHRASE, now)
            .unwrap();
        let answer = registry.read(&clerk, &request, now).unwrap();
        let row = { answer.value().rows.iter() }.find(|row| row.record == record);
        let row = row.unwrap();
        (row.version, row.fields.get(field).cloned())
    }

    fn propose(&self, request: &ProposeRequest, now: UnixMillis) -> Line {
        let line = self
            .department
            .registry
            .propose(&self.officer, request, now);
        let line = line.unwrap();
        self.settle(now);
        line
    }

    fn sent(&self, line: &Line) -> State {
        let lines = self.department.registry.proposals(true).unwrap();
        lines.iter().find(|l| l.name == line.name).unwrap().state
    }

    fn inbox(&self) -> Vec<Line> {
        self.community.registry.inbox(false).unwrap()
    }

    fn answer_of(&self, line: &Line, now: UnixMillis) -> Value {
        let registry = &self.department.registry;
        let (to, request) = (division("jinfu"), ShowRequest::default());
        let opening = registry.show_proposal(&self.officer, &to, line.index, &request, now);
        value(&opening.unwrap())["answer"].clone()
    }

    fn verify(self) {
        let World {
            base,
            district,
            town,
            community,
            other,
            department,
            ..
        } = self;
        for site in [district, town, community, other, department] {
            let dir = site.close();
            let report = registry::verify::verify(&dir).unwrap();
            assert!(
                report.findings.is_empty(),
                "{}: {:?}",
                dir.display(),
                report.findings
            );
        }
        drop(base);
    }
}

/// Bodies of a ledger that are at a node.
fn bodies(site: &Site, ledger: &Origin) -> usize {
    let store = Snapshot::open(&site.dir).unwrap();
    let rows = store.scan(ledger.as_str(), registry::table::BODY, &[], usize::MAX);
    rows.unwrap().len()
}

fn ledgers() -> (Origin, Origin) {
    let origin = |text: &str| Origin::parse(&format!("{REALM}/{text}")).unwrap();
    (
        origin("minzheng/proposals/jinfu"),
        origin("jinfu/answers/minzheng"),
    )
}

#[test]
fn a_proposal_goes_to_its_owner_only_is_accepted_and_leaves_no_body_on_the_way() {
    let world = World::new(180);
    let record = world.person(0);
    let line = world.propose(&propose(Some(record), &[("phone", "13800138000")]), NOW);
    let (proposals, answers) = ledgers();
    assert_eq!(bodies(&world.town, &proposals), 1);
    let shards = world.other.registry.status().unwrap().ledgers;
    assert!(shards.iter().all(|ledger| ledger.origin != proposals));

    let inbox = world.inbox();
    assert_eq!(inbox.len(), 1);
    assert_eq!(inbox[0].name, format!("minzheng/{}", line.index));
    let counts = world.community.registry.status().unwrap().proposals;
    assert_eq!((counts.inbox_open, counts.inbox_oldest), (1, Some(NOW)));
    let show = ShowRequest {
        purpose: Some(purpose("correction")),
        basis: None,
    };
    let registry = &world.community.registry;
    let from = division("minzheng");
    let opening = registry
        .show_inbox(&world.clerk, &from, line.index, &show, NOW)
        .unwrap();
    let opening = value(&opening);
    assert_eq!(opening["changes"], json!({ "phone": "13800138000" }));
    assert_eq!(opening["note"], "以救助申请材料为准");
    assert_eq!(
        (&opening["seen"], &opening["newest"]),
        (&json!(1), &json!(1))
    );

    let done = registry.accept_proposal(&world.clerk, &from, line.index, &accept(None), NOW);
    let done = done.unwrap();
    assert_eq!(done.line.state, State::Accepted);
    assert_eq!(
        world.owned(record, "phone", NOW),
        (2, Some("13800138000".into()))
    );
    world.settle(NOW);
    assert_eq!(world.sent(&line), State::Accepted);
    let answer = world.answer_of(&line, NOW);
    let written = done.written.unwrap();
    assert_eq!(answer["record"], json!(record));
    assert_eq!(
        (&answer["version"], &answer["index"]),
        (&json!(2), &json!(written.index))
    );
    // Ended and acknowledged: what was said lies at the two desks only.
    for site in [
        &world.department,
        &world.district,
        &world.town,
        &world.community,
    ] {
        assert_eq!((bodies(site, &proposals), bodies(site, &answers)), (0, 0));
    }
    // Once more is an error, and changes nothing.
    let again = registry.accept_proposal(&world.clerk, &from, line.index, &accept(None), NOW);
    assert!(matches!(again, Err(RegistryError::BadRequest(_))));
    assert_eq!(world.owned(record, "phone", NOW).0, 2);
    world.verify();
}

#[test]
fn what_policy_does_not_allow_is_not_proposed_and_what_the_owners_forbids_is_refused_by_rule() {
    let world = World::new(1);
    let record = world.person(1);
    let registry = &world.department.registry;
    let rule = |request: &ProposeRequest| match registry.propose(&world.officer, request, NOW) {
        Err(RegistryError::Denied { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    // A field that was not granted, another purpose, another owner's record.
    assert_eq!(rule(&propose(Some(record), &[("sex", "2")])), "not-granted");
    let mut health = propose(Some(record), &[("phone", "13800138000")]);
    health.purpose = purpose("health");
    assert_eq!(rule(&health), "a-grant-serves-only-its-purpose");
    let mut elsewhere = propose(Some(record), &[("phone", "13800138000")]);
    elsewhere.to = division("fucheng");
    let wrong = registry
        .propose(&world.officer, &elsewhere, NOW)
        .unwrap_err();
    assert!(wrong.to_string().contains("`jinfu`"), "{wrong}");
    let mut anew = propose(None, &[("name", "王小明"), ("phone", "13800138000")]);
    anew.to = division("fucheng");
    assert_eq!(rule(&anew), "only-inside-the-own-organization");

    // The proposer's clock is behind: to the owner the grant has ended.
    let line = registry
        .propose(
            &world.officer,
            &propose(Some(record), &[("phone", "13800138000")]),
            NOW,
        )
        .unwrap();
    let later = UnixMillis(NOW.0 + 2 * DAY);
    world.settle(later);
    assert!(world.inbox().is_empty());
    assert_eq!(world.sent(&line), State::Refused);
    let (proposals, answers) = ledgers();
    assert_eq!(
        (
            bodies(&world.community, &proposals),
            bodies(&world.department, &answers)
        ),
        (0, 0)
    );
    assert_eq!(world.owned(record, "phone", later).0, 1);
    world.verify();
}

#[test]
fn a_parent_proposes_without_a_grant_what_it_may_and_no_more() {
    let world = World::new(180);
    let record = world.person(2);
    let registry = &world.district.registry;
    let mut request = propose(Some(record), &[]);
    request.purpose = purpose("correction");
    request.close = true;
    request.reason = kind("death");
    let line = registry.propose(&world.aggregator, &request, NOW).unwrap();
    let mut phone = propose(Some(record), &[("phone", "13800138000")]);
    phone.purpose = purpose("correction");
    let refused = registry.propose(&world.aggregator, &phone, NOW);
    assert!(
        matches!(refused, Err(RegistryError::Denied { .. })),
        "{refused:?}"
    );
    world.settle(NOW);
    let community = &world.community.registry;
    let from = division("jiangjin");
    community
        .accept_proposal(&world.clerk, &from, line.index, &accept(None), NOW)
        .unwrap();
    world.settle(NOW);
    assert_eq!(world.owned(record, "status", NOW), (2, Some("60".into())));
    assert_eq!(registry.proposals(true).unwrap()[0].state, State::Accepted);
    world.verify();
}

#[test]
fn of_two_competing_proposals_the_second_is_accepted_over_the_version_that_was_seen_only() {
    let world = World::new(180);
    let record = world.person(3);
    let one = world.propose(&propose(Some(record), &[("room_code", "A-101")]), NOW);
    let two = world.propose(&propose(Some(record), &[("room_code", "B-202")]), NOW);
    let registry = &world.community.registry;
    let from = division("minzheng");
    registry
        .accept_proposal(&world.clerk, &from, one.index, &accept(None), NOW)
        .unwrap();
    let stale = registry.accept_proposal(&world.clerk, &from, two.index, &accept(None), NOW);
    assert!(
        matches!(stale, Err(RegistryError::Stale { newest: 2 })),
        "{stale:?}"
    );
    assert_eq!(world.inbox().len(), 1);
    registry
        .accept_proposal(&world.clerk, &from, two.index, &accept(Some(2)), NOW)
        .unwrap();
    assert_eq!(
        world.owned(record, "room_code", NOW),
        (3, Some("B-202".into()))
    );
    world.settle(NOW);
    assert_eq!([world.sent(&one), world.sent(&two)], [State::Accepted; 2]);
    world.verify();
}

#[test]
fn an_amended_answer_names_the_fields_and_a_refusal_its_reason_and_neither_a_value() {
    let world = World::new(180);
    let record = world.person(4);
    let amended = world.propose(
        &propose(
            Some(record),
            &[("room_code", "A-101"), ("phone", "13800138000")],
        ),
        NOW,
    );
    let refused = world.propose(&propose(Some(record), &[("name", "李四")]), NOW);
    let registry = &world.community.registry;
    let from = division("minzheng");
    let mut otherwise = accept(None);
    otherwise.changes.insert("room_code".into(), "A-102".into());
    let done = registry
        .accept_proposal(&world.clerk, &from, amended.index, &otherwise, NOW)
        .unwrap();
    assert_eq!(done.line.state, State::Amended);
    registry
        .refuse_proposal(
            &world.clerk,
            &from,
            refused.index,
            &refuse("wrong-person"),
            NOW,
        )
        .unwrap();
    world.settle(NOW);
    assert_eq!(
        world.owned(record, "room_code", NOW).1.as_deref(),
        Some("A-102")
    );
    let answer = world.answer_of(&amended, NOW);
    assert_eq!(answer["otherwise"], json!(["room_code"]));
    assert!(!answer.to_string().contains("A-102"));
    let answer = world.answer_of(&refused, NOW);
    assert_eq!(answer["reason"], "wrong-person");
    assert_eq!(answer["words"], "与底册不符，请核对证件");
    assert_eq!(world.sent(&refused), State::Refused);
    world.verify();
}

#[test]
fn a_birth_is_registered_once_and_who_named_a_value_learns_no_record() {
    let world = World::new(180);
    let mut birth = propose(None, &[("name", "王小明"), ("phone", "13800138000")]);
    birth.reason = kind("birth");
    let birth = world.propose(&birth, NOW);
    let mut found = propose(None, &[("phone", "13900139000")]);
    let number = world.persons[0]["citizen_number"].clone();
    found.find.insert("citizen_number".into(), number);
    let found = world.propose(&found, NOW);
    let mut nobody = propose(None, &[("phone", "13900139000")]);
    nobody
        .find
        .insert("citizen_number".into(), "11010519491231002X".into());
    let nobody = world.propose(&nobody, NOW);

    let registry = &world.community.registry;
    let from = division("minzheng");
    let before = registry.status().unwrap().holdings;
    let count = |lines: &[registry::status::HoldingLine]| {
        { lines.iter() }
            .filter(|l| l.kind == "person")
            .map(|l| l.records)
            .sum::<u64>()
    };
    let done = registry
        .accept_proposal(&world.clerk, &from, birth.index, &accept(None), NOW)
        .unwrap();
    assert_eq!(done.written.unwrap().version, 1);
    assert_eq!(
        count(&registry.status().unwrap().holdings),
        count(&before) + 1
    );
    registry
        .accept_proposal(&world.clerk, &from, found.index, &accept(None), NOW)
        .unwrap();
    let record = world.person(0);
    assert_eq!(
        world.owned(record, "phone", NOW),
        (2, Some("13900139000".into()))
    );
    let unknown = registry.accept_proposal(&world.clerk, &from, nobody.index, &accept(None), NOW);
    assert!(
        matches!(unknown, Err(RegistryError::NotFound { .. })),
        "{unknown:?}"
    );
    world.settle(NOW);
    for line in [&birth, &found] {
        assert_eq!(world.sent(line), State::Accepted);
        let answer = world.answer_of(line, NOW);
        assert!(
            answer["record"].is_null() && answer["index"].is_null(),
            "{answer}"
        );
    }
    world.verify();
}

#[test]
fn a_proposal_that_tells_its_clerk_who_is_registered_is_recorded_first() {
    let world = World::new(180);
    let number = world.persons[1]["citizen_number"].clone();
    let mut birth = propose(None, &[("name", "王小明"), ("citizen_number", &number)]);
    birth.reason = kind("birth");
    let birth = world.propose(&birth, NOW);
    let access = origin("jinfu", "access");
    let registry = &world.community.registry;
    let size = || {
        let status = registry.status().unwrap();
        let line = status.ledgers.iter().find(|l| l.origin == access);
        line.map_or(0, |line| line.size)
    };
    let (before, from) = (size(), division("minzheng"));
    let refused = registry.accept_proposal(&world.clerk, &from, birth.index, &accept(None), NOW);
    assert!(
        matches!(refused, Err(RegistryError::Invalid(_))),
        "{refused:?}"
    );
    assert_eq!(size(), before + 2, "the answer and its act");
    world.verify();
}

#[test]
fn what_nobody_answers_expires_and_what_is_withdrawn_is_gone_everywhere() {
    let world = World::new(180);
    let record = world.person(0);
    let mut request = propose(Some(record), &[("phone", "13800138000")]);
    request.days = 3;
    let late = world.propose(&request, NOW);
    let back = world.propose(&propose(Some(record), &[("name", "李四")]), NOW);
    let to = division("jinfu");
    let registry = &world.department.registry;
    registry
        .withdraw_proposal(&world.officer, &to, back.index, NOW)
        .unwrap();
    assert!(
        registry
            .withdraw_proposal(&world.officer, &to, back.index, NOW)
            .is_err()
    );
    world.settle(NOW);
    assert_eq!(world.inbox().len(), 1);
    let (proposals, _) = ledgers();
    assert_eq!(bodies(&world.town, &proposals), 1);
    let later = UnixMillis(NOW.0 + 4 * DAY);
    let from = division("minzheng");
    let clerk = world
        .community
        .registry
        .login("clerk", tests::realm::PASSPHRASE, later)
        .unwrap();
    let owner = &world.community.registry;
    assert!(
        owner
            .accept_proposal(&clerk, &from, late.index, &accept(None), later)
            .is_err()
    );
    owner.tend_letters(later);
    world.settle(later);
    assert_eq!(world.sent(&late), State::Expired);
    assert_eq!(world.sent(&back), State::Withdrawn);
    assert!(world.inbox().is_empty());
    assert_eq!(bodies(&world.town, &proposals), 0);
    world.verify();
}

#[test]
fn a_proposal_that_is_replayed_is_refused_and_its_first_counts() {
    let world = World::new(180);
    let record = world.person(1);
    let line = world.propose(&propose(Some(record), &[("phone", "13800138000")]), NOW);
    let (proposals, _) = ledgers();
    let World {
        base,
        district,
        town,
        community,
        other,
        department,
        clerk,
        ..
    } = world;
    let dir = department.close();
    let keys = keystore(&dir);
    let owner = ed25519_dalek::SigningKey::from_bytes(keys.sign.expose());
    let officer = forge::operator_key(&dir, "department-officer");
    let (letter, act) = {
        let store = forge::open_store(&dir);
        let leaves = forge::leaves(&store, &proposals);
        let Entry::Act(act) = leaves[line.index as usize + 1].0.clone() else {
            panic!("no act");
        };
        let (entry, body) = leaves[line.index as usize].clone();
        ((entry, body.unwrap()), act)
    };
    let act = record::act::Act {
        capacity: record::act::Capacity::Operator,
        ..act
    };
    forge::append(&dir, &proposals, &owner, letter, (act, &officer));
    // The guard knows that this node did not sign it; whoever forges has that file, too.
    let mut signed = dir.clone().into_os_string();
    signed.push(".signed");
    std::fs::remove_dir_all(signed).unwrap();
    let department = Site::open(&dir, NOW);
    let links = [
        (&department, &district),
        (&town, &district),
        (&community, &town),
        (&other, &town),
    ];
    settle(&links, NOW);
    let registry = &community.registry;
    let all = registry.inbox(true).unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!([all[0].state, all[1].state], [State::Open, State::Refused]);
    let from = division("minzheng");
    registry
        .accept_proposal(&clerk, &from, line.index, &accept(None), NOW)
        .unwrap();
    settle(&links, NOW);
    let sent = department.registry.proposals(true).unwrap();
    assert_eq!((sent.len(), sent[0].state), (1, State::Accepted));
    drop(base);
}

#[test]
fn a_proposer_that_sends_more_or_larger_letters_than_it_may_fills_nobodys_disk() {
    let world = World::new(180);
    let record = world.person(1);
    let line = world.propose(&propose(Some(record), &[("phone", "13800138000")]), NOW);
    let (proposals, _) = ledgers();
    let World {
        base,
        district,
        department,
        ..
    } = world;
    let dir = department.close();
    let keys = keystore(&dir);
    let owner = ed25519_dalek::SigningKey::from_bytes(keys.sign.expose());
    let officer = forge::operator_key(&dir, "department-officer");
    let act = {
        let store = forge::open_store(&dir);
        let leaves = forge::leaves(&store, &proposals);
        let Entry::Act(act) = leaves[line.index as usize + 1].0.clone() else {
            panic!("no act");
        };
        act
    };
    let body = vec![0; 200_000];
    let hash: Hash = <sha2::Sha256 as sha2::Digest>::digest(&body).into();
    let letter = LetterEntry {
        suite: 1,
        step: Step::Propose,
        id: record::id::LetterId([9; 16]),
        answers: None,
        entry: None,
        content: Some([1; 32]),
        body: Some(hash),
        until: Some(NOW),
        recorded_at: NOW,
    };
    forge::append(
        &dir,
        &proposals,
        &owner,
        (Entry::Letter(letter), body),
        (act, &officer),
    );
    let mut signed = dir.clone().into_os_string();
    signed.push(".signed");
    std::fs::remove_dir_all(signed).unwrap();
    let department = Site::open(&dir, NOW);
    let seen = tests::realm::replicate(&department, &district, NOW);
    assert!(
        seen.not_kept.iter().any(|(origin, _)| *origin == proposals),
        "{seen:?}"
    );
    assert_eq!(bodies(&district, &proposals), 1);
    let alarms = district.registry.alarms().unwrap();
    assert!(
        alarms
            .iter()
            .any(|a| a.origin == proposals && a.code == "letters")
    );
    drop(base);
}

#[test]
fn a_proposer_is_told_when_as_many_wait_as_may() {
    let world = World::new(180);
    let record = world.person(1);
    let registry = &world.department.registry;
    let request = propose(Some(record), &[("phone", "13800138000")]);
    for _ in 0..OPEN_MAX {
        registry.propose(&world.officer, &request, NOW).unwrap();
    }
    let full = registry.propose(&world.officer, &request, NOW).unwrap_err();
    assert!(full.to_string().contains(&OPEN_MAX.to_string()), "{full}");
    const { assert!(OPEN_MAX < DAY_MAX) };
    world.settle(NOW);
    assert_eq!(world.inbox().len() as u64, OPEN_MAX);
    world.verify();
}

#[test]
fn erasing_a_record_destroys_what_was_proposed_of_it_and_ends_what_waits() {
    use registry::plan::approve::plan_id;
    use registry::plan::request::PlanRequest;
    let world = World::new(180);
    let record = world.person(2);
    let done = world.propose(&propose(Some(record), &[("phone", "13800138000")]), NOW);
    let registry = &world.community.registry;
    let from = division("minzheng");
    registry
        .accept_proposal(&world.clerk, &from, done.index, &accept(None), NOW)
        .unwrap();
    world.settle(NOW);
    let waits = world.propose(&propose(Some(record), &[("name", "李四")]), NOW);
    let second = world
        .community
        .enrol("fu-yi", Role::SecurityOfficer, None, NOW);
    let third = world
        .community
        .enrol("fu-er", Role::SecurityOfficer, None, NOW);
    let request = PlanRequest::Erase {
        kind: kind("person"),
        record,
        basis: "个人信息保护法 第四十七条".into(),
    };
    let officer = &world.community.officer;
    let plan = registry.plan(officer, &request, NOW).unwrap();
    let id = plan_id(&plan.id).unwrap();
    for officer in [&second, &third] {
        registry.approve(officer, &id, true, NOW).unwrap();
    }
    registry.run_plan(officer, &id, NOW).unwrap();
    registry.tend_letters(NOW);
    let show = ShowRequest {
        purpose: Some(purpose("correction")),
        basis: None,
    };
    for line in [&done, &waits] {
        let gone = registry.show_inbox(&world.clerk, &from, line.index, &show, NOW);
        assert!(matches!(gone, Err(RegistryError::NotFound { .. })));
    }
    world.settle(NOW);
    assert_eq!(world.sent(&waits), State::Refused);
    let hour = UnixMillis(NOW.0 + 2 * 3_600_000);
    world.department.registry.tend_letters(hour);
    let to = division("jinfu");
    let show = ShowRequest::default();
    let gone =
        { &world.department.registry }.show_proposal(&world.officer, &to, done.index, &show, hour);
    assert!(matches!(gone, Err(RegistryError::NotFound { .. })));
    world.verify();
}

// ---- keys that change while a letter is under way -----------------------------------------------

/// A node gets other keys, as two officers of it approved.
fn rotate(site: &Site, parent: &Site, now: UnixMillis) {
    let second = site.enrol("second", Role::SecurityOfficer, None, now);
    let registry = &site.registry;
    let request = registry::plan::request::PlanRequest::RotateNode {};
    let plan = registry.plan(&site.officer, &request, now).unwrap();
    let plan = registry::plan::approve::plan_id(&plan.id).unwrap();
    registry.approve(&second, &plan, true, now).unwrap();
    registry.run_plan(&site.officer, &plan, now).unwrap();
    tests::realm::replicate(site, parent, now);
    let ask = registry.renewal_step(now).unwrap().unwrap();
    let chain = parent.registry.renew_charter(&ask.request, now).unwrap();
    registry.renewed(&chain, now).unwrap();
    while registry.renewal_step(now).unwrap().is_some() {}
}

#[test]
fn letters_under_way_when_their_reader_changes_its_keys_open_and_its_old_key_goes_when_none_can_be()
{
    let mut world = World::new(60);
    let record = world.person(0);
    let old = world.community.charter();
    // Sealed to the owner's keys of today, and not sent yet.
    let request = propose(Some(record), &[("phone", "15400000001")]);
    let sent = world
        .department
        .registry
        .propose(&world.officer, &request, NOW);
    let sent = sent.unwrap();
    rotate(&world.community, &world.town, NOW);
    assert_ne!(world.community.charter().keys.seal, old.keys.seal);
    // Another one, by a proposer who has not heard of it; and the proposer changes its keys, too.
    let request = propose(Some(record), &[("name", "李新名")]);
    let later = world
        .department
        .registry
        .propose(&world.officer, &request, NOW);
    let later = later.unwrap();
    world.settle(NOW);
    let inbox = world.inbox();
    assert_eq!(inbox.len(), 2, "{inbox:?}");
    let from = division("minzheng");
    let registry = &world.community.registry;
    let clerk = registry
        .login("clerk", tests::realm::PASSPHRASE, NOW)
        .unwrap();
    let taken = registry.accept_proposal(&clerk, &from, sent.index, &accept(None), NOW);
    taken.unwrap();
    rotate(&world.department, &world.district, NOW);
    world.settle(NOW);
    world.officer = world
        .department
        .registry
        .clone()
        .login("department-officer", tests::realm::PASSPHRASE, NOW)
        .unwrap();
    assert_eq!(world.sent(&sent), State::Accepted);
    assert!(!world.answer_of(&sent, NOW).is_null(), "the answer opens");
    let registry = &world.community.registry;
    let refused = registry.refuse_proposal(&clerk, &from, later.index, &refuse("not-so"), NOW);
    refused.unwrap();
    world.settle(NOW);
    assert_eq!(world.sent(&later), State::Refused);
    assert_eq!(
        world.owned(record, "phone", NOW).1.as_deref(),
        Some("15400000001")
    );

    // The key before is kept as long as a proposal may wait and its answer be on its way, no longer.
    let former = |site: &Site| keystore(&site.dir).former.len();
    let day = |days: u64| UnixMillis(NOW.0 + days * DAY);
    world.community.registry.tend_grants(day(119)).unwrap();
    assert_eq!(former(&world.community), 1);
    world.community.registry.tend_grants(day(121)).unwrap();
    assert_eq!(former(&world.community), 0);
    world.verify();
}
