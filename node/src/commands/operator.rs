//! Operators: enrolling, giving another key, disabling, listing.

use std::process::ExitCode;

use registry::session::NewOperator;
use serde_json::{Value, json};

use crate::args::{Operator, OperatorAdd, OperatorDisable, OperatorList, OperatorRenew};
use crate::client::{Client, new_passphrase};
use crate::fault::Result;
use crate::output;

pub fn run(command: &Operator, json: bool) -> Result<ExitCode> {
    match command {
        Operator::Add(command) => add(command, json),
        Operator::Renew(command) => renew(command, json),
        Operator::Disable(command) => disable(command, json),
        Operator::List(command) => list(command, json),
    }
}

fn add(command: &OperatorAdd, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let phrase = new_passphrase(
        command.new_passphrase_file.as_deref(),
        &format!(
            "为 {} 设口令 / choose the passphrase of {}",
            command.login, command.login
        ),
    )?;
    let new = NewOperator {
        login: command.login.clone(),
        passphrase: phrase.to_string(),
        role: command.role,
        grid: command.grid.clone(),
    };
    let answer: Value = client.post("/api/v1/operators", &new)?;
    if json {
        output::json(
            &json!({ "login": command.login, "role": command.role, "operator": answer["operator"], "plan": answer["plan"] }),
        );
    } else if !waits(&answer) {
        output::line(format!(
            "已登记操作员 / enrolled: {} ({})",
            command.login,
            command.role.as_str()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that another officer has to approve first, if so.
fn waits(answer: &Value) -> bool {
    let Some(plan) = answer["plan"].as_str() else {
        return false;
    };
    output::line(format!(
        "安全员须经批准：另一名安全员批准后执行 / a security officer needs approval: fangzhi keys approve {plan}, then fangzhi keys run {plan}"
    ));
    true
}

fn renew(command: &OperatorRenew, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let phrase = new_passphrase(
        command.new_passphrase_file.as_deref(),
        &format!(
            "为 {0} 设新口令 / choose the new passphrase of {0}",
            command.login
        ),
    )?;
    let path = format!("/api/v1/operators/{}/renewed", command.login);
    let answer: Value = client.post(&path, &json!({ "passphrase": phrase.as_str() }))?;
    if json {
        output::json(
            &json!({ "login": command.login, "operator": answer["operator"], "plan": answer["plan"] }),
        );
    } else if !waits(&answer) {
        output::line(format!(
            "已换钥，旧钥即时失效 / another key; the one before signs nothing any more: {}",
            command.login
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn disable(command: &OperatorDisable, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let path = format!("/api/v1/operators/{}/disabled", command.login);
    let answer: Value = client.post(&path, &json!({}))?;
    if json {
        output::json(&json!({ "disabled": command.login, "operator": answer["operator"] }));
    } else {
        output::line(format!("已停用 / disabled: {}", command.login));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(command: &OperatorList, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer", "auditor", "clerk"])?;
    let operators: Vec<Value> = client.get("/api/v1/operators")?;
    if json {
        output::json(&json!({ "operators": operators }));
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = operators
        .iter()
        .map(|o| {
            vec![
                text(&o["login"]),
                text(&o["role"]),
                text(&o["operator"]),
                o["enabled"].to_string(),
            ]
        })
        .collect();
    output::table(
        &["登录名 login", "角色 role", "编号 id", "可用 enabled"],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}
