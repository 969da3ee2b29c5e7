//! Compaction: dead bytes go, nothing that is alive does, and what was erased stays gone.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use store::embedded::{Embedded, Options};
use store::{Batch, Key, Row, Snapshot, Store};

/// Only what a test asks for is compacted, unless it says otherwise.
fn options(percent: u32) -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 20 << 10,
        compact_percent: percent,
        ..Options::default()
    }
}

fn open(dir: &Path, percent: u32) -> Embedded {
    Embedded::open(dir, options(percent)).unwrap()
}

fn key(rest: &str) -> Key {
    Key::new("s", "t", rest.as_bytes()).unwrap()
}

/// A batch of one key that is overwritten each time and one that stays.
fn commit(store: &dyn Store, n: u32) {
    let mut batch = Batch::new("s", None);
    batch.put(key("head"), vec![n as u8; 900]);
    batch.put(key(&format!("stays {n:05}")), vec![n as u8; 50]);
    store.commit(&batch).unwrap();
    if n.is_multiple_of(10) {
        store
            .commit(&Batch::new(format!("other {n}"), None))
            .unwrap();
    }
}

type State = (Vec<(String, u64)>, Vec<Row>);

fn state(store: &dyn Store) -> State {
    let shards = store.shards().unwrap().into_iter();
    let heads = shards.map(|shard| {
        let head = store.head(&shard).unwrap();
        (shard, head)
    });
    let rows = store.scan("s", "t", b"", usize::MAX).unwrap();
    (heads.collect(), rows)
}

fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, needle),
            false => fs::read(path)
                .unwrap_or_default()
                .windows(needle.len())
                .any(|window| window == needle),
        }
    })
}

fn kept_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(dir.join("segments")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "kept"))
        .collect()
}

/// The store, its segments alone, and the store after its index is lost, all hold the same.
fn check(dir: &Path, store: Embedded, expected: &State) {
    assert_eq!(state(&store), *expected);
    drop(store);
    let snapshot = Snapshot::open(dir).unwrap();
    assert_eq!(snapshot.findings(), []);
    assert_eq!(state(&snapshot), *expected);
    drop(snapshot);
    assert_eq!(state(&open(dir, 101)), *expected);
    fs::remove_dir_all(dir.join("index")).unwrap();
    let store = open(dir, 101);
    assert!(store.opened().rebuilt.is_some());
    assert_eq!(state(&store), *expected);
    drop(store);
    assert_eq!(Snapshot::open(dir).unwrap().findings(), []);
}

#[test]
fn dead_bytes_are_given_back_and_the_state_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 101);
    (0..500).for_each(|n| commit(&store, n));
    let expected = state(&store);
    drop(store);
    let store = open(dir.path(), 101);
    let before = store.stats();
    assert!(before.dead_bytes * 100 / before.bytes > 60, "{before:?}");
    assert_eq!(
        store.compact().unwrap().files,
        0,
        "above 100 percent nothing is due"
    );
    drop(store);
    let store = open(dir.path(), 50);
    let done = store.compact().unwrap();
    let after = store.stats();
    // The thread of the store may have been first.
    assert!(done.after <= done.before);
    assert!(after.bytes * 2 < before.bytes, "{before:?} {after:?}");
    assert!(after.segments < before.segments);
    assert!(after.dead_bytes * 2 < after.bytes, "{after:?}");
    commit(&store, 500);
    let mut expected = expected;
    expected.0 = state(&store).0;
    expected.1 = state(&store).1;
    assert_eq!(expected.1.len(), 502);
    check(dir.path(), store, &expected);
}

#[test]
fn compacting_twice_and_more_keeps_heads_and_order() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let store = open(dir.path(), 30);
        (round * 100..round * 100 + 100).for_each(|n| commit(&store, n));
        let mut batch = Batch::new("s", None);
        for n in (round * 100..round * 100 + 90).step_by(2) {
            batch.delete(key(&format!("stays {n:05}")));
        }
        store.commit(&batch).unwrap();
        let expected = state(&store);
        store.compact().unwrap();
        check(dir.path(), store, &expected);
    }
    assert!(!kept_files(dir.path()).is_empty());
}

