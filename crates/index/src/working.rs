//! The working index of one shard or one grant's holding.
//!
//! Owns the rows: which record is where, and which columns are kept. A row's number
//! is reused after a removal and means nothing outside.

use std::collections::BTreeMap;

use record::id::{Kind, RecordId};
use record::schema::{GRID, Position, STATUS, Schema, VALID_FROM};

use crate::classes::Classes;
use crate::column::{Column, Rows, reserve_slim};
use crate::find::Found;
use crate::stamps::Stamps;
use crate::table::{Table, hash_of};

/// The status of a record that is no longer in force (code list `status`: 撤销).
pub const CLOSED: &str = "60";

/// The class of a row that holds no record.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// The place of a record in one index; it changes when the index is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub u32);

/// What a row predicate is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes<'a> {
    /// The grid, if the record has one.
    pub grid: Option<&'a str>,
    /// The status code; empty when the record carries none.
    pub status: &'a str,
}

/// How many records there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By status code.
    pub by_status: BTreeMap<String, usize>,
    /// By grid; `None` counts records without one.
    pub by_grid: BTreeMap<Option<String>, usize>,
}

/// Compact columns of the attributes that this node may read, of one kind.
///
/// A million rows with four searchable columns of 12 bytes take about 130 MiB
/// (`cargo run --release -p index --example million`).
pub struct Index {
    pub(crate) kind: Kind,
    pub(crate) schema: u32,
    pub(crate) applied: u64,
    /// Row to record id; what a free row has here means nothing.
    pub(crate) ids: Vec<RecordId>,
    pub(crate) stamps: Stamps,
    /// Row to class, or `NO_CLASS` for a free row.
    pub(crate) class_of: Vec<u32>,
    pub(crate) classes: Classes,
    /// By position; status and grid are in `classes`.
    pub(crate) columns: BTreeMap<Position, Column>,
    pub(crate) searchable: Vec<Position>,
    by_id: Table,
    free: Vec<u32>,
}

impl Index {
    /// An empty index for the records of a schema.
    ///
    /// It keeps the searchable and the unique fields, status, valid-from and grid.
    pub fn new(schema: &Schema) -> Index {
        let kept = schema.fields.iter().filter(|f| f.searchable || f.unique);
        let mut columns: BTreeMap<Position, Column> = kept
            .map(|field| (field.position, Column::default()))
            .collect();
        columns.insert(VALID_FROM, Column::default());
        columns.remove(&STATUS);
        columns.remove(&GRID);
        let searchable = schema.fields.iter().filter(|field| field.searchable);
        Index {
            kind: schema.kind.clone(),
            schema: schema.version,
            applied: 0,
            ids: Vec::new(),
            stamps: Stamps::default(),
            class_of: Vec::new(),
            classes: Classes::default(),
            columns,
            searchable: searchable.map(|field| field.position).collect(),
            by_id: Table::default(),
            free: Vec::new(),
        }
    }

    /// Whether this index keeps what the schema asks for; build another if not.
    pub fn is_for(&self, schema: &Schema) -> bool {
        let fresh = Index::new(schema);
        self.kind == fresh.kind
            && self.schema == fresh.schema
            && self.searchable == fresh.searchable
            && self.columns.keys().eq(fresh.columns.keys())
    }

    /// Puts a record's values in the place of those it had.
    ///
    /// `at` is the ledger index of its newest entry. Positions that are not kept are
    /// passed over; a kept position without a value is absent from the row.
    pub fn upsert(
        &mut self,
        record: RecordId,
        version: u64,
        at: u64,
        values: &BTreeMap<Position, String>,
    ) {
        let value = |position: Position| values.get(&position).map(String::as_str);
        let Row(row) = self.claim(record);
        self.stamps.set(row, version, at);
        self.set_attributes(row, value(GRID), value(STATUS).unwrap_or_default());
        for (position, column) in &mut self.columns {
            column.set(row, value(*position));
        }
    }

    /// Forgets a record and wipes its values. A record that is not here is no error.
    pub fn remove(&mut self, record: RecordId) {
        let Some(Row(row)) = self.row(record) else {
            return;
        };
        for column in self.columns.values_mut() {
            column.set(row, None);
        }
        let class = std::mem::replace(&mut self.class_of[row as usize], NO_CLASS);
        self.classes.leave(class);
        let ids = &self.ids;
        let rehash = |row: u32| hash_of(&ids[row as usize]);
        self.by_id.remove(hash_of(&record), row, rehash);
        self.free.push(row);
    }

