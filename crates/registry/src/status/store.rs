//! What status, metrics and the doctor say of the store and the disk under it.
//!
//! Owns the words, the warnings and the names of the metrics; `docs/durability.md` explains them.
//! Refuses anything that names a record.

use serde::Serialize;

use super::{Check, Health};
use crate::disk::{self, Forecast, Room};
use crate::node::Registry;
use crate::secrets::DamagedPage;

/// How fast an opening reads what the index does not have, assumed low: measured in release it is
/// several times as much.
const REPLAY_BYTES_PER_SECOND: u64 = 200_000_000;
/// A replay that takes longer is worth a warning.
const REPLAY_SECONDS_MAX: u64 = 10;

/// The store of a node.
#[derive(Debug, Clone, Serialize)]
pub struct StoreLine {
    /// Segment files.
    pub segments: u64,
    /// Bytes in them that are needed.
    pub live_bytes: u64,
    /// Bytes in them that compaction can give back.
    pub dead_bytes: u64,
    /// Entries of the index that are in memory only.
    pub index_lag_entries: u64,
    /// Bytes of segments that the next opening reads again.
    pub index_lag_bytes: u64,
    /// About how long that takes, in milliseconds.
    pub index_replay_ms: u64,
    /// Segment up to which the index is durable.
    pub marker_segment: u32,
    /// Offset in it.
    pub marker_offset: u32,
    /// Since a write was last made durable, in milliseconds.
    pub last_sync_ms: u64,
    /// Whether the store takes no more batches.
    pub stopped: bool,
    /// Bytes that the node may still write; 0 when the system does not say.
    pub disk_free_bytes: u64,
    /// Bytes of the whole disk.
    pub disk_bytes: u64,
    /// How much of it is used, in percent.
    pub disk_used_percent: Option<u8>,
    /// When it is full at the rate of the last days.
    pub forecast: Forecast,
    /// Pages of record secrets that are damaged.
    pub damaged_pages: Vec<DamagedPage>,
    /// Records of own shards that came back from the parent without their secrets.
    pub lost_records: u64,
}

impl Registry {
    /// The store and its disk.
    pub fn store_line(&self) -> StoreLine {
        let stats = self.store.stats();
        StoreLine {
            segments: stats.segments,
            live_bytes: stats.bytes.saturating_sub(stats.dead_bytes),
            dead_bytes: stats.dead_bytes,
            index_lag_entries: stats.index_lag,
            index_lag_bytes: stats.lag_bytes,
            index_replay_ms: stats.lag_bytes.div_ceil(REPLAY_BYTES_PER_SECOND / 1000),
            marker_segment: stats.marker.0,
            marker_offset: stats.marker.1,
            last_sync_ms: u64::try_from(stats.last_sync.as_millis()).unwrap_or(u64::MAX),
            stopped: stats.stopped,
            disk_free_bytes: stats.free_bytes,
            disk_bytes: stats.disk_bytes,
            disk_used_percent: disk::used_percent(stats.free_bytes, stats.disk_bytes),
            forecast: self.growth.forecast(stats.free_bytes),
            damaged_pages: self.damaged_pages.lines(),
            lost_records: self.lost_records().unwrap_or_else(|error| {
                tracing::error!(%error, "records without secrets could not be counted");
                0
            }),
        }
    }

    /// Remembers how much room there is, for the forecast; more often than once an hour does nothing.
    pub fn note_room(&self, now: record::id::UnixMillis) {
        let stats = self.store.stats();
        if stats.disk_bytes > 0 {
            self.growth.note(now, stats.free_bytes);
        }
    }
}

/// Name, help and value of each metric.
pub(super) fn metrics(line: &StoreLine) -> Vec<(&'static str, &'static str, Option<u64>)> {
    vec![
        (
            "fangzhi_store_segments",
            "Segment files.",
            Some(line.segments),
        ),
        (
            "fangzhi_store_live_bytes",
            "Bytes of segment files that are needed.",
            Some(line.live_bytes),
        ),
        (
            "fangzhi_store_dead_bytes",
            "Bytes of segment files that compaction can give back.",
            Some(line.dead_bytes),
        ),
        (
            "fangzhi_store_index_lag_entries",
            "Entries of the index that are in memory only.",
            Some(line.index_lag_entries),
        ),
        (
            "fangzhi_store_index_lag_bytes",
            "Bytes of segment files that the next start reads again.",
            Some(line.index_lag_bytes),
        ),
        (
            "fangzhi_store_index_replay_seconds",
            "About how long the next start reads them.",
            Some(line.index_replay_ms.div_ceil(1000)),
        ),
        (
            "fangzhi_store_marker_segment",
            "Segment up to which the index is durable.",
            Some(line.marker_segment.into()),
        ),
        (
            "fangzhi_store_marker_offset_bytes",
            "Offset in that segment.",
            Some(line.marker_offset.into()),
        ),
        (
            "fangzhi_store_last_sync_age_seconds",
            "Since a write was last made durable.",
            Some(line.last_sync_ms / 1000),
        ),
        (
            "fangzhi_store_stopped",
            "Whether the store takes no more batches.",
            Some(line.stopped.into()),
        ),
        (
            "fangzhi_store_damaged_pages",
            "Pages of record secrets found damaged since the start.",
            Some(line.damaged_pages.len() as u64),
        ),
        (
            "fangzhi_lost_records",
            "Records of own shards that came back without their secrets.",
            Some(line.lost_records),
        ),
        (
            "fangzhi_disk_free_bytes",
            "Bytes that the node may still write.",
            line.disk_used_percent.map(|_| line.disk_free_bytes),
        ),
        (
            "fangzhi_disk_bytes",
            "Bytes of the whole disk.",
            line.disk_used_percent.map(|_| line.disk_bytes),
        ),
        (
            "fangzhi_disk_full_in_seconds",
            "Until the disk is full at the rate of the last days; absent when unknown or not filling.",
            line.forecast
                .days()
                .map(|days| days.saturating_mul(24 * 3600)),
        ),
    ]
}

