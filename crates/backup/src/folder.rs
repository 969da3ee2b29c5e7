//! A backup folder: `history/`, `secrets/` and `sets/`, and whose it is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{BackupError, Result};
use crate::sealed::{self, Recipients};
use crate::set::{Item, LIST_MAX, Set};

/// Which part of a backup an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    History,
    Secrets,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::History => "history",
            Part::Secrets => "secrets",
        }
    }
}

/// A folder of backups of one node.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A folder as it is.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Makes the folders that are missing.
    pub(crate) fn prepare(&self) -> Result<()> {
        for name in ["history", "secrets", "sets"] {
            let path = self.path.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(BackupError::io(&path))?;
        }
        Ok(())
    }

    /// Holds the folder for one writer, until the file is dropped.
    pub(crate) fn hold(&self) -> Result<File> {
        let path = self.path.join("sets");
        let folder = File::open(&path).map_err(BackupError::io(&path))?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(fs::TryLockError::WouldBlock) => Err(BackupError::Busy {
                path: self.path.clone(),
            }),
            Err(fs::TryLockError::Error(error)) => Err(BackupError::Io { path, error }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn part(&self, part: Part) -> PathBuf {
        self.path.join(part.name())
    }

    /// Where the object of an item lies.
    pub(crate) fn object(&self, part: Part, item: &Item) -> PathBuf {
        self.part(part).join(format!("{}.age", item.sealed_sha256))
    }

    /// Whether the object of an item is there as it was written.
    fn holds(&self, part: Part, item: &Item) -> bool {
        File::open(self.object(part, item))
            .and_then(|mut file| sealed::measure(&mut file))
            .is_ok_and(|found| found == (item.sealed_bytes, item.sealed_sha256.clone()))
    }

    pub(crate) fn list(&self, number: u64) -> PathBuf {
        self.path.join("sets").join(format!("{number:06}.json"))
    }

    /// The numbers of the sets, ascending.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>> {
        let sets = self.path.join("sets");
        let mut numbers = Vec::new();
        if !sets.exists() {
            return Ok(numbers);
        }
        for entry in fs::read_dir(&sets).map_err(BackupError::io(&sets))? {
            let name = entry.map_err(BackupError::io(&sets))?.file_name();
            let number = name.to_str().and_then(|n| n.strip_suffix(".json"));
            numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// One set, the newest when no number is given.
    ///
    /// # Errors
    /// [`BackupError::Missing`], [`BackupError::List`].
    pub fn set(&self, number: Option<u64>) -> Result<Set> {
        let missing = || BackupError::Missing {
            path: self.path.clone(),
        };
        let numbers = self.numbers()?;
        let number = match number {
            Some(number) if numbers.contains(&number) => number,
            Some(_) => return Err(missing()),
            None => *numbers.last().ok_or_else(missing)?,
        };
        let path = self.list(number);
        let bad = |why: String| BackupError::List {
            path: path.clone(),
            why,
        };
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LIST_MAX + 1).read_to_end(&mut bytes))
            .map_err(BackupError::io(&path))?;
        if bytes.len() as u64 > LIST_MAX {
            return Err(bad("it is too long".into()));
        }
        let set = Set::decode(&bytes).map_err(bad)?;
        if set.number != number {
            return Err(bad("it is the list of another set".into()));
        }
        Ok(set)
    }

    /// Seals one file of a node as an object, unless it is there already.
    pub(crate) fn put(
        &self,
        part: Part,
        path: &str,
        source: &Path,
        known: &[Item],
        recipients: &Recipients,
    ) -> Result<(Item, bool)> {
        let mut file = File::open(source).map_err(BackupError::io(source))?;
        let (bytes, sha256) = sealed::measure(&mut file).map_err(BackupError::io(source))?;
        let mut same = known
            .iter()
            .filter(|item| item.sha256 == sha256 && item.bytes == bytes);
        if let Some(item) = same.find(|item| self.holds(part, item)) {
            let item = Item {
                path: path.to_owned(),
                ..item.clone()
            };
            return Ok((item, false));
        }
        // Read again: the last segment may have grown meanwhile, and what is sealed is what counts.
        let mut file = File::open(source).map_err(BackupError::io(source))?;
        let temporary = self.part(part).join(".object.tmp");
        let mut out = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(BackupError::io(&temporary))?;
        let item = sealed::seal(path, &mut file, &mut out, recipients)
            .and_then(|item| {
                out.flush()?;
                out.sync_all()?;
                Ok(item)
            })
            .map_err(|error| {
                let _ = fs::remove_file(&temporary);
                BackupError::Io {
                    path: temporary.clone(),
                    error,
                }
            })?;
        let object = self.object(part, &item);
        fs::rename(&temporary, &object).map_err(BackupError::io(&object))?;
        Ok((item, true))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        for name in ["history", "secrets", "sets", "."] {
            let path = self.path.join(name);
            File::open(&path)
                .and_then(|folder| folder.sync_all())
                .map_err(BackupError::io(&path))?;
        }
        Ok(())
    }
}

/// Every set of a folder that can be read, oldest first, and what is wrong with the others.
///
/// # Errors
/// [`BackupError::Io`] when the folder cannot be read.
pub fn sets(folder: &Folder) -> Result<(Vec<Set>, Vec<String>)> {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    for number in folder.numbers()? {
        match folder.set(Some(number)) {
            Ok(set) => found.push(set),
            Err(error) => bad.push(error.to_string()),
        }
    }
    Ok((found, bad))
}
