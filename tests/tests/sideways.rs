//! What leaves sideways: exactly the granted fields of the granted rows, and proof that they are
//! the owner's.
//!
//! A district, its town, a community under that and a department, all in this process. The
//! adversary is a department that has everything of the town as well; it reads the formats from
//! `docs/formats/grant.md`, not from the code that writes them.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use ledger::checkpoint::verify_cosignature;
use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, Verifier};
use ledger::proof::verify_inclusion;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use record::authority::{GrantStatement, Level, Role, Statement};
use record::entry::{Entry, GrantEntry, GrantOperation};
use record::id::{GrantId, Origin, RecordId, UnixMillis};
use record::schema::{Catalogue, Position};
use registry::RegistryError;
use registry::grant::GrantRequest;
use registry::read::{Answer, AnswerRow, Comparison, Filter, ReadRequest};
use registry::register::Amendment;
use registry::session::Session;
use registry::verify::VerifyReport;
use seal::body::{Body, CellContext, open_cell};
use seal::grant::{EnvelopeInfo, open_envelope};
use seal::parcel::Parcel;
use seal::secret::{FieldKey, GrantSecret, RowKey};
use sha2::{Digest, Sha256};
use store::Snapshot;
use tests::realm::forge::{self, keystore};
use tests::realm::{
    DAY, NOW, PASSPHRASE, REALM, Row, Site, division, kind, origin, purpose, replicate, rows,
    settle,
};

/// Few enough that every key can be tried on every cell.
const PERSONS: usize = 16;

/// What the department is granted: of identity, residence and care, never all of a group.
const GRANTED: [&str; 6] = [
    "name",
    "sex",
    "birth_date",
    "household_code",
    "residence_kind",
    "welfare",
];

struct World {
    /// Lives as long as the nodes in it.
    base: tempfile::TempDir,
    district: Site,
    town: Site,
    community: Site,
    department: Site,
    clerk: Session,
    officer: Session,
    persons: Vec<Row>,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = base.path();
        let district = Site::root(at, REALM, "jiangjin", NOW);
        let town = Site::join(&district, at, "shuangfu", Level::Town, NOW);
        let community = Site::join(&town, at, "jinfu", Level::Community, NOW);
        let department = Site::join(&district, at, "minzheng", Level::Department, NOW);
        let clerk = community.operator(Role::Clerk, None, NOW);
        let officer = department.operator(Role::DepartmentOfficer, None, NOW);
        let mut persons = rows("person", 7, PERSONS, 1);
        for (at, row) in persons.iter_mut().enumerate() {
            // Every second one is registered here, and only they are granted.
            let residence = if at % 2 == 0 { "10" } else { "20" };
            row.insert("residence_kind".into(), residence.into());
            row.insert("welfare".into(), "10".into());
            row.insert("phone".into(), format!("154{at:08}"));
        }
        community.import(&clerk, "person", &persons, NOW);
        let world = Self {
            base,
            district,
            town,
            community,
            department,
            clerk,
            officer,
            persons,
        };
        world.settle(NOW);
        world
    }

    fn settle(&self, now: UnixMillis) {
        settle(
            &[
                (&self.community, &self.town),
                (&self.town, &self.district),
                (&self.department, &self.district),
            ],
            now,
        );
    }

    /// Grants [`GRANTED`] of those registered here to the department.
    fn grant(&self) -> GrantStatement {
        let id = self
            .community
            .registry
            .grant(&self.community.officer, &request(), NOW)
            .unwrap();
        self.settle(NOW);
        self.statement(id)
    }

    fn statement(&self, id: GrantId) -> GrantStatement {
        let store = Snapshot::open(&self.community.dir).unwrap();
        forge::leaves(&store, &origin("jinfu", "authority"))
            .into_iter()
            .find_map(|(entry, _)| match entry {
                Entry::Authority(entry) => match entry.statement {
                    Statement::Grant(grant) if grant.id == id => Some(grant),
                    _ => None,
                },
                _ => None,
            })
            .unwrap()
    }

    /// What the department's officer reads of the persons that it was granted.
    fn read(
        &self,
        filters: &[(&str, &str)],
        now: UnixMillis,
    ) -> Result<Vec<AnswerRow>, RegistryError> {
        let answer = self
            .department
            .registry
            .read(&self.officer, &reading(filters), now)?;
        Ok(answered(answer))
    }

    /// What the community's clerk reads of one person.
    fn person(&self, citizen_number: &str) -> AnswerRow {
        let request = ReadRequest {
            closed: false,
            purpose: purpose("registration"),
            ..reading(&[("citizen_number", citizen_number)])
        };
        let answer = self
            .community
            .registry
            .read(&self.clerk, &request, NOW)
            .unwrap();
        answered(answer).swap_remove(0)
    }

    /// Closes all nodes; the directory keeps them.
    fn close(self) -> tempfile::TempDir {
        for site in [self.community, self.department, self.town, self.district] {
            site.close();
        }
        self.base
    }
}

fn answered(marked: watermark::Marked<Answer>) -> Vec<AnswerRow> {
    let row = |row: &AnswerRow| AnswerRow {
        record: row.record,
        origin: row.origin.clone(),
        version: row.version,
        fields: row.fields.clone(),
    };
    marked.value().rows.iter().map(row).collect()
}

fn request() -> GrantRequest {
    GrantRequest {
        kind: kind("person"),
        holder: division("minzheng"),
        fields: GRANTED.map(str::to_owned).to_vec(),
        rows: BTreeMap::from([("residence_kind".into(), "10".into())]),
        purpose: purpose("welfare"),
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-2026-001".into(),
        days: 30,
        history: record::authority::History::default(),
    }
}

