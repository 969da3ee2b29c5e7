//! The use cases of a node, each a straight line.
//!
//! Owns the order in which things happen: decide, record, commit, open, mark. Each use case
//! computes one batch, and `store.commit` is its only write; new record secrets are durable
//! before it. Refuses to know of sockets and of HTTP.
//!
//! Read in this order: [`config`] and [`node`] (what a node is), [`table`] and [`book`] (how it
//! writes), [`authority`] and [`session`] (who may), [`register`], [`holding`], [`read`],
//! [`grant`], [`transfer`], [`proposals`], [`replicate`], [`verify`], [`status`], [`audit`].

pub mod addresses;
mod arrived;
pub mod audit;
pub mod authority;
mod awaited;
pub mod backups;
pub mod book;
mod chain;
pub mod charters;
mod clock;
pub mod config;
pub mod custody;
pub mod destroy;
pub mod disk;
mod entitled;
mod epoch;
mod erase;
pub mod error;
mod explained;
pub mod ferry;
pub mod forks;
pub mod grant;
pub mod guard;
pub mod heads;
pub mod holding;
pub mod keys;
mod lost;
mod moves;
pub mod moving;
pub mod node;
pub mod plan;
pub mod proposals;
pub mod publish;
pub mod published;
mod reach;
pub mod read;
pub mod recovery;
mod redact;
pub mod register;
pub mod renewal;
pub mod repair;
pub mod replicate;
pub mod reseal;
pub mod retention;
mod rotate;
mod secrets;
pub mod session;
pub mod standing;
pub mod status;
pub mod table;
pub mod transfer;
pub mod verify;
pub mod versions;
pub mod witness;

pub use error::{RegistryError, Result};
pub use node::Registry;
