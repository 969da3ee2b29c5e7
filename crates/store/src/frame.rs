//! The inside of a group: frames and the trailer over them.
//!
//! Owns encoding and checking of frames, the erased form of a body, and the trailer that no
//! erasure changes.
//! Refuses whatever differs in one bit; touches no file.

use sha2::{Digest, Sha256};

use crate::batch::Frame;
use crate::format::{CRC, GROUP_FIXED, GroupHeader, TRAILER, u32_at};
use crate::key;

/// Bytes of a frame before its key.
pub(crate) const FRAME_FIXED: usize = 8;

/// What a frame does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Gives it a value that stays.
    Put = 1,
    /// Gives it a value that can be erased.
    Body = 2,
    /// Takes its value away.
    Delete = 3,
    /// Says that a body frame, whose place is the value, is overwritten after this group.
    Erase = 4,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Put, Kind::Body, Kind::Delete, Kind::Erase]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

impl From<Frame> for Kind {
    fn from(frame: Frame) -> Kind {
        match frame {
            Frame::Plain => Kind::Put,
            Frame::Body => Kind::Body,
        }
    }
}

/// The form byte of a body frame whose value was overwritten; every other frame has 0.
pub(crate) const ERASED: u8 = 1;

/// A frame found in a group; `at` counts from the group's first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameRef {
    pub kind: Kind,
    pub erased: bool,
    pub at: u32,
    pub key_len: u16,
    /// Of the table's name in the key; 0 when the key is none of the group's shard.
    table_len: u16,
    pub value_len: u32,
    /// Its checksum holds and its key and lengths are what its kind allows.
    pub good: bool,
}

impl FrameRef {
    pub(crate) fn len(&self) -> u32 {
        (FRAME_FIXED + self.key_len as usize + CRC) as u32 + self.value_len
    }

    /// Whether there is a value in it to look at: one that holds and was not erased.
    pub(crate) fn shows_value(&self) -> bool {
        self.good && !self.erased && matches!(self.kind, Kind::Put | Kind::Body)
    }

    pub(crate) fn key<'a>(&self, group: &'a [u8]) -> &'a [u8] {
        let start = self.at as usize + FRAME_FIXED;
        &group[start..start + self.key_len as usize]
    }

    /// As [`key::in_shard`] of a frame that was found in a group of the shard, without looking again.
    pub(crate) fn in_shard<'a>(
        &self,
        group: &'a [u8],
        shard: &str,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let after = self.key(group).get(shard.len() + 1..)?;
        let (table, rest) = after.split_at_checked(usize::from(self.table_len))?;
        (!table.is_empty()).then_some((table, rest.get(1..)?))
    }

    pub(crate) fn value<'a>(&self, group: &'a [u8]) -> &'a [u8] {
        let start = self.at as usize + FRAME_FIXED + self.key_len as usize;
        &group[start..start + self.value_len as usize]
    }
}

/// Appends a frame and feeds the group's trailer.
pub(crate) fn push_frame(
    out: &mut Vec<u8>,
    trailer: &mut Sha256,
    kind: Kind,
    key: &[u8],
    value: &[u8],
) -> FrameRef {
    let start = out.len();
    push_frame_bytes(out, kind, 0, key, value);
    let frame = FrameRef {
        kind,
        erased: false,
        at: start as u32,
        key_len: key.len() as u16,
        // Nobody asks a frame that is being written.
        table_len: 0,
        value_len: value.len() as u32,
        good: true,
    };
    feed_trailer(trailer, &frame, out);
    frame
}

/// Appends a good frame of another group as it is, and feeds the trailer; returns where it begins.
pub(crate) fn copy_frame(
    out: &mut Vec<u8>,
    trailer: &mut Sha256,
    group: &[u8],
    frame: &FrameRef,
) -> u32 {
    feed_trailer(trailer, frame, group);
    let at = out.len() as u32;
    let start = frame.at as usize;
    out.extend_from_slice(&group[start..start + frame.len() as usize]);
    at
}

/// The bytes that take the place of a body frame of this key and value length.
pub(crate) fn erased_frame(key: &[u8], value_len: u32) -> Vec<u8> {
    let value = vec![0; value_len as usize];
    let mut out = Vec::with_capacity(FRAME_FIXED + key.len() + value.len() + CRC);
    push_frame_bytes(&mut out, Kind::Body, ERASED, key, &value);
    out
}

