//! Making, joining, running and looking at a node.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use record::authority::DivisionCode;
use record::id::{DivisionId, Kind};
use registry::Registry;
use registry::config::{KeyCustody, WitnessAddress, key_from_hex};
use registry::keys::Opener;
use registry::node::{Applicant, NewNode};
use registry::replicate::{Invitation, NewInvitation};
use registry::session::{NewOperator, PASSPHRASE_MIN};

use serde_json::{Value, json};
use sync::message::Secret;
use sync::output::Enrolment;
use sync::session::{Config, Session};

use crate::args::{Dir, FirstOfficer, Init, Invite, Join, Listen, Open, Revoke, Run, Witness};
use crate::client::{Client, new_passphrase, opener};
use crate::fault::{Fault, Result, exit};
use crate::ways::{self, Answerer, Ways};
use crate::{output, peer, serve};

const INVITATION_BYTES_MAX: u64 = 64 * 1024;

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Fault::failed(e.to_string()))
}

fn custody(open: &Open) -> KeyCustody {
    if open.passphrase_file.is_some() {
        KeyCustody::Passphrase
    } else {
        KeyCustody::File
    }
}

fn codes(texts: &[String]) -> Result<Vec<DivisionCode>> {
    texts
        .iter()
        .map(|text| {
            let parts: Vec<&str> = text.splitn(3, ':').collect();
            let [scheme, code, from] = parts.as_slice() else {
                return Err(Fault::usage(format!(
                    "`--code {text}` 应写成 来源:代码:日期 / `--code {text}` is written SCHEME:CODE:YYYY-MM-DD, such as nbs:500116004:2023-01-01"
                )));
            };
            Ok(DivisionCode {
                scheme: Kind::new(scheme).map_err(|e| Fault::usage(e.to_string()))?,
                code: (*code).to_owned(),
                valid_from: (*from).to_owned(),
            })
        })
        .collect()
}

/// Enrols the first security officer of a node that was just made.
pub fn first_officer(dir: &Path, opener: &Opener, login: &str, passphrase: &str) -> Result<()> {
    let registry = Registry::open(dir, opener, api::now())?;
    let new = NewOperator {
        login: login.to_owned(),
        passphrase: passphrase.to_owned(),
        role: record::authority::Role::SecurityOfficer,
        grid: None,
    };
    registry.enrol_operator(None, &new, api::now())?;
    Ok(())
}

fn officer_passphrase(officer: &FirstOfficer) -> Result<zeroize::Zeroizing<String>> {
    let phrase = new_passphrase(
        officer.officer_passphrase_file.as_deref(),
        &format!(
            "为安全员 {} 设口令 / choose the passphrase of {}",
            officer.officer, officer.officer
        ),
    )?;
    // Before anything is made: a node without its officer could not be mended.
    if phrase.len() < PASSPHRASE_MIN || DivisionId::new(&officer.officer).is_err() {
        return Err(Fault::usage(format!(
            "口令至少 {PASSPHRASE_MIN} 个字符，登录名只用小写字母、数字和连字符 / the passphrase has at least {PASSPHRASE_MIN} bytes, the login name only lower-case letters, digits and hyphens"
        )));
    }
    Ok(phrase)
}

pub fn init(command: &Init, json: bool) -> Result<ExitCode> {
    let phrase = officer_passphrase(&command.officer)?;
    ways::read(&command.listen.listen)?;
    let opener = opener(&command.at.open)?;
    let new = NewNode {
        realm: command.realm.clone(),
        division: command.division.clone(),
        name: command.name.clone(),
        level: command.level,
        codes: codes(&command.codes)?,
        http: command.listen.http.clone(),
        listen: command.listen.listen.clone(),
        custody: custody(&command.at.open),
        quorum: command.quorum,
    };
    registry::node::init(&command.at.dir, new, &opener, api::now())?;
    first_officer(&command.at.dir, &opener, &command.officer.officer, &phrase)?;
    made(&command.at.dir, json)
}

