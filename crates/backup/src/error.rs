//! What can go wrong with a backup, and what to do about it.

use std::path::{Path, PathBuf};

use store::said::said;

/// Why a backup was not made, checked or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system refused.
    #[error("`{0}`：{1} / cannot use `{0}`: {2}", path.display(), said(.error).0, said(.error).1)]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said; it is in the message, so it is no source to be walked to.
        error: std::io::Error,
    },
    /// The folder is of another node.
    #[error("`{}` 是 `{found}` 的备份 / `{}` holds the backups of `{found}`; choose another folder", path.display(), path.display())]
    OtherNode {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// There is no backup there.
    #[error("`{}` 中没有备份 / there is no such backup in `{}`; see `fangzhi backup list`", path.display(), path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// A recipient or an identity cannot be read.
    #[error("{0}")]
    Key(String),
    /// The list of a set is cut short or was changed.
    #[error("清单 `{}` 不完整或被改动 / the list `{}` is cut short or was changed: {why}; use another set", path.display(), path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Objects do not hold.
    #[error("备份有 {} 处不符 / {} objects of the backup do not hold, the first: {}", .0.len(), .0.len(), .0.first().map_or("", String::as_str))]
    Broken(Vec<String>),
    /// Objects are as they were written, and sealed to other keys than those given.
    #[error(
        "私钥不对：第 {number} 份完好，但 {of} 个对象中有 {unopened} 个不是封给它的 / this identity does not open set {number}: {unopened} of {of} objects are whole and sealed to another key; give the identity that the backup was made for"
    )]
    OtherKey {
        /// The set.
        number: u64,
        /// How many objects do not open.
        unopened: usize,
        /// How many there are.
        of: usize,
    },
    /// The part that opens records was destroyed when its time was over, or is not wanted.
    #[error(
        "该备份的密钥部分已到期销毁 / the part of this backup that opens records has expired; restore with `--history-only`, then recover the keys"
    )]
    SecretsGone,
    /// Something is there already.
    #[error("`{}` 不是空目录 / `{}` is not empty; restore into an empty directory", path.display(), path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another backup is being made there.
    #[error("`{}` 正在备份 / another backup is being made in `{}`; wait for its end", path.display(), path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The node's files changed each time they were read.
    #[error(
        "节点密钥正在更换，请稍后再备份 / the node's keys changed while they were copied; try again"
    )]
    Moving,
}

impl BackupError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, BackupError>;
