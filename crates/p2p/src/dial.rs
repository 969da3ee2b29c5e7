//! Dialing: from an address and an expected key to a conversation.
//!
//! It owns the bounded attempts against a peer that is busy. It refuses a peer that proves another
//! key, at once and without a word to it. When to dial again after an error is the caller's choice.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::Duration;

use futures::AsyncReadExt;
use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::READY;
use crate::address::Address;
use crate::conversation::{self, Conversation};
use crate::error::DialError;
use crate::failure::OpenError;
use crate::key::{PeerKey, peer_id};
use crate::limits::Limits;
use crate::streams::{Line, Reply};
use crate::swarm::Command;

/// The longest pause before the second attempt; it doubles up to `PAUSE_MAX`.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

enum Failed {
    /// Trying again cannot help.
    Final(DialError),
    /// The peer may have room in a moment.
    Busy(DialError),
    /// An open connection may be dead; one of its own may do.
    Silent(DialError),
}

/// What dialing needs of the endpoint.
pub(crate) struct Dialer {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) live: mpsc::Sender<Infallible>,
    pub(crate) limits: Limits,
    pub(crate) own: PeerKey,
}

impl Dialer {
    pub(crate) async fn dial(
        &self,
        addr: Address,
        expect: PeerKey,
    ) -> Result<Conversation, DialError> {
        if expect == self.own {
            return Err(DialError::ThisNode { addr });
        }
        let peer = peer_id(&expect).ok_or(DialError::BadKey { addr })?;
        let line = self.ready_line(addr, peer).await?;
        Ok(conversation::start(
            line.stream,
            line.gone,
            expect,
            addr,
            self.limits.stall_timeout,
            self.closing.clone(),
            self.live.clone(),
        ))
    }

    /// A stream past its READY.
    pub(crate) async fn ready_line(&self, addr: Address, peer: PeerId) -> Result<Line, DialError> {
        let mut fresh = false;
        let mut pause = PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.attempt(addr, peer, fresh, attempts).await {
                Ok(line) => return Ok(line),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Silent(error)) if fresh => return Err(error),
                Err(Failed::Silent(error)) => {
                    fresh = true;
                    error
                }
                Err(Failed::Busy(error)) => error,
            };
            if attempts >= self.limits.dial_attempts_max {
                return Err(error);
            }
            sleep(jitter(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        addr: Address,
        peer: PeerId,
        fresh: bool,
        attempts: u32,
    ) -> Result<Line, Failed> {
        let (reply, answer) = oneshot::channel();
        let began = Instant::now();
        let command = Command::Open {
            addr,
            peer,
            fresh,
            reply: Reply(reply),
        };
        if self.commands.send(command).await.is_err() {
            return Err(Failed::Final(DialError::Stopped { addr }));
        }
        let wait = self.limits.connect_timeout + self.limits.ready_timeout;
        let answer = match timeout(wait, answer).await {
            Ok(answer) => answer.unwrap_or(Err(OpenError::Lost)),
            Err(_) => Err(OpenError::NoReply),
        };
        let timed_out = began.elapsed() >= self.limits.connect_timeout;
        let mut line = answer.map_err(|error| self.explain(error, addr, attempts, timed_out))?;

        let mut byte = [0];
        match timeout(self.limits.ready_timeout, line.stream.read_exact(&mut byte)).await {
            Ok(Ok(())) if byte[0] == READY => Ok(line),
            Ok(Ok(())) => Err(Failed::Final(DialError::OtherProtocol { addr })),
            Ok(Err(_)) => Err(Failed::Busy(DialError::Busy { addr, attempts })),
            Err(_) => Err(Failed::Silent(self.no_reply(addr))),
        }
    }

    fn explain(&self, error: OpenError, addr: Address, attempts: u32, timed_out: bool) -> Failed {
        use io::ErrorKind as Kind;
        let unreachable = |kind| Failed::Final(DialError::Unreachable { addr, kind });
        match error {
            OpenError::WrongKey(found) => Failed::Final(DialError::WrongKey { addr, found }),
            OpenError::ThisNode => Failed::Final(DialError::ThisNode { addr }),
            OpenError::Full => Failed::Final(DialError::Limit { addr }),
            OpenError::OtherProtocol => Failed::Final(DialError::OtherProtocol { addr }),
            OpenError::NoReply => Failed::Silent(self.no_reply(addr)),
            OpenError::Transport(Some(
                kind @ (Kind::ConnectionRefused
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::NetworkDown
                | Kind::AddrNotAvailable
                | Kind::PermissionDenied
                | Kind::TimedOut),
            )) => unreachable(kind),
            OpenError::Transport(_) if timed_out => unreachable(Kind::TimedOut),
            // Cut in the handshake, or just after it: how a peer at its limits looks from here.
            OpenError::Transport(_) | OpenError::Lost => {
                Failed::Busy(DialError::Handshake { addr, attempts })
            }
        }
    }

    fn no_reply(&self, addr: Address) -> DialError {
        DialError::NoReply {
            addr,
            timeout: self.limits.ready_timeout,
        }
    }
}

/// Between half of `pause` and all of it, so that many dialers refused at once do not return at
/// once. Nothing secret hangs on it.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    pause / 2 + pause * u32::try_from(random).unwrap_or(0) / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_between_half_and_whole() {
        for _ in 0..1000 {
            let pause = jitter(PAUSE_MAX);
            assert!(pause >= PAUSE_MAX / 2 && pause <= PAUSE_MAX);
        }
    }
}
