//! Which files make up the segments, in which order.
//!
//! Owns the rule that a file made by compaction takes the place of the segments that its header
//! names, and of every older file for any of them.
//! Refuses to guess: a segment that no file stands for is missing, and two files that overlap
//! without one covering the other are damage.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{FIRST, KEPT, folder, number, path, read_up_to};
use crate::format::{KEPT_HEADER, KeptHeader};

/// How often a folder is listed before what is missing in it counts as missing.
const LISTINGS: u32 = 3;

/// A file that stands for segments `from` to `to`; a segment stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub number: u32,
    pub from: u32,
    pub to: u32,
    /// When it was listed; the last segment may have grown since.
    pub bytes: u64,
}

/// The files of `dir/segments/`.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Those that count, in order.
    pub files: Vec<Live>,
    /// Files whose segments a later one stands for.
    pub replaced: Vec<u32>,
    /// Files whose header does not say what they stand for, or that overlap.
    pub bad: Vec<u32>,
}

impl Order {
    /// Reads the names, and the headers of files made by compaction, beside a store that may be in
    /// use: whoever calls it holds the segments, so that only new ones come meanwhile.
    pub(crate) fn read_beside(dir: &Path) -> io::Result<Order> {
        let mut order = Order::read(dir)?;
        // A folder that is added to while it is listed may show a later file and not one before it.
        for _ in 1..LISTINGS {
            if order.gap().is_none() && order.bad.is_empty() {
                break;
            }
            order = Order::read(dir)?;
        }
        Ok(order)
    }

    /// Reads the names, and the headers of files made by compaction.
    pub(crate) fn read(dir: &Path) -> io::Result<Order> {
        let (mut all, mut unreadable, mut order) = (Vec::new(), Vec::new(), Order::default());
        for entry in std::fs::read_dir(folder(dir))? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if let Some(number) = number(&name, ".seg") {
                let bytes = entry.metadata()?.len();
                let (from, to) = (number, number);
                all.push(Live {
                    number,
                    from,
                    to,
                    bytes,
                });
            } else if let Some(plain) = number(&name, ".kept") {
                let bytes = entry.metadata()?.len();
                let number = plain | KEPT;
                let mut header = [0; KEPT_HEADER as usize];
                let file = File::open(path(dir, number))?;
                let have = read_up_to(&file, &mut header, 0)?;
                match KeptHeader::decode(&header[..have], number) {
                    Some(KeptHeader { from, to, .. }) => all.push(Live {
                        number,
                        from,
                        to,
                        bytes,
                    }),
                    None => unreadable.push(number),
                }
            }
        }
        // A file covers only what was there before it, so the latest comes first.
        all.sort_unstable_by_key(|file| std::cmp::Reverse(file.number));
        for file in all {
            let over = |live: &&Live| live.from <= file.to && file.from <= live.to;
            match order.files.iter().find(over) {
                None => order.files.push(file),
                Some(live) if live.from <= file.from && file.to <= live.to => {
                    order.replaced.push(file.number);
                }
                Some(_) => order.bad.push(file.number),
            }
        }
        order.files.sort_unstable_by_key(|file| file.from);
        // A file that was being overwritten, because another stands for its segments, may have
        // lost its header. Without a file that counts there would be a gap.
        let open = order
            .files
            .last()
            .is_some_and(|last| last.number & KEPT == 0);
        match order.gap() {
            None if open => order.replaced.append(&mut unreadable),
            _ => order.bad.append(&mut unreadable),
        }
        Ok(order)
    }

    /// The last segment; 0 when there is none.
    pub(crate) fn last(&self) -> u32 {
        self.files.last().map_or(0, |file| file.to)
    }

    /// The first segment that no file stands for.
    pub(crate) fn gap(&self) -> Option<u32> {
        let mut next = FIRST;
        for file in &self.files {
            if file.from != next {
                return Some(next);
            }
            next = file.to + 1;
        }
        None
    }

    /// Whether a file of this number counts.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.files.iter().any(|file| file.number == number)
    }
}
