//! A seeded simulator of replication: whatever drops, lags, lies, crashes or restarts, nothing
//! wrong is ever kept, and when the faults stop, everything arrives.
//!
//! A seed is a run: a topology, a kind of trouble, some hundred steps with faults in which the
//! checks of [`world`] must hold, then none, and convergence within a bounded number of steps.
//! A seed that fails is printed and added to `regressions.txt`, which is run first ever after.
//!
//! `FANGZHI_SIM_SEEDS` says how many seeds (`make soak`: a million), `FANGZHI_SIM_FIRST` where they
//! begin; `FANGZHI_SIM_SEED` runs one.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../sim/mod.rs"]
mod sim;

mod dice;
mod garble;
mod node;
mod tape;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dice::{Dice, Trace};
use world::{Trouble, World};

/// The seeds that failed once, one a line; `#` begins a remark.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ran {
    trace: Trace,
    steps: u64,
    messages: u64,
    trouble: Trouble,
    topology: &'static str,
}

fn run(seed: u64) -> Ran {
    let mut world = World::new(seed);
    let faulty = 100 + Dice::new(!seed).below(400);
    while world.steps < faulty {
        world.step();
        world.check();
    }
    world.heal();
    world.converge();
    world.check();
    Ran {
        trace: world.trace,
        steps: world.steps,
        messages: world.messages,
        trouble: world.trouble,
        topology: world.topology.name,
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a whole number")),
    )
}

/// Past what cargo captures of tests that pass.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Keeps a seed that failed for every later run.
fn keep(seed: u64) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/simulator/regressions.txt"
    );
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path) {
        let _ = writeln!(file, "{seed}");
    }
}

/// Runs seeds on all processors; stops at the first that fails.
fn run_all(seeds: &[u64]) -> (u64, u64) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let (steps, messages) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(at) else { return };
                    match catch_unwind(AssertUnwindSafe(|| run(*seed))) {
                        Ok(ran) => {
                            steps.fetch_add(ran.steps, Ordering::Relaxed);
                            messages.fetch_add(ran.messages, Ordering::Relaxed);
                        }
                        Err(_) => failed.store(*seed, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        keep(failed);
        let World {
            trouble, topology, ..
        } = World::new(failed);
        panic!(
            "seed {failed} ({trouble:?}, {}) failed, see above; it is kept in regressions.txt. Again: \
             FANGZHI_SIM_SEED={failed} cargo test -p sync --test simulator",
            topology.name
        );
    }
    (steps.into_inner(), messages.into_inner())
}

fn regressions() -> Vec<u64> {
    let seeds = REGRESSIONS
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty());
    seeds.map(|line| line.parse().unwrap()).collect()
}

#[test]
fn nothing_wrong_is_ever_kept_and_everything_arrives_when_the_faults_stop() {
    if let Some(seed) = number("FANGZHI_SIM_SEED") {
        say(&format!("{:?}", run(seed)));
        return;
    }
    run_all(&regressions());
    let first = number("FANGZHI_SIM_FIRST").unwrap_or(0);
    let count = number("FANGZHI_SIM_SEEDS").unwrap_or(400);
    let seeds: Vec<u64> = (first..first + count).collect();
    let began = Instant::now();
    let (steps, messages) = run_all(&seeds);
    let took = began.elapsed().as_secs_f64();
    say(&format!(
        "{count} seeds, {steps} steps, {messages} messages in {took:.1} s: {:.0} steps a second",
        steps as f64 / took
    ));
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    for seed in 0..24 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}

#[test]
fn every_topology_and_every_trouble_is_among_the_first_seeds() {
    let worlds: Vec<World> = (0..100).map(World::new).collect();
    for topology in tape::topologies() {
        assert!(
            worlds
                .iter()
                .any(|world| world.topology.name == topology.name)
        );
        for trouble in [
            "None",
            "Lines",
            "Forger",
            "Equivocator",
            "Impostors",
            "Revoked",
        ] {
            let has = |world: &World| format!("{:?}", world.trouble).starts_with(trouble);
            assert!(worlds.iter().any(has), "{trouble}");
        }
    }
}
