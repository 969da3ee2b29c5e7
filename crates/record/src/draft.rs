//! From a row of somebody's file to values that may be sealed.
//!
//! A [`Draft`] is what was given; [`Draft::check`] gives a [`Checked`], or all its
//! violations at once. Nobody checks twice: what takes a `Checked` trusts it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::Kind;
use crate::schema::Position;

/// What was given for a record, by field id, before anybody looked at it.
#[derive(Clone, Default)]
pub struct Draft {
    /// Field id to text as given.
    pub fields: BTreeMap<String, String>,
}

/// One rule that a draft breaks. It never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The field's id.
    pub field: String,
    /// What is wrong and what to do, in Chinese and, after ` / `, in English.
    pub reason: String,
}

/// Values that obey their schema: canonical text by position.
///
/// Only [`Draft::check`], [`Checked::since`] and [`Checked::from_opened`] make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Checked {
    pub(crate) kind: Kind,
    pub(crate) schema: u32,
    pub(crate) values: BTreeMap<Position, String>,
}

impl Checked {
    /// The kind.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The schema version.
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// The canonical value at a position, if the field is present.
    pub fn value(&self, position: Position) -> Option<&str> {
        self.values.get(&position).map(String::as_str)
    }

    /// The values present, by ascending position.
    pub fn values(&self) -> impl Iterator<Item = (Position, &str)> {
        self.values
            .iter()
            .map(|(position, value)| (*position, value.as_str()))
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft({} fields)", self.fields.len())
    }
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checked({} fields)", self.values.len())
    }
}
