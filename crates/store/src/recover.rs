//! Opening: what the segments hold is brought into the index, and a torn tail is cut.
//!
//! Owns the judgement of what a power cut may leave behind (cut it, keep a copy) and what it
//! cannot (damage: refuse to open).
//! Refuses to lose anything that was durable, and to throw a byte away without a copy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::embedded::Options;
use crate::error::{OpenError, open_io};
use crate::format::SEGMENT_HEADER;
use crate::index::{Index, IndexError, Place, SUSPECT};
use crate::segment;

mod replay;

use replay::Replay;

/// The first place that a group can have.
const START: Place = Place {
    segment: segment::FIRST,
    offset: SEGMENT_HEADER,
    sequence: 1,
};

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Why the index was rebuilt from the segments; `None` when it was used as it lay there.
    pub rebuilt: Option<String>,
    /// Groups that the index did not durably have.
    pub replayed: u64,
    /// The unfinished write that was cut off, if there was one.
    pub cut: Option<Cut>,
}

/// Bytes at the end of the last segment that never became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Where it ends since.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// The copy that was kept of them.
    pub saved: PathBuf,
}

/// A store ready to be written to.
pub(crate) struct Recovered {
    pub index: Index,
    pub heads: BTreeMap<String, u64>,
    pub end: Place,
    pub opened: Opened,
}

pub(crate) fn recover(dir: &Path, options: &Options) -> Result<Recovered, OpenError> {
    let folder = segment::folder(dir);
    make_dir(&folder)?;
    let mut numbers = segment::list(dir).map_err(open_io(&folder))?;
    if let Some(number) = segment::gap(&numbers) {
        return Err(missing(dir, number));
    }
    let (index, rebuilt) = open_index(dir, options, numbers.is_empty())?;
    let failed = |error: IndexError| index_failed(dir, error);
    let marker = index.marker().map_err(failed)?;
    let applied = index.applied().map_err(failed)?;
    let floor = marker.max(applied);
    let last = numbers.last().copied().unwrap_or(0);
    match floor {
        Some(floor) if floor.segment > last => return Err(missing(dir, last + 1)),
        None if numbers.is_empty() => {
            let path = segment::path(dir, segment::FIRST);
            segment::create(dir, segment::FIRST).map_err(open_io(&path))?;
            numbers.push(segment::FIRST);
        }
        _ => {}
    }
    let start = marker.unwrap_or(START);
    if marker.is_none() {
        // A rebuild that is interrupted goes on from its last checkpoint.
        index.checkpoint(START).map_err(failed)?;
        let _ = fs::remove_file(dir.join(SUSPECT));
    }
    let mut replay = Replay::new(dir, options, &index, floor, start).map_err(failed)?;
    replay.opened.rebuilt = rebuilt;
    let last = numbers.last().copied().unwrap_or(segment::FIRST);
    for number in start.segment..=last {
        replay.segment(number, number == last)?;
    }
    let (heads, end, opened) = replay.finish()?;
    Ok(Recovered {
        index,
        heads,
        end,
        opened,
    })
}

/// Opens the index, or moves it aside and begins an empty one. An empty one has no marker.
fn open_index(
    dir: &Path,
    options: &Options,
    no_segments: bool,
) -> Result<(Index, Option<String>), OpenError> {
    let path = dir.join("index");
    let present = path.exists();
    let mut reason = (!present && !no_segments).then(|| "it was missing".to_owned());
    if present {
        if dir.join(SUSPECT).exists() {
            reason = Some("it failed while the store was open".to_owned());
        } else {
            match Index::open(&path, options.cache_bytes).and_then(checked) {
                Ok(index) => return Ok((index, None)),
                Err(error) => reason = Some(error.detail),
            }
        }
        let aside = (1..)
            .map(|n: u32| dir.join(format!("index.damaged-{n}")))
            .find(|aside| !aside.exists())
            .unwrap_or_else(|| dir.join("index.damaged"));
        fs::rename(&path, &aside).map_err(open_io(&path))?;
        segment::sync_dir(dir).map_err(open_io(dir))?;
    }
    if let Some(reason) = &reason {
        tracing::warn!(%reason, "rebuilding the index from the segments");
    }
    let index =
        Index::open(&path, options.cache_bytes).map_err(|error| index_failed(dir, error))?;
    segment::sync_dir(dir).map_err(open_io(dir))?;
    Ok((index, reason))
}

/// Hands an index back when what the replay needs of it can be read.
fn checked(index: Index) -> Result<Index, IndexError> {
    index.applied()?;
    index.heads()?;
    match index.marker()? {
        Some(_) => Ok(index),
        None => Err(IndexError::inconsistent("it has no marker")),
    }
}

/// Makes a folder of the store and its name durable.
pub(crate) fn make_dir(path: &Path) -> Result<(), OpenError> {
    fs::create_dir_all(path).map_err(open_io(path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            segment::sync_dir(parent).map_err(open_io(parent))
        }
        _ => Ok(()),
    }
}

fn damaged(file: PathBuf, offset: u64, what: &'static str) -> OpenError {
    OpenError::Damaged { file, offset, what }
}

fn missing(dir: &Path, number: u32) -> OpenError {
    damaged(segment::path(dir, number), 0, "the file is missing")
}

fn index_failed(dir: &Path, error: IndexError) -> OpenError {
    OpenError::Index {
        dir: dir.join("index"),
        detail: error.detail,
    }
}

#[cfg(test)]
mod tests;