fn reading(filters: &[(&str, &str)]) -> ReadRequest {
    ReadRequest {
        closed: false,
        kind: kind("person"),
        filters: filters
            .iter()
            .map(|(field, value)| Filter {
                field: (*field).into(),
                comparison: Comparison::Equals,
                value: (*value).into(),
            })
            .collect(),
        fields: None,
        purpose: purpose("welfare"),
        basis: None,
        limit: None,
    }
}

/// The position of a field of persons.
fn at(id: &str) -> Position {
    let schema = Catalogue::builtin().schema(&kind("person")).unwrap();
    schema.field(id).unwrap().position
}

// ---- the adversary -------------------------------------------------------------------------

/// A parcel, read by its format's description.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[n(2)]
    entry: ByteVec,
    #[n(3)]
    index: u64,
    #[n(4)]
    inclusion: Vec<ByteArray<32>>,
    #[n(5)]
    body_nonce: ByteArray<24>,
    #[n(6)]
    cells: Vec<(Position, ByteVec)>,
    #[n(7)]
    siblings: Vec<ByteArray<32>>,
    #[n(8)]
    keys_nonce: ByteArray<24>,
    #[n(9)]
    keys: ByteVec,
}

/// Keys of either kind, whatever they are for: 32 bytes.
type Keys = BTreeSet<[u8; 32]>;

/// What a holder gets out of a grant with its seal key.
struct Loot {
    secret: GrantSecret,
    fields: BTreeMap<Position, FieldKey>,
    /// The rows that were ever in scope, with the keys of their groups.
    rows: BTreeMap<RecordId, Vec<[u8; 32]>>,
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let mut counted = (bytes.len() as u16).to_be_bytes().to_vec();
    counted.extend(bytes);
    counted
}

fn loot(holder: &Site, owner: &Site, grant: &GrantStatement) -> Loot {
    let info = EnvelopeInfo {
        grant: grant.id,
        owner_charter: owner.charter().id(),
        holder_charter: holder.charter().id(),
        origin: grant.origin.clone(),
        epoch: grant.epoch,
        fields: grant.fields.clone(),
    };
    let store = Snapshot::open(&holder.dir).unwrap();
    let ledger = grant.origin.grant(&grant.id);
    let mut rows = BTreeMap::new();
    let mut keys = None;
    for (entry, body) in forge::leaves(&store, &ledger) {
        let (Entry::Grant(entry), Some(body)) = (entry, body) else {
            continue;
        };
        match entry.operation {
            GrantOperation::Keys => {
                keys = Some(open_envelope(&info, &keystore(&holder.dir).seal, &body).unwrap());
            }
            GrantOperation::Enter | GrantOperation::Update | GrantOperation::Reseal => {
                let (secret, _) = keys.as_ref().unwrap();
                let row_keys = row_keys(secret, grant, &body);
                rows.insert(entry.record.unwrap(), row_keys);
            }
            GrantOperation::Heartbeat | GrantOperation::Retract => {}
        }
    }
    let (secret, fields) = keys.unwrap();
    Loot {
        secret,
        fields,
        rows,
    }
}

/// The row keys of a parcel, as `docs/formats/grant.md` says that they are sealed.
fn row_keys(secret: &GrantSecret, grant: &GrantStatement, parcel: &[u8]) -> Vec<[u8; 32]> {
    let wire: Wire = minicbor::decode(parcel).unwrap();
    let Entry::Record(entry) = Entry::decode(&wire.entry).unwrap() else {
        panic!("a parcel carries a record's entry");
    };
    let mut info = b"fangzhi/parcel-key/v1\0\x01".to_vec();
    info.extend(grant.id.0);
    info.extend(entry.record.0);
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(&[]), secret.expose())
        .expand(&info, &mut key)
        .unwrap();
    let mut without = wire.clone();
    without.keys = ByteVec::from(vec![]);
    let mut aad = b"fangzhi/parcel/v1\0\x01".to_vec();
    aad.extend(grant.id.0);
    aad.extend(text(grant.origin.as_str().as_bytes()));
    aad.extend(entry.record.0);
    aad.extend(entry.version.to_be_bytes());
    aad.extend(text(&grant.fields));
    aad.extend(Sha256::digest(minicbor::to_vec(&without).unwrap()));
    let plain = XChaCha20Poly1305::new(&Key::from(key))
        .decrypt(
            &XNonce::from(*wire.keys_nonce),
            Payload {
                msg: &wire.keys,
                aad: &aad,
            },
        )
        .unwrap();
    let rows: Vec<(String, ByteArray<32>)> = minicbor::decode(&plain).unwrap();
    rows.into_iter().map(|(_, key)| *key).collect()
}

/// Every secret in a node's keystore, whatever it is for.
fn secrets(dir: &Path) -> Keys {
    let keys = keystore(dir);
    let mut all = Keys::from([
        *keys.sign.expose(),
        *keys.witness.expose(),
        *keys.held.expose(),
        *keys.transport.expose(),
        *keys.seal.expose(),
        *keys.index.expose(),
        *keys.access.expose(),
        *keys.mark.expose(),
    ]);
    all.extend(keys.epochs.values().map(|secret| *secret.expose()));
    all.extend(keys.pages.values().map(|key| *key.expose()));
    all
}

/// Tries each pair of keys on each cell of the shard that the town holds; gives the record and
/// position of those that opened.
fn opened(town: &Path, fields: &Keys, rows: &Keys) -> BTreeSet<(RecordId, Position)> {
    let shard = origin("jinfu", "person");
    let store = Snapshot::open(town).unwrap();
    let schema = Catalogue::builtin().schema(&kind("person")).unwrap();
    let fields: Vec<FieldKey> = fields
        .iter()
        .map(|key| FieldKey::from_bytes(*key))
        .collect();
    let rows: Vec<RowKey> = rows.iter().map(|key| RowKey::from_bytes(*key)).collect();
    let mut found = BTreeSet::new();
    for (entry, body) in forge::leaves(&store, &shard) {
        let (Entry::Record(entry), Some(body)) = (entry, body) else {
            continue;
        };
        let body = Body::decode(&body).unwrap();
        let context = CellContext::of(&shard, &entry);
        for position in body.positions() {
            let width = schema.at(position).unwrap().width;
            let opens = fields.iter().any(|field| {
                rows.iter()
                    .any(|row| open_cell(&body, position, field, row, &context, width).is_ok())
            });
            if opens {
                found.insert((entry.record, position));
            }
        }
    }
    found
}

