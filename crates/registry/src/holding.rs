//! Holdings: what this node may open, own shards and granted subsets, with their working index.
//!
//! Building an index is not a reading: no value leaves here without a `Permit` and a `Receipt`.
//! At rest an index is sealed pages; what the ledger has beyond them is worked through at start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use index::Index;
use record::authority::GrantStatement;
use record::cbor;
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, RecordEntry};
use record::id::{Kind, Origin, RecordId, UnixMillis};
use record::schema::{Position, STATUS, Schema};
use seal::body::{Body, CellContext, Opened};
use seal::grant::EnvelopeInfo;
use seal::parcel::Parcel;
use seal::secret::{FieldKey, GrantSecret};

use crate::epoch::ShardKeys;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::{Registry, lock};
use crate::table::{self, Head, Newest};

const SCAN: usize = 512;
const PAGE_MAX: u64 = 2 * 1024 * 1024;

/// A ledger whose records this node can open.
pub struct Holding {
    /// The shard's ledger, or the grant's.
    pub origin: Origin,
    /// The kind of its records.
    pub kind: Kind,
    /// Finds records.
    pub(crate) index: Index,
    pub(crate) access: Access,
    /// Records are missing in the index because their secrets could not be read. It is not kept, so
    /// that they are found again once the page is restored.
    pub(crate) incomplete: bool,
    /// Versions of granted records that are known to be out of force, of rows that are not in the
    /// index just now: a row retracted and given anew in one act does not tell it a second time.
    out_of_force: BTreeMap<RecordId, u64>,
}

/// With what the records open.
pub(crate) enum Access {
    /// Own shard.
    Own(Arc<ShardKeys>),
    /// A grant; its keys, as their envelopes come.
    Grant {
        statement: Box<GrantStatement>,
        keys: GrantedKeys,
        /// Indices of envelopes that no statement known here names yet.
        unnamed: Vec<u64>,
    },
}

/// What an envelope held.
pub(crate) struct GrantKeys {
    pub secret: GrantSecret,
    pub fields: BTreeMap<Position, FieldKey>,
}

/// The keys of a grant, by epoch and by the terms that they were given under.
#[derive(Default)]
pub(crate) struct GrantedKeys {
    keys: BTreeMap<(u32, u32), GrantKeys>,
    /// From which index of the grant's ledger on parcels are given under which terms.
    since: BTreeMap<u64, u32>,
}

impl GrantedKeys {
    fn take(&mut self, at: u64, epoch: u32, terms: u32, keys: Option<GrantKeys>) {
        self.since.insert(at, terms);
        if let Some(keys) = keys {
            self.keys.insert((epoch, terms), keys);
        }
    }

    /// The keys of the parcel at an index whose cells are sealed under an epoch.
    fn of(&self, at: u64, epoch: u32) -> Option<&GrantKeys> {
        let terms = self.since.range(..at).next_back().map(|(_, terms)| *terms);
        self.keys.get(&(epoch, terms?))
    }

    /// Where the newest envelope before an index lies.
    fn envelope_before(&self, at: u64) -> Option<u64> {
        self.since.range(..at).next_back().map(|(at, _)| *at)
    }
}

/// How often the keys of a grant became others up to one of its statements: with other fields or
/// another history.
fn terms_at(statements: &[GrantStatement], at: usize) -> u32 {
    let pairs = statements.windows(2).take(at);
    let changes = pairs
        .filter(|pair| pair[0].fields != pair[1].fields || pair[0].history() != pair[1].history());
    u32::try_from(changes.count()).unwrap_or(u32::MAX)
}

/// One opened version of a record.
pub(crate) struct Version {
    pub record: RecordId,
    pub entry: RecordEntry,
    pub values: BTreeMap<Position, Opened>,
}

impl Version {
    /// The values present, as the working index takes them.
    pub(crate) fn texts(&self) -> BTreeMap<Position, String> {
        self.values
            .iter()
            .filter_map(|(position, opened)| {
                opened.value().map(|value| (*position, value.to_owned()))
            })
            .collect()
    }
}

