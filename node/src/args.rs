//! What can be asked on the command line. Chinese first, English second.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use record::authority::{Level, Role};
use record::id::{DivisionId, Kind, Purpose, Realm};

/// 方志：本辖区民政底册的加密节点 / Fangzhi: a locality's own encrypted civil register
#[derive(Debug, Parser)]
#[command(
    name = "fangzhi",
    version,
    about,
    after_help = "先试演示：fangzhi demo        / try the demonstration first\n退出码：0 成功 1 失败 2 用法 3 部分完成 4 策略不允许 7 核验不通过 8 连接不上 9 正被占用\nExit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 4 denied by policy, 7 verification failed, 8 not reachable, 9 busy"
)]
pub struct Args {
    /// 以 JSON 输出 / answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// 日志为 JSON 行 / log as JSON lines
    #[arg(long, global = true)]
    pub log_json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// 建立辖域的根节点 / make the root node of a realm
    Init(Init),
    /// 凭邀请加入辖域 / join a realm by an invitation
    Join(Join),
    /// 运行节点 / run the node
    Run(Run),
    /// 打开已锁定的节点 / open a locked node
    Open(crate::commands::custody::args::OpenNode),
    /// 锁定运行中的节点：密钥离开内存 / lock a running node: its keys leave the memory
    Lock(crate::commands::custody::args::Lock),
    /// 恢复丢失的节点 / rebuild a lost node
    #[command(subcommand)]
    Recover(crate::commands::custody::args::Recover),
    /// 节点状态 / what the node is and holds
    Status(Dir),
    /// 同步：各对端、各账本收存与落后的情况 / replication: what each neighbour holds and lacks
    #[command(subcommand)]
    Sync(Sync),
    /// 摆渡：跨隔离边界以文件复制 / ferry: replication by file, across an air gap
    #[command(subcommand)]
    Ferry(Box<crate::commands::ferry::args::Ferry>),
    /// 体检：每项附改进办法 / check the node, with a remedy for each fault
    Doctor(Dir),
    /// 邀请下级或部门节点 / invite a node to join under this one
    Invite(Invite),
    /// 线路：复制地址、上级地址、先用 TCP 还是 QUIC / where replication listens, where the parent is, TCP or QUIC first
    Network(crate::commands::network::Network),
    /// 请另一节点联署本节点的账头 / ask another node of the realm to cosign this one's checkpoints
    Witness(Witness),
    /// 吊销下级节点证书 / revoke the charter of a node under this one
    Revoke(Revoke),
    /// 操作员 / operators
    #[command(subcommand)]
    Operator(Operator),
    /// 数据规范 / schemas
    #[command(subcommand)]
    Schema(Schema),
    /// 生成合成样例 / make a synthetic sample community
    Sample(Sample),
    /// 导入登记 / register the rows of a CSV file
    Import(Import),
    /// 查询：先留痕，再开封，带水印 / read: recorded first, then opened, then marked
    Read(Read),
    /// 变更或注销 / amend or close a record
    Amend(Amend),
    /// 授权 / grants
    #[command(subcommand)]
    Grant(Grant),
    /// 提出变更建议：请记录所属单位变更 / ask the owner of a record for a change
    Propose(Box<crate::commands::proposals::Propose>),
    /// 已提出的变更建议 / what this node proposed to others
    #[command(subcommand)]
    Proposals(crate::commands::proposals::Sent),
    /// 收到的变更建议：查看、采纳、修改、不采纳 / what others proposed: list, show, accept, amend, refuse
    #[command(subcommand)]
    Inbox(crate::commands::proposals::Inbox),
    /// 迁移：把记录交给另一个登记单位 / transfers: handing a record to another division
    #[command(subcommand)]
    Transfer(Box<crate::commands::transfer::Transfer>),
    /// 密钥：方案、批准、执行、常令 / keys: plan, approve, run, standing orders
    #[command(subcommand)]
    Keys(crate::commands::keys::args::Keys),
    /// 发布政策、类别和代码表，逐级下发 / publish policies, schemas and code lists to every node below
    #[command(subcommand)]
    Publish(crate::commands::publish::args::Publish),
    /// 销毁一条记录：作方案，或查看回执 / erase a record: make the plan, or show the receipts
    Erase(Box<crate::commands::erase::Erase>),
    /// 未到的销毁回执 / receipts of destruction that are waited for
    Receipts(Box<crate::commands::keys::args::Whose>),
    /// 保存期限：查看到期者，凭常令销毁 / retention: what is past its term, and erasing it
    #[command(subcommand)]
    Retention(Box<crate::commands::erase::Retention>),
    /// 修复损坏的存储：缺损处由上级取回 / repair damaged files; what is lost comes back from the parent
    Repair(Repair),
    /// 核验全部历史（离线，仅凭公钥）/ verify every root, signature and body, offline
    Verify(Verify),
    /// 审计：导出、证明、比对、经过、披露、总核验 / audit: export, prove, compare, history, disclose, all
    #[command(subcommand)]
    Audit(crate::commands::audit::args::Audit),
    /// 备份与恢复 / backups: made, checked, rehearsed, restored
    #[command(subcommand)]
    Backup(crate::commands::backup::args::Backup),
    /// 演示：五个节点的辖域 / demonstration: a realm of five nodes
    Demo(Demo),
    /// 测速：每项旁列同次测得的极限 / measure, each figure beside its limit in the same run
    Bench(Bench),
}

