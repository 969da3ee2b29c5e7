//! A rotation of the node's own keys, as far as it needs the network: asking the parent.
//!
//! Owns when it is asked. What is asked, and what follows from the answer, is the registry's; a
//! step that was cut off is gone on with at the next round, and after a start.

use std::sync::Arc;
use std::time::Duration;

use registry::Registry;
use registry::config::key_from_hex;
use registry::renewal::Ask;
use sync::session::{Config, Session};

use crate::ways::{Answerer, Ways};
use crate::{peer, serve};

/// How often it looks whether there is something to do.
const EVERY: Duration = Duration::from_millis(250);
/// The longest wait after a refusal: approvals may be on their way.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Goes on with a rotation whenever one is under way, as long as the node runs.
pub async fn renew(registry: Arc<Registry>) {
    let mut wait = EVERY;
    loop {
        tokio::time::sleep(wait).await;
        let stepping = registry.clone();
        let step = tokio::task::spawn_blocking(move || stepping.renewal_step(api::now()));
        let asked = match step.await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(ask))) => ask_parent(&registry, ask).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("a step of the rotation stopped before its end".into()),
        };
        wait = match asked {
            Ok(()) => EVERY,
            Err(reason) => {
                tracing::warn!(
                    reason,
                    "the node's keys are not changed yet; it is tried again"
                );
                registry.renewal_refused(reason);
                WAIT_MAX.min(wait * 2)
            }
        };
    }
}

async fn ask_parent(registry: &Arc<Registry>, ask: Ask) -> Result<(), String> {
    let parent = registry.parent().ok_or("this node has no parent to ask")?;
    let key = key_from_hex(&parent.transport).map_err(|e| e.to_string())?;
    let mut ways = Ways::of(&parent.address).map_err(|fault| fault.message)?;
    // A connection of its own: it proves the transport key that is to be chartered.
    let endpoint = serve::endpoint(&ask.transport, &[])
        .await
        .map_err(|fault| fault.message)?;
    let chain = async {
        let (conversation, key) = ways
            .dial(&endpoint, key, Answerer::OrSuccessor)
            .await
            .map_err(|e| e.to_string())?;
        let config = Config {
            realm: registry.config().realm.clone(),
            chain: Vec::new(),
            peer_key: key,
        };
        let session = Session::renew(config, ask.request);
        peer::ask_charter(session, conversation, registry.as_ref()).await
    };
    let chain = chain.await;
    endpoint.close().await;
    let (chain, registry) = (chain?, registry.clone());
    let taken = tokio::task::spawn_blocking(move || registry.renewed(&chain, api::now()));
    match taken.await {
        Ok(taken) => taken.map_err(|e| e.to_string()),
        Err(_) => Err("taking up the new keys stopped before its end".into()),
    }
}
