//! Import (导入): a preview of the whole file, then 256 rows an act.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use record::id::Kind;
use record::schema::Schema;
use registry::register::{IMPORT_ROWS, ImportChunk, ImportReport, PREVIEW_ROWS, RowViolation};
use serde_json::json;

use crate::args::Import;
use crate::client::Client;
use crate::fault::{Fault, Result, exit};
use crate::input::{self, Table};
use crate::output;

/// How many violations a person is shown; the reject file has them all.
const SHOWN: usize = 20;

pub fn run(command: &Import, json: bool) -> Result<ExitCode> {
    let mut client = Client::connect(&command.at)?;
    let catalogue = client.catalogue()?;
    let schema = catalogue.schema(&command.kind).ok_or_else(|| {
        Fault::usage(format!(
            "没有类别 `{0}` / no kind `{0}`; see `fangzhi schema list`",
            command.kind
        ))
    })?;
    let table = input::read(&command.file, schema, &command.only)?;
    if !json {
        introduce(command, schema, &table);
    }
    client.login(&command.who, &["clerk"])?;
    let mut preview = send(&client, &command.kind, &table, true, json)?;
    give_back(&table, &mut preview);
    let rejects = reject_file(command, &table, &preview)?;
    if command.dry_run {
        report(json, &preview, rejects.as_ref(), true);
        return Ok(ExitCode::SUCCESS);
    }
    if command.all_or_nothing && preview.rejected > 0 {
        report(json, &preview, rejects.as_ref(), true);
        return Ok(ExitCode::from(exit::PARTLY));
    }
    let mut done = send(&client, &command.kind, &table, false, json)?;
    give_back(&table, &mut done);
    report(json, &done, rejects.as_ref(), false);
    Ok(if done.rejected > 0 {
        ExitCode::from(exit::PARTLY)
    } else {
        ExitCode::SUCCESS
    })
}

fn introduce(command: &Import, schema: &Schema, table: &Table) {
    output::line(format!(
        "{} → {}（{}）  {} 行 / rows  {}",
        command.file.display(),
        schema.name,
        schema.kind,
        table.rows.len(),
        table.encoding
    ));
    for (header, field) in table.headers.iter().zip(&table.map.columns) {
        match field {
            Some(id) => {
                let name = schema.field(id).map_or("", |f| f.name.as_str());
                output::line(format!("  {header} → {id} {name}"));
            }
            None => output::line(format!("  {header} → （不取 / not taken）")),
        }
    }
}

/// Sends the rows, in chunks that one act signs; a dry run sends the same chunks and writes nothing.
pub fn send(
    client: &Client,
    kind: &Kind,
    table: &Table,
    dry_run: bool,
    quiet: bool,
) -> Result<ImportReport> {
    let label = if dry_run {
        "检查 / checking"
    } else {
        "登记 / registering"
    };
    let bar = progress(table.rows.len() as u64, label, quiet);
    let mut total = ImportReport::default();
    // A preview sends as much as it may, so that values that stand twice far apart are seen.
    let size = if dry_run { PREVIEW_ROWS } else { IMPORT_ROWS };
    for rows in table.rows.chunks(size) {
        let chunk = ImportChunk {
            kind: kind.clone(),
            source: table.source.clone(),
            rows: rows.iter().map(|(_, row)| table.fields(row)).collect(),
            numbers: rows.iter().map(|(number, _)| *number).collect(),
            dry_run,
        };
        let report: ImportReport = client.post("/api/v1/import", &chunk).map_err(|mut fault| {
            fault.details.push(next(&fault.code, kind, total.accepted));
            fault
        })?;
        bar.inc(report.rows);
        add(&mut total, report);
    }
    bar.finish_and_clear();
    Ok(total)
}

/// What to do when an import stopped: whoever may not import is not told to import again.
fn next(code: &str, kind: &Kind, accepted: u64) -> String {
    match code {
        "denied" => format!(
            "此前已登记 {accepted} 行；再导也会被拒。登记 `{kind}` 须由登记员（clerk）办理，网格员（grid-worker）只限本网格：用 --as 换有此角色的登录名，或请安全员 `fangzhi operator add LOGIN --role clerk`；规则见 docs/policies.md / {accepted} rows were registered before this, and importing again will be refused again. To register `{kind}` takes a clerk, or a grid worker for the own grid: name a login of that role with --as, or ask the security officer for `fangzhi operator add LOGIN --role clerk`; the rules are in docs/policies.md"
        ),
        _ => format!(
            "此前已登记 {accepted} 行；排除故障后重新导入同一文件即可续完 / {accepted} rows were registered before this; mend what stopped it and import the same file again to go on"
        ),
    }
}

