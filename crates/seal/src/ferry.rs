//! Ferries (摆渡): one payload key, sealed to the receiver's charter key, and the chunks under it.
//!
//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305, as for grants; then
//! XChaCha20-Poly1305 by the STREAM construction: each chunk's nonce has its number and whether it is
//! the last, so that none can be left out, moved, doubled or added. Format: `docs/formats/ferry.md`.
//! Refuses to know what the chunks say, and who sealed them: the signed manifest says that.

use rand_core::CryptoRng;
use record::id::{Hash, Realm};
use zeroize::Zeroizing;

use crate::aead::{self, Nonce, TAG};
use crate::derive::Binding;
use crate::grant::SealPrivateKey;
use crate::hybrid;
use crate::secret::FerryKey;

/// Bytes of a chunk before it is sealed; only the last may have fewer.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of a sealed chunk; only the last may have fewer.
pub const CHUNK_SEALED_BYTES: usize = CHUNK_BYTES + TAG;
/// Bytes that sealing adds to a chunk.
pub const CHUNK_TAG_BYTES: usize = TAG;
/// Bytes of X-Wing's encapsulated key.
const ENCAPSULATED_BYTES: usize = 1120;
/// Bytes of a sealed payload key: what X-Wing encapsulates, the key, its tag.
pub const SEALED_KEY_BYTES: usize = ENCAPSULATED_BYTES + 32 + 16;

/// What a payload is bound to. Both sides know it before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FerryInfo {
    /// The realm.
    pub realm: Realm,
    /// Id of the sender's charter.
    pub sender: Hash,
    /// Id of the receiver's charter, whose seal key opens it.
    pub receiver: Hash,
    /// The bundle's number, 0 for a receipt.
    pub number: u64,
    /// The bundle that it goes on from.
    pub after: u64,
}

impl FerryInfo {
    /// HPKE's `info`.
    fn bytes(&self) -> Vec<u8> {
        Binding::new("fangzhi/ferry/v1")
            .counted(self.realm.as_str().as_bytes())
            .fixed(&self.sender)
            .fixed(&self.receiver)
            .u64(self.number)
            .u64(self.after)
            .bytes()
            .to_vec()
    }
}

/// Why a payload cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FerryError {
    /// The public key is no X-Wing key.
    #[error("the receiver's charter has no usable seal key; ask it for a new charter")]
    PublicKey,
    /// The payload key does not open.
    #[error(
        "the bundle does not open with this node's seal key; it was sealed to another charter, or altered"
    )]
    Sealed,
    /// A chunk does not open.
    #[error("chunk {index} of the payload was altered, moved or cut; copy the files again")]
    Chunk {
        /// Which.
        index: u64,
    },
}

/// Makes a payload key and seals it to the receiver's public key.
///
/// # Errors
/// [`FerryError::PublicKey`].
pub fn seal_key(
    info: &FerryInfo,
    receiver_public: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(FerryKey, Vec<u8>), FerryError> {
    let key = FerryKey::generate(rng);
    let (mut bytes, sealed) = hybrid::seal(&info.bytes(), receiver_public, key.expose(), rng)
        .map_err(|_| FerryError::PublicKey)?;
    bytes.extend(sealed);
    Ok((key, bytes))
}

/// Opens what [`seal_key`] sealed.
///
/// # Errors
/// [`FerryError::Sealed`].
pub fn open_key(
    info: &FerryInfo,
    receiver: &SealPrivateKey,
    bytes: &[u8],
) -> Result<FerryKey, FerryError> {
    if bytes.len() != SEALED_KEY_BYTES {
        return Err(FerryError::Sealed);
    }
    let (encapsulated, sealed) = bytes.split_at(ENCAPSULATED_BYTES);
    let plain =
        hybrid::open(&info.bytes(), receiver, encapsulated, sealed).ok_or(FerryError::Sealed)?;
    let key: [u8; 32] = plain
        .as_slice()
        .try_into()
        .map_err(|_| FerryError::Sealed)?;
    Ok(FerryKey::from_bytes(key))
}

/// Tag of the associated data: a payload key opens chunks and nothing else.
const CHUNK: &[u8] = b"fangzhi/ferry-chunk/v1";

fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; 24];
    nonce[15..23].copy_from_slice(&index.to_be_bytes());
    nonce[23] = u8::from(last);
    nonce
}

