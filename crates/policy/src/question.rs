//! What is asked: who, to do what, with whose records, what for.
//!
//! Owns the words of a question. Refuses nothing: the caller vouches that asker,
//! division, ancestors and grant are as the charters and ledgers have them.

use record::authority::{Level, Role};
use record::id::{DivisionId, OperatorId, Purpose};
use record::schema::Schema;

/// Who asks: an operator with a session, as the operator's certificate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The operator. Rules cannot name one; the permit does.
    pub operator: OperatorId,
    /// The role.
    pub role: Role,
    /// The operator's organization.
    pub organization: DivisionId,
    /// The level of that organization's node.
    pub level: Level,
    /// The grid of a grid worker.
    pub grid: Option<String>,
}

/// What the asker wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Open a record.
    Read,
    /// Find records: the right to a field is also the right to filter and sort by it.
    Search,
    /// See records in a list.
    List,
    /// Take records out as a file.
    Export,
    /// Register, import or amend.
    Amend,
    /// Ask the owner for a change.
    Propose,
    /// Carry ciphertext to another node.
    Replicate,
    /// Verify histories and access ledgers.
    Audit,
    /// Rotate keys.
    Rotate,
    /// Approve what another officer requested.
    Approve,
    /// Give a holder the keys to fields.
    Grant,
    /// Enrol, invite, configure.
    Administer,
    /// Hand a record to another division, or take one over.
    Transfer,
}

impl Action {
    /// The action as policies and case files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Search => "search",
            Action::List => "list",
            Action::Export => "export",
            Action::Amend => "amend",
            Action::Propose => "propose",
            Action::Replicate => "replicate",
            Action::Audit => "audit",
            Action::Rotate => "rotate",
            Action::Approve => "approve",
            Action::Grant => "grant",
            Action::Administer => "administer",
            Action::Transfer => "transfer",
        }
    }

    /// Whether the action shows fields, rather than changing or sharing them.
    pub fn shows(self) -> bool {
        matches!(
            self,
            Action::Read | Action::Search | Action::List | Action::Export
        )
    }

    /// Whether the action is on the fields of a record, and [`crate::decide`] answers it.
    pub fn is_on_fields(self) -> bool {
        self.shows() || matches!(self, Action::Amend | Action::Propose)
    }
}

impl std::str::FromStr for Action {
    type Err = record::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            Action::Read,
            Action::Search,
            Action::List,
            Action::Export,
            Action::Amend,
            Action::Propose,
            Action::Replicate,
            Action::Audit,
            Action::Rotate,
            Action::Approve,
            Action::Grant,
            Action::Administer,
            Action::Transfer,
        ]
        .into_iter()
        .find(|action| action.as_str() == text)
        .ok_or(record::id::IdError {
            what: "action",
            rule: "use an action of the policy schema, such as `read` or `amend`",
        })
    }
}

/// Which fields and rows may the asker see or change?
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who asks.
    pub asker: &'a Asker,
    /// To do what: one of read, search, list, export, amend, propose.
    pub action: Action,
    /// The fields.
    pub schema: &'a Schema,
    /// Whose records.
    pub division: &'a DivisionId,
    /// The divisions above it, nearest first, up to and including the asker's
    /// organization when that is above.
    pub ancestors: &'a [DivisionId],
    /// The purpose of the grant under which this node holds the records.
    pub held_by_grant: Option<&'a Purpose>,
    /// What for.
    pub purpose: &'a Purpose,
}
