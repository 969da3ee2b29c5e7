//! `kill -9` at any moment loses nothing that was acknowledged, doubles nothing, and leaves
//! nothing torn.
//!
//! `FANGZHI_SOAK_ROUNDS` sets how many rounds each test makes; `FANGZHI_SEED` repeats one.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::http::Http;
use tests::process::command;
use tests::trio::converge;
use tests::{Dice, copy_dir, from_env, rows};
use tests::{Running, Site};

/// Rounds of a normal run, over all tests of one sort.
const ROUNDS: u64 = 20;
const PERSONS: usize = 1500;

fn rounds() -> u64 {
    from_env("FANGZHI_SOAK_ROUNDS", ROUNDS)
}

/// What must hold after any crash: the bytes verify, but for an unfinished write at the end.
#[track_caller]
fn sound(site: &Site) {
    let report = site.verified();
    for remark in report["remarks"].as_array().unwrap() {
        assert!(remark.as_str().unwrap().contains("unfinished"), "{remark}");
    }
}

/// The file once more, to its end: every row is there, once.
#[track_caller]
fn complete(site: &Site, file: &Path, rows: usize) {
    let report = site.json(["import", "person", file.to_str().unwrap()]);
    assert_eq!(
        (&report["rows"], &report["accepted"], &report["rejected"]),
        (&json!(rows), &json!(rows), &json!(0)),
        "{report}"
    );
    assert_eq!(
        site.records("person"),
        rows as u64,
        "none lost, none doubled"
    );
    sound(site);
    assert_eq!(
        site.verified()["remarks"],
        json!([]),
        "opening cut the unfinished write off"
    );
}

fn segment_bytes(site: &Site) -> u64 {
    let segment = site.dir.join("segments/00000001.seg");
    segment.metadata().map_or(0, |metadata| metadata.len())
}

