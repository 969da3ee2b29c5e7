//! How a command reaches a node: over HTTP when it runs, else in this process, through the same
//! routes. So a command does the same either way, and there is one way to do it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::AppState;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use record::published::PublishedSet;
use record::schema::Catalogue;
use registry::Registry;
use registry::config::Files;
use registry::keys::Opener;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tower::ServiceExt;
use zeroize::Zeroizing;

use crate::args::{As, Dir, Open};
use crate::fault::{Fault, Result, exit};

const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
const PASSPHRASE_BYTES_MAX: u64 = 4096;

/// `run.json`: where a running node is reached, and by what it is known there.
#[derive(Serialize, Deserialize)]
pub struct RunFile {
    pub pid: u32,
    pub url: String,
    pub listen: String,
    /// See [`api::known`]; the file is the one place where it is written.
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub secret: Zeroizing<String>,
}

fn write_secret<S: Serializer>(
    secret: &Zeroizing<String>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(secret)
}

fn read_secret<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

/// A node, running or not.
pub struct Client {
    route: Route,
    token: Option<String>,
    dir: PathBuf,
}

enum Route {
    Remote {
        url: String,
        agent: ureq::Agent,
        /// Shows that this machine's `run.json` was read; nothing for a node elsewhere.
        local: Option<String>,
    },
    Local {
        router: Router,
        runtime: tokio::runtime::Runtime,
        registry: Arc<Registry>,
    },
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Route::Local { registry, .. } = &self.route
            && let Err(error) = registry.persist_indexes()
        {
            // The index is made anew from the ledger at the next start.
            tracing::warn!(%error, "the working index was not kept");
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(600)))
        .build()
        .into()
}

/// The running node of a directory, if there is one.
pub fn running(dir: &Path) -> Option<RunFile> {
    let bytes = std::fs::read(Files::new(dir).run()).ok()?;
    let run: RunFile = serde_json::from_slice(&bytes).ok()?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let challenge = registry::keys::token().ok()?;
    let asked = format!("{}/healthz?challenge={}", run.url, challenge.as_str());
    let mut answer = agent.get(asked).call().ok()?;
    let health: Value = answer.body_mut().read_json().ok()?;
    // A node that was killed leaves the file behind, and another process may have its port since.
    let answered = health["answer"].as_str().unwrap_or_default();
    api::known::is_answer(&run.secret, &challenge, answered).then_some(run)
}

/// A passphrase from a file, without its line break.
pub fn passphrase_file(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(
        store::atomic::read_bounded(path, PASSPHRASE_BYTES_MAX)
            .map_err(|e| Fault::failed(e.to_string()))?,
    );
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Fault::failed(format!(
            "`{0}` 不是 UTF-8 文字，请重写口令文件 / `{0}` is no UTF-8 text; write the passphrase anew",
            path.display()
        ))
    })?;
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

/// A passphrase from a file, or asked for on the terminal.
pub fn passphrase(file: Option<&Path>, what: &str) -> Result<Zeroizing<String>> {
    match file {
        Some(path) => passphrase_file(path),
        None => rpassword::prompt_password(format!("{what}: ")).map(Zeroizing::new).map_err(|_| {
            Fault::usage(format!("{what}：没有终端可问，请用口令文件 / no terminal to ask for it; give a passphrase file"))
        }),
    }
}

/// A new passphrase from a file, or asked for twice on the terminal.
pub fn new_passphrase(file: Option<&Path>, what: &str) -> Result<Zeroizing<String>> {
    match file {
        Some(path) => passphrase_file(path),
        None => chosen(what, |what| passphrase(None, what)),
    }
}

/// What is typed unseen and never shown again is typed twice.
fn chosen(
    what: &str,
    mut ask: impl FnMut(&str) -> Result<Zeroizing<String>>,
) -> Result<Zeroizing<String>> {
    let first = ask(what)?;
    let again = ask("再输一次 / the same again")?;
    match *first == *again {
        true => Ok(first),
        false => Err(Fault::usage(
            "两次输入不同，未作改动 / the two differ; nothing was changed, begin again",
        )),
    }
}

/// What opens the keystore of a node that is not running.
pub fn opener(open: &Open) -> Result<Opener> {
    match &open.passphrase_file {
        Some(path) => Ok(Opener::Passphrase(passphrase_file(path)?)),
        None => Ok(Opener::File),
    }
}

