//! What a node says of itself to Prometheus, judged twice: by a strict reader of the text format
//! 0.0.4, and by `promtool check metrics`, which nobody here wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::absent;

/// Judges a text, and gives each series' value.
pub fn judged(text: &str) -> BTreeMap<String, f64> {
    promtool(text);
    read(text)
}

fn read(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let mut helped = BTreeSet::new();
    let mut typed: BTreeMap<String, String> = BTreeMap::new();
    let mut series = BTreeMap::new();
    let mut group = String::new();
    let mut closed = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a HELP line has a text");
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "HELP stands twice: {line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a TYPE line has a type");
            assert!(
                ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(helped.contains(name), "TYPE without HELP: {line}");
            assert!(
                typed.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
            continue;
        }
        assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
        let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
        let name = key.split('{').next().unwrap();
        assert!(
            is_name(name) && typed.contains_key(name),
            "no TYPE before: {line}"
        );
        if group != name {
            assert!(
                closed.insert(name.to_owned()),
                "`{name}` does not stand together"
            );
            group = name.to_owned();
        }
        labels(&key[name.len()..]);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(
            series.insert(key.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    series
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `{name="value",…}` or nothing.
fn labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inner = text
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .expect("braces");
    let mut seen = BTreeSet::new();
    for label in inner.split("\",") {
        let (name, value) = label.split_once("=\"").expect("a label has a quoted value");
        assert!(
            is_name(name) && !name.contains(':') && seen.insert(name),
            "{text}"
        );
        let value = value.trim_end_matches('"');
        assert!(!value.contains(['"', '\\', '\n']), "{text}");
    }
}

fn promtool(text: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let why = format!("`promtool` cannot be started: {error}");
            return absent("metrics by promtool", "FANGZHI_WITHOUT_PROMTOOL", &why);
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
