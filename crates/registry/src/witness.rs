//! Witnessing (见证) over HTTP, as C2SP tlog-witness has it: a node cosigns the checkpoints of
//! other nodes of its realm, also of ledgers that it does not hold.
//!
//! A witness never cosigns two histories: what it cosigned last of each ledger, here or as a
//! parent over replication, is on disk before the cosignature is given away.

use ledger::checkpoint::{Checkpoint, cosign, verify_cosignature};
use ledger::note::{Note, Verifier};
use ledger::witness::{AddCheckpoint, Refusal};
use record::id::{DivisionId, Hash, Origin, UnixMillis};
use store::Batch;

use crate::config::WitnessAddress;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock};
use crate::replicate::cosigner;
use crate::table::{self, Head, LOCAL, Tiles};

/// The most ledgers that a node witnesses over HTTP.
const LEDGERS_MAX: usize = 100_000;

/// What became of a request to cosign.
#[derive(Debug)]
pub enum Witnessed {
    /// The cosignature's line.
    Cosigned(String),
    /// Refused as C2SP says, with a status.
    Refused(Refusal),
    /// 400: no request.
    Malformed,
    /// 404: no ledger that this node witnesses.
    Unknown,
}

impl Registry {
    /// Answers `add-checkpoint`.
    ///
    /// # Errors
    /// A failure of the store; then nothing was signed.
    pub fn add_checkpoint(&self, body: &[u8], now: UnixMillis) -> Result<Witnessed> {
        let Ok(request) = AddCheckpoint::parse(body) else {
            return Ok(Witnessed::Malformed);
        };
        let claimed = Note::parse(request.note.as_bytes())
            .ok()
            .and_then(|note| Checkpoint::parse(note.text().as_bytes()).ok())
            .and_then(|checkpoint| Origin::parse(checkpoint.origin()).ok());
        let Some(origin) = claimed else {
            return Ok(Witnessed::Malformed);
        };
        if origin.division() == self.config.division {
            return Ok(Witnessed::Unknown);
        }
        let Ok(log) = self.standing_log(&origin, &request.note) else {
            return Ok(Witnessed::Unknown);
        };
        // Check, persist and sign are one step: two requests at once never both pass the check.
        let _one = self.witnessing.of(&origin);
        let latest = self.latest_witnessed(&origin)?;
        let checkpoint = match request.decide(latest.as_ref().map(|l| (l.size(), *l.root())), &log)
        {
            Ok(checkpoint) => checkpoint,
            Err(refusal) => {
                if let Refusal::Fork { .. } = &refusal {
                    self.two_histories(&origin, &request.note, now)?;
                }
                return Ok(Witnessed::Refused(refusal));
            }
        };
        if latest.is_none_or(|latest| latest.size() < checkpoint.size()) {
            let mut batch = Batch::new(LOCAL, None);
            batch.put(witness_key(&origin), request.note.clone().into_bytes());
            self.store
                .commit(&batch)
                .map_err(|e| RegistryError::Store(e.to_string()))?;
        }
        let signer = cosigner(
            &self.config.realm,
            &self.config.division,
            "witness",
            &self.keys.unlocked()?.witness,
        )?;
        let line = cosign(request.note.as_bytes(), &signer, now.secs())
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
        Ok(Witnessed::Cosigned(line))
    }

    /// The newest checkpoint that this node cosigned, or holds whole, of a ledger.
    fn latest_witnessed(&self, origin: &Origin) -> Result<Option<Checkpoint>> {
        let held = Head::read(self.store.as_ref(), origin)?.whole;
        let alone = self.witness_note(origin)?;
        let newest = [held, alone]
            .into_iter()
            .flatten()
            .map(|note| checkpoint_of(&note));
        let newest: Vec<Checkpoint> = newest.collect::<Result<_>>()?;
        Ok(newest.into_iter().max_by_key(Checkpoint::size))
    }

    /// The newest checkpoint cosigned over HTTP of every ledger, with its origin.
    pub(crate) fn witness_notes(&self) -> Result<Vec<(Origin, String)>> {
        let rows = self.store.scan(LOCAL, table::WITNESS, b"", LEDGERS_MAX)?;
        let mut notes = Vec::new();
        for (_, bytes) in rows {
            let note = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(origin) = Origin::parse(checkpoint_of(&note)?.origin()) {
                notes.push((origin, note));
            }
        }
        Ok(notes)
    }

