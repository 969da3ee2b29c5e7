//! Ledgers verified with software that nobody here wrote: `tests/outside`.
//!
//! Owns what an outsider must be able to check, and what must make an outsider refuse.
//! Nothing here judges a ledger itself: each verdict is a verifier's.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "outside/ledgers.rs"]
mod ledgers;
#[path = "outside/python.rs"]
mod python;
#[path = "outside/verifiers.rs"]
mod verifiers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, NoteSigner};
use ledgers::{Log, Served, cosigned, files, served, vkeys, write};
use serde_json::json;
use tests::{Dice, Running, Site, call, copy_dir, until};
use verifiers::Verifier;

const PERSON: &str = "jiangjin.example/jinfu/person";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Options that every run has.
fn options(keys: &Path, quorum: u64) -> Vec<String> {
    let quorum = quorum.to_string();
    ["-vkeys", &text(keys), "-quorum", &quorum, "-strict"]
        .map(str::to_owned)
        .to_vec()
}

/// What a verifier found of a ledger.
struct Found {
    size: u64,
    extends: String,
}

/// Verifies ledgers at one place. The nodes run, so that one may have grown since it was listed.
#[track_caller]
fn all_verify(
    verifier: &Verifier,
    ledgers: &[Served],
    base: &str,
    keys: &Path,
    more: &[String],
) -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    for quorum in [0, 1] {
        let of = ledgers.iter().filter(|l| l.witnesses.min(1) == quorum);
        let origins: Vec<String> = of.map(|ledger| ledger.origin.clone()).collect();
        let mut options = options(keys, quorum);
        options.extend_from_slice(more);
        for verdict in verifier.run(&options, &[base.to_owned()], &origins) {
            assert!(verdict.ok, "{}: {}", verifier.name, verdict.line);
            let size = verdict.number("size");
            let ledger = ledgers.iter().find(|l| l.origin == verdict.origin).unwrap();
            assert!(size >= ledger.size, "{}", verdict.line);
            if size == ledger.size {
                assert_eq!(verdict.fact("root"), ledger.root, "{}", verdict.line);
                let (witnesses, held) = (verdict.number("witnesses"), verdict.number("held"));
                assert!(witnesses >= ledger.witnesses, "{}", verdict.line);
                assert_eq!(verdict.number("signatures"), 1 + witnesses + held);
            }
            assert_eq!(verdict.number("entries"), size, "{}", verdict.line);
            assert!(verdict.number("proofs") >= size.min(2), "{}", verdict.line);
            let extends = verdict.fact("extends").to_owned();
            found.insert(verdict.origin.clone(), Found { size, extends });
        }
    }
    found
}

/// Every place must be refused; `ok` names what was done to those that are not.
#[track_caller]
fn none_verifies(verifier: &Verifier, options: &[String], places: &[PathBuf], origin: &str) {
    let bases: Vec<String> = places.iter().map(|place| text(place)).collect();
    let verdicts = verifier.run(options, &bases, &[origin.to_owned()]);
    let passed: Vec<_> = verdicts.iter().filter(|v| v.ok).map(|v| &v.base).collect();
    let (count, some) = (passed.len(), passed.first());
    assert_eq!(count, 0, "{} accepted {some:?}", verifier.name);
}

/// Amends one person's record at the community.
fn amend(community: &Running) {
    let pass = community.site.dir.join("operators/dengji.pass");
    let pass = std::fs::read_to_string(pass).unwrap();
    let token = community.http.login_with("dengji", pass.trim_end());
    let read = json!({
        "kind": "person", "purpose": "registration", "basis": "outside", "fields": ["education"],
        "limit": 1,
    });
    let answer = community.http.post("/api/v1/read", Some(&token), &read);
    let row = answer.expect_status(200).json()["value"]["rows"][0].clone();
    let amendment = json!({
        "kind": "person", "record": row["record"], "version": row["version"],
        "changes": { "education": "20" }, "close": false, "purpose": "correction",
    });
    community
        .http
        .post("/api/v1/amendments", Some(&token), &amendment)
        .expect_status(200);
}

