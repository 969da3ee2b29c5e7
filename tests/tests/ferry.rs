//! Replication by file: what a child without any network and its parent come to hold, and that no
//! file which is not the next one, or not as it was packed, changes anything.
//!
//! Bundles are packed and opened by `fangzhi` as operators do, with the node stopped or running; what
//! needs a forger is forged with the sender's own keys.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferry::head::HEAD_BYTES;
use ferry::{Head, Hex, Manifest};
use record::authority::{Level, Role};
use registry::register::ImportChunk;
use serde_json::{Value, json};
use tests::binary::fangzhi as binary;
use tests::realm::daemon::{Daemon, fangzhi, verify, words};
use tests::realm::forge::keystore;
use tests::realm::{PASSPHRASE, REALM, Site, clock, division, kind, rows};

const PARENT: &str = "jiangjin";
const CHILD: &str = "jinfu";

/// A district and a community under it, with records at the community; no line between the two.
struct Gap {
    base: tempfile::TempDir,
}

impl Gap {
    fn new(persons: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let (at, now) = (base.path(), clock());
        let parent = Site::root(at, REALM, PARENT, now);
        let child = Site::join(&parent, at, CHILD, Level::Community, now);
        let clerk = child.operator(Role::Clerk, None, now);
        child.import(&clerk, "person", &rows("person", 1, persons, 1), now);
        child.close();
        parent.close();
        std::fs::create_dir(at.join("disk")).unwrap();
        Self { base }
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.base.path().join(node)
    }

    fn disk(&self, name: &str) -> PathBuf {
        let name = match name.contains('.') {
            true => name.to_owned(),
            false => format!("{name}.ferry"),
        };
        self.base.path().join("disk").join(name)
    }

    /// Registers more records at the child; each serial is another community's.
    fn register(&self, serial: u16, persons: usize) {
        let child = Site::open(&self.dir(CHILD), clock());
        let clerk = child.registry.login("clerk", PASSPHRASE, clock()).unwrap();
        let rows = rows("person", serial.into(), persons, serial);
        let chunk = ImportChunk {
            kind: kind("person"),
            source: format!("{serial:064}"),
            numbers: (1..=rows.len() as u64).collect(),
            rows,
            dry_run: false,
        };
        let report = child.registry.import(&clerk, &chunk, clock()).unwrap();
        assert!(report.accepted > 0, "{:?}", report.violations);
        child.close();
    }

    /// Packs for `to` at `from`; the report.
    fn pack(&self, from: &str, to: &str, out: &str, more: &[&str]) -> Value {
        done(&self.try_pack(from, to, out, more))
    }

