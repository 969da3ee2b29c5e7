//! What a record and an entry are: schemas, checks, and the canonical bytes of entries.
//!
//! Read in this order: [`id`], [`schema`] and [`catalogue`] (what fields there are), [`header`]
//! (whose column is which field), [`draft`] and [`check`] (from a row to values that may be
//! sealed) with [`numbers`], [`dates`], [codes](schema::Catalogue::codes) and rules between fields,
//! then what goes into ledgers: [`cbor`], [`entry`], [`act`], [`authority`], [`plan`], [`letter`],
//! [`proposal`], [`transfer`] and [`published`].
//!
//! ```
//! use record::draft::Draft;
//! use record::id::Kind;
//! use record::schema::Catalogue;
//!
//! let catalogue = Catalogue::builtin();
//! let schema = catalogue.schema(&Kind::new("person")?).ok_or("no such kind")?;
//! let mut draft = Draft::default();
//! draft.fields.insert("name".into(), "张三".into());
//! draft.fields.insert("citizen_number".into(), "11010519491231002x".into());
//! let checked = draft.check(schema, catalogue, "2026-06-30").map_err(|_| "violations")?;
//! let birth = schema.field("birth_date").ok_or("no such field")?;
//! assert_eq!(checked.value(birth.position), Some("1949-12-31"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod act;
pub mod authority;
pub mod catalogue;
pub mod cbor;
pub mod check;
mod checked;
mod codes;
pub mod custody;
pub mod dates;
pub mod draft;
pub mod entry;
pub mod header;
pub mod id;
pub mod letter;
pub mod moving;
pub mod numbers;
pub mod plan;
pub mod proposal;
pub mod published;
pub mod refused;
mod rules;
pub mod schema;
pub mod transfer;

pub use checked::OpenedError;
