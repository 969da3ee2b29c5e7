//! Importing what offices really have: GBK, Chinese headers, wrong rows, the same file twice.
//!
//! Whatever a file holds, the rows that go in are the rows accepted and the rows rejected.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use record::id::Kind;
use record::schema::{Catalogue, Schema};
use sample::Table;
use serde_json::Value;
use tests::process::Done;
use tests::{Site, rows};

fn schema(kind: &str) -> &'static Schema {
    Catalogue::builtin()
        .schema(&Kind::new(kind).unwrap())
        .unwrap()
}

fn import(site: &Site, kind: &str, file: &Path, rest: &[&str]) -> Done {
    let mut args = vec!["import", kind, file.to_str().unwrap(), "--json"];
    args.extend(rest);
    site.run(args)
}

fn count(report: &Value, name: &str) -> u64 {
    report[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no `{name}`: {report}"))
}

/// What must hold of every report, whatever the file.
#[track_caller]
fn accounted(report: &Value, rows: u64, accepted: u64) {
    assert_eq!(count(report, "rows"), rows, "{report}");
    assert_eq!(count(report, "accepted"), accepted, "{report}");
    assert_eq!(rows, accepted + count(report, "rejected"), "{report}");
    let rejected: BTreeSet<u64> = violations(report).iter().map(|v| v.0).collect();
    assert_eq!(rejected.len() as u64, count(report, "rejected"), "{report}");
}

/// `(row, field)` of every violation; each has a reason.
fn violations(report: &Value) -> Vec<(u64, String)> {
    let violations = report["violations"].as_array().unwrap();
    violations
        .iter()
        .map(|v| {
            assert!(
                v["reason"]
                    .as_str()
                    .is_some_and(|reason| !reason.is_empty()),
                "{v}"
            );
            (
                v["row"].as_u64().unwrap(),
                v["field"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

fn gbk(text: &str) -> Vec<u8> {
    let (bytes, _, lost) = encoding_rs::GBK.encode(text);
    assert!(!lost);
    bytes.into_owned()
}

/// As spreadsheet programs write "Unicode text": with its mark at the beginning.
fn utf16(text: &str) -> Vec<u8> {
    let units = format!("\u{feff}{text}");
    units.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The table's CSV with other words in its first line.
fn with_headers(table: &Table, name: impl Fn(&str) -> String) -> String {
    let text = table.csv();
    let (_, body) = text.split_once('\n').unwrap();
    let headers: Vec<String> = table.headers.iter().map(|id| name(id)).collect();
    format!("{}\n{body}", headers.join(","))
}

fn chinese(kind: &'static str) -> impl Fn(&str) -> String {
    move |id| schema(kind).field(id).unwrap().name.clone()
}

fn first_alias(kind: &'static str) -> impl Fn(&str) -> String {
    move |id| {
        let field = schema(kind).field(id).unwrap();
        field
            .aliases
            .first()
            .cloned()
            .unwrap_or_else(|| format!(" {} ", field.name))
    }
}

fn written(base: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = base.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Every byte of what a commit writes to.
fn durable(site: &Site) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["segments", "secrets"] {
        for item in std::fs::read_dir(site.dir.join(folder)).unwrap() {
            let path = item.unwrap().path();
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

#[test]
fn a_file_is_read_in_every_encoding_and_under_every_header_that_offices_use() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let table = rows::community(3, 40).persons;
    let plain = table.csv();
    let named = with_headers(&table, chinese("person"));
    let aliased = with_headers(&table, first_alias("person"));
    let crlf = plain.replace('\n', "\r\n");
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("utf8.csv", plain.clone().into_bytes()),
        ("bom.csv", format!("\u{feff}{plain}").into_bytes()),
        ("crlf.csv", crlf.into_bytes()),
        ("names.csv", named.clone().into_bytes()),
        ("aliases.csv", aliased.clone().into_bytes()),
        ("gbk.csv", gbk(&named)),
        ("utf16.csv", utf16(&named)),
        ("gbk-aliases.csv", gbk(&aliased)),
        ("packed.csv.gz", gzip(format!("\u{feff}{plain}").as_bytes())),
        ("gbk-packed.csv.gz", gzip(&gbk(&named))),
        // Packed, and not named so.
        ("packed.csv", gzip(plain.as_bytes())),
    ];
    let before = durable(&site);
    for (name, bytes) in &files {
        let file = written(base.path(), name, bytes);
        let report = import(&site, "person", &file, &["--dry-run"])
            .expect_code(0)
            .json();
        accounted(&report, 40, 40);
    }
    assert_eq!(durable(&site), before, "a preview writes nothing");

    let file = base.path().join("gbk-packed.csv.gz");
    accounted(
        &import(&site, "person", &file, &[]).expect_code(0).json(),
        40,
        40,
    );
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--limit",
        "100",
    ]);
    let found: BTreeSet<(String, String)> = answer["value"]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |field: &str| row["fields"][field].as_str().unwrap_or_default().to_owned();
            (text("name"), text("hukou_address"))
        })
        .collect();
    let given = std::iter::zip(table.column("name"), table.column("hukou_address"));
    assert_eq!(
        found,
        given.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    );
}

#[test]
fn quoted_commas_quotes_and_rare_characters_arrive_as_they_were() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let employer = "甲,乙\"丙\"合作社(㐂𠮷)";
    let text = format!(
        "姓名,工作单位\n\"王小明\",\"{}\"\n",
        employer.replace('"', "\"\"")
    );
    for (name, bytes) in [
        ("utf8.csv", text.clone().into_bytes()),
        (
            "gb18030.csv",
            encoding_rs::GB18030.encode(&text).0.into_owned(),
        ),
    ] {
        let file = written(base.path(), name, &bytes);
        accounted(
            &import(&site, "person", &file, &[]).expect_code(0).json(),
            1,
            1,
        );
    }
    let answer = site.json([
        "read",
        "person",
        "--as",
        "dengji",
        "--purpose",
        "service",
        "--where",
        "name=王小明",
    ]);
    let rows = answer["value"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["fields"]["employer"] == employer));
}

/// A hundred persons, seven of them with faults; the faulty rows as they should be; and the
/// faults by row and field.
fn hundred_with_seven_faults() -> (Table, Table, Vec<(u64, String)>) {
    let right = rows::community(5, 100).persons;
    let mut wrong = right.clone();
    let faults = [
        (3, "citizen_number", "999999199001011234"),
        (17, "phone", "电话不详"),
        (29, "name", ""),
        (42, "ethnicity", "第五十七族"),
        (58, "birth_date", "1990-02-30"),
        (58, "education", "自学成才"),
        (77, "residence_kind", "ZZ"),
        (100, "hukou_address", "某省某市某县某乡某村某组某号"),
    ];
    let mut expected = Vec::new();
    for (row, field, value) in faults {
        let column = wrong.headers.iter().position(|h| *h == field).unwrap();
        let value = if field == "hukou_address" {
            value.repeat(20)
        } else {
            value.to_owned()
        };
        wrong.rows[row - 1][column] = value;
        expected.push((row as u64, field.to_owned()));
    }
    expected.sort();
    (wrong, right, expected)
}

#[test]
fn a_preview_names_every_fault_and_nothing_is_written_before_the_word_is_given() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let (wrong, _, expected) = hundred_with_seven_faults();
    let file = rows::write(&wrong, &base.path().join("persons.csv"));
    let before = durable(&site);
    let report = import(&site, "person", &file, &["--dry-run"])
        .expect_code(0)
        .json();
    accounted(&report, 100, 93);
    let mut found = violations(&report);
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(report["dry_run"], true);
    for violation in report["violations"].as_array().unwrap() {
        for (_, field) in &expected {
            for value in wrong.column(field).filter(|value| value.len() > 3) {
                assert!(
                    !violation["reason"].as_str().unwrap().contains(value),
                    "a reason repeats a value"
                );
            }
        }
    }
    let report = import(&site, "person", &file, &["--all-or-nothing"])
        .expect_code(3)
        .json();
    accounted(&report, 100, 93);
    assert_eq!(
        durable(&site),
        before,
        "neither a preview nor all-or-nothing wrote a byte"
    );
    // A person is shown the same.
    let shown = site
        .run(["import", "person", file.to_str().unwrap(), "--dry-run"])
        .expect_code(0);
    assert!(shown.stdout.contains("93") && shown.stdout.contains("nothing written"));
    assert_eq!(durable(&site), before);
}

#[test]
fn a_reject_file_can_be_mended_and_imported() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let (wrong, right, expected) = hundred_with_seven_faults();
    let file = rows::write(&wrong, &base.path().join("persons.csv"));
    let report = import(&site, "person", &file, &[]).expect_code(3).json();
    accounted(&report, 100, 93);
    assert_eq!(site.records("person"), 93);

    let rejects = PathBuf::from(report["rejects"].as_str().unwrap());
    assert_eq!(rejects.parent(), file.parent(), "it lies beside the file");
    let text = std::fs::read_to_string(&rejects).unwrap();
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
    assert_eq!(lines.len(), 8);
    assert!(lines[0].ends_with("退回原因"));
    let faulty: BTreeSet<u64> = expected.iter().map(|(row, _)| *row).collect();
    // Mended as a clerk would: the cells, with the reasons left standing.
    let right_lines = right.csv();
    let right_lines: Vec<&str> = right_lines.lines().collect();
    let mended: Vec<String> = faulty
        .iter()
        .zip(lines.split_off(1))
        .map(|(row, line)| {
            assert!(line.contains('：'), "the reason stands in the last column");
            format!("{},\"已改正\"", right_lines[*row as usize])
        })
        .collect();
    std::fs::write(&rejects, format!("{}\n{}\n", lines[0], mended.join("\n"))).unwrap();
    accounted(
        &import(&site, "person", &rejects, &[]).expect_code(0).json(),
        7,
        7,
    );
    assert_eq!(site.records("person"), 100);

    // The first file once more: what was right is there already, what was wrong is still wrong.
    let again = import(&site, "person", &file, &[]).expect_code(3).json();
    accounted(&again, 100, 93);
    assert_eq!(count(&again, "repeated"), 93);
    assert_eq!(site.records("person"), 100);
    site.verified();
}

