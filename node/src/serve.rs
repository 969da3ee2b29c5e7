//! A running node: HTTP, replication with the parent and with those below, and an orderly end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::AppState;
use axum::routing::get;
use p2p::{Endpoint, Limits, PeerKey, TransportKey};
use record::id::UnixMillis;
use registry::Registry;
use registry::backups::{BackupConfig, BackupState};
use registry::config::{Files, key_from_hex};
use registry::node::Concerns;
use sync::session::{Config, Session};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use zeroize::Zeroizing;

use crate::client::RunFile;
use crate::fault::{Fault, Result};
use crate::peer::{self, Ended};
use crate::ways::{self, Answerer, Ways};
use crate::{http, witness};

/// The most replication sessions that others may have open here.
const SESSIONS_MAX: usize = 512;
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Working indexes are sealed to disk this often; losing them costs time only.
const PERSIST_EVERY: Duration = Duration::from_secs(300);
/// How often the node looks whether a backup is due.
const BACKUP_LOOK: Duration = Duration::from_secs(5);

/// The endpoint of a node on the network.
pub async fn endpoint(seed: &[u8; 32], listen: &[p2p::Address]) -> Result<Endpoint> {
    Endpoint::start_on(TransportKey::from_seed(*seed), listen, Limits::default())
        .await
        .map_err(|e| Fault::failed(e.to_string()))
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        Fault::usage(format!(
            "`{text}` 不是 IP:端口 / `{text}` is not IP:port; correct it in `node.json`"
        ))
    })
}

/// What moves when a head does, each for those whom it concerns.
#[derive(Clone)]
pub struct Heads {
    /// For the session with the parent: every head.
    pub any: watch::Receiver<u64>,
    /// For sessions with those below, of which there may be hundreds: what may go down.
    pub downward: watch::Receiver<u64>,
}

/// Follows the heads of a node.
pub fn watch_heads(registry: &Registry) -> Heads {
    let (every, any) = watch::channel(0u64);
    let (down, downward) = watch::channel(0u64);
    registry.on_change(Box::new(move |concerns| {
        every.send_modify(|count| *count += 1);
        if concerns == Concerns::All {
            down.send_modify(|count| *count += 1);
        }
    }));
    Heads { any, downward }
}

/// Runs the node until it is told to stop.
pub async fn run(registry: Arc<Registry>, dir: &Path, while_stdin: bool) -> Result<()> {
    let config = registry.config().clone();
    let heads = watch_heads(&registry);

    let listener = TcpListener::bind(address(&config.http)?)
        .await
        .map_err(|e| Fault::failed(format!("HTTP 地址 `{0}` 不可用 / `{0}` cannot be listened on: {e}; another node may have it", config.http)))?;
    let reached = listener
        .local_addr()
        .map_err(|e| Fault::failed(e.to_string()))?;
    let listen = ways::network(ways::read(&config.listen)?.all());
    let endpoint = endpoint(&registry.transport_seed(), &listen).await?;
    let listened: Vec<String> = endpoint.listening().iter().map(|a| a.to_string()).collect();
    let run = RunFile {
        pid: std::process::id(),
        url: format!("http://{reached}"),
        listen: listened.join(","),
        secret: Zeroizing::new(registry::keys::token()?),
    };
    let run_path = Files::new(dir).run();
    let bytes = serde_json::to_vec_pretty(&run)
        .map(Zeroizing::new)
        .map_err(|e| Fault::failed(e.to_string()))?;

    let networking = tokio::spawn(network(registry.clone(), endpoint, heads));
    let renewing = tokio::spawn(crate::renew::renew(registry.clone()));
    let witnessing = tokio::spawn(witness::ask(registry.clone()));
    let persisting = tokio::spawn(persist(registry.clone()));
    let backing_up = tokio::spawn(back_up(dir.to_owned()));
    let tending = tokio::spawn(crate::tend::tend(registry.clone()));

    let page_registry = registry.clone();
    let state = AppState::new(registry.clone()).known_by(run.secret.clone());
    let router = api::router(state).route(
        "/",
        get(move || {
            let registry = page_registry.clone();
            async move { page(registry).await }
        }),
    );
    // Written last: whoever finds the file finds the node answering.
    store::atomic::replace(&run_path, &bytes).map_err(|e| Fault::failed(e.to_string()))?;
    tracing::info!(division = %config.division, url = %run.url, listen = %run.listen, "node running");
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        stop_signal(while_stdin).await;
        let _ = stop.send(true);
    });
    let refused = || registry.count_refusal("http", 1);
    http::serve(listener, router, http::Limits::default(), stopping, refused).await;

    let _ = std::fs::remove_file(&run_path);
    networking.abort();
    renewing.abort();
    persisting.abort();
    backing_up.abort();
    tending.abort();
    witnessing.abort();
    let kept = tokio::task::spawn_blocking(move || {
        let peers = registry.keep_peers(api::now());
        registry.persist_indexes().and(peers)
    })
    .await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "the working index, or what peers hold, was not kept");
    }
    tracing::info!(division = %config.division, "node stopped");
    Ok(())
}

