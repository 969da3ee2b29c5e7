//! What was committed after the end of a scan, beside a store that is in use.
//!
//! Owns the reading of groups that came since: which bodies they say are erased, and what they gave
//! to keys. The scan shows the state of one moment; a body that was in it may be overwritten before
//! it is read, and a group that came since says so.
//! Refuses to be the state: whoever wants what is there now scans again.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{ReadError, read_io};
use crate::format::{Pointer, SEGMENT_HEADER};
use crate::frame::Kind;
use crate::segment;
use crate::walk::{Group, Step, Walk};

/// Up to where groups were read, and what they said.
pub(super) struct Later {
    dir: PathBuf,
    /// The last segment and the offset in it; `None` when there was no last segment.
    at: Option<(u32, u64)>,
    /// Bodies that erase frames name.
    erased: HashSet<Pointer>,
    /// Of the newest group: its segment, and up to where that was durable when it was written.
    synced: Option<(u32, u32)>,
}

impl Later {
    pub(super) fn new(dir: &Path, at: Option<(u32, u64)>) -> Later {
        Later {
            dir: dir.to_owned(),
            at,
            erased: HashSet::new(),
            synced: None,
        }
    }

    /// Reads what came since it was last asked. What was overwritten before this call is named
    /// after it: the group that announces an erasure is durable before anything is overwritten.
    pub(super) fn read_on(&mut self) -> Result<(), ReadError> {
        let (erased, synced) = (&mut self.erased, &mut self.synced);
        self.at = each_since(&self.dir, self.at, &mut |group| {
            *synced = Some((group.segment, group.header.synced));
            let erasures = group
                .frames
                .iter()
                .filter(|f| f.kind == Kind::Erase && f.good);
            erased.extend(erasures.filter_map(|f| Pointer::decode(f.value(group.bytes))));
        })?;
        Ok(())
    }

    /// Whether a group that was read says that this body is erased.
    pub(super) fn erases(&self, body: &Pointer) -> bool {
        self.erased.contains(body)
    }

    /// Whether a group was read that comes after this place.
    pub(super) fn is_beyond(&self, segment: u32, offset: u64) -> bool {
        self.at.is_some_and(|at| at > (segment, offset))
    }

    /// Whether a round of writing began after the one of the group at this place: then what that
    /// one announced is done.
    pub(super) fn is_round_over(&self, segment: u32, offset: u32) -> bool {
        is_round_over(self.synced, segment, offset)
    }
}

/// The same, with the newest group known otherwise.
pub(super) fn is_round_over(newest: Option<(u32, u32)>, segment: u32, offset: u32) -> bool {
    newest.is_some_and(|newest| newest > (segment, offset))
}

/// Shows every whole group from a place on, and says up to where there were any.
pub(super) fn each_since(
    dir: &Path,
    at: Option<(u32, u64)>,
    visit: &mut dyn FnMut(&Group<'_>),
) -> Result<Option<(u32, u64)>, ReadError> {
    let Some((mut number, mut offset)) = at else {
        return Ok(None);
    };
    loop {
        let path = segment::path(dir, number);
        let io = || read_io(&path);
        // Asked first: when the next segment has begun, this one grows no more.
        let is_full = segment::path(dir, number + 1).exists();
        let file = File::open(&path).map_err(io())?;
        let mut walk = Walk::new(file, number).map_err(io())?;
        loop {
            let end = match walk.step(offset).map_err(io())? {
                Step::End => break,
                Step::Group(group) => {
                    if group.fault().is_none() {
                        visit(&group);
                    }
                    Some(u64::from(group.end()))
                }
                Step::Short | Step::Bad => None,
            };
            offset = match end {
                Some(end) => end,
                // Damage there has its own finding, or none yet; what follows is read all the same.
                None => match walk.next_header(offset).map_err(io())? {
                    Some((next, _)) => next,
                    None => break,
                },
            };
        }
        if !is_full {
            return Ok(Some((number, offset)));
        }
        (number, offset) = (number + 1, SEGMENT_HEADER.into());
    }
}
