//! Published sets over HTTP: listed, checked and planned, shown to whoever approves, exported.
//!
//! What is in force is no secret of the realm: listing it and making the same catalogue needs no
//! session. Making a plan does, and seeing what a plan would open.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::published::{PublishedSet, SetFile, What};
use registry::RegistryError;
use registry::plan::approve::plan_id;
use registry::published::plan::{Proposed, PublishRequest};
use registry::published::show::PublishedStatus;
use serde_json::Value;

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/published`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/published", get(list))
        .route("/api/v1/published/catalogue", get(catalogue))
        .route("/api/v1/published/purposes", get(purposes))
        .route("/api/v1/published/files/{what}", get(files))
        .route("/api/v1/published/plans", post(make))
        .route("/api/v1/published/plans/{id}", get(show))
}

async fn list(State(state): State<AppState>) -> Answered<PublishedStatus> {
    Ok(Json(
        state
            .run(|registry| registry.published_status(now()))
            .await?,
    ))
}

async fn catalogue(State(state): State<AppState>) -> Answered<Vec<PublishedSet>> {
    Ok(Json(
        state.run(registry::Registry::published_catalogue).await?,
    ))
}

async fn purposes(State(state): State<AppState>) -> Answered<Value> {
    let listed = state
        .run(|registry| serde_json::to_value(registry.purposes()).map_err(unwritable))
        .await?;
    Ok(Json(listed))
}

fn unwritable(error: serde_json::Error) -> RegistryError {
    RegistryError::Store(error.to_string())
}

async fn files(
    State(state): State<AppState>,
    _caller: Caller,
    Path(what): Path<String>,
) -> Answered<Vec<SetFile>> {
    let what: What = what
        .parse()
        .map_err(|e: record::id::IdError| ApiError(RegistryError::BadRequest(e.to_string())))?;
    Ok(Json(
        state
            .run(move |registry| registry.published_files(what))
            .await?,
    ))
}

async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<PublishRequest>,
) -> Answered<Proposed> {
    Ok(Json(
        state
            .run(move |registry| registry.publish_plan(&caller.session, &request, now()))
            .await?,
    ))
}

async fn show(
    State(state): State<AppState>,
    _caller: Caller,
    Path(plan): Path<String>,
) -> Answered<Proposed> {
    let plan = plan_id(&plan)?;
    Ok(Json(
        state
            .run(move |registry| registry.publish_shown(&plan, now()))
            .await?,
    ))
}
