//! Two nodes in memory, with real ledgers, and a channel between them that can be cut.
//!
//! Owns the small shell that sessions need: a store, keys, and answers in a random order that a
//! seed fixes. Refuses nothing that a session let through, so that a test sees it stored.

#![allow(
    dead_code,
    reason = "each test file uses its own part of the simulator"
)]

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::SigningKey;
use ledger::checkpoint::Checkpoint;
use ledger::frontier::Frontier;
use ledger::hash::{leaf_hash, root_of};
use ledger::note::{KeyKind, NoteSigner, Verifier};
use ledger::proof;
use ledger::tile::{TreeEdge, plan_append};
use record::act::{Act, Capacity};
use record::authority::{AuthorityEntry, Charter, Level, NodeKeys, Statement};
use record::entry::{AccessEntry, Entry, Operation, RecordEntry, SUITE};
use record::id::{DivisionId, Hash, OperatorId, Origin, Purpose, Realm, RecordId, UnixMillis};
use sha2::{Digest, Sha256};
use sync::{
    Accept, Config, Delivery, Gone, Held, Item, LedgerStatus, Load, Loaded, Message, Output,
    Refusal, RefusalCode, RejectCode, Session, Side, Tail, Trust, fill, held_name, witness_name,
};

pub const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
pub const REALM: &str = "jiangjin.example";

/// splitmix64: small, and the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub fn realm() -> Realm {
    Realm::new(REALM).unwrap()
}

pub fn division(name: &str) -> DivisionId {
    DivisionId::new(name).unwrap()
}

pub fn origin(division: &str, ledger: &str) -> Origin {
    Origin::parse(&format!("{REALM}/{division}/{ledger}")).unwrap()
}

/// The secret keys of a node, all from its name and a use.
pub fn key(name: &str, which: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(format!("{name} {which}")).into())
}

pub fn public(name: &str, which: &str) -> [u8; 32] {
    key(name, which).verifying_key().to_bytes()
}

pub fn keys(name: &str) -> NodeKeys {
    NodeKeys {
        sign: public(name, "sign"),
        witness: public(name, "witness"),
        held: public(name, "held"),
        transport: public(name, "transport"),
        seal: vec![4; 1216],
    }
}

/// A charter of `name` under `parent`, signed by it, then changed by `change` before signing.
pub fn charter_with(name: &str, parent: &str, change: impl FnOnce(&mut Charter)) -> Charter {
    let mut charter = Charter {
        suite: SUITE,
        realm: realm(),
        division: division(name),
        name: "示例".into(),
        level: Level::Town,
        parent: division(parent),
        codes: vec![],
        keys: keys(name),
        serial: 1,
        not_before: UnixMillis(NOW.0 - 1_000_000),
        not_after: UnixMillis(NOW.0 + 1_000_000_000),
        signature: [0; 64],
    };
    change(&mut charter);
    charter.sign(&key(parent, "sign"))
}

pub fn charter(name: &str, parent: &str) -> Charter {
    charter_with(name, parent, |_| {})
}

pub fn root_chain() -> Vec<Charter> {
    vec![charter("district", "district")]
}

pub fn town_chain() -> Vec<Charter> {
    vec![charter("town", "district"), charter("district", "district")]
}

pub fn community_chain() -> Vec<Charter> {
    let mut chain = vec![charter("community", "town")];
    chain.extend(town_chain());
    chain
}

/// One ledger as a node stores it.
#[derive(Clone, Default)]
pub struct Store {
    pub items: Vec<Item>,
    pub leaves: Vec<Hash>,
    pub tiles: BTreeMap<(u8, u64), Vec<u8>>,
    pub edge: TreeEdge,
    pub note: String,
    pub tail: Tail,
    /// Notes with a cosignature that verified, by size.
    pub cosigned: BTreeMap<u64, Vec<String>>,
}

impl Store {
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    pub fn root(&self) -> Hash {
        self.edge.frontier().root()
    }

    pub fn push(&mut self, item: Item) {
        let leaf = leaf_hash(&item.entry);
        let (edge, writes) = plan_append(&self.edge, &[leaf]);
        for write in writes {
            self.tiles.insert((write.level, write.index), write.bytes);
        }
        self.edge = edge;
        self.leaves.push(leaf);
        if let Ok(entry) = Entry::decode(&item.entry) {
            self.tail.follow(&entry, leaf);
        }
        self.items.push(item);
    }

