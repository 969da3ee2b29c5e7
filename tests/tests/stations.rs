//! A station is lost and rebuilt, and a station is locked and opened, with real processes and the
//! command line alone.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::process::call;
use tests::rows;
use tests::site::{PASSPHRASE, REALM, Running, Site, free_address};
use tests::trio::converge;
use tests::until;

const OFFICERS: [&str; 3] = ["anquan", "yi", "er"];

/// Runs a command on a site in an officer's name.
fn by(site: &Site, officer: &str, args: &[&str]) -> Value {
    site.json(args.iter().copied().chain(["--as", officer]))
}

/// The whole ceremony; the files with the shares.
fn share(site: &Site, base: &Path) -> Vec<PathBuf> {
    let operators = by(site, "anquan", &["operator", "list"]);
    let id = |login: &str| {
        let all = operators["operators"].as_array().unwrap();
        let one = all.iter().find(|o| o["login"] == login).unwrap();
        format!("jinfu:{}", one["operator"].as_str().unwrap())
    };
    let holders = OFFICERS.map(id);
    let mut args = vec!["keys", "plan", "share", "--threshold", "2"];
    args.extend(holders.iter().flat_map(|holder| ["--holder", holder]));
    let plan = by(site, "anquan", &args);
    let plan = plan["id"].as_str().unwrap();
    by(site, "yi", &["keys", "approve", plan]);
    by(site, "anquan", &["keys", "run", plan]);
    let status = by(site, "er", &["keys", "share", "status"]);
    let nonce = status["ceremony"]["ceremony"].as_str().unwrap();
    let files = OFFICERS.map(|officer| {
        let file = base.join(format!("{officer}.share"));
        let out = file.to_str().unwrap();
        let take = ["keys", "share", "take", "--ceremony", nonce, "--out", out];
        by(site, officer, &take);
        file
    });
    for (officer, file) in OFFICERS.iter().zip(&files) {
        let share = file.to_str().unwrap();
        let confirm = [
            "keys",
            "share",
            "confirm",
            "--ceremony",
            nonce,
            "--share",
            share,
        ];
        by(site, officer, &confirm);
    }
    let status = by(site, "yi", &["keys", "share", "status"]);
    assert_eq!(status["in_force"]["ceremony"], nonce);
    files.into()
}

fn people(node: &Running) -> Vec<Value> {
    let token = node.http.login("dengji");
    let request =
        json!({ "kind": "person", "purpose": "registration", "closed": true, "limit": 200 });
    let answer = node.http.post("/api/v1/read", Some(&token), &request);
    let answer = answer.expect_status(200).json();
    let mut rows = answer["value"]["rows"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["record"].to_string());
    rows
}

#[test]
fn a_station_that_burned_is_rebuilt_with_two_of_three_shares_and_registers_again() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let district = Site::root(base, "jiangjin", "district").start();
    let site = Site::join(base, &district, "jinfu", "community");
    site.enrol("dengji", "clerk", None);
    for officer in &OFFICERS[1..] {
        site.enrol(officer, "security-officer", None);
    }
    let community = site.start();
    let sample = rows::community(1, 60);
    let import = |node: &Running, from: usize, to: usize| {
        let (_, table) = sample
            .tables()
            .into_iter()
            .find(|(k, _)| *k == "person")
            .unwrap();
        let token = node.http.login("dengji");
        let mut chunk = rows::chunk("person", table, from..to);
        chunk["source"] = format!("{from:064x}").into();
        let report = node.http.post("/api/v1/import", Some(&token), &chunk);
        assert_eq!(report.expect_status(200).json()["accepted"], to - from);
    };
    import(&community, 0, 20);
    let shares = share(&site, base);
    import(&community, 20, 40);
    let before = people(&community);
    converge(&community, &district);
    community.kill_9();
    std::fs::remove_dir_all(&site.dir).unwrap();
    std::fs::remove_dir_all(base.join("jinfu.signed")).unwrap();

    let file = base.join("jinfu.recovery.json");
    let file = file.to_str().unwrap();
    let export = [
        "recover",
        "export",
        "--division",
        "jinfu",
        "--address",
        &district.listen,
        "--out",
        file,
    ];
    by(&district.site, "anquan", &export);
    let (one, two) = (shares[0].to_str().unwrap(), shares[2].to_str().unwrap());
    let rebuild = [
        "recover", "rebuild", "--from", file, "--share", one, "--share", two,
    ];
    site.json(rebuild);
    // The operators' passphrases are theirs; the journey keeps them in files.
    for login in OFFICERS.iter().chain(&["dengji"]) {
        let pass = site.dir.join(format!("operators/{login}.pass"));
        std::fs::write(pass, PASSPHRASE).unwrap();
    }
    let community = site.start();
    until("the ledgers are back", || {
        let status = community.http.status();
        status["halted"].as_object().unwrap().is_empty()
            && !status["ledgers"].as_array().unwrap().is_empty()
    });
    assert_eq!(people(&community), before);
    import(&community, 40, 50);
    converge(&community, &district);
    community.stop();
    site.verified();
    district.stop();
}

