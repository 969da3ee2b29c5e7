//! Reading: recorded before anything is opened, marked before it leaves, and only what policy shows.
//!
//! A community with a clerk, a grid worker, an auditor and a security officer, asked over its HTTP
//! routes in this process; and a node on a disk that takes no more, as a process.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use ledger::hash::leaf_hash;
use record::authority::{AuthorityEntry, Level, Role, Statement};
use record::entry::{Entry, SUITE};
use record::id::{Origin, UnixMillis};
use registry::RegistryError;
use registry::read::{AccessBody, ReadRequest, Reading, Returned};
use registry::session::SESSION_MILLIS;
use registry::{node::CHARTER_MILLIS, table};
use serde_json::{Value, json};
use store::{Snapshot, Store};
use tests::realm::daemon::Daemon;
use tests::realm::forge::{self, keystore};
use tests::realm::{PASSPHRASE, REALM, Row, Site, clock, kind, origin, purpose, rows};
use tower::ServiceExt;
use watermark::{Mark, MarkKey};

const PERSONS: usize = 40;
const GRIDS: [&str; 2] = ["999999100002001", "999999100002002"];

/// A community whose routes are asked in this process.
struct Community {
    _base: tempfile::TempDir,
    site: Site,
    router: Router,
    runtime: tokio::runtime::Runtime,
    persons: Vec<Row>,
}

impl Community {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let now = clock();
        let root = Site::root(base.path(), REALM, "shuangfu", now);
        let site = Site::join(&root, base.path(), "jinfu", Level::Community, now);
        root.close();
        let clerk = site.operator(Role::Clerk, None, now);
        site.operator(Role::GridWorker, Some(GRIDS[0]), now);
        site.operator(Role::Auditor, None, now);
        let mut persons = rows("person", 3, PERSONS, 1);
        for (at, row) in persons.iter_mut().enumerate() {
            row.insert("grid".into(), GRIDS[at % 2].into());
        }
        site.import(&clerk, "person", &persons, now);
        site.import(&clerk, "room", &rows("room", 3, PERSONS, 1), now);
        site.import(&clerk, "address", &rows("address", 3, PERSONS, 1), now);
        let router = api::router(api::AppState::new(site.registry.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            _base: base,
            site,
            router,
            runtime,
            persons,
        }
    }

    fn call(&self, method: Method, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 26)
                .await
                .unwrap();
            (
                status,
                serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            )
        })
    }

    fn login(&self, role: &str) -> String {
        let login = json!({ "login": role, "passphrase": PASSPHRASE });
        let (status, session) = self.call(Method::POST, "/api/v1/sessions", None, &login);
        assert_eq!(status, 200, "{session}");
        session["token"].as_str().unwrap().to_owned()
    }

    fn read(&self, token: &str, request: &Value) -> (u16, Value) {
        self.call(Method::POST, "/api/v1/read", Some(token), request)
    }

    /// Reads as a role that is let in for this.
    fn answer(&self, role: &str, request: &Value) -> Value {
        let (status, answer) = self.read(&self.login(role), request);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Reads as a role that is turned away; gives the failure.
    fn denied(&self, role: &str, request: &Value) -> Value {
        let (status, failure) = self.read(&self.login(role), request);
        assert_eq!(
            (status, &failure["code"]),
            (403, &json!("denied")),
            "{failure}"
        );
        assert!(failure["ask"].as_str().is_some_and(|ask| !ask.is_empty()));
        failure
    }

    /// What the access ledger says of each entry, opened with the node's own key.
    fn access(&self) -> Vec<Option<AccessBody>> {
        access(&self.site.dir)
    }

    fn person(&self, at: usize, field: &str) -> &str {
        self.persons[at].get(field).map_or("", String::as_str)
    }
}

fn access(dir: &std::path::Path) -> Vec<Option<AccessBody>> {
    let ledger = origin("jinfu", "access");
    let store = Snapshot::open(dir).unwrap();
    let key = keystore(dir).access;
    (0u64..)
        .zip(forge::leaves(&store, &ledger))
        .map(|(at, (_, body))| {
            let tag = ("fangzhi/access/v1", ledger.as_str(), at);
            let plain = seal::blob::open_blob(&key, &record::cbor::to_vec(&tag), &body?).unwrap();
            Some(minicbor::decode(&plain[16..]).unwrap())
        })
        .collect()
}

