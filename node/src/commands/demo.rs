//! The demonstration (演示): a district, its town, two communities and a department, each a
//! process of its own, from the first key to a verified subset.
//!
//! Every figure that it prints is read from the running nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use record::authority::{Level, Role};
use record::id::{DivisionId, Kind, Purpose};
use registry::grant::GrantRequest;
use registry::read::ReadRequest;
use registry::register::ImportReport;
use serde_json::{Value, json};

use super::import;
use super::realm::{self, Node, OFFICER, PATIENCE, Passphrases, Planned, client, phrase, status};
use crate::args::Demo;
use crate::fault::{Fault, Result};
use crate::{input, output};

const REALM: &str = "jiangjin.example";

/// What the department is granted of the person shard.
const GRANTED: [&str; 8] = [
    "status",
    "grid",
    "name",
    "sex",
    "birth_date",
    "household_code",
    "family_relation",
    "welfare",
];

const PLAN: [Planned; 5] = [
    Planned {
        division: "jiangjin",
        name: "江津区",
        level: Level::District,
        code: Some(("mca", "500116")),
        parent: None,
        operators: &[("shuju", Role::DistrictOfficer), ("shenji", Role::Auditor)],
    },
    Planned {
        division: "shuangfu",
        name: "双福街道",
        level: Level::Town,
        code: Some(("nbs", "500116004")),
        parent: Some(0),
        operators: &[("dengji", Role::Clerk), ("shenji", Role::Auditor)],
    },
    Planned {
        division: "jinfu",
        name: "津福社区",
        level: Level::Community,
        code: Some(("nbs", "500116004002")),
        parent: Some(1),
        operators: &[
            ("dengji", Role::Clerk),
            ("wangge", Role::GridWorker),
            ("shenji", Role::Auditor),
        ],
    },
    Planned {
        division: "fucheng",
        name: "福城社区",
        level: Level::Community,
        code: Some(("nbs", "500116004013")),
        parent: Some(1),
        operators: &[
            ("dengji", Role::Clerk),
            ("wangge", Role::GridWorker),
            ("shenji", Role::Auditor),
        ],
    },
    Planned {
        division: "minzheng",
        name: "区民政局",
        level: Level::Department,
        code: None,
        parent: Some(0),
        operators: &[
            ("jingban", Role::DepartmentOfficer),
            ("shenji", Role::Auditor),
        ],
    },
];

/// The communities' places in [`PLAN`], and the department's.
const COMMUNITIES: [usize; 2] = [2, 3];
const DEPARTMENT: usize = 4;

pub fn run(command: &Demo, json: bool) -> Result<ExitCode> {
    let (dir, temporary) = realm::fresh_dir(command.dir.as_ref(), "demo")?;
    let done = cycle(command, &dir, json);
    let result = match done {
        Ok((nodes, summary)) => {
            if json {
                output::json(&summary);
            }
            if command.once {
                drop(nodes);
            } else {
                farewell(&nodes);
                wait_for_interrupt()?;
                output::line("正在停止 / stopping");
                drop(nodes);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => Err(fault),
    };
    if temporary && result.is_ok() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    result
}

fn wait_for_interrupt() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fault::failed(e.to_string()))?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|e| Fault::failed(e.to_string()))?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// One whole cycle: make, enrol, import, replicate, grant, read.
fn cycle(command: &Demo, dir: &Path, quiet: bool) -> Result<(Vec<Node>, Value)> {
    let say = |text: String| {
        if !quiet {
            output::line(text);
        }
    };
    let passphrases = realm::passphrases(&PLAN)?;
    let mut nodes: Vec<Node> = Vec::new();
    for plan in &PLAN {
        let node_dir = dir.join(plan.division);
        realm::make(REALM, plan, &node_dir, &nodes, &passphrases)?;
        let node = realm::start(plan, node_dir)?;
        say(format!(
            "✓ {}（{}）已运行 / running at {}",
            plan.name, plan.division, node.url
        ));
        realm::enrol_operators(&node, &passphrases, first_grid)?;
        nodes.push(node);
    }
    write_logins(dir, &nodes, &passphrases)?;

    let mut total = ImportReport::default();
    for (serial, community) in COMMUNITIES.iter().enumerate() {
        let node = &nodes[*community];
        let report = import_sample(command, node, serial as u16 + 1, &passphrases)?;
        say(format!(
            "✓ {}：登记 {} 条 / registered {} of {} rows",
            node.plan.name, report.accepted, report.accepted, report.rows
        ));
        total.rows += report.rows;
        total.accepted += report.accepted;
        total.rejected += report.rejected;
    }
    wait("replication to the district", || replicated(&nodes))?;
    say("✓ 两个社区的账本已逐级收存并联署 / both communities' ledgers are held and cosigned up to the district".to_owned());

    let expected = grant_subset(&nodes, &passphrases)?;
    wait("the department's subset", || {
        received(&nodes[DEPARTMENT], expected)
    })?;
    let department = read_as_department(&nodes[DEPARTMENT], &passphrases)?;
    say(format!(
        "✓ {} 收到 {expected} 人的授权字段 / received the granted fields of {expected} persons",
        PLAN[DEPARTMENT].name
    ));
    // The readings and the grant's ledger are history too: the cycle ends when they are held above.
    wait("the last entries", || replicated(&nodes))?;
    let summary = summary(&nodes, &total, &department)?;
    Ok((nodes, summary))
}

