//! What an `authority` ledger records: charters, operators, grants, policies, schemas.
//!
//! All of it is public to auditors, so none of it names a person: an operator is a
//! random identifier, a role and a key.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::cbor::{self, CborError};
use crate::custody::ShareStep;
use crate::id::{
    DivisionId, GrantId, Hash, Kind, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis,
};
use crate::moving::{Moving, ShardClosed};
use crate::plan::{Approval, Plan, PlanClosed};
use crate::published::{Declined, Published};
use crate::transfer::{TransferAnswer, TransferOffer, TransferStep};

/// The largest charter in bytes.
pub const CHARTER_MAX: usize = 8 * 1024;

/// One leaf of an `authority` ledger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuthorityEntry {
    /// The crypto suite.
    #[n(0)]
    pub suite: u8,
    /// What is stated.
    #[n(1)]
    pub statement: Statement,
    /// When it was recorded.
    #[n(2)]
    pub recorded_at: UnixMillis,
}

/// A statement of authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Statement {
    /// A charter issued by this node, or the node's own.
    #[n(1)]
    Charter(#[n(0)] Charter),
    /// A charter is no longer valid.
    #[n(2)]
    Revocation(#[n(0)] Revocation),
    /// An operator was enrolled.
    #[n(3)]
    Operator(#[n(0)] OperatorCertificate),
    /// An operator may sign no longer.
    #[n(4)]
    OperatorDisabled(#[n(0)] OperatorId),
    /// A grant was made; its sealed keys travel beside the ledger.
    #[n(5)]
    Grant(#[n(0)] GrantStatement),
    /// A set of policies, schemas or codes is in force from here on.
    #[n(6)]
    InForce(#[n(0)] InForce),
    /// An officer wants something done that needs another's approval.
    #[n(7)]
    Plan(#[n(0)] Plan),
    /// An officer of this node approved or refused a plan, of this node or one below; or such a
    /// word came here as a file.
    #[n(8)]
    Approval(#[n(0)] Approval),
    /// A plan of this node was run or withdrawn.
    #[n(9)]
    PlanClosed(#[n(0)] PlanClosed),
    /// A key epoch of an own shard began or was retired.
    #[n(10)]
    Epoch(#[n(0)] EpochChange),
    /// A grant of an own shard ended.
    #[n(11)]
    GrantEnded(#[n(0)] GrantEnded),
    /// This node destroyed what it held of a record, or of a grant.
    #[n(12)]
    Receipt(#[n(0)] DestructionReceipt),
    /// The root of this node was shared among officers, or a sharing ended.
    #[n(13)]
    Sharing(#[n(0)] Sharing),
    /// A record is offered to another division.
    #[n(25)]
    TransferOffer(#[n(0)] TransferOffer),
    /// The division that a record was offered to accepted it, or refused.
    #[n(26)]
    TransferAnswer(#[n(0)] TransferAnswer),
    /// An offer was withdrawn, or a record that moved was erased.
    #[n(28)]
    TransferStep(#[n(0)] TransferStep),
    /// A shard in which nothing counts any more is closed, and others follow it.
    #[n(27)]
    ShardClosed(#[n(0)] Box<ShardClosed>),
    /// Records of a shard are offered to another division together, or such an offer is answered.
    #[n(34)]
    Moving(#[n(0)] Box<Moving>),
    /// The scope of a grant was narrowed or widened under a plan.
    #[n(29)]
    GrantAmended(#[n(0)] GrantAmendment),
    /// A node below asked, under its old key, for a charter of new keys; the charter follows.
    #[n(31)]
    Renewal(#[n(0)] Box<Renewal>),
    /// The realm's root has another `sign` key from here on.
    #[n(32)]
    Succession(#[n(0)] Box<Succession>),
    /// A step of dealing a share of a root to an officer of a node above it.
    #[n(33)]
    Share(#[n(0)] Box<ShareStep>),
    /// The realm's root published policies, schemas or codes; they are the entry's body.
    #[n(14)]
    Published(#[n(0)] Published),
    /// This node holds a published set and does not run it.
    #[n(20)]
    Declined(#[n(0)] Declined),
}

/// What a record's versions a holder gets beside the newest (历史).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum History {
    /// The newest version only: the parcel of the one before is destroyed when a later one comes.
    #[n(1)]
    None,
    /// The versions from the one on with which the record came into scope.
    #[default]
    #[n(2)]
    Since,
    /// Every version whose body its owner still has.
    #[n(3)]
    All,
}

impl History {
    /// The word used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            History::None => "none",
            History::Since => "since",
            History::All => "all",
        }
    }
}

impl std::str::FromStr for History {
    type Err = crate::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(History::None),
            "since" => Ok(History::Since),
            "all" => Ok(History::All),
            _ => Err(crate::id::IdError {
                what: "history",
                rule: "use none, since or all",
            }),
        }
    }
}

/// A grant under other terms: other fields, other rows, another history (授权变更).
///
/// Only this statement changes the scope of a grant; stated as a plain grant again, other terms
/// count for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantAmendment {
    /// The plan, which names the terms.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub plan: Hash,
    /// The grant from here on, with an envelope of the keys of its fields and no others.
    #[n(1)]
    pub grant: GrantStatement,
}

/// A node's request for a charter of new keys (换钥申请): signed with the old `sign` key, which the
/// charter in force names, and with the new one, so that nobody has another's keys chartered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewal {
    /// Whose keys.
    #[n(0)]
    pub division: DivisionId,
    /// The plan that the node's officers approved.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub plan: Hash,
    /// Id of the charter in force.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub replaces: Hash,
    /// The keys to be chartered.
    #[n(3)]
    pub keys: NodeKeys,
    /// Ed25519 by the `sign` key of the charter in force; zero until signed.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub old: [u8; 64],
    /// Ed25519 by the new `sign` key; zero until signed.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub new: [u8; 64],
}

impl Renewal {
    fn message(&self) -> Vec<u8> {
        let mut unsigned = self.clone();
        (unsigned.old, unsigned.new) = ([0; 64], [0; 64]);
        let mut message = b"fangzhi/renewal/v1\0".to_vec();
        message.extend(cbor::to_vec(&unsigned));
        message
    }

    /// Signs it with both keys.
    #[must_use]
    pub fn sign(mut self, old: &SigningKey, new: &SigningKey) -> Self {
        let message = self.message();
        self.old = old.sign(&message).to_bytes();
        self.new = new.sign(&message).to_bytes();
        self
    }

    /// Whether it is signed with the old key given, and with the new key that it names.
    pub fn is_signed_by(&self, old: &[u8; 32]) -> bool {
        let message = self.message();
        signed(old, &message, &self.old) && signed(&self.keys.sign, &message, &self.new)
    }
}

fn signed(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// The realm's root changed its `sign` key (根钥继任): there is nobody above it, so its old key says
/// which is the next. A node that knows one key of the root follows such statements forward, and
/// never back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Succession {
    /// The root's charter until then, signed by its own key.
    #[n(0)]
    pub before: Charter,
    /// The root's charter from then on, signed by the new key itself.
    #[n(1)]
    pub charter: Charter,
    /// Ed25519 by the `sign` key until then; zero until signed.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// The most successions that are followed, or sent, at once.
pub const SUCCESSIONS_MAX: usize = 8;

impl Succession {
    fn message(&self) -> Vec<u8> {
        let mut message = b"fangzhi/succession/v1\0".to_vec();
        message.extend(self.before.id());
        message.extend(self.charter.id());
        message
    }

    /// Says which charter is the root's from here on.
    #[must_use]
    pub fn sign(before: Charter, charter: Charter, old: &SigningKey) -> Self {
        let mut succession = Self {
            before,
            charter,
            signature: [0; 64],
        };
        succession.signature = old.sign(&succession.message()).to_bytes();
        succession
    }

    /// Whether the old key signed it, and the new key its own charter.
    pub fn holds(&self) -> bool {
        let own = |charter: &Charter| {
            charter.parent == charter.division && charter.verify(&charter.keys.sign).is_ok()
        };
        let (before, charter) = (&self.before, &self.charter);
        before.division == charter.division
            && before.realm == charter.realm
            && before.serial < charter.serial
            && before.keys.sign != charter.keys.sign
            && own(before)
            && own(charter)
            && signed(&before.keys.sign, &self.message(), &self.signature)
    }
}

/// The root's charter that successions lead to from a key that is known; `None` when none does.
pub fn follow_root<'a>(known: &[u8; 32], successions: &'a [Succession]) -> Option<&'a Charter> {
    let (mut at, mut newest) = (*known, None::<&Charter>);
    // Serials rise with each step, so that there is no way around in a circle.
    for _ in 0..SUCCESSIONS_MAX {
        let next = successions.iter().find(|next| {
            next.before.keys.sign == at
                && newest.is_none_or(|newest| newest.serial <= next.before.serial)
                && next.holds()
        });
        let Some(next) = next else { break };
        at = next.charter.keys.sign;
        newest = Some(&next.charter);
    }
    newest
}

impl Statement {
    /// The hash of the body that lies beside the entry, if it has one.
    pub fn body_hash(&self) -> Option<Hash> {
        match self {
            Statement::Published(published) => Some(published.hash),
            _ => None,
        }
    }
}

/// The root was shared among officers (分份), and every holder confirmed a share.
///
/// From the newest on, the recovery ledger is sealed to its key; shares of older ceremonies
/// open nothing that is sealed later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sharing {
    /// The plan that it was done under.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub plan: Hash,
    /// The ceremony's public header, which its shares are checked against; absent when a sharing
    /// ended without another.
    #[n(1)]
    pub header: Option<minicbor::bytes::ByteVec>,
    /// X-Wing public key, 1,216 bytes: what the recovery is sealed to; empty without a header.
    #[n(2)]
    pub public: minicbor::bytes::ByteVec,
}

/// What happened to a key epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum EpochStep {
    /// Whatever is sealed from here on is sealed under it.
    #[n(1)]
    Begun,
    /// Nothing is sealed under it, and its secret is destroyed.
    #[n(2)]
    Retired,
}

/// A key epoch of a shard began or was retired.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochChange {
    /// The shard.
    #[n(0)]
    pub origin: Origin,
    /// The epoch.
    #[n(1)]
    pub epoch: u32,
    /// What happened.
    #[n(2)]
    pub step: EpochStep,
    /// The plan that it was done under.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub plan: Hash,
}

/// A grant ended: its holder gets no key of a later epoch and drops what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantEnded {
    /// The grant.
    #[n(0)]
    pub grant: GrantId,
    /// Its shard.
    #[n(1)]
    pub origin: Origin,
    /// A reason code such as `expired` or `agreement-ended`.
    #[n(2)]
    pub reason: Kind,
    /// When: from then on the holder's receipt is awaited.
    #[n(3)]
    pub ended_at: UnixMillis,
}

/// How far a destruction reaches at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Finality {
    /// The bodies are overwritten. This node never had a key to them.
    #[n(1)]
    Overwritten,
    /// The keys were destroyed, too. What flash may have kept of the keystore that had them opens
    /// with the old key-encryption key only: it is final with its next rotation.
    #[n(2)]
    KeysDestroyed,
}

/// A holder's or parent's signed word that it destroyed what it held (销毁回执).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DestructionReceipt {
    /// The ledger whose entry ordered it: a shard's, or a grant's.
    #[n(0)]
    pub origin: Origin,
    /// Index of the `erase` or `retract` entry, or of the last entry when a grant ended.
    #[n(1)]
    pub index: u64,
    /// Which record; absent when a whole grant was dropped.
    #[n(2)]
    pub record: Option<RecordId>,
    /// How many bodies were destroyed.
    #[n(3)]
    pub bodies: u64,
    /// How far that reaches.
    #[n(4)]
    pub finality: Finality,
}

/// The level of a node in its realm.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Level {
    /// 区县
    #[n(1)]
    District,
    /// 镇街
    #[n(2)]
    Town,
    /// 社区、村
    #[n(3)]
    Community,
    /// 部门
    #[n(4)]
    Department,
}

impl Level {
    /// The level as the word used in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::District => "district",
            Level::Town => "town",
            Level::Community => "community",
            Level::Department => "department",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = crate::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "district" => Ok(Level::District),
            "town" => Ok(Level::Town),
            "community" => Ok(Level::Community),
            "department" => Ok(Level::Department),
            _ => Err(crate::id::IdError {
                what: "level",
                rule: "use district, town, community or department",
            }),
        }
    }
}

/// An official code of a division under one of the lists that exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct DivisionCode {
    /// `mca`, `nbs` or a local list: the same number means different towns in different lists.
    #[n(0)]
    pub scheme: Kind,
    /// The code.
    #[n(1)]
    pub code: String,
    /// First day of validity, `YYYY-MM-DD`.
    #[n(2)]
    pub valid_from: String,
}

/// The public keys of a node, each for one use.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeKeys {
    /// Ed25519: signs checkpoints, charters and service acts.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub sign: [u8; 32],
    /// Ed25519: cosigns checkpoints of others.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub witness: [u8; 32],
    /// Ed25519: says that entries and bodies are durable here (`held`).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub held: [u8; 32],
    /// Ed25519: the node's address on the network.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub transport: [u8; 32],
    /// X-Wing public key, 1,216 bytes: what is sealed to the node.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub seal: Vec<u8>,
}

/// A parent's signed statement that these keys are the node of a division (节点证书).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Charter {
    /// The crypto suite of the signature.
    #[n(0)]
    pub suite: u8,
    /// The realm.
    #[n(1)]
    pub realm: Realm,
    /// The division or organization.
    #[n(2)]
    pub division: DivisionId,
    /// Its name in Chinese, as shown.
    #[n(3)]
    pub name: String,
    /// Its level.
    #[n(4)]
    pub level: Level,
    /// Who issued it; the division itself at the root.
    #[n(5)]
    pub parent: DivisionId,
    /// Official codes.
    #[n(6)]
    pub codes: Vec<DivisionCode>,
    /// The node's public keys.
    #[n(7)]
    pub keys: NodeKeys,
    /// 1 for a division's first charter, one more for each that replaces it.
    #[n(8)]
    pub serial: u32,
    /// Valid from.
    #[n(9)]
    pub not_before: UnixMillis,
    /// Valid until.
    #[n(10)]
    pub not_after: UnixMillis,
    /// Ed25519 by the parent's `sign` key; zero until signed.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why a charter, or a chain of them, does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// Not a charter.
    #[error(transparent)]
    Format(#[from] CborError),
    /// The signature is not the issuer's.
    #[error(
        "the charter of `{division}` is not signed by `{parent}`; ask that node to issue it again"
    )]
    BadSignature {
        /// Whose charter.
        division: DivisionId,
        /// Who should have signed.
        parent: DivisionId,
    },
    /// The validity has ended or not begun.
    #[error(
        "the charter of `{division}` is not valid at this time; ask `{parent}` to renew it, and check both clocks"
    )]
    Expired {
        /// Whose charter.
        division: DivisionId,
        /// Who can renew it.
        parent: DivisionId,
    },
    /// A revocation is known.
    #[error("the charter of `{division}` was revoked; the node must be enrolled again")]
    Revoked {
        /// Whose charter.
        division: DivisionId,
    },
    /// The chain does not lead to the realm's root.
    #[error(
        "the charter of `{division}` does not lead to this realm's root; it belongs to another realm, or a charter between is missing"
    )]
    NoChain {
        /// Whose charter.
        division: DivisionId,
    },
}