#[test]
fn every_ledger_that_a_node_serves_verifies_with_software_of_others() {
    let temporary = tempfile::tempdir().unwrap();
    let realm = temporary.path().join("realm");
    call(["demo", "--once", "--json", "--dir", &text(&realm)]).expect_code(0);
    let district = Site::at(&realm.join("jiangjin")).start();
    let town = Site::at(&realm.join("shuangfu")).start();
    let community = Site::at(&realm.join("jinfu")).start();

    let pass = std::fs::read_to_string(realm.join("jiangjin/operators/shenji.pass")).unwrap();
    let token = district.http.login_with("shenji", pass.trim_end());
    let token = write(temporary.path().join("token"), token);
    let base = format!("{}/ledger", district.http.url);
    let more = |verifier: &Verifier| {
        let seen = temporary.path().join("seen").join(verifier.name);
        [
            "-entries",
            "-token-file",
            &text(&token),
            "-seen",
            &text(&seen),
        ]
        .map(str::to_owned)
    };

    let before = served(&district);
    let keys = temporary.path().join("vkeys");
    std::fs::write(&keys, vkeys(&realm, &before).join("\n") + "\n").unwrap();
    let cosigned_twice = before.iter().filter(|l| l.witnesses == 2).count();
    assert!(cosigned_twice > 10, "communities have two nodes above them");
    let mut first = BTreeMap::new();
    for verifier in verifiers::all() {
        let found = all_verify(verifier, &before, &base, &keys, &more(verifier));
        assert!(found.values().all(|ledger| ledger.extends == "none"));
        first.insert(verifier.name, found);
        // Without an auditor's token the tree is open, and the entries are not.
        let origins = [PERSON.to_owned()];
        let open = verifier.run(options(&keys, 2), std::slice::from_ref(&base), &origins);
        assert!(open[0].ok, "{}", open[0].line);
        let mut shut = options(&keys, 2);
        shut.push("-entries".into());
        let shut = verifier.run(shut, std::slice::from_ref(&base), &origins);
        assert!(
            !shut[0].ok && shut[0].line.contains("401"),
            "{}",
            shut[0].line
        );
    }

    amend(&community);
    let mut after = vec![];
    until("the amendment is cosigned at the district", || {
        after = served(&district);
        let is = |origin: &str, size| {
            let mut ledgers = after.iter();
            ledgers.any(|l| l.origin == origin && l.size > size && l.witnesses == 2)
        };
        let old = before.iter().find(|l| l.origin == PERSON).unwrap();
        is(PERSON, old.size) && is("jiangjin.example/jinfu/access", 0)
    });
    std::fs::write(&keys, vkeys(&realm, &after).join("\n") + "\n").unwrap();
    for verifier in verifiers::all() {
        let found = all_verify(verifier, &after, &base, &keys, &more(verifier));
        let first = &first[verifier.name];
        for (origin, ledger) in &found {
            let old = first.get(origin).map(|old| old.size.to_string());
            assert_eq!(ledger.extends, old.unwrap_or("none".into()), "{origin}");
        }
        assert!(found[PERSON].size > first[PERSON].size);
    }
    the_documented_commands_of_aics_tlog_hold(temporary.path(), &base, &keys);

    let site = temporary.path().join("site");
    let export = ["audit", "export", "--entries", "--out", &text(&site)];
    district.site.run(export).expect_code(0);
    for node in [community, town, district] {
        node.stop();
    }
    // The folder has the keys too; they are those of the charters.
    let known = std::fs::read_to_string(&keys).unwrap();
    for ledger in &after {
        let exported = std::fs::read_to_string(site.join(&ledger.origin).join("vkey")).unwrap();
        assert!(exported.lines().count() as u64 > ledger.witnesses);
        for key in exported.lines() {
            assert!(known.lines().any(|line| line == key), "{key}");
        }
    }
    for verifier in verifiers::all() {
        let entries = ["-entries".to_owned()];
        all_verify(verifier, &after, &text(&site), &keys, &entries);
    }
    damage_is_refused(temporary.path(), &site, &keys);
}

