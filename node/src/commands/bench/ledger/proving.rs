//! Proving out of a ledger of ten million entries, whose tiles lie in memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ledger::hash::node_hash;
use ledger::proof::{consistency, inclusion, verify_consistency, verify_inclusion};
use ledger::tile::{TreeEdge, plan_append};
use record::id::Hash;

use super::words;
use crate::commands::bench::figures::{Figures, percentile};
use crate::commands::bench::limits::timed;
use crate::fault::Result;

const ENTRIES: u64 = 10_000_000;
/// Leaves that are appended at once.
const STRETCH: u64 = 65_536;
const PROOFS: u64 = 1_000;
/// Spreads places over the tree; shares no factor with its size.
const STRIDE: u64 = 6_180_339_887;

/// A leaf hash that stands for an entry.
pub fn leaf(at: u64) -> Hash {
    let mut hash = [0x5a; 32];
    hash[..8].copy_from_slice(&at.to_be_bytes());
    hash
}

pub fn run(figures: &mut Figures) -> Result<()> {
    let mut edge = TreeEdge::new();
    let mut tiles = BTreeMap::new();
    let start = Instant::now();
    while edge.size() < ENTRIES {
        let end = ENTRIES.min(edge.size() + STRETCH);
        let leaves: Vec<Hash> = (edge.size()..end).map(leaf).collect();
        let (grown, writes) = plan_append(&edge, &leaves);
        edge = grown;
        tiles.extend(writes.into_iter().map(|w| ((w.level, w.index), w.bytes)));
    }
    let building = start.elapsed();
    figures.add("ledger.proof.entries", ENTRIES as f64, "entries");
    figures.add("ledger.proof.building", building.as_secs_f64(), "s");

    let root = edge.frontier().root();
    let (mut included, mut consistent, mut hashed) = (Vec::new(), Vec::new(), Vec::new());
    for serial in 1..=PROOFS {
        let place = serial * STRIDE % ENTRIES;
        let (proof, time) = timed(|| inclusion(&tiles, place, ENTRIES).map_err(words))?;
        verify_inclusion(&leaf(place), place, ENTRIES, &proof, &root).map_err(words)?;
        included.push(time);
        let old = TreeEdge::load(&tiles, place + 1).map_err(words)?;
        let old_root = old.frontier().root();
        let (proof, time) = timed(|| consistency(&tiles, place + 1, ENTRIES).map_err(words))?;
        verify_consistency(place + 1, &old_root, ENTRIES, &root, &proof).map_err(words)?;
        consistent.push(time);
        hashed.push(three_tiles());
    }
    let limit = percentile(&mut hashed, 0.5) * 1e3;
    for (name, mut times) in [("inclusion", included), ("consistency", consistent)] {
        let name = format!("ledger.proof.{name}.p50");
        let taken = percentile(&mut times, 0.5) * 1e3;
        figures.add(&name, taken, "us");
        figures.limit_of_time((&name, taken), "sha256", limit, "us");
        let name = name.replace("p50", "p99");
        figures.add(name, percentile(&mut times, 0.99) * 1e3, "us");
    }
    Ok(())
}

/// The inner nodes of as many tiles as a place of this tree lies in.
fn three_tiles() -> Duration {
    let start = Instant::now();
    let mut node = leaf(0);
    for _ in 0..3 * 255 {
        node = node_hash(&node, &node);
    }
    black_box(node);
    start.elapsed()
}
