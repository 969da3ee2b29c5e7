//! Opening: what the segments hold is brought into the index, and a torn tail is cut.
//!
//! Owns the judgement of what a power cut may leave behind (cut it, keep a copy) and what it
//! cannot (damage: refuse to open).
//! Refuses to lose anything that was durable, and to throw a byte away without a copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::embedded::Options;
use crate::error::{Holder, OpenError, open_io};
use crate::format::SEGMENT_HEADER;
use crate::fs::{self as files, Fs};
use crate::index::{Index, IndexError, Place, SUSPECT};
use crate::recent::Layer;
use crate::segment::{self, Order};

mod repair;

mod replay;

use replay::Replay;

/// The ending of a file that compaction has not finished.
pub(crate) const UNFINISHED: &str = "tmp";

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
    /// The copy that was kept of them; the next erasure destroys it.
    pub saved: PathBuf,
}

/// A store ready to be written to.
pub(crate) struct Recovered {
    pub index: Index,
    pub heads: BTreeMap<String, u64>,
    pub end: Place,
    pub order: Order,
    /// Bytes of each file that no key points to.
    pub dead: BTreeMap<u32, u64>,
    pub opened: Opened,
}

pub(crate) fn recover(fs: &dyn Fs, dir: &Path, options: &Options) -> Result<Recovered, OpenError> {
    match recover_once(fs, dir, options) {
        // An index that was moved aside has nothing that the segments lack: its room is worth more.
        Err(OpenError::Full { .. }) if clear_aside(dir) > 0 => recover_once(fs, dir, options),
        recovered => recovered,
    }
}

fn recover_once(fs: &dyn Fs, dir: &Path, options: &Options) -> Result<Recovered, OpenError> {
    let folder = segment::folder(dir);
    make_dir(fs, &folder)?;
    let mut order = Order::read(dir).map_err(open_io(&folder))?;
    if let Some(&number) = order.bad.first() {
        let what = "the file's header does not hold";
        return Err(damaged(segment::path(dir, number), 0, what));
    }
    if let Some(number) = order.gap() {
        return Err(missing(dir, number));
    }
    let begins = order.files.is_empty();
    let (index, rebuilt) = open_index(fs, dir, options, &order)?;
    let failed = |error: IndexError| index_failed(dir, error);
    let marker = index.marker().map_err(failed)?;
    match marker {
        Some(marker) if marker.segment > order.last() => {
            return Err(missing(dir, order.last() + 1));
        }
        None if begins => {
            let path = segment::path(dir, segment::FIRST);
            segment::create(fs, dir, segment::FIRST).map_err(open_io(&path))?;
            order = Order::read(dir).map_err(open_io(&folder))?;
        }
        _ => {}
    }
    match order.files.last() {
        Some(last) if last.number & segment::KEPT == 0 => {}
        // Compaction leaves the segment that is written to alone.
        _ => return Err(missing(dir, order.last() + 1)),
    }
    let start = marker.unwrap_or(START);
    match marker {
        Some(marker) => repair::repair(dir, &index, &order, marker)?,
        None => {
            // A rebuild that is interrupted goes on from its last checkpoint.
            let nothing = Layer {
                end: START,
                ..Layer::default()
            };
            index
                .checkpoint(&nothing, &BTreeMap::new())
                .map_err(failed)?;
            let _ = std::fs::remove_file(dir.join(SUSPECT));
        }
    }
    clear(fs, dir, &order)?;
    order.replaced.clear();
    let mut replay = Replay::new(fs, dir, options, &index, marker, start).map_err(failed)?;
    replay.opened.rebuilt = rebuilt;
    for file in order.files.iter().filter(|file| file.to >= start.segment) {
        if replay.opened.rebuilt.is_some() {
            tracing::info!(segment = file.to, of = order.last(), "rebuilding the index");
        }
        replay.segment(&order, file)?;
    }
    let (heads, end, opened) = replay.finish(&order)?;
    let dead = index.dead().map_err(failed)?;
    Ok(Recovered {
        index,
        heads,
        end,
        order,
        dead,
        opened,
    })
}

