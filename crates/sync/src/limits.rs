//! Every bound of the protocol, in one place.
//!
//! Owns the numbers that both sides must agree on; `docs/formats/sync.md` repeats them.
//! Refuses nothing itself: each is applied where the bytes are read.

use record::authority::{CHARTER_MAX, SUCCESSIONS_MAX};

/// The version of the messages.
pub const VERSION: u8 = 1;

/// The largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// The largest message before `Welcome`, when the peer is still anybody.
pub const OPENING_BYTES_MAX: usize =
    CHAIN_MAX * CHARTER_MAX + SUCCESSIONS_MAX * (2 * CHARTER_MAX + 128) + 1024;

/// The most charters from a node to the realm's root.
pub const CHAIN_MAX: usize = 8;

/// How many bytes of items the shell is asked for at a time.
///
/// What remains of a message is room for one item that is larger than this, and for proofs.
pub const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// The most chunks of a ledger that were verified and are not durable yet. No more is wanted
/// meanwhile, so the peer knows that whatever came before them is durable.
pub const STORING_MAX: usize = 4;

/// The most items of one message.
pub const ITEMS_MAX: usize = 8192;

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 896 * 1024;

/// The largest checkpoint note, in bytes.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

/// The most cosignature lines of one message.
pub const LINES_MAX: usize = 8;

/// The longest cosignature line, in bytes, with its newline.
pub const LINE_BYTES_MAX: usize = 512;

/// The longest reason in words, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// The largest public sealing key, in bytes (X-Wing has 1,216).
pub const SEAL_KEY_BYTES_MAX: usize = 4096;

/// The most ledgers that each side may offer in one session.
pub const LEDGERS_MAX: usize = 4096;

/// The most ledgers that one side fetches at the same time: with [`STORING_MAX`] chunks of
/// [`CHUNK_BYTES_MAX`] and one on its way, the memory that a session may take.
pub const TRANSFERS_MAX: usize = 4;

/// The most of its own notes per ledger that an offering side keeps for the cosignatures to come.
pub const NOTES_KEPT_MAX: usize = 8;

/// The difference of two clocks, in milliseconds, above which both sides raise the alarm.
pub const CLOCK_SKEW_MAX_MS: u64 = 10 * 60 * 1000;
