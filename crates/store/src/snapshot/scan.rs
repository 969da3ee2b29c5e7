//! The scan: every byte of every segment, once.
//!
//! Owns what counts as a finding and what a damaged group still contributes to the state; that is
//! decided in the order of the files. `pieces` reads them, `crew` checks the pieces on all cores.
//! A store that is in use overwrites bodies while they are read: nothing is called a fault that a
//! group explains which is under way, or came since.
//! Refuses to stop at the first fault: after one it looks for the next group.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::crew::{self, Checked};
use super::later::{Later, is_round_over};
use super::pieces::Event;
use super::tables::{Slot, Tables};
use super::{Finding, Look, Seen, Snapshot, is_in_use};
use crate::error::{ReadError, read_io};
use crate::format::{Pointer, SEGMENT_HEADER};
use crate::frame::{FrameRef, Held, Kind};
use crate::key::Key;
use crate::segment::{self, Order, Segments, Wanted};
use crate::walk::Group;

/// Findings that a [`Snapshot`] keeps; all are counted and shown to the visitor.
const FINDINGS_KEPT_MAX: usize = 1000;
/// How long the write of a group, or an erasure that one announced, is waited for while a running
/// store is at it, and how often it is looked at: one fsync, on a disk that is busy.
const UNDER_WAY_MAX: Duration = Duration::from_secs(30);
const UNDER_WAY_EVERY: Duration = Duration::from_millis(10);