/// Destroys what an interrupted compaction left: its unfinished file, or the files that its
/// finished one took the place of.
fn clear(fs: &dyn Fs, dir: &Path, order: &Order) -> Result<(), OpenError> {
    let folder = segment::folder(dir);
    let io = || open_io(&folder);
    let mut doomed: Vec<_> = order
        .replaced
        .iter()
        .map(|n| segment::path(dir, *n))
        .collect();
    for entry in std::fs::read_dir(&folder).map_err(io())? {
        let path = entry.map_err(io())?.path();
        if path.extension().is_some_and(|ending| ending == UNFINISHED) {
            doomed.push(path);
        }
    }
    if doomed.is_empty() {
        return Ok(());
    }
    let Some(_alone) = segment::lock_alone(dir).map_err(io())? else {
        return Err(OpenError::Locked {
            dir: dir.to_owned(),
            holder: Holder::Verification,
        });
    };
    // The name of the finished file may not be durable yet.
    fs.sync_dir(&folder).map_err(io())?;
    for path in doomed {
        files::destroy(fs, &path).map_err(open_io(&path))?;
    }
    fs.sync_dir(&folder).map_err(io())
}

/// Opens the index, or moves it aside and begins an empty one. An empty one has no marker.
fn open_index(
    fs: &dyn Fs,
    dir: &Path,
    options: &Options,
    order: &Order,
) -> Result<(Index, Option<String>), OpenError> {
    let path = dir.join("index");
    let present = path.exists();
    let mut reason = (!present && !order.files.is_empty()).then(|| "it was missing".to_owned());
    if present {
        if dir.join(SUSPECT).exists() {
            reason = Some("it failed while the store was open".to_owned());
        } else {
            let opened = Index::open(&path, options.cache_bytes);
            match opened.and_then(|index| checked(index, order)) {
                Ok(index) => return Ok((index, None)),
                // Moved aside it would be rebuilt where there is no room either.
                Err(error) if error.full => return Err(index_failed(dir, error)),
                Err(error) => reason = Some(error.detail),
            }
        }
        // One is enough to look at; a rebuild that fails at every start would leave one each time.
        clear_aside(dir);
        let aside = (1..)
            .map(|n: u32| dir.join(format!("index.damaged-{n}")))
            .find(|aside| !aside.exists())
            .unwrap_or_else(|| dir.join("index.damaged"));
        // Through `std`, not `fs`: what is sled's may be lost at any time.
        std::fs::rename(&path, &aside).map_err(open_io(&path))?;
        fs.sync_dir(dir).map_err(open_io(dir))?;
    }
    if let Some(reason) = &reason {
        tracing::warn!(%reason, "rebuilding the index from the segments");
    }
    let index =
        Index::open(&path, options.cache_bytes).map_err(|error| index_failed(dir, error))?;
    fs.sync_dir(dir).map_err(open_io(dir))?;
    Ok((index, reason))
}

/// Takes away the indexes that were moved aside; says how many.
fn clear_aside(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let aside = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("index.damaged")
    });
    aside
        .filter(|entry| std::fs::remove_dir_all(entry.path()).is_ok())
        .count()
}

/// Hands an index back when what the replay needs of it can be read, and can be brought up to
/// date.
fn checked(index: Index, order: &Order) -> Result<Index, IndexError> {
    index.heads()?;
    index.kept()?;
    index.dead()?;
    let Some(marker) = index.marker()? else {
        return Err(IndexError::inconsistent("it has no marker"));
    };
    // Compaction takes only segments that lie before the marker; so this one was put back.
    let compacted = order
        .files
        .iter()
        .find(|file| file.from <= marker.segment && marker.segment <= file.to);
    if compacted.is_some_and(|file| file.number & segment::KEPT != 0) {
        return Err(IndexError::inconsistent("it is older than a compaction"));
    }
    Ok(index)
}

/// Makes a folder of the store and its name durable.
pub(crate) fn make_dir(fs: &dyn Fs, path: &Path) -> Result<(), OpenError> {
    std::fs::create_dir_all(path).map_err(open_io(path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            fs.sync_dir(parent).map_err(open_io(parent))
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
    let (dir, detail) = (dir.join("index"), error.detail);
    match error.full {
        true => OpenError::Full { dir, detail },
        false => OpenError::Index { dir, detail },
    }
}

#[cfg(test)]
mod tests;
