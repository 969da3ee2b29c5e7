//! Transfers: offering a record to another division, answering, taking back, and what counts where.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use record::id::{DivisionId, GrantId, Kind, RecordId, UnixMillis};
use registry::moving::MoveRequest;
use registry::plan::request::PlanRequest;
use registry::transfer::offer::TransferRequest;
use serde_json::{Value, json};

use crate::args::{As, Dir};
use crate::client::Client;
use crate::commands::keys::args::Whose;
use crate::fault::Result;
use crate::output;

#[derive(Debug, Subcommand)]
pub enum Transfer {
    /// 提出：把一条记录连同全部历史交给另一单位 / offer a record with its whole history to another division
    Offer(Offer),
    /// 整本或按网格迁出：作方案，须另一安全员批准 / move a shard, or some grids of it: make the plan, which another officer approves
    Shard(Shard),
    /// 接收他单位整批迁来的记录：作方案 / take what another division moves here: make the plan
    Receive(Receive),
    /// 列出迁移与进度 / list transfers, and how far shards that move came
    List(List),
    /// 一项迁移或一个整批迁移方案的详情 / one transfer, or one plan that moves a shard
    Show(Show),
    /// 接收：以本单位密钥登记 / accept: register it under this node's own keys
    Accept(One),
    /// 拒收 / refuse
    Refuse(Refuse),
    /// 撤回自己提出的 / take an own offer back
    Withdraw(One),
    /// 各账本计数：迁移中的记录只计一处 / how many records count in each shard, each in exactly one
    Counts(List),
}

#[derive(Debug, ClapArgs)]
pub struct List {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
}

#[derive(Debug, ClapArgs)]
pub struct One {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 迁移号 / the transfer
    pub transfer: GrantId,
}

#[derive(Debug, ClapArgs)]
pub struct Show {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 迁移号或方案号 / the transfer, or the plan that moves a shard
    pub id: String,
}

#[derive(Debug, ClapArgs)]
pub struct Shard {
    #[command(flatten)]
    pub whose: Whose,
    /// 类别 / the kind
    #[arg(long)]
    pub kind: Kind,
    /// 迁往 / who is to own them
    #[arg(long)]
    pub to: DivisionId,
    /// 网格，逗号分隔（省略则全部）/ grids, joined by commas; all when left out
    #[arg(long = "grid", value_delimiter = ',')]
    pub grids: Vec<String>,
    /// 条件 字段=值 / a condition on a searchable field, as FIELD=VALUE; once for each
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = condition)]
    pub conditions: Vec<(String, String)>,
    /// 迁完即结账 / close the shard when nothing is left in it
    #[arg(long)]
    pub close: bool,
    /// 依据编号，勿写人名 / reason or legal basis, as a reference; no names
    #[arg(long)]
    pub basis: String,
}

#[derive(Debug, ClapArgs)]
pub struct Receive {
    #[command(flatten)]
    pub whose: Whose,
    /// 对方的方案号 / the old owner's plan
    pub plan: String,
}

fn condition(text: &str) -> std::result::Result<(String, String), String> {
    let (field, value) = text
        .split_once('=')
        .ok_or("应写成 字段=值 / it is written FIELD=VALUE")?;
    Ok((field.to_owned(), value.to_owned()))
}

#[derive(Debug, ClapArgs)]
pub struct Refuse {
    #[command(flatten)]
    pub one: One,
    /// 理由代码 / reason code
    #[arg(long, default_value = "not-ours")]
    pub reason: Kind,
}

#[derive(Debug, ClapArgs)]
pub struct Offer {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 记录号 / the record
    pub record: RecordId,
    /// 类别 / the kind
    #[arg(long)]
    pub kind: Kind,
    /// 迁往 / who is to own it
    #[arg(long)]
    pub to: DivisionId,
    /// 依据编号，勿写人名 / reason or legal basis, as a reference; no names
    #[arg(long)]
    pub basis: String,
    /// 几天内有效 / for how many days it may be accepted
    #[arg(long, default_value_t = 30)]
    pub days: u32,
}

