//! Verifying a directory, offline.

use std::process::ExitCode;

use crate::args::{Repair, Verify};
use crate::fault::{Result, exit};
use crate::output;

pub fn run(command: &Verify, json: bool) -> Result<ExitCode> {
    let report = registry::verify::verify_at(&command.dir, api::now())?;
    let code = if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    };
    if json {
        output::json(&report);
        return Ok(code);
    }
    let rows: Vec<Vec<String>> = report
        .ledgers
        .iter()
        .map(|l| {
            vec![
                l.origin.to_string(),
                l.size.to_string(),
                l.acts.to_string(),
                l.bodies.to_string(),
                l.signatures.to_string(),
                l.root.chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 ledger",
            "条目 entries",
            "经办 acts",
            "正文 bodies",
            "签名 signatures",
            "根 root",
        ],
        &rows,
    );
    for remark in &report.remarks {
        output::line(format!("说明 / remark: {remark}"));
    }
    for explained in &report.explained {
        output::line(format!(
            "已说明 / explained: {} {}",
            explained.origin.as_deref().unwrap_or_default(),
            explained.what
        ));
    }
    for finding in &report.findings {
        let place = match (&finding.file, &finding.offset) {
            (Some(file), Some(offset)) => format!("{file} @ {offset}  "),
            _ => String::new(),
        };
        output::line(format!(
            "不符 / does not hold: {place}{} {}",
            finding.origin.as_deref().unwrap_or_default(),
            finding.what
        ));
    }
    if report.more_findings > 0 {
        output::line(format!("…… 另有 {} 处 / more", report.more_findings));
    }
    let verdict = if report.ok {
        "全部相符 / everything holds"
    } else {
        "核验不通过 / it does not verify"
    };
    output::line(format!(
        "{verdict}：{} 个文件 / files，{} 字节 / bytes，{} ms",
        report.files, report.bytes, report.elapsed_ms
    ));
    Ok(code)
}

pub fn repair(command: &Repair, json: bool) -> Result<ExitCode> {
    let report = registry::repair::repair(&command.dir)?;
    if json {
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(aside) = &report.moved_aside else {
        output::line("没有损坏 / nothing is damaged");
        return Ok(ExitCode::SUCCESS);
    };
    output::line(format!(
        "损坏的文件移至 / the damaged files lie in {}",
        aside.display()
    ));
    for cut in &report.ledgers {
        output::line(format!(
            "{}：保留 {} 条，待取回 {} 条 / kept {}, to be fetched {}",
            cut.origin, cut.kept, cut.to_fetch, cut.kept, cut.to_fetch
        ));
    }
    if report.values_lost > 0 {
        output::line(format!(
            "另有 {} 个附属值丢失 / other values lost",
            report.values_lost
        ));
    }
    output::line(
        "启动节点即从上级取回 / start the node: it fetches the rest from its parent: fangzhi run",
    );
    Ok(ExitCode::SUCCESS)
}