fn readings(entries: &[Option<AccessBody>]) -> Vec<&Reading> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Some(AccessBody::Reading(reading)) => Some(reading),
            _ => None,
        })
        .collect()
}

fn returned(entries: &[Option<AccessBody>]) -> Vec<&Returned> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Some(AccessBody::Returned(returned)) => Some(returned),
            _ => None,
        })
        .collect()
}

fn asking(of: &str, purpose: &str, conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(field, value)| json!({ "field": field, "value": value }))
        .collect();
    json!({ "kind": of, "purpose": purpose, "where": conditions })
}

fn answered(answer: &Value) -> &Vec<Value> {
    answer["value"]["rows"].as_array().unwrap()
}

fn named(answer: &Value, list: &str) -> Vec<(String, String)> {
    answer["value"][list]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("field"), text("rule"))
        })
        .collect()
}

// ---- first the entry, then the answer ------------------------------------------------------

#[test]
fn an_answer_carries_a_mark_and_the_receipt_of_an_entry_that_the_ledger_has() {
    let community = Community::new();
    let before = community.access().len();
    let mut request = asking("person", "registration", &[]);
    request["basis"] = json!("案号 2026-7");
    request["limit"] = json!(5);
    let answer = community.answer("clerk", &request);
    assert_eq!(answered(&answer).len(), 5);
    assert_eq!(answer["value"]["more"], true);

    let receipt = &answer["receipt"];
    let ledger = origin("jinfu", "access");
    assert_eq!(receipt["origin"], ledger.as_str());
    assert_eq!(receipt["index"], before);
    let store = Snapshot::open(&community.site.dir).unwrap();
    let key = forge::key(&ledger, table::ENTRY, before as u64);
    let entry = store
        .get(&key)
        .unwrap()
        .expect("no entry at the receipt's index");
    let leaf = leaf_hash(&entry);
    assert_eq!(receipt["leaf"], data_encoding::HEXLOWER.encode(&leaf));

    // The mark leads back to that entry and to no other.
    let mark: Mark = answer["mark"].as_str().unwrap().parse().unwrap();
    let key = MarkKey::from_bytes(*keystore(&community.site.dir).mark.expose());
    assert_eq!(mark.index(), before as u64);
    assert!(mark.verify(&key, &ledger, before as u64, &leaf));
    assert!(!mark.verify(&key, &ledger, before as u64 + 1, &leaf));
    assert!(!mark.verify(&MarkKey::from_bytes([0; 32]), &ledger, before as u64, &leaf));

    // The entry says who, what for, on which basis; one more for each record; then the act.
    let entries = community.access();
    assert_eq!(entries.len(), before + 1 + 5 + 1);
    let Some(AccessBody::Reading(reading)) = &entries[before] else {
        panic!("no reading")
    };
    assert_eq!(reading.role, "clerk");
    assert_eq!(reading.purpose, purpose("registration"));
    assert_eq!(reading.basis.as_deref(), Some("案号 2026-7"));
    assert_eq!((reading.records, &reading.denied), (5, &None));
    let listed: Vec<String> = returned(&entries[before..])
        .iter()
        .map(|r| r.record.to_string())
        .collect();
    let shown: Vec<&str> = answered(&answer)
        .iter()
        .map(|r| r["record"].as_str().unwrap())
        .collect();
    assert_eq!(listed, shown);
    let report = registry::verify::verify(&community.site.dir).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn every_answer_has_an_entry_of_its_own_also_one_without_records() {
    let community = Community::new();
    let token = community.login("clerk");
    let mut marks = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let nobody = asking("person", "registration", &[("name", "无此人")]);
        let (status, answer) = community.read(&token, &nobody);
        assert_eq!((status, answered(&answer).len()), (200, 0));
        marks.insert(answer["mark"].as_str().unwrap().to_owned());
    }
    assert_eq!(marks.len(), 3);
    assert_eq!(readings(&community.access()).len(), 3);
    // Nothing of what was asked for lies open on the disk.
    let segments = community.site.dir.join("segments");
    let folder = if segments.exists() {
        segments
    } else {
        community.site.dir.clone()
    };
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let name = "无此人".as_bytes();
            assert!(
                !bytes.windows(name.len()).any(|window| window == name),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn when_the_entry_cannot_be_written_nothing_is_answered() {
    let community = Community::new();
    let name = community.person(0, "name").to_owned();
    let Community {
        site,
        router,
        _base,
        ..
    } = community;
    drop(router);
    let dir = site.close();
    let node = Daemon::start_on_small_disk(&dir);
    let login = json!({ "login": "clerk", "passphrase": PASSPHRASE });
    let (_, session) = node.send(None, "/api/v1/sessions", &login);
    let token = session["token"].as_str().unwrap();
    let request = asking("person", "registration", &[]);
    let (status, answer) = node.send(Some(token), "/api/v1/read", &request);
    assert_eq!(status, 200);
    assert!(answer.to_string().contains(&name));
    let before = access(&dir).len();

    // From here on the node can make no file longer than nothing.
    let limited = Command::new("prlimit")
        .args(["--fsize=0:0", "--pid", &node.pid.to_string()])
        .status()
        .expect("prlimit is part of util-linux");
    assert!(limited.success());
    for _ in 0..3 {
        let (status, failure) = node.send(Some(token), "/api/v1/read", &request);
        assert_eq!(status, 500, "{failure}");
        assert_eq!(failure["code"], "store");
        assert_eq!(failure.get("value"), None);
        for row in &answered(&answer)[..] {
            let field = row["fields"]["name"].as_str().unwrap();
            assert!(
                !failure.to_string().contains(field),
                "a value came without a receipt"
            );
        }
    }
    // A denial that cannot be recorded is a failure as well, and no answer.
    let denied = asking("person", "statistics", &[]);
    let (status, _) = node.send(Some(token), "/api/v1/read", &denied);
    assert_eq!(status, 500);
    let dir = node.kill();
    assert_eq!(access(&dir).len(), before);
    // With room again it goes on.
    let node = Daemon::start(&dir);
    let (status, _) = node.post("clerk", "/api/v1/read", &request);
    assert_eq!(status, 200);
    assert!(access(&dir).len() > before);
}

#[test]
fn a_denied_reading_is_recorded_with_the_rule_that_denied_it() {
    let community = Community::new();
    let failure = community.denied("clerk", &asking("person", "statistics", &[]));
    let rule = failure["rule"].as_str().unwrap().to_owned();
    assert!(failure["message"].as_str().unwrap().contains(&rule));
    let entries = community.access();
    let readings = readings(&entries);
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0].denied.as_deref(), Some(rule.as_str()));
    assert_eq!((readings[0].records, readings[0].fields.len()), (0, 0));
    assert!(returned(&entries).is_empty());
    assert!(registry::verify::verify(&community.site.dir).unwrap().ok);
}

