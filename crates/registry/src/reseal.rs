//! Resealing (重封): bodies under older epochs are sealed anew under the present one, while the
//! node works on.
//!
//! Owns the order of a step: open and seal without a lock, then one commit under the shard's book:
//! the `reseal` entries with their bodies, the bodies that they replace destroyed (by the book), how
//! far it came.
//! So a kill at any instant loses one batch of work and nothing else. Refuses to pass over what
//! does not open in silence: it is named, kept, and tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use ledger::hash::leaf_hash;
use minicbor::{Decode, Encode};
use record::cbor;
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{Origin, RecordId, UnixMillis};
use seal::body::{CellContext, SealedBody};
use serde::Serialize;

use crate::book::Leaf;
use crate::epoch::ShardKeys;
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Version};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::table::{self, Head, Newest};

/// How many bodies one act seals anew.
const STEP_BODIES: usize = 256;
/// How many entries one step looks at.
const STEP_ENTRIES: u64 = 4096;
const SCAN: usize = 512;
/// What could not be resealed is tried again after this long.
const RETRY_MILLIS: u64 = 600_000;
/// The most failures that are listed by name.
const NAMED_MAX: usize = 100;

/// How far resealing came, in the same commit as the entries.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
struct Cursor {
    /// The epoch that is resealed to.
    #[n(0)]
    epoch: u32,
    /// Entries of the shard when this was begun: later ones are under the epoch already.
    #[n(1)]
    end: u64,
    /// Bodies to seal anew.
    #[n(2)]
    total: u64,
    /// Entries worked through.
    #[n(3)]
    at: u64,
    /// Bodies sealed anew.
    #[n(4)]
    done: u64,
    /// Milliseconds spent on it.
    #[n(5)]
    spent: u64,
    /// When nothing was left.
    #[n(6)]
    finished: Option<UnixMillis>,
    /// Size of the shard after the newest reseal.
    #[n(7)]
    until: u64,
}

/// A body that could not be sealed anew.
#[derive(Debug, Clone, Serialize, Encode, Decode)]
#[cbor(map)]
pub struct ResealFailure {
    /// Index of its entry.
    #[n(0)]
    pub index: u64,
    /// The record.
    #[n(1)]
    pub record: RecordId,
    /// Its version.
    #[n(2)]
    pub version: u64,
    /// Why, and what to do.
    #[n(3)]
    pub reason: String,
    /// When it was tried last.
    #[n(4)]
    pub tried: UnixMillis,
}

/// How far the resealing of a shard came.
#[derive(Debug, Clone, Serialize)]
pub struct ResealProgress {
    /// Bodies under older epochs when it began.
    pub total: u64,
    /// Of them, sealed anew or destroyed since.
    pub done: u64,
    /// Of them, those that do not open; each is tried again.
    pub failed: u64,
    /// Seconds left at the pace so far; absent when nothing is left or nothing is known yet.
    pub eta: Option<u64>,
    /// Whether nothing is left.
    pub finished: bool,
    /// The failures by name, the first of them.
    pub failures: Vec<ResealFailure>,
}

/// The key epochs of an own shard.
#[derive(Debug, Clone, Serialize)]
pub struct ShardEpochs {
    /// The shard.
    pub origin: Origin,
    /// The epoch that seals.
    pub current: u32,
    /// The epochs whose secret is here, the present one among them.
    pub open: Vec<u32>,
    /// The resealing under the present epoch; none in the first.
    pub resealing: Option<ResealProgress>,
}

/// A version that was sealed anew and waits for its commit.
struct Anew {
    /// Where its present body lies.
    at: u64,
    version: Version,
    sealed: SealedBody,
}

fn cursor_key(origin: &Origin) -> store::Key {
    table::key(origin, table::RESEAL, b"cursor")
}

fn failure_key(origin: &Origin, at: u64) -> store::Key {
    let mut rest = b"failed".to_vec();
    rest.extend(at.to_be_bytes());
    table::key(origin, table::RESEAL, &rest)
}

