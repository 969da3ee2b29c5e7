//! Keys that follow one another: which the root has, and which charters an issuer's earlier key signed.

use ed25519_dalek::SigningKey;
use record::authority::{Charter, Level, NodeKeys, Statement, Succession};
use record::id::{DivisionId, Realm, UnixMillis};

use super::Authority;

pub(super) fn division(name: &str) -> DivisionId {
    DivisionId::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn charter(name: &str, parent: &str, seed: u8, serial: u32) -> Charter {
    Charter {
        suite: 1,
        realm: Realm::new("jiangjin.example").unwrap(),
        division: division(name),
        name: "示例".into(),
        level: Level::Town,
        parent: division(parent),
        codes: vec![],
        keys: NodeKeys {
            sign: key(seed).verifying_key().to_bytes(),
            witness: [1; 32],
            held: [2; 32],
            transport: [seed; 32],
            seal: vec![4; 1216],
        },
        serial,
        not_before: UnixMillis(0),
        not_after: UnixMillis(9_999),
        signature: [0; 64],
    }
}

fn root(seed: u8, serial: u32) -> Charter {
    charter("district", "district", seed, serial).sign(&key(seed))
}

fn succession(from: (u8, u32), to: (u8, u32)) -> Succession {
    Succession::sign(root(from.0, from.1), root(to.0, to.1), &key(from.0))
}

fn knowing(known: Charter) -> Authority {
    let mut authority = Authority::default();
    authority.trust(known);
    authority
}

fn present(authority: &Authority) -> [u8; 32] {
    authority.charter(&division("district")).unwrap().keys.sign
}

#[test]
fn a_key_that_the_root_has_left_names_no_successor() {
    let mut authority = knowing(root(1, 1));
    authority.succeed(&succession((1, 1), (2, 2)));
    let second = present(&authority);
    assert_eq!(second, root(2, 2).keys.sign);
    // Whoever has the first key later names another, under a serial of any height.
    authority.succeed(&succession((1, 1), (9, 2)));
    authority.succeed(&succession((1, 1), (9, 7)));
    assert_eq!(present(&authority), second);
    assert_eq!(authority.successions().len(), 1);
    assert!(authority.revoked(&root(1, 1).id()));
}

#[test]
fn keys_before_the_one_that_is_known_are_learned_in_whatever_order_they_are_read() {
    let steps = [succession((1, 1), (2, 2)), succession((2, 2), (3, 3))];
    for order in [[0, 1], [1, 0]] {
        let mut authority = knowing(root(3, 3));
        for at in order {
            let statement = Statement::Succession(Box::new(steps[at].clone()));
            authority.learn(&division("district"), &statement, 1);
        }
        let ever = authority.charters_ever(&division("district"));
        let serials: Vec<u32> = ever.iter().map(|charter| charter.serial).collect();
        assert_eq!(serials, [1, 2, 3]);
        assert_eq!(present(&authority), root(3, 3).keys.sign);
        assert_eq!(authority.successions(), steps);
    }
}

#[test]
fn a_succession_in_another_ledger_or_without_its_signatures_is_nobodys_word() {
    let mut authority = knowing(root(1, 1));
    let named = succession((1, 1), (2, 2));
    authority.learn(
        &division("town"),
        &Statement::Succession(Box::new(named.clone())),
        1,
    );
    let mut unsigned = named;
    unsigned.signature = [0; 64];
    authority.learn(
        &division("district"),
        &Statement::Succession(Box::new(unsigned)),
        1,
    );
    assert_eq!(present(&authority), root(1, 1).keys.sign);
}

#[test]
fn a_charter_under_an_issuers_earlier_key_counts_whichever_is_read_first() {
    let issuer = [
        charter("town", "district", 5, 1),
        charter("town", "district", 6, 2),
    ]
    .map(|charter| charter.sign(&key(1)));
    let below = charter("community", "town", 7, 1).sign(&key(5));
    let anew = charter("community", "town", 7, 2).sign(&key(6));
    for earlier_first in [true, false] {
        let mut authority = knowing(root(1, 1));
        authority.trust(issuer[1].clone());
        let mut statements = vec![("town", below.clone()), ("town", anew.clone())];
        let at = if earlier_first { 0 } else { 2 };
        statements.insert(at, ("district", issuer[0].clone()));
        for (ledger, charter) in statements {
            authority.learn(&division(ledger), &Statement::Charter(charter), 1);
        }
        let ever = authority.charters_ever(&division("community"));
        assert_eq!(ever, [below.clone(), anew.clone()]);
        assert_eq!(authority.charter(&division("community")), Some(&anew));
        // Elsewhere than in its issuer's ledger an earlier key makes nobody a charter.
        let forged = charter("community", "town", 8, 9).sign(&key(5));
        authority.learn(&division("community"), &Statement::Charter(forged), 1);
        assert_eq!(authority.charter(&division("community")), Some(&anew));
    }
}
