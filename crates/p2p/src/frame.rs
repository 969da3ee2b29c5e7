//! The frames of a conversation, as `docs/formats/frames.md` fixes them.
//!
//! It owns the bytes of one frame. It is strict: a frame decodes to one value, and that value
//! encodes to the same bytes. What frames may follow each other is the business of `inbox`.
//!
//! ```text
//! kind     u8       1 last part of a message, 2 part with more to follow, 3 credit, 4 end
//! length   u16 BE   of the payload, at most 65,533
//! payload           1: 0..=65,533 bytes   2: 1..=65,533 bytes   3: u32 BE, not 0   4: one reason byte
//! ```

/// Kind and length.
pub(crate) const HEADER_LEN: usize = 3;
/// A whole frame fits in 64 KiB.
pub(crate) const FRAME_MAX: usize = 64 * 1024;
/// What is left of it for the payload.
pub(crate) const PAYLOAD_MAX: usize = FRAME_MAX - HEADER_LEN;

const LAST: u8 = 1;
const PART: u8 = 2;
const CREDIT: u8 = 3;
const END: u8 = 4;

/// How the peer broke the frame format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame of a kind that the protocol does not have.
    #[error("frame kind {0} does not exist")]
    UnknownKind(u8),
    /// A payload of a length that this kind cannot have.
    #[error("a frame of kind {kind} cannot have {len} bytes")]
    BadLength {
        /// The kind.
        kind: u8,
        /// The length the header gave.
        len: u16,
    },
    /// A credit frame that grants nothing.
    #[error("a credit frame grants nothing")]
    EmptyCredit,
    /// An end frame with a reason that the protocol does not have.
    #[error("end reason {0} does not exist")]
    UnknownReason(u8),
    /// A message longer than a message may be.
    #[error("a message is longer than the limit")]
    MessageTooLong,
    /// More bytes than were granted.
    #[error("more bytes came than were granted")]
    OverCredit,
    /// Credit for bytes that were never sent.
    #[error("credit came for bytes that were never sent")]
    UnearnedCredit,
    /// A part of a message after the peer had said that it was finished.
    #[error("a message came after the end")]
    AfterEnd,
    /// The peer said that it was finished in the middle of a message.
    #[error("the end came in the middle of a message")]
    EndInMessage,
}

/// Why a side ends its direction, or the whole conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It sends no more messages, but goes on taking them.
    Finished,
    /// It neither sends nor takes any more.
    Gone,
    /// The other side broke the frame format.
    Fault,
    /// The other side owed bytes or credit for too long.
    Stalled,
}

/// One frame, its payload still where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The last, or only, part of a message.
    Last(&'a [u8]),
    /// A part of a message with more to follow.
    Part(&'a [u8]),
    /// The other side may send so many more bytes.
    Credit(u32),
    /// Nothing more, and why.
    End(End),
}

impl<'a> Frame<'a> {
    /// The first frame in `bytes` and its length; `None` if it is not all there yet.
    ///
    /// # Errors
    /// As soon as the header shows it, so that nobody waits for the payload of a broken frame.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        if !(LAST..=END).contains(&kind) {
            return Err(Violation::UnknownKind(kind));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = u16::from_be_bytes([header[1], header[2]]);
        let size = usize::from(len);
        let fits = match kind {
            LAST => size <= PAYLOAD_MAX,
            PART => (1..=PAYLOAD_MAX).contains(&size),
            CREDIT => size == 4,
            _ => size == 1,
        };
        if !fits {
            return Err(Violation::BadLength { kind, len });
        }
        let Some(payload) = rest.get(..size) else {
            return Ok(None);
        };
        let frame = match (kind, payload) {
            (LAST, _) => Self::Last(payload),
            (PART, _) => Self::Part(payload),
            (CREDIT, &[a, b, c, d]) => match u32::from_be_bytes([a, b, c, d]) {
                0 => return Err(Violation::EmptyCredit),
                granted => Self::Credit(granted),
            },
            (_, &[reason]) => Self::End(End::decode(reason)?),
            _ => return Err(Violation::BadLength { kind, len }),
        };
        Ok(Some((frame, HEADER_LEN + size)))
    }

    /// Appends the frame to `out`. The payload must not exceed [`PAYLOAD_MAX`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let credit;
        let reason;
        let (kind, payload) = match self {
            Self::Last(payload) => (LAST, *payload),
            Self::Part(payload) => (PART, *payload),
            Self::Credit(granted) => {
                credit = granted.to_be_bytes();
                (CREDIT, credit.as_slice())
            }
            Self::End(end) => {
                reason = [*end as u8];
                (END, reason.as_slice())
            }
        };
        debug_assert!(
            payload.len() <= PAYLOAD_MAX,
            "the writer cuts messages to fit"
        );
        let len = u16::try_from(payload.len()).expect("the writer cuts messages to fit");
        out.push(kind);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(payload);
    }
}

impl End {
    fn decode(reason: u8) -> Result<Self, Violation> {
        [Self::Finished, Self::Gone, Self::Fault, Self::Stalled]
            .into_iter()
            .find(|end| *end as u8 == reason)
            .ok_or(Violation::UnknownReason(reason))
    }
}

