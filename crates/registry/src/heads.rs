//! Heads (账头): the end of every ledger held here, in memory, for whoever looks at all of them
//! every second: the offers to each neighbour, what each is told, the status page; and which of
//! them moved since a session looked, so that it need not look at all.
//!
//! A line is read again when its shard's version in the store moved, or when something was learned
//! of who is who that may decide a quorum. So no commit has to remember to tell this list.
//! What can go down is listed by itself: a child is not shown what others below it never get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use record::authority::Charter;
use record::id::{DivisionId, Origin};

use crate::error::Result;
use crate::grant::checkpoint_of;
use crate::moves::{Which, may_go_down};
use crate::node::{Registry, lock};
use crate::table::Head;

/// The end of one ledger, and what follows from it.
#[derive(Debug)]
pub(crate) struct Line {
    /// Which ledger.
    pub origin: Origin,
    /// Its division.
    pub division: DivisionId,
    /// Whether it is an authority ledger.
    pub is_authority: bool,
    /// Whether somebody who is not above its division may be offered it.
    pub goes_down: bool,
    /// What the store says.
    pub head: Head,
    /// Whether the newest whole checkpoint has its quorum of cosignatures.
    has_quorum: bool,
    /// The whole checkpoint with its log's signature only.
    pub bare: Option<String>,
    /// Size of the newest checkpoint that another node cosigned.
    pub cosigned: u64,
    /// Names of the signers on the newest whole checkpoint.
    pub signers: Vec<String>,
    /// The shard's version and what bore on quorums when this was read.
    as_of: (u64, u64),
}

impl Line {
    /// The checkpoint that everybody may see, if there is one.
    pub(crate) fn published(&self) -> Option<&str> {
        let whole = self.head.whole.as_deref().filter(|_| self.has_quorum);
        whole.or(self.head.cosigned.as_deref())
    }
}

/// The lines read so far, by shard.
pub(crate) type Lines = BTreeMap<String, Arc<Line>>;

/// How far somebody has looked: who asks again is shown only what moved since.
#[derive(Debug, Default)]
pub struct Looked {
    moves: u64,
    /// What was known of who is who and who deals with whom, and which ledgers were in trouble. When
    /// one of these changes, everything is looked at: it decides what goes to whom.
    bearing: Option<u64>,
    behind: BTreeSet<Origin>,
    halted: BTreeSet<Origin>,
}

impl Registry {
    /// The end of every ledger that a peer may be offered.
    pub(crate) fn heads_to_offer(&self) -> Result<Vec<Arc<Line>>> {
        let mut lines = self.heads()?;
        // A ledger that is lost altogether is offered as empty, so that the parent gives it back.
        for origin in self.guard.halted().into_keys() {
            if !lines.iter().any(|line| line.origin == origin) {
                lines.extend(self.line(origin.as_str())?);
            }
        }
        Ok(lines)
    }

    /// The ends of the ledgers that moved since somebody looked, or of all: of any, or of those that
    /// may go down.
    pub(crate) fn heads_moved(&self, which: Which, looked: &mut Looked) -> Result<Vec<Arc<Line>>> {
        // Asked before anything is read: what moves meanwhile is shown again. And before it is asked
        // who deals with whom: letters that moved are never seen without the dealing they begin.
        let (moves, moved) = self.moves.since(which, looked.moves);
        let bearing = Some(self.authority().bearing());
        let behind = lock(&self.peers).behind.clone();
        let halted: BTreeSet<Origin> = self.guard.halted().into_keys().collect();
        let is_known =
            bearing == looked.bearing && behind == looked.behind && halted == looked.halted;
        let lines = if is_known {
            let mut lines = Vec::new();
            for shard in moved {
                lines.extend(self.line(&shard)?);
            }
            lines
        } else {
            self.heads_to_offer()?
        };
        *looked = Looked {
            moves,
            bearing,
            behind,
            halted,
        };
        Ok(lines)
    }

    /// Whether a child may be offered anything that it was not when somebody looked: for whoever asks
    /// every second for each of hundreds.
    pub fn has_more_for_child(&self, looked: &Looked) -> bool {
        self.moves.is_later(Which::Downward, looked.moves)
            || looked.bearing != Some(self.authority().bearing())
            || lock(&self.peers).behind != looked.behind
    }

    /// Whether any head moved since somebody looked.
    pub fn has_more_to_tell(&self, looked: &Looked) -> bool {
        self.moves.is_later(Which::Any, looked.moves)
    }

    /// As [`Registry::offers`], of the ledgers that moved since the caller looked, and of `again`.
    ///
    /// # Errors
    /// A failure of the store; then nothing counts as looked at.
    pub fn offers_moved(
        &self,
        peer: &Charter,
        looked: &mut Looked,
        again: &BTreeSet<Origin>,
    ) -> Result<Vec<(Origin, String)>> {
        let which = match self.is_parent(&peer.division) {
            true => Which::Any,
            false => Which::Downward,
        };
        let mut lines = self.heads_moved(which, looked)?;
        // A child that lost some of its own history is given it, which goes to no other child.
        let lost = looked
            .behind
            .iter()
            .filter(|o| o.division() == peer.division);
        for origin in again.iter().chain(lost) {
            if !lines.iter().any(|line| line.origin == *origin) {
                lines.extend(self.line(origin.as_str())?);
            }
        }
        self.offers_among(peer, lines)
    }

    /// The end of every ledger held here, by origin.
    pub(crate) fn heads(&self) -> Result<Vec<Arc<Line>>> {
        let mut lines = Vec::new();
        for shard in self.store.shards()? {
            lines.extend(self.line(&shard)?);
        }
        Ok(lines)
    }

    /// The end of one ledger; `None` for a shard that is no ledger.
    pub(crate) fn line(&self, shard: &str) -> Result<Option<Arc<Line>>> {
        // Asked before the head is read: a commit between the two only makes it read again.
        let as_of = (self.store.head(shard)?, self.authority().bearing());
        let known = self
            .lines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(shard)
            .cloned();
        if let Some(line) = known.filter(|line| line.as_of == as_of) {
            return Ok(Some(line));
        }
        let Ok(origin) = Origin::parse(shard) else {
            return Ok(None);
        };
        let line = Arc::new(self.read_line(origin, as_of)?);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.insert(shard.to_owned(), line.clone());
        Ok(Some(line))
    }

    fn read_line(&self, origin: Origin, as_of: (u64, u64)) -> Result<Line> {
        let head = Head::read(self.store.as_ref(), &origin)?;
        let whole = head.whole.as_deref();
        let signers = whole.map(signers).unwrap_or_default();
        let cosigned = match (&head.cosigned, whole) {
            (Some(note), _) => checkpoint_of(note)?.size(),
            (None, Some(note)) if signers.len() > 1 => checkpoint_of(note)?.size(),
            _ => 0,
        };
        Ok(Line {
            division: origin.division(),
            is_authority: origin.ledger().as_str() == "authority",
            goes_down: may_go_down(&origin),
            bare: whole.and_then(|note| crate::forks::bare(note).ok()),
            has_quorum: whole.is_some_and(|note| self.has_quorum(&origin, note)),
            cosigned,
            signers,
            head,
            origin,
            as_of,
        })
    }
}

fn signers(note: &str) -> Vec<String> {
    let note = ledger::note::Note::parse(note.as_bytes());
    let lines = note.map(|note| {
        let signatures = note.signatures().iter();
        signatures.map(|line| line.name().to_owned()).collect()
    });
    lines.unwrap_or_default()
}
