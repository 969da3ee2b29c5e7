//! Plans (方案) and who may run them: nothing that destroys or replaces keys is done by one officer.
//!
//! Owns the only way to a [`Warrant`]: a plan in this node's authority ledger, unexpired, approved
//! by another security officer of this node or of one above, and not run before; or a standing
//! order that such a plan put in force. Whatever changes keys takes a `Warrant`, so that the
//! compiler says what was forgotten. Refuses the maker's own approval, whatever name it comes under.

pub mod approve;
pub mod list;
pub mod request;

use policy::Action;
use record::authority::{Role, Statement};
use record::entry::SUITE;
use record::id::{Hash, OperatorId, Origin, UnixMillis};
use record::plan::{Approval, Figure, Outcome, Plan, PlanClosed, StandingOrder, Task, Work};

use crate::authority::Authority;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::Session;

/// How long a plan may be approved and run.
pub const PLAN_MILLIS: u64 = 14 * 24 * 3600 * 1000;

/// Leave to do what a plan says, or what a standing order allows. Made only by this module.
#[derive(Debug, Clone)]
pub struct Warrant {
    plan: Hash,
    work: Option<Work>,
    task: Option<Task>,
}

impl Warrant {
    /// The plan, or the plan that put the standing order in force.
    pub fn plan(&self) -> Hash {
        self.plan
    }

    /// What the plan says; nothing under a standing order.
    pub fn work(&self) -> Option<&Work> {
        self.work.as_ref()
    }

    /// What the standing order allows; nothing under a plan.
    pub fn task(&self) -> Option<Task> {
        self.task
    }
}

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// No such plan here.
    #[error("没有这个方案 / no such plan of this node; see `fangzhi keys list`")]
    Unknown,
    /// Its time is over.
    #[error("方案已过期 / the plan has expired; make it again")]
    Expired,
    /// It was run or withdrawn.
    #[error("方案已执行或已撤回 / the plan was run or withdrawn before; make another")]
    Closed,
    /// An officer refused it.
    #[error("方案被否决 / an officer refused the plan; make another that answers the objection")]
    Refused,
    /// Whom it names did not sign it.
    #[error(
        "方案不是所署安全员所签 / the plan is not signed by the officer whom it names; run `fangzhi verify`, and make it again"
    )]
    Forged,
    /// Approvals are missing.
    #[error(
        "尚缺 {missing} 份批准，须由另一名安全员（本单位或上级）批准 / {missing} approvals are missing: another security officer, here or above, must approve"
    )]
    Missing {
        /// How many.
        missing: usize,
    },
}

/// How many officers beside the maker must approve.
pub fn approvals_needed(work: &Work) -> usize {
    match work {
        // A lost key is replaced by the parent on two officers' word.
        Work::ReplaceCharter { .. } => 2,
        _ => 1,
    }
}

/// Why an approval does not count for a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Discounted {
    /// It names another plan.
    #[error("批准的是另一方案 / it approves another plan; ask for an approval of this one")]
    OtherPlan,
    /// The approving officer made the plan, under this name or another.
    #[error(
        "本人方案不得自批，换登录名也不行 / the maker's own plan, under whatever name; another officer must approve"
    )]
    OwnPlan,
    /// The officer's organization has no say.
    #[error(
        "批准人须属本单位或上级 / the officer is neither of the plan's organization nor of one above it"
    )]
    NotAbove,
    /// Not known here, disabled, or the certificate ran out.
    #[error(
        "批准人在此处无有效证书（未登记、已停用或已过期） / the officer has no certificate in force here: not enrolled, disabled, expired, or not replicated yet"
    )]
    NoOfficer,
    /// Not a security officer.
    #[error("批准人不是安全员 / the officer is no security officer")]
    NotSecurityOfficer,
    /// Signed by another key, or altered.
    #[error(
        "批准的签名不符 / the signature is not the officer's; the approval was altered, or the officer has another key since"
    )]
    BadSignature,
    /// Signed when the plan was over.
    #[error("批准晚于方案期限 / it was signed after the plan had expired")]
    Late,
}

