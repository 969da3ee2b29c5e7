//! Running `fangzhi` as a person or a script would.
//!
//! Owns the command's surroundings (no terminal, none of this shell's `FANGZHI_` variables),
//! its time limit, and what it answered.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, fangzhi};

/// What a command answered.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it printed to standard error.
    pub stderr: String,
}

impl Done {
    /// Itself, when the exit code is this one.
    ///
    /// # Panics
    /// When it is another, with all that was printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "no JSON ({error}), exit {}\n--- stdout\n{}\n--- stderr\n{}",
                self.code, self.stdout, self.stderr
            )
        })
    }

    /// Everything printed.
    pub fn printed(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// The command, ready to be given arguments.
pub fn command() -> Command {
    let mut command = Command::new(fangzhi());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANGZHI_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs `fangzhi` with arguments to its end.
///
/// # Panics
/// When it does not end within [`PATIENCE`].
pub fn call<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    let mut command = command();
    command.args(args);
    finish(command)
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not end within [`PATIENCE`].
pub fn finish(mut command: Command) -> Done {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fangzhi can be started");
    let stdout = gather(child.stdout.take());
    let stderr = gather(child.stderr.take());
    let code = wait(&mut child, PATIENCE).unwrap_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} did not end within {PATIENCE:?}")
    });
    Done {
        code,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// The exit code of a child that ends in time; -1 when a signal ended it.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code().unwrap_or(-1));
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn gather(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
