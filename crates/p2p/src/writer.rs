//! The task that writes a conversation's frames.
//!
//! It owns the stream's sending side. Credit goes out before messages and between their parts, so
//! that a long message never holds up the peer's. It refuses a peer that makes no room for a frame
//! within the stall timeout, and it says farewell whenever the stream still carries it.

use std::time::Duration;

use futures::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::frame::{End, FRAME_MAX, Frame, parts};
use crate::link::{Ended, Link, State};

/// For the farewell and the frame before it, when the conversation is over already.
const FAREWELL: Duration = Duration::from_secs(2);

/// The frame did not go out whole, so nothing may follow it.
struct Cut;

struct Writer<'a, W> {
    link: &'a Link,
    output: W,
    buffer: Vec<u8>,
    state: watch::Receiver<State>,
}

enum Step {
    Over,
    Leave,
    Credit,
    Message(Option<Vec<u8>>),
}

/// Writes until the conversation ends, says farewell, and closes the sending side.
pub(crate) async fn run<W: AsyncWrite + Unpin>(
    link: &Link,
    output: W,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    closing: watch::Receiver<bool>,
) {
    let mut writer = Writer {
        link,
        output,
        buffer: Vec::with_capacity(FRAME_MAX),
        state: link.state.subscribe(),
    };
    if writer.carry(&mut queue, closing).await.is_err() {
        // The reader of a broken stream finds out why: a farewell read, or none.
        let told = writer.state.wait_for(|state| state.ended.is_some());
        if timeout(FAREWELL, told).await.is_err() {
            link.end(Ended::Lost);
        }
    }
    let _ = timeout(FAREWELL, writer.output.close()).await;
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn carry(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Vec<u8>>,
        mut closing: watch::Receiver<bool>,
    ) -> Result<(), Cut> {
        let mut finished = false;
        loop {
            let step = tokio::select! {
                biased;
                _ = self.state.wait_for(|state| is_over(state, finished)) => Step::Over,
                // An endpoint that was dropped closes, too.
                _ = closing.wait_for(|closing| *closing) => Step::Leave,
                () = self.link.credit_due.notified() => Step::Credit,
                message = queue.recv(), if !finished => Step::Message(message),
            };
            match step {
                Step::Credit => self.put_credit().await?,
                Step::Message(Some(message)) => self.put_message(&message).await?,
                Step::Message(None) => {
                    self.put(Frame::End(End::Finished)).await?;
                    finished = true;
                    self.link.state.send_modify(|state| state.sent_all = true);
                }
                Step::Leave => return self.leave(queue).await,
                Step::Over => {
                    let state = *self.state.borrow();
                    return match state.ended {
                        Some(why) => self.farewell(why).await,
                        None if leaves(&state) => self.leave(queue).await,
                        None => {
                            self.link.end(Ended::Closed);
                            Ok(())
                        }
                    };
                }
            }
        }
    }

    /// This side goes: what was sent before goes first.
    async fn leave(&mut self, queue: &mut mpsc::UnboundedReceiver<Vec<u8>>) -> Result<(), Cut> {
        self.link.end(Ended::Local);
        queue.close();
        while let Some(message) = queue.recv().await {
            self.put_message(&message).await?;
        }
        self.put(Frame::End(End::Gone)).await?;
        self.link.state.send_modify(|state| state.sent_all = true);
        Ok(())
    }

    async fn farewell(&mut self, why: Ended) -> Result<(), Cut> {
        let end = match why {
            Ended::Lost => return Ok(()),
            Ended::Local | Ended::Closed | Ended::Refused(_) => End::Gone,
            Ended::Stalled => End::Stalled,
            Ended::Broken(_) => End::Fault,
        };
        self.put(Frame::End(end)).await
    }

    async fn put_message(&mut self, message: &[u8]) -> Result<(), Cut> {
        for part in parts(message) {
            self.put_credit().await?;
            self.put(part).await?;
        }
        Ok(())
    }

    async fn put_credit(&mut self) -> Result<(), Cut> {
        match self.link.give_back() {
            Some(bytes) => self.put(Frame::Credit(bytes)).await,
            None => Ok(()),
        }
    }

    async fn put(&mut self, frame: Frame<'_>) -> Result<(), Cut> {
        self.buffer.clear();
        frame.encode(&mut self.buffer);
        let write = async {
            self.output.write_all(&self.buffer).await?;
            self.output.flush().await
        };
        tokio::pin!(write);
        let cut_short = async {
            let _ = self.state.wait_for(is_cut_short).await;
        };
        let written = tokio::select! {
            biased;
            written = timeout(self.link.stall_timeout, &mut write) => written,
            // A frame begun is finished if it can be, or the farewell behind it would be unreadable.
            () = cut_short => timeout(FAREWELL, &mut write).await,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Cut),
            Err(_) => {
                self.link.end(Ended::Stalled);
                Err(Cut)
            }
        }
    }
}

fn leaves(state: &State) -> bool {
    state.deaf && !state.peer_finished
}

fn is_over(state: &State, finished: bool) -> bool {
    state.ended.is_some() || leaves(state) || (finished && state.peer_finished)
}

fn is_cut_short(state: &State) -> bool {
    !matches!(state.ended, None | Some(Ended::Local))
}