fn made(dir: &Path, json: bool) -> Result<ExitCode> {
    let config = registry::config::NodeConfig::read(dir)?;
    if json {
        output::json(
            &json!({ "dir": dir, "realm": config.realm, "division": config.division, "level": config.level }),
        );
    } else {
        output::line(format!(
            "节点已建立 / the node is made: {} ({})",
            config.name, config.division
        ));
        output::line(format!(
            "下一步 / next: fangzhi run --dir {}",
            dir.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of a node that is to join, made here or made before.
fn applicant(
    dir: &Path,
    invitation: &Invitation,
    listen: &Listen,
    custody: KeyCustody,
    opener: &Opener,
    new_keys: bool,
) -> Result<Applicant> {
    if invitation.format != 1 {
        return Err(Fault::usage(
            "邀请文件版本不符 / the invitation is of another version; ask for one made by this version",
        ));
    }
    ways::read(&listen.listen)?;
    let new = NewNode {
        realm: invitation.realm.clone(),
        division: invitation.division.clone(),
        name: invitation.name.clone(),
        level: invitation.level,
        codes: Vec::new(),
        http: listen.http.clone(),
        listen: listen.listen.clone(),
        custody,
        quorum: invitation.quorum,
    };
    Ok(if new_keys {
        Applicant::renew(dir, new, opener)?
    } else {
        Applicant::create(dir, new, opener)?
    })
}

fn in_time(invitation: &Invitation) -> Result<()> {
    if invitation.expires < api::now() {
        return Err(Fault::failed(
            "邀请已过期 / the invitation has expired; ask the parent's security officer for another",
        ));
    }
    Ok(())
}

/// Joins by an invitation: makes keys, asks the parent for a charter, writes the node.
pub fn join_with(
    dir: &Path,
    invitation: &Invitation,
    listen: &Listen,
    custody: KeyCustody,
    opener: &Opener,
    new_keys: bool,
) -> Result<()> {
    in_time(invitation)?;
    let root = key_from_hex(&invitation.root)?;
    let parent_key = key_from_hex(&invitation.parent.transport)?;
    let secret = key_from_hex(&invitation.secret)?;
    let mut ways = Ways::of(&invitation.parent.address)?;
    let applicant = applicant(dir, invitation, listen, custody, opener, new_keys)?;
    let enrolment = Enrolment {
        division: invitation.division.clone(),
        secret: Secret::new(secret),
        keys: applicant.public(),
    };
    let config = Config {
        realm: invitation.realm.clone(),
        chain: Vec::new(),
        peer_key: parent_key,
    };
    let seed = applicant.transport_seed();
    let chain = runtime()?.block_on(async {
        let endpoint = serve::endpoint(&seed, &[]).await?;
        let (conversation, _) = ways
            .dial(&endpoint, parent_key, Answerer::Exactly)
            .await
            .map_err(|e| {
                Fault::new(
                    exit::NOT_REACHABLE,
                    "unreachable",
                    format!("上级节点连接不上 / the parent cannot be reached: {e}"),
                )
            })?;
        let chain = peer::enrol(Session::enrol(config, enrolment), conversation, root)
            .await
            .map_err(Fault::failed);
        endpoint.close().await;
        chain
    })?;
    let parent = invitation.parent.clone();
    applicant.chartered(&chain, &root, Some(parent), api::now())?;
    Ok(())
}

/// Makes the keys and writes the file that asks for their charter; there is no node yet.
fn ask(command: &Join, invitation: &Invitation, out: &Path, json: bool) -> Result<ExitCode> {
    in_time(invitation)?;
    let opener = opener(&command.at.open)?;
    let custody = custody(&command.at.open);
    let dir = &command.at.dir;
    let applicant = applicant(dir, invitation, &command.listen, custody, &opener, false)?;
    let request = applicant.ask(invitation, api::now())?;
    store::atomic::replace(out, &request).map_err(|e| Fault::failed(e.to_string()))?;
    if json {
        output::json(&json!({ "request": out, "division": invitation.division }));
    } else {
        output::line(format!(
            "申请已写入 / the request is in {0}; 送 `{1}`：/ carry it to `{1}`: fangzhi ferry admit {0}",
            out.display(),
            invitation.parent.division
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the node by the admission that came back.
fn admitted(invitation: &Invitation, file: &Path, applicant: Applicant) -> Result<()> {
    let max = ferry::limits::ADMISSION_BYTES_MAX as u64;
    let bytes = store::atomic::read_bounded(file, max).map_err(|e| Fault::failed(e.to_string()))?;
    let chain = registry::ferry::admit::admission(&bytes, invitation)?;
    let root = key_from_hex(&invitation.root)?;
    let parent = invitation.parent.clone();
    applicant.chartered(&chain, &root, Some(parent), api::now())?;
    Ok(())
}

pub fn join(command: &Join, json: bool) -> Result<ExitCode> {
    let bytes = store::atomic::read_bounded(&command.invitation, INVITATION_BYTES_MAX)
        .map_err(|e| Fault::failed(e.to_string()))?;
    let mut invitation: Invitation = serde_json::from_slice(&bytes).map_err(|_| {
        Fault::usage(format!(
            "`{}` 不是邀请文件 / is no invitation; ask the parent for it again",
            command.invitation.display()
        ))
    })?;
    if let Some(transport) = command.transport {
        let addresses = ways::read(&invitation.parent.address)?;
        invitation.parent.address = addresses.preferring(transport.into()).to_string();
    }
    if command.new_keys {
        return renew(command, &invitation, json);
    }
    if let Some(out) = &command.offline {
        return ask(command, &invitation, out, json);
    }
    let phrase = officer_passphrase(&command.officer)?;
    let opener = opener(&command.at.open)?;
    let (dir, listen, custody) = (&command.at.dir, &command.listen, custody(&command.at.open));
    match &command.admission {
        Some(file) => {
            let keystore = registry::config::Files::new(dir).keystore();
            if !keystore.exists() {
                return Err(Fault::usage(
                    "此处没有申请时的密钥 / the keys that the request was made with are not here; give the directory in which `--offline` was run",
                ));
            }
            let applicant = applicant(dir, &invitation, listen, custody, &opener, false)?;
            admitted(&invitation, file, applicant)?;
        }
        None => join_with(dir, &invitation, listen, custody, &opener, false)?,
    }
    first_officer(&command.at.dir, &opener, &command.officer.officer, &phrase)?;
    made(&command.at.dir, json)
}

/// Other keys for the node that is there; it takes them up when it opens.
fn renew(command: &Join, invitation: &Invitation, json: bool) -> Result<ExitCode> {
    if crate::client::running(&command.at.dir).is_some() {
        return Err(Fault::new(
            exit::BUSY,
            "busy",
            "节点正在运行，请先停下 / the node runs; stop it first",
        ));
    }
    let opener = opener(&command.at.open)?;
    join_with(
        &command.at.dir,
        invitation,
        &command.listen,
        custody(&command.at.open),
        &opener,
        true,
    )?;
    made(&command.at.dir, json)
}

pub fn run(command: &Run) -> Result<ExitCode> {
    let mut opener = opener(&command.at.open)?;
    if registry::keys::starts_locked(&command.at.dir, &opener)? {
        tracing::warn!("the node starts locked; open it with `fangzhi open`");
        opener = Opener::Locked;
    }
    let registry = Arc::new(Registry::open(&command.at.dir, &opener, api::now())?);
    drop(opener);
    runtime()?.block_on(serve::run(registry, &command.at.dir, command.while_stdin))?;
    Ok(ExitCode::SUCCESS)
}

pub fn status(at: &Dir, json: bool) -> Result<ExitCode> {
    let status: Value = Client::connect(at)?.get("/api/v1/status")?;
    if json {
        output::json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    output::line(format!(
        "{}（{} · {}）  辖域 / realm {}",
        text(&status["name"]),
        text(&status["division"]),
        text(&status["level"]),
        text(&status["realm"])
    ));
    if status["locked"] == json!(true) {
        output::line(
            "已锁定：只供密文与证明 / locked: it serves ciphertext and proofs; `fangzhi open` opens it",
        );
    }
    let rows: Vec<Vec<String>> = status["ledgers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|l| {
            vec![
                text(&l["origin"]),
                if l["own"] == json!(true) {
                    "本节点 own".into()
                } else {
                    "收存 held".into()
                },
                l["size"].to_string(),
                l["cosigned"].to_string(),
                text(&l["root"]).chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 ledger",
            "归属 whose",
            "条目 entries",
            "已联署 cosigned",
            "根 root",
        ],
        &rows,
    );
    let store = &status["store"];
    let used = match store["disk_used_percent"].as_u64() {
        Some(percent) => format!("{percent}%"),
        None => "未知 unknown".to_owned(),
    };
    output::line(format!(
        "存储 / store: {} 段 segments，有效 live {} B，失效 dead {} B；磁盘 / disk {used}；详见 / see `fangzhi doctor`",
        store["segments"], store["live_bytes"], store["dead_bytes"],
    ));
    if let Some(lost) = store["lost_records"].as_u64().filter(|lost| *lost > 0) {
        output::line(format!(
            "有 {lost} 条记录的密钥已失、打不开 / {lost} records are without their secrets and cannot be opened；详见 / see `fangzhi doctor`"
        ));
    }
    for peer in status["peers"].as_array().into_iter().flatten() {
        let state = if peer["connected"] == json!(true) {
            "已连接 connected"
        } else {
            "未连接 not connected"
        };
        output::line(format!(
            "对端 / peer {}: {state}  {}",
            text(&peer["peer"]),
            text(&peer["last_error"])
        ));
    }
    for closed in status["closed"].as_array().into_iter().flatten() {
        let successors = closed["successors"].as_array().into_iter().flatten();
        output::line(format!(
            "已结账 / closed {}: 后继 / followed by {}",
            text(&closed["origin"]),
            successors.map(text).collect::<Vec<_>>().join(", ")
        ));
    }
    for alarm in status["alarms"].as_array().into_iter().flatten() {
        output::line(format!(
            "告警 / alarm [{}] {}: {}",
            text(&alarm["code"]),
            text(&alarm["origin"]),
            text(&alarm["reason"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn doctor(at: &Dir, json: bool) -> Result<ExitCode> {
    let checks: Vec<Value> = Client::connect(at)?.get("/api/v1/doctor")?;
    let failed = checks.iter().any(|c| c["health"] == json!("failure"));
    if json {
        output::json(&json!({ "ok": !failed, "checks": checks }));
    } else {
        for check in &checks {
            let mark = match check["health"].as_str() {
                Some("ok") => "[ 通过 ok ]",
                Some("warning") => "[ 警告 !! ]",
                _ => "[ 失败 xx ]",
            };
            let next = check["next"].as_str().unwrap_or_default();
            let arrow = if next.is_empty() {
                String::new()
            } else {
                format!("  → {next}")
            };
            output::line(format!(
                "{mark} {}: {}{arrow}",
                check["check"].as_str().unwrap_or_default(),
                check["found"].as_str().unwrap_or_default()
            ));
        }
    }
    Ok(if failed {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Refuses to write an invitation over anything but an earlier one for the same division.
fn may_be_replaced(command: &Invite) -> Result<()> {
    let Ok(bytes) = std::fs::read(&command.out) else {
        return Ok(());
    };
    let same = serde_json::from_slice::<Invitation>(&bytes)
        .is_ok_and(|earlier| earlier.division == command.division);
    match same || bytes.is_empty() {
        true => Ok(()),
        false => Err(Fault::usage(format!(
            "`{0}` 已存在，且不是给同一单位的邀请 / `{0}` is there and is no invitation for this division; choose another name",
            command.out.display()
        ))),
    }
}

pub fn invite(command: &Invite, json: bool) -> Result<ExitCode> {
    may_be_replaced(command)?;
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let new = NewInvitation {
        division: command.division.clone(),
        name: command.name.clone(),
        level: command.level,
        codes: codes(&command.codes)?,
        address: command.address.clone(),
    };
    let mut invitation: Invitation = client.post("/api/v1/invitations", &new)?;
    let replaces = std::mem::take(&mut invitation.replaces);
    let bytes = serde_json::to_vec_pretty(&invitation).map_err(|e| Fault::failed(e.to_string()))?;
    store::atomic::replace(&command.out, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
    if json {
        output::json(
            &json!({ "invitation": command.out, "division": command.division, "expires": invitation.expires, "replaces": replaces }),
        );
    } else {
        if replaces {
            output::line(format!(
                "此前给 `{0}` 而未用的邀请就此作废 / the invitation made for `{0}` before and not used is void from here on",
                command.division
            ));
        }
        output::line(format!(
            "邀请已写入 / the invitation is in {}; 七日内有效，一次有效 / valid for a week, once",
            command.out.display()
        ));
        output::line(format!(
            "新节点上 / at the new node: fangzhi join --dir DIR {}",
            command.out.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes `node.json`; the node takes it up at its next start.
pub fn witness(command: &Witness, json: bool) -> Result<ExitCode> {
    let mut config = registry::config::NodeConfig::read(&command.dir)?;
    config
        .witnesses
        .retain(|witness| witness.division != command.division);
    if let Some(url) = &command.url {
        if !url.starts_with("http://") {
            return Err(Fault::usage(
                "地址以 http:// 开头 / the address begins with http://; put TLS between the two nodes, not into it",
            ));
        }
        config.witnesses.push(WitnessAddress {
            division: command.division.clone(),
            url: url.clone(),
        });
    }
    config.write(&command.dir)?;
    if json {
        output::json(&json!({ "witnesses": config.witnesses }));
    } else {
        output::line(format!(
            "见证节点 / witnesses: {}；重启节点后生效 / restart the node",
            config.witnesses.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn revoke(command: &Revoke, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    client.login(&command.who, &["security-officer"])?;
    let _: Value = client.post(
        "/api/v1/revocations",
        &json!({ "division": command.division, "reason": command.reason }),
    )?;
    if json {
        output::json(&json!({ "revoked": command.division }));
    } else {
        output::line(format!("已吊销 / revoked: {}", command.division));
    }
    Ok(ExitCode::SUCCESS)
}
