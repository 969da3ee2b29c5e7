//! Verifying beside a store that is in use: what it erases, writes and compacts meanwhile is no
//! fault, and a fault is still one.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use store::embedded::{Embedded, Options};
use store::{Batch, Finding, Key, Seen, Snapshot, Store, scan_segments};

/// A body is longer than what a scan reads in one go.
const LARGE: usize = 300 << 10;

fn open(dir: &Path, segment_bytes: u64) -> Embedded {
    let options = Options {
        segment_bytes,
        checkpoint_bytes: 64 << 10,
        compact_percent: 30,
        ..Options::default()
    };
    Embedded::open(dir, options).unwrap()
}

fn key(n: u64) -> Key {
    Key::new("s", "body", &n.to_be_bytes()).unwrap()
}

fn put(store: &dyn Store, n: u64, body: Vec<u8>) {
    let mut batch = Batch::new("s", None);
    batch.put_body(key(n), body);
    store.commit(&batch).unwrap();
}

fn erase(store: &dyn Store, n: u64) {
    let mut batch = Batch::new("s", None);
    batch.delete(key(n));
    store.commit(&batch).unwrap();
}

/// Scans, and does something as soon as the first group is shown.
fn scanned(dir: &Path, meanwhile: impl FnOnce() + Send) -> Snapshot {
    let mut meanwhile = Some(meanwhile);
    scan_segments(dir, &mut |seen| {
        if let (Seen::Group { .. }, Some(meanwhile)) = (seen, meanwhile.take()) {
            meanwhile();
        }
    })
    .unwrap()
}

/// Scans as beside a store that has the lock, and that does something once the first group was read.
fn scanned_in_use(dir: &Path, meanwhile: impl FnOnce() + Send) -> Snapshot {
    let lock = fs::File::open(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let (read, was_read) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A scan that fails before has nobody to tell.
            if was_read.recv().is_ok() {
                meanwhile();
            }
        });
        scanned(dir, move || read.send(()).unwrap())
    })
}

fn write_at(path: &Path, bytes: &[u8], at: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn bodies_erased_while_they_are_read_are_no_fault_and_are_gone() {
    // All in one file; each in a file of its own, of which later ones begin meanwhile.
    for segment_bytes in [64 << 20, LARGE as u64] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), segment_bytes);
        (0..6).for_each(|n| put(&store, n, vec![n as u8; LARGE]));
        let snapshot = scanned(dir.path(), || {
            // One that was read, one that was not, and one that comes after both.
            [0, 4].into_iter().for_each(|n| erase(&store, n));
            put(&store, 6, vec![6; LARGE]);
            erase(&store, 6);
        });
        assert_eq!(snapshot.findings(), []);
        let bodies = snapshot
            .get_many(&(0..7).map(key).collect::<Vec<_>>())
            .unwrap();
        let there: Vec<bool> = bodies.iter().map(Option::is_some).collect();
        assert_eq!(there, [false, true, true, true, false, true, false]);
        // And one that is erased after the scan.
        erase(&store, 2);
        assert_eq!(snapshot.get(&key(2)).unwrap(), None);
        assert_eq!(snapshot.get(&key(3)).unwrap(), Some(vec![3; LARGE]));
    }
}

#[test]
fn rows_written_since_a_snapshot_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 << 10);
    let row = |table: &str, n: u8| {
        let mut batch = Batch::new("s", None);
        batch.put(Key::new("s", table, &[n % 2]).unwrap(), vec![n; 3000]);
        store.commit(&batch).unwrap();
    };
    row("moved", 1);
    let snapshot = Snapshot::open(dir.path()).unwrap();
    assert_eq!(snapshot.rows_since("s", "moved").unwrap(), []);
    (2..6).for_each(|n| row("moved", n));
    row("other", 6);
    let expected = [(vec![0], vec![4; 3000]), (vec![1], vec![5; 3000])];
    assert_eq!(snapshot.rows_since("s", "moved").unwrap(), expected);
    assert_eq!(snapshot.rows_since("t", "moved").unwrap(), []);
}

/// The last segment, with a body of a group before its last put back as it was before the last
/// group erased it; and the bytes that erase it.
fn half_done(dir: &Path) -> (PathBuf, u64, Vec<u8>) {
    let store = open(dir, 64 << 20);
    put(&store, 0, vec![0; 100]);
    put(&store, 1, vec![7; 100]);
    let path = dir.join("segments/00000001.seg");
    let before = fs::read(&path).unwrap();
    erase(&store, 1);
    drop(store);
    let after = fs::read(&path).unwrap();
    let at = (0..before.len())
        .find(|&at| before[at] != after[at])
        .unwrap();
    write_at(&path, &before[at..], at as u64);
    (path, at as u64, after[at..before.len()].to_vec())
}

