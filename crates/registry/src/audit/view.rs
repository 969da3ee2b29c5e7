//! A node's directory as an auditor sees it: segments, charters, public keys.
//!
//! Owns which checkpoint of a ledger is shown, and whose keys count on it. Needs neither lock nor
//! index nor secret, so the node may run meanwhile; what it commits later is not seen.
//! Refuses to open a cell: there is no key here to do so.

use std::path::Path;

use ledger::checkpoint::Checkpoint;
use ledger::note::{KeyKind, Note, Verifier};
use ledger::tile::{ReadError, TileReader};
use record::authority::Charter;
use record::entry::Entry;
use record::id::{DivisionId, Origin};
use store::{Snapshot, Store};

use crate::authority::Authority;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::replicate::log_verifier;
use crate::table::{self, Head, Tiles};

/// What the segments of a directory say, read once.
pub struct View {
    config: NodeConfig,
    snapshot: Snapshot,
    authority: Authority,
}

/// The checkpoint of a ledger that others are shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The signed note.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Whether it has its quorum of cosignatures; otherwise there is only the log's own word.
    pub cosigned: bool,
}

impl View {
    /// Reads a directory. Changes nothing; a running node is not disturbed.
    ///
    /// # Errors
    /// When there is no node, or its files cannot be read at all.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = NodeConfig::read(dir)?;
        let snapshot = Snapshot::open(dir)?;
        let authority = Authority::load(&snapshot, &config)?;
        Ok(Self {
            config,
            snapshot,
            authority,
        })
    }

    /// Who the node is.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Who is who, as the authority ledgers held here say.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Every ledger that is held here, own or replicated, by name.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn origins(&self) -> Result<Vec<Origin>> {
        let shards = self.snapshot.shards()?;
        Ok(shards
            .iter()
            .filter_map(|shard| Origin::parse(shard).ok())
            .collect())
    }

    pub(crate) fn store(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn head(&self, origin: &Origin) -> Result<Head> {
        Head::read(&self.snapshot, origin)
    }

    pub(crate) fn tiles<'a>(&'a self, origin: &'a Origin) -> Tiles<'a> {
        Tiles {
            store: &self.snapshot,
            origin,
        }
    }

    /// One entry's bytes.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the ledger here is shorter.
    pub fn entry(&self, origin: &Origin, index: u64) -> Result<Vec<u8>> {
        self.snapshot
            .get(&table::entry(origin, index))?
            .ok_or_else(|| RegistryError::NotFound {
                what: "条目 / entry",
                name: format!("{index} of {origin}"),
                next: "see the ledger's size with `fangzhi verify`",
            })
    }

    /// The verifier of a ledger's checkpoints: its log's key under the ledger's own name; of the
    /// charter that signed `note`, else of the newest.
    ///
    /// # Errors
    /// [`RegistryError::NoCharter`].
    pub fn log(&self, origin: &Origin, note: Option<&str>) -> Result<Verifier> {
        let charter = self
            .authority
            .signer_of(origin, note.unwrap_or_default())
            .ok_or_else(|| RegistryError::NoCharter(origin.division()))?;
        log_verifier(origin, &charter.keys.sign)
    }

    /// Every key that a ledger's log ever had, with the charter that it began under, the newest first.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] when a charter's key is none.
    pub fn log_keys(&self, origin: &Origin) -> Result<Vec<(Charter, Verifier)>> {
        let ever = self.authority.charters_ever(&origin.division());
        let mut keys: Vec<(Charter, Verifier)> = Vec::new();
        for charter in ever {
            // A charter that was issued anew for the same keys begins nothing.
            if keys
                .iter()
                .all(|(known, _)| known.keys.sign != charter.keys.sign)
            {
                let log = log_verifier(origin, &charter.keys.sign)?;
                keys.push((charter.clone(), log));
            }
        }
        keys.reverse();
        Ok(keys)
    }

    /// Everybody whose signature on a ledger's checkpoint is known: the log first, with the keys that
    /// it had before, then `witness` and `held` of every node above it, and of whoever else signed `note`.
    ///
    /// With a note, keys of charters that were replaced since are among them.
    ///
    /// # Errors
    /// [`RegistryError::NoCharter`].
    pub fn signers(&self, origin: &Origin, note: Option<&str>) -> Result<Vec<Verifier>> {
        let owner = origin.division();
        let above = self.authority.ancestors(&owner);
        let signed: Vec<String> = note
            .and_then(|note| Note::parse(note.as_bytes()).ok())
            .map(|note| {
                note.signatures()
                    .iter()
                    .map(|l| l.name().to_owned())
                    .collect()
            })
            .unwrap_or_default();
        let mut signers = vec![self.log(origin, note)?];
        for (_, earlier) in self.log_keys(origin)? {
            if !signers.contains(&earlier) {
                signers.push(earlier);
            }
        }
        let mut others: Vec<(usize, Verifier)> = Vec::new();
        let mut charters: Vec<_> = self.authority.charters().collect();
        if note.is_some() {
            // What a key signed that was replaced since stays signed.
            let divisions: Vec<_> = charters.iter().map(|c| c.division.clone()).collect();
            charters.clear();
            for division in &divisions {
                charters.extend(self.authority.charters_ever(division).iter().rev());
            }
        }
        for charter in charters.into_iter().filter(|c| c.division != owner) {
            let depth = above.iter().position(|d| *d == charter.division);
            for (role, key) in [
                ("witness", &charter.keys.witness),
                ("held", &charter.keys.held),
            ] {
                let name = cosigner_name(charter.realm.as_str(), &charter.division, role);
                if depth.is_none() && !signed.contains(&name) {
                    continue;
                }
                let verifier = Verifier::new(&name, KeyKind::Cosignature, key)
                    .map_err(|e| RegistryError::damaged(e.to_string()))?;
                others.push((depth.unwrap_or(usize::MAX), verifier));
            }
        }
        others.sort_by_key(|(depth, _)| *depth);
        signers.extend(others.into_iter().map(|(_, verifier)| verifier));
        Ok(signers)
    }

    /// How many witnesses' cosignatures a note has that hold; `held` is not a witness.
    pub(crate) fn witnessed(&self, origin: &Origin, note: &str) -> usize {
        let Ok(mut signers) = self.signers(origin, Some(note)) else {
            return 0;
        };
        signers.retain(|s| s.name().ends_with("/witness"));
        let held = Note::parse(note.as_bytes()).ok().and_then(|note| {
            let signed = note.verify(&signers).ok()?;
            // By name: a witness that got other keys since is one witness.
            let names: std::collections::BTreeSet<_> =
                signed.iter().map(|line| line.verifier.name()).collect();
            Some(names.len())
        });
        held.unwrap_or(0)
    }

    /// Whether nobody is above the ledger's owner, so that no cosignature is due.
    pub(crate) fn is_root(&self, origin: &Origin) -> bool {
        self.authority
            .charter(&origin.division())
            .is_some_and(|charter| charter.parent == charter.division)
    }

    /// The newest checkpoint with its quorum of cosignatures, else the newest signed one.
    ///
    /// # Errors
    /// When the head cannot be read.
    pub fn shown(&self, origin: &Origin) -> Result<Option<Shown>> {
        let head = self.head(origin)?;
        let quorum = if self.is_root(origin) {
            0
        } else {
            self.config.quorum as usize
        };
        let (note, cosigned) = match (head.whole, head.cosigned) {
            (Some(whole), _) if self.witnessed(origin, &whole) >= quorum => (whole, true),
            (_, Some(cosigned)) => (cosigned, true),
            (Some(whole), None) => (whole, false),
            (None, None) => return Ok(None),
        };
        let checkpoint = checkpoint_of(&note)?;
        Ok(Some(Shown {
            note,
            checkpoint,
            cosigned,
        }))
    }

    /// Goes through the entries of a ledger in order.
    pub(crate) fn walk(
        &self,
        origin: &Origin,
        visit: impl FnMut(u64, &[u8], Entry) -> Result<()>,
    ) -> Result<()> {
        crate::chain::each_entry(&self.snapshot, origin, visit)
    }
}

/// The tiles of a ledger that a directory holds.
pub struct LedgerTiles<'a> {
    view: &'a View,
    origin: &'a Origin,
}

impl<'a> LedgerTiles<'a> {
    /// The tiles of a ledger, own or replicated.
    pub fn new(view: &'a View, origin: &'a Origin) -> Self {
        Self { view, origin }
    }
}

impl TileReader for LedgerTiles<'_> {
    fn tile(&self, level: u8, index: u64) -> std::result::Result<Option<Vec<u8>>, ReadError> {
        self.view.tiles(self.origin).tile(level, index)
    }
}

/// The name under which a node cosigns.
pub(crate) fn cosigner_name(realm: &str, division: &DivisionId, role: &str) -> String {
    format!("{realm}/{division}/{role}")
}
