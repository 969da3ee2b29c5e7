//! A plan in words: what is to be done, what it comes to, who made it, until when.
//!
//! Owns the wording. What it does not know is shown as the node told it, never left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{text, time};
use crate::client::Client;

/// What is to be done.
pub fn work(work: &Value) -> String {
    let of = |name: &str| text(&work[name]);
    match of("work").as_str() {
        "rotate-epoch" if work["compromised"] == json!(true) => format!(
            "轮换 {0} 的密钥期，旧钥已外泄 / another key epoch of {0}, whose keys are known to others",
            of("origin")
        ),
        "rotate-epoch" => format!("轮换 {0} 的密钥期 / another key epoch of {0}", of("origin")),
        "retire-epoch" => format!(
            "销毁 {0} 第 {1} 期的密钥 / the keys of epoch {1} of {0} are destroyed",
            of("origin"),
            work["epoch"]
        ),
        "end-grant" => format!(
            "终止授权 {0}，理由 {1} / grant {0} ends, for {1}",
            of("grant"),
            of("reason")
        ),
        "amend-grant" => format!(
            "变更授权 {0}：字段位置 {1}，历史 {2}；依据 {3}，评估 {4} / grant {0} is amended: field positions {1}, history {2}; on {3}, {4}",
            of("grant"),
            list(&work["fields"]),
            of("history"),
            of("basis"),
            of("assessment")
        ),
        "erase" => format!(
            "销毁 {0} 的记录 {1}，依据 {2} / record {1} of {0} is erased, on {2}",
            of("origin"),
            of("record"),
            of("basis")
        ),
        "rotate-node" => format!("{0} 换节点密钥 / other node keys for {0}", of("division")),
        "replace-charter" => format!(
            "为 {0} 的新密钥颁证，旧证作废 / a charter for other keys of {0}, the one before is void",
            of("division")
        ),
        "share" => format!(
            "节点根密钥分 {0} 份，任 {1} 份可开 / the node's root in {0} shares, any {1} of which open it: {2}",
            work["shares"],
            work["threshold"],
            holders(&work["holders"])
        ),
        "explain-clock" => format!(
            "说明 {0} 第 {1} 至 {2} 条之间的经办：时钟曾超前，所写时间至 {3}，联署于 {4}，原因 {5} / acts of {0} between {1} and {2} are explained: the clock was ahead, they claim times up to {3} and were cosigned at {4}; {5}",
            of("origin"),
            work["first"],
            work["end"],
            time(&work["claimed"]),
            time(&work["cosigned"]),
            of("reason")
        ),
        "rotate-kek" => format!(
            "{0} 换加密钥 / another key-encryption key for {0}",
            of("division")
        ),
        "order" => format!(
            "常令 / standing order: {}；账本 / ledgers: {}{}",
            list(&work["tasks"]),
            match list(&work["origins"]) {
                none if none.is_empty() => "本节点全部 / all of this node".into(),
                some => some,
            },
            classes(&work["classes"])
        ),
        "officer" => format!(
            "登记安全员或换其密钥 / a security officer is enrolled or has another key: {}",
            of("operator")
        ),
        "publish" => format!(
            "向全辖域发布 {0} 第 {1} 版，SHA-256 {2} / version {1} of {0} is published to the realm",
            of("what"),
            work["version"],
            of("hash")
        ),
        "move-shard" => format!(
            "从 {0} 迁往 {1}{2}，依据 {3} / records of {0} move to {1}{4}, on {3}",
            of("origin"),
            of("to"),
            match work["closes"] == json!(true) {
                true => "，迁完结账",
                false => "",
            },
            of("basis"),
            match work["closes"] == json!(true) {
                true => ", and the shard is closed when nothing is left in it",
                false => "",
            }
        ),
        "receive-shard" => format!(
            "接收从 {0} 迁来的记录，对方方案 {1} / what moves here from {0} under its plan {1} is registered as it comes",
            of("origin"),
            of("plan")
        ),
        // A newer node knows more than this program.
        _ => work.to_string(),
    }
}

