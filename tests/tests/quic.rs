//! Replication over QUIC between processes: what it carries, whom it refuses, what it costs, and
//! that a line without UDP is no line lost.
//!
//! Bad lines between network namespaces are in `network.rs`, over both transports.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use p2p::{Address, Conversation, DialError, Endpoint, Limits, TransportKey};
use record::authority::{Level, Role};
use registry::addresses::{Addresses, Transport};
use registry::config::{NodeConfig, key_from_hex};
use serde_json::{Value, json};
use sync::Message;
use sync::message::{Hello, Want};
use tests::realm::daemon::{Daemon, converged, edit_config, eventually, fangzhi, verify, words};
use tests::realm::forge::keystore;
use tests::realm::{REALM, Row, Site, clock, origin, rows};
use tests::site::records_in;
use tests::{Dice, Trio, until};

/// What strangers and floods may make a parent take.
const MEMORY_MAX: u64 = 96 << 20;

/// A district that listens over both, and a community under it that dials QUIC first.
struct Nodes {
    base: tempfile::TempDir,
}

impl Nodes {
    fn new(persons: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let (at, now) = (base.path(), clock());
        let district = Site::root(at, REALM, "jiangjin", now);
        let community = Site::join(&district, at, "jinfu", Level::Community, now);
        let clerk = community.operator(Role::Clerk, None, now);
        community.import(&clerk, "person", &rows("person", 1, persons, 1), now);
        Site::join(&district, at, "fucheng", Level::Community, now).close();
        community.close();
        district.close();
        edit_config(&base.path().join("jiangjin"), |config| {
            config.listen = "127.0.0.1:0,/ip4/127.0.0.1/udp/0/quic-v1".into();
        });
        Self { base }
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.base.path().join(node)
    }

    /// The parent, with the addresses at which it is reached.
    fn parent(&self) -> (Daemon, Addresses) {
        let parent = Daemon::start(&self.dir("jiangjin"));
        let run = std::fs::read(parent.dir.join("run.json")).unwrap();
        let run: Value = serde_json::from_slice(&run).unwrap();
        let listens = run["listen"].as_str().unwrap().parse().unwrap();
        (parent, listens)
    }

    fn child(&self, parent: &Addresses) -> Daemon {
        let address = parent.to_string();
        edit_config(&self.dir("jinfu"), |config| {
            config.parent.as_mut().unwrap().address = address;
        });
        Daemon::start(&self.dir("jinfu"))
    }
}

/// What a node says of a neighbour in `sync status`.
fn neighbour(node: &Daemon, peer: &str) -> Value {
    let status = node.get("/api/v1/sync");
    let mut peers = status["peers"].as_array().unwrap().iter();
    peers
        .find(|line| line["peer"] == peer)
        .cloned()
        .unwrap_or_default()
}

fn metric(node: &Daemon, line: &str) -> bool {
    let mut answer = ureq::get(format!("{}/metrics", node.url)).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    text.lines().any(|found| found == line)
}

fn told(node: &Daemon) -> String {
    words(&fangzhi([
        "sync",
        "status",
        "--dir",
        node.dir.to_str().unwrap(),
    ]))
}

fn register(node: &Daemon, file: &str, rows: &[Row]) {
    let source = format!("{file:0>64}");
    let numbers: Vec<usize> = (1..=rows.len()).collect();
    let chunk = json!({ "kind": "person", "source": source, "numbers": numbers, "rows": rows });
    let (status, report) = node.post("clerk", "/api/v1/import", &chunk);
    assert_eq!((status, &report["rejected"]), (200, &json!(0)), "{report}");
}

/// The child is served, whatever others do, over the transport that it had.
fn served(child: &Daemon, parent: &Daemon, seed: u64) {
    register(
        child,
        &seed.to_string(),
        &rows("person", seed, 20, seed as u16 + 1),
    );
    converged(child, parent);
    assert_eq!(neighbour(child, "jiangjin")["transport"], "quic");
}

