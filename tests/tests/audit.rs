//! An auditor's day: exports, proofs, comparisons, histories, disclosures and findings, over the
//! demonstration's realm, and what must not verify as carefully.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ledger::hash::{leaf_hash, root_of};
use ledger::note::Verifier;
use ledger::tile::parse_bundle;
use serde_json::{Value, json};
use tests::process::Done;
use tests::site::{read_json, size_in};
use tests::{Site, call, copy_dir, rows};

const PERSON: &str = "jiangjin.example/jinfu/person";
const NODES: [&str; 5] = ["jiangjin", "shuangfu", "jinfu", "fucheng", "minzheng"];

/// The demonstration's directories, made once and never changed.
fn demo() -> &'static Path {
    static DEMO: OnceLock<PathBuf> = OnceLock::new();
    DEMO.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(base).unwrap();
        for item in std::fs::read_dir(base).unwrap().flatten() {
            let name = item.file_name().to_string_lossy().into_owned();
            if let Some(pid) = name.strip_prefix("audit-")
                && !Path::new("/proc").join(pid).exists()
            {
                let _ = std::fs::remove_dir_all(item.path());
            }
        }
        let dir = base.join(format!("audit-{}", std::process::id()));
        let args = ["demo", "--once", "--json", "--persons", "300", "--dir"];
        let args = args.map(OsString::from).into_iter();
        call(args.chain([dir.clone().into_os_string()])).expect_code(0);
        dir
    })
}

/// A copy of one of its nodes, to do with as a test likes.
fn copy(division: &str, to: &Path) -> Site {
    let site = Site::at(&to.join(division));
    copy_dir(&demo().join(division), &site.dir);
    let path = site.dir.join("node.json");
    let mut config = read_json(&path).unwrap();
    for address in ["http", "listen"] {
        config[address] = json!("127.0.0.1:0");
    }
    std::fs::write(path, config.to_string()).unwrap();
    site
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn export(site: &Site, out: &Path) -> Value {
    site.json(["audit", "export", "--out", text(out)])
}

/// `audit check` of a file under a key file.
fn check(file: &Path, vkey: &Path) -> Done {
    call(["audit", "check", text(file), "--vkey", text(vkey), "--json"])
}

fn a_record(site: &Site) -> String {
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--limit",
        "1",
    ]);
    answer["value"]["rows"][0]["record"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn amend(site: &Site, record: &str, version: &str, set: &str) {
    site.json([
        "amend",
        "person",
        record,
        "--as",
        "dengji",
        "--version",
        version,
        "--set",
        set,
    ]);
}

// Everything at once

#[test]
fn a_whole_realm_is_gone_through_and_nothing_is_found() {
    let base = temporary();
    for node in NODES {
        let page = base.path().join(format!("{node}.html"));
        let site = Site::at(&demo().join(node));
        let report = site.json(["audit", "all", "--out", text(&page)]);
        let faults = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| f["severity"] != "note")
            .count();
        assert_eq!(
            (report["ok"].clone(), faults),
            (json!(true), 0),
            "{report:#}"
        );
        let charters = report["charters"].as_array().unwrap();
        assert_eq!(charters.len(), 5);
        assert!(charters.iter().all(|c| c["state"] == "valid"));
        let html = std::fs::read_to_string(&page).unwrap();
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        assert!(html.contains("全部相符 / everything holds"));
        assert!(!html.contains("<script") && !html.contains("http"));
    }
    let town = Site::at(&demo().join("shuangfu")).json(["audit", "all"]);
    let person = town["ledgers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["origin"] == PERSON)
        .unwrap();
    assert_eq!(person["cosigned"], person["size"]);
    let roles: Vec<&str> = person["signers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles[0], "log");
    assert!(roles.contains(&"witness") && roles.contains(&"held"));
    assert_eq!(town["grants"][0]["state"], "current");
}

#[test]
fn an_altered_byte_a_revoked_node_and_an_uncosigned_end_are_found() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let record = a_record(&site);
    amend(&site, &record, "1", "phone=13800000000");
    let report = site.json(["audit", "all"]);
    let codes = |report: &Value| -> Vec<String> {
        report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["code"].as_str().unwrap().to_owned())
            .collect()
    };
    // The node was cut off: its newest entries have the log's own word only.
    assert!(codes(&report).contains(&"cosigned-behind".to_owned()));

    let town = copy("shuangfu", base.path());
    town.json([
        "revoke", "fucheng", "--as", "anquan", "--reason", "lost-key",
    ]);
    let report = town.json(["audit", "all"]);
    assert!(codes(&report).contains(&"charter-revoked".to_owned()));
    let fucheng = report["charters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["division"] == "fucheng")
        .unwrap();
    assert_eq!(fucheng["state"], "revoked");

    // Wherever a byte is altered, in entries of authority too, the verdict is the same.
    let segments = site.dir.join("segments");
    let file = std::fs::read_dir(&segments)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = std::fs::read(&file).unwrap();
    for part in 1..10 {
        let mut bytes = whole.clone();
        let at = whole.len() * part / 10;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let done = site.run(["audit", "all", "--json"]);
        assert_eq!(done.code, 7, "byte {at}: {}", done.printed());
    }
    let page = base.path().join("page.html");
    let done = site
        .run(["audit", "all", "--json", "--out", text(&page)])
        .expect_code(7);
    assert_eq!(done.json()["ok"], json!(false));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("核验不通过 / it does not hold"));
}

