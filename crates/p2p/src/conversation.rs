//! A conversation: messages both ways with one peer, over one stream.
//!
//! It owns the application's two halves. It refuses a message over the limit, and to queue more
//! than the peer has granted: `send` waits instead.
//!
//! Dropping or closing the [`Sender`] says "no more from me"; the peer's receiver then ends with
//! `None`, and its messages still arrive here. Dropping the [`Receiver`] while the peer may still
//! send ends the conversation for both, after what was sent before.

use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::address::Address;
use crate::error::{ReceiveError, SendError};
use crate::frame::End;
use crate::inbox::cost;
use crate::key::PeerKey;
use crate::link::{Ended, Link};
use crate::streams::Gone;
use crate::{MESSAGE_MAX, reader, writer};

/// How long a side that left waits for the other side to have heard it.
const LINGER: Duration = Duration::from_secs(5);

/// A conversation that both sides agreed to.
#[derive(Debug)]
pub struct Conversation {
    peer: PeerKey,
    remote: Address,
    sender: Sender,
    receiver: Receiver,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    link: Arc<Link>,
    /// Unbounded in form; the credit that each message needs first bounds it to one window.
    queue: mpsc::UnboundedSender<Vec<u8>>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    link: Arc<Link>,
    /// Unbounded in form; the reader ends the conversation when a peer exceeds its window.
    messages: mpsc::UnboundedReceiver<Result<Vec<u8>, ReceiveError>>,
}

/// Starts reader and writer on a stream that is past its READY. `seat` is held until both are done.
pub(crate) fn start<S, G>(
    stream: S,
    gone: Gone,
    peer: PeerKey,
    remote: Address,
    stall_timeout: Duration,
    closing: watch::Receiver<bool>,
    seat: G,
) -> Conversation
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    G: Send + 'static,
{
    let link = Arc::new(Link::new(stall_timeout));
    let (queue, queued) = mpsc::unbounded_channel();
    let (arrived, messages) = mpsc::unbounded_channel();
    let (input, output) = stream.split();
    let mut reader = tokio::spawn(reader::run(Arc::clone(&link), input, gone, arrived));
    let shared = Arc::clone(&link);
    tokio::spawn(async move {
        writer::run(&shared, output, queued, closing).await;
        if timeout(LINGER, &mut reader).await.is_err() {
            reader.abort();
        }
        shared.state.send_modify(|state| state.done = true);
        drop(seat);
    });
    Conversation {
        peer,
        remote,
        sender: Sender {
            link: Arc::clone(&link),
            queue,
        },
        receiver: Receiver { link, messages },
    }
}

impl Conversation {
    /// The key that the peer proved.
    #[must_use]
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// The address dialled, or the one that the dialer came from.
    #[must_use]
    pub fn remote(&self) -> Address {
        self.remote
    }

    /// The two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Ends the conversation for both sides, after what was sent before, and waits until the peer
    /// has heard it, for five seconds at most.
    pub async fn close(self) {
        let mut state = self.sender.link.state.subscribe();
        drop(self.sender);
        drop(self.receiver);
        // The channel closes only with the tasks, which also means done.
        let _ = state.wait_for(|state| state.done).await;
    }
}

impl Sender {
    /// Hands a message over for writing, once the peer has granted room for it.
    ///
    /// Dropping the future before it is ready sends nothing. Ready does not mean that the peer has
    /// the message: only an answer of its own says so.
    ///
    /// # Errors
    /// [`SendError::TooLong`] leaves the conversation as it is; every other error is final.
    pub async fn send(&self, message: Vec<u8>) -> Result<(), SendError> {
        if message.len() > MESSAGE_MAX {
            return Err(SendError::TooLong { len: message.len() });
        }
        let cost = cost(message.len());
        let mut state = self.link.state.subscribe();
        let room = tokio::select! {
            biased;
            _ = state.wait_for(|state| state.ended.is_some()) => return Err(self.error()),
            room = self.room_for(cost) => room,
        };
        if !room {
            self.link.end(Ended::Stalled);
            return Err(self.error());
        }
        self.link.spend(cost);
        self.queue.send(message).map_err(|_| self.error())
    }

    /// Says that no more messages come, and waits until all of them are with the transport. The
    /// peer's messages still arrive.
    ///
    /// # Errors
    /// If the conversation ended before.
    pub async fn close(self) -> Result<(), SendError> {
        let Self { link, queue } = self;
        drop(queue);
        let mut state = link.state.subscribe();
        let reached = state
            .wait_for(|state| state.sent_all || state.ended.is_some())
            .await
            .is_ok_and(|state| state.sent_all);
        if reached {
            Ok(())
        } else {
            Err(send_error(&link))
        }
    }

    /// False if the peer gave nothing back for the whole stall timeout.
    async fn room_for(&self, cost: usize) -> bool {
        let cost = u32::try_from(cost).expect("a message costs less than the window");
        let acquired = self.link.credit.acquire_many(cost);
        tokio::pin!(acquired);
        loop {
            let before = self.link.progress();
            match timeout(self.link.stall_timeout, &mut acquired).await {
                Ok(Ok(permit)) => {
                    permit.forget();
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) if self.link.progress() == before => return false,
                Err(_) => {}
            }
        }
    }

    fn error(&self) -> SendError {
        send_error(&self.link)
    }
}

fn send_error(link: &Link) -> SendError {
    match link.ended() {
        Some(Ended::Lost) => SendError::Lost,
        Some(Ended::Stalled) => SendError::Stalled {
            timeout: link.stall_timeout,
        },
        Some(Ended::Broken(_) | Ended::Refused(End::Fault)) => SendError::Broken,
        Some(Ended::Local | Ended::Closed | Ended::Refused(_)) | None => SendError::Closed,
    }
}

impl Receiver {
    /// The next message, in the order of sending. `None` when the peer said that it sends no more,
    /// and after an error. Dropping the future loses nothing.
    ///
    /// Taking a message gives its room back to the peer.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, ReceiveError>> {
        let next = self.messages.recv().await;
        if let Some(Ok(message)) = &next {
            self.link.take(cost(message.len()));
        }
        next
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.link.state.send_modify(|state| state.deaf = true);
    }
}
