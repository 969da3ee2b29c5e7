//! The commands, one function each.

pub mod audit;
pub mod backup;
mod bench;
pub mod custody;
mod demo;
pub mod erase;
pub mod ferry;
mod grant;
mod import;
pub mod keys;
pub mod network;
mod node;
mod operator;
pub mod proposals;
pub mod publish;
mod read;
mod realm;
mod sample;
mod schema;
mod sync;
pub mod transfer;
mod verify;

use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::fault::Result;

/// Does what the command line asks.
pub fn run(args: &Args) -> Result<ExitCode> {
    let json = args.json;
    match &args.command {
        Command::Init(command) => node::init(command, json),
        Command::Join(command) => node::join(command, json),
        Command::Run(command) => node::run(command),
        Command::Open(command) => custody::open(command, json),
        Command::Lock(command) => custody::lock(command, json),
        Command::Recover(command) => custody::recover(command, json),
        Command::Status(command) => node::status(command, json),
        Command::Sync(command) => sync::run(command, json),
        Command::Ferry(command) => ferry::run(command, json),
        Command::Doctor(command) => node::doctor(command, json),
        Command::Invite(command) => node::invite(command, json),
        Command::Network(command) => network::run(command, json),
        Command::Witness(command) => node::witness(command, json),
        Command::Revoke(command) => node::revoke(command, json),
        Command::Operator(command) => operator::run(command, json),
        Command::Schema(command) => schema::run(command, json),
        Command::Sample(command) => sample::run(command, json),
        Command::Import(command) => import::run(command, json),
        Command::Read(command) => read::read(command, json),
        Command::Amend(command) => read::amend(command, json),
        Command::Grant(command) => grant::run(command, json),
        Command::Propose(command) => proposals::propose(command, json),
        Command::Proposals(command) => proposals::sent(command, json),
        Command::Inbox(command) => proposals::inbox(command, json),
        Command::Transfer(command) => transfer::run(command, json),
        Command::Keys(command) => keys::run(command, json),
        Command::Publish(command) => publish::run(command, json),
        Command::Erase(command) => erase::erase(command, json),
        Command::Receipts(whose) => erase::receipts(whose, json),
        Command::Retention(command) => erase::retention(command, json),
        Command::Repair(command) => verify::repair(command, json),
        Command::Verify(command) => verify::run(command, json),
        Command::Audit(command) => audit::run(command, json),
        Command::Backup(command) => backup::run(command, json),
        Command::Demo(command) => demo::run(command, json),
        Command::Bench(command) => bench::run(command, json),
    }
}
