//! What must not be kept: rewritten histories, foreign entries, forged bodies, moved acts.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use ledger::hash::{leaf_hash, root_of};
use ledger::note::{KeyKind, NoteSigner};
use record::act::{ACT_ENTRIES_MAX, Act};
use record::entry::{Entry, Operation};
use record::id::Origin;
use sim::{Event, Store, World, access_item, authority_item, key, origin, record_item};
use sync::limits::LEDGERS_MAX;
use sync::{Item, Message, RejectCode};

fn person() -> Origin {
    origin("community", "person")
}

fn other_record() -> Item {
    record_item(900, Operation::Register, 10)
}

/// A converged world with one shard of 6 entries (5 records and their act).
fn world() -> World {
    let mut world = World::new(1);
    world.child.register(&person(), 5, 100);
    assert!(world.session());
    world.parent.events.clear();
    world.child.events.clear();
    world
}

/// The parent refuses with this code and keeps what it held; other ledgers go on.
fn check_refused(mut world: World, code: RejectCode) -> World {
    let before = world
        .parent
        .ledgers
        .get(&person())
        .map(|store| (store.items.clone(), store.note.clone()));
    let other = origin("community", "unit");
    world.child.register(&other, 5, 100);
    world.session();
    let after = world
        .parent
        .ledgers
        .get(&person())
        .map(|store| (store.items.clone(), store.note.clone()));
    assert!(before == after, "nothing is kept");
    let told = if code == RejectCode::Fork {
        Event::Fork(person())
    } else {
        Event::Alarm(person(), code)
    };
    assert!(world.parent.has(&told), "{:?}", world.parent.events);
    let rejected = Event::Rejected(person(), code);
    assert!(world.child.has(&rejected), "{:?}", world.child.events);
    assert_eq!(world.held(&other), 6, "the other ledger goes on");
    let failed = |node: &sim::Node| node.status().iter().filter(|s| s.error.is_some()).count();
    assert_eq!((failed(&world.parent), failed(&world.child)), (1, 1));
    world
}

#[test]
fn a_child_that_rewrites_one_old_entry_convicts_itself() {
    let mut world = world();
    let rewritten = world.child.ledgers[&person()].rewritten(2, other_record(), &person());
    world.child.ledgers.insert(person(), rewritten);
    let world = check_refused(world, RejectCode::Fork);
    let log = NoteSigner::new(person().as_str(), key("community", "sign")).unwrap();
    world.parent.evidence[0]
        .check(&log.verifier(KeyKind::Note))
        .unwrap();
    // The child is shown the head that it signed before.
    let own = Some(world.parent.ledgers[&person()].note.clone());
    assert_eq!(world.child.rejected_notes, [own]);
}

#[test]
fn a_child_that_rewrites_one_old_entry_and_grows_is_caught() {
    let mut world = world();
    let rewritten = world.child.ledgers[&person()].rewritten(2, other_record(), &person());
    world.child.ledgers.insert(person(), rewritten);
    world.child.register(&person(), 3, 10);
    check_refused(world, RejectCode::Mismatch);
}

#[test]
fn a_child_that_was_restored_from_an_old_copy_is_shown_the_later_head() {
    let mut world = world();
    let old = world.child.ledgers[&person()].clone();
    world.child.register(&person(), 3, 10);
    assert!(world.session());
    world.child.events.clear();
    world.child.ledgers.insert(person(), old);
    let world = check_refused(world, RejectCode::Shorter);
    let later = world.child.rejected_notes[0].clone().unwrap();
    assert!(later.contains("\n10\n"));
}

#[test]
fn a_head_that_another_key_signed_is_refused() {
    let mut world = world();
    world.child.register(&person(), 3, 10);
    let store = world.child.ledgers.get_mut(&person()).unwrap();
    let stranger = NoteSigner::new(person().as_str(), key("stranger", "sign")).unwrap();
    let head = ledger::checkpoint::Checkpoint::new(person().as_str(), store.size(), store.root());
    store.note = head.unwrap().sign(&stranger).unwrap();
    check_refused(world, RejectCode::Signature);
}

#[test]
fn a_fork_during_a_transfer_ends_it() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.child.register(&person(), 30, 60 * 1024);
        world.connect();
        while world.held(&person()) == 0 {
            world.step();
        }
        let rewritten = world.child.ledgers[&person()].rewritten(2, other_record(), &person());
        world.child.ledgers.insert(person(), rewritten);
        world.child.offer(&person());
        world.run();
        assert!(world.held(&person()) < 31);
        // A chunk of the other history may arrive before the head that shows the fork.
        let forked = Event::Fork(person());
        assert!(
            world.parent.has(&forked),
            "seed {seed}: {:?}",
            world.parent.events
        );
    }
}

/// What is wrong with a ledger that its owner signed.
fn check_ledger(origin: &Origin, code: RejectCode, build: impl FnOnce(&mut Store)) {
    let mut world = World::new(4);
    let mut store = Store::default();
    build(&mut store);
    store.sign(origin);
    world.child.ledgers.insert(origin.clone(), store);
    assert!(!world.session());
    assert_eq!(world.held(origin), 0, "nothing is kept");
    let alarm = Event::Alarm(origin.clone(), code);
    assert!(world.parent.has(&alarm), "{:?}", world.parent.events);
    assert!(world.child.has(&Event::Rejected(origin.clone(), code)));
}

