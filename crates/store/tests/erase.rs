//! What is erased is in no file of the directory: raw bytes are searched, before and after.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use store::embedded::{Embedded, Options};
use store::pages::Pages;
use store::{Batch, Key, Snapshot, Store};

const SHARD: &str = "example.org/110101/person";
const RECORDS: u32 = 120;

fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 8 << 10,
        ..Options::default()
    }
}

fn key(table: &str, n: u32) -> Key {
    Key::new(SHARD, table, &n.to_be_bytes()).unwrap()
}

/// Bytes that occur once: the body, or the sealed secret, of a record.
fn unique(what: &str, n: u32) -> Vec<u8> {
    format!("<{what} of record {n:05}>").repeat(12).into_bytes()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The files of the directory that hold a piece of `bytes`.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let piece = &bytes[..bytes.len() / 12];
    let holds = |path: &PathBuf| {
        let content = fs::read(path).unwrap_or_default();
        content.windows(piece.len()).any(|window| window == piece)
    };
    files(dir).into_iter().filter(holds).collect()
}

/// The records of which a body, or a piece of one, lies in any file.
fn bodies(dir: &Path) -> BTreeSet<u32> {
    let begins = b"<body of record ";
    let numbers = |path: PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(begins));
        let number = |at: usize| {
            std::str::from_utf8(&bytes[at + 16..at + 21])
                .unwrap()
                .parse()
        };
        starts.map(|at| number(at).unwrap()).collect::<Vec<_>>()
    };
    files(dir).into_iter().flat_map(numbers).collect()
}

fn register(store: &Embedded, pages: &Pages, page: u32, records: std::ops::Range<u32>) {
    for n in records {
        pages.append(page, &unique("secret", n)).unwrap();
        let mut batch = Batch::new(SHARD, None);
        batch.put(key("entry", n), vec![1; 100]);
        batch.put_body(key("body", n), unique("body", n));
        store.commit(&batch).unwrap();
    }
}

/// Erases a record as `store::pages` says, and stops after `steps` steps as a power cut would.
fn erase(dir: &Path, n: u32, steps: usize) {
    let store = Embedded::open(dir, options()).unwrap();
    let pages = Pages::open(dir).unwrap();
    let note = key("note", n);
    let (from, to) = (1, 2);
    let all: [&dyn Fn(); 4] = [
        &|| {
            let mut batch = Batch::new(SHARD, None);
            batch.put(note.clone(), b"the secret of this record goes".to_vec());
            store.commit(&batch).unwrap();
        },
        &|| {
            // Again after a power cut: what an interrupted attempt wrote is of no use.
            pages.destroy(to).unwrap();
            let Ok(chunks) = pages.chunks(from) else {
                return;
            };
            let stays = |chunk: &&Vec<u8>| *chunk != &unique("secret", n);
            let chunks: Vec<_> = chunks.into_iter().map(|(_, chunk)| chunk).collect();
            let stay: Vec<&[u8]> = chunks.iter().filter(stays).map(Vec::as_slice).collect();
            pages.append_all(to, &stay).unwrap();
        },
        &|| {
            // Here the pointers move, in the batch that erases the body.
            let mut batch = Batch::new(SHARD, None);
            batch.delete(key("body", n));
            batch.put(key("moved", 0), to.to_be_bytes().to_vec());
            store.commit(&batch).unwrap();
        },
        &|| {
            pages.destroy(from).unwrap();
            let mut batch = Batch::new(SHARD, None);
            batch.delete(note.clone());
            store.commit(&batch).unwrap();
        },
    ];
    all.iter().take(steps).for_each(|step| step());
}

#[test]
fn a_record_that_was_erased_is_in_no_file_index_included_also_after_compaction() {
    for interrupted in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path(), options()).unwrap();
        let pages = Pages::open(dir.path()).unwrap();
        register(&store, &pages, 1, 0..RECORDS);
        drop((store, pages));
        let (body, secret) = (unique("body", 7), unique("secret", 7));
        assert_eq!(holding(dir.path(), &body).len(), 1);
        assert_eq!(holding(dir.path(), &secret).len(), 1);
        // Second names on the same bytes show what became of them.
        let witnesses = [holding(dir.path(), &body), holding(dir.path(), &secret)].concat();
        let aside = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
        for (n, file) in witnesses.iter().enumerate() {
            fs::hard_link(file, aside.path().join(n.to_string())).unwrap();
        }

        erase(dir.path(), 7, interrupted);
        erase(dir.path(), 7, 4);
        for what in [&body, &secret] {
            assert_eq!(holding(dir.path(), what), [] as [PathBuf; 0]);
            assert_eq!(holding(aside.path(), what), [] as [PathBuf; 0]);
        }
        let store = Embedded::open(dir.path(), options()).unwrap();
        let pages = Pages::open(dir.path()).unwrap();
        assert_eq!(pages.numbers().unwrap(), [2]);
        assert_eq!(pages.chunks(2).unwrap().len() as u32, RECORDS - 1);
        assert_eq!(store.get(&key("body", 7)).unwrap(), None);
        assert_eq!(store.get(&key("body", 8)).unwrap(), Some(unique("body", 8)));
        assert!(store.get(&key("entry", 7)).unwrap().is_some());

        // Most of the others go too, so that segments are compacted.
        for n in (0..RECORDS).filter(|n| n % 10 != 8) {
            let mut batch = Batch::new(SHARD, None);
            batch.delete(key("body", n));
            batch.delete(key("entry", n));
            store.commit(&batch).unwrap();
        }
        store.compact().unwrap();
        let kept = files(&dir.path().join("segments"));
        let kept = kept
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == "kept"));
        assert!(kept.count() > 0, "nothing was compacted");
        assert_eq!(store.get(&key("body", 8)).unwrap(), Some(unique("body", 8)));
        store.close().unwrap();
        let left: BTreeSet<u32> = (0..RECORDS).filter(|n| n % 10 == 8).collect();
        assert_eq!(bodies(dir.path()), left);
        assert_eq!(Snapshot::open(dir.path()).unwrap().findings(), []);
    }
}

#[test]
fn a_copy_of_a_cut_write_goes_with_the_first_erasure() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), options()).unwrap();
    let pages = Pages::open(dir.path()).unwrap();
    register(&store, &pages, 1, 0..5);
    drop((store, pages));
    // The power went within the write of record 4, which is then registered once more.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let segment = dir.path().join("segments/00000001.seg");
    let len = segment.metadata().unwrap().len();
    let file = fs::File::options().write(true).open(&segment).unwrap();
    file.set_len(len - 10).unwrap();
    let body = unique("body", 4);
    let store = Embedded::open(dir.path(), options()).unwrap();
    let saved = store.opened().cut.clone().unwrap().saved;
    let pages = Pages::open(dir.path()).unwrap();
    register(&store, &pages, 1, 4..5);
    drop(store);
    // It stays for whoever looks into the crash, also when the store is opened again ...
    let store = Embedded::open(dir.path(), options()).unwrap();
    let found: BTreeSet<_> = holding(dir.path(), &body).into_iter().collect();
    assert_eq!(found, [saved.clone(), segment].into());
    // ... until something is erased.
    let mut batch = Batch::new(SHARD, None);
    batch.delete(key("body", 4));
    store.commit(&batch).unwrap();
    assert_eq!(holding(dir.path(), &body), [] as [PathBuf; 0]);
    assert!(!saved.exists());
}
