//! The rules that schemas keep, each by itself and from version to version.
//!
//! A schema that breaks one is refused as a whole: records would be sealed under it for good.

use std::collections::{BTreeMap, BTreeSet};

use super::CatalogueError;
use crate::codes::CodeList;
use crate::id::Kind;
use crate::refused::is_refused;
use crate::schema::{
    CHANGED, Field, FieldType, GRID, POSITION_MAX, Position, STATUS, Schema, Sensitivity,
    VALID_FROM,
};

/// The header under which a column would be recognized: see [`crate::header`].
pub(crate) fn header_keys(field: &Field) -> BTreeSet<String> {
    [&field.id, &field.name, &field.english]
        .into_iter()
        .chain(&field.aliases)
        .map(|name| crate::header::key(name))
        .collect()
}

/// Whether a schema can be worked with, given the lists and kinds that exist.
pub(super) fn schema(
    schema: &Schema,
    lists: &BTreeMap<String, CodeList>,
    kinds: &BTreeSet<&str>,
) -> Result<(), CatalogueError> {
    let whole = |problem| CatalogueError::Schema {
        kind: schema.kind.clone(),
        version: schema.version,
        problem,
    };
    if matches!(
        schema.kind.as_str(),
        "authority" | "access" | "grant" | "recovery" | "proposals" | "answers"
    ) {
        return Err(whole(
            "the name belongs to another ledger; choose another kind",
        ));
    }
    if schema.version == 0 {
        return Err(whole("versions begin with 1"));
    }
    if schema.name.is_empty() || schema.english.is_empty() {
        return Err(whole("a kind needs a Chinese and an English name"));
    }
    if !schema.fields.is_sorted_by(|a, b| a.position < b.position) {
        return Err(whole("the positions must ascend and none may stand twice"));
    }
    let mut ids = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for field in &schema.fields {
        let wrong = |problem| CatalogueError::Field {
            kind: schema.kind.clone(),
            version: schema.version,
            field: field.id.clone(),
            problem,
        };
        usable(field, lists, kinds).map_err(wrong)?;
        if !ids.insert(&field.id) {
            return Err(wrong("the id stands twice"));
        }
        if header_keys(field).into_iter().any(|key| !keys.insert(key)) {
            return Err(wrong("a name or alias belongs to another field as well"));
        }
    }
    let controls = [
        (CHANGED, "changed", FieldType::Positions),
        (STATUS, "status", FieldType::Code),
        (VALID_FROM, "valid_from", FieldType::Date),
        (GRID, "grid", FieldType::Text),
    ];
    for (position, id, field_type) in controls {
        let fits = schema.at(position).is_some_and(|field| {
            field.id == id && field.field_type == field_type && field.group.as_str() == "control"
        });
        if !fits {
            return Err(whole(
                "positions 0 to 3 must be changed, status, valid_from and grid, in the group control",
            ));
        }
    }
    if schema.at(STATUS).and_then(|field| field.list.as_deref()) != Some("status") {
        return Err(whole("the field status must use the list `status`"));
    }
    let every: Vec<String> = schema.fields[1..]
        .iter()
        .map(|field| field.position.to_string())
        .collect();
    let room = schema
        .at(CHANGED)
        .map_or(0, |field| usize::from(field.width));
    if every.join(",").len() > room {
        return Err(whole(
            "the field changed is too narrow to list every position; widen it",
        ));
    }
    Ok(())
}

fn usable(
    field: &Field,
    lists: &BTreeMap<String, CodeList>,
    kinds: &BTreeSet<&str>,
) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if field.id.len() > 40
        || !field.id.bytes().all(plain)
        || !field.id.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return Err("an id begins with a lower-case letter and has at most 40 of a-z, 0-9 and _");
    }
    if field.position > POSITION_MAX {
        return Err("the highest position is 63");
    }
    let names = [&field.name, &field.english];
    if names.iter().any(|name| name.is_empty()) || field.purpose.is_empty() {
        return Err("a field needs a Chinese name, an English name and a purpose");
    }
    let all_names = names.into_iter().chain([&field.id]).chain(&field.aliases);
    if all_names.into_iter().any(|name| is_refused(name)) {
        return Err(
            "the register does not keep religion, biometrics, movements, watch-lists or scores",
        );
    }
    if field.field_type == FieldType::CitizenNumber && field.sensitivity < Sensitivity::P3 {
        return Err("a citizen number is at least P3");
    }
    let widest_code = match (field.field_type, &field.list) {
        (FieldType::Code, Some(list)) => match lists.get(list) {
            Some(list) => list.names.keys().map(String::len).max().unwrap_or(0),
            None => return Err("the code list does not exist; load it with the schema"),
        },
        (FieldType::Reference, Some(kind)) if kinds.contains(kind.as_str()) => 0,
        (FieldType::Reference, _) => return Err("a reference names in `list` a kind that exists"),
        (FieldType::Code, None) => return Err("a code names its code list in `list`"),
        (_, Some(_)) => return Err("only a code or a reference has a `list`"),
        (_, None) => 0,
    };
    let least = match field.field_type {
        FieldType::Code => widest_code,
        FieldType::CitizenNumber | FieldType::CreditCode => 18,
        FieldType::DivisionCode => 12,
        FieldType::Date => 10,
        FieldType::Phone => 20,
        FieldType::Reference => 32,
        FieldType::Text | FieldType::Integer | FieldType::Decimal | FieldType::Positions => 1,
    };
    if !(least..=1024).contains(&usize::from(field.width)) {
        return Err("the width is too small for the type, or over 1024");
    }
    Ok(())
}

/// Whether every position means the same in all versions of its kind.
pub(super) fn versions(schemas: &BTreeMap<(Kind, u32), Schema>) -> Result<(), CatalogueError> {
    let mut meant: BTreeMap<(&Kind, Position), &Field> = BTreeMap::new();
    for ((kind, version), schema) in schemas {
        for field in &schema.fields {
            let Some(before) = meant.insert((kind, field.position), field) else {
                continue;
            };
            let same = before.id == field.id
                && before.field_type == field.field_type
                && before.group == field.group
                && before.list == field.list;
            if !same {
                return Err(CatalogueError::Field {
                    kind: kind.clone(),
                    version: *version,
                    field: field.id.clone(),
                    problem: "the position had another id, type, group or list before; take a free position",
                });
            }
        }
    }
    Ok(())
}
