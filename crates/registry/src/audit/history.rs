//! Histories: who changed a record when, by which act, under which authority; and an operator's acts.
//!
//! Owns the walk from entry to act to certificate, from entries alone: no cell is opened.
//! Refuses to vouch for what it lists: `signature` and `authority` say per act what holds, the
//! rest is for [`crate::verify`].

use std::collections::{BTreeMap, BTreeSet};

use ledger::tile::TreeEdge;
use record::act::{Act, Capacity};
use record::authority::{OperatorCertificate, Statement};
use record::entry::{Entry, GrantOperation, Operation};
use record::id::{DivisionId, Hash, Kind, OperatorId, Origin, Purpose, RecordId, UnixMillis};
use record::letter::Step;
use record::transfer::TransferWord;
use serde::Serialize;

use super::hex;
use super::view::View;
use crate::error::{RegistryError, Result};
use crate::node::word;

/// One entry about a record, and the act that signed it.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryLine {
    /// The ledger: a shard, or a grant's.
    pub ledger: Origin,
    /// Index of the entry.
    pub index: u64,
    /// The record's version; absent in a grant's ledger.
    pub version: Option<u64>,
    /// What happened.
    pub operation: &'static str,
    /// When the owner's node recorded it.
    pub recorded_at: UnixMillis,
    /// Who signed it; absent when the entry is signed by no act here.
    pub act: Option<ActLine>,
}

/// One act, and the authority that it relied on.
#[derive(Debug, Clone, Serialize)]
pub struct ActLine {
    /// The ledger.
    pub ledger: Origin,
    /// Index of the act's own entry.
    pub index: u64,
    /// Index of the first entry that it signs.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// `operator` or `service`.
    pub capacity: &'static str,
    /// Who, when the key is known.
    pub signer: Option<SignerOf>,
    /// The key, hexadecimal.
    pub key: String,
    /// The signer's organization, as the act says.
    pub organization: DivisionId,
    /// What for.
    pub purpose: Purpose,
    /// Where the entries came from, hexadecimal: the keyed hash of a file, or a proposal's leaf hash.
    pub source: Option<String>,
    /// The proposal that it was, when its ledger is here.
    pub proposal: Option<ProposalSource>,
    /// When it was signed, by the signer's clock.
    pub signed_at: UnixMillis,
    /// Size of the authority ledger that it relied on.
    pub authority_size: u64,
    /// `holds`, `differs`, or `unknown` when that ledger is not here as far as that.
    pub authority: &'static str,
    /// Whether the signature holds in this ledger.
    pub signature: bool,
}

/// The proposal at which entries were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProposalSource {
    /// The proposer's ledger.
    pub ledger: Origin,
    /// Index of the proposal in it.
    pub index: u64,
    /// Who proposed it.
    pub proposer: DivisionId,
    /// When it was recorded there.
    pub recorded_at: UnixMillis,
}

