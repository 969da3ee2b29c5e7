//! Finding records over the attributes that this node may read.
//!
//! One [`Index`] covers one shard, or one grant's holding, of one kind: the
//! searchable and unique fields, status, grid and valid-from. It owns how these are
//! laid out in memory and in pages; it refuses to search a field that the schema
//! does not mark searchable. It asks nobody for permission: its caller gives no row
//! out without a permit and a receipt.
//!
//! Read in this order: `working` (the index), `find` (a search), `pages` (at rest),
//! then the parts: `column`, `classes`, `table`, `arena`, `stamps`.
//!
//! Values are wiped when they are replaced, removed or dropped. Not wiped: record
//! ids, versions, row numbers and the distinct grids and statuses, which lead to
//! nobody without the values; the search text in a [`Match`]; values that a search
//! had in CPU registers.
//!
//! ```
//! use std::collections::BTreeMap;
//! use index::{Index, Match};
//! use record::id::RecordId;
//! use record::schema::{Schema, STATUS};
//!
//! let schema: Schema = serde_json::from_str(r#"{
//!   "kind": "unit", "version": 1, "name": "单位", "english": "unit", "fields": [
//!     {"position": 1, "id": "status", "name": "状态", "english": "status", "type": "code",
//!      "width": 2, "group": "core", "sensitivity": "P1", "purpose": "register"},
//!     {"position": 4, "id": "name", "name": "名称", "english": "name", "type": "text",
//!      "width": 90, "group": "core", "sensitivity": "P1", "purpose": "register",
//!      "searchable": true}]}"#)?;
//! let mut index = Index::new(&schema);
//! let values = BTreeMap::from([(STATUS, "10".to_owned()), (4, "金福茶馆".to_owned())]);
//! index.upsert(RecordId([7; 16]), 1, 0, &values);
//!
//! let filter = [(4, Match::Prefix("金福".to_owned()))];
//! let page = index.find(&filter, &|row| row.status == "10", 20, None)?;
//! assert_eq!(page.found[0].record, RecordId([7; 16]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod classes;
mod column;
mod find;
mod pages;
mod stamps;
mod table;
mod working;

pub use find::{FindError, Found, Match, Page};
pub use pages::{PAGE_BYTES_MAX, PageError};
pub use working::{Attributes, CLOSED, Counts, Index, Row};
