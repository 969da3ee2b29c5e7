//! Operators (操作员): enrolment, login, and the session that signs in their name.

use ed25519_dalek::SigningKey;
use record::act::Capacity;
use record::authority::{OperatorCertificate, Role, Statement};
use record::id::{DivisionId, Hash, OperatorId, Purpose, UnixMillis};
use record::plan::Work;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::book::Signer;
use crate::config::Files;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{CHARTER_MILLIS, Registry, purpose};

/// A session lasts a working day.
pub const SESSION_MILLIS: u64 = 10 * 3600 * 1000;
/// The shortest passphrase.
pub const PASSPHRASE_MIN: usize = 8;
/// The longest code of a grid.
const GRID_MAX: usize = 64;
const OPERATOR_FILE_MAX: u64 = 64 * 1024;

/// `operators/<login>.json`: what stays at the node; the ledger has identifier, role and key only.
#[derive(Serialize, Deserialize)]
struct OperatorFile {
    format: u32,
    operator: OperatorId,
    login: String,
    role: Role,
    grid: Option<String>,
    /// The signing seed, sealed under the passphrase, base64.
    key: String,
}

/// An operator who logged in.
pub struct Session {
    /// Who.
    pub operator: OperatorId,
    /// The login name.
    pub login: String,
    /// The role.
    pub role: Role,
    /// The organization.
    pub organization: DivisionId,
    /// The grid worker's grid.
    pub grid: Option<String>,
    /// When the session ends.
    pub expires: UnixMillis,
    key: SigningKey,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.operator)
    }
}

impl Session {
    /// The operator's key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The signer of an act in the operator's name.
    pub(crate) fn signer(&self, purpose: Purpose, source: Option<Hash>) -> Signer<'_> {
        Signer {
            capacity: Capacity::Operator,
            key: Some(&self.key),
            organization: self.organization.clone(),
            purpose,
            source,
        }
    }
}

/// What a new operator is given.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    /// The login name: 1 to 40 of `[a-z0-9-]`.
    pub login: String,
    /// The passphrase, at least [`PASSPHRASE_MIN`] bytes.
    pub passphrase: String,
    /// The role.
    pub role: Role,
    /// The grid of a grid worker.
    #[serde(default)]
    pub grid: Option<String>,
}

impl Drop for NewOperator {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.passphrase);
    }
}