// ---- who sees what -------------------------------------------------------------------------

#[test]
fn a_grid_worker_sees_the_own_grid_only_and_citizen_numbers_masked() {
    let community = Community::new();
    let answer = community.answer("grid-worker", &asking("person", "inspection", &[]));
    let rows = answered(&answer);
    assert_eq!(rows.len(), PERSONS / 2);
    let numbers: Vec<&str> = (0..PERSONS)
        .map(|at| community.person(at, "citizen_number"))
        .collect();
    for row in rows {
        assert_eq!(row["fields"]["grid"], GRIDS[0]);
        let number = row["fields"]["citizen_number"].as_str().unwrap();
        assert!(number.contains("***") && number.len() == 18, "{number}");
        assert!(!numbers.contains(&number));
        assert_eq!(row["fields"].get("welfare"), None);
    }
    let text = answer.to_string();
    for number in numbers {
        assert!(!text.contains(number), "a whole number came");
    }
    assert_eq!(answer["value"]["masked"], json!(["citizen_number"]));
    let denied = named(&answer, "denied");
    assert_eq!(
        denied,
        [(
            "welfare".into(),
            "grid-worker-sees-no-sensitive-field".into()
        )]
    );

    // Asking for somebody who lives in the other grid gives nobody.
    let other = community.person(1, "name");
    let answer = community.answer(
        "grid-worker",
        &asking("person", "inspection", &[("name", other)]),
    );
    let rows = answered(&answer).iter();
    assert_eq!(
        rows.filter(|row| row["fields"]["grid"] != GRIDS[0]).count(),
        0
    );
    // The access ledger lists whom was looked at, not who was not shown.
    assert!(returned(&community.access()).len() < PERSONS);
}

