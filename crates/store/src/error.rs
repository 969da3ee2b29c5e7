//! What can go wrong when a store is opened, read or written.
//!
//! Owns one enum per operation; each message says what to do next.
//! Refuses to carry a value: file, offset and key are all that it names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::key::{Key, KeyError};
use crate::said::said;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "`{0}` 正被{1}占用，请先停止它，或把命令交给在那里运行的节点 / `{0}` is in use by {2}; stop that first, or give the command to the node that runs there",
        dir.display(), holder.chinese(), holder.english()
    )]
    Locked {
        /// The store's folder.
        dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Bytes that were durable fail their check or are gone.
    #[error(
        "`{0}` 在第 {offset} 字节处损坏，请从备份或上级恢复该文件，并用 `fangzhi verify` 查看全部损坏 / `{0}` is damaged at byte {offset}: {what}; restore the file from a backup or the parent, and run `fangzhi verify` to see all damage",
        file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Written by a later version of this format.
    #[error(
        "`{0}` 是格式第 {version} 版，本程序不识，请用写它的程序版本 / `{0}` has format version {version}, which this program does not know; run the version that wrote it",
        file.display()
    )]
    Unsupported {
        /// The segment file.
        file: PathBuf,
        /// The version it names.
        version: u8,
    },
    /// An option is out of its range.
    #[error("option `{name}` is {value}; choose {range}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
    /// The index could not be rebuilt.
    #[error(
        "`{0}` 中的索引无法写入，请腾出空间、检查磁盘后再打开 / the index in `{0}` cannot be written: {detail}; make room, check the disk, and open again",
        dir.display()
    )]
    Index {
        /// The index's folder.
        dir: PathBuf,
        /// What sled said.
        detail: String,
    },
    /// There is no room to open the index, or to rebuild it. Nothing was lost.
    #[error(
        "磁盘没有空间，索引打不开或无法重建；数据未丢失，腾出空间后再启动 / there is no room for the index in `{}`: {detail}; nothing is lost: what it says is in the segments; make room, up to the size of an index beside it, and open again",
        dir.display()
    )]
    Full {
        /// The index's folder.
        dir: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The operating system refused.
    #[error(
        "打不开存储 `{0}`：{1} / cannot open the store at `{0}`: {2}",
        file.display(), said(.error).0, said(.error).1
    )]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said; it is in the message, so it is no source to be walked to.
        error: io::Error,
    },
}

/// Who has a store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The process of this number.
    Process(u32),
    /// A process that left no number.
    Somebody,
    /// A verification, which reads the files.
    Verification,
}

impl Holder {
    fn chinese(self) -> String {
        match self {
            Self::Process(number) => format!("进程 {number} "),
            Self::Somebody => "另一进程".to_owned(),
            Self::Verification => "一次核验".to_owned(),
        }
    }

    fn english(self) -> String {
        match self {
            Self::Process(number) => format!("process {number}"),
            Self::Somebody => "another process".to_owned(),
            Self::Verification => "a verification".to_owned(),
        }
    }
}

/// Why a reading failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes on disk fail their checksum.
    #[error(
        "`{0}` 在第 {offset} 字节处损坏，请从备份或上级恢复该文件，并用 `fangzhi verify` 查看全部损坏 / `{0}` is damaged at byte {offset}: {what}; restore the file from a backup or the parent, and run `fangzhi verify` to see all damage",
        file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where the frame begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The index cannot be read; it is rebuilt when the store is next opened.
    #[error(
        "索引读不了，请重启节点，节点会据数据文件重建 / the index cannot be read: {detail}; restart the node, which rebuilds it from the segments"
    )]
    Index {
        /// What sled said.
        detail: String,
    },
    /// The shard or table to scan cannot be part of a key.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// The operating system refused.
    #[error(
        "读不了 `{0}`：{1} / cannot read `{0}`; check its permissions and the disk",
        file.display(), said(.source).0
    )]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why a batch was not committed, or not certainly.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else wrote first. Nothing was written.
    #[error("shard `{shard}` is at head {head}, not at {expected}; read it again and plan again")]
    Conflict {
        /// The shard.
        shard: String,
        /// What the batch expected.
        expected: u64,
        /// What it found.
        head: u64,
    },
    /// There was no room. Nothing was written, and the store goes on.
    #[error(
        "`{0}` 没有空间可写，没有写入任何内容，请腾出空间再试 / there is no room to write to `{0}`; nothing was written; make room and commit again",
        file.display()
    )]
    Full {
        /// The file that could not grow.
        file: PathBuf,
    },
    /// A value or the batch is beyond the limits. Nothing was written.
    #[error("a {what} of {bytes} bytes is too large; at most {max} fit, so split it")]
    TooLarge {
        /// `value` or `batch`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The shard's name is unfit. Nothing was written.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// A key belongs to another shard. Nothing was written.
    #[error(
        "key `{key}` does not belong to shard `{shard}`; commit it in a batch of its own shard"
    )]
    ForeignKey {
        /// The batch's shard.
        shard: String,
        /// The key.
        key: Key,
    },
    /// One batch names one key twice. Nothing was written.
    #[error("key `{key}` occurs twice in one batch; name each key once")]
    KeyTwice {
        /// The key.
        key: Key,
    },
    /// A snapshot takes no batches. Nothing was written.
    #[error("this store was opened to be verified and takes no batches; open it as `Embedded`")]
    ReadOnly,
    /// An earlier write failed, so what the disk holds is not known. This batch was not written.
    #[error(
        "此前写入失败，存储已停用，请重启节点 / the store stopped after an earlier failure: {reason}; reopen it and read the head"
    )]
    Stopped {
        /// The earlier failure.
        reason: String,
    },
    /// The write failed, and whether the batch is durable is not known.
    #[error(
        "写不了 `{0}`：{1}；请重启节点 / cannot write `{0}`; reopen the store and read the head",
        file.display(), said(.source).0
    )]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The batch may be durable in the segments but did not reach the index.
    #[error(
        "索引写不了，请重启节点 / the index cannot be written: {detail}; reopen the store and read the head"
    )]
    Index {
        /// What sled said.
        detail: String,
    },
}

impl CommitError {
    /// Whether it is certain that nothing of this batch was written, so that the caller may
    /// correct it and try again without reopening the store.
    pub fn is_refusal(&self) -> bool {
        match self {
            CommitError::Conflict { .. }
            | CommitError::Full { .. }
            | CommitError::TooLarge { .. }
            | CommitError::Name(_)
            | CommitError::ForeignKey { .. }
            | CommitError::KeyTwice { .. }
            | CommitError::ReadOnly => true,
            CommitError::Stopped { .. } | CommitError::Io { .. } | CommitError::Index { .. } => {
                false
            }
        }
    }
}

/// Puts the file's name beside what the system said.
pub(crate) fn open_io(file: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |error| OpenError::Io {
        file: file.to_owned(),
        error,
    }
}

/// Puts the file's name beside what the system said.
pub(crate) fn read_io(file: &Path) -> impl FnOnce(io::Error) -> ReadError + '_ {
    move |source| ReadError::Io {
        file: file.to_owned(),
        source: Arc::new(source),
    }
}

/// Puts the file's name beside what the system said.
pub(crate) fn commit_io(file: &Path) -> impl FnOnce(io::Error) -> CommitError + '_ {
    move |source| CommitError::Io {
        file: file.to_owned(),
        source: Arc::new(source),
    }
}

/// Whether the system refused for want of room: disk, quota or a limit on the file's size.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
