//! The manifest (清单): who sends what to whom, in JSON, signed by the sender's node.
//!
//! Owns everything that is in clear, each field of one type and within bounds, and the arithmetic
//! between them. Refuses a spelling other than the one that this module writes, unknown fields, sums
//! that do not add up, and a signature that is not the sender's.

use std::collections::BTreeSet;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use record::authority::Charter;
use record::entry::SUITE;
use record::id::{DivisionId, Hash, Origin, Realm, UnixMillis};
use seal::ferry::{CHUNK_SEALED_BYTES, CHUNK_TAG_BYTES, FerryInfo, SEALED_KEY_BYTES};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync::limits::CHAIN_MAX;

use crate::hex::Hex;
use crate::limits::{FORMAT, LEDGERS_MAX, MANIFEST_BYTES_MAX, PARTS_MAX, PAYLOAD_BYTES_MAX};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It brings ledgers on, and answers what came the other way.
    Bundle,
    /// It only answers.
    Receipt,
}

/// One of the two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its division.
    pub division: DivisionId,
    /// Id of its charter.
    pub charter: Hex<32>,
}

/// The newest bundle that came the other way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its manifest.
    pub manifest: Hex<32>,
}

/// What of a ledger is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerRange {
    /// Which ledger.
    pub origin: Origin,
    /// Index of the first entry.
    pub from: u64,
    /// Size of the signed head.
    pub to: u64,
    /// Its root.
    pub root: Hex<32>,
}

/// The only ciphertext: the chunks, cut into the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The crypto suite.
    pub suite: u8,
    /// The payload key, sealed to the receiver.
    pub key: Hex<SEALED_KEY_BYTES>,
    /// Sealed bytes, over all parts.
    pub bytes: u64,
    /// Frames inside.
    pub frames: u64,
}

/// One file's share of the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its bytes, after first line and manifest.
    pub bytes: u64,
    /// SHA-256 of these.
    pub sha256: Hex<32>,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// What the file is for.
    pub kind: Kind,
    /// The realm.
    pub realm: Realm,
    /// The sender.
    pub from: Party,
    /// The receiver, and the only one who can open the payload.
    pub to: Party,
    /// Number of the bundle among those from this sender to this receiver, from 1; 0 of a receipt.
    pub number: u64,
    /// The bundle that this one goes on from: whoever opened it lacks nothing; 0 for none.
    pub after: u64,
    /// SHA-256 of that bundle's manifest.
    pub previous: Option<Hex<32>>,
    /// Whether the sender expects no receipt.
    pub one_way: bool,
    /// When it was made, by the sender's clock.
    pub made: UnixMillis,
    /// What the sender has opened of the receiver's.
    pub acknowledges: Option<Acknowledged>,
    /// The ledgers, in the order in which they lie inside.
    pub ledgers: Vec<LedgerRange>,
    /// The ciphertext.
    pub payload: Payload,
    /// The files.
    pub parts: Vec<Part>,
    /// The sender's charter first, the root's last, each hexadecimal CBOR.
    pub chain: Vec<String>,
}

/// Why bytes are no manifest, or one that may not be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than a manifest may be.
    #[error(
        "清单过长 / the manifest has more than {MANIFEST_BYTES_MAX} bytes; split the bundle with `--since`"
    )]
    TooLong,
    /// Not JSON of these fields.
    #[error("清单无法读取 / the manifest cannot be read: {what}; copy the file again")]
    Malformed {
        /// What the reader says.
        what: String,
    },
    /// Not as this program writes it.
    #[error("清单不是唯一写法 / the manifest is not in its one spelling; it was edited")]
    NotCanonical,
    /// Of another version.
    #[error(
        "清单版本不同 / the manifest has format {format} and suite {suite}; update the older of the two nodes"
    )]
    Version {
        /// Its format.
        format: u32,
        /// Its suite.
        suite: u8,
    },
    /// Fields that contradict each other.
    #[error(
        "清单前后不符：{what} / the manifest contradicts itself: {what}; ask the sender to pack again"
    )]
    Inconsistent {
        /// Which.
        what: &'static str,
    },
    /// Not signed by the charter that it carries.
    #[error(
        "清单签名不符 / the manifest is not signed by the sender's charter that it carries; it was altered"
    )]
    Signature,
}

