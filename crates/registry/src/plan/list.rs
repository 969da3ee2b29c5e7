//! Plans as listed: what each asks for, who said what of it, and where it stands.

use record::id::{DivisionId, OperatorId, UnixMillis};
use record::plan::{Approval, Figure, Outcome, Plan, Work};
use serde::Serialize;

use super::NotApproved;
use crate::authority::Authority;
use crate::error::{RegistryError, Result};
use crate::node::Registry;

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum PlanState {
    /// It waits for approvals.
    Waiting {
        /// How many are missing.
        missing: usize,
    },
    /// It may be run.
    Approved,
    /// An officer refused it.
    Refused,
    /// Its time was over before it was run.
    Expired,
    /// It is not signed by whom it names.
    Forged,
    /// It was run.
    Run,
    /// It was withdrawn.
    Withdrawn,
    /// A standing order that is in force.
    InForce,
    /// A standing order whose time is over, or whose approval no longer counts.
    Lapsed,
}

/// What an officer said of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct ApprovalLine {
    /// The officer's organization.
    pub organization: DivisionId,
    /// The officer.
    pub operator: OperatorId,
    /// Whether it approves.
    pub approved: bool,
    /// When.
    pub signed_at: UnixMillis,
    /// Why it does not count; absent when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discounted: Option<String>,
}

/// A plan as listed.
#[derive(Debug, Clone, Serialize)]
pub struct PlanLine {
    /// Its id, hexadecimal.
    pub id: String,
    /// Whose node does it.
    pub division: DivisionId,
    /// What.
    pub work: Work,
    /// Who made it.
    pub made_by: OperatorId,
    /// When.
    pub made_at: UnixMillis,
    /// Until when it may be approved and run.
    pub not_after: UnixMillis,
    /// What it came to when it was made.
    pub figures: Vec<Figure>,
    /// Where it stands.
    pub state: PlanState,
    /// What officers said.
    pub approvals: Vec<ApprovalLine>,
    /// Who would have to take part and is not connected at this moment; of a plan of this node.
    pub unreachable: Vec<DivisionId>,
}

impl Authority {
    /// Where a plan stands.
    pub fn plan_state(&self, plan: &Plan, now: UnixMillis) -> PlanState {
        let id = plan.id();
        match (self.plan_closed(&id), &plan.work) {
            (Some(Outcome::Withdrawn), _) => PlanState::Withdrawn,
            (Some(Outcome::Run), Work::Order(order)) => {
                if order.not_after > now && self.enough(plan, now).is_ok() {
                    PlanState::InForce
                } else {
                    PlanState::Lapsed
                }
            }
            (Some(Outcome::Run), _) => PlanState::Run,
            (None, _) => match self.approved(&id, now) {
                Ok(_) => PlanState::Approved,
                Err(NotApproved::Refused) => PlanState::Refused,
                Err(NotApproved::Missing { missing }) => PlanState::Waiting { missing },
                Err(NotApproved::Expired) => PlanState::Expired,
                Err(NotApproved::Forged | NotApproved::Unknown | NotApproved::Closed) => {
                    PlanState::Forged
                }
            },
        }
    }

    fn approval_line(&self, plan: &Plan, approval: &Approval, now: UnixMillis) -> ApprovalLine {
        let weighed = self.weigh(plan, approval, now);
        ApprovalLine {
            organization: approval.organization.clone(),
            operator: approval.operator,
            approved: approval.approved,
            signed_at: approval.signed_at,
            discounted: weighed.err().map(|reason| reason.to_string()),
        }
    }
}

impl Registry {
    /// The plans of this node and of those below it, the newest first.
    pub fn plans(&self, now: UnixMillis) -> Vec<PlanLine> {
        let plans: Vec<Plan> = {
            let authority = self.authority();
            let here = authority
                .plans()
                .filter(|(_, plan)| authority.within(&plan.division, &self.config.division));
            here.map(|(_, plan)| plan.clone()).collect()
        };
        let mut lines: Vec<PlanLine> = plans.iter().map(|plan| self.shown(plan, now)).collect();
        lines.sort_by(|a, b| (b.made_at, &b.id).cmp(&(a.made_at, &a.id)));
        lines
    }

    /// One plan.
    ///
    /// # Errors
    /// [`RegistryError::NotApproved`] when there is none of this id.
    pub fn plan_line(&self, id: &record::id::Hash, now: UnixMillis) -> Result<PlanLine> {
        let plan = self.authority().plan(id).cloned();
        let plan = plan.ok_or(RegistryError::NotApproved(NotApproved::Unknown))?;
        Ok(self.shown(&plan, now))
    }

    fn shown(&self, plan: &Plan, now: UnixMillis) -> PlanLine {
        let id = plan.id();
        let (state, approvals) = {
            let authority = self.authority();
            let said = authority.approvals(&id).iter();
            let lines = said
                .map(|a| authority.approval_line(plan, a, now))
                .collect();
            (authority.plan_state(plan, now), lines)
        };
        let own = plan.division == self.config.division;
        PlanLine {
            id: data_encoding::HEXLOWER.encode(&id),
            division: plan.division.clone(),
            work: plan.work.clone(),
            made_by: plan.made_by,
            made_at: plan.made_at,
            not_after: plan.not_after,
            figures: plan.figures.clone(),
            state,
            approvals,
            unreachable: if own {
                self.unreachable(&plan.work)
            } else {
                vec![]
            },
        }
    }
}
