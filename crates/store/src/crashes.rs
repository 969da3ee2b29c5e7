//! Power cuts and failures at every step of a store at work, on the recording file system.
//!
//! Owns one load that meets everything: several segments, bodies replaced and deleted, two
//! shards, compaction, reopening. After each image: every acknowledged batch is there whole, no
//! other is there in part, what was erased is nowhere, and the store goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::embedded::{Embedded, Options};
use crate::fs::recording::{Disk, Failure, Op, Recording, Unsynced};
use crate::{Batch, Frame, Key, Snapshot, Store};

mod pages;

const SHARDS: [&str; 2] = ["s", "r"];

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        checkpoint_bytes: 3000,
        compact_percent: 30,
        ..Options::default()
    }
}

/// A folder that costs no disk where the system has one.
fn folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    match shm.is_dir() {
        true => tempfile::tempdir_in(shm).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn batch(n: usize) -> Batch {
    let shard = SHARDS[usize::from(n % 5 == 4)];
    let key = |rest: String| Key::new(shard, "t", rest.as_bytes()).unwrap();
    let mut batch = Batch::new(shard, None);
    batch.put(key(format!("plain {}", n % 7)), vec![n as u8; 150]);
    batch.put(key("head".to_owned()), vec![n as u8; 80]);
    if n.is_multiple_of(3) {
        batch.put(key(format!("stays {n}")), vec![n as u8; 50]);
    }
    let secret = |name: &str| format!("SECRET-{name}-{n:03}-").repeat(12).into_bytes();
    batch.put_body(key(format!("body {n:03}")), secret("body"));
    batch.put_body(key("replaced".to_owned()), secret("replaced"));
    if n >= 6 {
        batch.delete(key(format!("body {:03}", n - 5)));
        batch.delete(key(format!("plain {}", (n + 3) % 7)));
    }
    batch
}

/// What the store holds after some batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    heads: BTreeMap<String, u64>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The states before the first batch and after each, and every body ever written.
fn models(batches: usize) -> (Vec<Model>, Vec<Vec<u8>>) {
    let (mut model, mut bodies) = (Model::default(), Vec::new());
    let mut models = vec![model.clone()];
    for n in 0..batches {
        let batch = batch(n);
        *model.heads.entry(batch.shard.clone()).or_default() += 1;
        for (key, value, frame) in batch.puts() {
            model.rows.insert(key.as_bytes().to_vec(), value.clone());
            if *frame == Frame::Body {
                bodies.push(value.clone());
            }
        }
        for key in batch.deletes() {
            model.rows.remove(key.as_bytes());
        }
        models.push(model.clone());
    }
    (models, bodies)
}

fn state(store: &dyn Store) -> Model {
    let mut model = Model::default();
    for shard in SHARDS {
        let head = store.head(shard).unwrap();
        if head > 0 {
            model.heads.insert(shard.to_owned(), head);
        }
        for (rest, value) in store.scan(shard, "t", b"", usize::MAX).unwrap() {
            let key = Key::new(shard, "t", &rest).unwrap();
            model.rows.insert(key.as_bytes().to_vec(), value);
        }
    }
    model
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map_while(Result::ok) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            // sled may take a file away meanwhile.
            false => drop(fs::copy(entry.path(), target)),
        }
    }
}

/// No segment, and no file of the index, holds any of what is erased.
fn check_erased(dir: &Path, model: &Model, bodies: &[Vec<u8>], about: &str) {
    for folder in ["segments", "index"] {
        for entry in fs::read_dir(dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(bytes) = fs::read(&path) else { continue };
            for body in bodies {
                let secret = &body[..20];
                let alive = model.rows.values().any(|value| value == body);
                let found = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(
                    alive || !found,
                    "{about}: an erased body is in {}",
                    path.display()
                );
            }
        }
    }
}

struct Load {
    fs: Arc<Recording>,
    dir: tempfile::TempDir,
    /// Copies of the index, by the number of steps before them.
    indexes: Vec<(usize, PathBuf)>,
    copies: tempfile::TempDir,
    acknowledged: usize,
}