    fn try_pack(&self, from: &str, to: &str, out: &str, more: &[&str]) -> Ran {
        let (dir, out) = (self.dir(from), self.disk(out));
        let mut args = vec!["ferry", "pack", "--to", to, "--dir"];
        args.extend([dir.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        args.extend(more);
        ran(&args)
    }

    /// Opens files at a node; the report.
    fn open(&self, at: &str, files: &[&str]) -> Value {
        done(&self.try_open(at, files))
    }

    fn try_open(&self, at: &str, files: &[&str]) -> Ran {
        let dir = self.dir(at);
        let files: Vec<PathBuf> = files.iter().map(|file| self.disk(file)).collect();
        let mut args = vec!["ferry", "open", "--dir", dir.to_str().unwrap()];
        args.extend(files.iter().map(|file| file.to_str().unwrap()));
        ran(&args)
    }

    /// Opens files that are refused, and sees that the node holds what it held.
    fn refused(&self, at: &str, files: &[&str], code: &str) -> String {
        let before = self.holds(at);
        let ran = self.try_open(at, files);
        assert!(!ran.ok, "{files:?} were taken in: {}", ran.answer);
        let error = &ran.answer["error"];
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(self.holds(at), before, "{code} changed something");
        error["message"].as_str().unwrap().to_owned()
    }

    fn receipt(&self, from: &str, to: &str, out: &str) -> Value {
        let (dir, out) = (self.dir(from), self.disk(out));
        done(&ran(&[
            "ferry",
            "receipt",
            "--to",
            to,
            "--dir",
            dir.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]))
    }

    fn ask(&self, node: &str, what: &[&str]) -> Value {
        let dir = self.dir(node);
        let mut args = what.to_vec();
        args.extend(["--dir", dir.to_str().unwrap()]);
        done(&ran(&args))
    }

    /// Sizes and roots of every ledger, alarms, and how far the ferries came.
    fn holds(&self, node: &str) -> Value {
        let status = self.ask(node, &["status"]);
        let ferries = self.ask(node, &["ferry", "list"]);
        json!([status["ledgers"], status["alarms"], ferries])
    }

    fn peer(&self, node: &str) -> Value {
        self.ask(node, &["sync", "status"])["peers"][0].clone()
    }

    /// Sees that the parent holds the child's ledgers to their end, and that both verify.
    fn arrived(&self) {
        let ledgers = |node: &str| {
            let status = self.ask(node, &["status"]);
            assert_eq!(status["alarms"], json!([]), "{status}");
            let lines = status["ledgers"].as_array().unwrap().clone();
            let of_child = |line: &Value| line["origin"].as_str().unwrap().contains("/jinfu/");
            let lines = lines.into_iter().filter(of_child);
            let told = |line: Value| json!([line["origin"], line["size"], line["root"]]);
            lines.map(told).collect::<Vec<_>>()
        };
        let here = ledgers(CHILD);
        assert!(here.len() >= 2, "{here:?}");
        assert_eq!(here, ledgers(PARENT));
        for node in [CHILD, PARENT] {
            let (ok, report) = verify(&self.dir(node));
            assert!(ok, "{report}");
        }
    }

    /// Whether every own ledger of the child has the parent's signature up to its end.
    fn is_cosigned(&self) -> bool {
        let status = self.ask(CHILD, &["status"]);
        let lines = status["ledgers"].as_array().unwrap();
        let own = lines.iter().filter(|line| line["own"] == true);
        own.into_iter().all(|line| line["cosigned"] == line["size"])
    }
}

struct Ran {
    ok: bool,
    code: Option<i32>,
    answer: Value,
}

fn ran(args: &[&str]) -> Ran {
    let mut all = vec!["--json"];
    all.extend(args);
    let output = fangzhi(&all);
    let answer = serde_json::from_slice(&output.stdout);
    Ran {
        ok: output.status.success(),
        code: output.status.code(),
        answer: answer.unwrap_or_else(|_| panic!("{args:?}: {}", words(&output))),
    }
}

fn done(ran: &Ran) -> Value {
    assert!(ran.ok, "{}", ran.answer);
    ran.answer.clone()
}

// ---- the way there and back ------------------------------------------------------------------

#[test]
fn a_child_that_never_has_a_network_is_held_whole_by_its_parent_and_knows_it() {
    let gap = Gap::new(120);
    let packed = gap.pack(CHILD, PARENT, "1", &[]);
    assert_eq!(
        (packed["number"].as_u64(), packed["after"].as_u64()),
        (Some(1), Some(0))
    );
    // At the boundary, without a node and without a key.
    let checked = done(&ran(&["ferry", "check", gap.disk("1").to_str().unwrap()]));
    assert_eq!(checked["missing"], json!([]));
    assert_eq!(checked["entries"], packed["entries"]);
    assert_eq!(checked["hash"], packed["manifest"]);
    let before = gap.peer(CHILD);
    assert_eq!(before["ferry"]["state"], "unknown", "{before}");

    // The parent runs; it takes the file in over its HTTP interface.
    let parent = Daemon::start(&gap.dir(PARENT));
    let opened = gap.open(PARENT, &["1"]);
    assert_eq!(opened["entries"], packed["entries"], "{opened}");
    for ledger in opened["ledgers"].as_array().unwrap() {
        assert_eq!(
            (&ledger["held"], &ledger["error"]),
            (&ledger["size"], &Value::Null)
        );
    }
    let receipt = gap.receipt(PARENT, CHILD, "1r");
    assert_eq!(receipt["acknowledges"], 1);
    parent.stop();

    assert!(!gap.is_cosigned());
    let answered = gap.open(CHILD, &["1r"]);
    assert_eq!(answered["acknowledged"], 1);
    assert!(gap.is_cosigned());
    let after = gap.peer(CHILD);
    assert_eq!(after["ferry"]["state"], "acknowledged", "{after}");
    assert_eq!(after["lacks"], 0, "{after}");
    gap.arrived();

    // Onward: only what is new, and answers in both directions travel with bundles.
    gap.register(7, 60);
    let packed = gap.pack(CHILD, PARENT, "2", &[]);
    assert_eq!(
        (packed["number"].as_u64(), packed["after"].as_u64()),
        (Some(2), Some(1))
    );
    gap.open(PARENT, &["2"]);
    let down = gap.pack(PARENT, CHILD, "down", &[]);
    assert_eq!(
        (down["number"].as_u64(), down["acknowledges"].as_u64()),
        (Some(1), Some(2))
    );
    let opened = gap.open(CHILD, &["down"]);
    assert_eq!(opened["acknowledged"], 2);
    assert!(gap.is_cosigned());
    gap.arrived();
    // The parent's authority ledger came down.
    let (root, child) = (gap.ask(PARENT, &["status"]), gap.ask(CHILD, &["status"]));
    let authority = |status: &Value| {
        let lines = status["ledgers"].as_array().unwrap().clone();
        let name = format!("{REALM}/{PARENT}/authority");
        let line = lines
            .into_iter()
            .find(|line| line["origin"] == name.as_str());
        line.map(|line| json!([line["size"], line["root"]]))
    };
    assert!(authority(&root).is_some());
    assert_eq!(authority(&root), authority(&child));
    // And the child's word that it has it goes up with its next bundle.
    gap.register(8, 20);
    gap.pack(CHILD, PARENT, "3", &[]);
    assert_eq!(gap.open(PARENT, &["3"])["acknowledged"], 1);
    let below = gap.peer(PARENT);
    assert_eq!(below["ferry"]["state"], "acknowledged");
    gap.arrived();
}

#[test]
fn across_a_one_way_boundary_bundles_are_cumulative_and_the_status_stays_unknown() {
    let gap = Gap::new(60);
    gap.pack(CHILD, PARENT, "1", &["--one-way"]);
    gap.register(3, 20);
    gap.pack(CHILD, PARENT, "2", &["--one-way"]);
    gap.register(4, 20);
    let third = gap.pack(CHILD, PARENT, "3", &["--one-way"]);
    assert_eq!(
        (third["number"].as_u64(), third["after"].as_u64()),
        (Some(3), Some(0))
    );
    gap.open(PARENT, &["1"]);
    // The second never came.
    let opened = gap.open(PARENT, &["3"]);
    let new = opened["entries"].as_u64().unwrap();
    assert!(
        new > 0 && new < third["entries"].as_u64().unwrap(),
        "{opened}"
    );
    gap.arrived();
    assert_eq!(gap.peer(CHILD)["ferry"]["state"], "unknown");
    // The figures say so, too: what is packed is no word of what arrived.
    let child = Daemon::start(&gap.dir(CHILD));
    let figures = ureq::get(format!("{}/metrics", child.url)).call().unwrap();
    let figures = figures.into_body().read_to_string().unwrap();
    for figure in [
        "unknown{peer=\"jiangjin\"} 1",
        "packed_bundle{peer=\"jiangjin\"} 3",
        "acknowledged_bundle{peer=\"jiangjin\"} 0",
    ] {
        let line = format!("fangzhi_ferry_{figure}");
        assert!(figures.lines().any(|found| found == line), "{line}");
    }
    child.stop();
    // What is late is known to be old.
    assert_eq!(gap.open(PARENT, &["2"])["repeated"], true);
    // From a known bundle on, if that is how it is wanted.
    gap.register(5, 10);
    let fourth = gap.pack(CHILD, PARENT, "4", &["--one-way", "--since", "3"]);
    assert_eq!(fourth["after"], 3);
    gap.open(PARENT, &["4"]);
    gap.arrived();
}

#[test]
fn many_disks_are_given_in_any_order_and_one_by_one_and_the_missing_one_is_named() {
    let gap = Gap::new(2_000);
    let begun = Instant::now();
    let report = gap.pack(CHILD, PARENT, "big", &["--max-bytes", "1M"]);
    println!("packed {} bytes in {:?}", report["bytes"], begun.elapsed());
    let files = report["files"].as_array().unwrap();
    assert!(files.len() >= 3, "{report}");
    for file in files {
        let length = std::fs::metadata(file.as_str().unwrap()).unwrap().len();
        assert!(length <= 1 << 20, "{length}");
    }
    let names: Vec<String> = (1..=files.len())
        .map(|part| format!("big.ferry.{part:03}"))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.reverse();
    // All but the first disk, then each alone.
    let last = names.pop().unwrap();
    let said = gap.refused(PARENT, &names, "ferry-missing-part");
    assert!(said.contains("part 1 of"), "{said}");
    let kept = std::fs::read_dir(gap.dir(PARENT).join("ferry"))
        .unwrap()
        .count();
    assert_eq!(kept, 1);
    let begun = Instant::now();
    let opened = gap.open(PARENT, &[last]);
    println!(
        "opened {} entries in {:?}",
        opened["entries"],
        begun.elapsed()
    );
    gap.arrived();
    let kept = std::fs::read_dir(gap.dir(PARENT).join("ferry"))
        .unwrap()
        .count();
    assert_eq!(kept, 0, "what was kept is gone once the bundle is open");
}

// ---- what is refused ---------------------------------------------------------------------------

#[test]
fn the_wrong_receiver_a_repeated_a_missing_and_a_reordered_bundle_change_nothing() {
    let gap = Gap::new(60);
    gap.pack(CHILD, PARENT, "1", &[]);
    let said = gap.refused(CHILD, &["1"], "ferry-wrong-receiver");
    assert!(said.contains("`jiangjin`"), "{said}");
    gap.register(3, 20);
    gap.pack(CHILD, PARENT, "2", &[]);
    gap.register(4, 20);
    gap.pack(CHILD, PARENT, "3", &[]);
    // Reordered: the second before the first.
    let said = gap.refused(PARENT, &["2"], "ferry-gap");
    assert!(said.contains("bundle 1 from `jinfu` is missing"), "{said}");
    gap.open(PARENT, &["1"]);
    let said = gap.refused(PARENT, &["3"], "ferry-gap");
    assert!(
        said.contains("bundle 2 from") && said.contains("--since 1"),
        "{said}"
    );
    // A lost disk is packed again.
    gap.pack(CHILD, PARENT, "4", &["--since", "1"]);
    gap.open(PARENT, &["4"]);
    gap.arrived();
    let before = gap.holds(PARENT);
    for old in ["1", "2", "3", "4"] {
        assert_eq!(gap.open(PARENT, &[old])["repeated"], true);
    }
    assert_eq!(gap.holds(PARENT), before);
    // A spoilt copy of what was opened long ago is spoilt all the same.
    let good = std::fs::read(gap.disk("1")).unwrap();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    for (bytes, code) in [
        (&altered[..], "ferry-altered"),
        (&good[..good.len() - 9], "ferry-cut"),
    ] {
        std::fs::write(gap.disk("x"), bytes).unwrap();
        gap.refused(PARENT, &["x"], code);
    }
    // A folder that is not there is no file, and uses up no number.
    let away = gap.base.path().join("usb");
    let dir = gap.dir(CHILD);
    let refused = ran(&[
        "ferry",
        "pack",
        "--to",
        PARENT,
        "--since",
        "0",
        "--dir",
        dir.to_str().unwrap(),
        "--out",
        away.to_str().unwrap(),
    ]);
    assert_eq!(refused.code, Some(2), "{}", refused.answer);
    assert!(!away.exists());
    let list = gap.ask(CHILD, &["ferry", "list"]);
    assert_eq!(list[0]["packed"], 4, "{list}");
    // Nor does a file that is not there fail to hold.
    let missing = ran(&["ferry", "check", gap.disk("nosuch").to_str().unwrap()]);
    assert_eq!(missing.code, Some(1), "{}", missing.answer);
    // Nothing is new; nobody carries an empty disk.
    let ran = gap.try_pack(CHILD, PARENT, "5", &[]);
    assert_eq!(
        ran.answer["error"]["code"], "ferry-nothing-new",
        "{}",
        ran.answer
    );
    // No file is written over.
    let ran = gap.try_pack(CHILD, PARENT, "4", &["--since", "0"]);
    assert_eq!(ran.answer["error"]["code"], "ferry-file", "{}", ran.answer);
    // Files of two bundles.
    gap.refused(PARENT, &["2", "3"], "ferry-mixed");
    // Neither parent nor child.
    let ran = gap.try_pack(CHILD, CHILD, "5", &["--since", "0"]);
    assert_eq!(ran.code, Some(2), "{}", ran.answer);
}

/// One file of a bundle, taken apart.
struct Taken {
    manifest: Manifest,
    part: Vec<u8>,
}

impl Taken {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let head = Head::decode(&bytes[..HEAD_BYTES]).unwrap();
        let end = HEAD_BYTES + head.manifest_bytes as usize;
        Self {
            manifest: Manifest::decode(&bytes[HEAD_BYTES..end]).unwrap(),
            part: bytes[end..].to_vec(),
        }
    }

    /// Written again under the keys of whoever holds `dir`.
    fn write(&self, path: &Path, dir: &Path) {
        let manifest = self.manifest.encode();
        let head = Head {
            part: 1,
            manifest_bytes: manifest.len() as u32,
            signature: Manifest::sign(&manifest, &keystore(dir).sign.signing_key()),
        };
        let bytes = [head.encode().as_bytes(), &manifest, &self.part].concat();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn an_altered_cut_or_lying_file_changes_nothing_whoever_signed_it() {
    let gap = Gap::new(60);
    gap.pack(CHILD, PARENT, "1", &[]);
    let good = std::fs::read(gap.disk("1")).unwrap();
    let begin = good.len() - Taken::read(&gap.disk("1")).part.len();
    let altered = |bytes: &[u8], code: &str| {
        std::fs::write(gap.disk("x"), bytes).unwrap();
        gap.refused(PARENT, &["x"], code)
    };
    // A byte of the first line, of the manifest, of the ciphertext.
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    altered(&flip(3), "ferry-not-a-bundle");
    let mut signature = good.clone();
    signature[70] = if good[70] == b'0' { b'1' } else { b'0' };
    altered(&signature, "ferry-manifest");
    for at in [HEAD_BYTES + 40, begin - 40] {
        altered(&flip(at), "ferry-manifest");
    }
    for at in [begin, begin + 1_000, good.len() - 1] {
        altered(&flip(at), "ferry-altered");
    }
    altered(&good[..good.len() - 1], "ferry-cut");
    altered(&good[..begin], "ferry-cut");
    altered(&good[..HEAD_BYTES - 1], "ferry-not-a-bundle");
    altered(&good[..begin - 1], "ferry-manifest");
    altered(&[&good[..], b"x"].concat(), "ferry-cut");
    altered(b"", "ferry-not-a-bundle");
    // The scanner says the same, without keys.
    std::fs::write(gap.disk("x"), flip(good.len() - 1)).unwrap();
    let checked = ran(&["ferry", "check", gap.disk("x").to_str().unwrap()]);
    assert_eq!(
        (checked.code, &checked.answer["error"]["code"]),
        (Some(7), &json!("ferry-altered"))
    );

    // Signed by the sender itself: hashes, lengths and counts that lie.
    let child = gap.dir(CHILD);
    let forged = |change: fn(&mut Taken), code: &str| {
        let mut taken = Taken::read(&gap.disk("1"));
        change(&mut taken);
        taken.write(&gap.disk("x"), &child);
        gap.refused(PARENT, &["x"], code);
    };
    forged(
        |t| {
            t.part[100] ^= 1;
            rehash(t);
        },
        "ferry-payload",
    );
    forged(
        |t| {
            let short = t.part.len() - 7;
            t.part.truncate(short);
            t.manifest.payload.bytes -= 7;
            t.manifest.parts[0].bytes -= 7;
            rehash(t);
        },
        "ferry-payload",
    );
    forged(|t| t.manifest.payload.bytes = 1 << 39, "ferry-manifest");
    forged(
        |t| {
            let lie = (1u64 << 30) / 65_552 * 65_552;
            t.manifest.payload.bytes = lie;
            t.manifest.parts[0].bytes = lie;
        },
        "ferry-cut",
    );
    forged(|t| t.manifest.payload.frames += 1, "ferry-payload");
    forged(|t| t.manifest.payload.frames = u64::MAX, "ferry-manifest");
    forged(|t| t.manifest.ledgers[0].to += 1, "ferry-payload");
    forged(
        |t| t.manifest.ledgers[0].root = Hex([9; 32]),
        "ferry-payload",
    );
    forged(|t| t.manifest.ledgers.swap(0, 1), "ferry-payload");
    forged(|t| t.manifest.ledgers.truncate(1), "ferry-payload");
    forged(|t| t.manifest.number = 2, "ferry-payload");
    forged(
        |t| t.manifest.to.charter = Hex([9; 32]),
        "ferry-wrong-receiver",
    );
    // By another node's keys: the charter inside does not fit the signature.
    let taken = Taken::read(&gap.disk("1"));
    taken.write(&gap.disk("x"), &gap.dir(PARENT));
    gap.refused(PARENT, &["x"], "ferry-manifest");
    // The untouched file is taken after all that.
    gap.open(PARENT, &["1"]);
    gap.arrived();
    // Another bundle under a number that was opened.
    let mut other = Taken::read(&gap.disk("1"));
    other.manifest.made.0 += 1;
    other.write(&gap.disk("x"), &child);
    gap.refused(PARENT, &["x"], "ferry-other-history");
}

fn rehash(taken: &mut Taken) {
    use sha2::Digest;
    taken.manifest.parts[0].sha256 = Hex(sha2::Sha256::digest(&taken.part).into());
}

#[test]
fn a_revoked_childs_bundle_is_refused_with_the_reason_that_a_line_would_have() {
    let gap = Gap::new(60);
    gap.pack(CHILD, PARENT, "1", &[]);
    let parent = Site::open(&gap.dir(PARENT), clock());
    let (who, why) = (division(CHILD), kind("lost-key"));
    let revoked = parent.registry.revoke(&parent.officer, &who, &why, clock());
    revoked.unwrap();
    parent.close();
    let said = gap.refused(PARENT, &["1"], "ferry-sender");
    assert!(said.contains("revoked") || said.contains("吊销"), "{said}");
}

// ---- cut off in the middle -----------------------------------------------------------------------

#[test]
fn killed_while_it_opens_the_same_command_goes_on_and_nothing_is_lost_or_doubled() {
    let gap = Gap::new(1_500);
    gap.pack(CHILD, PARENT, "1", &[]);
    let (dir, file) = (gap.dir(PARENT), gap.disk("1"));
    let size = || {
        let status = gap.ask(PARENT, &["status"]);
        let lines = status["ledgers"].as_array().unwrap().clone();
        let name = format!("{REALM}/{CHILD}/person");
        let line = lines
            .into_iter()
            .find(|line| line["origin"] == name.as_str());
        line.map_or(0, |line| line["size"].as_u64().unwrap())
    };
    // As much as the store has written, whatever it holds.
    let written = || {
        let files = std::fs::read_dir(dir.join("segments")).unwrap();
        let lengths = files.map(|file| file.unwrap().metadata().unwrap().blocks());
        lengths.sum::<u64>() * 512
    };
    let (mut halfway, mut held) = (0, 0);
    for _ in 0..8 {
        let begun = written();
        let mut child = Command::new(binary())
            .args(["--json", "ferry", "open", "--dir"])
            .args([&dir, &file])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() && written() < begun + 400_000 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        // Killed within the first commit, it has nothing yet; what it has, it keeps.
        let before = std::mem::replace(&mut held, size());
        assert!(held >= before, "{held} after {before}");
        halfway += u64::from(!ended && held > 0);
        let (ok, report) = verify(&dir);
        assert!(ok, "{report}");
        if ended {
            break;
        }
    }
    assert!(halfway > 0, "it was never killed in the middle");
    println!("killed {halfway} times with a part of it kept");
    let opened = gap.open(PARENT, &["1"]);
    assert!(opened["repeated"] == true || opened["ledgers"].is_array());
    gap.arrived();
    gap.receipt(PARENT, CHILD, "1r");
    gap.open(CHILD, &["1r"]);
    assert!(gap.is_cosigned());
}

#[test]
fn a_bundle_that_was_left_half_open_is_finished_by_the_next_cumulative_one() {
    let gap = Gap::new(2_000);
    gap.pack(CHILD, PARENT, "1", &[]);
    let (dir, file) = (gap.dir(PARENT), gap.disk("1"));
    // No file may grow beyond a megabyte or so: a disk that is full before the end.
    let script = "trap '' XFSZ; ulimit -f 1500; exec \"$0\" --json ferry open --dir \"$1\" \"$2\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .args([binary(), &dir, &file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let peer = gap.peer(PARENT);
    assert_eq!(peer["ferry"], Value::Null, "it is not called open: {peer}");
    let (ok, report) = verify(&dir);
    assert!(ok, "{report}");
    let status = gap.ask(PARENT, &["status"]);
    let person = format!("{REALM}/{CHILD}/person");
    let lines = status["ledgers"].as_array().unwrap();
    let line = lines.iter().find(|line| line["origin"] == person.as_str());
    let held = line.map_or(0, |line| line["size"].as_u64().unwrap());
    assert!(
        held > 0 && held < 2_000,
        "it was to stop in the middle: {held}"
    );
    // The first disk is lost; the second has everything, and proves that it extends the first.
    gap.register(3, 40);
    gap.pack(CHILD, PARENT, "2", &["--since", "0"]);
    let opened = gap.open(PARENT, &["2"]);
    for ledger in opened["ledgers"].as_array().unwrap() {
        assert_eq!(ledger["error"], Value::Null, "{ledger}");
    }
    gap.arrived();
}

#[test]
fn killed_while_it_packs_no_number_is_given_twice_and_what_was_not_written_is_packed_again() {
    let gap = Gap::new(1_000);
    let dir = gap.dir(CHILD);
    let mut names = Vec::new();
    for round in 0..6u64 {
        let name = format!("k{round}");
        let mut child = Command::new(binary())
            .args(["--json", "ferry", "pack", "--to", PARENT, "--dir"])
            .arg(&dir)
            .arg("--out")
            .arg(gap.disk(&name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(150 + 120 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        names.push(name);
    }
    let ran = gap.try_pack(CHILD, PARENT, "last", &[]);
    let nothing = ran.answer["error"]["code"] == "ferry-nothing-new";
    assert!(ran.ok || nothing, "{}", ran.answer);
    names.push("last".into());
    let list = gap.ask(CHILD, &["ferry", "list"]);
    let bundles = list[0]["bundles"].as_array().unwrap();
    let mut numbers: Vec<u64> = bundles
        .iter()
        .map(|bundle| bundle["number"].as_u64().unwrap())
        .collect();
    numbers.dedup();
    assert_eq!(numbers.len(), bundles.len(), "{list}");
    // A file that has its name is whole; whichever there are bring everything.
    let there = names.iter().filter(|name| gap.disk(name).exists());
    for name in there {
        gap.open(PARENT, &[name]);
    }
    gap.arrived();
}
