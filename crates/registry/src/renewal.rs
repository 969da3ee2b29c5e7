//! A node's own keys rotated (换钥) while it runs: the old key signs for the new, the parent charters.
//!
//! Owns the steps, each of which may be cut off and is gone on with:
//!
//! 1. the plan is run: new node keys are durable in the keystore, beside the present ones;
//! 2. the parent is asked, over a connection that proves the new transport key, with a request that
//!    the old and the new `sign` key signed and that names the plan; it charters the keys once it
//!    holds the plan with its approvals;
//! 3. `node.json` has the new chain; 4. the keystore has the new keys in the place of the old;
//! 5. the authority ledger states the new charter, and anew the charter of every node below, signed
//!    by the new key; every own ledger's head is signed anew.
//!
//! The root has nobody to ask: its authority ledger states, under the old key, which is the next.
//! Refuses a request that no officers approved, whoever has the old key, and keys that were
//! chartered before.

use minicbor::{Decode, Encode};
use record::authority::{Charter, NodeKeys, Renewal, Statement, Succession, verify_chain};
use record::cbor;
use record::entry::SUITE;
use record::id::{Hash, UnixMillis};
use record::plan::{Outcome, Work};
use serde::Serialize;
use store::Batch;
use zeroize::Zeroizing;

use crate::charters::keys_hash;
use crate::error::{RegistryError, Result};
use crate::node::{CHARTER_MILLIS, Registry, lock, purpose};
use crate::plan::Warrant;
use crate::proposals::UNDER_WAY_MILLIS;
use crate::session::Session;
use crate::table::{self, LOCAL};

/// The row of the plan under which the node's keys were changed last.
const LAST: &[u8] = b"last";

/// The rotation under way.
#[derive(Debug, Clone, Copy, Encode, Decode)]
#[cbor(map)]
struct Underway {
    #[cbor(n(0), with = "minicbor::bytes")]
    plan: Hash,
}

/// A rotation under way, for the status page.
#[derive(Debug, Clone, Serialize)]
pub struct RenewalLine {
    /// The plan, hexadecimal.
    pub plan: String,
    /// Why the parent issued no charter yet, when it was asked last.
    pub refused: Option<String>,
}

/// What the network is to do for a rotation: ask the parent.
pub struct Ask {
    /// The request, signed.
    pub request: Renewal,
    /// The seed of the transport key under which it is asked.
    pub transport: Zeroizing<[u8; 32]>,
}

fn bad(words: impl Into<String>) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

impl Registry {
    fn underway(&self) -> Result<Option<Underway>> {
        self.renewal_row(b"")
    }

    fn renewal_row(&self, rest: &[u8]) -> Result<Option<Underway>> {
        let bytes = self.store.get(&table::local(table::RENEWAL, rest))?;
        bytes
            .map(|bytes| table::decode("renewal", &bytes))
            .transpose()
    }

