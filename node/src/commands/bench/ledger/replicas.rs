//! A parent with 2,400 ledgers of its children: how it starts, and what memory it takes.
//!
//! With short histories and with ones thirty times as long: neither may grow with them.

use std::path::Path;
use std::time::{Duration, Instant};

use ledger::checkpoint::Checkpoint;
use ledger::hash::leaf_hash;
use ledger::note::NoteSigner;
use ledger::tile::{TreeEdge, plan_append};
use record::authority::{AuthorityEntry, InForce, Level, Statement};
use record::entry::{Entry, SUITE};
use record::id::{DivisionId, Kind, Origin, Realm};
use registry::config::Files;
use registry::table::{ENTRY, HEAD, Head, TILE};
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Store};

use super::{Maker, words};
use crate::client::RunFile;
use crate::commands::bench::figures::Figures;
use crate::commands::bench::limits::timed;
use crate::commands::realm::{self, Planned};
use crate::fault::{Fault, Result};

const REALM: &str = "bench.example";
const CHILDREN: usize = 240;
const STATUS_ROUNDS: u32 = 20;
const LEDGERS: [&str; 10] = [
    "authority",
    "access",
    "address",
    "building",
    "facility",
    "grid",
    "person",
    "room",
    "street",
    "unit",
];
/// What is measured, with how many entries in each `authority` ledger and in each other one. The
/// first start reads the former, since they say who is who; the next has that at rest.
const HISTORIES: [(&str, u64, u64); 4] = [
    ("none", 0, 0),
    ("short", 10, 10),
    ("long", 10, 300),
    ("long_authority", 300, 300),
];

const PARENT: Planned = Planned {
    division: "parent",
    name: "上级",
    level: Level::Town,
    code: None,
    parent: None,
    operators: &[],
};

pub fn run(dir: &Path, figures: &mut Figures) -> Result<()> {
    figures.add(
        "ledger.replicas",
        (CHILDREN * LEDGERS.len()) as f64,
        "ledgers",
    );
    for (history, authority, others) in HISTORIES {
        let dir = dir.join(format!("replicas-{history}"));
        let passphrases = realm::passphrases(&[PARENT])?;
        realm::make(REALM, &PARENT, &dir, &[], &passphrases)?;
        if others > 0 {
            fill(&dir, authority, others)?;
        }
        let start = Instant::now();
        let node = realm::start(&PARENT, dir.clone())?;
        let starting = start.elapsed();
        drop(node);
        let start = Instant::now();
        let node = realm::start(&PARENT, dir.clone())?;
        let starting_again = start.elapsed();
        let memory = resident(&dir)?;
        let name = format!("ledger.replicas.{history}");
        let status = (0..STATUS_ROUNDS).try_fold(Duration::ZERO, |taken, _| {
            Ok::<_, Fault>(taken + timed(|| realm::status(&node))?.1)
        })?;
        drop(node);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        figures.add(format!("{name}.first_start"), milliseconds(starting), "ms");
        figures.add(format!("{name}.start"), milliseconds(starting_again), "ms");
        let status = milliseconds(status) / f64::from(STATUS_ROUNDS);
        figures.add(format!("{name}.status"), status, "ms");
        figures.add(format!("{name}.resident"), memory, "MB");
    }
    Ok(())
}

/// Lays ledgers into the store as replication does, each in one batch.
fn fill(dir: &Path, authority: u64, others: u64) -> Result<()> {
    let maker = Maker::new()?;
    let store = Embedded::open(dir, Options::default()).map_err(words)?;
    let realm = Realm::new(REALM).map_err(words)?;
    for child in 0..CHILDREN {
        let division = DivisionId::new(&format!("child-{child}")).map_err(words)?;
        for ledger in LEDGERS {
            let history = if ledger == "authority" {
                authority
            } else {
                others
            };
            let kind = Kind::new(ledger).map_err(words)?;
            let origin = Origin::new(&realm, &division, &kind);
            store
                .commit(&replica(&maker, &origin, history)?)
                .map_err(words)?;
        }
    }
    Ok(())
}

fn replica(maker: &Maker, origin: &Origin, history: u64) -> Result<Batch> {
    let key = |table, rest: &[u8]| Key::new(origin.as_str(), table, rest).map_err(words);
    let mut batch = Batch::new(origin.as_str(), Some(0));
    let mut leaves = Vec::new();
    for at in 0..history {
        let entry = match origin.ledger().as_str() {
            "authority" => Entry::Authority(AuthorityEntry {
                suite: SUITE,
                statement: Statement::InForce(InForce {
                    what: Kind::new("policies").map_err(words)?,
                    version: at as u32,
                    hash: [1; 32],
                }),
                recorded_at: api::now(),
            }),
            _ => maker.entry(at, b""),
        };
        let bytes = entry.encode();
        leaves.push(leaf_hash(&bytes));
        batch.put(key(ENTRY, &at.to_be_bytes())?, bytes);
    }
    let (edge, writes) = plan_append(&TreeEdge::new(), &leaves);
    for write in writes {
        let rest = [&[write.level], write.index.to_be_bytes().as_slice()].concat();
        batch.put(key(TILE, &rest)?, write.bytes);
    }
    let root = edge.frontier().root();
    let signer = NoteSigner::from_seed(origin.as_str(), &[2; 32]).map_err(words)?;
    let checkpoint = Checkpoint::new(origin.as_str(), edge.size(), root).map_err(words)?;
    let head = Head {
        size: edge.size(),
        root,
        whole: Some(checkpoint.sign(&signer).map_err(words)?),
        target: None,
        cosigned: None,
        act: None,
        tail: history,
    };
    batch.put(key(HEAD, b"")?, record::cbor::to_vec(&head));
    Ok(batch)
}

/// Memory of the running node that lies in RAM, in MB.
fn resident(dir: &Path) -> Result<f64> {
    let path = Files::new(dir).run();
    let bytes = std::fs::read(&path).map_err(|e| Fault::file(&path, &e))?;
    let run: RunFile = serde_json::from_slice(&bytes).map_err(words)?;
    let path = format!("/proc/{}/status", run.pid);
    let text = std::fs::read_to_string(&path).map_err(|e| Fault::file(Path::new(&path), &e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024.0 / 1e6)
        .ok_or_else(|| Fault::failed("the resident memory of a node cannot be read here"))
}