/// Every proposal in the ledgers here, by leaf hash.
fn proposals(view: &View) -> Result<BTreeMap<Hash, ProposalSource>> {
    let mut found = BTreeMap::new();
    for origin in view.origins()? {
        if !origin.is_proposals() {
            continue;
        }
        view.walk(&origin, |at, bytes, entry| {
            if let Entry::Letter(letter) = entry
                && letter.step == Step::Propose
            {
                let source = ProposalSource {
                    ledger: origin.clone(),
                    index: at,
                    proposer: origin.division(),
                    recorded_at: letter.recorded_at,
                };
                found.insert(ledger::hash::leaf_hash(bytes), source);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Whose key signed, as the authority ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignerOf {
    /// The operator; absent for a node's service key.
    pub operator: Option<OperatorId>,
    /// The role; `service` for a node.
    pub role: &'static str,
    /// Index of the certificate in the division's authority ledger; absent for a node.
    pub certificate: Option<u64>,
    /// Until when the certificate holds.
    pub not_after: UnixMillis,
    /// At which size of the authority ledger the operator was disabled, if ever.
    pub disabled: Option<u64>,
}

/// The operators of a division, in the order of its authority ledger.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    enrolled: Vec<(u64, OperatorCertificate)>,
    disabled: BTreeMap<OperatorId, u64>,
}

impl Roster {
    /// The certificate of a key, and the index of its entry.
    pub(crate) fn by_key(&self, key: &[u8; 32]) -> Option<&(u64, OperatorCertificate)> {
        self.enrolled.iter().find(|(_, c)| c.key == *key)
    }

    /// At which size of the ledger an operator was disabled.
    pub(crate) fn disabled(&self, operator: &OperatorId) -> Option<u64> {
        self.disabled.get(operator).copied()
    }

    /// Every certificate with the index of its entry.
    pub(crate) fn enrolled(&self) -> &[(u64, OperatorCertificate)] {
        &self.enrolled
    }
}

/// The operators of every division whose authority ledger is here.
pub(crate) fn rosters(view: &View) -> Result<BTreeMap<DivisionId, Roster>> {
    let mut rosters: BTreeMap<DivisionId, Roster> = BTreeMap::new();
    for origin in view.origins()? {
        if origin.grant_id().is_some() || origin.ledger().as_str() != "authority" {
            continue;
        }
        let roster = rosters.entry(origin.division()).or_default();
        view.walk(&origin, |at, _, entry| {
            if let Entry::Authority(entry) = entry {
                match entry.statement {
                    Statement::Operator(certificate) => roster.enrolled.push((at, certificate)),
                    Statement::OperatorDisabled(operator) => {
                        roster.disabled.entry(operator).or_insert(at + 1);
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
    }
    Ok(rosters)
}

struct Acts<'a> {
    view: &'a View,
    rosters: BTreeMap<DivisionId, Roster>,
    proposals: BTreeMap<Hash, ProposalSource>,
    /// Roots of authority ledgers by division and size; `None` when not here.
    roots: BTreeMap<(DivisionId, u64), Option<Hash>>,
}

impl<'a> Acts<'a> {
    fn new(view: &'a View) -> Result<Self> {
        Ok(Self {
            view,
            rosters: rosters(view)?,
            proposals: proposals(view)?,
            roots: BTreeMap::new(),
        })
    }

    fn line(&mut self, ledger: &Origin, index: u64, act: &Act) -> Result<ActLine> {
        let division = ledger.division();
        let roster = self.rosters.get(&division);
        let signer = match act.capacity {
            Capacity::Operator => roster.and_then(|r| {
                let (at, certificate) = r.by_key(&act.key)?;
                Some(SignerOf {
                    operator: Some(certificate.operator),
                    role: certificate.role.as_str(),
                    certificate: Some(*at),
                    not_after: certificate.not_after,
                    disabled: r.disabled(&certificate.operator),
                })
            }),
            Capacity::Service => self
                .view
                .authority()
                .charters_ever(&division)
                .iter()
                .rev()
                .find(|charter| charter.keys.sign == act.key)
                .map(|charter| SignerOf {
                    operator: None,
                    role: "service",
                    certificate: None,
                    not_after: charter.not_after,
                    disabled: None,
                }),
        };
        let relied = self.root(ledger, act.authority_size)?;
        Ok(ActLine {
            ledger: ledger.clone(),
            index,
            first: act.first,
            count: act.count,
            capacity: match act.capacity {
                Capacity::Operator => "operator",
                Capacity::Service => "service",
            },
            signer,
            key: hex(&act.key),
            organization: act.organization.clone(),
            purpose: act.purpose.clone(),
            source: act.source.as_ref().map(|hash| hex(hash)),
            proposal: act
                .source
                .and_then(|hash| self.proposals.get(&hash).cloned()),
            signed_at: act.signed_at,
            authority_size: act.authority_size,
            authority: match relied {
                Some(root) if root == act.authority_root => "holds",
                Some(_) => "differs",
                None => "unknown",
            },
            signature: act.verify(ledger).is_ok(),
        })
    }

    /// Root of the division's authority ledger at a size, out of its tiles.
    fn root(&mut self, ledger: &Origin, size: u64) -> Result<Option<Hash>> {
        let key = (ledger.division(), size);
        if let Some(root) = self.roots.get(&key) {
            return Ok(*root);
        }
        let authority = Origin::new(&ledger.realm(), &key.0, &word("authority"));
        let root = if self.view.head(&authority)?.size < size {
            None
        } else {
            TreeEdge::load(&self.view.tiles(&authority), size)
                .ok()
                .map(|edge| edge.frontier().root())
        };
        self.roots.insert(key, root);
        Ok(root)
    }
}

/// Every entry about a record in the shards and grants held here, each ledger in its order.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is none; otherwise when the segments cannot be read.
pub fn history(view: &View, record: &RecordId, kind: Option<&Kind>) -> Result<Vec<HistoryLine>> {
    let mut acts = Acts::new(view)?;
    let mut lines = Vec::new();
    // Where it moved, and from where, under whatever name it has there.
    let names = moved_names(view, record);
    for origin in view.origins()? {
        let of_records = origin.is_shard() || origin.grant_id().is_some();
        if !of_records || kind.is_some_and(|kind| *kind != origin.ledger()) {
            continue;
        }
        // Lines whose act has not come yet.
        let mut open: Vec<HistoryLine> = Vec::new();
        view.walk(&origin, |at, _, entry| {
            let line = |version, operation, recorded_at| HistoryLine {
                ledger: origin.clone(),
                index: at,
                version,
                operation,
                recorded_at,
                act: None,
            };
            match entry {
                Entry::Record(entry) if is_meant(&names, &origin, &entry.record) => {
                    let operation = operation_word(entry.operation);
                    open.push(line(Some(entry.version), operation, entry.recorded_at));
                }
                Entry::Grant(entry)
                    if entry
                        .record
                        .is_some_and(|it| is_meant(&names, &origin.shard(), &it)) =>
                {
                    open.push(line(None, grant_word(entry.operation), entry.recorded_at));
                }
                Entry::Act(act) if !open.is_empty() => {
                    let covered = act.first..act.first + u64::from(act.count);
                    let by = acts.line(&origin, at, &act)?;
                    for mut line in open.drain(..) {
                        line.act = covered.contains(&line.index).then(|| by.clone());
                        lines.push(line);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        lines.append(&mut open);
    }
    if lines.is_empty() {
        return Err(RegistryError::NotFound {
            what: "记录 / record",
            name: record.to_string(),
            next: "no ledger held here has an entry of it; ask the node of its owner or of an ancestor",
        });
    }
    Ok(lines)
}

/// A record, and every name that it has or had in other shards by what their owners state of its
/// moving: `None` for the name asked for, wherever it is.
type Names = BTreeSet<(Option<Origin>, RecordId)>;

fn is_meant(names: &Names, origin: &Origin, record: &RecordId) -> bool {
    names.contains(&(None, *record)) || names.contains(&(Some(origin.clone()), *record))
}

fn moved_names(view: &View, record: &RecordId) -> Names {
    let authority = view.authority();
    let moves: Vec<((Origin, RecordId), (Origin, RecordId))> = { authority.offers() }
        .filter_map(|offer| {
            let answer = authority.answer(offer)?;
            let TransferWord::Accepted(acceptance) = &answer.word else {
                return None;
            };
            // What is claimed counts as far as the shard named has that very entry.
            let held = view.entry(&acceptance.origin, acceptance.index).ok()?;
            let entry = match Entry::decode(&held).ok()? {
                Entry::Record(entry) if held.as_slice() == acceptance.entry.as_slice() => entry,
                _ => return None,
            };
            let there = (acceptance.origin.clone(), entry.record);
            let same = entry.content == offer.content && entry.version == offer.version;
            same.then(|| ((offer.origin.clone(), offer.record), there))
        })
        .collect();
    let mut names: Names = BTreeSet::from([(None, *record)]);
    loop {
        let before = names.len();
        for (from, to) in &moves {
            let meant = |at: &(Origin, RecordId)| is_meant(&names, &at.0, &at.1);
            if meant(from) || meant(to) {
                names.insert((Some(from.0.clone()), from.1));
                names.insert((Some(to.0.clone()), to.1));
            }
        }
        if names.len() == before {
            return names;
        }
    }
}

/// Every act of an operator, over all ledgers held here.
///
/// # Errors
/// [`RegistryError::NotFound`] when no authority ledger here enrols the operator.
pub fn acts(view: &View, operator: &OperatorId) -> Result<Vec<ActLine>> {
    let mut acts = Acts::new(view)?;
    let keys: Vec<(DivisionId, [u8; 32])> = acts
        .rosters
        .iter()
        .flat_map(|(division, roster)| {
            roster
                .enrolled()
                .iter()
                .filter(|(_, c)| c.operator == *operator)
                .map(|(_, c)| (division.clone(), c.key))
        })
        .collect();
    if keys.is_empty() {
        return Err(RegistryError::NotFound {
            what: "操作员 / operator",
            name: operator.to_string(),
            next: "no authority ledger held here enrols it; see `fangzhi operator list` at its node",
        });
    }
    let mut lines = Vec::new();
    for origin in view.origins()? {
        let division = origin.division();
        if !keys.iter().any(|(d, _)| *d == division) {
            continue;
        }
        view.walk(&origin, |at, _, entry| {
            if let Entry::Act(act) = entry
                && act.capacity == Capacity::Operator
                && keys.contains(&(division.clone(), act.key))
            {
                lines.push(acts.line(&origin, at, &act)?);
            }
            Ok(())
        })?;
    }
    Ok(lines)
}

fn operation_word(operation: Operation) -> &'static str {
    match operation {
        Operation::Register => "register",
        Operation::Amend => "amend",
        Operation::Close => "close",
        Operation::Reopen => "reopen",
        Operation::TransferOut => "transfer-out",
        Operation::TransferIn => "transfer-in",
        Operation::Erase => "erase",
        Operation::Reseal => "reseal",
        Operation::Redact => "redact",
        Operation::TransferInClosed => "transfer-in-closed",
    }
}

fn grant_word(operation: GrantOperation) -> &'static str {
    match operation {
        GrantOperation::Enter => "grant-enter",
        GrantOperation::Update => "grant-update",
        GrantOperation::Reseal => "grant-reseal",
        GrantOperation::Retract => "grant-retract",
        GrantOperation::Heartbeat => "grant-heartbeat",
        GrantOperation::Keys => "grant-keys",
    }
}
