//! Identifiers: realm, division, ledger, record, kind, time.
//!
//! Each is parsed once at the border; a value of these types is well formed.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed; {rule}")]
pub struct IdError {
    /// Which identifier was expected.
    pub what: &'static str,
    /// The rule that it breaks, in words.
    pub rule: &'static str,
}

const SLUG_RULE: &str =
    "use 1 to 40 lower-case letters, digits or hyphens, with a letter or digit at both ends";

fn is_slug(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=40).contains(&bytes.len())
        && bytes.iter().all(|b| edge(b) || *b == b'-')
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
}

/// What every identifier kept as text shares: parsing, printing, JSON and CBOR as that text.
macro_rules! text {
    ($name:ident, $parse:path) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                $parse(d.str()?).map_err(|_| minicbor::decode::Error::message("malformed name"))
            }
        }
    };
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the identifier.
            ///
            /// # Errors
            /// [`IdError`] when the text is not a slug: 1 to 40 of `[a-z0-9-]`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                if is_slug(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { what: $what, rule: SLUG_RULE })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text!($name, $name::new);
    };
}

slug!(
    /// The realm-internal name of a division or organization (行政区划, 机构).
    ///
    /// It never changes; official codes are dated attributes beside it, because
    /// town codes collide between lists and change over the years.
    DivisionId,
    "division id"
);
slug!(
    /// A kind of record: `person`, `room`, `unit` ... (类别).
    Kind,
    "kind"
);
slug!(
    /// Why something is read or written: a code of the realm's purpose list (用途).
    Purpose,
    "purpose"
);

/// The domain of a realm (辖域), the first part of every ledger's origin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Realm(String);

impl Realm {
    /// Parses a realm: slugs joined by dots, such as `jiangjin.example`.
    ///
    /// # Errors
    /// [`IdError`] when a part is not a slug, or the whole is over 80 bytes.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.len() <= 80 && text.split('.').all(is_slug) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                what: "realm",
                rule: "use a domain name in lower case, such as `jiangjin.example`",
            })
        }
    }

    /// The realm as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text!(Realm, Realm::new);

/// The name of a ledger: `<realm>/<division>/<ledger>`,
/// `<realm>/<division>/<kind>/grant/<id>` for a grant's own ledger, or
/// `<realm>/<division>/proposals/<owner>` and `<realm>/<division>/answers/<proposer>` for what one
/// node writes to another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// The third part of a ledger of proposals.
pub const PROPOSALS: &str = "proposals";
/// The third part of a ledger of answers.
pub const ANSWERS: &str = "answers";

fn is_of_letters(ledger: &str) -> bool {
    matches!(ledger, PROPOSALS | ANSWERS)
}

impl Origin {
    /// The ledger `name` of a division; `name` is a kind, `authority` or `access`.
    pub fn new(realm: &Realm, division: &DivisionId, name: &Kind) -> Self {
        Self(format!("{realm}/{division}/{name}"))
    }

    /// The ledger of one grant on this shard.
    pub fn grant(&self, id: &GrantId) -> Self {
        Self(format!("{}/grant/{id}", self.0))
    }

    /// The ledger of what a division proposes to an owner of records.
    pub fn proposals(realm: &Realm, division: &DivisionId, owner: &DivisionId) -> Self {
        Self(format!("{realm}/{division}/{PROPOSALS}/{owner}"))
    }

    /// The ledger of what an owner of records answers to a proposer.
    pub fn answers(realm: &Realm, division: &DivisionId, proposer: &DivisionId) -> Self {
        Self(format!("{realm}/{division}/{ANSWERS}/{proposer}"))
    }

