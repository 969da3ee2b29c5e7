//! Signed notes (C2SP signed-note): a text and the signature lines below it.
//!
//! Owns the split of a note into text and lines, the limits, and which signatures count.
//! Refuses notes over 64 KiB or 64 signatures, control characters, lines in any other spelling,
//! and the whole note when a known key's signature fails.
//! The text of a note means nothing until [`Note::verify`] has accepted a signature over it.

mod key;

pub use key::{KeyError, KeyKind, NAME_BYTES_MAX, NoteSigner, TIME_SECS_MAX, Verifier};

use crate::format::base64;
use data_encoding::BASE64;
use std::fmt;

/// The largest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// The most signatures on one note; C2SP asks verifiers to accept at least 16.
pub const SIGNATURES_MAX: usize = 64;

/// Why bytes are not a note, or a line cannot be added to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Over [`NOTE_BYTES_MAX`].
    #[error("the note is larger than 65536 bytes; its sender must drop signatures or text")]
    TooLarge,
    /// Over [`SIGNATURES_MAX`].
    #[error("the note has more than 64 signatures; its sender must drop some")]
    TooManySignatures,
    /// Not UTF-8, a control character, or a text that does not end its last line.
    #[error("the note's text is not lines of printable UTF-8; fetch it again, unaltered")]
    Text,
    /// No blank line, or nothing below it.
    #[error("the note has no signatures below a blank line; fetch it again, whole")]
    Unsigned,
    /// A line below the blank line that is not a signature line.
    #[error("signature line `{line}` of the note is malformed; fetch the note again, unaltered")]
    SignatureLine {
        /// Number of the line, from 1, below the blank line.
        line: usize,
    },
}

/// Why no signature on a note counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No line is by a known key.
    #[error("no known key signed the note; obtain it with its signatures, or add the signer's key")]
    NoKnownKey,
    /// A line by a known key does not verify.
    #[error(
        "the signature of `{name}` on the note is wrong; keep the note apart and obtain it from its source"
    )]
    BadSignature {
        /// Name of the key.
        name: String,
    },
    /// Two different known keys share name and id, so that a line fits both.
    #[error("two different known keys `{name}` share one id; remove one of them")]
    AmbiguousKeys {
        /// Name of the keys.
        name: String,
    },
}

/// One signature line: who, with which key, and the signature bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    id: u32,
    /// At least one byte; what they mean depends on the key's kind.
    signature: Vec<u8>,
}

impl SignatureLine {
    /// Reads one line, with its newline: em dash, space, name, space, base64(id || signature).
    ///
    /// # Errors
    /// [`NoteError::TooLarge`], or [`NoteError::SignatureLine`] for any other spelling.
    pub fn parse(line: &[u8]) -> Result<Self, NoteError> {
        if line.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_suffix('\n'))
            .and_then(Self::from_text)
            .ok_or(NoteError::SignatureLine { line: 1 })
    }

    fn from_text(line: &str) -> Option<Self> {
        let (name, blob) = line.strip_prefix("— ")?.split_once(' ')?;
        let blob = base64(blob)?;
        let (id, signature) = blob.split_first_chunk()?;
        if !key::name_is_valid(name) || signature.is_empty() {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
        })
    }

    /// A `cosignature/v1` line over the text of a note.
    pub(crate) fn cosign(text: &str, signer: &NoteSigner, time_secs: u64) -> Self {
        Self {
            name: signer.name().to_owned(),
            id: signer.verifier(KeyKind::Cosignature).id(),
            signature: signer.cosign_text(text, time_secs),
        }
    }

    /// Name of the signing key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the signing key.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The signature bytes, without the id.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The time a line would state if it is a cosignature, which only its shape suggests.
    fn time_secs(&self) -> Option<u64> {
        let (time, signature) = self.signature.split_first_chunk()?;
        (signature.len() == 64).then(|| u64::from_be_bytes(*time))
    }
}

impl fmt::Display for SignatureLine {
    /// The line with its newline.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blob = self.id.to_be_bytes().to_vec();
        blob.extend(&self.signature);
        writeln!(formatter, "— {} {}", self.name, BASE64.encode(&blob))
    }
}

