//! Shares for officers above (上级持份), at the node whose root is shared: dealing and counting.
//!
//! An officer of an ancestor needs no account here. The plan names the officer's one-time key, so
//! whoever approves the plan approves the key; the share is sealed to it as soon as it is dealt and
//! is stated, sealed, in the authority ledger, which goes up. The officer's signed word comes down,
//! or by file.
//! Refuses officers who are not above or not in good standing, keys that the plan does not name, and
//! words of anybody else, on another share, or of another ceremony, each with its reason.

use std::collections::BTreeSet;

use record::authority::{OperatorCertificate, Role, Statement};
use record::custody::{DealtShare, ShareKey, ShareStep, ShareWord};
use record::entry::SUITE;
use record::id::{DivisionId, Hash, OperatorId, UnixMillis};
use record::plan::ShareHolder;
use seal::dealt::{DealtInfo, seal_dealt};
use seal::share::{Header, Share};
use sha2::{Digest, Sha256};

use super::shares::{Ceremony, bad};
use crate::authority::Authority;
use crate::book::Signer;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};

/// Why a holder of a share does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoHolder {
    /// Neither of the node's organization nor of one above it.
    #[error(
        "持有人须属本单位或上级 / the holder is neither of this organization nor of one above it"
    )]
    NotAbove,
    /// Not known, disabled, expired, or of another role.
    #[error(
        "持有人在此处不是有效的安全员（未登记、已停用、已过期或证书尚未送到） / the holder is no security officer in good standing: not enrolled, disabled, expired, or not replicated yet"
    )]
    NoOfficer,
    /// One person under two names.
    #[error(
        "同一人（同一把钥）只能持一份 / two of the holders have the same key: one person holds one share, under whatever name"
    )]
    Twice,
    /// The officer above made no key, or another than the plan names.
    #[error(
        "上级持有人尚未备钥，或备的不是方案所列的那一把；请其 `fangzhi keys share ready`，再作方案 / the officer above has no key for this share, or another than the plan names; let the officer run `fangzhi keys share ready`, then make the plan"
    )]
    NotReady,
}

impl From<NoHolder> for RegistryError {
    fn from(why: NoHolder) -> Self {
        RegistryError::BadRequest(why.to_string())
    }
}

/// Why an officer's word on a share does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoWord {
    /// Of another ceremony than the one under way.
    #[error(
        "确认的是另一次分份 / the word is of another ceremony than the one under way; ask the officer which number it has"
    )]
    OtherCeremony,
    /// The share is somebody else's.
    #[error(
        "这一份不是此人的 / the share is not this officer's; each officer confirms the own one"
    )]
    OtherHolder,
    /// The officer may not hold one any more.
    #[error(transparent)]
    NoHolder(NoHolder),
    /// Signed by another key, or altered.
    #[error(
        "确认的签名不符 / the signature is not the officer's; the word was altered, or the officer has another key since"
    )]
    BadSignature,
}

impl From<NoWord> for RegistryError {
    fn from(why: NoWord) -> Self {
        RegistryError::BadRequest(why.to_string())
    }
}

impl Authority {
    /// The certificate of a security officer in good standing of a division or of one above it.
    pub(crate) fn share_holder(
        &self,
        division: &DivisionId,
        organization: &DivisionId,
        operator: &OperatorId,
        now: UnixMillis,
    ) -> std::result::Result<&OperatorCertificate, NoHolder> {
        if !self.within(division, organization) {
            return Err(NoHolder::NotAbove);
        }
        self.operator(organization, operator)
            .filter(|officer| officer.role == Role::SecurityOfficer && officer.not_after > now)
            .ok_or(NoHolder::NoOfficer)
    }

    /// The newest key that an officer above made for a share of a node's root.
    pub(crate) fn share_key(
        &self,
        division: &DivisionId,
        organization: &DivisionId,
        operator: &OperatorId,
        now: UnixMillis,
    ) -> std::result::Result<&ShareKey, NoHolder> {
        let officer = self.share_holder(division, organization, operator, now)?;
        self.shares()
            .keys(organization, operator, division)
            .filter(|key| key.is_signed_by(&officer.key))
            .max_by_key(|key| key.made_at)
            .ok_or(NoHolder::NotReady)
    }
}

