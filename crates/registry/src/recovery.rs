//! Recovery (恢复): what a lost station is rebuilt from, in a ledger of its own that goes up.
//!
//! Two layers: the pages of record secrets go as they are, each chunk sealed under its page's key;
//! keys, operators' files and grants' secrets go in one bundle, sealed to the key that only shares
//! open. So a batch of records costs one small entry, and a page that is destroyed takes nothing
//! along but itself. A later part makes the one before it void, here and at the parent.
//! Refuses to hold up what it follows: what could not be sealed is sealed at the next change.

use std::collections::{BTreeMap, HashMap};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use record::authority::Sharing;
use record::cbor;
use record::entry::{Entry, GrantOperation, RecoveryEntry, RecoveryPart, SUITE};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use seal::recovery::RecoveryInfo;
use seal::share::Header;
use sha2::{Digest, Sha256};
use store::Batch;
use store::pages::ChunkAt;
use zeroize::Zeroizing;

use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::table;

pub mod export;
pub mod giving;
pub mod rebuild;
pub mod taking;
#[cfg(test)]
mod tests;

/// How many chunks one commit of the recovery ledger carries.
const CHUNKS: usize = 32;
/// The most kept secrets of grants.
const GRANTS_MAX: usize = 4096;
/// The largest operator's file.
const FILE_MAX: u64 = 64 * 1024;

/// Where each record's secret lies.
pub(crate) type FoundSecrets = HashMap<RecordId, ChunkAt>;

/// What the own recovery ledger has.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Chunks by page and offset, with the hash of each.
    chunks: BTreeMap<u32, BTreeMap<u64, Hash>>,
    /// The size of each page when all its chunks were sealed.
    sizes: BTreeMap<u32, u64>,
    /// The ceremony that the newest bundle is sealed for.
    bundle: Option<[u8; 16]>,
}

impl Recovered {
    fn follow(&mut self, entry: &RecoveryEntry) {
        match entry.part {
            RecoveryPart::Keys => self.bundle = Some(entry.ceremony),
            RecoveryPart::Ended => self.bundle = None,
            RecoveryPart::Dropped { page } => {
                self.chunks.remove(&page);
                self.sizes.remove(&page);
            }
            RecoveryPart::Chunk { page, offset } => {
                let chunks = self.chunks.entry(page).or_default();
                chunks.split_off(&offset);
                chunks.insert(offset, entry.body.unwrap_or_default());
            }
        }
    }
}

/// What is sealed to the recovery key.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(crate) struct Bundle {
    /// The keystore in the clear.
    #[n(0)]
    pub keystore: ByteVec,
    /// `node.json`.
    #[n(1)]
    pub config: ByteVec,
    /// Operators' files, by name.
    #[n(2)]
    pub operators: BTreeMap<String, ByteVec>,
    /// What is kept of each grant made, sealed under a key of the keystore, by ledger.
    #[n(3)]
    pub grants: BTreeMap<Origin, BTreeMap<ByteVec, ByteVec>>,
}

impl Drop for Bundle {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut *self.keystore);
    }
}

/// The header of a sharing, as its shares are checked against it.
pub(crate) fn header_of(sharing: &Sharing) -> Result<Header> {
    let bytes = sharing.header.as_ref().map_or(&[][..], |h| h.as_slice());
    Header::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))
}

impl Registry {
    /// Seals what changed to the recovery key, if there is one: pages of record secrets that were
    /// written or destroyed, new keys, operators' files.
    ///
    /// # Errors
    /// A failure of the store; then it is tried again at the next change, and at the next start.
    pub(crate) fn pages_changed(&self, _pages: &[u32]) -> Result<()> {
        if self.keys.is_locked() {
            return Ok(());
        }
        let sharing = self.authority().sharing(&self.config.division).cloned();
        let mut recovered = lock(&self.recovered);
        if recovered.is_none() {
            *recovered = Some(self.read_recovery()?);
        }
        let Some(known) = recovered.as_mut() else {
            return Ok(());
        };
        let result = match sharing {
            Some(sharing) => self.seal_changes(known, &sharing),
            None => self.end_recovery(known),
        };
        if result.is_err() {
            // What was written before the failure is read again.
            *recovered = None;
        }
        result
    }

    /// [`Registry::pages_changed`] for whoever cannot do anything about a failure.
    pub(crate) fn seal_recovery(&self) {
        if let Err(error) = self.pages_changed(&[]) {
            tracing::error!(%error, "what a lost station is rebuilt from could not be sealed; it is tried again at the next change");
        }
    }

