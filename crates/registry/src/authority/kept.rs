//! Authority at rest (权限快照): what the authority ledgers say, sealed in one file, so that a start
//! reads only what they say since.
//!
//! Owns `working-index/authority`. The ledgers are the truth: the file is believed when it opens
//! under this node's key, was written by this version of the program, and every ledger that it
//! covers still has its root at its size. Otherwise all of it is made anew; nothing is mended.
//! Whoever verifies or audits a directory never reads it.

use std::collections::BTreeMap;
use std::path::Path;

use ledger::tile::TreeEdge;
use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{Hash, Origin};
use seal::secret::BlobKey;
use sha2::{Digest, Sha256};
use store::Store;

use super::Authority;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::table::{Head, Tiles};

/// The largest file: room for the charters and operators of a realm some times larger than 2,400
/// divisions.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// Entries that a start reads beyond the file before it writes it anew.
const BEHIND_MAX: u64 = 1024;

/// How far a ledger was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Stand {
    #[n(0)]
    pub size: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub root: Hash,
}

/// Where the file lies, and what binds it to this node.
pub(crate) struct Place<'a> {
    pub path: &'a Path,
    pub key: &'a BlobKey,
    pub config: &'a NodeConfig,
}

impl Place<'_> {
    /// Another program version may take in more of a ledger, another chain is another root of
    /// trust: either makes the file another file.
    fn context(&self) -> Vec<u8> {
        let chain: Vec<&str> = self.config.chain.iter().map(String::as_str).collect();
        cbor::to_vec(&(
            "fangzhi/authority/v2",
            env!("CARGO_PKG_VERSION"),
            self.config.division.as_str(),
            Vec::from(Sha256::digest(cbor::to_vec(&chain)).as_slice()),
        ))
    }

    /// What was kept; `None` when there is nothing, or nothing to be believed.
    fn read(&self) -> Option<Authority> {
        let sealed = store::atomic::read_bounded(self.path, BYTES_MAX as u64).ok()?;
        let bytes = seal::blob::open_blob(self.key, &self.context(), &sealed).ok()?;
        cbor::from_slice("authority at rest", &bytes, BYTES_MAX).ok()
    }

    /// Puts what is known, encoded, in the place of what was kept.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| RegistryError::file(folder, e))?;
        }
        let mut rng = crate::keys::rng()?;
        let sealed = seal::blob::seal_blob(self.key, &self.context(), bytes, &mut rng);
        store::atomic::replace(self.path, &sealed).map_err(RegistryError::from)
    }
}

impl Authority {
    /// What was kept, and what the ledgers say since; everything from the ledgers when what was
    /// kept is not theirs.
    pub(crate) fn open(store: &dyn Store, place: &Place<'_>) -> Result<Self> {
        let ledgers = authority_ledgers(store)?;
        let mut authority = match place.read() {
            Some(mut kept) if kept.belongs_to(store, &ledgers)? => {
                kept.recall_dealings();
                kept
            }
            _ => Self::chartered(place.config)?,
        };
        for (origin, head) in &ledgers {
            let from = authority.stands.get(origin).map_or(0, |stand| stand.size);
            if from < head.size {
                authority.read(store, origin, from)?;
            }
        }
        authority.recall_letters(store)?;
        if authority.unkept > BEHIND_MAX {
            // It costs the next start time, no more.
            match place.write(&cbor::to_vec(&authority)) {
                Ok(()) => authority.unkept = 0,
                Err(error) => tracing::warn!(%error, "what the authority ledgers say was not kept"),
            }
        }
        Ok(authority)
    }

    /// Whether every ledger taken in is there, and had at that size the root that it had then.
    fn belongs_to(&self, store: &dyn Store, ledgers: &BTreeMap<Origin, Head>) -> Result<bool> {
        for (origin, stand) in &self.stands {
            let Some(head) = ledgers.get(origin) else {
                return Ok(false);
            };
            let root = if stand.size == head.size {
                head.root
            } else if stand.size < head.size {
                let edge = TreeEdge::load(&Tiles { store, origin }, stand.size)
                    .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
                edge.frontier().root()
            } else {
                return Ok(false);
            };
            if root != stand.root {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn authority_ledgers(store: &dyn Store) -> Result<BTreeMap<Origin, Head>> {
    let mut ledgers = BTreeMap::new();
    for shard in store.shards()? {
        if let Ok(origin) = Origin::parse(&shard)
            && origin.ledger().as_str() == "authority"
        {
            let head = Head::read(store, &origin)?;
            ledgers.insert(origin, head);
        }
    }
    Ok(ledgers)
}

impl Registry {
    /// Keeps what the authority ledgers say, if they said anything since it was kept last.
    pub(crate) fn keep_authority(&self) -> Result<()> {
        let key = self.keys.index_key()?;
        let (bytes, unkept) = {
            let mut authority = self.authority_mut();
            if authority.unkept == 0 {
                return Ok(());
            }
            let unkept = std::mem::take(&mut authority.unkept);
            (cbor::to_vec(&*authority), unkept)
        };
        let config = self.present_config();
        let place = Place {
            path: &self.files.authority(),
            key: &key,
            config: &config,
        };
        place
            .write(&bytes)
            .inspect_err(|_| self.authority_mut().unkept += unkept)
    }

    pub(crate) fn authority_mut(&self) -> std::sync::RwLockWriteGuard<'_, Authority> {
        self.authority
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