    /// An act over everything since the last one; `change` alters it before it is signed.
    pub fn act(&mut self, origin: &Origin, change: impl FnOnce(&mut Act)) {
        let count = self.tail.len();
        let first = self.leaves.len() - count;
        let mut act = Act {
            suite: SUITE,
            capacity: Capacity::Operator,
            key: [0; 32],
            organization: division("community"),
            purpose: Purpose::new("registration").unwrap(),
            source: None,
            first: first as u64,
            count: count as u32,
            root: root_of(&self.leaves[first..]),
            previous: self.tail.previous_act().copied(),
            authority_size: 0,
            authority_root: [0; 32],
            signed_at: NOW,
            signature: [0; 64],
        };
        change(&mut act);
        let act = act.sign(origin, &key("clerk", "sign"));
        self.push(plain(&Entry::Act(act)));
    }

    pub fn sign(&mut self, origin: &Origin) {
        self.note = signed_head(origin, self.size(), self.root());
    }

    /// The same items, one of them changed, as a ledger of its own.
    pub fn rewritten(&self, at: usize, item: Item, origin: &Origin) -> Store {
        let mut other = Store::default();
        for (index, old) in self.items.iter().enumerate() {
            other.push(if index == at {
                item.clone()
            } else {
                old.clone()
            });
        }
        other.sign(origin);
        other
    }

    pub fn load(&self, load: &Load) -> Option<Loaded> {
        let range = load.from as usize..(load.head_size as usize).min(self.items.len());
        let items = fill(self.items.get(range)?.iter().cloned(), load.max_bytes);
        let end = load.from + items.len() as u64;
        Some(Loaded {
            origin: load.origin.clone(),
            from: load.from,
            head_size: load.head_size,
            items,
            proof: proof::consistency(&self.tiles, end, load.head_size).ok()?,
            extends: match load.known_size {
                Some(known) => proof::consistency(&self.tiles, known, load.head_size).ok()?,
                None => vec![],
            },
        })
    }

    /// Destroys the body at an index and keeps the proof that this was in order.
    pub fn destroy(&mut self, index: usize, by: usize) {
        let gone = Gone {
            index: by as u64,
            entry: self.items[by].entry.clone(),
            proof: proof::inclusion(&self.tiles, by as u64, self.size()).unwrap(),
        };
        self.items[index].body = None;
        self.items[index].gone = Some(gone);
    }
}

pub fn signed_head(origin: &Origin, size: u64, root: Hash) -> String {
    let log = NoteSigner::new(origin.as_str(), key(origin.division().as_str(), "sign")).unwrap();
    Checkpoint::new(origin.as_str(), size, root)
        .unwrap()
        .sign(&log)
        .unwrap()
}

pub fn plain(entry: &Entry) -> Item {
    Item {
        entry: entry.encode(),
        body: None,
        gone: None,
    }
}

pub fn record_entry(number: u64, operation: Operation, body: &[u8]) -> Entry {
    let mut record = [0; 16];
    record[8..].copy_from_slice(&number.to_be_bytes());
    Entry::Record(RecordEntry {
        suite: SUITE,
        record: RecordId(record),
        version: 1,
        operation,
        previous: None,
        schema: 1,
        epoch: 1,
        content: [2; 32],
        body: Sha256::digest(body).into(),
        recorded_at: NOW,
    })
}

/// An entry with a body of `size` bytes.
pub fn record_item(number: u64, operation: Operation, size: usize) -> Item {
    let body = vec![number as u8; size];
    Item {
        entry: record_entry(number, operation, &body).encode(),
        body: Some(body),
        gone: None,
    }
}

pub fn access_item(number: u8) -> Item {
    let body = vec![number; 40];
    let entry = Entry::Access(AccessEntry {
        suite: SUITE,
        epoch: 1,
        content: [number; 32],
        body: Sha256::digest(&body).into(),
        recorded_at: NOW,
    });
    Item {
        entry: entry.encode(),
        body: Some(body),
        gone: None,
    }
}

