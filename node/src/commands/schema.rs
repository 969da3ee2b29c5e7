//! Schemas: what kinds there are and what fields they have.

use std::borrow::Cow;
use std::process::ExitCode;

use record::schema::Catalogue;
use serde_json::json;

use crate::args::{Dir, Open, Schema};
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::output;

pub fn run(command: &Schema, json: bool) -> Result<ExitCode> {
    let (Schema::List { dir } | Schema::Show { dir, .. }) = command;
    let catalogue = match dir {
        Some(dir) => Client::connect(&Dir {
            dir: dir.clone(),
            open: Open::default(),
        })?
        .catalogue()?,
        None => Cow::Borrowed(Catalogue::builtin()),
    };
    match command {
        Schema::List { .. } => {
            let kinds = catalogue.kinds();
            if json {
                output::json(&json!({ "schemas": kinds }));
            } else {
                let rows: Vec<Vec<String>> = kinds
                    .iter()
                    .map(|s| {
                        vec![
                            s.kind.to_string(),
                            s.name.clone(),
                            s.version.to_string(),
                            s.fields.len().to_string(),
                        ]
                    })
                    .collect();
                output::table(
                    &["类别 kind", "名称 name", "版本 version", "字段 fields"],
                    &rows,
                );
            }
        }
        Schema::Show { kind, .. } => {
            let schema = catalogue.schema(kind).ok_or_else(|| {
                Fault::usage(format!(
                    "没有类别 `{kind}` / no kind `{kind}`; see `fangzhi schema list`"
                ))
            })?;
            if json {
                output::json(schema);
            } else {
                let rows: Vec<Vec<String>> = schema
                    .fields
                    .iter()
                    .map(|f| {
                        vec![
                            f.position.to_string(),
                            f.id.clone(),
                            f.name.clone(),
                            format!("{:?}", f.sensitivity),
                            f.group.to_string(),
                            if f.required {
                                "必填 required".into()
                            } else {
                                String::new()
                            },
                            if f.searchable {
                                "可查 searchable".into()
                            } else {
                                String::new()
                            },
                        ]
                    })
                    .collect();
                output::table(
                    &[
                        "位置",
                        "字段 field",
                        "名称 name",
                        "敏感级",
                        "组 group",
                        "",
                        "",
                    ],
                    &rows,
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
