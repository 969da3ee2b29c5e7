//! A node cannot show two histories, nor forget what it signed: real processes, real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use record::id::{DivisionId, Origin};
use registry::Registry;
use registry::keys::Opener;
use serde_json::Value;
use tests::site::{REALM, Running, Site};
use tests::trio::converge;
use tests::{copy_dir, until};

const PERSON: &str = "序号,姓名,公民身份号码\n";

/// A town with two communities under it, the first with a record.
fn family(base: &std::path::Path) -> (Running, Running, Site) {
    let town = Site::root(base, "shuangfu", "town").start();
    let sibling = Site::join(base, &town, "fucheng", "community").start();
    let community = Site::join(base, &town, "jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let file = base.join("person.csv");
    std::fs::write(&file, format!("{PERSON}1,示例甲,\n2,示例乙,\n")).unwrap();
    community.json(["import", "person", file.to_str().unwrap()]);
    (town, sibling, community)
}

/// Amends the first record of a directory that is not running.
fn amend(site: &Site, education: &str) {
    let answer = site.json([
        "read",
        "person",
        "--purpose",
        "registration",
        "--limit",
        "1",
    ]);
    let record = answer["value"]["rows"][0]["record"]
        .as_str()
        .unwrap()
        .to_owned();
    let change = format!("education={education}");
    site.json([
        "amend",
        "person",
        &record,
        "--version",
        "1",
        "--set",
        &change,
    ]);
}

fn forks(node: &Running) -> Vec<Value> {
    let status = node.http.status();
    let alarms = status["alarms"].as_array().unwrap().iter();
    alarms
        .filter(|alarm| alarm["code"] == "fork")
        .cloned()
        .collect()
}

#[test]
fn two_histories_shown_to_two_peers_become_evidence_at_both() {
    let base = tempfile::tempdir().unwrap();
    let (town, sibling, community) = family(base.path());
    let running = community.start();
    converge(&running, &town);
    running.stop();

    // A dishonest owner: a second copy of the directory, whose guard knows nothing.
    let evil = Site::at(&base.path().join("evil"));
    copy_dir(&community.dir, &evil.dir);
    amend(&community, "20");
    amend(&evil, "30");

    // The parent is shown one history, the sibling as a witness the other.
    let running = community.start();
    converge(&running, &town);
    let person = Origin::parse(&format!("{REALM}/jinfu/person")).unwrap();
    let request = {
        let registry = Registry::open(&evil.dir, &Opener::File, api::now()).unwrap();
        let witness = DivisionId::new("fucheng").unwrap();
        registry
            .witness_request(&person, &witness, 0)
            .unwrap()
            .unwrap()
            .1
    };
    let answer = sibling
        .http
        .try_post("/witness/add-checkpoint", None, request.as_bytes())
        .unwrap()
        .expect_status(200);
    assert!(answer.text().contains("/fucheng/witness "));

    until("both peers hold the evidence", || {
        !forks(&town).is_empty() && !forks(&sibling).is_empty()
    });
    for node in [&town, &sibling] {
        let fork = forks(node).remove(0);
        assert_eq!(fork["origin"], person.as_str());
        let notes: Vec<&str> = fork["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        let roots: Vec<&str> = notes
            .iter()
            .map(|note| note.lines().nth(2).unwrap())
            .collect();
        let sizes: Vec<&str> = notes
            .iter()
            .map(|note| note.lines().nth(1).unwrap())
            .collect();
        assert_eq!(sizes[0], sizes[1]);
        assert_ne!(roots[0], roots[1]);
    }
    // Asked again, the witness does not cosign the other history either.
    let refused = sibling
        .http
        .try_post(
            "/witness/add-checkpoint",
            None,
            request.replace("old 0", "old 1").as_bytes(),
        )
        .unwrap();
    assert_ne!(refused.status, 200);
    running.stop();
}

#[test]
fn a_directory_restored_from_an_old_copy_signs_nothing_until_the_rest_is_back() {
    let base = tempfile::tempdir().unwrap();
    let (town, _sibling, community) = family(base.path());
    let running = community.start();
    converge(&running, &town);
    running.stop();
    let old = base.path().join("old");
    copy_dir(&community.dir, &old);
    amend(&community, "20");
    let running = community.start();
    converge(&running, &town);
    let signed = running.http.status();
    running.stop();

    std::fs::remove_dir_all(&community.dir).unwrap();
    copy_dir(&old, &community.dir);
    // Cut off from its parent it signs nothing, and says so.
    let file = base.path().join("more.csv");
    std::fs::write(&file, format!("{PERSON}3,示例丙,\n")).unwrap();
    let refused = community.run(["import", "person", file.to_str().unwrap()]);
    assert!(refused.code != 0, "{}", refused.printed());
    assert!(
        refused.printed().contains("not signed at present"),
        "{}",
        refused.printed()
    );

    // With it, it gets back what it had signed, and goes on.
    let running = community.start();
    converge(&running, &town);
    let restored = running.http.status();
    let of = |status: &Value, ledger: &str| {
        let name = format!("{REALM}/jinfu/{ledger}");
        let ledgers = status["ledgers"].as_array().unwrap();
        let line = ledgers
            .iter()
            .find(|l| l["origin"] == name.as_str())
            .cloned()
            .unwrap();
        (line["size"].clone(), line["root"].clone())
    };
    assert_eq!(of(&restored, "person"), of(&signed, "person"));
    community.json(["import", "person", file.to_str().unwrap()]);
    converge(&running, &town);
    assert!(forks(&town).is_empty());
    running.stop();
    town.stop();
    std::thread::sleep(Duration::from_millis(10));
    community.verified();
}

#[test]
fn a_damaged_frame_in_the_middle_is_fetched_back_from_the_parent() {
    let base = tempfile::tempdir().unwrap();
    let (town, _sibling, community) = family(base.path());
    let file = base.path().join("more.csv");
    let rows: String = (0..600).map(|row| format!("{row},示例,\n")).collect();
    std::fs::write(&file, format!("{PERSON}{rows}")).unwrap();
    community.json(["import", "person", file.to_str().unwrap()]);
    let running = community.start();
    converge(&running, &town);
    let signed = running.http.status();
    running.stop();
    assert!(community.json(["repair", "--from-parent"])["moved_aside"].is_null());

    let segment = community.dir.join("segments/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();
    let found = community.run(["verify"]).expect_code(7);
    assert!(
        found.printed().contains("00000001.seg"),
        "{}",
        found.printed()
    );

    let report = community.json(["repair", "--from-parent"]);
    assert!(!report["moved_aside"].is_null());
    let running = community.start();
    converge(&running, &town);
    let repaired = running.http.status();
    let person = |status: &Value| {
        let name = format!("{REALM}/jinfu/person");
        let ledgers = status["ledgers"].as_array().unwrap();
        ledgers
            .iter()
            .find(|l| l["origin"] == name.as_str())
            .unwrap()["root"]
            .clone()
    };
    assert_eq!(person(&repaired), person(&signed));
    running.stop();
    community.verified();
    let answer = community.json([
        "read",
        "person",
        "--purpose",
        "registration",
        "--limit",
        "1000",
    ]);
    assert_eq!(answer["value"]["rows"].as_array().unwrap().len(), 602);
}
