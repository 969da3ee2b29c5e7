//! HTTP from outside: health, metrics, and what is refused.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::json;
use tests::site::{read_json, size_in};
use tests::{Running, Site, prometheus, rows};

fn small_node(base: &Path) -> Running {
    let site = Site::alone(base);
    let file = rows::write(&rows::community(1, 20).persons, &base.join("person.csv"));
    site.json(["import", "person", file.to_str().unwrap()]);
    site.start()
}

#[test]
fn health_and_metrics_are_what_prometheus_reads() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let health = node.http.get("/healthz", None).expect_status(200);
    assert_eq!(health.json()["status"], "ok");
    let token = node.http.login("dengji");
    let request = json!({ "kind": "person", "purpose": "service", "limit": 7 });
    node.http
        .post("/api/v1/read", Some(&token), &request)
        .expect_status(200);
    let metrics = node.http.get("/metrics", None).expect_status(200);
    assert!(
        metrics
            .content_type
            .starts_with("text/plain; version=0.0.4")
    );
    let values = prometheus::judged(&metrics.text());
    assert_eq!(values["fangzhi_records_read_total"], 7.0);
    assert_eq!(values["fangzhi_answers_total"], 1.0);
    let entries = r#"fangzhi_ledger_entries{origin="journey.example/jinfu/person"}"#;
    assert_eq!(values[entries], 21.0);
}

#[test]
fn http_refuses_what_it_must_and_says_so_in_json() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let http = &node.http;
    let read = json!({ "kind": "person", "purpose": "service" });
    let import = json!({ "kind": "person", "source": "", "numbers": [], "rows": [] });
    let before = size_in(&node.site.json(["verify"]), "access");
    for token in [None, Some(""), Some("wrong"), Some("../../etc/passwd")] {
        for (path, body) in [
            ("/api/v1/read", &read),
            ("/api/v1/import", &import),
            ("/api/v1/amendments", &json!({})),
            ("/api/v1/operators", &json!({})),
            ("/api/v1/grants", &json!({})),
            ("/api/v1/invitations", &json!({})),
            ("/api/v1/revocations", &json!({})),
        ] {
            let answer = http.post(path, token, body).expect_status(401);
            assert_eq!(answer.json()["code"], "no-session", "{path}");
        }
        assert_eq!(http.get("/api/v1/operators", token).status, 401);
    }
    let wrong = json!({ "login": "dengji", "passphrase": "not the right one" });
    assert_eq!(
        http.post("/api/v1/sessions", None, &wrong)
            .expect_status(401)
            .json()["code"],
        "bad-login"
    );
    let nobody = json!({ "login": "nobody", "passphrase": "not the right one" });
    let unknown = http
        .post("/api/v1/sessions", None, &nobody)
        .expect_status(401);
    assert_eq!(
        unknown.json()["code"],
        "bad-login",
        "an unknown name is no different"
    );

    for path in [
        "/api/v1/nothing",
        "/api",
        "/api/v1/../../etc/passwd",
        "/%00",
    ] {
        let answer = http.get(path, None).expect_status(404);
        assert_eq!(answer.json()["code"], "not-found", "{path}");
    }

    let token = http.login("dengji");
    for body in [
        &b"{"[..],
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        br#"{"kind":7,"purpose":"service"}"#,
        br#"{"kind":"No Kind","purpose":"service"}"#,
    ] {
        let answer = http.try_post("/api/v1/read", Some(&token), body).unwrap();
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert!(answer.json()["message"].is_string());
    }
    // Only the routes' own methods.
    assert!((400..500).contains(&http.get("/api/v1/read", Some(&token)).status));
    assert_eq!(
        size_in(&node.site.json(["verify"]), "access"),
        before,
        "nothing was read"
    );
}

#[test]
fn an_oversized_body_is_refused_and_the_node_goes_on() {
    let base = tempfile::tempdir().unwrap();
    let node = small_node(base.path());
    let token = node.http.login("dengji");
    let megabyte = vec![b' '; 1 << 20];
    // A login may be small only, because anybody may send one.
    for (path, token, megabytes) in [
        ("/api/v1/sessions", "none", 1),
        ("/api/v1/read", token.as_str(), 65),
        ("/api/v1/import", token.as_str(), 65),
    ] {
        let mut stream =
            TcpStream::connect(node.http.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(tests::PATIENCE)).unwrap();
        let length = megabytes << 20;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The node may hang up before all is sent.
        let sent = (0..megabytes).all(|_| stream.write_all(&megabyte).is_ok());
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer) {
            Ok(()) => assert_eq!(&answer, b"HTTP/1.1 413", "{path}"),
            Err(error) => assert!(!sent, "{path}: {error}"),
        }
    }
    assert_eq!(
        node.http.get("/healthz", None).status,
        200,
        "the node still answers"
    );
}

#[test]
fn a_command_does_not_take_another_node_for_the_one_in_its_directory() {
    let base = tempfile::tempdir().unwrap();
    let killed = Site::root(base.path(), "fucheng", "community");
    let node = killed.start();
    let run = read_json(&killed.dir.join("run.json")).unwrap();
    node.kill_9();
    let other = small_node(base.path());
    // What the killed node left behind leads to the node that has its port since.
    let mut stale = run.clone();
    stale["url"] = json!(other.http.url);
    std::fs::write(killed.dir.join("run.json"), stale.to_string()).unwrap();
    assert_eq!(killed.json(["status"])["division"], "fucheng");
    assert_eq!(other.site.json(["status"])["division"], "jinfu");
}
