//! The embedded engine: the suite, and what power cuts, damage and a second process do to it.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use store::embedded::{Embedded, Options};
use store::{Batch, CommitError, Finding, Key, OpenError, ReadError, Row, Snapshot, Store, suite};

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Options::default()).unwrap()
}

/// Small segments and frequent checkpoints, so that a few batches meet both.
fn small() -> Options {
    Options {
        segment_bytes: 4096,
        checkpoint_bytes: 10_000,
        ..Options::default()
    }
}

fn key(rest: &str) -> Key {
    Key::new("s", "t", rest.as_bytes()).unwrap()
}

fn segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("segments/{number:08}.seg"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

type State = (u64, Vec<Row>);

fn state(store: &dyn Store) -> State {
    let rows = store.scan("s", "t", b"", usize::MAX).unwrap();
    (store.head("s").unwrap(), rows)
}

/// Commits one batch of each kind of write; `n` makes it different.
fn commit(store: &dyn Store, n: u8) {
    let mut batch = Batch::new("s", None);
    batch.put(key(&format!("plain {n}")), vec![n; 40]);
    batch.put(key("last"), vec![n]);
    batch.put_body(key(&format!("body {n}")), vec![n; 60]);
    if n > 1 {
        batch.delete(key(&format!("body {}", n - 1)));
    }
    store.commit(&batch).unwrap();
}

#[test]
fn the_suite_holds_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    suite::run(&mut || Box::new(open(dir.path())));
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
}

#[test]
fn the_suite_holds_with_small_segments_and_an_index_lost_at_every_opening() {
    let dir = tempfile::tempdir().unwrap();
    suite::run(&mut || {
        let _ = fs::remove_dir_all(dir.path().join("index"));
        Box::new(Embedded::open(dir.path(), small()).unwrap())
    });
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
    assert!(segment(dir.path(), 10).exists());
}

#[test]
fn a_last_group_cut_at_any_byte_leaves_exactly_the_state_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (live, image, cut) = (
        dir.path().join("live"),
        dir.path().join("image"),
        dir.path().join("cut"),
    );
    let store = open(&live);
    (1..=3).for_each(|n| commit(&store, n));
    let before = state(&store);
    store.close().unwrap();
    copy(&live, &image);
    let start = fs::metadata(segment(&live, 1)).unwrap().len();
    let store = open(&live);
    commit(&store, 4);
    let after = state(&store);
    drop(store);
    let bytes = fs::read(segment(&live, 1)).unwrap();
    // The erasure of `body 3` lies before `start` and has happened; the batch that announced it
    // is cut, so the image keeps the older bytes there, as a power cut before the erasure would.
    let old = fs::read(segment(&image, 1)).unwrap();
    for end in start as usize..=bytes.len() {
        for with_index in [true, false] {
            let _ = fs::remove_dir_all(&cut);
            copy(&image, &cut);
            if !with_index {
                fs::remove_dir_all(cut.join("index")).unwrap();
            }
            let torn = [&old, &bytes[start as usize..end]].concat();
            fs::write(segment(&cut, 1), torn).unwrap();
            let found = Snapshot::open(&cut).unwrap();
            let whole = end == bytes.len();
            let torn = end > start as usize && !whole;
            let unfinished = |f: &Finding| matches!(f, Finding::Unfinished { .. });
            assert_eq!(found.findings().iter().any(unfinished), torn, "{end}");
            let store = open(&cut);
            assert_eq!(
                state(&store),
                *if whole { &after } else { &before },
                "{end}"
            );
            assert_eq!(store.opened().cut.is_some(), torn, "{end}");
            if let Some(cut) = &store.opened().cut {
                let saved = fs::read(&cut.saved).unwrap();
                assert_eq!(saved, bytes[start as usize..end]);
            }
            commit(&store, 9);
            drop(store);
            assert_eq!(Snapshot::open(&cut).unwrap().findings(), [], "{end}");
        }
    }
}

#[test]
fn a_last_group_whose_blocks_never_reached_the_disk_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, 1);
    store.close().unwrap();
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    let store = open(dir.path());
    let before = state(&store);
    let start = fs::metadata(segment(dir.path(), 1)).unwrap().len() as usize;
    let mut batch = Batch::new("s", None);
    batch.put(key("new"), vec![5; 100]);
    store.commit(&batch).unwrap();
    drop(store);
    let mut bytes = fs::read(segment(dir.path(), 1)).unwrap();
    for from in [start, start + 60] {
        bytes[from..].fill(0);
        fs::write(segment(image.path(), 1), &bytes).unwrap();
        let store = open(image.path());
        assert_eq!(state(&store), before);
        assert!(store.opened().cut.is_some());
        drop(store);
    }
}

