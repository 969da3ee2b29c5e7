//! Explained times (时钟说明): acts that claim a time after their cosignatures, because the clock of
//! their node was ahead, and which two officers said so of.
//!
//! Owns what such a plan covers, and when it counts. It takes nothing back: verification names the
//! acts ever after, as explained. Refuses to explain what is not late, and an act that claims a
//! later time than the officers saw.

use ledger::checkpoint::verify_cosignature;
use ledger::note::Note;
use record::entry::Entry;
use record::id::{Hash, Origin, UnixMillis};
use record::plan::{Outcome, Work};

use crate::authority::Authority;
use crate::clock::TOLERANCE_MILLIS;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::session::BASIS_MAX;
use crate::table::Head;

/// Acts of one ledger that a plan explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explained {
    /// The plan.
    pub plan: Hash,
    /// Index of the first act.
    pub first: u64,
    /// One more than the index of the last.
    pub end: u64,
    /// The latest time that one of them claims.
    pub claimed: UnixMillis,
    /// The cosignature that bounds when they were.
    pub cosigned: UnixMillis,
    /// Why.
    pub reason: String,
}

impl Explained {
    /// Whether it explains the time of an act.
    pub fn covers(&self, at: u64, signed_at: UnixMillis) -> bool {
        (self.first..self.end).contains(&at)
            && signed_at <= self.claimed
            && signed_at.0 > self.cosigned.0.saturating_add(TOLERANCE_MILLIS)
    }

    /// What there is to say of it, of so many acts.
    pub fn words(&self, acts: u64) -> String {
        let plan = data_encoding::HEXLOWER.encode(&self.plan);
        let minutes = self.claimed.0.saturating_sub(self.cosigned.0) / 60_000;
        let (first, last, reason) = (self.first, self.end.saturating_sub(1), &self.reason);
        format!(
            "第 {first} 至 {last} 条之间有 {acts} 个经办的时间晚于其联署，至多 {minutes} 分钟；方案 {plan} 经两名安全员说明：{reason} / {acts} acts between {first} and {last} claim a time up to {minutes} minutes after their cosignatures; two officers explained it by plan {plan}: {reason}"
        )
    }
}

impl Authority {
    /// What officers explained of a ledger: by a plan of its division that was run, and that another
    /// officer approved while in good standing, whatever became of either since.
    pub(crate) fn explained(&self, origin: &Origin) -> Vec<Explained> {
        let division = origin.division();
        let found = self.plans().filter_map(|(id, plan)| match &plan.work {
            Work::ExplainClock {
                origin: of,
                first,
                end,
                claimed,
                cosigned,
                reason,
            } if of == origin
                && plan.division == division
                && self.plan_closed(id) == Some(Outcome::Run)
                && self.is_genuine(plan)
                && self.was_approved(plan) =>
            {
                Some(Explained {
                    plan: *id,
                    first: *first,
                    end: *end,
                    claimed: *claimed,
                    cosigned: *cosigned,
                    reason: reason.clone(),
                })
            }
            _ => None,
        });
        found.collect()
    }

    /// The time of the earliest cosignature of a witness on a checkpoint: nothing under it is later.
    pub(crate) fn first_cosigned(&self, origin: &Origin, note: &str) -> Option<UnixMillis> {
        let parsed = Note::parse(note.as_bytes()).ok()?;
        let witnesses = self.witnesses(&origin.division(), &parsed);
        let times = witnesses
            .iter()
            .filter_map(|witness| verify_cosignature(note.as_bytes(), witness).ok());
        times
            .min()
            .map(|secs| UnixMillis(secs.saturating_mul(1000)))
    }
}

impl Registry {
    /// The work of a plan that explains the late times of an own ledger: those of the acts which
    /// its newest cosigned checkpoint covers, and which no plan explained before.
    pub(crate) fn explain_work(&self, origin: &Origin, reason: &str) -> Result<Work> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > BASIS_MAX || reason.chars().any(char::is_control) {
            return Err(RegistryError::BadRequest(format!(
                "说明须写明原因，至多 {BASIS_MAX} 字节，不写人名 / say what happened in at most {BASIS_MAX} bytes of one line, and name no person"
            )));
        }
        let head = Head::read(self.store.as_ref(), origin)?;
        if origin.division() != self.config.division || head.size == 0 {
            return Err(RegistryError::NotFound {
                what: "本节点的账本 / ledger of this node",
                name: origin.to_string(),
                next: "the node that wrote a ledger explains its clock; `fangzhi verify` lists the ledgers",
            });
        }
        let (known, cosigned) = {
            let authority = self.authority();
            let note = head.whole.as_deref();
            let cosigned = note.and_then(|note| authority.first_cosigned(origin, note));
            (authority.explained(origin), cosigned)
        };
        let cosigned = cosigned.ok_or_else(|| {
            RegistryError::BadRequest(
                "最新账头尚无联署，时间无从比较；与上级连通后再试 / the newest checkpoint has no cosignature to compare with; connect to the parent and try again".into(),
            )
        })?;
        let mut late: Option<(u64, u64, UnixMillis)> = None;
        crate::chain::each_entry(self.store.as_ref(), origin, |at, _, entry| {
            let Entry::Act(act) = entry else {
                return Ok(());
            };
            let time = act.signed_at;
            if time.0 > cosigned.0.saturating_add(TOLERANCE_MILLIS)
                && !known.iter().any(|known| known.covers(at, time))
            {
                let (first, _, claimed) = late.unwrap_or((at, at, time));
                late = Some((first, at + 1, claimed.max(time)));
            }
            Ok(())
        })?;
        let (first, end, claimed) = late.ok_or_else(|| {
            RegistryError::BadRequest(
                "该账本没有晚于联署而未说明的经办，不必说明 / no act of this ledger claims a time after its cosignatures that is not explained; there is nothing to do".into(),
            )
        })?;
        Ok(Work::ExplainClock {
            origin: origin.clone(),
            first,
            end,
            claimed,
            cosigned,
            reason: reason.to_owned(),
        })
    }
}
