//! Replication by file (摆渡), across an air gap: a manifest in clear outside, sealed messages inside.
//!
//! Pure: bytes in, bytes out; no files, clock or randomness. Owns what a bundle's files look like.
//! Refuses what is not canonical, over a bound, out of order, or other than the manifest declares.
//! What the messages may do to a node is decided by a `sync::Session`, as if they came over a line.
//!
//! In reading order:
//! - [`limits`]: every bound;
//! - [`manifest`]: who sends what to whom, in JSON, signed: all that a boundary scanner needs;
//! - [`head`]: the one line by which each file begins;
//! - [`payload`]: frames in sealed chunks, written and read in bounded memory;
//! - [`contents`]: that the frames are those which the manifest declares, gapless and in order;
//! - [`joining`]: how a node without a line asks to join, and is admitted.
//!
//! ```
//! let line = ferry::head::Head { part: 1, manifest_bytes: 3456, signature: [7; 64] }.encode();
//! assert!(line.starts_with("fangzhi-ferry 1 part 00001 manifest 00003456 signature 0707"));
//! assert_eq!(ferry::head::Head::decode(line.as_bytes())?.manifest_bytes, 3456);
//! # Ok::<(), ferry::head::HeadError>(())
//! ```

pub mod limits;

pub mod manifest;

pub mod head;

pub mod payload;

pub mod contents;

pub mod joining;

mod hex;

pub use contents::{ContentError, Contents};
pub use head::{Head, HeadError};
pub use hex::Hex;
pub use joining::{Admission, JoinRequest, JoiningError};
pub use manifest::{Manifest, ManifestError};
pub use payload::{Extends, Frame, Opener, PayloadError, Sealer};
