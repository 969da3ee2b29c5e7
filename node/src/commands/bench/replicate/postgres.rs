//! PostgreSQL's logical replication (对照) of as many rows of 20 columns of 30 bytes, between two
//! servers of its own on this machine: the initial copy, what streams afterwards, and one update.
//!
//! Both servers are as `initdb` makes them but for `wal_level`: commits are durable at the publisher, and
//! the subscriber applies with `synchronous_commit` off, as its default is. Where it is not installed,
//! a figure says so.

mod client;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::NAME;
use crate::commands::bench::figures::{Figures, percentile, rate};
use crate::fault::{Fault, Result};
use client::Client;

/// Where Debian puts its versions.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Whose servers they are when this runs as root, which they refuse to run as.
const USER: &str = "postgres";
const SUPERUSER: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(2);
/// Rows of one transaction.
const ROWS: usize = 1000;
const UPDATES: usize = 200;
const COLUMNS: usize = 20;
const COLUMN_BYTES: usize = 30;

/// Rows a second.
pub struct Rates {
    pub copy: f64,
    pub streaming: f64,
}

struct Server {
    bin: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
    user: Option<&'static str>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of value is in it.
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-D"]).arg(&self.data);
        let _ = stop.status();
    }
}

/// A directory of its own, which goes with it: the bench's lets nobody else in.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn run(dir: &Path, rows: usize, figures: &mut Figures) -> Result<Option<Rates>> {
    let Some(bin) = installed() else {
        figures.add(format!("{NAME}.postgresql.absent"), 1.0, "yes");
        return Ok(None);
    };
    let version = bin.parent().and_then(Path::file_name);
    let version = version.and_then(|name| name.to_str()?.parse().ok());
    figures.add(
        format!("{NAME}.postgresql.version"),
        version.unwrap_or(f64::NAN),
        "version",
    );
    let top = dir.ancestors().nth(1).unwrap_or(dir);
    let beside = PathBuf::from(format!("{}-postgresql", top.display()));
    std::fs::create_dir_all(&beside).map_err(|e| Fault::file(&beside, &e))?;
    let place = Place(beside);
    // Servers end before their directory goes.
    let publisher = Server::start(&bin, &place.0, "publisher")?;
    let subscriber = Server::start(&bin, &place.0, "subscriber")?;
    let mut from = publisher.connect()?;
    let mut to = subscriber.connect()?;
    let columns: Vec<String> = (0..COLUMNS).map(|at| format!("c{at} text")).collect();
    let table = format!(
        "create table person (id bigint primary key, {})",
        columns.join(", ")
    );
    from.ask(&table)?;
    to.ask(&table)?;
    insert(&mut from, 0, rows)?;
    from.ask("create publication all_rows for table person")?;

    let all = i64::try_from(rows).unwrap_or(i64::MAX);
    let start = Instant::now();
    to.ask(&format!(
        "create subscription sub connection 'host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres' publication all_rows",
        publisher.port
    ))?;
    until(
        &mut to,
        "select count(*) from pg_subscription_rel where srsubstate = 'r'",
        1,
    )?;
    let copying = start.elapsed();
    until(&mut to, "select max(id) + 1 from person", all)?;

    to.ask("alter subscription sub disable")?;
    insert(&mut from, rows, rows)?;
    let start = Instant::now();
    to.ask("alter subscription sub enable")?;
    until(&mut to, "select max(id) + 1 from person", 2 * all)?;
    let streaming = start.elapsed();

    let mut times = Vec::new();
    for serial in 0..UPDATES {
        let value = format!("{serial:0COLUMN_BYTES$}");
        from.ask(&format!(
            "update person set c0 = '{value}' where id = {serial}"
        ))?;
        let start = Instant::now();
        let look = format!("select c0 from person where id = {serial}");
        while to.ask(&look)?.as_deref() != Some(value.as_str()) {
            if start.elapsed() > PATIENCE {
                return Err(slow());
            }
        }
        times.push(start.elapsed());
        std::thread::sleep(LOOK);
    }
    let rates = Rates {
        copy: rate(rows as u64, copying),
        streaming: rate(rows as u64, streaming),
    };
    let name = |part: &str| format!("{NAME}.postgresql.{part}");
    figures.add(name("copy"), rates.copy, "records/s");
    figures.add(name("streaming"), rates.streaming, "records/s");
    figures.add(name("update.p50"), percentile(&mut times, 0.5), "ms");
    figures.add(name("update.p99"), percentile(&mut times, 0.99), "ms");
    Ok(Some(rates))
}

fn slow() -> Fault {
    Fault::failed("PostgreSQL did not replicate in time; see its log in the directory of the bench")
}

fn insert(client: &mut Client, first: usize, count: usize) -> Result<()> {
    let filler = format!("lpad((id * 7919 % 1000003)::text || 'x', {COLUMN_BYTES}, 'ab')");
    let columns = vec![filler; COLUMNS].join(", ");
    for from in (first..first + count).step_by(ROWS) {
        let to = (from + ROWS).min(first + count) - 1;
        client.ask(&format!(
            "insert into person select id, {columns} from generate_series({from}, {to}) as id"
        ))?;
    }
    Ok(())
}

fn until(client: &mut Client, question: &str, at_least: i64) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = client.ask(question)?;
        let found: Option<i64> = answer.and_then(|text| text.parse().ok());
        if found.is_some_and(|found| found >= at_least) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(slow());
        }
        std::thread::sleep(LOOK);
    }
}

/// The programs of the newest version.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(INSTALLED).ok()?.flatten();
    let numbered = versions.filter_map(|item| {
        let number: u32 = item.file_name().to_str()?.parse().ok()?;
        Some((number, item.path().join("bin")))
    });
    let (_, bin) = numbered.max()?;
    bin.join("initdb").exists().then_some(bin)
}

impl Server {
    fn start(bin: &Path, place: &Path, name: &str) -> Result<Self> {
        let words = |e: std::io::Error| Fault::failed(e.to_string());
        let is_root = std::fs::metadata("/proc/self").map_err(words)?.uid() == 0;
        let home = place.join(name);
        std::fs::create_dir_all(&home).map_err(|e| Fault::file(&home, &e))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(words)?
            .port();
        let server = Self {
            bin: bin.to_owned(),
            data: home.join("data"),
            socket: home.clone(),
            port,
            user: is_root.then_some(USER),
        };
        if let Some(user) = server.user {
            let mut give = Command::new("chown");
            done(give.arg(user).arg(&home))?;
        }
        let mut initdb = server.command("initdb");
        initdb.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        done(initdb.args(["-U", SUPERUSER, "-D"]).arg(&server.data))?;
        let options = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c wal_level=logical",
            server.socket.display()
        );
        let mut start = server.command("pg_ctl");
        start.args(["start", "-w", "-D"]).arg(&server.data);
        start.args(["-o", &options, "-l"]).arg(home.join("log"));
        done(&mut start)?;
        Ok(server)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        // A server that stays must not hold what this process reads or writes.
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn connect(&self) -> Result<Client> {
        let path = self.socket.join(format!(".s.PGSQL.{}", self.port));
        Client::connect(&path, SUPERUSER)
    }
}

fn done(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|e| Fault::failed(format!("`{name}` could not be run: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "PostgreSQL could not be prepared: {command:?} ended with {status}"
    )))
}
