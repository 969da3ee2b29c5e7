//! What somebody who holds a node's directory can do to it: read its keys, write its history anew.
//!
//! Owns forgeries that are signed as well as a thief or a dishonest owner could sign them. It
//! refuses nothing: it is the adversary.

use std::path::Path;

use ed25519_dalek::SigningKey;
use ledger::checkpoint::Checkpoint;
use ledger::hash::{leaf_hash, root_of};
use ledger::note::NoteSigner;
use ledger::tile::{TreeEdge, plan_append};
use record::act::{Act, Capacity};
use record::cbor;
use record::entry::{Entry, SUITE};
use record::id::{Hash, Origin, UnixMillis};
use registry::table::{self, Head};
use seal::keystore::{Keystore, SoftwareKey};
use seal::secret::Kek;
use store::embedded::{Embedded, Options};
use store::{Batch, Key, Store};

use super::purpose;

/// The open keystore of a node whose keystore lies beside its key file.
pub fn keystore(dir: &Path) -> Keystore {
    let kek: [u8; 32] = std::fs::read(dir.join("kek")).unwrap().try_into().unwrap();
    let provider = SoftwareKey::from_kek(Kek::from_bytes(kek));
    let bytes = std::fs::read(dir.join("keystore")).unwrap();
    Keystore::open(&bytes, &provider).unwrap()
}

/// The store of a node that does not run.
pub fn open_store(dir: &Path) -> Embedded {
    Embedded::open(dir, Options::default()).unwrap()
}

/// The key of a row of a ledger's shard.
pub fn key(origin: &Origin, table: &str, index: u64) -> Key {
    Key::new(origin.as_str(), table, &index.to_be_bytes()).unwrap()
}

/// The head of a ledger, as the node keeps it.
pub fn head(store: &dyn Store, origin: &Origin) -> Head {
    let key = Key::new(origin.as_str(), table::HEAD, b"").unwrap();
    let bytes = store.get(&key).unwrap().unwrap();
    cbor::from_slice("head", &bytes, 1 << 20).unwrap()
}

/// An entry and its body, by index.
pub type Leaves = Vec<(Entry, Option<Vec<u8>>)>;

/// Every entry of a ledger with its body.
pub fn leaves(store: &dyn Store, origin: &Origin) -> Leaves {
    let rows = store
        .scan(origin.as_str(), table::ENTRY, &[], usize::MAX)
        .unwrap();
    rows.iter()
        .zip(0..)
        .map(|((_, bytes), at)| {
            let body = store.get(&key(origin, table::BODY, at)).unwrap();
            (Entry::decode(bytes).unwrap(), body)
        })
        .collect()
}

/// Replaces one body without telling anybody.
pub fn replace_body(dir: &Path, origin: &Origin, index: u64, body: Vec<u8>) {
    let store = open_store(dir);
    let mut batch = Batch::new(origin.as_str(), None);
    batch.put_body(key(origin, table::BODY, index), body);
    store.commit(&batch).unwrap();
}

/// Puts a whole history of its own in the place of a ledger: every act and the checkpoint signed
/// anew with the owner's key, so that nothing but an older copy tells the two apart.
pub fn rewrite(dir: &Path, origin: &Origin, owner: &SigningKey, change: impl FnOnce(&mut Leaves)) {
    let store = open_store(dir);
    let mut leaves = leaves(&store, origin);
    change(&mut leaves);
    let mut batch = Batch::new(origin.as_str(), None);
    let (mut hashes, mut tail): (Vec<Hash>, Vec<Hash>) = Default::default();
    let mut previous = None;
    for ((entry, body), at) in leaves.into_iter().zip(0u64..) {
        let entry = match entry {
            Entry::Act(act) => Entry::Act(
                Act {
                    capacity: Capacity::Service,
                    first: at - tail.len() as u64,
                    count: tail.len() as u32,
                    root: root_of(&tail),
                    previous,
                    ..act
                }
                .sign(origin, owner),
            ),
            other => other,
        };
        let bytes = entry.encode();
        let leaf = leaf_hash(&bytes);
        hashes.push(leaf);
        if matches!(entry, Entry::Act(_)) {
            previous = Some(leaf);
            tail.clear();
        } else {
            tail.push(leaf);
        }
        batch.put(key(origin, table::ENTRY, at), bytes);
        if let Some(body) = body {
            batch.put_body(key(origin, table::BODY, at), body);
        }
    }
    assert!(tail.is_empty(), "a history ends with an act");
    let (edge, tiles) = plan_append(&TreeEdge::new(), &hashes);
    for tile in tiles {
        let mut rest = vec![tile.level];
        rest.extend(tile.index.to_be_bytes());
        batch.put(
            Key::new(origin.as_str(), table::TILE, &rest).unwrap(),
            tile.bytes,
        );
    }
    let (size, root) = (edge.frontier().size(), edge.frontier().root());
    let signer = NoteSigner::new(origin.as_str(), owner.clone()).unwrap();
    let note = Checkpoint::new(origin.as_str(), size, root)
        .unwrap()
        .sign(&signer)
        .unwrap();
    let head = Head {
        size,
        root,
        whole: Some(note),
        target: None,
        cosigned: None,
        act: previous,
        tail: 0,
    };
    batch.put(
        Key::new(origin.as_str(), table::HEAD, b"").unwrap(),
        cbor::to_vec(&head),
    );
    store.commit(&batch).unwrap();
    // The working index is made anew from the ledger.
    let _ = std::fs::remove_dir_all(dir.join("working-index"));
}

