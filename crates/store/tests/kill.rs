//! A process that commits is killed at random moments; what it acknowledged is always there.
//!
//! `FANGZHI_SOAK_ROUNDS` sets how often; `make soak` does it thousands of times.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use store::embedded::{Embedded, Options};
use store::{Batch, Key, Snapshot, Store};

const DIR: &str = "STORE_KILL_DIR";
const ROUNDS: u32 = 20;
const FRESH: u32 = 100;
const WRITES: u64 = 5;

fn key(n: u64, write: u64) -> Key {
    let rest = [n.to_be_bytes(), write.to_be_bytes()].concat();
    Key::new("s", "t", &rest).unwrap()
}

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 100 << 10,
        ..Options::default()
    }
}

/// Does nothing unless the test below starts it with a folder: then it commits until it dies.
#[test]
fn a_child_commits_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = Embedded::open(Path::new(&dir), options()).unwrap();
    let mut head = store.head("s").unwrap();
    let mut out = std::io::stdout();
    loop {
        let mut batch = Batch::new("s", Some(head));
        for write in 0..WRITES {
            batch.put_body(key(head, write), vec![head as u8; 300]);
        }
        if head >= 10 {
            batch.delete(key(head - 10, 0));
        }
        head = store.commit(&batch).unwrap();
        writeln!(out, "\nacked {head}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn whatever_was_acknowledged_survives_being_killed_and_nothing_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = seed;
    let (mut acked, mut all) = (0, 0);
    let asked = std::env::var("FANGZHI_SOAK_ROUNDS").ok();
    let rounds: u32 = asked.map_or(ROUNDS, |text| text.parse().unwrap());
    for round in 0..rounds {
        // An xorshift is random enough for a delay.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_child_commits_until_it_is_killed",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let acked = lines.map_while(Result::ok);
            acked
                .filter_map(|line| line.strip_prefix("acked ")?.parse::<u64>().ok())
                .last()
        });
        std::thread::sleep(Duration::from_millis(20 + random % 150));
        child.kill().unwrap();
        child.wait().unwrap();
        acked = reader.join().unwrap().unwrap_or(acked).max(acked);
        check(dir.path(), acked, round);
        // A fresh store now and then, for the check reads all of it.
        if round % FRESH == FRESH - 1 {
            all += std::mem::take(&mut acked);
            fs::remove_dir_all(dir.path()).unwrap();
            fs::create_dir(dir.path()).unwrap();
        }
    }
    let acked = acked + all;
    println!("{rounds} kills, {acked} commits acknowledged");
    assert!(acked > 0, "the child never came to commit");
}

fn check(dir: &Path, acked: u64, round: u32) {
    let store = Embedded::open(dir, options()).unwrap();
    let head = store.head("s").unwrap();
    assert!(head >= acked, "round {round}: {acked} acked, {head} there");
    let rows = store.scan("s", "t", b"", usize::MAX).unwrap();
    // Every batch up to the head is there with all its writes, and nothing beyond.
    let expected = (0..head).flat_map(|n| (0..WRITES).map(move |write| (n, write)));
    let expected = expected.filter(|&(n, write)| write != 0 || n + 11 > head);
    let found = rows.iter().map(|(rest, value)| {
        let n = u64::from_be_bytes(rest[..8].try_into().unwrap());
        assert_eq!(*value, vec![n as u8; 300]);
        (n, u64::from_be_bytes(rest[8..].try_into().unwrap()))
    });
    assert!(found.eq(expected), "round {round}");
    drop(store);
    assert_eq!(Snapshot::open(dir).unwrap().findings(), [], "round {round}");
}
