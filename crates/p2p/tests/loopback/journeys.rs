//! The journeys that are the same over every transport.
//!
//! It owns what holds of a conversation whatever carries it; `OVER` beside this module says what.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside the test functions"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Address, Conversation, DialError, Endpoint, Limits, MESSAGE_MAX, ReceiveError, SendError,
    TransportKey, WINDOW,
};
use tokio::time::{Instant, sleep, timeout};

use super::OVER;

const SOON: Duration = Duration::from_secs(30);

fn key(number: u8) -> TransportKey {
    TransportKey::from_seed([number; 32])
}

async fn listener(limits: Limits) -> (Endpoint, Address) {
    let socket = SocketAddr::from(([127, 0, 0, 1], 0));
    let addr = Address {
        transport: OVER,
        socket,
    };
    let endpoint = Endpoint::start_on(key(1), &[addr], limits).await.unwrap();
    let addr = endpoint.listening()[0];
    assert_eq!(addr.transport, OVER);
    (endpoint, addr)
}

async fn dialer(number: u8, limits: Limits) -> Endpoint {
    Endpoint::start(key(number), None, limits).await.unwrap()
}

/// Both ends of one conversation: the dialer's, then the listener's.
async fn talk(dialer: &Endpoint, listener: &Endpoint) -> (Conversation, Conversation) {
    let addr = listener.listening()[0];
    let dialled = timeout(SOON, dialer.dial(addr, key(1).public()))
        .await
        .unwrap();
    let accepted = timeout(SOON, listener.accept()).await.unwrap();
    (dialled.unwrap(), accepted.unwrap())
}

/// Bytes that differ along the message and between messages.
fn message(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i + number * 7) as u8).collect()
}

#[tokio::test]
async fn messages_come_back_as_they_were_sent_and_both_know_the_peer() {
    let (parent, addr) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    assert_eq!((ours.peer(), ours.remote()), (key(1).public(), addr));
    assert_eq!(theirs.peer(), key(2).public());
    assert!(theirs.remote().socket.ip().is_loopback());

    let echo = tokio::spawn(async move {
        let (sender, mut receiver) = theirs.split();
        while let Some(Ok(message)) = receiver.next().await {
            sender.send(message).await.unwrap();
        }
        sender.close().await.unwrap();
    });
    let (sender, mut receiver) = ours.split();
    let lengths = [0, 1, 65_532, 65_533, 65_534, 200_000, MESSAGE_MAX];
    for (number, len) in lengths.into_iter().enumerate() {
        sender.send(message(number, len)).await.unwrap();
        let back = timeout(SOON, receiver.next()).await.unwrap();
        assert!(back == Some(Ok(message(number, len))), "length {len}");
    }
    sender.close().await.unwrap();
    assert_eq!(timeout(SOON, receiver.next()).await.unwrap(), None);
    echo.await.unwrap();
    child.close().await;
    parent.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_send_64_mib_at_once_without_blocking_each_other() {
    const COUNT: usize = 64;
    async fn bulk(conversation: Conversation) {
        let (sender, mut receiver) = conversation.split();
        // Write everything, then read: the order that blocks forever without separate tasks.
        let reading = tokio::spawn(async move {
            for number in 0..COUNT {
                let message_ = receiver.next().await.unwrap().unwrap();
                assert!(message_ == message(number, MESSAGE_MAX), "message {number}");
            }
            assert_eq!(receiver.next().await, None);
        });
        for number in 0..COUNT {
            sender.send(message(number, MESSAGE_MAX)).await.unwrap();
        }
        sender.close().await.unwrap();
        reading.await.unwrap();
    }
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let both = async { tokio::join!(bulk(ours), bulk(theirs)) };
    timeout(Duration::from_secs(120), both).await.unwrap();
}

#[tokio::test]
async fn a_window_of_messages_each_way_needs_no_reader() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (our_sender, mut our_receiver) = ours.split();
    let (their_sender, mut their_receiver) = theirs.split();
    let send = message(0, MESSAGE_MAX);
    timeout(SOON, our_sender.send(send.clone()))
        .await
        .unwrap()
        .unwrap();
    timeout(SOON, their_sender.send(send.clone()))
        .await
        .unwrap()
        .unwrap();
    assert!(our_receiver.next().await == Some(Ok(send.clone())));
    assert!(their_receiver.next().await == Some(Ok(send)));
}

