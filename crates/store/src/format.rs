//! The bytes of a segment file, as `docs/formats/store.md` lays them out.
//!
//! Owns encoding and decoding of pointers, segment headers and group headers; all numbers are
//! little-endian. What lies between a group's header and its end is in `frame`.
//! Refuses whatever differs in one bit; touches no file.

use crate::{key, segment};

/// The version of the layout, in every segment and group header.
pub(crate) const VERSION: u8 = 1;
/// Bytes of the header that begins a segment file.
pub(crate) const SEGMENT_HEADER: u32 = 16;
/// Bytes of the header that begins a file made by compaction.
pub(crate) const KEPT_HEADER: u32 = 40;
/// Bytes of a group header before the shard's name.
pub(crate) const GROUP_FIXED: usize = 40;
/// Bytes of every checksum but the trailer.
pub(crate) const CRC: usize = 4;
/// Bytes of the trailer, a SHA-256.
pub(crate) const TRAILER: usize = 32;
/// What a group header begins with.
pub(crate) const GROUP_MAGIC: [u8; 4] = *b"FZGR";
const SEGMENT_MAGIC: [u8; 4] = *b"FZSG";
const KEPT_MAGIC: [u8; 4] = *b"FZSK";

/// Where a frame lies: in which segment, from which byte on, how many bytes with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pointer {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
}

impl Pointer {
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Pointer> {
        let bytes: &[u8; 12] = bytes.try_into().ok()?;
        Some(Pointer {
            segment: u32_at(bytes, 0),
            offset: u32_at(bytes, 4),
            len: u32_at(bytes, 8),
        })
    }
}

pub(crate) fn segment_header(number: u32) -> [u8; SEGMENT_HEADER as usize] {
    let mut bytes = [0; SEGMENT_HEADER as usize];
    bytes[..4].copy_from_slice(&SEGMENT_MAGIC);
    bytes[4] = VERSION;
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Which segments a file that compaction made stands for, and the groups that it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptHeader {
    /// The file's number, [`crate::segment::KEPT`] included.
    pub number: u32,
    /// The first segment that it stands for.
    pub from: u32,
    /// The last one.
    pub to: u32,
    /// The sequence number of the first group of `from`.
    pub first: u64,
    /// The sequence number of the first group after `to`.
    pub end: u64,
}

impl KeptHeader {
    pub(crate) fn encode(&self) -> [u8; KEPT_HEADER as usize] {
        let mut bytes = [0; KEPT_HEADER as usize];
        bytes[..4].copy_from_slice(&KEPT_MAGIC);
        bytes[4] = VERSION;
        for (at, number) in [(8, self.number), (12, self.from), (16, self.to)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[20..28].copy_from_slice(&self.first.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.end.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of the file with this number.
    pub(crate) fn decode(bytes: &[u8], number: u32) -> Option<KeptHeader> {
        let header = KeptHeader {
            number: u32_at(bytes.get(..KEPT_HEADER as usize)?, 8),
            from: u32_at(bytes, 12),
            to: u32_at(bytes, 16),
            first: u64_at(bytes, 20),
            end: u64_at(bytes, 28),
        };
        let sound = header.number == number
            && (1..=header.to).contains(&header.from)
            && header.first <= header.end;
        (sound && header.encode() == bytes[..KEPT_HEADER as usize]).then_some(header)
    }
}

/// What the first bytes of a segment file say.
pub(crate) enum SegmentHeader {
    Good,
    Bad,
    Version(u8),
}

/// Bytes of the header of the file with this number.
pub(crate) fn header_len(number: u32) -> u32 {
    match number & segment::KEPT {
        0 => SEGMENT_HEADER,
        _ => KEPT_HEADER,
    }
}

/// Checks the first [`header_len`] bytes of a file.
pub(crate) fn check_segment_header(bytes: &[u8], number: u32) -> SegmentHeader {
    if number & segment::KEPT != 0 {
        return match KeptHeader::decode(bytes, number) {
            Some(_) => SegmentHeader::Good,
            None => SegmentHeader::Bad,
        };
    }
    if bytes == segment_header(number) {
        return SegmentHeader::Good;
    }
    let whole = bytes.len() == SEGMENT_HEADER as usize
        && bytes.starts_with(&SEGMENT_MAGIC)
        && u32_at(bytes, 12) == crc32fast::hash(&bytes[..12]);
    match bytes.get(4) {
        Some(&version) if whole && version != VERSION => SegmentHeader::Version(version),
        _ => SegmentHeader::Bad,
    }
}

/// What a group header says. The shard's name lies at [`GROUP_FIXED`] of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Bytes of the group, header and trailer included.
    pub len: u32,
    /// Number of frames.
    pub frames: u32,
    /// Where in its file the group begins; a group found elsewhere is not one.
    pub offset: u32,
    /// Up to where its file was known to be durable when the group was written.
    pub synced: u32,
    /// One more than that of the group before, over all segments; the first has 1.
    pub sequence: u64,
    /// The shard's head after this group.
    pub head: u64,
    /// Bytes of the shard's name.
    pub shard_len: u8,
}

impl GroupHeader {
    /// Bytes of this header with name and checksum.
    pub(crate) fn bytes(&self) -> usize {
        GROUP_FIXED + self.shard_len as usize + CRC
    }
}

pub(crate) fn push_group_header(out: &mut Vec<u8>, header: &GroupHeader, shard: &str) {
    let start = out.len();
    out.extend_from_slice(&GROUP_MAGIC);
    out.extend_from_slice(&[VERSION, header.shard_len, 0, 0]);
    for number in [header.len, header.frames, header.offset, header.synced] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.head.to_le_bytes());
    out.extend_from_slice(shard.as_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What the bytes at the place of a group header are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Header(GroupHeader),
    /// The file ends within it.
    Short,
    Bad,
}

/// Reads the group header that `bytes` begins with, at `offset` of its file.
pub(crate) fn group_header(bytes: &[u8], offset: u64) -> HeaderFound {
    if bytes.len() < GROUP_FIXED {
        return HeaderFound::Short;
    }
    if !bytes.starts_with(&GROUP_MAGIC) || bytes[4] != VERSION || bytes[6..8] != [0, 0] {
        return HeaderFound::Bad;
    }
    let shard_len = bytes[5];
    let end = GROUP_FIXED + shard_len as usize;
    if bytes.len() < end + CRC {
        return HeaderFound::Short;
    }
    let header = GroupHeader {
        len: u32_at(bytes, 8),
        frames: u32_at(bytes, 12),
        offset: u32_at(bytes, 16),
        synced: u32_at(bytes, 20),
        sequence: u64_at(bytes, 24),
        head: u64_at(bytes, 32),
        shard_len,
    };
    let named = std::str::from_utf8(&bytes[GROUP_FIXED..end])
        .is_ok_and(|shard| key::check_shard(shard).is_ok());
    let placed = u64::from(header.offset) == offset && u64::from(header.synced) <= offset;
    let room = header.len as usize >= header.bytes() + TRAILER;
    if u32_at(bytes, end) != crc32fast::hash(&bytes[..end]) || !named || !placed || !room {
        return HeaderFound::Bad;
    }
    HeaderFound::Header(header)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..at + 4].try_into();
    u32::from_le_bytes(bytes.expect("the slice has 4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes[at..at + 8].try_into();
    u64::from_le_bytes(bytes.expect("the slice has 8 bytes"))
}
