//! Tests of bodies: golden bytes, what opens, and what must not.

use record::draft::Checked;
use record::entry::Operation;
use record::id::{Origin, RecordId, UnixMillis};
use record::schema::Catalogue;

use super::*;
use crate::secret::EpochSecret;
use crate::vectors::{Shard, documented, rng, shard, values};

fn seal_with(shard: &Shard, values: &BTreeMap<Position, &str>, seed: u64) -> SealedBody {
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    seal_values(values, schema, &shard.ctx(), keys, record, &mut rng(seed)).unwrap()
}

fn entry_of(sealed: &SealedBody) -> RecordEntry {
    RecordEntry {
        suite: SUITE,
        record: RecordId([0x33; 16]),
        version: 1,
        operation: Operation::Register,
        previous: None,
        schema: 3,
        epoch: 2,
        content: sealed.content,
        body: sealed.hash,
        recorded_at: UnixMillis(1),
    }
}

fn open_with(
    shard: &Shard,
    sealed: &SealedBody,
    bytes: &[u8],
) -> Result<BTreeMap<Position, Opened>, OpenError> {
    let body = Body::decode(bytes).map_err(|_| OpenError::OtherContent)?;
    let (schema, keys, record) = (&shard.schema, &shard.keys, &shard.record);
    open_all(&body, &entry_of(sealed), schema, &shard.ctx(), keys, record)
}

fn open_at(
    shard: &Shard,
    body: &Body,
    position: Position,
    ctx: &CellContext<'_>,
) -> Result<Opened, OpenError> {
    let field = shard.schema.at(position).unwrap();
    let row = derive::row_key(&shard.record, ctx.origin, &ctx.record, &field.group);
    open_cell(
        body,
        position,
        shard.keys.get(position).unwrap(),
        &row,
        ctx,
        field.width,
    )
}

#[test]
fn a_body_opens_to_what_was_sealed() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    let opened = open_with(&shard, &sealed, &sealed.bytes).unwrap();
    let shown: Vec<_> = opened
        .iter()
        .map(|(at, cell)| (*at, cell.value()))
        .collect();
    let wanted = [
        (0, Some("0,4,6")),
        (4, Some("陈大文")),
        (5, Some("")),
        (6, Some("500116199001010013")),
        (7, None),
    ];
    assert_eq!(shown, wanted);
    let body = Body::decode(&sealed.bytes).unwrap();
    assert_eq!(body.hash(), sealed.hash);
    assert!(body.positions().eq([0, 4, 5, 6, 7]));
    for (at, cell) in &opened {
        let alone = open_at(&shard, &body, *at, &shard.ctx()).unwrap();
        assert_eq!(alone.value(), cell.value());
    }
}

#[test]
fn checked_values_seal_to_a_body_of_their_own_schema_only() {
    let shard = shard();
    let owned = values().into_iter().map(|(at, text)| (at, text.to_owned()));
    let checked = Checked::from_opened(&shard.schema, owned.collect()).unwrap();
    let (ctx, keys, record) = (shard.ctx(), &shard.keys, &shard.record);
    let sealed = seal_body(&checked, &shard.schema, &ctx, keys, record, &mut rng(1)).unwrap();
    assert_eq!(sealed, seal_with(&shard, &values(), 1));
    let mut newer = shard.schema.clone();
    newer.version = 4;
    let refused = seal_body(&checked, &newer, &ctx, keys, record, &mut rng(1)).unwrap_err();
    assert_eq!(
        refused,
        SealError::OtherSchema {
            given: 3,
            wanted: 4
        }
    );
}

#[test]
fn the_widest_record_of_every_built_in_schema_fits_into_a_body() {
    let shard = shard();
    let kinds = Catalogue::builtin().kinds();
    assert!(!kinds.is_empty());
    for schema in kinds {
        let widest: BTreeMap<Position, String> = schema
            .fields
            .iter()
            .map(|field| (field.position, "x".repeat(field.width.into())))
            .collect();
        let widest = widest
            .iter()
            .map(|(at, text)| (*at, text.as_str()))
            .collect();
        let epoch = EpochSecret::from_bytes([1; 32]);
        let keys = FieldKeys::derive(&epoch, &shard.origin, 2, schema);
        let ctx = CellContext {
            schema: schema.version,
            ..shard.ctx()
        };
        let sealed = seal_values(&widest, schema, &ctx, &keys, &shard.record, &mut rng(1));
        assert!(
            sealed.unwrap().bytes.len() < BODY_MAX / 4,
            "{}",
            schema.kind
        );
    }
}

