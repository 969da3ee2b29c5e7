//! `fangzhi ferry`: replication by file, across an air gap.
//!
//! `check` needs neither node nor key; the others go to the node, running or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferry::Hex;
use ferry::manifest::Kind;
use registry::ferry::admit::{AdmitReport, AdmitRequest};
use registry::ferry::files::Files;
use registry::ferry::open::{OpenReport, OpenRequest};
use registry::ferry::pack::{PackReport, PackRequest};
use serde_json::{Value, json};

use crate::client::Client;
use crate::fault::{Fault, Result, exit};
use crate::output;

pub mod args {
    //! What can be asked of a ferry.

    use std::path::PathBuf;

    use clap::{Args as ClapArgs, Subcommand};
    use record::id::DivisionId;

    use crate::args::{As, Dir};

    /// 摆渡 / replication by file
    #[derive(Debug, Subcommand)]
    pub enum Ferry {
        /// 为上级或下级装包 / pack a bundle for the parent or a child
        Pack(Pack),
        /// 检查文件：不需密钥，可在边界处运行 / check files without keys, at a boundary say
        Check(Check),
        /// 开包：先全部核对，再收入 / open a bundle or receipt: all is checked before anything is kept
        Open(OpenFiles),
        /// 写回执，由发送方开 / write a receipt, which the sender opens
        Receipt(Receipt),
        /// 准入：凭申请文件发证并装首包 / admit a node that asks by file: its charter and its first bundle
        Admit(Admit),
        /// 各对端的包：装到、回执到、开到第几 / per neighbour, how far the bundles came
        List(Dir),
    }

    #[derive(Debug, ClapArgs)]
    pub struct Pack {
        #[command(flatten)]
        pub at: Dir,
        #[command(flatten)]
        pub who: As,
        /// 给谁：上级或下级 / for whom: the parent or a child
        #[arg(long)]
        pub to: DivisionId,
        /// 已有的目录（自动取名），或带扩展名的文件 / a folder that is there, or a file to write, with an extension
        #[arg(long, short, default_value = ".")]
        pub out: PathBuf,
        /// 每盘容量，可用 K、M、G / room on one disk, such as 600M
        #[arg(long, value_parser = super::size)]
        pub max_bytes: Option<u64>,
        /// 从该包之后重新装起；0 为全部 / go on from this bundle instead of the last; 0 packs everything
        #[arg(long)]
        pub since: Option<u64>,
        /// 单向边界：每次装全部（或 --since 之后），不等回执 / one-way boundary: everything each time, no receipt expected
        #[arg(long)]
        pub one_way: bool,
    }

    #[derive(Debug, ClapArgs)]
    pub struct Admit {
        #[command(flatten)]
        pub at: Dir,
        #[command(flatten)]
        pub who: As,
        /// 申请文件，由 fangzhi join --offline 写出 / the request, written by `fangzhi join --offline`
        pub request: PathBuf,
        /// 写到目录 / the folder to write the answer in
        #[arg(long, short, default_value = ".")]
        pub out: PathBuf,
        /// 每盘容量，可用 K、M、G / room on one disk, such as 600M
        #[arg(long, value_parser = super::size)]
        pub max_bytes: Option<u64>,
    }

    #[derive(Debug, ClapArgs)]
    pub struct Check {
        /// 文件 / the files of one bundle
        #[arg(required = true)]
        pub files: Vec<PathBuf>,
    }

    #[derive(Debug, ClapArgs)]
    pub struct OpenFiles {
        #[command(flatten)]
        pub at: Dir,
        #[command(flatten)]
        pub who: As,
        /// 文件，次序不限 / the files of one bundle, in any order
        #[arg(required = true)]
        pub files: Vec<PathBuf>,
    }

    #[derive(Debug, ClapArgs)]
    pub struct Receipt {
        #[command(flatten)]
        pub at: Dir,
        #[command(flatten)]
        pub who: As,
        /// 给谁 / for whom
        #[arg(long)]
        pub to: DivisionId,
        /// 已有的目录（自动取名），或带扩展名的文件 / a folder that is there, or a file to write, with an extension
        #[arg(long, short, default_value = ".")]
        pub out: PathBuf,
    }
}

use args::Ferry;

const OFFICER: [&str; 1] = ["security-officer"];

/// Bytes, with K, M or G for powers of 1024.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 1 << 10),
        Some('M' | 'm') => (&text[..text.len() - 1], 1 << 20),
        Some('G' | 'g') => (&text[..text.len() - 1], 1u64 << 30),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "用整数，可带 K、M、G / a whole number, with K, M or G".into())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Fault::file(path, &e))
}

