//! Dealt shares (封存份额): a share sealed to the one-time key of an officer above, and that key at rest.
//!
//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305, as for grants. The
//! private half lies in a file under a key derived from the officer's signing seed, so that nobody
//! opens it without the officer's passphrase; whoever destroys the file has ended the share's
//! ciphertext, wherever that lies. Format: `docs/formats/share.md`.
//! Refuses to know whom it seals to, and who sealed it: signatures around it say that.

use rand_core::CryptoRng;
use record::cbor::CborError;
use record::id::{DivisionId, Hash, OperatorId, Realm};
use zeroize::Zeroizing;

use crate::blob::{self, BlobError};
use crate::derive::{self, Binding};
use crate::grant::SealPrivateKey;
use crate::hybrid::{self, Unopened};

/// The longest sealed share.
pub const DEALT_MAX: usize = 2_048;
/// The file of a one-time key.
pub const KEY_FILE_BYTES: usize = blob::OVERHEAD + 32;
const KEY_USE: &str = "fangzhi/share-key-file/v1";

/// What a dealt share is bound to: nothing of it opens elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DealtInfo {
    /// The realm.
    pub realm: Realm,
    /// Whose root.
    pub division: DivisionId,
    /// The plan under which it is dealt.
    pub plan: Hash,
    /// SHA-256 of the ceremony's header.
    pub header: Hash,
    /// The share's number.
    pub number: u8,
    /// The officer's organization.
    pub organization: DivisionId,
    /// The officer.
    pub operator: OperatorId,
    /// Id of the officer's one-time key.
    pub key: Hash,
}

impl DealtInfo {
    /// HPKE's `info`.
    fn bytes(&self) -> Vec<u8> {
        Binding::new("fangzhi/dealt-share/v1")
            .counted(self.realm.as_str().as_bytes())
            .counted(self.division.as_str().as_bytes())
            .fixed(&self.plan)
            .fixed(&self.header)
            .u8(self.number)
            .counted(self.organization.as_str().as_bytes())
            .fixed(&self.operator.0)
            .fixed(&self.key)
            .bytes()
            .to_vec()
    }
}

/// Why a share is not sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DealtError {
    /// The bytes are no dealt share.
    #[error("the sealed share cannot be read; let the node that dealt it send it again")]
    Bytes(#[from] CborError),
    /// The public key is no X-Wing key.
    #[error("the officer's key for the share is malformed; let the officer make another")]
    PublicKey,
    /// It does not open.
    #[error(
        "the share does not open with this officer's key; it was sealed to another, belongs to another ceremony, or was altered"
    )]
    Sealed,
    /// The file of the key is another officer's, another node's, or was altered.
    #[error(
        "the file of the key for this share is not this officer's, or was altered; make another key, and let the ceremony begin again"
    )]
    KeyFile(#[from] BlobError),
}

/// Seals a share to an officer's one-time key.
///
/// # Errors
/// [`DealtError::PublicKey`].
pub fn seal_dealt(
    info: &DealtInfo,
    public: &[u8],
    share: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, DealtError> {
    hybrid::seal_envelope(&info.bytes(), public, share, rng).map_err(|_| DealtError::PublicKey)
}

/// Opens what [`seal_dealt`] sealed.
///
/// # Errors
/// [`DealtError`]: no dealt share, another key or place, or altered.
pub fn open_dealt(
    info: &DealtInfo,
    key: &SealPrivateKey,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DealtError> {
    hybrid::open_envelope("dealt share", DEALT_MAX, &info.bytes(), key, bytes).map_err(|unopened| {
        match unopened {
            Unopened::Bytes(error) => DealtError::Bytes(error),
            Unopened::Sealed => DealtError::Sealed,
        }
    })
}

/// The key of a one-time key's file: of the officer's signing seed, for this use alone.
fn file_key(seed: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    derive::hkdf(&[], seed, Binding::new("fangzhi/share-key-kek/v1").bytes())
}

/// Seals a one-time key for its file, bound to the id under which the officer signed it.
pub fn seal_key(
    seed: &[u8; 32],
    id: &Hash,
    key: &SealPrivateKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    blob::seal(&file_key(seed), KEY_USE, id, key.expose(), rng)
}

/// Opens a one-time key's file with the officer's signing seed.
///
/// # Errors
/// [`DealtError::KeyFile`].
pub fn open_key(seed: &[u8; 32], id: &Hash, file: &[u8]) -> Result<SealPrivateKey, DealtError> {
    let plain = blob::open(&file_key(seed), KEY_USE, id, file)?;
    let bytes = Zeroizing::new(
        <[u8; 32]>::try_from(plain.as_slice())
            .map_err(|_| DealtError::KeyFile(BlobError::Malformed))?,
    );
    Ok(SealPrivateKey::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    fn info() -> DealtInfo {
        DealtInfo {
            realm: Realm::new("jiangjin.example").unwrap(),
            division: DivisionId::new("jinfu").unwrap(),
            plan: [1; 32],
            header: [2; 32],
            number: 3,
            organization: DivisionId::new("jiangjin").unwrap(),
            operator: OperatorId([4; 16]),
            key: [5; 32],
        }
    }

    fn key() -> SealPrivateKey {
        SealPrivateKey::from_bytes([8; 32])
    }

    fn sealed() -> Vec<u8> {
        seal_dealt(&info(), &key().public(), b"a share", &mut rng(2)).unwrap()
    }

    #[test]
    fn the_golden_dealt_share_holds() {
        check_golden(
            "dealt share",
            &sealed(),
            "46fb079c400fc97cf2b97a1f0f301e0d2fd8976699a1b2d18e41df114e9b1060",
        );
    }

    #[test]
    fn a_dealt_share_opens_with_its_key_for_its_officer_plan_and_ceremony_only() {
        assert_eq!(*open_dealt(&info(), &key(), &sealed()).unwrap(), b"a share");
        let other = SealPrivateKey::generate(&mut rng(1));
        assert!(open_dealt(&info(), &other, &sealed()).is_err());
        let changes: [fn(&mut DealtInfo); 8] = [
            |i| i.realm = Realm::new("banan.example").unwrap(),
            |i| i.division = DivisionId::new("other").unwrap(),
            |i| i.plan = [9; 32],
            |i| i.header = [9; 32],
            |i| i.number = 4,
            |i| i.organization = DivisionId::new("other").unwrap(),
            |i| i.operator = OperatorId([9; 16]),
            |i| i.key = [9; 32],
        ];
        for change in changes {
            let mut moved = info();
            change(&mut moved);
            let refused = open_dealt(&moved, &key(), &sealed()).unwrap_err();
            assert_eq!(refused, DealtError::Sealed);
        }
    }

    #[test]
    fn every_cut_and_a_flip_in_every_byte_of_a_dealt_share_is_refused() {
        let bytes = sealed();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(open_dealt(&info(), &key(), &flipped).is_err(), "{at}");
            assert!(open_dealt(&info(), &key(), &bytes[..at]).is_err());
        }
    }

    #[test]
    fn the_file_of_a_key_opens_for_its_officer_and_under_its_id_only() {
        let file = seal_key(&[6; 32], &[5; 32], &key(), &mut rng(3));
        assert_eq!(file.len(), KEY_FILE_BYTES);
        let opened = open_key(&[6; 32], &[5; 32], &file).unwrap();
        assert_eq!(opened.expose(), key().expose());
        assert!(open_key(&[7; 32], &[5; 32], &file).is_err());
        assert!(open_key(&[6; 32], &[9; 32], &file).is_err());
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert!(open_key(&[6; 32], &[5; 32], &flipped).is_err(), "{at}");
        }
    }
}
