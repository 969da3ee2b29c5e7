//! Making a backup of a node that may be running.
//!
//! Segments are held so that none is taken away, and copied in ascending order, the last one
//! last: a body that is being erased while its segment is copied is named by a group that lies
//! further on, so restoring finishes the erasure. Secrets come after, because a record's secret is
//! durable before its batch; they are read until keystore and pages fit together.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{BackupError, Result};
use crate::folder::{Folder, Part, sets};
use crate::prune::drop_expired;
use crate::sealed::Recipients;
use crate::set::{FORMAT, Item, LedgerHead, Set};

/// How often keystore and pages are read until they fit together.
const TRIES: u32 = 10;

/// What is to be backed up.
pub struct Wanted<'a> {
    /// Whose: realm and division.
    pub node: String,
    /// The node's directory.
    pub dir: &'a Path,
    /// Who can open the backup, `age1…`.
    pub recipients: &'a [String],
    /// After how many milliseconds the secrets of the set are destroyed.
    pub secrets_millis: u64,
    /// The ledgers that must be in it.
    pub ledgers: Vec<LedgerHead>,
    /// The time.
    pub now: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Made {
    /// The set's number.
    pub number: u64,
    /// Files of the node.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were sealed now; the others were there.
    pub sealed: u64,
    /// Bytes written for them.
    pub sealed_bytes: u64,
    /// Objects of expired secrets that were destroyed.
    pub expired: u64,
}

/// Makes one set.
///
/// # Errors
/// [`BackupError`]; the sets before it are as they were.
pub fn make(folder: &Folder, wanted: &Wanted<'_>) -> Result<Made> {
    let recipients = Recipients::parse(wanted.recipients)?;
    folder.prepare()?;
    let _one = folder.hold()?;
    let (known, _) = sets(folder)?;
    if let Some(other) = known.iter().find(|set| set.node != wanted.node) {
        return Err(BackupError::OtherNode {
            path: folder.path().to_owned(),
            found: other.node.clone(),
        });
    }
    // Objects sealed to others are not used again.
    let usable = |set: &&Set| set.recipients == wanted.recipients;
    let items = |part: fn(&Set) -> &Vec<Item>| -> Vec<Item> {
        known
            .iter()
            .filter(usable)
            .flat_map(|set| part(set).clone())
            .collect()
    };
    let mut made = Made {
        number: folder.numbers()?.last().map_or(1, |last| last + 1),
        files: 0,
        bytes: 0,
        sealed: 0,
        sealed_bytes: 0,
        expired: 0,
    };
    let mut put = |part: Part, name: &str, known: &[Item]| -> Result<Item> {
        let (item, fresh) = folder.put(part, name, &wanted.dir.join(name), known, &recipients)?;
        made.files += 1;
        made.bytes += item.bytes;
        if fresh {
            made.sealed += 1;
            made.sealed_bytes += item.sealed_bytes;
        }
        Ok(item)
    };
    let history = history(wanted.dir, |name| {
        put(Part::History, name, &items(|set| &set.history))
    })?;
    let secrets = secrets(wanted.dir, |name| {
        put(Part::Secrets, name, &items(|set| &set.secrets))
    })?;
    // The list comes last: until it is there, there is no such set.
    folder.sync()?;
    let set = Set {
        format: FORMAT,
        node: wanted.node.clone(),
        number: made.number,
        made_at: wanted.now,
        recipients: wanted.recipients.to_vec(),
        history,
        secrets,
        secrets_expire: wanted.now.saturating_add(wanted.secrets_millis),
        ledgers: wanted.ledgers.clone(),
        check: String::new(),
    };
    let list = folder.list(made.number);
    store::atomic::replace(&list, &set.encode()).map_err(|e| BackupError::Io {
        path: list.clone(),
        error: match e {
            store::atomic::FileError::Io { error, .. } => error,
            other => std::io::Error::other(other.to_string()),
        },
    })?;
    made.expired = drop_expired(folder, wanted.now)?;
    Ok(made)
}

fn history(dir: &Path, mut put: impl FnMut(&str) -> Result<Item>) -> Result<Vec<Item>> {
    let segments = dir.join("segments");
    let held = store::files::hold(dir).map_err(BackupError::io(&segments))?;
    let mut items: Vec<Item> = Vec::new();
    loop {
        let names = store::files::names(dir).map_err(BackupError::io(&segments))?;
        let fresh: Vec<&String> = names
            .iter()
            .filter(|name| !items.iter().any(|item| item.path.ends_with(name.as_str())))
            .collect();
        if fresh.is_empty() {
            break;
        }
        // The segment that was the last has grown since it was copied.
        if let Some(last) = items.iter().rposition(|item| item.path.ends_with(".seg")) {
            let name = items[last].path.clone();
            items[last] = put(&name)?;
        }
        for name in fresh {
            items.push(put(&format!("segments/{name}"))?);
        }
    }
    drop(held);
    Ok(items)
}

fn secrets(dir: &Path, mut put: impl FnMut(&str) -> Result<Item>) -> Result<Vec<Item>> {
    for _ in 0..TRIES {
        let before = names_and_keystore(dir)?;
        let mut items = Vec::new();
        for name in &before.0 {
            match put(name) {
                Ok(item) => items.push(item),
                // Replaced meanwhile: the next try sees what is there.
                Err(BackupError::Io { error, .. })
                    if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if names_and_keystore(dir)? == before {
            return Ok(items);
        }
    }
    Err(BackupError::Moving)
}

/// The names of what opens records, and a hash of the keystore, which changes with every page key.
fn names_and_keystore(dir: &Path) -> Result<(Vec<String>, Vec<u8>)> {
    let mut names: Vec<String> = [
        "node.json",
        "keystore",
        "keystore.next",
        "kek",
        "transport",
        "backup.json",
    ]
    .into_iter()
    .filter(|name| dir.join(name).is_file())
    .map(str::to_owned)
    .collect();
    for folder in ["operators", "secrets"] {
        let path = dir.join(folder);
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).map_err(BackupError::io(&path))? {
            let entry = entry.map_err(BackupError::io(&path))?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_file() && crate::set::is_ours(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    let keystore = dir.join("keystore");
    let bytes = fs::read(&keystore).map_err(BackupError::io(&keystore))?;
    Ok((names, Sha256::digest(bytes).to_vec()))
}
