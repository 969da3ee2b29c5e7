//! What is put beside the entries of an own grant's ledger that comes back.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use record::entry::{Entry, GrantEntry, GrantOperation, SUITE};
use record::id::{Origin, RecordId, UnixMillis};
use store::Batch;

use crate::node::Registry;
use crate::table;

fn entry(operation: GrantOperation, record: Option<u8>, shard_size: u64) -> Entry {
    Entry::Grant(GrantEntry {
        suite: SUITE,
        operation,
        record: record.map(|byte| RecordId([byte; 16])),
        shard_size,
        shard_root: [0; 32],
        parcel: operation.brings_parcel().then_some([0; 32]),
        recorded_at: UnixMillis(0),
    })
}

#[test]
fn a_record_that_one_delivery_speaks_of_several_times_has_one_row_and_the_last_word_counts() {
    use GrantOperation::{Enter, Heartbeat, Reseal, Retract, Update};
    let ledger = Origin::parse("r.example/she/person").unwrap();
    let entries = [
        entry(Enter, Some(1), 4),
        entry(Enter, Some(2), 4),
        entry(Enter, Some(3), 4),
        entry(Heartbeat, None, 4),
        entry(Update, Some(1), 6),
        entry(Retract, Some(2), 6),
        entry(Retract, Some(3), 6),
        entry(Enter, Some(3), 8),
        entry(Reseal, Some(1), 9),
        entry(Heartbeat, None, 9),
    ];
    let mut batch = Batch::new(ledger.as_str(), None);
    Registry::rebuild_scope(&mut batch, &ledger, entries.iter());
    batch.check().unwrap();
    let key = |record: u8| table::key(&ledger, table::SCOPE, &[record; 16]);
    let at = |record: u8| {
        let mut puts = batch.puts().iter();
        puts.find(|(known, ..)| *known == key(record))
            .map(|(_, value, _)| u64::from_be_bytes(value.as_slice().try_into().unwrap()))
    };
    assert_eq!((at(1), at(2), at(3)), (Some(9), None, Some(8)));
    assert_eq!(batch.deletes(), [key(2)]);
    assert_eq!(
        batch.puts().len(),
        2,
        "how far the shard was worked through is another's row"
    );
}
