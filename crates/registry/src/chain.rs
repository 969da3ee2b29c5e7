//! The chain of a record (记录链): all its entries in a ledger held here, and what became of their bodies.
//!
//! Owns the table that finds every entry of a record in a shard's or a grant's ledger, own or
//! replica, without reading the ledger; it is written in the commit that keeps the entries, and
//! made again from them where it is missing. Of a replica that comes in bulk its rows may be left
//! for later: the row without a record says up to where they are there, and whoever asks for a
//! record's entries has them written first. Owns also the answer to which bodies an entry orders
//! to be destroyed. Refuses to destroy anything: whoever keeps the entry does, in one commit.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use record::entry::{Entry, GrantOperation, Operation};
use record::id::{Origin, RecordId, UnixMillis};
use store::{Batch, Key, Store};

use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock};
use crate::table::{self, Head, Newest};

/// Entries read at a time by whoever goes through a ledger.
const WALK: usize = 1024;
/// Rows read at a time.
const SCAN: usize = 32;
/// Entries read at a time when the table is made again.
const REBUILD: usize = 4096;

/// Whether the ledger is one whose entries are about records.
pub(crate) fn has_chains(origin: &Origin) -> bool {
    origin.is_shard()
        || origin.grant_id().is_some()
        || origin.addressee().is_some()
        || origin.ledger().as_str() == "recovery"
}

fn key(origin: &Origin, record: &RecordId, at: u64) -> Key {
    let mut rest = record.0.to_vec();
    rest.extend(at.to_be_bytes());
    table::key(origin, table::CHAIN, &rest)
}

/// Puts entries that begin at `first` on their records' chains.
pub(crate) fn extend<'a>(
    batch: &mut Batch,
    origin: &Origin,
    first: u64,
    entries: impl Iterator<Item = &'a Entry>,
) {
    if !has_chains(origin) {
        return;
    }
    if first == 0 {
        batch.put(table::key(origin, table::CHAIN, b""), Vec::new());
    }
    for (at, entry) in (first..).zip(entries) {
        if let Some(record) = entry.record() {
            batch.put(key(origin, &record, at), Vec::new());
        }
    }
}

/// Of a chunk with more entries than this, a replica's rows are written later, when there is time or
/// somebody asks: beside the entries themselves they are what takes longest to keep.
const AT_ONCE: usize = 64;

/// Up to which entry the rows are there, when they are not all there.
fn reached(store: &dyn Store, origin: &Origin) -> Result<Option<u64>> {
    match store.get(&table::key(origin, table::CHAIN, b""))? {
        Some(bytes) if !bytes.is_empty() => match bytes.as_slice().try_into() {
            Ok(at) => Ok(Some(u64::from_be_bytes(at))),
            Err(_) => Err(RegistryError::damaged(format!(
                "`{origin}`: the row of `chain` without a record is malformed"
            ))),
        },
        _ => Ok(None),
    }
}

/// Puts entries of a replica that begin at `first` on their records' chains, or leaves that for
/// later; says whether it does. `now` has it done in any case.
pub(crate) fn extend_replica(
    batch: &mut Batch,
    store: &dyn Store,
    origin: &Origin,
    first: u64,
    entries: &[&Entry],
    now: bool,
) -> Result<bool> {
    if !has_chains(origin) {
        return Ok(false);
    }
    let reached = reached(store, origin)?;
    let end = first + entries.len() as u64;
    let marker = table::key(origin, table::CHAIN, b"");
    if reached.unwrap_or(first) == first && (now || entries.len() <= AT_ONCE) {
        extend(batch, origin, first, entries.iter().copied());
        if reached.is_some() && first > 0 {
            batch.put(marker, end.to_be_bytes().to_vec());
        }
        return Ok(false);
    }
    if reached.is_none() {
        batch.put(marker, first.to_be_bytes().to_vec());
    }
    Ok(true)
}