/// An act that [`rewrite`] completes: what it says of its entries is filled in there.
pub fn act(organization: &str, authority: (u64, Hash), now: UnixMillis) -> Entry {
    Entry::Act(Act {
        suite: SUITE,
        capacity: Capacity::Service,
        key: [0; 32],
        organization: super::division(organization),
        purpose: purpose("administration"),
        source: None,
        first: 0,
        count: 0,
        root: [0; 32],
        previous: None,
        authority_size: authority.0,
        authority_root: authority.1,
        signed_at: now,
        signature: [0; 64],
    })
}

/// Puts one more entry, with its body if that is not empty, and an act on it at the end of a ledger,
/// signed as the caller likes; the owner signs the checkpoint.
pub fn append(
    dir: &Path,
    origin: &Origin,
    owner: &SigningKey,
    (entry, body): (Entry, Vec<u8>),
    (act, signer): (Act, &SigningKey),
) {
    let store = open_store(dir);
    let mut batch = Batch::new(origin.as_str(), None);
    let leaves = leaves(&store, origin);
    let mut bytes: Vec<Vec<u8>> = leaves.iter().map(|(entry, _)| entry.encode()).collect();
    let acts = leaves.iter().rev();
    let mut acts = acts.filter(|(entry, _)| matches!(entry, Entry::Act(_)));
    let at = bytes.len() as u64;
    bytes.push(entry.encode());
    if !body.is_empty() {
        batch.put_body(key(origin, table::BODY, at), body);
    }
    let act = Act {
        first: at,
        count: 1,
        root: root_of(&[leaf_hash(&bytes[at as usize])]),
        previous: acts.next().map(|(entry, _)| leaf_hash(&entry.encode())),
        ..act
    };
    bytes.push(Entry::Act(act.sign(origin, signer)).encode());
    let hashes: Vec<Hash> = bytes.iter().map(|bytes| leaf_hash(bytes)).collect();
    for (at, bytes) in (at..).zip(&bytes[at as usize..]) {
        batch.put(key(origin, table::ENTRY, at), bytes.clone());
    }
    let (edge, tiles) = plan_append(&TreeEdge::new(), &hashes);
    for tile in tiles {
        let mut rest = vec![tile.level];
        rest.extend(tile.index.to_be_bytes());
        let key = Key::new(origin.as_str(), table::TILE, &rest).unwrap();
        batch.put(key, tile.bytes);
    }
    let (size, root) = (edge.frontier().size(), edge.frontier().root());
    let log = NoteSigner::new(origin.as_str(), owner.clone()).unwrap();
    let checkpoint = Checkpoint::new(origin.as_str(), size, root).unwrap();
    let head = Head {
        size,
        root,
        whole: Some(checkpoint.sign(&log).unwrap()),
        target: None,
        cosigned: None,
        act: hashes.last().copied(),
        tail: 0,
    };
    let at = Key::new(origin.as_str(), table::HEAD, b"").unwrap();
    batch.put(at, cbor::to_vec(&head));
    store.commit(&batch).unwrap();
}

/// An operator's signing key, as whoever knows the passphrase has it.
pub fn operator_key(dir: &Path, login: &str) -> SigningKey {
    let bytes = std::fs::read(dir.join(format!("operators/{login}.json"))).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let sealed = data_encoding::BASE64
        .decode(file["key"].as_str().unwrap().as_bytes())
        .unwrap();
    let seed = seal::operator::open_operator(&sealed, super::PASSPHRASE.as_bytes()).unwrap();
    SigningKey::from_bytes(&seed)
}
