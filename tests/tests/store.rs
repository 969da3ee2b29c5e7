//! A node's store as an operator meets it: what doctor, status and metrics say of it, and what
//! becomes of a node whose pages of record secrets were torn, flipped or written for nothing.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use rand_core::SeedableRng;
use record::id::RecordId;
use seal::keystore::{Keystore, SoftwareKey};
use seal::secret::{Kek, RecordSecret};
use serde_json::Value;
use store::pages::Pages;
use tests::site::records_in;
use tests::{Site, copy_dir, rows};

const PERSONS: usize = 40;

/// A node of one community with some persons, stopped.
fn node(base: &Path) -> Site {
    let site = Site::alone(base);
    import(&site, base, 31, PERSONS);
    site
}

fn import(site: &Site, base: &Path, seed: u64, persons: usize) {
    let table = rows::community(seed, persons).persons;
    let file = rows::write(&table, &base.join(format!("{seed}.csv")));
    let report = site.json(["import", "person", file.to_str().unwrap()]);
    assert_eq!(report["accepted"], persons);
}

fn page(site: &Site, number: u32) -> PathBuf {
    site.dir.join(format!("secrets/{number:08}.page"))
}

/// How many persons a clerk can read.
fn readable(site: &Site) -> usize {
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--limit",
        "200",
    ]);
    answer["value"]["rows"].as_array().unwrap().len()
}

fn check(site: &Site, name: &str) -> Value {
    let report = site.run(["doctor", "--json"]).json();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("no check `{name}`")).clone()
}

#[test]
fn doctor_status_and_metrics_show_the_store_and_the_disk() {
    let base = tempfile::tempdir().unwrap();
    let site = node(base.path());
    let says = |name: &str, words: &[&str]| {
        let check = check(&site, name);
        let found = check["found"].as_str().unwrap();
        for word in words {
            assert!(found.contains(word), "{name}: {found}");
        }
        check
    };
    let store = says("store", &["1 segments", " live", " dead", "last synced"]);
    assert_eq!(store["health"], "ok");
    let index = says("index", &[" entries and ", "marker 1:", " s to replay"]);
    assert_eq!(index["health"], "ok");
    says("disk", &[" % used", " free", "unknown"]);
    assert_eq!(says("secrets", &["found damaged"])["health"], "ok");

    let text = site.run(["status"]).expect_code(0).printed();
    assert!(text.contains("1 段 segments"), "{text}");
    let running = site.start();
    import(&site, base.path(), 32, 10);
    let status = running.http.status();
    let line = &status["store"];
    assert_eq!(line["segments"], 1);
    assert!(line["live_bytes"].as_u64().unwrap() > 10_000, "{line}");
    assert!(line["index_lag_entries"].as_u64().unwrap() > 0, "{line}");
    let lag = line["index_lag_bytes"].as_u64().unwrap();
    assert!(lag > 0 && line["index_replay_ms"].as_u64().unwrap() > 0);
    assert_eq!(line["marker_segment"], 1);
    assert!(line["marker_offset"].as_u64().unwrap() >= 16);
    assert!(line["last_sync_ms"].as_u64().unwrap() < 600_000);
    assert!(line["disk_free_bytes"].as_u64().unwrap() > 0);
    assert!(line["disk_used_percent"].as_u64().unwrap() <= 100);
    assert_eq!(line["forecast"]["is"], "unknown");
    let metrics = running.http.get("/metrics", None).expect_status(200).text();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}"))
            .trim()
            .parse()
            .unwrap()
    };
    assert!(value("fangzhi_store_live_bytes ") > 10_000.0);
    assert_eq!(value("fangzhi_store_segments "), 1.0);
    assert!(value("fangzhi_store_index_lag_bytes ") > 0.0);
    assert!(value("fangzhi_disk_free_bytes ") > 0.0);
    assert_eq!(value("fangzhi_store_stopped "), 0.0);
    assert!(
        !metrics.contains("\nfangzhi_disk_full_in_seconds "),
        "unknown"
    );
    // An hour and a day of history lie there at the next start.
    running.stop();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let free = line["disk_free_bytes"].as_u64().unwrap();
    let day = 86_400_000;
    let lines = format!(
        "{} {}\n{} {}\n",
        now - 2 * day,
        free * 3,
        now - day,
        free * 2
    );
    fs::write(site.dir.join("growth"), lines).unwrap();
    says("disk", &["full in about "]);
}

