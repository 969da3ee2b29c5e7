//! Appending to an own ledger: entries, bodies, act, tiles and checkpoint in one commit.
//!
//! This is the only place that signs a checkpoint. Every use case that writes ends here,
//! with one `store.commit`.

use ed25519_dalek::SigningKey;
use ledger::checkpoint::{Checkpoint, add_signature_line};
use ledger::frontier::Frontier;
use ledger::hash::{leaf_hash, root_of};
use ledger::note::NoteSigner;
use ledger::tile::{TreeEdge, plan_append};
use record::act::{ACT_ENTRIES_MAX, Act, Capacity};
use record::cbor;
use record::entry::{ENTRY_MAX, Entry, SUITE};
use record::id::{DivisionId, Hash, Origin, Purpose, UnixMillis};
use store::{Batch, CommitError, Store};
use sync::limits::BODY_BYTES_MAX;

use crate::chain;
use crate::error::{RegistryError, Result};
use crate::table::{self, Head, Tiles};

/// The end of an own ledger, kept in memory between commits.
pub struct Book {
    pub(crate) origin: Origin,
    /// The store's head version of the shard, for compare and swap.
    version: u64,
    edge: TreeEdge,
    pub(crate) head: Head,
}

/// One entry to append, and the body that lies beside it.
pub struct Leaf {
    /// The entry.
    pub entry: Entry,
    /// Its body; present exactly when the entry names a body hash.
    pub body: Option<Vec<u8>>,
}

/// Who signs an act.
pub struct Signer<'a> {
    /// In what capacity.
    pub capacity: Capacity,
    /// With what key; with the node's own when there is none.
    pub key: Option<&'a SigningKey>,
    /// Of which organization.
    pub organization: DivisionId,
    /// What for.
    pub purpose: Purpose,
    /// SHA-256 of the file that the entries came from.
    pub source: Option<Hash>,
}

/// What every append is stamped with.
pub(crate) struct Stamp<'a> {
    /// Signs the checkpoint.
    pub log_key: &'a SigningKey,
    /// Size and root of the authority ledger that the signer relies on.
    pub authority: (u64, Hash),
    /// When.
    pub now: UnixMillis,
}

/// What was appended.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Index of the first entry.
    pub first: u64,
    /// Leaf hash of each entry, the act's last.
    pub leaves: Vec<Hash>,
    /// The ledger's size after it.
    pub size: u64,
}

