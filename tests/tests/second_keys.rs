//! What we seal, Python's `cryptography` opens, and what it seals we open: `tests/outside/keys.py`.
//!
//! Owns the record of nobody that goes back and forth. The script was written from
//! `docs/formats/` and shares no code with us, so that a lifetime from now somebody else can
//! do the same.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "outside/python.rs"]
mod python;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use ledger::note::{KeyKind, Note, NoteSigner, Verifier};
use python::{Wanted, sources};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use record::draft::Draft;
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::schema::{Catalogue, Position, Schema};
use seal::body::{Body, CellContext, Opened, open_all, seal_body};
use seal::derive::{FieldKeys, field_key, row_key, row_keys};
use seal::grant::{EnvelopeError, EnvelopeInfo, SealPrivateKey, open_envelope, seal_envelope};
use seal::operator::seal_operator;
use seal::parcel::{GrantScope, Parcel, ShardLeaf};
use seal::passphrase::Argon2Params;
use seal::secret::{EpochSecret, GrantSecret, RecordSecret, Seed};
use seal::share::{ShareContext, split};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::absent;

const RECORD: RecordId = RecordId([0x33; 16]);
const GRANT: GrantId = GrantId([0x66; 16]);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

#[track_caller]
fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// The Python that has `cryptography`, or `None` after saying that nothing was checked.
fn cryptography() -> Option<&'static PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let wanted = Wanted {
            venv: "outside-keys-venv",
            module: "cryptography",
            version: "50.0.2",
            requirements: "requirements-keys.txt",
            minor: 9,
        };
        let not_checked = "keys and cells were not opened with Python's cryptography";
        let absent = |why: String| absent(not_checked, "FANGZHI_WITHOUT_CRYPTOGRAPHY", &why);
        wanted.python().map_err(absent).ok()
    });
    found.as_ref()
}

/// Has the script do one thing.
#[track_caller]
fn ask(job: Value) -> Option<Value> {
    let mut child = Command::new(cryptography()?)
        .arg(sources().join("keys.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &json!([job])).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "keys.py failed; its words are above"
    );
    let mut results: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    results.pop()
}

fn merged(mut job: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    job.as_object_mut().unwrap().extend(more);
    job
}

/// One shard with one record in it.
struct Register {
    origin: Origin,
    schema: Schema,
    epoch: EpochSecret,
    record: RecordSecret,
}

fn register() -> Register {
    let person = Kind::new("person").unwrap();
    Register {
        origin: Origin::parse("jiangjin.example/jinfu/person").unwrap(),
        schema: Catalogue::builtin().version(&person, 1).unwrap().clone(),
        epoch: EpochSecret::generate(&mut rng(1)),
        record: RecordSecret::generate(&mut rng(2)),
    }
}

impl Register {
    fn ctx(&self) -> CellContext<'_> {
        CellContext {
            origin: &self.origin,
            record: RECORD,
            version: 7,
            epoch: 3,
            schema: self.schema.version,
        }
    }

    fn keys(&self) -> FieldKeys {
        FieldKeys::derive(&self.epoch, &self.origin, 3, &self.schema)
    }

    fn entry(&self, content: Hash, body: Hash) -> RecordEntry {
        RecordEntry {
            suite: SUITE,
            record: RECORD,
            version: 7,
            operation: Operation::Amend,
            previous: Some([9; 32]),
            schema: self.schema.version,
            epoch: 3,
            content,
            body,
            recorded_at: UnixMillis(1_767_225_600_000),
        }
    }

    /// What the script needs to open or seal a body.
    fn job(&self) -> Value {
        let fields: Vec<Value> = self
            .schema
            .fields
            .iter()
            .map(|field| {
                json!({
                    "position": field.position,
                    "width": field.width,
                    "group": field.group.as_str(),
                    "always": field.sensitivity.always_sealed(),
                })
            })
            .collect();
        json!({
            "origin": self.origin.as_str(),
            "record": hex(RECORD.0),
            "version": 7,
            "epoch": 3,
            "schema": self.schema.version,
            "epoch_secret": hex(self.epoch.expose()),
            "record_secret": hex(self.record.expose()),
            "fields": fields,
        })
    }

    /// A sealed body and its entry.
    fn sealed(&self) -> (Vec<u8>, RecordEntry) {
        let mut draft = Draft::default();
        for (field, value) in [("name", "张三"), ("citizen_number", "11010519491231002X")] {
            draft.fields.insert(field.into(), value.into());
        }
        let checked = draft
            .check(&self.schema, Catalogue::builtin(), "2026-06-30")
            .unwrap();
        let (ctx, keys) = (self.ctx(), self.keys());
        let sealed = seal_body(
            &checked,
            &self.schema,
            &ctx,
            &keys,
            &self.record,
            &mut rng(3),
        )
        .unwrap();
        let entry = self.entry(sealed.content, sealed.hash);
        (sealed.bytes, entry)
    }

    fn opened(&self, bytes: &[u8], entry: &RecordEntry) -> BTreeMap<Position, Opened> {
        let body = Body::decode(bytes).unwrap();
        let (ctx, keys) = (self.ctx(), self.keys());
        open_all(&body, entry, &self.schema, &ctx, &keys, &self.record).unwrap()
    }
}

