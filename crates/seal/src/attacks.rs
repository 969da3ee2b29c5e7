//! Attacks on what is sealed, each under its name, and the reason for which it fails.
//!
//! The attacker writes storage and network as it likes: bodies, nonces, entries, parcels and
//! envelopes. Where a line says so it is the owner itself, who holds every key. What a ledger's
//! signatures stop is not here: an entry may be forged to fit, and opening must refuse still.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Encoder;
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{GrantId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::schema::{Position, Schema};

use crate::blob::{BlobError, open_blob, seal_blob};
use crate::body::{
    Body, CellContext, OpenError, Opened, SealedBody, open_all, open_cell, seal_values,
};
use crate::derive::{FieldKeys, row_keys};
use crate::grant::{EnvelopeError, EnvelopeInfo, SealPrivateKey, open_envelope, seal_envelope};
use crate::parcel::{GrantScope, Parcel, ShardLeaf};
use crate::secret::{BlobKey, EpochSecret, FieldKey, GrantSecret, RecordSecret, RowKey};
use crate::vectors::{rng, shard, values};

/// One version of one record, with all that its owner has.
struct Place {
    origin: Origin,
    record: RecordId,
    version: u64,
    epoch: u32,
    schema: Schema,
    keys: FieldKeys,
    secret: RecordSecret,
}

impl Place {
    /// The place that all attacks aim at.
    fn target() -> Self {
        Self::at("person", 1, 2, 3)
    }

    fn at(kind: &str, record: u8, version: u64, epoch: u32) -> Self {
        let origin = Origin::parse(&format!("jiangjin.example/jinfu/{kind}")).unwrap();
        let schema = shard().schema;
        // Epochs and shards have secrets of their own.
        let secret = EpochSecret::from_bytes([epoch as u8 ^ kind.len() as u8; 32]);
        Self {
            keys: FieldKeys::derive(&secret, &origin, epoch, &schema),
            secret: RecordSecret::from_bytes([record; 32]),
            record: RecordId([record; 16]),
            origin,
            version,
            epoch,
            schema,
        }
    }

    fn ctx(&self) -> CellContext<'_> {
        CellContext {
            origin: &self.origin,
            record: self.record,
            version: self.version,
            epoch: self.epoch,
            schema: self.schema.version,
        }
    }

    fn seal(&self, values: &BTreeMap<Position, &str>, seed: u64) -> SealedBody {
        let (schema, keys, secret) = (&self.schema, &self.keys, &self.secret);
        seal_values(values, schema, &self.ctx(), keys, secret, &mut rng(seed)).unwrap()
    }

    fn entry(&self, content: Hash, body: Hash) -> RecordEntry {
        RecordEntry {
            suite: SUITE,
            record: self.record,
            version: self.version,
            operation: Operation::Amend,
            previous: Some([9; 32]),
            schema: self.schema.version,
            epoch: self.epoch,
            content,
            body,
            recorded_at: UnixMillis(1),
        }
    }

    /// What a reader at this place makes of these bytes.
    fn read(&self, content: Hash, bytes: &[u8]) -> Result<BTreeMap<Position, Opened>, OpenError> {
        let body = Body::decode(bytes).unwrap();
        let entry = self.entry(content, body.hash());
        let (schema, keys, secret) = (&self.schema, &self.keys, &self.secret);
        open_all(&body, &entry, schema, &self.ctx(), keys, secret)
    }

    fn row_keys(&self, groups: &[&str]) -> BTreeMap<Kind, RowKey> {
        let groups: Vec<Kind> = groups.iter().map(|name| Kind::new(name).unwrap()).collect();
        row_keys(&self.secret, &self.origin, &self.record, &groups)
    }

    fn parcel(&self, sealed: &SealedBody, grant: u8, fields: &[Position]) -> Parcel {
        let opened = self.read(sealed.content, &sealed.bytes).unwrap();
        let leaf = ShardLeaf {
            entry: Entry::Record(self.entry(sealed.content, sealed.hash)).encode(),
            index: 9,
            inclusion: vec![[1; 32]],
        };
        let secret = grant_secret(grant);
        let scope = GrantScope {
            grant: GrantId([grant; 16]),
            origin: &self.origin,
            fields,
            secret: &secret,
            whole: false,
        };
        let rows = self.row_keys(&["state", "identity", "care"]);
        let body = Body::decode(&sealed.bytes).unwrap();
        let schema = &self.schema;
        Parcel::build(leaf, &body, &opened, schema, &rows, &scope, &mut rng(7)).unwrap()
    }

    /// The positions of a body that some of these keys open, tried one with each other.
    fn opened_by(
        &self,
        bytes: &[u8],
        fields: &BTreeMap<Position, FieldKey>,
        rows: &[&RowKey],
    ) -> BTreeSet<Position> {
        let body = Body::decode(bytes).unwrap();
        let opens = |position: &Position| {
            let width = self.schema.at(*position).unwrap().width;
            fields.values().any(|field| {
                rows.iter()
                    .any(|row| open_cell(&body, *position, field, row, &self.ctx(), width).is_ok())
            })
        };
        body.positions().filter(opens).collect()
    }
}