/// Makes a backup whenever one is due. What was begun when the node stops leaves no set.
async fn back_up(dir: std::path::PathBuf) {
    loop {
        tokio::time::sleep(BACKUP_LOOK).await;
        let dir = dir.clone();
        let done = tokio::task::spawn_blocking(move || {
            let Some(config) = BackupConfig::read(&dir)? else {
                return Ok(None);
            };
            if !config.is_due(&BackupState::read(&dir)?, api::now()) {
                return Ok(None);
            }
            crate::commands::backup::make(&dir).map(Some)
        })
        .await;
        match done {
            Ok(Ok(Some(made))) => {
                tracing::info!(set = made.number, sealed = made.sealed, "backup made")
            }
            Ok(Ok(None)) => {}
            Ok(Err(fault)) => tracing::error!(error = %fault.message, "no backup was made"),
            Err(_) => tracing::error!("making a backup stopped before its end"),
        }
    }
}

async fn page(registry: Arc<Registry>) -> axum::response::Response {
    use axum::response::IntoResponse;
    match tokio::task::spawn_blocking(move || registry.status()).await {
        Ok(Ok(status)) => console::home(&status),
        _ => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn stop_signal(while_stdin: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (closed, closes) = tokio::sync::oneshot::channel::<()>();
    let waiting = while_stdin.then(|| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = closed.send(());
        })
    });
    let stdin_closes = async {
        match waiting {
            Some(_) => drop(closes.await),
            None => std::future::pending().await,
        }
    };
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        () = stdin_closes => {}
    }
}

async fn persist(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(PERSIST_EVERY).await;
        let registry = registry.clone();
        let kept = tokio::task::spawn_blocking(move || {
            registry.note_room(api::now());
            registry.persist_indexes()
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "the working index was not kept");
        }
    }
}

fn config_of(registry: &Registry, peer_key: [u8; 32]) -> Result<Config> {
    Ok(Config {
        realm: registry.config().realm.clone(),
        chain: registry.chain()?,
        peer_key,
    })
}

/// Accepts and dials under the node's transport key, and begins anew when that changed.
async fn network(registry: Arc<Registry>, first: Endpoint, mut heads: Heads) {
    let listened = first.listening().to_vec();
    let mut present = first;
    loop {
        let under = registry.transport_key();
        let endpoint = Arc::new(present);
        // Dropping the set ends both tasks.
        let mut tasks = JoinSet::new();
        let (any, downward) = (heads.any.clone(), heads.downward.clone());
        tasks.spawn(accept(registry.clone(), endpoint.clone(), downward));
        if registry.parent().is_some() {
            tasks.spawn(dial(registry.clone(), endpoint.clone(), any));
        }
        while registry.transport_key() == under {
            if heads.any.changed().await.is_err() {
                return;
            }
        }
        tasks.shutdown().await;
        if let Some(parent) = registry.parent() {
            registry.peer_seen(parent.division.as_str(), false, None, false, api::now());
        }
        // Whoever is in the middle of something has it until its session has ended.
        match Arc::try_unwrap(endpoint) {
            Ok(endpoint) => endpoint.close().await,
            Err(_) => tracing::warn!("the network under the old key is still in use"),
        }
        present = loop {
            match self::endpoint(&registry.transport_seed(), &listened).await {
                Ok(endpoint) => break endpoint,
                Err(fault) => {
                    tracing::error!(error = %fault.message, "the network could not begin anew; it is tried again");
                    tokio::time::sleep(RETRY_MIN).await;
                }
            }
        };
        tracing::info!("the network began anew under the node's new transport key");
    }
}

