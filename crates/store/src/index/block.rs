//! A run of neighbouring keys with their pointers: one value of the index.
//!
//! Owns the layout: `lower` (exclusive bound, 2-byte length first), the prefix that all keys share
//! (the same), a 2-byte count, the end of each entry as 2 bytes, then the entries, each the rest
//! of its key and 12 bytes of pointer. Numbers are little-endian.
//! Refuses nothing at writing: what is read back malformed is for the index to judge.

use crate::format::{Pointer, u32_at};
use crate::frame::Kind;

/// A block takes no more keys than this.
pub(super) const ENTRIES_MAX: usize = 128;
/// Nor more bytes of keys and pointers: every offset fits in two bytes, and a node of sled, which
/// has some twenty blocks, stays below the 128 KiB from which on sled keeps nodes as files that it
/// never takes away.
pub(super) const BYTES_MAX: usize = 4 << 10;
/// Bytes of a pointer in a block.
const POINTER: usize = 12;
/// Set in the length of a pointer to a body; no frame is that long.
const BODY: u32 = 1 << 31;

/// Where the value of a key lies, and whether it can be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub pointer: Pointer,
    pub kind: Kind,
}

/// What an entry adds to a block.
pub(super) fn weight(key: &[u8]) -> usize {
    key.len() + POINTER + 2
}

/// Lays out a block of keys in order, all greater than `lower`.
pub(super) fn encode(lower: &[u8], entries: &[(Vec<u8>, Entry)]) -> Vec<u8> {
    let prefix = match (entries.first(), entries.last()) {
        (Some((first, _)), Some((last, _))) => {
            let same = std::iter::zip(first, last).take_while(|(a, b)| a == b);
            &first[..same.count()]
        }
        _ => &[],
    };
    let mut out = Vec::with_capacity(64 + entries.len() * 24);
    for part in [lower, prefix] {
        out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    let mut end = 0;
    for (key, _) in entries {
        end += key.len() - prefix.len() + POINTER;
        out.extend_from_slice(&(end as u16).to_le_bytes());
    }
    for (key, entry) in entries {
        out.extend_from_slice(&key[prefix.len()..]);
        let Pointer {
            segment,
            offset,
            len,
        } = entry.pointer;
        let body = if entry.kind == Kind::Body { BODY } else { 0 };
        for number in [segment, offset, len | body] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out
}

/// A block as it lies in the index.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub lower: &'a [u8],
    pub prefix: &'a [u8],
    ends: &'a [u8],
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Block<'a>> {
        let (lower, rest) = take(bytes)?;
        let (prefix, rest) = take(rest)?;
        let (count, rest) = number(rest)?;
        let (ends, entries) = rest.split_at_checked(count * 2)?;
        let block = Block {
            lower,
            prefix,
            ends,
            entries,
        };
        (count == 0 || block.end(count - 1) == entries.len()).then_some(block)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() / 2
    }

    fn end(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([
            self.ends[at * 2],
            self.ends[at * 2 + 1],
        ]))
    }

    /// The rest of a key after the prefix, and its entry; `None` when the bytes are malformed.
    pub(super) fn entry(&self, at: usize) -> Option<(&'a [u8], Entry)> {
        let start = if at == 0 { 0 } else { self.end(at - 1) };
        let bytes = self.entries.get(start..self.end(at))?;
        let (rest, pointer) = bytes.split_at_checked(bytes.len().checked_sub(POINTER)?)?;
        let len = u32_at(pointer, 8);
        let entry = Entry {
            pointer: Pointer {
                segment: u32_at(pointer, 0),
                offset: u32_at(pointer, 4),
                len: len & !BODY,
            },
            kind: if len & BODY == 0 {
                Kind::Put
            } else {
                Kind::Body
            },
        };
        Some((rest, entry))
    }

    /// The place of the first key that is `key` or greater.
    pub(super) fn lower_bound(&self, key: &[u8]) -> Option<usize> {
        let Some(rest) = key.strip_prefix(self.prefix) else {
            return Some(if key < self.prefix { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.entry(middle)?.0 < rest {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Some(low)
    }

    /// The entry of one key; the outer `None` when the bytes are malformed.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Entry>> {
        let at = self.lower_bound(key)?;
        if at == self.len() {
            return Some(None);
        }
        let (rest, entry) = self.entry(at)?;
        let same = key.strip_prefix(self.prefix) == Some(rest);
        Some(same.then_some(entry))
    }
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::from(u16::from_le_bytes(*number)), rest))
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = number(bytes)?;
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(keys: &[&[u8]]) -> Vec<(Vec<u8>, Entry)> {
        let entry = |n: usize| Entry {
            pointer: Pointer {
                segment: 7,
                offset: n as u32,
                len: 99,
            },
            kind: [Kind::Put, Kind::Body][n % 2],
        };
        let keys = keys.iter().enumerate();
        keys.map(|(n, key)| (key.to_vec(), entry(n))).collect()
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        let keys: [&[u8]; 5] = [
            b"s\0t\0",
            b"s\0t\0a",
            b"s\0t\0ab",
            b"s\0t\0b",
            b"s\0t\0b\xff",
        ];
        let all = entries(&keys);
        for count in 0..=all.len() {
            let bytes = encode(b"low", &all[..count]);
            let block = Block::parse(&bytes).unwrap();
            assert_eq!((block.lower, block.len()), (&b"low"[..], count));
            for (at, (key, entry)) in all.iter().enumerate() {
                let expected = (at < count).then_some(*entry);
                assert_eq!(block.get(key).unwrap(), expected);
            }
            for absent in [&b""[..], b"s", b"s\0t\0aa", b"s\0t\0c", b"t\0t\0"] {
                assert_eq!(block.get(absent).unwrap(), None, "{absent:?}");
            }
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_none_or_answers_without_a_panic() {
        let bytes = encode(b"", &entries(&[b"s\0t\0a", b"s\0t\0b"]));
        for end in 0..bytes.len() {
            assert!(
                Block::parse(&bytes[..end]).is_none_or(|block| block.len() == 0),
                "{end}"
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Some(block) = Block::parse(&flipped) {
                let _ = block.get(b"s\0t\0b");
            }
        }
    }
}
