//! Checking offline what somebody handed over: proofs, disclosures, checkpoints.
//!
//! Owns which keys count and what is said of the signatures. Needs verifier keys alone.
//! Refuses a checkpoint that its log did not sign under a key given, however many others did, and
//! any document of which one byte does not fit.

use ledger::checkpoint::Checkpoint;
use ledger::hash::leaf_hash;
use ledger::note::{KeyKind, Note, Verifier};
use ledger::proof::TlogProof;
use serde::Serialize;

use super::disclosure::{self, DisclosureError, Shown};
use super::{hex, words};

/// The most verifier keys in one file.
const VKEYS_MAX: usize = 10_000;
/// The largest document that is checked.
pub const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;

/// Why a document does not hold.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A line of the key file is no key.
    #[error("line {line} of the key file is no verifier key; copy the file again: {what}")]
    Vkey {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Neither a proof nor a disclosure nor a checkpoint.
    #[error("the document cannot be read; obtain it again, whole: {what}")]
    Document {
        /// What is wrong with it.
        what: String,
    },
    /// The log's key is not among those given.
    #[error(
        "no key of the log `{origin}` was given; obtain its line from the realm, not from whoever sent the document"
    )]
    UnknownLog {
        /// Which log.
        origin: String,
    },
    /// A signature is missing or wrong.
    #[error("the signatures do not hold: {what}")]
    Signature {
        /// What is wrong with them.
        what: String,
    },
    /// The hashes do not lead from the entry to the signed root.
    #[error("the entry is not proven to be in the ledger: {what}")]
    Proof {
        /// What is wrong.
        what: String,
    },
    /// A proof names its entry nowhere.
    #[error("the proof carries no leaf hash; give the entry's bytes with `--entry`")]
    NoEntry,
    /// The entry given is not the proof's.
    #[error("the entry given is not the one that was proven; compare index and ledger")]
    OtherEntry,
    /// A disclosure does not hold.
    #[error(transparent)]
    Disclosure(#[from] DisclosureError),
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignerLine {
    /// Name of the key.
    pub name: String,
    /// `log`, `witness`, `held` or `cosigner`.
    pub role: &'static str,
    /// When a cosigner signed, in seconds since 1970.
    pub time_secs: Option<u64>,
}

/// Whose signatures a note has.
#[derive(Debug, Clone, Serialize)]
pub struct Signatures {
    /// Those that hold; the log's first.
    pub holding: Vec<SignerLine>,
    /// Names of signers whose keys were not given; they count for nothing.
    pub unknown: Vec<String>,
}

/// What a document proves.
#[derive(Serialize)]
pub struct Checked {
    /// `proof`, `disclosure` or `checkpoint`.
    pub what: &'static str,
    /// Which ledger.
    pub origin: String,
    /// Entries under the checkpoint.
    pub size: u64,
    /// Root, hexadecimal.
    pub root: String,
    /// The entry's index; absent for a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Whether the entry's bytes were at hand, not just its hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_given: Option<bool>,
    /// Whose signatures hold.
    pub signatures: Signatures,
    /// What a disclosure shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
}

/// Reads verifier keys, one a line.
///
/// # Errors
/// [`CheckError::Vkey`].
pub fn vkeys(text: &str) -> Result<Vec<Verifier>, CheckError> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            let what = if at >= VKEYS_MAX {
                format!("more than {VKEYS_MAX} lines")
            } else {
                match Verifier::parse(line.as_bytes()) {
                    Ok(key) => return Ok(key),
                    Err(error) => words(&error),
                }
            };
            Err(CheckError::Vkey { line: at + 1, what })
        })
        .collect()
}

