//! What a running node does in the background: resealing, moving shards, rows left for later, what
//! grants need, destructions that were cut off, words on shares, retention.
//!
//! Owns the pace only: one bounded step after another while there is something to do, with a pause
//! that lets the desk in between. What a step does, and that it can be cut off, is the registry's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::Registry;
use registry::error::RegistryError;

/// How often it looks for something to do.
const IDLE: Duration = Duration::from_secs(1);
/// Between two steps: whoever waits for the shard gets it.
const BREATH: Duration = Duration::from_millis(5);
/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Grants are looked at once in so many rounds.
const GRANTS_EVERY: u32 = 10;
/// Records past their retention are looked for so often, and erased where a standing order says so.
const RETENTION_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Runs until it is aborted.
pub async fn tend(registry: Arc<Registry>) {
    let mut round = 0u32;
    let mut retained: Option<Instant> = None;
    let mut moving_failed: Option<Instant> = None;
    loop {
        let grants = round.is_multiple_of(GRANTS_EVERY);
        let retention = retained.is_none_or(|at| at.elapsed() > RETENTION_EVERY);
        if retention {
            retained = Some(Instant::now());
        }
        round = round.wrapping_add(1);
        let moving = moving_failed.is_none_or(|at| at.elapsed() > AFTER_FAILURE);
        let registry = registry.clone();
        let step = tokio::task::spawn_blocking(move || {
            registry.follow_charters(api::now())?;
            if registry.is_locked() {
                return Ok((false, None));
            }
            if grants {
                registry.go_on_destroying(api::now());
                registry.tend_transfers(api::now())?;
                registry.tend_grants(api::now())?;
                registry.tend_letters(api::now());
                registry.try_tend_shares(api::now());
                registry.tend_leaves(api::now())?;
            }
            if retention {
                registry.tend_retention(api::now())?;
            }
            let more = registry.chain_step()?;
            // A shard that cannot go on moving keeps nothing else from its turn.
            let moved = moving.then(|| registry.moving_step(api::now()));
            let more = registry.reseal_step(api::now())? || more;
            Ok::<_, RegistryError>((more, moved))
        });
        let step = step.await.map(|step| {
            step.map(|(more, moved)| match moved {
                Some(Err(error)) => {
                    tracing::warn!(%error, "a shard does not go on moving; it is tried again");
                    moving_failed = Some(Instant::now());
                    more
                }
                Some(Ok(moved)) => {
                    moving_failed = None;
                    more || moved
                }
                None => more,
            })
        });
        let wait = match step {
            Ok(Ok(true)) => BREATH,
            Ok(Ok(false)) => IDLE,
            Ok(Err(error)) => {
                tracing::warn!(%error, "background work stopped and is tried again");
                AFTER_FAILURE
            }
            Err(_) => AFTER_FAILURE,
        };
        tokio::time::sleep(wait).await;
    }
}
