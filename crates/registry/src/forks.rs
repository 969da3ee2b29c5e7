//! Forks (分叉): two signed histories of one ledger are found, kept as evidence, and spread.
//!
//! Heads that were seen are told to every neighbour, the newest of each ledger in turn; two of one
//! size with different roots are evidence, which convinces a stranger and goes on to everybody at once.
//! Heads of different sizes that cannot belong together are an alarm, not evidence.

use ledger::Hash;
use ledger::checkpoint::Checkpoint;
use ledger::note::Note;
use ledger::tile::TreeEdge;
use record::authority::Charter;
use record::id::{Origin, UnixMillis};

use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::heads::Looked;
use crate::moves::Which;
use crate::node::Registry;
use crate::table::{self, Head, Tiles};

/// The code of an alarm that carries evidence.
pub(crate) const FORK: &str = "fork";

impl Registry {
    /// Whether a head contradicts what is known here, if its ledger's owner signed it.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn contradicts(&self, origin: &Origin, checkpoint: &Checkpoint) -> Result<bool> {
        let (size, root) = (checkpoint.size(), checkpoint.root());
        for known in self.notes_of_size(origin, size)? {
            if checkpoint_of(&known)?.root() != root {
                return Ok(true);
            }
        }
        self.is_foreign(origin, size, root)
    }

    /// Whether the history held here had another root at that size; not, when it is shorter.
    fn is_foreign(&self, origin: &Origin, size: u64, root: &Hash) -> Result<bool> {
        let head = Head::read(self.store.as_ref(), origin)?;
        if size > head.size || size == 0 {
            return Ok(false);
        }
        let tiles = Tiles {
            store: self.store.as_ref(),
            origin,
        };
        let edge = TreeEdge::load(&tiles, size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        Ok(edge.frontier().root() != *root)
    }

    /// Compares a head that a peer saw, and that the ledger's owner signed, with what was seen here.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn head_seen(
        &self,
        origin: &Origin,
        checkpoint: &Checkpoint,
        note: &str,
        now: UnixMillis,
    ) -> Result<()> {
        let (size, root) = (checkpoint.size(), checkpoint.root());
        for known in self.notes_of_size(origin, size)? {
            if checkpoint_of(&known)?.root() != root {
                self.fork(origin, vec![known, note.to_owned()], now);
                return Ok(());
            }
        }
        if self.is_foreign(origin, size, root)? {
            self.alarm(
                origin,
                "mismatch",
                "邻近节点见到的账头不属于此处收存的历史 / a head that a neighbour saw does not belong to the history held here",
                vec![note.to_owned()],
                now,
            );
        }
        Ok(())
    }

    /// Keeps two signed checkpoints of one size and different roots.
    pub fn fork(&self, origin: &Origin, notes: Vec<String>, now: UnixMillis) {
        let words = "账本有两个不同的签名账头 / the ledger's owner signed two histories";
        self.alarm(origin, FORK, words, notes, now);
        self.changed();
    }

    /// Every signed checkpoint of a size that is known here.
    fn notes_of_size(&self, origin: &Origin, size: u64) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if let Some(bytes) = self.store.get(&table::note(origin, size))? {
            notes.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        let head = Head::read(self.store.as_ref(), origin)?;
        for note in head.whole.into_iter().chain(self.witness_note(origin)?) {
            if checkpoint_of(&note)?.size() == size {
                notes.push(note);
            }
        }
        Ok(notes)
    }

    /// Evidence of any ledger, for every peer.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn evidence_to_tell(&self) -> Result<Vec<(Origin, Vec<String>)>> {
        let mut evidence = Vec::new();
        for alarm in self.alarms()? {
            if alarm.code == FORK && alarm.notes.len() == 2 {
                evidence.push((alarm.origin, alarm.notes));
            }
        }
        Ok(evidence)
    }

    /// A number that moves whenever there may be more evidence.
    pub fn alarms_raised(&self) -> u64 {
        self.counters.alarms()
    }

    /// What a peer is told: evidence of any ledger, and the newest head seen of ledgers that are
    /// neither its own nor exchanged with it anyway, as far as they moved since the caller looked.
    /// Ledgers of grants and of letters are nobody else's business.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn heads_to_tell(
        &self,
        peer: &Charter,
        looked: &mut Looked,
    ) -> Result<Vec<(Origin, Vec<String>)>> {
        let mut told = self.evidence_to_tell()?;
        let evident: Vec<Origin> = told.iter().map(|(origin, _)| origin.clone()).collect();
        let mut known = Vec::new();
        for (origin, note) in self.witness_notes()? {
            known.push((origin, bare(&note)?));
        }
        for line in self.heads_moved(Which::Any, looked)? {
            if line.division != self.config.division
                && let Some(note) = &line.bare
            {
                known.push((line.origin.clone(), note.clone()));
            }
        }
        for (origin, note) in known {
            let of_two = origin.grant_id().is_some() || origin.addressee().is_some();
            if of_two || origin.division() == peer.division || evident.contains(&origin) {
                continue;
            }
            told.push((origin, vec![note]));
        }
        Ok(told)
    }
}

/// A note with its log's signature only: cosignatures come and go, and say nothing here.
pub(crate) fn bare(note: &str) -> Result<String> {
    let note = Note::parse(note.as_bytes()).map_err(|e| RegistryError::damaged(e.to_string()))?;
    let origin = note.text().lines().next().unwrap_or_default().to_owned();
    let mine = format!("\u{2014} {origin} ");
    let encoded = note.encode();
    let line = encoded
        .lines()
        .find(|line| line.starts_with(&mine))
        .unwrap_or_default();
    Ok(format!("{}\n{line}\n", note.text()))
}
