//! The demonstration (演示): a district, its town, two communities and a department, each a
//! process of its own, from the first key to a verified subset.
//!
//! Every figure that it prints is read from the running nodes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use record::authority::{DivisionCode, Level, Role};
use record::id::{DivisionId, Kind, Purpose, Realm};
use registry::config::{Files, KeyCustody};
use registry::grant::GrantRequest;
use registry::keys::Opener;
use registry::node::NewNode;
use registry::read::ReadRequest;
use registry::register::ImportReport;
use registry::replicate::{Invitation, NewInvitation};
use registry::session::NewOperator;
use serde_json::{Value, json};

use super::{import, node};
use crate::args::{Demo, Listen};
use crate::client::{Client, RunFile};
use crate::fault::{Fault, Result};
use crate::{input, output};

/// How long one step may take before the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(180);
const REALM: &str = "jiangjin.example";
const OFFICER: &str = "anquan";

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

struct Planned {
    division: &'static str,
    name: &'static str,
    level: Level,
    /// `(scheme, code, valid from)`.
    code: Option<(&'static str, &'static str)>,
    parent: Option<usize>,
    operators: &'static [(&'static str, Role)],
}

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

struct Node {
    plan: &'static Planned,
    dir: PathBuf,
    _process: Process,
    url: String,
    listen: String,
}

/// A child process that ends with this one, however this one ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its standard input lets it end in order; what does not is ended.
        drop(self.0.stdin.take());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(command: &Demo, json: bool) -> Result<ExitCode> {
    let (dir, temporary) = match &command.dir {
        Some(dir) => (dir.clone(), false),
        None => (temporary_dir()?, true),
    };
    std::fs::create_dir_all(&dir).map_err(|e| Fault::file(&dir, &e))?;
    let dir = dir.canonicalize().map_err(|e| Fault::file(&dir, &e))?;
    if std::fs::read_dir(&dir)
        .map_err(|e| Fault::file(&dir, &e))?
        .next()
        .is_some()
    {
        return Err(Fault::usage(format!(
            "`{0}` 不是空目录 / `{0}` is not empty; the demonstration makes a fresh realm, choose another directory",
            dir.display()
        )));
    }
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

fn temporary_dir() -> Result<PathBuf> {
    let name = registry::keys::token()?;
    Ok(std::env::temp_dir().join(format!("fangzhi-demo-{}", &name[..12])))
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
    let passphrases = passphrases()?;
    let mut nodes: Vec<Node> = Vec::new();
    for plan in &PLAN {
        let node_dir = dir.join(plan.division);
        make(plan, &node_dir, &nodes, &passphrases)?;
        let node = start(plan, node_dir)?;
        say(format!(
            "✓ {}（{}）已运行 / running at {}",
            plan.name, plan.division, node.url
        ));
        enrol_operators(&node, &passphrases)?;
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

type Passphrases = BTreeMap<(&'static str, &'static str), String>;

fn passphrases() -> Result<Passphrases> {
    let mut all = BTreeMap::new();
    for plan in &PLAN {
        let logins = plan
            .operators
            .iter()
            .map(|(login, _)| *login)
            .chain([OFFICER]);
        for login in logins {
            let token = registry::keys::token()?;
            all.insert((plan.division, login), format!("demo-{}", &token[..12]));
        }
    }
    Ok(all)
}

fn phrase<'a>(
    passphrases: &'a Passphrases,
    division: &'static str,
    login: &'static str,
) -> &'a str {
    passphrases
        .get(&(division, login))
        .map_or("", String::as_str)
}

/// A port that was free a moment ago.
fn free_port() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| Fault::failed(e.to_string()))?;
    let address = listener
        .local_addr()
        .map_err(|e| Fault::failed(e.to_string()))?;
    Ok(address.to_string())
}

fn codes(plan: &Planned) -> Result<Vec<DivisionCode>> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    plan.code
        .iter()
        .map(|(scheme, code)| {
            Ok(DivisionCode {
                scheme: Kind::new(scheme).map_err(words)?,
                code: (*code).to_owned(),
                valid_from: "2023-01-01".into(),
            })
        })
        .collect()
}

