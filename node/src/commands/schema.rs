//! Schemas: what kinds there are, what fields they have, and for what purposes they are used.

use std::borrow::Cow;
use std::path::Path;
use std::process::ExitCode;

use policy::{PolicySet, PurposeCode};
use record::schema::Catalogue;
use serde_json::json;

use crate::args::{Dir, Open, Schema};
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::output;

fn connect(dir: &Path) -> Result<Client> {
    Client::connect(&Dir {
        dir: dir.to_owned(),
        open: Open::default(),
    })
}

fn purposes(dir: Option<&Path>, json: bool) -> Result<ExitCode> {
    let purposes: Vec<PurposeCode> = match dir {
        Some(dir) => connect(dir)?.get("/api/v1/published/purposes")?,
        None => PolicySet::builtin()
            .map_err(|error| Fault::failed(error.to_string()))?
            .purposes()
            .to_vec(),
    };
    if json {
        output::json(&json!({ "purposes": purposes }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = purposes
        .into_iter()
        .map(|p| vec![p.code.to_string(), p.name, p.english, p.basis])
        .collect();
    output::table(
        &[
            "用途 purpose",
            "名称 name",
            "英文 English",
            "依据类别 basis",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

pub fn run(command: &Schema, json: bool) -> Result<ExitCode> {
    let (Schema::List { dir } | Schema::Purposes { dir } | Schema::Show { dir, .. }) = command;
    if matches!(command, Schema::Purposes { .. }) {
        return purposes(dir.as_deref(), json);
    }
    let catalogue = match dir {
        Some(dir) => connect(dir)?.catalogue()?,
        None => Cow::Borrowed(Catalogue::builtin()),
    };
    match command {
        Schema::Purposes { .. } => {}
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
