//! Copying what is alive in a run of segments, group by group, in order.
//!
//! Owns what is left out: frames that no key points to, deletions with nothing before them,
//! erasures of bodies that are not copied, and groups of which nothing is left, save each shard's
//! last, which carries its head.
//! Refuses a run with a fault in it, and writes in small steps, so that commits need not wait.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::Sha256;

use crate::embedded::Inner;
use crate::error::{ReadError, read_io};
use crate::format::{self, GroupHeader, KeptHeader, Pointer, TRAILER};
use crate::frame::{self, FrameRef, Kind};
use crate::fs::{Fs, Handle, How};
use crate::index::Entry;
use crate::recent::Layer;
use crate::segment::{self, FIRST, Live};
use crate::walk::{Group, Step, Walk};

/// Bytes written before they are synced: a sync of more would hold up those of commits.
const STEP_BYTES: usize = 1 << 20;

/// Why a run was not copied.
pub(super) enum CopyError {
    /// It cannot be read, or is damaged.
    Read(ReadError),
    Write(io::Error),
}

impl From<ReadError> for CopyError {
    fn from(error: ReadError) -> CopyError {
        CopyError::Read(error)
    }
}

/// What is written of a copy. Commits that erase a body erase it here too, so the copier holds it
/// from the look at what is alive until the copy of that is in it.
pub(in crate::embedded) struct Sink {
    fs: Arc<dyn Fs>,
    file: Handle,
    /// What is not written yet, and where it goes.
    buffer: Vec<u8>,
    written: u64,
    /// The places in the copy, by key.
    pub places: Layer,
    /// By the place that a frame had before: its key and its place in the copy.
    pub origins: HashMap<Pointer, (Box<[u8]>, Pointer)>,
}