/// The cells that the shard has at these positions, of records that `fits` takes.
fn cells(
    town: &Path,
    positions: &BTreeSet<Position>,
    fits: impl Fn(&RecordId) -> bool,
) -> BTreeSet<(RecordId, Position)> {
    let store = Snapshot::open(town).unwrap();
    forge::leaves(&store, &origin("jinfu", "person"))
        .into_iter()
        .filter_map(|(entry, body)| match entry {
            Entry::Record(entry) if fits(&entry.record) => Some((entry.record, body?)),
            _ => None,
        })
        .flat_map(|(record, body)| {
            let there: Vec<Position> = Body::decode(&body).unwrap().positions().collect();
            there.into_iter().map(move |position| (record, position))
        })
        .filter(|(_, position)| positions.contains(position))
        .collect()
}

fn field_keys(loot: &Loot) -> Keys {
    loot.fields.values().map(|key| *key.expose()).collect()
}

fn rows_keys(loot: &Loot) -> Keys {
    loot.rows.values().flatten().copied().collect()
}

#[test]
fn department_and_town_together_open_the_granted_fields_of_the_granted_rows_and_nothing_else() {
    let world = World::new();
    let grant = world.grant();
    let loot = loot(&world.department, &world.community, &grant);
    assert_eq!(loot.fields.len(), GRANTED.len());
    assert_eq!(loot.rows.len(), PERSONS / 2);

    // Whatever either has may be tried as either kind of key.
    let mut anything = secrets(&world.department.dir);
    anything.extend(secrets(&world.town.dir));
    anything.insert(*loot.secret.expose());
    anything.insert(grant.envelope);
    let (mut fields, mut rows) = (anything.clone(), anything);
    fields.extend(field_keys(&loot));
    rows.extend(rows_keys(&loot));
    // Row keys in the place of field keys, and the other way round.
    fields.extend(rows_keys(&loot));
    rows.extend(field_keys(&loot));

    let granted: BTreeSet<Position> = GRANTED.map(at).into();
    let expected = cells(&world.town.dir, &granted, |record| {
        loot.rows.contains_key(record)
    });
    assert!(expected.len() >= PERSONS / 2 * 5);
    assert_eq!(opened(&world.town.dir, &fields, &rows), expected);

    // By name: the number beside the granted name, and the name of somebody not in scope.
    let outside = world.persons[1]["citizen_number"].as_str();
    let outside = world.person(outside).record;
    let inside = *loot.rows.keys().next().unwrap();
    assert!(!loot.rows.contains_key(&outside));
    assert!(!expected.contains(&(inside, at("citizen_number"))));
    assert!(!expected.contains(&(inside, at("phone"))));
    assert!(!expected.contains(&(outside, at("name"))));
    world.close();
}

#[test]
fn no_secret_of_the_owner_lies_in_any_byte_of_the_department_or_of_the_town() {
    let world = World::new();
    let grant = world.grant();
    let loot = loot(&world.department, &world.community, &grant);
    let mut needles = secrets(&world.community.dir);
    needles.extend(field_keys(&loot));
    needles.extend(rows_keys(&loot));
    needles.insert(*loot.secret.expose());
    let values: Vec<&[u8]> = world
        .persons
        .iter()
        .flat_map(|row| [&row["name"], &row["citizen_number"]])
        .map(|value| value.as_bytes())
        .collect();
    let base = world.base.path();
    for node in ["minzheng", "shuangfu", "jiangjin"] {
        let bytes = all_bytes(&base.join(node));
        // The first eight bytes decide nearly always.
        let mut heads: HashMap<[u8; 8], Vec<&[u8]>> = HashMap::new();
        for needle in needles.iter().map(|n| &n[..]).chain(values.iter().copied()) {
            let Some(head) = needle.first_chunk::<8>() else {
                continue;
            };
            heads.entry(*head).or_default().push(needle);
        }
        let found = bytes.windows(8).enumerate().any(|(place, head)| {
            let candidates = heads.get(head);
            candidates
                .into_iter()
                .flatten()
                .any(|needle| bytes[place..].starts_with(needle))
        });
        assert!(!found, "a secret or a value lies open in `{node}`");
    }
    // The search itself finds what is there.
    let own = all_bytes(&base.join("minzheng"));
    let kek = std::fs::read(base.join("minzheng/kek")).unwrap();
    assert!(own.windows(32).any(|window| window == kek));
    // Nor has the town, or the department, a key of the owner's shard in its keystore.
    for site in [&world.town, &world.department, &world.district] {
        let keys = keystore(&site.dir);
        assert!(
            keys.epochs
                .keys()
                .all(|(of, _)| of.division() != division("jinfu"))
        );
    }
    world.close();
}

fn all_bytes(dir: &Path) -> Vec<u8> {
    let mut bytes = vec![];
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            bytes.extend(all_bytes(&path));
        } else {
            bytes.extend(std::fs::read(&path).unwrap());
        }
    }
    bytes
}

