//! Plans (方案), approvals (批准) and standing orders (常令): what no officer does alone.
//!
//! A plan says what is to be done, on which node, until when; its id is the hash of its bytes.
//! An approval is signed by another officer over that id, so whoever approves one plan has
//! approved no other. Both are entries of `authority` ledgers and travel as files, too.
//! Refuses nothing by itself: who counts as another officer is answered by `registry::plan`.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::authority::History;
use crate::cbor::{self, CborError};
use crate::id::{DivisionId, GrantId, Hash, Kind, OperatorId, Origin, RecordId, UnixMillis};
use crate::published::What;

/// The largest plan or approval in bytes.
pub const PLAN_MAX: usize = 16 * 1024;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(tag = "work", rename_all = "kebab-case")]
pub enum Work {
    /// A new key epoch of a shard: new writes at once, old bodies resealed in the background.
    #[n(1)]
    RotateEpoch {
        /// The shard.
        #[n(0)]
        origin: Origin,
        /// A key is known to others: holders are granted again one by one, none by itself.
        #[n(1)]
        compromised: bool,
    },
    /// The secret of an epoch is destroyed, once nothing is sealed under it.
    #[n(2)]
    RetireEpoch {
        /// The shard.
        #[n(0)]
        origin: Origin,
        /// The epoch.
        #[n(1)]
        epoch: u32,
    },
    /// A grant ends before its time.
    #[n(3)]
    EndGrant {
        /// The grant.
        #[n(0)]
        grant: GrantId,
        /// A reason code such as `agreement-ended`.
        #[n(1)]
        reason: Kind,
    },
    /// A record's bodies and secret are destroyed, here and at every holder.
    #[n(4)]
    Erase {
        /// The shard.
        #[n(0)]
        origin: Origin,
        /// The record.
        #[n(1)]
        record: RecordId,
        /// The legal basis, as a reference to a law article.
        #[n(2)]
        basis: String,
    },
    /// The node gets new signing, transport and seal keys; its parent charters them.
    #[n(5)]
    RotateNode {
        /// Whose keys: the node itself.
        #[n(0)]
        division: DivisionId,
    },
    /// A node below lost its keys, and the parent charters others.
    #[n(6)]
    ReplaceCharter {
        /// Whose keys.
        #[n(0)]
        division: DivisionId,
        /// SHA-256 of the canonical bytes of the node keys to be chartered; absent when the
        /// node will show an invitation with them.
        #[cbor(n(1), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex")]
        keys: Option<Hash>,
    },
    /// The root of the node is shared among officers, m of n.
    #[n(7)]
    Share {
        /// How many shares.
        #[n(0)]
        shares: u8,
        /// How many of them open.
        #[n(1)]
        threshold: u8,
        /// Who gets one, in the order of the shares.
        #[n(2)]
        holders: Vec<ShareHolder>,
    },
    /// The keystore gets another key-encryption key.
    #[n(8)]
    RotateKek {
        /// Whose keystore: the node itself.
        #[n(0)]
        division: DivisionId,
    },
    /// Routine work is allowed in advance.
    #[n(9)]
    Order(#[n(0)] StandingOrder),
    /// A security officer is enrolled, or gets another key: whoever could do that alone could
    /// approve the own plans under that name.
    #[n(10)]
    Officer {
        /// The officer.
        #[n(0)]
        operator: OperatorId,
        /// The officer's Ed25519 public key.
        #[cbor(n(1), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex_key")]
        key: [u8; 32],
    },
    /// A grant is narrowed or widened: what it gives from here on.
    #[n(14)]
    AmendGrant {
        /// The grant.
        #[n(0)]
        grant: GrantId,
        /// Field positions, ascending.
        #[n(1)]
        fields: Vec<u8>,
        /// Keyed hash of the row condition, which is kept sealed.
        #[cbor(n(2), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex_key")]
        rows: Hash,
        /// Which versions of a record in scope.
        #[n(3)]
        history: History,
        /// Legal basis.
        #[n(4)]
        basis: String,
        /// Reference of the impact assessment.
        #[n(5)]
        assessment: String,
    },
    /// Records of a shard move to another division, many at a time.
    #[n(12)]
    MoveShard {
        /// The shard that they leave.
        #[n(0)]
        origin: Origin,
        /// Who is to own them.
        #[n(1)]
        to: DivisionId,
        /// Keyed hash of which records these are, which is kept sealed.
        #[cbor(n(2), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex_key")]
        rows: Hash,
        /// The shard is closed when nothing is left in it.
        #[n(3)]
        closes: bool,
        /// The reason or legal basis, as a reference.
        #[n(4)]
        basis: String,
    },
    /// What another division moves here under a plan of its own is registered as it comes.
    #[n(13)]
    ReceiveShard {
        /// The shard that the records leave.
        #[n(0)]
        origin: Origin,
        /// The plan of its owner.
        #[cbor(n(1), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex_key")]
        plan: Hash,
    },
    /// Acts that claim a time after their cosignatures are explained: the clock was ahead.
    #[n(36)]
    ExplainClock {
        /// The ledger, one of the plan's division.
        #[n(0)]
        origin: Origin,
        /// Index of the first such act.
        #[n(1)]
        first: u64,
        /// One more than the index of the last.
        #[n(2)]
        end: u64,
        /// The latest time that one of them claims; one that claims more is not explained.
        #[n(3)]
        claimed: UnixMillis,
        /// The earliest cosignature on a checkpoint that covers them, which bounds when they were.
        #[n(4)]
        cosigned: UnixMillis,
        /// What happened, as somebody who audits is to read it; names no person.
        #[n(5)]
        reason: String,
    },
    /// Policies, schemas or codes for the whole realm, from its root.
    #[n(11)]
    Publish {
        /// What.
        #[n(0)]
        what: What,
        /// The version that it will have.
        #[n(1)]
        version: u32,
        /// SHA-256 of the set.
        #[cbor(n(2), with = "minicbor::bytes")]
        #[serde(serialize_with = "hex_key")]
        hash: Hash,
    },
}

impl Work {
    /// The word for it on the command line and in statistics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Work::RotateEpoch { .. } => "rotate-epoch",
            Work::RetireEpoch { .. } => "retire-epoch",
            Work::EndGrant { .. } => "end-grant",
            Work::Erase { .. } => "erase",
            Work::RotateNode { .. } => "rotate-node",
            Work::ReplaceCharter { .. } => "replace-charter",
            Work::Share { .. } => "share",
            Work::RotateKek { .. } => "rotate-kek",
            Work::Order(_) => "order",
            Work::Officer { .. } => "officer",
            Work::AmendGrant { .. } => "amend-grant",
            Work::Publish { .. } => "publish",
            Work::MoveShard { .. } => "move-shard",
            Work::ReceiveShard { .. } => "receive-shard",
            Work::ExplainClock { .. } => "explain-clock",
        }
    }
}

