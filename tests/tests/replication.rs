//! Replication between processes: what converges, who is refused, and what a rewritten history,
//! a bad line and a killed parent come to.
//!
//! Nodes are made in this process, then run as `fangzhi run` on the loopback address. What a
//! test knows of a running node its status, its answers and its log say.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::note::{KeyKind, Verifier};
use p2p::{Endpoint, Limits, TransportKey};
use record::authority::{Charter, Level, Role};
use record::entry::Entry;
use record::id::{Origin, UnixMillis};
use registry::config::{NodeConfig, ParentAddress};
use serde_json::{Value, json};
use sync::code::RejectCode;
use sync::output::Output;
use sync::session::{Config, Session};
use sync::trust::{Accept, Refusal, Trust};
use tests::realm::daemon::{Daemon, converged, edit_config, eventually, fangzhi, verify, words};
use tests::realm::forge::{self, keystore};
use tests::realm::proxy::{Fate, Proxy};
use tests::realm::{DAY, REALM, Row, Site, clock, origin, rows};

/// District, town and community, with a clerk and records at the community; none of them runs.
struct Nodes {
    base: tempfile::TempDir,
}

impl Nodes {
    fn new(kinds: &[&str], persons: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let (at, now) = (base.path(), clock());
        let district = Site::root(at, REALM, "jiangjin", now);
        let town = Site::join(&district, at, "shuangfu", Level::Town, now);
        let community = Site::join(&town, at, "jinfu", Level::Community, now);
        let clerk = community.operator(Role::Clerk, None, now);
        for kind in kinds {
            community.import(&clerk, kind, &rows(kind, 1, persons, 1), now);
        }
        for site in [community, town, district] {
            site.close();
        }
        Self { base }
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.base.path().join(node)
    }

    fn start(&self, node: &str) -> Daemon {
        Daemon::start(&self.dir(node))
    }

    /// Another community under the town, which does not run either.
    fn sibling(&self, name: &str) -> PathBuf {
        let now = clock();
        let town = Site::open(&self.dir("shuangfu"), now);
        let sibling = Site::join(&town, self.base.path(), name, Level::Community, now);
        town.close();
        sibling.close()
    }

    /// Lets the community reach the town through a proxy only.
    fn through(&self, proxy: &Proxy) {
        edit_config(&self.dir("jinfu"), |config| {
            config.parent.as_mut().unwrap().address = proxy.address.clone();
        });
    }

    fn town_listens(&self) -> String {
        NodeConfig::read(&self.dir("shuangfu")).unwrap().listen
    }
}

fn register(node: &Daemon, kind: &str, file: &str, rows: &[Row]) {
    let source = format!("{:0>64}", file);
    for (at, chunk) in rows.chunks(256).enumerate() {
        let numbers: Vec<usize> = (0..chunk.len()).map(|row| at * 256 + row + 1).collect();
        let chunk = json!({ "kind": kind, "source": source, "numbers": numbers, "rows": chunk });
        let (status, report) = node.post("clerk", "/api/v1/import", &chunk);
        assert_eq!((status, &report["rejected"]), (200, &json!(0)), "{report}");
    }
}

