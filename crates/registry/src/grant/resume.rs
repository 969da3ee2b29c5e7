//! Going on with a grant whose cursor was lost (接续授权): the node was rebuilt, or took its ledger back.
//!
//! Owns what the grant's ledger and the statements say together of the work that was left: new terms
//! that were stated after the last heartbeat are worked through again, every record of the shard. A
//! row may come to the holder twice so; none is left out, and none stays that the terms take away.
//! Refuses to go on before both ledgers are back.

use record::authority::GrantStatement;
use record::cbor;
use record::entry::{Entry, GrantOperation};
use record::id::{Hash, Origin};
use store::Batch;

use super::amend::reach;
use super::{Cursor, Rework, cursor_key};
use crate::book::Book;
use crate::error::Result;
use crate::node::Registry;

impl Registry {
    /// Makes the cursor of an own grant's ledger again from entries that were taken back.
    pub(crate) fn remake_cursor<'a>(
        &self,
        batch: &mut Batch,
        ledger: &Origin,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<()> {
        let mut cursor = self.cursor(ledger)?;
        for entry in entries {
            let Entry::Grant(entry) = entry else {
                continue;
            };
            match entry.operation {
                GrantOperation::Heartbeat => {
                    // Rows after it, if any, are worked through once more.
                    cursor = Cursor {
                        shard_size: entry.shard_size,
                        target: None,
                        rework: None,
                        made_again: Some(true),
                        looked: None,
                    };
                }
                GrantOperation::Keys => cursor.made_again = Some(true),
                _ => {}
            }
        }
        if cursor.made_again.is_some() {
            batch.put(cursor_key(ledger), cbor::to_vec(&cursor));
        }
        Ok(())
    }

    /// How far a grant's ledger came; nothing while it cannot be known yet.
    pub(super) fn resumed(
        &self,
        grant: &GrantStatement,
        book: &mut Book,
    ) -> Result<Option<Cursor>> {
        let ledger = grant.origin.grant(&grant.id);
        let mut cursor = self.cursor(&ledger)?;
        if cursor.made_again.is_none() {
            return Ok(Some(cursor));
        }
        // The terms are stated in the authority ledger.
        if self.guard.is_halted(&ledger) || self.guard.is_halted(&self.own("authority")) {
            return Ok(None);
        }
        cursor.made_again = None;
        let left = self.left_to_rework(grant, &ledger)?;
        if let Some(left) = left {
            let before = cursor.rework.take();
            tracing::info!(grant = %grant.id, "terms that were changed before the node was lost are worked through again");
            cursor.rework = Some(Rework {
                after: None,
                anew: left.anew || before.as_ref().is_some_and(|before| before.anew),
                drops: left.drops || before.as_ref().is_some_and(|before| before.drops),
            });
        }
        let bytes = cbor::to_vec(&cursor);
        book.extend(self.store.as_ref(), |batch| {
            batch.put(cursor_key(&ledger), bytes);
        })?;
        Ok(Some(cursor))
    }

    /// What terms stated after the last heartbeat leave to be done. Before the first heartbeat all
    /// entries of the shard are worked through anyway, under the terms in force.
    fn left_to_rework(&self, grant: &GrantStatement, ledger: &Origin) -> Result<Option<Rework>> {
        let Some(settled) = self.settled_envelope(ledger)? else {
            return Ok(None);
        };
        let authority = self.authority();
        let stated = authority.grant_statements(&grant.id);
        let known = stated.iter().rposition(|s| s.envelope == settled);
        Ok(changed_since(
            stated.get(known.unwrap_or(0)..).unwrap_or_default(),
        ))
    }

    /// The envelope in force at the last heartbeat of a grant's ledger.
    fn settled_envelope(&self, ledger: &Origin) -> Result<Option<Hash>> {
        let (mut keys, mut settled) = (None, None);
        crate::chain::each_entry(self.store.as_ref(), ledger, |_, _, entry| {
            if let Entry::Grant(entry) = entry {
                match entry.operation {
                    GrantOperation::Keys => keys = entry.parcel,
                    GrantOperation::Heartbeat => settled = keys,
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(settled)
    }
}

/// What changes of terms, one after another, come to.
fn changed_since(stated: &[GrantStatement]) -> Option<Rework> {
    let mut left = None::<Rework>;
    for pair in stated.windows(2) {
        let [old, new] = pair else { continue };
        if new.has_terms_of(old) {
            continue;
        }
        let rework = left.get_or_insert(Rework {
            after: None,
            anew: false,
            drops: false,
        });
        rework.anew |=
            new.epoch != old.epoch || new.fields != old.fields || new.history() != old.history();
        rework.drops |= old.fields.iter().any(|at| !new.fields.contains(at))
            || reach(new.history()) < reach(old.history());
    }
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use record::authority::History;
    use record::id::{DivisionId, GrantId, Purpose, UnixMillis};

    use super::*;

    fn grant(fields: &[u8], rows: u8, epoch: u32, history: History) -> GrantStatement {
        GrantStatement {
            id: GrantId([1; 16]),
            origin: Origin::parse("jiangjin.example/jinfu/person").unwrap(),
            holder: DivisionId::new("minzheng").unwrap(),
            holder_charter: [0; 32],
            fields: fields.to_vec(),
            schema: 1,
            rows: [rows; 32],
            purpose: Purpose::new("welfare").unwrap(),
            basis: String::new(),
            assessment: String::new(),
            epoch,
            envelope: [0; 32],
            policy: [0; 32],
            not_after: UnixMillis(0),
            owner_charter: [0; 32],
            history: Some(history),
        }
    }

    fn check(stated: &[GrantStatement], expected: Option<(bool, bool)>) {
        let left = changed_since(stated).map(|left| (left.anew, left.drops));
        assert_eq!(left, expected);
    }

    #[test]
    fn what_was_left_is_the_sum_of_all_changes_of_terms() {
        let whole = grant(&[1, 2], 1, 1, History::Since);
        check(&[], None);
        check(std::slice::from_ref(&whole), None);
        // Keys of another epoch alone change no terms.
        let keyed = grant(&[1, 2], 1, 2, History::Since);
        check(&[whole.clone(), keyed.clone()], None);
        let rows = grant(&[1, 2], 2, 1, History::Since);
        check(&[whole.clone(), rows.clone()], Some((false, false)));
        let fewer = grant(&[1], 2, 1, History::Since);
        check(&[whole.clone(), rows, fewer], Some((true, true)));
        let more = grant(&[1, 2, 3], 1, 2, History::Since);
        check(&[whole.clone(), keyed, more], Some((true, false)));
        let newest = grant(&[1, 2], 1, 1, History::None);
        check(&[whole, newest], Some((true, true)));
    }
}