fn add(total: &mut ImportReport, report: ImportReport) {
    total.rows += report.rows;
    total.accepted += report.accepted;
    total.rejected += report.rejected;
    total.repeated += report.repeated;
    total.violations.extend(report.violations);
}

/// Counts the rows that are no rows of this header among the rejected.
fn give_back(table: &Table, report: &mut ImportReport) {
    let ragged = table.ragged.iter().map(|(number, row)| RowViolation {
        row: *number,
        field: "列数".into(),
        reason: table.ragged_reason(row),
    });
    report.rows += table.ragged.len() as u64;
    report.rejected += table.ragged.len() as u64;
    report.violations.extend(ragged);
    report.violations.sort_by_key(|violation| violation.row);
}

/// A bar on a terminal, a line per tenth elsewhere, nothing when only JSON is wanted.
fn progress(rows: u64, label: &str, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}  {per_sec}  剩余 / left {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar
}

fn reject_file(command: &Import, table: &Table, report: &ImportReport) -> Result<Option<PathBuf>> {
    if report.violations.is_empty() {
        return Ok(None);
    }
    let path = command.rejects.clone().unwrap_or_else(|| {
        let name = command
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let stem = name.trim_end_matches(".gz").trim_end_matches(".csv");
        command.file.with_file_name(format!("{stem}.退回.csv"))
    });
    let mut reasons: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for RowViolation { row, field, reason } in &report.violations {
        reasons
            .entry(*row)
            .or_default()
            .push(format!("{field}：{reason}"));
    }
    let mut rows: Vec<(u64, &csv::StringRecord, String)> = table
        .rows
        .iter()
        .chain(&table.ragged)
        .filter_map(|(number, row)| Some((*number, row, reasons.get(number)?.join("；"))))
        .collect();
    rows.sort_by_key(|(number, ..)| *number);
    let rows: Vec<(&csv::StringRecord, String)> = rows
        .into_iter()
        .map(|(_, row, reason)| (row, reason))
        .collect();
    match input::write_rejects(&path, &table.headers, &rows) {
        Ok(()) => Ok(Some(path)),
        // A read-only folder is no reason not to import; `--rejects` names another place.
        Err(fault) if command.rejects.is_none() => {
            eprintln!(
                "{}；可用 --rejects 另指文件 / name another file with --rejects",
                fault.message
            );
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

fn report(as_json: bool, report: &ImportReport, rejects: Option<&PathBuf>, preview: bool) {
    if as_json {
        output::json(&json!({
            "dry_run": preview,
            "rows": report.rows,
            "accepted": report.accepted,
            "rejected": report.rejected,
            "repeated": report.repeated,
            "violations": report.violations,
            "rejects": rejects,
        }));
        return;
    }
    let rejected: BTreeSet<u64> = report.violations.iter().map(|v| v.row).collect();
    for violation in report.violations.iter().take(SHOWN) {
        output::line(format!(
            "  第 {} 行 {}：{}",
            violation.row, violation.field, violation.reason
        ));
    }
    if report.violations.len() > SHOWN {
        output::line(format!(
            "  …… 共 {} 处，涉及 {} 行 / in all, in {} rows",
            report.violations.len(),
            rejected.len(),
            rejected.len()
        ));
    }
    if let Some(path) = rejects {
        output::line(format!(
            "退回文件 / rejected rows, to mend and import: {}",
            path.display()
        ));
    }
    let label = if preview {
        "预览，尚未写入 / preview, nothing written"
    } else {
        "完成 / done"
    };
    output::line(format!(
        "{label}：{} 行 / rows = {} 登记 / accepted（其中 {} 此前已登记 / registered before）+ {} 退回 / rejected",
        report.rows, report.accepted, report.repeated, report.rejected
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_import_is_told_whom_to_ask_and_not_to_import_again() {
        let kind = Kind::new("person").unwrap();
        let told = next("denied", &kind, 0);
        let (chinese, english) = told.split_once(" / ").unwrap();
        assert!(
            chinese.contains("登记员") && !chinese.contains("续完"),
            "{told}"
        );
        assert!(
            english.contains("clerk") && english.contains("--as"),
            "{told}"
        );
        assert!(!english.contains("to go on"), "{told}");
        assert!(next("store", &kind, 256).contains("256 rows"));
        assert!(next("store", &kind, 256).contains("to go on"));
    }
}
