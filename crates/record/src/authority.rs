//! What an `authority` ledger records: charters, operators, grants, policies, schemas.
//!
//! All of it is public to auditors, so none of it names a person: an operator is a
//! random identifier, a role and a key.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::cbor::{self, CborError};
use crate::id::{
    DivisionId, GrantId, Hash, Kind, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis,
};
use crate::plan::{Approval, Plan, PlanClosed};
use crate::published::{Declined, Published};

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
    /// The realm's root published policies, schemas or codes; they are the entry's body.
    #[n(14)]
    Published(#[n(0)] Published),
    /// This node holds a published set and does not run it.
    #[n(20)]
    Declined(#[n(0)] Declined),
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
