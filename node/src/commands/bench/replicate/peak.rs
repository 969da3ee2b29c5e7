//! What the system says of a running node: time on cores, memory at its largest.

use std::path::Path;

use registry::config::Files;

use crate::client::RunFile;
use crate::fault::{Fault, Result};

/// Linux counts time on cores in hundredths of a second.
const TICKS: f64 = 100.0;

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Fault::file(Path::new(path), &e))
}

fn unreadable() -> Fault {
    Fault::failed("what the system says of a running node cannot be read here")
}

/// The process of a running node.
pub fn pid(dir: &Path) -> Result<u32> {
    let path = Files::new(dir).run();
    let bytes = std::fs::read(&path).map_err(|e| Fault::file(&path, &e))?;
    let run: RunFile = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    Ok(run.pid)
}

/// Seconds that a process has spent on cores.
pub fn cpu(pid: u32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name before the bracket may hold anything.
    let (_, fields) = text.rsplit_once(')').ok_or_else(unreadable)?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = times.filter_map(|text| text.parse().ok()).collect();
    match ticks.as_slice() {
        [user, system] => Ok((user + system) / TICKS),
        _ => Err(unreadable()),
    }
}

/// The most memory that a process has had in RAM, in MB.
pub fn resident_max(pid: u32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024.0 / 1e6).ok_or_else(unreadable)
}
