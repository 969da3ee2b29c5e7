//! Blobs: whole byte strings sealed under one key, bound to a context and to that key.
//!
//! ```text
//! blob = format 1 || suite 1 || nonce (24) || commitment (32) || XChaCha20-Poly1305 ciphertext
//! encryption key || commitment = HKDF-SHA256(salt: nonce, secret: key, info: use)
//! ```
//!
//! XChaCha20-Poly1305 alone does not commit to its key: one ciphertext can be made that
//! opens under two keys to two texts. The commitment, compared before anything is
//! decrypted, rules that out. The length shows; pad what must not show its length.

use rand_core::CryptoRng;
use record::entry::SUITE;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::aead::{self, TAG};
use crate::derive::{self, Binding};
use crate::secret::BlobKey;

/// The version of the blob format.
pub const FORMAT: u8 = 1;
const HEAD: usize = 2 + 24 + 32;
/// Bytes that a blob is longer than what it holds.
pub const OVERHEAD: usize = HEAD + TAG;

/// Why a blob does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The bytes are no blob of this format and suite.
    #[error(
        "the sealed bytes are cut short or of another format; they were damaged or written by another version"
    )]
    Malformed,
    /// It was sealed under another key.
    #[error("the sealed bytes belong to another key; open them with the key of their generation")]
    OtherKey,
    /// It was altered, or sealed for another context.
    #[error("the sealed bytes were altered or belong elsewhere; restore them from a copy")]
    Altered,
}

/// Seals bytes under a key, bound to `aad`.
pub fn seal_blob(
    key: &BlobKey,
    aad: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    seal(key.expose(), "fangzhi/blob/v1", aad, plain, rng)
}

/// Opens what [`seal_blob`] sealed under the same key and `aad`.
///
/// # Errors
/// [`BlobError`] when the key is another, or a byte of blob or `aad` is.
pub fn open_blob(key: &BlobKey, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, BlobError> {
    open(key.expose(), "fangzhi/blob/v1", aad, blob)
}

/// [`seal_blob`] for every key of this crate; `usage` keeps their uses apart.
pub(crate) fn seal(
    key: &[u8; 32],
    usage: &str,
    aad: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    let nonce = aead::nonce(rng);
    let (encryption, commitment) = keys(key, usage, &nonce);
    let mut buffer = Vec::with_capacity(plain.len() + TAG);
    buffer.extend(plain);
    aead::seal(&encryption, &nonce, &associated(aad), &mut buffer);

    let mut blob = Vec::with_capacity(HEAD + buffer.len());
    blob.extend([FORMAT, SUITE]);
    blob.extend(nonce);
    blob.extend(commitment);
    blob.extend(buffer);
    blob
}

/// [`open_blob`] for every key of this crate.
pub(crate) fn open(
    key: &[u8; 32],
    usage: &str,
    aad: &[u8],
    blob: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BlobError> {
    let (head, rest) = blob.split_first_chunk::<2>().ok_or(BlobError::Malformed)?;
    let (nonce, rest) = rest.split_first_chunk::<24>().ok_or(BlobError::Malformed)?;
    let (named, sealed) = rest.split_first_chunk::<32>().ok_or(BlobError::Malformed)?;
    if *head != [FORMAT, SUITE] || sealed.len() < TAG {
        return Err(BlobError::Malformed);
    }
    let (encryption, commitment) = keys(key, usage, nonce);
    if !bool::from(commitment.ct_eq(named)) {
        return Err(BlobError::OtherKey);
    }
    aead::open(&encryption, nonce, &associated(aad), sealed).ok_or(BlobError::Altered)
}

fn keys(key: &[u8; 32], usage: &str, nonce: &aead::Nonce) -> (Zeroizing<[u8; 32]>, [u8; 32]) {
    let both: Zeroizing<[u8; 64]> = derive::hkdf(nonce, key, Binding::new(usage).bytes());
    let mut encryption = Zeroizing::new([0; 32]);
    let mut commitment = [0; 32];
    encryption.copy_from_slice(&both[..32]);
    commitment.copy_from_slice(&both[32..]);
    (encryption, commitment)
}

fn associated(aad: &[u8]) -> Vec<u8> {
    [&[FORMAT, SUITE], aad].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::rng;

    #[test]
    fn a_blob_opens_under_its_key_and_context_only() {
        let key = BlobKey::from_bytes([1; 32]);
        let blob = seal_blob(&key, b"access 7", b"who read what", &mut rng(1));
        assert_eq!(blob.len(), b"who read what".len() + OVERHEAD);
        assert_eq!(
            *open_blob(&key, b"access 7", &blob).unwrap(),
            b"who read what"
        );
        assert_eq!(open_blob(&key, b"access 8", &blob), Err(BlobError::Altered));
        let other = BlobKey::from_bytes([2; 32]);
        assert_eq!(
            open_blob(&other, b"access 7", &blob),
            Err(BlobError::OtherKey)
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_blob_is_refused() {
        let key = BlobKey::from_bytes([1; 32]);
        let blob = seal_blob(&key, b"", b"plain", &mut rng(1));
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_blob(&key, b"", &flipped).is_err(), "bit {bit}");
        }
        for end in 0..blob.len() {
            assert!(open_blob(&key, b"", &blob[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_blob_of_one_use_does_not_open_in_another() {
        let blob = seal(&[1; 32], "fangzhi/page/v1", b"", b"plain", &mut rng(1));
        let key = BlobKey::from_bytes([1; 32]);
        assert_eq!(open_blob(&key, b"", &blob), Err(BlobError::OtherKey));
    }

    #[test]
    fn an_empty_blob_is_sealed_too() {
        let key = BlobKey::from_bytes([1; 32]);
        let blob = seal_blob(&key, b"", b"", &mut rng(1));
        assert!(open_blob(&key, b"", &blob).unwrap().is_empty());
    }
}
