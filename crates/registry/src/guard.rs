//! The restore guard (回滚防护): a node never signs a second history.
//!
//! The last head signed of each ledger is kept in a second place, outside the node's directory,
//! and moved by compare and swap. A directory that was restored from an old copy, or copied and
//! run twice, finds there that more, or something else, was signed: it does not sign, and fetches
//! what it lacks from a witness that holds it.
//!
//! The second place is a folder beside the directory, `<dir>.signed`, one small file a ledger.
//! Where that folder cannot be made it is `signed` inside, and the doctor says so.
//! Losing it is no fault: the witnesses still know.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use record::id::{Hash, Origin};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{RegistryError, Result};
use crate::node::lock;

/// A slot: sequence, size, root, and the first bytes of SHA-256 over origin and these.
const SLOT: usize = 8 + 8 + 32 + 16;

/// The last head signed of one ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signed {
    sequence: u64,
    size: u64,
    root: Hash,
}

impl Signed {
    fn slot(&self, origin: &Origin) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&self.sequence.to_be_bytes());
        slot[8..16].copy_from_slice(&self.size.to_be_bytes());
        slot[16..48].copy_from_slice(&self.root);
        let check = checksum(origin, &slot[..48]);
        slot[48..].copy_from_slice(&check);
        slot
    }

    fn parse(origin: &Origin, slot: &[u8]) -> Option<Self> {
        let (fields, check) = slot.split_at_checked(48)?;
        let word = |at: usize| fields[at..at + 8].try_into().ok().map(u64::from_be_bytes);
        (check == checksum(origin, fields)).then_some(())?;
        Some(Self {
            sequence: word(0)?,
            size: word(8)?,
            root: fields[16..48].try_into().ok()?,
        })
    }
}

/// Whether files can be made in a folder, which is made when it is not there.
fn writable(folder: &Path) -> bool {
    let probe = folder.join("probe");
    let made = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b""));
    let _ = std::fs::remove_file(&probe);
    made.is_ok()
}

/// What was signed last of an own ledger, as the second place has it, without opening the node:
/// size and root.
pub(crate) fn signed_last(dir: &Path, origin: &Origin) -> Option<(u64, Hash)> {
    let dir = dir.canonicalize().ok()?;
    let mut name = dir.file_name()?.to_owned();
    name.push(".signed");
    let folders = [dir.with_file_name(name), dir.join("signed")];
    let known = folders.into_iter().filter_map(|folder| {
        let guard = Guard {
            dir: dir.to_owned(),
            folder,
            outside: true,
            halted: Mutex::default(),
            restored: AtomicBool::new(false),
        };
        guard.read(origin).ok().flatten()
    });
    known
        .max_by_key(|signed| signed.size)
        .map(|signed| (signed.size, signed.root))
}

fn checksum(origin: &Origin, fields: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"fangzhi/signed/v1\0");
    hash.update(origin.as_str().as_bytes());
    hash.update(fields);
    let digest: Hash = hash.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// Why a ledger is not signed at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Halt {
    /// Entries that were signed, as the second place or a witness says.
    pub signed: u64,
    /// Entries that are here.
    pub held: u64,
    /// In words.
    pub reason: String,
}

/// The second place, and the ledgers that must not be signed.
#[derive(Debug)]
pub struct Guard {
    /// The node's directory.
    dir: PathBuf,
    folder: PathBuf,
    outside: bool,
    halted: Mutex<BTreeMap<Origin, Halt>>,
    /// The directory came out of a backup, and the parent has not said of every ledger that it
    /// holds no more.
    restored: AtomicBool,
}

/// In a directory that came out of a backup, until its parent has cosigned what is there, or given
/// back what came later: nothing is signed before.
pub const RESTORED: &str = "restored";

