//! The values of one field: by row, and rows by value.
//!
//! Owns the rule that equal values share one address, so that two rows are compared
//! by address, and that a value with several rows has one ascending list of them.

use crate::arena::{Address, Arena, NOWHERE, VALUE_MAX};
use crate::table::{Table, hash_of};

/// Marks a slot that names a list of rows rather than one row.
const LIST: u32 = 1 << 31;

#[derive(Default)]
pub(crate) struct Column {
    /// Row to address, or `NOWHERE` for a row without a value.
    starts: Vec<Address>,
    arena: Arena,
    table: Table,
    lists: Vec<Vec<u32>>,
    lists_free: Vec<u32>,
}

/// The rows that have one value.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    None,
    One(u32),
    Many(&'a [u32]),
}

impl Rows<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Rows::None => 0,
            Rows::One(_) => 1,
            Rows::Many(rows) => rows.len(),
        }
    }
}

impl Column {
    /// The value of a row.
    pub(crate) fn value(&self, row: u32) -> Option<&str> {
        self.start(row).map(|start| self.arena.get(start))
    }

    /// Where a row's value begins: rows of one value have one address.
    pub(crate) fn start(&self, row: u32) -> Option<Address> {
        let start = *self.starts.get(row as usize)?;
        (start != NOWHERE).then_some(start)
    }

    /// The rows that have exactly this value, ascending.
    pub(crate) fn rows(&self, value: &str) -> Rows<'_> {
        match self.slot(value, hash_of(value)) {
            None => Rows::None,
            Some(slot) if slot & LIST == 0 => Rows::One(slot),
            Some(slot) => Rows::Many(&self.lists[(slot ^ LIST) as usize]),
        }
    }

    /// Gives a row a value, or none; what it had is wiped unless another row has it.
    ///
    /// A value longer than any schema allows is left out.
    pub(crate) fn set(&mut self, row: u32, value: Option<&str>) {
        let value = value.filter(|value| value.len() <= VALUE_MAX);
        if self.value(row) == value {
            return;
        }
        self.clear(row);
        let Some(value) = value else { return };
        let hash = hash_of(value);
        let start = match self.slot(value, hash) {
            None => {
                let start = self.arena.push(value.as_bytes());
                let (starts, arena, lists) = (&self.starts, &self.arena, &self.lists);
                let rehash = |slot| hash_of(text(starts, arena, lists, slot));
                self.table.insert(hash, row, rehash);
                start
            }
            Some(slot) if slot & LIST == 0 => {
                let list = self.list(vec![slot.min(row), slot.max(row)]);
                self.table.replace(hash, slot, list);
                self.starts[slot as usize]
            }
            Some(slot) => {
                let list = &mut self.lists[(slot ^ LIST) as usize];
                let start = self.starts[list[0] as usize];
                let at = list.partition_point(|other| *other < row);
                reserve_slim(list);
                list.insert(at, row);
                start
            }
        };
        let at = row as usize;
        while self.starts.len() <= at {
            reserve_slim(&mut self.starts);
            self.starts.push(NOWHERE);
        }
        self.starts[at] = start;
    }

    fn clear(&mut self, row: u32) {
        let Some(start) = self.start(row) else { return };
        let value = self.arena.get(start);
        let hash = hash_of(value);
        let slot = self.slot(value, hash);
        match slot {
            Some(slot) if slot & LIST != 0 => {
                let list = &mut self.lists[(slot ^ LIST) as usize];
                if let Ok(at) = list.binary_search(&row) {
                    list.remove(at);
                }
                if let [last] = list[..] {
                    *list = Vec::new();
                    self.lists_free.push(slot ^ LIST);
                    self.table.replace(hash, slot, last);
                }
                self.starts[row as usize] = NOWHERE;
            }
            _ => {
                let (starts, arena, lists) = (&self.starts, &self.arena, &self.lists);
                let rehash = |slot| hash_of(text(starts, arena, lists, slot));
                self.table.remove(hash, row, rehash);
                self.starts[row as usize] = NOWHERE;
                self.arena.wipe(start);
                if self.arena.is_sparse() {
                    self.compact();
                }
            }
        }
    }

    fn slot(&self, value: &str, hash: u64) -> Option<u32> {
        let same = |slot| text(&self.starts, &self.arena, &self.lists, slot) == value;
        self.table.get(hash, same)
    }

    fn list(&mut self, rows: Vec<u32>) -> u32 {
        let number = match self.lists_free.pop() {
            Some(number) => number,
            None => {
                self.lists.push(Vec::new());
                u32::try_from(self.lists.len() - 1).expect("there are fewer lists than rows")
            }
        };
        self.lists[number as usize] = rows;
        number | LIST
    }

    /// Copies the live values to a fresh arena; hashes stay, so the table stays.
    fn compact(&mut self) {
        let mut arena = Arena::default();
        for slot in self.table.iter() {
            let value = text(&self.starts, &self.arena, &self.lists, slot);
            let start = arena.push(value.as_bytes());
            if slot & LIST == 0 {
                self.starts[slot as usize] = start;
            } else {
                for row in &self.lists[(slot ^ LIST) as usize] {
                    self.starts[*row as usize] = start;
                }
            }
        }
        self.arena = arena;
    }
}

/// The value that a slot stands for. Free of `self`, so that the table can change meanwhile.
fn text<'a>(starts: &[Address], arena: &'a Arena, lists: &[Vec<u32>], slot: u32) -> &'a str {
    let row = if slot & LIST == 0 {
        slot
    } else {
        lists[(slot ^ LIST) as usize][0]
    };
    arena.get(starts[row as usize])
}

/// Makes room for one more by an eighth: doubling would waste up to half of a large index.
pub(crate) fn reserve_slim<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 8).max(4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(column: &Column, value: &str) -> Vec<u32> {
        match column.rows(value) {
            Rows::None => Vec::new(),
            Rows::One(row) => vec![row],
            Rows::Many(rows) => rows.to_vec(),
        }
    }

    #[test]
    fn rows_of_one_value_share_its_address_and_are_listed_in_order() {
        let mut column = Column::default();
        for row in [4, 1, 9, 3] {
            column.set(row, Some("鼓楼街1号"));
        }
        assert_eq!(rows(&column, "鼓楼街1号"), [1, 3, 4, 9]);
        assert_eq!(column.start(1), column.start(9));
        column.set(3, None);
        column.set(1, Some("鼓楼街2号"));
        column.set(9, None);
        assert_eq!(rows(&column, "鼓楼街1号"), [4]);
        column.set(4, None);
        assert_eq!(rows(&column, "鼓楼街1号"), [] as [u32; 0]);
        assert_eq!(column.value(1), Some("鼓楼街2号"));
    }

    #[test]
    fn values_survive_the_compaction_that_many_removals_cause() {
        let mut column = Column::default();
        let name = |row: u32| format!("value {} of some length", row / 2);
        for row in 0..20_000 {
            column.set(row, Some(&name(row)));
        }
        for row in (0..20_000).filter(|row| row % 10 > 1) {
            column.set(row, None);
        }
        for row in 0..20_000 {
            let kept = row % 10 <= 1;
            assert_eq!(column.value(row), kept.then(|| name(row)).as_deref());
            assert_eq!(rows(&column, &name(row)).len(), if kept { 2 } else { 0 });
        }
    }

    #[test]
    fn a_value_longer_than_any_width_is_left_out() {
        let mut column = Column::default();
        column.set(0, Some("short"));
        column.set(0, Some(&"x".repeat(VALUE_MAX + 1)));
        assert_eq!(column.value(0), None);
    }
}
