//! The routes: each parses, calls one use case, and answers.

use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use record::authority::Role;
use record::id::{DivisionId, Kind, OperatorId, UnixMillis};
use registry::RegistryError;
use registry::audit::changes::{Changes, ChangesRequest};
use registry::audit::disclose::DiscloseRequest;
use registry::audit::disclosure::Disclosure;
use registry::read::{Answer, ReadRequest};
use registry::register::{Amendment, Registered};
use registry::replicate::{Invitation, NewInvitation};
use registry::session::{NewOperator, OperatorLine};
use registry::status::neighbours::SyncStatus;
use registry::status::{Check, NodeStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use watermark::Marked;

use crate::error::ApiError;
use crate::given::Given;
use crate::state::{AppState, Caller, now};

/// The largest request.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest login: the one request that nobody needs a session for.
const LOGIN_BYTES_MAX: usize = 16 * 1024;

type Answered<T> = Result<Json<T>, ApiError>;

/// The HTTP interface of a node.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/sync", get(sync))
        .route("/api/v1/doctor", get(doctor))
        .route("/api/v1/schemas", get(schemas))
        .route("/api/v1/schemas/{kind}", get(schema))
        .route(
            "/api/v1/sessions",
            post(login)
                .delete(logout)
                .layer(DefaultBodyLimit::max(LOGIN_BYTES_MAX)),
        )
        .route("/api/v1/operators", get(operators).post(enrol_operator))
        .route("/api/v1/operators/{login}/disabled", post(disable_operator))
        .route("/api/v1/operators/{login}/renewed", post(renew_operator))
        .route(
            "/api/v1/import",
            post(crate::imports::import)
                .layer(DefaultBodyLimit::max(crate::imports::IMPORT_BYTES_MAX)),
        )
        .route("/api/v1/read", post(read))
        .route("/api/v1/amendments", post(amend))
        .route("/api/v1/disclosures", post(disclose))
        .route("/api/v1/changes", post(changes))
        .route("/api/v1/invitations", post(invite))
        .route("/api/v1/revocations", post(revoke))
        .merge(crate::plans::routes())
        .merge(crate::destructions::routes())
        .merge(crate::custody::routes())
        .merge(crate::grants::routes())
        .merge(crate::ferries::routes())
        .merge(crate::proposals::routes())
        .merge(crate::transfers::routes())
        .merge(crate::published::routes())
        .route(
            "/witness/add-checkpoint",
            post(crate::ledgers::add_checkpoint)
                .layer(DefaultBodyLimit::max(ledger::witness::REQUEST_BYTES_MAX)),
        )
        .route("/ledger/{*path}", get(crate::ledgers::ledger))
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

async fn no_route() -> ApiError {
    ApiError(RegistryError::NotFound {
        what: "路径 / route",
        name: "requested".into(),
        next: "see docs/api.md for the routes",
    })
}

#[derive(Deserialize)]
struct Challenged {
    challenge: Option<String>,
}

/// Alive. The answer to a challenge tells a command whether this is the node that `run.json`
/// means.
async fn healthz(
    State(state): State<AppState>,
    Query(asked): Query<Challenged>,
) -> Result<Json<Value>, ApiError> {
    let mut health = json!({ "status": "ok", "pid": std::process::id() });
    if let Some(challenge) = asked.challenge {
        if challenge.len() > crate::known::CHALLENGE_MAX {
            return Err(ApiError(RegistryError::BadRequest(format!(
                "the challenge is longer than {} characters",
                crate::known::CHALLENGE_MAX
            ))));
        }
        health["answer"] = state.answer(&challenge).into();
    }
    Ok(Json(health))
}

async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let text = state.run(|registry| registry.metrics()).await?;
    Ok((
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}

async fn status(State(state): State<AppState>) -> Answered<NodeStatus> {
    Ok(Json(state.run(|registry| registry.status()).await?))
}

/// Where replication stands, per neighbour and ledger.
async fn sync(State(state): State<AppState>) -> Answered<SyncStatus> {
    let status = state.run(|registry| registry.sync_status(now())).await?;
    Ok(Json(status))
}

async fn doctor(State(state): State<AppState>) -> Answered<Vec<Check>> {
    Ok(Json(state.run(|registry| registry.doctor(now())).await?))
}

async fn schemas(State(state): State<AppState>) -> Json<Value> {
    let schemas = state.registry().catalogue().kinds();
    Json(json!({ "schemas": schemas }))
}

async fn schema(State(state): State<AppState>, Path(kind): Path<String>) -> Answered<Value> {
    let registry = state.registry();
    let found = Kind::new(&kind)
        .ok()
        .and_then(|kind| registry.catalogue().schema(&kind));
    let schema = found.ok_or_else(|| {
        ApiError(RegistryError::NotFound {
            what: "类别 / kind",
            name: "requested".into(),
            next: "see `fangzhi schema list`",
        })
    })?;
    Ok(Json(json!(schema)))
}

/// What a login sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    login: String,
    passphrase: String,
}

/// What a login gets.
#[derive(Serialize)]
struct LoggedIn {
    token: String,
    operator: OperatorId,
    role: Role,
    organization: DivisionId,
    expires: UnixMillis,
}

async fn login(
    State(state): State<AppState>,
    headers: HeaderMap,
    Given(login): Given<Login>,
) -> Result<Json<LoggedIn>, Response> {
    let passphrase = zeroize::Zeroizing::new(login.passphrase);
    let name = login.login;
    let turn = state.turn(&name, &headers).await?;
    let tried = name.clone();
    let session = state
        .run(move |registry| {
            // The turn lasts as long as the work, also when whoever asked has gone.
            let session = registry.login(&tried, &passphrase, now());
            match &session {
                Ok(_) => turn.right(),
                Err(_) => turn.wrong(Instant::now()),
            }
            session
        })
        .await
        .map_err(IntoResponse::into_response)?;
    let logged_in = LoggedIn {
        token: String::new(),
        operator: session.operator,
        role: session.role,
        organization: session.organization.clone(),
        expires: session.expires,
    };
    let token = state
        .open(session)
        .map_err(|error| ApiError(error).into_response())?;
    state.gate.know(&name, &token);
    Ok(Json(LoggedIn { token, ..logged_in }))
}

async fn logout(State(state): State<AppState>, caller: Caller) -> StatusCode {
    state.close(&caller.token);
    StatusCode::NO_CONTENT
}

async fn operators(State(state): State<AppState>, _caller: Caller) -> Answered<Vec<OperatorLine>> {
    Ok(Json(state.run(|registry| registry.operators()).await?))
}

async fn enrol_operator(
    State(state): State<AppState>,
    caller: Caller,
    Given(new): Given<NewOperator>,
) -> Answered<Value> {
    let enrolled = state
        .run(move |registry| registry.enrol_or_plan(Some(&caller.session), &new, now()))
        .await?;
    Ok(Json(json!(enrolled)))
}

/// The passphrase under which an operator gets another key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renewal {
    passphrase: String,
}

