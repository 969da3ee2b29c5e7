//! A node's private keys in use: opened once, handed out by purpose.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::{CryptoRng, SeedableRng};
use record::authority::NodeKeys;
use record::id::Origin;
use seal::grant::SealPrivateKey;
use seal::keystore::{Keystore, SoftwareKey};
use seal::passphrase::Argon2Params;
use seal::secret::{BlobKey, EpochSecret, Kek, PageKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::{Files, KeyCustody};
use crate::error::{RegistryError, Result};

/// The largest keystore file.
const KEYSTORE_MAX: u64 = 64 * 1024 * 1024;

/// The operating system's randomness, behind a fast generator made anew for each use case.
pub fn rng() -> Result<impl CryptoRng> {
    let mut seed = Zeroizing::new([0u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| {
        RegistryError::Store(
            "the operating system gave no randomness; nothing can be sealed".into(),
        )
    })?;
    Ok(rand_chacha::ChaCha20Rng::from_seed(*seed))
}

/// The keys of an open node.
pub struct Keys {
    /// Signs checkpoints, charters and service acts.
    pub(crate) sign: SigningKey,
    /// Cosigns.
    pub(crate) witness: SigningKey,
    /// Says `held`.
    pub(crate) held: SigningKey,
    pub(crate) store: Mutex<Keystore>,
    provider: SoftwareKey,
    files: Files,
}

/// What opens the keystore, as the operator gave it.
pub enum Opener {
    /// The key file of the directory.
    File,
    /// A passphrase.
    Passphrase(Zeroizing<String>),
}

/// The key-encryption key; `params` are those of the keystore, or fresh ones for a keystore to be made.
fn provider(
    files: &Files,
    custody: &KeyCustody,
    opener: &Opener,
    params: Option<Argon2Params>,
) -> Result<SoftwareKey> {
    match (custody, opener) {
        (KeyCustody::File, _) => {
            let bytes = Zeroizing::new(store::atomic::read_bounded(&files.kek(), 32)?);
            let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
                RegistryError::Directory("the key file `kek` is not 32 bytes; restore it".into())
            })?;
            Ok(SoftwareKey::from_kek(Kek::from_bytes(key)))
        }
        (KeyCustody::Passphrase, Opener::Passphrase(phrase)) => {
            let params = params.ok_or_else(|| {
                RegistryError::Directory(
                    "the keystore was not made with a passphrase; restore `node.json`".into(),
                )
            })?;
            SoftwareKey::from_passphrase(phrase.as_bytes(), &params)
                .map_err(|e| RegistryError::Directory(e.to_string()))
        }
        (KeyCustody::Passphrase, Opener::File) => Err(RegistryError::Directory(
            "此节点由口令打开 / this node is opened by a passphrase; give `--passphrase-file`"
                .into(),
        )),
    }
}

impl Keys {
    /// Makes the keys of a node that does not exist yet and writes its keystore.
    pub(crate) fn create(dir: &Path, custody: &KeyCustody, opener: &Opener) -> Result<Self> {
        let files = Files::new(dir);
        let mut rng = rng()?;
        if matches!(custody, KeyCustody::File) && !files.kek().exists() {
            let kek = Kek::generate(&mut rng);
            store::atomic::replace(&files.kek(), kek.expose())?;
        }
        let params = Argon2Params::recommended(&mut rng);
        let provider = provider(&files, custody, opener, Some(params))?;
        let keystore = Keystore::generate(&mut rng);
        let keys = Self::from_keystore(keystore, provider, files);
        keys.save(&keys.lock())?;
        Ok(keys)
    }

    /// Opens the keystore of a node.
    pub(crate) fn open(dir: &Path, custody: &KeyCustody, opener: &Opener) -> Result<Self> {
        let files = Files::new(dir);
        let bytes = store::atomic::read_bounded(&files.keystore(), KEYSTORE_MAX)?;
        let params = seal::keystore::passphrase_of(&bytes)
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        let provider = provider(&files, custody, opener, params)?;
        let keystore = Keystore::open(&bytes, &provider).map_err(|e| {
            RegistryError::Directory(format!("密钥库打不开 / the keystore does not open: {e}"))
        })?;
        Ok(Self::from_keystore(keystore, provider, files))
    }