impl Authority {
    /// The holders of shares of a node's root, each officer above with the key made for it.
    fn name_holders(
        &self,
        own: &DivisionId,
        holders: &[ShareHolder],
        now: UnixMillis,
    ) -> std::result::Result<Vec<ShareHolder>, NoHolder> {
        // By key: one person under two names would hold two shares.
        let mut persons = BTreeSet::new();
        let named = holders.iter().map(|holder| {
            let (organization, operator) = (&holder.organization, &holder.operator);
            let officer = self.share_holder(own, organization, operator, now)?;
            if !persons.insert(officer.key) {
                return Err(NoHolder::Twice);
            }
            let key = match organization == own {
                true => None,
                false => Some(self.share_key(own, organization, operator, now)?.id()),
            };
            Ok(ShareHolder {
                key,
                ..holder.clone()
            })
        });
        named.collect()
    }
}

/// What a dealt share is bound to.
pub(super) fn dealt_info(realm: &record::id::Realm, dealt: &DealtShare) -> DealtInfo {
    DealtInfo {
        realm: realm.clone(),
        division: dealt.division.clone(),
        plan: dealt.plan,
        header: Sha256::digest(dealt.header.as_slice()).into(),
        number: dealt.number,
        organization: dealt.organization.clone(),
        operator: dealt.operator,
        key: dealt.key,
    }
}

impl Registry {
    /// The holders of a plan, checked, each officer above with the key made for it.
    pub(crate) fn share_holders(
        &self,
        holders: &[ShareHolder],
        now: UnixMillis,
    ) -> Result<Vec<ShareHolder>> {
        let named = self
            .authority()
            .name_holders(&self.config.division, holders, now);
        Ok(named?)
    }

    /// Seals a share to the officer above whom the plan names, under the key that it names.
    pub(super) fn deal_above(
        &self,
        holder: &ShareHolder,
        (plan, header): (Hash, &Header),
        share: &Share,
        now: UnixMillis,
    ) -> Result<DealtShare> {
        let own = &self.config.division;
        let key = {
            let authority = self.authority();
            let (organization, operator) = (&holder.organization, &holder.operator);
            let key = authority.share_key(own, organization, operator, now)?;
            // Named by the plan, and so approved: a key made since is another.
            if holder.key != Some(key.id()) {
                return Err(NoHolder::NotReady.into());
            }
            key.clone()
        };
        let mut dealt = DealtShare {
            suite: SUITE,
            division: own.clone(),
            plan,
            header: header.encode().into(),
            number: share.number(),
            organization: holder.organization.clone(),
            operator: holder.operator,
            key: key.id(),
            sealed: Vec::new().into(),
            signature: [0; 64],
        };
        let info = dealt_info(&self.config.realm, &dealt);
        dealt.sealed = seal_dealt(&info, &key.public, &share.encode(), &mut rng()?)
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?
            .into();
        Ok(dealt.sign(&self.keys.unlocked()?.sign))
    }

    /// States the shares for officers above that a ceremony dealt, as far as that was not done.
    pub(super) fn state_dealt(
        &self,
        ceremony: &Ceremony,
        signer: &Signer<'_>,
        now: UnixMillis,
    ) -> Result<()> {
        let mut dealt = ceremony.dealt()?;
        {
            let authority = self.authority();
            let (own, plan) = (&self.config.division, ceremony.plan());
            dealt.retain(|share| {
                let mut stated = authority.shares().dealt_under(own, &plan);
                stated.all(|known| known != share)
            });
        }
        if dealt.is_empty() {
            return Ok(());
        }
        let step = |share| Statement::Share(Box::new(ShareStep::Dealt(share)));
        self.state(dealt.into_iter().map(step).collect(), signer, now)?;
        Ok(())
    }

