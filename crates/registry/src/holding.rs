//! Holdings: what this node may open, own shards and granted subsets, with their working index.
//!
//! Building an index is not a reading: no value leaves here without a `Permit` and a `Receipt`.
//! At rest an index is sealed pages; what the ledger has beyond them is worked through at start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use index::Index;
use record::authority::GrantStatement;
use record::cbor;
use record::entry::{Entry, GrantOperation, Operation, RecordEntry};
use record::id::{Kind, Origin, RecordId};
use record::schema::{Position, Schema};
use seal::body::{Body, CellContext, Opened};
use seal::derive::FieldKeys;
use seal::parcel::Parcel;
use seal::secret::{FieldKey, GrantSecret};

use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::Registry;
use crate::table::{self, Head, Newest};

/// The only key epoch until rotation is built.
pub const EPOCH: u32 = 1;
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
}

/// With what the records open.
pub(crate) enum Access {
    /// Own shard.
    Own(Arc<FieldKeys>),
    /// A grant; its keys once the envelope came.
    Grant {
        statement: Box<GrantStatement>,
        keys: Option<GrantKeys>,
    },
}

/// What an envelope held.
pub(crate) struct GrantKeys {
    pub secret: GrantSecret,
    pub fields: BTreeMap<Position, FieldKey>,
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
    pub(crate) fn schema(&self, kind: &Kind) -> Result<&Schema> {
        self.catalogue
            .schema(kind)
            .ok_or_else(|| RegistryError::NoKind(kind.clone()))
    }

    pub(crate) fn schema_version(&self, kind: &Kind, version: u32) -> Result<&Schema> {
        self.catalogue.version(kind, version).ok_or_else(|| {
            RegistryError::damaged(format!("schema {version} of `{kind}` is not here"))
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
    pub(crate) fn holding(&self, origin: &Origin) -> Result<Arc<RwLock<Holding>>> {
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
    pub(crate) fn open_holdings(&self) -> Result<()> {
        for shard in self.store.shards()? {
            let Ok(origin) = Origin::parse(&shard) else {
                continue;
            };
            let own_shard = origin.division() == self.config.division && origin.is_shard();
            let granted = origin.grant_id().is_some_and(|id| {
                self.authority()
                    .grant(&id)
                    .is_some_and(|g| g.holder == self.config.division)
            });
            if own_shard || granted {
                self.advance_holding(&origin)?;
            }
        }
        Ok(())
    }

    fn open_holding(&self, origin: &Origin) -> Result<Holding> {
        let kind = origin.ledger();
        let access = match origin.grant_id() {
            None => Access::Own(Arc::new(self.field_keys(origin, self.schema(&kind)?)?)),
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
                    keys: None,
                }
            }
        };
        let schema = self.schema(&kind)?;
        let index = self
            .load_index(origin, schema)
            .unwrap_or_else(|| Index::new(schema));
        let mut holding = Holding {
            origin: origin.clone(),
            kind,
            index,
            access,
        };
        if holding.index.applied() > 0 {
            self.find_keys(&mut holding)?;
        }
        Ok(holding)
    }

    pub(crate) fn field_keys(&self, origin: &Origin, schema: &Schema) -> Result<FieldKeys> {
        let secret = self.keys.epoch(origin, EPOCH)?;
        Ok(FieldKeys::derive(&secret, origin, EPOCH, schema))
    }

    /// Works through what the ledger has beyond the index.
    pub(crate) fn advance_holding(&self, origin: &Origin) -> Result<()> {
        let holding = self.holding(origin)?;
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
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
                self.apply(&mut holding, at, &entry)?;
            }
            holding.index.set_applied(from + rows.len() as u64);
        }
        Ok(())
    }

