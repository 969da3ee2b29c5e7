//! The embedded engine beside redb and fjall, in one run: `name value unit` lines.
//!
//! Owns the load: a million records of 700 bytes in durable batches of 1,000, then readings,
//! small batches of eight writers, start-up, and commits while compaction runs.
//! Refuses to compare figures of different runs or machines: each engine takes its turn on one
//! disk, and a line `fsync` says what that disk does.
//!
//! `cargo bench -p store` measures; `RECORDS=100000 cargo bench -p store` is quicker;
//! `ENGINES=embedded` leaves the others out.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "it measures and prints"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use store::embedded::{Embedded, Options};
use store::pages::Pages;
use store::{Batch, Key, Store};

#[path = "../tests/redb_engine.rs"]
mod redb_engine;

const BATCH: u64 = 1000;
const VALUE: usize = 700;
const SHARD: &str = "example.org/110101/person";

fn line(engine: &str, name: &str, value: f64, unit: &str) {
    println!("{engine}/{name} {value:.2} {unit}");
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// Bytes that no engine can compress, different for each record.
fn value(n: u64) -> Vec<u8> {
    let mut random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(VALUE + 8);
    while bytes.len() < VALUE {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.extend_from_slice(&random.to_le_bytes());
    }
    bytes.truncate(VALUE);
    bytes
}

fn key(n: u64) -> Key {
    Key::new(SHARD, "entry", &n.to_be_bytes()).unwrap()
}

fn batch(first: u64) -> Batch {
    let mut batch = Batch::new(SHARD, None);
    for n in first..first + BATCH {
        batch.put(key(n), value(n));
    }
    batch
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap();
    let bytes = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => disk_bytes(&entry.path()),
            // Blocks, so that a file with holes counts what it takes.
            false => std::os::unix::fs::MetadataExt::blocks(&entry.metadata().unwrap()) * 512,
        }
    });
    bytes.sum()
}

/// Memory of this process that is its own, in MiB.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: f64 = kib.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}

/// What the load needs of an engine.
trait Engine: Sync {
    fn write(&self, batch: &Batch);
    fn get(&self, key: &Key) -> Option<Vec<u8>>;
    fn scan(&self, from: u64, limit: usize) -> usize;
}

/// An engine behind the trait of this crate.
struct Of<'a>(&'a dyn Store);

impl Engine for Of<'_> {
    fn write(&self, batch: &Batch) {
        self.0.commit(batch).unwrap();
    }

    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.0.get(key).unwrap()
    }

    fn scan(&self, from: u64, limit: usize) -> usize {
        let rows = self.0.scan(SHARD, "entry", &from.to_be_bytes(), limit);
        rows.unwrap().len()
    }
}

/// fjall as it is: no heads, no erasing.
struct Fjall {
    db: fjall::Database,
    values: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Fjall {
        let db = fjall::Database::builder(dir)
            .cache_size(64 << 20)
            .open()
            .unwrap();
        let values = db
            .keyspace("values", fjall::KeyspaceCreateOptions::default)
            .unwrap();
        Fjall { db, values }
    }
}

impl Engine for Fjall {
    fn write(&self, batch: &Batch) {
        let mut writes = self
            .db
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        for (key, value, _) in batch.puts() {
            writes.insert(&self.values, key.as_bytes(), value.as_slice());
        }
        writes.commit().unwrap();
    }

    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let found = self.values.get(key.as_bytes()).unwrap();
        found.map(|value| value.to_vec())
    }

    fn scan(&self, from: u64, limit: usize) -> usize {
        let rows = self
            .values
            .range(key(from).as_bytes().to_vec()..)
            .take(limit);
        let rows = rows.map(|row| {
            let (key, value) = row.into_inner().unwrap();
            (key.to_vec(), value.to_vec())
        });
        rows.collect::<Vec<_>>().len()
    }
}

fn measure(name: &str, engine: &dyn Engine, dir: &Path, records: u64) -> f64 {
    let rate = load(name, engine, dir, records);
    reads(name, engine, records);
    writers(name, engine);
    rate
}

fn load(name: &str, engine: &dyn Engine, dir: &Path, records: u64) -> f64 {
    let mut times = Vec::new();
    for first in (0..records).step_by(BATCH as usize) {
        let batch = batch(first);
        times.push(seconds(|| engine.write(&batch)));
    }
    let total: f64 = times.iter().sum();
    let rate = records as f64 / total;
    line(name, "batches of 1000", rate, "records/s");
    let fifth = (times.len() / 5).max(1);
    let first: f64 = times[..fifth].iter().sum();
    let last: f64 = times[times.len() - fifth..].iter().sum();
    line(
        name,
        "last fifth over first fifth",
        last / first,
        "times as long",
    );
    times.sort_by(f64::total_cmp);
    line(
        name,
        "p99 of a batch",
        times[times.len() * 99 / 100] * 1e3,
        "ms",
    );
    let payload = records as f64 * VALUE as f64;
    line(
        name,
        "disk",
        disk_bytes(dir) as f64 / payload,
        "times the payload",
    );
    line(name, "memory after the load", resident(), "MiB");
    rate
}

fn reads(name: &str, engine: &dyn Engine, records: u64) {
    let count = 200_000.min(records);
    let pick = |n: u64| key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records);
    let keys: Vec<Key> = (0..count).map(pick).collect();
    let read = |keys: &[Key]| {
        let len = |key| engine.get(key).unwrap().len();
        keys.iter().for_each(|key| assert_eq!(len(key), VALUE));
    };
    // Once to warm up.
    read(&keys[..keys.len() / 10]);
    let took = seconds(|| read(&keys));
    line(name, "point reads", count as f64 / took, "reads/s");
    let scan = |from| engine.scan(from, 10_000.min((records - from) as usize)) as u64;
    let took = seconds(|| {
        let rows: u64 = (0..records).step_by(10_000).map(scan).sum();
        assert_eq!(rows, records);
    });
    line(name, "scan", records as f64 / took, "rows/s");
    line(name, "memory after readings", resident(), "MiB");
}

