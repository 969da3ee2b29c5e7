//! What a running node does in the background: resealing, and what grants need.
//!
//! Owns the pace only: one bounded step after another while there is something to do, with a pause
//! that lets the desk in between. What a step does, and that it can be cut off, is the registry's.

use std::sync::Arc;
use std::time::Duration;

use registry::Registry;

/// How often it looks for something to do.
const IDLE: Duration = Duration::from_secs(1);
/// Between two steps: whoever waits for the shard gets it.
const BREATH: Duration = Duration::from_millis(5);
/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Grants are looked at once in so many rounds.
const GRANTS_EVERY: u32 = 10;

/// Runs until it is aborted.
pub async fn tend(registry: Arc<Registry>) {
    let mut round = 0u32;
    loop {
        let grants = round.is_multiple_of(GRANTS_EVERY);
        round = round.wrapping_add(1);
        let registry = registry.clone();
        let step = tokio::task::spawn_blocking(move || {
            if registry.is_locked() {
                return Ok(false);
            }
            if grants {
                registry.tend_grants(api::now())?;
            }
            registry.reseal_step(api::now())
        });
        let wait = match step.await {
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
