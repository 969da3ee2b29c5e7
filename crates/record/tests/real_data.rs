//! Real public registers against the schemas: what offices hold must come in, or be refused
//! for a reason that is right.
//!
//! The data is not part of the project. `FANGZHI_SHARED` names the folder that has it;
//! without it these tests say that they were skipped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use record::draft::Draft;
use record::header;
use record::id::Kind;
use record::numbers;
use record::schema::Catalogue;

fn shared(file: &str) -> Option<String> {
    let Ok(folder) = std::env::var("FANGZHI_SHARED") else {
        // Written past the test harness, which keeps what passing tests print.
        let notice = format!("SKIPPED: FANGZHI_SHARED is not set; `{file}` was not tried\n");
        std::io::stderr().write_all(notice.as_bytes()).ok();
        return None;
    };
    let path = PathBuf::from(folder).join(file);
    let bytes = std::fs::read(&path).expect("FANGZHI_SHARED is set, so its files must be there");
    let mut text = String::new();
    if file.ends_with(".gz") {
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .expect("the file is gzip of UTF-8");
    } else {
        text = String::from_utf8(bytes).expect("the file is UTF-8");
    }
    Some(text)
}

#[test]
fn every_registered_unit_of_five_places_checks_clean() {
    let Some(text) = shared("data/units/units_five_places.csv.gz") else {
        return;
    };
    let catalogue = Catalogue::builtin();
    let schema = catalogue.schema(&Kind::new("unit").unwrap()).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let columns = header::map(schema, &headers.iter().collect::<Vec<_>>());
    assert_eq!(columns.unknown, ["uscc_valid", "province", "city"]);
    assert!(columns.missing_required.is_empty());

    let mut reasons: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut rows = 0;
    for row in reader.records() {
        let row = row.unwrap();
        rows += 1;
        let mut draft = Draft::default();
        for (id, cell) in columns.columns.iter().zip(&row) {
            if let Some(id) = id {
                draft.fields.insert(id.clone(), cell.to_owned());
            }
        }
        match draft.check(schema, catalogue, "2026-06-30") {
            Ok(checked) => {
                let again = checked.draft(schema).check(schema, catalogue, "2026-06-30");
                assert!(again.is_ok_and(|again| again == checked), "not canonical");
            }
            Err(violations) => {
                for violation in violations {
                    *reasons
                        .entry((violation.field, violation.reason))
                        .or_default() += 1;
                }
            }
        }
    }
    eprintln!("{rows} units, violations: {reasons:#?}");
    assert_eq!(rows, 19_351);
    assert!(reasons.is_empty());
}

#[test]
fn every_division_code_in_use_keeps_to_the_segments() {
    for (file, column) in [
        (
            "data/divisions/five_places_villages.csv",
            "code12_synthetic",
        ),
        ("data/divisions/nbs_areas.csv", "code"),
        ("data/divisions/nbs_streets.csv.gz", "code"),
        ("data/divisions/mca_20251231_region.csv.gz", "code"),
    ] {
        let Some(text) = shared(file) else { return };
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let at = reader.headers().unwrap().iter().position(|h| h == column);
        let at = at.expect("the file has a column of codes");
        let mut refused = Vec::new();
        for row in reader.records() {
            let row = row.unwrap();
            if row[at].len() >= 6 && numbers::division(&row[at]).is_err() {
                refused.push(row[at].to_owned());
            }
        }
        assert!(refused.is_empty(), "{file}: {refused:?}");
    }
}
