//! Published sets (发布): policies, schemas and code lists that a realm's root gives to every node.
//!
//! Owns the bytes of a set and the statements about it: that two officers published it, and that a
//! node did not adopt it. A set is the body of the entry that states it, so it goes wherever the
//! root's authority ledger goes. Refuses files without bound; what the files say is judged by
//! whoever reads them: [`Catalogue::with_published`](crate::schema::Catalogue::with_published) and
//! the policy engine.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cbor::{self, CborError};
use crate::id::{Hash, IdError, Kind};

/// The version of a set's bytes.
pub const FORMAT: u8 = 1;
/// The largest set in bytes; below what replication carries as one body.
pub const SET_BYTES_MAX: usize = 512 * 1024;
/// The most files of a set.
pub const FILES_MAX: usize = 128;
/// The longest name of a file.
pub const FILE_NAME_MAX: usize = 64;
/// The most fields that one set may make less sensitive.
pub const LOWERS_MAX: usize = 64;
/// The version of what the program carries; the first published one is the next.
pub const BUILTIN: u32 = 1;

/// What is published.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum What {
    /// Cedar rules, their schema and the purposes: a whole set.
    #[n(1)]
    Policies,
    /// Further versions of schemas, and code lists that they need.
    #[n(2)]
    Schemas,
    /// Code lists alone.
    #[n(3)]
    Codes,
}

impl What {
    /// The word on the command line and in statements.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Policies => "policies",
            What::Schemas => "schemas",
            What::Codes => "codes",
        }
    }

    /// The word under which a node states which version it runs. Schemas and code lists are one
    /// catalogue and are counted together, because a schema names its lists.
    pub fn line(self) -> &'static str {
        match self {
            What::Policies => "policies",
            What::Schemas | What::Codes => "schemas",
        }
    }
}

impl std::str::FromStr for What {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [What::Policies, What::Schemas, What::Codes]
            .into_iter()
            .find(|what| what.as_str() == text)
            .ok_or(IdError {
                what: "published set",
                rule: "use policies, schemas or codes",
            })
    }
}

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct SetFile {
    /// Its name: lower-case letters, digits, `-`, `_` and `.`.
    #[n(0)]
    pub name: String,
    /// What it says.
    #[n(1)]
    pub text: String,
}

/// A set of files, as it is hashed and replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct PublishedSet {
    /// The version of these bytes.
    #[n(0)]
    pub format: u8,
    /// What it is.
    #[n(1)]
    pub what: What,
    /// Its version, from 2; schemas and codes are counted together.
    #[n(2)]
    pub version: u32,
    /// The version of the program that published it: an older one may not understand it.
    #[n(3)]
    pub program: String,
    /// The files, by ascending name.
    #[n(4)]
    pub files: Vec<SetFile>,
    /// The fields, as `kind.field`, that the set makes less sensitive, ascending: what is not
    /// named here is not lowered.
    #[n(5)]
    pub lowers: Vec<String>,
}

impl PublishedSet {
    /// The canonical bytes: the body of the entry that publishes it.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// SHA-256 of the canonical bytes.
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.encode()).into()
    }

    /// Reads a set.
    ///
    /// # Errors
    /// [`CborError`] when it is too long, malformed, unordered, or beyond a bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let set: Self = cbor::from_slice("published set", bytes, SET_BYTES_MAX)?;
        if set.is_well_formed() {
            Ok(set)
        } else {
            Err(CborError::Malformed {
                what: "published set",
            })
        }
    }

    /// Whether it keeps the bounds and the order that [`Self::decode`] asks for.
    pub fn is_well_formed(&self) -> bool {
        let plain = |text: &str, more: &[u8]| {
            text.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b))
        };
        let names = self.files.iter().map(|file| file.name.as_str());
        self.format == FORMAT
            && self.version > BUILTIN
            && self.program.len() <= 20
            && self.program.split('.').count() == 3
            && self
                .program
                .split('.')
                .all(|part| part.parse::<u16>().is_ok())
            && (1..=FILES_MAX).contains(&self.files.len())
            && names.clone().is_sorted_by(|a, b| a < b)
            && names.clone().all(|name| {
                (1..=FILE_NAME_MAX).contains(&name.len())
                    && !name.starts_with('.')
                    && plain(name, b"-_.")
            })
            && self.lowers.len() <= LOWERS_MAX
            && self.lowers.is_sorted_by(|a, b| a < b)
            && self.lowers.iter().all(|field| {
                (3..=FILE_NAME_MAX + 41).contains(&field.len()) && plain(field, b"-_.")
            })
    }
}

/// The realm's root published a set; the set is this entry's body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Published {
    /// What.
    #[n(0)]
    pub what: What,
    /// Its version.
    #[n(1)]
    pub version: u32,
    /// SHA-256 of the set, and so of the body.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: Hash,
    /// The plan that it was approved under.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub plan: Hash,
}

/// A node holds a published set and does not run it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Declined {
    /// What.
    #[n(0)]
    pub what: What,
    /// The version that it does not run.
    #[n(1)]
    pub version: u32,
    /// SHA-256 of the set.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: Hash,
    /// Why: `program-too-old`, `unusable`, `forged` or `follows-declined`.
    #[n(3)]
    pub reason: Kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> PublishedSet {
        let file = |name: &str| SetFile {
            name: name.into(),
            text: "code,name\n1,甲\n".into(),
        };
        PublishedSet {
            format: FORMAT,
            what: What::Codes,
            version: 2,
            program: "0.1.0".into(),
            files: vec![file("a.csv"), file("b.csv")],
            lowers: vec!["person.phone".into()],
        }
    }

    #[test]
    fn a_set_reads_back_from_its_bytes_and_from_no_others() {
        let bytes = set().encode();
        assert_eq!(PublishedSet::decode(&bytes).unwrap(), set());
        for end in 0..bytes.len() {
            assert!(PublishedSet::decode(&bytes[..end]).is_err());
        }
        assert!(PublishedSet::decode(&vec![0; SET_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_set_beyond_a_bound_or_out_of_order_is_refused() {
        for change in [
            |set: &mut PublishedSet| set.format = 2,
            |set: &mut PublishedSet| set.version = 1,
            |set: &mut PublishedSet| set.program = "new".into(),
            |set: &mut PublishedSet| set.program = "1.2.3.4".into(),
            |set: &mut PublishedSet| set.files.clear(),
            |set: &mut PublishedSet| set.files.reverse(),
            |set: &mut PublishedSet| set.files[1].name = "a.csv".into(),
            |set: &mut PublishedSet| set.files[0].name = "../a.csv".into(),
            |set: &mut PublishedSet| set.files[0].name = ".a".into(),
            |set: &mut PublishedSet| set.files[0].name = "a".repeat(FILE_NAME_MAX + 1),
            |set: &mut PublishedSet| set.files = vec![set.files[0].clone(); FILES_MAX + 1],
            |set: &mut PublishedSet| set.lowers = vec!["b.c".into(), "a.c".into()],
            |set: &mut PublishedSet| set.lowers = vec!["Person.Phone".into()],
        ] {
            let mut other = set();
            change(&mut other);
            assert!(PublishedSet::decode(&other.encode()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn schemas_and_codes_are_counted_together() {
        assert_eq!(What::Codes.line(), What::Schemas.line());
        assert_ne!(What::Policies.line(), What::Schemas.line());
        assert_eq!("codes".parse::<What>().unwrap(), What::Codes);
        assert!("program".parse::<What>().is_err());
    }
}
