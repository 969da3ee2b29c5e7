//! placeholder
use crate::args::Bench;
use crate::fault::Result;
use std::process::ExitCode;
pub fn run(_command: &Bench, _json: bool) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
