//! Grants: making and listing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use registry::grant::GrantRequest;
use serde_json::Value;

use crate::args::{Grant, GrantMake};
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::output;

pub fn run(command: &Grant, json: bool) -> Result<ExitCode> {
    match command {
        Grant::Make(command) => make(command, json),
        Grant::List(at) => {
            let grants: Vec<Value> = Client::connect(at)?.get("/api/v1/grants")?;
            if json {
                output::json(&serde_json::json!({ "grants": grants }));
                return Ok(ExitCode::SUCCESS);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rows: Vec<Vec<String>> = grants
                .iter()
                .map(|g| {
                    let fields: Vec<String> = g["fields"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(text)
                        .collect();
                    vec![
                        text(&g["id"]).chars().take(8).collect(),
                        text(&g["origin"]),
                        text(&g["holder"]),
                        text(&g["purpose"]),
                        g["records"]
                            .as_u64()
                            .map_or_else(|| "–".into(), |n| n.to_string()),
                        fields.join(","),
                    ]
                })
                .collect();
            output::table(
                &[
                    "授权 grant",
                    "账本 shard",
                    "持有方 holder",
                    "用途 purpose",
                    "记录 records",
                    "字段 fields",
                ],
                &rows,
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn make(command: &GrantMake, json: bool) -> Result<ExitCode> {
    let rows: BTreeMap<String, String> = command
        .conditions
        .iter()
        .map(|condition| {
            condition
                .split_once('=')
                .map(|(field, value)| (field.to_owned(), value.to_owned()))
                .ok_or_else(|| Fault::usage("`--where` 用 字段=值 / use field=value"))
        })
        .collect::<Result<_>>()?;
    let request = GrantRequest {
        kind: command.kind.clone(),
        holder: command.holder.clone(),
        fields: command.fields.clone(),
        rows,
        purpose: command.purpose.clone(),
        basis: command.basis.clone(),
        assessment: command.assessment.clone(),
        days: command.days,
    };
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let answer: Value = client.post("/api/v1/grants", &request)?;
    if json {
        output::json(&answer);
    } else {
        output::line(format!(
            "已授权 / granted: {}",
            answer["grant"].as_str().unwrap_or_default()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
