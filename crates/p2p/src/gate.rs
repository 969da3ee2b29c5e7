//! How many connections there may be.
//!
//! It owns the counts and says no before a connection costs more than its socket (incoming, before
//! TLS) or its handshake (established). libp2p's own limits would do, but keep an entry for every
//! key that ever connected, so strangers could fill the memory. It refuses to know who is welcome.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::address::{Address, Transport};

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("too many handshakes are under way")]
    Pending,
    #[error("too many connections are open")]
    Established,
    #[error("too many connections with this peer are open")]
    Peer,
}

/// The counting behaviour; it must come first, so that the others never see what it denies.
#[derive(Debug)]
pub(crate) struct Gate {
    pending_max: usize,
    established_max: usize,
    per_peer_max: usize,
    /// Each transport has its own count: the source of a UDP packet is anybody's to write.
    pending: HashMap<ConnectionId, Transport>,
    established: HashMap<ConnectionId, PeerId>,
}

impl Gate {
    pub(crate) fn new(pending_max: usize, established_max: usize, per_peer_max: usize) -> Self {
        Self {
            pending_max,
            established_max,
            per_peer_max,
            pending: HashMap::new(),
            established: HashMap::new(),
        }
    }

    fn admit_pending(&mut self, id: ConnectionId, over: Transport) -> Result<(), Full> {
        if self.pending.values().filter(|one| **one == over).count() >= self.pending_max {
            return Err(Full::Pending);
        }
        self.pending.insert(id, over);
        Ok(())
    }

    fn admit(&mut self, id: ConnectionId, peer: PeerId) -> Result<(), Full> {
        self.pending.remove(&id);
        if self.established.len() >= self.established_max {
            return Err(Full::Established);
        }
        if self.established.values().filter(|of| **of == peer).count() >= self.per_peer_max {
            return Err(Full::Peer);
        }
        Ok(())
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let over = Address::of(local).map_or(Transport::Tcp, |addr| addr.transport);
        self.admit_pending(id, over).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                connection_id,
                peer_id,
                ..
            }) => {
                self.established.insert(connection_id, peer_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn establish(gate: &mut Gate, number: usize, peer: PeerId) -> Result<(), Full> {
        gate.admit(id(number), peer)?;
        gate.established.insert(id(number), peer);
        Ok(())
    }

    #[test]
    fn one_handshake_too_many_is_denied_until_one_is_done() {
        let mut gate = Gate::new(2, 9, 9);
        assert_eq!(gate.admit_pending(id(1), Transport::Tcp), Ok(()));
        assert_eq!(gate.admit_pending(id(2), Transport::Tcp), Ok(()));
        assert_eq!(
            gate.admit_pending(id(3), Transport::Tcp),
            Err(Full::Pending)
        );
        assert_eq!(establish(&mut gate, 1, PeerId::random()), Ok(()));
        assert_eq!(gate.admit_pending(id(3), Transport::Tcp), Ok(()));
    }

    #[test]
    fn a_denied_connection_frees_its_handshake() {
        let mut gate = Gate::new(1, 0, 9);
        assert_eq!(gate.admit_pending(id(1), Transport::Tcp), Ok(()));
        assert_eq!(
            establish(&mut gate, 1, PeerId::random()),
            Err(Full::Established)
        );
        assert_eq!(gate.admit_pending(id(2), Transport::Tcp), Ok(()));
    }

    #[test]
    fn handshakes_over_quic_do_not_close_the_way_over_tcp() {
        let mut gate = Gate::new(1, 9, 9);
        assert_eq!(gate.admit_pending(id(1), Transport::Quic), Ok(()));
        let second = gate.admit_pending(id(2), Transport::Quic);
        assert_eq!(second, Err(Full::Pending));
        assert_eq!(gate.admit_pending(id(3), Transport::Tcp), Ok(()));
    }

    #[test]
    fn one_peer_cannot_take_all_connections() {
        let mut gate = Gate::new(9, 9, 2);
        let peer = PeerId::random();
        assert_eq!(establish(&mut gate, 1, peer), Ok(()));
        assert_eq!(establish(&mut gate, 2, peer), Ok(()));
        assert_eq!(establish(&mut gate, 3, peer), Err(Full::Peer));
        assert_eq!(establish(&mut gate, 3, PeerId::random()), Ok(()));
    }
}
