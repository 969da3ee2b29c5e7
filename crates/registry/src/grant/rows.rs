//! What rows of a shard come to in a grant's ledger: which of them the holder gets, in which versions,
//! and what is retracted.
//!
//! Owns the entries of one stretch while they are planned; who commits them is
//! [`super`]. Refuses to give a version whose body lies under keys that the holder has not.

use std::collections::{BTreeMap, BTreeSet};

use record::authority::{GrantStatement, History};
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, RecordEntry, SUITE};
use record::id::{Hash, Origin, RecordId, UnixMillis};
use seal::body::Body;
use sha2::{Digest, Sha256};
use store::Batch;

use super::{Kept, Rework, matches};
use crate::book::Leaf;
use crate::chain;
use crate::error::{RegistryError, Result};
use crate::node::Registry;
use crate::table;

/// How many entries one act of a grant's ledger has, about: a row's versions are not torn apart.
pub(super) const LEAVES: usize = 1024;
/// The most versions of a record that a holder gets at once, the newest.
const VERSIONS_MAX: usize = 256;

/// What is kept of a row in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Index of the newest version given.
    at: u64,
    /// The version with which it came into scope.
    since: u64,
}

impl Row {
    fn bytes(self) -> Vec<u8> {
        [self.at.to_be_bytes(), self.since.to_be_bytes()].concat()
    }

    /// Of a row that was made again from the ledger only its place is known: then the newest
    /// version is the first.
    fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = || RegistryError::damaged("a row in scope is no row");
        let (at, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let since = match rest {
            [] => u64::MAX,
            rest => u64::from_be_bytes(rest.try_into().map_err(|_| damaged())?),
        };
        Ok(Self {
            at: u64::from_be_bytes(*at),
            since,
        })
    }
}

/// A version of a record, where its body lies.
pub(super) struct Held {
    at: u64,
    bytes: Vec<u8>,
    entry: RecordEntry,
}

/// What a record comes to at a checkpoint of its shard.
struct State {
    /// The versions whose bodies are here, the oldest first.
    versions: Vec<Held>,
    /// The newest version that the ledger speaks of below the checkpoint; none when it was erased.
    newest: Option<u64>,
    /// Index of the last entry that sealed a version anew.
    anew: Option<u64>,
}

/// The entries of one act of a grant's ledger, while they are planned.
pub(super) struct Stretch<'a> {
    pub registry: &'a Registry,
    pub grant: &'a GrantStatement,
    pub kept: &'a Kept,
    pub ledger: &'a Origin,
    /// Size and root of the shard's checkpoint that everything is proven under.
    pub target: u64,
    pub root: Hash,
    pub now: UnixMillis,
    pub leaves: Vec<Leaf>,
    scope: BTreeMap<RecordId, Option<Row>>,
}

