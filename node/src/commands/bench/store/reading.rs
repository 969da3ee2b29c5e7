//! Reading: one value at a time by chance, and all in order, beside a plain file read likewise.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use store::Store;
use store::embedded::Embedded;

use super::{SHARD, VALUE, key, words};
use crate::commands::bench::figures::{Figures, rate};
use crate::commands::bench::limits::timed;
use crate::fault::{Fault, Result};

const READS_MAX: u64 = 200_000;
const ROWS: u64 = 10_000;

pub fn run(store: &Embedded, plain: &Path, records: u64, figures: &mut Figures) -> Result<()> {
    let file = File::open(plain).map_err(|e| Fault::file(plain, &e))?;
    let count = READS_MAX.min(records);
    let picked: Vec<u64> = (0..count)
        .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records)
        .collect();
    let keys = picked.iter().map(|n| key(*n)).collect::<Result<Vec<_>>>()?;
    let read = |keys: &[store::Key]| {
        for key in keys {
            let value = store.get(key).map_err(words)?;
            if value.is_none_or(|value| value.len() != VALUE) {
                return Err(Fault::failed("a record that was loaded is not there"));
            }
        }
        Ok(())
    };
    // Once to warm up.
    read(&keys[..keys.len() / 10])?;
    let ((), time) = timed(|| read(&keys))?;
    let ((), plain_time) = timed(|| {
        let mut value = vec![0; VALUE];
        for n in &picked {
            file.read_exact_at(&mut value, n * VALUE as u64)
                .map_err(|e| Fault::file(plain, &e))?;
            black_box(&value);
        }
        Ok(())
    })?;
    let name = "store.reads";
    let reached = rate(count, time);
    figures.add(name, reached, "reads/s");
    figures.limit((name, reached), "pread", rate(count, plain_time), "reads/s");
    scan(store, &file, plain, records, figures)
}

fn scan(
    store: &Embedded,
    file: &File,
    plain: &Path,
    records: u64,
    figures: &mut Figures,
) -> Result<()> {
    let (rows, time) = timed(|| {
        let mut rows = 0;
        for from in (0..records).step_by(ROWS as usize) {
            let limit = ROWS.min(records - from) as usize;
            let found = store.scan(SHARD, "entry", &from.to_be_bytes(), limit);
            rows += found.map_err(words)?.len() as u64;
        }
        Ok(rows)
    })?;
    if rows != records {
        return Err(Fault::failed(format!(
            "{rows} rows of {records} were scanned"
        )));
    }
    let ((), plain_time) = timed(|| {
        let mut buffer = vec![0; ROWS as usize * VALUE];
        let mut at = 0;
        loop {
            let have = file
                .read_at(&mut buffer, at)
                .map_err(|e| Fault::file(plain, &e))?;
            if have == 0 {
                return Ok(());
            }
            // A row is a value of its own.
            let rows: Vec<Vec<u8>> = buffer[..have].chunks(VALUE).map(<[u8]>::to_vec).collect();
            black_box(rows);
            at += have as u64;
        }
    })?;
    let name = "store.scan";
    let reached = rate(records, time);
    figures.add(name, reached, "rows/s");
    let limit = rate(records, plain_time);
    figures.limit((name, reached), "read_and_copy", limit, "rows/s");
    Ok(())
}
