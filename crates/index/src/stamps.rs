//! Version and ledger index of each row, in eight bytes.
//!
//! Owns the compact form: both numbers are below 2^32 in any real shard; a row where
//! one is not lies in a map beside.

use std::collections::BTreeMap;

use crate::column::reserve_slim;

const WIDE: (u32, u32) = (u32::MAX, u32::MAX);

#[derive(Default)]
pub(crate) struct Stamps {
    narrow: Vec<(u32, u32)>,
    wide: BTreeMap<u32, (u64, u64)>,
}

impl Stamps {
    pub(crate) fn set(&mut self, row: u32, version: u64, at: u64) {
        let narrow = match (u32::try_from(version), u32::try_from(at)) {
            (Ok(version), Ok(at)) if (version, at) != WIDE => {
                self.wide.remove(&row);
                (version, at)
            }
            _ => {
                self.wide.insert(row, (version, at));
                WIDE
            }
        };
        while self.narrow.len() <= row as usize {
            reserve_slim(&mut self.narrow);
            self.narrow.push((0, 0));
        }
        self.narrow[row as usize] = narrow;
    }

    pub(crate) fn get(&self, row: u32) -> (u64, u64) {
        match self.narrow[row as usize] {
            WIDE => self.wide.get(&row).copied().unwrap_or_default(),
            (version, at) => (version.into(), at.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back_and_replace_each_other() {
        let mut stamps = Stamps::default();
        let edge = u64::from(u32::MAX);
        for (version, at) in [
            (1, 2),
            (edge, edge),
            (u64::MAX, 0),
            (edge, 3),
            (3, edge + 1),
            (0, 0),
        ] {
            stamps.set(5, version, at);
            assert_eq!(stamps.get(5), (version, at));
        }
        assert!(stamps.wide.is_empty());
    }
}
