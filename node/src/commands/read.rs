//! Reading and amending.

use std::collections::BTreeMap;
use std::process::ExitCode;

use registry::read::{Comparison, Filter, ReadRequest};
use registry::register::Amendment;
use serde_json::Value;

use crate::args::{Amend, Read};
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::output;

/// Roles that may be meant when nobody is named.
const READERS: [&str; 4] = [
    "clerk",
    "department-officer",
    "district-officer",
    "grid-worker",
];

fn filter(text: &str) -> Result<Filter> {
    let (left, value) = text.split_once('=').ok_or_else(|| {
        Fault::usage("`--where` 用 字段=值、字段^=开头、字段~=包含 / use field=value, field^=prefix or field~=part")
    })?;
    let (field, comparison) = match left.strip_suffix('^') {
        Some(field) => (field, Comparison::Prefix),
        None => match left.strip_suffix('~') {
            Some(field) => (field, Comparison::Contains),
            None => (left, Comparison::Equals),
        },
    };
    Ok(Filter {
        field: field.trim().to_owned(),
        comparison,
        value: value.to_owned(),
    })
}

pub fn read(command: &Read, json: bool) -> Result<ExitCode> {
    let request = ReadRequest {
        kind: command.kind.clone(),
        filters: command
            .conditions
            .iter()
            .map(|c| filter(c))
            .collect::<Result<_>>()?,
        fields: command.fields.clone(),
        purpose: command.purpose.clone(),
        basis: command.basis.clone(),
        closed: command.closed,
        limit: Some(command.limit),
    };
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &READERS)?;
    let answer: Value = client.post("/api/v1/read", &request)?;
    if json {
        output::json(&answer);
    } else {
        let catalogue = client.catalogue()?;
        show(&catalogue, &command.kind, &answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(catalogue: &record::schema::Catalogue, kind: &record::id::Kind, answer: &Value) {
    let schema = catalogue.schema(kind);
    let value = &answer["value"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = value["rows"].as_array().cloned().unwrap_or_default();
    for row in &rows {
        output::line(format!(
            "── {} v{}  {}",
            text(&row["record"]),
            row["version"],
            text(&row["origin"])
        ));
        for field in schema.into_iter().flat_map(|s| &s.fields) {
            if let Some(value) = row["fields"][&field.id].as_str() {
                let list = field.list.as_deref().and_then(|list| catalogue.codes(list));
                let name = list
                    .and_then(|codes| codes.get(value))
                    .map_or("", String::as_str);
                output::line(format!("   {}（{}）：{value} {name}", field.name, field.id));
            }
        }
    }
    output::line(format!("{} 条 / records", rows.len()));
    if value["more"] == Value::Bool(true) {
        output::line(
            "还有更多，请加条件或 --limit / there are more; add a condition or raise --limit",
        );
    }
    for denied in value["denied"].as_array().into_iter().flatten() {
        let rows = match denied["rows"].as_u64() {
            Some(rows) => format!(" {rows} 条 / records"),
            None => String::new(),
        };
        output::line(format!(
            "未提供 / withheld: {}{rows}（规则 / rule {}；请联系 / ask {}）",
            text(&denied["field"]),
            text(&denied["rule"]),
            text(&denied["ask"])
        ));
    }
    let masked: Vec<String> = value["masked"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if !masked.is_empty() {
        output::line(format!("部分遮蔽 / masked: {}", masked.join(", ")));
    }
    output::line(format!("水印 / mark: {}", text(&answer["mark"])));
}

pub fn amend(command: &Amend, json: bool) -> Result<ExitCode> {
    let changes: BTreeMap<String, String> = command
        .changes
        .iter()
        .map(|change| {
            change
                .split_once('=')
                .map(|(field, value)| (field.to_owned(), value.to_owned()))
                .ok_or_else(|| Fault::usage("`--set` 用 字段=值 / use field=value"))
        })
        .collect::<Result<_>>()?;
    if changes.is_empty() && !command.close && !command.reopen {
        return Err(Fault::usage(
            "没有要变更的内容 / nothing to change; use --set or --close",
        ));
    }
    let amendment = Amendment {
        kind: command.kind.clone(),
        record: command.record,
        version: command.version,
        changes,
        close: command.close,
        reopen: command.reopen,
        purpose: command.purpose.clone(),
    };
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["clerk"])?;
    let answer: Value = client.post("/api/v1/amendments", &amendment)?;
    if json {
        output::json(&answer);
    } else {
        output::line(format!(
            "已变更为第 {} 版 / now version {}",
            answer["version"], answer["version"]
        ));
    }
    Ok(ExitCode::SUCCESS)
}