#[test]
fn a_condition_on_a_field_that_may_not_be_searched_is_a_denial_and_no_oracle() {
    let community = Community::new();
    let there = community.person(0, "citizen_number").to_owned();
    let absent = format!("{}0", &there[..17]);
    let failures: Vec<Value> = [there.as_str(), &absent, "11"]
        .map(|number| {
            community.denied(
                "grid-worker",
                &asking("person", "inspection", &[("citizen_number", number)]),
            )
        })
        .into();
    assert!(
        failures.windows(2).all(|pair| pair[0] == pair[1]),
        "{failures:?}"
    );
    community.denied(
        "grid-worker",
        &asking("person", "inspection", &[("welfare", "10")]),
    );
    // Also beside a condition that is allowed, and when only other fields are asked for.
    let mut both = asking(
        "person",
        "inspection",
        &[
            ("name", community.person(0, "name")),
            ("citizen_number", &there),
        ],
    );
    both["fields"] = json!(["name"]);
    community.denied("grid-worker", &both);
    assert_eq!(readings(&community.access()).len(), 5);
}

#[test]
fn an_auditor_sees_nothing_above_what_is_public() {
    let community = Community::new();
    for purpose in ["audit", "registration"] {
        let failure = community.denied("auditor", &asking("person", purpose, &[]));
        assert_eq!(failure["rule"], "auditor-sees-nothing-above-public");
    }
    community.denied("auditor", &asking("room", "audit", &[]));
    let answer = community.answer("auditor", &asking("address", "audit", &[]));
    let catalogue = record::schema::Catalogue::builtin();
    let schema = catalogue.schema(&kind("address")).unwrap();
    assert!(!answered(&answer).is_empty());
    for row in answered(&answer) {
        for id in row["fields"].as_object().unwrap().keys() {
            let level = schema.field(id).unwrap().sensitivity;
            assert_eq!(level, record::schema::Sensitivity::P0, "{id}");
        }
    }
    let denied = named(&answer, "denied");
    assert!(
        denied
            .iter()
            .all(|(_, rule)| rule == "auditor-sees-nothing-above-public")
    );
    assert!(denied.iter().any(|(field, _)| field == "grid"));
}

#[test]
fn a_security_officer_sees_nobody() {
    let community = Community::new();
    for purpose in ["security", "registration", "audit"] {
        let mut request = asking("person", purpose, &[]);
        request["fields"] = json!(["name", "citizen_number", "phone", "welfare"]);
        community.denied("anquan", &request);
    }
}

#[test]
fn fields_that_do_not_exist_and_purposes_that_are_not_listed_answer_nothing() {
    let community = Community::new();
    let token = community.login("clerk");
    let mut request = asking("person", "registration", &[]);
    request["fields"] = json!(["name", "身份证号码123"]);
    let (status, failure) = community.read(&token, &request);
    assert_eq!(status, 400);
    // A mistyped name may be personal data in the wrong place.
    assert!(!failure.to_string().contains("身份证号码123"));
    let (status, _) = community.read(
        &token,
        &asking("person", "registration", &[("nothing", "x")]),
    );
    assert_eq!(status, 400);
    let (status, _) = community.read(&token, &asking("weapon", "registration", &[]));
    assert_eq!(status, 404);
    let (status, _) = community.read(&token, &asking("person", "curiosity", &[]));
    assert_eq!(status, 403);
    let many = vec![("name", "王"); 9];
    let (status, _) = community.read(&token, &asking("person", "registration", &many));
    assert_eq!(status, 400);
    assert!(returned(&community.access()).is_empty());
}

