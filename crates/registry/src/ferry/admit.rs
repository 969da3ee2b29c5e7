//! Joining by file (离线入网): a node that has no line to its parent asks with one file, is chartered,
//! and gets with two others what it would have got over the line.
//!
//! Owns what a request must show before a charter is given: that its keys are the asker's, that it
//! has the invitation, that this is valid and was not used by other keys. The same request again is
//! answered again, with the same charter: a disk may have been lost.
//! Refuses everything else with the reason, and charters nobody then. The invitation's secret is in
//! neither file: what the parent keeps of it is the key of a MAC.

use std::path::PathBuf;

use ferry::{Admission, Hex, JoinRequest, JoiningError};
use hmac::{Hmac, KeyInit, Mac};
use record::authority::Charter;
use record::id::{DivisionId, Realm, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Refused;
use super::pack::{PackReport, PackRequest};
use crate::config::key_from_hex;
use crate::error::{RegistryError, Result};
use crate::node::{Applicant, Registry, purpose};
use crate::replicate::{Invitation, hash_secret};
use crate::session::Session;

/// Why a request to join was not answered, or an admission not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Cut, edited, or something else.
    #[error(transparent)]
    File(#[from] JoiningError),
    /// Of another realm.
    #[error("属于另一辖域 `{0}` / this is of another realm, `{0}`; carry it there")]
    OtherRealm(Realm),
    /// To another node, or of one.
    #[error("这是给 `{0}` 的 / this is for `{0}`; carry it there")]
    OtherNode(DivisionId),
    /// Without the invitation that this division was given last.
    #[error(
        "申请所凭的不是本节点给 `{0}` 的最新邀请 / the request was not made with the newest invitation of `{0}`; let the node ask with that one, or invite it again"
    )]
    OtherInvitation(DivisionId),
    /// Too late.
    #[error("邀请已过期 / the invitation has expired; make another with `fangzhi invite`")]
    Expired,
    /// By a node that was admitted.
    #[error(
        "邀请已用过 / the invitation was used by other keys; if the node lost these, make the plan `fangzhi keys plan replace-charter {0}`"
    )]
    Used(DivisionId),
}

impl NotAdmitted {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "join-file",
            Self::OtherRealm(_) => "join-realm",
            Self::OtherNode(_) => "join-node",
            Self::OtherInvitation(_) => "join-invitation",
            Self::Expired => "join-expired",
            Self::Used(_) => "join-used",
        }
    }
}

/// What is to be answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmitRequest {
    /// Absolute path of the request.
    pub request: PathBuf,
    /// Absolute: the folder in which the answer is written.
    pub out: PathBuf,
    /// Room on one disk, in bytes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

/// What was answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdmitReport {
    /// Who was admitted.
    pub division: DivisionId,
    /// Whether it had been before, with the same keys.
    pub repeated: bool,
    /// The file with its charter.
    pub admission: PathBuf,
    /// The files with the ledgers that a new child is given.
    pub bundle: PackReport,
}

/// That a request was made by whoever has the invitation's secret.
fn proof(secret: &[u8; 32], request: &JoinRequest) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&hash_secret(secret))
        .expect("a MAC takes a key of any length");
    mac.update(&request.proven());
    mac
}

impl Applicant {
    /// The file by which this node asks its parent for a charter.
    ///
    /// # Errors
    /// [`RegistryError::Directory`] when the invitation's secret cannot be read.
    pub fn ask(&self, invitation: &Invitation, now: UnixMillis) -> Result<Vec<u8>> {
        let between = (
            invitation.parent.division.clone(),
            invitation.division.clone(),
        );
        let mut request = JoinRequest::new(invitation.realm.clone(), between, &self.public(), now)
            .map_err(|error| refused(error.into()))?;
        let secret = zeroize::Zeroizing::new(key_from_hex(&invitation.secret)?);
        let mac = proof(&secret, &request).finalize();
        request.proof = Hex(mac.into_bytes().into());
        Ok(self.sign_request(request).encode())
    }
}

