//! Leave to answer one use case, taken from a decision.
//!
//! Owns [`Permit`], which only [`Decision::permit`] makes. Refuses a filter on a field
//! that may not be searched, and a request of which nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use record::authority::Role;
use record::id::{DivisionId, Hash, Kind, OperatorId, Purpose};
use record::schema::Position;
use serde::Serialize;

use crate::decision::{Decision, Shown};
use crate::denied::{Denied, Reason};
use crate::question::Action;
use crate::rows::RowRule;

/// Which rule refused a field, and whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The rule's id.
    pub rule: String,
    /// Whom to ask.
    pub ask: String,
}

impl Decision {
    /// The permit for these fields, and for finding rows by these filters.
    ///
    /// A requested field that is not allowed is absent from the permit and named in
    /// [`Permit::denied`].
    ///
    /// # Errors
    /// [`Denied`] when no requested field is allowed, or a filter is not: leaving a
    /// filter out would answer another question, and answering it would leak.
    pub fn permit(
        &self,
        requested: &BTreeSet<Position>,
        filters: &[Position],
    ) -> Result<Permit, Denied> {
        let grounds = &self.grounds;
        for position in filters {
            if !self.may_filter(*position) {
                let answer = grounds.answers.get(position);
                return Err(grounds.refusal(*position, answer.map(|answer| &answer.filter)));
            }
        }
        let mut shown = BTreeMap::new();
        let mut denied = BTreeMap::new();
        let mut first = None;
        for position in requested {
            match grounds.fields.get(position) {
                Some(how @ (Shown::Shown | Shown::Masked)) => {
                    shown.insert(*position, *how);
                }
                Some(Shown::Withheld) | None => {
                    let answer = grounds.answers.get(position);
                    let refusal = grounds.refusal(*position, answer.map(|answer| &answer.verdict));
                    first.get_or_insert_with(|| refusal.clone());
                    let Denied { rule, ask, .. } = refusal;
                    denied.insert(*position, Refusal { rule, ask });
                }
            }
        }
        if shown.is_empty() {
            return Err(first.unwrap_or_else(|| Denied::by_default(Reason::NothingPermits)));
        }
        Ok(Permit {
            decision: self.clone(),
            shown,
            denied,
            filters: filters.iter().copied().collect(),
        })
    }
}

/// Leave to answer one use case. Made only by [`Decision::permit`], and bound to
/// the operator, action, kind, division and purpose of its question.
#[derive(Debug)]
pub struct Permit {
    decision: Decision,
    shown: BTreeMap<Position, Shown>,
    denied: BTreeMap<Position, Refusal>,
    filters: BTreeSet<Position>,
}

impl Permit {
    /// The requested fields that are shown or masked; never one that is withheld.
    pub fn shown(&self) -> &BTreeMap<Position, Shown> {
        &self.shown
    }

    /// The requested fields that are not answered.
    pub fn denied(&self) -> &BTreeMap<Position, Refusal> {
        &self.denied
    }

    /// The fields by which rows are filtered or sorted.
    pub fn filters(&self) -> &BTreeSet<Position> {
        &self.filters
    }

    /// The rows in scope.
    pub fn rows(&self) -> &RowRule {
        self.decision.rows()
    }

    /// The hash of the policy set.
    pub fn policy_hash(&self) -> Hash {
        self.decision.policy_hash()
    }

    /// Who asked.
    pub fn operator(&self) -> OperatorId {
        self.decision.operator
    }

    /// The operator's organization.
    pub fn organization(&self) -> &DivisionId {
        &self.decision.grounds.organization
    }

    /// The operator's role.
    pub fn role(&self) -> Role {
        self.decision.grounds.role
    }

    /// The action.
    pub fn action(&self) -> Action {
        self.decision.grounds.action
    }

    /// What for.
    pub fn purpose(&self) -> &Purpose {
        self.decision.purpose()
    }

    /// Whose records.
    pub fn division(&self) -> &DivisionId {
        &self.decision.grounds.division
    }

    /// The kind of record.
    pub fn kind(&self) -> &Kind {
        &self.decision.grounds.kind
    }

    /// The version of the schema that the positions belong to.
    pub fn schema_version(&self) -> u32 {
        self.decision.grounds.schema_version
    }

    /// The purpose of the grant under which the records are held.
    pub fn held_by_grant(&self) -> Option<&Purpose> {
        self.decision.grounds.held_by_grant.as_ref()
    }
}