fn place(plan: &Planned) -> sample::Place {
    let serial = COMMUNITIES
        .iter()
        .position(|at| PLAN[*at].division == plan.division)
        .unwrap_or(0) as u16
        + 1;
    sample::Place {
        community: plan.name.to_owned(),
        ..sample::Place::numbered(serial)
    }
}

/// The first grid of a community's sample, whatever its size.
fn first_grid(plan: &Planned) -> String {
    let community = sample::community(1, 1, &place(plan));
    community
        .grids
        .column("grid")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn write_logins(dir: &Path, nodes: &[Node], passphrases: &Passphrases) -> Result<()> {
    let logins: Vec<Value> = nodes
        .iter()
        .flat_map(|node| {
            let operators = node
                .plan
                .operators
                .iter()
                .map(|(login, role)| (*login, role.as_str()));
            operators
                .chain([(OFFICER, Role::SecurityOfficer.as_str())])
                .map(|(login, role)| {
                    json!({ "division": node.plan.division, "login": login, "role": role,
                    "passphrase": phrase(passphrases, node.plan.division, login) })
                })
        })
        .collect();
    let bytes = serde_json::to_vec_pretty(&logins).map_err(|e| Fault::failed(e.to_string()))?;
    store::atomic::replace(&dir.join("logins.json"), &bytes)
        .map_err(|e| Fault::failed(e.to_string()))
}

fn import_sample(
    command: &Demo,
    node: &Node,
    serial: u16,
    passphrases: &Passphrases,
) -> Result<ImportReport> {
    let community = sample::community(
        command.seed + u64::from(serial),
        command.persons,
        &place(node.plan),
    );
    let client = client(node, "dengji", passphrases)?;
    let mut total = ImportReport::default();
    for (kind, table) in community.tables() {
        let kind = Kind::new(kind).map_err(|e| Fault::failed(e.to_string()))?;
        let schema = record::schema::Catalogue::builtin()
            .schema(&kind)
            .ok_or_else(|| {
                Fault::failed(format!(
                    "the sample has a kind `{kind}` that the catalogue lacks"
                ))
            })?;
        let path = node.dir.join(format!("sample-{kind}.csv"));
        store::atomic::replace(&path, table.csv().as_bytes())
            .map_err(|e| Fault::failed(e.to_string()))?;
        let table = input::read(&path, schema, &[])?;
        let report = import::send(&client, &kind, &table, false, true)?;
        std::fs::remove_file(&path).map_err(|e| Fault::file(&path, &e))?;
        total.rows += report.rows;
        total.accepted += report.accepted;
        total.rejected += report.rejected;
    }
    Ok(total)
}

fn wait(what: &str, done: impl FnMut() -> Result<bool>) -> Result<()> {
    realm::wait(what, Duration::from_millis(100), PATIENCE, done)
}

/// Origin to size and root of the ledgers that a node writes or holds.
pub fn heads(status: &Value, own: bool) -> BTreeMap<String, (u64, String)> {
    status["ledgers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|ledger| !own || ledger["own"] == json!(true))
        .filter_map(|ledger| {
            let origin = ledger["origin"].as_str()?.to_owned();
            Some((
                origin,
                (
                    ledger["size"].as_u64()?,
                    ledger["root"].as_str()?.to_owned(),
                ),
            ))
        })
        .collect()
}

/// Whether every ledger of every node below is at the district, the same, and cosigned at home.
fn replicated(nodes: &[Node]) -> Result<bool> {
    let district = heads(&status(&nodes[0])?, false);
    for node in &nodes[1..] {
        let status = status(node)?;
        let own = heads(&status, true);
        let cosigned = status["ledgers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|ledger| ledger["own"] == json!(true))
            .all(|ledger| ledger["cosigned"] == ledger["size"]);
        if !cosigned
            || own
                .iter()
                .any(|(origin, head)| district.get(origin) != Some(head))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Grants the department the registered residents of the first community; gives how many they are.
fn grant_subset(nodes: &[Node], passphrases: &Passphrases) -> Result<u64> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let community = &nodes[COMMUNITIES[0]];
    let officer = client(community, OFFICER, passphrases)?;
    let request = GrantRequest {
        kind: Kind::new("person").map_err(words)?,
        holder: DivisionId::new(PLAN[DEPARTMENT].division).map_err(words)?,
        fields: GRANTED.iter().map(|f| (*f).to_owned()).collect(),
        rows: BTreeMap::from([("residence_kind".to_owned(), "10".to_owned())]),
        purpose: Purpose::new("welfare").map_err(words)?,
        basis: "社会救助暂行办法".into(),
        assessment: "PIA-2026-001（演示）".into(),
        days: 180,
        history: record::authority::History::default(),
    };
    // The charter of the department comes down from the district; wait for it.
    let start = Instant::now();
    let grant: Value = loop {
        match officer.post("/api/v1/grants", &request) {
            Err(fault) if fault.code == "no-charter" && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => break other?,
        }
    };
    // The owner's own list says how many records are in scope, once its checkpoint is cosigned.
    let mut last = 0;
    wait("the grant to be worked through", || {
        let grants: Vec<Value> = officer.get("/api/v1/grants")?;
        let line = grants.iter().find(|line| line["id"] == grant["grant"]);
        last = line.and_then(|line| line["records"].as_u64()).unwrap_or(0);
        let current = line.is_some_and(|line| line["current"] == json!(true));
        Ok(current && last > 0)
    })?;
    Ok(last)
}

fn received(department: &Node, expected: u64) -> Result<bool> {
    let status = status(department)?;
    let records: u64 = status["holdings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|h| h["records"].as_u64())
        .sum();
    Ok(records == expected)
}

/// Reads all fields as the department's officer; gives which were opened and which refused.
fn read_as_department(department: &Node, passphrases: &Passphrases) -> Result<Value> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let client = client(department, "jingban", passphrases)?;
    let request = ReadRequest {
        closed: false,
        kind: Kind::new("person").map_err(words)?,
        filters: vec![],
        fields: None,
        purpose: Purpose::new("welfare").map_err(words)?,
        basis: Some("演示 / demonstration".into()),
        limit: None,
    };
    let answer: Value = client.post("/api/v1/read", &request)?;
    let mut opened: Vec<String> = answer["value"]["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["fields"].as_object())
        .flat_map(|fields| fields.keys().cloned())
        .collect();
    opened.sort();
    opened.dedup();
    let refused: Vec<Value> = answer["value"]["denied"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|d| d["field"].clone())
        .collect();
    Ok(json!({ "opened_fields": opened, "refused_fields": refused }))
}

fn summary(nodes: &[Node], import: &ImportReport, department: &Value) -> Result<Value> {
    let mut lines = Vec::new();
    for node in nodes {
        let status = status(node)?;
        let ledgers: Vec<Value> = heads(&status, false)
            .into_iter()
            .map(|(origin, (size, root))| json!({ "origin": origin, "size": size, "root": root }))
            .collect();
        lines.push(json!({
            "name": status["name"],
            "division": status["division"],
            "level": status["level"],
            "dir": node.dir,
            "url": node.url,
            "ledgers": ledgers,
        }));
    }
    Ok(json!({
        "nodes": lines,
        "import": { "rows": import.rows, "accepted": import.accepted, "rejected": import.rejected },
        "department": department,
    }))
}

fn farewell(nodes: &[Node]) {
    let exe =
        std::env::current_exe().map_or_else(|_| "fangzhi".into(), |p| p.display().to_string());
    output::line("");
    output::line("演示辖域已就绪；人员均为合成 / the realm is ready; nobody in it exists");
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let logins: Vec<&str> = node
                .plan
                .operators
                .iter()
                .map(|(login, _)| *login)
                .chain([OFFICER])
                .collect();
            vec![
                node.plan.name.into(),
                node.url.clone(),
                logins.join(" "),
                node.dir.display().to_string(),
            ]
        })
        .collect();
    output::table(
        &["节点 node", "地址 url", "登录名 logins", "目录 dir"],
        &rows,
    );
    if let Some(dir) = nodes[0].dir.parent() {
        output::line(format!(
            "口令 / passphrases: {}（命令行自动取用 / commands find them by themselves）",
            dir.join("logins.json").display()
        ));
    }
    let dir = |at: usize| nodes[at].dir.display().to_string();
    output::line("");
    output::line("试试这五条命令 / five commands to try:");
    output::line(format!("  {exe} status --dir {}", dir(0)));
    output::line(format!(
        "  {exe} read --dir {} person --where 'name^=王' --as dengji --purpose registration --limit 3",
        dir(2)
    ));
    output::line(format!(
        "  {exe} read --dir {} person --as jingban --purpose welfare --limit 3",
        dir(4)
    ));
    output::line(format!("  {exe} verify --dir {}", dir(0)));
    output::line(format!("  {exe} doctor --dir {}", dir(2)));
    output::line("");
    output::line("Ctrl-C 停止全部 / Ctrl-C stops all");
}
