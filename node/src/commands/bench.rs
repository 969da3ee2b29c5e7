//! placeholder
use std::process::ExitCode;
use crate::args::Bench;
use crate::fault::Result;
pub fn run(_command: &Bench, _json: bool) -> Result<ExitCode> { Ok(ExitCode::SUCCESS) }