/// What `docs/operating/verify-with-others.md` has an auditor type.
fn the_documented_commands_of_aics_tlog_hold(dir: &Path, base: &str, keys: &Path) {
    let known = std::fs::read_to_string(keys).unwrap();
    let key_of = |name: &str| {
        let named = |key: &&str| key.split('+').next() == Some(name);
        known.lines().find(named).unwrap().to_owned()
    };
    let log = text(&write(dir.join("log.vkey"), key_of(PERSON)));
    let old = dir.join("seen/aics-tlog").join(PERSON).join("checkpoint");
    let url = format!("{base}/{PERSON}");
    let witness = key_of("jiangjin.example/shuangfu/witness");
    let common = ["--vkey-file", &log, "--tiles", &url, "--origin", PERSON];
    let holds = |command: &str, more: &[&str]| {
        let args = [&[command], &common[..], more].concat();
        if let Some(done) = verifiers::aics_tlog(args) {
            assert_eq!(done.expect_code(0).json()["ok"], true, "{command}");
        }
    };
    holds(
        "verify-checkpoint",
        &["--witness-key", &witness, "--quorum", "1"],
    );
    if old.exists() {
        holds("verify-consistency", &["--old-checkpoint", &text(&old)]);
    }
    let realm = Site::at(&dir.join("realm/jiangjin"));
    let entry = text(&dir.join("entry"));
    realm
        .run(["audit", "prove", PERSON, "302", "--entry-out", &entry])
        .expect_code(0);
    holds("verify-inclusion", &["--leaf", &entry, "--index", "302"]);
}

/// One flipped bit in any file of a ledger, or another key, and it is refused.
fn damage_is_refused(dir: &Path, site: &Path, keys: &Path) {
    let mut dice = Dice::new("outside");
    let whole = site.join(PERSON);
    let mut places = vec![];
    let mut damaged = |file: &Path, byte: usize, bit: u32| {
        let name = file.strip_prefix(&whole).unwrap();
        let place = dir.join(format!(
            "damaged/{}-{byte}-{bit}",
            text(name).replace('/', "_")
        ));
        let folder = place.join(PERSON);
        if name == Path::new("checkpoint") {
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(whole.join("tile"), folder.join("tile")).unwrap();
        } else {
            copy_dir(&whole, &folder);
        }
        let mut bytes = std::fs::read(file).unwrap();
        bytes[byte] ^= 1 << bit;
        write(folder.join(name), bytes);
        places.push(place);
    };
    // Beside `tile` there may be the folders of grants, which are ledgers of their own.
    for file in [&[whole.join("checkpoint")], &files(&whole.join("tile"))[..]].concat() {
        let length = file.metadata().unwrap().len();
        if file.ends_with("checkpoint") {
            for byte in 0..length {
                damaged(&file, byte as usize, dice.below(8) as u32);
            }
        } else {
            for _ in 0..4 {
                damaged(&file, dice.below(length) as usize, dice.below(8) as u32);
            }
        }
    }
    assert!(places.len() > 500 + 5 * 4, "{} places", places.len());

    let known = std::fs::read_to_string(keys).unwrap();
    let other = NoteSigner::from_seed(PERSON, &[7; 32]).unwrap();
    let other = other.verifier(KeyKind::Note).vkey();
    let with = |name: &str, change: &dyn Fn(&str) -> Option<String>| {
        let lines: Vec<String> = known.lines().filter_map(change).collect();
        write(dir.join(name), lines.join("\n") + "\n")
    };
    let is_log = |key: &str| key.starts_with(&format!("{PERSON}+"));
    let wrong = with("wrong", &|key| {
        Some(if is_log(key) { &other } else { key }.to_owned())
    });
    let without = with("without", &|key| {
        (!key.contains("/shuangfu/witness+")).then(|| key.to_owned())
    });
    let torn = with("torn", &|key| {
        let torn = key.strip_suffix('=').map_or(key, |rest| rest);
        Some(if is_log(key) {
            torn.replacen('+', "+0", 1)
        } else {
            key.to_owned()
        })
    });
    for verifier in verifiers::all() {
        let mut entries = options(keys, 2);
        entries.push("-entries".into());
        none_verifies(verifier, &entries, &places, PERSON);
        let site = [site.to_owned()];
        none_verifies(verifier, &options(&wrong, 2), &site, PERSON);
        let mut lenient = options(&without, 2);
        lenient.retain(|option| option != "-strict");
        none_verifies(verifier, &lenient, &site, PERSON);
        none_verifies(verifier, &options(keys, 3), &site, PERSON);
        let place = ["-base".to_owned(), text(&site[0]), PERSON.to_owned()];
        verifier.refuses(options(&torn, 2).into_iter().chain(place));
    }
}

