//! A disk without room: nothing is written, and the store goes on when there is room.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::path::Path;
use std::process::Command;

use store::embedded::{Embedded, Options};
use store::{Batch, CommitError, Key, OpenError, Snapshot, Store};

const DIR: &str = "STORE_FULL_DIR";
const REBUILD: &str = "STORE_FULL_REBUILD_DIR";
/// More than an index of 1 MiB holds.
const KEYS: u64 = 60_000;
/// What the shell lets a file grow to: 8,192 blocks of 1,024 bytes.
const BLOCKS: &str = "8192";

fn key(n: u64) -> Key {
    Key::new("s", "t", &n.to_be_bytes()).unwrap()
}

/// Does nothing unless the test below starts it under a limit on the size of files.
#[test]
fn a_child_meets_the_limit_and_goes_on() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = Embedded::open(Path::new(&dir), Options::default()).unwrap();
    let commit = |n: u64, bytes: usize| {
        let mut batch = Batch::new("s", Some(n));
        batch.put(key(n), vec![n as u8; bytes]);
        store.commit(&batch)
    };
    commit(0, 5 << 20).unwrap();
    for _ in 0..2 {
        match commit(1, 5 << 20) {
            Err(error @ CommitError::Full { .. }) => assert!(error.is_refusal()),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.head("s").unwrap(), 1);
        assert_eq!(store.get(&key(1)).unwrap(), None);
        assert!(!store.stats().stopped);
    }
    assert_eq!(commit(1, 1 << 20).unwrap(), 2);
    println!("went on");
}

/// Does nothing unless the test below starts it under a limit on the size of files.
#[test]
fn a_child_opens_without_room_for_the_index() {
    let Some(dir) = std::env::var_os(REBUILD) else {
        return;
    };
    match Embedded::open(Path::new(&dir), Options::default()) {
        Err(error @ OpenError::Full { .. }) => println!("said: {error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => println!("opened"),
    }
}

/// Opens a store in a process whose files may grow to so many blocks of 1,024 bytes.
fn open_under(limit: &str, dir: &Path) -> String {
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_child_opens_without_room_for_the_index",
            "--nocapture",
        ])
        .env(REBUILD, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn a_start_without_room_for_the_index_says_so_loses_nothing_and_goes_on_with_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    for n in 0..KEYS / 1_000 {
        let mut batch = Batch::new("s", Some(n));
        for at in 0..1_000 {
            // Spread, so that the index cannot shorten them.
            let n: u64 = n * 1_000 + at;
            batch.put(key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), vec![7; 8]);
        }
        store.commit(&batch).unwrap();
    }
    store.close().unwrap();
    let segments = || {
        let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let read = |path| (std::fs::read(&path).unwrap(), path);
        files.into_iter().map(read).collect::<Vec<_>>()
    };
    let before = segments();
    let db = dir.path().join("index/db");
    let len = std::fs::metadata(&db).unwrap().len();
    std::fs::write(&db, vec![0x5a; len as usize]).unwrap();
    std::fs::write(dir.path().join("index/conf"), b"garbage").unwrap();
    // Too little to begin an index, and too little to finish it.
    for limit in ["16", "16", "1024", "1024", "1024"] {
        let said = open_under(limit, dir.path());
        assert!(said.contains("nothing is lost"), "{limit}: {said}");
        let names = std::fs::read_dir(dir.path()).unwrap();
        let aside = names.filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("index.damaged")
        });
        assert!(aside.count() <= 1);
        assert!(segments() == before);
    }
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.head("s").unwrap(), KEYS / 1_000);
    let rows = store.scan("s", "t", &[], KEYS as usize + 1).unwrap();
    assert_eq!(rows.len() as u64, KEYS);
}

#[test]
fn without_room_nothing_is_written_and_a_smaller_batch_still_fits() {
    let dir = tempfile::tempdir().unwrap();
    // Ignoring the signal makes the system answer with an error instead.
    let script = format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$0\" \"$@\"");
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_child_meets_the_limit_and_goes_on",
            "--nocapture",
        ])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("went on"), "{text}\n{errors}");
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.head("s").unwrap(), 2);
    assert_eq!(store.get(&key(1)).unwrap(), Some(vec![1; 1 << 20]));
}
