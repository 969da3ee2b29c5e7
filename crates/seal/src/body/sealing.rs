//! Sealing a body: from checked values, or again from opened ones for another epoch.
//!
//! It makes salts and nonce from the caller's randomness and refuses values, schema, context
//! and keys that do not belong together.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use record::cbor;
use record::draft::Checked;
use record::entry::SUITE;
use record::id::Hash;
use record::schema::{Field, Position, Schema};
use sha2::{Digest, Sha256};

use super::{BODY_MAX, Cell, Destroyed, FORMAT, RowKeys, Wire};
use crate::aead::{self, Nonce};
use crate::cell::{self, CellContext, Opened};
use crate::content::{self, Salt};
use crate::derive::FieldKeys;
use crate::secret::RecordSecret;

/// A body just sealed, and what its entry says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBody {
    /// The body's bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes: the entry's `body`.
    pub hash: Hash,
    /// Root over the commitments: the entry's `content`.
    pub content: Hash,
}

/// Why values cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Values, schema, context and keys do not belong together.
    #[error(
        "values of schema {given} cannot be sealed under schema {wanted}; take schema, context and field keys of the version that the values were checked against"
    )]
    OtherSchema {
        /// The version that the values were checked against.
        given: u32,
        /// The version that the context names.
        wanted: u32,
    },
    /// There is no field key for a field of the schema.
    #[error(
        "there is no field key for position {position}; derive the field keys from this schema"
    )]
    NoFieldKey {
        /// The field.
        position: Position,
    },
    /// A value is wider than its field.
    #[error(
        "the value at position {position} is longer than the {width} bytes of its field; widen the field in a later schema version"
    )]
    TooWide {
        /// The field.
        position: Position,
        /// Bytes that a value may have.
        width: u16,
    },
    /// The body would be over [`BODY_MAX`].
    #[error(
        "the body would have {size} bytes and may have {BODY_MAX}; lower the widths in the schema"
    )]
    TooLarge {
        /// Bytes that it would have.
        size: usize,
    },
}

/// Seals checked values as the body of one version of a record.
///
/// Present fields get a cell, fields of P3 and P4 always. Salts and nonce come from `rng`.
///
/// # Errors
/// [`SealError`] when schema, context and keys do not belong to the values.
pub fn seal_body(
    checked: &Checked,
    schema: &Schema,
    ctx: &CellContext<'_>,
    keys: &FieldKeys,
    record: &RecordSecret,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<SealedBody, SealError> {
    if checked.schema() != schema.version || checked.kind() != &schema.kind {
        return Err(SealError::OtherSchema {
            given: checked.schema(),
            wanted: schema.version,
        });
    }
    let values: BTreeMap<Position, &str> = checked.values().collect();
    seal_values(&values, schema, ctx, keys, record, rng)
}

pub(crate) fn seal_values(
    values: &BTreeMap<Position, &str>,
    schema: &Schema,
    ctx: &CellContext<'_>,
    keys: &FieldKeys,
    record: &RecordSecret,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<SealedBody, SealError> {
    let mut plains = Vec::with_capacity(schema.fields.len());
    for field in &schema.fields {
        let value = values.get(&field.position).copied();
        if value.is_some() || field.sensitivity.always_sealed() {
            let mut salt = Salt::default();
            rng.fill_bytes(&mut salt);
            let commitment = content::commitment(field.position, &salt, value);
            plains.push(Plain {
                field,
                salt,
                value,
                commitment,
            });
        }
    }
    let nonce = aead::nonce(rng);
    seal_plains(&plains, vec![], nonce, schema, ctx, keys, record)
}

/// Seals opened values again under the keys of another epoch: the salts stay, and so
/// `content` does; nonce, ciphertexts and `body` change. Of what was destroyed
/// ([`Opened::destroyed`]) the commitment stays, and no cell.
///
/// `opened` is what [`super::open_all`] gave, `schema` the version that it was sealed under.
///
/// # Errors
/// [`SealError`] when schema, context and keys do not belong to the values.
pub fn reseal_body(
    opened: &BTreeMap<Position, Opened>,
    schema: &Schema,
    ctx: &CellContext<'_>,
    keys: &FieldKeys,
    record: &RecordSecret,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<SealedBody, SealError> {
    let plains: Vec<Plain<'_>> = schema
        .fields
        .iter()
        .filter_map(|field| {
            let opened = opened.get(&field.position)?;
            if opened.is_destroyed() {
                return None;
            }
            Some(Plain {
                field,
                salt: *opened.salt(),
                value: opened.value(),
                commitment: opened.commitment(field.position),
            })
        })
        .collect();
    let gone = opened.iter().filter(|(_, opened)| opened.is_destroyed());
    let destroyed = gone.map(|(position, opened)| Destroyed {
        position: *position,
        commitment: opened.commitment(*position).into(),
    });
    let (destroyed, nonce) = (destroyed.collect(), aead::nonce(rng));
    seal_plains(&plains, destroyed, nonce, schema, ctx, keys, record)
}

/// What goes into one cell.
struct Plain<'a> {
    field: &'a Field,
    salt: Salt,
    value: Option<&'a str>,
    commitment: Hash,
}

fn seal_plains(
    plains: &[Plain<'_>],
    destroyed: Vec<Destroyed>,
    nonce: Nonce,
    schema: &Schema,
    ctx: &CellContext<'_>,
    keys: &FieldKeys,
    record: &RecordSecret,
) -> Result<SealedBody, SealError> {
    if ctx.schema != schema.version {
        return Err(SealError::OtherSchema {
            given: schema.version,
            wanted: ctx.schema,
        });
    }
    let mut rows = RowKeys::new(record, ctx);
    let mut binding = ctx.binding();
    let mut cells = Vec::with_capacity(plains.len());
    for plain in plains {
        let position = plain.field.position;
        let prepared = keys
            .prepared(position)
            .ok_or(SealError::NoFieldKey { position })?;
        let cell_key = prepared.cell_key(rows.get(&plain.field.group), position);
        binding.set_last(position);
        let sealed = cell::seal(
            &cell_key,
            &nonce,
            binding.bytes(),
            plain.field.width,
            &plain.salt,
            plain.value,
        )
        .ok_or(SealError::TooWide {
            position,
            width: plain.field.width,
        })?;
        cells.push(Cell {
            position,
            sealed: sealed.into(),
        });
    }
    let commitments = content::commitments(
        schema.leaves(),
        plains
            .iter()
            .map(|plain| (plain.field.position, plain.commitment))
            .chain(destroyed.iter().map(|d| (d.position, *d.commitment))),
    );
    let bytes = cbor::to_vec(&Wire {
        format: FORMAT,
        suite: SUITE,
        nonce: nonce.into(),
        cells,
        destroyed: (!destroyed.is_empty()).then_some(destroyed),
    });
    if bytes.len() > BODY_MAX {
        return Err(SealError::TooLarge { size: bytes.len() });
    }
    Ok(SealedBody {
        hash: Sha256::digest(&bytes).into(),
        content: content::content_root(&commitments),
        bytes,
    })
}
