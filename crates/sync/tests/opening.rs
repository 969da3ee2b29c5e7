//! Who is let in: charters, clocks, versions, enrolment.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use record::authority::Charter;
use record::id::{Realm, UnixMillis};
use sim::{
    Event, NOW, Node, World, charter, charter_with, community_chain, division, keys, origin,
    public, realm, root_chain, town_chain,
};
use sync::limits::{CHAIN_MAX, OPENING_BYTES_MAX};
use sync::message::{Hello, Offer, Successions, Want, Welcome};
use sync::{Config, Enrolment, Message, Output, RefusalCode, Secret, Session, Side};

/// Both sides hear the code; neither opens.
fn check_refused(mut world: World, code: RefusalCode, by_parent: bool) {
    world.child.register(&origin("community", "person"), 3, 10);
    world.session();
    let (refusing, refused) = match by_parent {
        true => (&world.parent, &world.child),
        false => (&world.child, &world.parent),
    };
    assert!(
        refusing.has(&Event::Refused(code, Side::Own)),
        "{:?}",
        refusing.events
    );
    assert!(
        refused.has(&Event::Refused(code, Side::Peer)),
        "{:?}",
        refused.events
    );
    assert!(refusing.has(&Event::Closed) && refused.has(&Event::Closed));
    assert!(!refusing.has(&Event::Opened));
    assert!(world.parent.ledgers.is_empty());
}

fn with_chains(child: Vec<Charter>, parent: Vec<Charter>) -> World {
    let mut world = World::new(1);
    if !child.is_empty() {
        world.child = Node::new(child);
    } else {
        world.child.chain = child;
    }
    world.parent = Node::new(parent);
    world
}

fn changed_child(change: impl FnOnce(&mut Charter)) -> Vec<Charter> {
    let mut chain = vec![charter_with("community", "town", change)];
    chain.extend(town_chain());
    chain
}

fn changed_parent(change: impl FnOnce(&mut Charter)) -> Vec<Charter> {
    vec![
        charter_with("town", "district", change),
        charter("district", "district"),
    ]
}

#[test]
fn a_charter_that_is_missing_expired_revoked_or_foreign_is_refused_by_the_listener() {
    let expired = |charter: &mut Charter| charter.not_after = UnixMillis(NOW.0 - 1);
    let early = |charter: &mut Charter| charter.not_before = UnixMillis(NOW.0 + 1);
    let foreign = |charter: &mut Charter| charter.realm = Realm::new("banan.example").unwrap();
    let cases = [
        (vec![], RefusalCode::Missing),
        (changed_child(expired), RefusalCode::Expired),
        (changed_child(early), RefusalCode::Expired),
        (changed_child(foreign), RefusalCode::OtherRealm),
        (community_chain()[..1].to_vec(), RefusalCode::OtherRealm),
        (
            vec![community_chain()[0].clone(), root_chain()[0].clone()],
            RefusalCode::OtherRealm,
        ),
    ];
    for (chain, code) in cases {
        check_refused(with_chains(chain, town_chain()), code, true);
    }
    for at in 0..3 {
        let mut world = with_chains(community_chain(), town_chain());
        world.parent.revoked.push(community_chain()[at].id());
        check_refused(world, RefusalCode::Revoked, true);
    }
}

#[test]
fn a_charter_that_is_missing_expired_revoked_or_foreign_is_refused_by_the_dialer() {
    let expired = |charter: &mut Charter| charter.not_after = UnixMillis(NOW.0 - 1);
    let foreign = |charter: &mut Charter| charter.realm = Realm::new("banan.example").unwrap();
    // The listener would not greet with such a charter of its own, so it is put on the wire.
    let cases = [
        (vec![], RefusalCode::Missing),
        (changed_parent(expired), RefusalCode::Expired),
        (changed_parent(foreign), RefusalCode::OtherRealm),
        (root_chain(), RefusalCode::WrongKey),
        (community_chain(), RefusalCode::WrongKey),
    ];
    for (chain, code) in cases {
        check_welcome(chain, "town", |_| {}, code);
    }
    check_welcome(
        root_chain(),
        "district",
        |_| {},
        RefusalCode::NotParentOrChild,
    );
    let revoke = |node: &mut Node| node.revoked.push(town_chain()[0].id());
    check_welcome(town_chain(), "town", revoke, RefusalCode::Revoked);
}

fn check_welcome(
    chain: Vec<Charter>,
    peer: &str,
    prepare: impl FnOnce(&mut Node),
    code: RefusalCode,
) {
    let mut child = Node::new(community_chain());
    prepare(&mut child);
    let mut dialer = Session::dial(child.config(peer));
    dialer.start(NOW);
    child.session = Some(dialer);
    let welcome = Welcome {
        chain,
        now: NOW,
        successions: Successions::default(),
    };
    child.receive(&Message::Welcome(welcome).encode());
    let sent = child.step().unwrap();
    assert!(
        matches!(Message::decode(&sent), Ok(Message::Refused(refused)) if refused.code == code)
    );
    while !child.work.is_empty() {
        child.step();
    }
    assert_eq!(
        child.events,
        [Event::Refused(code, Side::Own), Event::Closed]
    );
}

