//! The example of `docs/formats/store.md` is what the engine writes, byte for byte.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fmt::Write;
use std::fs;

use store::embedded::{Embedded, Options};
use store::{Batch, Key, Store};

fn key(rest: &str) -> Key {
    Key::new("s", "t", rest.as_bytes()).unwrap()
}

fn hexdump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (row, line) in bytes.chunks(16).enumerate() {
        write!(dump, "{:04x} ", row * 16).unwrap();
        line.iter().for_each(|b| write!(dump, " {b:02x}").unwrap());
        dump.push('\n');
    }
    dump
}

#[test]
fn the_documented_segment_is_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let mut batch = Batch::new("s", Some(0));
    batch.put(key("a"), b"entry".to_vec());
    batch.put_body(key("b"), b"body".to_vec());
    assert_eq!(store.commit(&batch).unwrap(), 1);
    let written = dir.path().join("segments/00000001.seg");
    let first = hexdump(&fs::read(&written).unwrap());
    let mut batch = Batch::new("s", Some(1));
    batch.delete(key("b"));
    assert_eq!(store.commit(&batch).unwrap(), 2);
    let second = hexdump(&fs::read(&written).unwrap());

    let page = include_str!("../../../docs/formats/store.md").replace("\r\n", "\n");
    let mut blocks = page.split("```hexdump\n").skip(1);
    for dump in [first, second] {
        let block = blocks.next().and_then(|rest| rest.split("```").next());
        let shown: String = block
            .unwrap_or_default()
            .lines()
            // What follows two spaces after the bytes explains them.
            .map(|line| {
                format!(
                    "{}\n",
                    line.split(" | ").next().unwrap_or_default().trim_end()
                )
            })
            .collect();
        assert_eq!(shown, dump, "written is:\n{dump}");
    }
    assert!(blocks.next().is_none());
}
