//! Verifying (核验): every root, signature, chain and body of a directory, from the segment files
//! alone, with public keys alone. Neither the index nor a secret is needed.
//!
//! Every core reads pieces of the segments, and hashes and decodes what is in them while it is in
//! its cache (`look`). When the last has been read, it is known which values count: each ledger is
//! cut in stretches, any core looks through a stretch (`read`), and one at a time walks a ledger
//! along them (`walk`); `crew` shares them out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ledger::frontier::Frontier;
use record::id::{DivisionId, Hash, Origin, UnixMillis};
use serde::Serialize;
use store::{Snapshot, Store};

use self::look::{Fact, Looking};
use self::over::Times;

use crate::authority::Authority;
use crate::config::NodeConfig;
use crate::error::Result;
use crate::table;

mod crew;
pub(crate) mod look;
pub(crate) mod over;
mod read;
mod walk;

/// The most findings listed; the rest are counted.
const FINDINGS_MAX: usize = 1000;

/// What was checked, and what does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Whether everything holds.
    pub ok: bool,
    /// The directory's division.
    pub division: String,
    /// Segment files read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Per ledger.
    pub ledgers: Vec<VerifiedLedger>,
    /// What does not hold.
    pub findings: Vec<VerifyFinding>,
    /// How many more findings there are than are listed.
    pub more_findings: u64,
    /// What would not hold, but for what two officers said of it, on record.
    pub explained: Vec<VerifyFinding>,
    /// What is unfinished but not wrong, such as a write in progress.
    pub remarks: Vec<String>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// One ledger that was checked.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedLedger {
    /// Which.
    pub origin: Origin,
    /// Entries.
    pub size: u64,
    /// The root rebuilt from them, hexadecimal.
    pub root: String,
    /// Acts whose signature holds.
    pub acts: u64,
    /// Bodies whose hash holds.
    pub bodies: u64,
    /// Bodies that are not here because a grant to this node is over.
    pub dropped: u64,
    /// Signatures on its checkpoint that hold, the log's own among them.
    pub signatures: u64,
}

/// One thing that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyFinding {
    /// The segment file, if it lies in one.
    pub file: Option<String>,
    /// Byte offset in it.
    pub offset: Option<u64>,
    /// The ledger, if one is concerned.
    pub origin: Option<String>,
    /// The entry's index, if one is concerned.
    pub index: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What is known before any ledger is walked.
struct Known<'a> {
    snapshot: &'a Snapshot<Fact>,
    authority: &'a Authority,
    /// For each authority ledger, the root at each size.
    authority_roots: &'a BTreeMap<Origin, Vec<Hash>>,
    /// Whose directory it is.
    own: &'a DivisionId,
    /// What is known of the present.
    times: Times,
}

/// Verifies everything in a node's directory, as it was at one moment. Reads only; the node may run
/// meanwhile, and what it commits, erases and destroys then is no finding.
///
/// Without a clock: that the time of a grant has run out is known by cosignatures alone.
///
/// # Errors
/// When there is no node, or its files cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    verify_at(dir, UnixMillis(0))
}

