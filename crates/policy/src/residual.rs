//! From what Cedar leaves open about an unknown row to a [`RowRule`].
//!
//! Owns every call of Cedar's type-aware partial evaluation (experimental, hence the
//! pinned version). Refuses shapes that it does not know: the whole rule becomes
//! [`RowRule::Nothing`], and so it does when any rule fails.

use cedar_policy::pst::{BinaryOp, Clause, Effect, Expr, Literal, UnaryOp, Var};
use cedar_policy::{Context, PartialEntities, PartialEntityUid, PartialRequest, Policy};

use crate::denied::Reason;
use crate::engine::{Verdict, World, principal, type_name, uid};
use crate::rows::{RowAttribute, RowRule};

/// Which rows the action may touch, and by which rule: a permitting one, or the
/// reason for nothing.
pub(crate) fn rows(world: &World<'_>, action: &str, context: &Context) -> (RowRule, Verdict) {
    compile(world, action, context)
        .unwrap_or_else(|| (RowRule::Nothing, Verdict::denied(Reason::Failed)))
}

fn compile(world: &World<'_>, action: &str, context: &Context) -> Option<(RowRule, Verdict)> {
    let schema = &world.set.schema;
    let entities = PartialEntities::from_concrete(world.entities.clone(), schema).ok()?;
    let request = PartialRequest::new(
        PartialEntityUid::from_concrete(principal()),
        uid("Action", action),
        PartialEntityUid::new(type_name("Row"), None),
        Some(context.clone()),
        schema,
    )
    .ok()?;
    let response = world.set.policies.tpe(&request, &entities, schema).ok()?;
    if response
        .error_forbids()
        .chain(response.error_permits())
        .next()
        .is_some()
    {
        return None;
    }
    let least = |ids: Vec<String>| ids.into_iter().min();
    if let Some(rule) = least(response.true_forbids().map(ToString::to_string).collect()) {
        let refused = Some(Reason::Forbidden);
        return Some((RowRule::Nothing, Verdict { rule, refused }));
    }
    let permitting = response.true_permits().chain(response.residual_permits());
    let Some(rule) = least(permitting.map(ToString::to_string).collect()) else {
        return Some((RowRule::Nothing, Verdict::denied(Reason::NothingPermits)));
    };
    let mut permits = Vec::new();
    if response.true_permits().next().is_some() {
        permits.push(RowRule::All);
    }
    let mut forbids = Vec::new();
    for policy in response.residual_policies() {
        let (effect, condition) = condition(&policy)?;
        match effect {
            Effect::Permit => permits.push(condition),
            Effect::Forbid => forbids.push(condition),
        }
    }
    let rows = RowRule::all_of(vec![
        RowRule::any_of(permits),
        RowRule::any_of(forbids).negated(),
    ]);
    // Conditions can cancel one another out; then nothing is in scope either.
    if rows == RowRule::Nothing {
        return Some((rows, Verdict::denied(Reason::NothingPermits)));
    }
    let refused = None;
    Some((rows, Verdict { rule, refused }))
}

fn condition(policy: &Policy) -> Option<(Effect, RowRule)> {
    let policy = policy.to_pst().ok()?;
    let body = policy.body();
    let clauses: Option<Vec<RowRule>> = body
        .clauses()
        .iter()
        .map(|clause| match clause {
            Clause::When(expr) => rule(expr),
            Clause::Unless(expr) => rule(expr).map(RowRule::negated),
        })
        .collect();
    Some((body.effect, RowRule::all_of(clauses?)))
}

fn rule(expr: &Expr) -> Option<RowRule> {
    match expr {
        Expr::Literal(Literal::Bool(true)) => Some(RowRule::All),
        Expr::Literal(Literal::Bool(false)) => Some(RowRule::Nothing),
        Expr::UnaryOp {
            op: UnaryOp::Not,
            expr,
        } => Some(rule(expr)?.negated()),
        Expr::BinaryOp { op, left, right } => match op {
            BinaryOp::And => Some(RowRule::all_of(vec![rule(left)?, rule(right)?])),
            BinaryOp::Or => Some(RowRule::any_of(vec![rule(left)?, rule(right)?])),
            BinaryOp::Eq => equals(left, right),
            BinaryOp::NotEq => Some(equals(left, right)?.negated()),
            BinaryOp::Contains => contains(left, right),
            _ => None,
        },
        Expr::IfThenElse {
            cond,
            then_expr,
            else_expr,
        } => {
            let condition = rule(cond)?;
            Some(RowRule::any_of(vec![
                RowRule::all_of(vec![condition.clone(), rule(then_expr)?]),
                RowRule::all_of(vec![condition.negated(), rule(else_expr)?]),
            ]))
        }
        _ => None,
    }
}

fn equals(left: &Expr, right: &Expr) -> Option<RowRule> {
    let (attribute, value) = match (attribute(left), attribute(right)) {
        (Some(attribute), None) => (attribute, literal(right)?),
        (None, Some(attribute)) => (attribute, literal(left)?),
        _ => return None,
    };
    Some(RowRule::Equals(attribute, value))
}

fn contains(set: &Expr, member: &Expr) -> Option<RowRule> {
    let Expr::Set(values) = set else { return None };
    let attribute = attribute(member)?;
    let rules: Option<Vec<RowRule>> = values
        .iter()
        .map(|value| Some(RowRule::Equals(attribute, literal(value)?)))
        .collect();
    Some(RowRule::any_of(rules?))
}

fn attribute(expr: &Expr) -> Option<RowAttribute> {
    let Expr::GetAttr { expr, attr } = expr else {
        return None;
    };
    if **expr != Expr::Var(Var::Resource) {
        return None;
    }
    match attr.as_str() {
        "grid" => Some(RowAttribute::Grid),
        "status" => Some(RowAttribute::Status),
        "division" => Some(RowAttribute::Division),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(Literal::String(text)) => Some(text.to_string()),
        _ => None,
    }
}
