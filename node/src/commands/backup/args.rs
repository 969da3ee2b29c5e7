//! What can be asked of backups on the command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// 备份 / backups
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// 生成备份密钥（在另一台机器上）/ make the identity that opens backups, on another machine
    Key(Key),
    /// 设置备份目录、收件人与周期 / say where backups go, who can open them and how often
    Configure(Configure),
    /// 立即备份；节点可在运行 / make one now; the node may run
    Make(Make),
    /// 列出备份 / list the sets
    List(At),
    /// 核对备份：无密钥查完整，有密钥查内容 / check a set: whole without a key, content with one
    Verify(Verify),
    /// 演练：恢复到临时目录，重建全部根并比对 / restore into a scratch directory and rebuild every root
    Rehearse(Rehearse),
    /// 恢复到空目录 / restore into an empty directory
    Restore(Restore),
}

#[derive(Debug, ClapArgs)]
pub struct Key {
    /// 写到文件 / write the identity to this file
    #[arg(long, short)]
    pub out: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct Configure {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    /// 备份目录，宜在另一块盘 / the backup folder, best on another disk
    #[arg(long)]
    pub to: PathBuf,
    /// 收件人 age1…，可多个 / who can open them: age1…, several allowed
    #[arg(long = "recipient", required = true)]
    pub recipients: Vec<String>,
    /// 每隔多少小时，0 为不自动 / every so many hours; 0 for never by itself
    #[arg(long, default_value_t = 24)]
    pub every_hours: u32,
    /// 密钥部分保留天数 / days after which the part that opens records is destroyed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub secrets_days: u32,
    /// 保留几份 / how many sets are kept
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub keep: u32,
}

#[derive(Debug, ClapArgs)]
pub struct Make {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
}

/// 备份目录 / the backup folder
#[derive(Debug, ClapArgs)]
pub struct At {
    /// 备份目录（省略时取节点设置）/ the backup folder; the node's own when left out
    #[arg(long)]
    pub from: Option<PathBuf>,
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    #[command(flatten)]
    pub at: At,
    /// 第几份，默认最新 / which set; the newest when left out
    #[arg(long)]
    pub set: Option<u64>,
    /// 备份密钥文件 / the identity file
    #[arg(long, short)]
    pub identity: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Rehearse {
    #[command(flatten)]
    pub at: At,
    /// 第几份，默认最新 / which set; the newest when left out
    #[arg(long)]
    pub set: Option<u64>,
    /// 备份密钥文件 / the identity file
    #[arg(long, short)]
    pub identity: PathBuf,
    /// 临时目录的上级 / where the scratch directory is made
    #[arg(long)]
    pub scratch: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Restore {
    /// 备份目录 / the backup folder
    #[arg(long)]
    pub from: PathBuf,
    /// 恢复到此空目录 / restore into this empty directory
    #[arg(long)]
    pub into: PathBuf,
    /// 第几份，默认最新 / which set; the newest when left out
    #[arg(long)]
    pub set: Option<u64>,
    /// 备份密钥文件 / the identity file
    #[arg(long, short)]
    pub identity: PathBuf,
    /// 只要历史，不要密钥 / history only, without what opens records
    #[arg(long)]
    pub history_only: bool,
    /// 根节点：确认此后未再签名 / of a root, which has no parent: nothing was signed since this backup
    #[arg(long)]
    pub nothing_signed_since: bool,
}