fn own_ledgers(node: &Daemon) -> Vec<(String, u64, String)> {
    node.status()["ledgers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["own"] == true)
        .map(|line| {
            (
                line["origin"].as_str().unwrap().to_owned(),
                line["size"].as_u64().unwrap(),
                line["root"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// Waits until `above` holds the same as `below` writes.
fn arrives(below: &Daemon, above: &Daemon) {
    eventually("the same two levels up", || {
        for (origin, size, root) in own_ledgers(below) {
            let there = above.ledger(&origin).map(|(size, root, _)| (size, root));
            if there != Some((size, root)) {
                return Err(format!("{origin} of {size} is {there:?} above"));
            }
        }
        Ok(())
    });
}

fn in_parent(line: &Value) -> bool {
    line["peer"] == "shuangfu"
}

/// What the town calls a peer that never showed a charter which holds.
fn stranger(dir: &Path) -> String {
    let key = keystore(dir).public_keys().transport;
    format!("key-{}", data_encoding::HEXLOWER.encode(&key[..6]))
}

// ---- convergence ---------------------------------------------------------------------------

#[test]
fn community_town_and_district_come_to_hold_the_same_and_the_child_keeps_three_signatures() {
    let nodes = Nodes::new(&["unit", "person"], 120);
    // The child first: it waits for its parent.
    let community = nodes.start("jinfu");
    let town = nodes.start("shuangfu");
    let district = nodes.start("jiangjin");
    converged(&community, &town);
    converged(&town, &district);
    arrives(&community, &district);

    register(&community, "room", "1", &rows("room", 1, 120, 1));
    converged(&community, &town);
    arrives(&community, &district);

    let room = format!("{REALM}/jinfu/room");
    let (size, _, cosigned) = community.ledger(&room).unwrap();
    assert_eq!(size, cosigned);
    let (ok, report) = verify(&community.dir);
    assert!(ok, "{report}");
    let ledgers = report["ledgers"].as_array().unwrap();
    assert!(ledgers.len() >= 4);
    for ledger in ledgers {
        let own = ledger["origin"].as_str().unwrap().contains("/jinfu/");
        // The log's, and of the parent: that it witnessed, and that it holds.
        assert!(
            !own || ledger["signatures"].as_u64().unwrap() >= 3,
            "{ledger}"
        );
    }
    for node in [&town, &district] {
        let (ok, report) = verify(&node.dir);
        assert!(ok, "{report}");
    }
    // Nobody is told of a failure that there was not.
    for node in [&community, &town, &district] {
        let status = node.status();
        assert_eq!(status["alarms"], json!([]));
        let failed = node.log().into_iter().find(|line| line["level"] == "ERROR");
        assert_eq!(failed, None);
    }
}

// ---- who is refused ------------------------------------------------------------------------

/// The charter that the town would give a node, with other dates.
fn dated(dir: &Path, town: &Path, from: UnixMillis, to: UnixMillis) -> Vec<String> {
    let mut chain = NodeConfig::read(dir).unwrap().charters().unwrap();
    chain[0] = Charter {
        not_before: from,
        not_after: to,
        ..chain[0].clone()
    }
    .sign(&keystore(town).sign.signing_key());
    hex(&chain)
}

fn hex(chain: &[Charter]) -> Vec<String> {
    let hex = |charter: &Charter| data_encoding::HEXLOWER.encode(&charter.encode());
    chain.iter().map(hex).collect()
}

/// Runs a child that must be refused, and looks at what both sides say.
fn refused(child: &Path, town: &Daemon, code: &str) {
    let name = stranger(child);
    let child = Daemon::start(child);
    let here = child.peer(|line| in_parent(line) && line["refused"].as_u64() > Some(0));
    let there =
        town.peer(|line| line["peer"] == name.as_str() && line["refused"].as_u64() > Some(0));
    for line in [&here, &there] {
        let words = line["last_error"].as_str().unwrap();
        assert!(words.contains(code), "not `{code}`: {line}");
        assert_eq!(line["connected"], false);
    }
    assert!(
        here["last_error"]
            .as_str()
            .unwrap()
            .starts_with("refused by the peer"),
        "{here}"
    );
    assert!(
        there["last_error"]
            .as_str()
            .unwrap()
            .starts_with("refused by this node"),
        "{there}"
    );
    // In the log of each, with words in both languages.
    for node in [&child, town] {
        let line = node.refusal_logged(code);
        assert!(line["reason"].as_str().unwrap().contains(" / "), "{line}");
    }
    assert!(town.refusals(code) > 0, "not counted");
    // A node that is refused still works for its own people.
    assert_eq!(child.get("/healthz")["status"], "ok");
}

#[test]
fn a_node_without_a_charter_that_holds_is_refused_and_both_sides_say_why() {
    let nodes = Nodes::new(&[], 1);
    let town = nodes.dir("shuangfu");
    let now = clock();
    let day = |days: i64| UnixMillis((now.0 as i64 + days * DAY as i64) as u64);

    let missing = nodes.sibling("missing");
    edit_config(&missing, |config| config.chain.clear());

    let expired = nodes.sibling("expired");
    let chain = dated(&expired, &town, day(-3), day(-1));
    edit_config(&expired, |config| config.chain = chain);
    let early = nodes.sibling("early");
    let chain = dated(&early, &town, day(1), day(3));
    edit_config(&early, |config| config.chain = chain);

    // A charter that somebody else signed in the town's name.
    let forged = nodes.sibling("forged");
    let chain = dated(&forged, &forged, day(-1), day(3));
    edit_config(&forged, |config| config.chain = chain);

    // Another node's charter.
    let thief = nodes.sibling("thief");
    let victim = NodeConfig::read(&nodes.dir("jinfu")).unwrap();
    edit_config(&thief, |config| {
        (config.chain, config.division, config.name) = (victim.chain, victim.division, victim.name);
    });

    // A realm of the same name, and one of another name, with roots of their own.
    let parent = NodeConfig::read(&nodes.dir("jinfu"))
        .unwrap()
        .parent
        .unwrap();
    let foreign = |realm: &str, folder: &str| {
        let base = nodes.dir(folder);
        let root = Site::root(&base, realm, "jiangjin", now);
        let town = Site::join(&root, &base, "shuangfu", Level::Town, now);
        let child = Site::join(&town, &base, "jinfu", Level::Community, now).close();
        edit_config(&child, |config| config.parent = Some(parent.clone()));
        child
    };
    let same_name = foreign(REALM, "same-name");
    let other_name = foreign("other.example", "other-name");

    let town = nodes.start("shuangfu");
    refused(&missing, &town, "missing");
    refused(&expired, &town, "expired");
    refused(&early, &town, "expired");
    refused(&forged, &town, "malformed");
    refused(&thief, &town, "wrong-key");
    refused(&same_name, &town, "other-realm");
    refused(&other_name, &town, "other-realm");
    // Nothing came of any of them.
    for line in town.status()["ledgers"].as_array().unwrap() {
        assert!(
            line["origin"].as_str().unwrap().contains("/shuangfu/"),
            "{line}"
        );
    }
    let metrics = ureq::get(format!("{}/metrics", town.url)).call().unwrap();
    let metrics = metrics.into_body().read_to_string().unwrap();
    tests::prometheus::judged(&metrics);
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("fangzhi_sessions_refused_total "))
        .unwrap();
    assert!(count.parse::<u64>().unwrap() >= 7, "{count}");
}

#[test]
fn a_node_that_dials_one_that_is_neither_parent_nor_child_is_refused() {
    let nodes = Nodes::new(&[], 1);
    let district = NodeConfig::read(&nodes.dir("jiangjin")).unwrap();
    let transport = keystore(&nodes.dir("jiangjin")).public_keys().transport;
    let child = nodes.dir("jinfu");
    edit_config(&child, |config| {
        config.parent = Some(ParentAddress {
            division: district.division.clone(),
            address: district.listen.clone(),
            transport: data_encoding::HEXLOWER.encode(&transport),
        });
    });
    let name = stranger(&child);
    let district = nodes.start("jiangjin");
    let child = Daemon::start(&child);
    let here = child.peer(|line| line["peer"] == "jiangjin" && line["last_error"].is_string());
    assert!(
        here["last_error"]
            .as_str()
            .unwrap()
            .contains("not-parent-or-child"),
        "{here}"
    );
    let there = district.peer(|line| line["peer"] == name.as_str());
    assert!(
        there["last_error"]
            .as_str()
            .unwrap()
            .contains("not-parent-or-child"),
        "{there}"
    );
}

#[test]
fn a_revoked_nodes_open_session_is_cut_and_its_next_one_refused() {
    let nodes = Nodes::new(&["unit"], 40);
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    converged(&community, &town);
    let unit = format!("{REALM}/jinfu/unit");
    let before = town.ledger(&unit).unwrap();

    let output = fangzhi([
        "revoke",
        "--json",
        "--dir",
        town.dir.to_str().unwrap(),
        "--as",
        "anquan",
        "jinfu",
        "--reason",
        "lost-key",
    ]);
    assert!(output.status.success(), "{}", words(&output));

    let there = town.peer(|line| line["peer"] == "jinfu" && line["connected"] == false);
    assert!(
        there["last_error"].as_str().unwrap().contains("revoked"),
        "{there}"
    );
    let here = community.peer(|line| in_parent(line) && line["refused"].as_u64() > Some(0));
    assert!(
        here["last_error"].as_str().unwrap().contains("revoked"),
        "{here}"
    );
    community.refusal_logged("revoked");
    town.refusal_logged("revoked");
    // First the session that was open, not only the next one.
    let cut = town
        .log()
        .into_iter()
        .find(|line| line["fields"]["code"] == "revoked");
    let cut = cut.unwrap()["fields"]["message"].clone();
    assert_eq!(cut, "a live replication session was cut");
    assert!(town.refusals("revoked") > 1);

    register(&community, "unit", "2", &rows("unit", 9, 400, 2));
    // Two retries later the town holds what it held.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(town.ledger(&unit).unwrap(), before);
    assert_ne!(community.ledger(&unit).unwrap().0, before.0);

    // Chartered again under other keys it goes on where it was; never under the keys it had.
    let dir = community.stop();
    let config = NodeConfig::read(&dir).unwrap();
    let file = nodes.dir("again.json");
    replace_charter(&town, "jinfu");
    invite(&town, "jinfu", &file);
    let lost = keystore(&dir).public_keys();
    let config_file = std::fs::read(dir.join("node.json")).unwrap();
    std::fs::remove_file(dir.join("node.json")).unwrap();
    let output = join(&dir, &file, &config.http, &config.listen);
    assert!(!output.status.success(), "the lost keys were chartered");
    std::fs::write(dir.join("node.json"), config_file).unwrap();
    let renewed = fangzhi([
        "join",
        "--new-keys",
        "--dir",
        dir.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    assert!(renewed.status.success(), "{}", words(&renewed));
    let community = Daemon::start(&dir);
    let fresh = keystore(&dir).public_keys();
    assert!(lost.sign != fresh.sign && lost.seal != fresh.seal);
    assert!(!dir.join("keystore.next").exists());
    register(&community, "unit", "3", &rows("unit", 8, 40, 3));
    converged(&community, &town);
    assert!(town.ledger(&unit).unwrap().0 > before.0);
}

// ---- invitations ---------------------------------------------------------------------------

/// Lets a division be chartered again, as two more officers of the parent approve.
fn replace_charter(parent: &Daemon, division: &str) {
    let dir = parent.dir.to_str().unwrap();
    let call = |args: &[&str]| {
        let output = fangzhi(args.iter().chain(&["--json", "--dir", dir]));
        assert!(output.status.success(), "{}", words(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let phrase = parent.dir.join("operators/anquan.pass");
    for login in ["fu-yi", "fu-er"] {
        let pass = parent.dir.join(format!("operators/{login}.pass"));
        std::fs::copy(&phrase, &pass).unwrap();
        let file = pass.to_str().unwrap();
        call(&[
            "operator",
            "add",
            login,
            "--as",
            "anquan",
            "--role",
            "security-officer",
            "--new-passphrase-file",
            file,
        ]);
    }
    let plan = call(&[
        "keys",
        "plan",
        "replace-charter",
        division,
        "--as",
        "anquan",
    ]);
    let id = plan["id"].as_str().unwrap();
    for login in ["fu-yi", "fu-er"] {
        call(&["keys", "approve", id, "--as", login]);
    }
    call(&["keys", "run", id, "--as", "anquan"]);
}

fn invite(parent: &Daemon, division: &str, file: &Path) {
    let run: Value =
        serde_json::from_slice(&std::fs::read(parent.dir.join("run.json")).unwrap()).unwrap();
    let output = fangzhi([
        "invite",
        "--dir",
        parent.dir.to_str().unwrap(),
        "--as",
        "anquan",
        "--division",
        division,
        "--name",
        "津福社区",
        "--level",
        "community",
        "--address",
        run["listen"].as_str().unwrap(),
        "--out",
        file.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", words(&output));
}

fn join(dir: &Path, file: &Path, http: &str, listen: &str) -> std::process::Output {
    let phrase = file.with_extension("pass");
    std::fs::write(&phrase, tests::realm::PASSPHRASE).unwrap();
    let args = ["join", "--http", http, "--listen", listen, "--dir"];
    let args = args.map(std::ffi::OsStr::new).into_iter().chain([
        dir.as_os_str(),
        "--officer-passphrase-file".as_ref(),
        phrase.as_os_str(),
        file.as_os_str(),
    ]);
    fangzhi(args)
}

/// A join that must fail, and leave a directory without a node.
fn not_joined(dir: &Path, file: &Path, exit: i32, says: &str) {
    let output = join(dir, file, "127.0.0.1:0", "127.0.0.1:0");
    let words = words(&output);
    assert_eq!(output.status.code(), Some(exit), "{words}");
    assert!(words.contains(says), "not `{says}`: {words}");
    assert!(words.contains(" / "), "in one language only: {words}");
    assert!(!dir.join("node.json").exists(), "half a node was made");
    let secret: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(!words.contains(secret["secret"].as_str().unwrap()));
}

/// A copy of an invitation, changed.
fn altered(file: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut invitation: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(&mut invitation);
    let altered = file.with_file_name(name);
    std::fs::write(&altered, invitation.to_string()).unwrap();
    altered
}

#[test]
fn a_wrong_used_or_expired_invitation_makes_nothing_and_a_fresh_one_then_works_in_its_place() {
    let nodes = Nodes::new(&[], 1);
    let town = nodes.start("shuangfu");
    let authority = format!("{REALM}/shuangfu/authority");
    let charters = || town.ledger(&authority).unwrap().0;
    let before = charters();
    let file = nodes.dir("xinfu.json");
    invite(&town, "xinfu", &file);

    let dir = nodes.dir("xinfu");
    let wrong = altered(&file, "wrong.json", |i| {
        i["secret"] = json!("ab".repeat(32))
    });
    not_joined(&dir, &wrong, 1, "邀请");
    let expired = altered(&file, "expired.json", |i| i["expires"] = json!(1_000));
    not_joined(&dir, &expired, 1, "expired");
    let stranger = altered(&file, "stranger.json", |i| i["division"] = json!("nobody"));
    not_joined(&dir, &stranger, 1, "邀请");
    // A parent of that address with another key is not the parent.
    let key = keystore(&nodes.dir("jinfu")).public_keys().transport;
    let imposter = altered(&file, "imposter.json", |i| {
        i["parent"]["transport"] = json!(data_encoding::HEXLOWER.encode(&key));
    });
    not_joined(&dir, &imposter, 8, "上级节点");
    let nowhere = altered(&file, "nowhere.json", |i| {
        i["parent"]["address"] = json!(tests::site::free_address());
    });
    not_joined(&dir, &nowhere, 8, "上级节点");
    assert_eq!(charters(), before, "a charter was issued");

    // A second invitation makes the first one worthless.
    let fresh = nodes.dir("fresh.json");
    invite(&town, "xinfu", &fresh);
    not_joined(&dir, &file, 1, "邀请");
    let address = tests::site::free_address;
    let output = join(&dir, &fresh, &address(), &address());
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(charters(), before + 2);

    // Used: by nobody else, nor into a directory that has a node.
    not_joined(&nodes.dir("second"), &fresh, 1, "邀请");
    let output = join(&dir, &fresh, &address(), &address());
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert_eq!(charters(), before + 2);

    let child = Daemon::start(&dir);
    converged(&child, &town);
}

#[test]
fn an_invitation_that_the_parent_knows_to_be_old_is_refused_there_too() {
    let base = tempfile::tempdir().unwrap();
    let now = clock();
    let town = Site::root(base.path(), REALM, "shuangfu", now);
    let new = registry::replicate::NewInvitation {
        division: tests::realm::division("xinfu"),
        name: "新福社区".into(),
        level: Level::Community,
        codes: vec![],
        address: "127.0.0.1:1".into(),
    };
    let invitation = town.registry.invite(&town.officer, &new, now).unwrap();
    let secret = registry::config::key_from_hex(&invitation.secret).unwrap();
    let keys = keystore(&town.dir).public_keys();
    let enrol = |at: UnixMillis| {
        let division = tests::realm::division("xinfu");
        town.registry.enrol(&division, &secret, &keys, at)
    };
    assert_eq!(invitation.expires, UnixMillis(now.0 + 7 * DAY));
    assert!(enrol(UnixMillis(now.0 + 7 * DAY + 1)).is_err());
    // It was not used up by that.
    assert_eq!(enrol(UnixMillis(now.0 + 7 * DAY)).unwrap().len(), 2);
}

// ---- a history that was changed ------------------------------------------------------------

/// A community that converged and was stopped, its town still running.
fn converged_and_stopped() -> (Nodes, Daemon) {
    let nodes = Nodes::new(&["unit", "grid"], 60);
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    converged(&community, &town);
    community.stop();
    (nodes, town)
}

/// Changes one old entry: when a record was registered.
fn backdate(leaves: &mut forge::Leaves) {
    let Entry::Record(entry) = &mut leaves[1].0 else {
        panic!("no record")
    };
    entry.recorded_at = UnixMillis(entry.recorded_at.0 - DAY);
}

/// The town shows it, keeps what it held, and goes on with the other ledgers.
fn caught(nodes: &Nodes, town: &Daemon, before: &(u64, String, u64), code: &str) -> Value {
    let unit = format!("{REALM}/jinfu/unit");
    let community = nodes.start("jinfu");
    let alarms = town.alarms(&unit);
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["code"], code);
    assert!(alarms[0]["reason"].as_str().unwrap().contains(" / "));
    town.refusal_logged(code);
    assert!(town.refusals(code) > 0);
    // The child is told as well.
    eventually("the same at home", || {
        let at_home = community.alarms(&unit);
        let told = |alarm: &Value| alarm["code"] == format!("rejected-{code}");
        at_home
            .iter()
            .any(told)
            .then_some(())
            .ok_or(format!("{at_home:?}"))
    });

    // Other ledgers go on.
    register(&community, "grid", "3", &rows("grid", 5, 60, 3));
    let grid = format!("{REALM}/jinfu/grid");
    eventually("the other ledger", || {
        let (size, root, cosigned) = community.ledger(&grid).unwrap();
        let there = town.ledger(&grid).unwrap();
        (size == cosigned && (there.0, &there.1) == (size, &root))
            .then_some(())
            .ok_or(format!("{there:?}"))
    });
    assert_eq!(
        &town.ledger(&unit).unwrap(),
        before,
        "the town's history moved"
    );
    let (ok, report) = verify(&town.dir);
    assert!(ok, "{report}");

    for (command, says) in [("doctor", "告警"), ("status", code)] {
        let output = fangzhi([command, "--dir", town.dir.to_str().unwrap()]);
        let words = words(&output);
        let exit = if command == "doctor" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(exit), "{words}");
        assert!(words.contains(says), "{words}");
    }
    alarms[0].clone()
}

#[test]
fn a_history_rewritten_at_the_same_size_is_kept_as_evidence_and_not_followed() {
    let (nodes, town) = converged_and_stopped();
    let unit = origin("jinfu", "unit");
    let before = town.ledger(unit.as_str()).unwrap();
    let owner = keystore(&nodes.dir("jinfu")).sign.signing_key();
    forge::rewrite(&nodes.dir("jinfu"), &unit, &owner, backdate);

    let alarm = caught(&nodes, &town, &before, "fork");
    // The evidence convinces a stranger who has nothing but the community's public key.
    let notes: Vec<&str> = alarm["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    let key = owner.verifying_key().to_bytes();
    let log = Verifier::new(unit.as_str(), KeyKind::Note, &key).unwrap();
    let [one, other] = notes[..] else {
        panic!("not two notes: {alarm}")
    };
    ledger::evidence::Evidence::from_notes(one.as_bytes(), other.as_bytes(), &log).unwrap();
    let size = |note: &str| {
        ledger::checkpoint::open(note.as_bytes(), &log)
            .unwrap()
            .size()
    };
    assert_eq!((size(one), size(other)), (before.0, before.0));

    // It is still there after a restart.
    let town = Daemon::start(&town.stop());
    let after = town.alarms(unit.as_str());
    assert_eq!(after[0]["notes"], alarm["notes"]);
}

#[test]
fn a_history_rewritten_and_made_longer_is_not_followed() {
    let (nodes, town) = converged_and_stopped();
    let unit = origin("jinfu", "unit");
    let before = town.ledger(unit.as_str()).unwrap();
    let owner = keystore(&nodes.dir("jinfu")).sign.signing_key();
    forge::rewrite(&nodes.dir("jinfu"), &unit, &owner, |leaves| {
        backdate(leaves);
        // One act more, which says again what the last one said.
        let more: forge::Leaves = leaves[leaves.len() - 2..].to_vec();
        leaves.extend(more);
    });
    caught(&nodes, &town, &before, "mismatch");
}

#[test]
fn a_forged_body_is_refused_with_all_that_came_with_it_and_counted() {
    let nodes = Nodes::new(&["unit", "grid"], 60);
    let unit = origin("jinfu", "unit");
    let forged = vec![7; 900];
    forge::replace_body(&nodes.dir("jinfu"), &unit, 1, forged);
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    let alarms = town.alarms(unit.as_str());
    assert_eq!(alarms[0]["code"], "body");
    town.refusal_logged("body");
    assert!(town.refusals("body") > 0);
    let grid = format!("{REALM}/jinfu/grid");
    eventually("the other ledger", || {
        let here = community.ledger(&grid).unwrap();
        let there = town.ledger(&grid);
        (there.map(|l| l.1) == Some(here.1))
            .then_some(())
            .ok_or("not there".into())
    });
    assert_eq!(town.ledger(unit.as_str()), None, "something of it was kept");
}

#[test]
fn a_node_restored_from_an_old_copy_fetches_the_rest_before_it_signs_again() {
    let nodes = Nodes::new(&["unit", "grid"], 60);
    let copy = nodes.dir("copy");
    tests::copy_dir(&nodes.dir("jinfu"), &copy);
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    register(&community, "unit", "4", &rows("unit", 3, 200, 4));
    converged(&community, &town);
    let dir = community.stop();
    std::fs::remove_dir_all(&dir).unwrap();
    tests::copy_dir(&copy, &dir);
    let unit = format!("{REALM}/jinfu/unit");
    let (size, root, _) = town.ledger(&unit).unwrap();

    let community = nodes.start("jinfu");
    converged(&community, &town);
    let after = community.ledger(&unit).unwrap();
    assert_eq!(
        after,
        (size, root, size),
        "the history was not fetched back"
    );
    // It goes on from there, and nobody has two histories of it.
    register(&community, "unit", "5", &rows("unit", 4, 60, 5));
    converged(&community, &town);
    assert!(town.ledger(&unit).unwrap().0 > size);
    for node in [&community, &town] {
        let (ok, report) = verify(&node.dir);
        assert!(ok, "{report}");
        let alarms = node.status()["alarms"].clone();
        let forks = alarms
            .as_array()
            .unwrap()
            .iter()
            .filter(|a| a["code"] == "fork");
        assert_eq!(forks.count(), 0, "{alarms}");
    }
}

// ---- bad lines -----------------------------------------------------------------------------

#[test]
fn over_a_line_that_cuts_stalls_and_drops_everything_arrives_once() {
    let nodes = Nodes::new(&["person", "room", "unit"], 1000);
    let proxy = Proxy::start(&nodes.town_listens(), |number| match number % 5 {
        0 => Fate::CutAfter(1_000),
        1 => Fate::CutAfter(900_000),
        2 => Fate::StallAfter(850_000, Duration::from_millis(1_500)),
        3 => Fate::Refused,
        _ => Fate::CutAfter(30_000),
    });
    nodes.through(&proxy);
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    // Something arrives and more is cut than there are kinds of fate.
    let person = format!("{REALM}/jinfu/person");
    eventually("several cuts", || {
        let held = town.ledger(&person).map_or(0, |(size, ..)| size);
        (proxy.connections() >= 6 && held > 0)
            .then_some(())
            .ok_or(format!(
                "{} connections, {held} entries",
                proxy.connections()
            ))
    });
    proxy.fate(|_| Fate::Whole);
    proxy.cut();
    converged(&community, &town);
    // Size and root are the child's: nothing is missing, nothing is there twice.
    let (ok, report) = verify(&town.dir);
    assert!(ok, "{report}");
    assert_eq!(town.status()["alarms"], json!([]));
    assert_eq!(community.status()["alarms"], json!([]));
}

#[test]
fn a_parent_killed_in_the_middle_goes_on_where_its_last_commit_was() {
    let nodes = Nodes::new(&["person"], 1000);
    let proxy = Proxy::start(&nodes.town_listens(), |_| {
        Fate::Slow(Duration::from_millis(4))
    });
    nodes.through(&proxy);
    let mut town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    let person = format!("{REALM}/jinfu/person");
    let (whole, ..) = community.ledger(&person).unwrap();
    let mut held = 0;
    for _ in 0..3 {
        let more = eventually("more entries", || {
            let now = town.ledger(&person).map_or(0, |(size, ..)| size);
            (now > held)
                .then_some(now)
                .ok_or(format!("{now} of {whole}"))
        });
        let dir = town.kill();
        town = Daemon::start(&dir);
        let kept = town.ledger(&person).map_or(0, |(size, ..)| size);
        assert!(kept >= more, "{more} were acknowledged, {kept} are there");
        held = kept;
        if held == whole {
            break;
        }
    }
    proxy.fate(|_| Fate::Whole);
    proxy.cut();
    converged(&community, &town);
    let (ok, report) = verify(&town.dir);
    assert!(ok, "{report}");
}

// ---- ledgers of others ---------------------------------------------------------------------

/// A node that takes nothing: it only offers.
struct Offering {
    root: [u8; 32],
}

impl Trust for Offering {
    fn realm_root(&self) -> [u8; 32] {
        self.root
    }

    fn is_revoked(&self, _: &[u8; 32]) -> bool {
        false
    }

    fn log(&self, _: &Origin, _: &str) -> Option<ledger::note::Verifier> {
        None
    }

    fn accept(&self, _: &Charter, _: &Origin, _: &str) -> Result<Accept, Refusal> {
        Err(Refusal {
            reason: "nothing is taken here".into(),
            passing: false,
        })
    }
}

/// Dials the town as the node of a directory and offers ledgers; gives what was rejected.
async fn offer(dir: &Path, offers: &[(Origin, String)]) -> Vec<(Origin, RejectCode, String)> {
    let config = NodeConfig::read(dir).unwrap();
    let parent = config.parent.clone().unwrap();
    let seed = *keystore(dir).transport.expose();
    let endpoint = Endpoint::start(TransportKey::from_seed(seed), None, Limits::default())
        .await
        .unwrap();
    let key = registry::config::key_from_hex(&parent.transport).unwrap();
    let conversation = endpoint
        .dial(parent.address.parse().unwrap(), key)
        .await
        .unwrap();
    let (sender, mut receiver) = conversation.split();
    let trust = Offering {
        root: config.root_key().unwrap(),
    };
    let mut session = Session::dial(Config {
        realm: config.realm.clone(),
        chain: config.charters().unwrap(),
        peer_key: key,
    });
    let mut outputs = session.start(clock());
    let mut rejected = vec![];
    while rejected.len() < offers.len() {
        for output in std::mem::take(&mut outputs) {
            match output {
                Output::Send(bytes) => sender.send(bytes.0).await.unwrap(),
                Output::Opened { .. } => {
                    for (origin, note) in offers {
                        for output in session.offer(origin.clone(), note.clone()).unwrap() {
                            let Output::Send(bytes) = output else {
                                continue;
                            };
                            sender.send(bytes.0).await.unwrap();
                        }
                    }
                }
                Output::Rejected {
                    origin,
                    code,
                    reason,
                    ..
                } => rejected.push((origin, code, reason)),
                Output::Load(load) => panic!("the town wants {load:?}"),
                Output::Refused { reason, .. } => panic!("refused: {reason}"),
                _ => {}
            }
        }
        if rejected.len() == offers.len() {
            break;
        }
        let message = tokio::time::timeout(Duration::from_secs(20), receiver.next());
        let message = message.await.expect("an answer").unwrap().unwrap();
        outputs = session.receive(&message, clock(), &trust);
    }
    drop(sender);
    endpoint.close().await;
    rejected
}

#[test]
fn a_valid_node_that_offers_a_ledger_which_is_not_its_own_is_not_heard() {
    let nodes = Nodes::new(&["unit"], 60);
    let liar = nodes.sibling("fucheng");
    let town = nodes.start("shuangfu");
    let community = nodes.start("jinfu");
    converged(&community, &town);
    let held = town.status()["ledgers"].clone();

    // Its own checkpoint format and signature are right; the ledgers are others'.
    let key = keystore(&liar).sign.signing_key();
    let note = |origin: &Origin| {
        let signer = ledger::note::NoteSigner::new(origin.as_str(), key.clone()).unwrap();
        ledger::checkpoint::Checkpoint::new(origin.as_str(), 3, [7; 32])
            .unwrap()
            .sign(&signer)
            .unwrap()
    };
    let grant = origin("jinfu", "person").grant(&record::id::GrantId([9; 16]));
    let others: Vec<(Origin, String)> = [
        origin("jinfu", "unit"),
        origin("jinfu", "person"),
        origin("jinfu", "authority"),
        origin("shuangfu", "authority"),
        origin("shuangfu", "access"),
        origin("jiangjin", "authority"),
        origin("nobody", "person"),
        grant,
        Origin::parse("other.example/fucheng/unit").unwrap(),
    ]
    .into_iter()
    .map(|origin| (origin.clone(), note(&origin)))
    .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let rejected = runtime.block_on(offer(&liar, &others));
    let mut named: Vec<&Origin> = rejected.iter().map(|(origin, ..)| origin).collect();
    named.sort();
    let mut offered: Vec<&Origin> = others.iter().map(|(origin, _)| origin).collect();
    offered.sort();
    assert_eq!(named, offered);
    for (origin, code, reason) in &rejected {
        assert_eq!(*code, RejectCode::NotAccepted, "{origin}: {reason}");
        assert!(reason.contains(" / "), "{reason}");
    }

    // Its own ledger under a head that another key signed is no offer either.
    let own = origin("fucheng", "unit");
    let signer = keystore(&nodes.dir("jinfu")).sign.signing_key();
    let signer = ledger::note::NoteSigner::new(own.as_str(), signer).unwrap();
    let forged = ledger::checkpoint::Checkpoint::new(own.as_str(), 3, [7; 32])
        .unwrap()
        .sign(&signer)
        .unwrap();
    let rejected = runtime.block_on(offer(&liar, &[(own, forged)]));
    assert_eq!(rejected[0].1, RejectCode::Signature);
    town.refusal_logged("not-accepted");
    assert!(town.refusals("not-accepted") >= others.len() as u64);
    assert_eq!(town.refusals("signature"), 1);

    assert_eq!(town.status()["ledgers"], held, "something of it was kept");
}