#[test]
fn a_lost_or_broken_index_is_rebuilt_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), small()).unwrap();
    (1..=60).for_each(|n| commit(&store, n));
    let expected = state(&store);
    store.close().unwrap();
    let index = dir.path().join("index");
    type Harm<'a> = &'a dyn Fn();
    let lose: Harm<'_> = &|| fs::remove_dir_all(&index).unwrap();
    let overwrite: Harm<'_> = &|| {
        let len = fs::metadata(index.join("db")).unwrap().len();
        fs::write(index.join("db"), vec![0x5a; len as usize]).unwrap();
        fs::write(index.join("conf"), b"garbage").unwrap();
    };
    let empty: Harm<'_> = &|| {
        fs::remove_dir_all(&index).unwrap();
        fs::create_dir(&index).unwrap();
    };
    let suspect: Harm<'_> = &|| fs::write(dir.path().join("index.suspect"), b"").unwrap();
    for (name, harm) in [
        ("lose", lose),
        ("overwrite", overwrite),
        ("empty", empty),
        ("suspect", suspect),
    ] {
        harm();
        let store = Embedded::open(dir.path(), small()).unwrap();
        assert!(store.opened().rebuilt.is_some(), "{name}");
        assert_eq!(state(&store), expected, "{name}");
        drop(store);
        let store = Embedded::open(dir.path(), small()).unwrap();
        assert_eq!(*store.opened(), Default::default(), "{name}");
        assert_eq!(state(&store), expected, "{name}");
    }
    assert!(dir.path().join("index.damaged-1").exists());
}

#[test]
fn damage_in_the_middle_is_named_and_never_read_as_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (1..=3).for_each(|n| commit(&store, n));
    store.close().unwrap();
    let (file, offset) = {
        let snapshot = Snapshot::open(dir.path()).unwrap();
        snapshot.place(&key("plain 2")).unwrap()
    };
    let mut bytes = fs::read(&file).unwrap();
    bytes[offset as usize + 30] ^= 4;
    fs::write(&file, &bytes).unwrap();

    // The index is at the end, so opening does not come by.
    let store = open(dir.path());
    let named = |f: &Path, o: u64| f == file && o == offset;
    match store.get(&key("plain 2")) {
        Err(ReadError::Damaged { file, offset, .. }) => assert!(named(&file, offset)),
        other => panic!("{other:?}"),
    }
    assert!(store.scan("s", "t", b"", 99).is_err());
    assert_eq!(store.get(&key("plain 3")).unwrap(), Some(vec![3; 40]));
    drop(store);

    let snapshot = Snapshot::open(dir.path()).unwrap();
    match snapshot.findings() {
        [
            Finding::Damaged {
                file,
                offset,
                key: Some(found),
                ..
            },
        ] => {
            assert!(named(file, *offset));
            assert_eq!(*found, key("plain 2"));
        }
        other => panic!("{other:?}"),
    }
    assert!(snapshot.get(&key("plain 2")).is_err());
    assert_eq!(snapshot.get(&key("plain 3")).unwrap(), Some(vec![3; 40]));

    // A rebuild does come by.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    match Embedded::open(dir.path(), Options::default()) {
        Err(OpenError::Damaged { file, offset, .. }) => assert!(named(&file, offset)),
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(fs::read(&file).unwrap(), bytes, "nothing was cut");
}

#[test]
fn acknowledged_groups_that_are_gone_or_damaged_are_never_cut_silently() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (1..=3).for_each(|n| commit(&store, n));
    store.close().unwrap();
    let file = segment(dir.path(), 1);
    let bytes = fs::read(&file).unwrap();
    for shorter in [1, 100, bytes.len() - 16, bytes.len() - 5, bytes.len()] {
        fs::write(&file, &bytes[..bytes.len() - shorter]).unwrap();
        match Embedded::open(dir.path(), Options::default()) {
            Err(OpenError::Damaged { file: named, .. }) => assert_eq!(named, file),
            other => panic!("{shorter}: {:?}", other.err()),
        }
    }
    fs::remove_file(&file).unwrap();
    match Embedded::open(dir.path(), Options::default()) {
        Err(OpenError::Damaged { file: named, .. }) => assert_eq!(named, file),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), small()).unwrap();
    (1..=60).for_each(|n| commit(&store, n));
    assert!(store.stats().segments > 3);
    store.close().unwrap();
    fs::remove_file(segment(dir.path(), 2)).unwrap();
    match Embedded::open(dir.path(), small()) {
        Err(OpenError::Damaged { file, .. }) => assert_eq!(file, segment(dir.path(), 2)),
        other => panic!("{:?}", other.err()),
    }
    let snapshot = Snapshot::open(dir.path()).unwrap();
    assert_eq!(snapshot.findings()[0].file(), segment(dir.path(), 2));
}

#[test]
fn a_segment_of_a_later_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = segment(dir.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4] = 2;
    let crc = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    fs::write(&file, bytes).unwrap();
    let opened = Embedded::open(dir.path(), Options::default());
    assert!(matches!(
        opened,
        Err(OpenError::Unsupported { version: 2, .. })
    ));
}

