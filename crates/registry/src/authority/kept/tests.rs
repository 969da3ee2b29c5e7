//! What was kept is believed when it is the ledgers', and made anew when it is stale or damaged.

use std::path::PathBuf;

use record::authority::{Level, OperatorCertificate, Role, Statement};
use record::id::{DivisionId, OperatorId, Realm, UnixMillis};

use super::*;
use crate::config::{Files, KeyCustody};
use crate::keys::Opener;
use crate::node::{NewNode, init, purpose};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(dir: &Path) -> Registry {
    Registry::open(dir, &Opener::File, NOW).unwrap()
}

/// A node with an operator, whose authority was kept at rest.
fn node() -> (tempfile::TempDir, PathBuf) {
    let base = tempfile::tempdir().unwrap();
    // What was signed last lies beside the node's directory.
    let dir = base.path().join("node");
    let new = NewNode {
        realm: Realm::new("test.example").unwrap(),
        division: DivisionId::new("town").unwrap(),
        name: "示例镇".into(),
        level: Level::Town,
        codes: Vec::new(),
        http: "127.0.0.1:0".into(),
        listen: "127.0.0.1:0".into(),
        custody: KeyCustody::File,
        quorum: 0,
    };
    init(&dir, new, &Opener::File, NOW).unwrap();
    let node = open(&dir);
    enrol(&node, 1);
    node.persist_indexes().unwrap();
    (base, dir)
}

fn enrol(node: &Registry, number: u8) {
    let certificate = OperatorCertificate {
        operator: OperatorId([number; 16]),
        key: [number; 32],
        organization: node.config.division.clone(),
        role: Role::Clerk,
        not_after: NOW,
    };
    let signer = node.service(purpose("administration"));
    node.state(vec![Statement::Operator(certificate)], &signer, NOW)
        .unwrap();
}

fn size(dir: &Path) -> u64 {
    open(dir).authority_head().unwrap().0
}

/// What an opened node knows, and what its ledgers say, in words.
fn check(dir: &Path, unkept: u64) {
    let node = open(dir);
    let known = node.authority();
    assert_eq!(known.unkept, unkept, "entries read at the start");
    let read = Authority::load(node.store.as_ref(), &node.config).unwrap();
    assert_eq!(words(&known), words(&read));
}

fn words(authority: &Authority) -> String {
    let bytes = cbor::to_vec(authority);
    data_encoding::HEXLOWER.encode(&bytes)
}

#[test]
fn a_start_reads_only_what_the_ledgers_say_since() {
    let (_base, dir) = node();
    check(&dir, 0);
    enrol(&open(&dir), 2);
    // The certificate and its act.
    check(&dir, 2);
}

#[test]
fn a_file_with_one_byte_changed_or_cut_is_not_believed() {
    let (_base, dir) = node();
    let path = Files::new(&dir).authority();
    let whole = std::fs::read(&path).unwrap();
    let size = size(&dir);
    for at in [0, 1, 40, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        check(&dir, size);
        std::fs::write(&path, &whole[..at]).unwrap();
        check(&dir, size);
    }
}

#[test]
fn a_file_of_another_node_or_of_another_history_is_not_believed() {
    let ((_base, dir), (_other_base, other)) = (node(), node());
    let path = Files::new(&dir).authority();
    let size = size(&dir);
    std::fs::copy(Files::new(&other).authority(), &path).unwrap();
    check(&dir, size);

    // The same key, the same sizes, but of a history that the ledger does not have.
    let node = open(&dir);
    let mut known = Authority::load(node.store.as_ref(), &node.config).unwrap();
    for stand in known.stands.values_mut() {
        stand.root[0] ^= 1;
    }
    let key = node.keys.index_key();
    let place = Place {
        path: &path,
        key: &key,
        config: &node.config,
    };
    place.write(&cbor::to_vec(&known)).unwrap();
    drop(node);
    check(&dir, size);
}

#[test]
fn a_file_that_is_ahead_of_the_ledger_is_not_believed() {
    let (_base, dir) = node();
    let node = open(&dir);
    let mut known = Authority::load(node.store.as_ref(), &node.config).unwrap();
    for stand in known.stands.values_mut() {
        stand.size += 1;
    }
    let ledgers = authority_ledgers(node.store.as_ref()).unwrap();
    assert!(!known.belongs_to(node.store.as_ref(), &ledgers).unwrap());
    let gone = BTreeMap::new();
    assert!(!known.belongs_to(node.store.as_ref(), &gone).unwrap());
}

#[test]
fn deliveries_taken_in_out_of_order_leave_no_gap_behind() {
    let origin = Origin::parse("test.example/town/authority").unwrap();
    let mut known = Authority::default();
    known.follow(&origin, 4, (8, [8; 32]), &[]);
    assert!(known.stands.is_empty());
    known.follow(&origin, 0, (4, [4; 32]), &[]);
    assert_eq!(known.stands[&origin].size, 4);
}