#[test]
fn a_backlog_goes_up_over_quic_in_bounded_memory_and_both_sides_say_over_what() {
    let nodes = Nodes::new(2_000);
    let (parent, listens) = nodes.parent();
    let before = parent.resident();
    let child = nodes.child(&listens.preferring(Transport::Quic));
    converged(&child, &parent);
    let grown = parent.resident().saturating_sub(before);
    println!("a backlog of 2,000 over QUIC: {grown} bytes more at the parent");
    assert!(grown < 2 * MEMORY_MAX, "{grown} bytes more");
    for (node, peer) in [(&child, "jiangjin"), (&parent, "jinfu")] {
        let line = neighbour(node, peer);
        assert_eq!(line["transport"], "quic", "{line}");
        assert_eq!(line["fell_back"], Value::Null, "{line}");
        let connected = format!("fangzhi_sync_connected{{peer=\"{peer}\",transport=\"quic\"}} 1");
        assert!(metric(node, &connected), "{connected}");
        assert!(told(node).contains("connected（QUIC）"), "{}", told(node));
    }
    served(&child, &parent, 3);
    for node in [child, parent] {
        assert_eq!(node.status()["alarms"], json!([]));
        let (ok, report) = verify(&node.stop());
        assert!(ok, "{report}");
    }
}

