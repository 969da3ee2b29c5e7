//! Deterministic CBOR (RFC 8949 §4.2): one value has one encoding, and no other is read.
//!
//! A decoder here reads the value, writes it again and compares byte by byte as it writes, into
//! no buffer: unknown keys, long integers, indefinite lengths, wrong order and trailing bytes are
//! all refused.

use minicbor::encode::Write;
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
    let mut rest = Same(bytes);
    match minicbor::encode(&value, &mut rest) {
        Ok(()) if rest.0.is_empty() => Ok(value),
        _ => Err(CborError::NotCanonical { what }),
    }
}

/// Takes what is written, as long as it is what the bytes go on with.
struct Same<'a>(&'a [u8]);

/// What was written is not what the bytes go on with.
struct Differs;

impl Write for Same<'_> {
    type Error = Differs;

    #[inline]
    fn write_all(&mut self, written: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(written).ok_or(Differs)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u64>, CborError> {
        from_slice("numbers", bytes, 16)
    }

    #[test]
    fn only_the_one_encoding_of_a_value_is_read() {
        assert_eq!(read(&to_vec(&vec![1u64, 500])).unwrap(), [1, 500]);
        // A long form, an indefinite length, and bytes that follow.
        for bytes in [
            &[0x82, 0x18, 0x01, 0x02][..],
            &[0x9f, 0x01, 0xff],
            &[0x81, 0x01, 0x00],
        ] {
            let error = read(bytes).unwrap_err();
            assert_eq!(error, CborError::NotCanonical { what: "numbers" });
        }
        assert!(matches!(
            read(&[0x82, 0x01]),
            Err(CborError::Malformed { .. })
        ));
        assert!(matches!(read(&[0; 17]), Err(CborError::TooLong { .. })));
    }
}