#[test]
fn the_town_opens_with_its_own_grant_exactly_what_that_names() {
    let world = World::new();
    let department = world.grant();
    let town = GrantRequest {
        holder: division("shuangfu"),
        fields: vec!["status".into(), "grid".into(), "ethnicity".into()],
        rows: BTreeMap::new(),
        purpose: purpose("statistics"),
        ..request()
    };
    let id = world
        .community
        .registry
        .grant(&world.community.officer, &town, NOW)
        .unwrap();
    world.settle(NOW);
    let town = loot(&world.town, &world.community, &world.statement(id));
    assert_eq!(town.rows.len(), PERSONS);

    let own: BTreeSet<Position> = ["status", "grid", "ethnicity"].map(at).into();
    let found = opened(&world.town.dir, &field_keys(&town), &rows_keys(&town));
    assert_eq!(found, cells(&world.town.dir, &own, |_| true));

    // The grant of the department passed through the town, which cannot open its envelope.
    let store = Snapshot::open(&world.district.dir).unwrap();
    let ledger = department.origin.grant(&department.id);
    let (_, envelope) = forge::leaves(&store, &ledger).swap_remove(0);
    let info = EnvelopeInfo {
        grant: department.id,
        owner_charter: world.community.charter().id(),
        holder_charter: world.department.charter().id(),
        origin: department.origin.clone(),
        epoch: department.epoch,
        fields: department.fields.clone(),
    };
    let envelope = envelope.unwrap();
    for site in [&world.town, &world.district, &world.community] {
        assert!(open_envelope(&info, &keystore(&site.dir).seal, &envelope).is_err());
    }
    world.close();
}

#[test]
fn holders_who_pool_two_grants_open_the_fields_of_both_within_a_group_and_no_other() {
    // The limit that docs/formats/grant.md states: keys of the one, rows of the other.
    let world = World::new();
    let department = loot(&world.department, &world.community, &world.grant());
    let town = GrantRequest {
        holder: division("shuangfu"),
        fields: vec!["grid".into(), "ethnicity".into()],
        rows: BTreeMap::new(),
        purpose: purpose("statistics"),
        ..request()
    };
    let id = world
        .community
        .registry
        .grant(&world.community.officer, &town, NOW)
        .unwrap();
    world.settle(NOW);
    let town = loot(&world.town, &world.community, &world.statement(id));
    let (mut fields, mut rows) = (field_keys(&department), rows_keys(&department));
    fields.extend(field_keys(&town));
    rows.extend(rows_keys(&town));

    let in_scope = |record: &RecordId| department.rows.contains_key(record);
    let all: BTreeSet<Position> = GRANTED
        .map(at)
        .into_iter()
        .chain([at("grid"), at("ethnicity")])
        .collect();
    let mut expected = cells(&world.town.dir, &all, in_scope);
    // Of the other rows the town has the keys of the groups control and identity only.
    let pooled = ["name", "sex", "birth_date", "ethnicity", "grid"]
        .map(at)
        .into();
    expected.extend(cells(&world.town.dir, &pooled, |record| !in_scope(record)));
    assert_eq!(opened(&world.town.dir, &fields, &rows), expected);
    world.close();
}

// ---- what came can be checked --------------------------------------------------------------

/// What does not hold, in English.
fn findings(report: &VerifyReport) -> Vec<String> {
    let english = |what: &str| what.split_once(" / ").map_or(what, |(_, en)| en).to_owned();
    let findings = report.findings.iter();
    findings.map(|finding| english(&finding.what)).collect()
}

fn verified(dir: &Path) -> VerifyReport {
    registry::verify::verify(dir).unwrap()
}

#[test]
fn every_row_received_is_proven_under_a_checkpoint_that_the_community_signed_and_the_town_cosigned()
{
    let world = World::new();
    let grant = world.grant();
    let report = verified(&world.department.dir);
    assert!(report.ok, "{:?}", findings(&report));

    // The same once more, by hand, with public keys alone.
    let owner = world.community.charter().keys;
    let log = Verifier::new(grant.origin.as_str(), KeyKind::Note, &owner.sign).unwrap();
    let town = world.town.charter().keys;
    let cosigners = [("witness", town.witness), ("held", town.held)].map(|(role, key)| {
        let name = format!("{REALM}/shuangfu/{role}");
        Verifier::new(&name, KeyKind::Cosignature, &key).unwrap()
    });
    let store = Snapshot::open(&world.department.dir).unwrap();
    let leaves = forge::leaves(&store, &grant.origin.grant(&grant.id));
    let heads: BTreeMap<u64, [u8; 32]> = leaves
        .iter()
        .filter_map(|(entry, body)| match entry {
            Entry::Grant(entry) if entry.operation == GrantOperation::Heartbeat => {
                let note = body.as_ref().unwrap();
                let checkpoint = ledger::checkpoint::open(note, &log).unwrap();
                for cosigner in &cosigners {
                    verify_cosignature(note, cosigner).unwrap();
                }
                Some((checkpoint.size(), *checkpoint.root()))
            }
            _ => None,
        })
        .collect();
    let mut proven = 0;
    for (entry, body) in &leaves {
        let Entry::Grant(entry) = entry else { continue };
        if entry.operation != GrantOperation::Enter {
            continue;
        }
        let parcel = Parcel::decode(body.as_ref().unwrap()).unwrap();
        assert_eq!(Some(parcel.entry().record), entry.record);
        assert_eq!(heads.get(&entry.shard_size), Some(&entry.shard_root));
        verify_inclusion(
            &leaf_hash(parcel.leaf()),
            parcel.index(),
            entry.shard_size,
            &parcel.inclusion(),
            &entry.shard_root,
        )
        .unwrap();
        proven += 1;
    }
    assert_eq!(proven, PERSONS / 2);
    // And the values are those that were registered.
    let read = world.read(&[], NOW).unwrap();
    let mut names: Vec<&str> = read.iter().map(|row| row.fields["name"].as_str()).collect();
    let mut registered: Vec<&str> = world
        .persons
        .iter()
        .step_by(2)
        .map(|row| row["name"].as_str())
        .collect();
    names.sort_unstable();
    registered.sort_unstable();
    assert_eq!(names, registered);
    world.close();
}

