//! Pages of record secrets: what must be destroyed to erase a record lies here, and nowhere else.
//!
//! A page is a run of chunks under one page key. Erasing a record writes the rest of its
//! page again under a new key and destroys the old one. A chunk is a [`crate::blob`]
//! bound to its page's number, holding `record id (16) || secret (32)` for each record.

use rand_core::CryptoRng;
use record::id::RecordId;
use zeroize::Zeroizing;

use crate::blob::{self, BlobError, OVERHEAD};
use crate::secret::{PageKey, RecordSecret};

/// The most secrets in one chunk.
pub const CHUNK_SECRETS_MAX: usize = 4096;
const ROW: usize = 16 + 32;
const USAGE: &str = "fangzhi/page/v1";

/// Why a chunk cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// More secrets than a chunk holds.
    #[error("a chunk holds at most {CHUNK_SECRETS_MAX} secrets, not {count}; write several chunks")]
    TooMany {
        /// Secrets given.
        count: usize,
    },
    /// The chunk does not open.
    #[error("a chunk of page {page} does not open")]
    Sealed {
        /// The page.
        page: u64,
        /// Why.
        source: BlobError,
    },
    /// The chunk opens, but not to whole rows.
    #[error(
        "a chunk of page {page} is no list of record secrets; it was written by another version"
    )]
    Malformed {
        /// The page.
        page: u64,
    },
}

/// Seals secrets as one chunk of a page.
///
/// # Errors
/// [`PageError::TooMany`] over [`CHUNK_SECRETS_MAX`] secrets.
pub fn seal_chunk(
    key: &PageKey,
    page: u64,
    secrets: &[(RecordId, &RecordSecret)],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, PageError> {
    let count = secrets.len();
    if count > CHUNK_SECRETS_MAX {
        return Err(PageError::TooMany { count });
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(count * ROW));
    for (record, secret) in secrets {
        plain.extend(record.0);
        plain.extend(secret.expose());
    }
    Ok(blob::seal(
        key.expose(),
        USAGE,
        &page.to_be_bytes(),
        &plain,
        rng,
    ))
}

/// Opens one chunk of a page: its secrets in the order in which they were sealed.
///
/// # Errors
/// [`PageError`] when it belongs to another page or key, was altered, or is too long.
pub fn open_chunk(
    key: &PageKey,
    page: u64,
    bytes: &[u8],
) -> Result<Vec<(RecordId, RecordSecret)>, PageError> {
    if bytes.len() > CHUNK_SECRETS_MAX * ROW + OVERHEAD {
        return Err(PageError::Malformed { page });
    }
    let plain = blob::open(key.expose(), USAGE, &page.to_be_bytes(), bytes)
        .map_err(|source| PageError::Sealed { page, source })?;
    let (rows, rest) = plain.as_chunks::<ROW>();
    if !rest.is_empty() {
        return Err(PageError::Malformed { page });
    }
    Ok(rows.iter().map(row).collect())
}

fn row(row: &[u8; ROW]) -> (RecordId, RecordSecret) {
    let mut record = RecordId([0; 16]);
    let mut secret = Zeroizing::new([0; 32]);
    record.0.copy_from_slice(&row[..16]);
    secret.copy_from_slice(&row[16..]);
    (record, RecordSecret::from_bytes(*secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    #[test]
    fn a_chunk_gives_its_secrets_back_in_order() {
        let key = PageKey::from_bytes([1; 32]);
        let (one, two) = (
            RecordSecret::from_bytes([2; 32]),
            RecordSecret::from_bytes([3; 32]),
        );
        let rows = [(RecordId([9; 16]), &one), (RecordId([8; 16]), &two)];
        let chunk = seal_chunk(&key, 5, &rows, &mut rng(1)).unwrap();
        let opened = open_chunk(&key, 5, &chunk).unwrap();
        assert_eq!(opened, [(RecordId([9; 16]), one), (RecordId([8; 16]), two)]);
    }

    #[test]
    fn the_golden_chunk_holds() {
        let secret = RecordSecret::from_bytes([2; 32]);
        let rows = [(RecordId([9; 16]), &secret)];
        let chunk = seal_chunk(&PageKey::from_bytes([1; 32]), 5, &rows, &mut rng(1)).unwrap();
        check_golden(
            "chunk",
            &chunk,
            "a4e622c385eeb0d48c386cc109a8a02658c1190c5e40d1e7835d6a058358c717",
        );
    }

    #[test]
    fn a_chunk_opens_in_its_own_page_under_its_own_key_only() {
        let key = PageKey::from_bytes([1; 32]);
        let chunk = seal_chunk(&key, 5, &[], &mut rng(1)).unwrap();
        assert!(open_chunk(&key, 5, &chunk).unwrap().is_empty());
        assert!(open_chunk(&key, 6, &chunk).is_err());
        assert!(open_chunk(&PageKey::from_bytes([2; 32]), 5, &chunk).is_err());
    }

    #[test]
    fn a_chunk_of_too_many_or_broken_rows_is_refused() {
        let key = PageKey::from_bytes([1; 32]);
        let secret = RecordSecret::from_bytes([2; 32]);
        let rows = vec![(RecordId([0; 16]), &secret); CHUNK_SECRETS_MAX + 1];
        assert!(seal_chunk(&key, 5, &rows, &mut rng(1)).is_err());
        let full = seal_chunk(&key, 5, &rows[1..], &mut rng(1)).unwrap();
        assert_eq!(open_chunk(&key, 5, &full).unwrap().len(), CHUNK_SECRETS_MAX);
        let broken = blob::seal(
            key.expose(),
            USAGE,
            &5_u64.to_be_bytes(),
            &[0; 47],
            &mut rng(1),
        );
        assert_eq!(
            open_chunk(&key, 5, &broken),
            Err(PageError::Malformed { page: 5 })
        );
    }
}
