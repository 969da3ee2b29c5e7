//! A node's place on the network: it listens, dials and accepts.
//!
//! It owns the tasks behind it; they end when it is closed or dropped. It refuses to start while
//! the environment would make TLS write its keys to a file.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::accept;
use crate::address::{Address, Transport};
use crate::conversation::Conversation;
use crate::dial::Dialer;
use crate::error::{DialError, StartError};
use crate::key::{PeerKey, TransportKey, peer_id};
use crate::limits::Limits;
use crate::swarm::{Command, Driver};

/// Dials that wait for the task to take them.
const COMMANDS_MAX: usize = 64;

/// A running endpoint.
pub struct Endpoint {
    pub(crate) dialer: Dialer,
    listening: Vec<Address>,
    accepted: Mutex<mpsc::Receiver<Conversation>>,
    closing: watch::Sender<bool>,
    turned_away: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Endpoint {
    /// Starts the endpoint on the tokio runtime that this is called on. Without an address to
    /// listen on over TCP it only dials; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the address cannot be listened on, or TLS cannot be set up.
    pub async fn start(
        key: TransportKey,
        listen: Option<SocketAddr>,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let listen: Vec<Address> = listen.into_iter().map(Address::from).collect();
        Self::start_on(key, &listen, limits).await
    }

    /// The same with any number of addresses, over TCP and QUIC.
    ///
    /// # Errors
    /// If one of them cannot be listened on, or TLS cannot be set up.
    pub async fn start_on(
        key: TransportKey,
        listen: &[Address],
        limits: Limits,
    ) -> Result<Self, StartError> {
        // The TLS library obeys this variable in every build.
        if std::env::var_os("SSLKEYLOGFILE").is_some() {
            return Err(StartError::KeyLog);
        }
        let (inbound_tx, inbound) = mpsc::channel(limits.accept_queue_max.max(1));
        let turned_away = Arc::new(AtomicU64::new(0));
        let mut driver = Driver::new(&key, &limits, inbound_tx, turned_away.clone())?;
        let mut listening = Vec::new();
        for addr in listen {
            listening.push(driver.listen(*addr).await?);
        }
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        let (accepted_tx, accepted) = mpsc::channel(limits.accept_queue_max.max(1));
        let (closing, closes) = watch::channel(false);
        let (live, lives) = mpsc::channel(1);
        let driver = tokio::spawn(driver.run(commanded, lives));
        tokio::spawn(accept::run(
            inbound,
            accepted_tx,
            limits.clone(),
            closes.clone(),
            live.clone(),
            turned_away.clone(),
        ));
        Ok(Self {
            dialer: Dialer {
                commands,
                closing: closes,
                live,
                limits,
                own: key.public(),
            },
            listening,
            accepted: Mutex::new(accepted),
            closing,
            turned_away,
            driver,
        })
    }

    /// The address listened on over TCP, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let mut tcp = self.listening.iter();
        tcp.find(|addr| addr.transport == Transport::Tcp)
            .map(|addr| addr.socket)
    }

    /// All addresses listened on, with their real ports, in the order in which they were given.
    #[must_use]
    pub fn listening(&self) -> &[Address] {
        &self.listening
    }

    /// Begins a conversation with the node at `addr`, which must prove the key `expect`.
    ///
    /// A connection that is open with this peer over the same transport is used, whatever its
    /// address. A peer that is busy
    /// is tried again for some seconds. Dropping the future begins nothing.
    ///
    /// # Errors
    /// See [`DialError`]; [`DialError::WrongKey`] is the one not to retry.
    pub async fn dial(&self, addr: Address, expect: PeerKey) -> Result<Conversation, DialError> {
        self.dialer.dial(addr, expect).await
    }

    /// The next conversation that a peer began. Anybody can begin one: compare
    /// [`Conversation::peer`] with the charters, and drop it if it is a stranger's.
    ///
    /// `None` only when the endpoint's tasks are gone.
    pub async fn accept(&self) -> Option<Conversation> {
        self.accepted.lock().await.recv().await
    }

    /// How many connections and conversations of others found a limit reached, since the start.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Cuts every connection with a peer, for one whose charter was revoked. Its conversations end
    /// as lost.
    pub async fn disconnect(&self, peer: PeerKey) {
        if let Some(peer) = peer_id(&peer) {
            // Without the task there is no connection either.
            let _ = self.dialer.commands.send(Command::Disconnect(peer)).await;
        }
    }

    /// Ends all conversations with a farewell, closes the connections, and waits until the port is
    /// free, nine seconds at most. Close conversations before, if what they still hold matters.
    pub async fn close(self) {
        let Self {
            dialer,
            accepted,
            closing,
            driver,
            ..
        } = self;
        closing.send_replace(true);
        drop((dialer, accepted));
        // The task ends by itself; a panic in it has nothing left to spoil.
        let _ = driver.await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("listening", &self.listening)
            .finish_non_exhaustive()
    }
}