fn values(opened: &BTreeMap<Position, Opened>) -> Value {
    let value = |(at, cell): (&Position, &Opened)| (at.to_string(), json!(cell.value()));
    Value::Object(opened.iter().map(value).collect())
}

#[test]
fn both_derive_the_same_keys() {
    let register = register();
    let group = Kind::new("identity").unwrap();
    let job = json!({"do": "keys", "position": 12, "group": group.as_str()});
    let Some(theirs) = ask(merged(job, &register.job())) else {
        return;
    };
    let field = field_key(&register.epoch, &register.origin, 3, 12);
    assert_eq!(unhex(&theirs["field"]), field.expose());
    let row = row_key(&register.record, &register.origin, &RECORD, &group);
    assert_eq!(unhex(&theirs["row"]), row.expose());
}

#[test]
fn a_body_that_we_seal_opens_in_python_to_the_same_values_and_content() {
    let register = register();
    let (body, entry) = register.sealed();
    let job = json!({"do": "open_body", "body": hex(&body)});
    let Some(theirs) = ask(merged(job, &register.job())) else {
        return;
    };
    let ours = values(&register.opened(&body, &entry));
    assert!(ours.as_object().unwrap().len() > 2);
    assert_eq!(theirs["values"], ours);
    assert_eq!(unhex(&theirs["content"]), entry.content);
    // Another version of the record, and one flipped bit: Python sees it too.
    let job = merged(
        json!({"do": "open_body", "body": hex(&body)}),
        &register.job(),
    );
    let elsewhere = ask(merged(job.clone(), &json!({"version": 8}))).unwrap();
    assert_eq!(elsewhere["refused"], "a ciphertext does not open");
    let mut flipped = body.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let altered = ask(merged(job, &json!({"body": hex(flipped)}))).unwrap();
    assert_eq!(altered["refused"], "a ciphertext does not open");
}

#[test]
fn a_body_that_python_seals_opens_here_to_the_same_values_and_content() {
    let register = register();
    let (body, entry) = register.sealed();
    let ours = values(&register.opened(&body, &entry));
    let job = json!({"do": "seal_body", "values": ours});
    let Some(theirs) = ask(merged(job, &register.job())) else {
        return;
    };
    let bytes = unhex(&theirs["body"]);
    assert_ne!(bytes, body);
    let content = unhex(&theirs["content"]).try_into().unwrap();
    let entry = register.entry(content, Sha256::digest(&bytes).into());
    assert_eq!(values(&register.opened(&bytes, &entry)), ours);
}

fn info(fields: &[Position]) -> EnvelopeInfo {
    EnvelopeInfo {
        grant: GRANT,
        owner_charter: [2; 32],
        holder_charter: [3; 32],
        origin: Origin::parse("jiangjin.example/jinfu/person").unwrap(),
        epoch: 3,
        fields: fields.to_vec(),
    }
}

