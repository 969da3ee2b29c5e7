//! Policy sets that come from a realm's root: the files, bounded, and what no set may change.
//!
//! Owns the names of a set's files and the limits on what is given to Cedar's parser. Refuses a set
//! whose Cedar schema is another than this program asks under, that drops a purpose which records
//! may cite, or under which officers could no longer run a node: nobody could publish another.

use std::collections::BTreeSet;

use record::authority::{Level, Role};
use record::id::{DivisionId, OperatorId, Purpose};

use crate::denied::{Denied, PolicyError};
use crate::duty::{Target, may};
use crate::question::{Action, Asker};
use crate::set::{BUILTIN, PolicySet};

/// The file of the Cedar schema.
pub const SCHEMA: &str = "schema.cedarschema";
/// The largest rule file in bytes.
pub const RULES_BYTES_MAX: usize = 64 * 1024;
/// The most signs of a rule file that can nest an expression. Cedar's parser recurses: a file is
/// not to be deeper than a stack.
pub const SIGNS_MAX: usize = 2000;

impl PolicySet {
    /// The set of files that a realm publishes. Parsing recurses with what the rules nest, up to
    /// [`SIGNS_MAX`] deep: give it some tens of megabytes of stack.
    ///
    /// # Errors
    /// [`PolicyError`]: the first bound or rule that the set breaks.
    pub fn published(files: &[(&str, &str)]) -> Result<PolicySet, PolicyError> {
        let builtin = PolicySet::builtin()?;
        let (schema, files): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| *name == SCHEMA);
        let schema: &[(&str, &str)] = &schema;
        let [(_, schema)] = schema else {
            return Err(PolicyError::Missing { file: SCHEMA });
        };
        let shape = BUILTIN
            .iter()
            .find(|(name, _)| *name == SCHEMA)
            .map(|(_, text)| shape(text));
        if Some(self::shape(schema)) != shape {
            return Err(PolicyError::Shape);
        }
        for (file, text) in &files {
            let nesting = |b: &u8| b"|&+*.!(<>=[{-,:".contains(b);
            let signs = text.bytes().filter(|b| nesting(b)).count() + text.matches("if").count();
            if file.ends_with(".cedar") && (text.len() > RULES_BYTES_MAX || signs > SIGNS_MAX) {
                return Err(PolicyError::TooLarge {
                    file: (*file).to_owned(),
                });
            }
            // What a rule names is to be found by reading: an escape would hide it.
            if file.ends_with(".cedar") && text.contains('\\') {
                return Err(PolicyError::Rule {
                    file: (*file).to_owned(),
                    fault: "has a backslash; write letters as they are".to_owned(),
                });
            }
        }
        let set = PolicySet::parse(schema, &files)?;
        let listed: BTreeSet<&Purpose> = set.purposes().iter().map(|p| &p.code).collect();
        if let Some(dropped) = builtin
            .purposes()
            .iter()
            .find(|p| !listed.contains(&p.code))
        {
            return Err(PolicyError::PurposeDropped {
                purpose: dropped.code.clone(),
            });
        }
        if set.locks_out() {
            return Err(PolicyError::LocksOut);
        }
        Ok(set)
    }

    /// Whether security officers could no longer do under this set what leads to another set, or
    /// could approve what they asked for themselves.
    fn locks_out(&self) -> bool {
        let allowed = || -> Result<bool, Denied> {
            let failed = |_| Denied::by_default(crate::denied::Reason::Failed);
            let division = |text| DivisionId::new(text).map_err(failed);
            let security = Purpose::new("security").map_err(failed)?;
            let (root, below) = (division("the-root")?, division("the-node-below")?);
            let officer = |organization: &DivisionId, level| Asker {
                operator: OperatorId([1; 16]),
                role: Role::SecurityOfficer,
                organization: organization.clone(),
                level,
                grid: None,
            };
            let above = [root.clone()];
            let nodes: [(&DivisionId, Level, &[DivisionId]); 2] =
                [(&root, Level::District, &[]), (&below, Level::Town, &above)];
            for (division, level, ancestors) in nodes {
                let asker = officer(division, level);
                let node = Target::Division {
                    division,
                    ancestors,
                };
                let request = |by: u8| Target::Request {
                    division,
                    ancestors,
                    requested_by: OperatorId([by; 16]),
                };
                for action in [Action::Rotate, Action::Administer] {
                    may(self, &asker, action, &node, &security)?;
                }
                may(self, &asker, Action::Approve, &request(2), &security)?;
                if may(self, &asker, Action::Approve, &request(1), &security).is_ok() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        !allowed().unwrap_or(false)
    }
}

/// A Cedar schema without comments, spaces and the list of purposes.
fn shape(schema: &str) -> String {
    let text: String = schema
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    match text.split_once("entityPurposeenum[") {
        Some((before, rest)) => {
            let after = rest.split_once(']').map_or("", |(_, after)| after);
            format!("{before}entityPurposeenum[{after}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl Fn(&str, &str) -> Option<String>) -> Result<PolicySet, PolicyError> {
        let files: Vec<(&str, String)> = BUILTIN
            .iter()
            .map(|(name, text)| (*name, change(name, text).unwrap_or((*text).to_owned())))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        PolicySet::published(&files)
    }

    fn added(rule: &str) -> Result<PolicySet, PolicyError> {
        with(|name, text| (name == "reading.cedar").then(|| format!("{text}\n{rule}")))
    }

    #[test]
    fn the_built_in_files_are_a_set_that_can_be_published() {
        let set = with(|_, _| None).unwrap();
        assert_eq!(set.hash(), PolicySet::builtin().unwrap().hash());
        // A further purpose is a realm's to add, in both lists.
        let more = with(|name, text| {
            match name {
            "purposes.json" => Some(text.replacen(
                '[',
                r#"[{ "code": "census", "name": "普查", "english": "census", "basis": "statutory-duty" },"#,
                1,
            )),
            SCHEMA => Some(text.replacen("Purpose enum [", "Purpose enum [\"census\", ", 1)),
            _ => None,
        }
        });
        assert_eq!(more.unwrap().purposes().len(), 14);
    }

    #[test]
    fn a_set_under_which_officers_could_not_go_on_is_refused() {
        let locked = added(
            "@id(\"nobody-rotates\")@ask(\"甲 / a\")forbid(principal, action == Action::\"rotate\", resource);",
        );
        assert_eq!(locked.unwrap_err(), PolicyError::LocksOut);
        let own = with(|name, text| {
            (name == "security.cedar").then(|| {
                text.replace(
                    "when { context.ownRequest };",
                    "when { context.ownRequest && principal.level == Level::\"town\" };",
                )
            })
        });
        assert_eq!(own.unwrap_err(), PolicyError::LocksOut);
    }

    #[test]
    fn another_schema_a_dropped_purpose_and_a_missing_file_are_refused() {
        let shape = with(|name, text| {
            (name == SCHEMA).then(|| text.replace("grid: String,", "grid: String, age: Long,"))
        });
        assert_eq!(shape.unwrap_err(), PolicyError::Shape);
        let dropped = with(|name, text| match name {
            "purposes.json" => Some(
                text.lines()
                    .filter(|line| !line.contains("\"market\""))
                    .collect(),
            ),
            SCHEMA => Some(text.replace("\"market\", ", "")),
            "sharing.cedar" | "reading.cedar" => {
                Some(text.replace("Purpose::\"market\"", "Purpose::\"housing\""))
            }
            _ => None,
        });
        assert!(
            matches!(dropped, Err(PolicyError::PurposeDropped { purpose }) if purpose.as_str() == "market")
        );
        assert_eq!(
            PolicySet::published(&BUILTIN[1..]).unwrap_err(),
            PolicyError::Missing { file: SCHEMA }
        );
        assert!(added("permit(principal, action, resource);").is_err());
        assert!(with(|name, _| (name == "reading.cedar").then(|| "permit(".into())).is_err());
    }

    #[test]
    fn rules_that_nest_without_end_are_refused_before_they_are_parsed() {
        for deep in ["(", "!", "-", "1+", "true&&", "a.", "[", "if true then "] {
            let text = deep.repeat(60_000 / deep.len());
            let refused = with(|name, _| (name == "reading.cedar").then(|| text.clone()));
            assert!(
                matches!(refused, Err(PolicyError::TooLarge { .. })),
                "{deep}"
            );
        }
    }

    #[test]
    fn rules_as_deep_as_they_may_be_do_not_exhaust_the_stack() {
        let parse = || {
            for (before, inner, after) in [
                ("(", "true", ")"),
                ("!", "true", ""),
                ("true && ", "true", ""),
                ("[", "true", "]"),
                ("if true then true else ", "true", ""),
            ] {
                let signs = before.matches(['(', '!', '&', '[']).count().max(1);
                let times = (SIGNS_MAX - 40) / signs;
                let rule = format!(
                    "@id(\"deep\")@ask(\"甲 / a\")permit(principal, action, resource) when {{ {}{inner}{} }};",
                    before.repeat(times),
                    after.repeat(times),
                );
                let _ = with(|name, _| (name == "reading.cedar").then(|| rule.clone()));
            }
        };
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        thread.spawn(parse).unwrap().join().unwrap();
    }
}
