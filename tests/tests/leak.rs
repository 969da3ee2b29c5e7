//! No personal data outside cells: a realm registers, reads, denies, fails, grants and replicates
//! persons full of marker words, logging everything, and then every byte of every file of every
//! node is searched for them.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::process::Done;
use tests::traces::{Needle, in_bytes, in_dir, needles};
use tests::{Trio, rows};

const GRID: &str = "999999001001001";
/// What stands in the persons' fields; no file of a node may hold any of it.
const NAME: &str = "泄漏探针甲乙";
const EMPLOYER: &str = "探针雇主丙丁";
const ADDRESS: &str = "探针住址戊己";
const HOUSEHOLD: &str = "TANZHENHU-7731";
const ROOM: &str = "TANZHENSHI-5519";
const GUARDIAN: &str = "探针监护庚辛";
const PHONE: &str = "15498761234";
const NUMBER: &str = "999999195003071230";
const AMENDED: &str = "探针新址壬癸";
const MARKED: [&str; 9] = [
    NAME, EMPLOYER, ADDRESS, HOUSEHOLD, ROOM, GUARDIAN, PHONE, NUMBER, AMENDED,
];

/// A citizen number with its right check character (GB 11643).
fn number() -> String {
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let digits = NUMBER[..17].bytes().map(|b| u32::from(b - b'0'));
    let sum: u32 = digits
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    format!("{}{}", &NUMBER[..17], char::from(check))
}

fn wanted() -> Vec<Needle> {
    let number = number();
    // The number's own part without its check character too, and the birth date in it with it.
    let texts = MARKED
        .into_iter()
        .filter(|text| *text != NUMBER)
        .chain([number.as_str(), &NUMBER[..17]]);
    texts.flat_map(needles).collect()
}

/// Persons among whom the marked one is, and one whose row has violations in marked fields.
fn files(base: &Path) -> (PathBuf, PathBuf) {
    let mut table = rows::community(41, 300).persons;
    let right = [
        ("name", NAME),
        ("employer", EMPLOYER),
        ("hukou_address", ADDRESS),
        ("household_code", HOUSEHOLD),
        ("room_code", ROOM),
        ("guardian_name", GUARDIAN),
        ("phone", PHONE),
        ("grid", GRID),
        ("birth_date", "1950-03-07"),
        ("welfare", "10"),
        ("sex", ""),
    ];
    let column = |field: &str| {
        let table = rows::community(41, 1).persons;
        table.headers.iter().position(|h| *h == field).unwrap()
    };
    for (field, value) in right {
        table.rows[100][column(field)] = value.to_owned();
    }
    table.rows[100][column("citizen_number")] = number();
    let good = rows::write(&table, &base.join("good.csv"));
    let mut bad = rows::community(41, 3).persons;
    bad.rows[0] = table.rows[100].clone();
    bad.rows[1] = table.rows[100].clone();
    // Already registered; a wrong check character; a name where a code, a date, a number belong.
    bad.rows[1][column("citizen_number")] = format!("{}?", &NUMBER[..17]);
    for field in [
        "ethnicity",
        "birth_date",
        "phone",
        "residence_kind",
        "education",
    ] {
        bad.rows[1][column(field)] = NAME.to_owned();
    }
    bad.rows[2][column("name")] = NAME.repeat(200);
    bad.rows[2][column("citizen_number")] = NAME.to_owned();
    (good, rows::write(&bad, &base.join("bad.csv")))
}

/// A command that failed must not repeat what was marked in what it prints.
#[track_caller]
fn silent(done: &Done, wanted: &[Needle]) {
    let found = in_bytes(done.printed().as_bytes(), wanted);
    assert!(found.is_empty(), "{found:?} in\n{}", done.printed());
}