    fn apply(&self, holding: &mut Holding, at: u64, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Record(entry) => match entry.operation {
                Operation::Erase | Operation::TransferOut => holding.index.remove(entry.record),
                _ if self.secret_lost(&holding.origin, &entry.record)? => {
                    // Restored from the parent without its secret: history, but no content.
                    holding.index.remove(entry.record);
                }
                _ => {
                    let version = self.open_version(holding, at)?;
                    holding
                        .index
                        .upsert(version.record, entry.version, at, &version.texts());
                }
            },
            Entry::Grant(entry) => match (entry.operation, entry.record) {
                (GrantOperation::Keys, _) => self.take_keys(holding, at)?,
                (GrantOperation::Enter | GrantOperation::Update, Some(record)) => {
                    let version = self.open_version(holding, at)?;
                    holding
                        .index
                        .upsert(record, version.entry.version, at, &version.texts());
                }
                (GrantOperation::Retract, Some(record)) => holding.index.remove(record),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Whether a record came back from the parent without the secret that opens it.
    fn secret_lost(&self, origin: &Origin, record: &RecordId) -> Result<bool> {
        Ok(self
            .newest(origin, record)?
            .is_some_and(|newest| newest.page == 0))
    }

    /// Opens the envelope of keys at an index of the grant's ledger.
    fn take_keys(&self, holding: &mut Holding, at: u64) -> Result<()> {
        let Access::Grant { statement, keys } = &mut holding.access else {
            return Ok(());
        };
        let envelope = self.body(&holding.origin, at)?;
        let info = self.envelope_info(statement)?;
        let (secret, fields) =
            seal::grant::open_envelope(&info, &self.keys.seal_private(), &envelope).map_err(
                |e| RegistryError::damaged(format!("the envelope of grant {}: {e}", statement.id)),
            )?;
        *keys = Some(GrantKeys { secret, fields });
        Ok(())
    }

    /// Finds the envelope in the part of the ledger that the index covers already.
    fn find_keys(&self, holding: &mut Holding) -> Result<()> {
        if !matches!(holding.access, Access::Grant { .. }) {
            return Ok(());
        }
        // The envelope is the grant ledger's first entry; a later one replaces it when it is applied.
        let origin = holding.origin.clone();
        let first = self.store.get(&table::entry(&origin, 0))?;
        match first.as_deref().map(Entry::decode) {
            Some(Ok(Entry::Grant(entry))) if entry.operation == GrantOperation::Keys => {
                self.take_keys(holding, 0)
            }
            _ => Err(RegistryError::damaged(format!(
                "`{origin}` does not begin with its keys"
            ))),
        }
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
            Access::Grant { statement, keys } => {
                let keys = keys.as_ref().ok_or_else(|| {
                    RegistryError::damaged(format!("grant {} has no keys yet", statement.id))
                })?;
                let parcel = Parcel::decode(&self.body(origin, at)?)
                    .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
                let entry = parcel.entry().clone();
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

    pub(crate) fn open_own(&self, origin: &Origin, keys: &FieldKeys, at: u64) -> Result<Version> {
        let bytes = self
            .store
            .get(&table::entry(origin, at))?
            .ok_or_else(|| RegistryError::damaged(format!("`{origin}` lacks entry {at}")))?;
        let entry = match Entry::decode(&bytes) {
            Ok(Entry::Record(entry)) => entry,
            _ => {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` {at} is not a record"
                )));
            }
        };
        let newest = self.newest(origin, &entry.record)?.ok_or_else(|| {
            RegistryError::damaged(format!("`{origin}`: record {} has no secret", entry.record))
        })?;
        let secret = self.secret(origin, &entry.record, &newest)?;
        let schema = self.schema_version(&origin.ledger(), entry.schema)?;
        let body = Body::decode(&self.body(origin, at)?)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
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
        let key = self.keys.index_key();
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
        self.keep_authority()?;
        let dir = self.files.index();
        std::fs::create_dir_all(&dir).map_err(|e| RegistryError::file(&dir, e))?;
        let key = self.keys.index_key();
        let mut rng = rng()?;
        let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
        for holding in holdings.values() {
            let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
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

fn index_aad(origin: &Origin, page: usize) -> Vec<u8> {
    cbor::to_vec(&("fangzhi/working-index/v1", origin.as_str(), page as u64))
}
