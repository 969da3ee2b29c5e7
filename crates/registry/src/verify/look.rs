//! Looking at values while the segments are scanned: all hashing of entries and bodies, all decoding,
//! and the signatures of acts.
//!
//! This is most of the work. Any thread does it, for values that lie together, while their bytes are
//! in its cache; they are read once. Refuses to ask what came before: that is [`super::walk`]'s.

use std::sync::Arc;

use ledger::hash::{digests, leaf_hashes};
use record::act::ActError;
use record::cbor::CborError;
use record::entry::{Entry, RecordEntry, RecordRef};
use record::id::{Hash, Origin};
use store::pages::ChunkAt;
use store::{Look, Value};

use crate::table::{self, Newest};

/// What is kept of a value.
pub(crate) enum Fact {
    /// An entry of a record: most entries are.
    Record(RecordAt),
    /// Any other entry, or one that cannot be read.
    Entry(Box<Seen>),
    /// SHA-256 of a body.
    Body(Hash),
    /// Where the secret of a record lies, of a row that says which its newest version is.
    Secret(ChunkAt),
}

/// An entry of a record and its leaf hash, beside those of its neighbours in the segment: one
/// allocation for all of them.
pub(crate) struct RecordAt {
    among: Arc<Vec<(Hash, RecordEntry)>>,
    at: u32,
}

impl RecordAt {
    fn noted(&self) -> &(Hash, RecordEntry) {
        &self.among[self.at as usize]
    }
}

/// What an entry is by itself that is not a record's.
pub(crate) struct Seen {
    pub leaf: Hash,
    pub entry: Result<Entry, CborError>,
    /// Why its signature does not hold, if it is an act.
    pub act: Option<ActError>,
}

/// An entry as it is kept.
#[derive(Clone, Copy)]
pub(super) enum Line<'a> {
    Record(&'a RecordEntry),
    Other(&'a Entry),
}

impl Line<'_> {
    pub(super) fn body_hash(self) -> Option<Hash> {
        match self {
            Line::Record(entry) => Some(entry.body),
            Line::Other(entry) => entry.body_hash(),
        }
    }

    pub(super) fn orders_destruction(self) -> bool {
        match self {
            Line::Record(entry) => entry.orders_destruction(),
            Line::Other(entry) => entry.orders_destruction(),
        }
    }

    /// With bytes of its own, for the few that are looked at again.
    pub(super) fn to_entry(self) -> Entry {
        match self {
            Line::Record(entry) => Entry::Record(entry.clone()),
            Line::Other(entry) => entry.clone(),
        }
    }
}

impl Fact {
    /// The leaf hash, of an entry.
    pub(super) fn leaf(&self) -> Option<Hash> {
        match self {
            Fact::Record(record) => Some(record.noted().0),
            Fact::Entry(seen) => Some(seen.leaf),
            Fact::Body(_) | Fact::Secret(_) => None,
        }
    }

    /// The entry, of one that can be read.
    pub(super) fn line(&self) -> Option<Line<'_>> {
        match self {
            Fact::Record(record) => Some(Line::Record(&record.noted().1)),
            Fact::Entry(seen) => seen.entry.as_ref().ok().map(Line::Other),
            Fact::Body(_) | Fact::Secret(_) => None,
        }
    }
}

/// Looks at entries, bodies and newest versions.
pub(super) struct Looking;

impl Look for Looking {
    type Note = Fact;

    fn look(&self, values: &[Value<'_>], notes: &mut [Option<Fact>]) {
        let (mut entries, mut bodies) = (Part::default(), Part::default());
        for (at, value) in values.iter().enumerate() {
            if value.table == table::ENTRY.as_bytes() {
                entries.push(at, value);
            } else if value.table == table::BODY.as_bytes() {
                bodies.push(at, value);
            } else if value.table == table::RECORD.as_bytes() {
                notes[at] = secret(value.bytes).map(Fact::Secret);
            }
        }
        let mut origins = Origins::default();
        let (mut records, mut places) = (Vec::with_capacity(entries.places.len()), Vec::new());
        for (at, leaf) in entries.places.iter().zip(leaf_hashes(&entries.bytes)) {
            match entry(&values[*at], leaf, &mut origins) {
                Ok(entry) => {
                    records.push((leaf, entry));
                    places.push(*at);
                }
                Err(seen) => notes[*at] = Some(Fact::Entry(seen)),
            }
        }
        let among = Arc::new(records);
        for (at, place) in (0..).zip(places) {
            let among = Arc::clone(&among);
            notes[place] = Some(Fact::Record(RecordAt { among, at }));
        }
        for (at, hash) in bodies.places.iter().zip(digests(&bodies.bytes)) {
            notes[*at] = Some(Fact::Body(hash));
        }
    }
}

/// Values that are hashed together.
#[derive(Default)]
struct Part<'a> {
    places: Vec<usize>,
    bytes: Vec<&'a [u8]>,
}

impl<'a> Part<'a> {
    fn push(&mut self, at: usize, value: &Value<'a>) {
        self.places.push(at);
        self.bytes.push(value.bytes);
    }
}

/// An entry of a record, or what any other is.
fn entry<'a>(
    value: &Value<'a>,
    leaf: Hash,
    origins: &mut Origins<'a>,
) -> Result<RecordEntry, Box<Seen>> {
    if let Some(entry) = RecordRef::read(value.bytes) {
        return Ok(entry.to_entry());
    }
    let entry = match Entry::decode(value.bytes) {
        Ok(Entry::Record(entry)) => return Ok(entry),
        entry => entry,
    };
    let act = match &entry {
        // A shard that is no ledger is not walked.
        Ok(Entry::Act(act)) => origins
            .of(value.shard)
            .and_then(|origin| act.verify(origin).err()),
        _ => None,
    };
    Err(Box::new(Seen { leaf, entry, act }))
}

/// Page 0: restored from the parent, or erased; there is no secret.
fn secret(row: &[u8]) -> Option<ChunkAt> {
    let newest: Newest = minicbor::decode(row).ok()?;
    (newest.page != 0).then_some(ChunkAt {
        page: newest.page,
        offset: newest.offset,
        len: newest.length,
    })
}

/// The ledger of the shard that was asked for last: neighbours are mostly of one.
#[derive(Default)]
struct Origins<'a>(Option<(&'a str, Option<Origin>)>);

impl<'a> Origins<'a> {
    fn of(&mut self, shard: &'a str) -> Option<&Origin> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != shard) {
            self.0 = Some((shard, Origin::parse(shard).ok()));
        }
        self.0.as_ref().and_then(|(_, origin)| origin.as_ref())
    }
}
