//! Publishing at the realm's root: a set is checked, what it newly shows is computed, a plan is made,
//! another officer approves, and it is stated with the set as the entry's body.
//!
//! Owns the sets that wait for approval. Refuses a set at any other node, one that breaks a rule,
//! and one whose version was taken while it waited: whoever approved it had seen another change.

use policy::census::{Census, Member, Side};
use policy::{Action, PolicySet};
use record::authority::Statement;
use record::id::{Hash, UnixMillis};
use record::plan::{Figure, Work};
use record::published::{FORMAT, Published, PublishedSet, SET_BYTES_MAX, SetFile, What};
use record::schema::{Catalogue, Schema};
use serde::{Deserialize, Serialize};
use store::Batch;

use super::show::{SetLine, shown};
use super::{parse_policies, realm_root};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, purpose};
use crate::plan::list::{PlanLine, PlanState};
use crate::plan::request::figure;
use crate::plan::{NotApproved, Warrant};
use crate::session::Session;
use crate::table::{self, LOCAL};

/// The most sets that wait for approval at a time.
const WAITING_MAX: usize = 16;

/// What a security officer of the realm's root wants to publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// What.
    pub what: What,
    /// The files; those that are in force as they are may be among them.
    pub files: Vec<SetFile>,
    /// The fields, as `kind.field`, that become less sensitive.
    #[serde(default)]
    pub lowers: Vec<String>,
    /// Only shown, not planned.
    #[serde(default)]
    pub dry_run: bool,
}

/// A set that is to be published, as whoever approves it is shown it.
#[derive(Debug, Clone, Serialize)]
pub struct Proposed {
    /// The plan; absent when it is only shown.
    pub plan: Option<PlanLine>,
    /// The set.
    pub set: SetLine,
    /// The files and their texts.
    pub files: Vec<SetFile>,
    /// What it newly shows.
    pub opened: Census,
    /// What it no longer shows.
    pub closed: Census,
}

fn bad(words: impl Into<String>) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

/// What would be in force.
enum Candidate {
    Policies(Box<PolicySet>),
    Catalogue(Box<Catalogue>),
}

