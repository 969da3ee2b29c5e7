//! Joining by file: a station that never shares a network with its parent is chartered, runs, and
//! goes on by bundles; and no request or admission that is not the right one charters anybody.
//!
//! Both are processes in network namespaces of their own where this machine permits that, and in any
//! case nodes that cannot reach each other: the address in the invitation leads nowhere.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ferry::JoinRequest;
use record::authority::{Level, Role};
use record::id::UnixMillis;
use registry::replicate::NewInvitation;
use serde_json::{Value, json};
use tests::realm::daemon::{Daemon, fangzhi, verify, words};
use tests::realm::{DAY, PASSPHRASE, REALM, Site, clock, division};

const PARENT: &str = "jiangjin";
const CHILD: &str = "jinfu";
/// Of the documentation addresses of RFC 5737: nobody is there.
const NOWHERE: &str = "192.0.2.1:8461";

struct Gap {
    base: tempfile::TempDir,
}

impl Gap {
    /// A root with something in its ledgers, and an invitation of a node that it cannot reach.
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let parent = Site::root(at, REALM, PARENT, clock());
        parent.operator(Role::Clerk, None, clock());
        parent.close();
        std::fs::create_dir(at.join("disk")).unwrap();
        std::fs::write(at.join("passphrase"), PASSPHRASE).unwrap();
        let gap = Self { base };
        gap.invite(CHILD, "invitation");
        gap
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.base.path().join(node)
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.base.path().join("disk").join(name)
    }

    fn text(&self, path: &Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    /// Invites a division at a time of the parent's clock; gives the invitation's file.
    fn invite_at(&self, name: &str, file: &str, now: UnixMillis) -> PathBuf {
        let parent = Site::open(&self.dir(PARENT), clock());
        let new = NewInvitation {
            division: division(name),
            name: name.into(),
            level: Level::Community,
            codes: vec![],
            address: NOWHERE.into(),
        };
        let invitation = parent.registry.invite(&parent.officer, &new, now).unwrap();
        parent.close();
        let path = self.disk(file);
        std::fs::write(&path, serde_json::to_vec(&invitation).unwrap()).unwrap();
        path
    }

    fn invite(&self, name: &str, file: &str) -> PathBuf {
        self.invite_at(name, file, clock())
    }

    fn join(&self, node: &str, invitation: &str, more: &[&str]) -> Ran {
        let mut args = vec!["join".to_owned(), self.text(&self.disk(invitation))];
        args.extend(["--dir".into(), self.text(&self.dir(node))]);
        args.extend(["--http".into(), "127.0.0.1:0".into()]);
        args.extend(["--listen".into(), "127.0.0.1:0".into()]);
        let passphrase = self.text(&self.base.path().join("passphrase"));
        args.extend(["--officer-passphrase-file".into(), passphrase]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        ran(&args)
    }

    /// Makes the node by its admission; its officer's passphrase lies beside the key, for commands.
    fn joined(&self, node: &str, invitation: &str, admission: &Path) {
        let admission = self.text(admission);
        done(&self.join(node, invitation, &["--admission", &admission]));
        let kept = self.dir(node).join("operators/anquan.pass");
        std::fs::copy(self.base.path().join("passphrase"), kept).unwrap();
    }

    /// Writes the request of a node.
    fn ask(&self, node: &str, invitation: &str, request: &str) -> PathBuf {
        let path = self.disk(request);
        done(&self.join(node, invitation, &["--offline", &self.text(&path)]));
        path
    }

    fn admit(&self, request: &Path, out: &str) -> Ran {
        let out = self.disk(out);
        std::fs::create_dir_all(&out).unwrap();
        let dir = self.text(&self.dir(PARENT));
        ran(&[
            "ferry".into(),
            "admit".into(),
            self.text(request),
            "--dir".into(),
            dir,
            "--out".into(),
            self.text(&out),
        ])
    }

    /// What the parent says that it holds and knows.
    fn parent_holds(&self) -> Value {
        self.asked(PARENT, &["status"])["ledgers"].clone()
    }

    fn asked(&self, node: &str, what: &[&str]) -> Value {
        let mut args: Vec<String> = what.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--dir".into(), self.text(&self.dir(node))]);
        done(&ran(&args))
    }

    /// A request that is refused charters nobody and writes nothing.
    fn refused(&self, request: &Path, code: &str) -> String {
        let before = self.parent_holds();
        let ran = self.admit(request, "refused");
        assert!(!ran.ok, "{}", ran.answer);
        assert_eq!(ran.answer["error"]["code"], code, "{}", ran.answer);
        assert_eq!(self.parent_holds(), before, "{code} changed something");
        let written = std::fs::read_dir(self.disk("refused")).unwrap().count();
        assert_eq!(written, 0, "{code} wrote something");
        ran.answer["error"]["message"].as_str().unwrap().to_owned()
    }

    /// An admission that is not taken makes no node.
    fn not_taken(&self, node: &str, invitation: &str, admission: &Path) -> String {
        let ran = self.join(node, invitation, &["--admission", &self.text(admission)]);
        assert!(!ran.ok, "{}", ran.answer);
        assert!(!self.dir(node).join("node.json").exists());
        ran.answer["error"]["message"].as_str().unwrap().to_owned()
    }
}

struct Ran {
    ok: bool,
    answer: Value,
}

fn ran(args: &[String]) -> Ran {
    let mut all = vec!["--json".to_owned()];
    all.extend(args.iter().cloned());
    let output = fangzhi(&all);
    let answer = serde_json::from_slice(&output.stdout);
    Ran {
        ok: output.status.success(),
        answer: answer.unwrap_or_else(|_| panic!("{args:?}: {}", words(&output))),
    }
}

fn done(ran: &Ran) -> Value {
    assert!(ran.ok, "{}", ran.answer);
    ran.answer.clone()
}

fn path(value: &Value) -> PathBuf {
    PathBuf::from(value.as_str().unwrap())
}

/// Namespaces without any interface but their own loopback, gone when this is dropped.
struct Cells(Vec<String>);

impl Cells {
    fn new(count: usize) -> Self {
        let pid = std::process::id();
        let names: Vec<String> = (0..count).map(|at| format!("fzj{pid}n{at}")).collect();
        let ip = |args: &[&str]| {
            let ran = Command::new("ip").args(args).output();
            ran.is_ok_and(|output| output.status.success())
        };
        let made = names.iter().all(|name| {
            ip(&["netns", "add", name])
                && ip(&["netns", "exec", name, "ip", "link", "set", "lo", "up"])
        });
        let cells = Self(names);
        match made {
            true => cells,
            // The address in the invitation leads nowhere all the same.
            false => Self(vec![]),
        }
    }

    fn start(&self, at: usize, dir: &Path) -> Daemon {
        match self.0.get(at) {
            Some(name) => Daemon::start_in(name, dir),
            None => Daemon::start(dir),
        }
    }

    /// Runs a command where the node runs.
    fn run(&self, at: usize, args: &[&str]) -> Value {
        let mut command = match self.0.get(at) {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]);
                command.arg(tests::binary::fangzhi());
                command
            }
            None => Command::new(tests::binary::fangzhi()),
        };
        let output = command.arg("--json").args(args).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {}", words(&output)));
        assert!(output.status.success(), "{args:?}: {answer}");
        answer
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

