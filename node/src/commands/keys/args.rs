//! What can be asked of `fangzhi keys`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use record::id::{DivisionId, GrantId, Kind, Origin, RecordId};
use record::plan::{ShareHolder, Task};

use crate::args::{As, Dir};

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// 作方案：列明数量、用时与未连接者 / make a plan: what, how much, how long, who is unreachable
    Plan(Box<Plan>),
    /// 作常令：例行事项一次批准 / make the plan of a standing order for routine work
    Order(Order),
    /// 列出方案 / list plans
    List(List),
    /// 一个方案的详情 / one plan
    Show(One),
    /// 把方案写成文件，带给联系不上的安全员 / write a plan to a file, for an officer who is not reached
    Export(Export),
    /// 批准或否决他人的方案 / approve or refuse another officer's plan
    Approve(Approve),
    /// 收入以文件送来的批准 / take in an approval that came as a file
    Take(Take),
    /// 执行已批准的方案 / run an approved plan
    Run(One),
    /// 分份：取份额、确认、查看、放弃 / shares of the root: take, confirm, see, abandon
    #[command(subcommand)]
    Share(crate::commands::custody::args::Share),
    /// 执行换加密钥的方案，并给出新口令或钥匙文件 / run the plan of another key-encryption key, with what is to open the node
    Kek(crate::commands::custody::args::NewKek),
    /// 密钥期与重封进度 / key epochs, and how far resealing came
    Status(Status),
    /// 撤回方案，或终止常令 / withdraw a plan, or end a standing order
    Withdraw(One),
}

#[derive(Debug, ClapArgs)]
pub struct Status {
    #[command(flatten)]
    pub at: Dir,
    /// 守候至重封完成 / stay until nothing is left to reseal
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Plan {
    #[command(subcommand)]
    pub work: Work,
}

/// 何事、何人 / where, and in whose name
#[derive(Debug, Clone, ClapArgs)]
pub struct Whose {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
}

#[derive(Debug, Subcommand)]
pub enum Work {
    /// 换密钥期 / a new key epoch of a shard
    RotateEpoch {
        /// 类别 / the kind
        kind: Kind,
        /// 密钥已泄露 / a key is known to others
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// 销毁旧密钥期 / destroy the secret of an old epoch
    RetireEpoch {
        /// 类别 / the kind
        kind: Kind,
        /// 密钥期 / the epoch
        epoch: u32,
        #[command(flatten)]
        whose: Whose,
    },
    /// 提前终止授权 / end a grant before its time
    EndGrant {
        /// 授权号 / the grant
        grant: GrantId,
        /// 原因代号 / reason code such as agreement-ended
        #[arg(long)]
        reason: Kind,
        #[command(flatten)]
        whose: Whose,
    },
    /// 销毁一条记录 / erase a record
    Erase {
        /// 类别 / the kind
        kind: Kind,
        /// 记录号 / the record
        record: RecordId,
        /// 法律依据 / legal basis
        #[arg(long)]
        basis: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// 本节点换钥 / other keys for this node
    RotateNode {
        #[command(flatten)]
        whose: Whose,
    },
    /// 下级节点失钥，另发证书 / a node below lost its keys: charter others
    ReplaceCharter {
        /// 哪个节点 / which node
        division: DivisionId,
        /// 新公钥的 SHA-256（已知时）/ SHA-256 of its node keys, when they are known already
        #[arg(long, value_name = "HEX")]
        keys: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// 根密钥分份 / share the root among officers
    Share {
        /// 几份可开 / how many of the shares open
        #[arg(long)]
        threshold: u8,
        /// 持份人 单位:操作员编号 / who gets a share, as ORGANIZATION:OPERATOR-ID; once for each
        #[arg(long = "holder", value_name = "ORG:OPERATOR", value_parser = holder, required = true)]
        holders: Vec<ShareHolder>,
        #[command(flatten)]
        whose: Whose,
    },
    /// 说明时钟曾超前：其间经办的时间晚于联署 / explain that the clock was ahead: acts claim a time after their cosignatures
    ExplainClock {
        /// 账本名，如核验所列 / the ledger, as `verify` names it
        origin: Origin,
        /// 原因（不写人名）/ what happened; name no person
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// 换密钥库的加密钥 / another key-encryption key of the keystore
    RotateKek {
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Order {
    #[command(flatten)]
    pub whose: Whose,
    /// 事项，逗号分隔 / tasks, joined by commas: reseal, retract, retention, import, rotate
    #[arg(value_delimiter = ',', value_parser = task, required = true)]
    pub tasks: Vec<Task>,
    /// 类别（省略则全部）/ kinds, joined by commas; all when left out
    #[arg(long = "kind", value_delimiter = ',')]
    pub kinds: Vec<Kind>,
    /// 天数 / for how many days
    #[arg(long)]
    pub days: u32,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    #[command(flatten)]
    pub whose: Whose,
    /// 也列出已了结的 / those that are over, too
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, ClapArgs)]
pub struct One {
    #[command(flatten)]
    pub whose: Whose,
    /// 方案号，或其开头至少八位 / the plan's id, or its first digits, at least eight
    pub plan: String,
}

#[derive(Debug, ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub one: One,
    /// 写到文件 / write it to this file
    #[arg(long, short)]
    pub out: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct Approve {
    #[command(flatten)]
    pub one: One,
    /// 否决 / refuse it
    #[arg(long)]
    pub refuse: bool,
    /// 离线：方案文件；方案号须写全，电话核对 / offline: the plan's file; give the whole id, compared by telephone
    #[arg(long, value_name = "FILE", requires = "out")]
    pub file: Option<PathBuf>,
    /// 离线：批准写到此文件 / offline: write the approval to this file
    #[arg(long, short, requires = "file")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Take {
    #[command(flatten)]
    pub whose: Whose,
    /// 批准文件 / the approval's file
    pub file: PathBuf,
}

fn task(text: &str) -> Result<Task, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "use reseal, retract, retention, import or rotate".into())
}

fn holder(text: &str) -> Result<ShareHolder, String> {
    let (organization, operator) = text
        .split_once(':')
        .ok_or("use ORGANIZATION:OPERATOR-ID; see `fangzhi operator list`")?;
    Ok(ShareHolder {
        organization: organization
            .parse()
            .map_err(|e: record::id::IdError| e.to_string())?,
        operator: operator
            .parse()
            .map_err(|e: record::id::IdError| e.to_string())?,
        key: None,
    })
}
