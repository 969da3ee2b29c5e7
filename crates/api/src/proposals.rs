//! Proposals over HTTP: made, listed, opened and withdrawn at the proposer; listed, opened and answered
//! at the owner. What one of them says leaves marked only.

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::id::DivisionId;
use registry::RegistryError;
use registry::proposals::Line;
use registry::proposals::answer::{Acceptance, AnsweredLine, Refusal};
use registry::proposals::send::ProposeRequest;
use registry::proposals::show::{Opening, ShowRequest};
use serde::Deserialize;
use watermark::Marked;

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

type Answered<T> = Result<Json<T>, ApiError>;

/// The routes under `/api/v1/proposals` and `/api/v1/inbox`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/proposals", get(sent).post(propose))
        .route("/api/v1/proposals/{owner}/{index}", post(show_sent))
        .route(
            "/api/v1/proposals/{owner}/{index}/withdrawn",
            post(withdraw),
        )
        .route("/api/v1/inbox", get(inbox))
        .route("/api/v1/inbox/{proposer}/{index}", post(show))
        .route("/api/v1/inbox/{proposer}/{index}/accepted", post(accept))
        .route("/api/v1/inbox/{proposer}/{index}/refused", post(refuse))
}

/// Which proposal a path names.
fn name((division, index): (String, String)) -> Result<(DivisionId, u64), ApiError> {
    let division = DivisionId::new(&division).ok();
    let index = index.parse().ok();
    division.zip(index).ok_or_else(|| {
        ApiError(RegistryError::BadRequest(
            "编号不合格式 / the proposal's name is malformed: `division/index`, as the lists have it".into(),
        ))
    })
}

/// Whether those that ended are listed, too.
#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    all: bool,
}

async fn sent(
    State(state): State<AppState>,
    _caller: Caller,
    Query(which): Query<Which>,
) -> Answered<Vec<Line>> {
    let lines = state.run(move |registry| registry.proposals(which.all));
    Ok(Json(lines.await?))
}

async fn inbox(
    State(state): State<AppState>,
    _caller: Caller,
    Query(which): Query<Which>,
) -> Answered<Vec<Line>> {
    let lines = state.run(move |registry| registry.inbox(which.all));
    Ok(Json(lines.await?))
}

async fn propose(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<ProposeRequest>,
) -> Answered<Line> {
    let line = state.run(move |registry| registry.propose(&caller.session, &request, now()));
    Ok(Json(line.await?))
}

async fn withdraw(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Answered<Line> {
    let (owner, index) = name(path)?;
    let line = state
        .run(move |registry| registry.withdraw_proposal(&caller.session, &owner, index, now()));
    Ok(Json(line.await?))
}

async fn show_sent(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Given(request): Given<ShowRequest>,
) -> Answered<Marked<Opening>> {
    let (owner, index) = name(path)?;
    let opening = state.run(move |registry| {
        registry.show_proposal(&caller.session, &owner, index, &request, now())
    });
    Ok(Json(opening.await?))
}

async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Given(request): Given<ShowRequest>,
) -> Answered<Marked<Opening>> {
    let (proposer, index) = name(path)?;
    let opening = state.run(move |registry| {
        registry.show_inbox(&caller.session, &proposer, index, &request, now())
    });
    Ok(Json(opening.await?))
}

async fn accept(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Given(acceptance): Given<Acceptance>,
) -> Answered<AnsweredLine> {
    let (proposer, index) = name(path)?;
    let line = state.run(move |registry| {
        registry.accept_proposal(&caller.session, &proposer, index, &acceptance, now())
    });
    Ok(Json(line.await?))
}

async fn refuse(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Given(refusal): Given<Refusal>,
) -> Answered<AnsweredLine> {
    let (proposer, index) = name(path)?;
    let line = state.run(move |registry| {
        registry.refuse_proposal(&caller.session, &proposer, index, &refusal, now())
    });
    Ok(Json(line.await?))
}
