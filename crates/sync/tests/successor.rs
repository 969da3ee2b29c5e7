//! Who is let in after keys above changed: a root that was succeeded, a chain that was renewed.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use record::authority::{Charter, Succession};
use record::id::{Hash, Origin, UnixMillis};
use sim::{NOW, REALM, charter, charter_with, community_chain, key, keys, public, town_chain};
use sync::{Accept, Config, Output, Refusal, RefusalCode, Session, Side, Trust};

/// The root's charter of another key, signed by that key itself.
fn root(name: &str, serial: u32) -> Charter {
    charter_with("district", "district", |charter| {
        charter.keys = keys(name);
        charter.serial = serial;
    })
    .sign(&key(name, "sign"))
}

fn first() -> Charter {
    root("district", 1)
}

fn second() -> Charter {
    root("district-2", 2)
}

fn succession() -> Succession {
    Succession::sign(first(), second(), &key("district", "sign"))
}

fn third() -> [Succession; 2] {
    let next = root("district-3", 3);
    let further = Succession::sign(second(), next, &key("district-2", "sign"));
    [succession(), further]
}

/// The town's chain under a key of the root, with the town's own keys as they were.
fn town_under(root: Charter, name: &str, serial: u32) -> Vec<Charter> {
    let town = charter_with("town", "district", |charter| charter.serial = serial);
    vec![town.sign(&key(name, "sign")), root]
}

fn community_under(town: &[Charter]) -> Vec<Charter> {
    let mut chain = vec![charter("community", "town")];
    chain.extend_from_slice(town);
    chain
}

/// A node that knows one key of the root, and what it knows of charters that were issued anew.
struct Known {
    root: [u8; 32],
    renewed: Option<Vec<Charter>>,
    revoked: Vec<Hash>,
}

fn knowing(name: &str) -> Known {
    Known {
        root: public(name, "sign"),
        renewed: None,
        revoked: Vec::new(),
    }
}

impl Trust for Known {
    fn realm_root(&self) -> [u8; 32] {
        self.root
    }

    fn renewed(&self, _: &[Charter]) -> Option<Vec<Charter>> {
        self.renewed.clone()
    }

    fn is_revoked(&self, charter: &Hash) -> bool {
        self.revoked.contains(charter)
    }

    fn log(&self, _: &Origin, _: &str) -> Option<ledger::note::Verifier> {
        None
    }

    fn accept(&self, _: &Charter, _: &Origin, _: &str) -> Result<Accept, Refusal> {
        Err(Refusal {
            reason: "nothing".into(),
            passing: false,
        })
    }
}

/// A side of a session: its chain, what it shows of the root's keys, what it knows.
struct Party {
    chain: Vec<Charter>,
    shows: Vec<Succession>,
    knows: Known,
}

fn side(chain: Vec<Charter>, shows: &[Succession], knows: Known) -> Party {
    Party {
        chain,
        shows: shows.to_vec(),
        knows,
    }
}

fn config(own: &Party, peer: &str) -> Config {
    Config {
        realm: record::id::Realm::new(REALM).unwrap(),
        chain: own.chain.clone(),
        peer_key: public(peer, "transport"),
    }
}

fn sent(outputs: &[Output]) -> Vec<Vec<u8>> {
    let bytes = outputs.iter().filter_map(|output| match output {
        Output::Send(bytes) => Some(bytes.0.clone()),
        _ => None,
    });
    bytes.collect()
}

/// The community dials the town; what each side was told.
fn open(child: &Party, parent: &Party) -> (Vec<Output>, Vec<Output>) {
    let dialer = Session::dial(config(child, "town"));
    let mut dialer = dialer.knowing(child.shows.clone());
    let listener = Session::listen(config(parent, "community"));
    let mut listener = listener.knowing(parent.shows.clone());
    let (mut below, mut above) = (Vec::new(), Vec::new());
    let mut to_parent = sent(&dialer.start(NOW));
    while !to_parent.is_empty() {
        let mut to_child = Vec::new();
        for message in to_parent.drain(..) {
            let outputs = listener.receive(&message, NOW, &parent.knows);
            to_child.extend(sent(&outputs));
            above.extend(outputs);
        }
        for message in to_child {
            let outputs = dialer.receive(&message, NOW, &child.knows);
            to_parent.extend(sent(&outputs));
            below.extend(outputs);
        }
    }
    (below, above)
}

