//! Every request case of `policies/ALLOW` and `policies/DENY`, decided as its file says.
//!
//! A case is one JSON file named as a sentence. A folder without cases fails.

#![expect(
    clippy::unwrap_used,
    reason = "a case that cannot be read fails the test"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use policy::{
    Action, Asker, Denied, PolicySet, Question, RowAttributes, RowRule, Shown, Target, decide, may,
};
use record::authority::{Level, Role};
use record::id::{DivisionId, Kind, OperatorId, Purpose};
use record::schema::{Field, FieldType, Schema, Sensitivity};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    asker: CaseAsker,
    action: String,
    field: Option<CaseField>,
    division: DivisionId,
    ancestors: Vec<DivisionId>,
    purpose: Purpose,
    held_by_grant: Option<Purpose>,
    holder_level: Option<Level>,
    assessment: Option<bool>,
    own_request: Option<bool>,
    row: Option<CaseRow>,
    /// How the field must be (ALLOW) or must not be (DENY) answered.
    shown: Option<String>,
    /// The rule that must be named.
    rule: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseAsker {
    role: Role,
    organization: DivisionId,
    level: Level,
    grid: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseField {
    id: String,
    #[serde(rename = "type")]
    field_type: FieldType,
    group: Kind,
    sensitivity: Sensitivity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseRow {
    grid: String,
    status: String,
}

const POSITION: u8 = 9;

fn schema_of(field: &CaseField) -> Schema {
    Schema {
        kind: Kind::new("case").unwrap(),
        version: 1,
        name: "案例".into(),
        english: "case".into(),
        fields: vec![Field {
            position: POSITION,
            id: field.id.clone(),
            name: field.id.clone(),
            english: field.id.clone(),
            field_type: field.field_type,
            width: 32,
            group: field.group.clone(),
            sensitivity: field.sensitivity,
            purpose: "case".into(),
            list: None,
            required: false,
            unique: false,
            searchable: false,
            aliases: vec![],
        }],
    }
}

/// The rule that allowed, or the denial.
fn outcome(case: &Case) -> Result<(String, RowRule, Shown), Denied> {
    let set = PolicySet::builtin().unwrap();
    let action: Action = case.action.parse().unwrap();
    let asker = Asker {
        operator: OperatorId([1; 16]),
        role: case.asker.role,
        organization: case.asker.organization.clone(),
        level: case.asker.level,
        grid: case.asker.grid.clone(),
    };
    let (division, ancestors) = (&case.division, case.ancestors.as_slice());
    let positions = BTreeSet::from([POSITION]);
    let schema = case.field.as_ref().map(schema_of);
    if action.is_on_fields() {
        let question = Question {
            asker: &asker,
            action,
            schema: schema.as_ref().expect("the case names a field"),
            division,
            ancestors,
            held_by_grant: case.held_by_grant.as_ref(),
            purpose: &case.purpose,
        };
        let decision = decide(set, &question)?;
        let shown = decision.fields()[&POSITION];
        return Ok((
            decision.rule(POSITION).to_owned(),
            decision.rows().clone(),
            shown,
        ));
    }
    let target = match (action, case.own_request) {
        (Action::Grant, _) => Target::Grant {
            schema: schema.as_ref().expect("the case names a field"),
            positions: &positions,
            division,
            ancestors,
            holder_level: case.holder_level.unwrap(),
            has_assessment: case.assessment.unwrap(),
        },
        (Action::Approve, own) => Target::Request {
            division,
            ancestors,
            requested_by: OperatorId(if own.unwrap() { [1; 16] } else { [2; 16] }),
        },
        _ => Target::Division {
            division,
            ancestors,
        },
    };
    let allowed = may(set, &asker, action, &target, &case.purpose)?;
    Ok((
        allowed.rule().to_owned(),
        allowed.rows().clone(),
        Shown::Shown,
    ))
}

fn check(case: &Case, allow: bool) -> Result<(), String> {
    let expected = match case.shown.as_deref() {
        None | Some("shown") => Shown::Shown,
        Some("masked") => Shown::Masked,
        Some(other) => return Err(format!("`{other}` is not a way to be shown")),
    };
    let outcome = outcome(case);
    let rule = match &outcome {
        Ok((rule, ..)) => rule.clone(),
        Err(denied) => denied.rule.clone(),
    };
    let allowed = outcome.is_ok_and(|(_, rows, shown)| {
        let row = case.row.as_ref().map(|row| RowAttributes {
            grid: Some(&row.grid),
            status: &row.status,
            division: case.division.as_str(),
        });
        shown == expected && row.is_none_or(|row| rows.matches(&row))
    });
    if allowed != allow {
        return Err(format!("allowed: {allowed}, by `{rule}`"));
    }
    match &case.rule {
        Some(named) if *named != rule => Err(format!("rule `{rule}` instead of `{named}`")),
        _ => Ok(()),
    }
}

fn check_folder(folder: &str, allow: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../policies")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no case");
    let faults: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).unwrap();
            let case: Case = match serde_json::from_str(&text) {
                Ok(case) => case,
                Err(error) => return Some(format!("{name}: {error}")),
            };
            check(&case, allow)
                .err()
                .map(|fault| format!("{name}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "{folder}:\n{}", faults.join("\n"));
}

#[test]
fn every_case_in_allow_is_allowed() {
    check_folder("ALLOW", true);
}

#[test]
fn every_case_in_deny_is_denied() {
    check_folder("DENY", false);
}
