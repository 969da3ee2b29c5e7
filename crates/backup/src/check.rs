//! Checking a set: without a key that every object is there, whole, as it was written; with one
//! that it opens to what it should.

use std::fs::File;

use crate::error::{BackupError, Result};
use crate::folder::{Folder, Part};
use crate::sealed::{self, Identities};
use crate::set::{Item, Set};

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// The set.
    pub number: u64,
    /// Objects that hold.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they were opened, too.
    pub opened: bool,
    /// Whether the part that opens records was destroyed when its time was over.
    pub secrets_gone: bool,
}

/// Checks one set.
///
/// # Errors
/// [`BackupError::Broken`] with everything that does not hold.
pub fn check(
    folder: &Folder,
    set: &Set,
    identities: Option<&Identities>,
    now: u64,
) -> Result<Checked> {
    let mut checked = Checked {
        number: set.number,
        objects: 0,
        bytes: 0,
        opened: identities.is_some(),
        secrets_gone: false,
    };
    let mut broken = Vec::new();
    for (part, items) in [(Part::History, &set.history), (Part::Secrets, &set.secrets)] {
        for item in items {
            let object = folder.object(part, item);
            if part == Part::Secrets && now > set.secrets_expire && !object.exists() {
                checked.secrets_gone = true;
                continue;
            }
            match holds(&object, item, identities) {
                Ok(()) => {
                    checked.objects += 1;
                    checked.bytes += item.sealed_bytes;
                }
                Err(why) => broken.push(format!("`{}` ({}): {why}", item.path, object.display())),
            }
        }
    }
    if broken.is_empty() {
        Ok(checked)
    } else {
        Err(BackupError::Broken(broken))
    }
}

fn holds(
    object: &std::path::Path,
    item: &Item,
    identities: Option<&Identities>,
) -> std::result::Result<(), String> {
    let mut file = File::open(object).map_err(|e| e.to_string())?;
    let (bytes, sha256) = sealed::measure(&mut file).map_err(|e| e.to_string())?;
    if bytes != item.sealed_bytes {
        return Err(format!(
            "it has {bytes} bytes and should have {}",
            item.sealed_bytes
        ));
    }
    if sha256 != item.sealed_sha256 {
        return Err("its bytes were changed".into());
    }
    if let Some(identities) = identities {
        let file = File::open(object).map_err(|e| e.to_string())?;
        let opened = sealed::open(file, &mut std::io::sink(), identities)?;
        if opened != (item.bytes, item.sha256.clone()) {
            return Err("it opens to something else".into());
        }
    }
    Ok(())
}
