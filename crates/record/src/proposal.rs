//! Proposals (变更建议) and their answers: what the sealed body of a letter says.
//!
//! Owns both shapes, their bounds and their bytes. Refuses what is longer than a body may be, so
//! that nobody's disk or clerk is filled by one of them. Values are personal data: neither shape can
//! be printed.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::id::{GrantId, Kind, Purpose, RecordId};
use crate::schema::Position;

/// The most bytes of a proposal or an answer, before it is sealed.
pub const LETTER_BYTES_MAX: usize = 12 * 1024;
/// The most bytes of a legal basis, a note, or the words of an answer.
pub const WORDS_BYTES_MAX: usize = 1500;
/// The most fields of one proposal.
pub const FIELDS_MAX: usize = 32;

/// What a proposal asks the owner to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Wanted {
    /// Register somebody or something that is not registered yet, such as a birth.
    #[n(1)]
    Register,
    /// Change fields.
    #[n(2)]
    Amend,
    /// Take the record out of force, such as after a death.
    #[n(3)]
    Close,
    /// Put it into force again.
    #[n(4)]
    Reopen,
}

impl Wanted {
    /// The word in programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Wanted::Register => "register",
            Wanted::Amend => "amend",
            Wanted::Close => "close",
            Wanted::Reopen => "reopen",
        }
    }

    /// Whether it changes the status, which then counts as a field proposed.
    pub fn changes_status(self) -> bool {
        matches!(self, Wanted::Close | Wanted::Reopen)
    }
}

/// Which record a proposal is about.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum About {
    /// None that is registered.
    #[n(1)]
    New,
    /// A record that the proposer holds, and the version that it saw.
    #[n(2)]
    Record {
        /// The record.
        #[n(0)]
        record: RecordId,
        /// The version, if the proposer knows it.
        #[n(1)]
        version: Option<u64>,
    },
    /// Whichever record has this value of a field that no two records share.
    #[n(3)]
    Value {
        /// The field.
        #[n(0)]
        position: Position,
        /// Its canonical value.
        #[n(1)]
        value: String,
    },
}

/// What a proposer asks for.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proposal {
    /// The kind of the record.
    #[n(0)]
    pub kind: Kind,
    /// The schema that the positions belong to.
    #[n(1)]
    pub schema: u32,
    /// What is to be done.
    #[n(2)]
    pub wanted: Wanted,
    /// To which record.
    #[n(3)]
    pub about: About,
    /// Canonical values by position; an empty one removes the value.
    #[n(4)]
    pub changes: BTreeMap<Position, String>,
    /// A code: `death`, `birth`, `moved`, `wrong-value` ...
    #[n(5)]
    pub reason: Kind,
    /// Legal basis.
    #[n(6)]
    pub basis: String,
    /// In words, for the clerk.
    #[n(7)]
    pub note: Option<String>,
    /// What for; of a record held by a grant, what that was given for.
    #[n(8)]
    pub purpose: Purpose,
    /// The grant by which the proposer may know of the record.
    #[n(9)]
    pub grant: Option<GrantId>,
}

/// What an owner says of a proposal.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// A code: of a refusal why, such as `wrong-person`.
    #[n(0)]
    pub reason: Kind,
    /// In words.
    #[n(1)]
    pub words: Option<String>,
    /// The rule of policy that denied, when a policy did.
    #[n(2)]
    pub rule: Option<String>,
    /// Where the change lies; only for whom had named the record.
    #[n(3)]
    pub written: Option<Written>,
    /// Of `amend`: which fields the owner wrote otherwise than proposed. Their values are not told.
    #[n(4)]
    pub otherwise: Vec<Position>,
}

/// An entry of the owner's shard.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Written {
    /// The record.
    #[n(0)]
    pub record: RecordId,
    /// Its version since.
    #[n(1)]
    pub version: u64,
    /// Index of the entry.
    #[n(2)]
    pub index: u64,
}

impl std::fmt::Debug for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proposal({} fields)", self.changes.len())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer(hidden)")
    }
}

impl Proposal {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a proposal from exactly these bytes.
    ///
    /// # Errors
    /// [`CborError`] when they are too long, malformed, not canonical, or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let what = "proposal";
        let proposal: Self = cbor::from_slice(what, bytes, LETTER_BYTES_MAX)?;
        if proposal.is_within_bounds() {
            Ok(proposal)
        } else {
            Err(CborError::Malformed { what })
        }
    }

    /// Whether it is as short as a proposal must be, and says what it wants of which record.
    pub fn is_within_bounds(&self) -> bool {
        let note = self.note.as_ref().map_or(0, String::len);
        let about = match (&self.about, self.wanted) {
            (About::New, wanted) => wanted == Wanted::Register,
            (_, wanted) => wanted != Wanted::Register,
        };
        let something = !self.changes.is_empty() || self.wanted.changes_status();
        about
            && something
            && self.changes.len() <= FIELDS_MAX
            && self.basis.len() <= WORDS_BYTES_MAX
            && note <= WORDS_BYTES_MAX
            && self.encode().len() <= LETTER_BYTES_MAX
    }
}

impl Answer {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads an answer from exactly these bytes.
    ///
    /// # Errors
    /// [`CborError`] when they are too long, malformed, not canonical, or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let what = "answer";
        let answer: Self = cbor::from_slice(what, bytes, LETTER_BYTES_MAX)?;
        let words = answer.words.as_ref().map_or(0, String::len);
        if words <= WORDS_BYTES_MAX && answer.otherwise.len() <= FIELDS_MAX {
            Ok(answer)
        } else {
            Err(CborError::Malformed { what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death() -> Proposal {
        Proposal {
            kind: Kind::new("person").unwrap(),
            schema: 1,
            wanted: Wanted::Close,
            about: About::Record {
                record: RecordId([1; 16]),
                version: Some(3),
            },
            changes: BTreeMap::from([(2, "2026-11-20".into())]),
            reason: Kind::new("death").unwrap(),
            basis: "户口登记条例 第八条".into(),
            note: None,
            purpose: Purpose::new("welfare").unwrap(),
            grant: Some(GrantId([2; 16])),
        }
    }

    #[test]
    fn a_proposal_and_an_answer_read_back_from_their_bytes() {
        assert_eq!(Proposal::decode(&death().encode()).unwrap(), death());
        let answer = Answer {
            reason: Kind::new("done").unwrap(),
            words: Some("已办".into()),
            rule: None,
            written: Some(Written {
                record: RecordId([1; 16]),
                version: 4,
                index: 9,
            }),
            otherwise: vec![11],
        };
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }

    #[test]
    fn a_proposal_that_wants_nothing_or_says_too_much_is_refused() {
        let refused = |change: fn(&mut Proposal)| {
            let mut proposal = death();
            change(&mut proposal);
            Proposal::decode(&proposal.encode()).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|p| {
            p.wanted = Wanted::Amend;
            p.changes.clear();
        }));
        assert!(refused(|p| p.wanted = Wanted::Register));
        assert!(refused(|p| p.about = About::New));
        assert!(refused(|p| p.note = Some("字".repeat(501))));
        assert!(refused(|p| p.basis = "字".repeat(501)));
        assert!(refused(
            |p| p.changes = (0..33).map(|at| (at, String::new())).collect()
        ));
        assert!(refused(|p| {
            p.changes.insert(4, "字".repeat(LETTER_BYTES_MAX));
        }));
    }

    #[test]
    fn neither_can_be_printed() {
        assert_eq!(format!("{:?}", death()), "Proposal(1 fields)");
    }
}
