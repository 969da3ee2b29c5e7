//! libp2p carries sync's messages between nodes that know each other's charters.
//!
//! It owns connections over TCP or QUIC, their limits, and the frames of `docs/formats/frames.md`: opaque messages
//! of at most [`MESSAGE_MAX`] bytes, in order, both ways at once, in bounded memory.
//! It refuses to know what a message means or who may send one: a peer is the Ed25519 key that TLS
//! proved, and the caller compares it with the charters.
//!
//! In reading order: [`TransportKey`] (who this node is on the wire), [`Address`], [`Limits`] (what a peer may
//! cost), the frames and the checks on them, the conversation with its reader and writer, the
//! connections under it, and [`Endpoint`], where all of it starts.
//!
//! ```
//! use p2p::{Endpoint, Limits, TransportKey};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = TransportKey::from_seed([1; 32]);
//! let parent_key = key.public();
//! let parent = Endpoint::start(key, Some("127.0.0.1:0".parse()?), Limits::default()).await?;
//! let child = Endpoint::start(TransportKey::from_seed([2; 32]), None, Limits::default()).await?;
//!
//! let addr = parent.local_addr().ok_or("the parent listens")?;
//! let (sender, _replies) = child.dial(addr.into(), parent_key).await?.split();
//! sender.send(b"hello".to_vec()).await?;
//!
//! let (_sender, mut messages) = parent.accept().await.ok_or("the parent is open")?.split();
//! assert_eq!(messages.next().await, Some(Ok(b"hello".to_vec())));
//! # child.close().await;
//! # parent.close().await;
//! # Ok(())
//! # }
//! ```

mod address;
mod key;
mod limits;

mod error;

mod frame;
mod inbox;

mod conversation;
mod link;
mod reader;
mod writer;

mod failure;
mod gate;
mod streams;
mod swarm;

mod accept;
mod dial;
mod endpoint;

#[cfg(test)]
mod hostile;

pub use address::{Address, AddressError, Transport};
pub use conversation::{Conversation, Receiver, Sender};
pub use endpoint::Endpoint;
pub use error::{DialError, ReceiveError, SendError, StartError};
pub use frame::Violation;
pub use key::{PeerKey, TransportKey};
pub use limits::Limits;

/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 1024 * 1024;

/// The bytes that one side may have sent without the other side's application having taken them.
///
/// A message counts for its length and [`MESSAGE_OVERHEAD`].
pub const WINDOW: usize = 2 * 1024 * 1024;

/// What each message counts beside its own bytes, so that a flood of empty messages is bounded too.
pub const MESSAGE_OVERHEAD: usize = 64;

/// The protocol of a conversation; a change of the frames changes its last part.
pub(crate) const PROTOCOL: &str = "/fangzhi/sync/1";

/// The byte with which the accepting side says that somebody waits for the messages.
pub(crate) const READY: u8 = 0x52;
