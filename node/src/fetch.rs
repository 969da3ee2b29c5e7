//! Fetching a lost node's recovery from its parent, over the network, before there is a node here.
//!
//! Owns the attempts: a line that breaks is dialed again and the fetch goes on where it was. What is
//! asked and kept is `registry::recovery::taking`'s. Refuses a parent that proves another key than
//! the leave names: whoever answers in its place gets the secret of nobody.

use std::time::Duration;

use p2p::Conversation;
use registry::config::key_from_hex;
use registry::recovery::taking::Taking;
use sync::output::Output;
use sync::session::{Config, Session};
use tokio::time::timeout;

use crate::fault::{Fault, Result, exit};
use crate::peer::NoStore;
use crate::serve;
use crate::ways::{Answerer, Ways};

/// How often a broken line is dialed again.
const ATTEMPTS: u32 = 5;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest wait for one piece.
const PIECE: Duration = Duration::from_secs(60);

/// Why one attempt ended.
enum Cut {
    /// The parent said no.
    Refused(String),
    /// The line broke, or nobody answered.
    Broken(String),
}

/// Fetches until the file is whole.
pub async fn fetch(taking: &mut Taking, mut ways: Ways) -> Result<()> {
    let endpoint = serve::endpoint(&taking.transport_seed(), &[]).await?;
    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match once(taking, &endpoint, &mut ways).await {
            Ok(()) => {
                endpoint.close().await;
                return Ok(());
            }
            Err(Cut::Refused(words)) => {
                endpoint.close().await;
                return Err(Fault::failed(words));
            }
            Err(Cut::Broken(words)) => {
                let (have, _) = taking.progress();
                tracing::warn!(have, reason = %words, "the fetch was cut off and goes on");
                reason = words;
            }
        }
    }
    endpoint.close().await;
    Err(Fault::new(
        exit::NOT_REACHABLE,
        "unreachable",
        format!(
            "未能从上级取全，稍后重新执行即续传 / the parent could not be fetched from; run this again, and it goes on where it was: {reason}"
        ),
    ))
}

async fn once(
    taking: &mut Taking,
    endpoint: &p2p::Endpoint,
    ways: &mut Ways,
) -> std::result::Result<(), Cut> {
    let leave = taking.leave();
    let parent = key_from_hex(&leave.parent.transport).map_err(|e| Cut::Refused(e.to_string()))?;
    let dialled = ways.dial(endpoint, parent, Answerer::Exactly).await;
    let conversation = match dialled {
        Ok((conversation, _)) => conversation,
        Err(error @ p2p::DialError::WrongKey { .. }) => {
            return Err(Cut::Refused(format!(
                "应答的不是凭据所列的上级 / whoever answers is not the parent that the leave names, or the parent has other keys since; let it make another leave: {error}"
            )));
        }
        Err(error) => return Err(Cut::Broken(error.to_string())),
    };
    let config = Config {
        realm: leave.realm.clone(),
        chain: Vec::new(),
        peer_key: parent,
    };
    let session = Session::recover(config, taking.ask());
    let ended = ask(taking, session, conversation).await;
    match (taking.is_whole(), ended) {
        (true, _) => Ok(()),
        (false, Err(cut)) => Err(cut),
        (false, Ok(())) => Err(Cut::Broken("the parent closed the connection".into())),
    }
}

async fn ask(
    taking: &mut Taking,
    mut session: Session,
    conversation: Conversation,
) -> std::result::Result<(), Cut> {
    let broken = |error: &dyn std::fmt::Display| Cut::Broken(error.to_string());
    let trust = NoStore { root: [0; 32] };
    let (sender, mut receiver) = conversation.split();
    let mut outputs = session.start(api::now());
    loop {
        let mut next = Vec::new();
        for output in outputs {
            match output {
                Output::Send(bytes) => {
                    sender.send(bytes.0).await.map_err(|e| broken(&e))?;
                }
                Output::RecoveryPiece(piece) => {
                    if taking.is_whole() {
                        // The parent heard that it is whole.
                        let _ = sender.close().await;
                        return Ok(());
                    }
                    taking
                        .take(&piece)
                        .map_err(|e| Cut::Refused(e.to_string()))?;
                    next.extend(session.ask_recovery(taking.ask()));
                }
                Output::Refused { reason, .. } => return Err(Cut::Refused(reason)),
                Output::Close { reason } => return Err(Cut::Broken(reason)),
                _ => {}
            }
        }
        outputs = next;
        if !outputs.is_empty() {
            continue;
        }
        outputs = match timeout(PIECE, receiver.next()).await {
            Ok(Some(Ok(message))) => session.receive(&message, api::now(), &trust),
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(None) => return Ok(()),
            Err(_) => return Err(Cut::Broken("the parent gave nothing for a minute".into())),
        };
    }
}
