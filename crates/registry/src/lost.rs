//! Records whose secrets are lost (失密): their entries came back from the parent, and what opens
//! them did not, because this directory was restored from a copy that is older than they are.
//!
//! Owns which records these are, so that they do not vanish silently: status and doctor count them,
//! and a file that they were imported from is not imported again while they are in the register.
//! Refuses to judge by what was noted alone: a secret may come back, and a record may be erased.

use record::entry::{Entry, Operation};
use record::id::{Hash, Origin, RecordId};
use store::{Batch, Store};

use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::table;

/// Entries read at a time, looking for the act over an entry.
const SCAN: usize = 512;
/// How many records a refusal names.
const NAMED_MAX: usize = 20;

/// Notes that a record of an own shard came back without its secret, with its first entry that came.
pub(crate) fn note(
    batch: &mut Batch,
    store: &dyn Store,
    shard: &Origin,
    record: &RecordId,
    at: u64,
) -> Result<()> {
    let key = table::key(shard, table::LOST, &record.0);
    if store.get(&key)?.is_none() {
        batch.put(key, at.to_be_bytes().to_vec());
    }
    Ok(())
}

/// Whether nothing is to be opened of a record after such an entry.
pub(crate) fn ends(operation: Operation) -> bool {
    matches!(operation, Operation::Erase | Operation::TransferOut)
}

impl Registry {
    /// The records of an own shard that are in the register and cannot be opened for want of their
    /// secrets, each with its first entry that came back.
    fn lost_in(&self, shard: &Origin) -> Result<Vec<(u64, RecordId)>> {
        let rows = self
            .store
            .scan(shard.as_str(), table::LOST, b"", usize::MAX)?;
        let mut lost = Vec::new();
        for (record, at) in rows {
            let (Ok(record), Ok(at)) = (record.try_into(), at.try_into()) else {
                return Err(RegistryError::damaged(format!(
                    "`{shard}` has a malformed note of a lost secret"
                )));
            };
            let (record, at) = (RecordId(record), u64::from_be_bytes(at));
            let newest = self.newest(shard, &record)?;
            let Some(newest) = newest.filter(|newest| newest.page == 0) else {
                continue;
            };
            if !ends(self.newest_entry(shard, &newest)?.operation) {
                lost.push((at, record));
            }
        }
        lost.sort_unstable();
        Ok(lost)
    }

    /// How many records in own shards cannot be opened for want of their secrets.
    pub(crate) fn lost_records(&self) -> Result<u64> {
        let mut lost = 0;
        for shard in self.own_shards()? {
            lost += self.lost_in(&shard)?.len() as u64;
        }
        Ok(lost)
    }

    /// Refuses rows of a file of which records are in the register that cannot be opened: whether
    /// they are among these rows nobody can tell, and each would be registered twice.
    pub(crate) fn refuse_lost_rows(&self, shard: &Origin, source: &Hash) -> Result<()> {
        let mut of_file = Vec::new();
        // From which entry on, up to the act over it, and whether that act was an import of the file.
        let mut act: Option<(std::ops::Range<u64>, bool)> = None;
        for (at, record) in self.lost_in(shard)? {
            if act.as_ref().is_none_or(|(range, _)| !range.contains(&at)) {
                let (end, named) = self.act_over(shard, at)?;
                act = Some((at..end, named == Some(*source)));
            }
            if act.as_ref().is_some_and(|(_, same)| *same) {
                of_file.push(record.to_string());
            }
        }
        if of_file.is_empty() {
            return Ok(());
        }
        let count = of_file.len();
        of_file.truncate(NAMED_MAX);
        let named = of_file.join(", ");
        Err(RegistryError::BadRequest(format!(
            "此文件有 {count} 条记录已登记在册，但记录密钥已失、打不开；再导入会重复登记，故不予导入。先用 `fangzhi recover` 找回密钥；确已找不回的，用 `fangzhi erase` 逐条销毁后再导入：{named} / {count} records of this file are in the register already and their secrets are lost; importing it again would register them twice. Get the secrets back with `fangzhi recover` into an empty directory; where that cannot be, erase these records (`fangzhi erase`) and import again: {named}"
        )))
    }

    /// Where the act over an entry lies, and the source that it names.
    fn act_over(&self, shard: &Origin, at: u64) -> Result<(u64, Option<Hash>)> {
        let mut from = at;
        loop {
            let rows = self
                .store
                .scan(shard.as_str(), table::ENTRY, &from.to_be_bytes(), SCAN)?;
            if rows.is_empty() {
                return Ok((from.max(at + 1), None));
            }
            for (_, bytes) in &rows {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if let Entry::Act(act) = entry {
                    return Ok((from, act.source));
                }
                from += 1;
            }
        }
    }
}
