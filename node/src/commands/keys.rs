//! Keys: plans, approvals, runs and standing orders.
//!
//! All but an offline approval goes through the node's routes. Refuses to guess which plan is meant.

pub mod args;
mod status;
mod words;

use std::process::ExitCode;

use registry::plan::approve::{ApprovalFile, FILE_MAX, PlanFile, plan_id, sign_file};
use registry::plan::request::PlanRequest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{Client, operator_passphrase};
use crate::fault::{Fault, Result};
use crate::output;
use args::{Approve, Export, Keys, List, One, Take, Whose, Work};

/// The shortest beginning of a plan's id that a command takes.
const PREFIX_MIN: usize = 8;

pub fn run(command: &Keys, json: bool) -> Result<ExitCode> {
    match command {
        Keys::Plan(command) => {
            let (whose, request) = request(&command.work);
            make(whose, &request, json)
        }
        Keys::Order(command) => {
            let request = PlanRequest::Order {
                tasks: command.tasks.clone(),
                kinds: command.kinds.clone(),
                days: command.days,
            };
            make(&command.whose, &request, json)
        }
        Keys::List(command) => list(command, json),
        Keys::Show(one) => {
            let (client, plan) = find(one)?;
            shown(&client, &plan, json);
            Ok(ExitCode::SUCCESS)
        }
        Keys::Export(command) => export(command, json),
        Keys::Approve(command) => approve(command, json),
        Keys::Take(command) => take(command, json),
        Keys::Share(command) => super::custody::share(command, json),
        Keys::Kek(command) => {
            let (client, plan) = find(&command.one)?;
            let _: Value = client.post("/api/v1/custody/next", &command.means()?)?;
            let path = format!("/api/v1/plans/{}/run", text(&plan["id"]));
            let plan: Value = client.post(&path, &json!({}))?;
            shown(&client, &plan, json);
            Ok(ExitCode::SUCCESS)
        }
        Keys::Run(one) => change(one, "run", &json!({}), json),
        Keys::Status(command) => status::run(command, json),
        Keys::Withdraw(one) => change(one, "withdrawn", &json!({}), json),
    }
}

fn request(work: &Work) -> (&Whose, PlanRequest) {
    match work {
        Work::RotateEpoch {
            kind,
            compromised,
            whose,
        } => (
            whose,
            PlanRequest::RotateEpoch {
                kind: kind.clone(),
                compromised: *compromised,
            },
        ),
        Work::RetireEpoch { kind, epoch, whose } => (
            whose,
            PlanRequest::RetireEpoch {
                kind: kind.clone(),
                epoch: *epoch,
            },
        ),
        Work::EndGrant {
            grant,
            reason,
            whose,
        } => (
            whose,
            PlanRequest::EndGrant {
                grant: *grant,
                reason: reason.clone(),
            },
        ),
        Work::Erase {
            kind,
            record,
            basis,
            whose,
        } => (
            whose,
            PlanRequest::Erase {
                kind: kind.clone(),
                record: *record,
                basis: basis.clone(),
            },
        ),
        Work::RotateNode { whose } => (whose, PlanRequest::RotateNode {}),
        Work::ReplaceCharter {
            division,
            keys,
            whose,
        } => (
            whose,
            PlanRequest::ReplaceCharter {
                division: division.clone(),
                keys: keys.clone(),
            },
        ),
        Work::Share {
            threshold,
            holders,
            whose,
        } => (
            whose,
            PlanRequest::Share {
                threshold: *threshold,
                holders: holders.clone(),
            },
        ),
        Work::ExplainClock {
            origin,
            reason,
            whose,
        } => (
            whose,
            PlanRequest::ExplainClock {
                origin: origin.clone(),
                reason: reason.clone(),
            },
        ),
        Work::RotateKek { whose } => (whose, PlanRequest::RotateKek {}),
    }
}

pub(super) fn client(whose: &Whose) -> Result<Client> {
    let mut client = Client::connect(&whose.at)?;
    client.login(&whose.who, &["security-officer"])?;
    Ok(client)
}

