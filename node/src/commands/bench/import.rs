//! Import (导入): 256 rows an act, each act between the same rows sealed in memory, hashed, and
//! appended to a plain file.

use std::time::Duration;

use registry::register::{IMPORT_ROWS, ImportChunk, ImportReport};

use super::bed::Bed;
use super::figures::{Figures, rate};
use super::limits::{Appending, Sealing, hashing, timed};
use super::rows::{self, Row};
use crate::fault::{Fault, Result};

/// What the acts and their limits took together.
#[derive(Default)]
struct Times {
    rows: u64,
    bytes: u64,
    import: Duration,
    sealing: Duration,
    hashing: Duration,
    appending: Duration,
}

/// Through the use case itself, `Registry::import`, in this process.
pub fn in_process(bed: &Bed, rows: &[Row], figures: &mut Figures) -> Result<()> {
    let (registry, clerk) = bed.open_child()?;
    let times = beside(bed, rows, |chunk| {
        Ok(registry.import(&clerk, chunk, api::now())?)
    })?;
    registry.persist_indexes()?;
    report("import.in_process", &times, figures);
    Ok(())
}

/// As JSON to a node that runs in a process of its own.
pub fn over_http(bed: &Bed, rows: &[Row], figures: &mut Figures) -> Result<()> {
    let (_node, client) = bed.desk()?;
    let times = beside(bed, rows, |chunk| client.post("/api/v1/import", chunk))?;
    report("import.http", &times, figures);
    Ok(())
}

/// Fills the child for what is measured after.
pub fn unmeasured(bed: &Bed, rows: &[Row]) -> Result<()> {
    let (registry, clerk) = bed.open_child()?;
    for (serial, chunk) in rows.chunks(IMPORT_ROWS).enumerate() {
        taken(registry.import(&clerk, &chunk_of(serial, chunk)?, api::now())?)?;
    }
    Ok(registry.persist_indexes()?)
}

fn beside(
    bed: &Bed,
    rows: &[Row],
    mut import: impl FnMut(&ImportChunk) -> Result<ImportReport>,
) -> Result<Times> {
    let mut sealing = Sealing::new(&bed.shard()?)?;
    let path = bed.dir().join("import.plain");
    let mut plain = Appending::new(&path)?;
    let mut times = Times::default();
    for (serial, rows) in rows.chunks(IMPORT_ROWS).enumerate() {
        let chunk = chunk_of(serial, rows)?;
        let (report, time) = timed(|| import(&chunk))?;
        taken(report)?;
        times.import += time;
        let (bytes, time) = sealing.rows(rows)?;
        times.sealing += time;
        times.hashing += hashing(&bytes);
        times.appending += plain.append(&bytes)?;
        times.rows += rows.len() as u64;
        times.bytes += bytes.len() as u64;
    }
    std::fs::remove_file(&path).map_err(|e| Fault::file(&path, &e))?;
    Ok(times)
}

fn chunk_of(serial: usize, rows: &[Row]) -> Result<ImportChunk> {
    let first = (serial * IMPORT_ROWS) as u64 + 1;
    Ok(ImportChunk {
        kind: rows::kind()?,
        source: "00".repeat(32),
        numbers: (first..first + rows.len() as u64).collect(),
        rows: rows.to_vec(),
        dry_run: false,
    })
}

fn taken(report: ImportReport) -> Result<()> {
    if report.rejected == 0 && report.repeated == 0 {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "of {} sample rows {} were rejected and {} were there before; nothing can be measured",
        report.rows, report.rejected, report.repeated
    )))
}

fn report(name: &str, times: &Times, figures: &mut Figures) {
    let reached = rate(times.rows, times.import);
    figures.add(format!("{name}.bytes"), times.bytes as f64, "bytes");
    figures.add(name, reached, "rows/s");
    for (limit, time) in [
        ("seal", times.sealing),
        ("sha256", times.hashing),
        ("fsync", times.appending),
    ] {
        figures.limit((name, reached), limit, rate(times.rows, time), "rows/s");
    }
    // No node can be faster than what it must do one after the other.
    let sum = times.sealing + times.hashing + times.appending;
    figures.limit((name, reached), "sum", rate(times.rows, sum), "rows/s");
}