fn info_job(info: &EnvelopeInfo) -> Value {
    json!({
        "grant": hex(info.grant.0),
        "owner_charter": hex(info.owner_charter),
        "holder_charter": hex(info.holder_charter),
        "origin": info.origin.as_str(),
        "epoch": info.epoch,
        "fields": info.fields,
    })
}

#[test]
fn an_envelope_goes_both_ways_and_opens_for_its_holder_grant_and_epoch_only() {
    let register = register();
    let fields: Vec<Position> = register.schema.fields[..3]
        .iter()
        .map(|field| field.position)
        .collect();
    let info = info(&fields);
    let holder = SealPrivateKey::generate(&mut rng(4));
    let secret = GrantSecret::generate(&mut rng(5));
    let keys = register.keys().subset(&fields);
    let envelope = seal_envelope(&info, &holder.public(), &secret, &keys, &mut rng(6)).unwrap();
    let job = json!({
        "do": "open_envelope",
        "seed": hex(holder.expose()),
        "envelope": hex(&envelope),
    });
    let job = merged(job, &info_job(&info));
    let Some(theirs) = ask(job.clone()) else {
        return;
    };
    assert_eq!(unhex(&theirs["secret"]), secret.expose());
    let named: BTreeMap<String, String> = keys
        .iter()
        .map(|(at, key)| (at.to_string(), hex(key.expose())))
        .collect();
    assert_eq!(theirs["keys"], json!(named));

    let another = SealPrivateKey::generate(&mut rng(7));
    for other in [
        json!({"seed": hex(another.expose())}),
        json!({"holder_charter": hex([4; 32])}),
        json!({"origin": "jiangjin.example/jinfu/unit"}),
        json!({"epoch": 4}),
    ] {
        let refused = ask(merged(job.clone(), &other)).unwrap();
        assert_eq!(refused["refused"], "the envelope does not open", "{other}");
    }

    // Back: Python seals to the holder's public key.
    let job = json!({
        "do": "seal_envelope",
        "public": hex(holder.public()),
        "secret": hex(secret.expose()),
        "keys": named,
    });
    let sealed = unhex(&ask(merged(job, &info_job(&info))).unwrap()["envelope"]);
    assert_ne!(sealed, envelope);
    let (their_secret, their_keys) = open_envelope(&info, &holder, &sealed).unwrap();
    assert!(their_secret == secret && their_keys == keys);
    let refused = open_envelope(&info, &another, &sealed).unwrap_err();
    assert_eq!(refused, EnvelopeError::Sealed);
}

#[test]
fn a_parcel_opens_in_python_to_the_granted_fields_and_no_other_groups() {
    let register = register();
    let (bytes, entry) = register.sealed();
    let opened = register.opened(&bytes, &entry);
    let schema = &register.schema;
    let granted: Vec<Position> = schema
        .fields
        .iter()
        .filter(|field| field.group.as_str() == "identity")
        .map(|field| field.position)
        .collect();
    let groups = schema.fields.iter().map(|field| &field.group);
    let rows = row_keys(&register.record, &register.origin, &RECORD, groups);
    let secret = GrantSecret::generate(&mut rng(5));
    let scope = GrantScope {
        grant: GRANT,
        origin: &register.origin,
        fields: &granted,
        secret: &secret,
        whole: false,
    };
    let leaf = ShardLeaf {
        entry: Entry::Record(entry).encode(),
        index: 9,
        inclusion: vec![[1; 32]],
    };
    let body = Body::decode(&bytes).unwrap();
    let parcel = Parcel::build(leaf, &body, &opened, schema, &rows, &scope, &mut rng(8)).unwrap();
    let keys: BTreeMap<String, String> = register
        .keys()
        .subset(&granted)
        .iter()
        .map(|(at, key)| (at.to_string(), hex(key.expose())))
        .collect();
    let job = json!({
        "do": "open_parcel",
        "parcel": hex(parcel.encode()),
        "granted": granted,
        "grant": hex(GRANT.0),
        "secret": hex(secret.expose()),
        "keys": keys,
    });
    let job = merged(register.job(), &job);
    let Some(theirs) = ask(job.clone()) else {
        return;
    };
    let mut ours = values(&opened);
    ours.as_object_mut()
        .unwrap()
        .retain(|at, _| keys.contains_key(at));
    assert_eq!(theirs["values"], ours);
    assert_eq!(theirs["groups"], json!(["identity"]));
    let other = json!({"grant": hex([0x67; 16])});
    let refused = ask(merged(job, &other)).unwrap();
    assert_eq!(refused["refused"], "a ciphertext does not open");
}

