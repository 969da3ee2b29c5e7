//! Words that make no command: what is wrong with them, in Chinese first, then as clap says it.
//!
//! Owns the wording for people who mistyped. Refuses to guess what was meant beyond what clap found
//! to be near.

use std::error::Error as _;

use clap::Error;
use clap::error::{ContextKind, ErrorKind};

use crate::fault::Fault;

/// What is wrong with a command line.
pub fn fault(error: &Error) -> Fault {
    let of = |kind| error.get(kind).map(ToString::to_string);
    let named = |kind| of(kind).unwrap_or_default();
    let argument = named(ContextKind::InvalidArg);
    let message = match error.kind() {
        ErrorKind::UnknownArgument => format!(
            "没有选项或参数 `{argument}` / there is no option or argument `{argument}` here"
        ),
        ErrorKind::MissingRequiredArgument => {
            format!("缺少必填项 {argument} / required and missing: {argument}")
        }
        ErrorKind::InvalidSubcommand => {
            let command = named(ContextKind::InvalidSubcommand);
            format!("没有命令 `{command}` / there is no command `{command}`")
        }
        ErrorKind::MissingSubcommand => format!(
            "命令不完整，其后须接 / the command is not complete; it goes on with one of: {}",
            named(ContextKind::ValidSubcommand)
        ),
        ErrorKind::InvalidValue if named(ContextKind::InvalidValue).is_empty() => {
            format!("`{argument}` 之后缺少值 / `{argument}` needs a value")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = named(ContextKind::InvalidValue);
            let why = error.source().map(ToString::to_string);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            format!("`{argument}` 不能是 `{value}` / `{argument}` cannot be `{value}`{why}")
        }
        ErrorKind::ArgumentConflict => {
            let other = named(ContextKind::PriorArg);
            match other.is_empty() || other == argument {
                true => format!("`{argument}` 只能给一次 / `{argument}` is given more than once"),
                false => format!(
                    "`{argument}` 不能与 `{other}` 同用 / `{argument}` and `{other}` exclude each other"
                ),
            }
        }
        ErrorKind::TooManyValues | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("`{argument}` 的值的个数不对 / `{argument}` has the wrong number of values")
        }
        ErrorKind::InvalidUtf8 => {
            "命令行不是 UTF-8 文字 / the command line is no UTF-8 text".to_owned()
        }
        _ => {
            let text = error.render().to_string();
            format!("命令有误 / {}", text.trim().trim_start_matches("error: "))
        }
    };
    let mut fault = Fault::usage(message);
    for (kind, words) in [
        (ContextKind::ValidValue, "可选 / one of"),
        (ContextKind::SuggestedArg, "相近的选项 / near it"),
        (ContextKind::SuggestedSubcommand, "相近的命令 / near it"),
        (ContextKind::SuggestedValue, "相近的值 / near it"),
    ] {
        if let Some(found) = of(kind).filter(|found| !found.is_empty()) {
            fault.details.push(format!("{words}: {found}"));
        }
    }
    if let Some(usage) = of(ContextKind::Usage) {
        let usage = usage.trim().trim_start_matches("Usage:").trim().to_owned();
        fault.details.push(format!("用法 / usage: {usage}"));
    }
    fault
        .details
        .push("加 --help 看说明 / see it with --help".to_owned());
    fault
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn every_mistyped_command_is_answered_in_chinese_first_with_what_is_wrong_and_its_usage() {
        for (line, word) in [
            ("verify --dirr x", "--dirr"),
            ("verify", "--dir"),
            ("import person", "<FILE>"),
            ("verfy", "verfy"),
            ("verify --dir", "--dir"),
            ("keys plan rotate-epoch", "<KIND>"),
            ("keys order reseal --days x", "x"),
            ("grant make person --where", "--where"),
            ("verify --dir a --dir b", "--dir"),
            ("keys approve abc --file x", "--out"),
        ] {
            let words = ["fangzhi"].into_iter().chain(line.split(' '));
            let error = Args::try_parse_from(words).unwrap_err();
            let fault = fault(&error);
            let first = fault.message.chars().find(|c| c.is_alphabetic());
            let (chinese, english) = fault.message.split_once(" / ").unwrap();
            assert!(
                !chinese.is_ascii() && first.is_some(),
                "{line}: {}",
                fault.message
            );
            assert!(
                english.is_ascii() || english.contains('`'),
                "{line}: {english}"
            );
            let told = format!("{} {}", fault.message, fault.details.join(" "));
            assert!(told.contains(word), "{line}: {told}");
            assert!(!told.contains('\u{1b}'), "{line}: {told:?}");
            assert_eq!(fault.exit, crate::fault::exit::USAGE);
        }
    }
}
