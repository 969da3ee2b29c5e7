//! What a realm adds to the catalogue by publishing: further versions of schemas, further lists.
//!
//! Owns the rules that keep a realm's additions and those of later programs apart, and that keep
//! old records readable. Refuses a set as a whole at the first rule that it breaks: nothing narrows
//! a width, drops a field or lowers a sensitivity unsaid.

use std::collections::BTreeSet;

use super::CatalogueError;
use crate::published::{PublishedSet, What};
use crate::schema::{Catalogue, Field, Position, Schema};

/// The first version that a realm gives a schema; those below are the program's.
pub const REALM_VERSION_MIN: u32 = 1001;
/// The first position that a realm gives a field of a kind that the program has; those below are
/// the program's, so that a later program and a realm never mean two things by one position.
pub const REALM_POSITION_MIN: Position = 40;

impl Catalogue {
    /// This catalogue with what a set of schemas or code lists adds.
    ///
    /// # Errors
    /// The first rule that the set breaks.
    pub fn with_published(&self, set: &PublishedSet) -> Result<Catalogue, CatalogueError> {
        let mut schemas = Vec::new();
        let mut lists = Vec::new();
        for file in &set.files {
            let wrong = |problem| CatalogueError::File {
                file: file.name.clone(),
                problem,
            };
            match file.name.rsplit_once('.') {
                Some((_, "json")) if set.what == What::Schemas => schemas.push(file.text.as_str()),
                Some((list, "csv")) if set.what != What::Policies => {
                    lists.push((list, file.text.as_str()));
                }
                Some((_, "json")) => {
                    return Err(wrong(
                        "a set of codes has lists only; publish schemas as such",
                    ));
                }
                _ => return Err(wrong("use `*.json` for schemas and `*.csv` for code lists")),
            }
        }
        let after = self.extended(&schemas, &lists)?;
        if after.hash() == self.hash() {
            return Err(CatalogueError::Nothing);
        }
        for (key, schema) in &after.schemas {
            if !self.schemas.contains_key(key) {
                self.follows(schema)?;
            }
        }
        let lowered = lowered(self, &after);
        let said: BTreeSet<String> = set.lowers.iter().cloned().collect();
        if let Some(field) = lowered.symmetric_difference(&said).next() {
            return Err(CatalogueError::Lowered {
                field: field.clone(),
            });
        }
        Ok(after)
    }

