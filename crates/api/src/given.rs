//! What a request sends: JSON of a known shape, or an answer that says in JSON why not.
//!
//! Refuses to repeat any of what was sent: a name in a request must not come back in an error,
//! where a log may keep it.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::error::Failure;

/// The document that a request sends.
pub struct Given<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(&rejection)),
        }
    }
}

fn refused(rejection: &JsonRejection) -> Response {
    let status = rejection.status();
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
