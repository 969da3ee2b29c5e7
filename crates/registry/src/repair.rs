//! Repairing (修复) a directory whose segment files are damaged: what is whole is kept, the rest of
//! each ledger is cut off where the damage begins, and comes back from the parent by its hashes.
//!
//! Nothing is overwritten: the damaged files are moved aside. Afterwards the restore guard knows
//! that more was signed than is here, so the node signs nothing until it has the rest back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ledger::hash::leaf_hash;
use ledger::tile::{TreeEdge, plan_append};
use record::cbor;
use record::entry::Entry;
use record::id::{Hash, Origin};
use serde::Serialize;
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Seen, Snapshot, Store};

use crate::book::commit;
use crate::chain;
use crate::config::NodeConfig;
use crate::error::{RegistryError, Result};
use crate::table::{self, Head};

/// How many values one commit of the copy carries.
const STEP: usize = 1000;

/// What a repair kept and cut.
#[derive(Debug, Clone, Serialize)]
pub struct RepairReport {
    /// Where the damaged files lie now; absent when nothing was damaged.
    pub moved_aside: Option<PathBuf>,
    /// Ledgers that lost entries, to be fetched from the parent or the owner.
    pub ledgers: Vec<CutLedger>,
    /// Other values that are lost: pointers and notes beside the ledgers.
    pub values_lost: u64,
}

/// A ledger that was cut.
#[derive(Debug, Clone, Serialize)]
pub struct CutLedger {
    /// Which.
    pub origin: Origin,
    /// Entries kept.
    pub kept: u64,
    /// Entries to be fetched.
    pub to_fetch: u64,
}

/// Repairs the store of a directory. The node must not be running.
///
/// # Errors
/// [`RegistryError::Directory`] when it runs, or the new files cannot be written; then the
/// directory is as it was.
pub fn repair(dir: &Path) -> Result<RepairReport> {
    NodeConfig::read(dir)?;
    let failed = |e: std::io::Error| RegistryError::file(dir, e);
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(failed)?;
    lock.try_lock().map_err(|_| {
        RegistryError::Directory(format!(
            "`{}` is in use; stop the node first",
            dir.display()
        ))
    })?;
    let mut keys: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
    let mut damaged = 0u64;
    let snapshot = store::scan_segments(dir, &mut |seen| match seen {
        Seen::Frame { key, .. } => {
            keys.entry(key.shard().to_owned()).or_default().insert(key);
        }
        Seen::Finding(store::Finding::Damaged { key, .. }) => {
            damaged += 1;
            if let Some(key) = key {
                keys.entry(key.shard().to_owned()).or_default().insert(key);
            }
        }
        _ => {}
    })?;
    let mut report = RepairReport {
        moved_aside: None,
        ledgers: Vec::new(),
        values_lost: 0,
    };
    if damaged == 0 {
        return Ok(report);
    }
    let fresh = dir.join("repaired");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(failed)?;
    }
    {
        let store = Embedded::open(&fresh, Options::default())
            .map_err(|e| RegistryError::Directory(e.to_string()))?;
        for (shard, keys) in &keys {
            match Origin::parse(shard) {
                Ok(origin) => copy_ledger(&snapshot, &store, &origin, keys, &mut report)?,
                Err(_) => copy(&snapshot, &store, shard, keys.iter(), &mut report)?,
            }
        }
        store
            .close()
            .map_err(|e| RegistryError::Store(e.to_string()))?;
    }
    let aside = (1..)
        .map(|number| dir.join(format!("damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| dir.join("damaged"));
    std::fs::create_dir(&aside).map_err(failed)?;
    for part in ["index", "segments"] {
        if dir.join(part).exists() {
            std::fs::rename(dir.join(part), aside.join(part)).map_err(failed)?;
        }
    }
    // The index is made again from the segments when a crash comes between the two.
    for part in ["segments", "index"] {
        if fresh.join(part).exists() {
            std::fs::rename(fresh.join(part), dir.join(part)).map_err(failed)?;
        }
    }
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)?;
    let _ = std::fs::remove_dir_all(&fresh);
    report.moved_aside = Some(aside);
    Ok(report)
}

/// Copies the values under keys as far as they can be read.
fn copy<'a>(
    from: &Snapshot,
    to: &dyn Store,
    shard: &str,
    keys: impl Iterator<Item = &'a Key>,
    report: &mut RepairReport,
) -> Result<()> {
    let mut batch = Batch::new(shard, None);
    let flush = |batch: &Batch| {
        if batch.is_empty() {
            return Ok(());
        }
        to.commit(batch)
            .map(drop)
            .map_err(|e| RegistryError::Store(e.to_string()))
    };
    for key in keys {
        match from.get(key) {
            Ok(Some(value)) if key.table() == table::BODY => {
                batch.put_body(key.clone(), value);
            }
            Ok(Some(value)) => {
                batch.put(key.clone(), value);
            }
            Ok(None) => {}
            Err(_) => report.values_lost += 1,
        }
        if batch.puts().len() >= STEP {
            flush(&batch)?;
            batch = Batch::new(shard, None);
        }
    }
    flush(&batch)
}

