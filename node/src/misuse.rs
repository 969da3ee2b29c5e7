//! Words that make no command: what is wrong with them, in Chinese first, then as clap says it.
//!
//! Owns the wording for people who mistyped. Refuses to guess what was meant beyond what clap found
//! to be near.

use std::error::Error as _;
use std::num::{IntErrorKind, ParseIntError};

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
            let (chinese, english) = error.source().map_or_else(Default::default, reason);
            format!(
                "`{argument}` 不能是 `{value}`{chinese} / `{argument}` cannot be `{value}`{english}"
            )
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

/// Why a value is none, after a colon, in both languages.
fn reason(why: &(dyn std::error::Error + 'static)) -> (String, String) {
    let text = why.to_string();
    if let Some(number) = why.downcast_ref::<ParseIntError>() {
        let (chinese, english) = match number.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => (
                "数字过大或过小，请改小或改大",
                "the number is out of range; give one within it",
            ),
            IntErrorKind::Empty => ("没有写数字，请填写", "there is no number; give one"),
            _ => (
                "应为整数，请只填数字",
                "it is no whole number; give digits only",
            ),
        };
        return (format!("：{chinese}"), format!(": {english}"));
    }
    if let Some((_, range)) = text.split_once(" is not in ") {
        let chinese = format!("：应在 {range} 之内，请改正");
        return (chinese, format!(": it lies within {range}; correct it"));
    }
    match text.split_once(" / ") {
        Some((chinese, english)) => (format!("：{chinese}"), format!(": {english}")),
        None => ("：请按用法改写".to_owned(), format!(": {text}")),
    }
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

    #[test]
    fn a_value_that_is_none_is_told_why_in_both_languages() {
        for (line, chinese, english) in [
            ("keys order reseal --days x", "应为整数", "no whole number"),
            (
                "keys order reseal --days 99999999999",
                "应在 0..=4294967295",
                "it lies within 0..=4294967295",
            ),
            (
                "backup configure --keep 0",
                "应在 1..=10000",
                "it lies within 1..=10000",
            ),
            (
                "retention fields --class person:contact:x",
                "类别:字段组:天数",
                "KIND:GROUP:DAYS",
            ),
        ] {
            let words = ["fangzhi"].into_iter().chain(line.split(' '));
            let error = Args::try_parse_from(words).unwrap_err();
            let told = fault(&error).message;
            let (zh, en) = told.split_once(" / ").unwrap();
            assert!(zh.contains(chinese), "{told}");
            assert!(en.contains(english) && en.is_ascii(), "{told}");
            assert!(!told.contains("invalid digit"), "{told}");
        }
    }
}
