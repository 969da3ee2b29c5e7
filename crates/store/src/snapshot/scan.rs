//! The scan: every byte of every segment, once, in order.
//!
//! Owns what counts as a finding and what a damaged group still contributes to the state.
//! Refuses to stop at the first fault: after one it looks for the next group.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use super::{Finding, Seen, Snapshot};
use crate::error::{ReadError, read_io};
use crate::format::{self, Pointer, SegmentHeader};
use crate::frame::{FrameRef, Held, Kind};
use crate::key::Key;
use crate::segment::{self, Order, Segments, Wanted};
use crate::walk::{Group, Step, Walk};

/// Findings that a [`Snapshot`] keeps; all are counted and shown to the visitor.
const FINDINGS_KEPT_MAX: usize = 1000;

/// Reads every group of every segment in `dir`, shows `visit` all frames and findings, and
/// returns the state after the last group.
///
/// A damaged value keeps its place in the state, so that reading it fails rather than giving an
/// older value. On a store that is in use, the end of the last segment may be `Unfinished`.
///
/// # Errors
/// [`ReadError::Io`] when a file cannot be read at all.
pub fn scan_segments(dir: &Path, visit: &mut dyn FnMut(Seen<'_>)) -> Result<Snapshot, ReadError> {
    let folder = segment::folder(dir);
    let held = segment::lock_shared(dir).map_err(read_io(&folder))?;
    let order = Order::read(dir).map_err(read_io(&folder))?;
    let mut scan = Scan {
        dir,
        visit,
        next: Some(1),
        synced_heads: true,
        bad: HashMap::new(),
        erased: HashMap::new(),
        order: &order,
        snapshot: Snapshot {
            segments: Segments::new(dir),
            _held: held,
            state: BTreeMap::new(),
            heads: BTreeMap::new(),
            findings: Vec::new(),
            findings_count: 0,
            bytes: 0,
            files: order.files.len() as u64,
        },
    };
    for &number in &order.bad {
        scan.damaged(number, 0, None, "the file's header does not hold");
    }
    let mut next = segment::FIRST;
    for file in &order.files {
        for number in next..file.from {
            scan.missing(number);
        }
        scan.segment(file.number, file.to == order.last())?;
        next = file.to + 1;
    }
    let open = order
        .files
        .last()
        .is_some_and(|last| last.number & segment::KEPT == 0);
    if !open && order.bad.is_empty() {
        // Compaction leaves the segment that is written to alone.
        scan.missing(next);
    }
    Ok(scan.finish())
}

struct Scan<'a> {
    dir: &'a Path,
    visit: &'a mut dyn FnMut(Seen<'_>),
    /// The sequence number that the next group must have; not known after damage.
    next: Option<u64>,
    /// Heads can be compared: no group was lost so far.
    synced_heads: bool,
    order: &'a Order,
    /// Bodies that fail their check, until an erasure explains them.
    bad: HashMap<Pointer, Key>,
    /// Bodies in their erased form, until an erasure explains them.
    erased: HashMap<Pointer, Key>,
    snapshot: Snapshot,
}

