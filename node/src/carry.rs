//! What a session has under way with the store (收取): chunks being committed, and the chunk that
//! the peer is likely to ask for next, read ahead of its question.
//!
//! Owns the order in which chunks are committed, which is that in which they came; while one commit
//! runs, what comes for the same ledger gathers and goes into the next one. Refuses to hold more
//! than `sync` lets be outstanding, and to keep what was read ahead for another question.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use record::id::Origin;
use registry::Registry;
use registry::error::RegistryError;
use sync::Delivery;
use sync::output::{Load, Loaded};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The outcome of one commit.
pub struct Kept {
    pub origin: Origin,
    /// How many entries are durable with each of the chunks, in their order.
    pub sizes: Vec<u64>,
    pub done: Result<(), RegistryError>,
}

/// Chunks on their way to the disk.
#[derive(Default)]
pub struct Keeping {
    waiting: VecDeque<Delivery>,
    running: Option<JoinHandle<Kept>>,
}

impl Keeping {
    pub fn push(&mut self, registry: &Arc<Registry>, delivery: Delivery) {
        self.waiting.push_back(delivery);
        self.begin(registry);
    }

    /// Begins the next commit, unless one runs: with all that waits of the first one's ledger.
    pub fn begin(&mut self, registry: &Arc<Registry>) {
        if self.running.is_some() {
            return;
        }
        let Some(first) = self.waiting.pop_front() else {
            return;
        };
        let origin = first.origin().clone();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (with, rest): (Vec<_>, Vec<_>) = waiting.partition(|d| *d.origin() == origin);
        self.waiting = rest.into();
        let mut deliveries = vec![first];
        deliveries.extend(with);
        let registry = registry.clone();
        self.running = Some(tokio::task::spawn_blocking(move || {
            let sizes = deliveries.iter().map(|d| d.held().frontier.size());
            let sizes = sizes.collect();
            let done = registry.keep_all(deliveries, api::now()).map(|_| ());
            Kept {
                origin,
                sizes,
                done,
            }
        }));
    }

    /// Waits for the commit that runs and lets go of what waits behind it.
    pub async fn finish(mut self) {
        self.waiting.clear();
        if let Some(running) = self.running.take() {
            // Whatever became of it, it is over.
            let _ = running.await;
        }
    }

    /// Waits for the commit that runs; for ever, when none does.
    pub async fn next(&mut self) -> Option<Kept> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let kept = running.await;
        self.running = None;
        // A panic in it poisons nothing: the session ends, and what is durable is read again.
        kept.ok()
    }
}

/// Chunks read before they were asked for, one a ledger.
#[derive(Default)]
pub struct Ahead(BTreeMap<Origin, (Load, Reading)>);

type Reading = JoinHandle<Result<Loaded, RegistryError>>;

impl Ahead {
    /// Reads what was asked for, or takes it from what was read ahead, and reads ahead of the
    /// question that likely comes next.
    pub fn load(&mut self, registry: &Arc<Registry>, load: &Load) -> Result<Loaded, RegistryError> {
        let ready = self.0.remove(&load.origin).filter(|(of, _)| of == load);
        let read = ready.and_then(|(_, reading)| Handle::current().block_on(reading).ok());
        let loaded = match read {
            Some(Ok(loaded)) => loaded,
            _ => registry.load(load)?,
        };
        let from = loaded.from + loaded.items.len() as u64;
        // Where the head is reached, another chunk is likely far away.
        if from < load.head_size && self.0.len() < sync::limits::TRANSFERS_MAX {
            let next = Load {
                from,
                known_size: None,
                ..load.clone()
            };
            let (registry, asked) = (registry.clone(), next.clone());
            let reading = tokio::task::spawn_blocking(move || registry.load(&asked));
            self.0.insert(load.origin.clone(), (next, reading));
        }
        Ok(loaded)
    }

    /// What is not asked for any more.
    pub fn forget(&mut self, origin: &Origin) {
        self.0.remove(origin);
    }
}