/// The rows' places in the grant's ledger.
fn parcels(leaves: &forge::Leaves) -> Vec<usize> {
    let is_row = |entry: &Entry| {
        matches!(
            entry,
            Entry::Grant(GrantEntry {
                operation: GrantOperation::Enter,
                ..
            })
        )
    };
    (0..leaves.len())
        .filter(|at| is_row(&leaves[*at].0))
        .collect()
}

#[test]
fn a_parcel_with_one_bit_flipped_or_another_records_parcel_is_found() {
    let world = World::new();
    let grant = world.grant();
    let ledger = grant.origin.grant(&grant.id);
    let base = world.close();
    let dir = base.path().join("minzheng");
    let leaves = forge::leaves(&Snapshot::open(&dir).unwrap(), &ledger);
    let places = parcels(&leaves);
    let whole = leaves[places[0]].1.clone().unwrap();

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    forge::replace_body(&dir, &ledger, places[0] as u64, flipped);
    let found = findings(&verified(&dir));
    let wrong = format!(
        "the body of entry {} is not the one that it names",
        places[0]
    );
    assert_eq!(found, std::slice::from_ref(&wrong));

    let other = leaves[places[1]].1.clone().unwrap();
    forge::replace_body(&dir, &ledger, places[0] as u64, other);
    assert_eq!(findings(&verified(&dir)), [wrong]);

    forge::replace_body(&dir, &ledger, places[0] as u64, whole);
    assert!(verified(&dir).ok);
}

#[test]
fn what_a_dishonest_owner_signs_anew_is_found_too() {
    let world = World::new();
    let grant = world.grant();
    let ledger = grant.origin.grant(&grant.id);
    let base = world.close();
    let (dir, owner) = (base.path().join("minzheng"), base.path().join("jinfu"));
    let owner = keystore(&owner).sign.signing_key();
    let whole = base.path().join("whole");
    tests::copy_dir(&dir, &whole);
    let again = || {
        std::fs::remove_dir_all(&dir).unwrap();
        tests::copy_dir(&whole, &dir);
    };
    let set = |leaves: &mut forge::Leaves, at: usize, body: Vec<u8>| {
        let Entry::Grant(entry) = &mut leaves[at].0 else {
            panic!("no row")
        };
        entry.parcel = Some(Sha256::digest(&body).into());
        leaves[at].1 = Some(body);
    };
    // A history that is signed anew as it was is as good as the first.
    forge::rewrite(&dir, &ledger, &owner, |_| {});
    assert!(verified(&dir).ok, "{:?}", findings(&verified(&dir)));

    again();
    forge::rewrite(&dir, &ledger, &owner, |leaves| {
        let at = parcels(leaves);
        let other = leaves[at[1]].1.clone().unwrap();
        set(leaves, at[0], other);
    });
    let found = findings(&verified(&dir));
    assert!(
        found.iter().any(|what| what.contains("another record's")),
        "{found:?}"
    );

    again();
    forge::rewrite(&dir, &ledger, &owner, |leaves| {
        let at = parcels(leaves)[0];
        let mut wire: Wire = minicbor::decode(leaves[at].1.as_ref().unwrap()).unwrap();
        wire.index += 1;
        set(leaves, at, minicbor::to_vec(&wire).unwrap());
    });
    let found = findings(&verified(&dir));
    assert!(
        found
            .iter()
            .any(|what| what.contains("not proven to be in")),
        "{found:?}"
    );

    // A heartbeat with the note of another ledger, and one whose cosignature is gone.
    let notes: [fn(&str, &Other) -> String; 2] = [
        |_, other| other.note.clone(),
        |note, _| {
            let cut = note.find("/shuangfu/").unwrap();
            let line = note[..cut].rfind('\n').unwrap();
            note[..=line].to_owned()
        },
    ];
    let other = Other {
        note: {
            let store = Snapshot::open(&base.path().join("jiangjin")).unwrap();
            forge::head(&store, &origin("jinfu", "authority"))
                .whole
                .unwrap()
        },
    };
    for note in notes {
        again();
        forge::rewrite(&dir, &ledger, &owner, |leaves| {
            let at = (0..leaves.len())
                .find(|at| matches!(&leaves[*at].0, Entry::Grant(e) if e.operation == GrantOperation::Heartbeat))
                .unwrap();
            let old = String::from_utf8(leaves[at].1.clone().unwrap()).unwrap();
            set(leaves, at, note(&old, &other).into_bytes());
        });
        let found = findings(&verified(&dir));
        assert!(
            found.iter().any(|what| what.contains("checkpoint")),
            "{found:?}"
        );
    }
}

/// A checkpoint of another ledger of the same owner.
struct Other {
    note: String,
}

#[test]
fn a_cosignature_of_a_node_that_the_owner_chartered_itself_does_not_count() {
    let world = World::new();
    let at = world.base.path();
    let puppet = Site::join(&world.community, at, "puppet", Level::Department, NOW);
    let grant = world.grant();
    let ledger = grant.origin.grant(&grant.id);
    let witness = keystore(&puppet.dir).witness.signing_key();
    puppet.close();
    let base = world.close();
    let dir = base.path().join("minzheng");
    let owner = keystore(&base.path().join("jinfu")).sign.signing_key();
    let name = format!("{REALM}/puppet/witness");
    let signer = ledger::note::NoteSigner::new(&name, witness).unwrap();
    forge::rewrite(&dir, &ledger, &owner, |leaves| {
        let (Entry::Grant(entry), Some(body)) = leaves
            .iter_mut()
            .find(|(entry, _)| matches!(entry, Entry::Grant(e) if e.operation == GrantOperation::Heartbeat))
            .unwrap()
        else {
            panic!("no heartbeat")
        };
        // The town's signatures taken off, the puppet's put on.
        let old = String::from_utf8(body.clone()).unwrap();
        let cut = old[..old.find("/shuangfu/").unwrap()].rfind('\n').unwrap();
        let bare = &old[..=cut];
        let line = ledger::checkpoint::cosign(bare.as_bytes(), &signer, NOW.secs()).unwrap();
        *body = ledger::checkpoint::add_signature_line(bare.as_bytes(), line.as_bytes())
            .unwrap()
            .into_bytes();
        entry.parcel = Some(Sha256::digest(&*body).into());
    });
    let found = findings(&verified(&dir));
    assert!(
        !found.is_empty(),
        "the owner's own puppet passed for a witness"
    );
}

