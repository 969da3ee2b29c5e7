//! What can be done with values that obey their schema: naming the changes, amending.

use std::collections::BTreeMap;

use crate::draft::{Checked, Draft};
use crate::id::Kind;
use crate::schema::{CHANGED, Position, Schema};

/// Why opened values do not belong to a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenedError {
    /// A value lies at a position that the schema version does not have.
    #[error(
        "schema `{kind}` version {version} has no position {position}; open the record with the schema version that its entry names"
    )]
    UnknownPosition {
        /// The kind.
        kind: Kind,
        /// The schema version.
        version: u32,
        /// The position.
        position: Position,
    },
}

impl Checked {
    /// Values that were checked before they were sealed, and have now been opened.
    ///
    /// # Errors
    /// [`OpenedError`] when a position is not the schema's.
    pub fn from_opened(
        schema: &Schema,
        values: BTreeMap<Position, String>,
    ) -> Result<Checked, OpenedError> {
        if let Some(position) = values.keys().find(|at| schema.at(**at).is_none()) {
            return Err(OpenedError::UnknownPosition {
                kind: schema.kind.clone(),
                version: schema.version,
                position: *position,
            });
        }
        Ok(Checked {
            kind: schema.kind.clone(),
            schema: schema.version,
            values,
        })
    }

    /// The same values with the list of changed fields: the positions, ascending, that differ
    /// from `previous`, or all that are present in a first version. Without a difference the
    /// list is absent, and there is nothing to write.
    #[must_use]
    pub fn since(&self, previous: Option<&Checked>) -> Checked {
        let mut next = self.clone();
        next.values.remove(&CHANGED);
        let before = |at: &Position| previous.and_then(|previous| previous.values.get(at));
        let mut changed: Vec<Position> = next
            .values
            .iter()
            .filter(|(at, value)| before(at) != Some(value))
            .map(|(at, _)| *at)
            .collect();
        if let Some(previous) = previous {
            let removed = previous.values.keys();
            changed.extend(removed.filter(|at| **at != CHANGED && !next.values.contains_key(at)));
            changed.sort_unstable();
        }
        if !changed.is_empty() {
            let list: Vec<String> = changed.iter().map(Position::to_string).collect();
            next.values.insert(CHANGED, list.join(","));
        }
        next
    }

    /// The positions that this version says it changed.
    pub fn changed(&self) -> Vec<Position> {
        let list = self.value(CHANGED).unwrap_or_default();
        list.split(',').filter_map(|at| at.parse().ok()).collect()
    }

    /// A draft of the same values, to be amended and checked again.
    pub fn draft(&self, schema: &Schema) -> Draft {
        let fields = schema
            .fields
            .iter()
            .filter(|field| field.position != CHANGED)
            .filter_map(|field| {
                let value = self.value(field.position)?;
                Some((field.id.clone(), value.to_owned()))
            })
            .collect();
        Draft { fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Catalogue;

    fn person() -> &'static Schema {
        let kind = Kind::new("person").unwrap();
        Catalogue::builtin().schema(&kind).unwrap()
    }

    fn checked(draft: &Draft) -> Checked {
        draft
            .check(person(), Catalogue::builtin(), "2026-06-30")
            .unwrap()
    }

    fn first() -> Checked {
        let mut draft = Draft::default();
        for (id, value) in [("name", "王五"), ("phone", "13800138000"), ("sex", "男")] {
            draft.fields.insert(id.to_owned(), value.to_owned());
        }
        checked(&draft).since(None)
    }

    #[test]
    fn a_first_version_lists_every_field_present() {
        assert_eq!(first().value(CHANGED), Some("1,2,4,6,11"));
    }

    #[test]
    fn a_later_version_lists_what_was_changed_added_and_removed() {
        let mut draft = first().draft(person());
        draft.fields.insert("phone".to_owned(), "无".to_owned());
        draft.fields.insert("name".to_owned(), "王武".to_owned());
        draft.fields.insert("ethnicity".to_owned(), "汉".to_owned());
        let next = checked(&draft).since(Some(&first()));
        assert_eq!(next.changed(), [4, 8, 11]);
    }

    #[test]
    fn an_amendment_that_changes_nothing_lists_nothing() {
        let next = checked(&first().draft(person())).since(Some(&first()));
        assert_eq!(next.value(CHANGED), None);
        assert!(next.changed().is_empty());
    }

    #[test]
    fn opened_values_are_taken_as_they_are_but_only_at_positions_that_exist() {
        let values: BTreeMap<Position, String> =
            first().values().map(|(at, v)| (at, v.to_owned())).collect();
        assert_eq!(Checked::from_opened(person(), values.clone()), Ok(first()));
        let mut more = values;
        more.insert(60, "甲".to_owned());
        assert!(Checked::from_opened(person(), more).is_err());
    }

    #[test]
    fn the_longest_list_of_changes_fits_its_field() {
        for schema in Catalogue::builtin().kinds() {
            let all: Vec<String> = (1..schema.leaves()).map(|at| at.to_string()).collect();
            let width = schema.at(CHANGED).unwrap().width;
            assert!(all.join(",").len() <= usize::from(width));
        }
    }
}