/// The doctor's checks.
pub(super) fn checks(line: &StoreLine) -> Vec<Check> {
    let check = |check, health, found, next: &str| Check {
        check,
        health,
        found,
        next: match health {
            Health::Ok => String::new(),
            _ => next.to_owned(),
        },
    };
    let (live, dead) = (size(line.live_bytes), size(line.dead_bytes));
    let (lag, seconds) = (line.index_lag_entries, line.index_replay_ms.div_ceil(1000));
    let lag_bytes = size(line.index_lag_bytes);
    let marker = format!("{}:{}", line.marker_segment, line.marker_offset);
    let sync = line.last_sync_ms.div_ceil(1000);
    let slow = seconds > REPLAY_SECONDS_MAX;
    vec![
        check(
            "store",
            if line.stopped {
                Health::Failure
            } else {
                Health::Ok
            },
            format!(
                "{0} 段，有效 {live}，失效 {dead}；{sync} 秒前落盘 / {0} segments, {live} live, {dead} dead; last synced {sync} s ago",
                line.segments
            ),
            "写入失败，已停止收写：看日志，腾出空间或修复磁盘后重启节点，再 `fangzhi verify` / a write failed and the store takes nothing more: see the log, make room or mend the disk, start the node again, then run `fangzhi verify`",
        ),
        check(
            "index",
            if slow { Health::Warning } else { Health::Ok },
            format!(
                "落后 {lag} 项、{lag_bytes}，重放约 {seconds} 秒；标记 {marker} / {lag} entries and {lag_bytes} behind its marker {marker}, at most about {seconds} s to replay"
            ),
            "索引落后：查磁盘是否过慢；按序停止一次节点即可补齐 / the index falls behind: see whether the disk is slow; ending the node in order once brings it up to date",
        ),
        disk_check(line),
        check(
            "secrets",
            if line.damaged_pages.is_empty() {
                Health::Ok
            } else {
                Health::Failure
            },
            damaged(&line.damaged_pages),
            "`fangzhi verify` 列出文件；停节点，从备份取回 `secrets/` 中所列文件，再启动 / run `fangzhi verify`, stop the node, restore the named files of `secrets/` from the backup, start it again",
        ),
        check(
            "lost-records",
            if line.lost_records == 0 {
                Health::Ok
            } else {
                Health::Failure
            },
            lost(line.lost_records),
            "根密钥已分份的，停节点，用 `fangzhi recover export`、`recover rebuild` 在空目录找回密钥；否则按原件补登：`fangzhi erase` 销毁打不开的记录，再导入 / if the root was shared, get the secrets back into an empty directory with `fangzhi recover`; else erase the records that cannot be opened (`fangzhi erase`; importing their file again names them) and register them from their papers",
        ),
    ]
}

fn lost(records: u64) -> String {
    match records {
        0 => "记录均有密钥 / no record is without its secret".into(),
        _ => format!(
            "有 {records} 条记录的密钥未随备份恢复，打不开、查不到 / {records} records came back without their secrets: they cannot be opened, and no reading shows them"
        ),
    }
}

fn damaged(pages: &[DamagedPage]) -> String {
    let records: u64 = pages.iter().map(|page| page.records).sum();
    let numbers: Vec<String> = pages.iter().map(|page| page.page.to_string()).collect();
    match pages {
        [] => "记录密钥未见缺损 / no page of record secrets was found damaged".into(),
        _ => format!(
            "记录密钥第 {0} 页缺损，至今 {records} 条记录打不开 / pages {0} of record secrets are damaged; {records} records could not be opened so far",
            numbers.join(", ")
        ),
    }
}

