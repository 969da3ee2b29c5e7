//! The clock (时钟): a time that jumps is alarmed, never silently believed.
//!
//! An entry's time is what the node's clock said. It is bounded from outside: a witness's
//! cosignature carries the witness's time, and both sides of a session compare their clocks.

use std::sync::atomic::Ordering;

use record::entry::Entry;
use record::id::{Origin, UnixMillis};

use crate::error::Result;
use crate::node::Registry;
use crate::table::{self, Head};

/// How far two clocks may differ before somebody must look: ten minutes.
pub const TOLERANCE_MILLIS: u64 = 10 * 60 * 1000;

impl Registry {
    /// Takes the time of an own ledger's newest act as a time that has been.
    pub(crate) fn remember_time(&self, origin: &Origin) -> Result<()> {
        let head = Head::read(self.store.as_ref(), origin)?;
        let Some(last) = head.size.checked_sub(1) else {
            return Ok(());
        };
        if let Some(bytes) = self.store.get(&table::entry(origin, last))?
            && let Ok(Entry::Act(act)) = Entry::decode(&bytes)
        {
            self.latest.fetch_max(act.signed_at.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Alarms when the clock says less than it said before.
    pub(crate) fn watch_clock(&self, now: UnixMillis) {
        let latest = self.latest.fetch_max(now.0, Ordering::Relaxed);
        if now.0.saturating_add(TOLERANCE_MILLIS) < latest {
            let minutes = (latest - now.0) / 60_000;
            self.clock_alarm(
                "clock-back",
                &format!("本机时钟比已签名的时间早 {minutes} 分钟 / this clock is {minutes} minutes behind times that were signed already; set it right"),
                now,
            );
        }
    }

    /// Alarms when another node's clock says something else.
    pub fn compare_clock(&self, theirs: UnixMillis, now: UnixMillis) {
        let apart = theirs.0.abs_diff(now.0);
        if apart > TOLERANCE_MILLIS {
            let minutes = apart / 60_000;
            self.clock_alarm(
                "clock-skew",
                &format!("与上下级时钟相差 {minutes} 分钟 / the clocks of this node and a neighbour are {minutes} minutes apart; set both right"),
                now,
            );
        }
    }

    fn clock_alarm(&self, code: &str, reason: &str, now: UnixMillis) {
        tracing::error!(code, reason, "the clock is in doubt");
        self.alarm(&self.own("authority"), code, reason, Vec::new(), now);
    }
}
