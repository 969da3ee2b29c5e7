//! Rewriting a page under another number, which destroys the old one.
//!
//! Owns the note that makes an interrupted rewriting whole again.
//! Refuses to leave both pages or neither.

use std::path::Path;

use super::chunk::encode;
use super::error::failed;
use super::{ChunkAt, Pages, PagesError};
use crate::atomic::{self, FileError};
use crate::fs as files;

/// The file that says which page a rewriting replaces with which.
const REWRITING: &str = "rewriting";

impl Pages {
    /// Writes `chunks` as page `to`, then destroys page `from`: overwrites it with zeros and
    /// removes it. Returns the places of the chunks, in order; with no chunks there is no page
    /// `to`. An interrupted rewriting is finished, or undone, at the next opening.
    ///
    /// # Errors
    /// [`PagesError::Exists`] and [`PagesError::Size`]: nothing was changed. On
    /// [`PagesError::Io`] open the pages again and look which of the two is there.
    pub fn rewrite(
        &self,
        from: u32,
        to: u32,
        chunks: &[&[u8]],
    ) -> Result<Vec<ChunkAt>, PagesError> {
        let mut state = self.state();
        let (old, new) = (self.path(from)?, self.path(to)?);
        if new.exists() {
            return Err(PagesError::Exists { page: to });
        }
        if !old.exists() {
            return Err(PagesError::Missing { page: from });
        }
        let (bytes, places) = encode(to, 0, chunks)?;
        let note = self.folder.join(REWRITING);
        // Whether the new page is there decides, at the next opening, between finishing and
        // undoing; without chunks there is nothing to write, so the note says to finish.
        let finish = chunks.is_empty();
        atomic::replace_on(
            &*self.fs,
            &note,
            format!("{from} {to} {}\n", u8::from(finish)).as_bytes(),
        )?;
        state.open.remove(&from);
        state.stopped.insert(from);
        if !finish {
            atomic::replace_on(&*self.fs, &new, &bytes)?;
        }
        self.destroy(from)?;
        self.fs
            .remove(&note)
            .and_then(|()| self.fs.sync_dir(&self.folder))
            .map_err(failed(&note))?;
        state.stopped.remove(&from);
        Ok(places)
    }

    pub(super) fn finish_rewriting(&self) -> Result<(), PagesError> {
        let note = self.folder.join(REWRITING);
        let text = match atomic::read_bounded(&note, 64) {
            Err(FileError::Missing { .. }) => return Ok(()),
            text => text?,
        };
        let parse = || -> Option<(u32, u32, bool)> {
            let text = std::str::from_utf8(&text).ok()?.strip_suffix('\n')?;
            let mut parts = text.split(' ');
            let from = parts.next()?.parse().ok()?;
            let to = parts.next()?.parse().ok()?;
            let finish = parts.next()? == "1";
            parts.next().is_none().then_some((from, to, finish))
        };
        let malformed = || PagesError::Note { file: note.clone() };
        let (from, to, finish) = parse().ok_or_else(malformed)?;
        let new = self.path(to)?;
        if finish || new.exists() {
            self.fs
                .sync_dir(&self.folder)
                .map_err(failed(&self.folder))?;
            self.destroy(from)?;
        } else if let Some(half) = atomic::temporary(&new) {
            self.destroy_file(&half)?;
        }
        self.fs
            .remove(&note)
            .and_then(|()| self.fs.sync_dir(&self.folder))
            .map_err(failed(&note))
    }

    /// Overwrites a page and what was cut off it with zeros, and removes both.
    fn destroy(&self, page: u32) -> Result<(), PagesError> {
        let path = self.path(page)?;
        self.destroy_file(&path.with_extension("cut"))?;
        self.destroy_file(&path)
    }

    fn destroy_file(&self, path: &Path) -> Result<(), PagesError> {
        files::destroy(&*self.fs, path)
            .and_then(|()| self.fs.sync_dir(&self.folder))
            .map_err(failed(path))
    }
}
