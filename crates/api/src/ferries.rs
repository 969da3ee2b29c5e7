//! Ferries over HTTP: files packed and opened by the node, at paths of its own machine.
//!
//! A security officer names the paths; the node writes over no file, and tells nothing of a file that
//! is no bundle for it.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use registry::ferry::FerryPeer;
use registry::ferry::admit::{AdmitReport, AdmitRequest};
use registry::ferry::open::{OpenReport, OpenRequest};
use registry::ferry::pack::{PackReport, PackRequest};

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/ferry`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/ferry", get(list))
        .route("/api/v1/ferry/packed", post(pack))
        .route("/api/v1/ferry/opened", post(open))
        .route("/api/v1/ferry/admitted", post(admit))
}

async fn list(State(state): State<AppState>) -> Answered<Vec<FerryPeer>> {
    Ok(Json(state.run(|registry| registry.ferries()).await?))
}

async fn pack(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<PackRequest>,
) -> Answered<PackReport> {
    let report = state
        .run(move |registry| registry.ferry_pack(&caller.session, &request, now()))
        .await?;
    Ok(Json(report))
}

async fn open(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<OpenRequest>,
) -> Answered<OpenReport> {
    let report = state
        .run(move |registry| registry.ferry_open(&caller.session, &request, now()))
        .await?;
    Ok(Json(report))
}

async fn admit(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<AdmitRequest>,
) -> Answered<AdmitReport> {
    let report = state
        .run(move |registry| registry.ferry_admit(&caller.session, &request, now()))
        .await?;
    Ok(Json(report))
}
