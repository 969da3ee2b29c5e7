//! Why a command did not do what was asked: words for people, exit codes for scripts.

use std::process::ExitCode;

use registry::RegistryError;
use serde_json::json;

/// What went wrong, and the exit code that says so.
#[derive(Debug)]
pub struct Fault {
    /// The process's exit code.
    pub exit: u8,
    /// A stable word.
    pub code: String,
    /// In words.
    pub message: String,
    /// Lines under the message, one each.
    pub details: Vec<String>,
}

/// Exit codes, as `fangzhi --help` lists them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const PARTLY: u8 = 3;
    pub const DENIED: u8 = 4;
    pub const NOT_VERIFIED: u8 = 7;
    pub const NOT_REACHABLE: u8 = 8;
    pub const BUSY: u8 = 9;
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault with an exit code of its own.
    pub fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The caller asked for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, "usage", message)
    }

    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, "failed", message)
    }

    /// A file that could not be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let (chinese, english) = store::said::said(error);
        let path = path.display();
        let message = format!("文件 `{path}`：{chinese} / file `{path}`: {english}");
        Self::new(exit::FAILED, "file", message)
    }

    /// The exit code of a failure that the node told by its code.
    pub fn exit_of(code: &str) -> u8 {
        match code {
            "denied" | "not-approved" | "discounted" => exit::DENIED,
            "bad-request" | "no-kind" | "invalid" => exit::USAGE,
            "conflict" | "underway" => exit::BUSY,
            "altered" => exit::NOT_VERIFIED,
            _ => exit::FAILED,
        }
    }

    /// Prints the fault: to stderr in words, or to stdout as JSON.
    #[expect(clippy::print_stdout, reason = "this is the command line's voice")]
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!(
                "{}",
                json!({ "error": { "code": self.code, "message": self.message, "details": self.details } })
            );
            return;
        }
        eprintln!("失败 / failed: {}", self.message);
        for line in &self.details {
            eprintln!("  {line}");
        }
        // The manual of the ferry says by code what to do.
        if self.code.starts_with("ferry-") {
            eprintln!("  代码 / code: {}", self.code);
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        let busy = matches!(&error, RegistryError::Directory(text) if text.contains("in use"));
        let exit = if busy {
            exit::BUSY
        } else {
            Self::exit_of(error.code())
        };
        Self::new(exit, error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_told_in_chinese_first_with_what_to_do() {
        let path = std::path::Path::new("/nowhere/persons.csv");
        let error = std::fs::read(path).unwrap_err();
        let told = Fault::file(path, &error).message;
        let (chinese, english) = told.split_once(" / ").unwrap();
        assert!(chinese.contains("/nowhere/persons.csv") && chinese.contains("请核对路径"));
        assert!(english.contains("/nowhere/persons.csv") && english.contains("check the path"));
        assert!(!told.contains("No such file"), "{told}");
    }
}
