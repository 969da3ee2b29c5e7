//! Sharing the root (分份): a ceremony among officers that takes effect when all confirmed.
//!
//! What is shared is a fresh recovery key, never the keys in use. A share is given out once and
//! then is nowhere but with its holder; the holder types it back, which is checked, and only when
//! every holder did so does the sharing take effect and the one before it retire. A ceremony has
//! a nonce, which every step names, so that it cannot be exchanged for another midway. One that
//! is not finished changes nothing.
//! Refuses whoever is not the named holder, a second printing, and a share of anybody else.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use record::authority::{Role, Sharing, Statement};
use record::cbor;
use record::id::{Hash, OperatorId, UnixMillis};
use record::plan::{ShareHolder, Work};
use seal::grant::SealPrivateKey;
use seal::recovery::RecoveryInfo;
use seal::share::{Header, Share, ShareContext, split};
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use crate::config::KeyCustody;
use crate::error::{RegistryError, Result};
use crate::keys::{Keys, Opener, rng};
use crate::node::{Registry, lock, purpose};
use crate::plan::Warrant;
use crate::recovery::header_of;
use crate::recovery::rebuild::{open_bundle, root_of};
use crate::session::Session;

/// The largest ceremony file.
const FILE_MAX: u64 = 64 * 1024;
const AAD: &[u8] = b"fangzhi/ceremony/v1";

/// A ceremony under way, in a file sealed under a key of the keystore.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Ceremony {
    #[cbor(n(0), with = "minicbor::bytes")]
    plan: Hash,
    #[n(1)]
    header: ByteVec,
    /// The recovery key's public half; the private one exists as shares alone.
    #[n(2)]
    public: ByteVec,
    /// In the order of the shares.
    #[n(3)]
    holders: Vec<Holder>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Holder {
    #[n(0)]
    operator: OperatorId,
    /// The share's text until it is taken.
    #[n(1)]
    share: Option<ByteVec>,
    #[n(2)]
    confirmed: bool,
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(share) = &mut self.share {
            share.zeroize();
        }
    }
}

/// How far a sharing is.
#[derive(Debug, Clone, Serialize)]
pub struct ShareStatus {
    /// The sharing in force.
    pub in_force: Option<SharingLine>,
    /// The ceremony under way.
    pub ceremony: Option<CeremonyLine>,
}

/// A sharing in force.
#[derive(Debug, Clone, Serialize)]
pub struct SharingLine {
    /// Its nonce, hexadecimal.
    pub ceremony: String,
    /// How many shares there are.
    pub shares: u8,
    /// How many open.
    pub threshold: u8,
    /// Chunks of record secrets that are not sealed for a recovery yet.
    pub behind: u64,
}

/// A ceremony under way.
#[derive(Debug, Clone, Serialize)]
pub struct CeremonyLine {
    /// Its nonce, hexadecimal: every step names it.
    pub ceremony: String,
    /// The plan that it is done under, hexadecimal.
    pub plan: String,
    /// How many shares will open.
    pub threshold: u8,
    /// Who has a share to take or to confirm.
    pub holders: Vec<HolderLine>,
}

/// One holder of a ceremony.
#[derive(Debug, Clone, Serialize)]
pub struct HolderLine {
    /// The officer.
    pub operator: OperatorId,
    /// The share's number.
    pub share: u8,
    /// Whether the share was given out.
    pub taken: bool,
    /// Whether the holder typed it back.
    pub confirmed: bool,
}

fn bad(words: &str) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl Ceremony {
    fn header(&self) -> Result<Header> {
        Header::decode(&self.header).map_err(|e| RegistryError::damaged(e.to_string()))
    }

    /// The holder who asks, and the share's number; the nonce must be this ceremony's.
    fn holder(&mut self, session: &Session, nonce: &str) -> Result<(u8, &mut Holder)> {
        if hex(self.header()?.ceremony()) != nonce {
            return Err(bad(
                "不是这次分份 / this is another ceremony than the one you began with; stop, and ask the other officers",
            ));
        }
        let at = self
            .holders
            .iter()
            .position(|holder| holder.operator == session.operator)
            .ok_or_else(|| {
                bad("您不是份额持有人 / you are not one of the holders whom the plan names")
            })?;
        let number = u8::try_from(at + 1).unwrap_or(u8::MAX);
        Ok((number, &mut self.holders[at]))
    }
}