#[test]
fn an_import_killed_at_any_moment_is_sound_and_can_be_run_again() {
    let mut dice = Dice::new("import killed");
    let base = tempfile::tempdir().unwrap();
    let template = Site::alone(base.path());
    let mut table = rows::community(21, PERSONS).persons;
    // Without numbers, only the node's own memory of the file keeps a row from being doubled.
    let column = table
        .headers
        .iter()
        .position(|h| *h == "citizen_number")
        .unwrap();
    table
        .rows
        .iter_mut()
        .step_by(2)
        .for_each(|row| row[column].clear());
    let file = rows::write(&table, &base.path().join("person.csv"));

    // How long a whole import takes here sets from when to when the kills fall.
    let whole = Site::at(&base.path().join("whole"));
    copy_dir(&template.dir, &whole.dir);
    let start = Instant::now();
    complete(&whole, &file, PERSONS);
    let span = start.elapsed();

    let mut in_the_middle = 0;
    for round in 0..rounds() {
        let site = Site::at(&base.path().join(format!("round-{round}")));
        copy_dir(&template.dir, &site.dir);
        // Some rounds are killed twice before they are let finish.
        for _ in 0..=dice.below(2) {
            let mut child = command()
                .args([
                    "import",
                    "person",
                    file.to_str().unwrap(),
                    "--json",
                    "--dir",
                ])
                .arg(&site.dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if dice.below(3) == 0 {
                std::thread::sleep(Duration::from_micros(dice.below(span.as_micros() as u64)));
            } else {
                // Most kills shall fall between the first commit and the last.
                let grown = segment_bytes(&site);
                tests::until("something is written, or all is done", || {
                    segment_bytes(&site) > grown || child.try_wait().unwrap().is_some()
                });
                std::thread::sleep(Duration::from_micros(dice.below(150_000)));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            sound(&site);
        }
        let size = site.ledger_size("person");
        in_the_middle += u64::from(size > 0 && size < PERSONS as u64);
        complete(&site, &file, PERSONS);
        std::fs::remove_dir_all(&site.dir).unwrap();
    }
    eprintln!(
        "{in_the_middle} of {} rounds were killed between two acts",
        rounds()
    );
}

/// Sends chunks until the node is gone; gives those that it acknowledged.
fn send_until_killed(http: &Http, token: &str, chunks: &[Value], gone: &AtomicBool) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        match http.try_post("/api/v1/import", Some(token), chunk.to_string().as_bytes()) {
            Some(answer) => {
                let report = answer.expect_status(200).json();
                assert_eq!(report["accepted"], chunk["rows"].as_array().unwrap().len());
                acknowledged.push(at);
            }
            None => break,
        }
        if gone.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

/// Every row of an acknowledged chunk is there, found by what it says and not by its chunk's name.
fn all_there(node: &Running, token: &str, rows: &[Value]) {
    for row in rows {
        let request = json!({
            "kind": "person", "purpose": "service",
            "where": [{ "field": "citizen_number", "value": row["citizen_number"] }],
            "fields": ["name", "citizen_number"],
        });
        let answer = node
            .http
            .post("/api/v1/read", Some(token), &request)
            .expect_status(200)
            .json();
        let found = answer["value"]["rows"].as_array().unwrap();
        assert_eq!(found.len(), 1, "an acknowledged row is there, once");
        assert_eq!(found[0]["fields"]["name"], row["name"]);
    }
}

#[test]
fn a_running_node_killed_during_imports_keeps_what_it_acknowledged() {
    let mut dice = Dice::new("server killed");
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let mut table = rows::community(22, 4000).persons;
    let column = table
        .headers
        .iter()
        .position(|h| *h == "citizen_number")
        .unwrap();
    table.rows.retain(|row| !row[column].is_empty());
    // Small chunks: many commits, so that the kills fall into commits often.
    let chunks: Vec<Value> = (0..table.rows.len())
        .step_by(16)
        .map(|at| rows::chunk("person", &table, at..(at + 16).min(table.rows.len())))
        .collect();
    let mut done = 0;
    let mut round = 0;
    while round < rounds() {
        round += 1;
        // When all is in, a fresh register.
        if done >= chunks.len() {
            done = 0;
            std::fs::remove_dir_all(base.path()).unwrap();
            std::fs::create_dir(base.path()).unwrap();
            Site::alone(base.path());
        }
        let node = site.start();
        let token = node.http.login("dengji");
        let gone = AtomicBool::new(false);
        let http = node.http.clone();
        let acknowledged = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_until_killed(&http, &token, &chunks[done..], &gone));
            std::thread::sleep(Duration::from_micros(dice.below(700_000)));
            node.kill_9();
            gone.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        sound(&site);
        let node = site.start();
        let token = node.http.login("dengji");
        let kept = done..done + acknowledged.len();
        for chunk in &chunks[kept.clone()] {
            // The node itself knows the chunk…
            let again = node
                .http
                .post("/api/v1/import", Some(&token), chunk)
                .expect_status(200)
                .json();
            assert_eq!(again["repeated"], chunk["rows"].as_array().unwrap().len());
        }
        // … and one of its rows, chosen by chance, and the last ones, can be read.
        if let Some(last) = kept.clone().last() {
            let some = done + dice.below(acknowledged.len() as u64) as usize;
            all_there(
                &node,
                &token,
                &chunks[some].clone()["rows"].as_array().unwrap()[..1],
            );
            all_there(&node, &token, chunks[last]["rows"].as_array().unwrap());
        }
        // At most the one chunk that was under way is there without an acknowledgement.
        let rows_of = |chunks: &[Value]| -> u64 {
            chunks
                .iter()
                .map(|c| c["rows"].as_array().unwrap().len() as u64)
                .sum()
        };
        let records = tests::site::records_in(&node.http.status(), "person");
        let (least, most) = (
            rows_of(&chunks[..kept.end]),
            rows_of(&chunks[..chunks.len().min(kept.end + 1)]),
        );
        assert!(
            records == least || records == most,
            "{records} records, {least} acknowledged"
        );
        done = kept.end;
        node.stop();
    }
    // To the end, and once more from the beginning.
    let node = site.start();
    let token = node.http.login("dengji");
    for chunk in &chunks {
        let report = node
            .http
            .post("/api/v1/import", Some(&token), chunk)
            .expect_status(200)
            .json();
        assert_eq!(report["accepted"], report["rows"]);
    }
    assert_eq!(
        tests::site::records_in(&node.http.status(), "person"),
        table.rows.len() as u64
    );
    node.stop();
    sound(&site);
}

#[test]
fn an_import_command_whose_server_is_killed_says_so_and_the_next_one_completes_it() {
    let mut dice = Dice::new("server of an import command killed");
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let table = rows::community(23, PERSONS).persons;
    let file = rows::write(&table, &base.path().join("person.csv"));
    for _ in 0..rounds().div_ceil(5) {
        let node = site.start();
        let importing = {
            let (site, file) = (site.clone(), file.clone());
            std::thread::spawn(move || {
                site.run(["import", "person", file.to_str().unwrap(), "--json"])
            })
        };
        std::thread::sleep(Duration::from_millis(dice.below(1200)));
        node.kill_9();
        let done = importing.join().unwrap();
        // It ended before the kill, or found the node gone; or it came so late that it did the
        // work itself.
        assert!([0, 8].contains(&done.code), "{}", done.printed());
        if done.code == 8 {
            assert_eq!(done.json()["error"]["code"], "unreachable");
        }
        sound(&site);
    }
    complete(&site, &file, table.rows.len());
}

#[test]
fn parent_and_child_killed_during_replication_converge_after_it() {
    let mut dice = Dice::new("replication killed");
    let base = tempfile::tempdir().unwrap();
    let parent = Site::root(base.path(), "jiangjin", "district");
    let mut above = parent.start();
    let child = Site::join(base.path(), &above, "jinfu", "community");
    child.enrol("dengji", "clerk", None);
    let mut below = child.start();
    let table = rows::community(24, 3000).persons;
    let chunks: Vec<Value> = (0..table.rows.len())
        .step_by(64)
        .map(|at| rows::chunk("person", &table, at..(at + 64).min(table.rows.len())))
        .collect();
    let rounds = rounds().div_ceil(2);
    for round in 0..rounds {
        let token = below.http.login("dengji");
        let share = chunks.len().div_ceil(rounds as usize);
        let mine = chunks.iter().skip(round as usize * share).take(share);
        for chunk in mine {
            below
                .http
                .post("/api/v1/import", Some(&token), chunk)
                .expect_status(200);
        }
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        match dice.below(3) {
            0 => {
                above.kill_9();
                sound(&parent);
                above = parent.start();
            }
            1 => {
                below.kill_9();
                sound(&child);
                below = child.start();
            }
            _ => {
                above.kill_9();
                below.kill_9();
                sound(&parent);
                sound(&child);
                above = parent.start();
                below = child.start();
            }
        }
        // Some rounds let them come together, others kill again at once.
        if dice.below(2) == 0 {
            converge(&below, &above);
        }
    }
    converge(&below, &above);
    let status = below.http.status();
    assert_eq!(
        tests::site::records_in(&status, "person"),
        table.rows.len() as u64
    );
    assert_eq!(
        above.http.status()["alarms"],
        json!([]),
        "a crash is not an offence"
    );
    assert_eq!(status["alarms"], json!([]));
    above.stop();
    below.stop();
    sound(&parent);
    sound(&child);
    assert_eq!(
        parent.ledger_size("jinfu/person"),
        child.ledger_size("jinfu/person")
    );
}