pub fn authority_item(number: u8) -> Item {
    plain(&Entry::Authority(AuthorityEntry {
        suite: SUITE,
        statement: Statement::OperatorDisabled(OperatorId([number; 16])),
        recorded_at: NOW,
    }))
}

/// What a node was told that was not a matter of course.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Opened,
    Cosigned(Origin, u64),
    Fork(Origin),
    Seen(Origin),
    Alarm(Origin, RejectCode),
    Rejected(Origin, RejectCode),
    Refused(RefusalCode, Side),
    ClockSkew(i64),
    Closed,
}

/// A node: its keys, its store, and the session it has.
pub struct Node {
    pub name: String,
    pub now: UnixMillis,
    pub chain: Vec<Charter>,
    pub revoked: Vec<Hash>,
    pub ledgers: BTreeMap<Origin, Store>,
    pub refuses: Vec<Origin>,
    pub session: Option<Session>,
    /// What the shell has to do, in any order between ledgers.
    pub work: VecDeque<Output>,
    pub events: Vec<Event>,
    pub evidence: Vec<ledger::evidence::Evidence>,
    pub rejected_notes: Vec<Option<String>>,
    /// What cosignature lines are sent; the right ones unless a test sets others.
    pub lines: Option<Vec<String>>,
    pub largest_message: usize,
    pub loads_that_fail: usize,
    pub stores_that_fail: usize,
    pub cosigns: bool,
}

struct View<'a>(&'a Node);

impl Trust for View<'_> {
    fn realm_root(&self) -> [u8; 32] {
        public("district", "sign")
    }

    fn is_revoked(&self, charter: &Hash) -> bool {
        self.0.revoked.contains(charter)
    }

    fn log(&self, origin: &Origin, _: &str) -> Option<Verifier> {
        let log = NoteSigner::new(origin.as_str(), key(origin.division().as_str(), "sign"));
        Some(log.unwrap().verifier(KeyKind::Note))
    }

    fn accept(&self, _: &Charter, origin: &Origin, _: &str) -> Result<Accept, Refusal> {
        if self.0.refuses.contains(origin) {
            return Err(Refusal {
                reason: "this node does not keep that ledger".into(),
                passing: false,
            });
        }
        let log = NoteSigner::new(origin.as_str(), key(origin.division().as_str(), "sign"));
        let held = self.0.ledgers.get(origin).map(|store| Held {
            frontier: Frontier::parse(&store.edge.frontier().encode()).unwrap(),
            note: store.note.clone(),
            tail: store.tail.clone(),
        });
        Ok(Accept {
            verifier: log.unwrap().verifier(KeyKind::Note),
            held,
            cosign: self.0.cosigns,
        })
    }
}

impl Node {
    pub fn new(chain: Vec<Charter>) -> Self {
        Self {
            name: chain[0].division.to_string(),
            now: NOW,
            chain,
            revoked: vec![],
            ledgers: BTreeMap::new(),
            refuses: vec![],
            session: None,
            work: VecDeque::new(),
            events: vec![],
            evidence: vec![],
            rejected_notes: vec![],
            lines: None,
            largest_message: 0,
            loads_that_fail: 0,
            stores_that_fail: 0,
            cosigns: true,
        }
    }

    pub fn config(&self, peer: &str) -> Config {
        Config {
            realm: realm(),
            chain: self.chain.clone(),
            peer_key: public(peer, "transport"),
        }
    }

    /// Own ledgers: those of this division.
    fn own(&self) -> Vec<Origin> {
        let own = |origin: &&Origin| origin.division().as_str() == self.name;
        self.ledgers.keys().filter(own).cloned().collect()
    }

    /// Adds records with bodies, and their act, to an own shard.
    pub fn register(&mut self, origin: &Origin, count: u64, body_size: usize) {
        let store = self.ledgers.entry(origin.clone()).or_default();
        let first = store.size();
        for number in first..first + count {
            store.push(record_item(number, Operation::Register, body_size));
        }
        store.act(origin, |_| {});
        store.sign(origin);
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.largest_message = self.largest_message.max(bytes.len());
        let mut session = self.session.take().unwrap();
        let outputs = session.receive(bytes, self.now, &View(self));
        self.session = Some(session);
        self.work.extend(outputs);
    }