impl Scan<'_> {
    fn segment(&mut self, number: u32, last: bool) -> Result<(), ReadError> {
        let path = segment::path(self.dir, number);
        let io = || read_io(&path);
        let file = File::open(&path).map_err(io())?;
        let mut walk = Walk::new(file, number).map_err(io())?;
        self.snapshot.bytes += walk.len();
        let mut offset = u64::from(format::header_len(number));
        if walk.len() < offset && last {
            self.finding(Finding::Unfinished {
                file: path,
                offset: 0,
                bytes: walk.len(),
            });
            return Ok(());
        }
        match walk.segment_header().map_err(io())? {
            SegmentHeader::Good => {}
            SegmentHeader::Version(_) => {
                self.damaged(number, 0, None, "the file has a version not known here");
            }
            SegmentHeader::Bad => self.damaged(number, 0, None, "the file's header does not hold"),
        }
        let kept = walk.kept_header().map_err(io())?;
        if let Some(header) = kept {
            if self.next.is_some_and(|next| next != header.first) {
                let what = "groups are missing before this file";
                self.damaged(number, 0, None, what);
                self.synced_heads = false;
            }
            self.next = Some(header.first);
        }
        loop {
            let what = match walk.step(offset).map_err(io())? {
                Step::End => {
                    if let Some(header) = kept {
                        self.next = Some(header.end);
                    }
                    return Ok(());
                }
                Step::Group(group) => {
                    self.group(&group, &path);
                    offset = u64::from(group.end());
                    continue;
                }
                Step::Short => "the file ends within a group",
                Step::Bad => "no group begins here",
            };
            let next = walk.next_header(offset).map_err(io())?;
            let short = what.starts_with("the file ends");
            if short && last && next.is_none() {
                let bytes = walk.len() - offset;
                self.finding(Finding::Unfinished {
                    file: path,
                    offset,
                    bytes,
                });
                return Ok(());
            }
            self.damaged(number, offset, None, what);
            self.lose_count();
            match next {
                Some((at, _)) => offset = at,
                None => return Ok(()),
            }
        }
    }

    fn group(&mut self, group: &Group<'_>, file: &Path) {
        let (shard, header) = (group.shard(), group.header);
        let offset = u64::from(header.offset);
        (self.visit)(Seen::Group {
            file,
            offset,
            shard,
            head: header.head,
        });
        // Compaction leaves groups out, never the last one of a shard.
        let kept = group.segment & segment::KEPT != 0;
        let follows = |next| match kept {
            true => next <= header.sequence,
            false => next == header.sequence,
        };
        if self.next.is_some_and(|next| !follows(next)) {
            let what = "groups are missing before this one";
            self.damaged(group.segment, offset, None, what);
            self.synced_heads = false;
        }
        self.next = Some(header.sequence + 1);
        let known = self.snapshot.heads.get(shard).copied().unwrap_or(0);
        let follows = match kept {
            true => header.head > known,
            false => header.head == known + 1,
        };
        if self.synced_heads && !follows {
            let what = "the shard's head does not follow the one before";
            self.damaged(group.segment, offset, None, what);
        }
        self.snapshot.heads.insert(shard.to_owned(), header.head);
        for frame in group.frames {
            // Under a good trailer the key is certain even where the value is not.
            if frame.good || group.trailer_good {
                self.frame(group, frame, file);
            }
        }
        let fault = group.fault();
        // A frame that is named already is not named again.
        if let Some(fault) = fault.filter(|_| !group.trailer_good) {
            self.damaged(group.segment, fault.offset, None, fault.what);
        }
    }

    fn frame(&mut self, group: &Group<'_>, frame: &FrameRef, file: &Path) {
        let pointer = group.pointer(frame);
        let offset = u64::from(pointer.offset);
        let Ok(key) = Key::from_bytes(group.key(frame)) else {
            let what = "the frame's key is none";
            return self.damaged(group.segment, offset, None, what);
        };
        let mut value = None;
        match frame.kind {
            Kind::Erase => {
                let target = Pointer::decode(frame.value(group.bytes));
                return self.erase(group.segment, offset, target, key, frame.good);
            }
            Kind::Put | Kind::Body => {
                let state = &mut self.snapshot.state;
                state.insert(key.as_bytes().to_vec(), pointer);
                value = (!frame.erased).then(|| frame.value(group.bytes));
            }
            Kind::Delete => drop(self.snapshot.state.remove(key.as_bytes())),
        }
        if frame.good {
            // A body that was erased while compaction copied it is erased in the copy too; the
            // group that says why names the place that it had before.
            if frame.erased && group.segment & segment::KEPT == 0 {
                self.erased.insert(pointer, key.clone());
            }
            (self.visit)(Seen::Frame {
                file,
                offset,
                key,
                value,
            });
        } else if frame.kind == Kind::Body {
            self.bad.insert(pointer, key);
        } else {
            let what = "the frame's checksum does not hold";
            self.damaged(group.segment, offset, Some(key), what);
        }
    }

    /// An erasure says that the body at `target` is overwritten.
    fn erase(&mut self, number: u32, offset: u64, target: Option<Pointer>, key: Key, good: bool) {
        let Some(target) = target.filter(|_| good) else {
            let what = "the frame's checksum does not hold";
            return self.damaged(number, offset, Some(key), what);
        };
        // Compaction copies no erased body, so one whose file is gone is gone with it.
        let kept = target.segment & segment::KEPT != 0;
        if !self.order.has(target.segment) || kept && self.is_erased(target, &key) {
            return;
        }
        if self.erased.remove(&target).is_none() {
            self.bad.remove(&target);
            self.finding(Finding::NotErased {
                file: segment::path(self.dir, target.segment),
                offset: u64::from(target.offset),
                key,
            });
        }
    }

    /// Whether the body at a place in a file that compaction made is overwritten.
    fn is_erased(&self, target: Pointer, key: &Key) -> bool {
        let mut wanted = [Wanted {
            slot: 0,
            key: key.as_bytes(),
            pointer: target,
        }];
        let mut erased = false;
        self.snapshot.segments.read(&mut wanted, |_, held| {
            erased = matches!(held, Ok(Held::Erased));
        });
        erased
    }

    fn missing(&mut self, number: u32) {
        self.damaged(number, 0, None, "the file is missing");
        self.lose_count();
    }

    fn finish(mut self) -> Snapshot {
        let what = "the body's checksum does not hold";
        for (pointer, key) in sorted(std::mem::take(&mut self.bad)) {
            self.damaged(pointer.segment, u64::from(pointer.offset), Some(key), what);
        }
        let what = "the body is overwritten and no group says why";
        for (pointer, key) in sorted(std::mem::take(&mut self.erased)) {
            self.damaged(pointer.segment, u64::from(pointer.offset), Some(key), what);
        }
        self.snapshot
    }

    /// After a part that cannot be read, sequence and heads may jump once.
    fn lose_count(&mut self) {
        self.next = None;
        self.synced_heads = false;
    }

    fn damaged(&mut self, number: u32, offset: u64, key: Option<Key>, what: &'static str) {
        self.finding(Finding::Damaged {
            file: segment::path(self.dir, number),
            offset,
            key,
            what,
        });
    }

    fn finding(&mut self, finding: Finding) {
        self.snapshot.findings_count += 1;
        if self.snapshot.findings.len() < FINDINGS_KEPT_MAX {
            self.snapshot.findings.push(finding.clone());
        }
        (self.visit)(Seen::Finding(finding));
    }
}

fn sorted(found: HashMap<Pointer, Key>) -> BTreeMap<Pointer, Key> {
    found.into_iter().collect()
}
