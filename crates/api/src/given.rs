//! What a request sends: JSON of a known shape, or an answer that says in JSON why not.
//!
//! Refuses to repeat any of what was sent: a name in a request must not come back in an error,
//! where a log may keep it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::Failure;

/// The document that a request sends.
pub struct Given<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(rejection.status())),
        }
    }
}

/// The bytes of a request that says that it is JSON, to be read piece by piece.
pub(crate) async fn document(request: Request) -> Result<Bytes, Response> {
    let said = request.headers().get(CONTENT_TYPE);
    let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    if !said.eq_ignore_ascii_case("application/json") {
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Bytes::from_request(request, &())
        .await
        .map_err(|rejection| refused(rejection.status()))
}

/// The answer to a document that does not have the shape of its request.
pub(crate) fn broken(error: &serde_json::Error) -> Response {
    refused(match error.classify() {
        Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
        Category::Io | Category::Syntax | Category::Eof => StatusCode::BAD_REQUEST,
    })
}

fn refused(status: StatusCode) -> Response {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "请求过大 / the request is too large; send less at a time",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "请求须为 JSON / the request is not marked as JSON; send `content-type: application/json`"
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            "请求缺项或类型不符 / the request lacks a field or has one of the wrong type; see docs/api.md"
        }
        _ => "请求不是完整的 JSON / the request is no whole JSON document; send it again",
    };
    let failure = Failure {
        code: "bad-request",
        message: message.to_owned(),
        rule: None,
        ask: None,
        violations: Vec::new(),
    };
    (status, Json(failure)).into_response()
}