/// An operator's passphrase: of the file named, of the one beside the key, or asked for.
pub fn operator_passphrase(dir: &Path, who: &As, login: &str) -> Result<Zeroizing<String>> {
    let beside = Files::new(dir).operators().join(format!("{login}.pass"));
    match &who.operator_passphrase_file {
        Some(path) => passphrase_file(path),
        None if beside.exists() => passphrase_file(&beside),
        // Before somebody types a passphrase for nobody.
        None if !beside.with_extension("json").exists() => Err(Fault::new(
            exit::USAGE,
            "bad-login",
            format!(
                "本节点没有操作员 `{login}` / no operator `{login}` is enrolled at this node; see `fangzhi operator list`"
            ),
        )),
        None => passphrase(
            None,
            &format!("操作员 {login} 的口令 / passphrase of {login}"),
        ),
    }
}

impl Client {
    /// Reaches the node of a directory.
    pub fn connect(at: &Dir) -> Result<Self> {
        let route = match running(&at.dir) {
            Some(run) => return Ok(Self::local(&run, &at.dir)),
            None => {
                let registry = Arc::new(Registry::open(&at.dir, &opener(&at.open)?, api::now())?);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|e| Fault::failed(e.to_string()))?;
                let router = api::router(AppState::new(registry.clone()));
                Route::Local {
                    router,
                    runtime,
                    registry,
                }
            }
        };
        Ok(Self {
            route,
            token: None,
            dir: at.dir.clone(),
        })
    }

    /// Reaches the node that runs on a directory, as who may read what it left there.
    pub fn local(run: &RunFile, dir: &Path) -> Self {
        Self {
            route: Route::Remote {
                local: Some(api::known::local(&run.secret)),
                url: run.url.clone(),
                agent: agent(),
            },
            token: None,
            dir: dir.to_owned(),
        }
    }

    /// Reaches a running node by its address.
    pub fn remote(url: &str, dir: &Path) -> Self {
        Self {
            route: Route::Remote {
                url: url.to_owned(),
                agent: agent(),
                local: None,
            },
            token: None,
            dir: dir.to_owned(),
        }
    }

    /// Logs in; the fitting operator when none is named.
    pub fn login(&mut self, who: &As, roles: &[&str]) -> Result<()> {
        let login = match &who.operator {
            Some(login) => login.clone(),
            None => self.only_operator(roles)?,
        };
        let passphrase = operator_passphrase(&self.dir, who, &login)?;
        self.login_with(&login, &passphrase)
    }

    /// Logs in with a passphrase at hand.
    pub fn login_with(&mut self, login: &str, passphrase: &str) -> Result<()> {
        let answer: Value = self.post(
            "/api/v1/sessions",
            &json!({ "login": login, "passphrase": passphrase }),
        )?;
        self.token = answer["token"].as_str().map(str::to_owned);
        Ok(())
    }

    /// The one operator with a fitting role, by the files of the directory.
    fn only_operator(&self, roles: &[&str]) -> Result<String> {
        let dir = Files::new(&self.dir).operators();
        let mut found = Vec::new();
        for item in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = item.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let value: Value = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            if let (Some(login), Some(role)) = (value["login"].as_str(), value["role"].as_str())
                && roles.contains(&role)
            {
                found.push(login.to_owned());
            }
        }
        found.sort();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Fault::usage(format!(
                "没有角色为 {0} 的操作员 / no operator here is a {0}; enrol one with `fangzhi operator add`, or name one with `--as`",
                roles.join(" or ")
            ))),
            many => Err(Fault::usage(format!(
                "请用 --as 指明操作员 / say who with `--as`: {}",
                many.join(", ")
            ))),
        }
    }

    /// Asks for a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, None)
    }

    /// The schemas and code lists that the node works with: the program's, and what its realm
    /// published.
    pub fn catalogue(&self) -> Result<Cow<'static, Catalogue>> {
        let sets: Vec<PublishedSet> = self.get("/api/v1/published/catalogue")?;
        let mut catalogue = Cow::Borrowed(Catalogue::builtin());
        for set in &sets {
            let next = catalogue.with_published(set).map_err(|e| {
                Fault::failed(format!(
                    "节点所用的类别本程序用不了 / this program cannot work with the node's schemas: {e}; use the program that the node runs"
                ))
            })?;
            catalogue = Cow::Owned(next);
        }
        Ok(catalogue)
    }

    /// Sends a document and gets one back.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| Fault::failed(e.to_string()))?;
        self.call(Method::POST, path, Some(body))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T> {
        let bytes = match &self.route {
            Route::Remote { url, agent, local } => {
                // Before a session only: it is a place in the queue.
                let local = local.as_deref().filter(|_| self.token.is_none());
                self.call_remote(agent, local, &format!("{url}{path}"), body)?
            }
            Route::Local {
                router, runtime, ..
            } => runtime.block_on(self.call_local(router.clone(), method, path, body))?,
        };
        serde_json::from_slice(if bytes.is_empty() {
            b"null"
        } else {
            bytes.as_slice()
        })
        .map_err(|e| {
            Fault::failed(format!(
                "节点的应答读不懂，请核对命令与节点是否同一版本 / the node's answer cannot be read: {e}; see that command and node are of one version"
            ))
        })
    }

    fn call_remote(
        &self,
        agent: &ureq::Agent,
        local: Option<&str>,
        url: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let unreachable = |e: ureq::Error| {
            Fault::new(
                exit::NOT_REACHABLE,
                "unreachable",
                format!(
                    "连接不上节点 / the node cannot be reached at `{url}`: {e}; is `fangzhi run` going?"
                ),
            )
        };
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let response = match body {
            None => {
                let mut request = agent.get(url);
                if let Some(bearer) = bearer {
                    request = request.header("authorization", bearer);
                }
                request.call()
            }
            Some(body) => {
                let mut request = agent.post(url).header("content-type", "application/json");
                if let Some(bearer) = bearer {
                    request = request.header("authorization", bearer);
                }
                if let Some(local) = local {
                    request = request.header(api::state::LOCAL_HEADER, local);
                }
                request.send(&body)
            }
        };
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let bytes = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(unreachable)?;
        answer(status, bytes)
    }

    async fn call_local(
        &self,
        router: Router,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Body::from(body.unwrap_or_default()))
            .map_err(|e| Fault::failed(e.to_string()))?;
        let response = router
            .oneshot(request)
            .await
            .unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX as usize)
            .await
            .map_err(|e| Fault::failed(e.to_string()))?;
        answer(status, bytes.to_vec())
    }
}