fn opened(outputs: &[Output]) -> Option<&[Charter]> {
    outputs.iter().find_map(|output| match output {
        Output::Opened { chain } => Some(chain.as_slice()),
        _ => None,
    })
}

fn succeeded(outputs: &[Output]) -> bool {
    { outputs.iter() }.any(|output| matches!(output, Output::Succeeded(_)))
}

fn refused(outputs: &[Output]) -> Option<(RefusalCode, Side)> {
    outputs.iter().find_map(|output| match output {
        Output::Refused { code, by, .. } => Some((*code, *by)),
        _ => None,
    })
}

fn before() -> Party {
    side(community_chain(), &[], knowing("district"))
}

/// The town after the root has its second key.
fn after() -> Party {
    let chain = town_under(second(), "district-2", 2);
    side(chain, &[succession()], knowing("district-2"))
}

#[test]
fn a_child_that_knows_the_first_root_follows_its_parent_to_the_next() {
    let parent = after();
    let mut child = before();
    // The parent has seen the child's chain renewed: only the charter above it is another.
    let mut parent_knows = knowing("district-2");
    parent_knows.renewed = Some(community_under(&parent.chain));
    let parent = Party {
        knows: parent_knows,
        ..parent
    };
    let (below, above) = open(&child, &parent);
    assert_eq!(opened(&below).unwrap(), parent.chain);
    assert!(succeeded(&below) && !succeeded(&above));
    let at = |wanted: fn(&Output) -> bool| below.iter().position(wanted).unwrap();
    let kept = at(|output| matches!(output, Output::Succeeded(_)));
    let open_at = at(|output| matches!(output, Output::Opened { .. }));
    assert!(
        kept < open_at,
        "the root's key is kept before it is relied on"
    );
    // Once it is kept, nothing is new.
    child.knows = knowing("district-2");
    let (below, _) = open(&child, &parent);
    assert!(opened(&below).is_some() && !succeeded(&below));
}

#[test]
fn a_parent_that_was_away_follows_its_child_to_the_next_root_but_one() {
    let town = town_under(third()[1].charter.clone(), "district-3", 3);
    let child = side(community_under(&town), &third(), knowing("district-3"));
    let mut knows = knowing("district");
    knows.renewed = None;
    let parent = side(town.clone(), &third(), knows);
    let (below, above) = open(&child, &parent);
    assert!(succeeded(&above) && !succeeded(&below));
    assert_eq!(opened(&above).unwrap(), child.chain);
}

#[test]
fn a_root_is_not_followed_without_a_statement_of_the_one_before_nor_back() {
    let stranger = Succession::sign(first(), second(), &key("stranger", "sign"));
    let mut unsigned = succession();
    unsigned.signature = [0; 64];
    let gap = third()[1].clone();
    for shows in [vec![], vec![stranger], vec![unsigned], vec![gap]] {
        let child = before();
        let parent = Party {
            shows,
            knows: Known {
                renewed: Some(community_under(&after().chain)),
                ..knowing("district-2")
            },
            ..after()
        };
        let (below, _) = open(&child, &parent);
        assert_eq!(
            refused(&below),
            Some((RefusalCode::OtherRealm, Side::Own)),
            "{:?}",
            parent.shows
        );
        assert!(!succeeded(&below));
    }
    // Who knows the second goes back to the first for nobody.
    let child = side(
        community_under(&after().chain),
        &[succession()],
        knowing("district-2"),
    );
    let parent = side(town_chain(), &[], knowing("district-2"));
    let (below, _) = open(&child, &parent);
    assert_eq!(refused(&below), Some((RefusalCode::OtherRealm, Side::Own)));
}

