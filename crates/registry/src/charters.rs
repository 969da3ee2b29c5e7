//! Charters in their life (节点证书): a node's keys replaced by its parent after they were lost.
//!
//! Owns who may be chartered again: a division that has a charter gets another only under a plan
//! that two other officers approved, and only for the keys that they approved, if the plan names
//! any. The charter before is revoked at once, for everybody.
//! Refuses to rotate a node's own keys while it goes on; `docs/operating/keys.md` says what to do.

use minicbor::{Decode, Encode};
use record::authority::{NodeKeys, Revocation, Statement};
use record::cbor;
use record::id::{DivisionId, Hash, UnixMillis};
use record::plan::Work;
use sha2::{Digest, Sha256};

use crate::error::{RegistryError, Result};
use crate::node::{Registry, purpose, word};
use crate::plan::Warrant;
use crate::session::Session;
use crate::table;

/// Leave to charter other keys of a division, until it has them.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Replacement {
    /// The charter that was revoked: once another is in force, this leave is used up.
    #[cbor(n(0), with = "minicbor::bytes")]
    charter: Hash,
    /// SHA-256 of the canonical bytes of the keys, when the plan names them.
    #[cbor(n(1), with = "minicbor::bytes")]
    keys: Option<Hash>,
}

/// SHA-256 of the canonical bytes of a node's public keys: what a plan names them by.
pub fn keys_hash(keys: &NodeKeys) -> Hash {
    Sha256::digest(cbor::to_vec(keys)).into()
}

impl Registry {
    /// Makes new node keys and asks the parent for a charter of them.
    ///
    /// # Errors
    /// Always: no plan of this work is made, see [`crate::plan::request`].
    pub(crate) fn rotate_node(
        &self,
        _by: &Session,
        _warrant: &Warrant,
        _now: UnixMillis,
    ) -> Result<()> {
        Err(no_rotation())
    }

    /// Revokes the charter of a node below that lost its keys, and lets it be chartered again by
    /// an invitation.
    ///
    /// # Errors
    /// [`RegistryError::NoCharter`], or a failure of the store.
    pub(crate) fn replace_charter(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::ReplaceCharter { division, keys }) = warrant.work() else {
            return Err(RegistryError::BadRequest(
                "this warrant is for other work; run its own plan".into(),
            ));
        };
        let charter = self.child_charter(division)?;
        let leave = Replacement {
            charter: charter.id(),
            keys: *keys,
        };
        // Leave before the revocation: cut off between the two, the plan is run again.
        self.keep_local(
            table::REPLACEMENT,
            division.as_str().as_bytes(),
            cbor::to_vec(&leave),
        )?;
        if !self.authority().revoked(&charter.id()) {
            let revocation = Revocation {
                charter: charter.id(),
                division: division.clone(),
                reason: word("lost-key"),
            };
            let signer = by.signer(purpose("security"), None);
            self.state(vec![Statement::Revocation(revocation)], &signer, now)?;
        }
        Ok(())
    }

    /// Whether a division may be chartered: for the first time, or again under an approved plan.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] with what to do.
    pub(crate) fn may_charter(&self, division: &DivisionId, keys: Option<&NodeKeys>) -> Result<()> {
        let Some(charter) = self.authority().charter(division).cloned() else {
            return Ok(());
        };
        let rest = division.as_str().as_bytes();
        let leave = self
            .store
            .get(&table::local(table::REPLACEMENT, rest))?
            .map(|bytes| table::decode::<Replacement>("replacement", &bytes))
            .transpose()?
            .filter(|leave| leave.charter == charter.id());
        let Some(leave) = leave else {
            return Err(RegistryError::BadRequest(format!(
                "`{division}` 已有节点证书；失钥须作方案 replace-charter，由另两名安全员批准 / `{division}` has a charter; if its keys are lost, make the plan `fangzhi keys plan replace-charter {division}`, which two other officers approve"
            )));
        };
        match (leave.keys, keys) {
            (Some(approved), Some(keys)) if approved != keys_hash(keys) => {
                Err(RegistryError::BadRequest(
                    "这些公钥不是所批准的 / these are not the keys that were approved".into(),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What to do instead of rotating a node's own keys.
pub(crate) fn no_rotation() -> RegistryError {
    RegistryError::BadRequest(
        "本版本不能在运行中更换节点自身的签名、传输与封装密钥 / this version does not rotate a node's own signing, transport and seal keys while it goes on; if they are lost or known to others, the parent replaces the charter: `fangzhi keys plan replace-charter`".into(),
    )
}
