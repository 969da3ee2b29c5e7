//! Who is who: charters, operators and grants, as the authority ledgers say.
//!
//! Held in memory, made from the ledgers, and `kept` at rest so that a start need not read them
//! all. A charter counts only when its issuer, itself chartered, signed it.

use std::collections::{BTreeMap, BTreeSet};

use ledger::note::{KeyKind, Note, SignatureLine, Verifier};
use minicbor::{Decode, Encode};
use record::authority::{
    Charter, DestructionReceipt, EpochStep, GrantEnded, GrantStatement, InForce,
    OperatorCertificate, Role, SUCCESSIONS_MAX, Sharing, Statement, Succession,
};
use record::entry::Entry;
use record::id::{DivisionId, GrantId, Hash, Kind, OperatorId, Origin};
use record::plan::{Approval, Outcome, Plan, Work};
use record::published::{Declined, Published};
use store::Store;

use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::table::{self, Head};

pub(crate) mod dealings;
pub(crate) mod kept;
pub(crate) mod shares;
#[cfg(test)]
mod tests;
pub(crate) mod transfers;

/// The epoch that a shard begins with.
pub const FIRST_EPOCH: u32 = 1;
/// How many entries are read at a time.
const SCAN: usize = 1024;
/// The most charters kept that no known key of their issuer signed.
const UNPROVEN_MAX: usize = 4096;

/// From which size of the authority ledger on an operator's key signs, and up to which.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Term {
    #[n(0)]
    pub(crate) operator: OperatorId,
    #[n(1)]
    pub(crate) since: u64,
    #[n(2)]
    pub(crate) until: Option<u64>,
}

impl Term {
    /// Whether the key may sign an act that relies on this size.
    pub(crate) fn covers(&self, size: u64) -> bool {
        self.since <= size && self.until.is_none_or(|until| size < until)
    }
}

/// A key epoch that began.
#[derive(Debug, Clone, Copy, Encode, Decode)]
#[cbor(map)]
struct Begun {
    /// The plan that it began under.
    #[cbor(n(0), with = "minicbor::bytes")]
    plan: Hash,
    #[n(1)]
    retired: bool,
    /// The size of the authority ledger with its beginning.
    #[n(2)]
    since: u64,
}

/// What the authority ledgers held here say.
///
/// All of it is kept at rest, so every field has a number; a file without a field is not believed
/// and made anew. Whoever changes what `learn` makes of a statement without adding a
/// field changes the `v1` in `kept`.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Authority {
    #[n(0)]
    charters: BTreeMap<DivisionId, Charter>,
    /// Every charter of a division that held at some time, by serial: what it signed stays signed.
    #[n(8)]
    ever: BTreeMap<DivisionId, Vec<Charter>>,
    #[n(1)]
    revoked: BTreeSet<Hash>,
    /// Ids of charters that a later one of the same division replaced.
    #[n(2)]
    replaced: BTreeSet<Hash>,
    /// Every certificate of an operator, the one in force last: a new key replaces the one before.
    #[n(3)]
    operators: BTreeMap<(DivisionId, OperatorId), Vec<OperatorCertificate>>,
    #[n(4)]
    disabled: BTreeSet<(DivisionId, OperatorId)>,
    /// Every statement of a grant, in the order of its owner's ledger: one for each epoch and charter.
    #[n(5)]
    grants: BTreeMap<GrantId, Vec<GrantStatement>>,
    /// Charters whose issuer is not known yet, and whether the issuer's own ledger states them.
    #[n(6)]
    waiting: Vec<(Charter, bool)>,
    /// How far each ledger was taken in without a gap.
    #[n(7)]
    stands: BTreeMap<Origin, kept::Stand>,
    /// Plans by id, each from the ledger of its own division.
    #[n(9)]
    plans: BTreeMap<Hash, Plan>,
    /// What officers said of a plan, whether it counts or not.
    #[n(10)]
    approvals: BTreeMap<Hash, Vec<Approval>>,
    #[n(11)]
    closed: BTreeMap<Hash, Outcome>,
    #[n(12)]
    epochs: BTreeMap<(Origin, u32), Begun>,
    #[n(13)]
    ended: BTreeMap<GrantId, GrantEnded>,
    #[n(14)]
    receipts: BTreeMap<(DivisionId, Origin, u64), DestructionReceipt>,
    /// The newest sharing of each node's root.
    #[n(15)]
    sharings: BTreeMap<DivisionId, Sharing>,
    /// Of each operator's key, from which size of the authority ledger on and up to which it signs.
    #[n(16)]
    terms: BTreeMap<(DivisionId, [u8; 32]), Term>,
    /// What each division said is in force there, the newest last.
    #[n(17)]
    in_force: BTreeMap<(DivisionId, Kind), Vec<InForce>>,
    /// Sets that a division published, each with the size that its ledger has with it.
    #[n(20)]
    published: BTreeMap<DivisionId, BTreeMap<u64, Published>>,
    /// Published sets that a division said it does not run, by line and version.
    #[n(21)]
    declined: BTreeMap<(DivisionId, Kind, u32), Declined>,
    /// What is stated of records that move.
    #[n(25)]
    transfers: transfers::Transfers,
    /// Plans under which a node below asked for other keys, and the hash of those keys.
    #[n(31)]
    renewals: BTreeMap<Hash, Hash>,
    /// Charters stated by their issuer that no key known of it signed: one that it had before may
    /// become known later.
    #[n(32)]
    unproven: Vec<Charter>,
    /// How the root came to its key, the oldest first.
    #[n(33)]
    successions: Vec<Succession>,
    /// Successions between keys of which none is known to be the root's.
    #[n(34)]
    unplaced: Vec<Succession>,
    /// What is said of shares for officers above.
    #[n(40)]
    shares: shares::Shares,
    /// Who deals with whom, by all of the above.
    #[cbor(skip)]
    dealings: dealings::Dealings,
    /// Entries taken in since all this was kept.
    #[cbor(skip)]
    unkept: u64,
}

