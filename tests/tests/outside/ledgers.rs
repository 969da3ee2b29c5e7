//! Ledgers to verify: the realm's keys out of its charters, what a node serves, a log of our own.
//!
//! Owns where keys come from: never from the place whose bytes are verified.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ledger::checkpoint::{Checkpoint, add_signature_line, cosign};
use ledger::hash::{Hash, leaf_hash};
use ledger::note::{KeyKind, NoteSigner, Verifier};
use ledger::tile::{TilePath, TileTree, TreeEdge, encode_bundle, plan_append};
use record::authority::Charter;
use serde_json::Value;
use tests::site::read_json;
use tests::{Running, until};

/// A ledger that a node serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its origin.
    pub origin: String,
    /// Its size.
    pub size: u64,
    /// Its root.
    pub root: String,
    /// How many witnesses cosigned it.
    pub witnesses: u64,
}

/// The ledgers that a node holds, once all of them are published as far as they go.
pub fn served(node: &Running) -> Vec<Served> {
    let mut found = vec![];
    until("every ledger is published", || {
        found = node.http.status()["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .map(one)
            .collect();
        found.iter().all(|ledger| {
            let note = node
                .http
                .get(&format!("/ledger/{}/checkpoint", ledger.origin), None);
            note.status == 200 && note.text().split('\n').nth(1) == Some(&ledger.size.to_string())
        })
    });
    found
}

fn one(ledger: &Value) -> Served {
    let signers = ledger["signers"].as_array().unwrap();
    let root = HEXLOWER.decode(ledger["root"].as_str().unwrap().as_bytes());
    Served {
        origin: ledger["origin"].as_str().unwrap().to_owned(),
        size: ledger["size"].as_u64().unwrap(),
        root: data_encoding::BASE64.encode(&root.unwrap()),
        witnesses: signers
            .iter()
            .filter(|name| name.as_str().unwrap().ends_with("/witness"))
            .count() as u64,
    }
}

/// The verifier keys of a realm, out of the charters in its nodes' own directories: each log's
/// under its origin, each node's `witness` and `held`.
pub fn vkeys(realm: &Path, ledgers: &[Served]) -> Vec<String> {
    let mut keys = vec![];
    let mut signs = BTreeMap::new();
    for node in std::fs::read_dir(realm).unwrap() {
        let Some(config) = read_json(&node.unwrap().path().join("node.json")) else {
            continue;
        };
        let own = config["chain"][0].as_str().unwrap();
        let charter = Charter::decode(&HEXLOWER.decode(own.as_bytes()).unwrap()).unwrap();
        for (role, key) in [
            ("witness", &charter.keys.witness),
            ("held", &charter.keys.held),
        ] {
            let name = format!("{}/{}/{role}", charter.realm, charter.division);
            keys.push(vkey(&name, KeyKind::Cosignature, key));
        }
        signs.insert(charter.division.to_string(), charter.keys.sign);
    }
    for ledger in ledgers {
        let division = ledger.origin.split('/').nth(1).unwrap();
        keys.push(vkey(&ledger.origin, KeyKind::Note, &signs[division]));
    }
    keys
}

fn vkey(name: &str, kind: KeyKind, key: &[u8; 32]) -> String {
    Verifier::new(name, kind, key).unwrap().vkey()
}

/// Writes a file, and the folders above it; gives its path.
pub fn write(path: PathBuf, bytes: impl AsRef<[u8]>) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A log of our own, whose keys the test has.
pub struct Log {
    /// Its origin.
    pub origin: String,
    /// Its own signer.
    pub signer: NoteSigner,
    edge: TreeEdge,
    tiles: BTreeMap<TilePathKey, Vec<u8>>,
}

type TilePathKey = (u8, u64);

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

impl Log {
    /// A log without entries.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.into(),
            signer: NoteSigner::from_seed(origin, &[1; 32]).unwrap(),
            edge: TreeEdge::new(),
            tiles: BTreeMap::new(),
        }
    }

    /// Appends entries up to a size; the signed checkpoint there.
    pub fn grow(&mut self, size: u64) -> String {
        let leaves: Vec<Hash> = (self.edge.size()..size)
            .map(|index| leaf_hash(&entry(index)))
            .collect();
        let (edge, writes) = plan_append(&self.edge, &leaves);
        self.edge = edge;
        for tile in writes {
            self.tiles.insert((tile.level, tile.index), tile.bytes);
        }
        self.sign(size, self.edge.frontier().root())
    }

    /// A checkpoint that the log signs, whether or not it is so.
    pub fn sign(&self, size: u64, root: Hash) -> String {
        let checkpoint = Checkpoint::new(&self.origin, size, root).unwrap();
        checkpoint.sign(&self.signer).unwrap()
    }

    /// Writes tiles and entries below a folder, as any web server would serve them.
    pub fn export(&self, base: &Path) {
        let folder = base.join(&self.origin);
        for ((level, index), bytes) in &self.tiles {
            let tree = TileTree::Hashes { level: *level };
            let path = TilePath::new(tree, *index, (bytes.len() / 32) as u16).unwrap();
            write(folder.join(path.to_string()), bytes);
        }
        for index in 0..self.edge.size().div_ceil(256) {
            let end = self.edge.size().min((index + 1) * 256);
            let entries: Vec<Vec<u8>> = (index * 256..end).map(entry).collect();
            let path = TilePath::new(TileTree::Entries, index, entries.len() as u16).unwrap();
            write(
                folder.join(path.to_string()),
                encode_bundle(&entries).unwrap(),
            );
        }
    }
}

/// A checkpoint with one more cosignature.
pub fn cosigned(note: &str, by: &NoteSigner) -> String {
    let line = cosign(note.as_bytes(), by, 1_795_000_000).unwrap();
    add_signature_line(note.as_bytes(), line.as_bytes()).unwrap()
}
