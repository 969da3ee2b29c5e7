//! Web pages of a node.
//!
//! Owns one page, without scripts: what the node is and holds, for whoever opens its address.
//! Refuses to show anything of a record: it is given a status, which has none.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use registry::status::NodeStatus;

const STYLE: &str = "body{font-family:sans-serif;line-height:1.5;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}\
table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid #bbb;text-align:left;padding:.3rem .6rem}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.alarm{color:#8b0000;font-weight:bold}";

/// Text made harmless between tags and in attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The page of a status as HTML.
pub fn render(status: &NodeStatus) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"zh-CN\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>方志 · {name}</title>\
         <style>{STYLE}</style></head><body><h1>{name}</h1>\
         <p>方志节点 / Fangzhi node <b>{division}</b> · {level} · {realm}</p>",
        name = escape(&status.name),
        division = escape(status.division.as_str()),
        level = status.level.as_str(),
        realm = escape(&status.realm),
    );
    for alarm in &status.alarms {
        page.push_str(&format!(
            "<p class=\"alarm\">告警 / alarm [{}] {}: {}</p>",
            escape(&alarm.code),
            escape(alarm.origin.as_str()),
            escape(&alarm.reason)
        ));
    }
    page.push_str(
        "<h2>账本 / Ledgers</h2><table><thead><tr><th scope=\"col\">账本 / ledger</th><th scope=\"col\">归属 / whose</th>\
         <th scope=\"col\">条目 / entries</th><th scope=\"col\">已联署 / cosigned</th><th scope=\"col\">根 / root</th></tr></thead><tbody>",
    );
    for ledger in &status.ledgers {
        page.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><code>{}</code></td></tr>",
            escape(ledger.origin.as_str()),
            if ledger.own { "本节点 / own" } else { "收存 / held" },
            ledger.size,
            ledger.cosigned,
            ledger.root.get(..16).unwrap_or_default()
        ));
    }
    page.push_str("</tbody></table><h2>对端 / Peers</h2><ul>");
    for peer in &status.peers {
        let state = if peer.connected {
            "已连接 / connected"
        } else {
            "未连接 / not connected"
        };
        let error = peer.last_error.as_deref().unwrap_or_default();
        page.push_str(&format!(
            "<li>{}: {state} {}</li>",
            escape(&peer.peer),
            escape(error)
        ));
    }
    page.push_str("</ul><p>查询、登记与核验见命令行 / read, register and verify: <code>fangzhi --help</code></p></body></html>");
    page
}

/// The page of a status as an answer that a browser lets do nothing.
pub fn home(status: &NodeStatus) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, render(status)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_cannot_become_markup() {
        assert_eq!(
            escape("<a href=\"x\">&'"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;"
        );
    }
}