#[test]
fn signatures_of_both_verify_with_the_other() {
    let text = "jiangjin.example/jinfu/person\n1\nAAAA\n";
    let name = "jiangjin.example/jinfu/person";
    let seed = Seed::generate(&mut rng(9));
    let signer = NoteSigner::new(name, seed.signing_key()).unwrap();
    let note = Note::sign(text, &signer).unwrap();
    let public = seed.signing_key().verifying_key();
    let job = json!({
        "do": "verify",
        "key": hex(public),
        "signature": hex(note.signatures()[0].signature()),
        "text": text,
    });
    let Some(theirs) = ask(job.clone()) else {
        return;
    };
    assert_eq!(theirs, json!({}));
    let refused = ask(merged(job, &json!({"text": "another\n"}))).unwrap();
    assert_eq!(refused["refused"], "the signature does not verify");

    let job = json!({"do": "sign", "seed": hex(seed.expose()), "text": text});
    let theirs = ask(job).unwrap();
    let key: [u8; 32] = unhex(&theirs["key"]).try_into().unwrap();
    assert_eq!(
        SigningKey::from_bytes(seed.expose())
            .verifying_key()
            .to_bytes(),
        key
    );
    let verifier = Verifier::new(name, KeyKind::Note, &key).unwrap();
    let line = [
        &verifier.id().to_be_bytes(),
        &unhex(&theirs["signature"])[..],
    ]
    .concat();
    let line = BASE64.encode(&line);
    let noted = format!("{text}\n\u{2014} {name} {line}\n");
    let signed = Note::parse(noted.as_bytes()).unwrap();
    assert_eq!(signed.verify(&[verifier]).unwrap().len(), 1);
}

#[test]
fn an_operators_file_opens_in_python_under_its_passphrase_only() {
    let seed = Seed::generate(&mut rng(10));
    let params = Argon2Params {
        m_kib: 1024,
        t: 2,
        p: 2,
        ..Argon2Params::recommended(&mut rng(11))
    };
    let file = seal_operator(seed.expose(), "正确的马".as_bytes(), &params, &mut rng(12)).unwrap();
    let job = json!({"do": "open_operator", "file": hex(file), "passphrase": "正确的马"});
    let Some(theirs) = ask(job.clone()) else {
        return;
    };
    assert_eq!(unhex(&theirs["seed"]), seed.expose());
    let refused = ask(merged(job, &json!({"passphrase": "错误的马"}))).unwrap();
    assert_eq!(refused["refused"], "another key");
}

#[test]
fn typed_shares_give_the_secret_back_in_python() {
    let context = ShareContext {
        realm: register().origin.realm(),
        division: register().origin.division(),
    };
    let secret = *RecordSecret::generate(&mut rng(13)).expose();
    let (header, shares) = split(&secret, 5, 3, &context, &mut rng(14)).unwrap();
    let typed = |numbers: [usize; 3]| numbers.map(|at| shares[at].to_text().to_string());
    let job = json!({
        "do": "combine",
        "header": hex(header.encode()),
        "shares": typed([4, 0, 2]),
    });
    let Some(theirs) = ask(job.clone()) else {
        return;
    };
    assert_eq!(unhex(&theirs["secret"]), secret);
    let two = ask(merged(job, &json!({"shares": typed([4, 0, 2])[..2]}))).unwrap();
    assert_eq!(two["refused"], "another secret");
}