// Exports

#[test]
fn an_export_is_a_c2sp_log_for_each_ledger() {
    let base = temporary();
    let site = Site::at(&demo().join("shuangfu"));
    let out = base.path().join("site");
    let args = ["audit", "export", "--entries", "--out", text(&out)];
    let exported = site.json(args);
    let ledgers = exported["ledgers"].as_array().unwrap();
    assert!(ledgers.len() > 15);
    for line in ledgers {
        let origin = line["origin"].as_str().unwrap();
        let folder = out.join(origin);
        let keys = std::fs::read_to_string(folder.join("vkey")).unwrap();
        let keys: Vec<Verifier> = keys
            .lines()
            .map(|line| Verifier::parse(line.as_bytes()).unwrap())
            .collect();
        assert_eq!(keys[0].name(), origin, "the log's key comes first");
        let note = std::fs::read(folder.join("checkpoint")).unwrap();
        let checkpoint = ledger::checkpoint::open(&note, &keys[0]).unwrap();
        assert_eq!(line["size"], checkpoint.size());

        let file = |tree: &str, index: u64, width: u64| {
            let name = match width {
                256 => format!("tile/{tree}/{index:03}"),
                width => format!("tile/{tree}/{index:03}.p/{width}"),
            };
            std::fs::read(folder.join(&name)).unwrap_or_else(|e| panic!("{origin} {name}: {e}"))
        };
        let mut leaves = Vec::new();
        let mut full = Vec::new();
        for index in 0..checkpoint.size().div_ceil(256) {
            let width = (checkpoint.size() - index * 256).min(256);
            let tile = file("0", index, width);
            let hashes: Vec<[u8; 32]> = tile.as_chunks::<32>().0.to_vec();
            assert_eq!(hashes.len() as u64, width);
            let bundle = file("entries", index, width);
            let entries = parse_bundle(&bundle).unwrap();
            let of_entries: Vec<[u8; 32]> = entries.iter().map(|e| leaf_hash(e)).collect();
            assert_eq!(of_entries, hashes);
            if width == 256 {
                full.push(root_of(&hashes));
            }
            leaves.extend(hashes);
        }
        assert_eq!(root_of(&leaves), *checkpoint.root());
        if !full.is_empty() {
            let above = file("1", 0, full.len() as u64);
            assert_eq!(above.as_chunks::<32>().0, full.as_slice());
        }
    }
    let without = base.path().join("open");
    export(&site, &without);
    assert!(!without.join(PERSON).join("tile/entries").exists());
    let one = base.path().join("one");
    let args = ["audit", "export", "--out", text(&one), "--ledger", PERSON];
    assert_eq!(site.json(args)["ledgers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_running_node_is_exported_proven_and_audited_without_being_disturbed() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let running = site.start();
    let out = base.path().join("site");
    export(&site, &out);
    site.json(["audit", "all"]);
    site.json(["audit", "prove", PERSON, "5"]);
    assert!(
        !running.http.status()["ledgers"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    running.stop();
}

// Proofs

#[test]
fn a_proof_holds_for_one_entry_of_one_ledger_under_the_right_key() {
    let base = temporary();
    let site = Site::at(&demo().join("jinfu"));
    let out = base.path().join("site");
    export(&site, &out);
    let vkey = out.join(PERSON).join("vkey");
    let proof = base.path().join("17.tlog-proof");
    let entry = base.path().join("17.entry");
    site.json([
        "audit",
        "prove",
        PERSON,
        "17",
        "--out",
        text(&proof),
        "--entry-out",
        text(&entry),
    ]);
    let checked = check(&proof, &vkey).expect_code(0).json();
    assert_eq!(checked["index"], 17);
    assert_eq!(checked["entry_given"], false);
    let with_entry = |entry: &Path| {
        call([
            "audit",
            "check",
            text(&proof),
            "--vkey",
            text(&vkey),
            "--entry",
            text(entry),
            "--json",
        ])
    };
    let checked = with_entry(&entry).expect_code(0).json();
    assert_eq!(checked["entry_given"], true);
    let names: Vec<&str> = checked["signatures"]["holding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            PERSON,
            "jiangjin.example/shuangfu/witness",
            "jiangjin.example/shuangfu/held"
        ]
    );

    let other = base.path().join("18.entry");
    let other_proof = base.path().join("18.tlog-proof");
    site.json([
        "audit",
        "prove",
        PERSON,
        "18",
        "--out",
        text(&other_proof),
        "--entry-out",
        text(&other),
    ]);
    with_entry(&other).expect_code(7);

    let good = std::fs::read_to_string(&proof).unwrap();
    let bad = base.path().join("bad");
    let changes: [(&str, String); 4] = [
        ("another index", good.replace("index 17\n", "index 18\n")),
        ("another size", good.replace("\n302\n", "\n301\n")),
        (
            "another ledger",
            good.replace("jinfu/person", "fucheng/person"),
        ),
        ("without the log's signature", {
            let log = format!("\u{2014} {PERSON} ");
            good.split_inclusive('\n')
                .filter(|line| !line.starts_with(&log))
                .collect()
        }),
    ];
    for (what, changed) in changes {
        assert_ne!(changed, good, "{what}");
        std::fs::write(&bad, changed).unwrap();
        let done = check(&bad, &vkey);
        assert_eq!(done.code, 7, "{what}: {}", done.printed());
    }
    let strange = out.join("jiangjin.example/jinfu/room/vkey");
    check(&proof, &strange).expect_code(7);
    // No key file is no verdict.
    std::fs::write(&bad, "no key\n").unwrap();
    check(&proof, &bad).expect_code(2);
    assert_eq!(site.run(["audit", "prove", PERSON, "5000"]).code, 1);
}

// Comparisons

#[test]
fn a_site_that_grew_is_compared_and_another_history_is_never_published_over_it() {
    let base = temporary();
    let site = Site::alone(base.path());
    let csv = rows::write(
        &rows::community(7, 30).persons,
        &base.path().join("person.csv"),
    );
    site.json(["import", "person", text(&csv), "--as", "dengji"]);
    let record = a_record(&site);
    let twin = Site::at(&base.path().join("twin"));
    copy_dir(&site.dir, &twin.dir);

    let old = base.path().join("old");
    export(&site, &old);
    let same = call(["audit", "diff", text(&old), text(&old), "--json"])
        .expect_code(0)
        .json();
    assert!(
        same["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|l| l["outcome"] == "same")
    );

    amend(&site, &record, "1", "phone=13800000000");
    amend(&site, &record, "2", "phone=13800000001");
    let new = base.path().join("new");
    export(&site, &new);
    let grown = call(["audit", "diff", text(&old), text(&new), "--json"])
        .expect_code(0)
        .json();
    let person = |report: &Value| {
        report["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|l| l["origin"].as_str().unwrap().ends_with("/person"))
            .unwrap()
            .clone()
    };
    assert_eq!(person(&grown)["outcome"], "extends");
    assert_eq!(person(&grown)["entries"], 4);
    // The older side comes first: the other way round the ledger shrank.
    let shrunk = call(["audit", "diff", text(&new), text(&old), "--json"])
        .expect_code(7)
        .json();
    assert_eq!(person(&shrunk)["outcome"], "shorter");
    assert_eq!(person(&shrunk)["entries"], 4);
    // The same from bare checkpoints, with the node's tiles.
    let head = |site: &Path| site.join("journey.example/jinfu/person/checkpoint");
    let bare = site.json(["audit", "diff", text(&head(&old)), text(&head(&new))]);
    assert_eq!(person(&bare)["outcome"], "extends");

    // The twin went another way: one key signed two histories.
    amend(&twin, &record, "1", "phone=13900000000");
    let twins = base.path().join("twins");
    export(&twin, &twins);
    let fork = call(["audit", "diff", text(&twins), text(&new), "--json"])
        .expect_code(7)
        .json();
    let fork = person(&fork);
    assert_eq!(fork["outcome"], "evidence", "{fork:#}");
    assert_eq!(fork["form"], "leaves");
    let proofs = fork["proofs"].as_array().unwrap();
    assert_eq!(proofs.len(), 2);
    for proof in proofs {
        assert!(
            proof
                .as_str()
                .unwrap()
                .starts_with("c2sp.org/tlog-proof@v1")
        );
    }
    amend(&twin, &record, "2", "phone=13900000001");
    export(&twin, &twins);
    let roots = call(["audit", "diff", text(&twins), text(&new), "--json"])
        .expect_code(7)
        .json();
    assert_eq!(person(&roots)["form"], "roots");
    // A bare pair without tiles is a refusal, and is called so.
    let vkey = new.join("journey.example/jinfu/person/vkey");
    let refused = call([
        "audit",
        "diff",
        text(&head(&old)),
        text(&head(&new)),
        "--vkey",
        text(&vkey),
        "--json",
    ])
    .expect_code(7)
    .json();
    assert_eq!(person(&refused)["outcome"], "unproven");

    // What was published stays: neither the twin nor an older copy goes over it.
    let before = std::fs::read(head(&new)).unwrap();
    twin.run(["audit", "export", "--out", text(&new)])
        .expect_code(7);
    assert_eq!(std::fs::read(head(&new)).unwrap(), before);
    // Once more from the node itself: nothing is to do, and it grows.
    export(&site, &old);
    assert_eq!(std::fs::read(head(&old)).unwrap(), before);
}

#[test]
fn a_ledger_that_the_newer_side_lacks_is_a_finding_unless_that_side_is_another_nodes() {
    let base = temporary();
    let at = |name: &str| base.path().join(name);
    let town = Site::at(&demo().join("shuangfu"));
    let (old, new) = (at("old"), at("new"));
    export(&town, &old);
    export(&town, &new);
    std::fs::remove_dir_all(new.join(PERSON)).unwrap();
    let diff = |newer: &Path| call(["audit", "diff", text(&old), text(newer), "--json"]);
    let missing = |report: &Value| -> Vec<(String, String, bool)> {
        let missing = report["missing"].as_array().unwrap().iter();
        missing
            .map(|one| {
                assert!(!one["zh"].as_str().unwrap().is_empty(), "{one}");
                assert!(!one["en"].as_str().unwrap().is_empty(), "{one}");
                let word = |name: &str| one[name].as_str().unwrap().to_owned();
                (word("origin"), word("why"), one["explained"] == true)
            })
            .collect()
    };
    let of_old = |of: &str| {
        folders(&old)
            .into_iter()
            .filter(|f| f.starts_with(of))
            .count()
    };
    let found = missing(&diff(&new).expect_code(7).json());
    // The grant's folder lay below the shard's.
    assert_eq!(found.len(), of_old(PERSON));
    assert!(found.iter().all(|(origin, why, explained)| {
        origin.starts_with(PERSON) && why == "unexplained" && !explained
    }));
    let said = call(["audit", "diff", text(&old), text(&new)]).expect_code(7);
    for words in [
        "缺失 / MISSING",
        "账本只增不减",
        "ledgers are never taken away",
    ] {
        assert!(said.stdout.contains(words), "{}", said.stdout);
    }
    // A site that has more than the older one has grown.
    call(["audit", "diff", text(&new), text(&old)]).expect_code(0);

    // An export of the department has no shard of the community, and says whose it is.
    let other = at("other");
    export(&Site::at(&demo().join("minzheng")), &other);
    let nodes = std::fs::read_to_string(other.join("nodes")).unwrap();
    assert_eq!(nodes, "jiangjin.example/minzheng\n");
    let found = missing(&diff(&other).expect_code(7).json());
    assert!(found.iter().any(|(origin, ..)| origin == PERSON));
    // That is said, and excuses nothing: whoever cut a site could write it.
    assert!(
        found
            .iter()
            .all(|(_, why, explained)| why == "other-nodes" && !explained)
    );
    std::fs::remove_file(other.join("nodes")).unwrap();
    std::os::unix::fs::symlink(old.join("nodes"), other.join("nodes")).unwrap();
    let refused = diff(&other);
    assert_ne!(refused.code, 0);
    assert!(
        refused.printed().contains("普通文件"),
        "{}",
        refused.printed()
    );
    std::fs::remove_file(other.join("nodes")).unwrap();
    let found = missing(&diff(&other).expect_code(7).json());
    assert!(
        found
            .iter()
            .all(|(_, why, explained)| why == "unexplained" && !explained)
    );
    // Nor is an empty folder the same as nothing to compare.
    let empty = at("empty");
    std::fs::create_dir(&empty).unwrap();
    let found = missing(&diff(&empty).expect_code(7).json());
    assert_eq!(found.len(), of_old(""));
}

/// The ledgers of a site.
fn folders(site: &Path) -> Vec<String> {
    let found = registry::audit::site::folders(site).unwrap();
    found.iter().map(|f| text(f).to_owned()).collect()
}

// Histories

#[test]
fn a_history_names_act_and_authority_without_opening_a_cell() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let record = a_record(&site);
    amend(&site, &record, "1", "phone=13800000000");
    let access = size_in(&site.verified(), "access");

    let answer = site.json(["audit", "history", &record]);
    let lines = answer["history"].as_array().unwrap();
    let versions: Vec<&Value> = lines.iter().filter(|l| l["ledger"] == PERSON).collect();
    let told: Vec<(&Value, &Value)> = versions
        .iter()
        .map(|l| (&l["version"], &l["operation"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!(1), &json!("register")),
            (&json!(2), &json!("amend"))
        ]
    );
    for line in versions {
        let act = &line["act"];
        assert_eq!(act["signature"], true);
        assert_eq!(act["authority"], "holds");
        assert_eq!(act["signer"]["role"], "clerk");
        assert!(act["signer"]["certificate"].as_u64() < act["authority_size"].as_u64());
    }
    assert_eq!(answer["changes"], Value::Null);
    assert_eq!(
        size_in(&site.verified(), "access"),
        access,
        "a reading was recorded"
    );
    // The parent tells the same from its replica; an unknown record is not found.
    let above = Site::at(&demo().join("shuangfu")).json(["audit", "history", &record]);
    assert_eq!(above["history"][0]["act"], lines[0]["act"]);
    site.run(["audit", "history", &"00".repeat(16)])
        .expect_code(1);
}

#[test]
fn the_changed_fields_of_a_history_are_a_reading() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let record = a_record(&site);
    amend(&site, &record, "1", "phone=13800000000");
    let access = size_in(&site.verified(), "access");
    let ask = |who: &str| {
        site.run([
            "audit",
            "history",
            &record,
            "--as",
            who,
            "--purpose",
            "service",
            "--json",
        ])
    };
    let answer = ask("dengji").expect_code(0).json();
    let versions = &answer["changes"]["value"]["versions"];
    assert_eq!(versions[1]["version"], 2);
    assert_eq!(versions[1]["fields"], json!(["phone"]));
    assert!(
        answer["changes"]["mark"]
            .as_str()
            .unwrap()
            .starts_with("FZ-")
    );
    // One leaf for the reading, one for each version, one act.
    assert_eq!(size_in(&site.verified(), "access"), access + 4);

    let denied = ask("shenji").expect_code(4);
    assert!(
        denied
            .printed()
            .contains("auditor-sees-nothing-above-public")
    );
    assert_eq!(
        size_in(&site.verified(), "access"),
        access + 6,
        "a denial is recorded"
    );
    // Without a purpose nobody reads.
    site.run(["audit", "history", &record, "--as", "dengji"])
        .expect_code(2);
}

#[test]
fn the_acts_of_an_operator_are_all_found() {
    let site = Site::at(&demo().join("jinfu"));
    let acts = site.json(["audit", "acts", "--operator", "dengji"]);
    let lines = acts["acts"].as_array().unwrap();
    let persons: u64 = lines
        .iter()
        .filter(|l| l["ledger"] == PERSON)
        .map(|l| l["count"].as_u64().unwrap())
        .sum();
    assert_eq!(persons, 300);
    assert!(lines.iter().all(|l| l["signature"] == true));
    assert!(
        lines
            .iter()
            .all(|l| l["source"].as_str().is_some_and(|s| s.len() == 64))
    );
    let id = acts["operator"].as_str().unwrap();
    // By id, from the parent's replicas, the same.
    let above = Site::at(&demo().join("shuangfu")).json(["audit", "acts", "--operator", id]);
    assert_eq!(above["acts"], acts["acts"]);
    site.run(["audit", "acts", "--operator", "nobody"])
        .expect_code(2);
    site.run(["audit", "acts", "--operator", &"00".repeat(16)])
        .expect_code(1);
}

// Disclosures

/// Runs the independent checker; `None` when there is no Python here.
fn outside(file: &Path, vkey: &Path) -> Option<(i32, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("outside/check_disclosure.py");
    let done = Command::new("python3")
        .env("PYTHONIOENCODING", "utf-8")
        .arg(script)
        .args([file, vkey])
        .output();
    match done {
        Ok(done) => {
            let printed = [done.stdout, done.stderr].concat();
            let printed = String::from_utf8_lossy(&printed).into_owned();
            Some((done.status.code().unwrap_or(-1), printed))
        }
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs python3: {error}"
            );
            eprintln!("*** NOT CHECKED BY AN OUTSIDER: python3 cannot be started: {error} ***");
            None
        }
    }
}

#[test]
fn a_disclosure_proves_its_fields_to_an_outsider_and_nothing_altered_does() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let out = base.path().join("site");
    export(&site, &out);
    let vkey = out.join(PERSON).join("vkey");
    let record = a_record(&site);
    let access = size_in(&site.verified(), "access");
    let file = base.path().join("disclosure.json");
    let disclose = |fields: &str, more: &[&str]| {
        let args = [
            "audit",
            "disclose",
            "person",
            &record,
            "--fields",
            fields,
            "--purpose",
            "service",
            "--out",
            text(&file),
            "--json",
        ];
        site.run(args.iter().chain(more).copied())
    };
    let made = disclose("name,birth_date,phone", &["--as", "dengji"])
        .expect_code(0)
        .json();
    assert_eq!(made["receipt"]["index"], access);
    // A ledger that no witness has seen is not shown to others, unless that is asked for.
    let later = base.path().join("later");
    let access_log = "jiangjin.example/jinfu/access";
    let exported = export(&site, &later);
    assert_eq!(exported["not_published"], json!([access_log]));
    assert!(!later.join(access_log).exists());
    let args = ["audit", "export", "--uncosigned", "--out", text(&later)];
    site.json(args);
    assert!(later.join(access_log).join("checkpoint").exists());
    // The access entry came first: reading, record, act.
    assert_eq!(size_in(&site.verified(), "access"), access + 3);

    let checked = check(&file, &vkey).expect_code(0).json();
    let fields = checked["shown"]["fields"].as_array().unwrap();
    let ids: Vec<&str> = fields.iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["name", "birth_date", "phone"]);
    assert_eq!(checked["shown"]["mark"], made["mark"]);
    let written = std::fs::read_to_string(&file).unwrap();
    for other in ["citizen_number", "secret", "\"key\"", "phone_key"] {
        assert!(!written.contains(other), "{other}");
    }
    if let Some((code, printed)) = outside(&file, &vkey) {
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("出生日期"), "{printed}");
        if !printed.contains("signatures: checked") {
            assert!(std::env::var_os("CI").is_none(), "{printed}");
            eprintln!("*** SIGNATURES NOT CHECKED BY AN OUTSIDER: no Python `cryptography` ***");
        }
    }

    let good: Value = serde_json::from_str(&written).unwrap();
    let bad = base.path().join("bad.json");
    let flipped = |at: &str, value: Value| {
        let mut file = good.clone();
        *file.pointer_mut(at).unwrap() = value;
        file
    };
    let stripped: String = good["value"]["checkpoint"]
        .as_str()
        .unwrap()
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(&format!("\u{2014} {PERSON} ")))
        .collect();
    let room = std::fs::read_to_string(out.join("jiangjin.example/jinfu/room/checkpoint")).unwrap();
    let changes = [
        ("value", flipped("/value/fields/0/value", json!("他人"))),
        (
            "salt",
            flipped("/value/fields/0/salt", json!("00".repeat(16))),
        ),
        ("path", flipped("/value/siblings/0", json!("00".repeat(32)))),
        ("index", flipped("/value/index", json!(0))),
        ("record", flipped("/value/record", json!("00".repeat(16)))),
        (
            "inclusion",
            flipped("/value/inclusion/0", json!("00".repeat(32))),
        ),
        ("ledger", flipped("/value/checkpoint", json!(room))),
        (
            "log signature",
            flipped("/value/checkpoint", json!(stripped)),
        ),
    ];
    for (what, changed) in changes {
        std::fs::write(&bad, changed.to_string()).unwrap();
        let done = check(&bad, &vkey);
        assert_eq!(done.code, 7, "{what}: {}", done.printed());
        assert!(!done.printed().contains("他人"), "an error repeats a value");
        if let Some((code, printed)) = outside(&bad, &vkey) {
            assert_eq!(code, 1, "{what}: {printed}");
        }
    }
    let strange = out.join("jiangjin.example/jinfu/room/vkey");
    check(&file, &strange).expect_code(7);
    if let Some((code, _)) = outside(&file, &strange) {
        assert_eq!(code, 1);
    }
}

