//! Backups (备份): a node's files, copied while it runs, sealed with `age` to recipients.
//!
//! Owns the layout of a backup folder (`docs/formats/backup.md`): objects, each one file of the
//! node sealed by itself and used again by later sets while it does not change;
//! and sets, each a list of the objects that make a node. What opens records lies apart from the
//! history and is destroyed when its time is over.
//! Refuses to write into a folder of another node, to restore over anything, and to believe a
//! file of which a single byte is missing or changed. Knows no ledgers: whether what comes back
//! holds is for `registry::verify` to say.
//!
//! Read in this order: [`set`] (what a set is), [`sealed`] (objects), `make`, `check`,
//! `restore`, `prune`.

mod check;
mod error;
mod folder;
mod make;
mod prune;
mod restore;
pub mod sealed;
pub mod set;

pub use check::{Checked, check};
pub use error::BackupError;
pub use folder::{Folder, sets};
pub use make::{Made, Wanted, make};
pub use prune::{Pruned, prune};
pub use restore::{How, Restored, one_file, restore};
