//! Record secrets: made for a batch, durable before the batch, found again by pointer.

use record::id::{Origin, RecordId};
use seal::secret::RecordSecret;
use store::pages::ChunkAt;

use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock};
use crate::table::Newest;

/// A page takes new chunks until it has this many bytes; then the next page, with a key of its own.
const PAGE_BYTES_FULL: u64 = 256 * 1024;

impl Registry {
    /// Writes the secrets of new records to a page; they are durable when this returns.
    ///
    /// A chunk whose batch never comes is an orphan that opens nothing.
    pub(crate) fn keep_secrets(&self, secrets: &[(RecordId, &RecordSecret)]) -> Result<ChunkAt> {
        let pages = lock(&self.pages);
        let failed = |e: store::pages::PagesError| RegistryError::Store(e.to_string());
        let page = match pages.numbers().map_err(failed)?.last() {
            Some(last) if pages.size(*last).map_err(failed)? < PAGE_BYTES_FULL => *last,
            Some(last) => last + 1,
            None => 1,
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
    pub(crate) fn secret(
        &self,
        origin: &Origin,
        record: &RecordId,
        newest: &Newest,
    ) -> Result<RecordSecret> {
        let at = ChunkAt {
            page: newest.page,
            offset: newest.offset,
            len: newest.length,
        };
        let (page, key, chunk) = {
            let pages = lock(&self.pages);
            // Under the lock: a page may be written again under another number and key.
            let page = self.page_now(at.page);
            let chunk = pages
                .read(ChunkAt { page, ..at })
                .map_err(|e| RegistryError::Store(e.to_string()))?;
            (page, self.keys.known_page(page.into())?, chunk)
        };
        seal::page::open_chunk(&key, page.into(), &chunk)
            .map_err(|e| {
                RegistryError::damaged(format!("page {} of `{origin}`: {e}", newest.page))
            })?
            .into_iter()
            .find(|(id, _)| id == record)
            .map(|(_, secret)| secret)
            .ok_or_else(|| {
                RegistryError::damaged(format!(
                    "no secret of record {record} in page {}",
                    newest.page
                ))
            })
    }
}