impl Charter {
    fn message(&self) -> Vec<u8> {
        let mut unsigned = self.clone();
        unsigned.signature = [0; 64];
        let mut message = b"fangzhi/charter/v1\0".to_vec();
        message.extend(cbor::to_vec(&unsigned));
        message
    }

    /// Signs the charter with the parent's `sign` key.
    #[must_use]
    pub fn sign(mut self, parent: &SigningKey) -> Self {
        self.signature = parent.sign(&self.message()).to_bytes();
        self
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a charter.
    ///
    /// # Errors
    /// [`CharterError::Format`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CharterError> {
        let charter: Charter = cbor::from_slice("charter", bytes, CHARTER_MAX)?;
        if charter.suite == crate::entry::SUITE {
            Ok(charter)
        } else {
            Err(CborError::Malformed { what: "charter" }.into())
        }
    }

    /// SHA-256 of the canonical bytes: what a revocation names.
    pub fn id(&self) -> Hash {
        use sha2::{Digest, Sha256};
        Sha256::digest(self.encode()).into()
    }

    /// Checks the signature against the issuer's key.
    ///
    /// # Errors
    /// [`CharterError::BadSignature`].
    pub fn verify(&self, issuer: &[u8; 32]) -> Result<(), CharterError> {
        let bad = || CharterError::BadSignature {
            division: self.division.clone(),
            parent: self.parent.clone(),
        };
        let key = VerifyingKey::from_bytes(issuer).map_err(|_| bad())?;
        key.verify_strict(&self.message(), &Signature::from_bytes(&self.signature))
            .map_err(|_| bad())
    }
}

