//! Publishing between real processes: what two officers of the district publish is in force in the
//! community without a restart, and the district sees which version it runs.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::trio::converge;
use tests::{Running, Site, call, rows, until};

struct Pair {
    base: tempfile::TempDir,
    district: Running,
    community: Running,
}

/// A district with two security officers and a community with a clerk, a grid worker and rows.
fn pair() -> Pair {
    let base = tempfile::tempdir().unwrap();
    let district = Site::root(base.path(), "jiangjin", "district");
    district.enrol("fu", "security-officer", None);
    let district = district.start();
    let community = Site::join(base.path(), &district, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let made = rows::community(5, 20);
    let grid = rows::maps(&made.persons)[0]["grid"].clone();
    community.enrol("wangge", "grid-worker", Some(&grid));
    let community = community.start();
    let csv = rows::write(&made.persons, &base.path().join("persons.csv"));
    let import = ["import", "person", csv.to_str().unwrap(), "--as", "dengji"];
    community.site.json(import);
    converge(&community, &district);
    Pair {
        base,
        district,
        community,
    }
}

/// What is in force at a node, in a folder of its own, to begin a change from.
fn export(site: &Site, what: &str, to: &Path) -> PathBuf {
    let to = to.join(what);
    let folder = to.to_str().unwrap();
    site.json(["publish", "export", what, "--to", folder, "--as", "anquan"]);
    to
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(file).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "nothing to change in {}", file.display());
    std::fs::write(file, changed).unwrap();
}

/// Makes the plan; what it says.
fn plan(district: &Site, what: &str, from: &Path) -> Value {
    let from = from.to_str().unwrap();
    district.json(["publish", "plan", what, "--from", from, "--as", "anquan"])
}

/// Publishes what a folder has, on the word of two officers.
fn publish(district: &Site, what: &str, from: &Path) -> Value {
    let proposed = plan(district, what, from);
    let id = proposed["plan"]["id"].as_str().unwrap();
    district.json(["keys", "approve", id, "--as", "fu"]);
    district.json(["keys", "run", id, "--as", "anquan"]);
    proposed
}

