//! The root of a node (根密钥): locked and open, shares among officers, another key-encryption key.

use std::sync::PoisonError;

use record::authority::{Sharing, Statement};
use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::keys::Opener;
use crate::node::{Registry, lock, purpose};
use crate::plan::Warrant;
use crate::session::Session;

pub mod shares;

pub mod above;
pub mod held;
pub mod steps;
mod wear;

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
    pub(crate) fn opened(&self, now: UnixMillis) -> Result<()> {
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

    /// Whether the keystore has every key that the ledgers and pages here were sealed under.
    ///
    /// # Errors
    /// [`RegistryError::Directory`], which names what is missing: the keystore is an older copy.
    pub(crate) fn check_keystore(&self) -> Result<()> {
        let keys = self.keys.unlocked()?;
        let keystore = keys.lock();
        let mut missing = Vec::new();
        for (origin, epoch) in self.authority().epochs_in_use(&self.config.division) {
            if !keystore.epochs.contains_key(&(origin.clone(), epoch)) {
                missing.push(format!("epoch {epoch} of `{origin}`"));
            }
        }
        let failed = |e: store::pages::PagesError| RegistryError::Store(e.to_string());
        for page in lock(&self.pages).numbers().map_err(failed)? {
            if !keystore.pages.contains_key(&page.into()) {
                missing.push(format!("page {page}"));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let count = missing.len();
        missing.truncate(10);
        Err(RegistryError::Directory(format!(
            "密钥库比账本旧，缺 {count} 把密钥 / the keystore is older than the ledgers and lacks {count} keys: {}; restore the newest `keystore`, or rebuild the node with `fangzhi recover`",
            missing.join(", ")
        )))
    }

    /// Says what is to open the keystore from the next change of its key-encryption key on; it is
    /// used once, when the plan is run, and forgotten.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy.
    pub fn offer_opener(&self, session: &Session, opener: Opener) -> Result<()> {
        self.may(session, policy::Action::Rotate, &purpose("security"))?;
        if let Opener::Passphrase(phrase) = &opener {
            crate::session::long_enough(phrase)?;
        }
        *lock(&self.next_opener) = Some(opener);
        Ok(())
    }

    /// Seals the keystore under another key-encryption key, in one step. The shares of the root
    /// are void with it: who knew the old root knows nothing of what is sealed from here on.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when a passphrase opens the keystore and no other was given.
    pub(crate) fn rotate_kek(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let next = lock(&self.next_opener).take().unwrap_or(Opener::File);
        let keys = self.keys.unlocked()?;
        let custody = keys.rekey(&next)?;
        let mut config = crate::config::NodeConfig::read(self.files.dir())?;
        config.custody = custody;
        config.write(self.files.dir())?;
        if self.authority().sharing(&self.config.division).is_some() {
            let ended = Sharing {
                plan: warrant.plan(),
                header: None,
                public: Vec::new().into(),
            };
            let signer = by.signer(purpose("security"), None);
            self.state(vec![Statement::Sharing(ended)], &signer, now)?;
            self.pages_changed(&[])?;
        }
        Ok(())
    }
}