#[test]
fn the_golden_bytes_of_a_body_hold() {
    let sealed = seal_with(&shard(), &values(), 1);
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let golden = include_str!("golden.hex");
    let golden: String = golden
        .lines()
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    assert_eq!(hex(&sealed.bytes), golden);
    let content = "0c3652152c465fecae6a18b177702d129e73d2f248da128e191884201e4d426a";
    let hash = "54a17776d051a78b4d8016ef368726d584846f406594852a3713cad0d69b281a";
    assert_eq!(hex(&sealed.content), content);
    assert_eq!(hex(&sealed.hash), hash);
    let no_cell = hex(&content::no_cell());
    for text in [include_str!("golden.hex"), content, hash, &no_cell] {
        assert!(documented(text));
    }
}

#[test]
fn a_cell_moved_to_another_place_does_not_open() {
    let shard = shard();
    let body = Body::decode(&seal_with(&shard, &values(), 1).bytes).unwrap();
    let other_origin = Origin::parse("jiangjin.example/shuanggou/person").unwrap();
    let here = shard.ctx();
    open_at(&shard, &body, 4, &here).unwrap();
    for moved in [
        CellContext {
            origin: &other_origin,
            ..here
        },
        CellContext {
            record: RecordId([0x34; 16]),
            ..here
        },
        CellContext { version: 2, ..here },
        CellContext { epoch: 3, ..here },
        CellContext { schema: 4, ..here },
    ] {
        let refused = open_at(&shard, &body, 4, &moved).unwrap_err();
        assert_eq!(refused, OpenError::Sealed { position: 4 });
        // Nor with the keys of its old place, so the associated data alone holds it.
        let field = shard.schema.at(4).unwrap();
        let row = derive::row_key(&shard.record, here.origin, &here.record, &field.group);
        let key = shard.keys.get(4).unwrap();
        assert!(open_cell(&body, 4, key, &row, &moved, field.width).is_err());
    }
}

#[test]
fn a_cell_put_at_another_position_does_not_open() {
    let mut shard = shard();
    // Two fields of one width and group, so that only position and field key differ.
    shard.schema.fields[3].width = 24;
    let body = Body::decode(&seal_with(&shard, &values(), 1).bytes).unwrap();
    let mut swapped = body.clone();
    swapped.wire.cells[1].sealed = body.wire.cells[2].sealed.clone();
    let refused = open_at(&shard, &swapped, 4, &shard.ctx()).unwrap_err();
    assert_eq!(refused, OpenError::Sealed { position: 4 });
    // Nor with the field key of where it came from.
    let row = derive::row_key(
        &shard.record,
        &shard.origin,
        &shard.ctx().record,
        &shard.schema.at(4).unwrap().group,
    );
    let key = shard.keys.get(5).unwrap();
    assert!(open_cell(&swapped, 4, key, &row, &shard.ctx(), 24).is_err());
}

