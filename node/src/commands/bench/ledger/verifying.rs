//! Verifying in memory: strict decoding, the tree, what the acts sign, and the bodies.
//!
//! `fangzhi bench verify` measures the same out of the files of a directory.

use std::hint::black_box;

use ledger::hash::{digests, leaf_hash, leaf_hashes, node_hash, root_of};
use ledger::levels::Levels;
use ledger::tile::TILE_WIDTH;
use record::act::Act;
use record::entry::{Entry, RecordRef};
use record::id::{Hash, Origin};

use super::{Maker, words};
use crate::commands::bench::figures::{Figures, Spent, rate, spent};
use crate::commands::bench::limits::hashing;
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
        let mut found = Found {
            leaves: Vec::with_capacity(self.entries.len()),
            tiles: Vec::with_capacity(self.entries.len() / TILE_WIDTH),
            acted: 0,
            previous: None,
        };
        let parts = self
            .entries
            .chunks(STRETCH)
            .zip(self.bodies.chunks(STRETCH));
        for (entries, bodies) in parts {
            self.stretch(&mut found, entries, bodies)?;
        }
        let size = found.leaves.len() as u64;
        let tree = Levels::with_roots(found.leaves, found.tiles);
        tree.root_at(size).ok_or_else(broken)
    }

    fn stretch(&self, found: &mut Found, entries: &[Vec<u8>], bodies: &[Vec<u8>]) -> Result<()> {
        let first = found.leaves.len();
        found.leaves.extend(leaf_hashes(entries));
        let hashes = digests(bodies);
        for (at, bytes) in entries.iter().enumerate() {
            let holds = match RecordRef::read(bytes) {
                Some(entry) => bodies[at].is_empty() || *entry.body == hashes[at],
                None => match Entry::decode(bytes).map_err(words)? {
                    Entry::Act(act) => self.act(found, first + at, &act)?,
                    _ => false,
                },
            };
            if !holds {
                return Err(broken());
            }
        }
        let (tiles, _) = found.leaves[first..].as_chunks::<TILE_WIDTH>();
        found.tiles.extend(tiles.iter().map(|tile| root_of(tile)));
        Ok(())
    }

    /// Whether an act signs what lies between the act before and its own index.
    fn act(&self, found: &mut Found, at: usize, act: &Act) -> Result<bool> {
        act.verify(&self.origin).map_err(words)?;
        let signs = act.first == found.acted as u64
            && act.first + u64::from(act.count) == at as u64
            && act.root == root_of(&found.leaves[found.acted..at])
            && act.previous == found.previous;
        found.acted = at + 1;
        found.previous = Some(found.leaves[at]);
        Ok(signs)
    }

    /// The hashing alone: each leaf, its node in the tree, its node under its act.
    fn hash(&self) -> Hash {
        let mut node = [0; 32];
        for bytes in &self.entries {
            let leaf = leaf_hash(black_box(bytes));
            node = node_hash(&leaf, &node_hash(&leaf, &node));
        }
        black_box(node)
    }
}

/// What was found so far.
struct Found {
    leaves: Vec<Hash>,
    /// The roots of the whole tiles of leaves.
    tiles: Vec<Hash>,
    /// How many entries there are up to the last act, which is the last of them.
    acted: usize,
    previous: Option<Hash>,
}

fn broken() -> Fault {
    Fault::failed("a ledger made for measuring does not verify")
}

pub fn run(figures: &mut Figures) -> Result<()> {
    without_bodies(figures)?;
    with_bodies(figures)
}

fn without_bodies(figures: &mut Figures) -> Result<()> {
    let made = Made::new(ENTRIES, 0)?;
    let bytes = made.bytes();
    let (mut verifying, mut hashed, mut raw) = <(Spent, Spent, Spent)>::default();
    for _ in 0..ROUNDS {
        verifying += spent(|| made.verify().map(black_box))?.1;
        hashed += spent(|| Ok(made.hash()))?.1;
        raw += spent(|| Ok(hashing(&bytes)))?.1;
    }
    let entries = made.entries.len() as u64 * ROUNDS;
    let name = "ledger.verify";
    let reached = rate(entries, verifying.clock);
    let entry_bytes = bytes.len() as f64 / made.entries.len() as f64;
    figures.add("ledger.entry_bytes", entry_bytes, "bytes");
    figures.add(name, reached, "entries/s");
    let limit = rate(entries, hashed.clock);
    figures.limit((name, reached), "tree", limit, "entries/s");
    let limit = rate(entries, raw.clock);
    figures.limit((name, reached), "sha256", limit, "entries/s");
    let name = "ledger.verify.cpu";
    let reached = verifying.nanos_each(entries);
    figures.add(name, reached, "core-ns");
    figures.limit_of_time(
        (name, reached),
        "sha256",
        raw.nanos_each(entries),
        "core-ns",
    );
    Ok(())
}

/// One ledger a core, since one ledger is verified from its beginning to its end.
fn with_bodies(figures: &mut Figures) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ledgers = (0..cores)
        .map(|_| Made::new(ENTRIES / cores as u64, BODY_BYTES))
        .collect::<Result<Vec<_>>>()?;
    let bytes: Vec<Vec<u8>> = ledgers.iter().map(Made::bytes).collect();
    let (mut verifying, mut raw) = <(Spent, Spent)>::default();
    for _ in 0..ROUNDS {
        verifying += spent(|| on_cores(&ledgers, |ledger| ledger.verify().map(|_| ())))?.1;
        raw += spent(|| {
            on_cores(&bytes, |bytes| {
                hashing(bytes);
                Ok(())
            })
        })?
        .1;
    }
    let entries: usize = ledgers.iter().map(|ledger| ledger.entries.len()).sum();
    let entries = entries as u64 * ROUNDS;
    let volume = bytes.iter().map(Vec::len).sum::<usize>() as u64 * ROUNDS;
    let name = "ledger.verify_bodies";
    figures.add(name, rate(entries, verifying.clock), "entries/s");
    let name = "ledger.verify_bodies.volume";
    let reached = rate(volume, verifying.clock) / 1e6;
    figures.add(name, reached, "MB/s");
    let limit = rate(volume, raw.clock) / 1e6;
    figures.limit((name, reached), "sha256", limit, "MB/s");
    let name = "ledger.verify_bodies.cpu";
    let reached = verifying.nanos_each(entries);
    figures.add(name, reached, "core-ns");
    figures.limit_of_time(
        (name, reached),
        "sha256",
        raw.nanos_each(entries),
        "core-ns",
    );
    Ok(())
}

/// Does the work on every part at once.
fn on_cores<T: Sync>(parts: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .iter()
            .map(|part| scope.spawn(|| work(part)))
            .collect();
        running.into_iter().try_for_each(|thread| {
            let stopped = |_| Err(Fault::failed("a verifying thread stopped before its end"));
            thread.join().unwrap_or_else(stopped)
        })
    })
}