/// 同步 / replication
#[derive(Debug, Subcommand)]
pub enum Sync {
    /// 同步状况：持有、联署、落后、出错、重试、版本 / held, cosigned, behind, errors, next try, versions
    Status(Dir),
}

/// 节点目录 / the node's directory
#[derive(Debug, Clone, ClapArgs)]
pub struct Dir {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub open: Open,
}

/// 打开密钥库 / how the keystore is opened when the node is not running
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Open {
    /// 节点密钥库口令文件 / file with the passphrase of the node's keystore
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// 以谁的身份 / in whose name
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct As {
    /// 操作员登录名（省略时用唯一合适的操作员）/ operator's login name; the only fitting one when left out
    #[arg(long = "as", value_name = "OPERATOR")]
    pub operator: Option<String>,
    /// 操作员口令文件 / file with the operator's passphrase
    #[arg(long, value_name = "FILE", env = "FANGZHI_OPERATOR_PASSPHRASE_FILE")]
    pub operator_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Listen {
    /// HTTP 地址 / where HTTP listens
    #[arg(long, default_value = "127.0.0.1:8460")]
    pub http: String,
    /// 复制地址；另开 QUIC 时以逗号相隔 / where replication listens; to offer QUIC too, name both with a comma between: 0.0.0.0:8461,/ip4/0.0.0.0/udp/8461/quic-v1
    #[arg(long, default_value = "0.0.0.0:8461")]
    pub listen: String,
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TransportName {
    /// TCP 与 TLS / TCP and TLS
    Tcp,
    /// QUIC
    Quic,
}

impl From<TransportName> for registry::addresses::Transport {
    fn from(name: TransportName) -> Self {
        match name {
            TransportName::Tcp => Self::Tcp,
            TransportName::Quic => Self::Quic,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct FirstOfficer {
    /// 首位安全员的登录名 / login name of the first security officer
    #[arg(long, default_value = "anquan")]
    pub officer: String,
    /// 其口令文件；省略则询问 / file with the officer's passphrase; asked for when left out
    #[arg(long, value_name = "FILE")]
    pub officer_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Init {
    #[command(flatten)]
    pub at: Dir,
    /// 辖域域名 / domain of the realm
    #[arg(long)]
    pub realm: Realm,
    /// 行政区划内部代号 / the division's internal id
    #[arg(long)]
    pub division: DivisionId,
    /// 中文名称 / name in Chinese
    #[arg(long)]
    pub name: String,
    /// 级别 / level
    #[arg(long, default_value = "district", value_parser = level)]
    pub level: Level,
    /// 行政区划代码 方案:代码:起始日 / official code as scheme:code:YYYY-MM-DD
    #[arg(long = "code", value_name = "SCHEME:CODE:FROM")]
    pub codes: Vec<String>,
    /// 账头公布前须有的联署数 / cosignatures that a checkpoint needs before it is published
    #[arg(long, default_value_t = 1)]
    pub quorum: u32,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub officer: FirstOfficer,
}

#[derive(Debug, ClapArgs)]
pub struct Join {
    #[command(flatten)]
    pub at: Dir,
    /// 邀请文件 / the invitation file
    pub invitation: PathBuf,
    /// 目录中已有的节点换新密钥，其余不变；节点须先停下 / other keys for the node that is in the directory, which must not run; everything else of it stays
    #[arg(long)]
    pub new_keys: bool,
    /// 没有线路：写出申请文件，送上级准入 / without a line: write a request to this file, for the parent's `fangzhi ferry admit`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_keys", "admission"])]
    pub offline: Option<PathBuf>,
    /// 凭上级送回的准入文件建立节点 / make the node by the admission that came back
    #[arg(long, value_name = "FILE", conflicts_with = "new_keys")]
    pub admission: Option<PathBuf>,
    /// 先用哪种传输连上级（QUIC 不通则用 TCP）/ how the parent is dialled first; where QUIC does not pass, TCP does; as the invitation says when left out
    #[arg(long)]
    pub transport: Option<TransportName>,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub officer: FirstOfficer,
}

#[derive(Debug, ClapArgs)]
pub struct Run {
    #[command(flatten)]
    pub at: Dir,
    /// 标准输入关闭即停止 / stop when standard input closes: a node never outlives its demonstration
    #[arg(long, hide = true)]
    pub while_stdin: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Invite {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 行政区划内部代号 / the new node's division
    #[arg(long)]
    pub division: DivisionId,
    /// 中文名称 / name in Chinese
    #[arg(long)]
    pub name: String,
    /// 级别 / level
    #[arg(long, value_parser = level)]
    pub level: Level,
    /// 行政区划代码 方案:代码:起始日 / official code as scheme:code:YYYY-MM-DD
    #[arg(long = "code", value_name = "SCHEME:CODE:FROM")]
    pub codes: Vec<String>,
    /// 新节点可到达的本节点地址 / this node's replication address as the new node reaches it; QUIC is added where this node listens for it
    #[arg(long)]
    pub address: String,
    /// 写到文件 / write the invitation to this file
    #[arg(long, short)]
    pub out: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct Witness {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    /// 见证节点 / the witness's division
    pub division: DivisionId,
    /// 其 HTTP 地址 / its HTTP address, such as http://10.0.0.5:8460; leave out to ask it no more
    pub url: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Revoke {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 被吊销的节点 / whose charter
    pub division: DivisionId,
    /// 原因代号 / reason code such as lost-key
    #[arg(long)]
    pub reason: Kind,
}

#[derive(Debug, Subcommand)]
pub enum Operator {
    /// 登记操作员 / enrol an operator
    Add(OperatorAdd),
    /// 换钥：失机、忘记口令或停用后恢复 / another key: after a lost phone, a forgotten passphrase, a disabling
    Renew(OperatorRenew),
    /// 停用操作员 / disable an operator: the key signs nothing from then on
    Disable(OperatorDisable),
    /// 列出操作员 / list operators
    List(OperatorList),
}

#[derive(Debug, ClapArgs)]
pub struct OperatorAdd {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 登录名 / login name
    pub login: String,
    /// 角色 / role: clerk, grid-worker, district-officer, department-officer, auditor, security-officer
    #[arg(long, value_parser = role)]
    pub role: Role,
    /// 网格员的网格 / the grid of a grid worker
    #[arg(long)]
    pub grid: Option<String>,
    /// 新操作员的口令文件；省略则询问 / file with the new operator's passphrase; asked for when left out
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct OperatorRenew {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 登录名 / login name
    pub login: DivisionId,
    /// 新口令文件；省略则询问 / file with the new passphrase; asked for when left out
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct OperatorDisable {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 登录名 / login name
    pub login: DivisionId,
}

#[derive(Debug, ClapArgs)]
pub struct OperatorList {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
}

#[derive(Debug, Subcommand)]
pub enum Schema {
    /// 列出类别 / list the kinds
    List {
        /// 节点目录；省略则只看程序自带的 / the node's directory; what the program carries when left out
        #[arg(long, env = "FANGZHI_DIR")]
        dir: Option<PathBuf>,
    },
    /// 用途表 / the purposes that a reading, an act or a grant may name
    Purposes {
        /// 节点目录；省略则只看程序自带的 / the node's directory; what the program carries when left out
        #[arg(long, env = "FANGZHI_DIR")]
        dir: Option<PathBuf>,
    },
    /// 一个类别的字段 / the fields of a kind
    Show {
        /// 类别 / the kind
        kind: Kind,
        /// 节点目录；省略则只看程序自带的 / the node's directory; what the program carries when left out
        #[arg(long, env = "FANGZHI_DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Sample {
    /// 输出目录 / directory to write CSV files to
    #[arg(long, short)]
    pub out: PathBuf,
    /// 随机种子：同种子同结果 / seed: the same seed gives the same files
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// 人数 / number of persons
    #[arg(long, default_value_t = 300)]
    pub persons: usize,
    /// 社区名称 / name of the community
    #[arg(long, default_value = "样例社区")]
    pub name: String,
}

#[derive(Debug, ClapArgs)]
pub struct Import {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 类别 / the kind
    pub kind: Kind,
    /// CSV 文件，UTF-8 或 GBK，可为 .gz / CSV file in UTF-8 or GBK, may be .gz
    pub file: PathBuf,
    /// 只预览 / preview only: nothing is written
    #[arg(long)]
    pub dry_run: bool,
    /// 退回文件（省略则在原文件旁）/ where rejected rows go; beside the file when left out
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// 只取该列为该值的行 / take only rows whose column has this value
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub only: Vec<String>,
    /// 有退回行时整批不写 / write nothing when any row would be rejected
    #[arg(long)]
    pub all_or_nothing: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Read {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 类别 / the kind
    pub kind: Kind,
    /// 条件：= 相等，^= 开头，~= 包含 / condition: field=value, field^=prefix, field~=part
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub conditions: Vec<String>,
    /// 用途代码 / purpose code
    #[arg(long)]
    pub purpose: Purpose,
    /// 依据或案号 / legal basis or case number
    #[arg(long)]
    pub basis: Option<String>,
    /// 需要的字段，逗号分隔 / fields wanted, joined by commas
    #[arg(long, value_delimiter = ',')]
    pub fields: Option<Vec<String>>,
    /// 也列出已注销的 / answer closed records too
    #[arg(long)]
    pub closed: bool,
    /// 最多条数 / the most records
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
}

#[derive(Debug, ClapArgs)]
pub struct Amend {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 类别 / the kind
    pub kind: Kind,
    /// 记录号 / the record
    pub record: record::id::RecordId,
    /// 所见版本 / the version that you saw
    #[arg(long)]
    pub version: u64,
    /// 字段=新值，空值删除 / field=value; an empty value removes it
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub changes: Vec<String>,
    /// 注销 / take the record out of force
    #[arg(long)]
    pub close: bool,
    /// 恢复已注销的记录 / put a closed record into force again
    #[arg(long, conflicts_with = "close")]
    pub reopen: bool,
    /// 用途代码 / purpose code
    #[arg(long, default_value = "correction")]
    pub purpose: Purpose,
}

#[derive(Debug, Subcommand)]
pub enum Grant {
    /// 先看：持有方将能打开什么，不作授权 / what the holder could open over all its grants; nothing is granted
    Plan(Box<GrantMake>),
    /// 授权一个子集 / grant a subset to another node
    Make(Box<GrantMake>),
    /// 列出授权 / list grants
    List(Dir),
    /// 一份授权的详情 / one grant
    Show(GrantOne),
    /// 某持有方为何有某记录 / why a holder has a record, or had it
    Why(GrantWhy),
    /// 变更授权的字段、行或历史：先看，再作方案 / other fields, rows or history: shown, then planned
    Amend(Box<GrantAmend>),
    /// 续期并给新密钥期的密钥 / go on with a grant: the keys of the present epoch, for so many days
    Renew(GrantRenew),
    /// 持有方核验：完整、最新（离线）/ prove a held subset whole and current, offline
    Verify(GrantVerify),
    /// 导出所持子集供他处核验，全为密文 / what is held of a grant as a file, for verifying elsewhere; all sealed
    Export(GrantExport),
}

#[derive(Debug, ClapArgs)]
pub struct GrantOne {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 授权号 / the grant
    pub grant: record::id::GrantId,
}

#[derive(Debug, ClapArgs)]
pub struct GrantWhy {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 记录号 / the record
    pub record: record::id::RecordId,
    /// 持有方 / the holder
    pub holder: DivisionId,
}

#[derive(Debug, ClapArgs)]
pub struct GrantAmend {
    #[command(flatten)]
    pub one: GrantOne,
    /// 变更后的全部字段，逗号分隔；缺省不变 / all fields from here on; as they are when absent
    #[arg(long, value_delimiter = ',')]
    pub fields: Vec<String>,
    /// 行条件；缺省不变 / rows: field=value, all of which hold; as they are when absent
    #[arg(
        long = "where",
        value_name = "FIELD=VALUE",
        conflicts_with = "all_rows"
    )]
    pub conditions: Vec<String>,
    /// 全部行 / every row
    #[arg(long)]
    pub all_rows: bool,
    /// 历史版本：none、since 或 all / versions: none, since or all
    #[arg(long)]
    pub history: Option<record::authority::History>,
    /// 法律依据 / legal basis
    #[arg(long)]
    pub basis: Option<String>,
    /// 影响评估编号 / reference of the impact assessment
    #[arg(long)]
    pub assessment: Option<String>,
    /// 只看，不作方案 / show what it comes to, make no plan
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub struct GrantRenew {
    #[command(flatten)]
    pub one: GrantOne,
    /// 自今日起天数 / for how many days from now
    #[arg(long, default_value_t = 180)]
    pub days: u32,
}

#[derive(Debug, ClapArgs)]
pub struct GrantExport {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    /// 授权号 / the grant
    pub grant: record::id::GrantId,
    /// 写到 / the file to write
    #[arg(long)]
    pub out: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct GrantVerify {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR", required_unless_present = "file")]
    pub dir: Option<PathBuf>,
    /// 导出文件，代替目录 / an exported file, instead of a directory
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// 辖域根公钥，十六进制；导出文件须与之相符 / the realm root's key that the file must rest on, hexadecimal
    #[arg(long, requires = "file")]
    pub root: Option<String>,
    /// 须证明到的分片账头（文件）/ a checkpoint of the shard, as a file, up to which it must be proven
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// 授权号；缺省为全部 / the grant; all when absent
    pub grant: Option<record::id::GrantId>,
}

#[derive(Debug, ClapArgs)]
pub struct GrantMake {
    #[command(flatten)]
    pub at: Dir,
    #[command(flatten)]
    pub who: As,
    /// 类别 / the kind
    pub kind: Kind,
    /// 接收方 / who receives
    #[arg(long)]
    pub holder: DivisionId,
    /// 字段，逗号分隔 / fields, joined by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub fields: Vec<String>,
    /// 行条件 / rows: field=value, all of which hold
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub conditions: Vec<String>,
    /// 用途代码 / purpose code
    #[arg(long)]
    pub purpose: Purpose,
    /// 法律依据 / legal basis
    #[arg(long)]
    pub basis: String,
    /// 影响评估编号 / reference of the impact assessment
    #[arg(long)]
    pub assessment: String,
    /// 天数 / for how many days
    #[arg(long, default_value_t = 180)]
    pub days: u32,
    /// 历史版本：none 仅最新，since 自进入范围起，all 全部 / versions: the newest, since it entered, all
    #[arg(long, default_value = "since")]
    pub history: record::authority::History,
}

#[derive(Debug, ClapArgs)]
pub struct Repair {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    /// 缺损的条目由上级取回 / fetch back from the parent what is damaged
    #[arg(long, required = true)]
    pub from_parent: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct Demo {
    /// 跑完一轮即退出 / run one cycle to convergence, then exit
    #[arg(long)]
    pub once: bool,
    /// 目录（省略则临时）/ directory; a temporary one when left out
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// 每个社区的人数 / persons in each community
    #[arg(long, default_value_t = 300)]
    pub persons: usize,
    /// 随机种子 / seed of the sample
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPart {
    /// 导入 / import
    Import,
    /// 复制 / replication
    Replication,
    /// 复制指标：速率、时延、传输量、多下级，与 PostgreSQL 对照 / replication by its goals, beside PostgreSQL
    Replicate,
    /// 查询 / point reading over HTTP
    Read,
    /// 核验 / verification
    Verify,
    /// 账本 / ledgers: verifying, appending, proving, many replicas
    Ledger,
    /// 存储 / the store alone: loading, reading, eight writers, compaction, start-up
    Store,
    /// 密钥：封装、重封、打开、授权 / keys: sealing, resealing, opening, granting
    Keys,
}

#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// 只测这几项 / these parts only
    pub parts: Vec<BenchPart>,
    /// 记录数 / number of records
    #[arg(long, default_value_t = 10_000)]
    pub records: usize,
    /// 存储一项的记录数（目标一百万）/ records of the part `store`; its targets are for a million
    #[arg(long, default_value_t = 100_000)]
    pub store_records: u64,
    /// `replicate` 的下级节点数 / children of the part `replicate`
    #[arg(long, default_value_t = 300)]
    pub children: usize,
    /// `replicate` 在 TCP 之外再测 QUIC / `replicate` measures QUIC beside TCP in the same run
    #[arg(long)]
    pub transport: Option<TransportName>,
    /// 下级同时改动多少秒 / for how many seconds these children edit
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// 工作目录（省略则临时）/ directory to work in; a temporary one when left out
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|e: record::id::IdError| e.to_string())
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|e: record::id::IdError| e.to_string())
}
