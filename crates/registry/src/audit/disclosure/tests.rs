//! The vector of `docs/formats/disclosure.md`, and everything that must not verify.

use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::note::{KeyKind, NoteSigner};
use ledger::proof::inclusion;
use ledger::tile::{TreeEdge, plan_append};
use record::entry::{Operation, RecordEntry, SUITE};
use serde_json::{Value, json};

use super::*;
use crate::audit::check::{document, vkeys};

const ORIGIN: &str = "jiangjin.example/jinfu/person";
const NOW: u64 = 1_767_225_600;

/// Values by field id; what is not here is absent.
const PERSON: [(&str, &str); 4] = [
    ("status", "10"),
    ("name", "示例甲"),
    ("birth_date", "1980-01-01"),
    ("education", "20"),
];

/// Salt and value by position, of the fields that have a cell.
type Cells = BTreeMap<Position, (Salt, Option<&'static str>)>;

fn commitments(seed: u8) -> (Vec<Hash>, Cells) {
    let catalogue = Catalogue::builtin();
    let schema = catalogue
        .version(&Origin::parse(ORIGIN).unwrap().ledger(), 1)
        .unwrap();
    let mut cells = BTreeMap::new();
    for field in &schema.fields {
        let value = PERSON
            .iter()
            .find(|(id, _)| *id == field.id)
            .map(|(_, v)| *v);
        if value.is_some() || field.sensitivity.always_sealed() {
            cells.insert(field.position, ([field.position ^ seed; 16], value));
        }
    }
    let given = cells
        .iter()
        .map(|(at, (salt, value))| (*at, content::commitment(*at, salt, *value)));
    (content::commitments(schema.leaves(), given), cells)
}

fn entry(seed: u8) -> Vec<u8> {
    Entry::Record(RecordEntry {
        suite: SUITE,
        record: RecordId([seed; 16]),
        version: 1,
        operation: Operation::Register,
        previous: None,
        schema: 1,
        epoch: 1,
        content: content::content_root(&commitments(seed).0),
        body: [seed; 32],
        recorded_at: UnixMillis(NOW * 1000 - 5000),
    })
    .encode()
}

struct World {
    file: Value,
    keys: String,
}

/// The second of three records, disclosed under a cosigned checkpoint.
fn world(origin: &str) -> World {
    let log = NoteSigner::from_seed(origin, &[1; 32]).unwrap();
    let cosigner = |role: &str, seed| {
        NoteSigner::from_seed(&format!("jiangjin.example/shuangfu/{role}"), &[seed; 32]).unwrap()
    };
    let (witness, held) = (cosigner("witness", 2), cosigner("held", 3));
    let entries = [entry(0x11), entry(0x22), entry(0x33)];
    let leaves: Vec<Hash> = entries.iter().map(|e| leaf_hash(e)).collect();
    let (edge, writes) = plan_append(&TreeEdge::new(), &leaves);
    let tiles: BTreeMap<(u8, u64), Vec<u8>> = writes
        .into_iter()
        .map(|w| ((w.level, w.index), w.bytes))
        .collect();
    let note = Checkpoint::new(origin, 3, edge.frontier().root())
        .unwrap()
        .sign(&log)
        .unwrap();
    let verified = ledger::verify::extension(
        &Frontier::new(),
        &leaves,
        note.as_bytes(),
        &log.verifier(KeyKind::Note),
        origin,
    )
    .unwrap();
    let mut signed = note;
    for signer in [&witness, &held] {
        let line = verified.cosign(signer, NOW).unwrap();
        signed =
            ledger::checkpoint::add_signature_line(signed.as_bytes(), line.as_bytes()).unwrap();
    }
    let keys = [
        log.verifier(KeyKind::Note),
        witness.verifier(KeyKind::Cosignature),
        held.verifier(KeyKind::Cosignature),
    ]
    .map(|key| key.vkey() + "\n")
    .concat();

    let (all, cells) = commitments(0x22);
    let catalogue = Catalogue::builtin();
    let schema = catalogue
        .version(&Origin::parse(ORIGIN).unwrap().ledger(), 1)
        .unwrap();
    // One value, one absence that is sealed, one that has no cell.
    let shown: Vec<Position> = ["name", "phone", "employer"]
        .iter()
        .map(|id| schema.field(id).unwrap().position)
        .collect();
    let disclosure = Disclosure {
        format: FORMAT.into(),
        origin: Origin::parse(ORIGIN).unwrap(),
        record: RecordId([0x22; 16]),
        version: 1,
        schema: 1,
        fields: shown
            .iter()
            .map(|at| {
                let field = schema.at(*at).unwrap();
                let cell = cells.get(at);
                Field {
                    position: *at,
                    id: field.id.clone(),
                    name: field.name.clone(),
                    value: cell.and_then(|(_, value)| value.map(str::to_owned)),
                    salt: cell.map(|(salt, _)| hex(salt)),
                }
            })
            .collect(),
        leaves: schema.leaves(),
        siblings: content::prove(&all, &shown)
            .iter()
            .map(|h| hex(h))
            .collect(),
        entry: hex(&entries[1]),
        index: 1,
        inclusion: inclusion(&tiles, 1, 3)
            .unwrap()
            .iter()
            .map(|h| hex(h))
            .collect(),
        checkpoint: signed,
    };
    let file = File {
        mark: "FZ-0000-0009-8RY9-MQSA-E".into(),
        receipt: ReceiptOf {
            origin: Origin::parse("jiangjin.example/jinfu/access").unwrap(),
            index: 9,
            leaf: "09".repeat(32),
            at: UnixMillis(NOW * 1000),
        },
        value: disclosure,
    };
    World {
        file: serde_json::to_value(&file).unwrap(),
        keys,
    }
}

fn check(file: &Value, keys: &str) -> Result<crate::audit::check::Checked, CheckError> {
    document(
        serde_json::to_string(file).unwrap().as_bytes(),
        &vkeys(keys).unwrap(),
        None,
    )
}

/// The n-th fenced block of the format page.
fn block(page: &str, fence: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{fence}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_vector_of_the_format_page_is_what_the_page_describes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/formats/disclosure.md"
    );
    let page = std::fs::read_to_string(path).unwrap();
    let world = world(ORIGIN);
    let written: Value = serde_json::from_str(&block(&page, "json")).unwrap();
    assert_eq!(written, world.file, "{:#}\n{}", world.file, world.keys);
    assert_eq!(block(&page, "vkey"), world.keys);
    let checked = check(&written, &world.keys).unwrap();
    assert_eq!(checked.signatures.holding.len(), 3);
    let shown = checked.shown.unwrap();
    let values: Vec<_> = shown.fields.iter().map(|f| f.value.as_deref()).collect();
    assert_eq!(values, [Some("示例甲"), None, None]);
}

