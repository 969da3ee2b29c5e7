//! Helpers of the journeys: real processes, real sockets, real files.
//!
//! Owns finding (and, when it is older than its sources, building) the `fangzhi` binary,
//! making nodes and realms in a temporary directory, and speaking HTTP to them.
//! Refuses to skip: whatever a journey needs and cannot have is a panic.
//!
//! Read in this order: [`binary`], [`process`], [`site`], [`trio`], then [`http`], [`rows`],
//! [`traces`], [`dice`], [`prometheus`]; [`realm`] is a realm inside the test's own process.

#![allow(
    clippy::unwrap_used,
    reason = "only tests call this; a helper fails by panicking, and says where"
)]

pub mod binary;
pub mod dice;
pub mod http;
pub mod moved;
pub mod process;
pub mod prometheus;
pub mod realm;
pub mod rows;
pub mod site;
pub mod traces;
pub mod trio;

pub use binary::fangzhi;
pub use dice::Dice;
pub use process::{Done, call};
pub use site::{Running, Site};
pub use trio::Trio;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take before a journey gives up: this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until it is so.
///
/// # Panics
/// When it is not so after [`PATIENCE`], with what was waited for.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < PATIENCE,
            "gave up waiting: {what} did not come about in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says what was not checked, past what cargo captures of tests that pass.
///
/// # Panics
/// In CI, unless the variable named `switch` allows to do without.
pub fn absent(not_checked: &str, switch: &str, why: &str) {
    let stars = "*".repeat(78);
    let _ = writeln!(
        std::io::stderr(),
        "\n{stars}\nNOT CHECKED: {not_checked}: {why}\n{stars}"
    );
    let ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    let allowed = std::env::var(switch).is_ok_and(|value| value == "1");
    assert!(
        !ci || allowed,
        "{not_checked}: {why}; install it, or set {switch}=1 to do without"
    );
}

/// Copies a directory and all in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), &target).unwrap();
        }
    }
}

/// A number from the environment, or what is usual.
///
/// # Panics
/// When the variable is there and is no number.
pub fn from_env(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a whole number")),
        Err(_) => usual,
    }
}
