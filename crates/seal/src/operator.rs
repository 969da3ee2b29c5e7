//! Operator key files: one person's signing seed, under a passphrase of their own.
//!
//! The node never holds an operator's key; the person's device opens the file, signs and
//! forgets. Format: `docs/formats/keystore.md`. It refuses files that ask for more memory
//! or passes than [`crate::passphrase`] allows.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::cbor::{self, CborError};
use record::entry::SUITE;
use zeroize::Zeroizing;

use crate::blob;
use crate::passphrase::{Argon2Params, PassphraseError};

/// The version of the operator file format.
pub const FORMAT: u8 = 1;
/// The largest operator file.
pub const OPERATOR_MAX: usize = 1024;
const USAGE: &str = "fangzhi/operator/v1";

/// Why an operator file cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The bytes are no operator file.
    #[error("the operator file cannot be read; restore it from a backup or enrol a new key")]
    Bytes(#[from] CborError),
    /// The parameters are out of bounds.
    #[error("the operator file's passphrase parameters cannot be used")]
    Passphrase(#[from] PassphraseError),
    /// Wrong passphrase, or altered.
    #[error(
        "the operator file does not open; check the passphrase, then whether the file was altered"
    )]
    Wrong,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[n(2)]
    passphrase: Argon2Params,
    #[n(3)]
    sealed: ByteVec,
}

/// Seals an operator's Ed25519 seed under a passphrase.
///
/// # Errors
/// [`OperatorError::Passphrase`] when the parameters are out of bounds.
pub fn seal_operator(
    seed: &[u8; 32],
    passphrase: &[u8],
    params: &Argon2Params,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, OperatorError> {
    let kek = params.derive(passphrase)?;
    // The parameters need no place in the associated data: they are part of the key.
    let sealed = blob::seal(kek.expose(), USAGE, b"", seed, rng).into();
    Ok(cbor::to_vec(&Wire {
        format: FORMAT,
        suite: SUITE,
        passphrase: *params,
        sealed,
    }))
}

/// Opens an operator file.
///
/// # Errors
/// [`OperatorError`]: no operator file, unusable parameters, or the wrong passphrase.
pub fn open_operator(
    bytes: &[u8],
    passphrase: &[u8],
) -> Result<Zeroizing<[u8; 32]>, OperatorError> {
    let what = "operator file";
    let wire: Wire = cbor::from_slice(what, bytes, OPERATOR_MAX)?;
    if wire.format != FORMAT || wire.suite != SUITE {
        return Err(CborError::Malformed { what }.into());
    }
    let kek = wire.passphrase.derive(passphrase)?;
    let plain =
        blob::open(kek.expose(), USAGE, b"", &wire.sealed).map_err(|_| OperatorError::Wrong)?;
    let mut seed = Zeroizing::new([0; 32]);
    if plain.len() != seed.len() {
        return Err(OperatorError::Wrong);
    }
    seed.copy_from_slice(&plain);
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    const QUICK: Argon2Params = Argon2Params {
        salt: [1; 16],
        m_kib: 8,
        t: 1,
        p: 1,
    };

    fn sealed() -> Vec<u8> {
        seal_operator(&[7; 32], b"correct horse", &QUICK, &mut rng(1)).unwrap()
    }

    #[test]
    fn an_operator_file_opens_with_its_passphrase_only() {
        assert_eq!(
            *open_operator(&sealed(), b"correct horse").unwrap(),
            [7; 32]
        );
        let refused = open_operator(&sealed(), b"correct house").unwrap_err();
        assert_eq!(refused, OperatorError::Wrong);
    }

    #[test]
    fn the_golden_operator_file_holds() {
        check_golden(
            "operator",
            &sealed(),
            "2cdc1b17c277c4fbc610a215aa247b9017098ed9bfc2f89481b2704a8bb8edce",
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_an_operator_file_is_refused() {
        let sealed = sealed();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open_operator(&flipped, b"correct horse").is_err(),
                "bit {bit}"
            );
        }
        for end in 0..sealed.len() {
            assert!(open_operator(&sealed[..end], b"correct horse").is_err());
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_memory_is_refused() {
        let mut wire: Wire = minicbor::decode(&sealed()).unwrap();
        wire.passphrase.m_kib = u32::MAX;
        let refused = open_operator(&cbor::to_vec(&wire), b"correct horse").unwrap_err();
        assert!(matches!(refused, OperatorError::Passphrase(_)));
    }
}
