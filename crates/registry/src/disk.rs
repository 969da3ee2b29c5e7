//! The room on a node's disk, and when it will be full at the rate of the last days.
//!
//! Owns a small history of free bytes, one line an hour for a week, in the file `growth`.
//! Refuses to guess: without an hour of history the forecast is unknown. Losing the file loses the
//! forecast, nothing else.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use record::id::UnixMillis;
use serde::Serialize;

use crate::node::lock;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// Samples kept: a week of hours.
const SAMPLES_MAX: usize = 7 * 24;
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// A forecast beyond this is none: nobody plans for it.
const DAYS_MAX: u64 = 3650;

/// From how many percent on an operator is warned.
pub const WARNING_PERCENT: u8 = 70;
/// From how many percent on room is made at once.
pub const URGENT_PERCENT: u8 = 85;

/// How many bytes were free at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: UnixMillis,
    /// Bytes.
    pub free: u64,
}

/// When the disk is full if it goes on as in the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "days")]
pub enum Forecast {
    /// There is less than an hour of history.
    Unknown,
    /// It does not fill, or not in ten years.
    NotFilling,
    /// In so many whole days.
    Full(u64),
}

impl Forecast {
    /// The days left, if they are known.
    pub fn days(self) -> Option<u64> {
        match self {
            Self::Full(days) => Some(days),
            Self::Unknown | Self::NotFilling => None,
        }
    }
}

/// How much of a disk is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Less than [`WARNING_PERCENT`], or the system does not say.
    Enough,
    /// At least [`WARNING_PERCENT`].
    Little,
    /// At least [`URGENT_PERCENT`].
    VeryLittle,
}

/// The percentage of a disk that is used, rounded down; `None` when its size is not known.
pub fn used_percent(free: u64, total: u64) -> Option<u8> {
    let used = u128::from(total.saturating_sub(free)) * 100;
    u8::try_from(used.checked_div(u128::from(total))?).ok()
}

/// What to say of a percentage.
pub fn room(used_percent: Option<u8>) -> Room {
    match used_percent {
        Some(URGENT_PERCENT..) => Room::VeryLittle,
        Some(WARNING_PERCENT..) => Room::Little,
        _ => Room::Enough,
    }
}

/// The forecast for a disk that has `free` bytes left: the straight line nearest to the samples,
/// by least squares, so that compaction's ups and downs do not decide.
pub fn forecast(samples: &[Sample], free: u64) -> Forecast {
    let times = samples.iter().map(|sample| sample.at.0);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
        return Forecast::Unknown;
    };
    if last - first < HOUR {
        return Forecast::Unknown;
    }
    let count = samples.len() as f64;
    let point = |sample: &Sample| ((sample.at.0 - first) as f64, sample.free as f64);
    let mean = |of: fn((f64, f64)) -> f64| samples.iter().map(point).map(of).sum::<f64>() / count;
    let (time, bytes) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = samples.iter().map(|s| (point(s).0 - time).powi(2)).sum();
    let together: f64 = samples
        .iter()
        .map(point)
        .map(|(t, b)| (t - time) * (b - bytes))
        .sum();
    let lost_per_day = -together / spread * DAY as f64;
    let days = free as f64 / lost_per_day;
    if lost_per_day > 0.0 && days <= DAYS_MAX as f64 {
        Forecast::Full(days as u64)
    } else {
        Forecast::NotFilling
    }
}

/// The samples of a node.
pub(crate) struct History {
    file: PathBuf,
    samples: Mutex<Vec<Sample>>,
}

impl History {
    pub(crate) fn open(dir: &Path) -> Self {
        let file = dir.join("growth");
        let bytes = store::atomic::read_bounded(&file, FILE_BYTES_MAX).unwrap_or_default();
        let samples = String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(parse)
            .collect();
        Self {
            file,
            samples: Mutex::new(samples),
        }
    }

    /// Keeps a sample when the last is an hour old.
    pub(crate) fn note(&self, now: UnixMillis, free: u64) {
        let mut samples = lock(&self.samples);
        if !keep(&mut samples, Sample { at: now, free }) {
            return;
        }
        let text: String = samples
            .iter()
            .map(|sample| format!("{} {}\n", sample.at.0, sample.free))
            .collect();
        if let Err(error) = store::atomic::replace(&self.file, text.as_bytes()) {
            tracing::warn!(%error, "the disk's growth was not kept");
        }
    }

    pub(crate) fn forecast(&self, free: u64) -> Forecast {
        forecast(&lock(&self.samples), free)
    }
}

