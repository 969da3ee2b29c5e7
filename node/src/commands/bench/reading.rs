//! Reading (查询): one person by citizen number over HTTP, on one connection and on several.
//!
//! In turn with `GET /healthz` of the same server by the same client, an append and fsync of
//! 4 kB, and opening a body in memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bed::Bed;
use super::figures::{Figures, percentile};
use super::limits::{Appending, Sealing, timed};
use super::rows::{self, Row};
use crate::client::Client;
use crate::fault::{Fault, Result};

const ROUNDS: usize = 10;
/// Readings on one connection in a round.
const READINGS: usize = 100;
const CONNECTIONS: [usize; 2] = [1, 4];
const BLOCK: [u8; 4096] = [7; 4096];
/// Requests before the clock starts: the first opens the connection and fills caches.
const WARM_UP: usize = 5;

/// What each took, one by one, and all together by the clock.
#[derive(Default)]
struct Times {
    reading: Vec<Duration>,
    reading_wall: Duration,
    health: Vec<Duration>,
    health_wall: Duration,
    appending: Vec<Duration>,
    opening: Vec<Duration>,
}

pub fn run(bed: &mut Bed, rows: &[Row], figures: &mut Figures) -> Result<()> {
    let shard = bed.shard()?;
    let mut sealing = Sealing::new(&shard)?;
    let path = bed.dir().join("reading.plain");
    let mut plain = Appending::new(&path)?;
    for connections in CONNECTIONS {
        let clients = (0..connections)
            .map(|_| bed.clerk())
            .collect::<Result<Vec<_>>>()?;
        let mut numbers = numbers(rows);
        let mut times = Times::default();
        for client in &clients {
            for number in numbers.by_ref().take(WARM_UP) {
                read(client, number)?;
                health(client)?;
            }
        }
        for _ in 0..ROUNDS {
            let asked: Vec<Vec<&str>> = clients
                .iter()
                .map(|_| numbers.by_ref().take(READINGS).collect())
                .collect();
            let (mut all, wall) = together(&clients, |at, client| {
                asked[at]
                    .iter()
                    .map(|number| read(client, number))
                    .collect()
            })?;
            times.reading.append(&mut all);
            times.reading_wall += wall;
            let (mut all, wall) = together(&clients, |_, client| {
                (0..READINGS).map(|_| health(client)).collect()
            })?;
            times.health.append(&mut all);
            times.health_wall += wall;
            for _ in 0..READINGS {
                times.appending.push(plain.append(&BLOCK)?);
            }
            times
                .opening
                .append(&mut sealing.opening(&rows[..READINGS.min(rows.len())])?);
        }
        report(connections, &mut times, figures);
    }
    std::fs::remove_file(&path).map_err(|e| Fault::file(&path, &e))
}

/// Citizen numbers from all over the register, again and again.
fn numbers(rows: &[Row]) -> impl Iterator<Item = &str> {
    // A stride without a common divisor with any round number of rows visits all of them.
    (0..)
        .map(|at: usize| at.wrapping_mul(7919) % rows.len())
        .filter_map(|at| rows[at].get("citizen_number").map(String::as_str))
        // A newborn has none yet.
        .filter(|number| !number.is_empty())
}

/// Every client at the same time; the times of their requests, and of the whole.
fn together(
    clients: &[Client],
    work: impl Fn(usize, &Client) -> Result<Vec<Duration>> + Sync,
) -> Result<(Vec<Duration>, Duration)> {
    let start = Instant::now();
    let mut all = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let work = &work;
        let threads: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(at, client)| scope.spawn(move || work(at, client)))
            .collect();
        for thread in threads {
            let stopped = || Fault::failed("a reading thread stopped before its end");
            all.extend(thread.join().map_err(|_| stopped())??);
        }
        Ok(())
    })?;
    Ok((all, start.elapsed()))
}

fn read(client: &Client, number: &str) -> Result<Duration> {
    let request = json!({
        "kind": rows::kind()?,
        "where": [{ "field": "citizen_number", "value": number }],
        "purpose": "registration",
        "limit": 1,
    });
    let (answer, time) = timed(|| client.post::<Value>("/api/v1/read", &request))?;
    let found = answer["value"]["rows"].as_array().map_or(0, Vec::len);
    if found != 1 {
        return Err(Fault::failed(format!(
            "a reading by citizen number found {found} records, not one; nothing can be measured"
        )));
    }
    Ok(time)
}

fn health(client: &Client) -> Result<Duration> {
    let (_, time) = timed(|| client.get::<Value>("/healthz"))?;
    Ok(time)
}

fn report(connections: usize, times: &mut Times, figures: &mut Figures) {
    let name = format!("read.{connections}");
    let per_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("{name}.{word}");
        let taken = percentile(&mut times.reading, part);
        figures.add(&name, taken, "ms");
        let mut sum = 0.0;
        for (limit, all) in [
            ("healthz", &mut times.health),
            ("fsync4k", &mut times.appending),
            ("open", &mut times.opening),
        ] {
            let time = percentile(all, part);
            sum += time;
            figures.limit_of_time((&name, taken), limit, time, "ms");
        }
        figures.limit_of_time((&name, taken), "sum", sum, "ms");
    }
    let name = format!("{name}.rate");
    let reached = per_second(times.reading.len(), times.reading_wall);
    figures.add(&name, reached, "readings/s");
    let health = per_second(times.health.len(), times.health_wall);
    figures.limit((&name, reached), "healthz", health, "requests/s");
    let appending: Duration = times.appending.iter().sum();
    let appends = per_second(times.appending.len(), appending);
    figures.limit((&name, reached), "fsync4k", appends, "appends/s");
}
