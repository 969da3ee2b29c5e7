//! Bringing an index up to date with a compaction that it did not hear of.
//!
//! Owns the rule: a pointer into a file that is gone becomes the place that the key has in the
//! file that stands for it; every other pointer is newer than the compaction.
//! Refuses to touch what the replay behind the marker brings in anyway.

use std::path::Path;

use super::{damaged, index_failed};
use crate::error::{OpenError, open_io};
use crate::format;
use crate::frame::Kind;
use crate::index::{Entry, Index, IndexError, Place};
use crate::recent::Layer;
use crate::segment::{self, Live, Order};
use crate::walk::{Step, Walk};

/// Takes in the places of files that the index does not know and that lie before its marker.
pub(super) fn repair(
    dir: &Path,
    index: &Index,
    order: &Order,
    marker: Place,
) -> Result<(), OpenError> {
    let failed = |error: IndexError| index_failed(dir, error);
    let known = index.kept().map_err(failed)?;
    let unheard = order.files.iter().filter(|file| {
        let kept = file.number & segment::KEPT != 0;
        kept && file.to < marker.segment && !known.contains(&file.number)
    });
    for file in unheard {
        tracing::info!(
            segment = file.from,
            to = file.to,
            "bringing a compaction into the index"
        );
        let mut layer = Layer {
            kept: vec![file.number],
            gone: order.replaced.clone(),
            end: marker,
            ..Layer::default()
        };
        places(dir, index, order, file, &mut layer)?;
        let mut dead = index.dead().map_err(failed)?;
        // What the pointers pointed to before is gone with its file.
        index.merge(&layer).map_err(failed)?;
        dead.retain(|number, _| order.has(*number));
        index.checkpoint(&layer, &dead).map_err(failed)?;
    }
    Ok(())
}

fn places(
    dir: &Path,
    index: &Index,
    order: &Order,
    file: &Live,
    layer: &mut Layer,
) -> Result<(), OpenError> {
    let path = segment::path(dir, file.number);
    let io = || open_io(&path);
    let opened = std::fs::File::open(&path).map_err(io())?;
    let mut walk = Walk::new(opened, file.number).map_err(io())?;
    let mut offset = u64::from(format::header_len(file.number));
    let mut cursor = index.cursor();
    loop {
        let group = match walk.step(offset).map_err(io())? {
            Step::End => return Ok(()),
            Step::Group(group) if group.fault().is_none() => group,
            _ => return Err(damaged(path, offset, "no whole group begins here")),
        };
        for frame in group.frames {
            if !matches!(frame.kind, Kind::Put | Kind::Body) || frame.erased {
                continue;
            }
            let key = group.key(frame);
            let found = cursor.get(key).map_err(|error| index_failed(dir, error))?;
            if found.is_some_and(|entry| !order.has(entry.pointer.segment)) {
                let pointer = group.pointer(frame);
                let kind = frame.kind;
                layer.insert(key, Some(Entry { pointer, kind }));
            }
        }
        offset = u64::from(group.end());
    }
}