    /// Parses an origin.
    ///
    /// # Errors
    /// [`IdError`] when the text has another shape.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let error = IdError {
            what: "origin",
            rule: "expected `<realm>/<division>/<ledger>`",
        };
        if text.len() > 255 {
            return Err(error);
        }
        let parts: Vec<&str> = text.split('/').collect();
        let head_ok = parts.len() >= 3
            && Realm::new(parts[0]).is_ok()
            && is_slug(parts[1])
            && is_slug(parts[2]);
        let tail_ok = match parts.len() {
            // Letters have an addressee: without one there is no such ledger.
            3 => !is_of_letters(parts[2]),
            4 => is_of_letters(parts[2]) && is_slug(parts[3]) && parts[3] != parts[1],
            5 => {
                parts[3] == "grant"
                    && parts[4].parse::<GrantId>().is_ok()
                    && !is_of_letters(parts[2])
            }
            _ => false,
        };
        if head_ok && tail_ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(error)
        }
    }

    fn part(&self, at: usize) -> &str {
        self.0.split('/').nth(at).unwrap_or_default()
    }

    /// The realm.
    pub fn realm(&self) -> Realm {
        Realm(self.part(0).to_owned())
    }

    /// The division whose node writes this ledger.
    pub fn division(&self) -> DivisionId {
        DivisionId(self.part(1).to_owned())
    }

    /// The third part: a kind, `authority`, `access`, `recovery`, `proposals` or `answers`.
    pub fn ledger(&self) -> Kind {
        Kind(self.part(2).to_owned())
    }

    /// The grant, if this is a grant's ledger.
    pub fn grant_id(&self) -> Option<GrantId> {
        self.part(4).parse().ok()
    }

    /// The division that a ledger of letters is written to.
    pub fn addressee(&self) -> Option<DivisionId> {
        is_of_letters(self.part(2)).then(|| DivisionId(self.part(3).to_owned()))
    }

    /// Whether this is a ledger of proposals.
    pub fn is_proposals(&self) -> bool {
        self.part(2) == PROPOSALS
    }

    /// The ledger in which the addressee of this one writes back.
    pub fn counterpart(&self) -> Option<Origin> {
        let to = self.addressee()?;
        let (realm, from) = (self.realm(), self.division());
        Some(if self.is_proposals() {
            Self::answers(&realm, &to, &from)
        } else {
            Self::proposals(&realm, &to, &from)
        })
    }

    /// The shard that a grant's ledger draws from; the origin itself otherwise.
    pub fn shard(&self) -> Origin {
        Origin::new(&self.realm(), &self.division(), &self.ledger())
    }

    /// Whether this is the ledger of a shard: records of one kind.
    pub fn is_shard(&self) -> bool {
        self.grant_id().is_none()
            && !matches!(
                self.part(2),
                "authority" | "access" | "recovery" | PROPOSALS | ANSWERS
            )
    }

    /// The origin as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text!(Origin, Origin::parse);

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
        #[serde(try_from = "String", into = "String")]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
                bytes.and_then(|b| b.try_into().ok()).map(Self).ok_or(IdError {
                    what: $what,
                    rule: "expected 32 lower-case hexadecimal digits",
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id16!(
    /// A record's random 128-bit identifier: it says nothing about the record.
    RecordId,
    "record id"
);
id16!(
    /// A grant's random 128-bit identifier.
    GrantId,
    "grant id"
);
id16!(
    /// A proposal's random 128-bit identifier, which its answer and its end bear too.
    LetterId,
    "proposal id"
);
id16!(
    /// An operator's random 128-bit identifier; names are kept elsewhere.
    OperatorId,
    "operator id"
);

/// Milliseconds since 1970-01-01 UTC, as the recording node's clock had it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct UnixMillis(#[n(0)] pub u64);

impl UnixMillis {
    /// Whole seconds, as C2SP cosignatures count them.
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_names_realm_division_ledger_and_grant() {
        let realm = Realm::new("jiangjin.example").unwrap();
        let division = DivisionId::new("jinfu").unwrap();
        let shard = Origin::new(&realm, &division, &Kind::new("person").unwrap());
        assert_eq!(shard.as_str(), "jiangjin.example/jinfu/person");
        assert!(shard.is_shard());
        let grant = shard.grant(&GrantId([7; 16]));
        assert_eq!(Origin::parse(grant.as_str()).unwrap(), grant);
        assert_eq!(grant.shard(), shard);
        assert!(!grant.is_shard());
    }

    #[test]
    fn a_ledger_of_letters_names_its_addressee_and_the_ledger_of_the_way_back() {
        let realm = Realm::new("jiangjin.example").unwrap();
        let division = |text| DivisionId::new(text).unwrap();
        let there = Origin::proposals(&realm, &division("minzheng"), &division("jinfu"));
        assert_eq!(there.as_str(), "jiangjin.example/minzheng/proposals/jinfu");
        assert_eq!(Origin::parse(there.as_str()).unwrap(), there);
        assert_eq!(there.addressee(), Some(division("jinfu")));
        let back = there.counterpart().unwrap();
        assert_eq!(back.as_str(), "jiangjin.example/jinfu/answers/minzheng");
        assert_eq!(Origin::parse(back.as_str()).unwrap(), back);
        assert_eq!(back.counterpart().unwrap(), there);
        assert!(!there.is_shard() && !back.is_shard() && there.grant_id().is_none());
    }

    #[test]
    fn a_malformed_origin_is_refused() {
        for text in [
            "",
            "a/b",
            "A.b/c/d",
            "a.b/c/d/e",
            "a.b/c d/e",
            "a.b/c/d/grant/xyz",
            "a.b//d",
            "a.b/c/proposals",
            "a.b/c/proposals/",
            "a.b/c/proposals/c",
            "a.b/c/answers/D",
            "a.b/c/answers/d/e",
            "a.b/c/person/d",
            "a.b/c/answers/grant/00000000000000000000000000000000",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
