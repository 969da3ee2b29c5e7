//! Two communities under a town, each a process: one is merged into the other while both are killed
//! and the line is cut, and every record is in exactly one count at the town all the time.
//!
//! `FANGZHI_MOVE_PERSONS` sets how many persons move, and prints the pace and the memory:
//! `FANGZHI_MOVE_PERSONS=10000 cargo test -p tests --test moving_running a_merge -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::{Duration, Instant};

use record::id::UnixMillis;
use registry::audit::realm::{Severity, audit};
use serde_json::Value;
use tests::realm::daemon::edit_config;
use tests::realm::proxy::{Fate, Proxy};
use tests::trio::has_all_of;
use tests::{Running, Site, rows};

/// Longer than others wait: what moves here may be many records.
const PATIENCE: Duration = Duration::from_secs(1800);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Nodes {
    town: Running,
    old: Running,
    new: Running,
    persons: u64,
}

impl Nodes {
    /// Kills a node as `kill -9` does, changes its directory, and starts it again.
    fn killed(self, name: &str, change: impl FnOnce(&std::path::Path)) -> Self {
        let again = |node: Running| {
            let site = node.site.clone();
            node.kill_9();
            change(&site.dir);
            site.start()
        };
        match name {
            "jinfu" => Self {
                old: again(self.old),
                ..self
            },
            _ => Self {
                new: again(self.new),
                ..self
            },
        }
    }
}

/// How many persons count at a node, over all shards.
fn count(node: &Running) -> u64 {
    let token = node.http.login("anquan");
    let counts = node.http.get("/api/v1/counts", Some(&token));
    let counts = counts.expect_status(200).json();
    let lines = counts.as_array().unwrap().iter();
    lines.map(|line| line["records"].as_u64().unwrap()).sum()
}

fn moving(node: &Running, plan: &str) -> Value {
    let token = node.http.login("anquan");
    let path = format!("/api/v1/transfers/shards/{plan}");
    let answer = node.http.get(&path, Some(&token));
    match answer.status {
        200 => answer.json(),
        _ => Value::Null,
    }
}

/// The most memory that a process had, in MiB.
fn peak(node: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1024
}

impl Nodes {
    fn start(base: &std::path::Path, persons: usize) -> Self {
        let town = Site::root(base, "shuangfu", "town").start();
        let join = |name: &str| {
            let site = Site::join(base, &town, name, "community");
            site.enrol("dengji", "clerk", None);
            site.enrol("second", "security-officer", None);
            site.start()
        };
        let (old, new) = (join("jinfu"), join("xianfeng"));
        let community = rows::community(3, persons);
        let file = rows::write(&community.persons, &base.join("person.csv"));
        old.site.json(["import", "person", file.to_str().unwrap()]);
        until("the town has cosigned the persons", || {
            let status = old.http.status();
            let ledgers = status["ledgers"].as_array().unwrap().clone();
            let of = |name: &str| ledgers.iter().find(|l| l["origin"] == name).cloned();
            of("journey.example/jinfu/person").is_some_and(|l| l["cosigned"] == l["size"])
                && has_all_of("shuangfu/authority", &old, &town)
        });
        let persons = count(&town);
        Self {
            town,
            old,
            new,
            persons,
        }
    }

    /// Both sides' officers want all persons moved, and the shard closed.
    fn agree(&self) -> String {
        let planned = self.old.site.json([
            "transfer",
            "shard",
            "--kind",
            "person",
            "--to",
            "xianfeng",
            "--close",
            "--basis",
            "社区合并 2026-7",
            "--as",
            "anquan",
        ]);
        let plan = planned["id"].as_str().unwrap().to_owned();
        run(&self.old, &plan);
        until("the new owner knows the plan", || {
            !moving(&self.new, &plan).is_null()
        });
        until("and that it was run", || {
            moving(&self.new, &plan)["state"] == "waits-for-receiver"
        });
        let planned = self
            .new
            .site
            .json(["transfer", "receive", &plan, "--as", "anquan"]);
        run(&self.new, planned["id"].as_str().unwrap());
        plan
    }

    fn counted(&self) {
        assert_eq!(count(&self.town), self.persons);
    }