    /// Whether a schema may follow the newest of its kind.
    fn follows(&self, schema: &Schema) -> Result<(), CatalogueError> {
        let whole = |problem| CatalogueError::Schema {
            kind: schema.kind.clone(),
            version: schema.version,
            problem,
        };
        if schema.version < REALM_VERSION_MIN {
            return Err(whole(
                "versions below 1001 are the program's; a realm's begin with 1001",
            ));
        }
        let Some(before) = self.schema(&schema.kind) else {
            return Ok(());
        };
        if schema.version <= before.version {
            return Err(whole(
                "a newer version is in force; give this one a higher version",
            ));
        }
        let wrong = |field: &Field, problem| CatalogueError::Field {
            kind: schema.kind.clone(),
            version: schema.version,
            field: field.id.clone(),
            problem,
        };
        for old in &before.fields {
            match schema.at(old.position) {
                None => {
                    return Err(wrong(
                        old,
                        "the field is gone, and an amendment would lose its value; keep it",
                    ));
                }
                Some(new) if new.width < old.width => {
                    return Err(wrong(
                        new,
                        "the width is narrower than before, and values may be wider; keep it",
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(programs) = Catalogue::builtin().schema(&schema.kind) {
            let own = |field: &&Field| programs.at(field.position).is_none();
            for field in schema.fields.iter().filter(own) {
                if field.position < REALM_POSITION_MIN {
                    return Err(wrong(
                        field,
                        "positions below 40 are the program's; a realm's fields take 40 to 63",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The fields, as `kind.field`, whose newest schema is less sensitive in `after`.
pub fn lowered(before: &Catalogue, after: &Catalogue) -> BTreeSet<String> {
    let mut lowered = BTreeSet::new();
    for old in before.kinds() {
        let Some(new) = after.schema(&old.kind) else {
            continue;
        };
        for field in &new.fields {
            let was = old.at(field.position).map(|field| field.sensitivity);
            if was.is_some_and(|was| field.sensitivity < was) {
                lowered.insert(format!("{}.{}", new.kind, field.id));
            }
        }
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;
    use crate::published::{FORMAT, SetFile};

    fn set(what: What, files: &[(&str, &str)], lowers: &[&str]) -> PublishedSet {
        PublishedSet {
            format: FORMAT,
            what,
            version: 2,
            program: "0.1.0".into(),
            files: files
                .iter()
                .map(|(name, text)| SetFile {
                    name: (*name).into(),
                    text: (*text).into(),
                })
                .collect(),
            lowers: lowers.iter().map(|field| (*field).into()).collect(),
        }
    }

    /// The schema of persons with a language, in the realm's first version.
    fn person() -> serde_json::Value {
        let kind = Kind::new("person").unwrap();
        let mut schema = serde_json::to_value(Catalogue::builtin().schema(&kind).unwrap()).unwrap();
        schema["version"] = 1001.into();
        let field = serde_json::json!({
            "position": 40, "id": "tongue", "name": "语言", "english": "Language",
            "type": "text", "width": 30, "group": "identity", "sensitivity": "P2",
            "purpose": "提供语言服务"
        });
        schema["fields"].as_array_mut().unwrap().push(field);
        schema
    }

    fn adopted(schema: &serde_json::Value, lowers: &[&str]) -> Result<Catalogue, CatalogueError> {
        let text = schema.to_string();
        let set = set(What::Schemas, &[("person.json", &text)], lowers);
        Catalogue::builtin().with_published(&set)
    }

    #[test]
    fn a_realm_adds_a_field_and_old_versions_stay() {
        let kind = Kind::new("person").unwrap();
        let after = adopted(&person(), &[]).unwrap();
        let newest = after.schema(&kind).unwrap();
        assert_eq!((newest.version, newest.leaves()), (1001, 41));
        assert_eq!(after.version(&kind, 1).unwrap().leaves(), 20);
        assert_ne!(after.hash(), Catalogue::builtin().hash());
    }

    #[test]
    fn a_schema_that_would_lose_or_mix_up_values_is_refused() {
        let changes: [fn(&mut serde_json::Value); 7] = [
            |schema| schema["version"] = 2.into(),
            |schema| schema["fields"][20]["position"] = 30.into(),
            |schema| schema["fields"][4]["width"] = 59.into(),
            |schema| {
                schema["fields"].as_array_mut().unwrap().remove(19);
            },
            |schema| schema["fields"][4]["id"] = "full_name".into(),
            |schema| schema["fields"][20]["type"] = "picture".into(),
            |schema| schema["fields"][20]["id"] = "religion".into(),
        ];
        for change in changes {
            let mut schema = person();
            change(&mut schema);
            assert!(adopted(&schema, &[]).is_err(), "{schema}");
        }
        assert_eq!(
            Catalogue::builtin()
                .with_published(&set(What::Schemas, &[("a.txt", "")], &[]))
                .unwrap_err(),
            CatalogueError::File {
                file: "a.txt".into(),
                problem: "use `*.json` for schemas and `*.csv` for code lists",
            }
        );
    }

    #[test]
    fn a_sensitivity_is_lowered_only_when_the_set_says_so() {
        let mut schema = person();
        schema["fields"][11]["sensitivity"] = "P2".into();
        let error = adopted(&schema, &[]).unwrap_err();
        assert!(matches!(&error, CatalogueError::Lowered { field } if field == "person.phone"));
        assert!(adopted(&schema, &["person.phone"]).is_ok());
        // Nor does it say so without doing it.
        assert!(adopted(&person(), &["person.phone"]).is_err());
    }

    #[test]
    fn a_set_of_codes_adds_codes_and_drops_none() {
        let base = Catalogue::builtin();
        let crs = base.codes("crs").unwrap();
        let mut text = "code,name\n".to_owned();
        for (code, name) in crs {
            text += &format!("{code},{name}\n");
        }
        let more = format!("{text}gcj09,甲\n");
        let after = base
            .with_published(&set(What::Codes, &[("crs.csv", &more)], &[]))
            .unwrap();
        assert_eq!(after.codes("crs").unwrap().len(), crs.len() + 1);
        let fewer = "code,name\ngcj09,甲\n";
        assert!(
            base.with_published(&set(What::Codes, &[("crs.csv", fewer)], &[]))
                .is_err()
        );
        let schema = person().to_string();
        assert!(
            base.with_published(&set(What::Codes, &[("person.json", &schema)], &[]))
                .is_err()
        );
        // What is in force already is nothing new.
        let again = after.with_published(&set(What::Codes, &[("crs.csv", &more)], &[]));
        assert_eq!(again.unwrap_err(), CatalogueError::Nothing);
    }
}