/// Makes the root, or joins by an invitation of the parent.
fn make(
    plan: &'static Planned,
    dir: &Path,
    nodes: &[Node],
    passphrases: &Passphrases,
) -> Result<()> {
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let listen = Listen {
        http: free_port()?,
        listen: free_port()?,
    };
    let officer = phrase(passphrases, plan.division, OFFICER);
    let division = DivisionId::new(plan.division).map_err(words)?;
    match plan.parent {
        None => {
            let new = NewNode {
                realm: Realm::new(REALM).map_err(words)?,
                division,
                name: plan.name.into(),
                level: plan.level,
                codes: codes(plan)?,
                http: listen.http,
                listen: listen.listen,
                custody: KeyCustody::File,
            };
            registry::node::init(dir, new, &Opener::File, api::now())?;
        }
        Some(at) => {
            let parent = nodes
                .get(at)
                .ok_or_else(|| Fault::failed("the plan names a parent that is not made yet"))?;
            let mut client = Client::remote(&parent.url, &parent.dir);
            client.login_with(OFFICER, phrase(passphrases, parent.plan.division, OFFICER))?;
            let new = NewInvitation {
                division,
                name: plan.name.into(),
                level: plan.level,
                codes: codes(plan)?,
                address: parent.listen.clone(),
            };
            let invitation: Invitation = client.post("/api/v1/invitations", &new)?;
            node::join_with(dir, &invitation, &listen, KeyCustody::File, &Opener::File)?;
        }
    }
    node::first_officer(dir, &Opener::File, OFFICER, officer)?;
    keep_passphrase(dir, OFFICER, officer)
}

/// In a demonstration passphrases lie beside the keys, so that commands need not ask.
fn keep_passphrase(dir: &Path, login: &str, phrase: &str) -> Result<()> {
    let path = Files::new(dir).operators().join(format!("{login}.pass"));
    store::atomic::replace(&path, phrase.as_bytes()).map_err(|e| Fault::failed(e.to_string()))
}

fn start(plan: &'static Planned, dir: PathBuf) -> Result<Node> {
    let exe = std::env::current_exe().map_err(|e| Fault::failed(e.to_string()))?;
    let log_path = dir.join("node.log");
    let log = std::fs::File::create(&log_path).map_err(|e| Fault::file(&log_path, &e))?;
    let child = Command::new(exe)
        .args(["--log-json", "run", "--while-stdin", "--dir"])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|e| Fault::failed(format!("a node could not be started: {e}")))?;
    let mut process = Process(child);
    let run_path = Files::new(&dir).run();
    let start = Instant::now();
    loop {
        if let Some(run) = std::fs::read(&run_path)
            .ok()
            .and_then(|b| serde_json::from_slice::<RunFile>(&b).ok())
        {
            return Ok(Node {
                plan,
                dir,
                _process: process,
                url: run.url,
                listen: run.listen,
            });
        }
        if let Ok(Some(status)) = process.0.try_wait() {
            return Err(Fault::failed(format!(
                "{} 未能启动 / did not start ({status}); see {}",
                plan.name,
                log_path.display()
            )));
        }
        if start.elapsed() > PATIENCE {
            return Err(Fault::failed(format!(
                "{} 启动过慢 / took too long to start; see {}",
                plan.name,
                log_path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn client(node: &Node, login: &'static str, passphrases: &Passphrases) -> Result<Client> {
    let mut client = Client::remote(&node.url, &node.dir);
    client.login_with(login, phrase(passphrases, node.plan.division, login))?;
    Ok(client)
}

fn enrol_operators(node: &Node, passphrases: &Passphrases) -> Result<()> {
    let client = client(node, OFFICER, passphrases)?;
    for (login, role) in node.plan.operators {
        let phrase = phrase(passphrases, node.plan.division, login);
        let new = NewOperator {
            login: (*login).to_owned(),
            passphrase: phrase.to_owned(),
            role: *role,
            grid: (*role == Role::GridWorker).then(|| first_grid(node.plan)),
        };
        let _: Value = client.post("/api/v1/operators", &new)?;
        keep_passphrase(&node.dir, login, phrase)?;
    }
    Ok(())
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

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            return Err(Fault::failed(format!(
                "超时 / gave up waiting for {what}; see node.log of each node"
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn status(node: &Node) -> Result<Value> {
    Client::remote(&node.url, &node.dir).get("/api/v1/status")
}

/// Origin to size and root of the ledgers that a node writes or holds.
fn heads(status: &Value, own: bool) -> BTreeMap<String, (u64, String)> {
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