impl Authority {
    /// Whether an approval counts for its plan: signed by a security officer in good standing,
    /// of the plan's division or one above it, who is not the one who made the plan.
    ///
    /// # Errors
    /// [`Discounted`], the first reason that holds.
    pub fn weigh(
        &self,
        plan: &Plan,
        approval: &Approval,
        now: UnixMillis,
    ) -> std::result::Result<(), Discounted> {
        if approval.plan != plan.id() || approval.division != plan.division {
            return Err(Discounted::OtherPlan);
        }
        if !self.within(&plan.division, &approval.organization) {
            return Err(Discounted::NotAbove);
        }
        let officer = self
            .operator(&approval.organization, &approval.operator)
            .filter(|officer| officer.not_after > now)
            .ok_or(Discounted::NoOfficer)?;
        if self.made(plan, &approval.operator, &officer.key) {
            return Err(Discounted::OwnPlan);
        }
        if officer.role != Role::SecurityOfficer {
            return Err(Discounted::NotSecurityOfficer);
        }
        if !approval.is_signed_by(&officer.key) {
            return Err(Discounted::BadSignature);
        }
        if approval.signed_at > plan.not_after {
            return Err(Discounted::Late);
        }
        Ok(())
    }

    /// Whether an operator, by identifier or by any key that the maker ever had, made a plan.
    pub(crate) fn made(&self, plan: &Plan, operator: &OperatorId, key: &[u8; 32]) -> bool {
        let maker = self.certificates(&plan.division, &plan.made_by);
        plan.made_by == *operator || maker.iter().any(|c| c.key == *key) || plan.is_signed_by(key)
    }

    /// Whether whom the plan names made it: a security officer of its division signed it.
    pub(crate) fn is_genuine(&self, plan: &Plan) -> bool {
        self.certificates(&plan.division, &plan.made_by)
            .iter()
            .any(|c| c.role == Role::SecurityOfficer && plan.is_signed_by(&c.key))
    }

    /// Whether a plan may be run.
    ///
    /// # Errors
    /// [`NotApproved`], the first reason that holds.
    pub fn approved(&self, id: &Hash, now: UnixMillis) -> std::result::Result<&Plan, NotApproved> {
        let plan = self.plan(id).ok_or(NotApproved::Unknown)?;
        if self.plan_closed(id).is_some() {
            return Err(NotApproved::Closed);
        }
        if now > plan.not_after {
            return Err(NotApproved::Expired);
        }
        self.enough(plan, now)?;
        Ok(plan)
    }

    /// Whether a plan is its maker's and has the approvals that it needs.
    pub(crate) fn enough(
        &self,
        plan: &Plan,
        now: UnixMillis,
    ) -> std::result::Result<(), NotApproved> {
        if !self.is_genuine(plan) {
            return Err(NotApproved::Forged);
        }
        // By key: one person under two names is one person.
        let mut officers = std::collections::BTreeSet::new();
        for approval in self.approvals(&plan.id()) {
            if self.weigh(plan, approval, now).is_ok() {
                if !approval.approved {
                    return Err(NotApproved::Refused);
                }
                let officer = self.operator(&approval.organization, &approval.operator);
                officers.extend(officer.map(|officer| officer.key));
            }
        }
        match approvals_needed(&plan.work).saturating_sub(officers.len()) {
            0 => Ok(()),
            missing => Err(NotApproved::Missing { missing }),
        }
    }

    /// The standing order that allows a task on a shard, by its plan's id. It ends, too, when an
    /// officer whose approval it needs is disabled: then others approve another.
    pub fn standing_order(&self, task: Task, origin: &Origin, now: UnixMillis) -> Option<Hash> {
        self.standing_orders(task, origin, now)
            .next()
            .map(|(id, _)| id)
    }

    /// Every standing order in force that allows a task on a shard, by its plan's id.
    pub(crate) fn standing_orders<'a>(
        &'a self,
        task: Task,
        origin: &'a Origin,
        now: UnixMillis,
    ) -> impl Iterator<Item = (Hash, &'a StandingOrder)> {
        let division = origin.division();
        self.plans().filter_map(move |(id, plan)| match &plan.work {
            Work::Order(order)
                if plan.division == division
                    && self.plan_closed(id) == Some(Outcome::Run)
                    && order.not_after > now
                    && order.tasks.contains(&task)
                    && (order.origins.is_empty() || order.origins.contains(origin))
                    && self.enough(plan, now).is_ok() =>
            {
                Some((*id, order))
            }
            _ => None,
        })
    }
}

