//! `fangzhi verify` finds and names whatever is not as it was written: one flipped bit anywhere,
//! a file cut short or missing, and what somebody changed who knows the checksums.
//!
//! `FANGZHI_FLIPS` sets how many places of the segment files are flipped.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ledger::hash::leaf_hash;
use ledger::tile::{TreeEdge, plan_append};
use registry::table::Head;
use serde_json::{Value, json};
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Seen, Store, scan_segments};
use tests::{Site, copy_dir, from_env, rows};

const FLIPS: u64 = 300;
/// Segments of a rebuilt store: small, so that there are several.
const SEGMENT_BYTES: u64 = 32 << 10;
const SHARD: &str = "journey.example/jinfu/person";

/// A node with some of everything that one node alone has: an import, an amendment, readings.
fn small_node(base: &Path) -> Site {
    let site = Site::alone(base);
    let community = rows::community(31, 40);
    for (kind, table) in [("person", &community.persons), ("room", &community.rooms)] {
        let file = rows::write(table, &base.join(format!("{kind}.csv")));
        site.json(["import", kind, file.to_str().unwrap()]);
    }
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--limit",
        "3",
    ]);
    let record = answer["value"]["rows"][0]["record"]
        .as_str()
        .unwrap()
        .to_owned();
    let change = [
        "amend",
        "person",
        &record,
        "--as",
        "dengji",
        "--version",
        "1",
        "--set",
        "employer=示例合作社",
    ];
    site.json(change);
    site.verified();
    site
}

/// A shard, and what one batch writes to it.
type Writes = (String, Vec<(Key, Vec<u8>)>);

/// All writes of a directory's segments in their order, batch by batch.
fn batches(dir: &Path) -> Vec<Writes> {
    let mut all: Vec<Writes> = Vec::new();
    scan_segments(dir, &mut |seen| match seen {
        Seen::Group { shard, .. } => all.push((shard.to_owned(), Vec::new())),
        Seen::Frame { key, value, .. } => {
            let value = value.expect("nothing here is deleted or erased");
            all.last_mut().unwrap().1.push((key, value.to_vec()));
        }
        Seen::Finding(finding) => panic!("{finding}"),
    })
    .unwrap();
    all
}

/// Writes a node's store anew through the store's own library, so that every checksum is right,
/// with what `edit` changes.
fn rewritten(from: &Site, to: &Path, mut edit: impl FnMut(&Key, &mut Vec<u8>)) -> Site {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.dir.join("node.json"), to.join("node.json")).unwrap();
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::default()
    };
    let store = Embedded::open(to, options).unwrap();
    for (shard, writes) in batches(&from.dir) {
        let mut batch = Batch::new(shard, None);
        for (key, mut value) in writes {
            edit(&key, &mut value);
            if key.table() == "body" {
                batch.put_body(key, value);
            } else {
                batch.put(key, value);
            }
        }
        store.commit(&batch).unwrap();
    }
    store.close().unwrap();
    Site::at(to)
}

/// The report of a verification that must fail, with exit code 7.
#[track_caller]
fn findings(site: &Site) -> Vec<Value> {
    let done = site.run(["verify", "--json"]).expect_code(7);
    let report = done.json();
    assert_eq!(report["ok"], false);
    let findings = report["findings"].as_array().unwrap().clone();
    assert!(!findings.is_empty());
    findings
}

#[track_caller]
fn one_says(findings: &[Value], word: &str) {
    let says = |finding: &Value| finding["what"].as_str().unwrap().contains(word);
    assert!(
        findings.iter().any(says),
        "nothing says `{word}`: {findings:#?}"
    );
}