/// What became of an enrolment.
#[derive(Debug, Clone, Serialize)]
pub struct Enrolled {
    /// The operator.
    pub operator: OperatorId,
    /// The plan that has to be approved and run first, hexadecimal; absent when the operator may
    /// log in at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// An operator as listed.
#[derive(Debug, Clone, Serialize)]
pub struct OperatorLine {
    /// The identifier that ledgers carry.
    pub operator: OperatorId,
    /// The login name.
    pub login: String,
    /// The role.
    pub role: Role,
    /// Whether the operator may still sign.
    pub enabled: bool,
}

/// An operator's file, opened with the passphrase.
pub(crate) struct Unlocked {
    pub(crate) operator: OperatorId,
    pub(crate) key: SigningKey,
    grid: Option<String>,
}

/// Opens an operator's file of a node, whether the node runs or not.
///
/// # Errors
/// [`RegistryError::BadLogin`], the same for an unknown name and a wrong passphrase.
pub(crate) fn unlock(files: &Files, login: &str, passphrase: &str) -> Result<Unlocked> {
    let path = path_of(files, login).map_err(|_| RegistryError::BadLogin)?;
    if !path.exists() {
        // An unknown name takes as long as a wrong passphrase, so that time does not tell them apart.
        let params = seal::passphrase::Argon2Params::recommended(&mut rng()?);
        let _ = params.derive(passphrase.as_bytes());
        return Err(RegistryError::BadLogin);
    }
    let file = read_file(&path)?;
    let sealed = data_encoding::BASE64
        .decode(file.key.as_bytes())
        .map_err(|_| RegistryError::BadLogin)?;
    let seed = seal::operator::open_operator(&sealed, passphrase.as_bytes())
        .map_err(|_| RegistryError::BadLogin)?;
    Ok(Unlocked {
        operator: file.operator,
        key: SigningKey::from_bytes(&seed),
        grid: file.grid,
    })
}

fn no_operator(login: &str) -> RegistryError {
    RegistryError::NotFound {
        what: "操作员 / operator",
        name: login.to_owned(),
        next: "see `fangzhi operator list`",
    }
}

fn altered() -> RegistryError {
    RegistryError::Directory(
        "操作员文件中的网格与登记的不符，文件被改动过 / the grid in the operator's file is not the one that was enrolled: the file was altered; restore it, or enrol the operator anew".into(),
    )
}

/// The longest basis that a plan or an offer states, in bytes: it goes to every node.
pub(crate) const BASIS_MAX: usize = 400;
/// The longest text that an operator states: a basis, an assessment, a value to look for.
pub(crate) const WORDS_MAX: usize = 4096;

/// Refuses a text that is longer than anybody would write.
pub(crate) fn short(what: &str, text: &str) -> Result<()> {
    if text.len() > WORDS_MAX {
        return Err(RegistryError::BadRequest(format!(
            "`{what}` 过长，至多 {WORDS_MAX} 字节 / `{what}` has {} bytes and may have {WORDS_MAX}; name the document instead of quoting it",
            text.len()
        )));
    }
    Ok(())
}

pub(crate) fn long_enough(passphrase: &str) -> Result<()> {
    if passphrase.len() < PASSPHRASE_MIN {
        return Err(RegistryError::BadRequest(format!(
            "口令至少 {PASSPHRASE_MIN} 个字符 / the passphrase is shorter than {PASSPHRASE_MIN} bytes; choose a longer one"
        )));
    }
    Ok(())
}

fn path_of(files: &Files, login: &str) -> Result<std::path::PathBuf> {
    let login = DivisionId::new(login).map_err(|_| {
        RegistryError::BadRequest(
            "登录名只用小写字母、数字和连字符 / a login name has 1 to 40 lower-case letters, digits or hyphens".into(),
        )
    })?;
    Ok(files.operators().join(format!("{login}.json")))
}

fn read_file(path: &std::path::Path) -> Result<OperatorFile> {
    let bytes =
        store::atomic::read_bounded(path, OPERATOR_FILE_MAX).map_err(RegistryError::from)?;
    serde_json::from_slice(&bytes).map_err(|_| {
        RegistryError::Directory(format!(
            "`{}` is damaged; enrol the operator again",
            path.display()
        ))
    })
}

impl Registry {
    /// Enrols an operator. The first of a node is enrolled by the node itself and must be a
    /// security officer; every later one by a security officer.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] or [`RegistryError::BadRequest`] when the login is taken, the
    /// passphrase too short, or another officer has to approve first.
    pub fn enrol_operator(
        &self,
        by: Option<&Session>,
        new: &NewOperator,
        now: UnixMillis,
    ) -> Result<OperatorId> {
        let enrolled = self.enrol_or_plan(by, new, now)?;
        match enrolled.plan {
            None => Ok(enrolled.operator),
            Some(plan) => Err(RegistryError::BadRequest(format!(
                "须先批准方案 {plan} / plan {plan} has to be approved and run first"
            ))),
        }
    }

