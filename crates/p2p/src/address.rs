//! Where a node is reached: an IP address, a port, and what runs on it.
//!
//! It owns the two spellings: `10.0.0.5:8461` is TCP, `/ip4/10.0.0.5/udp/8461/quic-v1` is QUIC, as
//! libp2p writes it. It refuses names: a node is reached by its address, and known by its key.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// What carries the bytes. Both negotiate TLS 1.3 with X25519MLKEM768 and prove the same keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, TLS and yamux.
    Tcp,
    /// QUIC version 1, over UDP.
    Quic,
}

/// Where a node listens or is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// What runs on the port.
    pub transport: Transport,
    /// Address and port.
    pub socket: SocketAddr,
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address is neither `IP:port` nor `/ip4/IP/udp/PORT/quic-v1` (or `/ip6/...`); write it in one of these ways"
)]
pub struct AddressError;

impl Address {
    /// QUIC at an address and port.
    #[must_use]
    pub fn quic(socket: SocketAddr) -> Self {
        let transport = Transport::Quic;
        Self { transport, socket }
    }

    /// The address as libp2p takes it.
    pub(crate) fn multiaddr(self) -> Multiaddr {
        let ip = Multiaddr::from(self.socket.ip());
        let port = self.socket.port();
        match self.transport {
            Transport::Tcp => ip.with(Protocol::Tcp(port)),
            Transport::Quic => ip.with(Protocol::Udp(port)).with(Protocol::QuicV1),
        }
    }

    /// The address of a connection; `None` for one of a kind that is not used here.
    pub(crate) fn of(addr: &Multiaddr) -> Option<Self> {
        let mut parts = addr.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        match (parts.next()?, parts.next()) {
            (Protocol::Tcp(port), _) => Some(SocketAddr::new(ip, port).into()),
            (Protocol::Udp(port), Some(Protocol::QuicV1)) => {
                Some(Self::quic(SocketAddr::new(ip, port)))
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        let transport = Transport::Tcp;
        Self { transport, socket }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(socket.into());
        }
        let addr: Multiaddr = text.parse().map_err(|_| AddressError)?;
        let read = Self::of(&addr).ok_or(AddressError)?;
        // A longer address says more than is heeded here.
        if read.multiaddr() == addr {
            Ok(read)
        } else {
            Err(AddressError)
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => self.socket.fmt(f),
            Transport::Quic => self.multiaddr().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "127.0.0.1:8461",
            "[::1]:8461",
            "/ip4/10.0.0.5/udp/8461/quic-v1",
            "/ip6/::1/udp/1/quic-v1",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::of(&address.multiaddr()), Some(address));
        }
        let tcp: Address = "/ip4/10.0.0.5/tcp/8461".parse().unwrap();
        assert_eq!(tcp.to_string(), "10.0.0.5:8461");
    }

    #[test]
    fn what_says_less_or_more_than_an_address_is_none() {
        for text in [
            "",
            "10.0.0.5",
            "node.example:8461",
            "/ip4/10.0.0.5/udp/8461",
            "/ip4/10.0.0.5/udp/8461/quic",
            "/ip4/10.0.0.5/udp/8461/quic-v1/webtransport",
            "/ip4/10.0.0.5/tcp/8461/ws",
            "/dns4/node.example/udp/8461/quic-v1",
            "10.0.0.5:8461,10.0.0.6:8461",
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }
}
