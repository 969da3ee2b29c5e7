//! `fangzhi network`: where a node listens for others, where its parent is, and how it is dialled.
//!
//! Owns these lines of `node.json`; the node takes them up at its next start. Refuses a list
//! without TCP.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use registry::config::NodeConfig;
use serde_json::json;

use crate::args::TransportName;
use crate::fault::{Fault, Result};
use crate::{output, ways};

/// 线路 / how nodes reach each other
#[derive(Debug, Args)]
pub struct Network {
    /// 节点目录 / the node's directory
    #[arg(long, env = "FANGZHI_DIR")]
    pub dir: PathBuf,
    /// 复制地址，可含 QUIC / where replication listens, such as 0.0.0.0:8461,/ip4/0.0.0.0/udp/8461/quic-v1
    #[arg(long)]
    pub listen: Option<String>,
    /// 上级地址，可含 QUIC / where the parent is reached, such as 10.0.0.5:8461,/ip4/10.0.0.5/udp/8461/quic-v1
    #[arg(long)]
    pub parent: Option<String>,
    /// 先用哪种传输连上级 / how the parent is dialled first
    #[arg(long)]
    pub transport: Option<TransportName>,
}

pub fn run(command: &Network, as_json: bool) -> Result<ExitCode> {
    let mut config = NodeConfig::read(&command.dir)?;
    if let Some(listen) = &command.listen {
        config.listen = ways::read(listen)?.to_string();
    }
    if command.parent.is_some() || command.transport.is_some() {
        let parent = config.parent.as_mut().ok_or_else(|| {
            Fault::usage(
                "根节点没有上级 / the root has no parent; leave out --parent and --transport",
            )
        })?;
        let mut addresses = ways::read(command.parent.as_ref().unwrap_or(&parent.address))?;
        if let Some(transport) = command.transport {
            addresses = addresses.preferring(transport.into());
            if addresses.all()[0].transport != transport.into() {
                return Err(Fault::usage(
                    "不知道上级的 QUIC 地址 / no address of the parent for QUIC is known; add it with --parent",
                ));
            }
        }
        parent.address = addresses.to_string();
    }
    config.write(&command.dir)?;
    let parent = config.parent.map(|parent| parent.address);
    if as_json {
        output::json(&json!({ "listen": config.listen, "parent": parent }));
    } else {
        output::line(format!("复制地址 / listens on: {}", config.listen));
        if let Some(parent) = parent {
            output::line(format!("上级 / parent: {parent}"));
        }
        output::line("重启节点后生效 / restart the node to take it up");
    }
    Ok(ExitCode::SUCCESS)
}
