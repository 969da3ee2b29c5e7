//! Destructions over HTTP: what became of them, and what is past its retention.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::{Kind, RecordId};
use registry::destroy::receipts::DestructionLine;
use registry::retention::RetentionLine;

use crate::error::ApiError;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/destructions` and `/api/v1/retention`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/destructions", get(waiting))
        .route("/api/v1/destructions/{kind}/{record}", get(of_record))
        .route("/api/v1/retention", get(retention))
        .route("/api/v1/retention/run", post(run_retention))
}

async fn waiting(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<DestructionLine>> {
    Ok(Json(
        state.run(|registry| registry.destructions(now())).await?,
    ))
}

async fn of_record(
    State(state): State<AppState>,
    _caller: Caller,
    Path((kind, record)): Path<(Kind, RecordId)>,
) -> Answered<Vec<DestructionLine>> {
    Ok(Json(
        state
            .run(move |registry| registry.erasure(&kind, &record, now()))
            .await?,
    ))
}

async fn retention(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<RetentionLine>> {
    Ok(Json(state.run(|registry| registry.retention(now())).await?))
}

async fn run_retention(
    State(state): State<AppState>,
    caller: Caller,
) -> Answered<Vec<RetentionLine>> {
    Ok(Json(
        state
            .run(move |registry| registry.run_retention(&caller.session, now()))
            .await?,
    ))
}
