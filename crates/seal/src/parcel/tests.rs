//! Tests of parcels: what a holder can open, and all that it cannot.

use record::entry::Operation;
use record::id::UnixMillis;

use super::*;
use crate::body::{SealedBody, open_all, open_cell, reseal_body, seal_values};
use crate::derive::row_keys;
use crate::vectors::{Shard, check_golden, rng, shard, values};

const GRANT: GrantId = GrantId([0x66; 16]);
/// 2 is absent without a cell; 7, in group `care`, is not granted.
const FIELDS: [Position; 3] = [2, 4, 6];

fn secret() -> GrantSecret {
    GrantSecret::from_bytes([0x77; 32])
}

/// The owner's side: the parcel and the whole body.
fn build(shard: &Shard, fields: &[Position]) -> (Parcel, Body) {
    let ctx = shard.ctx();
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    let sealed = seal_values(&values(), schema, &ctx, keys, record, &mut rng(1)).unwrap();
    build_of(shard, fields, &sealed)
}

fn build_of(shard: &Shard, fields: &[Position], sealed: &SealedBody) -> (Parcel, Body) {
    let ctx = shard.ctx();
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    let entry = RecordEntry {
        suite: SUITE,
        record: ctx.record,
        version: ctx.version,
        operation: Operation::Register,
        previous: None,
        schema: ctx.schema,
        epoch: ctx.epoch,
        content: sealed.content,
        body: sealed.hash,
        recorded_at: UnixMillis(1),
    };
    let body = Body::decode(&sealed.bytes).unwrap();
    let opened = open_all(&body, &entry, schema, &ctx, keys, record).unwrap();
    let groups = schema.fields.iter().map(|field| &field.group);
    let rows = row_keys(record, &shard.origin, &ctx.record, groups);
    let leaf = ShardLeaf {
        entry: Entry::Record(entry).encode(),
        index: 9,
        inclusion: vec![[1; 32], [2; 32]],
    };
    let secret = secret();
    let scope = GrantScope {
        grant: GRANT,
        origin: &shard.origin,
        fields,
        secret: &secret,
        whole: false,
    };
    let parcel = Parcel::build(leaf, &body, &opened, schema, &rows, &scope, &mut rng(2)).unwrap();
    (parcel, body)
}

/// The parcel of a whole body for the next owner, as its owner says that it was opened.
fn whole_of(shard: &Shard, sealed: &SealedBody, opened: &BTreeMap<Position, Opened>) -> Parcel {
    let ctx = shard.ctx();
    let (parcel, body) = build_of(shard, &FIELDS, sealed);
    let groups = shard.schema.fields.iter().map(|field| &field.group);
    let rows = row_keys(&shard.record, &shard.origin, &ctx.record, groups);
    let leaf = ShardLeaf {
        entry: parcel.leaf().to_vec(),
        index: 9,
        inclusion: vec![],
    };
    let fields: Vec<Position> = shard.schema.fields.iter().map(|f| f.position).collect();
    let secret = secret();
    let scope = GrantScope {
        grant: GRANT,
        origin: &shard.origin,
        fields: &fields,
        secret: &secret,
        whole: true,
    };
    Parcel::build(
        leaf,
        &body,
        opened,
        &shard.schema,
        &rows,
        &scope,
        &mut rng(4),
    )
    .unwrap()
}

fn open(shard: &Shard, parcel: &Parcel) -> Result<BTreeMap<Position, Opened>, OpenError> {
    let keys = shard.keys.subset(&FIELDS);
    parcel.open(&secret(), &keys, GRANT, &shard.origin, &shard.schema)
}

#[test]
fn a_holder_opens_the_granted_fields_and_proves_an_absent_one() {
    let shard = shard();
    let (parcel, _) = build(&shard, &FIELDS);
    let received = Parcel::decode(&parcel.encode()).unwrap();
    assert_eq!(received, parcel);
    assert!(received.positions().eq([4, 6]));
    assert_eq!((received.index(), received.inclusion().len()), (9, 2));
    assert!(
        matches!(Entry::decode(received.leaf()), Ok(Entry::Record(e)) if e == *received.entry())
    );
    let opened = open(&shard, &received).unwrap();
    let shown: Vec<_> = opened
        .iter()
        .map(|(at, cell)| (*at, cell.value()))
        .collect();
    assert_eq!(
        shown,
        [(4, Some("陈大文")), (6, Some("500116199001010013"))]
    );
}