fn grant_secret(grant: u8) -> GrantSecret {
    GrantSecret::from_bytes([grant; 32])
}

/// A body of these cells, as anybody can write one.
fn forged(nonce: &[u8; 24], cells: &[(Position, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.map(4).unwrap().u8(0).unwrap().u8(1).unwrap();
    e.u8(1).unwrap().u8(SUITE).unwrap();
    e.u8(2).unwrap().bytes(nonce).unwrap();
    e.u8(3).unwrap().array(cells.len() as u64).unwrap();
    for (position, cell) in cells {
        e.array(2).unwrap().u8(*position).unwrap();
        e.bytes(cell).unwrap();
    }
    bytes
}

/// The whole body of another place, under an entry at the target that was forged to fit it.
fn moved_from(other: &Place) -> OpenError {
    let sealed = other.seal(&values(), 1);
    assert!(other.read(sealed.content, &sealed.bytes).is_ok());
    let refused = Place::target().read(sealed.content, &sealed.bytes);
    refused.unwrap_err()
}

/// What the reader of the target says when it gets these bytes instead of what is committed.
fn instead(forge: impl FnOnce(&Body, &Place) -> Vec<u8>) -> OpenError {
    let place = Place::target();
    let sealed = place.seal(&values(), 1);
    let body = Body::decode(&sealed.bytes).unwrap();
    let refused = place.read(sealed.content, &forge(&body, &place));
    refused.unwrap_err()
}

fn all<'a>(body: &'a Body, change: impl Fn(Position) -> Option<Position>) -> Vec<u8> {
    let mut cells: Vec<(Position, &'a [u8])> = body
        .positions()
        .filter_map(|at| Some((change(at)?, body.cell(at)?)))
        .collect();
    cells.sort_unstable_by_key(|(at, _)| *at);
    forged(body.nonce(), &cells)
}

const FIRST: OpenError = OpenError::Sealed { position: 0 };

#[test]
fn a_cell_opens_in_its_place_and_no_other() {
    let fields = instead(|body, _| {
        // 0 and 7 have widths of 8 and 16; cut to the length of the other's field it is no cell.
        let (own, other) = (body.cell(0).unwrap(), body.cell(7).unwrap());
        let cells = [(0, &other[..own.len()]), (7, other)];
        forged(body.nonce(), &cells)
    });
    let attacks = [
        ("swapped between fields", fields),
        (
            "swapped between records",
            moved_from(&Place::at("person", 2, 2, 3)),
        ),
        (
            "swapped between versions",
            moved_from(&Place::at("person", 1, 1, 3)),
        ),
        (
            "swapped between epochs",
            moved_from(&Place::at("person", 1, 2, 2)),
        ),
        (
            "swapped between shards",
            moved_from(&Place::at("unit", 1, 2, 3)),
        ),
    ];
    for (attack, reason) in attacks {
        assert_eq!(reason, FIRST, "{attack}");
    }
    // Two fields of one width, in one group, under one nonce: only the position differs.
    let mut place = Place::target();
    for field in &mut place.schema.fields {
        (field.width, field.group) = (24, Kind::new("identity").unwrap());
    }
    let sealed = place.seal(&values(), 1);
    let body = Body::decode(&sealed.bytes).unwrap();
    let swap = |at| {
        Some(match at {
            4 => 5,
            5 => 4,
            other => other,
        })
    };
    let refused = place.read(sealed.content, &all(&body, swap));
    assert_eq!(refused.unwrap_err(), OpenError::Sealed { position: 4 });
}

#[test]
fn an_old_body_under_a_new_entry_is_refused() {
    let (old, new) = (Place::at("person", 1, 1, 3), Place::target());
    let was = old.seal(&values(), 1);
    let is = new.seal(&BTreeMap::from([(4, "李四")]), 2);
    let read = |content| new.read(content, &was.bytes).unwrap_err();
    // The entry as it is, and one that was forged to commit to the old values.
    assert_eq!(read(is.content), FIRST);
    assert_eq!(read(was.content), FIRST);
    // A reader who takes the version from somewhere else opens cells, and the content says no.
    let misled = old.read(is.content, &was.bytes).unwrap_err();
    assert_eq!(misled, OpenError::OtherContent);
}

#[test]
fn a_cell_with_another_value_that_opens_is_refused_by_the_commitment() {
    let other = |changed: &[(Position, &str)], seed| {
        instead(|_, place| {
            let mut values = values();
            values.extend(changed.iter().copied());
            // The owner itself, under its own keys.
            place.seal(&values, seed).bytes
        })
    };
    let attacks = [
        ("another value", other(&[(4, "李四")], 1)),
        ("a value for an absent field", other(&[(7, "x")], 1)),
        ("the same values with other salts", other(&[], 2)),
        (
            "an optional field left out",
            instead(|body, _| all(body, |at| (at != 4).then_some(at))),
        ),
        (
            "a field of P4 left out",
            instead(|body, _| all(body, |at| (at != 7).then_some(at))),
        ),
        ("a field added", other(&[(2, "x")], 1)),
    ];
    for (attack, reason) in attacks {
        assert_eq!(reason, OpenError::OtherContent, "{attack}");
    }
}

#[test]
fn one_sealed_blob_has_no_second_key() {
    let [one, two] = [1, 2].map(|byte| BlobKey::from_bytes([byte; 32]));
    let blob = seal_blob(&one, b"", b"plain", &mut rng(1));
    assert_eq!(open_blob(&two, b"", &blob), Err(BlobError::OtherKey));
    // With the second key's commitment put in, the first key is refused, and the second too.
    let theirs = seal_blob(&two, b"", b"plain", &mut rng(1));
    let mut mixed = blob.clone();
    mixed[26..58].copy_from_slice(&theirs[26..58]);
    assert_eq!(open_blob(&one, b"", &mixed), Err(BlobError::OtherKey));
    assert_eq!(open_blob(&two, b"", &mixed), Err(BlobError::Altered));
}

/// The groups of 0 and 2 (`state`), of 4, 5 and 6 (`identity`), of 7 (`care`).
#[test]
fn two_grants_combined_open_what_the_plan_computes_and_nothing_else() {
    let place = Place::target();
    let sealed = place.seal(&values(), 1);
    // One grant names field 4 of this row, the other fields 0 and 7 of another row.
    let keys = place.keys.subset(&[0, 4, 7]);
    let here = place.row_keys(&["identity"]);
    let elsewhere = Place::at("person", 2, 2, 3).row_keys(&["state", "care"]);
    let rows: Vec<&RowKey> = here.values().chain(elsewhere.values()).collect();
    assert_eq!(
        place.opened_by(&sealed.bytes, &keys, &rows),
        BTreeSet::from([4])
    );
    // Field keys of the one with row keys of the other, for one row: rows x fields by group,
    // which is what `policy` judges before it approves the second grant.
    let keys = place.keys.subset(&[4, 6, 7]);
    assert_eq!(
        place.opened_by(&sealed.bytes, &keys, &rows),
        BTreeSet::from([4, 6])
    );

    // A parcel of one opens with nothing of the other.
    let parcel = place.parcel(&sealed, 1, &[4]);
    let open = |secret, grant, fields: &[Position]| {
        let keys = place.keys.subset(fields);
        let grant = GrantId([grant; 16]);
        parcel.open(
            &grant_secret(secret),
            &keys,
            grant,
            &place.origin,
            &place.schema,
        )
    };
    assert!(open(1, 1, &[4]).is_ok());
    let attacks = [
        ("the other grant's secret", open(2, 1, &[4])),
        ("the other grant's id", open(1, 2, &[4])),
        ("the other grant altogether", open(2, 2, &[0])),
        ("the other grant's field keys", open(1, 1, &[0])),
        ("field keys of both", open(1, 1, &[0, 4])),
    ];
    for (attack, result) in attacks {
        assert_eq!(result.unwrap_err(), OpenError::RowKeys, "{attack}");
    }
}

#[test]
fn a_departments_keys_open_no_cell_on_a_parents_disk_that_it_was_not_granted() {
    // It was granted fields 0, 4 and 7 of one row, and has the keys of every group of it.
    let granted = Place::at("person", 9, 1, 3);
    let keys = granted.keys.subset(&[0, 4, 7]);
    let own = granted.row_keys(&["state", "identity", "care"]);
    let rows: Vec<&RowKey> = own.values().collect();
    let bytes = granted.seal(&values(), 1).bytes;
    assert_eq!(
        granted.opened_by(&bytes, &keys, &rows),
        BTreeSet::from([0, 4, 7])
    );
    let disk = [
        ("another row", Place::target()),
        (
            "another row, an older version",
            Place::at("person", 1, 1, 3),
        ),
        (
            "the granted row in a later epoch",
            Place::at("person", 9, 2, 4),
        ),
        ("the same id in another shard", Place::at("unit", 9, 1, 3)),
    ];
    for (what, place) in disk {
        let bytes = place.seal(&values(), 2).bytes;
        assert_eq!(
            place.opened_by(&bytes, &keys, &rows),
            BTreeSet::new(),
            "{what}"
        );
    }
}

#[test]
fn a_grant_presented_to_another_node_does_not_open() {
    let info = |change: fn(&mut EnvelopeInfo)| {
        let mut info = EnvelopeInfo {
            grant: GrantId([1; 16]),
            owner_charter: [2; 32],
            holder_charter: [3; 32],
            origin: Place::target().origin,
            epoch: 3,
            fields: vec![4, 6],
        };
        change(&mut info);
        info
    };
    let [holder, other] = [8, 9].map(|byte| SealPrivateKey::from_bytes([byte; 32]));
    let keys = Place::target().keys.subset(&[4, 6]);
    let right = info(|_| ());
    let envelope = seal_envelope(
        &right,
        &holder.public(),
        &grant_secret(1),
        &keys,
        &mut rng(1),
    )
    .unwrap();
    assert!(open_envelope(&right, &holder, &envelope).is_ok());
    let attacks = [
        ("another private key", info(|_| ()), &other),
        (
            "another grant",
            info(|info| info.grant = GrantId([9; 16])),
            &holder,
        ),
        (
            "another owner",
            info(|info| info.owner_charter = [9; 32]),
            &holder,
        ),
        (
            "another charter of the holder",
            info(|info| info.holder_charter = [9; 32]),
            &holder,
        ),
        (
            "another shard",
            info(|info| info.origin = Place::at("unit", 1, 1, 1).origin),
            &holder,
        ),
        ("another epoch", info(|info| info.epoch = 4), &holder),
        (
            "more fields",
            info(|info| info.fields = vec![4, 6, 7]),
            &holder,
        ),
        ("fewer fields", info(|info| info.fields = vec![4]), &holder),
    ];
    for (attack, info, key) in attacks {
        let refused = open_envelope(&info, key, &envelope);
        assert_eq!(refused.unwrap_err(), EnvelopeError::Sealed, "{attack}");
    }
}
