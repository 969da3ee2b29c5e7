//! Loading schemas and code lists, and refusing those that could not be worked with.
//!
//! The built-in catalogue lies in `schemas/` and `codes/` of this crate. A realm extends it:
//! a further version of a schema, a further list. What a position means is never changed,
//! because commitments and keys are bound to it.

pub mod realm;
mod valid;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::codes::CodeList;
use crate::id::{Hash, Kind};
use crate::schema::{Catalogue, Schema};

/// Why schemas and lists are not a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// A schema's file is not the JSON of a schema.
    #[error("schema file {at} cannot be read: {detail}; correct the file")]
    Json {
        /// Which of the files given, from 1.
        at: usize,
        /// What the parser says, with line and column.
        detail: String,
    },
    /// A list's file breaks a rule.
    #[error("code list `{list}`, line {line}: {problem}; correct the file")]
    List {
        /// The list.
        list: String,
        /// The line, from 1.
        line: usize,
        /// The rule.
        problem: &'static str,
    },
    /// A schema as a whole breaks a rule.
    #[error("schema `{kind}` version {version}: {problem}")]
    Schema {
        /// The kind.
        kind: Kind,
        /// The version.
        version: u32,
        /// The rule.
        problem: &'static str,
    },
    /// A file of a published set is neither a schema nor a list, or not in place.
    #[error("`{file}`: {problem}")]
    File {
        /// The file.
        file: String,
        /// The rule.
        problem: &'static str,
    },
    /// A set lowers the sensitivity of a field without saying so, or says so without doing it.
    #[error(
        "the sensitivity of `{field}` is lowered and the set does not say so, or the other way round; name exactly the fields that are lowered"
    )]
    Lowered {
        /// The field, as `kind.field`.
        field: String,
    },
    /// A set adds nothing to what is in force.
    #[error("the set has nothing that is not in force already; there is nothing to publish")]
    Nothing,
    /// A field breaks a rule.
    #[error("schema `{kind}` version {version}, field `{field}`: {problem}")]
    Field {
        /// The kind.
        kind: Kind,
        /// The version.
        version: u32,
        /// The field's id.
        field: String,
        /// The rule.
        problem: &'static str,
    },
}

pub(crate) use valid::header_keys;

macro_rules! data {
    ($folder:literal, $end:literal, [$($name:literal),* $(,)?]) => {
        [$(($name, include_str!(concat!("../", $folder, "/", $name, $end)))),*]
    };
}

const SCHEMAS: [(&str, &str); 7] = data!(
    "schemas",
    ".json",
    [
        "address", "building", "room", "person", "unit", "facility", "grid"
    ]
);

const LISTS: [(&str, &str); 18] = data!(
    "codes",
    ".csv",
    [
        "status",
        "sex",
        "marital",
        "ethnicity",
        "education",
        "family-relation",
        "residence",
        "welfare",
        "address-element",
        "urban-rural",
        "building-use",
        "structure",
        "occupancy",
        "operating-state",
        "condition",
        "crs",
        "division-scheme",
        "facility",
    ]
);
const YES_NO: (&str, &str) = ("yes-no", include_str!("../codes/yes-no.csv"));

