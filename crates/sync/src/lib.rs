//! Replication as messages, without a network.
//!
//! Two nodes, parent and child, hold one session over any channel that carries whole messages in
//! order. The session is a state machine: bytes in, [`Output`]s out; the shell sends, stores,
//! signs, and answers. It is pure: no sockets, files, clock or randomness.
//!
//! Owns who may speak, what a message is, and that nothing is kept which does not continue, entry
//! by entry, what was kept before.
//! Refuses to trust a peer for being a peer: a child's history is verified as a stranger's.
//!
//! In reading order:
//! - [`message`]: the bytes; `docs/formats/sync.md` shows an exchange;
//! - [`session`]: who the peer is, and who may say what;
//! - [`output`]: what the shell is asked and told; [`trust`]: what the shell is asked back;
//! - `outbound`, `inbound`, `transfer`: offering a ledger, receiving one;
//! - [`chunk`]: checking entries, bodies and acts before they are kept;
//! - [`code`], [`limits`]: refusals in words, and every bound.
//!
//! A stranger's first message is never an answer to give ledgers to:
//!
//! ```
//! use record::authority::Charter;
//! use record::id::{Hash, Origin, Realm, UnixMillis};
//! use sync::{Accept, Config, Output, Refusal, RefusalCode, Session, Trust};
//!
//! struct Nothing;
//! impl Trust for Nothing {
//!     fn realm_root(&self) -> [u8; 32] { [0; 32] }
//!     fn is_revoked(&self, _: &Hash) -> bool { false }
//!     fn log(&self, _: &Origin, _: &str) -> Option<ledger::note::Verifier> { None }
//!     fn accept(&self, _: &Charter, _: &Origin, _: &str) -> Result<Accept, Refusal> {
//!         Err(Refusal { reason: "nothing is received here".into(), passing: false })
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let realm = Realm::new("jiangjin.example")?;
//! let config = Config { realm, chain: vec![], peer_key: [7; 32] };
//! let (mut dialer, mut listener) = (Session::dial(config.clone()), Session::listen(config));
//! let now = UnixMillis(1_767_225_600_000);
//! let hello = dialer.start(now);
//! let [Output::Send(hello)] = &hello[..] else { return Err("no hello".into()) };
//! let outputs = listener.receive(&hello.0, now, &Nothing);
//! assert!(matches!(
//!     outputs[..],
//!     [Output::Send(_), Output::Refused { code: RefusalCode::Missing, .. }, Output::Close { .. }]
//! ));
//! # Ok(())
//! # }
//! ```

pub mod message;
pub mod recovery;
mod wire;

pub mod session;

pub mod output;

pub mod trust;

mod outbound;

mod inbound;
mod transfer;

pub mod chunk;

pub mod code;

pub mod limits;

pub use chunk::Delivery;
pub use code::{RefusalCode, RejectCode};
pub use message::{Gone, Item, Message, Secret, fill};
pub use outbound::{OfferError, held_name, witness_name};
pub use output::{Bytes, Enrolment, LedgerStatus, Load, Loaded, Output, Side};
pub use session::{Config, Session};
pub use trust::{Accept, Held, Refusal, Tail, Trust};
