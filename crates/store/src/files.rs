//! The segment files as files, for whoever copies them while a node runs.
//!
//! Owns holding them: while a [`Held`] lives, no compaction takes one away. Refuses to read them:
//! what is inside is `scan_segments`' business.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::segment;

/// Holds the segment files of a directory.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

/// Holds the segment files so that none is taken away. Waits for a compaction that is taking some.
///
/// # Errors
/// When there is no folder of segments.
pub fn hold(dir: &Path) -> io::Result<Held> {
    segment::lock_shared(dir).map(|_lock| Held { _lock })
}

/// The names of the segment files, ascending, files of compaction first; a later one may come any time.
///
/// # Errors
/// When the folder cannot be read.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(segment::folder(dir))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let kept = segment::number(&name, ".kept");
        let plain = segment::number(&name, ".seg");
        names.extend(kept.or(plain).map(|number| (kept.is_none(), number, name)));
    }
    names.sort();
    Ok(names.into_iter().map(|(_, _, name)| name).collect())
}