    /// Offers the present head of a ledger.
    pub fn offer(&mut self, origin: &Origin) {
        let note = self.ledgers[origin].note.clone();
        if let Some(session) = &mut self.session
            && session.is_open()
        {
            self.work
                .extend(session.offer(origin.clone(), note).unwrap());
        }
    }

    /// Does one piece of work; gives a message to send.
    pub fn step(&mut self) -> Option<Vec<u8>> {
        let output = self.work.pop_front()?;
        let mut session = self.session.take().unwrap();
        let mut sent = None;
        match output {
            Output::Send(bytes) => sent = Some(bytes.0),
            Output::Opened { .. } => {
                self.events.push(Event::Opened);
                for origin in self.own() {
                    let note = self.ledgers[&origin].note.clone();
                    self.work.extend(session.offer(origin, note).unwrap());
                }
            }
            Output::Load(load) if self.loads_that_fail > 0 => {
                self.loads_that_fail -= 1;
                self.work
                    .extend(session.cannot_load(&load.origin, "the disk is slow"));
            }
            Output::Store(delivery) if self.stores_that_fail > 0 => {
                self.stores_that_fail -= 1;
                let outputs =
                    session.not_stored(delivery.origin(), "the disk is full", &View(self));
                self.work.extend(outputs);
            }
            Output::Load(load) => {
                let loaded = self
                    .ledgers
                    .get(&load.origin)
                    .and_then(|store| store.load(&load));
                let outputs = match loaded {
                    Some(loaded) => session.loaded(loaded),
                    None => session.cannot_load(&load.origin, "the entries are not here"),
                };
                self.work.extend(outputs);
            }
            Output::Store(delivery) if self.size_of(delivery.origin()) != delivery.first() => {
                // What it follows was not stored.
                let origin = delivery.origin();
                let outputs = session.not_stored(origin, "it is not what follows", &View(self));
                self.work.extend(outputs);
            }
            Output::Store(delivery) => {
                let (origin, size) = self.commit(&delivery);
                let outputs = session.stored(&origin, size, &View(self));
                self.work.extend(outputs);
            }
            Output::Cosign { origin, verified } => {
                let size = verified.checkpoint().size();
                assert!(
                    self.size_of(&origin) >= size,
                    "asked to sign what is not durable"
                );
                let right = || {
                    let signer = |name: String, which| {
                        NoteSigner::new(&name, key(&self.name, which)).unwrap()
                    };
                    let witness = signer(witness_name(&self.chain[0]), "witness");
                    let held = signer(held_name(&self.chain[0]), "held");
                    let line = |signer| verified.cosign(signer, self.now.secs()).unwrap();
                    vec![line(&witness), line(&held)]
                };
                let lines = self.lines.clone().unwrap_or_else(right);
                self.work.extend(session.cosigned(&origin, size, lines));
            }
            Output::Cosigned {
                origin,
                size,
                lines,
            } => {
                self.events.push(Event::Cosigned(origin.clone(), size));
                self.ledgers
                    .get_mut(&origin)
                    .unwrap()
                    .cosigned
                    .insert(size, lines);
            }
            Output::Fork { origin, evidence } => {
                self.events.push(Event::Fork(origin));
                self.evidence.push(*evidence);
            }
            Output::Declined { .. } => {}
            Output::Seen { origin, .. } => self.events.push(Event::Seen(origin)),
            Output::Alarm { origin, code, .. } => self.events.push(Event::Alarm(origin, code)),
            Output::Rejected {
                origin, code, note, ..
            } => {
                self.rejected_notes.push(note);
                self.events.push(Event::Rejected(origin, code));
            }
            Output::Refused { code, by, .. } => self.events.push(Event::Refused(code, by)),
            Output::ClockSkew { millis } => self.events.push(Event::ClockSkew(millis)),
            Output::Close { .. } => self.events.push(Event::Closed),
            Output::EnrolRequested(_)
            | Output::Enrolled { .. }
            | Output::RenewRequested(_)
            | Output::RecoveryAsked(_)
            | Output::RecoveryPiece(_)
            | Output::Succeeded(_) => unreachable!("not simulated"),
        }
        self.session = Some(session);
        sent
    }

