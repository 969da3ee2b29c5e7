//! The task that drives libp2p.
//!
//! It owns the swarm: TCP with TLS 1.3 and yamux, QUIC, both with X25519MLKEM768, and ping. It dials
//! on request, reuses a connection that is open over the same transport, and closes one whose peer
//! no longer answers pings. It refuses Noise, port reuse (it collides with restarts and simultaneous
//! dials), and to decide who is welcome.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Swarm, SwarmBuilder, ping, quic, tcp, tls, yamux};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::address::{Address, Transport};
use crate::error::StartError;
use crate::failure::OpenError;
use crate::gate::Gate;
use crate::key::TransportKey;
use crate::limits::Limits;
use crate::streams::{Inbound, Reply, Streams};

/// For conversations to say farewell when the endpoint closes, and then for connections.
const DRAIN: Duration = Duration::from_secs(3);
/// Between looks whether a port is free.
const PORT_LOOK: Duration = Duration::from_millis(20);
/// Between looks at who is silent, at the least.
const WATCH_MIN: Duration = Duration::from_millis(50);
/// For the operating system to report the port.
const LISTEN: Duration = Duration::from_secs(5);

/// Order matters: a behaviour that denies must come before those that would prepare.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    gate: Gate,
    ping: ping::Behaviour,
    streams: Streams,
}

/// What the endpoint asks of the task.
pub(crate) enum Command {
    /// A stream to the peer, on a connection of its own if `fresh`.
    Open {
        addr: Address,
        peer: PeerId,
        fresh: bool,
        reply: Reply,
    },
    /// Closes every connection with the peer.
    Disconnect(PeerId),
}

struct Dialing {
    peer: PeerId,
    addr: Address,
    replies: Vec<Reply>,
}

/// What QUIC may cost and how long it waits: as much as TCP with yamux and ping, and no less.
fn quic_config(mut config: quic::Config, limits: &Limits) -> quic::Config {
    config.handshake_timeout = limits.connect_timeout;
    // A line that is silent for a while, a satellite link in the rain say, must not cost more over
    // QUIC than over TCP: the ten seconds of the library would end what TCP lives through.
    let silence = limits.ping_interval + limits.ping_timeout;
    config.max_idle_timeout = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    // Below the shortest time for which a router remembers a mapping of UDP, 30 seconds commonly.
    config.keep_alive_interval = limits.ping_interval;
    config.max_concurrent_stream_limit =
        u32::try_from(limits.streams_per_connection_max).unwrap_or(u32::MAX);
    // Whoever sends more than the reader of its stream has taken waits. A conversation has
    // `WINDOW` bytes under way at most, so more would serve strangers only.
    config.max_stream_data = limits.quic_stream_bytes_max;
    config.max_connection_data = limits.quic_connection_bytes_max;
    config
}

pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    dialing: HashMap<ConnectionId, Dialing>,
    /// The newest connection last.
    connected: HashMap<PeerId, Vec<(ConnectionId, Transport)>>,
    /// When each connection was last known to be alive.
    heard: HashMap<ConnectionId, (PeerId, Instant)>,
    /// How long a connection may go unheard.
    silence_max: Duration,
    /// Ports of UDP that are listened on.
    udp: Vec<SocketAddr>,
    /// Connections that were over a limit.
    turned_away: Arc<AtomicU64>,
}

