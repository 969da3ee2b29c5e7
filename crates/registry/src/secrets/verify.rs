//! Verifying pages of record secrets without a key: every chunk's checksum, and that each record
//! of an own shard finds a whole chunk where it points to.
//!
//! Owns what is said of a page: which, where, and how many records are lost with it.
//! Refuses to open a chunk, and to change anything. A node that destroys a page meanwhile makes it
//! look lost; verify again then.

use std::collections::BTreeMap;
use std::path::Path;

use record::id::Origin;
use store::pages::{ChunkAt, inspect, numbers};
use store::{Snapshot, Store};

use crate::config::{Files, NodeConfig};
use crate::destroy::{moved_pages, page_now};
use crate::error::{RegistryError, Result, words};
use crate::table;
use crate::verify::VerifyFinding;
use crate::verify::look::Fact;

/// For each page, its chunks in order and how many records need each.
type Needed = BTreeMap<u32, Vec<(ChunkAt, u64)>>;

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
    let mut places = Vec::new();
    let failed = |error| RegistryError::Store(words(&error));
    // The segments were read before: a node that runs meanwhile adds pages and chunks.
    let there = numbers(dir).map_err(failed)?;
    let moved = moved_pages(snapshot, &there)?;
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
    let (mut findings, mut remarks) = (Vec::new(), Vec::new());
    for page in there {
        needed.entry(page).or_default();
    }
    for (page, chunks) in &needed {
        let wanted: Vec<ChunkAt> = chunks.iter().map(|(at, _)| *at).collect();
        let inspected = inspect(dir, *page, &wanted).map_err(failed)?;
        let file = inspected.file.display();
        let what = match (inspected.lost.first(), inspected.fault) {
            (Some(_), _) => {
                let lost = chunks.iter().filter(|(at, _)| inspected.lost.contains(at));
                let records: u64 = lost.map(|(_, records)| records).sum();
                format!(
                    "第 {page} 页记录密钥缺损，{records} 条记录打不开；请由备份恢复 / page {page} of record secrets is damaged: {records} records cannot be opened; restore it from its backup"
                )
            }
            (None, Some(fault)) if fault.unfinished => {
                remarks.push(format!(
                    "`{file}` ends in an unfinished chunk at byte {}; opening the node cuts it off",
                    fault.offset
                ));
                continue;
            }
            (None, Some(_)) => format!(
                "第 {page} 页记录密钥缺损，无记录受累 / page {page} of record secrets is damaged where no record needs it"
            ),
            (None, None) => continue,
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
    Ok((findings, remarks))
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
