//! Commits while compaction runs: most of what is written is soon overwritten, so that segments
//! die, beside a plain file that gets the same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use store::embedded::{Embedded, Options};
use store::{Batch, Store};

use super::{SHARD, VALUE, key, value, words};
use crate::commands::bench::figures::{Figures, percentile};
use crate::commands::bench::limits::{Appending, timed};
use crate::fault::{Fault, Result};

const FOR: Duration = Duration::from_secs(8);
const ROWS: u64 = 100;

pub fn run(folder: &Path, figures: &mut Figures) -> Result<()> {
    let options = Options {
        segment_bytes: 16 << 20,
        ..Options::default()
    };
    let store = Embedded::open(folder, options).map_err(words)?;
    let mut plain = Appending::new(&folder.with_extension("plain"))?;
    let (mut times, mut plain_times) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < FOR {
        let mut batch = Batch::new(SHARD, None);
        let mut bytes = Vec::new();
        for place in 0..ROWS {
            // Nine in ten are overwritten soon, one in ten stays.
            let at = match place {
                0..10 => 1_000_000 + n * 10 + place,
                _ => (n * 90 + place) % 20_000,
            };
            bytes.extend(value(at));
            batch.put(key(at)?, value(at));
        }
        times.push(timed(|| store.commit(&batch).map_err(words))?.1);
        if n % 4 == 0 {
            plain_times.push(plain.append(&bytes)?);
        }
        n += 1;
    }
    let stats = store.stats();
    let written = n * ROWS * VALUE as u64;
    if stats.bytes >= written {
        return Err(Fault::failed(
            "nothing was compacted: the run was too short",
        ));
    }
    for (part, name) in [
        (0.5, "store.commit_in_compaction.p50"),
        (0.99, "store.commit_in_compaction.p99"),
    ] {
        let taken = percentile(&mut times, part);
        figures.add(name, taken, "ms");
        let limit = percentile(&mut plain_times, part);
        figures.limit_of_time((name, taken), "append_and_fsync", limit, "ms");
    }
    let longest = percentile(&mut times, 1.0);
    figures.add("store.commit_in_compaction.longest", longest, "ms");
    figures.add("store.compaction.written", written as f64 / 1e6, "MB");
    figures.add("store.compaction.left", stats.bytes as f64 / 1e6, "MB");
    Ok(())
}
