//! Who may have signed what comes in (签署资格): an act by an operator who was disabled, or by a key
//! that was never enrolled, is not kept, however well it is signed.
//!
//! Owns what is decided while a ledger is received. What cannot be known yet, because less of the
//! owner's authority ledger is here than the act relied on, or because a charter that the owner had
//! before is not known yet, is left to `verify`.

use record::act::{Act, Capacity};
use record::entry::Entry;
use record::id::{Origin, UnixMillis};

use crate::arrived::Arrived;
use crate::error::{RegistryError, Result};
use crate::node::{Registry, word};
use crate::table::{self, Head};

/// The code of the alarm.
const UNENTITLED: &str = "unentitled";

impl Registry {
    /// Refuses a delivery with an act whose signer had no right to sign it, and raises an alarm.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] with the index of the act.
    pub(crate) fn refuse_unentitled(
        &self,
        arrived: &Arrived,
        head: &Head,
        now: UnixMillis,
    ) -> Result<()> {
        let origin = arrived.origin();
        let mut relied = self.relied_on(origin, head)?;
        let authority = self.own_authority_of(origin);
        let known = Head::read(self.store.as_ref(), &authority)?.size;
        for (at, entry) in (arrived.first()..).zip(arrived.entries()) {
            let Entry::Act(act) = entry else { continue };
            let why = if act.authority_size < relied {
                Some("an act relies on less of the authority ledger than the act before it")
            } else if act.authority_size <= known && !self.entitled(origin, act) {
                Some(
                    "an act is signed by a key that was not enrolled, or was disabled, when it was signed",
                )
            } else {
                None
            };
            if let Some(why) = why {
                let words = format!("第 {at} 条：签署人当时无权签署 / entry {at}: {why}");
                self.alarm(origin, UNENTITLED, &words, vec![], now);
                return Err(RegistryError::damaged(format!("`{origin}` {words}")));
            }
            relied = act.authority_size;
        }
        Ok(())
    }

    fn own_authority_of(&self, origin: &Origin) -> Origin {
        Origin::new(&origin.realm(), &origin.division(), &word("authority"))
    }

    fn entitled(&self, origin: &Origin, act: &Act) -> bool {
        let authority = self.authority();
        let division = origin.division();
        match act.capacity {
            Capacity::Service => {
                let ever = authority.charters_ever(&division);
                // The root's earlier keys stand further on in the very ledger that they signed first.
                !authority.knows_every_charter(&division)
                    || ever.iter().any(|charter| charter.keys.sign == act.key)
            }
            Capacity::Operator => authority
                .term(&division, &act.key)
                .is_some_and(|term| term.covers(act.authority_size)),
        }
    }

    /// How much of the authority ledger the newest act that is held relied on.
    fn relied_on(&self, origin: &Origin, head: &Head) -> Result<u64> {
        if head.act.is_none() {
            return Ok(0);
        }
        let at = head.size - head.tail - 1;
        let bytes = self.store.get(&table::entry(origin, at))?;
        Ok(match bytes.as_deref().map(Entry::decode) {
            Some(Ok(Entry::Act(act))) => act.authority_size,
            _ => 0,
        })
    }
}