#[test]
fn a_station_that_never_shares_a_network_joins_runs_and_goes_on_by_file() {
    let gap = Gap::new();
    let cells = Cells::new(2);
    let request = gap.ask(CHILD, "invitation", "request");
    assert!(!gap.dir(CHILD).join("node.json").exists(), "no node yet");
    // The secret of the invitation is in no file that is carried on.
    let invitation: Value =
        serde_json::from_slice(&std::fs::read(gap.disk("invitation")).unwrap()).unwrap();
    let secret = invitation["secret"].as_str().unwrap();
    let asked = std::fs::read_to_string(&request).unwrap();
    assert!(!asked.contains(secret));

    // The parent runs, and admits.
    let parent_dir = gap.dir(PARENT);
    let parent = parent_dir.to_str().unwrap();
    let (from, out) = (gap.text(&request), gap.text(&gap.disk("")));
    let running = cells.start(0, &parent_dir);
    let report = cells.run(
        0,
        &["ferry", "admit", &from, "--dir", parent, "--out", &out],
    );
    assert_eq!(report["repeated"], false, "{report}");
    let admission = path(&report["admission"]);
    let bundle = path(&report["bundle"]["files"][0]);
    assert!(
        report["bundle"]["entries"].as_u64().unwrap() >= 2,
        "{report}"
    );
    let carried = std::fs::read(&admission).unwrap();
    assert!(!String::from_utf8_lossy(&carried).contains(secret));

    // The child becomes a node by the admission and has the parent's ledgers by the bundle.
    gap.joined(CHILD, "invitation", &admission);
    let child_dir = gap.dir(CHILD);
    let child = child_dir.to_str().unwrap();
    let node = cells.start(1, &child_dir);
    let opened = cells.run(
        1,
        &["ferry", "open", bundle.to_str().unwrap(), "--dir", child],
    );
    assert_eq!(opened["entries"], report["bundle"]["entries"], "{opened}");
    let ledger = |at: usize, dir: &str, name: &str| {
        let status = cells.run(at, &["status", "--dir", dir]);
        assert_eq!(status["alarms"], json!([]), "{status}");
        let lines = status["ledgers"].as_array().unwrap().clone();
        let line = lines.into_iter().find(|line| line["origin"] == name);
        line.map(|line| json!([line["size"], line["root"], line["cosigned"]]))
    };
    let authority = format!("{REALM}/{PARENT}/authority");
    assert!(ledger(0, parent, &authority).is_some());
    assert_eq!(
        ledger(0, parent, &authority).map(|l| json!([l[0], l[1]])),
        ledger(1, child, &authority).map(|l| json!([l[0], l[1]]))
    );

    // It goes on by bundles and receipts, as any other.
    let up = gap.text(&gap.disk("up.ferry"));
    cells.run(
        1,
        &[
            "ferry", "pack", "--to", PARENT, "--dir", child, "--out", &up,
        ],
    );
    let opened = cells.run(0, &["ferry", "open", &up, "--dir", parent]);
    assert!(opened["entries"].as_u64().unwrap() >= 1, "{opened}");
    for ledger in opened["ledgers"].as_array().unwrap() {
        assert_eq!(ledger["error"], Value::Null, "{ledger}");
    }
    let receipt = gap.text(&gap.disk("receipt.ferry"));
    cells.run(
        0,
        &[
            "ferry", "receipt", "--to", CHILD, "--dir", parent, "--out", &receipt,
        ],
    );
    let answered = cells.run(1, &["ferry", "open", &receipt, "--dir", child]);
    assert_eq!(answered["acknowledged"], 1, "{answered}");
    let own = format!("{REALM}/{CHILD}/authority");
    let line = ledger(1, child, &own).unwrap();
    assert_eq!(line[0], line[2], "the parent cosigned all of it: {line}");
    assert_eq!(
        ledger(0, parent, &own).map(|l| l[1].clone()),
        Some(line[1].clone())
    );
    for node in [node, running] {
        let (ok, report) = verify(&node.stop());
        assert!(ok, "{report}");
    }
}

