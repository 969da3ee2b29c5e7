//! Writing a synthetic community to CSV files.

use std::process::ExitCode;

use serde_json::json;

use crate::args::Sample;
use crate::fault::{Fault, Result};
use crate::output;

pub fn run(command: &Sample, json: bool) -> Result<ExitCode> {
    const PERSONS_MAX: usize = 1_000_000;
    if command.persons == 0 || command.persons > PERSONS_MAX {
        return Err(Fault::usage(format!(
            "`--persons` 取 1 至 {PERSONS_MAX} / takes 1 to {PERSONS_MAX}"
        )));
    }
    let place = sample::Place {
        community: command.name.clone(),
        ..sample::Place::default()
    };
    let community = sample::community(command.seed, command.persons, &place);
    std::fs::create_dir_all(&command.out).map_err(|e| Fault::file(&command.out, &e))?;
    let mut files = Vec::new();
    for (kind, table) in community.tables() {
        let path = command.out.join(format!("{kind}.csv"));
        // The mark at the beginning lets spreadsheet programs see that it is UTF-8.
        let text = format!("\u{feff}{}", table.csv());
        store::atomic::replace(&path, text.as_bytes()).map_err(|e| Fault::failed(e.to_string()))?;
        files.push(json!({ "kind": kind, "file": path, "rows": table.rows.len() }));
    }
    if json {
        output::json(&json!({ "seed": command.seed, "files": files }));
    } else {
        output::line(
            "以下人员均为合成，号码所用区划代码不存在 / nobody in these files exists; their numbers use a division code that does not exist",
        );
        for file in &files {
            output::line(format!(
                "{}  {} 行 / rows",
                file["file"].as_str().unwrap_or_default(),
                file["rows"]
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