pub fn run(command: &Transfer, json: bool) -> Result<ExitCode> {
    match command {
        Transfer::Offer(command) => offer(command, json),
        Transfer::Shard(command) => {
            let request = PlanRequest::MoveShard(MoveRequest {
                kind: command.kind.clone(),
                to: command.to.clone(),
                grids: command.grids.clone(),
                rows: command.conditions.iter().cloned().collect(),
                close: command.close,
                basis: command.basis.clone(),
            });
            super::keys::make(&command.whose, &request, json)
        }
        Transfer::Receive(command) => {
            let plan = command.plan.clone();
            super::keys::make(&command.whose, &PlanRequest::ReceiveShard { plan }, json)
        }
        Transfer::List(at) => list(at, json),
        Transfer::Show(one) => {
            let client = looking(&one.at, &one.who)?;
            if one.id.parse::<GrantId>().is_ok() {
                let line: Value = client.get(&format!("/api/v1/transfers/{}", one.id))?;
                show(&line, json);
            } else {
                let line: Value = client.get(&format!("/api/v1/transfers/shards/{}", one.id))?;
                show_shard(&line, json);
            }
            Ok(ExitCode::SUCCESS)
        }
        Transfer::Accept(one) => {
            let answer = answer(one, "accepted", &json!({}))?;
            told(
                &answer,
                json,
                format!(
                    "已接收，登记为 / accepted, registered as: {}",
                    text(&answer["record"])
                ),
            )
        }
        Transfer::Refuse(command) => {
            let reason = json!({ "reason": command.reason });
            let answer = answer(&command.one, "refused", &reason)?;
            told(&answer, json, "已拒收 / refused".into())
        }
        Transfer::Withdraw(one) => {
            let answer = answer(one, "withdrawn", &json!({}))?;
            told(
                &answer,
                json,
                "已撤回，待对方节点确认 / withdrawn; it is over when the other node has answered"
                    .into(),
            )
        }
        Transfer::Counts(at) => counts(at, json),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> String {
    registry::audit::page::time(UnixMillis(value.as_u64().unwrap_or_default()))
}

fn client(at: &Dir, who: &As) -> Result<Client> {
    let mut client = Client::connect(at)?;
    client.login(who, &["clerk"])?;
    Ok(client)
}

/// For looking, which every operator may.
fn looking(at: &Dir, who: &As) -> Result<Client> {
    let mut client = Client::connect(at)?;
    client.login(who, &["security-officer"])?;
    Ok(client)
}

fn answer(one: &One, word: &str, body: &Value) -> Result<Value> {
    let path = format!("/api/v1/transfers/{}/{word}", one.transfer);
    client(&one.at, &one.who)?.post(&path, body)
}

fn told(answer: &Value, json: bool, words: String) -> Result<ExitCode> {
    if json {
        output::json(answer);
    } else {
        output::line(words);
    }
    Ok(ExitCode::SUCCESS)
}

fn offer(command: &Offer, json: bool) -> Result<ExitCode> {
    let request = TransferRequest {
        kind: command.kind.clone(),
        record: command.record,
        to: command.to.clone(),
        basis: command.basis.clone(),
        days: command.days,
    };
    let answer: Value = client(&command.at, &command.who)?.post("/api/v1/transfers", &request)?;
    let words = format!("已提出 / offered: {}", text(&answer["transfer"]));
    told(&answer, json, words)
}

fn state(value: &Value) -> String {
    match text(value).as_str() {
        "offered" => "待对方接收 / offered".into(),
        "arrived" => "已登记，待联署 / registered, waits to be cosigned".into(),
        "accepted" => "已接收，待原单位办结 / accepted, to be closed".into(),
        "closed" => "已办结 / closed".into(),
        "withdrawing" => "已撤回，待对方确认 / withdrawn, answer awaited".into(),
        "expired" => "已过期，待对方确认 / expired, answer awaited".into(),
        "refused" => "未接收 / refused".into(),
        "ended" => "已终止 / ended".into(),
        other => other.to_owned(),
    }
}

fn list(at: &List, json: bool) -> Result<ExitCode> {
    let client = looking(&at.at, &at.who)?;
    let lines: Vec<Value> = client.get("/api/v1/transfers")?;
    let shards: Vec<Value> = client.get("/api/v1/transfers/shards")?;
    if json {
        output::json(&json!({ "transfers": lines, "shards": shards }));
        return Ok(ExitCode::SUCCESS);
    }
    if !shards.is_empty() {
        let rows: Vec<Vec<String>> = shards.iter().map(shard_row).collect();
        output::table(
            &[
                "方案 plan",
                "原账本 shard",
                "迁往 to",
                "状态 state",
                "已迁/共 done/total",
                "未成 failed",
                "剩余秒 eta",
            ],
            &rows,
        );
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                text(&line["id"]),
                text(&line["origin"]),
                text(&line["record"]),
                text(&line["to"]),
                state(&line["state"]),
                time(&line["offered_at"]),
            ]
        })
        .collect();
    output::table(
        &[
            "迁移 transfer",
            "原账本 shard",
            "记录 record",
            "迁往 to",
            "状态 state",
            "提出 offered",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

fn moving_state(value: &Value) -> String {
    match text(value).as_str() {
        "planned" => "已作方案，未执行 / planned".into(),
        "waits-for-receiver" => "待对方同意接收 / waits for the new owner's officers".into(),
        "moving" => "迁移中 / moving".into(),
        "done" => "已迁完 / done".into(),
        "closed" => "已迁完并结账 / done, shard closed".into(),
        "withdrawn" => "已撤回 / withdrawn".into(),
        other => other.to_owned(),
    }
}

fn eta(line: &Value) -> String {
    line["eta"]
        .as_u64()
        .map(|eta| eta.to_string())
        .unwrap_or_default()
}

fn shard_row(line: &Value) -> Vec<String> {
    vec![
        text(&line["plan"]).chars().take(16).collect(),
        text(&line["origin"]),
        text(&line["to"]),
        moving_state(&line["state"]),
        format!("{}/{}", line["done"], line["total"]),
        line["failed"].to_string(),
        eta(line),
    ]
}

fn show_shard(line: &Value, json: bool) {
    if json {
        output::json(line);
        return;
    }
    let words = |value: &Value| -> String {
        let all = value.as_array().into_iter().flatten();
        all.map(text).collect::<Vec<_>>().join(", ")
    };
    for (name, value) in [
        ("方案 / plan", text(&line["plan"])),
        ("原账本 / shard", text(&line["origin"])),
        ("迁往 / to", text(&line["to"])),
        ("网格 / grids", words(&line["grids"])),
        ("依据 / basis", text(&line["basis"])),
        ("状态 / state", moving_state(&line["state"])),
        ("共 / total", line["total"].to_string()),
        ("已迁 / done", line["done"].to_string()),
        ("途中 / under way", line["under_way"].to_string()),
        ("未成 / failed", line["failed"].to_string()),
        ("剩余秒 / eta", eta(line)),
        ("后继 / successors", words(&line["closed"]["successors"])),
    ] {
        if !value.is_empty() {
            output::line(format!("{name}: {value}"));
        }
    }
    for failure in line["failures"].as_array().into_iter().flatten() {
        output::line(format!(
            "  {} v{}: {}",
            text(&failure["record"]),
            failure["version"],
            reason(&text(&failure["reason"]))
        ));
    }
}

/// Why a record did not move, and what to do.
fn reason(code: &str) -> String {
    match code {
        "registered-already" => "对方已有同一证件号，请对方核对 / registered there already: let the new owner look at its own record".into(),
        "too-many-versions" => "版本过多 / too many versions: register it anew there".into(),
        "closed" => "对方账本已结账 / the new owner's shard is closed: name its successor".into(),
        "withdrawn" | "expired" | "not-agreed" => format!("方案已停 / the plan was stopped: make another ({code})"),
        other => other.to_owned(),
    }
}

fn show(line: &Value, json: bool) {
    if json {
        output::json(line);
        return;
    }
    let yes = |value: &Value| match value.as_bool() {
        Some(true) => "是 / yes".to_owned(),
        _ => "否 / no".to_owned(),
    };
    for (name, value) in [
        ("迁移 / transfer", text(&line["id"])),
        ("原账本 / shard", text(&line["origin"])),
        ("原记录 / record", text(&line["record"])),
        ("版本 / version", line["version"].to_string()),
        ("迁往 / to", text(&line["to"])),
        ("依据 / basis", text(&line["basis"])),
        ("提出 / offered", time(&line["offered_at"])),
        ("有效至 / until", time(&line["not_after"])),
        ("状态 / state", state(&line["state"])),
        ("理由 / reason", text(&line["reason"])),
        ("新账本 / new shard", text(&line["new_origin"])),
        ("新记录 / new record", text(&line["new_record"])),
        ("新单位已销毁 / erased there", yes(&line["erased"])),
        (
            "原单位已销毁 / erased at the old owner",
            yes(&line["erased_at_old_owner"]),
        ),
    ] {
        if !value.is_empty() {
            output::line(format!("{name}: {value}"));
        }
    }
}

fn counts(at: &List, json: bool) -> Result<ExitCode> {
    let lines: Vec<Value> = looking(&at.at, &at.who)?.get("/api/v1/counts")?;
    if json {
        output::json(&json!({ "counts": lines }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| vec![text(&line["origin"]), line["records"].to_string()])
        .collect();
    output::table(&["账本 shard", "记录 records"], &rows);
    Ok(ExitCode::SUCCESS)
}
