//! Going through one segment file group by group.
//!
//! Owns the reading window and the search for the next group after a damaged place.
//! Refuses to judge: whether a fault is a torn tail or damage is decided by its callers.

use std::fs::File;
use std::io;

use crate::format::{self, GroupHeader, HeaderFound, KeptHeader, Pointer, SegmentHeader};
use crate::frame::{self, FrameRef, Inspection};
use crate::segment;

/// Bytes read ahead.
const WINDOW: usize = 1 << 20;
/// Bytes searched at a time; more than a header has, far less than the window.
const STRIDE: usize = 4 << 10;

/// What lies at an offset of a segment.
pub(crate) enum Step<'a> {
    /// The file ends here.
    End,
    /// A group of its declared length; its inside may still be bad.
    Group(Group<'a>),
    /// The file ends within what begins here.
    Short,
    /// No group begins here.
    Bad,
}

/// A group of its declared length.
pub(crate) struct Group<'a> {
    pub segment: u32,
    pub header: GroupHeader,
    pub bytes: &'a [u8],
    pub frames: &'a [FrameRef],
    pub inspection: Inspection,
}

/// A fault inside a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub offset: u64,
    pub what: &'static str,
}

impl Group<'_> {
    pub(crate) fn shard(&self) -> &str {
        let start = format::GROUP_FIXED;
        let name = &self.bytes[start..start + self.header.shard_len as usize];
        // The header was accepted only with a name in UTF-8.
        std::str::from_utf8(name).unwrap_or_default()
    }

    pub(crate) fn end(&self) -> u32 {
        self.header.offset + self.header.len
    }

    pub(crate) fn pointer(&self, frame: &FrameRef) -> Pointer {
        Pointer {
            segment: self.segment,
            offset: self.header.offset + frame.at,
            len: frame.len(),
        }
    }

    pub(crate) fn key(&self, frame: &FrameRef) -> &[u8] {
        frame.key(self.bytes)
    }

    /// The first fault that no interrupted erasure explains. A body with a bad checksum in a
    /// group with a good trailer is not one: see [`Group::bad_bodies`].
    pub(crate) fn fault(&self) -> Option<Fault> {
        let at = |at: u32, what| Fault {
            offset: u64::from(self.header.offset + at),
            what,
        };
        let bad = |frame: &&FrameRef| {
            !(frame.good || self.inspection.trailer_good && frame.kind == frame::Kind::Body)
        };
        if let Some(frame) = self.frames.iter().find(bad) {
            return Some(at(frame.at, "the frame's checksum does not hold"));
        }
        if let Some(broken) = self.inspection.broken_at {
            return Some(at(broken, "the group's frames do not fill it"));
        }
        let trailer = self.header.len - format::TRAILER as u32;
        (!self.inspection.trailer_good).then(|| at(trailer, "the group's checksum does not hold"))
    }

    /// Bodies whose key is certain and whose value is not.
    pub(crate) fn bad_bodies(&self) -> impl Iterator<Item = &FrameRef> {
        let bad = |frame: &&FrameRef| !frame.good && frame.kind == frame::Kind::Body;
        self.frames
            .iter()
            .filter(bad)
            .filter(|_| self.inspection.trailer_good)
    }
}

/// Reads one segment from its header to its end.
pub(crate) struct Walk {
    file: File,
    number: u32,
    len: u64,
    base: u64,
    window: Vec<u8>,
    frames: Vec<FrameRef>,
}

