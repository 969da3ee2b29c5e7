//! The messages of a session, as canonical CBOR: `[1, type, map]`.
//!
//! Owns every byte that two nodes exchange. Refuses what is over a limit, not canonical, of
//! another version, or has text that a screen should not show.

use minicbor::{Decode, Decoder, Encode, Encoder};
use record::authority::{CHARTER_MAX, Charter, NodeKeys, Renewal, SUCCESSIONS_MAX, Succession};
use record::cbor::{self, CborError};
use record::entry::ENTRY_MAX;
use record::id::{DivisionId, Hash, Origin, Realm, UnixMillis};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::code::{RefusalCode, RejectCode};
use crate::limits::{
    BODY_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX, REASON_BYTES_MAX,
    SEAL_KEY_BYTES_MAX, VERSION,
};
use crate::recovery::{PIECE_BYTES_MAX, Recovery};
use crate::wire;

/// One message. `docs/formats/sync.md` shows who sends which, when.
#[derive(Debug)]
pub enum Message {
    /// A node without a charter asks for one.
    Enrol(Enrol),
    /// The charter, and those above it.
    Enrolled(Enrolled),
    /// The dialer says who it is.
    Hello(Hello),
    /// The listener says who it is; from here on both may offer ledgers.
    Welcome(Welcome),
    /// The session is refused.
    Refused(Refused),
    /// The head of a ledger that the peer may have.
    Offer(Offer),
    /// What of it is missing.
    Want(Want),
    /// Entries and bodies, with the proof that they belong to the offered head.
    Entries(Entries),
    /// Signature lines on an offered head.
    Cosigned(Cosigned),
    /// An offer, or what followed from it, is not accepted.
    Rejected(Rejected),
    /// Signed heads that the sender has seen: one, or two that contradict each other.
    Seen(Seen),
    /// A chartered node asks its parent for a charter of new keys; the answer is as to `Enrol`.
    Renew(Renewal),
    /// A new machine in the place of a lost node asks for its recovery file, or a piece of it.
    Recovery(Recovery),
}

/// What the sender knows of how the realm's root changed its key, the oldest first; most often nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Successions(pub Vec<Succession>);

impl<C> Encode<C> for Successions {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }

    fn is_nil(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'b, C> Decode<'b, C> for Successions {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        wire::list(d, ctx, SUCCESSIONS_MAX).map(Self)
    }

    fn nil() -> Option<Self> {
        Some(Self::default())
    }
}

/// The one-time secret of an enrolment, wiped when dropped.
#[derive(Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(transparent)]
pub struct Secret(#[cbor(with = "minicbor::bytes")] [u8; 32]);

impl Secret {
    /// Takes the 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes; compare them in constant time.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// See [`Message::Enrol`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub struct Enrol {
    /// The division that the node is to be.
    #[n(0)]
    pub division: DivisionId,
    /// What the parent's officer handed over.
    #[n(1)]
    pub secret: Secret,
    /// The keys to be chartered.
    #[n(2)]
    pub keys: NodeKeys,
}

/// See [`Message::Enrolled`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Enrolled {
    /// The new charter first, the root's last.
    #[cbor(n(0), with = "wire::chain")]
    pub chain: Vec<Charter>,
}

/// See [`Message::Hello`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The realm that the dialer belongs to.
    #[n(0)]
    pub realm: Realm,
    /// The dialer's charter first, the root's last.
    #[cbor(n(1), with = "wire::chain")]
    pub chain: Vec<Charter>,
    /// The dialer's clock.
    #[n(2)]
    pub now: UnixMillis,
    /// How the root came to its key; left out when it has its first.
    #[n(3)]
    pub successions: Successions,
}

/// See [`Message::Welcome`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The listener's charter first, the root's last.
    #[cbor(n(0), with = "wire::chain")]
    pub chain: Vec<Charter>,
    /// The listener's clock.
    #[n(1)]
    pub now: UnixMillis,
    /// How the root came to its key; left out when it has its first.
    #[n(2)]
    pub successions: Successions,
}

/// See [`Message::Refused`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// Why, for programs.
    #[n(0)]
    pub code: RefusalCode,
    /// Why, for people: Chinese, then English.
    #[n(1)]
    pub reason: String,
}

/// See [`Message::Offer`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// The signed checkpoint, with the signatures that the sender has.
    #[n(1)]
    pub note: String,
}

/// See [`Message::Want`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Want {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// Index of the first entry wanted: the number of entries held.
    #[n(1)]
    pub from: u64,
    /// Size of the offered head that the entries are to be proven against.
    #[n(2)]
    pub head_size: u64,
    /// Size of an earlier head, above `from` and below `head_size`, that the receiver holds a
    /// note of from an interrupted transfer: the new head must be proven to extend it.
    #[n(3)]
    pub known_size: Option<u64>,
}

