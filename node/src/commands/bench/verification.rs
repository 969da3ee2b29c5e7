//! Verifying (核验): the child's whole directory, offline, in turn with SHA-256 over its segment
//! files in memory on as many threads.

use registry::table::{BODY, ENTRY};

use super::bed::Bed;
use super::figures::{Figures, Spent, rate, spent};
use super::limits::hashing;
use crate::fault::{Fault, Result};

const NAME: &str = "verify";
const ROUNDS: u64 = 7;
/// Bytes of a frame before its key, and after its value (docs/formats/store.md).
const FRAME_HEAD: usize = 8;
const FRAME_CHECKSUM: usize = 4;

pub fn run(bed: &Bed, figures: &mut Figures) -> Result<()> {
    let segments = segments(bed)?;
    let bytes = segments.len() as u64;
    let hashed = hashed(bed)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut verifying, mut digesting) = <(Spent, Spent)>::default();
    let (mut entries, mut bodies) = (0, 0);
    for _ in 0..ROUNDS {
        let (report, took) = spent(|| Ok(registry::verify::verify(&bed.child_dir())?))?;
        if !report.ok {
            return Err(Fault::failed(
                "the child does not verify; measure in a directory of your own with `--dir`, then `fangzhi verify` it",
            ));
        }
        entries = report.ledgers.iter().map(|ledger| ledger.size).sum();
        bodies = report.ledgers.iter().map(|ledger| ledger.bodies).sum();
        verifying += took;
        let ((), took) = spent(|| {
            std::thread::scope(|scope| {
                for part in segments.chunks(segments.len().div_ceil(cores).max(1)) {
                    scope.spawn(|| hashing(part));
                }
            });
            Ok(())
        })?;
        digesting += took;
    }
    let reached = rate(entries * ROUNDS, verifying.clock);
    figures.add(format!("{NAME}.entries"), entries as f64, "entries");
    figures.add(format!("{NAME}.bodies"), bodies as f64, "bodies");
    figures.add(format!("{NAME}.bytes"), bytes as f64, "bytes");
    figures.add(format!("{NAME}.hashed_bytes"), hashed as f64, "bytes");
    figures.add(NAME, reached, "entries/s");
    let volume = rate(bytes * ROUNDS, verifying.clock) / 1e6;
    let name = format!("{NAME}.volume");
    figures.add(&name, volume, "MB/s");
    let limit = rate(bytes * ROUNDS, digesting.clock) / 1e6;
    figures.limit((&name, volume), "sha256", limit, "MB/s");
    let name = format!("{NAME}.cpu");
    let reached = verifying.nanos_each(entries * ROUNDS);
    figures.add(&name, reached, "core-ns");
    let limit = digesting.nanos_each(entries * ROUNDS);
    figures.limit_of_time((&name, reached), "sha256", limit, "core-ns");
    let limit = limit * hashed as f64 / bytes as f64;
    figures.limit_of_time((&name, reached), "sha256_of_hashed", limit, "core-ns");
    Ok(())
}

/// How many of the bytes that are read are hashed: entries, bodies, and of every frame what its
/// group's trailer covers. Nodes of trees are hashed besides; the rest has checksums of 32 bits.
fn hashed(bed: &Bed) -> Result<u64> {
    let mut bytes = 0;
    store::scan_segments(&bed.child_dir(), &mut |seen| {
        if let store::Seen::Frame { key, value, .. } = seen {
            let (head, checksum) = (FRAME_HEAD + key.as_bytes().len(), FRAME_CHECKSUM);
            let value = value.map_or(0, <[u8]>::len);
            bytes += match key.table() {
                BODY => head + value,
                ENTRY => head + value + checksum,
                _ => head + checksum,
            };
        }
    })
    .map_err(|e| Fault::failed(e.to_string()))?;
    Ok(bytes as u64)
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