    fn from_keystore(keystore: Keystore, provider: SoftwareKey, files: Files) -> Self {
        Self {
            sign: SigningKey::from_bytes(keystore.sign.expose()),
            witness: SigningKey::from_bytes(keystore.witness.expose()),
            held: SigningKey::from_bytes(keystore.held.expose()),
            store: Mutex::new(keystore),
            provider,
            files,
        }
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Keystore> {
        self.store
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn save(&self, keystore: &Keystore) -> Result<()> {
        let bytes = keystore
            .seal(&self.provider, &mut rng()?)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        let path = self.files.keystore();
        store::atomic::replace(&path, &bytes).map_err(RegistryError::from)
    }

    fn read(&self, path: &Path) -> Result<Keystore> {
        let bytes = store::atomic::read_bounded(path, KEYSTORE_MAX)?;
        Keystore::open(&bytes, &self.provider).map_err(|e| {
            RegistryError::Directory(format!("`{}` does not open: {e}", path.display()))
        })
    }

    /// Other node keys, which wait beside the present ones for their charter. Asked again, they
    /// are the same: the parent may have issued the charter, and the answer been lost.
    pub(crate) fn renewed(self) -> Result<Self> {
        let path = self.files.next_keystore();
        let keystore = if path.exists() {
            self.read(&path)?
        } else {
            let mut keystore = self.read(&self.files.keystore())?;
            keystore.renew(&mut rng()?);
            let bytes = keystore
                .seal(&self.provider, &mut rng()?)
                .map_err(|e| RegistryError::Store(e.to_string()))?;
            store::atomic::replace(&path, &bytes)?;
            keystore
        };
        Ok(Self::from_keystore(keystore, self.provider, self.files))
    }

    /// Takes up the keys that waited, when they are those of the charter. Only node keys are taken:
    /// the present keystore may have got epoch secrets meanwhile. The keys before are destroyed.
    pub(crate) fn settled(self, chartered: &NodeKeys) -> Result<Self> {
        let path = self.files.next_keystore();
        if self.public() == *chartered || !path.exists() {
            return Ok(self);
        }
        let next = self.read(&path)?;
        if next.public_keys() != *chartered {
            return Err(RegistryError::Directory(
                "密钥与节点证书不符 / neither the keystore nor `keystore.next` has the keys of the charter in `node.json`; restore all three from one backup".into(),
            ));
        }
        let mut keystore = self.read(&self.files.keystore())?;
        keystore.adopt(next);
        self.save(&keystore)?;
        // Gone after the keystore has the keys: cut off between the two, it is removed later.
        std::fs::remove_file(&path).map_err(|e| RegistryError::file(&path, e))?;
        Ok(Self::from_keystore(keystore, self.provider, self.files))
    }

    /// The public half of every key.
    pub(crate) fn public(&self) -> NodeKeys {
        self.lock().public_keys()
    }

    /// The transport key's seed, for the network.
    pub fn transport_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.lock().transport.expose())
    }

    /// The secrets of a shard's epochs that are here.
    pub(crate) fn epochs(&self, origin: &Origin) -> BTreeMap<u32, EpochSecret> {
        let keystore = self.lock();
        let of = (origin.clone(), 0)..=(origin.clone(), u32::MAX);
        keystore
            .epochs
            .range(of)
            .map(|((_, epoch), secret)| (*epoch, secret.duplicate()))
            .collect()
    }

    /// Makes the secret of an epoch; it is durable when this returns. One that lies there for this
    /// epoch was made for a beginning that was never stated: nothing is sealed under it.
    pub(crate) fn make_epoch(&self, origin: &Origin, epoch: u32) -> Result<EpochSecret> {
        let mut keystore = self.lock();
        let at = (origin.clone(), epoch);
        let secret = EpochSecret::generate(&mut rng()?);
        let before = keystore.epochs.insert(at.clone(), secret.duplicate());
        // A key that is not on disk must not seal anything.
        self.save(&keystore).inspect_err(|_| {
            match before {
                Some(before) => keystore.epochs.insert(at, before),
                None => keystore.epochs.remove(&at),
            };
        })?;
        Ok(secret)
    }