impl Guard {
    /// The guard of a node's directory.
    ///
    /// # Errors
    /// [`RegistryError::File`] when the second place cannot be made.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .map_err(|e| RegistryError::file(dir, e))?;
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(".signed");
        let beside = dir.with_file_name(name);
        // Where the folder above is not this user's, the second place is a poorer one: inside.
        let (folder, outside) = if writable(&beside) {
            (beside, true)
        } else {
            (dir.join("signed"), false)
        };
        std::fs::create_dir_all(&folder).map_err(|e| RegistryError::file(&folder, e))?;
        let restored = AtomicBool::new(dir.join(RESTORED).exists());
        Ok(Self {
            dir,
            folder,
            outside,
            halted: Mutex::default(),
            restored,
        })
    }

    /// Whether the second place lies outside the node's directory, so that restoring the one
    /// leaves the other.
    pub(crate) fn is_outside(&self) -> bool {
        self.outside
    }

    /// The second place.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, origin: &Origin) -> PathBuf {
        let name = data_encoding::HEXLOWER.encode(&Sha256::digest(origin.as_str())[..16]);
        self.folder.join(name)
    }

    /// The newer of the two slots that holds; a torn write spoils one at most.
    fn read(&self, origin: &Origin) -> Result<Option<Signed>> {
        let path = self.path(origin);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = store::atomic::read_bounded(&path, 2 * SLOT as u64)?;
        let newest = bytes
            .chunks(SLOT)
            .filter_map(|slot| Signed::parse(origin, slot))
            .max_by_key(|s| s.sequence);
        match newest {
            None if !bytes.is_empty() => Err(RegistryError::File(format!(
                "`{0}` 已损坏；确无本节点的其他副本在运行时，删去它再启动 / `{0}` is damaged; if no other copy of this node runs, delete it and start again",
                path.display()
            ))),
            newest => Ok(newest),
        }
    }

    /// Overwrites the older slot, durable when this returns.
    fn write(&self, origin: &Origin, signed: &Signed) -> Result<()> {
        let path = self.path(origin);
        let failed = |e| RegistryError::file(&path, e);
        let fresh = !path.exists();
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all_at(&signed.slot(origin), (signed.sequence % 2) * SLOT as u64)
            .map_err(failed)?;
        if fresh {
            file.sync_all().map_err(failed)?;
            let folder = std::fs::File::open(&self.folder).map_err(failed)?;
            return folder.sync_all().map_err(failed);
        }
        file.sync_data().map_err(failed)
    }

    /// Compares a ledger's end, at start, with what was signed. `root_at` gives the root of the
    /// first so many entries here.
    pub(crate) fn check(
        &self,
        origin: &Origin,
        size: u64,
        root_at: impl Fn(u64) -> Result<Hash>,
    ) -> Result<()> {
        if self.restored.load(Ordering::SeqCst) {
            self.halt(origin, size, size, "从备份恢复，等待上级确认 / this directory was restored from a backup; the parent must confirm that nothing was signed since");
        }
        let Some(signed) = self.read(origin)? else {
            return Ok(());
        };
        if signed.size > size {
            self.halt(origin, signed.size, size, "目录比已签名的旧 / this directory is older than what was signed; it was restored from an old copy");
        } else if root_at(signed.size)? != signed.root {
            self.halt(
                origin,
                signed.size,
                size,
                "另一份副本签了别的历史 / another copy of this node signed another history",
            );
        }
        Ok(())
    }

    /// Takes over what was signed of a ledger by a node that was lost: nothing below it is signed.
    pub(crate) fn remember(&self, origin: &Origin, size: u64, root: Hash) -> Result<()> {
        let known = self.read(origin)?;
        if known.as_ref().is_some_and(|known| known.size >= size) {
            return Ok(());
        }
        let sequence = known.map_or(0, |signed| signed.sequence + 1);
        let signed = Signed {
            sequence,
            size,
            root,
        };
        self.write(origin, &signed)
    }

    /// Moves the last head signed from `old` to `new`.
    ///
    /// # Errors
    /// [`RegistryError::Halted`] when another copy of this node moved it meanwhile.
    pub(crate) fn swap(&self, origin: &Origin, old: (u64, Hash), new: (u64, Hash)) -> Result<()> {
        let known = self.read(origin)?;
        if let Some(signed) = &known
            && (signed.size > old.0 || (signed.size == old.0 && signed.root != old.1))
        {
            self.halt(
                origin,
                signed.size,
                old.0,
                "另一份副本也在签名 / another copy of this node is signing, too",
            );
            return self.allow(origin);
        }
        let sequence = known.map_or(0, |signed| signed.sequence + 1);
        let signed = Signed {
            sequence,
            size: new.0,
            root: new.1,
        };
        if let Err(error) = self.write(origin, &signed) {
            // The commit stands: to say that it failed would be a lie. The witnesses still know.
            tracing::error!(%origin, %error, "what was signed last could not be written to its second place");
        }
        Ok(())
    }

    /// Whether a ledger may be signed.
    ///
    /// # Errors
    /// [`RegistryError::Halted`], with the reason.
    pub(crate) fn allow(&self, origin: &Origin) -> Result<()> {
        match lock(&self.halted).get(origin) {
            None => Ok(()),
            Some(halt) => Err(RegistryError::Halted {
                origin: origin.clone(),
                halt: halt.clone(),
            }),
        }
    }

    /// Stops signing a ledger.
    pub(crate) fn halt(&self, origin: &Origin, signed: u64, held: u64, reason: &str) {
        tracing::error!(%origin, signed, held, reason, "this ledger is not signed any more");
        let halt = Halt {
            signed,
            held,
            reason: reason.to_owned(),
        };
        lock(&self.halted)
            .entry(origin.clone())
            .and_modify(|known| {
                if signed > known.signed {
                    *known = halt.clone();
                }
            })
            .or_insert(halt);
    }

    /// Whether a ledger waits for what a witness holds of it.
    pub(crate) fn is_halted(&self, origin: &Origin) -> bool {
        lock(&self.halted).contains_key(origin)
    }

    /// Signs a ledger again once it reaches what was signed and says the same.
    pub(crate) fn resume(&self, origin: &Origin, size: u64, root: &Hash) -> Result<bool> {
        let signed = lock(&self.halted).get(origin).map_or(0, |halt| halt.signed);
        if size < signed {
            return Ok(false);
        }
        if let Some(known) = self.read(origin)?
            && known.size == size
            && known.root != *root
        {
            return Ok(false);
        }
        let mut halted = lock(&self.halted);
        halted.remove(origin);
        if halted.is_empty() && self.restored.swap(false, Ordering::SeqCst) {
            let path = self.dir.join(RESTORED);
            std::fs::remove_file(&path).map_err(|e| RegistryError::file(&path, e))?;
        }
        Ok(true)
    }

    /// The ledgers that are not signed, for the status page.
    pub fn halted(&self) -> BTreeMap<Origin, Halt> {
        lock(&self.halted).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::parse("a.example/b/person").unwrap()
    }

    fn guard() -> (tempfile::TempDir, Guard) {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        std::fs::create_dir(&node).unwrap();
        let guard = Guard::open(&node).unwrap();
        (dir, guard)
    }

    #[test]
    fn a_directory_older_than_what_was_signed_is_halted_until_it_caught_up() {
        let (_dir, guard) = guard();
        guard.swap(&origin(), (0, [0; 32]), (5, [5; 32])).unwrap();
        guard.check(&origin(), 3, |_| Ok([3; 32])).unwrap();
        assert!(matches!(
            guard.allow(&origin()),
            Err(RegistryError::Halted { .. })
        ));
        assert!(!guard.resume(&origin(), 4, &[4; 32]).unwrap());
        assert!(!guard.resume(&origin(), 5, &[9; 32]).unwrap());
        assert!(guard.resume(&origin(), 5, &[5; 32]).unwrap());
        guard.allow(&origin()).unwrap();
    }

    #[test]
    fn a_directory_that_goes_on_from_what_was_signed_is_allowed() {
        let (_dir, guard) = guard();
        guard.swap(&origin(), (0, [0; 32]), (5, [5; 32])).unwrap();
        // A crash after the commit and before the swap leaves the store ahead.
        guard
            .check(&origin(), 7, |size| Ok([size as u8; 32]))
            .unwrap();
        guard.allow(&origin()).unwrap();
    }

    #[test]
    fn a_second_copy_that_signs_from_the_same_head_is_halted() {
        let (_dir, guard) = guard();
        guard.swap(&origin(), (0, [0; 32]), (5, [5; 32])).unwrap();
        guard.swap(&origin(), (5, [5; 32]), (6, [6; 32])).unwrap();
        assert!(guard.swap(&origin(), (5, [5; 32]), (6, [7; 32])).is_err());
        assert!(guard.is_halted(&origin()));
    }

    #[test]
    fn a_torn_write_leaves_the_head_before_it() {
        let (_dir, guard) = guard();
        guard.swap(&origin(), (0, [0; 32]), (5, [5; 32])).unwrap();
        guard.swap(&origin(), (5, [5; 32]), (6, [6; 32])).unwrap();
        let path = guard.path(&origin());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(guard.read(&origin()).unwrap().map(|s| s.size), Some(5));
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(guard.read(&origin()).is_err());
    }

    #[test]
    fn another_history_of_the_same_size_is_halted() {
        let (_dir, guard) = guard();
        guard.swap(&origin(), (0, [0; 32]), (5, [5; 32])).unwrap();
        guard.check(&origin(), 5, |_| Ok([6; 32])).unwrap();
        assert!(guard.is_halted(&origin()));
    }
}