fn copy_ledger(
    from: &Snapshot,
    to: &dyn Store,
    origin: &Origin,
    keys: &BTreeSet<Key>,
    report: &mut RepairReport,
) -> Result<()> {
    let old = Head::read(from, origin).ok();
    let note = old
        .as_ref()
        .and_then(|head| head.target.clone().or(head.whole.clone()));
    // Without a signed head to go on from, the ledger is fetched from its beginning.
    let size = match (&old, &note) {
        (Some(head), Some(_)) => head.size,
        _ => 0,
    };
    // Cut after an act: that is a size at which a checkpoint was signed.
    let gone = chain::ordered(from, origin)?;
    let mut probe = Kept::default();
    let mut whole = 0;
    while probe.size() < size && probe.take(from, origin, &gone)? {
        if probe.tail == 0 {
            whole = probe.size();
        }
    }
    let end = if probe.size() == size { size } else { whole };
    drop(probe);
    let mut kept = Kept::default();
    while kept.size() < end && kept.take(from, origin, &gone)? {}
    if let Some(head) = old.filter(|head| head.size == kept.size()) {
        // The entries are whole: only what lies beside them may have holes.
        copy(
            from,
            to,
            origin.as_str(),
            // The table of records' entries is made again at opening.
            keys.iter()
                .filter(|k| k.table() != table::TILE && k.table() != table::CHAIN),
            report,
        )?;
        return kept.write(to, origin, Some(head));
    }
    report.ledgers.push(CutLedger {
        origin: origin.clone(),
        kept: kept.size(),
        to_fetch: size - kept.size(),
    });
    let below = |key: &&Key| match key.table() {
        table::TILE | table::HEAD | table::NOTE | table::CHAIN => false,
        table::ENTRY | table::BODY | table::DESTROY => {
            key.rest() < kept.size().to_be_bytes().as_slice()
        }
        _ => true,
    };
    copy(from, to, origin.as_str(), keys.iter().filter(below), report)?;
    let head = note.is_some().then(|| Head {
        size: kept.size(),
        root: kept.edge.frontier().root(),
        whole: None,
        target: note,
        cosigned: None,
        act: kept.act,
        tail: kept.tail,
    });
    kept.write(to, origin, head)
}

/// The beginning of a ledger that is whole.
#[derive(Default)]
struct Kept {
    edge: TreeEdge,
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    act: Option<Hash>,
    tail: u64,
}

impl Kept {
    fn size(&self) -> u64 {
        self.edge.frontier().size()
    }

    /// Takes the next entry, if it can be read, and its body, unless that was to be destroyed.
    fn take(&mut self, from: &Snapshot, origin: &Origin, gone: &BTreeSet<u64>) -> Result<bool> {
        let at = self.size();
        let Ok(Some(bytes)) = from.get(&table::entry(origin, at)) else {
            return Ok(false);
        };
        let Ok(entry) = Entry::decode(&bytes) else {
            return Ok(false);
        };
        let bodied = entry.body_hash().is_some() && !gone.contains(&at);
        if bodied && !matches!(from.get(&table::body(origin, at)), Ok(Some(_))) {
            return Ok(false);
        }
        let leaf = leaf_hash(&bytes);
        (self.act, self.tail) = match entry {
            Entry::Act(_) => (Some(leaf), 0),
            _ => (self.act, self.tail + 1),
        };
        let (edge, writes) = plan_append(&self.edge, &[leaf]);
        self.edge = edge;
        self.tiles
            .extend(writes.into_iter().map(|w| ((w.level, w.index), w.bytes)));
        Ok(true)
    }

    /// Writes tiles and head.
    fn write(self, to: &dyn Store, origin: &Origin, head: Option<Head>) -> Result<()> {
        let mut batch = Batch::new(origin.as_str(), None);
        for ((level, index), bytes) in self.tiles {
            batch.put(table::tile(origin, level, index), bytes);
        }
        if let Some(head) = head {
            batch.put(table::head(origin), cbor::to_vec(&head));
        }
        if batch.is_empty() {
            return Ok(());
        }
        commit(to, origin, &batch).map(drop)
    }
}