#[test]
fn a_disclosure_is_a_reading_that_policy_decides_and_only_the_owner_makes() {
    let base = temporary();
    let site = copy("jinfu", base.path());
    let record = a_record(&site);
    let file = base.path().join("disclosure.json");
    let args = |fields: &'static str, who: &'static str, purpose: &'static str| {
        [
            "audit",
            "disclose",
            "person",
            &record,
            "--fields",
            fields,
            "--as",
            who,
            "--purpose",
            purpose,
            "--out",
            text(&file),
        ]
        .map(str::to_owned)
    };
    let access = || size_in(&site.verified(), "access");
    let before = access();
    // A sensitive field does not leave; an auditor reads nothing; a wrong purpose permits nothing.
    for (fields, who, purpose) in [
        ("welfare", "dengji", "service"),
        ("name,welfare", "dengji", "service"),
        ("name", "shenji", "service"),
        ("name", "dengji", "statistics"),
    ] {
        site.run(args(fields, who, purpose)).expect_code(4);
    }
    assert!(!file.exists());
    assert_eq!(access(), before + 8, "each denial is recorded");
    site.run(args("no_such_field", "dengji", "service"))
        .expect_code(2);

    // The department holds the row by grant, and may not pass it on.
    let department = copy("minzheng", base.path());
    let granted = department.run([
        "audit",
        "disclose",
        "person",
        &record,
        "--fields",
        "name",
        "--as",
        "jingban",
        "--purpose",
        "welfare",
        "--out",
        text(&file),
    ]);
    assert_eq!(granted.code, 1, "{}", granted.printed());
    assert!(!file.exists());

    // An older version is proven as it was; the newest one is not cosigned yet.
    amend(&site, &record, "1", "phone=13800000000");
    site.run(args("phone", "dengji", "service")).expect_code(2);
    let old = args("phone", "dengji", "service").into_iter();
    site.run(old.chain(["--version".into(), "1".into()]))
        .expect_code(0);
    let made = read_json(&file).unwrap();
    assert_eq!(made["value"]["version"], 1);
    assert_ne!(made["value"]["fields"][0]["value"], "13800000000");
    let missing = args("phone", "dengji", "service").into_iter();
    site.run(missing.chain(["--version".into(), "9".into()]))
        .expect_code(1);
}
