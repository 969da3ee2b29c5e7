//! Values, one after another, in chunks that never move.
//!
//! Owns the bytes of a column. A chunk is allocated once at its full size, so that
//! growing leaves no copy behind, and is wiped when dropped.

use zeroize::{Zeroize, Zeroizing};

/// A chunk's bytes, and the distance between the addresses of two chunks.
const CHUNK: usize = 1 << 16;
/// The first chunk's bytes; each later one doubles, so that a small shard stays small.
const CHUNK_FIRST: usize = 1 << 10;
/// The longest value: widths are 16 bits wide.
pub(crate) const VALUE_MAX: usize = u16::MAX as usize;
/// The length byte that says that two more bytes carry the length.
const LONG: u8 = u8::MAX;

/// Where a value begins: chunk number in the high 16 bits, offset in the low.
pub(crate) type Address = u32;

/// No value begins here.
pub(crate) const NOWHERE: Address = u32::MAX;

#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<Zeroizing<Vec<u8>>>,
    live: usize,
    wiped: usize,
}

impl Arena {
    /// Keeps a value of at most [`VALUE_MAX`] bytes.
    pub(crate) fn push(&mut self, value: &[u8]) -> Address {
        let need = size(value.len());
        let fits = |chunk: &Zeroizing<Vec<u8>>| {
            chunk.capacity() - chunk.len() >= need && chunk.len() < CHUNK
        };
        if !self.chunks.last().is_some_and(fits) {
            let grown = CHUNK_FIRST << self.chunks.len().min(6);
            self.chunks
                .push(Zeroizing::new(Vec::with_capacity(grown.max(need))));
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let address = u32::try_from(number * CHUNK + chunk.len())
            .ok()
            .filter(|address| *address != NOWHERE)
            .expect("4 GiB in one column exceed the memory that a shard's index can have");
        match u8::try_from(value.len()) {
            Ok(short) if short < LONG => chunk.push(short),
            _ => {
                chunk.push(LONG);
                let long = u16::try_from(value.len()).expect("callers bound values by VALUE_MAX");
                chunk.extend_from_slice(&long.to_le_bytes());
            }
        }
        chunk.extend_from_slice(value);
        self.live += need;
        address
    }

    /// The value at an address that [`Arena::push`] gave.
    pub(crate) fn get(&self, address: Address) -> &str {
        let (chunk, from, to) = self.span(address);
        std::str::from_utf8(&self.chunks[chunk][from..to]).unwrap_or_default()
    }

    /// Overwrites a value that no row has any more.
    pub(crate) fn wipe(&mut self, address: Address) {
        let (chunk, from, to) = self.span(address);
        self.chunks[chunk][from..to].zeroize();
        self.live -= size(to - from);
        self.wiped += size(to - from);
    }

    /// Whether so much was wiped that copying the rest is worth its time.
    pub(crate) fn is_sparse(&self) -> bool {
        self.wiped > CHUNK && self.wiped > self.live
    }

    fn span(&self, address: Address) -> (usize, usize, usize) {
        let (number, at) = (address as usize / CHUNK, address as usize % CHUNK);
        let chunk = &self.chunks[number];
        if chunk[at] == LONG {
            let length = u16::from_le_bytes([chunk[at + 1], chunk[at + 2]]) as usize;
            (number, at + 3, at + 3 + length)
        } else {
            (number, at + 1, at + 1 + chunk[at] as usize)
        }
    }
}

fn size(length: usize) -> usize {
    length + if length < LONG as usize { 1 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_come_back() {
        let mut arena = Arena::default();
        let lengths = [0, 1, 12, 254, 255, 256, 1023, 1024, 40_000, 65_535, 3];
        let values: Vec<String> = lengths.iter().map(|n| "x".repeat(*n)).collect();
        let addresses: Vec<Address> = values.iter().map(|v| arena.push(v.as_bytes())).collect();
        for (value, address) in values.iter().zip(&addresses) {
            assert_eq!(arena.get(*address), value);
        }
    }

    #[test]
    fn a_wiped_value_leaves_no_byte() {
        let mut arena = Arena::default();
        let kept = arena.push(b"kept");
        let gone = arena.push(b"secret");
        arena.wipe(gone);
        assert_eq!(arena.get(kept), "kept");
        assert!(!arena.chunks[0].windows(6).any(|w| w == b"secret"));
    }
}
