//! A realm made for a while (临时辖域): nodes as processes of their own, for the demonstration and
//! for measuring.
//!
//! Owns making a node, enrolling its operators, starting and stopping it. Refuses a directory that
//! is not empty.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use record::authority::{DivisionCode, Level, Role};
use record::id::{DivisionId, Kind, Realm};
use registry::config::{Files, KeyCustody};
use registry::keys::Opener;
use registry::node::NewNode;
use registry::replicate::{Invitation, NewInvitation};
use registry::session::NewOperator;
use serde_json::Value;

use super::node;
use crate::args::Listen;
use crate::client::{Client, RunFile};
use crate::fault::{Fault, Result};

/// How long one step may take before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The login of every node's security officer.
pub const OFFICER: &str = "anquan";

/// A node as it is to be.
pub struct Planned {
    pub division: &'static str,
    pub name: &'static str,
    pub level: Level,
    /// `(scheme, code, valid from)`.
    pub code: Option<(&'static str, &'static str)>,
    pub parent: Option<usize>,
    pub operators: &'static [(&'static str, Role)],
}

/// A node that runs.
pub struct Node {
    pub plan: &'static Planned,
    pub dir: PathBuf,
    _process: Process,
    pub url: String,
    pub listen: String,
}

/// A child process that ends with this one, however this one ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its standard input lets it end in order; what does not is ended.
        drop(self.0.stdin.take());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directory to work in, which must be empty, and whether it is a temporary one.
pub fn fresh_dir(given: Option<&PathBuf>, what: &str) -> Result<(PathBuf, bool)> {
    let dir = match given {
        Some(dir) => dir.clone(),
        None => {
            let name = registry::keys::token()?;
            std::env::temp_dir().join(format!("fangzhi-{what}-{}", &name[..12]))
        }
    };
    std::fs::create_dir_all(&dir).map_err(|e| Fault::file(&dir, &e))?;
    let dir = dir.canonicalize().map_err(|e| Fault::file(&dir, &e))?;
    let mut inside = std::fs::read_dir(&dir).map_err(|e| Fault::file(&dir, &e))?;
    if inside.next().is_some() {
        return Err(Fault::usage(format!(
            "`{0}` 不是空目录 / `{0}` is not empty; a fresh realm is made there, choose another directory",
            dir.display()
        )));
    }
    Ok((dir, given.is_none()))
}

/// A passphrase for each division and login.
pub type Passphrases = BTreeMap<(&'static str, &'static str), String>;

/// Random passphrases for every operator of a plan.
pub fn passphrases(plans: &[Planned]) -> Result<Passphrases> {
    let mut all = BTreeMap::new();
    for plan in plans {
        let logins = plan
            .operators
            .iter()
            .map(|(login, _)| *login)
            .chain([OFFICER]);
        for login in logins {
            let token = registry::keys::token()?;
            all.insert((plan.division, login), format!("demo-{}", &token[..12]));
        }
    }
    Ok(all)
}

/// The passphrase of an operator.
pub fn phrase<'a>(
    passphrases: &'a Passphrases,
    division: &'static str,
    login: &'static str,
) -> &'a str {
    passphrases
        .get(&(division, login))
        .map_or("", String::as_str)
}

/// A port that was free a moment ago.
fn free_port() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| Fault::failed(e.to_string()))?;
    let address = listener
        .local_addr()
        .map_err(|e| Fault::failed(e.to_string()))?;
    Ok(address.to_string())
}

fn codes(plan: &Planned) -> Result<Vec<DivisionCode>> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    plan.code
        .iter()
        .map(|(scheme, code)| {
            Ok(DivisionCode {
                scheme: Kind::new(scheme).map_err(words)?,
                code: (*code).to_owned(),
                valid_from: "2023-01-01".into(),
            })
        })
        .collect()
}

