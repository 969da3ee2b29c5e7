//! A new machine fetches a recovery: who may say what, when, and how long a piece may be.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod sim;

use record::authority::Charter;
use record::id::{Hash, Origin};
use sim::{NOW, REALM, community_chain, division, public, town_chain};
use sync::message::Hello;
use sync::recovery::{PIECE_BYTES_MAX, Recovery, RecoveryAsk, RecoveryPiece};
use sync::{Accept, Config, Message, Output, Refusal, RefusalCode, Secret, Session, Side, Trust};

struct Nothing;

impl Trust for Nothing {
    fn realm_root(&self) -> [u8; 32] {
        public("district", "sign")
    }

    fn is_revoked(&self, _: &Hash) -> bool {
        false
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

fn config(chain: Vec<Charter>, peer: &str) -> Config {
    Config {
        realm: record::id::Realm::new(REALM).unwrap(),
        chain,
        peer_key: public(peer, "transport"),
    }
}

fn ask(offset: u64) -> RecoveryAsk {
    RecoveryAsk {
        division: division("community"),
        secret: Secret::new([5; 32]),
        file: (offset > 0).then_some([7; 32]),
        offset,
    }
}

fn piece(offset: u64, length: usize) -> RecoveryPiece {
    RecoveryPiece {
        file: [7; 32],
        total: 300_000,
        offset,
        bytes: vec![1; length],
    }
}

fn sent(outputs: &[Output]) -> &[u8] {
    match outputs {
        [Output::Send(bytes), ..] => &bytes.0,
        other => panic!("{other:?}"),
    }
}

fn both() -> (Session, Session) {
    let dialer = Session::recover(config(vec![], "town"), ask(0));
    let listener = Session::listen(config(town_chain(), "new-machine"));
    (dialer, listener)
}

#[test]
fn pieces_are_asked_for_one_after_another_without_a_charter() {
    let (mut dialer, mut listener) = both();
    let mut question = dialer.start(NOW);
    assert!(!format!("{question:?}").contains("5, 5"));
    for at in 0..3u64 {
        let asked = listener.receive(sent(&question), NOW, &Nothing);
        let [Output::RecoveryAsked(asked)] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(asked.offset, at * 100);
        assert_eq!(format!("{:?}", asked.secret), "Secret(..)");
        assert!(listener.is_giving());
        let given = listener.recovery_piece(piece(at * 100, 100));
        let outputs = dialer.receive(sent(&given), NOW, &Nothing);
        let [Output::RecoveryPiece(got)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(**got, piece(at * 100, 100));
        assert!(!format!("{got:?}").contains("bytes"));
        question = dialer.ask_recovery(ask((at + 1) * 100));
    }
}

#[test]
fn a_refusal_ends_both_sides_and_nothing_is_given_after_it() {
    let (mut dialer, mut listener) = both();
    listener.receive(sent(&dialer.start(NOW)), NOW, &Nothing);
    let refused = listener.enrol_refused(RefusalCode::Enrolment, "the leave was used");
    assert!(!listener.is_giving());
    let outputs = dialer.receive(sent(&refused), NOW, &Nothing);
    assert!(matches!(
        &outputs[..],
        [Output::Refused { code: RefusalCode::Enrolment, reason, by: Side::Peer }, Output::Close { .. }]
            if reason.contains("the leave was used")
    ));
    assert!(listener.recovery_piece(piece(0, 1)).is_empty());
    assert!(dialer.ask_recovery(ask(1)).is_empty());
}

#[test]
fn nothing_else_is_let_in_once_a_recovery_was_asked_for_and_it_is_not_asked_in_between() {
    let hello = Message::Hello(Hello {
        realm: record::id::Realm::new(REALM).unwrap(),
        chain: community_chain(),
        now: NOW,
        successions: sync::message::Successions::default(),
    });
    let again = Message::Recovery(Recovery::Ask(ask(0)));
    let given = Message::Recovery(Recovery::Piece(piece(0, 1)));
    // While a piece is being read, a second question is out of turn, too.
    for message in [&hello, &again, &given] {
        let (mut dialer, mut listener) = both();
        listener.receive(sent(&dialer.start(NOW)), NOW, &Nothing);
        let outputs = listener.receive(&message.encode(), NOW, &Nothing);
        assert!(
            matches!(
                &outputs[..],
                [
                    Output::Send(_),
                    Output::Refused {
                        code: RefusalCode::Malformed,
                        ..
                    },
                    ..
                ]
            ),
            "{}: {outputs:?}",
            message.name()
        );
    }
    // Nor may a node with a charter ask in the middle of a session, or a piece come unasked.
    for message in [&again, &given] {
        let mut listener = Session::listen(config(town_chain(), "community"));
        listener.receive(&hello.encode(), NOW, &Nothing);
        assert!(listener.is_open());
        let outputs = listener.receive(&message.encode(), NOW, &Nothing);
        assert!(
            matches!(
                outputs[1],
                Output::Refused {
                    code: RefusalCode::Malformed,
                    ..
                }
            ),
            "{outputs:?}"
        );
    }
    let mut listener = Session::listen(config(town_chain(), "new-machine"));
    let outputs = listener.receive(&given.encode(), NOW, &Nothing);
    assert!(matches!(outputs[1], Output::Refused { .. }), "{outputs:?}");
}

#[test]
fn the_longest_piece_fits_what_is_heard_before_a_welcome_and_a_longer_one_is_refused() {
    let (mut dialer, mut listener) = both();
    listener.receive(sent(&dialer.start(NOW)), NOW, &Nothing);
    let given = listener.recovery_piece(piece(0, PIECE_BYTES_MAX));
    let outputs = dialer.receive(sent(&given), NOW, &Nothing);
    assert!(matches!(&outputs[..], [Output::RecoveryPiece(_)]));
    let longer = Message::Recovery(Recovery::Piece(piece(0, PIECE_BYTES_MAX + 1)));
    let outputs = dialer.receive(&longer.encode(), NOW, &Nothing);
    assert!(
        matches!(
            outputs[1],
            Output::Refused {
                code: RefusalCode::Malformed,
                ..
            }
        ),
        "{outputs:?}"
    );
}
