//! Passphrases: argon2id (RFC 9106) from what a person remembers to a key-encryption key.
//!
//! The parameters lie in the clear in the file that they open, so they are bounded before
//! use: a damaged or hostile file cannot ask for all memory. Changing them changes the key.

use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

use crate::secret::Kek;

/// The most memory that a file may ask for: 1 GiB.
pub const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes that a file may ask for.
pub const PASSES_MAX: u32 = 16;
/// The most lanes that a file may ask for.
pub const LANES_MAX: u32 = 4;

/// How a passphrase becomes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Argon2Params {
    /// Random, of this file alone.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// Memory in KiB, 8 per lane to [`MEMORY_KIB_MAX`].
    #[n(1)]
    pub m_kib: u32,
    /// Passes, 1 to [`PASSES_MAX`].
    #[n(2)]
    pub t: u32,
    /// Lanes, 1 to [`LANES_MAX`].
    #[n(3)]
    pub p: u32,
}

/// Why no key comes of a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// The parameters are out of bounds.
    #[error(
        "argon2id with {m_kib} KiB, {t} passes and {p} lanes is out of bounds; the file may be hostile, restore it from a backup"
    )]
    OutOfBounds {
        /// Memory asked for.
        m_kib: u32,
        /// Passes asked for.
        t: u32,
        /// Lanes asked for.
        p: u32,
    },
}

impl Argon2Params {
    /// RFC 9106's choice for machines without 2 GiB to spare (64 MiB, 3 passes, 4 lanes)
    /// with a fresh salt.
    pub fn recommended(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        Self {
            salt,
            m_kib: 64 * 1024,
            t: 3,
            p: 4,
        }
    }

    /// The key of a passphrase.
    ///
    /// # Errors
    /// [`PassphraseError::OutOfBounds`]; a wrong passphrase gives another key, not an error.
    pub fn derive(&self, passphrase: &[u8]) -> Result<Kek, PassphraseError> {
        let Self { salt, m_kib, t, p } = *self;
        let refused = PassphraseError::OutOfBounds { m_kib, t, p };
        if m_kib > MEMORY_KIB_MAX || t > PASSES_MAX || p > LANES_MAX {
            return Err(refused);
        }
        let params = Params::new(m_kib, t, p, Some(32)).map_err(|_| refused.clone())?;
        let mut key = zeroize::Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, &mut *key)
            .map_err(|_| refused)?;
        Ok(Kek::from_bytes(*key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Argon2Params = Argon2Params {
        salt: [1; 16],
        m_kib: 32,
        t: 1,
        p: 1,
    };

    #[test]
    fn a_key_depends_on_passphrase_and_every_parameter() {
        let key = |params: Argon2Params, text: &[u8]| params.derive(text).unwrap();
        let base = key(QUICK, b"correct horse");
        assert_eq!(base, key(QUICK, b"correct horse"));
        assert_ne!(base, key(QUICK, b"correct house"));
        assert_ne!(
            base,
            key(
                Argon2Params {
                    salt: [2; 16],
                    ..QUICK
                },
                b"correct horse"
            )
        );
        assert_ne!(
            base,
            key(Argon2Params { m_kib: 40, ..QUICK }, b"correct horse")
        );
        assert_ne!(base, key(Argon2Params { t: 2, ..QUICK }, b"correct horse"));
        assert_ne!(base, key(Argon2Params { p: 2, ..QUICK }, b"correct horse"));
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_any_memory_is_taken() {
        for bad in [
            Argon2Params {
                m_kib: MEMORY_KIB_MAX + 1,
                ..QUICK
            },
            Argon2Params {
                m_kib: u32::MAX,
                ..QUICK
            },
            Argon2Params { m_kib: 0, ..QUICK },
            Argon2Params {
                t: PASSES_MAX + 1,
                ..QUICK
            },
            Argon2Params { t: 0, ..QUICK },
            Argon2Params {
                p: LANES_MAX + 1,
                ..QUICK
            },
            Argon2Params { p: 0, ..QUICK },
        ] {
            assert!(bad.derive(b"x").is_err(), "{bad:?}");
        }
    }
}
