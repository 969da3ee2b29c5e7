//! Parcels (授权件): what a grant's ledger carries for one version of one record.
//!
//! The granted cells as they lie in the body, the row keys of the granted groups sealed
//! under the grant secret, the shard's entry with its inclusion proof, and the hashes that
//! tie the granted fields to the entry's `content`. Format: `docs/formats/grant.md`.
//! [`Parcel::open`] checks all but the inclusion, which needs a checkpoint: the caller
//! takes [`Parcel::leaf`] to `ledger`. Any altered byte is refused.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::cbor::{self, CborError};
use record::entry::{Entry, RecordEntry, SUITE};
use record::id::{GrantId, Hash, Kind, Origin, RecordId};
use record::schema::{POSITION_MAX, Position, Schema};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::aead::{self, TAG};
use crate::body::{Body, Cell, find, in_order};
use crate::cell::{self, CellContext, OpenError, Opened};
use crate::content;
use crate::derive::{self, Binding};
use crate::secret::{FieldKey, GrantSecret, Raw, RowKey, decode_wiped, encode_wiped};

/// The version of the parcel format.
pub const FORMAT: u8 = 1;
/// The largest parcel.
pub const PARCEL_MAX: usize = 256 * 1024;
/// The longest inclusion proof: one hash per level of the largest tree.
const INCLUSION_MAX: usize = 63;

/// The shard's entry as a leaf of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLeaf {
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// Its index in the shard's ledger.
    pub index: u64,
    /// Its inclusion proof, to the shard root that the grant's entry names.
    pub inclusion: Vec<Hash>,
}

/// Which grant a parcel is made for.
#[derive(Debug, Clone, Copy)]
pub struct GrantScope<'a> {
    /// The grant.
    pub grant: GrantId,
    /// The shard, not the grant's own ledger.
    pub origin: &'a Origin,
    /// The granted fields. Those that the record's schema version lacks are left out.
    pub fields: &'a [Position],
    /// The grant's secret.
    pub secret: &'a GrantSecret,
    /// Whether what is left of destroyed cells goes along: to whoever is to own the record.
    pub whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
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
    cells: Vec<Cell>,
    #[n(7)]
    siblings: Vec<ByteArray<32>>,
    #[n(8)]
    keys_nonce: ByteArray<24>,
    #[n(9)]
    keys: ByteVec,
    /// Granted positions whose cells were destroyed, ascending; absent when there is none.
    #[n(10)]
    destroyed: Option<ByteVec>,
    /// The commitments of these, in their order; absent unless the parcel is for the next owner.
    #[n(11)]
    left: Option<Vec<ByteArray<32>>>,
}

/// One row key inside [`Wire::keys`]: `[group, key]`, ascending by group.
#[derive(Encode, Decode)]
struct Row {
    #[n(0)]
    group: Kind,
    #[n(1)]
    key: Raw,
}

/// What a holder gets of one version of a record. Nothing in it is clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    wire: Wire,
    entry: RecordEntry,
}

/// Why a parcel cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParcelError {
    /// The leaf is not a record's entry.
    #[error("the shard's leaf {index} is no record entry; parcels are made of record entries only")]
    NotARecord {
        /// The leaf's index.
        index: u64,
    },
    /// Entry, body, values and schema do not belong together.
    #[error(
        "body or values are not those of the shard's entry {index}; open the body that this entry names"
    )]
    Mismatch {
        /// The leaf's index.
        index: u64,
    },
    /// There is no row key for a granted group.
    #[error(
        "there is no row key for the group of position {position}; derive the row keys of all granted groups"
    )]
    NoRowKey {
        /// The field.
        position: Position,
    },
    /// The parcel would be over [`PARCEL_MAX`].
    #[error(
        "the parcel would have {size} bytes and may have {PARCEL_MAX}; lower the widths in the schema"
    )]
    TooLarge {
        /// Bytes that it would have.
        size: usize,
    },
}

