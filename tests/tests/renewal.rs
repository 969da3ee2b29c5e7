//! Nodes change their own keys while they run, with real processes and the command line alone: the
//! old key asks, the parent charters, and everybody follows without a restart.
//!
//! `FANGZHI_SEED` repeats a run of what is killed at random.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;
use std::time::Duration;

use record::authority::Charter;
use registry::config::NodeConfig;
use serde_json::{Value, json};
use tests::realm::daemon::edit_config;
use tests::site::{free_address, records_in};
use tests::trio::converge;
use tests::{Dice, Running, Site, Trio, copy_dir, rows, until};

fn by(site: &Site, officer: &str, args: &[&str]) -> Value {
    site.json(args.iter().copied().chain(["--as", officer]))
}

/// Plans, has another officer approve, and runs the rotation of a node's own keys.
fn rotate(site: &Site) {
    let plan = by(site, "anquan", &["keys", "plan", "rotate-node"]);
    let plan = plan["id"].as_str().unwrap();
    by(site, "fuhe", &["keys", "approve", plan]);
    by(site, "anquan", &["keys", "run", plan]);
}

fn chain(site: &Site) -> Vec<Charter> {
    NodeConfig::read(&site.dir).unwrap().charters().unwrap()
}

fn serial(site: &Site) -> u32 {
    chain(site)[0].serial
}

/// Waits until a node has its next charter and nothing is left to be done for it.
fn rotated(node: &Running, to: u32) {
    until("the node has its next charter", || {
        serial(&node.site) == to && node.http.status()["renewal"].is_null()
    });
}

fn import(node: &Running, seed: usize) {
    let sample = rows::community(1, 60);
    let tables = sample.tables();
    let (_, table) = tables.iter().find(|(kind, _)| *kind == "person").unwrap();
    let token = node.http.login("dengji");
    let mut chunk = rows::chunk("person", table, seed * 10..seed * 10 + 10);
    chunk["source"] = format!("{seed:064x}").into();
    let report = node.http.post("/api/v1/import", Some(&token), &chunk);
    assert_eq!(report.expect_status(200).json()["accepted"], 10);
}

/// A node under another one that keeps its replication address over restarts.
fn join(base: &Path, parent: &Running, division: &str, level: &str) -> Site {
    let site = Site::join(base, parent, division, level);
    edit_config(&site.dir, |config| config.listen = free_address());
    site.enrol("fuhe", "security-officer", None);
    site
}

#[test]
fn a_town_changes_its_keys_while_it_runs_and_its_parent_and_its_community_follow() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let district = Site::root(base, "jiangjin", "district").start();
    let site = join(base, &district, "shuangfu", "town");
    let town = site.start();
    let community = join(base, &town, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let community = community.start();
    import(&community, 0);
    converge(&community, &town);
    converge(&town, &district);
    let out = base.join("site");
    let export = ["audit", "export", "--out", out.to_str().unwrap()];
    district.site.json(export);
    town.stop();
    let old = base.join("old");
    copy_dir(&site.dir, &old);
    let town = site.start();
    let before = chain(&site);

    rotate(&site);
    rotated(&town, 2);
    let after = chain(&site);
    let (one, two) = (&before[0].keys, &after[0].keys);
    assert!(one.sign != two.sign && one.witness != two.witness && one.held != two.held);
    assert!(one.transport != two.transport && one.seal != two.seal);
    until("the community follows its town without a restart", || {
        let config = NodeConfig::read(&community.site.dir).unwrap();
        let chain = config.charters().unwrap();
        let transport = data_encoding::HEXLOWER.encode(&two.transport);
        chain[0].serial == 2
            && chain[1] == after[0]
            && config.parent.unwrap().transport == transport
    });
    // The community's own keys are what they were: only who vouches for them changed.
    import(&community, 1);
    converge(&community, &town);
    converge(&town, &district);

    // Whoever publishes goes on, and says which key signed when.
    district.site.json(export);
    let keys = out.join("journey.example/shuangfu/authority/log-keys");
    let keys = std::fs::read_to_string(keys).unwrap();
    let lines: Vec<&str> = keys.lines().collect();
    assert_eq!(lines.len(), 2, "{keys}");
    assert!(lines[0].contains(" - ") && !lines[1].contains(" - "));

    // What the old keys signed is verified with them, what the new signed with those.
    town.stop();
    site.verified();
    let stolen = Site::at(&old);
    let stolen = stolen.start();
    until("an old copy of the node is refused", || {
        let status = stolen.http.status();
        let peers = status["peers"].as_array().unwrap();
        peers.iter().any(|peer| {
            let error = peer["last_error"].as_str().unwrap_or_default();
            peer["refused"].as_u64() > Some(0) && error.contains("revoked")
        })
    });
    stolen.kill_9();
    let town = site.start();
    import(&community, 2);
    converge(&community, &town);
    converge(&town, &district);
    // Once more, and the community, too.
    rotate(&community.site);
    rotated(&community, 3);
    rotate(&site);
    rotated(&town, 3);
    import(&community, 3);
    converge(&community, &town);
    converge(&town, &district);
    for node in [community, town, district] {
        let site = node.site.clone();
        assert_eq!(
            node.http.status()["alarms"],
            json!([]),
            "{}",
            site.dir.display()
        );
        node.stop();
        site.verified();
        site.json(["audit", "all"]);
    }
}