impl Drop for Renewal {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.passphrase);
    }
}

async fn renew_operator(
    State(state): State<AppState>,
    caller: Caller,
    Path(login): Path<String>,
    Given(mut renewal): Given<Renewal>,
) -> Answered<Value> {
    let passphrase = zeroize::Zeroizing::new(std::mem::take(&mut renewal.passphrase));
    let enrolled = state
        .run(move |registry| registry.renew_operator(&caller.session, &login, &passphrase, now()))
        .await?;
    Ok(Json(json!(enrolled)))
}

async fn disable_operator(
    State(state): State<AppState>,
    caller: Caller,
    Path(login): Path<String>,
) -> Answered<Value> {
    let operator: OperatorId = state
        .run(move |registry| registry.disable_operator(&caller.session, &login, now()))
        .await?;
    Ok(Json(json!({ "operator": operator })))
}

/// Only a marked answer leaves, and only the registry can have it marked.
async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<ReadRequest>,
) -> Answered<Marked<Answer>> {
    Ok(Json(
        state
            .run(move |registry| registry.read(&caller.session, &request, now()))
            .await?,
    ))
}

async fn amend(
    State(state): State<AppState>,
    caller: Caller,
    Given(amendment): Given<Amendment>,
) -> Answered<Registered> {
    Ok(Json(
        state
            .run(move |registry| registry.amend(&caller.session, &amendment, now()))
            .await?,
    ))
}

/// A file that proves fields to a third person: a reading, so it leaves marked.
async fn disclose(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<DiscloseRequest>,
) -> Answered<Marked<Disclosure>> {
    Ok(Json(
        state
            .run(move |registry| registry.disclose(&caller.session, &request, now()))
            .await?,
    ))
}

/// Which fields a record's versions changed: a reading too.
async fn changes(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<ChangesRequest>,
) -> Answered<Marked<Changes>> {
    Ok(Json(
        state
            .run(move |registry| registry.changes(&caller.session, &request, now()))
            .await?,
    ))
}

async fn invite(
    State(state): State<AppState>,
    caller: Caller,
    Given(new): Given<NewInvitation>,
) -> Answered<Invitation> {
    Ok(Json(
        state
            .run(move |registry| registry.invite(&caller.session, &new, now()))
            .await?,
    ))
}

/// Which node's charter is revoked, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeRequest {
    division: DivisionId,
    reason: Kind,
}

async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Given(request): Given<RevokeRequest>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |registry| {
            registry.revoke(&caller.session, &request.division, &request.reason, now())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