fn hex<S: serde::Serializer>(hash: &Option<Hash>, to: S) -> Result<S::Ok, S::Error> {
    let text = hash.map(|hash| data_encoding::HEXLOWER.encode(&hash));
    text.serialize(to)
}

fn hex_key<S: serde::Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&data_encoding::HEXLOWER.encode(key))
}

/// An officer who is to hold a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct ShareHolder {
    /// The officer's organization: the node's own or one above it.
    #[n(0)]
    pub organization: DivisionId,
    /// The officer.
    #[n(1)]
    pub operator: OperatorId,
    /// Of an officer above: id of the key that the share is to be sealed to, so that whoever
    /// approves the plan approves the key, too.
    #[cbor(n(2), with = "minicbor::bytes")]
    #[serde(default, skip_deserializing, serialize_with = "hex")]
    pub key: Option<Hash>,
}

/// Work that a standing order may allow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Task {
    /// Resealing under the newest epoch.
    #[n(1)]
    Reseal,
    /// Ending grants that expired or whose holder's charter is gone.
    #[n(2)]
    Retract,
    /// Erasing what is past its retention.
    #[n(3)]
    Retention,
    /// Scheduled imports.
    #[n(4)]
    Import,
    /// Rotating an epoch whose cryptoperiod is over.
    #[n(5)]
    Rotate,
    /// Destroying the fields of groups that are past their term, while the record stays.
    #[n(14)]
    Fields,
}