impl Catalogue {
    /// The schemas and code lists that this crate carries.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            let schemas: Vec<&str> = SCHEMAS.iter().map(|(_, text)| *text).collect();
            let mut lists = LISTS.to_vec();
            lists.push(YES_NO);
            Catalogue::load(&schemas, &lists).expect("the files compiled in are the ones tested")
        })
    }

    /// A catalogue from schemas (JSON) and code lists (name and CSV).
    ///
    /// # Errors
    /// The first rule that a file breaks.
    pub fn load(schemas: &[&str], lists: &[(&str, &str)]) -> Result<Catalogue, CatalogueError> {
        Catalogue {
            schemas: BTreeMap::new(),
            lists: BTreeMap::new(),
            hash: [0; 32],
        }
        .extended(schemas, lists)
    }

    /// This catalogue with further schemas, or further versions of them, and code lists.
    /// A list that exists already must be given with all its codes.
    ///
    /// # Errors
    /// The first rule that a file breaks.
    pub fn extended(
        &self,
        schemas: &[&str],
        lists: &[(&str, &str)],
    ) -> Result<Catalogue, CatalogueError> {
        let mut all = self.clone();
        for (name, text) in lists {
            all.add_list(name, text)?;
        }
        for (at, text) in schemas.iter().enumerate() {
            let schema: Schema =
                serde_json::from_str(text).map_err(|error| CatalogueError::Json {
                    at: at + 1,
                    detail: error.to_string(),
                })?;
            let (key, kind, version) = (
                (schema.kind.clone(), schema.version),
                schema.kind.clone(),
                schema.version,
            );
            if all.schemas.insert(key, schema).is_some() {
                return Err(CatalogueError::Schema {
                    kind,
                    version,
                    problem: "this version exists already; a changed schema gets the next version",
                });
            }
        }
        let kinds: BTreeSet<&str> = all.schemas.keys().map(|(kind, _)| kind.as_str()).collect();
        for schema in all.schemas.values() {
            valid::schema(schema, &all.lists, &kinds)?;
        }
        valid::versions(&all.schemas)?;
        all.hash = hash(&all);
        Ok(all)
    }

    /// Every code list as a file: its name, and the text that it reads back from.
    pub fn list_files(&self) -> Vec<(String, String)> {
        let lists = self.lists.iter();
        lists
            .map(|(name, list)| (name.clone(), list.to_text()))
            .collect()
    }

    fn add_list(&mut self, name: &str, text: &str) -> Result<(), CatalogueError> {
        let error = |line, problem| CatalogueError::List {
            list: name.to_owned(),
            line,
            problem,
        };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
            return Err(error(
                0,
                "a list is named by lower-case letters, digits and hyphens",
            ));
        }
        let list = CodeList::parse(text).map_err(|(line, problem)| error(line, problem))?;
        if let Some(before) = self.lists.get(name)
            && !before
                .names
                .keys()
                .all(|code| list.names.contains_key(code))
        {
            return Err(error(
                0,
                "a code of this list is missing; records may use it, so keep it",
            ));
        }
        self.lists.insert(name.to_owned(), list);
        Ok(())
    }
}

