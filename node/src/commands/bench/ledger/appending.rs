//! Appending one edit: entry, act, tiles and checkpoint, in memory and then into a store.
//!
//! Counts the time that cores worked, not the waiting for a disk. Sealing the body is not in it.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use ledger::checkpoint::Checkpoint;
use ledger::hash::leaf_hash;
use ledger::note::NoteSigner;
use ledger::tile::{TileWrite, TreeEdge, plan_append};
use record::id::Hash;
use registry::table::{BODY, ENTRY, HEAD, Head, TILE};
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Store};

use super::{Maker, words};
use crate::commands::bench::figures::Figures;
use crate::commands::bench::limits::Appending;
use crate::fault::{Fault, Result};

const EDITS: u32 = 2_000;
const BLOCK: u32 = 100;
const BODY_BYTES: usize = 700;
/// Leaves before the first edit: with 100 and 66 hashes in its open tiles, neither the best case
/// nor the worst.
const BEFORE: u64 = 1_000_036;

/// The end of a ledger.
struct End {
    maker: Maker,
    log: SigningKey,
    edge: TreeEdge,
    act: Option<Hash>,
}

/// What one edit writes.
struct Edit {
    first: u64,
    entries: [Vec<u8>; 2],
    tiles: Vec<TileWrite>,
    head: Vec<u8>,
}

impl End {
    fn new() -> Result<Self> {
        let leaves: Vec<Hash> = (0..BEFORE).map(super::proving::leaf).collect();
        Ok(Self {
            maker: Maker::new()?,
            log: SigningKey::from_bytes(&[2; 32]),
            edge: plan_append(&TreeEdge::new(), &leaves).0,
            act: None,
        })
    }

    /// What `registry::book` does between a sealed body and the commit.
    fn edit(&mut self, body: &[u8]) -> Result<Edit> {
        let first = self.edge.size();
        let entry = self.maker.entry(first, body).encode();
        let leaf = leaf_hash(&entry);
        let act = self.maker.act(first, &[leaf], self.act).encode();
        let act_leaf = leaf_hash(&act);
        let (edge, tiles) = plan_append(&self.edge, &[leaf, act_leaf]);
        let origin = self.maker.origin.as_str();
        let signer = NoteSigner::new(origin, self.log.clone()).map_err(words)?;
        let root = edge.frontier().root();
        let checkpoint = Checkpoint::new(origin, edge.size(), root).map_err(words)?;
        let head = Head {
            size: edge.size(),
            root,
            whole: Some(checkpoint.sign(&signer).map_err(words)?),
            target: None,
            cosigned: None,
            act: Some(act_leaf),
            tail: 0,
        };
        self.edge = edge;
        self.act = Some(act_leaf);
        Ok(Edit {
            first,
            entries: [entry, act],
            tiles,
            head: record::cbor::to_vec(&head),
        })
    }

    fn batch(&self, edit: Edit, body: Vec<u8>, version: u64) -> Result<Batch> {
        let origin = self.maker.origin.as_str();
        let key = |table, rest: &[u8]| Key::new(origin, table, rest).map_err(words);
        let mut batch = Batch::new(origin, Some(version));
        for (at, bytes) in (edit.first..).zip(edit.entries) {
            batch.put(key(ENTRY, &at.to_be_bytes())?, bytes);
        }
        batch.put_body(key(BODY, &edit.first.to_be_bytes())?, body);
        for write in edit.tiles {
            let rest = [&[write.level], write.index.to_be_bytes().as_slice()].concat();
            batch.put(key(TILE, &rest)?, write.bytes);
        }
        batch.put(key(HEAD, b"")?, edit.head);
        Ok(batch)
    }
}

pub fn run(dir: &Path, figures: &mut Figures) -> Result<()> {
    let mut end = End::new()?;
    let body = vec![7; BODY_BYTES];
    let start = cpu()?;
    for _ in 0..EDITS {
        black_box(end.edit(&body)?);
    }
    let planning = each(cpu()?.saturating_sub(start));
    let start = cpu()?;
    for serial in 0..EDITS {
        let text = [serial.to_be_bytes().as_slice(), &[0; 250]].concat();
        black_box((end.log.sign(&text), end.maker.operator.sign(&text)));
    }
    let signing = each(cpu()?.saturating_sub(start));
    let name = "ledger.edit.cpu";
    figures.add(name, planning, "us");
    figures.limit_of_time((name, planning), "two_signatures", signing, "us");
    stored(dir, &mut end, &body, signing, figures)
}

/// In blocks, so that store and plain file meet the same machine and asking for the time costs
/// nothing beside them.
fn stored(
    dir: &Path,
    end: &mut End,
    body: &[u8],
    signing: f64,
    figures: &mut Figures,
) -> Result<()> {
    let folder = dir.join("edits");
    let store = Embedded::open(&folder, Options::default()).map_err(words)?;
    let mut plain = Appending::new(&folder.join("edits.plain"))?;
    let (mut clock, mut cores) = <(Duration, Duration)>::default();
    let (mut plain_clock, mut plain_cores) = <(Duration, Duration)>::default();
    let mut version = 0;
    for _ in 0..EDITS / BLOCK {
        let mut written = Vec::new();
        let (start, started) = (Instant::now(), cpu()?);
        for _ in 0..BLOCK {
            let edit = end.edit(body)?;
            let batch = end.batch(edit, body.to_vec(), version)?;
            version = store.commit(&batch).map_err(words)?;
            written.push(batch);
        }
        cores += cpu()?.saturating_sub(started);
        clock += start.elapsed();
        let started = cpu()?;
        for batch in written {
            let values = batch.puts().iter().map(|(_, value, _)| value.as_slice());
            plain_clock += plain.append(&values.collect::<Vec<_>>().concat())?;
        }
        plain_cores += cpu()?.saturating_sub(started);
    }
    let name = "ledger.edit.store.cpu";
    let taken = each(cores);
    figures.add(name, taken, "us");
    figures.limit_of_time((name, taken), "two_signatures", signing, "us");
    figures.limit_of_time((name, taken), "fsync", each(plain_cores), "us");
    let beside = taken - each(plain_cores);
    figures.add("ledger.edit.store.cpu_beside_fsync", beside, "us");
    let name = "ledger.edit.store";
    figures.add(name, each(clock), "us");
    figures.limit_of_time((name, each(clock)), "fsync", each(plain_clock), "us");
    Ok(())
}

fn each(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(EDITS)
}

/// How long the threads of this process have been on a core.
fn cpu() -> Result<Duration> {
    let folder = Path::new("/proc/self/task");
    let mut nanos = 0;
    for task in std::fs::read_dir(folder).map_err(|e| Fault::file(folder, &e))? {
        let path = task
            .map_err(|e| Fault::file(folder, &e))?
            .path()
            .join("schedstat");
        // A thread may end between the listing and the reading.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        nanos += text
            .split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}