    fn size_of(&self, origin: &Origin) -> u64 {
        self.ledgers.get(origin).map_or(0, Store::size)
    }

    fn commit(&mut self, delivery: &Delivery) -> (Origin, u64) {
        let store = self.ledgers.entry(delivery.origin().clone()).or_default();
        assert_eq!(store.size(), delivery.first(), "compare and swap");
        for item in delivery.items() {
            store.push(item.clone());
        }
        store.note = delivery.held().note.clone();
        assert_eq!(store.edge.frontier(), &delivery.held().frontier);
        assert_eq!(store.tail, delivery.held().tail);
        (delivery.origin().clone(), store.size())
    }

    pub fn status(&self) -> Vec<LedgerStatus> {
        self.session
            .as_ref()
            .map(Session::status)
            .unwrap_or_default()
    }

    pub fn has(&self, event: &Event) -> bool {
        self.events.contains(event)
    }
}

/// A child below its parent, and the messages under way.
pub struct World {
    pub parent: Node,
    pub child: Node,
    pub up: VecDeque<Vec<u8>>,
    pub down: VecDeque<Vec<u8>>,
    pub rng: Rng,
    pub trace: Vec<String>,
    pub delivered: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            parent: Node::new(town_chain()),
            child: Node::new(community_chain()),
            up: VecDeque::new(),
            down: VecDeque::new(),
            rng: Rng(seed),
            trace: vec![],
            delivered: 0,
        }
    }

    /// A fresh connection; the child dials.
    pub fn connect(&mut self) {
        let (parent, child) = (&mut self.parent, &mut self.child);
        self.up.clear();
        self.down.clear();
        parent.work.clear();
        child.work.clear();
        parent.session = Some(Session::listen(parent.config(&child.name)));
        let mut dialer = Session::dial(child.config(&parent.name));
        child.work.extend(dialer.start(child.now));
        child.session = Some(dialer);
        self.delivered = 0;
    }

    /// One random thing that can happen; whether any could.
    pub fn step(&mut self) -> bool {
        let ready = [
            !self.up.is_empty(),
            !self.down.is_empty(),
            !self.parent.work.is_empty(),
            !self.child.work.is_empty(),
        ];
        let ready: Vec<usize> = (0..4).filter(|at| ready[*at]).collect();
        if ready.is_empty() {
            return false;
        }
        match ready[self.rng.below(ready.len() as u64) as usize] {
            0 => {
                let bytes = self.up.pop_front().unwrap();
                self.note("up", &bytes);
                self.parent.receive(&bytes);
            }
            1 => {
                let bytes = self.down.pop_front().unwrap();
                self.note("down", &bytes);
                self.child.receive(&bytes);
            }
            2 => self.down.extend(self.parent.step()),
            _ => self.up.extend(self.child.step()),
        }
        true
    }

    fn note(&mut self, way: &str, bytes: &[u8]) {
        self.delivered += 1;
        let name = Message::decode(bytes).map_or("?", |message| message.name());
        self.trace.push(format!("{way} {name} {}", bytes.len()));
    }

    /// Runs until nothing can happen.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Connects and runs until nothing can happen; whether every ledger arrived whole.
    pub fn session(&mut self) -> bool {
        self.connect();
        self.run();
        self.converged()
    }

    /// Runs until so many messages arrived, then cuts.
    pub fn session_cut_after(&mut self, messages: usize) {
        self.connect();
        while self.delivered < messages && self.step() {}
    }

    pub fn converged(&self) -> bool {
        let same = |from: &Node, to: &Node| {
            from.own().iter().all(|origin| {
                let (ours, theirs) = (&from.ledgers[origin], to.ledgers.get(origin));
                theirs.is_some_and(|theirs| ours.items == theirs.items && ours.note == theirs.note)
            })
        };
        same(&self.child, &self.parent) && same(&self.parent, &self.child)
    }

    /// The size of a ledger at the parent.
    pub fn held(&self, origin: &Origin) -> u64 {
        self.parent.ledgers.get(origin).map_or(0, Store::size)
    }
}