fn segments(site: &Site) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(site.dir.join("segments"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    files.sort();
    files
}

/// Flips one bit at a time of a share of the places, and checks that the file is named.
fn flip(site: &Site, places: &[(PathBuf, u64)]) {
    for (path, offset) in places {
        let right = std::fs::read(path).unwrap();
        let mut wrong = right.clone();
        wrong[*offset as usize] ^= 1 << (offset % 8);
        std::fs::write(path, &wrong).unwrap();
        let found = findings(site);
        let named = path.display().to_string();
        let names = |finding: &Value| finding["file"] == json!(named);
        assert!(
            found.iter().any(names),
            "byte {offset} of {named}: {found:#?}"
        );
        std::fs::write(path, &right).unwrap();
    }
}

#[test]
fn one_flipped_bit_anywhere_in_the_segment_files_is_found_and_its_file_named() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let site = rewritten(&node, &base.path().join("several"), |_, _| {});
    site.verified();
    let files = segments(&site);
    assert!(files.len() >= 3, "several segments: {files:?}");
    let lengths: Vec<u64> = files.iter().map(|f| f.metadata().unwrap().len()).collect();
    let flips = from_env("FANGZHI_FLIPS", FLIPS);
    let stride = (lengths.iter().sum::<u64>() / flips).max(1) | 1;
    let mut places = Vec::new();
    for (file, length) in files.iter().zip(lengths) {
        let ends = (0..16).chain(length - 4..length);
        places.extend(
            ends.chain((16..length).step_by(stride as usize))
                .map(|at| (file.clone(), at)),
        );
    }
    // Both cores, each on a copy of its own.
    let copy = Site::at(&base.path().join("copy"));
    copy_dir(&site.dir, &copy.dir);
    let (first, second) = places.split_at(places.len() / 2);
    let second: Vec<(PathBuf, u64)> = second
        .iter()
        .map(|(path, at)| (copy.dir.join(path.strip_prefix(&site.dir).unwrap()), *at))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| flip(&copy, &second));
        flip(&site, first);
    });
    site.verified();
    copy.verified();
    eprintln!("{} places were flipped, one at a time", places.len());
}

#[test]
fn a_file_cut_short_missing_added_or_doubled_is_found() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let site = rewritten(&node, &base.path().join("several"), |_, _| {});
    let files = segments(&site);
    let (last, earlier) = files.split_last().unwrap();
    for file in earlier {
        let right = std::fs::read(file).unwrap();
        for length in [0, 7, 16, right.len() / 2, right.len() - 1] {
            std::fs::write(file, &right[..length]).unwrap();
            let found = findings(&site);
            assert!(
                found.iter().any(|f| f["file"].is_string()),
                "{length}: {found:#?}"
            );
        }
        std::fs::remove_file(file).unwrap();
        let found = findings(&site);
        one_says(&found, "missing");
        assert!(
            found
                .iter()
                .any(|f| f["file"] == json!(file.display().to_string()))
        );
        std::fs::write(file, right).unwrap();
    }
    site.verified();

    // Bytes after the last group, and a file where one was.
    let right = std::fs::read(last).unwrap();
    std::fs::write(last, [&right[..], &[0; 64]].concat()).unwrap();
    findings(&site);
    std::fs::copy(&earlier[0], last).unwrap();
    findings(&site);
    std::fs::write(last, &right).unwrap();
    std::fs::copy(last, site.dir.join("segments/00000099.seg")).unwrap();
    findings(&site);
    std::fs::remove_file(site.dir.join("segments/00000099.seg")).unwrap();
    site.verified();

    // The last file ending inside a group is what a crash leaves: said, and no finding.
    std::fs::write(last, &right[..right.len() - 1]).unwrap();
    let report = site.verified();
    let remark = report["remarks"][0].as_str().unwrap();
    assert!(remark.contains("unfinished") && remark.contains(last.to_str().unwrap()));
}

#[test]
fn a_node_whose_durable_history_was_cut_off_does_not_open() {
    let base = tempfile::tempdir().unwrap();
    let site = small_node(base.path());
    let file = segments(&site).pop().unwrap();
    let right = std::fs::read(&file).unwrap();
    // Where the last group begins: without it the file looks whole.
    let mut last_group = 0;
    scan_segments(&site.dir, &mut |seen| {
        if let Seen::Group { offset, .. } = seen {
            last_group = offset;
        }
    })
    .unwrap();
    for length in [last_group as usize, right.len() - 1, right.len() / 2] {
        std::fs::write(&file, &right[..length]).unwrap();
        let done = site.run(["status", "--json"]);
        assert_ne!(done.code, 0, "cut to {length}: {}", done.printed());
        assert!(
            done.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("seg")
        );
    }
    std::fs::write(&file, right).unwrap();
    site.json(["status"]);
    site.verified();
}

