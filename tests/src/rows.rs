//! Rows of made-up communities, as files and as chunks of an import.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sample::{Community, Place, Table};
use serde_json::{Value, json};

/// A made-up community, the same for the same seed.
pub fn community(seed: u64, persons: usize) -> Community {
    sample::community(seed, persons, &Place::numbered(1))
}

/// Writes a table as a CSV file.
pub fn write(table: &Table, path: &Path) -> PathBuf {
    std::fs::write(path, table.csv()).unwrap();
    path.to_owned()
}

/// The rows of a table as maps from field id to text; fields without a value are left out.
pub fn maps(table: &Table) -> Vec<BTreeMap<String, String>> {
    let row = |row: &Vec<String>| {
        std::iter::zip(&table.headers, row)
            .filter(|(_, text)| !text.is_empty())
            .map(|(id, text)| ((*id).to_owned(), text.clone()))
            .collect()
    };
    table.rows.iter().map(row).collect()
}

/// A chunk of an import over HTTP: some rows of a table, numbered as in their file.
pub fn chunk(kind: &str, table: &Table, range: std::ops::Range<usize>) -> Value {
    let numbers: Vec<u64> = range.clone().map(|at| at as u64 + 1).collect();
    json!({
        "kind": kind,
        "source": "5f".repeat(32),
        "numbers": numbers,
        "rows": maps(table)[range],
        "dry_run": false,
    })
}
