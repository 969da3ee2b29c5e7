//! What authority ledgers say of shares for officers above (上级持份): keys, dealt shares, words.
//!
//! Owns what is kept of it and how much. A step speaks for itself, by its signature; here it is only
//! remembered, from the two ledgers in which it may lie: that of the officer's organization, and
//! that of the node whose root it is about. Whoever uses one weighs it first.
//! Refuses steps in any other ledger, and forgets what a sharing in force has settled.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use record::custody::{DealtShare, ShareKey, ShareStep, ShareWord};
use record::id::{DivisionId, Hash, OperatorId};
use sha2::{Digest, Sha256};

/// The most words and the most dealt shares that are remembered between one node and one
/// organization above it: nobody else's are pushed out by theirs.
const STEPS_MAX: usize = 256;

/// An officer of an organization, and whose root.
type Holder = (DivisionId, OperatorId, DivisionId);
/// Whose root, and the organization of the holders.
type Between = (DivisionId, DivisionId);

/// A dealt share, and how much its ledger had with it.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Dealt {
    #[n(0)]
    share: DealtShare,
    #[n(1)]
    at: u64,
}

/// What is known of shares for officers above.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Shares {
    /// The newest key of each holder, as the organization's own ledger has it (`true`) and as it
    /// was brought to the node by hand (`false`): neither pushes the other out.
    #[n(0)]
    keys: BTreeMap<(Holder, bool), ShareKey>,
    /// In the order in which they were learned.
    #[n(1)]
    dealt: BTreeMap<Between, Vec<Dealt>>,
    #[n(2)]
    words: BTreeMap<Between, Vec<ShareWord>>,
}

impl Shares {
    /// Takes in a step out of the ledger of `ledger`, which has `size` entries with it.
    pub(super) fn learn(&mut self, ledger: &DivisionId, step: &ShareStep, size: u64) {
        if ledger != step.division() && ledger != step.organization() {
            return;
        }
        match step {
            ShareStep::Ready(key) => {
                let holder = (key.organization.clone(), key.operator, key.division.clone());
                let own = *ledger == key.organization;
                self.keys.insert((holder, own), key.clone());
            }
            ShareStep::Dealt(share) => {
                let between = (share.division.clone(), share.organization.clone());
                let of = self.dealt.entry(between).or_default();
                if of.iter().all(|known| known.share != *share) {
                    // Of the node's own ledger the order is known; a file comes after what it is of.
                    let at = if *ledger == share.division {
                        size
                    } else {
                        u64::MAX
                    };
                    of.push(Dealt {
                        share: share.clone(),
                        at,
                    });
                    bound(of);
                }
            }
            ShareStep::Confirmed(word) => {
                let between = (word.division.clone(), word.organization.clone());
                let of = self.words.entry(between).or_default();
                if !of.contains(word) {
                    of.push(word.clone());
                    bound(of);
                }
            }
        }
    }

    /// The ceremony of this header took effect: what led to it is of no more use.
    pub(super) fn settle(&mut self, division: &DivisionId, header: &[u8]) {
        for of in values_mut(&mut self.dealt, division) {
            of.retain(|dealt| dealt.share.header.as_slice() != header);
        }
        let hash: Hash = Sha256::digest(header).into();
        for of in values_mut(&mut self.words, division) {
            of.retain(|word| word.header != hash);
        }
    }

    /// The keys that a holder is said to have made, unweighed.
    pub(crate) fn keys(
        &self,
        organization: &DivisionId,
        operator: &OperatorId,
        division: &DivisionId,
    ) -> impl Iterator<Item = &ShareKey> {
        let holder = (organization.clone(), *operator, division.clone());
        [true, false]
            .into_iter()
            .filter_map(move |own| self.keys.get(&(holder.clone(), own)))
    }

    /// Every key said to have been made by an officer of an organization.
    pub(crate) fn keys_of<'a>(
        &'a self,
        organization: &'a DivisionId,
    ) -> impl Iterator<Item = &'a ShareKey> {
        let all = self.keys.values();
        all.filter(move |key| key.organization == *organization)
    }

    /// The shares dealt to officers of an organization, unweighed, those dealt last at the end.
    pub(crate) fn dealt_to(&self, organization: &DivisionId) -> Vec<&DealtShare> {
        let mut all: Vec<&Dealt> = self.dealt.values().flatten().collect();
        all.retain(|dealt| dealt.share.organization == *organization);
        all.sort_by_key(|dealt| dealt.at);
        all.into_iter().map(|dealt| &dealt.share).collect()
    }

    /// The shares that a node dealt under a plan, unweighed.
    pub(crate) fn dealt_under<'a>(
        &'a self,
        division: &'a DivisionId,
        plan: &'a Hash,
    ) -> impl Iterator<Item = &'a DealtShare> {
        let of = values(&self.dealt, division);
        of.map(|dealt| &dealt.share)
            .filter(move |share| share.plan == *plan)
    }

    /// The words on shares of a node's root, unweighed.
    pub(crate) fn words<'a>(
        &'a self,
        division: &'a DivisionId,
    ) -> impl Iterator<Item = &'a ShareWord> {
        values(&self.words, division)
    }
}

