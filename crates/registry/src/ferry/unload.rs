//! The second pass of opening: each frame goes through a session, as if the sender were on the line.
//!
//! Owns the answers that a file cannot give by itself: what the session wants is looked up in the frames
//! that follow, what it would send is kept for the receipt. Refuses nothing itself; `sync` does.

use std::collections::{BTreeMap, VecDeque};

use ferry::Frame;
use ledger::evidence::{Evidence, Form};
use ledger::hash::Hash;
use ledger::tile::TreeEdge;
use minicbor::bytes::ByteVec;
use record::id::{Origin, UnixMillis};
use sync::Message;
use sync::code::RejectCode;
use sync::message::{Entries, Offer, Rejected, Want};
use sync::output::Output;

use super::Course;
use super::open::OpenReport;
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::node::{Registry, lock};
use crate::table::{self, Head, Tiles};

/// The second pass.
pub(super) struct Unloading<'r> {
    pub(super) registry: &'r Registry,
    pub(super) line: sync::session::Session,
    pub(super) now: UnixMillis,
    pub(super) report: OpenReport,
    pub(super) course: Course,
    /// What the session asked for and the next entries answer.
    pub(super) want: Option<Want>,
    /// Proofs from earlier heads of the ledger offered last.
    pub(super) proofs: BTreeMap<u64, Vec<Hash>>,
    /// Why a ledger was not taken to its end.
    pub(super) noted: BTreeMap<Origin, String>,
}

impl Unloading<'_> {
    pub(super) fn frame(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Extends(extends) => {
                self.proofs.insert(extends.known_size, extends.hashes());
                Ok(())
            }
            Frame::Message(message) => match *message {
                Message::Offer(offer) => self.offer(offer),
                Message::Entries(entries) => self.entries(entries),
                Message::Cosigned(cosigned) => {
                    let size = cosigned.size;
                    self.offer_again(
                        &cosigned.origin,
                        (!cosigned.lines.is_empty()).then_some(size),
                    )?;
                    self.receive(&Message::Cosigned(cosigned))
                }
                Message::Rejected(rejected) => {
                    self.offer_again(&rejected.origin, None)?;
                    self.receive(&Message::Rejected(rejected))
                }
                other => self.receive(&other),
            },
        }
    }

    fn receive(&mut self, message: &Message) -> Result<()> {
        let outputs = self
            .line
            .receive(&message.encode(), self.now, self.registry);
        self.perform(outputs)
    }

    fn offer(&mut self, offer: Offer) -> Result<()> {
        self.want = None;
        self.proofs.clear();
        let head = checkpoint_of(&offer.note)?;
        let held = Head::read(self.registry.store.as_ref(), &offer.origin)?;
        // A line may have been faster than the disk: that is no rewritten history. But an earlier
        // disk was not, and a sender that showed more on it was restored from an old copy.
        let brought = self.course.brought.get(&offer.origin).copied();
        if head.size() < held.size
            && brought.is_none_or(|brought| brought <= head.size())
            && self
                .registry
                .went_through(&offer.origin, head.size(), head.root())?
        {
            return Ok(());
        }
        let target = held.target.as_deref().map(checkpoint_of).transpose()?;
        if target.is_some_and(|target| target.size() > head.size()) {
            let words = "一次未完的传输在等更新的账头 / a transfer that was cut off waits for a newer head; open the bundle or the line that showed it";
            let (origin, size) = (offer.origin, held.size);
            self.not_taken(origin, size, words);
            return Ok(());
        }
        self.receive(&Message::Offer(offer))
    }

    /// Answers what the session wants from what the file has.
    fn entries(&mut self, mut entries: Entries) -> Result<()> {
        let Some(want) = self.want.as_ref().filter(|w| w.origin == entries.origin) else {
            return Ok(());
        };
        let end = entries.first + entries.items.len() as u64;
        if end <= want.from {
            return Ok(());
        }
        let known = want.known_size.map(|size| self.proofs.get(&size).cloned());
        let why = if entries.first > want.from {
            Some(
                "本包起点之前缺条目 / entries before those of this bundle are missing here; let the sender pack with an earlier `--since`",
            )
        } else if known == Some(None) {
            Some(
                "一次未完的传输在等另一账头 / a transfer that was cut off waits for another head; open the bundle that had it",
            )
        } else {
            None
        };
        let from = want.from;
        self.want = None;
        if let Some(words) = why {
            let rejected = self.not_taken(entries.origin, from, words);
            // The session need not wait for it.
            return self.receive(&rejected);
        }
        let skip = usize::try_from(from - entries.first).unwrap_or(usize::MAX);
        entries.items.drain(..skip);
        entries.first = from;
        entries.extends = known.flatten().unwrap_or_default();
        self.receive(&Message::Entries(entries))
    }

    /// Remembers for the receipt that a ledger did not come to its end here.
    fn not_taken(&mut self, origin: Origin, size: u64, words: &str) -> Message {
        let reject = |origin: Origin| {
            Message::Rejected(Rejected {
                origin,
                code: RejectCode::Unavailable,
                size,
                reason: words.to_owned(),
                note: None,
            })
        };
        self.noted.insert(origin.clone(), words.to_owned());
        let message = reject(origin.clone());
        self.course
            .rejected
            .insert(origin, ByteVec::from(message.encode()));
        message
    }

    /// Shows the session what was packed for the sender, as it answers that.
    fn offer_again(&mut self, origin: &Origin, size: Option<u64>) -> Result<()> {
        let note = match size {
            Some(size) => self.registry.note_of(origin, size)?,
            None => Head::read(self.registry.store.as_ref(), origin)?.whole,
        };
        if let Some(note) = note {
            // What it would send is in the bundle that is answered.
            let _ = self.line.offer(origin.clone(), note);
        }
        Ok(())
    }

    fn perform(&mut self, outputs: Vec<Output>) -> Result<()> {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            for output in self.one(output)?.into_iter().rev() {
                outputs.push_front(output);
            }
        }
        Ok(())
    }

    fn one(&mut self, output: Output) -> Result<Vec<Output>> {
        let (registry, now) = (self.registry, self.now);
        match output {
            Output::Send(bytes) => self.sent(&bytes.0),
            Output::Store(delivery) => {
                let origin = delivery.origin().clone();
                let count = delivery.items().len() as u64;
                match registry.keep(*delivery, now) {
                    Ok(size) => {
                        self.report.entries += count;
                        return Ok(self.line.stored(&origin, size, registry));
                    }
                    // An act that nobody was entitled to: the ledger's trouble, not the disk's.
                    Err(error @ RegistryError::Damaged { .. }) => {
                        let words = error.to_string();
                        return Ok(self.line.not_stored(&origin, &words, registry));
                    }
                    Err(error) => return Err(error),
                }
            }
            Output::Cosign { origin, verified } => match registry.cosign(&verified, now) {
                Ok((size, lines)) => return Ok(self.line.cosigned(&origin, size, lines)),
                Err(RegistryError::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(%origin, %error, "a head was not cosigned; the receipt tries again");
                }
            },
            Output::Cosigned {
                origin,
                size,
                lines,
            } => {
                registry.cosigned(&origin, size, &lines, now)?;
                self.course.again.remove(&origin);
            }
            Output::Fork { origin, evidence } => {
                registry.count_refusal("fork", 1);
                registry.fork(&origin, signed_notes(&evidence), now);
            }
            Output::Seen {
                origin,
                checkpoint,
                note,
            } => registry.head_seen(&origin, &checkpoint, &note, now)?,
            Output::Alarm {
                origin,
                code,
                reason,
                ..
            } => {
                registry.count_refusal(code.as_str(), 1);
                if code == RejectCode::Shorter {
                    registry.owner_is_behind(&origin);
                }
                registry.alarm(&origin, code.as_str(), &reason, Vec::new(), now);
            }
            Output::Declined { code, .. } => registry.count_refusal(code.as_str(), 1),
            Output::Rejected {
                origin,
                code,
                size,
                reason,
                note,
            } => {
                let told =
                    code == RejectCode::Shorter && registry.told_of_more(&origin, note.as_deref());
                let passing = [RejectCode::NotAccepted, RejectCode::Unavailable].contains(&code);
                if !told && !passing {
                    let words = format!("the peer rejects this ledger: {reason}");
                    let code = format!("rejected-{}", code.as_str());
                    registry.alarm(&origin, &code, &words, Vec::new(), now);
                }
                // The next bundle goes on from what it has.
                self.course.again.insert(origin, size);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// What a session sends, a file cannot answer at once: a want is answered from the file, the rest
    /// is for the receipt.
    fn sent(&mut self, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Want(want)) => self.want = Some(want),
            Ok(Message::Rejected(rejected)) => {
                self.noted
                    .insert(rejected.origin.clone(), rejected.reason.clone());
                self.course
                    .rejected
                    .insert(rejected.origin, ByteVec::from(bytes.to_vec()));
            }
            Ok(Message::Cosigned(cosigned)) => {
                self.course.rejected.remove(&cosigned.origin);
            }
            _ => {}
        }
    }
}