#[test]
fn a_department_reads_for_the_purpose_of_the_grant_and_for_no_other() {
    let base = tempfile::tempdir().unwrap();
    let now = clock();
    let district = Site::root(base.path(), REALM, "jiangjin", now);
    let community = Site::join(&district, base.path(), "jinfu", Level::Community, now);
    let department = Site::join(&district, base.path(), "minzheng", Level::Department, now);
    let clerk = community.operator(Role::Clerk, None, now);
    let officer = department.operator(Role::DepartmentOfficer, None, now);
    community.import(&clerk, "person", &rows("person", 3, 10, 1), now);
    let links = [(&community, &district), (&department, &district)];
    tests::realm::settle(&links, now);
    let grant = registry::grant::GrantRequest {
        kind: kind("person"),
        holder: tests::realm::division("minzheng"),
        fields: vec!["status".into(), "name".into(), "phone".into()],
        rows: Default::default(),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-1".into(),
        days: 10,
        history: record::authority::History::default(),
    };
    community
        .registry
        .grant(&community.officer, &grant, now)
        .unwrap();
    tests::realm::settle(&links, now);

    let ask = |of: &str, fields: Option<&[&str]>| {
        let request = ReadRequest {
            closed: false,
            kind: kind("person"),
            filters: vec![],
            fields: fields.map(|fields| fields.iter().map(|f| (*f).to_owned()).collect()),
            purpose: purpose(of),
            basis: None,
            limit: None,
        };
        department.registry.read(&officer, &request, now)
    };
    let answer = ask("welfare", None).unwrap();
    assert_eq!(answer.value().rows.len(), 10);
    // What was not granted is named, with whom to ask.
    let missing = answer
        .value()
        .denied
        .iter()
        .find(|d| d.field == "citizen_number")
        .unwrap();
    assert_eq!(missing.rule, "not-granted");
    assert!(missing.ask.contains("jinfu"));
    for of in [
        "health",
        "market",
        "registration",
        "statistics",
        "emergency",
    ] {
        for fields in [None, Some(&["name"][..]), Some(&["status"][..])] {
            let denied = ask(of, fields).map(drop).unwrap_err();
            assert!(
                matches!(denied, RegistryError::Denied { .. }),
                "{of}: {denied}"
            );
        }
    }
    // Only what was not granted: nothing is opened for that, whatever the purpose.
    assert!(ask("welfare", Some(&["citizen_number"])).is_err());
    // Another role of the department has no right of its own.
    let auditor = department.operator(Role::Auditor, None, now);
    let request = ReadRequest {
        closed: false,
        kind: kind("person"),
        filters: vec![],
        fields: None,
        purpose: purpose("welfare"),
        basis: None,
        limit: None,
    };
    assert!(department.registry.read(&auditor, &request, now).is_err());
}

// ---- sessions ------------------------------------------------------------------------------

#[test]
fn without_a_session_that_lasts_nothing_is_read() {
    let community = Community::new();
    let request = asking("person", "registration", &[]);
    let none = |token: Option<&str>| {
        let (status, failure) = community.call(Method::POST, "/api/v1/read", token, &request);
        assert_eq!((status, &failure["code"]), (401, &json!("no-session")));
    };
    none(None);
    none(Some(""));
    none(Some(&"0".repeat(64)));
    let token = community.login("clerk");
    none(Some(&token[..63]));
    none(Some(&token.to_uppercase()));
    assert_eq!(community.read(&token, &request).0, 200);
    // Of two sessions of one operator, logging out ends one.
    let other = community.login("clerk");
    let (status, _) = community.call(
        Method::DELETE,
        "/api/v1/sessions",
        Some(&token),
        &Value::Null,
    );
    assert_eq!(status, 204);
    none(Some(&token));
    assert_eq!(community.read(&other, &request).0, 200);

    for (login, phrase) in [
        ("clerk", "wrong passphrase"),
        ("nobody", PASSPHRASE),
        ("../clerk", PASSPHRASE),
        ("clerk", ""),
    ] {
        let login = json!({ "login": login, "passphrase": phrase });
        let (status, failure) = community.call(Method::POST, "/api/v1/sessions", None, &login);
        assert_eq!((status, &failure["code"]), (401, &json!("bad-login")));
    }
    // A session lasts a working day.
    let login = json!({ "login": "clerk", "passphrase": PASSPHRASE });
    let (_, session) = community.call(Method::POST, "/api/v1/sessions", None, &login);
    let left = session["expires"].as_u64().unwrap() - clock().0;
    assert!(left <= SESSION_MILLIS && left > SESSION_MILLIS - 60_000);
}