#[test]
fn the_search_finds_the_markers_in_every_encoding() {
    let wanted = wanted();
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("deep/er");
    std::fs::create_dir_all(&dir).unwrap();
    for text in [NAME, PHONE] {
        let mut all = b"....".to_vec();
        all.extend(text.as_bytes());
        all.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        all.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        all.extend(encoding_rs::GBK.encode(text).0.iter());
        std::fs::write(dir.join("file"), all).unwrap();
        let (found, _) = in_dir(base.path(), &wanted);
        for encoding in ["UTF-8", "UTF-16LE", "UTF-16BE", "GBK"] {
            let name = format!("`{text}` in {encoding}");
            assert!(
                found.iter().any(|f| f.ends_with(&name)),
                "{name}: {found:?}"
            );
        }
    }
    std::fs::write(dir.join("file"), "nothing").unwrap();
    assert_eq!(in_dir(base.path(), &wanted), (vec![], 7));
    std::fs::write(dir.join(NAME), "").unwrap();
    assert!(
        !in_dir(base.path(), &wanted).0.is_empty(),
        "names of files are searched too"
    );
}

#[test]
fn no_file_of_any_node_holds_a_word_of_a_person_outside_a_cell() {
    let base = tempfile::tempdir().unwrap();
    // What the test writes lies apart from what the nodes write.
    let given = tempfile::tempdir().unwrap();
    let wanted = wanted();
    let (good, bad) = files(given.path());
    let trio = Trio::start(base.path(), GRID, &[("FANGZHI_LOG", "trace")]);
    let site = &trio.community.site;

    let report = site.json(["import", "person", good.to_str().unwrap()]);
    assert_eq!(report["accepted"], 300, "{report}");
    let done = site.run(["import", "person", bad.to_str().unwrap(), "--json"]);
    silent(&done.clone().expect_code(3), &wanted);
    assert_eq!(done.json()["rejected"], 3, "{}", done.stdout);
    silent(
        &site
            .run(["import", "person", bad.to_str().unwrap()])
            .expect_code(3),
        &wanted,
    );

    let marked = read_marked(&trio);
    denied_and_refused(&trio, given.path(), &wanted);
    let record = marked["record"].as_str().unwrap();
    let change = format!("hukou_address={AMENDED}");
    let amend = ["amend", "person", record, "--as", "dengji", "--version"];
    site.json(amend.into_iter().chain(["1", "--set", &change]));
    // A conflict, and changes that break rules.
    silent(
        &site
            .run(amend.into_iter().chain(["1", "--set", &change, "--json"]))
            .expect_code(9),
        &wanted,
    );
    for field in ["ethnicity", "phone", "birth_date", "citizen_number"] {
        let change = format!("{field}={NAME}");
        silent(
            &site
                .run(amend.into_iter().chain(["2", "--set", &change]))
                .expect_code(2),
            &wanted,
        );
    }

    trio.grant("status,grid,name,household_code,welfare", &[]);
    let condition = format!("household_code={HOUSEHOLD}");
    trio.grant("status,grid,name,welfare", &[&condition]);
    let name = format!("name={NAME}");
    let at_department = trio.department.site.json([
        "read",
        "person",
        "--as",
        "jingban",
        "--purpose",
        "welfare",
        "--where",
        &name,
    ]);
    assert!(
        !at_department["value"]["rows"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    trio.converge();
    // Nothing that anybody may ask for without a login tells anything.
    for node in [&trio.district, &trio.community, &trio.department] {
        for path in [
            "/",
            "/metrics",
            "/api/v1/status",
            "/api/v1/doctor",
            "/api/v1/grants",
            "/api/v1/schemas",
        ] {
            let answer = node.http.get(path, None);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(
                in_bytes(&answer.body, &wanted),
                Vec::<&str>::new(),
                "{path}"
            );
        }
    }
    // One more as long as it runs, and once all is written.
    nothing_in(base.path(), &wanted);
    let Trio {
        district,
        community,
        department,
    } = trio;
    for node in [department, community, district] {
        let site = node.site.clone();
        node.stop();
        site.verified();
        assert!(site.dir.join("working-index").exists());
        let log = std::fs::metadata(site.dir.join("node.log")).unwrap().len();
        assert!(log > 10_000, "the log tells everything: {log} bytes");
    }
    nothing_in(base.path(), &wanted);
}

/// Reads the marked person in every way; the answers do hold the markers.
fn read_marked(trio: &Trio) -> Value {
    let site = &trio.community.site;
    let mut marked = Value::Null;
    for condition in [
        format!("name={NAME}"),
        format!("name^={}", &NAME[..6]),
        format!("citizen_number={}", number()),
        format!("phone={PHONE}"),
        format!("room_code={ROOM}"),
    ] {
        let basis = format!("接待 {NAME}");
        let answer = site.json([
            "read",
            "person",
            "--as",
            "dengji",
            "--purpose",
            "service",
            "--where",
            &condition,
            "--basis",
            &basis,
        ]);
        let rows = answer["value"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{condition}");
        assert_eq!(rows[0]["fields"]["employer"], EMPLOYER);
        marked = rows[0].clone();
    }
    let name = format!("name={NAME}");
    let worker = site.json([
        "read",
        "person",
        "--as",
        "wangge",
        "--purpose",
        "service",
        "--where",
        &name,
    ]);
    assert_eq!(worker["value"]["rows"][0]["fields"]["phone"], PHONE);
    marked
}

/// Asks for what is not allowed or makes no sense, with markers in every word.
fn denied_and_refused(trio: &Trio, given: &Path, wanted: &[Needle]) {
    let site = &trio.community.site;
    let name = format!("name={NAME}");
    let number = format!("citizen_number={}", number());
    let phrase = given.join("phrase");
    std::fs::write(&phrase, format!("{NAME}{PHONE}")).unwrap();
    let phrase = phrase.to_str().unwrap();
    let read = ["read", "person", "--where"];
    let nobody = format!("{NAME}=x");
    for (rest, code) in [
        (
            vec![name.as_str(), "--as", "shenji", "--purpose", "registration"],
            4,
        ),
        (
            vec![name.as_str(), "--as", "dengji", "--purpose", "statistics"],
            4,
        ),
        (
            vec![number.as_str(), "--as", "wangge", "--purpose", "service"],
            4,
        ),
        (
            vec![
                name.as_str(),
                "--as",
                "dengji",
                "--purpose",
                "service",
                "--operator-passphrase-file",
                phrase,
            ],
            1,
        ),
        (
            vec![nobody.as_str(), "--as", "dengji", "--purpose", "service"],
            2,
        ),
    ] {
        for json in [None, Some("--json")] {
            let args = read.iter().chain(&rest).copied().chain(json);
            let done = site.run(args).expect_code(code);
            // What was typed as a field's name may be named; nothing else.
            if rest[0] != nobody {
                silent(&done, wanted);
            }
        }
    }
    // A name typed where the login belongs, or where the passphrase does.
    for login in [NAME, PHONE] {
        let done = site.run([
            "read",
            "person",
            "--purpose",
            "service",
            "--as",
            login,
            "--operator-passphrase-file",
            phrase,
            "--json",
        ]);
        silent(&done.expect_code(1), wanted);
    }
    let http = &trio.community.http;
    let token = http.login("dengji");
    for (path, body) in [
        (
            "/api/v1/sessions",
            json!({ "login": NAME, "passphrase": NAME }),
        ),
        (
            "/api/v1/sessions",
            json!({ "login": "dengji", "passphrase": NAME }),
        ),
        (
            "/api/v1/sessions",
            json!({ "login": [NAME], "passphrase": PHONE }),
        ),
        (
            "/api/v1/read",
            json!({ "kind": NAME, "purpose": "service" }),
        ),
        ("/api/v1/read", json!({ "kind": "person", "purpose": NAME })),
        (
            "/api/v1/read",
            json!({ "kind": "person", "purpose": "service", "limit": NAME }),
        ),
        (
            "/api/v1/import",
            json!({ "kind": "person", "source": NAME, "numbers": [NAME], "rows": [] }),
        ),
        (
            "/api/v1/amendments",
            json!({ "kind": "person", "record": NAME, "version": 1, "purpose": "service" }),
        ),
        (&format!("/api/v1/{PHONE}"), json!({ "name": NAME })),
    ] {
        let answer = http.post(path, Some(&token), &body);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(
            in_bytes(&answer.body, wanted),
            Vec::<&str>::new(),
            "{path}: {}",
            answer.text()
        );
    }
}

#[track_caller]
fn nothing_in(dir: &Path, wanted: &[Needle]) {
    let (found, looked_at) = in_dir(dir, wanted);
    assert!(
        looked_at > 1_000_000,
        "only {looked_at} bytes were there to look at"
    );
    assert!(found.is_empty(), "{found:#?}");
}