/// The signed checkpoints of a piece of evidence.
fn signed_notes(evidence: &Evidence) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match evidence.form() {
        Form::Roots { notes } => notes.iter().map(|note| text(note)).collect(),
        Form::Leaves { proofs, .. } => proofs.iter().map(|proof| text(proof.note())).collect(),
    }
}

impl Registry {
    /// A checkpoint of a ledger of exactly this size, for the sender to look a cosignature up by.
    fn note_of(&self, origin: &Origin, size: u64) -> Result<Option<String>> {
        let store = self.store.as_ref();
        if origin.division() == self.config.division {
            let book = self.book(origin)?;
            let book = lock(&book);
            if size > book.size() {
                return Ok(None);
            }
            let note = book.checkpoint_at(store, size, &self.keys.unlocked()?.sign)?;
            return Ok(Some(note));
        }
        let head = Head::read(store, origin)?;
        for note in head.whole.into_iter().chain(head.cosigned) {
            if checkpoint_of(&note)?.size() == size {
                return Ok(Some(note));
            }
        }
        let note = store.get(&table::note(origin, size))?;
        Ok(note.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a head is one that this ledger went through here.
    fn went_through(&self, origin: &Origin, size: u64, root: &Hash) -> Result<bool> {
        let store = self.store.as_ref();
        let edge = TreeEdge::load(&Tiles { store, origin }, size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}`: {e}")))?;
        Ok(edge.frontier().root() == *root)
    }
}
