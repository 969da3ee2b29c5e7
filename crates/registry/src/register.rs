//! Registering (登记), amending (变更) and closing (注销) records of an own shard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

use minicbor::{Decode, Encode};
use record::cbor;
use record::draft::{Checked, Draft, Violation};
use record::entry::{Entry, Operation, RecordEntry, SUITE};
use record::id::{DivisionId, Hash, Kind, Origin, Purpose, RecordId, UnixMillis};
use record::schema::{GRID, Position, STATUS, Schema};
use seal::body::{CellContext, SealedBody};
use seal::secret::RecordSecret;
use serde::{Deserialize, Serialize};
use store::pages::ChunkAt;

use crate::book::{Book, Leaf, Signer};
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Holding};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::read::Reading;
use crate::session::Session;
use crate::table::{self, Newest};

/// How many rows one act of an import has.
pub const IMPORT_ROWS: usize = 256;

/// How many rows one dry run may check.
pub const PREVIEW_ROWS: usize = 200 * IMPORT_ROWS;

/// Some rows of a file, to be registered under one act.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportChunk {
    /// The kind of every row.
    pub kind: Kind,
    /// SHA-256 of the file, hexadecimal: where the rows came from.
    pub source: String,
    /// The rows' numbers in the file, from 1: they name a row in a violation, and the chunk.
    pub numbers: Vec<u64>,
    /// At most [`IMPORT_ROWS`] rows, or [`PREVIEW_ROWS`] of a dry run; field id to text.
    pub rows: Vec<BTreeMap<String, String>>,
    /// Check only: nothing is written.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is known of an import before a row of it is looked at.
#[derive(Debug)]
pub struct ImportOutline {
    /// The kind of every row.
    pub kind: Kind,
    /// SHA-256 of the file, hexadecimal.
    pub source: String,
    /// The rows' numbers in the file, one for each, in their order.
    pub numbers: Vec<u64>,
    /// How many rows there are.
    pub rows: usize,
    /// Every field that some row names.
    pub fields: BTreeSet<String>,
    /// Check only.
    pub dry_run: bool,
}

/// Gives the rows of an import, one after the other, to whoever takes them.
pub type Rows<'a> = &'a mut dyn FnMut(&mut dyn FnMut(BTreeMap<String, String>)) -> Result<()>;

/// The most violations listed of one row.
const ROW_VIOLATIONS_MAX: usize = 16;

/// One rule that one row breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowViolation {
    /// The row's number in the file, from 1.
    pub row: u64,
    /// The field.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// What became of the rows. `rows` is always `accepted` + `rejected`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Rows given.
    pub rows: u64,
    /// Rows registered, now or by an earlier run over the same file.
    pub accepted: u64,
    /// Rows with violations.
    pub rejected: u64,
    /// Of the accepted, how many an earlier run had registered.
    pub repeated: u64,
    /// Every violation of every rejected row.
    pub violations: Vec<RowViolation>,
}

/// What the store keeps of a file: which rows of one block of it were registered.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Taken {
    /// The rows' numbers in the file.
    #[n(0)]
    rows: BTreeSet<u64>,
}

/// Rows of a file are kept track of in blocks of so many.
const BLOCK_ROWS: u64 = 256;

/// What is done to a record that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amendment {
    /// The kind.
    pub kind: Kind,
    /// The record.
    pub record: RecordId,
    /// The version that the operator saw: a later one is a conflict.
    pub version: u64,
    /// Field id to text; an empty text removes the value.
    #[serde(default)]
    pub changes: BTreeMap<String, String>,
    /// Take the record out of force.
    #[serde(default)]
    pub close: bool,
    /// Put a record that is out of force into force again.
    #[serde(default)]
    pub reopen: bool,
    /// What for.
    pub purpose: Purpose,
}

/// A registered version.
#[derive(Debug, Clone, Serialize)]
pub struct Registered {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: u64,
    /// The ledger.
    pub origin: Origin,
    /// Index of its entry.
    pub index: u64,
}

struct Row {
    number: u64,
    record: RecordId,
    secret: RecordSecret,
    checked: Checked,
}

