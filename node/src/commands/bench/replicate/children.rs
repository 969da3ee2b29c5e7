//! Many children (众多下级) at one parent: each a node with its own store, keys and connection, all in
//! this process; the parent is a process of its own. Each is edited ten times a minute.
//!
//! An edit is followed until the parent has it whole, verified, durable and cosigned. What was due and
//! could not be made in time is counted, as is what the parent had not taken at the end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use record::authority::{Level, Role};
use record::id::{DivisionId, Origin};
use registry::Registry;
use registry::config::KeyCustody;
use registry::keys::Opener;
use registry::replicate::{Invitation, NewInvitation};
use registry::session::{NewOperator, Session};
use tokio::runtime::Runtime;

use super::{Measured, NAME, REALM, Seen, one, peak, shard, taken};
use crate::args::Listen;
use crate::client::Client;
use crate::commands::bench::figures::{Figures, percentile, rate};
use crate::commands::bench::rows::{self, Row};
use crate::commands::node;
use crate::commands::realm::{self, Node, OFFICER, Passphrases, Planned};
use crate::fault::{Fault, Result};
use crate::serve::{self, Heads};

/// Between two edits of one child.
const EVERY: Duration = Duration::from_secs(6);
/// So often a follower asks the parent: oftener, and asking is what the parent does most.
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(600);
/// After the last edit was due: whatever is not seen by then is behind.
const GRACE: Duration = Duration::from_secs(5);
/// Edits followed at the same time.
const FOLLOWERS: usize = 32;
const MAKERS: usize = 2;
/// For how many seconds nothing may move before the edits begin, and what an idle parent may use.
const QUIET_SECONDS: u32 = 3;
const IDLE_CORES: f64 = 0.2;

const PARENT: Planned = Planned {
    division: "parent",
    name: "上级",
    level: Level::Town,
    code: None,
    parent: None,
    operators: &[],
};

/// A child that runs in this process.
struct Child {
    registry: Arc<Registry>,
    clerk: Session,
    origin: Origin,
    edits: AtomicU64,
    heads: Heads,
}

pub fn run(dir: &Path, measured: &Measured, figures: &mut Figures) -> Result<()> {
    let passphrases = realm::passphrases(&[PARENT])?;
    let parent_dir = dir.join(PARENT.division);
    realm::make(REALM, &PARENT, &parent_dir, &[], &passphrases)?;
    let parent = realm::start(&PARENT, parent_dir)?;
    let runtime = Runtime::new().map_err(|e| Fault::failed(e.to_string()))?;
    let started = Instant::now();
    let children = made(dir, measured.children, &parent, &passphrases, &runtime)?;
    // One row more for each: the first of a ledger costs more than the next.
    let edits = measured.seconds as usize * children.len() / EVERY.as_secs() as usize;
    let rows = rows::rows((edits + children.len()).max(100))?;
    let (first, rest) = rows.split_at(children.len());
    for (serial, (child, row)) in children.iter().zip(first).enumerate() {
        edit(child, serial, row)?;
    }
    realm::wait("all children to be at the parent", LOOK, PATIENCE, || {
        let seen = |child: &Child| -> Result<bool> {
            Ok(Seen::new(&parent.url, &child.origin).size()? > 0)
        };
        children
            .iter()
            .try_fold(true, |all, child| Ok(all && seen(child)?))
    })?;
    let pid = peak::pid(&parent.dir)?;
    let prepared = started.elapsed();
    let idle = settle(&children, pid)?;
    let name = |part: &str| format!("{NAME}.children.{part}");
    figures.add(name("count"), children.len() as f64, "children");
    figures.add(name("prepared_in"), prepared.as_secs_f64(), "s");
    let settled = started.elapsed().saturating_sub(prepared);
    figures.add(name("settled_in"), settled.as_secs_f64(), "s");
    figures.add(name("parent.idle"), idle, "cores");

    let before = peak::cpu(pid)?;
    let start = Instant::now();
    let due = |serial: usize| start + EVERY.mul_f64(serial as f64 / children.len() as f64);
    let end = due(edits) + GRACE;
    let next = AtomicUsize::new(0);
    let late = AtomicUsize::new(0);
    let seen_after = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let follow = || -> Result<()> {
            loop {
                let serial = next.fetch_add(1, Ordering::Relaxed);
                if serial >= edits {
                    return Ok(());
                }
                std::thread::sleep(due(serial).saturating_duration_since(Instant::now()));
                if due(serial).elapsed() > EVERY {
                    late.fetch_add(1, Ordering::Relaxed);
                }
                let child = &children[serial % children.len()];
                let size = edit(child, children.len() + serial, &rest[serial])?;
                let made = Instant::now();
                let seen = Seen::new(&parent.url, &child.origin);
                while Instant::now() < end {
                    if seen.size()? >= size {
                        let mut times = seen_after.lock().unwrap_or_else(PoisonError::into_inner);
                        times.push(made.elapsed());
                        break;
                    }
                    std::thread::sleep(LOOK);
                }
            }
        };
        let threads: Vec<_> = (0..FOLLOWERS).map(|_| scope.spawn(follow)).collect();
        threads.into_iter().try_for_each(|thread| {
            let stopped = |_| Err(Fault::failed("a following thread stopped"));
            thread.join().unwrap_or_else(stopped)
        })
    })?;
    let spent = peak::cpu(pid)? - before;
    let mut times = seen_after
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let seen = times.len();
    figures.add(name("edits"), edits as f64, "edits");
    figures.add(
        name("edits.rate"),
        rate(edits as u64, start.elapsed()),
        "edits/s",
    );
    figures.add(name("edits.late"), late.into_inner() as f64, "edits");
    figures.add(name("edits.behind"), (edits - seen) as f64, "edits");
    for (word, part) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
        let time = percentile(&mut times, part);
        figures.add(name(&format!("seen.{word}")), time, "ms");
    }
    let each = spent * 1e6 / edits.max(1) as f64;
    figures.add(name("parent.cpu"), each, "core-us/edit");
    let share = spent / start.elapsed().as_secs_f64();
    figures.add(name("parent.cores"), share, "cores");
    figures.add(name("parent.peak"), peak::resident_max(pid)?, "MB");
    drop(parent);
    runtime.shutdown_timeout(GRACE);
    Ok(())
}

