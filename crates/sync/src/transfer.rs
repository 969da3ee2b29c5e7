//! Judging an offered head by what is held, and following one ledger up to it.
//!
//! Owns what a transfer remembers between two chunks, and what of it is outstanding: at most one
//! question to the peer, and a few verified chunks with the shell. Refuses heads that are shorter
//! than, contradict, or are not proven to extend what was signed before.
//!
//! A transfer ends when nothing of it is outstanding. So no late answer, of the peer or of the
//! shell, can be taken for one to a later question.

use std::collections::VecDeque;

use ledger::checkpoint::{self, Checkpoint};
use ledger::evidence::Evidence;
use ledger::frontier::Frontier;
use ledger::note::{Note, Verifier};
use ledger::verify;
use record::id::Origin;

use crate::chunk::{Delivery, Expected};
use crate::code::RejectCode;
use crate::limits::{NOTE_BYTES_MAX, STORING_MAX};
use crate::message::{Cosigned, Message, Rejected, Want};
use crate::output::{Bytes, Output};
use crate::trust::{Accept, Tail};

/// A signed head, its signature checked.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) checkpoint: Checkpoint,
    note: String,
}

/// One ledger on its way here.
#[derive(Debug)]
pub(crate) struct Transfer {
    verifier: Verifier,
    cosign: bool,
    /// After the chunk that was verified last, whether it is durable yet or not.
    frontier: Frontier,
    tail: Tail,
    /// The signed head seen last, stored with what is held; larger than the frontier after an
    /// interruption.
    known: Option<Checkpoint>,
    pub(crate) target: Head,
    /// Offered meanwhile; becomes the target with the next question.
    next: Option<Head>,
    /// Whether the peer's answer is awaited.
    asked: bool,
    /// What the shell is committing, oldest first; at most [`STORING_MAX`].
    storing: VecDeque<Storing>,
    course: Course,
}

/// Where a transfer is going.
#[derive(Debug)]
enum Course {
    /// To the target.
    Onward,
    /// Nowhere: the peer cannot give the target. Another offer sets it going again.
    Withdrawn,
    /// To its end, with this rejection unless it was sent already.
    Ending(Option<Reject>),
}

/// A chunk that the shell is committing.
#[derive(Debug)]
struct Storing {
    /// How many entries are durable with it.
    size: u64,
    completes: Option<Completes>,
}

/// The signed head that a chunk reaches.
#[derive(Debug)]
enum Completes {
    /// It is to be cosigned.
    Cosigned(Box<verify::Verified>),
    /// It is held, which is all that this node says of it.
    Held,
}

/// A rejection, before it is sent.
#[derive(Debug)]
pub(crate) struct Reject {
    pub(crate) code: RejectCode,
    detail: String,
    /// The own signed head, if that explains it.
    note: Option<String>,
    pub(crate) evidence: Option<Box<Evidence>>,
    /// It may pass by itself.
    pub(crate) passing: bool,
}

impl Reject {
    pub(crate) fn new(code: RejectCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            note: None,
            evidence: None,
            passing: false,
        }
    }

    fn with_note(mut self, note: &str) -> Self {
        // A stored note may have gathered more lines than a message carries.
        self.note = Some(note.to_owned()).filter(|note| note.len() <= NOTE_BYTES_MAX);
        self
    }

    fn shorter(offered: u64, own: u64) -> Self {
        Self::new(
            RejectCode::Shorter,
            format!(
                "the head of {offered} is shorter than the {own} already signed; fetch the rest back before signing"
            ),
        )
    }

    /// Evidence if both heads carry the log's signature; a mismatch otherwise.
    fn fork(own: &str, other: &str, size: u64, verifier: &Verifier) -> Self {
        match Evidence::from_notes(own.as_bytes(), other.as_bytes(), verifier) {
            Ok(evidence) => Self {
                evidence: Some(Box::new(evidence)),
                ..Self::new(
                    RejectCode::Fork,
                    format!(
                        "two signed heads of {size} have different roots; both are kept as evidence"
                    ),
                )
            },
            Err(_) => Self::new(
                RejectCode::Mismatch,
                format!(
                    "the head of {size} has another root than the one held; compare both ledgers"
                ),
            ),
        }
        .with_note(own)
    }
}

/// What an offer leads to.
pub(crate) enum Verdict {
    Current(Box<verify::Verified>),
    Behind(Box<Transfer>),
}