fn today(now: UnixMillis) -> String {
    // Civil date in China (UTC+8), by the days-from-civil rule of the Gregorian calendar.
    let days = ((now.0 + 8 * 3_600_000) / 86_400_000) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let month_index = (5 * doy + 2) / 153;
    let day = doy - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

impl Registry {
    /// Registers rows of a file, or says what is wrong with them.
    ///
    /// The same chunk of the same file given again registers nothing twice.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NoKind`], or a failure of the store; then the
    /// chunk may be given again.
    pub fn import(
        &self,
        session: &Session,
        chunk: &ImportChunk,
        now: UnixMillis,
    ) -> Result<ImportReport> {
        let outline = ImportOutline {
            kind: chunk.kind.clone(),
            source: chunk.source.clone(),
            numbers: chunk.numbers.clone(),
            rows: chunk.rows.len(),
            fields: chunk
                .rows
                .iter()
                .flatten()
                .map(|(id, _)| id.clone())
                .collect(),
            dry_run: chunk.dry_run,
        };
        self.import_rows(
            session,
            &outline,
            &mut |take| {
                chunk.rows.iter().for_each(|row| take(row.clone()));
                Ok(())
            },
            now,
        )
    }

    /// Whether policy lets a session register anything at all: asked before an import is read.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] when no kind of record may be written.
    pub fn may_import(&self, session: &Session) -> Result<()> {
        let mut denied = None;
        for schema in self.catalogue().kinds() {
            let status = BTreeSet::from([STATUS]);
            match self.may_write(session, schema, &status, &purpose("registration")) {
                Ok(_) => return Ok(()),
                Err(error) => denied = Some(error),
            }
        }
        denied.map_or(Ok(()), Err)
    }

    /// The same for rows that come one by one: a preview keeps none of them.
    ///
    /// # Errors
    /// As [`Registry::import`], and what the rows' own source says.
    pub fn import_rows(
        &self,
        session: &Session,
        chunk: &ImportOutline,
        given: Rows<'_>,
        now: UnixMillis,
    ) -> Result<ImportReport> {
        let schema = self.schema(&chunk.kind)?;
        let positions = written(schema, chunk.fields.iter());
        let allowed = self.may_write(session, schema, &positions, &purpose("registration"))?;
        let rows_max = if chunk.dry_run {
            PREVIEW_ROWS
        } else {
            IMPORT_ROWS
        };
        if chunk.rows == 0 || chunk.rows > rows_max || chunk.numbers.len() != chunk.rows {
            return Err(RegistryError::BadRequest(format!(
                "一次 1 至 {rows_max} 行，每行一个行号 / a chunk has 1 to {rows_max} rows and a number for each, not {}; split it",
                chunk.rows
            )));
        }
        let distinct: BTreeSet<u64> = chunk.numbers.iter().copied().collect();
        if distinct.len() != chunk.numbers.len() {
            return Err(RegistryError::BadRequest(
                "a row number stands twice in `numbers`; number the rows of the file".into(),
            ));
        }
        let source: Hash = crate::config::key_from_hex(&chunk.source).map_err(|_| {
            RegistryError::BadRequest(
                "`source` must be the SHA-256 of the file in hexadecimal".into(),
            )
        })?;
        // In the ledger and the tables the file's hash is keyed: a guessed file cannot be confirmed.
        let source = self.keys.blind("import", &source)?;
        let shard = self.shard(&chunk.kind);
        self.refuse_closed(&shard)?;
        let holding = self.holding(&shard)?;
        let book = self.book(&shard)?;
        // From here to the commit nobody else writes this shard.
        let mut book = lock(&book);
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);

        self.refuse_lost_rows(&shard, &source)?;
        let mut taken = self.taken(&shard, &source, &chunk.numbers)?;

        let mut report = ImportReport {
            rows: chunk.rows as u64,
            ..ImportReport::default()
        };
        let mut seen: HashMap<(Position, String), u64> = HashMap::new();
        let mut rows = Vec::new();
        let mut rng = rng()?;
        let day = today(now);
        let mut numbers = chunk.numbers.iter().copied();
        given(&mut |fields| {
            let Some(number) = numbers.next() else {
                return;
            };
            if taken
                .get(&(number / BLOCK_ROWS))
                .is_some_and(|t| t.rows.contains(&number))
            {
                report.accepted += 1;
                report.repeated += 1;
                return;
            }
            let checked = Draft {
                fields: fields.clone(),
            }
            .check(schema, self.catalogue(), &day)
            .map_err(|mut violations| {
                // All at once: a taken value is said now, not after the rest was mended.
                self.taken_values(schema, &fields, &seen, &holding.index, &mut violations);
                violations
            })
            .and_then(|checked| own_rows(&allowed, &self.config.division, checked))
            .and_then(|checked| {
                let doubles = doubles(schema, &checked, number, &mut seen, &holding.index);
                if doubles.is_empty() {
                    Ok(checked)
                } else {
                    Err(doubles)
                }
            });
            match checked {
                Err(violations) => {
                    report.rejected += 1;
                    let listed = violations.into_iter().take(ROW_VIOLATIONS_MAX);
                    report.violations.extend(listed.map(|v| RowViolation {
                        row: number,
                        field: v.field,
                        reason: v.reason,
                    }));
                }
                Ok(_) if chunk.dry_run => report.accepted += 1,
                Ok(checked) => {
                    report.accepted += 1;
                    let mut id = [0u8; 16];
                    rand_core::Rng::fill_bytes(&mut rng, &mut id);
                    rows.push(Row {
                        number,
                        record: RecordId(id),
                        secret: RecordSecret::generate(&mut rng),
                        checked: checked.since(None),
                    });
                }
            }
        })?;
        if numbers.next().is_some() {
            return Err(RegistryError::BadRequest(
                "行数与行号不符 / there are fewer rows than numbers; send the file again".into(),
            ));
        }
        if chunk.dry_run || rows.is_empty() {
            drop(holding);
            drop(book);
            self.record_import_matches(session, &chunk.kind, &report, now)?;
            return Ok(report);
        }

        let mut touched = BTreeSet::new();
        for row in &rows {
            let block = row.number / BLOCK_ROWS;
            taken.entry(block).or_default().rows.insert(row.number);
            touched.insert(block);
        }
        let signer = session.signer(purpose("registration"), Some(source));
        let place = (&mut *book, &mut *holding);
        self.register_rows(place, schema, &rows, &signer, now, |batch, _| {
            for block in &touched {
                if let Some(rows) = taken.get(block) {
                    batch.put(block_key(&shard, &source, *block), cbor::to_vec(rows));
                }
            }
        })?;
        drop(holding);
        drop(book);
        self.changed();
        self.record_import_matches(session, &chunk.kind, &report, now)?;
        Ok(report)
    }

    fn record_import_matches(
        &self,
        session: &Session,
        kind: &Kind,
        report: &ImportReport,
        now: UnixMillis,
    ) -> Result<()> {
        let violations = report.violations.iter();
        let said = violations.map(|row| (row.field.as_str(), row.reason.as_str()));
        self.record_matches(session, (kind, &purpose("registration")), said, now)
    }

    /// The answer to one row that breaks rules, once what it tells of other records is recorded.
    /// Nobody may hold a book or a holding meanwhile.
    pub(crate) fn invalid(
        &self,
        session: &Session,
        of: (&Kind, &Purpose),
        violations: Vec<Violation>,
        now: UnixMillis,
    ) -> RegistryError {
        let said = violations
            .iter()
            .map(|violation| (violation.field.as_str(), violation.reason.as_str()));
        match self.record_matches(session, of, said, now) {
            Ok(()) => RegistryError::Invalid(violations),
            Err(error) => error,
        }
    }

    /// That a value is registered already tells something of a record, which may lie outside what
    /// the operator may read: it is told, so that nobody is registered twice, and recorded first.
    fn record_matches<'a>(
        &self,
        session: &Session,
        (kind, of): (&Kind, &Purpose),
        said: impl Iterator<Item = (&'a str, &'a str)>,
        now: UnixMillis,
    ) -> Result<()> {
        let fields: Vec<&str> = said
            .filter(|(field, reason)| *reason == registered_already(field).reason)
            .map(|(field, _)| field)
            .collect();
        if fields.is_empty() {
            return Ok(());
        }
        let reading = Reading {
            operator: session.operator,
            role: session.role.as_str().to_owned(),
            purpose: of.clone(),
            basis: None,
            kind: kind.clone(),
            filters: Vec::new(),
            fields: BTreeSet::from_iter(fields.iter().map(|field| (*field).to_owned()))
                .into_iter()
                .collect(),
            policy: self.policies().hash(),
            records: fields.len() as u64,
            denied: None,
        };
        self.record_access(session, reading, Vec::new(), now)?;
        Ok(())
    }

    /// Seals and appends the first versions of records, and puts them into the index; gives the
    /// index of the first. The one commit is in here.
    fn register_rows(
        &self,
        (book, holding): (&mut Book, &mut Holding),
        schema: &Schema,
        rows: &[Row],
        signer: &Signer<'_>,
        now: UnixMillis,
        extend: impl FnOnce(&mut store::Batch, u64),
    ) -> Result<u64> {
        let shard = holding.origin.clone();
        let secrets: Vec<_> = rows.iter().map(|row| (row.record, &row.secret)).collect();
        let page = self.keep_secrets(&secrets)?;
        let Access::Own(keys) = &holding.access else {
            return Err(RegistryError::damaged("an own shard is held by grant"));
        };
        let (epoch, keys) = keys.current();
        let mut rng = rng()?;
        let leaves = rows
            .iter()
            .map(|row| {
                let context = context(&shard, row.record, 1, schema, epoch);
                let secret = &row.secret;
                let body =
                    seal::body::seal_body(&row.checked, schema, &context, keys, secret, &mut rng)
                        .map_err(|e| RegistryError::damaged(e.to_string()))?;
                Ok(leaf(&context, Operation::Register, None, body, now))
            })
            .collect::<Result<_>>()?;
        let appended = self.append(book, signer, leaves, now, |batch, first, hashes| {
            crate::secrets::point_to(batch, &shard, page);
            for ((at, row), leaf) in (first..).zip(rows).zip(hashes) {
                let newest = newest(at, 1, *leaf, page);
                batch.put(
                    table::key(&shard, table::RECORD, &row.record.0),
                    cbor::to_vec(&newest),
                );
            }
            extend(batch, first);
        })?;
        for (at, row) in (appended.first..).zip(rows) {
            holding
                .index
                .upsert(row.record, 1, at, &texts(&row.checked));
        }
        holding.index.set_applied(appended.size);
        self.counters.registered(rows.len() as u64);
        Ok(appended.first)
    }

    /// Registers one record at somebody's proposal: once for each. Given again, it says what was
    /// written.
    ///
    /// # Errors
    /// As [`Registry::amend`].
    pub(crate) fn register_from(
        &self,
        session: &Session,
        (kind, fields): (&Kind, BTreeMap<String, String>),
        of: &Purpose,
        source: Hash,
        now: UnixMillis,
    ) -> Result<Registered> {
        let schema = self.schema(kind)?;
        let positions = written(schema, fields.keys());
        let allowed = self.may_write(session, schema, &positions, of)?;
        let shard = self.shard(kind);
        let holding = self.holding(&shard)?;
        let book = self.book(&shard)?;
        let mut book = lock(&book);
        if let Some(written) = self.written_at_proposal(&shard, Some(&source))? {
            return Ok(written);
        }
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::new();
        let checked = Draft { fields }
            .check(schema, self.catalogue(), &today(now))
            .and_then(|checked| own_rows(&allowed, &self.config.division, checked))
            .and_then(
                |checked| match doubles(schema, &checked, 1, &mut seen, &holding.index) {
                    found if found.is_empty() => Ok(checked),
                    found => Err(found),
                },
            );
        let checked = match checked {
            Ok(checked) => checked,
            Err(violations) => {
                drop(holding);
                drop(book);
                return Err(self.invalid(session, (kind, of), violations, now));
            }
        };
        let mut rng = rng()?;
        let mut id = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng, &mut id);
        let row = Row {
            number: 1,
            record: RecordId(id),
            secret: RecordSecret::generate(&mut rng),
            checked: checked.since(None),
        };
        let signer = session.signer(of.clone(), Some(source));
        let place = (&mut *book, &mut *holding);
        let rows = std::slice::from_ref(&row);
        let index = self.register_rows(place, schema, rows, &signer, now, |batch, first| {
            crate::proposals::note_source(batch, &shard, &source, first);
        })?;
        drop(holding);
        drop(book);
        self.changed();
        Ok(Registered {
            record: row.record,
            version: 1,
            origin: shard,
            index,
        })
    }

    /// Amends or closes a record.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NotFound`], [`RegistryError::Conflict`] when
    /// the record has a later version, [`RegistryError::Invalid`] with every violation.
    pub fn amend(
        &self,
        session: &Session,
        amendment: &Amendment,
        now: UnixMillis,
    ) -> Result<Registered> {
        self.amend_from(session, amendment, None, now)
    }

    /// The same, at somebody's proposal: once for each. Given again, it says what was written.
    pub(crate) fn amend_from(
        &self,
        session: &Session,
        amendment: &Amendment,
        source: Option<Hash>,
        now: UnixMillis,
    ) -> Result<Registered> {
        let schema = self.schema(&amendment.kind)?;
        let mut positions = written(schema, amendment.changes.keys());
        positions.insert(STATUS);
        let allowed = self.may_write(session, schema, &positions, &amendment.purpose)?;
        let shard = self.shard(&amendment.kind);
        let holding = self.holding(&shard)?;
        let book = self.book(&shard)?;
        let mut book = lock(&book);
        if let Some(written) = self.written_at_proposal(&shard, source.as_ref())? {
            return Ok(written);
        }
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        let newest_version = self.newest(&shard, &amendment.record)?.ok_or_else(|| {
            RegistryError::NotFound {
                what: "记录 / record",
                name: amendment.record.to_string(),
                next: "read it again; only records of this node's own shards can be amended here",
            }
        })?;
        if newest_version.version != amendment.version {
            return Err(RegistryError::Stale {
                newest: newest_version.version,
            });
        }
        let newest_entry = self.newest_entry(&shard, &newest_version)?;
        if newest_entry.operation == Operation::Erase {
            return Err(RegistryError::NotFound {
                what: "记录 / record",
                name: amendment.record.to_string(),
                next: "it was erased; whoever is to be registered again gets a new record",
            });
        }
        self.refuse_moving(&shard, &amendment.record)?;
        let old = self.open_version(&holding, newest_version.at)?;
        let old_schema = self.schema_version(&amendment.kind, old.entry.schema)?;
        let previous = Checked::from_opened(old_schema, old.texts())
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
        own_rows(&allowed, &self.config.division, previous.clone())
            .map_err(RegistryError::Invalid)?;
        let mut draft = previous.draft(old_schema);
        for (field, text) in &amendment.changes {
            if text.is_empty() {
                draft.fields.remove(field);
            } else {
                draft.fields.insert(field.clone(), text.clone());
            }
        }
        let was_closed = previous.value(STATUS) == Some(index::CLOSED);
        if was_closed != amendment.reopen || (amendment.close && amendment.reopen) {
            return Err(RegistryError::BadRequest(
                if was_closed {
                    "记录已注销，请先恢复 / the record is closed; reopen it first"
                } else {
                    "记录未注销，无须恢复 / the record is not closed, there is nothing to reopen"
                }
                .into(),
            ));
        }
        if amendment.reopen {
            draft
                .fields
                .insert("status".into(), record::check::STATUS_DEFAULT.into());
        }
        if amendment.close {
            draft.fields.insert("status".into(), "60".into());
        }
        let checked = draft
            .check(schema, self.catalogue(), &today(now))
            .and_then(|checked| own_rows(&allowed, &self.config.division, checked))
            .and_then(|checked| {
                let doubles =
                    self.doubles_of_others(schema, &checked, &amendment.record, &holding.index);
                if doubles.is_empty() {
                    Ok(checked)
                } else {
                    Err(doubles)
                }
            });
        let checked = match checked {
            Ok(checked) => checked.since(Some(&previous)),
            Err(violations) => {
                drop(holding);
                drop(book);
                let of = (&amendment.kind, &amendment.purpose);
                return Err(self.invalid(session, of, violations, now));
            }
        };
        let version = newest_version.version + 1;
        let operation = if amendment.close {
            Operation::Close
        } else if amendment.reopen {
            Operation::Reopen
        } else {
            Operation::Amend
        };
        let secret = self.secret(&shard, &amendment.record, &newest_version)?;
        let Access::Own(keys) = &holding.access else {
            return Err(RegistryError::damaged("an own shard is held by grant"));
        };
        let (epoch, keys) = keys.current();
        let context = context(&shard, amendment.record, version, schema, epoch);
        let body = seal::body::seal_body(&checked, schema, &context, keys, &secret, &mut rng()?)
            .map_err(|e| RegistryError::damaged(e.to_string()))?;
        let previous = Some(newest_version.leaf);
        let leaves = vec![leaf(&context, operation, previous, body, now)];
        let signer = session.signer(amendment.purpose.clone(), source);
        let appended = self.append(&mut book, &signer, leaves, now, |batch, first, hashes| {
            let next = Newest {
                at: first,
                version,
                leaf: hashes[0],
                ..newest_version.clone()
            };
            if let Some(source) = &source {
                crate::proposals::note_source(batch, &shard, source, first);
            }
            batch.put(
                table::key(&shard, table::RECORD, &amendment.record.0),
                cbor::to_vec(&next),
            );
        })?;
        holding
            .index
            .upsert(amendment.record, version, appended.first, &texts(&checked));
        holding.index.set_applied(appended.size);
        drop(holding);
        drop(book);
        self.changed();
        Ok(Registered {
            record: amendment.record,
            version,
            origin: shard,
            index: appended.first,
        })
    }

    /// What earlier runs over the same file registered, by block.
    fn taken(
        &self,
        shard: &Origin,
        source: &Hash,
        numbers: &[u64],
    ) -> Result<BTreeMap<u64, Taken>> {
        let blocks: BTreeSet<u64> = numbers.iter().map(|number| number / BLOCK_ROWS).collect();
        let mut taken = BTreeMap::new();
        for block in blocks {
            let bytes = self.store.get(&block_key(shard, source, block))?;
            let rows = bytes
                .map(|bytes| table::decode("import block", &bytes))
                .transpose()?;
            taken.insert(block, rows.unwrap_or_default());
        }
        Ok(taken)
    }

    /// The unique values of a row with other faults that are taken already.
    fn taken_values(
        &self,
        schema: &Schema,
        fields: &BTreeMap<String, String>,
        seen: &HashMap<(Position, String), u64>,
        index: &index::Index,
        violations: &mut Vec<Violation>,
    ) {
        for field in schema.fields.iter().filter(|field| field.unique) {
            let faulty = violations
                .iter()
                .any(|violation| violation.field == field.id);
            let value = fields.get(&field.id).and_then(|text| {
                record::check::canonical(field, self.catalogue(), text)
                    .ok()
                    .flatten()
            });
            let Some(value) = value.filter(|_| !faulty) else {
                continue;
            };
            if index.exists(field.position, &value).is_some() {
                violations.push(registered_already(&field.id));
            } else if let Some(first) = seen.get(&(field.position, value)) {
                violations.push(stands_twice(&field.id, *first));
            }
        }
    }

    fn doubles_of_others(
        &self,
        schema: &Schema,
        checked: &Checked,
        own: &RecordId,
        index: &index::Index,
    ) -> Vec<Violation> {
        schema
            .fields
            .iter()
            .filter(|field| field.unique)
            .filter(|field| {
                checked
                    .value(field.position)
                    .and_then(|value| index.exists(field.position, value))
                    .is_some_and(|other| other != *own)
            })
            .map(|field| registered_already(&field.id))
            .collect()
    }
}

