//! History and proofs over opaque leaves: RFC 6962 trees, C2SP notes, checkpoints, tiles and cosignatures.
//!
//! Owns the bytes that outsiders verify with tools that nobody here wrote; the page
//! `docs/formats/ledger.md` shows them.
//! Refuses to know what a leaf means. It is pure: no files, sockets, clock or randomness.
//!
//! In reading order:
//! - [`hash`]: leaves, nodes, roots;
//! - [`frontier`]: what one keeps of a tree in order to append to it and to verify it;
//! - [`note`]: signed texts and the keys that sign them;
//! - [`checkpoint`]: the signed head of a log, and witnesses' cosignatures;
//! - [`tile`]: the stored form of the tree, and what an append writes;
//! - [`levels`]: a whole tree at the levels of its tiles;
//! - [`proof`]: that a leaf is in a tree, that one tree extends another;
//! - [`verify`]: that a log only grew, before anything of it is stored or cosigned;
//! - [`evidence`]: that a log signed two histories.
//!
//! A log appends and signs; its parent verifies and cosigns; a stranger checks one leaf:
//!
//! ```
//! use ledger::checkpoint::{self, Checkpoint};
//! use ledger::frontier::Frontier;
//! use ledger::hash::leaf_hash;
//! use ledger::note::{KeyKind, NoteSigner};
//! use ledger::proof::{self, TlogProof};
//! use ledger::tile::{TreeEdge, plan_append};
//! use ledger::verify;
//! use std::collections::BTreeMap;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let origin = "example.org/riverside/unit";
//! let log = NoteSigner::from_seed(origin, &[1; 32])?;
//! let parent = NoteSigner::from_seed("example.org/district", &[2; 32])?;
//!
//! // The log plans the append, stores the tiles, then signs what it stored.
//! let leaves = [leaf_hash(b"first entry"), leaf_hash(b"second entry")];
//! let (edge, writes) = plan_append(&TreeEdge::new(), &leaves);
//! let tiles: BTreeMap<_, _> = writes
//!     .into_iter()
//!     .map(|write| ((write.level, write.index), write.bytes))
//!     .collect();
//! let note = Checkpoint::new(origin, edge.size(), edge.frontier().root())?.sign(&log)?;
//!
//! // The parent holds a frontier, here of nothing, and cosigns only what extends it.
//! let log_key = log.verifier(KeyKind::Note);
//! let verified = verify::extension(&Frontier::new(), &leaves, note.as_bytes(), &log_key, origin)?;
//! let line = verified.cosign(&parent, 1_767_225_600)?;
//! let note = checkpoint::add_signature_line(note.as_bytes(), line.as_bytes())?;
//!
//! // A stranger checks the second entry offline, with the two public keys alone.
//! let hashes = proof::inclusion(&tiles, 1, edge.size())?;
//! let text = TlogProof::new(Vec::new(), 1, hashes, note.as_bytes())?.encode();
//! let received = TlogProof::parse(text.as_bytes())?;
//! assert_eq!(received.verify(&leaf_hash(b"second entry"), &log_key)?.size(), 2);
//! let parent_key = parent.verifier(KeyKind::Cosignature);
//! assert_eq!(checkpoint::verify_cosignature(received.note(), &parent_key)?, 1_767_225_600);
//! # Ok(())
//! # }
//! ```

pub mod hash;

mod format;

pub mod frontier;

pub mod note;

pub mod checkpoint;

pub mod levels;
pub mod tile;

pub mod proof;

pub mod verify;
pub mod witness;

pub mod evidence;

pub use hash::Hash;
