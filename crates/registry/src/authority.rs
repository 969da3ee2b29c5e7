//! Who is who: charters, operators and grants, as the authority ledgers say.
//!
//! Held in memory, made from the ledgers, and `kept` at rest so that a start need not read them
//! all. A charter counts only when its issuer, itself chartered, signed it.

use std::collections::{BTreeMap, BTreeSet};

use ledger::note::{KeyKind, Note, Verifier};
use minicbor::{Decode, Encode};
use record::authority::{Charter, GrantStatement, OperatorCertificate, Role, Statement};
use record::entry::Entry;
use record::id::{DivisionId, GrantId, Hash, OperatorId, Origin};
use store::Store;

use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::table::{self, Head};

pub(crate) mod kept;

/// How many entries are read at a time.
const SCAN: usize = 1024;

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
    #[n(1)]
    revoked: BTreeSet<Hash>,
    /// Ids of charters that a later one of the same division replaced.
    #[n(2)]
    replaced: BTreeSet<Hash>,
    #[n(3)]
    operators: BTreeMap<(DivisionId, OperatorId), OperatorCertificate>,
    #[n(4)]
    disabled: BTreeSet<(DivisionId, OperatorId)>,
    #[n(5)]
    grants: BTreeMap<GrantId, GrantStatement>,
    /// Charters whose issuer is not known yet.
    #[n(6)]
    waiting: Vec<Charter>,
    /// How far each ledger was taken in without a gap.
    #[n(7)]
    stands: BTreeMap<Origin, kept::Stand>,
    /// Entries taken in since all this was kept.
    #[cbor(skip)]
    unkept: u64,
    /// Counts what was learned: what depends on authority is out of date when it moved.
    #[cbor(skip)]
    learned: u64,
}

impl Authority {
    /// Only the charters that the configuration gives.
    fn chartered(config: &NodeConfig) -> Result<Self> {
        let mut authority = Self::default();
        for charter in config.charters()?.into_iter().rev() {
            authority.charters.insert(charter.division.clone(), charter);
        }
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
        Ok(authority)
    }

    /// Reads one authority ledger from an index on.
    fn read(&mut self, store: &dyn Store, origin: &Origin, from: u64) -> Result<()> {
        let mut at = from;
        loop {
            let rows = store.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), SCAN)?;
            for (_, bytes) in &rows {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if let Entry::Authority(entry) = entry {
                    self.learn(&origin.division(), &entry.statement);
                }
            }
            at += rows.len() as u64;
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

    /// Takes in what was appended to an authority ledger: its statements from `first` on, up to
    /// the size and root given.
    pub(crate) fn follow(
        &mut self,
        origin: &Origin,
        first: u64,
        head: (u64, Hash),
        statements: &[Statement],
    ) {
        for statement in statements {
            self.learn(&origin.division(), statement);
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

    /// A number that moves whenever something was learned.
    pub(crate) fn learned(&self) -> u64 {
        self.learned
    }

    /// Takes a statement out of the ledger of `division`.
    fn learn(&mut self, division: &DivisionId, statement: &Statement) {
        self.learned += 1;
        match statement {
            Statement::Charter(charter) => {
                if charter.parent == *division || charter.division == *division {
                    self.waiting.push(charter.clone());
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
                }
            }
            Statement::Operator(certificate) => {
                self.operators.insert(
                    (division.clone(), certificate.operator),
                    certificate.clone(),
                );
            }
            Statement::OperatorDisabled(operator) => {
                self.disabled.insert((division.clone(), *operator));
            }
            Statement::Grant(grant) => {
                if grant.origin.division() == *division {
                    self.grants.insert(grant.id, grant.clone());
                }
            }
            Statement::InForce(_) => {}
        }
    }

    /// Accepts waiting charters whose issuer is known, until none is left that can be.
    fn settle(&mut self) {
        loop {
            let before = self.waiting.len();
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|charter| {
                let Some(issuer) = self.charters.get(&charter.parent) else {
                    return true;
                };
                // A root's own charter is given by configuration; nobody can replace it.
                if charter.parent == charter.division || charter.verify(&issuer.keys.sign).is_err()
                {
                    return false;
                }
                let newest = self
                    .charters
                    .get(&charter.division)
                    .map(|old| (old.serial, old.id()));
                match newest {
                    Some((serial, _)) if charter.serial < serial => {
                        self.replaced.insert(charter.id());
                    }
                    Some((serial, _)) if charter.serial == serial => {}
                    older => {
                        self.replaced.extend(older.map(|(_, id)| id));
                        self.charters
                            .insert(charter.division.clone(), charter.clone());
                    }
                }
                false
            });
            self.waiting = waiting;
            if self.waiting.len() == before {
                return;
            }
        }
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
    fn cosigner(&self, owner: &DivisionId, name: &str) -> Option<Verifier> {
        let (node, _role) = name.rsplit_once('/')?;
        let (_realm, division) = node.rsplit_once('/')?;
        let charter = self.charters.get(&DivisionId::new(division).ok()?)?;
        if self.within(&charter.division, owner) {
            return None;
        }
        let keys = [
            (sync::witness_name(charter), &charter.keys.witness),
            (sync::held_name(charter), &charter.keys.held),
        ];
        let (_, key) = keys.into_iter().find(|(known, _)| known == name)?;
        Verifier::new(name, KeyKind::Cosignature, key).ok()
    }

    /// The verifiers of those who cosigned a note, as witness or for what they hold, and whose
    /// word on the ledgers of `owner` counts: every node's but its own and those of the nodes
    /// below it, which it can charter as it likes.
    pub(crate) fn cosigners(&self, owner: &DivisionId, note: &Note) -> Vec<Verifier> {
        let lines = note.signatures().iter();
        lines
            .filter_map(|line| self.cosigner(owner, line.name()))
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
            self.operators.get(&at)
        }
    }

    /// The operator of a division with this key, in good standing or not.
    pub fn operator_by_key(
        &self,
        division: &DivisionId,
        key: &[u8; 32],
    ) -> Option<&OperatorCertificate> {
        self.operators
            .iter()
            .find(|((d, _), c)| d == division && c.key == *key)
            .map(|(_, c)| c)
    }

    /// The operators of a division with a role, in good standing.
    pub fn operators_of(&self, division: &DivisionId, role: Role) -> Vec<OperatorId> {
        let of = self
            .operators
            .iter()
            .filter(|((d, _), c)| d == division && c.role == role);
        let ids = of.map(|((_, operator), _)| *operator);
        ids.filter(|id| !self.disabled.contains(&(division.clone(), *id)))
            .collect()
    }

    /// How many operators a division enrolled.
    pub fn operator_count(&self, division: &DivisionId) -> usize {
        self.operators.keys().filter(|(d, _)| d == division).count()
    }

    /// A grant.
    pub fn grant(&self, id: &GrantId) -> Option<&GrantStatement> {
        self.grants.get(id)
    }

    /// Every grant known.
    pub fn grants(&self) -> impl Iterator<Item = &GrantStatement> {
        self.grants.values()
    }
}
