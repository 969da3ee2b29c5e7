//! A node's private keys in use: opened once, handed out by purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::{CryptoRng, SeedableRng};
use record::authority::{NodeKeys, Renewal};
use record::id::Origin;
use record::schema::Position;
use seal::grant::{EnvelopeError, EnvelopeInfo, SealPrivateKey, open_envelope};
use seal::keystore::{Keystore, NodeSeeds, SoftwareKey};
use seal::passphrase::Argon2Params;
use seal::secret::{BlobKey, EpochSecret, FieldKey, GrantSecret, Kek, PageKey};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::{Files, KeyCustody, NodeConfig};
use crate::error::{RegistryError, Result};
use crate::node::lock;

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
    store: Arc<Mutex<Keystore>>,
    provider: Arc<Mutex<SoftwareKey>>,
    files: Files,
}

/// What opens the keystore, as the operator gave it.
pub enum Opener {
    /// The key file of the directory.
    File,
    /// A key file that lies elsewhere, on a stick say: its 32 bytes.
    Key(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// Nothing yet: the node starts locked.
    Locked,
}

/// The key-encryption key; `params` are those of the keystore, or fresh ones for a keystore to be made.
fn provider(
    files: &Files,
    custody: &KeyCustody,
    opener: &Opener,
    params: Option<Argon2Params>,
) -> Result<SoftwareKey> {
    match (custody, opener) {
        (_, Opener::Locked) => Err(RegistryError::Locked),
        (KeyCustody::File, Opener::Key(key)) => Ok(SoftwareKey::from_kek(Kek::from_bytes(**key))),
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
        (KeyCustody::Passphrase, _) => Err(RegistryError::Directory(
            "此节点由口令打开 / this node is opened by a passphrase; give `--passphrase-file`"
                .into(),
        )),
    }
}

/// Parameters that take this machine about a second: each more costs a thief as much for each guess.
/// Never less than RFC 9106 asks for, never more than [`CALIBRATED_KIB_MAX`].
fn calibrated() -> Result<Argon2Params> {
    let mut params = Argon2Params::recommended(&mut rng()?);
    let begun = std::time::Instant::now();
    params
        .derive(b"calibration")
        .map_err(|e| RegistryError::Directory(e.to_string()))?;
    let took = begun.elapsed().max(std::time::Duration::from_millis(1));
    // Memory first: it is what a thief's hardware is short of.
    let mut times = CALIBRATED.as_millis() / took.as_millis().max(1);
    while times >= 2 && params.m_kib < CALIBRATED_KIB_MAX {
        params.m_kib *= 2;
        times /= 2;
    }
    let passes = u128::from(params.t) * times.max(1);
    params.t = u32::try_from(passes)
        .unwrap_or(u32::MAX)
        .min(seal::passphrase::PASSES_MAX);
    Ok(params)
}

/// How long opening a keystore by its passphrase should take.
const CALIBRATED: std::time::Duration = std::time::Duration::from_secs(1);
/// The most memory that calibration asks for: 256 MiB, so that a small machine can open it, too.
const CALIBRATED_KIB_MAX: u32 = 256 * 1024;

/// Ends a change of the key-encryption key that was cut off after the keystore was replaced: the
/// next key file takes its place if it is the one that opens.
fn finish_kek(files: &Files, kind: &KeyCustody, keystore: &[u8]) {
    let next = files.next_kek();
    if *kind == KeyCustody::Passphrase {
        let _ = std::fs::remove_file(next);
        return;
    }
    let Ok(bytes) = store::atomic::read_bounded(&next, 32).map(Zeroizing::new) else {
        return;
    };
    let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) else {
        return;
    };
    if Keystore::open(keystore, &SoftwareKey::from_kek(Kek::from_bytes(key))).is_ok() {
        let _ = std::fs::rename(next, files.kek());
    }
}

impl Keys {
    /// Makes the keys of a node that does not exist yet and writes its keystore.
    pub(crate) fn create(dir: &Path, custody: &KeyCustody, opener: &Opener) -> Result<Self> {
        Self::create_with(dir, Keystore::generate(&mut rng()?), custody, opener)
    }

    /// Writes the keystore of keys that exist.
    pub(crate) fn create_with(
        dir: &Path,
        keystore: Keystore,
        custody: &KeyCustody,
        opener: &Opener,
    ) -> Result<Self> {
        let files = Files::new(dir);
        let mut rng = rng()?;
        if matches!(custody, KeyCustody::File) && !files.kek().exists() {
            let kek = Kek::generate(&mut rng);
            store::atomic::replace(&files.kek(), kek.expose())?;
        }
        let params = match custody {
            KeyCustody::Passphrase => Some(calibrated()?),
            KeyCustody::File => None,
        };
        let provider = provider(&files, custody, opener, params)?;
        let keys = Self::from_keystore(keystore, provider, files);
        keys.save(&keys.lock())?;
        Ok(keys)
    }

