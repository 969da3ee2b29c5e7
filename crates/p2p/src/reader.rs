//! The task that reads a conversation's frames.
//!
//! It owns the stream's receiving side and one buffer of a frame's size. It never waits for the
//! application or the writer, so that two sides that both send cannot block each other. It refuses
//! a peer that leaves a frame or a message half-sent for longer than the stall timeout.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::ReceiveError;
use crate::frame::{End, FRAME_MAX, Frame};
use crate::inbox::{Inbox, Taken};
use crate::link::{Ended, Link};
use crate::streams::Gone;

type Messages = mpsc::UnboundedSender<Result<Vec<u8>, ReceiveError>>;

/// Reads until the conversation ends, and tells the application why.
pub(crate) async fn run<R: AsyncRead + Unpin>(
    link: Arc<Link>,
    mut input: R,
    mut gone: Gone,
    messages: Messages,
) {
    let mut messages = Some(messages);
    let found = carry(&link, &mut input, &mut gone, &mut messages).await;
    link.end(found);
    let error = match link.ended().unwrap_or(found) {
        Ended::Closed => None,
        Ended::Local => {
            // The peer may be writing still. Reading on until it has heard the farewell keeps the
            // farewell from being overtaken by a reset of the stream.
            drop(messages.take());
            let mut rest = [0; 4096];
            while matches!(input.read(&mut rest).await, Ok(1..)) {}
            None
        }
        Ended::Lost => Some(ReceiveError::Lost),
        Ended::Stalled => Some(ReceiveError::Stalled {
            timeout: link.stall_timeout,
        }),
        Ended::Broken(violation) => Some(ReceiveError::Broken(violation)),
        Ended::Refused(End::Stalled) => Some(ReceiveError::TooSlow),
        Ended::Refused(_) => Some(ReceiveError::Refused),
    };
    if let (Some(error), Some(messages)) = (error, messages) {
        // An application that has dropped its receiver does not ask why.
        let _ = messages.send(Err(error));
    }
}

async fn carry<R: AsyncRead + Unpin>(
    link: &Link,
    input: &mut R,
    gone: &mut Gone,
    messages: &mut Option<Messages>,
) -> Ended {
    let mut state = link.state.subscribe();
    let mut inbox = Inbox::default();
    let mut buffer = vec![0; FRAME_MAX];
    let mut filled = 0;
    loop {
        let mut used = 0;
        loop {
            match Frame::decode(&buffer[used..filled]) {
                Ok(Some((frame, len))) => {
                    used += len;
                    if let Some(ended) = take(link, &mut inbox, frame, messages) {
                        return ended;
                    }
                }
                Ok(None) => break,
                Err(violation) => return Ended::Broken(violation),
            }
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;

        let owes = filled > 0 || inbox.in_message();
        let read = async {
            let read = input.read(&mut buffer[filled..]);
            if owes {
                timeout(link.stall_timeout, read)
                    .await
                    .map_err(|_| Ended::Stalled)
            } else {
                Ok(read.await)
            }
        };
        let read = tokio::select! {
            biased;
            ended = state.wait_for(|state| state.ended.is_some()) => {
                return ended.ok().and_then(|state| state.ended).unwrap_or(Ended::Lost);
            }
            read = read => read,
            // Behind the read, so that what had arrived before is still read.
            _ = gone.changed() => Ok(Ok(0)),
        };
        match read {
            Ok(Ok(len @ 1..)) => filled += len,
            Ok(Ok(0) | Err(_)) if messages.is_none() && !owes => return Ended::Closed,
            Ok(Ok(0) | Err(_)) => return Ended::Lost,
            Err(stalled) => return stalled,
        }
    }
}

/// Acts on one frame; `Some` when the conversation is over with it.
fn take(
    link: &Link,
    inbox: &mut Inbox,
    frame: Frame<'_>,
    messages: &mut Option<Messages>,
) -> Option<Ended> {
    let taken = match inbox.take(frame, link.granted()) {
        Ok(taken) => taken,
        Err(violation) => return Some(Ended::Broken(violation)),
    };
    match taken {
        Taken::Part => None,
        Taken::Message(message) => {
            if let Some(messages) = messages {
                // A dropped receiver ends the conversation by itself; until then, bytes are spent.
                let _ = messages.send(Ok(message));
            }
            None
        }
        Taken::Credit(bytes) => link.credited(bytes).err().map(Ended::Broken),
        Taken::End(End::Finished) => {
            drop(messages.take());
            link.state.send_modify(|state| state.peer_finished = true);
            None
        }
        Taken::End(End::Gone) => Some(Ended::Closed),
        Taken::End(blame) => Some(Ended::Refused(blame)),
    }
}