impl Parcel {
    /// Makes the parcel of one version of a record.
    ///
    /// `opened` must be all cells of the body, because the proof needs all commitments;
    /// only those of the granted fields travel. `row_keys` may hold more groups than are granted.
    ///
    /// # Errors
    /// [`ParcelError`] when entry, body, values and schema do not belong together.
    pub fn build(
        leaf: ShardLeaf,
        body: &Body,
        opened: &BTreeMap<Position, Opened>,
        schema: &Schema,
        row_keys: &BTreeMap<Kind, RowKey>,
        scope: &GrantScope<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, ParcelError> {
        let index = leaf.index;
        let Ok(Entry::Record(entry)) = Entry::decode(&leaf.entry) else {
            return Err(ParcelError::NotARecord { index });
        };
        let given = opened.iter().map(|(at, cell)| (*at, cell.commitment(*at)));
        let commitments = content::commitments(schema.leaves(), given);
        if entry.body != body.hash()
            || entry.schema != schema.version
            || entry.content != content::content_root(&commitments)
            || leaf.inclusion.len() > INCLUSION_MAX
        {
            return Err(ParcelError::Mismatch { index });
        }
        let mut fields = fields_in(schema, scope.fields.iter().copied());
        // What is left of them is no more than a hash, which goes with the proof of the others.
        let gone = |at: &Position| opened.get(at).is_some_and(Opened::is_destroyed);
        let destroyed: Vec<Position> = fields.iter().copied().filter(gone).collect();
        fields.retain(|at| !gone(at));
        let whole = scope.whole && !destroyed.is_empty();
        let left = |at: &Position| Some(opened.get(at)?.commitment(*at).into());
        let mut proven = fields.clone();
        if whole {
            proven.extend(&destroyed);
        }
        let cells = fields.iter().filter_map(|position| {
            Some(Cell {
                position: *position,
                sealed: body.cell(*position)?.to_vec().into(),
            })
        });
        let mut wire = Wire {
            format: FORMAT,
            suite: SUITE,
            entry: leaf.entry.into(),
            index,
            inclusion: arrays(leaf.inclusion),
            body_nonce: (*body.nonce()).into(),
            cells: cells.collect(),
            siblings: arrays(content::prove(&commitments, &proven)),
            keys_nonce: aead::nonce(rng).into(),
            keys: ByteVec::from(Vec::new()),
            left: whole.then(|| destroyed.iter().filter_map(left).collect()),
            destroyed: (!destroyed.is_empty()).then(|| destroyed.into()),
        };
        let rows = granted_rows(&fields, schema, row_keys)?;
        let mut sealed = encode_with_room_for_tag(&rows);
        let key = keys_key(scope.secret, scope.grant, &entry.record);
        let aad = binding(&wire, &entry, scope.grant, scope.origin, &fields);
        aead::seal(&key, &wire.keys_nonce, aad.bytes(), &mut sealed);
        wire.keys = std::mem::take(&mut *sealed).into();

        let parcel = Self { wire, entry };
        match parcel.encode().len() {
            size if size > PARCEL_MAX => Err(ParcelError::TooLarge { size }),
            _ => Ok(parcel),
        }
    }

    /// The parcel's bytes, whose SHA-256 the grant's entry names.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(&self.wire)
    }