#[test]
fn a_parent_that_was_stopped_and_started_again_is_reached_again_at_once() {
    let took = started_again(Daemon::stop);
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[test]
#[ignore = "a parent that crashed is noticed after 75 seconds: make soak"]
fn a_parent_that_was_killed_and_started_again_is_reached_again() {
    let took = started_again(Daemon::kill);
    println!("reached again after {took:?}");
}

fn started_again(end: fn(Daemon) -> PathBuf) -> Duration {
    let nodes = Nodes::new(60);
    let (parent, listens) = nodes.parent();
    let address = listens.to_string();
    let child = nodes.child(&listens.preferring(Transport::Quic));
    converged(&child, &parent);
    let dir = end(parent);
    let began = Instant::now();
    edit_config(&dir, |config| config.listen = address);
    let parent = Daemon::start(&dir);
    register(&child, "4", &rows("person", 4, 20, 4));
    converged(&child, &parent);
    let line = neighbour(&child, "jiangjin");
    // It may have met TCP first, when that was there a moment earlier; it says so then.
    let over_tcp = line["transport"] == "tcp" && line["fell_back"].is_string();
    assert!(line["transport"] == "quic" || over_tcp, "{line}");
    began.elapsed()
}

#[test]
fn a_grant_made_at_one_child_reaches_another_with_every_line_over_quic() {
    let base = tempfile::tempdir().unwrap();
    let root = tests::Site::root(base.path(), "jiangjin", "district");
    edit_config(&root.dir, |config| {
        config.listen.push_str(",/ip4/127.0.0.1/udp/0/quic-v1");
    });
    let district = root.start();
    assert!(district.listen.contains("/quic-v1"), "{}", district.listen);
    let join = |division: &str, level: &str| {
        let site = tests::Site::join(base.path(), &district, division, level);
        // The invitation named both; the operator prefers one.
        let said = site.json(["network", "--transport", "quic"]);
        assert!(
            said["parent"]
                .as_str()
                .unwrap()
                .starts_with("/ip4/127.0.0.1/udp/")
        );
        site
    };
    let community = join("jinfu", "community");
    community.enrol("dengji", "clerk", None);
    let department = join("minzheng", "department");
    department.enrol("jingban", "department-officer", None);
    let trio = Trio {
        community: community.start(),
        department: department.start(),
        district,
    };
    let persons = tests::rows::community(5, 40);
    let file = tests::rows::write(&persons.persons, &base.path().join("persons.csv"));
    trio.community
        .site
        .json(["import", "person", file.to_str().unwrap(), "--as", "dengji"]);
    trio.converge();
    trio.grant("name,sex", &[]);
    until("all of the subset", || {
        let granted = records_in(&trio.department.http.status(), "person");
        granted == records_in(&trio.community.http.status(), "person")
    });
    for node in [&trio.community, &trio.department] {
        let status = node.site.json(["sync", "status"]);
        assert_eq!(status["peers"][0]["transport"], "quic", "{status}");
    }
    for node in [trio.department, trio.community, trio.district] {
        let site = node.site.clone();
        node.stop();
        site.verified();
    }
}

// ---- a line without UDP --------------------------------------------------------------------

#[test]
fn where_udp_does_not_pass_the_child_goes_over_tcp_and_says_so() {
    let nodes = Nodes::new(60);
    let (parent, listens) = nodes.parent();
    // A firewall: what is sent there is heard by nobody.
    let wall = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut blocked = format!(
        "/ip4/127.0.0.1/udp/{}/quic-v1,",
        wall.local_addr().unwrap().port()
    );
    blocked.push_str(&listens.all()[0].to_string());
    let child = nodes.child(&blocked.parse().unwrap());
    converged(&child, &parent);
    let line = neighbour(&child, "jiangjin");
    assert_eq!(line["transport"], "tcp", "{line}");
    let why = line["fell_back"].as_str().unwrap();
    assert!(
        why.contains("/quic-v1") && why.contains("firewall"),
        "{why}"
    );
    assert!(told(&child).contains("改用 TCP"), "{}", told(&child));
    assert!(metric(
        &child,
        "fangzhi_sync_fell_back{peer=\"jiangjin\"} 1"
    ));
    assert!(metric(
        &child,
        "fangzhi_sync_connected{peer=\"jiangjin\",transport=\"tcp\"} 1"
    ));
    assert_eq!(neighbour(&parent, "jinfu")["transport"], "tcp");
    // The next session does not wait for the wall again.
    let began = Instant::now();
    let address = listens.to_string();
    let dir = parent.stop();
    edit_config(&dir, |config| config.listen = address);
    let parent = Daemon::start(&dir);
    register(&child, "5", &rows("person", 5, 20, 5));
    converged(&child, &parent);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(neighbour(&child, "jiangjin")["transport"], "tcp");
}

#[test]
fn addresses_that_cannot_be_or_lack_tcp_are_refused_before_anything_is_written() {
    let nodes = Nodes::new(1);
    let dir = nodes.dir("jinfu");
    let before = std::fs::read(dir.join("node.json")).unwrap();
    let said = |args: &[&str]| {
        let output = fangzhi([args, &["--dir", dir.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", words(&output));
        assert_eq!(std::fs::read(dir.join("node.json")).unwrap(), before);
        words(&output)
    };
    let quic = "/ip4/127.0.0.1/udp/7/quic-v1";
    assert!(said(&["network", "--listen", quic]).contains("over TCP"));
    assert!(said(&["network", "--parent", "town.example:1"]).contains("is no address"));
    assert!(said(&["network", "--transport", "quic"]).contains("--parent"));
}

// ---- strangers and floods ------------------------------------------------------------------

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Where the parent is reached over QUIC.
fn quic(listens: &Addresses) -> Address {
    let mut all = listens.all().iter();
    Address::quic(all.find(|a| a.transport == Transport::Quic).unwrap().socket)
}

/// Dials the parent of a node's directory over QUIC with a stranger's key.
async fn stranger(dir: &Path, at: Address, number: u64) -> (Endpoint, Conversation) {
    let parent = NodeConfig::read(dir).unwrap().parent.unwrap();
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let endpoint = Endpoint::start(TransportKey::from_seed(seed), None, Limits::default());
    let endpoint = endpoint.await.unwrap();
    let key = key_from_hex(&parent.transport).unwrap();
    let conversation = endpoint.dial(at, key).await;
    (endpoint, conversation.unwrap())
}

fn hello(dir: &Path) -> Vec<u8> {
    let config = NodeConfig::read(dir).unwrap();
    Message::Hello(Hello {
        realm: config.realm.clone(),
        chain: config.charters().unwrap(),
        now: clock(),
        successions: Default::default(),
    })
    .encode()
}

#[test]
fn strangers_and_garbage_over_quic_are_refused_with_a_reason_that_is_counted() {
    let nodes = Nodes::new(60);
    let (parent, listens) = nodes.parent();
    let at = quic(&listens);
    let child = nodes.child(&listens.preferring(Transport::Quic));
    converged(&child, &parent);
    let liar = nodes.dir("fucheng");
    let before = parent.resident();
    runtime().block_on(async {
        let want = Message::Want(Want {
            origin: origin("jinfu", "person"),
            from: 0,
            head_size: 9,
            known_size: None,
        });
        // Garbage, out of turn, another's charter under a key that is not its.
        let messages = [vec![0xff; 900], want.encode(), hello(&nodes.dir("jinfu"))];
        for (number, message) in messages.iter().enumerate() {
            let (endpoint, conversation) = stranger(&liar, at, number as u64).await;
            let (sender, mut receiver) = conversation.split();
            sender.send(message.clone()).await.unwrap();
            let answer = receiver.next().await.unwrap().unwrap();
            assert!(matches!(Message::decode(&answer), Ok(Message::Refused(_))));
            endpoint.close().await;
        }
        // And many who say nothing.
        let mut silent = vec![];
        for number in 100..140 {
            silent.push(stranger(&liar, at, number).await);
        }
        served(&child, &parent, 7);
        // A node that is dialled under another key than it proves is not talked to.
        let seed = *keystore(&liar).transport.expose();
        let honest = Endpoint::start(TransportKey::from_seed(seed), None, Limits::default());
        let honest = honest.await.unwrap();
        let other = TransportKey::from_seed([77; 32]).public();
        let refused = honest.dial(at, other).await.unwrap_err();
        assert!(matches!(refused, DialError::WrongKey { .. }), "{refused}");
        honest.close().await;
    });
    assert!(parent.refusals("malformed") >= 2);
    assert!(parent.refusals("wrong-key") >= 1);
    let grown = parent.resident().saturating_sub(before);
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
}

#[test]
fn a_node_whose_charter_is_revoked_is_cut_over_quic_too() {
    let nodes = Nodes::new(60);
    let (parent, listens) = nodes.parent();
    let child = nodes.child(&listens.preferring(Transport::Quic));
    converged(&child, &parent);
    let body = json!({ "division": "jinfu", "reason": "lost-key" });
    let (status, said) = parent.post("anquan", "/api/v1/revocations", &body);
    assert_eq!(status, 204, "{said}");
    eventually("the end of the session", || {
        let line = neighbour(&child, "jiangjin");
        match line["connected"] == json!(false) && line["last_error"].is_string() {
            true => Ok(()),
            false => Err(line.to_string()),
        }
    });
    assert!(parent.refusals("revoked") >= 1);
}

/// First packets of handshakes that nobody goes on with.
async fn openings(count: u64, key: [u8; 32]) -> Vec<Vec<u8>> {
    let deaf = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = Address::quic(deaf.local_addr().unwrap());
    let limits = Limits {
        connect_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut dialled = tokio::task::JoinSet::new();
    for number in 0..count {
        let limits = limits.clone();
        dialled.spawn(async move {
            let mut seed = [5; 32];
            seed[..8].copy_from_slice(&number.to_be_bytes());
            let endpoint = Endpoint::start(TransportKey::from_seed(seed), None, limits).await;
            endpoint.unwrap().dial(at, key).await.map(|_| ())
        });
    }
    let mut packets = Vec::new();
    let mut bytes = [0; 2048];
    loop {
        let heard = deaf.recv_from(&mut bytes);
        match tokio::time::timeout(Duration::from_secs(1), heard).await {
            Ok(heard) => packets.push(bytes[..heard.unwrap().0].to_vec()),
            Err(_) => return packets,
        }
    }
}

#[test]
fn a_flood_of_datagrams_costs_no_memory_and_the_child_is_served_meanwhile() {
    let nodes = Nodes::new(60);
    let (parent, listens) = nodes.parent();
    let at = quic(&listens).socket;
    let child = nodes.child(&listens.preferring(Transport::Quic));
    converged(&child, &parent);
    let parents = NodeConfig::read(&nodes.dir("jinfu"))
        .unwrap()
        .parent
        .unwrap();
    let key = key_from_hex(&parents.transport).unwrap();
    let openings = runtime().block_on(openings(120, key));
    assert!(openings.len() >= 120, "{}", openings.len());
    let before = parent.resident();
    let mut dice = Dice::new("garbage datagrams");
    let began = Instant::now();
    let (mut sent, mut most, mut round) = (0u64, before, 0);
    while began.elapsed() < Duration::from_secs(8) {
        // Another sender each time, as if from many places.
        let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
        for opening in &openings {
            let mut garbage: Vec<u8> = (0..1200).map(|_| dice.below(256) as u8).collect();
            let _ = flood.send_to(&garbage, at);
            // One that looks like the beginning of a handshake, and is none.
            garbage[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            let _ = flood.send_to(&garbage, at);
            let _ = flood.send_to(opening, at);
            let cut = &opening[..1 + dice.below(opening.len() as u64) as usize];
            let _ = flood.send_to(cut, at);
            sent += 4;
        }
        most = most.max(parent.resident());
        if round % 20 == 0 {
            served(&child, &parent, 20 + round);
        }
        round += 1;
    }
    let grown = most.saturating_sub(before);
    println!("{sent} datagrams; at most {grown} bytes more");
    assert!(
        grown < MEMORY_MAX,
        "{grown} bytes more after {sent} datagrams"
    );
    assert!(
        parent.refusals("limit") >= 1,
        "handshakes over the limit are counted"
    );
    served(&child, &parent, 9_000);
}
