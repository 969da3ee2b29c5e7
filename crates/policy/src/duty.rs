//! What is allowed or not as a whole: writing named fields, granting, auditing,
//! running a node.
//!
//! Owns [`may`] and [`Allowed`], which only it makes. Refuses the whole when one
//! field of it is refused, and an empty list of fields.

use std::collections::BTreeSet;

use record::authority::Level;
use record::id::{DivisionId, Hash, OperatorId, Purpose};
use record::schema::{Position, Schema};

use crate::denied::{Denied, Reason};
use crate::engine::{Circumstances, World, context, field_uid, uid};
use crate::question::{Action, Asker};
use crate::residual;
use crate::rows::RowRule;
use crate::set::PolicySet;

/// On what a duty is exercised.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// Fields that are written: [`Action::Amend`] or [`Action::Propose`].
    Fields {
        /// The kind.
        schema: &'a Schema,
        /// Every position that gets a value.
        positions: &'a BTreeSet<Position>,
        /// Whose records.
        division: &'a DivisionId,
        /// The divisions above it, nearest first.
        ancestors: &'a [DivisionId],
        /// The purpose of the grant under which this node holds them.
        held_by_grant: Option<&'a Purpose>,
    },
    /// Fields that a holder gets keys to: [`Action::Grant`], with the grant's purpose.
    Grant {
        /// The kind.
        schema: &'a Schema,
        /// All positions that the holder could then open, other grants included.
        positions: &'a BTreeSet<Position>,
        /// Whose records.
        division: &'a DivisionId,
        /// The divisions above it, nearest first.
        ancestors: &'a [DivisionId],
        /// The level of the holder's node.
        holder_level: Level,
        /// Whether the grant refers to an impact assessment.
        has_assessment: bool,
    },
    /// A division's node: [`Action::Audit`], [`Action::Administer`],
    /// [`Action::Rotate`], [`Action::Replicate`], [`Action::Transfer`].
    Division {
        /// Whose node.
        division: &'a DivisionId,
        /// The divisions above it, nearest first.
        ancestors: &'a [DivisionId],
    },
    /// What another officer requested: [`Action::Approve`].
    Request {
        /// Whose node it concerns.
        division: &'a DivisionId,
        /// The divisions above it, nearest first.
        ancestors: &'a [DivisionId],
        /// Who requested it.
        requested_by: OperatorId,
    },
}

/// Leave to exercise a duty, made only by [`may`].
#[derive(Debug)]
pub struct Allowed {
    operator: OperatorId,
    action: Action,
    division: DivisionId,
    purpose: Purpose,
    rule: String,
    rows: RowRule,
    policy_hash: Hash,
}

impl Allowed {
    /// Who asked.
    pub fn operator(&self) -> OperatorId {
        self.operator
    }

    /// What is allowed.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whose node or records.
    pub fn division(&self) -> &DivisionId {
        &self.division
    }

    /// What for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// The rule that allowed it; of several fields, the first field's.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Which rows: a grid worker writes those of the own grid. All, when the
    /// target is not fields.
    pub fn rows(&self) -> &RowRule {
        &self.rows
    }

    /// The hash of the policy set.
    pub fn policy_hash(&self) -> Hash {
        self.policy_hash
    }
}

/// Whether the asker may do this to the target, for the purpose.
///
/// # Errors
/// [`Denied`], naming the first field refused, the rule and whom to ask.
pub fn may(
    set: &PolicySet,
    asker: &Asker,
    action: Action,
    target: &Target<'_>,
    purpose: &Purpose,
) -> Result<Allowed, Denied> {
    let (division, rule, rows) = match target {
        Target::Fields {
            schema,
            positions,
            division,
            ancestors,
            held_by_grant,
        } => {
            placed(matches!(action, Action::Amend | Action::Propose))?;
            let circumstances = Circumstances::Use {
                held_by_grant: *held_by_grant,
            };
            let context = context(set, purpose, &circumstances)?;
            let kind = Some(&schema.kind);
            let world = World::new(set, asker, division, ancestors, kind, &schema.fields)?;
            let rule = each_field(&world, action, schema, positions, &context)?;
            let (rows, verdict) = residual::rows(&world, "changeRows", &context);
            verdict.allowed(set)?;
            (*division, rule, rows)
        }
        Target::Grant {
            schema,
            positions,
            division,
            ancestors,
            holder_level,
            has_assessment,
        } => {
            placed(action == Action::Grant)?;
            let circumstances = Circumstances::Sharing {
                holder: *holder_level,
                assessed: *has_assessment,
            };
            let context = context(set, purpose, &circumstances)?;
            let kind = Some(&schema.kind);
            let world = World::new(set, asker, division, ancestors, kind, &schema.fields)?;
            let rule = each_field(&world, action, schema, positions, &context)?;
            (*division, rule, RowRule::All)
        }
        Target::Division {
            division,
            ancestors,
        } => {
            placed(matches!(
                action,
                Action::Audit
                    | Action::Administer
                    | Action::Rotate
                    | Action::Replicate
                    | Action::Transfer
            ))?;
            let rule = on_node(set, asker, action, division, ancestors, purpose, false)?;
            (*division, rule, RowRule::All)
        }
        Target::Request {
            division,
            ancestors,
            requested_by,
        } => {
            placed(action == Action::Approve)?;
            let own = *requested_by == asker.operator;
            let rule = on_node(set, asker, action, division, ancestors, purpose, own)?;
            (*division, rule, RowRule::All)
        }
    };
    Ok(Allowed {
        operator: asker.operator,
        action,
        division: division.clone(),
        purpose: purpose.clone(),
        rule,
        rows,
        policy_hash: set.hash(),
    })
}

fn placed(fits: bool) -> Result<(), Denied> {
    if fits {
        Ok(())
    } else {
        Err(Denied::by_default(Reason::Misplaced))
    }
}

fn each_field(
    world: &World<'_>,
    action: Action,
    schema: &Schema,
    positions: &BTreeSet<Position>,
    context: &cedar_policy::Context,
) -> Result<String, Denied> {
    let mut first = None;
    for position in positions {
        let field = schema
            .at(*position)
            .ok_or_else(|| Denied::by_default(Reason::UnknownField).of_field(*position))?;
        let rule = world
            .ask(action.as_str(), field_uid(field), context)
            .allowed(world.set)
            .map_err(|denied| denied.of_field(*position))?;
        first.get_or_insert(rule);
    }
    first.ok_or_else(|| Denied::by_default(Reason::NothingPermits))
}

fn on_node(
    set: &PolicySet,
    asker: &Asker,
    action: Action,
    division: &DivisionId,
    ancestors: &[DivisionId],
    purpose: &Purpose,
    own_request: bool,
) -> Result<String, Denied> {
    let context = context(set, purpose, &Circumstances::Duty { own_request })?;
    let world = World::new(set, asker, division, ancestors, None, &[])?;
    world
        .ask(
            action.as_str(),
            uid("Division", division.as_str()),
            &context,
        )
        .allowed(set)
}
