//! A ledger that one export has and a later one has not: whether anything explains that.
//!
//! Owns the file `nodes` of a site, which says whose exports it is made of, and the verdict.
//! Refuses to take silence for an explanation: a ledger only grows, so one that is gone was taken
//! away, unless a signed statement says that it ended. That the later side names other nodes is
//! said, and excuses nothing: anybody can write that file.

use std::collections::BTreeSet;
use std::path::Path;

use record::id::{DivisionId, Origin, Realm};
use serde::Serialize;

use super::view::View;
use crate::error::{RegistryError, Result};

/// The file of a site that names the nodes whose exports it is made of, one a line.
pub const NODES: &str = "nodes";
/// The largest such file that is read.
const NODES_BYTES_MAX: u64 = 64 * 1024;

/// The nodes whose exports a site is made of, as `<realm>/<division>`.
pub type Nodes = BTreeSet<String>;

/// Why a ledger of the older side is not on the newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Why {
    /// Nothing explains it.
    Unexplained,
    /// The grant ended, or its holder signed that it dropped it.
    GrantEnded,
    /// The shard was closed, and these of its successors are on the newer side.
    Moved {
        /// Who follows it.
        successors: Vec<Origin>,
    },
    /// The newer side says that it is of other nodes, with which the older one cannot be compared.
    OtherNodes {
        /// The newer side's nodes.
        nodes: Nodes,
    },
}

/// A ledger of the older side that is not on the newer one.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// The ledger, as its folder is called.
    pub origin: String,
    /// Whether that is as it should be.
    pub explained: bool,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

/// One side of a comparison of sites.
#[derive(Debug, Clone, Default)]
pub struct SiteSide {
    /// The ledgers in it, as their folders are called.
    pub ledgers: BTreeSet<String>,
    /// Whose exports it is made of; empty when it does not say.
    pub nodes: Nodes,
}

/// The file that says that a site has an export of this node, beside those that it has already.
///
/// # Errors
/// [`crate::RegistryError::File`] when the present one cannot be read.
pub fn nodes_with(site: &Path, realm: &Realm, division: &DivisionId) -> Result<String> {
    let mut nodes = nodes(site)?;
    nodes.insert(format!("{realm}/{division}"));
    Ok(nodes.into_iter().map(|node| node + "\n").collect())
}

/// The nodes whose exports a site is made of; none when it does not say.
///
/// # Errors
/// [`crate::RegistryError::File`].
pub fn nodes(site: &Path) -> Result<Nodes> {
    let path = site.join(NODES);
    // A link would show another file, a pipe would never end.
    if std::fs::symlink_metadata(&path).is_ok_and(|file| !file.is_file()) {
        return Err(RegistryError::BadRequest(format!(
            "`{}` 不是普通文件 / is no regular file; export the site anew",
            path.display()
        )));
    }
    let bytes = match store::atomic::read_bounded(&path, NODES_BYTES_MAX) {
        Err(store::atomic::FileError::Missing { .. }) => return Ok(Nodes::new()),
        bytes => bytes?,
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The ledgers of the older side that are not on the newer one, and what the authority ledgers of
/// `view` say of them.
pub fn missing(older: &SiteSide, newer: &SiteSide, view: Option<&View>) -> Vec<Missing> {
    let gone = older.ledgers.difference(&newer.ledgers);
    gone.map(|origin| {
        let why = why(origin, older, newer, view);
        let (zh, en) = words(&why);
        Missing {
            origin: origin.clone(),
            explained: matches!(why, Why::GrantEnded | Why::Moved { .. }),
            why,
            zh,
            en,
        }
    })
    .collect()
}

fn why(origin: &str, older: &SiteSide, newer: &SiteSide, view: Option<&View>) -> Why {
    let others = !newer.nodes.is_empty() && !older.nodes.is_empty();
    if others && older.nodes.is_disjoint(&newer.nodes) {
        let nodes = newer.nodes.clone();
        return Why::OtherNodes { nodes };
    }
    let (Some(view), Ok(origin)) = (view, Origin::parse(origin)) else {
        return Why::Unexplained;
    };
    let authority = view.authority();
    if let Some(id) = origin.grant_id() {
        let dropped = |holder| authority.dropped(holder, &origin);
        let over = authority.grant_ended(&id).is_some()
            || authority.grant(&id).is_some_and(|g| dropped(&g.holder));
        if over {
            return Why::GrantEnded;
        }
    }
    let successors = authority.closing(&origin).map(|closed| &closed.successors);
    let there = successors.into_iter().flatten();
    let there = there.filter(|successor| newer.ledgers.contains(successor.as_str()));
    let successors: Vec<Origin> = there.cloned().collect();
    match successors.is_empty() {
        true => Why::Unexplained,
        false => Why::Moved { successors },
    }
}

fn words(why: &Why) -> (String, String) {
    match why {
        Why::Unexplained => (
            "后者没有这个账本，而账本只增不减：后者被删减，或不是完整导出；保留前者并查明原因。授权终止或分片迁出可用 --dir 查证".into(),
            "it is MISSING from the newer side, and ledgers are never taken away: that side was cut, or exported in part; keep the older one and find out why. A grant that ended or a shard that moved is looked up with --dir".into(),
        ),
        Why::GrantEnded => (
            "授权已终止，后者不再持有".into(),
            "the grant ended, and the newer side does not hold it any more".into(),
        ),
        Why::Moved { successors } => {
            let successors: Vec<&str> = successors.iter().map(Origin::as_str).collect();
            let successors = successors.join(", ");
            (
                format!("分片已结账，后继为 `{successors}`，后者已有"),
                format!("the shard was closed, and `{successors}` follows it on the newer side"),
            )
        }
        Why::OtherNodes { nodes } => {
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let nodes = nodes.join(", ");
            (
                format!("后者自称由另一节点 `{nodes}` 导出，无从比较；请取同一节点的先后两次导出"),
                format!("the newer side says that it was exported by another node, `{nodes}`, which cannot be compared with; take two exports of the same node"),
            )
        }
    }
}
