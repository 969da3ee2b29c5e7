//! The ledgers that the peer offers: what is missing here, and what of it is sound.
//!
//! Owns the receiver's half of replication. Refuses shorter, forked and foreign heads, and chunks
//! that [`crate::chunk`] refuses; one ledger's trouble stops no other.

use std::collections::{BTreeMap, VecDeque};

use record::authority::Charter;
use record::id::Origin;

use crate::chunk;
use crate::code::RejectCode;
use crate::limits::{LEDGERS_MAX, TRANSFERS_MAX};
use crate::message::{Cosigned, Entries, Message, Offer, Rejected};
use crate::output::{LedgerStatus, Output, Side};
use crate::transfer::{Reject, Transfer, Verdict, judge, send, send_held, send_rejected};
use crate::trust::Trust;

#[derive(Debug, Default)]
pub(crate) struct Inbound {
    ledgers: BTreeMap<Origin, Ledger>,
    /// Ledgers whose latest note waits for a free transfer.
    queue: VecDeque<Origin>,
}

#[derive(Debug, Default)]
struct Ledger {
    held: u64,
    offered: u64,
    error: Option<String>,
    waiting: Option<String>,
    transfer: Option<Box<Transfer>>,
    /// A transfer was given up while its answer was awaited, which may come all the same.
    stale: bool,
}

impl Inbound {
    pub(crate) fn offered(
        &mut self,
        peer: &Charter,
        offer: Offer,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let Offer { origin, note } = offer;
        if !self.ledgers.contains_key(&origin) && self.ledgers.len() >= LEDGERS_MAX {
            let reject = Reject::new(RejectCode::TooMany, "offer it in another session");
            let (code, reason) = (reject.code, send_rejected(&origin, 0, &reject, out));
            out.push(Output::Declined {
                origin,
                code,
                reason,
                passing: false,
            });
            return;
        }
        let ledger = self.ledgers.entry(origin.clone()).or_default();
        let Some(transfer) = ledger.transfer.as_mut() else {
            self.evaluate(peer, &origin, note, trust, out);
            return;
        };
        match transfer.offered(note) {
            Ok(size) => {
                ledger.offered = size;
                transfer.go_on(&origin, out);
            }
            Err(reject) => {
                // A rejection ends the ledger's transfer on both sides.
                ledger.stale |= transfer.give_up();
                ledger.reject(&origin, reject, out);
                self.settle(peer, &origin, trust, out);
            }
        }
    }

    /// Asks on, or ends the transfer of a ledger of which nothing is outstanding.
    fn settle(
        &mut self,
        peer: &Charter,
        origin: &Origin,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let Some(ledger) = self.ledgers.get_mut(origin) else {
            return;
        };
        if let Some(transfer) = ledger.transfer.as_mut() {
            transfer.go_on(origin, out);
        }
        let Some(ended) = ledger.transfer.take_if(|t| !t.is_outstanding()) else {
            return;
        };
        let (reject, offered) = ended.end();
        if let Some(reject) = reject {
            ledger.reject(origin, reject, out);
        }
        if offered.is_some() {
            ledger.waiting = offered;
            self.queue.push_back(origin.clone());
        }
        self.start_waiting(peer, trust, out);
    }

    /// Judges an offer by what is held, and begins a transfer if there is room for one.
    fn evaluate(
        &mut self,
        peer: &Charter,
        origin: &Origin,
        note: String,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let busy = self
            .ledgers
            .values()
            .filter(|ledger| ledger.transfer.is_some());
        let is_full = busy.count() >= TRANSFERS_MAX;
        let Some(ledger) = self.ledgers.get_mut(origin) else {
            return;
        };
        ledger.waiting = None;
        let accept = match trust.accept(peer, origin, &note) {
            Ok(accept) => accept,
            Err(refusal) => {
                let mut reject = Reject::new(RejectCode::NotAccepted, refusal.reason);
                reject.passing = refusal.passing;
                ledger.reject(origin, reject, out);
                return;
            }
        };
        ledger.held = accept.held.as_ref().map_or(0, |held| held.frontier.size());
        let cosign = accept.cosign;
        match judge(origin, &note, accept) {
            Err(reject) => ledger.reject(origin, reject, out),
            Ok(Verdict::Current(verified)) => {
                ledger.offered = ledger.held;
                ledger.error = None;
                if cosign {
                    let origin = origin.clone();
                    out.push(Output::Cosign { origin, verified });
                } else {
                    send_held(origin, ledger.held, out);
                }
            }
            Ok(Verdict::Behind(mut transfer)) => {
                ledger.offered = transfer.target.checkpoint.size();
                if is_full {
                    ledger.waiting = Some(note);
                    if !self.queue.contains(origin) {
                        self.queue.push_back(origin.clone());
                    }
                } else {
                    transfer.go_on(origin, out);
                    ledger.transfer = Some(transfer);
                }
            }
        }
    }

