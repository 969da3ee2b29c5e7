//! Derivation: from an epoch secret to field keys, from a record secret to row keys, from both to cell keys.
//!
//! HKDF-SHA256 (RFC 5869) throughout. Every `info` begins with a tag that no other use
//! shares, and every part of it has a fixed length or carries its length, so that two
//! different contexts never give the same bytes. Random secrets are made in [`crate::secret`].

use std::collections::BTreeMap;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use record::entry::SUITE;
use record::id::{Kind, Origin, RecordId};
use record::schema::{Position, Schema};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::{EpochSecret, FieldKey, RecordSecret, RowKey};

/// Bytes that bind a derivation or a ciphertext to its context.
///
/// `tag || 0x00 || suite`, then parts: integers big-endian, text with a u16 length before it.
pub(crate) struct Binding(Vec<u8>);

impl Binding {
    pub(crate) fn new(tag: &str) -> Self {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend(tag.as_bytes());
        bytes.extend([0, SUITE]);
        Self(bytes)
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn fixed<const N: usize>(mut self, value: &[u8; N]) -> Self {
        self.0.extend(value);
        self
    }

    /// Names and field lists: at most 255 bytes by their types, so the length fits.
    pub(crate) fn counted(mut self, value: &[u8]) -> Self {
        self.push_counted(value);
        self
    }

    fn push_counted(&mut self, value: &[u8]) {
        let length = u16::try_from(value.len()).expect("names and field lists are short");
        self.0.extend(length.to_be_bytes());
        self.0.extend(value);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Replaces the last byte: contexts that differ in their last part only are built once.
    pub(crate) fn set_last(&mut self, value: u8) {
        if let Some(last) = self.0.last_mut() {
            *last = value;
        }
    }
}

/// HKDF-SHA256: extract with `salt`, expand with `info` to `N` bytes.
pub(crate) fn hkdf<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, &mut *out)
        .expect("HKDF-SHA256 gives up to 8160 bytes and this asks for at most 64");
    out
}

/// What opens one field of a shard during one epoch.
pub fn field_key(
    secret: &EpochSecret,
    origin: &Origin,
    epoch: u32,
    position: Position,
) -> FieldKey {
    let info = Binding::new("fangzhi/field-key/v1")
        .counted(origin.as_str().as_bytes())
        .u32(epoch)
        .u8(position);
    FieldKey::from_bytes(*hkdf(&[], secret.expose(), info.bytes()))
}

/// What opens one group of a record's fields.
pub fn row_key(secret: &RecordSecret, origin: &Origin, record: &RecordId, group: &Kind) -> RowKey {
    RowDerivation::new(secret, origin, record).key(group)
}

/// The row keys of one record: all groups share HKDF's extraction and the beginning of `info`.
pub(crate) struct RowDerivation {
    extracted: Hkdf<Sha256>,
    info: Binding,
    shared: usize,
}

impl RowDerivation {
    pub(crate) fn new(secret: &RecordSecret, origin: &Origin, record: &RecordId) -> Self {
        let info = Binding::new("fangzhi/row-key/v1")
            .counted(origin.as_str().as_bytes())
            .fixed(&record.0);
        Self {
            extracted: Hkdf::new(Some(&[]), secret.expose()),
            shared: info.0.len(),
            info,
        }
    }

    pub(crate) fn key(&mut self, group: &Kind) -> RowKey {
        self.info.0.truncate(self.shared);
        self.info.push_counted(group.as_str().as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        self.extracted
            .expand(self.info.bytes(), &mut *key)
            .expect("HKDF-SHA256 gives up to 8160 bytes and this asks for 32");
        RowKey::from_bytes(*key)
    }
}

/// The row keys of several groups of one record, as a grant carries them.
pub fn row_keys<'g>(
    secret: &RecordSecret,
    origin: &Origin,
    record: &RecordId,
    groups: impl IntoIterator<Item = &'g Kind>,
) -> BTreeMap<Kind, RowKey> {
    let mut rows = RowDerivation::new(secret, origin, record);
    groups
        .into_iter()
        .map(|group| (group.clone(), rows.key(group)))
        .collect()
}

/// The key of one cell. It takes both: with either key unknown the result is unpredictable,
/// the field key as HMAC's key, the row key as HKDF's input.
pub(crate) fn cell_key(field: &FieldKey, row: &RowKey, position: Position) -> Zeroizing<[u8; 32]> {
    PreparedField::new(field).cell_key(row, position)
}

/// `"fangzhi/cell-key/v1" 00 01 || position`, and HKDF's counter 01 of the one block of 32 bytes.
const CELL_INFO: [u8; 23] = *b"fangzhi/cell-key/v1\0\x01\0\x01";
const _: () = assert!(CELL_INFO[20] == SUITE);

/// A field key as HMAC's key, absorbed once: the half of HKDF's extraction that all cells of the
/// column share. What it keeps are two states of SHA-256, each wiped on drop.
pub(crate) struct PreparedField(Hmac<Sha256>);

impl PreparedField {
    fn new(field: &FieldKey) -> Self {
        let mac = Hmac::new_from_slice(field.expose());
        Self(mac.expect("HMAC takes a key of any length"))
    }