fn parse(line: &str) -> Option<Sample> {
    let (at, free) = line.split_once(' ')?;
    Some(Sample {
        at: UnixMillis(at.parse().ok()?),
        free: free.parse().ok()?,
    })
}

/// Adds a sample if it is time, and forgets what is older than a week, or later than now because
/// the clock was set back.
fn keep(samples: &mut Vec<Sample>, sample: Sample) -> bool {
    let now = sample.at.0;
    samples.retain(|s| s.at.0 <= now && now - s.at.0 <= 7 * DAY);
    if samples.last().is_some_and(|last| now - last.at.0 < HOUR) {
        return false;
    }
    samples.push(sample);
    let surplus = samples.len().saturating_sub(SAMPLES_MAX);
    samples.drain(..surplus);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn hourly(free: impl Fn(u64) -> u64, hours: u64) -> Vec<Sample> {
        (0..hours)
            .map(|hour| Sample {
                at: UnixMillis(1_000 * DAY + hour * HOUR),
                free: free(hour),
            })
            .collect()
    }

    #[test]
    fn without_an_hour_of_history_the_forecast_is_unknown() {
        assert_eq!(forecast(&[], 100 * GB), Forecast::Unknown);
        let one = hourly(|_| 100 * GB, 1);
        assert_eq!(forecast(&one, 100 * GB), Forecast::Unknown);
        let twice = [one[0], one[0]];
        assert_eq!(forecast(&twice, 100 * GB), Forecast::Unknown);
    }

    #[test]
    fn a_disk_that_loses_a_gigabyte_an_hour_is_full_when_they_are_gone() {
        let samples = hourly(|hour| 500 * GB - hour * GB, 48);
        assert_eq!(forecast(&samples, 240 * GB), Forecast::Full(10));
        assert_eq!(forecast(&samples, 23 * GB), Forecast::Full(0));
        assert_eq!(forecast(&samples, 0).days(), Some(0));
    }

    #[test]
    fn a_disk_that_does_not_fill_has_no_day() {
        let same = hourly(|_| 100 * GB, 48);
        assert_eq!(forecast(&same, 100 * GB), Forecast::NotFilling);
        let emptied = hourly(|hour| 100 * GB + hour * GB, 48);
        assert_eq!(forecast(&emptied, 100 * GB), Forecast::NotFilling);
        // A byte an hour: full in a million years.
        let slowly = hourly(|hour| 100 * GB - hour, 48);
        assert_eq!(forecast(&slowly, 100 * GB), Forecast::NotFilling);
    }

    #[test]
    fn compaction_between_two_samples_does_not_turn_the_forecast() {
        // 24 GB a day, and every fifth hour 2 GB come back for an hour.
        let samples = hourly(
            |hour| 500 * GB - hour * GB + if hour % 5 == 0 { 2 * GB } else { 0 },
            96,
        );
        let days = forecast(&samples, 240 * GB).days().unwrap();
        assert!((9..=11).contains(&days), "{days}");
    }

    #[test]
    fn warnings_begin_at_70_and_at_85_percent() {
        let at = |percent: u64| room(used_percent(1000 - percent * 10, 1000));
        assert_eq!((at(0), at(69)), (Room::Enough, Room::Enough));
        assert_eq!((at(70), at(84)), (Room::Little, Room::Little));
        assert_eq!((at(85), at(100)), (Room::VeryLittle, Room::VeryLittle));
        // Rounded down, so that 69.9 is not 70.
        assert_eq!(used_percent(301, 1000), Some(69));
        assert_eq!(room(used_percent(0, 0)), Room::Enough);
        assert_eq!(used_percent(u64::MAX, 5), Some(0));
    }

    #[test]
    fn samples_are_an_hour_apart_and_a_week_old_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path());
        let start = 1_000 * DAY;
        for minute in 0..10 * 24 * 60 {
            history.note(UnixMillis(start + minute * 60_000), 100 * GB - minute);
        }
        let again = History::open(dir.path());
        let samples = lock(&again.samples).clone();
        assert_eq!(samples, *lock(&history.samples));
        assert_eq!(samples.len(), SAMPLES_MAX);
        assert!(samples.windows(2).all(|w| w[1].at.0 - w[0].at.0 == HOUR));
        // The clock was set back: what is later than now is no history.
        again.note(UnixMillis(start), 7);
        assert_eq!(lock(&again.samples).len(), 1);
        std::fs::write(dir.path().join("growth"), "no sample\n5 x\n5 6\n").unwrap();
        assert_eq!(lock(&History::open(dir.path()).samples).len(), 1);
    }
}