/// The positions that these field ids write; `status` always is.
fn written<'a>(schema: &Schema, ids: impl Iterator<Item = &'a String>) -> BTreeSet<Position> {
    let mut positions: BTreeSet<Position> = ids
        .filter_map(|id| schema.field(id))
        .map(|field| field.position)
        .collect();
    positions.insert(STATUS);
    positions
}

/// A grid worker writes rows of the own grid only; the policy says so as a row rule.
fn own_rows(
    allowed: &policy::Allowed,
    division: &DivisionId,
    checked: Checked,
) -> std::result::Result<Checked, Vec<Violation>> {
    let row = policy::RowAttributes {
        grid: checked.value(GRID),
        status: checked.value(STATUS).unwrap_or_default(),
        division: division.as_str(),
    };
    if allowed.rows().matches(&row) {
        return Ok(checked);
    }
    Err(vec![Violation {
        field: "grid".into(),
        reason: format!(
            "不在您的网格范围内（规则 {0}） / not a row that you may write (rule `{0}`); hand it to the worker of that grid",
            allowed.rule()
        ),
    }])
}

fn stands_twice(field: &str, first: u64) -> Violation {
    Violation {
        field: field.to_owned(),
        reason: format!(
            "与第 {first} 行重复 / the same value stands in row {first}; keep one of them"
        ),
    }
}

