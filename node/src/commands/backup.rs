//! Backups: made of a directory whose node may run, checked, rehearsed and restored.
//!
//! The `backup` crate copies and seals; `registry::backups` and `registry::verify` say whether what
//! comes back is the node that it was. None of these commands opens a keystore.

pub mod args;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backup::sealed::{Identities, generate};
use backup::set::{LedgerHead, Set};
use backup::{BackupError, Folder, How, Made, Wanted};
use registry::backups::{BackupConfig, BackupState, LedgerAt};
use registry::config::NodeConfig;
use serde_json::json;

use crate::fault::{Fault, Result, exit};
use crate::output;
use args::{At, Backup, Configure, Key, Rehearse, Restore, Verify};

const DAY_MILLIS: u64 = 86_400_000;

pub fn run(command: &Backup, json: bool) -> Result<ExitCode> {
    match command {
        Backup::Key(command) => key(command, json),
        Backup::Configure(command) => configure(command, json),
        Backup::Make(command) => made(&make(&command.dir)?, json),
        Backup::List(at) => list(at, json),
        Backup::Verify(command) => verify(command, json),
        Backup::Rehearse(command) => rehearse(command, json),
        Backup::Restore(command) => restore(command, json),
    }
}

fn fault(error: &BackupError) -> Fault {
    let mut message = error.to_string();
    if let BackupError::Broken(all) = error {
        message = format!("{message}\n  {}", all.join("\n  "));
    }
    match error {
        BackupError::Broken(_) | BackupError::List { .. } => {
            Fault::new(exit::NOT_VERIFIED, "not-verified", message)
        }
        BackupError::Busy { .. } => Fault::new(exit::BUSY, "busy", message),
        BackupError::Key(_)
        | BackupError::OtherKey { .. }
        | BackupError::NotEmpty { .. }
        | BackupError::OtherNode { .. } => Fault::usage(message),
        _ => Fault::failed(message),
    }
}

