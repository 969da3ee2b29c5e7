//! Giving a recovery live (在线恢复): the parent hands a lost node's recovery file to the machine that
//! takes its place, piece by piece.
//!
//! Owns the leave: a secret for one division, for a week, that an officer carries to the new machine.
//! The first machine that shows it is the only one from then on, known by the transport key that its
//! connection proved; when the whole file has arrived there, the leave is spent. The file is written
//! down once, so that a fetch that was interrupted goes on with the same bytes; and anew when the
//! recovery moved on meanwhile, so that what was destroyed since is given to nobody.
//! Refuses a secret that is wrong, of another division, used, spent or expired, in the same words.

use std::io::{Read, Seek, SeekFrom};

use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{DivisionId, Hash, Realm, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use sync::recovery::{PIECE_BYTES_MAX, RecoveryAsk, RecoveryPiece};

use crate::config::ParentAddress;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, private_directory, purpose, word};
use crate::session::Session;
use crate::table::{self, Head, LOCAL};

/// A leave lasts a week.
pub const LEAVE_MILLIS: u64 = 7 * 24 * 3600 * 1000;
/// The most leaves that are looked at.
const LEAVES_MAX: usize = 10_000;
/// The code of the alarm that two machines showed one leave.
const ALARM: &str = "recovery-leave";
/// The version of the leave's file.
pub const LEAVE_FORMAT: u32 = 1;

/// Leave to fetch the recovery of one lost node: a file, to be carried by hand.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryLeave {
    /// The version of this file.
    pub format: u32,
    /// The realm.
    pub realm: Realm,
    /// The lost node's division.
    pub division: DivisionId,
    /// Where and who the parent is.
    pub parent: ParentAddress,
    /// The one-time secret, hexadecimal.
    pub secret: String,
    /// Valid until.
    pub expires: UnixMillis,
}

impl std::fmt::Debug for RecoveryLeave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryLeave")
            .field("division", &self.division)
            .finish_non_exhaustive()
    }
}

impl Drop for RecoveryLeave {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

/// What the parent keeps of a leave: the secret's hash only.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Leave {
    /// Where the new machine reaches this node, for its `node.json`.
    #[n(0)]
    address: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret_hash: Hash,
    #[n(2)]
    expires: UnixMillis,
    /// The transport key of the machine that showed the secret first.
    #[cbor(n(3), with = "minicbor::bytes")]
    used_by: Option<[u8; 32]>,
    /// Whether the whole file arrived there.
    #[n(4)]
    spent: bool,
    /// SHA-256 and length of the file that is given.
    #[n(5)]
    file: Option<Written>,
}

#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Written {
    #[cbor(n(0), with = "minicbor::bytes")]
    hash: Hash,
    #[n(1)]
    total: u64,
    /// Size of the recovery ledger that it was made of.
    #[n(2)]
    size: u64,
}

/// Not an invitation's hash: the secret of the one opens nothing with the other.
fn hash_secret(secret: &[u8; 32]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"fangzhi/recovery-leave/v1\0");
    hash.update(secret);
    hash.finalize().into()
}

fn refused() -> RegistryError {
    RegistryError::BadRequest(
        "恢复凭据无效、已用过或已过期 / the leave to recover is wrong, used or expired; ask the parent's security officer for another".into(),
    )
}

impl Registry {
    /// Lets a new machine fetch the recovery of a lost node below; a leave before it is void.
    ///
    /// # Errors
    /// As [`Registry::export_recovery`].
    pub fn allow_recovery(
        &self,
        session: &Session,
        division: &DivisionId,
        address: String,
        now: UnixMillis,
    ) -> Result<RecoveryLeave> {
        // Whoever may have the file may have it fetched; and there must be one.
        self.export_recovery(session, division, address.clone())?;
        let _one = lock(&self.giving);
        let mut secret = zeroize::Zeroizing::new([0u8; 32]);
        rand_core::Rng::fill_bytes(&mut rng()?, secret.as_mut());
        let leave = Leave {
            address: address.clone(),
            secret_hash: hash_secret(&secret),
            expires: UnixMillis(now.0 + LEAVE_MILLIS),
            used_by: None,
            spent: false,
            file: None,
        };
        self.forget_given(division)?;
        self.keep_leave(division, &leave)?;
        self.clear_alarm(&self.recovery_of(division), ALARM)?;
        Ok(RecoveryLeave {
            format: LEAVE_FORMAT,
            realm: self.config.realm.clone(),
            division: division.clone(),
            parent: ParentAddress {
                division: self.config.division.clone(),
                address,
                transport: data_encoding::HEXLOWER.encode(&self.keys.public().transport),
            },
            secret: data_encoding::HEXLOWER.encode(secret.as_ref()),
            expires: leave.expires,
        })
    }

