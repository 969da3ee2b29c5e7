//! Ledgers for verifiers that nobody here wrote: C2SP tlog-tiles over HTTP.
//!
//! `/ledger/<origin>/checkpoint` and `/ledger/<origin>/tile/<L>/<N>[.p/<W>]` are open;
//! `/ledger/<origin>/tile/entries/...` needs an auditor's session.

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger::tile::{TilePath, TileTree};
use ledger::witness::Refusal;
use record::id::Origin;
use registry::RegistryError;
use registry::witness::Witnessed;

use crate::error::ApiError;
use crate::state::{AppState, bearer};

fn not_found() -> ApiError {
    ApiError(RegistryError::NotFound {
        what: "账本路径 / ledger path",
        name: "requested".into(),
        next: "use /ledger/<origin>/checkpoint or /ledger/<origin>/tile/<L>/<N>",
    })
}

/// Cosigns a checkpoint, as C2SP tlog-witness has it.
pub async fn add_checkpoint(
    State(state): State<AppState>,
    body: axum::body::Bytes,
) -> Result<Response, ApiError> {
    let witnessed = state
        .run(move |registry| registry.add_checkpoint(&body, crate::now()))
        .await?;
    Ok(match witnessed {
        Witnessed::Cosigned(line) => line.into_response(),
        Witnessed::Malformed => (StatusCode::BAD_REQUEST, "malformed request\n").into_response(),
        Witnessed::Unknown => (StatusCode::NOT_FOUND, "unknown log\n").into_response(),
        Witnessed::Refused(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            match refusal {
                Refusal::Conflict { size } | Refusal::Fork { size } => {
                    let headers = [(CONTENT_TYPE, "text/x.tlog.size")];
                    (status, headers, format!("{size}\n")).into_response()
                }
                other => (status, format!("{other}\n")).into_response(),
            }
        }
    })
}

/// A checkpoint, a hash tile or an entry bundle of a ledger held here.
pub async fn ledger(
    State(state): State<AppState>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(origin) = path.strip_suffix("/checkpoint") {
        let origin = Origin::parse(origin).map_err(|_| not_found())?;
        let note = state
            .run(move |registry| registry.published(&origin))
            .await?
            .ok_or_else(not_found)?;
        let headers = [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-cache"),
        ];
        return Ok((headers, note).into_response());
    }
    let (origin, tile) = path.split_once("/tile/").ok_or_else(not_found)?;
    let origin = Origin::parse(origin).map_err(|_| not_found())?;
    let tile = TilePath::parse(format!("tile/{tile}").as_bytes()).map_err(|_| not_found())?;
    let width = usize::from(tile.width());
    let bytes = match tile.tree() {
        TileTree::Hashes { level } => {
            state
                .run(move |registry| registry.tile(&origin, level, tile.index(), width))
                .await?
        }
        TileTree::Entries => {
            let session = bearer(&headers)
                .and_then(|token| state.session(token))
                .ok_or(ApiError(RegistryError::NoSession))?;
            state
                .run(move |registry| registry.bundle(&session, &origin, tile.index(), width))
                .await?
        }
    };
    // A full tile never changes.
    let cache = if width == 256 {
        "max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    Ok((
        [
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, cache),
        ],
        bytes,
    )
        .into_response())
}
