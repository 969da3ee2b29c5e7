//! The HTTP interface of a node.
//!
//! Owns routes, sessions and the words of failures. Refuses to send a record that is not
//! [`watermark::Marked`]: `read` has no other return type, and nothing else returns records.
//!
//! Read in this order: [`routes`], [`plans`], [`destructions`], [`given`], [`known`], [`state`], [`error`].

pub mod custody;
pub mod destructions;
pub mod error;
mod ferries;
mod gate;
pub mod given;
mod grants;
mod imports;
pub mod known;
pub mod ledgers;
pub mod plans;
mod proposals;
mod published;
pub mod routes;
pub mod state;
mod transfers;

pub use routes::router;
pub use state::{AppState, now};
