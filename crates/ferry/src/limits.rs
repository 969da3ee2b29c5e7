//! Every bound of the format, in one place.
//!
//! Owns the numbers; `docs/formats/ferry.md` repeats them. Refuses nothing itself.

use sync::limits::MESSAGE_BYTES_MAX;

/// The version of the format.
pub const FORMAT: u32 = 1;
/// The largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest request of a node that is to join.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The largest admission: a chain of charters in hexadecimal.
pub const ADMISSION_BYTES_MAX: usize = 256 * 1024;
/// The most files of one bundle.
pub const PARTS_MAX: usize = 1024;
/// The largest payload: 1 TiB.
pub const PAYLOAD_BYTES_MAX: u64 = 1 << 40;
/// The most ledgers of one bundle: those of one session.
pub const LEDGERS_MAX: usize = sync::limits::LEDGERS_MAX;
/// The largest frame: a message, and the byte that says so.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1;
/// The most earlier heads that a ledger's head is proven to extend.
pub const EXTENDS_MAX: usize = 8;