#[tokio::test]
async fn a_node_that_proves_another_key_is_refused_at_once() {
    let (parent, addr) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let began = Instant::now();
    let error = child.dial(addr, key(9).public()).await.unwrap_err();
    // Whose key it is, the dialer is told: it may be one that follows the expected one.
    let found = Some(key(1).public());
    assert_eq!(error, DialError::WrongKey { addr, found });
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "no second attempt"
    );
    let nobody = timeout(Duration::from_millis(200), parent.accept()).await;
    assert!(nobody.is_err(), "the wrong node heard nothing");
}

#[tokio::test]
async fn a_connection_with_the_right_key_does_not_excuse_a_wrong_one() {
    let (parent, addr) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let _open = talk(&child, &parent).await;
    let error = child.dial(addr, key(9).public()).await.unwrap_err();
    let found = Some(key(1).public());
    assert_eq!(error, DialError::WrongKey { addr, found });
}

#[tokio::test]
async fn bytes_that_are_no_key_and_oneself_are_refused() {
    let (parent, addr) = listener(Limits::default()).await;
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    let error = parent.dial(addr, off_curve).await.unwrap_err();
    assert_eq!(error, DialError::BadKey { addr });
    let error = parent.dial(addr, key(1).public()).await.unwrap_err();
    assert_eq!(error, DialError::ThisNode { addr });
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_conversation_goes_on() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (sender, _receiver) = ours.split();
    let (_their_sender, mut messages) = theirs.split();
    let len = MESSAGE_MAX + 1;
    assert_eq!(
        sender.send(vec![0; len]).await,
        Err(SendError::TooLong { len })
    );
    sender.send(b"fits".to_vec()).await.unwrap();
    assert_eq!(messages.next().await, Some(Ok(b"fits".to_vec())));
}

#[tokio::test]
async fn a_peer_that_stops_taking_messages_bounds_the_sender_and_is_dropped() {
    let limits = Limits {
        stall_timeout: Duration::from_millis(700),
        ..Limits::default()
    };
    let (parent, _) = listener(limits.clone()).await;
    let child = dialer(2, limits).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (sender, mut receiver) = ours.split();
    let mut sent = 0;
    let error = loop {
        match timeout(SOON, sender.send(vec![0; 10_000])).await.unwrap() {
            Ok(()) => sent += 10_000,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::Stalled { .. }), "{error:?}");
    assert!(sent <= WINDOW && sent > WINDOW / 2, "{sent} bytes");
    let told = timeout(SOON, receiver.next()).await.unwrap();
    assert!(
        matches!(told, Some(Err(ReceiveError::Stalled { .. }))),
        "{told:?}"
    );

    // The slow side finds what was sent, then the reason.
    let (_their_sender, mut slow) = theirs.split();
    let mut taken = 0;
    let told = loop {
        match timeout(SOON, slow.next()).await.unwrap() {
            Some(Ok(message)) => taken += message.len(),
            other => break other,
        }
    };
    assert_eq!(taken, sent);
    assert_eq!(told, Some(Err(ReceiveError::TooSlow)));
}