    /// Goes on with ledgers that waited for a transfer to end.
    fn start_waiting(&mut self, peer: &Charter, trust: &dyn Trust, out: &mut Vec<Output>) {
        // Each is tried once; those for which there is still no room queue again, behind.
        for _ in 0..self.queue.len() {
            let busy = self
                .ledgers
                .values()
                .filter(|ledger| ledger.transfer.is_some());
            if busy.count() >= TRANSFERS_MAX {
                return;
            }
            let Some(origin) = self.queue.pop_front() else {
                return;
            };
            let waiting = self
                .ledgers
                .get_mut(&origin)
                .and_then(|ledger| ledger.waiting.take());
            if let Some(note) = waiting {
                self.evaluate(peer, &origin, note, trust, out);
            }
        }
    }

    pub(crate) fn entries(
        &mut self,
        peer: &Charter,
        entries: Entries,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let origin = entries.origin.clone();
        let Some(ledger) = self.ledgers.get_mut(&origin) else {
            return;
        };
        let Some(transfer) = ledger.transfer.as_mut().filter(|t| t.is_asked()) else {
            // Sent before the peer heard that the transfer was given up.
            return;
        };
        let expected = transfer.expected(&origin);
        if ledger.stale && !expected.is_answered_by(&entries) {
            ledger.stale = false;
            return;
        }
        let verified = chunk::verify(&expected, entries);
        transfer.answered();
        match verified {
            _ if transfer.is_ending() => {}
            Ok(mut delivery) => {
                transfer.follow(&origin, &mut delivery);
                // The next is asked for first: it comes while this one is committed.
                transfer.go_on(&origin, out);
                out.push(Output::Store(Box::new(delivery)));
                return;
            }
            Err(error) => transfer.fail(Reject::new(error.code(), error.to_string())),
        }
        self.settle(peer, &origin, trust, out);
    }

    pub(crate) fn stored(
        &mut self,
        peer: &Charter,
        origin: &Origin,
        size: u64,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let Some(ledger) = self.ledgers.get_mut(origin) else {
            return;
        };
        let Some(transfer) = ledger.transfer.as_mut() else {
            return;
        };
        if transfer.stored(origin, size, out) {
            ledger.held = size;
            ledger.error = None;
            self.settle(peer, origin, trust, out);
        }
    }

    pub(crate) fn not_stored(
        &mut self,
        peer: &Charter,
        origin: &Origin,
        reason: &str,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let Some(ledger) = self.ledgers.get_mut(origin) else {
            return;
        };
        let Some(transfer) = ledger.transfer.as_mut() else {
            return;
        };
        if transfer.not_stored() {
            transfer.fail(Reject::new(RejectCode::Unavailable, reason));
            self.settle(peer, origin, trust, out);
        }
    }

    /// The peer cannot give what it offered; a later offer, if it came already, goes on.
    pub(crate) fn withdrawn(
        &mut self,
        peer: &Charter,
        message: &Rejected,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        let Some(ledger) = self.ledgers.get_mut(&message.origin) else {
            return;
        };
        let Some(transfer) = ledger.transfer.as_mut().filter(|t| t.is_asked()) else {
            return;
        };
        ledger.error = Some(message.reason.clone());
        transfer.withdrawn();
        self.settle(peer, &message.origin, trust, out);
    }

    pub(crate) fn cosigned(
        &self,
        origin: &Origin,
        size: u64,
        lines: Vec<String>,
        out: &mut Vec<Output>,
    ) {
        if self.ledgers.contains_key(origin) {
            let origin = origin.clone();
            send(
                out,
                &Message::Cosigned(Cosigned {
                    origin,
                    size,
                    lines,
                }),
            );
        }
    }

    pub(crate) fn status(&self) -> impl Iterator<Item = LedgerStatus> {
        self.ledgers.iter().map(|(origin, ledger)| LedgerStatus {
            origin: origin.clone(),
            offered_by: Side::Peer,
            offered_size: ledger.offered,
            held_size: ledger.held,
            error: ledger.error.clone(),
        })
    }
}

impl Ledger {
    /// Tells the peer and the shell; nothing of what was offered is kept.
    fn reject(&mut self, origin: &Origin, mut reject: Reject, out: &mut Vec<Output>) {
        let reason = send_rejected(origin, self.held, &reject, out);
        self.error = Some(reason.clone());
        if let Some(evidence) = reject.evidence.take() {
            out.push(Output::Fork {
                origin: origin.clone(),
                evidence,
            });
        } else if reject.code.is_alarm() {
            out.push(Output::Alarm {
                origin: origin.clone(),
                code: reject.code,
                held: self.held,
                reason,
            });
        } else {
            out.push(Output::Declined {
                origin: origin.clone(),
                code: reject.code,
                reason,
                passing: reject.passing,
            });
        }
    }
}