#[test]
fn a_lost_answer_is_written_again_with_the_same_charter_and_over_no_file() {
    let gap = Gap::new();
    let request = gap.ask(CHILD, "invitation", "request");
    // Cut off and run again, the child asks with the keys that it made.
    let again = gap.ask(CHILD, "invitation", "request-2");
    let keys = |path: &Path| {
        JoinRequest::decode(&std::fs::read(path).unwrap())
            .unwrap()
            .keys
    };
    assert_eq!(keys(&request), keys(&again));
    let first = done(&gap.admit(&request, "first"));
    let second = done(&gap.admit(&again, "second"));
    assert_eq!(
        (&first["repeated"], &second["repeated"]),
        (&json!(false), &json!(true))
    );
    let chain = |report: &Value| {
        let admission = std::fs::read(path(&report["admission"])).unwrap();
        ferry::Admission::decode(&admission).unwrap().chain
    };
    assert_eq!(chain(&first), chain(&second));
    let ran = gap.admit(&request, "first");
    assert_eq!(ran.answer["error"]["code"], "ferry-file", "{}", ran.answer);
    // The first disk was lost; the second does.
    gap.joined(CHILD, "invitation", &path(&second["admission"]));
    let bundle = gap.text(&path(&second["bundle"]["files"][0]));
    let opened = gap.asked(CHILD, &["ferry", "open", &bundle]);
    assert_eq!(opened["entries"], second["bundle"]["entries"]);
}

