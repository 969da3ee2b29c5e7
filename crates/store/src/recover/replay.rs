//! Replaying: group by group from the marker to the end.
//!
//! Owns the judgement of a fault, which only a whole look at the last segment allows.
//! Refuses to take a group that does not follow the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;

use super::{Cut, Opened, damaged, index_failed, make_dir};
use crate::cut;
use crate::embedded::Options;
use crate::error::{OpenError, open_io};
use crate::format::{self, Pointer, SegmentHeader};
use crate::frame::Kind;
use crate::fs::{Fs, How};
use crate::index::{Entry, Index, IndexError, Place};
use crate::recent::Layer;
use crate::segment::{self, Live, Order};
use crate::walk::{Group, Step, Walk};

/// Memory that the changes gathered before the index takes them may use.
const LAYER_BYTES_MAX: usize = 8 << 20;

pub(super) struct Replay<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    index: &'a Index,
    options: &'a Options,
    /// Everything before it was durable once, so a fault there is damage.
    floor: Option<Place>,
    place: Place,
    heads: BTreeMap<String, u64>,
    /// Shards whose head is exact. sled may have kept more than the marker says, so until its
    /// first group in the replay a shard's head may be ahead.
    seen: HashSet<String>,
    /// Bodies that fail their check, until an erasure explains them.
    bad: HashMap<Pointer, &'static str>,
    erasures: Vec<(Pointer, Vec<u8>)>,
    changes: Layer,
    /// Bytes of each file that no key points to.
    dead: BTreeMap<u32, u64>,
    /// Files made by compaction that were taken in.
    kept: Vec<u32>,
    since_checkpoint: u64,
    pub(super) opened: Opened,
}

