//! Publishing (发布): what the realm's root gives every node: checked, shown, planned, listed.
//!
//! Approving and running is done as with every plan, by `fangzhi keys approve` and `keys run`.
//! Refuses to send a file that is not one of a set, so that nothing else of a folder leaves it.

pub mod args;

use std::path::Path;
use std::process::ExitCode;

use record::published::{SET_BYTES_MAX, SetFile, What};
use registry::published::plan::PublishRequest;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::keys;
use crate::fault::{Fault, Result};
use crate::output;
use args::{Export, List, Plan, Publish, Show};

/// Rows of what is opened that a person is shown; `--json` has them all.
const SHOWN: usize = 60;
/// Names that are written out in one line.
const NAMES: usize = 6;

pub fn run(command: &Publish, json: bool) -> Result<ExitCode> {
    match command {
        Publish::Plan(command) => plan(command, json),
        Publish::List(command) => list(command, json),
        Publish::Show(command) => show(command, json),
        Publish::Export(command) => export(command, json),
    }
}

fn plan(command: &Plan, json: bool) -> Result<ExitCode> {
    let request = PublishRequest {
        what: command.what,
        files: files(command.what, &command.from)?,
        lowers: command.lowers.clone(),
        dry_run: command.dry_run,
    };
    let client = keys::client(&command.whose)?;
    let proposed: Value = client.post("/api/v1/published/plans", &request)?;
    if json {
        output::json(&proposed);
        return Ok(ExitCode::SUCCESS);
    }
    shown(&proposed);
    if proposed["plan"].is_null() {
        output::line("只预览，未作方案 / shown only; no plan was made");
    } else {
        output::line(format!(
            "方案 / plan {}",
            proposed["plan"]["id"].as_str().unwrap_or_default()
        ));
        output::line(
            "下一步：另一名安全员先看后批 / next: another security officer looks, then approves: fangzhi publish show PLAN; fangzhi keys approve PLAN; then: fangzhi keys run PLAN",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of a set in a folder; what is none of a set's stays where it is.
fn files(what: What, from: &Path) -> Result<Vec<SetFile>> {
    let unreadable = |e: std::io::Error| Fault::file(from, &e);
    let mut files = Vec::new();
    let mut room = SET_BYTES_MAX as u64;
    for item in std::fs::read_dir(from).map_err(unreadable)? {
        let path = item.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let belongs = match what {
            What::Policies => {
                name.ends_with(".cedar") || name == "schema.cedarschema" || name == "purposes.json"
            }
            What::Schemas => name.ends_with(".json") || name.ends_with(".csv"),
            What::Codes => name.ends_with(".csv"),
        };
        if !belongs || !path.is_file() {
            continue;
        }
        let bytes =
            store::atomic::read_bounded(&path, room).map_err(|e| Fault::failed(e.to_string()))?;
        room = room.saturating_sub(bytes.len() as u64);
        let text = String::from_utf8(bytes).map_err(|_| {
            Fault::usage(format!(
                "`{}` 不是 UTF-8 文本 / is no UTF-8 text; save it as UTF-8",
                path.display()
            ))
        })?;
        files.push(SetFile { name, text });
    }
    if files.is_empty() {
        return Err(Fault::usage(format!(
            "`{}` 中没有可发布的文件 / there is no file of a set there; begin with `fangzhi publish export {}`",
            from.display(),
            what.as_str()
        )));
    }
    Ok(files)
}

fn shown(proposed: &Value) {
    let set = &proposed["set"];
    output::line(format!(
        "{} 第 {} 版 / version {}，{} 字节 / bytes",
        set["what"].as_str().unwrap_or_default(),
        set["version"],
        set["version"],
        set["bytes"]
    ));
    output::line(format!("  文件 / files: {}", names(&set["files"])));
    if set["lowers"].as_array().is_some_and(|l| !l.is_empty()) {
        output::line(format!(
            "  降低敏感级 / made less sensitive: {}",
            names(&set["lowers"])
        ));
    }
    census("新开放 / newly shown", &proposed["opened"]);
    census("不再开放 / no longer shown", &proposed["closed"]);
}

fn census(title: &str, census: &Value) {
    let lines = census["lines"].as_array().cloned().unwrap_or_default();
    if lines.is_empty() {
        output::line(format!("{title}：无 / nothing"));
        return;
    }
    output::line(format!("{title}："));
    // What differs in nothing but the field is one row.
    let mut rows: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for line in &lines {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let mark = if line["rows_differ"] == json!(true) {
            " *"
        } else {
            ""
        };
        let row = vec![
            text("kind"),
            format!("{}→{}{mark}", text("before"), text("after")),
            text("role"),
            names(&line["actions"]),
            names(&line["purposes"]),
            named(&line["organizations"], &line["organizations_count"]),
            named(&line["divisions"], &line["divisions_count"]),
        ];
        let field = format!("{} {}", text("field"), text("name"));
        match rows.iter_mut().find(|(known, _)| *known == row) {
            Some((_, fields)) => fields.push(field),
            None => rows.push((row, vec![field])),
        }
    }
    let cut = rows.len().saturating_sub(SHOWN) as u64;
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .take(SHOWN)
        .map(|(mut row, fields)| {
            row.push(fields.join("，"));
            row
        })
        .collect();
    let headers = [
        "类别 kind",
        "变化 change",
        "角色 role",
        "操作 actions",
        "用途 purposes",
        "单位 organizations",
        "数据属于 divisions",
        "字段 fields",
    ];
    output::table(&headers, &rows);
    let more = cut + census["more"].as_u64().unwrap_or(0);
    if more > 0 {
        output::line(format!(
            "…… 另有 {more} 行，用 --json 看全 / {more} more lines; see them with --json"
        ));
    }
    if census["incomplete"] == json!(true) {
        output::line(
            "规则点名的单位过多，未逐一核算，须读规则 / rules name too many divisions to ask about each: read the rules",
        );
    }
    if lines.iter().any(|line| line["rows_differ"] == json!(true)) {
        output::line("* 行条件有变，须读规则 / the condition on rows differs: read the rules");
    }
}

/// A list of names, the first of them written out.
fn names(list: &Value) -> String {
    named(list, &Value::Null)
}

/// The same of a list that was cut, with how many there are.
fn named(list: &Value, count: &Value) -> String {
    let all: Vec<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut text = all[..all.len().min(NAMES)].join(", ");
    if all.len() > NAMES {
        let count = count.as_u64().unwrap_or(all.len() as u64);
        text += &format!(" …({count})");
    }
    text
}

fn show(command: &Show, json: bool) -> Result<ExitCode> {
    let (client, plan) = keys::find(&command.one)?;
    let id = plan["id"].as_str().unwrap_or_default();
    let proposed: Value = client.get(&format!("/api/v1/published/plans/{id}"))?;
    if json {
        output::json(&proposed);
        return Ok(ExitCode::SUCCESS);
    }
    shown(&proposed);
    if command.texts {
        for file in proposed["files"].as_array().into_iter().flatten() {
            output::line(format!("── {}", file["name"].as_str().unwrap_or_default()));
            output::line(file["text"].as_str().unwrap_or_default());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(command: &List, json: bool) -> Result<ExitCode> {
    let status: Value = Client::connect(&command.at)?.get("/api/v1/published")?;
    if json {
        output::json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = status["sets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|set| {
            let state = match set["state"].as_str() {
                Some("in-force") => "在用 in force".to_owned(),
                Some("replaced") => "已被替代 replaced".to_owned(),
                _ => format!("未采用 declined: {}", text(&set["reason"])),
            };
            vec![
                text(&set["what"]),
                set["version"].to_string(),
                text(&set["hash"]).chars().take(16).collect(),
                state,
                names(&set["set"]["files"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        output::line(
            "尚未发布，各节点用程序自带的 / nothing is published: nodes run what their programs carry",
        );
    } else {
        output::table(
            &[
                "内容 what",
                "版本 version",
                "摘要 hash",
                "状态 state",
                "文件 files",
            ],
            &rows,
        );
    }
    let nodes: Vec<Vec<String>> = status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| {
            let of = |what: &str| {
                let versions = node["versions"].as_array().into_iter().flatten();
                let mut version = versions.filter(|v| v["what"] == what);
                version.next().map_or_else(
                    || "-".to_owned(),
                    |v| match v["declined"].as_object() {
                        Some(declined) => format!(
                            "{}（未采用 declined {}: {}）",
                            text(&v["version"]),
                            declined["version"],
                            text(&declined["reason"])
                        ),
                        None => text(&v["version"]),
                    },
                )
            };
            vec![
                text(&node["division"]),
                of("policies"),
                of("schemas"),
                of("program"),
            ]
        })
        .collect();
    output::table(
        &["节点 node", "政策 policies", "类别 schemas", "程序 program"],
        &nodes,
    );
    Ok(ExitCode::SUCCESS)
}

fn export(command: &Export, json: bool) -> Result<ExitCode> {
    let client = keys::client(&command.whose)?;
    let path = format!("/api/v1/published/files/{}", command.what.as_str());
    let files: Vec<SetFile> = client.get(&path)?;
    std::fs::create_dir_all(&command.to).map_err(|e| Fault::file(&command.to, &e))?;
    for file in &files {
        let path = command.to.join(&file.name);
        store::atomic::replace(&path, file.text.as_bytes())
            .map_err(|e| Fault::failed(e.to_string()))?;
    }
    if json {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        output::json(&json!({ "to": command.to, "files": names }));
    } else {
        output::line(format!(
            "{} 个文件已写入 / files are in {}",
            files.len(),
            command.to.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
