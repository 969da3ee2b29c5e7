//! Published sets (发布): the policies, schemas and code lists of a realm, given downward by its
//! root, and which of them this node runs.
//!
//! Owns what is in force here, and that it changes without a restart. The truth is the root's
//! authority ledger, which every node holds: what is in force is computed from it, so that two nodes
//! with one history and one program run the same. Refuses a set that two officers of the root did
//! not approve, one that is not newer than every set before it, and one that this program cannot
//! work with: then it says so in its own authority ledger and goes on with what it has.

mod adopt;
mod held;
pub mod plan;
pub mod show;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};

use policy::PolicySet;
use record::id::{DivisionId, Hash};
use record::published::{BUILTIN, Declined, Published, PublishedSet};
use record::schema::Catalogue;
use store::Store;

use crate::authority::Authority;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::node::word;
use crate::table;
use crate::versions::program_number;

/// The stack that parsing policies may take: as deep as their files may nest.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// What is in force here.
pub(crate) struct InUse {
    running: RwLock<Running>,
    /// Held while another set is adopted.
    adopting: Mutex<()>,
}

/// One state of what is in force.
#[derive(Clone)]
pub(crate) struct Running {
    pub catalogue: &'static Catalogue,
    pub policies: &'static PolicySet,
    /// The version that each line is at.
    pub versions: BTreeMap<&'static str, u32>,
    /// What is published and not run here.
    pub declined: Vec<Declined>,
    /// The set that the policies are of; none of the program's own.
    policy_set: Option<Hash>,
}

impl InUse {
    /// What a store says is in force.
    pub fn open(store: &dyn Store, authority: &Authority, config: &NodeConfig) -> Result<Self> {
        let policies = PolicySet::builtin().map_err(|e| RegistryError::Directory(e.to_string()))?;
        let builtin = Running {
            catalogue: Catalogue::builtin(),
            policies,
            versions: BTreeMap::new(),
            declined: Vec::new(),
            policy_set: None,
        };
        let root = realm_root(config)?;
        let running = builtin.after(store, authority, &root)?;
        Ok(Self {
            running: RwLock::new(running),
            adopting: Mutex::new(()),
        })
    }

    pub fn running(&self) -> Running {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn catalogue(&self) -> &'static Catalogue {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .catalogue
    }

    pub fn policies(&self) -> &'static PolicySet {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .policies
    }

    /// The version that a line is at: 1 is what the program carries.
    pub fn version(&self, line: &'static str) -> u32 {
        self.running().version(line)
    }

    pub(crate) fn replace(&self, running: Running) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

/// The division at the top of the realm. A node without a charter, which every peer refuses,
/// follows nobody but itself.
pub(crate) fn realm_root(config: &NodeConfig) -> Result<DivisionId> {
    let chain = config.charters()?;
    let root = chain.last().map_or(&config.division, |root| &root.division);
    Ok(root.clone())
}

/// The entries of the realm root's ledger that publish a set which two officers did not approve.
pub(crate) fn unapproved(
    authority: &Authority,
    config: &NodeConfig,
) -> Result<Vec<(record::id::Origin, u64)>> {
    let root = realm_root(config)?;
    let Some(ledger) = authority_of(authority, &root) else {
        return Ok(Vec::new());
    };
    Ok(authority
        .published(&root)
        .filter(|(size, published)| !authority.is_published(&root, *size, published))
        .map(|(size, _)| (ledger.clone(), size - 1))
        .collect())
}

/// A set as it was published, approved and held here.
struct Held {
    published: Published,
    set: Option<PublishedSet>,
}

/// A set that does not count, with the size of the ledger with it.
type Discounted = (u64, Published);

/// The sets that count, in the order of the root's ledger: approved by two, each newer than every
/// one before it in its line. And those that do not.
fn held(
    store: &dyn Store,
    authority: &Authority,
    root: &DivisionId,
) -> Result<(Vec<Held>, Vec<Discounted>)> {
    let Some(ledger) = authority_of(authority, root) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut newest: BTreeMap<&'static str, u32> = BTreeMap::new();
    for (size, published) in authority.published(root) {
        let line = published.what.line();
        let before = newest.get(line).copied().unwrap_or(BUILTIN);
        if published.version <= before || !authority.is_published(root, size, published) {
            bad.push((size, published.clone()));
            continue;
        }
        newest.insert(line, published.version);
        let body = store.get(&table::body(&ledger, size.saturating_sub(1)))?;
        let set = body.and_then(|body| PublishedSet::decode(&body).ok());
        good.push(Held {
            published: published.clone(),
            set: set.filter(|set| {
                set.what == published.what
                    && set.version == published.version
                    && set.hash() == published.hash
            }),
        });
    }
    Ok((good, bad))
}

