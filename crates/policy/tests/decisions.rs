//! Decisions, permits and policy sets through the public interface: what is shown,
//! what is refused, and that a rule which fails denies.

#![expect(clippy::unwrap_used, reason = "a failed setup fails the test")]

use std::collections::BTreeSet;

use policy::{
    Action, Asker, PolicyError, PolicySet, Question, Reason, RowAttributes, RowRule, Shown, Target,
    decide, exposure, may,
};
use record::authority::{Level, Role};
use record::id::{DivisionId, OperatorId, Purpose};
use record::schema::Schema;

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");
const PURPOSES: (&str, &str) = (
    "purposes.json",
    include_str!("../../../policies/purposes.json"),
);
const READING: (&str, &str) = (
    "reading.cedar",
    include_str!("../../../policies/reading.cedar"),
);

const NAME: u8 = 4;
const CITIZEN_NUMBER: u8 = 5;
const WELFARE: u8 = 6;
const PLATE: u8 = 7;

fn schema() -> Schema {
    let field = |position: u8, id: &str, kind: &str, group: &str, sensitivity: &str| {
        serde_json::json!({ "position": position, "id": id, "name": id, "english": id,
            "type": kind, "width": 32, "group": group, "sensitivity": sensitivity,
            "purpose": "registration" })
    };
    serde_json::from_value(serde_json::json!({
        "kind": "person", "version": 1, "name": "人口", "english": "person",
        "fields": [
            field(NAME, "name", "text", "identity", "P2"),
            field(CITIZEN_NUMBER, "citizen_number", "citizen-number", "identity", "P3"),
            field(WELFARE, "welfare", "code", "care", "P4"),
            field(PLATE, "plate", "text", "address", "P0"),
        ],
    }))
    .unwrap()
}

fn division(id: &str) -> DivisionId {
    DivisionId::new(id).unwrap()
}

fn purpose(code: &str) -> Purpose {
    Purpose::new(code).unwrap()
}

fn asker(role: Role, organization: &str, level: Level) -> Asker {
    Asker {
        operator: OperatorId([1; 16]),
        role,
        organization: division(organization),
        level,
        grid: Some("g1".into()),
    }
}

fn ask(
    set: &PolicySet,
    asker: &Asker,
    action: Action,
    code: &str,
) -> Result<policy::Decision, policy::Denied> {
    let question = Question {
        asker,
        action,
        schema: &schema(),
        division: &division("jinfu"),
        ancestors: &[division("dingshan"), division("jiangjin")],
        held_by_grant: None,
        purpose: &purpose(code),
    };
    decide(set, &question)
}

fn set_with(extra: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::parse(SCHEMA, &[PURPOSES, READING, ("extra.cedar", extra)])
}

fn forbid(condition: &str) -> String {
    format!(
        r#"@id("extra") @ask("某人 / somebody")
        forbid (principal, action == Action::"read", resource) when {{ {condition} }};"#
    )
}

fn rows_of(condition: &str, effect: &str) -> RowRule {
    let text = format!(
        r#"@id("all") @ask("某人 / somebody")
        permit (principal, action in [Action::"read", Action::"seeRows"], resource)
        when {{ principal.role == Role::"auditor" }};
        @id("extra") @ask("某人 / somebody")
        {effect} (principal, action == Action::"seeRows", resource) when {{ {condition} }};"#
    );
    let files = [PURPOSES, ("rows.cedar", text.as_str())];
    let set = PolicySet::parse(SCHEMA, &files).unwrap();
    let auditor = asker(Role::Auditor, "jinfu", Level::Community);
    ask(&set, &auditor, Action::Read, "audit").map_or(RowRule::Nothing, |d| d.rows().clone())
}

#[test]
fn a_grid_worker_sees_names_and_masked_numbers_of_the_own_grid() {
    let set = PolicySet::builtin().unwrap();
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let decision = ask(set, &worker, Action::Read, "inspection").unwrap();
    let fields = decision.fields();
    assert_eq!(fields[&NAME], Shown::Shown);
    assert_eq!(fields[&CITIZEN_NUMBER], Shown::Masked);
    assert_eq!(fields[&WELFARE], Shown::Withheld);
    assert!(decision.may_filter(NAME));
    assert!(!decision.may_filter(CITIZEN_NUMBER));
    assert!(!decision.may_filter(63));
    let row = |grid| RowAttributes {
        grid,
        status: "active",
        division: "jinfu",
    };
    assert!(decision.rows().matches(&row(Some("g1"))));
    assert!(!decision.rows().matches(&row(Some("g2"))));
    assert!(!decision.rows().matches(&row(None)));
}

