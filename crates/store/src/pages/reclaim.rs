//! The end of the last page at opening: what was written for a batch that never came is taken back.
//!
//! Owns the cut at the end of one page. Secrets are durable before their batch, so a power cut
//! leaves, at the end of the page written to last, part of a chunk, or chunks that nothing points to.
//! Refuses to look at more than that page, so that opening costs the same with a million secrets,
//! and to cut anything that a batch points to.

use super::chunk::walk;
use super::error::fault;
use super::{ChunkAt, PAGE_BYTES_MAX, Pages, PagesError, failed};
use crate::atomic;

const SHORT: &str = "the file ends before chunks that records need";

/// What was taken off the end of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Whole chunks that nothing points to, the last first.
    pub orphans: Vec<ChunkAt>,
    /// Bytes of an unfinished append; a copy lies in `NNNNNNNN.cut`.
    pub unfinished: u64,
}

impl Pages {
    /// Cuts off the end of `page` what nothing points to: an unfinished append, and chunks of
    /// which `is_live` says so. It is asked from the end on, and no more after the first that is
    /// alive.
    ///
    /// `pointed` is where the chunks end that batches are known to point to: from there on
    /// anything may be an interrupted append. Without it only what looks like one is cut.
    ///
    /// Call it when the store was opened and before anything is appended, for the page that was
    /// written to last (the last of [`Pages::numbers`]). An orphan further in, which a refused
    /// batch leaves, goes when its page is rewritten.
    ///
    /// # Errors
    /// [`PagesError::Missing`]. [`PagesError::Damaged`]: chunks that are pointed to are gone or
    /// fail their check; nothing was cut, and the page takes nothing more: use another number.
    /// On [`PagesError::Io`] the page takes nothing more until it is reopened.
    pub fn reclaim(
        &self,
        page: u32,
        pointed: Option<u64>,
        mut is_live: impl FnMut(ChunkAt, &[u8]) -> bool,
    ) -> Result<Reclaimed, PagesError> {
        let path = self.path(page)?;
        let mut state = self.state();
        self.touch(&mut state, page, false)?;
        let bytes = atomic::read_bounded(&path, PAGE_BYTES_MAX)?;
        let mut walk = walk(page, &bytes);
        let whole = walk.end();
        let lost = match (walk.fault, pointed) {
            (Some((_, torn)), Some(pointed)) if whole < pointed => Some(fault(torn)),
            (None, Some(pointed)) if whole < pointed => Some(SHORT),
            (Some((_, false)), None) => Some(fault(false)),
            _ => None,
        };
        if let Some(what) = lost {
            state.damaged.insert(page, (whole, what));
            return Err(PagesError::Damaged {
                file: path,
                offset: whole,
                what,
            });
        }
        state.damaged.remove(&page);
        let mut orphans = Vec::new();
        while let Some((at, _)) = walk.chunks.pop_if(|(at, chunk)| !is_live(*at, chunk)) {
            orphans.push(at);
        }
        let unfinished = bytes.len() as u64 - whole;
        let end = orphans.last().map_or(whole, |first| first.offset);
        let open = self.touch(&mut state, page, false)?;
        if end < bytes.len() as u64 {
            if unfinished > 0 {
                tracing::warn!(file = %path.display(), whole, "cut an unfinished chunk");
                let copy = path.with_extension("cut");
                atomic::replace_on(&*self.fs, &copy, &bytes[whole as usize..])?;
            }
            // Not overwritten first: a page cut within its last chunk must not look damaged, and
            // no record was ever sealed to these secrets.
            let cut = self.fs.set_len(&open.file, end);
            if let Err(error) = cut.and_then(|()| self.fs.sync(&open.file)) {
                state.open.remove(&page);
                state.stopped.insert(page);
                return Err(failed(&path)(error));
            }
        }
        open.end = Some(end);
        Ok(Reclaimed {
            orphans,
            unfinished,
        })
    }
}
