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
mod output;
mod peer;
mod renew;
mod serve;
mod tend;
mod ways;
mod witness;

use std::process::ExitCode;

use clap::Parser;

use crate::fault::Fault;

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
    let as_json = std::env::args_os().skip(1).any(|arg| arg == "--json");
    if as_json && error.use_stderr() {
        let text = error.render().to_string();
        let fault = Fault::usage(text.trim_end().trim_start_matches("error: "));
        fault.print(true);
        return fault.exit_code();
    }
    error.exit()
}
