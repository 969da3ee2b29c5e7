//! Grants: planning, making, listing, explaining, renewing, and what a holder can prove.

use std::collections::BTreeMap;
use std::process::ExitCode;

use registry::grant::GrantRequest;
use registry::grant::amend::AmendRequest;
use registry::plan::request::PlanRequest;
use serde_json::Value;

use crate::args::{
    As, Dir, Grant, GrantAmend, GrantExport, GrantMake, GrantOne, GrantRenew, GrantVerify, GrantWhy,
};
use crate::client::Client;
use crate::fault::{Fault, Result, exit};
use crate::output;

pub fn run(command: &Grant, json: bool) -> Result<ExitCode> {
    match command {
        Grant::Plan(command) => plan(command, json),
        Grant::Make(command) => make(command, json),
        Grant::Show(command) => show(command, json),
        Grant::Why(command) => why(command, json),
        Grant::Amend(command) => amend(command, json),
        Grant::Renew(command) => renew(command, json),
        Grant::Verify(command) => verify(command, json),
        Grant::Export(command) => export(command, json),
        Grant::List(at) => {
            let grants: Vec<Value> = Client::connect(at)?.get("/api/v1/grants")?;
            if json {
                output::json(&serde_json::json!({ "grants": grants }));
                return Ok(ExitCode::SUCCESS);
            }
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
                        text(&g["id"]),
                        text(&g["origin"]),
                        text(&g["holder"]),
                        state(&g["state"]),
                        time(&g["not_after"]),
                        g["heartbeat_at"]
                            .as_u64()
                            .map_or_else(|| "–".into(), |_| time(&g["heartbeat_at"])),
                        text(&g["purpose"]),
                        g["records"]
                            .as_u64()
                            .map_or_else(|| "–".into(), |n| n.to_string()),
                        receipts(g),
                        fields.join(","),
                    ]
                })
                .collect();
            output::table(
                &[
                    "授权 grant",
                    "账本 shard",
                    "持有方 holder",
                    "状态 state",
                    "期限 until",
                    "最近心跳 heartbeat",
                    "用途 purpose",
                    "记录 records",
                    "回执待/逾期 receipts",
                    "字段 fields",
                ],
                &rows,
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Retractions whose receipts are missing, and of these the late ones.
fn receipts(grant: &Value) -> String {
    let count = |name: &str| grant[name].as_u64().unwrap_or_default();
    format!(
        "{}/{}",
        count("receipts_missing"),
        count("receipts_overdue")
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> String {
    registry::audit::page::time(::record::id::UnixMillis(value.as_u64().unwrap_or_default()))
}

fn list(value: &Value) -> String {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        .collect::<Vec<_>>()
        .join(",")
}

fn state(value: &Value) -> String {
    match text(value).as_str() {
        "in-force" => "有效 / in force".into(),
        "refused" => "策略不许，已暂停 / refused by policy, suspended".into(),
        "unkeyed" => "待重新授权 / waits for keys".into(),
        "awaiting" => "已终止，待回执 / ended, receipt awaited".into(),
        "overdue" => "已终止，回执逾期 / ended, receipt overdue".into(),
        "dropped" => "已终止，已清除 / ended and dropped".into(),
        other => other.to_owned(),
    }
}

fn client(at: &Dir, who: &As) -> Result<Client> {
    let mut client = Client::connect(at)?;
    client.login(who, &["security-officer"])?;
    Ok(client)
}

fn plan(command: &GrantMake, json: bool) -> Result<ExitCode> {
    let request = request(command)?;
    let plan: Value = client(&command.at, &command.who)?.post("/api/v1/grants/plan", &request)?;
    if json {
        output::json(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!(
        "{} → {}：本授权 {} 行 / rows of this grant alone",
        text(&plan["origin"]),
        text(&plan["holder"]),
        plan["rows"]
    ));
    openable(&plan);
    Ok(ExitCode::SUCCESS)
}

/// Everything that the holder could open over all its grants.
fn openable(plan: &Value) {
    let rows: Vec<Vec<String>> = plan["openable"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| {
            vec![
                text(&line["group"]),
                line["rows_before"].to_string(),
                line["rows"].to_string(),
                list(&line["fields"]),
                list(&line["added"]),
            ]
        })
        .collect();
    output::table(
        &[
            "字段组 group",
            "现有行 rows now",
            "将有行 rows then",
            "可开字段 fields",
            "新增 added",
        ],
        &rows,
    );
    let away = list(&plan["unreachable"]);
    if !away.is_empty() {
        output::line(format!(
            "未连接，暂不能送达 / not connected, it will come later: {away}"
        ));
    }
}

fn amend(command: &GrantAmend, json: bool) -> Result<ExitCode> {
    let one = &command.one;
    let rows = match (command.all_rows, command.conditions.is_empty()) {
        (true, _) => Some(BTreeMap::new()),
        (false, true) => None,
        (false, false) => Some(conditions(&command.conditions)?),
    };
    let request = AmendRequest {
        fields: (!command.fields.is_empty()).then(|| command.fields.clone()),
        rows,
        history: command.history,
        basis: command.basis.clone(),
        assessment: command.assessment.clone(),
    };
    let client = client(&one.at, &one.who)?;
    let path = format!("/api/v1/grants/{}/plan", one.grant);
    let shown: Value = client.post(&path, &request)?;
    let plan: Option<Value> = if command.dry_run {
        None
    } else {
        let request = PlanRequest::AmendGrant {
            grant: one.grant,
            to: request,
        };
        Some(client.post("/api/v1/plans", &request)?)
    };
    if json {
        output::json(&serde_json::json!({ "comes_to": shown, "plan": plan }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!(
        "{} → {}：变更后 {} 行，进入 {}，退出 {} / rows then, entering, leaving",
        text(&shown["origin"]),
        text(&shown["holder"]),
        shown["rows"],
        shown["entering"],
        shown["leaving"]
    ));
    for (name, fields) in [
        ("新增字段 / fields added", list(&shown["fields_added"])),
        ("去除字段 / fields removed", list(&shown["fields_removed"])),
    ] {
        if !fields.is_empty() {
            output::line(format!("{name}: {fields}"));
        }
    }
    if !list(&shown["fields_removed"]).is_empty() {
        output::line(
            "持有方将清除并回执；其已有的本期密钥须轮换密钥期方作废 / the holder drops the cells and signs; its keys of this epoch end with the next: `fangzhi keys plan rotate-epoch`",
        );
    }
    openable(&shown);
    if let Some(plan) = plan {
        output::line(format!(
            "方案 / plan: {}；待另一名安全员批准 / another officer approves: `fangzhi keys approve`, `fangzhi keys run`",
            text(&plan["id"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(command: &GrantOne, json: bool) -> Result<ExitCode> {
    let path = format!("/api/v1/grants/{}", command.grant);
    let grant: Value = client(&command.at, &command.who)?.get(&path)?;
    if json {
        output::json(&grant);
        return Ok(ExitCode::SUCCESS);
    }
    let line = &grant["line"];
    for (name, value) in [
        ("授权 / grant", text(&line["id"])),
        ("账本 / shard", text(&line["origin"])),
        ("持有方 / holder", text(&line["holder"])),
        ("状态 / state", state(&line["state"])),
        ("字段 / fields", list(&line["fields"])),
        ("用途 / purpose", text(&line["purpose"])),
        ("法律依据 / basis", text(&line["basis"])),
        ("影响评估 / assessment", text(&grant["assessment"])),
        ("历史 / history", text(&line["history"])),
        ("回执待/逾期 / receipts missing/overdue", receipts(line)),
        ("期限 / until", time(&line["not_after"])),
        ("密钥期 / epochs", list(&grant["epochs"])),
        ("记录 / records", line["records"].to_string()),
        (
            "心跳至 / nothing missing up to",
            grant["heartbeat"].to_string(),
        ),
    ] {
        output::line(format!("{name}: {value}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn why(command: &GrantWhy, json: bool) -> Result<ExitCode> {
    let path = format!("/api/v1/grants/why/{}/{}", command.record, command.holder);
    let lines: Vec<Value> = client(&command.at, &command.who)?.get(&path)?;
    if json {
        output::json(&serde_json::json!({ "grants": lines }));
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        output::line("从未在授权范围 / no grant to this holder ever had the record in scope");
    }
    for line in &lines {
        let grant = &line["grant"];
        let holds = if line["holds"] == true {
            "在持 / holds it"
        } else {
            "已撤回 / retracted"
        };
        let rows = match &line["conditions"] {
            Value::Null => "仅所有者知 / known to the owner only".into(),
            fields if list(fields).is_empty() => "全部行 / every row".into(),
            fields => format!("按字段 / by field {}", list(fields)),
        };
        output::line(format!(
            "{} {holds}：{}；{}；{}；{rows}",
            text(&grant["id"]),
            list(&grant["fields"]),
            text(&grant["purpose"]),
            text(&grant["basis"])
        ));
        for step in line["steps"].as_array().into_iter().flatten() {
            output::line(format!(
                "  {} {} @ {}",
                time(&step["recorded_at"]),
                text(&step["operation"]),
                step["index"]
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn renew(command: &GrantRenew, json: bool) -> Result<ExitCode> {
    let one = &command.one;
    let path = format!("/api/v1/grants/{}/renewed", one.grant);
    let days = serde_json::json!({ "days": command.days });
    let client = client(&one.at, &one.who)?;
    let mut answer: Value = client.post(&path, &days)?;
    let grant: Value = client.get(&format!("/api/v1/grants/{}", one.grant))?;
    let until = &grant["line"]["not_after"];
    if json {
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("not_after".into(), until.clone());
        }
        output::json(&answer);
    } else {
        output::line(format!(
            "已续至 {0} / renewed until {0}: {1}",
            time(until),
            one.grant
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(command: &GrantVerify, json: bool) -> Result<ExitCode> {
    let named = command
        .checkpoint
        .as_deref()
        .map(|path| std::fs::read_to_string(path).map_err(|e| Fault::file(path, &e)))
        .transpose()?;
    let named = named.as_deref();
    let mut rests_on = None;
    let mut proofs = match (&command.file, &command.dir) {
        (Some(file), dir) => {
            let verified = registry::grant::export::verify_file(file, named)?;
            // What this machine knows of the realm counts more than what the file says.
            let known = match (&command.root, dir) {
                (Some(root), _) => Some(root.to_lowercase()),
                (None, Some(dir)) => Some(registry::config::NodeConfig::read(dir)?.root),
                (None, None) => None,
            };
            if known.is_some_and(|known| known != verified.root) {
                return Err(Fault::new(
                    exit::NOT_VERIFIED,
                    "other-root",
                    "文件所依的辖域根公钥不符 / the file rests on another realm root; ask whoever gave it where it is from",
                ));
            }
            rests_on = Some(verified.root);
            verified.grants
        }
        (None, Some(dir)) => registry::grant::proof::verify_grants_to(
            dir,
            command.grant.as_ref(),
            named,
            api::now(),
        )?,
        (None, None) => {
            return Err(Fault::usage(
                "给出 `--dir` 或 `--file` / name a directory or a file",
            ));
        }
    };
    proofs.retain(|proof| command.grant.is_none_or(|grant| grant == proof.grant));
    if proofs.is_empty() {
        return Err(Fault::usage(
            "其中没有这样的授权 / there is no such grant in it, or none of that checkpoint's shard",
        ));
    }
    let ok = proofs.iter().all(|proof| proof.ok);
    let code = if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    };
    if json {
        output::json(&serde_json::json!({ "ok": ok, "root": rests_on, "grants": proofs }));
        return Ok(code);
    }
    if let Some(root) = rests_on {
        output::line(format!(
            "所依辖域根公钥，请另行核对 / rests on the realm root, compare it: {root}"
        ));
    }
    for proof in &proofs {
        let upto = match &proof.checkpoint {
            _ if proof.finished => {
                "已终止，不再待心跳 / ended; nothing is held of it, and no heartbeat is waited for"
                    .into()
            }
            None => "尚无心跳，完整性未证 / no heartbeat yet: nothing says that it is whole".into(),
            Some(at) => format!(
                "至 `{}` 第 {} 条（{}，{}）完整 / whole up to entry {1}",
                at.origin,
                at.size,
                at.root.chars().take(16).collect::<String>(),
                registry::audit::page::time(at.stated_at)
            ),
        };
        let word = if proof.ok {
            "通过 / holds"
        } else {
            "不符 / does not hold"
        };
        output::line(format!(
            "{} {word}：{} 条记录 / records；{upto}",
            proof.grant, proof.records
        ));
        if let Some(named) = &proof.named {
            let word = if named.reached {
                "已证明到 / proven up to"
            } else {
                "未证明到 / not proven up to"
            };
            output::line(format!("  {word} 第 {} 条 {}", named.size, named.root));
        }
        if proof.unvouched > 0 {
            output::line(format!(
                "  其后 {} 条待下次心跳作证 / {0} entries after it wait for the next heartbeat",
                proof.unvouched
            ));
        }
        for finding in &proof.findings {
            output::line(format!("  {}", finding.what));
        }
    }
    Ok(code)
}

fn export(command: &GrantExport, json: bool) -> Result<ExitCode> {
    let exported =
        registry::grant::export::export_grant(&command.dir, &command.grant, &command.out)?;
    if json {
        output::json(&exported);
    } else {
        output::line(format!(
            "已导出 / exported: {}（{} 行 rows，{} 字节 bytes）",
            command.out.display(),
            exported.rows,
            exported.bytes
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn request(command: &GrantMake) -> Result<GrantRequest> {
    let rows = conditions(&command.conditions)?;
    Ok(GrantRequest {
        kind: command.kind.clone(),
        holder: command.holder.clone(),
        fields: command.fields.clone(),
        rows,
        purpose: command.purpose.clone(),
        basis: command.basis.clone(),
        assessment: command.assessment.clone(),
        days: command.days,
        history: command.history,
    })
}

fn conditions(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |condition: &String| {
        condition
            .split_once('=')
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .ok_or_else(|| Fault::usage("`--where` 用 字段=值 / use field=value"))
    };
    given.iter().map(pair).collect()
}

fn make(command: &GrantMake, json: bool) -> Result<ExitCode> {
    let request = request(command)?;
    let answer: Value = client(&command.at, &command.who)?.post("/api/v1/grants", &request)?;
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
