//! Closing and opening cells: field keys, row keys, bodies, grants and keystores.
//!
//! Pure: values in, values out; randomness is an argument, there are no files and no clock.
//! What may be opened is decided in `policy`, that it is logged first in `registry`.
//!
//! Read in this order: [`secret`] and [`mod@derive`] (which key opens what), [`content`]
//! (what the ledger commits to), [`body`] (sealing and opening records), [`grant`] and
//! [`parcel`] (what a holder gets), [`letter`] (what a proposer writes to an owner), then what a node keeps for itself: [`blob`],
//! [`page`], [`passphrase`], [`keystore`], [`operator`]; last [`share`], [`dealt`] and [`recovery`],
//! by which officers keep what a lost node needs, and [`ferry`], what a file carries across a gap.
//!
//! ```
//! use record::id::{Kind, Origin, RecordId};
//! use seal::derive::{field_key, row_key};
//! use seal::secret::{EpochSecret, RecordSecret};
//!
//! let shard = Origin::parse("jiangjin.example/jinfu/person")?;
//! let epoch = EpochSecret::from_bytes([1; 32]);
//! let record = RecordSecret::from_bytes([2; 32]);
//! // A cell opens with both: the key of its column and the key of its row.
//! let phone = field_key(&epoch, &shard, 1, 12);
//! let contact = row_key(&record, &shard, &RecordId([3; 16]), &Kind::new("contact")?);
//! assert_eq!(format!("{phone:?} {contact:?}"), "FieldKey(hidden) RowKey(hidden)");
//! # Ok::<(), record::id::IdError>(())
//! ```

pub mod blob;
pub mod body;
mod cell;
pub mod content;
pub mod dealt;
pub mod derive;
pub mod ferry;
pub mod grant;
pub mod keystore;
pub mod letter;
pub mod operator;
pub mod page;
pub mod parcel;
pub mod passphrase;
mod provider;
pub mod recovery;
pub mod secret;
pub mod share;

mod aead;
#[cfg(test)]
mod attacks;
mod hybrid;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod wycheproofs;