#[test]
fn successions_that_lead_elsewhere_than_the_chain_move_nothing() {
    // Shown beside a chain to the known root: nothing to follow.
    let mut child = before();
    child.shows = third().to_vec();
    let parent = side(town_chain(), &third(), knowing("district"));
    let (below, above) = open(&child, &parent);
    assert!(opened(&below).is_some() && opened(&above).is_some());
    assert!(!succeeded(&below) && !succeeded(&above));
    // The chain ends at the second key, the statements lead on to the third.
    let mut parent = after();
    parent.shows = third().to_vec();
    parent.knows.renewed = Some(community_under(&parent.chain));
    let (below, _) = open(&before(), &parent);
    assert_eq!(refused(&below), Some((RefusalCode::OtherRealm, Side::Own)));
}

#[test]
fn a_charter_of_a_root_that_is_over_is_refused_although_the_succession_holds() {
    let over = charter_with("district", "district", |charter| {
        charter.keys = keys("district-2");
        charter.serial = 2;
        charter.not_after = UnixMillis(NOW.0 - 1);
    })
    .sign(&key("district-2", "sign"));
    let succession = Succession::sign(first(), over.clone(), &key("district", "sign"));
    let chain = town_under(over, "district-2", 2);
    let knows = Known {
        renewed: Some(community_chain()),
        ..knowing("district")
    };
    let parent = side(chain, &[succession], knows);
    let (below, _) = open(&before(), &parent);
    assert_eq!(refused(&below), Some((RefusalCode::Expired, Side::Own)));
    assert!(!succeeded(&below));
}

/// The town's charter was issued anew for the same keys, and the first one is replaced.
fn renewed_town() -> Vec<Charter> {
    town_under(first(), "district", 2)
}

#[test]
fn a_chain_with_a_charter_that_was_replaced_counts_as_the_one_in_force() {
    let child = before();
    let mut parent = side(renewed_town(), &[], knowing("district"));
    parent.knows.revoked.push(town_chain()[0].id());
    // Without a later chain for the same keys, the replaced charter is refused.
    let (_, above) = open(&child, &parent);
    assert_eq!(refused(&above), Some((RefusalCode::Revoked, Side::Own)));
    parent.knows.renewed = Some(community_under(&renewed_town()));
    let (below, above) = open(&child, &parent);
    assert_eq!(opened(&above).unwrap(), community_under(&renewed_town()));
    assert_eq!(opened(&below).unwrap(), renewed_town());
}

#[test]
fn a_renewed_chain_is_checked_like_one_that_was_shown() {
    let check = |renewed: Vec<Charter>, revoked: &[Hash], code| {
        let child = before();
        let mut parent = side(renewed_town(), &[], knowing("district"));
        parent.knows.revoked.push(town_chain()[0].id());
        parent.knows.revoked.extend_from_slice(revoked);
        parent.knows.renewed = Some(renewed);
        let (_, above) = open(&child, &parent);
        assert_eq!(refused(&above), Some((code, Side::Own)));
        assert!(opened(&above).is_none());
    };
    let renewed = || community_under(&renewed_town());
    check(renewed(), &[renewed_town()[0].id()], RefusalCode::Revoked);
    let mut forged = renewed();
    forged[1].signature = [1; 64];
    check(forged, &[], RefusalCode::Malformed);
    let mut over = renewed();
    over[1] = charter_with("town", "district", |c| c.not_after = UnixMillis(NOW.0 - 1));
    check(over, &[], RefusalCode::Expired);
    // For other keys than the connection proved, of another node, or of none.
    let mut others = renewed();
    others[0] = charter_with("community", "town", |c| c.keys = keys("stranger"));
    check(others, &[], RefusalCode::WrongKey);
    check(renewed_town(), &[], RefusalCode::WrongKey);
    check(Vec::new(), &[], RefusalCode::Malformed);
    // Under a root that nobody here knows.
    check(
        community_under(&after().chain),
        &[],
        RefusalCode::OtherRealm,
    );
}
