//! Measuring (测速): the store, ledgers, import, replication, reading and verifying, each beside the limits measured
//! in the same run: sealing in memory, SHA-256, append and fsync of the same bytes.
//!
//! Owns what is measured and in which order; `docs/measuring.md` says what each line means.
//! Refuses to compare with figures of another run: on a shared machine only ratios hold.

mod bed;
mod figures;
mod import;
mod keys;
mod ledger;
mod limits;
mod reading;
mod replicate;
mod replication;
mod rows;
mod store;
mod verification;

use std::path::Path;
use std::process::ExitCode;

use super::realm;
use crate::args::{Bench, BenchPart, TransportName};
use crate::fault::{Fault, Result};
use crate::output;
use bed::Bed;
use figures::Figures;

/// The fewest records that are worth measuring, and the most whose numbers the sample can give.
const RECORDS: std::ops::RangeInclusive<usize> = 100..=2_000_000;

pub fn run(command: &Bench, json: bool) -> Result<ExitCode> {
    if !RECORDS.contains(&command.records) {
        return Err(Fault::usage(format!(
            "--records 须在 {0} 与 {1} 之间 / choose {0} to {1} records",
            RECORDS.start(),
            RECORDS.end()
        )));
    }
    if !store::RECORDS.contains(&command.store_records) {
        return Err(Fault::usage(format!(
            "--store-records 须在 {0} 与 {1} 之间 / choose {0} to {1} records for the store",
            store::RECORDS.start(),
            store::RECORDS.end()
        )));
    }
    let (dir, temporary) = realm::fresh_dir(command.dir.as_ref(), "bench")?;
    let mut figures = Figures::new(json);
    measure(command, &dir, &mut figures)?;
    if json {
        output::json(&figures);
    }
    if temporary {
        // Nothing of value is in it, and the next run makes its own.
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(ExitCode::SUCCESS)
}

/// One bed for all parts: what one part writes, the next reads.
fn measure(command: &Bench, dir: &Path, figures: &mut Figures) -> Result<()> {
    let wanted = |part| command.parts.is_empty() || command.parts.contains(&part);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figures.add("cores", cores as f64, "cores");
    // First, so that the memory it takes is its own.
    if wanted(BenchPart::Store) {
        store::run(dir, command.store_records, figures)?;
    }
    if wanted(BenchPart::Ledger) {
        ledger::run(dir, figures)?;
    }
    if wanted(BenchPart::Keys) {
        keys::run(figures)?;
    }
    // Only when it is named: with 300 children it takes long.
    if command.parts.contains(&BenchPart::Replicate) {
        let measured = replicate::Measured {
            records: command.records,
            children: command.children,
            seconds: command.seconds,
            quic: command.transport == Some(TransportName::Quic),
        };
        replicate::run(&dir.join("replicate"), &measured, figures)?;
    }
    let alone = [
        BenchPart::Store,
        BenchPart::Ledger,
        BenchPart::Keys,
        BenchPart::Replicate,
    ];
    if !command.parts.is_empty() && command.parts.iter().all(|part| alone.contains(part)) {
        // They make their own entries and need no bed.
        return Ok(());
    }
    let rows = rows::rows(command.records)?;
    figures.add("records", rows.len() as f64, "records");
    figures.add("record.fields", rows::fields()? as f64, "fields");
    figures.add("record.value_bytes", rows::value_bytes(&rows), "bytes");

    let mut bed = Bed::new(dir)?;
    if wanted(BenchPart::Import) {
        import::in_process(&bed, &rows, figures)?;
        import::over_http(&bed, &rows, figures)?;
    } else {
        import::unmeasured(&bed, &rows)?;
    }
    if wanted(BenchPart::Replication) {
        replication::run(&mut bed, figures)?;
    }
    // A parent runs on a machine of its own; here it would take a core from what is measured.
    bed.stop_parent();
    // Before the readings: each of them adds an act with a signature of its own.
    bed.stop_child();
    if wanted(BenchPart::Verify) {
        verification::run(&bed, figures)?;
    }
    if wanted(BenchPart::Read) {
        reading::run(&mut bed, &rows, figures)?;
    }
    Ok(())
}
