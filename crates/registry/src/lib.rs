//! The use cases of a node, each a straight line.
//!
//! Owns the order in which things happen: decide, record, commit, open, mark. Each use case
//! computes one batch, and `store.commit` is its only write; new record secrets are durable
//! before it. Refuses to know of sockets and of HTTP.
//!
//! Read in this order: [`config`] and [`node`] (what a node is), [`table`] and [`book`] (how it
//! writes), [`authority`] and [`session`] (who may), [`register`], [`holding`], [`read`],
//! [`grant`], [`replicate`], [`verify`], [`status`].

pub mod error;
pub mod config;
pub mod keys;
pub mod table;
pub mod book;
pub mod authority;
pub mod node;
pub mod session;
mod secrets;
pub mod register;
pub mod holding;
pub mod read;
pub mod grant;
pub mod replicate;
pub mod verify;
pub mod status;

pub use error::{RegistryError, Result};
pub use node::Registry;