    /// Enrols an operator; a security officer, once the node makes plans, by a plan.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] or [`RegistryError::BadRequest`] when the login is taken or the
    /// passphrase too short.
    pub fn enrol_or_plan(
        &self,
        by: Option<&Session>,
        new: &NewOperator,
        now: UnixMillis,
    ) -> Result<Enrolled> {
        let path = path_of(&self.files, &new.login)?;
        long_enough(&new.passphrase)?;
        if new.grid.as_ref().is_some_and(|grid| grid.len() > GRID_MAX) {
            return Err(RegistryError::BadRequest(format!(
                "网格代码过长，至多 {GRID_MAX} 字节 / a grid's code has at most {GRID_MAX} bytes"
            )));
        }
        match by {
            Some(session) => {
                self.may(session, policy::Action::Administer, &purpose("security"))?;
            }
            None => {
                let first = self.authority().operator_count(&self.config.division) == 0;
                if !first || new.role != Role::SecurityOfficer {
                    return Err(RegistryError::BadRequest(
                        "the first operator of a node is a security officer, enrolled with `fangzhi init` or `join`; later ones are enrolled by that officer".into(),
                    ));
                }
            }
        }
        if (new.role == Role::GridWorker) != new.grid.is_some() {
            return Err(RegistryError::BadRequest(
                "网格员须指明网格，其他角色不得有网格 / a grid worker is enrolled for a grid, and may do nothing without; nobody else has one: give `--grid` with `--role grid-worker` only".into(),
            ));
        }
        // An officer whose plan was never run left a file that opens nothing.
        let taken = path.exists() && {
            let file = read_file(&path)?;
            let authority = self.authority();
            !authority
                .certificates(&self.config.division, &file.operator)
                .is_empty()
        };
        if taken {
            return Err(RegistryError::BadRequest(
                "登录名已有人用 / this login name is taken; choose another, or give the same operator another key with `fangzhi operator renew`".into(),
            ));
        }
        let mut id = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng()?, &mut id);
        let operator = OperatorId(id);
        let key = self.write_file(operator, new)?;
        self.certify(by, operator, key, new, now)
    }

    /// Gives an operator another key under another passphrase: after a lost phone, a forgotten
    /// passphrase, or an absence. The key before signs nothing from this entry on; who was disabled
    /// is enabled again. Role and grid stay.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NotFound`], or [`RegistryError::BadRequest`].
    pub fn renew_operator(
        &self,
        by: &Session,
        login: &str,
        passphrase: &str,
        now: UnixMillis,
    ) -> Result<Enrolled> {
        self.may(by, policy::Action::Administer, &purpose("security"))?;
        long_enough(passphrase)?;
        let path = path_of(&self.files, login)?;
        if !path.exists() {
            return Err(no_operator(login));
        }
        let file = read_file(&path)?;
        let certificate = {
            let authority = self.authority();
            let all = authority.certificates(&self.config.division, &file.operator);
            all.last().cloned().ok_or_else(|| no_operator(login))?
        };
        if !self.is_grid(&certificate, file.grid.as_deref()) {
            return Err(altered());
        }
        let new = NewOperator {
            login: login.to_owned(),
            passphrase: passphrase.to_owned(),
            role: certificate.role,
            grid: file.grid,
        };
        let key = self.write_file(file.operator, &new)?;
        self.certify(Some(by), file.operator, key, &new, now)
    }

    /// Makes an operator's key and writes its file; gives the public half.
    fn write_file(&self, operator: OperatorId, new: &NewOperator) -> Result<[u8; 32]> {
        let mut rng = rng()?;
        let mut seed = Zeroizing::new([0u8; 32]);
        rand_core::Rng::fill_bytes(&mut rng, seed.as_mut());
        let params = seal::passphrase::Argon2Params::recommended(&mut rng);
        let sealed =
            seal::operator::seal_operator(&seed, new.passphrase.as_bytes(), &params, &mut rng)
                .map_err(|e| RegistryError::Store(e.to_string()))?;
        let file = OperatorFile {
            format: 1,
            operator,
            login: new.login.clone(),
            role: new.role,
            grid: new.grid.clone(),
            key: data_encoding::BASE64.encode(&sealed),
        };
        std::fs::create_dir_all(self.files.operators())
            .map_err(|e| RegistryError::file(&self.files.operators(), e))?;
        let bytes =
            serde_json::to_vec_pretty(&file).map_err(|e| RegistryError::Store(e.to_string()))?;
        // The key is durable before the ledger names it; a file without an entry opens nothing.
        let path = path_of(&self.files, &new.login)?;
        store::atomic::replace(&path, &bytes).map_err(RegistryError::from)?;
        Ok(SigningKey::from_bytes(&seed).verifying_key().to_bytes())
    }

