//! The canonical bytes of a record's entry, read without the general decoder.
//!
//! Most entries are of records, and whoever verifies a ledger reads every one. There is one way to
//! write each, so what is read here field by field needs no second writing to be compared with.
//! Refuses, with `None`, whatever it does not know; the general decoder says what is wrong with it.

use super::{FORMAT, Operation, RecordEntry, SUITE};
use crate::id::{Hash, RecordId, UnixMillis};

/// An entry of a record, read where its bytes lie. Its suite is [`SUITE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Which record.
    pub record: RecordId,
    /// As [`RecordEntry::version`].
    pub version: u64,
    /// What happened.
    pub operation: Operation,
    /// Leaf hash of the record's previous entry; absent in the first.
    pub previous: Option<&'a Hash>,
    /// The version of the kind's schema.
    pub schema: u32,
    /// The shard's key epoch.
    pub epoch: u32,
    /// Root over the field commitments.
    pub content: &'a Hash,
    /// SHA-256 of the sealed body.
    pub body: &'a Hash,
    /// When the owner's node recorded it.
    pub recorded_at: UnixMillis,
}

impl<'a> RecordRef<'a> {
    /// The entry, if these are the canonical bytes of a record's. `None` says nothing of what else
    /// they are: [`super::Entry::decode`] does.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        // An array of three: format, type, a map of nine fields, or of ten with `previous`.
        rest.literal(&[0x83, FORMAT, 0x01])?;
        let [fields] = *rest.array()?;
        let has_previous = match fields {
            0xa9 => false,
            0xaa => true,
            _ => return None,
        };
        rest.literal(&[0x00, SUITE, 0x01, 0x50])?;
        let record = RecordId(*rest.array()?);
        rest.literal(&[0x02])?;
        let version = rest.number()?;
        rest.literal(&[0x03])?;
        let operation = operation(rest.number()?)?;
        let previous = match has_previous {
            true => Some(rest.hash(0x04)?),
            false => None,
        };
        rest.literal(&[0x05])?;
        let schema = u32::try_from(rest.number()?).ok()?;
        rest.literal(&[0x06])?;
        let epoch = u32::try_from(rest.number()?).ok()?;
        let content = rest.hash(0x07)?;
        let body = rest.hash(0x08)?;
        rest.literal(&[0x09])?;
        let recorded_at = UnixMillis(rest.number()?);
        rest.0.is_empty().then_some(Self {
            record,
            version,
            operation,
            previous,
            schema,
            epoch,
            content,
            body,
            recorded_at,
        })
    }

    /// The same with bytes of its own.
    pub fn to_entry(self) -> RecordEntry {
        RecordEntry {
            suite: SUITE,
            record: self.record,
            version: self.version,
            operation: self.operation,
            previous: self.previous.copied(),
            schema: self.schema,
            epoch: self.epoch,
            content: *self.content,
            body: *self.body,
            recorded_at: self.recorded_at,
        }
    }
}

fn operation(number: u64) -> Option<Operation> {
    Some(match number {
        1 => Operation::Register,
        2 => Operation::Amend,
        3 => Operation::Close,
        4 => Operation::Reopen,
        5 => Operation::TransferOut,
        6 => Operation::TransferIn,
        7 => Operation::Erase,
        8 => Operation::Reseal,
        9 => Operation::Redact,
        10 => Operation::TransferInClosed,
        _ => return None,
    })
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    /// A key of the map, and 32 bytes.
    fn hash(&mut self, key: u8) -> Option<&'a Hash> {
        self.literal(&[key, 0x58, 0x20])?;
        self.array()
    }

    /// An unsigned integer in its shortest form.
    fn number(&mut self) -> Option<u64> {
        let [first] = *self.array()?;
        let (number, least) = match first {
            0..=0x17 => return Some(first.into()),
            0x18 => (u8::from_be_bytes(*self.array()?).into(), 0x18),
            0x19 => (u16::from_be_bytes(*self.array()?).into(), 1 << 8),
            0x1a => (u32::from_be_bytes(*self.array()?).into(), 1 << 16),
            0x1b => (u64::from_be_bytes(*self.array()?), 1 << 32),
            _ => return None,
        };
        (number >= least).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ENTRY_MAX, Entry};
    use super::*;
    use crate::cbor;

    fn record(bytes: &[u8]) -> Option<RecordEntry> {
        RecordRef::read(bytes).map(RecordRef::to_entry)
    }

    fn general(bytes: &[u8]) -> Option<Entry> {
        cbor::from_slice("entry", bytes, ENTRY_MAX).ok()
    }

    fn samples() -> Vec<Entry> {
        let numbers = [
            0,
            1,
            23,
            24,
            255,
            256,
            65_535,
            65_536,
            u32::MAX.into(),
            1 << 32,
            u64::MAX,
        ];
        let operations = (1..=8).filter_map(operation).collect::<Vec<_>>();
        let each = numbers.iter().enumerate().map(|(at, &number)| {
            Entry::Record(RecordEntry {
                suite: SUITE,
                record: RecordId([at as u8; 16]),
                version: number,
                operation: operations[at % operations.len()],
                previous: (at % 2 == 0).then_some([4; 32]),
                schema: number as u32,
                epoch: (number >> 1) as u32,
                content: [2; 32],
                body: [3; 32],
                recorded_at: UnixMillis(number),
            })
        });
        each.collect()
    }

    #[test]
    fn every_entry_of_a_record_is_read_as_the_general_decoder_reads_it() {
        for entry in samples() {
            let bytes = entry.encode();
            assert_eq!(record(&bytes).map(Entry::Record), Some(entry.clone()));
            assert_eq!(general(&bytes), Some(entry));
        }
    }

    /// Every byte of every sample gets every value, and every sample every length.
    #[test]
    fn nothing_is_read_that_the_general_decoder_refuses_or_reads_otherwise() {
        for entry in samples() {
            let bytes = entry.encode();
            let check = |bytes: &[u8]| {
                let known = general(bytes).filter(
                    |entry| matches!(entry, Entry::Record(record) if record.suite == SUITE),
                );
                assert_eq!(record(bytes).map(Entry::Record), known, "{bytes:02x?}");
            };
            for at in 0..bytes.len() {
                check(&bytes[..at]);
                let mut changed = bytes.clone();
                for value in 0..=u8::MAX {
                    changed[at] = value;
                    check(&changed);
                }
                // One byte more, and one less, in the middle.
                let (before, after) = bytes.split_at(at);
                for value in [0x00, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x58, 0xf6, 0xff] {
                    check(&[before, &[value], after].concat());
                }
                check(&[before, &after[1..]].concat());
            }
        }
    }
}
