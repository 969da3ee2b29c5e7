//! Closing a shard (结账) that nothing is left in, and what a closing is worth.
//!
//! Owns when the old owner closes: a scan of the entries finds no record in force, nothing is left
//! that can move or is on its way in or out, and the last checkpoint is cosigned. From then on only what seals anew or destroys
//! is written there; everything else is refused, and who follows is named. Owns also what everybody
//! else looks at: another's closing that does not hold is an alarm here, and a finding of `verify`
//! and `audit`. Where records count it does not change: their entries say that.

use std::collections::{BTreeMap, BTreeSet};

use ledger::tile::TreeEdge;
use record::authority::Statement;
use record::entry::{Entry, Operation};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use record::moving::{SUCCESSORS_MAX, ShardClosed};
use record::plan::{Outcome, Work};
use serde::Serialize;
use store::Store;

use super::OwnMoving;
use crate::authority::Authority;
use crate::book::Leaf;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock, purpose};
use crate::table::{self, Head, Tiles};
use crate::transfer::{PURPOSE, cut_here};

/// How many entries are read at a time.
const SCAN: usize = 1024;
/// For how long what may still come is waited for before it is missed.
const AWAITED_MILLIS: u64 = 24 * 3600 * 1000;

/// A shard that was closed, and who follows it.
#[derive(Debug, Clone, Serialize)]
pub struct ClosedLine {
    /// The shard.
    pub origin: Origin,
    /// How many entries it had.
    pub size: u64,
    /// The root over them, hexadecimal.
    pub root: String,
    /// The shards that have what it had.
    pub successors: Vec<Origin>,
    /// The plan, hexadecimal.
    pub plan: String,
    /// When.
    pub closed_at: UnixMillis,
}

impl From<&ShardClosed> for ClosedLine {
    fn from(closed: &ShardClosed) -> Self {
        Self {
            origin: closed.origin.clone(),
            size: closed.size,
            root: data_encoding::HEXLOWER.encode(&closed.root),
            successors: closed.successors.clone(),
            plan: data_encoding::HEXLOWER.encode(&closed.plan),
            closed_at: closed.closed_at,
        }
    }
}

/// Whether an operation may follow the closing of its shard.
fn may_follow(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Reseal | Operation::Erase | Operation::Redact
    )
}

fn is_in_force(operation: Operation) -> Option<bool> {
    match operation {
        Operation::Register | Operation::TransferIn | Operation::Reopen => Some(true),
        Operation::Close
        | Operation::TransferOut
        | Operation::Erase
        | Operation::TransferInClosed => Some(false),
        Operation::Amend | Operation::Reseal | Operation::Redact => None,
    }
}

/// What does not hold of a closing.
pub(crate) struct Fault {
    /// In both languages.
    pub words: String,
    /// What would mend it may only not have come yet.
    pub may_come: bool,
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn push(&mut self, words: impl Into<String>) {
        let (words, may_come) = (words.into(), false);
        self.0.push(Fault { words, may_come });
    }
}

