//! The findings as one page of HTML for people: Chinese and English, without scripts.
//!
//! Owns the page's text and that everything on it is escaped. Refuses to fetch anything: the page
//! is whole in itself and may be printed or filed.

use record::id::UnixMillis;

use super::realm::{AuditReport, Severity};

const STYLE: &str = "body{font:15px/1.5 system-ui,'Noto Sans CJK SC',sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ccc;overflow-wrap:anywhere}\
th{background:#f2f2f2}code{font-size:.85em}.fault{color:#9b1111;font-weight:600}.warning{color:#7a4b00}.note{color:#444}.ok{color:#0b5d1e;font-weight:600}";

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A day, `YYYY-MM-DD`, in UTC.
pub fn day(at: UnixMillis) -> String {
    time(at).chars().take(10).collect()
}

/// A time in UTC, `YYYY-MM-DD HH:MM:SSZ`.
pub fn time(at: UnixMillis) -> String {
    let secs = at.secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The Gregorian date of a number of days since 1970-01-01 (H. Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The words of a severity.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Fault => "不符 / does not hold",
        Severity::Warning => "留意 / look at this",
        Severity::Note => "说明 / note",
    }
}

fn table(title: &str, headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = format!("<h2>{}</h2>\n", escape(title));
    if rows.is_empty() {
        return html + "<p>无 / none</p>\n";
    }
    html.push_str("<table><thead><tr>");
    for header in headers {
        html.push_str(&format!("<th>{}</th>", escape(header)));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            html.push_str(&format!("<td>{}</td>", escape(cell)));
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody></table>\n"
}

/// The page.
pub fn html(report: &AuditReport) -> String {
    let verdict = if report.ok {
        "<p class=\"ok\">全部相符 / everything holds</p>"
    } else {
        "<p class=\"fault\">核验不通过 / it does not hold</p>"
    };
    let title = format!("核验报告 / Audit: {} · {}", report.realm, report.division);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"zh\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{0}</h1>\n{verdict}\n<p>{1}；{2} 个账本 / ledgers，{3} 个文件 / files，{4} 字节 / bytes</p>\n",
        escape(&title),
        time(report.at),
        report.ledgers.len(),
        report.verify.files,
        report.verify.bytes,
    );
    html.push_str("<h2>发现 / Findings</h2>\n");
    if report.findings.is_empty() {
        html.push_str("<p>无 / none</p>\n");
    } else {
        html.push_str("<table><thead><tr><th>程度 severity</th><th>对象 subject</th><th>发现 finding</th></tr></thead>\n<tbody>\n");
        for finding in &report.findings {
            let class = match finding.severity {
                Severity::Fault => "fault",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            html.push_str(&format!(
                "<tr><td class=\"{class}\">{}</td><td>{}<br><code>{}</code></td><td>{}<br><span lang=\"en\">{}</span></td></tr>\n",
                severity(finding.severity),
                escape(&finding.subject),
                finding.code,
                escape(&finding.zh),
                escape(&finding.en),
            ));
        }
        html.push_str("</tbody></table>\n");
    }
    html.push_str(&ledgers(report));
    html.push_str(&charters(report));
    html.push_str(&grants(report));
    html + "</body></html>\n"
}

fn ledgers(report: &AuditReport) -> String {
    let rows: Vec<Vec<String>> = report
        .ledgers
        .iter()
        .map(|l| {
            let signers: Vec<String> = l
                .signers
                .iter()
                .map(|s| match s.time_secs {
                    Some(secs) => format!(
                        "{} ({})",
                        s.name,
                        time(UnixMillis(secs.saturating_mul(1000)))
                    ),
                    None => s.name.clone(),
                })
                .collect();
            vec![
                l.origin.to_string(),
                l.size.to_string(),
                l.cosigned.map_or_else(|| "–".into(), |n| n.to_string()),
                l.acts.to_string(),
                l.bodies.to_string(),
                l.root.clone(),
                signers.join(", "),
            ]
        })
        .collect();
    table(
        "账本 / Ledgers",
        &[
            "账本 ledger",
            "条目 entries",
            "已联署 cosigned",
            "经办 acts",
            "正文 bodies",
            "根 root",
            "签名 signatures",
        ],
        &rows,
    )
}

fn charters(report: &AuditReport) -> String {
    let rows: Vec<Vec<String>> = report
        .charters
        .iter()
        .map(|c| {
            vec![
                format!("{} {}", c.division, c.name),
                c.parent.to_string(),
                c.serial.to_string(),
                day(c.not_after),
                c.state.to_owned(),
                c.operators.to_string(),
            ]
        })
        .collect();
    table(
        "节点证书 / Charters",
        &[
            "节点 node",
            "签发 issuer",
            "序号 serial",
            "有效至 until",
            "状态 state",
            "操作员 operators",
        ],
        &rows,
    )
}

fn grants(report: &AuditReport) -> String {
    let rows: Vec<Vec<String>> = report
        .grants
        .iter()
        .map(|g| {
            vec![
                g.id.clone(),
                g.origin.to_string(),
                g.holder.to_string(),
                g.fields.to_string(),
                g.purpose.clone(),
                day(g.not_after),
                g.state.to_owned(),
                g.heartbeat.map_or_else(|| "–".into(), |n| n.to_string()),
            ]
        })
        .collect();
    table(
        "授权 / Grants",
        &[
            "授权 grant",
            "分片 shard",
            "持有方 holder",
            "字段 fields",
            "用途 purpose",
            "有效至 until",
            "状态 state",
            "心跳 heartbeat",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc_over_leap_days() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_164_800, "2024-02-29 00:00:00Z"),
            (1_767_225_599, "2025-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(UnixMillis(secs * 1000)), text);
        }
    }

    #[test]
    fn what_a_name_says_cannot_become_markup() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
