//! The keystore (密钥库): all private keys of a node, in one small file under one key-encryption key.
//!
//! A random file key seals the keys, a [`KeyProvider`] wraps the file key: so a key in
//! hardware wraps 32 bytes and never sees the rest. Format: `docs/formats/keystore.md`.
//! Record secrets are not in here, only the keys of their pages, so that a node with a
//! million records starts as fast as one with ten. This module writes no file.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use record::authority::NodeKeys;
use record::cbor::{self, CborError};
use record::id::Origin;

use crate::blob::{self, BlobError};
use crate::grant::SealPrivateKey;
use crate::passphrase::Argon2Params;
pub use crate::provider::{KeyError, KeyProvider, SoftwareKey};
use crate::secret::{
    BlobKey, EpochSecret, MarkKey, PageKey, Raw, Seed, decode_wiped, encode_wiped,
};

/// The version of the keystore format.
pub const FORMAT: u8 = 1;
/// The largest keystore file.
pub const KEYSTORE_MAX: usize = 16 * 1024 * 1024;
const USAGE: &str = "fangzhi/keystore/v1";

/// The most seal keys of before that are kept: the oldest goes first.
pub const FORMER_MAX: usize = 8;

/// The five keys of a node that a charter names.
#[derive(Debug)]
pub struct NodeSeeds {
    /// Signs checkpoints, charters, and acts under standing orders.
    pub sign: Seed,
    /// Cosigns checkpoints.
    pub witness: Seed,
    /// Signs `held`.
    pub held: Seed,
    /// The libp2p identity.
    pub transport: Seed,
    /// Opens envelopes.
    pub seal: SealPrivateKey,
}

impl NodeSeeds {
    /// Fresh keys.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            sign: Seed::generate(rng),
            witness: Seed::generate(rng),
            held: Seed::generate(rng),
            transport: Seed::generate(rng),
            seal: SealPrivateKey::generate(rng),
        }
    }

    /// The public halves, as a charter names them.
    pub fn public_keys(&self) -> NodeKeys {
        let public = |seed: &Seed| seed.signing_key().verifying_key().to_bytes();
        NodeKeys {
            sign: public(&self.sign),
            witness: public(&self.witness),
            held: public(&self.held),
            transport: public(&self.transport),
            seal: self.seal.public(),
        }
    }
}

/// A node's private keys, open.
#[derive(Debug)]
pub struct Keystore {
    /// Signs checkpoints, charters, and acts under standing orders.
    pub sign: Seed,
    /// Cosigns checkpoints.
    pub witness: Seed,
    /// Signs `held`.
    pub held: Seed,
    /// The libp2p identity.
    pub transport: Seed,
    /// Opens envelopes.
    pub seal: SealPrivateKey,
    /// The epoch secrets of this node's shards.
    pub epochs: BTreeMap<(Origin, u32), EpochSecret>,
    /// The keys of the pages of record secrets.
    pub pages: BTreeMap<u64, PageKey>,
    /// Seals the working index at rest.
    pub index: BlobKey,
    /// Seals access bodies.
    pub access: BlobKey,
    /// Computes marks.
    pub mark: MarkKey,
    /// The node keys that wait for their charter, while the node rotates them.
    pub next: Option<NodeSeeds>,
    /// Seal keys of charters before, the oldest first: they open what was sealed to them.
    pub former: Vec<SealPrivateKey>,
}

/// Why a keystore cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// The bytes are no keystore.
    #[error("the keystore cannot be read; restore it from a backup")]
    Bytes(#[from] CborError),
    /// The key-encryption key is not available or not the right one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file key is right, the rest was altered.
    #[error("the keystore was altered; restore it from a backup")]
    Altered(#[source] BlobError),
    /// It opens to something else.
    #[error("the keystore opens to malformed keys; it was written by another version")]
    Malformed,
    /// The keystore would be over [`KEYSTORE_MAX`].
    #[error(
        "the keystore would have {size} bytes and may have {KEYSTORE_MAX}; retire old epochs and merge pages"
    )]
    TooLarge {
        /// Bytes that it would have.
        size: usize,
    },
}

