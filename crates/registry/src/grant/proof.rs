//! What a holder can prove of its subset, from the files alone (授权核验): that it is the owner's,
//! gapless, and current up to a checkpoint that witnesses cosigned.
//!
//! Owns no check of its own: entries, acts, parcels and heartbeats are those of [`crate::verify`].
//! Here is what they add up to for one grant. Refuses to call rows proven that no heartbeat vouches for.

use std::collections::BTreeSet;
use std::path::Path;

use record::entry::{Entry, GrantOperation};
use record::id::{DivisionId, GrantId, Origin, RecordId, UnixMillis};
use serde::Serialize;
use store::{Snapshot, Store};

use super::checkpoint_of;
use crate::authority::Authority;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::table;
use crate::verify::{VerifyFinding, verify};

const SCAN: usize = 1024;

/// What is proven of one grant's subset.
#[derive(Debug, Clone, Serialize)]
pub struct GrantProof {
    /// Whether the subset is proven whole up to `checkpoint`.
    pub ok: bool,
    /// The grant.
    pub grant: GrantId,
    /// Its ledger.
    pub ledger: Origin,
    /// Whose shard.
    pub owner: DivisionId,
    /// Who receives.
    pub holder: DivisionId,
    /// Entries of the grant's ledger.
    pub size: u64,
    /// Records in scope.
    pub records: u64,
    /// The shard's checkpoint up to which nothing is missing.
    pub checkpoint: Option<ProvenUpTo>,
    /// Entries after the last heartbeat, for which nothing vouches yet.
    pub unvouched: u64,
    /// What does not hold.
    pub findings: Vec<VerifyFinding>,
}

/// The checkpoint that a heartbeat cites.
#[derive(Debug, Clone, Serialize)]
pub struct ProvenUpTo {
    /// The shard.
    pub origin: Origin,
    /// Its size.
    pub size: u64,
    /// Its root, hexadecimal.
    pub root: String,
    /// Who signed it, the owner and its witnesses.
    pub signers: Vec<String>,
    /// When the owner stated the heartbeat.
    pub stated_at: UnixMillis,
    /// The note itself, for whoever wants to check it with other tools.
    pub note: String,
}

/// Verifies the subsets of grants that a directory holds; all, or one. Reads only.
///
/// # Errors
/// [`RegistryError::NotFound`] when the directory has no such grant; when its files cannot be read.
pub fn verify_grants(dir: &Path, only: Option<&GrantId>) -> Result<Vec<GrantProof>> {
    let config = NodeConfig::read(dir)?;
    let report = verify(dir)?;
    let snapshot = Snapshot::open(dir)?;
    let authority = Authority::load(&snapshot, &config)?;
    let mut proofs = Vec::new();
    for shard in snapshot.shards()? {
        let Ok(ledger) = Origin::parse(&shard) else {
            continue;
        };
        let Some(id) = ledger.grant_id() else {
            continue;
        };
        let Some(grant) = authority.grant(&id) else {
            continue;
        };
        if only.is_some_and(|only| *only != id) {
            continue;
        }
        let owner = grant.origin.division();
        // What is wrong with the owner's authority ledger is wrong with the grant.
        let of = [ledger.to_string(), authority_of(&grant.origin).to_string()];
        let findings: Vec<VerifyFinding> = report
            .findings
            .iter()
            .filter(|f| f.origin.as_ref().is_none_or(|origin| of.contains(origin)))
            .cloned()
            .collect();
        let walked = walk(&snapshot, &ledger)?;
        let complete = report.more_findings == 0;
        proofs.push(GrantProof {
            ok: findings.is_empty() && complete && walked.checkpoint.is_some(),
            grant: id,
            owner,
            holder: grant.holder.clone(),
            size: walked.size,
            records: walked.records.len() as u64,
            checkpoint: walked.checkpoint,
            unvouched: walked.unvouched,
            ledger,
            findings,
        });
    }
    match (proofs.is_empty(), only) {
        (true, Some(id)) => Err(RegistryError::NotFound {
            what: "授权 / grant",
            name: id.to_string(),
            next: "see `fangzhi grant list`; the directory holds nothing of it",
        }),
        _ => Ok(proofs),
    }
}

fn authority_of(shard: &Origin) -> Origin {
    let word = crate::node::word("authority");
    Origin::new(&shard.realm(), &shard.division(), &word)
}

#[derive(Default)]
struct Walked {
    size: u64,
    records: BTreeSet<RecordId>,
    checkpoint: Option<ProvenUpTo>,
    unvouched: u64,
}

fn walk(snapshot: &Snapshot, ledger: &Origin) -> Result<Walked> {
    let mut walked = Walked::default();
    loop {
        let from = walked.size.to_be_bytes();
        let rows = snapshot.scan(ledger.as_str(), table::ENTRY, &from, SCAN)?;
        for (_, bytes) in &rows {
            let at = walked.size;
            walked.size += 1;
            let Ok(Entry::Grant(entry)) = Entry::decode(bytes) else {
                continue;
            };
            walked.unvouched += 1;
            match (entry.operation, entry.record) {
                (GrantOperation::Retract, Some(record)) => {
                    walked.records.remove(&record);
                }
                (operation, Some(record)) if operation.brings_parcel() => {
                    walked.records.insert(record);
                }
                (GrantOperation::Heartbeat, _) => {
                    walked.unvouched = 0;
                    let body = snapshot.get(&table::body(ledger, at))?.unwrap_or_default();
                    walked.checkpoint = proven(&body, entry.recorded_at);
                }
                _ => walked.unvouched -= 1,
            }
        }
        if rows.len() < SCAN {
            return Ok(walked);
        }
    }
}

fn proven(note: &[u8], stated_at: UnixMillis) -> Option<ProvenUpTo> {
    let note = String::from_utf8(note.to_vec()).ok()?;
    let checkpoint = checkpoint_of(&note).ok()?;
    let signed = ledger::note::Note::parse(note.as_bytes()).ok()?;
    let signers = signed.signatures().iter().map(|s| s.name().to_owned());
    Some(ProvenUpTo {
        origin: Origin::parse(checkpoint.origin()).ok()?,
        size: checkpoint.size(),
        root: data_encoding::HEXLOWER.encode(checkpoint.root()),
        signers: signers.collect(),
        stated_at,
        note,
    })
}
