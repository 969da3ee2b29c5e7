//! Erasing, its receipts, and retention.
//!
//! Refuses to erase by itself: it makes the plan, which another officer approves.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use record::id::{Kind, RecordId};
use record::plan::ClassTerm;
use registry::plan::request::PlanRequest;
use serde_json::{Value, json};

use super::keys::args::Whose;
use super::keys::{client, make};
use crate::fault::{Fault, Result};
use crate::output;

#[derive(Debug, ClapArgs)]
pub struct Erase {
    /// 记录号 / the record
    pub record: RecordId,
    /// 类别 / the kind
    #[arg(long)]
    pub kind: Kind,
    /// 法律依据 / legal basis
    #[arg(long, required_unless_present = "status")]
    pub basis: Option<String>,
    /// 查看销毁进度与回执 / show how far it came, and the receipts
    #[arg(long, conflicts_with = "basis")]
    pub status: bool,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Subcommand)]
pub enum Retention {
    /// 已过保存期限者 / what is past its term
    Plan(Whose),
    /// 凭常令销毁已过期限者 / erase it, under a standing order
    Run(Whose),
    /// 作销项常令：到期只销毁某些字段组，记录留存 / order groups of fields to be destroyed, while records stay
    Fields(Fields),
}

#[derive(Debug, ClapArgs)]
pub struct Fields {
    /// 类别:字段组:注销后天数，可多次 / KIND:GROUP:DAYS after closing, more than once
    #[arg(long = "class", required = true, value_parser = class)]
    pub classes: Vec<ClassTerm>,
    /// 常令有效天数 / for how many days this is ordered
    #[arg(long, default_value_t = 180)]
    pub days: u32,
    #[command(flatten)]
    pub whose: Whose,
}

fn class(text: &str) -> std::result::Result<ClassTerm, String> {
    let mut parts = text.split(':');
    let parsed = (|| {
        let kind = parts.next()?.parse().ok()?;
        let group = parts.next()?.parse().ok()?;
        let days = parts.next()?.parse().ok()?;
        parts
            .next()
            .is_none()
            .then_some(ClassTerm { kind, group, days })
    })();
    parsed.ok_or_else(|| {
        "应写成 类别:字段组:天数，天数为整数，如 person:care:1096 / it is written KIND:GROUP:DAYS with a whole number of days, such as person:care:1096".into()
    })
}

pub fn erase(command: &Erase, json: bool) -> Result<ExitCode> {
    if command.status {
        let path = format!("/api/v1/destructions/{}/{}", command.kind, command.record);
        let lines: Vec<Value> = client(&command.whose)?.get(&path)?;
        return Ok(shown(&lines, json));
    }
    let basis = command.basis.clone().ok_or_else(|| {
        Fault::usage("请注明法律依据 --basis / state the legal basis with `--basis`")
    })?;
    let request = PlanRequest::Erase {
        kind: command.kind.clone(),
        record: command.record,
        basis,
    };
    make(&command.whose, &request, json)
}

pub fn receipts(whose: &Whose, json: bool) -> Result<ExitCode> {
    let lines: Vec<Value> = client(whose)?.get("/api/v1/destructions")?;
    Ok(shown(&lines, json))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn shown(lines: &[Value], json: bool) -> ExitCode {
    if json {
        output::json(&json!({ "destructions": lines }));
        return ExitCode::SUCCESS;
    }
    let names = |list: &Value, name: fn(&Value) -> String| -> String {
        let names: Vec<String> = list.as_array().into_iter().flatten().map(name).collect();
        names.join(", ")
    };
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let yes = |key: &str, yes: &str, no: &str| match line[key] == json!(true) {
                true => yes.to_owned(),
                false => no.to_owned(),
            };
            vec![
                text(&line["record"]),
                format!("{} {}", text(&line["origin"]), line["index"]),
                yes("done_here", "完成 done", "进行中 under way"),
                names(&line["receipts"], |r| {
                    format!("{} ({})", text(&r["division"]), r["bodies"])
                }),
                names(&line["missing"], text),
                yes("overdue", "逾期 overdue", ""),
            ]
        })
        .collect();
    output::table(
        &[
            "记录 record",
            "条目 entry",
            "本机 here",
            "回执 receipts",
            "待回执 missing",
            "",
        ],
        &rows,
    );
    ExitCode::SUCCESS
}

pub fn retention(command: &Retention, json: bool) -> Result<ExitCode> {
    let (lines, ran): (Vec<Value>, bool) = match command {
        Retention::Fields(command) => {
            let request = PlanRequest::Fields {
                classes: command.classes.clone(),
                days: command.days,
            };
            return make(&command.whose, &request, json);
        }
        Retention::Plan(whose) => (client(whose)?.get("/api/v1/retention")?, false),
        Retention::Run(whose) => (
            client(whose)?.post("/api/v1/retention/run", &json!({}))?,
            true,
        ),
    };
    if json {
        output::json(&json!({ "retention": lines, "ran": ran }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let ordered = match line["ordered"] == json!(true) {
                true if ran => "已销毁 erased",
                true => "有常令 ordered",
                false => "无常令，不销毁 no standing order",
            };
            vec![
                match line["group"].as_str() {
                    Some(group) => format!("{} {group}", text(&line["kind"])),
                    None => text(&line["kind"]),
                },
                match line["days"].as_u64() {
                    Some(days) => format!("{days} 天 days"),
                    None => line["years"].to_string(),
                },
                line["closed"].to_string(),
                line["due"].to_string(),
                ordered.to_owned(),
            ]
        })
        .collect();
    output::table(
        &[
            "类别 kind",
            "期限（年）term, years",
            "已注销 closed",
            "到期 due",
            "常令 order",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}