    /// Where a record stands, if it is here.
    pub fn get(&self, record: RecordId) -> Option<Found> {
        self.row(record).map(|Row(row)| self.found(row))
    }

    /// The grid and status of a record, if it is here.
    pub fn attributes_of(&self, record: RecordId) -> Option<Attributes<'_>> {
        self.row(record).map(|Row(row)| self.attributes(row))
    }

    /// From when a record's version is true, if it says so.
    pub fn valid_from(&self, record: RecordId) -> Option<&str> {
        let Row(row) = self.row(record)?;
        self.columns.get(&VALID_FROM)?.value(row)
    }

    /// How many records are here.
    pub fn len(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// Whether no record is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the ledger that this index covers.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// States the size of the ledger that this index covers.
    pub fn set_applied(&mut self, size: u64) {
        self.applied = size;
    }

    /// A record in force (status not [`CLOSED`]) with this value; the lowest id if several.
    ///
    /// For unique fields. `None` also at a position that is not kept: ask only for
    /// fields that the index's own schema marks unique or searchable ([`Index::is_for`]).
    pub fn exists(&self, position: Position, value: &str) -> Option<RecordId> {
        let in_force = |row: &&u32| self.attributes(**row).status != CLOSED;
        let least = |rows: &[u32]| {
            let records = rows.iter().filter(in_force);
            records.map(|row| self.ids[*row as usize]).min()
        };
        match self.columns.get(&position)?.rows(value) {
            Rows::None => None,
            Rows::One(row) => least(&[row]),
            Rows::Many(rows) => least(rows),
        }
    }

    /// The distinct pairs of grid and status, in order: a caller decides once for each.
    pub fn distinct(&self) -> Vec<Attributes<'_>> {
        let classes = self.classes.all().iter().filter(|class| class.rows > 0);
        let mut all: Vec<Attributes<'_>> = classes.map(|class| class.attributes()).collect();
        all.sort_unstable();
        all
    }

    /// How many records there are by status and by grid.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for class in self.classes.all().iter().filter(|class| class.rows > 0) {
            *counts.by_status.entry(class.status.clone()).or_default() += class.rows;
            *counts.by_grid.entry(class.grid.clone()).or_default() += class.rows;
        }
        counts
    }

    pub(crate) fn attributes(&self, row: u32) -> Attributes<'_> {
        self.classes.get(self.class_of[row as usize]).attributes()
    }

    pub(crate) fn found(&self, row: u32) -> Found {
        let (version, at) = self.stamps.get(row);
        Found {
            record: self.ids[row as usize],
            version,
            at,
        }
    }

    pub(crate) fn row(&self, record: RecordId) -> Option<Row> {
        let same = |row: u32| self.ids[row as usize] == record;
        self.by_id.get(hash_of(&record), same).map(Row)
    }

    /// The record's row, or a free one made its own, in the class of no grid and no status.
    pub(crate) fn claim(&mut self, record: RecordId) -> Row {
        if let Some(row) = self.row(record) {
            return row;
        }
        let row = match self.free.pop() {
            Some(row) => row,
            None => {
                reserve_slim(&mut self.ids);
                reserve_slim(&mut self.class_of);
                self.ids.push(record);
                self.class_of.push(NO_CLASS);
                // Columns mark lists of rows with the highest bit.
                u32::try_from(self.ids.len() - 1)
                    .ok()
                    .filter(|row| row >> 31 == 0)
                    .expect("two thousand million rows do not fit into memory")
            }
        };
        self.ids[row as usize] = record;
        let ids = &self.ids;
        let rehash = |row: u32| hash_of(&ids[row as usize]);
        self.by_id.insert(hash_of(&record), row, rehash);
        self.class_of[row as usize] = self.classes.join(Attributes {
            grid: None,
            status: "",
        });
        Row(row)
    }

    pub(crate) fn set_attributes(&mut self, row: u32, grid: Option<&str>, status: &str) {
        let class = self.classes.join(Attributes { grid, status });
        let old = std::mem::replace(&mut self.class_of[row as usize], class);
        self.classes.leave(old);
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({}, {} records)", self.kind, self.len())
    }
}