/// Waits until what the children and the parent have to say to each other before anything is edited
/// is said: for some seconds no child's heads moved, and the parent was idle. What goes on after
/// [`PATIENCE`] is measured with the edits. Gives the part of a core that the parent used last.
fn settle(children: &[Child], parent: u32) -> Result<f64> {
    let (began, mut quiet, mut before) = (Instant::now(), 0, None);
    let (mut quiet_since, mut at_first) = (began, peak::cpu(parent)?);
    while quiet < QUIET_SECONDS && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_secs(1));
        let moved: u64 = children.iter().map(|c| *c.heads.any.borrow()).sum();
        let spent = peak::cpu(parent)?;
        let is_quiet = before.is_some_and(|(m, s)| m == moved && spent - s < IDLE_CORES);
        if is_quiet {
            quiet += 1;
        } else {
            (quiet, quiet_since, at_first) = (0, Instant::now(), spent);
        }
        before = Some((moved, spent));
    }
    Ok((peak::cpu(parent)? - at_first) / quiet_since.elapsed().as_secs_f64())
}

/// Registers one person; gives the size of the ledger with it and its act.
fn edit(child: &Child, serial: usize, row: &Row) -> Result<u64> {
    let chunk = one(serial, row)?;
    taken(&child.registry.import(&child.clerk, &chunk, api::now())?)?;
    // Of two at once on one child, each waits for the later one at most.
    Ok(2 * (child.edits.fetch_add(1, Ordering::Relaxed) + 1))
}

fn made(
    dir: &Path,
    count: usize,
    parent: &Node,
    passphrases: &Passphrases,
    runtime: &Runtime,
) -> Result<Vec<Child>> {
    let mut client = Client::remote(&parent.url, &parent.dir);
    client.login_with(
        OFFICER,
        realm::phrase(passphrases, PARENT.division, OFFICER),
    )?;
    let words = |e: record::id::IdError| Fault::failed(e.to_string());
    let mut invitations = Vec::new();
    for number in 0..count {
        let new = NewInvitation {
            division: DivisionId::new(&format!("child-{number}")).map_err(words)?,
            name: "下级".into(),
            level: Level::Community,
            codes: Vec::new(),
            address: parent.listen.clone(),
        };
        let invitation: Invitation = client.post("/api/v1/invitations", &new)?;
        invitations.push(invitation);
    }
    let next = AtomicUsize::new(0);
    let children = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let make = || -> Result<()> {
            while let Some(invitation) = invitations.get(next.fetch_add(1, Ordering::Relaxed)) {
                let at = dir.join(invitation.division.as_str());
                let child = child(&at, invitation)?;
                let mut made = children.lock().unwrap_or_else(PoisonError::into_inner);
                made.push(child);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..MAKERS).map(|_| scope.spawn(make)).collect();
        threads.into_iter().try_for_each(|thread| {
            let stopped = |_| Err(Fault::failed("a thread that makes children stopped"));
            thread.join().unwrap_or_else(stopped)
        })
    })?;
    let children: Vec<Child> = children
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // Not before: each would be told of each that joins after it, one step at a time, and all of
    // them are this one process.
    for child in &children {
        begin(child, runtime)?;
    }
    Ok(children)
}

/// Joins, and enrols who is to edit.
fn child(dir: &Path, invitation: &Invitation) -> Result<Child> {
    let nowhere = "127.0.0.1:0".to_owned();
    let listen = Listen {
        http: nowhere.clone(),
        listen: nowhere,
    };
    node::join_with(
        dir,
        invitation,
        &listen,
        KeyCustody::File,
        &Opener::File,
        false,
    )?;
    let registry = Registry::open(dir, &Opener::File, api::now())?;
    let heads = serve::watch_heads(&registry);
    let phrase = registry::keys::token()?;
    let operator = |login: &str, role| NewOperator {
        login: login.to_owned(),
        passphrase: phrase.clone(),
        role,
        grid: None,
    };
    let officer = operator(OFFICER, Role::SecurityOfficer);
    registry.enrol_operator(None, &officer, api::now())?;
    let officer = registry.login(OFFICER, &phrase, api::now())?;
    registry.enrol_operator(Some(&officer), &operator("dengji", Role::Clerk), api::now())?;
    let clerk = registry.login("dengji", &phrase, api::now())?;
    Ok(Child {
        registry: Arc::new(registry),
        clerk,
        origin: shard(invitation.division.as_str())?,
        edits: AtomicU64::new(0),
        heads,
    })
}

/// Has the child keep a session with the parent, as a node does that runs by itself.
fn begin(child: &Child, runtime: &Runtime) -> Result<()> {
    let registry = child.registry.clone();
    let heads = child.heads.any.clone();
    let endpoint = runtime.block_on(serve::endpoint(&registry.transport_seed(), &[]))?;
    runtime.spawn(serve::dial(registry, Arc::new(endpoint), heads));
    Ok(())
}