#[test]
fn the_root_names_its_next_key_and_the_realm_follows_even_who_was_away() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let root = Site::root(base, "jiangjin", "district");
    edit_config(&root.dir, |config| config.listen = free_address());
    root.enrol("fuhe", "security-officer", None);
    let district = root.start();
    let site = join(base, &district, "shuangfu", "town");
    let town = site.start();
    let community = join(base, &town, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let away = join(base, &district, "caijia", "town").start();
    let community = community.start();
    import(&community, 0);
    converge(&community, &town);
    converge(&town, &district);
    converge(&away, &district);
    let away_site = away.site.clone();
    away.stop();
    let first = NodeConfig::read(&root.dir).unwrap().root;

    rotate(&root);
    rotated(&district, 2);
    let second = NodeConfig::read(&root.dir).unwrap().root;
    assert_ne!(first, second);
    let pinned = |site: &Site| NodeConfig::read(&site.dir).unwrap().root;
    until("the town and its community follow", || {
        pinned(&site) == second && pinned(&community.site) == second
    });
    // The town's charter was issued anew; the community's is the town's word still.
    until("the town has its charter anew", || serial(&site) == 2);
    assert_eq!(serial(&community.site), 1);
    import(&community, 1);
    converge(&community, &town);
    converge(&town, &district);
    // Once more while one is away.
    rotate(&root);
    rotated(&district, 3);
    let third = pinned(&root);
    let away = away_site.start();
    until("who was away follows over every key between", || {
        pinned(&away_site) == third
    });
    converge(&away, &district);
    import(&community, 2);
    converge(&community, &town);
    converge(&town, &district);
    // Who comes after all that takes the root's ledger, which begins under its first key.
    let late = join(base, &district, "degan", "community").start();
    assert_eq!(pinned(&late.site), third);
    let root_ledger = |node: &Running| {
        let ledgers = node.http.status()["ledgers"].clone();
        let mut ledgers = ledgers.as_array().unwrap().iter();
        let found = ledgers.find(|l| {
            l["origin"]
                .as_str()
                .unwrap()
                .ends_with("/jiangjin/authority")
        });
        found.map(|ledger| (ledger["size"].clone(), ledger["root"].clone()))
    };
    until("the newcomer has the root's ledger", || {
        root_ledger(&late).is_some() && root_ledger(&late) == root_ledger(&district)
    });
    converge(&late, &district);
    for node in [late, community, away, town, district] {
        let site = node.site.clone();
        assert_eq!(
            node.http.status()["alarms"],
            json!([]),
            "{}",
            site.dir.display()
        );
        node.stop();
        site.verified();
        site.json(["audit", "all"]);
    }
}

#[test]
fn a_holder_that_changed_its_keys_is_sealed_to_anew_without_an_officer_and_reads_on() {
    let base = tempfile::tempdir().unwrap();
    let trio = Trio::start(base.path(), "G01", &[]);
    import(&trio.community, 0);
    trio.converge();
    trio.grant("name,sex", &[]);
    let department = &trio.department;
    department.site.enrol("fuhe", "security-officer", None);
    rotate(&department.site);
    rotated(department, 2);
    // Its old seal key stays for a while, for letters under way: what is sealed to it is seen here.
    let to_older_keys = |report: &Value| {
        let mut findings = report["findings"].as_array().unwrap().iter();
        findings.any(|finding| finding["code"] == "grant-older-charter")
    };
    until("the grant is sealed to the holder's next keys", || {
        !to_older_keys(&department.site.run(["audit", "all", "--json"]).json())
    });
    import(&trio.community, 1);
    trio.converge();
    until("what is registered since reaches the department", || {
        records_in(&department.http.status(), "person") == 20
    });
    let Trio {
        district,
        community,
        department,
    } = trio;
    let site = department.site.clone();
    department.stop();
    let department = site.start();
    assert_eq!(records_in(&department.http.status(), "person"), 20);
    for node in [department, community, district] {
        let site = node.site.clone();
        node.stop();
        site.verified();
    }
}

#[test]
fn a_rotation_that_is_killed_at_any_moment_is_gone_on_with_after_the_next_start() {
    let mut dice = Dice::new("renewal killed");
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let district = Site::root(base, "jiangjin", "district").start();
    let site = join(base, &district, "jinfu", "community");
    site.enrol("dengji", "clerk", None);
    let mut node = site.start();
    import(&node, 0);
    converge(&node, &district);
    let mut kills = 0;
    for to in 2..=3 {
        rotate(&site);
        let mut round = 0;
        while serial(&site) != to || !node.http.status()["renewal"].is_null() {
            // Ever later, so that every step is reached and every step may be the last.
            round += 1;
            std::thread::sleep(Duration::from_millis(dice.below(250 * round)));
            let renewal = node.http.status()["renewal"].clone();
            node.kill_9();
            kills += 1;
            node = site.start();
            assert!(
                kills < 60,
                "the rotation goes on after every kill: {renewal}"
            );
        }
    }
    eprintln!("killed {kills} times");
    import(&node, 1);
    converge(&node, &district);
    node.stop();
    site.verified();
    district.stop();
}
