//! Charters in their life (节点证书): a node's keys replaced by its parent after they were lost.
//!
//! Owns who may be chartered again: a division that has a charter gets another only under a plan
//! that two other officers approved, and only for the keys that they approved, if the plan names
//! any. The charter before is revoked at once, for everybody.
//! Refuses to charter keys that a charter had before. A node that still has its keys changes them
//! by itself: see [`crate::renewal`].

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
        let lost = |keys: &NodeKeys| {
            self.authority()
                .charters_ever(division)
                .iter()
                .any(|c| c.keys.sign == keys.sign || c.keys.transport == keys.transport)
        };
        match (leave.keys, keys) {
            (_, Some(keys)) if lost(keys) => Err(RegistryError::BadRequest(
                "这些是已吊销的公钥 / these are keys of a charter that was revoked; join with `--new-keys`".into(),
            )),
            (Some(approved), Some(keys)) if approved != keys_hash(keys) => {
                Err(RegistryError::BadRequest(
                    "这些公钥不是所批准的 / these are not the keys that were approved".into(),
                ))
            }
            _ => Ok(()),
        }
    }
}
