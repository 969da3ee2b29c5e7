//! What a killed node leaves behind misleads nobody: another process that takes its port gets no
//! passphrase, and the command does its work on the directory.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use tests::site::{PASSPHRASE, Site, read_json};
use tests::until;

#[test]
fn a_process_on_the_port_of_a_killed_node_is_given_no_passphrase() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    site.start().kill_9();
    let run = read_json(&site.dir.join("run.json")).expect("a killed node leaves `run.json`");

    let address = run["url"].as_str().unwrap().replace("http://", "");
    let mut listener = None;
    until("the port is free", || {
        listener = TcpListener::bind(&address).ok();
        listener.is_some()
    });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (listener, hears) = (listener.unwrap(), heard.clone());
    let pid = run["pid"].clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 16 * 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            // It knows all that anybody may know: the process id, and what it is asked.
            let asked = request.split(['=', ' ']).nth(2).unwrap_or_default();
            let body = format!(r#"{{"status":"ok","pid":{pid},"answer":"{asked}","token":"t"}}"#);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            hears.lock().unwrap().push(request);
        }
    });

    site.enrol("wangge", "grid-worker", Some("999999001001001"));

    let heard = heard.lock().unwrap().join("\n");
    assert!(heard.contains("GET /healthz?challenge="), "{heard}");
    assert!(
        !heard.contains("POST") && !heard.contains(PASSPHRASE),
        "{heard}"
    );
}