impl Driver {
    pub(crate) fn new(
        key: &TransportKey,
        limits: &Limits,
        inbound: mpsc::Sender<Inbound>,
        turned_away: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        let behaviour = Behaviour {
            gate: Gate::new(
                limits.pending_incoming_max,
                limits.established_max,
                limits.established_per_peer_max,
            ),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(limits.ping_interval)
                    .with_timeout(limits.ping_timeout),
            ),
            streams: Streams::new(inbound),
        };
        let streams_max = limits.streams_per_connection_max;
        let swarm = SwarmBuilder::with_existing_identity(key.keypair())
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                tls::Config::new,
                || {
                    let mut config = yamux::Config::default();
                    config.set_max_num_streams(streams_max);
                    config
                },
            )
            .map_err(|_| StartError::Certificate)?
            .with_quic_config(|config| quic_config(config, limits))
            .with_behaviour(|_| behaviour)
            .unwrap_or_else(|never| match never {})
            .with_swarm_config(|config| {
                config
                    .with_idle_connection_timeout(limits.idle_timeout)
                    .with_max_negotiating_inbound_streams(streams_max)
            })
            .with_connection_timeout(limits.connect_timeout)
            .build();
        Ok(Self {
            swarm,
            dialing: HashMap::new(),
            connected: HashMap::new(),
            heard: HashMap::new(),
            udp: Vec::new(),
            silence_max: limits.ping_interval + limits.ping_timeout,
            turned_away,
        })
    }

    /// Listens, and returns the address with its real port.
    pub(crate) async fn listen(&mut self, addr: Address) -> Result<Address, StartError> {
        let failed = |source| StartError::Listen { addr, source };
        self.swarm.listen_on(addr.multiaddr()).map_err(|error| {
            failed(match error {
                TransportError::Other(source) => source,
                TransportError::MultiaddrNotSupported(_) => io::ErrorKind::Unsupported.into(),
            })
        })?;
        let heard = timeout(LISTEN, async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { address, .. } => {
                        // Of other addresses that are listened on, news may come still.
                        let heard = Address::of(&address);
                        if let Some(heard) = heard.filter(|h| h.transport == addr.transport) {
                            let mut real = addr;
                            real.socket.set_port(heard.socket.port());
                            return Ok(real);
                        }
                    }
                    SwarmEvent::ListenerError { error, .. } => return Err(error),
                    SwarmEvent::ListenerClosed { reason, .. } => {
                        return Err(reason.err().unwrap_or(io::ErrorKind::NotConnected.into()));
                    }
                    event => self.on_event(event),
                }
            }
        });
        let heard = heard.await;
        if let Ok(Ok(real)) = &heard
            && real.transport == Transport::Quic
        {
            self.udp.push(real.socket);
        }
        match heard {
            Ok(heard) => heard.map_err(failed),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Runs until the endpoint is gone, then lets conversations and connections end in order.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut live: mpsc::Receiver<Infallible>,
    ) {
        let mut watch = interval((self.silence_max / 4).max(WATCH_MIN));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = watch.tick() => self.close_silent(),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        let _ = timeout(DRAIN, async {
            loop {
                tokio::select! {
                    _ = live.recv() => break,
                    event = self.swarm.select_next_some() => self.on_event(event),
                }
            }
        })
        .await;
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(DRAIN, async {
            while self.swarm.connected_peers().next().is_some() {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        })
        .await;
        // A task of the library keeps a port of UDP until its last connection was let go.
        let Self { swarm, udp, .. } = self;
        drop(swarm);
        let _ = timeout(DRAIN, async {
            for addr in udp {
                while UdpSocket::bind(addr).is_err() {
                    sleep(PORT_LOOK).await;
                }
            }
        })
        .await;
    }

    /// libp2p's ping reports a failure late, or never while a new stream for it is being
    /// negotiated; what counts is when an answer last came.
    fn close_silent(&mut self) {
        let silent: Vec<(ConnectionId, PeerId)> = self
            .heard
            .iter()
            .filter(|(_, (_, heard))| heard.elapsed() > self.silence_max)
            .map(|(connection, (peer, _))| (*connection, *peer))
            .collect();
        for (connection, peer) in silent {
            tracing::info!(%connection, "a peer no longer answers; closing its connection");
            self.forget(peer, connection);
            self.swarm.close_connection(connection);
        }
    }

    /// Nothing is opened on the connection any more. One that is being closed over a dead line may
    /// take the system's own timeout, many minutes, to be gone.
    fn forget(&mut self, peer: PeerId, connection: ConnectionId) {
        self.heard.remove(&connection);
        if let Some(all) = self.connected.get_mut(&peer) {
            all.retain(|(one, _)| *one != connection);
            if all.is_empty() {
                self.connected.remove(&peer);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Disconnect(peer) => {
                for (connection, _) in self.connected.remove(&peer).unwrap_or_default() {
                    self.heard.remove(&connection);
                }
                // The error says only that there was no connection.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Open {
                addr,
                peer,
                fresh,
                reply,
            } => {
                let all = self.connected.get(&peer).into_iter().flatten().rev();
                let newest = all.copied().find(|(_, over)| *over == addr.transport);
                match newest {
                    Some((connection, _)) if !fresh => {
                        self.swarm
                            .behaviour_mut()
                            .streams
                            .open(peer, connection, reply);
                    }
                    _ => self.dial(addr, peer, reply),
                }
            }
        }
    }

    fn dial(&mut self, addr: Address, peer: PeerId, reply: Reply) {
        let same = |dialing: &&mut Dialing| dialing.peer == peer && dialing.addr == addr;
        if let Some(dialing) = self.dialing.values_mut().find(same) {
            dialing.replies.push(reply);
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![addr.multiaddr()])
            .allocate_new_port()
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                let replies = vec![reply];
                self.dialing.insert(
                    connection,
                    Dialing {
                        peer,
                        addr,
                        replies,
                    },
                );
            }
            Err(error) => {
                let _ = reply.0.send(Err(OpenError::from(&error)));
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.heard.insert(connection_id, (peer_id, Instant::now()));
                let over = Address::of(endpoint.get_remote_address());
                let over = over.map_or(Transport::Tcp, |addr| addr.transport);
                let all = self.connected.entry(peer_id).or_default();
                all.push((connection_id, over));
                let dialing = self.dialing.remove(&connection_id);
                for reply in dialing.into_iter().flat_map(|dialing| dialing.replies) {
                    let streams = &mut self.swarm.behaviour_mut().streams;
                    streams.open(peer_id, connection_id, reply);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => {
                self.forget(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                let why = OpenError::from(&error);
                let dialing = self.dialing.remove(&connection_id);
                for reply in dialing.into_iter().flat_map(|dialing| dialing.replies) {
                    let _ = reply.0.send(Err(why));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(_),
                ..
            })) => {
                if let Some((_, heard)) = self.heard.get_mut(&connection) {
                    *heard = Instant::now();
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed");
                if matches!(error, ListenError::Denied { .. }) {
                    self.turned_away.fetch_add(1, Ordering::Relaxed);
                }
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "listening for peers ended; restart the node");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "accepting a connection failed");
            }
            _ => {}
        }
    }
}
