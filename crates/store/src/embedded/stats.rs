//! Counters for the operator.
//!
//! Owns what `doctor` and the metrics show of the embedded engine.
//! Refuses to fail: what the system does not tell is zero.

use std::sync::atomic::Ordering;

use super::Inner;
use crate::Stats;

impl Inner {
    pub(super) fn stats(&self) -> Stats {
        let (stopped, last_sync) = {
            let writer = self.writer();
            (writer.is_stopped(), writer.synced.elapsed())
        };
        let (free_bytes, disk_bytes) = room(&self.dir);
        let state = self.state();
        let bytes = state.files.iter().map(|file| file.bytes).sum();
        let dead: u64 = state.dead.values().sum();
        let marker = state.marker;
        let behind = state.files.iter().map(|file| match file.number {
            number if number == marker.segment => file.bytes.saturating_sub(marker.offset.into()),
            _ if file.from > marker.segment => file.bytes,
            _ => 0,
        });
        Stats {
            shards: state.heads.len() as u64,
            bytes,
            segments: state.files.len() as u64,
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            stopped,
            dead_bytes: dead.min(bytes),
            index_lag: state.recent.len() as u64,
            lag_bytes: behind.sum(),
            marker: (marker.segment, marker.offset),
            last_sync,
            free_bytes,
            disk_bytes,
        }
    }
}

/// Bytes that this user may still write, and bytes of the whole file system.
fn room(dir: &std::path::Path) -> (u64, u64) {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => (
            disk.f_bavail.saturating_mul(disk.f_frsize),
            disk.f_blocks.saturating_mul(disk.f_frsize),
        ),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "cannot ask how much room there is");
            (0, 0)
        }
    }
}