#[test]
fn doubles_inside_a_file_and_against_the_register_are_rejected_by_name() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let mut table = rows::community(7, 400).persons;
    let column = table
        .headers
        .iter()
        .position(|h| *h == "citizen_number")
        .unwrap();
    let numbered: Vec<usize> = (0..400)
        .filter(|at| !table.rows[*at][column].is_empty())
        .collect();
    // Next to each other, and further apart than one act reaches.
    let near = (numbered[4], numbered[5]);
    let far = (numbered[1], *numbered.iter().find(|at| **at > 350).unwrap());
    for (first, second) in [near, far] {
        table.rows[second] = table.rows[first].clone();
    }
    let expected: Vec<(u64, String)> = [near.1, far.1]
        .iter()
        .map(|at| (*at as u64 + 1, "citizen_number".to_owned()))
        .collect();
    let file = rows::write(&table, &base.path().join("doubles.csv"));
    let preview = import(&site, "person", &file, &["--dry-run"])
        .expect_code(0)
        .json();
    accounted(&preview, 400, 398);
    assert_eq!(violations(&preview), expected);
    let report = import(&site, "person", &file, &[]).expect_code(3).json();
    accounted(&report, 400, 398);
    assert_eq!(violations(&report), expected);

    // Another place, whose people have other numbers.
    let mut mixed = sample::community(8, 30, &sample::Place::numbered(2)).persons;
    for at in 0..3 {
        mixed.rows[at * 10] = table.rows[numbered[at + 10]].clone();
    }
    let file = rows::write(&mixed, &base.path().join("mixed.csv"));
    let report = import(&site, "person", &file, &[]).expect_code(3).json();
    let found: Vec<u64> = violations(&report).iter().map(|v| v.0).collect();
    assert_eq!(found, [1, 11, 21]);
    accounted(&report, 30, 27);
    assert_eq!(site.records("person"), 398 + 27);
}

