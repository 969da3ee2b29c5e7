//! What an organization's role may see or change of a division's records.
//!
//! Owns [`decide`] and [`Decision`], which only it makes. Refuses a question to which
//! no field or no row is the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use record::authority::Role;
use record::id::{DivisionId, Hash, Kind, OperatorId, Purpose};
use record::schema::{Field, Position};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::denied::{DEFAULT_ASK, DEFAULT_RULE, Denied, Reason};
use crate::engine::{Circumstances, Verdict, World, context, field_uid};
use crate::question::{Action, Question};
use crate::residual;
use crate::rows::RowRule;
use crate::set::PolicySet;

/// How a field is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// As it is; of amend and propose: it may be written.
    Shown,
    /// As [`crate::mask()`] leaves it.
    Masked,
    /// Not at all.
    Withheld,
}

/// How one field is answered, and whether rows may be found by it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) shown: Shown,
    pub(crate) verdict: Verdict,
    pub(crate) filter: Verdict,
}

/// What all operators of one organization and role share.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) fields: BTreeMap<Position, Shown>,
    pub(crate) answers: BTreeMap<Position, Answer>,
    pub(crate) asks: BTreeMap<String, String>,
    pub(crate) rows: RowRule,
    pub(crate) row_rule: String,
    pub(crate) policy_hash: Hash,
    pub(crate) organization: DivisionId,
    pub(crate) role: Role,
    pub(crate) action: Action,
    pub(crate) kind: Kind,
    pub(crate) schema_version: u32,
    pub(crate) division: DivisionId,
    pub(crate) held_by_grant: Option<Purpose>,
    pub(crate) purpose: Purpose,
}

/// Fields shown, masked or withheld, and the rows in scope. Made only by [`decide`].
#[derive(Debug, Clone)]
pub struct Decision {
    pub(crate) operator: OperatorId,
    pub(crate) grounds: Arc<Grounds>,
}

/// Decides a question about fields and rows.
///
/// Rules are evaluated once per organization, level, role, grid, action, purpose,
/// division with those above, grant and schema; the set remembers the answer.
///
/// # Errors
/// [`Denied`] when no field is shown or masked, or no row is in scope; it names the
/// rule and whom to ask.
pub fn decide(set: &PolicySet, question: &Question<'_>) -> Result<Decision, Denied> {
    let grounds = set.remember(key(question)?, || evaluate(set, question).map(Arc::new))?;
    Ok(Decision {
        operator: question.asker.operator,
        grounds,
    })
}

/// SHA-256 over everything that a rule can see, so that two questions share an
/// answer only when no rule can tell them apart.
fn key(question: &Question<'_>) -> Result<Hash, Denied> {
    let asker = question.asker;
    let parts = (
        (asker.role, &asker.organization, asker.level, &asker.grid),
        question.action.as_str(),
        question.schema,
        (question.division, question.ancestors),
        question.held_by_grant,
        question.purpose,
    );
    // JSON delimits every part, so that no two different questions read the same.
    let bytes = serde_json::to_vec(&parts).map_err(|_| Denied::by_default(Reason::Failed))?;
    Ok(Sha256::digest(bytes).into())
}

