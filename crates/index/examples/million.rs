//! What a million records cost: memory of the index, time of building and searching.
//!
//! Run with `cargo run --release -p index --example million`. It owns a measurement
//! on synthetic values, and decides nothing; memory is read from `/proc/self/status`.
#![expect(clippy::print_stdout, reason = "printing the figures is its purpose")]

use std::collections::BTreeMap;
use std::time::Instant;

use index::{Index, Match};
use record::id::RecordId;
use record::schema::{GRID, Position, STATUS, Schema, VALID_FROM};

const RECORDS: u64 = 1_000_000;

fn main() {
    let before = resident_mib();
    let started = Instant::now();
    let mut index = Index::new(&schema());
    for number in 0..RECORDS {
        index.upsert(id(number), 1, number, &values(number));
    }
    println!("built in {:.1?}", started.elapsed());
    println!("index: {:.0} MiB", resident_mib() - before);

    let wanted = values(RECORDS / 2)[&5].clone();
    time("equal", &index, Match::Equals(wanted.clone()));
    time("prefix", &index, Match::Prefix(wanted[..6].to_owned()));
    time("part", &index, Match::Contains(wanted[3..9].to_owned()));

    let started = Instant::now();
    for number in 0..10_000 {
        let mut values = values(number * 97);
        values.insert(STATUS, "60".to_owned());
        values.insert(5, format!("{:012}", number));
        index.upsert(id(number * 97), 2, RECORDS + number, &values);
    }
    println!("10 000 amendments: {:.1?}", started.elapsed());

    let started = Instant::now();
    let pages = index.to_pages();
    let bytes: usize = pages.iter().map(|page| page.len()).sum();
    println!(
        "{} pages, {} MiB, in {:.1?}",
        pages.len(),
        bytes >> 20,
        started.elapsed()
    );
    drop(index);
    let started = Instant::now();
    let restored = Index::from_pages(&schema(), &pages).expect("its own pages");
    println!(
        "{} rows read back in {:.1?}",
        restored.len(),
        started.elapsed()
    );
}

fn time(what: &str, index: &Index, wanted: Match) {
    let started = Instant::now();
    let page = index.find(&[(5, wanted)], &|row| row.status == "10", 20, None);
    let found = page.expect("the field is searchable").found.len();
    println!("{what}: {found} found in {:.1?}", started.elapsed());
}

fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn id(number: u64) -> RecordId {
    let (high, low) = (mix(number).to_be_bytes(), number.to_be_bytes());
    RecordId(std::array::from_fn(|at| {
        if at < 8 { high[at] } else { low[at - 8] }
    }))
}

/// Four columns of 12 bytes, nearly all values different: the worst case for memory.
fn values(number: u64) -> BTreeMap<Position, String> {
    let mut values: BTreeMap<Position, String> = (4..8)
        .map(|at| {
            (
                at,
                format!(
                    "{:012}",
                    mix(number * 4 + u64::from(at)) % 1_000_000_000_000
                ),
            )
        })
        .collect();
    values.insert(STATUS, "10".to_owned());
    values.insert(
        VALID_FROM,
        format!("20{:02}-{:02}-01", number % 26, 1 + number % 12),
    );
    values.insert(GRID, format!("500116001{:03}", number % 300));
    values
}

fn schema() -> Schema {
    let field = |position: u8| {
        let searchable = position > 3;
        format!(
            r#"{{"position": {position}, "id": "f{position}", "name": "f", "english": "f",
                "type": "text", "width": 20, "group": "core", "sensitivity": "P2",
                "purpose": "test", "searchable": {searchable}}}"#
        )
    };
    let fields: Vec<String> = (1..8).map(field).collect();
    let text = format!(
        r#"{{"kind": "person", "version": 1, "name": "人口", "english": "person", "fields": [{}]}}"#,
        fields.join(",")
    );
    serde_json::from_str(&text).expect("the schema above")
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