/// A success's bytes, or the fault that the node told.
fn answer(status: u16, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if (200..300).contains(&status) {
        return Ok(bytes);
    }
    let failure: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let code = failure["code"].as_str().unwrap_or("failed");
    let message = failure["message"].as_str().map_or_else(
        || {
            format!(
                "the node answered {status}: {}",
                String::from_utf8_lossy(&bytes)
            )
        },
        str::to_owned,
    );
    let mut fault = Fault::new(Fault::exit_of(code), code, message);
    for violation in failure["violations"].as_array().into_iter().flatten() {
        fault.details.push(format!(
            "{}：{}",
            violation["field"].as_str().unwrap_or_default(),
            violation["reason"].as_str().unwrap_or_default()
        ));
    }
    Err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_passphrase_that_is_typed_differently_the_second_time_is_refused() {
        let typed = |words: [&str; 2]| {
            let mut words = words.into_iter();
            chosen("x", |_| {
                Ok(Zeroizing::new(words.next().unwrap().to_owned()))
            })
        };
        assert_eq!(
            *typed(["correct horse", "correct horse"]).unwrap(),
            "correct horse"
        );
        let refused = typed(["correct horse", "correct hose"]).unwrap_err();
        assert_eq!(refused.exit, exit::USAGE);
    }

    #[test]
    fn nobody_is_asked_for_the_passphrase_of_an_operator_who_does_not_exist() {
        let dir = std::env::temp_dir().join("fangzhi-no-such-node");
        let who = As {
            operator: Some("nosuch".into()),
            operator_passphrase_file: None,
        };
        let refused = operator_passphrase(&dir, &who, "nosuch").unwrap_err();
        assert_eq!(
            (refused.exit, refused.code.as_str()),
            (exit::USAGE, "bad-login")
        );
        assert!(refused.message.contains("nosuch"));
    }
}
