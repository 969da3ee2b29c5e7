//! Shares for officers above (上级持份): what is stated so that an officer of an ancestor holds one.
//!
//! Three steps, each signed by whoever says it, so that it may lie in either node's `authority`
//! ledger or come as a file: the officer's one-time key, the share sealed to that key, the officer's
//! word that it was typed back. Nothing here opens a share.
//! Refuses nothing by itself: what a step is worth is answered by `registry::custody`.
//! Format: `docs/formats/share.md`.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::cbor::{self, CborError};
use crate::id::{DivisionId, Hash, OperatorId, UnixMillis};

/// The largest step in bytes: a sealed share with the header of 32 shares.
pub const STEP_MAX: usize = 8 * 1024;

/// One step of dealing a share to an officer above.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ShareStep {
    /// An officer made a key for one share of one node's root.
    #[n(1)]
    Ready(#[n(0)] ShareKey),
    /// The node sealed a share to that key.
    #[n(2)]
    Dealt(#[n(0)] DealtShare),
    /// The officer typed the share back.
    #[n(3)]
    Confirmed(#[n(0)] ShareWord),
}

/// A key for one share (一次性封装钥): its private half lies with the officer's node, sealed under
/// the officer's own key, and is destroyed when the share is taken.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShareKey {
    /// The crypto suite.
    #[n(0)]
    pub suite: u8,
    /// The officer's organization: above `division`.
    #[n(1)]
    pub organization: DivisionId,
    /// The officer.
    #[n(2)]
    pub operator: OperatorId,
    /// Whose root the share is of.
    #[n(3)]
    pub division: DivisionId,
    /// X-Wing public key, 1,216 bytes.
    #[n(4)]
    pub public: ByteVec,
    /// When it was made.
    #[n(5)]
    pub made_at: UnixMillis,
    /// Ed25519 by the officer's key; zero until signed.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A share sealed to an officer above (封存份额).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DealtShare {
    /// The crypto suite.
    #[n(0)]
    pub suite: u8,
    /// Whose root.
    #[n(1)]
    pub division: DivisionId,
    /// The plan that names the officer and the key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub plan: Hash,
    /// The ceremony's public header.
    #[n(3)]
    pub header: ByteVec,
    /// The share's number.
    #[n(4)]
    pub number: u8,
    /// The officer's organization.
    #[n(5)]
    pub organization: DivisionId,
    /// The officer.
    #[n(6)]
    pub operator: OperatorId,
    /// Id of the [`ShareKey`].
    #[cbor(n(7), with = "minicbor::bytes")]
    pub key: Hash,
    /// The share, sealed.
    #[n(8)]
    pub sealed: ByteVec,
    /// Ed25519 by the node's `sign` key; zero until signed.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// An officer's word that a share was taken and typed back (确认).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShareWord {
    /// The crypto suite.
    #[n(0)]
    pub suite: u8,
    /// Whose root.
    #[n(1)]
    pub division: DivisionId,
    /// SHA-256 of the ceremony's header: its nonce, its numbers and every share's commitment.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub header: Hash,
    /// The share's number.
    #[n(3)]
    pub number: u8,
    /// The officer's organization.
    #[n(4)]
    pub organization: DivisionId,
    /// The officer.
    #[n(5)]
    pub operator: OperatorId,
    /// When.
    #[n(6)]
    pub signed_at: UnixMillis,
    /// Ed25519 by the officer's key; zero until signed.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

macro_rules! signed {
    ($type:ty, $tag:literal) => {
        impl $type {
            /// The tag, a zero byte and the canonical bytes with a signature of zeros.
            fn message(&self) -> Vec<u8> {
                let mut unsigned = self.clone();
                unsigned.signature = [0; 64];
                let mut message = concat!($tag, "\0").as_bytes().to_vec();
                message.extend(cbor::to_vec(&unsigned));
                message
            }

            /// SHA-256 of what is signed.
            pub fn id(&self) -> Hash {
                Sha256::digest(self.message()).into()
            }

            /// Signs it.
            #[must_use]
            pub fn sign(mut self, key: &SigningKey) -> Self {
                self.signature = key.sign(&self.message()).to_bytes();
                self
            }

            /// Whether the signature is this key's.
            pub fn is_signed_by(&self, key: &[u8; 32]) -> bool {
                VerifyingKey::from_bytes(key).is_ok_and(|key| {
                    let signature = Signature::from_bytes(&self.signature);
                    key.verify_strict(&self.message(), &signature).is_ok()
                })
            }
        }
    };
}

signed!(ShareKey, "fangzhi/share-key/v1");
signed!(DealtShare, "fangzhi/dealt-share/v1");
signed!(ShareWord, "fangzhi/share-word/v1");

impl ShareStep {
    /// Whose root it is about.
    pub fn division(&self) -> &DivisionId {
        match self {
            ShareStep::Ready(key) => &key.division,
            ShareStep::Dealt(dealt) => &dealt.division,
            ShareStep::Confirmed(word) => &word.division,
        }
    }

    /// The officer's organization.
    pub fn organization(&self) -> &DivisionId {
        match self {
            ShareStep::Ready(key) => &key.organization,
            ShareStep::Dealt(dealt) => &dealt.organization,
            ShareStep::Confirmed(word) => &word.organization,
        }
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a step.
    ///
    /// # Errors
    /// [`CborError`] when the bytes are no step of this suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let what = "step of a share";
        let step: Self = cbor::from_slice(what, bytes, STEP_MAX)?;
        let suite = match &step {
            ShareStep::Ready(key) => key.suite,
            ShareStep::Dealt(dealt) => dealt.suite,
            ShareStep::Confirmed(word) => word.suite,
        };
        if suite == crate::entry::SUITE {
            Ok(step)
        } else {
            Err(CborError::Malformed { what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn division(name: &str) -> DivisionId {
        DivisionId::new(name).unwrap()
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn word() -> ShareWord {
        ShareWord {
            suite: 1,
            division: division("jinfu"),
            header: [1; 32],
            number: 2,
            organization: division("jiangjin"),
            operator: OperatorId([3; 16]),
            signed_at: UnixMillis(10),
            signature: [0; 64],
        }
    }

    fn ready() -> ShareKey {
        ShareKey {
            suite: 1,
            organization: division("jiangjin"),
            operator: OperatorId([3; 16]),
            division: division("jinfu"),
            public: vec![4; 1216].into(),
            made_at: UnixMillis(10),
            signature: [0; 64],
        }
    }

    fn dealt() -> DealtShare {
        DealtShare {
            suite: 1,
            division: division("jinfu"),
            plan: [5; 32],
            header: vec![6; 2_048].into(),
            number: 2,
            organization: division("jiangjin"),
            operator: OperatorId([3; 16]),
            key: ready().id(),
            sealed: vec![7; 1_500].into(),
            signature: [0; 64],
        }
    }

    #[test]
    fn a_word_is_its_officers_and_of_one_share_of_one_ceremony() {
        let public = key(1).verifying_key().to_bytes();
        let said = word().sign(&key(1));
        assert!(said.is_signed_by(&public));
        assert!(!said.is_signed_by(&key(2).verifying_key().to_bytes()));
        let changes: [fn(&mut ShareWord); 5] = [
            |w| w.division = division("other"),
            |w| w.header = [9; 32],
            |w| w.number = 3,
            |w| w.operator = OperatorId([9; 16]),
            |w| w.organization = division("other"),
        ];
        for change in changes {
            let mut moved = said.clone();
            change(&mut moved);
            assert!(!moved.is_signed_by(&public));
        }
    }

    #[test]
    fn one_step_signed_is_not_taken_for_another() {
        let public = key(1).verifying_key().to_bytes();
        let mut as_word = word();
        as_word.signature = ready().sign(&key(1)).signature;
        assert!(!as_word.is_signed_by(&public));
        let mut as_dealt = dealt();
        as_dealt.signature = word().sign(&key(1)).signature;
        assert!(!as_dealt.is_signed_by(&public));
    }

    #[test]
    fn the_largest_steps_read_back_from_their_bytes_and_from_no_others() {
        let steps = [
            ShareStep::Ready(ready().sign(&key(1))),
            ShareStep::Dealt(dealt().sign(&key(1))),
            ShareStep::Confirmed(word().sign(&key(1))),
        ];
        for step in steps {
            let bytes = step.encode();
            assert_eq!(ShareStep::decode(&bytes).unwrap(), step);
            assert!(ShareStep::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        let mut other = word();
        other.suite = 2;
        assert!(ShareStep::decode(&ShareStep::Confirmed(other).encode()).is_err());
    }
}