impl Book {
    /// Opens the end of a ledger in the store.
    pub(crate) fn open(store: &dyn Store, origin: &Origin) -> Result<Self> {
        let version = store.head(origin.as_str())?;
        let head = Head::read(store, origin)?;
        let edge = TreeEdge::load(&Tiles { store, origin }, head.size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        if edge.frontier().root() != head.root {
            return Err(RegistryError::damaged(format!(
                "`{origin}`: the tiles do not give the root of its head"
            )));
        }
        Ok(Self {
            origin: origin.clone(),
            version,
            edge,
            head,
        })
    }

    /// How many entries the ledger has.
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// The root over them.
    pub fn root(&self) -> Hash {
        self.head.root
    }

    /// Appends entries under one act; `extend` adds what the use case keeps beside them.
    /// Bodies that they order to be destroyed are destroyed with it.
    ///
    /// The one commit of the use case is in here.
    pub(crate) fn append(
        &mut self,
        store: &dyn Store,
        stamp: &Stamp<'_>,
        signer: &Signer<'_>,
        leaves: Vec<Leaf>,
        extend: impl FnOnce(&mut Batch, u64, &[Hash]),
    ) -> Result<Appended> {
        let count = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        if count == 0 || count > ACT_ENTRIES_MAX {
            return Err(RegistryError::BadRequest(format!(
                "an act signs 1 to {ACT_ENTRIES_MAX} entries, not {count}; split the request"
            )));
        }
        let first = self.head.size;
        let mut batch = Batch::new(self.origin.as_str(), Some(self.version));
        let entries: Vec<&Entry> = leaves.iter().map(|leaf| &leaf.entry).collect();
        let destroyed = chain::destroyed(store, &self.origin, first, &entries)?;
        chain::extend(&mut batch, &self.origin, first, entries.into_iter());
        destroyed.write(&mut batch, &self.origin);
        let mut hashes = Vec::with_capacity(leaves.len() + 1);
        for (at, leaf) in (first..).zip(leaves) {
            let bytes = leaf.entry.encode();
            within("entry", bytes.len(), ENTRY_MAX)?;
            within(
                "body",
                leaf.body.as_ref().map_or(0, Vec::len),
                BODY_BYTES_MAX,
            )?;
            hashes.push(leaf_hash(&bytes));
            batch.put(table::entry(&self.origin, at), bytes);
            if let Some(body) = leaf.body.filter(|_| !destroyed.arriving.contains(&at)) {
                batch.put_body(table::body(&self.origin, at), body);
            }
        }
        let act = Act {
            suite: SUITE,
            capacity: signer.capacity,
            key: [0; 32],
            organization: signer.organization.clone(),
            purpose: signer.purpose.clone(),
            source: signer.source,
            first,
            count,
            root: root_of(&hashes),
            previous: self.head.act,
            authority_size: stamp.authority.0,
            authority_root: stamp.authority.1,
            signed_at: stamp.now,
            signature: [0; 64],
        }
        .sign(&self.origin, signer.key.unwrap_or(stamp.log_key));
        let bytes = Entry::Act(act).encode();
        let act_hash = leaf_hash(&bytes);
        let act_at = first + u64::from(count);
        batch.put(table::entry(&self.origin, act_at), bytes);
        hashes.push(act_hash);

        let (edge, tiles) = plan_append(&self.edge, &hashes);
        for write in tiles {
            batch.put(
                table::tile(&self.origin, write.level, write.index),
                write.bytes,
            );
        }
        let note = self.checkpoint(edge.frontier(), stamp.log_key)?;
        let head = Head {
            size: act_at + 1,
            root: edge.frontier().root(),
            whole: Some(note),
            target: None,
            cosigned: self.head.cosigned.clone(),
            act: Some(act_hash),
            tail: 0,
        };
        batch.put(table::head(&self.origin), cbor::to_vec(&head));
        extend(&mut batch, first, &hashes);

        self.commit(store, &batch)?;
        self.edge = edge;
        self.head = head;
        Ok(Appended {
            first,
            leaves: hashes,
            size: act_at + 1,
        })
    }

    fn checkpoint(&self, frontier: &Frontier, log_key: &SigningKey) -> Result<String> {
        let signer = NoteSigner::new(self.origin.as_str(), log_key.clone())
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
        Checkpoint::new(self.origin.as_str(), frontier.size(), frontier.root())
            .map_err(|e| RegistryError::damaged(e.to_string()))?
            .sign(&signer)
            .map_err(|e| RegistryError::damaged(e.to_string()))
    }

    /// Commits what a use case keeps beside the ledger when it has no entry to append.
    pub(crate) fn extend(
        &mut self,
        store: &dyn Store,
        extend: impl FnOnce(&mut Batch),
    ) -> Result<()> {
        let mut batch = Batch::new(self.origin.as_str(), Some(self.version));
        extend(&mut batch);
        self.commit(store, &batch)
    }

    /// The root of the first `size` entries.
    pub(crate) fn root_at(&self, store: &dyn Store, size: u64) -> Result<Hash> {
        let tiles = Tiles {
            store,
            origin: &self.origin,
        };
        let edge = TreeEdge::load(&tiles, size)
            .map_err(|e| RegistryError::damaged(format!("`{}`: {e}", self.origin)))?;
        Ok(edge.frontier().root())
    }

    /// The checkpoint of an earlier size, as it was signed then: the same bytes, because Ed25519
    /// signs the same message the same way.
    pub(crate) fn checkpoint_at(
        &self,
        store: &dyn Store,
        size: u64,
        log_key: &SigningKey,
    ) -> Result<String> {
        if size > self.head.size {
            return Err(RegistryError::damaged(format!(
                "`{}` has no {size} entries",
                self.origin
            )));
        }
        let tiles = Tiles {
            store,
            origin: &self.origin,
        };
        let edge = TreeEdge::load(&tiles, size)
            .map_err(|e| RegistryError::damaged(format!("`{}`: {e}", self.origin)))?;
        self.checkpoint(edge.frontier(), log_key)
    }

    /// Signs the head with another key, and keeps the cosignatures, which are over the same words.
    pub(crate) fn sign_anew(
        &mut self,
        store: &dyn Store,
        log_key: &SigningKey,
        quorum: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let Some(old) = &self.head.whole else {
            return Ok(());
        };
        let mut note = self.checkpoint(self.edge.frontier(), log_key)?;
        let own = format!("\u{2014} {} ", self.origin);
        let lines: Vec<&str> = old.lines().filter(|l| l.starts_with('\u{2014}')).collect();
        if lines.iter().any(|line| note.contains(line)) {
            return Ok(());
        }
        for line in lines.into_iter().filter(|line| !line.starts_with(&own)) {
            note = add_signature_line(note.as_bytes(), format!("{line}\n").as_bytes())
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
        }
        let quorum = quorum(&note);
        self.keep_cosigned(store, self.head.size, note, quorum)
    }

    /// Keeps a checkpoint that was cosigned, as the one to publish when it has its quorum.
    pub(crate) fn keep_cosigned(
        &mut self,
        store: &dyn Store,
        size: u64,
        note: String,
        quorum: bool,
    ) -> Result<()> {
        let mut head = self.head.clone();
        if size == head.size {
            head.whole = Some(note.clone());
        }
        if quorum {
            head.cosigned = Some(note);
        }
        let mut batch = Batch::new(self.origin.as_str(), Some(self.version));
        batch.put(table::head(&self.origin), cbor::to_vec(&head));
        self.commit(store, &batch)?;
        self.head = head;
        Ok(())
    }

    fn commit(&mut self, store: &dyn Store, batch: &Batch) -> Result<()> {
        self.version = commit(store, &self.origin, batch)?;
        Ok(())
    }
}

/// Commits a batch and names the ledger in the error.
pub(crate) fn commit(store: &dyn Store, origin: &Origin, batch: &Batch) -> Result<u64> {
    store.commit(batch).map_err(|error| match error {
        CommitError::Conflict { .. } => RegistryError::Conflict(origin.clone()),
        other => RegistryError::Store(other.to_string()),
    })
}
/// Nothing is signed that no other node would take: it would stop the ledger, and the session, for
/// good.
fn within(what: &str, bytes: usize, max: usize) -> Result<()> {
    if bytes > max {
        return Err(RegistryError::BadRequest(format!(
            "内容过长，未作任何改动 / too long, and nothing was changed: the {what} would have {bytes} bytes and may have {max}; shorten the basis, the words or the values, or split the request"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_other_node_would_take_is_refused_with_its_size() {
        assert!(within("entry", ENTRY_MAX, ENTRY_MAX).is_ok());
        let refused = within("entry", ENTRY_MAX + 1, ENTRY_MAX).unwrap_err();
        assert!(refused.to_string().contains("65536 bytes"), "{refused}");
    }
}