    /// Reads a parcel from exactly these bytes.
    ///
    /// # Errors
    /// [`CborError`] when they are over [`PARCEL_MAX`], malformed, of another format or
    /// suite, or not canonical; fetch the parcel again.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let what = "parcel";
        let wire: Wire = cbor::from_slice(what, bytes, PARCEL_MAX)?;
        let lengths_hold = wire.inclusion.len() <= INCLUSION_MAX
            && wire.siblings.len() <= usize::from(POSITION_MAX) + 1;
        if wire.format != FORMAT || wire.suite != SUITE || !lengths_hold {
            return Err(CborError::Malformed { what });
        }
        let ascends = |positions: &ByteVec| {
            !positions.is_empty() && positions.windows(2).all(|pair| pair[0] < pair[1])
        };
        let gone = wire.destroyed.as_ref().map_or(0, |gone| gone.len());
        let left_fits = { wire.left.as_ref() }.is_none_or(|left| gone > 0 && left.len() == gone);
        if !in_order(&wire.cells) || !wire.destroyed.as_ref().is_none_or(ascends) || !left_fits {
            return Err(CborError::NotCanonical { what });
        }
        match Entry::decode(&wire.entry)? {
            Entry::Record(entry) => Ok(Self { wire, entry }),
            _ => Err(CborError::Malformed { what }),
        }
    }

    /// The bytes of the shard's entry: the leaf whose inclusion the caller checks.
    pub fn leaf(&self) -> &[u8] {
        &self.wire.entry
    }

    /// The shard's entry.
    pub fn entry(&self) -> &RecordEntry {
        &self.entry
    }

    /// The entry's index in the shard's ledger.
    pub fn index(&self) -> u64 {
        self.wire.index
    }

    /// The entry's inclusion proof.
    pub fn inclusion(&self) -> Vec<Hash> {
        self.wire.inclusion.iter().map(|hash| **hash).collect()
    }

    /// The positions whose cells are here, ascending.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        self.wire.cells.iter().map(|cell| cell.position)
    }

    /// Opens the granted cells and compares them with the shard entry's `content`.
    ///
    /// `field_keys` are those of the grant's envelope, `origin` is the shard, `schema` the
    /// version that the entry names. Granted fields that are absent without a cell are
    /// proven absent and are not in the result.
    ///
    /// # Errors
    /// [`OpenError`] when the parcel is another grant's, was altered, or does not say what
    /// the ledger says.
    pub fn open(
        &self,
        secret: &GrantSecret,
        field_keys: &BTreeMap<Position, FieldKey>,
        grant: GrantId,
        origin: &Origin,
        schema: &Schema,
    ) -> Result<BTreeMap<Position, Opened>, OpenError> {
        if schema.version != self.entry.schema {
            return Err(OpenError::OtherSchema {
                given: schema.version,
                wanted: self.entry.schema,
            });
        }
        let destroyed = self.wire.destroyed.as_ref();
        let there = |at: &Position| destroyed.is_none_or(|gone| !gone.contains(at));
        let fields = fields_in(schema, field_keys.keys().copied().filter(there));
        let rows = self.open_rows(secret, grant, origin, &fields)?;
        let ctx = CellContext::of(origin, &self.entry);
        let mut aad = ctx.binding();
        let mut opened = BTreeMap::new();
        let mut known = BTreeMap::new();
        for position in fields {
            known.insert(position, content::no_cell());
            let Some(sealed) = find(&self.wire.cells, position) else {
                continue;
            };
            let missing = OpenError::NoField { position };
            let field = schema.at(position).ok_or(missing.clone())?;
            let field_key = field_keys.get(&position).ok_or(missing)?;
            let row = rows
                .get(&field.group)
                .ok_or(OpenError::NoRowKey { position })?;
            let key = derive::cell_key(field_key, row, position);
            aad.set_last(position);
            let nonce = &self.wire.body_nonce;
            let cell = cell::open(&key, nonce, aad.bytes(), position, field.width, sealed)?;
            known.insert(position, cell.commitment(position));
            opened.insert(position, cell);
        }
        // A cell beyond the granted fields would go unchecked.
        if opened.len() != self.wire.cells.len() {
            return Err(OpenError::OtherContent);
        }
        for (position, commitment) in self.left() {
            if schema.at(position).is_none() || known.insert(position, commitment).is_some() {
                return Err(OpenError::OtherContent);
            }
            opened.insert(position, Opened::destroyed(position, commitment));
        }
        let siblings: Vec<Hash> = self.wire.siblings.iter().map(|hash| **hash).collect();
        match content::root_from(schema.leaves(), &known, &siblings) {
            Some(root) if root == self.entry.content => Ok(opened),
            _ => Err(OpenError::OtherContent),
        }
    }

    /// Opens a parcel that is to have every cell of the body, as [`Parcel::open`] does, and compares
    /// the whole with the entry's `body`: for the record's next owner.
    ///
    /// What is said to have been destroyed was, in the very body that the ledger has: nobody can
    /// keep a value back by calling it destroyed.
    ///
    /// # Errors
    /// [`OpenError`], as for [`Parcel::open`] and when anything of the body is missing.
    pub fn open_whole(
        &self,
        secret: &GrantSecret,
        field_keys: &BTreeMap<Position, FieldKey>,
        grant: GrantId,
        origin: &Origin,
        schema: &Schema,
    ) -> Result<BTreeMap<Position, Opened>, OpenError> {
        let opened = self.open(secret, field_keys, grant, origin, schema)?;
        let left: Vec<(Position, Hash)> = self.left().collect();
        let gone = self.wire.destroyed.as_ref().map_or(0, |gone| gone.len());
        let body = Body::hash_of(&self.wire.body_nonce, &self.wire.cells, &left);
        match left.len() == gone && body == self.entry.body {
            true => Ok(opened),
            false => Err(OpenError::OtherContent),
        }
    }

    /// What is left of destroyed cells, as far as it came along.
    fn left(&self) -> impl Iterator<Item = (Position, Hash)> {
        let gone = self.wire.destroyed.iter().flat_map(|gone| gone.iter());
        let left = self.wire.left.iter().flatten();
        gone.zip(left).map(|(at, hash)| (*at, **hash))
    }

    fn open_rows(
        &self,
        secret: &GrantSecret,
        grant: GrantId,
        origin: &Origin,
        fields: &[Position],
    ) -> Result<BTreeMap<Kind, RowKey>, OpenError> {
        let mut unsealed = self.wire.clone();
        unsealed.keys = ByteVec::from(Vec::new());
        let aad = binding(&unsealed, &self.entry, grant, origin, fields);
        let key = keys_key(secret, grant, &self.entry.record);
        let plain = aead::open(&key, &self.wire.keys_nonce, aad.bytes(), &self.wire.keys)
            .ok_or(OpenError::RowKeys)?;
        let rows: Vec<Row> = decode_wiped(&plain).ok_or(OpenError::RowKeys)?;
        let by_group = rows
            .iter()
            .map(|row| (row.group.clone(), (&row.key).into()));
        Ok(by_group.collect())
    }
}

