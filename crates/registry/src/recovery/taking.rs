//! Fetching a recovery live (在线取回), on the new machine: pieces into a folder beside the node's.
//!
//! Owns `<directory>.recovering/`: the key under which this machine is known to the parent, and the
//! beginning of the file. A fetch that was cut off goes on from there; with another leave it begins
//! anew. What arrived is a recovery file only once all of it hashes to what the parent named.
//! Refuses pieces out of order, files beyond the bound, and a directory that holds a node.

use std::io::Write;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{Hash, UnixMillis};
use sha2::{Digest, Sha256};
use sync::Secret;
use sync::recovery::{RecoveryAsk, RecoveryPiece};
use zeroize::Zeroizing;

use super::export::{FILE_MAX, RecoveryFile};
use super::giving::{LEAVE_FORMAT, RecoveryLeave};
use crate::config::key_from_hex;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{private_directory, refuse_existing};

/// How often a file may turn out another, or damaged, before somebody has to look.
const RESTARTS_MAX: u32 = 3;

/// A fetch under way.
pub struct Taking {
    place: PathBuf,
    leave: RecoveryLeave,
    secret: Zeroizing<[u8; 32]>,
    seed: Zeroizing<[u8; 32]>,
    file: Option<Expected>,
    have: u64,
    whole: bool,
    restarts: u32,
}

/// The file that is being fetched.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Expected {
    #[cbor(n(0), with = "minicbor::bytes")]
    hash: Hash,
    #[n(1)]
    total: u64,
}

impl std::fmt::Debug for Taking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Taking({}, {} bytes)", self.leave.division, self.have)
    }
}

fn bad(words: &str) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

fn place_of(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".recovering");
    name.into()
}

impl Taking {
    /// Begins a fetch for the node that is to be in `dir`, or goes on with one under the same leave.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when there is a node in `dir`, [`RegistryError::BadRequest`]
    /// when the leave is of another version or expired and nothing arrived yet under it.
    pub fn begin(dir: &Path, leave: RecoveryLeave, now: UnixMillis) -> Result<Self> {
        refuse_existing(dir)?;
        if leave.format != LEAVE_FORMAT {
            return Err(bad(
                "恢复凭据版本不符 / the leave to recover is of another version; let a parent of this version make one",
            ));
        }
        let secret = Zeroizing::new(key_from_hex(&leave.secret)?);
        let mut taking = Self {
            place: place_of(dir),
            leave,
            secret,
            seed: Zeroizing::new([0; 32]),
            file: None,
            have: 0,
            whole: false,
            restarts: 0,
        };
        if !taking.resume()? {
            if taking.leave.expires < now {
                return Err(bad(
                    "恢复凭据已过期 / the leave to recover has expired; ask the parent's security officer for another",
                ));
            }
            taking.begin_anew()?;
        }
        Ok(taking)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Names the leave without showing the secret.
    fn mark(&self) -> Hash {
        let mut hash = Sha256::new();
        hash.update(b"fangzhi/recovery-taking/v1\0");
        hash.update(*self.secret);
        hash.finalize().into()
    }

    /// Goes on with what an earlier run left; whether there was anything under this leave.
    fn resume(&mut self) -> Result<bool> {
        let read = |name: &str, max| store::atomic::read_bounded(&self.path(name), max).ok();
        let (Some(mark), Some(key)) = (read("leave", 32), read("key", 32).map(Zeroizing::new))
        else {
            return Ok(false);
        };
        let Ok(seed) = <[u8; 32]>::try_from(key.as_slice()) else {
            return Ok(false);
        };
        if mark != self.mark() {
            return Ok(false);
        }
        let file = read("file", 128).and_then(|bytes| cbor::from_slice("file", &bytes, 128).ok());
        *self.seed = seed;
        self.file = file;
        self.have = std::fs::metadata(self.path("part")).map_or(0, |part| part.len());
        match self.file {
            Some(file) if self.have < file.total => {}
            Some(file) if self.have == file.total => self.finish()?,
            _ => self.start_over(None)?,
        }
        Ok(true)
    }

    fn begin_anew(&mut self) -> Result<()> {
        if self.place.exists() {
            store::atomic::destroy(&self.path("key"))?;
            std::fs::remove_dir_all(&self.place)
                .map_err(|e| RegistryError::file(&self.place, e))?;
        }
        private_directory(&self.place)?;
        rand_core::Rng::fill_bytes(&mut rng()?, self.seed.as_mut());
        store::atomic::replace(&self.path("key"), &*self.seed)?;
        // Last: what has a mark has a key.
        store::atomic::replace(&self.path("leave"), &self.mark())?;
        Ok(())
    }

    /// Drops what arrived; the file to be fetched from here on.
    fn start_over(&mut self, file: Option<Expected>) -> Result<()> {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            return Err(bad(
                "恢复资料屡次对不上，请检查线路和上级 / the recovery did not arrive as its parent named it, time and again; look at the line and at the parent, then begin anew",
            ));
        }
        let path = self.path("part");
        std::fs::write(&path, b"").map_err(|e| RegistryError::file(&path, e))?;
        let bytes = file.map_or_else(Vec::new, |file| cbor::to_vec(&file));
        store::atomic::replace(&self.path("file"), &bytes)?;
        (self.file, self.have, self.whole) = (file, 0, false);
        Ok(())
    }

