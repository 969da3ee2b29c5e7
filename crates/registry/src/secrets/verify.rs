//! Verifying pages of record secrets without a key: every chunk's checksum, and that each record
//! of an own shard finds a whole chunk where it points to.
//!
//! Owns what is said of a page: which, where, and how many records are lost with it.
//! A node that is in use writes a page again under another number and destroys it: what its rows or
//! its note about that explain is looked at again.
//! Refuses to open a chunk, and to change anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use record::id::Origin;
use store::pages::{ChunkAt, Inspected, PagesError, being_destroyed, inspect, numbers};
use store::{Snapshot, Store};

use crate::config::{Files, NodeConfig};
use crate::destroy::{moved_rows, page_now};
use crate::error::{RegistryError, Result, words};
use crate::table::{self, LOCAL};
use crate::verify::VerifyFinding;
use crate::verify::look::Fact;

/// For each page, its chunks in order and how many records need each.
type Needed = BTreeMap<u32, Vec<(ChunkAt, u64)>>;

/// Where pages are that were written again.
type Moved = BTreeMap<u32, u32>;

/// How long a page that is being destroyed is waited for, and how often it is looked at.
const DESTROYING_MAX: Duration = Duration::from_secs(30);
const DESTROYING_EVERY: Duration = Duration::from_millis(10);

/// What is wrong with the pages of a directory, and what is only unfinished.
///
/// # Errors
/// When a page cannot be read, or the segments that say what is needed.
pub(crate) fn verify_secrets(
    dir: &Path,
    snapshot: &Snapshot<Fact>,
    config: &NodeConfig,
) -> Result<(Vec<VerifyFinding>, Vec<String>)> {
    // Segments and `node.json` alone are a copy for whoever verifies: no secret belongs there.
    if !dir.join("secrets").exists() && !Files::new(dir).keystore().exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let begun = Instant::now();
    let mut rows = moved_rows(&snapshot.scan(LOCAL, table::MOVED, b"", usize::MAX)?)?;
    loop {
        // The segments were read before: a node that runs meanwhile adds pages and chunks.
        let there = numbers(dir).map_err(failed)?;
        let faulty = faulty(dir, &there, &needed(snapshot, config, &rows, &there)?)?;
        let later = explained(dir, snapshot, &rows, &faulty)?;
        match later.filter(|_| begun.elapsed() < DESTROYING_MAX) {
            None => return Ok(said(&faulty)),
            Some(later) if later == rows => std::thread::sleep(DESTROYING_EVERY),
            Some(later) => rows = later,
        }
    }
}

fn failed(error: PagesError) -> RegistryError {
    RegistryError::Store(words(&error))
}

/// What records need of each page, and the pages of which none needs anything.
fn needed(
    snapshot: &Snapshot<Fact>,
    config: &NodeConfig,
    rows: &Moved,
    there: &[u32],
) -> Result<Needed> {
    let mut moved = rows.clone();
    // A page that is there still is of a rewriting that was undone, or is not done.
    moved.retain(|from, _| there.binary_search(from).is_err());
    let mut places = Vec::new();
    for shard in snapshot.shards()? {
        let Ok(origin) = Origin::parse(&shard) else {
            continue;
        };
        if origin.division() == config.division && origin.is_shard() {
            note_needed(snapshot, &origin, &moved, &mut places);
        }
    }
    places.sort_unstable();
    let mut needed = Needed::new();
    for same in places.chunk_by(|a, b| a == b) {
        let chunks = needed.entry(same[0].page).or_default();
        chunks.push((same[0], same.len() as u64));
    }
    for page in there {
        needed.entry(*page).or_default();
    }
    Ok(needed)
}

/// A page with something wrong, and how many records cannot be opened for it.
struct Faulty {
    page: u32,
    inspected: Inspected,
    records: u64,
    /// It was there when they were listed.
    listed: bool,
}