    /// Whether an officer's word counts for the ceremony under way.
    ///
    /// # Errors
    /// [`NoWord`], the first reason that holds.
    pub(super) fn weigh_word(
        &self,
        ceremony: &Ceremony,
        word: &ShareWord,
        now: UnixMillis,
    ) -> std::result::Result<(), NoWord> {
        let own = &self.config.division;
        if word.division != *own || word.header != ceremony.header_hash() {
            return Err(NoWord::OtherCeremony);
        }
        if ceremony.holder_above(word.number) != Some((&word.organization, &word.operator)) {
            return Err(NoWord::OtherHolder);
        }
        let authority = self.authority();
        let officer = authority
            .share_holder(own, &word.organization, &word.operator, now)
            .map_err(NoWord::NoHolder)?;
        match word.is_signed_by(&officer.key) {
            true => Ok(()),
            false => Err(NoWord::BadSignature),
        }
    }

    /// [`Registry::tend_shares`] for whoever cannot do anything about a failure.
    pub fn try_tend_shares(&self, now: UnixMillis) {
        if let Err(error) = self.tend_shares(now) {
            tracing::warn!(%error, "a sharing does not take effect");
        }
    }

    /// Counts the words that came from above; with the last one the sharing takes effect.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when a holder is no officer in good standing any more: the
    /// ceremony is to be abandoned. A failure of the store; it is tried again.
    pub fn tend_shares(&self, now: UnixMillis) -> Result<()> {
        if self.keys.is_locked() || !self.files.ceremony().exists() {
            return Ok(());
        }
        let _one = lock(&self.ceremony);
        let Some(mut ceremony) = self.read_ceremony()? else {
            return Ok(());
        };
        let words: Vec<ShareWord> = self
            .authority()
            .shares()
            .words(&self.config.division)
            .cloned()
            .collect();
        let mut counted = false;
        for word in words {
            if self.weigh_word(&ceremony, &word, now).is_ok() {
                counted |= ceremony.confirm_above(word.number);
            }
        }
        if counted {
            self.write_ceremony(&ceremony)?;
        }
        if ceremony.is_confirmed() {
            let signer = self.service(purpose("security"));
            self.put_in_force(&ceremony, &signer, now)?;
        }
        Ok(())
    }

