//! Pages of record secrets: small sealed chunks, kept apart from everything else so that they can
//! be destroyed.
//!
//! Owns `dir/secrets/NNNNNNNN.page`, and destroying one. Opening costs nothing: a chunk is checked
//! when it is read, a page when it is appended to.
//! Refuses to open a chunk, to say when a page is full, and to cut a page that nobody vouches for:
//! these are its caller's business. The caller makes sure that one process uses the folder (the
//! store's lock serves).
//!
//! What a caller does, so that a power cut between any two steps loses nothing and leaves nothing:
//!
//! - *opening*: [`Pages::reclaim`] for the last page, with what the committed batches point to;
//! - *writing*: [`Pages::append`], then the batch that points to the chunk;
//! - *erasing some of a page*: a batch that notes it; [`Pages::append_all`] of what stays to an
//!   unused number; the batches that point there; [`Pages::destroy`] of the old page; a batch that
//!   takes the note away. After a power cut whoever finds the note does the same again.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::atomic;
use crate::error::is_full;
use crate::fs::{Fs, Handle, How, Real};
use crate::segment::read_up_to;

mod error;

mod chunk;

mod rewrite;

mod reclaim;

mod inspect;

use chunk::{Chunk, HEAD, chunk_at, encode, walk};
pub use error::PagesError;
use error::{bad_chunk, failed};
pub use inspect::{Fault, Inspected, being_destroyed, inspect, numbers};
pub use reclaim::Reclaimed;

/// The longest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The longest page file, in bytes; a page is read whole.
pub const PAGE_BYTES_MAX: u64 = 64 << 20;
/// The highest page number: eight digits.
pub const PAGE_NUMBER_MAX: u32 = 99_999_999;

/// Handles kept open.
const OPEN_MAX: usize = 64;
/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkAt {
    /// The page's number, 1 or more.
    pub page: u32,
    /// Where in the page file its head begins.
    pub offset: u64,
    /// Bytes of the chunk without its head.
    pub len: u32,
}

impl ChunkAt {
    /// Where in the page the chunk ends.
    pub fn end(&self) -> u64 {
        self.offset + HEAD as u64 + u64::from(self.len)
    }
}

/// The pages in one folder.
pub struct Pages {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pages touched since opening.
    open: HashMap<u32, Open>,
    stopped: BTreeSet<u32>,
    /// Pages that lack what batches point to: nothing is written behind that.
    damaged: HashMap<u32, (u64, &'static str)>,
}

struct Open {
    file: Handle,
    /// The end of its last chunk, once all of them were checked.
    end: Option<u64>,
}

impl Pages {
    /// Opens the pages in `dir/secrets`, and finishes a rewriting that was interrupted.
    ///
    /// # Errors
    /// [`PagesError::Io`], [`PagesError::Note`].
    pub fn open(dir: &Path) -> Result<Pages, PagesError> {
        Pages::open_on(Arc::new(Real), dir)
    }

    pub(crate) fn open_on(fs: Arc<dyn Fs>, dir: &Path) -> Result<Pages, PagesError> {
        let folder = dir.join("secrets");
        std::fs::create_dir_all(&folder)
            .and_then(|()| fs.sync_dir(dir))
            .map_err(failed(&folder))?;
        let pages = Pages {
            fs,
            folder,
            state: Mutex::default(),
        };
        pages.finish_rewriting()?;
        Ok(pages)
    }

    /// The numbers of all pages, in order.
    ///
    /// # Errors
    /// [`PagesError::Io`].
    pub fn numbers(&self) -> Result<Vec<u32>, PagesError> {
        inspect::numbers_in(&self.folder)
    }

