//! The folder `cut/`: copies of unfinished writes that opening cut off.
//!
//! Owns their end: a cut batch is often written once more, so a copy may hold a body that is erased
//! later. The first erasure after an opening destroys all copies.
//! Refuses to say what is in them; they are for whoever looks into a crash.

use std::io;
use std::path::Path;

use crate::fs::{Fs, destroy};

/// Its name in the store's folder.
pub(crate) const FOLDER: &str = "cut";

/// Overwrites and removes all copies but one.
pub(crate) fn clear(fs: &dyn Fs, dir: &Path, but: Option<&Path>) -> io::Result<()> {
    let folder = dir.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut cleared = false;
    for entry in entries {
        let path = entry?.path();
        if but != Some(path.as_path()) {
            destroy(fs, &path)?;
            cleared = true;
        }
    }
    match cleared {
        true => fs.sync_dir(&folder),
        false => Ok(()),
    }
}
