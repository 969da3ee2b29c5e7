//! Sealing to a public key: HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and
//! ChaCha20-Poly1305.
//!
//! Owns the one envelope that grants, letters, recoveries and dealt shares have, `{format, suite, encapsulated,
//! sealed}`. All context is in `info`; the associated data is empty, which keeps the envelope
//! readable for libraries without it. Refuses to know what is sealed.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::cbor::{self, CborError};
use record::entry::SUITE;
use zeroize::Zeroizing;

use crate::grant::SealPrivateKey;

/// The version of the envelope's format.
pub(crate) const FORMAT: u8 = 1;

/// The public key is no X-Wing key.
#[derive(Debug)]
pub(crate) struct BadPublicKey;

/// Why an envelope does not open.
pub(crate) enum Unopened {
    /// It is not one.
    Bytes(CborError),
    /// It was sealed to another key or under another `info`, or altered.
    Sealed,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[n(2)]
    encapsulated: ByteVec,
    #[n(3)]
    sealed: ByteVec,
}

/// Seals `plain`; returns what X-Wing encapsulates, and the ciphertext.
pub(crate) fn seal(
    info: &[u8],
    public: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Vec<u8>, Vec<u8>), BadPublicKey> {
    let public = Deserializable::from_bytes(public).map_err(|_| BadPublicKey)?;
    let (encapsulated, sealed) = hpke::single_shot_seal_with_rng::<
        ChaCha20Poly1305,
        HkdfSha256,
        XWing,
    >(&OpModeS::Base, &public, info, plain, &[], &mut &mut *rng)
    .map_err(|_| BadPublicKey)?;
    Ok((encapsulated.to_bytes().to_vec(), sealed))
}

/// Opens what [`seal`] sealed; nothing when it was for another key or `info`, or altered.
pub(crate) fn open(
    info: &[u8],
    private: &SealPrivateKey,
    encapsulated: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let encapsulated = Deserializable::from_bytes(encapsulated).ok()?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        &private.hpke(),
        &encapsulated,
        info,
        sealed,
        &[],
    )
    .map(Zeroizing::new)
    .ok()
}

/// Seals `plain` into an envelope.
pub(crate) fn seal_envelope(
    info: &[u8],
    public: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, BadPublicKey> {
    let (encapsulated, sealed) = seal(info, public, plain, rng)?;
    Ok(cbor::to_vec(&Wire {
        format: FORMAT,
        suite: SUITE,
        encapsulated: encapsulated.into(),
        sealed: sealed.into(),
    }))
}

/// Opens an envelope of at most `max` bytes; `what` names it in the error.
pub(crate) fn open_envelope(
    what: &'static str,
    max: usize,
    info: &[u8],
    private: &SealPrivateKey,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let wire: Wire = cbor::from_slice(what, bytes, max).map_err(Unopened::Bytes)?;
    if wire.format != FORMAT || wire.suite != SUITE {
        return Err(Unopened::Bytes(CborError::Malformed { what }));
    }
    open(info, private, &wire.encapsulated, &wire.sealed).ok_or(Unopened::Sealed)
}