#[test]
fn one_of_the_two_keys_is_not_enough() {
    let shard = shard();
    let ctx = shard.ctx();
    let body = Body::decode(&seal_with(&shard, &values(), 1).bytes).unwrap();
    let identity = shard.schema.at(4).unwrap().group.clone();
    let row = derive::row_key(&shard.record, ctx.origin, &ctx.record, &identity);
    let open = |key: &FieldKey, row: &RowKey| open_cell(&body, 4, key, row, &ctx, 24);
    let granted = shard.keys.get(4).unwrap();
    open(granted, &row).unwrap();
    // A granted field of a row that is not: another record's secret.
    let other = RecordSecret::from_bytes([0x44; 32]);
    let other_row = derive::row_key(&other, ctx.origin, &ctx.record, &identity);
    assert!(open(granted, &other_row).is_err());
    // A granted row, a field that is not: another field's key of the same epoch.
    assert!(open(shard.keys.get(5).unwrap(), &row).is_err());
    // Another epoch's key of the same field.
    let old = derive::field_key(&EpochSecret::from_bytes([0x12; 32]), ctx.origin, 2, 4);
    assert!(open(&old, &row).is_err());
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_body_is_refused() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    for bit in 0..sealed.bytes.len() * 8 {
        let mut flipped = sealed.bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open_with(&shard, &sealed, &flipped).is_err(), "bit {bit}");
    }
    for end in 0..sealed.bytes.len() {
        assert!(Body::decode(&sealed.bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_cell_dropped_added_or_out_of_order_is_refused() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    let wire = Body::decode(&sealed.bytes).unwrap().wire;
    for at in 0..wire.cells.len() {
        let mut dropped = wire.clone();
        dropped.cells.remove(at);
        let refused = open_with(&shard, &sealed, &cbor::to_vec(&dropped)).unwrap_err();
        assert_eq!(refused, OpenError::OtherContent);
    }
    let mut added = wire.clone();
    added.cells.insert(
        1,
        Cell {
            position: 1,
            sealed: vec![0; 40].into(),
        },
    );
    let refused = open_with(&shard, &sealed, &cbor::to_vec(&added)).unwrap_err();
    assert_eq!(refused, OpenError::NoField { position: 1 });
    let mut unordered = wire.clone();
    unordered.cells.swap(0, 1);
    assert!(Body::decode(&cbor::to_vec(&unordered)).is_err());
    let mut twice = wire.clone();
    twice.cells.insert(0, wire.cells[0].clone());
    assert!(Body::decode(&cbor::to_vec(&twice)).is_err());
    let mut beyond = wire;
    beyond.cells[4].position = POSITION_MAX + 1;
    assert!(Body::decode(&cbor::to_vec(&beyond)).is_err());
}

#[test]
fn a_body_of_another_format_suite_or_size_is_refused() {
    let wire = Body::decode(&seal_with(&shard(), &values(), 1).bytes)
        .unwrap()
        .wire;
    let format = Wire {
        format: 2,
        ..wire.clone()
    };
    assert!(Body::decode(&cbor::to_vec(&format)).is_err());
    let suite = Wire { suite: 2, ..wire };
    assert!(Body::decode(&cbor::to_vec(&suite)).is_err());
    let refused = Body::decode(&vec![0; BODY_MAX + 1]).unwrap_err();
    assert!(matches!(refused, CborError::TooLong { .. }));
}

#[test]
fn an_absent_sensitive_field_looks_like_a_present_one() {
    let shard = shard();
    let mut present = values();
    present.insert(7, "disabled");
    let with = seal_with(&shard, &present, 1);
    let without = seal_with(&shard, &values(), 2);
    assert_eq!(with.bytes.len(), without.bytes.len());
    let length = |sealed: &SealedBody| Body::decode(&sealed.bytes).unwrap().cell(7).unwrap().len();
    assert_eq!(length(&with), length(&without));
    // A short value and a long one of the same field are as long, too.
    present.insert(7, "x");
    assert_eq!(seal_with(&shard, &present, 3).bytes.len(), with.bytes.len());
}

#[test]
fn a_guess_cannot_be_confirmed_from_the_entry() {
    let shard = shard();
    let one = seal_with(&shard, &values(), 1);
    let two = seal_with(&shard, &values(), 2);
    // The same values of the same record give unrelated contents: the salts lie in the cells.
    assert_ne!(one.content, two.content);
    let opened = open_with(&shard, &one, &one.bytes).unwrap();
    let salts: std::collections::BTreeSet<_> = opened.values().map(|cell| *cell.salt()).collect();
    assert_eq!(salts.len(), opened.len());
    let known = BTreeMap::from([(4, opened[&4].commitment(4))]);
    let given = opened.iter().map(|(at, cell)| (*at, cell.commitment(*at)));
    let siblings = content::prove(&content::commitments(8, given), &[4]);
    assert_eq!(content::root_from(8, &known, &siblings), Some(one.content));
    // Right value, right siblings, no salt: nothing to compare with.
    let guess = BTreeMap::from([(4, content::commitment(4, &[0; 16], Some("陈大文")))]);
    assert_ne!(content::root_from(8, &guess, &siblings), Some(one.content));
}

#[test]
fn resealing_under_another_epoch_keeps_content_and_replaces_the_body() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    let opened = open_with(&shard, &sealed, &sealed.bytes).unwrap();
    let epoch = EpochSecret::from_bytes([0x55; 32]);
    let keys = FieldKeys::derive(&epoch, &shard.origin, 3, &shard.schema);
    let ctx = CellContext {
        epoch: 3,
        ..shard.ctx()
    };
    let (schema, record) = (&shard.schema, &shard.record);
    let resealed = reseal_body(&opened, schema, &ctx, &keys, record, &mut rng(9)).unwrap();
    assert_eq!(resealed.content, sealed.content);
    assert_ne!(resealed.hash, sealed.hash);
    let body = Body::decode(&resealed.bytes).unwrap();
    let again = open_all(&body, &entry_of(&sealed), schema, &ctx, &keys, record).unwrap();
    assert_eq!(again[&4].value(), Some("陈大文"));
    // The old epoch's keys do not open it.
    assert!(open_at(&shard, &body, 4, &shard.ctx()).is_err());
}

#[test]
fn a_cell_that_was_destroyed_leaves_its_commitment_and_the_content_as_it_was() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    let mut opened = open_with(&shard, &sealed, &sealed.bytes).unwrap();
    let left = opened[&6].commitment(6);
    opened.insert(6, Opened::destroyed(6, left));
    let (schema, record, ctx) = (&shard.schema, &shard.record, shard.ctx());
    let rest = reseal_body(&opened, schema, &ctx, &shard.keys, record, &mut rng(9)).unwrap();
    assert_eq!(rest.content, sealed.content);
    let body = Body::decode(&rest.bytes).unwrap();
    assert!(body.cell(6).is_none());
    assert!(body.destroyed().eq([(6, left)]));
    let again = open_with(&shard, &sealed, &rest.bytes).unwrap();
    assert!(again[&6].is_destroyed() && again[&6].value().is_none());
    assert_eq!(again[&4].value(), Some("陈大文"));
    // And once more, under whatever epoch.
    let anew = reseal_body(&again, schema, &ctx, &shard.keys, record, &mut rng(8)).unwrap();
    assert_eq!(anew.content, sealed.content);
    // Another commitment in its place is another content.
    opened.insert(6, Opened::destroyed(6, [7; 32]));
    let other = reseal_body(&opened, schema, &ctx, &shard.keys, record, &mut rng(9)).unwrap();
    assert_ne!(other.content, sealed.content);
    assert!(open_with(&shard, &sealed, &other.bytes).is_err());
}

