//! One record's history, one operator's acts, and disclosing fields to a third person.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use record::id::OperatorId;
use registry::audit::changes::ChangesRequest;
use registry::audit::disclose::DiscloseRequest;
use registry::audit::history::{self, ActLine, HistoryLine};
use registry::audit::page::time;
use registry::audit::view::View;
use registry::config::Files;
use serde_json::Value;

use super::args::{Acts, Disclose, History};
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

/// The parts of an operator's id that a table shows.
const ID_DIGITS: usize = 8;

pub fn history(command: &History, json: bool) -> Result<ExitCode> {
    let lines = {
        let view = View::open(&command.at.dir)?;
        history::history(&view, &command.record, command.kind.as_ref())?
    };
    let changes = changes(command, &lines)?;
    if json {
        output::json(&serde_json::json!({ "history": lines, "changes": changes }));
        return Ok(ExitCode::SUCCESS);
    }
    let changed = changed_fields(changes.as_ref());
    for line in &lines {
        let version = line
            .version
            .map_or_else(String::new, |v| format!(" 第 {v} 版 / version {v}"));
        output::line(format!(
            "── {} #{}{version} {} {}",
            line.ledger,
            line.index,
            line.operation,
            time(line.recorded_at)
        ));
        match &line.act {
            Some(act) => show_act(act),
            None => output::line("   尚无经办签署 / signed by no act here"),
        }
        let fields = line
            .version
            .filter(|_| line.ledger.is_shard())
            .and_then(|v| changed.get(&v));
        if let Some(fields) = fields {
            output::line(format!("   变更项 / changed: {fields}"));
        }
    }
    if let Some(changes) = &changes {
        output::line(format!(
            "水印 / mark: {}",
            changes["mark"].as_str().unwrap_or_default()
        ));
    } else {
        output::line("未开封任何内容 / no cell was opened");
    }
    Ok(ExitCode::SUCCESS)
}

/// Which fields changed, if a purpose was given: a reading, through the node.
fn changes(command: &History, lines: &[HistoryLine]) -> Result<Option<Value>> {
    let Some(purpose) = &command.purpose else {
        if command.who.operator.is_some() {
            return Err(Fault::usage(
                "查看变更项是查询，请给 --purpose / listing the changed fields is a reading; give --purpose",
            ));
        }
        return Ok(None);
    };
    let Some(first) = lines.first() else {
        return Ok(None);
    };
    let request = ChangesRequest {
        kind: first.ledger.ledger(),
        record: command.record,
        purpose: purpose.clone(),
        basis: command.basis.clone(),
    };
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &READERS)?;
    client.post("/api/v1/changes", &request).map(Some)
}

fn changed_fields(changes: Option<&Value>) -> BTreeMap<u64, String> {
    let versions = changes.and_then(|c| c["value"]["versions"].as_array());
    versions
        .into_iter()
        .flatten()
        .filter_map(|version| {
            let fields = match version["fields"].as_array() {
                None => "（未列 / none listed）".to_owned(),
                Some(fields) => {
                    let ids: Vec<&str> = fields.iter().filter_map(Value::as_str).collect();
                    ids.join(", ")
                }
            };
            Some((version["version"].as_u64()?, fields))
        })
        .collect()
}