#[test]
fn a_row_made_up_under_a_root_that_nobody_cosigned_is_found() {
    let world = World::new();
    let grant = world.grant();
    let ledger = grant.origin.grant(&grant.id);
    let base = world.close();
    let dir = base.path().join("minzheng");
    let owner = keystore(&base.path().join("jinfu")).sign.signing_key();
    forge::rewrite(&dir, &ledger, &owner, |leaves| {
        let at = parcels(leaves)[0];
        let (Entry::Grant(entry), Some(body)) = &mut leaves[at] else {
            panic!("no row")
        };
        // The row alone is a tree of one leaf, whose root the owner makes as it likes.
        let mut wire: Wire = minicbor::decode(body).unwrap();
        wire.index = 0;
        wire.inclusion.clear();
        entry.shard_size = 1;
        entry.shard_root = leaf_hash(&wire.entry);
        *body = minicbor::to_vec(&wire).unwrap();
        entry.parcel = Some(Sha256::digest(&*body).into());
    });
    let report = verified(&dir);
    assert!(
        !report.ok,
        "a row under a root that no heartbeat vouches for passed"
    );
}

// ---- what follows a change -----------------------------------------------------------------

#[test]
fn an_amended_row_reaches_the_department_and_one_that_leaves_the_scope_is_retracted() {
    let world = World::new();
    world.grant();
    let registered = &world.persons[0];
    let name = registered["name"].as_str();
    let row = world.person(&registered["citizen_number"]);
    let before = world.read(&[], NOW).unwrap();
    assert_eq!(before.len(), PERSONS / 2);
    assert!(
        before
            .iter()
            .any(|r| r.record == row.record && r.fields["name"] == name)
    );

    world.community.amend(
        &world.clerk,
        "person",
        row.record,
        1,
        &[("name", "欧阳改名")],
        NOW,
    );
    world.settle(NOW);
    let found = world.read(&[("name", "欧阳改名")], NOW).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].record, found[0].version), (row.record, 2));
    let all = world.read(&[], NOW).unwrap();
    assert_eq!(all.iter().filter(|r| r.record == row.record).count(), 1);

    world.community.amend(
        &world.clerk,
        "person",
        row.record,
        2,
        &[("residence_kind", "20")],
        NOW,
    );
    world.settle(NOW);
    let rest = world.read(&[], NOW).unwrap();
    assert_eq!(rest.len(), PERSONS / 2 - 1);
    assert!(rest.iter().all(|r| r.record != row.record));
    assert!(world.read(&[("name", "欧阳改名")], NOW).unwrap().is_empty());

    // And one that enters it is there.
    let entering = world.person(&world.persons[1]["citizen_number"]);
    world.community.amend(
        &world.clerk,
        "person",
        entering.record,
        1,
        &[("residence_kind", "10")],
        NOW,
    );
    world.settle(NOW);
    assert!(
        world
            .read(&[], NOW)
            .unwrap()
            .iter()
            .any(|r| r.record == entering.record)
    );
    let report = verified(&world.department.dir);
    assert!(report.ok, "{:?}", findings(&report));

    // The same after the index was made anew from the ledger.
    let base = world.base.path().to_owned();
    let kept = world.close();
    std::fs::remove_dir_all(base.join("minzheng/working-index")).unwrap();
    let department = Site::open(&base.join("minzheng"), NOW);
    let officer = department
        .registry
        .login(Role::DepartmentOfficer.as_str(), PASSPHRASE, NOW)
        .unwrap();
    let answer = department
        .registry
        .read(&officer, &reading(&[]), NOW)
        .unwrap();
    let records: BTreeSet<RecordId> = answered(answer).iter().map(|r| r.record).collect();
    assert_eq!(records.len(), PERSONS / 2);
    assert!(!records.contains(&row.record) && records.contains(&entering.record));
    drop(kept);
}

#[test]
fn a_closed_record_is_read_only_when_closed_ones_are_asked_for_though_its_status_is_not_granted() {
    let world = World::new();
    world.grant();
    let row = world.person(&world.persons[0]["citizen_number"]);
    let close = Amendment {
        kind: kind("person"),
        record: row.record,
        version: 1,
        changes: BTreeMap::new(),
        close: true,
        reopen: false,
        purpose: purpose("correction"),
    };
    let community = &world.community.registry;
    community.amend(&world.clerk, &close, NOW).unwrap();
    world.settle(NOW);
    let all = ReadRequest {
        closed: true,
        ..reading(&[])
    };
    let holds = |site: &Site, officer: &Session, request: &ReadRequest| {
        let rows = answered(site.registry.read(officer, request, NOW).unwrap());
        rows.iter().any(|r| r.record == row.record)
    };
    let (department, officer) = (&world.department, &world.officer);
    assert!(!holds(department, officer, &reading(&[])));
    let name = world.persons[0]["name"].as_str();
    assert!(!holds(department, officer, &reading(&[("name", name)])));
    assert!(holds(department, officer, &all));
    assert_eq!(world.read(&[], NOW).unwrap().len(), PERSONS / 2 - 1);

    // The same after the index was made anew from the ledger; and a reopened one is back.
    let reopen = Amendment {
        version: 2,
        close: false,
        reopen: true,
        ..close
    };
    let base = world.base.path().to_owned();
    let kept = world.close();
    std::fs::remove_dir_all(base.join("minzheng/working-index")).unwrap();
    let open = |name: &str| Site::open(&base.join(name), NOW);
    let [district, town, community, department] =
        ["jiangjin", "shuangfu", "jinfu", "minzheng"].map(open);
    let login = |site: &Site, role: Role| {
        let registry = &site.registry;
        registry.login(role.as_str(), PASSPHRASE, NOW).unwrap()
    };
    let officer = login(&department, Role::DepartmentOfficer);
    assert!(!holds(&department, &officer, &reading(&[])));
    assert!(holds(&department, &officer, &all));
    let clerk = login(&community, Role::Clerk);
    community.registry.amend(&clerk, &reopen, NOW).unwrap();
    settle(
        &[
            (&community, &town),
            (&town, &district),
            (&department, &district),
        ],
        NOW,
    );
    assert!(holds(&department, &officer, &reading(&[])));
    for site in [community, department, town, district] {
        site.close();
    }
    drop(kept);
}

