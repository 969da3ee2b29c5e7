//! Comparing two checkpoints of one ledger, the older first: does the later extend it?
//!
//! Owns the consistency proof out of tiles, and the search for evidence when there is none.
//! Refuses to call a missing proof evidence: evidence are two things that the log signed and that
//! cannot both be true.

use ledger::checkpoint::Checkpoint;
use ledger::evidence::{Evidence, Form};
use ledger::hash::Hash;
use ledger::note::Verifier;
use ledger::proof::{self, ProofError, TlogProof};
use ledger::tile::{ReadError, TILE_WIDTH, TileReader, TreeEdge};
use serde::Serialize;

use super::check::{CheckError, log_key, signatures};
use super::{hex, words};

/// How two checkpoints of one ledger stand to each other.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// One size, one root.
    Same,
    /// The larger extends the smaller: proven.
    Extends {
        /// Entries between them.
        entries: u64,
        /// The consistency proof, hexadecimal.
        proof: Vec<String>,
    },
    /// The second is shorter than the first, which extends it: what was there is not there any more.
    Shorter {
        /// Entries that are missing.
        entries: u64,
        /// The consistency proof from the second to the first, hexadecimal.
        proof: Vec<String>,
    },
    /// The log signed two histories, and the documents convince anybody.
    Evidence(EvidenceLine),
    /// The log signed both, and the larger rests on another beginning than the smaller states.
    /// The proof shows it; for evidence as two documents, the smaller one's tiles are needed.
    Contradiction {
        /// Root at the smaller size, under the larger checkpoint.
        root: String,
        /// Consistency proof from that root to the larger one.
        proof: Vec<String>,
    },
    /// There are no tiles that tell. A refusal, not evidence.
    Unproven {
        /// What is missing.
        what: String,
    },
}

/// Two signed statements that cannot both be true.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum EvidenceLine {
    /// One size, two roots.
    Roots {
        /// The signed notes.
        notes: Vec<String>,
    },
    /// One index, two leaves.
    Leaves {
        /// The index.
        index: u64,
        /// The leaf hashes, hexadecimal.
        leaves: Vec<String>,
        /// C2SP tlog-proofs of them.
        proofs: Vec<String>,
    },
}

/// Two checkpoints compared, the smaller first.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// Which ledger.
    pub origin: String,
    /// Sizes.
    pub sizes: [u64; 2],
    /// Roots, hexadecimal.
    pub roots: [String; 2],
    /// How they stand to each other.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Compared {
    /// Whether nothing speaks against the log.
    pub fn holds(&self) -> bool {
        matches!(self.outcome, Outcome::Same | Outcome::Extends { .. })
    }
}

/// One side: a signed checkpoint, and the tiles that came with it.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The signed note.
    pub note: &'a [u8],
    /// Tiles, if there are any.
    pub tiles: Option<&'a dyn TileReader>,
}

struct Any<'a>(&'a dyn TileReader);

impl TileReader for Any<'_> {
    fn tile(&self, level: u8, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.tile(level, index)
    }
}

/// Compares two checkpoints, the older one first. The log must have signed both, under one of the
/// keys.
///
/// # Errors
/// [`CheckError`] when a side is no checkpoint that the log signed, or they are of two logs.
pub fn compare(a: Side<'_>, b: Side<'_>, keys: &[Verifier]) -> Result<Compared, CheckError> {
    let (first, _) = signatures(a.note, keys)?;
    let (second, _) = signatures(b.note, keys)?;
    if first.origin() != second.origin() {
        return Err(CheckError::Document {
            what: format!(
                "the checkpoints are of two ledgers, `{}` and `{}`; compare those of one",
                first.origin(),
                second.origin()
            ),
        });
    }
    let log = log_key(first.origin(), keys)?;
    let shorter = second.size() < first.size();
    let (old, new) = if shorter {
        ((b, &second), (a, &first))
    } else {
        ((a, &first), (b, &second))
    };
    let outcome = if old.1.size() == new.1.size() {
        one_size(old, new, log)
    } else {
        two_sizes(old, new, log)
    };
    let outcome = match outcome {
        Outcome::Extends { entries, proof } if shorter => Outcome::Shorter { entries, proof },
        outcome => outcome,
    };
    Ok(Compared {
        origin: first.origin().to_owned(),
        sizes: [old.1.size(), new.1.size()],
        roots: [hex(old.1.root()), hex(new.1.root())],
        outcome,
    })
}

type Signed<'a> = (Side<'a>, &'a Checkpoint);

