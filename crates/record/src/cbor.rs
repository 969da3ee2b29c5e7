//! Deterministic CBOR (RFC 8949 §4.2): one value has one encoding, and no other is read.
//!
//! A decoder here reads the value, writes it again and compares: unknown keys,
//! long integers, indefinite lengths, wrong order and trailing bytes are all refused.

use minicbor::{Decode, Encode};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The input is longer than its kind may be.
    #[error("{what} has {size} bytes and may have {max}; refuse it or ask the sender to split it")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes are not a value of this type.
    #[error("{what} cannot be decoded; it was damaged or written by another version")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// The bytes decode, but are not the one canonical encoding.
    #[error("{what} is not in canonical form; hashes and signatures over it would be ambiguous")]
    NotCanonical {
        /// What was being read.
        what: &'static str,
    },
}

/// The canonical encoding of a value.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail")
}

/// Reads a value from exactly these bytes, of at most `max`.
///
/// # Errors
/// [`CborError`]: too long, malformed, or not canonical.
pub fn from_slice<T>(what: &'static str, bytes: &[u8], max: usize) -> Result<T, CborError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    if bytes.len() > max {
        return Err(CborError::TooLong {
            what,
            size: bytes.len(),
            max,
        });
    }
    let value: T = minicbor::decode(bytes).map_err(|_| CborError::Malformed { what })?;
    if to_vec(&value) == bytes {
        Ok(value)
    } else {
        Err(CborError::NotCanonical { what })
    }
}
