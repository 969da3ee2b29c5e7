//! All findings (总核验): everything that a node holds, gone through once.
//!
//! [`crate::verify`] checks bytes, roots, signatures, chains and bodies; here is what that leaves:
//! charters, operators, grants, cosignatures, alarms and time. Owns the words of each finding in
//! both languages. Refuses to call an open question a fault: a `warning` is to be looked at.

use std::collections::BTreeMap;
use std::path::Path;

use record::id::{DivisionId, Origin, UnixMillis};
use serde::Serialize;

use super::check::SignerLine;
use super::history::{Roster, rosters};
use super::view::View;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::verify::{VerifyReport, verify_at};

mod charters;

mod ledgers;
mod letters;

mod grants;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not hold.
    Fault,
    /// Somebody should look at it.
    Warning,
    /// Worth knowing.
    Note,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How grave.
    pub severity: Severity,
    /// A stable word.
    pub code: &'static str,
    /// What it is about: a ledger, a division, a grant.
    pub subject: String,
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

/// A ledger as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerLine {
    /// Which.
    pub origin: Origin,
    /// Entries here.
    pub size: u64,
    /// Root, hexadecimal.
    pub root: String,
    /// Acts whose signature holds.
    pub acts: u64,
    /// Bodies whose hash holds.
    pub bodies: u64,
    /// Size of the newest checkpoint with its quorum of cosignatures.
    pub cosigned: Option<u64>,
    /// Whose signatures on the shown checkpoint hold.
    pub signers: Vec<SignerLine>,
}

/// A charter as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct CharterLine {
    /// Whose.
    pub division: DivisionId,
    /// Its Chinese name.
    pub name: String,
    /// Who issued it.
    pub parent: DivisionId,
    /// 1 for the first.
    pub serial: u32,
    /// Valid until.
    pub not_after: UnixMillis,
    /// `valid`, `expired`, `revoked` or `broken`.
    pub state: &'static str,
    /// Operators enrolled there, as far as its authority ledger is here.
    pub operators: usize,
}

/// A grant as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct GrantLine {
    /// Which, hexadecimal.
    pub id: String,
    /// The shard.
    pub origin: Origin,
    /// Who receives.
    pub holder: DivisionId,
    /// How many fields.
    pub fields: usize,
    /// What for.
    pub purpose: String,
    /// Ends by itself; when it ended, of one that was ended before.
    pub not_after: UnixMillis,
    /// `current`, `behind`, `expired`, `ended` before its time; `transfer` of one that carries a record that moves;
    /// `uncompared` when the shard itself is not held here, and
    /// `elsewhere` when the grant's ledger is not.
    pub state: &'static str,
    /// Size of the shard that the newest heartbeat speaks of.
    pub heartbeat: Option<u64>,
}

/// Everything found.
#[derive(Debug, Clone, Serialize)]
pub struct AuditReport {
    /// Whether there is no fault. Warnings and notes do not count.
    pub ok: bool,
    /// The realm.
    pub realm: String,
    /// The directory's division.
    pub division: String,
    /// When it was made.
    pub at: UnixMillis,
    /// Ledgers.
    pub ledgers: Vec<LedgerLine>,
    /// Charters.
    pub charters: Vec<CharterLine>,
    /// Grants.
    pub grants: Vec<GrantLine>,
    /// Findings, the gravest first.
    pub findings: Vec<Finding>,
    /// The report of verification that this one extends.
    pub verify: VerifyReport,
}

struct Auditor<'a> {
    view: &'a View,
    rosters: BTreeMap<DivisionId, Roster>,
    now: UnixMillis,
    findings: Vec<Finding>,
}

/// Goes through everything that a directory holds. Reads only; the node may run meanwhile.
///
/// # Errors
/// When there is no node, or its files cannot be read at all.
pub fn audit(dir: &Path, now: UnixMillis) -> Result<AuditReport> {
    let verified = verify_at(dir, now)?;
    let config = NodeConfig::read(dir)?;
    let mut report = AuditReport {
        ok: false,
        realm: config.realm.to_string(),
        division: config.division.to_string(),
        at: now,
        ledgers: Vec::new(),
        charters: Vec::new(),
        grants: Vec::new(),
        findings: Vec::new(),
        verify: verified,
    };
    verification(&mut report);
    let view = View::open(dir).and_then(|view| {
        let rosters = rosters(&view)?;
        Ok((view, rosters))
    });
    match view {
        Ok((view, rosters)) => Auditor {
            rosters,
            view: &view,
            now,
            findings: Vec::new(),
        }
        .go_through(&mut report),
        // What cannot be read was found above, byte by byte; the rest is not looked at.
        Err(error) => report.findings.push(unreadable("node", &error)),
    }
    report
        .findings
        .sort_by(|a, b| (a.severity, &a.subject).cmp(&(b.severity, &b.subject)));
    report.ok = report
        .findings
        .iter()
        .all(|f| f.severity != Severity::Fault);
    Ok(report)
}

