//! Replication by its four goals (复制指标): how fast an empty parent fills, how soon one edit is
//! seen one and three hops up, what goes over the wire, and many children at once; with PostgreSQL's
//! logical replication beside it in the same run, where that is installed.
//!
//! Owns the order of the parts and what they have in common. Each part makes nodes of its own.

mod children;
mod edits;
mod peak;
mod postgres;
mod wire;

use std::path::Path;

use record::id::{DivisionId, Origin, Realm};
use registry::addresses::Transport;
use registry::register::{ImportChunk, ImportReport};
use serde_json::Value;

use super::bed::Bed;
use super::figures::{Figures, rate};
use super::rows::{self, Row};
use super::{import, replication};
use crate::client::Client;
use crate::fault::{Fault, Result};

const NAME: &str = "replicate";
const REALM: &str = "bench.example";

/// What is measured, as the command line says.
pub struct Measured {
    pub records: usize,
    pub children: usize,
    pub seconds: u64,
    /// Whether QUIC is measured beside TCP.
    pub quic: bool,
}

pub fn run(dir: &Path, measured: &Measured, figures: &mut Figures) -> Result<()> {
    let rows = rows::rows(measured.records)?;
    let plaintext = rows::value_bytes(&rows);
    figures.add(format!("{NAME}.records"), rows.len() as f64, "records");
    figures.add(format!("{NAME}.value_bytes"), plaintext, "bytes");
    let tcp = Transport::Tcp;
    let small = filling(&dir.join("fill-small"), &rows[..rows.len() / 10], tcp)?;
    let full = filling(&dir.join("fill"), &rows, tcp)?;
    let reached = rate(full.moved.entries, full.moved.taken);
    figures.add(NAME, reached, "entries/s");
    let records = rate(rows.len() as u64, full.moved.taken);
    figures.add(format!("{NAME}.records_per_second"), records, "records/s");
    let each = 1e6 / full.moved.entries as f64;
    figures.add(format!("{NAME}.parent.cpu"), full.parent * each, "core-us");
    figures.add(format!("{NAME}.child.cpu"), full.child * each, "core-us");
    figures.add(format!("{NAME}.parent.peak"), full.peak, "MB");
    // Ten times the backlog is to take no more memory.
    let tenth = format!("{NAME}.parent.peak.of_a_tenth");
    figures.add(tenth, small.peak, "MB");
    if measured.quic {
        over_quic(&dir.join("fill-quic"), &rows, reached, figures)?;
    }
    let beside = postgres::run(dir, rows.len(), figures)?;
    if let Some(beside) = beside {
        for (name, value) in [("copy", beside.copy), ("streaming", beside.streaming)] {
            let name = format!("{NAME}.ratio.postgresql_{name}");
            figures.add(name, records / value, "of-peer");
        }
    }
    wire::run(&dir.join("wire"), &rows[..rows.len().min(2_000)], figures)?;
    edits::run(&dir.join("edits"), &rows, figures)?;
    children::run(&dir.join("children"), measured, figures)
}

/// What filling an empty parent took.
struct Filled {
    moved: replication::Moved,
    /// Seconds of a core.
    parent: f64,
    child: f64,
    /// Resident memory of the parent at its largest, in MB.
    peak: f64,
}

/// The same over QUIC, and how that compares with TCP in this run.
fn over_quic(dir: &Path, rows: &[Row], over_tcp: f64, figures: &mut Figures) -> Result<()> {
    let full = filling(dir, rows, Transport::Quic)?;
    let reached = rate(full.moved.entries, full.moved.taken);
    let each = 1e6 / full.moved.entries as f64;
    let name = |part: &str| format!("{NAME}.quic{part}");
    figures.add(name(""), reached, "entries/s");
    figures.add(name(".parent.cpu"), full.parent * each, "core-us");
    figures.add(name(".child.cpu"), full.child * each, "core-us");
    figures.add(name(".parent.peak"), full.peak, "MB");
    figures.add(name(".of_tcp"), reached / over_tcp, "of-peer");
    Ok(())
}

fn filling(dir: &Path, rows: &[Row], transport: Transport) -> Result<Filled> {
    let mut bed = Bed::over(dir, transport)?;
    import::unmeasured(&bed, rows)?;
    let (entries, _) = replication::ledger(&bed)?;
    let parent = peak::pid(&bed.parent_dir())?;
    let before = peak::cpu(parent)?;
    let moved = replication::transfer(&mut bed, entries)?;
    let node = bed.running_child()?;
    let status: Value = Client::remote(&node.url, &node.dir).get("/api/v1/sync")?;
    let over = &status["peers"][0]["transport"];
    if *over != transport.as_str() {
        return Err(Fault::failed(format!(
            "the child is connected over {over}, not over {}; what was measured is not what was asked",
            transport.as_str()
        )));
    }
    let child = peak::pid(&bed.child_dir())?;
    Ok(Filled {
        moved,
        parent: peak::cpu(parent)? - before,
        // From its start: what opening takes is little, and it begins to send at once.
        child: peak::cpu(child)?,
        peak: peak::resident_max(parent)?,
    })
}

/// The ledger of persons of a division.
fn shard(division: &str) -> Result<Origin> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let realm = Realm::new(REALM).map_err(words)?;
    let division = DivisionId::new(division).map_err(words)?;
    Ok(Origin::new(&realm, &division, &rows::kind()?))
}

/// One row to be registered by itself.
fn one(serial: usize, row: &Row) -> Result<ImportChunk> {
    Ok(ImportChunk {
        kind: rows::kind()?,
        source: format!("{serial:064x}"),
        numbers: vec![1],
        rows: vec![row.clone()],
        dry_run: false,
    })
}

fn taken(report: &ImportReport) -> Result<()> {
    if report.rejected == 0 && report.repeated == 0 {
        return Ok(());
    }
    Err(Fault::failed(
        "a sample row was rejected, or was there before; nothing can be measured",
    ))
}

/// Asks a node up to where a ledger is published there: held whole, verified, durable and cosigned.
struct Seen {
    agent: ureq::Agent,
    url: String,
}

impl Seen {
    fn new(url: &str, origin: &Origin) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            agent: config.build().into(),
            url: format!("{url}/ledger/{origin}/checkpoint"),
        }
    }

    fn size(&self) -> Result<u64> {
        let words = |e: ureq::Error| Fault::failed(e.to_string());
        let mut answer = self.agent.get(&self.url).call().map_err(words)?;
        let note = answer.body_mut().read_to_string().map_err(words)?;
        let size = note.lines().nth(1).and_then(|line| line.parse().ok());
        // A ledger that is not there yet has no checkpoint.
        Ok(size.unwrap_or(0))
    }
}
