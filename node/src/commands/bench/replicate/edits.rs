//! One edit (一次改动): how soon it is seen by the parent, and by that one's parent's parent; four
//! nodes in a row, each a process of its own.
//!
//! Seen is what a stranger can ask for: the checkpoint with the edit in it, held whole, verified,
//! durable and cosigned there. Beside it an append of 4 kB with fdatasync, which each hop needs once.

use std::path::Path;
use std::time::{Duration, Instant};

use record::authority::{Level, Role};

use super::{NAME, REALM, Seen, one, shard, taken};
use crate::commands::bench::figures::{Figures, percentile};
use crate::commands::bench::limits::Appending;
use crate::commands::bench::rows::Row;
use crate::commands::realm::{self, Node, Planned};
use crate::fault::{Fault, Result};

const CLERK: &str = "dengji";
/// The most edits; as many rows as there are, when they are fewer.
const EDITS: usize = 400;
/// Between two edits: nothing of one is under way any more when the next comes.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(60);

const fn plan(division: &'static str, level: Level, parent: Option<usize>) -> Planned {
    Planned {
        division,
        name: "测速",
        level,
        code: None,
        parent,
        operators: &[],
    }
}

const PLAN: [Planned; 4] = [
    plan("hop-three", Level::District, None),
    plan("hop-two", Level::Town, Some(0)),
    plan("hop-one", Level::Community, Some(1)),
    Planned {
        operators: &[(CLERK, Role::Clerk)],
        ..plan("desk", Level::Department, Some(2))
    },
];

pub fn run(dir: &Path, rows: &[Row], figures: &mut Figures) -> Result<()> {
    let passphrases = realm::passphrases(&PLAN)?;
    let mut nodes: Vec<Node> = Vec::new();
    for plan in &PLAN {
        let dir = dir.join(plan.division);
        realm::make(REALM, plan, &dir, &nodes, &passphrases)?;
        nodes.push(realm::start(plan, dir)?);
    }
    let [three, _, hop, desk] = nodes.as_slice() else {
        return Err(Fault::failed("a node of the row is missing"));
    };
    realm::enrol_operators(desk, &passphrases, |_| String::new())?;
    let client = realm::client(desk, CLERK, &passphrases)?;
    let origin = shard(desk.plan.division)?;
    let near = Seen::new(&hop.url, &origin);
    let far = Seen::new(&three.url, &origin);
    let path = dir.join("edits.plain");
    let mut plain = Appending::new(&path)?;

    let register = |serial: usize, row: &Row| -> Result<()> {
        let report = client.post("/api/v1/import", &one(serial, row)?)?;
        taken(&report)
    };
    let (first, rest) = rows.split_first().ok_or_else(|| Fault::failed("no rows"))?;
    register(0, first)?;
    let mut size = 0;
    realm::wait("the row of nodes to be connected", LOOK, PATIENCE, || {
        size = far.size()?;
        Ok(size > 0)
    })?;
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut limit = Vec::new();
    for (serial, row) in rest.iter().take(EDITS).enumerate() {
        std::thread::sleep(PAUSE);
        limit.push(plain.append(&[7; 4096])?);
        // The entry and its act.
        size += 2;
        let begun = Instant::now();
        // Watched while it is made: what is seen before the answer comes counts from then.
        let watch = |seen: &Seen| -> Result<Instant> {
            realm::wait("an edit to be seen", LOOK, PATIENCE, || {
                Ok(seen.size()? >= size)
            })?;
            Ok(Instant::now())
        };
        let (answered, near, far) = std::thread::scope(|scope| {
            let near = scope.spawn(|| watch(&near));
            let far = scope.spawn(|| watch(&far));
            let done = register(serial + 1, row).map(|()| Instant::now());
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Instant>>| {
                let stopped = |_| Err(Fault::failed("a watching thread stopped"));
                thread.join().unwrap_or_else(stopped)
            };
            Ok::<_, Fault>((done?, join(near)?, join(far)?))
        })?;
        for (times, time) in times.iter_mut().zip([
            answered - begun,
            near - begun,
            near.saturating_duration_since(answered),
            far.saturating_duration_since(answered),
        ]) {
            times.push(time);
        }
    }
    std::fs::remove_file(&path).map_err(|e| Fault::file(&path, &e))?;
    let names = [
        "acknowledged",
        "seen_since_request",
        "one_hop",
        "three_hops",
    ];
    for (name, times) in names.into_iter().zip(&mut times) {
        for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
            let name = format!("{NAME}.edit.{name}.{word}");
            figures.add(name, percentile(times, part), "ms");
        }
    }
    for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("{NAME}.edit.limit.fsync4k.{word}");
        figures.add(name, percentile(&mut limit, part), "ms");
    }
    Ok(())
}
