//! Two nodes come to the same ledgers, whatever the order of events and wherever the line is cut.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use ledger::checkpoint::{add_signature_line, verify_cosignature};
use ledger::note::{KeyKind, NoteSigner};
use record::id::Origin;
use sim::{Event, Store, World, access_item, authority_item, key, origin};
use sync::limits::{CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, TRANSFERS_MAX};
use sync::{held_name, witness_name};

fn person() -> Origin {
    origin("community", "person")
}

/// Six ledgers of every sort, one of them of several chunks, and one that goes downward.
fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.child.register(&person(), 30, 60 * 1024);
    world.child.register(&person(), 3, 10);
    for kind in ["room", "unit", "building"] {
        world.child.register(&origin("community", kind), 5, 100);
    }
    let (access, authority) = (
        origin("community", "access"),
        origin("community", "authority"),
    );
    let store = world.child.ledgers.entry(access.clone()).or_default();
    (0..7).for_each(|number| store.push(access_item(number)));
    store.sign(&access);
    for (name, authority) in [
        ("community", authority),
        ("town", origin("town", "authority")),
    ] {
        let node = if name == "town" {
            &mut world.parent
        } else {
            &mut world.child
        };
        let store = node.ledgers.entry(authority.clone()).or_default();
        (0..7).for_each(|number| store.push(authority_item(number)));
        store.act(&authority, |act| {
            // An act in `authority` may sign the last of several entries only.
            act.first = 6;
            act.count = 1;
            act.root = ledger::hash::leaf_hash(&authority_item(6).entry);
        });
        store.sign(&authority);
    }
    world
}

#[test]
fn two_nodes_converge_and_the_cosignatures_verify() {
    for seed in 0..5 {
        let mut world = world(seed);
        assert!(world.child.ledgers.len() > TRANSFERS_MAX);
        assert!(world.session(), "seed {seed}");
        let (town, community) = (&world.parent, &world.child);
        for (origin, store) in &community.ledgers {
            let signer = if origin.division().as_str() == "town" {
                continue;
            } else {
                &town.chain[0]
            };
            let lines = &store.cosigned[&store.size()];
            let names = [
                (witness_name(signer), "witness"),
                (held_name(signer), "held"),
            ];
            assert_eq!(lines.len(), names.len());
            for (line, (name, which)) in lines.iter().zip(names) {
                let note = add_signature_line(store.note.as_bytes(), line.as_bytes()).unwrap();
                let witness = NoteSigner::new(&name, key("town", which)).unwrap();
                let verifier = witness.verifier(KeyKind::Cosignature);
                let time = verify_cosignature(note.as_bytes(), &verifier).unwrap();
                assert_eq!(time, town.now.secs());
            }
        }
        for status in town.status().iter().chain(&community.status()) {
            assert_eq!((status.behind(), &status.error), (0, &None), "{status:?}");
        }
    }
}

