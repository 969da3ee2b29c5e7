//! The `fangzhi` binary: a node's server and its command line.
//!
//! Read in this order: [`args`] (what can be asked), [`client`] (how a command reaches a node),
//! [`serve`], [`ways`], [`peer`] and [`carry`] (a running node), [`commands`].

mod args;
mod carry;
mod client;
mod commands;
mod fault;
mod fetch;
mod harden;
mod http;
mod input;
mod misuse;
mod output;
mod peer;
mod renew;
mod serve;
mod tend;
mod ways;
mod witness;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    harden::process();
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    output::start_logging(args.log_json, matches!(args.command, args::Command::Run(_)));
    match commands::run(&args) {
        Ok(code) => code,
        Err(fault) => {
            fault.print(args.json);
            fault.exit_code()
        }
    }
}

/// Words that make no command, or a question for help: as JSON where that is asked for.
fn misused(error: &clap::Error) -> ExitCode {
    // Help is what clap says, also where it stands for a command that was left out.
    let help = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let as_json = std::env::args_os().skip(1).any(|arg| arg == "--json");
    if !error.use_stderr() || (error.kind() == help && !as_json) {
        error.exit()
    }
    let fault = misuse::fault(error);
    fault.print(as_json);
    fault.exit_code()
}