    /// Destroys the secret of an epoch. One that is not there is no error.
    pub(crate) fn remove_epoch(&self, origin: &Origin, epoch: u32) -> Result<()> {
        let mut keystore = self.lock();
        let at = (origin.clone(), epoch);
        let Some(secret) = keystore.epochs.remove(&at) else {
            return Ok(());
        };
        self.save(&keystore)
            .inspect_err(|_| drop(keystore.epochs.insert(at, secret)))
    }

    /// The key of the page that takes new record secrets, made and kept before it is used.
    pub(crate) fn page(&self, page: u64) -> Result<PageKey> {
        let mut keystore = self.lock();
        if let Some(key) = keystore.pages.get(&page) {
            return Ok(key.duplicate());
        }
        let key = PageKey::generate(&mut rng()?);
        keystore.pages.insert(page, key.duplicate());
        self.save(&keystore)
            .inspect_err(|_| drop(keystore.pages.remove(&page)))?;
        Ok(key)
    }

    /// The key of a page that exists.
    pub(crate) fn known_page(&self, page: u64) -> Result<PageKey> {
        self.lock()
            .pages
            .get(&page)
            .map(PageKey::duplicate)
            .ok_or_else(|| {
                RegistryError::damaged(format!("the keystore has no key of page {page}"))
            })
    }

    /// Destroys the keys of pages that are no more.
    pub(crate) fn forget_pages(&self, pages: &[u64]) -> Result<()> {
        let mut keystore = self.lock();
        let known: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((*page, keystore.pages.remove(page)?)))
            .collect();
        if known.is_empty() {
            return Ok(());
        }
        // Else what is in memory and what is on disk would differ, and the next try find nothing.
        self.save(&keystore)
            .inspect_err(|_| keystore.pages.extend(known))
    }

    /// Replaces the key of the working index: nothing sealed under the old one opens any more.
    pub(crate) fn renew_index(&self) -> Result<()> {
        let mut keystore = self.lock();
        let fresh = BlobKey::generate(&mut rng()?);
        let old = std::mem::replace(&mut keystore.index, fresh);
        self.save(&keystore).inspect_err(|_| keystore.index = old)
    }

    pub(crate) fn index_key(&self) -> BlobKey {
        self.lock().index.duplicate()
    }

    /// Seals what an owner keeps of its grants. Not the index's key, which every erasure replaces.
    pub(crate) fn kept_key(&self) -> BlobKey {
        self.lock().access.duplicate()
    }

    pub(crate) fn access_key(&self) -> BlobKey {
        self.lock().access.duplicate()
    }

    /// A hash that only this node can make: what it is of cannot be confirmed by guessing.
    pub(crate) fn blind(&self, label: &str, bytes: &[u8]) -> [u8; 32] {
        let keystore = self.lock();
        let mut mac = Hmac::<Sha256>::new_from_slice(keystore.mark.expose())
            .expect("HMAC takes a key of any length");
        mac.update(b"fangzhi/blind/v1\0");
        mac.update(label.as_bytes());
        mac.update(&[0]);
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn mark_key(&self) -> watermark::MarkKey {
        watermark::MarkKey::from_bytes(*self.lock().mark.expose())
    }

    pub(crate) fn seal_private(&self) -> SealPrivateKey {
        self.lock().seal.duplicate()
    }
}

/// A session's token: 32 random bytes in hexadecimal.
///
/// # Errors
/// [`RegistryError::Store`] when the operating system gives no randomness.
pub fn token() -> Result<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    rand_core::Rng::fill_bytes(&mut rng()?, bytes.as_mut());
    Ok(data_encoding::HEXLOWER.encode(bytes.as_ref()))
}