    /// States the certificate, or makes the plan for it.
    fn certify(
        &self,
        by: Option<&Session>,
        operator: OperatorId,
        key: [u8; 32],
        new: &NewOperator,
        now: UnixMillis,
    ) -> Result<Enrolled> {
        // While a node is founded its officers are enrolled by the first; from its first plan on
        // by two, else one could enrol somebody to approve the own plans.
        let own = &self.config.division;
        let founded = self.authority().plans().any(|(_, p)| p.division == *own);
        if let Some(session) = by
            && new.role == Role::SecurityOfficer
            && founded
        {
            let work = Work::Officer { operator, key };
            let plan = self.state_plan(session, work, vec![], now)?;
            return Ok(Enrolled {
                operator,
                plan: Some(data_encoding::HEXLOWER.encode(&plan.id())),
            });
        }
        let grid = new
            .grid
            .as_deref()
            .map(|grid| self.grid_hash(operator, grid))
            .transpose()?;
        let certificate = self.certificate(operator, key, new.role, grid, now);
        let signer = match by {
            Some(session) => session.signer(purpose("administration"), None),
            None => self.service(purpose("administration")),
        };
        self.state(vec![Statement::Operator(certificate)], &signer, now)?;
        Ok(Enrolled {
            operator,
            plan: None,
        })
    }

    fn certificate(
        &self,
        operator: OperatorId,
        key: [u8; 32],
        role: Role,
        grid: Option<Hash>,
        now: UnixMillis,
    ) -> OperatorCertificate {
        OperatorCertificate {
            operator,
            key,
            organization: self.config.division.clone(),
            role,
            not_after: UnixMillis(now.0 + CHARTER_MILLIS),
            grid,
        }
    }

