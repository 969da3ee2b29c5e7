//! Verifying in memory: strict decoding, the tree, what the acts sign, and the bodies.
//!
//! `fangzhi bench verify` measures the same out of the files of a directory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ledger::hash::{digests, leaf_hash, leaf_hashes, node_hash, root_of};
use ledger::levels::Levels;
use record::entry::Entry;
use record::id::{Hash, Origin};

use super::{Maker, words};
use crate::commands::bench::figures::{Figures, rate};
use crate::commands::bench::limits::{hashing, timed};
use crate::fault::{Fault, Result};

const ENTRIES: u64 = 200_000;
/// Entries that one act signs, as in an import.
const ACT: u64 = 256;
const BODY_BYTES: usize = 700;
/// Entries that are hashed together, as in a directory.
const STRETCH: usize = 512;
const ROUNDS: u64 = 3;

/// A ledger in memory.
struct Made {
    origin: Origin,
    entries: Vec<Vec<u8>>,
    /// One for each entry; an act's is empty.
    bodies: Vec<Vec<u8>>,
}

impl Made {
    fn new(count: u64, body_bytes: usize) -> Result<Self> {
        let maker = Maker::new()?;
        let (mut entries, mut bodies, mut tail) = (Vec::new(), Vec::new(), Vec::new());
        let mut previous = None;
        for serial in 0..count {
            let body: Vec<u8> = (0..body_bytes)
                .map(|at| (at as u64 ^ serial) as u8)
                .collect();
            let bytes = maker.entry(serial, &body).encode();
            tail.push(leaf_hash(&bytes));
            entries.push(bytes);
            bodies.push(body);
            if tail.len() as u64 == ACT || serial + 1 == count {
                let first = (entries.len() - tail.len()) as u64;
                let act = maker.act(first, &tail, previous).encode();
                previous = Some(leaf_hash(&act));
                entries.push(act);
                bodies.push(Vec::new());
                tail.clear();
            }
        }
        Ok(Self {
            origin: maker.origin,
            entries,
            bodies,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let pairs = self.entries.iter().zip(&self.bodies);
        pairs
            .flat_map(|(entry, body)| [entry.as_slice(), body])
            .collect::<Vec<_>>()
            .concat()
    }

    /// The root, when everything holds.
    fn verify(&self) -> Result<Hash> {
        let broken = || Fault::failed("a ledger made for measuring does not verify");
        let mut all = Vec::with_capacity(self.entries.len());
        let mut tail = Vec::new();
        let mut previous = None;
        let parts = self
            .entries
            .chunks(STRETCH)
            .zip(self.bodies.chunks(STRETCH));
        for (entries, bodies) in parts {
            let (leaves, found) = (leaf_hashes(entries), digests(bodies));
            for (at, bytes) in entries.iter().enumerate() {
                let entry = Entry::decode(bytes).map_err(words)?;
                if !bodies[at].is_empty() && entry.body_hash() != Some(found[at]) {
                    return Err(broken());
                }
                let leaf = leaves[at];
                if let Entry::Act(act) = &entry {
                    act.verify(&self.origin).map_err(words)?;
                    let covers = act.first + u64::from(act.count) == all.len() as u64
                        && act.count as usize == tail.len()
                        && act.root == root_of(&tail);
                    if !covers || act.previous != previous {
                        return Err(broken());
                    }
                    previous = Some(leaf);
                    tail.clear();
                } else {
                    tail.push(leaf);
                }
                all.push(leaf);
            }
        }
        let size = all.len() as u64;
        Levels::of(all).root_at(size).ok_or_else(broken)
    }

    /// The hashing alone: each leaf, its node in the tree, its node under its act.
    fn hash(&self) -> Duration {
        let start = Instant::now();
        let mut node = [0; 32];
        for bytes in &self.entries {
            let leaf = leaf_hash(black_box(bytes));
            node = node_hash(&leaf, &node_hash(&leaf, &node));
        }
        black_box(node);
        start.elapsed()
    }
}

pub fn run(figures: &mut Figures) -> Result<()> {
    without_bodies(figures)?;
    with_bodies(figures)
}

fn without_bodies(figures: &mut Figures) -> Result<()> {
    let made = Made::new(ENTRIES, 0)?;
    let bytes = made.bytes();
    let (mut verifying, mut hashed, mut raw) = Default::default();
    for _ in 0..ROUNDS {
        verifying += timed(|| made.verify().map(black_box))?.1;
        hashed += made.hash();
        raw += hashing(&bytes);
    }
    let entries = made.entries.len() as u64 * ROUNDS;
    let name = "ledger.verify";
    let reached = rate(entries, verifying);
    let entry_bytes = bytes.len() as f64 / made.entries.len() as f64;
    figures.add("ledger.entry_bytes", entry_bytes, "bytes");
    figures.add(name, reached, "entries/s");
    figures.limit((name, reached), "tree", rate(entries, hashed), "entries/s");
    figures.limit((name, reached), "sha256", rate(entries, raw), "entries/s");
    Ok(())
}

/// One ledger a core, since one ledger is verified from its beginning to its end.
fn with_bodies(figures: &mut Figures) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ledgers = (0..cores)
        .map(|_| Made::new(ENTRIES / cores as u64, BODY_BYTES))
        .collect::<Result<Vec<_>>>()?;
    let bytes: Vec<Vec<u8>> = ledgers.iter().map(Made::bytes).collect();
    let (mut verifying, mut raw) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        verifying += on_cores(&ledgers, |ledger| ledger.verify().map(|_| ()))?;
        raw += on_cores(&bytes, |bytes| {
            hashing(bytes);
            Ok(())
        })?;
    }
    let entries: usize = ledgers.iter().map(|ledger| ledger.entries.len()).sum();
    let volume: usize = bytes.iter().map(Vec::len).sum();
    let name = "ledger.verify_bodies";
    figures.add(name, rate(entries as u64 * ROUNDS, verifying), "entries/s");
    let name = "ledger.verify_bodies.volume";
    let reached = rate(volume as u64 * ROUNDS, verifying) / 1e6;
    figures.add(name, reached, "MB/s");
    let limit = rate(volume as u64 * ROUNDS, raw) / 1e6;
    figures.limit((name, reached), "sha256", limit, "MB/s");
    Ok(())
}

/// How long the work takes on every part at once.
fn on_cores<T: Sync>(parts: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .iter()
            .map(|part| scope.spawn(|| work(part)))
            .collect();
        running.into_iter().try_for_each(|thread| {
            let stopped = |_| Err(Fault::failed("a verifying thread stopped before its end"));
            thread.join().unwrap_or_else(stopped)
        })
    })?;
    Ok(start.elapsed())
}
