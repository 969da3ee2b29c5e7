//! What can be asked of a node's root: open, lock, shares, recovery.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use record::id::DivisionId;

use crate::args::{As, Dir};
use crate::commands::keys::args::{One, Whose};

/// 用什么打开 / what opens it
#[derive(Debug, ClapArgs)]
pub struct OpenNode {
    #[command(flatten)]
    pub at: Dir,
    /// 钥匙文件 / a key file that lies elsewhere, on a stick say
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub key_file: Option<PathBuf>,
    /// 份额文件，每份一次；口令或钥匙文件即成为新的 / files with officers' shares; the passphrase or key file given with them is the node's from here on
    #[arg(long = "share", value_name = "FILE")]
    pub shares: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Lock {
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Subcommand)]
pub enum Share {
    /// 查看分份进度 / how far the sharing is
    Status(Whose),
    /// 在上级：为下级节点的一份备好一次性钥 / at a node above: make a one-time key for a share of a node below
    Ready {
        #[command(flatten)]
        whose: Whose,
        /// 分份的下级节点 / the node below whose root is to be shared
        #[arg(long = "for", value_name = "DIVISION")]
        division: DivisionId,
    },
    /// 离线：写出交给对方的钥、份额或确认 / offline: write the keys, sealed shares or words for the other side
    Export {
        #[command(flatten)]
        whose: Whose,
        /// 在上级：给哪个下级节点；省略为本节点的分份 / at a node above: for which node below; the own ceremony when left out
        #[arg(long = "for", value_name = "DIVISION")]
        division: Option<DivisionId>,
        /// 写到文件 / write it to this file
        #[arg(long, short)]
        out: PathBuf,
    },
    /// 离线：收下对方的文件 / offline: take in the other side's file
    Bring {
        #[command(flatten)]
        whose: Whose,
        /// 文件 / the file
        file: PathBuf,
    },
    /// 取本人份额：只给一次 / take the own share: it is given once
    Take {
        #[command(flatten)]
        whose: Whose,
        /// 分份号：与其他安全员口头核对 / the ceremony's number, compared with the other officers
        #[arg(long)]
        ceremony: String,
        /// 写到文件；省略则显示 / write it to this file; shown when left out
        #[arg(long, short)]
        out: Option<PathBuf>,
    },
    /// 确认本人份额：照抄回来 / confirm the own share by giving it back as it was copied
    Confirm {
        #[command(flatten)]
        whose: Whose,
        /// 分份号 / the ceremony's number
        #[arg(long)]
        ceremony: String,
        /// 份额文件；省略则由标准输入读 / file with the share; read from standard input when left out
        #[arg(long, value_name = "FILE")]
        share: Option<PathBuf>,
    },
    /// 放弃未完成的分份 / abandon a ceremony that is not finished
    Abandon(Whose),
}

#[derive(Debug, ClapArgs)]
pub struct NewKek {
    #[command(flatten)]
    pub one: One,
    /// 新口令文件 / file with the new passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub new_passphrase_file: Option<PathBuf>,
    /// 钥匙文件：32 字节，存于别处 / a key file of 32 bytes that is kept elsewhere
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Recover {
    /// 在上级：导出丢失节点的恢复文件 / at the parent: write the recovery file of a lost node
    Export {
        #[command(flatten)]
        at: Dir,
        #[command(flatten)]
        who: As,
        /// 丢失节点的区划 / the lost node's division
        #[arg(long)]
        division: DivisionId,
        /// 新机器可到达的本节点复制地址 / this node's replication address as the new machine reaches it
        #[arg(long)]
        address: String,
        /// 写到文件 / write it to this file
        #[arg(long, short)]
        out: PathBuf,
    },
    /// 在上级：发给新机器一份恢复凭据，凭它在线取回 / at the parent: make the leave with which the new machine fetches the recovery itself
    Leave {
        #[command(flatten)]
        at: Dir,
        #[command(flatten)]
        who: As,
        /// 丢失节点的区划 / the lost node's division
        #[arg(long)]
        division: DivisionId,
        /// 新机器可到达的本节点复制地址 / this node's replication address as the new machine reaches it
        #[arg(long)]
        address: String,
        /// 写到文件：只交给新机器 / write it to this file, for the new machine alone
        #[arg(long, short)]
        out: PathBuf,
    },
    /// 在新机器：凭份额重建节点 / on the new machine: rebuild the node with officers' shares
    Rebuild {
        #[command(flatten)]
        at: Dir,
        /// 恢复文件，或上级的复制地址 IP:端口 / the recovery file, or the parent's replication address, IP:port
        #[arg(long, value_name = "FILE|ADDRESS")]
        from: PathBuf,
        /// 在线取回：上级发的恢复凭据 / to fetch from an address: the parent's leave
        #[arg(long, value_name = "FILE")]
        leave: Option<PathBuf>,
        /// 份额文件，每份一次 / files with shares, each given once
        #[arg(long = "share", value_name = "FILE", required = true)]
        shares: Vec<PathBuf>,
        /// HTTP 地址；省略则同前 / where HTTP listens; as before when left out
        #[arg(long)]
        http: Option<String>,
        /// 复制地址；省略则同前 / where replication listens; as before when left out
        #[arg(long)]
        listen: Option<String>,
    },
}
