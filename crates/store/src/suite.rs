//! The tests that any engine must pass.
//!
//! Owns what the trait [`Store`] promises, as assertions at its boundary.
//! Refuses to look inside an engine; what only one engine promises is tested beside it.

use std::collections::BTreeSet;

use crate::{Batch, CommitError, Key, ReadError, Store};

/// Opens the same store again; dropped before it is called again.
pub type Open<'a> = &'a mut dyn FnMut() -> Box<dyn Store>;

/// Runs every test. `open` must give one and the same store each time, empty at first, and
/// every call comes after the store given before was dropped.
///
/// # Panics
/// When the engine breaks a promise; the message says which.
pub fn run(open: Open<'_>) {
    an_empty_store_has_nothing(open);
    what_was_committed_is_read_back_and_survives_reopening(open);
    a_conflict_writes_nothing(open);
    without_an_expected_head_a_batch_always_follows(open);
    a_scan_gives_a_table_in_order_from_a_place_up_to_a_limit(open);
    a_deleted_key_is_gone_and_can_come_back(open);
    a_replaced_value_is_the_last_one(open);
    shards_do_not_touch_each_other(open);
    unfit_batches_are_refused_whole(open);
    concurrent_committers_each_get_their_own_head(open);
}

fn key(shard: &str, table: &str, rest: impl AsRef<[u8]>) -> Key {
    Key::new(shard, table, rest.as_ref()).expect("the suite's names are fit")
}

fn value(store: &dyn Store, key: &Key) -> Option<Vec<u8>> {
    let value = store.get(key).expect("the key can be read");
    let many = store.get_many(std::slice::from_ref(key));
    let many = many.expect("the key can be read among many");
    assert_eq!(many, std::slice::from_ref(&value), "get and get_many agree");
    value
}

fn commit(store: &dyn Store, batch: &Batch) -> u64 {
    store.commit(batch).expect("the batch is fit")
}

fn head(store: &dyn Store, shard: &str) -> u64 {
    store.head(shard).expect("the head can be read")
}

fn an_empty_store_has_nothing(open: Open<'_>) {
    let store = open();
    assert_eq!(head(&*store, "empty"), 0);
    assert_eq!(value(&*store, &key("empty", "t", "a")), None);
    let rows = store.scan("empty", "t", b"", 10).expect("a scan works");
    assert!(rows.is_empty());
    assert!(store.shards().expect("shards can be listed").is_empty());
    let none: [Option<Vec<u8>>; 0] = [];
    assert_eq!(store.get_many(&[]).expect("no keys, no values"), none);
}

fn what_was_committed_is_read_back_and_survives_reopening(open: Open<'_>) {
    let large = vec![7; 300_000];
    let rows = [
        ("plain", b"value".to_vec()),
        ("empty", Vec::new()),
        ("large", large),
    ];
    {
        let store = open();
        let mut batch = Batch::new("trip", Some(0));
        for (name, value) in &rows {
            batch.put(key("trip", "plain", name), value.clone());
            batch.put_body(key("trip", "body", name), value.clone());
        }
        assert_eq!(commit(&*store, &batch), 1);
        assert_eq!(commit(&*store, &Batch::new("trip", Some(1))), 2);
    }
    let store = open();
    assert_eq!(head(&*store, "trip"), 2);
    for (name, expected) in &rows {
        for table in ["plain", "body"] {
            let found = value(&*store, &key("trip", table, name));
            assert_eq!(found.as_ref(), Some(expected), "{table} {name}");
        }
    }
    let keys = [
        key("trip", "plain", "large"),
        key("trip", "plain", "absent"),
        key("trip", "body", "plain"),
        key("trip", "plain", "large"),
    ];
    let many = store.get_many(&keys).expect("the keys can be read");
    let lens: Vec<_> = many.iter().map(|v| v.as_ref().map(Vec::len)).collect();
    assert_eq!(lens, [Some(300_000), None, Some(5), Some(300_000)]);
}

