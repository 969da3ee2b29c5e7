//! Checking a set: without a key that every object is there, whole, as it was written; with one
//! that it opens to what it should.

use std::fs::File;
use std::path::Path;

use crate::error::{BackupError, Result};
use crate::folder::{Folder, Part};
use crate::sealed::{self, Identities, Unopened};
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
/// [`BackupError::Broken`] with everything that does not hold; [`BackupError::OtherKey`] when all
/// objects are as they were written and the keys are not those of the backup.
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
    let (mut broken, mut other_key) = (Vec::new(), Vec::new());
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
                Err(Unopened::OtherKey) => other_key.push(item.path.clone()),
                Err(Unopened::Broken(why)) => {
                    broken.push(format!("`{}` ({}): {why}", item.path, object.display()));
                }
            }
        }
    }
    judged(broken, other_key, set).map(|()| checked)
}

/// Damage counts more than a key that does not fit.
pub(crate) fn judged(broken: Vec<String>, other_key: Vec<String>, set: &Set) -> Result<()> {
    if !broken.is_empty() {
        return Err(BackupError::Broken(broken));
    }
    match other_key.is_empty() {
        true => Ok(()),
        false => Err(BackupError::OtherKey {
            number: set.number,
            unopened: other_key.len(),
            of: set.history.len() + set.secrets.len(),
        }),
    }
}

fn holds(
    object: &Path,
    item: &Item,
    identities: Option<&Identities>,
) -> std::result::Result<(), Unopened> {
    as_written(object, item)?;
    if let Some(identities) = identities {
        let file = File::open(object).map_err(Unopened::broken)?;
        let opened = sealed::open(file, &mut std::io::sink(), identities)?;
        if opened != (item.bytes, item.sha256.clone()) {
            return Err(Unopened::broken("it opens to something else"));
        }
    }
    Ok(())
}

/// Whether an object's bytes are those that were written.
pub(crate) fn as_written(object: &Path, item: &Item) -> std::result::Result<(), Unopened> {
    let mut file = File::open(object).map_err(Unopened::broken)?;
    let (bytes, sha256) = sealed::measure(&mut file).map_err(Unopened::broken)?;
    if bytes != item.sealed_bytes {
        return Err(Unopened::Broken(format!(
            "it has {bytes} bytes and should have {}",
            item.sealed_bytes
        )));
    }
    if sha256 != item.sealed_sha256 {
        return Err(Unopened::broken("its bytes were changed"));
    }
    Ok(())
}
