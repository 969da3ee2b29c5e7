//! Figures (数据): lines of `name value unit`, printed as they come, or one JSON document.
//!
//! A ratio says how near a figure comes to its limit: 1 is at the limit, 0.5 takes twice as long.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::fault::{Fault, Result};
use crate::output;

/// What was measured so far.
#[derive(Serialize)]
pub struct Figures {
    #[serde(skip)]
    quiet: bool,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Figures {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            figures: Vec::new(),
        }
    }

    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        let value = rounded(value);
        if !self.quiet {
            output::line(format!("{name} {value} {unit}"));
        }
        self.figures.push(Figure { name, value, unit });
    }

    /// A limit of a rate, and how near the rate comes to it.
    pub fn limit(&mut self, of: (&str, f64), limit: &str, value: f64, unit: &'static str) {
        let (name, reached) = of;
        self.add(format!("{name}.limit.{limit}"), value, unit);
        self.add(format!("{name}.ratio.{limit}"), reached / value, "of-limit");
    }

    /// A limit of a time, and how near the time comes to it.
    pub fn limit_of_time(&mut self, of: (&str, f64), limit: &str, value: f64, unit: &'static str) {
        let (name, taken) = of;
        self.add(format!("{name}.limit.{limit}"), value, unit);
        self.add(format!("{name}.ratio.{limit}"), value / taken, "of-limit");
    }
}

/// Four digits say all that a noisy machine can tell.
fn rounded(value: f64) -> f64 {
    if !value.is_finite() || value == 0.0 || value.abs() >= 1000.0 {
        return value.round();
    }
    let places = 3 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

/// What some work took.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// By the clock on the wall, which other work on the machine lengthens.
    pub clock: Duration,
    /// On all cores together, by whatever this process did meanwhile.
    pub cores: Duration,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.clock += more.clock;
        self.cores += more.cores;
    }
}

impl Spent {
    /// Nanoseconds of a core for each of so many.
    pub fn nanos_each(&self, count: u64) -> f64 {
        self.cores.as_secs_f64() * 1e9 / count as f64
    }
}

/// Does some work, and says what it took.
pub fn spent<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Spent)> {
    let (start, before) = (Instant::now(), on_cores()?);
    let done = work()?;
    let cores = on_cores()?.saturating_sub(before);
    let clock = start.elapsed();
    Ok((done, Spent { clock, cores }))
}

/// How long the threads of this process have been on cores, those that ended among them.
fn on_cores() -> Result<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time)
        .map_err(|_| Fault::failed("the time of this process on cores cannot be read here"))
}

/// How many a second.
pub fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The value below which this part of the times lie, in milliseconds.
pub fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len() as f64 * part) as usize;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_four_digits() {
        assert_eq!(rounded(12_345.6), 12_346.0);
        assert_eq!(rounded(0.123_456), 0.1235);
        assert_eq!(rounded(99.999_9), 100.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 0.5), 51.0);
        assert_eq!(percentile(&mut times, 0.99), 100.0);
    }
}