/// The entries of a shard by index, as stored.
fn entries(site: &Site, shard: &str) -> BTreeMap<u64, Vec<u8>> {
    batches(&site.dir)
        .into_iter()
        .flat_map(|(_, writes)| writes)
        .filter(|(key, _)| key.shard() == shard && key.table() == "entry")
        .map(|(key, value)| (u64::from_be_bytes(key.rest().try_into().unwrap()), value))
        .collect()
}

#[test]
fn a_store_written_anew_as_it_was_verifies_to_the_same_roots() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let same = rewritten(&node, &base.path().join("same"), |_, _| {});
    assert_eq!(node.verified()["ledgers"], same.verified()["ledgers"]);
}

#[test]
fn two_bodies_that_were_swapped_are_found() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    // By the library, with every checksum right.
    let mut bodies: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (_, writes) in batches(&node.dir) {
        for (key, value) in writes {
            if key.shard() == SHARD && key.table() == "body" {
                bodies.insert(key.rest().to_vec(), value);
            }
        }
    }
    let (third, fourth) = (3u64.to_be_bytes().to_vec(), 4u64.to_be_bytes().to_vec());
    let swapped = rewritten(&node, &base.path().join("swapped"), |key, value| {
        if key.shard() == SHARD && key.table() == "body" {
            if key.rest() == third {
                value.clone_from(&bodies[&fourth]);
            } else if key.rest() == fourth {
                value.clone_from(&bodies[&third]);
            }
        }
    });
    let found = findings(&swapped);
    for index in [3, 4] {
        let names =
            |f: &Value| f["index"] == index && f["origin"] == SHARD && f["file"].is_string();
        assert!(found.iter().any(names), "{found:#?}");
    }
    one_says(&found, "body");

    // In the file itself, as somebody with an editor would.
    let file = segments(&node).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let place =
        |body: &[u8], bytes: &[u8]| bytes.windows(body.len()).position(|w| w == body).unwrap();
    let (a, b) = (
        place(&bodies[&third], &bytes),
        place(&bodies[&fourth], &bytes),
    );
    let length = bodies[&third].len().min(bodies[&fourth].len());
    for at in 0..length {
        bytes.swap(a + at, b + at);
    }
    std::fs::write(&file, bytes).unwrap();
    one_says(&findings(&node), "checksum");
}

#[test]
fn an_entry_changed_under_right_checksums_is_found_by_root_and_signature() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let shards = [
        SHARD,
        "journey.example/jinfu/authority",
        "journey.example/jinfu/access",
    ];
    for (serial, shard) in shards.into_iter().enumerate() {
        let all = entries(&node, shard);
        for at in [0, all.len() as u64 / 2, all.len() as u64 - 1] {
            let to = base.path().join(format!("changed-{serial}-{at}"));
            let changed = rewritten(&node, &to, |key, value| {
                if key.shard() == shard && key.table() == "entry" && key.rest() == at.to_be_bytes()
                {
                    let middle = value.len() / 2;
                    value[middle] ^= 1;
                }
            });
            let found = findings(&changed);
            assert!(
                found.iter().any(|f| f["origin"] == shard),
                "{shard} {at}: {found:#?}"
            );
            one_says(&found, "root");
        }
    }
}

