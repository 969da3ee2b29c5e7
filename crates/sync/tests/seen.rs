//! Heads that a peer has seen: what counts of them, and what does not.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use ledger::checkpoint::Checkpoint;
use ledger::note::{KeyKind, NoteSigner, Verifier};
use record::authority::Charter;
use record::id::{Hash, Origin};
use sim::{NOW, community_chain, key, public, realm, town_chain};
use sync::message::{Message, Seen};
use sync::{Accept, Config, Output, Refusal, Session, Trust};

/// Knows the keys of all owners, and holds nothing.
struct Known;

impl Trust for Known {
    fn realm_root(&self) -> [u8; 32] {
        public("district", "sign")
    }

    fn is_revoked(&self, _: &Hash) -> bool {
        false
    }

    fn log(&self, origin: &Origin, _: &str) -> Option<Verifier> {
        let log = NoteSigner::new(origin.as_str(), key(origin.division().as_str(), "sign"));
        Some(log.unwrap().verifier(KeyKind::Note))
    }

    fn accept(&self, _: &Charter, _: &Origin, _: &str) -> Result<Accept, Refusal> {
        Err(Refusal {
            reason: "nothing is received here".into(),
            passing: false,
        })
    }

    /// Has seen nothing but a head of size 9, with this root.
    fn is_news(&self, _: &Origin, head: &Checkpoint) -> bool {
        head.size() != 9 || *head.root() != [9; 32]
    }
}

/// The town's side of a session with its community.
fn opened() -> Session {
    let config = |chain, peer: &str| Config {
        realm: realm(),
        chain,
        peer_key: public(peer, "transport"),
    };
    let mut community = Session::dial(config(community_chain(), "town"));
    let mut town = Session::listen(config(town_chain(), "community"));
    let hello = community.start(NOW);
    let [Output::Send(hello)] = &hello[..] else {
        panic!("no hello")
    };
    town.receive(&hello.0, NOW, &Known);
    assert!(town.is_open());
    town
}

fn origin() -> Origin {
    Origin::parse("jiangjin.example/community/person").unwrap()
}

fn note(size: u64, root: u8, signer: &str) -> String {
    let signer = NoteSigner::new(origin().as_str(), key(signer, "sign")).unwrap();
    Checkpoint::new(origin().as_str(), size, [root; 32])
        .unwrap()
        .sign(&signer)
        .unwrap()
}

fn hear(session: &mut Session, notes: Vec<String>) -> Vec<Output> {
    let message = Message::Seen(Seen {
        origin: origin(),
        notes,
    });
    session.receive(&message.encode(), NOW, &Known)
}

#[test]
fn a_head_that_the_owner_signed_is_given_to_the_shell() {
    let mut session = opened();
    let outputs = hear(&mut session, vec![note(7, 1, "community")]);
    assert!(matches!(&outputs[..], [Output::Seen { checkpoint, .. }] if checkpoint.size() == 7));
}

#[test]
fn two_heads_of_one_size_with_other_roots_are_evidence() {
    let mut session = opened();
    let notes = vec![note(7, 1, "community"), note(7, 2, "community")];
    let outputs = hear(&mut session, notes);
    assert!(matches!(&outputs[..], [Output::Fork { .. }]));
}

#[test]
fn what_proves_nothing_is_dropped_and_the_session_goes_on() {
    let mut session = opened();
    for notes in [
        vec![],
        vec![note(7, 1, "town")],
        vec!["no note".to_owned()],
        vec![note(7, 1, "community"), note(7, 1, "community")],
        vec![note(7, 1, "community"), note(8, 2, "community")],
        vec![note(7, 1, "community"), note(7, 2, "town")],
    ] {
        assert!(hear(&mut session, notes).is_empty());
        assert!(session.is_open());
    }
}

#[test]
fn what_is_known_is_dropped_and_another_history_of_that_size_is_not() {
    let mut session = opened();
    assert!(hear(&mut session, vec![note(9, 9, "community")]).is_empty());
    let outputs = hear(&mut session, vec![note(9, 8, "community")]);
    assert!(
        matches!(&outputs[..], [Output::Seen { checkpoint, .. }] if *checkpoint.root() == [8; 32])
    );
}

#[test]
fn more_than_two_heads_are_refused() {
    let mut session = opened();
    let outputs = hear(&mut session, vec![note(7, 1, "community"); 3]);
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Refused { .. }))
    );
}