/// The frames of one message: every part full, but for the last.
pub(crate) fn parts(message: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let count = message.len().div_ceil(PAYLOAD_MAX).max(1);
    (0..count).map(move |i| {
        let start = i * PAYLOAD_MAX;
        if i + 1 == count {
            Frame::Last(&message[start..])
        } else {
            Frame::Part(&message[start..start + PAYLOAD_MAX])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(frame: Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    }

    #[test]
    fn golden_frames_keep_their_bytes() {
        // kind, length, payload
        assert_eq!(bytes(Frame::Last(b"hi")), [1, 0, 2, b'h', b'i']);
        assert_eq!(bytes(Frame::Last(b"")), [1, 0, 0]);
        assert_eq!(bytes(Frame::Part(b"h")), [2, 0, 1, b'h']);
        assert_eq!(bytes(Frame::Credit(0x0102_0304)), [3, 0, 4, 1, 2, 3, 4]);
        assert_eq!(bytes(Frame::End(End::Finished)), [4, 0, 1, 0]);
        assert_eq!(bytes(Frame::End(End::Gone)), [4, 0, 1, 1]);
        assert_eq!(bytes(Frame::End(End::Fault)), [4, 0, 1, 2]);
        assert_eq!(bytes(Frame::End(End::Stalled)), [4, 0, 1, 3]);
    }

    #[test]
    fn every_frame_decodes_whole_and_no_shorter() {
        let long = vec![7; PAYLOAD_MAX];
        for frame in [
            Frame::Last(b""),
            Frame::Last(b"abc"),
            Frame::Part(b"x"),
            Frame::Part(&long),
            Frame::Credit(1),
            Frame::Credit(u32::MAX),
            Frame::End(End::Finished),
            Frame::End(End::Gone),
            Frame::End(End::Fault),
            Frame::End(End::Stalled),
        ] {
            let mut all = bytes(frame);
            assert_eq!(Frame::decode(&all), Ok(Some((frame, all.len()))));
            for cut in 0..all.len() {
                assert_eq!(Frame::decode(&all[..cut]), Ok(None), "cut at {cut}");
            }
            let len = all.len();
            all.push(0xff);
            assert_eq!(
                Frame::decode(&all),
                Ok(Some((frame, len))),
                "what follows is left alone"
            );
        }
    }

    #[test]
    fn a_kind_that_does_not_exist_is_refused_at_its_first_byte() {
        for kind in (0..=u8::MAX).filter(|kind| !(1..=4).contains(kind)) {
            assert_eq!(Frame::decode(&[kind]), Err(Violation::UnknownKind(kind)));
        }
    }

    #[test]
    fn a_length_that_a_kind_cannot_have_is_refused_by_the_header_alone() {
        for (kind, len) in [
            (1, 65_534),
            (1, 65_535),
            (2, 0),
            (2, 65_534),
            (3, 0),
            (3, 3),
            (3, 5),
            (4, 0),
            (4, 2),
        ] {
            let [high, low] = u16::to_be_bytes(len);
            assert_eq!(
                Frame::decode(&[kind, high, low]),
                Err(Violation::BadLength { kind, len })
            );
        }
    }

    #[test]
    fn a_credit_of_nothing_is_refused() {
        assert_eq!(
            Frame::decode(&[3, 0, 4, 0, 0, 0, 0]),
            Err(Violation::EmptyCredit)
        );
    }

    #[test]
    fn a_reason_that_does_not_exist_is_refused() {
        for reason in 4..=u8::MAX {
            assert_eq!(
                Frame::decode(&[4, 0, 1, reason]),
                Err(Violation::UnknownReason(reason))
            );
        }
    }

    #[test]
    fn any_three_bytes_are_a_value_that_encodes_back_or_an_error_or_too_few() {
        for kind in 0..=5 {
            for len in 0..=u16::MAX {
                let [high, low] = len.to_be_bytes();
                if let Ok(Some((frame, used))) = Frame::decode(&[kind, high, low]) {
                    assert_eq!((used, bytes(frame)), (3, vec![kind, high, low]));
                }
            }
        }
    }

    #[test]
    fn a_message_is_cut_into_full_parts_and_one_last() {
        for len in [
            0,
            1,
            PAYLOAD_MAX - 1,
            PAYLOAD_MAX,
            PAYLOAD_MAX + 1,
            3 * PAYLOAD_MAX,
            1 << 20,
        ] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut joined = Vec::new();
            let mut ended = false;
            for frame in parts(&message) {
                assert!(!ended, "nothing after the last part");
                match frame {
                    Frame::Part(part) => {
                        assert_eq!(part.len(), PAYLOAD_MAX);
                        joined.extend_from_slice(part);
                    }
                    Frame::Last(part) => {
                        ended = true;
                        joined.extend_from_slice(part);
                    }
                    _ => unreachable!("messages have parts only"),
                }
            }
            assert!(ended && joined == message, "length {len}");
        }
    }
}
