//! The whole journey, as a newcomer and as a program would make it: the demonstration's five
//! nodes, readings on copies of them, every command in JSON, HTTP from outside.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tests::process::Done;
use tests::site::read_json;
use tests::{Site, call, copy_dir, rows};

#[path = "journey/http.rs"]
mod http;

/// What the demonstration made: its answer, and its directories, which nothing changes after it.
struct Demo {
    dir: PathBuf,
    done: Done,
}

const PERSONS: usize = 300;

/// The demonstration, run once. Its directory is made anew at each run of these tests.
fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        sweep(base);
        let dir = base.join(format!("journey-{}", std::process::id()));
        let args = ["demo", "--once", "--json", "--dir"].map(Into::into);
        let done = call(args.into_iter().chain([dir.clone().into_os_string()]));
        Demo { dir, done }
    })
}

/// Removes what test processes that have ended left behind.
fn sweep(base: &Path) {
    std::fs::create_dir_all(base).unwrap();
    for item in std::fs::read_dir(base).unwrap().flatten() {
        let name = item.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("journey-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_dir_all(item.path());
        }
    }
}

impl Demo {
    fn summary(&self) -> Value {
        self.done.clone().expect_code(0).json()
    }

    fn node(&self, division: &str) -> Value {
        let nodes = self.summary()["nodes"].as_array().unwrap().clone();
        nodes
            .into_iter()
            .find(|n| n["division"] == division)
            .unwrap()
    }

    /// A copy of one of its nodes, to do with as a test likes.
    fn copy(&self, division: &str, to: &Path) -> Site {
        self.summary();
        let site = Site::at(&to.join(division));
        copy_dir(&self.dir.join(division), &site.dir);
        let path = site.dir.join("node.json");
        let mut config = read_json(&path).unwrap();
        for address in ["http", "listen"] {
            config[address] = json!("127.0.0.1:0");
        }
        std::fs::write(path, config.to_string()).unwrap();
        site
    }
}

