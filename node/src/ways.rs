//! The ways to the parent (线路): which of its addresses is dialled, and which when that fails.
//!
//! Owns the order: what stands first is tried first, TCP is the last resort, and a way over QUIC
//! that led nowhere while TCP led somewhere is left alone for a time, so that a firewall without UDP
//! costs one timeout and not one for each session. Refuses to hide it: why the preferred way is not
//! taken is there for the status.

use std::time::Duration;

use p2p::{Conversation, DialError, Endpoint, PeerKey};
use registry::addresses::{self, Addresses};
use tokio::time::Instant;

use crate::fault::{Fault, Result};

/// After so long a way that led nowhere is tried again, when a session begins.
const REST: Duration = Duration::from_secs(600);

/// Addresses as the network takes them.
pub fn network(addresses: &[addresses::Address]) -> Vec<p2p::Address> {
    let one = |address: &addresses::Address| match address.transport {
        addresses::Transport::Tcp => address.socket.into(),
        addresses::Transport::Quic => p2p::Address::quic(address.socket),
    };
    addresses.iter().map(one).collect()
}

/// What carries a conversation, as the registry tells it.
pub fn transport(conversation: &Conversation) -> addresses::Transport {
    match conversation.remote().transport {
        p2p::Transport::Tcp => addresses::Transport::Tcp,
        p2p::Transport::Quic => addresses::Transport::Quic,
    }
}

/// Addresses of a configuration or an invitation.
pub fn read(text: &str) -> Result<Addresses> {
    text.parse()
        .map_err(|e: addresses::AddressesError| Fault::usage(e.to_string()))
}

/// Who may answer at the parent's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    /// Whoever has this key.
    Exactly,
    /// Another key, too, which may be the parent's since: the session opens only if the chain that
    /// it then shows leads to the root and has this key in it.
    OrSuccessor,
}

/// The ways to one parent.
#[derive(Debug)]
pub struct Ways {
    text: String,
    /// Tried before TCP.
    preferred: Vec<p2p::Address>,
    /// The last resort.
    tcp: p2p::Address,
    /// Until when the preferred ways are left alone, and why.
    resting: Option<(Instant, String)>,
}

impl Ways {
    /// The ways that an address, or a list of them, names.
    pub fn of(text: &str) -> Result<Self> {
        let mut preferred = network(read(text)?.dialled());
        let without = || Fault::usage(addresses::AddressesError::WithoutTcp.to_string());
        let tcp = preferred.pop().ok_or_else(without)?;
        Ok(Self {
            text: text.to_owned(),
            preferred,
            tcp,
            resting: None,
        })
    }

    /// Whether these are the ways that a text names.
    pub fn are(&self, text: &str) -> bool {
        self.text == text
    }

    /// Why the preferred way is not taken, in words.
    pub fn fell_back(&self) -> Option<String> {
        self.resting.as_ref().map(|(_, why)| why.clone())
    }

    /// A conversation with the parent, over the first way that leads to it, and the key that it
    /// proved.
    pub async fn dial(
        &mut self,
        endpoint: &Endpoint,
        known: PeerKey,
        answerer: Answerer,
    ) -> std::result::Result<(Conversation, PeerKey), DialError> {
        let now = Instant::now();
        if self
            .resting
            .as_ref()
            .is_some_and(|(until, _)| *until <= now)
        {
            self.resting = None;
        }
        let mut failed = None;
        if self.resting.is_none() {
            for way in &self.preferred {
                match answered(endpoint, *way, known, answerer).await {
                    Ok(reached) => return Ok(reached),
                    Err(error) => failed = Some(error.to_string()),
                }
            }
        }
        let reached = answered(endpoint, self.tcp, known, answerer).await?;
        // Only now it is known that the other way failed, and not the parent.
        if let Some(why) = failed {
            self.rest(why);
        }
        Ok(reached)
    }

    /// Takes in that a session over the preferred way never opened.
    pub fn led_nowhere(&mut self, over: addresses::Transport, why: &str) {
        if over == addresses::Transport::Quic {
            self.rest(why.to_owned());
        }
    }

    fn rest(&mut self, why: String) {
        tracing::warn!(
            why,
            "the parent is reached over TCP, not by the preferred way"
        );
        self.resting = Some((Instant::now() + REST, why));
    }
}

async fn answered(
    endpoint: &Endpoint,
    address: p2p::Address,
    known: PeerKey,
    answerer: Answerer,
) -> std::result::Result<(Conversation, PeerKey), DialError> {
    match endpoint.dial(address, known).await {
        Err(DialError::WrongKey {
            found: Some(found), ..
        }) if answerer == Answerer::OrSuccessor => {
            Ok((endpoint.dial(address, found).await?, found))
        }
        other => other.map(|conversation| (conversation, known)),
    }
}