/// What does not hold of a shard's closing, as far as its entries are in a store.
fn faults(
    store: &dyn Store,
    authority: &Authority,
    closed: &ShardClosed,
    twice: bool,
) -> Result<Vec<Fault>> {
    let mut faults = Faults::default();
    let origin = &closed.origin;
    if twice {
        faults.push("结账声明有两份且不同，只认第一份 / the closing of this shard was stated twice, with different words; the first counts");
    }
    let plan = authority.plan(&closed.plan);
    let planned = plan.is_some_and(|plan| {
        plan.division == origin.division()
            && matches!(&plan.work, Work::MoveShard { origin: of, closes: true, .. } if of == origin)
            && authority.plan_closed(&closed.plan) == Some(Outcome::Run)
    });
    if !planned {
        faults.push("结账没有相应的方案 / the shard was closed without a plan that closes it");
    } else if !plan.is_some_and(|plan| authority.was_approved(plan)) {
        faults.0.push(Fault {
            words: "结账方案未见另一安全员的批准 / no other officer's approval of the plan that closed the shard is here".to_owned(),
            may_come: true,
        });
    }
    let named =
        |shard: &Origin| shard.is_shard() && shard.ledger() == origin.ledger() && shard != origin;
    if !closed.successors.iter().all(named) {
        faults
            .push("后继账本不合规 / what is named as its successor is no other shard of its kind");
    }
    let signed = { authority.signer_of(origin, &closed.checkpoint) }.is_some_and(|signer| {
        crate::replicate::log_verifier(origin, &signer.keys.sign).is_ok_and(|log| {
            ledger::checkpoint::open(closed.checkpoint.as_bytes(), &log).is_ok_and(|checkpoint| {
                checkpoint.size() == closed.size && *checkpoint.root() == closed.root
            })
        })
    });
    let cosigned = || {
        let division = origin.division();
        let root = authority
            .charter(&division)
            .is_some_and(|c| c.parent == c.division);
        let note = ledger::note::Note::parse(closed.checkpoint.as_bytes());
        root || note.is_ok_and(|note| {
            let witnesses = authority.witnesses(&division, &note);
            note.verify(&witnesses)
                .is_ok_and(|signed| !signed.is_empty())
        })
    };
    if !signed || !cosigned() {
        faults.push("所附检查点不符或未联署 / the checkpoint in its closing is not of this shard, size and root, or nobody cosigned it");
    }
    let size = Head::read(store, origin)?.size;
    if size < closed.size {
        // The rest is still to come.
        return Ok(faults.0);
    }
    let tiles = Tiles { store, origin };
    let same =
        TreeEdge::load(&tiles, closed.size).is_ok_and(|edge| edge.frontier().root() == closed.root);
    if !same {
        faults.push("账本在该长度的根与结账所述不同 / the shard's root at that size is another than the one of its closing");
    }
    let mut in_force: BTreeSet<RecordId> = BTreeSet::new();
    let (mut at, mut after) = (0u64, None);
    while at < size {
        let rows = store.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), SCAN)?;
        if rows.is_empty() {
            break;
        }
        for (_, bytes) in &rows {
            if let Entry::Record(entry) = crate::chain::decode(origin, at, bytes)? {
                if at >= closed.size {
                    after = after.or((!may_follow(entry.operation)).then_some(at));
                } else {
                    match is_in_force(entry.operation) {
                        Some(true) => in_force.insert(entry.record),
                        Some(false) => in_force.remove(&entry.record),
                        None => false,
                    };
                }
            }
            at += 1;
        }
    }
    if !in_force.is_empty() {
        faults.push(format!(
            "结账时仍有 {0} 条记录有效 / {0} records were in force when the shard was closed",
            in_force.len()
        ));
    }
    if let Some(at) = after {
        faults.push(format!(
            "第 {at} 条写于结账之后 / entry {at} was written after the shard was closed"
        ));
    }
    Ok(faults.0)
}

/// Everything that does not hold of closings, for whoever verifies a directory.
pub(crate) fn all_faults(
    store: &dyn Store,
    authority: &Authority,
) -> Result<Vec<(Origin, String)>> {
    let mut found = Vec::new();
    for (closed, twice) in authority.closings() {
        for fault in faults(store, authority, closed, twice)? {
            found.push((closed.origin.clone(), fault.words));
        }
    }
    Ok(found)
}

impl Registry {
    /// The shards that were closed, as far as is known here.
    pub fn closed_shards(&self) -> Vec<ClosedLine> {
        let authority = self.authority();
        authority
            .closings()
            .map(|(closed, _)| closed.into())
            .collect()
    }

    /// Refuses to write to an own shard that was closed, and names who follows it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`].
    pub(crate) fn refuse_closed(&self, origin: &Origin) -> Result<()> {
        let authority = self.authority();
        let Some(closed) = authority.closing(origin) else {
            return Ok(());
        };
        let successors: Vec<&str> = closed.successors.iter().map(Origin::as_str).collect();
        let successors = successors.join(", ");
        Err(RegistryError::BadRequest(format!(
            "账本 `{origin}` 已结账，后继为 `{successors}`，请到后继单位办理 / the shard `{origin}` is closed, and `{successors}` follows it; write there"
        )))
    }

    /// The same for entries that are about to be appended: the one gate that none goes around.
    pub(crate) fn refuse_after_closing(&self, origin: &Origin, leaves: &[Leaf]) -> Result<()> {
        let writes = leaves.iter().any(
            |leaf| matches!(&leaf.entry, Entry::Record(entry) if !may_follow(entry.operation)),
        );
        match origin.is_shard() && writes {
            true => self.refuse_closed(origin),
            false => Ok(()),
        }
    }