/// Single small batches: one writer, then eight, each on a shard of its own.
fn writers(name: &str, engine: &dyn Engine) {
    let each = 2000;
    let run = |writer: u64| {
        let shard = format!("{SHARD}-{writer}");
        for n in 0..each {
            let mut batch = Batch::new(shard.as_str(), None);
            let key = Key::new(&shard, "small", &u64::to_be_bytes(n)).unwrap();
            batch.put(key, vec![7; 200]);
            engine.write(&batch);
        }
    };
    let one = each as f64 / seconds(|| run(8));
    line(name, "one writer", one, "batches/s");
    let took = seconds(|| {
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let run = &run;
                scope.spawn(move || run(writer));
            }
        });
    });
    let eight = 8.0 * each as f64 / took;
    line(name, "eight writers", eight, "batches/s");
    line(name, "eight writers over one", eight / one, "times");
}

/// Commits of 100 records that overwrite one another while a reader's worth of segments dies and
/// is compacted.
fn compaction(dir: &Path) {
    let options = Options {
        segment_bytes: 16 << 20,
        ..Options::default()
    };
    let store = Embedded::open(dir, options).unwrap();
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut n = 0_u64;
    while begun.elapsed() < Duration::from_secs(10) {
        let mut batch = Batch::new(SHARD, None);
        for place in 0..100 {
            // Nine in ten are overwritten soon, one in ten stays.
            let at = if place < 10 {
                1_000_000 + n * 10 + place
            } else {
                (n * 90 + place) % 20_000
            };
            batch.put(key(at), value(at));
        }
        times.push(seconds(|| assert!(store.commit(&batch).is_ok())));
        n += 1;
    }
    let stats = store.stats();
    times.sort_by(f64::total_cmp);
    line(
        "embedded",
        "commits of 100 during compaction, p50",
        times[times.len() / 2] * 1e3,
        "ms",
    );
    line(
        "embedded",
        "commits of 100 during compaction, p99",
        times[times.len() * 99 / 100] * 1e3,
        "ms",
    );
    line(
        "embedded",
        "commits of 100 during compaction, longest",
        times[times.len() - 1] * 1e3,
        "ms",
    );
    let written = n as f64 * 100.0 * VALUE as f64;
    line("embedded", "written during compaction", written / 1e6, "MB");
    line(
        "embedded",
        "segments after compaction",
        stats.bytes as f64 / 1e6,
        "MB",
    );
    line(
        "embedded",
        "dead after compaction",
        stats.dead_bytes as f64 / 1e6,
        "MB",
    );
}

/// A million secrets in pages: what opening them costs.
fn secrets(dir: &Path, count: u64) {
    let pages = Pages::open(dir).unwrap();
    // 48 bytes each, 500 to a chunk, 5,000 to a page, as a register writes them.
    let chunk = vec![9; 500 * 48];
    for page in 0..count.div_ceil(5000) {
        pages
            .append_all(page as u32 + 1, &[&chunk[..]; 10])
            .unwrap();
    }
    drop(pages);
    let took = seconds(|| drop(Pages::open(dir).unwrap()));
    line(
        "embedded",
        "start-up with as many secrets",
        took * 1e3,
        "ms",
    );
}

fn fsync(dir: &Path) {
    let mut file = fs::File::create(dir.join("fsync")).unwrap();
    let took = seconds(|| {
        for _ in 0..1000 {
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
        }
    });
    line("disk", "append of 4 kB with fdatasync", took, "ms");
}

fn main() {
    let records = std::env::var("RECORDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let records = records.unwrap_or(1_000_000_u64).next_multiple_of(BATCH);
    let engines = std::env::var("ENGINES").unwrap_or("fjall embedded redb".to_owned());
    let base = std::env::var_os("BENCH_DIR").unwrap_or("target".into());
    fs::create_dir_all(&base).unwrap();
    let folder = || tempfile::tempdir_in(&base).unwrap();
    fsync(folder().path());
    let mut rates = [0.0; 2];
    // First, so that the memory it takes is its own.
    if engines.contains("embedded") {
        let dir = folder();
        let store = Embedded::open(dir.path(), Options::default()).unwrap();
        rates[1] = measure("embedded", &Of(&store), dir.path(), records);
        drop(store);
        line(
            "embedded",
            "disk when closed",
            disk_bytes(dir.path()) as f64 / (records as f64 * VALUE as f64),
            "times the payload",
        );
        let open = || drop(Embedded::open(dir.path(), Options::default()).unwrap());
        line("embedded", "start-up", seconds(open), "s");
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        line("embedded", "start-up without its index", seconds(open), "s");
        compaction(folder().path());
        secrets(folder().path(), records);
    }
    if engines.contains("fjall") {
        let dir = folder();
        rates[0] = measure("fjall", &Fjall::open(dir.path()), dir.path(), records);
    }
    if engines.contains("redb") {
        let dir = folder();
        measure(
            "redb",
            &Of(&redb_engine::Redb::open(dir.path())),
            dir.path(),
            records,
        );
    }
    if rates[0] > 0.0 {
        line(
            "embedded",
            "batches of 1000 over fjall",
            rates[1] / rates[0],
            "times",
        );
    }
}
