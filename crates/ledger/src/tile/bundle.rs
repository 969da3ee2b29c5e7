//! Entry bundles (C2SP tlog-tiles): up to 256 entries, each behind its length in two bytes.
//!
//! Owns the limit of 65,535 bytes per entry.
//! Refuses empty bundles, more than 256 entries, and bytes that do not end with an entry.

use super::TILE_WIDTH;

/// The largest entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// Why entries or bytes are not a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No entry, or more than 256.
    #[error("a bundle has 1 to 256 entries, not `{count}`")]
    Count {
        /// Entries given, or seen before reading stopped.
        count: usize,
    },
    /// An entry over [`ENTRY_BYTES_MAX`].
    #[error("entry `{position}` of the bundle is longer than 65535 bytes; split it")]
    TooLong {
        /// Position within the bundle, from 0.
        position: usize,
    },
    /// The bytes end within an entry.
    #[error("the bundle is cut within entry `{position}`; fetch it again")]
    Cut {
        /// Position within the bundle, from 0.
        position: usize,
    },
}

/// The bytes of a bundle: for each entry its length as two bytes, big-endian, then the entry.
///
/// # Errors
/// [`BundleError::Count`] or [`BundleError::TooLong`].
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, BundleError> {
    if !(1..=TILE_WIDTH).contains(&entries.len()) {
        let count = entries.len();
        return Err(BundleError::Count { count });
    }
    let mut bytes = Vec::new();
    for (position, entry) in entries.iter().map(AsRef::as_ref).enumerate() {
        let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong { position })?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle, borrowed from its bytes.
///
/// # Errors
/// [`BundleError::Count`] or [`BundleError::Cut`].
pub fn parse_bundle(bytes: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let position = entries.len();
        if position == TILE_WIDTH {
            return Err(BundleError::Count {
                count: position + 1,
            });
        }
        let cut = BundleError::Cut { position };
        let (length, after) = rest.split_first_chunk().ok_or(cut)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(cut)?;
        entries.push(entry);
        rest = after;
    }
    if entries.is_empty() {
        return Err(BundleError::Count { count: 0 });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_lengths_and_entries() {
        let bytes = encode_bundle(&[b"ab".as_slice(), b"", b"c"]).unwrap();
        assert_eq!(bytes, b"\x00\x02ab\x00\x00\x00\x01c");
        let entries: [&[u8]; 3] = [b"ab", b"", b"c"];
        assert_eq!(parse_bundle(&bytes).unwrap(), entries);
    }

    #[test]
    fn what_is_cut_or_too_much_is_refused() {
        let bytes = encode_bundle(&[b"ab"]).unwrap();
        assert_eq!(parse_bundle(b""), Err(BundleError::Count { count: 0 }));
        for length in 1..bytes.len() {
            let cut = parse_bundle(&bytes[..length]);
            assert_eq!(cut, Err(BundleError::Cut { position: 0 }));
        }
        let empty: [&[u8]; 0] = [];
        assert!(encode_bundle(&empty).is_err());
        assert!(encode_bundle(&[b""; 256]).is_ok());
        assert!(encode_bundle(&[b""; 257]).is_err());
        assert!(parse_bundle(&[0; 2 * 256]).is_ok());
        assert!(parse_bundle(&[0; 2 * 257]).is_err());
        assert!(encode_bundle(&[vec![0; ENTRY_BYTES_MAX]]).is_ok());
        assert_eq!(
            encode_bundle(&[vec![0; ENTRY_BYTES_MAX + 1]]),
            Err(BundleError::TooLong { position: 0 })
        );
    }
}
