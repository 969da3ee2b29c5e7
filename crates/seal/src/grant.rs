//! Envelopes: the keys of one grant (授权), sealed to the holder's charter key, end to end.
//!
//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305. All context
//! is in `info`; the associated data is empty, which keeps the envelope readable for
//! libraries without it. Format: `docs/formats/grant.md`. Who sealed it is not said here:
//! the owner's signed `authority` entry names the envelope's hash.

use std::collections::BTreeMap;

use hpke::kem::XWing;
use hpke::{Deserializable, Kem, Serializable};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::cbor::CborError;
use record::id::{GrantId, Hash, Origin};
use record::schema::{POSITION_MAX, Position};

use crate::derive::Binding;
use crate::hybrid::{self, Unopened};
use crate::secret::{FieldKey, GrantSecret, Raw, decode_wiped, encode_wiped};

/// The largest envelope.
pub const ENVELOPE_MAX: usize = 8 * 1024;
/// Bytes of an X-Wing public key.
pub const PUBLIC_KEY_BYTES: usize = 1216;

/// What an envelope is bound to. Both sides know it before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeInfo {
    /// The grant.
    pub grant: GrantId,
    /// Id of the owner's charter.
    pub owner_charter: Hash,
    /// Id of the holder's charter, whose seal key opens the envelope.
    pub holder_charter: Hash,
    /// The shard.
    pub origin: Origin,
    /// The shard's key epoch.
    pub epoch: u32,
    /// The granted fields, ascending.
    pub fields: Vec<Position>,
}

impl EnvelopeInfo {
    /// HPKE's `info`.
    fn bytes(&self) -> Vec<u8> {
        Binding::new("fangzhi/grant/v1")
            .fixed(&self.grant.0)
            .fixed(&self.owner_charter)
            .fixed(&self.holder_charter)
            .counted(self.origin.as_str().as_bytes())
            .u32(self.epoch)
            .counted(&self.fields)
            .bytes()
            .to_vec()
    }

    /// Whether the fields are positions, ascending, none twice: so at most 64.
    fn is_ordered(&self) -> bool {
        self.fields.windows(2).all(|pair| pair[0] < pair[1])
            && self.fields.last().is_none_or(|last| *last <= POSITION_MAX)
    }

    fn covers(&self, keys: &BTreeMap<Position, FieldKey>) -> bool {
        self.is_ordered() && self.fields.iter().eq(keys.keys())
    }
}

/// Why an envelope cannot be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are no envelope.
    #[error("the grant's envelope cannot be read; fetch it again")]
    Bytes(#[from] CborError),
    /// The public key is no X-Wing key.
    #[error("the holder's charter has no usable seal key; ask the holder for a new charter")]
    PublicKey,
    /// It was sealed to another key, for another grant, or altered.
    #[error(
        "the grant's envelope does not open with this node's seal key; it was sealed to another charter, for another grant or epoch, or altered"
    )]
    Sealed,
    /// The keys are not those of the fields that the grant names.
    #[error(
        "the keys in the envelope are not those of the granted fields; ask the owner to issue the grant again"
    )]
    Fields,
}

/// The private half of a node's seal key (X-Wing). Wiped on drop.
pub struct SealPrivateKey(Raw);

impl SealPrivateKey {
    /// A fresh random key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Raw([0; 32]);
        rng.fill_bytes(&mut seed.0);
        Self(seed)
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Raw(bytes))
    }

    /// The bytes. Whoever calls this answers for where they go.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// A second copy, wiped by itself.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Raw(self.0.0))
    }

    /// The public key, [`PUBLIC_KEY_BYTES`] long, that goes into the charter.
    pub fn public(&self) -> Vec<u8> {
        XWing::sk_to_pk(&self.hpke()).to_bytes().to_vec()
    }

    /// The key as the HPKE library takes it.
    pub(crate) fn hpke(&self) -> <XWing as Kem>::PrivateKey {
        Deserializable::from_bytes(&self.0.0).expect("every 32 bytes are an X-Wing private key")
    }
}

impl std::fmt::Debug for SealPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealPrivateKey(hidden)")
    }
}

/// What is inside.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[n(0)]
    secret: Raw,
    #[n(1)]
    keys: BTreeMap<Position, Raw>,
}