/// What authenticates the sealed keys besides the file key.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct Header {
    #[n(0)]
    format: u8,
    #[n(1)]
    suite: u8,
    #[n(2)]
    passphrase: Option<Argon2Params>,
    #[n(3)]
    wrapped: ByteVec,
}

#[derive(Encode, Decode)]
struct Wire {
    #[n(0)]
    header: Header,
    #[n(1)]
    sealed: ByteVec,
}

#[derive(Encode, Decode)]
struct Epoch {
    #[n(0)]
    origin: Origin,
    #[n(1)]
    epoch: u32,
    #[n(2)]
    secret: Raw,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[n(0)]
    sign: Raw,
    #[n(1)]
    witness: Raw,
    #[n(2)]
    held: Raw,
    #[n(3)]
    transport: Raw,
    #[n(4)]
    seal: Raw,
    #[n(5)]
    epochs: Vec<Epoch>,
    #[n(6)]
    pages: BTreeMap<u64, Raw>,
    #[n(7)]
    index: Raw,
    #[n(8)]
    access: Raw,
    #[n(9)]
    mark: Raw,
    /// Absent but while node keys are rotated: `sign`, `witness`, `held`, `transport`, `seal`.
    #[n(10)]
    next: Option<Vec<Raw>>,
    /// Absent when there is none.
    #[n(11)]
    former: Option<Vec<Raw>>,
}

