//! Joining by file (入网申请与准入): a node without a line asks its parent for a charter, and gets it.
//!
//! Owns both files: one spelling of JSON, every field in clear, since no field is secret. The request
//! shows that its keys are the asker's (a signature with each of them) and that the asker has the
//! invitation (a proof that whoever lacks it cannot make); the secret itself is not in it. The
//! admission is a chain of charters, which says by itself whose it is.
//! Refuses another spelling, unknown fields, keys of other lengths, and a signature that does not fit.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use record::authority::{Charter, NodeKeys};
use record::id::{DivisionId, Realm, UnixMillis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sync::limits::CHAIN_MAX;

use crate::hex::Hex;
use crate::limits::{ADMISSION_BYTES_MAX, FORMAT, REQUEST_BYTES_MAX};

/// Bytes of an X-Wing public key.
const SEAL_BYTES: usize = 1216;

/// What the file is, so that a boundary scanner and a person can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// From the node that is to join.
    JoinRequest,
    /// From its parent.
    Admission,
}

/// The keys to be chartered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// As [`NodeKeys::sign`].
    pub sign: Hex<32>,
    /// As [`NodeKeys::witness`].
    pub witness: Hex<32>,
    /// As [`NodeKeys::held`].
    pub held: Hex<32>,
    /// As [`NodeKeys::transport`].
    pub transport: Hex<32>,
    /// As [`NodeKeys::seal`]. Whoever lacks its private half opens no bundle.
    pub seal: Hex<SEAL_BYTES>,
}

/// One signature with each signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// With `sign`.
    pub sign: Hex<64>,
    /// With `witness`.
    pub witness: Hex<64>,
    /// With `held`.
    pub held: Hex<64>,
    /// With `transport`.
    pub transport: Hex<64>,
}

/// A node's request to be chartered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`FORMAT`].
    pub format: u32,
    /// [`What::JoinRequest`].
    pub what: What,
    /// The realm.
    pub realm: Realm,
    /// Who is asked.
    pub parent: DivisionId,
    /// Who asks.
    pub division: DivisionId,
    /// When, by its clock.
    pub made: UnixMillis,
    /// Its public keys.
    pub keys: Keys,
    /// That it has the invitation: a MAC over [`JoinRequest::proven`].
    pub proof: Hex<32>,
    /// That the keys are its own.
    pub signatures: Signatures,
}

/// The parent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// [`FORMAT`].
    pub format: u32,
    /// [`What::Admission`].
    pub what: What,
    /// The realm.
    pub realm: Realm,
    /// Who admits.
    pub parent: DivisionId,
    /// Who is admitted.
    pub division: DivisionId,
    /// When, by the parent's clock.
    pub made: UnixMillis,
    /// The admitted node's charter first, the root's last, each hexadecimal CBOR.
    pub chain: Vec<String>,
}

/// Why a file is no request, or no admission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoiningError {
    /// Not JSON of these fields, in the one spelling.
    #[error(
        "不是入网文件，或被改过 / the file is not what it should be, or was edited: {what}; copy it again from where it was written"
    )]
    Malformed {
        /// Where the reader stopped.
        what: String,
    },
    /// Of another version.
    #[error("版本不同 / the file has format {0}; update the older of the two nodes")]
    Version(u32),
    /// A signature is not by the key that the request names.
    #[error(
        "申请签名不符 / the request is not signed with the keys that it names; it was altered: copy it again, or let the node ask anew"
    )]
    Signature,
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("text and numbers become JSON");
    bytes.push(b'\n');
    bytes
}

fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, JoiningError> {
    let malformed = |what: &str| JoiningError::Malformed { what: what.into() };
    if bytes.len() > max {
        return Err(malformed("it is too long"));
    }
    let value: T = serde_json::from_slice(bytes).map_err(|error| {
        // Where, and not what: the reader's own words may quote the file.
        malformed(&format!("line {}, column {}", error.line(), error.column()))
    })?;
    match encode(&value) == bytes {
        true => Ok(value),
        false => Err(malformed("another spelling than the one that is written")),
    }
}

