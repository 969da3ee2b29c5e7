//! What every request shares: the node, the sessions, the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use record::id::UnixMillis;
use registry::session::Session;
use registry::{Registry, RegistryError};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::ApiError;

/// The most sessions at a time.
const SESSIONS_MAX: usize = 10_000;
/// A login stretches a passphrase, which takes memory and a core.
const LOGINS_AT_ONCE: usize = 2;

/// Shared by every request.
#[derive(Clone)]
pub struct AppState {
    pub(crate) registry: Arc<Registry>,
    sessions: Arc<Mutex<HashMap<String, Arc<Session>>>>,
    pub(crate) logins: Arc<Semaphore>,
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
            logins: Arc::new(Semaphore::new(LOGINS_AT_ONCE)),
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
