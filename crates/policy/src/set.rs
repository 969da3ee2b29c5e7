//! A policy set: schema, rules and purposes, validated as a whole.
//!
//! Owns the parsed rules and what was decided by them. Refuses a set that is not
//! valid in Cedar's strict mode, whose rules lack an id or say nobody to ask, or
//! whose purposes differ from the schema's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cedar_policy::{Policy, PolicyId, Schema, ValidationMode, Validator};
use record::id::{Hash, Purpose};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decision::Grounds;
use crate::denied::{DEFAULT_ASK, Denied, PolicyError};

/// The file of the list of purposes.
const PURPOSES: &str = "purposes.json";
/// The files of the set that this software comes with, the Cedar schema first.
pub const BUILTIN: [(&str, &str); 8] = [
    (
        "schema.cedarschema",
        include_str!("../../../policies/schema.cedarschema"),
    ),
    (PURPOSES, include_str!("../../../policies/purposes.json")),
    (
        "reading.cedar",
        include_str!("../../../policies/reading.cedar"),
    ),
    (
        "writing.cedar",
        include_str!("../../../policies/writing.cedar"),
    ),
    (
        "transferring.cedar",
        include_str!("../../../policies/transferring.cedar"),
    ),
    (
        "sharing.cedar",
        include_str!("../../../policies/sharing.cedar"),
    ),
    (
        "auditing.cedar",
        include_str!("../../../policies/auditing.cedar"),
    ),
    (
        "security.cedar",
        include_str!("../../../policies/security.cedar"),
    ),
];
/// How many decisions a set remembers before it starts over.
const REMEMBERED_MAX: usize = 1024;

/// One purpose of the realm's list (用途).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurposeCode {
    /// The code, as acts and access entries carry it.
    pub code: Purpose,
    /// Its name in Chinese.
    pub name: String,
    /// Its name in English.
    pub english: String,
    /// The legal basis that rules see.
    pub basis: String,
}

type Answer = Result<Arc<Grounds>, Denied>;

/// Rules that hold together.
#[derive(Debug)]
pub struct PolicySet {
    pub(crate) schema: Schema,
    pub(crate) policies: cedar_policy::PolicySet,
    asks: BTreeMap<String, String>,
    purposes: Vec<PurposeCode>,
    /// All rules as they were written.
    text: String,
    hash: Hash,
    remembered: Mutex<HashMap<Hash, Answer>>,
}

impl PolicySet {
    /// The set that this software comes with.
    ///
    /// # Errors
    /// [`PolicyError`] when the built-in files are not a valid set.
    pub fn builtin() -> Result<&'static PolicySet, PolicyError> {
        static PARSED: OnceLock<Result<PolicySet, PolicyError>> = OnceLock::new();
        let set = PARSED.get_or_init(|| {
            let (schema, files) = BUILTIN.split_first().expect("the list is not empty");
            PolicySet::parse(schema.1, files)
        });
        set.as_ref().map_err(Clone::clone)
    }

    /// Parses and validates a set: the Cedar schema, and files by name, of which
    /// one is `purposes.json` and the others end in `.cedar`.
    ///
    /// # Errors
    /// [`PolicyError`]: the first fault of form, or all that the validator finds.
    pub fn parse(schema: &str, files: &[(&str, &str)]) -> Result<PolicySet, PolicyError> {
        let (parsed_schema, _) =
            Schema::from_cedarschema_str(schema).map_err(|error| PolicyError::Syntax {
                file: "schema.cedarschema".to_owned(),
                detail: error.to_string(),
            })?;
        let mut policies = cedar_policy::PolicySet::new();
        let mut asks = BTreeMap::new();
        let mut purposes = Vec::new();
        for (file, text) in files {
            if *file == PURPOSES {
                purposes = serde_json::from_str(text).map_err(|error| PolicyError::Syntax {
                    file: (*file).to_owned(),
                    detail: error.to_string(),
                })?;
            } else if file.ends_with(".cedar") {
                add_rules(file, text, &mut policies, &mut asks)?;
            } else {
                return Err(PolicyError::UnknownFile {
                    file: (*file).to_owned(),
                });
            }
        }
        validate(&parsed_schema, &policies)?;
        check_purposes(schema, &purposes)?;
        Ok(PolicySet {
            schema: parsed_schema,
            policies,
            asks,
            purposes,
            text: rules_of(files),
            hash: hash_of(schema, files),
            remembered: Mutex::new(HashMap::new()),
        })
    }

    /// SHA-256 over the schema and all files, in the order of their names, each
    /// name and text preceded by its length (8 bytes, big-endian).
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The list of purposes.
    pub fn purposes(&self) -> &[PurposeCode] {
        &self.purposes
    }

    /// The ids of all rules, with whom to ask.
    pub fn rules(&self) -> &BTreeMap<String, String> {
        &self.asks
    }

    /// All rules as they were written, comments and all.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn purpose(&self, code: &Purpose) -> Option<&PurposeCode> {
        self.purposes.iter().find(|purpose| purpose.code == *code)
    }

    pub(crate) fn ask(&self, rule: &str) -> &str {
        self.asks.get(rule).map_or(DEFAULT_ASK, String::as_str)
    }

    /// The remembered answer to the question of this key, or else a computed one.
    pub(crate) fn remember(&self, key: Hash, compute: impl FnOnce() -> Answer) -> Answer {
        let lock = || {
            self.remembered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(answer) = lock().get(&key) {
            return answer.clone();
        }
        let answer = compute();
        let mut remembered = lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, answer.clone());
        answer
    }
}

