//! The index at rest: pages of canonical CBOR, which the caller seals.
//!
//! Owns the layout. A page is `[payload, digest]`, both byte strings; the digest is
//! SHA-256 over a tag, the digest of the page before and the payload, so that pages
//! cannot be mixed, swapped or cut unseen. It is no secret and no signature: against
//! somebody who writes pages, only the caller's seal helps. Payloads, in this order:
//!
//! ```text
//! head    [1, kind, schema version, positions (bytes), applied, rows, pages]   once
//! rows    [[record id (16 bytes), version, at], ...]            by ascending record id
//! values  [position, [text or null, ...]]     by ascending position, rows in that order
//! ```
//!
//! The positions are those kept, always with status (1), valid-from (2) and grid (3).

use minicbor::{Decode, Encode};
use record::id::RecordId;
use record::schema::{GRID, Position, STATUS, Schema};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::working::{Index, Row};

/// The most bytes of one page.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// The bytes of a payload that are not rows or values: heads, position, digest.
const FRAME: usize = 64;
const FORMAT: u8 = 1;
const TAG: &[u8] = b"fangzhi/index-page/1";

/// Why pages are not an index. The remedy is the same for all: build it from the ledger again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// A page is not as it was written, or stands in another's place.
    #[error("index page {page} is damaged or out of place; build the index again")]
    Damaged {
        /// The page, from 0.
        page: usize,
    },
    /// Pages are missing or too many.
    #[error("the index has {given} pages and should have {expected}; build the index again")]
    Count {
        /// Pages given.
        given: usize,
        /// Pages that the first page speaks of.
        expected: u64,
    },
    /// The pages keep other fields than the schema asks for.
    #[error("the index was written for another schema or format; build the index again")]
    OtherSchema,
}

#[derive(Encode, Decode)]
struct Envelope<'b>(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    &'b [u8],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 32],
);

#[derive(Encode, Decode)]
struct Head<'b> {
    #[n(0)]
    format: u8,
    #[b(1)]
    kind: &'b str,
    #[n(2)]
    schema: u32,
    #[b(3)]
    #[cbor(with = "minicbor::bytes")]
    positions: &'b [u8],
    #[n(4)]
    applied: u64,
    #[n(5)]
    rows: u64,
    #[n(6)]
    pages: u64,
}

#[derive(Encode, Decode)]
struct RowStamp {
    #[n(0)]
    record: RecordId,
    #[n(1)]
    version: u64,
    #[n(2)]
    at: u64,
}

#[derive(Encode, Decode)]
struct Values<'b> {
    #[n(0)]
    position: Position,
    #[b(1)]
    values: Vec<Option<&'b str>>,
}

impl Index {
    /// The whole index as pages of at most [`PAGE_BYTES_MAX`], wiped when dropped.
    ///
    /// The same records give the same pages, however they came in. Seal each page
    /// before it leaves memory: it is plain text. All pages are in memory at once.
    pub fn to_pages(&self) -> Vec<Zeroizing<Vec<u8>>> {
        let rows = self.rows_by_id();
        let mut payloads: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        // A row's stamp takes at most 36 bytes.
        for part in rows.chunks((PAGE_BYTES_MAX - FRAME) / 36) {
            let stamps: Vec<RowStamp> = part.iter().map(|row| self.row_stamp(*row)).collect();
            payloads.push(encode(&stamps));
        }
        for position in self.positions() {
            let mut values = Vec::new();
            let mut bytes = 0;
            for row in &rows {
                let value = self.kept(position, *row);
                // The longest head of a text of 16-bit length takes 3 bytes.
                let size = 3 + value.map_or(0, str::len);
                if bytes + size > PAGE_BYTES_MAX - FRAME {
                    let values = std::mem::take(&mut values);
                    payloads.push(encode(&Values { position, values }));
                    bytes = 0;
                }
                bytes += size;
                values.push(value);
            }
            if !values.is_empty() {
                payloads.push(encode(&Values { position, values }));
            }
        }
        let head = encode(&Head {
            format: FORMAT,
            kind: self.kind.as_str(),
            schema: self.schema,
            positions: &self.positions(),
            applied: self.applied,
            rows: rows.len() as u64,
            pages: 1 + payloads.len() as u64,
        });
        let mut before = [0; 32];
        let mut pages = Vec::with_capacity(1 + payloads.len());
        for payload in std::iter::once(head).chain(payloads) {
            before = digest(&before, &payload);
            pages.push(encode(&Envelope(&payload, before)));
        }
        pages
    }