#[test]
fn a_file_imported_twice_or_after_a_part_of_it_neither_loses_nor_doubles_a_row() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    // Without citizen numbers nothing but the node's own memory can tell a row from its double.
    let mut table = rows::community(9, 600).persons;
    let column = table
        .headers
        .iter()
        .position(|h| *h == "citizen_number")
        .unwrap();
    for row in &mut table.rows {
        row[column].clear();
    }
    let file = rows::write(&table, &base.path().join("persons.csv"));
    accounted(
        &import(&site, "person", &file, &[]).expect_code(0).json(),
        600,
        600,
    );
    let size = site.ledger_size("person");
    for _ in 0..2 {
        let again = import(&site, "person", &file, &[]).expect_code(0).json();
        accounted(&again, 600, 600);
        assert_eq!(count(&again, "repeated"), 600);
    }
    assert_eq!(site.ledger_size("person"), size);
    assert_eq!(site.records("person"), 600);
}

#[test]
fn what_cannot_be_imported_is_refused_with_a_reason_and_writes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let good = "姓名,性别\n王小明,1\n";
    let binary: Vec<u8> = (0..4096u32)
        .map(|at| ((at * 7919) >> 3) as u8 | 0x80)
        .collect();
    let long_cell = format!("姓名,性别\n{},1\n", "甲".repeat(100_000));
    let many_columns = format!("姓名,性别\n王小明{}\n", ",".repeat(2_000));
    // 80 MiB in 80 KiB.
    let bomb = [b"\xe5\xa7\x93\xe5\x90\x8d\n".to_vec(), vec![b'0'; 80 << 20]].concat();
    let cases: Vec<(&str, &str, Vec<u8>, i32, &str)> = vec![
        ("long-cell", "person", long_cell.into(), 1, "row 1"),
        ("many-columns", "person", many_columns.into(), 1, "row 1"),
        ("bomb", "person", gzip(&bomb), 1, "100"),
        (
            "religion",
            "person",
            "姓名,宗教信仰\n王小明,无\n".into(),
            2,
            "宗教信仰",
        ),
        (
            "face",
            "person",
            "姓名,face_image\n王小明,x\n".into(),
            2,
            "face_image",
        ),
        ("kind", "pedigree", good.into(), 2, "schema list"),
        ("binary", "person", binary, 1, "UTF-8"),
        ("cut", "person", gzip(good.as_bytes())[..20].to_vec(), 1, ""),
        ("empty", "person", Vec::new(), 2, "姓名"),
        ("prose", "person", "此件不是表格。\n".into(), 2, "姓名"),
        ("no-name", "person", "性别\n1\n".into(), 2, "name"),
        (
            "twice",
            "person",
            "姓名,手机,电话\n王小明,,\n".into(),
            2,
            "电话",
        ),
        (
            "open-quote",
            "person",
            "姓名,性别\n\"泄漏甲乙,1\n王小明,1\n".into(),
            1,
            "",
        ),
    ];
    let before = durable(&site);
    for (name, kind, bytes, code, word) in cases {
        let file = written(base.path(), &format!("{name}.csv"), &bytes);
        let done = import(&site, kind, &file, &[]);
        assert_eq!(done.code, code, "{name}: {}", done.printed());
        let error = &done.json()["error"];
        let told = format!("{} {}", error["message"], error["details"]);
        assert!(told.contains(word), "{name}: {told}");
        assert!(
            !done.printed().contains("泄漏甲乙"),
            "{name}: an error repeats a value"
        );
        // In words for people too.
        let words = site.run(["import", kind, file.to_str().unwrap()]);
        assert_eq!(words.code, code);
        assert!(
            words.stderr.contains("failed"),
            "{name}: {}",
            words.printed()
        );
        assert!(
            !words.printed().contains("泄漏甲乙"),
            "{name}: an error repeats a value"
        );
    }
    let file = written(base.path(), "good.csv", good.as_bytes());
    import(&site, "person", &base.path().join("nowhere.csv"), &[]).expect_code(1);
    import(&site, "person", base.path(), &[]).expect_code(1);
    for only in ["城市=江津", "无等号"] {
        import(&site, "person", &file, &["--only", only]).expect_code(2);
    }
    // Only a clerk registers.
    for login in ["anquan", "nobody"] {
        assert!(
            [1, 2, 4].contains(
                &import(
                    &site,
                    "person",
                    &file,
                    &[
                        "--as",
                        login,
                        "--operator-passphrase-file",
                        base.path().join("passphrase").to_str().unwrap()
                    ]
                )
                .code
            )
        );
    }
    assert_eq!(durable(&site), before, "nothing was written");
    accounted(
        &import(&site, "person", &file, &[]).expect_code(0).json(),
        1,
        1,
    );
}

