//! An auditor's commands. Each reads, asks `registry::audit`, and prints.
//!
//! All but disclosing, and the changed fields of a history, read a directory's segment files and
//! work whether the node runs or not; those two are readings and go through the node.

pub mod args;
mod compare;
mod findings;
mod record;
mod site;

use std::path::Path;
use std::process::ExitCode;

use ::record::id::UnixMillis;
use ledger::note::Verifier;
use registry::audit::check::{self, CheckError, Checked, SignerLine};
use registry::audit::page::time;
use registry::audit::view::View;

use crate::fault::{Fault, Result, exit};
use crate::output;
use args::{Audit, Check, Prove};

pub fn run(command: &Audit, json: bool) -> Result<ExitCode> {
    match command {
        Audit::All(command) => findings::all(command, json),
        Audit::Export(command) => site::export(command, json),
        Audit::Prove(command) => prove(command, json),
        Audit::Check(command) => checked(command, json),
        Audit::Diff(command) => compare::diff(command, json),
        Audit::History(command) => record::history(command, json),
        Audit::Acts(command) => record::acts(command, json),
        Audit::Disclose(command) => record::disclose(command, json),
    }
}

/// Something that was checked and does not hold.
fn not_verified(error: &CheckError) -> Fault {
    match error {
        CheckError::Vkey { .. } => Fault::usage(error.to_string()),
        _ => Fault::new(
            exit::NOT_VERIFIED,
            "not-verified",
            format!("核对不通过 / it does not hold: {error}"),
        ),
    }
}

/// Reads a file whole, up to a bound.
fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    store::atomic::read_bounded(path, max).map_err(|e| Fault::failed(e.to_string()))
}

/// Writes a file for whoever it is handed to.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| Fault::file(path, &e))
}

/// Verifier keys from a file.
fn vkeys(path: &Path) -> Result<Vec<Verifier>> {
    let bytes = read(path, registry::audit::site::VKEYS_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Fault::usage(format!(
            "`{}` 不是公钥文件 / is no file of verifier keys",
            path.display()
        ))
    })?;
    check::vkeys(&text).map_err(|e| not_verified(&e))
}

fn prove(command: &Prove, json: bool) -> Result<ExitCode> {
    let view = View::open(&command.node.dir)?;
    let proved = registry::audit::prove::prove(&view, &command.origin, command.index)?;
    let text = proved.proof.encode();
    if let Some(path) = &command.entry_out {
        write(path, &proved.entry)?;
    }
    if let Some(path) = &command.out {
        write(path, text.as_bytes())?;
    }
    if json {
        output::json(&serde_json::json!({
            "origin": command.origin,
            "index": command.index,
            "size": proved.size,
            "cosigned": proved.cosigned,
            "proof": text,
        }));
    } else if let Some(path) = &command.out {
        output::line(format!(
            "`{}` 第 {} 条，在 {} 条的账头下{} / entry {} under the checkpoint of {}{}: {}",
            command.origin,
            command.index,
            proved.size,
            if proved.cosigned {
                "（已联署）"
            } else {
                "（未联署）"
            },
            command.index,
            proved.size,
            if proved.cosigned {
                ", cosigned"
            } else {
                ", NOT cosigned"
            },
            path.display()
        ));
    } else {
        output::line(text.trim_end_matches('\n'));
    }
    Ok(ExitCode::SUCCESS)
}

fn checked(command: &Check, json: bool) -> Result<ExitCode> {
    let keys = vkeys(&command.vkey)?;
    let document = read(&command.file, check::DOCUMENT_BYTES_MAX)?;
    let entry = command
        .entry
        .as_deref()
        .map(|path| read(path, ledger::tile::ENTRY_BYTES_MAX as u64))
        .transpose()?;
    let checked =
        check::document(&document, &keys, entry.as_deref()).map_err(|e| not_verified(&e))?;
    if json {
        output::json(&checked);
    } else {
        show(&checked);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(checked: &Checked) {
    let what = match checked.what {
        "proof" => "证明成立 / the proof holds",
        "disclosure" => "披露成立 / the disclosure holds",
        _ => "账头成立 / the checkpoint holds",
    };
    output::line(format!(
        "{what}: {} · {} 条 / entries · 根 / root {}",
        checked.origin, checked.size, checked.root
    ));
    if let Some(index) = checked.index {
        output::line(format!("第 {index} 条 / entry {index}"));
    }
    if checked.entry_given == Some(false) {
        output::line(
            "只核对了条目的哈希；用 --entry 核对条目本身 / only the entry's hash was checked; give the entry itself with --entry",
        );
    }
    for signer in &checked.signatures.holding {
        output::line(signer_line(signer));
    }
    for name in &checked.signatures.unknown {
        output::line(format!(
            "不认识的签名者，不作数 / unknown signer, counts for nothing: {name}"
        ));
    }
    if checked.signatures.holding.iter().all(|s| s.role == "log") {
        output::line(
            "只有账本自己的签名，没有联署 / the log's own word alone: no cosignature of a known key",
        );
    }
    let Some(shown) = &checked.shown else {
        return;
    };
    output::line(format!(
        "记录 / record {} 第 {} 版 / version {}，登记于 / recorded {}",
        shown.record,
        shown.version,
        shown.version,
        time(shown.recorded_at)
    ));
    for field in &shown.fields {
        let value = field.value.as_deref().unwrap_or("（无 / absent）");
        output::line(format!("   {}（{}）：{value}", field.name, field.id));
    }
    output::line(format!(
        "水印 / mark: {}（查阅留痕 / reading: {} #{}）",
        shown.mark, shown.receipt.origin, shown.receipt.index
    ));
}

/// One signature that holds, in words.
fn signer_line(signer: &SignerLine) -> String {
    let role = match signer.role {
        "log" => "账本 / log",
        "witness" => "联署 / witness",
        "held" => "收存 / held",
        _ => "签名 / cosigner",
    };
    let when = signer.time_secs.map_or_else(String::new, |secs| {
        format!("，{}", time(UnixMillis(secs.saturating_mul(1000))))
    });
    format!("签名成立 / signature holds: {role} {}{when}", signer.name)
}