#[test]
fn nothing_altered_in_a_disclosure_verifies() {
    let world = world(ORIGIN);
    check(&world.file, &world.keys).unwrap_or_else(|e| panic!("{e}"));
    let another = hex(&entry(0x33));
    type Change = fn(&mut Value, &str);
    let changes: [(&str, Change, &str); 17] = [
        (
            "a flipped value",
            |f, _| f["value"]["fields"][0]["value"] = json!("示例乙"),
            "content",
        ),
        (
            "another salt",
            |f, _| f["value"]["fields"][0]["salt"] = json!("00".repeat(16)),
            "content",
        ),
        (
            "a salt for what has no cell",
            |f, _| f["value"]["fields"][2]["salt"] = json!("00".repeat(16)),
            "content",
        ),
        (
            "a value where none is",
            |f, _| f["value"]["fields"][1]["value"] = json!(""),
            "content",
        ),
        (
            "an absence where a value is",
            |f, _| {
                f["value"]["fields"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("value");
            },
            "content",
        ),
        (
            "a value without a salt",
            |f, _| {
                f["value"]["fields"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("salt");
            },
            "shape",
        ),
        (
            "another label",
            |f, _| f["value"]["fields"][0]["id"] = json!("employer"),
            "label",
        ),
        (
            "another name",
            |f, _| f["value"]["fields"][0]["name"] = json!("曾用名"),
            "label",
        ),
        (
            "another sibling",
            |f, _| f["value"]["siblings"][0] = json!("00".repeat(32)),
            "content",
        ),
        (
            "a sibling too many",
            |f, _| {
                f["value"]["siblings"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!("00".repeat(32)))
            },
            "content",
        ),
        (
            "another record's entry",
            |f, other| f["value"]["entry"] = json!(other),
            "inclusion",
        ),
        (
            "another index",
            |f, _| f["value"]["index"] = json!(0),
            "inclusion",
        ),
        (
            "another record's name",
            |f, _| f["value"]["record"] = json!("33".repeat(16)),
            "entry",
        ),
        (
            "another version",
            |f, _| f["value"]["version"] = json!(2),
            "entry",
        ),
        (
            "another format",
            |f, _| f["value"]["format"] = json!("fangzhi/disclosure/v2"),
            "version",
        ),
        (
            "an unknown member",
            |f, _| f["value"]["note"] = json!("x"),
            "shape",
        ),
        (
            "a field twice",
            |f, _| {
                let again = f["value"]["fields"][0].clone();
                f["value"]["fields"]
                    .as_array_mut()
                    .unwrap()
                    .insert(0, again);
            },
            "positions",
        ),
    ];
    for (what, change, class) in changes {
        let mut file = world.file.clone();
        change(&mut file, &another);
        let error = check(&file, &world.keys)
            .err()
            .unwrap_or_else(|| panic!("{what} verifies"));
        let CheckError::Disclosure(error) = error else {
            panic!("{what}: {error}");
        };
        let found = match error {
            DisclosureError::Content => "content",
            DisclosureError::Shape { .. } => "shape",
            DisclosureError::Label { .. } => "label",
            DisclosureError::Inclusion { .. } => "inclusion",
            DisclosureError::OtherEntry => "entry",
            DisclosureError::Version => "version",
            DisclosureError::Positions => "positions",
            DisclosureError::OtherLedger { .. } => "ledger",
        };
        assert_eq!(found, class, "{what}");
    }
}

#[test]
fn a_path_of_another_record_does_not_fit_even_with_its_own_entry() {
    // Everything of the other record but the values: inclusion holds, content does not.
    let world = world(ORIGIN);
    let mut file = world.file.clone();
    file["value"]["entry"] = json!(hex(&entry(0x11)));
    file["value"]["record"] = json!("11".repeat(16));
    file["value"]["index"] = json!(0);
    let leaves: Vec<Hash> = [0x11, 0x22, 0x33].map(|s| leaf_hash(&entry(s))).to_vec();
    let (_, writes) = plan_append(&TreeEdge::new(), &leaves);
    let tiles: BTreeMap<(u8, u64), Vec<u8>> = writes
        .into_iter()
        .map(|w| ((w.level, w.index), w.bytes))
        .collect();
    let path = inclusion(&tiles, 0, 3).unwrap();
    file["value"]["inclusion"] = json!(path.iter().map(|h| hex(h)).collect::<Vec<_>>());
    let error = check(&file, &world.keys).err().unwrap();
    assert!(matches!(
        error,
        CheckError::Disclosure(DisclosureError::Content)
    ));
}

#[test]
fn a_checkpoint_of_another_ledger_does_not_carry_a_disclosure() {
    let here = world(ORIGIN);
    let there = world("jiangjin.example/fucheng/person");
    let mut file = here.file.clone();
    file["value"]["checkpoint"] = there.file["value"]["checkpoint"].clone();
    // Both logs known: the signatures hold, the ledger is another.
    let keys = here.keys.clone() + there.keys.lines().next().unwrap();
    let error = check(&file, &keys).err().unwrap();
    assert!(matches!(
        error,
        CheckError::Disclosure(DisclosureError::OtherLedger { .. })
    ));
}

#[test]
fn signatures_count_only_by_known_keys_and_the_log_must_have_signed() {
    let world = world(ORIGIN);
    let (log, others) = world.keys.split_once('\n').unwrap();

    // Without the log's key the cosigners' do not help.
    let error = check(&world.file, others).err().unwrap();
    assert!(matches!(error, CheckError::UnknownLog { .. }));

    // The log's key alone is enough; the other lines are named as unknown.
    let checked = check(&world.file, log).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(checked.signatures.holding.len(), 1);
    assert_eq!(checked.signatures.unknown.len(), 2);

    // A stripped log signature is not made good by cosignatures.
    let note = world.file["value"]["checkpoint"].as_str().unwrap();
    let stripped: String = note
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(&format!("\u{2014} {ORIGIN} ")))
        .collect();
    let mut file = world.file.clone();
    file["value"]["checkpoint"] = json!(stripped);
    let error = check(&file, &world.keys).err().unwrap();
    assert!(matches!(error, CheckError::Signature { .. }));

    // One bad line by a known key refuses the whole.
    let line = note.lines().find(|l| l.contains("/witness ")).unwrap();
    let middle = line.len() - 30;
    let swapped = if &line[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let bad = format!("{}{swapped}{}", &line[..middle], &line[middle + 1..]);
    file["value"]["checkpoint"] = json!(note.replace(line, &bad));
    let error = check(&file, &world.keys).err().unwrap();
    assert!(matches!(error, CheckError::Signature { .. }));
}

#[test]
fn an_error_repeats_no_value() {
    let world = world(ORIGIN);
    let text = serde_json::to_string(&world.file).unwrap();
    let broken = text.replace("\"示例甲\"", "\"示例甲\",\"示例甲\"");
    let error = document(broken.as_bytes(), &vkeys(&world.keys).unwrap(), None)
        .err()
        .unwrap();
    assert!(!error.to_string().contains("示例"), "{error}");
    let mistyped = text.replace("\"version\":1", "\"version\":\"示例甲\"");
    let error = document(mistyped.as_bytes(), &vkeys(&world.keys).unwrap(), None)
        .err()
        .unwrap();
    assert!(!error.to_string().contains("示例"), "{error}");
}