fn push_frame_bytes(out: &mut Vec<u8>, kind: Kind, form: u8, key: &[u8], value: &[u8]) {
    let start = out.len();
    // Keys are at most 512 bytes and values at most 16 MiB, so both lengths fit.
    out.extend_from_slice(&[kind as u8, form]);
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn feed_trailer(trailer: &mut Sha256, frame: &FrameRef, group: &[u8]) {
    for part in covered_by_trailer(frame, group) {
        trailer.update(part);
    }
}

/// The trailer covers every frame's kind, lengths, key and, save for bodies, its checksum, which
/// covers the value. So an erasure in place changes no trailer.
fn covered_by_trailer<'a>(frame: &FrameRef, group: &'a [u8]) -> [&'a [u8]; 3] {
    let start = frame.at as usize;
    let end = start + frame.len() as usize;
    let kind: &[u8; 2] = match frame.kind {
        Kind::Put => &[Kind::Put as u8, 0],
        Kind::Body => &[Kind::Body as u8, 0],
        Kind::Delete => &[Kind::Delete as u8, 0],
        Kind::Erase => &[Kind::Erase as u8, 0],
    };
    let checksum = match frame.kind {
        Kind::Body => &[][..],
        _ => &group[end - CRC..end],
    };
    let named = start + 2..start + FRAME_FIXED + frame.key_len as usize;
    [kind, &group[named], checksum]
}

/// Appends the same, copied with as few steps as there are for what is most of a scan's frames.
fn cover(covered: &mut Vec<u8>, frame: &FrameRef, group: &[u8]) {
    let start = frame.at as usize;
    let named = start + FRAME_FIXED + frame.key_len as usize;
    let form = covered.len() + 1;
    covered.extend_from_slice(&group[start..named]);
    covered[form] = 0;
    if frame.kind != Kind::Body {
        let end = start + frame.len() as usize;
        covered.extend_from_slice(&group[end - CRC..end]);
    }
}

/// Closes the trailer over the frames fed so far and the header, checksum included.
pub(crate) fn finish_trailer(mut trailer: Sha256, header: &[u8]) -> [u8; TRAILER] {
    trailer.update(header);
    trailer.finalize().into()
}

/// What the inside of a group of the right length is.
#[derive(Clone, Copy)]
pub(crate) struct Inspection {
    /// Where the frames stop making sense, counted from the group's first byte.
    pub broken_at: Option<u32>,
    /// Kinds, lengths, keys and order are what was written; a value may still be bad.
    pub trailer_good: bool,
}

/// Finds the frames of a whole group, appends them, and checks every byte of the group.
pub(crate) fn inspect(
    group: &[u8],
    header: &GroupHeader,
    frames: &mut Vec<FrameRef>,
) -> Inspection {
    let end = group.len() - TRAILER;
    let shard_end = GROUP_FIXED + header.shard_len as usize;
    let shard = std::str::from_utf8(&group[GROUP_FIXED..shard_end]).unwrap_or_default();
    // All that the trailer covers, hashed in one go; a header may claim any number of frames.
    let mut covered = Vec::with_capacity(4096.min(group.len()));
    let mut at = header.bytes();
    let begun = frames.len();
    while at < end {
        let Some(frame) = frame_at(&group[..end], at, shard) else {
            break;
        };
        cover(&mut covered, &frame, group);
        at += frame.len() as usize;
        frames.push(frame);
    }
    let complete = at == end && frames.len() - begun == header.frames as usize;
    covered.extend_from_slice(&group[..header.bytes()]);
    let trailer_good = complete && Sha256::digest(&covered)[..] == group[end..];
    Inspection {
        broken_at: (!complete).then_some(at as u32),
        trailer_good,
    }
}

fn frame_at(frames: &[u8], at: usize, shard: &str) -> Option<FrameRef> {
    let head = frames.get(at..at + FRAME_FIXED)?;
    let mut frame = FrameRef {
        kind: Kind::from_byte(head[0])?,
        erased: head[1] == ERASED,
        at: at as u32,
        key_len: u16::from_le_bytes([head[2], head[3]]),
        table_len: 0,
        value_len: u32_at(head, 4),
        good: false,
    };
    let len = FRAME_FIXED + frame.key_len as usize + frame.value_len as usize + CRC;
    let bytes = frames.get(at..at.checked_add(len)?)?;
    let form = head[1] == 0 || (frame.erased && frame.kind == Kind::Body);
    let value = match frame.kind {
        Kind::Put | Kind::Body => true,
        Kind::Delete => frame.value_len == 0,
        Kind::Erase => frame.value_len == 12,
    };
    if let Some((table, _)) = key::in_shard(frame.key(frames), shard) {
        // A key has at most 512 bytes.
        frame.table_len = table.len() as u16;
    }
    frame.good = form && value && frame.table_len > 0 && crc_holds(bytes);
    Some(frame)
}