#[test]
fn a_large_log_verifies_and_its_forks_do_not() {
    const SIZE: u64 = 66_000;
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    let mut log = Log::new("example.org/unit/person");
    let steps = [0, 1, 256, 300, 65_536, SIZE];
    let notes = steps.map(|size| (size, log.grow(size)));
    log.export(&site);

    let signer = |node: &str, role: &str, seed: u8| {
        NoteSigner::from_seed(&format!("example.org/{node}/{role}"), &[seed; 32]).unwrap()
    };
    let town = signer("town", "witness", 2);
    let same_key = signer("copy", "witness", 2);
    let held = signer("town", "held", 3);
    let own = signer("unit", "witness", 4);
    let all = [&town, &same_key, &held, &own];
    let mut keys = vec![log.signer.verifier(KeyKind::Note).vkey()];
    keys.extend(all.map(|by| by.verifier(KeyKind::Cosignature).vkey()));
    let keys = write(dir.path().join("vkeys"), keys.join("\n") + "\n");
    let head = all
        .iter()
        .fold(notes[5].1.clone(), |note, by| cosigned(&note, by));
    write(site.join(&log.origin).join("checkpoint"), &head);

    for verifier in verifiers::all() {
        let run = |keys: &Path, quorum: u64, more: &[&str]| {
            let mut options = options(keys, quorum);
            options.extend(more.iter().map(|&option| option.to_owned()));
            let mut said =
                verifier.run(&options, &[text(&site)], std::slice::from_ref(&log.origin));
            said.remove(0)
        };
        let whole = run(&keys, 1, &["-entries"]);
        assert!(whole.ok, "{}", whole.line);
        assert_eq!(whole.number("size"), SIZE);
        assert_eq!(whole.number("entries"), SIZE);
        assert_eq!(whole.number("tiles"), 258 + 2 + 1, "{}", whole.line);
        assert_eq!(whole.number("held"), 1);
        // One key under two names is one witness, and nobody is a witness of its own ledgers.
        assert_eq!(whole.number("witnesses"), 1, "{}", whole.line);
        assert!(!run(&keys, 2, &[]).ok);

        let seen = dir.path().join("seen").join(verifier.name);
        let remembered = seen.join(&log.origin).join("checkpoint");
        let since = |note: &str| {
            write(remembered.clone(), note);
            run(&keys, 1, &["-seen", &text(&seen)])
        };
        for (size, note) in &notes {
            let verdict = since(note);
            assert!(verdict.ok, "{}", verdict.line);
            assert_eq!(verdict.number("extends"), *size);
            assert_eq!(std::fs::read_to_string(&remembered).unwrap(), head);
        }
        // The log signed another history, at some size that it went through or may come to.
        for size in [1, 256, 65_536, SIZE, SIZE + 1] {
            let fork = log.sign(size, leaf_hash(b"another history"));
            let verdict = since(&fork);
            assert!(!verdict.ok, "{}", verdict.line);
            assert!(verdict.line.contains("seen before"), "{}", verdict.line);
            let kept = std::fs::read_to_string(&remembered).unwrap();
            assert_eq!(kept, fork, "evidence is not written over");
        }
        // What was seen before must be the log's own word.
        assert!(!since(&notes[3].1.replacen("300", "301", 1)).ok);

        for path in [
            "tile/0/017",
            "tile/1/000",
            "tile/2/000.p/1",
            "tile/entries/200",
        ] {
            let path = site.join(&log.origin).join(path);
            let bytes = std::fs::read(&path).unwrap();
            let mut damaged = bytes.clone();
            damaged[bytes.len() / 2] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let verdict = run(&keys, 1, &["-entries"]);
            assert!(!verdict.ok, "{}", verdict.line);
            std::fs::remove_file(&path).unwrap();
            assert!(
                !run(&keys, 1, &["-entries"]).ok,
                "{} is missing",
                path.display()
            );
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_log_of_more_than_a_thousand_tiles_verifies() {
    const SIZE: u64 = 262_500;
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new("example.org/unit/person");
    let head = log.grow(SIZE);
    log.export(dir.path());
    write(dir.path().join(&log.origin).join("checkpoint"), head);
    assert!(
        dir.path()
            .join(&log.origin)
            .join("tile/0/x001/024")
            .exists()
    );
    let key = log.signer.verifier(KeyKind::Note).vkey();
    let keys = write(dir.path().join("vkeys"), key + "\n");
    let mut options = options(&keys, 0);
    options.push("-entries".into());
    for verifier in verifiers::all() {
        let said = verifier.run(
            &options,
            &[text(dir.path())],
            std::slice::from_ref(&log.origin),
        );
        assert!(said[0].ok, "{}", said[0].line);
        assert_eq!(said[0].number("entries"), SIZE);
        assert_eq!(said[0].number("tiles"), 1026 + 5 + 1, "{}", said[0].line);
    }
}
