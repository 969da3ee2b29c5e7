//! How a denial and a bad policy set are told.
//!
//! Owns the messages: which rule, why, whom to ask. Refuses to carry values of
//! fields; identifiers of rules, fields and purposes only.

use record::schema::Position;

/// The rule named when no rule permits: the default is nothing.
pub const DEFAULT_RULE: &str = "default-nothing";
/// Whom to ask when no rule says so.
pub const DEFAULT_ASK: &str = "本单位安全员 / the security officer of your organization";

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A rule forbids it.
    #[error("有规则禁止 / a rule forbids it")]
    Forbidden,
    /// No rule permits it.
    #[error("没有规则允许 / no rule permits it")]
    NothingPermits,
    /// A rule or the question could not be evaluated, which denies.
    #[error(
        "无法评估，故不允许；请检查策略 / it could not be evaluated, which denies; have the policy set and the question checked"
    )]
    Failed,
    /// The purpose is not in the realm's list.
    #[error(
        "用途不在用途表中，见 `fangzhi schema purposes` / the purpose is not in the list; see `fangzhi schema purposes`"
    )]
    UnknownPurpose,
    /// The field is not in the schema.
    #[error("此版数据规范没有该字段 / the field is not in this version of the schema")]
    UnknownField,
    /// The action is not asked in this way.
    #[error("此操作不适用于此对象 / the action does not apply to this")]
    Misplaced,
}

/// Not allowed: by which rule, why, and whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not allowed by rule `{rule}`: {reason}; ask {ask}")]
pub struct Denied {
    /// The id of the rule that denied, or [`DEFAULT_RULE`].
    pub rule: String,
    /// Whom to ask, in Chinese and English, divided by ` / `.
    pub ask: String,
    /// Why.
    pub reason: Reason,
    /// The field that was refused, if one was.
    pub field: Option<Position>,
}

impl Denied {
    pub(crate) fn by_default(reason: Reason) -> Self {
        Denied {
            rule: DEFAULT_RULE.to_owned(),
            ask: DEFAULT_ASK.to_owned(),
            reason,
            field: None,
        }
    }

    pub(crate) fn of_field(mut self, position: Position) -> Self {
        self.field = Some(position);
        self
    }
}

/// Why a policy set is refused. Nothing is decided by a set that is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A file cannot be read as what its name says.
    #[error("`{file}` cannot be read: {detail}; correct the file")]
    Syntax {
        /// The file.
        file: String,
        /// What the parser says.
        detail: String,
    },
    /// A rule lacks an annotation, or is a template.
    #[error("a rule in `{file}` {fault}; give every rule its own @id and an @ask")]
    Rule {
        /// The file.
        file: String,
        /// What is wrong.
        fault: String,
    },
    /// Strict validation found faults.
    #[error("the policy set does not fit its schema: {detail}; correct the rules")]
    Invalid {
        /// What the validator says, all of it.
        detail: String,
    },
    /// The list of purposes and the schema differ.
    #[error("the purposes in `purposes.json` and in the schema differ; make both lists the same")]
    Purposes,
    /// A file of a published set is missing.
    #[error(
        "`{file}` is missing; publish a set whole, beginning from `fangzhi publish export policies`"
    )]
    Missing {
        /// The file.
        file: &'static str,
    },
    /// A published set asks about other things than this program does.
    #[error(
        "the Cedar schema is another than this program's; change nothing in it but the purposes, or bring the program up to date first"
    )]
    Shape,
    /// A rule file is too large, or nests too much.
    #[error("`{file}` is too large; divide it into files by theme")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// A published set lacks a purpose that records may cite.
    #[error(
        "the purpose `{purpose}` is gone, and acts and grants may cite it; keep it in the list"
    )]
    PurposeDropped {
        /// The purpose.
        purpose: record::id::Purpose,
    },
    /// Under a published set nobody could publish another, or officers would approve their own.
    #[error(
        "under this set security officers could not rotate, administer or approve, or could approve their own requests; keep the rules of `security.cedar`"
    )]
    LocksOut,
    /// A file is neither a rule file nor `purposes.json`.
    #[error("`{file}` is not a file of a policy set; use `*.cedar` and `purposes.json`")]
    UnknownFile {
        /// The file.
        file: String,
    },
}
