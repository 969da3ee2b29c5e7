//! What a session asks of its shell, and what it tells it.
//!
//! Owns the vocabulary between the state machine and the world. Refuses to print the bytes of a
//! message: the first one may carry an enrolment's secret.

use std::fmt;

use ledger::checkpoint::Checkpoint;
use ledger::evidence::Evidence;
use ledger::verify::Verified;
use record::authority::{Charter, NodeKeys, Renewal, Succession};
use record::id::{DivisionId, Hash, Origin};

use crate::chunk::Delivery;
use crate::code::{RefusalCode, RejectCode};
use crate::message::{Item, Secret};
use crate::recovery::{RecoveryAsk, RecoveryPiece};

/// One thing for the shell to do or to know.
///
/// Answers to [`Output::Load`], [`Output::Store`] and [`Output::Cosign`] may come late and in any
/// order, but what is to be sent must leave in the order in which the session gave it: a
/// [`Output::Send`] never overtakes one of an earlier call.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes as one message.
    Send(Bytes),
    /// Both sides know each other; offer ledgers.
    Opened {
        /// The peer's charter first, the root's last.
        chain: Vec<Charter>,
    },
    /// The peer showed how the root came to another key, and its chain leads to that one: keep it.
    /// It comes before [`Output::Opened`].
    Succeeded(Vec<Succession>),
    /// A node asks for a charter; answer with `enrolled` or `enrol_refused`.
    EnrolRequested(Box<Enrolment>),
    /// A chartered node asks for a charter of new keys, one of which the connection proved; answer
    /// with `enrolled` or `enrol_refused`.
    RenewRequested(Box<Renewal>),
    /// A new machine asks for a piece of a lost node's recovery file; answer with `recovery_piece` or
    /// `enrol_refused`. It comes again for each piece.
    RecoveryAsked(Box<RecoveryAsk>),
    /// The parent gave a piece of the recovery file; ask on with `ask_recovery`.
    RecoveryPiece(Box<RecoveryPiece>),
    /// The parent gave a charter; keep it and dial again.
    Enrolled {
        /// The own charter first, the root's last.
        chain: Vec<Charter>,
    },
    /// The peer wants entries; answer with `loaded` or `cannot_load`.
    Load(Load),
    /// Commit these entries; answer with `stored` or `not_stored`.
    Store(Box<Delivery>),
    /// A head is held whole; sign it and answer with `cosigned`.
    Cosign {
        /// Which ledger.
        origin: Origin,
        /// The head, proven to extend everything held.
        verified: Box<Verified>,
    },
    /// The peer cosigned a head; the lines verify.
    Cosigned {
        /// Which ledger.
        origin: Origin,
        /// Size of the head.
        size: u64,
        /// Signature lines to add to its note.
        lines: Vec<String>,
    },
    /// The ledger's owner signed two histories: keep, show and replicate this.
    Fork {
        /// Which ledger.
        origin: Origin,
        /// Both signed heads.
        evidence: Box<Evidence>,
    },
    /// The peer has seen this signed head; compare it with what was seen here.
    Seen {
        /// Which ledger.
        origin: Origin,
        /// The head, signed by the ledger's owner.
        checkpoint: Checkpoint,
        /// The note, verbatim.
        note: String,
    },
    /// Something that an officer must look at.
    Alarm {
        /// Which ledger.
        origin: Origin,
        /// What is wrong.
        code: RejectCode,
        /// How many entries are held here, untouched.
        held: u64,
        /// In words.
        reason: String,
    },
    /// This node does not take a ledger at present, which is nobody's fault: count and log it.
    Declined {
        /// Which ledger.
        origin: Origin,
        /// Why.
        code: RejectCode,
        /// In words.
        reason: String,
        /// It may pass by itself: a charter is likely to be on its way.
        passing: bool,
    },
    /// The peer does not take a ledger that was offered to it.
    Rejected {
        /// Which ledger.
        origin: Origin,
        /// Why.
        code: RejectCode,
        /// How many entries the peer holds.
        size: u64,
        /// In the peer's words.
        reason: String,
        /// The signed head that the peer holds, unverified.
        note: Option<String>,
    },
    /// The session was refused; log it.
    Refused {
        /// Why.
        code: RefusalCode,
        /// In words.
        reason: String,
        /// Which side refused.
        by: Side,
    },
    /// The two clocks differ by more than ten minutes.
    ClockSkew {
        /// The peer's clock minus this node's.
        millis: i64,
    },
    /// Send what is pending, then end the connection.
    Close {
        /// In words.
        reason: String,
    },
}

/// A message's bytes, which do not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Which side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// This node.
    Own,
    /// The other node.
    Peer,
}

/// A node's request for a charter. Its transport key is the one that the connection proved.
#[derive(Debug)]
pub struct Enrolment {
    /// The division that it is to be.
    pub division: DivisionId,
    /// The one-time secret; compare in constant time.
    pub secret: Secret,
    /// The keys to be chartered.
    pub keys: NodeKeys,
}

/// What the shell is to read from its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Which ledger.
    pub origin: Origin,
    /// Index of the first entry.
    pub from: u64,
    /// Size of the head that the entries are proven against; take none from there on.
    pub head_size: u64,
    /// Size of the earlier head that this head is to be proven to extend, if asked.
    pub known_size: Option<u64>,
    /// How many bytes of items, by [`crate::message::fill`].
    pub max_bytes: usize,
}

/// The answer to a [`Load`].
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As in the question.
    pub origin: Origin,
    /// As in the question.
    pub from: u64,
    /// As in the question.
    pub head_size: u64,
    /// Entries with their bodies, at least one.
    pub items: Vec<Item>,
    /// Consistency proof from `from` + the number of items to `head_size`.
    pub proof: Vec<Hash>,
    /// Consistency proof from `known_size` to `head_size`; empty when that was not asked.
    pub extends: Vec<Hash>,
}

/// One ledger in this session, for the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Which ledger.
    pub origin: Origin,
    /// Who offered it.
    pub offered_by: Side,
    /// Size of the latest head offered.
    pub offered_size: u64,
    /// How many entries the receiving side is known to hold.
    pub held_size: u64,
    /// The last thing that went wrong, in words; cleared by progress.
    pub error: Option<String>,
}

impl LedgerStatus {
    /// How many entries the receiving side lacks.
    pub fn behind(&self) -> u64 {
        self.offered_size.saturating_sub(self.held_size)
    }
}
