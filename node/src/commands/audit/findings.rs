//! All findings over what a node holds: on the terminal, as a page, as JSON.

use std::process::ExitCode;

use registry::audit::page;
use registry::audit::realm::{AuditReport, Severity, audit};

use super::args::All;
use crate::fault::{Result, exit};
use crate::output;

pub fn all(command: &All, json: bool) -> Result<ExitCode> {
    let report = audit(&command.node.dir, api::now())?;
    if let Some(path) = &command.out {
        super::write(path, page::html(&report).as_bytes())?;
    }
    if json {
        output::json(&report);
    } else {
        show(&report);
        if let Some(path) = &command.out {
            output::line(format!("网页 / page: {}", path.display()));
        }
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    })
}

fn show(report: &AuditReport) {
    let dash = |n: Option<u64>| n.map_or_else(|| "–".into(), |n: u64| n.to_string());
    let ledgers: Vec<Vec<String>> = report
        .ledgers
        .iter()
        .map(|l| {
            vec![
                l.origin.to_string(),
                l.size.to_string(),
                dash(l.cosigned),
                l.acts.to_string(),
                l.bodies.to_string(),
                l.signers.len().to_string(),
            ]
        })
        .collect();
    output::table(
        &[
            "账本 ledger",
            "条目 entries",
            "已联署 cosigned",
            "经办 acts",
            "正文 bodies",
            "签名 signatures",
        ],
        &ledgers,
    );
    let charters: Vec<Vec<String>> = report
        .charters
        .iter()
        .map(|c| {
            vec![
                c.division.to_string(),
                c.parent.to_string(),
                page::day(c.not_after),
                c.state.to_owned(),
                c.operators.to_string(),
            ]
        })
        .collect();
    output::line("");
    output::table(
        &[
            "节点证书 charter",
            "签发 issuer",
            "有效至 until",
            "状态 state",
            "操作员 operators",
        ],
        &charters,
    );
    if !report.grants.is_empty() {
        let grants: Vec<Vec<String>> = report
            .grants
            .iter()
            .map(|g| {
                vec![
                    g.id.chars().take(8).collect(),
                    g.origin.to_string(),
                    g.holder.to_string(),
                    page::day(g.not_after),
                    g.state.to_owned(),
                    dash(g.heartbeat),
                ]
            })
            .collect();
        output::line("");
        output::table(
            &[
                "授权 grant",
                "分片 shard",
                "持有方 holder",
                "有效至 until",
                "状态 state",
                "心跳 heartbeat",
            ],
            &grants,
        );
    }
    output::line("");
    for finding in &report.findings {
        output::line(format!(
            "{} [{}] {}\n   {}\n   {}",
            page::severity(finding.severity),
            finding.code,
            finding.subject,
            finding.zh,
            finding.en
        ));
    }
    let count = |severity| {
        let of = report.findings.iter().filter(|f| f.severity == severity);
        of.count()
    };
    let verdict = if report.ok {
        "全部相符 / everything holds"
    } else {
        "核验不通过 / it does not hold"
    };
    output::line(format!(
        "{verdict}：{} 不符 / faults，{} 留意 / warnings，{} 说明 / notes；{} ms",
        count(Severity::Fault),
        count(Severity::Warning),
        count(Severity::Note),
        report.verify.elapsed_ms
    ));
}
