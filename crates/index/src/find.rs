//! A search: filters, a row predicate, and one page of what matches.
//!
//! Owns the order of results (ascending record id, which is random and tells nothing)
//! and the refusal of fields that the schema does not mark searchable.

use std::collections::BinaryHeap;

use record::id::RecordId;
use record::schema::{GRID, Position, STATUS};

use crate::arena::Address;
use crate::column::{Column, Rows};
use crate::working::{Attributes, Index, NO_CLASS};

/// What a value must be for its row to match. Letters count as written.
#[derive(Clone, PartialEq, Eq)]
pub enum Match {
    /// The value is this text.
    Equals(String),
    /// The value begins with this text.
    Prefix(String),
    /// The value has this text in it.
    Contains(String),
}

impl Match {
    fn holds(&self, value: &str) -> bool {
        match self {
            Match::Equals(text) => value == text,
            Match::Prefix(text) => value.starts_with(text.as_str()),
            Match::Contains(text) => value.contains(text.as_str()),
        }
    }
}

impl std::fmt::Debug for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What somebody looks for is often a citizen's number.
        f.write_str(match self {
            Match::Equals(_) => "Equals(..)",
            Match::Prefix(_) => "Prefix(..)",
            Match::Contains(_) => "Contains(..)",
        })
    }
}

/// Where a record stands in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: u64,
    /// The ledger index of its newest entry.
    pub at: u64,
}

/// One page of what a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// By ascending record id.
    pub found: Vec<Found>,
    /// Whether more match: ask again with `after` the last record.
    pub more: bool,
}

/// Why a search was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The filter names a field that is not searchable.
    #[error(
        "the field at position {position} is not searchable; leave it out of the filter, or mark it `searchable` in the schema"
    )]
    NotSearchable {
        /// The field's position.
        position: Position,
    },
}

/// A filter on a column, made ready for asking row by row.
enum Test<'a> {
    /// Rows of one value have one address.
    Address(&'a Column, Address),
    Text(&'a Column, &'a Match),
}

impl Test<'_> {
    fn holds(&self, row: u32) -> bool {
        match self {
            Test::Address(column, address) => column.start(row) == Some(*address),
            Test::Text(column, wanted) => {
                column.value(row).is_some_and(|value| wanted.holds(value))
            }
        }
    }
}

impl Index {
    /// The records that satisfy all filters and the row predicate, after `after`, at most `limit`.
    ///
    /// `rows` is asked once per distinct pair of grid and status, not per row. An equal
    /// match costs a hash lookup; a prefix, a part or no filter at all costs a scan.
    /// `after` need not be in the index any more.
    ///
    /// # Errors
    /// [`FindError::NotSearchable`] when a filter names a field that the schema does
    /// not mark searchable: the caller must drop it, an empty page would be a lie.
    pub fn find(
        &self,
        filters: &[(Position, Match)],
        rows: &dyn Fn(&Attributes<'_>) -> bool,
        limit: usize,
        after: Option<RecordId>,
    ) -> Result<Page, FindError> {
        let refused = filters.iter().find(|(p, _)| !self.searchable.contains(p));
        if let Some((position, _)) = refused {
            let position = *position;
            return Err(FindError::NotSearchable { position });
        }
        let admitted = self.admitted_classes(filters, rows);
        let Some((driver, tests)) = self.tests(filters) else {
            return Ok(Page::default());
        };

        // The lowest ids that match; one more than asked for tells whether there are more.
        let wanted = limit.saturating_add(1);
        let mut lowest: BinaryHeap<(RecordId, u32)> = BinaryHeap::new();
        let mut consider = |row: u32| {
            let class = self.class_of[row as usize];
            if class == NO_CLASS || !admitted[class as usize] {
                return;
            }
            let id = self.ids[row as usize];
            let full = lowest.len() >= wanted;
            let too_high = full && lowest.peek().is_some_and(|(highest, _)| id >= *highest);
            if too_high || after.is_some_and(|after| id <= after) {
                return;
            }
            if tests.iter().all(|test| test.holds(row)) {
                lowest.push((id, row));
                if lowest.len() > wanted {
                    lowest.pop();
                }
            }
        };
        match driver {
            None => (0..self.ids.len() as u32).for_each(&mut consider),
            Some(Rows::None) => {}
            Some(Rows::One(row)) => consider(row),
            Some(Rows::Many(rows)) => rows.iter().copied().for_each(&mut consider),
        }
        let sorted = lowest.into_sorted_vec();
        let found = sorted.iter().take(limit);
        Ok(Page {
            found: found.map(|(_, row)| self.found(*row)).collect(),
            more: sorted.len() > limit,
        })
    }

    /// By class number: whether the predicate and the filters on status and grid admit it.
    fn admitted_classes(
        &self,
        filters: &[(Position, Match)],
        rows: &dyn Fn(&Attributes<'_>) -> bool,
    ) -> Vec<bool> {
        let filtered = |attributes: Attributes<'_>| {
            filters.iter().all(|(position, wanted)| match *position {
                STATUS => wanted.holds(attributes.status),
                GRID => attributes.grid.is_some_and(|grid| wanted.holds(grid)),
                _ => true,
            })
        };
        let admits = |attributes| filtered(attributes) && rows(&attributes);
        let classes = self.classes.all().iter();
        classes
            .map(|class| class.rows > 0 && admits(class.attributes()))
            .collect()
    }

    /// The shortest list of rows that an equal match gives, and what to ask of each row.
    ///
    /// `None` when no row has one of the values.
    fn tests<'a>(
        &'a self,
        filters: &'a [(Position, Match)],
    ) -> Option<(Option<Rows<'a>>, Vec<Test<'a>>)> {
        let mut driver: Option<Rows<'a>> = None;
        let mut tests = Vec::new();
        for (position, wanted) in filters {
            let Some(column) = self.columns.get(position) else {
                continue; // Status and grid: answered by class.
            };
            let Match::Equals(text) = wanted else {
                tests.push(Test::Text(column, wanted));
                continue;
            };
            let rows = column.rows(text);
            let first = match rows {
                Rows::None => return None,
                Rows::One(row) => row,
                Rows::Many(rows) => rows[0],
            };
            tests.push(Test::Address(column, column.start(first)?));
            if driver.is_none_or(|shortest| rows.len() < shortest.len()) {
                driver = Some(rows);
            }
        }
        Some((driver, tests))
    }
}