/// Checks a chain of charters, the node's first and the root's last.
///
/// `root` is the realm root's `sign` key, `revoked` answers whether a charter's id
/// is known to be revoked.
///
/// # Errors
/// The first [`CharterError`] from the root downward.
pub fn verify_chain(
    chain: &[Charter],
    realm: &Realm,
    root: &[u8; 32],
    now: UnixMillis,
    revoked: impl Fn(&Hash) -> bool,
) -> Result<(), CharterError> {
    let node = chain.first().ok_or(CborError::Malformed {
        what: "charter chain",
    })?;
    let no_chain = || CharterError::NoChain {
        division: node.division.clone(),
    };
    let top = chain.last().ok_or_else(no_chain)?;
    if top.keys.sign != *root || top.parent != top.division || chain.len() > 8 {
        return Err(no_chain());
    }
    for (at, charter) in chain.iter().enumerate().rev() {
        let issuer = chain.get(at + 1).unwrap_or(charter);
        if charter.realm != *realm || charter.parent != issuer.division {
            return Err(no_chain());
        }
        charter.verify(&issuer.keys.sign)?;
        if now < charter.not_before || now > charter.not_after {
            return Err(CharterError::Expired {
                division: charter.division.clone(),
                parent: charter.parent.clone(),
            });
        }
        if revoked(&charter.id()) {
            return Err(CharterError::Revoked {
                division: charter.division.clone(),
            });
        }
    }
    Ok(())
}