impl Transfer {
    /// Asks for what comes next, if something does and there is room for it.
    pub(crate) fn go_on(&mut self, origin: &Origin, out: &mut Vec<Output>) {
        let is_full = self.storing.len() >= STORING_MAX;
        if self.asked || is_full || self.is_ending() {
            return;
        }
        if let Some(next) = self.next.take() {
            self.target = next;
            self.course = Course::Onward;
        }
        let is_reached = self.frontier.size() == self.target.checkpoint.size();
        if matches!(self.course, Course::Onward) && !is_reached {
            self.asked = true;
            self.want(origin, out);
        }
    }

    fn want(&self, origin: &Origin, out: &mut Vec<Output>) {
        let message = Want {
            origin: origin.clone(),
            from: self.frontier.size(),
            head_size: self.target.checkpoint.size(),
            known_size: self.known().map(Checkpoint::size),
        };
        send(out, &Message::Want(message));
    }

    /// The head seen before that the target has yet to be proven to extend. One that the frontier
    /// has reached needs no proof: the entries themselves are it.
    fn known(&self) -> Option<&Checkpoint> {
        let between = self.frontier.size() + 1..self.target.checkpoint.size();
        self.known
            .as_ref()
            .filter(|known| between.contains(&known.size()))
    }

    pub(crate) fn expected<'a>(&'a self, origin: &'a Origin) -> Expected<'a> {
        Expected {
            origin,
            frontier: &self.frontier,
            tail: &self.tail,
            head: &self.target.checkpoint,
            note: &self.target.note,
            known: self.known(),
        }
    }

    /// Takes a head that was offered during the transfer; gives its size.
    pub(crate) fn offered(&mut self, note: String) -> Result<u64, Reject> {
        let head = open(note, &self.verifier)?;
        let size = head.checkpoint.size();
        for earlier in self.next.iter().chain([&self.target]) {
            if size == earlier.checkpoint.size()
                && head.checkpoint.root() != earlier.checkpoint.root()
            {
                return Err(Reject::fork(
                    &earlier.note,
                    &head.note,
                    size,
                    &self.verifier,
                ));
            }
        }
        let latest = self.next.as_ref().unwrap_or(&self.target);
        let latest_size = latest.checkpoint.size();
        if size < latest_size {
            return Err(Reject::shorter(size, latest_size).with_note(&latest.note));
        }
        // Offered anew, a head that could not be had may be had.
        if size > latest_size || !matches!(self.course, Course::Onward) {
            self.next = Some(head);
        }
        Ok(size)
    }

    /// Whether the peer's answer is awaited.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether it only waits for what is outstanding.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.course, Course::Ending(_))
    }

    /// Whether something is outstanding, of the peer or of the shell.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.asked || !self.storing.is_empty()
    }

    /// The answer came.
    pub(crate) fn answered(&mut self) {
        self.asked = false;
    }

    /// The peer answers that it cannot give what it was asked for.
    pub(crate) fn withdrawn(&mut self) {
        self.asked = false;
        if !self.is_ending() {
            self.course = Course::Withdrawn;
        }
    }

    /// Asks no more. What is outstanding is waited for, then the rejection is sent.
    pub(crate) fn fail(&mut self, reject: Reject) {
        if !self.is_ending() {
            self.course = Course::Ending(Some(reject));
            self.next = None;
        }
    }

    /// Asks no more, and waits for the shell alone: the rejection was sent, and the peer may drop
    /// its answer. Whether one was awaited.
    pub(crate) fn give_up(&mut self) -> bool {
        self.course = Course::Ending(None);
        self.next = None;
        std::mem::take(&mut self.asked)
    }

    /// At the end: the rejection that is still to be sent, and the note offered meanwhile.
    pub(crate) fn end(self) -> (Option<Reject>, Option<String>) {
        let reject = match self.course {
            Course::Ending(reject) => reject,
            Course::Onward | Course::Withdrawn => None,
        };
        (reject, self.next.map(|next| next.note))
    }

    /// Goes on from a chunk that was verified and is now the shell's to commit.
    pub(crate) fn follow(&mut self, origin: &Origin, delivery: &mut Delivery) {
        let held = delivery.held();
        self.frontier = held.frontier.clone();
        self.tail = held.tail.clone();
        self.known = Some(self.target.checkpoint.clone());
        let completes = delivery.is_complete().then(|| {
            if !self.cosign {
                return Completes::Held;
            }
            let note = self.target.note.as_bytes();
            let verified =
                verify::extension(&self.frontier, &[], note, &self.verifier, origin.as_str())
                    .expect("the chunk was proven to end in this signed head");
            delivery.may_be_cosigned(verified.clone());
            Completes::Cosigned(Box::new(verified))
        });
        self.storing.push_back(Storing {
            size: self.frontier.size(),
            completes,
        });
    }

    /// The oldest chunk is durable; answers for the head that it reaches. False when that was not
    /// the oldest.
    pub(crate) fn stored(&mut self, origin: &Origin, size: u64, out: &mut Vec<Output>) -> bool {
        let Some(stored) = self.storing.pop_front_if(|oldest| oldest.size == size) else {
            return false;
        };
        match stored.completes {
            Some(Completes::Held) => send_held(origin, size, out),
            Some(Completes::Cosigned(verified)) => out.push(Output::Cosign {
                origin: origin.clone(),
                verified,
            }),
            None => {}
        }
        true
    }

    /// The oldest chunk was not committed, so none of those behind it will be. False when there
    /// was none.
    pub(crate) fn not_stored(&mut self) -> bool {
        self.storing.pop_front().is_some()
    }
}

