//! How far a moving shard came, for people and programs.

use std::collections::BTreeSet;
use std::time::Duration;

use record::id::{DivisionId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::plan::{Outcome, Plan, Work};
use record::transfer::{TransferOffer, TransferWord};
use serde::Serialize;

use super::close::{ClosedLine, plan_hex};
use crate::authority::transfers::Batch;
use crate::error::{RegistryError, Result};
use crate::node::Registry;

/// The most failures that are listed by name.
const NAMED_MAX: usize = 100;

/// Where a plan that moves records stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MovingState {
    /// It was not run.
    Planned,
    /// The old owner's officers want it; those of the new owner have not said that they take it.
    WaitsForReceiver,
    /// Records move.
    Moving,
    /// Nothing is left to move but what failed, if anything did.
    Done,
    /// Nothing is left, and the shard is closed.
    Closed,
    /// It was withdrawn. What was on its way then is answered; the rest stays.
    Withdrawn,
}

/// A record that did not move.
#[derive(Debug, Clone, Serialize)]
pub struct MovingFailure {
    /// The record in the shard that it was to leave.
    pub record: RecordId,
    /// Its newest version then.
    pub version: u64,
    /// A reason code such as `registered-already` or `too-many-versions`.
    pub reason: Kind,
}

/// A plan that moves records of a shard, and how far it came.
#[derive(Debug, Clone, Serialize)]
pub struct MovingLine {
    /// The plan, hexadecimal.
    pub plan: String,
    /// The shard that the records leave.
    pub origin: Origin,
    /// Who is to own them.
    pub to: DivisionId,
    /// Whether the shard is closed when nothing is left in it.
    pub closes: bool,
    /// The reason or legal basis.
    pub basis: String,
    /// Grids that it is for, at the old owner's node; all when empty.
    pub grids: Vec<String>,
    /// Where it stands.
    pub state: MovingState,
    /// Records to move: at the old owner as of now, elsewhere when the plan was made.
    pub total: u64,
    /// Of them, those that count at the new owner.
    pub done: u64,
    /// Of them, those that are on their way.
    pub under_way: u64,
    /// Of them, those that did not move and stay with the old owner.
    pub failed: u64,
    /// Seconds left at the pace so far; absent when nothing is left or nothing is known yet.
    pub eta: Option<u64>,
    /// When the first was offered.
    pub since: Option<UnixMillis>,
    /// The failures by name, the first of them.
    pub failures: Vec<MovingFailure>,
    /// How the shard was closed.
    pub closed: Option<ClosedLine>,
}

/// What the batches of a plan add up to.
#[derive(Default)]
struct Sums {
    done: u64,
    under_way: u64,
    failed: u64,
    failures: Vec<MovingFailure>,
    since: Option<UnixMillis>,
}

impl Sums {
    fn fail(&mut self, record: RecordId, version: u64, reason: Kind) {
        self.failed += 1;
        if self.failures.len() < NAMED_MAX {
            self.failures.push(MovingFailure {
                record,
                version,
                reason,
            });
        }
    }
}

impl Registry {
    /// Every plan known here that moves records of a shard, the oldest first.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn movings(&self, now: UnixMillis) -> Result<Vec<MovingLine>> {
        let plans: Vec<Plan> = {
            let authority = self.authority();
            let moves = authority.plans().map(|(_, plan)| plan).filter(|plan| {
                matches!(&plan.work, Work::MoveShard { origin, .. } if origin.division() == plan.division)
            });
            moves.cloned().collect()
        };
        let mut lines = Vec::with_capacity(plans.len());
        for plan in &plans {
            lines.extend(self.moving_line(plan, now)?);
        }
        lines.sort_by(|a, b| (a.0, &a.1.plan).cmp(&(b.0, &b.1.plan)));
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or a failure of the store.
    pub fn moving(&self, id: &Hash, now: UnixMillis) -> Result<MovingLine> {
        let unknown = || RegistryError::NotFound {
            what: "迁出方案 / plan that moves a shard",
            name: plan_hex(id),
            next: "see `fangzhi transfer list`",
        };
        let plan = self.authority().plan(id).cloned().ok_or_else(unknown)?;
        let line = self.moving_line(&plan, now)?;
        line.map(|(_, line)| line).ok_or_else(unknown)
    }

