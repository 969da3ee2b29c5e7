//! What the two halves of a conversation share with its reader and writer.
//!
//! It owns the two windows, counted in bytes, and the one answer to how the conversation ended:
//! the first cause wins. It refuses to hold messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use crate::WINDOW;
use crate::frame::{End, Violation};

/// Credit goes back when so much has been taken, not for every small message. What is held back
/// still leaves the peer room for the longest message.
const RETURN_AT: u64 = WINDOW as u64 / 4;
const _: () = assert!(WINDOW - WINDOW / 4 >= crate::MESSAGE_MAX + crate::MESSAGE_OVERHEAD);

/// Why a conversation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This side left: its receiver was dropped, or its endpoint closes.
    Local,
    /// The peer left, or both sides are finished.
    Closed,
    /// The connection ended without a farewell.
    Lost,
    /// The peer owed something for too long.
    Stalled,
    /// The peer broke the frame format.
    Broken(Violation),
    /// The peer left, blaming this side.
    Refused(End),
}

/// What the tasks of a conversation tell each other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    pub(crate) ended: Option<Ended>,
    /// The application dropped its receiver.
    pub(crate) deaf: bool,
    /// The peer sends no more messages.
    pub(crate) peer_finished: bool,
    /// Everything sent, and the end behind it, is with the transport.
    pub(crate) sent_all: bool,
    /// Both tasks are done with the stream.
    pub(crate) done: bool,
}

/// The shared part of one conversation.
#[derive(Debug)]
pub(crate) struct Link {
    /// What may still be sent.
    pub(crate) credit: Semaphore,
    /// Sent and not yet given back by the peer.
    in_flight: AtomicU64,
    /// Counts credit frames, to tell a slow peer from a stalled one.
    progress: AtomicU64,
    /// All that the peer was ever allowed to send.
    granted: AtomicU64,
    /// Taken by the application and not yet given back to the peer.
    taken: AtomicU64,
    /// `taken` is worth a frame.
    pub(crate) credit_due: Notify,
    pub(crate) state: watch::Sender<State>,
    pub(crate) stall_timeout: Duration,
}

impl Link {
    pub(crate) fn new(stall_timeout: Duration) -> Self {
        Self {
            credit: Semaphore::new(WINDOW),
            in_flight: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            granted: AtomicU64::new(WINDOW as u64),
            taken: AtomicU64::new(0),
            credit_due: Notify::new(),
            state: watch::Sender::new(State::default()),
            stall_timeout,
        }
    }

    /// Ends the conversation, unless it has ended.
    pub(crate) fn end(&self, why: Ended) {
        self.state.send_if_modified(|state| {
            let first = state.ended.is_none();
            state.ended.get_or_insert(why);
            first
        });
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.state.borrow().ended
    }

    /// Counts what was sent, before it can be on the wire.
    pub(crate) fn spend(&self, cost: usize) {
        self.in_flight.fetch_add(cost as u64, Ordering::AcqRel);
    }

    /// Takes back what the peer returned.
    ///
    /// # Errors
    /// If the peer returns more than it was sent.
    pub(crate) fn credited(&self, bytes: u32) -> Result<(), Violation> {
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |sent| {
                sent.checked_sub(u64::from(bytes))
            })
            .map_err(|_| Violation::UnearnedCredit)?;
        self.progress.fetch_add(1, Ordering::AcqRel);
        self.credit.add_permits(bytes as usize);
        Ok(())
    }

    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }

    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Acquire)
    }

    /// The application has taken a message.
    pub(crate) fn take(&self, cost: usize) {
        let taken = self.taken.fetch_add(cost as u64, Ordering::AcqRel) + cost as u64;
        if taken >= RETURN_AT {
            self.credit_due.notify_one();
        }
    }

    /// What to give back to the peer, if it is worth a frame. It is granted with this call, before
    /// the frame is on the wire, so that the peer's answer to it can never come too early.
    pub(crate) fn give_back(&self) -> Option<u32> {
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken >= RETURN_AT).then_some(0)
            })
            .ok()?;
        self.granted.fetch_add(taken, Ordering::AcqRel);
        Some(u32::try_from(taken).expect("no more is taken than the window holds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::new(Duration::from_secs(1))
    }

    #[test]
    fn credit_for_bytes_never_sent_is_refused() {
        let link = link();
        assert_eq!(link.credited(1), Err(Violation::UnearnedCredit));
        link.spend(100);
        assert_eq!(link.credited(60), Ok(()));
        assert_eq!(link.credited(41), Err(Violation::UnearnedCredit));
        assert_eq!(link.credited(40), Ok(()));
    }

    #[test]
    fn credit_goes_back_in_lumps_and_all_of_it() {
        let link = link();
        link.take(RETURN_AT as usize - 1);
        assert_eq!(link.give_back(), None);
        link.take(2);
        assert_eq!(link.give_back(), Some(RETURN_AT as u32 + 1));
        assert_eq!(link.give_back(), None);
        assert_eq!(link.granted(), WINDOW as u64 + RETURN_AT + 1);
    }

    #[test]
    fn the_first_cause_of_an_end_stays() {
        let link = link();
        link.end(Ended::Stalled);
        link.end(Ended::Lost);
        assert_eq!(link.ended(), Some(Ended::Stalled));
    }
}
