//! The segments in pieces: groups that lie together, read in one go, in the order of the files.
//!
//! Owns which bytes are read next, and the search for the next group after a damaged place.
//! Refuses to look inside a group: that is the dear part, and any thread can do it.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::error::{ReadError, read_io};
use crate::format::{self, GroupHeader, HeaderFound, KeptHeader, SegmentHeader};
use crate::segment::{self, Order};
use crate::walk::Walk;

/// Bytes read in one go, and what completes the last group: small enough to stay in a core's cache
/// until they are checked, where groups allow.
const PIECE: usize = 256 << 10;
/// Events of a piece without groups.
const EVENTS_MAX: usize = 1000;

/// What there is to say of the files, in their order.
pub(super) enum Event {
    /// A file of so many bytes begins.
    File { path: PathBuf, bytes: u64 },
    /// It stands for several segments.
    Kept(KeptHeader),
    /// Such a file ends.
    End(KeptHeader),
    /// No file stands for this segment.
    Missing(u32),
    /// Something is wrong; groups may be `lost` with it.
    Damaged {
        number: u32,
        offset: u64,
        what: &'static str,
        lost: bool,
    },
    /// The end of the last file is unfinished.
    Unfinished(Finding),
    /// A group of its declared length begins at `at` of the piece's bytes.
    Group {
        segment: u32,
        at: usize,
        header: GroupHeader,
    },
}

/// Some events, and the bytes of the groups among them.
#[derive(Default)]
pub(super) struct Piece {
    pub serial: u64,
    pub events: Vec<Event>,
    /// As long as the longest piece that was ever in it; the events say what counts.
    pub bytes: Vec<u8>,
}

/// Reads piece by piece.
pub(super) struct Reader<'a> {
    dir: &'a Path,
    order: &'a Order,
    /// How many files were begun.
    begun: usize,
    /// The segment that the next file must stand for.
    next: u32,
    open: Option<Open>,
    ended: bool,
    serial: u64,
    /// The file that was read last, and where in it the last whole group ends.
    end: Option<(u32, u64)>,
}

/// The file that is being read.
struct Open {
    walk: Walk,
    path: PathBuf,
    number: u32,
    last: bool,
    kept: Option<KeptHeader>,
    offset: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dir: &'a Path, order: &'a Order) -> Reader<'a> {
        Reader {
            dir,
            order,
            begun: 0,
            next: segment::FIRST,
            open: None,
            ended: false,
            serial: 0,
            end: None,
        }
    }

    /// The last segment, and up to where it was read: what is committed later comes there. `None`
    /// when it is missing.
    pub(super) fn end(&self) -> Option<(u32, u64)> {
        self.end.filter(|(number, _)| number & segment::KEPT == 0)
    }

    /// Reads the next piece; whether there was one.
    pub(super) fn read(&mut self, piece: &mut Piece) -> Result<bool, ReadError> {
        piece.events.clear();
        let is_group = |event: &Event| matches!(event, Event::Group { .. });
        while !piece.events.last().is_some_and(is_group) && piece.events.len() < EVENTS_MAX {
            match &mut self.open {
                Some(open) => {
                    if !open.read(piece)? {
                        self.end = Some((open.number, open.offset));
                        self.open = None;
                    }
                }
                None if self.ended => break,
                None => self.begin(&mut piece.events)?,
            }
        }
        piece.serial = self.serial;
        self.serial += 1;
        Ok(!piece.events.is_empty())
    }

    /// Begins the next file.
    fn begin(&mut self, events: &mut Vec<Event>) -> Result<(), ReadError> {
        let Some(live) = self.order.files.get(self.begun) else {
            self.ended = true;
            let last = self.order.files.last();
            let open = last.is_some_and(|last| last.number & segment::KEPT == 0);
            if !open && self.order.bad.is_empty() {
                // Compaction leaves the segment that is written to alone.
                events.push(Event::Missing(self.next));
            }
            return Ok(());
        };
        events.extend((self.next..live.from).map(Event::Missing));
        self.next = live.to + 1;
        self.begun += 1;
        let last = live.to == self.order.last();
        let len = last.then_some(live.bytes);
        self.open = Open::new(self.dir, live.number, len, events)?;
        if self.open.is_none() {
            let begin = u64::from(format::header_len(live.number));
            self.end = Some((live.number, begin));
        }
        Ok(())
    }
}

