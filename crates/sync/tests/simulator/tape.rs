//! The histories that the simulated owners sign, made once and shared by all seeds.
//!
//! Owns every entry, body, signed head and proof of at most 64 entries a ledger, so that a run
//! costs what `sync` costs and not what signing costs. An equivocating owner has a second branch.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::hash::Hash;
use ledger::note::{KeyKind, NoteSigner, Verifier};
use ledger::proof;
use ledger::verify;
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, SUITE};
use record::id::{GrantId, Origin, RecordId, UnixMillis};
use sha2::{Digest, Sha256};
use sync::{Gone, Item, Tail, held_name, witness_name};

use crate::sim::{self, NOW, Store, charter, key, origin, record_item, signed_head};

/// The most entries of a ledger: which bodies are missing is then one word of bits.
const ENTRIES: usize = 60;
/// Where the two histories of an equivocating owner part.
pub const FORK: usize = 17;
/// Clocks: right, slow and fast by more than what raises the alarm, in milliseconds.
pub const CLOCKS: [i64; 3] = [0, -20 * 60 * 1000, 20 * 60 * 1000];

/// One history of a ledger, with everything that a node may be asked about it.
pub struct Branch {
    pub items: Vec<Item>,
    pub frontiers: Vec<Frontier>,
    pub tails: Vec<Tail>,
    /// The signed head of each size at which the owner signs one.
    pub notes: Vec<Option<String>>,
    /// `proofs[old][new]`.
    proofs: Vec<Vec<Vec<Hash>>>,
    /// By index of the entry: the later entry that orders its body destroyed.
    pub ends: Vec<Option<usize>>,
    /// Of such an order, by index and head.
    inclusions: BTreeMap<(usize, usize), Vec<Hash>>,
    /// Both cosignature lines of a parent, by its name, the size and its clock.
    lines: BTreeMap<(&'static str, usize, usize), Vec<String>>,
}

/// A ledger: its owner, and the one history that it has, or the two.
pub struct Ledger {
    pub origin: Origin,
    pub owner: &'static str,
    pub verifier: Verifier,
    pub branches: Vec<Branch>,
    /// For `authority` and a grant: who may have it beside the line upward.
    pub holder: Option<&'static str>,
}

impl Branch {
    fn new(store: &Store, origin: &Origin, ends: Vec<Option<usize>>, by: &[&'static str]) -> Self {
        let size = store.items.len();
        let (mut frontiers, mut tails) = (vec![Frontier::new()], vec![Tail::new()]);
        for (item, leaf) in store.items.iter().zip(&store.leaves) {
            let mut frontier = frontiers.last().unwrap().clone();
            frontier.append(*leaf);
            frontiers.push(frontier);
            let mut tail = tails.last().unwrap().clone();
            tail.follow(&Entry::decode(&item.entry).unwrap(), *leaf);
            tails.push(tail);
        }
        let consistency = |old: usize, new: usize| {
            proof::consistency(&store.tiles, old as u64, new as u64).unwrap()
        };
        let proofs = (0..=size)
            .map(|old| {
                (0..=size)
                    .map(|new| {
                        if old <= new {
                            consistency(old, new)
                        } else {
                            vec![]
                        }
                    })
                    .collect()
            })
            .collect();
        // A shard is signed where its acts end; other ledgers anywhere.
        let notes: Vec<Option<String>> = (0..=size)
            .map(|size| {
                let whole = size > 0 && (!origin.is_shard() || tails[size].is_empty());
                whole.then(|| signed_head(origin, size as u64, frontiers[size].root()))
            })
            .collect();
        let mut inclusions = BTreeMap::new();
        for order in ends.iter().flatten() {
            for head in order + 1..=size {
                let proof = proof::inclusion(&store.tiles, *order as u64, head as u64).unwrap();
                inclusions.insert((*order, head), proof);
            }
        }
        let mut lines = BTreeMap::new();
        let log = NoteSigner::new(origin.as_str(), key(origin.division().as_str(), "sign"));
        let verifier = log.unwrap().verifier(KeyKind::Note);
        for name in by {
            for (size, note) in notes.iter().enumerate() {
                let Some(note) = note else { continue };
                let head = verify::extension(
                    &frontiers[size],
                    &[],
                    note.as_bytes(),
                    &verifier,
                    origin.as_str(),
                )
                .unwrap();
                for clock in 0..CLOCKS.len() {
                    let of = charter(name, "district");
                    let both = [(witness_name(&of), "witness"), (held_name(&of), "held")];
                    let sign = both.map(|(signer, which)| {
                        let signer = NoteSigner::new(&signer, key(name, which)).unwrap();
                        head.cosign(&signer, at(clock).secs()).unwrap()
                    });
                    lines.insert((*name, size, clock), sign.to_vec());
                }
            }
        }
        Self {
            items: store.items.clone(),
            frontiers,
            tails,
            notes,
            proofs,
            ends,
            inclusions,
            lines,
        }
    }

    pub fn size(&self) -> usize {
        self.items.len()
    }

    pub fn proof(&self, old: usize, new: usize) -> Vec<Hash> {
        self.proofs[old][new].clone()
    }

    pub fn lines(&self, signer: &'static str, size: usize, clock: usize) -> Vec<String> {
        self.lines[&(signer, size, clock)].clone()
    }

    /// The next size after this one at which a head is signed.
    pub fn next_head(&self, size: usize) -> Option<usize> {
        (size + 1..=self.size()).find(|at| self.notes[*at].is_some())
    }

    /// The item as somebody without its body gives it, if the head proves that it was to go.
    pub fn gone(&self, index: usize, head: usize) -> Option<Item> {
        let order = self.ends[index].filter(|order| *order < head)?;
        Some(Item {
            entry: self.items[index].entry.clone(),
            body: None,
            gone: Some(Gone {
                index: order as u64,
                entry: self.items[order].entry.clone(),
                proof: self.inclusions[&(order, head)].clone(),
            }),
        })
    }

    /// Whether an item is what the owner signed at this index, with its body or its excuse.
    pub fn is(&self, index: usize, item: &Item) -> bool {
        let Some(truth) = self.items.get(index) else {
            return false;
        };
        let excused = item.body.is_none()
            && match (&item.gone, self.ends[index]) {
                (Some(gone), Some(order)) => gone.entry == self.items[order].entry,
                (None, _) => truth.body.is_none(),
                _ => false,
            };
        item.entry == truth.entry && (item.body == truth.body || excused)
    }
}

/// The time by a clock.
pub fn at(clock: usize) -> UnixMillis {
    UnixMillis(NOW.0.checked_add_signed(CLOCKS[clock]).unwrap())
}

/// A shard: registrations in acts of one to four, and erasures of some that came before. From
/// `fork` on it is another history.
fn person(name: &'static str, fork: usize) -> (Store, Vec<Option<usize>>) {
    let of = origin(name, "person");
    let (mut store, mut numbers): (Store, Vec<u64>) = Default::default();
    let mut ends: Vec<Option<usize>> = vec![];
    for act in 0.. {
        if store.items.len() + 6 > ENTRIES {
            break;
        }
        for extra in 0..1 + act % 4 {
            let at = store.items.len();
            let number = at as u64 + if at >= fork { 500 } else { 0 };
            store.push(record_item(number, Operation::Register, 20 + 7 * extra));
            numbers.push(number);
            ends.push(None);
        }
        // Now and then the latest record that is six entries old is ordered to be destroyed.
        let earlier = (0..store.items.len().saturating_sub(6))
            .rev()
            .find(|at| store.items[*at].body.is_some() && ends[*at].is_none());
        if let (4, Some(earlier)) = (act % 5, earlier) {
            ends[earlier] = Some(store.items.len());
            store.push(record_item(numbers[earlier], Operation::Erase, 9));
            numbers.push(numbers[earlier]);
            ends.push(None);
        }
        store.act(&of, |_| {});
        numbers.push(0);
        ends.push(None);
    }
    (store, ends)
}

fn grant_item(number: u8) -> Item {
    let body = vec![number; 30];
    let entry = Entry::Grant(GrantEntry {
        suite: SUITE,
        operation: GrantOperation::Enter,
        record: Some(RecordId([number; 16])),
        shard_size: 9,
        shard_root: [9; 32],
        parcel: Some(Sha256::digest(&body).into()),
        recorded_at: NOW,
    });
    Item {
        entry: entry.encode(),
        body: Some(body),
        gone: None,
    }
}

fn plainly(count: usize, of: &Origin, item: impl Fn(u8) -> Item) -> Store {
    let mut store = Store::default();
    for number in 0..count {
        store.push(item(number as u8));
        if number % 9 == 8 {
            store.act(of, |_| {});
        }
    }
    store
}

/// Every ledger of a topology. Each parent may cosign.
pub fn ledgers(nodes: &[(&'static str, &'static str)], shared: bool) -> Vec<Ledger> {
    let mut all = vec![];
    let by: Vec<&'static str> = nodes.iter().map(|(_, parent)| *parent).collect();
    for (name, parent) in nodes {
        let mut add = |origin: Origin, holder, branches: Vec<(Store, Vec<Option<usize>>)>| {
            let log = NoteSigner::new(origin.as_str(), key(name, "sign")).unwrap();
            let branches = branches
                .iter()
                .map(|(store, ends)| Branch::new(store, &origin, ends.clone(), &by))
                .collect();
            all.push(Ledger {
                verifier: log.verifier(KeyKind::Note),
                origin,
                owner: name,
                branches,
                holder,
            });
        };
        let none = |store: Store| {
            let ends = vec![None; store.items.len()];
            (store, ends)
        };
        let authority = origin(name, "authority");
        let store = plainly(12, &authority, sim::authority_item);
        add(authority, None, vec![none(store)]);
        if name == parent {
            continue;
        }
        add(
            origin(name, "person"),
            None,
            vec![person(name, usize::MAX), person(name, FORK)],
        );
        let access = origin(name, "access");
        let store = plainly(40, &access, sim::access_item);
        add(access, None, vec![none(store)]);
        if shared && *name == "town" {
            let grant = origin(name, "person").grant(&GrantId([7; 16]));
            let store = plainly(30, &grant, grant_item);
            add(grant, Some("department"), vec![none(store)]);
        }
    }
    all
}

/// Which nodes there are, each with its parent.
pub struct Topology {
    pub name: &'static str,
    pub nodes: Vec<(&'static str, &'static str)>,
    pub ledgers: Vec<Ledger>,
}

/// Child and parent; three in a line; owner, ancestor and holder of a grant.
pub fn topologies() -> &'static [Topology] {
    static ALL: OnceLock<Vec<Topology>> = OnceLock::new();
    ALL.get_or_init(|| {
        let make = |name, nodes: Vec<(&'static str, &'static str)>, shared| Topology {
            name,
            ledgers: ledgers(&nodes, shared),
            nodes,
        };
        let root = ("district", "district");
        vec![
            make("child and parent", vec![root, ("town", "district")], false),
            make(
                "three in a line",
                vec![root, ("town", "district"), ("community", "town")],
                false,
            ),
            make(
                "owner, ancestor and holder",
                vec![root, ("town", "district"), ("department", "district")],
                true,
            ),
        ]
    })
}

/// The size and root of a signed head.
pub fn head_of(note: &str) -> (usize, Hash) {
    let text = note.split("\n\u{2014}").next().unwrap();
    let checkpoint = Checkpoint::parse(text.as_bytes()).unwrap();
    (checkpoint.size() as usize, *checkpoint.root())
}