pub(crate) fn registered_already(field: &str) -> Violation {
    Violation {
        field: field.to_owned(),
        reason: "已登记在册，请改用变更，或核对后更正 / registered already; amend that record instead, or correct the value".into(),
    }
}

/// Unique values that are in force already, or stand twice in this file.
fn doubles(
    schema: &Schema,
    checked: &Checked,
    row: u64,
    seen: &mut HashMap<(Position, String), u64>,
    index: &index::Index,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for field in schema.fields.iter().filter(|field| field.unique) {
        let Some(value) = checked.value(field.position) else {
            continue;
        };
        if index.exists(field.position, value).is_some() {
            found.push(registered_already(&field.id));
        } else if let Some(first) = seen.insert((field.position, value.to_owned()), row) {
            found.push(stands_twice(&field.id, first));
        }
    }
    found
}

fn texts(checked: &Checked) -> BTreeMap<Position, String> {
    checked
        .values()
        .map(|(position, value)| (position, value.to_owned()))
        .collect()
}

fn context<'a>(
    origin: &'a Origin,
    record: RecordId,
    version: u64,
    schema: &Schema,
    epoch: u32,
) -> CellContext<'a> {
    CellContext {
        origin,
        record,
        version,
        epoch,
        schema: schema.version,
    }
}