impl Sink {
    /// Overwrites the copy of a body, if there is one; durable when this returns.
    pub(in crate::embedded) fn erase(&mut self, origin: Pointer) -> io::Result<()> {
        let Some((key, place)) = self.origins.get(&origin) else {
            return Ok(());
        };
        let Some(at) = u64::from(place.offset).checked_sub(self.written) else {
            segment::erase(&*self.fs, &self.file, *place, key)?;
            return self.fs.sync(&self.file);
        };
        let value = place.len as usize - frame::FRAME_FIXED - key.len() - format::CRC;
        let erased = frame::erased_frame(key, value as u32);
        let at = at as usize;
        self.buffer[at..at + erased.len()].copy_from_slice(&erased);
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        self.fs.write_at(&self.file, &self.buffer, self.written)?;
        self.fs.sync(&self.file)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A copy that commits reach.
pub(in crate::embedded) type Shared = Arc<Mutex<Sink>>;

/// Holds a copy; whoever panicked with it left whole frames.
pub(in crate::embedded) fn hold(sink: &Shared) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy being made.
pub(super) struct Copy<'a> {
    inner: &'a Inner,
    run: &'a [Live],
    sink: Shared,
    /// The sequence number of each shard's last group in the run.
    last: HashMap<String, u64>,
    /// The files that have to be there for an erasure to mean anything.
    present: HashSet<u32>,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        run: &'a [Live],
        unfinished: &Path,
    ) -> Result<Copy<'a>, CopyError> {
        let file = inner.fs.open(unfinished, How::Truncate);
        let sink = Sink {
            fs: inner.fs.clone(),
            file: file.map_err(CopyError::Write)?,
            buffer: Vec::new(),
            written: 0,
            places: Layer::default(),
            origins: HashMap::new(),
        };
        let files = inner.state().files.clone();
        let outside = |file: &&Live| !run.iter().any(|of_run| of_run.number == file.number);
        let present = files
            .iter()
            .filter(outside)
            .map(|file| file.number)
            .collect();
        Ok(Copy {
            inner,
            run,
            sink: Arc::new(Mutex::new(sink)),
            last: HashMap::new(),
            present,
        })
    }

    pub(super) fn sink(&self) -> Shared {
        self.sink.clone()
    }

    /// Copies everything; returns the header and the bytes of the copy.
    pub(super) fn run(mut self, number: u32) -> Result<(KeptHeader, u64), CopyError> {
        let (mut first, mut end) = (u64::MAX, 0);
        let run = self.run;
        for file in run {
            let kept = self.walk(file, &mut |copy, group| {
                let sequence = group.header.sequence;
                first = first.min(sequence);
                end = end.max(sequence + 1);
                copy.last.insert(group.shard().to_owned(), sequence);
                Ok(())
            })?;
            if let Some(header) = kept {
                first = first.min(header.first);
                end = end.max(header.end);
            }
        }
        let header = KeptHeader {
            number,
            from: run.first().map_or(FIRST, |file| file.from),
            to: run.last().map_or(FIRST, |file| file.to),
            first: first.min(end),
            end,
        };
        hold(&self.sink).buffer.extend_from_slice(&header.encode());
        for file in run {
            self.walk(file, &mut |copy, group| copy.group(number, group))?;
        }
        let mut sink = hold(&self.sink);
        sink.step().map_err(CopyError::Write)?;
        Ok((header, sink.written))
    }

    /// Shows every group of a file to `visit`.
    fn walk(
        &mut self,
        live: &Live,
        visit: &mut dyn FnMut(&mut Self, &Group<'_>) -> Result<(), CopyError>,
    ) -> Result<Option<KeptHeader>, CopyError> {
        let path = segment::path(&self.inner.dir, live.number);
        let io = || read_io(&path);
        let file = File::open(&path).map_err(io())?;
        let mut walk = Walk::new(file, live.number).map_err(io())?;
        let kept = walk.kept_header().map_err(io())?;
        let mut offset = u64::from(format::header_len(live.number));
        loop {
            match walk.step(offset).map_err(io())? {
                Step::End => return Ok(kept),
                Step::Group(group) if group.fault().is_none() => {
                    visit(self, &group)?;
                    offset = u64::from(group.end());
                }
                _ => {
                    let what = "no whole group begins here";
                    return Err(CopyError::Read(ReadError::Damaged {
                        file: path,
                        offset,
                        what,
                    }));
                }
            }
        }
    }

    /// Copies what is left of a group.
    fn group(&mut self, number: u32, group: &Group<'_>) -> Result<(), CopyError> {
        let mut sink = hold(&self.sink);
        let alive = self.alive(group)?;
        let is_last = self.last.get(group.shard()) == Some(&group.header.sequence);
        if alive.is_empty() && !is_last {
            return Ok(());
        }
        let (mut frames, mut trailer) = (Vec::new(), Sha256::default());
        let offset = sink.written as u32 + sink.buffer.len() as u32;
        let frames_at = offset + group.header.bytes() as u32;
        for frame in &alive {
            let at = frame::copy_frame(&mut frames, &mut trailer, group.bytes, frame);
            if !matches!(frame.kind, Kind::Put | Kind::Body) {
                continue;
            }
            let place = Pointer {
                segment: number,
                offset: frames_at + at,
                len: frame.len(),
            };
            let key: Box<[u8]> = group.key(frame).into();
            let (pointer, kind) = (place, frame.kind);
            sink.places.insert(&key, Some(Entry { pointer, kind }));
            sink.origins.insert(group.pointer(frame), (key, place));
        }
        let header = GroupHeader {
            len: (group.header.bytes() + frames.len() + TRAILER) as u32,
            frames: alive.len() as u32,
            offset,
            synced: 0,
            ..group.header
        };
        let start = sink.buffer.len();
        format::push_group_header(&mut sink.buffer, &header, group.shard());
        let trailer = frame::finish_trailer(trailer, &sink.buffer[start..]);
        sink.buffer.extend_from_slice(&frames);
        sink.buffer.extend_from_slice(&trailer);
        match sink.buffer.len() >= STEP_BYTES {
            true => sink.step().map_err(CopyError::Write),
            false => Ok(()),
        }
    }

    fn alive(&self, group: &Group<'_>) -> Result<Vec<FrameRef>, CopyError> {
        let state = self.inner.state();
        let mut cursor = self.inner.index.cursor();
        let first = self.run.first().is_some_and(|file| file.from == FIRST);
        let mut alive = Vec::new();
        for frame in group.frames {
            let found = match frame.kind {
                Kind::Erase => None,
                _ => {
                    let found = state.recent.get(group.key(frame), &mut cursor);
                    found.map_err(|error| self.inner.index_failed(error))?
                }
            };
            let keep = match frame.kind {
                Kind::Put | Kind::Body => {
                    found.is_some_and(|entry| entry.pointer == group.pointer(frame))
                }
                // It hides values that older files may hold, unless a later value does.
                Kind::Delete => !first && found.is_none(),
                // It explains why a body elsewhere is overwritten.
                Kind::Erase => Pointer::decode(frame.value(group.bytes))
                    .is_some_and(|target| self.present.contains(&target.segment)),
            };
            if !keep {
                continue;
            }
            if !frame.good || frame.erased {
                let what = "a value that a key points to is damaged";
                return Err(self
                    .inner
                    .segments
                    .damaged(group.pointer(frame), what)
                    .into());
            }
            alive.push(*frame);
        }
        Ok(alive)
    }
}