fn one_size(old: Signed<'_>, new: Signed<'_>, log: &Verifier) -> Outcome {
    if old.1.root() == new.1.root() {
        return Outcome::Same;
    }
    match Evidence::from_notes(old.0.note, new.0.note, log) {
        Ok(evidence) => Outcome::Evidence(line(&evidence)),
        // Both signatures were checked, and the roots differ: this does not happen.
        Err(error) => Outcome::Unproven {
            what: words(&error),
        },
    }
}

fn two_sizes(old: Signed<'_>, new: Signed<'_>, log: &Verifier) -> Outcome {
    let tiles = [new.0.tiles, old.0.tiles];
    let Some(under_new) = giving(tiles, new.1) else {
        return Outcome::Unproven {
            what: format!(
                "no tiles at hand give the root of the checkpoint of {}; fetch its tiles and compare again",
                new.1.size()
            ),
        };
    };
    let made = proof::consistency(&under_new, old.1.size(), new.1.size());
    let hashes = match made {
        Ok(hashes) => hashes,
        Err(error) => {
            return Outcome::Unproven {
                what: words(&error),
            };
        }
    };
    let check = |root: &Hash| {
        proof::verify_consistency(old.1.size(), root, new.1.size(), new.1.root(), &hashes)
    };
    match check(old.1.root()) {
        Ok(()) => Outcome::Extends {
            entries: new.1.size() - old.1.size(),
            proof: hashes.iter().map(|h| hex(h)).collect(),
        },
        Err(ProofError::Mismatch) => {
            let under_old = giving([old.0.tiles, new.0.tiles], old.1);
            if let Some(evidence) =
                under_old.and_then(|under_old| leaves(&under_old, &under_new, old, new, log))
            {
                return Outcome::Evidence(line(&evidence));
            }
            let root = TreeEdge::load(&under_new, old.1.size()).map(|e| e.frontier().root());
            match root {
                // Only a root that is itself proven to lie under the larger one contradicts.
                Ok(root) if check(&root).is_ok() => Outcome::Contradiction {
                    root: hex(&root),
                    proof: hashes.iter().map(|h| hex(h)).collect(),
                },
                _ => Outcome::Unproven {
                    what: "the tiles contradict themselves; fetch them again".into(),
                },
            }
        }
        Err(error) => Outcome::Unproven {
            what: words(&error),
        },
    }
}

/// The tiles that give a checkpoint's root.
fn giving<'a>(tiles: [Option<&'a dyn TileReader>; 2], checkpoint: &Checkpoint) -> Option<Any<'a>> {
    tiles.into_iter().flatten().map(Any).find(|tiles| {
        TreeEdge::load(tiles, checkpoint.size())
            .is_ok_and(|edge| edge.frontier().root() == *checkpoint.root())
    })
}

/// The first index at which two trees differ, proven in both.
fn leaves(
    under_old: &Any<'_>,
    under_new: &Any<'_>,
    old: Signed<'_>,
    new: Signed<'_>,
    log: &Verifier,
) -> Option<Evidence> {
    let width = TILE_WIDTH as u64;
    for tile in 0..old.1.size().div_ceil(width) {
        let mine = under_old.tile(0, tile).ok()??;
        let other = under_new.tile(0, tile).ok()??;
        let pairs = mine
            .as_chunks::<32>()
            .0
            .iter()
            .zip(other.as_chunks::<32>().0);
        for (at, (mine, other)) in (tile * width..old.1.size()).zip(pairs) {
            if mine == other {
                continue;
            }
            let prove = |tiles: &Any<'_>, side: Signed<'_>| {
                let hashes = proof::inclusion(tiles, at, side.1.size()).ok()?;
                TlogProof::new(Vec::new(), at, hashes, side.0.note).ok()
            };
            let first = (*mine, prove(under_old, old)?);
            let second = (*other, prove(under_new, new)?);
            return Evidence::from_proofs(first, second, log).ok();
        }
    }
    None
}

fn line(evidence: &Evidence) -> EvidenceLine {
    match evidence.form() {
        Form::Roots { notes } => EvidenceLine::Roots {
            notes: notes
                .iter()
                .map(|note| String::from_utf8_lossy(note).into_owned())
                .collect(),
        },
        Form::Leaves {
            leaf_hashes,
            proofs,
        } => EvidenceLine::Leaves {
            index: proofs[0].index(),
            leaves: leaf_hashes.iter().map(|h| hex(h)).collect(),
            proofs: proofs.iter().map(TlogProof::encode).collect(),
        },
    }
}

#[cfg(test)]
mod tests;
