//! Which key exchange two endpoints agree on, as anybody on the line can see it.
//!
//! The ServerHello names the group that was chosen: over TCP in clear, over QUIC under keys that
//! follow from the first packet (RFC 9001, 5.2). A recording of either must stay closed for a
//! lifetime, so it has to be the hybrid with ML-KEM.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside the test functions"
)]

use std::net::SocketAddr;
use std::time::Duration;

use p2p::{Address, Endpoint, Limits, TransportKey};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};
use rustls::{NamedGroup, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// The extension `key_share`, RFC 8446.
const KEY_SHARE: u16 = 51;

fn key(number: u8) -> TransportKey {
    TransportKey::from_seed([number; 32])
}

async fn parent(address: Address) -> (Endpoint, Address) {
    let listen = [address];
    let parent = Endpoint::start_on(key(1), &listen, Limits::default());
    let parent = parent.await.unwrap();
    let address = parent.listening()[0];
    (parent, address)
}

/// Dials through a line that was tapped, and talks.
async fn talk(line: Address, parent: &Endpoint) {
    let child = Endpoint::start(key(2), None, Limits::default()).await;
    let child = child.unwrap();
    let dialled = timeout(SOON, child.dial(line, key(1).public())).await;
    let (sender, _receiver) = dialled.unwrap().unwrap().split();
    sender.send(b"hello".to_vec()).await.unwrap();
    let accepted = timeout(SOON, parent.accept()).await.unwrap().unwrap();
    let (_sender, mut messages) = accepted.split();
    assert_eq!(messages.next().await, Some(Ok(b"hello".to_vec())));
}

/// A reader that ends where the bytes do.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    /// A number in one to eight bytes, RFC 9000, 16.
    fn varint(&mut self) -> Option<u64> {
        let len = 1 << (self.0.first()? >> 6);
        let mask = (1u64 << (8 * len - 2)) - 1;
        Some(self.number(len)? & mask)
    }

    fn counted(&mut self, len: usize) -> Option<&'a [u8]> {
        let count = self.number(len)?;
        self.take(usize::try_from(count).ok()?)
    }
}

/// The group in a ServerHello, which may be cut behind it.
fn group(hello: &[u8]) -> Option<NamedGroup> {
    let mut bytes = Bytes(hello);
    // Type, length, version, random.
    (bytes.number(1)? == 2).then_some(())?;
    bytes.take(3 + 2 + 32)?;
    // Session, cipher suite, compression, length of the extensions.
    bytes.counted(1)?;
    bytes.take(2 + 1 + 2)?;
    loop {
        let (kind, len) = (bytes.number(2)?, bytes.number(2)?);
        if kind == u64::from(KEY_SHARE) {
            return Some(NamedGroup::from(u16::try_from(bytes.number(2)?).ok()?));
        }
        bytes.take(usize::try_from(len).ok()?)?;
    }
}

// ---- TCP -----------------------------------------------------------------------------------

#[tokio::test]
async fn over_tcp_both_sides_choose_the_hybrid_with_ml_kem() {
    let (parent, address) = parent(SocketAddr::from(([127, 0, 0, 1], 0)).into()).await;
    let line = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tapped = line.local_addr().unwrap().into();
    let (heard, mut hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (near, _) = line.accept().await.unwrap();
        let far = TcpStream::connect(address.socket).await.unwrap();
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = far.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = far_in.read(&mut bytes).await {
            let _ = heard.send(bytes[..len].to_vec());
            near_out.write_all(&bytes[..len]).await.unwrap();
        }
    });
    talk(tapped, &parent).await;
    let mut said = Vec::new();
    while let Ok(bytes) = hears.try_recv() {
        said.extend(bytes);
    }
    // Behind the choice of the protocol comes the first record: a handshake, a ServerHello.
    let record = said
        .windows(6)
        .position(|w| w[..3] == [22, 3, 3] && w[5] == 2);
    let hello = &said[record.unwrap() + 5..];
    assert_eq!(group(hello), Some(NamedGroup::X25519MLKEM768));
}

