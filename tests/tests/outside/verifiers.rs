//! The verifiers that nobody here wrote, made ready to run: Go's x/mod, and Python's aics-tlog.
//!
//! Owns finding Go, building below the target directory, and reading what the verifiers print;
//! Python is `python.rs`'s, and so is saying what cannot be had.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tests::process::{Done, finish};

use crate::python::{Wanted, sources, succeed, target};

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

/// Says that a verifier is not there.
fn absent(what: &str, switch: &str, why: &str) {
    let not_checked = format!("ledgers were not verified with {what}");
    tests::absent(&not_checked, switch, why);
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
        let wanted = Wanted {
            venv: "outside-venv",
            module: "aics_tlog",
            version: AICS,
            requirements: "requirements.txt",
            minor: 12,
        };
        wanted.python()
    })
}