/// Goes through the entries of a ledger in order, every one of them; see `walk` for what is left of a
/// damaged one.
///
/// # Errors
/// [`RegistryError::Damaged`] when one is lacking or cannot be read; what `visit` says.
pub(crate) fn each_entry(
    store: &dyn Store,
    origin: &Origin,
    mut visit: impl FnMut(u64, &[u8], Entry) -> Result<()>,
) -> Result<()> {
    let mut at = 0u64;
    loop {
        let from = at.to_be_bytes();
        let rows = store.scan(origin.as_str(), table::ENTRY, &from, WALK)?;
        for (rest, bytes) in &rows {
            if rest.as_slice() != at.to_be_bytes() {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` lacks entry {at}"
                )));
            }
            visit(at, bytes, decode(origin, at, bytes)?)?;
            at += 1;
        }
        if rows.len() < WALK {
            return Ok(());
        }
    }
}

/// Whether rows of a ledger are still to be written.
pub(crate) fn is_behind(store: &dyn Store, origin: &Origin) -> Result<bool> {
    if !has_chains(origin) {
        return Ok(false);
    }
    match reached(store, origin)? {
        Some(at) => Ok(at < Head::read(store, origin)?.size),
        None => Ok(false),
    }
}

/// Writes rows that were left for later, of at most so many entries; says whether some are left.
/// The row without a record moves on with them, so that two at once, or a crash, lose nothing.
pub(crate) fn catch_up(store: &dyn Store, origin: &Origin, entries_max: u64) -> Result<bool> {
    let Some(from) = reached(store, origin)? else {
        return Ok(false);
    };
    let size = Head::read(store, origin)?.size;
    let end = size.min(from.saturating_add(entries_max));
    let mut at = from;
    while at < end {
        let limit = (end - at).min(REBUILD as u64);
        let rows = store.scan(
            origin.as_str(),
            table::ENTRY,
            &at.to_be_bytes(),
            limit as usize,
        )?;
        if rows.is_empty() {
            return Err(RegistryError::damaged(format!(
                "`{origin}` lacks entry {at}"
            )));
        }
        let mut keys = BTreeSet::new();
        for (_, bytes) in &rows {
            if let Some(record) = decode(origin, at, bytes)?.record() {
                keys.insert((record.0, at));
            }
            at += 1;
        }
        let mut batch = Batch::new(origin.as_str(), None);
        for (record, at) in keys {
            batch.put(key(origin, &RecordId(record), at), Vec::new());
        }
        let marker = table::key(origin, table::CHAIN, b"");
        batch.put(marker, at.to_be_bytes().to_vec());
        crate::book::commit(store, origin, &batch)?;
    }
    Ok(end < size)
}

/// The indices of a record's entries from `from` on, in order.
pub(crate) fn entries_of(
    store: &dyn Store,
    origin: &Origin,
    record: &RecordId,
    from: u64,
) -> Result<Vec<u64>> {
    catch_up(store, origin, u64::MAX)?;
    let mut found = Vec::new();
    let mut next = from;
    loop {
        let mut start = record.0.to_vec();
        start.extend(next.to_be_bytes());
        let rows = store.scan(origin.as_str(), table::CHAIN, &start, SCAN)?;
        let full = rows.len() == SCAN;
        for (rest, _) in rows {
            let at = rest
                .strip_prefix(&record.0)
                .and_then(|at| at.try_into().ok());
            let Some(at) = at.map(u64::from_be_bytes) else {
                return Ok(found);
            };
            found.push(at);
            next = at + 1;
        }
        if !full {
            return Ok(found);
        }
    }
}

/// The first entry after `at` and below `size` which says that the body of `entry`, at `at`, was
/// to be destroyed: its index and its bytes.
pub(crate) fn destroyer(
    store: &dyn Store,
    origin: &Origin,
    at: u64,
    entry: &Entry,
    size: u64,
) -> Result<Option<(u64, Vec<u8>)>> {
    let Some(record) = entry.record() else {
        return Ok(None);
    };
    for later in entries_of(store, origin, &record, at + 1)? {
        if later >= size {
            break;
        }
        let Some(bytes) = store.get(&table::entry(origin, later))? else {
            continue;
        };
        if decode(origin, later, &bytes)?.destroys_body_of(entry) {
            return Ok(Some((later, bytes)));
        }
    }
    Ok(None)
}

pub(crate) fn decode(origin: &Origin, at: u64, bytes: &[u8]) -> Result<Entry> {
    Entry::decode(bytes).map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))
}

/// What an entry ordered to be destroyed, kept beside the ledger until that is done and told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Order {
    /// The record.
    #[n(0)]
    pub record: RecordId,
    /// How many bodies the commit that kept the entry destroyed.
    #[n(1)]
    pub bodies: u64,
    /// When the ledger's owner recorded the entry.
    #[n(2)]
    pub recorded_at: UnixMillis,
    /// Whether everything is destroyed here and the receipt is signed; then the row waits for the
    /// receipts of others.
    #[n(3)]
    pub done: bool,
    /// Of an own record: the page of its secret, 0 when there is none; it is to be written again without it.
    #[n(4)]
    pub page: u32,
    /// Only cells of some fields were destroyed; the record, its secret and its rows stay.
    #[n(5)]
    pub redacts: Option<bool>,
}

impl Order {
    /// Whether the record itself stays.
    pub(crate) fn redacts(&self) -> bool {
        self.redacts == Some(true)
    }

    pub(crate) fn key(origin: &Origin, at: u64) -> Key {
        table::key(origin, table::DESTROY, &at.to_be_bytes())
    }

    /// All rows of a ledger, by the index of the entry that ordered.
    pub(crate) fn all(store: &dyn Store, origin: &Origin) -> Result<Vec<(u64, Self)>> {
        let rows = store.scan(origin.as_str(), table::DESTROY, b"", usize::MAX)?;
        rows.iter()
            .map(|(rest, bytes)| {
                let at = rest.as_slice().try_into().map(u64::from_be_bytes);
                let at =
                    at.map_err(|_| RegistryError::damaged("a row of `destroy` has no index"))?;
                Ok((at, table::decode("order", bytes)?))
            })
            .collect()
    }
}

/// What entries that are about to be kept order to be destroyed.
#[derive(Debug, Default)]
pub(crate) struct Destroyed {
    /// Indices of bodies in the store.
    pub stored: BTreeSet<u64>,
    /// Indices of bodies that came with the entries and are not to be kept.
    pub arriving: BTreeSet<u64>,
    /// Erasures and retractions, by the index of their entry.
    pub orders: BTreeMap<u64, Order>,
}

/// Finds the bodies that entries beginning at `first` order to be destroyed.
pub(crate) fn destroyed(
    store: &dyn Store,
    origin: &Origin,
    first: u64,
    entries: &[&Entry],
) -> Result<Destroyed> {
    let mut destroyed = Destroyed::default();
    if !has_chains(origin) || !entries.iter().any(|entry| entry.orders_destruction()) {
        return Ok(destroyed);
    }
    let mut arriving: BTreeMap<RecordId, Vec<(u64, &Entry)>> = BTreeMap::new();
    for (at, entry) in (first..).zip(entries.iter().copied()) {
        let Some(record) = entry.record() else {
            continue;
        };
        if entry.orders_destruction() {
            let mut bodies = 0;
            for earlier in entries_of(store, origin, &record, 0)? {
                if earlier >= first || destroyed.stored.contains(&earlier) {
                    continue;
                }
                let Some(bytes) = store.get(&table::entry(origin, earlier))? else {
                    continue;
                };
                if entry.destroys_body_of(&decode(origin, earlier, &bytes)?)
                    && store.get(&table::body(origin, earlier))?.is_some()
                {
                    destroyed.stored.insert(earlier);
                    bodies += 1;
                }
            }
            for (earlier, before) in arriving.get(&record).into_iter().flatten() {
                if entry.destroys_body_of(before) && destroyed.arriving.insert(*earlier) {
                    bodies += 1;
                }
            }
            if let Some(recorded_at) = told_of(entry) {
                let pointer = store.get(&table::key(origin, table::RECORD, &record.0))?;
                let newest: Option<Newest> = pointer
                    .map(|bytes| table::decode("newest version", &bytes))
                    .transpose()?;
                let order = Order {
                    record,
                    bodies,
                    recorded_at,
                    done: false,
                    page: newest
                        .filter(|_| !redacts(entry))
                        .map_or(0, |newest| newest.page),
                    redacts: redacts(entry).then_some(true),
                };
                destroyed.orders.insert(at, order);
            }
        }
        arriving.entry(record).or_default().push((at, entry));
    }
    Ok(destroyed)
}

/// When an entry was recorded whose destruction is told by a receipt: a reseal's is not, it
/// destroys nothing that its own body does not say.
fn told_of(entry: &Entry) -> Option<UnixMillis> {
    match entry {
        Entry::Record(e) if e.operation == Operation::Erase || redacts(entry) => {
            Some(e.recorded_at)
        }
        Entry::Grant(e) if e.operation == GrantOperation::Retract => Some(e.recorded_at),
        _ => None,
    }
}

fn redacts(entry: &Entry) -> bool {
    matches!(entry, Entry::Record(e) if e.operation == Operation::Redact)
}

impl Destroyed {
    /// Adds to a batch what is destroyed with it, and what is to follow.
    pub(crate) fn write(&self, batch: &mut Batch, origin: &Origin) {
        for at in &self.stored {
            batch.delete(table::body(origin, *at));
        }
        for (at, order) in &self.orders {
            batch.put(Order::key(origin, *at), record::cbor::to_vec(order));
        }
    }
}

/// The indices whose bodies a later entry of a ledger ordered to be destroyed, from the entries
/// alone: for whoever has no index, or does not trust it.
pub(crate) fn ordered(store: &dyn Store, origin: &Origin) -> Result<BTreeSet<u64>> {
    let mut ordered = BTreeSet::new();
    if !has_chains(origin) {
        return Ok(ordered);
    }
    // Two readings, so that memory is taken for records with such an entry only.
    let mut earlier: BTreeMap<RecordId, Vec<(u64, Entry)>> = BTreeMap::new();
    walk(store, origin, |_, entry| {
        if let Some(record) = entry.record().filter(|_| entry.orders_destruction()) {
            earlier.entry(record).or_default();
        }
    })?;
    if earlier.is_empty() {
        return Ok(ordered);
    }
    walk(store, origin, |at, entry| {
        let Some(before) = entry.record().and_then(|record| earlier.get_mut(&record)) else {
            return;
        };
        let gone = before.iter().filter(|(_, b)| entry.destroys_body_of(b));
        ordered.extend(gone.map(|(at, _)| *at));
        before.push((at, entry));
    })?;
    Ok(ordered)
}

/// Goes through a ledger's entries as far as they can be read.
fn walk(store: &dyn Store, origin: &Origin, mut each: impl FnMut(u64, Entry)) -> Result<()> {
    let mut at = 0u64;
    loop {
        let rows = store.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), REBUILD)?;
        for (rest, bytes) in &rows {
            if rest.as_slice() != at.to_be_bytes() {
                return Ok(());
            }
            if let Ok(entry) = Entry::decode(bytes) {
                each(at, entry);
            }
            at += 1;
        }
        if rows.len() < REBUILD {
            return Ok(());
        }
    }
}

/// Entries whose rows are written in one step in the background.
const STEP: u64 = 4096;

impl Registry {
    /// Writes some of the rows that were left for later, of a replica that came whole; says
    /// whether there is more to do.
    ///
    /// # Errors
    /// A failure of the store; the next step tries it again.
    pub fn chain_step(&self) -> Result<bool> {
        let behind: Vec<Origin> = lock(&self.behind_chains).iter().cloned().collect();
        let store = self.store.as_ref();
        for origin in behind {
            if Head::read(store, &origin)?.target.is_some() {
                // More is on its way, which matters more.
                continue;
            }
            if catch_up(store, &origin, STEP)? {
                return Ok(true);
            }
            // Taken away first: whoever leaves more behind meanwhile puts it in again.
            lock(&self.behind_chains).remove(&origin);
            if is_behind(store, &origin)? {
                lock(&self.behind_chains).insert(origin);
            }
        }
        Ok(false)
    }
}

/// Makes the table of a ledger that has none: of a directory from before it, or after a repair.
pub(crate) fn complete(store: &dyn Store, origin: &Origin) -> Result<()> {
    let marker = table::key(origin, table::CHAIN, b"");
    if !has_chains(origin) || store.get(&marker)?.is_some() {
        return Ok(());
    }
    if Head::read(store, origin)?.size == 0 {
        return Ok(());
    }
    tracing::info!(%origin, "the table of records' entries is made again");
    let mut rows = Vec::new();
    walk(store, origin, |at, entry| {
        rows.extend(entry.record().map(|record| key(origin, &record, at)));
    })?;
    for part in rows.chunks(REBUILD) {
        let mut batch = Batch::new(origin.as_str(), None);
        for key in part {
            batch.put(key.clone(), Vec::new());
        }
        crate::book::commit(store, origin, &batch)?;
    }
    // Last: a crash before it makes the table again.
    let mut batch = Batch::new(origin.as_str(), None);
    batch.put(marker, Vec::new());
    crate::book::commit(store, origin, &batch)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use record::entry::{Operation, RecordEntry, SUITE};
    use store::memory::Memory;

    use super::*;

    fn record(at: u64) -> RecordId {
        // Each record has an entry in every hundred.
        RecordId([u8::try_from(at % 100).unwrap(); 16])
    }

    /// Keeps entries up to `end` as a replica's; whether rows were left for later.
    fn keep(store: &Memory, origin: &Origin, end: u64) -> bool {
        let first = Head::read(store, origin).unwrap().size;
        let entries: Vec<Entry> = (first..end)
            .map(|at| {
                Entry::Record(RecordEntry {
                    suite: SUITE,
                    record: record(at),
                    version: 2,
                    operation: Operation::Amend,
                    previous: Some([1; 32]),
                    schema: 1,
                    epoch: 1,
                    content: [2; 32],
                    body: [3; 32],
                    recorded_at: UnixMillis(at),
                })
            })
            .collect();
        let mut batch = Batch::new(origin.as_str(), None);
        let all: Vec<&Entry> = entries.iter().collect();
        let behind = extend_replica(&mut batch, store, origin, first, &all, false).unwrap();
        for (at, entry) in (first..).zip(&entries) {
            batch.put(table::entry(origin, at), entry.encode());
        }
        let head = Head {
            size: end,
            ..Head::empty()
        };
        batch.put(table::head(origin), record::cbor::to_vec(&head));
        store.commit(&batch).unwrap();
        behind
    }

    #[test]
    fn rows_left_for_later_are_there_for_whoever_asks_and_after_a_step_that_was_the_last() {
        let store = Memory::new();
        let origin = Origin::parse("a.example/town/person").unwrap();
        assert!(!keep(&store, &origin, 10), "few are written at once");
        assert!(keep(&store, &origin, 300));
        assert!(keep(&store, &origin, 310), "few behind many wait for them");
        assert!(is_behind(&store, &origin).unwrap());
        assert!(catch_up(&store, &origin, 100).unwrap());
        assert!(catch_up(&store, &origin, 100).unwrap());
        // As after a crash here: what is there says how far it goes.
        let found = entries_of(&store, &origin, &record(7), 0).unwrap();
        assert_eq!(found, [7, 107, 207, 307]);
        assert!(!is_behind(&store, &origin).unwrap());
        assert!(!keep(&store, &origin, 320), "nothing is behind any more");
        let found = entries_of(&store, &origin, &record(15), 100).unwrap();
        assert_eq!(found, [115, 215, 315]);
    }
}
