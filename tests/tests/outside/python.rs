//! Python and what it needs from the package index, in environments below the target directory.
//!
//! Refuses to skip quietly: what cannot be had is named on the terminal, and fails the test
//! where `CI` is set.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `tests/outside`.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("outside")
}

/// `target`, wherever that is: the test is `target/<profile>/deps/<test>-<hash>`.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows where it is");
    test.ancestors()
        .nth(3)
        .expect("it lies three below the target directory")
        .to_owned()
}

/// Runs a command; what it printed, when it did not end with 0.
pub fn succeed(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}` failed\n{stdout}{stderr}"))
}

/// A Python environment with one package in one version.
pub struct Wanted {
    /// The environment's name below the target directory.
    pub venv: &'static str,
    /// The package as it is imported.
    pub module: &'static str,
    /// Its version, which the requirements name too.
    pub version: &'static str,
    /// The file of requirements in `tests/outside`.
    pub requirements: &'static str,
    /// The least Python 3 that will do.
    pub minor: u8,
}

impl Wanted {
    /// The Python of the environment, which is made when it is not there.
    pub fn python(&self) -> Result<PathBuf, String> {
        let venv = target().join(self.venv);
        let python = venv.join("bin/python3");
        if self.is_in(&python) {
            return Ok(python);
        }
        let _ = std::fs::remove_dir_all(&venv);
        let system = python3(self.minor).ok_or_else(|| {
            let minor = self.minor;
            format!("there is no Python 3.{minor} or later with venv and pip; make test-tools")
        })?;
        succeed(Command::new(system).args(["-m", "venv"]).arg(&venv))?;
        succeed(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
                .arg("--requirement")
                .arg(sources().join(self.requirements)),
        )?;
        if self.is_in(&python) {
            Ok(python)
        } else {
            let Self {
                module, version, ..
            } = self;
            Err(format!(
                "pip installed something else than {module} {version}"
            ))
        }
    }

    fn is_in(&self, python: &Path) -> bool {
        let module = self.module;
        let script = format!("import {module}; print({module}.__version__)");
        succeed(Command::new(python).args(["-c", &script]))
            .is_ok_and(|version| version.trim() == self.version)
    }
}

/// A Python that is new enough: on the path, or one of pyenv's, whose shims work only when chosen.
fn python3(minor: u8) -> Option<PathBuf> {
    let on_path = ["python3.14", "python3.13", "python3.12", "python3"].map(PathBuf::from);
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let mut versions: Vec<PathBuf> = pyenv
        .and_then(|root| std::fs::read_dir(root.join("versions")).ok())
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin/python3")))
        .collect();
    versions.sort();
    let script = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < (3, {minor}))");
    on_path
        .into_iter()
        .chain(versions)
        .find(|python| succeed(Command::new(python).args(["-c", &script])).is_ok())
}