impl Registry {
    pub(crate) fn schema(&self, kind: &Kind) -> Result<&'static Schema> {
        self.catalogue()
            .schema(kind)
            .ok_or_else(|| RegistryError::NoKind(kind.clone()))
    }

    pub(crate) fn schema_version(&self, kind: &Kind, version: u32) -> Result<&'static Schema> {
        let schema = self.catalogue().version(kind, version);
        schema.ok_or_else(|| RegistryError::NoSchema {
            kind: kind.clone(),
            version,
        })
    }

    /// Every holding of a kind.
    pub(crate) fn holdings_of(&self, kind: &Kind) -> Vec<Arc<RwLock<Holding>>> {
        let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
        holdings
            .values()
            .filter(|h| h.read().unwrap_or_else(PoisonError::into_inner).kind == *kind)
            .cloned()
            .collect()
    }

    /// The holding of a ledger, opened when it is not yet.
    ///
    /// # Errors
    /// [`RegistryError::NoSchema`] while it waits for a schema.
    pub(crate) fn holding(&self, origin: &Origin) -> Result<Arc<RwLock<Holding>>> {
        self.refuse_awaiting(origin)?;
        self.holding_or_open(origin)
    }

    fn holding_or_open(&self, origin: &Origin) -> Result<Arc<RwLock<Holding>>> {
        if let Some(holding) = self
            .holdings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(origin)
        {
            return Ok(holding.clone());
        }
        let holding = Arc::new(RwLock::new(self.open_holding(origin)?));
        let mut holdings = self
            .holdings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(holdings.entry(origin.clone()).or_insert(holding).clone())
    }

    /// Opens every own shard and every grant held, and brings their indexes up to date.
    pub(crate) fn open_holdings(&self, now: UnixMillis) -> Result<()> {
        for shard in self.store.shards()? {
            let Ok(origin) = Origin::parse(&shard) else {
                continue;
            };
            let own_shard = origin.division() == self.config.division && origin.is_shard();
            let granted = self.holds_grant_at(&origin, now);
            // A ledger that is lost altogether is opened when its parent has given it back.
            let lost = self.guard.is_halted(&origin)
                && Head::read(self.store.as_ref(), &origin)?.size == 0;
            if (own_shard || granted) && !lost {
                self.advance_or_await(&origin, now)?;
            }
        }
        Ok(())
    }

    /// Whether a ledger is of a grant to this node that was not dropped.
    pub(crate) fn holds_grant(&self, ledger: &Origin) -> bool {
        let authority = self.authority();
        let own = &self.config.division;
        let grant = ledger.grant_id().and_then(|id| authority.grant(&id));
        grant.is_some_and(|grant| {
            grant.holder == *own
                && !crate::transfer::carries(grant)
                && authority.grant_ended(&grant.id).is_none()
                && !authority.dropped(own, ledger)
        })
    }

    /// Whether a ledger is of a grant that this node may work through: one that was not dropped, and
    /// whose time is not over. Of one whose time is over, a node that was stopped while it dropped it
    /// has a part; what is left goes when grants are tended.
    pub(crate) fn holds_grant_at(&self, ledger: &Origin, now: UnixMillis) -> bool {
        let lapsed = |id| {
            let authority = self.authority();
            let grant = authority.grant(&id);
            grant.is_some_and(|grant| grant.not_after <= now)
        };
        self.holds_grant(ledger) && !ledger.grant_id().is_some_and(lapsed)
    }

    /// Closes a holding and destroys its index.
    pub(crate) fn forget_holding(&self, origin: &Origin) -> Result<()> {
        self.holdings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(origin);
        let mut page = 0;
        while self.index_path(origin, page).exists() {
            let path = self.index_path(origin, page);
            std::fs::remove_file(&path).map_err(|e| RegistryError::file(&path, e))?;
            page += 1;
        }
        Ok(())
    }

    fn open_holding(&self, origin: &Origin) -> Result<Holding> {
        let schema = self.schema(&origin.ledger())?;
        let kept = self.load_index(origin, schema);
        self.open_holding_under(origin, schema, kept)
    }

    /// A holding for the fields of a schema, with an index that was kept or none.
    fn open_holding_under(
        &self,
        origin: &Origin,
        schema: &Schema,
        kept: Option<Index>,
    ) -> Result<Holding> {
        let kind = origin.ledger();
        let access = match origin.grant_id() {
            None => Access::Own(Arc::new(self.shard_keys(origin, schema)?)),
            Some(id) => {
                let authority = self.authority();
                let statement = authority
                    .grant(&id)
                    .cloned()
                    .ok_or(RegistryError::NotFound {
                        what: "授权 / grant",
                        name: id.to_string(),
                        next: "wait until the owner's authority ledger has been replicated",
                    })?;
                Access::Grant {
                    statement: Box::new(statement),
                    keys: GrantedKeys::default(),
                    unnamed: Vec::new(),
                }
            }
        };
        let index = kept.unwrap_or_else(|| Index::new(schema));
        let mut holding = Holding {
            origin: origin.clone(),
            kind,
            index,
            access,
            incomplete: false,
            out_of_force: BTreeMap::new(),
        };
        if holding.index.applied() > 0 {
            self.find_keys(&mut holding)?;
        }
        Ok(holding)
    }

    /// Works through what the ledger has beyond the index.
    pub(crate) fn advance_holding(&self, origin: &Origin) -> Result<()> {
        let holding = self.holding_or_open(origin)?;
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        self.advance(&mut holding)
    }

    /// Makes a holding anew for the fields of another schema. It is read as it was until the new
    /// one has everything.
    pub(crate) fn remake_holding(&self, origin: &Origin, schema: &Schema) -> Result<()> {
        let held = self.holding(origin)?;
        let mut fresh = self.open_holding_under(origin, schema, None)?;
        fresh.out_of_force = out_of_force(&held.read().unwrap_or_else(PoisonError::into_inner));
        self.advance(&mut fresh)?;
        let mut held = held.write().unwrap_or_else(PoisonError::into_inner);
        // What was written meanwhile, and an epoch that began.
        if matches!(held.access, Access::Own(_)) {
            fresh.access = Access::Own(Arc::new(self.shard_keys(origin, schema)?));
        }
        self.advance(&mut fresh)?;
        *held = fresh;
        Ok(())
    }

    fn advance(&self, holding: &mut Holding) -> Result<()> {
        let origin = &holding.origin.clone();
        self.name_keys(holding)?;
        let size = Head::read(self.store.as_ref(), origin)?.size;
        while holding.index.applied() < size {
            let from = holding.index.applied();
            let rows = self
                .store
                .scan(origin.as_str(), table::ENTRY, &from.to_be_bytes(), SCAN)?;
            if rows.is_empty() {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` lacks entry {from}"
                )));
            }
            for (at, (_, bytes)) in (from..).zip(&rows) {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if !self.apply(holding, at, &entry)? {
                    // The owner's statement is on its way; its ledger's coming goes on from here.
                    tracing::info!(%origin, at, "a grant's keys are not here yet");
                    holding.index.set_applied(at);
                    return Ok(());
                }
            }
            holding.index.set_applied(from + rows.len() as u64);
        }
        Ok(())
    }

    /// `false` when the entry needs keys that are not here yet.
    fn apply(&self, holding: &mut Holding, at: u64, whole: &Entry) -> Result<bool> {
        match whole {
            Entry::Record(entry) => match entry.operation {
                Operation::Erase | Operation::TransferOut => holding.index.remove(entry.record),
                _ if self.secret_lost(&holding.origin, &entry.record)? => {
                    // Restored from the parent without its secret: history, but no content.
                    holding.index.remove(entry.record);
                }
                operation
                    if operation.is_anew()
                        && (has_later(holding, entry)
                            || self.is_superseded(&holding.origin, entry)?) => {}
                _ => match self.open_unless_gone(holding, at, whole) {
                    Ok(None) => {}
                    Ok(Some(version)) => {
                        holding
                            .index
                            .upsert(version.record, entry.version, at, &version.texts());
                    }
                    // The node opens without what cannot be opened; the doctor names the page.
                    Err(RegistryError::Unreadable { .. }) => {
                        holding.incomplete = true;
                        holding.index.remove(entry.record);
                    }
                    Err(error) => return Err(error),
                },
            },
            Entry::Grant(entry) => match (entry.operation, entry.record) {
                (GrantOperation::Keys, _) => self.take_keys(holding, at, entry)?,
                (operation, Some(record)) if operation.brings_parcel() => {
                    if self.is_gone(&holding.origin, at, whole)? {
                        return Ok(true);
                    }
                    let parcel = self.parcel_at(&holding.origin, at)?;
                    let Access::Grant { keys, unnamed, .. } = &holding.access else {
                        return Err(RegistryError::damaged("a grant is held as an own shard"));
                    };
                    // Of an envelope that no statement names yet it is not known what it changes.
                    let named = keys.envelope_before(at);
                    let waits = unnamed
                        .iter()
                        .any(|place| *place < at && Some(*place) > named);
                    if waits || keys.of(at, parcel.entry().epoch).is_none() {
                        return Ok(false);
                    }
                    let version = self.open_version(holding, at)?;
                    let mut texts = version.texts();
                    // The status may not be granted; what was done to the record is in its entry.
                    if is_out_of_force(holding, &version.entry) {
                        texts.entry(STATUS).or_insert_with(|| index::CLOSED.into());
                    }
                    holding
                        .index
                        .upsert(record, version.entry.version, at, &texts);
                    holding.out_of_force.remove(&record);
                }
                (GrantOperation::Retract, Some(record)) => {
                    if let Some(version) = closed_version(holding, record) {
                        holding.out_of_force.insert(record, version);
                    }
                    holding.index.remove(record);
                }
                _ => {}
            },
            _ => {}
        }
        Ok(true)
    }

    /// Whether a later version of a resealed one is known, also of a record that left.
    fn is_superseded(&self, origin: &Origin, resealed: &RecordEntry) -> Result<bool> {
        let newest = self.newest(origin, &resealed.record)?;
        Ok(newest.is_some_and(|newest| newest.version > resealed.version))
    }

    /// Whether a record came back from the parent without the secret that opens it.
    fn secret_lost(&self, origin: &Origin, record: &RecordId) -> Result<bool> {
        Ok(self
            .newest(origin, record)?
            .is_some_and(|newest| newest.page == 0))
    }

    /// Opens a version, unless its body was ordered to be destroyed: what a later entry says counts.
    fn open_unless_gone(
        &self,
        holding: &Holding,
        at: u64,
        entry: &Entry,
    ) -> Result<Option<Version>> {
        match self.open_version(holding, at) {
            Err(_) if self.is_gone(&holding.origin, at, entry)? => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether the body of an entry is not here because a later entry ordered it to be destroyed.
    pub(crate) fn is_gone(&self, origin: &Origin, at: u64, entry: &Entry) -> Result<bool> {
        let store = self.store.as_ref();
        Ok(store.get(&table::body(origin, at))?.is_none()
            && crate::chain::destroyer(store, origin, at, entry, u64::MAX)?.is_some())
    }

    /// Opens the envelope of keys at an index of the grant's ledger, once its owner's authority
    /// ledger names it: whatever else lies there is nobody's word.
    fn take_keys(&self, holding: &mut Holding, at: u64, entry: &GrantEntry) -> Result<()> {
        let origin = holding.origin.clone();
        let Access::Grant {
            statement,
            keys,
            unnamed,
        } = &mut holding.access
        else {
            return Ok(());
        };
        let named = {
            let authority = self.authority();
            let statements = authority.grant_statements(&statement.id);
            let place = statements
                .iter()
                .position(|s| Some(s.envelope) == entry.parcel);
            place.map(|place| (statements[place].clone(), terms_at(statements, place)))
        };
        let Some((named, terms)) = named else {
            unnamed.push(at);
            return Ok(());
        };
        let newest = self.authority().grant(&statement.id).cloned();
        let own_charter = self
            .authority()
            .charter(&self.config.division)
            .map(|c| c.id());
        let envelope = self.body(&origin, at)?;
        let keys_here = self.keys.unlocked()?;
        let opened = keys_here.open_envelope(&envelope_info(&named), &envelope);
        match opened {
            Ok((secret, fields)) => {
                let opened = GrantKeys { secret, fields };
                keys.take(at, named.epoch, terms, Some(opened));
            }
            // Sealed to a charter of this node before the present one: the owner seals it again.
            Err(error) if own_charter != Some(named.holder_charter) => {
                tracing::info!(%origin, at, %error, "an envelope for an earlier charter of this node");
                keys.take(at, named.epoch, terms, None);
            }
            Err(error) => {
                return Err(RegistryError::damaged(format!(
                    "the envelope of grant {}: {error}",
                    statement.id
                )));
            }
        }
        if let Some(newest) = newest {
            **statement = newest;
        }
        Ok(())
    }

    /// Takes the envelopes that came before the statements that name them.
    fn name_keys(&self, holding: &mut Holding) -> Result<()> {
        let Access::Grant { unnamed, .. } = &mut holding.access else {
            return Ok(());
        };
        let waiting = std::mem::take(unnamed);
        self.take_keys_at(holding, waiting)
    }

    fn take_keys_at(&self, holding: &mut Holding, places: Vec<u64>) -> Result<()> {
        for at in places {
            let bytes = self.store.get(&table::entry(&holding.origin, at))?;
            if let Some(Ok(Entry::Grant(entry))) = bytes.as_deref().map(Entry::decode) {
                self.take_keys(holding, at, &entry)?;
            }
        }
        Ok(())
    }

    /// Finds the envelopes in the part of the ledger that the index covers already.
    fn find_keys(&self, holding: &mut Holding) -> Result<()> {
        if !matches!(holding.access, Access::Grant { .. }) {
            return Ok(());
        }
        let mut places = Vec::new();
        let (origin, end) = (holding.origin.clone(), holding.index.applied());
        let mut at = 0u64;
        while at < end {
            let limit = usize::try_from(end - at).unwrap_or(SCAN).min(SCAN);
            let from = at.to_be_bytes();
            let rows = self
                .store
                .scan(origin.as_str(), table::ENTRY, &from, limit)?;
            if rows.is_empty() {
                break;
            }
            for (_, bytes) in &rows {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                if matches!(&entry, Entry::Grant(e) if e.operation == GrantOperation::Keys) {
                    places.push(at);
                }
                at += 1;
            }
        }
        if places.first() != Some(&0) {
            return Err(RegistryError::damaged(format!(
                "`{origin}` does not begin with its keys"
            )));
        }
        self.take_keys_at(holding, places)
    }

    fn parcel_at(&self, origin: &Origin, at: u64) -> Result<Parcel> {
        Parcel::decode(&self.body(origin, at)?)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))
    }

    pub(crate) fn body(&self, origin: &Origin, at: u64) -> Result<Vec<u8>> {
        self.store.get(&table::body(origin, at))?.ok_or_else(|| {
            RegistryError::damaged(format!("`{origin}` lacks the body of entry {at}"))
        })
    }

    pub(crate) fn newest(&self, origin: &Origin, record: &RecordId) -> Result<Option<Newest>> {
        self.store
            .get(&table::key(origin, table::RECORD, &record.0))?
            .map(|bytes| table::decode("newest version", &bytes))
            .transpose()
    }

    /// Opens the version of a record that lies at an index of the holding's ledger,
    /// and checks every value against the ledger.
    pub(crate) fn open_version(&self, holding: &Holding, at: u64) -> Result<Version> {
        let origin = &holding.origin;
        match &holding.access {
            Access::Own(keys) => self.open_own(origin, keys, at),
            Access::Grant {
                statement, keys, ..
            } => {
                let parcel = self.parcel_at(origin, at)?;
                let entry = parcel.entry().clone();
                let keys = keys.of(at, entry.epoch).ok_or_else(|| {
                    RegistryError::damaged(format!(
                        "grant {} has no keys of epoch {}",
                        statement.id, entry.epoch
                    ))
                })?;
                let schema = self.schema_version(&holding.kind, entry.schema)?;
                let shard = statement.origin.clone();
                let values = parcel
                    .open(&keys.secret, &keys.fields, statement.id, &shard, schema)
                    .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
                Ok(Version {
                    record: entry.record,
                    entry,
                    values,
                })
            }
        }
    }

    /// Opens a version of an own record. One that was resealed is opened where it lies since then.
    pub(crate) fn open_own(&self, origin: &Origin, keys: &ShardKeys, at: u64) -> Result<Version> {
        let (at, entry, body) = self.sealed_at(origin, at)?;
        let newest = self.newest(origin, &entry.record)?.ok_or_else(|| {
            RegistryError::damaged(format!("`{origin}`: record {} has no secret", entry.record))
        })?;
        let secret = self.secret(origin, &entry.record, &newest)?;
        let schema = self.schema_version(&origin.ledger(), entry.schema)?;
        let body = Body::decode(&body)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
        let epoch = entry.epoch;
        let keys = keys.of(epoch).ok_or_else(|| {
            RegistryError::damaged(format!(
                "`{origin}` {at}: 第 {epoch} 期的密钥已不在 / the secret of epoch {epoch} is not here; put the newest keystore back, or run `fangzhi recover`"
            ))
        })?;
        let context = CellContext::of(origin, &entry);
        let values = seal::body::open_all(&body, &entry, schema, &context, keys, &secret)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
        Ok(Version {
            record: entry.record,
            entry,
            values,
        })
    }

    fn index_path(&self, origin: &Origin, page: usize) -> std::path::PathBuf {
        use sha2::{Digest, Sha256};
        let name = data_encoding::HEXLOWER.encode(&Sha256::digest(origin.as_str())[..12]);
        self.files.index().join(format!("{name}.{page:04}"))
    }

    /// The index as it was sealed; `None` when any page is missing or does not open:
    /// the ledger is the truth, and the index is made anew from it.
    fn load_index(&self, origin: &Origin, schema: &Schema) -> Option<Index> {
        let key = self.keys.index_key().ok()?;
        let mut pages = Vec::new();
        loop {
            let path = self.index_path(origin, pages.len());
            if !path.exists() {
                break;
            }
            let sealed = store::atomic::read_bounded(&path, PAGE_MAX).ok()?;
            let aad = index_aad(origin, pages.len());
            pages.push(seal::blob::open_blob(&key, &aad, &sealed).ok()?);
        }
        if pages.is_empty() {
            return None;
        }
        let slices: Vec<&[u8]> = pages.iter().map(|page| page.as_slice()).collect();
        let index = Index::from_pages(schema, &slices).ok()?;
        let size = Head::read(self.store.as_ref(), origin).ok()?.size;
        (index.applied() <= size).then_some(index)
    }

    /// Seals the working indexes to their pages, and what the authority ledgers say. Losing them
    /// costs time, never data.
    ///
    /// # Errors
    /// [`RegistryError::File`].
    pub fn persist_indexes(&self) -> Result<()> {
        let _one = lock(&self.indexing);
        self.write_indexes()
    }

    /// The same, for whoever holds the lock of the files.
    pub(crate) fn write_indexes(&self) -> Result<()> {
        if self.keys.is_locked() {
            return Ok(());
        }
        self.keep_authority()?;
        let dir = self.files.index();
        std::fs::create_dir_all(&dir).map_err(|e| RegistryError::file(&dir, e))?;
        let key = self.keys.index_key()?;
        let mut rng = rng()?;
        let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
        for holding in holdings.values() {
            let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
            if holding.incomplete {
                continue;
            }
            let pages = holding.index.to_pages();
            for (at, page) in pages.iter().enumerate() {
                let aad = index_aad(&holding.origin, at);
                let sealed = seal::blob::seal_blob(&key, &aad, page, &mut rng);
                let path = self.index_path(&holding.origin, at);
                store::atomic::replace(&path, &sealed).map_err(RegistryError::from)?;
            }
            let mut surplus = pages.len();
            while self.index_path(&holding.origin, surplus).exists() {
                let path = self.index_path(&holding.origin, surplus);
                std::fs::remove_file(&path).map_err(|e| RegistryError::file(&path, e))?;
                surplus += 1;
            }
        }
        Ok(())
    }
}

/// Whether a later version of a resealed one is known already.
fn has_later(holding: &Holding, resealed: &RecordEntry) -> bool {
    let known = holding.index.get(resealed.record);
    known.is_some_and(|known| known.version > resealed.version)
}

/// Whether a granted version is out of force, as its entry says, or what came before it when the
/// version was only sealed anew. Nothing but a reopening makes a closed record another version.
fn is_out_of_force(holding: &Holding, entry: &RecordEntry) -> bool {
    let known = || {
        let before = closed_version(holding, entry.record);
        before.or_else(|| holding.out_of_force.get(&entry.record).copied())
    };
    match entry.operation {
        operation if operation.puts_out_of_force() => true,
        operation if operation.is_anew() => known() == Some(entry.version),
        _ => false,
    }
}

/// The version of a record in the index that is out of force.
fn closed_version(holding: &Holding, record: RecordId) -> Option<u64> {
    let attributes = holding.index.attributes_of(record)?;
    let closed = attributes.status == index::CLOSED;
    holding
        .index
        .get(record)
        .filter(|_| closed)
        .map(|known| known.version)
}

/// Everything that a grant's holding knows to be out of force.
fn out_of_force(holding: &Holding) -> BTreeMap<RecordId, u64> {
    let mut known = holding.out_of_force.clone();
    if matches!(holding.access, Access::Grant { .. }) {
        let closed = |row: &index::Attributes<'_>| row.status == index::CLOSED;
        let page = holding.index.find(&[], &closed, usize::MAX, None);
        let found = page.map(|page| page.found).unwrap_or_default();
        known.extend(found.into_iter().map(|found| (found.record, found.version)));
    }
    known
}

/// What an envelope is bound to: nothing of it can be opened for another grant, holder or epoch.
pub(crate) fn envelope_info(grant: &GrantStatement) -> EnvelopeInfo {
    EnvelopeInfo {
        grant: grant.id,
        owner_charter: grant.owner_charter,
        holder_charter: grant.holder_charter,
        origin: grant.origin.clone(),
        epoch: grant.epoch,
        fields: grant.fields.clone(),
    }
}

fn index_aad(origin: &Origin, page: usize) -> Vec<u8> {
    cbor::to_vec(&("fangzhi/working-index/v2", origin.as_str(), page as u64))
}