/// Runs `fangzhi ferry`.
pub fn run(command: &Ferry, as_json: bool) -> Result<ExitCode> {
    match command {
        Ferry::Pack(command) => {
            let request = PackRequest {
                to: command.to.clone(),
                out: absolute(&command.out)?,
                max_bytes: command.max_bytes,
                since: command.since,
                one_way: command.one_way,
                receipt: false,
            };
            let mut client = Client::connect(&command.at)?;
            client.login(&command.who, &OFFICER)?;
            packed(&client.post("/api/v1/ferry/packed", &request)?, as_json)
        }
        Ferry::Receipt(command) => {
            let request = PackRequest {
                to: command.to.clone(),
                out: absolute(&command.out)?,
                max_bytes: None,
                since: None,
                one_way: false,
                receipt: true,
            };
            let mut client = Client::connect(&command.at)?;
            client.login(&command.who, &OFFICER)?;
            packed(&client.post("/api/v1/ferry/packed", &request)?, as_json)
        }
        Ferry::Open(command) => {
            let files: Result<Vec<PathBuf>> =
                command.files.iter().map(|path| absolute(path)).collect();
            let request = OpenRequest { files: files? };
            let mut client = Client::connect(&command.at)?;
            client.login(&command.who, &OFFICER)?;
            opened(&client.post("/api/v1/ferry/opened", &request)?, as_json)
        }
        Ferry::Admit(command) => {
            let request = AdmitRequest {
                request: absolute(&command.request)?,
                out: absolute(&command.out)?,
                max_bytes: command.max_bytes,
            };
            let mut client = Client::connect(&command.at)?;
            client.login(&command.who, &OFFICER)?;
            admitted(&client.post("/api/v1/ferry/admitted", &request)?, as_json)
        }
        Ferry::Check(command) => check(&command.files, as_json),
        Ferry::List(at) => list(&Client::connect(at)?.get("/api/v1/ferry")?, as_json),
    }
}