    pub(crate) fn witness_note(&self, origin: &Origin) -> Result<Option<String>> {
        let bytes = self.store.get(&witness_key(origin))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a head that is held whole goes on from what was cosigned over HTTP.
    pub(crate) fn goes_on_from_witnessed(
        &self,
        origin: &Origin,
        size: u64,
        note: &str,
        now: UnixMillis,
    ) -> Result<bool> {
        let Some(alone) = self.witness_note(origin)? else {
            return Ok(true);
        };
        let alone = checkpoint_of(&alone)?;
        if alone.size() > size {
            return Ok(false);
        }
        let tiles = Tiles {
            store: self.store.as_ref(),
            origin,
        };
        let edge = ledger::tile::TreeEdge::load(&tiles, alone.size())
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        if edge.frontier().root() == *alone.root() {
            return Ok(true);
        }
        self.two_histories(origin, note, now)?;
        Ok(false)
    }

    /// Compares a head that its owner asks to have cosigned with what was seen before.
    fn two_histories(&self, origin: &Origin, note: &str, now: UnixMillis) -> Result<()> {
        self.head_seen(origin, &checkpoint_of(note)?, note, now)
    }

    /// The request to a witness for the newest checkpoint of an own ledger, unless it has cosigned
    /// that already. `old_size` is what the witness cosigned last, 0 when that is not known.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn witness_request(
        &self,
        origin: &Origin,
        witness: &DivisionId,
        old_size: u64,
    ) -> Result<Option<(u64, String)>> {
        let head = Head::read(self.store.as_ref(), origin)?;
        let Some(note) = head.whole else {
            return Ok(None);
        };
        let verifier = self.witness_verifier(witness)?;
        if verify_cosignature(note.as_bytes(), &verifier).is_ok() || old_size > head.size {
            return Ok(None);
        }
        let tiles = Tiles {
            store: self.store.as_ref(),
            origin,
        };
        let proof = ledger::proof::consistency(&tiles, old_size, head.size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        Ok(Some((
            head.size,
            AddCheckpoint {
                old_size,
                proof,
                note,
            }
            .encode(),
        )))
    }

    fn witness_verifier(&self, witness: &DivisionId) -> Result<Verifier> {
        let verifier = self.authority().witness(witness);
        verifier.ok_or_else(|| RegistryError::NoCharter(witness.clone()))
    }

    /// Keeps a witness's answer, if it is that witness's signature on this head.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when the line does not hold.
    pub fn witnessed(
        &self,
        origin: &Origin,
        witness: &DivisionId,
        size: u64,
        line: &str,
        now: UnixMillis,
    ) -> Result<()> {
        let note = {
            let book = self.book(origin)?;
            let book = lock(&book);
            book.checkpoint_at(self.store.as_ref(), size, &self.keys.unlocked()?.sign)?
        };
        let line = format!("{}\n", line.trim_end_matches('\n'));
        let merged = ledger::checkpoint::add_signature_line(note.as_bytes(), line.as_bytes())
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        let verifier = self.witness_verifier(witness)?;
        verify_cosignature(merged.as_bytes(), &verifier).map_err(|e| {
            RegistryError::BadRequest(format!(
                "the answer of witness `{witness}` does not hold: {e}"
            ))
        })?;
        self.cosigned(origin, size, &[line], now)
    }

    /// The witnesses beside the parent that this node asks.
    pub fn witness_addresses(&self) -> &[WitnessAddress] {
        &self.config.witnesses
    }

    /// The origins of this node's own ledgers.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn own_ledgers(&self) -> Result<Vec<Origin>> {
        let shards = self.store.shards()?;
        let origins = shards.iter().filter_map(|shard| Origin::parse(shard).ok());
        Ok(origins
            .filter(|origin| origin.division() == self.config.division)
            .collect())
    }
}

fn witness_key(origin: &Origin) -> store::Key {
    let name: Hash = {
        use sha2::{Digest, Sha256};
        Sha256::digest(origin.as_str()).into()
    };
    table::local(table::WITNESS, &name)
}
