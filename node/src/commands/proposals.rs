//! Proposals: made and followed at the proposer; listed, opened and answered at the owner.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use record::id::{DivisionId, Kind, Purpose, RecordId};
use registry::proposals::answer::{Acceptance, Refusal};
use registry::proposals::send::ProposeRequest;
use registry::proposals::show::ShowRequest;
use serde_json::{Value, json};

use crate::args::{As, Dir};
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::output;

/// Roles that may be meant when nobody is named.
const PROPOSERS: [&str; 2] = ["department-officer", "district-officer"];
const CLERKS: [&str; 1] = ["clerk"];

#[derive(Debug, ClapArgs)]
pub struct Propose {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 记录所属单位 / the owner of the record
    #[arg(long)]
    pub to: DivisionId,
    /// 类别 / the kind
    #[arg(long)]
    pub kind: Kind,
    /// 记录号 / the record
    #[arg(long, conflicts_with = "find")]
    pub record: Option<RecordId>,
    /// 不知记录号时，以唯一字段指明：字段=值 / the value that names it when the record is not known
    #[arg(long, value_name = "FIELD=VALUE")]
    pub find: Option<String>,
    /// 字段=新值，空值删除 / field=value; an empty value removes it
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub changes: Vec<String>,
    /// 建议注销 / take the record out of force
    #[arg(long)]
    pub close: bool,
    /// 建议恢复 / put it into force again
    #[arg(long, conflicts_with = "close")]
    pub reopen: bool,
    /// 事由代号，如 death、birth、moved / reason code
    #[arg(long)]
    pub reason: Kind,
    /// 法律依据 / legal basis
    #[arg(long)]
    pub basis: String,
    /// 说明 / in words
    #[arg(long)]
    pub note: Option<String>,
    /// 用途代码；凭授权提出者用授权的用途 / purpose code; of a granted record the grant's
    #[arg(long)]
    pub purpose: Purpose,
    /// 等待天数 / for how many days it may wait
    #[arg(long, default_value_t = 30)]
    pub days: u32,
}

#[derive(Debug, ClapArgs)]
pub struct Listing {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 含已办结的 / those that ended, too
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, ClapArgs)]
pub struct One {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 编号：单位/序号 / its name: division/index, as the lists have it
    pub name: String,
}