fn list(value: &Value) -> String {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|item| {
            item.as_str()
                .map_or_else(|| item.to_string(), str::to_owned)
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn holders(value: &Value) -> String {
    let holders = value.as_array().into_iter().flatten();
    holders
        .map(|holder| {
            format!(
                "{} {}",
                text(&holder["organization"]),
                text(&holder["operator"])
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn classes(value: &Value) -> String {
    let classes = value.as_array().into_iter().flatten();
    classes
        .map(|class| {
            format!(
                "；{0}.{1} {2} 天 / days",
                text(&class["kind"]),
                text(&class["group"]),
                class["days"]
            )
        })
        .collect()
}

/// The name of a figure.
pub fn figure(name: &str) -> String {
    let chinese = match name {
        "records" => "记录",
        "closed" => "其中已注销",
        "unmovable" => "其中不能迁",
        "versions" => "版本",
        "bodies" => "正文",
        "bytes" => "字节",
        "holders" => "持有方",
        "seconds" => "预计秒数",
        "grant-parcels" => "授权递件",
        "entering" => "进入的行",
        "leaving" => "退出的行",
        "fields-added" => "新增字段",
        "fields-removed" => "去除字段",
        "ledgers" => "账本",
        "grants" => "授权",
        "shares" => "份数",
        "threshold" => "门限",
        "unreachable" => "未连接",
        "minutes-ahead" => "超前分钟",
        _ => return name.to_owned(),
    };
    format!("{chinese} / {name}")
}

/// Until when what a plan orders holds; of a standing order only, which outlives its plan.
pub fn in_force_until(plan: &Value) -> Option<String> {
    let work = &plan["work"];
    (text(&work["work"]) == "order").then(|| time(&work["not_after"]))
}

/// The logins of this node's operators, by their ids.
pub fn logins(client: &Client) -> BTreeMap<String, String> {
    let operators: Vec<Value> = client.get("/api/v1/operators").unwrap_or_default();
    operators
        .iter()
        .map(|operator| (text(&operator["operator"]), text(&operator["login"])))
        .collect()
}

/// An operator's login where it is known here, or else the id.
pub fn login(logins: &BTreeMap<String, String>, operator: &Value) -> String {
    let id = text(operator);
    logins.get(&id).cloned().unwrap_or(id)
}

/// An operator by login and id.
pub fn who(logins: &BTreeMap<String, String>, operator: &Value) -> String {
    let id = text(operator);
    match logins.get(&id) {
        Some(login) => format!("{login}（{id}）"),
        None => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_order_shows_its_own_end_and_not_the_end_of_its_plan() {
        let order = json!({
            "not_after": 1_000,
            "work": { "work": "order", "tasks": ["reseal", "retract"], "origins": [], "not_after": 1_810_835_270_392_u64 },
        });
        assert_eq!(
            in_force_until(&order).as_deref(),
            Some(time(&json!(1_810_835_270_392_u64)).as_str())
        );
        let words = work(&order["work"]);
        assert!(
            words.contains("reseal, retract") && !words.contains('{'),
            "{words}"
        );
        let other =
            json!({ "work": { "work": "rotate-node", "division": "jinfu" }, "not_after": 1 });
        assert_eq!(in_force_until(&other), None);
    }

    #[test]
    fn every_kind_of_work_is_told_in_words_and_an_unknown_one_as_it_came() {
        use record::id::{DivisionId, GrantId, Kind, OperatorId, Origin, RecordId};
        use record::plan::Work;
        let origin = Origin::parse("a.example/b/person").unwrap();
        let division = origin.division();
        let all = [
            Work::RotateEpoch {
                origin: origin.clone(),
                compromised: false,
            },
            Work::RotateEpoch {
                origin: origin.clone(),
                compromised: true,
            },
            Work::RetireEpoch {
                origin: origin.clone(),
                epoch: 1,
            },
            Work::EndGrant {
                grant: GrantId([1; 16]),
                reason: Kind::new("agreement-ended").unwrap(),
            },
            Work::Erase {
                origin,
                record: RecordId([2; 16]),
                basis: "law".into(),
            },
            Work::RotateNode {
                division: division.clone(),
            },
            Work::ReplaceCharter {
                division: division.clone(),
                keys: None,
            },
            Work::Share {
                shares: 3,
                threshold: 2,
                holders: vec![],
            },
            Work::RotateKek { division },
            Work::ExplainClock {
                origin: Origin::parse("a.example/b/person").unwrap(),
                first: 3,
                end: 8,
                claimed: record::id::UnixMillis(2),
                cosigned: record::id::UnixMillis(1),
                reason: "battery".into(),
            },
            Work::MoveShard {
                origin: Origin::parse("a.example/b/person").unwrap(),
                to: DivisionId::new("c").unwrap(),
                rows: [5; 32],
                closes: true,
                basis: "law".into(),
            },
            Work::ReceiveShard {
                origin: Origin::parse("a.example/b/person").unwrap(),
                plan: [6; 32],
            },
            Work::Officer {
                operator: OperatorId([3; 16]),
                key: [4; 32],
            },
        ];
        for one in all {
            let words = work(&serde_json::to_value(&one).unwrap());
            assert!(
                words.contains(" / ") && !words.contains('{') && !words.contains("null"),
                "{words}"
            );
        }
        assert!(work(&json!({ "work": "later" })).contains("later"));
    }
}