#[test]
fn an_erasure_that_is_done_by_the_end_of_the_scan_was_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (path, at, erased) = half_done(dir.path());
    let write = || write_at(&path, &erased, at);
    let not_erased = Snapshot::open(dir.path()).unwrap();
    assert!(matches!(not_erased.findings(), [Finding::NotErased { .. }]));
    drop(not_erased);
    // The one piece was read when its first group is shown.
    assert_eq!(scanned(dir.path(), write).findings(), []);
}

#[test]
fn an_erasure_that_a_store_in_use_has_announced_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (path, at, erased) = half_done(dir.path());
    let snapshot = scanned_in_use(dir.path(), || {
        // As it is written: not at once.
        for (offset, byte) in (at..).zip(&erased) {
            write_at(&path, &[*byte], offset);
        }
    });
    assert_eq!(snapshot.findings(), []);
}

/// The last segment of a store whose last group is not written to its end, and how long the file is
/// without it and with a part of it; and all its bytes.
fn half_written(dir: &Path) -> (PathBuf, [u64; 2], Vec<u8>) {
    let store = open(dir, 64 << 20);
    put(&store, 0, vec![0; 100]);
    let path = dir.join("segments/00000001.seg");
    let before = fs::metadata(&path).unwrap().len();
    put(&store, 1, vec![7; 100]);
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let cut = before + 60;
    truncate(&path, cut);
    (path, [before, cut], bytes)
}

fn truncate(path: &Path, len: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[test]
fn a_group_that_a_store_in_use_is_writing_is_waited_for() {
    // Written to its end, or cut off because that failed.
    for fails in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, [before, cut], bytes) = half_written(dir.path());
        let unfinished = Finding::Unfinished {
            file: path.clone(),
            offset: before,
            bytes: cut - before,
        };
        assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), [unfinished]);
        let snapshot = scanned_in_use(dir.path(), || {
            std::thread::sleep(Duration::from_millis(30));
            match fails {
                true => truncate(&path, before),
                false => write_at(&path, &bytes[cut as usize..], cut),
            }
        });
        assert_eq!(snapshot.findings(), []);
        // It shows the moment when it began.
        assert_eq!(snapshot.get(&key(1)).unwrap(), None);
    }
}

#[test]
fn a_file_that_ends_in_its_header_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ..) = half_written(dir.path());
    truncate(&path, 9);
    let unfinished = Finding::Unfinished {
        file: path,
        offset: 0,
        bytes: 9,
    };
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), [unfinished]);
}

#[test]
fn beside_a_store_that_erases_and_compacts_only_a_flipped_byte_is_found() {
    const KEPT: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 32 << 10);
    let body = |n: u64| vec![n as u8; 700];
    (KEPT..KEPT + 20).for_each(|n| put(&store, n, body(n)));
    let (ended, scans) = (AtomicBool::new(false), 60);
    let commits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Also when a check fails: the scope waits for its threads.
        scopeguard::defer!(ended.store(true, Ordering::SeqCst));
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !ended.load(Ordering::SeqCst) {
                // The same few bodies over and over: each commit erases those before.
                let mut batch = Batch::new("s", None);
                for n in 0..8 {
                    batch.put_body(key((written + n) % 32), body(written));
                }
                store.commit(&batch).unwrap();
                written += 1;
                commits.store(written, Ordering::SeqCst);
            }
        });
        // Nothing is scanned twice without a commit between.
        let one_more = || {
            let before = commits.load(Ordering::SeqCst);
            while commits.load(Ordering::SeqCst) == before {
                assert!(!writer.is_finished(), "the writer goes on");
                std::thread::yield_now();
            }
        };
        for scan in 0..scans {
            one_more();
            let snapshot = Snapshot::open(dir.path()).unwrap();
            assert_eq!(snapshot.findings(), [], "scan {scan}");
            let rows = snapshot.scan("s", "body", &[], usize::MAX).unwrap();
            let kept = rows
                .iter()
                .filter(|(rest, _)| rest[..] >= KEPT.to_be_bytes()[..]);
            assert_eq!(kept.count(), 20, "scan {scan}");
        }
        // A byte of a body that nobody erases is another. Where compaction had copied it before, the
        // whole copy takes the place of the damaged file, and is damaged in its turn.
        let flipped = key(KEPT + 7);
        let mut damaged = None;
        for scan in 0..scans {
            one_more();
            let snapshot = Snapshot::open(dir.path()).unwrap();
            let (path, offset) = snapshot.place(&flipped).unwrap();
            if damaged.replace((path.clone(), offset)) != Some((path.clone(), offset)) {
                assert_eq!(snapshot.findings(), [], "scan {scan}");
                write_at(&path, &[0xff], offset + 100);
                continue;
            }
            let found: Vec<_> = snapshot.findings().iter().map(Finding::offset).collect();
            assert_eq!(found, [offset], "scan {scan}: {:?}", snapshot.findings());
            assert_eq!(snapshot.findings()[0].file(), path);
            assert!(snapshot.get(&flipped).is_err());
        }
    });
}