fn expect(format: u32, what: What, expected: What) -> Result<(), JoiningError> {
    if format != FORMAT {
        return Err(JoiningError::Version(format));
    }
    if what != expected {
        let what = "it is the other of the two files".into();
        return Err(JoiningError::Malformed { what });
    }
    Ok(())
}

impl JoinRequest {
    /// A request without proof and signatures.
    ///
    /// # Errors
    /// [`JoiningError::Malformed`] when the sealing key has another length than X-Wing's.
    pub fn new(
        realm: Realm,
        (parent, division): (DivisionId, DivisionId),
        keys: &NodeKeys,
        made: UnixMillis,
    ) -> Result<Self, JoiningError> {
        let seal = keys.seal.as_slice().try_into();
        let seal = seal.map_err(|_| JoiningError::Malformed {
            what: "a sealing key of another length".into(),
        })?;
        let none = Hex([0; 64]);
        Ok(Self {
            format: FORMAT,
            what: What::JoinRequest,
            realm,
            parent,
            division,
            made,
            keys: Keys {
                sign: Hex(keys.sign),
                witness: Hex(keys.witness),
                held: Hex(keys.held),
                transport: Hex(keys.transport),
                seal: Hex(seal),
            },
            proof: Hex([0; 32]),
            signatures: Signatures {
                sign: none,
                witness: none,
                held: none,
                transport: none,
            },
        })
    }

    /// The keys, as a charter names them.
    pub fn keys(&self) -> NodeKeys {
        NodeKeys {
            sign: self.keys.sign.0,
            witness: self.keys.witness.0,
            held: self.keys.held.0,
            transport: self.keys.transport.0,
            seal: self.keys.seal.0.to_vec(),
        }
    }

    /// What the proof is over: everything but itself and the signatures.
    pub fn proven(&self) -> Vec<u8> {
        let mut bare = self.unsigned();
        bare.proof = Hex([0; 32]);
        [&b"fangzhi/join-request/v1\0"[..], &encode(&bare)].concat()
    }

    /// What is signed: everything but the signatures.
    fn signed(&self) -> Vec<u8> {
        [
            &b"fangzhi/join-request-keys/v1\0"[..],
            &encode(&self.unsigned()),
        ]
        .concat()
    }

    fn unsigned(&self) -> Self {
        let none = Hex([0; 64]);
        Self {
            signatures: Signatures {
                sign: none,
                witness: none,
                held: none,
                transport: none,
            },
            ..self.clone()
        }
    }

    /// Signs with `sign`, `witness`, `held` and `transport`, in this order.
    #[must_use]
    pub fn sign(mut self, keys: [&SigningKey; 4]) -> Self {
        let message = self.signed();
        let [sign, witness, held, transport] = keys.map(|key| Hex(key.sign(&message).to_bytes()));
        self.signatures = Signatures {
            sign,
            witness,
            held,
            transport,
        };
        self
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a file and checks that it is signed with every key that it names. Whether the proof
    /// holds is for whoever gave the invitation to say.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, JoiningError> {
        let request: Self = decode(bytes, REQUEST_BYTES_MAX)?;
        expect(request.format, request.what, What::JoinRequest)?;
        let message = request.signed();
        let (keys, by) = (&request.keys, &request.signatures);
        let pairs = [
            (keys.sign, by.sign),
            (keys.witness, by.witness),
            (keys.held, by.held),
            (keys.transport, by.transport),
        ];
        let holds = pairs.into_iter().all(|(key, signature)| {
            VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
                let signature = Signature::from_bytes(&signature.0);
                key.verify_strict(&message, &signature).is_ok()
            })
        });
        match holds {
            true => Ok(request),
            false => Err(JoiningError::Signature),
        }
    }
}

impl Admission {
    /// An admission with the charters that it brings, the admitted node's first.
    pub fn new(
        realm: Realm,
        (parent, division): (DivisionId, DivisionId),
        chain: &[Charter],
        made: UnixMillis,
    ) -> Self {
        let hex = |charter: &Charter| data_encoding::HEXLOWER.encode(&charter.encode());
        Self {
            format: FORMAT,
            what: What::Admission,
            realm,
            parent,
            division,
            made,
            chain: chain.iter().map(hex).collect(),
        }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a file. Whether its charters hold is for whoever knows the realm's root to say.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, JoiningError> {
        let admission: Self = decode(bytes, ADMISSION_BYTES_MAX)?;
        expect(admission.format, admission.what, What::Admission)?;
        admission.charters()?;
        Ok(admission)
    }