    /// A piece of a recovery file, for the machine that proved `peer` to be its transport key.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`], the same words for every way in which the leave does not fit.
    pub fn recovery_piece(
        &self,
        ask: &RecoveryAsk,
        peer: &[u8; 32],
        now: UnixMillis,
    ) -> Result<RecoveryPiece> {
        let _one = lock(&self.giving);
        let rest = ask.division.as_str().as_bytes();
        let bytes = self.store.get(&table::local(table::LEAVE, rest))?;
        let mut leave: Leave = table::decode("leave", &bytes.ok_or_else(refused)?)?;
        let fits = bool::from(hash_secret(ask.secret.expose()).ct_eq(&leave.secret_hash));
        if !fits || leave.spent || now > leave.expires {
            return Err(refused());
        }
        match leave.used_by {
            Some(known) if known == *peer => {}
            Some(_) => {
                // Two machines have the secret: one of them should not.
                let origin = self.recovery_of(&ask.division);
                self.alarm(&origin, ALARM, "恢复凭据被两台机器出示 / two machines showed the same leave to recover; give another to the right one", vec![], now);
                return Err(refused());
            }
            None => {
                // Bound before a byte leaves.
                leave.used_by = Some(*peer);
                self.keep_leave(&ask.division, &leave)?;
            }
        }
        let file = self.written(&ask.division, &mut leave)?;
        let offset = match ask.file {
            Some(hash) if hash == file.hash => ask.offset.min(file.total),
            _ => 0,
        };
        if offset == file.total {
            leave.spent = true;
            leave.file = None;
            self.keep_leave(&ask.division, &leave)?;
            self.forget_given(&ask.division)?;
            tracing::info!(division = %ask.division, "a recovery was fetched whole; its leave is spent");
        }
        Ok(RecoveryPiece {
            file: file.hash,
            total: file.total,
            offset,
            bytes: match offset == file.total {
                true => Vec::new(),
                false => self.read_piece(&ask.division, offset)?,
            },
        })
    }

    /// The file that is given, written down at the first question.
    fn written(&self, division: &DivisionId, leave: &mut Leave) -> Result<Written> {
        let path = self.files.given(division);
        let length = std::fs::metadata(&path).map(|file| file.len()).ok();
        let size = Head::read(self.store.as_ref(), &self.recovery_of(division))?.size;
        let is_same = |file: &Written| Some(file.total) == length && file.size == size;
        if let Some(file) = leave.file.filter(is_same) {
            return Ok(file);
        }
        let file = self.recovery_file(division, leave.address.clone())?;
        let bytes =
            serde_json::to_vec(&file).map_err(|e| RegistryError::Directory(e.to_string()))?;
        if let Some(dir) = path.parent() {
            private_directory(dir)?;
        }
        store::atomic::replace(&path, &bytes)?;
        let file = Written {
            hash: Sha256::digest(&bytes).into(),
            total: bytes.len() as u64,
            size,
        };
        leave.file = Some(file);
        self.keep_leave(division, leave)?;
        Ok(file)
    }

    /// Removes files that are given no more: their leave is over, or the recovery moved on.
    ///
    /// # Errors
    /// A failure of the store or of the disk; it is tried again.
    pub fn tend_leaves(&self, now: UnixMillis) -> Result<()> {
        let _one = lock(&self.giving);
        let rows = self.store.scan(LOCAL, table::LEAVE, b"", LEAVES_MAX)?;
        for (rest, bytes) in rows {
            let mut leave: Leave = table::decode("leave", &bytes)?;
            let name = std::str::from_utf8(&rest).ok();
            let division = name.and_then(|name| DivisionId::new(name).ok());
            let (Some(file), Some(division)) = (leave.file, division) else {
                continue;
            };
            let size = Head::read(self.store.as_ref(), &self.recovery_of(&division))?.size;
            if leave.spent || now > leave.expires || file.size != size {
                self.forget_given(&division)?;
                leave.file = None;
                self.keep_leave(&division, &leave)?;
            }
        }
        Ok(())
    }

    fn read_piece(&self, division: &DivisionId, offset: u64) -> Result<Vec<u8>> {
        let path = self.files.given(division);
        let failed = |error| RegistryError::file(&path, error);
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = Vec::with_capacity(PIECE_BYTES_MAX);
        let most = PIECE_BYTES_MAX as u64;
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn recovery_of(&self, division: &DivisionId) -> record::id::Origin {
        record::id::Origin::new(&self.config.realm, division, &word("recovery"))
    }

    fn keep_leave(&self, division: &DivisionId, leave: &Leave) -> Result<()> {
        let rest = division.as_str().as_bytes();
        self.keep_local(table::LEAVE, rest, cbor::to_vec(leave))
    }

    /// Removes the file that was given; what was in it is in the ledgers.
    fn forget_given(&self, division: &DivisionId) -> Result<()> {
        let path = self.files.given(division);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RegistryError::file(&path, error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the officer may give recoveries.
    pub(super) fn may_recover(&self, session: &Session) -> Result<()> {
        self.may(session, policy::Action::Administer, &purpose("security"))
    }
}
