//! Acts (经办): the entries that one operator, or one standing order, signs together.
//!
//! An act's entry directly follows the entries it signs. The signature covers the
//! ledger's origin, where the entries lie, the root over their leaf hashes, the act
//! before, and the `authority` ledger as the signer relied on it: so it can be moved
//! nowhere, and a revoked operator cannot backdate.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::entry::SUITE;
use crate::id::{DivisionId, Hash, Origin, Purpose, UnixMillis};

/// The most entries one act may sign.
pub const ACT_ENTRIES_MAX: u32 = 4096;

/// In what capacity a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Capacity {
    /// An operator's own key.
    #[n(1)]
    Operator,
    /// The node's service key, under a standing order.
    #[n(2)]
    Service,
}

/// What an act says, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Act {
    /// The crypto suite of the signature.
    #[n(0)]
    pub suite: u8,
    /// In what capacity the key signs.
    #[n(1)]
    pub capacity: Capacity,
    /// The signer's Ed25519 public key, enrolled in the `authority` ledger.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The signer's organization.
    #[n(3)]
    pub organization: DivisionId,
    /// What for.
    #[n(4)]
    pub purpose: Purpose,
    /// Where the entries came from: a keyed hash of an imported file that only the node can make,
    /// the leaf hash of the proposal that they carry out, or absent.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub source: Option<Hash>,
    /// Index of the first entry signed.
    #[n(6)]
    pub first: u64,
    /// How many entries are signed, 1 to [`ACT_ENTRIES_MAX`].
    #[n(7)]
    pub count: u32,
    /// RFC 6962 root over the leaf hashes of those entries.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub root: Hash,
    /// Leaf hash of the ledger's previous act; absent in the first.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub previous: Option<Hash>,
    /// Size of the `authority` ledger that the signer relied on.
    #[n(10)]
    pub authority_size: u64,
    /// Root of the `authority` ledger at that size.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub authority_root: Hash,
    /// When it was signed.
    #[n(12)]
    pub signed_at: UnixMillis,
    /// Ed25519 signature; zero until signed.
    #[cbor(n(13), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why an act does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The signature is not the key's over this act in this ledger.
    #[error(
        "the act's signature does not verify in `{origin}`; the act was altered or moved from another ledger"
    )]
    BadSignature {
        /// The ledger in which it was found.
        origin: Origin,
    },
    /// The act signs no entries or too many.
    #[error("the act signs {count} entries; it must sign 1 to {ACT_ENTRIES_MAX}")]
    BadCount {
        /// What it says.
        count: u32,
    },
}

impl Act {
    fn message(&self, origin: &Origin) -> Vec<u8> {
        let mut unsigned = self.clone();
        unsigned.signature = [0; 64];
        let mut message = b"fangzhi/act/v1\0".to_vec();
        message.extend((origin.as_str().len() as u16).to_be_bytes());
        message.extend(origin.as_str().as_bytes());
        message.extend(cbor::to_vec(&unsigned));
        message
    }

    /// Signs the act for this ledger; sets suite, key and signature.
    #[must_use]
    pub fn sign(mut self, origin: &Origin, key: &SigningKey) -> Self {
        self.suite = SUITE;
        self.key = key.verifying_key().to_bytes();
        self.signature = key.sign(&self.message(origin)).to_bytes();
        self
    }

    /// Checks the signature in this ledger. Whether the key was entitled is another question.
    ///
    /// # Errors
    /// [`ActError`] when the signature or the count does not hold.
    pub fn verify(&self, origin: &Origin) -> Result<(), ActError> {
        if self.count == 0 || self.count > ACT_ENTRIES_MAX {
            return Err(ActError::BadCount { count: self.count });
        }
        let bad = || ActError::BadSignature {
            origin: origin.clone(),
        };
        let key = VerifyingKey::from_bytes(&self.key).map_err(|_| bad())?;
        key.verify_strict(
            &self.message(origin),
            &Signature::from_bytes(&self.signature),
        )
        .map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap()
    }

    fn act() -> Act {
        Act {
            suite: SUITE,
            capacity: Capacity::Operator,
            key: [0; 32],
            organization: DivisionId::new("jinfu").unwrap(),
            purpose: Purpose::new("registration").unwrap(),
            source: None,
            first: 0,
            count: 2,
            root: [1; 32],
            previous: None,
            authority_size: 3,
            authority_root: [2; 32],
            signed_at: UnixMillis(5),
            signature: [0; 64],
        }
    }

    #[test]
    fn a_signed_act_verifies_in_its_own_ledger_only() {
        let here = origin("a.example/b/person");
        let signed = act().sign(&here, &SigningKey::from_bytes(&[9; 32]));
        signed.verify(&here).unwrap();
        assert!(signed.verify(&origin("a.example/b/unit")).is_err());
    }

    #[test]
    fn an_act_changed_in_any_field_does_not_verify() {
        let here = origin("a.example/b/person");
        let signed = act().sign(&here, &SigningKey::from_bytes(&[9; 32]));
        let changes: [fn(&mut Act); 6] = [
            |a| a.first = 1,
            |a| a.count = 3,
            |a| a.root = [9; 32],
            |a| a.authority_size = 2,
            |a| a.capacity = Capacity::Service,
            |a| a.signed_at = UnixMillis(6),
        ];
        for change in changes {
            let mut moved = signed.clone();
            change(&mut moved);
            assert!(moved.verify(&here).is_err());
        }
    }
}