impl Manifest {
    /// The bytes that are signed and hashed: JSON with line breaks, and one at the end.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("text and numbers become JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads and checks a manifest, all but its signature.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong);
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| {
            // Where, and not what: the reader's own words may quote the file.
            let what = format!("line {}, column {}", error.line(), error.column());
            ManifestError::Malformed { what }
        })?;
        if manifest.encode() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// SHA-256 of a manifest's bytes, by which the next one names it.
    pub fn hash(bytes: &[u8]) -> Hash {
        Sha256::digest(bytes).into()
    }

    /// What the sender signs.
    pub fn message(bytes: &[u8]) -> Vec<u8> {
        let mut message = b"fangzhi/ferry-manifest/v1\0".to_vec();
        message.extend(Self::hash(bytes));
        message
    }

    /// Signs a manifest's bytes.
    pub fn sign(bytes: &[u8], key: &SigningKey) -> [u8; 64] {
        key.sign(&Self::message(bytes)).to_bytes()
    }

    /// Checks the signature against the sender's charter inside. That the charter holds is another
    /// question, for whoever knows the realm's root.
    ///
    /// # Errors
    /// [`ManifestError::Signature`].
    pub fn verify(&self, bytes: &[u8], signature: &[u8; 64]) -> Result<(), ManifestError> {
        let charters = self.charters()?;
        let sender = charters.first().ok_or(ManifestError::Signature)?;
        let key = VerifyingKey::from_bytes(&sender.keys.sign);
        let key = key.map_err(|_| ManifestError::Signature)?;
        key.verify_strict(&Self::message(bytes), &Signature::from_bytes(signature))
            .map_err(|_| ManifestError::Signature)
    }

    /// The charters inside, the sender's first.
    ///
    /// # Errors
    /// [`ManifestError::Inconsistent`].
    pub fn charters(&self) -> Result<Vec<Charter>, ManifestError> {
        let read = |hex: &String| {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
            bytes.and_then(|bytes| Charter::decode(&bytes).ok())
        };
        let charters: Option<Vec<Charter>> = self.chain.iter().map(read).collect();
        charters.ok_or(ManifestError::Inconsistent {
            what: "a charter cannot be read",
        })
    }

    /// What the payload key is bound to.
    pub fn info(&self) -> FerryInfo {
        FerryInfo {
            realm: self.realm.clone(),
            sender: self.from.charter.0,
            receiver: self.to.charter.0,
            number: self.number,
            after: self.after,
        }
    }

    /// Entries inside, over all ledgers.
    pub fn entries(&self) -> u64 {
        let counts = self.ledgers.iter().map(|ledger| ledger.to - ledger.from);
        counts.fold(0, u64::saturating_add)
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT || self.payload.suite != SUITE {
            return Err(ManifestError::Version {
                format: self.format,
                suite: self.payload.suite,
            });
        }
        let must = |holds: bool, what: &'static str| match holds {
            true => Ok(()),
            false => Err(ManifestError::Inconsistent { what }),
        };
        must(
            self.from.division != self.to.division,
            "sender and receiver are one",
        )?;
        must(
            (1..=CHAIN_MAX).contains(&self.chain.len()),
            "no chain of charters",
        )?;
        let charters = self.charters()?;
        must(
            charters.iter().all(|charter| charter.realm == self.realm),
            "a charter of another realm",
        )?;
        must(
            charters.first().is_some_and(|charter| {
                charter.division == self.from.division && charter.id() == self.from.charter.0
            }),
            "the first charter is not the sender's",
        )?;
        match self.kind {
            Kind::Bundle => {
                must(self.number > self.after, "a bundle goes on from itself")?;
                must(
                    self.previous.is_some() == (self.after > 0),
                    "`previous` and `after`",
                )?;
            }
            Kind::Receipt => must(
                self.number == 0
                    && self.after == 0
                    && self.previous.is_none()
                    && self.ledgers.is_empty(),
                "a receipt with a number or with ledgers",
            )?,
        }
        must(
            self.acknowledges.as_ref().is_none_or(|a| a.number > 0),
            "bundle 0 is acknowledged",
        )?;
        must(self.ledgers.len() <= LEDGERS_MAX, "too many ledgers")?;
        let mut seen = BTreeSet::new();
        for ledger in &self.ledgers {
            must(ledger.from <= ledger.to, "a ledger ends before it begins")?;
            must(
                ledger.origin.realm() == self.realm,
                "a ledger of another realm",
            )?;
            must(seen.insert(&ledger.origin), "a ledger twice")?;
        }
        self.check_payload(must)
    }

    /// Whether chunks and parts add up: what is declared bounds all that is read later.
    fn check_payload(
        &self,
        must: impl Fn(bool, &'static str) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let total = self.payload.bytes;
        must(total <= PAYLOAD_BYTES_MAX, "the payload is too long")?;
        let (chunk, tag) = (CHUNK_SEALED_BYTES as u64, CHUNK_TAG_BYTES as u64);
        let rest = total % chunk;
        must(
            total >= tag && (rest == 0 || rest > tag || total == tag),
            "the payload is no number of chunks",
        )?;
        // A frame has a length, a kind, and at least a byte.
        must(
            self.payload.frames <= total / 6,
            "more frames than the payload can hold",
        )?;
        must(
            (1..=PARTS_MAX).contains(&self.parts.len()),
            "no part, or too many",
        )?;
        must(
            self.parts.iter().all(|part| part.bytes > 0),
            "an empty part",
        )?;
        let sum = self.parts.iter().try_fold(0u64, |sum, part| {
            sum.checked_add(part.bytes).filter(|sum| *sum <= total)
        });
        must(
            sum == Some(total),
            "the parts are not as long as the payload",
        )
    }
}