/// A charter is no longer valid.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// The charter's id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub charter: Hash,
    /// Whose it was.
    #[n(1)]
    pub division: DivisionId,
    /// A reason code such as `lost-key`.
    #[n(2)]
    pub reason: Kind,
}

/// What an operator is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Role {
    /// 登记员
    #[n(1)]
    Clerk,
    /// 网格员
    #[n(2)]
    GridWorker,
    /// 区县数据员
    #[n(3)]
    DistrictOfficer,
    /// 部门经办人
    #[n(4)]
    DepartmentOfficer,
    /// 审计员
    #[n(5)]
    Auditor,
    /// 安全员
    #[n(6)]
    SecurityOfficer,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 6] = [
        Role::Clerk,
        Role::GridWorker,
        Role::DistrictOfficer,
        Role::DepartmentOfficer,
        Role::Auditor,
        Role::SecurityOfficer,
    ];

    /// The role as the word used in policies and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Clerk => "clerk",
            Role::GridWorker => "grid-worker",
            Role::DistrictOfficer => "district-officer",
            Role::DepartmentOfficer => "department-officer",
            Role::Auditor => "auditor",
            Role::SecurityOfficer => "security-officer",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = crate::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(crate::id::IdError {
            what: "role",
            rule: "use clerk, grid-worker, district-officer, department-officer, auditor or security-officer",
        })
    }
}

