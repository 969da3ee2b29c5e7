//! A share as bytes: short, because somebody may have to type it.
//!
//! Owns the layout and its checksum, which finds mistakes and not attackers; those are
//! found by [`Share::verify`]. See `docs/formats/share.md`.

use record::entry::SUITE;
use record::id::{DivisionId, Realm};
use zeroize::Zeroizing;

use super::{FORMAT, Share, ShareError, hash, possible};

/// `FZ`, format, suite.
const MAGIC: [u8; 4] = [b'F', b'Z', FORMAT, SUITE];
const CHECKSUM: usize = 4;
/// The longest share: the longest names of realm and division.
pub const SHARE_MAX: usize = MAGIC.len() + 16 + 16 + 3 + 1 + 80 + 1 + 40 + 32 + CHECKSUM;

impl Share {
    /// The bytes of the share. Whoever calls this answers for where they go.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SHARE_MAX));
        bytes.extend(MAGIC);
        bytes.extend(self.ceremony);
        bytes.extend(self.header);
        bytes.extend([self.number, self.threshold, self.count]);
        for name in [self.realm.as_str(), self.division.as_str()] {
            bytes.push(u8::try_from(name.len()).expect("names have at most 80 bytes"));
            bytes.extend(name.as_bytes());
        }
        bytes.extend(self.value);
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Reads a share.
    ///
    /// # Errors
    /// [`ShareError::Malformed`] when the bytes are not what [`Share::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        read(bytes).ok_or(ShareError::Malformed)
    }
}

fn read(bytes: &[u8]) -> Option<Share> {
    let (checked, named) = bytes.split_last_chunk::<CHECKSUM>()?;
    if checksum(checked) != *named {
        return None;
    }
    let (magic, rest) = checked.split_first_chunk::<4>()?;
    let (ceremony, rest) = rest.split_first_chunk::<16>()?;
    let (header, rest) = rest.split_first_chunk::<16>()?;
    let ([number, threshold, count], rest) = rest.split_first_chunk::<3>()?;
    let (realm, rest) = name(rest)?;
    let (division, rest) = name(rest)?;
    let value: &[u8; 32] = rest.try_into().ok()?;
    let sound = *magic == MAGIC && possible(*count, *threshold) && (1..=*count).contains(number);
    sound.then_some(Share {
        ceremony: *ceremony,
        header: *header,
        realm: Realm::new(realm).ok()?,
        division: DivisionId::new(division).ok()?,
        number: *number,
        threshold: *threshold,
        count: *count,
        value: *value,
    })
}

/// A name with its length in one byte, and what follows it.
fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked((*length).into())?;
    Some((str::from_utf8(name).ok()?, rest))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = hash(b"fangzhi/share-check/v1", &[bytes]);
    *hash
        .first_chunk()
        .expect("a SHA-256 hash is longer than the checksum")
}
