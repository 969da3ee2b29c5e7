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

use sha2::Sha256;

use crate::embedded::Inner;
use crate::error::{ReadError, read_io};
use crate::format::{self, GroupHeader, KeptHeader, Pointer, TRAILER};
use crate::frame::{self, FrameRef, Kind};
use crate::fs::{Handle, How};
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

/// A finished copy under its unfinished name.
pub(super) struct Copied {
    pub file: Handle,
    pub header: KeptHeader,
    pub bytes: u64,
    /// The places in the copy, by key.
    pub places: Layer,
    /// By the place that a frame had before: its key, its place in the copy, whether it is a body.
    pub origins: HashMap<Pointer, (Box<[u8]>, Pointer, bool)>,
}

/// A copy being made.
pub(super) struct Copy<'a> {
    inner: &'a Inner,
    run: &'a [Live],
    file: Handle,
    /// The sequence number of each shard's last group in the run.
    last: HashMap<String, u64>,
    /// What is not written yet, and where it goes.
    buffer: Vec<u8>,
    written: u64,
    places: Layer,
    origins: HashMap<Pointer, (Box<[u8]>, Pointer, bool)>,
    /// The files that have to be there for an erasure to mean anything.
    present: HashSet<u32>,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        run: &'a [Live],
        unfinished: &Path,
    ) -> Result<Copy<'a>, CopyError> {
        let opened = inner.fs.open(unfinished, How::Truncate);
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
            file: opened.map_err(CopyError::Write)?,
            last: HashMap::new(),
            buffer: Vec::new(),
            written: 0,
            places: Layer::default(),
            origins: HashMap::new(),
            present,
        })
    }

    pub(super) fn run(mut self, number: u32) -> Result<Copied, CopyError> {
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
        self.buffer.extend_from_slice(&header.encode());
        for file in run {
            self.walk(file, &mut |copy, group| copy.group(number, group))?;
        }
        self.step()?;
        Ok(Copied {
            file: self.file,
            header,
            bytes: self.written,
            places: self.places,
            origins: self.origins,
        })
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
        let alive = self.alive(group)?;
        let is_last = self.last.get(group.shard()) == Some(&group.header.sequence);
        if alive.is_empty() && !is_last {
            return Ok(());
        }
        let (mut frames, mut trailer) = (Vec::new(), Sha256::default());
        let offset = self.written as u32 + self.buffer.len() as u32;
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
            self.places.insert(&key, Some(Entry { pointer, kind }));
            let origin = (key, place, kind == Kind::Body);
            self.origins.insert(group.pointer(frame), origin);
        }
        let header = GroupHeader {
            len: (group.header.bytes() + frames.len() + TRAILER) as u32,
            frames: alive.len() as u32,
            offset,
            synced: 0,
            ..group.header
        };
        let start = self.buffer.len();
        format::push_group_header(&mut self.buffer, &header, group.shard());
        let trailer = frame::finish_trailer(trailer, &self.buffer[start..]);
        self.buffer.extend_from_slice(&frames);
        self.buffer.extend_from_slice(&trailer);
        if self.buffer.len() >= STEP_BYTES {
            self.step()?;
        }
        Ok(())
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

    fn step(&mut self) -> Result<(), CopyError> {
        let fs = &self.inner.fs;
        fs.write_at(&self.file, &self.buffer, self.written)
            .and_then(|()| fs.sync(&self.file))
            .map_err(CopyError::Write)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