/// All that is between a node and the organizations above it.
fn values<'a, T>(
    all: &'a BTreeMap<Between, Vec<T>>,
    division: &'a DivisionId,
) -> impl Iterator<Item = &'a T> {
    let of = all.iter().filter(move |((of, _), _)| of == division);
    of.flat_map(|(_, of)| of)
}

fn values_mut<'a, T>(
    all: &'a mut BTreeMap<Between, Vec<T>>,
    division: &'a DivisionId,
) -> impl Iterator<Item = &'a mut Vec<T>> {
    let of = all.iter_mut().filter(move |((of, _), _)| of == division);
    of.map(|(_, of)| of)
}

/// Drops the oldest beyond the bound.
fn bound<T>(of: &mut Vec<T>) {
    if of.len() > STEPS_MAX {
        of.remove(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use record::id::UnixMillis;

    use super::*;

    fn division(name: &str) -> DivisionId {
        DivisionId::new(name).unwrap()
    }

    fn ready(public: u8) -> ShareStep {
        ShareStep::Ready(ShareKey {
            suite: 1,
            organization: division("district"),
            operator: OperatorId([1; 16]),
            division: division("town"),
            public: vec![public].into(),
            made_at: UnixMillis(u64::from(public)),
            signature: [0; 64],
        })
    }

    fn dealt(plan: u8) -> ShareStep {
        ShareStep::Dealt(DealtShare {
            suite: 1,
            division: division("town"),
            plan: [plan; 32],
            header: vec![plan].into(),
            number: 1,
            organization: division("district"),
            operator: OperatorId([1; 16]),
            key: [0; 32],
            sealed: vec![].into(),
            signature: [0; 64],
        })
    }

    fn publics(shares: &Shares) -> Vec<u8> {
        let (district, town) = (division("district"), division("town"));
        let officer = OperatorId([1; 16]);
        let of = shares.keys(&district, &officer, &town);
        of.map(|key| key.public[0]).collect()
    }

    #[test]
    fn a_key_brought_by_hand_does_not_push_out_the_one_in_the_organizations_ledger() {
        let mut shares = Shares::default();
        shares.learn(&division("district"), &ready(1), 1);
        shares.learn(&division("town"), &ready(2), 1);
        assert_eq!(publics(&shares), [1, 2]);
        shares.learn(&division("district"), &ready(3), 2);
        assert_eq!(publics(&shares), [3, 2]);
        shares.learn(&division("sister"), &ready(4), 1);
        assert_eq!(publics(&shares), [3, 2]);
    }

    #[test]
    fn shares_are_remembered_in_the_order_dealt_until_a_sharing_is_in_force() {
        let mut shares = Shares::default();
        for (at, plan) in [(7, 2), (5, 1), (9, 3), (9, 3)] {
            shares.learn(&division("town"), &dealt(plan), at);
        }
        let plans: Vec<u8> = { shares.dealt_to(&division("district")).into_iter() }
            .map(|share| share.plan[0])
            .collect();
        assert_eq!(plans, [1, 2, 3]);
        assert_eq!(shares.dealt_under(&division("town"), &[2; 32]).count(), 1);
        // Of the ceremonies around it nothing is forgotten.
        shares.settle(&division("town"), &[2]);
        assert_eq!(shares.dealt_to(&division("district")).len(), 2);
        assert_eq!(shares.dealt_under(&division("town"), &[2; 32]).count(), 0);
    }

    #[test]
    fn what_is_remembered_of_one_node_is_bounded() {
        let mut shares = Shares::default();
        for at in 0..STEPS_MAX as u64 + 10 {
            let ShareStep::Dealt(mut share) = dealt(1) else {
                unreachable!()
            };
            share.header = at.to_be_bytes().to_vec().into();
            shares.learn(&division("town"), &ShareStep::Dealt(share), at);
        }
        assert_eq!(shares.dealt_to(&division("district")).len(), STEPS_MAX);
    }
}