#[test]
fn an_operator_of_another_community_is_denied_and_told_whom_to_ask() {
    let set = PolicySet::builtin().unwrap();
    let other = asker(Role::Clerk, "dingshan-xi", Level::Community);
    let denied = ask(set, &other, Action::Read, "registration").unwrap_err();
    assert_eq!(denied.rule, "only-inside-the-own-organization");
    assert_eq!(denied.reason, Reason::Forbidden);
    assert!(denied.ask.contains(" / "));
}

#[test]
fn a_permit_leaves_refused_fields_out_and_names_them() {
    let set = PolicySet::builtin().unwrap();
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let decision = ask(set, &worker, Action::Read, "inspection").unwrap();
    let permit = decision
        .permit(&[NAME, WELFARE, 40].into(), &[NAME])
        .unwrap();
    assert_eq!(permit.shown().keys().copied().collect::<Vec<_>>(), [NAME]);
    assert_eq!(
        permit.denied()[&WELFARE].rule,
        "grid-worker-sees-no-sensitive-field"
    );
    assert!(permit.denied().contains_key(&40));
    assert_eq!(permit.policy_hash(), set.hash());
    assert_eq!(permit.operator(), OperatorId([1; 16]));
}

#[test]
fn a_filter_without_the_right_and_an_empty_permit_are_denied() {
    let set = PolicySet::builtin().unwrap();
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let decision = ask(set, &worker, Action::Read, "inspection").unwrap();
    let denied = decision
        .permit(&[NAME].into(), &[CITIZEN_NUMBER])
        .unwrap_err();
    assert_eq!(denied.field, Some(CITIZEN_NUMBER));
    assert!(decision.permit(&[WELFARE].into(), &[]).is_err());
    assert!(decision.permit(&BTreeSet::new(), &[]).is_err());
}

#[test]
fn a_remembered_answer_is_not_given_to_another_question() {
    let set = PolicySet::builtin().unwrap();
    let mut worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let first = ask(set, &worker, Action::Read, "inspection").unwrap();
    worker.grid = Some("g2".into());
    let second = ask(set, &worker, Action::Read, "inspection").unwrap();
    assert_ne!(first.rows(), second.rows());
    let mut raised = schema();
    raised.fields[0].sensitivity = record::schema::Sensitivity::P4;
    let question = Question {
        asker: &worker,
        action: Action::Read,
        schema: &raised,
        division: &division("jinfu"),
        ancestors: &[division("dingshan"), division("jiangjin")],
        held_by_grant: None,
        purpose: &purpose("inspection"),
    };
    let third = decide(set, &question).unwrap();
    assert_eq!(third.fields()[&NAME], Shown::Withheld);
    worker.operator = OperatorId([2; 16]);
    let again = ask(set, &worker, Action::Read, "inspection").unwrap();
    let permit = again.permit(&[NAME].into(), &[]).unwrap();
    assert_eq!(permit.operator(), OperatorId([2; 16]));
}

#[test]
fn a_forbid_that_fails_denies_what_is_otherwise_allowed() {
    let clerk = asker(Role::Clerk, "jinfu", Level::Community);
    // Overflows from P2 upward, where Cedar alone would skip the rule and allow.
    let set = set_with(&forbid("resource.sensitivity * 9223372036854775807 < 0")).unwrap();
    let decision = ask(&set, &clerk, Action::Read, "registration").unwrap();
    assert_eq!(decision.fields()[&PLATE], Shown::Shown);
    assert_eq!(decision.fields()[&NAME], Shown::Withheld);
    assert_eq!(decision.rule(NAME), "extra");
    let denied = decision.permit(&[NAME].into(), &[]).unwrap_err();
    assert_eq!(denied.reason, Reason::Failed);
    // The same set without the failing rule allows it.
    let set = set_with("").unwrap();
    let decision = ask(&set, &clerk, Action::Read, "registration").unwrap();
    assert_eq!(decision.fields()[&NAME], Shown::Shown);
}

#[test]
fn a_field_whose_rule_fails_is_not_shown_masked_either() {
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let set = set_with(&forbid("resource.sensitivity * 9223372036854775807 < 0")).unwrap();
    let decision = ask(&set, &worker, Action::Read, "inspection").unwrap();
    assert_eq!(decision.fields()[&CITIZEN_NUMBER], Shown::Withheld);
}