    fn read_recovery(&self) -> Result<Recovered> {
        let origin = self.own("recovery");
        let mut known = Recovered::default();
        crate::chain::each_entry(self.store.as_ref(), &origin, |_, _, entry| {
            if let Entry::Recovery(entry) = entry {
                known.follow(&entry);
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// How many chunks of record secrets are not in the recovery ledger; nothing without shares.
    pub(crate) fn recovery_lag(&self) -> Result<Option<u64>> {
        if self.authority().sharing(&self.config.division).is_none() {
            return Ok(None);
        }
        let mut recovered = lock(&self.recovered);
        let known = match recovered.take() {
            Some(known) => recovered.insert(known),
            None => recovered.insert(self.read_recovery()?),
        };
        let pages = lock(&self.pages);
        let mut lag = u64::from(known.bundle.is_none());
        for page in pages.numbers().map_err(failed)? {
            // A page whose end is sealed lacks nothing: it is not read again for each look.
            if known.sizes.get(&page) == Some(&pages.size(page).map_err(failed)?) {
                continue;
            }
            for (at, _) in pages.chunks(page).map_err(failed)? {
                let there = known.chunks.get(&page);
                lag += u64::from(there.is_none_or(|chunks| !chunks.contains_key(&at.offset)));
            }
        }
        Ok(Some(lag))
    }

    fn seal_changes(&self, known: &mut Recovered, sharing: &Sharing) -> Result<()> {
        let header = header_of(sharing)?;
        let ceremony = *header.ceremony();
        self.seal_bundle(known, ceremony, &sharing.public)?;
        let mut parts: Vec<(RecoveryPart, Option<Vec<u8>>)> = Vec::new();
        let mut sizes = BTreeMap::new();
        {
            let pages = lock(&self.pages);
            let numbers = pages.numbers().map_err(failed)?;
            let gone = known.chunks.keys().filter(|page| !numbers.contains(page));
            parts.extend(gone.map(|page| (RecoveryPart::Dropped { page: *page }, None)));
            for page in numbers {
                // A page whose end is known has nothing new: most pages, most of the time.
                let chunks = known.chunks.get(&page);
                let size = pages.size(page).map_err(failed)?;
                if known.sizes.get(&page) == Some(&size) {
                    continue;
                }
                for (at, chunk) in pages.chunks(page).map_err(failed)? {
                    let hash: Hash = Sha256::digest(&chunk).into();
                    if chunks.and_then(|c| c.get(&at.offset)) != Some(&hash) {
                        let offset = at.offset;
                        parts.push((RecoveryPart::Chunk { page, offset }, Some(chunk)));
                    }
                }
                sizes.insert(page, size);
            }
        }
        let mut parts = parts.into_iter().peekable();
        while parts.peek().is_some() {
            let some: Vec<_> = parts.by_ref().take(CHUNKS).collect();
            self.append_recovery(known, ceremony, |_| Ok(some))?;
        }
        known.sizes.append(&mut sizes);
        Ok(())
    }

    /// Seals keys and files anew when they are not what was sealed last.
    fn seal_bundle(&self, known: &mut Recovered, ceremony: [u8; 16], public: &[u8]) -> Result<()> {
        let plain = self.recovery_bundle()?;
        let mark = self.keys.blind("recovery", &plain)?;
        let key = table::local(table::RECOVERY, b"");
        let current = known.bundle == Some(ceremony)
            && self.store.get(&key)?.is_some_and(|kept| kept == mark);
        if current {
            return Ok(());
        }
        let origin = self.own("recovery");
        self.append_recovery(known, ceremony, |index| {
            let info = RecoveryInfo {
                origin,
                index,
                ceremony,
            };
            let sealed = seal::recovery::seal_recovery(&info, public, &plain, &mut rng()?)
                .map_err(|e| RegistryError::damaged(e.to_string()))?;
            Ok(vec![(RecoveryPart::Keys, Some(sealed))])
        })?;
        self.keep_local(table::RECOVERY, b"", mark.to_vec())
    }

    /// A sharing ended: what was sealed for it is destroyed, here and at the parent.
    fn end_recovery(&self, known: &mut Recovered) -> Result<()> {
        match known.bundle {
            None => Ok(()),
            Some(ceremony) => {
                self.append_recovery(known, ceremony, |_| Ok(vec![(RecoveryPart::Ended, None)]))
            }
        }
    }

    fn append_recovery(
        &self,
        known: &mut Recovered,
        ceremony: [u8; 16],
        parts: impl FnOnce(u64) -> Result<Vec<(RecoveryPart, Option<Vec<u8>>)>>,
    ) -> Result<()> {
        let origin = self.own("recovery");
        let book = self.book(&origin)?;
        let mut book = lock(&book);
        let now = UnixMillis(self.latest.load(std::sync::atomic::Ordering::Relaxed));
        let mut entries = Vec::new();
        let leaves = parts(book.size())?
            .into_iter()
            .map(|(part, body)| {
                let entry = RecoveryEntry {
                    suite: SUITE,
                    part,
                    ceremony,
                    body: body.as_ref().map(|body| Sha256::digest(body).into()),
                    recorded_at: now,
                };
                entries.push(entry.clone());
                Leaf {
                    entry: Entry::Recovery(entry),
                    body,
                }
            })
            .collect();
        let signer = self.service(purpose("security"));
        self.append(&mut book, &signer, leaves, now, |_, _, _| {})?;
        entries.iter().for_each(|entry| known.follow(entry));
        drop(book);
        self.changed();
        Ok(())
    }

    /// Everything beside pages and ledgers that a lost station needs, in the clear.
    fn recovery_bundle(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut operators = BTreeMap::new();
        let dir = self.files.operators();
        if dir.exists() {
            for item in std::fs::read_dir(&dir).map_err(|e| RegistryError::file(&dir, e))? {
                let path = item.map_err(|e| RegistryError::file(&dir, e))?.path();
                if path.extension().is_none_or(|e| e != "json") {
                    continue;
                }
                if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                    let bytes = store::atomic::read_bounded(&path, FILE_MAX)?;
                    operators.insert(name.to_owned(), bytes.into());
                }
            }
        }
        let mut grants = BTreeMap::new();
        let own = self
            .authority()
            .grants()
            .map(|g| g.origin.grant(&g.id))
            .collect::<Vec<_>>();
        for ledger in own {
            if ledger.division() == self.config.division {
                let rows = self
                    .store
                    .scan(ledger.as_str(), table::GRANT, b"", GRANTS_MAX)?;
                let rows = rows
                    .into_iter()
                    .map(|(rest, kept)| (rest.into(), kept.into()));
                grants.insert(ledger, rows.collect());
            }
        }
        let config = serde_json::to_vec(&self.present_config())
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        let bundle = Bundle {
            keystore: self.keys.unlocked()?.lock().expose().to_vec().into(),
            config: config.into(),
            operators,
            grants,
        };
        Ok(Zeroizing::new(cbor::to_vec(&bundle)))
    }

    /// Forgets what is known of the recovery ledger: the parent gave it back.
    pub(crate) fn forget_recovery(&self) {
        *lock(&self.recovered) = None;
    }

    /// Where the secret of a record lies whose pointer was lost, found by going through the pages.
    pub(crate) fn find_secret(&self, record: &RecordId) -> Result<Option<ChunkAt>> {
        let mut found = lock(&self.found_secrets);
        if found.is_none() {
            let mut all = FoundSecrets::new();
            let pages = lock(&self.pages);
            for page in pages.numbers().map_err(failed)? {
                let key = self.keys.known_page(page.into())?;
                for (at, chunk) in pages.chunks(page).map_err(failed)? {
                    let rows = seal::page::open_chunk(&key, page.into(), &chunk)
                        .map_err(|e| RegistryError::damaged(format!("page {page}: {e}")))?;
                    all.extend(rows.into_iter().map(|(record, _)| (record, at)));
                }
            }
            *found = Some(all);
        }
        Ok(found.as_ref().and_then(|all| all.get(record).copied()))
    }

    /// Forgets where lost secrets lie, once no ledger waits to be given back.
    pub(crate) fn forget_secrets(&self) {
        if self.guard.halted().is_empty() {
            *lock(&self.found_secrets) = None;
        }
    }

    /// What lies beside the entries of an own grant's ledger, and was lost with them: which rows
    /// are in scope.
    pub(crate) fn rebuild_scope<'a>(
        batch: &mut Batch,
        ledger: &Origin,
        entries: impl Iterator<Item = &'a Entry>,
    ) {
        // Several entries may speak of one record: the last says whether it is in scope.
        let mut rows: BTreeMap<RecordId, Option<u64>> = BTreeMap::new();
        for entry in entries {
            let Entry::Grant(entry) = entry else {
                continue;
            };
            match (entry.operation, entry.record) {
                (operation, Some(record)) if operation.brings_parcel() => {
                    rows.insert(record, Some(entry.shard_size));
                }
                (GrantOperation::Retract, Some(record)) => {
                    rows.insert(record, None);
                }
                _ => {}
            }
        }
        for (record, row) in rows {
            let key = table::key(ledger, table::SCOPE, &record.0);
            match row {
                Some(at) => batch.put(key, at.to_be_bytes().to_vec()),
                None => batch.delete(key),
            };
        }
    }
}

fn failed(error: store::pages::PagesError) -> RegistryError {
    RegistryError::Store(error.to_string())
}
