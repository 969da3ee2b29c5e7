//! The bytes of a page: chunks, each after its length and checksum.
//!
//! Owns encoding and decoding; a checksum covers the page's number too.
//! Refuses empty and overlong chunks; touches no file.

use super::{CHUNK_BYTES_MAX, ChunkAt, PAGE_BYTES_MAX, PagesError};

/// Bytes before a chunk: its length and its checksum.
pub(super) const HEAD: usize = 8;

/// What begins at some place of a page.
pub(super) enum Chunk<'a> {
    Whole(&'a [u8]),
    /// What an interrupted append may leave: less than declared, or zeros to the end of the file.
    Torn,
    Bad,
}

/// The chunk that `bytes`, the rest of a page, begin with.
pub(super) fn chunk_at(page: u32, bytes: &[u8]) -> Chunk<'_> {
    if bytes.iter().all(|&byte| byte == 0) {
        return Chunk::Torn;
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Chunk::Torn;
    };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if len == 0 || len > CHUNK_BYTES_MAX {
        return Chunk::Bad;
    }
    match rest.get(..len) {
        None => Chunk::Torn,
        Some(chunk) if head[4..] == checksum(page, chunk) => Chunk::Whole(chunk),
        // The last chunk, its end lost to zeros.
        Some(chunk) if rest.len() == len && chunk.last() == Some(&0) => Chunk::Torn,
        Some(_) => Chunk::Bad,
    }
}

/// The chunks that a page begins with, and where that ends too early.
pub(super) struct Walk {
    pub chunks: Vec<(ChunkAt, Vec<u8>)>,
    /// Where what is no whole chunk begins, and whether an interrupted append may leave such.
    pub fault: Option<(u64, bool)>,
}

impl Walk {
    /// Where the whole chunks end.
    pub fn end(&self) -> u64 {
        self.chunks.last().map_or(0, |(at, _)| at.end())
    }
}

/// Walks the bytes of a page up to the first that are no whole chunk.
pub(super) fn walk(page: u32, bytes: &[u8]) -> Walk {
    let (mut chunks, mut offset, mut fault) = (Vec::new(), 0, None);
    while offset < bytes.len() && fault.is_none() {
        match chunk_at(page, &bytes[offset..]) {
            Chunk::Whole(chunk) => {
                let at = ChunkAt {
                    page,
                    offset: offset as u64,
                    len: chunk.len() as u32,
                };
                chunks.push((at, chunk.to_vec()));
                offset += HEAD + chunk.len();
            }
            Chunk::Torn => fault = Some((offset as u64, true)),
            Chunk::Bad => fault = Some((offset as u64, false)),
        }
    }
    Walk { chunks, fault }
}

/// Covers the page's number and the length too, so that no chunk counts in another page.
fn checksum(page: u32, chunk: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page.to_le_bytes());
    crc.update(&(chunk.len() as u32).to_le_bytes());
    crc.update(chunk);
    crc.finalize().to_le_bytes()
}

/// The bytes of `chunks` when they begin at `start`, and the place of each.
pub(super) fn encode(
    page: u32,
    start: u64,
    chunks: &[&[u8]],
) -> Result<(Vec<u8>, Vec<ChunkAt>), PagesError> {
    let mut bytes = Vec::new();
    let mut places = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX {
            return Err(PagesError::Size {
                what: "chunk",
                bytes: chunk.len() as u64,
                max: CHUNK_BYTES_MAX as u64,
            });
        }
        let (offset, len) = (start + bytes.len() as u64, chunk.len() as u32);
        places.push(ChunkAt { page, offset, len });
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&checksum(page, chunk));
        bytes.extend_from_slice(chunk);
    }
    let end = start + bytes.len() as u64;
    if end > PAGE_BYTES_MAX {
        return Err(PagesError::Size {
            what: "page",
            bytes: end,
            max: PAGE_BYTES_MAX,
        });
    }
    Ok((bytes, places))
}
