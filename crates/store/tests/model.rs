//! Random work, with reopening at random points, against a map in memory.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::embedded::{Embedded, Options};
use store::{Batch, CommitError, Frame, Key, Snapshot, Store};

#[derive(Clone, Debug)]
enum Step {
    Commit {
        shard: u8,
        stale: bool,
        writes: BTreeMap<u8, Write>,
    },
    Scan {
        shard: u8,
        from: u8,
        limit: usize,
    },
    Reopen {
        lose_index: bool,
    },
}

type Write = Option<(Frame, Vec<u8>)>;
type Model = BTreeMap<(u8, u8), Vec<u8>>;

fn step() -> impl Strategy<Value = Step> {
    let frame = prop_oneof![Just(Frame::Plain), Just(Frame::Body)];
    let write =
        proptest::option::weighted(0.7, (frame, proptest::collection::vec(any::<u8>(), 0..600)));
    let writes = proptest::collection::btree_map(0..12u8, write, 0..6);
    let commit = (0..3u8, proptest::bool::weighted(0.1), writes);
    prop_oneof![
        8 => commit.prop_map(|(shard, stale, writes)| Step::Commit { shard, stale, writes }),
        2 => (0..3u8, 0..13u8, 0..14usize)
            .prop_map(|(shard, from, limit)| Step::Scan { shard, from, limit }),
        1 => any::<bool>().prop_map(|lose_index| Step::Reopen { lose_index }),
    ]
}

fn shard(n: u8) -> String {
    format!("shard {n}")
}

fn key(of: u8, n: u8) -> Key {
    Key::new(&shard(of), "t", &[n]).unwrap()
}

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        checkpoint_bytes: 6000,
        ..Options::default()
    }
}

fn check(store: &dyn Store, model: &Model, heads: &[u64; 3]) {
    for of in 0..3 {
        assert_eq!(store.head(&shard(of)).unwrap(), heads[usize::from(of)]);
        let keys: Vec<Key> = (0..12).map(|n| key(of, n)).collect();
        let expected: Vec<_> = (0..12).map(|n| model.get(&(of, n)).cloned()).collect();
        assert_eq!(store.get_many(&keys).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_always_agrees_with_a_map(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(dir.path(), options()).unwrap();
        let (mut model, mut heads) = (Model::new(), [0; 3]);
        for step in steps {
            match step {
                Step::Commit { shard: of, stale, writes } => {
                    let head = &mut heads[usize::from(of)];
                    let mut batch = Batch::new(shard(of), Some(*head + u64::from(stale)));
                    for (n, write) in &writes {
                        match write {
                            Some((Frame::Plain, value)) => batch.put(key(of, *n), value.clone()),
                            Some((Frame::Body, value)) => batch.put_body(key(of, *n), value.clone()),
                            None => batch.delete(key(of, *n)),
                        };
                    }
                    match store.commit(&batch) {
                        Ok(next) => {
                            assert!(!stale);
                            *head += 1;
                            assert_eq!(next, *head);
                            for (n, write) in writes {
                                match write {
                                    Some((_, value)) => drop(model.insert((of, n), value)),
                                    None => drop(model.remove(&(of, n))),
                                }
                            }
                        }
                        Err(error) => {
                            let conflict = matches!(error, CommitError::Conflict { .. });
                            assert!(stale && conflict, "{error}");
                        }
                    }
                }
                Step::Scan { shard: of, from, limit } => {
                    let rows = store.scan(&shard(of), "t", &[from], limit).unwrap();
                    let expected = model.range((of, from)..(of + 1, 0)).take(limit);
                    let expected: Vec<_> = expected.map(|((_, n), v)| (vec![*n], v.clone())).collect();
                    assert_eq!(rows, expected);
                }
                Step::Reopen { lose_index } => {
                    drop(store);
                    if lose_index {
                        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
                    }
                    store = Embedded::open(dir.path(), options()).unwrap();
                    check(&store, &model, &heads);
                }
            }
        }
        check(&store, &model, &heads);
        let snapshot = Snapshot::open(dir.path()).unwrap();
        assert_eq!(snapshot.findings(), []);
        check(&snapshot, &model, &heads);
    }
}
