//! The end of the last segment: appending to it, and overwriting what was erased before it.
//!
//! Owns the one handle that segments are written through, and what is known to be durable.
//! Refuses to go on after a failure that leaves the disk's content unknown.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::compact::{Shared, hold};
use crate::cut;
use crate::error::{CommitError, OpenError, commit_io, is_full, open_io};
use crate::format::{self, GroupHeader, Pointer, SEGMENT_HEADER, TRAILER};
use crate::frame;
use crate::fs::{Fs, Handle};
use crate::index::Place;
use crate::queue::Ticket;
use crate::segment;

/// The end of the last segment.
pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    file: Handle,
    pub(super) end: Place,
    pub(super) buffer: Vec<u8>,
    /// Bytes written since the last layer was frozen.
    pub(super) since_freeze: u64,
    /// When a write was last known to be durable.
    pub(super) synced: Instant,
    /// While a compaction copies: the files that it reads, and the frames there that lost their
    /// key since it began.
    pub(super) copying: Option<Copying>,
    /// There may be copies of what opening cut off.
    cuts: bool,
    stopped: Option<String>,
}

/// What commits have to do with a compaction.
pub(super) struct Copying {
    pub files: HashSet<u32>,
    pub displaced: HashSet<Pointer>,
    /// The copy, where bodies are erased too.
    pub sink: Shared,
}

impl Writer {
    pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path, end: Place) -> Result<Writer, OpenError> {
        let path = segment::path(dir, end.segment);
        let file = segment::open_to_write(&*fs, dir, end.segment).map_err(open_io(&path))?;
        Ok(Writer {
            fs,
            dir: dir.to_owned(),
            file,
            end,
            buffer: Vec::new(),
            since_freeze: 0,
            synced: Instant::now(),
            copying: None,
            cuts: true,
            stopped: None,
        })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// A frame lost its key; a compaction that may have copied it has to know.
    pub(super) fn displace(&mut self, pointer: Pointer) {
        if let Some(copying) = &mut self.copying
            && copying.files.contains(&pointer.segment)
        {
            copying.displaced.insert(pointer);
        }
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.dir, self.end.segment)
    }

    pub(super) fn usable(&self) -> Result<(), CommitError> {
        match &self.stopped {
            Some(reason) => Err(CommitError::Stopped {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Takes no more batches, and says why from here on.
    pub(super) fn stop(&mut self, error: CommitError) -> CommitError {
        let source = std::error::Error::source(&error).map(|source| format!(" ({source})"));
        let told = error.to_string();
        // It is told inside other words, in their English half.
        let english = told
            .split_once(" / ")
            .map_or(told.as_str(), |halves| halves.1);
        let reason = format!("{english}{}", source.unwrap_or_default());
        tracing::error!(%reason, "the store stopped");
        self.stopped = Some(reason);
        error
    }

    /// Begins the next segment when the last has reached its size; says whether it did.
    pub(super) fn roll(&mut self, segment_bytes: u64) -> Result<bool, CommitError> {
        if u64::from(self.end.offset) < segment_bytes {
            return Ok(false);
        }
        let number = self.end.segment + 1;
        let path = segment::path(&self.dir, number);
        match segment::create(&*self.fs, &self.dir, number) {
            Ok(file) => {
                self.file = file;
                self.end.segment = number;
                self.end.offset = SEGMENT_HEADER;
                Ok(true)
            }
            // What there is of the file is written over by the next attempt.
            Err(error) if is_full(&error) => Err(CommitError::Full { file: path }),
            Err(error) => Err(self.stop(commit_io(&path)(error))),
        }
    }

    /// Appends one group to the buffer; returns the place of its first frame.
    pub(super) fn push(&mut self, ticket: &mut Ticket, head: u64) -> u32 {
        let start = self.buffer.len();
        let mut header = GroupHeader {
            len: 0,
            frames: ticket.frames.len() as u32,
            offset: self.end.offset + start as u32,
            synced: self.end.offset,
            sequence: self.end.sequence,
            head,
            shard_len: ticket.shard.len() as u8,
        };
        header.len = (header.bytes() + ticket.bytes.len() + TRAILER) as u32;
        format::push_group_header(&mut self.buffer, &header, &ticket.shard);
        let trailer = std::mem::take(&mut ticket.trailer);
        let trailer = frame::finish_trailer(trailer, &self.buffer[start..]);
        self.buffer.extend_from_slice(&ticket.bytes);
        self.buffer.extend_from_slice(&trailer);
        self.end.sequence += 1;
        header.offset + header.bytes() as u32
    }

    /// Writes the buffer and makes it durable. When there is no room the file is as before.
    pub(super) fn append(&mut self) -> Result<(), CommitError> {
        let path = self.path();
        let end = u64::from(self.end.offset);
        if let Err(error) = self.fs.write_at(&self.file, &self.buffer, end) {
            if !is_full(&error) {
                return Err(self.stop(commit_io(&path)(error)));
            }
            let undone = self.fs.set_len(&self.file, end);
            let undone = undone.and_then(|()| self.fs.sync(&self.file));
            return Err(match undone {
                Ok(()) => CommitError::Full { file: path },
                Err(error) => self.stop(commit_io(&path)(error)),
            });
        }
        // After a failed fsync the system may forget what it could not write, so a second
        // attempt would prove nothing.
        if let Err(error) = self.fs.sync(&self.file) {
            return Err(self.stop(commit_io(&path)(error)));
        }
        self.end.offset += self.buffer.len() as u32;
        self.synced = Instant::now();
        Ok(())
    }

    /// Overwrites bodies that the round replaced or deleted.
    pub(super) fn erase(&mut self, erasures: &mut [(Pointer, Vec<u8>)]) -> Result<(), CommitError> {
        if self.cuts {
            let folder = self.dir.join(cut::FOLDER);
            cut::clear(&*self.fs, &self.dir, None).map_err(commit_io(&folder))?;
            self.cuts = false;
        }
        erasures.sort_unstable();
        for of_segment in erasures.chunk_by(|a, b| a.0.segment == b.0.segment) {
            let number = of_segment[0].0.segment;
            let path = segment::path(&self.dir, number);
            let erase = || -> io::Result<()> {
                let file = segment::open_to_write(&*self.fs, &self.dir, number)?;
                for (pointer, key) in of_segment {
                    if !segment::erase(&*self.fs, &file, *pointer, key)? {
                        let offset = pointer.offset;
                        let what = format!("no body to erase at byte {offset}");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                    }
                }
                self.fs.sync(&file)?;
                let copying = self.copying.as_ref();
                if let Some(copying) = copying.filter(|copying| copying.files.contains(&number)) {
                    let mut sink = hold(&copying.sink);
                    for (pointer, _) in of_segment {
                        sink.erase(*pointer)?;
                    }
                }
                Ok(())
            };
            erase().map_err(commit_io(&path))?;
        }
        Ok(())
    }
}
