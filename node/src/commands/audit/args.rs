//! What an auditor can ask on the command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use record::id::{Kind, Origin, Purpose, RecordId};

use crate::args::{As, Dir};

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// 总核验：账本、经办、证书、授权、联署、收存 / check everything a node holds; one page of findings
    All(All),
    /// 导出静态站点，供他人核验 / export a folder that any web server can serve to verifiers
    Export(Export),
    /// 证明一条在账本中 / prove that an entry is in its ledger (C2SP .tlog-proof)
    Prove(Prove),
    /// 离线核对证明、披露件或账头 / check a proof, a disclosure or a checkpoint, offline
    Check(Check),
    /// 比对同一账本的两个账头 / compare two checkpoints of one ledger
    Diff(Diff),
    /// 一条记录的经过，不开封 / who changed a record when, under which authority; opens no cell
    History(Box<History>),
    /// 一名操作员的全部经办 / every act of an operator
    Acts(Acts),
    /// 向第三人披露若干字段，附证明 / prove fields of a record to a third person; a reading
    Disclose(Box<Disclose>),
}

#[derive(Debug, ClapArgs)]
pub struct Node {
    /// 节点目录（运行与否均可，只读）/ the node's directory, running or not; only read
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct All {
    #[command(flatten)]
    pub node: Node,
    /// 写成网页 / write the findings as a page
    #[arg(long, short, value_name = "PAGE.html")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub node: Node,
    /// 站点目录 / directory of the site
    #[arg(long, short, value_name = "SITE")]
    pub out: PathBuf,
    /// 只导出这些账本 / these ledgers only
    #[arg(long, value_name = "ORIGIN")]
    pub ledger: Vec<Origin>,
    /// 连同条目（只给持证节点和审计员）/ with the entries, for charter holders and auditors only
    #[arg(long)]
    pub entries: bool,
    /// 连同尚未联署的账头 / with checkpoints that have no quorum of cosignatures yet
    #[arg(long)]
    pub uncosigned: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Prove {
    #[command(flatten)]
    pub node: Node,
    /// 账本 / the ledger
    pub origin: Origin,
    /// 条目序号，从 0 起 / index of the entry, from 0
    pub index: u64,
    /// 写到文件（省略则打印）/ write to this file; printed when left out
    #[arg(long, short, value_name = "FILE.tlog-proof")]
    pub out: Option<PathBuf>,
    /// 另把条目写到文件 / write the entry's bytes to this file too
    #[arg(long, value_name = "FILE")]
    pub entry_out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Check {
    /// 证明、披露件或账头 / a proof, a disclosure or a checkpoint
    pub file: PathBuf,
    /// 验签公钥，每行一个 / verifier keys, one a line
    #[arg(long, value_name = "VKEYFILE")]
    pub vkey: PathBuf,
    /// 条目文件，核对证明所指的就是它 / the entry's bytes, to be the ones that were proven
    #[arg(long, value_name = "FILE")]
    pub entry: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Diff {
    /// 旧的：账头文件，或导出的站点、账本目录 / the older: a checkpoint file, or an exported site or ledger folder
    #[arg(value_name = "OLDER")]
    pub a: PathBuf,
    /// 新的：同上 / the newer, the same
    #[arg(value_name = "NEWER")]
    pub b: PathBuf,
    /// 用此节点的哈希块和公钥 / take tiles and keys from this node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: Option<PathBuf>,
    /// 验签公钥，每行一个 / verifier keys, one a line
    #[arg(long, value_name = "VKEYFILE")]
    pub vkey: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct History {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 记录号 / the record
    pub record: RecordId,
    /// 类别 / the kind
    #[arg(long)]
    pub kind: Option<Kind>,
    /// 给出用途则另查改了哪些字段：这是一次查询，会留痕 / with a purpose, also list which fields changed: a reading, recorded
    #[arg(long)]
    pub purpose: Option<Purpose>,
    /// 依据或案号 / legal basis or case number
    #[arg(long)]
    pub basis: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Acts {
    #[command(flatten)]
    pub node: Node,
    /// 操作员编号，或此目录中的登录名 / the operator's id, or a login name of this directory
    #[arg(long)]
    pub operator: String,
}

#[derive(Debug, ClapArgs)]
pub struct Disclose {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 类别 / the kind
    pub kind: Kind,
    /// 记录号 / the record
    pub record: RecordId,
    /// 字段，逗号分隔 / fields, joined by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub fields: Vec<String>,
    /// 版本（省略则最新）/ the version; the newest when left out
    #[arg(long)]
    pub version: Option<u64>,
    /// 用途代码 / purpose code
    #[arg(long)]
    pub purpose: Purpose,
    /// 依据或案号 / legal basis or case number
    #[arg(long)]
    pub basis: Option<String>,
    /// 写到文件 / write to this file
    #[arg(long, short, value_name = "FILE.json")]
    pub out: PathBuf,
}