#[test]
fn rows_with_too_many_or_too_few_columns_are_given_back_and_the_others_registered() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let text = "姓名,性别,民族\n王小明,1,01\n李多一,1,01,2\n张少一,1\n赵小红,2,01\n";
    let file = written(base.path(), "ragged.csv", text.as_bytes());
    let before = durable(&site);
    let all = import(&site, "person", &file, &["--all-or-nothing"]).expect_code(3);
    accounted(&all.json(), 4, 2);
    assert_eq!(durable(&site), before, "nothing was written");

    let done = import(&site, "person", &file, &[]).expect_code(3);
    accounted(&done.json(), 4, 2);
    let named: Vec<u64> = violations(&done.json())
        .iter()
        .map(|(row, _)| *row)
        .collect();
    assert_eq!(named, [2, 3]);
    assert_eq!(site.records("person"), 2);
    let rejects = std::fs::read_to_string(base.path().join("ragged.退回.csv")).unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    assert!(lines[1].starts_with("李多一,1,01,2,"), "{rejects}");
    assert!(lines[2].starts_with("张少一,1,,"), "{rejects}");
    assert_eq!(lines.len(), 3);
}

/// Imports each place of a register that has several, and counts.
fn import_places(site: &Site, file: &Path, places: &[(&str, u64)]) {
    let mut registered = 0;
    for (place, rows) in places {
        let only = format!("city={place}");
        let preview = import(site, "unit", file, &["--only", &only, "--dry-run"])
            .expect_code(0)
            .json();
        let done = import(site, "unit", file, &["--only", &only]);
        let report = done.json();
        assert_eq!(
            done.code,
            if count(&report, "rejected") > 0 { 3 } else { 0 }
        );
        accounted(&report, *rows, count(&report, "accepted"));
        for name in ["rows", "accepted", "rejected"] {
            assert_eq!(
                count(&preview, name),
                count(&report, name),
                "{place}: the preview said so"
            );
        }
        registered += count(&report, "accepted");
        assert_eq!(site.records("unit"), registered, "{place}");
        let again = import(site, "unit", file, &["--only", &only]).json();
        assert_eq!(
            count(&again, "repeated"),
            count(&report, "accepted"),
            "{place}"
        );
        assert_eq!(site.records("unit"), registered, "{place}: once more");
        eprintln!(
            "{place}: {rows} rows = {} + {}",
            report["accepted"], report["rejected"]
        );
    }
    site.verified();
}

