//! What can go wrong in a use case, by what the caller can do about it.

use record::draft::Violation;
use record::id::{DivisionId, Kind, Origin, RecordId};

/// The Chinese and the English half of words that have both; else the same twice.
fn halves(words: &str) -> (&str, &str) {
    words.split_once(" / ").unwrap_or((words, words))
}

/// What failed, before the words of a layer below: each half before its own, where there are two.
fn both(chinese: &str, english: &str, words: &str) -> String {
    match words.split_once(" / ") {
        Some((zh, en)) => format!("{chinese}：{zh} / {english}{en}"),
        None => format!("{chinese} / {english}{words}"),
    }
}

/// Why a use case did not happen. Nothing was written unless a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The policy does not allow it.
    #[error(
        "不允许：{}（规则 {rule}；请联系 {}） / not allowed: {} (rule `{rule}`; ask {})",
        halves(.reason).0, halves(.ask).0, halves(.reason).1, halves(.ask).1
    )]
    Denied {
        /// The rule's id.
        rule: String,
        /// Whom to ask.
        ask: String,
        /// Why, in words.
        reason: String,
    },
    /// Login or passphrase do not fit.
    #[error(
        "登录名或口令不符 / the login or the passphrase does not fit; check both, or ask the security officer to enrol you again"
    )]
    BadLogin,
    /// The node's keys are closed.
    #[error(
        "节点已锁定，只供密文与证明；请安全员先执行 `fangzhi open` / the node is locked: it serves ciphertext and proofs, and signs and opens nothing; let a security officer run `fangzhi open`"
    )]
    Locked,
    /// The session ended or never was.
    #[error("请先登录 / no valid session; log in again")]
    NoSession,
    /// What was given breaks rules, all of them listed.
    #[error("{} 处不合规 / {} rules are broken; mend the fields named and send it again", .0.len(), .0.len())]
    Invalid(Vec<Violation>),
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such thing here.
    #[error("未找到：{what} `{name}` / not found here; {next}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its identifier.
        name: String,
        /// What to do next.
        next: &'static str,
    },
    /// No such kind of record.
    #[error("没有类别 `{0}` / no kind `{0}` in the catalogue; see `fangzhi schema list`")]
    NoKind(Kind),
    /// A schema that the realm published has not come here yet.
    #[error(
        "`{kind}` 第 {version} 版登记表尚未收到，请让节点与上级联通 / version {version} of the schema of `{kind}` has not come here yet; it comes with the root's authority ledger: let the node run and reach its parent, `fangzhi sync status` shows how far it is"
    )]
    NoSchema {
        /// The kind.
        kind: Kind,
        /// The version.
        version: u32,
    },
    /// The directory holds a node already, or none.
    #[error("{0}")]
    Directory(String),
    /// Two writers met; the caller may try again.
    #[error(
        "`{0}` 正被另一操作写入，请重试 / `{0}` was written by another operation meanwhile; try again"
    )]
    Conflict(Origin),
    /// The record has another version than the operator saw.
    #[error(
        "记录最新为第 {newest} 版，请重新查询后再变更 / the record's newest version is {newest}; read it again, then amend that"
    )]
    Stale {
        /// The newest version.
        newest: u64,
    },
    /// No charter of that division is known here.
    #[error(
        "没有 `{0}` 的节点证书 / no charter of `{0}` is known here; wait until the parent has replicated it, or enrol the node"
    )]
    NoCharter(DivisionId),
    /// The ledger is not signed at present: more was signed than is here.
    #[error("账本 `{origin}` 暂停签名：{} / `{origin}` is not signed at present: {}; {} entries were signed, {} are here. Let the node reach its parent, which holds the rest", .halt.reason, .halt.reason, .halt.signed, .halt.held)]
    Halted {
        /// The ledger.
        origin: Origin,
        /// Why.
        halt: crate::guard::Halt,
    },
    /// A plan may not be run.
    #[error(transparent)]
    NotApproved(#[from] crate::plan::NotApproved),
    /// An approval would not count.
    #[error("此批准不计 / this approval would not count: {0}")]
    Discounted(#[from] crate::plan::Discounted),
    /// Another plan for the same thing is open, or its work is under way.
    #[error(
        "同一事项已有方案 {plan} / plan {plan} is for the same thing and not finished; run it or withdraw it first"
    )]
    Underway {
        /// Its id.
        plan: String,
    },
    /// Stored bytes do not hold.
    #[error("存储内容有误：{what} / stored data does not hold: {what}; run `fangzhi verify`")]
    Damaged {
        /// What, in words.
        what: String,
    },
    /// A file that was given does not hold: it was altered or cut, or is something else.
    #[error(
        "`{path}` 被改动、截断或不是此类文件，什么也证明不了 / `{path}` was altered or cut, or is no file of this kind, and proves nothing: {why}; fetch it again from whoever made it"
    )]
    Altered {
        /// The file.
        path: String,
        /// What does not hold, in words.
        why: String,
    },
    /// The secret that opens a record is lost, with others of its page.
    #[error(
        "`{origin}` 的记录 {record} 打不开：第 {page} 页记录密钥缺损 / record {record} of `{origin}` cannot be opened, page {page} of record secrets is damaged: {what}"
    )]
    Unreadable {
        /// The ledger.
        origin: Origin,
        /// The record.
        record: RecordId,
        /// The page.
        page: u32,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The store refused or failed.
    #[error("{}", both("存储失败", "the store failed: ", .0))]
    Store(String),
    /// A file to be carried was not taken in, or not made.
    #[error(transparent)]
    Ferry(#[from] crate::ferry::Refused),
    /// A file could not be read or written.
    #[error("{}", both("文件有误", "", .0))]
    File(String),
}

impl RegistryError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::BadLogin => "bad-login",
            Self::NoSession => "no-session",
            Self::Locked => "locked",
            Self::Invalid(_) => "invalid",
            Self::BadRequest(_) => "bad-request",
            Self::NotFound { .. } => "not-found",
            Self::NoKind(_) => "no-kind",
            Self::NoSchema { .. } => "no-schema",
            Self::Directory(_) => "directory",
            Self::Conflict(_) | Self::Stale { .. } => "conflict",
            Self::NoCharter(_) => "no-charter",
            Self::Halted { .. } => "halted",
            Self::NotApproved(_) => "not-approved",
            Self::Discounted(_) => "discounted",
            Self::Underway { .. } => "underway",
            Self::Damaged { .. } | Self::Unreadable { .. } => "damaged",
            Self::Altered { .. } => "altered",
            Self::Ferry(refused) => refused.code(),
            Self::Store(_) => "store",
            Self::File(_) => "file",
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(crate) fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        let (chinese, english) = store::said::said(&source);
        let path = path.display();
        Self::File(format!("`{path}` {chinese} / file `{path}`: {english}"))
    }
}

