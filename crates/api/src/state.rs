//! What every request shares: the node, the sessions, the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use record::id::UnixMillis;
use registry::session::Session;
use registry::{Registry, RegistryError};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::{ApiError, Failure};
use crate::gate::{self, Gate, Later, Turn};

/// The most sessions at a time.
const SESSIONS_MAX: usize = 10_000;

/// Shows that whoever asks reads the secret of `run.json`.
pub const LOCAL_HEADER: &str = "x-fangzhi-local";

/// Shared by every request.
#[derive(Clone)]
pub struct AppState {
    pub(crate) registry: Arc<Registry>,
    sessions: Arc<Mutex<HashMap<String, Arc<Session>>>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) large: Arc<Semaphore>,
    secret: Option<Arc<Zeroizing<String>>>,
}

/// The time, as this machine has it.
pub fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl AppState {
    /// The state of a node's HTTP interface.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            sessions: Arc::default(),
            gate: Gate::new(),
            large: Arc::new(Semaphore::new(crate::imports::LARGE_AT_ONCE)),
            secret: None,
        }
    }

    /// The same, of a node that can show that it wrote the `run.json` with this secret.
    pub fn known_by(mut self, secret: Zeroizing<String>) -> Self {
        self.secret = Some(Arc::new(secret));
        self
    }

    /// What this node answers to a challenge; nothing when it has no secret.
    pub(crate) fn answer(&self, challenge: &str) -> Option<String> {
        let secret = self.secret.as_ref()?;
        Some(crate::known::answer(secret, challenge))
    }

    /// A turn to stretch a passphrase under a name; what asks for it may show by what it is known.
    pub(crate) async fn turn(&self, name: &str, headers: &HeaderMap) -> Result<Turn, Response> {
        let proof = headers
            .get(LOCAL_HEADER)
            .and_then(|proof| proof.to_str().ok());
        let local = match (&self.secret, proof) {
            (Some(secret), Some(proof)) => crate::known::is_local(secret, proof),
            _ => false,
        };
        let caller = match (local, bearer(headers)) {
            (true, _) => gate::Caller::Local,
            (false, Some(token)) => gate::Caller::Token(token),
            (false, None) => gate::Caller::Stranger,
        };
        let entered = self.gate.enter(name, caller, Instant::now()).await;
        entered.map_err(|later| self.later(later))
    }

    fn later(&self, Later { secs }: Later) -> Response {
        self.registry.count_refusal("login", 1);
        let failure = Failure {
            code: "busy",
            message: format!(
                "口令尝试过多，请 {secs} 秒后再试 / too many passphrases are being tried; try again in {secs} seconds"
            ),
            rule: None,
            ask: None,
            violations: Vec::new(),
        };
        let after = [(RETRY_AFTER, secs.to_string())];
        (StatusCode::TOO_MANY_REQUESTS, after, Json(failure)).into_response()
    }

    /// The node.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session; gives its token.
    pub(crate) fn open(&self, session: Session) -> Result<String, RegistryError> {
        let token = registry::keys::token()?;
        let mut sessions = self.lock();
        let time = now();
        sessions.retain(|_, session| session.expires > time);
        if sessions.len() >= SESSIONS_MAX {
            return Err(RegistryError::BadRequest(
                "too many sessions are open; log out of some".into(),
            ));
        }
        sessions.insert(token.clone(), Arc::new(session));
        Ok(token)
    }

    /// Ends every session: operators' keys leave the memory.
    pub(crate) fn close_all(&self) {
        self.lock().clear();
    }

    pub(crate) fn close(&self, token: &str) {
        self.lock().remove(token);
    }

    /// The session of a token, while it lasts and its operator is in good standing.
    pub(crate) fn session(&self, token: &str) -> Option<Arc<Session>> {
        let session = self
            .lock()
            .get(token)
            .filter(|session| session.expires > now())
            .cloned()?;
        self.registry.in_good_standing(&session).then_some(session)
    }

    /// Runs a use case, which is synchronous, away from the asynchronous threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let registry = self.registry.clone();
        tokio::task::spawn_blocking(move || work(&registry))
            .await
            .map_err(|_| {
                RegistryError::Store("the work stopped before its end; see the log".into())
            })?
            .map_err(ApiError)
    }
}

/// The token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// The operator who asks, by the request's bearer token.
pub struct Caller {
    /// The session.
    pub session: Arc<Session>,
    /// Its token.
    pub token: String,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        bearer(&parts.headers)
            .and_then(|token| {
                let session = state.session(token)?;
                Some(Caller {
                    session,
                    token: token.to_owned(),
                })
            })
            .ok_or(ApiError(RegistryError::NoSession))
    }
}
