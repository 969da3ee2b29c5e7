//! Bodies (正文): the cells of one version of a record, each sealed under its own key.
//!
//! A body lies beside the ledger and can be erased; the entry names its hash and the root
//! over the fields' commitments. Format: `docs/formats/body.md`. This module owns the
//! body's bytes and opening; sealing is in `body/sealing.rs`, one cell's bytes in `cell.rs`.
//! It refuses bodies that are not canonical, out of order or over [`BODY_MAX`].

use std::collections::BTreeMap;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use record::cbor::{self, CborError};
use record::entry::{RecordEntry, SUITE};
use record::id::{Hash, Kind};
use record::schema::{POSITION_MAX, Position, Schema};
use sha2::{Digest, Sha256};

use crate::aead::Nonce;
use crate::cell;
use crate::content;
use crate::derive::{self, FieldKeys, RowDerivation};
use crate::secret::{FieldKey, RecordSecret, RowKey};

pub use crate::cell::{CellContext, OpenError, Opened};
#[cfg(test)]
pub(crate) use sealing::seal_values;
pub use sealing::{SealError, SealedBody, reseal_body, seal_body};

mod sealing;

/// The version of the body format.
pub const FORMAT: u8 = 1;
/// The largest body. A parcel of all its cells, with proofs, still fits into 256 KiB.
pub const BODY_MAX: usize = 240 * 1024;

/// One cell: `[position, ciphertext]`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Cell {
    #[n(0)]
    pub(crate) position: Position,
    #[n(1)]
    pub(crate) sealed: ByteVec,
}

/// Whether cells lie by ascending position, none twice, none beyond the last possible field.
pub(crate) fn in_order(cells: &[Cell]) -> bool {
    cells
        .windows(2)
        .all(|pair| pair[0].position < pair[1].position)
        && cells
            .last()
            .is_none_or(|last| last.position <= POSITION_MAX)
}

/// The ciphertext at a position among cells in order.
pub(crate) fn find(cells: &[Cell], position: Position) -> Option<&[u8]> {
    let at = cells.binary_search_by_key(&position, |cell| cell.position);
    at.ok().map(|at| cells[at].sealed.as_slice())
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[n(2)]
    nonce: ByteArray<24>,
    #[n(3)]
    cells: Vec<Cell>,
    /// Absent when nothing was destroyed.
    #[n(4)]
    destroyed: Option<Vec<Destroyed>>,
}

/// What is left of a cell that was destroyed: `[position, commitment]`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Destroyed {
    #[n(0)]
    position: Position,
    #[n(1)]
    commitment: ByteArray<32>,
}

impl Wire {
    /// Destroyed positions ascend, and none has a cell.
    fn is_ordered(&self) -> bool {
        let destroyed = match self.destroyed.as_deref() {
            None => return true,
            Some([]) => return false,
            Some(destroyed) => destroyed,
        };
        destroyed
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position)
            && destroyed.last().is_some_and(|d| d.position <= POSITION_MAX)
            && destroyed
                .iter()
                .all(|d| find(&self.cells, d.position).is_none())
    }
}

/// A sealed body as read from its bytes. Nothing in it is clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    wire: Wire,
    hash: Hash,
}

impl Body {
    /// Reads a body from exactly these bytes.
    ///
    /// # Errors
    /// [`CborError`] when they are over [`BODY_MAX`], malformed, of another format or
    /// suite, or not canonical; ask the sender for the body again.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let wire: Wire = cbor::from_slice("body", bytes, BODY_MAX)?;
        if wire.format != FORMAT || wire.suite != SUITE {
            return Err(CborError::Malformed { what: "body" });
        }
        if !in_order(&wire.cells) || !wire.is_ordered() {
            return Err(CborError::NotCanonical { what: "body" });
        }
        let hash = Sha256::digest(bytes).into();
        Ok(Self { wire, hash })
    }

    /// SHA-256 of the bytes that a body of these parts has.
    pub(crate) fn hash_of(nonce: &Nonce, cells: &[Cell], destroyed: &[(Position, Hash)]) -> Hash {
        let destroyed = destroyed.iter().map(|(position, commitment)| Destroyed {
            position: *position,
            commitment: (*commitment).into(),
        });
        let destroyed: Vec<Destroyed> = destroyed.collect();
        let wire = Wire {
            format: FORMAT,
            suite: SUITE,
            nonce: (*nonce).into(),
            cells: cells.to_vec(),
            destroyed: (!destroyed.is_empty()).then_some(destroyed),
        };
        Sha256::digest(cbor::to_vec(&wire)).into()
    }

    /// SHA-256 of the bytes, which the entry names as `body`.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The ciphertext of the cell at a position, if there is one.
    pub fn cell(&self, position: Position) -> Option<&[u8]> {
        find(&self.wire.cells, position)
    }

    /// The positions that have a cell, ascending.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        self.wire.cells.iter().map(|cell| cell.position)
    }

    /// The positions whose cells were destroyed, ascending, each with the commitment that is left.
    pub fn destroyed(&self) -> impl Iterator<Item = (Position, Hash)> {
        let destroyed = self.wire.destroyed.iter().flatten();
        destroyed.map(|d| (d.position, *d.commitment))
    }

    /// The nonce of all cells of this body.
    pub fn nonce(&self) -> &Nonce {
        &self.wire.nonce
    }
}

