//! Looking at values while the segments are scanned: all hashing of entries and bodies, all decoding,
//! and the signatures of acts.
//!
//! This is most of the work. Any thread does it, for values that lie together, while their bytes are
//! in its cache; they are read once. Refuses to ask what came before: that is [`super::walk`]'s.

use ledger::hash::{digests, leaf_hashes};
use record::act::ActError;
use record::cbor::CborError;
use record::entry::Entry;
use record::id::{Hash, Origin};
use store::pages::ChunkAt;
use store::{Look, Value};

use crate::table::{self, Newest};

/// What is kept of a value.
pub(crate) enum Fact {
    /// An entry.
    Entry(Box<Seen>),
    /// SHA-256 of a body.
    Body(Hash),
    /// Where the secret of a record lies, of a row that says which its newest version is.
    Secret(ChunkAt),
}

/// What an entry is by itself.
pub(crate) struct Seen {
    pub leaf: Hash,
    pub entry: Result<Entry, CborError>,
    /// Why its signature does not hold, if it is an act.
    pub act: Option<ActError>,
}

/// Looks at entries, bodies and newest versions.
pub(super) struct Looking;

impl Look for Looking {
    type Note = Fact;

    fn look(&self, values: &[Value<'_>], notes: &mut [Option<Fact>]) {
        let of = |table: &str| -> Vec<usize> {
            let all = values.iter().enumerate();
            all.filter(|(_, value)| value.table == table)
                .map(|(at, _)| at)
                .collect()
        };
        let bytes =
            |of: &[usize]| -> Vec<&[u8]> { of.iter().map(|&at| values[at].bytes).collect() };
        let entries = of(table::ENTRY);
        let mut origins = Origins::default();
        for (at, leaf) in entries.iter().zip(leaf_hashes(&bytes(&entries))) {
            let value = &values[*at];
            let entry = Entry::decode(value.bytes);
            let act = match &entry {
                // A shard that is no ledger is not walked.
                Ok(Entry::Act(act)) => origins
                    .of(value.shard)
                    .and_then(|origin| act.verify(origin).err()),
                _ => None,
            };
            notes[*at] = Some(Fact::Entry(Box::new(Seen { leaf, entry, act })));
        }
        let bodies = of(table::BODY);
        for (at, hash) in bodies.iter().zip(digests(&bytes(&bodies))) {
            notes[*at] = Some(Fact::Body(hash));
        }
        for at in of(table::RECORD) {
            notes[at] = secret(values[at].bytes).map(Fact::Secret);
        }
    }
}

/// Page 0: restored from the parent, or erased; there is no secret.
fn secret(row: &[u8]) -> Option<ChunkAt> {
    let newest: Newest = table::decode("newest version", row).ok()?;
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
