//! Shares of nodes below (下级份额), at the node of the officer who holds one: ready, take, confirm.
//!
//! The officer makes a one-time key here beforehand; its private half lies in `share-keys/`, sealed
//! under the officer's own key. Taking the share destroys that file first, so that the sealed share,
//! which stays in a ledger for ever, opens never again: it is given once. Typed back, it is confirmed
//! by a word that the officer signs.
//! Refuses a share for anybody else, one that its node did not sign, one that was altered, one of a
//! ceremony that another took the place of, and a second taking.

use record::authority::Statement;
use record::custody::{DealtShare, ShareKey, ShareStep, ShareWord};
use record::entry::SUITE;
use record::id::{DivisionId, Hash, OperatorId, UnixMillis};
use seal::dealt::{KEY_FILE_BYTES, open_dealt, open_key, seal_key};
use seal::grant::SealPrivateKey;
use seal::share::{Header, Share};
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::above::dealt_info;
use super::shares::{bad, hex};
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, private_directory, purpose};
use crate::session::Session;

/// How far an officer came with a share of a node below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldState {
    /// It waits to be taken.
    Waiting,
    /// It was taken; the officer is to type it back.
    Taken,
    /// The officer confirmed it.
    Confirmed,
    /// The node began another ceremony since.
    Superseded,
}

/// A share of a node below that is dealt to an officer here.
#[derive(Debug, Clone, Serialize)]
pub struct HeldLine {
    /// Whose root.
    pub division: DivisionId,
    /// The ceremony's nonce, hexadecimal: every step names it.
    pub ceremony: String,
    /// The plan, hexadecimal.
    pub plan: String,
    /// The share's number.
    pub share: u8,
    /// How many there are.
    pub shares: u8,
    /// How many open.
    pub threshold: u8,
    /// The officer.
    pub operator: OperatorId,
    /// How far the officer came.
    pub state: HeldState,
}

/// An officer's key for a share, as it was made.
#[derive(Debug, Clone, Serialize)]
pub struct ReadyLine {
    /// Whose root.
    pub division: DivisionId,
    /// The officer's organization.
    pub organization: DivisionId,
    /// The officer.
    pub operator: OperatorId,
    /// Its id, hexadecimal: the plan names it.
    pub key: String,
}

fn header_of(dealt: &DealtShare) -> Result<Header> {
    Header::decode(&dealt.header).map_err(|e| RegistryError::BadRequest(e.to_string()))
}

fn header_hash(dealt: &DealtShare) -> Hash {
    Sha256::digest(dealt.header.as_slice()).into()
}

fn seed(session: &Session) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(session.key().to_bytes())
}

impl Registry {
    fn share_key_file(&self, key: &Hash) -> std::path::PathBuf {
        self.files.share_keys().join(hex(key))
    }

    /// Makes the asking officer's key for one share of a node below, and states its public half.
    /// While that key waits for its share, it is given again.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NoCharter`] when the node is not below.
    pub fn ready_for_share(
        &self,
        session: &Session,
        division: &DivisionId,
        now: UnixMillis,
    ) -> Result<ReadyLine> {
        self.may(session, policy::Action::Rotate, &purpose("security"))?;
        let own = &self.config.division;
        let below = {
            let authority = self.authority();
            authority.charter(division).is_some() && authority.within(division, own)
        };
        if !below || division == own {
            return Err(RegistryError::NoCharter(division.clone()));
        }
        let _one = lock(&self.ceremony);
        let line = |id: &Hash| ReadyLine {
            division: division.clone(),
            organization: own.clone(),
            operator: session.operator,
            key: hex(id),
        };
        let waiting = {
            let authority = self.authority();
            let known = authority.share_key(division, own, &session.operator, now);
            known.ok().map(ShareKey::id)
        };
        if let Some(id) = waiting.filter(|id| self.share_key_file(id).exists()) {
            return Ok(line(&id));
        }
        self.sweep_share_keys()?;
        let mut rng = rng()?;
        let private = SealPrivateKey::generate(&mut rng);
        let key = ShareKey {
            suite: SUITE,
            organization: own.clone(),
            operator: session.operator,
            division: division.clone(),
            public: private.public().into(),
            made_at: now,
            signature: [0; 64],
        }
        .sign(session.key());
        let id = key.id();
        let sealed = seal_key(&seed(session), &id, &private, &mut rng);
        private_directory(&self.files.share_keys())?;
        // The private half is durable before anybody may seal to the public one.
        store::atomic::replace(&self.share_key_file(&id), &sealed)?;
        let signer = session.signer(purpose("security"), None);
        let step = Statement::Share(Box::new(ShareStep::Ready(key)));
        self.state(vec![step], &signer, now)?;
        Ok(line(&id))
    }

