//! Cells (密元): one field's ciphertext, bound to the one place where it belongs.
//!
//! ```text
//! plaintext = salt (16) || length (u16 big-endian, 0xFFFF absent) || value || zeros up to the width
//! cell      = XChaCha20-Poly1305(cell key, the body's nonce, context, plaintext)
//! ```
//!
//! This module owns those bytes and what comes out of them. It refuses a cell that was
//! moved, altered, wrongly padded or is no text.

use record::entry::RecordEntry;
use record::id::{Hash, Origin, RecordId};
use record::schema::Position;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::{self, Nonce, TAG};
use crate::content::{self, Salt};
use crate::derive::Binding;

/// The length that says that a field is absent.
const ABSENT: u16 = u16::MAX;
/// Salt and length.
const HEAD: usize = 18;

/// Where a cell belongs. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellContext<'a> {
    /// The shard.
    pub origin: &'a Origin,
    /// The record.
    pub record: RecordId,
    /// The record's version.
    pub version: u64,
    /// The epoch whose field keys seal it.
    pub epoch: u32,
    /// The version of the kind's schema.
    pub schema: u32,
}

impl<'a> CellContext<'a> {
    /// Where the cells of an entry in this shard belong.
    pub fn of(origin: &'a Origin, entry: &RecordEntry) -> Self {
        Self {
            origin,
            record: entry.record,
            version: entry.version,
            epoch: entry.epoch,
            schema: entry.schema,
        }
    }

    /// The associated data of a cell; its last byte is the position, to be set for each.
    pub(crate) fn binding(&self) -> Binding {
        Binding::new("fangzhi/cell/v1")
            .counted(self.origin.as_str().as_bytes())
            .fixed(&self.record.0)
            .u64(self.version)
            .u32(self.epoch)
            .u32(self.schema)
            .u8(0)
    }
}

/// What a cell holds, in the clear. Wiped on drop, never printed, never serialized.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Opened {
    salt: Salt,
    value: Option<String>,
    /// Known when the cell was compared with its entry, so that resealing need not hash again.
    #[zeroize(skip)]
    committed: Option<(Position, Hash)>,
    /// Only the commitment is left.
    #[zeroize(skip)]
    destroyed: bool,
}

impl Opened {
    /// A field whose cell was destroyed: what is left of it binds, and tells nothing.
    pub fn destroyed(position: Position, commitment: Hash) -> Self {
        Self {
            salt: Salt::default(),
            value: None,
            committed: Some((position, commitment)),
            destroyed: true,
        }
    }

    /// Whether the cell was destroyed: it cannot be told whether there was a value.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed
    }

    /// The salt of the commitment: shown only together with the value, to let it be checked.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// The canonical value; `None` when the field is absent.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// The commitment that the content tree has at this position.
    pub fn commitment(&self, position: Position) -> Hash {
        match self.committed {
            Some((at, commitment)) if at == position => commitment,
            _ => content::commitment(position, &self.salt, self.value()),
        }
    }

    /// Keeps the commitment at a position.
    pub(crate) fn committed(mut self, position: Position) -> Self {
        self.committed = Some((position, self.commitment(position)));
        self
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened(hidden)")
    }
}

/// Why a cell does not open, or what it says does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The body has no cell there.
    #[error("there is no cell at position {position}; the field is absent or was not granted")]
    NoCell {
        /// The field.
        position: Position,
    },
    /// The schema has no such field, or no key is at hand for it.
    #[error(
        "position {position} is no field of this schema version; fetch the schema that the entry names"
    )]
    NoField {
        /// The field.
        position: Position,
    },
    /// The schema is not the entry's.
    #[error("the entry was sealed under schema {wanted}, not {given}; fetch that version")]
    OtherSchema {
        /// The version given.
        given: u32,
        /// The version of the entry.
        wanted: u32,
    },
    /// Key, context or bytes are wrong; which of them cannot be told.
    #[error(
        "the cell at position {position} does not open; its keys are of another record, field or epoch, or it was altered or moved"
    )]
    Sealed {
        /// The field.
        position: Position,
    },
    /// The ciphertext has not the length that the field's width gives.
    #[error(
        "the cell at position {position} has not the length of its field; fetch the schema version that the entry names"
    )]
    Length {
        /// The field.
        position: Position,
    },
    /// The plaintext is not salt, length, text and zeros.
    #[error(
        "the cell at position {position} opens to malformed bytes; the owner's node sealed it wrongly, report it to the owner"
    )]
    Malformed {
        /// The field.
        position: Position,
    },
    /// There is no row key for a granted group.
    #[error(
        "there is no row key for the group of position {position}; ask the owner to send the parcel again"
    )]
    NoRowKey {
        /// The field.
        position: Position,
    },
    /// The sealed row keys of a parcel do not open.
    #[error(
        "the parcel's row keys do not open; it belongs to another grant or was altered, fetch it again"
    )]
    RowKeys,
    /// The values are not those that the ledger commits to.
    #[error(
        "the opened values are not those of the ledger entry; keep entry and body as evidence and report them to the auditor"
    )]
    OtherContent,
}