/// The version of one thing that a node runs, as another tells.
fn version(told_by: &Site, of: &str, what: &str) -> Option<String> {
    let status = told_by.json(["publish", "list"]);
    let nodes = status["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["division"] == of)?;
    let versions = node["versions"].as_array().unwrap();
    let version = versions.iter().find(|version| version["what"] == what)?;
    Some(version["version"].as_str().unwrap().to_owned())
}

fn adopted(told_by: &Site, of: &str, what: &str, wanted: &str) {
    until(&format!("{of} runs {what} {wanted}"), || {
        version(told_by, of, what).as_deref() == Some(wanted)
    });
}

/// Adds the field `tongue` at position 40 to persons.
fn with_tongue(folder: &Path) {
    edit(&folder.join("person.json"), |text| {
        let mut schema: Value = serde_json::from_str(&text).unwrap();
        schema["version"] = 1001.into();
        schema["fields"].as_array_mut().unwrap().push(json!({
            "position": 40, "id": "tongue", "name": "语言", "english": "Language",
            "type": "text", "width": 30, "group": "identity", "sensitivity": "P2",
            "purpose": "提供语言服务", "searchable": true
        }));
        serde_json::to_string_pretty(&schema).unwrap()
    });
}

fn read(site: &Site, login: &str, purpose: &str, condition: &str) -> tests::Done {
    let by = ["read", "person", "--json", "--as", login];
    site.run(
        by.into_iter()
            .chain(["--purpose", purpose, "--where", condition]),
    )
}

#[test]
fn a_field_added_at_the_district_is_written_in_the_community_and_old_records_stay() {
    let Pair {
        base,
        district,
        community,
    } = pair();
    let above = &district.site;
    let folder = export(above, "schemas", base.path());
    with_tongue(&folder);

    // A dry run shows what it opens, and plans nothing.
    let from = folder.to_str().unwrap();
    let shown = above.json([
        "publish",
        "plan",
        "schemas",
        "--from",
        from,
        "--as",
        "anquan",
        "--dry-run",
    ]);
    assert_eq!(shown["plan"], Value::Null);
    assert_eq!(shown["set"]["files"], json!(["person.json"]));
    let opened = shown["opened"]["lines"].as_array().unwrap();
    assert!(opened.iter().all(|line| line["field"] == "tongue"));
    let clerks = opened.iter().filter(|line| line["role"] == "clerk");
    let own =
        clerks.filter(|line| line["stands"] == "own" && line["organizations"] == line["divisions"]);
    assert_eq!(
        own.map(|line| &line["divisions"][0]).collect::<Vec<_>>(),
        ["jiangjin", "jinfu"]
    );

    // The community is away while it happens, and catches up.
    let below = community.site.clone();
    community.stop();
    publish(above, "schemas", &folder);
    assert_eq!(version(above, "jiangjin", "schemas").as_deref(), Some("2"));
    assert_eq!(version(above, "jinfu", "schemas").as_deref(), Some("1"));
    let community = below.start();
    adopted(above, "jinfu", "schemas", "2");

    let own = below.json(["schema", "show", "person"]);
    assert_eq!(own["version"], 1001);
    let carried = call(["schema", "show", "person", "--json"]);
    assert_eq!(carried.expect_code(0).json()["version"], 1);

    // An old record opens as it was, and is amended with the new field.
    let people = rows::maps(&rows::community(5, 20).persons);
    let named = format!("name={}", people[0]["name"]);
    let answer = read(&below, "dengji", "service", &named)
        .expect_code(0)
        .json();
    let row = &answer["value"]["rows"][0];
    assert_eq!(row["fields"].get("tongue"), None);
    let record = row["record"].as_str().unwrap();
    below.json([
        "amend",
        "person",
        record,
        "--version",
        "1",
        "--set",
        "tongue=土家语",
        "--as",
        "dengji",
    ]);
    // A file with the new column is imported under it.
    let csv = base.path().join("more.csv");
    std::fs::write(&csv, "姓名,性别,语言\n秦岭月,女,苗语\n").unwrap();
    let import = ["import", "person", csv.to_str().unwrap(), "--as", "dengji"];
    assert_eq!(below.json(import)["accepted"], 1);
    for (tongue, name) in [("土家语", people[0]["name"].as_str()), ("苗语", "秦岭月")] {
        let condition = format!("tongue={tongue}");
        let found = read(&below, "dengji", "service", &condition)
            .expect_code(0)
            .json();
        let rows = found["value"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{found}");
        assert_eq!(rows[0]["fields"]["name"], name);
        assert_eq!(rows[0]["fields"]["tongue"], tongue);
    }

    // Everything verifies at both nodes, and a restart runs the same.
    converge(&community, &district);
    community.stop();
    below.verified();
    district.site.verified();
    let _community = below.start();
    let found = read(&below, "dengji", "service", "tongue=苗语")
        .expect_code(0)
        .json();
    assert_eq!(found["value"]["rows"].as_array().unwrap().len(), 1);
    let sync = district.site.json(["sync", "status"]);
    let schemas = &sync["peers"][0]["versions"][0];
    assert_eq!(
        (&schemas["what"], &schemas["version"], &schemas["compared"]),
        (&json!("schemas"), &json!("2"), &json!("same"))
    );
}

#[test]
fn a_policy_takes_two_officers_and_then_opens_and_closes_readings_below() {
    let Pair {
        base,
        district,
        community,
    } = pair();
    let (above, below) = (&district.site, &community.site);
    let people = rows::maps(&rows::community(5, 20).persons);
    let named = format!("name={}", people[0]["name"]);
    read(below, "dengji", "statistics", &named).expect_code(4);
    read(below, "wangge", "inspection", &named).expect_code(0);

    let before = export(above, "policies", base.path());
    let folder = base.path().join("changed");
    tests::copy_dir(&before, &folder);
    edit(&folder.join("reading.cedar"), |text| {
        let text = text.replace("Purpose::\"inspection\", ", "");
        text + r#"
@id("clerk-reads-for-statistics")
@ask("本社区登记员 / a clerk of this community")
permit (principal, action in [Action::"read", Action::"search", Action::"list"], resource)
when {
  principal.role == Role::"clerk" && resource.division == principal.organization &&
  resource.sensitivity <= 2 && context.purpose == Purpose::"statistics"
};
"#
    });
    let proposed = plan(above, "policies", &folder);
    let id = proposed["plan"]["id"].as_str().unwrap();
    // The approver sees fields, divisions and organizations, both ways.
    let shown = above.json(["publish", "show", id, "--as", "fu"]);
    assert_eq!(shown["opened"], proposed["opened"]);
    let opened = shown["opened"]["lines"].as_array().unwrap();
    let name = opened
        .iter()
        .find(|line| {
            line["field"] == "name"
                && line["kind"] == "person"
                && line["divisions"] == json!(["jinfu"])
        })
        .unwrap();
    assert_eq!(name["role"], "clerk");
    assert_eq!(name["purposes"], json!(["statistics"]));
    assert_eq!(name["organizations"], json!(["jinfu"]));
    assert!(
        opened.iter().all(|line| line["role"] == "clerk"),
        "{opened:?}"
    );
    let closed = shown["closed"]["lines"].as_array().unwrap();
    assert!(closed.iter().all(|line| line["role"] == "grid-worker"));
    assert!(!closed.is_empty());
    let words = above
        .run(["publish", "show", id, "--as", "fu"])
        .expect_code(0)
        .printed();
    for word in ["新开放", "不再开放", "name 姓名"] {
        assert!(words.contains(word), "{words}");
    }

    // One officer is not enough, whoever runs it.
    above
        .run(["keys", "approve", id, "--as", "anquan"])
        .expect_code(4);
    above
        .run(["keys", "run", id, "--as", "anquan"])
        .expect_code(4);
    assert_eq!(version(below, "jinfu", "policies").as_deref(), Some("1"));
    above.json(["keys", "approve", id, "--as", "fu"]);
    above.json(["keys", "run", id, "--as", "anquan"]);
    adopted(above, "jinfu", "policies", "2");
    read(below, "dengji", "statistics", &named).expect_code(0);
    read(below, "wangge", "inspection", &named).expect_code(4);

    // Going back is publishing again, under a further version.
    publish(above, "policies", &before);
    adopted(above, "jinfu", "policies", "3");
    read(below, "dengji", "statistics", &named).expect_code(4);
    read(below, "wangge", "inspection", &named).expect_code(0);
    let sets = below.json(["publish", "list"])["sets"].clone();
    let states: Vec<_> = sets
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].clone())
        .collect();
    assert_eq!(states, ["replaced", "in-force"]);
    // Nobody but the root publishes.
    let from = folder.to_str().unwrap();
    let refused = [
        "publish", "plan", "policies", "--from", from, "--as", "anquan",
    ];
    assert!(
        below
            .run(refused)
            .expect_code(2)
            .printed()
            .contains("jiangjin")
    );
    below.verified();
}