/// A station whose keys a passphrase opens; the files with that, and with its officer's.
fn under_passphrase(base: &Path) -> (Site, PathBuf, PathBuf) {
    let pass = base.join("node.pass");
    std::fs::write(&pass, "the passphrase of this node").unwrap();
    let officer = base.join("officer.pass");
    std::fs::write(&officer, PASSPHRASE).unwrap();
    let dir = base.join("jinfu");
    let args = [
        "init",
        "--realm",
        REALM,
        "--division",
        "jinfu",
        "--name",
        "样例",
        "--level",
        "community",
        "--http",
        "127.0.0.1:0",
        "--listen",
        &free_address(),
        "--passphrase-file",
        pass.to_str().unwrap(),
        "--officer-passphrase-file",
        officer.to_str().unwrap(),
        "--dir",
        dir.to_str().unwrap(),
    ];
    call(args).expect_code(0);
    let site = Site::at(&dir);
    std::fs::write(dir.join("operators/anquan.pass"), PASSPHRASE).unwrap();
    (site, pass, officer)
}

#[test]
fn a_station_under_a_passphrase_starts_locked_and_shares_no_memory() {
    let base = tempfile::tempdir().unwrap();
    let (site, pass, officer) = under_passphrase(base.path());
    let (pass, officer) = (pass.to_str().unwrap(), officer.to_str().unwrap());
    let node = site.start();
    assert_eq!(node.http.status()["locked"], true);
    assert_eq!(
        node.http.get("/healthz", None).expect_status(200).json()["status"],
        "ok"
    );
    let token = node.http.login("anquan");
    let grantless = json!({ "kind": "person", "purpose": "registration" });
    let refused = node.http.post("/api/v1/read", Some(&token), &grantless);
    assert_ne!(refused.expect_status(423).json()["code"], Value::Null);
    let wrong = site.run(["open", "--passphrase-file", officer]);
    assert_ne!(wrong.code, 0);
    assert_eq!(
        site.json(["open", "--passphrase-file", pass])["locked"],
        false
    );
    by(&site, "anquan", &["operator", "list"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(by(&site, "anquan", &["lock"])["locked"], true);
    // Sessions ended with it.
    node.http
        .post("/api/v1/read", Some(&token), &grantless)
        .expect_status(401);
    assert_eq!(
        site.json(["open", "--passphrase-file", pass])["locked"],
        false
    );
    node.stop();
}

#[test]
fn a_station_is_opened_from_its_directory_while_strangers_try_passphrases() {
    let base = tempfile::tempdir().unwrap();
    let (site, pass, _) = under_passphrase(base.path());
    let pass = pass.to_str().unwrap();
    let node = site.start();
    let open = |body: &Value| node.http.post("/api/v1/custody/open", None, body);
    let guess = json!({ "passphrase": "not the passphrase of this node" });
    // As many at once as may wait. After eleven failures strangers are kept waiting for the longest.
    let mut failures = 0;
    until("eleven failures", || {
        std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16).map(|_| scope.spawn(|| open(&guess))).collect();
            let answers = tries.into_iter().map(|one| one.join().unwrap());
            failures += answers.filter(|answer| answer.status != 429).count();
        });
        failures > 10
    });
    // So are those who know the passphrase.
    let right = json!({ "passphrase": std::fs::read_to_string(pass).unwrap() });
    assert_eq!(open(&right).expect_status(429).json()["code"], "busy");
    assert_eq!(node.http.status()["locked"], true);
    assert_eq!(
        site.json(["open", "--passphrase-file", pass])["locked"],
        false
    );
    node.stop();
}