/// Opens one cell of a body.
///
/// `width` is the field's in the schema version of the context. The value is what the
/// sealer wrote; whether the ledger says the same is for [`open_all`] and parcels to check.
///
/// # Errors
/// [`OpenError`] when there is no such cell, or a key, the context or a byte is wrong.
pub fn open_cell(
    body: &Body,
    position: Position,
    field_key: &FieldKey,
    row_key: &RowKey,
    ctx: &CellContext<'_>,
    width: u16,
) -> Result<Opened, OpenError> {
    let sealed = body.cell(position).ok_or(OpenError::NoCell { position })?;
    let key = derive::cell_key(field_key, row_key, position);
    let mut binding = ctx.binding();
    binding.set_last(position);
    cell::open(&key, body.nonce(), binding.bytes(), position, width, sealed)
}

/// Opens all cells of a body and compares them with the entry's `content`.
///
/// Fields without a cell (absent, of P0 to P2) are not in the result; those whose cell was
/// destroyed are, without a value.
///
/// # Errors
/// [`OpenError`] when a cell does not open, or the values are not those of the entry.
pub fn open_all(
    body: &Body,
    entry: &RecordEntry,
    schema: &Schema,
    ctx: &CellContext<'_>,
    keys: &FieldKeys,
    record: &RecordSecret,
) -> Result<BTreeMap<Position, Opened>, OpenError> {
    if ctx.schema != schema.version || entry.schema != schema.version {
        return Err(OpenError::OtherSchema {
            given: schema.version,
            wanted: entry.schema,
        });
    }
    let mut rows = RowKeys::new(record, ctx);
    let mut binding = ctx.binding();
    let mut opened = BTreeMap::new();
    for Cell { position, sealed } in &body.wire.cells {
        let position = *position;
        let unknown = OpenError::NoField { position };
        let field = schema.at(position).ok_or(unknown.clone())?;
        let prepared = keys.prepared(position).ok_or(unknown)?;
        let key = prepared.cell_key(rows.get(&field.group), position);
        binding.set_last(position);
        let cell = cell::open(
            &key,
            body.nonce(),
            binding.bytes(),
            position,
            field.width,
            sealed,
        )?;
        opened.insert(position, cell.committed(position));
    }
    for (position, commitment) in body.destroyed() {
        opened.insert(position, Opened::destroyed(position, commitment));
    }
    let given = opened.iter().map(|(at, cell)| (*at, cell.commitment(*at)));
    let commitments = content::commitments(schema.leaves(), given);
    if content::content_root(&commitments) == entry.content {
        Ok(opened)
    } else {
        Err(OpenError::OtherContent)
    }
}

/// The row keys of one record, each derived when first asked for.
struct RowKeys<'a> {
    derivation: RowDerivation,
    // A record has few groups; looking through them beats a map.
    keys: Vec<(&'a Kind, RowKey)>,
}

impl<'a> RowKeys<'a> {
    fn new(record: &RecordSecret, ctx: &CellContext<'_>) -> Self {
        Self {
            derivation: RowDerivation::new(record, ctx.origin, &ctx.record),
            keys: Vec::with_capacity(16),
        }
    }

    fn get(&mut self, group: &'a Kind) -> &RowKey {
        let found = self.keys.iter().position(|(known, _)| *known == group);
        let at = found.unwrap_or_else(|| {
            if self.keys.len() == self.keys.capacity() {
                // Growing would leave the keys behind on the heap; deriving again does not.
                self.keys.clear();
            }
            self.keys.push((group, self.derivation.key(group)));
            self.keys.len() - 1
        });
        &self.keys[at].1
    }
}

#[cfg(test)]
mod tests;
