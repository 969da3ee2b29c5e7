//! Writing single small batches: one writer, and eight that share syncs, in turn.

use std::path::Path;
use std::time::Duration;

use store::embedded::Embedded;
use store::{Batch, Key, Store};

use super::{SHARD, words};
use crate::commands::bench::figures::{Figures, rate};
use crate::commands::bench::limits::{Appending, timed};
use crate::fault::{Fault, Result};

const WRITERS: u64 = 8;
/// In turns, so that both meet the same machine.
const TURNS: u64 = 5;
const EACH: u64 = 500;

pub fn run(store: &Embedded, dir: &Path, figures: &mut Figures) -> Result<()> {
    let mut plain = Appending::new(&dir.join("small.plain"))?;
    let (mut one, mut eight, mut appends) = <(Duration, Duration, Duration)>::default();
    let mut ratios = Vec::new();
    for turn in 0..TURNS {
        let (_, alone) = timed(|| write(store, WRITERS, turn))?;
        let (_, together) = timed(|| {
            std::thread::scope(|scope| {
                let start = |writer| scope.spawn(move || write(store, writer, turn));
                let writers: Vec<_> = (0..WRITERS).map(start).collect();
                writers.into_iter().try_for_each(|writer| {
                    let ended = writer.join();
                    ended.unwrap_or_else(|_| Err(Fault::failed("a writer stopped")))
                })
            })
        })?;
        for _ in 0..EACH {
            appends += plain.append(&[1; 4096])?;
        }
        ratios.push(alone.as_secs_f64() * WRITERS as f64 / together.as_secs_f64());
        one += alone;
        eight += together;
    }
    let name = "store.one_writer";
    let reached = rate(TURNS * EACH, one);
    figures.add(name, reached, "batches/s");
    let limit = rate(TURNS * EACH, appends);
    figures.limit((name, reached), "append_4kB_and_fsync", limit, "batches/s");
    let together = rate(TURNS * EACH * WRITERS, eight);
    figures.add("store.eight_writers", together, "batches/s");
    figures.add("store.eight_writers_over_one", together / reached, "times");
    ratios.sort_by(f64::total_cmp);
    let best = ratios.last().copied().unwrap_or(f64::NAN);
    figures.add("store.eight_writers_over_one.best_turn", best, "times");
    Ok(())
}

/// One writer's batches, on a shard of its own.
fn write(store: &Embedded, writer: u64, turn: u64) -> Result<()> {
    let shard = format!("{SHARD}-{writer}");
    for n in turn * EACH..(turn + 1) * EACH {
        let mut batch = Batch::new(shard.as_str(), None);
        let key = Key::new(&shard, "small", &n.to_be_bytes()).map_err(words)?;
        batch.put(key, vec![7; 200]);
        store.commit(&batch).map_err(words)?;
    }
    Ok(())
}
