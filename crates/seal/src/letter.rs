//! Letters (函件): a proposal or an answer, sealed to the one node that may read it.
//!
//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305, as for grants. What a
//! letter says is padded before it is sealed, so that its length tells little. Format:
//! `docs/formats/proposal.md`. Refuses to know what it seals; who wrote it, the ledger's act says.

use rand_core::CryptoRng;
use record::cbor::CborError;
use record::id::{Hash, LetterId, Origin};
use record::letter::Step;
use record::proposal::LETTER_BYTES_MAX;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::derive::Binding;
use crate::grant::SealPrivateKey;
use crate::hybrid::{self, Unopened};

/// The longest sealed letter.
pub const LETTER_MAX: usize = 16 * 1024;
/// Letters are padded to multiples of this.
const STEP_BYTES: usize = 1024;
const SALT: usize = 16;

/// What a letter is bound to: nothing of it opens elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterInfo {
    /// The ledger of proposals or of answers.
    pub origin: Origin,
    /// The index of its entry.
    pub index: u64,
    /// The proposal that it is, or answers.
    pub id: LetterId,
    /// What it does.
    pub step: Step,
    /// Id of the reader's charter.
    pub reader: Hash,
}

impl LetterInfo {
    /// HPKE's `info`.
    fn bytes(&self) -> Vec<u8> {
        Binding::new("fangzhi/letter/v1")
            .counted(self.origin.as_str().as_bytes())
            .u64(self.index)
            .fixed(&self.id.0)
            .u8(self.step.number())
            .fixed(&self.reader)
            .bytes()
            .to_vec()
    }
}

/// Why a letter cannot be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// The bytes are no letter.
    #[error("the letter cannot be read; ask its writer to send it again")]
    Bytes(#[from] CborError),
    /// The public key is no X-Wing key.
    #[error("the reader's charter has no usable seal key; let its parent charter it anew")]
    PublicKey,
    /// It does not open.
    #[error(
        "the letter does not open with this node's seal key; it was sealed to another charter, belongs to another place, or was altered"
    )]
    Sealed,
}

/// The salted bytes of a letter: what its commitment is over, and what is sealed.
pub fn salted(plain: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; SALT]);
    rng.fill_bytes(&mut bytes);
    bytes.extend_from_slice(plain);
    bytes
}

/// What a letter says, of its salted bytes.
pub fn unsalted(salted: &[u8]) -> &[u8] {
    salted.get(SALT..).unwrap_or_default()
}

/// The commitment of a letter: over its salted bytes, so that nobody confirms a guess.
pub fn content(salted: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"fangzhi/letter/v1\0");
    hash.update(salted);
    hash.finalize().into()
}

/// Length, bytes, zeros.
fn padded(salted: &[u8]) -> Result<Zeroizing<Vec<u8>>, LetterError> {
    let most = SALT + LETTER_BYTES_MAX;
    if salted.len() > most {
        return Err(CborError::TooLong {
            what: "letter",
            size: salted.len(),
            max: most,
        }
        .into());
    }
    let length = u32::try_from(salted.len()).unwrap_or(u32::MAX);
    let whole = (4 + salted.len()).next_multiple_of(STEP_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(whole));
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(salted);
    bytes.resize(whole, 0);
    Ok(bytes)
}

fn unpadded(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (salted, padding) = rest.split_at_checked(length)?;
    let whole = (4 + length).next_multiple_of(STEP_BYTES) == bytes.len();
    let clean = padding.iter().all(|byte| *byte == 0);
    (whole && clean && length >= SALT).then(|| Zeroizing::new(salted.to_vec()))
}