#[test]
fn a_record_that_comes_with_two_grants_is_one_row_with_the_fields_of_both() {
    let world = World::new();
    let at = world.base.path();
    let other = Site::join(&world.town, at, "xianfeng", Level::Community, NOW);
    let clerk = other.operator(Role::Clerk, None, NOW);
    other.import(&clerk, "person", &rows("person", 9, 2, 1), NOW);
    let links = [
        (&world.community, &world.town),
        (&other, &world.town),
        (&world.town, &world.district),
        (&world.department, &world.district),
    ];
    settle(&links, NOW);
    let grant = |owner: &Site, fields: &[&str], rows: BTreeMap<String, String>| {
        let request = GrantRequest {
            fields: fields.iter().map(|field| (*field).into()).collect(),
            rows,
            ..request()
        };
        let registry = &owner.registry;
        registry.grant(&owner.officer, &request, NOW).unwrap();
        settle(&links, NOW);
    };
    // Sex of half of the persons, the birth date of all; of the other owner's, the name only.
    grant(&world.community, &["name", "sex"], request().rows);
    grant(&world.community, &["name", "birth_date"], BTreeMap::new());
    grant(&other, &["name"], BTreeMap::new());

    let read = |request: &ReadRequest| {
        let department = &world.department.registry;
        department.read(&world.officer, request, NOW).unwrap()
    };
    let wanting = |filters: &[(&str, &str)], limit: Option<usize>| ReadRequest {
        fields: Some(["name", "sex", "birth_date"].map(str::to_owned).to_vec()),
        limit,
        ..reading(filters)
    };
    let answer = read(&wanting(&[], None));
    let answer = answer.value();
    let records: BTreeSet<RecordId> = answer.rows.iter().map(|row| row.record).collect();
    assert_eq!(
        (answer.rows.len(), records.len()),
        (PERSONS + 2, PERSONS + 2)
    );
    let having = |field: &str| {
        let rows = answer.rows.iter();
        rows.filter(|row| row.fields.contains_key(field)).count()
    };
    let both = ["name", "sex", "birth_date"].map(having);
    assert_eq!(both, [PERSONS + 2, PERSONS / 2, PERSONS]);
    // What is missing, where, and whom to ask for it.
    let denied: BTreeSet<(&str, &str, Option<u64>)> = answer
        .denied
        .iter()
        .map(|line| {
            let owner = line.ask.split(' ').next().unwrap();
            assert_eq!(line.rule, "not-granted");
            (line.field.as_str(), owner, line.rows)
        })
        .collect();
    let half = PERSONS as u64 / 2;
    let expected = [
        ("sex", "jinfu", Some(half)),
        ("sex", "xianfeng", Some(2)),
        ("birth_date", "xianfeng", Some(2)),
    ];
    assert_eq!(denied, BTreeSet::from(expected));

    // A person of both grants: everything, and nothing is withheld.
    let name = world.persons[0]["name"].as_str();
    let one = read(&wanting(&[("name", name)], None));
    assert_eq!(one.value().rows.len(), 1);
    assert_eq!(one.value().rows[0].fields.len(), 3);
    assert!(one.value().denied.is_empty());
    // The limit counts records.
    let few = read(&wanting(&[], Some(3)));
    assert_eq!((few.value().rows.len(), few.value().more), (3, true));
    let enough = read(&wanting(&[], Some(PERSONS + 2)));
    assert_eq!(enough.value().rows.len(), PERSONS + 2);
    assert!(!enough.value().more);
    other.close();
    world.close();
}

#[test]
fn an_expired_grant_is_not_read_and_gets_no_more_rows() {
    let world = World::new();
    let grant = world.grant();
    let last = grant.not_after;
    assert_eq!(last, UnixMillis(NOW.0 + 30 * DAY));
    let late = UnixMillis(last.0 + 1);
    let reading_at = |now: UnixMillis| {
        let department = &world.department.registry;
        let role = Role::DepartmentOfficer.as_str();
        let officer = department.login(role, PASSPHRASE, now).unwrap();
        department.read(&officer, &reading(&[]), now).map(answered)
    };
    assert_eq!(reading_at(last).unwrap().len(), PERSONS / 2);
    let refused = reading_at(late).map(drop).unwrap_err();
    assert!(
        matches!(refused, RegistryError::NotFound { .. }),
        "{refused}"
    );

    let ledger = grant.origin.grant(&grant.id);
    let size = |site: &Site| {
        let status = site.registry.status().unwrap();
        status
            .ledgers
            .iter()
            .find(|l| l.origin == ledger)
            .map(|l| l.size)
    };
    let before = size(&world.community);
    let row = world.person(&world.persons[0]["citizen_number"]);
    world.community.amend(
        &world.clerk,
        "person",
        row.record,
        1,
        &[("name", "新名")],
        late,
    );
    world.settle(late);
    assert_eq!(size(&world.community), before);
    assert_eq!(size(&world.department), before);
    world.close();
}