/// An operator's key and role; the person's name is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OperatorCertificate {
    /// The operator.
    #[n(0)]
    pub operator: OperatorId,
    /// Ed25519 public key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The operator's organization, where the operator may read.
    #[n(2)]
    pub organization: DivisionId,
    /// The role.
    #[n(3)]
    pub role: Role,
    /// Valid until.
    #[n(4)]
    pub not_after: UnixMillis,
    /// Of a grid worker: a keyed hash of the grid that only the node can make, so that the
    /// certificate says which grid and tells it to nobody else.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub grid: Option<Hash>,
}

/// What one holder may hold of a shard (授权).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantStatement {
    /// The grant.
    #[n(0)]
    pub id: GrantId,
    /// The shard.
    #[n(1)]
    pub origin: Origin,
    /// Who receives.
    #[n(2)]
    pub holder: DivisionId,
    /// Id of the holder's charter, whose seal key the keys are sealed to.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub holder_charter: Hash,
    /// Field positions, ascending.
    #[n(4)]
    pub fields: Vec<u8>,
    /// The schema version that the positions belong to.
    #[n(5)]
    pub schema: u32,
    /// Keyed hash of the row condition, which may itself be personal: only the owner can make it.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub rows: Hash,
    /// What for.
    #[n(7)]
    pub purpose: Purpose,
    /// Legal basis, as a reference to a law article or agreement.
    #[n(8)]
    pub basis: String,
    /// Reference of the impact assessment (PIPL art. 55).
    #[n(9)]
    pub assessment: String,
    /// The shard's key epoch.
    #[n(10)]
    pub epoch: u32,
    /// SHA-256 of the sealed envelope of keys.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub envelope: Hash,
    /// SHA-256 of the policy set that decided it.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub policy: Hash,
    /// Ends by itself.
    #[n(13)]
    pub not_after: UnixMillis,
    /// Id of the owner's charter at that time, to which the envelope is bound.
    #[cbor(n(14), with = "minicbor::bytes")]
    pub owner_charter: Hash,
    /// Which versions of a record in scope the holder gets; `since` when it is absent.
    #[n(15)]
    pub history: Option<History>,
}