#[test]
fn a_row_rule_that_fails_or_is_not_understood_opens_no_row() {
    for condition in [
        "9223372036854775807 + 1 > 0",
        r#"resource.grid like "g*""#,
        r#"resource in Row::"x""#,
        r#"resource.grid == resource.status"#,
        r#"[resource.grid].contains("g1")"#,
    ] {
        assert_eq!(
            rows_of(condition, "forbid"),
            RowRule::Nothing,
            "{condition}"
        );
    }
}

#[test]
fn row_rules_say_the_same_as_their_condition() {
    type Expected = fn(&str, &str, &str) -> bool;
    let cases: [(&str, Expected); 7] = [
        (r#"resource.grid == principal.grid"#, |g, _, _| g == "g1"),
        (r#""g1" != resource.grid"#, |g, _, _| g != "g1"),
        (r#"["g1", ""].contains(resource.grid)"#, |g, _, _| g != "g2"),
        (
            r#"resource.grid == "g1" && !(resource.status == "closed")"#,
            |g, s, _| g == "g1" && s != "closed",
        ),
        (
            r#"resource.status == "closed" || (resource.division == "jinfu" && resource.grid != "")"#,
            |g, s, d| s == "closed" || (d == "jinfu" && !g.is_empty()),
        ),
        (
            r#"if resource.status == "closed" then resource.grid == "g1" else true"#,
            |g, s, _| s != "closed" || g == "g1",
        ),
        (
            r#"context.granted || principal.grid == "g9" || resource.division == "jinfu""#,
            |_, _, d| d == "jinfu",
        ),
    ];
    for (condition, expected) in cases {
        let rule = rows_of(condition, "forbid");
        for grid in ["", "g1", "g2"] {
            for status in ["active", "closed"] {
                for division in ["jinfu", "other"] {
                    let row = RowAttributes {
                        grid: Some(grid),
                        status,
                        division,
                    };
                    let allowed = !expected(grid, status, division);
                    assert_eq!(rule.matches(&row), allowed, "{condition} {row:?}");
                }
            }
        }
    }
}

#[test]
fn a_set_that_does_not_hold_together_is_refused() {
    let refused = |extra: &str| set_with(extra).unwrap_err();
    let invalid = |extra: &str| {
        let error = refused(extra);
        assert!(matches!(error, PolicyError::Invalid { .. }), "{error}");
    };
    invalid(&forbid(r#"principal.role == Role::"clark""#));
    invalid(&forbid(r#"context.purpose == Purpose::"curiosity""#));
    invalid(&forbid("resource.colour == 3"));
    invalid(&forbid(r#"resource.sensitivity == "P3""#));
    assert!(matches!(
        refused("permit (oops"),
        PolicyError::Syntax { .. }
    ));
    let rule = |extra: &str| {
        let error = refused(extra);
        assert!(matches!(error, PolicyError::Rule { .. }), "{error}");
    };
    rule(r#"@ask("x") permit (principal, action, resource);"#);
    rule(r#"@id("x") permit (principal, action, resource);"#);
    rule(r#"@id("x") @ask("x") permit (principal == ?principal, action, resource);"#);
    rule(&forbid("true").replace("extra", "clerk-reads-own-records"));
    let error = PolicySet::parse(SCHEMA, &[READING]).unwrap_err();
    assert_eq!(error, PolicyError::Purposes);
    let error = PolicySet::parse(SCHEMA, &[PURPOSES, ("notes.txt", "")]).unwrap_err();
    assert!(matches!(error, PolicyError::UnknownFile { .. }));
}

#[test]
fn the_hash_of_a_set_changes_with_any_rule_and_not_with_their_order() {
    let set = set_with("").unwrap();
    let other = set_with(&forbid("context.granted")).unwrap();
    let turned = PolicySet::parse(SCHEMA, &[("extra.cedar", ""), READING, PURPOSES]).unwrap();
    assert_ne!(set.hash(), other.hash());
    assert_eq!(set.hash(), turned.hash());
}

#[test]
fn a_question_with_a_looped_or_endless_tree_is_denied() {
    let set = PolicySet::builtin().unwrap();
    let clerk = asker(Role::Clerk, "jinfu", Level::Community);
    let deep: Vec<DivisionId> = (0..20).map(|n| division(&format!("d{n}"))).collect();
    for ancestors in [&[division("jinfu")][..], &deep] {
        let question = Question {
            asker: &clerk,
            action: Action::Read,
            schema: &schema(),
            division: &division("jinfu"),
            ancestors,
            held_by_grant: None,
            purpose: &purpose("registration"),
        };
        assert_eq!(decide(set, &question).unwrap_err().reason, Reason::Failed);
    }
}

#[test]
fn a_write_is_refused_whole_when_one_field_is_refused() {
    let set = PolicySet::builtin().unwrap();
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let write = |positions: &[u8]| {
        let target = Target::Fields {
            schema: &schema(),
            positions: &positions.iter().copied().collect(),
            division: &division("jinfu"),
            ancestors: &[],
            held_by_grant: None,
        };
        may(
            set,
            &worker,
            Action::Amend,
            &target,
            &purpose("registration"),
        )
    };
    let allowed = write(&[NAME, CITIZEN_NUMBER]).unwrap();
    assert!(matches!(allowed.rows(), RowRule::Equals(..)));
    assert_eq!(write(&[NAME, WELFARE]).unwrap_err().field, Some(WELFARE));
    assert_eq!(write(&[NAME, 40]).unwrap_err().reason, Reason::UnknownField);
    assert!(write(&[]).is_err());
}

#[test]
fn an_action_asked_in_the_wrong_way_is_denied() {
    let set = PolicySet::builtin().unwrap();
    let officer = asker(Role::SecurityOfficer, "jinfu", Level::Community);
    let denied = ask(set, &officer, Action::Rotate, "security").unwrap_err();
    assert_eq!(denied.reason, Reason::Misplaced);
    let target = Target::Division {
        division: &division("jinfu"),
        ancestors: &[],
    };
    // Approving needs to say who requested it.
    let denied = may(
        set,
        &officer,
        Action::Approve,
        &target,
        &purpose("security"),
    )
    .unwrap_err();
    assert_eq!(denied.reason, Reason::Misplaced);
}

#[test]
fn a_change_of_rules_tells_which_fields_it_newly_shows() {
    let before = set_with("").unwrap();
    let after = set_with(
        r#"@id("wider") @ask("某人 / somebody")
        permit (principal, action == Action::"read", resource)
        when { principal.role == Role::"grid-worker" && resource.group == "identity" };"#,
    )
    .unwrap();
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let schema = schema();
    let (jinfu, inspection) = (division("jinfu"), purpose("inspection"));
    let question = Question {
        asker: &worker,
        action: Action::Read,
        schema: &schema,
        division: &jinfu,
        ancestors: &[],
        held_by_grant: None,
        purpose: &inspection,
    };
    let questions = [question];
    let exposed = exposure::newly_exposed(&before, &after, &questions);
    assert_eq!(exposed.len(), 1);
    assert_eq!(exposed[0].field, CITIZEN_NUMBER);
    assert_eq!(exposed[0].before, Shown::Masked);
    assert_eq!(exposed[0].after, Shown::Shown);
    assert!(exposure::newly_exposed(&after, &before, &questions).is_empty());
}

#[test]
fn the_rules_fit_the_schemas_that_the_software_comes_with() {
    let set = PolicySet::builtin().unwrap();
    let person = record::schema::Catalogue::builtin()
        .schema(&"person".parse().unwrap())
        .unwrap();
    let position = |id: &str| person.field(id).unwrap().position;
    let shown = |asker: &Asker, code: &str, granted: Option<&Purpose>| {
        let question = Question {
            asker,
            action: Action::Read,
            schema: person,
            division: &division("jinfu"),
            ancestors: &[division("dingshan"), division("jiangjin")],
            held_by_grant: granted,
            purpose: &purpose(code),
        };
        decide(set, &question).unwrap().fields().clone()
    };
    let worker = asker(Role::GridWorker, "jinfu", Level::Community);
    let fields = shown(&worker, "inspection", None);
    assert_eq!(fields[&position("citizen_number")], Shown::Masked);
    assert_eq!(fields[&position("phone")], Shown::Shown);
    assert_eq!(fields[&position("welfare")], Shown::Withheld);
    let civil = asker(Role::DepartmentOfficer, "civil-affairs", Level::Department);
    let fields = shown(&civil, "welfare", Some(&purpose("welfare")));
    assert!(fields.values().all(|shown| *shown == Shown::Shown));
    let fields = shown(&civil, "employment", Some(&purpose("employment")));
    assert_eq!(fields[&position("welfare")], Shown::Withheld);
    let officer = asker(Role::DistrictOfficer, "jiangjin", Level::District);
    for code in set.purposes() {
        let fields = shown(&officer, code.code.as_str(), None);
        for field in &person.fields {
            if field.sensitivity >= record::schema::Sensitivity::P3 {
                assert_eq!(fields[&field.position], Shown::Withheld, "{}", field.id);
            }
        }
    }
}