/// Compares an offered head with what is held.
pub(crate) fn judge(origin: &Origin, note: &str, accept: Accept) -> Result<Verdict, Reject> {
    let Accept {
        verifier,
        held,
        cosign,
    } = accept;
    if verifier.name() != origin.as_str() {
        return Err(Reject::new(
            RejectCode::NotAccepted,
            "no key of this ledger is known",
        ));
    }
    let head = open(note.to_owned(), &verifier)?;
    let (size, root) = (head.checkpoint.size(), *head.checkpoint.root());
    let mut known = None;
    if let Some(own) = held.as_ref().and_then(|held| own_head(&held.note)) {
        let own_note = held.as_ref().map_or("", |held| &held.note);
        if size < own.size() {
            return Err(Reject::shorter(size, own.size()).with_note(own_note));
        }
        if size == own.size() && root != *own.root() {
            return Err(Reject::fork(own_note, &head.note, size, &verifier));
        }
        known = Some(own);
    }
    let (frontier, tail) = held.map_or_else(Default::default, |held| (held.frontier, held.tail));
    if size < frontier.size() {
        return Err(Reject::shorter(size, frontier.size()));
    }
    if size > frontier.size() {
        return Ok(Verdict::Behind(Box::new(Transfer {
            verifier,
            cosign,
            frontier,
            tail,
            known,
            target: head,
            next: None,
            asked: false,
            storing: VecDeque::new(),
            course: Course::Onward,
        })));
    }
    verify::extension(&frontier, &[], note.as_bytes(), &verifier, origin.as_str())
        .map(|verified| Verdict::Current(Box::new(verified)))
        .map_err(|_| {
            Reject::new(
                RejectCode::Mismatch,
                format!("the head of {size} has another root than the entries held; compare both ledgers"),
            )
        })
}

/// The head in a note of our own store, which was verified when it was stored.
fn own_head(note: &str) -> Option<Checkpoint> {
    let note = Note::parse(note.as_bytes()).ok()?;
    Checkpoint::parse(note.text().as_bytes()).ok()
}

fn open(note: String, verifier: &Verifier) -> Result<Head, Reject> {
    match checkpoint::open(note.as_bytes(), verifier) {
        Ok(checkpoint) => Ok(Head { checkpoint, note }),
        Err(_) => Err(Reject::new(
            RejectCode::Signature,
            "the head is not signed by the ledger's owner; check which node signs it",
        )),
    }
}

pub(crate) fn send(out: &mut Vec<Output>, message: &Message) {
    out.push(Output::Send(Bytes(message.encode())));
}

/// Says that the head is held whole, without signing it.
pub(crate) fn send_held(origin: &Origin, size: u64, out: &mut Vec<Output>) {
    let message = Cosigned {
        origin: origin.clone(),
        size,
        lines: Vec::new(),
    };
    send(out, &Message::Cosigned(message));
}

/// Sends the rejection; gives its words.
pub(crate) fn send_rejected(
    origin: &Origin,
    held: u64,
    reject: &Reject,
    out: &mut Vec<Output>,
) -> String {
    let reason = reject.code.reason(&reject.detail);
    send(
        out,
        &Message::Rejected(Rejected {
            origin: origin.clone(),
            code: reject.code,
            size: held,
            reason: reason.clone(),
            note: reject.note.clone(),
        }),
    );
    reason
}