/// See [`Message::Entries`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Entries {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// As in the [`Want`] that is answered.
    #[n(1)]
    pub head_size: u64,
    /// Index of the first entry.
    #[n(2)]
    pub first: u64,
    /// The entries, at least one.
    #[cbor(n(3), with = "wire::items")]
    pub items: Vec<Item>,
    /// Consistency proof from `first` + the number of items to `head_size`; empty when equal.
    #[cbor(n(4), with = "wire::hashes")]
    pub proof: Vec<Hash>,
    /// Consistency proof from the `known_size` of the [`Want`] to `head_size`; else empty.
    #[cbor(n(5), with = "wire::hashes")]
    pub extends: Vec<Hash>,
}

/// An entry and what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Item {
    /// The canonical bytes of the entry.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub entry: Vec<u8>,
    /// The sealed body, if the entry names one and it was not destroyed.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Option<Vec<u8>>,
    /// Why the body that the entry names is not there.
    #[n(2)]
    pub gone: Option<Gone>,
}

/// The proof that a body was destroyed by the rules: the later entry that says so.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Gone {
    /// Index of the later entry, below the offered head's size.
    #[n(0)]
    pub index: u64,
    /// Its canonical bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub entry: Vec<u8>,
    /// Inclusion proof of it under the offered head.
    #[cbor(n(2), with = "wire::hashes")]
    pub proof: Vec<Hash>,
}

/// See [`Message::Cosigned`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Cosigned {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// Size of the head that was signed.
    #[n(1)]
    pub size: u64,
    /// C2SP signature lines, each with its newline; none says only that the head is held whole.
    #[cbor(n(2), with = "wire::lines")]
    pub lines: Vec<String>,
}

/// See [`Message::Seen`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Seen {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// One signed head, or two of one size with different roots.
    #[n(1)]
    pub notes: Vec<String>,
}

/// See [`Message::Rejected`].
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Rejected {
    /// Which ledger.
    #[n(0)]
    pub origin: Origin,
    /// Why, for programs.
    #[n(1)]
    pub code: RejectCode,
    /// How many entries the sender of this message holds.
    #[n(2)]
    pub size: u64,
    /// Why, for people: Chinese, then English.
    #[n(3)]
    pub reason: String,
    /// The signed checkpoint that the sender of this message holds, if that explains it.
    #[n(4)]
    pub note: Option<String>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Of another version of the protocol.
    #[error(
        "the message is of protocol version {version}, this node speaks {VERSION}; update the older of the two nodes"
    )]
    Version {
        /// The version found.
        version: u8,
    },
    /// Too long, damaged, or not canonical.
    #[error(transparent)]
    Format(#[from] CborError),
    /// Text for people that has control characters.
    #[error("{what} has control characters; its sender must leave them out")]
    Text {
        /// Which field.
        what: &'static str,
    },
}

impl Message {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a message from exactly these bytes.
    ///
    /// # Errors
    /// [`MessageError`]; nothing is repaired.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Self::decode_within(bytes, MESSAGE_BYTES_MAX)
    }

    /// [`Message::decode`] with a tighter limit, for peers that are not known yet.
    pub(crate) fn decode_within(bytes: &[u8], max: usize) -> Result<Self, MessageError> {
        let mut start = Decoder::new(bytes);
        if let (Ok(Some(3)), Ok(version)) = (start.array(), start.u8())
            && version != VERSION
        {
            return Err(MessageError::Version { version });
        }
        let message: Message = cbor::from_slice("message", bytes, max)?;
        message.check()?;
        Ok(message)
    }

    /// The limits that the shape alone does not impose.
    fn check(&self) -> Result<(), MessageError> {
        match self {
            Message::Enrol(m) => within("sealing key", m.keys.seal.len(), SEAL_KEY_BYTES_MAX),
            Message::Enrolled(Enrolled { chain }) => charters(chain),
            Message::Hello(Hello {
                chain, successions, ..
            })
            | Message::Welcome(Welcome {
                chain, successions, ..
            }) => {
                charters(chain)?;
                let shown = successions.0.iter();
                charters(shown.flat_map(|succession| [&succession.before, &succession.charter]))
            }
            Message::Renew(m) => within("sealing key", m.keys.seal.len(), SEAL_KEY_BYTES_MAX),
            Message::Recovery(Recovery::Ask(_)) => Ok(()),
            Message::Recovery(Recovery::Piece(m)) => {
                within("piece of a recovery file", m.bytes.len(), PIECE_BYTES_MAX)
            }
            Message::Refused(m) => words(&m.reason),
            Message::Offer(m) => within("note", m.note.len(), NOTE_BYTES_MAX),
            Message::Want(_) => Ok(()),
            Message::Entries(m) => m.items.iter().try_for_each(Item::check),
            Message::Cosigned(m) => m
                .lines
                .iter()
                .try_for_each(|line| within("cosignature line", line.len(), LINE_BYTES_MAX)),
            Message::Rejected(m) => {
                words(&m.reason)?;
                let note = m.note.as_ref().map_or(0, String::len);
                within("note", note, NOTE_BYTES_MAX)
            }
            Message::Seen(m) => {
                within("list of notes", m.notes.len(), 2)?;
                m.notes
                    .iter()
                    .try_for_each(|note| within("note", note.len(), NOTE_BYTES_MAX))
            }
        }
    }

    /// The message's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Enrol(_) => "Enrol",
            Message::Enrolled(_) => "Enrolled",
            Message::Hello(_) => "Hello",
            Message::Welcome(_) => "Welcome",
            Message::Refused(_) => "Refused",
            Message::Offer(_) => "Offer",
            Message::Want(_) => "Want",
            Message::Entries(_) => "Entries",
            Message::Cosigned(_) => "Cosigned",
            Message::Rejected(_) => "Rejected",
            Message::Seen(_) => "Seen",
            Message::Renew(_) => "Renew",
            Message::Recovery(_) => "Recovery",
        }
    }
}

