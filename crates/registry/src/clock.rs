//! The clock (时钟): a time that jumps is alarmed, never silently believed.
//!
//! An entry's time is what the node's clock said. It is bounded from outside: a witness's
//! cosignature carries the witness's time, and both sides of a session compare their clocks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use record::entry::Entry;
use record::id::{Origin, UnixMillis};

use crate::error::Result;
use crate::node::{Registry, lock};
use crate::table::{self, Head};

/// How far two clocks may differ before somebody must look: ten minutes.
pub const TOLERANCE_MILLIS: u64 = 10 * 60 * 1000;

const SKEW: &str = "clock-skew";

/// Whose clocks were found to be apart since the node opened.
#[derive(Default)]
pub(crate) struct Clocks {
    apart: BTreeSet<String>,
    /// Whether an alarm of before may still be there, which nobody compared since.
    compared: bool,
}

/// What a comparison changes.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Apart { minutes: u64 },
    Agree,
}

impl Clocks {
    /// What was said long after it might have been is no sign of a wrong clock, and none of a right
    /// one: cosignatures are given once, and shown again when a note is made anew.
    fn compare(
        &mut self,
        who: &str,
        theirs: UnixMillis,
        since: UnixMillis,
        now: UnixMillis,
    ) -> Option<Turn> {
        let early = since.0.saturating_sub(theirs.0);
        let late = theirs.0.saturating_sub(now.0);
        let apart = early.max(late);
        if apart > TOLERANCE_MILLIS {
            self.apart.insert(who.to_owned());
            let minutes = apart / 60_000;
            return Some(Turn::Apart { minutes });
        }
        let fresh = now.0.saturating_sub(since.0) <= TOLERANCE_MILLIS;
        if !fresh {
            return None;
        }
        let mended = self.apart.remove(who);
        let first = !std::mem::replace(&mut self.compared, true);
        (self.apart.is_empty() && (mended || first)).then_some(Turn::Agree)
    }
}

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

    /// Compares with another node's clock: alarms when it says something else, and takes the alarm
    /// back when all say the same again. What they say was said between `since` and `now`.
    pub fn compare_clock(&self, who: &str, theirs: UnixMillis, since: UnixMillis, now: UnixMillis) {
        let turn = lock(&self.clocks).compare(who, theirs, since, now);
        match turn {
            Some(Turn::Apart { minutes }) => self.clock_alarm(
                SKEW,
                &format!("与上下级时钟相差 {minutes} 分钟 / the clocks of this node and a neighbour are {minutes} minutes apart; set both right"),
                now,
            ),
            Some(Turn::Agree) => {
                if let Err(error) = self.clear_alarm(&self.own("authority"), SKEW) {
                    tracing::warn!(%error, "an alarm about clocks could not be taken back");
                }
            }
            None => {}
        }
    }

    /// When the newest act below a size of an own ledger was signed: no cosignature of that size is
    /// older. The beginning of time when that cannot be told.
    pub(crate) fn signed_at(&self, origin: &Origin, size: u64) -> Result<UnixMillis> {
        let Some(last) = size.checked_sub(1) else {
            return Ok(UnixMillis(0));
        };
        let entry = self.store.get(&table::entry(origin, last))?;
        Ok(match entry.as_deref().map(Entry::decode) {
            Some(Ok(Entry::Act(act))) => act.signed_at,
            _ => UnixMillis(0),
        })
    }

    fn clock_alarm(&self, code: &str, reason: &str, now: UnixMillis) {
        tracing::error!(code, reason, "the clock is in doubt");
        self.alarm(&self.own("authority"), code, reason, Vec::new(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const NOW: UnixMillis = UnixMillis(1_000 * MINUTE);

    fn before(minutes: u64) -> UnixMillis {
        UnixMillis(NOW.0 - minutes * MINUTE)
    }

    #[test]
    fn a_cosignature_that_is_shown_again_later_is_no_skew() {
        let mut clocks = Clocks::default();
        // Signed and cosigned 22 minutes ago; the note was made anew under another key just now.
        assert_eq!(clocks.compare("town", before(22), before(22), NOW), None);
        // Cosigned before it was signed, or after now: no waiting explains that.
        let apart = clocks.compare("town", before(22), before(1), NOW);
        assert_eq!(apart, Some(Turn::Apart { minutes: 21 }));
        let ahead = UnixMillis(NOW.0 + 16 * MINUTE);
        let apart = clocks.compare("town", ahead, before(22), NOW);
        assert_eq!(apart, Some(Turn::Apart { minutes: 16 }));
    }

    #[test]
    fn the_alarm_is_taken_back_once_every_clock_agrees_again() {
        let mut clocks = Clocks::default();
        // One of before the node was opened.
        assert_eq!(clocks.compare("town", NOW, NOW, NOW), Some(Turn::Agree));
        assert_eq!(clocks.compare("town", NOW, NOW, NOW), None);
        for who in ["town", "district"] {
            let turn = clocks.compare(who, before(22), NOW, NOW);
            assert_eq!(turn, Some(Turn::Apart { minutes: 22 }));
        }
        assert_eq!(clocks.compare("town", NOW, NOW, NOW), None);
        // What is old tells nothing.
        assert_eq!(
            clocks.compare("district", before(22), before(22), NOW),
            None
        );
        let turn = clocks.compare("district", before(3), NOW, NOW);
        assert_eq!(turn, Some(Turn::Agree));
    }
}
