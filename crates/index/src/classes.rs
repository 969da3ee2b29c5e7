//! The distinct pairs of grid and status, and how many rows have each.
//!
//! Owns the numbering of classes. There are a few thousand at most where there are a
//! million rows, so a row predicate is asked once per class and never per row.

use crate::table::{Table, hash_of};
use crate::working::Attributes;

pub(crate) struct Class {
    pub(crate) grid: Option<String>,
    pub(crate) status: String,
    pub(crate) rows: usize,
}

impl Class {
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes {
            grid: self.grid.as_deref(),
            status: &self.status,
        }
    }
}

#[derive(Default)]
pub(crate) struct Classes {
    classes: Vec<Class>,
    free: Vec<u32>,
    table: Table,
}

impl Classes {
    /// The class of these attributes, with one row more in it.
    pub(crate) fn join(&mut self, attributes: Attributes<'_>) -> u32 {
        let hash = hash_of(&attributes);
        let classes = &self.classes;
        let same = |number: u32| classes[number as usize].attributes() == attributes;
        if let Some(number) = self.table.get(hash, same) {
            self.classes[number as usize].rows += 1;
            return number;
        }
        let class = Class {
            grid: attributes.grid.map(str::to_owned),
            status: attributes.status.to_owned(),
            rows: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.classes[number as usize] = class;
                number
            }
            None => {
                self.classes.push(class);
                u32::try_from(self.classes.len() - 1).expect("there are fewer classes than rows")
            }
        };
        let classes = &self.classes;
        let rehash = |number: u32| hash_of(&classes[number as usize].attributes());
        self.table.insert(hash, number, rehash);
        number
    }

    /// Takes one row out of a class, and forgets the class with its last row.
    pub(crate) fn leave(&mut self, number: u32) {
        self.classes[number as usize].rows -= 1;
        if self.classes[number as usize].rows == 0 {
            let classes = &self.classes;
            let rehash = |number: u32| hash_of(&classes[number as usize].attributes());
            self.table.remove(rehash(number), number, rehash);
            self.free.push(number);
        }
    }

    pub(crate) fn get(&self, number: u32) -> &Class {
        &self.classes[number as usize]
    }

    /// All numbers given so far; a class without rows stands for a free number.
    pub(crate) fn all(&self) -> &[Class] {
        &self.classes
    }
}
