//! A rotation that is killed again and again ends as if it had never been, and what was proven
//! before it is proven after.
//!
//! `FANGZHI_SOAK_ROUNDS` sets how many times the node is killed at least; `FANGZHI_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use serde_json::Value;
use tests::site::{PASSPHRASE, records_in};
use tests::{Dice, Running, Site, from_env, rows, until};

const PERSONS: usize = 3000;

/// Plans as one officer, approves as another, runs.
fn run(node: &Running, work: &[&str]) -> tests::process::Done {
    let mut args = vec!["keys", "plan"];
    args.extend(work);
    args.extend(["--as", "anquan"]);
    let plan = node.site.json(args);
    let id = plan["id"].as_str().unwrap().to_owned();
    node.site.json(["keys", "approve", &id, "--as", "fuhe"]);
    node.site
        .run(["keys", "run", &id, "--as", "anquan", "--json"])
}

fn resealing(node: &Running) -> Value {
    let status = node.http.status();
    let epochs = status["epochs"].as_array().unwrap();
    let person = epochs
        .iter()
        .find(|e| e["origin"].as_str().unwrap().ends_with("/person"));
    person.unwrap()["resealing"].clone()
}

#[test]
fn a_rotation_killed_at_any_moment_goes_on_and_earlier_disclosures_still_check() {
    let mut dice = Dice::new("rotation killed");
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let pass = base.path().join("passphrase");
    std::fs::write(&pass, PASSPHRASE).unwrap();
    site.enrol("fuhe", "security-officer", None);
    let table = rows::community(21, PERSONS).persons;
    let file = rows::write(&table, &base.path().join("person.csv"));
    site.json(["import", "person", file.to_str().unwrap()]);
    let node = site.start();

    // What was disclosed and exported before.
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--limit",
        "1",
        "--purpose",
        "service",
    ]);
    let record = answer["rows"][0]["record"].as_str().unwrap().to_owned();
    let disclosed = base.path().join("disclosure.json");
    let out = base.path().join("exported");
    site.json([
        "audit",
        "export",
        "--uncosigned",
        "--out",
        out.to_str().unwrap(),
    ]);
    let shard = answer["rows"][0]["origin"].as_str().unwrap();
    let vkey = out.join(shard).join("vkey");
    let disclosing = [
        "audit",
        "disclose",
        "person",
        &record,
        "--fields",
        "name,birth_date",
        "--purpose",
        "service",
        "--as",
        "dengji",
        "--out",
        disclosed.to_str().unwrap(),
    ];
    site.json(disclosing);
    let check = || {
        let args = [
            "audit",
            "check",
            disclosed.to_str().unwrap(),
            "--vkey",
            vkey.to_str().unwrap(),
            "--json",
        ];
        tests::call(args.map(Into::into)).expect_code(0).json()
    };
    let before = check();

    run(&node, &["rotate-epoch", "person"]).expect_code(0);
    let mut node = node;
    let (mut kills, mut between) = (0, 0);
    let least = from_env("FANGZHI_SOAK_ROUNDS", 12);
    loop {
        std::thread::sleep(Duration::from_micros(dice.below(250_000)));
        let progress = resealing(&node);
        if progress["finished"] == true {
            break;
        }
        let done = progress["done"].as_u64().unwrap();
        between += u64::from(done > 0 && done < PERSONS as u64);
        node.kill_9();
        kills += 1;
        let report = site.run(["verify", "--json"]).json();
        assert_eq!(
            report["findings"],
            Value::Array(vec![]),
            "after kill {kills}"
        );
        assert!(kills < 60 * least, "resealing goes on after every kill");
        node = site.start();
        assert_eq!(records_in(&node.http.status(), "person"), PERSONS as u64);
    }
    eprintln!("killed {kills} times, {between} of them in the middle");
    let progress = resealing(&node);
    assert_eq!(progress["total"], PERSONS as u64);
    assert_eq!(
        progress["done"], PERSONS as u64,
        "each body once, none twice"
    );
    run(&node, &["retire-epoch", "person", "1"]).expect_code(0);
    assert_eq!(
        check(),
        before,
        "what was disclosed before checks as before"
    );
    until("a disclosure is made of what was resealed", || {
        site.run(disclosing).code == 0
    });
    check();
    node.stop();
    site.verified();
}

#[test]
fn two_rotations_at_once_are_one_and_the_other_is_told_why() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    site.enrol("fuhe", "security-officer", None);
    let table = rows::community(21, PERSONS).persons;
    let file = rows::write(&table, &base.path().join("person.csv"));
    site.json(["import", "person", file.to_str().unwrap()]);
    let node = site.start();
    let plan = |who: &str| {
        let args = [
            "keys",
            "plan",
            "rotate-epoch",
            "person",
            "--as",
            who,
            "--json",
        ];
        site.run(args)
    };
    let first = plan("anquan").expect_code(0).json();
    let second = plan("fuhe");
    assert_ne!(second.code, 0);
    assert!(
        second.stderr.contains("同一事项已有方案"),
        "{}",
        second.stderr
    );
    let id = first["id"].as_str().unwrap();
    site.json(["keys", "approve", id, "--as", "fuhe"]);
    // The same plan, run by two at one time.
    let ends: Vec<i32> = std::thread::scope(|scope| {
        let one = scope.spawn(|| site.run(["keys", "run", id, "--as", "anquan"]).code);
        let two = scope.spawn(|| site.run(["keys", "run", id, "--as", "fuhe"]).code);
        vec![one.join().unwrap(), two.join().unwrap()]
    });
    assert_eq!(
        ends.iter().filter(|code| **code == 0).count(),
        1,
        "{ends:?}"
    );
    let status = node.http.status();
    let epochs = status["epochs"].as_array().unwrap();
    assert!(
        epochs.iter().all(|e| e["current"].as_u64().unwrap() <= 2),
        "{epochs:?}"
    );
    node.stop();
    site.verified();
}