#[test]
fn a_key_that_was_deleted_does_not_come_back_when_its_deletion_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 101);
    let mut batch = Batch::new("s", None);
    // The first segment stays as it is: little of it dies.
    batch.put(key("deleted"), vec![1; 300]);
    batch.put(key("alive"), vec![2; 16_000]);
    store.commit(&batch).unwrap();
    (0..30).for_each(|n| commit(&store, n));
    let mut batch = Batch::new("s", None);
    batch.delete(key("deleted"));
    store.commit(&batch).unwrap();
    (30..90).for_each(|n| commit(&store, n));
    let expected = state(&store);
    drop(store);
    let store = open(dir.path(), 50);
    store.compact().unwrap();
    assert!(dir.path().join("segments/00000001.seg").exists());
    assert!(!dir.path().join("segments/00000002.seg").exists());
    assert_eq!(store.get(&key("deleted")).unwrap(), None);
    check(dir.path(), store, &expected);
}

#[test]
fn an_erased_body_is_in_no_file_before_and_after_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 101);
    let secret = |n: u32| format!("SECRET-{n:05}-").into_bytes();
    for n in 0..200 {
        let mut batch = Batch::new("s", None);
        batch.put_body(key(&format!("body {n}")), secret(n).repeat(20));
        if n % 4 != 0 {
            batch.delete(key(&format!("body {}", n.saturating_sub(1))));
        }
        store.commit(&batch).unwrap();
    }
    let alive = |n: u32| n % 4 == 3 || n == 199;
    let expected = state(&store);
    for n in 0..200 {
        assert_eq!(holds(dir.path(), &secret(n)), alive(n), "{n}");
    }
    drop(store);
    let store = open(dir.path(), 50);
    store.compact().unwrap();
    assert!(!kept_files(dir.path()).is_empty());
    for n in 0..200 {
        assert_eq!(
            holds(dir.path(), &secret(n)),
            alive(n),
            "{n} after compaction"
        );
    }
    // A body that moved is erased at its new place.
    let mut batch = Batch::new("s", None);
    batch
        .delete(key("body 3"))
        .put_body(key("body 7"), b"other".to_vec());
    store.commit(&batch).unwrap();
    assert!(!holds(dir.path(), &secret(3)) && !holds(dir.path(), &secret(7)));
    let mut expected = expected;
    expected.0[0].1 += 1;
    expected.1.retain(|(rest, _)| rest != b"body 3");
    let seven = expected.1.iter_mut().find(|(rest, _)| rest == b"body 7");
    seven.unwrap().1 = b"other".to_vec();
    check(dir.path(), store, &expected);
}

#[test]
fn commits_go_on_during_compaction_and_what_they_erase_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 20);
    let secret = |n: u32, of: u32| format!("SECRET-{of}-{n:05}-").into_bytes();
    let segments = dir.path().join("segments");
    let done = AtomicBool::new(false);
    let rounds = 400;
    std::thread::scope(|scope| {
        let (store, done, segments) = (&store, &done, &segments);
        let compacting = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        let reading = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for shard in ["0", "1"] {
                    let rows = store.scan(shard, "t", b"", usize::MAX).unwrap();
                    assert!(rows.iter().all(|(_, value)| value.starts_with(b"SECRET")));
                    assert!(rows.len() <= 41, "{}", rows.len());
                }
            }
        });
        let writing: Vec<_> = (0..2)
            .map(|of| {
                scope.spawn(move || {
                    let shard = of.to_string();
                    let key = |n: u32| Key::new(&shard, "t", &n.to_be_bytes()).unwrap();
                    for n in 0..rounds {
                        let mut batch = Batch::new(shard.as_str(), None);
                        batch.put_body(key(n), secret(n, of).repeat(40));
                        if n >= 40 {
                            batch.delete(key(n - 40));
                        }
                        store.commit(&batch).unwrap();
                        if n >= 40 && n % 4 == 0 {
                            // At once, whatever compaction is doing.
                            let gone = secret(n - 40, of);
                            assert!(!holds(segments, &gone), "{of} {n}");
                        }
                    }
                })
            })
            .collect();
        let written: Vec<_> = writing.into_iter().map(|thread| thread.join()).collect();
        // Before anything fails, or the other threads would never end.
        done.store(true, Ordering::Relaxed);
        assert!(written.iter().all(|result| result.is_ok()));
        compacting.join().unwrap();
        reading.join().unwrap();
    });
    let bytes = |path: &Path| fs::read(path).unwrap();
    let files: Vec<Vec<u8>> = fs::read_dir(dir.path().join("segments"))
        .unwrap()
        .map(|entry| bytes(&entry.unwrap().path()))
        .collect();
    for of in 0..2 {
        for n in 0..rounds {
            let needle = secret(n, of);
            let found = files
                .iter()
                .any(|b| b.windows(needle.len()).any(|w| w == needle));
            assert_eq!(found, n >= rounds - 40, "{of} {n}");
        }
    }
    assert!(!kept_files(dir.path()).is_empty());
    let expected = state(&store);
    check(dir.path(), store, &expected);
}

