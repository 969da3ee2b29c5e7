//! Disclosures (披露件): a file that proves a few fields of one version to a third person.
//!
//! Format: `docs/formats/disclosure.md`. Owns its JSON form and the check, which needs SHA-256 and
//! Ed25519 alone: value and salt to commitment, commitments to `content`, entry to the signed root.
//! Refuses unknown members, labels that the schema does not have, and a file of which one byte
//! does not fit. It carries no key: nothing else of the record opens with it.

use std::collections::BTreeMap;

use ledger::checkpoint::Checkpoint;
use ledger::hash::leaf_hash;
use ledger::note::Verifier;
use ledger::proof::verify_inclusion;
use record::entry::Entry;
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::schema::{Catalogue, POSITION_MAX, Position};
use seal::content::{self, Salt};
use serde::{Deserialize, Serialize};

use super::check::{CheckError, Signatures, signatures};
use super::hex;

/// The version of the format.
pub const FORMAT: &str = "fangzhi/disclosure/v1";

/// What is disclosed, and the path from it to a signed checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosure {
    /// [`FORMAT`].
    pub format: String,
    /// The owner's shard.
    pub origin: Origin,
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: u64,
    /// The version of the kind's schema.
    pub schema: u32,
    /// The fields shown, by ascending position.
    pub fields: Vec<Field>,
    /// How many leaves the content tree has.
    pub leaves: usize,
    /// The hashes that, with the commitments, give `content`; hexadecimal.
    pub siblings: Vec<String>,
    /// The entry's bytes, hexadecimal.
    pub entry: String,
    /// The entry's index in the ledger.
    pub index: u64,
    /// Inclusion proof, leaf to root, hexadecimal.
    pub inclusion: Vec<String>,
    /// The signed checkpoint with its cosignatures, verbatim.
    pub checkpoint: String,
}

/// One field that is shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its place in the content tree.
    pub position: Position,
    /// Its id: a label, which the schema gives.
    pub id: String,
    /// Its Chinese name: a label, which the schema gives.
    pub name: String,
    /// The value; absent when the field is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The salt, hexadecimal; absent for a field that has no cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

/// The file: what was disclosed, and the mark of the reading that disclosed it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mark: String,
    receipt: ReceiptOf,
    value: Disclosure,
}

/// The access entry of the reading, as the file names it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptOf {
    /// The access ledger.
    pub origin: Origin,
    /// The entry's index in it.
    pub index: u64,
    /// Its leaf hash, hexadecimal.
    pub leaf: String,
    /// When it was committed.
    pub at: UnixMillis,
}

/// What a disclosure proves.
#[derive(Serialize)]
pub struct Shown {
    /// The owner's shard.
    pub origin: Origin,
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: u64,
    /// When the owner's node recorded it, by its own clock.
    pub recorded_at: UnixMillis,
    /// The entry's index.
    pub index: u64,
    /// The entry's leaf hash, hexadecimal.
    pub leaf: String,
    /// The fields; one without a value is proven absent.
    pub fields: Vec<Field>,
    /// The mark, which leads the owner to the reading. It is not proven by this file.
    pub mark: String,
    /// The reading's entry in the access ledger. It is not proven by this file.
    pub receipt: ReceiptOf,
}

/// Why a disclosure does not hold.
#[derive(Debug, thiserror::Error)]
pub enum DisclosureError {
    /// Not the JSON that the format page describes.
    #[error("the disclosure cannot be read; obtain it again, whole: {what}")]
    Shape {
        /// What is wrong with it.
        what: String,
    },
    /// Of another version.
    #[error(
        "the disclosure is not of format `fangzhi/disclosure/v1`; check it with the program that made it"
    )]
    Version,
    /// The checkpoint is of another ledger.
    #[error(
        "the disclosure is of `{origin}`, its checkpoint of `{checkpoint}`; it was put together from two"
    )]
    OtherLedger {
        /// The ledger named.
        origin: Origin,
        /// The ledger of the checkpoint.
        checkpoint: String,
    },
    /// The entry is not in the ledger there.
    #[error("the entry is not proven to be in the ledger at this index: {what}")]
    Inclusion {
        /// What is wrong.
        what: String,
    },
    /// The entry is of another record, version or schema.
    #[error("the entry is not of the record, version and schema that the disclosure names")]
    OtherEntry,
    /// Positions are doubled, out of order or beyond the tree.
    #[error("the fields are not by ascending position within the schema")]
    Positions,
    /// The labels are not those of the schema.
    #[error("the field at position {position} is not labelled as the schema labels it")]
    Label {
        /// Where.
        position: Position,
    },
    /// Values, salts or siblings are not those of the entry.
    #[error("the values are not what the ledger says: a value, a salt or the path was altered")]
    Content,
}

