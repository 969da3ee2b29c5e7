//! What can go wrong, one enum per operation, each message with what to do next.
//!
//! It owns the wording. It refuses to name keys: addresses say which peer was meant.

use std::io;
use std::time::Duration;

use crate::MESSAGE_MAX;
use crate::address::Address;
use crate::frame::Violation;
use crate::key::PeerKey;

/// Why an endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address could not be listened on.
    #[error(
        "could not listen on `{addr}`; check that the address belongs to this machine and that no other program uses the port"
    )]
    Listen {
        /// The address asked for.
        addr: Address,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The TLS certificate could not be made from the transport key.
    #[error("could not make a TLS certificate from the transport key; check the node's key file")]
    Certificate,
    /// A variable of the environment would make TLS write its session keys to a file.
    #[error(
        "the environment variable `SSLKEYLOGFILE` is set, so TLS would write its session keys to a file; unset it and start again"
    )]
    KeyLog,
}

/// Why a peer could not be talked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The expected key is not an Ed25519 public key.
    #[error("the key expected of `{addr}` is not an Ed25519 public key; check the peer's charter")]
    BadKey {
        /// The address dialled.
        addr: Address,
    },
    /// The address leads to this very node.
    #[error("`{addr}` is this node itself; set the address of the other node")]
    ThisNode {
        /// The address dialled.
        addr: Address,
    },
    /// Somebody else answered: TLS proved another key than the expected one.
    #[error(
        "the node at `{addr}` proved another key than its charter names; check the address, and ask its operator whether the key was rotated, before trusting it"
    )]
    WrongKey {
        /// The address dialled.
        addr: Address,
        /// The key that it proved, if that is one of a node: whoever dials may hear which charter
        /// comes with it.
        found: Option<PeerKey>,
    },
    /// Nothing answers at the address.
    #[error(
        "could not reach `{addr}`: {kind}; check that the node there runs and that no firewall stands between"
    )]
    Unreachable {
        /// The address dialled.
        addr: Address,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// Something answers, but the handshake broke off on every attempt.
    #[error(
        "`{addr}` broke off the handshake in each of {attempts} attempts; it is at its limit of connections, refuses this node, or is no fangzhi node: try again later, then check its log"
    )]
    Handshake {
        /// The address dialled.
        addr: Address,
        /// How often it was tried.
        attempts: u32,
    },
    /// The peer is known and alive, but has no room for a conversation.
    #[error(
        "`{addr}` had no room for a conversation in {attempts} attempts; try again later, or raise the limits there"
    )]
    Busy {
        /// The address dialled.
        addr: Address,
        /// How often it was tried.
        attempts: u32,
    },
    /// The peer did not say that it is ready.
    #[error(
        "`{addr}` did not answer within {timeout:?}; try again later, and check the link and the load there"
    )]
    NoReply {
        /// The address dialled.
        addr: Address,
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer speaks another version of the protocol.
    #[error("`{addr}` does not speak `/fangzhi/sync/1`; update the older of the two nodes")]
    OtherProtocol {
        /// The address dialled.
        addr: Address,
    },
    /// This node is at its own limit of connections.
    #[error(
        "did not dial `{addr}`: this node is at its limit of connections; close some, or raise the limits"
    )]
    Limit {
        /// The address dialled.
        addr: Address,
    },
    /// The endpoint was closed meanwhile.
    #[error("did not dial `{addr}`: this node is closing its network")]
    Stopped {
        /// The address dialled.
        addr: Address,
    },
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The message is longer than a message may be. The conversation goes on.
    #[error("the message has {len} bytes and the limit is {MESSAGE_MAX}; split it")]
    TooLong {
        /// The length of the message.
        len: usize,
    },
    /// One of the two sides closed the conversation.
    #[error("the conversation is closed; dial again if there is more to say")]
    Closed,
    /// The connection ended without a farewell.
    #[error("the connection was lost; dial again and resume after the last acknowledged message")]
    Lost,
    /// The peer took nothing for too long.
    #[error(
        "the peer took nothing for {timeout:?}, so the conversation was closed; check the link and the load there, then dial again"
    )]
    Stalled {
        /// How long was waited.
        timeout: Duration,
    },
    /// One of the sides broke the frame format; the receiving half says how.
    #[error(
        "the conversation was closed because its frames were broken; the receiving side of this conversation says how"
    )]
    Broken,
}

/// Why no more messages arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The connection ended without a farewell.
    #[error("the connection was lost; dial again and resume after the last message taken")]
    Lost,
    /// The peer owed bytes or credit for too long.
    #[error(
        "the peer moved nothing for {timeout:?} while it owed the rest of a message or credit; check the link and the load there, then dial again"
    )]
    Stalled {
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer broke the frame format.
    #[error(
        "the peer broke the frame format: {0}; the conversation was closed: compare the versions of the two nodes, and if they match, look at the peer"
    )]
    Broken(#[from] Violation),
    /// The peer says that this side broke the frame format.
    #[error(
        "the peer closed the conversation because it found this side's frames broken; compare the versions of the two nodes, and read the log there"
    )]
    Refused,
    /// The peer says that this side moved nothing for too long.
    #[error(
        "the peer closed the conversation because this side took or sent nothing for too long; check the link and the load of this node, then dial again"
    )]
    TooSlow,
}