    /// HKDF-SHA256 with the field key as salt (RFC 5869), written out for 32 bytes.
    pub(crate) fn cell_key(&self, row: &RowKey, position: Position) -> Zeroizing<[u8; 32]> {
        let mut extract = self.0.clone();
        extract.update(row.expose());
        let extracted = Zeroizing::new(<[u8; 32]>::from(extract.finalize().into_bytes()));
        let mut expand =
            Hmac::<Sha256>::new_from_slice(&*extracted).expect("HMAC takes a key of any length");
        let mut info = CELL_INFO;
        info[21] = position;
        expand.update(&info);
        Zeroizing::new(expand.finalize().into_bytes().into())
    }
}

/// The field keys of one shard and epoch, derived once and used for every record.
pub struct FieldKeys {
    keys: BTreeMap<Position, (FieldKey, PreparedField)>,
}

impl std::fmt::Debug for FieldKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FieldKeys(hidden)")
    }
}

impl FieldKeys {
    /// Derives the key of every field of a schema.
    pub fn derive(secret: &EpochSecret, origin: &Origin, epoch: u32, schema: &Schema) -> Self {
        let keys = schema
            .fields
            .iter()
            .map(|field| {
                let key = field_key(secret, origin, epoch, field.position);
                let prepared = PreparedField::new(&key);
                (field.position, (key, prepared))
            })
            .collect();
        Self { keys }
    }

    /// The key of the field at a position, if the schema has one there.
    pub fn get(&self, position: Position) -> Option<&FieldKey> {
        self.keys.get(&position).map(|(key, _)| key)
    }

    pub(crate) fn prepared(&self, position: Position) -> Option<&PreparedField> {
        self.keys.get(&position).map(|(_, prepared)| prepared)
    }

    /// Copies of some of the keys, for a grant. Positions without a field are left out.
    pub fn subset(&self, positions: &[Position]) -> BTreeMap<Position, FieldKey> {
        positions
            .iter()
            .filter_map(|position| Some((*position, self.get(*position)?.duplicate())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap()
    }

    #[test]
    fn a_field_key_depends_on_secret_origin_epoch_and_position() {
        let secret = EpochSecret::from_bytes([1; 32]);
        let here = origin("a.example/b/person");
        let key = field_key(&secret, &here, 1, 4);
        assert_eq!(key, field_key(&secret, &here, 1, 4));
        assert_ne!(key, field_key(&secret, &here, 1, 5));
        assert_ne!(key, field_key(&secret, &here, 2, 4));
        assert_ne!(key, field_key(&secret, &origin("a.example/b/unit"), 1, 4));
        assert_ne!(
            key,
            field_key(&EpochSecret::from_bytes([2; 32]), &here, 1, 4)
        );
    }

    #[test]
    fn a_row_key_depends_on_secret_origin_record_and_group() {
        let secret = RecordSecret::from_bytes([1; 32]);
        let here = origin("a.example/b/person");
        let group = Kind::new("identity").unwrap();
        let key = row_key(&secret, &here, &RecordId([1; 16]), &group);
        assert_ne!(key, row_key(&secret, &here, &RecordId([2; 16]), &group));
        let other = Kind::new("contact").unwrap();
        assert_ne!(key, row_key(&secret, &here, &RecordId([1; 16]), &other));
        let there = origin("a.example/b/unit");
        assert_ne!(key, row_key(&secret, &there, &RecordId([1; 16]), &group));
        let another = RecordSecret::from_bytes([2; 32]);
        assert_ne!(key, row_key(&another, &here, &RecordId([1; 16]), &group));
    }

    #[test]
    fn the_states_that_saw_a_key_are_wiped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        // HMAC and HKDF keep nothing but such states.
        wiped::<Sha256>();
        wiped::<chacha20poly1305::XChaCha20Poly1305>();
        wiped::<ed25519_dalek::SigningKey>();
    }

    #[test]
    fn a_cell_key_is_hkdf_of_both_keys() {
        let (field, row) = (FieldKey::from_bytes([1; 32]), RowKey::from_bytes([2; 32]));
        for position in [0, 4, 63] {
            let info = Binding::new("fangzhi/cell-key/v1").u8(position);
            let plainly = hkdf::<32>(field.expose(), row.expose(), info.bytes());
            assert_eq!(*cell_key(&field, &row, position), *plainly);
        }
    }

    #[test]
    fn a_cell_key_needs_both_keys() {
        let field = FieldKey::from_bytes([1; 32]);
        let row = RowKey::from_bytes([2; 32]);
        let key = cell_key(&field, &row, 4);
        assert_ne!(key, cell_key(&FieldKey::from_bytes([3; 32]), &row, 4));
        assert_ne!(key, cell_key(&field, &RowKey::from_bytes([3; 32]), 4));
        assert_ne!(key, cell_key(&field, &row, 5));
        // The two keys are not interchangeable.
        let swapped = cell_key(
            &FieldKey::from_bytes([2; 32]),
            &RowKey::from_bytes([1; 32]),
            4,
        );
        assert_ne!(key, swapped);
    }

    #[test]
    fn lengths_keep_neighbouring_names_apart() {
        let one = Binding::new("t").counted(b"ab").counted(b"c");
        let two = Binding::new("t").counted(b"a").counted(b"bc");
        assert_ne!(one.bytes(), two.bytes());
    }
}
