//! XChaCha20-Poly1305 as this crate uses it: a caller's nonce, in place, wiped buffers.
//!
//! It refuses what does not authenticate and says no more than that.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// A nonce long enough to be random.
pub(crate) type Nonce = [u8; 24];
/// Bytes that a ciphertext is longer than its plaintext.
pub(crate) const TAG: usize = 16;

/// A random nonce.
pub(crate) fn nonce(rng: &mut (impl CryptoRng + ?Sized)) -> Nonce {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    nonce
}

/// Seals a buffer in place. It must have room for [`TAG`] more bytes, or growing it
/// leaves the plaintext on the heap.
pub(crate) fn seal(key: &[u8; 32], nonce: &Nonce, aad: &[u8], buffer: &mut Vec<u8>) {
    debug_assert!(buffer.capacity() >= buffer.len() + TAG);
    XChaCha20Poly1305::new(&Key::from(*key))
        .encrypt_in_place(&XNonce::from(*nonce), aad, buffer)
        .expect("only a plaintext of more than 256 GiB cannot be sealed");
}

/// Opens a ciphertext; `None` when key, nonce, associated data or a byte of it is wrong.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    XChaCha20Poly1305::new(&Key::from(*key))
        .decrypt_in_place(&XNonce::from(*nonce), aad, &mut *buffer)
        .ok()?;
    Some(buffer)
}
