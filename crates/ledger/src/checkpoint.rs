//! Checkpoints (C2SP tlog-checkpoint): the signed head of a log, and witnesses' cosignatures on it.
//!
//! Owns the three lines (origin, size, root) and the rule that a log signs under its own origin.
//! Refuses a checkpoint that its log did not sign, however many others did.

use crate::format::{decimal, hash_from_text, hash_text};
use crate::hash::{Hash, SIZE_MAX};
use crate::note::{
    KeyKind, Note, NoteError, NoteSigner, SignatureLine, TIME_SECS_MAX, Verifier, VerifyError,
    check_text,
};

/// The head of a log: how many leaves, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// One non-empty line.
    origin: String,
    /// At most [`SIZE_MAX`].
    size: u64,
    root: Hash,
    /// Non-empty lines below the root, opaque; this crate never writes any.
    extensions: Vec<String>,
}

/// Why something is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text is no note's text.
    #[error("the checkpoint is not the text of a note")]
    Text(#[source] NoteError),
    /// Fewer than three lines, or an empty one.
    #[error("the checkpoint is not three or more non-empty lines; fetch it again, whole")]
    Lines,
    /// The origin is empty or has a control character.
    #[error(
        "the origin is empty or has a control character; use one like `example.org/division/kind`"
    )]
    Origin,
    /// The size is not a canonical decimal number of at most [`SIZE_MAX`].
    #[error("the tree size is not a plain decimal number below 2^63; fetch the checkpoint again")]
    Size,
    /// The root is not 32 bytes in base64.
    #[error("the root is not 32 bytes in base64; fetch the checkpoint again")]
    Root,
}

/// Why a checkpoint was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key has another name than the log.
    #[error(
        "the key `{key}` may not sign for the log `{origin}`; sign with the key of that origin"
    )]
    WrongKey {
        /// Name of the key.
        key: String,
        /// Origin of the checkpoint.
        origin: String,
    },
    /// The note would exceed a limit.
    #[error("the checkpoint does not fit a note; use a shorter origin")]
    Note(#[source] NoteError),
}

/// Why a note is not a log's signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a note.
    #[error("the bytes are not a signed note")]
    Note(#[from] NoteError),
    /// The signatures do not suffice.
    #[error("the checkpoint is not signed by `{name}`")]
    Signature {
        /// Name of the key that should have signed.
        name: String,
        /// What is wrong with the signatures.
        source: VerifyError,
    },
    /// Signed, but not a checkpoint.
    #[error("the signed note is not a checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// Signed by a key of another name than the origin.
    #[error("the key `{key}` signed a checkpoint of `{origin}`; use the key of that origin")]
    WrongOrigin {
        /// Name of the key.
        key: String,
        /// Origin of the checkpoint.
        origin: String,
    },
    /// The verifier given is for the other kind of signature.
    #[error(
        "the key `{name}` is of the wrong kind: logs sign with type 0x01, witnesses with 0x04; use the other vkey"
    )]
    WrongKind {
        /// Name of the key.
        name: String,
    },
}

/// Why a checkpoint was not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// Not a note.
    #[error("the bytes are not a signed note")]
    Note(#[from] NoteError),
    /// Not a checkpoint.
    #[error("the note is not a checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The time cannot be stated.
    #[error("the time `{time_secs}` is beyond 2^63 - 1 seconds; set the clock")]
    Time {
        /// The time given.
        time_secs: u64,
    },
}

