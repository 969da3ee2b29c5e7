//! Conversations between endpoints over real loopback.
//!
//! It owns the journeys of the public interface, good and bad: those that every transport must make
//! are in `loopback/journeys.rs`, here are those that need sockets of one kind. Frames sent by hand
//! are tested inside the crate.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside the test functions"
)]
#![expect(
    clippy::duplicate_mod,
    reason = "the same journeys are made over each transport"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use p2p::{
    Address, DialError, Endpoint, Limits, ReceiveError, StartError, Transport, TransportKey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

#[path = "loopback"]
mod over_tcp {
    const OVER: p2p::Transport = p2p::Transport::Tcp;
    #[path = "journeys.rs"]
    mod journeys;
}

#[path = "loopback"]
mod over_quic {
    const OVER: p2p::Transport = p2p::Transport::Quic;
    #[path = "journeys.rs"]
    mod journeys;
}

const SOON: Duration = Duration::from_secs(30);

fn key(number: u8) -> TransportKey {
    TransportKey::from_seed([number; 32])
}

/// Listens over TCP, then QUIC.
async fn listener(limits: Limits) -> (Endpoint, [Address; 2]) {
    let socket = SocketAddr::from(([127, 0, 0, 1], 0));
    let both = [Address::from(socket), Address::quic(socket)];
    let endpoint = Endpoint::start_on(key(1), &both, limits).await.unwrap();
    let both = [endpoint.listening()[0], endpoint.listening()[1]];
    (endpoint, both)
}

async fn dialer(number: u8, limits: Limits) -> Endpoint {
    Endpoint::start(key(number), None, limits).await.unwrap()
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_unreachable_at_once() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .into();
    let child = dialer(2, Limits::default()).await;
    let error = child.dial(addr, key(1).public()).await.unwrap_err();
    let kind = std::io::ErrorKind::ConnectionRefused;
    assert_eq!(error, DialError::Unreachable { addr, kind });
    assert!(error.to_string().contains(&addr.to_string()));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap().into();
    let limits = Limits {
        connect_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let child = dialer(2, limits).await;
    let error = timeout(SOON, child.dial(addr, key(1).public()))
        .await
        .unwrap()
        .unwrap_err();
    let kind = std::io::ErrorKind::TimedOut;
    assert_eq!(error, DialError::Unreachable { addr, kind });
}

#[tokio::test]
async fn a_server_that_hangs_up_is_tried_a_bounded_number_of_times() {
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = rude.local_addr().unwrap().into();
    tokio::spawn(async move { while rude.accept().await.is_ok() {} });
    let limits = Limits {
        dial_attempts_max: 3,
        ..Limits::default()
    };
    let child = dialer(2, limits).await;
    let error = timeout(SOON, child.dial(addr, key(1).public()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error, DialError::Handshake { addr, attempts: 3 });
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Endpoint::start(key(1), Some(addr), Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Listen { addr: named, .. } if named == addr.into()));
}

/// Forwards one connection until told to keep everything to itself, as a dead line does.
async fn line_to(addr: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let line = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line_addr = line.local_addr().unwrap();
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    tokio::spawn(async move {
        let (near, _) = line.accept().await.unwrap();
        let far = TcpStream::connect(addr).await.unwrap();
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = far.into_split();
        let back = Arc::clone(&is_dead);
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = far_in.read(&mut bytes).await {
                if !back.load(Ordering::SeqCst) && near_out.write_all(&bytes[..len]).await.is_err()
                {
                    break;
                }
            }
            std::future::pending::<()>().await;
        });
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = near_in.read(&mut bytes).await {
            if !is_dead.load(Ordering::SeqCst) && far_out.write_all(&bytes[..len]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    (line_addr, dead)
}

#[tokio::test]
async fn a_peer_behind_a_dead_line_is_noticed_by_both_sides() {
    let limits = Limits {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let (parent, [addr, _]) = listener(limits.clone()).await;
    let child = dialer(2, limits).await;
    let (line, dead) = line_to(addr.socket).await;
    let ours = child.dial(line.into(), key(1).public()).await.unwrap();
    let theirs = parent.accept().await.unwrap();
    dead.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let (_sender, mut receiver) = ours.split();
    let (_their_sender, mut messages) = theirs.split();
    let told = timeout(SOON, receiver.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
    let told = timeout(SOON, messages.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );

    // The dead connection is not used again: another line is dialled.
    let again = child.dial(addr, key(1).public()).await;
    assert_eq!(again.unwrap().remote(), addr);
}

#[tokio::test]
async fn a_silent_stranger_holding_every_handshake_is_timed_out() {
    let limits = Limits {
        pending_incoming_max: 4,
        connect_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let (_parent, [addr, _]) = listener(limits).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(addr.socket).await.unwrap());
    }
    let child = dialer(2, Limits::default()).await;
    timeout(SOON, child.dial(addr, key(1).public()))
        .await
        .unwrap()
        .unwrap();
    drop(held);
}

// ---- QUIC alone ----------------------------------------------------------------------------

/// Carries the packets of one dialer until told to keep everything to itself.
async fn udp_line_to(addr: Address) -> (Address, Arc<AtomicBool>) {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    far.connect(addr.socket).await.unwrap();
    let line = Address::quic(near.local_addr().unwrap());
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    tokio::spawn(async move {
        let mut dialer = None;
        let (mut out, mut back) = ([0; 2048], [0; 2048]);
        loop {
            let (bytes, to_dialer) = tokio::select! {
                Ok((len, from)) = near.recv_from(&mut out) => {
                    dialer = Some(from);
                    (&out[..len], false)
                }
                Ok(len) = far.recv(&mut back) => (&back[..len], true),
            };
            if is_dead.load(Ordering::SeqCst) {
                continue;
            }
            let _ = match dialer {
                Some(dialer) if to_dialer => near.send_to(bytes, dialer).await,
                _ => far.send(bytes).await,
            };
        }
    });
    (line, dead)
}

/// The first packets of dialers that came no further: each opens a handshake.
async fn first_packets(count: u8) -> Vec<Vec<u8>> {
    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = Address::quic(deaf.local_addr().unwrap());
    let limits = Limits {
        connect_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut senders = Vec::new();
    let mut bytes = [0; 2048];
    for number in 0..count {
        let stranger = dialer(50 + number, limits.clone()).await;
        let dialled = tokio::spawn(async move { stranger.dial(addr, key(1).public()).await });
        loop {
            let (len, from) = timeout(SOON, deaf.recv_from(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            if !senders.contains(&from) {
                senders.push(from);
                packets.push(bytes[..len].to_vec());
                break;
            }
        }
        let error = timeout(SOON, dialled).await.unwrap().unwrap().unwrap_err();
        let kind = std::io::ErrorKind::TimedOut;
        assert_eq!(error, DialError::Unreachable { addr, kind });
    }
    packets
}

#[tokio::test]
async fn a_udp_port_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = Address::quic(taken.local_addr().unwrap());
    let error = Endpoint::start_on(key(1), &[addr], Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Listen { addr: named, .. } if named == addr));
    assert!(error.to_string().contains("/quic-v1"), "{error}");
}

#[tokio::test]
async fn a_connection_over_one_transport_is_not_taken_for_one_over_the_other() {
    let (parent, [tcp, quic]) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    for addr in [tcp, quic, tcp, quic] {
        let ours = child.dial(addr, key(1).public()).await.unwrap();
        let theirs = timeout(SOON, parent.accept()).await.unwrap().unwrap();
        assert_eq!(ours.remote(), addr);
        assert_eq!(theirs.remote().transport, addr.transport);
        assert_eq!(theirs.peer(), key(2).public());
    }
}

#[tokio::test]
async fn a_peer_behind_a_dead_line_of_udp_is_noticed_by_both_sides() {
    let limits = Limits {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let (parent, [_, quic]) = listener(limits.clone()).await;
    let child = dialer(2, limits).await;
    let (line, dead) = udp_line_to(quic).await;
    let ours = child.dial(line, key(1).public()).await.unwrap();
    let theirs = parent.accept().await.unwrap();
    // While nobody says anything, the line is kept.
    tokio::time::sleep(Duration::from_secs(2)).await;
    dead.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let (_sender, mut receiver) = ours.split();
    let (_their_sender, mut messages) = theirs.split();
    let told = timeout(SOON, receiver.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
    let told = timeout(SOON, messages.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let again = child.dial(quic, key(1).public()).await;
    assert_eq!(again.unwrap().remote(), quic);
}

#[tokio::test]
async fn half_handshakes_over_quic_are_counted_and_neither_stop_tcp_nor_last() {
    let limits = Limits {
        pending_incoming_max: 4,
        connect_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let packets = first_packets(12).await;
    let (parent, [tcp, quic]) = listener(limits).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in &packets {
        stranger.send_to(packet, quic.socket).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(parent.turned_away(), 12 - 4);
    // The way over TCP is open all the while.
    let child = dialer(2, Limits::default()).await;
    let began = Instant::now();
    let over_tcp = child.dial(tcp, key(1).public()).await.unwrap();
    assert_eq!(over_tcp.remote().transport, Transport::Tcp);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    // And that over QUIC is open again once those that came no further are given up.
    let over_quic = timeout(SOON, child.dial(quic, key(1).public())).await;
    assert_eq!(over_quic.unwrap().unwrap().remote(), quic);
}
