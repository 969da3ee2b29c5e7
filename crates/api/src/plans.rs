//! Plans over HTTP: made, listed, approved, taken in, run, withdrawn.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::Hash;
use registry::plan::approve::{ApprovalFile, PlanFile, plan_id};
use registry::plan::list::PlanLine;
use registry::plan::request::PlanRequest;
use serde::Deserialize;

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/plans`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/plans", get(list).post(make))
        .route("/api/v1/plans/{id}", get(show))
        .route("/api/v1/plans/{id}/file", get(file))
        .route("/api/v1/plans/{id}/approvals", post(approve))
        .route("/api/v1/plans/{id}/run", post(run))
        .route("/api/v1/plans/{id}/withdrawn", post(withdraw))
        .route("/api/v1/approvals", post(take))
}

fn id(text: &str) -> Result<Hash, ApiError> {
    Ok(plan_id(text)?)
}

async fn list(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<PlanLine>> {
    Ok(Json(state.run(|registry| Ok(registry.plans(now()))).await?))
}

async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<PlanRequest>,
) -> Answered<PlanLine> {
    Ok(Json(
        state
            .run(move |registry| registry.plan(&caller.session, &request, now()))
            .await?,
    ))
}

async fn show(
    State(state): State<AppState>,
    _caller: Caller,
    Path(plan): Path<String>,
) -> Answered<PlanLine> {
    let plan = id(&plan)?;
    Ok(Json(
        state
            .run(move |registry| registry.plan_line(&plan, now()))
            .await?,
    ))
}

async fn file(
    State(state): State<AppState>,
    _caller: Caller,
    Path(plan): Path<String>,
) -> Answered<PlanFile> {
    let plan = id(&plan)?;
    Ok(Json(
        state.run(move |registry| registry.plan_file(&plan)).await?,
    ))
}

/// What an officer says of a plan.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    approved: bool,
}

async fn approve(
    State(state): State<AppState>,
    caller: Caller,
    Path(plan): Path<String>,
    Given(word): Given<Word>,
) -> Answered<PlanLine> {
    let plan = id(&plan)?;
    Ok(Json(
        state
            .run(move |registry| registry.approve(&caller.session, &plan, word.approved, now()))
            .await?,
    ))
}

async fn take(
    State(state): State<AppState>,
    caller: Caller,
    Given(file): Given<ApprovalFile>,
) -> Answered<PlanLine> {
    Ok(Json(
        state
            .run(move |registry| registry.take_approval(&caller.session, &file, now()))
            .await?,
    ))
}

async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(plan): Path<String>,
) -> Answered<PlanLine> {
    let plan = id(&plan)?;
    Ok(Json(
        state
            .run(move |registry| {
                registry.run_plan(&caller.session, &plan, now())?;
                registry.plan_line(&plan, now())
            })
            .await?,
    ))
}

async fn withdraw(
    State(state): State<AppState>,
    caller: Caller,
    Path(plan): Path<String>,
) -> Answered<PlanLine> {
    let plan = id(&plan)?;
    Ok(Json(
        state
            .run(move |registry| registry.withdraw(&caller.session, &plan, now()))
            .await?,
    ))
}