#[test]
fn a_request_that_was_altered_or_is_not_for_this_parent_or_invitation_charters_nobody() {
    let gap = Gap::new();
    let request = gap.ask(CHILD, "invitation", "request");
    let bytes = std::fs::read(&request).unwrap();

    // Altered on its way: any byte of a key, of the proof, of a signature.
    let text = String::from_utf8(bytes.clone()).unwrap();
    let digits: Vec<usize> = (0..text.len())
        .filter(|at| text.as_bytes()[*at].is_ascii_hexdigit() && *at > 300)
        .collect();
    for at in digits.iter().step_by(digits.len() / 12) {
        let mut altered = bytes.clone();
        altered[*at] = if altered[*at] == b'7' { b'8' } else { b'7' };
        let path = gap.disk("altered");
        std::fs::write(&path, &altered).unwrap();
        gap.refused(&path, "join-file");
    }
    std::fs::write(gap.disk("cut"), &bytes[..bytes.len() / 2]).unwrap();
    gap.refused(&gap.disk("cut"), "join-file");
    gap.refused(&gap.disk("invitation"), "join-file");

    // With the secret of another division's invitation: who found that cannot take this place.
    gap.invite("fucheng", "other");
    let mut lie: Value =
        serde_json::from_slice(&std::fs::read(gap.disk("other")).unwrap()).unwrap();
    lie["division"] = json!(CHILD);
    std::fs::write(gap.disk("lie"), serde_json::to_vec(&lie).unwrap()).unwrap();
    let lied = gap.ask("liar", "lie", "lied");
    let said = gap.refused(&lied, "join-invitation");
    assert!(
        said.contains(" / ") && said.contains("newest invitation"),
        "{said}"
    );
    // Of a division that nobody invited.
    lie["division"] = json!("nobody");
    std::fs::write(gap.disk("lie"), serde_json::to_vec(&lie).unwrap()).unwrap();
    let lied = gap.ask("nobody", "lie", "lied-2");
    gap.refused(&lied, "join-invitation");

    // Another realm's request, and one to another parent.
    for (field, value, code) in [
        ("realm", json!("other.example"), "join-realm"),
        ("parent", json!("shuangfu"), "join-node"),
    ] {
        let mut lie: Value =
            serde_json::from_slice(&std::fs::read(gap.disk("invitation")).unwrap()).unwrap();
        match field {
            "parent" => lie["parent"]["division"] = value,
            _ => lie[field] = value,
        }
        std::fs::write(gap.disk("lie"), serde_json::to_vec(&lie).unwrap()).unwrap();
        let lied = gap.ask(&format!("of-{field}"), "lie", &format!("lied-{field}"));
        gap.refused(&lied, code);
    }

    // The right one is answered still; another node with the same invitation is not.
    done(&gap.admit(&request, "right"));
    let thief = gap.ask("thief", "invitation", "thief-request");
    gap.refused(&thief, "join-used");
    // A newer invitation of the same division voids the request that was made with the older.
    let fucheng = gap.ask("fucheng", "other", "fucheng-request");
    gap.invite("fucheng", "newer");
    gap.refused(&fucheng, "join-invitation");
    let newer = gap.ask("fucheng", "newer", "fucheng-newer");
    done(&gap.admit(&newer, "fucheng-out"));
}

#[test]
fn an_invitation_that_expired_is_refused_at_both_ends() {
    let gap = Gap::new();
    let old = UnixMillis(clock().0 - 8 * DAY);
    gap.invite_at("fucheng", "old", old);
    let refused = gap.join("late", "old", &["--offline", &gap.text(&gap.disk("late"))]);
    assert!(
        !refused.ok && !gap.disk("late").exists(),
        "{}",
        refused.answer
    );
    // A child whose clock is wrong, or that lies about the time, is told by the parent.
    let mut lie: Value = serde_json::from_slice(&std::fs::read(gap.disk("old")).unwrap()).unwrap();
    lie["expires"] = json!(clock().0 + DAY);
    std::fs::write(gap.disk("lie"), serde_json::to_vec(&lie).unwrap()).unwrap();
    let request = gap.ask("fucheng", "lie", "request");
    gap.refused(&request, "join-expired");
}

#[test]
fn an_admission_for_others_or_altered_makes_no_node() {
    let gap = Gap::new();
    let request = gap.ask(CHILD, "invitation", "request");
    let report = done(&gap.admit(&request, "out"));
    let admission = path(&report["admission"]);
    // At another node's directory: other keys.
    let said = gap.not_taken("stranger", "invitation", &admission);
    assert!(said.contains("not here"), "{said}");
    gap.ask("thief", "invitation", "thief-request");
    let said = gap.not_taken("thief", "invitation", &admission);
    assert!(said.contains("other keys"), "{said}");
    // For another division.
    gap.invite("fucheng", "other");
    gap.ask("fucheng", "other", "other-request");
    gap.not_taken("fucheng", "other", &admission);
    // Altered: a charter that its issuer did not sign.
    let text = std::fs::read_to_string(&admission).unwrap();
    let at = text.find("\"ac").unwrap() + 300;
    let mut altered = text.clone().into_bytes();
    altered[at] = if altered[at] == b'7' { b'8' } else { b'7' };
    std::fs::write(gap.disk("altered"), &altered).unwrap();
    gap.not_taken(CHILD, "invitation", &gap.disk("altered"));
    // Whole, it is taken.
    gap.joined(CHILD, "invitation", &admission);
    assert!(gap.dir(CHILD).join("node.json").exists());
}
