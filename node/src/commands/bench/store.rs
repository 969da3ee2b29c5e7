//! Store (存储): loading, reading, scanning, eight writers, compaction and start-up of the store
//! alone, with values of 700 bytes that nothing can compress.
//!
//! Owns the made-up records and the order of the parts. Each part prints its limit beside it: a
//! plain file written, or read, as large and as often.

mod compacting;
mod loading;
mod reading;
mod writing;

use std::path::Path;
use std::time::Instant;

use store::embedded::{Embedded, Options};
use store::{Batch, Key};

use super::figures::Figures;
use super::limits::Appending;
use crate::fault::{Fault, Result};

/// The sizes that are worth measuring.
pub const RECORDS: std::ops::RangeInclusive<u64> = 10_000..=100_000_000;
const BATCH: u64 = 1000;
const VALUE: usize = 700;
const SHARD: &str = "bench.example/child/person";

pub fn run(dir: &Path, records: u64, figures: &mut Figures) -> Result<()> {
    let records = records.next_multiple_of(BATCH);
    figures.add("store.records", records as f64, "records");
    figures.add("store.record.value_bytes", VALUE as f64, "bytes");
    fsync(dir, figures)?;
    let folder = dir.join("store");
    let plain = dir.join("store.plain");
    let store = open(&folder)?;
    loading::run(&store, &folder, &plain, records, figures)?;
    reading::run(&store, &plain, records, figures)?;
    figures.add("store.resident", resident()?, "MB");
    writing::run(&store, dir, figures)?;
    store.close().map_err(words)?;
    let closed = loading::disk_bytes(&folder)?;
    starting(&folder, closed, records, figures)?;
    // A million records and the plain file beside them take room that the next part may need.
    std::fs::remove_dir_all(&folder).map_err(|e| Fault::file(&folder, &e))?;
    std::fs::remove_file(&plain).map_err(|e| Fault::file(&plain, &e))?;
    compacting::run(&dir.join("compacting"), figures)
}

fn open(folder: &Path) -> Result<Embedded> {
    Embedded::open(folder, Options::default()).map_err(words)
}

/// What one append of 4 kB costs, made durable.
fn fsync(dir: &Path, figures: &mut Figures) -> Result<()> {
    let mut plain = Appending::new(&dir.join("fsync.plain"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        times.push(plain.append(&[1; 4096])?);
    }
    let middle = super::figures::percentile(&mut times, 0.5);
    figures.add("store.append_4kB_and_fsync.p50", middle, "ms");
    Ok(())
}

/// Opening what was closed in order, and opening it without its index.
fn starting(folder: &Path, bytes: u64, records: u64, figures: &mut Figures) -> Result<()> {
    let payload = records as f64 * VALUE as f64;
    figures.add("store.disk_closed", bytes as f64 / payload, "of-payload");
    let start = Instant::now();
    drop(open(folder)?);
    figures.add("store.start", start.elapsed().as_secs_f64() * 1e3, "ms");
    let index = folder.join("index");
    std::fs::remove_dir_all(&index).map_err(|e| Fault::file(&index, &e))?;
    let start = Instant::now();
    let store = open(folder)?;
    let taken = start.elapsed().as_secs_f64();
    drop(store);
    let name = "store.start_without_index";
    figures.add(name, taken * 1e3, "ms");
    // What has to be read: all segments, with the checksums of every byte.
    let start = Instant::now();
    let mut read = 0;
    let segments = folder.join("segments");
    for file in std::fs::read_dir(&segments).map_err(|e| Fault::file(&segments, &e))? {
        let path = file.map_err(|e| Fault::file(&segments, &e))?.path();
        let bytes = std::fs::read(&path).map_err(|e| Fault::file(&path, &e))?;
        read += bytes.len();
        std::hint::black_box(super::limits::hashing(&bytes));
    }
    let limit = start.elapsed().as_secs_f64();
    figures.limit_of_time((name, taken * 1e3), "read_and_sha256", limit * 1e3, "ms");
    figures.add(
        "store.start_without_index.read",
        read as f64 / taken / 1e6,
        "MB/s",
    );
    Ok(())
}

/// Memory of this process that is its own, in MB.
fn resident() -> Result<f64> {
    let path = Path::new("/proc/self/status");
    let text = std::fs::read_to_string(path).map_err(|e| Fault::file(path, &e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024.0 / 1e6)
        .ok_or_else(|| Fault::failed("the memory of this process cannot be read here"))
}

fn words(error: impl std::fmt::Display) -> Fault {
    Fault::failed(error.to_string())
}

/// Bytes that nothing can compress, different for each record.
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

fn key(n: u64) -> Result<Key> {
    Key::new(SHARD, "entry", &n.to_be_bytes()).map_err(words)
}

/// The batch of the records from `first` on, and its values once more, one after the other.
fn batch(first: u64) -> Result<(Batch, Vec<u8>)> {
    let mut batch = Batch::new(SHARD, None);
    let mut bytes = Vec::with_capacity(BATCH as usize * VALUE);
    for n in first..first + BATCH {
        let value = value(n);
        bytes.extend_from_slice(&value);
        batch.put(key(n)?, value);
    }
    Ok((batch, bytes))
}
