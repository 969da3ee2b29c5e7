//! Taking back what was written for a batch that never came.
//!
//! Owns the cut at the end of one page: secrets are durable before their batch, so a power cut
//! between the two leaves chunks that nothing points to, and they are the last of their page.
//! Refuses to look at more than that page, so that opening costs the same with a million secrets.

use super::{ChunkAt, Pages, PagesError, failed};

impl Pages {
    /// Cuts the chunks off the end of `page` that `is_live` says nothing points to; returns them,
    /// the last first. It is asked from the end on, and no more after the first that is alive.
    ///
    /// Call it when the store was opened and before anything is appended, for the page that was
    /// written to last (the last of [`Pages::numbers`]). An orphan further in, which a refused
    /// batch leaves, goes when its page is rewritten.
    ///
    /// # Errors
    /// As for [`Pages::chunks`]; on [`PagesError::Io`] the page takes nothing more until it is
    /// reopened.
    pub fn reclaim(
        &self,
        page: u32,
        mut is_live: impl FnMut(ChunkAt) -> bool,
    ) -> Result<Vec<ChunkAt>, PagesError> {
        let mut chunks = self.chunks(page)?;
        let mut orphans = Vec::new();
        while let Some((at, _)) = chunks.pop_if(|(at, _)| !is_live(*at)) {
            orphans.push(at);
        }
        let Some(first) = orphans.last() else {
            return Ok(orphans);
        };
        let mut state = self.state();
        let path = self.path(page)?;
        let open = self.touch(&mut state, page, false)?;
        // Not overwritten first: a page cut within its last chunk must not look damaged, and no
        // record was ever sealed to these secrets.
        let cut = self.fs.set_len(&open.file, first.offset);
        match cut.and_then(|()| self.fs.sync(&open.file)) {
            Ok(()) => {
                open.end = first.offset;
                Ok(orphans)
            }
            Err(error) => {
                state.open.remove(&page);
                state.stopped.insert(page);
                Err(failed(&path)(error))
            }
        }
    }
}