impl Registry {
    /// Checks a set, shows what it changes, and makes the plan of it.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::BadRequest`] with the rule that the set
    /// breaks, [`RegistryError::Underway`] while another plan for the same is open.
    pub fn publish_plan(
        &self,
        session: &Session,
        request: &PublishRequest,
        now: UnixMillis,
    ) -> Result<Proposed> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        let root = realm_root(&self.config)?;
        if root != self.config.division {
            return Err(bad(format!(
                "只有辖域根节点 `{root}` 发布 / only the realm's root `{root}` publishes; give the files to its security officers"
            )));
        }
        // Held to the end: of two made at once for the same thing, one is refused.
        let _one = lock(&self.planning);
        let set = self.set_of(request)?;
        let proposed = self.proposed(&set)?;
        if request.dry_run {
            return Ok(proposed);
        }
        let hash = set.hash();
        let work = Work::Publish {
            what: set.what,
            version: set.version,
            hash,
        };
        self.refuse_second(&work, now)?;
        self.drop_unplanned(now)?;
        // Kept first: a plan whose set is lost could not be run.
        self.keep_local(table::PUBLISHED, &hash, set.encode())?;
        let plan = self.state_plan(session, work, figures(&set, &proposed), now)?;
        Ok(Proposed {
            plan: Some(self.plan_line(&plan.id(), now)?),
            ..proposed
        })
    }

    /// The set of a plan, and what it newly shows.
    ///
    /// # Errors
    /// [`RegistryError::NotApproved`] when there is no such plan of this node, or it is over.
    pub fn publish_shown(&self, id: &Hash, now: UnixMillis) -> Result<Proposed> {
        let plan = self.plan_line(id, now)?;
        let Work::Publish { hash, .. } = &plan.work else {
            return Err(NotApproved::Unknown.into());
        };
        let set = self.waiting(hash)?.ok_or(NotApproved::Closed)?;
        Ok(Proposed {
            plan: Some(plan),
            ..self.proposed(&set)?
        })
    }

    /// Publishes the set of an approved plan, and adopts it here.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when another set of this line was published since.
    pub(crate) fn publish_set(
        &self,
        session: &Session,
        warrant: &Warrant,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(Work::Publish {
            what,
            version,
            hash,
        }) = warrant.work()
        else {
            return Err(NotApproved::Unknown.into());
        };
        let plan = warrant.plan();
        let own = self.config.division.clone();
        let done = self
            .authority()
            .published(&own)
            .any(|(_, p)| p.plan == plan);
        if !done {
            let set = self.waiting(hash)?.ok_or_else(|| {
                bad("待发布的文件不在此处，请重作方案 / the set of this plan is not here; make the plan again")
            })?;
            if *version != self.next_version(*what) {
                return Err(bad(
                    "此后已有新的发布，请重作方案 / another set was published since; make the plan again from what is in force",
                ));
            }
            self.candidate(&set)?;
            let published = Published {
                what: *what,
                version: *version,
                hash: *hash,
                plan,
            };
            let signer = session.signer(purpose("security"), None);
            let stated = (Statement::Published(published), Some(set.encode()));
            self.state_with(vec![stated], &signer, now)?;
        }
        self.adopt_published(now)?;
        self.forget_waiting(hash)
    }

    /// The version after the newest that was published, whether it is run here or not.
    fn next_version(&self, what: What) -> u32 {
        let authority = self.authority();
        let of = authority.published(&self.config.division);
        let newest = of
            .filter(|(_, published)| published.what.line() == what.line())
            .map(|(_, published)| published.version)
            .max();
        newest
            .unwrap_or(record::published::BUILTIN)
            .saturating_add(1)
    }

    /// The set that a request means: its files in order, without those that are in force already.
    fn set_of(&self, request: &PublishRequest) -> Result<PublishedSet> {
        let mut files = request.files.clone();
        files.sort();
        if request.what != What::Policies {
            let catalogue = self.catalogue();
            files.retain(|file| !is_in_force(catalogue, file));
        }
        if files.is_empty() {
            return Err(bad(
                "没有新内容 / nothing in these files is not in force already; change a file, or give another folder",
            ));
        }
        let mut lowers = request.lowers.clone();
        lowers.sort();
        lowers.dedup();
        let set = PublishedSet {
            format: FORMAT,
            what: request.what,
            version: self.next_version(request.what),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            files,
            lowers,
        };
        if !set.is_well_formed() || set.encode().len() > SET_BYTES_MAX {
            return Err(bad(format!(
                "文件过多、过大或文件名不合规 / too many or too large files, or names with other signs than a-z, 0-9, `-`, `_` and `.`; at most {SET_BYTES_MAX} bytes in all"
            )));
        }
        Ok(set)
    }

    fn candidate(&self, set: &PublishedSet) -> Result<Candidate> {
        let broken = |why: String| bad(format!("不能发布 / this cannot be published: {why}"));
        match set.what {
            What::Policies => parse_policies(set)
                .map(|set| Candidate::Policies(Box::new(set)))
                .map_err(broken),
            What::Schemas | What::Codes => self
                .catalogue()
                .with_published(set)
                .map(|catalogue| Candidate::Catalogue(Box::new(catalogue)))
                .map_err(|e| broken(e.to_string())),
        }
    }

    fn proposed(&self, set: &PublishedSet) -> Result<Proposed> {
        let before = Side {
            set: self.policies(),
            catalogue: self.catalogue(),
        };
        let candidate = self.candidate(set)?;
        let after = match &candidate {
            Candidate::Policies(set) => Side { set, ..before },
            Candidate::Catalogue(catalogue) => Side {
                catalogue,
                ..before
            },
        };
        if after.set.hash() == before.set.hash()
            && after.catalogue.hash() == before.catalogue.hash()
        {
            return Err(bad(
                "没有新内容 / nothing in these files is not in force already; change a file, or give another folder",
            ));
        }
        let members = self.members();
        let mut closed = policy::census::opened(after, before, &members);
        for line in &mut closed.lines {
            // Asked the other way round.
            std::mem::swap(&mut line.before, &mut line.after);
        }
        Ok(Proposed {
            plan: None,
            set: shown(set),
            files: set.files.clone(),
            opened: policy::census::opened(before, after, &members),
            closed,
        })
    }

    /// Every division and organization of the realm that has a charter.
    fn members(&self) -> Vec<Member> {
        let authority = self.authority();
        let level =
            |division: &record::id::DivisionId| authority.charter(division).map(|c| c.level);
        authority
            .charters()
            .filter(|charter| !authority.revoked(&charter.id()))
            .map(|charter| Member {
                division: charter.division.clone(),
                level: charter.level,
                above: authority
                    .ancestors(&charter.division)
                    .into_iter()
                    .filter_map(|above| level(&above).map(|level| (above, level)))
                    .collect(),
            })
            .collect()
    }

    fn waiting(&self, hash: &Hash) -> Result<Option<PublishedSet>> {
        let bytes = self.store.get(&table::local(table::PUBLISHED, hash))?;
        bytes
            .map(|bytes| {
                PublishedSet::decode(&bytes).map_err(|e| RegistryError::damaged(e.to_string()))
            })
            .transpose()
    }

    fn forget_waiting(&self, hash: &Hash) -> Result<()> {
        let mut batch = Batch::new(LOCAL, None);
        batch.delete(table::local(table::PUBLISHED, hash));
        self.store
            .commit(&batch)
            .map_err(|e| RegistryError::Store(e.to_string()))?;
        Ok(())
    }

    /// Drops the sets whose plans are over.
    fn drop_unplanned(&self, now: UnixMillis) -> Result<()> {
        let open: Vec<Hash> = self
            .plans(now)
            .into_iter()
            .filter(|plan| {
                matches!(plan.state, PlanState::Waiting { .. } | PlanState::Approved)
                    && plan.division == self.config.division
            })
            .filter_map(|plan| match plan.work {
                Work::Publish { hash, .. } => Some(hash),
                _ => None,
            })
            .collect();
        for (rest, _) in self.store.scan(LOCAL, table::PUBLISHED, b"", WAITING_MAX)? {
            if let Ok(hash) = Hash::try_from(rest.as_slice())
                && !open.contains(&hash)
            {
                self.forget_waiting(&hash)?;
            }
        }
        Ok(())
    }
}

/// Whether a file of schemas or codes says what is in force.
fn is_in_force(catalogue: &Catalogue, file: &SetFile) -> bool {
    match file.name.rsplit_once('.') {
        Some((_, "json")) => serde_json::from_str::<Schema>(&file.text)
            .is_ok_and(|schema| catalogue.version(&schema.kind, schema.version) == Some(&schema)),
        Some((list, "csv")) => catalogue
            .extended(&[], &[(list, &file.text)])
            .is_ok_and(|same| same.hash() == catalogue.hash()),
        _ => false,
    }
}

fn figures(set: &PublishedSet, proposed: &Proposed) -> Vec<Figure> {
    let opened = &proposed.opened;
    vec![
        figure("files", set.files.len() as u64),
        figure("bytes", proposed.set.bytes),
        figure("opened-fields", opened.fields as u64),
        figure("opened-to", opened.organizations as u64),
        figure("opened-of", opened.divisions as u64),
        figure("closed-fields", proposed.closed.fields as u64),
        figure("lowered-fields", set.lowers.len() as u64),
    ]
}
