//! Asking witnesses beside the parent for cosignatures, over HTTP (C2SP tlog-witness).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use record::id::{DivisionId, Origin};
use registry::Registry;
use registry::config::WitnessAddress;

/// How often heads that lack a cosignature are looked for.
const EVERY: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks every configured witness, as long as the node runs.
pub async fn ask(registry: Arc<Registry>) {
    if registry.witness_addresses().is_empty() {
        return;
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    // What each witness cosigned last of each ledger; it tells when this is wrong.
    let mut known: HashMap<(DivisionId, Origin), u64> = HashMap::new();
    loop {
        let (asking, agent) = (registry.clone(), agent.clone());
        let round = tokio::task::spawn_blocking(move || {
            ask_all(&asking, &agent, &mut known);
            known
        });
        known = round.await.unwrap_or_default();
        tokio::time::sleep(EVERY).await;
    }
}

fn ask_all(
    registry: &Registry,
    agent: &ureq::Agent,
    known: &mut HashMap<(DivisionId, Origin), u64>,
) {
    let Ok(ledgers) = registry.own_ledgers() else {
        return;
    };
    for witness in registry.witness_addresses() {
        for origin in &ledgers {
            let old = known
                .entry((witness.division.clone(), origin.clone()))
                .or_default();
            if let Err(reason) = ask_one(registry, agent, witness, origin, old) {
                tracing::debug!(witness = %witness.division, %origin, reason, "not cosigned by the witness");
                if reason.starts_with("unreachable") {
                    // The other ledgers would wait for the same machine.
                    break;
                }
            }
        }
    }
}

fn ask_one(
    registry: &Registry,
    agent: &ureq::Agent,
    witness: &WitnessAddress,
    origin: &Origin,
    old: &mut u64,
) -> Result<(), String> {
    let request = registry
        .witness_request(origin, &witness.division, *old)
        .map_err(|e| e.to_string())?;
    let Some((size, body)) = request else {
        return Ok(());
    };
    let url = format!(
        "{}/witness/add-checkpoint",
        witness.url.trim_end_matches('/')
    );
    let mut response = agent
        .post(&url)
        .send(body.as_bytes())
        .map_err(|e| format!("unreachable: {e}"))?;
    let status = response.status().as_u16();
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .map_err(|e| format!("unreachable: {e}"))?;
    match status {
        200 => {
            registry
                .witnessed(origin, &witness.division, size, &text, api::now())
                .map_err(|e| e.to_string())?;
            *old = size;
            Ok(())
        }
        409 => {
            // The witness says what it cosigned last; the next round asks from there.
            *old = text
                .trim()
                .parse()
                .map_err(|_| "the witness refuses without a size".to_owned())?;
            Err(format!("asked from another size than {old}"))
        }
        _ => Err(format!("the witness answered {status}")),
    }
}