/// Brings what the transport turned away into the node's metrics.
async fn count_turned_away(registry: Arc<Registry>, endpoint: Weak<Endpoint>) {
    let mut known = 0;
    while let Some(endpoint) = endpoint.upgrade() {
        let count = endpoint.turned_away();
        drop(endpoint);
        if count > known {
            let more = count - known;
            tracing::warn!(
                code = "limit",
                more,
                "connections over a limit were turned away"
            );
            registry.count_refusal("limit", more);
            known = count;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A session that a peer opened here. Dropping `stop` ends it.
struct Live {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn accept(registry: Arc<Registry>, endpoint: Arc<Endpoint>, heads: watch::Receiver<u64>) {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut live: HashMap<PeerKey, Live> = HashMap::new();
    tokio::spawn(count_turned_away(
        registry.clone(),
        Arc::downgrade(&endpoint),
    ));
    while let Some(conversation) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(remote = %conversation.remote(), "too many sessions; one was turned away");
            registry.count_refusal("limit", 1);
            continue;
        };
        live.retain(|_, session| !session.task.is_finished());
        let (registry, heads) = (registry.clone(), heads.clone());
        let endpoint = Arc::downgrade(&endpoint);
        let key = conversation.peer();
        // A node keeps one session. When it comes again, the line of the one before is dead, even
        // if nobody here has noticed: that one ends first, so that neither a late message of it
        // looks like an older history, nor its late end like that of the new one.
        let before = live.remove(&key);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                drop(before.stop);
                let _ = before.task.await;
            }
            match config_of(&registry, key) {
                Ok(config) => {
                    let ended = peer::drive(
                        registry.clone(),
                        Session::listen(config).knowing(registry.successions()),
                        conversation,
                        heads,
                        stopped,
                    )
                    .await;
                    seen(&registry, &key, &ended);
                    if let Some(endpoint) = endpoint.upgrade().filter(|_| ended.cut) {
                        endpoint.disconnect(key).await;
                    }
                }
                Err(fault) => tracing::error!(error = %fault.message, "a session could not begin"),
            }
            drop(place);
        });
        live.insert(key, Live { stop, task });
    }
}

/// Keeps a session with the parent, as long as the node runs.
pub async fn dial(registry: Arc<Registry>, endpoint: Arc<Endpoint>, heads: watch::Receiver<u64>) {
    let mut wait = RETRY_MIN;
    let mut known: Option<Ways> = None;
    while let Some(parent) = registry.parent() {
        let fresh = match known.take() {
            Some(ways) if ways.are(&parent.address) => Ok(ways),
            _ => Ways::of(&parent.address),
        };
        let (Ok(fresh), Ok(key)) = (fresh, key_from_hex(&parent.transport)) else {
            tracing::error!(
                "the parent's address in `node.json` cannot be read; nothing will be replicated"
            );
            return;
        };
        let ways = known.insert(fresh);
        // Nothing takes the place of the session with the parent.
        let (_kept, stop) = oneshot::channel();
        let dialled = ways.dial(&endpoint, key, Answerer::OrSuccessor).await;
        registry.peer_fell_back(parent.division.as_str(), ways.fell_back());
        match dialled {
            Ok((conversation, key)) => match config_of(&registry, key) {
                Ok(config) => {
                    let over = ways::transport(&conversation);
                    let ended = peer::drive(
                        registry.clone(),
                        Session::dial(config).knowing(registry.successions()),
                        conversation,
                        heads.clone(),
                        stop,
                    )
                    .await;
                    if !ended.refused && ended.peer.is_none() {
                        ways.led_nowhere(over, &ended.reason);
                    }
                    wait = match (ended.refused, &ended.peer) {
                        (true, _) => RETRY_MAX.min(wait * 2),
                        (false, Some(_)) => RETRY_MIN,
                        (false, None) => RETRY_MAX.min(wait * 2),
                    };
                    registry.peer_seen(
                        parent.division.as_str(),
                        false,
                        Some(ended.reason),
                        ended.refused,
                        api::now(),
                    );
                }
                Err(fault) => tracing::error!(error = %fault.message, "a session could not begin"),
            },
            Err(error) => {
                tracing::debug!(%error, "the parent cannot be reached");
                registry.peer_seen(
                    parent.division.as_str(),
                    false,
                    Some(error.to_string()),
                    false,
                    api::now(),
                );
                wait = RETRY_MAX.min(wait * 2);
            }
        }
        let wait_millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let next = UnixMillis(api::now().0.saturating_add(wait_millis));
        registry.peer_tried(parent.division.as_str(), next);
        tokio::time::sleep(wait).await;
    }
}

fn seen(registry: &Registry, key: &[u8; 32], ended: &Ended) {
    let name = ended.peer.as_ref().map_or_else(
        || format!("key-{}", data_encoding::HEXLOWER.encode(&key[..6])),
        |peer| peer.division.to_string(),
    );
    if ended.peer.is_some() || ended.refused {
        registry.peer_seen(
            &name,
            false,
            Some(ended.reason.clone()),
            ended.refused,
            api::now(),
        );
    }
}
