//! What can be asked of `fangzhi publish`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use record::published::What;

use crate::args::Dir;
use crate::commands::keys::args::{One, Whose};

#[derive(Debug, Subcommand)]
pub enum Publish {
    /// 检查、列明新开放的内容并作方案（仅辖域根节点）/ check a set, show what it opens, make the plan; at the realm's root
    Plan(Plan),
    /// 已发布的版本，与各节点所用版本 / what is published, and which version each node runs
    List(List),
    /// 看一个待批方案：文件与新开放的内容 / what a plan would publish and open, for whoever approves
    Show(Show),
    /// 导出在用的文件，作为修改的起点 / write what is in force to a folder, to begin a change from
    Export(Export),
}

#[derive(Debug, ClapArgs)]
pub struct Plan {
    /// 内容 / what: policies, schemas or codes
    #[arg(value_parser = what)]
    pub what: What,
    /// 文件夹 / the folder with the files
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// 降低敏感级的字段 类别.字段，逐一写明 / a field that becomes less sensitive, as kind.field; once for each
    #[arg(long, value_name = "KIND.FIELD")]
    pub lowers: Vec<String>,
    /// 只预览 / show only; no plan is made
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    #[command(flatten)]
    pub at: Dir,
}

#[derive(Debug, ClapArgs)]
pub struct Show {
    #[command(flatten)]
    pub one: One,
    /// 连同文件全文 / with the files' texts
    #[arg(long)]
    pub texts: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Export {
    /// 内容 / what: policies, schemas or codes
    #[arg(value_parser = what)]
    pub what: What,
    /// 写到文件夹 / the folder to write to
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub whose: Whose,
}

fn what(text: &str) -> Result<What, String> {
    // One schema is published as a set of schemas, too.
    let text = if text == "schema" { "schemas" } else { text };
    text.parse().map_err(|e: record::id::IdError| e.to_string())
}
