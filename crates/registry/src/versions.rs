//! Versions (版本): which schemas, policies and program a node runs, stated in its own authority
//! ledger whenever one of them changed, and so known wherever that ledger is held.
//!
//! Schemas and policies are those that the program carries, or that the realm published
//! ([`crate::published`]). What a node was given and does not run it states, too.

use std::cmp::Ordering;

use record::authority::{InForce, Statement};
use record::id::{DivisionId, Hash, UnixMillis};
use record::published::Declined;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::authority::Authority;
use crate::error::Result;
use crate::node::{Registry, lock, purpose, word};

/// What a node states of itself.
const STATED: [&str; 3] = ["schemas", "policies", "program"];

/// How a version at another node compares with the one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compared {
    /// The same.
    Same,
    /// One that this node ran before.
    Older,
    /// A later program, or a later published version.
    Newer,
    /// One that this node never ran.
    Different,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// `schemas`, `policies` or `program`.
    pub what: String,
    /// The program's version, `major.minor.patch`; of the others the published one, 1 for what the
    /// program carries.
    pub version: String,
    /// The first 16 hexadecimal digits of the hash.
    pub hash: String,
    /// Beside the one of the node that tells.
    pub compared: Compared,
    /// A later version that the node holds and does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declined: Option<DeclinedVersion>,
}

/// A published version that a node does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclinedVersion {
    /// Which.
    pub version: u32,
    /// Why, a code such as `program-too-old`.
    pub reason: String,
}

/// The program's version as a number that is ordered as versions are.
pub(crate) fn program_number(text: &str) -> u32 {
    let mut parts = text
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().unwrap_or(0).min(999));
    let mut next = || parts.next().unwrap_or(0);
    next() * 1_000_000 + next() * 1000 + next()
}

fn shown(version: &InForce) -> String {
    let number = version.version;
    if version.what.as_str() == "program" {
        let (major, rest) = (number / 1_000_000, number % 1_000_000);
        format!("{major}.{}.{}", rest / 1000, rest % 1000)
    } else {
        number.to_string()
    }
}

/// The statement of this program.
pub(crate) fn program() -> InForce {
    let version = env!("CARGO_PKG_VERSION");
    InForce {
        what: word("program"),
        version: program_number(version),
        hash: Sha256::digest(version).into(),
    }
}

fn compare(theirs: &InForce, own: &[InForce]) -> Compared {
    let Some(newest) = own.last() else {
        return Compared::Different;
    };
    if theirs.hash == newest.hash {
        return Compared::Same;
    }
    if theirs.what.as_str() == "program" {
        return match theirs.version.cmp(&newest.version) {
            Ordering::Less => Compared::Older,
            Ordering::Greater => Compared::Newer,
            Ordering::Equal => Compared::Different,
        };
    }
    if own.iter().any(|before| before.hash == theirs.hash) {
        return Compared::Older;
    }
    match theirs.version.cmp(&newest.version) {
        Ordering::Less => Compared::Older,
        Ordering::Greater => Compared::Newer,
        Ordering::Equal => Compared::Different,
    }
}

/// The newest versions that a division stated, beside those of another.
pub(crate) fn versions(authority: &Authority, of: &DivisionId, here: &DivisionId) -> Vec<Version> {
    let versions = STATED.into_iter().filter_map(|what| {
        let theirs = authority.in_force(of, what).last()?;
        let declined = authority.declined(of, what);
        let later = |declined: &&Declined| declined.version > theirs.version;
        let declined = declined.into_iter().filter(later).max_by_key(|d| d.version);
        Some(Version {
            declined: declined.map(|declined| DeclinedVersion {
                version: declined.version,
                reason: declined.reason.to_string(),
            }),
            what: what.to_owned(),
            version: shown(theirs),
            hash: data_encoding::HEXLOWER.encode(&theirs.hash[..8]),
            compared: compare(theirs, authority.in_force(here, what)),
        })
    });
    versions.collect()
}

impl Registry {
    /// States what changed since it was stated last; a ledger that is not signed now waits.
    pub(crate) fn state_versions(&self, now: UnixMillis) -> Result<()> {
        let origin = self.own("authority");
        if self.guard.is_halted(&origin) || lock(&*self.book(&origin)?).size() == 0 {
            return Ok(());
        }
        let running = self.published.running();
        let changed: Vec<Statement> = {
            let authority = self.authority();
            let known = |what: &str| {
                let stated = authority.in_force(&self.config.division, what);
                stated.last().map(|last| (last.version, last.hash))
            };
            let counted = |what: &'static str, hash: Hash| {
                let version = running.version(what);
                let stated = InForce {
                    what: word(what),
                    version,
                    hash,
                };
                (known(what) != Some((version, hash))).then_some(stated)
            };
            let program = program();
            let same = known("program").is_some_and(|(_, hash)| hash == program.hash);
            [
                counted("schemas", running.catalogue.hash()),
                counted("policies", running.policies.hash()),
                (!same).then_some(program),
            ]
            .into_iter()
            .flatten()
            .map(Statement::InForce)
            .chain(
                running
                    .declined
                    .iter()
                    .filter(|declined| {
                        let stated =
                            authority.declined(&self.config.division, declined.what.line());
                        !stated.contains(declined)
                    })
                    .map(|declined| Statement::Declined(declined.clone())),
            )
            .collect()
        };
        if !changed.is_empty() {
            self.state(changed, &self.service(purpose("administration")), now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(what: &'static str, version: u32, hash: u8) -> InForce {
        InForce {
            what: word(what),
            version,
            hash: [hash; 32],
        }
    }

    #[test]
    fn a_version_is_the_same_older_newer_or_different() {
        let own = [stated("schemas", 1, 1), stated("schemas", 2, 2)];
        assert_eq!(compare(&stated("schemas", 7, 2), &own), Compared::Same);
        assert_eq!(compare(&stated("schemas", 7, 1), &own), Compared::Older);
        assert_eq!(compare(&stated("schemas", 7, 3), &own), Compared::Newer);
        assert_eq!(compare(&stated("schemas", 2, 3), &own), Compared::Different);
        let own = [stated("program", program_number("0.2.0"), 1)];
        let theirs = |text, hash| stated("program", program_number(text), hash);
        assert_eq!(compare(&theirs("0.1.9", 2), &own), Compared::Older);
        assert_eq!(compare(&theirs("0.10.0", 2), &own), Compared::Newer);
        assert_eq!(compare(&theirs("0.2.0", 2), &own), Compared::Different);
    }

    #[test]
    fn a_program_version_is_shown_as_it_was_written() {
        assert_eq!(
            shown(&stated("program", program_number("12.3.45"), 0)),
            "12.3.45"
        );
        assert_eq!(shown(&program()), env!("CARGO_PKG_VERSION"));
    }
}
