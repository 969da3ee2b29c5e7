//! Loading: durable batches of a thousand, beside a plain file that gets the same bytes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use store::Store;
use store::embedded::Embedded;

use super::{BATCH, VALUE, batch, resident, words};
use crate::commands::bench::figures::{Figures, percentile, rate};
use crate::commands::bench::limits::{Appending, timed};
use crate::fault::{Fault, Result};

pub fn run(
    store: &Embedded,
    folder: &Path,
    plain: &Path,
    records: u64,
    figures: &mut Figures,
) -> Result<()> {
    let mut file = Appending::new(plain)?;
    let mut times = Vec::new();
    let mut plain_time = Duration::ZERO;
    // In turn, so that both meet the same machine.
    for first in (0..records).step_by(BATCH as usize) {
        let (batch, bytes) = batch(first)?;
        let (_, time) = timed(|| store.commit(&batch).map_err(words))?;
        times.push(time);
        plain_time += file.append(&bytes)?;
    }
    let name = "store.load";
    let reached = rate(records, times.iter().sum());
    figures.add(name, reached, "records/s");
    let limit = rate(records, plain_time);
    figures.limit((name, reached), "append_and_fsync", limit, "records/s");
    let fifth = (times.len() / 5).max(1);
    let first: Duration = times[..fifth].iter().sum();
    let last: Duration = times[times.len() - fifth..].iter().sum();
    let slower = last.as_secs_f64() / first.as_secs_f64();
    figures.add("store.load.last_fifth_over_first", slower, "times");
    figures.add("store.load.p99", percentile(&mut times, 0.99), "ms");
    let payload = records as f64 * VALUE as f64;
    let disk = disk_bytes(folder)? as f64;
    figures.add("store.disk", disk / payload, "of-payload");
    figures.add("store.load.resident", resident()?, "MB");
    Ok(())
}

/// The blocks that a folder takes, so that a file with holes counts what it takes.
pub fn disk_bytes(folder: &Path) -> Result<u64> {
    let failed = |e| Fault::file(folder, &e);
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += match metadata.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}
