//! Verifying (核验): the child's whole directory, offline, in turn with SHA-256 over its segment
//! files in memory on as many threads.

use std::time::{Duration, Instant};

use super::bed::Bed;
use super::figures::{Figures, rate};
use super::limits::{hashing, timed};
use crate::fault::{Fault, Result};

const NAME: &str = "verify";
const ROUNDS: u64 = 3;

pub fn run(bed: &Bed, figures: &mut Figures) -> Result<()> {
    let segments = segments(bed)?;
    let bytes = segments.len() as u64;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut verifying, mut digesting) = (Duration::ZERO, Duration::ZERO);
    let (mut entries, mut bodies) = (0, 0);
    for _ in 0..ROUNDS {
        let (report, time) = timed(|| Ok(registry::verify::verify(&bed.child_dir())?))?;
        if !report.ok {
            return Err(Fault::failed(
                "the child does not verify; measure in a directory of your own with `--dir`, then `fangzhi verify` it",
            ));
        }
        entries = report.ledgers.iter().map(|ledger| ledger.size).sum();
        bodies = report.ledgers.iter().map(|ledger| ledger.bodies).sum();
        verifying += time;
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in segments.chunks(segments.len().div_ceil(cores).max(1)) {
                scope.spawn(|| hashing(part));
            }
        });
        digesting += start.elapsed();
    }
    let reached = rate(entries * ROUNDS, verifying);
    figures.add(format!("{NAME}.entries"), entries as f64, "entries");
    figures.add(format!("{NAME}.bodies"), bodies as f64, "bodies");
    figures.add(format!("{NAME}.bytes"), bytes as f64, "bytes");
    figures.add(NAME, reached, "entries/s");
    let volume = rate(bytes * ROUNDS, verifying) / 1e6;
    let name = format!("{NAME}.volume");
    figures.add(&name, volume, "MB/s");
    let limit = rate(bytes * ROUNDS, digesting) / 1e6;
    figures.limit((&name, volume), "sha256", limit, "MB/s");
    Ok(())
}

/// The bytes of all segment files, one after the other.
fn segments(bed: &Bed) -> Result<Vec<u8>> {
    let folder = bed.child_dir().join("segments");
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(&folder).map_err(|e| Fault::file(&folder, &e))? {
        let path = file.map_err(|e| Fault::file(&folder, &e))?.path();
        bytes.extend(std::fs::read(&path).map_err(|e| Fault::file(&path, &e))?);
    }
    Ok(bytes)
}