    /// Closes every own shard whose plan says so and in which nothing is left.
    pub(super) fn close_empty(&self, now: UnixMillis) -> Result<()> {
        for moving in self.own_movings().iter().filter(|moving| moving.closes) {
            if self.nothing_under_way(&moving.origin) {
                self.close_shard(moving, now)?;
            }
        }
        Ok(())
    }

    /// Whether no record is offered out of or into an own shard.
    fn nothing_under_way(&self, shard: &Origin) -> bool {
        let authority = self.authority();
        let mut open = authority.offers().filter(|offer| {
            let leaves = offer.origin == *shard;
            let comes = offer.to == shard.division() && offer.origin.ledger() == shard.ledger();
            leaves && authority.offer_ended(offer).is_none()
                || comes && authority.answer(offer).is_none()
        });
        open.next().is_none()
    }

    fn close_shard(&self, moving: &OwnMoving, now: UnixMillis) -> Result<()> {
        let origin = &moving.origin;
        let book = self.book(origin)?;
        // Held to the end: nothing is written between the look and the word.
        let book = lock(&book);
        let Some(note) = book.head.cosigned.clone() else {
            return Ok(());
        };
        let checkpoint = checkpoint_of(&note)?;
        let whole = checkpoint.size() == book.size() && *checkpoint.root() == book.root();
        if !whole || self.tally(origin)?.in_force > 0 {
            return Ok(());
        }
        let left = match self.is_left(moving) {
            // Records that cannot be opened: offering the next ones says so.
            Err(RegistryError::Damaged { .. }) => true,
            left => left?,
        };
        if left {
            return Ok(());
        }
        let closed = ShardClosed {
            origin: origin.clone(),
            plan: moving.plan,
            size: book.size(),
            root: book.root(),
            checkpoint: note,
            successors: self.successors(moving),
            closed_at: now,
        };
        cut_here(29)?;
        let signer = self.service(purpose(PURPOSE));
        self.state(vec![Statement::ShardClosed(Box::new(closed))], &signer, now)?;
        cut_here(30)
    }

    /// The shard that the plan names, and those to which records of it moved before.
    fn successors(&self, moving: &OwnMoving) -> Vec<Origin> {
        let of = |to: &record::id::DivisionId| {
            Origin::new(&moving.origin.realm(), to, &moving.origin.ledger())
        };
        let authority = self.authority();
        let batches = { authority.batches() }
            .filter(|batch| batch.origin == moving.origin)
            .filter(|batch| authority.batch_proof(&batch.id).is_some());
        let mut all: BTreeSet<Origin> = batches.map(|batch| of(&batch.to)).collect();
        let named = of(&moving.to);
        all.remove(&named);
        let mut successors: Vec<Origin> = all.into_iter().take(SUCCESSORS_MAX - 1).collect();
        successors.push(named);
        successors.sort();
        successors
    }

    /// Looks once at each closing of a shard that is held here; what does not hold is an alarm.
    pub(super) fn check_closings(&self, now: UnixMillis) -> Result<()> {
        let closings: Vec<(ShardClosed, bool)> = {
            let authority = self.authority();
            let all = authority.closings();
            all.map(|(closed, twice)| (closed.clone(), twice)).collect()
        };
        for (closed, twice) in closings {
            let origin = &closed.origin;
            let size = Head::read(self.store.as_ref(), origin)?.size;
            let seen = (size, twice);
            if lock(&self.transfers.checked).get(origin) == Some(&seen) {
                continue;
            }
            let found = faults(self.store.as_ref(), &self.authority(), &closed, twice)?;
            let late = closed.closed_at.0 + AWAITED_MILLIS < now.0;
            let (waits, found): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|fault| fault.may_come && !late);
            if !found.is_empty() {
                let words: Vec<String> = found.into_iter().map(|fault| fault.words).collect();
                self.alarm(origin, "shard-closed", &words.join("；"), vec![], now);
            }
            if waits.is_empty() {
                lock(&self.transfers.checked).insert(origin.clone(), seen);
            }
        }
        Ok(())
    }
}

/// What was looked at of closings: the size of the shard then, and whether there were two.
pub(crate) type Checked = BTreeMap<Origin, (u64, bool)>;

/// Hash of a closing's plan, for pages.
pub(crate) fn plan_hex(plan: &Hash) -> String {
    data_encoding::HEXLOWER.encode(plan)
}
