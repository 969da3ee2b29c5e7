//! Every bit of every segment file is under a checksum: each one flipped is found and named.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::path::Path;

use store::embedded::{Embedded, Options};
use store::{Batch, Key, Seen, Snapshot, Store, scan_segments};

fn key(rest: &str) -> Key {
    Key::new("s", "t", rest.as_bytes()).unwrap()
}

/// Two segments with every kind of frame: put, body, erased body, delete, erase.
fn build(dir: &Path) {
    let options = Options {
        segment_bytes: 4096,
        ..Options::default()
    };
    let store = Embedded::open(dir, options).unwrap();
    let mut batch = Batch::new("s", None);
    batch.put(key("plain"), vec![1; 20]);
    batch.put_body(key("gone"), vec![2; 20]);
    batch.put_body(key("body"), vec![3; 20]);
    store.commit(&batch).unwrap();
    let mut batch = Batch::new("s", None);
    batch.put(key("filler"), vec![4; 3900]);
    store.commit(&batch).unwrap();
    let mut batch = Batch::new("s", None);
    batch.delete(key("gone")).delete(key("plain"));
    store.commit(&batch).unwrap();
}

#[test]
fn any_flipped_bit_is_found_and_its_file_named() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let mut kinds = [0; 3];
    let snapshot = scan_segments(dir.path(), &mut |seen| match seen {
        Seen::Group { .. } => kinds[0] += 1,
        Seen::Frame { .. } => kinds[1] += 1,
        Seen::Finding(_) => kinds[2] += 1,
    });
    assert_eq!(snapshot.unwrap().stats().segments, 2);
    assert_eq!(kinds, [3, 6, 0]);
    for number in [1, 2] {
        let path = dir.path().join(format!("segments/{number:08}.seg"));
        let mut bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let snapshot = Snapshot::open(dir.path()).unwrap();
            let named = snapshot.findings().iter().any(|f| f.file() == path);
            assert!(named, "bit {bit} of {}", path.display());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(Snapshot::open(dir.path()).unwrap().findings_count(), 0);
}