impl Item {
    /// Bytes that the item takes in a message, at most.
    pub fn size_bytes(&self) -> usize {
        // Map and length headers of CBOR are under 48 bytes per item.
        let gone = self.gone.as_ref();
        let gone = gone.map_or(0, |gone| gone.entry.len() + 32 * gone.proof.len());
        self.entry.len() + self.body.as_ref().map_or(0, Vec::len) + gone + 48
    }

    fn check(&self) -> Result<(), MessageError> {
        within("entry", self.entry.len(), ENTRY_MAX)?;
        within(
            "body",
            self.body.as_ref().map_or(0, Vec::len),
            BODY_BYTES_MAX,
        )?;
        within(
            "entry",
            self.gone.as_ref().map_or(0, |gone| gone.entry.len()),
            ENTRY_MAX,
        )
    }
}

fn within(what: &'static str, size: usize, max: usize) -> Result<(), MessageError> {
    if size > max {
        return Err(CborError::TooLong { what, size, max }.into());
    }
    Ok(())
}

fn charters<'a>(all: impl IntoIterator<Item = &'a Charter>) -> Result<(), MessageError> {
    all.into_iter()
        .try_for_each(|charter| within("charter", charter.encode().len(), CHARTER_MAX))
}

fn words(reason: &str) -> Result<(), MessageError> {
    if reason.chars().any(char::is_control) {
        return Err(MessageError::Text { what: "reason" });
    }
    within("reason", reason.len(), REASON_BYTES_MAX)
}

impl<C> Encode<C> for Message {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.u8(VERSION)?;
        match self {
            Message::Enrol(m) => e.u8(1)?.encode_with(m, ctx)?,
            Message::Enrolled(m) => e.u8(2)?.encode_with(m, ctx)?,
            Message::Hello(m) => e.u8(3)?.encode_with(m, ctx)?,
            Message::Welcome(m) => e.u8(4)?.encode_with(m, ctx)?,
            Message::Refused(m) => e.u8(5)?.encode_with(m, ctx)?,
            Message::Offer(m) => e.u8(6)?.encode_with(m, ctx)?,
            Message::Want(m) => e.u8(7)?.encode_with(m, ctx)?,
            Message::Entries(m) => e.u8(8)?.encode_with(m, ctx)?,
            Message::Cosigned(m) => e.u8(9)?.encode_with(m, ctx)?,
            Message::Rejected(m) => e.u8(10)?.encode_with(m, ctx)?,
            Message::Seen(m) => e.u8(11)?.encode_with(m, ctx)?,
            Message::Renew(m) => e.u8(16)?.encode_with(m, ctx)?,
            Message::Recovery(m) => e.u8(17)?.encode_with(m, ctx)?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Message {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(3) || d.u8()? != VERSION {
            return Err(minicbor::decode::Error::message("unknown message version"));
        }
        Ok(match d.u8()? {
            1 => Message::Enrol(d.decode_with(ctx)?),
            2 => Message::Enrolled(d.decode_with(ctx)?),
            3 => Message::Hello(d.decode_with(ctx)?),
            4 => Message::Welcome(d.decode_with(ctx)?),
            5 => Message::Refused(d.decode_with(ctx)?),
            6 => Message::Offer(d.decode_with(ctx)?),
            7 => Message::Want(d.decode_with(ctx)?),
            8 => Message::Entries(d.decode_with(ctx)?),
            9 => Message::Cosigned(d.decode_with(ctx)?),
            10 => Message::Rejected(d.decode_with(ctx)?),
            11 => Message::Seen(d.decode_with(ctx)?),
            16 => Message::Renew(d.decode_with(ctx)?),
            17 => Message::Recovery(d.decode_with(ctx)?),
            _ => return Err(minicbor::decode::Error::message("unknown message type")),
        })
    }
}

/// As many items as fit one message, at least one; the rest is left in the iterator's source.
pub fn fill(items: impl IntoIterator<Item = Item>, max_bytes: usize) -> Vec<Item> {
    let mut taken = Vec::new();
    let mut total = 0;
    for item in items {
        total += item.size_bytes();
        if !taken.is_empty() && total > max_bytes {
            break;
        }
        taken.push(item);
        if taken.len() == crate::limits::ITEMS_MAX {
            break;
        }
    }
    taken
}