fn finding(
    severity: Severity,
    code: &'static str,
    subject: impl ToString,
    zh: impl Into<String>,
    en: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        code,
        subject: subject.to_string(),
        zh: zh.into(),
        en: en.into(),
    }
}

/// A part that could not be gone through.
fn unreadable(subject: impl ToString, error: &RegistryError) -> Finding {
    finding(
        Severity::Fault,
        "unreadable",
        subject,
        "此处读不下去，其余未核验，详见英文",
        format!("it cannot be read to its end, and what follows was not looked at: {error}"),
    )
}

/// What verification of the bytes found, in the words of this report.
fn verification(report: &mut AuditReport) {
    let mut found = Vec::new();
    for at in &report.verify.findings {
        let place = match (&at.file, at.offset) {
            (Some(file), Some(offset)) => format!(" (`{file}` @ {offset})"),
            _ => String::new(),
        };
        // What the store found of its files it says in English alone.
        let (zh, en) = at
            .what
            .split_once(" / ")
            .unwrap_or(("字节核验不符", &at.what));
        found.push(finding(
            Severity::Fault,
            "verify",
            at.origin.as_deref().unwrap_or("node"),
            format!("{zh}{place}"),
            format!("{en}{place}"),
        ));
    }
    if report.verify.more_findings > 0 {
        let more = report.verify.more_findings;
        found.push(finding(
            Severity::Fault,
            "verify",
            "node",
            format!("另有 {more} 处字节核验不符"),
            format!("{more} more bytes or signatures do not hold"),
        ));
    }
    for at in &report.verify.explained {
        let (zh, en) = at.what.split_once(" / ").unwrap_or((&at.what, &at.what));
        found.push(finding(
            Severity::Note,
            "clock-explained",
            at.origin.as_deref().unwrap_or("node"),
            zh,
            en,
        ));
    }
    for remark in &report.verify.remarks {
        // What the store found of its files it says in English alone.
        let zh = remark.split_once(" / ").map(|(zh, _)| zh);
        found.push(finding(
            Severity::Note,
            "unfinished",
            "node",
            zh.unwrap_or("有一次写入尚未完成，或正在进行"),
            remark.clone(),
        ));
    }
    report.findings = found;
}

impl Auditor<'_> {
    /// Every part, each as far as it can be read.
    fn go_through(mut self, report: &mut AuditReport) {
        let charters = self.charters();
        report.charters = self.kept("authority", charters);
        for verified in &report.verify.ledgers {
            match self.ledger(verified) {
                Ok(line) => report.ledgers.push(line),
                Err(error) => self.findings.push(unreadable(&verified.origin, &error)),
            }
        }
        let grants = self.grants();
        report.grants = self.kept("grant", grants);
        self.closings();
        let letters = self.letters().map(|()| Vec::<()>::new());
        self.kept("letters", letters);
        let alarms = self.alarms().map(|()| Vec::<()>::new());
        self.kept("alarm", alarms);
        report.findings.append(&mut self.findings);
    }

    /// Shards that were closed: what does not hold of it verification has found.
    fn closings(&mut self) {
        let view = self.view;
        for (closed, _) in view.authority().closings() {
            let successors: Vec<&str> = closed.successors.iter().map(Origin::as_str).collect();
            let successors = successors.join(", ");
            self.find(
                Severity::Note,
                "shard-closed",
                &closed.origin,
                format!("账本已结账于第 {} 条，后继为 `{successors}`", closed.size),
                format!(
                    "the shard was closed at {} entries; `{successors}` follows it",
                    closed.size
                ),
            );
        }
    }

    fn kept<T>(&mut self, subject: &str, part: Result<Vec<T>>) -> Vec<T> {
        part.unwrap_or_else(|error| {
            self.findings.push(unreadable(subject, &error));
            Vec::new()
        })
    }

    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        subject: impl ToString,
        zh: impl Into<String>,
        en: impl Into<String>,
    ) {
        self.findings.push(finding(severity, code, subject, zh, en));
    }
}
