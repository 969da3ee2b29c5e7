//! What a holder can prove of its subset, from the files alone (授权核验): that it is the owner's,
//! gapless, and current up to a checkpoint that witnesses cosigned.
//!
//! Owns no check of its own: entries, acts, parcels and heartbeats are those of [`crate::verify`].
//! Here is what they add up to for one grant. Refuses to call rows proven that no heartbeat vouches for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ledger::checkpoint::Checkpoint;
use record::authority::GrantStatement;
use record::entry::{Entry, GrantOperation};
use record::id::{DivisionId, GrantId, Hash, Origin, RecordId, UnixMillis};
use serde::Serialize;
use store::{Snapshot, Store};

use super::checkpoint_of;
use crate::authority::Authority;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::table;
use crate::verify::over::Times;
use crate::verify::{VerifyFinding, verify_at};

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
    /// The checkpoint that was named, and whether the subset is proven up to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<Named>,
    /// Entries after the last heartbeat, for which nothing vouches yet.
    pub unvouched: u64,
    /// When the grant ended before its time. Nothing is left to be vouched for once every row of it
    /// was retracted, or the holder signed that it dropped them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// Whether the grant is over and nothing of it is held any more: there is no subset to prove.
    pub finished: bool,
    /// What does not hold.
    pub findings: Vec<VerifyFinding>,
}

/// A checkpoint of the shard that whoever verifies named.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    /// Its size.
    pub size: u64,
    /// Its root, hexadecimal.
    pub root: String,
    /// Whether the owner said, up to this very checkpoint or a later one, that nothing is missing.
    pub reached: bool,
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
    verify_grants_to(dir, only, None, UnixMillis(0))
}

/// Verifies subsets as [`verify_grants`] does, and that they are current up to a checkpoint of the
/// shard that the verifier has from elsewhere: a signed note. `now` is the verifier's clock, by which
/// a grant whose time ran out is over; at 0 cosignatures alone tell that.
///
/// # Errors
/// As for [`verify_grants`]; [`RegistryError::BadRequest`] when the note is no checkpoint.
pub fn verify_grants_to(
    dir: &Path,
    only: Option<&GrantId>,
    named: Option<&str>,
    now: UnixMillis,
) -> Result<Vec<GrantProof>> {
    let wanted = named.map(checkpoint_of).transpose().map_err(|error| {
        RegistryError::BadRequest(format!(
            "所给账头不是签名账头 / what was named is no signed checkpoint: {error}; fetch `/ledger/ORIGIN/checkpoint` from the owner or its parent"
        ))
    })?;
    let config = NodeConfig::read(dir)?;
    let report = verify_at(dir, now)?;
    let snapshot = Snapshot::open(dir)?;
    let authority = Authority::load(&snapshot, &config)?;
    let shards = snapshot.shards()?;
    let origins: Vec<Origin> = shards
        .iter()
        .filter_map(|shard| Origin::parse(shard).ok())
        .collect();
    let own = &config.division;
    let times = Times::of(&snapshot, &origins, own, &authority, now);
    let mut proofs = Vec::new();
    for ledger in origins {
        let Some(id) = ledger.grant_id() else {
            continue;
        };
        let Some(grant) = authority.grant(&id) else {
            continue;
        };
        if only.is_some_and(|only| *only != id) {
            continue;
        }
        // A checkpoint speaks of one shard.
        let of_shard = |c: &&Checkpoint| c.origin() == grant.origin.as_str();
        let wanted = wanted.as_ref().filter(of_shard);
        if named.is_some() && wanted.is_none() {
            continue;
        }
        let owner = grant.origin.division();
        // What is wrong with the owner's authority ledger is wrong with the grant.
        let of = [ledger.to_string(), authority_of(&grant.origin).to_string()];
        let mut findings: Vec<VerifyFinding> = report
            .findings
            .iter()
            .filter(|f| f.origin.as_ref().is_none_or(|origin| of.contains(origin)))
            .cloned()
            .collect();
        let walked = walk(&snapshot, &ledger)?;
        let complete = report.more_findings == 0;
        let mut find = |what: String| {
            findings.push(VerifyFinding {
                file: None,
                offset: None,
                origin: Some(ledger.to_string()),
                index: None,
                what,
            });
        };
        let named = match (wanted, named) {
            (Some(wanted), Some(note)) => {
                Some(reach(&authority, grant, &walked, wanted, note, &mut find))
            }
            _ => None,
        };
        let ended_at = authority.grant_ended(&id).map(|ended| ended.ended_at);
        let dropped = authority.dropped(&grant.holder, &ledger);
        let bodies = || snapshot.scan(ledger.as_str(), table::BODY, b"", 1);
        let let_go = times.over(&ledger, own, &authority).is_some() && bodies()?.is_empty();
        let finished = dropped || let_go || (ended_at.is_some() && walked.records.is_empty());
        // What is half dropped is neither whole nor finished.
        let verified = report.ledgers.iter().find(|line| line.origin == ledger);
        let whole = walked.checkpoint.is_some() && verified.is_none_or(|line| line.dropped == 0);
        proofs.push(GrantProof {
            ok: findings.is_empty() && complete && (finished || whole),
            grant: id,
            owner,
            holder: grant.holder.clone(),
            size: walked.size,
            records: walked.records.len() as u64,
            checkpoint: walked.checkpoint,
            unvouched: if finished { 0 } else { walked.unvouched },
            ended_at,
            finished,
            named,
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

/// Whether a subset reaches a checkpoint that the owner signed.
fn reach(
    authority: &Authority,
    grant: &GrantStatement,
    walked: &Walked,
    wanted: &Checkpoint,
    note: &str,
    find: &mut impl FnMut(String),
) -> Named {
    let shard = &grant.origin;
    let signed = authority.signer_of(shard, note).is_some_and(|charter| {
        crate::replicate::log_verifier(shard, &charter.keys.sign)
            .is_ok_and(|log| ledger::checkpoint::open(note.as_bytes(), &log).is_ok())
    });
    let size = wanted.size();
    if !signed {
        find(format!(
            "所给账头不是 `{shard}` 所有者签的 / the checkpoint that was named is not signed by the owner of `{shard}`; fetch it again"
        ));
    }
    let other = walked
        .heartbeats
        .get(&size)
        .filter(|root| *root != wanted.root());
    if other.is_some() {
        find(format!(
            "所有者对第 {size} 条签了两个根 / the owner signed two roots at size {size}: the one named, and the one that a heartbeat cites; keep both, they are evidence"
        ));
    }
    let reached = walked
        .heartbeats
        .keys()
        .next_back()
        .is_some_and(|last| *last >= size);
    if !reached {
        let last = walked.heartbeats.keys().next_back().copied().unwrap_or(0);
        find(format!(
            "只证明到第 {last} 条，所给账头已到第 {size} 条 / proven up to entry {last} only, while the checkpoint that was named is of {size}: fetch what came since, or ask the owner"
        ));
    }
    Named {
        size,
        root: data_encoding::HEXLOWER.encode(wanted.root()),
        reached: reached && signed && other.is_none(),
    }
}

pub(super) fn authority_of(shard: &Origin) -> Origin {
    let word = crate::node::word("authority");
    Origin::new(&shard.realm(), &shard.division(), &word)
}

#[derive(Default)]
struct Walked {
    size: u64,
    records: BTreeSet<RecordId>,
    checkpoint: Option<ProvenUpTo>,
    unvouched: u64,
    /// The heads that heartbeats cited, by size.
    heartbeats: BTreeMap<u64, Hash>,
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
                    walked.heartbeats.insert(entry.shard_size, entry.shard_root);
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