/// Reads an admission for the node that an invitation names; its charters, own first. Whether they
/// hold, and are for the node's keys, [`Applicant::chartered`] sees.
///
/// # Errors
/// [`RegistryError::Ferry`].
pub fn admission(bytes: &[u8], invitation: &Invitation) -> Result<Vec<Charter>> {
    let admission = Admission::decode(bytes).map_err(|error| refused(error.into()))?;
    if admission.realm != invitation.realm {
        return Err(refused(NotAdmitted::OtherRealm(admission.realm)));
    }
    if admission.division != invitation.division {
        return Err(refused(NotAdmitted::OtherNode(admission.division)));
    }
    admission.charters().map_err(|error| refused(error.into()))
}

fn refused(why: NotAdmitted) -> RegistryError {
    Refused::NotAdmitted(why).into()
}

impl Registry {
    /// Charters a node that asks by file, and writes its admission and its first bundle.
    ///
    /// # Errors
    /// [`RegistryError::Ferry`]: nobody was chartered; or the files could not be written: do it
    /// again. [`RegistryError::Denied`], [`RegistryError::Locked`].
    pub fn ferry_admit(
        &self,
        session: &Session,
        request: &AdmitRequest,
        now: UnixMillis,
    ) -> Result<AdmitReport> {
        self.may(session, policy::Action::Administer, &purpose("security"))?;
        if !request.request.is_absolute() || !request.out.is_dir() {
            return Err(RegistryError::BadRequest(
                "申请须用绝对路径，`out` 须是已有的目录 / the request must be an absolute path, and `out` a folder that is there".into(),
            ));
        }
        let max = ferry::limits::REQUEST_BYTES_MAX as u64;
        let bytes = store::atomic::read_bounded(&request.request, max)?;
        let asked = JoinRequest::decode(&bytes).map_err(|error| refused(error.into()))?;
        let division = asked.division.clone();
        let name = format!("{}-{division}.admission", self.config.division);
        let path = request.out.join(name);
        // Before anybody is chartered: a file that is there is not written over.
        if path.exists() {
            return Err(super::files::exists(&path).into());
        }
        let repeated = self.check_request(&asked, now)?;
        let chain = self.admit(&division, &asked.keys(), now)?;
        let between = (self.config.division.clone(), division.clone());
        let admission = Admission::new(self.config.realm.clone(), between, &chain, now);
        store::atomic::replace(&path, &admission.encode())?;
        let bundle = PackRequest {
            to: division.clone(),
            out: request.out.clone(),
            max_bytes: request.max_bytes,
            since: Some(0),
            one_way: false,
            receipt: false,
        };
        Ok(AdmitReport {
            bundle: self.ferry_pack(session, &bundle, now)?,
            division,
            repeated,
            admission: path,
        })
    }

    /// Whether the asker was admitted before with the same keys; refuses who may not be.
    fn check_request(&self, asked: &JoinRequest, now: UnixMillis) -> Result<bool> {
        if asked.realm != self.config.realm {
            return Err(refused(NotAdmitted::OtherRealm(asked.realm.clone())));
        }
        if asked.parent != self.config.division {
            return Err(refused(NotAdmitted::OtherNode(asked.parent.clone())));
        }
        let other = || refused(NotAdmitted::OtherInvitation(asked.division.clone()));
        let invited = self.invited(&asked.division)?.ok_or_else(other)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&invited.secret_hash)
            .expect("a MAC takes a key of any length");
        mac.update(&asked.proven());
        // In constant time.
        mac.verify_slice(&asked.proof.0).map_err(|_| other())?;
        if now > invited.expires {
            return Err(refused(NotAdmitted::Expired));
        }
        match invited.used_by {
            Some(by) if by != asked.keys.transport.0 => {
                Err(refused(NotAdmitted::Used(asked.division.clone())))
            }
            used => Ok(used.is_some()),
        }
    }
}