fn a_conflict_writes_nothing(open: Open<'_>) {
    let store = open();
    let mut first = Batch::new("swap", Some(0));
    first.put(key("swap", "t", "a"), b"first".to_vec());
    commit(&*store, &first);
    for expected in [0, 2, u64::MAX] {
        let mut late = Batch::new("swap", Some(expected));
        late.put(key("swap", "t", "a"), b"late".to_vec());
        late.put(key("swap", "t", "b"), b"late".to_vec());
        match store.commit(&late) {
            Err(CommitError::Conflict { head, .. }) => assert_eq!(head, 1),
            other => panic!("a batch on head {expected} gave {other:?}"),
        }
    }
    drop(store);
    let store = open();
    assert_eq!(head(&*store, "swap"), 1);
    assert_eq!(
        value(&*store, &key("swap", "t", "a")).as_deref(),
        Some(&b"first"[..])
    );
    assert_eq!(value(&*store, &key("swap", "t", "b")), None);
}

fn without_an_expected_head_a_batch_always_follows(open: Open<'_>) {
    let store = open();
    for expected in 1..=3 {
        assert_eq!(commit(&*store, &Batch::new("any", None)), expected);
    }
}

fn a_scan_gives_a_table_in_order_from_a_place_up_to_a_limit(open: Open<'_>) {
    let store = open();
    let mut batch = Batch::new("scan", None);
    for n in (0..50u16).rev() {
        batch.put(key("scan", "t", n.to_be_bytes()), n.to_le_bytes().to_vec());
    }
    batch.put(key("scan", "s", [0xff]), b"the table before".to_vec());
    batch.put(key("scan", "t!", [0]), b"the table after".to_vec());
    batch.put(key("scan", "t", ""), b"the empty rest".to_vec());
    commit(&*store, &batch);
    let numbers = |from: &[u8], limit| {
        let rows = store.scan("scan", "t", from, limit).expect("a scan works");
        rows.into_iter()
            .map(|(rest, _)| rest)
            .collect::<Vec<Vec<u8>>>()
    };
    let all = numbers(b"", usize::MAX);
    assert_eq!(all.len(), 51);
    assert!(all.is_sorted() && all[0].is_empty());
    assert_eq!(numbers(&[0, 7], 2), [[0, 7], [0, 8]], "inclusive");
    assert_eq!(numbers(&[0, 7, 0], 1), [[0, 8]]);
    assert!(numbers(&[0, 50], 9).is_empty());
    assert!(numbers(b"", 0).is_empty());
    assert!(numbers(&[0xff; 600], 9).is_empty(), "longer than any key");
    let refused = store.scan("scan", "", b"", 1);
    assert!(matches!(refused, Err(ReadError::Name(_))));
}

fn a_deleted_key_is_gone_and_can_come_back(open: Open<'_>) {
    let (plain, body) = (key("gone", "t", "plain"), key("gone", "t", "body"));
    for round in 1..=2 {
        let store = open();
        let mut batch = Batch::new("gone", None);
        batch.put(plain.clone(), vec![round]);
        batch.put_body(body.clone(), vec![round; 100]);
        commit(&*store, &batch);
        assert_eq!(value(&*store, &body), Some(vec![round; 100]));
        let mut batch = Batch::new("gone", None);
        batch.delete(plain.clone()).delete(body.clone());
        batch.delete(key("gone", "t", "never there"));
        commit(&*store, &batch);
        drop(store);
        let store = open();
        assert_eq!(value(&*store, &plain), None);
        assert_eq!(value(&*store, &body), None);
        let rows = store.scan("gone", "t", b"", 9).expect("a scan works");
        assert!(rows.is_empty());
    }
}

fn a_replaced_value_is_the_last_one(open: Open<'_>) {
    let (a, b) = (key("last", "t", "a"), key("last", "t", "b"));
    {
        let store = open();
        let mut batch = Batch::new("last", None);
        batch.put_body(a.clone(), b"a1".to_vec());
        batch.put(b.clone(), b"b1".to_vec());
        commit(&*store, &batch);
        let mut batch = Batch::new("last", None);
        batch.put_body(a.clone(), b"a2 is longer".to_vec());
        batch.put_body(b.clone(), b"b2".to_vec());
        commit(&*store, &batch);
        let mut batch = Batch::new("last", None);
        batch.put(b.clone(), b"b3".to_vec());
        commit(&*store, &batch);
    }
    let store = open();
    assert_eq!(value(&*store, &a).as_deref(), Some(&b"a2 is longer"[..]));
    assert_eq!(value(&*store, &b).as_deref(), Some(&b"b3"[..]));
}