    /// Enrols the security officer of an approved plan.
    ///
    /// # Errors
    /// A failure of the store.
    pub(crate) fn enrol_officer(
        &self,
        by: &Session,
        warrant: &crate::plan::Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::Officer { operator, key }) = warrant.work() else {
            return Err(RegistryError::BadRequest(
                "this warrant is for other work; run its own plan".into(),
            ));
        };
        let certificate = self.certificate(*operator, *key, Role::SecurityOfficer, None, now);
        let signer = by.signer(purpose("administration"), None);
        self.state(vec![Statement::Operator(certificate)], &signer, now)?;
        Ok(())
    }

    /// What a certificate has of a grid.
    fn grid_hash(&self, operator: OperatorId, grid: &str) -> Result<Hash> {
        let mut bytes = operator.0.to_vec();
        bytes.extend(grid.as_bytes());
        self.keys.blind("operator-grid", &bytes)
    }

    /// Whether the grid in an operator's file is the one that was enrolled.
    fn is_grid(&self, certificate: &OperatorCertificate, grid: Option<&str>) -> bool {
        // A locked node cannot tell, and lets no grid worker in.
        let hash = grid.map(|grid| self.grid_hash(certificate.operator, grid));
        hash.transpose().is_ok_and(|hash| hash == certificate.grid)
    }

    /// Disables an operator: from this entry of the authority ledger on the key signs nothing.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NotFound`].
    pub fn disable_operator(
        &self,
        by: &Session,
        login: &str,
        now: UnixMillis,
    ) -> Result<OperatorId> {
        self.may(by, policy::Action::Administer, &purpose("security"))?;
        let path = path_of(&self.files, login)?;
        if !path.exists() {
            return Err(no_operator(login));
        }
        let file = read_file(&path)?;
        if file.login != login {
            return Err(RegistryError::Directory(format!(
                "`{}` is another operator's file; restore it",
                path.display()
            )));
        }
        let operator = file.operator;
        let own = &self.config.division;
        if self.authority().operator(own, &operator).is_none() {
            return Err(
                if self.authority().certificates(own, &operator).is_empty() {
                    no_operator(login)
                } else {
                    RegistryError::BadRequest(format!(
                        "操作员 `{login}` 早已停用 / operator `{login}` is disabled already; `fangzhi operator renew` enables the operator again"
                    ))
                },
            );
        }
        let officers = self
            .authority()
            .operators_of(&self.config.division, Role::SecurityOfficer);
        if officers == [operator] {
            return Err(RegistryError::BadRequest(
                "这是最后一名安全员，停用后节点无人管理；请先登记另一名 / this is the last security officer, and nobody could enrol another; enrol one first".into(),
            ));
        }
        let signer = by.signer(purpose("administration"), None);
        self.state(vec![Statement::OperatorDisabled(operator)], &signer, now)?;
        Ok(operator)
    }

    /// Opens an operator's key for a session.
    ///
    /// # Errors
    /// [`RegistryError::BadLogin`], the same for an unknown name and a wrong passphrase.
    pub fn login(&self, login: &str, passphrase: &str, now: UnixMillis) -> Result<Session> {
        let session = self.try_login(login, passphrase, now);
        if let Err(error) = &session {
            // Without the name: it may be a passphrase typed into the wrong field.
            self.counters.login_failed();
            tracing::warn!(code = error.code(), "a login failed");
        }
        session
    }

    fn try_login(&self, login: &str, passphrase: &str, now: UnixMillis) -> Result<Session> {
        let unlocked = unlock(&self.files, login, passphrase)?;
        let authority = self.authority();
        let certificate = authority
            .operator(&self.config.division, &unlocked.operator)
            .filter(|c| c.key == unlocked.key.verifying_key().to_bytes() && c.not_after > now)
            .ok_or(RegistryError::BadLogin)?;
        if !self.is_grid(certificate, unlocked.grid.as_deref()) {
            // Whoever may write the directory could otherwise widen what a grid worker sees.
            return Err(altered());
        }
        Ok(Session {
            operator: certificate.operator,
            login: login.to_owned(),
            role: certificate.role,
            organization: certificate.organization.clone(),
            grid: unlocked.grid,
            expires: UnixMillis(now.0 + SESSION_MILLIS),
            key: unlocked.key,
        })
    }

    /// Whether the operator of a session may still act.
    pub fn in_good_standing(&self, session: &Session) -> bool {
        // By key, too: who got another key since has to log in with that.
        let key = session.key.verifying_key().to_bytes();
        self.authority()
            .operator(&self.config.division, &session.operator)
            .is_some_and(|certificate| certificate.key == key)
    }

    /// The operators of this node, by login name.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub fn operators(&self) -> Result<Vec<OperatorLine>> {
        let dir = self.files.operators();
        let mut lines = Vec::new();
        if !dir.exists() {
            return Ok(lines);
        }
        for item in std::fs::read_dir(&dir).map_err(|e| RegistryError::file(&dir, e))? {
            let path = item.map_err(|e| RegistryError::file(&dir, e))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let file = read_file(&path)?;
            let enabled = self
                .authority()
                .operator(&self.config.division, &file.operator)
                .is_some();
            lines.push(OperatorLine {
                operator: file.operator,
                login: file.login,
                role: file.role,
                enabled,
            });
        }
        lines.sort_by(|a, b| a.login.cmp(&b.login));
        Ok(lines)
    }

    pub(crate) fn authority(&self) -> std::sync::RwLockReadGuard<'_, crate::authority::Authority> {
        self.authority
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn asker(&self, session: &Session) -> policy::Asker {
        policy::Asker {
            operator: session.operator,
            role: session.role,
            organization: session.organization.clone(),
            level: self.config.level,
            grid: session.grid.clone(),
        }
    }
}
