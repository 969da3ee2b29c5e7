//! What a change of rules newly shows, for the officer who approves it.
//!
//! Owns the comparison of two sets over given questions. Refuses nothing: a question
//! that a set denies shows nothing under it.

use std::collections::BTreeMap;

use record::authority::Role;
use record::id::{DivisionId, Kind, Purpose};
use record::schema::Position;
use serde::Serialize;

use crate::decision::{Decision, Shown, decide};
use crate::question::Question;
use crate::rows::RowRule;
use crate::set::PolicySet;

/// One field of one division that one organization's role would see more of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// Who would see it.
    pub organization: DivisionId,
    /// In which role.
    pub role: Role,
    /// Doing what.
    pub action: &'static str,
    /// What for.
    pub purpose: Purpose,
    /// Whose records.
    pub division: DivisionId,
    /// The kind.
    pub kind: Kind,
    /// The field.
    pub field: Position,
    /// How it is answered so far.
    pub before: Shown,
    /// How it would be answered.
    pub after: Shown,
    /// Whether the condition on rows differs; it is then to be read, as which of
    /// two conditions is wider is not computed.
    pub rows_differ: bool,
}

/// Every field that `after` shows more of than `before`, or under other rows, in the
/// order of the questions.
pub fn newly_exposed(
    before: &PolicySet,
    after: &PolicySet,
    questions: &[Question<'_>],
) -> Vec<Exposure> {
    questions
        .iter()
        .flat_map(|question| compare(before, after, question))
        .collect()
}

fn compare(before: &PolicySet, after: &PolicySet, question: &Question<'_>) -> Vec<Exposure> {
    let old = decide(before, question).ok();
    let Ok(new) = decide(after, question) else {
        return Vec::new();
    };
    let old_rows = old.as_ref().map_or(&RowRule::Nothing, Decision::rows);
    let nothing = BTreeMap::new();
    let old_fields = old.as_ref().map_or(&nothing, Decision::fields);
    let rows_differ = old_rows != new.rows();
    let exposure = |(field, shown): (&Position, &Shown)| {
        let was = old_fields.get(field).copied().unwrap_or(Shown::Withheld);
        // `Shown` is ordered from most to least visible.
        let more = *shown < was || (rows_differ && *shown != Shown::Withheld);
        more.then(|| Exposure {
            organization: question.asker.organization.clone(),
            role: question.asker.role,
            action: question.action.as_str(),
            purpose: question.purpose.clone(),
            division: question.division.clone(),
            kind: question.schema.kind.clone(),
            field: *field,
            before: was,
            after: *shown,
            rows_differ,
        })
    };
    new.fields().iter().filter_map(exposure).collect()
}
