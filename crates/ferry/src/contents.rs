//! That the frames are those which the manifest declares: each ledger offered once, in order, its
//! entries gapless from where it begins up to its signed head, and nothing else.
//!
//! Owns the order of frames. Refuses a payload that says other than the manifest in clear, so that
//! what a boundary scanner saw is what the receiver gets.

use ledger::checkpoint::Checkpoint;
use ledger::note::Note;
use record::id::Origin;
use sync::Message;

use crate::limits::EXTENDS_MAX;
use crate::manifest::{Kind, LedgerRange, Manifest};
use crate::payload::Frame;

/// Why the contents are not what the manifest declares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A frame that has no place in a file, or not in this place.
    #[error(
        "第 {at} 帧不应在此 / frame {at} has no place there: {what}; ask the sender to pack again"
    )]
    OutOfPlace {
        /// Which.
        at: u64,
        /// In words.
        what: &'static str,
    },
    /// A ledger is not as declared.
    #[error(
        "账本 `{origin}` 与清单不符 / ledger `{origin}` is not what the manifest declares: {what}; ask the sender to pack again"
    )]
    Differs {
        /// Which ledger.
        origin: Origin,
        /// In words.
        what: &'static str,
    },
    /// Another number of frames or of ledgers.
    #[error(
        "帧数或账本数与清单不符 / there are fewer or more frames or ledgers than the manifest declares; ask the sender to pack again"
    )]
    Count,
}

/// Follows the frames of one payload.
#[derive(Debug)]
pub struct Contents<'m> {
    manifest: &'m Manifest,
    frames: u64,
    /// Ledgers whose offer came.
    offered: usize,
    /// Index of the entry that must come next, within the ledger offered last.
    next: u64,
    extends: usize,
}

impl<'m> Contents<'m> {
    /// What a manifest declares.
    pub fn new(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            frames: 0,
            offered: 0,
            next: 0,
            extends: 0,
        }
    }

    /// The ledger whose entries are awaited.
    fn open(&self) -> Option<&'m LedgerRange> {
        let ledger = self.manifest.ledgers.get(self.offered.checked_sub(1)?)?;
        (self.next < ledger.to).then_some(ledger)
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn take(&mut self, frame: &Frame) -> Result<(), ContentError> {
        let at = self.frames;
        self.frames += 1;
        let out_of_place = |what| Err(ContentError::OutOfPlace { at, what });
        if self.frames > self.manifest.payload.frames {
            return Err(ContentError::Count);
        }
        let open = self.open();
        match frame {
            Frame::Message(message) => match (message.as_ref(), open) {
                (Message::Cosigned(_) | Message::Rejected(_) | Message::Seen(_), None) => Ok(()),
                (Message::Offer(offer), None) if self.manifest.kind == Kind::Bundle => {
                    self.offer(&offer.origin, &offer.note)
                }
                (Message::Entries(entries), Some(ledger)) => {
                    let differs = |what| {
                        let origin = ledger.origin.clone();
                        Err(ContentError::Differs { origin, what })
                    };
                    if entries.origin != ledger.origin || entries.head_size != ledger.to {
                        return differs("entries of another ledger or head");
                    }
                    let count = entries.items.len() as u64;
                    if entries.first != self.next || count == 0 || count > ledger.to - self.next {
                        return differs("entries are missing, doubled or out of order");
                    }
                    if !entries.extends.is_empty() {
                        return differs("a proof that has a frame of its own");
                    }
                    self.next += count;
                    Ok(())
                }
                (_, Some(_)) => out_of_place("a ledger's entries are awaited"),
                _ => out_of_place("such a message is not for a file"),
            },
            Frame::Extends(extends) => match open {
                Some(ledger)
                    if extends.origin == ledger.origin
                        && self.next == ledger.from
                        && self.extends < EXTENDS_MAX
                        && (ledger.from + 1..ledger.to).contains(&extends.known_size) =>
                {
                    self.extends += 1;
                    Ok(())
                }
                _ => out_of_place("a proof of no offered head"),
            },
        }
    }

    fn offer(&mut self, origin: &Origin, note: &str) -> Result<(), ContentError> {
        let differs = |what| {
            let origin = origin.clone();
            Err(ContentError::Differs { origin, what })
        };
        let Some(ledger) = self.manifest.ledgers.get(self.offered) else {
            return Err(ContentError::Count);
        };
        if ledger.origin != *origin {
            return differs("another ledger is declared next");
        }
        let note = Note::parse(note.as_bytes()).ok();
        let head = note.and_then(|note| Checkpoint::parse(note.text().as_bytes()).ok());
        let same = head.is_some_and(|head| {
            head.origin() == origin.as_str()
                && head.size() == ledger.to
                && *head.root() == ledger.root.0
        });
        if !same {
            return differs("another head");
        }
        self.offered += 1;
        self.next = ledger.from;
        self.extends = 0;
        Ok(())
    }

    /// That nothing is left to come.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn finish(&self) -> Result<(), ContentError> {
        if let Some(ledger) = self.open() {
            let (origin, what) = (ledger.origin.clone(), "its last entries are missing");
            return Err(ContentError::Differs { origin, what });
        }
        let whole = self.offered == self.manifest.ledgers.len();
        match whole && self.frames == self.manifest.payload.frames {
            true => Ok(()),
            false => Err(ContentError::Count),
        }
    }
}