#[test]
fn secrets_of_a_batch_that_never_came_are_taken_back_at_opening_and_live_ones_stay() {
    let base = tempfile::tempdir().unwrap();
    let site = node(base.path());
    let live = fs::read(page(&site, 1)).unwrap();
    // As a kill between the secrets and their batch leaves it: one whole chunk, sealed under the
    // page's key, and half of another.
    let kek = fs::read(site.dir.join("kek")).unwrap();
    let provider = SoftwareKey::from_kek(Kek::from_bytes(kek.try_into().unwrap()));
    let keystore = fs::read(site.dir.join("keystore")).unwrap();
    let keystore = Keystore::open(&keystore, &provider).unwrap();
    let secret = RecordSecret::from_bytes([7; 32]);
    let secrets: Vec<_> = (0..9).map(|n| (RecordId([n; 16]), &secret)).collect();
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(5);
    let chunk = seal::page::seal_chunk(&keystore.pages[&1], 1, &secrets, &mut rng).unwrap();
    let pages = Pages::open(&site.dir).unwrap();
    pages.append(1, &chunk).unwrap();
    drop(pages);
    let mut bytes = fs::read(page(&site, 1)).unwrap();
    assert!(bytes.len() > live.len() + chunk.len());
    bytes.extend([&200_u32.to_le_bytes()[..], &[9; 100]].concat());
    fs::write(page(&site, 1), bytes).unwrap();
    let report = site.verified();
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("unfinished chunk"), "{remarks}");

    assert_eq!(readable(&site), PERSONS);
    assert_eq!(fs::read(page(&site, 1)).unwrap(), live);
    assert_eq!(site.verified()["remarks"].as_array().unwrap().len(), 0);
    import(&site, base.path(), 32, 10);
    assert_eq!(readable(&site), PERSONS + 10);
    site.verified();
}

/// What a node with a damaged page does: it opens, says which page and how much is lost, writes
/// nothing into that page, goes on elsewhere, and has everything back once the page is.
#[track_caller]
fn survives(base: &Path, name: &str, harm: impl Fn(&Path), keep_index: bool) {
    let site = Site::at(&base.join(name));
    copy_dir(&base.join("jinfu"), &site.dir);
    let whole = fs::read(page(&site, 1)).unwrap();
    if !keep_index {
        fs::remove_dir_all(site.dir.join("working-index")).unwrap();
    }
    harm(&page(&site, 1));
    let harmed = fs::read(page(&site, 1)).ok();

    let done = site.run(["verify", "--json"]);
    let report = done.json();
    assert_eq!((done.code != 0, &report["ok"]), (true, &false.into()));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let what = findings[0]["what"].as_str().unwrap();
    let lost = format!("page 1 of record secrets is damaged: {PERSONS} records cannot be opened");
    assert!(what.contains(&lost), "{what}");
    let file = findings[0]["file"].as_str().unwrap();
    assert!(file.ends_with("secrets/00000001.page"), "{file}");

    let running = site.start();
    let found = records_in(&running.http.status(), "person");
    let found_expected = if keep_index { PERSONS } else { 0 };
    assert_eq!(found, found_expected as u64, "{name}");
    let read = site.run([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--json",
    ]);
    if keep_index {
        let error = read.json()["error"].clone();
        assert_eq!(error["code"], "damaged", "{error}");
        assert!(
            error["message"].to_string().contains("00000001.page"),
            "{error}"
        );
    }
    let check = check(&site, "secrets");
    assert_eq!(check["health"], "failure", "{name}: {check}");
    assert!(
        check["found"].as_str().unwrap().contains("第 1 页"),
        "{check}"
    );
    // The register goes on, in another page.
    import(&site, base, 33, 12);
    running.stop();
    assert_eq!(fs::read(page(&site, 1)).ok(), harmed, "{name}: not touched");
    assert!(page(&site, 2).exists());

    fs::write(page(&site, 1), whole).unwrap();
    assert_eq!(readable(&site), PERSONS + 12, "{name}");
    site.verified();
}

#[test]
fn a_damaged_page_of_secrets_is_named_and_never_keeps_the_node_from_opening() {
    let base = tempfile::tempdir().unwrap();
    let site = node(base.path());
    let len = fs::metadata(page(&site, 1)).unwrap().len();
    let cut = |to: u64| {
        move |path: &Path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(to).unwrap();
        }
    };
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    survives(base.path(), "torn", cut(len - 5), false);
    survives(base.path(), "emptied", cut(0), false);
    survives(base.path(), "flipped", flip, false);
    survives(base.path(), "flipped-with-index", flip, true);
    survives(
        base.path(),
        "gone",
        |path| fs::remove_file(path).unwrap(),
        false,
    );
}