/// What a single frame read by its pointer holds.
pub(crate) enum Held<'a> {
    Value(&'a [u8]),
    Erased,
}

/// Checks one frame that should give `key` its value.
pub(crate) fn check_frame<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Held<'a>, &'static str> {
    if bytes.len() < FRAME_FIXED + CRC || !crc_holds(bytes) {
        return Err("the frame's checksum does not hold");
    }
    let key_end = FRAME_FIXED + usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
    let value_end = bytes.len() - CRC;
    if bytes.get(FRAME_FIXED..key_end) != Some(key)
        || key_end + u32_at(bytes, 4) as usize != value_end
    {
        return Err("the frame is not the one that the index looked for");
    }
    match (Kind::from_byte(bytes[0]), bytes[1]) {
        (Some(Kind::Put | Kind::Body), 0) => Ok(Held::Value(&bytes[key_end..value_end])),
        (Some(Kind::Body), ERASED) => Ok(Held::Erased),
        _ => Err("the frame holds no value"),
    }
}

fn crc_holds(bytes: &[u8]) -> bool {
    let end = bytes.len() - CRC;
    u32_at(bytes, end) == crc32fast::hash(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{HeaderFound, group_header, push_group_header};

    fn group() -> Vec<u8> {
        let (mut frames, mut trailer) = (Vec::new(), Sha256::new());
        let body = b"s\0t\0body";
        push_frame(
            &mut frames,
            &mut trailer,
            Kind::Put,
            b"s\0t\0plain",
            b"value",
        );
        push_frame(&mut frames, &mut trailer, Kind::Body, body, b"secret");
        push_frame(&mut frames, &mut trailer, Kind::Delete, b"s\0t\0gone", b"");
        let mut out = Vec::new();
        let mut header = GroupHeader {
            len: 0,
            frames: 3,
            offset: 16,
            synced: 16,
            sequence: 1,
            head: 1,
            shard_len: 1,
        };
        header.len = (header.bytes() + frames.len() + TRAILER) as u32;
        push_group_header(&mut out, &header, "s");
        let trailer = finish_trailer(trailer, &out);
        out.extend_from_slice(&frames);
        out.extend_from_slice(&trailer);
        out
    }

    fn is_whole(bytes: &[u8]) -> bool {
        let HeaderFound::Header(header) = group_header(bytes, 16) else {
            return false;
        };
        let mut frames = Vec::new();
        header.len as usize == bytes.len()
            && inspect(bytes, &header, &mut frames).trailer_good
            && frames.iter().all(|frame| frame.good)
    }

    #[test]
    fn any_flipped_bit_spoils_a_group() {
        let bytes = group();
        assert!(is_whole(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&flipped), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_found_gives_the_parts_of_its_key() {
        let bytes = group();
        let HeaderFound::Header(header) = group_header(&bytes, 16) else {
            panic!("the header is good");
        };
        let mut frames = Vec::new();
        inspect(&bytes, &header, &mut frames);
        for frame in &frames {
            let parts = key::in_shard(frame.key(&bytes), "s");
            assert!(parts.is_some());
            assert_eq!(frame.in_shard(&bytes, "s"), parts);
        }
    }

    #[test]
    fn an_erased_body_leaves_its_group_whole() {
        let mut bytes = group();
        let HeaderFound::Header(header) = group_header(&bytes, 16) else {
            panic!("the header is good");
        };
        let mut frames = Vec::new();
        inspect(&bytes, &header, &mut frames);
        let body = frames[1];
        let erased = erased_frame(b"s\0t\0body", body.value_len);
        let at = body.at as usize;
        bytes[at..at + erased.len()].copy_from_slice(&erased);
        assert!(is_whole(&bytes));
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
        frames.clear();
        inspect(&bytes, &header, &mut frames);
        assert!(frames[1].erased);
        assert!(matches!(
            check_frame(&erased, b"s\0t\0body"),
            Ok(Held::Erased)
        ));
    }

    #[test]
    fn two_frames_of_equal_length_cannot_change_places() {
        let mut bytes = group();
        let HeaderFound::Header(header) = group_header(&bytes, 16) else {
            panic!("the header is good");
        };
        let mut frames = Vec::new();
        inspect(&bytes, &header, &mut frames);
        let (a, b) = (frames[0], frames[1]);
        let (start, middle) = (a.at as usize, b.at as usize);
        assert_eq!(a.len(), b.len());
        let end = middle + b.len() as usize;
        bytes[start..end].rotate_left(middle - start);
        assert!(!is_whole(&bytes));
    }

    #[test]
    fn a_group_found_at_another_offset_is_not_one() {
        assert_eq!(group_header(&group(), 17), HeaderFound::Bad);
    }
}
