//! Who this node is at present (现况): its charter chain, the root's key, where its parent is.
//!
//! Owns the parts of `node.json` that change while the node runs, and how they follow what the
//! authority ledgers say: a charter issued anew, a parent with other keys, a root that was
//! succeeded. Refuses every chain that does not lead to the root, and a root to which no statement
//! signed by the one before leads: `node.json` moves forward only.

use std::sync::PoisonError;

use record::authority::{Charter, Succession, follow_root, verify_chain};
use record::id::UnixMillis;

use crate::config::{NodeConfig, ParentAddress};
use crate::error::Result;
use crate::node::Registry;

/// What of `node.json` changes while the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The charter chain, own first.
    chain: Vec<Charter>,
    /// The realm root's `sign` key.
    root: [u8; 32],
    parent: Option<ParentAddress>,
}

/// What became of a peer's chain while a session was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerStanding {
    /// It holds; this is the chain in force for the same keys.
    Holds(Vec<Charter>),
    /// The peer has other keys since: the session begins anew.
    OtherKeys,
    /// A charter of the chain was revoked.
    Revoked,
    /// A charter of the chain is over.
    Expired,
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl Standing {
    pub(crate) fn of(config: &NodeConfig) -> Result<Self> {
        Ok(Self {
            chain: config.charters()?,
            root: config.root_key()?,
            parent: config.parent.clone(),
        })
    }

    fn put(&self, config: &mut NodeConfig) {
        config.chain = self.chain.iter().map(|c| hex(&c.encode())).collect();
        config.root = hex(&self.root);
        config.parent.clone_from(&self.parent);
    }
}

impl Registry {
    fn standing(&self) -> std::sync::RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The charter chain, own first.
    ///
    /// # Errors
    /// [`crate::error::RegistryError::Directory`] when `node.json` was damaged.
    pub fn chain(&self) -> Result<Vec<Charter>> {
        Ok(self.standing().chain.clone())
    }

    /// The key under which this node is known on the network.
    pub fn transport_key(&self) -> [u8; 32] {
        self.keys.public().transport
    }

    /// The realm root's `sign` key.
    pub fn root_key(&self) -> [u8; 32] {
        self.standing().root
    }

    /// Where the parent is and how it is known, unless this is the root.
    pub fn parent(&self) -> Option<ParentAddress> {
        self.standing().parent.clone()
    }

    /// `node.json` as it is at present.
    pub(crate) fn present_config(&self) -> NodeConfig {
        let mut config = self.config.clone();
        self.standing().put(&mut config);
        config
    }

    /// How the root came to its key, to be shown to peers that may know an earlier one.
    pub fn successions(&self) -> Vec<Succession> {
        self.authority().successions().to_vec()
    }

    /// Changes who this node is: on disk, then in memory.
    pub(crate) fn stand(&self, change: impl FnOnce(&mut Standing)) -> Result<()> {
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut next = standing.clone();
        change(&mut next);
        if next == *standing {
            return Ok(());
        }
        // An officer may have changed other lines of it meanwhile.
        let mut config = NodeConfig::read(self.files.dir())?;
        next.put(&mut config);
        config.write(self.files.dir())?;
        *standing = next;
        Ok(())
    }

    /// Takes up a chain for this node, verified, with the parent's key in it.
    pub(crate) fn stand_under(&self, chain: &[Charter], root: [u8; 32]) -> Result<()> {
        self.stand(|standing| {
            standing.chain = chain.to_vec();
            standing.root = root;
            if let (Some(parent), Some(above)) = (&mut standing.parent, chain.get(1)) {
                parent.transport = hex(&above.keys.transport);
            }
        })
    }

