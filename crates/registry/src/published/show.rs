//! What is published, what of it is in force here, and what the nodes below say they run.

use record::id::{DivisionId, Hash, UnixMillis};
use record::published::{PublishedSet, SetFile, What};
use serde::Serialize;

use super::{held, realm_root};
use crate::error::Result;
use crate::node::Registry;
use crate::versions::{Version, versions};

/// A set as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetLine {
    /// What.
    pub what: What,
    /// Its version.
    pub version: u32,
    /// Its hash, hexadecimal.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    /// The version of the program that published it.
    pub program: String,
    /// The names of its files.
    pub files: Vec<String>,
    /// The fields that it makes less sensitive.
    pub lowers: Vec<String>,
}

/// Where a set stands at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetState {
    /// It is run here; of schemas, together with those before it.
    InForce,
    /// A later set of policies took its place.
    Replaced,
    /// It is not run here; the reason stands beside.
    Declined,
}

/// A published set, and what became of it here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedLine {
    /// What.
    pub what: What,
    /// Its version.
    pub version: u32,
    /// Its hash, hexadecimal.
    pub hash: String,
    /// The plan that it was approved under, hexadecimal.
    pub plan: String,
    /// Where it stands here.
    pub state: SetState,
    /// Why it is not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The set, when it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<SetLine>,
}

/// What a node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// Which node.
    pub division: DivisionId,
    /// What it stated last.
    pub versions: Vec<Version>,
}

/// What is published in the realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedStatus {
    /// Who publishes.
    pub root: DivisionId,
    /// By this node's clock.
    pub at: UnixMillis,
    /// The sets, in the order in which they were published.
    pub sets: Vec<PublishedLine>,
    /// What this node and those below it run, as their ledgers state.
    pub nodes: Vec<Runs>,
}

fn hex(hash: &Hash) -> String {
    data_encoding::HEXLOWER.encode(hash)
}

/// A set as listed.
pub(super) fn shown(set: &PublishedSet) -> SetLine {
    SetLine {
        what: set.what,
        version: set.version,
        hash: hex(&set.hash()),
        bytes: set.encode().len() as u64,
        program: set.program.clone(),
        files: set.files.iter().map(|file| file.name.clone()).collect(),
        lowers: set.lowers.clone(),
    }
}

impl Registry {
    /// What is published, what of it is in force here, and what the nodes below run.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn published_status(&self, now: UnixMillis) -> Result<PublishedStatus> {
        let root = realm_root(&self.config)?;
        let running = self.published.running();
        let authority = self.authority();
        let (good, bad) = held(self.store.as_ref(), &authority, &root)?;
        let line = |published: &record::published::Published, set: Option<&PublishedSet>| {
            let declined = running
                .declined
                .iter()
                .find(|d| d.hash == published.hash && d.version == published.version);
            let newest = running.version(published.what.line());
            let whole = published.what == What::Policies;
            PublishedLine {
                what: published.what,
                version: published.version,
                hash: hex(&published.hash),
                plan: hex(&published.plan),
                state: match declined {
                    Some(_) => SetState::Declined,
                    None if whole && published.version < newest => SetState::Replaced,
                    None => SetState::InForce,
                },
                reason: declined.map(|declined| declined.reason.to_string()),
                set: set.map(shown),
            }
        };
        let mut sets: Vec<PublishedLine> = good
            .iter()
            .map(|held| line(&held.published, held.set.as_ref()))
            .collect();
        sets.extend(bad.iter().map(|(_, published)| line(published, None)));
        let own = &self.config.division;
        let nodes = authority
            .charters()
            .filter(|c| authority.within(&c.division, own) && !authority.revoked(&c.id()))
            .map(|c| Runs {
                division: c.division.clone(),
                versions: versions(&authority, &c.division, own),
            })
            .collect();
        Ok(PublishedStatus {
            root,
            at: now,
            sets,
            nodes,
        })
    }

    /// The purposes that readings, acts and grants may name here.
    pub fn purposes(&self) -> &'static [policy::PurposeCode] {
        self.policies().purposes()
    }

    /// The sets of schemas and code lists that are in force here, in their order: with them anybody
    /// who has the program makes the same catalogue.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn published_catalogue(&self) -> Result<Vec<PublishedSet>> {
        let root = realm_root(&self.config)?;
        let newest = self.published.version("schemas");
        let authority = self.authority();
        let (good, _) = held(self.store.as_ref(), &authority, &root)?;
        Ok(good
            .into_iter()
            .filter_map(|held| held.set)
            .filter(|set| set.what.line() == "schemas" && set.version <= newest)
            .collect())
    }

    /// The files of what is in force, to begin a change from. Of a list that a realm published, as
    /// it was published; schemas in their newest versions.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn published_files(&self, what: What) -> Result<Vec<SetFile>> {
        let file = |name: String, text: String| SetFile { name, text };
        let mut files: Vec<SetFile> = match what {
            What::Policies => {
                let root = realm_root(&self.config)?;
                let newest = self.published.version("policies");
                let authority = self.authority();
                let (good, _) = held(self.store.as_ref(), &authority, &root)?;
                let set = good
                    .into_iter()
                    .filter_map(|held| held.set)
                    .find(|set| set.what == What::Policies && set.version == newest);
                match set {
                    Some(set) => set.files,
                    None => policy::set::BUILTIN
                        .iter()
                        .map(|(name, text)| file((*name).to_owned(), (*text).to_owned()))
                        .collect(),
                }
            }
            What::Schemas => self
                .catalogue()
                .kinds()
                .into_iter()
                .map(|schema| {
                    let text = serde_json::to_string_pretty(schema).unwrap_or_default();
                    file(format!("{}.json", schema.kind), text + "\n")
                })
                .collect(),
            What::Codes => self
                .catalogue()
                .list_files()
                .into_iter()
                .map(|(name, text)| file(format!("{name}.csv"), text))
                .collect(),
        };
        files.sort();
        Ok(files)
    }
}
