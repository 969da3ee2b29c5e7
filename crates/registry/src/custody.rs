//! The root of a node (根密钥): locked and open, shares among officers, another key-encryption key.

use std::sync::PoisonError;

use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::keys::Opener;
use crate::node::{Registry, purpose};
use crate::plan::Warrant;
use crate::session::Session;

impl Registry {
    /// Whether the node's keys are closed.
    pub fn is_locked(&self) -> bool {
        self.keys.is_locked()
    }

    /// How often the keys were opened or locked since the start.
    pub fn custody_turns(&self) -> u64 {
        self.keys.turns()
    }

    /// Opens a locked node; an open one stays as it is.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the passphrase or key does not fit, or the keystore is
    /// another node's or older than what this node signed.
    pub fn unlock(&self, opener: &Opener, now: UnixMillis) -> Result<()> {
        if self.is_locked() {
            self.keys.unlock(opener)?;
            self.opened(now)?;
        }
        Ok(())
    }

    /// What follows once the keys are there; when it fails they are closed again.
    fn opened(&self, now: UnixMillis) -> Result<()> {
        self.begin(now).inspect_err(|_| self.keys.lock())?;
        tracing::info!("the node's keys are open");
        self.changed();
        Ok(())
    }

    /// Locks the node: its keys and what was opened with them leave the memory.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy.
    pub fn lock_keys(&self, session: &Session) -> Result<()> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        self.persist_indexes()?;
        self.keys.lock();
        self.holdings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        tracing::info!("the node is locked");
        Ok(())
    }

    /// Begins the sharing of the root among officers.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn share_root(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }

    /// Seals the keystore under another key-encryption key.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn rotate_kek(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }
}