#[derive(Debug, ClapArgs)]
pub struct Opened {
    #[command(flatten)]
    pub one: One,
    /// 用途代码 / purpose code
    #[arg(long)]
    pub purpose: Option<Purpose>,
    /// 依据或案号 / legal basis or case number
    #[arg(long)]
    pub basis: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Accepting {
    #[command(flatten)]
    pub one: One,
    /// 所见版本（建议提出后记录又有变更时）/ the version that you saw, when the record changed since
    #[arg(long)]
    pub version: Option<u64>,
    /// 用途代码 / purpose code
    #[arg(long, default_value = "correction")]
    pub purpose: Purpose,
    /// 答复 / to the proposer, in words
    #[arg(long)]
    pub words: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Amending {
    #[command(flatten)]
    pub accepting: Accepting,
    /// 与建议不同之处：字段=值 / what is written otherwise than proposed
    #[arg(long = "set", value_name = "FIELD=VALUE", required = true)]
    pub changes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Refusing {
    #[command(flatten)]
    pub one: One,
    /// 理由代号 / reason code
    #[arg(long)]
    pub reason: Kind,
    /// 答复 / to the proposer, in words
    #[arg(long)]
    pub words: Option<String>,
    /// 用途代码 / purpose code
    #[arg(long, default_value = "correction")]
    pub purpose: Purpose,
}

#[derive(Debug, Subcommand)]
pub enum Sent {
    /// 列出 / list
    List(Listing),
    /// 打开一件及其答复：留痕 / open one and its answer: recorded
    Show(Opened),
    /// 撤回 / take one back
    Withdraw(One),
}

#[derive(Debug, Subcommand)]
pub enum Inbox {
    /// 列出 / list
    List(Listing),
    /// 打开一件：留痕，带水印 / open one: recorded and marked
    Show(Opened),
    /// 采纳 / accept it as proposed
    Accept(Accepting),
    /// 修改后采纳 / accept it with other values
    Amend(Box<Amending>),
    /// 不采纳 / refuse it, with a reason
    Refuse(Refusing),
}

fn client(at: &Dir, who: &As, roles: &[&str]) -> Result<Client> {
    let mut client = Client::connect(at)?;
    client.login(who, roles)?;
    Ok(client)
}

fn pairs(texts: &[String], option: &str) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (field, value) = text.split_once('=')?;
        Some((field.trim().to_owned(), value.to_owned()))
    };
    texts
        .iter()
        .map(|text| {
            pair(text)
                .ok_or_else(|| Fault::usage(format!("`{option}` 用 字段=值 / use field=value")))
        })
        .collect()
}

fn path(of: &str, name: &str, rest: &str) -> Result<String> {
    let (division, index) = name
        .split_once('/')
        .filter(|(division, index)| {
            DivisionId::new(division).is_ok() && index.parse::<u64>().is_ok()
        })
        .ok_or_else(|| Fault::usage("编号用 单位/序号 / a proposal is named `division/index`"))?;
    Ok(format!("/api/v1/{of}/{division}/{index}{rest}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, |at| {
        registry::audit::page::time(record::id::UnixMillis(at))
    })
}

fn state(value: &Value) -> String {
    match text(value).as_str() {
        "open" => "待答复 / waits".into(),
        "accepted" => "已采纳 / accepted".into(),
        "amended" => "修改后采纳 / amended".into(),
        "refused" => "不予采纳 / refused".into(),
        "expired" => "已逾期 / expired".into(),
        "withdrawn" => "已撤回 / withdrawn".into(),
        other => other.to_owned(),
    }
}

/// `fangzhi propose`
pub fn propose(command: &Propose, json: bool) -> Result<ExitCode> {
    let request = ProposeRequest {
        to: command.to.clone(),
        kind: command.kind.clone(),
        record: command.record,
        find: pairs(command.find.as_slice(), "--find")?,
        changes: pairs(&command.changes, "--set")?,
        close: command.close,
        reopen: command.reopen,
        reason: command.reason.clone(),
        basis: command.basis.clone(),
        note: command.note.clone(),
        purpose: command.purpose.clone(),
        days: command.days,
    };
    let client = client(&command.at, &command.who, &PROPOSERS)?;
    let line: Value = client.post("/api/v1/proposals", &request)?;
    Ok(said(&line, "已提出 / proposed", json))
}

fn said(line: &Value, what: &str, json: bool) -> ExitCode {
    if json {
        output::json(line);
    } else {
        output::line(format!("{what}: {}", text(&line["name"])));
    }
    ExitCode::SUCCESS
}

fn list(of: &str, listing: &Listing, roles: &[&str], json: bool) -> Result<ExitCode> {
    let path = format!("/api/v1/{of}?all={}", listing.all);
    let lines: Vec<Value> = client(&listing.at, &listing.who, roles)?.get(&path)?;
    if json {
        output::json(&json!({ "proposals": lines }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                text(&line["name"]),
                state(&line["state"]),
                time(&line["at"]),
                time(&line["until"]),
                time(&line["ended_at"]),
            ]
        })
        .collect();
    output::table(
        &[
            "编号 name",
            "状态 state",
            "提出 proposed",
            "期限 until",
            "办结 ended",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

fn show(of: &str, opened: &Opened, roles: &[&str], default: &str, json: bool) -> Result<ExitCode> {
    let one = &opened.one;
    let default = Purpose::new(default).ok();
    let request = ShowRequest {
        purpose: opened.purpose.clone().or(default),
        basis: opened.basis.clone(),
    };
    let client = client(&one.at, &one.who, roles)?;
    let answer: Value = client.post(&path(of, &one.name, "")?, &request)?;
    if json {
        output::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let value = &answer["value"];
    let number = |value: &Value| value.as_u64().map_or_else(String::new, |n| n.to_string());
    let rows = [
        ("编号 / name", text(&value["line"]["name"])),
        ("状态 / state", state(&value["line"]["state"])),
        ("类别 / kind", text(&value["kind"])),
        ("事项 / wanted", text(&value["wanted"])),
        ("记录 / record", text(&value["record"])),
        ("提出时版本 / version seen", number(&value["seen"])),
        ("现版本 / version now", number(&value["newest"])),
        ("事由 / reason", text(&value["reason"])),
        ("依据 / basis", text(&value["basis"])),
        ("说明 / note", text(&value["note"])),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output::line(format!("{name}: {value}"));
    }
    for (field, proposed) in value["changes"].as_object().into_iter().flatten() {
        let current = text(&value["current"][field]);
        output::line(format!("   {field}：{current} → {}", text(proposed)));
    }
    for denied in value["denied"].as_array().into_iter().flatten() {
        output::line(format!(
            "未提供 / withheld: {}（规则 / rule {}；请联系 / ask {}）",
            text(&denied["field"]),
            text(&denied["rule"]),
            text(&denied["ask"])
        ));
    }
    let given = &value["answer"];
    if given.is_object() {
        output::line(format!(
            "答复 / answer: {} {} {}",
            text(&given["reason"]),
            text(&given["rule"]),
            text(&given["words"])
        ));
    }
    output::line(format!("水印 / mark: {}", text(&answer["mark"])));
    Ok(ExitCode::SUCCESS)
}

/// `fangzhi proposals`
pub fn sent(command: &Sent, json: bool) -> Result<ExitCode> {
    match command {
        Sent::List(listing) => list("proposals", listing, &PROPOSERS, json),
        // Without a purpose it is opened for what it was proposed for.
        Sent::Show(opened) => show("proposals", opened, &PROPOSERS, "", json),
        Sent::Withdraw(one) => {
            let path = path("proposals", &one.name, "/withdrawn")?;
            let client = client(&one.at, &one.who, &PROPOSERS)?;
            let line: Value = client.post(&path, &json!({}))?;
            Ok(said(&line, "已撤回 / withdrawn", json))
        }
    }
}

fn accept(command: &Accepting, changes: &[String], json: bool) -> Result<ExitCode> {
    let acceptance = Acceptance {
        changes: pairs(changes, "--set")?,
        version: command.version,
        purpose: command.purpose.clone(),
        words: command.words.clone(),
    };
    let one = &command.one;
    let client = client(&one.at, &one.who, &CLERKS)?;
    let line: Value = client.post(&path("inbox", &one.name, "/accepted")?, &acceptance)?;
    Ok(said(&line, &state(&line["state"]), json))
}

/// `fangzhi inbox`
pub fn inbox(command: &Inbox, json: bool) -> Result<ExitCode> {
    match command {
        Inbox::List(listing) => list("inbox", listing, &CLERKS, json),
        Inbox::Show(opened) => show("inbox", opened, &CLERKS, "correction", json),
        Inbox::Accept(command) => accept(command, &[], json),
        Inbox::Amend(command) => accept(&command.accepting, &command.changes, json),
        Inbox::Refuse(command) => {
            let refusal = Refusal {
                reason: command.reason.clone(),
                words: command.words.clone(),
                purpose: command.purpose.clone(),
            };
            let one = &command.one;
            let path = path("inbox", &one.name, "/refused")?;
            let line: Value = client(&one.at, &one.who, &CLERKS)?.post(&path, &refusal)?;
            Ok(said(&line, &state(&line["state"]), json))
        }
    }
}