impl Registry {
    /// Refuses holders who are no security officers of this node.
    pub(crate) fn all_officers_here(&self, holders: &[ShareHolder], now: UnixMillis) -> Result<()> {
        let authority = self.authority();
        let is_officer = |holder: &ShareHolder| {
            let known = authority.operator(&holder.organization, &holder.operator);
            holder.organization == self.config.division
                && known.is_some_and(|c| c.role == Role::SecurityOfficer && c.not_after > now)
        };
        match holders.iter().all(is_officer) {
            true => Ok(()),
            false => Err(bad(
                "持有人须是本节点登记在册的安全员；上级安全员须先在本节点登记 / every holder is a security officer enrolled at this node; an officer from above is enrolled here first",
            )),
        }
    }

    /// Begins the sharing of the root among officers.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] while another ceremony is under way, or when a holder is no
    /// security officer of this node.
    pub(crate) fn share_root(
        &self,
        _by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::Share {
            shares,
            threshold,
            holders,
        }) = warrant.work()
        else {
            return Err(bad("the plan is not about sharing"));
        };
        let _one = lock(&self.ceremony);
        if self.read_ceremony()?.is_some() {
            return Err(bad(
                "另一次分份尚未完成 / another ceremony is under way; finish it, or abandon it with `fangzhi keys share abandon`",
            ));
        }
        self.all_officers_here(holders, now)?;
        let mut rng = rng()?;
        let mut root = Zeroizing::new([0u8; 32]);
        rand_core::Rng::fill_bytes(&mut rng, root.as_mut());
        let context = ShareContext {
            realm: self.config.realm.clone(),
            division: self.config.division.clone(),
        };
        let (header, dealt) = split(&root, *shares, *threshold, &context, &mut rng)
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        let public = SealPrivateKey::from_bytes(*root).public();
        let ceremony = Ceremony {
            plan: warrant.plan(),
            header: header.encode().into(),
            public: public.into(),
            holders: holders
                .iter()
                .zip(&dealt)
                .map(|(holder, share)| Holder {
                    operator: holder.operator,
                    share: Some(share.to_text().as_bytes().to_vec().into()),
                    confirmed: false,
                })
                .collect(),
        };
        self.write_ceremony(&ceremony)
    }

    /// How far a sharing is.
    ///
    /// # Errors
    /// A failure of the store, or [`RegistryError::Locked`] while a ceremony is under way.
    pub fn share_status(&self) -> Result<ShareStatus> {
        let sharing = self.authority().sharing(&self.config.division).cloned();
        let in_force = match sharing {
            None => None,
            Some(sharing) => {
                let header = header_of(&sharing)?;
                Some(SharingLine {
                    ceremony: hex(header.ceremony()),
                    shares: header.count(),
                    threshold: header.threshold(),
                    behind: self.recovery_lag()?.unwrap_or(0),
                })
            }
        };
        let ceremony = match self.read_ceremony()? {
            None => None,
            Some(ceremony) => {
                let header = ceremony.header()?;
                let holders = (1..).zip(&ceremony.holders);
                Some(CeremonyLine {
                    ceremony: hex(header.ceremony()),
                    plan: hex(&ceremony.plan),
                    threshold: header.threshold(),
                    holders: holders
                        .map(|(share, holder)| HolderLine {
                            operator: holder.operator,
                            share,
                            taken: holder.share.is_none(),
                            confirmed: holder.confirmed,
                        })
                        .collect(),
                })
            }
        };
        Ok(ShareStatus { in_force, ceremony })
    }

    /// Gives the asking officer's share, once: it is forgotten here before it is given.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`]: no ceremony, another one, not a holder, or taken already.
    pub fn take_share(&self, session: &Session, nonce: &str) -> Result<Zeroizing<String>> {
        let _one = lock(&self.ceremony);
        let mut ceremony = self.ceremony_under_way()?;
        let (_, holder) = ceremony.holder(session, nonce)?;
        let share = holder
            .share
            .take()
            .map(|bytes| Zeroizing::new(Vec::from(bytes)));
        let share = share.ok_or_else(|| bad("份额只给一次，已经取走 / this share was given out before, and is given once; if nobody has it, abandon the ceremony and begin another"))?;
        self.write_ceremony(&ceremony)?;
        String::from_utf8(share.to_vec())
            .map(Zeroizing::new)
            .map_err(|_| RegistryError::damaged("a share is no text"))
    }

    /// Takes back what a holder typed; with the last holder's, the sharing takes effect.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`]: no ceremony, another one, not a holder, or not this
    /// holder's share as it was given.
    pub fn confirm_share(
        &self,
        session: &Session,
        nonce: &str,
        text: &str,
        now: UnixMillis,
    ) -> Result<ShareStatus> {
        {
            let _one = lock(&self.ceremony);
            let mut ceremony = self.ceremony_under_way()?;
            let header = ceremony.header()?;
            let (number, holder) = ceremony.holder(session, nonce)?;
            if holder.share.is_some() {
                return Err(bad(
                    "请先取份额 / take the share first: `fangzhi keys share take`",
                ));
            }
            let share = Share::from_text(text)
                .map_err(|e| RegistryError::BadRequest(format!("份额有误 / {e}")))?;
            share
                .verify(&header)
                .map_err(|e| RegistryError::BadRequest(format!("份额有误 / {e}")))?;
            if share.number() != number {
                return Err(bad(
                    "这是别人的份额 / this is another holder's share; each officer keeps the own one",
                ));
            }
            holder.confirmed = true;
            self.write_ceremony(&ceremony)?;
            if ceremony.holders.iter().all(|holder| holder.confirmed) {
                self.put_in_force(&ceremony, session, now)?;
            }
        }
        self.share_status()
    }

    /// The new sharing takes effect with its statement; what is sealed from then on, and at once
    /// everything again, is sealed to its key, and what was sealed to the old one is destroyed.
    fn put_in_force(&self, ceremony: &Ceremony, session: &Session, now: UnixMillis) -> Result<()> {
        let sharing = Sharing {
            plan: ceremony.plan,
            header: Some(ceremony.header.clone()),
            public: ceremony.public.clone(),
        };
        let known = self.authority().sharing(&self.config.division).cloned();
        if known.as_ref() != Some(&sharing) {
            let signer = session.signer(purpose("security"), None);
            self.state(vec![Statement::Sharing(sharing)], &signer, now)?;
        }
        self.pages_changed(&[])?;
        self.remove_ceremony()
    }

    /// Ends a ceremony that will not be finished; the sharing in force stays.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy.
    pub fn abandon_shares(&self, session: &Session) -> Result<()> {
        self.may(session, policy::Action::Rotate, &purpose("security"))?;
        let _one = lock(&self.ceremony);
        self.remove_ceremony()
    }

    /// Opens a node whose passphrase or key file is lost, with the officers' shares; the keystore
    /// is sealed under another key-encryption key with it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when the shares do not fit.
    pub fn unlock_with_shares(
        &self,
        shares: &[impl AsRef<str>],
        custody: &KeyCustody,
        opener: &Opener,
        now: UnixMillis,
    ) -> Result<()> {
        if !self.is_locked() {
            return Ok(());
        }
        let sharing = self.authority().sharing(&self.config.division).cloned();
        let sharing = sharing.ok_or_else(|| bad("本节点没有分份 / the root of this node is not shared; open it with its passphrase or key file"))?;
        let header = header_of(&sharing)?;
        let root = root_of(&header, shares)?;
        let origin = self.own("recovery");
        let index = self.newest_bundle(&origin)?.ok_or_else(|| {
            RegistryError::damaged("the recovery ledger has no bundle; recover from the parent")
        })?;
        let sealed = self.body(&origin, index)?;
        let info = RecoveryInfo {
            origin,
            index,
            ceremony: *header.ceremony(),
        };
        let (keystore, _) = open_bundle(&info, &root, &sealed)?;
        self.keys.fits(&keystore)?;
        let keys = Keys::create_with(self.files.dir(), keystore, custody, opener)?;
        self.keys.put(keys)?;
        self.opened(now)
    }

    fn ceremony_under_way(&self) -> Result<Ceremony> {
        self.read_ceremony()?.ok_or_else(|| {
            bad("没有进行中的分份 / no ceremony is under way; run an approved plan of sharing first")
        })
    }

    fn read_ceremony(&self) -> Result<Option<Ceremony>> {
        let path = self.files.ceremony();
        if !path.exists() {
            return Ok(None);
        }
        let sealed = store::atomic::read_bounded(&path, FILE_MAX)?;
        let damaged = || {
            RegistryError::Directory(
                "文件 `ceremony` 有误，请放弃这次分份 / the file `ceremony` does not open; abandon this ceremony with `fangzhi keys share abandon`".into(),
            )
        };
        let plain =
            seal::blob::open_blob(&self.keys.kept_key()?, AAD, &sealed).map_err(|_| damaged())?;
        cbor::from_slice("ceremony", &plain, FILE_MAX as usize)
            .map(Some)
            .map_err(|_| damaged())
    }

    fn write_ceremony(&self, ceremony: &Ceremony) -> Result<()> {
        let plain = Zeroizing::new(cbor::to_vec(ceremony));
        let sealed = seal::blob::seal_blob(&self.keys.kept_key()?, AAD, &plain, &mut rng()?);
        store::atomic::replace(&self.files.ceremony(), &sealed).map_err(RegistryError::from)
    }

    fn remove_ceremony(&self) -> Result<()> {
        let path = self.files.ceremony();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RegistryError::file(&path, error))
            }
            _ => Ok(()),
        }
    }
}
