//! What peers together, and one peer alone, may cost this node.
//!
//! It owns the numbers and their defaults; the places that enforce them are named on each field.

use std::time::Duration;

/// The bounds of an [`Endpoint`](crate::Endpoint). Memory for conversations is at most
/// `conversations_max` times twice [`WINDOW`](crate::WINDOW), plus yamux's own buffers or QUIC's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections whose TLS handshake is under way, incoming, over TCP and over QUIC each: who
    /// floods one, with addresses that are not its own, does not close the other. One more is cut at
    /// once.
    pub pending_incoming_max: usize,
    /// Connections, both directions together.
    pub established_max: usize,
    /// Connections with one peer, both directions together.
    pub established_per_peer_max: usize,
    /// Streams on one connection, ping's two among them. A peer that opens one more loses the
    /// connection over TCP; over QUIC it has to wait, and at most so many are heard of.
    pub streams_per_connection_max: usize,
    /// Accepted conversations alive at once; a dialer beyond is told to wait.
    pub conversations_max: usize,
    /// Accepted conversations alive at once with one peer.
    pub conversations_per_peer_max: usize,
    /// Bytes of one QUIC stream that wait to be read here.
    pub quic_stream_bytes_max: u32,
    /// Bytes of all streams of one QUIC connection that wait to be read here.
    pub quic_connection_bytes_max: u32,
    /// Conversations that wait for [`Endpoint::accept`](crate::Endpoint::accept).
    pub accept_queue_max: usize,
    /// Attempts of one [`Endpoint::dial`](crate::Endpoint::dial) against a busy peer.
    pub dial_attempts_max: u32,
    /// Time for TCP and TLS together, or for the handshake of QUIC.
    pub connect_timeout: Duration,
    /// Time for the other side to say that it is ready.
    pub ready_timeout: Duration,
    /// How long a peer may owe the rest of a message, credit for a waiting message, or room for a
    /// frame, without moving a byte of it. A silent conversation that owes nothing is not stalled.
    pub stall_timeout: Duration,
    /// How long a connection without a conversation stays open. A conversation keeps its
    /// connection for as long as it lasts, silent or not, so this is the pause between two of a
    /// node that dials again, and all that a stranger has who only connects.
    pub idle_timeout: Duration,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time for the answer to a ping. A connection without an answer for `ping_interval` and this
    /// together is closed, and so is one over QUIC on which nothing at all came. Generous, because on a thin line a ping waits behind a bulk transfer.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_incoming_max: 32,
            established_max: 512,
            established_per_peer_max: 2,
            streams_per_connection_max: 32,
            quic_stream_bytes_max: 2 * 1024 * 1024 + 256 * 1024,
            quic_connection_bytes_max: 4 * 1024 * 1024,
            conversations_max: 512,
            conversations_per_peer_max: 8,
            accept_queue_max: 32,
            dial_attempts_max: 8,
            connect_timeout: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(60),
        }
    }
}