fn check_shard(code: RejectCode, build: impl FnOnce(&mut Store)) {
    check_ledger(&person(), code, build);
}

#[test]
fn a_forged_missing_or_surplus_body_is_refused() {
    let changes: [fn(&mut Item); 4] = [
        |item| item.body.as_mut().unwrap()[3] ^= 1,
        |item| item.body = None,
        |item| item.body = Some(vec![]),
        |item| item.body.as_mut().unwrap().push(0),
    ];
    for change in changes {
        check_shard(RejectCode::Body, |store| {
            store.push(record_item(0, Operation::Register, 10));
            store.act(&person(), |_| {});
            change(&mut store.items[0]);
        });
    }
    check_shard(RejectCode::Body, |store| {
        store.push(record_item(0, Operation::Register, 10));
        store.act(&person(), |_| {});
        store.items[1].body = Some(vec![]);
    });
}

#[test]
fn a_body_that_was_destroyed_is_excused_by_the_entry_that_ordered_it() {
    let mut world = World::new(4);
    let store = world.child.ledgers.entry(person()).or_default();
    store.push(record_item(0, Operation::Register, 10));
    store.push(record_item(1, Operation::Register, 10));
    store.act(&person(), |_| {});
    store.push(record_item(0, Operation::Erase, 10));
    store.act(&person(), |_| {});
    store.sign(&person());
    store.destroy(0, 3);
    assert!(world.session());
    assert_eq!(world.held(&person()), 5);
}

#[test]
fn a_body_is_not_excused_by_another_records_end_nor_by_a_false_proof() {
    let build = |store: &mut Store| {
        store.push(record_item(0, Operation::Erase, 9));
        store.push(record_item(0, Operation::Register, 10));
        store.push(record_item(1, Operation::Register, 10));
        store.push(record_item(0, Operation::Amend, 11));
        store.push(record_item(0, Operation::Erase, 10));
        store.act(&person(), |_| {});
    };
    // Of another record; by an amendment; by an erasure before it.
    for (index, by) in [(2, 4), (1, 3), (1, 0)] {
        check_shard(RejectCode::Body, |store| {
            build(store);
            store.destroy(index, by);
        });
    }
    check_shard(RejectCode::Body, |store| {
        build(store);
        store.destroy(1, 4);
        let gone = store.items[1].gone.as_mut().unwrap();
        gone.entry = record_item(0, Operation::Erase, 77).entry;
    });
    check_shard(RejectCode::Body, |store| {
        build(store);
        store.destroy(1, 4);
        store.items[1].body = record_item(0, Operation::Register, 10).body;
    });
}

#[test]
fn an_act_that_was_altered_or_moved_is_refused() {
    let foreign = origin("community", "unit");
    let changes: [fn(&mut Act); 6] = [
        |act| act.root = [9; 32],
        |act| act.first += 1,
        |act| act.first = u64::MAX,
        |act| act.count -= 1,
        |act| act.count = 0,
        |act| act.previous = Some([7; 32]),
    ];
    for change in changes {
        check_shard(RejectCode::Act, |store| {
            (0..3).for_each(|number| store.push(record_item(number, Operation::Register, 10)));
            store.act(&person(), change);
        });
    }
    // Sound in another ledger.
    check_shard(RejectCode::Act, |store| {
        store.push(record_item(0, Operation::Register, 10));
        store.act(&foreign, |_| {});
    });
    // Signs what an earlier act signed already.
    check_shard(RejectCode::Act, |store| {
        store.push(record_item(0, Operation::Register, 10));
        store.act(&person(), |_| {});
        let leaves = store.leaves.clone();
        store.act(&person(), |act| {
            (act.first, act.count, act.root) = (0, 2, root_of(&leaves));
        });
    });
    // The act before it is another one.
    check_shard(RejectCode::Act, |store| {
        store.push(record_item(0, Operation::Register, 10));
        store.act(&person(), |_| {});
        store.push(record_item(1, Operation::Register, 10));
        store.act(&person(), |act| act.previous = None);
    });
}

#[test]
fn a_shard_entry_before_an_act_that_does_not_sign_it_is_refused() {
    check_shard(RejectCode::Act, |store| {
        store.push(record_item(0, Operation::Register, 10));
        store.push(record_item(1, Operation::Register, 10));
        let last = store.leaves[1];
        store.act(&person(), |act| {
            (act.first, act.count, act.root) = (1, 1, last)
        });
    });
    // More entries than an act can sign: the chunk that shows it is refused, those before it are kept.
    let mut world = World::new(4);
    let mut store = Store::default();
    for number in 0..=u64::from(ACT_ENTRIES_MAX) {
        store.push(record_item(number, Operation::Register, 0));
    }
    store.sign(&person());
    world.child.ledgers.insert(person(), store);
    assert!(!world.session());
    assert!(world.held(&person()) <= u64::from(ACT_ENTRIES_MAX));
    assert!(world.parent.has(&Event::Alarm(person(), RejectCode::Act)));
}

