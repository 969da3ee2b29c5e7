//! Schemas (数据规范): what fields a kind of record has.
//!
//! A schema is data, versioned: a realm can add fields without a new binary.
//! A position is never reused and never changes its meaning, because commitments
//! and keys are bound to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codes::CodeList;
use crate::id::{Hash, Kind};

/// The position of a field in its kind.
pub type Position = u8;
/// The highest position, so that a content tree stays small.
pub const POSITION_MAX: Position = 63;
/// Every kind's list of changed fields.
pub const CHANGED: Position = 0;
/// Every kind's status (code list `status`).
pub const STATUS: Position = 1;
/// Every kind's date from which the version is true.
pub const VALID_FROM: Position = 2;
/// Every kind's grid.
pub const GRID: Position = 3;

/// How sensitive a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sensitivity {
    /// Public: division, road, plate, facility point.
    P0,
    /// Internal: building attributes, unit name and code.
    P1,
    /// Personal: name, sex, birth date, education.
    P2,
    /// High: citizen number, phone, exact room of a person.
    P3,
    /// Sensitive in law: health, minors, disability, welfare.
    P4,
}

impl Sensitivity {
    /// Whether a cell is written even when the field is absent, so that its presence does not show.
    pub fn always_sealed(self) -> bool {
        self >= Sensitivity::P3
    }
}

/// What values a field takes. All are kept as canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldType {
    /// Free text.
    Text,
    /// A code of the field's code list.
    Code,
    /// Citizen number (GB 11643).
    CitizenNumber,
    /// Unified social credit code (GB 32100).
    CreditCode,
    /// Division code: 6, 9 or 12 digits (GB/T 2260, GB/T 10114).
    DivisionCode,
    /// `YYYY-MM-DD`.
    Date,
    /// Telephone number.
    Phone,
    /// Whole number.
    Integer,
    /// Decimal number such as a coordinate or an area.
    Decimal,
    /// The id of a record of another kind, 32 hexadecimal digits.
    Reference,
    /// A list of positions, ascending, joined by commas.
    Positions,
}

/// One field of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its place in the content tree.
    pub position: Position,
    /// Its name in programs: lower case with underscores.
    pub id: String,
    /// Its name in Chinese.
    pub name: String,
    /// Its name in English.
    pub english: String,
    /// What values it takes.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Most bytes of a value; cells are padded to it.
    pub width: u16,
    /// The group whose row key opens it.
    pub group: Kind,
    /// How sensitive it is.
    pub sensitivity: Sensitivity,
    /// Why it is kept.
    pub purpose: String,
    /// The code list of a code, the kind of a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Whether a record must have it.
    #[serde(default)]
    pub required: bool,
    /// Whether no two records of a shard in force may share a value.
    #[serde(default)]
    pub unique: bool,
    /// Whether the working index finds records by it.
    #[serde(default)]
    pub searchable: bool,
    /// Other column headers that mean this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// The fields of a kind, in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The kind.
    pub kind: Kind,
    /// The version, from 1.
    pub version: u32,
    /// Its name in Chinese.
    pub name: String,
    /// Its name in English.
    pub english: String,
    /// Its fields, by ascending position.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The field at a position.
    pub fn at(&self, position: Position) -> Option<&Field> {
        self.fields.iter().find(|field| field.position == position)
    }

    /// The field of an id.
    pub fn field(&self, id: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// How many leaves the content tree of a record has: the highest position and one.
    pub fn leaves(&self) -> usize {
        self.fields
            .last()
            .map_or(0, |field| usize::from(field.position) + 1)
    }
}

/// All schemas and code lists that a node works with, and their hash.
#[derive(Debug, Clone)]
pub struct Catalogue {
    pub(crate) schemas: BTreeMap<(Kind, u32), Schema>,
    pub(crate) lists: BTreeMap<String, CodeList>,
    pub(crate) hash: Hash,
}

impl Catalogue {
    /// The newest schema of a kind.
    pub fn schema(&self, kind: &Kind) -> Option<&Schema> {
        self.schemas
            .iter()
            .rfind(|((k, _), _)| k == kind)
            .map(|(_, schema)| schema)
    }

    /// One version of a kind's schema.
    pub fn version(&self, kind: &Kind, version: u32) -> Option<&Schema> {
        self.schemas.get(&(kind.clone(), version))
    }

    /// The newest schema of each kind.
    pub fn kinds(&self) -> Vec<&Schema> {
        let mut newest: BTreeMap<&Kind, &Schema> = BTreeMap::new();
        for ((kind, _), schema) in &self.schemas {
            newest.insert(kind, schema);
        }
        newest.into_values().collect()
    }

    /// A code list: code to name.
    pub fn codes(&self, list: &str) -> Option<&BTreeMap<String, String>> {
        self.lists.get(list).map(|list| &list.names)
    }

    /// SHA-256 over all schemas and lists: what acts and policies rely on.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