    /// The seed of the transport key under which this machine is known to the parent.
    pub fn transport_seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The leave.
    pub fn leave(&self) -> &RecoveryLeave {
        &self.leave
    }

    /// Whether the whole file is here.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// How many bytes are here, and how many there are, once that is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.have, self.file.map(|file| file.total))
    }

    /// What to ask the parent for next; of a whole file, what tells it so.
    pub fn ask(&self) -> RecoveryAsk {
        RecoveryAsk {
            division: self.leave.division.clone(),
            secret: Secret::new(*self.secret),
            file: self.file.map(|file| file.hash),
            offset: self.have,
        }
    }

    /// Keeps a piece; whether the whole file is here with it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] for a piece that nobody asked for, or after several attempts
    /// that did not give the file that was named.
    pub fn take(&mut self, piece: &RecoveryPiece) -> Result<bool> {
        let named = Expected {
            hash: piece.file,
            total: piece.total,
        };
        if piece.total == 0 || piece.total > FILE_MAX {
            return Err(bad(
                "恢复资料大小有误 / the parent names a recovery of an impossible size",
            ));
        }
        if self.whole {
            return Ok(true);
        }
        if self.file != Some(named) {
            // The first piece, or the parent wrote the file anew meanwhile.
            self.start_over(Some(named))?;
        }
        let length = piece.bytes.len() as u64;
        let fits = piece.offset == self.have && length > 0 && length <= named.total - self.have;
        if !fits {
            return Err(bad(
                "恢复资料的片段不符 / the parent gave another piece than the one asked for; fetch it again",
            ));
        }
        let path = self.path("part");
        let failed = |error| RegistryError::file(&path, error);
        let mut part = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(failed)?;
        part.write_all(&piece.bytes).map_err(failed)?;
        self.have += length;
        if self.have == named.total {
            part.sync_all().map_err(failed)?;
            self.finish()?;
        }
        Ok(self.whole)
    }

    /// Looks at all that arrived; what is not the file that was named is dropped.
    fn finish(&mut self) -> Result<()> {
        let bytes = store::atomic::read_bounded(&self.path("part"), FILE_MAX)?;
        let hash: Hash = Sha256::digest(&bytes).into();
        match self.file {
            Some(file) if file.hash == hash => self.whole = true,
            _ => {
                tracing::warn!("what arrived of the recovery is damaged; it is fetched again");
                self.start_over(None)?;
            }
        }
        Ok(())
    }

    /// The recovery file, once it is whole.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] before, or when it is the file of another node.
    pub fn file(&self) -> Result<RecoveryFile> {
        let damaged = || {
            bad(
                "恢复资料不完整 / the recovery is not whole, or not a recovery file of this version; fetch it again",
            )
        };
        if !self.whole {
            return Err(damaged());
        }
        let bytes = store::atomic::read_bounded(&self.path("part"), FILE_MAX)?;
        let file: RecoveryFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if file.division != self.leave.division || file.realm != self.leave.realm {
            return Err(bad(
                "取回的是另一节点的恢复资料 / the recovery is another node's than the leave names",
            ));
        }
        Ok(file)
    }

    /// Removes what was fetched, once the node is rebuilt.
    ///
    /// # Errors
    /// [`RegistryError::File`]; the node stands all the same.
    pub fn done(self) -> Result<()> {
        store::atomic::destroy(&self.path("key"))?;
        std::fs::remove_dir_all(&self.place).map_err(|e| RegistryError::file(&self.place, e))
    }
}