impl Keystore {
    /// Fresh keys for a node without shards.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            sign: Seed::generate(rng),
            witness: Seed::generate(rng),
            held: Seed::generate(rng),
            transport: Seed::generate(rng),
            seal: SealPrivateKey::generate(rng),
            epochs: BTreeMap::new(),
            pages: BTreeMap::new(),
            index: BlobKey::generate(rng),
            access: BlobKey::generate(rng),
            mark: MarkKey::generate(rng),
            next: None,
            former: Vec::new(),
        }
    }

    /// Other node keys, for another charter. Epoch secrets, page keys and the rest stay.
    pub fn renew(&mut self, rng: &mut (impl CryptoRng + ?Sized)) {
        self.take(NodeSeeds::generate(rng));
    }

    /// Takes the node keys of another keystore, and nothing else of it.
    pub fn adopt(&mut self, other: Self) {
        self.take(NodeSeeds {
            sign: other.sign,
            witness: other.witness,
            held: other.held,
            transport: other.transport,
            seal: other.seal,
        });
    }

    /// Takes up the node keys that waited for their charter; `false` when none did.
    pub fn take_next(&mut self) -> bool {
        let next = self.next.take();
        next.map(|next| self.take(next)).is_some()
    }

    /// Puts node keys in the place of the present ones. The seal key stays among those of before:
    /// what is sealed to it is opened until somebody seals it anew.
    fn take(&mut self, keys: NodeSeeds) {
        let former = std::mem::replace(&mut self.seal, keys.seal);
        if self.former.len() == FORMER_MAX {
            self.former.remove(0);
        }
        self.former.push(former);
        self.sign = keys.sign;
        self.witness = keys.witness;
        self.held = keys.held;
        self.transport = keys.transport;
        self.next = None;
    }

    /// The node keys in force, once more.
    pub fn node_seeds(&self) -> NodeSeeds {
        NodeSeeds {
            sign: self.sign.duplicate(),
            witness: self.witness.duplicate(),
            held: self.held.duplicate(),
            transport: self.transport.duplicate(),
            seal: self.seal.duplicate(),
        }
    }

    /// The public halves, as a charter names them.
    pub fn public_keys(&self) -> NodeKeys {
        self.node_seeds().public_keys()
    }

    /// Seals the keystore under a provider's key, with a fresh file key each time.
    ///
    /// # Errors
    /// [`KeystoreError`] when the provider fails or the result would be too large.
    pub fn seal(
        &self,
        provider: &dyn KeyProvider,
        mut rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, KeystoreError> {
        let mut file_key = Raw([0; 32]);
        rng.fill_bytes(&mut file_key.0);
        let header = Header {
            format: FORMAT,
            suite: provider.suite(),
            passphrase: provider.passphrase(),
            wrapped: provider.wrap(&file_key.0, &mut rng)?.into(),
        };
        let plain = self.expose();
        let aad = cbor::to_vec(&header);
        let sealed = blob::seal(&file_key.0, USAGE, &aad, &plain, rng).into();
        let bytes = cbor::to_vec(&Wire { header, sealed });
        match bytes.len() {
            size if size > KEYSTORE_MAX => Err(KeystoreError::TooLarge { size }),
            _ => Ok(bytes),
        }
    }

    /// Opens a keystore.
    ///
    /// # Errors
    /// [`KeystoreError`]: not a keystore, not this key, or altered.
    pub fn open(bytes: &[u8], provider: &dyn KeyProvider) -> Result<Self, KeystoreError> {
        let wire = read(bytes)?;
        if wire.header.suite != provider.suite() {
            return Err(CborError::Malformed { what: "keystore" }.into());
        }
        let file_key = provider.unwrap(&wire.header.wrapped)?;
        let aad = cbor::to_vec(&wire.header);
        let plain =
            blob::open(&file_key, USAGE, &aad, &wire.sealed).map_err(KeystoreError::Altered)?;
        Self::from_exposed(&plain)
    }

    /// The keys in the clear, as [`Keystore::seal`] seals them. Whoever calls this answers for
    /// where they go: they are sealed to the recovery key.
    pub fn expose(&self) -> zeroize::Zeroizing<Vec<u8>> {
        // An epoch takes at most 258 + 5 + 34 + 1 bytes, a page 9 + 34; node keys of before and to
        // come take 34 each, and there are at most 13.
        let capacity = 1024 + 300 * self.epochs.len() + 43 * self.pages.len();
        encode_wiped(&self.payload(), capacity)
    }

    /// Reads what [`Keystore::expose`] gave.
    ///
    /// # Errors
    /// [`KeystoreError::Malformed`].
    pub fn from_exposed(plain: &[u8]) -> Result<Self, KeystoreError> {
        let payload: Payload = decode_wiped(plain).ok_or(KeystoreError::Malformed)?;
        let in_order = payload
            .epochs
            .windows(2)
            .all(|pair| (&pair[0].origin, pair[0].epoch) < (&pair[1].origin, pair[1].epoch));
        let former = payload.former.as_ref();
        let bounded = payload.next.as_ref().is_none_or(|next| next.len() == 5)
            && former.is_none_or(|former| !former.is_empty() && former.len() <= FORMER_MAX);
        if !in_order || !bounded {
            return Err(KeystoreError::Malformed);
        }
        Ok(Self::from_payload(&payload))
    }

    fn payload(&self) -> Payload {
        Payload {
            sign: (&self.sign).into(),
            witness: (&self.witness).into(),
            held: (&self.held).into(),
            transport: (&self.transport).into(),
            seal: Raw(*self.seal.expose()),
            epochs: self
                .epochs
                .iter()
                .map(|((origin, epoch), secret)| Epoch {
                    origin: origin.clone(),
                    epoch: *epoch,
                    secret: secret.into(),
                })
                .collect(),
            pages: self
                .pages
                .iter()
                .map(|(page, key)| (*page, key.into()))
                .collect(),
            index: (&self.index).into(),
            access: (&self.access).into(),
            mark: (&self.mark).into(),
            next: self.next.as_ref().map(|next| {
                vec![
                    (&next.sign).into(),
                    (&next.witness).into(),
                    (&next.held).into(),
                    (&next.transport).into(),
                    Raw(*next.seal.expose()),
                ]
            }),
            former: (!self.former.is_empty())
                .then(|| self.former.iter().map(|key| Raw(*key.expose())).collect()),
        }
    }

    fn from_payload(payload: &Payload) -> Self {
        Self {
            sign: (&payload.sign).into(),
            witness: (&payload.witness).into(),
            held: (&payload.held).into(),
            transport: (&payload.transport).into(),
            seal: SealPrivateKey::from_bytes(payload.seal.0),
            epochs: payload
                .epochs
                .iter()
                .map(|epoch| ((epoch.origin.clone(), epoch.epoch), (&epoch.secret).into()))
                .collect(),
            pages: payload
                .pages
                .iter()
                .map(|(page, key)| (*page, key.into()))
                .collect(),
            index: (&payload.index).into(),
            access: (&payload.access).into(),
            mark: (&payload.mark).into(),
            next: match payload.next.as_deref() {
                Some([sign, witness, held, transport, seal]) => Some(NodeSeeds {
                    sign: sign.into(),
                    witness: witness.into(),
                    held: held.into(),
                    transport: transport.into(),
                    seal: SealPrivateKey::from_bytes(seal.0),
                }),
                _ => None,
            },
            former: payload
                .former
                .iter()
                .flatten()
                .map(|key| SealPrivateKey::from_bytes(key.0))
                .collect(),
        }
    }
}