/// For how long a group of fields is kept after a record went out of force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct ClassTerm {
    /// The kind.
    #[n(0)]
    pub kind: Kind,
    /// The group.
    #[n(1)]
    pub group: Kind,
    /// Days.
    #[n(2)]
    pub days: u32,
}

/// What two officers approve once and the node then does alone (常令).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[cbor(map)]
pub struct StandingOrder {
    /// What, ascending.
    #[n(0)]
    pub tasks: Vec<Task>,
    /// On which shards, ascending; all own shards when empty.
    #[n(1)]
    pub origins: Vec<Origin>,
    /// Until when.
    #[n(2)]
    pub not_after: UnixMillis,
    /// Of the task `fields`: which groups, and after how long; ascending.
    #[n(3)]
    pub classes: Option<Vec<ClassTerm>>,
}

/// What an officer wants done (方案).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Plan {
    /// The crypto suite.
    #[n(0)]
    pub suite: u8,
    /// Whose node does it.
    #[n(1)]
    pub division: DivisionId,
    /// What.
    #[n(2)]
    pub work: Work,
    /// Who asks.
    #[n(3)]
    pub made_by: OperatorId,
    /// When.
    #[n(4)]
    pub made_at: UnixMillis,
    /// Until when it may be approved and run.
    #[n(5)]
    pub not_after: UnixMillis,
    /// What it comes to as shown to whoever approves: records, bodies, bytes, holders, seconds.
    #[n(6)]
    pub figures: Vec<Figure>,
    /// Makes two plans for the same work two plans.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// Ed25519 by the maker's key: nobody makes a plan in another's name, to approve it then. Zero
    /// until signed.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// One figure of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct Figure {
    /// What is counted, such as `records`.
    #[n(0)]
    pub name: Kind,
    /// How many.
    #[n(1)]
    pub count: u64,
}

impl Plan {
    /// The tag `fangzhi/plan/v1`, a zero byte and the canonical bytes with a signature of zeros.
    fn message(&self) -> Vec<u8> {
        let mut unsigned = self.clone();
        unsigned.signature = [0; 64];
        let mut message = b"fangzhi/plan/v1\0".to_vec();
        message.extend(cbor::to_vec(&unsigned));
        message
    }

    /// SHA-256 of what the maker signs: what an approval names.
    pub fn id(&self) -> Hash {
        Sha256::digest(self.message()).into()
    }

    /// Signs it with the maker's key.
    #[must_use]
    pub fn sign(mut self, maker: &SigningKey) -> Self {
        self.signature = maker.sign(&self.message()).to_bytes();
        self
    }

    /// Whether the signature is this key's.
    pub fn is_signed_by(&self, maker: &[u8; 32]) -> bool {
        signed_by(maker, &self.message(), &self.signature)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// [`CborError`] when the bytes are no plan of this suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let plan: Plan = cbor::from_slice("plan", bytes, PLAN_MAX)?;
        if plan.suite == crate::entry::SUITE {
            Ok(plan)
        } else {
            Err(CborError::Malformed { what: "plan" })
        }
    }
}