#[test]
fn a_register_of_several_places_is_imported_place_by_place() {
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let mut text =
        "unit_name,uscc,uscc_valid,reg_date,unit_type,province,city,address\n".to_owned();
    let units = rows::maps(&rows::community(11, 20_000).units);
    for (at, unit) in units.iter().enumerate() {
        let city = ["江津", "中山", "仙居"][at % 3];
        let mut code = unit["credit_code"].clone();
        if at % 50 == 7 {
            code.pop();
        }
        let address = format!("{city}区\"老街\",{at} 号").replace('"', "\"\"");
        text.push_str(&format!(
            "{},{code},1,2011-05-{:02},N/A,示例省,{city},\"{address}\"\n",
            unit["unit_name"],
            at % 28 + 1
        ));
    }
    let file = written(base.path(), "units.csv.gz", &gzip(text.as_bytes()));
    assert!(units.len() > 400, "more rows than one act has");
    let rows = |place: usize| (units.len() - place).div_ceil(3) as u64;
    import_places(&site, &file, &[("江津", rows(0)), ("中山", rows(1))]);
}

#[test]
fn the_enterprise_register_of_jiangjin_and_zhongshan_is_imported_whole() {
    let Some(shared) = std::env::var_os("FANGZHI_SHARED") else {
        eprintln!(
            "SKIPPED: set FANGZHI_SHARED to the folder that holds data/units/units_five_places.csv.gz; \
             `a_register_of_several_places_is_imported_place_by_place` tests the same path on made-up units"
        );
        return;
    };
    let shared = PathBuf::from(shared);
    let name = "units/units_five_places.csv.gz";
    let file = [shared.join("data").join(name), shared.join(name)]
        .into_iter()
        .find(|file| file.exists())
        .expect("FANGZHI_SHARED is set, and the register of units is not there");
    let mut text = String::new();
    let packed = std::fs::File::open(&file).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(packed), &mut text)
        .unwrap();
    // No place's name has a comma or a quote: its column is the one before the address.
    let rows = |place: &str| {
        text.lines()
            .filter(|l| l.contains(&format!(",{place},")))
            .count() as u64
    };
    let base = tempfile::tempdir().unwrap();
    let site = Site::alone(base.path());
    let places = [("江津", rows("江津")), ("中山", rows("中山"))];
    assert!(places.iter().all(|(_, rows)| *rows > 100));
    let copy = base.path().join("units.csv.gz");
    std::fs::copy(&file, &copy).unwrap();
    import_places(&site, &copy, &places);
}
