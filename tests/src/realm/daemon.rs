//! Nodes as processes of their own: started, asked, stopped and killed by a test.
//!
//! Owns the child processes, each of which ends with its handle. It refuses to reach into a
//! running node: what a test knows of it, its status, its answers and its log say.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PASSPHRASE;
use crate::binary::fangzhi as binary;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a command to its end.
pub fn fangzhi<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(binary())
        .args(args)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// What a command said, out and err together.
pub fn words(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Waits until something holds; fails with what was last seen of it.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > PATIENCE => {
                panic!("gave up waiting for {what}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A running node.
pub struct Daemon {
    /// Its directory.
    pub dir: PathBuf,
    /// Its HTTP address.
    pub url: String,
    /// Its process.
    pub pid: u32,
    child: Child,
}

impl Daemon {
    /// Starts the node of a directory; its log is added to `node.log`.
    pub fn start(dir: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(["--log-json", "run", "--while-stdin", "--dir"]);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("node.log"))
            .unwrap();
        Self::spawn(dir, command.arg(dir).stderr(log))
    }

    /// Starts the node of a directory in a network namespace.
    pub fn start_in(namespace: &str, dir: &Path) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary());
        command.args(["--log-json", "run", "--while-stdin", "--dir"]);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("node.log"))
            .unwrap();
        Self::spawn(dir, command.arg(dir).stderr(log))
    }

    /// Resident memory, in bytes, as the kernel counts it.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was resident so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// What the node's metrics count of what it refused for a reason.
    pub fn refusals(&self, reason: &str) -> u64 {
        let answer = ureq::get(format!("{}/metrics", self.url)).call().unwrap();
        let text = answer.into_body().read_to_string().unwrap();
        let name = format!("fangzhi_refusals_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// Starts the node so that a write beyond its limit of file size fails instead of ending it.
    /// Its log goes nowhere, as a log file would be such a file too.
    pub fn start_on_small_disk(dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "trap '' XFSZ; exec \"$0\" --log-json run --while-stdin --dir \"$1\"",
            ])
            .args([binary(), dir]);
        Self::spawn(dir, command.stderr(Stdio::null()))
    }

    fn spawn(dir: &Path, command: &mut Command) -> Self {
        let _ = std::fs::remove_file(dir.join("run.json"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let run = eventually("a node to start", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{} ended: {status}; {}", dir.display(), log_text(dir));
            }
            let bytes = std::fs::read(dir.join("run.json")).map_err(|e| e.to_string())?;
            serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string())
        });
        Self {
            dir: dir.to_owned(),
            url: run["url"].as_str().unwrap().to_owned(),
            pid: child.id(),
            child,
        }
    }

    /// Ends the node in order.
    pub fn stop(mut self) -> PathBuf {
        drop(self.child.stdin.take());
        eventually("a node to stop", || {
            let ended = self.child.try_wait().unwrap();
            ended.map(|_| ()).ok_or("running".into())
        });
        self.dir.clone()
    }

    /// Ends the node as a power cut would.
    pub fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.dir.clone()
    }

    /// What the node says of itself.
    pub fn status(&self) -> Value {
        self.get("/api/v1/status")
    }

    /// A document of the node.
    pub fn get(&self, path: &str) -> Value {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().unwrap();
        answer.body_mut().read_json().unwrap()
    }

    /// Sends a document as an operator who logs in for it; status and answer.
    pub fn post(&self, login: &str, path: &str, body: &Value) -> (u16, Value) {
        let login = json!({ "login": login, "passphrase": PASSPHRASE });
        let (_, session) = self.send(None, "/api/v1/sessions", &login);
        let token = session["token"].as_str().map(str::to_owned);
        self.send(token.as_deref(), path, body)
    }

    /// Sends a document under a session's token; status and answer.
    pub fn send(&self, token: Option<&str>, path: &str, body: &Value) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = agent.post(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send_json(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        (answer.status().as_u16(), body)
    }

    /// Size, root and cosigned size of a ledger held by the node.
    pub fn ledger(&self, origin: &str) -> Option<(u64, String, u64)> {
        let status = self.status();
        let line = status["ledgers"]
            .as_array()?
            .iter()
            .find(|line| line["origin"] == origin)?;
        Some((
            line["size"].as_u64()?,
            line["root"].as_str()?.to_owned(),
            line["cosigned"].as_u64()?,
        ))
    }

    /// The line of the status about a peer, once `fits` holds for it.
    pub fn peer(&self, fits: impl Fn(&Value) -> bool) -> Value {
        eventually("a line about a peer", || {
            let status = self.status();
            let peers = status["peers"].as_array().unwrap();
            let found = peers.iter().find(|line| fits(line)).cloned();
            found.ok_or_else(|| status["peers"].to_string())
        })
    }

    /// The alarms about a ledger, once there are any.
    pub fn alarms(&self, origin: &str) -> Vec<Value> {
        eventually("an alarm", || {
            let status = self.status();
            let alarms: Vec<Value> = status["alarms"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|alarm| alarm["origin"] == origin)
                .cloned()
                .collect();
            (!alarms.is_empty()).then_some(alarms).ok_or("none".into())
        })
    }

    /// The lines of the node's log so far, each a JSON document.
    pub fn log(&self) -> Vec<Value> {
        log_text(&self.dir)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    /// Waits for a warning in the log whose code is this; gives its reason.
    pub fn refusal_logged(&self, code: &str) -> Value {
        eventually("a refusal in the log", || {
            self.log()
                .into_iter()
                .find(|line| line["fields"]["code"] == code)
                .map(|line| line["fields"].clone())
                .ok_or_else(|| log_text(&self.dir))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("node.log")).unwrap_or_default()
}

/// Waits until the parent holds every ledger that the child writes, cosigned at home.
pub fn converged(child: &Daemon, parent: &Daemon) {
    eventually("convergence", || {
        let status = child.status();
        for line in status["ledgers"].as_array().unwrap() {
            if line["own"] != true {
                continue;
            }
            let origin = line["origin"].as_str().unwrap();
            let there = parent.ledger(origin).map(|(size, root, _)| (size, root));
            let here = (
                line["size"].as_u64().unwrap(),
                line["root"].as_str().unwrap().to_owned(),
            );
            if there.as_ref() != Some(&here) || line["cosigned"] != line["size"] {
                return Err(format!("{line} is {there:?} at the parent"));
            }
        }
        Ok(())
    });
}

/// Changes `node.json` of a node that does not run.
pub fn edit_config(dir: &Path, change: impl FnOnce(&mut registry::config::NodeConfig)) {
    let mut config = registry::config::NodeConfig::read(dir).unwrap();
    change(&mut config);
    config.write(dir).unwrap();
}

/// The report of `fangzhi verify`, and whether it was content.
pub fn verify(dir: &Path) -> (bool, Value) {
    let output = fangzhi([
        std::ffi::OsStr::new("verify"),
        "--json".as_ref(),
        "--dir".as_ref(),
        dir.as_os_str(),
    ]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", words(&output)));
    (output.status.success(), report)
}