    /// Destroys the files of keys that were never stated: a crash came between.
    fn sweep_share_keys(&self) -> Result<()> {
        let dir = self.files.share_keys();
        if !dir.exists() {
            return Ok(());
        }
        let known: Vec<String> = {
            let authority = self.authority();
            let of = authority.shares().keys_of(&self.config.division);
            of.map(|key| hex(&key.id())).collect()
        };
        for item in std::fs::read_dir(&dir).map_err(|e| RegistryError::file(&dir, e))? {
            let item = item.map_err(|e| RegistryError::file(&dir, e))?;
            let name = item.file_name();
            if known.iter().all(|known| name.to_str() != Some(known)) {
                store::atomic::destroy(&item.path())?;
            }
        }
        Ok(())
    }

    /// The shares of nodes below that are dealt to officers here and not in force yet.
    pub(super) fn held_shares(&self) -> Vec<HeldLine> {
        let authority = self.authority();
        let dealt = authority.shares().dealt_to(&self.config.division);
        let mut lines = Vec::new();
        for (at, share) in dealt.iter().enumerate() {
            let Ok(header) = Header::decode(&share.header) else {
                continue;
            };
            let sharing = authority.sharing(&share.division);
            if sharing.is_some_and(|sharing| sharing.header.as_ref() == Some(&share.header)) {
                continue;
            }
            let superseded = dealt[at + 1..]
                .iter()
                .any(|other| other.division == share.division && other.operator == share.operator);
            let hash = header_hash(share);
            let mut words = authority.shares().words(&share.division);
            let state = if superseded {
                HeldState::Superseded
            } else if words.any(|word| {
                word.header == hash
                    && word.operator == share.operator
                    && word.organization == share.organization
            }) {
                HeldState::Confirmed
            } else if self.share_key_file(&share.key).exists() {
                HeldState::Waiting
            } else {
                HeldState::Taken
            };
            lines.push(HeldLine {
                division: share.division.clone(),
                ceremony: hex(header.ceremony()),
                plan: hex(&share.plan),
                share: share.number,
                shares: header.count(),
                threshold: header.threshold(),
                operator: share.operator,
                state,
            });
        }
        lines
    }

    /// The share of a node below that was dealt to the asking officer in the ceremony named.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when the node began another ceremony since.
    pub(super) fn dealt_to(&self, session: &Session, nonce: &str) -> Result<Option<DealtShare>> {
        let authority = self.authority();
        let mut mine = authority.shares().dealt_to(&self.config.division);
        mine.retain(|share| share.operator == session.operator);
        let of_ceremony = |share: &&DealtShare| {
            Header::decode(&share.header).is_ok_and(|header| hex(header.ceremony()) == nonce)
        };
        // Of two for one ceremony the later counts: the node sent it again.
        let Some(found) = mine.iter().rposition(of_ceremony) else {
            return Ok(None);
        };
        let share = mine[found];
        let mut later = mine[found + 1..].iter();
        if later.any(|other| other.division == share.division && other.header != share.header) {
            return Err(bad(
                "该节点已另作一次分份，此号作废 / the node began another ceremony since, and this number is void; compare the number with its officers",
            ));
        }
        Ok(Some(share.clone()))
    }

