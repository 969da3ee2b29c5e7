//! The root of a node: opening and locking it, officers' shares; [`mod@recover`] when it was lost.
//!
//! Refuses to put a share anywhere but where the officer said; it is not kept here.

pub mod args;
mod recover;

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use registry::custody::steps::{FILE_MAX as SHARE_FILE_MAX, ShareFile};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::client::{Client, passphrase, passphrase_file, running};
use crate::commands::keys::args::Whose;
use crate::fault::{Fault, Result};
use crate::output;
use args::{Lock, NewKek, OpenNode, Share};
pub use recover::recover;

const SHARE_BYTES_MAX: u64 = 8 * 1024;

fn share_file(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(
        store::atomic::read_bounded(path, SHARE_BYTES_MAX)
            .map_err(|e| Fault::failed(e.to_string()))?,
    );
    text(&bytes)
}

fn text(bytes: &[u8]) -> Result<Zeroizing<String>> {
    std::str::from_utf8(bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| Fault::usage("份额不是文本 / the share is no text; give it as it was printed"))
}

fn key_hex(path: &Path) -> Result<String> {
    let bytes = Zeroizing::new(
        store::atomic::read_bounded(path, 32).map_err(|e| Fault::failed(e.to_string()))?,
    );
    if bytes.len() != 32 {
        return Err(Fault::usage(
            "钥匙文件须为 32 字节 / a key file has 32 bytes: `head -c 32 /dev/urandom > FILE`",
        ));
    }
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

pub fn open(command: &OpenNode, json: bool) -> Result<ExitCode> {
    let run = running(&command.at.dir).ok_or_else(|| {
        Fault::usage("节点未运行；先 `fangzhi run`，再打开 / the node is not running; start it with `fangzhi run`, then open it")
    })?;
    // As who reads the directory: whoever tries passphrases from elsewhere is in nobody's way.
    let client = Client::local(&run, &command.at.dir);
    let mut means = serde_json::Map::new();
    let phrase_file = command.at.open.passphrase_file.as_deref();
    if let Some(path) = &command.key_file {
        means.insert("key".into(), key_hex(path)?.into());
    } else if phrase_file.is_some() || command.shares.is_empty() {
        let phrase = passphrase(phrase_file, "节点口令 / passphrase of the node")?;
        means.insert("passphrase".into(), phrase.as_str().into());
    }
    let shares = command.shares.iter().map(|path| share_file(path));
    let shares: Vec<Value> = shares
        .map(|share| Ok(share?.as_str().into()))
        .collect::<Result<_>>()?;
    if !shares.is_empty() {
        means.insert("shares".into(), shares.into());
    }
    let answer: Value = client.post("/api/v1/custody/open", &means)?;
    told(&answer, "节点已打开 / the node is open", json);
    Ok(ExitCode::SUCCESS)
}

pub fn lock(command: &Lock, json: bool) -> Result<ExitCode> {
    let answer: Value = client(&command.whose)?.post("/api/v1/custody/lock", &json!({}))?;
    told(&answer, "节点已锁定 / the node is locked", json);
    Ok(ExitCode::SUCCESS)
}

fn told(answer: &Value, words: &str, json: bool) {
    if json {
        output::json(answer);
    } else {
        output::line(words);
    }
}

fn client(whose: &Whose) -> Result<Client> {
    let mut client = Client::connect(&whose.at)?;
    client.login(&whose.who, &["security-officer"])?;
    Ok(client)
}

impl NewKek {
    /// What is to open the keystore, as the node takes it.
    pub fn means(&self) -> Result<Value> {
        if let Some(path) = &self.new_passphrase_file {
            let phrase = passphrase_file(path)?;
            return Ok(json!({ "passphrase": phrase.as_str() }));
        }
        match &self.key_file {
            Some(path) => Ok(json!({ "key": key_hex(path)? })),
            None => Ok(json!({})),
        }
    }
}

pub fn share(command: &Share, json: bool) -> Result<ExitCode> {
    match command {
        Share::Status(whose) => {
            let status: Value = client(whose)?.get("/api/v1/shares")?;
            shown(&status, json);
        }
        Share::Ready { whose, division } => {
            let line: Value =
                client(whose)?.post("/api/v1/shares/ready", &json!({ "division": division }))?;
            let words = format!(
                "已备好；告知该节点 / ready; tell the node: --holder {}:{}",
                line["organization"].as_str().unwrap_or_default(),
                line["operator"].as_str().unwrap_or_default()
            );
            told(&line, &words, json);
        }
        Share::Export {
            whose,
            division,
            out,
        } => {
            let path = match division {
                Some(division) => format!("/api/v1/shares/file?division={division}"),
                None => "/api/v1/shares/file".to_owned(),
            };
            let file: ShareFile = client(whose)?.get(&path)?;
            let bytes = serde_json::to_vec(&file).map_err(|e| Fault::failed(e.to_string()))?;
            store::atomic::replace(out, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
            told(
                &json!({ "file": out, "steps": file.steps.len() }),
                "已写入；其中份额均已封存，只有本人能开 / written; shares in it are sealed, and open for their officers alone",
                json,
            );
        }
        Share::Bring { whose, file } => {
            let bytes = store::atomic::read_bounded(file, SHARE_FILE_MAX)
                .map_err(|e| Fault::failed(e.to_string()))?;
            let file: ShareFile = serde_json::from_slice(&bytes).map_err(|_| {
                Fault::usage(
                    "不是分份文件 / this is no file of shares; let the other side export it again",
                )
            })?;
            let answer: Value = client(whose)?.post("/api/v1/shares/file", &file)?;
            told(
                &answer,
                "已收下 / taken in; see: fangzhi keys share status",
                json,
            );
        }
        Share::Take {
            whose,
            ceremony,
            out,
        } => {
            let client = client(whose)?;
            // Before the share is given away for good: it must have a place to go.
            if let Some(path) = out {
                store::atomic::replace(path, b"").map_err(|e| Fault::failed(e.to_string()))?;
            }
            let answer: Value =
                client.post("/api/v1/shares/taken", &json!({ "ceremony": ceremony }))?;
            let share = Zeroizing::new(answer["share"].as_str().unwrap_or_default().to_owned());
            match out {
                Some(path) => {
                    store::atomic::replace(path, share.as_bytes())
                        .map_err(|e| Fault::failed(e.to_string()))?;
                    told(
                        &json!({ "share": path }),
                        "份额只给这一次；另存他处后确认 / the share is given this once; put it away, then confirm it: fangzhi keys share confirm",
                        json,
                    );
                }
                None if json => output::json(&answer),
                None => {
                    output::line(share.as_str());
                    // Beside the share itself, which may be piped to a printer.
                    eprintln!(
                        "份额只给这一次；抄好后确认 / the share is given this once; copy it, then confirm it: fangzhi keys share confirm"
                    );
                }
            }
        }
        Share::Confirm {
            whose,
            ceremony,
            share,
        } => {
            let client = client(whose)?;
            let typed = match share {
                Some(path) => share_file(path)?,
                None => {
                    let mut bytes = Zeroizing::new(Vec::new());
                    std::io::stdin()
                        .take(SHARE_BYTES_MAX)
                        .read_to_end(&mut bytes)
                        .map_err(|e| Fault::failed(e.to_string()))?;
                    text(&bytes)?
                }
            };
            let status: Value = client.post(
                "/api/v1/shares/confirmed",
                &json!({ "ceremony": ceremony, "share": typed.as_str() }),
            )?;
            shown(&status, json);
        }
        Share::Abandon(whose) => {
            let _: Value = client(whose)?.post("/api/v1/shares/abandoned", &json!({}))?;
            told(
                &json!({ "abandoned": true }),
                "已放弃，原有分份不变 / abandoned; the sharing in force stays",
                json,
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(status: &Value, json: bool) {
    if json {
        return output::json(status);
    }
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match &status["in_force"] {
        Value::Null => output::line("尚未分份 / the root is not shared"),
        sharing => output::line(format!(
            "生效分份 / in force: {}，{} 份中任 {} 份可开 / any {2} of {1}；待封 / to be sealed: {}",
            word(&sharing["ceremony"]),
            sharing["shares"],
            sharing["threshold"],
            sharing["behind"]
        )),
    }
    held(status);
    let ceremony = &status["ceremony"];
    if ceremony.is_null() {
        return;
    }
    output::line(format!(
        "进行中 / under way: {}（须口头核对 / compare it by word of mouth）",
        word(&ceremony["ceremony"])
    ));
    let yes = |value: &Value| {
        if value == &json!(true) {
            "是 yes"
        } else {
            "否 no"
        }
        .to_owned()
    };
    let holders = ceremony["holders"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = holders
        .map(|holder| {
            vec![
                holder["share"].to_string(),
                match word(&holder["above"]) {
                    above if above.is_empty() => word(&holder["operator"]),
                    above => format!("{above}:{}", word(&holder["operator"])),
                },
                yes(&holder["taken"]),
                yes(&holder["confirmed"]),
            ]
        })
        .collect();
    output::table(
        &[
            "份 share",
            "持有人 holder",
            "已取 taken",
            "已确认 confirmed",
        ],
        &rows,
    );
}

/// Shares of nodes below that lie with officers of this node.
fn held(status: &Value) {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = status["held"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = lines
        .map(|line| {
            let state = match line["state"].as_str() {
                Some("waiting") => "待取 waiting",
                Some("taken") => "待确认 taken",
                Some("confirmed") => "已确认 confirmed",
                _ => "已作废 superseded",
            };
            vec![
                word(&line["division"]),
                word(&line["ceremony"]),
                line["share"].to_string(),
                word(&line["operator"]),
                state.to_owned(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        output::table(
            &[
                "下级节点 node below",
                "分份号 ceremony",
                "份 share",
                "持有人 holder",
                "状态 state",
            ],
            &rows,
        );
    }
}
