//! How a failure is told over HTTP: a stable code for programs, words for people.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use record::draft::Violation;
use registry::RegistryError;
use serde::Serialize;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// A stable word.
    pub code: &'static str,
    /// What happened and what to do, in Chinese and English.
    pub message: String,
    /// The rule that denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// Every rule broken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

/// A use case that did not happen, as an HTTP answer.
#[derive(Debug)]
pub struct ApiError(pub RegistryError);

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        Self(error)
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match &self.0 {
            RegistryError::Denied { .. }
            | RegistryError::NotApproved(_)
            | RegistryError::Discounted(_) => StatusCode::FORBIDDEN,
            RegistryError::BadLogin | RegistryError::NoSession => StatusCode::UNAUTHORIZED,
            RegistryError::Invalid(_) | RegistryError::Ferry(_) | RegistryError::Altered { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            RegistryError::BadRequest(_) => StatusCode::BAD_REQUEST,
            RegistryError::NotFound { .. }
            | RegistryError::NoKind(_)
            | RegistryError::NoCharter(_) => StatusCode::NOT_FOUND,
            RegistryError::Locked => StatusCode::LOCKED,
            RegistryError::Conflict(_)
            | RegistryError::Stale { .. }
            | RegistryError::Underway { .. } => StatusCode::CONFLICT,
            RegistryError::Halted { .. } | RegistryError::NoSchema { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            RegistryError::Directory(_)
            | RegistryError::Damaged { .. }
            | RegistryError::Unreadable { .. }
            | RegistryError::Store(_)
            | RegistryError::File(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(code = self.0.code(), error = %self.0, "a request failed");
        }
        let (rule, ask) = match &self.0 {
            RegistryError::Denied { rule, ask, .. } => (Some(rule.clone()), Some(ask.clone())),
            _ => (None, None),
        };
        let violations = match &self.0 {
            RegistryError::Invalid(violations) => violations.clone(),
            _ => Vec::new(),
        };
        let failure = Failure {
            code: self.0.code(),
            message: self.0.to_string(),
            rule,
            ask,
            violations,
        };
        (status, Json(failure)).into_response()
    }
}
