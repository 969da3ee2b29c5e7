//! The ledgers that this side offers: what the peer wants of them, holds of them, and signed.
//!
//! Owns the sender's half of replication. Refuses wants beyond what was offered or beyond the
//! number of transfers, and cosignatures that the peer's charter does not verify.

use std::collections::{BTreeMap, VecDeque};

use ledger::checkpoint::{Checkpoint, add_signature_line, verify_cosignature};
use ledger::note::{KeyKind, Note, SignatureLine, Verifier};
use record::authority::Charter;
use record::id::Origin;

use crate::code::{RejectCode, tidy};
use crate::limits::{
    CHUNK_BYTES_MAX, ITEMS_MAX, LEDGERS_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX, NOTES_KEPT_MAX,
    STORING_MAX, TRANSFERS_MAX,
};
use crate::message::{Cosigned, Entries, Message, Offer, Rejected, Want};
use crate::output::{Bytes, LedgerStatus, Load, Loaded, Output, Side};

/// Why a ledger was not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The session is not open, or closed again.
    #[error(
        "ledger `{origin}` cannot be offered before both nodes know each other; offer it once the session is open"
    )]
    NotOpen {
        /// Which ledger.
        origin: Origin,
    },
    /// The note is not a checkpoint of this ledger, or too large.
    #[error(
        "the note is not a checkpoint of `{origin}` of at most {NOTE_BYTES_MAX} bytes; offer the stored one"
    )]
    NotACheckpoint {
        /// Which ledger.
        origin: Origin,
    },
    /// The session has as many ledgers as it may.
    #[error(
        "ledger `{origin}` is one more than the {LEDGERS_MAX} that a session may have; offer it in another"
    )]
    TooMany {
        /// Which ledger.
        origin: Origin,
    },
}

/// The peer broke the protocol; the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WantError {
    #[error("the peer wants what was not offered")]
    NotOffered,
    #[error("the peer wants more ledgers at a time than a session may carry")]
    TooMany,
}

#[derive(Debug, Default)]
pub(crate) struct Outbound {
    ledgers: BTreeMap<Origin, Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Notes that were offered, by size: a cosignature may come for an earlier one.
    notes: BTreeMap<u64, String>,
    latest: u64,
    held: u64,
    /// Ends of the chunks sent last, which may not be durable yet; at most [`STORING_MAX`].
    sent: VecDeque<u64>,
    wanted: Option<Want>,
    error: Option<String>,
}

impl Ledger {
    fn keep(&mut self, size: u64, note: String) {
        self.notes.insert(size, note);
        self.latest = size;
        let wanted = self.wanted.as_ref().map(|want| want.head_size);
        while self.notes.len() > NOTES_KEPT_MAX {
            let oldest = self.notes.keys().find(|size| Some(**size) != wanted);
            let Some(oldest) = oldest.copied() else { break };
            self.notes.remove(&oldest);
        }
    }

    /// What a want says of what is durable at the peer: all, where it begins anew; else all but the
    /// last chunks.
    fn wants_from(&mut self, from: u64) {
        if self.sent.back() != Some(&from) {
            self.sent.clear();
            self.held = from;
        }
        while self.sent.len() >= STORING_MAX {
            self.held = self.sent.pop_front().unwrap_or(self.held).max(self.held);
        }
    }

    fn holds(&mut self, size: u64) {
        self.held = self.held.max(size);
        self.sent.retain(|end| *end > size);
    }
}

impl Outbound {
    pub(crate) fn offer(
        &mut self,
        origin: Origin,
        note: String,
        out: &mut Vec<Output>,
    ) -> Result<(), OfferError> {
        let Some(size) = checkpoint_size(&origin, &note) else {
            return Err(OfferError::NotACheckpoint { origin });
        };
        if !self.ledgers.contains_key(&origin) && self.ledgers.len() >= LEDGERS_MAX {
            return Err(OfferError::TooMany { origin });
        }
        let ledger = self.ledgers.entry(origin.clone()).or_default();
        ledger.keep(size, note.clone());
        send(out, &Message::Offer(Offer { origin, note }));
        Ok(())
    }

    pub(crate) fn want(&mut self, want: Want, out: &mut Vec<Output>) -> Result<(), WantError> {
        let busy = self
            .ledgers
            .values()
            .filter(|ledger| ledger.wanted.is_some());
        if busy.count() >= TRANSFERS_MAX {
            return Err(WantError::TooMany);
        }
        let Some(ledger) = self.ledgers.get_mut(&want.origin) else {
            return Err(WantError::NotOffered);
        };
        let known = want
            .known_size
            .is_none_or(|known| want.from < known && known < want.head_size);
        let offered = want.head_size <= ledger.latest;
        if ledger.wanted.is_some() || want.from >= want.head_size || !known || !offered {
            return Err(WantError::NotOffered);
        }
        ledger.wants_from(want.from);
        ledger.error = None;
        out.push(Output::Load(Load {
            origin: want.origin.clone(),
            from: want.from,
            head_size: want.head_size,
            known_size: want.known_size,
            max_bytes: CHUNK_BYTES_MAX,
        }));
        ledger.wanted = Some(want);
        Ok(())
    }

