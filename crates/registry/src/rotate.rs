//! Key epochs (密钥期): beginning one, resealing what lies under older ones, retiring them.

use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::plan::Warrant;
use crate::session::Session;

impl Registry {
    /// Begins a new epoch of a shard.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn rotate_epoch(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }

    /// Destroys the secret of an epoch under which nothing is sealed any more.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] while anything is.
    pub(crate) fn retire_epoch(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }

    /// Ends a grant before its time.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn end_grant(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }
}
