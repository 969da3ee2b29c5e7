//! Small files that are replaced whole or not at all, and read up to a bound.
//!
//! Owns the order write, fsync, rename, fsync of the folder.
//! Refuses to read more than the caller expects.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::fs::{Fs, How, Real};
use crate::said::said;

/// Why a small file was not read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("没有文件 `{0}`，请核对路径 / `{0}` does not exist; check the path", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than what it can be.
    #[error(
        "`{0}` 超过 {max} 字节，不是此处应有的文件 / `{0}` is longer than {max} bytes; it is not the file expected there",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        max: u64,
    },
    /// The operating system refused.
    #[error(
        "{0} `{1}`：{2} / cannot {action} `{1}`: {3}",
        cannot(.action), path.display(), said(.error).0, said(.error).1
    )]
    Io {
        /// `read`, `replace` or `destroy`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said; it is in the message, so it is no source to be walked to.
        error: io::Error,
    },
}

/// That something cannot be done, in Chinese.
fn cannot(action: &str) -> &'static str {
    match action {
        "read" => "读不了",
        "destroy" => "无法销毁",
        _ => "无法写入",
    }
}

/// Puts `bytes` in the place of the file at `path`, readable by its owner only. When this returns
/// Ok, they survive a power cut; otherwise the file is as it was, or, when only the last step
/// failed, perhaps already the new one.
///
/// Two processes must not replace one file at a time: the temporary file has one name,
/// `.<name>.tmp`, so that what an interrupted attempt left is written over by the next.
///
/// # Errors
/// [`FileError::Io`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_on(&Real, path, bytes)
}

/// Overwrites a file with zeros, makes that durable, and removes it; one that is not there is no
/// error. What the medium kept of it elsewhere, as flash may, is not reached.
///
/// # Errors
/// [`FileError::Io`].
pub fn destroy(path: &Path) -> Result<(), FileError> {
    crate::fs::destroy(&Real, path)
        .and_then(|()| Real.sync_dir(path.parent().unwrap_or(Path::new("."))))
        .map_err(|error| FileError::Io {
            action: "destroy",
            path: path.to_owned(),
            error,
        })
}

pub(crate) fn replace_on(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    try_replace(fs, path, bytes).map_err(|error| FileError::Io {
        action: "replace",
        path: path.to_owned(),
        error,
    })
}

/// The bytes of the file at `path`, at most `max` of them.
///
/// # Errors
/// [`FileError::Missing`], [`FileError::TooLong`] without reading it whole, [`FileError::Io`].
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Ok(count) if count as u64 > max => Err(FileError::TooLong {
            path: path.to_owned(),
            max,
        }),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FileError::Missing {
            path: path.to_owned(),
        }),
        Err(error) => Err(FileError::Io {
            action: "read",
            path: path.to_owned(),
            error,
        }),
    }
}

/// Where the bytes are written before they take the place of the file at `path`.
pub(crate) fn temporary(path: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name()?);
    name.push(".tmp");
    Some(path.with_file_name(name))
}

fn try_replace(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file");
    let temporary = temporary(path).ok_or_else(invalid)?;
    let file = fs.open(&temporary, How::Truncate)?;
    let written = fs.write_at(&file, bytes, 0).and_then(|()| fs.sync(&file));
    if let Err(error) = written {
        // The half-written copy is of no use; a failure to remove it changes nothing.
        let _ = fs.remove(&temporary);
        return Err(error);
    }
    fs.rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs.sync_dir(parent),
        _ => fs.sync_dir(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore");
        fs::write(dir.path().join(".keystore.tmp"), b"left over").unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read_bounded(&path, 6).unwrap(), b"second");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_longer_file_and_a_missing_one_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(matches!(
            read_bounded(&path, 6),
            Err(FileError::Missing { .. })
        ));
        fs::write(&path, b"seven b").unwrap();
        assert!(matches!(
            read_bounded(&path, 6),
            Err(FileError::TooLong { max: 6, .. })
        ));
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert!(path.is_dir());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_in_chinese_and_then_in_english() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        fs::write(dir.path().join("f"), b"seven b").unwrap();
        for (error, why) in [
            (read_bounded(&none, 6).unwrap_err(), "does not exist"),
            (
                read_bounded(&dir.path().join("f"), 6).unwrap_err(),
                "longer",
            ),
            (read_bounded(dir.path(), 6).unwrap_err(), "it is a folder"),
            (replace(&none.join("f"), b"x").unwrap_err(), "no such file"),
        ] {
            let told = error.to_string();
            let (chinese, english) = told.split_once(" / ").unwrap();
            let place = dir.path().display().to_string();
            assert!(!chinese.is_ascii() && english.is_ascii(), "{told}");
            assert!(
                chinese.contains(&place) && english.contains(&place),
                "{told}"
            );
            assert!(english.contains(why), "{told}");
        }
    }
}