#[test]
fn of_a_destroyed_cell_a_holder_gets_the_proof_of_the_others_and_no_more() {
    let shard = shard();
    let ctx = shard.ctx();
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    let (_, whole) = build(&shard, &FIELDS);
    let sealed = seal_values(&values(), schema, &ctx, keys, record, &mut rng(1)).unwrap();
    let (parcel, _) = build(&shard, &FIELDS);
    let mut opened = open_all(&whole, parcel.entry(), schema, &ctx, keys, record).unwrap();
    for fields in [vec![6], vec![4, 6]] {
        for at in fields {
            let left = opened[&at].commitment(at);
            opened.insert(at, Opened::destroyed(at, left));
        }
        let rest = reseal_body(&opened, schema, &ctx, keys, record, &mut rng(3)).unwrap();
        assert_eq!(rest.content, sealed.content);
        let (parcel, _) = build_of(&shard, &FIELDS, &rest);
        let received = Parcel::decode(&parcel.encode()).unwrap();
        let shown = open(&shard, &received).unwrap();
        assert!(!shown.contains_key(&6));
        // That it is destroyed is part of what the owner sealed.
        let mut claims = received.clone();
        claims.wire.destroyed = None;
        assert!(open(&shard, &claims).is_err());
    }
}

#[test]
fn the_next_owner_seals_what_is_left_of_a_redacted_body_again_under_the_same_content() {
    let shard = shard();
    let ctx = shard.ctx();
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    let sealed = seal_values(&values(), schema, &ctx, keys, record, &mut rng(1)).unwrap();
    let (parcel, body) = build_of(&shard, &FIELDS, &sealed);
    let mut opened = open_all(&body, parcel.entry(), schema, &ctx, keys, record).unwrap();
    let fields: Vec<Position> = schema.fields.iter().map(|f| f.position).collect();
    let field_keys = keys.subset(&fields);
    let open =
        |parcel: &Parcel| parcel.open_whole(&secret(), &field_keys, GRANT, &shard.origin, schema);
    // Nothing is destroyed: all of it opens; and it is whole.
    let all = whole_of(&shard, &sealed, &opened);
    assert_eq!(open(&all).unwrap().len(), body.positions().count());
    assert!(all.wire.left.is_none());
    let partial = build(&shard, &FIELDS).0;
    let granted = shard.keys.subset(&FIELDS);
    let part = partial.open_whole(&secret(), &granted, GRANT, &shard.origin, schema);
    assert_eq!(part.unwrap_err(), OpenError::OtherContent, "a part is none");

    // Two neighbours are destroyed: the commitment of each comes along.
    for at in [4, 5] {
        let left = opened[&at].commitment(at);
        opened.insert(at, Opened::destroyed(at, left));
    }
    // It is said of a body that has them: nobody keeps a value back so.
    let forged = whole_of(&shard, &sealed, &opened);
    assert_eq!(open(&forged).unwrap_err(), OpenError::OtherContent);
    let rest = reseal_body(&opened, schema, &ctx, keys, record, &mut rng(3)).unwrap();
    let whole = Parcel::decode(&whole_of(&shard, &rest, &opened).encode()).unwrap();
    let received = open(&whole).unwrap();
    assert!(received[&4].is_destroyed() && received[&5].is_destroyed());
    let there = reseal_body(&received, schema, &ctx, keys, record, &mut rng(6)).unwrap();
    assert_eq!(there.content, sealed.content);
    // Another commitment, one too few, one of a field that is there: none of it is read or believed.
    let mut other = whole.clone();
    other.wire.left.as_mut().unwrap()[0] = [7; 32].into();
    assert!(open(&other).is_err());
    let mut fewer = whole.clone();
    fewer.wire.left.as_mut().unwrap().pop();
    assert!(Parcel::decode(&fewer.encode()).is_err());
    let mut alone = all.clone();
    alone.wire.left = Some(vec![[7; 32].into()]);
    assert!(Parcel::decode(&alone.encode()).is_err());
}

#[test]
fn the_golden_parcel_holds() {
    check_golden(
        "parcel",
        &build(&shard(), &FIELDS).0.encode(),
        "2d511142d3a7e61848a1ee6d1a8297dc508dfe19e586d83d99839b55cb98ce15",
    );
}