    /// The size of a page in bytes, heads included; 0 when it does not exist. Its chunks are
    /// checked when it was not checked before.
    ///
    /// # Errors
    /// [`PagesError::Damaged`], [`PagesError::Stopped`]: write to an unused number instead.
    /// [`PagesError::Io`].
    pub fn size(&self, page: u32) -> Result<u64, PagesError> {
        let mut state = self.state();
        match self.checked(&mut state, page, false) {
            Ok((_, end)) => Ok(end),
            Err(PagesError::Missing { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes a chunk at the end of a page, which it begins if need be. Durable when this returns
    /// Ok.
    ///
    /// # Errors
    /// As for [`Pages::append_all`].
    pub fn append(&self, page: u32, chunk: &[u8]) -> Result<ChunkAt, PagesError> {
        let places = self.append_all(page, &[chunk])?;
        Ok(places[0])
    }

    /// Writes chunks at the end of a page with one fsync, all or none; returns their places.
    ///
    /// # Errors
    /// [`PagesError::Size`], [`PagesError::Full`] and [`PagesError::Damaged`]: nothing was written.
    /// [`PagesError::Io`]: the page takes nothing more until it is reopened.
    pub fn append_all(&self, page: u32, chunks: &[&[u8]]) -> Result<Vec<ChunkAt>, PagesError> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state();
        let path = self.path(page)?;
        let begins = !path.exists();
        let (open, end) = self.checked(&mut state, page, true)?;
        let (bytes, places) = encode(page, end, chunks)?;
        let written = self.fs.write_at(&open.file, &bytes, end);
        let error = match written {
            Ok(()) => {
                let synced = self.fs.sync(&open.file).and_then(|()| match begins {
                    true => self.fs.sync_dir(&self.folder),
                    false => Ok(()),
                });
                match synced {
                    Ok(()) => {
                        open.end = Some(end + bytes.len() as u64);
                        return Ok(places);
                    }
                    Err(error) => error,
                }
            }
            Err(error) if is_full(&error) => {
                let undone = self.fs.set_len(&open.file, end);
                match undone.and_then(|()| self.fs.sync(&open.file)) {
                    Ok(()) => return Err(PagesError::Full { file: path }),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        state.open.remove(&page);
        state.stopped.insert(page);
        Err(failed(&path)(error))
    }

    /// The chunk at a place that `append` gave.
    ///
    /// # Errors
    /// [`PagesError::Missing`] when the page is gone, [`PagesError::Damaged`].
    pub fn read(&self, at: ChunkAt) -> Result<Vec<u8>, PagesError> {
        let path = self.path(at.page)?;
        let damaged = |what| PagesError::Damaged {
            file: path.clone(),
            offset: at.offset,
            what,
        };
        if at.len as usize > CHUNK_BYTES_MAX {
            return Err(damaged("no chunk is that long"));
        }
        let mut state = self.state();
        let open = self.touch(&mut state, at.page, false)?;
        let mut bytes = vec![0; HEAD + at.len as usize];
        let have = read_up_to(&open.file.file, &mut bytes, at.offset).map_err(failed(&path))?;
        drop(state);
        match chunk_at(at.page, &bytes[..have]) {
            Chunk::Whole(chunk) if chunk.len() == at.len as usize => {
                bytes.drain(..HEAD);
                Ok(bytes)
            }
            _ => Err(damaged("there is no such chunk")),
        }
    }

    /// All chunks of a page in their order.
    ///
    /// # Errors
    /// [`PagesError::Missing`]; [`PagesError::Damaged`] when any of it is no whole chunk, so that
    /// none is lost unseen. Its other chunks are still there for [`Pages::read`].
    pub fn chunks(&self, page: u32) -> Result<Vec<(ChunkAt, Vec<u8>)>, PagesError> {
        let path = self.path(page)?;
        let mut state = self.state();
        self.touch(&mut state, page, false)?;
        let bytes = atomic::read_bounded(&path, PAGE_BYTES_MAX)?;
        drop(state);
        let walk = walk(page, &bytes);
        match walk.fault {
            Some(fault) => Err(bad_chunk(path, fault)),
            None => Ok(walk.chunks),
        }
    }

    /// The open page.
    fn touch<'a>(
        &self,
        state: &'a mut State,
        page: u32,
        create: bool,
    ) -> Result<&'a mut Open, PagesError> {
        let path = self.path(page)?;
        if state.stopped.contains(&page) {
            return Err(PagesError::Stopped { page });
        }
        if !state.open.contains_key(&page) {
            let how = if create { How::OrCreate } else { How::Existing };
            let opened = self.fs.open(&path, how);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(PagesError::Missing { page });
                }
                opened => opened.map_err(failed(&path))?,
            };
            if state.open.len() >= OPEN_MAX {
                state.open.clear();
            }
            state.open.insert(page, Open { file, end: None });
        }
        state
            .open
            .get_mut(&page)
            .ok_or(PagesError::Missing { page })
    }

    /// The open page and where it ends, all chunks checked once since opening.
    fn checked<'a>(
        &self,
        state: &'a mut State,
        page: u32,
        create: bool,
    ) -> Result<(&'a mut Open, u64), PagesError> {
        let path = self.path(page)?;
        if let Some(&(offset, what)) = state.damaged.get(&page) {
            let file = path;
            return Err(PagesError::Damaged { file, offset, what });
        }
        let open = self.touch(state, page, create)?;
        let end = match open.end {
            Some(end) => end,
            None => {
                let bytes = atomic::read_bounded(&path, PAGE_BYTES_MAX)?;
                match walk(page, &bytes).fault {
                    Some(fault) => return Err(bad_chunk(path, fault)),
                    None => *open.end.insert(bytes.len() as u64),
                }
            }
        };
        Ok((open, end))
    }

    fn path(&self, page: u32) -> Result<PathBuf, PagesError> {
        match page {
            1..=PAGE_NUMBER_MAX => Ok(self.folder.join(format!("{page:08}.page"))),
            _ => Err(PagesError::Number { page }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