/// Seals the salted bytes of a letter to its reader.
///
/// # Errors
/// [`LetterError`] when they are too long, or the public key is malformed.
pub fn seal_letter(
    info: &LetterInfo,
    public: &[u8],
    salted: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, LetterError> {
    let plain = padded(salted)?;
    hybrid::seal_envelope(&info.bytes(), public, &plain, rng).map_err(|_| LetterError::PublicKey)
}

/// Opens a letter: its salted bytes.
///
/// # Errors
/// [`LetterError`] when it is no letter, was sealed to another key or for another place, or altered.
pub fn open_letter(
    info: &LetterInfo,
    reader: &SealPrivateKey,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, LetterError> {
    let what = "letter";
    let plain = hybrid::open_envelope(what, LETTER_MAX, &info.bytes(), reader, bytes).map_err(
        |unopened| match unopened {
            Unopened::Bytes(error) => LetterError::Bytes(error),
            Unopened::Sealed => LetterError::Sealed,
        },
    )?;
    unpadded(&plain).ok_or(LetterError::Bytes(CborError::Malformed { what }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{check_golden, rng};

    fn info() -> LetterInfo {
        LetterInfo {
            origin: Origin::parse("jiangjin.example/minzheng/proposals/jinfu").unwrap(),
            index: 7,
            id: LetterId([4; 16]),
            step: Step::Propose,
            reader: [5; 32],
        }
    }

    fn sealed(reader: &SealPrivateKey, words: &[u8]) -> Vec<u8> {
        let salted = salted(words, &mut rng(3));
        seal_letter(&info(), &reader.public(), &salted, &mut rng(2)).unwrap()
    }

    #[test]
    fn the_golden_letter_holds() {
        let reader = SealPrivateKey::from_bytes([8; 32]);
        check_golden(
            "letter",
            &sealed(&reader, b"words"),
            "e8d7ee851e193210000a53cfd8579fdfa682c9d593ca577eb6d1613e74c34431",
        );
    }

    #[test]
    fn a_letter_opens_with_its_readers_key_at_its_place_and_nowhere_else() {
        let reader = SealPrivateKey::generate(&mut rng(1));
        let bytes = sealed(&reader, b"words");
        let opened = open_letter(&info(), &reader, &bytes).unwrap();
        assert_eq!(unsalted(&opened), b"words");
        assert_eq!(content(&opened), content(&salted(b"words", &mut rng(3))));
        assert_ne!(content(&opened), content(&salted(b"words", &mut rng(4))));
        let other = SealPrivateKey::generate(&mut rng(3));
        assert!(open_letter(&info(), &other, &bytes).is_err());
        let changes: [fn(&mut LetterInfo); 5] = [
            |i| i.origin = Origin::parse("jiangjin.example/minzheng/proposals/fucheng").unwrap(),
            |i| i.index = 8,
            |i| i.id = LetterId([9; 16]),
            |i| i.step = Step::Refuse,
            |i| i.reader = [9; 32],
        ];
        for change in changes {
            let mut moved = info();
            change(&mut moved);
            let refused = open_letter(&moved, &reader, &bytes).unwrap_err();
            assert_eq!(refused, LetterError::Sealed);
        }
    }

    #[test]
    fn letters_of_about_the_same_length_are_sealed_to_the_same_length() {
        let reader = SealPrivateKey::generate(&mut rng(1));
        let length = |words: usize| sealed(&reader, &vec![b'a'; words]).len();
        assert_eq!(length(0), length(1004));
        assert_eq!(length(1005) - length(1004), STEP_BYTES);
        let longest = vec![b'a'; LETTER_BYTES_MAX];
        let bytes = sealed(&reader, &longest);
        assert!(bytes.len() <= LETTER_MAX);
        assert_eq!(
            unsalted(&open_letter(&info(), &reader, &bytes).unwrap()),
            longest
        );
        let salted = salted(&vec![b'a'; LETTER_BYTES_MAX + 1], &mut rng(3));
        assert!(seal_letter(&info(), &reader.public(), &salted, &mut rng(2)).is_err());
    }

    #[test]
    fn every_cut_and_a_flip_in_every_byte_of_a_letter_is_refused() {
        let reader = SealPrivateKey::generate(&mut rng(1));
        let bytes = sealed(&reader, b"words");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(open_letter(&info(), &reader, &flipped).is_err(), "{at}");
            assert!(open_letter(&info(), &reader, &bytes[..at]).is_err());
        }
    }
}