#[test]
fn an_index_from_before_a_compaction_is_brought_up_to_date_or_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    };
    let index = dir.path().join("index");
    let mut copies = Vec::new();
    for round in 0..4 {
        let store = open(dir.path(), 101);
        (round * 60..round * 60 + 60).for_each(|n| commit(&store, n));
        drop(store);
        let to = older.path().join(round.to_string());
        copy(&index, &to);
        copies.push(to);
    }
    let store = open(dir.path(), 50);
    store.compact().unwrap();
    commit(&store, 999);
    let expected = state(&store);
    drop(store);
    let mut rebuilt = 0;
    for copied in &copies {
        copy(copied, &index);
        let store = open(dir.path(), 101);
        rebuilt += u32::from(store.opened().rebuilt.is_some());
        assert_eq!(state(&store), expected);
        drop(store);
        assert_eq!(*open(dir.path(), 101).opened(), Default::default());
    }
    assert_eq!(rebuilt, 3, "the last copy knows all that was compacted");
}

#[test]
fn no_file_is_taken_from_a_verification() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 101);
    (0..200).for_each(|n| commit(&store, n));
    let expected = state(&store);
    drop(store);
    let snapshot = Snapshot::open(dir.path()).unwrap();
    let store = open(dir.path(), 50);
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| store.compact().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(state(&snapshot), expected);
        assert_eq!(kept_files(dir.path()), [] as [std::path::PathBuf; 0]);
        drop(snapshot);
        compacting.join().unwrap();
    });
    assert!(!kept_files(dir.path()).is_empty());
    check(dir.path(), store, &expected);
}

#[test]
fn damage_in_a_compacted_file_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 101);
    for n in 0..60 {
        commit(&store, n);
        let mut batch = Batch::new("s", None);
        batch.put_body(key(&format!("body {n}")), vec![7; 30]);
        store.commit(&batch).unwrap();
    }
    drop(store);
    let store = open(dir.path(), 50);
    store.compact().unwrap();
    let mut batch = Batch::new("s", None);
    batch.delete(key("body 1"));
    store.commit(&batch).unwrap();
    drop(store);
    let [file] = &kept_files(dir.path())[..] else {
        panic!("one file");
    };
    let whole = fs::read(file).unwrap();
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
    // Every byte, one bit of each; `flip.rs` flips all bits of plain segments.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(file, &bytes).unwrap();
        let snapshot = Snapshot::open(dir.path()).unwrap();
        assert!(
            snapshot
                .findings()
                .iter()
                .any(|finding| finding.file() == file),
            "{at}"
        );
    }
    fs::write(file, &whole[..whole.len() - 1]).unwrap();
    assert_ne!(Snapshot::open(dir.path()).unwrap().findings(), []);
    fs::remove_file(file).unwrap();
    assert!(Embedded::open(dir.path(), options(101)).is_err());
    assert_ne!(Snapshot::open(dir.path()).unwrap().findings(), []);
}