#[test]
fn a_body_whose_destroyed_positions_do_not_ascend_or_have_a_cell_is_refused() {
    let shard = shard();
    let sealed = seal_with(&shard, &values(), 1);
    let wire = Body::decode(&sealed.bytes).unwrap().wire;
    let at = |position| Destroyed {
        position,
        commitment: [1; 32].into(),
    };
    let bytes = |destroyed| {
        cbor::to_vec(&Wire {
            destroyed,
            ..wire.clone()
        })
    };
    assert!(Body::decode(&bytes(Some(vec![at(2)]))).is_ok());
    for refused in [vec![], vec![at(3), at(2)], vec![at(2), at(2)], vec![at(4)]] {
        assert!(Body::decode(&bytes(Some(refused))).is_err());
    }
}

#[test]
fn values_that_do_not_fit_schema_or_keys_are_not_sealed() {
    let shard = shard();
    let seal = |values: &BTreeMap<Position, &str>, schema: &Schema, ctx: &CellContext<'_>| {
        seal_values(values, schema, ctx, &shard.keys, &shard.record, &mut rng(1)).unwrap_err()
    };
    let other = CellContext {
        schema: 4,
        ..shard.ctx()
    };
    let refused = seal(&values(), &shard.schema, &other);
    assert_eq!(
        refused,
        SealError::OtherSchema {
            given: 3,
            wanted: 4
        }
    );
    let wide = BTreeMap::from([(0, "123456789")]);
    let refused = seal(&wide, &shard.schema, &shard.ctx());
    assert_eq!(
        refused,
        SealError::TooWide {
            position: 0,
            width: 8
        }
    );
    let mut more = shard.schema.clone();
    more.fields.push(crate::vectors::field(
        9,
        4,
        "care",
        record::schema::Sensitivity::P4,
    ));
    let refused = seal(&values(), &more, &shard.ctx());
    assert_eq!(refused, SealError::NoFieldKey { position: 9 });
    let mut huge = shard.schema.clone();
    for field in &mut huge.fields {
        field.width = 60_000;
    }
    assert!(matches!(
        seal(&values(), &huge, &shard.ctx()),
        SealError::TooLarge { .. }
    ));
}
