//! The root of a node: opening and locking it, officers' shares, rebuilding it when it was lost.
//!
//! Refuses to put a share anywhere but where the officer said; it is not kept here.

pub mod args;

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use registry::config::KeyCustody;
use registry::recovery::export::{FILE_MAX, RecoveryFile};
use registry::recovery::rebuild::{NewPlace, rebuild};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::client::{Client, opener, passphrase, passphrase_file, running};
use crate::commands::keys::args::Whose;
use crate::fault::{Fault, Result};
use crate::output;
use args::{Lock, NewKek, OpenNode, Recover, Share};

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
    let client = Client::remote(&run.url, &command.at.dir);
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
                word(&holder["operator"]),
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

pub fn recover(command: &Recover, json: bool) -> Result<ExitCode> {
    match command {
        Recover::Export {
            at,
            who,
            division,
            address,
            out,
        } => {
            let mut client = Client::connect(at)?;
            client.login(who, &["security-officer"])?;
            let file: RecoveryFile = client.post(
                "/api/v1/recovery",
                &json!({ "division": division, "address": address }),
            )?;
            let bytes = serde_json::to_vec(&file).map_err(|e| Fault::failed(e.to_string()))?;
            store::atomic::replace(out, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
            told(
                &json!({ "file": out, "division": division, "ledgers": file.heads.len() }),
                "恢复文件已写入；其中全部为密文，凭份额方可打开 / the recovery file is written; it is ciphertext, and opens with officers' shares alone",
                json,
            );
        }
        Recover::Rebuild {
            at,
            from,
            shares,
            http,
            listen,
        } => {
            let bytes = store::atomic::read_bounded(from, FILE_MAX)
                .map_err(|e| Fault::failed(e.to_string()))?;
            let file: RecoveryFile = serde_json::from_slice(&bytes).map_err(|_| {
                Fault::usage(
                    "不是恢复文件 / this is no recovery file; let the parent export it again",
                )
            })?;
            let shares = shares
                .iter()
                .map(|path| share_file(path))
                .collect::<Result<Vec<_>>>()?;
            let place = NewPlace {
                http: http.clone(),
                listen: listen.clone(),
                custody: match at.open.passphrase_file {
                    Some(_) => KeyCustody::Passphrase,
                    None => KeyCustody::File,
                },
            };
            let shares: Vec<&str> = shares.iter().map(|share| share.as_str()).collect();
            let chunks = rebuild(
                &at.dir,
                &file,
                &shares,
                place,
                &opener(&at.open)?,
                api::now(),
            )?;
            told(
                &json!({ "dir": at.dir, "division": file.division, "ledgers": file.heads.len(), "chunks": chunks }),
                "节点已重建；运行后由上级取回账本 / the node is rebuilt; run it, and it takes its ledgers back from its parent: fangzhi run",
                json,
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