#[test]
fn a_parcel_opens_for_its_own_grant_secret_origin_and_schema_only() {
    let shard = shard();
    let (parcel, _) = build(&shard, &FIELDS);
    let keys = shard.keys.subset(&FIELDS);
    let origin = Origin::parse("jiangjin.example/jinfu/unit").unwrap();
    let rows_closed = |result: Result<BTreeMap<Position, Opened>, OpenError>| {
        assert_eq!(result.unwrap_err(), OpenError::RowKeys);
    };
    let other = GrantSecret::from_bytes([0x78; 32]);
    rows_closed(parcel.open(&other, &keys, GRANT, &shard.origin, &shard.schema));
    rows_closed(parcel.open(
        &secret(),
        &keys,
        GrantId([0; 16]),
        &shard.origin,
        &shard.schema,
    ));
    rows_closed(parcel.open(&secret(), &keys, GRANT, &origin, &shard.schema));
    let fewer = shard.keys.subset(&[4, 6]);
    rows_closed(parcel.open(&secret(), &fewer, GRANT, &shard.origin, &shard.schema));
    let mut newer = shard.schema.clone();
    newer.version = 4;
    assert!(
        parcel
            .open(&secret(), &keys, GRANT, &shard.origin, &newer)
            .is_err()
    );
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_parcel_is_refused() {
    let shard = shard();
    let bytes = build(&shard, &FIELDS).0.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let opened = Parcel::decode(&flipped)
            .ok()
            .map(|parcel| open(&shard, &parcel));
        assert!(!matches!(opened, Some(Ok(_))), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert!(Parcel::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn grant_material_opens_no_other_field_of_the_row_and_no_other_row() {
    let shard = shard();
    let ctx = shard.ctx();
    let (parcel, body) = build(&shard, &FIELDS);
    let keys = shard.keys.subset(&FIELDS);
    let rows = parcel
        .open_rows(&secret(), GRANT, &shard.origin, &FIELDS)
        .unwrap();
    // Row keys of the granted groups only: `care` stays closed.
    let groups: Vec<&str> = rows.keys().map(Kind::as_str).collect();
    assert_eq!(groups, ["identity", "state"]);
    // Suppose the holder got the whole ciphertext. Field 5 lies in a granted group,
    // 7 does not; no key that it has opens either.
    for (position, width) in [(5, 12), (7, 16)] {
        for key in keys.values() {
            for row in rows.values() {
                assert!(open_cell(&body, position, key, row, &ctx, width).is_err());
            }
        }
    }
    // Another row: same fields, a record secret that the holder was given nothing of.
    let other = Shard {
        record: crate::secret::RecordSecret::from_bytes([0x23; 32]),
        ..self::shard()
    };
    let (_, body) = build(&other, &FIELDS);
    for (position, key) in &keys {
        let width = shard.schema.at(*position).unwrap().width;
        for row in rows.values() {
            assert!(open_cell(&body, *position, key, row, &ctx, width).is_err());
        }
    }
}

#[test]
fn a_parcel_says_nothing_in_bytes_of_fields_that_were_not_granted() {
    let shard = shard();
    let (parcel, body) = build(&shard, &FIELDS);
    let bytes = parcel.encode();
    for position in [0, 5, 7] {
        let cell = body.cell(position).unwrap();
        assert!(!bytes.windows(32).any(|window| window == &cell[..32]));
    }
}

#[test]
fn fields_that_the_schema_version_lacks_are_left_out() {
    let shard = shard();
    let (parcel, _) = build(&shard, &[2, 4, 6, 40]);
    assert!(open(&shard, &parcel).is_ok());
}

#[test]
fn a_lying_owner_who_sends_other_values_is_caught() {
    let shard = shard();
    let (mut parcel, _) = build(&shard, &FIELDS);
    // The owner holds all keys: it seals another value and binds the parcel anew.
    let other = BTreeMap::from([(4, "李四"), (6, "500116199001010013")]);
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    let sealed = seal_values(&other, schema, &shard.ctx(), keys, record, &mut rng(5)).unwrap();
    let body = Body::decode(&sealed.bytes).unwrap();
    parcel.wire.body_nonce = (*body.nonce()).into();
    for cell in &mut parcel.wire.cells {
        cell.sealed = body.cell(cell.position).unwrap().to_vec().into();
    }
    let groups = ["identity", "state"].map(|name| Kind::new(name).unwrap());
    let rows = row_keys(record, &shard.origin, &shard.ctx().record, &groups);
    let rows = granted_rows(&FIELDS, schema, &rows).unwrap();
    let mut plain = encode_with_room_for_tag(&rows);
    let mut unsealed = parcel.wire.clone();
    unsealed.keys = ByteVec::from(Vec::new());
    let aad = binding(&unsealed, &parcel.entry, GRANT, &shard.origin, &FIELDS);
    let key = keys_key(&secret(), GRANT, &parcel.entry.record);
    aead::seal(&key, &parcel.wire.keys_nonce, aad.bytes(), &mut plain);
    parcel.wire.keys = plain.to_vec().into();
    assert_eq!(open(&shard, &parcel).unwrap_err(), OpenError::OtherContent);
}
