//! Recovery (恢复): what a lost station is rebuilt from, sealed to a key that only shares open.
//!
//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305, as for grants. The
//! node keeps the public key alone; the private key exists as shares. Format:
//! `docs/formats/recovery.md`. Refuses to know what it seals, and who sealed it: the ledger's
//! act says that.

use rand_core::CryptoRng;
use record::cbor::CborError;
use record::id::Origin;
use zeroize::Zeroizing;

use crate::derive::Binding;
use crate::grant::SealPrivateKey;
use crate::hybrid::{self, Unopened};

/// The longest sealed recovery: a full keystore, and what lies beside it.
pub const RECOVERY_MAX: usize = 32 * 1024 * 1024;

/// What a recovery is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryInfo {
    /// The recovery ledger.
    pub origin: Origin,
    /// The index of its entry.
    pub index: u64,
    /// The nonce of the ceremony whose shares open it.
    pub ceremony: [u8; 16],
}

impl RecoveryInfo {
    /// HPKE's `info`.
    fn bytes(&self) -> Vec<u8> {
        Binding::new("fangzhi/recovery/v1")
            .counted(self.origin.as_str().as_bytes())
            .u64(self.index)
            .fixed(&self.ceremony)
            .bytes()
            .to_vec()
    }
}

/// Why a recovery cannot be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The bytes are no recovery.
    #[error("the sealed recovery cannot be read; let the parent export it again")]
    Bytes(#[from] CborError),
    /// The public key is no X-Wing key.
    #[error("the recovery key of this node is malformed; share its root again")]
    PublicKey,
    /// It does not open.
    #[error(
        "the recovery does not open with the key that these shares give; it belongs to another ceremony or ledger, or was altered"
    )]
    Sealed,
}

/// Seals bytes to the recovery key.
///
/// # Errors
/// [`RecoveryError::PublicKey`].
pub fn seal_recovery(
    info: &RecoveryInfo,
    public: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, RecoveryError> {
    hybrid::seal_envelope(&info.bytes(), public, plain, rng).map_err(|_| RecoveryError::PublicKey)
}

/// Opens what [`seal_recovery`] sealed.
///
/// # Errors
/// [`RecoveryError`]: no recovery, another key or place, or altered.
pub fn open_recovery(
    info: &RecoveryInfo,
    root: &SealPrivateKey,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, RecoveryError> {
    hybrid::open_envelope("recovery", RECOVERY_MAX, &info.bytes(), root, bytes).map_err(
        |unopened| match unopened {
            Unopened::Bytes(error) => RecoveryError::Bytes(error),
            Unopened::Sealed => RecoveryError::Sealed,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    fn info() -> RecoveryInfo {
        RecoveryInfo {
            origin: Origin::parse("jiangjin.example/jinfu/recovery").unwrap(),
            index: 7,
            ceremony: [4; 16],
        }
    }

    #[test]
    fn the_golden_recovery_holds() {
        let root = SealPrivateKey::generate(&mut rng(1));
        let sealed = seal_recovery(&info(), &root.public(), b"keys", &mut rng(2)).unwrap();
        check_golden(
            "recovery",
            &sealed,
            "bc3c67cddded3a30b3f1d5a50acf90e5a08d501d8a459d9ac5c5a82f342edda9",
        );
    }

    #[test]
    fn a_recovery_opens_with_its_key_at_its_place_and_nowhere_else() {
        let root = SealPrivateKey::generate(&mut rng(1));
        let sealed = seal_recovery(&info(), &root.public(), b"keys", &mut rng(2)).unwrap();
        assert_eq!(*open_recovery(&info(), &root, &sealed).unwrap(), b"keys");
        let other = SealPrivateKey::generate(&mut rng(3));
        assert!(open_recovery(&info(), &other, &sealed).is_err());
        let mut moved = [info(), info(), info()];
        moved[0].index = 8;
        moved[1].ceremony = [5; 16];
        moved[2].origin = Origin::parse("jiangjin.example/other/recovery").unwrap();
        for moved in moved {
            let refused = open_recovery(&moved, &root, &sealed).unwrap_err();
            assert_eq!(refused, RecoveryError::Sealed);
        }
    }

    #[test]
    fn every_cut_and_a_flip_in_every_byte_of_a_recovery_is_refused() {
        let root = SealPrivateKey::generate(&mut rng(1));
        let sealed = seal_recovery(&info(), &root.public(), b"keys", &mut rng(2)).unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open_recovery(&info(), &root, &flipped).is_err(), "{at}");
            assert!(open_recovery(&info(), &root, &sealed[..at]).is_err());
        }
    }
}
