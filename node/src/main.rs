//! The `fangzhi` binary: a node's server and its command line.
//!
//! Read in this order: [`args`] (what can be asked), [`client`] (how a command reaches a node),
//! [`serve`], [`peer`] and [`carry`] (a running node), [`commands`].

mod args;
mod carry;
mod client;
mod commands;
mod fault;
mod harden;
mod input;
mod output;
mod peer;
mod serve;
mod tend;
mod witness;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    harden::process();
    let args = args::Args::parse();
    output::start_logging(args.log_json, matches!(args.command, args::Command::Run(_)));
    match commands::run(&args) {
        Ok(code) => code,
        Err(fault) => {
            fault.print(args.json);
            fault.exit_code()
        }
    }
}