fn packed(report: &PackReport, as_json: bool) -> Result<ExitCode> {
    if as_json {
        output::json(report);
        return Ok(ExitCode::SUCCESS);
    }
    for file in &report.files {
        output::line(file.display().to_string());
    }
    if report.number == 0 {
        output::line(format!(
            "回执：已开到第 {0} 包；交 `{1}` 开 / a receipt of all up to bundle {0}; let `{1}` open it",
            report.acknowledges.unwrap_or(0),
            report.to
        ));
    } else {
        output::line(format!(
            "第 {0} 包，续自第 {1} 包，给 `{2}`：{3} 个账本，{4} 条，{5} 字节 / bundle {0} for `{2}`, going on from {1}: {3} ledgers, {4} entries, {5} bytes",
            report.number, report.after, report.to, report.ledgers, report.entries, report.bytes
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn admitted(report: &AdmitReport, as_json: bool) -> Result<ExitCode> {
    if as_json {
        output::json(report);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(report.admission.display().to_string());
    for file in &report.bundle.files {
        output::line(file.display().to_string());
    }
    let before = match report.repeated {
        true => "（此前已准入，证书不变 / admitted before, the charter is the same）",
        false => "",
    };
    output::line(format!(
        "`{0}` 已准入{before} / `{0}` is admitted; at that node: fangzhi join --dir DIR --admission {1} INVITATION, then: fangzhi ferry open --dir DIR the other files",
        report.division,
        report.admission.file_name().unwrap_or_default().display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn opened(report: &OpenReport, as_json: bool) -> Result<ExitCode> {
    let troubled = report.ledgers.iter().any(|ledger| ledger.error.is_some());
    let code = ExitCode::from(if troubled { exit::PARTLY } else { 0 });
    if as_json {
        output::json(report);
        return Ok(code);
    }
    if report.repeated {
        output::line(format!(
            "`{0}` 的第 {1} 包早已开过，没有改动 / bundle {1} of `{0}` was opened before; nothing was changed",
            report.from, report.number
        ));
        return Ok(code);
    }
    if report.kind == "bundle" {
        output::line(format!(
            "`{0}` 的第 {1} 包已开：新收 {2} 条 / bundle {1} of `{0}` is open: {2} entries were new here; next: `fangzhi ferry receipt --to {0}`",
            report.from, report.number, report.entries
        ));
    }
    if let Some(number) = report.acknowledged {
        output::line(format!(
            "`{0}` 已收到第 {number} 包 / `{0}` acknowledges bundle {number}",
            report.from
        ));
    }
    for ledger in &report.ledgers {
        if let Some(error) = &ledger.error {
            output::line(format!(
                "  未收齐 / not taken: {} {}/{}：{error}",
                ledger.origin, ledger.held, ledger.size
            ));
        }
    }
    Ok(code)
}

/// What a boundary scanner may ask: well formed, typed, whole, by whom, for whom, how much.
fn check(paths: &[PathBuf], as_json: bool) -> Result<ExitCode> {
    let refused = |error: registry::ferry::Refused| {
        let exit = match error {
            // That a file is not there says nothing about it.
            registry::ferry::Refused::File { .. } => exit::FAILED,
            _ => exit::NOT_VERIFIED,
        };
        Fault::new(exit, error.code(), error.to_string())
    };
    let files = Files::read(paths).map_err(refused)?;
    files.check_parts().map_err(refused)?;
    let missing = files.missing();
    let manifest = &files.manifest;
    let root = manifest.charters().ok().and_then(|c| c.last().cloned());
    let root = root.map(|root| Hex(root.keys.sign).to_string());
    let code = ExitCode::from(if missing.is_empty() { 0 } else { exit::PARTLY });
    if as_json {
        output::json(&json!({
            "manifest": manifest,
            "hash": Hex(files.hash),
            "parts": files.parts().keys().collect::<Vec<_>>(),
            "missing": missing,
            "entries": manifest.entries(),
            "root": root,
        }));
        return Ok(code);
    }
    let what = match manifest.kind {
        Kind::Bundle => format!(
            "第 {0} 包，续自第 {1} 包 / bundle {0}, going on from {1}",
            manifest.number, manifest.after
        ),
        Kind::Receipt => "回执 / a receipt".into(),
    };
    output::line(format!(
        "{} → {}：{what}；辖域 / realm {}，由其证书签名 / signed by its charter",
        manifest.from.division, manifest.to.division, manifest.realm
    ));
    output::line(format!(
        "证书链之根 / root of the charters: {}；清单 / manifest SHA-256 {}",
        root.unwrap_or_default(),
        Hex(files.hash)
    ));
    output::line(format!(
        "{0} 个账本，{1} 条，密文 {2} 字节，共 {3} 盘 / {0} ledgers, {1} entries, {2} bytes of ciphertext in {3} files",
        manifest.ledgers.len(),
        manifest.entries(),
        manifest.payload.bytes,
        manifest.parts.len()
    ));
    let rows: Vec<Vec<String>> = manifest
        .ledgers
        .iter()
        .map(|ledger| {
            vec![
                ledger.origin.to_string(),
                ledger.from.to_string(),
                ledger.to.to_string(),
                ledger.root.to_string().chars().take(16).collect(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let headers = ["账本 ledger", "自 from", "至 to", "根 root"];
        output::table(&headers, &rows);
    }
    if missing.is_empty() {
        output::line("完好 / whole");
    } else {
        let numbers: Vec<String> = missing.iter().map(u32::to_string).collect();
        output::line(format!(
            "给出的文件完好，缺第 {0} 盘 / the files given are whole; part {0} is missing",
            numbers.join(", ")
        ));
    }
    Ok(code)
}

fn list(peers: &Value, as_json: bool) -> Result<ExitCode> {
    if as_json {
        output::json(peers);
        return Ok(ExitCode::SUCCESS);
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default().to_string();
    let rows: Vec<Vec<String>> = peers
        .as_array()
        .into_iter()
        .flatten()
        .map(|peer| {
            vec![
                peer["peer"].as_str().unwrap_or_default().to_owned(),
                number(&peer["packed"]),
                number(&peer["acknowledged"]),
                number(&peer["opened"]),
                state(&peer["state"]).into(),
            ]
        })
        .collect();
    if rows.is_empty() {
        output::line("没有摆渡过 / nothing was carried to or from this node");
        return Ok(ExitCode::SUCCESS);
    }
    let headers = [
        "对端 peer",
        "装到 packed",
        "回执到 acknowledged",
        "开到 opened",
        "对端所持 what it holds",
    ];
    output::table(&headers, &rows);
    Ok(ExitCode::SUCCESS)
}

/// Whether it is known what a neighbour holds.
pub fn state(state: &Value) -> &'static str {
    match state.as_str() {
        Some("acknowledged") => "已回执 acknowledged",
        _ => "未知 unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units_and_never_wrap_around() {
        assert_eq!(size("600M"), Ok(600 << 20));
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("4g"), Ok(4 << 30));
        for wrong in ["", "M", "-1", "1.5G", "99999999999G", "米"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