/// Makes the root, or joins by an invitation of the parent, which is among `nodes`.
pub fn make(
    realm: &str,
    plan: &'static Planned,
    dir: &Path,
    nodes: &[Node],
    passphrases: &Passphrases,
) -> Result<()> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let listen = Listen {
        http: free_port()?,
        listen: free_port()?,
    };
    let officer = phrase(passphrases, plan.division, OFFICER);
    let division = DivisionId::new(plan.division).map_err(words)?;
    match plan.parent {
        None => {
            let new = NewNode {
                realm: Realm::new(realm).map_err(words)?,
                division,
                name: plan.name.into(),
                level: plan.level,
                codes: codes(plan)?,
                http: listen.http,
                listen: listen.listen,
                custody: KeyCustody::File,
                quorum: 1,
            };
            registry::node::init(dir, new, &Opener::File, api::now())?;
        }
        Some(at) => {
            let parent = nodes
                .get(at)
                .ok_or_else(|| Fault::failed("the plan names a parent that is not made yet"))?;
            let mut client = Client::remote(&parent.url, &parent.dir);
            client.login_with(OFFICER, phrase(passphrases, parent.plan.division, OFFICER))?;
            let new = NewInvitation {
                division,
                name: plan.name.into(),
                level: plan.level,
                codes: codes(plan)?,
                address: parent.listen.clone(),
            };
            let invitation: Invitation = client.post("/api/v1/invitations", &new)?;
            node::join_with(
                dir,
                &invitation,
                &listen,
                KeyCustody::File,
                &Opener::File,
                false,
            )?;
        }
    }
    node::first_officer(dir, &Opener::File, OFFICER, officer)?;
    keep_passphrase(dir, OFFICER, officer)
}

/// In such a realm passphrases lie beside the keys, so that commands need not ask.
pub fn keep_passphrase(dir: &Path, login: &str, phrase: &str) -> Result<()> {
    let path = Files::new(dir).operators().join(format!("{login}.pass"));
    store::atomic::replace(&path, phrase.as_bytes()).map_err(|e| Fault::failed(e.to_string()))
}

/// Starts a node in a process of its own; it answers when this returns.
pub fn start(plan: &'static Planned, dir: PathBuf) -> Result<Node> {
    let exe = std::env::current_exe().map_err(|e| Fault::failed(e.to_string()))?;
    let log_path = dir.join("node.log");
    let log = std::fs::File::create(&log_path).map_err(|e| Fault::file(&log_path, &e))?;
    let child = Command::new(exe)
        .args(["--log-json", "run", "--while-stdin", "--dir"])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|e| Fault::failed(format!("节点起不来，请核对程序文件和权限 / a node could not be started: {e}; check the program file and its permissions")))?;
    let mut process = Process(child);
    let run_path = Files::new(&dir).run();
    let start = Instant::now();
    loop {
        if let Some(run) = std::fs::read(&run_path)
            .ok()
            .and_then(|b| serde_json::from_slice::<RunFile>(&b).ok())
        {
            return Ok(Node {
                plan,
                dir,
                _process: process,
                url: run.url,
                listen: run.listen,
            });
        }
        if let Ok(Some(status)) = process.0.try_wait() {
            return Err(Fault::failed(format!(
                "{} 未能启动 / did not start ({status}); see {}",
                plan.name,
                log_path.display()
            )));
        }
        if start.elapsed() > PATIENCE {
            return Err(Fault::failed(format!(
                "{} 启动过慢 / took too long to start; see {}",
                plan.name,
                log_path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reaches a node in an operator's name.
pub fn client(node: &Node, login: &'static str, passphrases: &Passphrases) -> Result<Client> {
    let mut client = Client::remote(&node.url, &node.dir);
    client.login_with(login, phrase(passphrases, node.plan.division, login))?;
    Ok(client)
}

/// Enrols the operators of a node's plan; `grid` names a grid worker's.
pub fn enrol_operators(
    node: &Node,
    passphrases: &Passphrases,
    grid: impl Fn(&Planned) -> String,
) -> Result<()> {
    let client = client(node, OFFICER, passphrases)?;
    for (login, role) in node.plan.operators {
        let phrase = phrase(passphrases, node.plan.division, login);
        let new = NewOperator {
            login: (*login).to_owned(),
            passphrase: phrase.to_owned(),
            role: *role,
            grid: (*role == Role::GridWorker).then(|| grid(node.plan)),
        };
        let _: Value = client.post("/api/v1/operators", &new)?;
        keep_passphrase(&node.dir, login, phrase)?;
    }
    Ok(())
}

/// Asks every so often whether something is done.
pub fn wait(
    what: &str,
    every: Duration,
    patience: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > patience {
            return Err(Fault::failed(format!(
                "超时 / gave up waiting for {what}; see node.log of each node"
            )));
        }
        std::thread::sleep(every);
    }
    Ok(())
}

/// What a node says of itself.
pub fn status(node: &Node) -> Result<Value> {
    Client::remote(&node.url, &node.dir).get("/api/v1/status")
}