impl From<store::atomic::FileError> for RegistryError {
    fn from(error: store::atomic::FileError) -> Self {
        Self::File(words(&error))
    }
}

/// An error with its causes, on one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl From<store::ReadError> for RegistryError {
    fn from(error: store::ReadError) -> Self {
        Self::Store(words(&error))
    }
}

/// The result of a use case.
pub type Result<T> = std::result::Result<T, RegistryError>;

#[cfg(test)]
mod tests {
    use super::RegistryError;

    #[test]
    fn a_file_that_fails_is_told_in_chinese_and_then_in_english() {
        let path = std::path::Path::new("/nowhere/node.json");
        let bounded = store::atomic::read_bounded(path, 9).unwrap_err();
        let missing = std::fs::read(path).unwrap_err();
        let full = store::CommitError::Full { file: path.into() };
        for error in [
            RegistryError::from(bounded),
            RegistryError::file(path, missing),
            RegistryError::Store(super::words(&full)),
        ] {
            let told = error.to_string();
            let (chinese, english) = told.split_once(" / ").unwrap();
            assert!(
                chinese.contains("请") && chinese.contains("/nowhere"),
                "{told}"
            );
            assert!(english.is_ascii() && english.contains("; "), "{told}");
        }
        let alone = RegistryError::Store("sled hums".into()).to_string();
        assert_eq!(alone, "存储失败 / the store failed: sled hums");
    }

    #[test]
    fn a_denial_says_each_half_once() {
        let denied = RegistryError::Denied {
            rule: "r1".into(),
            ask: "本社区登记员 / a clerk".into(),
            reason: "没有规则允许 / no rule permits it".into(),
        };
        assert_eq!(
            denied.to_string(),
            "不允许：没有规则允许（规则 r1；请联系 本社区登记员） / not allowed: no rule permits it (rule `r1`; ask a clerk)"
        );
    }
}