fn show_act(act: &ActLine) {
    let who = match &act.signer {
        Some(signer) => match &signer.operator {
            Some(operator) => format!(
                "操作员 / operator {operator}（{}，证书 / certificate #{}{}）",
                signer.role,
                signer.certificate.unwrap_or_default(),
                signer
                    .disabled
                    .map_or_else(String::new, |at| format!("，停用于 / disabled at {at}"))
            ),
            None => format!("节点 / node {}", act.organization),
        },
        None => format!("未知密钥 / unknown key {}", act.key),
    };
    output::line(format!("   {who}"));
    let authority = match act.authority {
        "holds" => "相符 / holds",
        "differs" => "不符 / DIFFERS",
        _ => "此处没有 / not here",
    };
    output::line(format!(
        "   经办 / act #{}（{}–{}），用途 / purpose {}，{}，依据授权账本 {} 条 / authority at {}：{authority}；签名 / signature {}",
        act.index,
        act.first,
        act.first + u64::from(act.count).saturating_sub(1),
        act.purpose,
        time(act.signed_at),
        act.authority_size,
        act.authority_size,
        if act.signature {
            "成立 / holds"
        } else {
            "不成立 / DOES NOT HOLD"
        }
    ));
    if let Some(proposal) = &act.proposal {
        output::line(format!(
            "   采纳的变更建议 / at the proposal {}/{} (`{}`, {})",
            proposal.proposer,
            proposal.index,
            proposal.ledger,
            time(proposal.recorded_at)
        ));
    } else if let Some(source) = &act.source {
        output::line(format!("   来源 / source {source}"));
    }
}

pub fn acts(command: &Acts, json: bool) -> Result<ExitCode> {
    let operator = operator(&command.node.dir, &command.operator)?;
    let view = View::open(&command.node.dir)?;
    let acts = history::acts(&view, &operator)?;
    if json {
        output::json(&serde_json::json!({ "operator": operator, "acts": acts }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = acts
        .iter()
        .map(|act| {
            vec![
                act.ledger.to_string(),
                act.first.to_string(),
                act.count.to_string(),
                act.purpose.to_string(),
                time(act.signed_at),
                act.source
                    .as_deref()
                    .map_or_else(|| "–".into(), |s| s.chars().take(ID_DIGITS * 2).collect()),
                if act.signature {
                    "成立 holds"
                } else {
                    "不成立 NO"
                }
                .to_owned(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 ledger",
            "首条 first",
            "条数 count",
            "用途 purpose",
            "时间 time",
            "来源 source",
            "签名 signature",
        ],
        &rows,
    );
    output::line(format!("{operator}：{} 次经办 / acts", acts.len()));
    Ok(ExitCode::SUCCESS)
}

/// An operator by id, or by the login name that the directory's own files give.
fn operator(dir: &Path, text: &str) -> Result<OperatorId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let known = std::fs::read_dir(Files::new(dir).operators()).into_iter();
    known
        .flatten()
        .flatten()
        .filter_map(|item| std::fs::read(item.path()).ok())
        .filter_map(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .find(|file| file["login"] == text)
        .and_then(|file| file["operator"].as_str()?.parse().ok())
        .ok_or_else(|| {
            Fault::usage(
                "没有这个操作员 / no operator of that id or login name; an id has 32 hexadecimal digits",
            )
        })
}

pub fn disclose(command: &Disclose, json: bool) -> Result<ExitCode> {
    let request = DiscloseRequest {
        kind: command.kind.clone(),
        record: command.record,
        fields: command.fields.clone(),
        version: command.version,
        purpose: command.purpose.clone(),
        basis: command.basis.clone(),
    };
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &READERS)?;
    let file: Value = client.post("/api/v1/disclosures", &request)?;
    let mut bytes = serde_json::to_vec_pretty(&file).map_err(|e| Fault::failed(e.to_string()))?;
    bytes.push(b'\n');
    // It shows personal data: nobody else on this machine reads it.
    store::atomic::replace(&command.out, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
    let value = &file["value"];
    if json {
        output::json(&serde_json::json!({
            "out": command.out,
            "mark": file["mark"],
            "receipt": file["receipt"],
            "record": value["record"],
            "version": value["version"],
            "origin": value["origin"],
            "index": value["index"],
        }));
    } else {
        output::line(format!(
            "已披露 / disclosed: {} 第 {} 版 / version {}，{}",
            command.record,
            value["version"],
            value["version"],
            command.out.display()
        ));
        output::line(format!(
            "水印 / mark: {}；对方用 `fangzhi audit check` 或 docs/formats/disclosure.md 核对 / the other side checks it so",
            file["mark"].as_str().unwrap_or_default()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