fn authority_of(authority: &Authority, division: &DivisionId) -> Option<record::id::Origin> {
    let charter = authority.charter(division)?;
    Some(record::id::Origin::new(
        &charter.realm,
        division,
        &word("authority"),
    ))
}

fn decline(published: &Published, reason: &'static str) -> Declined {
    Declined {
        what: published.what,
        version: published.version,
        hash: published.hash,
        reason: word(reason),
    }
}

/// Why this program does not run a set that it cannot work with.
fn reason(set: &PublishedSet) -> &'static str {
    if program_number(&set.program) > program_number(env!("CARGO_PKG_VERSION")) {
        "program-too-old"
    } else {
        "unusable"
    }
}

impl Running {
    pub fn version(&self, line: &str) -> u32 {
        self.versions.get(line).copied().unwrap_or(BUILTIN)
    }

    /// What is in force according to the root's ledger. Schemas and lists are adopted in their
    /// order and none is skipped; of policies the newest that this program can work with.
    ///
    /// Catalogue and policies stay in memory for the life of the process, also after they were
    /// replaced: whoever works with them needs no lock, and a realm publishes some times a year.
    fn after(&self, store: &dyn Store, authority: &Authority, root: &DivisionId) -> Result<Self> {
        let (good, bad) = held(store, authority, root)?;
        let builtin = PolicySet::builtin().map_err(|e| RegistryError::Directory(e.to_string()))?;
        let mut next = Self {
            catalogue: self.catalogue,
            policies: builtin,
            versions: BTreeMap::new(),
            declined: bad.iter().map(|(_, p)| decline(p, "forged")).collect(),
            policy_set: None,
        };
        let mut catalogue = Catalogue::builtin().clone();
        let mut stopped = false;
        for held in &good {
            let published = &held.published;
            if published.what.line() != "schemas" {
                continue;
            }
            let adopted = match &held.set {
                _ if stopped => Err("follows-declined"),
                None => Err("unreadable"),
                Some(set) => catalogue.with_published(set).map_err(|_| reason(set)),
            };
            match adopted {
                Ok(adopted) => {
                    catalogue = adopted;
                    next.versions.insert("schemas", published.version);
                }
                Err(reason) => {
                    stopped = true;
                    next.declined.push(decline(published, reason));
                }
            }
        }
        if catalogue.hash() != self.catalogue.hash() {
            next.catalogue = Box::leak(Box::new(catalogue));
        }
        for held in good.iter().rev() {
            let published = &held.published;
            if published.what.line() != "policies" {
                continue;
            }
            let parsed = match &held.set {
                None => Err("unreadable"),
                Some(_) if self.policy_set == Some(published.hash) => Ok(self.policies),
                Some(set) => parse_policies(set)
                    .map(|set| &*Box::leak(Box::new(set)))
                    .map_err(|_| reason(set)),
            };
            match parsed {
                Ok(policies) => {
                    next.policies = policies;
                    next.policy_set = Some(published.hash);
                    next.versions.insert("policies", published.version);
                    break;
                }
                Err(reason) => next.declined.push(decline(published, reason)),
            }
        }
        Ok(next)
    }

    fn is(&self, other: &Self) -> bool {
        self.catalogue.hash() == other.catalogue.hash()
            && self.policies.hash() == other.policies.hash()
            && self.versions == other.versions
            && self.declined == other.declined
    }
}

/// Parses the policies of a set, in a thread whose stack is as deep as they may nest.
fn parse_policies(set: &PublishedSet) -> std::result::Result<PolicySet, String> {
    let files: Vec<(&str, &str)> = set
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.text.as_str()))
        .collect();
    let parse = || PolicySet::published(&files).map_err(|e| e.to_string());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(PARSER_STACK_BYTES)
            .spawn_scoped(scope, parse)
            .map_err(|e| format!("no thread could be started: {e}; try again"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err("the policies could not be parsed; correct the rules".into()))
    })
}