/// Whether a plan is for a grant under these very terms.
fn amends_to(work: &Work, grant: &GrantStatement) -> bool {
    matches!(
        work,
        Work::AmendGrant { grant: id, fields, rows, history, .. }
            if *id == grant.id
                && *fields == grant.fields
                && *rows == grant.rows
                && *history == grant.history()
    )
}

impl Authority {
    /// Only the charters that the configuration gives.
    fn chartered(config: &NodeConfig) -> Result<Self> {
        let mut authority = Self::default();
        for charter in config.charters()?.into_iter().rev() {
            authority.remember(charter.clone());
            authority.charters.insert(charter.division.clone(), charter);
        }
        authority.recall_dealings();
        Ok(authority)
    }

    /// Reads every authority ledger in the store from its beginning, and nothing else.
    pub(crate) fn load(store: &dyn Store, config: &NodeConfig) -> Result<Self> {
        let mut authority = Self::chartered(config)?;
        for shard in store.shards()? {
            let Ok(origin) = Origin::parse(&shard) else {
                continue;
            };
            if origin.ledger().as_str() == "authority" {
                authority.read(store, &origin, 0)?;
            }
        }
        authority.recall_letters(store)?;
        Ok(authority)
    }

    /// Reads one authority ledger from an index on.
    fn read(&mut self, store: &dyn Store, origin: &Origin, from: u64) -> Result<()> {
        let mut at = from;
        loop {
            let rows = store.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), SCAN)?;
            for (_, bytes) in &rows {
                at += 1;
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if let Entry::Authority(entry) = entry {
                    self.learn(&origin.division(), &entry.statement, at);
                }
            }
            if rows.len() < SCAN {
                break;
            }
        }
        let head = Head::read(store, origin)?;
        if at == head.size {
            self.stand(origin, from, (head.size, head.root));
        }
        Ok(())
    }

    /// Takes in what was appended to an authority ledger: its statements from `first` on, each with
    /// the size that the ledger has with it, up to the size and root given.
    pub(crate) fn follow(
        &mut self,
        origin: &Origin,
        first: u64,
        head: (u64, Hash),
        statements: &[(u64, Statement)],
    ) {
        for (at, statement) in statements {
            self.learn(&origin.division(), statement, *at);
        }
        self.stand(origin, first, head);
    }

    /// Two deliveries may be taken in out of their order; then the ledger stands where it stood.
    fn stand(&mut self, origin: &Origin, first: u64, (size, root): (u64, Hash)) {
        if self.stands.get(origin).map_or(0, |stand| stand.size) == first {
            self.stands
                .insert(origin.clone(), kept::Stand { size, root });
        }
        self.unkept += size.saturating_sub(first);
    }

    /// Takes a statement out of the ledger of `division`, which has `size` entries with it.
    pub(crate) fn learn(&mut self, division: &DivisionId, statement: &Statement, size: u64) {
        match statement {
            Statement::Charter(charter) => {
                if charter.parent == *division || charter.division == *division {
                    self.waiting
                        .push((charter.clone(), charter.parent == *division));
                    self.settle();
                }
            }
            Statement::Revocation(revocation) => {
                let by_parent = self
                    .charters
                    .get(&revocation.division)
                    .is_none_or(|c| c.parent == *division);
                if by_parent {
                    self.revoked.insert(revocation.charter);
                    self.dealings.bears();
                }
            }
            Statement::Operator(certificate) => {
                let at = (division.clone(), certificate.operator);
                let term = self.terms.get(&(division.clone(), certificate.key));
                if term.is_some_and(|term| term.since == size) {
                    // Read before.
                    return;
                }
                // Enrolled again, after a lost key or an absence: the key before signs no longer.
                self.end_terms(&at, size);
                let term = Term {
                    operator: certificate.operator,
                    since: size,
                    until: None,
                };
                self.terms
                    .entry((division.clone(), certificate.key))
                    .or_insert(term);
                self.disabled.remove(&at);
                self.operators
                    .entry(at)
                    .or_default()
                    .push(certificate.clone());
            }
            Statement::OperatorDisabled(operator) => {
                let at = (division.clone(), *operator);
                self.end_terms(&at, size);
                self.disabled.insert(at);
            }
            Statement::Grant(grant) => {
                if grant.origin.division() == *division {
                    let all = self.grants.entry(grant.id).or_default();
                    // Nobody takes over another owner's grant by its id.
                    // Nor is its scope changed but by an amendment.
                    if all.last().is_none_or(|last| last.has_terms_of(grant)) {
                        all.push(grant.clone());
                    }
                }
            }
            Statement::GrantAmended(amendment) => {
                let grant = &amendment.grant;
                let planned = self.plans.get(&amendment.plan);
                let planned = planned
                    .is_some_and(|plan| plan.division == *division && amends_to(&plan.work, grant));
                let known = self.grants.get_mut(&grant.id);
                if let Some(all) = known.filter(|_| planned) {
                    let first = all.first();
                    if first.is_some_and(|first| {
                        first.origin == grant.origin && first.holder == grant.holder
                    }) {
                        all.push(grant.clone());
                    }
                }
            }
            Statement::InForce(stated) => {
                let at = (division.clone(), stated.what.clone());
                let all = self.in_force.entry(at).or_default();
                if all.last() != Some(stated) {
                    all.push(stated.clone());
                }
            }
            Statement::Plan(plan) => {
                if plan.division == *division {
                    self.plans.insert(plan.id(), plan.clone());
                }
            }
            Statement::Approval(approval) => {
                // It speaks for itself: whose ledger it lies in does not matter.
                let all = self.approvals.entry(approval.plan).or_default();
                if !all.contains(approval) {
                    all.push(approval.clone());
                }
            }
            Statement::PlanClosed(closed) => {
                let own = self.plans.get(&closed.plan);
                let withdrawn = self.closed.get(&closed.plan) == Some(&Outcome::Withdrawn);
                if own.is_some_and(|plan| plan.division == *division) && !withdrawn {
                    self.closed.insert(closed.plan, closed.outcome);
                }
            }
            Statement::Epoch(change) => {
                if change.origin.division() == *division {
                    let at = (change.origin.clone(), change.epoch);
                    match change.step {
                        EpochStep::Begun => {
                            let plan = change.plan;
                            self.epochs.entry(at).or_insert(Begun {
                                plan,
                                since: size,
                                retired: false,
                            });
                        }
                        EpochStep::Retired => {
                            let plan = change.plan;
                            // The first epoch begins with its shard, unsaid.
                            let begun = self.epochs.entry(at).or_insert(Begun {
                                plan,
                                since: 0,
                                retired: true,
                            });
                            begun.retired = true;
                        }
                    }
                }
            }
            Statement::GrantEnded(ended) => {
                if ended.origin.division() == *division {
                    self.ended.insert(ended.grant, ended.clone());
                }
            }
            Statement::TransferOffer(offer) => self.transfers.offered(division, offer),
            Statement::TransferAnswer(answer) => self.transfers.answered(division, answer),
            Statement::TransferStep(step) => self.transfers.stepped(division, step),
            Statement::Moving(moving) => self.transfers.moving(division, moving),
            Statement::ShardClosed(closed) => self.transfers.closed(division, closed),
            Statement::Sharing(sharing) => {
                self.sharings.insert(division.clone(), sharing.clone());
                if let Some(header) = &sharing.header {
                    self.shares.settle(division, header);
                }
            }
            Statement::Share(step) => self.shares.learn(division, step, size),
            Statement::Renewal(renewal) => {
                let known = self.charters.get(&renewal.division);
                if known.is_none_or(|charter| charter.parent == *division) {
                    let keys = crate::charters::keys_hash(&renewal.keys);
                    self.renewals.entry(renewal.plan).or_insert(keys);
                }
            }
            Statement::Succession(succession) => {
                if succession.charter.division == *division {
                    self.succeed(succession);
                }
            }
            Statement::Published(published) => {
                let of = self.published.entry(division.clone()).or_default();
                of.insert(size, published.clone());
            }
            Statement::Declined(declined) => {
                let line = crate::node::word(declined.what.line());
                let at = (division.clone(), line, declined.version);
                self.declined.insert(at, declined.clone());
            }
            Statement::Receipt(receipt) => {
                let at = (division.clone(), receipt.origin.clone(), receipt.index);
                self.receipts.insert(at, receipt.clone());
            }
        }
        self.deal(division, statement);
    }

    /// The operator's keys sign nothing that relies on this size of the authority ledger.
    fn end_terms(&mut self, (division, operator): &(DivisionId, OperatorId), size: u64) {
        let of = self.terms.iter_mut().filter(|((d, _), _)| d == division);
        for (_, term) in of.filter(|(_, term)| term.operator == *operator) {
            term.until.get_or_insert(size);
        }
    }

    /// The term of an operator's key.
    pub(crate) fn term(&self, division: &DivisionId, key: &[u8; 32]) -> Option<&Term> {
        self.terms.get(&(division.clone(), *key))
    }

    fn remember(&mut self, charter: Charter) {
        let division = charter.division.clone();
        let ever = self.ever.entry(division.clone()).or_default();
        if ever.iter().all(|known| known.serial != charter.serial) {
            ever.push(charter);
            ever.sort_by_key(|charter| charter.serial);
            self.dealings.bears();
            // Its key may be the one that signed what no other key of it did.
            let (proven, rest) = std::mem::take(&mut self.unproven)
                .into_iter()
                .partition(|waiting: &Charter| waiting.parent == division);
            self.unproven = rest;
            let proven: Vec<Charter> = proven;
            self.waiting.extend(proven.into_iter().map(|c| (c, true)));
        }
    }

    /// Puts a charter in force unless a later one is.
    fn put_in_force(&mut self, charter: Charter) {
        match self.charters.get(&charter.division) {
            Some(newest) if charter.serial < newest.serial => {
                if self.replaced.insert(charter.id()) {
                    self.dealings.bears();
                }
            }
            Some(newest) if charter.serial == newest.serial => {}
            older => {
                self.dealings.chartered(&charter.parent);
                self.replaced.extend(older.map(Charter::id));
                self.charters.insert(charter.division.clone(), charter);
            }
        }
    }

    /// Takes in a chain that was verified up to the root, own first.
    pub(crate) fn take_chain(&mut self, chain: &[Charter]) {
        for charter in chain.iter().rev() {
            self.remember(charter.clone());
            self.put_in_force(charter.clone());
        }
        self.settle();
    }

    /// Follows the root to its next key, or learns which it had before the one that is known. A
    /// key that the root had once leads nowhere any more.
    pub(crate) fn succeed(&mut self, succession: &Succession) {
        let (before, charter) = (&succession.before, &succession.charter);
        let Some(known) = self.charters.get(&charter.division) else {
            return;
        };
        if known.parent != known.division || self.successions.contains(succession) {
            return;
        }
        let forward = known.keys.sign == before.keys.sign;
        let ever = self.charters_ever(&charter.division).iter();
        let back = { ever }.any(|known| known.keys.sign == charter.keys.sign);
        if !succession.holds() {
            return;
        }
        if !(forward || back) {
            // Between two keys that are not known yet: what comes later may lead there.
            let room = self.unplaced.len() < UNPROVEN_MAX;
            if room && !self.unplaced.contains(succession) {
                self.unplaced.push(succession.clone());
            }
            return;
        }
        self.successions.push(succession.clone());
        self.successions.sort_by_key(|s| s.charter.serial);
        for charter in [before, charter] {
            self.remember(charter.clone());
            self.put_in_force(charter.clone());
        }
        self.settle();
        for waiting in std::mem::take(&mut self.unplaced) {
            self.succeed(&waiting);
        }
    }

    /// How the root came to its key, the oldest first; the newest few, to be shown to a peer.
    pub fn successions(&self) -> &[Succession] {
        let first = self.successions.len().saturating_sub(SUCCESSIONS_MAX);
        &self.successions[first..]
    }

    /// Whether a node below was chartered under a plan, and for which keys.
    pub(crate) fn renewed_under(&self, plan: &Hash) -> Option<Hash> {
        self.renewals.get(plan).copied()
    }

    /// The charters in force from a division up to the root, whether they hold or not.
    pub(crate) fn chain_of(&self, division: &DivisionId) -> Vec<Charter> {
        let own = self.charters.get(division).into_iter();
        let above = self.ancestors(division);
        let above = above
            .iter()
            .filter_map(|division| self.charters.get(division));
        own.chain(above).cloned().collect()
    }

    /// Whether a parent took a charter back, as against one that it replaced.
    pub(crate) fn taken_back(&self, charter: &Hash) -> bool {
        self.revoked.contains(charter)
    }

    /// Every charter of a division that held at some time, the oldest first.
    pub fn charters_ever(&self, division: &DivisionId) -> &[Charter] {
        self.ever.get(division).map_or(&[], Vec::as_slice)
    }

    /// Whether none is missing of the charters that a division had: serials count from 1. Whoever
    /// joined later knows at first only those in force.
    pub(crate) fn knows_every_charter(&self, division: &DivisionId) -> bool {
        let ever = self.charters_ever(division);
        !ever.is_empty()
            && (1..)
                .zip(ever)
                .all(|(serial, charter)| charter.serial == serial)
    }

    /// Accepts waiting charters whose issuer is known, until none is left that can be.
    fn settle(&mut self) {
        loop {
            let before = (self.waiting.len(), self.unproven.len());
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|(charter, by_issuer)| {
                let Some(issuer) = self.charters.get(&charter.parent) else {
                    return true;
                };
                // Under a key that the issuer had before only as its own ledger states it: a key
                // that was lost makes nobody a charter elsewhere.
                let before = self.charters_ever(&charter.parent).iter();
                let holds = charter.verify(&issuer.keys.sign).is_ok()
                    || (*by_issuer && { before }.any(|i| charter.verify(&i.keys.sign).is_ok()));
                // A root's own charter is given by configuration, and by successions.
                if charter.parent == charter.division {
                    return false;
                }
                if !holds {
                    let room = self.unproven.len() < UNPROVEN_MAX;
                    if *by_issuer && room && !self.unproven.contains(charter) {
                        self.unproven.push(charter.clone());
                    }
                    return false;
                }
                self.remember(charter.clone());
                self.put_in_force(charter.clone());
                false
            });
            // What waited for a key that was learned meanwhile.
            waiting.append(&mut self.waiting);
            self.waiting = waiting;
            if (self.waiting.len(), self.unproven.len()) == before {
                return;
            }
        }
    }

    /// What a division said of one thing in force there, the newest last.
    pub(crate) fn in_force(&self, division: &DivisionId, what: &str) -> &[InForce] {
        Kind::new(what)
            .ok()
            .and_then(|what| self.in_force.get(&(division.clone(), what)))
            .map_or(&[], Vec::as_slice)
    }

    /// The sets that a division published, approved or not, in the order of its ledger, each with the
    /// size that the ledger has with it.
    pub(crate) fn published(
        &self,
        division: &DivisionId,
    ) -> impl Iterator<Item = (u64, &Published)> {
        let of = self.published.get(division).into_iter().flatten();
        of.map(|(size, published)| (*size, published))
    }

    /// The sets that a division said it does not run, by version.
    pub(crate) fn declined(&self, division: &DivisionId, line: &str) -> Vec<&Declined> {
        let of = self.declined.iter();
        of.filter(|((d, l, _), _)| d == division && l.as_str() == line)
            .map(|(_, declined)| declined)
            .collect()
    }

    /// The charter of a division, if one is known.
    pub fn charter(&self, division: &DivisionId) -> Option<&Charter> {
        self.charters.get(division)
    }

    /// Every charter known.
    pub fn charters(&self) -> impl Iterator<Item = &Charter> {
        self.charters.values()
    }

    /// The verifier of a cosigner by its name, if its word on a division's ledgers counts: as the
    /// witness that a node is, or for what it holds.
    /// Of the charters that the node had, the one whose key is named; the newest when none is.
    fn cosigner(&self, owner: &DivisionId, line: &SignatureLine) -> Option<Verifier> {
        let name = line.name();
        let (node, _role) = name.rsplit_once('/')?;
        let (_realm, division) = node.rsplit_once('/')?;
        let division = DivisionId::new(division).ok()?;
        if self.within(&division, owner) {
            return None;
        }
        let verifier = |charter: &Charter| {
            let keys = [
                (sync::witness_name(charter), charter.keys.witness),
                (sync::held_name(charter), charter.keys.held),
            ];
            let (_, key) = keys.into_iter().find(|(known, _)| known == name)?;
            Verifier::new(name, KeyKind::Cosignature, &key).ok()
        };
        let mut ever = self
            .charters_ever(&division)
            .iter()
            .rev()
            .filter_map(verifier);
        ever.find(|verifier| verifier.id() == line.id())
            .or_else(|| self.charters.get(&division).and_then(verifier))
    }

    /// The verifiers of those who cosigned a note, as witness or for what they hold, and whose
    /// word on the ledgers of `owner` counts: every node's but its own and those of the nodes
    /// below it, which it can charter as it likes.
    pub(crate) fn cosigners(&self, owner: &DivisionId, note: &Note) -> Vec<Verifier> {
        let lines = note.signatures().iter();
        lines
            .filter_map(|line| self.cosigner(owner, line))
            .collect()
    }

    /// Those of [`Authority::cosigners`] who cosigned as witnesses: they count for the quorum, and
    /// their time bounds what is under the head.
    pub(crate) fn witnesses(&self, owner: &DivisionId, note: &Note) -> Vec<Verifier> {
        let mut cosigners = self.cosigners(owner, note);
        cosigners.retain(|verifier| verifier.name().ends_with("/witness"));
        cosigners
    }

    /// The verifier of a node as a witness of any ledger.
    pub(crate) fn witness(&self, division: &DivisionId) -> Option<Verifier> {
        let charter = self.charters.get(division)?;
        let name = sync::witness_name(charter);
        Verifier::new(&name, KeyKind::Cosignature, &charter.keys.witness).ok()
    }

    /// Whose cosignature on a division's ledgers counts or counted: what a charter that was replaced
    /// since cosigned stays cosigned.
    pub fn witnesses_ever<'a>(
        &'a self,
        owner: &'a DivisionId,
    ) -> impl Iterator<Item = &'a Charter> {
        self.ever
            .values()
            .flatten()
            .filter(|charter| !self.within(&charter.division, owner))
    }

    /// The charter whose key signed a checkpoint of a ledger, as the key's id on the note has it;
    /// the newest when it is none of them.
    pub fn signer_of(&self, origin: &Origin, note: &str) -> Option<&Charter> {
        self.signer_known(origin, note)
            .or_else(|| self.charter(&origin.division()))
    }

    /// The charter whose key signed a checkpoint, if it is known here.
    pub(crate) fn signer_known(&self, origin: &Origin, note: &str) -> Option<&Charter> {
        let division = origin.division();
        let note = ledger::note::Note::parse(note.as_bytes()).ok();
        let signed = |charter: &&Charter| {
            let Ok(log) = crate::replicate::log_verifier(origin, &charter.keys.sign) else {
                return false;
            };
            let mut lines = note.iter().flat_map(|note| note.signatures());
            lines.any(|line| line.name() == log.name() && line.id() == log.id())
        };
        let ever = self.charters_ever(&division);
        ever.iter().rev().find(signed)
    }

    /// Whether a charter was revoked, or replaced by one with a higher serial.
    pub fn revoked(&self, charter: &Hash) -> bool {
        self.revoked.contains(charter) || self.replaced.contains(charter)
    }

    /// The divisions above one, nearest first.
    pub fn ancestors(&self, division: &DivisionId) -> Vec<DivisionId> {
        let mut above = Vec::new();
        let mut at = division.clone();
        while let Some(charter) = self.charters.get(&at) {
            if charter.parent == at || above.len() >= 8 {
                break;
            }
            above.push(charter.parent.clone());
            at = charter.parent.clone();
        }
        above
    }

    /// Whether `division` is `above` or lies under it.
    pub fn within(&self, division: &DivisionId, above: &DivisionId) -> bool {
        division == above || self.ancestors(division).contains(above)
    }

    /// An operator in good standing.
    pub fn operator(
        &self,
        division: &DivisionId,
        operator: &OperatorId,
    ) -> Option<&OperatorCertificate> {
        let at = (division.clone(), *operator);
        if self.disabled.contains(&at) {
            None
        } else {
            self.operators.get(&at)?.last()
        }
    }

    /// Every certificate that an operator ever had, the newest last, in good standing or not.
    pub fn certificates(
        &self,
        division: &DivisionId,
        operator: &OperatorId,
    ) -> &[OperatorCertificate] {
        let at = (division.clone(), *operator);
        self.operators.get(&at).map_or(&[], Vec::as_slice)
    }

    /// The operators of a division with a role, in good standing.
    pub fn operators_of(&self, division: &DivisionId, role: Role) -> Vec<OperatorId> {
        let of = self
            .operators
            .keys()
            .filter(|(d, operator)| {
                d == division && self.operator(d, operator).is_some_and(|c| c.role == role)
            })
            .map(|(_, operator)| *operator);
        of.collect()
    }

    /// How many operators a division enrolled.
    pub fn operator_count(&self, division: &DivisionId) -> usize {
        self.operators.keys().filter(|(d, _)| d == division).count()
    }

    /// A grant, as its owner stated it last.
    pub fn grant(&self, id: &GrantId) -> Option<&GrantStatement> {
        self.grants.get(id)?.last()
    }

    /// Whom a ledger is handed down to, beside those above its owner: the holder of a grant, the
    /// addressee of letters.
    pub(crate) fn receiver(&self, origin: &Origin) -> Option<DivisionId> {
        if let Some(addressee) = origin.addressee() {
            return Some(addressee);
        }
        let grant = self.grant(&origin.grant_id()?)?;
        (grant.origin == origin.shard()).then(|| grant.holder.clone())
    }

    /// Every grant known, each as its owner stated it last.
    pub fn grants(&self) -> impl Iterator<Item = &GrantStatement> {
        self.grants.values().filter_map(|all| all.last())
    }

    /// Every statement of a grant, the oldest first.
    pub fn grant_statements(&self, id: &GrantId) -> &[GrantStatement] {
        self.grants.get(id).map_or(&[], Vec::as_slice)
    }

    /// A plan.
    pub fn plan(&self, id: &Hash) -> Option<&Plan> {
        self.plans.get(id)
    }

    /// Every plan known, of every division.
    pub fn plans(&self) -> impl Iterator<Item = (&Hash, &Plan)> {
        self.plans.iter()
    }

    /// What officers said of a plan, whether it counts or not.
    pub fn approvals(&self, plan: &Hash) -> &[Approval] {
        self.approvals.get(plan).map_or(&[], Vec::as_slice)
    }

    /// How a plan ended.
    pub fn plan_closed(&self, plan: &Hash) -> Option<Outcome> {
        self.closed.get(plan).copied()
    }

    /// What was said last of a key epoch.
    pub fn epoch(&self, origin: &Origin, epoch: u32) -> Option<EpochStep> {
        let begun = self.epochs.get(&(origin.clone(), epoch))?;
        Some(if begun.retired {
            EpochStep::Retired
        } else {
            EpochStep::Begun
        })
    }

    /// The epoch that whatever is sealed in a shard is sealed under: the newest that began.
    /// The first begins with the shard and is not stated.
    pub fn current_epoch(&self, origin: &Origin) -> u32 {
        let of = (origin.clone(), 0)..=(origin.clone(), u32::MAX);
        self.epochs
            .range(of)
            .next_back()
            .map_or(FIRST_EPOCH, |((_, epoch), _)| *epoch)
    }

    /// The epoch in force for whoever relies on so much of the owner's authority ledger.
    pub(crate) fn epoch_at(&self, origin: &Origin, size: u64) -> u32 {
        let of = (origin.clone(), 0)..=(origin.clone(), u32::MAX);
        let mut begun = self.epochs.range(of).rev();
        begun
            .find(|(_, begun)| begun.since <= size)
            .map_or(FIRST_EPOCH, |((_, epoch), _)| *epoch)
    }

    /// Whether an epoch of a shard began under a plan.
    pub(crate) fn began_under(&self, origin: &Origin, plan: &Hash) -> bool {
        let of = (origin.clone(), FIRST_EPOCH + 1)..=(origin.clone(), u32::MAX);
        self.epochs.range(of).any(|(_, begun)| begun.plan == *plan)
    }

    /// The plan that an epoch began under; none for the first.
    pub fn epoch_plan(&self, origin: &Origin, epoch: u32) -> Option<Hash> {
        let begun = self.epochs.get(&(origin.clone(), epoch))?;
        (epoch > FIRST_EPOCH).then_some(begun.plan)
    }

    /// The epochs of a division's shards that began and were not retired.
    pub fn epochs_in_use(&self, division: &DivisionId) -> Vec<(Origin, u32)> {
        self.epochs
            .iter()
            .filter(|((origin, _), begun)| !begun.retired && origin.division() == *division)
            .map(|(at, _)| at.clone())
            .collect()
    }

    /// How many operators in good standing of a division have certificates that end before a time.
    pub fn certificates_ending(
        &self,
        division: &DivisionId,
        before: record::id::UnixMillis,
    ) -> usize {
        self.operators
            .keys()
            .filter(|(of, operator)| {
                of == division
                    && self
                        .operator(of, operator)
                        .is_some_and(|certificate| certificate.not_after < before)
            })
            .count()
    }

    /// The sharing of a node's root that is in force.
    pub fn sharing(&self, division: &DivisionId) -> Option<&Sharing> {
        self.sharings
            .get(division)
            .filter(|sharing| sharing.header.is_some())
    }

    /// What is said of shares for officers above, unweighed.
    pub(crate) fn shares(&self) -> &shares::Shares {
        &self.shares
    }

    /// How a grant ended, if its owner ended it.
    pub fn grant_ended(&self, grant: &GrantId) -> Option<&GrantEnded> {
        self.ended.get(grant)
    }

    /// The receipt of a division for what an entry ordered to be destroyed.
    pub fn receipt(
        &self,
        division: &DivisionId,
        origin: &Origin,
        index: u64,
    ) -> Option<&DestructionReceipt> {
        self.receipts
            .get(&(division.clone(), origin.clone(), index))
            .or_else(|| self.whole_grant(division, origin))
    }

    /// Whether a holder signed that it dropped a whole grant.
    pub fn dropped(&self, holder: &DivisionId, ledger: &Origin) -> bool {
        self.whole_grant(holder, ledger).is_some()
    }

    /// The receipt for a whole grant, which says it for every row.
    fn whole_grant(&self, holder: &DivisionId, ledger: &Origin) -> Option<&DestructionReceipt> {
        let of = (holder.clone(), ledger.clone(), 0)..=(holder.clone(), ledger.clone(), u64::MAX);
        let mut all = self.receipts.range(of).map(|(_, receipt)| receipt);
        all.find(|receipt| receipt.record.is_none())
    }

    /// Takes a charter as if its issuer had been checked.
    #[cfg(test)]
    pub(crate) fn trust(&mut self, charter: Charter) {
        self.dealings.chartered(&charter.parent);
        self.remember(charter.clone());
        self.charters.insert(charter.division.clone(), charter);
    }
}