/// The positions that this schema version has, ascending, each once.
fn fields_in(schema: &Schema, positions: impl Iterator<Item = Position>) -> Vec<Position> {
    let set: BTreeSet<Position> = positions.filter(|at| schema.at(*at).is_some()).collect();
    set.into_iter().collect()
}

/// The row keys of the granted groups, ascending by group, and of no other.
fn granted_rows(
    fields: &[Position],
    schema: &Schema,
    row_keys: &BTreeMap<Kind, RowKey>,
) -> Result<Vec<Row>, ParcelError> {
    let mut rows = BTreeMap::new();
    for field in fields.iter().filter_map(|position| schema.at(*position)) {
        let missing = ParcelError::NoRowKey {
            position: field.position,
        };
        rows.insert(&field.group, row_keys.get(&field.group).ok_or(missing)?);
    }
    let row = |(group, key): (&Kind, &RowKey)| Row {
        group: group.clone(),
        key: key.into(),
    };
    Ok(rows.into_iter().map(row).collect())
}

fn encode_with_room_for_tag(rows: &Vec<Row>) -> Zeroizing<Vec<u8>> {
    // A group's name has at most 40 bytes; with its key and their heads, at most 77.
    encode_wiped(rows, 8 + 77 * rows.len() + TAG)
}

fn keys_key(secret: &GrantSecret, grant: GrantId, record: &RecordId) -> Zeroizing<[u8; 32]> {
    let info = Binding::new("fangzhi/parcel-key/v1")
        .fixed(&grant.0)
        .fixed(&record.0);
    derive::hkdf(&[], secret.expose(), info.bytes())
}

/// The associated data of the sealed row keys. It covers the whole parcel: `unsealed` is
/// the parcel with its sealed row keys empty.
fn binding(
    unsealed: &Wire,
    entry: &RecordEntry,
    grant: GrantId,
    origin: &Origin,
    fields: &[Position],
) -> Binding {
    let whole: Hash = Sha256::digest(cbor::to_vec(unsealed)).into();
    Binding::new("fangzhi/parcel/v1")
        .fixed(&grant.0)
        .counted(origin.as_str().as_bytes())
        .fixed(&entry.record.0)
        .u64(entry.version)
        .counted(fields)
        .fixed(&whole)
}

fn arrays(hashes: Vec<Hash>) -> Vec<ByteArray<32>> {
    hashes.into_iter().map(ByteArray::from).collect()
}

#[cfg(test)]
mod tests;