impl Walk {
    pub(crate) fn new(file: File, number: u32) -> io::Result<Walk> {
        let len = file.metadata()?.len();
        Ok(Walk {
            file,
            number,
            len,
            base: 0,
            window: Vec::new(),
            frames: Vec::new(),
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Takes what comes after so many bytes as not there.
    pub(crate) fn end_at(&mut self, len: u64) {
        self.len = self.len.min(len);
    }

    /// Bytes of the file from `offset` on, as many as `wanted` or as there are.
    pub(crate) fn bytes(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(self.len.saturating_sub(offset) as usize);
        let inside =
            offset >= self.base && offset + wanted as u64 <= self.base + self.window.len() as u64;
        if !inside {
            let ahead = (self.len - offset.min(self.len)).min(WINDOW as u64) as usize;
            self.window.resize(wanted.max(ahead), 0);
            self.base = offset;
            let have = segment::read_up_to(&self.file, &mut self.window, offset)?;
            self.window.truncate(have);
        }
        let start = ((offset - self.base) as usize).min(self.window.len());
        let end = (start + wanted).min(self.window.len());
        Ok(&self.window[start..end])
    }

    /// Fills the buffer from `offset` on and says how far the file reached; no window in between.
    pub(crate) fn read_into(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        segment::read_up_to(&self.file, buffer, offset)
    }

    pub(crate) fn segment_header(&self) -> io::Result<SegmentHeader> {
        let mut bytes = [0; format::KEPT_HEADER as usize];
        let bytes = &mut bytes[..format::header_len(self.number) as usize];
        let have = self.read_into(bytes, 0)?;
        Ok(format::check_segment_header(&bytes[..have], self.number))
    }

    /// The header of a file that compaction made; `None` in any other.
    pub(crate) fn kept_header(&self) -> io::Result<Option<KeptHeader>> {
        let mut bytes = [0; format::KEPT_HEADER as usize];
        let have = self.read_into(&mut bytes, 0)?;
        Ok(KeptHeader::decode(&bytes[..have], self.number))
    }

    /// What begins at `offset`.
    pub(crate) fn step(&mut self, offset: u64) -> io::Result<Step<'_>> {
        if offset >= self.len {
            return Ok(Step::End);
        }
        let header = match self.header(offset)? {
            HeaderFound::Header(header) => header,
            HeaderFound::Short => return Ok(Step::Short),
            HeaderFound::Bad => return Ok(Step::Bad),
        };
        // Checked before anything of that length is read: the header's checksum holds, but the
        // file may end early.
        if offset + u64::from(header.len) > self.len {
            return Ok(Step::Short);
        }
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let bytes = self.bytes(offset, header.len as usize)?;
        if bytes.len() < header.len as usize {
            return Ok(Step::Short);
        }
        let inspection = frame::inspect(bytes, &header, &mut frames);
        self.frames = frames;
        let start = (offset - self.base) as usize;
        Ok(Step::Group(Group {
            segment: self.number,
            header,
            bytes: &self.window[start..start + header.len as usize],
            frames: &self.frames,
            inspection,
        }))
    }

    fn header(&mut self, offset: u64) -> io::Result<HeaderFound> {
        let longest = format::GROUP_FIXED + crate::key::SHARD_BYTES_MAX + format::CRC;
        Ok(format::group_header(self.bytes(offset, longest)?, offset))
    }

    /// The first offset after `offset` where a group header of its place begins, and the header.
    pub(crate) fn next_header(&mut self, offset: u64) -> io::Result<Option<(u64, GroupHeader)>> {
        let mut at = offset + 1;
        loop {
            let bytes = self.bytes(at, STRIDE)?;
            if bytes.len() < format::GROUP_MAGIC.len() {
                return Ok(None);
            }
            let magic = bytes
                .windows(format::GROUP_MAGIC.len())
                .position(|window| window == format::GROUP_MAGIC);
            let Some(magic) = magic else {
                // The last bytes may be the beginning of the magic.
                at += (bytes.len() - format::GROUP_MAGIC.len() + 1) as u64;
                continue;
            };
            at += magic as u64;
            if let HeaderFound::Header(header) = self.header(at)? {
                return Ok(Some((at, header)));
            }
            at += 1;
        }
    }

    /// Whether something later in this file shows that the bytes at `offset` were once durable:
    /// a group that was begun when its file was synced beyond `offset`.
    pub(crate) fn was_durable(&mut self, offset: u64) -> io::Result<bool> {
        let mut at = offset;
        while let Some((next, header)) = self.next_header(at)? {
            if u64::from(header.synced) > offset {
                return Ok(true);
            }
            at = next;
        }
        Ok(false)
    }
}