/// Whether the entry has a body that is sealed under an epoch's keys.
fn sealed_under(entry: &RecordEntry, epochs: &impl Fn(u32) -> bool) -> bool {
    !matches!(entry.operation, Operation::Erase | Operation::TransferOut) && epochs(entry.epoch)
}

impl Registry {
    /// Seals a bounded batch of bodies anew in every own shard whose epoch changed; `true` when
    /// there is more to do at once. What needs the holders of grants is done first.
    ///
    /// # Errors
    /// A failure of the store; nothing was changed, and the same batch is taken up again.
    pub fn reseal_step(&self, now: UnixMillis) -> Result<bool> {
        let mut more = false;
        for origin in self.rotated_shards() {
            more |= self.reseal_shard(&origin, now)?;
        }
        Ok(more)
    }

    /// Own shards that are beyond their first epoch.
    fn rotated_shards(&self) -> Vec<Origin> {
        let kinds = self.catalogue().kinds();
        let shards = kinds.into_iter().map(|schema| self.shard(&schema.kind));
        let authority = self.authority();
        shards
            .filter(|origin| authority.current_epoch(origin) > crate::authority::FIRST_EPOCH)
            .collect()
    }

    /// How far the resealing of an own shard came; none while it is in its first epoch.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn reseal_progress(&self, origin: &Origin) -> Result<Option<ResealProgress>> {
        let epoch = self.authority().current_epoch(origin);
        if epoch == crate::authority::FIRST_EPOCH {
            return Ok(None);
        }
        let Some(cursor) = self.reseal_cursor(origin, epoch)? else {
            return Ok(Some(ResealProgress {
                total: 0,
                done: 0,
                failed: 0,
                eta: None,
                finished: false,
                failures: vec![],
            }));
        };
        let failures = self.reseal_failures(origin)?;
        let failed = failures.len() as u64;
        let left = cursor.total.saturating_sub(cursor.done + failed);
        let eta = (cursor.done > 0 && left > 0 && cursor.finished.is_none())
            .then(|| (cursor.spent.saturating_mul(left) / cursor.done).div_ceil(1000));
        Ok(Some(ResealProgress {
            total: cursor.total,
            done: cursor.done,
            failed,
            eta,
            finished: cursor.finished.is_some(),
            failures: failures.into_iter().take(NAMED_MAX).collect(),
        }))
    }

    /// The key epochs of every own shard that has any.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn epochs(&self) -> Result<Vec<ShardEpochs>> {
        let mut lines = Vec::new();
        for schema in self.catalogue().kinds() {
            let origin = self.shard(&schema.kind);
            let open: Vec<u32> = self.keys.epochs(&origin)?.into_keys().collect();
            if open.is_empty() {
                continue;
            }
            lines.push(ShardEpochs {
                current: self.authority().current_epoch(&origin),
                open,
                resealing: self.reseal_progress(&origin)?,
                origin,
            });
        }
        Ok(lines)
    }

    /// Whether bodies of a shard may still lie under an epoch before its present one.
    pub(crate) fn is_resealing(&self, origin: &Origin) -> Result<bool> {
        Ok(self.reseal_progress(origin)?.is_some_and(|p| !p.finished))
    }

    /// Whether what a grant is to be given of a shard, from an index up to a checkpoint's size, is
    /// there under the present epoch, none of it only after the checkpoint.
    pub(crate) fn is_whole_at(&self, origin: &Origin, from: u64, target: u64) -> Result<bool> {
        let epoch = self.authority().current_epoch(origin);
        if epoch == crate::authority::FIRST_EPOCH {
            return Ok(true);
        }
        let cursor = self.reseal_cursor(origin, epoch)?;
        Ok(cursor.is_some_and(|cursor| {
            from >= cursor.end || (cursor.finished.is_some() && target >= cursor.until)
        }))
    }

    fn reseal_cursor(&self, origin: &Origin, epoch: u32) -> Result<Option<Cursor>> {
        let bytes = self.store.get(&cursor_key(origin))?;
        let cursor = bytes
            .map(|bytes| table::decode::<Cursor>("reseal cursor", &bytes))
            .transpose()?;
        // One of an earlier rotation says nothing of this one.
        Ok(cursor.filter(|cursor| cursor.epoch == epoch))
    }

    fn reseal_failures(&self, origin: &Origin) -> Result<Vec<ResealFailure>> {
        let rows = self
            .store
            .scan(origin.as_str(), table::RESEAL, b"failed", usize::MAX)?;
        rows.iter()
            .map(|(_, bytes)| table::decode("reseal failure", bytes))
            .collect()
    }

    /// Record entries from an index on whose epoch is one of `epochs`, with the bodies that are
    /// here; and up to where it looked.
    fn bodies_under(
        &self,
        origin: &Origin,
        from: u64,
        end: u64,
        bodies_max: usize,
        epochs: &impl Fn(u32) -> bool,
    ) -> Result<(Vec<u64>, u64)> {
        let mut found = Vec::new();
        let mut at = from;
        while at < end && found.len() < bodies_max {
            let limit = usize::try_from(end - at).unwrap_or(SCAN).min(SCAN);
            let start = at.to_be_bytes();
            let rows = self
                .store
                .scan(origin.as_str(), table::ENTRY, &start, limit)?;
            if rows.is_empty() {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` lacks entry {at}"
                )));
            }
            let mut candidates = Vec::new();
            for (index, (_, bytes)) in (at..).zip(&rows) {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if matches!(&entry, Entry::Record(entry) if sealed_under(entry, epochs)) {
                    candidates.push(index);
                }
            }
            at += rows.len() as u64;
            let keys: Vec<_> = candidates.iter().map(|i| table::body(origin, *i)).collect();
            let bodies = self.store.get_many(&keys)?;
            for (index, _) in candidates.iter().zip(bodies).filter(|(_, b)| b.is_some()) {
                if found.len() == bodies_max {
                    at = *index;
                    break;
                }
                found.push(*index);
            }
        }
        Ok((found, at))
    }

    /// How many bodies of an own shard lie under one of `epochs`.
    pub(crate) fn count_under(
        &self,
        origin: &Origin,
        end: u64,
        epochs: &impl Fn(u32) -> bool,
    ) -> Result<u64> {
        let (mut at, mut count) = (0, 0);
        while at < end {
            let (found, next) = self.bodies_under(origin, at, end, SCAN, epochs)?;
            count += found.len() as u64;
            at = next;
        }
        Ok(count)
    }

    fn reseal_shard(&self, origin: &Origin, now: UnixMillis) -> Result<bool> {
        let start = Instant::now();
        let keys = self.own_keys(origin)?;
        let (epoch, _) = keys.current();
        let Some(mut cursor) = self.reseal_cursor(origin, epoch)? else {
            return self.begin_resealing(origin, epoch);
        };
        if cursor.finished.is_some() {
            return Ok(false);
        }
        let older = |of: u32| of < epoch;
        let free = self.resealable_up_to(origin, now)?;
        let (places, next) = if cursor.at < cursor.end {
            let stop = cursor.end.min(cursor.at + STEP_ENTRIES).min(free);
            if stop <= cursor.at {
                // A grant works up to a checkpoint and needs the bodies from here on.
                return Ok(false);
            }
            self.bodies_under(origin, cursor.at, stop, STEP_BODIES, &older)?
        } else {
            let failures = self.reseal_failures(origin)?;
            let due = |f: &&ResealFailure| f.tried.0 + RETRY_MILLIS <= now.0;
            let due: Vec<u64> = failures.iter().filter(due).map(|f| f.index).collect();
            if due.is_empty() && !failures.is_empty() {
                return Ok(false);
            }
            (due.into_iter().take(STEP_BODIES).collect(), cursor.at)
        };
        let (anew, failures) = self.seal_anew(origin, &keys, &places, now)?;

        let book = self.book(origin)?;
        let mut book = lock(&book);
        let holding = self.holding(origin)?;
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        match &holding.access {
            Access::Own(now_in_force) if Arc::ptr_eq(now_in_force, &keys) => {}
            // Another epoch began meanwhile: what was sealed is dropped.
            _ => return Ok(true),
        }
        let open = self.reseal_failures(origin)?.len() as u64;
        let present = self.store.get_many(
            &anew
                .iter()
                .map(|a| table::body(origin, a.at))
                .collect::<Vec<_>>(),
        )?;
        // A body that was destroyed meanwhile stays destroyed.
        let anew: Vec<Anew> = anew
            .into_iter()
            .zip(present)
            .filter_map(|(anew, body)| body.map(|_| anew))
            .collect();
        let mut records: BTreeMap<RecordId, Newest> = BTreeMap::new();
        let mut leaves = Vec::with_capacity(anew.len());
        let first = book.size();
        for (index, anew) in (first..).zip(&anew) {
            let record = anew.version.record;
            let newest = match records.get(&record) {
                Some(newest) => newest.clone(),
                None => self.newest(origin, &record)?.ok_or_else(|| {
                    RegistryError::damaged(format!("`{origin}`: record {record} is not known"))
                })?,
            };
            let entry = Entry::Record(RecordEntry {
                operation: Operation::Reseal,
                previous: Some(newest.leaf),
                epoch,
                body: anew.sealed.hash,
                recorded_at: now,
                ..anew.version.entry.clone()
            });
            let is_newest = anew.version.entry.version == newest.version;
            let newest = Newest {
                leaf: leaf_hash(&entry.encode()),
                at: if is_newest { index } else { newest.at },
                ..newest
            };
            records.insert(record, newest);
            leaves.push(Leaf {
                entry,
                body: Some(anew.sealed.bytes.clone()),
            });
        }
        let retried = cursor.at >= cursor.end;
        cursor.at = next;
        if !leaves.is_empty() {
            cursor.until = first + leaves.len() as u64 + 1;
        }
        cursor.done += anew.len() as u64;
        cursor.spent += u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let failed_before = if retried { places.len() as u64 } else { 0 };
        let open = open + failures.len() as u64 - failed_before.min(open);
        if cursor.at >= cursor.end && open == 0 {
            cursor.finished = Some(now);
        }
        let extend = |batch: &mut store::Batch| {
            batch.put(cursor_key(origin), cbor::to_vec(&cursor));
            for (record, newest) in &records {
                let key = table::key(origin, table::RECORD, &record.0);
                batch.put(key, cbor::to_vec(newest));
            }
            for failure in &failures {
                batch.put(failure_key(origin, failure.index), cbor::to_vec(failure));
            }
            if retried {
                let again = |at: &&u64| failures.iter().all(|f| f.index != **at);
                for at in places.iter().filter(again) {
                    batch.delete(failure_key(origin, *at));
                }
            }
        };
        if leaves.is_empty() {
            book.extend(self.store.as_ref(), extend)?;
        } else {
            let signer = self.service(purpose("security"));
            let appended = self.append(&mut book, &signer, leaves, now, |b, _, _| extend(b))?;
            for (index, anew) in (appended.first..).zip(&anew) {
                let record = anew.version.record;
                let version = anew.version.entry.version;
                let known = holding.index.get(record);
                if known.is_some_and(|known| known.version == version) {
                    let texts = anew.version.texts();
                    holding.index.upsert(record, version, index, &texts);
                }
            }
            holding.index.set_applied(appended.size);
        }
        drop(holding);
        drop(book);
        self.changed();
        Ok(cursor.finished.is_none() && !retried)
    }

    /// Counts what is to be done, and writes down that it begins.
    fn begin_resealing(&self, origin: &Origin, epoch: u32) -> Result<bool> {
        let end = Head::read(self.store.as_ref(), origin)?.size;
        let total = self.count_under(origin, end, &|of| of < epoch)?;
        let cursor = Cursor {
            epoch,
            end,
            total,
            at: 0,
            done: 0,
            spent: 0,
            finished: None,
            until: 0,
        };
        let failures = self.reseal_failures(origin)?;
        let book = self.book(origin)?;
        lock(&book).extend(self.store.as_ref(), |batch| {
            batch.put(cursor_key(origin), cbor::to_vec(&cursor));
            for failure in &failures {
                batch.delete(failure_key(origin, failure.index));
            }
        })?;
        Ok(true)
    }

    pub(crate) fn own_keys(&self, origin: &Origin) -> Result<Arc<ShardKeys>> {
        let holding = self.holding(origin)?;
        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        match &holding.access {
            Access::Own(keys) => Ok(Arc::clone(keys)),
            Access::Grant { .. } => Err(RegistryError::damaged("an own shard is held by grant")),
        }
    }

    /// Opens versions and seals them under the present epoch. No lock is held meanwhile.
    fn seal_anew(
        &self,
        origin: &Origin,
        keys: &ShardKeys,
        places: &[u64],
        now: UnixMillis,
    ) -> Result<(Vec<Anew>, Vec<ResealFailure>)> {
        let (mut anew, mut failures) = (Vec::with_capacity(places.len()), Vec::new());
        for at in places {
            let Some((_, entry)) = self.record_entry(origin, *at)? else {
                continue;
            };
            match self.one_anew(origin, keys, *at) {
                Ok(done) => anew.push(done),
                // Destroyed since it was looked for.
                Err(_) if self.store.get(&table::body(origin, *at))?.is_none() => {}
                Err(error) => {
                    tracing::warn!(%origin, at, %error, "a body could not be resealed");
                    failures.push(ResealFailure {
                        index: *at,
                        record: entry.record,
                        version: entry.version,
                        reason: error.to_string(),
                        tried: now,
                    });
                }
            }
        }
        Ok((anew, failures))
    }

    fn one_anew(&self, origin: &Origin, keys: &ShardKeys, at: u64) -> Result<Anew> {
        let version = self.open_own(origin, keys, at)?;
        let sealed = self.sealed_anew(origin, keys, at, &version)?;
        Ok(Anew {
            at,
            version,
            sealed,
        })
    }

    /// Seals what an opened version says under the present epoch; its content stays what the ledger
    /// says, or it is an error.
    pub(crate) fn sealed_anew(
        &self,
        origin: &Origin,
        keys: &ShardKeys,
        at: u64,
        version: &Version,
    ) -> Result<SealedBody> {
        let damaged =
            |e: &dyn std::fmt::Display| RegistryError::damaged(format!("`{origin}` {at}: {e}"));
        let newest = self
            .newest(origin, &version.record)?
            .ok_or_else(|| damaged(&"the record has no secret"))?;
        let secret = self.secret(origin, &version.record, &newest)?;
        let schema = self.schema_version(&origin.ledger(), version.entry.schema)?;
        let (epoch, fresh) = keys.current();
        let context = CellContext {
            epoch,
            ..CellContext::of(origin, &version.entry)
        };
        let sealed = seal::body::reseal_body(
            &version.values,
            schema,
            &context,
            fresh,
            &secret,
            &mut rng()?,
        )
        .map_err(|e| damaged(&e))?;
        if sealed.content != version.entry.content {
            return Err(damaged(&"sealed anew it would have another content"));
        }
        Ok(sealed)
    }

    /// Where a version of an own record is sealed at present: at its entry, or at that of the
    /// last `reseal` of it; with entry and body.
    pub(crate) fn sealed_at(
        &self,
        origin: &Origin,
        at: u64,
    ) -> Result<(u64, RecordEntry, Vec<u8>)> {
        let no_record = || RegistryError::damaged(format!("`{origin}` {at} is not a record"));
        let (_, entry) = self.record_entry(origin, at)?.ok_or_else(no_record)?;
        if let Some(body) = self.store.get(&table::body(origin, at))? {
            return Ok((at, entry, body));
        }
        let store = self.store.as_ref();
        for later in crate::chain::entries_of(store, origin, &entry.record, at + 1)? {
            let Some((_, other)) = self.record_entry(origin, later)? else {
                continue;
            };
            let anew = other.operation.is_anew() && other.version == entry.version;
            if anew && let Some(body) = self.store.get(&table::body(origin, later))? {
                return Ok((later, other, body));
            }
        }
        Err(RegistryError::damaged(format!(
            "`{origin}` lacks the body of entry {at}"
        )))
    }
}
