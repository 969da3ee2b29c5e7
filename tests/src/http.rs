//! Speaking HTTP to a node.

use std::time::Duration;

use serde_json::{Value, json};

use crate::site::PASSPHRASE;

/// A node's HTTP interface.
#[derive(Debug, Clone)]
pub struct Http {
    /// `http://IP:port`.
    pub url: String,
    agent: ureq::Agent,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `content-type`, empty when there is none.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Itself, when the status is this one.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Http {
    /// The interface at `http://IP:port`.
    pub fn new(url: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Self {
            url: url.to_owned(),
            agent,
        }
    }

    /// Asks for a path.
    ///
    /// # Panics
    /// When no answer comes.
    #[track_caller]
    pub fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.call()).expect("the node answers")
    }

    /// Sends bytes as JSON; nothing when the connection breaks before a whole answer came.
    pub fn try_post(&self, path: &str, token: Option<&str>, body: &[u8]) -> Option<Answer> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.send(body))
    }

    /// Sends a document.
    ///
    /// # Panics
    /// When no answer comes.
    #[track_caller]
    pub fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.try_post(path, token, body.to_string().as_bytes())
            .expect("the node answers")
    }

    /// Logs in with the journeys' passphrase; gives the token.
    #[track_caller]
    pub fn login(&self, login: &str) -> String {
        self.login_with(login, PASSPHRASE)
    }

    /// Logs in; gives the token.
    #[track_caller]
    pub fn login_with(&self, login: &str, passphrase: &str) -> String {
        let body = json!({ "login": login, "passphrase": passphrase });
        let answer = self
            .post("/api/v1/sessions", None, &body)
            .expect_status(200);
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// The node's status.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.get("/api/v1/status", None).expect_status(200).json()
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
    let mut response = result.ok()?;
    let content_type = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    Some(Answer {
        status: response.status().as_u16(),
        content_type,
        body: response
            .body_mut()
            .with_config()
            .limit(1 << 28)
            .read_to_vec()
            .ok()?,
    })
}