#[test]
fn a_session_that_has_ended_reads_nothing_and_an_old_certificate_opens_none() {
    let community = Community::new();
    let registry = &community.site.registry;
    let now = clock();
    let session = registry.login("clerk", PASSPHRASE, now).unwrap();
    let request: ReadRequest =
        serde_json::from_value(asking("person", "registration", &[])).unwrap();
    registry
        .read(&session, &request, UnixMillis(session.expires.0 - 1))
        .map(drop)
        .unwrap();
    let refused = registry.read(&session, &request, session.expires).map(drop);
    assert!(
        matches!(refused, Err(RegistryError::NoSession)),
        "{refused:?}"
    );

    let years = UnixMillis(now.0 + CHARTER_MILLIS + 60_000);
    let refused = registry.login("clerk", PASSPHRASE, years).map(drop);
    assert!(
        matches!(refused, Err(RegistryError::BadLogin)),
        "{refused:?}"
    );
}

#[test]
fn a_disabled_operator_reads_nothing_and_cannot_log_in_again() {
    let community = Community::new();
    let now = clock();
    let session = community
        .site
        .registry
        .login("clerk", PASSPHRASE, now)
        .unwrap();
    let Community {
        site,
        router,
        _base,
        ..
    } = community;
    drop(router);
    let dir = site.close();
    let ledger = origin("jinfu", "authority");
    let owner = keystore(&dir).sign.signing_key();
    forge::rewrite(&dir, &ledger, &owner, |leaves| {
        let head = (leaves.len() as u64, [0; 32]);
        let disabled = AuthorityEntry {
            suite: SUITE,
            statement: Statement::OperatorDisabled(session.operator),
            recorded_at: now,
        };
        leaves.push((Entry::Authority(disabled), None));
        leaves.push((forge::act("jinfu", head, now), None));
    });
    let site = Site::open(&dir, now);
    let registry = &site.registry;
    assert!(!registry.in_good_standing(&session));
    let refused = registry.login("clerk", PASSPHRASE, now).map(drop);
    assert!(
        matches!(refused, Err(RegistryError::BadLogin)),
        "{refused:?}"
    );
    let request: ReadRequest =
        serde_json::from_value(asking("person", "registration", &[])).unwrap();
    let refused = registry.read(&session, &request, now).map(drop);
    assert!(
        matches!(refused, Err(RegistryError::NoSession)),
        "{refused:?}"
    );
    let operators = registry.operators().unwrap();
    let clerk = operators.iter().find(|line| line.login == "clerk").unwrap();
    assert!(!clerk.enabled);
    // The others go on.
    registry.login("grid-worker", PASSPHRASE, now).unwrap();
}

// ---- 查人知住，查房知人 -----------------------------------------------------------------------

#[test]
fn a_person_is_found_by_number_by_name_and_with_a_small_x() {
    let community = Community::new();
    let clerk = |conditions: &[(&str, &str)]| {
        community.answer("clerk", &asking("person", "service", conditions))
    };
    let number = community.person(4, "citizen_number");
    let found = clerk(&[("citizen_number", number)]);
    let [row] = answered(&found).as_slice() else {
        panic!("not one person")
    };
    assert_eq!(row["fields"]["name"], community.person(4, "name"));
    assert_eq!(row["fields"]["room_code"], community.person(4, "room_code"));
    // The ledger that the value was checked against.
    assert_eq!(
        Origin::parse(row["origin"].as_str().unwrap()).unwrap(),
        origin("jinfu", "person")
    );

    let name = community.person(4, "name");
    let same = (0..PERSONS)
        .filter(|at| community.person(*at, "name") == name)
        .count();
    assert_eq!(answered(&clerk(&[("name", name)])).len(), same);
    let both = clerk(&[("name", name), ("citizen_number", number)]);
    assert_eq!(answered(&both).len(), 1);

    let ends_in_x = (0..PERSONS)
        .map(|at| community.person(at, "citizen_number"))
        .find(|number| number.ends_with('X'))
        .expect("one number in eleven ends in X");
    for typed in [
        ends_in_x.to_owned(),
        ends_in_x.to_lowercase(),
        format!(" {ends_in_x} "),
    ] {
        let found = clerk(&[("citizen_number", &typed)]);
        assert_eq!(answered(&found).len(), 1, "{typed}");
        assert_eq!(answered(&found)[0]["fields"]["citizen_number"], ends_in_x);
    }
    // A number that is one digit off is nobody's.
    let other = format!(
        "{}{}",
        &number[..17],
        if number.ends_with('1') { '2' } else { '1' }
    );
    assert!(answered(&clerk(&[("citizen_number", &other)])).is_empty());
}