/// Verifies as [`verify`] does, with the clock of whoever verifies: what a holder destroyed of a grant
/// whose time is over by then is a remark, though nobody signed anything since.
///
/// # Errors
/// As for [`verify`].
pub fn verify_at(dir: &Path, now: UnixMillis) -> Result<VerifyReport> {
    let start = Instant::now();
    // Read before the segments: a node that runs meanwhile signs more, never less.
    let signed_last = signed_of_all(dir, &NodeConfig::read(dir)?);
    let mut findings = Vec::new();
    let mut remarks = Vec::new();
    let mut more = 0;
    let snapshot = store::scan_looking(dir, &Looking, &mut |finding| {
        if matches!(finding, store::Finding::Unfinished { .. }) {
            remarks.push(finding.to_string());
        } else if findings.len() < FINDINGS_MAX {
            findings.push(VerifyFinding {
                file: Some(finding.file().display().to_string()),
                offset: Some(finding.offset()),
                origin: None,
                index: None,
                what: finding.to_string(),
            });
        } else {
            more += 1;
        }
    })?;
    // And this after them: a node has its new charter there before it signs by it.
    let config = NodeConfig::read(dir)?;
    let mut report = VerifyReport {
        ok: false,
        division: config.division.to_string(),
        files: snapshot.stats().segments,
        bytes: snapshot.stats().bytes,
        ledgers: Vec::new(),
        findings,
        more_findings: more,
        explained: Vec::new(),
        remarks,
        elapsed_ms: 0,
    };
    let origins: Vec<Origin> = snapshot
        .shards()?
        .iter()
        .filter_map(|shard| Origin::parse(shard).ok())
        .collect();
    let mut note = |origin: Option<&Origin>, what: String| {
        report.findings.push(VerifyFinding {
            file: None,
            offset: None,
            origin: origin.map(ToString::to_string),
            index: None,
            what,
        });
    };
    let chain = config.charters()?;
    // Whether it is over is not asked; the newest of its charters is the last to begin.
    let begun = chain.iter().map(|charter| charter.not_before).max();
    let begun = begun.unwrap_or(UnixMillis(0));
    let root = config.root_key()?;
    if let Err(error) =
        record::authority::verify_chain(&chain, &config.realm, &root, begun, |_| false)
    {
        note(None, error.to_string());
    }
    let authority = match Authority::load(&snapshot, &config) {
        Ok(authority) => authority,
        Err(error) => {
            note(
                None,
                format!("权限账本读不出 / the authority ledgers cannot be read: {error}"),
            );
            Authority::default()
        }
    };
    for (origin, index) in crate::published::unapproved(&authority, &config)? {
        note(
            Some(&origin),
            format!(
                "第 {index} 条发布未经两名安全员批准 / entry {index} publishes a set that two officers did not approve"
            ),
        );
    }
    match crate::moving::close::all_faults(&snapshot, &authority) {
        Ok(faults) => {
            for (origin, fault) in faults {
                note(Some(&origin), fault);
            }
        }
        Err(error) => note(
            None,
            format!("结账账本读不出 / a shard that was closed cannot be read: {error}"),
        ),
    }
    let mut authority_roots = BTreeMap::new();
    for origin in origins
        .iter()
        .filter(|o| o.ledger().as_str() == "authority")
    {
        authority_roots.insert(origin.clone(), prefix_roots(&snapshot, origin));
    }
    let known = Known {
        snapshot: &snapshot,
        authority: &authority,
        authority_roots: &authority_roots,
        own: &config.division,
        times: Times::of(&snapshot, &origins, &config.division, &authority, now),
    };
    let ((walks, stopped), secrets) = std::thread::scope(|scope| {
        let secrets =
            scope.spawn(|| crate::secrets::verify::verify_secrets(dir, &snapshot, &config));
        (crew::walk_all(&known, &origins), secrets.join())
    });
    let stopped = stopped || secrets.is_err();
    if stopped {
        note(
            None,
            "有一处核验中途停止，请重试并报告 / a checker stopped before its end; run it again and report this".into(),
        );
    }
    for walk in walks {
        report.remarks.extend(walk.remarks);
        report.explained.extend(walk.explained);
        report.ledgers.extend(walk.done);
        report.findings.extend(walk.findings);
    }
    check_signed_last(&mut report, &signed_last);
    if let Ok(checked) = secrets {
        let (findings, remarks) = checked?;
        report.findings.extend(findings);
        report.remarks.extend(remarks);
    }
    report
        .explained
        .sort_by(|a, b| (&a.origin, a.index).cmp(&(&b.origin, b.index)));
    report.ledgers.sort_by(|a, b| a.origin.cmp(&b.origin));
    if report.findings.len() > FINDINGS_MAX {
        report.more_findings += (report.findings.len() - FINDINGS_MAX) as u64;
        report.findings.truncate(FINDINGS_MAX);
    }
    report.ok = report.findings.is_empty();
    report.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// What the second place says was signed of each own ledger of a kind that there is.
fn signed_of_all(dir: &Path, config: &NodeConfig) -> BTreeMap<Origin, u64> {
    let kinds = record::schema::Catalogue::builtin()
        .kinds()
        .into_iter()
        .map(|s| s.kind.clone());
    kinds
        .chain([
            crate::node::word("authority"),
            crate::node::word("access"),
            crate::node::word("recovery"),
        ])
        .map(|name| Origin::new(&config.realm, &config.division, &name))
        .filter_map(|origin| {
            let (size, _) = crate::guard::signed_last(dir, &origin)?;
            Some((origin, size))
        })
        .collect()
}

/// An own ledger that is shorter than what was signed was cut, whatever its files look like.
fn check_signed_last(report: &mut VerifyReport, signed: &BTreeMap<Origin, u64>) {
    for (origin, signed) in signed {
        let found = report
            .ledgers
            .iter()
            .find(|l| l.origin == *origin)
            .map_or(0, |l| l.size);
        if found < *signed {
            report.findings.push(VerifyFinding {
                file: None,
                offset: None,
                origin: Some(origin.to_string()),
                index: Some(found),
                what: format!(
                    "本机签过 {signed} 条，此处只有 {found} 条 / {signed} entries were signed here, {found} are left; the directory was cut or restored from an old copy"
                ),
            });
        }
    }
}

/// The root of an authority ledger at each size.
fn prefix_roots(snapshot: &Snapshot<Fact>, origin: &Origin) -> Vec<Hash> {
    let mut frontier = Frontier::new();
    let mut roots = vec![frontier.root()];
    for (at, (rest, fact)) in (0u64..).zip(snapshot.notes(origin.as_str(), table::ENTRY, &[])) {
        let fact = fact.filter(|_| *rest == at.to_be_bytes());
        let Some(leaf) = fact.and_then(Fact::leaf) else {
            break;
        };
        frontier.append(leaf);
        roots.push(frontier.root());
    }
    roots
}
