//! Backups of a running node: made by hand and by themselves, rehearsed, and restored on another
//! machine, which signs nothing before its parent has spoken.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::process::call;
use tests::site::Site;
use tests::trio::converge;
use tests::until;

const PERSON: &str = "序号,姓名,公民身份号码\n";

fn import(site: &Site, base: &Path, name: &str, rows: &[&str]) {
    let file = base.join(format!("{name}.csv"));
    let rows: Vec<String> = (1..)
        .zip(rows)
        .map(|(n, row)| format!("{n},{row},\n"))
        .collect();
    std::fs::write(&file, format!("{PERSON}{}", rows.concat())).unwrap();
    site.json(["import", "person", file.to_str().unwrap()]);
}

fn identity(base: &Path) -> (PathBuf, String) {
    let file = base.join("identity");
    let made = call(["backup", "key", "--json", "--out", file.to_str().unwrap()]);
    let recipient = made.expect_code(0).json()["recipient"]
        .as_str()
        .unwrap()
        .to_owned();
    (file, recipient)
}

fn check<'a>(doctor: &'a Value, name: &str) -> &'a Value {
    let checks = doctor["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap()
}

#[test]
fn a_station_restored_on_another_machine_waits_for_its_parent_and_loses_nothing_that_was_backed_up()
{
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let town = Site::root(base, "shuangfu", "town").start();
    let community = Site::join(base, &town, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    import(&community, base, "first", &["示例甲", "示例乙"]);
    let (key, recipient) = identity(base);
    let to = base.join("backups");
    let (key, to) = (key.to_str().unwrap(), to.to_str().unwrap());

    let refused = community.run(["backup", "make"]).expect_code(2);
    assert!(refused.printed().contains("backup configure"));
    assert_eq!(
        check(&community.json(["doctor"]), "backup")["health"],
        "warning"
    );
    let inside = community.dir.join("backups");
    community
        .run([
            "backup",
            "configure",
            "--to",
            inside.to_str().unwrap(),
            "--recipient",
            &recipient,
        ])
        .expect_code(2);
    community.json([
        "backup",
        "configure",
        "--to",
        to,
        "--recipient",
        &recipient,
        "--every-hours",
        "1",
    ]);

    // The running node makes one by itself; another is made by hand beside it.
    let running = community.start();
    converge(&running, &town);
    until("the node makes a backup", || {
        community.run(["backup", "list", "--json"]).json()["sets"]
            .as_array()
            .is_some_and(|sets| !sets.is_empty())
    });
    let made = community.json(["backup", "make"]);
    assert_eq!(made["number"], 2);
    community.json(["backup", "verify"]);
    community.json(["backup", "verify", "--identity", key]);
    let rehearsed = community.json(["backup", "rehearse", "--identity", key]);
    assert_eq!(rehearsed["ok"], true);
    assert!(rehearsed["ledgers"].as_u64().unwrap() >= 2);
    assert_eq!(check(&community.json(["doctor"]), "backup")["health"], "ok");

    // One more record after the backup, signed and replicated; then the machine is gone.
    import(&community, base, "later", &["示例丙"]);
    converge(&running, &town);
    let signed = running.http.status();
    running.stop();
    std::fs::remove_dir_all(&community.dir).unwrap();
    std::fs::remove_dir_all(community.dir.with_extension("signed")).ok();

    let new = Site::at(&base.join("new-machine"));
    let into = new.dir.to_str().unwrap();
    // Whoever has a parent does not say of itself that nothing was signed since.
    let args = ["backup", "restore", "--from", to, "--into", into];
    let more = ["--identity", key, "--nothing-signed-since"];
    let refused = call(args.into_iter().chain(more)).expect_code(2);
    assert!(
        refused.printed().contains("`shuangfu`"),
        "{}",
        refused.printed()
    );
    assert!(!new.dir.exists());
    call([
        "backup",
        "restore",
        "--from",
        to,
        "--into",
        into,
        "--identity",
        key,
    ])
    .expect_code(0);
    call([
        "backup",
        "restore",
        "--from",
        to,
        "--into",
        into,
        "--identity",
        key,
    ])
    .expect_code(2);
    let file = base.join("more.csv");
    std::fs::write(&file, format!("{PERSON}1,示例丁,\n")).unwrap();
    let refused = new.run(["import", "person", file.to_str().unwrap()]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.printed().contains("not signed at present"),
        "{}",
        refused.printed()
    );

    let running = new.start();
    converge(&running, &town);
    until("every ledger is signed again", || {
        running.http.status()["halted"]
            .as_object()
            .unwrap()
            .is_empty()
    });
    let size = |status: &Value| {
        let ledgers = status["ledgers"].as_array().unwrap();
        let person = ledgers
            .iter()
            .find(|l| l["origin"].as_str().unwrap().ends_with("jinfu/person"));
        person.unwrap()["size"].clone()
    };
    assert_eq!(size(&running.http.status()), size(&signed));
    new.json(["import", "person", file.to_str().unwrap()]);
    converge(&running, &town);
    let forks = town.http.status();
    let alarms = forks["alarms"].as_array().unwrap();
    assert!(
        alarms.iter().all(|alarm| alarm["code"] != "fork"),
        "{alarms:?}"
    );
    // Two from the backup and the new one open; the third came back without its secret.
    let answer = new.json([
        "read",
        "person",
        "--purpose",
        "registration",
        "--limit",
        "10",
    ]);
    assert_eq!(answer["value"]["rows"].as_array().unwrap().len(), 3);
    running.stop();
    new.verified();
    town.stop();
}

#[test]
fn a_spoilt_backup_is_told_and_nothing_is_restored_from_it() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let site = Site::alone(base);
    let (key, recipient) = identity(base);
    let to = base.join("backups");
    let (key, to_text) = (key.to_str().unwrap(), to.to_str().unwrap());
    site.json([
        "backup",
        "configure",
        "--to",
        to_text,
        "--recipient",
        &recipient,
        "--every-hours",
        "0",
    ]);
    site.json(["backup", "make"]);
    let history = std::fs::read_dir(to.join("history")).unwrap();
    let object = history.map(|entry| entry.unwrap().path()).next().unwrap();
    let bytes = std::fs::read(&object).unwrap();
    std::fs::write(&object, &bytes[..bytes.len() - 1]).unwrap();
    let told = site.run(["backup", "verify"]).expect_code(7);
    assert!(
        told.printed().contains("segments/00000001.seg"),
        "{}",
        told.printed()
    );
    site.run(["backup", "rehearse", "--identity", key])
        .expect_code(7);
    let into = base.join("into");
    call([
        "backup",
        "restore",
        "--from",
        to_text,
        "--into",
        into.to_str().unwrap(),
        "--identity",
        key,
    ])
    .expect_code(7);
    assert!(!into.exists());
    // The next backup seals it again, because the object is not what it should be.
    site.json(["backup", "make"]);
    site.json(["backup", "rehearse", "--identity", key]);
    // With another's key the backup is not the one that is wrong.
    let elsewhere = base.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (other, _) = identity(&elsewhere);
    let other = other.to_str().unwrap();
    for command in ["rehearse", "verify"] {
        site.run(["backup", command, "--identity", other])
            .expect_code(2);
    }
}