#[test]
fn a_room_leads_to_its_residents_and_a_resident_to_the_room() {
    let community = Community::new();
    let room = community.person(0, "room_code").to_owned();
    let mut residents: Vec<&str> = (0..PERSONS)
        .filter(|at| community.person(*at, "room_code") == room)
        .map(|at| community.person(at, "name"))
        .collect();
    let there = community.answer("clerk", &asking("room", "service", &[("room_code", &room)]));
    assert_eq!(answered(&there).len(), 1);
    assert_eq!(answered(&there)[0]["fields"]["room_code"], room);

    let found = community.answer(
        "clerk",
        &asking("person", "service", &[("room_code", &room)]),
    );
    let mut names: Vec<&str> = answered(&found)
        .iter()
        .map(|row| row["fields"]["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    residents.sort_unstable();
    assert_eq!(names, residents);
    // A grid worker is led to those of the own grid.
    let seen = community.answer(
        "grid-worker",
        &asking("person", "service", &[("room_code", &room)]),
    );
    let expected = (0..PERSONS)
        .filter(|at| community.person(*at, "room_code") == room && at % 2 == 0)
        .count();
    assert_eq!(answered(&seen).len(), expected);
}

#[test]
fn an_amended_person_is_found_under_what_is_true_now_only() {
    let community = Community::new();
    let token = community.login("clerk");
    let number = community.person(6, "citizen_number").to_owned();
    let found = community.answer(
        "clerk",
        &asking("person", "service", &[("citizen_number", &number)]),
    );
    let row = &answered(&found)[0];
    let amendment = json!({
        "kind": "person", "record": row["record"], "version": 1, "purpose": "correction",
        "changes": { "name": "欧阳新名", "phone": "" },
    });
    let (status, registered) =
        community.call(Method::POST, "/api/v1/amendments", Some(&token), &amendment);
    assert_eq!(
        (status, &registered["version"]),
        (200, &json!(2)),
        "{registered}"
    );
    let found = community.answer(
        "clerk",
        &asking("person", "service", &[("name", "欧阳新名")]),
    );
    assert_eq!(answered(&found).len(), 1);
    assert_eq!(answered(&found)[0]["fields"].get("phone"), None);
    let old = asking(
        "person",
        "service",
        &[
            ("name", community.person(6, "name")),
            ("citizen_number", &number),
        ],
    );
    assert!(answered(&community.answer("clerk", &old)).is_empty());
    // Whoever saw version 1 does not overwrite version 2.
    let (status, failure) =
        community.call(Method::POST, "/api/v1/amendments", Some(&token), &amendment);
    assert_eq!((status, &failure["code"]), (409, &json!("conflict")));
    // Closed is not gone: it is read with its status.
    let close = json!({ "kind": "person", "record": row["record"], "version": 2, "close": true, "purpose": "correction" });
    let (status, _) = community.call(Method::POST, "/api/v1/amendments", Some(&token), &close);
    assert_eq!(status, 200);
    // It is left out unless it is asked for.
    let mut renamed = asking("person", "service", &[("name", "欧阳新名")]);
    assert!(answered(&community.answer("clerk", &renamed)).is_empty());
    renamed["closed"] = json!(true);
    let found = community.answer("clerk", &renamed);
    assert_eq!(answered(&found)[0]["fields"]["status"], "60");
    // Out of force it is not amended, until it is in force again.
    let again = json!({ "kind": "person", "record": row["record"], "version": 3, "changes": { "education": "20" }, "purpose": "correction" });
    let (status, _) = community.call(Method::POST, "/api/v1/amendments", Some(&token), &again);
    assert_eq!(status, 400);
    let reopen = json!({ "kind": "person", "record": row["record"], "version": 3, "reopen": true, "purpose": "correction" });
    let (status, _) = community.call(Method::POST, "/api/v1/amendments", Some(&token), &reopen);
    assert_eq!(status, 200);
}
