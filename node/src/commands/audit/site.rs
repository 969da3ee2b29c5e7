//! Exporting: files for any static web server, written so that a reader never sees half of it.

use std::path::Path;
use std::process::ExitCode;

use record::id::Origin;
use registry::RegistryError;
use registry::audit::diff::{Outcome, Side, compare};
use registry::audit::missing;
use registry::audit::site::{self, SiteLedger, What};
use registry::audit::view::View;

use super::args::Export;
use crate::fault::{Fault, Result, exit};
use crate::output;

/// The largest file that an earlier export can have left: a bundle of 256 entries.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

pub fn export(command: &Export, json: bool) -> Result<ExitCode> {
    let view = View::open(&command.node.dir)?;
    let held = view.origins()?;
    if let Some(missing) = command.ledger.iter().find(|l| !held.contains(l)) {
        return Err(Fault::failed(format!(
            "此处没有账本 `{missing}` / no ledger `{missing}` is held here; see `fangzhi verify`"
        )));
    }
    let what = What {
        entries: command.entries,
        uncosigned: command.uncosigned,
    };
    // First: a site that lacks a ledger later is known by it to be of the same node.
    let config = view.config();
    let nodes = missing::nodes_with(&command.out, &config.realm, &config.division)?;
    place(&command.out.join(missing::NODES), nodes.as_bytes())?;
    let mut exported: Vec<SiteLedger> = Vec::new();
    let mut unsigned: Vec<Origin> = Vec::new();
    for origin in &held {
        if !command.ledger.is_empty() && !command.ledger.contains(origin) {
            continue;
        }
        let folder = command.out.join(origin.as_str());
        refuse_another_history(&view, origin, &folder)?;
        let mut put = |path: &str, bytes: &[u8]| {
            place(&folder.join(path), bytes).map_err(|e| RegistryError::File(e.message))
        };
        match site::export(&view, origin, what, &mut put)? {
            Some(line) => exported.push(line),
            None => unsigned.push(origin.clone()),
        }
    }
    if json {
        output::json(&serde_json::json!({ "ledgers": exported, "not_published": unsigned }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = exported
        .iter()
        .map(|l| {
            vec![
                l.origin.to_string(),
                l.size.to_string(),
                if l.cosigned { "是 yes" } else { "否 no" }.to_owned(),
                l.files.to_string(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 ledger",
            "条目 entries",
            "已联署 cosigned",
            "文件 files",
        ],
        &rows,
    );
    for origin in &unsigned {
        output::line(format!(
            "账头尚未联署，未导出 / no cosigned checkpoint yet, not exported: {origin}"
        ));
    }
    output::line(format!(
        "站点 / site: {}{}",
        command.out.display(),
        if command.entries {
            "（含条目，只给持证节点和审计员 / with entries: for charter holders and auditors only）"
        } else {
            ""
        }
    ));
    Ok(ExitCode::SUCCESS)
}

/// What was published once must stay a beginning of what is published next.
fn refuse_another_history(view: &View, origin: &Origin, folder: &Path) -> Result<()> {
    let path = folder.join("checkpoint");
    let Some(shown) = view.shown(origin)?.filter(|_| path.exists()) else {
        return Ok(());
    };
    let before = super::read(&path, ledger::note::NOTE_BYTES_MAX as u64)?;
    let keys = view.signers(origin, Some(&shown.note))?;
    let here = registry::audit::view::LedgerTiles::new(view, origin);
    let published = Side {
        note: &before,
        tiles: None,
    };
    let present = Side {
        note: shown.note.as_bytes(),
        tiles: Some(&here),
    };
    let compared = compare(published, present, &keys).map_err(|e| super::not_verified(&e))?;
    let shrunk = compared.sizes[1] > shown.checkpoint.size();
    match compared.outcome {
        Outcome::Same | Outcome::Extends { .. } if !shrunk => Ok(()),
        _ => Err(Fault::new(
            exit::NOT_VERIFIED,
            "not-verified",
            format!(
                "`{origin}`：站点上的账头不是此处账本的开头，未改动 / the checkpoint on the site ({} entries) does not begin what is here ({}); nothing was changed: keep both and run `fangzhi audit diff`",
                compared.sizes[if shrunk { 1 } else { 0 }],
                shown.checkpoint.size()
            ),
        )),
    }
}

/// Puts a file in place whole: a server never reads half of one. One that is there stays.
fn place(path: &Path, bytes: &[u8]) -> Result<()> {
    if store::atomic::read_bounded(path, FILE_BYTES_MAX).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let fault = |e: std::io::Error| Fault::file(path, &e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    let temporary = path.with_extension("tmp~");
    std::fs::write(&temporary, bytes).map_err(fault)?;
    std::fs::rename(&temporary, path).map_err(fault)
}