fn key(command: &Key, json: bool) -> Result<ExitCode> {
    use age::secrecy::ExposeSecret;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let (identity, recipient) = generate();
    let mut file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&command.out)
        .map_err(|e| Fault::file(&command.out, &e))?;
    writeln!(
        file,
        "# public key: {recipient}\n{}",
        identity.expose_secret()
    )
    .and_then(|()| file.sync_all())
    .map_err(|e| Fault::file(&command.out, &e))?;
    if json {
        output::json(&json!({ "recipient": recipient }));
    } else {
        output::line(format!(
            "收件人 / recipient: {recipient}\n密钥存于 / identity in {}：离线保管，勿放在节点上 / keep it offline, never on the node",
            command.out.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn configure(command: &Configure, json: bool) -> Result<ExitCode> {
    NodeConfig::read(&command.dir)?;
    backup::sealed::Recipients::parse(&command.recipients).map_err(|e| fault(&e))?;
    let to = std::path::absolute(&command.to).map_err(|e| Fault::file(&command.to, &e))?;
    let inside = command
        .dir
        .canonicalize()
        .is_ok_and(|dir| to.starts_with(dir));
    if inside {
        return Err(Fault::usage(
            "备份不可放在节点目录内 / a backup inside the node's directory is lost with it; choose another disk",
        ));
    }
    let config = BackupConfig {
        to,
        recipients: command.recipients.clone(),
        every_hours: command.every_hours,
        secrets_days: command.secrets_days,
        keep: command.keep,
    };
    config.write(&command.dir)?;
    if json {
        output::json(&config);
    } else {
        output::line(format!(
            "备份到 / backups go to {}，每 / every {} 小时 / hours",
            config.to.display(),
            config.every_hours
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn configured(dir: &Path) -> Result<BackupConfig> {
    BackupConfig::read(dir)?.ok_or_else(|| {
        Fault::usage("尚未设置备份 / no backup is configured; run `fangzhi backup configure` first")
    })
}

/// Makes one set of a directory, as configured, and writes down how it went.
pub fn make(dir: &Path) -> Result<Made> {
    let config = configured(dir)?;
    let mut state = BackupState::read(dir)?;
    let made = try_make(dir, &config);
    match &made {
        Ok(made) => {
            state.number = made.number;
            state.made = Some(api::now());
            state.error = None;
        }
        Err(fault) => state.error = Some(fault.message.clone()),
    }
    state.write(dir)?;
    made
}

fn try_make(dir: &Path, config: &BackupConfig) -> Result<Made> {
    let node = NodeConfig::read(dir)?;
    // Read first: the copy holds at least so much.
    let ledgers = registry::backups::heads(dir)?;
    let folder = Folder::new(&config.to);
    let now = api::now().0;
    let made = backup::make(
        &folder,
        &Wanted {
            node: format!("{}/{}", node.realm, node.division),
            dir,
            recipients: &config.recipients,
            secrets_millis: u64::from(config.secrets_days) * DAY_MILLIS,
            ledgers: ledgers.iter().map(head).collect(),
            now,
        },
    )
    .map_err(|e| fault(&e))?;
    backup::prune(&folder, config.keep as usize, now).map_err(|e| fault(&e))?;
    Ok(made)
}

fn head(at: &LedgerAt) -> LedgerHead {
    LedgerHead {
        origin: at.origin.to_string(),
        size: at.size,
        root: data_encoding::HEXLOWER.encode(&at.root),
    }
}

fn made(made: &Made, json: bool) -> Result<ExitCode> {
    if json {
        output::json(made);
    } else {
        output::line(format!(
            "第 {0} 份：{1} 个文件 / set {0}: {1} files，{2} 字节 / bytes；新封 / sealed now {3}（{4} 字节 / bytes）",
            made.number, made.files, made.bytes, made.sealed, made.sealed_bytes
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn folder(at: &At) -> Result<Folder> {
    match (&at.from, &at.dir) {
        (Some(from), _) => Ok(Folder::new(from)),
        (None, Some(dir)) => Ok(Folder::new(&configured(dir)?.to)),
        (None, None) => Err(Fault::usage(
            "请给出 --from 或 --dir / name the backup folder with `--from`, or the node with `--dir`",
        )),
    }
}

fn list(at: &At, json: bool) -> Result<ExitCode> {
    let (sets, bad) = backup::sets(&folder(at)?).map_err(|e| fault(&e))?;
    let now = api::now().0;
    let bytes = |set: &Set| {
        set.history
            .iter()
            .chain(&set.secrets)
            .map(|item| item.bytes)
            .sum::<u64>()
    };
    if json {
        let lines: Vec<_> = sets
            .iter()
            .map(|set| {
                json!({
                    "number": set.number, "made_at": set.made_at, "bytes": bytes(set),
                    "secrets_expire": set.secrets_expire, "expired": now > set.secrets_expire,
                })
            })
            .collect();
        output::json(&json!({ "sets": lines, "unreadable": bad }));
    } else {
        let rows: Vec<Vec<String>> = sets
            .iter()
            .map(|set| {
                vec![
                    set.number.to_string(),
                    registry::audit::page::time(record::id::UnixMillis(set.made_at)),
                    bytes(set).to_string(),
                    registry::audit::page::time(record::id::UnixMillis(set.secrets_expire)),
                ]
            })
            .collect();
        output::table(
            &[
                "份 set",
                "时间 made",
                "字节 bytes",
                "密钥到期 secrets expire",
            ],
            &rows,
        );
        for why in &bad {
            output::line(format!("不可读 / unreadable: {why}"));
        }
    }
    Ok(if bad.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    })
}

fn verify(command: &Verify, json: bool) -> Result<ExitCode> {
    let folder = folder(&command.at)?;
    let set = folder.set(command.set).map_err(|e| fault(&e))?;
    let identities = command
        .identity
        .as_deref()
        .map(Identities::read)
        .transpose();
    let identities = identities.map_err(|e| fault(&e))?;
    let checked =
        backup::check(&folder, &set, identities.as_ref(), api::now().0).map_err(|e| fault(&e))?;
    if json {
        output::json(&checked);
    } else {
        let depth = if checked.opened {
            "并已逐个解开比对 / each opened and compared"
        } else {
            "未解开：给 --identity 可查内容 / not opened; `--identity` checks the content, too"
        };
        output::line(format!(
            "第 {0} 份完整 / set {0} is whole：{1} 个对象 / objects，{depth}",
            checked.number, checked.objects
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A directory that is taken away again.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rehearse(command: &Rehearse, json: bool) -> Result<ExitCode> {
    let folder = folder(&command.at)?;
    let set = folder.set(command.set).map_err(|e| fault(&e))?;
    let identities = Identities::read(&command.identity).map_err(|e| fault(&e))?;
    let token = registry::keys::token()?;
    let above = command.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch(above.join(format!("fangzhi-rehearsal-{}", &token[..12])));
    let now = api::now().0;
    let how = How {
        history_only: true,
        now,
        mark: None,
    };
    backup::restore(&folder, &set, &identities, &scratch.0, how).map_err(|e| fault(&e))?;
    let findings = compare(&scratch.0, &set)?;
    // The part that opens records is opened and compared, but written nowhere.
    let checked = backup::check(&folder, &set, Some(&identities), now).map_err(|e| fault(&e))?;
    if findings.is_empty()
        && let Some(dir) = &command.at.dir
    {
        let mut state = BackupState::read(dir)?;
        state.rehearsed = Some(api::now());
        state.write(dir)?;
    }
    if json {
        output::json(&json!({
            "number": set.number, "ok": findings.is_empty(), "ledgers": set.ledgers.len(),
            "secrets_gone": checked.secrets_gone, "findings": findings,
        }));
    } else if findings.is_empty() {
        output::line(format!(
            "演练成功 / rehearsed：第 {0} 份，{1} 个账本的根全部重建并相符 / set {0}, the roots of {1} ledgers rebuilt and equal",
            set.number,
            set.ledgers.len()
        ));
    } else {
        for finding in &findings {
            output::line(format!("不符 / does not hold: {finding}"));
        }
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    })
}

/// What of a restored directory does not hold, or does not continue what the set says.
fn compare(dir: &Path, set: &Set) -> Result<Vec<String>> {
    let report = registry::verify::verify_at(dir, api::now())?;
    let mut findings: Vec<String> = report.findings.iter().map(|f| f.what.clone()).collect();
    let mut heads = Vec::new();
    for ledger in &set.ledgers {
        let origin = record::id::Origin::parse(&ledger.origin);
        let root = registry::config::key_from_hex(&ledger.root);
        match (origin, root) {
            (Ok(origin), Ok(root)) => heads.push(LedgerAt {
                origin,
                size: ledger.size,
                root,
            }),
            _ => findings.push("the set's list of ledgers cannot be read".into()),
        }
    }
    let broken = registry::backups::not_continued(dir, &heads)?;
    findings.extend(broken.iter().map(|origin| {
        format!("`{origin}` 与备份时不同 / `{origin}` does not continue what it was when the backup was made")
    }));
    Ok(findings)
}

/// Only a root says of itself what it signed: whoever has a parent is told by that, and might sign a
/// second history on a mistaken word.
fn refuse_with_parent(
    folder: &Folder,
    set: &backup::set::Set,
    identities: &Identities,
) -> Result<()> {
    let file = backup::one_file(folder, set, identities, "node.json").map_err(|e| fault(&e))?;
    let config = file.and_then(|file| serde_json::from_slice::<NodeConfig>(&file).ok());
    let Some(parent) = config.and_then(|config| config.parent) else {
        return Ok(());
    };
    Err(Fault::usage(format!(
        "`--nothing-signed-since` 只用于根节点：本节点有上级 `{0}`，备份后签过什么以上级所收存的为准，凭口头确认会签出第二份历史；去掉此项重新恢复，连上上级后自动续签 / `--nothing-signed-since` is for a root alone: this node has the parent `{0}`, which knows what was signed since, and a mistaken word would sign a second history; restore without it, and the node signs again once its parent has confirmed",
        parent.division
    )))
}

fn restore(command: &Restore, json: bool) -> Result<ExitCode> {
    let folder = Folder::new(&command.from);
    let set = folder.set(command.set).map_err(|e| fault(&e))?;
    let identities = Identities::read(&command.identity).map_err(|e| fault(&e))?;
    let into = std::path::absolute(&command.into).map_err(|e| Fault::file(&command.into, &e))?;
    if command.nothing_signed_since {
        refuse_with_parent(&folder, &set, &identities)?;
    }
    let how = How {
        history_only: command.history_only,
        now: api::now().0,
        mark: (!command.nothing_signed_since).then_some(registry::guard::RESTORED),
    };
    let restored =
        backup::restore(&folder, &set, &identities, &into, how).map_err(|e| fault(&e))?;
    let has_parent = NodeConfig::read(&into)?.parent.is_some();
    if json {
        output::json(&restored);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!(
        "已恢复第 {0} 份到 {1} / restored set {0} into {1}：{2} 个文件 / files",
        set.number,
        into.display(),
        restored.files
    ));
    if command.history_only {
        output::line(
            "只恢复了历史，没有密钥，不能启动；可供核验和审计，密钥用 fangzhi recover 恢复 / history alone, without keys: it can be verified and audited, and does not start; `fangzhi recover` brings the keys",
        );
        return Ok(ExitCode::SUCCESS);
    }
    output::line(match (command.nothing_signed_since, has_parent) {
        (true, _) => "按您的确认，节点可直接签名 / as you confirmed, the node signs at once",
        (false, true) => {
            "启动节点：上级确认并补回其后的条目之前，节点不签名 / start the node: it signs nothing until its parent has confirmed what it holds and given back what came later"
        }
        (false, false) => {
            "根节点没有上级可确认；确知此后未再签名时，用 --nothing-signed-since 重新恢复 / a root has no parent to ask; when nothing was signed since, restore again with `--nothing-signed-since`"
        }
    });
    Ok(ExitCode::SUCCESS)
}