/// A signature on a note that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The known key that made it.
    pub verifier: &'a Verifier,
    /// The time a cosignature states, in seconds since 1970; none on a note signature.
    pub time_secs: Option<u64>,
}

/// A text with at least one signature line; whether the signatures are good is not yet said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Ends in a newline, no control character but newline.
    text: String,
    /// 1 to [`SIGNATURES_MAX`].
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads a note; every signature line must be well-formed, known or not.
    ///
    /// # Errors
    /// [`NoteError`]; nothing is repaired.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        // The text may have blank lines of its own: the last one separates.
        let blank = note.rfind("\n\n").ok_or(NoteError::Unsigned)?;
        let (text, lines) = (&note[..=blank], &note[blank + 2..]);
        check_text(text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Unsigned)?;
        let mut signatures = Vec::new();
        for (before, line) in lines.split('\n').enumerate() {
            if before == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            let line = SignatureLine::from_text(line)
                .ok_or(NoteError::SignatureLine { line: before + 1 })?;
            signatures.push(line);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// Signs a text of whole lines (type 0x01).
    ///
    /// # Errors
    /// [`NoteError::Text`] or [`NoteError::TooLarge`].
    pub fn sign(text: &str, signer: &NoteSigner) -> Result<Self, NoteError> {
        check_text(text)?;
        let line = SignatureLine {
            name: signer.name().to_owned(),
            id: signer.verifier(KeyKind::Note).id(),
            signature: signer.sign_text(text),
        };
        let note = Self {
            text: text.to_owned(),
            signatures: vec![line],
        };
        note.check_size()?;
        Ok(note)
    }

    /// Adds a line without doubling any: a line that is there stays, and of two cosignatures by
    /// one key the one that states the later time stays.
    ///
    /// The line is not verified. A bad line by a known key makes everybody refuse the note, so
    /// verify the result before it replaces anything.
    ///
    /// # Errors
    /// [`NoteError::TooLarge`] or [`NoteError::TooManySignatures`]; the note is then unchanged.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        if self.signatures.contains(&line) {
            return Ok(());
        }
        let mut grown = self.clone();
        let earlier = grown.signatures.iter_mut().find(|held| {
            (held.name == line.name && held.id == line.id)
                && held.time_secs().is_some()
                && line.time_secs().is_some()
        });
        match earlier {
            Some(held) if held.time_secs() >= line.time_secs() => return Ok(()),
            Some(held) => *held = line,
            None => grown.signatures.push(line),
        }
        if grown.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        grown.check_size()?;
        *self = grown;
        Ok(())
    }

    /// The signatures that known keys made, in the order of the lines.
    ///
    /// Lines whose (name, id) is unknown are ignored. Every line whose (name, id) is known must
    /// verify, or the whole note is refused.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify<'a>(&self, known: &'a [Verifier]) -> Result<Vec<Signed<'a>>, VerifyError> {
        let mut accepted = Vec::new();
        for line in &self.signatures {
            let mut matching = known
                .iter()
                .filter(|verifier| verifier.name() == line.name && verifier.id() == line.id);
            let Some(verifier) = matching.next() else {
                continue;
            };
            let name = || line.name.clone();
            if matching.any(|other| other != verifier) {
                return Err(VerifyError::AmbiguousKeys { name: name() });
            }
            let time_secs = verifier
                .check(&self.text, &line.signature)
                .map_err(|_| VerifyError::BadSignature { name: name() })?;
            accepted.push(Signed {
                verifier,
                time_secs,
            });
        }
        if accepted.is_empty() {
            return Err(VerifyError::NoKnownKey);
        }
        Ok(accepted)
    }

    /// The text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, verified or not.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// The note as text: what [`Note::parse`] reads, byte for byte.
    pub fn encode(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for line in &self.signatures {
            note.push_str(&line.to_string());
        }
        note
    }

    fn check_size(&self) -> Result<(), NoteError> {
        if self.encode().len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        Ok(())
    }
}

/// A note's text ends in a newline and has no other control character.
pub(crate) fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLarge);
    }
    let control = text.chars().any(|char| char < ' ' && char != '\n');
    if control || !text.ends_with('\n') {
        return Err(NoteError::Text);
    }
    Ok(())
}
