//! Where the `fangzhi` binary is.
//!
//! Owns the decision whether it must be built: `cargo test` does not build the binary of
//! another package, so it may be missing or older than its sources.
//! Refuses to test a binary that is older than what it is made of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The `fangzhi` binary of the profile under test, as new as its sources.
///
/// # Panics
/// When it cannot be built.
pub fn fangzhi() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(find)
}

fn find() -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap().to_owned();
    let binary = profile.join("fangzhi");
    if !is_fresh(&binary) {
        build(&profile);
    }
    assert!(
        binary.exists(),
        "`{}` was built and is not there",
        binary.display()
    );
    binary
}

/// Whether no file that cargo lists for the binary was changed since it was linked.
fn is_fresh(binary: &Path) -> bool {
    let Some(linked) = changed(binary) else {
        return false;
    };
    let Ok(list) = std::fs::read_to_string(binary.with_extension("d")) else {
        return false;
    };
    list.split_once(": ").is_some_and(|(_, sources)| {
        sources
            .split_whitespace()
            .all(|source| changed(Path::new(source)).is_some_and(|at| at <= linked))
    })
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

fn build(profile: &Path) {
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building the fangzhi binary, which is missing or older than its sources");
    let mut build = Command::new(cargo);
    // What cargo told this test about its package would make build scripts run again and again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            build.env_remove(&*name);
        }
    }
    let status = build
        .args(["build", "--package", "node", "--profile", name])
        .arg("--target-dir")
        .arg(profile.parent().unwrap())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "the fangzhi binary could not be built");
}