impl Open {
    /// Checks the file's header; `None` when there is nothing after it. The last file is read up to
    /// the length that it had when all were listed: so what is read is the state of one moment.
    fn new(
        dir: &Path,
        number: u32,
        last_len: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Result<Option<Open>, ReadError> {
        let path = segment::path(dir, number);
        let io = || read_io(&path);
        let file = File::open(&path).map_err(io())?;
        let mut walk = Walk::new(file, number).map_err(io())?;
        let last = last_len.is_some();
        if let Some(len) = last_len {
            walk.end_at(len);
        }
        let (bytes, offset) = (walk.len(), u64::from(format::header_len(number)));
        events.push(Event::File {
            path: path.clone(),
            bytes,
        });
        if bytes < offset && last {
            events.push(Event::Unfinished(Finding::Unfinished {
                file: path,
                offset: 0,
                bytes,
            }));
            return Ok(None);
        }
        let bad = match walk.segment_header().map_err(io())? {
            SegmentHeader::Good => None,
            SegmentHeader::Version(_) => Some("the file has a version not known here"),
            SegmentHeader::Bad => Some("the file's header does not hold"),
        };
        events.extend(bad.map(|what| Event::Damaged {
            number,
            offset: 0,
            what,
            lost: false,
        }));
        let kept = walk.kept_header().map_err(io())?;
        events.extend(kept.map(Event::Kept));
        Ok(Some(Open {
            walk,
            path,
            number,
            last,
            kept,
            offset,
        }))
    }

    /// Reads groups, or says why there is none; `false` when the file is done.
    fn read(&mut self, piece: &mut Piece) -> Result<bool, ReadError> {
        let (start, len) = (self.offset, self.walk.len());
        if start >= len {
            piece.events.extend(self.kept.map(Event::End));
            return Ok(false);
        }
        let wanted = (len - start).min(PIECE as u64) as usize;
        let mut have = self.fill(&mut piece.bytes, start, 0..wanted)?;
        let mut at = 0;
        loop {
            let what = match format::group_header(&piece.bytes[at..have], self.offset) {
                HeaderFound::Header(header) => {
                    let end = at + header.len as usize;
                    if end > have && self.offset + u64::from(header.len) <= len {
                        have = self.fill(&mut piece.bytes, start, have..end)?;
                    }
                    if end <= have {
                        piece.events.push(Event::Group {
                            segment: self.number,
                            at,
                            header,
                        });
                        at = end;
                        self.offset += u64::from(header.len);
                        if at < have && at < PIECE {
                            continue;
                        }
                        return Ok(true);
                    }
                    "the file ends within a group"
                }
                HeaderFound::Short => "the file ends within a group",
                HeaderFound::Bad => "no group begins here",
            };
            // What comes before a fault, or before the end of what was read, goes first.
            return match at {
                0 => self.fault(what, &mut piece.events),
                _ => Ok(true),
            };
        }
    }

    /// Reads a part of the piece's bytes, which begin at `start` of the file; says up to where
    /// there are any.
    fn fill(
        &self,
        bytes: &mut Vec<u8>,
        start: u64,
        part: Range<usize>,
    ) -> Result<usize, ReadError> {
        if bytes.len() < part.end {
            bytes.resize(part.end, 0);
        }
        let offset = start + part.start as u64;
        let read = self.walk.read_into(&mut bytes[part.clone()], offset);
        Ok(part.start + read.map_err(read_io(&self.path))?)
    }

    fn fault(&mut self, what: &'static str, events: &mut Vec<Event>) -> Result<bool, ReadError> {
        let offset = self.offset;
        let next = self.walk.next_header(offset);
        let next = next.map_err(read_io(&self.path))?;
        let short = what.starts_with("the file ends");
        if short && self.last && next.is_none() {
            events.push(Event::Unfinished(Finding::Unfinished {
                file: self.path.clone(),
                offset,
                bytes: self.walk.len() - offset,
            }));
            return Ok(false);
        }
        events.push(Event::Damaged {
            number: self.number,
            offset,
            what,
            lost: true,
        });
        if let Some((at, _)) = next {
            self.offset = at;
        }
        Ok(next.is_some())
    }
}
