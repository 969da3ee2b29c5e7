//! Letters (函件): what one node writes to another, in a ledger of the two.
//!
//! Owns the entry: a proposal in `<realm>/<proposer>/proposals/<owner>`, its answer in
//! `<realm>/<owner>/answers/<proposer>`, and the end of either, by which its body is destroyed
//! everywhere. What a letter says lies in its body, sealed to the addressee: see
//! [`crate::proposal`]. Refuses to name a record, a field or a reason.

use minicbor::{Decode, Encode};

use crate::id::{Hash, LetterId, UnixMillis};

/// What a letter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Step {
    /// Asks the owner for a change (变更建议).
    #[n(1)]
    Propose,
    /// The owner made the change as it was proposed (采纳).
    #[n(2)]
    Accept,
    /// The owner made another change than was proposed (修改后采纳).
    #[n(3)]
    Amend,
    /// The owner makes no change (不予采纳).
    #[n(4)]
    Refuse,
    /// Nobody answered in time (逾期).
    #[n(5)]
    Expire,
    /// The end of the letter with this id in this ledger: its body is destroyed.
    #[n(6)]
    Close,
}

impl Step {
    /// Whether it answers a proposal.
    pub fn is_answer(self) -> bool {
        matches!(
            self,
            Step::Accept | Step::Amend | Step::Refuse | Step::Expire
        )
    }

    /// The number in bytes.
    pub fn number(self) -> u8 {
        match self {
            Step::Propose => 1,
            Step::Accept => 2,
            Step::Amend => 3,
            Step::Refuse => 4,
            Step::Expire => 5,
            Step::Close => 6,
        }
    }

    /// The word in programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Propose => "propose",
            Step::Accept => "accept",
            Step::Amend => "amend",
            Step::Refuse => "refuse",
            Step::Expire => "expire",
            Step::Close => "close",
        }
    }
}

/// One leaf of a ledger of proposals or of answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LetterEntry {
    /// The crypto suite of the body.
    #[n(0)]
    pub suite: u8,
    /// What it does.
    #[n(1)]
    pub step: Step,
    /// The proposal that it is, answers or ends.
    #[n(2)]
    pub id: LetterId,
    /// Of an answer: leaf hash of the proposal. Of an end: leaf hash of the letter of the other side
    /// that was taken in; absent when the writer ended it unasked.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub answers: Option<Hash>,
    /// Of `accept` and `amend`: leaf hash of the entry in the owner's shard that made the change.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub entry: Option<Hash>,
    /// SHA-256 of tag, salt and clear body: lets the letter be disclosed. Absent in an end.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub content: Option<Hash>,
    /// SHA-256 of the sealed body. Absent in an end.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub body: Option<Hash>,
    /// Of a proposal: until when it may be answered.
    #[n(7)]
    pub until: Option<UnixMillis>,
    /// When its writer's node recorded it.
    #[n(8)]
    pub recorded_at: UnixMillis,
}

impl LetterEntry {
    /// Whether this entry, later in the same ledger, destroys the body of `earlier`.
    pub fn ends(&self, earlier: &Self) -> bool {
        self.step == Step::Close && earlier.step != Step::Close && self.id == earlier.id
    }

    /// Whether it has what its step needs and nothing else, and whether it belongs into a ledger of
    /// proposals, or else of answers.
    pub fn fits(&self, proposals: bool) -> bool {
        let sealed = self.content.is_some() && self.body.is_some();
        let bare = self.content.is_none() && self.body.is_none();
        let (answers, entry, until) = (
            self.answers.is_some(),
            self.entry.is_some(),
            self.until.is_some(),
        );
        match self.step {
            Step::Propose => proposals && sealed && !answers && !entry && until,
            Step::Accept | Step::Amend => !proposals && sealed && answers && entry && !until,
            Step::Refuse | Step::Expire => !proposals && sealed && answers && !entry && !until,
            Step::Close => bare && !entry && !until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, SUITE};

    fn letter(step: Step) -> LetterEntry {
        LetterEntry {
            suite: SUITE,
            step,
            id: LetterId([1; 16]),
            answers: None,
            entry: None,
            content: Some([3; 32]),
            body: Some([4; 32]),
            until: Some(UnixMillis(1_702_592_000_000)),
            recorded_at: UnixMillis(1_700_000_000_000),
        }
    }

    fn end() -> LetterEntry {
        LetterEntry {
            content: None,
            body: None,
            until: None,
            ..letter(Step::Close)
        }
    }

    #[test]
    fn the_golden_bytes_of_a_letter_hold() {
        let golden = [
            "83",
            "01",
            "07", // format 1, type 7 (letter)
            "a7", // seven fields
            "00",
            "01", // suite 1
            "01",
            "01", // propose
            "02",
            "50",
            "01010101010101010101010101010101", // id
            "05",
            "5820",
            "0303030303030303030303030303030303030303030303030303030303030303", // content
            "06",
            "5820",
            "0404040404040404040404040404040404040404040404040404040404040404", // body
            "07",
            "1b",
            "0000018c6a643000", // until
            "08",
            "1b",
            "0000018bcfe56800", // recorded at
        ];
        let entry = Entry::Letter(letter(Step::Propose));
        let bytes = entry.encode();
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), golden.concat());
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn the_end_of_a_letter_orders_its_body_destroyed_and_nothing_else() {
        let proposal = Entry::Letter(letter(Step::Propose));
        let close = Entry::Letter(end());
        assert!(close.orders_destruction() && close.destroys_body_of(&proposal));
        assert!(!proposal.orders_destruction() && !close.destroys_body_of(&close));
        let mut other = end();
        other.id = LetterId([2; 16]);
        assert!(!Entry::Letter(other).destroys_body_of(&proposal));
    }

    #[test]
    fn a_letter_has_what_its_step_needs_and_nothing_else() {
        assert!(letter(Step::Propose).fits(true) && !letter(Step::Propose).fits(false));
        assert!(end().fits(true) && end().fits(false));
        assert!(!letter(Step::Close).fits(true));
        let mut answer = letter(Step::Accept);
        answer.until = None;
        answer.answers = Some([5; 32]);
        assert!(!answer.fits(false));
        answer.entry = Some([6; 32]);
        assert!(answer.fits(false) && !answer.fits(true));
        answer.step = Step::Refuse;
        assert!(!answer.fits(false));
    }
}