#[tokio::test]
async fn a_slow_peer_is_waited_for() {
    let limits = Limits {
        stall_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let (parent, _) = listener(limits.clone()).await;
    let child = dialer(2, limits).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let slow = tokio::spawn(async move {
        let (_sender, mut receiver) = theirs.split();
        let mut count = 0;
        while let Some(message) = receiver.next().await {
            message.unwrap();
            count += 1;
            sleep(Duration::from_millis(300)).await;
        }
        count
    });
    let (sender, _receiver) = ours.split();
    for number in 0..12 {
        sender.send(message(number, MESSAGE_MAX)).await.unwrap();
    }
    sender.close().await.unwrap();
    assert_eq!(timeout(SOON, slow).await.unwrap().unwrap(), 12);
}

#[tokio::test]
async fn a_silent_conversation_outlives_the_stall_timeout() {
    let limits = Limits {
        stall_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (parent, _) = listener(limits.clone()).await;
    let child = dialer(2, limits).await;
    let (ours, theirs) = talk(&child, &parent).await;
    sleep(Duration::from_millis(1200)).await;
    let (sender, _receiver) = ours.split();
    let (_their_sender, mut messages) = theirs.split();
    sender.send(b"still here".to_vec()).await.unwrap();
    assert_eq!(messages.next().await, Some(Ok(b"still here".to_vec())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_dialers_at_once_all_get_a_conversation() {
    let limits = Limits {
        accept_queue_max: 8,
        ..Limits::default()
    };
    let (parent, addr) = listener(limits).await;
    let mut dialers = Vec::new();
    for number in 0..40 {
        dialers.push(dialer(100 + number, Limits::default()).await);
    }
    let mut tasks = Vec::new();
    for dialer in dialers {
        tasks.push(tokio::spawn(async move {
            let mut conversation = dialer.dial(addr, key(1).public()).await;
            // A busy parent is a clear error, and the caller's to try again.
            let mut again = 0;
            while let Err(error) = &conversation {
                assert!(
                    matches!(error, DialError::Handshake { .. } | DialError::Busy { .. }),
                    "{error:?}"
                );
                again += 1;
                assert!(again < 10, "{error:?}");
                conversation = dialer.dial(addr, key(1).public()).await;
            }
            let (sender, mut receiver) = conversation.unwrap().split();
            sender.send(b"hello".to_vec()).await.unwrap();
            assert_eq!(receiver.next().await, Some(Ok(b"welcome".to_vec())));
            dialer.close().await;
            again
        }));
    }
    for _ in 0..40 {
        let accepted = timeout(Duration::from_secs(60), parent.accept())
            .await
            .unwrap()
            .unwrap();
        tokio::spawn(async move {
            let (sender, mut receiver) = accepted.split();
            assert_eq!(receiver.next().await, Some(Ok(b"hello".to_vec())));
            sender.send(b"welcome".to_vec()).await.unwrap();
            while receiver.next().await.is_some() {}
        });
    }
    let mut again = 0;
    for task in tasks {
        again += timeout(Duration::from_secs(60), task)
            .await
            .unwrap()
            .unwrap();
    }
    println!("dialled again by the caller: {again}");
}

#[tokio::test]
async fn one_dialer_may_hold_many_conversations_on_one_connection() {
    let (parent, addr) = listener(Limits::default()).await;
    let child = Arc::new(dialer(2, Limits::default()).await);
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let child = Arc::clone(&child);
        tasks.push(tokio::spawn(async move {
            child.dial(addr, key(1).public()).await
        }));
    }
    let mut accepted = Vec::new();
    for _ in 0..8 {
        accepted.push(timeout(SOON, parent.accept()).await.unwrap().unwrap());
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let port = accepted[0].remote();
    assert!(
        accepted.iter().all(|one| one.remote() == port),
        "one connection"
    );
}

#[tokio::test]
async fn what_was_sent_before_closing_arrives_and_then_the_end() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (sender, receiver) = ours.split();
    for number in 0..10 {
        sender.send(message(number, 100_000)).await.unwrap();
    }
    // Dropped at once: the messages are still on their way.
    drop((sender, receiver));
    let (sender, mut messages) = theirs.split();
    for number in 0..10 {
        let next = timeout(SOON, messages.next()).await.unwrap();
        assert!(
            next == Some(Ok(message(number, 100_000))),
            "message {number}"
        );
    }
    assert_eq!(timeout(SOON, messages.next()).await.unwrap(), None);
    assert_eq!(sender.send(vec![1]).await, Err(SendError::Closed));
}

#[tokio::test]
async fn closing_the_sender_leaves_the_other_direction_open() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (sender, mut receiver) = ours.split();
    let (their_sender, mut messages) = theirs.split();
    sender.send(b"question".to_vec()).await.unwrap();
    sender.close().await.unwrap();
    assert_eq!(messages.next().await, Some(Ok(b"question".to_vec())));
    assert_eq!(messages.next().await, None);
    drop(messages);
    for number in 0..6 {
        their_sender
            .send(message(number, MESSAGE_MAX))
            .await
            .unwrap();
        assert!(receiver.next().await == Some(Ok(message(number, MESSAGE_MAX))));
    }
    their_sender.close().await.unwrap();
    assert_eq!(receiver.next().await, None);
}

#[tokio::test]
async fn dropping_the_receiver_ends_a_sender_that_waits() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    let (sender, _receiver) = ours.split();
    let waiting = tokio::spawn(async move {
        loop {
            if let Err(error) = sender.send(vec![0; 100_000]).await {
                return error;
            }
        }
    });
    sleep(Duration::from_millis(300)).await;
    let (_their_sender, receiver) = theirs.split();
    drop(receiver);
    assert_eq!(
        timeout(SOON, waiting).await.unwrap().unwrap(),
        SendError::Closed
    );
}

#[tokio::test]
async fn closing_or_dropping_the_endpoint_is_a_farewell_too() {
    for close in [true, false] {
        let (parent, _) = listener(Limits::default()).await;
        let child = dialer(2, Limits::default()).await;
        let (ours, theirs) = talk(&child, &parent).await;
        let (_sender, mut receiver) = ours.split();
        let (their_sender, mut messages) = theirs.split();
        if close {
            timeout(SOON, parent.close()).await.unwrap();
        } else {
            drop(parent);
        }
        assert_eq!(timeout(SOON, receiver.next()).await.unwrap(), None);
        assert_eq!(timeout(SOON, messages.next()).await.unwrap(), None);
        assert_eq!(their_sender.send(vec![1]).await, Err(SendError::Closed));
    }
}

#[tokio::test]
async fn a_disconnected_peer_is_lost() {
    let (parent, _) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    let (ours, theirs) = talk(&child, &parent).await;
    parent.disconnect(key(2).public()).await;
    let (_sender, mut receiver) = ours.split();
    let (_their_sender, mut messages) = theirs.split();
    let told = timeout(SOON, receiver.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
    let told = timeout(SOON, messages.next()).await.unwrap();
    assert_eq!(told, Some(Err(ReceiveError::Lost)));
}

#[tokio::test]
async fn a_listener_restarted_on_its_port_is_dialled_again() {
    let (mut parent, addr) = listener(Limits::default()).await;
    let child = dialer(2, Limits::default()).await;
    for round in 0..3 {
        let (ours, theirs) = talk(&child, &parent).await;
        let (sender, mut receiver) = ours.split();
        let (_their_sender, mut messages) = theirs.split();
        sender.send(vec![round]).await.unwrap();
        assert_eq!(messages.next().await, Some(Ok(vec![round])));
        parent.close().await;
        assert_eq!(timeout(SOON, receiver.next()).await.unwrap(), None);
        parent = Endpoint::start_on(key(1), &[addr], Limits::default())
            .await
            .unwrap();
        assert_eq!(parent.listening(), [addr]);
    }
}

#[tokio::test]
async fn strangers_beyond_the_limit_of_connections_are_refused_clearly() {
    let limits = Limits {
        established_max: 2,
        ..Limits::default()
    };
    let (parent, addr) = listener(limits).await;
    let mut held = Vec::new();
    for number in 2..4 {
        let child = dialer(number, Limits::default()).await;
        held.push((child.dial(addr, key(1).public()).await.unwrap(), child));
    }
    let limits = Limits {
        dial_attempts_max: 2,
        ..Limits::default()
    };
    let late = dialer(9, limits).await;
    let error = timeout(SOON, late.dial(addr, key(1).public()))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error, DialError::Handshake { .. } | DialError::Busy { .. }),
        "{error:?}"
    );
    assert!(parent.turned_away() > 0, "not counted");
}