#[test]
fn memory_is_bounded_by_messages_of_bounded_size() {
    let mut world = world(1);
    assert!(world.session());
    let largest = world.parent.largest_message;
    assert!(largest <= MESSAGE_BYTES_MAX);
    // 30 bodies of 60 KiB do not fit one message.
    assert!(largest > CHUNK_BYTES_MAX / 2 && largest < CHUNK_BYTES_MAX + 64 * 1024);
    let chunks = world
        .trace
        .iter()
        .filter(|line| line.starts_with("up Entries"));
    assert!(chunks.count() >= 5 + 3);
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| {
        let mut world = world(seed);
        assert!(world.session());
        world.trace
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn a_connection_cut_at_any_message_goes_on_in_another_session() {
    let mut whole = world(3);
    assert!(whole.session());
    for messages in 0..=whole.delivered {
        let mut world = world(3);
        world.session_cut_after(messages);
        let held = world.held(&person());
        assert!(world.session(), "cut after {messages}");
        // What had arrived did not come again.
        assert!(held <= world.held(&person()));
    }
}

#[test]
fn a_line_that_cuts_every_few_messages_still_brings_everything() {
    let mut world = world(11);
    let mut sessions = 0;
    while !world.converged() {
        let messages = 8 + world.rng.below(40) as usize;
        world.session_cut_after(messages);
        sessions += 1;
        assert!(sessions < 100);
    }
    assert!(sessions > 1);
}

#[test]
fn heads_that_move_during_the_transfer_are_reached_and_cosigned() {
    for seed in 0..10 {
        let mut world = world(seed);
        world.connect();
        for round in 0..60u64 {
            for _ in 0..5 {
                world.step();
            }
            if round % 3 == 0 {
                world.child.register(&person(), 2, 20 * 1024);
                world.child.offer(&person());
            }
        }
        world.run();
        assert!(world.converged(), "seed {seed}");
        let size = world.child.ledgers[&person()].size();
        assert!(
            world.child.has(&Event::Cosigned(person(), size)),
            "seed {seed}"
        );
        assert!(
            !world
                .parent
                .events
                .iter()
                .any(|event| matches!(event, Event::Alarm(..)))
        );
    }
}

/// Cuts when the parent holds part of a head.
fn interrupted(seed: u64) -> World {
    let mut world = World::new(seed);
    world.child.register(&person(), 30, 60 * 1024);
    world.connect();
    while world.held(&person()) == 0 {
        assert!(world.step());
    }
    assert!(world.held(&person()) < world.child.ledgers[&person()].size());
    world
}

#[test]
fn a_transfer_interrupted_before_the_head_moved_is_resumed_against_the_moved_head() {
    let mut world = interrupted(5);
    world.child.register(&person(), 4, 100);
    assert!(world.session());
    assert!(
        world
            .parent
            .events
            .iter()
            .all(|event| *event == Event::Opened)
    );
}

#[test]
fn a_moved_head_that_does_not_extend_the_interrupted_one_is_caught() {
    let mut world = interrupted(5);
    let held = world.held(&person());
    let store = &world.child.ledgers[&person()];
    // Behind what is held, but before the head that the parent has seen.
    let at = held as usize + 2;
    let other = sim::record_item(900, record::entry::Operation::Register, 10);
    let rewritten: Store = store.rewritten(at, other, &person());
    world.child.ledgers.insert(person(), rewritten);
    world.child.register(&person(), 4, 100);
    assert!(!world.session());
    assert_eq!(world.held(&person()), held);
    assert!(
        world
            .parent
            .has(&Event::Alarm(person(), sync::RejectCode::Mismatch))
    );
}

#[test]
fn a_head_offered_meanwhile_must_extend_the_one_it_replaces() {
    for rewrites in [false, true] {
        let mut world = World::new(5);
        world.child.register(&person(), 30, 60 * 1024);
        world.connect();
        let stores = |world: &World| {
            let mut work = world.parent.work.iter();
            work.any(|output| matches!(output, sync::Output::Store(_)))
        };
        while !stores(&world) {
            assert!(world.step());
        }
        // Before the parent goes on from the first chunk.
        if rewrites {
            let other = sim::record_item(900, record::entry::Operation::Register, 10);
            let rewritten = world.child.ledgers[&person()].rewritten(29, other, &person());
            world.child.ledgers.insert(person(), rewritten);
        }
        world.child.register(&person(), 4, 100);
        world.child.offer(&person());
        while let Some(bytes) = world.child.step() {
            world.parent.receive(&bytes);
        }
        world.run();
        assert_eq!(world.converged(), !rewrites);
        let mismatch = Event::Alarm(person(), sync::RejectCode::Mismatch);
        assert_eq!(world.parent.has(&mismatch), rewrites);
    }
}

#[test]
fn entries_that_cannot_be_read_are_asked_for_again_with_the_next_offer() {
    let mut world = World::new(2);
    world.child.register(&person(), 3, 10);
    world.connect();
    let kept = world.child.ledgers[&person()].clone();
    while !world.child.has(&Event::Opened) {
        world.step();
    }
    let empty = world.child.ledgers.get_mut(&person()).unwrap();
    let note = std::mem::take(&mut empty.note);
    *empty = Store {
        note,
        ..Store::default()
    };
    world.run();
    assert_eq!(world.held(&person()), 0);
    assert!(world.parent.status()[0].error.is_some());
    world.child.ledgers.insert(person(), kept);
    world.child.offer(&person());
    world.run();
    assert!(world.converged());
    assert_eq!(world.parent.status()[0].error, None);
}

#[test]
fn the_empty_ledger_is_cosigned() {
    let mut world = World::new(2);
    let mut store = Store::default();
    store.sign(&person());
    world.child.ledgers.insert(person(), store);
    world.session();
    assert!(world.child.has(&Event::Cosigned(person(), 0)));
}

#[test]
fn a_head_offered_meanwhile_replaces_one_whose_entries_cannot_be_read() {
    let mut world = World::new(2);
    world.child.register(&person(), 3, 10);
    world.child.loads_that_fail = 1;
    world.connect();
    let loads = |world: &World| {
        let mut work = world.child.work.iter();
        work.any(|output| matches!(output, sync::Output::Load(_)))
    };
    while !loads(&world) {
        assert!(world.step());
    }
    world.child.register(&person(), 3, 10);
    world.child.offer(&person());
    world.run();
    assert!(world.converged());
}

#[test]
fn entries_that_cannot_be_stored_are_asked_for_again_with_the_next_offer() {
    let mut world = World::new(2);
    world.child.register(&person(), 3, 10);
    world.parent.stores_that_fail = 1;
    assert!(!world.session());
    let unavailable = Event::Rejected(person(), sync::RejectCode::Unavailable);
    assert!(world.child.has(&unavailable));
    world.child.offer(&person());
    world.run();
    assert!(world.converged());
}

/// Takes away what the parent was about to store.
fn stores_of(world: &mut World) -> Vec<sync::Output> {
    let is_store = |output: &sync::Output| matches!(output, sync::Output::Store(_));
    let (stores, rest) = std::mem::take(&mut world.parent.work)
        .into_iter()
        .partition(is_store);
    world.parent.work = rest;
    Vec::from(stores as std::collections::VecDeque<_>)
}

#[test]
fn chunks_are_wanted_while_those_before_them_are_stored_but_only_so_many() {
    let mut world = World::new(1);
    world.child.register(&person(), 60, 60_000);
    world.connect();
    let mut standing = vec![];
    while world.step() {
        standing.extend(stores_of(&mut world));
    }
    assert_eq!(standing.len(), sync::limits::STORING_MAX);
    let wants = world.trace.iter().filter(|line| line.contains("Want"));
    assert_eq!(wants.count(), sync::limits::STORING_MAX);
    // Nothing is durable, and nobody says so.
    assert_eq!(world.child.status()[0].held_size, 0);
    world.parent.work.extend(standing);
    world.run();
    assert!(world.converged());
}

#[test]
fn a_chunk_that_cannot_be_stored_ends_the_transfer_once_the_answer_under_way_came() {
    let mut world = World::new(1);
    world.child.register(&person(), 60, 60_000);
    world.connect();
    let mut standing = vec![];
    while standing.is_empty() && world.step() {
        standing.extend(stores_of(&mut world));
    }
    while !world.parent.work.is_empty() {
        world.down.extend(world.parent.step());
    }
    world.parent.stores_that_fail = 1;
    world.parent.work.extend(standing);
    while !world.parent.work.is_empty() {
        world.down.extend(world.parent.step());
    }
    // Only the question that was asked before.
    assert_eq!(world.down.len(), 1);
    world.run();
    let said: Vec<&str> = world
        .trace
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert!(
        said.ends_with(&["Entries", "Want", "Entries", "Rejected"]),
        "{said:?}"
    );
    world.child.offer(&person());
    world.run();
    assert!(world.converged());
}

#[test]
fn a_parent_that_does_not_sign_says_what_it_holds() {
    let mut world = World::new(2);
    world.child.register(&person(), 3, 10);
    world.parent.cosigns = false;
    for _ in 0..2 {
        assert!(world.session());
        assert_eq!(world.child.events, [Event::Opened]);
        assert_eq!(world.child.status()[0].behind(), 0);
        world.child.events.clear();
    }
}

#[test]
fn whatever_is_damaged_on_the_way_only_true_entries_are_kept() {
    for seed in 0..150 {
        let mut world = world(2);
        world.connect();
        world.rng.0 = seed;
        let at = world.rng.below(45) as usize;
        while world.delivered < at && world.step() {}
        let (up, down) = (world.up.back_mut(), world.down.back_mut());
        if let Some(bytes) = up.or(down) {
            let position = world.rng.below(bytes.len() as u64) as usize;
            bytes[position] ^= 1 << world.rng.below(8);
        }
        world.run();
        for (origin, store) in &world.parent.ledgers {
            let whole = world.child.ledgers.get(origin).unwrap_or(store);
            assert_eq!(store.items, whole.items[..store.items.len()], "seed {seed}");
        }
        // The damage is gone with the connection.
        assert!(world.session(), "seed {seed}");
    }
}

#[test]
fn the_exchange_that_the_format_page_shows_holds() {
    let mut world = World::new(1);
    world.child.register(&person(), 2, 50);
    assert!(world.session());
    let expected = [
        "up Hello 4539",
        "down Welcome 3020",
        "up Offer 256",
        "down Want 44",
        "up Entries 613",
        "down Cosigned 323",
    ];
    assert_eq!(world.trace, expected);
}
