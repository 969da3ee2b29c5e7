//! What arrived (到达): verified chunks of one ledger that follow one another, kept as one commit.
//!
//! Owns how several deliveries are looked at as one, and the signing of a head in the commit that
//! makes it whole: the cosignatures are durable together with what they speak of, and one wait for
//! the disk serves both. Refuses deliveries that do not follow one another.

use ledger::checkpoint::{Checkpoint, add_signature_line};
use ledger::note::KeyKind;
use ledger::verify::Verified;
use record::entry::Entry;
use record::id::{Hash, Origin, UnixMillis};
use sync::chunk::Delivery;
use sync::message::Item;
use sync::trust::Held;

use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::Registry;
use crate::replicate::{cosigner, own_line};
use crate::table;

/// The roles in which a node cosigns a head that it holds whole.
const ROLES: [&str; 2] = ["witness", "held"];

/// At least one delivery, each going on from the one before.
#[derive(Debug)]
pub(crate) struct Arrived {
    deliveries: Vec<Delivery>,
    last: usize,
}

impl Arrived {
    pub(crate) fn new(deliveries: Vec<Delivery>) -> Result<Self> {
        let follows = |pair: &[Delivery]| {
            let [one, next] = pair else { return true };
            one.origin() == next.origin() && one.held().frontier.size() == next.first()
        };
        let last = deliveries.len().checked_sub(1);
        match last {
            Some(last) if deliveries.windows(2).all(follows) => Ok(Self { deliveries, last }),
            _ => Err(RegistryError::BadRequest(
                "the deliveries do not follow one another; keep them one by one".into(),
            )),
        }
    }

    fn last(&self) -> &Delivery {
        &self.deliveries[self.last]
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.last().origin()
    }

    pub(crate) fn first(&self) -> u64 {
        self.deliveries.first().map_or(0, Delivery::first)
    }

    /// What is held with the last of them.
    pub(crate) fn held(&self) -> &Held {
        self.last().held()
    }

    /// Whether the last of them reaches the signed head.
    pub(crate) fn is_complete(&self) -> bool {
        self.last().is_complete()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.deliveries.iter().flat_map(Delivery::entries)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> + Clone {
        self.deliveries.iter().flat_map(Delivery::items)
    }

    pub(crate) fn leaf_hashes(&self) -> Vec<Hash> {
        let hashes = self.deliveries.iter().flat_map(Delivery::leaf_hashes);
        hashes.copied().collect()
    }

    /// The notes of the heads that they reach, oldest first, with what this node may cosign.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = (&Held, Option<&Verified>)> {
        let reach = self.deliveries.iter().filter(|d| d.is_complete());
        reach.map(|delivery| (delivery.held(), delivery.verified()))
    }

    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> {
        self.deliveries.into_iter().flat_map(Delivery::into_items)
    }
}

impl Registry {
    /// The note of a head that is about to be whole here, with this node's cosignatures; `None`
    /// when it has to be whole before it can be signed, or the keys are locked. The caller holds the
    /// ledger's place in `witnessing` until the note is durable.
    pub(crate) fn cosigned_note(
        &self,
        origin: &Origin,
        verified: &Verified,
        held: u64,
        now: UnixMillis,
    ) -> Result<Option<String>> {
        let alone = self.witness_note(origin)?;
        let alone = alone.as_deref().map(checkpoint_of).transpose()?;
        if alone.is_some_and(|alone| alone.size() > held) {
            return Ok(None);
        }
        let size = verified.checkpoint().size();
        let mut note = String::from_utf8_lossy(verified.note()).into_owned();
        if !self.goes_on_from_witnessed(origin, size, &note, now)? {
            return Ok(None);
        }
        let Ok(keys) = self.keys.unlocked() else {
            return Ok(None);
        };
        for (role, key) in ROLES.into_iter().zip([&keys.witness, &keys.held]) {
            let signer = cosigner(&self.config.realm, &self.config.division, role, key)?;
            if own_line(&note, &signer.verifier(KeyKind::Cosignature)).is_some() {
                continue;
            }
            let line = verified
                .cosign(&signer, now.secs())
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
            note = add_signature_line(note.as_bytes(), line.as_bytes())
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
        }
        Ok(Some(note))
    }

    /// The cosignatures that were made with the commit that made a head whole.
    pub(crate) fn lines_made(
        &self,
        origin: &Origin,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Vec<String>>> {
        let Some(bytes) = self.store.get(&table::note(origin, checkpoint.size()))? else {
            return Ok(None);
        };
        let note = String::from_utf8_lossy(&bytes).into_owned();
        if checkpoint_of(&note)?.root() != checkpoint.root() {
            return Ok(None);
        }
        let keys = self.keys.unlocked()?;
        let mut lines = Vec::new();
        for (role, key) in ROLES.into_iter().zip([&keys.witness, &keys.held]) {
            let signer = cosigner(&self.config.realm, &self.config.division, role, key)?;
            match own_line(&note, &signer.verifier(KeyKind::Cosignature)) {
                Some(line) => lines.push(line),
                None => return Ok(None),
            }
        }
        Ok(Some(lines))
    }
}
