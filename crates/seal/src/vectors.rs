//! What the tests of this crate share: a fixed source of randomness, one record, and the golden bytes.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use record::id::{Kind, Origin, RecordId};
use record::schema::{Field, FieldType, Position, Schema, Sensitivity};

use crate::cell::CellContext;
use crate::derive::FieldKeys;
use crate::secret::{EpochSecret, RecordSecret};

/// The same bytes in every run.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

const PAGES: [&str; 7] = [
    include_str!("../../../docs/formats/body.md"),
    include_str!("../../../docs/formats/grant.md"),
    include_str!("../../../docs/formats/keystore.md"),
    include_str!("../../../docs/formats/share.md"),
    include_str!("../../../docs/formats/recovery.md"),
    include_str!("../../../docs/formats/ferry.md"),
    include_str!("../../../docs/formats/proposal.md"),
];

/// Whether a page of `docs/formats/` has this text, line breaks aside.
pub(crate) fn documented(text: &str) -> bool {
    let without_breaks = |text: &str| text.replace('\n', "");
    let text = without_breaks(text);
    PAGES
        .iter()
        .any(|page| without_breaks(page).contains(&text))
}

/// Compares bytes with their SHA-256, and both with the vectors in `docs/formats/`.
pub(crate) fn check_golden(what: &str, bytes: &[u8], sha256: &str) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let hash = hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    assert_eq!(hash, sha256, "{what}: {}", hex(bytes));
    let base64 = data_encoding::BASE64.encode(bytes);
    assert!(documented(sha256) && documented(&base64), "{what}");
}

/// A shard with one schema, and everything that seals one record in it.
pub(crate) struct Shard {
    pub(crate) origin: Origin,
    pub(crate) schema: Schema,
    pub(crate) keys: FieldKeys,
    pub(crate) record: RecordSecret,
}

pub(crate) fn field(position: Position, width: u16, group: &str, class: Sensitivity) -> Field {
    Field {
        position,
        id: format!("field_{position}"),
        name: String::new(),
        english: String::new(),
        field_type: FieldType::Text,
        width,
        group: Kind::new(group).unwrap(),
        sensitivity: class,
        purpose: String::new(),
        list: None,
        required: false,
        unique: false,
        searchable: false,
        aliases: vec![],
    }
}

/// Positions 0 (P0), 2 (P1), 4 and 5 (P2), 6 (P3), 7 (P4); none at 1 and 3.
pub(crate) fn shard() -> Shard {
    let origin = Origin::parse("jiangjin.example/jinfu/person").unwrap();
    let schema = Schema {
        kind: Kind::new("person").unwrap(),
        version: 3,
        name: String::new(),
        english: String::new(),
        fields: vec![
            field(0, 8, "state", Sensitivity::P0),
            field(2, 10, "state", Sensitivity::P1),
            field(4, 24, "identity", Sensitivity::P2),
            field(5, 12, "identity", Sensitivity::P2),
            field(6, 18, "identity", Sensitivity::P3),
            field(7, 16, "care", Sensitivity::P4),
        ],
    };
    let epoch = EpochSecret::from_bytes([0x11; 32]);
    Shard {
        keys: FieldKeys::derive(&epoch, &origin, 2, &schema),
        record: RecordSecret::from_bytes([0x22; 32]),
        origin,
        schema,
    }
}

impl Shard {
    pub(crate) fn ctx(&self) -> CellContext<'_> {
        CellContext {
            origin: &self.origin,
            record: RecordId([0x33; 16]),
            version: 1,
            epoch: 2,
            schema: 3,
        }
    }
}

/// A name, a number, an empty field; 2 and 7 are absent.
pub(crate) fn values() -> BTreeMap<Position, &'static str> {
    BTreeMap::from([
        (0, "0,4,6"),
        (4, "陈大文"),
        (5, ""),
        (6, "500116199001010013"),
    ])
}