    /// The rotation of the node's own keys that is under way.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn renewal(&self) -> Result<Option<RenewalLine>> {
        Ok(self.underway()?.map(|underway| RenewalLine {
            plan: data_encoding::HEXLOWER.encode(&underway.plan),
            refused: lock(&self.renewal_refused).clone(),
        }))
    }

    /// Makes new node keys; the rest follows while the node runs.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] while another change of the node's keys is under way.
    pub(crate) fn rotate_node(
        &self,
        by: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let plan = warrant.plan();
        // Cut off between the work and the word that the plan was run.
        if self
            .renewal_row(LAST)?
            .is_some_and(|last| last.plan == plan)
        {
            return Ok(());
        }
        if self.underway()?.is_some_and(|other| other.plan != plan)
            || self.files.next_keystore().exists()
        {
            return Err(bad(
                "节点密钥正在更换，请先完成 / other node keys wait for their charter already; finish that first, `fangzhi keys status` shows it",
            ));
        }
        self.keys.unlocked()?.prepare_next()?;
        self.keep_local(table::RENEWAL, b"", cbor::to_vec(&Underway { plan }))?;
        if self.config.parent.is_none() {
            self.name_successor(by, now)?;
        }
        Ok(())
    }

    /// The root says which key is its next, under the key that everybody knows.
    fn name_successor(&self, by: &Session, now: UnixMillis) -> Result<()> {
        let keys = self.keys.unlocked()?;
        let (Some(next), Some(sign)) = (keys.next(), keys.next_sign()) else {
            return Err(RegistryError::damaged(
                "no node keys wait for their charter",
            ));
        };
        let own = self.own_present_charter()?;
        let named = self.authority().charter(&own.division).cloned();
        if named.is_some_and(|named| named.keys == next) {
            return Ok(());
        }
        let charter = succeeding(&own, next, now).sign(&sign);
        let succession = Succession::sign(own, charter, &keys.sign);
        let signer = by.signer(purpose("security"), None);
        self.state(
            vec![Statement::Succession(Box::new(succession))],
            &signer,
            now,
        )?;
        Ok(())
    }

    fn own_present_charter(&self) -> Result<Charter> {
        self.chain()?.into_iter().next().ok_or_else(|| {
            RegistryError::Directory("`node.json` has no charter; restore the file".into())
        })
    }

    /// Goes on with a rotation of the node's own keys; says when the parent is to be asked.
    ///
    /// # Errors
    /// A failure of the store, or [`RegistryError::Halted`]; it is tried again.
    pub fn renewal_step(&self, now: UnixMillis) -> Result<Option<Ask>> {
        let Some(underway) = self.underway()? else {
            return Ok(None);
        };
        if self.keys.is_locked() {
            return Ok(None);
        }
        let keys = self.keys.unlocked()?;
        let Some(next) = keys.next() else {
            // The keys were taken up, and the rest was cut off.
            self.finish_renewal(now)?;
            return Ok(None);
        };
        // The charter may be in the parent's ledger while its answer was lost; the root's own is
        // in its own ledger.
        let chain = self.authority().chain_of(&self.config.division);
        if chain.first().is_some_and(|charter| charter.keys == next) {
            self.renewed(&chain, now)?;
            return Ok(None);
        }
        let request = Renewal {
            division: self.config.division.clone(),
            plan: underway.plan,
            replaces: self.own_present_charter()?.id(),
            keys: next,
            old: [0; 64],
            new: [0; 64],
        };
        Ok(keys
            .request(request)
            .map(|(request, transport)| Ask { request, transport }))
    }

    /// The parent issued no charter, for these reasons; it is asked again.
    pub fn renewal_refused(&self, reason: String) {
        *lock(&self.renewal_refused) = Some(reason);
    }

    /// Takes up the new keys, with the chain that the parent gave for them.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the chain does not hold or is for other keys.
    pub fn renewed(&self, chain: &[Charter], now: UnixMillis) -> Result<()> {
        let keys = self.keys.unlocked()?;
        let own = chain.first().filter(|own| {
            own.division == self.config.division && keys.next().as_ref() == Some(&own.keys)
        });
        if own.is_none() {
            return Err(RegistryError::Directory(
                "所给证书不是给待用公钥的 / the charter is for other keys than those that wait; it is asked for again".into(),
            ));
        }
        let root = match self.config.parent {
            Some(_) => self.root_key(),
            // The root's own chain is the charter that its own statement names.
            None => chain[0].keys.sign,
        };
        let taken_back = |id: &_| self.authority().taken_back(id);
        verify_chain(chain, &self.config.realm, &root, now, taken_back)
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        self.stand_under(chain, root)?;
        self.keys.take_next()?;
        self.authority_mut().take_chain(chain);
        *lock(&self.renewal_refused) = None;
        tracing::info!("the node's keys were changed; the network begins anew");
        self.changed();
        self.finish_renewal(now)
    }

    /// What follows once the new keys sign: statements, heads, and the end of the rotation.
    fn finish_renewal(&self, now: UnixMillis) -> Result<()> {
        let mut statements = vec![Statement::Charter(self.own_present_charter()?)];
        statements.extend(self.charters_anew(now)?.into_iter().map(Statement::Charter));
        self.state(statements, &self.service(purpose("security")), now)?;
        self.sign_heads_anew()?;
        let mut batch = Batch::new(LOCAL, None);
        if let Some(underway) = self.underway()? {
            batch.put(table::local(table::RENEWAL, LAST), cbor::to_vec(&underway));
        }
        batch.delete(table::local(table::RENEWAL, b""));
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        self.changed();
        Ok(())
    }

    /// The charters of the nodes below, for the keys that they have, signed by the present key.
    fn charters_anew(&self, now: UnixMillis) -> Result<Vec<Charter>> {
        let keys = self.keys.unlocked()?;
        let own = keys.sign.verifying_key().to_bytes();
        let authority = self.authority();
        let below = authority.charters().filter(|charter| {
            charter.parent == self.config.division
                && charter.division != self.config.division
                && charter.not_after > now
                && !authority.revoked(&charter.id())
                && charter.verify(&own).is_err()
        });
        let anew = below.map(|charter| {
            Charter {
                serial: charter.serial + 1,
                not_before: UnixMillis(now.0.saturating_sub(3_600_000)),
                signature: [0; 64],
                ..charter.clone()
            }
            .sign(&keys.sign)
        });
        Ok(anew.collect())
    }

    /// Signs the head of every own ledger with the present key: so whoever has seen it takes no
    /// head of a copy of this node that still has the old one.
    fn sign_heads_anew(&self) -> Result<()> {
        let keys = self.keys.unlocked()?;
        for origin in self.own_ledgers()? {
            if self.guard.is_halted(&origin) {
                continue;
            }
            let book = self.book(&origin)?;
            let mut book = lock(&book);
            let quorum = |note: &str| self.has_quorum(&origin, note);
            book.sign_anew(self.store.as_ref(), &keys.sign, quorum)?;
        }
        Ok(())
    }

    /// Charters other keys of a node below, which asked for it under its old key with its officers'
    /// leave.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] with what is missing.
    pub fn renew_charter(&self, request: &Renewal, now: UnixMillis) -> Result<Vec<Charter>> {
        let keys = self.keys.unlocked()?;
        // One at a time: asked twice at once, one charter is issued.
        let _one = lock(&self.planning);
        let charter = self.child_charter(&request.division)?;
        let before = {
            let authority = self.authority();
            let mut ever = authority.charters_ever(&request.division).iter();
            ever.find(|charter| charter.id() == request.replaces)
                .cloned()
        };
        let before = before
            .filter(|before| request.is_signed_by(&before.keys.sign))
            .ok_or_else(|| bad("换钥申请不是现用密钥所签 / the request is not signed with the keys that are chartered"))?;
        if self.authority().taken_back(&charter.id()) {
            return Err(bad(
                "节点证书已吊销，须另发证书 / the charter was revoked; plan `replace-charter`",
            ));
        }
        if charter.keys != request.keys {
            if charter.keys != before.keys {
                return Err(bad(
                    "另有证书生效 / another charter is in force; ask with its keys",
                ));
            }
            return self.charter_anew(&charter, request, &keys.sign, now);
        }
        // Asked again, because the answer was lost.
        let mut chain = vec![charter];
        chain.extend(self.chain()?);
        Ok(chain)
    }

    fn charter_anew(
        &self,
        old: &Charter,
        request: &Renewal,
        sign: &ed25519_dalek::SigningKey,
        now: UnixMillis,
    ) -> Result<Vec<Charter>> {
        self.may_renew(request, now)?;
        let charter = succeeding(old, request.keys.clone(), now).sign(sign);
        if charter.encode().len() > record::authority::CHARTER_MAX {
            return Err(bad("公钥过长 / the keys are too long for a charter"));
        }
        let statements = vec![
            Statement::Renewal(Box::new(request.clone())),
            Statement::Charter(charter.clone()),
        ];
        self.state(statements, &self.service(purpose("administration")), now)?;
        let mut chain = vec![charter];
        chain.extend(self.chain()?);
        Ok(chain)
    }

    /// Whether officers of the node approved that its keys change, and the keys are new.
    fn may_renew(&self, request: &Renewal, now: UnixMillis) -> Result<()> {
        let authority = self.authority();
        let known = |keys: &NodeKeys| {
            keys.sign == request.keys.sign
                || keys.transport == request.keys.transport
                || keys.seal == request.keys.seal
        };
        let ever = authority.charters_ever(&request.division);
        if ever.iter().any(|charter| known(&charter.keys)) {
            return Err(bad("这些公钥已发过证书 / these keys were chartered before"));
        }
        let plan = authority.plan(&request.plan).filter(|plan| {
            plan.division == request.division
                && matches!(&plan.work, Work::RotateNode { division } if *division == request.division)
        });
        let plan = plan.ok_or_else(|| {
            bad("方案尚未送到上级 / the parent does not hold the plan yet; it comes with the authority ledger")
        })?;
        if authority
            .renewed_under(&request.plan)
            .is_some_and(|keys| keys != keys_hash(&request.keys))
        {
            return Err(bad(
                "此方案已用过 / a charter was issued under this plan before; make another",
            ));
        }
        match authority.plan_closed(&request.plan) {
            // Run in its time; the parent may hear of it later.
            Some(Outcome::Run) => {}
            None if now <= plan.not_after => {}
            _ => {
                return Err(bad(
                    "方案已撤回或过期 / the plan was withdrawn, or its time is over",
                ));
            }
        }
        authority
            .enough(plan, now)
            .map_err(RegistryError::NotApproved)
    }

    /// Destroys seal keys of earlier charters to which nothing is sealed any more.
    ///
    /// # Errors
    /// A failure to write the keystore; it is tried again.
    pub(crate) fn forget_seals(&self, now: UnixMillis) -> Result<()> {
        let keys = self.keys.unlocked()?;
        if !keys.has_former() {
            return Ok(());
        }
        let needed = self.seals_needed(now);
        let gone = keys.forget_seals(|public| needed.iter().any(|key| key == public))?;
        if gone > 0 {
            tracing::info!(gone, "seal keys of earlier charters were destroyed");
            self.seal_recovery();
        }
        Ok(())
    }

    /// The public seal keys to which something is sealed that this node still opens: of each grant
    /// to it and each epoch that its owner did not retire, the one of the newest statement; and
    /// those of charters that were replaced so lately that letters to them may be under way.
    fn seals_needed(&self, now: UnixMillis) -> Vec<Vec<u8>> {
        let authority = self.authority();
        let own = &self.config.division;
        let ever = authority.charters_ever(own);
        let mut needed = Vec::new();
        for pair in ever.windows(2) {
            let [before, next] = pair else { continue };
            if now.0 < next.not_before.0.saturating_add(UNDER_WAY_MILLIS) {
                needed.push(before.keys.seal.clone());
            }
        }
        for grant in authority.grants().filter(|grant| grant.holder == *own) {
            if self.is_over_in(&authority, grant, now) {
                continue;
            }
            let mut newest = std::collections::BTreeMap::new();
            for statement in authority.grant_statements(&grant.id) {
                newest.insert(statement.epoch, statement.holder_charter);
            }
            for (epoch, charter) in newest {
                let retired = authority.epoch(&grant.origin, epoch)
                    == Some(record::authority::EpochStep::Retired);
                let sealed_to = ever.iter().find(|known| known.id() == charter);
                if let Some(sealed_to) = sealed_to.filter(|_| !retired) {
                    needed.push(sealed_to.keys.seal.clone());
                }
            }
        }
        needed
    }
}

/// The charter that follows one, for other keys; not signed yet.
fn succeeding(old: &Charter, keys: NodeKeys, now: UnixMillis) -> Charter {
    Charter {
        suite: SUITE,
        keys,
        serial: old.serial + 1,
        not_before: UnixMillis(now.0.saturating_sub(3_600_000)),
        not_after: UnixMillis(now.0 + CHARTER_MILLIS),
        signature: [0; 64],
        ..old.clone()
    }
}