/// Seals one cell; `None` when the value is longer than the width, or the width is
/// 0xFFFF, which as a length means absent.
pub(crate) fn seal(
    key: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    width: u16,
    salt: &Salt,
    value: Option<&str>,
) -> Option<Vec<u8>> {
    let text = value.unwrap_or_default().as_bytes();
    if width == ABSENT || text.len() > usize::from(width) {
        return None;
    }
    let length = match value {
        Some(_) => u16::try_from(text.len()).ok()?,
        None => ABSENT,
    };
    let plain = HEAD + usize::from(width);
    // Sealed in place: the plaintext is never in a second buffer.
    let mut buffer = Vec::with_capacity(plain + TAG);
    buffer.extend(salt);
    buffer.extend(length.to_be_bytes());
    buffer.extend(text);
    buffer.resize(plain, 0);
    aead::seal(key, nonce, aad, &mut buffer);
    Some(buffer)
}

/// Opens one cell.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    position: Position,
    width: u16,
    sealed: &[u8],
) -> Result<Opened, OpenError> {
    if sealed.len() != HEAD + usize::from(width) + TAG {
        return Err(OpenError::Length { position });
    }
    let plain = aead::open(key, nonce, aad, sealed).ok_or(OpenError::Sealed { position })?;
    parse(&plain).ok_or(OpenError::Malformed { position })
}

fn parse(plain: &[u8]) -> Option<Opened> {
    let (salt, rest) = plain.split_first_chunk::<16>()?;
    let (length, padded) = rest.split_first_chunk::<2>()?;
    let length = u16::from_be_bytes(*length);
    let absent = length == ABSENT;
    let (text, padding) = padded.split_at_checked(if absent { 0 } else { length.into() })?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    Some(Opened {
        salt: *salt,
        value: (!absent).then(|| text.to_owned()),
        committed: None,
        destroyed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopen(plain: &[u8]) -> Result<Opened, OpenError> {
        let mut sealed = Vec::with_capacity(plain.len() + TAG);
        sealed.extend(plain);
        aead::seal(&[1; 32], &[2; 24], b"", &mut sealed);
        open(&[1; 32], &[2; 24], b"", 5, 4, &sealed)
    }

    fn plain(length: u16, rest: [u8; 4]) -> Vec<u8> {
        let mut plain = vec![7; 16];
        plain.extend(length.to_be_bytes());
        plain.extend(rest);
        plain
    }

    #[test]
    fn a_value_an_empty_value_and_an_absent_one_open_as_they_were() {
        assert_eq!(reopen(&plain(2, *b"ab\0\0")).unwrap().value(), Some("ab"));
        assert_eq!(reopen(&plain(0, [0; 4])).unwrap().value(), Some(""));
        assert_eq!(reopen(&plain(ABSENT, [0; 4])).unwrap().value(), None);
    }

    #[test]
    fn bad_padding_a_length_over_the_width_and_no_text_are_refused() {
        let malformed = OpenError::Malformed { position: 5 };
        for bad in [
            plain(2, *b"ab\0x"),
            plain(ABSENT, *b"x\0\0\0"),
            plain(5, *b"abcd"),
            plain(2, [0xc3, 0x28, 0, 0]),
        ] {
            assert_eq!(reopen(&bad).unwrap_err(), malformed);
        }
        let short = &plain(2, *b"ab\0\0")[..21];
        assert_eq!(
            reopen(short).unwrap_err(),
            OpenError::Length { position: 5 }
        );
    }

    #[test]
    fn a_value_wider_than_its_field_is_not_sealed() {
        let seal = |width, value| seal(&[1; 32], &[2; 24], b"", width, &[0; 16], value);
        assert!(seal(3, Some("abcd")).is_none());
        assert!(seal(4, Some("abcd")).is_some());
        assert!(seal(u16::MAX, None).is_none());
    }

    #[test]
    fn an_opened_value_does_not_show_in_debug_output() {
        let opened = reopen(&plain(2, *b"ab\0\0")).unwrap();
        assert_eq!(format!("{opened:?}"), "Opened(hidden)");
    }
}