fn shards_do_not_touch_each_other(open: Open<'_>) {
    let names: Vec<String> = (0..200).map(|n| format!("many/{n:03}")).collect();
    {
        let store = open();
        for (n, shard) in names.iter().enumerate() {
            let mut batch = Batch::new(shard.as_str(), Some(0));
            batch.put(key(shard, "t", "k"), n.to_le_bytes().to_vec());
            assert_eq!(commit(&*store, &batch), 1);
        }
    }
    let store = open();
    let shards = store.shards().expect("shards can be listed");
    assert!(shards.is_sorted());
    let found: Vec<_> = shards.iter().filter(|s| s.starts_with("many/")).collect();
    assert_eq!(found, names.iter().collect::<Vec<_>>());
    for (n, shard) in names.iter().enumerate() {
        let expected = n.to_le_bytes().to_vec();
        assert_eq!(value(&*store, &key(shard, "t", "k")), Some(expected));
        assert_eq!(head(&*store, shard), 1);
    }
}

fn unfit_batches_are_refused_whole(open: Open<'_>) {
    let store = open();
    let good = || (key("fit", "t", "good"), b"x".to_vec());
    let batch = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new("fit", None);
        batch.put(good().0, good().1);
        change(&mut batch);
        store.commit(&batch)
    };
    let foreign = batch(&|b| {
        b.delete(key("fit!", "t", "k"));
    });
    assert!(matches!(foreign, Err(CommitError::ForeignKey { .. })));
    let twice = batch(&|b| {
        b.delete(good().0);
    });
    assert!(matches!(twice, Err(CommitError::KeyTwice { .. })));
    let large = batch(&|b| {
        b.put(key("fit", "t", "l"), vec![0; crate::VALUE_BYTES_MAX + 1]);
    });
    assert!(matches!(large, Err(CommitError::TooLarge { .. })));
    let unnamed = batch(&|b| b.shard.clear());
    assert!(matches!(unnamed, Err(CommitError::Name(_))));
    assert_eq!(head(&*store, "fit"), 0);
    assert_eq!(value(&*store, &good().0), None);
}

fn concurrent_committers_each_get_their_own_head(open: Open<'_>) {
    let (threads, each) = (8, 25);
    let before;
    {
        let store = open();
        before = store.stats().commits;
        let heads: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let store = &*store;
            let committer = |thread: u64| {
                move || {
                    let shard = format!("own/{thread}");
                    let commit_pair = |n: u64| {
                        let mut own = Batch::new(shard.as_str(), Some(n));
                        own.put(key(&shard, "t", n.to_be_bytes()), vec![thread as u8; 50]);
                        assert_eq!(commit(store, &own), n + 1);
                        let mut shared = Batch::new("shared", None);
                        let rest = [thread.to_be_bytes(), n.to_be_bytes()].concat();
                        shared.put(key("shared", "t", rest), n.to_be_bytes().to_vec());
                        commit(store, &shared)
                    };
                    (0..each).map(commit_pair).collect()
                }
            };
            let running: Vec<_> = (0..threads).map(|t| scope.spawn(committer(t))).collect();
            let joined = running.into_iter().map(|thread| thread.join());
            joined.map(|heads| heads.expect("no panic")).collect()
        });
        let distinct: BTreeSet<u64> = heads.iter().flatten().copied().collect();
        assert_eq!(distinct, (1..=threads * each).collect());
        let stats = store.stats();
        assert_eq!(stats.commits - before, 2 * threads * each);
        assert!(!stats.stopped);
    }
    let store = open();
    assert_eq!(head(&*store, "shared"), threads * each);
    let rows = store.scan("shared", "t", b"", usize::MAX);
    assert_eq!(rows.expect("a scan works").len() as u64, threads * each);
    for thread in 0..threads {
        assert_eq!(head(&*store, &format!("own/{thread}")), each);
    }
}