fn disk_check(line: &StoreLine) -> Check {
    let soon = line.forecast.days().is_some_and(|days| days < 7);
    let (health, next) = match disk::room(line.disk_used_percent) {
        Room::VeryLittle => (
            Health::Warning,
            "尽快腾出空间 / make room now: from a full disk on nothing is registered",
        ),
        Room::Little => (
            Health::Warning,
            "安排扩容 / plan a larger disk, or move what is not the node's elsewhere",
        ),
        Room::Enough if soon => (
            Health::Warning,
            "不足七日即满 / it is full within a week: see what grows, and make room",
        ),
        Room::Enough => (Health::Ok, ""),
    };
    let forecast = match line.forecast {
        Forecast::Unknown => "何时写满未知 / when it is full is unknown".to_owned(),
        Forecast::NotFilling => "未在增长 / it does not fill".to_owned(),
        Forecast::Full(days) => format!("约 {days} 天后写满 / full in about {days} days"),
    };
    let free = size(line.disk_free_bytes);
    let found = match line.disk_used_percent {
        Some(used) => format!("已用 {used}%，余 {free} / {used} % used, {free} free; {forecast}"),
        None => "未知 / unknown: the system does not say how much room there is".to_owned(),
    };
    Check {
        check: "disk",
        health,
        found,
        next: next.to_owned(),
    }
}

/// Bytes in the unit that one reads best.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(used: u64, forecast: Forecast) -> StoreLine {
        StoreLine {
            segments: 3,
            live_bytes: 170_000_000,
            dead_bytes: 4_096,
            index_lag_entries: 12,
            index_lag_bytes: 9_000_000,
            index_replay_ms: 45,
            marker_segment: 3,
            marker_offset: 16,
            last_sync_ms: 1_500,
            stopped: false,
            disk_free_bytes: (100 - used) * 1_000_000_000,
            disk_bytes: 100_000_000_000,
            disk_used_percent: disk::used_percent(100 - used, 100),
            forecast,
            damaged_pages: Vec::new(),
            lost_records: 0,
        }
    }

    fn of(line: &StoreLine, name: &str) -> Check {
        let mut checks = checks(line).into_iter();
        checks.find(|check| check.check == name).unwrap()
    }

    #[test]
    fn the_doctor_warns_of_a_disk_at_70_and_at_85_percent_and_a_week_before_it_is_full() {
        let health = |used, forecast| of(&line(used, forecast), "disk").health;
        assert_eq!(health(69, Forecast::Unknown), Health::Ok);
        assert_eq!(health(69, Forecast::Full(7)), Health::Ok);
        assert_eq!(health(69, Forecast::Full(6)), Health::Warning);
        assert_eq!(health(70, Forecast::NotFilling), Health::Warning);
        assert_eq!(health(85, Forecast::NotFilling), Health::Warning);
        let (little, very) = (line(84, Forecast::Unknown), line(85, Forecast::Unknown));
        assert_ne!(of(&little, "disk").next, of(&very, "disk").next);
        let found = of(&line(43, Forecast::Unknown), "disk").found;
        assert!(found.contains("43 % used, 57.0 GB free"), "{found}");
        assert!(found.contains("unknown"), "{found}");
        let found = of(&line(43, Forecast::Full(40)), "disk").found;
        assert!(found.contains("full in about 40 days"), "{found}");
    }

    #[test]
    fn the_doctor_names_segments_dead_bytes_the_marker_and_the_time_to_replay() {
        let whole = line(43, Forecast::Unknown);
        let store = of(&whole, "store").found;
        assert!(store.contains("3 segments, 170.0 MB live, 4.1 kB dead"));
        assert!(store.contains("last synced 2 s ago"), "{store}");
        let index = of(&whole, "index").found;
        assert!(index.contains("12 entries and 9.0 MB behind its marker 3:16"));
        assert!(index.contains("about 1 s to replay"), "{index}");
        let stopped = StoreLine {
            stopped: true,
            index_replay_ms: 11_000,
            ..whole
        };
        assert_eq!(of(&stopped, "store").health, Health::Failure);
        assert_eq!(of(&stopped, "index").health, Health::Warning);
    }

    #[test]
    fn the_doctor_names_damaged_pages_and_how_many_records_are_lost() {
        let page = |page, records| DamagedPage { page, records };
        let hurt = StoreLine {
            damaged_pages: vec![page(3, 20), page(9, 0)],
            ..line(1, Forecast::Unknown)
        };
        let check = of(&hurt, "secrets");
        assert_eq!(check.health, Health::Failure);
        assert!(check.found.contains("pages 3, 9"), "{}", check.found);
        assert!(check.found.contains("20 records"), "{}", check.found);
    }

    #[test]
    fn an_unknown_forecast_is_no_number_among_the_metrics() {
        let value = |forecast| {
            let metrics = metrics(&line(5, forecast));
            let seconds = metrics
                .iter()
                .find(|m| m.0 == "fangzhi_disk_full_in_seconds");
            seconds.unwrap().2
        };
        assert_eq!(value(Forecast::Unknown), None);
        assert_eq!(value(Forecast::NotFilling), None);
        assert_eq!(value(Forecast::Full(3)), Some(3 * 24 * 3600));
    }
}
