//! Restoring a set into an empty directory: whole, or nothing.
//!
//! Everything is written beside the directory first and takes its name at the end. What comes
//! back may be older than what the node signed since: the caller tells the restore guard.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::check::{as_written, judged};
use crate::error::{BackupError, Result};
use crate::folder::{Folder, Part};
use crate::sealed::{self, Identities, Unopened};
use crate::set::{Item, Set};

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The set.
    pub number: u64,
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether what opens records came back, too.
    pub secrets: bool,
}

/// How a set is restored.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Without what opens records.
    pub history_only: bool,
    /// In milliseconds; says whether the part that opens records may be gone.
    pub now: u64,
    /// The file that says that the directory came out of a backup, when one is to say so.
    pub mark: Option<&'a str>,
}

/// Restores a set into `dir`, which must be empty or not there.
///
/// # Errors
/// [`BackupError`]; then `dir` is as it was.
pub fn restore(
    folder: &Folder,
    set: &Set,
    identities: &Identities,
    dir: &Path,
    how: How<'_>,
) -> Result<Restored> {
    let filled = dir
        .read_dir()
        .is_ok_and(|mut inside| inside.next().is_some());
    if filled {
        return Err(BackupError::NotEmpty {
            path: dir.to_owned(),
        });
    }
    let beside = beside(dir);
    let made = write(folder, set, identities, &beside, how).and_then(|restored| {
        if dir.exists() {
            fs::remove_dir(dir).map_err(BackupError::io(dir))?;
        }
        fs::rename(&beside, dir).map_err(BackupError::io(dir))?;
        Ok(restored)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    made
}

/// The most that [`one_file`] reads.
const ONE_FILE_MAX: u64 = 4 << 20;

/// One small file of a set, opened in memory; nothing when the set has none of that name.
///
/// # Errors
/// [`BackupError`] when it is there and does not open to what the set says.
pub fn one_file(
    folder: &Folder,
    set: &Set,
    identities: &Identities,
    name: &str,
) -> Result<Option<Vec<u8>>> {
    let of = |part, items: &[Item]| {
        let item = items.iter().find(|item| item.path == name)?;
        Some((folder.object(part, item), item.clone()))
    };
    let found = of(Part::History, &set.history).or_else(|| of(Part::Secrets, &set.secrets));
    let Some((object, item)) = found.filter(|(_, item)| item.bytes <= ONE_FILE_MAX) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let opened = fs::File::open(&object)
        .map_err(Unopened::broken)
        .and_then(|sealed| sealed::open(sealed, &mut bytes, identities));
    let (mut broken, mut other_key) = (Vec::new(), Vec::new());
    match opened {
        Ok(opened) if opened == (item.bytes, item.sha256) => {}
        Err(Unopened::OtherKey) => other_key.push(item.path),
        Ok(_) => broken.push(format!("`{name}`: it opens to something else")),
        Err(Unopened::Broken(why)) => broken.push(format!("`{name}`: {why}")),
    }
    judged(broken, other_key, set)?;
    Ok(Some(bytes))
}

fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    dir.with_file_name(name)
}

fn write(
    folder: &Folder,
    set: &Set,
    identities: &Identities,
    dir: &Path,
    how: How<'_>,
) -> Result<Restored> {
    let How {
        history_only,
        now,
        mark,
    } = how;
    let _ = fs::remove_dir_all(dir);
    let folders: &[&str] = if history_only {
        &["", "segments"]
    } else {
        &["", "segments", "secrets", "operators"]
    };
    for name in folders {
        let path = dir.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(BackupError::io(&path))?;
    }
    let mut restored = Restored {
        number: set.number,
        files: 0,
        bytes: 0,
        secrets: !history_only,
    };
    let (mut broken, mut other_key) = (Vec::new(), Vec::new());
    for (part, items) in [(Part::History, &set.history), (Part::Secrets, &set.secrets)] {
        for item in items {
            // Who the node is is no secret, and without it there is no node.
            if part == Part::Secrets && history_only && item.path != "node.json" {
                continue;
            }
            let object = folder.object(part, item);
            if part == Part::Secrets && now >= set.secrets_expire && !object.exists() {
                return Err(BackupError::SecretsGone);
            }
            match write_one(&object, item, identities, dir) {
                Ok(()) => {
                    restored.files += 1;
                    restored.bytes += item.bytes;
                }
                Err(Unopened::OtherKey) => other_key.push(item.path.clone()),
                Err(Unopened::Broken(why)) => {
                    broken.push(format!("`{}` ({}): {why}", item.path, object.display()));
                }
            }
        }
    }
    judged(broken, other_key, set)?;
    // With the rest, in one step: a directory without its mark would not know what it is.
    if let Some(mark) = mark {
        let path = dir.join(mark);
        fs::write(&path, b"this directory was restored from a backup\n")
            .and_then(|()| fs::File::open(&path)?.sync_all())
            .map_err(BackupError::io(&path))?;
    }
    for name in folders.iter().rev() {
        let path = dir.join(name);
        fs::File::open(&path)
            .and_then(|folder| folder.sync_all())
            .map_err(BackupError::io(&path))?;
    }
    Ok(restored)
}

fn write_one(
    object: &Path,
    item: &Item,
    identities: &Identities,
    dir: &Path,
) -> std::result::Result<(), Unopened> {
    let sealed = fs::File::open(object).map_err(Unopened::broken)?;
    // The list was read by `Set::decode`: its names stay within the directory.
    let mut out = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(dir.join(&item.path))
        .map_err(Unopened::broken)?;
    let opened = match sealed::open(sealed, &mut out, identities) {
        // Who changed the first lines of an object changed whom it is sealed to.
        Err(Unopened::OtherKey) => {
            as_written(object, item)?;
            return Err(Unopened::OtherKey);
        }
        other => other?,
    };
    if opened != (item.bytes, item.sha256.clone()) {
        return Err(Unopened::broken("it opens to something else"));
    }
    out.sync_all().map_err(Unopened::broken)
}