impl Registry {
    /// Writes down what an officer wants done; another officer approves it.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy.
    pub(crate) fn state_plan(
        &self,
        session: &Session,
        work: Work,
        figures: Vec<Figure>,
        now: UnixMillis,
    ) -> Result<Plan> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        let mut nonce = [0; 16];
        rand_core::Rng::fill_bytes(&mut rng()?, &mut nonce);
        let plan = Plan {
            suite: SUITE,
            division: self.config.division.clone(),
            work,
            made_by: session.operator,
            made_at: now,
            not_after: UnixMillis(now.0 + PLAN_MILLIS),
            figures,
            nonce,
            signature: [0; 64],
        }
        .sign(session.key());
        let signer = session.signer(purpose("security"), None);
        self.state(vec![Statement::Plan(plan.clone())], &signer, now)?;
        Ok(plan)
    }

    /// Leave to run a plan of this node.
    ///
    /// # Errors
    /// [`RegistryError::NotApproved`].
    pub(crate) fn warrant(&self, plan: &Hash, now: UnixMillis) -> Result<Warrant> {
        let authority = self.authority();
        let approved = authority
            .approved(plan, now)
            .and_then(|p| {
                let own = p.division == self.config.division;
                own.then_some(p).ok_or(NotApproved::Unknown)
            })
            .map_err(RegistryError::NotApproved)?;
        Ok(Warrant {
            plan: *plan,
            work: Some(approved.work.clone()),
            task: None,
        })
    }

    /// Leave to do routine work on an own shard, if a standing order allows it.
    pub(crate) fn standing_warrant(
        &self,
        task: Task,
        origin: &Origin,
        now: UnixMillis,
    ) -> Option<Warrant> {
        let plan = self.authority().standing_order(task, origin, now)?;
        Some(Warrant {
            plan,
            work: None,
            task: Some(task),
        })
    }

    /// Runs an approved plan. What takes long goes on in the background; its progress is in the status.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NotApproved`], or what the work itself says.
    pub fn run_plan(&self, session: &Session, plan: &Hash, now: UnixMillis) -> Result<()> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        // One at a time: asked twice at once, a plan is run once.
        let _one = lock(&self.planning);
        let warrant = self.warrant(plan, now)?;
        match warrant.work() {
            Some(Work::RotateEpoch { .. }) => self.rotate_epoch(session, &warrant, now),
            Some(Work::RetireEpoch { .. }) => self.retire_epoch(session, &warrant, now),
            Some(Work::EndGrant { .. }) => self.end_grant(session, &warrant, now),
            Some(Work::Erase { .. }) => self.erase(session, &warrant, now),
            Some(Work::RotateNode { .. }) => self.rotate_node(session, &warrant, now),
            Some(Work::ReplaceCharter { .. }) => self.replace_charter(session, &warrant, now),
            Some(Work::Share { .. }) => self.share_root(session, &warrant, now),
            Some(Work::Officer { .. }) => self.enrol_officer(session, &warrant, now),
            Some(Work::AmendGrant { .. }) => self.amend_grant(session, &warrant, now),
            Some(Work::RotateKek { .. }) => self.rotate_kek(session, &warrant, now),
            Some(Work::Publish { .. }) => self.publish_set(session, &warrant, now),
            // What follows goes on in the background, from the ledgers.
            Some(Work::MoveShard { origin, .. }) => self.refuse_closed(origin),
            // What it explains counts once it is closed as run.
            Some(Work::ExplainClock { .. } | Work::ReceiveShard { .. } | Work::Order(_)) | None => {
                Ok(())
            }
        }?;
        self.close_plan(session, warrant.plan(), now)
    }

    /// Says that a plan was run: it cannot be run again.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn close_plan(&self, session: &Session, plan: Hash, now: UnixMillis) -> Result<()> {
        self.end_plan(session, plan, Outcome::Run, now)
    }

    fn end_plan(
        &self,
        session: &Session,
        plan: Hash,
        outcome: Outcome,
        now: UnixMillis,
    ) -> Result<()> {
        let closed = PlanClosed { plan, outcome };
        let signer = session.signer(purpose("security"), None);
        self.state(vec![Statement::PlanClosed(closed)], &signer, now)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
