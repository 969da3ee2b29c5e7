//! A disk without room: nothing is written, and the store goes on when there is room.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::path::Path;
use std::process::Command;

use store::embedded::{Embedded, Options};
use store::{Batch, CommitError, Key, Snapshot, Store};

const DIR: &str = "STORE_FULL_DIR";
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
