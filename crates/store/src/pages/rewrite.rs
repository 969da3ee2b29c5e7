//! Destroying a page, and rewriting it under another number, which destroys the old one.
//!
//! Owns the note that makes an interrupted rewriting or destruction whole again.
//! Refuses to leave both pages or neither.

use std::path::Path;

use super::chunk::encode;
use super::error::failed;
use super::{ChunkAt, Pages, PagesError, State};
use crate::atomic::{self, FileError};
use crate::fs as files;

/// The file that says which page a rewriting replaces with which.
pub(super) const REWRITING: &str = "rewriting";

impl Pages {
    /// Destroys a page: overwrites it with zeros and removes it, with what was cut off it; one that
    /// is not there is no error. When this was begun the next opening finishes it.
    ///
    /// On flash old blocks may outlive it: destroy the key of the page too.
    ///
    /// # Errors
    /// [`PagesError::Io`] or [`PagesError::File`]: call it again, or open the pages again.
    pub fn destroy(&self, page: u32) -> Result<(), PagesError> {
        let mut state = self.state();
        match self.path(page)?.exists() {
            true => self.replace(&mut state, page, page, None),
            false => self.destroy_page(page),
        }
    }

    /// Writes `chunks` as page `to`, then destroys page `from`: overwrites it with zeros and
    /// removes it. Returns the places of the chunks, in order; with no chunks there is no page
    /// `to`. An interrupted rewriting is finished, or undone, at the next opening.
    ///
    /// The places change before a batch can say so: whoever keeps pointers in the store writes the
    /// page with [`Pages::append_all`], commits the pointers, and then destroys the old one.
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
        let bytes = (!chunks.is_empty()).then_some(bytes.as_slice());
        self.replace(&mut state, from, to, bytes)?;
        Ok(places)
    }

    /// Destroys page `from`, after page `to` was written when there is anything for it.
    fn replace(
        &self,
        state: &mut State,
        from: u32,
        to: u32,
        bytes: Option<&[u8]>,
    ) -> Result<(), PagesError> {
        let note = self.folder.join(REWRITING);
        // Whether the new page is there decides, at the next opening, between finishing and
        // undoing; when there is nothing to write the note says to finish.
        let finish = u8::from(bytes.is_none());
        let text = format!("{from} {to} {finish}\n");
        atomic::replace_on(&*self.fs, &note, text.as_bytes())?;
        state.open.remove(&from);
        state.stopped.insert(from);
        if let Some(bytes) = bytes {
            atomic::replace_on(&*self.fs, &self.path(to)?, bytes)?;
        }
        self.destroy_page(from)?;
        self.fs
            .remove(&note)
            .and_then(|()| self.fs.sync_dir(&self.folder))
            .map_err(failed(&note))?;
        state.stopped.remove(&from);
        Ok(())
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
            self.destroy_page(from)?;
        } else if let Some(half) = atomic::temporary(&new) {
            self.destroy_file(&half)?;
        }
        self.fs
            .remove(&note)
            .and_then(|()| self.fs.sync_dir(&self.folder))
            .map_err(failed(&note))
    }

    /// Overwrites a page and what was cut off it with zeros, and removes both.
    fn destroy_page(&self, page: u32) -> Result<(), PagesError> {
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
