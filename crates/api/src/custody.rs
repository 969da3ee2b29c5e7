//! The root over HTTP: opening and locking, shares, the next key-encryption key, recovery.
//!
//! Opening needs no session: whoever has the passphrase, the key or enough shares may open.

use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::DivisionId;
use registry::RegistryError;
use registry::config::KeyCustody;
use registry::custody::held::ReadyLine;
use registry::custody::shares::ShareStatus;
use registry::custody::steps::{Brought, ShareFile};
use registry::keys::Opener;
use registry::recovery::export::RecoveryFile;
use registry::recovery::giving::RecoveryLeave;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

/// The name under which opening waits for its turn; no login has a slash.
const OPENING: &str = "custody/open";
/// The largest request: a file of sealed shares.
const BYTES_MAX: usize = 1024 * 1024;

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/custody`, `/api/v1/shares` and `/api/v1/recovery`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/custody", get(custody))
        .route("/api/v1/custody/open", post(open))
        .route("/api/v1/custody/lock", post(lock))
        .route("/api/v1/custody/next", post(next))
        .route("/api/v1/shares", get(shares))
        .route("/api/v1/shares/ready", post(ready))
        .route("/api/v1/shares/file", get(share_file).post(bring))
        .route("/api/v1/shares/taken", post(take))
        .route("/api/v1/shares/confirmed", post(confirm))
        .route("/api/v1/shares/abandoned", post(abandon))
        .route("/api/v1/recovery", post(recovery))
        .route("/api/v1/recovery/leave", post(leave))
        .layer(DefaultBodyLimit::max(BYTES_MAX))
}

async fn custody(State(state): State<AppState>) -> Json<Value> {
    Json(json!({ "locked": state.registry().is_locked() }))
}

/// What opens a keystore. Wiped when it was used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Means {
    #[serde(default)]
    passphrase: Option<String>,
    /// A key file's 32 bytes, hexadecimal.
    #[serde(default)]
    key: Option<String>,
    /// Officers' shares; then the other two are what is to open the keystore from here on.
    #[serde(default)]
    shares: Vec<String>,
}

impl Drop for Means {
    fn drop(&mut self) {
        self.passphrase.zeroize();
        self.key.zeroize();
        self.shares.zeroize();
    }
}

impl Means {
    fn opener(&self) -> Result<(KeyCustody, Opener), RegistryError> {
        if let Some(phrase) = &self.passphrase {
            let phrase = Zeroizing::new(phrase.clone());
            return Ok((KeyCustody::Passphrase, Opener::Passphrase(phrase)));
        }
        let opener = match &self.key {
            Some(key) => Opener::Key(Zeroizing::new(registry::config::key_from_hex(key)?)),
            None => Opener::File,
        };
        Ok((KeyCustody::File, opener))
    }
}

async fn open(
    State(state): State<AppState>,
    headers: HeaderMap,
    Given(means): Given<Means>,
) -> Result<Json<Value>, Response> {
    if !state.registry().is_locked() {
        return Ok(custody_answer(&state));
    }
    // As costly as a login, and as few at once.
    let turn = state.turn(OPENING, &headers).await?;
    state
        .run(move |registry| {
            let opened = means.opener().and_then(|(custody, opener)| {
                if means.shares.is_empty() {
                    registry.unlock(&opener, now())
                } else {
                    registry.unlock_with_shares(&means.shares, &custody, &opener, now())
                }
            });
            match &opened {
                Ok(()) => turn.right(),
                Err(_) => turn.wrong(Instant::now()),
            }
            opened
        })
        .await
        .map_err(IntoResponse::into_response)?;
    Ok(custody_answer(&state))
}

fn custody_answer(state: &AppState) -> Json<Value> {
    Json(json!({ "locked": state.registry().is_locked() }))
}

async fn lock(State(state): State<AppState>, caller: Caller) -> Answered<Value> {
    state
        .run(move |registry| registry.lock_keys(&caller.session))
        .await?;
    state.close_all();
    Ok(custody_answer(&state))
}

async fn next(
    State(state): State<AppState>,
    caller: Caller,
    Given(means): Given<Means>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |registry| registry.offer_opener(&caller.session, means.opener()?.1))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn shares(State(state): State<AppState>, _caller: Caller) -> Answered<ShareStatus> {
    Ok(Json(state.run(|registry| registry.share_status()).await?))
}

/// Whose root a share is of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Below {
    division: DivisionId,
}

async fn ready(
    State(state): State<AppState>,
    caller: Caller,
    Given(below): Given<Below>,
) -> Answered<ReadyLine> {
    Ok(Json(
        state
            .run(move |registry| registry.ready_for_share(&caller.session, &below.division, now()))
            .await?,
    ))
}

/// For which node below; for the own ceremony when left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct For {
    #[serde(default)]
    division: Option<DivisionId>,
}

async fn share_file(
    State(state): State<AppState>,
    caller: Caller,
    Query(of): Query<For>,
) -> Answered<ShareFile> {
    Ok(Json(
        state
            .run(move |registry| registry.share_file(&caller.session, of.division.as_ref()))
            .await?,
    ))
}

async fn bring(
    State(state): State<AppState>,
    caller: Caller,
    Given(file): Given<ShareFile>,
) -> Answered<Brought> {
    Ok(Json(
        state
            .run(move |registry| registry.bring_shares(&caller.session, &file, now()))
            .await?,
    ))
}

/// Which ceremony a step belongs to, by its nonce, and what was typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    ceremony: String,
    #[serde(default)]
    share: String,
}

impl Drop for Step {
    fn drop(&mut self) {
        self.share.zeroize();
    }
}

async fn take(
    State(state): State<AppState>,
    caller: Caller,
    Given(step): Given<Step>,
) -> Answered<Value> {
    let share = state
        .run(move |registry| registry.take_share(&caller.session, &step.ceremony))
        .await?;
    Ok(Json(json!({ "share": share.as_str() })))
}

async fn confirm(
    State(state): State<AppState>,
    caller: Caller,
    Given(step): Given<Step>,
) -> Answered<ShareStatus> {
    Ok(Json(
        state
            .run(move |registry| {
                registry.confirm_share(&caller.session, &step.ceremony, &step.share, now())
            })
            .await?,
    ))
}

async fn abandon(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, ApiError> {
    state
        .run(move |registry| registry.abandon_shares(&caller.session))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which lost node, and where the new machine reaches this one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    division: DivisionId,
    address: String,
}

async fn recovery(
    State(state): State<AppState>,
    caller: Caller,
    Given(lost): Given<Lost>,
) -> Answered<RecoveryFile> {
    Ok(Json(
        state
            .run(move |registry| {
                registry.export_recovery(&caller.session, &lost.division, lost.address)
            })
            .await?,
    ))
}

async fn leave(
    State(state): State<AppState>,
    caller: Caller,
    Given(lost): Given<Lost>,
) -> Answered<RecoveryLeave> {
    Ok(Json(
        state
            .run(move |registry| {
                registry.allow_recovery(&caller.session, &lost.division, lost.address, now())
            })
            .await?,
    ))
}
