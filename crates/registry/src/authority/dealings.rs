//! Who deals with whom (往来): which authority ledgers a node needs beside those of nodes that have
//! others under them.
//!
//! Made from what the authority ledgers state and from the names of ledgers of letters, kept nowhere:
//! grants, offers of records and of batches and answers to them, plans that move a shard, letters.
//! A dealing needs no consent and never ends: a receipt may come long after the grant that it is for.
//! Owns the count of what decides which ledger goes to whom. Refuses to say what is dealt with.

use std::collections::{BTreeMap, BTreeSet};

use record::authority::Statement;
use record::id::{DivisionId, Origin};
use record::moving::Moving;
use record::plan::{Plan, Work};
use store::Store;

use super::Authority;
use crate::error::Result;
use crate::node::Registry;

/// Who has others under it, and who deals with whom.
#[derive(Debug, Default)]
pub(super) struct Dealings {
    /// Divisions that chartered somebody: whoever knows somebody of theirs needs their ledger.
    issuers: BTreeSet<DivisionId>,
    /// Both ways round.
    with: BTreeMap<DivisionId, BTreeSet<DivisionId>>,
    /// Counts what was learned that bears on which ledger goes to whom, and on quorums.
    bearing: u64,
}

impl Dealings {
    /// Something was learned that bears on who is given what.
    pub(super) fn bears(&mut self) {
        self.bearing += 1;
    }

    pub(super) fn chartered(&mut self, parent: &DivisionId) {
        self.bears();
        if !self.issuers.contains(parent) {
            self.issuers.insert(parent.clone());
        }
    }

    fn between(&mut self, one: &DivisionId, other: &DivisionId) {
        let known = |dealings: &Self| dealings.with.get(one).is_some_and(|of| of.contains(other));
        if one == other || known(self) {
            return;
        }
        self.bears();
        for (of, with) in [(one, other), (other, one)] {
            self.with
                .entry(of.clone())
                .or_default()
                .insert(with.clone());
        }
    }
}

/// Between whom a plan is to move records.
fn of_plan(plan: &Plan) -> Option<(DivisionId, DivisionId)> {
    let own = plan.division.clone();
    match &plan.work {
        Work::MoveShard { to, .. } => Some((own, to.clone())),
        Work::ReceiveShard { origin, .. } => Some((own, origin.division())),
        _ => None,
    }
}

impl Authority {
    /// A number that moves when something was learned that decides which ledger goes to whom, or
    /// whether a head has its quorum: charters, revocations, grants, and who deals with whom.
    pub(crate) fn bearing(&self) -> u64 {
        self.dealings.bearing
    }

    /// Whether a node needs the authority ledger of a division that is not within it: of one that
    /// chartered somebody, and of one that deals with it or with somebody under it.
    pub(crate) fn is_needed(&self, of: &DivisionId, at: &DivisionId) -> bool {
        self.has_issued(of) || self.dealing_with(of).any(|other| self.within(other, at))
    }

    /// Whether a division chartered somebody.
    pub(crate) fn has_issued(&self, division: &DivisionId) -> bool {
        self.dealings.issuers.contains(division)
    }

    /// Those with whom a division deals.
    pub(crate) fn dealing_with(&self, division: &DivisionId) -> impl Iterator<Item = &DivisionId> {
        self.dealings.with.get(division).into_iter().flatten()
    }

    /// Notes who deals with whom by a statement that was taken in from the ledger of `division`.
    pub(super) fn deal(&mut self, division: &DivisionId, statement: &Statement) {
        let pair = match statement {
            Statement::Grant(grant) => {
                // Whose ledgers go down to the holder from here on.
                self.dealings.bears();
                let grant = self.grant(&grant.id);
                grant.map(|grant| (grant.origin.division(), grant.holder.clone()))
            }
            Statement::TransferOffer(offer) => { offer.origin.division() == *division }
                .then(|| (division.clone(), offer.to.clone())),
            Statement::TransferAnswer(answer) => Some((division.clone(), answer.origin.division())),
            Statement::Moving(moving) => match moving.as_ref() {
                Moving::Offered(offer) => { offer.origin.division() == *division }
                    .then(|| (division.clone(), offer.to.clone())),
                Moving::Answered(answer) => Some((division.clone(), answer.origin.division())),
            },
            Statement::Plan(plan) if plan.division == *division => of_plan(plan),
            _ => None,
        };
        if let Some((one, other)) = pair {
            self.dealings.between(&one, &other);
        }
    }

    /// Notes that there is a ledger of letters.
    pub(crate) fn deal_by_letters(&mut self, ledger: &Origin) {
        if let Some(addressee) = ledger.addressee() {
            self.dealings.between(&ledger.division(), &addressee);
        }
    }

    /// Notes every ledger of letters that is held.
    pub(super) fn recall_letters(&mut self, store: &dyn Store) -> Result<()> {
        for shard in store.shards()? {
            if let Ok(origin) = Origin::parse(&shard) {
                self.deal_by_letters(&origin);
            }
        }
        Ok(())
    }

    /// The same from all that is known: it is not kept at rest.
    pub(super) fn recall_dealings(&mut self) {
        let mut dealings = Dealings {
            bearing: self.dealings.bearing + 1,
            ..Dealings::default()
        };
        for charter in self.charters() {
            dealings.chartered(&charter.parent);
        }
        let grants = self.grants();
        let grants = grants.map(|grant| (grant.origin.division(), grant.holder.clone()));
        let plans = self.plans().filter_map(|(_, plan)| of_plan(plan));
        for (one, other) in grants.chain(plans).chain(self.transfers.dealings()) {
            dealings.between(&one, &other);
        }
        self.dealings = dealings;
    }
}

impl Registry {
    /// Notes a ledger of letters that is about to be held.
    pub(crate) fn note_letters(&self, ledger: &Origin) {
        if ledger.addressee().is_some() {
            self.authority_mut().deal_by_letters(ledger);
        }
    }
}

#[cfg(test)]
mod tests;