impl<'a> Stretch<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        (grant, kept, ledger): (&'a GrantStatement, &'a Kept, &'a Origin),
        (target, root): (u64, Hash),
        now: UnixMillis,
    ) -> Self {
        Self {
            registry,
            grant,
            kept,
            ledger,
            target,
            root,
            now,
            leaves: Vec::new(),
            scope: BTreeMap::new(),
        }
    }

    /// Whether an act has enough entries.
    pub(super) fn is_full(&self) -> bool {
        self.leaves.len() >= LEAVES
    }

    /// An entry of the shard, and what it changes for the holder.
    pub(super) fn entry(&mut self, at: u64, bytes: Vec<u8>, entry: RecordEntry) -> Result<()> {
        let shard = &self.grant.origin;
        if self
            .registry
            .is_gone(shard, at, &Entry::Record(entry.clone()))?
        {
            // Erased, or sealed anew: the later entry says what becomes of the row.
            return Ok(());
        }
        let record = entry.record;
        let was = self.row(&record)?;
        match entry.operation {
            Operation::Erase | Operation::TransferOut => {
                if was.is_some() {
                    self.retract(record);
                }
                return Ok(());
            }
            Operation::Reseal | Operation::Redact => return self.anew(at, entry, was),
            _ => {}
        }
        let version = self.registry.open_shard(shard, at)?;
        match (matches(&version, &self.kept.rows), was) {
            (false, None) => Ok(()),
            (false, Some(_)) => {
                self.retract(record);
                Ok(())
            }
            (true, None) => {
                let since = entry.version;
                let held = Held { at, bytes, entry };
                let before = self.history_before(&held)?;
                self.whole(GrantOperation::Enter, &before, Some(&held), since)
            }
            (true, Some(row)) => {
                let operation = match self.grant.history() {
                    History::None => GrantOperation::Reseal,
                    History::Since | History::All => GrantOperation::Update,
                };
                self.give(operation, &Held { at, bytes, entry }, row.since)
            }
        }
    }

    /// Of an entry of the shard only what it takes away from the holder: of a grant that policies
    /// refuse.
    pub(super) fn only_take(&mut self, at: u64, entry: RecordEntry) -> Result<()> {
        let shard = &self.grant.origin;
        let record = entry.record;
        if self.row(&record)?.is_none() {
            return Ok(());
        }
        let leaves = match entry.operation {
            Operation::Erase | Operation::TransferOut | Operation::Redact => true,
            Operation::Reseal => false,
            _ => {
                !self.registry.is_gone(shard, at, &Entry::Record(entry))?
                    && !matches(&self.registry.open_shard(shard, at)?, &self.kept.rows)
            }
        };
        if leaves {
            self.retract(record);
        }
        Ok(())
    }

    /// A version sealed anew. What the holder has of the record is given anew with the last of them,
    /// when all of it lies under the keys that the holder has.
    fn anew(&mut self, at: u64, entry: RecordEntry, was: Option<Row>) -> Result<()> {
        let state = self.state(&entry.record)?;
        if state.anew != Some(at) {
            return Ok(());
        }
        let Some(newest) = state.versions.last() else {
            return Ok(());
        };
        if state.newest != Some(newest.entry.version) {
            // Its body went after the checkpoint: what comes then says more.
            return Ok(());
        }
        let version = self.registry.open_shard(&self.grant.origin, newest.at)?;
        if !matches(&version, &self.kept.rows) {
            if was.is_some() {
                self.retract(entry.record);
            }
            return Ok(());
        }
        let since = was.map_or(newest.entry.version, |row| {
            row.since.min(newest.entry.version)
        });
        let chosen = self.chosen(state.versions, since);
        // What was sealed before it under these keys came already.
        let touched = chosen.iter().any(|held| held.entry.operation.is_anew());
        if !touched || !self.is_keyed(&chosen) {
            return Ok(());
        }
        let redacted = entry.operation == Operation::Redact;
        let first = match was {
            // What the holder has of it goes, and is receipted.
            Some(_) if redacted => {
                if !self.concerns(&chosen)? {
                    return Ok(());
                }
                self.retract(entry.record);
                GrantOperation::Enter
            }
            Some(_) => GrantOperation::Reseal,
            None => GrantOperation::Enter,
        };
        self.whole(first, &chosen, None, since)
    }

    /// Whether a granted field of one of the versions was destroyed.
    fn concerns(&self, versions: &[Held]) -> Result<bool> {
        for held in versions {
            let body = self.registry.body(&self.grant.origin, held.at)?;
            let body = Body::decode(&body).map_err(|e| RegistryError::damaged(e.to_string()))?;
            let mut destroyed = body.destroyed();
            if destroyed.any(|(at, _)| self.grant.fields.contains(&at)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A record of the shard under terms that are new.
    pub(super) fn rework(&mut self, record: RecordId, rework: &Rework) -> Result<()> {
        let was = self.row(&record)?;
        let state = self.state(&record)?;
        let Some(version) = state.newest else {
            if was.is_some() {
                self.retract(record);
            }
            return Ok(());
        };
        let Some(newest) = state.versions.last() else {
            return Ok(());
        };
        if newest.entry.version != version {
            // Its body went after the checkpoint: what comes then says more.
            return Ok(());
        }
        let opened = self.registry.open_shard(&self.grant.origin, newest.at)?;
        if !matches(&opened, &self.kept.rows) {
            if was.is_some() {
                self.retract(record);
            }
            return Ok(());
        }
        let given_now = was.is_some_and(|row| row.at == newest.at);
        if given_now && !rework.anew {
            return Ok(());
        }
        let since = was.map_or(version, |row| row.since.min(version));
        let chosen = self.chosen(state.versions, since);
        let first = match was {
            Some(_) if rework.drops => {
                self.retract(record);
                GrantOperation::Enter
            }
            Some(_) => GrantOperation::Reseal,
            None => GrantOperation::Enter,
        };
        self.whole(first, &chosen, None, since)
    }

    /// Gives versions of a record in a row; the first of them says what they are.
    fn whole(
        &mut self,
        first: GrantOperation,
        versions: &[Held],
        last: Option<&Held>,
        since: u64,
    ) -> Result<()> {
        let mut operation = first;
        for held in versions.iter().chain(last) {
            self.give(operation, held, since)?;
            operation = GrantOperation::Update;
        }
        Ok(())
    }

    /// The versions before one that came into scope, as far as the grant gives them.
    fn history_before(&self, entered: &Held) -> Result<Vec<Held>> {
        if self.grant.history() != History::All {
            return Ok(Vec::new());
        }
        let state = self.state(&entered.entry.record)?;
        let before = |held: &Held| held.entry.version < entered.entry.version;
        let mut versions: Vec<Held> = state.versions.into_iter().filter(before).collect();
        versions.retain(|held| held.entry.epoch == self.grant.epoch);
        let surplus = (versions.len() + 1).saturating_sub(VERSIONS_MAX);
        Ok(versions.split_off(surplus))
    }

    /// Of a record's versions those that the holder is to have.
    fn chosen(&self, mut versions: Vec<Held>, since: u64) -> Vec<Held> {
        match self.grant.history() {
            History::None => versions.split_off(versions.len().saturating_sub(1)),
            History::Since => {
                versions.retain(|held| held.entry.version >= since);
                versions.split_off(versions.len().saturating_sub(VERSIONS_MAX))
            }
            History::All => versions.split_off(versions.len().saturating_sub(VERSIONS_MAX)),
        }
    }

    fn is_keyed(&self, versions: &[Held]) -> bool {
        versions
            .iter()
            .all(|held| held.entry.epoch == self.grant.epoch)
    }

    fn state(&self, record: &RecordId) -> Result<State> {
        let (store, shard) = (self.registry.store.as_ref(), &self.grant.origin);
        let mut versions: BTreeMap<u64, Held> = BTreeMap::new();
        let (mut newest, mut anew) = (None, None);
        for at in chain::entries_of(store, shard, record, 0)? {
            if at >= self.target {
                break;
            }
            let Some((bytes, entry)) = self.registry.record_entry(shard, at)? else {
                continue;
            };
            match entry.operation {
                Operation::Erase | Operation::TransferOut => {
                    versions.clear();
                    newest = None;
                    continue;
                }
                Operation::Reseal | Operation::Redact => anew = Some(at),
                _ => newest = Some(entry.version),
            }
            if store.get(&table::body(shard, at))?.is_some() {
                versions.insert(entry.version, Held { at, bytes, entry });
            }
        }
        Ok(State {
            versions: versions.into_values().collect(),
            newest,
            anew,
        })
    }

    fn row(&self, record: &RecordId) -> Result<Option<Row>> {
        if let Some(known) = self.scope.get(record) {
            return Ok(*known);
        }
        let key = table::key(self.ledger, table::SCOPE, &record.0);
        let kept = self.registry.store.get(&key)?;
        kept.map(|bytes| Row::read(&bytes)).transpose()
    }

    fn retract(&mut self, record: RecordId) {
        self.scope.insert(record, None);
        let leaf = self.leaf(GrantOperation::Retract, Some(record), None);
        self.leaves.push(leaf);
    }

    fn give(&mut self, operation: GrantOperation, held: &Held, since: u64) -> Result<()> {
        let (grant, at) = (self.grant, held.at);
        let version = self.registry.open_shard(&grant.origin, at)?;
        if version.entry.epoch != grant.epoch {
            return Err(RegistryError::damaged(format!(
                "`{}` {at}: sealed under epoch {}, the holder of grant {} has epoch {}",
                grant.origin, version.entry.epoch, grant.id, grant.epoch
            )));
        }
        let parcel =
            self.registry
                .parcel(grant, self.kept, &version, &held.bytes, at, self.target)?;
        let record = held.entry.record;
        self.scope.insert(record, Some(Row { at, since }));
        let leaf = self.leaf(operation, Some(record), Some(parcel));
        self.leaves.push(leaf);
        Ok(())
    }

    /// Says that nothing is missing up to the checkpoint.
    pub(super) fn heartbeat(&mut self, note: String) {
        let leaf = self.leaf(GrantOperation::Heartbeat, None, Some(note.into_bytes()));
        self.leaves.push(leaf);
    }

    fn leaf(
        &self,
        operation: GrantOperation,
        record: Option<RecordId>,
        body: Option<Vec<u8>>,
    ) -> Leaf {
        Leaf {
            entry: Entry::Grant(GrantEntry {
                suite: SUITE,
                operation,
                record,
                shard_size: self.target,
                shard_root: self.root,
                parcel: body.as_ref().map(|body| Sha256::digest(body).into()),
                recorded_at: self.now,
            }),
            body,
        }
    }

    /// The entries, and the rows that go with them.
    pub(super) fn done(self) -> (Vec<Leaf>, Rows) {
        let ledger = self.ledger.clone();
        let scope = self.scope;
        (self.leaves, Rows { ledger, scope })
    }
}

/// Which rows are in scope after a stretch.
pub(super) struct Rows {
    ledger: Origin,
    scope: BTreeMap<RecordId, Option<Row>>,
}

impl Rows {
    pub(super) fn write(&self, batch: &mut Batch) {
        for (record, row) in &self.scope {
            let key = table::key(&self.ledger, table::SCOPE, &record.0);
            match row {
                Some(row) => batch.put(key, row.bytes()),
                None => batch.delete(key),
            };
        }
    }
}

/// The records of a shard after one of them, a bounded number.
pub(super) fn records_after(
    registry: &Registry,
    shard: &Origin,
    after: Option<RecordId>,
    limit: usize,
) -> Result<BTreeSet<RecordId>> {
    let mut from = Vec::new();
    if let Some(after) = after {
        from.extend(after.0);
        from.push(0);
    }
    let rows = registry
        .store
        .scan(shard.as_str(), table::RECORD, &from, limit)?;
    rows.iter()
        .map(|(rest, _)| {
            let id = rest.as_slice().try_into().map(RecordId);
            id.map_err(|_| RegistryError::damaged(format!("`{shard}`: a record's row")))
        })
        .collect()
}
