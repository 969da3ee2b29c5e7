//! The streams of conversations on libp2p's connections.
//!
//! It owns the way from "open a stream on this connection" to the stream, and from a stream that a
//! peer opened to the bounded queue of the acceptor. A stream for which the queue has no room is
//! dropped: its dialer waits for READY in vain and tries again. It refuses to dial.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::PROTOCOL;
use crate::address::Address;
use crate::failure::OpenError;

const STREAM_PROTOCOL: StreamProtocol = StreamProtocol::new(PROTOCOL);

/// Ends when the connection does. yamux does not wake the readers of a connection that this side
/// closes, so they watch this beside the stream.
pub(crate) type Gone = watch::Receiver<()>;

/// A stream and the connection it is on.
pub(crate) struct Line {
    pub(crate) stream: Stream,
    pub(crate) gone: Gone,
}

/// A stream that a peer opened.
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) remote: Address,
    pub(crate) line: Line,
}

/// Where to send the stream that was asked for. Dropped unanswered, the connection was lost.
pub(crate) struct Reply(pub(crate) oneshot::Sender<Result<Line, OpenError>>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The behaviour.
pub(crate) struct Streams {
    inbound: mpsc::Sender<Inbound>,
    asked: VecDeque<(PeerId, ConnectionId, Reply)>,
    waker: Option<Waker>,
}

impl Streams {
    pub(crate) fn new(inbound: mpsc::Sender<Inbound>) -> Self {
        Self {
            inbound,
            asked: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream on a connection.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId, reply: Reply) {
        self.asked.push_back((peer, connection, reply));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId, remote: &Multiaddr) -> Result<Handler, ConnectionDenied> {
        Ok(Handler {
            peer,
            remote: Address::of(remote)
                .ok_or_else(|| ConnectionDenied::new("neither TCP nor QUIC"))?,
            inbound: self.inbound.clone(),
            asked: VecDeque::new(),
            alive: watch::Sender::new(()),
            waker: None,
        })
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, remote)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        let Some((peer_id, connection, event)) = self.asked.pop_front() else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        })
    }
}

/// The part of the behaviour that lives with one connection.
pub(crate) struct Handler {
    peer: PeerId,
    remote: Address,
    inbound: mpsc::Sender<Inbound>,
    asked: VecDeque<Reply>,
    /// Dropped with the handler, which is dropped when its connection ends.
    alive: watch::Sender<()>,
    waker: Option<Waker>,
}

impl Handler {
    fn line(&self, stream: Stream) -> Line {
        Line {
            stream,
            gone: self.alive.subscribe(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Reply;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(STREAM_PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Infallible>> {
        let Some(reply) = self.asked.pop_front() else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(ReadyUpgrade::new(STREAM_PROTOCOL), reply),
        })
    }

    fn on_behaviour_event(&mut self, reply: Reply) {
        self.asked.push_back(reply);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                let inbound = Inbound {
                    peer: self.peer,
                    remote: self.remote,
                    line: self.line(stream),
                };
                if self.inbound.try_send(inbound).is_err() {
                    tracing::debug!(remote = %self.remote, "no room for an incoming conversation");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: Reply(reply),
            }) => {
                // A dialer that went away drops the stream here, which resets it.
                let _ = reply.send(Ok(self.line(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: Reply(reply),
                error,
            }) => {
                let _ = reply.send(Err(match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::OtherProtocol,
                    StreamUpgradeError::Timeout => OpenError::NoReply,
                    _ => OpenError::Lost,
                }));
            }
            _ => {}
        }
    }
}
