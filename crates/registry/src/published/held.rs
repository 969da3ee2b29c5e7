//! Whether a published set counts: two security officers of the realm's root signed for it, each
//! with a key that was in force when the root's ledger took it in.
//!
//! Owns that judgement, from the root's authority ledger alone and for any later time: an officer
//! who was disabled since had signed then. Refuses a statement that only the root's node signed.

use record::authority::{OperatorCertificate, Role};
use record::id::{DivisionId, OperatorId};
use record::plan::Work;
use record::published::Published;

use crate::authority::Authority;

impl Authority {
    /// Whether what a division published, in the entry with which its ledger had this size, was
    /// planned by one of its security officers and approved by another.
    pub(crate) fn is_published(
        &self,
        division: &DivisionId,
        size: u64,
        published: &Published,
    ) -> bool {
        let Some(plan) = self.plan(&published.plan) else {
            return false;
        };
        let meant = matches!(&plan.work, Work::Publish { what, version, hash }
            if *what == published.what && *version == published.version && *hash == published.hash);
        if !meant || plan.division != *division {
            return false;
        }
        let maker = self.officer_then(division, &plan.made_by, size, |key| plan.is_signed_by(key));
        let Some(maker) = maker.filter(|maker| plan.made_at <= maker.not_after) else {
            return false;
        };
        self.approvals(&published.plan).iter().any(|approval| {
            let officer = self.officer_then(division, &approval.operator, size, |key| {
                approval.is_signed_by(key)
            });
            officer.is_some_and(|officer| {
                approval.approved
                    && approval.organization == *division
                    && approval.division == plan.division
                    && approval.signed_at <= plan.not_after
                    && approval.signed_at <= officer.not_after
                    && officer.key != maker.key
                    && !self.made(plan, &approval.operator, &officer.key)
            })
        })
    }

    /// The certificate of a security officer whose key signed something, if the key was in force when
    /// the division's authority ledger had this size.
    fn officer_then(
        &self,
        division: &DivisionId,
        operator: &OperatorId,
        size: u64,
        signed: impl Fn(&[u8; 32]) -> bool,
    ) -> Option<&OperatorCertificate> {
        self.certificates(division, operator)
            .iter()
            .find(|certificate| {
                certificate.role == Role::SecurityOfficer
                    && self
                        .term(division, &certificate.key)
                        .is_some_and(|term| term.operator == *operator && term.covers(size))
                    && signed(&certificate.key)
            })
    }
}
