//! Grants and key epochs over HTTP: made, planned, listed, explained, renewed, amended; how far resealing came.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::{DivisionId, GrantId, RecordId};
use registry::RegistryError;
use registry::grant::amend::{AmendRequest, AmendmentPlan};
use registry::grant::show::{GrantDetails, GrantPlan, WhyLine};
use registry::grant::{GrantLine, GrantRequest};
use registry::reseal::ShardEpochs;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/grants` and `/api/v1/epochs`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/grants", get(list).post(make))
        .route("/api/v1/grants/plan", post(plan))
        .route("/api/v1/grants/why/{record}/{holder}", get(why))
        .route("/api/v1/grants/{id}", get(show))
        .route("/api/v1/grants/{id}/renewed", post(renew))
        .route("/api/v1/grants/{id}/plan", post(plan_amendment))
        .route("/api/v1/epochs", get(epochs))
}

fn unreadable(what: &str) -> ApiError {
    ApiError(RegistryError::BadRequest(format!(
        "{what} 不合格式 / the {what} in the path is malformed; see `fangzhi grant list`"
    )))
}

async fn list(State(state): State<AppState>) -> Answered<Vec<GrantLine>> {
    Ok(Json(state.run(|registry| registry.grants(now())).await?))
}

async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<GrantRequest>,
) -> Answered<Value> {
    let grant: GrantId = state
        .run(move |registry| registry.grant(&caller.session, &request, now()))
        .await?;
    Ok(Json(json!({ "grant": grant })))
}

async fn plan(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<GrantRequest>,
) -> Answered<GrantPlan> {
    let plan = state
        .run(move |registry| registry.plan_grant(&caller.session, &request, now()))
        .await?;
    Ok(Json(plan))
}

async fn show(
    State(state): State<AppState>,
    _caller: Caller,
    Path(id): Path<String>,
) -> Answered<GrantDetails> {
    let id: GrantId = id.parse().map_err(|_| unreadable("grant"))?;
    let details = state.run(move |registry| registry.grant_details(&id, now()));
    Ok(Json(details.await?))
}

async fn why(
    State(state): State<AppState>,
    _caller: Caller,
    Path((record, holder)): Path<(String, String)>,
) -> Answered<Vec<WhyLine>> {
    let record: RecordId = record.parse().map_err(|_| unreadable("record"))?;
    let holder = DivisionId::new(&holder).map_err(|_| unreadable("holder"))?;
    let lines = state.run(move |registry| registry.why(&record, &holder, now()));
    Ok(Json(lines.await?))
}

/// For how long a grant goes on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renewal {
    days: u32,
}

async fn renew(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Given(renewal): Given<Renewal>,
) -> Answered<Value> {
    let id: GrantId = id.parse().map_err(|_| unreadable("grant"))?;
    state
        .run(move |registry| registry.renew_grant(&caller.session, &id, renewal.days, now()))
        .await?;
    Ok(Json(json!({ "grant": id })))
}

async fn plan_amendment(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Given(request): Given<AmendRequest>,
) -> Answered<AmendmentPlan> {
    let id: GrantId = id.parse().map_err(|_| unreadable("grant"))?;
    let plan = state
        .run(move |registry| registry.plan_amendment(&caller.session, &id, &request, now()))
        .await?;
    Ok(Json(plan))
}

async fn epochs(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<ShardEpochs>> {
    Ok(Json(state.run(|registry| registry.epochs()).await?))
}
