//! The operations that change files, behind one small trait.
//!
//! Owns every write of segments, pages and small files, so that tests can record each, fail it,
//! and build what a power cut after it may leave. Reading goes past it.
//! Refuses nothing itself; sled writes its own files, which may be lost at any time.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

#[cfg(test)]
pub(crate) mod recording;

/// A file open for reading and writing.
#[derive(Debug)]
pub(crate) struct Handle {
    pub file: File,
    /// Tells files apart where names change; only the recording one gives other than 0.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the recording file system"))]
    pub id: u64,
}

/// How a file is opened; one that is made is its owner's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It must be there.
    Existing,
    /// Made when it is not there.
    OrCreate,
    /// Made, or emptied.
    Truncate,
}

/// What changes files. A name is durable after `sync_dir` of its folder, content after `sync`.
pub(crate) trait Fs: Debug + Send + Sync {
    fn open(&self, path: &Path, how: How) -> io::Result<Handle>;
    fn write_at(&self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()>;
    fn sync(&self, file: &Handle) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// The system's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real;

impl Fs for Real {
    fn open(&self, path: &Path, how: How) -> io::Result<Handle> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(how != How::Existing)
            .truncate(how == How::Truncate)
            .mode(0o600)
            .open(path)?;
        if how == How::Truncate {
            // What an earlier attempt left keeps the mode that it was made with.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        Ok(Handle { file, id: 0 })
    }

    fn write_at(&self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()> {
        file.file.set_len(len)
    }

    fn sync(&self, file: &Handle) -> io::Result<()> {
        // The length counts as data; the times of the file do not matter.
        file.file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Overwrites a file with zeros, makes that durable, and removes it; one that is not there is no
/// error. The caller syncs the folder.
pub(crate) fn destroy(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    let file = match fs.open(path, How::Existing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let zeros = vec![0; 256 << 10];
    let len = file.file.metadata()?.len();
    let mut at = 0;
    while at < len {
        let count = (len - at).min(zeros.len() as u64) as usize;
        fs.write_at(&file, &zeros[..count], at)?;
        at += count as u64;
    }
    fs.sync(&file)?;
    fs.remove(path)
}