/// The persons that the demonstration registers in the first community.
fn jinfu() -> sample::Community {
    let place = sample::Place {
        community: "津福社区".into(),
        ..sample::Place::numbered(1)
    };
    sample::community(2, PERSONS, &place)
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

fn rows_of(answer: &Value) -> &Vec<Value> {
    answer["value"]["rows"].as_array().unwrap()
}

#[test]
fn the_demonstration_answers_in_the_promised_shape() {
    let summary = demo().summary();
    assert_eq!(keys(&summary), ["department", "import", "nodes"]);
    let nodes = summary["nodes"].as_array().unwrap();
    let levels: Vec<(&str, &str)> = nodes
        .iter()
        .map(|n| {
            (
                n["division"].as_str().unwrap(),
                n["level"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        levels,
        [
            ("jiangjin", "district"),
            ("shuangfu", "town"),
            ("jinfu", "community"),
            ("fucheng", "community"),
            ("minzheng", "department"),
        ]
    );
    for node in nodes {
        assert_eq!(
            keys(node),
            ["dir", "division", "ledgers", "level", "name", "url"]
        );
        assert!(
            Path::new(node["dir"].as_str().unwrap())
                .join("segments")
                .is_dir()
        );
        assert!(
            node["url"]
                .as_str()
                .unwrap()
                .starts_with("http://127.0.0.1:")
        );
        for ledger in node["ledgers"].as_array().unwrap() {
            assert_eq!(keys(ledger), ["origin", "root", "size"]);
            assert!(ledger["size"].as_u64().unwrap() > 0);
            assert_eq!(ledger["root"].as_str().unwrap().len(), 64);
        }
    }
    let import = &summary["import"];
    assert_eq!(keys(import), ["accepted", "rejected", "rows"]);
    let count = |name: &str| import[name].as_u64().unwrap();
    assert_eq!(count("rows"), count("accepted") + count("rejected"));
    let expected: usize = jinfu()
        .tables()
        .iter()
        .map(|(_, table)| table.rows.len())
        .sum();
    assert!(
        count("rows") > expected as u64,
        "both communities are in it"
    );
    assert_eq!(count("rejected"), 0);
}

#[test]
fn the_department_opens_what_was_granted_and_nothing_else() {
    let summary = demo().summary();
    let department = &summary["department"];
    assert_eq!(keys(department), ["opened_fields", "refused_fields"]);
    let opened = texts(&department["opened_fields"]);
    let granted = [
        "status",
        "grid",
        "name",
        "sex",
        "birth_date",
        "household_code",
        "family_relation",
        "welfare",
    ];
    assert_eq!(opened, granted.into_iter().collect());
    let refused = texts(&department["refused_fields"]);
    assert!(refused.is_superset(&["citizen_number", "phone", "hukou_address"].into()));
    assert!(opened.is_disjoint(&refused));
}

#[test]
fn the_department_is_told_whom_to_ask_for_what_it_was_not_granted() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("minzheng", base.path());
    let answer = site.json([
        "read",
        "person",
        "--as",
        "jingban",
        "--purpose",
        "welfare",
        "--fields",
        "name,citizen_number,phone",
        "--limit",
        "5",
    ]);
    for row in rows_of(&answer) {
        assert_eq!(keys(&row["fields"]), ["name"]);
    }
    let denied = answer["value"]["denied"].as_array().unwrap();
    let fields: BTreeSet<&str> = denied
        .iter()
        .map(|d| d["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["citizen_number", "phone"].into());
    assert!(denied.iter().all(|d| d["rule"] != "" && d["ask"] != ""));

    // For another purpose than the granted one there is nothing.
    let other = site.run([
        "read",
        "person",
        "--as",
        "jingban",
        "--purpose",
        "statistics",
        "--fields",
        "name",
        "--json",
    ]);
    assert_eq!(other.expect_code(4).json()["error"]["code"], "denied");
}

#[test]
fn the_district_holds_every_ledger_of_the_communities() {
    let demo = demo();
    let district = demo.node("jiangjin");
    let held: BTreeMap<&str, &Value> = district["ledgers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ledger| (ledger["origin"].as_str().unwrap(), ledger))
        .collect();
    for division in ["jinfu", "fucheng"] {
        let node = demo.node(division);
        let own = format!("jiangjin.example/{division}/");
        let own: Vec<&Value> = node["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|ledger| ledger["origin"].as_str().unwrap().starts_with(&own))
            .collect();
        assert!(own.len() >= 8, "seven kinds and the authority ledger");
        for ledger in own {
            assert_eq!(held.get(ledger["origin"].as_str().unwrap()), Some(&ledger));
        }
    }
}

#[test]
fn every_node_of_the_demonstration_verifies_to_the_sizes_and_roots_it_named() {
    let summary = demo().summary();
    for node in summary["nodes"].as_array().unwrap() {
        let site = Site::at(Path::new(node["dir"].as_str().unwrap()));
        let report = site.verified();
        assert_eq!(report["remarks"], json!([]));
        let verified: BTreeMap<&str, (&Value, &Value)> = report["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| (l["origin"].as_str().unwrap(), (&l["size"], &l["root"])))
            .collect();
        for ledger in node["ledgers"].as_array().unwrap() {
            let origin = ledger["origin"].as_str().unwrap();
            assert_eq!(
                verified[origin],
                (&ledger["size"], &ledger["root"]),
                "{origin}"
            );
        }
        assert_eq!(verified.len(), node["ledgers"].as_array().unwrap().len());
    }
}

fn read(site: &Site, kind: &str, conditions: &[&str], rest: &[&str]) -> Done {
    let mut args = vec!["read", kind, "--json"];
    args.extend(conditions.iter().flat_map(|c| ["--where", c]));
    args.extend(rest);
    site.run(args)
}

const CLERK: [&str; 4] = ["--as", "dengji", "--purpose", "registration"];

#[test]
fn a_clerk_finds_a_person_by_number_and_by_name_and_the_residence_of_a_person() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("jinfu", base.path());
    let community = jinfu();
    let persons = rows::maps(&community.persons);
    let rooms = rows::maps(&community.rooms);
    let person = persons
        .iter()
        .find(|p| {
            p.contains_key("phone")
                && p.contains_key("citizen_number")
                && p.contains_key("room_code")
        })
        .unwrap();

    let number = format!("citizen_number={}", person["citizen_number"]);
    let answer = read(&site, "person", &[&number], &CLERK)
        .expect_code(0)
        .json();
    let found = rows_of(&answer);
    assert_eq!(found.len(), 1);
    for (field, value) in person {
        assert_eq!(found[0]["fields"][field], json!(value), "{field}");
    }
    assert_eq!(answer["value"]["denied"], json!([]));

    let name = format!("name={}", person["name"]);
    let answer = read(&site, "person", &[&name], &CLERK)
        .expect_code(0)
        .json();
    let namesakes: BTreeSet<&str> = persons
        .iter()
        .filter(|p| p["name"] == person["name"])
        .filter_map(|p| p.get("citizen_number").map(String::as_str))
        .collect();
    let numbers: BTreeSet<&str> = rows_of(&answer)
        .iter()
        .filter_map(|row| row["fields"]["citizen_number"].as_str())
        .collect();
    assert_eq!(numbers, namesakes);

    // Room to residents (查房知人), person to residence (查人知住).
    let code = format!("room_code={}", person["room_code"]);
    let answer = read(&site, "person", &[&code], &CLERK)
        .expect_code(0)
        .json();
    let mut residents: Vec<&str> = rows_of(&answer)
        .iter()
        .map(|r| r["fields"]["name"].as_str().unwrap())
        .collect();
    let mut expected: Vec<&str> = persons
        .iter()
        .filter(|p| p.get("room_code") == person.get("room_code"))
        .map(|p| p["name"].as_str())
        .collect();
    residents.sort_unstable();
    expected.sort_unstable();
    assert_eq!(residents, expected);
    let answer = read(&site, "room", &[&code], &CLERK).expect_code(0).json();
    let room = rooms
        .iter()
        .find(|r| r["room_code"] == person["room_code"])
        .unwrap();
    assert_eq!(rows_of(&answer).len(), 1);
    assert_eq!(
        rows_of(&answer)[0]["fields"]["address"],
        json!(room["address"])
    );
    assert!(answer["mark"].as_str().is_some_and(|mark| mark.len() >= 8));
    site.verified();
}

#[test]
fn denied_fields_are_absent_and_named_and_a_masked_number_is_masked() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("jinfu", base.path());
    let community = jinfu();
    let numbers: BTreeSet<&str> = community.persons.column("citizen_number").collect();
    let worker = ["--as", "wangge", "--purpose", "service", "--limit", "1000"];
    let answer = read(&site, "person", &[], &worker).expect_code(0).json();
    let grid = community.grids.column("grid").next().unwrap();
    assert!(!rows_of(&answer).is_empty());
    for row in rows_of(&answer) {
        assert_eq!(row["fields"]["grid"], grid, "only the own grid's rows");
        assert_eq!(row["fields"]["welfare"], Value::Null);
        assert!(
            row["fields"]["citizen_number"]
                .as_str()
                .is_none_or(|n| !numbers.contains(n))
        );
    }
    assert!(texts(&answer["value"]["masked"]).contains("citizen_number"));
    let denied = answer["value"]["denied"].as_array().unwrap();
    let welfare = denied.iter().find(|d| d["field"] == "welfare").unwrap();
    assert_eq!(welfare["rule"], "grid-worker-sees-no-sensitive-field");
    assert!(!welfare["ask"].as_str().unwrap().is_empty());

    // Filtering by a field needs the right to it.
    let number = format!("citizen_number={}", numbers.first().unwrap());
    read(&site, "person", &[&number], &worker).expect_code(4);
}

#[test]
fn a_denied_reading_exits_with_4_names_its_rule_and_is_in_the_access_ledger() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("jinfu", base.path());
    for (login, purpose) in [
        ("shenji", "registration"),
        ("dengji", "statistics"),
        ("anquan", "security"),
    ] {
        let before = site.ledger_size("access");
        let rest = [
            "--as",
            login,
            "--purpose",
            purpose,
            "--fields",
            "name,citizen_number",
        ];
        let answer = read(&site, "person", &[], &rest).expect_code(4).json();
        assert_eq!(answer["error"]["code"], "denied");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("rule `"), "{message}");
        assert!(
            site.ledger_size("access") > before,
            "{login}'s attempt is recorded"
        );
    }
}

#[test]
fn an_operator_of_another_node_cannot_log_in_here() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("jinfu", base.path());
    let other = demo().copy("minzheng", base.path());
    let pass = other.dir.join("operators/jingban.pass");
    let attempt = || {
        let rest = [
            "--as",
            "jingban",
            "--purpose",
            "welfare",
            "--operator-passphrase-file",
        ];
        let rest = [&rest[..], &[pass.to_str().unwrap()]].concat();
        let before = site.ledger_size("access");
        let done = read(&site, "person", &[], &rest).expect_code(1);
        assert_eq!(done.json()["error"]["code"], "bad-login");
        assert_eq!(site.ledger_size("access"), before);
    };
    attempt();
    // Nor with the sealed key carried over: this node's authority ledger does not know it.
    let key = "operators/jingban.json";
    std::fs::copy(other.dir.join(key), site.dir.join(key)).unwrap();
    attempt();
}

#[test]
fn a_reading_is_durable_in_the_access_ledger_before_its_answer_arrives() {
    let base = tempfile::tempdir().unwrap();
    let site = demo().copy("jinfu", base.path());
    let pass = std::fs::read_to_string(site.dir.join("operators/dengji.pass")).unwrap();
    for limit in [1, 3, 20] {
        let before = site.ledger_size("access");
        let node = site.start();
        let token = node.http.login_with("dengji", &pass);
        let request = json!({ "kind": "person", "purpose": "service", "limit": limit });
        let answer = node.http.post("/api/v1/read", Some(&token), &request);
        // Whatever the node has not written by now it never writes.
        node.kill_9();
        let answer = answer.expect_status(200).json();
        let returned = rows_of(&answer).len() as u64;
        assert_eq!(returned, limit);
        let receipt = &answer["receipt"];
        assert_eq!(receipt["origin"], "jiangjin.example/jinfu/access");
        assert_eq!(receipt["index"], before);
        // One entry for the reading, one for each record, one act.
        assert_eq!(site.ledger_size("access"), before + returned + 2);
    }
}

#[test]
fn every_command_answers_in_json() {
    let base = tempfile::tempdir().unwrap();
    let realm = tests::Trio::start(base.path(), "999999001001001", &[]);
    let site = &realm.community.site;
    // `Trio::start` ran init, operator add, invite and join with --json.
    let sample = base.path().join("sample");
    let answer = call([
        "sample",
        "--persons",
        "30",
        "--json",
        "--out",
        sample.to_str().unwrap(),
    ]);
    assert_eq!(
        answer.expect_code(0).json()["files"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
    let file = sample.join("person.csv").to_str().unwrap().to_owned();

    let schemas = call(["schema", "list", "--json"]).expect_code(0).json();
    assert_eq!(schemas["schemas"].as_array().unwrap().len(), 7);
    let person = call(["schema", "show", "person", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(person["kind"], "person");

    let preview = site.json(["import", "person", &file, "--dry-run"]);
    assert_eq!(
        (&preview["rows"], &preview["accepted"]),
        (&json!(30), &json!(30))
    );
    let report = site.json(["import", "person", &file]);
    assert_eq!(report["accepted"], 30);
    assert_eq!(site.json(["status"])["division"], "jinfu");
    assert_eq!(site.json(["doctor"])["ok"], true);
    let operators = site.json(["operator", "list", "--as", "shenji"]);
    assert_eq!(operators["operators"].as_array().unwrap().len(), 4);

    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--limit",
        "1",
    ]);
    let row = &rows_of(&answer)[0];
    let record = row["record"].as_str().unwrap();
    let amended = site.json([
        "amend",
        "person",
        record,
        "--as",
        "dengji",
        "--version",
        "1",
        "--set",
        "employer=示例合作社",
    ]);
    assert_eq!(amended["version"], 2);
    // What was seen is older than what is there.
    let stale = [
        "amend",
        "person",
        record,
        "--as",
        "dengji",
        "--version",
        "1",
        "--close",
        "--json",
    ];
    assert_eq!(
        site.run(stale).expect_code(9).json()["error"]["code"],
        "conflict"
    );

    realm.grant("status,grid,name,welfare", &[]);
    let grants = site.json(["grant", "list"]);
    assert_eq!(grants["grants"].as_array().unwrap().len(), 1);
    realm.converge();
    for node in [&realm.district, &realm.community, &realm.department] {
        assert_eq!(node.site.json(["verify"])["ok"], true);
    }
    let revoked = realm.district.site.json([
        "revoke", "minzheng", "--as", "anquan", "--reason", "lost-key",
    ]);
    assert_eq!(revoked["revoked"], "minzheng");

    // Failures are JSON too.
    let nowhere = Site::at(&base.path().join("nowhere"));
    for args in [
        vec!["status"],
        vec!["doctor"],
        vec!["verify"],
        vec!["import", "person", &file],
    ] {
        let done = nowhere.run(args.iter().copied().chain(["--json"]));
        assert_ne!(done.code, 0);
        assert!(done.json()["error"]["message"].is_string(), "{args:?}");
    }
    for args in [
        vec!["no-such-command"],
        vec!["import"],
        vec!["read", "--no-such-option"],
    ] {
        let done = nowhere.run(args.iter().copied().chain(["--json"]));
        assert_eq!(done.code, 2, "{args:?}");
        assert_eq!(done.json()["error"]["code"], "usage", "{args:?}");
    }
}
