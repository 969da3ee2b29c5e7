//! The root of a node (根密钥): locked and open, shares among officers, another key-encryption key.

use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::plan::Warrant;
use crate::session::Session;

impl Registry {
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
