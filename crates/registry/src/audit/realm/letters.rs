//! Whether answers and changes agree: an answer is to a proposal that is there, the first one counts,
//! and one that says that a change was made names an entry which was written at that proposal.
//!
//! Owns the comparison of proposals, answers and shards from entries alone. Refuses to judge what is
//! not here: a proposer has no shard of the owner.

use std::collections::{BTreeMap, BTreeSet};

use record::entry::Entry;
use record::id::{DivisionId, Hash, Origin};
use record::letter::Step;

use super::{Auditor, Severity};
use crate::error::Result;

/// What an owner says it wrote: leaf hash of the entry, and of the proposal; where it says so.
type Claimed = BTreeMap<(Hash, Hash), (Origin, u64)>;

impl Auditor<'_> {
    /// Looks at every ledger of answers.
    pub(super) fn letters(&mut self) -> Result<()> {
        let origins = self.view.origins()?;
        let mut claimed: BTreeMap<DivisionId, Claimed> = BTreeMap::new();
        for origin in &origins {
            let Some(theirs) = origin.counterpart().filter(|_| !origin.is_proposals()) else {
                continue;
            };
            let made = self.answers(origin, &theirs, origins.contains(&theirs))?;
            claimed.entry(origin.division()).or_default().extend(made);
        }
        claimed.retain(|_, claimed| !claimed.is_empty());
        for (owner, mut claimed) in claimed {
            let mut held = false;
            for shard in origins
                .iter()
                .filter(|o| o.is_shard() && o.division() == owner)
            {
                held = true;
                self.written(shard, &mut claimed)?;
            }
            for (answers, at) in claimed.into_values().filter(|_| held) {
                self.find(
                    Severity::Fault,
                    "answer-without-change",
                    answers,
                    format!("第 {at} 条答复称已变更，账本中没有凭该建议作出的变更"),
                    format!("the answer at {at} names a change, and no entry here was written at its proposal"),
                );
            }
        }
        Ok(())
    }

    /// The changes that a ledger of answers names.
    fn answers(&mut self, answers: &Origin, theirs: &Origin, known: bool) -> Result<Claimed> {
        let mut proposed = BTreeSet::new();
        if known {
            self.view.walk(theirs, |_, bytes, entry| {
                if matches!(&entry, Entry::Letter(letter) if letter.step == Step::Propose) {
                    proposed.insert(ledger::hash::leaf_hash(bytes));
                }
                Ok(())
            })?;
        }
        let mut claimed = Claimed::new();
        let mut answered = BTreeSet::new();
        let (mut strange, mut twice) = (Vec::new(), Vec::new());
        self.view.walk(answers, |at, _, entry| {
            if let Entry::Letter(letter) = entry
                && let Some(proposal) = letter.answers.filter(|_| letter.step.is_answer())
            {
                if known && !proposed.contains(&proposal) {
                    strange.push(at);
                }
                if !answered.insert(proposal) {
                    twice.push(at);
                }
                if let Some(leaf) = letter.entry {
                    claimed.insert((leaf, proposal), (answers.clone(), at));
                }
            }
            Ok(())
        })?;
        for at in strange {
            self.find(
                // A replica of the proposals may be behind.
                Severity::Note,
                "answer-without-proposal",
                answers,
                format!("第 {at} 条答复的建议不在此处"),
                format!("the proposal that the answer at {at} names is not here"),
            );
        }
        for at in twice {
            self.find(
                Severity::Fault,
                "answered-twice",
                answers,
                format!("第 {at} 条答复了已答复过的建议"),
                format!("the answer at {at} is to a proposal that was answered before"),
            );
        }
        Ok(claimed)
    }

    /// Takes out of what is claimed what a shard shows.
    fn written(&self, shard: &Origin, claimed: &mut Claimed) -> Result<()> {
        let mut leaves = Vec::new();
        self.view.walk(shard, |_, bytes, entry| {
            match entry {
                Entry::Act(act) => {
                    for leaf in leaves.drain(..) {
                        if let Some(source) = act.source {
                            claimed.remove(&(leaf, source));
                        }
                    }
                }
                _ => leaves.push(ledger::hash::leaf_hash(bytes)),
            }
            Ok(())
        })
    }
}
