//! What frames may follow each other, and how many bytes they may bring.
//!
//! It owns the half-received message and the count of what the peer has spent of its window: frame
//! in, message out, no network. It refuses a message over the limit, bytes that were not granted,
//! and a message after the end.

use crate::frame::{End, Frame, Violation};
use crate::{MESSAGE_MAX, MESSAGE_OVERHEAD};

/// What a frame amounted to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A part; the message is not whole yet.
    Part,
    /// A whole message.
    Message(Vec<u8>),
    /// The peer grants so many more bytes.
    Credit(u32),
    /// The peer ends.
    End(End),
}

/// The receiving side of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    partial: Vec<u8>,
    in_message: bool,
    spent: u64,
    finished: bool,
}

/// What a message of `len` bytes counts against the window.
pub(crate) fn cost(len: usize) -> usize {
    len + MESSAGE_OVERHEAD
}

impl Inbox {
    /// True between the first part of a message and its last.
    pub(crate) fn in_message(&self) -> bool {
        self.in_message
    }

    /// Takes one frame. `granted` is all that the peer was ever allowed to spend.
    ///
    /// # Errors
    /// A [`Violation`]; the conversation is then over.
    pub(crate) fn take(&mut self, frame: Frame<'_>, granted: u64) -> Result<Taken, Violation> {
        match frame {
            Frame::Credit(bytes) => Ok(Taken::Credit(bytes)),
            Frame::End(End::Finished) if self.finished => Err(Violation::AfterEnd),
            Frame::End(End::Finished) if self.in_message => Err(Violation::EndInMessage),
            Frame::End(end) => {
                self.finished = true;
                Ok(Taken::End(end))
            }
            Frame::Part(part) => {
                self.add(part, 0, granted)?;
                self.in_message = true;
                Ok(Taken::Part)
            }
            Frame::Last(part) => {
                self.add(part, MESSAGE_OVERHEAD, granted)?;
                self.in_message = false;
                Ok(Taken::Message(std::mem::take(&mut self.partial)))
            }
        }
    }

    fn add(&mut self, part: &[u8], overhead: usize, granted: u64) -> Result<(), Violation> {
        if self.finished {
            return Err(Violation::AfterEnd);
        }
        if self.partial.len() + part.len() > MESSAGE_MAX {
            return Err(Violation::MessageTooLong);
        }
        let spent = self.spent + (part.len() + overhead) as u64;
        if spent > granted {
            return Err(Violation::OverCredit);
        }
        self.spent = spent;
        self.partial.extend_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WINDOW;
    use crate::frame::{PAYLOAD_MAX, parts};

    const ALL: u64 = u64::MAX;

    #[test]
    fn parts_become_the_message_again() {
        for len in [0, 1, PAYLOAD_MAX, PAYLOAD_MAX + 1, MESSAGE_MAX] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut inbox = Inbox::default();
            let taken = parts(&message).map(|frame| inbox.take(frame, ALL)).last();
            assert_eq!(taken, Some(Ok(Taken::Message(message))));
            assert!(!inbox.in_message());
        }
    }

    #[test]
    fn a_message_one_byte_over_the_limit_is_refused() {
        let message = vec![0; MESSAGE_MAX + 1];
        let mut inbox = Inbox::default();
        let taken = parts(&message).map(|frame| inbox.take(frame, ALL)).last();
        assert_eq!(taken, Some(Err(Violation::MessageTooLong)));
    }

    #[test]
    fn a_byte_over_the_window_is_refused() {
        let mut inbox = Inbox::default();
        let granted = cost(10) as u64;
        assert_eq!(
            inbox.take(Frame::Last(&[0; 11]), granted),
            Err(Violation::OverCredit)
        );
        assert!(inbox.take(Frame::Last(&[0; 10]), granted).is_ok());
        assert_eq!(
            inbox.take(Frame::Last(&[]), granted),
            Err(Violation::OverCredit)
        );
    }

    #[test]
    fn empty_messages_cannot_flood() {
        let mut inbox = Inbox::default();
        let count = (0..)
            .take_while(|_| inbox.take(Frame::Last(&[]), WINDOW as u64).is_ok())
            .count();
        assert_eq!(count, WINDOW / MESSAGE_OVERHEAD);
    }

    #[test]
    fn credit_may_come_between_the_parts_of_a_message() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(Frame::Part(b"a"), ALL), Ok(Taken::Part));
        assert_eq!(inbox.take(Frame::Credit(5), ALL), Ok(Taken::Credit(5)));
        assert_eq!(
            inbox.take(Frame::Last(b"b"), ALL),
            Ok(Taken::Message(b"ab".to_vec()))
        );
    }

    #[test]
    fn after_the_end_only_credit_and_a_farewell_may_come() {
        let mut inbox = Inbox::default();
        assert_eq!(
            inbox.take(Frame::End(End::Finished), ALL),
            Ok(Taken::End(End::Finished))
        );
        assert_eq!(inbox.take(Frame::Last(b""), ALL), Err(Violation::AfterEnd));
        assert_eq!(inbox.take(Frame::Part(b"a"), ALL), Err(Violation::AfterEnd));
        assert_eq!(
            inbox.take(Frame::End(End::Finished), ALL),
            Err(Violation::AfterEnd)
        );
        assert_eq!(inbox.take(Frame::Credit(5), ALL), Ok(Taken::Credit(5)));
        assert_eq!(
            inbox.take(Frame::End(End::Gone), ALL),
            Ok(Taken::End(End::Gone))
        );
    }

    #[test]
    fn an_end_in_the_middle_of_a_message_is_refused() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(Frame::Part(b"a"), ALL), Ok(Taken::Part));
        assert_eq!(
            inbox.take(Frame::End(End::Finished), ALL),
            Err(Violation::EndInMessage)
        );
    }
}
