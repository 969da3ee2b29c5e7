//! The verifiers that nobody here wrote, made ready to run: Go's x/mod, and Python's aics-tlog.
//!
//! Owns finding Go and a Python that is new enough, building and installing below the target
//! directory, and reading what the verifiers print.
//! Refuses to skip quietly: a verifier that cannot be had is named on the terminal, and fails the
//! test where `CI` is set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tests::process::{Done, finish};

/// The version of aics-tlog that `tests/outside/requirements.txt` names.
const AICS: &str = "0.2.1";
/// Where Debian's golang-golang-x-mod-dev lies.
const GO_PATH: &str = "/usr/share/gocode";

/// A verifier that can be run.
#[derive(Debug)]
pub struct Verifier {
    /// What to call it when something fails.
    pub name: &'static str,
    program: PathBuf,
    script: Option<PathBuf>,
}

/// What a verifier said of one ledger at one place.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether all of it holds.
    pub ok: bool,
    /// Where it looked.
    pub base: String,
    /// The ledger.
    pub origin: String,
    /// What it printed.
    pub line: String,
    facts: BTreeMap<String, String>,
}

impl Verdict {
    /// A fact such as `size`.
    #[track_caller]
    pub fn fact(&self, name: &str) -> &str {
        self.facts
            .get(name)
            .unwrap_or_else(|| panic!("no `{name}` in: {}", self.line))
    }

    /// A fact that is a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.fact(name).parse().expect("a number")
    }
}

impl Verifier {
    /// Runs it; it says one thing of each ledger at each place, and ends with 0 when all hold.
    #[track_caller]
    pub fn run<A: Into<OsString>>(
        &self,
        options: impl IntoIterator<Item = A>,
        bases: &[String],
        origins: &[String],
    ) -> Vec<Verdict> {
        let mut command = self.command();
        command.args(options.into_iter().map(Into::into));
        for base in bases {
            command.arg("-base").arg(base);
        }
        let done = finish({
            command.args(origins);
            command
        });
        let verdicts: Vec<Verdict> = done.stdout.lines().map(verdict).collect();
        assert_eq!(
            verdicts.len(),
            bases.len() * origins.len(),
            "{} did not speak of every ledger\n{}",
            self.name,
            done.printed()
        );
        let code = i32::from(!verdicts.iter().all(|v| v.ok));
        done.expect_code(code);
        verdicts
    }

    /// Runs it with options that it must refuse altogether.
    pub fn refuses<A: Into<OsString>>(&self, options: impl IntoIterator<Item = A>) -> Done {
        let mut command = self.command();
        command.args(options.into_iter().map(Into::into));
        finish(command).expect_code(2)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.script);
        command
    }
}

fn verdict(line: &str) -> Verdict {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (state, base, origin, rest) = (word(), word(), word(), word());
    let ok = state == "ok";
    assert!(ok || state == "FAILED", "no verdict: {line}");
    Verdict {
        ok,
        base,
        origin: origin.trim_end_matches(':').to_owned(),
        line: line.to_owned(),
        facts: rest
            .split(' ')
            .filter_map(|fact| fact.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// Every verifier that can be had here.
pub fn all() -> &'static [Verifier] {
    static ALL: OnceLock<Vec<Verifier>> = OnceLock::new();
    ALL.get_or_init(|| {
        let go = go()
            .map_err(|why| absent("Go's x/mod", "FANGZHI_WITHOUT_GO", &why))
            .ok();
        let python = aics()
            .as_ref()
            .map_err(|why| absent("aics-tlog", "FANGZHI_WITHOUT_AICS", why))
            .ok();
        let python = python.map(|python| Verifier {
            name: "aics-tlog",
            program: python.clone(),
            script: Some(sources().join("verify.py")),
        });
        go.into_iter().chain(python).collect()
    })
}

/// The command line of aics-tlog itself, where it can be had.
pub fn aics_tlog<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Option<Done> {
    let python = aics().as_ref().ok()?;
    let mut command = Command::new(python);
    command.args(["-m", "aics_tlog"]);
    command.args(args.into_iter().map(Into::into));
    Some(finish(command))
}

/// Says that a verifier is not there, past what cargo captures of tests that pass.
fn absent(what: &str, switch: &str, why: &str) {
    let stars = "*".repeat(78);
    let _ = writeln!(
        std::io::stderr(),
        "\n{stars}\nNOT CHECKED: ledgers were not verified with {what}: {why}\n{stars}"
    );
    let ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    let allowed = std::env::var(switch).is_ok_and(|value| value == "1");
    assert!(
        !ci || allowed,
        "{what} is not there: {why}; install it, or set {switch}=1 to do without"
    );
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("outside")
}

/// `target`, wherever that is: the test is `target/<profile>/deps/<test>-<hash>`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows where it is");
    test.ancestors()
        .nth(3)
        .expect("it lies three below the target directory")
        .to_owned()
}

/// Runs a command; what it printed, when it did not end with 0.
fn succeed(command: &mut Command) -> Result<String, String> {
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

fn go() -> Result<Verifier, String> {
    succeed(Command::new("go").arg("version")).map_err(|e| format!("{e}; make test-tools"))?;
    if !Path::new(GO_PATH)
        .join("src/golang.org/x/mod/sumdb/tlog")
        .is_dir()
    {
        return Err("golang-golang-x-mod-dev is not installed; make test-tools".into());
    }
    let program = target().join("outside/verify");
    // A verifier that does not compile is our mistake, not something that is absent.
    succeed(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(sources())
            .env("GO111MODULE", "off")
            .env("GOPATH", GO_PATH)
            .env("GOCACHE", target().join("outside/go-cache"))
            .env("GOFLAGS", ""),
    )
    .expect("tests/outside builds");
    Ok(Verifier {
        name: "Go's x/mod",
        program,
        script: None,
    })
}

/// The Python that has aics-tlog.
fn aics() -> &'static Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let venv = target().join("outside-venv");
        let python = venv.join("bin/python3");
        if has_aics(&python) {
            return Ok(python);
        }
        let _ = std::fs::remove_dir_all(&venv);
        let system = python3().ok_or("there is no Python 3.12 or later with venv and pip")?;
        succeed(Command::new(system).args(["-m", "venv"]).arg(&venv))?;
        succeed(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
                .arg("--requirement")
                .arg(sources().join("requirements.txt")),
        )?;
        if has_aics(&python) {
            Ok(python)
        } else {
            Err(format!(
                "pip installed something else than aics-tlog {AICS}"
            ))
        }
    })
}

fn has_aics(python: &Path) -> bool {
    let script = "import aics_tlog; print(aics_tlog.__version__)";
    succeed(Command::new(python).args(["-c", script])).is_ok_and(|version| version.trim() == AICS)
}

/// A Python that is new enough: on the path, or one of pyenv's, whose shims work only when chosen.
fn python3() -> Option<PathBuf> {
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
    let script = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))";
    on_path
        .into_iter()
        .chain(versions)
        .find(|python| succeed(Command::new(python).args(["-c", script])).is_ok())
}