    /// Reads the pages that [`Index::to_pages`] wrote, in their order.
    ///
    /// # Errors
    /// [`PageError`]: damaged, missing or doubled pages, or another schema's. Build the
    /// index from the ledger again.
    pub fn from_pages<P: AsRef<[u8]>>(schema: &Schema, pages: &[P]) -> Result<Index, PageError> {
        let mut index = Index::new(schema);
        let mut reader = Reader {
            pages: pages.iter().map(AsRef::as_ref).collect(),
            next: 0,
            before: [0; 32],
        };
        let (head_payload, page) = reader.payload(pages.len() as u64)?;
        let head: Head<'_> = decode(head_payload, page)?;
        let expected = head.pages;
        if head.format != FORMAT
            || head.kind != index.kind.as_str()
            || head.schema != index.schema
            || head.positions != index.positions()
        {
            return Err(PageError::OtherSchema);
        }
        if pages.len() as u64 != expected {
            let given = pages.len();
            return Err(PageError::Count { given, expected });
        }
        index.applied = head.applied;

        let mut last: Option<RecordId> = None;
        while (index.len() as u64) < head.rows {
            let (payload, page) = reader.payload(expected)?;
            let stamps: Vec<RowStamp> = decode(payload, page)?;
            for stamp in &stamps {
                // Ascending ids: no record twice, and row numbers follow this order.
                if last.is_some_and(|last| stamp.record <= last) {
                    return Err(PageError::Damaged { page });
                }
                last = Some(stamp.record);
                let Row(row) = index.claim(stamp.record);
                index.stamps.set(row, stamp.version, stamp.at);
            }
            if stamps.is_empty() || index.len() as u64 > head.rows {
                return Err(PageError::Damaged { page });
            }
        }
        for position in index.positions() {
            let mut row = 0;
            while row < index.len() {
                let (payload, page) = reader.payload(expected)?;
                let part: Values<'_> = decode(payload, page)?;
                let fits = part.values.len() <= index.len() - row;
                if part.position != position || part.values.is_empty() || !fits {
                    return Err(PageError::Damaged { page });
                }
                for value in part.values {
                    index.restore(position, row as u32, value);
                    row += 1;
                }
            }
        }
        if reader.next == pages.len() {
            Ok(index)
        } else {
            Err(PageError::Damaged { page: reader.next })
        }
    }

    fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<Position> = self.columns.keys().copied().collect();
        positions.extend([STATUS, GRID]);
        positions.sort_unstable();
        positions
    }

    fn rows_by_id(&self) -> Vec<u32> {
        let live = |row: &u32| self.class_of[*row as usize] != crate::working::NO_CLASS;
        let mut rows: Vec<u32> = (0..self.ids.len() as u32).filter(live).collect();
        rows.sort_unstable_by_key(|row| self.ids[*row as usize]);
        rows
    }

    fn row_stamp(&self, row: u32) -> RowStamp {
        let found = self.found(row);
        RowStamp {
            record: found.record,
            version: found.version,
            at: found.at,
        }
    }

    fn kept(&self, position: Position, row: u32) -> Option<&str> {
        match position {
            STATUS => Some(self.attributes(row).status),
            GRID => self.attributes(row).grid,
            _ => self.columns.get(&position)?.value(row),
        }
    }

    fn restore(&mut self, position: Position, row: u32, value: Option<&str>) {
        match position {
            // Status comes before grid, so the row's class has no grid yet.
            STATUS => self.set_attributes(row, None, value.unwrap_or_default()),
            GRID => {
                let status = self.attributes(row).status.to_owned();
                self.set_attributes(row, value, &status);
            }
            _ => {
                if let Some(column) = self.columns.get_mut(&position) {
                    column.set(row, value);
                }
            }
        }
    }
}

struct Reader<'a> {
    pages: Vec<&'a [u8]>,
    next: usize,
    before: [u8; 32],
}

impl<'a> Reader<'a> {
    /// The next page's payload and the page's number.
    fn payload(&mut self, expected: u64) -> Result<(&'a [u8], usize), PageError> {
        let page = self.next;
        let given = self.pages.len();
        let missing = PageError::Count {
            given,
            expected: expected.max(1),
        };
        let bytes = *self.pages.get(page).ok_or(missing)?;
        let damaged = PageError::Damaged { page };
        if bytes.len() > PAGE_BYTES_MAX {
            return Err(damaged);
        }
        let Envelope(payload, stated) = decode(bytes, page)?;
        self.before = digest(&self.before, payload);
        self.next += 1;
        if self.before == stated {
            Ok((payload, page))
        } else {
            Err(damaged)
        }
    }
}

/// Encodes into a buffer that never moves, so that no copy stays behind.
fn encode<T: Encode<()>>(value: &T) -> Zeroizing<Vec<u8>> {
    let mut count = Counter(0);
    minicbor::encode(value, &mut count).expect("counting bytes cannot fail");
    let mut bytes = Zeroizing::new(Vec::with_capacity(count.0));
    minicbor::encode(value, &mut *bytes).expect("writing to memory cannot fail");
    bytes
}

/// Reads a value whose one canonical encoding these bytes are.
fn decode<'b, T>(bytes: &'b [u8], page: usize) -> Result<T, PageError>
where
    T: Decode<'b, ()> + Encode<()>,
{
    let value: T = minicbor::decode(bytes).map_err(|_| PageError::Damaged { page })?;
    if encode(&value)[..] == *bytes {
        Ok(value)
    } else {
        Err(PageError::Damaged { page })
    }
}

fn digest(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(TAG);
    hasher.update(before);
    hasher.update(payload);
    hasher.finalize().into()
}

struct Counter(usize);

impl minicbor::encode::Write for Counter {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 += bytes.len();
        Ok(())
    }
}