fn evaluate(set: &PolicySet, question: &Question<'_>) -> Result<Grounds, Denied> {
    if !question.action.is_on_fields() {
        return Err(Denied::by_default(Reason::Misplaced));
    }
    let Question { asker, schema, .. } = question;
    let circumstances = Circumstances::Use {
        held_by_grant: question.held_by_grant,
    };
    let context = context(set, question.purpose, &circumstances)?;
    let world = World::new(
        set,
        asker,
        question.division,
        question.ancestors,
        Some(&schema.kind),
        &schema.fields,
    )?;
    let answers = answer_fields(&world, question, &context);
    if answers
        .values()
        .all(|answer| answer.shown == Shown::Withheld)
    {
        let (position, answer) = answers
            .first_key_value()
            .ok_or_else(|| Denied::by_default(Reason::UnknownField))?;
        let refused = answer.verdict.clone().allowed(set);
        refused.map_err(|denied| denied.of_field(*position))?;
    }
    let action = if question.action.shows() {
        "seeRows"
    } else {
        "changeRows"
    };
    let (rows, verdict) = residual::rows(&world, action, &context);
    let row_rule = verdict.allowed(set)?;
    let asks = answers
        .values()
        .flat_map(|answer| [&answer.verdict, &answer.filter])
        .map(|verdict| (verdict.rule.clone(), set.ask(&verdict.rule).to_owned()))
        .collect();
    Ok(Grounds {
        fields: answers
            .iter()
            .map(|(p, answer)| (*p, answer.shown))
            .collect(),
        answers,
        asks,
        rows,
        row_rule,
        policy_hash: set.hash(),
        organization: asker.organization.clone(),
        role: asker.role,
        action: question.action,
        kind: schema.kind.clone(),
        schema_version: schema.version,
        division: question.division.clone(),
        held_by_grant: question.held_by_grant.cloned(),
        purpose: question.purpose.clone(),
    })
}

/// One verdict for the action, one for filtering; for a refused viewing, one more.
fn answer_fields(
    world: &World<'_>,
    question: &Question<'_>,
    context: &cedar_policy::Context,
) -> BTreeMap<Position, Answer> {
    // An export leaves the house, where a mask would be of no use.
    let maskable = question.action.shows() && question.action != Action::Export;
    let answer = |field: &Field| {
        let ask = |action: &str| world.ask(action, field_uid(field), context);
        let filter = ask(Action::Search.as_str());
        let mut verdict = ask(question.action.as_str());
        let mut shown = if verdict.is_allowed() {
            Shown::Shown
        } else {
            Shown::Withheld
        };
        // What could not be evaluated is denied, not half shown.
        if maskable && matches!(verdict.refused, Some(reason) if reason != Reason::Failed) {
            let masked = ask("masked");
            if masked.is_allowed() {
                (shown, verdict) = (Shown::Masked, masked);
            }
        }
        let answer = Answer {
            shown,
            verdict,
            filter,
        };
        (field.position, answer)
    };
    question.schema.fields.iter().map(answer).collect()
}

impl Grounds {
    fn ask(&self, rule: &str) -> &str {
        self.asks.get(rule).map_or(DEFAULT_ASK, String::as_str)
    }

    pub(crate) fn refusal(&self, position: Position, verdict: Option<&Verdict>) -> Denied {
        let Some(verdict) = verdict else {
            return Denied::by_default(Reason::UnknownField).of_field(position);
        };
        Denied {
            rule: verdict.rule.clone(),
            ask: self.ask(&verdict.rule).to_owned(),
            reason: verdict.refused.unwrap_or(Reason::NothingPermits),
            field: Some(position),
        }
    }
}

impl Decision {
    /// How each field of the schema is answered.
    pub fn fields(&self) -> &BTreeMap<Position, Shown> {
        &self.grounds.fields
    }

    /// Whether rows may be filtered or sorted by this field.
    pub fn may_filter(&self, position: Position) -> bool {
        let answer = self.grounds.answers.get(&position);
        answer.is_some_and(|answer| answer.filter.is_allowed())
    }

    /// The rows in scope.
    pub fn rows(&self) -> &RowRule {
        &self.grounds.rows
    }

    /// The rule that opened the rows.
    pub fn row_rule(&self) -> &str {
        &self.grounds.row_rule
    }

    /// The rule that allowed or denied this field.
    pub fn rule(&self, position: Position) -> &str {
        let answer = self.grounds.answers.get(&position);
        answer.map_or(DEFAULT_RULE, |answer| answer.verdict.rule.as_str())
    }

    /// Whom to ask about this field.
    pub fn ask(&self, position: Position) -> &str {
        self.grounds.ask(self.rule(position))
    }

    /// The hash of the policy set.
    pub fn policy_hash(&self) -> Hash {
        self.grounds.policy_hash
    }

    /// The purpose.
    pub fn purpose(&self) -> &Purpose {
        &self.grounds.purpose
    }

    /// The action.
    pub fn action(&self) -> Action {
        self.grounds.action
    }
}
