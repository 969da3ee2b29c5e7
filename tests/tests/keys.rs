//! Plans and approvals between two running nodes, by their commands: refused when one officer
//! acts alone, run when another above approved, over the network and by a file.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use tests::{Done, Running, Site, until};

/// A district and a community of it, both running; each with its officer `anquan`.
struct Pair {
    district: Running,
    community: Running,
}

impl Pair {
    fn start(base: &Path) -> Self {
        let district = Site::root(base, "jiangjin", "district").start();
        let community = Site::join(base, &district, "jinfu", "community").start();
        Self {
            district,
            community,
        }
    }
}

fn keys(node: &Running, args: &[&str]) -> Done {
    let mut all = vec!["keys"];
    all.extend(args);
    all.extend(["--as", "anquan", "--json"]);
    node.site.run(all)
}

#[track_caller]
fn done(node: &Running, args: &[&str]) -> Value {
    keys(node, args).expect_code(0).json()
}

/// The code of a refusal, which ends with this exit code.
#[track_caller]
fn refused(node: &Running, args: &[&str], exit: i32) -> String {
    let answer = keys(node, args).expect_code(exit).json();
    answer["error"]["code"].as_str().unwrap().to_owned()
}

fn id(plan: &Value) -> &str {
    plan["id"].as_str().unwrap()
}

fn order(node: &Running, days: &str) -> Value {
    done(node, &["order", "reseal,retract", "--days", days])
}

#[test]
fn a_plan_is_run_when_the_officer_above_approved_it_and_not_before() {
    let base = tempfile::tempdir().unwrap();
    let Pair {
        district,
        community,
    } = Pair::start(base.path());
    let plan = order(&community, "30");
    assert_eq!(plan["state"], json!({ "is": "waiting", "missing": 1 }));
    let plan = id(&plan);

    assert_eq!(refused(&community, &["run", plan], 4), "not-approved");
    assert_eq!(refused(&community, &["approve", plan], 4), "denied");
    assert_eq!(refused(&district, &["run", plan], 4), "not-approved");

    until("the district sees the plan", || {
        let list = done(&district, &["list"]);
        let mut plans = list["plans"].as_array().unwrap().iter();
        plans.any(|line| line["id"] == plan && line["division"] == "jinfu")
    });
    // By the first digits, as the list shows them.
    done(&district, &["approve", &plan[..16]]);
    until("the approval reaches the community", || {
        done(&community, &["show", plan])["state"]["is"] == "approved"
    });
    let run = done(&community, &["run", plan]);
    assert_eq!(run["state"]["is"], "in-force");
    assert_eq!(refused(&community, &["run", plan], 4), "not-approved");
    let ended = done(&community, &["withdraw", plan]);
    assert_eq!(ended["state"]["is"], "withdrawn");

    // What another refused is not run either.
    let plan = order(&community, "31");
    let plan = id(&plan);
    until("the district sees the second plan", || {
        keys(&district, &["show", plan]).code == 0
    });
    done(&district, &["approve", plan, "--refuse"]);
    until("the refusal reaches the community", || {
        done(&community, &["show", plan])["state"]["is"] == "refused"
    });
    assert_eq!(refused(&community, &["run", plan], 4), "not-approved");
    for node in [district, community] {
        let site = node.site.clone();
        node.stop();
        site.verified();
    }
}

#[test]
fn an_approval_by_file_lets_its_plan_run_and_no_other() {
    let base = tempfile::tempdir().unwrap();
    let Pair {
        district,
        community,
    } = Pair::start(base.path());
    // The line is down: the district's node does not even run.
    let above = district.site.clone();
    district.stop();
    let (plan, other) = (order(&community, "30"), order(&community, "31"));
    let (plan, other) = (id(&plan), id(&other));
    assert_eq!(
        done(&community, &["show", plan])["unreachable"],
        json!(["jiangjin"])
    );
    let file = base.path().join("plan.json");
    let signed = base.path().join("approval.json");
    let (file, signed) = (file.to_str().unwrap(), signed.to_str().unwrap());
    done(&community, &["export", plan, "--out", file]);

    let sign = |site: &Site, plan: &str| {
        let args = [
            "keys", "approve", plan, "--as", "anquan", "--file", file, "--out", signed, "--json",
        ];
        site.run(args)
    };
    // Told the id of another plan, the officer signs nothing; nor does the maker.
    sign(&above, other).expect_code(2);
    let own = sign(&community.site, plan).expect_code(4).json();
    assert_eq!(own["error"]["code"], "discounted");
    assert!(!Path::new(signed).exists());
    sign(&above, plan).expect_code(0);

    let line = done(&community, &["take", signed]);
    assert_eq!(
        (line["id"].as_str(), &line["state"]["is"]),
        (Some(plan), &json!("approved"))
    );
    assert_eq!(refused(&community, &["run", other], 4), "not-approved");
    let run = done(&community, &["run", plan]);
    assert_eq!(run["state"]["is"], "in-force");
    assert_eq!(refused(&community, &["take", signed], 4), "not-approved");
}

#[test]
fn of_two_rotations_at_once_the_second_is_refused_and_names_the_first() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let node = site.start();
    let plan = done(&node, &["plan", "rotate-epoch", "person"]);
    let names: Vec<&str> = plan["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|figure| figure["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "records",
            "bodies",
            "bytes",
            "holders",
            "seconds",
            "unreachable"
        ]
    );
    let second = keys(&node, &["plan", "rotate-epoch", "person"]).expect_code(9);
    let error = second.json()["error"].clone();
    assert_eq!(error["code"], "underway");
    assert!(error["message"].as_str().unwrap().contains(id(&plan)));
    // A clerk makes no plan, and nobody without a session sees one.
    let clerk = ["keys", "plan", "rotate-epoch", "unit", "--as", "dengji"];
    node.site.run(clerk).expect_code(4);
    assert_eq!(node.http.get("/api/v1/plans", None).status, 401);
    let token = node.http.login("anquan");
    let listed = node.http.get("/api/v1/plans", Some(&token));
    assert_eq!(listed.expect_status(200).json()[0]["id"], plan["id"]);
    // What is not a plan's id, and a request that makes no sense.
    let none = format!("/api/v1/plans/{}", "0".repeat(64));
    assert_eq!(node.http.get(&none, Some(&token)).status, 403);
    let short = node.http.get("/api/v1/plans/abc", Some(&token));
    assert_eq!(short.status, 400);
    let unknown = json!({ "work": "rotate-epoch", "kind": "person", "force": true });
    let answer = node.http.post("/api/v1/plans", Some(&token), &unknown);
    assert_eq!(answer.status, 422);
    let failed = json!({ "login": "anquan", "passphrase": "not that one" });
    node.http
        .post("/api/v1/sessions", None, &failed)
        .expect_status(401);
    let metrics = node.http.get("/metrics", None).text();
    assert!(
        metrics.contains("fangzhi_logins_failed_total 1"),
        "{metrics}"
    );
}