    /// Whether a dealt share is what its node dealt to an officer here.
    pub(super) fn check_dealt(&self, dealt: &DealtShare, now: UnixMillis) -> Result<()> {
        let own = &self.config.division;
        let authority = self.authority();
        let mut ever = authority.charters_ever(&dealt.division).iter();
        let signed = ever.any(|charter| {
            !authority.taken_back(&charter.id()) && dealt.is_signed_by(&charter.keys.sign)
        });
        if !signed {
            return Err(bad(
                "份额不是该节点所签 / the sealed share is not signed by the node that it names, or its charter was revoked; let the node send it again",
            ));
        }
        if dealt.organization != *own {
            return Err(bad(
                "份额是给另一单位的 / the share is for an officer of another organization; carry it there",
            ));
        }
        authority.share_holder(&dealt.division, own, &dealt.operator, now)?;
        drop(authority);
        let header = header_of(dealt)?;
        let context = header.context();
        if context.division != dealt.division || context.realm != self.config.realm {
            return Err(bad(
                "分份头属于另一节点 / the header of the ceremony is another node's",
            ));
        }
        Ok(())
    }

    /// Gives a share of a node below: the key that opens it is destroyed before.
    pub(super) fn take_dealt(
        &self,
        session: &Session,
        dealt: &DealtShare,
    ) -> Result<Zeroizing<String>> {
        let now = UnixMillis(self.latest.load(std::sync::atomic::Ordering::Relaxed));
        self.check_dealt(dealt, now)?;
        let path = self.share_key_file(&dealt.key);
        if !path.exists() {
            return Err(bad(
                "份额只给一次，已经取走；若无人持有，请该节点放弃重作 / this share was given out before, and is given once; if nobody has it, let the node abandon the ceremony and begin another",
            ));
        }
        let file = store::atomic::read_bounded(&path, KEY_FILE_BYTES as u64)?;
        let refused =
            |e: &dyn std::fmt::Display| RegistryError::BadRequest(format!("份额有误 / {e}"));
        let key = open_key(&seed(session), &dealt.key, &file).map_err(|e| refused(&e))?;
        let info = dealt_info(&self.config.realm, dealt);
        let bytes = open_dealt(&info, &key, &dealt.sealed).map_err(|e| refused(&e))?;
        let share = Share::decode(&bytes).map_err(|e| refused(&e))?;
        share.verify(&header_of(dealt)?).map_err(|e| refused(&e))?;
        if share.number() != dealt.number {
            return Err(bad(
                "封存的份额与所署号数不符 / another share was sealed than the number says; let the node begin another ceremony",
            ));
        }
        store::atomic::destroy(&path)?;
        Ok(share.to_text())
    }

    /// Takes back what the officer typed, and states the officer's word.
    pub(super) fn confirm_dealt(
        &self,
        session: &Session,
        dealt: &DealtShare,
        text: &str,
        now: UnixMillis,
    ) -> Result<()> {
        self.check_dealt(dealt, now)?;
        if self.share_key_file(&dealt.key).exists() {
            return Err(bad(
                "请先取份额 / take the share first: `fangzhi keys share take`",
            ));
        }
        let refused = |e| RegistryError::BadRequest(format!("份额有误 / {e}"));
        let share = Share::from_text(text).map_err(refused)?;
        share.verify(&header_of(dealt)?).map_err(refused)?;
        if share.number() != dealt.number {
            return Err(bad(
                "这是别人的份额 / this is another holder's share; each officer keeps the own one",
            ));
        }
        let word = ShareWord {
            suite: SUITE,
            division: dealt.division.clone(),
            header: header_hash(dealt),
            number: dealt.number,
            organization: dealt.organization.clone(),
            operator: session.operator,
            signed_at: now,
            signature: [0; 64],
        }
        .sign(session.key());
        let signer = session.signer(purpose("security"), None);
        let step = Statement::Share(Box::new(ShareStep::Confirmed(word)));
        self.state(vec![step], &signer, now)?;
        Ok(())
    }
}
