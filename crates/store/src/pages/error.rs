//! What can go wrong with a page.
//!
//! Owns one enum for all that is done with pages: its callers act on the page, not on the step.
//! Refuses to carry a chunk: page, file and offset are all that it names.

use std::io;
use std::path::{Path, PathBuf};

use super::PAGE_NUMBER_MAX;
use crate::atomic::FileError;

/// Why a page was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// There is no such page: it was never written, or it was destroyed.
    #[error("page {page} of record secrets does not exist; it was never written or is destroyed")]
    Missing {
        /// The page.
        page: u32,
    },
    /// A page of this number exists, so another cannot be rewritten to it.
    #[error("page {page} of record secrets exists already; rewrite to an unused number")]
    Exists {
        /// The page.
        page: u32,
    },
    /// The bytes on disk fail their checksum, or are gone.
    #[error("`{}` is damaged at byte {offset}: {what}; restore the page from its backup: without it the records whose secrets lie there cannot be opened", file.display())]
    Damaged {
        /// The page file.
        file: PathBuf,
        /// Where the chunk begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The page's number is 0 or has more than eight digits.
    #[error("{page} is no number of a page; use 1 to {PAGE_NUMBER_MAX}")]
    Number {
        /// The number.
        page: u32,
    },
    /// A chunk is empty or too long, or the page would be too long.
    #[error("a {what} of {bytes} bytes does not fit; use 1 to {max}")]
    Size {
        /// `chunk` or `page`.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// There was no room. Nothing was written.
    #[error("there is no room to write to `{}`; nothing was written; make room and try again", file.display())]
    Full {
        /// The page file.
        file: PathBuf,
    },
    /// A write to this page failed earlier, so what the disk holds is not known.
    #[error("page {page} stopped after a failed write; reopen the store and read the page")]
    Stopped {
        /// The page.
        page: u32,
    },
    /// The note about an interrupted rewriting is not one.
    #[error("`{}` is malformed; restore the folder from its backup", file.display())]
    Note {
        /// The note.
        file: PathBuf,
    },
    /// The note about a rewriting could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused.
    #[error("cannot read or write `{}`; check its permissions and the disk", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong where no whole chunk begins.
pub(super) fn fault(torn: bool) -> &'static str {
    match torn {
        true => "the file ends within a chunk",
        false => "the chunk's checksum does not hold",
    }
}

/// What begins at an offset is no whole chunk.
pub(super) fn bad_chunk(file: PathBuf, (offset, torn): (u64, bool)) -> PagesError {
    let what = fault(torn);
    PagesError::Damaged { file, offset, what }
}

/// Puts the file's name beside what the system said.
pub(super) fn failed(file: &Path) -> impl FnOnce(io::Error) -> PagesError + '_ {
    move |source| PagesError::Io {
        file: file.to_owned(),
        source,
    }
}