/// Seals one chunk in place: [`CHUNK_BYTES`], or fewer if it is the last.
pub fn seal_chunk(key: &FerryKey, index: u64, last: bool, chunk: &mut Vec<u8>) {
    chunk.reserve_exact(TAG);
    aead::seal(key.expose(), &nonce(index, last), CHUNK, chunk);
}

/// Opens one chunk.
///
/// # Errors
/// [`FerryError::Chunk`].
pub fn open_chunk(
    key: &FerryKey,
    index: u64,
    last: bool,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, FerryError> {
    aead::open(key.expose(), &nonce(index, last), CHUNK, sealed).ok_or(FerryError::Chunk { index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    fn info() -> FerryInfo {
        FerryInfo {
            realm: Realm::new("jiangjin.example").unwrap(),
            sender: [1; 32],
            receiver: [2; 32],
            number: 7,
            after: 6,
        }
    }

    #[test]
    fn the_golden_payload_holds() {
        let receiver = SealPrivateKey::generate(&mut rng(1));
        let (key, sealed) = seal_key(&info(), &receiver.public(), &mut rng(2)).unwrap();
        assert_eq!(sealed.len(), SEALED_KEY_BYTES);
        let mut chunk = b"entries".to_vec();
        seal_chunk(&key, 0, true, &mut chunk);
        check_golden("ferry", &[sealed, chunk].concat(), GOLDEN);
    }

    const GOLDEN: &str = "5ede1deae584b668d08844ec43f4af2e97f52ededab75b4a36a784e093a5ab86";

    #[test]
    fn a_key_opens_for_its_receiver_charters_realm_and_number_only() {
        let receiver = SealPrivateKey::generate(&mut rng(1));
        let (key, sealed) = seal_key(&info(), &receiver.public(), &mut rng(2)).unwrap();
        assert_eq!(open_key(&info(), &receiver, &sealed).unwrap(), key);
        let other = SealPrivateKey::generate(&mut rng(3));
        let refused = |info: &FerryInfo, by: &SealPrivateKey, bytes: &[u8]| {
            assert_eq!(open_key(info, by, bytes).unwrap_err(), FerryError::Sealed);
        };
        refused(&info(), &other, &sealed);
        let changes: [fn(&mut FerryInfo); 5] = [
            |i| i.realm = Realm::new("yubei.example").unwrap(),
            |i| i.sender = [9; 32],
            |i| i.receiver = [9; 32],
            |i| i.number = 8,
            |i| i.after = 5,
        ];
        for change in changes {
            let mut moved = info();
            change(&mut moved);
            refused(&moved, &receiver, &sealed);
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            refused(&info(), &receiver, &flipped);
        }
        refused(&info(), &receiver, &sealed[1..]);
        assert!(matches!(
            seal_key(&info(), &[0xff; 1216], &mut rng(2)),
            Err(FerryError::PublicKey)
        ));
    }

    #[test]
    fn a_chunk_opens_at_its_place_only_and_the_last_only_as_the_last() {
        let key = FerryKey::from_bytes([5; 32]);
        let mut sealed = b"entries".to_vec();
        seal_chunk(&key, 3, false, &mut sealed);
        assert_eq!(**open_chunk(&key, 3, false, &sealed).unwrap(), *b"entries");
        for (index, last) in [(3, true), (2, false), (4, false)] {
            let refused = open_chunk(&key, index, last, &sealed).unwrap_err();
            assert_eq!(refused, FerryError::Chunk { index });
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open_chunk(&key, 3, false, &flipped).is_err());
            assert!(open_chunk(&key, 3, false, &sealed[..at]).is_err());
        }
    }
}
