//! Record secrets: made for a batch, durable before the batch, found again by pointer.
//!
//! Owns what becomes of the pages at opening, and the list of those that are damaged. A damaged
//! page keeps nobody from opening the node: its records cannot be read, and doctor, status and
//! [`verify`] name the page and how many.
//! Refuses to write behind damage, and to cut off anything that a record points to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use record::id::{Origin, RecordId};
use seal::secret::RecordSecret;
use serde::Serialize;
use store::Batch;
use store::pages::{ChunkAt, PagesError};

use crate::error::{RegistryError, Result, words};
use crate::keys::rng;
use crate::node::{Registry, lock};
use crate::table::{self, Newest};

pub(crate) mod verify;

/// A page takes new chunks until it has this many bytes; then the next page, with a key of its own.
const PAGE_BYTES_FULL: u64 = 256 * 1024;

/// Pages that were found damaged since the node was opened.
#[derive(Default)]
pub(crate) struct DamagedPages(Mutex<BTreeMap<u32, BTreeSet<RecordId>>>);

/// A page of record secrets that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedPage {
    /// The page.
    pub page: u32,
    /// Records that could not be opened so far; `fangzhi verify` counts all of them.
    pub records: u64,
}

impl DamagedPages {
    fn note(&self, page: u32, what: &str, record: Option<&RecordId>) {
        let mut pages = lock(&self.0);
        let records = pages.entry(page).or_insert_with(|| {
            tracing::error!(page, what, "a page of record secrets is damaged");
            BTreeSet::new()
        });
        records.extend(record);
    }

    /// All of them, in order.
    pub(crate) fn lines(&self) -> Vec<DamagedPage> {
        let pages = lock(&self.0);
        let line = |(page, records): (&u32, &BTreeSet<RecordId>)| DamagedPage {
            page: *page,
            records: records.len() as u64,
        };
        pages.iter().map(line).collect()
    }
}

/// Says in the batch that points to a chunk that its page is needed up to there, so that a page
/// that ends before is known to be damaged. Every batch that points to a new chunk has to say so.
pub(crate) fn point_to(batch: &mut Batch, shard: &Origin, chunk: ChunkAt) {
    let key = table::key(shard, table::PAGE, &chunk.page.to_be_bytes());
    batch.put(key, chunk.end().to_be_bytes().to_vec());
}

impl Registry {
    /// Writes the secrets of new records to a page; they are durable when this returns. The batch
    /// that points there has to [`point_to`] the chunk.
    ///
    /// A chunk whose batch never comes is an orphan that opens nothing.
    pub(crate) fn keep_secrets(&self, secrets: &[(RecordId, &RecordSecret)]) -> Result<ChunkAt> {
        let pages = lock(&self.pages);
        let last = pages.numbers().map_err(failed)?.last().copied();
        let room = match last.map(|last| pages.size(last)) {
            None => false,
            Some(Ok(size)) => size < PAGE_BYTES_FULL,
            Some(Err(error)) if is_damage(&error) => false,
            Some(Err(error)) => return Err(failed(error)),
        };
        let page = match last {
            Some(last) if room => last,
            // A page that has a key was begun, also when its file is gone.
            _ => last.max(self.keys.last_page()?).map_or(1, |last| last + 1),
        };
        let key = self.keys.page(page.into())?;
        let chunk = seal::page::seal_chunk(&key, page.into(), secrets, &mut rng()?)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        let at = pages.append(page, &chunk).map_err(failed)?;
        drop(pages);
        self.seal_recovery();
        Ok(at)
    }

    /// The secret of a record.
    ///
    /// # Errors
    /// [`RegistryError::Unreadable`] when it is lost.
    pub(crate) fn secret(
        &self,
        origin: &Origin,
        record: &RecordId,
        newest: &Newest,
    ) -> Result<RecordSecret> {
        match self.read_secret(record, newest)? {
            Ok(secret) => Ok(secret),
            Err(what) => match self.newest(origin, record)? {
                // The secret moved to another page between looking up and reading.
                Some(moved) if moved.page != newest.page && moved.page != 0 => {
                    self.secret(origin, record, &moved)
                }
                _ => {
                    self.damaged_pages.note(newest.page, &what, Some(record));
                    Err(RegistryError::Unreadable {
                        origin: origin.clone(),
                        record: *record,
                        page: newest.page,
                        what,
                    })
                }
            },
        }
    }