/// How the passphrase of a keystore file becomes its key; `None` when it opens with a key file.
///
/// # Errors
/// [`CborError`] when the bytes are no keystore.
pub fn passphrase_of(bytes: &[u8]) -> Result<Option<Argon2Params>, CborError> {
    Ok(read(bytes)?.header.passphrase)
}

fn read(bytes: &[u8]) -> Result<Wire, CborError> {
    let wire: Wire = cbor::from_slice("keystore", bytes, KEYSTORE_MAX)?;
    if wire.header.format == FORMAT {
        Ok(wire)
    } else {
        Err(CborError::Malformed { what: "keystore" })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn other_node_keys_change_all_five_and_nothing_else() {
        let mut keystore = super::Keystore::generate(&mut crate::vectors::rng(1));
        let before = keystore.public_keys();
        let mark = *keystore.mark.expose();
        keystore.renew(&mut crate::vectors::rng(2));
        let after = keystore.public_keys();
        assert!(before.sign != after.sign && before.witness != after.witness);
        assert!(before.held != after.held && before.transport != after.transport);
        assert!(before.seal != after.seal);
        assert_eq!(mark, *keystore.mark.expose());
        let mut other = super::Keystore::generate(&mut crate::vectors::rng(3));
        other.adopt(keystore);
        assert_eq!(other.public_keys(), after);
        assert_ne!(mark, *other.mark.expose());
    }

    #[test]
    fn keys_to_come_and_seal_keys_of_before_come_back_from_what_was_sealed() {
        let mut keystore = keystore();
        let old = *keystore.seal.expose();
        keystore.next = Some(NodeSeeds::generate(&mut rng(4)));
        let next = keystore.next.as_ref().unwrap().public_keys();
        let sealed = keystore.seal(&software(1), &mut rng(5)).unwrap();
        let mut opened = Keystore::open(&sealed, &software(1)).unwrap();
        assert_eq!(opened.next.as_ref().unwrap().public_keys(), next);
        assert!(opened.former.is_empty());
        assert!(opened.take_next() && !opened.take_next());
        assert_eq!(opened.public_keys(), next);
        let sealed = opened.seal(&software(1), &mut rng(6)).unwrap();
        let opened = Keystore::open(&sealed, &software(1)).unwrap();
        assert!(opened.next.is_none());
        assert_eq!(*opened.former[0].expose(), old);
    }

    #[test]
    fn no_more_seal_keys_of_before_are_kept_than_may_be() {
        let mut keystore = keystore();
        let oldest = *keystore.seal.expose();
        for number in 0..=FORMER_MAX as u64 {
            // Other seeds than the one that the keystore was made from.
            keystore.renew(&mut rng(100 + number));
        }
        assert_eq!(keystore.former.len(), FORMER_MAX);
        assert!(keystore.former.iter().all(|key| *key.expose() != oldest));
        let sealed = keystore.seal(&software(1), &mut rng(6)).unwrap();
        check_same(&Keystore::open(&sealed, &software(1)).unwrap(), &keystore);
    }

    use super::*;
    use crate::secret::Kek;
    use crate::vectors::{check_golden, rng};

    fn keystore() -> Keystore {
        let mut keystore = Keystore::generate(&mut rng(1));
        for (name, epoch) in [("person", 1), ("person", 2), ("unit", 1)] {
            let origin = Origin::parse(&format!("jiangjin.example/jinfu/{name}")).unwrap();
            let secret = EpochSecret::generate(&mut rng(epoch.into()));
            keystore.epochs.insert((origin, epoch), secret);
        }
        for page in [0, 7, u64::MAX] {
            keystore
                .pages
                .insert(page, PageKey::generate(&mut rng(page)));
        }
        keystore
    }

    fn software(byte: u8) -> SoftwareKey {
        SoftwareKey::from_kek(Kek::from_bytes([byte; 32]))
    }

    fn check_same(one: &Keystore, two: &Keystore) {
        assert_eq!(one.public_keys(), two.public_keys());
        assert_eq!(one.epochs, two.epochs);
        assert_eq!(one.pages, two.pages);
        assert_eq!((&one.index, &one.access), (&two.index, &two.access));
        assert_eq!(one.mark, two.mark);
    }

    #[test]
    fn a_keystore_opens_under_its_key_and_no_other() {
        let sealed = keystore().seal(&software(1), &mut rng(2)).unwrap();
        check_same(&Keystore::open(&sealed, &software(1)).unwrap(), &keystore());
        let refused = Keystore::open(&sealed, &software(2)).unwrap_err();
        assert_eq!(refused, KeystoreError::Key(KeyError::Wrong));
        assert_eq!(passphrase_of(&sealed).unwrap(), None);
    }

    #[test]
    fn the_golden_keystore_holds() {
        let params = Argon2Params {
            salt: [4; 16],
            m_kib: 32,
            t: 1,
            p: 1,
        };
        let key = SoftwareKey::from_passphrase(b"correct horse", &params).unwrap();
        let sealed = keystore().seal(&key, &mut rng(2)).unwrap();
        check_golden(
            "keystore",
            &sealed,
            "03e431dfb34b5bdc4920ae4dd054036e9c0f799faa5702dffaec63aa09dee780",
        );
    }

    #[test]
    fn a_keystore_under_a_passphrase_carries_its_parameters() {
        let params = Argon2Params {
            salt: [4; 16],
            m_kib: 32,
            t: 1,
            p: 1,
        };
        let right = SoftwareKey::from_passphrase(b"correct horse", &params).unwrap();
        let sealed = keystore().seal(&right, &mut rng(2)).unwrap();
        let read = passphrase_of(&sealed).unwrap().unwrap();
        assert_eq!(read, params);
        let again = SoftwareKey::from_passphrase(b"correct horse", &read).unwrap();
        check_same(&Keystore::open(&sealed, &again).unwrap(), &keystore());
        let wrong = SoftwareKey::from_passphrase(b"correct house", &read).unwrap();
        assert!(Keystore::open(&sealed, &wrong).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_keystore_is_refused() {
        let sealed = keystore().seal(&software(1), &mut rng(2)).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Keystore::open(&flipped, &software(1)).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert!(Keystore::open(&sealed[..end], &software(1)).is_err());
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        let mut rng = rng(2);
        let one = keystore().seal(&software(1), &mut rng).unwrap();
        assert_ne!(one, keystore().seal(&software(1), &mut rng).unwrap());
    }

    #[test]
    fn an_open_keystore_shows_no_key_in_debug_output() {
        let keystore = Keystore {
            sign: Seed::from_bytes([0xab; 32]),
            ..keystore()
        };
        let shown = format!("{keystore:?}");
        assert!(shown.contains("Seed(hidden)") && shown.contains("SealPrivateKey(hidden)"));
        assert!(!shown.contains("171"));
    }
}
