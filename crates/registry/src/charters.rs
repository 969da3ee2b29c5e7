//! Charters in their life (节点证书): a node's keys rotated by itself, or replaced by its parent.

use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::plan::Warrant;
use crate::session::Session;

impl Registry {
    /// Makes new node keys and asks the parent for a charter of them.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn rotate_node(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }

    /// Lets a node below that lost its keys be chartered again.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn replace_charter(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }
}
