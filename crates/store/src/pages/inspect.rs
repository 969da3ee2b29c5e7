//! Looking at pages without opening them: for verification, beside a node that may run.
//!
//! Owns the comparison of a page with the chunks that records point to.
//! Refuses to change anything, and to say what a chunk holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::chunk::{Chunk, chunk_at, walk};
use super::error::failed;
use super::rewrite::REWRITING;
use super::{ChunkAt, PAGE_BYTES_MAX, PagesError};
use crate::atomic::{self, FileError};
use crate::segment::number;

/// Bytes that are no whole chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the page file they begin.
    pub offset: u64,
    /// Whether an append that was interrupted, or is under way, may look like that.
    pub unfinished: bool,
}

/// What a page file is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The file.
    pub file: PathBuf,
    /// Its size; 0 when it does not exist.
    pub bytes: u64,
    /// The first bytes that are no whole chunk.
    pub fault: Option<Fault>,
    /// Of the chunks asked for, those that are not there whole.
    pub lost: Vec<ChunkAt>,
}

/// The numbers of the pages in `dir/secrets`, in order; none when there is no such folder.
///
/// # Errors
/// [`PagesError::Io`].
pub fn numbers(dir: &Path) -> Result<Vec<u32>, PagesError> {
    let folder = dir.join("secrets");
    match folder.exists() {
        true => numbers_in(&folder),
        false => Ok(Vec::new()),
    }
}

pub(super) fn numbers_in(folder: &Path) -> Result<Vec<u32>, PagesError> {
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let name = entry.map_err(failed(folder))?.file_name();
        numbers.extend(name.to_str().and_then(|name| number(name, ".page")));
    }
    Ok(numbers.into_iter().collect())
}

/// The page of `dir` that is being destroyed, or was when a power cut came; its bytes say nothing.
///
/// # Errors
/// [`PagesError::File`] when the note about it cannot be read.
pub fn being_destroyed(dir: &Path) -> Result<Option<u32>, PagesError> {
    let note = dir.join("secrets").join(REWRITING);
    let text = match atomic::read_bounded(&note, 64) {
        Err(FileError::Missing { .. }) => return Ok(None),
        text => text?,
    };
    let text = String::from_utf8(text).unwrap_or_default();
    Ok(text.split(' ').next().and_then(|from| from.parse().ok()))
}

/// Reads a page of `dir` whole, checks every chunk, and looks for `wanted`, places in this page.
///
/// # Errors
/// [`PagesError::File`] when it cannot be read or is longer than a page.
pub fn inspect(dir: &Path, page: u32, wanted: &[ChunkAt]) -> Result<Inspected, PagesError> {
    let file = dir.join("secrets").join(format!("{page:08}.page"));
    let bytes = match atomic::read_bounded(&file, PAGE_BYTES_MAX) {
        Err(FileError::Missing { .. }) => Vec::new(),
        bytes => bytes?,
    };
    let is_there = |at: &ChunkAt| {
        let rest = usize::try_from(at.offset).ok();
        let chunk = rest.and_then(|offset| bytes.get(offset..));
        let chunk = chunk.map(|rest| chunk_at(page, rest));
        at.page == page
            && matches!(chunk, Some(Chunk::Whole(chunk)) if chunk.len() == at.len as usize)
    };
    let lost = wanted.iter().filter(|at| !is_there(at)).copied().collect();
    let fault = walk(page, &bytes).fault;
    Ok(Inspected {
        file,
        bytes: bytes.len() as u64,
        fault: fault.map(|(offset, unfinished)| Fault { offset, unfinished }),
        lost,
    })
}
