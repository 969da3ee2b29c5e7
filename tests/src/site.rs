//! One node: its directory, and the process that runs it.
//!
//! Owns making nodes with operators whose passphrases lie beside their keys, and ending a
//! running node in order or by SIGKILL.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::http::Http;
use crate::process::{self, Done, call};
use crate::until;

/// The passphrase of every operator that the journeys enrol.
pub const PASSPHRASE: &str = "only for journeys";
/// The realm of the journeys.
pub const REALM: &str = "journey.example";

/// A node's directory.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where its files lie.
    pub dir: PathBuf,
}

/// A port of the loopback address that nobody listens on, below those that the system gives out,
/// so that it is still free when a node is started again.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let spread = std::process::id()
            .wrapping_mul(97)
            .wrapping_add(u32::from(step));
        let address = format!("127.0.0.1:{}", 20_000 + spread % 12_000);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

impl Site {
    /// A directory that holds a node already.
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Makes the root node of a realm, with its first security officer `anquan`.
    pub fn root(base: &Path, division: &str, level: &str) -> Self {
        let site = Self::at(&base.join(division));
        let pass = passphrase(base);
        let name = format!("{division} 节点");
        let args = [
            "init",
            "--realm",
            REALM,
            "--division",
            division,
            "--name",
            &name,
            "--level",
            level,
            "--http",
            "127.0.0.1:0",
            "--listen",
            &free_address(),
            "--officer-passphrase-file",
        ];
        let args = args.map(OsString::from).into_iter();
        site.json(args.chain([pass.clone().into_os_string()]));
        site.keep("anquan", &pass);
        site
    }

    /// A node of one community alone, with the clerk `dengji`: enough for most journeys.
    pub fn alone(base: &Path) -> Self {
        let site = Self::root(base, "jinfu", "community");
        site.enrol("dengji", "clerk", None);
        site
    }

    /// Makes a node under a running one, by invitation.
    pub fn join(base: &Path, parent: &Running, division: &str, level: &str) -> Self {
        let site = Self::at(&base.join(division));
        let pass = passphrase(base);
        let invitation = base.join(format!("{division}.invitation.json"));
        let name = format!("{division} 节点");
        parent.site.json([
            "invite",
            "--as",
            "anquan",
            "--division",
            division,
            "--name",
            &name,
            "--level",
            level,
            "--address",
            &parent.listen,
            "--out",
            invitation.to_str().unwrap(),
        ]);
        site.json([
            "join",
            invitation.to_str().unwrap(),
            "--http",
            "127.0.0.1:0",
            "--listen",
            "127.0.0.1:0",
            "--officer-passphrase-file",
            pass.to_str().unwrap(),
        ]);
        site.keep("anquan", &pass);
        site
    }

    /// Enrols an operator.
    pub fn enrol(&self, login: &str, role: &str, grid: Option<&str>) {
        let pass = passphrase(self.dir.parent().unwrap());
        let mut args = vec![
            "operator",
            "add",
            login,
            "--as",
            "anquan",
            "--role",
            role,
            "--new-passphrase-file",
            pass.to_str().unwrap(),
        ];
        args.extend(grid.iter().flat_map(|grid| ["--grid", grid]));
        self.json(args);
        self.keep(login, &pass);
    }

    fn keep(&self, login: &str, pass: &Path) {
        std::fs::copy(pass, self.dir.join(format!("operators/{login}.pass"))).unwrap();
    }

    /// Runs a command on this directory.
    pub fn run<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Done {
        let args = args.into_iter().map(Into::into);
        let dir = ["--dir".into(), self.dir.clone().into_os_string()];
        call(args.chain(dir))
    }

    /// Runs a command with `--json` that must end with 0; gives its answer.
    #[track_caller]
    pub fn json<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Value {
        let args = args.into_iter().map(Into::into);
        self.run(args.chain(["--json".into()]))
            .expect_code(0)
            .json()
    }

    /// The report of `fangzhi verify`, which must find nothing.
    #[track_caller]
    pub fn verified(&self) -> Value {
        let done = self.run(["verify", "--json"]);
        let report = done.json();
        assert_eq!(
            (done.code, &report["ok"], &report["findings"]),
            (0, &true.into(), &Value::Array(vec![])),
            "`{}` does not verify",
            self.dir.display()
        );
        report
    }

    /// The size of a ledger by the last part of its origin, from the bytes alone.
    #[track_caller]
    pub fn ledger_size(&self, ledger: &str) -> u64 {
        size_in(&self.verified(), ledger)
    }

    /// How many records of a kind the working index of the node finds.
    #[track_caller]
    pub fn records(&self, kind: &str) -> u64 {
        records_in(&self.json(["status"]), kind)
    }

    /// Starts the node.
    #[track_caller]
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Starts the node with some environment.
    #[track_caller]
    pub fn start_with(&self, env: &[(&str, &str)]) -> Running {
        let log = self.dir.join("node.log");
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = process::command();
        command
            .args(["--log-json", "run", "--while-stdin", "--dir"])
            .arg(&self.dir)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file);
        let mut child = command.spawn().expect("fangzhi can be started");
        let mut found = None;
        until("the node runs", || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the node ended as it started: {status}\n{log}");
            }
            // After a SIGKILL the file of the process before it may still lie there.
            found = read_json(&self.dir.join("run.json"))
                .filter(|run| run["pid"] == u64::from(child.id()));
            found.is_some()
        });
        let run = found.unwrap();
        let text = |field: &str| run[field].as_str().unwrap().to_owned();
        Running {
            site: self.clone(),
            http: Http::new(&text("url")),
            listen: text("listen"),
            child,
        }
    }
}

/// The size of a ledger in a report of `verify`, by the last part of its origin; 0 without one.
pub fn size_in(report: &Value, ledger: &str) -> u64 {
    let ledgers = report["ledgers"].as_array().unwrap();
    ledgers
        .iter()
        .find(|l| {
            l["origin"]
                .as_str()
                .unwrap()
                .ends_with(&format!("/{ledger}"))
        })
        .map_or(0, |l| l["size"].as_u64().unwrap())
}

/// The records of a kind in an answer of `status`, over all holdings.
pub fn records_in(status: &Value, kind: &str) -> u64 {
    let holdings = status["holdings"].as_array().unwrap();
    holdings
        .iter()
        .filter(|h| h["kind"] == kind)
        .map(|h| h["records"].as_u64().unwrap())
        .sum()
}

/// A JSON file, if it is there and whole.
pub fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn passphrase(base: &Path) -> PathBuf {
    let path = base.join("passphrase");
    std::fs::write(&path, PASSPHRASE).unwrap();
    path
}

/// A node's process. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Its directory.
    pub site: Site,
    /// Its HTTP interface.
    pub http: Http,
    /// Where it replicates, `IP:port`.
    pub listen: String,
    child: Child,
}

impl Running {
    /// Ends the node as `kill -9` does: nothing of it runs another instruction.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the node in order.
    ///
    /// # Panics
    /// When it does not end by itself, or not with 0.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let code = process::wait(&mut self.child, Duration::from_secs(30));
        assert_eq!(code, Some(0), "the node ends in order when it is told to");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
