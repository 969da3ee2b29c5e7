//! Whether a grant is over at the node whose directory it is: then its parcels may be gone before
//! the receipt for them is signed.
//!
//! Owns what counts as proof that a time has come, when no statement says that a grant ended: a
//! witness's cosignature on one of the node's own ledgers, or the clock of whoever verifies. Refuses
//! any time that the node itself wrote: who sets a clock forward could destroy what it must keep.

use record::authority::GrantStatement;
use record::id::{DivisionId, Origin, UnixMillis};
use store::Store;

use crate::audit::page;
use crate::authority::Authority;
use crate::table::Head;

/// What is known of the present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The verifier's clock; the beginning of time when it has none.
    clock: UnixMillis,
    /// The newest time that a node outside this one and those below it wrote on a head of this one.
    witnessed: UnixMillis,
}

/// Why nothing of a grant needs to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Its owner said that it ended, or this node signed that it dropped everything of it.
    Said,
    /// Its time ran out, as a cosignature shows that is later.
    Lapsed(UnixMillis),
    /// Its time ran out by the clock of whoever verifies, and by nothing else.
    ByClock(UnixMillis),
}

impl Times {
    /// What there is in a directory of division `own`, beside the clock of whoever verifies it.
    ///
    /// A head that cannot be read tells nothing here; walking its ledger names it.
    pub(crate) fn of(
        store: &dyn Store,
        origins: &[Origin],
        own: &DivisionId,
        authority: &Authority,
        clock: UnixMillis,
    ) -> Self {
        let mine = origins.iter().filter(|origin| origin.division() == *own);
        let cosigned = mine.flat_map(|origin| {
            let head = Head::read(store, origin).unwrap_or_else(|_| Head::empty());
            let notes = [head.whole, head.cosigned].into_iter().flatten();
            notes.filter_map(|note| authority.first_cosigned(origin, &note))
        });
        Self {
            clock,
            witnessed: cosigned.max().unwrap_or(UnixMillis(0)),
        }
    }

    /// Whether a ledger is that of a grant to `own` which is over, and why.
    pub(crate) fn over(
        self,
        ledger: &Origin,
        own: &DivisionId,
        authority: &Authority,
    ) -> Option<Over> {
        let id = ledger.grant_id()?;
        if authority.dropped(own, ledger) {
            return Some(Over::Said);
        }
        let is_mine = |grant: &&GrantStatement| grant.holder == *own;
        let grant = authority.grant(&id).filter(is_mine)?;
        if authority.grant_ended(&id).is_some() {
            return Some(Over::Said);
        }
        // By what its owner stated last: who renews it moves this, too.
        let until = grant.not_after;
        if until <= self.witnessed {
            Some(Over::Lapsed(until))
        } else if until <= self.clock {
            Some(Over::ByClock(until))
        } else {
            None
        }
    }
}

impl Over {
    /// What there is to say of so many bodies that are gone without a word of anybody's.
    pub(super) fn words(self, ledger: &Origin, gone: u64) -> Option<String> {
        let (until, zh, en) = match self {
            Over::Said => return None,
            Over::Lapsed(until) => (until, "见证方的联署晚于此时", "a cosignature is later"),
            Over::ByClock(until) => (
                until,
                "仅凭核验所用时钟，请核对时钟",
                "by the clock of this verification alone: see that it is right",
            ),
        };
        let until = page::time(until);
        Some(format!(
            "`{ledger}`: 授权已于 {until} 到期（{zh}），{gone} 个正文已销毁，回执待签 / the grant ran out at {until} ({en}), {gone} of its bodies are destroyed, and the receipt is still to be signed"
        ))
    }
}