#[test]
fn a_forged_charter_is_refused() {
    let mut chain = community_chain();
    chain[0].keys.witness = [9; 32];
    check_refused(
        with_chains(chain, town_chain()),
        RefusalCode::Malformed,
        true,
    );
}

#[test]
fn a_charter_for_another_transport_key_is_refused() {
    let stolen = changed_child(|charter| charter.keys = keys("stranger"));
    check_refused(
        with_chains(stolen, town_chain()),
        RefusalCode::WrongKey,
        true,
    );
}

#[test]
fn nodes_that_are_not_parent_and_child_are_refused() {
    // A grandchild, a sibling, and the node itself.
    let grandchild = with_chains(community_chain(), root_chain());
    check_refused(grandchild, RefusalCode::NotParentOrChild, true);
    let mut sibling = vec![charter("village", "town")];
    sibling.extend(town_chain());
    let siblings = with_chains(community_chain(), sibling);
    check_refused(siblings, RefusalCode::NotParentOrChild, true);
    for chain in [community_chain(), root_chain()] {
        let itself = with_chains(chain.clone(), chain);
        check_refused(itself, RefusalCode::NotParentOrChild, true);
    }
}

#[test]
fn a_parent_may_dial_its_child() {
    let mut world = with_chains(town_chain(), community_chain());
    world.session();
    assert!(world.parent.has(&Event::Opened) && world.child.has(&Event::Opened));
}

#[test]
fn clocks_that_differ_by_over_ten_minutes_raise_the_alarm_and_nothing_more() {
    for (offset, alarm) in [(600_000, false), (600_001, true)] {
        let mut world = World::new(1);
        world.child.register(&origin("community", "person"), 3, 10);
        world.parent.now = UnixMillis(NOW.0 + offset);
        assert!(world.session());
        let skew = offset as i64;
        assert_eq!(world.child.has(&Event::ClockSkew(skew)), alarm);
        assert_eq!(world.parent.has(&Event::ClockSkew(-skew)), alarm);
    }
}

/// What an unfriendly peer sends to a listener, or to an open session.
fn check_bytes(bytes: &[u8], is_open: bool, code: RefusalCode) {
    let mut world = World::new(1);
    world.connect();
    if is_open {
        world.run();
    } else {
        world.child.work.clear();
    }
    world.parent.receive(bytes);
    world.run();
    assert!(world.parent.has(&Event::Refused(code, Side::Own)));
    assert!(world.child.has(&Event::Refused(code, Side::Peer)));
    // Closed means deaf.
    let hello = Hello {
        realm: realm(),
        chain: community_chain(),
        now: NOW,
        successions: Successions::default(),
    };
    world.parent.events.clear();
    world.parent.receive(&Message::Hello(hello).encode());
    assert!(world.parent.work.is_empty());
}

#[test]
fn a_message_before_the_welcome_is_refused() {
    let offer = Message::Offer(Offer {
        origin: origin("community", "person"),
        note: "x".into(),
    });
    let welcome = Message::Welcome(Welcome {
        chain: town_chain(),
        now: NOW,
        successions: Successions::default(),
    });
    check_bytes(&offer.encode(), false, RefusalCode::Malformed);
    check_bytes(&welcome.encode(), false, RefusalCode::Malformed);
}

#[test]
fn a_second_hello_and_a_want_of_what_was_not_offered_end_the_session() {
    let hello = Hello {
        realm: realm(),
        chain: community_chain(),
        now: NOW,
        successions: Successions::default(),
    };
    check_bytes(
        &Message::Hello(hello).encode(),
        true,
        RefusalCode::Malformed,
    );
    let want = |origin, from, head_size| {
        Message::Want(Want {
            origin,
            from,
            head_size,
            known_size: None,
        })
        .encode()
    };
    check_bytes(
        &want(origin("town", "person"), 0, 5),
        true,
        RefusalCode::Malformed,
    );
}

#[test]
fn malformed_bytes_and_other_versions_are_refused() {
    for is_open in [false, true] {
        check_bytes(b"", is_open, RefusalCode::Malformed);
        check_bytes(&[0xff; 100], is_open, RefusalCode::Malformed);
        check_bytes(&[0x83, 2, 3, 0xa0], is_open, RefusalCode::Version);
        check_bytes(&[0x83, 1, 99, 0xa0], is_open, RefusalCode::Malformed);
    }
    // A stranger may not make this node read a megabyte.
    check_bytes(
        &vec![0x83; OPENING_BYTES_MAX + 1],
        false,
        RefusalCode::Malformed,
    );
    let chain = vec![charter("community", "town"); CHAIN_MAX + 1];
    let hello = Message::Hello(Hello {
        realm: realm(),
        chain,
        now: NOW,
        successions: Successions::default(),
    });
    check_bytes(&hello.encode(), false, RefusalCode::Malformed);
}