fn hash(catalogue: &Catalogue) -> Hash {
    // JSON of structs and ordered maps: field order and key order are fixed, spaces are none.
    let schemas: Vec<&Schema> = catalogue.schemas.values().collect();
    let lists: BTreeMap<_, _> = catalogue
        .lists
        .iter()
        .map(|(name, list)| (name, (&list.names, &list.meanings)))
        .collect();
    let bytes = serde_json::to_vec(&(schemas, lists)).expect("text and numbers always serialize");
    let mut hasher = Sha256::new();
    hasher.update(b"fangzhi/catalogue/v1\0");
    hasher.update(bytes);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builtin(name: &str) -> &'static str {
        SCHEMAS.iter().find(|(kind, _)| *kind == name).unwrap().1
    }

    fn lists() -> Vec<(&'static str, &'static str)> {
        LISTS.into_iter().chain([YES_NO]).collect()
    }

    fn load_changed(from: &str, to: &str) -> Result<Catalogue, CatalogueError> {
        let text = builtin("person");
        assert!(text.contains(from), "nothing to change");
        Catalogue::load(&[&text.replacen(from, to, 1)], &lists())
    }

    #[test]
    fn the_built_in_catalogue_has_every_kind_and_its_lists() {
        let catalogue = Catalogue::builtin();
        for (kind, _) in SCHEMAS {
            let schema = catalogue.schema(&Kind::new(kind).unwrap()).unwrap();
            assert_eq!(schema.kind.as_str(), kind);
            assert_eq!(schema.version, 1);
        }
        assert_eq!(catalogue.kinds().len(), 7);
        assert_eq!(catalogue.codes("ethnicity").unwrap().len(), 58);
        assert!(catalogue.codes("religion").is_none());
    }

    #[test]
    fn every_list_reads_back_from_its_file() {
        let builtin = Catalogue::builtin();
        let files = builtin.list_files();
        assert_eq!(files.len(), 19);
        for (name, text) in &files {
            let same = builtin.extended(&[], &[(name, text)]).unwrap();
            assert_eq!(same.hash(), builtin.hash(), "{name}");
        }
    }

    #[test]
    fn the_hash_speaks_of_every_schema_and_list() {
        let base = Catalogue::load(&[builtin("person")], &lists()).unwrap();
        let same = Catalogue::load(&[builtin("person")], &lists()).unwrap();
        assert_eq!(base.hash(), same.hash());
        let schema = load_changed("识别登记对象", "识别").unwrap();
        assert_ne!(base.hash(), schema.hash());
        let list = base
            .extended(&[], &[("mine", "code,name\n1,甲\n")])
            .unwrap();
        assert_ne!(base.hash(), list.hash());
        let alias = base
            .extended(&[], &[("crs", &(codes("crs") + "gcj09,甲\n"))])
            .unwrap();
        assert_ne!(base.hash(), alias.hash());
    }

    fn codes(name: &str) -> String {
        LISTS
            .iter()
            .find(|(list, _)| *list == name)
            .unwrap()
            .1
            .to_owned()
    }

    #[test]
    fn a_realm_adds_a_field_in_the_next_version_of_a_schema() {
        let base = Catalogue::builtin();
        let next = builtin("person").replace("\"version\": 1", "\"version\": 2").replace(
            "\n  ]",
            ",\n    {\"position\": 20, \"id\": \"tongue\", \"name\": \"语言\", \"english\": \"Language\", \
             \"type\": \"text\", \"width\": 30, \"group\": \"identity\", \"sensitivity\": \"P2\", \
             \"purpose\": \"提供语言服务\"}\n  ]",
        );
        let extended = base.extended(&[&next], &[]).unwrap();
        let person = Kind::new("person").unwrap();
        assert_eq!(extended.schema(&person).unwrap().leaves(), 21);
        assert_eq!(extended.version(&person, 1).unwrap().leaves(), 20);
        assert!(
            extended.extended(&[&next], &[]).is_err(),
            "the same version again"
        );
        let reused = next.replace("\"id\": \"sex\"", "\"id\": \"gender_code\"");
        assert!(matches!(
            base.extended(&[&reused], &[]),
            Err(CatalogueError::Field { .. })
        ));
    }

    #[test]
    fn a_code_that_records_may_use_cannot_be_dropped_from_its_list() {
        let shorter = codes("crs").replace("gcj02,", "# gcj02,");
        assert!(
            Catalogue::builtin()
                .extended(&[], &[("crs", &shorter)])
                .is_err()
        );
    }

    #[test]
    fn a_schema_that_breaks_a_rule_is_refused() {
        for (from, to) in [
            ("\"kind\": \"person\"", "\"kind\": \"access\""),
            ("\"version\": 1", "\"version\": 0"),
            ("\"version\": 1", "\"version\": 1, \"more\": 2"),
            ("\"position\": 5", "\"position\": 4"),
            ("\"position\": 19", "\"position\": 64"),
            (
                "\"position\": 0, \"id\": \"changed\"",
                "\"position\": 0, \"id\": \"other\"",
            ),
            ("\"group\": \"control\"", "\"group\": \"identity\""),
            ("\"width\": 96", "\"width\": 30"),
            ("\"width\": 18", "\"width\": 17"),
            ("\"width\": 60", "\"width\": 2000"),
            ("\"list\": \"sex\"", "\"list\": \"missing\""),
            ("\"list\": \"status\"", "\"list\": \"sex\""),
            ("\"sensitivity\": \"P3\"", "\"sensitivity\": \"P2\""),
            ("\"sensitivity\": \"P3\"", "\"sensitivity\": \"PX\""),
            ("\"id\": \"marital\"", "\"id\": \"religion\""),
            ("\"婚姻\"", "\"宗教信仰\""),
            ("\"id\": \"marital\"", "\"id\": \"Marital\""),
            ("\"id\": \"marital\"", "\"id\": \"sex\""),
            ("\"婚姻\"", "\"姓名\""),
            ("\"purpose\": \"识别登记对象\"", "\"purpose\": \"\""),
            ("\"type\": \"text\"", "\"type\": \"picture\""),
        ] {
            assert!(load_changed(from, to).is_err(), "{from} -> {to}");
        }
    }
}
