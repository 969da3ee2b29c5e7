//! The task that welcomes incoming conversations.
//!
//! It owns the seats: how many conversations there may be, in all and per peer, and the bounded
//! queue for the application. A stream gets READY only when it has a seat and a place in the queue;
//! any other is dropped, and its dialer tries again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::READY;
use crate::conversation::{self, Conversation};
use crate::key::{PeerKey, peer_key};
use crate::limits::Limits;
use crate::streams::Inbound;

/// The conversations that peers began, by peer. No entry is ever zero.
#[derive(Debug, Default)]
struct Seats(Mutex<HashMap<PeerKey, usize>>);

/// A place among the conversations, free again when dropped.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    peer: PeerKey,
}

impl Seats {
    fn take(self: &Arc<Self>, peer: PeerKey, limits: &Limits) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= limits.conversations_max
            || taken.get(&peer).copied().unwrap_or(0) >= limits.conversations_per_peer_max
        {
            return None;
        }
        *taken.entry(peer).or_default() += 1;
        Some(Seat {
            seats: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Welcomes streams until the endpoint closes.
pub(crate) async fn run(
    mut inbound: mpsc::Receiver<Inbound>,
    accepted: mpsc::Sender<Conversation>,
    limits: Limits,
    mut closing: watch::Receiver<bool>,
    live: mpsc::Sender<Infallible>,
    turned_away: Arc<AtomicU64>,
) {
    let seats = Arc::new(Seats::default());
    loop {
        let next = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            next = inbound.recv() => next,
        };
        let Some(inbound) = next else { return };
        let remote = inbound.remote;
        let welcomed = peer_key(&inbound.peer)
            .and_then(|peer| seats.take(peer, &limits))
            .and_then(|seat| Some((seat, accepted.clone().try_reserve_owned().ok()?)));
        let Some((seat, place)) = welcomed else {
            turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%remote, "no room for a conversation; the peer will try again");
            continue;
        };
        let (limits, closing, live) = (limits.clone(), closing.clone(), live.clone());
        tokio::spawn(async move {
            let mut line = inbound.line;
            let ready = async {
                line.stream.write_all(&[READY]).await?;
                line.stream.flush().await
            };
            if !matches!(timeout(limits.ready_timeout, ready).await, Ok(Ok(()))) {
                return;
            }
            let peer = seat.peer;
            let seat = (seat, live);
            place.send(conversation::start(
                line.stream,
                line.gone,
                peer,
                remote,
                limits.stall_timeout,
                closing,
                seat,
            ));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_all_and_per_peer_and_come_free() {
        let limits = Limits {
            conversations_max: 3,
            conversations_per_peer_max: 2,
            ..Limits::default()
        };
        let seats = Arc::new(Seats::default());
        let first = seats.take([1; 32], &limits);
        let second = seats.take([1; 32], &limits);
        assert!(first.is_some() && second.is_some());
        assert!(seats.take([1; 32], &limits).is_none(), "two per peer");
        let third = seats.take([2; 32], &limits);
        assert!(third.is_some());
        assert!(seats.take([3; 32], &limits).is_none(), "three in all");
        drop((first, second));
        assert!(seats.take([3; 32], &limits).is_some());
        drop(third);
        assert!(seats.0.lock().unwrap().is_empty(), "nobody is remembered");
    }
}
