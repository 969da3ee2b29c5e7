//! `fangzhi bench` runs to its end and prints lines that a script can read. How fast it is, no
//! test says.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

#[test]
fn replication_is_measured_by_its_goals_and_postgresql_beside_it_or_said_to_be_absent() {
    let output = Command::new(env!("CARGO_BIN_EXE_fangzhi"))
        .args(["bench", "replicate", "--records", "100"])
        .args(["--children", "2", "--seconds", "6"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| -> Option<f64> {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    };
    for name in [
        "replicate",
        "replicate.parent.peak",
        "replicate.wire.of_values",
        "replicate.edit.three_hops.p99",
        "replicate.children.seen.p99",
    ] {
        assert!(value(name).is_some_and(|value| value > 0.0), "`{name}`");
    }
    assert_eq!(value("replicate.children.count"), Some(2.0));
    assert_eq!(value("replicate.children.edits.behind"), Some(0.0));
    let streams = value("replicate.postgresql.streaming").is_some_and(|rate| rate > 0.0);
    assert!(streams || value("replicate.postgresql.absent") == Some(1.0));
}

#[test]
fn every_line_of_a_measurement_has_a_name_a_value_and_a_unit() {
    let output = Command::new(env!("CARGO_BIN_EXE_fangzhi"))
        .args(["bench", "--records", "500"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, value, unit] = words.as_slice() else {
            panic!("`{line}` is not `name value unit`");
        };
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value > 0.0, "`{line}`");
        assert!(!unit.is_empty(), "`{line}`");
        names.push((*name).to_owned());
    }
    for name in [
        "cores",
        "records",
        "import.in_process",
        "import.http.ratio.fsync",
        "replication.limit.tcp",
        "read.1.p99",
        "read.4.rate",
        "verify.volume.ratio.sha256",
    ] {
        assert!(names.iter().any(|n| n == name), "`{name}` is missing");
    }
}
