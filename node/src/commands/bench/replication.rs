//! Replication (复制): a full child starts beside an empty parent; until all is held and cosigned.

use std::time::{Duration, Instant};

use record::entry::Entry;
use registry::table;
use serde_json::{Value, json};
use store::{Key, Snapshot, Store as _};
use sync::limits::CHUNK_BYTES_MAX;

use super::bed::Bed;
use super::figures::{Figures, rate};
use super::limits::{Appending, hashing, tcp_copy};
use crate::commands::realm;
use crate::fault::{Fault, Result};

const NAME: &str = "replication";
const POLL: Duration = Duration::from_millis(2);
/// Slower than a hundredth of what is usual is a fault, not a figure.
const PATIENCE: Duration = Duration::from_secs(3600);
const SCAN: usize = 1024;

#[derive(Default)]
struct Limits {
    rounds: u64,
    hashing: Duration,
    appending: Duration,
    copying: Duration,
}

/// A transfer of the child's shard to the parent.
pub struct Moved {
    pub entries: u64,
    /// Until the session was open.
    pub connecting: Duration,
    /// From then until the parent's cosignature on the last entry was stored at the child.
    pub taken: Duration,
}

/// Starts the child beside its parent and waits until the parent holds its shard of that size.
pub fn transfer(bed: &mut Bed, entries: u64) -> Result<Moved> {
    let shard = bed.shard()?;
    let node = bed.child()?;
    let start = Instant::now();
    realm::wait("the child to reach the parent", POLL, PATIENCE, || {
        Ok(connected(&realm::status(node)?))
    })?;
    let connecting = start.elapsed();
    // A handshake costs the same for one entry and for a million.
    let start = Instant::now();
    realm::wait("the parent to hold all", POLL, PATIENCE, || {
        let status = realm::status(node)?;
        Ok(cosigned(&status, shard.as_str()) == Some(entries))
    })?;
    Ok(Moved {
        entries,
        connecting,
        taken: start.elapsed(),
    })
}

/// Bytes of a ledger by what they are.
#[derive(Default)]
pub struct Parts {
    pub bodies: f64,
    pub records: f64,
    pub acts: f64,
    entries: u64,
}

impl Parts {
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

/// The child's shard, by what its bytes are.
pub fn parts(bed: &Bed) -> Result<Parts> {
    let mut parts = Parts::default();
    each(bed, |entry, body| {
        parts.entries += 1;
        parts.bodies += body.len() as f64;
        let is_act = matches!(Entry::decode(&entry), Ok(Entry::Act(_)));
        *if is_act {
            &mut parts.acts
        } else {
            &mut parts.records
        } += entry.len() as f64;
    })?;
    Ok(parts)
}

pub fn run(bed: &mut Bed, figures: &mut Figures) -> Result<()> {
    let (entries, parts) = ledger(bed)?;
    let bytes: usize = parts.iter().map(Vec::len).sum();
    let path = bed.dir().join("replication.plain");
    let mut plain = Appending::new(&path)?;
    let mut limits = Limits::default();
    // The measured part cannot be cut in pieces, so its limits stand before and after it.
    measure_limits(&mut limits, &parts, &mut plain)?;
    let Moved {
        taken, connecting, ..
    } = transfer(bed, entries)?;
    measure_limits(&mut limits, &parts, &mut plain)?;
    std::fs::remove_file(&path).map_err(|e| Fault::file(&path, &e))?;

    let reached = rate(entries, taken);
    figures.add(format!("{NAME}.entries"), entries as f64, "entries");
    figures.add(format!("{NAME}.bytes"), bytes as f64, "bytes");
    figures.add(
        format!("{NAME}.connect"),
        connecting.as_secs_f64() * 1000.0,
        "ms",
    );
    figures.add(NAME, reached, "entries/s");
    figures.add(
        format!("{NAME}.volume"),
        rate(bytes as u64, taken) / 1e6,
        "MB/s",
    );
    for (limit, time) in [
        ("sha256", limits.hashing),
        ("fsync", limits.appending),
        ("tcp", limits.copying),
        ("sum", limits.hashing + limits.appending + limits.copying),
    ] {
        let all = rate(entries * limits.rounds, time);
        figures.limit((NAME, reached), limit, all, "entries/s");
    }
    Ok(())
}

fn measure_limits(limits: &mut Limits, parts: &[Vec<u8>], plain: &mut Appending) -> Result<()> {
    for part in parts {
        limits.hashing += hashing(part);
        limits.appending += plain.append(part)?;
    }
    limits.copying += tcp_copy(parts)?;
    limits.rounds += 1;
    Ok(())
}

fn connected(status: &Value) -> bool {
    let mut peers = status["peers"].as_array().into_iter().flatten();
    peers.any(|peer| peer["connected"] == json!(true))
}

/// Up to which size the ledger was cosigned.
fn cosigned(status: &Value, origin: &str) -> Option<u64> {
    status["ledgers"]
        .as_array()?
        .iter()
        .find(|ledger| ledger["origin"] == json!(origin))?["cosigned"]
        .as_u64()
}

/// How many entries the child's shard has, and its entries and bodies in parts as large as those
/// that are sent.
pub fn ledger(bed: &Bed) -> Result<(u64, Vec<Vec<u8>>)> {
    let mut parts = vec![Vec::new()];
    let size = each(bed, |entry, body| {
        let more = entry.len() + body.len();
        if parts
            .last()
            .is_none_or(|part: &Vec<u8>| part.len() + more > CHUNK_BYTES_MAX)
        {
            parts.push(Vec::with_capacity(CHUNK_BYTES_MAX));
        }
        if let Some(part) = parts.last_mut() {
            part.extend(entry);
            part.extend(body);
        }
    })?;
    Ok((size, parts))
}

/// Shows each entry of the child's shard with its body; gives their number.
fn each(bed: &Bed, mut show: impl FnMut(Vec<u8>, Vec<u8>)) -> Result<u64> {
    let words = |e: store::ReadError| Fault::failed(e.to_string());
    let origin = bed.shard()?;
    let snapshot = Snapshot::open(&bed.child_dir()).map_err(words)?;
    let mut size = 0u64;
    loop {
        let entries = snapshot
            .scan(origin.as_str(), table::ENTRY, &size.to_be_bytes(), SCAN)
            .map_err(words)?;
        let count = entries.len();
        let keys = (size..)
            .take(count)
            .map(|at| Key::new(origin.as_str(), table::BODY, &at.to_be_bytes()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Fault::failed(e.to_string()))?;
        let bodies = snapshot.get_many(&keys).map_err(words)?;
        for ((_, entry), body) in entries.into_iter().zip(bodies) {
            show(entry, body.unwrap_or_default());
        }
        size += count as u64;
        if count < SCAN {
            return Ok(size);
        }
    }
}
