//! What the command line prints: JSON lines, tables that measure Chinese as two columns, logs.

use std::io::IsTerminal;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Sends logs to stderr; a running node tells more than a command.
pub fn start_logging(as_json: bool, running: bool) {
    let default = if running {
        "info,libp2p=warn,yamux=warn"
    } else {
        "warn,libp2p=error"
    };
    let filter = EnvFilter::try_from_env("FANGZHI_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written must not take a request down with it.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    if as_json {
        builder.json().init()
    } else {
        builder.init()
    }
}

/// Prints a value as one JSON document.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => eprintln!("{error}"),
    }
}

/// Prints a line. A reader that went away, such as `head`, has seen what it wanted.
pub fn line(text: impl AsRef<str>) {
    print(&shown(text.as_ref()));
}

fn print(text: &str) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A text as a terminal may have it: what others wrote must not move the cursor or hide a line.
fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    let moves = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(moves) {
        true => text.replace(moves, "\u{FFFD}").into(),
        false => text.into(),
    }
}

/// How many columns a text takes on a terminal: most of what is not Latin takes two.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| {
            if (c as u32) >= 0x1100 && !('\u{2010}'..='\u{2040}').contains(&c) {
                2
            } else {
                1
            }
        })
        .sum()
}

/// Prints rows under headers, in columns.
pub fn table(headers: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headers.iter().map(|h| width(h)).collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate().take(widths.len()) {
            widths[at] = widths[at].max(width(cell));
        }
    }
    let show = |cells: Vec<&str>| {
        let mut text = String::new();
        for (at, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < cells.len() {
                text.extend(std::iter::repeat_n(
                    ' ',
                    widths[at].saturating_sub(width(cell)) + 2,
                ));
            }
        }
        line(text);
    };
    show(headers.to_vec());
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}