/// What somebody does who has the disk and every algorithm, and no key: changes an entry and makes
/// bodies, tiles, root and head fit.
fn forged(node: &Site, to: &Path, at: u64, change: impl Fn(&mut Vec<u8>)) -> Site {
    let mut all = entries(node, SHARD);
    change(all.get_mut(&at).unwrap());
    let leaves: Vec<_> = all.values().map(|bytes| leaf_hash(bytes)).collect();
    rewritten(node, to, |key, value| {
        if key.shard() != SHARD {
            return;
        }
        match key.table() {
            "entry" if key.rest() == at.to_be_bytes() => value.clone_from(&all[&at]),
            "tile" => {
                // Every width that this tile had on the way, at its last form.
                let (_, tiles) = plan_append(&TreeEdge::new(), &leaves);
                let level = key.rest()[0];
                let index = u64::from_be_bytes(key.rest()[1..].try_into().unwrap());
                let tile = tiles
                    .iter()
                    .find(|t| t.level == level && t.index == index)
                    .unwrap();
                value.clone_from(&tile.bytes);
            }
            "head" => {
                let mut head: Head = minicbor::decode(value).unwrap();
                let (edge, _) = plan_append(&TreeEdge::new(), &leaves[..head.size as usize]);
                head.root = edge.frontier().root();
                *value = record::cbor::to_vec(&head);
            }
            _ => {}
        }
    })
}

#[test]
fn a_forger_without_keys_is_caught_by_the_act_and_the_checkpoint() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let untouched = forged(&node, &base.path().join("untouched"), 5, |_| {});
    untouched.verified();
    // The last byte of an entry is the end of its time: a register backdated by milliseconds.
    let backdated = forged(&node, &base.path().join("backdated"), 5, |entry| {
        *entry.last_mut().unwrap() ^= 1;
    });
    let found = findings(&backdated);
    one_says(&found, "does not sign the entries before it");
    one_says(&found, "root of the signed checkpoint");
    // The act itself, over entries as they are.
    let last = entries(&node, SHARD)
        .into_iter()
        .find(|(_, bytes)| {
            matches!(
                record::entry::Entry::decode(bytes),
                Ok(record::entry::Entry::Act(_))
            )
        })
        .unwrap()
        .0;
    let resigned = forged(&node, &base.path().join("resigned"), last, |entry| {
        *entry.last_mut().unwrap() ^= 1;
    });
    let found = findings(&resigned);
    assert!(found.iter().any(|f| f["index"] == last), "{found:#?}");
    one_says(&found, "root of the signed checkpoint");
}

#[test]
fn the_history_of_another_realm_is_not_taken_for_this_node() {
    let here = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    let node = small_node(here.path());
    // The same names, other keys.
    let other = small_node(there.path());
    let mixed = Site::at(&here.path().join("mixed"));
    copy_dir(&node.dir, &mixed.dir);
    std::fs::copy(other.dir.join("node.json"), mixed.dir.join("node.json")).unwrap();
    findings(&mixed);
    // A root key that did not sign the chain.
    let mut config = tests::site::read_json(&node.dir.join("node.json")).unwrap();
    config["root"] = json!("11".repeat(32));
    std::fs::write(mixed.dir.join("node.json"), config.to_string()).unwrap();
    findings(&mixed);
    // No segments at all: history that is gone is not history that holds.
    std::fs::copy(node.dir.join("node.json"), mixed.dir.join("node.json")).unwrap();
    mixed.verified();
    std::fs::remove_dir_all(mixed.dir.join("segments")).unwrap();
    std::fs::create_dir(mixed.dir.join("segments")).unwrap();
    findings(&mixed);
}

#[test]
fn exit_codes_tell_holds_from_does_not_hold_from_cannot_be_read() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    node.run(["verify"]).expect_code(0);
    let nowhere = Site::at(&base.path().join("nowhere"));
    nowhere.run(["verify"]).expect_code(1);
    tests::call(["verify", "--dir"]).expect_code(2);
    let file = segments(&node).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x80;
    std::fs::write(&file, bytes).unwrap();
    let done = node.run(["verify"]).expect_code(7);
    assert!(
        done.stdout.contains(file.to_str().unwrap()),
        "the file is named to people too"
    );
    // It verifies while the node runs, too.
    let running = tempfile::tempdir().unwrap();
    let node = small_node(running.path()).start();
    node.site.verified();
}
