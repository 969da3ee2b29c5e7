//! Erasing (销毁): a record's bodies and secret are destroyed here and at everybody who holds them.

use record::id::UnixMillis;

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::plan::Warrant;
use crate::session::Session;

impl Registry {
    /// Erases a record.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn erase(&self, _by: &Session, _warrant: &Warrant, _now: UnixMillis) -> Result<()> {
        Err(RegistryError::BadRequest("not built".into()))
    }
}