impl Checkpoint {
    /// A checkpoint out of its parts, without extension lines.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`] or [`CheckpointError::Size`].
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        if origin.is_empty() || origin.chars().any(|char| char < ' ') {
            return Err(CheckpointError::Origin);
        }
        if size > SIZE_MAX {
            return Err(CheckpointError::Size);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions: Vec::new(),
        })
    }

    /// Reads the text of a checkpoint (the part above the blank line).
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        let text = str::from_utf8(text).map_err(|_| CheckpointError::Text(NoteError::Text))?;
        check_text(text).map_err(CheckpointError::Text)?;
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let mut line = || {
            lines
                .next()
                .filter(|line| !line.is_empty())
                .ok_or(CheckpointError::Lines)
        };
        let (origin, size, root) = (line()?, line()?, line()?);
        let size = decimal(size).ok_or(CheckpointError::Size)?;
        let root = hash_from_text(root).ok_or(CheckpointError::Root)?;
        let mut checkpoint = Self::new(origin, size, root)?;
        for extension in lines {
            if extension.is_empty() {
                return Err(CheckpointError::Lines);
            }
            checkpoint.extensions.push(extension.to_owned());
        }
        Ok(checkpoint)
    }

    /// The text that is signed, with its final newline.
    pub fn to_text(&self) -> String {
        let root = hash_text(&self.root);
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, root);
        for extension in &self.extensions {
            text.push_str(extension);
            text.push('\n');
        }
        text
    }

    /// The signed note, as text. A log must not sign two histories: sign only what is stored.
    ///
    /// # Errors
    /// [`SignError`], above all when the key's name is not the origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<String, SignError> {
        if signer.name() != self.origin {
            return Err(SignError::WrongKey {
                key: signer.name().to_owned(),
                origin: self.origin.clone(),
            });
        }
        let note = Note::sign(&self.to_text(), signer).map_err(SignError::Note)?;
        Ok(note.encode())
    }

    /// Which log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over the leaves.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Opaque lines below the root, which nobody audits.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

/// The checkpoint in a note, if the log signed it under its own origin.
///
/// # Errors
/// [`OpenError`]; lines of other keys are ignored, one bad line of this key refuses the note.
pub fn open(note: &[u8], log: &Verifier) -> Result<Checkpoint, OpenError> {
    let (checkpoint, _) = open_with(note, log, KeyKind::Note)?;
    if checkpoint.origin != log.name() {
        return Err(OpenError::WrongOrigin {
            key: log.name().to_owned(),
            origin: checkpoint.origin,
        });
    }
    Ok(checkpoint)
}

/// A witness's signature line (with its newline) on the checkpoint in a note, `cosignature/v1`.
///
/// It states that the witness verified this checkpoint to extend every one it saw before, so a
/// witness calls [`crate::verify::Verified::cosign`], which cannot be reached without that.
///
/// # Errors
/// [`CosignError`].
pub fn cosign(note: &[u8], witness: &NoteSigner, time_secs: u64) -> Result<String, CosignError> {
    let note = Note::parse(note)?;
    Checkpoint::parse(note.text().as_bytes())?;
    if time_secs > TIME_SECS_MAX {
        return Err(CosignError::Time { time_secs });
    }
    Ok(SignatureLine::cosign(note.text(), witness, time_secs).to_string())
}

/// The time, in seconds since 1970, at which a witness cosigned the checkpoint in a note; the
/// latest, if it did so more than once.
///
/// # Errors
/// [`OpenError`]. The log's own signature is not looked at: call [`open`] for that.
pub fn verify_cosignature(note: &[u8], witness: &Verifier) -> Result<u64, OpenError> {
    let (_, time_secs) = open_with(note, witness, KeyKind::Cosignature)?;
    // Only a line of another kind has no time, and `open_with` has refused that kind.
    Ok(time_secs.unwrap_or_default())
}

/// The note with a signature line (ending in a newline) added; see [`Note::add`] for what is
/// merged. Verify the result before keeping it.
///
/// # Errors
/// [`NoteError`].
pub fn add_signature_line(note: &[u8], line: &[u8]) -> Result<String, NoteError> {
    let mut note = Note::parse(note)?;
    note.add(SignatureLine::parse(line)?)?;
    Ok(note.encode())
}

/// Checkpoint and latest stated time of a note that one key of one kind signed.
fn open_with(
    note: &[u8],
    verifier: &Verifier,
    kind: KeyKind,
) -> Result<(Checkpoint, Option<u64>), OpenError> {
    let name = || verifier.name().to_owned();
    if verifier.kind() != kind {
        return Err(OpenError::WrongKind { name: name() });
    }
    let note = Note::parse(note)?;
    let signed = note
        .verify(std::slice::from_ref(verifier))
        .map_err(|source| OpenError::Signature {
            name: name(),
            source,
        })?;
    let time_secs = signed.iter().filter_map(|signed| signed.time_secs).max();
    Ok((Checkpoint::parse(note.text().as_bytes())?, time_secs))
}