    /// The charters inside.
    ///
    /// # Errors
    /// [`JoiningError::Malformed`].
    pub fn charters(&self) -> Result<Vec<Charter>, JoiningError> {
        let read = |hex: &String| {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
            bytes.and_then(|bytes| Charter::decode(&bytes).ok())
        };
        let charters: Option<Vec<Charter>> = self.chain.iter().map(read).collect();
        charters
            .filter(|charters| (1..=CHAIN_MAX).contains(&charters.len()))
            .ok_or_else(|| JoiningError::Malformed {
                what: "a charter cannot be read".into(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn public(number: u8) -> [u8; 32] {
        key(number).verifying_key().to_bytes()
    }

    fn request() -> JoinRequest {
        let keys = NodeKeys {
            sign: public(1),
            witness: public(2),
            held: public(3),
            transport: public(4),
            seal: vec![5; SEAL_BYTES],
        };
        let division = |text| DivisionId::new(text).unwrap();
        let realm = Realm::new("jiangjin.example").unwrap();
        let between = (division("jiangjin"), division("jinfu"));
        let mut request =
            JoinRequest::new(realm, between, &keys, UnixMillis(1_795_000_000_000)).unwrap();
        request.proof = Hex([9; 32]);
        request.sign([&key(1), &key(2), &key(3), &key(4)])
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let bytes = request().encode();
        assert_eq!(JoinRequest::decode(&bytes), Ok(request()));
        assert_eq!(request().keys().seal.len(), SEAL_BYTES);
        assert!(bytes.len() < REQUEST_BYTES_MAX / 2);
    }

    #[test]
    fn whoever_lacks_one_of_the_keys_asks_for_nothing() {
        for lacking in 0..4 {
            let mut keys = [key(1), key(2), key(3), key(4)];
            keys[lacking] = key(8);
            let forged = request().sign(keys.each_ref()).encode();
            assert_eq!(JoinRequest::decode(&forged), Err(JoiningError::Signature));
        }
    }

    #[test]
    fn no_field_can_be_changed_under_the_signatures() {
        type Edit = fn(&mut JoinRequest);
        let edits: [Edit; 6] = [
            |r| r.realm = Realm::new("other.example").unwrap(),
            |r| r.parent = DivisionId::new("shuangfu").unwrap(),
            |r| r.division = DivisionId::new("fucheng").unwrap(),
            |r| r.made = UnixMillis(r.made.0 + 1),
            |r| r.keys.seal.0[7] ^= 1,
            |r| r.proof.0[7] ^= 1,
        ];
        for edit in edits {
            let mut edited = request();
            edit(&mut edited);
            assert_ne!(edited, request());
            let decoded = JoinRequest::decode(&edited.encode());
            assert_eq!(decoded, Err(JoiningError::Signature));
        }
    }

    #[test]
    fn the_proof_is_over_everything_but_itself_and_the_signatures() {
        let mut other = request();
        other.proof = Hex([0; 32]);
        other = other.sign([&key(5), &key(5), &key(5), &key(5)]);
        assert_eq!(other.proven(), request().proven());
        other.keys.held = Hex([1; 32]);
        assert_ne!(other.proven(), request().proven());
    }

    #[test]
    fn another_spelling_and_the_other_file_are_refused() {
        let text = String::from_utf8(request().encode()).unwrap();
        for other in [
            text.replacen("  ", "   ", 1),
            text.trim_end().to_owned(),
            text.replacen('{', "{\n  \"note\": 1,", 1),
            text.replacen("join-request", "admission", 1),
            String::new(),
        ] {
            let decoded = JoinRequest::decode(other.as_bytes());
            assert!(
                matches!(decoded, Err(JoiningError::Malformed { .. })),
                "{decoded:?}"
            );
        }
        let newer = text.replacen("\"format\": 1", "\"format\": 2", 1);
        assert_eq!(
            JoinRequest::decode(newer.as_bytes()),
            Err(JoiningError::Version(2))
        );
        assert!(Admission::decode(text.as_bytes()).is_err());
    }
}
