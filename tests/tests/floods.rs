//! Too much at once: imports of tens of megabytes, and logins by the dozen, against a node that runs
//! as a process. What nobody may send is not read, and nobody's failures keep another one out.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use record::authority::Role;
use registry::register::PREVIEW_ROWS;
use serde_json::{Value, json};
use tests::realm::daemon::{Daemon, eventually};
use tests::realm::{PASSPHRASE, REALM, Site, clock};

const MIB: u64 = 1 << 20;

/// A node with a security officer, a clerk and an auditor.
fn node(base: &std::path::Path) -> Daemon {
    let now = clock();
    let site = Site::root(base, REALM, "jinfu", now);
    site.operator(Role::Clerk, None, now);
    site.operator(Role::Auditor, None, now);
    Daemon::start(&site.close())
}

fn login(node: &Daemon, token: Option<&str>, name: &str, passphrase: &str) -> (u16, Value) {
    let login = json!({ "login": name, "passphrase": passphrase });
    node.send(token, "/api/v1/sessions", &login)
}

fn token(node: &Daemon, name: &str) -> String {
    let (status, session) = login(node, None, name, PASSPHRASE);
    assert_eq!(status, 200, "{session}");
    session["token"].as_str().unwrap().to_owned()
}

/// A connection on which a request was begun: its head, and no more than is given of its body.
fn begun(node: &Daemon, path: &str, token: Option<&str>, length: usize, body: &str) -> TcpStream {
    let address = node.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let bearer = token.map_or(String::new(), |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{bearer}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn an_import_of_who_may_register_nothing_is_refused_before_its_body_is_read() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path());
    for (role, expected) in [("auditor", "403"), ("nobody", "401")] {
        let token = match role {
            "nobody" => "no token".to_owned(),
            role => token(&node, role),
        };
        let length = 60 * MIB as usize;
        let mut stream = begun(&node, "/api/v1/import", Some(&token), length, "");
        // Less than the node waits for a body.
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]).unwrap(), expected);
    }
    // Whoever sends all of it before reading is told the same, by one refusal and no broken line.
    let auditor = token(&node, "auditor");
    let rows = vec![json!({ "name": "示例".repeat(64) }); 20_000];
    let import =
        json!({ "kind": "person", "source": "ab".repeat(32), "numbers": [], "rows": rows });
    let (status, said) = node.send(Some(&auditor), "/api/v1/import", &import);
    assert_eq!(status, 403, "{said}");
    node.stop();
}

#[test]
fn a_preview_of_many_megabytes_takes_little_more_memory_than_its_bytes() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path());
    let clerk = token(&node, "clerk");
    let catalogue = record::schema::Catalogue::builtin();
    let kind = tests::realm::kind("person");
    let fields = &catalogue.schema(&kind).unwrap().fields;
    // Every field, each without a value: what stands between the texts is what takes memory.
    let row: Vec<String> = fields
        .iter()
        .map(|f| format!("\"{}\":\"\"", f.id))
        .collect();
    let row = format!("{{{}}}", row.join(","));
    let rows = vec![row.as_str(); PREVIEW_ROWS].join(",");
    let numbers: Vec<String> = (1..=PREVIEW_ROWS).map(|n| n.to_string()).collect();
    let body = format!(
        "{{\"kind\":\"person\",\"source\":\"{}\",\"numbers\":[{}],\"dry_run\":true,\"rows\":[{rows}]}}",
        "ab".repeat(32),
        numbers.join(",")
    );
    let bytes = body.len() as u64;
    // As maps of texts these rows take some ten times that.
    assert!(bytes > 10 * MIB, "{bytes}");
    let before = node.peak();
    let stream = begun(&node, "/api/v1/import", Some(&clerk), body.len(), &body);
    stream
        .set_read_timeout(Some(Duration::from_secs(300)))
        .unwrap();
    let mut answer = [0; 12];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer[9..], b"200");
    let more = node.peak() - before;
    assert!(
        more < bytes + 40 * MIB,
        "{} MiB for {} MiB",
        more / MIB,
        bytes / MIB
    );
    node.stop();
}

#[test]
fn failed_logins_slow_down_one_name_and_nobody_who_is_known() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path());
    let before = token(&node, "anquan");
    let mut refused = 0;
    for _ in 0..8 {
        let (status, said) = login(&node, None, "anquan", "not the passphrase");
        assert!([401, 429].contains(&status), "{status} {said}");
        if status == 429 {
            assert_eq!(said["code"], "busy");
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert!(node.refusals("login") >= refused);
    // A stranger waits, also with the right passphrase; whoever brings a token of before does not.
    let session = json!({ "login": "anquan", "passphrase": PASSPHRASE });
    let body = session.to_string();
    let mut stream = begun(&node, "/api/v1/sessions", None, body.len(), &body);
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let (status, _) = login(&node, Some(&before), "anquan", PASSPHRASE);
    assert_eq!((&head[9..], status), (b"429".as_slice(), 200));
    // Nor does a command on this machine, nor anybody else.
    let listed = tests::Site::at(&node.dir).run(["operator", "list", "--as", "anquan", "--json"]);
    assert_eq!(listed.code, 0, "{}", listed.printed());
    token(&node, "clerk");
    // The token of one login is none of another.
    for _ in 0..8 {
        login(&node, None, "auditor", "not the passphrase");
    }
    let (status, _) = login(&node, Some(&before), "auditor", PASSPHRASE);
    assert_eq!(status, 429);
    node.stop();
}

#[test]
fn logins_that_are_given_up_are_still_worked_out_few_at_a_time() {
    let base = tempfile::tempdir().unwrap();
    let node = node(base.path());
    token(&node, "clerk");
    let before = node.peak();
    for n in 0..40 {
        let login = json!({ "login": format!("name-{n}"), "passphrase": "not the passphrase" });
        let body = login.to_string();
        let stream = begun(&node, "/api/v1/sessions", None, body.len(), &body);
        // Until the node has read it; then whoever asked goes away.
        let address = node.url.trim_start_matches("http://");
        let mut other = TcpStream::connect(address).unwrap();
        write!(
            other,
            "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut health = String::new();
        other.read_to_string(&mut health).unwrap();
        assert!(health.contains("\"ok\""));
        drop(stream);
    }
    eventually("a login in between", || {
        let (status, said) = login(&node, None, "anquan", PASSPHRASE);
        (status == 200).then_some(()).ok_or(said.to_string())
    });
    let more = node.peak() - before;
    assert!(more < 5 * 64 * MIB, "{} MiB", more / MIB);
    node.stop();
}
