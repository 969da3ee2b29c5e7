//! Where a node is reached (复制地址), as configurations and invitations carry it: one address, or
//! several with commas between them, in the order in which they are tried.
//!
//! Owns the spelling: `10.0.0.5:8461` is TCP, `/ip4/10.0.0.5/udp/8461/quic-v1` is QUIC. Refuses a
//! list without TCP: a firewall that lets no UDP pass must not cut a node off.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Serialize;

/// The most addresses of one node.
const ADDRESSES_MAX: usize = 4;

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP and TLS, which every node has.
    Tcp,
    /// QUIC, where both sides are set up for it.
    Quic,
}

impl Transport {
    /// As programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// What runs on the port.
    pub transport: Transport,
    /// IP address and port.
    pub socket: SocketAddr,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, port) = (self.socket.ip(), self.socket.port());
        match (self.transport, ip) {
            (Transport::Tcp, _) => self.socket.fmt(f),
            (Transport::Quic, IpAddr::V4(ip)) => write!(f, "/ip4/{ip}/udp/{port}/quic-v1"),
            (Transport::Quic, IpAddr::V6(ip)) => write!(f, "/ip6/{ip}/udp/{port}/quic-v1"),
        }
    }
}

/// The addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

/// The text says of no node where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// One of them cannot be read.
    #[error(
        "`{0}` 不是地址 / `{0}` is no address; write `IP:port`, or for QUIC `/ip4/IP/udp/PORT/quic-v1`, with a comma between two"
    )]
    Unreadable(String),
    /// None is over TCP, or there are too many.
    #[error(
        "须有 TCP 地址，至多 {ADDRESSES_MAX} 个 / name an address over TCP, and at most {ADDRESSES_MAX} in all; QUIC stands beside TCP, so that a firewall without UDP cuts nobody off"
    )]
    WithoutTcp,
}

fn one(text: &str) -> Option<Address> {
    if let Ok(socket) = text.parse() {
        let transport = Transport::Tcp;
        return Some(Address { transport, socket });
    }
    let parts: Vec<&str> = text.split('/').collect();
    let ["", family, ip, "udp", port, "quic-v1"] = parts.as_slice() else {
        return None;
    };
    let ip: IpAddr = match *family {
        "ip4" => IpAddr::V4(ip.parse().ok()?),
        "ip6" => IpAddr::V6(ip.parse().ok()?),
        _ => return None,
    };
    let transport = Transport::Quic;
    let socket = SocketAddr::new(ip, port.parse().ok()?);
    Some(Address { transport, socket })
}

impl FromStr for Addresses {
    type Err = AddressesError;

    fn from_str(text: &str) -> Result<Self, AddressesError> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim) {
            let unreadable = || AddressesError::Unreadable(part.chars().take(80).collect());
            all.push(one(part).ok_or_else(unreadable)?);
            if all.len() > ADDRESSES_MAX {
                return Err(AddressesError::WithoutTcp);
            }
        }
        if all.iter().any(|a| a.transport == Transport::Tcp) {
            Ok(Self(all))
        } else {
            Err(AddressesError::WithoutTcp)
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl Addresses {
    /// All of them, in their order.
    pub fn all(&self) -> &[Address] {
        &self.0
    }

    /// Those that are dialled, in this order: up to the first over TCP, which is the last resort.
    /// QUIC named behind it is there for whoever prefers it, and never dialled instead of it.
    pub fn dialled(&self) -> &[Address] {
        let tcp = self.0.iter().position(|a| a.transport == Transport::Tcp);
        &self.0[..=tcp.unwrap_or(self.0.len() - 1)]
    }

    /// The same addresses, those of one transport first.
    pub fn preferring(mut self, transport: Transport) -> Self {
        self.0.sort_by_key(|address| address.transport != transport);
        self
    }

    /// Adds QUIC behind the others, where a node listens for it and nobody said how it is reached:
    /// at the same machine, on the port on which it listens.
    pub(crate) fn with_quic_of(mut self, listening: &str) -> Self {
        let is_quic = |a: &&Address| a.transport == Transport::Quic;
        let own: Option<Self> = listening.parse().ok();
        let own = own.and_then(|own| own.0.iter().find(is_quic).map(|a| a.socket.port()));
        if let Some(port) = own.filter(|port| *port != 0)
            && self.0.iter().find(is_quic).is_none()
            && self.0.len() < ADDRESSES_MAX
        {
            let socket = SocketAddr::new(self.0[0].socket.ip(), port);
            let transport = Transport::Quic;
            self.0.push(Address { transport, socket });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "10.0.0.5:8461,/ip4/10.0.0.5/udp/8462/quic-v1";

    fn read(text: &str) -> Addresses {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read_as_it_is_written_and_one_address_is_a_list() {
        for text in [BOTH, "[::1]:1", "/ip6/::1/udp/1/quic-v1,[::1]:1"] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read(&BOTH.replace(',', " , ")), read(BOTH));
    }

    #[test]
    fn a_list_without_tcp_or_with_something_else_in_it_is_refused() {
        for text in [
            "",
            "10.0.0.5",
            "10.0.0.5:1,",
            "node:1",
            "/ip4/::1/udp/1/quic-v1,1.1.1.1:1",
        ] {
            let error = text.parse::<Addresses>().unwrap_err();
            assert!(matches!(error, AddressesError::Unreadable(_)), "{text}");
        }
        for text in [
            "/ip4/10.0.0.5/udp/1/quic-v1",
            "1.1.1.1:1,1.1.1.1:2,1.1.1.1:3,1.1.1.1:4,1.1.1.1:5",
        ] {
            assert_eq!(text.parse::<Addresses>(), Err(AddressesError::WithoutTcp));
        }
    }

    #[test]
    fn quic_is_dialled_only_where_it_stands_before_tcp() {
        let transports = |addresses: &[Address]| -> Vec<Transport> {
            addresses.iter().map(|a| a.transport).collect()
        };
        assert_eq!(transports(read(BOTH).dialled()), [Transport::Tcp]);
        let preferred = read(BOTH).preferring(Transport::Quic);
        let both = [Transport::Quic, Transport::Tcp];
        assert_eq!(transports(preferred.dialled()), both);
        assert_eq!(preferred.preferring(Transport::Tcp), read(BOTH));
    }

    #[test]
    fn an_invitation_names_quic_where_the_node_listens_for_it() {
        let tcp = || read("10.0.0.5:8461");
        let listens = "0.0.0.0:8461,/ip4/0.0.0.0/udp/8462/quic-v1";
        assert_eq!(tcp().with_quic_of(listens), read(BOTH));
        assert_eq!(tcp().with_quic_of("0.0.0.0:8461"), tcp());
        assert_eq!(tcp().with_quic_of(&listens.replace("8462", "0")), tcp());
        let said = read("10.0.0.5:8461,/ip4/10.0.0.9/udp/1/quic-v1");
        assert_eq!(said.clone().with_quic_of(listens), said);
    }
}