fn faulty(dir: &Path, there: &[u32], needed: &Needed) -> Result<Vec<Faulty>> {
    let mut found = Vec::new();
    for (page, chunks) in needed {
        let wanted: Vec<ChunkAt> = chunks.iter().map(|(at, _)| *at).collect();
        let inspected = inspect(dir, *page, &wanted).map_err(failed)?;
        if inspected.lost.is_empty() && inspected.fault.is_none() {
            continue;
        }
        let lost = chunks.iter().filter(|(at, _)| inspected.lost.contains(at));
        found.push(Faulty {
            page: *page,
            records: lost.map(|(_, records)| records).sum(),
            inspected,
            listed: there.binary_search(page).is_ok(),
        });
    }
    Ok(found)
}

/// The rows to look again with, when a node that is in use explains what is wrong with a page: it
/// has the row before it touches the page, and a note while it destroys it.
fn explained(
    dir: &Path,
    snapshot: &Snapshot<Fact>,
    rows: &Moved,
    faulty: &[Faulty],
) -> Result<Option<Moved>> {
    let suspects = || {
        let unfinished = |one: &&Faulty| {
            one.inspected.lost.is_empty() && one.inspected.fault.is_some_and(|f| f.unfinished)
        };
        faulty.iter().filter(move |one| !unfinished(one))
    };
    if suspects().next().is_none() {
        return Ok(None);
    }
    // What a node left that was killed in the middle, the next opening finishes: nobody is at it.
    let destroyed = match store::is_in_use(dir) {
        true => being_destroyed(dir).map_err(failed)?,
        false => None,
    };
    let there = numbers(dir).map_err(failed)?;
    let mut later = rows.clone();
    later.extend(moved_rows(&snapshot.rows_since(LOCAL, table::MOVED)?)?);
    let explains = |one: &Faulty| {
        let gone = one.listed && there.binary_search(&one.page).is_err();
        gone || destroyed == Some(one.page) || later.get(&one.page) != rows.get(&one.page)
    };
    Ok(suspects().any(explains).then_some(later))
}

/// In words.
fn said(faulty: &[Faulty]) -> (Vec<VerifyFinding>, Vec<String>) {
    let (mut findings, mut remarks) = (Vec::new(), Vec::new());
    for one in faulty {
        let (page, records, inspected) = (one.page, one.records, &one.inspected);
        let file = inspected.file.display();
        let what = match (inspected.lost.first(), inspected.fault) {
            (Some(_), _) => format!(
                "第 {page} 页记录密钥缺损，{records} 条记录打不开；请由备份恢复 / page {page} of record secrets is damaged: {records} records cannot be opened; restore it from its backup"
            ),
            (None, Some(fault)) if fault.unfinished => {
                remarks.push(format!(
                    "`{file}` ends in an unfinished chunk at byte {}; opening the node cuts it off",
                    fault.offset
                ));
                continue;
            }
            (None, _) => format!(
                "第 {page} 页记录密钥缺损，无记录受累 / page {page} of record secrets is damaged where no record needs it"
            ),
        };
        let offset = inspected.lost.first().map(|at| at.offset);
        findings.push(VerifyFinding {
            file: Some(file.to_string()),
            offset: offset.or(inspected.fault.map(|fault| fault.offset)),
            origin: None,
            index: None,
            what,
        });
    }
    (findings, remarks)
}

/// Notes where the chunks are that the records of a shard point to. A value that cannot be read has
/// a finding of its own.
fn note_needed(
    snapshot: &Snapshot<Fact>,
    origin: &Origin,
    moved: &BTreeMap<u32, u32>,
    places: &mut Vec<ChunkAt>,
) {
    for (_, fact) in snapshot.notes(origin.as_str(), table::RECORD, &[]) {
        if let Some(Fact::Secret(at)) = fact {
            let page = page_now(moved, at.page);
            places.push(ChunkAt { page, ..*at });
        }
    }
}