    /// Ends all nodes, and verifies and audits each.
    fn verified(self) {
        let sites = [&self.old, &self.new, &self.town].map(|node| node.site.clone());
        for node in [self.old, self.new, self.town] {
            node.stop();
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = UnixMillis(since.unwrap().as_millis() as u64);
        for site in &sites {
            site.verified();
            let report = audit(&site.dir, now).unwrap();
            let faults = report
                .findings
                .iter()
                .filter(|f| f.severity == Severity::Fault);
            assert_eq!(faults.count(), 0, "{:#?}", report.findings);
        }
    }
}

fn run(node: &Running, plan: &str) {
    node.site.json(["keys", "approve", plan, "--as", "second"]);
    node.site.json(["keys", "run", plan, "--as", "anquan"]);
}

#[test]
fn a_merge_goes_on_after_both_sides_were_killed_in_the_middle_and_is_shown_as_it_goes() {
    let base = tempfile::tempdir().unwrap();
    let asked = std::env::var("FANGZHI_MOVE_PERSONS").ok();
    let persons = asked.as_deref().map_or(300, |text| text.parse().unwrap());
    let mut nodes = Nodes::start(base.path(), persons);
    let plan = nodes.agree();
    let start = Instant::now();
    let mut kills = 0;
    let mut seen = Value::Null;
    loop {
        assert!(start.elapsed() < PATIENCE, "gave up: {seen}");
        nodes.counted();
        let line = moving(&nodes.old, &plan);
        if asked.is_some() && seen["done"] != line["done"] {
            let (done, total) = (&line["done"], &line["total"]);
            eprintln!(
                "{:?} done {done} of {total}, eta {}",
                start.elapsed(),
                line["eta"]
            );
        }
        if line["state"] == "closed" {
            break;
        }
        // Measured without kills.
        if asked.is_none() && kills < 4 && line["state"] == "moving" {
            let name = ["jinfu", "xianfeng"][kills % 2];
            nodes = nodes.killed(name, |_| {});
            kills += 1;
        }
        seen = line;
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = start.elapsed();
    if asked.is_some() {
        for node in [&nodes.old, &nodes.new, &nodes.town] {
            let log = std::fs::read_to_string(node.site.dir.join("node.log")).unwrap();
            let loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
            log.lines()
                .filter(loud)
                .for_each(|line| eprintln!("{line}"));
        }
        let rate = nodes.persons as f64 / took.as_secs_f64();
        let peaks = [&nodes.old, &nodes.new, &nodes.town].map(peak);
        eprintln!(
            "{} persons in {took:?}: {rate:.0}/s; peak MiB old, new, town: {peaks:?}",
            nodes.persons
        );
    } else {
        assert!(kills > 0, "it was killed on the way");
    }
    until("all know", || {
        [&nodes.old, &nodes.new, &nodes.town].iter().all(|node| {
            let line = moving(node, &plan);
            nodes.counted();
            line["state"] == "closed" && line["done"] == nodes.persons && line["failed"] == 0
        })
    });
    let shown = nodes
        .old
        .site
        .json(["transfer", "show", &plan, "--as", "anquan"]);
    assert_eq!(
        shown["closed"]["successors"][0],
        "journey.example/xianfeng/person"
    );
    let list = nodes.new.site.json(["transfer", "list", "--as", "anquan"]);
    assert_eq!(list["shards"][0]["done"], nodes.persons);
    assert_eq!(list["transfers"].as_array().unwrap().len(), 0);
    let status = nodes.town.http.status();
    assert_eq!(
        status["closed"][0]["origin"],
        "journey.example/jinfu/person"
    );
    assert_eq!(
        status["alarms"].as_array().unwrap().len(),
        0,
        "{}",
        status["alarms"]
    );
    // The desk of the old community is told where to go.
    let more = rows::community(4, 1);
    let file = rows::write(&more.persons, &base.path().join("more.csv"));
    let refused = nodes
        .old
        .site
        .run(["import", "person", file.to_str().unwrap()]);
    let words = format!("{refused:?}");
    assert!(words.contains("xianfeng/person"), "{words}");
    nodes.counted();
    nodes.verified();
}

#[test]
fn a_merge_over_a_line_that_is_cut_again_and_again_moves_everything_once() {
    let base = tempfile::tempdir().unwrap();
    let mut nodes = Nodes::start(base.path(), 120);
    let proxy = Proxy::start(&nodes.town.listen, |number| match number % 4 {
        0 => Fate::CutAfter(60_000),
        1 => Fate::CutAfter(200_000),
        2 => Fate::Refused,
        _ => Fate::CutAfter(20_000),
    });
    let plan = nodes.agree();
    nodes = nodes.killed("xianfeng", |dir| {
        edit_config(dir, |config| {
            let parent = config.parent.as_mut().unwrap();
            parent.address.clone_from(&proxy.address);
        });
    });
    until("several cuts", || {
        nodes.counted();
        proxy.connections() >= 6
    });
    proxy.fate(|_| Fate::Whole);
    proxy.cut();
    until("all of it moved, and the shard is closed", || {
        nodes.counted();
        moving(&nodes.town, &plan)["state"] == "closed"
    });
    until("the new owner has all", || {
        moving(&nodes.new, &plan)["state"] == "closed"
            && nodes.new.site.records("person") == nodes.persons
    });
    nodes.verified();
}
