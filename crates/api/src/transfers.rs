//! Records that move, over HTTP: offered, listed, accepted, refused, withdrawn; and how many count where.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::{GrantId, Kind};
use registry::RegistryError;
use registry::moving::show::MovingLine;
use registry::plan::approve::plan_id;
use registry::register::Registered;
use registry::transfer::TransferLine;
use registry::transfer::count::CountLine;
use registry::transfer::offer::TransferRequest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/transfers`, and `/api/v1/counts`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/transfers", get(list).post(offer))
        .route("/api/v1/transfers/shards", get(shards))
        .route("/api/v1/transfers/shards/{plan}", get(shard))
        .route("/api/v1/transfers/{id}", get(show))
        .route("/api/v1/transfers/{id}/accepted", post(accept))
        .route("/api/v1/transfers/{id}/refused", post(refuse))
        .route("/api/v1/transfers/{id}/withdrawn", post(withdraw))
        .route("/api/v1/counts", get(counts))
}

fn parsed(id: &str) -> Result<GrantId, ApiError> {
    id.parse().map_err(|_| {
        ApiError(RegistryError::BadRequest(
            "迁移号不合格式 / the transfer in the path is malformed; see `fangzhi transfer list`"
                .into(),
        ))
    })
}

async fn list(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<TransferLine>> {
    Ok(Json(state.run(|registry| registry.transfers(now())).await?))
}

async fn shards(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<MovingLine>> {
    Ok(Json(state.run(|registry| registry.movings(now())).await?))
}

async fn shard(
    State(state): State<AppState>,
    _caller: Caller,
    Path(plan): Path<String>,
) -> Answered<MovingLine> {
    let plan = plan_id(&plan).map_err(ApiError)?;
    let line = state.run(move |registry| registry.moving(&plan, now()));
    Ok(Json(line.await?))
}

async fn offer(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<TransferRequest>,
) -> Answered<Value> {
    let id = state
        .run(move |registry| registry.offer_transfer(&caller.session, &request, now()))
        .await?;
    Ok(Json(json!({ "transfer": id })))
}

async fn show(
    State(state): State<AppState>,
    _caller: Caller,
    Path(id): Path<String>,
) -> Answered<TransferLine> {
    let id = parsed(&id)?;
    let line = state.run(move |registry| registry.transfer(&id, now()));
    Ok(Json(line.await?))
}

async fn accept(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answered<Registered> {
    let id = parsed(&id)?;
    let registered = state
        .run(move |registry| registry.accept_transfer(&caller.session, &id, now()))
        .await?;
    Ok(Json(registered))
}

/// Why an offer is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    reason: Kind,
}

async fn refuse(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Given(refusal): Given<Refusal>,
) -> Answered<Value> {
    let id = parsed(&id)?;
    state
        .run(move |registry| registry.refuse_transfer(&caller.session, &id, &refusal.reason, now()))
        .await?;
    Ok(Json(json!({ "transfer": id })))
}

async fn withdraw(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answered<Value> {
    let id = parsed(&id)?;
    state
        .run(move |registry| registry.withdraw_transfer(&caller.session, &id, now()))
        .await?;
    Ok(Json(json!({ "transfer": id })))
}

async fn counts(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<CountLine>> {
    Ok(Json(state.run(|registry| registry.counts()).await?))
}
