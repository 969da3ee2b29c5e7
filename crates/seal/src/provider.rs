//! Key providers: what wraps the file key of a keystore, in software or in hardware.
//!
//! A provider sees 32 random bytes and never what they seal, so that the key-encryption key
//! can lie in a device that gives it to nobody. It refuses what another key wrapped.

use rand_core::CryptoRng;
use record::entry::SUITE;
use zeroize::Zeroizing;

use crate::blob;
use crate::passphrase::{Argon2Params, PassphraseError};
use crate::secret::Kek;

const WRAP: &str = "fangzhi/wrap/v1";

/// What wraps a keystore's file key: software, or later hardware (PKCS#11).
pub trait KeyProvider {
    /// The crypto suite of what [`KeyProvider::wrap`] gives.
    fn suite(&self) -> u8;

    /// How the key comes from a passphrase, if it does; kept in the clear beside what it wraps.
    fn passphrase(&self) -> Option<Argon2Params> {
        None
    }

    /// Wraps a key.
    ///
    /// # Errors
    /// [`KeyError`] when the provider cannot be used.
    fn wrap(&self, key: &[u8; 32], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, KeyError>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when it was wrapped under another key.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError>;
}

/// Why a provider does not wrap or unwrap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the key under which it was wrapped.
    #[error(
        "the passphrase or key file is not the one that closed this keystore; check it and try again"
    )]
    Wrong,
    /// The provider failed; for hardware that is absent or locked.
    #[error("the key provider is not available: {reason}")]
    Unavailable {
        /// What the provider says. Never a key.
        reason: String,
    },
}

/// A key-encryption key in memory.
#[derive(Debug)]
pub struct SoftwareKey {
    kek: Kek,
    passphrase: Option<Argon2Params>,
}

impl SoftwareKey {
    /// A key from a key file or from recovery shares.
    pub fn from_kek(kek: Kek) -> Self {
        Self {
            kek,
            passphrase: None,
        }
    }

    /// A key from a passphrase.
    ///
    /// # Errors
    /// [`PassphraseError`] when the parameters are out of bounds.
    pub fn from_passphrase(
        passphrase: &[u8],
        params: &Argon2Params,
    ) -> Result<Self, PassphraseError> {
        Ok(Self {
            kek: params.derive(passphrase)?,
            passphrase: Some(*params),
        })
    }
}

impl KeyProvider for SoftwareKey {
    fn suite(&self) -> u8 {
        SUITE
    }

    fn passphrase(&self) -> Option<Argon2Params> {
        self.passphrase
    }

    fn wrap(&self, key: &[u8; 32], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, KeyError> {
        Ok(blob::seal(self.kek.expose(), WRAP, b"", key, rng))
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let plain =
            blob::open(self.kek.expose(), WRAP, b"", wrapped).map_err(|_| KeyError::Wrong)?;
        let mut key = Zeroizing::new([0; 32]);
        if plain.len() != key.len() {
            return Err(KeyError::Wrong);
        }
        key.copy_from_slice(&plain);
        Ok(key)
    }
}