pub(super) fn make(whose: &Whose, request: &PlanRequest, json: bool) -> Result<ExitCode> {
    let client = client(whose)?;
    let plan: Value = client.post("/api/v1/plans", request)?;
    shown(&client, &plan, json);
    if !json {
        let missing = plan["state"]["missing"].as_u64().unwrap_or(1);
        output::line(format!(
            "下一步：由另外 {missing} 名安全员批准 / next, approvals of other security officers, {missing} in all: fangzhi keys approve {}",
            text(&plan["id"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A client that is logged in, and the one plan meant.
pub(super) fn find(one: &One) -> Result<(Client, Value)> {
    let client = client(&one.whose)?;
    if plan_id(&one.plan).is_ok() {
        let plan = client.get(&format!("/api/v1/plans/{}", one.plan))?;
        return Ok((client, plan));
    }
    if one.plan.len() < PREFIX_MIN {
        return Err(Fault::usage(format!(
            "方案号至少写前 {PREFIX_MIN} 位 / give at least {PREFIX_MIN} digits of the plan's id"
        )));
    }
    let plans: Vec<Value> = client.get("/api/v1/plans")?;
    let mut fitting = plans
        .into_iter()
        .filter(|plan| text(&plan["id"]).starts_with(&one.plan));
    match (fitting.next(), fitting.next()) {
        (Some(plan), None) => Ok((client, plan)),
        (None, _) => Err(Fault::failed(
            "没有这个方案 / no such plan here; see `fangzhi keys list --all`",
        )),
        (Some(_), Some(_)) => Err(Fault::usage(
            "不止一个方案如此开头 / more than one plan begins so; give more digits",
        )),
    }
}

fn change(one: &One, what: &str, body: &Value, json: bool) -> Result<ExitCode> {
    let (client, plan) = find(one)?;
    let path = format!("/api/v1/plans/{}/{what}", text(&plan["id"]));
    let plan: Value = client.post(&path, body)?;
    shown(&client, &plan, json);
    Ok(ExitCode::SUCCESS)
}

fn list(command: &List, json: bool) -> Result<ExitCode> {
    let client = client(&command.whose)?;
    let mut plans: Vec<Value> = client.get("/api/v1/plans")?;
    if !command.all {
        plans.retain(|plan| {
            matches!(
                text(&plan["state"]["is"]).as_str(),
                "waiting" | "approved" | "in-force"
            )
        });
    }
    if json {
        output::json(&json!({ "plans": plans }));
        return Ok(ExitCode::SUCCESS);
    }
    let logins = words::logins(&client);
    let rows: Vec<Vec<String>> = plans
        .iter()
        .map(|plan| {
            vec![
                text(&plan["id"]).chars().take(16).collect(),
                text(&plan["division"]),
                text(&plan["work"]["work"]),
                state(plan),
                words::login(&logins, &plan["made_by"]),
                time(&plan["not_after"]),
                words::in_force_until(plan).unwrap_or_else(|| "–".into()),
            ]
        })
        .collect();
    output::table(
        &[
            "方案 plan",
            "节点 node",
            "事项 work",
            "状态 state",
            "制单人 made by",
            "方案期限 approve and run until",
            "常令至 order ends",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

fn export(command: &Export, json: bool) -> Result<ExitCode> {
    let (client, plan) = find(&command.one)?;
    let id = text(&plan["id"]);
    let file: PlanFile = client.get(&format!("/api/v1/plans/{id}/file"))?;
    write(&command.out, &file)?;
    if json {
        output::json(&json!({ "plan": id, "file": command.out }));
    } else {
        output::line(format!(
            "方案 {id} 已写入 / the plan is in {}；方案号请电话告知批准人 / tell the approver its id by telephone",
            command.out.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn approve(command: &Approve, json: bool) -> Result<ExitCode> {
    let (Some(file), Some(out)) = (&command.file, &command.out) else {
        let word = json!({ "approved": !command.refuse });
        return change(&command.one, "approvals", &word, json);
    };
    let expected = plan_id(&command.one.plan)?;
    let plan_file: PlanFile = read(file, "方案 / plan")?;
    let plan = plan_file.plan()?;
    let whose = &command.one.whose;
    let login = whose
        .who
        .operator
        .clone()
        .ok_or_else(|| Fault::usage("请用 --as 指明批准人 / say who approves with `--as`"))?;
    if !json {
        output::line(format!(
            "方案 / plan: {}：{}",
            plan.division,
            words::work(&serde_json::to_value(&plan.work).unwrap_or_default())
        ));
        for figure in &plan.figures {
            output::line(format!(
                "  {}: {}",
                words::figure(figure.name.as_str()),
                figure.count
            ));
        }
    }
    let phrase = operator_passphrase(&whose.at.dir, &whose.who, &login)?;
    let signed = sign_file(
        &whose.at.dir,
        (&login, &phrase),
        &plan_file,
        &expected,
        !command.refuse,
        api::now(),
    )?;
    write(out, &signed)?;
    if json {
        output::json(
            &json!({ "plan": command.one.plan, "approved": !command.refuse, "file": out }),
        );
    } else {
        output::line(format!(
            "已签，写入 / signed, in {}；带回作方案的节点 / at the plan's node: fangzhi keys take FILE",
            out.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn take(command: &Take, json: bool) -> Result<ExitCode> {
    let file: ApprovalFile = read(&command.file, "批准 / approval")?;
    let client = client(&command.whose)?;
    let plan: Value = client.post("/api/v1/approvals", &file)?;
    shown(&client, &plan, json);
    Ok(ExitCode::SUCCESS)
}

fn read<T: DeserializeOwned>(path: &std::path::Path, what: &str) -> Result<T> {
    let bytes =
        store::atomic::read_bounded(path, FILE_MAX).map_err(|e| Fault::failed(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|_| {
        Fault::usage(format!(
            "`{}` 不是{what}文件 / is no file of this kind; make it again",
            path.display()
        ))
    })
}

fn write(path: &std::path::Path, file: &impl serde::Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(file).map_err(|e| Fault::failed(e.to_string()))?;
    store::atomic::replace(path, &bytes).map_err(|e| Fault::failed(e.to_string()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> String {
    registry::audit::page::time(::record::id::UnixMillis(value.as_u64().unwrap_or_default()))
}

/// Where a plan stands, in words.
fn state(plan: &Value) -> String {
    let state = &plan["state"];
    match text(&state["is"]).as_str() {
        "waiting" => format!("待批准，缺 {0} / waits for {0}", state["missing"]),
        "approved" => "已批准，可执行 / approved".into(),
        "refused" => "被否决 / refused".into(),
        "expired" => "已过期 / expired".into(),
        "forged" => "签名不符 / forged".into(),
        "run" => "已执行 / run".into(),
        "withdrawn" => "已撤回 / withdrawn".into(),
        "in-force" => "常令有效 / in force".into(),
        "lapsed" => "常令已到期 / lapsed".into(),
        other => other.to_owned(),
    }
}

/// Prints a plan.
fn shown(client: &Client, plan: &Value, json: bool) {
    if json {
        output::json(plan);
        return;
    }
    output::line(format!("方案 / plan {}", text(&plan["id"])));
    output::line(format!("  节点 / node: {}", text(&plan["division"])));
    let logins = words::logins(client);
    output::line(format!("  事项 / work: {}", words::work(&plan["work"])));
    output::line(format!(
        "  制单人 / made by: {}，{}",
        words::who(&logins, &plan["made_by"]),
        time(&plan["made_at"])
    ));
    output::line(format!("  状态 / state: {}", state(plan)));
    output::line(format!(
        "  方案期限，此前须批准并执行 / to be approved and run until: {}",
        time(&plan["not_after"])
    ));
    if let Some(until) = words::in_force_until(plan) {
        output::line(format!("  常令至 / the order is in force until: {until}"));
    }
    for figure in plan["figures"].as_array().into_iter().flatten() {
        output::line(format!(
            "  {}: {}",
            words::figure(&text(&figure["name"])),
            figure["count"]
        ));
    }
    let away: Vec<String> = plan["unreachable"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if !away.is_empty() {
        output::line(format!("  未连接 / not connected: {}", away.join(", ")));
    }
    for word in plan["approvals"].as_array().into_iter().flatten() {
        let verdict = if word["approved"] == json!(true) {
            "批准 / approved"
        } else {
            "否决 / refused"
        };
        let counts = word["discounted"].as_str().map_or(String::new(), |why| {
            format!("；不计 / does not count: {why}")
        });
        output::line(format!(
            "  {verdict}: {} {}{counts}",
            text(&word["organization"]),
            words::who(&logins, &word["operator"])
        ));
    }
}