    /// Follows what the authority ledgers say of this node and of those above it.
    ///
    /// # Errors
    /// [`crate::error::RegistryError::File`] when `node.json` cannot be written; it is tried again.
    pub fn follow_charters(&self, now: UnixMillis) -> Result<()> {
        let (chain, successions) = {
            let authority = self.authority();
            (
                authority.chain_of(&self.config.division),
                authority.successions().to_vec(),
            )
        };
        // Looked at every few milliseconds at times: nothing is verified that is in force already.
        // Forward only: a `node.json` that is another node's, or ahead, is not mended here.
        let behind = |known: &Charter, next: &Charter| {
            known.division == self.config.division && known.serial <= next.serial
        };
        let follows = {
            let standing = self.standing();
            let known = standing.chain.first().zip(chain.first());
            standing.chain != chain && known.is_some_and(|(known, next)| behind(known, next))
        };
        if !follows {
            return Ok(());
        }
        let known = self.root_key();
        let root = follow_root(&known, &successions).map_or(known, |charter| charter.keys.sign);
        let own = self.keys.public();
        let mine = chain.first().is_some_and(|charter| charter.keys == own);
        let holds = |chain: &[Charter]| {
            let taken_back = |id: &_| self.authority().taken_back(id);
            verify_chain(chain, &self.config.realm, &root, now, taken_back).is_ok()
        };
        if mine && holds(&chain) {
            self.stand_under(&chain, root)?;
            tracing::info!("the charter chain of this node moved on");
            self.changed();
        } else if let Some(parent) = self.parent() {
            // The own charter is not issued anew yet; the parent's key may be known.
            let above = self.authority().chain_of(&parent.division);
            let met = above.first().filter(|_| holds(&above));
            let key = met.map(|charter| hex(&charter.keys.transport));
            if let Some(key) = key.filter(|key| *key != parent.transport) {
                self.stand(|standing| {
                    if let Some(parent) = &mut standing.parent {
                        parent.transport = key;
                    }
                })?;
            }
        }
        Ok(())
    }

    /// A session opened: a parent shows its own chain, which was verified up to the root.
    pub fn met(&self, chain: &[Charter], now: UnixMillis) {
        let parent = self.parent().map(|parent| parent.division);
        let Some(peer) = chain.first() else { return };
        if parent.as_ref() != Some(&peer.division) {
            return;
        }
        self.authority_mut().take_chain(chain);
        if let Err(error) = self.follow_charters(now) {
            tracing::warn!(%error, "what the parent showed was not kept; it is tried again");
        }
    }

    /// A peer showed how the root came to the key that its chain leads to.
    pub fn succeeded(&self, successions: &[Succession], now: UnixMillis) {
        {
            let mut authority = self.authority_mut();
            for succession in successions {
                authority.succeed(succession);
            }
        }
        if let Err(error) = self.follow_charters(now) {
            tracing::warn!(%error, "the root's next key was not kept; it is tried again");
        }
    }

    /// The chain in force for the keys that a chain shows, when a charter in it was replaced since:
    /// its own by one for the same keys, or one above it. Whatever else is wrong with it stays wrong.
    pub(crate) fn renewed_chain(&self, shown: &[Charter]) -> Option<Vec<Charter>> {
        let authority = self.authority();
        let own = shown.first()?;
        let newest = authority.charter(&own.division)?;
        let replaced = |charter: &Charter| {
            let id = charter.id();
            authority.revoked(&id) && !authority.taken_back(&id)
        };
        if newest.keys != own.keys || !shown.iter().any(replaced) {
            return None;
        }
        Some(authority.chain_of(&own.division))
    }

    /// A number that moves whenever something was learned of charters; until then only the time
    /// changes what [`Registry::peer_standing`] says of a chain.
    pub fn charters_known(&self) -> u64 {
        self.authority().bearing()
    }

    /// Whether the chain that a peer showed still holds.
    pub fn peer_standing(&self, chain: &[Charter], now: UnixMillis) -> PeerStanding {
        let authority = self.authority();
        let Some(shown) = chain.first() else {
            return PeerStanding::Revoked;
        };
        if chain
            .iter()
            .any(|charter| authority.taken_back(&charter.id()))
        {
            return PeerStanding::Revoked;
        }
        let newest = authority.charter(&shown.division);
        let other = |newest: &Charter| {
            newest.serial > shown.serial && newest.keys.transport != shown.keys.transport
        };
        if newest.is_some_and(other) {
            return PeerStanding::OtherKeys;
        }
        let mut chain = chain.to_vec();
        if chain.iter().any(|charter| authority.revoked(&charter.id())) {
            chain = authority.chain_of(&shown.division);
        }
        if chain.iter().any(|charter| authority.revoked(&charter.id())) {
            return PeerStanding::Revoked;
        }
        if chain.iter().any(|charter| charter.not_after < now) {
            return PeerStanding::Expired;
        }
        PeerStanding::Holds(chain)
    }
}
