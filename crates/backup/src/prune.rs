//! Taking away old sets, and secrets whose time is over.

use std::collections::BTreeSet;
use std::fs;

use crate::error::{BackupError, Result};
use crate::folder::{Folder, Part, sets};

/// What was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Sets.
    pub sets: u64,
    /// Objects that no set names any more.
    pub objects: u64,
}

/// Keeps the newest `keep` sets and takes the others away.
///
/// # Errors
/// [`BackupError::Broken`] when a list cannot be read: then nothing is taken away, because what it
/// names is not known.
pub fn prune(folder: &Folder, keep: usize, now: u64) -> Result<Pruned> {
    let _one = folder.hold()?;
    let (all, bad) = sets(folder)?;
    if !bad.is_empty() {
        return Err(BackupError::Broken(bad));
    }
    let mut pruned = Pruned::default();
    for set in all.iter().rev().skip(keep.max(1)) {
        let list = folder.list(set.number);
        fs::remove_file(&list).map_err(BackupError::io(&list))?;
        pruned.sets += 1;
    }
    pruned.objects =
        drop_unnamed(folder, Part::History, now)? + drop_unnamed(folder, Part::Secrets, now)?;
    folder.sync()?;
    Ok(pruned)
}

/// Destroys the secrets of sets whose time is over; how many objects.
pub(crate) fn drop_expired(folder: &Folder, now: u64) -> Result<u64> {
    drop_unnamed(folder, Part::Secrets, now)
}

fn drop_unnamed(folder: &Folder, part: Part, now: u64) -> Result<u64> {
    let (all, bad) = sets(folder)?;
    if !bad.is_empty() {
        // A list that cannot be read may name anything.
        return Ok(0);
    }
    let named: BTreeSet<String> = all
        .iter()
        .filter(|set| part == Part::History || set.secrets_expire > now)
        .flat_map(|set| match part {
            Part::History => &set.history,
            Part::Secrets => &set.secrets,
        })
        .map(|item| format!("{}.age", item.sealed_sha256))
        .collect();
    let path = folder.part(part);
    let mut dropped = 0;
    for entry in fs::read_dir(&path).map_err(BackupError::io(&path))? {
        let entry = entry.map_err(BackupError::io(&path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".age") && !named.contains(&name) {
            fs::remove_file(entry.path()).map_err(BackupError::io(&entry.path()))?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