fn signed_by(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// Another officer's word on a plan (批准).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Approval {
    /// The crypto suite of the signature.
    #[n(0)]
    pub suite: u8,
    /// The plan's id.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub plan: Hash,
    /// Whose plan it is.
    #[n(2)]
    pub division: DivisionId,
    /// The approving officer's organization: the plan's division or one above it.
    #[n(3)]
    pub organization: DivisionId,
    /// The officer.
    #[n(4)]
    pub operator: OperatorId,
    /// `true` approves, `false` refuses.
    #[n(5)]
    pub approved: bool,
    /// When.
    #[n(6)]
    pub signed_at: UnixMillis,
    /// Ed25519 by the officer's key; zero until signed.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Approval {
    fn message(&self) -> Vec<u8> {
        let mut unsigned = self.clone();
        unsigned.signature = [0; 64];
        let mut message = b"fangzhi/approval/v1\0".to_vec();
        message.extend(cbor::to_vec(&unsigned));
        message
    }

    /// Signs it with the officer's key.
    #[must_use]
    pub fn sign(mut self, officer: &SigningKey) -> Self {
        self.signature = officer.sign(&self.message()).to_bytes();
        self
    }

    /// Whether the signature is this key's.
    pub fn is_signed_by(&self, officer: &[u8; 32]) -> bool {
        signed_by(officer, &self.message(), &self.signature)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads an approval.
    ///
    /// # Errors
    /// [`CborError`] when the bytes are no approval of this suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let approval: Approval = cbor::from_slice("approval", bytes, PLAN_MAX)?;
        if approval.suite == crate::entry::SUITE {
            Ok(approval)
        } else {
            Err(CborError::Malformed { what: "approval" })
        }
    }
}

/// How a plan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Outcome {
    /// It was run; a standing order is in force.
    #[n(1)]
    Run,
    /// It was withdrawn; a standing order is no longer in force.
    #[n(2)]
    Withdrawn,
}

/// A plan was run or withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlanClosed {
    /// The plan's id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub plan: Hash,
    /// How it ended.
    #[n(1)]
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            suite: 1,
            division: DivisionId::new("jinfu").unwrap(),
            work: Work::Erase {
                origin: Origin::parse("jiangjin.example/jinfu/person").unwrap(),
                record: RecordId([1; 16]),
                basis: "PIPL 47(1)(1)".into(),
            },
            made_by: OperatorId([2; 16]),
            made_at: UnixMillis(10),
            not_after: UnixMillis(20),
            figures: vec![],
            nonce: [3; 16],
            signature: [0; 64],
        }
    }

    fn approval() -> Approval {
        Approval {
            suite: 1,
            plan: plan().id(),
            division: DivisionId::new("jinfu").unwrap(),
            organization: DivisionId::new("jiangjin").unwrap(),
            operator: OperatorId([4; 16]),
            approved: true,
            signed_at: UnixMillis(12),
            signature: [0; 64],
        }
    }

    #[test]
    fn a_plan_that_differs_in_anything_has_another_id() {
        let mut others = vec![];
        for change in [
            |p: &mut Plan| p.nonce[0] ^= 1,
            |p: &mut Plan| p.not_after.0 += 1,
            |p: &mut Plan| p.made_by = OperatorId([9; 16]),
            |p: &mut Plan| {
                p.work = Work::RotateKek {
                    division: p.division.clone(),
                }
            },
        ] {
            let mut other = plan();
            change(&mut other);
            others.push(other.id());
        }
        assert!(!others.contains(&plan().id()));
        assert_eq!(Plan::decode(&plan().encode()).unwrap(), plan());
    }

    #[test]
    fn a_plan_is_its_makers_and_keeps_its_id_when_it_is_signed() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let signed = plan().sign(&key);
        assert_eq!(signed.id(), plan().id());
        assert!(signed.is_signed_by(&key.verifying_key().to_bytes()));
        let mut altered = signed.clone();
        altered.made_by = OperatorId([9; 16]);
        assert!(!altered.is_signed_by(&key.verifying_key().to_bytes()));
        assert!(!signed.is_signed_by(&SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes()));
    }

    #[test]
    fn an_approval_holds_under_its_signers_key_and_as_it_was_signed_only() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let signed = approval().sign(&key);
        let public = key.verifying_key().to_bytes();
        assert!(signed.is_signed_by(&public));
        assert!(!signed.is_signed_by(&SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes()));
        for change in [
            |a: &mut Approval| a.plan[0] ^= 1,
            |a: &mut Approval| a.approved = false,
            |a: &mut Approval| a.operator = OperatorId([7; 16]),
            |a: &mut Approval| a.signed_at.0 += 1,
        ] {
            let mut altered = signed.clone();
            change(&mut altered);
            assert!(!altered.is_signed_by(&public));
        }
        assert_eq!(Approval::decode(&signed.encode()).unwrap(), signed);
    }
}