#[test]
fn a_second_opening_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let here = format!("process {}", std::process::id());
    match Embedded::open(dir.path(), Options::default()) {
        Err(locked @ OpenError::Locked { .. }) => {
            let told = locked.to_string();
            let (chinese, english) = told.split_once(" / ").unwrap();
            assert!(
                chinese.contains("占用") && chinese.contains("请先停止"),
                "{told}"
            );
            assert!(
                english.contains(&here) && english.contains("in use by"),
                "{told}"
            );
        }
        other => panic!("{:?}", other.err()),
    }
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn a_deleted_or_replaced_body_is_nowhere_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let secrets = [&b"SECRET-ONE"[..], b"SECRET-TWO", b"SECRET-THREE"];
    let mut batch = Batch::new("s", None);
    batch.put_body(key("deleted"), secrets[0].to_vec());
    batch.put_body(key("replaced"), secrets[1].to_vec());
    batch.put_body(key("kept"), secrets[2].to_vec());
    store.commit(&batch).unwrap();
    let mut batch = Batch::new("s", None);
    batch.delete(key("deleted"));
    batch.put(key("replaced"), b"other".to_vec());
    store.commit(&batch).unwrap();
    // Before closing: the commit itself has overwritten them.
    let holds = |secret: &[u8]| holds(dir.path(), secret);
    assert_eq!(secrets.map(holds), [false, false, true]);
    assert_eq!(store.get(&key("deleted")).unwrap(), None);
    assert_eq!(store.get(&key("kept")).unwrap().unwrap(), secrets[2]);
    drop(store);
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.get(&key("replaced")).unwrap().unwrap(), b"other");
    assert_eq!(store.get(&key("deleted")).unwrap(), None);
}

#[test]
fn an_erasure_interrupted_at_any_byte_is_finished_by_opening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut batch = Batch::new("s", None);
    batch.put_body(key("body"), b"SECRET".to_vec());
    store.commit(&batch).unwrap();
    drop(store);
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    let before = fs::read(segment(dir.path(), 1)).unwrap();
    let store = open(dir.path());
    let mut batch = Batch::new("s", None);
    batch.delete(key("body"));
    store.commit(&batch).unwrap();
    drop(store);
    let after = fs::read(segment(dir.path(), 1)).unwrap();
    assert!(holds(image.path(), b"SECRET") && !holds(dir.path(), b"SECRET"));
    for done in 0..=before.len() {
        for with_index in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            copy(image.path(), dir.path());
            if !with_index {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            let half = [&after[..done], &before[done..], &after[before.len()..]].concat();
            fs::write(segment(dir.path(), 1), &half).unwrap();
            let findings = Snapshot::open(dir.path()).unwrap().findings().to_vec();
            let not_erased = |f: &Finding| matches!(f, Finding::NotErased { .. });
            assert!(findings.iter().all(not_erased), "{done} {findings:?}");
            assert_eq!(findings.is_empty(), half == after, "{done}");
            let store = open(dir.path());
            assert_eq!(store.get(&key("body")).unwrap(), None);
            drop(store);
            assert_eq!(fs::read(segment(dir.path(), 1)).unwrap(), after, "{done}");
        }
    }
}

#[test]
fn readers_beside_a_writer_that_replaces_bodies_never_see_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let keys: Vec<Key> = (0..20).map(|n| key(&format!("{n:02}"))).collect();
    let write = |n: u8| {
        let mut batch = Batch::new("s", None);
        for key in &keys {
            batch.put_body(key.clone(), vec![n; 500]);
        }
        store.commit(&batch).unwrap();
    };
    write(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when a check fails: the scope waits for its threads.
        scopeguard::defer!(done.store(true, std::sync::atomic::Ordering::Relaxed));
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let values = store.get_many(&keys).unwrap();
                    assert!(values.iter().flatten().all(|value| value.len() == 500));
                    assert_eq!(values.iter().flatten().count(), keys.len());
                    assert_eq!(store.scan("s", "t", b"", 99).unwrap().len(), keys.len());
                }
            });
        }
        (1..100).for_each(write);
    });
}

#[test]
fn a_snapshot_reads_like_the_store_and_takes_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), small()).unwrap();
    (1..=60).for_each(|n| commit(&store, n));
    // The store is still open: no lock is needed.
    let snapshot = Snapshot::open(dir.path()).unwrap();
    assert_eq!(snapshot.findings(), []);
    assert_eq!(state(&snapshot), state(&store));
    assert_eq!(snapshot.shards().unwrap(), store.shards().unwrap());
    assert_eq!(snapshot.stats().bytes, store.stats().bytes);
    let refused = snapshot.commit(&Batch::new("s", None));
    assert!(matches!(refused, Err(CommitError::ReadOnly)));
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4 << 30,
        ..Options::default()
    };
    let opened = Embedded::open(dir.path(), options);
    assert!(matches!(opened, Err(OpenError::Option { .. })));
}

/// Whether any file below `dir` holds these bytes.
fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, needle),
            false => fs::read(path)
                .unwrap()
                .windows(needle.len())
                .any(|window| window == needle),
        }
    })
}