#[test]
fn policy_denies_grants_by_name_of_the_rule() {
    let world = World::new();
    let ask = |session: &Session, request: &GrantRequest| {
        world
            .community
            .registry
            .grant(session, request, NOW)
            .unwrap_err()
    };
    let rule = |error: RegistryError| match error {
        RegistryError::Denied { rule, ask, .. } => {
            assert!(!ask.is_empty(), "a denial names whom to ask");
            rule
        }
        other => panic!("not a denial: {other}"),
    };
    let officer = &world.community.officer;
    // P3 to the town, P4 to the department for a purpose that is not welfare or health.
    let town = GrantRequest {
        holder: division("shuangfu"),
        fields: vec!["citizen_number".into()],
        purpose: purpose("statistics"),
        ..request()
    };
    assert_eq!(rule(ask(officer, &town)), "default-nothing");
    let market = GrantRequest {
        purpose: purpose("market"),
        ..request()
    };
    assert_eq!(rule(ask(officer, &market)), "default-nothing");
    assert_eq!(
        rule(ask(&world.clerk, &request())),
        "only-security-officers-grant"
    );
    // A purpose that is in no list.
    let unlisted = GrantRequest {
        purpose: purpose("curiosity"),
        ..request()
    };
    rule(ask(officer, &unlisted));

    let unknown = GrantRequest {
        holder: division("nowhere"),
        ..request()
    };
    assert!(matches!(
        ask(officer, &unknown),
        RegistryError::NoCharter(_)
    ));
    let bad: [GrantRequest; 5] = [
        GrantRequest {
            assessment: " ".into(),
            ..request()
        },
        GrantRequest {
            basis: String::new(),
            ..request()
        },
        GrantRequest {
            days: 0,
            ..request()
        },
        GrantRequest {
            days: 4000,
            ..request()
        },
        GrantRequest {
            fields: vec![],
            ..request()
        },
    ];
    for request in bad {
        assert!(matches!(
            ask(officer, &request),
            RegistryError::BadRequest(_)
        ));
    }
    // Nothing of all that was made.
    assert!(world.community.registry.grants(NOW).unwrap().is_empty());
    let status = world.community.registry.status().unwrap();
    assert!(status.ledgers.iter().all(|l| l.origin.grant_id().is_none()));
    world.close();
}

#[test]
fn what_several_grants_open_together_is_what_policy_judges() {
    let world = World::new();
    let grant = |request: &GrantRequest| {
        world
            .community
            .registry
            .grant(&world.community.officer, request, NOW)
    };
    let market = GrantRequest {
        fields: vec!["name".into()],
        purpose: purpose("market"),
        ..request()
    };
    // Alone it is allowed; beside the care fields of the other grant it is not, as the rows of
    // the one would open the fields of the other.
    world.grant();
    let excess = grant(&market).unwrap_err();
    assert!(
        matches!(&excess, RegistryError::Denied { rule, .. } if rule == "default-nothing"),
        "{excess}"
    );
    // What fits the first is allowed beside it.
    let fitting = GrantRequest {
        fields: vec!["phone".into()],
        ..request()
    };
    grant(&fitting).unwrap();
    world.settle(NOW);
    // Asked the other way round it is the same.
    let other = World::new();
    let grant = |request: &GrantRequest| {
        other
            .community
            .registry
            .grant(&other.community.officer, request, NOW)
    };
    grant(&market).unwrap();
    let excess = GrantRequest {
        fields: vec!["welfare".into()],
        purpose: purpose("market"),
        ..request()
    };
    assert!(matches!(grant(&excess), Err(RegistryError::Denied { .. })));
    world.close();
    other.close();
}

#[test]
fn a_purpose_does_not_open_what_was_granted_under_another() {
    // Two grants of one shard, each for a purpose of its own: welfare fields after a market grant.
    let world = World::new();
    let grant = |fields: &[&str], of: &str| {
        let request = GrantRequest {
            fields: fields.iter().map(|f| (*f).to_owned()).collect(),
            purpose: purpose(of),
            ..request()
        };
        world
            .community
            .registry
            .grant(&world.community.officer, &request, NOW)
    };
    grant(&["name", "citizen_number"], "market").unwrap();
    grant(&["household_code"], "welfare").unwrap();
    world.settle(NOW);
    let rows = world.read(&[], NOW).unwrap();
    assert_eq!(rows.len(), PERSONS / 2);
    for row in &rows {
        let fields: Vec<&str> = row.fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["household_code"]);
    }
    world.close();
}

#[test]
fn a_department_that_was_granted_nothing_gets_no_ledger_of_the_community_but_its_authority() {
    let world = World::new();
    let status = world.department.registry.status().unwrap();
    let foreign: Vec<Origin> = status
        .ledgers
        .into_iter()
        .map(|line| line.origin)
        .filter(|of| of.division() != division("minzheng"))
        .collect();
    assert!(
        foreign.iter().all(|of| of.ledger() == kind("authority")),
        "{foreign:?}"
    );
    // It does not get more by asking: the district rejects what is not the department's to offer.
    let seen = replicate(&world.department, &world.district, NOW);
    assert!(seen.refused.is_empty());
    world.close();
}

#[test]
fn the_keys_of_a_charter_that_was_replaced_open_no_session() {
    // A station was lost and its division enrolled again: whoever found the old one is a stranger.
    let world = World::new();
    let lost = &world.community;
    let again = world.base.path().join("again");
    world.town.replace_charter("jinfu", NOW);
    let fresh = Site::join(&world.town, &again, "jinfu", Level::Community, NOW);
    assert_eq!(fresh.charter().serial, 2);
    let seen = replicate(&fresh, &world.town, NOW);
    assert!(seen.refused.is_empty(), "{seen:?}");
    let seen = replicate(lost, &world.town, NOW);
    assert!(
        !seen.refused.is_empty(),
        "the old keys still open a session"
    );
    fresh.close();
    world.close();
}