    fn moving_line(
        &self,
        plan: &Plan,
        now: UnixMillis,
    ) -> Result<Option<(UnixMillis, MovingLine)>> {
        let Work::MoveShard {
            origin,
            to,
            rows,
            closes,
            basis,
        } = &plan.work
        else {
            return Ok(None);
        };
        let id = plan.id();
        let (batches, ended, received, closed) = {
            let authority = self.authority();
            let of = authority.batches().filter(|batch| batch.plan == id);
            let batches: Vec<Batch> = of.cloned().collect();
            let closed = { authority.closing(origin) }
                .filter(|closed| closed.plan == id)
                .map(ClosedLine::from);
            (
                batches,
                authority.plan_closed(&id),
                authority.is_received(&id, to),
                closed,
            )
        };
        let own = plan.division == self.config.division && !self.keys.is_locked();
        let selection = match own {
            true => self.selection(rows).ok(),
            false => None,
        };
        // Looked at first: what moves meanwhile is then known to have moved, and not counted twice.
        let mut left: Option<BTreeSet<RecordId>> = None;
        if let Some(selection) = selection.as_ref().filter(|_| closed.is_none()) {
            let (mut here, mut after) = (BTreeSet::new(), None);
            loop {
                let (found, more) = self.selected(origin, selection, after)?;
                here.extend(found.iter().map(|one| one.record));
                after = found.last().map(|one| one.record);
                if !more {
                    break;
                }
            }
            left = Some(here);
        }
        let mut sums = Sums::default();
        for offer in batches.iter().flat_map(|batch| self.batch_offers(batch)) {
            if self.add(&mut sums, &offer)
                && let Some(left) = &mut left
            {
                left.remove(&offer.record);
            }
        }
        if left.is_some() {
            for failure in self.failures(&id)? {
                let newest = self.newest(origin, &failure.record)?;
                if newest.is_some_and(|newest| newest.version == failure.version) {
                    sums.fail(failure.record, failure.version, failure.reason);
                }
            }
        }
        let left = left.map(|left| left.len() as u64);
        let planned = { plan.figures.iter() }
            .find(|figure| figure.name.as_str() == "records")
            .map_or(0, |figure| figure.count);
        // What is in force and named here has what is under way and what failed among it.
        let total = left.map_or(planned.max(sums.done + sums.under_way), |left| {
            left + sums.done
        });
        let rest = total.saturating_sub(sums.done + sums.failed);
        let state = match (&closed, ended) {
            (Some(_), _) => MovingState::Closed,
            (None, Some(Outcome::Withdrawn)) => MovingState::Withdrawn,
            (None, None) => MovingState::Planned,
            (None, Some(Outcome::Run)) if !received => MovingState::WaitsForReceiver,
            (None, Some(Outcome::Run)) if rest == 0 && sums.under_way == 0 => MovingState::Done,
            (None, Some(Outcome::Run)) => MovingState::Moving,
        };
        let spent = sums
            .since
            .map(|since| Duration::from_millis(now.0.saturating_sub(since.0)));
        let eta = spent
            .filter(|_| sums.done > 0 && rest > 0 && state == MovingState::Moving)
            .map(|spent| (spent.as_millis() as u64 * rest / sums.done).div_ceil(1000));
        let line = MovingLine {
            plan: plan_hex(&id),
            origin: origin.clone(),
            to: to.clone(),
            closes: *closes,
            basis: basis.clone(),
            grids: selection
                .map(|selection| selection.grids.clone())
                .unwrap_or_default(),
            state,
            total,
            done: sums.done,
            under_way: sums.under_way,
            failed: sums.failed,
            eta,
            since: sums.since,
            failures: sums.failures,
            closed,
        };
        Ok(Some((plan.made_at, line)))
    }

    /// Adds an offer; `true` when it moved.
    fn add(&self, sums: &mut Sums, offer: &TransferOffer) -> bool {
        let since = sums
            .since
            .map_or(offer.offered_at.0, |at| at.0.min(offer.offered_at.0));
        sums.since = Some(UnixMillis(since));
        if self.moved_to(offer).is_some() {
            sums.done += 1;
            return true;
        }
        let (refused, over, again) = {
            let authority = self.authority();
            let refused = match authority.answer(offer).map(|answer| &answer.word) {
                Some(TransferWord::Refused { reason }) => Some(reason.clone()),
                _ => None,
            };
            let newest = authority.offer_of(&offer.origin, &offer.record);
            (
                refused,
                authority.offer_ended(offer).is_some(),
                newest.is_some_and(|newest| newest.id != offer.id),
            )
        };
        match refused {
            // Offered again since, by whatever plan: that offer says how it stands.
            _ if again => {}
            Some(reason) => sums.fail(offer.record, offer.version, reason),
            None if over => {}
            None => sums.under_way += 1,
        }
        false
    }
}