impl GrantStatement {
    /// Which versions of a record in scope the holder gets.
    pub fn history(&self) -> History {
        self.history.unwrap_or_default()
    }

    /// Whether both give the same fields of the same rows, with the same history.
    pub fn has_terms_of(&self, other: &Self) -> bool {
        self.fields == other.fields
            && self.rows == other.rows
            && self.history() == other.history()
            && self.origin == other.origin
            && self.holder == other.holder
    }
}

/// A set of policies, schemas or codes is in force.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InForce {
    /// `policies`, `schemas`, `codes` or `program`.
    #[n(0)]
    pub what: Kind,
    /// Its version.
    #[n(1)]
    pub version: u32,
    /// SHA-256 of its canonical form.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: Hash,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charter(division: &str, parent: &str, key: u8) -> Charter {
        let public = SigningKey::from_bytes(&[key; 32])
            .verifying_key()
            .to_bytes();
        Charter {
            suite: 1,
            realm: Realm::new("jiangjin.example").unwrap(),
            division: DivisionId::new(division).unwrap(),
            name: "示例".into(),
            level: Level::Town,
            parent: DivisionId::new(parent).unwrap(),
            codes: vec![],
            keys: NodeKeys {
                sign: public,
                witness: [1; 32],
                held: [2; 32],
                transport: [3; 32],
                seal: vec![4; 1216],
            },
            serial: 1,
            not_before: UnixMillis(10),
            not_after: UnixMillis(20),
            signature: [0; 64],
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn chain() -> (Vec<Charter>, [u8; 32]) {
        let root = charter("district", "district", 1).sign(&key(1));
        let town = charter("town", "district", 2).sign(&key(1));
        let community = charter("community", "town", 3).sign(&key(2));
        (
            vec![community, town, root],
            key(1).verifying_key().to_bytes(),
        )
    }

    fn check(chain: &[Charter], root: &[u8; 32], now: u64) -> Result<(), CharterError> {
        verify_chain(
            chain,
            &Realm::new("jiangjin.example").unwrap(),
            root,
            UnixMillis(now),
            |_| false,
        )
    }

    #[test]
    fn a_chain_to_the_root_holds_while_it_is_valid() {
        let (chain, root) = chain();
        check(&chain, &root, 15).unwrap();
        assert!(matches!(
            check(&chain, &root, 21),
            Err(CharterError::Expired { .. })
        ));
        assert!(matches!(
            check(&chain, &root, 9),
            Err(CharterError::Expired { .. })
        ));
    }

    #[test]
    fn a_chain_with_a_gap_another_root_or_a_forged_link_is_refused() {
        let (chain, root) = chain();
        assert!(check(&chain[..2], &root, 15).is_err());
        assert!(check(&[chain[0].clone(), chain[2].clone()], &root, 15).is_err());
        assert!(check(&chain, &[7; 32], 15).is_err());
        let mut forged = chain.clone();
        forged[0].keys.transport = [9; 32];
        assert!(matches!(
            check(&forged, &root, 15),
            Err(CharterError::BadSignature { .. })
        ));
        assert!(check(&[], &root, 15).is_err());
    }

    fn renewal() -> Renewal {
        let (chain, _) = chain();
        let keys = charter("town", "district", 7).keys;
        Renewal {
            division: chain[1].division.clone(),
            plan: [5; 32],
            replaces: chain[1].id(),
            keys,
            old: [0; 64],
            new: [0; 64],
        }
    }

    #[test]
    fn a_request_for_a_charter_needs_both_keys() {
        let old = key(2).verifying_key().to_bytes();
        let request = renewal().sign(&key(2), &key(7));
        assert!(request.is_signed_by(&old));
        assert!(!request.is_signed_by(&key(3).verifying_key().to_bytes()));
        // Somebody with the old key cannot name keys of others, nor the other way round.
        assert!(!renewal().sign(&key(2), &key(2)).is_signed_by(&old));
        assert!(!renewal().sign(&key(7), &key(7)).is_signed_by(&old));
        for alter in [
            |r: &mut Renewal| r.plan = [6; 32],
            |r: &mut Renewal| r.replaces = [6; 32],
            |r: &mut Renewal| r.keys.transport = [6; 32],
        ] {
            let mut altered = request.clone();
            alter(&mut altered);
            assert!(!altered.is_signed_by(&old));
        }
    }

    fn root_of(seed: u8, serial: u32) -> Charter {
        let mut next = charter("district", "district", seed);
        next.serial = serial;
        next.sign(&key(seed))
    }

    #[test]
    fn a_known_root_leads_forward_along_signed_successions_and_never_back() {
        let public = |seed: u8| key(seed).verifying_key().to_bytes();
        let second = Succession::sign(root_of(1, 1), root_of(8, 2), &key(1));
        let third = Succession::sign(root_of(8, 2), root_of(9, 3), &key(8));
        let all = [third.clone(), second.clone()];
        let reached = follow_root(&public(1), &all).unwrap();
        assert_eq!(reached.keys.sign, public(9));
        assert_eq!(follow_root(&public(8), &all).unwrap().serial, 3);
        assert!(follow_root(&public(9), &all).is_none());
        // A gap, a charter that the new key did not sign, and a way back are not followed.
        assert!(follow_root(&public(1), &all[..1]).is_none());
        let mut unsigned = root_of(8, 2);
        unsigned.signature = [0; 64];
        let unsigned = Succession::sign(root_of(1, 1), unsigned, &key(1));
        assert!(follow_root(&public(1), &[unsigned]).is_none());
        let back = Succession::sign(root_of(8, 2), root_of(1, 1), &key(8));
        let there_and_back = [second, back];
        let reached = follow_root(&public(1), &there_and_back).unwrap();
        assert_eq!(reached.keys.sign, public(8));
        let mut forged = third;
        forged.before = root_of(1, 1);
        assert!(follow_root(&public(1), &[forged]).is_none());
    }

    #[test]
    fn a_revoked_charter_anywhere_in_the_chain_is_refused() {
        let (chain, root) = chain();
        let town = chain[1].id();
        let realm = Realm::new("jiangjin.example").unwrap();
        let result = verify_chain(&chain, &realm, &root, UnixMillis(15), |id| *id == town);
        assert!(matches!(result, Err(CharterError::Revoked { .. })));
    }

    #[test]
    fn a_charter_reads_back_from_its_bytes_and_from_no_others() {
        let (chain, _) = chain();
        let bytes = chain[0].encode();
        assert_eq!(Charter::decode(&bytes).unwrap(), chain[0]);
        assert!(Charter::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