impl<'a> Replay<'a> {
    /// Begins at `start`; everything before `floor` was durable once.
    pub(super) fn new(
        fs: &'a dyn Fs,
        dir: &'a Path,
        options: &'a Options,
        index: &'a Index,
        floor: Option<Place>,
        start: Place,
    ) -> Result<Replay<'a>, IndexError> {
        Ok(Replay {
            fs,
            dir,
            index,
            options,
            floor,
            place: start,
            heads: index.heads()?,
            seen: HashSet::new(),
            bad: HashMap::new(),
            erasures: Vec::new(),
            changes: Layer::default(),
            dead: index.dead()?,
            kept: Vec::new(),
            since_checkpoint: 0,
            opened: Opened::default(),
        })
    }

    /// Takes in what one file holds from here on.
    pub(super) fn segment(&mut self, order: &Order, live: &Live) -> Result<(), OpenError> {
        let number = live.number;
        let last = live.to == order.last();
        let kept = number & segment::KEPT != 0;
        let path = segment::path(self.dir, number);
        let io = || open_io(&path);
        if kept || live.to != self.place.segment {
            self.place.segment = live.to;
            self.place.offset = format::header_len(number);
        }
        let file = segment::open_to_write(self.fs, self.dir, number).map_err(io())?;
        if last {
            // A process that was killed may have left a group that is whole and not yet durable.
            self.fs.sync(&file).map_err(io())?;
        }
        let file = file.file;
        let mut walk = Walk::new(file, number).map_err(io())?;
        if let Some(floor) = self.floor
            && floor.segment == number
            && u64::from(floor.offset) > walk.len()
        {
            return Err(OpenError::Damaged {
                offset: walk.len(),
                what: "it ends before the place up to which the index knew it to be durable (to accept a restored older file, move the folder `index` away)",
                file: path,
            });
        }
        match walk.segment_header().map_err(io())? {
            SegmentHeader::Good => {}
            SegmentHeader::Version(version) => {
                return Err(OpenError::Unsupported {
                    file: path,
                    version,
                });
            }
            SegmentHeader::Bad => {
                let begun = self.floor.is_some_and(|floor| floor.segment >= number)
                    || walk.next_header(0).map_err(io())?.is_some();
                if begun || !last {
                    return Err(damaged(path, 0, "the file's header does not hold"));
                }
                if walk.len() > 0 {
                    self.cut(&walk, 0)?;
                }
                segment::create(self.fs, self.dir, number).map_err(io())?;
                return Ok(());
            }
        }
        let header = walk.kept_header().map_err(io())?;
        if header.is_some_and(|header| header.first != self.place.sequence) {
            return Err(damaged(path, 0, "groups are missing before this file"));
        }
        self.groups(&mut walk, &path, last, kept)?;
        if let Some(header) = header {
            if self.place.sequence > header.end {
                return Err(damaged(path, 0, "it has more groups than its header says"));
            }
            self.place.sequence = header.end;
            self.kept.push(number);
        }
        Ok(())
    }

    fn groups(
        &mut self,
        walk: &mut Walk,
        path: &Path,
        last: bool,
        kept: bool,
    ) -> Result<(), OpenError> {
        let io = || open_io(path);
        loop {
            let offset = u64::from(self.place.offset);
            let (fault, what) = match walk.step(offset).map_err(io())? {
                Step::End => return Ok(()),
                Step::Short => (offset, "the file ends within a group"),
                Step::Bad => (offset, "no group begins here"),
                Step::Group(group) => match group.fault() {
                    Some(fault) => (fault.offset, fault.what),
                    None => match group.bad_bodies().next().map(|body| body.at) {
                        None => {
                            self.take(&group, path, kept)?;
                            continue;
                        }
                        Some(at) => (offset + u64::from(at), "the body's checksum does not hold"),
                    },
                },
            };
            let below = self.floor.is_some_and(|floor| {
                self.place
                    < Place {
                        sequence: 0,
                        ..floor
                    }
            });
            if last && !below && !walk.was_durable(offset).map_err(io())? {
                return self.cut(walk, offset);
            }
            match walk.step(offset).map_err(io())? {
                // An erasure that was interrupted leaves a body like this; whether there was one
                // is known at the end.
                Step::Group(group) if group.fault().is_none() => {
                    for body in group.bad_bodies() {
                        self.bad.insert(group.pointer(body), what);
                    }
                    self.take(&group, path, kept)?;
                }
                _ => return Err(damaged(path.to_owned(), fault, what)),
            }
        }
    }

    /// Brings one whole group into the index.
    fn take(&mut self, group: &Group<'_>, path: &Path, kept: bool) -> Result<(), OpenError> {
        let refuse = |what| {
            let offset = u64::from(group.header.offset);
            Err(damaged(path.to_owned(), offset, what))
        };
        // Compaction leaves groups out, never the last one of a shard.
        let sequence = group.header.sequence;
        if sequence < self.place.sequence || !kept && sequence != self.place.sequence {
            return refuse("groups are missing before this one");
        }
        let (shard, head) = (group.shard(), group.header.head);
        let known = self.heads.get(shard).copied().unwrap_or(0);
        let follows = match (self.seen.contains(shard), kept) {
            (true, false) => head == known + 1,
            (true, true) => head > known,
            (false, false) => (1..=known + 1).contains(&head),
            (false, true) => head > 0,
        };
        if !follows {
            return refuse("the shard's head does not follow the one before");
        }
        for frame in group.frames {
            let (key, pointer) = (group.key(frame), group.pointer(frame));
            match frame.kind {
                Kind::Put | Kind::Body => {
                    let kind = frame.kind;
                    self.changes.insert(key, Some(Entry { pointer, kind }));
                }
                Kind::Delete => self.changes.insert(key, None),
                Kind::Erase => match Pointer::decode(frame.value(group.bytes)) {
                    Some(target) => self.erasures.push((target, key.to_vec())),
                    None => return refuse("an erasure names no frame"),
                },
            }
        }
        if !self.seen.contains(shard) {
            self.seen.insert(shard.to_owned());
        }
        match self.heads.get_mut(shard) {
            Some(known) => *known = head,
            None => drop(self.heads.insert(shard.to_owned(), head)),
        }
        self.place.offset = group.end();
        self.place.sequence = sequence + 1;
        self.opened.replayed += 1;
        self.since_checkpoint += u64::from(group.header.len);
        if self.changes.weight >= LAYER_BYTES_MAX {
            self.apply(kept)?;
        }
        Ok(())
    }

    fn apply(&mut self, kept: bool) -> Result<(), OpenError> {
        self.merge()?;
        // With an erasure or its unexplained body still open, the marker has to stay behind both.
        // And a marker never lies in a file that compaction made.
        let open = !self.erasures.is_empty() || !self.bad.is_empty() || kept;
        if self.since_checkpoint >= self.options.checkpoint_bytes && !open {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn merge(&mut self) -> Result<(), OpenError> {
        let changes = std::mem::take(&mut self.changes);
        let dead = self.index.merge(&changes);
        let dead = dead.map_err(|error| index_failed(self.dir, error))?;
        for (file, bytes) in dead.into_iter().chain(changes.dead) {
            *self.dead.entry(file).or_default() += bytes;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), OpenError> {
        let layer = Layer {
            heads: self.heads.clone(),
            kept: self.kept.clone(),
            end: self.place,
            ..Layer::default()
        };
        let made = self.index.checkpoint(&layer, &self.dead);
        made.map_err(|error| index_failed(self.dir, error))?;
        self.since_checkpoint = 0;
        Ok(())
    }

    /// Finishes erasures and makes the index durable.
    pub(super) fn finish(
        mut self,
        order: &Order,
    ) -> Result<(BTreeMap<String, u64>, Place, Opened), OpenError> {
        self.finish_erasures(order)?;
        if let Some((pointer, what)) = self.bad.iter().min() {
            let path = segment::path(self.dir, pointer.segment);
            return Err(damaged(path, u64::from(pointer.offset), what));
        }
        if self.opened.replayed > 0 {
            self.merge()?;
            self.checkpoint()?;
        }
        Ok((self.heads, self.place, self.opened))
    }

    fn finish_erasures(&mut self, order: &Order) -> Result<(), OpenError> {
        // Compaction copies no erased body, so one whose file is gone is gone with it.
        self.erasures
            .retain(|(pointer, _)| order.has(pointer.segment));
        self.erasures.sort_unstable();
        if !self.erasures.is_empty() {
            // What was cut off now came after these erasures.
            let saved = self.opened.cut.as_ref().map(|cut| cut.saved.as_path());
            cut::clear(self.fs, self.dir, saved).map_err(open_io(&self.dir.join(cut::FOLDER)))?;
        }
        for of_segment in self.erasures.chunk_by(|a, b| a.0.segment == b.0.segment) {
            let number = of_segment[0].0.segment;
            let path = segment::path(self.dir, number);
            let io = || open_io(&path);
            let file = segment::open_to_write(self.fs, self.dir, number).map_err(io())?;
            for (pointer, key) in of_segment {
                if !segment::erase(self.fs, &file, *pointer, key).map_err(io())? {
                    let offset = u64::from(pointer.offset);
                    let what = "an erasure names a body that is not there";
                    return Err(damaged(path, offset, what));
                }
                self.bad.remove(pointer);
            }
            self.fs.sync(&file).map_err(io())?;
        }
        Ok(())
    }

    /// Takes the bytes from `offset` on off the last segment, after copying them to [`cut::FOLDER`].
    fn cut(&mut self, walk: &Walk, offset: u64) -> Result<(), OpenError> {
        let path = segment::path(self.dir, self.place.segment);
        let folder = self.dir.join(cut::FOLDER);
        make_dir(self.fs, &folder)?;
        let name = format!("{:08}-{offset}", self.place.segment);
        let saved = (1..)
            .map(|n: u32| folder.join(format!("{name}-{n}.bytes")))
            .find(|saved| !saved.exists())
            .unwrap_or_else(|| folder.join(name));
        self.copy_from(&path, offset, &saved)
            .map_err(open_io(&saved))?;
        self.fs.sync_dir(&folder).map_err(open_io(&folder))?;
        let file = segment::open_to_write(self.fs, self.dir, self.place.segment)
            .map_err(open_io(&path))?;
        self.fs
            .set_len(&file, offset)
            .and_then(|()| self.fs.sync(&file))
            .map_err(open_io(&path))?;
        let bytes = walk.len() - offset;
        tracing::warn!(file = %path.display(), offset, bytes, "cut an unfinished write");
        self.opened.cut = Some(Cut {
            file: path,
            offset,
            bytes,
            saved,
        });
        Ok(())
    }

    fn copy_from(&self, path: &Path, offset: u64, to: &Path) -> io::Result<()> {
        let from = File::open(path)?;
        let copy = self.fs.open(to, How::Truncate)?;
        let mut buffer = vec![0; 256 << 10];
        let (mut at, mut have) = (0, 1);
        while have > 0 {
            have = segment::read_up_to(&from, &mut buffer, offset + at)?;
            self.fs.write_at(&copy, &buffer[..have], at)?;
            at += have as u64;
        }
        self.fs.sync(&copy)
    }
}
