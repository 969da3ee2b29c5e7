//! Steps of shares by file (分份文件): for nodes that no session connects.
//!
//! The officer's key goes down to the node, the sealed share up to the officer, the officer's word
//! down again; each is signed, and none opens anything without the officer's passphrase. What is
//! brought is weighed as if a ledger had said it, and stated in the ledger of whoever takes it in.
//! Refuses, with the reason, a step that would count for nothing, and then takes in none of the file.

use record::authority::Statement;
use record::custody::{STEP_MAX, ShareStep};
use record::id::{DivisionId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::above::NoWord;
use super::shares::bad;
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, purpose};
use crate::session::Session;

/// The version of the file.
const FORMAT: u32 = 1;
/// The most steps of one file.
const STEPS_MAX: usize = 64;
/// The largest file.
pub const FILE_MAX: u64 = 1024 * 1024;

/// Steps of shares, to be carried to the other node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareFile {
    /// The version of this file.
    pub format: u32,
    /// Each step's canonical bytes, base64.
    pub steps: Vec<String>,
}

/// What became of a file that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Brought {
    /// Steps that were stated.
    pub taken: usize,
    /// Steps that were known before.
    pub known: usize,
}

impl ShareFile {
    fn of(steps: &[ShareStep]) -> Self {
        let base64 = |step: &ShareStep| data_encoding::BASE64.encode(&step.encode());
        Self {
            format: FORMAT,
            steps: steps.iter().map(base64).collect(),
        }
    }

    /// The steps in it.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`].
    pub fn steps(&self) -> Result<Vec<ShareStep>> {
        let step = |text: &String| {
            // Four characters for three bytes.
            let bounded = text.len() <= STEP_MAX.div_ceil(3) * 4;
            let bytes = bounded.then(|| data_encoding::BASE64.decode(text.as_bytes()).ok())??;
            ShareStep::decode(&bytes).ok()
        };
        let known = self.format == FORMAT && self.steps.len() <= STEPS_MAX;
        let steps: Option<Vec<ShareStep>> = self.steps.iter().map(step).collect();
        steps.filter(|_| known).ok_or_else(|| {
            bad("不是分份文件，或已损坏 / this is no file of shares, or a damaged one; export it again")
        })
    }
}

impl Registry {
    /// What the other side needs: of the own ceremony the sealed shares; for a node below, the keys
    /// and words of the officers here.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NotFound`] when there is nothing.
    pub fn share_file(
        &self,
        session: &Session,
        division: Option<&DivisionId>,
    ) -> Result<ShareFile> {
        self.may(session, policy::Action::Rotate, &purpose("security"))?;
        let own = &self.config.division;
        let steps: Vec<ShareStep> = match division.filter(|division| *division != own) {
            None => {
                let _one = lock(&self.ceremony);
                let dealt = self.ceremony_under_way()?.dealt()?;
                dealt.into_iter().map(ShareStep::Dealt).collect()
            }
            Some(division) => {
                let authority = self.authority();
                let shares = authority.shares();
                let keys = shares.keys_of(own).filter(|key| key.division == *division);
                let words = shares.words(division);
                let words = words.filter(|word| word.organization == *own);
                keys.cloned()
                    .map(ShareStep::Ready)
                    .chain(words.cloned().map(ShareStep::Confirmed))
                    .collect()
            }
        };
        if steps.is_empty() {
            return Err(RegistryError::NotFound {
                what: "份额 / shares",
                name: division.unwrap_or(own).to_string(),
                next: "see `fangzhi keys share status`",
            });
        }
        Ok(ShareFile::of(&steps))
    }

    /// Takes in what came as a file; with the last officer's word the sharing takes effect.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] with the reason when a step would not count.
    pub fn bring_shares(
        &self,
        session: &Session,
        file: &ShareFile,
        now: UnixMillis,
    ) -> Result<Brought> {
        self.may(session, policy::Action::Rotate, &purpose("security"))?;
        let mut steps = file.steps()?;
        let all = steps.len();
        {
            let _one = lock(&self.ceremony);
            for step in &steps {
                self.weigh_step(step, now)?;
            }
            steps.retain(|step| !self.knows_step(step));
            let taken = steps.iter().cloned();
            let statements: Vec<_> = taken.map(|step| Statement::Share(Box::new(step))).collect();
            if !statements.is_empty() {
                let signer = session.signer(purpose("security"), None);
                self.state(statements, &signer, now)?;
            }
        }
        self.tend_shares(now)?;
        Ok(Brought {
            taken: steps.len(),
            known: all - steps.len(),
        })
    }

    fn knows_step(&self, step: &ShareStep) -> bool {
        let authority = self.authority();
        let shares = authority.shares();
        match step {
            ShareStep::Ready(key) => shares
                .keys(&key.organization, &key.operator, &key.division)
                .any(|known| known == key),
            ShareStep::Dealt(dealt) => shares.dealt_to(&dealt.organization).contains(&dealt),
            ShareStep::Confirmed(word) => shares.words(&word.division).any(|known| known == word),
        }
    }

    fn weigh_step(&self, step: &ShareStep, now: UnixMillis) -> Result<()> {
        let own = &self.config.division;
        match step {
            ShareStep::Ready(key) => {
                if key.division != *own || key.organization == *own {
                    return Err(bad(
                        "这把钥是为另一节点备的 / the key was made for a share of another node; carry it there",
                    ));
                }
                let authority = self.authority();
                let (organization, operator) = (&key.organization, &key.operator);
                let officer = authority.share_holder(own, organization, operator, now)?;
                match key.is_signed_by(&officer.key) {
                    true => Ok(()),
                    false => Err(NoWord::BadSignature.into()),
                }
            }
            ShareStep::Dealt(dealt) => self.check_dealt(dealt, now),
            ShareStep::Confirmed(word) => {
                let ceremony = self.ceremony_under_way()?;
                Ok(self.weigh_word(&ceremony, word, now)?)
            }
        }
    }
}