    pub(crate) fn loaded(&mut self, loaded: Loaded, out: &mut Vec<Output>) {
        let Some(ledger) = self.ledgers.get_mut(&loaded.origin) else {
            return;
        };
        let asked = ledger
            .wanted
            .as_ref()
            .is_some_and(|want| want.from == loaded.from && want.head_size == loaded.head_size);
        if !asked {
            // The peer gave the transfer up while the shell was reading.
            return;
        }
        let (count, origin) = (loaded.items.len(), loaded.origin.clone());
        let end = loaded.from + count as u64;
        let bytes = Message::Entries(Entries {
            origin: loaded.origin,
            head_size: loaded.head_size,
            first: loaded.from,
            items: loaded.items,
            proof: loaded.proof,
            extends: loaded.extends,
        })
        .encode();
        if count == 0 || count > ITEMS_MAX || bytes.len() > MESSAGE_BYTES_MAX {
            self.cannot_load(&origin, "the entries do not fit a message", out);
            return;
        }
        ledger.wanted = None;
        ledger.sent.push_back(end);
        out.push(Output::Send(Bytes(bytes)));
    }

    pub(crate) fn cannot_load(&mut self, origin: &Origin, reason: &str, out: &mut Vec<Output>) {
        let Some(ledger) = self.ledgers.get_mut(origin) else {
            return;
        };
        if ledger.wanted.take().is_none() {
            return;
        }
        let reason = RejectCode::Unavailable.reason(reason);
        ledger.error = Some(reason.clone());
        send(
            out,
            &Message::Rejected(Rejected {
                origin: origin.clone(),
                code: RejectCode::Unavailable,
                size: ledger.latest,
                reason,
                note: None,
            }),
        );
    }

    /// Gives the lines on, if every one of them is the peer's.
    pub(crate) fn cosigned(&mut self, peer: &Charter, message: Cosigned, out: &mut Vec<Output>) {
        let Cosigned {
            origin,
            size,
            lines,
        } = message;
        let Some(ledger) = self.ledgers.get_mut(&origin) else {
            return;
        };
        if lines.is_empty() && size <= ledger.latest {
            // Held whole by a peer that does not sign this ledger.
            ledger.holds(size);
            ledger.error = None;
            return;
        }
        let Some(note) = ledger.notes.get(&size) else {
            // For a head that so many others followed that its note is not kept.
            return;
        };
        if !lines.iter().all(|line| is_cosignature(peer, note, line)) {
            let reason = RejectCode::Signature.reason(&format!(
                "a cosignature from `{}` on the head of {size} does not verify with its charter",
                peer.division
            ));
            ledger.error = Some(reason.clone());
            out.push(Output::Alarm {
                origin,
                code: RejectCode::Signature,
                held: ledger.latest,
                reason,
            });
            return;
        }
        ledger.holds(size);
        ledger.error = None;
        out.push(Output::Cosigned {
            origin,
            size,
            lines,
        });
    }

    /// Whether the rejection was of something that this side offered.
    pub(crate) fn rejected(&mut self, message: &Rejected, out: &mut Vec<Output>) {
        let Some(ledger) = self.ledgers.get_mut(&message.origin) else {
            return;
        };
        ledger.wanted = None;
        ledger.sent.clear();
        ledger.held = message.size.min(ledger.latest);
        ledger.error = Some(message.reason.clone());
        out.push(Output::Rejected {
            origin: message.origin.clone(),
            code: message.code,
            size: message.size,
            reason: tidy(&message.reason),
            note: message.note.clone(),
        });
    }

    pub(crate) fn status(&self) -> impl Iterator<Item = LedgerStatus> {
        self.ledgers.iter().map(|(origin, ledger)| LedgerStatus {
            origin: origin.clone(),
            offered_by: Side::Own,
            offered_size: ledger.latest,
            held_size: ledger.held,
            error: ledger.error.clone(),
        })
    }
}

fn send(out: &mut Vec<Output>, message: &Message) {
    out.push(Output::Send(Bytes(message.encode())));
}

fn checkpoint_size(origin: &Origin, note: &str) -> Option<u64> {
    if note.len() > NOTE_BYTES_MAX {
        return None;
    }
    let note = Note::parse(note.as_bytes()).ok()?;
    let checkpoint = Checkpoint::parse(note.text().as_bytes()).ok()?;
    (checkpoint.origin() == origin.as_str()).then_some(checkpoint.size())
}

/// Whether the line is by one of the two cosigning keys of the peer's charter, on this note.
fn is_cosignature(peer: &Charter, note: &str, line: &str) -> bool {
    let Ok(parsed) = SignatureLine::parse(line.as_bytes()) else {
        return false;
    };
    let Ok(signed) = unsigned_by(note, &parsed)
        .and_then(|note| add_signature_line(note.as_bytes(), line.as_bytes()))
    else {
        return false;
    };
    [
        (witness_name(peer), &peer.keys.witness),
        (held_name(peer), &peer.keys.held),
    ]
    .iter()
    .filter(|(name, _)| name == parsed.name())
    .filter_map(|(name, key)| Verifier::new(name, KeyKind::Cosignature, key).ok())
    .any(|verifier| {
        parsed.id() == verifier.id() && verify_cosignature(signed.as_bytes(), &verifier).is_ok()
    })
}

/// The note without lines by the signer of this line, so that the line is checked alone.
fn unsigned_by(note: &str, line: &SignatureLine) -> Result<String, ledger::note::NoteError> {
    let note = Note::parse(note.as_bytes())?;
    let mut kept = format!("{}\n", note.text());
    for other in note.signatures() {
        if other.name() != line.name() || other.id() != line.id() {
            kept.push_str(&other.to_string());
        }
    }
    Ok(kept)
}

/// The name of a node's witness key: that the head extends what the node held.
pub fn witness_name(charter: &Charter) -> String {
    format!("{}/{}/witness", charter.realm, charter.division)
}

/// The name of a node's held key: that entries and bodies up to the head are durable there.
pub fn held_name(charter: &Charter) -> String {
    format!("{}/{}/held", charter.realm, charter.division)
}