#[test]
fn an_act_whose_entries_came_in_an_earlier_chunk_is_checked_all_the_same() {
    let build = |change: fn(&mut Act)| {
        let mut world = World::new(6);
        let store = world.child.ledgers.entry(person()).or_default();
        for number in 0..20 {
            store.push(record_item(number, Operation::Register, 60 * 1024));
        }
        store.act(&person(), change);
        store.sign(&person());
        world
    };
    assert!(build(|_| {}).session());
    let mut world = build(|act| act.root = leaf_hash(b"other"));
    assert!(!world.session());
    assert!(world.parent.has(&Event::Alarm(person(), RejectCode::Act)));
    assert!(
        world.held(&person()) < 20,
        "the chunk with the act is not kept"
    );
    // Nor does another session let it in.
    assert!(!world.session());
}

#[test]
fn an_entry_of_another_kind_than_the_ledger_or_of_no_kind_is_refused() {
    let wrong = [
        (person(), access_item(1)),
        (person(), authority_item(1)),
        (origin("community", "access"), authority_item(1)),
        (
            origin("community", "access"),
            record_item(1, Operation::Register, 1),
        ),
        (origin("community", "authority"), access_item(1)),
        (
            person().grant(&record::id::GrantId([3; 16])),
            record_item(1, Operation::Register, 1),
        ),
    ];
    for (origin, item) in wrong {
        assert!(Entry::decode(&item.entry).is_ok());
        check_ledger(&origin, RejectCode::Entry, |store| store.push(item));
    }
    check_shard(RejectCode::Entry, |store| {
        store.push(Item {
            entry: b"not an entry".to_vec(),
            body: None,
            gone: None,
        });
    });
}

#[test]
fn a_ledger_that_the_parent_does_not_take_is_rejected_in_its_words() {
    let mut world = World::new(4);
    world.child.register(&person(), 3, 10);
    world.parent.refuses.push(person());
    assert!(!world.session());
    assert!(
        world
            .child
            .has(&Event::Rejected(person(), RejectCode::NotAccepted))
    );
    let status = &world.child.status()[0];
    assert!(
        status
            .error
            .as_ref()
            .unwrap()
            .contains("does not keep that ledger")
    );
    assert_eq!(status.behind(), 4);
}

#[test]
fn a_peer_that_offers_more_ledgers_than_a_session_may_have_is_told_and_costs_no_more() {
    let mut world = World::new(1);
    world.session();
    let note = world
        .child
        .ledgers
        .values()
        .next()
        .map(|store| store.note.clone());
    let note = note.unwrap_or_else(|| sim::signed_head(&person(), 1, [1; 32]));
    let before = world.parent.status().len();
    for number in 0..LEDGERS_MAX + 9 {
        let origin = origin(&format!("d{number}"), "person");
        let offer = sync::message::Offer {
            origin,
            note: note.clone(),
        };
        world.parent.receive(&Message::Offer(offer).encode());
    }
    assert!(world.parent.status().len() <= LEDGERS_MAX.max(before));
    let declined = |output: &sync::Output| {
        matches!(
            output,
            sync::Output::Declined {
                code: RejectCode::TooMany,
                ..
            }
        )
    };
    assert!(
        world
            .parent
            .work
            .iter()
            .filter(|output| declined(output))
            .count()
            >= 9
    );
}

#[test]
fn a_cosignature_that_is_not_the_peers_raises_the_alarm() {
    let mut world = World::new(4);
    world.child.register(&person(), 3, 10);
    let note = world.child.ledgers[&person()].note.clone();
    let line = |name: &str, key| {
        let witness = NoteSigner::new(name, key).unwrap();
        ledger::checkpoint::cosign(note.as_bytes(), &witness, 1).unwrap()
    };
    let good = line("jiangjin.example/town/witness", key("town", "witness"));
    let bad = [
        line("jiangjin.example/town/witness", key("town", "held")),
        line("jiangjin.example/town/held", key("town", "witness")),
        line("jiangjin.example/district/witness", key("town", "witness")),
        "— not a line\n".to_owned(),
        good.trim_end().to_owned(),
    ];
    // On the bare head, and on one that has the peer's true line already.
    let signed = ledger::checkpoint::add_signature_line(note.as_bytes(), good.as_bytes());
    for note in [note.clone(), signed.unwrap()] {
        world.child.ledgers.get_mut(&person()).unwrap().note = note;
        for bad in &bad {
            world.child.events.clear();
            world.parent.lines = Some(vec![good.clone(), bad.clone()]);
            world.session();
            let alarm = Event::Alarm(person(), RejectCode::Signature);
            assert!(world.child.has(&alarm), "{bad}");
            assert!(!world.child.has(&Event::Cosigned(person(), 4)));
        }
    }
    world.parent.lines = Some(vec![good]);
    world.session();
    assert!(world.child.has(&Event::Cosigned(person(), 4)));
}