// ---- QUIC ----------------------------------------------------------------------------------

/// The beginning of what the server said in the handshake.
fn server_hello(first: &[u8], answers: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut header = Bytes(first);
    header.take(1 + 4)?;
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    let keys = Keys::initial(
        Version::V1,
        suite,
        suite.quic?,
        header.counted(1)?,
        Side::Client,
    );
    answers.iter().find_map(|datagram| {
        let mut rest = datagram.as_slice();
        loop {
            // Long header, type Initial; what is of another type ends the search. The bit 0x40
            // is set by chance where both sides allow it, RFC 9287.
            (rest.first()? & 0xb0 == 0x80).then_some(())?;
            let mut bytes = Bytes(rest);
            bytes.take(1 + 4)?;
            bytes.counted(1)?;
            bytes.counted(1)?;
            let token = bytes.varint()?;
            bytes.take(usize::try_from(token).ok()?)?;
            let length = usize::try_from(bytes.varint()?).ok()?;
            let number_at = rest.len() - bytes.0.len();
            let mut packet = rest.get(..number_at + length)?.to_vec();
            rest = &rest[number_at + length..];
            if let Some(hello) = crypto(&keys, &mut packet, number_at) {
                return Some(hello);
            }
        }
    })
}

/// The frame CRYPTO at offset 0 of an Initial packet.
fn crypto(keys: &Keys, packet: &mut [u8], number_at: usize) -> Option<Vec<u8>> {
    let (header, body) = packet.split_at_mut(number_at);
    let (number, sample) = body.split_at_mut(4);
    let sample = sample.get(..keys.remote.header.sample_len())?;
    let unmask = &keys.remote.header;
    unmask
        .decrypt_in_place(sample, &mut header[0], number)
        .ok()?;
    let len = usize::from(packet[0] & 3) + 1;
    let number = Bytes(&packet[number_at..]).number(len)?;
    let (header, payload) = packet.split_at_mut(number_at + len);
    let open = &keys.remote.packet;
    let mut frames = Bytes(open.decrypt_in_place(number, header, payload).ok()?);
    loop {
        match frames.varint()? {
            0 | 1 => {}
            2 => {
                frames.varint()?;
                frames.varint()?;
                let ranges = frames.varint()?;
                for _ in 0..=2 * ranges {
                    frames.varint()?;
                }
            }
            6 => {
                let (offset, len) = (frames.varint()?, frames.varint()?);
                let data = frames.take(usize::try_from(len).ok()?)?;
                if offset == 0 {
                    return Some(data.to_vec());
                }
            }
            _ => return None,
        }
    }
}

#[tokio::test]
async fn over_quic_both_sides_choose_the_hybrid_with_ml_kem() {
    let (parent, address) = parent(Address::quic(([127, 0, 0, 1], 0).into())).await;
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(address.socket).await.unwrap();
    let tapped = Address::quic(near.local_addr().unwrap());
    let (heard, mut hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut dialer = None;
        let (mut out, mut back) = ([0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut out) => {
                    dialer = Some(from);
                    let _ = heard.send((true, out[..len].to_vec()));
                    far.send(&out[..len]).await.unwrap();
                }
                Ok(len) = far.recv(&mut back) => {
                    let _ = heard.send((false, back[..len].to_vec()));
                    near.send_to(&back[..len], dialer.unwrap()).await.unwrap();
                }
            }
        }
    });
    talk(tapped, &parent).await;
    let (mut first, mut answers) = (None, Vec::new());
    while let Ok((is_dialers, datagram)) = hears.try_recv() {
        if is_dialers {
            first.get_or_insert(datagram);
        } else {
            answers.push(datagram);
        }
    }
    let hello = server_hello(&first.unwrap(), &answers).unwrap();
    assert_eq!(group(&hello), Some(NamedGroup::X25519MLKEM768));
}
