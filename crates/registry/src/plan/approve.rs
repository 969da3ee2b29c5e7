//! Approving (批准): at this node or one above, over the network or by a file carried by hand;
//! and withdrawing.
//!
//! Owns the file of a plan and of an approval. Refuses an approval that would not count, with the
//! reason: a word that lies in a ledger and counts for nothing would only mislead.

use std::path::Path;

use policy::Action;
use record::authority::Statement;
use record::entry::SUITE;
use record::id::{DivisionId, Hash, UnixMillis};
use record::plan::{Approval, Outcome, PLAN_MAX, Plan, Work};
use serde::{Deserialize, Serialize};

use super::list::{PlanLine, PlanState};
use super::{Discounted, NotApproved};
use crate::authority::Authority;
use crate::config::{Files, NodeConfig};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, purpose};
use crate::session::{Session, unlock};

/// The version of both files.
const FORMAT: u32 = 1;
/// The largest of both files.
pub const FILE_MAX: u64 = 64 * 1024;

/// A plan, to be carried to an officer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version of this file.
    pub format: u32,
    /// The plan's canonical bytes, base64. Everything that is shown is read out of these.
    pub plan: String,
}

/// An officer's word, to be carried back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalFile {
    /// The version of this file.
    pub format: u32,
    /// The approval's canonical bytes, base64.
    pub approval: String,
}

fn no_file(what: &str) -> RegistryError {
    RegistryError::BadRequest(format!(
        "不是{what}文件，或已损坏 / no such file, or a damaged one; make it again"
    ))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    // Four characters for three bytes.
    let bounded = text.len() <= PLAN_MAX.div_ceil(3) * 4;
    bounded.then(|| data_encoding::BASE64.decode(text.as_bytes()).ok())?
}

impl PlanFile {
    /// The plan in it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`].
    pub fn plan(&self) -> Result<Plan> {
        base64(&self.plan)
            .filter(|_| self.format == FORMAT)
            .and_then(|bytes| Plan::decode(&bytes).ok())
            .ok_or_else(|| no_file("方案"))
    }
}

impl ApprovalFile {
    /// The approval in it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`].
    pub fn approval(&self) -> Result<Approval> {
        base64(&self.approval)
            .filter(|_| self.format == FORMAT)
            .and_then(|bytes| Approval::decode(&bytes).ok())
            .ok_or_else(|| no_file("批准"))
    }
}

/// The id of a plan from its 64 hexadecimal digits.
///
/// # Errors
/// [`RegistryError::BadRequest`].
pub fn plan_id(text: &str) -> Result<Hash> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| {
        RegistryError::BadRequest(
            "方案号为 64 位十六进制数 / a plan's id is 64 lower-case hexadecimal digits; see `fangzhi keys list`".into(),
        )
    })
}

fn signed(
    plan: &Plan,
    organization: &DivisionId,
    by: (record::id::OperatorId, &ed25519_dalek::SigningKey),
    approved: bool,
    now: UnixMillis,
) -> Approval {
    Approval {
        suite: SUITE,
        plan: plan.id(),
        division: plan.division.clone(),
        organization: organization.clone(),
        operator: by.0,
        approved,
        signed_at: now,
        signature: [0; 64],
    }
    .sign(by.1)
}

/// Signs an approval of a plan in a file with an officer's passphrase. The node of the directory
/// need not run, nor reach the other; whether it counts is decided where it is taken in.
///
/// # Errors
/// [`RegistryError::BadLogin`], or [`RegistryError::BadRequest`] when the file holds another plan
/// than the officer was told of, is over, or is the officer's own.
pub fn sign_file(
    dir: &Path,
    (login, passphrase): (&str, &str),
    file: &PlanFile,
    expected: &Hash,
    approved: bool,
    now: UnixMillis,
) -> Result<ApprovalFile> {
    let plan = file.plan()?;
    if plan.id() != *expected {
        return Err(RegistryError::BadRequest(
            "文件中的方案不是所报的方案 / the file holds another plan than the one named; compare the id with the officer who made it".into(),
        ));
    }
    if now > plan.not_after {
        return Err(NotApproved::Expired.into());
    }
    let config = NodeConfig::read(dir)?;
    let officer = unlock(&Files::new(dir), login, passphrase)?;
    let public = officer.key.verifying_key().to_bytes();
    if officer.operator == plan.made_by || plan.is_signed_by(&public) {
        return Err(Discounted::OwnPlan.into());
    }
    let by = (officer.operator, &officer.key);
    let approval = signed(&plan, &config.division, by, approved, now);
    Ok(ApprovalFile {
        format: FORMAT,
        approval: data_encoding::BASE64.encode(&approval.encode()),
    })
}

