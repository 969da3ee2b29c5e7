//! Rebuilding a lost node: the parent's file or leave, and what the new machine makes of it.
//!
//! Refuses to fetch from an address without a leave, and keeps what was fetched until the node stands.

use std::path::Path;
use std::process::ExitCode;

use registry::config::KeyCustody;
use registry::recovery::export::{FILE_MAX, RecoveryFile};
use registry::recovery::giving::RecoveryLeave;
use registry::recovery::rebuild::{NewPlace, rebuild};
use registry::recovery::taking::Taking;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::Recover;
use super::{share_file, told};
use crate::client::{Client, opener};
use crate::fault::{Fault, Result};
use crate::ways::Ways;

const LEAVE_BYTES_MAX: u64 = 16 * 1024;

/// The recovery: read from a file, or fetched from the parent at an address, under its leave.
fn recovery_from(
    dir: &Path,
    from: &Path,
    leave: Option<&Path>,
) -> Result<(RecoveryFile, Option<Taking>)> {
    let ways = from.to_str().and_then(|from| Ways::of(from).ok());
    let (ways, leave) = match (ways, leave) {
        (Some(ways), Some(leave)) => (ways, leave),
        (Some(_), None) => {
            return Err(Fault::usage(
                "在线取回须有上级发的恢复凭据 / fetching from an address needs the parent's leave: `--leave FILE`, made there with `fangzhi recover leave`",
            ));
        }
        (None, Some(_)) => {
            return Err(Fault::usage(
                "有凭据时 --from 须为 IP:端口 / with a leave, `--from` is the parent's IP:port",
            ));
        }
        (None, None) => {
            let bytes = store::atomic::read_bounded(from, FILE_MAX)
                .map_err(|e| Fault::failed(e.to_string()))?;
            let file = serde_json::from_slice(&bytes).map_err(|_| {
                Fault::usage(
                    "不是恢复文件 / this is no recovery file; let the parent export it again",
                )
            })?;
            return Ok((file, None));
        }
    };
    let bytes = Zeroizing::new(
        store::atomic::read_bounded(leave, LEAVE_BYTES_MAX)
            .map_err(|e| Fault::failed(e.to_string()))?,
    );
    let leave: RecoveryLeave = serde_json::from_slice(&bytes).map_err(|_| {
        Fault::usage("不是恢复凭据 / this is no leave to recover; ask the parent for it again")
    })?;
    let mut taking = Taking::begin(dir, leave, api::now())?;
    if !taking.is_whole() {
        crate::commands::node::runtime()?.block_on(crate::fetch::fetch(&mut taking, ways))?;
    }
    Ok((taking.file()?, Some(taking)))
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
        Recover::Leave {
            at,
            who,
            division,
            address,
            out,
        } => {
            let mut client = Client::connect(at)?;
            client.login(who, &["security-officer"])?;
            let leave: RecoveryLeave = client.post(
                "/api/v1/recovery/leave",
                &json!({ "division": division, "address": address }),
            )?;
            let bytes = serde_json::to_vec(&leave)
                .map(Zeroizing::new)
                .map_err(|e| Fault::failed(e.to_string()))?;
            store::atomic::replace(out, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
            told(
                &json!({ "file": out, "division": division, "expires": leave.expires }),
                "恢复凭据已写入，七日内由一台机器用一次 / the leave is written; one machine uses it once, within seven days",
                json,
            );
        }
        Recover::Rebuild {
            at,
            from,
            leave,
            shares,
            http,
            listen,
        } => {
            let (file, fetched) = recovery_from(&at.dir, from, leave.as_deref())?;
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
            // Kept until the node stands: shares that do not fit are not the end of it.
            let chunks = rebuild(
                &at.dir,
                &file,
                &shares,
                place,
                &opener(&at.open)?,
                api::now(),
            )?;
            if let Some(fetched) = fetched {
                fetched.done()?;
            }
            told(
                &json!({ "dir": at.dir, "division": file.division, "ledgers": file.heads.len(), "chunks": chunks }),
                "节点已重建；运行后由上级取回账本 / the node is rebuilt; run it, and it takes its ledgers back from its parent: fangzhi run",
                json,
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