    /// Opens the keystore of a node.
    ///
    /// The keystore itself says what opens it: it is replaced in one step, `node.json` after it.
    pub(crate) fn open(dir: &Path, opener: &Opener) -> Result<Self> {
        let files = Files::new(dir);
        let bytes = store::atomic::read_bounded(&files.keystore(), KEYSTORE_MAX)?;
        let not_open = |e: &dyn std::fmt::Display| {
            RegistryError::Directory(format!(
                "密钥库打不开 / the keystore does not open: {e}; what its key was lost with, or the file itself, comes back by `fangzhi recover`"
            ))
        };
        let params = seal::keystore::passphrase_of(&bytes).map_err(|e| not_open(&e))?;
        let kind = match params {
            Some(_) => KeyCustody::Passphrase,
            None => KeyCustody::File,
        };
        finish_kek(&files, &kind, &bytes);
        let provider = provider(&files, &kind, opener, params)?;
        let keystore = Keystore::open(&bytes, &provider).map_err(|e| not_open(&e))?;
        let keys = Self::from_keystore(keystore, provider, files);
        keys.keep_transport(&keys.lock())?;
        Ok(keys)
    }

    fn from_keystore(keystore: Keystore, provider: SoftwareKey, files: Files) -> Self {
        let provider = Arc::new(Mutex::new(provider));
        Self::of(Arc::new(Mutex::new(keystore)), provider, files)
    }

