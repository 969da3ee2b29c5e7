//! What a record and an entry are: schemas, checks, and the canonical bytes of entries.
//!
//! Read in this order: [`id`], [`schema`], [`draft`], then what goes into ledgers:
//! [`cbor`], [`entry`], [`act`], [`authority`].

pub mod act;
pub mod authority;
pub mod cbor;
pub mod draft;
pub mod entry;
pub mod id;
pub mod schema;