    /// The secret at a place, or why the page does not give it.
    fn read_secret(
        &self,
        record: &RecordId,
        newest: &Newest,
    ) -> Result<std::result::Result<RecordSecret, String>> {
        let page = newest.page;
        let at = ChunkAt {
            page,
            offset: newest.offset,
            len: newest.length,
        };
        let (page, read) = {
            let pages = lock(&self.pages);
            // Under the lock: a page may be written again under another number and key.
            let page = self.page_now(at.page);
            (page, pages.read(ChunkAt { page, ..at }))
        };
        let chunk = match read {
            Ok(chunk) => chunk,
            Err(error) if is_damage(&error) => return Ok(Err(words(&error))),
            Err(error) => return Err(failed(error)),
        };
        let Ok(key) = self.keys.known_page(page.into()) else {
            return Ok(Err("the keystore has no key of the page; restore it".into()));
        };
        let secrets = match seal::page::open_chunk(&key, page.into(), &chunk) {
            Ok(secrets) => secrets,
            Err(error) => return Ok(Err(words(&error))),
        };
        let found = secrets.into_iter().find(|(id, _)| id == record);
        Ok(found
            .map(|(_, secret)| secret)
            .ok_or_else(|| "the chunk does not have the record".into()))
    }

    /// At opening: takes back what was written for a batch that never came, and notes pages that
    /// are gone or end too early. Looks at the last page only.
    pub(crate) fn settle_secrets(&self) -> Result<()> {
        let shards = self.own_shards()?;
        let mut needed: BTreeMap<u32, u64> = BTreeMap::new();
        for shard in &shards {
            let rows = self
                .store
                .scan(shard.as_str(), table::PAGE, b"", usize::MAX)?;
            for (page, end) in rows {
                let (Ok(page), Ok(end)) = (page.try_into(), end.try_into()) else {
                    return Err(RegistryError::damaged(format!(
                        "`{shard}` has a malformed note of a page"
                    )));
                };
                let page = self.page_now(u32::from_be_bytes(page));
                let needed = needed.entry(page).or_default();
                *needed = u64::from_be_bytes(end).max(*needed);
            }
        }
        let pages = lock(&self.pages);
        let there = pages.numbers().map_err(failed)?;
        let gone = needed.keys().filter(|page| !there.contains(page));
        for page in gone {
            let what = format!("`secrets/{page:08}.page` is gone; restore it from its backup");
            self.damaged_pages.note(*page, &what, None);
        }
        let Some(last) = there.last() else {
            return Ok(());
        };
        if !self.guard.halted().is_empty() {
            // The records that need these secrets may come back with their ledgers.
            return Ok(());
        }
        let key = self.keys.known_page((*last).into()).ok();
        let is_live = |at: ChunkAt, chunk: &[u8]| match &key {
            Some(key) => self.is_live(&shards, key, at, chunk),
            None => true,
        };
        match pages.reclaim(*last, needed.get(last).copied(), is_live) {
            Ok(taken) if taken == store::pages::Reclaimed::default() => Ok(()),
            Ok(taken) => {
                let (chunks, unfinished) = (taken.orphans.len(), taken.unfinished);
                tracing::warn!(
                    page = last,
                    chunks,
                    unfinished,
                    "took back secrets of a batch that never came"
                );
                Ok(())
            }
            Err(error) if is_damage(&error) => {
                self.damaged_pages.note(*last, &words(&error), None);
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether a record of an own shard points to the chunk. One that cannot be told is.
    fn is_live(
        &self,
        shards: &[Origin],
        key: &seal::secret::PageKey,
        at: ChunkAt,
        chunk: &[u8],
    ) -> bool {
        let Ok(secrets) = seal::page::open_chunk(key, at.page.into(), chunk) else {
            return true;
        };
        let points_here = |shard: &Origin, record: &RecordId| match self.newest(shard, record) {
            Ok(newest) => {
                // Page 0: the pointer was lost with the directory, and the secret is looked for.
                newest.is_some_and(|n| {
                    n.page == 0 || (self.page_now(n.page), n.offset) == (at.page, at.offset)
                })
            }
            Err(_) => true,
        };
        secrets
            .iter()
            .any(|(record, _)| shards.iter().any(|shard| points_here(shard, record)))
    }

    /// The shards that this node writes and has.
    pub(crate) fn own_shards(&self) -> Result<Vec<Origin>> {
        let shards = self.store.shards()?;
        let origins = shards.iter().filter_map(|shard| Origin::parse(shard).ok());
        let own = |origin: &Origin| origin.division() == self.config.division && origin.is_shard();
        Ok(origins.filter(own).collect())
    }
}

/// Whether what is wrong is the page itself, not the disk under it.
fn is_damage(error: &PagesError) -> bool {
    use store::atomic::FileError;
    matches!(
        error,
        PagesError::Damaged { .. }
            | PagesError::Missing { .. }
            | PagesError::File(FileError::TooLong { .. })
    )
}

fn failed(error: PagesError) -> RegistryError {
    RegistryError::Store(words(&error))
}
