//! Peers that break the rules, over real loopback, TCP and QUIC: each is told why, and costs no more than its
//! window. It owns no code of the crate, only these tests; it speaks the frames by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frame::{End, Frame, PAYLOAD_MAX, parts};
use crate::key::peer_id;
use crate::swarm::Driver;
use crate::{
    Address, Conversation, DialError, Endpoint, Limits, MESSAGE_MAX, ReceiveError, SendError,
    Transport, TransportKey, Violation, WINDOW,
};

const SOON: Duration = Duration::from_secs(20);

fn key(number: u8) -> TransportKey {
    TransportKey::from_seed([number; 32])
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Quic];

fn loopback(transport: Transport) -> Address {
    let socket = SocketAddr::from(([127, 0, 0, 1], 0));
    Address { transport, socket }
}

async fn listener(over: Transport, limits: Limits) -> Endpoint {
    let listening = Endpoint::start_on(key(1), &[loopback(over)], limits).await;
    listening.unwrap()
}

fn quick() -> Limits {
    Limits {
        stall_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

struct Pair {
    honest: Endpoint,
    hostile: Endpoint,
    conversation: Conversation,
    stream: Stream,
}

/// An honest listener's conversation, and the raw stream of the peer that dialled it.
async fn pair(over: Transport) -> Pair {
    let honest = listener(over, quick()).await;
    let hostile = Endpoint::start(key(2), None, quick()).await.unwrap();
    let peer = peer_id(&key(1).public()).unwrap();
    let line = hostile
        .dialer
        .ready_line(honest.listening()[0], peer)
        .await
        .unwrap();
    let conversation = timeout(SOON, honest.accept()).await.unwrap().unwrap();
    Pair {
        honest,
        hostile,
        conversation,
        stream: line.stream,
    }
}

async fn put(stream: &mut Stream, frame: Frame<'_>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    put_bytes(stream, &bytes).await;
}

async fn put_bytes(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Sends raw bytes and returns what the honest side's application is told, and what the peer is.
async fn answer_to(over: Transport, bytes: &[u8]) -> (Option<ReceiveError>, Vec<u8>) {
    let mut pair = pair(over).await;
    put_bytes(&mut pair.stream, bytes).await;
    let (sender, mut receiver) = pair.conversation.split();
    let told = timeout(SOON, receiver.next()).await.unwrap();
    let mut farewell = Vec::new();
    timeout(SOON, pair.stream.read_to_end(&mut farewell))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        timeout(SOON, receiver.next()).await.unwrap(),
        None,
        "an error is the last word"
    );
    assert!(
        sender.send(vec![1]).await.is_err(),
        "the other half is closed, too"
    );
    pair.hostile.close().await;
    pair.honest.close().await;
    (told.and_then(Result::err), farewell)
}

const FAULT: [u8; 4] = [4, 0, 1, 2];
const STALLED: [u8; 4] = [4, 0, 1, 3];

#[tokio::test]
async fn broken_frames_end_the_conversation_and_say_why_to_both_sides() {
    let mut too_long = Vec::new();
    for part in parts(&vec![0; MESSAGE_MAX + 1]) {
        part.encode(&mut too_long);
    }
    for (bytes, violation) in [
        (vec![0], Violation::UnknownKind(0)),
        (vec![9, 0, 0], Violation::UnknownKind(9)),
        (
            vec![1, 0xff, 0xff],
            Violation::BadLength {
                kind: 1,
                len: 0xffff,
            },
        ),
        (vec![2, 0, 0], Violation::BadLength { kind: 2, len: 0 }),
        (vec![3, 0, 4, 0, 0, 0, 1], Violation::UnearnedCredit),
        (vec![3, 0, 4, 0, 0, 0, 0], Violation::EmptyCredit),
        (vec![4, 0, 1, 77], Violation::UnknownReason(77)),
        (vec![2, 0, 1, 7, 4, 0, 1, 0], Violation::EndInMessage),
        (too_long, Violation::MessageTooLong),
    ] {
        for over in BOTH {
            let (told, farewell) = answer_to(over, &bytes).await;
            assert_eq!(told, Some(ReceiveError::Broken(violation)));
            assert_eq!(farewell, FAULT, "{violation:?} over {over}");
        }
    }
}

#[tokio::test]
async fn a_frame_left_half_sent_is_a_stall() {
    for bytes in [vec![1], vec![1, 0, 2, 7], vec![2, 0, 1, 7]] {
        for over in BOTH {
            let (told, farewell) = answer_to(over, &bytes).await;
            assert!(
                matches!(told, Some(ReceiveError::Stalled { .. })),
                "{told:?}"
            );
            assert_eq!(farewell, STALLED);
        }
    }
}

#[tokio::test]
async fn a_peer_that_sends_past_its_window_is_cut_off_with_what_it_sent_before() {
    for over in BOTH {
        sends_past_its_window(over).await;
    }
}

async fn sends_past_its_window(over: Transport) {
    let mut pair = pair(over).await;
    let part = vec![0; PAYLOAD_MAX];
    for _ in 0..2 * WINDOW / PAYLOAD_MAX {
        // Once the reader is gone, the transport grants no more room and the write waits for ever.
        let write = timeout(Duration::from_secs(2), async {
            let mut bytes = Vec::new();
            Frame::Last(&part).encode(&mut bytes);
            pair.stream.write_all(&bytes).await?;
            pair.stream.flush().await
        });
        if !matches!(write.await, Ok(Ok(()))) {
            break;
        }
    }
    // Nothing is taken before all of it has arrived: what is taken is granted anew.
    let mut farewell = Vec::new();
    let _ = timeout(SOON, pair.stream.read_to_end(&mut farewell)).await;
    let (_sender, mut receiver) = pair.conversation.split();
    let mut received = 0;
    let told = loop {
        match timeout(SOON, receiver.next()).await.unwrap() {
            Some(Ok(message)) => received += message.len(),
            Some(Err(error)) => break error,
            None => panic!("the end must say why"),
        }
    };
    assert_eq!(told, ReceiveError::Broken(Violation::OverCredit));
    assert!(received <= WINDOW, "{received} bytes");
    pair.hostile.close().await;
    pair.honest.close().await;
}

#[tokio::test]
async fn a_stream_that_ends_without_a_farewell_is_lost_not_closed() {
    for (over, bytes) in BOTH
        .into_iter()
        .flat_map(|over| [(over, &b""[..]), (over, &[1, 0, 2, 7])])
    {
        let mut pair = pair(over).await;
        put_bytes(&mut pair.stream, bytes).await;
        drop(pair.stream);
        let (sender, mut receiver) = pair.conversation.split();
        let told = timeout(SOON, receiver.next()).await.unwrap();
        assert_eq!(told, Some(Err(ReceiveError::Lost)));
        assert_eq!(sender.send(vec![1]).await, Err(SendError::Lost));
    }
}

#[tokio::test]
async fn blame_from_the_peer_reaches_the_application() {
    for (over, end, told) in [
        (Transport::Tcp, End::Fault, ReceiveError::Refused),
        (Transport::Quic, End::Stalled, ReceiveError::TooSlow),
    ] {
        let mut pair = pair(over).await;
        put(&mut pair.stream, Frame::Last(b"before")).await;
        put(&mut pair.stream, Frame::End(end)).await;
        let (_sender, mut receiver) = pair.conversation.split();
        assert_eq!(receiver.next().await, Some(Ok(b"before".to_vec())));
        assert_eq!(receiver.next().await, Some(Err(told)));
        assert_eq!(receiver.next().await, None);
    }
}

#[tokio::test]
async fn a_peer_that_never_says_ready_is_given_up() {
    let (inbound, kept) = mpsc::channel(8);
    let mut driver = Driver::new(&key(1), &Limits::default(), inbound, Arc::default()).unwrap();
    let addr = driver.listen(loopback(Transport::Tcp)).await.unwrap();
    let (_commands, commanded) = mpsc::channel(1);
    let (_live, lives) = mpsc::channel(1);
    let silent = tokio::spawn(driver.run(commanded, lives));
    let ready_timeout = Duration::from_millis(300);
    let limits = Limits {
        ready_timeout,
        ..Limits::default()
    };
    let dialer = Endpoint::start(key(2), None, limits).await.unwrap();
    let error = dialer.dial(addr, key(1).public()).await.unwrap_err();
    assert_eq!(
        error,
        DialError::NoReply {
            addr,
            timeout: ready_timeout
        }
    );
    dialer.close().await;
    drop(kept);
    silent.abort();
}

#[tokio::test]
async fn one_peer_cannot_take_every_seat() {
    let limits = Limits {
        conversations_per_peer_max: 2,
        dial_attempts_max: 2,
        ..Limits::default()
    };
    let honest = listener(Transport::Quic, limits.clone()).await;
    let addr = honest.listening()[0];
    let greedy = Endpoint::start(key(2), None, limits.clone()).await.unwrap();
    let _first = greedy.dial(addr, key(1).public()).await.unwrap();
    let second = greedy.dial(addr, key(1).public()).await.unwrap();
    let third = greedy.dial(addr, key(1).public()).await.unwrap_err();
    assert_eq!(third, DialError::Busy { addr, attempts: 2 });
    let modest = Endpoint::start(key(3), None, limits).await.unwrap();
    modest.dial(addr, key(1).public()).await.unwrap();
    second.close().await;
    greedy.dial(addr, key(1).public()).await.unwrap();
}