fn add_rules(
    file: &str,
    text: &str,
    policies: &mut cedar_policy::PolicySet,
    asks: &mut BTreeMap<String, String>,
) -> Result<(), PolicyError> {
    let parsed = cedar_policy::PolicySet::from_str(text).map_err(|error| PolicyError::Syntax {
        file: file.to_owned(),
        detail: error.to_string(),
    })?;
    let fault = |fault: String| PolicyError::Rule {
        file: file.to_owned(),
        fault,
    };
    if parsed.templates().next().is_some() {
        return Err(fault("is a template".to_owned()));
    }
    for policy in parsed.policies() {
        let note = |key: &str| policy.annotation(key).filter(|text| !text.is_empty());
        let id = note("id").ok_or_else(|| fault("has no @id".to_owned()))?;
        let ask = note("ask").ok_or_else(|| fault(format!("`{id}` has no @ask")))?;
        let named: Policy = policy.new_id(PolicyId::new(id));
        policies
            .add(named)
            .map_err(|_| fault(format!("repeats the id `{id}`")))?;
        asks.insert(id.to_owned(), ask.to_owned());
    }
    Ok(())
}

fn rules_of(files: &[(&str, &str)]) -> String {
    let rules = files.iter().filter(|(file, _)| *file != PURPOSES);
    rules.map(|(_, text)| *text).collect()
}

/// Strict, and without warnings: a rule that can never apply is a mistake too.
fn validate(schema: &Schema, policies: &cedar_policy::PolicySet) -> Result<(), PolicyError> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    if result.validation_passed_without_warnings() {
        return Ok(());
    }
    let errors = result.validation_errors().map(ToString::to_string);
    let warnings = result.validation_warnings().map(ToString::to_string);
    let detail: Vec<String> = errors.chain(warnings).collect();
    Err(PolicyError::Invalid {
        detail: detail.join("; "),
    })
}

/// Rules can name only the schema's purposes, so a code in one list alone would
/// either be refused everywhere or never be checked for misspelling.
fn check_purposes(schema: &str, purposes: &[PurposeCode]) -> Result<(), PolicyError> {
    let listed: BTreeSet<&str> = purposes
        .iter()
        .map(|purpose| purpose.code.as_str())
        .collect();
    let declared: BTreeSet<&str> = schema
        .split_once("entity Purpose enum [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.split(',').map(|code| code.trim().trim_matches('"')))
        .into_iter()
        .flatten()
        .collect();
    if listed == declared && listed.len() == purposes.len() {
        Ok(())
    } else {
        Err(PolicyError::Purposes)
    }
}

fn hash_of(schema: &str, files: &[(&str, &str)]) -> Hash {
    let mut sorted: Vec<(&str, &str)> = vec![("schema.cedarschema", schema)];
    sorted.extend_from_slice(files);
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for part in sorted.iter().flat_map(|(name, text)| [name, text]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