/// Checks the signatures of a checkpoint: the log's must be there and hold, and so must each line
/// of a key that was given.
///
/// # Errors
/// [`CheckError::Document`], [`CheckError::UnknownLog`], [`CheckError::Signature`].
pub fn signatures(note: &[u8], keys: &[Verifier]) -> Result<(Checkpoint, Signatures), CheckError> {
    let document = |e: &dyn std::error::Error| CheckError::Document { what: words(e) };
    let signature = |e: &dyn std::error::Error| CheckError::Signature { what: words(e) };
    let parsed = Note::parse(note).map_err(|e| document(&e))?;
    let claimed = Checkpoint::parse(parsed.text().as_bytes()).map_err(|e| document(&e))?;
    // A log that changed its key has several; the note names the one that signed it.
    let named = |key: &&Verifier| {
        let mut lines = parsed.signatures().iter();
        key.name() == claimed.origin()
            && key.kind() == KeyKind::Note
            && lines.any(|line| line.name() == key.name() && line.id() == key.id())
    };
    let log = match keys.iter().find(named) {
        Some(log) => log,
        None => log_key(claimed.origin(), keys)?,
    };
    let checkpoint = ledger::checkpoint::open(note, log).map_err(|e| signature(&e))?;
    let signed = parsed.verify(keys).map_err(|e| signature(&e))?;
    let mut holding: Vec<SignerLine> = signed
        .iter()
        .map(|signed| SignerLine {
            name: signed.verifier.name().to_owned(),
            role: role(signed.verifier, checkpoint.origin()),
            time_secs: signed.time_secs,
        })
        .collect();
    holding.sort_by_key(|line| line.role != "log");
    let unknown = parsed
        .signatures()
        .iter()
        .filter(|line| {
            !keys
                .iter()
                .any(|key| key.name() == line.name() && key.id() == line.id())
        })
        .map(|line| line.name().to_owned())
        .collect();
    Ok((checkpoint, Signatures { holding, unknown }))
}

/// The log's key among those given.
pub(crate) fn log_key<'a>(origin: &str, keys: &'a [Verifier]) -> Result<&'a Verifier, CheckError> {
    keys.iter()
        .find(|key| key.name() == origin && key.kind() == KeyKind::Note)
        .ok_or_else(|| CheckError::UnknownLog {
            origin: origin.to_owned(),
        })
}

fn role(key: &Verifier, origin: &str) -> &'static str {
    match key.kind() {
        KeyKind::Note if key.name() == origin => "log",
        KeyKind::Cosignature if key.name().ends_with("/witness") => "witness",
        KeyKind::Cosignature if key.name().ends_with("/held") => "held",
        _ => "cosigner",
    }
}

/// Checks a document of any of the three kinds, told apart by its first bytes.
///
/// # Errors
/// [`CheckError`]; nothing of the document is to be believed then.
pub fn document(
    bytes: &[u8],
    keys: &[Verifier],
    entry: Option<&[u8]>,
) -> Result<Checked, CheckError> {
    if bytes.starts_with(b"c2sp.org/tlog-proof@") {
        proof(bytes, keys, entry)
    } else if bytes.trim_ascii_start().starts_with(b"{") {
        let (checkpoint, signatures, shown) = disclosure::check(bytes, keys)?;
        let index = shown.index;
        if entry.is_some_and(|entry| hex(&leaf_hash(entry)) != shown.leaf) {
            return Err(CheckError::OtherEntry);
        }
        Ok(Checked {
            what: "disclosure",
            index: Some(index),
            entry_given: Some(true),
            shown: Some(shown),
            ..of(&checkpoint, signatures)
        })
    } else {
        let (checkpoint, signatures) = signatures(bytes, keys)?;
        Ok(of(&checkpoint, signatures))
    }
}

fn of(checkpoint: &Checkpoint, signatures: Signatures) -> Checked {
    Checked {
        what: "checkpoint",
        origin: checkpoint.origin().to_owned(),
        size: checkpoint.size(),
        root: hex(checkpoint.root()),
        index: None,
        entry_given: None,
        signatures,
        shown: None,
    }
}

fn proof(bytes: &[u8], keys: &[Verifier], entry: Option<&[u8]>) -> Result<Checked, CheckError> {
    let proof = TlogProof::parse(bytes).map_err(|e| CheckError::Document { what: words(&e) })?;
    let (claimed, signatures) = signatures(proof.note(), keys)?;
    // The extra data is signed by nobody; it counts only because the path below is checked with it.
    let named = <[u8; 32]>::try_from(proof.extra()).ok();
    let leaf = match (entry.map(leaf_hash), named) {
        (Some(leaf), Some(named)) if leaf != named => return Err(CheckError::OtherEntry),
        (Some(leaf), _) | (None, Some(leaf)) => leaf,
        (None, None) => return Err(CheckError::NoEntry),
    };
    let log = log_key(claimed.origin(), keys)?;
    let checkpoint = proof
        .verify(&leaf, log)
        .map_err(|e| CheckError::Proof { what: words(&e) })?;
    Ok(Checked {
        what: "proof",
        index: Some(proof.index()),
        entry_given: Some(entry.is_some()),
        ..of(&checkpoint, signatures)
    })
}