    /// Refuses a sharing of which a holder left, was disabled, or is not above any more.
    pub(super) fn check_holders(&self, ceremony: &Ceremony, now: UnixMillis) -> Result<()> {
        let own = &self.config.division;
        let authority = self.authority();
        for (organization, operator) in ceremony.holders(own) {
            if authority
                .share_holder(own, organization, operator, now)
                .is_err()
            {
                return Err(bad(
                    "一名持有人已停用或不再是安全员，本次分份不能生效；请放弃，另作一次 / a holder was disabled or is no security officer any more, so this ceremony does not take effect; abandon it with `fangzhi keys share abandon`, and hold another",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use ed25519_dalek::SigningKey;
    use record::authority::{Charter, Level, NodeKeys};
    use record::id::Realm;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000);

    fn division(name: &str) -> DivisionId {
        DivisionId::new(name).unwrap()
    }

    fn signing(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn officer(authority: &mut Authority, at: &str, number: u8, seed: u8, not_after: u64) {
        let certificate = OperatorCertificate {
            operator: OperatorId([number; 16]),
            key: signing(seed).verifying_key().to_bytes(),
            organization: division(at),
            role: Role::SecurityOfficer,
            not_after: UnixMillis(not_after),
            grid: None,
        };
        let stated = Statement::Operator(certificate);
        authority.learn(&division(at), &stated, u64::from(number));
    }

    fn key(at: &str, number: u8, seed: u8, made_at: u64) -> ShareKey {
        ShareKey {
            suite: SUITE,
            organization: division(at),
            operator: OperatorId([number; 16]),
            division: division("town"),
            public: vec![4; 1216].into(),
            made_at: UnixMillis(made_at),
            signature: [0; 64],
        }
        .sign(&signing(seed))
    }

    fn ready(authority: &mut Authority, ledger: &str, key: ShareKey) {
        let stated = Statement::Share(Box::new(ShareStep::Ready(key)));
        authority.learn(&division(ledger), &stated, 50);
    }

    /// A district with officers 1 and 2, a town under it with officers 3 and 4, and a sister with 5;
    /// each one's key is made of the number.
    fn realm() -> Authority {
        let mut authority = Authority::default();
        for (name, parent) in [
            ("district", "district"),
            ("town", "district"),
            ("sister", "district"),
        ] {
            authority.trust(Charter {
                suite: SUITE,
                realm: Realm::new("jiangjin.example").unwrap(),
                division: division(name),
                name: "示例".into(),
                level: Level::Town,
                parent: division(parent),
                codes: vec![],
                keys: NodeKeys {
                    sign: [1; 32],
                    witness: [1; 32],
                    held: [2; 32],
                    transport: [3; 32],
                    seal: vec![4; 1216],
                },
                serial: 1,
                not_before: UnixMillis(0),
                not_after: UnixMillis(9_999),
                signature: [0; 64],
            });
        }
        for (at, number) in [
            ("district", 1),
            ("district", 2),
            ("town", 3),
            ("town", 4),
            ("sister", 5),
        ] {
            officer(&mut authority, at, number, number, 9_000);
        }
        authority
    }

    #[track_caller]
    fn check(authority: &Authority, holders: &[(&str, u8)], expected: Option<NoHolder>) {
        let holders: Vec<ShareHolder> = holders
            .iter()
            .map(|(at, number)| ShareHolder {
                organization: division(at),
                operator: OperatorId([*number; 16]),
                key: None,
            })
            .collect();
        let named = authority.name_holders(&division("town"), &holders, NOW);
        assert_eq!(named.err(), expected);
    }

    #[test]
    fn an_officer_here_needs_no_key_and_one_above_the_own_newest() {
        let mut authority = realm();
        check(&authority, &[("town", 3), ("town", 4)], None);
        let above = [("town", 3), ("district", 1)];
        check(&authority, &above, Some(NoHolder::NotReady));
        // Signed by another officer, or in a ledger that is nobody's business.
        ready(&mut authority, "district", key("district", 1, 2, 10));
        check(&authority, &above, Some(NoHolder::NotReady));
        ready(&mut authority, "sister", key("district", 1, 1, 10));
        check(&authority, &above, Some(NoHolder::NotReady));
        ready(&mut authority, "district", key("district", 1, 1, 10));
        check(&authority, &above, None);
        // A later one that came by hand is the newest.
        let later = key("district", 1, 1, 20);
        ready(&mut authority, "town", later.clone());
        let (town, district) = (division("town"), division("district"));
        let operator = OperatorId([1; 16]);
        let found = authority.share_key(&town, &district, &operator, NOW);
        assert_eq!(found.unwrap(), &later);
    }

    #[test]
    fn nobody_from_the_side_nobody_whose_time_is_over_and_nobody_twice_holds_a_share() {
        let mut authority = realm();
        check(
            &authority,
            &[("town", 3), ("sister", 5)],
            Some(NoHolder::NotAbove),
        );
        check(
            &authority,
            &[("town", 3), ("town", 1)],
            Some(NoHolder::NoOfficer),
        );
        officer(&mut authority, "town", 6, 6, NOW.0);
        check(
            &authority,
            &[("town", 3), ("town", 6)],
            Some(NoHolder::NoOfficer),
        );
        // The officer of the town has an account in the district, with the same key.
        officer(&mut authority, "district", 7, 3, 9_000);
        ready(&mut authority, "district", key("district", 7, 3, 10));
        check(
            &authority,
            &[("town", 3), ("district", 7)],
            Some(NoHolder::Twice),
        );
        check(&authority, &[("town", 4), ("district", 7)], None);
    }
}