fn leaf(
    context: &CellContext<'_>,
    operation: Operation,
    previous: Option<Hash>,
    body: SealedBody,
    now: UnixMillis,
) -> Leaf {
    Leaf {
        entry: Entry::Record(RecordEntry {
            suite: SUITE,
            record: context.record,
            version: context.version,
            operation,
            previous,
            schema: context.schema,
            epoch: context.epoch,
            content: body.content,
            body: body.hash,
            recorded_at: now,
        }),
        body: Some(body.bytes),
    }
}

fn newest(at: u64, version: u64, leaf: Hash, chunk: ChunkAt) -> Newest {
    Newest {
        at,
        version,
        leaf,
        page: chunk.page,
        offset: chunk.offset,
        length: chunk.len,
    }
}

fn block_key(shard: &Origin, source: &Hash, block: u64) -> store::Key {
    let mut rest = source.to_vec();
    rest.extend(block.to_be_bytes());
    table::key(shard, table::IMPORT, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn today_is_the_civil_date_in_china() {
        assert_eq!(today(UnixMillis(0)), "1970-01-01");
        assert_eq!(today(UnixMillis(951_782_400_000)), "2000-02-29");
        // 2026-11-21 16:00 UTC is the 22nd in China.
        assert_eq!(today(UnixMillis(1_795_276_800_000)), "2026-11-22");
    }
}