#[test]
fn an_offer_before_the_session_is_open_is_an_error() {
    let mut session = Session::listen(Node::new(town_chain()).config("community"));
    assert!(session.offer(origin("town", "person"), "x".into()).is_err());
}

fn enrolment(transport: &str) -> (Session, Session) {
    let config = Config {
        realm: realm(),
        chain: vec![],
        peer_key: public("town", "transport"),
    };
    let enrolment = Enrolment {
        division: division("community"),
        secret: Secret::new([5; 32]),
        keys: keys("community"),
    };
    let listener = Session::listen(Node::new(town_chain()).config(transport));
    (Session::enrol(config, enrolment), listener)
}

fn sent(outputs: &[Output]) -> &[u8] {
    match &outputs[0] {
        Output::Send(bytes) => &bytes.0,
        other => panic!("{other:?}"),
    }
}

struct Anyone(Node);

impl sync::Trust for Anyone {
    fn realm_root(&self) -> [u8; 32] {
        public("district", "sign")
    }
    fn is_revoked(&self, charter: &[u8; 32]) -> bool {
        self.0.revoked.contains(charter)
    }
    fn log(&self, _: &record::id::Origin, _: &str) -> Option<ledger::note::Verifier> {
        None
    }

    fn accept(
        &self,
        _: &Charter,
        _: &record::id::Origin,
        _: &str,
    ) -> Result<sync::Accept, sync::Refusal> {
        Err(sync::Refusal {
            reason: "nothing".into(),
            passing: false,
        })
    }
}

fn anyone() -> Anyone {
    Anyone(Node::new(town_chain()))
}

#[test]
fn a_node_that_enrols_receives_its_charter() {
    let (mut dialer, mut listener) = enrolment("community");
    let enrol = dialer.start(NOW);
    assert!(!format!("{enrol:?}").contains("5, 5"));
    let asked = listener.receive(sent(&enrol), NOW, &anyone());
    let [Output::EnrolRequested(request)] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(request.secret.expose(), &[5; 32]);
    assert_eq!(format!("{:?}", request.secret), "Secret(..)");
    let enrolled = listener.enrolled(community_chain());
    assert!(matches!(enrolled[1], Output::Close { .. }));
    let outputs = dialer.receive(sent(&enrolled), NOW, &anyone());
    assert!(
        matches!(&outputs[..], [Output::Enrolled { chain }, Output::Close { .. }] if *chain == community_chain())
    );
}

#[test]
fn an_enrolment_is_refused_in_words_and_for_another_transport_key() {
    let (mut dialer, mut listener) = enrolment("community");
    listener.receive(sent(&dialer.start(NOW)), NOW, &anyone());
    let refused = listener.enrol_refused(RefusalCode::Enrolment, "the secret was used");
    let outputs = dialer.receive(sent(&refused), NOW, &anyone());
    assert!(matches!(
        &outputs[..],
        [Output::Refused { code: RefusalCode::Enrolment, reason, by: Side::Peer }, Output::Close { .. }]
            if reason.contains("the secret was used")
    ));
    let (mut dialer, mut listener) = enrolment("stranger");
    let outputs = listener.receive(sent(&dialer.start(NOW)), NOW, &anyone());
    assert!(matches!(
        outputs[1],
        Output::Refused {
            code: RefusalCode::WrongKey,
            ..
        }
    ));
}

#[test]
fn a_charter_of_another_node_or_by_another_issuer_is_not_taken_for_ones_own() {
    let other_keys = changed_child(|charter| charter.keys = keys("stranger"));
    let by_district = vec![
        charter("community", "district"),
        charter("district", "district"),
    ];
    let cases = [
        (other_keys, RefusalCode::WrongKey),
        (by_district, RefusalCode::WrongKey),
        (town_chain(), RefusalCode::WrongKey),
        (vec![], RefusalCode::Missing),
        (community_chain()[..2].to_vec(), RefusalCode::OtherRealm),
    ];
    for (chain, expected) in cases {
        let (mut dialer, mut listener) = enrolment("community");
        listener.receive(sent(&dialer.start(NOW)), NOW, &anyone());
        let outputs = dialer.receive(sent(&listener.enrolled(chain)), NOW, &anyone());
        assert!(
            matches!(outputs[1], Output::Refused { code, .. } if code == expected),
            "{outputs:?}"
        );
    }
}