    /// The signing keys that a keystore has at present.
    fn of(store: Arc<Mutex<Keystore>>, provider: Arc<Mutex<SoftwareKey>>, files: Files) -> Self {
        let (sign, witness, held) = {
            let keystore = lock(&store);
            let key = |seed: &seal::secret::Seed| SigningKey::from_bytes(seed.expose());
            (
                key(&keystore.sign),
                key(&keystore.witness),
                key(&keystore.held),
            )
        };
        Self {
            sign,
            witness,
            held,
            store,
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
            .seal(&*lock(&self.provider), &mut rng()?)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        let path = self.files.keystore();
        store::atomic::replace(&path, &bytes)?;
        self.keep_transport(keystore)
    }

    /// Seals the keystore under another key-encryption key: a passphrase, a key that lies
    /// elsewhere, or a fresh key file. Says what opens it from here on.
    ///
    /// The keystore is replaced in one step. A fresh key file is durable before it and takes the
    /// old one's place after it; [`finish_kek`] does that when a crash comes between.
    pub(crate) fn rekey(&self, opener: &Opener) -> Result<KeyCustody> {
        if self.files.next_keystore().exists() {
            return Err(RegistryError::BadRequest(
                "节点密钥正在更换，请先完成 / other node keys wait for their charter; finish that first: they are sealed under the present key".into(),
            ));
        }
        // Nothing else is written to the keystore meanwhile.
        let keystore = self.lock();
        let (provider, custody) = match opener {
            Opener::Passphrase(phrase) => {
                let provider = SoftwareKey::from_passphrase(phrase.as_bytes(), &calibrated()?)
                    .map_err(|e| RegistryError::Directory(e.to_string()))?;
                (provider, KeyCustody::Passphrase)
            }
            Opener::Key(key) => (
                SoftwareKey::from_kek(Kek::from_bytes(**key)),
                KeyCustody::File,
            ),
            Opener::File | Opener::Locked => {
                if seal::keystore::KeyProvider::passphrase(&*lock(&self.provider)).is_some() {
                    return Err(RegistryError::BadRequest(
                        "此节点由口令打开，请给出新口令 / this node is opened by a passphrase; give the new one with `fangzhi keys kek`".into(),
                    ));
                }
                let kek = Kek::generate(&mut rng()?);
                store::atomic::replace(&self.files.next_kek(), kek.expose())?;
                (SoftwareKey::from_kek(kek), KeyCustody::File)
            }
        };
        let old = std::mem::replace(&mut *lock(&self.provider), provider);
        self.save(&keystore)
            .inspect_err(|_| *lock(&self.provider) = old)?;
        match opener {
            Opener::File | Opener::Locked => {
                let (next, kek) = (self.files.next_kek(), self.files.kek());
                std::fs::rename(&next, &kek).map_err(|e| RegistryError::file(&next, e))?;
            }
            // The old key file opens nothing any more; what opens it now lies elsewhere.
            Opener::Key(_) | Opener::Passphrase(_) => {
                let _ = std::fs::remove_file(self.files.kek());
            }
        }
        Ok(custody)
    }

    /// Keeps the transport key a second time, where a locked node finds it; and the one to come.
    fn keep_transport(&self, keystore: &Keystore) -> Result<()> {
        let next = self.files.next_transport();
        match &keystore.next {
            Some(keys) => store::atomic::replace(&next, keys.transport.expose())?,
            None => match std::fs::remove_file(&next) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RegistryError::file(&next, error));
                }
                _ => {}
            },
        }
        let path = self.files.transport();
        let known = store::atomic::read_bounded(&path, 32).map(Zeroizing::new);
        let same = |known: Zeroizing<Vec<u8>>| {
            bool::from(known.as_slice().ct_eq(keystore.transport.expose()))
        };
        if known.is_ok_and(same) {
            return Ok(());
        }
        store::atomic::replace(&path, keystore.transport.expose()).map_err(RegistryError::from)
    }

    fn read(&self, path: &Path) -> Result<Keystore> {
        let bytes = store::atomic::read_bounded(path, KEYSTORE_MAX)?;
        Keystore::open(&bytes, &*lock(&self.provider)).map_err(|e| {
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
                .seal(&*lock(&self.provider), &mut rng()?)
                .map_err(|e| RegistryError::Store(e.to_string()))?;
            store::atomic::replace(&path, &bytes)?;
            keystore
        };
        let store = Arc::new(Mutex::new(keystore));
        Ok(Self::of(store, self.provider, self.files))
    }

    /// Makes node keys that wait for their charter, durable when this returns. Asked again, they
    /// are the same.
    pub(crate) fn prepare_next(&self) -> Result<NodeKeys> {
        let mut keystore = self.lock();
        if keystore.next.is_none() {
            keystore.next = Some(NodeSeeds::generate(&mut rng()?));
            self.save(&keystore).inspect_err(|_| keystore.next = None)?;
        }
        let next = keystore.next.as_ref().map(NodeSeeds::public_keys);
        next.ok_or_else(|| RegistryError::damaged("the keystore lost its next keys"))
    }

    /// The node keys that wait for their charter.
    pub(crate) fn next(&self) -> Option<NodeKeys> {
        self.lock().next.as_ref().map(NodeSeeds::public_keys)
    }

    /// Signs a request for a charter of the keys that wait, with those and the present ones; gives
    /// the transport key's seed with it, under which it is asked.
    pub(crate) fn request(&self, request: Renewal) -> Option<(Renewal, Zeroizing<[u8; 32]>)> {
        let keystore = self.lock();
        let next = keystore.next.as_ref()?;
        let request = Renewal {
            keys: next.public_keys(),
            ..request
        };
        let signed = request.sign(&self.sign, &next.sign.signing_key());
        Some((signed, Zeroizing::new(*next.transport.expose())))
    }

    /// Signs with the key that waits, which is the root's own: nobody above charters it.
    pub(crate) fn next_sign(&self) -> Option<SigningKey> {
        let keystore = self.lock();
        keystore.next.as_ref().map(|next| next.sign.signing_key())
    }

    /// Puts the node keys that waited in the place of the present ones, on disk and then in memory.
    fn take_next(&self) -> Result<Self> {
        {
            let mut keystore = self.lock();
            let mut taken = Keystore::from_exposed(&keystore.expose())
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
            if !taken.take_next() {
                return Err(RegistryError::damaged(
                    "no node keys wait for their charter",
                ));
            }
            self.save(&taken)?;
            *keystore = taken;
        }
        let (store, provider) = (self.store.clone(), self.provider.clone());
        Ok(Self::of(store, provider, self.files.clone()))
    }

    /// Opens an envelope that was sealed to this node, under the present charter or one before.
    pub(crate) fn open_envelope(
        &self,
        info: &EnvelopeInfo,
        envelope: &[u8],
    ) -> std::result::Result<(GrantSecret, BTreeMap<Position, FieldKey>), EnvelopeError> {
        self.with_seal(|key| open_envelope(info, key, envelope))
    }

    /// Opens something with the seal key: the present one, else one of a charter before.
    pub(crate) fn with_seal<T, E>(
        &self,
        open: impl Fn(&SealPrivateKey) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let keystore = self.lock();
        let mut before = keystore.former.iter().rev();
        open(&keystore.seal).or_else(|error| before.find_map(|key| open(key).ok()).ok_or(error))
    }

    /// Opens something with the seal key of one charter, of which the public half is given; nothing
    /// when it is not here any more.
    pub(crate) fn with_seal_of<T>(
        &self,
        public: &[u8],
        open: impl Fn(&SealPrivateKey) -> Option<T>,
    ) -> Option<T> {
        let keystore = self.lock();
        let mut all = std::iter::once(&keystore.seal).chain(keystore.former.iter().rev());
        open(all.find(|key| key.public().as_slice() == public)?)
    }

    /// Destroys the seal keys of charters before that nothing needs any more; how many.
    pub(crate) fn forget_seals(&self, needed: impl Fn(&[u8]) -> bool) -> Result<usize> {
        let mut keystore = self.lock();
        let all = std::mem::take(&mut keystore.former);
        let (kept, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|key| needed(&key.public()));
        keystore.former = kept;
        if gone.is_empty() {
            return Ok(0);
        }
        self.save(&keystore)?;
        Ok(gone.len())
    }

    /// Whether seal keys of charters before are still here.
    pub(crate) fn has_former(&self) -> bool {
        !self.lock().former.is_empty()
    }

    /// Takes up the keys that waited, when they are those of the charter. Only node keys are taken:
    /// the present keystore may have got epoch secrets meanwhile. The keys before are destroyed,
    /// but for the seal key, until nothing is sealed to it any more.
    pub(crate) fn settled(self, chartered: &NodeKeys) -> Result<Self> {
        let path = self.files.next_keystore();
        if self.next().is_some_and(|next| next == *chartered) {
            return self.take_next();
        }
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
        let store = Arc::new(Mutex::new(keystore));
        Ok(Self::of(store, self.provider, self.files))
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

    /// The highest page that has a key.
    pub(crate) fn last_page(&self) -> Option<u32> {
        let last = self.lock().pages.keys().next_back().copied();
        last.and_then(|page| u32::try_from(page).ok())
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
}

/// Whether a node has to start locked: nothing at hand opens its keystore.
///
/// # Errors
/// [`RegistryError::Directory`] when the keystore cannot be read.
pub fn starts_locked(dir: &Path, opener: &Opener) -> Result<bool> {
    let files = Files::new(dir);
    let bytes = store::atomic::read_bounded(&files.keystore(), KEYSTORE_MAX)?;
    let params = seal::keystore::passphrase_of(&bytes)
        .map_err(|e| RegistryError::Directory(e.to_string()))?;
    Ok(match (params, opener) {
        (Some(_), Opener::Passphrase(_)) | (None, Opener::Key(_)) => false,
        (Some(_), _) => true,
        (None, _) => !files.kek().exists() && !files.next_kek().exists(),
    })
}

/// A node's keys, open or locked (锁定). Whatever needs one asks here, and is told `Locked`.
///
/// What a locked node still has is its transport key, in a file of its own: with it others can
/// be given ciphertext and proofs, and nothing can be signed or opened (decision 0011).
pub struct Custody {
    dir: PathBuf,
    /// What a locked node knows of its keys.
    known: RwLock<(NodeKeys, Zeroizing<[u8; 32]>)>,
    open: RwLock<Option<Arc<Keys>>>,
    /// How often the keys were opened or locked: whoever waits for them looks whether it moved.
    turns: AtomicU64,
}

impl Custody {
    /// The keys of a node's directory, open if the opener opens them.
    pub(crate) fn of(dir: &Path, config: &NodeConfig, opener: &Opener) -> Result<Self> {
        let open = match opener {
            Opener::Locked => None,
            opener => {
                let mut keys = Keys::open(dir, opener)?;
                if let Some(own) = config.charters()?.first() {
                    keys = keys.settled(&own.keys)?;
                }
                Some(Arc::new(keys))
            }
        };
        let known = match &open {
            Some(keys) => (keys.public(), keys.transport_seed()),
            None => locked(dir, config)?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            known: RwLock::new(known),
            open: RwLock::new(open),
            turns: AtomicU64::new(0),
        })
    }

    /// The keys.
    ///
    /// # Errors
    /// [`RegistryError::Locked`].
    pub(crate) fn unlocked(&self) -> Result<Arc<Keys>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or(RegistryError::Locked)
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.unlocked().is_err()
    }

    /// How often the keys were opened or locked.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Opens the keystore, which must be this node's.
    pub(crate) fn unlock(&self, opener: &Opener) -> Result<()> {
        self.put(Keys::open(&self.dir, opener)?.settled(&self.public())?)
    }

    /// Takes up the node keys that waited for their charter: whatever is signed from here on is
    /// signed with them, and the network is to be begun anew.
    pub(crate) fn take_next(&self) -> Result<()> {
        let taken = self.unlocked()?.take_next()?;
        *self.known_mut() = (taken.public(), taken.transport_seed());
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(taken));
        self.turns.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, (NodeKeys, Zeroizing<[u8; 32]>)> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> std::sync::RwLockWriteGuard<'_, (NodeKeys, Zeroizing<[u8; 32]>)> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a keystore is this node's.
    pub(crate) fn fits(&self, keystore: &Keystore) -> Result<()> {
        if keystore.public_keys() != self.known().0 {
            return Err(RegistryError::Directory(
                "密钥库属于另一节点 / the keystore is another node's; restore the one of this directory".into(),
            ));
        }
        Ok(())
    }

    /// Takes keys that were opened or recovered.
    pub(crate) fn put(&self, keys: Keys) -> Result<()> {
        self.fits(&keys.lock())?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        self.turns.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Drops the keys, which wipes them as soon as the last use case under way ended.
    pub(crate) fn lock(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.turns.fetch_add(1, Ordering::AcqRel);
    }

    /// The public half of every key; known to a locked node, too.
    pub(crate) fn public(&self) -> NodeKeys {
        self.known().0.clone()
    }

    /// The transport key's seed; known to a locked node, too.
    pub(crate) fn transport_seed(&self) -> Zeroizing<[u8; 32]> {
        self.known().1.clone()
    }

    pub(crate) fn epochs(&self, origin: &Origin) -> Result<BTreeMap<u32, EpochSecret>> {
        Ok(self.unlocked()?.epochs(origin))
    }

    pub(crate) fn make_epoch(&self, origin: &Origin, epoch: u32) -> Result<EpochSecret> {
        self.unlocked()?.make_epoch(origin, epoch)
    }

    pub(crate) fn remove_epoch(&self, origin: &Origin, epoch: u32) -> Result<()> {
        self.unlocked()?.remove_epoch(origin, epoch)
    }

    pub(crate) fn forget_pages(&self, pages: &[u64]) -> Result<()> {
        self.unlocked()?.forget_pages(pages)
    }

    pub(crate) fn renew_index(&self) -> Result<()> {
        self.unlocked()?.renew_index()
    }

    pub(crate) fn kept_key(&self) -> Result<BlobKey> {
        Ok(self.unlocked()?.kept_key())
    }

    pub(crate) fn page(&self, page: u64) -> Result<PageKey> {
        self.unlocked()?.page(page)
    }

    pub(crate) fn last_page(&self) -> Result<Option<u32>> {
        Ok(self.unlocked()?.last_page())
    }

    pub(crate) fn known_page(&self, page: u64) -> Result<PageKey> {
        self.unlocked()?.known_page(page)
    }

    pub(crate) fn index_key(&self) -> Result<BlobKey> {
        Ok(self.unlocked()?.index_key())
    }

    pub(crate) fn access_key(&self) -> Result<BlobKey> {
        Ok(self.unlocked()?.access_key())
    }

    pub(crate) fn blind(&self, label: &str, bytes: &[u8]) -> Result<[u8; 32]> {
        Ok(self.unlocked()?.blind(label, bytes))
    }

    pub(crate) fn mark_key(&self) -> Result<watermark::MarkKey> {
        Ok(self.unlocked()?.mark_key())
    }
}

/// What a node knows of itself while its keystore is closed: its charter's keys, and its transport key.
fn locked(dir: &Path, config: &NodeConfig) -> Result<(NodeKeys, Zeroizing<[u8; 32]>)> {
    let own = config.charters()?.into_iter().next().ok_or_else(|| {
        RegistryError::Directory("`node.json` has no charter; restore the file".into())
    })?;
    let files = Files::new(dir);
    // Cut off between the charter and the keystore, the key of the charter is still the next one.
    for path in [files.transport(), files.next_transport()] {
        let Ok(bytes) = store::atomic::read_bounded(&path, 32).map(Zeroizing::new) else {
            continue;
        };
        let Ok(seed) = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new) else {
            continue;
        };
        let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        if public == own.keys.transport {
            return Ok((own.keys, seed));
        }
    }
    Err(damaged_transport())
}

fn damaged_transport() -> RegistryError {
    RegistryError::Directory(
        "文件 `transport` 不是本节点的传输密钥 / the file `transport` is not this node's transport key; delete it and start the node open once, which writes it again".into(),
    )
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
