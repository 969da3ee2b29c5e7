//! `fangzhi bench` runs to its end and prints lines that a script can read. How fast it is, no
//! test says.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

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
