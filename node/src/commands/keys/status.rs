//! Key epochs and how far resealing came, with a bar for whoever waits.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::Status;
use super::text;
use crate::client::Client;
use crate::fault::Result;
use crate::output;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub fn run(command: &Status, json: bool) -> Result<ExitCode> {
    let client = Client::connect(&command.at)?;
    let (mut epochs, renewal) = look(&client)?;
    if command.watch {
        let bar = bar(json);
        while under_way(&epochs) {
            show(&bar, &epochs);
            std::thread::sleep(LOOK);
            (epochs, _) = look(&client)?;
        }
        bar.finish_and_clear();
    }
    if json {
        output::json(&json!({ "epochs": epochs, "renewal": renewal }));
    } else {
        if !renewal.is_null() {
            output::line(format!(
                "节点密钥正在更换 / the node's keys are being changed: {}  {}",
                text(&renewal["plan"]),
                text(&renewal["refused"])
            ));
        }
        print(&epochs);
    }
    Ok(ExitCode::SUCCESS)
}

/// The epochs, and the rotation of the node's own keys that is under way.
fn look(client: &Client) -> Result<(Vec<Value>, Value)> {
    let status: Value = client.get("/api/v1/status")?;
    let epochs = status["epochs"].as_array().cloned().unwrap_or_default();
    Ok((epochs, status["renewal"].clone()))
}

/// Failures are tried again later; nobody waits for them here.
fn under_way(epochs: &[Value]) -> bool {
    epochs.iter().any(|epoch| {
        let progress = &epoch["resealing"];
        let count = |field: &str| progress[field].as_u64().unwrap_or_default();
        let counting = count("total") == 0;
        progress["finished"] == false
            && (counting || count("done") + count("failed") < count("total"))
    })
}

fn bar(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("重封 / resealing [{bar:30}] {pos}/{len}  {msg}")
    {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, epochs: &[Value]) {
    let sum = |field: &str| -> u64 {
        let of = epochs.iter().map(|e| e["resealing"][field].as_u64());
        of.map(Option::unwrap_or_default).sum()
    };
    bar.set_length(sum("total"));
    bar.set_position(sum("done"));
    bar.set_message(format!("约剩 {} 秒 / about {0} s left", sum("eta")));
}

fn print(epochs: &[Value]) {
    let rows: Vec<Vec<String>> = epochs
        .iter()
        .map(|epoch| {
            let progress = &epoch["resealing"];
            let state = if progress.is_null() {
                "–".into()
            } else if progress["finished"] == true {
                format!("完成 / done: {}", progress["total"])
            } else {
                let eta = progress["eta"].as_u64();
                let eta = eta.map_or_else(String::new, |s| format!("，约剩 {s} 秒 / {s} s left"));
                format!("{}/{}{eta}", progress["done"], progress["total"])
            };
            let open = epoch["open"].as_array().into_iter().flatten();
            vec![
                text(&epoch["origin"]),
                epoch["current"].to_string(),
                open.map(ToString::to_string).collect::<Vec<_>>().join(","),
                state,
                progress["failed"].as_u64().unwrap_or_default().to_string(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 shard",
            "密钥期 epoch",
            "在存 kept",
            "重封 resealed",
            "失败 failed",
        ],
        &rows,
    );
    for failure in epochs.iter().flat_map(|epoch| {
        epoch["resealing"]["failures"]
            .as_array()
            .into_iter()
            .flatten()
    }) {
        output::line(format!(
            "失败 / failed: {} v{} @ {}: {}",
            text(&failure["record"]),
            failure["version"],
            failure["index"],
            text(&failure["reason"])
        ));
    }
}