impl Authority {
    /// Whether the same officer said the same of a plan before, and it counts.
    fn said_before(&self, plan: &Plan, approval: &Approval, now: UnixMillis) -> bool {
        self.approvals(&approval.plan).iter().any(|known| {
            (&known.organization, known.operator, known.approved)
                == (&approval.organization, approval.operator, approval.approved)
                && self.weigh(plan, known, now).is_ok()
        })
    }
}

impl Registry {
    /// A plan of this node or one below, if it is still open.
    fn open_plan(&self, id: &Hash, now: UnixMillis) -> Result<Plan> {
        let authority = self.authority();
        let plan = authority
            .plan(id)
            .filter(|plan| authority.within(&plan.division, &self.config.division))
            .ok_or(NotApproved::Unknown)?;
        match authority.plan_state(plan, now) {
            PlanState::Waiting { .. } | PlanState::Approved | PlanState::Refused => {
                Ok(plan.clone())
            }
            PlanState::Expired => Err(NotApproved::Expired.into()),
            PlanState::Forged => Err(NotApproved::Forged.into()),
            PlanState::Run | PlanState::Withdrawn | PlanState::InForce | PlanState::Lapsed => {
                Err(NotApproved::Closed.into())
            }
        }
    }

    /// Approves or refuses a plan of this node or one below it.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, the own plan above all, whatever name it was made
    /// under; [`RegistryError::NotApproved`] when it is over.
    pub fn approve(
        &self,
        session: &Session,
        id: &Hash,
        approved: bool,
        now: UnixMillis,
    ) -> Result<PlanLine> {
        let plan = self.open_plan(id, now)?;
        let key = session.key().verifying_key().to_bytes();
        let own = self.authority().made(&plan, &session.operator, &key);
        let ancestors = self.authority().ancestors(&plan.division);
        policy::may(
            self.policies(),
            &self.asker(session),
            Action::Approve,
            &policy::Target::Request {
                division: &plan.division,
                ancestors: &ancestors,
                requested_by: if own { session.operator } else { plan.made_by },
            },
            &purpose("security"),
        )?;
        let by = (session.operator, session.key());
        let approval = signed(&plan, &self.config.division, by, approved, now);
        self.authority().weigh(&plan, &approval, now)?;
        if self.authority().said_before(&plan, &approval, now) {
            return Err(RegistryError::BadRequest(match approved {
                true => "您已批准过此方案，再批不计；尚缺的须由另一名安全员批准 / you approved this plan before, and count once; another officer gives what is missing".into(),
                false => "您已否决过此方案 / you refused this plan before".into(),
            }));
        }
        let signer = session.signer(purpose("security"), None);
        self.state(vec![Statement::Approval(approval)], &signer, now)?;
        self.plan_line(id, now)
    }

    /// A plan as a file for an officer who is not reached over the network.
    ///
    /// # Errors
    /// [`RegistryError::NotApproved`].
    pub fn plan_file(&self, id: &Hash) -> Result<PlanFile> {
        let authority = self.authority();
        let plan = authority.plan(id).ok_or(NotApproved::Unknown)?;
        Ok(PlanFile {
            format: FORMAT,
            plan: data_encoding::BASE64.encode(&plan.encode()),
        })
    }

    /// Takes in an approval that came as a file.
    ///
    /// # Errors
    /// [`RegistryError::Discounted`] with the reason when it would not count.
    pub fn take_approval(
        &self,
        session: &Session,
        file: &ApprovalFile,
        now: UnixMillis,
    ) -> Result<PlanLine> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        let approval = file.approval()?;
        let plan = self.open_plan(&approval.plan, now)?;
        self.authority().weigh(&plan, &approval, now)?;
        if !self.authority().said_before(&plan, &approval, now) {
            let signer = session.signer(purpose("security"), None);
            self.state(vec![Statement::Approval(approval.clone())], &signer, now)?;
        }
        self.plan_line(&approval.plan, now)
    }

    /// Withdraws a plan of this node that was not run, ends a standing order, or stops what moves.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotApproved`] when it is over.
    pub fn withdraw(&self, session: &Session, id: &Hash, now: UnixMillis) -> Result<PlanLine> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        let line = self.plan_line(id, now)?;
        if line.division != self.config.division {
            return Err(NotApproved::Unknown.into());
        }
        // What moves in the background can be stopped: what was on its way is answered, the rest stays.
        let goes_on = match &line.work {
            Work::MoveShard { origin, .. } => self.authority().closing(origin).is_none(),
            Work::ReceiveShard { .. } => true,
            _ => false,
        };
        let run = line.state == PlanState::Run && !goes_on;
        if run || line.state == PlanState::Withdrawn {
            return Err(NotApproved::Closed.into());
        }
        self.end_plan(session, *id, Outcome::Withdrawn, now)?;
        self.plan_line(id, now)
    }
}