/// Seals a grant's secret and field keys to the holder's public key.
///
/// # Errors
/// [`EnvelopeError`] when the public key is malformed, or the keys are not exactly those
/// of `info.fields` in ascending order.
pub fn seal_envelope(
    info: &EnvelopeInfo,
    holder_public: &[u8],
    secret: &GrantSecret,
    keys: &BTreeMap<Position, FieldKey>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, EnvelopeError> {
    if !info.covers(keys) {
        return Err(EnvelopeError::Fields);
    }
    let payload = Payload {
        secret: secret.into(),
        keys: keys.iter().map(|(at, key)| (*at, key.into())).collect(),
    };
    let plain = encode_wiped(&payload, 64 + 40 * keys.len());
    hybrid::seal_envelope(&info.bytes(), holder_public, &plain, rng)
        .map_err(|_| EnvelopeError::PublicKey)
}

/// Opens an envelope with the holder's private key.
///
/// # Errors
/// [`EnvelopeError`] when it was sealed to another key or for another grant, or altered.
pub fn open_envelope(
    info: &EnvelopeInfo,
    holder_private: &SealPrivateKey,
    bytes: &[u8],
) -> Result<(GrantSecret, BTreeMap<Position, FieldKey>), EnvelopeError> {
    if !info.is_ordered() {
        return Err(EnvelopeError::Fields);
    }
    let plain = hybrid::open_envelope(
        "envelope",
        ENVELOPE_MAX,
        &info.bytes(),
        holder_private,
        bytes,
    )
    .map_err(|unopened| match unopened {
        Unopened::Bytes(error) => EnvelopeError::Bytes(error),
        Unopened::Sealed => EnvelopeError::Sealed,
    })?;
    let payload: Payload = decode_wiped(&plain).ok_or(EnvelopeError::Fields)?;
    let keys = payload
        .keys
        .iter()
        .map(|(at, key)| (*at, key.into()))
        .collect();
    if !info.covers(&keys) {
        return Err(EnvelopeError::Fields);
    }
    Ok(((&payload.secret).into(), keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    fn info() -> EnvelopeInfo {
        EnvelopeInfo {
            grant: GrantId([1; 16]),
            owner_charter: [2; 32],
            holder_charter: [3; 32],
            origin: Origin::parse("jiangjin.example/jinfu/person").unwrap(),
            epoch: 4,
            fields: vec![5, 12],
        }
    }

    fn keys() -> BTreeMap<Position, FieldKey> {
        [5, 12]
            .map(|at| (at, FieldKey::from_bytes([at; 32])))
            .into()
    }

    fn sealed(holder: &SealPrivateKey) -> Vec<u8> {
        let secret = GrantSecret::from_bytes([6; 32]);
        seal_envelope(&info(), &holder.public(), &secret, &keys(), &mut rng(2)).unwrap()
    }

    #[test]
    fn the_holder_opens_what_the_owner_sealed() {
        let holder = SealPrivateKey::generate(&mut rng(1));
        assert_eq!(holder.public().len(), PUBLIC_KEY_BYTES);
        let (secret, opened) = open_envelope(&info(), &holder, &sealed(&holder)).unwrap();
        assert_eq!(secret, GrantSecret::from_bytes([6; 32]));
        assert_eq!(opened, keys());
    }

    #[test]
    fn the_golden_envelope_holds() {
        let holder = SealPrivateKey::from_bytes([8; 32]);
        check_golden(
            "envelope",
            &sealed(&holder),
            "3ed9fda030b57be051bfeec1cef124b95207765dfd9f42c0676a78ffb3b9b9df",
        );
    }

    #[test]
    fn another_holder_cannot_open_it() {
        let bytes = sealed(&SealPrivateKey::generate(&mut rng(1)));
        let other = SealPrivateKey::generate(&mut rng(9));
        assert_eq!(
            open_envelope(&info(), &other, &bytes).unwrap_err(),
            EnvelopeError::Sealed
        );
    }

    #[test]
    fn an_envelope_opens_for_its_own_grant_charters_origin_epoch_and_fields_only() {
        let holder = SealPrivateKey::generate(&mut rng(1));
        let bytes = sealed(&holder);
        let changes: [fn(&mut EnvelopeInfo); 6] = [
            |i| i.grant = GrantId([9; 16]),
            |i| i.owner_charter = [9; 32],
            |i| i.holder_charter = [9; 32],
            |i| i.origin = Origin::parse("jiangjin.example/jinfu/unit").unwrap(),
            |i| i.epoch = 5,
            |i| i.fields = vec![5, 13],
        ];
        for change in changes {
            let mut other = info();
            change(&mut other);
            assert_eq!(
                open_envelope(&other, &holder, &bytes).unwrap_err(),
                EnvelopeError::Sealed
            );
        }
    }

    #[test]
    fn every_flipped_bit_of_an_envelope_is_refused() {
        let holder = SealPrivateKey::generate(&mut rng(1));
        let bytes = sealed(&holder);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open_envelope(&info(), &holder, &flipped).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn keys_of_other_fields_and_malformed_public_keys_are_not_sealed() {
        let holder = SealPrivateKey::generate(&mut rng(1)).public();
        let secret = GrantSecret::from_bytes([6; 32]);
        let seal = |info: &EnvelopeInfo, public: &[u8]| {
            seal_envelope(info, public, &secret, &keys(), &mut rng(2)).unwrap_err()
        };
        let mut more = info();
        more.fields = vec![5, 12, 13];
        assert_eq!(seal(&more, &holder), EnvelopeError::Fields);
        let mut unordered = info();
        unordered.fields = vec![12, 5];
        assert_eq!(seal(&unordered, &holder), EnvelopeError::Fields);
        let mut endless = info();
        endless.fields = vec![5; 70_000];
        assert_eq!(seal(&endless, &holder), EnvelopeError::Fields);
        let private = SealPrivateKey::generate(&mut rng(1));
        let refused = open_envelope(&endless, &private, &sealed(&private)).unwrap_err();
        assert_eq!(refused, EnvelopeError::Fields);
        assert_eq!(seal(&info(), &holder[1..]), EnvelopeError::PublicKey);
        assert_eq!(
            seal(&info(), &[0xff; PUBLIC_KEY_BYTES]),
            EnvelopeError::PublicKey
        );
    }
}