/// Reads every group of every segment in `dir`, shows `visit` all frames and findings in the order
/// of the files, and returns the state after the last group. Findings that something committed
/// meanwhile may explain come last.
///
/// A damaged value keeps its place in the state, so that reading it fails rather than giving an
/// older value. On a store that is in use, the state is the one of the moment when the files were
/// listed; a group that it was writing then is `Unfinished` only if it still is half a minute later.
///
/// # Errors
/// [`ReadError::Io`] when a file cannot be read at all.
pub fn scan_segments(
    dir: &Path,
    visit: &mut (dyn FnMut(Seen<'_>) + Send),
) -> Result<Snapshot, ReadError> {
    scan(dir, &(), true, visit)
}

/// As [`scan_segments`], on all cores, with a `look` at every good value while it is in the cache,
/// and with findings only for `visit`.
///
/// # Errors
/// As for [`scan_segments`].
pub fn scan_looking<L: Look>(
    dir: &Path,
    look: &L,
    visit: &mut (dyn FnMut(Finding) + Send),
) -> Result<Snapshot<L::Note>, ReadError> {
    scan(dir, look, false, &mut |seen| {
        if let Seen::Finding(finding) = seen {
            visit(finding);
        }
    })
}

fn scan<L: Look>(
    dir: &Path,
    look: &L,
    show_frames: bool,
    visit: &mut (dyn FnMut(Seen<'_>) + Send),
) -> Result<Snapshot<L::Note>, ReadError> {
    let folder = segment::folder(dir);
    let held = segment::lock_shared(dir).map_err(read_io(&folder))?;
    let order = Order::read_beside(dir).map_err(read_io(&folder))?;
    let mut scan = Scan {
        dir,
        visit,
        show_frames,
        file: PathBuf::new(),
        next: Some(1),
        synced_heads: true,
        bad: HashMap::new(),
        erased: HashMap::new(),
        announced: Vec::new(),
        unfinished: None,
        newest: None,
        order: &order,
        snapshot: Snapshot {
            segments: Segments::new(dir),
            _held: held,
            tables: Tables::new(),
            heads: BTreeMap::new(),
            findings: Vec::new(),
            findings_count: 0,
            dir: dir.to_owned(),
            end: None,
            later: Mutex::new(Later::new(dir, None)),
            bytes: 0,
            files: order.files.len() as u64,
        },
    };
    for &number in &order.bad {
        scan.damaged(number, 0, None, "the file's header does not hold");
    }
    let end = crew::check_all(dir, &order, look, |checked| scan.take(checked))?;
    scan.snapshot.end = end;
    scan.finish(Later::new(dir, end))
}

struct Scan<'a, N> {
    dir: &'a Path,
    visit: &'a mut (dyn FnMut(Seen<'_>) + Send),
    show_frames: bool,
    /// The file that is being gone through.
    file: PathBuf,
    /// The sequence number that the next group must have; not known after damage.
    next: Option<u64>,
    /// Heads can be compared: no group was lost so far.
    synced_heads: bool,
    order: &'a Order,
    /// Bodies that fail their check, until an erasure explains them.
    bad: HashMap<Pointer, Key>,
    /// Bodies in their erased form, until an erasure explains them.
    erased: HashMap<Pointer, Key>,
    /// Erasures of bodies that were read whole, or half overwritten: under way, or never done.
    announced: Vec<Announced>,
    unfinished: Option<Finding>,
    /// Of the newest group: its segment, and up to where that was durable when it was written.
    newest: Option<(u32, u32)>,
    snapshot: Snapshot<N>,
}

/// An erasure that a group announces.
struct Announced {
    target: Pointer,
    key: Key,
    /// The segment and the offset of the group.
    by: (u32, u32),
}

impl<N> Scan<'_, N> {
    /// Takes what follows what was taken before.
    fn take(&mut self, checked: &mut Checked<N>) {
        let mut groups = checked.inside.iter();
        let (mut frames, mut notes) = (checked.frames.as_slice(), checked.notes.drain(..));
        for event in checked.piece.events.drain(..) {
            match event {
                Event::File { path, bytes } => {
                    self.file = path;
                    self.snapshot.bytes += bytes;
                }
                Event::Kept(header) => {
                    if self.next.is_some_and(|next| next != header.first) {
                        let what = "groups are missing before this file";
                        self.damaged(header.number, 0, None, what);
                        self.synced_heads = false;
                    }
                    self.next = Some(header.first);
                }
                Event::End(header) => self.next = Some(header.end),
                Event::Missing(number) => {
                    self.damaged(number, 0, None, "the file is missing");
                    self.lose_count();
                }
                Event::Damaged {
                    number,
                    offset,
                    what,
                    lost,
                } => {
                    self.damaged(number, offset, None, what);
                    if lost {
                        self.lose_count();
                    }
                }
                Event::Unfinished(finding) => self.unfinished = Some(finding),
                Event::Group {
                    segment,
                    at,
                    header,
                } => {
                    let Some((count, inspection)) = groups.next() else {
                        continue;
                    };
                    let inside;
                    (inside, frames) = frames.split_at(*count);
                    let group = Group {
                        segment,
                        header,
                        bytes: &checked.piece.bytes[at..at + header.len as usize],
                        frames: inside,
                        inspection: *inspection,
                    };
                    self.group(&group, &mut notes);
                }
            }
        }
    }

    fn group(&mut self, group: &Group<'_>, notes: &mut impl Iterator<Item = Option<N>>) {
        let (shard, header) = (group.shard(), group.header);
        let offset = u64::from(header.offset);
        if self.show_frames {
            (self.visit)(Seen::Group {
                file: &self.file,
                offset,
                shard,
                head: header.head,
            });
        }
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
        if !kept {
            self.newest = Some((group.segment, header.synced));
        }
        let known = self.snapshot.heads.get(shard).copied().unwrap_or(0);
        let follows = match kept {
            true => header.head > known,
            false => header.head == known + 1,
        };
        if self.synced_heads && !follows {
            let what = "the shard's head does not follow the one before";
            self.damaged(group.segment, offset, None, what);
        }
        match self.snapshot.heads.get_mut(shard) {
            Some(known) => *known = header.head,
            None => drop(self.snapshot.heads.insert(shard.to_owned(), header.head)),
        }
        let number = self.snapshot.tables.number(shard);
        for frame in group.frames {
            let note = match frame.shows_value() {
                true => notes.next().flatten(),
                false => None,
            };
            // Under a good trailer the key is certain even where the value is not.
            if frame.good || group.inspection.trailer_good {
                self.frame(group, (shard, number), frame, note);
            }
        }
        let fault = group.fault();
        // A frame that is named already is not named again.
        if let Some(fault) = fault.filter(|_| !group.inspection.trailer_good) {
            self.damaged(group.segment, fault.offset, None, fault.what);
        }
    }

    /// `shard` is the group's, by name and number.
    fn frame(
        &mut self,
        group: &Group<'_>,
        shard: (&str, usize),
        frame: &FrameRef,
        note: Option<N>,
    ) {
        let pointer = group.pointer(frame);
        let offset = u64::from(pointer.offset);
        let Some((table, rest)) = frame.in_shard(group.bytes, shard.0) else {
            let what = "the frame's key is none";
            return self.damaged(group.segment, offset, None, what);
        };
        // Most frames need their key in no other form than this.
        let key = || Key::from_bytes(group.key(frame)).ok();
        let tables = &mut self.snapshot.tables;
        match frame.kind {
            Kind::Erase => {
                let target = Pointer::decode(frame.value(group.bytes));
                let good = target.filter(|_| frame.good);
                return match (good, key()) {
                    (Some(target), Some(key)) => {
                        let by = (group.segment, group.header.offset);
                        self.erase(Announced { target, key, by });
                    }
                    (_, key) => {
                        let what = "the frame's checksum does not hold";
                        self.damaged(group.segment, offset, key, what);
                    }
                };
            }
            Kind::Put | Kind::Body => {
                tables.set(shard.1, table, rest, Some(Slot { pointer, note }))
            }
            Kind::Delete => tables.set(shard.1, table, rest, None),
        }
        if frame.good {
            // A body that was erased while compaction copied it is erased in the copy too; the
            // group that says why names the place that it had before.
            if frame.erased && group.segment & segment::KEPT == 0 {
                self.erased.extend(key().map(|key| (pointer, key)));
            }
            if self.show_frames
                && let Some(key) = key()
            {
                (self.visit)(Seen::Frame {
                    file: &self.file,
                    offset,
                    key,
                    value: frame.shows_value().then(|| frame.value(group.bytes)),
                });
            }
        } else if frame.kind == Kind::Body {
            self.bad.extend(key().map(|key| (pointer, key)));
        } else {
            let what = "the frame's checksum does not hold";
            self.damaged(group.segment, offset, key(), what);
        }
    }

    /// An erasure says that a body is overwritten.
    fn erase(&mut self, announced: Announced) {
        let target = announced.target;
        // Compaction copies no erased body, so one whose file is gone is gone with it.
        let kept = target.segment & segment::KEPT != 0;
        if !self.order.has(target.segment) || kept && self.is_erased(&announced) {
            return;
        }
        if self.erased.remove(&target).is_none() {
            self.bad.remove(&target);
            self.announced.push(announced);
        }
    }

    /// Whether a body is overwritten when it is looked at again.
    fn is_erased(&self, announced: &Announced) -> bool {
        let mut wanted = [Wanted {
            slot: 0,
            key: announced.key.as_bytes(),
            pointer: announced.target,
        }];
        let mut erased = false;
        self.snapshot.segments.read(&mut wanted, |_, held| {
            erased = matches!(held, Ok(Held::Erased));
        });
        erased
    }

    /// What is left is a fault, unless it was under way, or something that came since explains it.
    fn finish(mut self, mut later: Later) -> Result<Snapshot<N>, ReadError> {
        self.wait_for_erasures(&mut later)?;
        for announced in std::mem::take(&mut self.announced) {
            self.finding(Finding::NotErased {
                file: segment::path(self.dir, announced.target.segment),
                offset: u64::from(announced.target.offset),
                key: announced.key,
            });
        }
        if !self.bad.is_empty() || !self.erased.is_empty() {
            later.read_on()?;
        }
        self.bad.retain(|body, _| !later.erases(body));
        self.erased.retain(|body, _| !later.erases(body));
        let what = "the body's checksum does not hold";
        for (pointer, key) in sorted(std::mem::take(&mut self.bad)) {
            self.damaged(pointer.segment, u64::from(pointer.offset), Some(key), what);
        }
        let what = "the body is overwritten and no group says why";
        for (pointer, key) in sorted(std::mem::take(&mut self.erased)) {
            self.damaged(pointer.segment, u64::from(pointer.offset), Some(key), what);
        }
        if let Some(finding) = self.unfinished.take()
            && !self.wait_for_write(&finding, &mut later)?
        {
            self.finding(finding);
        }
        self.snapshot.later = Mutex::new(later);
        Ok(self.snapshot)
    }

    /// Waits until the erasures are done that a running store has announced and not done yet.
    fn wait_for_erasures(&mut self, later: &mut Later) -> Result<(), ReadError> {
        let mut announced = std::mem::take(&mut self.announced);
        if announced.is_empty() {
            return Ok(());
        }
        look_until(self.dir, || {
            later.read_on()?;
            let over = |by: (u32, u32)| {
                by.0 & segment::KEPT != 0
                    || is_round_over(self.newest, by.0, by.1)
                    || later.is_round_over(by.0, by.1)
            };
            let all_over = announced.iter().all(|announced| over(announced.by));
            // Looked at after it was asked whether anybody is still at it.
            announced.retain(|announced| !self.is_erased(announced));
            Ok(all_over || announced.is_empty())
        })?;
        self.announced = announced;
        Ok(())
    }

    /// Waits until what a running store was writing is written, or cut off because writing it
    /// failed; whether it is.
    fn wait_for_write(&self, unfinished: &Finding, later: &mut Later) -> Result<bool, ReadError> {
        let (file, offset) = (unfinished.file(), unfinished.offset());
        look_until(self.dir, || {
            let len = std::fs::metadata(file).map_err(read_io(file))?.len();
            later.read_on()?;
            Ok(match offset {
                0 => len >= u64::from(SEGMENT_HEADER),
                _ => len <= offset || later.is_beyond(self.order.last(), offset),
            })
        })
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

/// Looks whether something is over that a running store may be at, again and again while it may
/// be; whether it was when it was looked at last, which is after nobody was at it any more.
fn look_until(
    dir: &Path,
    mut is_over: impl FnMut() -> Result<bool, ReadError>,
) -> Result<bool, ReadError> {
    let begun = Instant::now();
    loop {
        let under_way = begun.elapsed() < UNDER_WAY_MAX && is_in_use(dir);
        if is_over()? {
            return Ok(true);
        }
        if !under_way {
            return Ok(false);
        }
        std::thread::sleep(UNDER_WAY_EVERY);
    }
}

fn sorted(found: HashMap<Pointer, Key>) -> BTreeMap<Pointer, Key> {
    found.into_iter().collect()
}