impl Load {
    fn new() -> Load {
        let dir = folder();
        fs::create_dir(dir.path().join("store")).unwrap();
        Load {
            fs: Arc::new(Recording::new(&dir.path().join("store"))),
            dir,
            indexes: Vec::new(),
            copies: folder(),
            acknowledged: 0,
        }
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn open(&self) -> Result<Embedded, crate::OpenError> {
        Embedded::open_on(self.fs.clone(), &self.store_dir(), options())
    }

    fn keep_index(&mut self) {
        let to = self.copies.path().join(self.indexes.len().to_string());
        copy(&self.store_dir().join("index"), &to);
        self.indexes.push((self.fs.ops().len(), to));
    }

    fn commit(&mut self, store: &Embedded) -> Result<(), crate::CommitError> {
        store.commit(&batch(self.acknowledged))?;
        self.acknowledged += 1;
        self.fs.acknowledge(self.acknowledged);
        Ok(())
    }
}

/// Opens an image and checks everything; `told` batches were acknowledged.
fn check(dir: &Path, told: usize, models: &[Model], bodies: &[Vec<u8>], about: &str) {
    let store = match Embedded::open(dir, options()) {
        Ok(store) => store,
        Err(error) => panic!("{about}: {error}"),
    };
    let found = state(&store);
    let whole = [told, told + 1]
        .into_iter()
        .find(|&n| models.get(n) == Some(&found));
    let Some(n) = whole else {
        let heads = models.get(told).map(|model| &model.heads);
        panic!(
            "{about}: {told} told, heads {:?} rather than {heads:?}",
            found.heads
        );
    };
    let mut more = Batch::new("s", None);
    more.put(Key::new("s", "u", b"more").unwrap(), b"more".to_vec());
    let next = found.heads.get("s").copied().unwrap_or(0) + 1;
    assert_eq!(store.commit(&more).unwrap(), next, "{about}");
    drop(store);
    check_erased(dir, &models[n], bodies, about);
    let snapshot = Snapshot::open(dir).unwrap();
    assert_eq!(snapshot.findings(), [], "{about}");
    let mut after = state(&snapshot);
    after.heads.insert("s".to_owned(), next - 1);
    after.heads.retain(|_, head| *head > 0);
    assert_eq!(after, models[n], "{about}: what the segments alone give");
}

/// A load with compaction and reopening, its steps recorded.
fn record(batches: usize) -> Load {
    let mut load = Load::new();
    let mut store = load.open().unwrap();
    for n in 0..batches {
        load.commit(&store).unwrap();
        if n % 7 == 6 {
            load.keep_index();
        }
        if n % 12 == 11 {
            store.compact().unwrap();
            load.keep_index();
        }
        if n % 17 == 16 {
            drop(store);
            load.keep_index();
            store = load.open().unwrap();
        }
    }
    drop(store);
    load.keep_index();
    load
}

/// How many images each step gets; `FANGZHI_CRASH_IMAGES` makes it more.
fn images_per_step() -> usize {
    let asked = std::env::var("FANGZHI_CRASH_IMAGES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_acknowledged_and_tears_nothing() {
    let batches = 40;
    let (models, bodies) = models(batches);
    let load = record(batches);
    let ops = load.fs.ops();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}, {} steps", ops.len());
    let compactions = ops.iter().filter(
        |op| matches!(op, Op::Rename { to, .. } if to.extension().is_some_and(|e| e == "kept")),
    );
    assert!(compactions.count() > 1, "the load has to compact");
    let (mut disk, mut told, mut random) = (Disk::default(), 0, seed | 1);
    let mut draw = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 11
    };
    let mut images = 0;
    for (at, op) in ops.iter().enumerate() {
        disk.step(op);
        if let Op::Acknowledged(count) = op {
            told = *count;
        }
        let mut cuts = vec![Unsynced::Lost];
        if disk.is_unsettled() {
            cuts.push(Unsynced::Kept);
            let torn = disk.torn_bytes();
            for _ in 0..images_per_step() {
                cuts.push(Unsynced::Drawn(draw()));
                if torn > 0 {
                    cuts.push(Unsynced::Torn(draw() as usize % torn));
                }
            }
        }
        for cut in cuts {
            images += 1;
            let image = folder();
            disk.write_image(cut, image.path());
            // No index, the latest copy of it, or any older one.
            let older = load
                .indexes
                .iter()
                .take_while(|(before, _)| *before <= at + 1);
            let older: Vec<_> = older.collect();
            let choice = draw() as usize % (older.len() + 2);
            let index = match choice {
                0 => None,
                n => older.get(n - 1).or(older.last()),
            };
            if let Some((_, index)) = index {
                copy(index, &image.path().join("index"));
            }
            let named = index.map(|(before, _)| *before);
            let about = format!("seed {seed}, step {at} {cut:?}, index of {named:?}");
            check(image.path(), told, &models, &bodies, &about);
        }
    }
    println!("{images} images");
}

#[test]
fn a_failure_at_any_step_loses_nothing_acknowledged() {
    let batches = 26;
    let (models, bodies) = models(batches);
    let steps = record(batches).fs.steps();
    for failure in [Failure::Broken, Failure::Full, Failure::Done] {
        // The threads make the number of steps differ a little from run to run.
        for step in 0..steps {
            fail_once(step, failure, batches, &models, &bodies);
        }
    }
}

fn fail_once(step: usize, failure: Failure, batches: usize, models: &[Model], bodies: &[Vec<u8>]) {
    let about = format!("{failure:?} at step {step}");
    let mut load = Load::new();
    load.fs.fail_at(step, failure);
    let mut store = load.open().ok();
    let mut stopped = false;
    while load.acknowledged < batches {
        let Some(open) = store.take().or_else(|| load.open().ok()) else {
            panic!("{about}: it does not open again");
        };
        match load.commit(&open) {
            Ok(()) => {}
            Err(error) if error.is_refusal() => {
                assert!(!open.stats().stopped, "{about}: {error}");
                let found = state(&open);
                assert_eq!(
                    found, models[load.acknowledged],
                    "{about}: refused, so nothing"
                );
            }
            Err(error) => {
                assert!(!stopped, "{about}: {error}, a second time");
                assert!(open.stats().stopped, "{about}: {error}");
                assert!(open.commit(&Batch::new("s", None)).is_err(), "{about}");
                stopped = true;
                drop(open);
                let again = load.open().unwrap_or_else(|e| panic!("{about}: {e}"));
                let found = state(&again);
                let told = load.acknowledged;
                let whole = [told, told + 1].into_iter().find(|&n| models[n] == found);
                load.acknowledged = whole.unwrap_or_else(|| panic!("{about}: {:?}", found.heads));
                store = Some(again);
                continue;
            }
        }
        if load.acknowledged.is_multiple_of(12) {
            // It may fail; the store then goes on or has stopped.
            let _ = open.compact();
        }
        store = match open.stats().stopped {
            true => None,
            false => Some(open),
        };
    }
    drop(store);
    let told = load.acknowledged;
    check(&load.store_dir(), told, models, bodies, &about);
}
