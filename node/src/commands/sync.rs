//! `fangzhi sync status`: what each neighbour holds and lacks, since when, and what it runs.

use std::process::ExitCode;

use record::id::UnixMillis;
use serde_json::{Value, json};

use crate::args::Sync;
use crate::client::Client;
use crate::fault::Result;
use crate::output;

pub fn run(command: &Sync, as_json: bool) -> Result<ExitCode> {
    let Sync::Status(at) = command;
    let status: Value = Client::connect(at)?.get("/api/v1/sync")?;
    if as_json {
        output::json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let now = status["at"].as_u64().unwrap_or_default();
    let peers = status["peers"].as_array().into_iter().flatten();
    let mut none = true;
    for peer in peers {
        none = false;
        show(peer, now);
    }
    if none {
        output::line("没有上级，也没有下级 / this node has no parent and no child");
    }
    Ok(ExitCode::SUCCESS)
}

fn show(peer: &Value, now: u64) {
    let relation = match peer["relation"].as_str() {
        Some("parent") => "上级 parent",
        Some("child") => "下级 child",
        _ => "其他 other",
    };
    let state = if peer["connected"] == json!(true) {
        match peer["transport"].as_str() {
            Some("quic") => "已连接 connected（QUIC）",
            Some("tcp") => "已连接 connected（TCP）",
            _ => "已连接 connected",
        }
    } else {
        "未连接 not connected"
    };
    output::line(format!(
        "{}（{relation}）: {state} {}；发 sent {} B，收 received {} B",
        text(&peer["peer"]),
        since(&peer["since"], now),
        peer["sent"],
        peer["received"]
    ));
    output::line(format!(
        "  对端缺 / it lacks: {} {}；本机缺 / missing here: {} {}",
        peer["lacks"],
        since(&peer["lacks_since"], now),
        peer["owes"],
        since(&peer["owes_since"], now)
    ));
    let ferry = &peer["ferry"];
    if ferry.is_object() {
        output::line(format!(
            "  摆渡 / ferry: 装到 packed {}，回执到 acknowledged {}，开到 opened {}；对端所持 what it holds: {}",
            ferry["packed"],
            ferry["acknowledged"],
            ferry["opened"],
            super::ferry::state(&ferry["state"])
        ));
    }
    if let Some(why) = peer["fell_back"].as_str() {
        output::line(format!(
            "  QUIC 不通，改用 TCP / over TCP, because QUIC failed: {why}"
        ));
    }
    if let Some(error) = peer["last_error"].as_str() {
        output::line(format!("  最近错误 / last error: {error}"));
    }
    if let Some(next) = peer["next_try"].as_u64() {
        output::line(format!("  下次重试 / next try: {}", time(next)));
    }
    for version in peer["versions"].as_array().into_iter().flatten() {
        let compared = match version["compared"].as_str() {
            Some("same") => "与本机相同 same as here",
            Some("older") => "比本机旧 older than here",
            Some("newer") => "比本机新 newer than here",
            _ => "与本机不同 different from here",
        };
        let what = match version["what"].as_str() {
            Some("schemas") => "类别 schemas",
            Some("policies") => "政策 policies",
            _ => "程序 program",
        };
        let declined = version["declined"]
            .as_object()
            .map_or(String::new(), |declined| {
                format!(
                    "；持有第 {0} 版未采用 / holds version {0} and does not run it: {1}",
                    declined["version"],
                    text(&declined["reason"])
                )
            });
        output::line(format!(
            "  {what}: {} {} {compared}{declined}",
            text(&version["version"]),
            text(&version["hash"])
        ));
    }
    let rows: Vec<Vec<String>> = peer["ledgers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|ledger| {
            let way = if ledger["way"] == "to" {
                "发往 to"
            } else {
                "来自 from"
            };
            let count = |field: &str| ledger[field].as_u64().map_or("-".into(), |n| n.to_string());
            vec![
                text(&ledger["origin"]),
                way.into(),
                count("size"),
                count("held"),
                count("cosigned"),
                count("behind"),
                since(&ledger["behind_since"], now),
                text(&ledger["error"]),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let headers = [
            "账本 ledger",
            "方向 way",
            "条目 entries",
            "已持 held",
            "已联署 cosigned",
            "落后 behind",
            "自 since",
            "错误 error",
        ];
        output::table(&headers, &rows);
    }
    if let Some(whole) = peer["whole"].as_u64().filter(|whole| *whole > 0) {
        output::line(format!(
            "  另有 {whole} 个下发账本已齐 / {whole} more ledgers given to it are whole there"
        ));
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(at: u64) -> String {
    registry::audit::page::time(UnixMillis(at))
}

/// A time, and how long ago that was; nothing for none.
fn since(value: &Value, now: u64) -> String {
    let Some(at) = value.as_u64() else {
        return String::new();
    };
    let secs = now.saturating_sub(at) / 1000;
    let ago = match secs {
        0..=119 => format!("{secs} 秒 s"),
        120..=7199 => format!("{} 分 min", secs / 60),
        7200..=172_799 => format!("{} 时 h", secs / 3600),
        _ => format!("{} 日 d", secs / 86_400),
    };
    format!("自 since {}（{ago}）", time(at))
}