/// Reads a hash.
fn hash(text: &str) -> Result<Hash, DisclosureError> {
    bytes(text)?
        .try_into()
        .map_err(|_| shape("a hash is not 64 hexadecimal digits"))
}

fn bytes(text: &str) -> Result<Vec<u8>, DisclosureError> {
    data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .map_err(|_| shape("something is not lower-case hexadecimal"))
}

fn shape(what: &str) -> DisclosureError {
    DisclosureError::Shape { what: what.into() }
}

impl Field {
    /// The commitment that the content tree has here.
    fn commitment(&self) -> Result<Hash, DisclosureError> {
        let salt = self
            .salt
            .as_deref()
            .map(|salt| {
                Salt::try_from(bytes(salt)?.as_slice())
                    .map_err(|_| shape("a salt is not 32 hexadecimal digits"))
            })
            .transpose()?;
        match (salt, self.value.as_deref()) {
            (Some(salt), value) => Ok(content::commitment(self.position, &salt, value)),
            (None, None) => Ok(content::no_cell()),
            (None, Some(_)) => Err(shape("a value has no salt")),
        }
    }
}

/// Checks a file, and gives what it proves.
///
/// # Errors
/// [`CheckError`]; nothing in the file is to be believed then.
pub(crate) fn check(
    file: &[u8],
    keys: &[Verifier],
) -> Result<(Checkpoint, Signatures, Shown), CheckError> {
    // The parser's own words could repeat a value; where it stopped is enough.
    let file: File = serde_json::from_slice(file).map_err(|e| DisclosureError::Shape {
        what: format!("line {} column {}", e.line(), e.column()),
    })?;
    let disclosure = &file.value;
    if disclosure.format != FORMAT {
        return Err(DisclosureError::Version.into());
    }
    let (checkpoint, signatures) = signatures(disclosure.checkpoint.as_bytes(), keys)?;
    if checkpoint.origin() != disclosure.origin.as_str() {
        return Err(DisclosureError::OtherLedger {
            origin: disclosure.origin.clone(),
            checkpoint: checkpoint.origin().to_owned(),
        }
        .into());
    }
    let entry = bytes(&disclosure.entry)?;
    let leaf = leaf_hash(&entry);
    let path = hashes(&disclosure.inclusion)?;
    verify_inclusion(
        &leaf,
        disclosure.index,
        checkpoint.size(),
        &path,
        checkpoint.root(),
    )
    .map_err(|e| DisclosureError::Inclusion {
        what: e.to_string(),
    })?;
    let recorded_at = disclosure.content_holds(&entry)?;
    let shown = Shown {
        origin: file.value.origin,
        record: file.value.record,
        version: file.value.version,
        recorded_at,
        index: file.value.index,
        leaf: hex(&leaf),
        fields: file.value.fields,
        mark: file.mark,
        receipt: file.receipt,
    };
    Ok((checkpoint, signatures, shown))
}

fn hashes(texts: &[String]) -> Result<Vec<Hash>, DisclosureError> {
    /// More than any proof has.
    const HASHES_MAX: usize = 128;
    if texts.len() > HASHES_MAX {
        return Err(shape("a path is too long"));
    }
    texts.iter().map(|text| hash(text)).collect()
}

impl Disclosure {
    /// Checks the fields against the entry's `content`; gives when the entry was recorded.
    pub(crate) fn content_holds(&self, entry: &[u8]) -> Result<UnixMillis, DisclosureError> {
        let Ok(Entry::Record(entry)) = Entry::decode(entry) else {
            return Err(DisclosureError::OtherEntry);
        };
        if entry.record != self.record
            || entry.version != self.version
            || entry.schema != self.schema
        {
            return Err(DisclosureError::OtherEntry);
        }
        let ascending = self
            .fields
            .windows(2)
            .all(|f| f[0].position < f[1].position);
        if self.fields.is_empty() || !ascending || self.leaves > usize::from(POSITION_MAX) + 1 {
            return Err(DisclosureError::Positions);
        }
        // A realm may have schemas that this program lacks: then the labels are the maker's word.
        if let Some(schema) = Catalogue::builtin().version(&self.origin.ledger(), self.schema) {
            for shown in &self.fields {
                let fits = schema
                    .at(shown.position)
                    .is_some_and(|field| field.id == shown.id && field.name == shown.name);
                if !fits {
                    let position = shown.position;
                    return Err(DisclosureError::Label { position });
                }
            }
        }
        let known: BTreeMap<Position, Hash> = self
            .fields
            .iter()
            .map(|field| Ok((field.position, field.commitment()?)))
            .collect::<Result<_, DisclosureError>>()?;
        let root = content::root_from(self.leaves, &known, &hashes(&self.siblings)?);
        if root != Some(entry.content) {
            return Err(DisclosureError::Content);
        }
        Ok(entry.recorded_at)
    }
}

#[cfg(test)]
mod tests;
