//! A run: nodes, the connections between them, and everything that can happen to both.
//!
//! Owns the shell around each session, as `node::peer` is one around the real ones, except that
//! every answer may come late. Refuses, by panicking, whatever must never be: the checks stand
//! where things happen.
//!
//! A line carries whole messages in order, as the transport promises. A conversation in which
//! messages are dropped, doubled, reordered or altered beyond that promise is marked `bent`: in it
//! sessions may fail and false alarms may come, but nothing wrong may be kept.

use std::collections::{BTreeMap, VecDeque};

use record::authority::Charter;
use record::id::Origin;
use sync::limits::{
    CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, OPENING_BYTES_MAX, REASON_BYTES_MAX, STORING_MAX,
    TRANSFERS_MAX,
};
use sync::{Config, Delivery, Output, RefusalCode, RejectCode, Session, Side};

use crate::dice::{Dice, Trace};
use crate::garble::garble;
use crate::node::{Node, Replica, View, index_of, is_authority, within};
use crate::sim::{charter, public, realm};
use crate::tape::{CLOCKS, Topology, at, head_of, topologies};

/// Messages on their way to one side; `node::peer` ends a session at so many.
const WAITING_MAX: usize = 64;
/// Messages that an adversary remembers.
const ARCHIVE: usize = 48;
/// Outputs of one input, whatever the input was: an answer, an alarm, and the next of each transfer.
const OUTPUTS_MAX: usize = 4 + 2 * TRANSFERS_MAX + 8;

/// What goes wrong in a run, besides crashes and cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Lines drop, double, reorder, alter and truncate messages.
    Lines,
    /// A child sends forged and replayed messages.
    Forger(usize),
    /// A child signs two histories of a ledger.
    Equivocator(usize),
    /// Strangers with stolen charters dial.
    Impostors,
    /// A child's charter is revoked on the way.
    Revoked(usize),
    /// A child goes on from an old copy of what it wrote.
    Restored(usize),
}

struct End {
    session: Session,
    work: VecDeque<Output>,
    disk: Vec<Output>,
    /// The head last offered of each ledger; taken away when it is to be offered again.
    offered: BTreeMap<usize, usize>,
    /// Which of its two histories an equivocating owner shows here.
    face: usize,
}

struct Line {
    /// Child, who dials, and parent.
    nodes: [usize; 2],
    ends: [Option<End>; 2],
    /// Messages to each side.
    wires: [VecDeque<Vec<u8>>; 2],
    bent: bool,
    /// The dialer shows the child's charter but proved another key.
    stolen: bool,
    /// The other side of a lost end never hears of it.
    silent: bool,
    /// Messages take far longer on this line than on others.
    lags: bool,
}

pub struct World {
    pub topology: &'static Topology,
    pub nodes: Vec<Node>,
    pub trouble: Trouble,
    lines: Vec<Line>,
    /// By child and direction: nothing passes.
    blocked: Vec<[bool; 2]>,
    archive: Vec<Vec<u8>>,
    pub dice: Dice,
    pub trace: Trace,
    pub steps: u64,
    pub messages: u64,
    healing: bool,
    /// The shells finish all that one message leads to before they take another; else every
    /// answer may come late.
    drains: bool,
    slow_disk: u64,
    bad_disk: u64,
    fault: u64,
}

fn view<'a>(topology: &'static Topology, nodes: &'a [Node], own: usize) -> View<'a> {
    View {
        topology,
        nodes,
        own,
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let topology = &topologies()[dice.index(topologies().len())];
        let mut nodes: Vec<Node> = vec![];
        for (name, parent) in &topology.nodes {
            let above = nodes
                .iter()
                .position(|node| node.name == *parent && name != parent);
            let mut chain: Vec<Charter> = vec![charter(name, parent)];
            chain.extend(above.iter().flat_map(|above| nodes[*above].chain.clone()));
            nodes.push(Node {
                name,
                parent: above,
                chain,
                up: true,
                clock: 0,
                held: vec![Replica::default(); topology.ledgers.len()],
                promised: vec![0; topology.ledgers.len()],
                revoked: None,
            });
        }
        let child = 1 + dice.index(nodes.len() - 1);
        let trouble = match dice.below(11) {
            0..4 => Trouble::None,
            4..6 => Trouble::Lines,
            6 => Trouble::Forger(dice.index(nodes.len())),
            7 => Trouble::Equivocator(child),
            8 => Trouble::Impostors,
            9 => Trouble::Restored(child),
            _ => Trouble::Revoked(child),
        };
        let mut world = Self {
            blocked: vec![[false; 2]; nodes.len()],
            nodes,
            topology,
            trouble,
            lines: vec![],
            archive: vec![],
            drains: dice.below(3) == 0,
            slow_disk: [0, 300, 900][dice.index(3)],
            bad_disk: [0, 0, 60][dice.index(3)],
            fault: [4, 15, 60][dice.index(3)],
            dice,
            trace: Trace(seed),
            steps: 0,
            messages: 0,
            healing: false,
        };
        // Who chartered others has said so.
        for at in 0..topology.ledgers.len() {
            if is_authority(&topology.ledgers[at]) {
                world.grow_ledger(at);
            }
        }
        for _ in 0..topology.ledgers.len() * 3 {
            world.grow();
        }
        world
    }

    // ---- what can happen ------------------------------------------------------------------

    /// One thing happens.
    pub fn step(&mut self) {
        self.steps += 1;
        let chance = self.fault;
        if self.dice.per_mille(chance) {
            self.fault();
            return;
        }
        if self.dice.below(30) == 0 {
            self.grow();
            return;
        }
        if self.lines.is_empty() || self.dice.below(24) == 0 {
            let child = 1 + self.dice.index(self.nodes.len() - 1);
            self.dial(child);
            return;
        }
        let (line, side) = (self.dice.index(self.lines.len()), self.dice.index(2));
        let first = self.dice.below(16);
        if first == 15 {
            self.tick(line, side);
        } else {
            let order = [[0, 1, 2], [1, 2, 0], [2, 0, 1]][first as usize % 3];
            let happened = order.into_iter().any(|what| self.happens(line, side, what));
            if !happened {
                self.tick(line, side);
            }
        }
        self.lines
            .retain(|line| line.ends.iter().any(Option::is_some));
    }

    /// Delivers a message, does a piece of work, or finishes something with the disk.
    fn happens(&mut self, line: usize, side: usize, what: u64) -> bool {
        match what {
            0 => self.deliver(line, side),
            1 => self.work(line, side),
            _ => self.disk(line, side),
        }
    }

    fn fault(&mut self) {
        self.trace.add(900);
        let node = self.dice.index(self.nodes.len());
        let child = 1 + self.dice.index(self.nodes.len() - 1);
        match self.dice.below(14) {
            0 | 1 => self.crash(node),
            2..5 => self.nodes[node].up = true,
            5 if self.dice.below(2) == 0 => self.blocked[child][self.dice.index(2)] = true,
            5 if !self.lines.is_empty() => {
                let at = self.dice.index(self.lines.len());
                self.lines[at].lags ^= true;
            }
            6 | 7 => self.blocked[child] = [false; 2],
            8 => {
                // A clock that jumps; charters are not valid by a slow one.
                let clock = self.dice.index(CLOCKS.len() * 2);
                self.nodes[node].clock = if clock < CLOCKS.len() { clock } else { 0 };
            }
            9 => {
                self.grow();
            }
            10 | 11 => self.cut(),
            12 => self.destroy(),
            _ => self.mischief(child),
        }
    }

    fn mischief(&mut self, child: usize) {
        match self.trouble {
            Trouble::Lines => {
                for _ in 0..1 + self.dice.below(3) {
                    self.bend();
                }
            }
            Trouble::Impostors => self.dial_as(child, true),
            Trouble::Revoked(child) if self.dice.below(3) == 0 => {
                let parent = self.nodes[child].parent.unwrap();
                self.nodes[parent].revoked = Some(child);
                // The shell ends live sessions at once.
                for line in &mut self.lines {
                    if line.nodes[0] == child {
                        line.ends[1] = None;
                    }
                }
            }
            Trouble::Restored(child) => {
                self.crash(child);
                let at = self.dice.index(self.topology.ledgers.len());
                let ledger = &self.topology.ledgers[at];
                let name = self.nodes[child].name;
                let held = &mut self.nodes[child].held[at];
                if ledger.owner == name && held.size > 0 {
                    let earlier = self.dice.index(held.size);
                    let size = ledger.branches[0].next_head(earlier).unwrap_or(held.size);
                    (held.size, held.target, held.whole) = (size, size, size);
                    (held.cosigned, held.missing) = (held.cosigned.min(size), 0);
                }
            }
            _ => self.grow(),
        }
    }

    /// An owner appends up to the next head that it signs.
    fn grow(&mut self) {
        let at = self.dice.index(self.topology.ledgers.len());
        self.grow_ledger(at);
    }

    fn grow_ledger(&mut self, at: usize) {
        let ledger = &self.topology.ledgers[at];
        let owner = index_of(&self.nodes, ledger.owner);
        let held = &mut self.nodes[owner].held[at];
        if let Some(size) = ledger.branches[0].next_head(held.size) {
            (held.size, held.target, held.whole) = (size, size, size);
        }
    }

    /// An owner destroys the bodies that its entries order destroyed.
    fn destroy(&mut self) {
        for (at, ledger) in self.topology.ledgers.iter().enumerate() {
            let owner = index_of(&self.nodes, ledger.owner);
            let held = &mut self.nodes[owner].held[at];
            for (index, order) in ledger.branches[0].ends.iter().enumerate() {
                if order.is_some_and(|order| order < held.size) {
                    held.missing |= 1 << index;
                }
            }
        }
    }

    /// What was not committed is lost. Something may have been, whose answer nobody heard.
    fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        for at in 0..self.lines.len() {
            for side in 0..2 {
                if self.lines[at].nodes[side] == node {
                    let pending = self.lines[at].ends[side].take();
                    for output in pending.into_iter().flat_map(|end| end.disk) {
                        if let Output::Store(delivery) = output
                            && self.dice.below(2) == 0
                        {
                            self.commit(node, &delivery);
                        }
                    }
                    self.lose_tail(at, 1 - side);
                }
            }
        }
    }

    /// One side loses its end; what it had sent last may be lost, and the other may not notice.
    fn cut(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let (at, side) = (self.dice.index(self.lines.len()), self.dice.index(2));
        self.lines[at].ends[side] = None;
        self.lines[at].silent |= self.dice.below(2) == 0;
        self.lines[at].lags |= self.dice.below(2) == 0;
        self.lose_tail(at, 1 - side);
    }

    fn lose_tail(&mut self, at: usize, to: usize) {
        let lost = self.dice.below(4) as usize;
        let wire = &mut self.lines[at].wires[to];
        wire.truncate(wire.len().saturating_sub(lost));
    }

    /// Does to a message on its way what no transport should.
    fn bend(&mut self) {
        let busy: Vec<(usize, usize)> = (0..self.lines.len())
            .flat_map(|at| [(at, 0), (at, 1)])
            .filter(|(at, to)| !self.lines[*at].wires[*to].is_empty())
            .collect();
        if busy.is_empty() {
            return;
        }
        let (at, to) = busy[self.dice.index(busy.len())];
        let line = &mut self.lines[at];
        line.bent = true;
        let wire = &mut line.wires[to];
        let one = self.dice.index(wire.len());
        let other = self.dice.index(wire.len());
        match self.dice.below(4) {
            0 => drop(wire.remove(one)),
            1 => wire.insert(other, wire[one].clone()),
            2 => wire.swap(one, other),
            _ => wire[one] = garble(&wire[one], &self.archive, &mut self.dice),
        }
    }

    // ---- connections ----------------------------------------------------------------------

    fn dial(&mut self, child: usize) {
        let refused = self.nodes[self.nodes[child].parent.unwrap()].revoked == Some(child);
        if refused && self.healing {
            return;
        }
        let has = |line: &Line| line.nodes[0] == child && !line.stolen && line.ends[0].is_some();
        if !self.lines.iter().any(has) {
            self.dial_as(child, false);
        }
    }

    fn dial_as(&mut self, child: usize, stolen: bool) {
        let parent = self.nodes[child].parent.unwrap();
        let is_off = !self.nodes[parent].up || self.blocked[child] != [false; 2];
        if is_off || !stolen && !self.nodes[child].up || self.lines.len() > 12 {
            return;
        }
        self.trace.add(child as u64);
        let config = |own: usize, peer_key| Config {
            realm: realm(),
            chain: self.nodes[own].chain.clone(),
            peer_key,
        };
        let proven = if stolen {
            "stranger"
        } else {
            self.nodes[child].name
        };
        let mut dialer = Session::dial(config(child, public(self.nodes[parent].name, "transport")));
        let listener = Session::listen(config(parent, public(proven, "transport")));
        let hello = dialer.start(at(self.nodes[child].clock));
        let face = self.dice.index(2);
        let end = |session, work| {
            Some(End {
                session,
                work,
                disk: vec![],
                offered: BTreeMap::new(),
                face,
            })
        };
        let forges = matches!(self.trouble, Trouble::Forger(of) if [child, parent].contains(&of));
        self.lines.push(Line {
            nodes: [child, parent],
            ends: [end(dialer, hello.into()), end(listener, VecDeque::new())],
            wires: Default::default(),
            bent: forges && !self.healing,
            stolen,
            silent: false,
            lags: false,
        });
    }

    fn deliver(&mut self, at: usize, side: usize) -> bool {
        let line = &mut self.lines[at];
        if line.lags && !self.healing && self.dice.below(60) > 0 {
            return false;
        }
        let Some(mut end) = line.ends[side].take() else {
            return false;
        };
        if self.drains && !end.work.is_empty() {
            line.ends[side] = Some(end);
            return false;
        }
        let is_open_way = !self.blocked[line.nodes[0]][side];
        let Some(message) = line.wires[side].pop_front_if(|_| is_open_way) else {
            let hears = is_open_way && line.ends[1 - side].is_none() && !line.silent;
            // The other side is gone, and this one has read what it had sent before.
            if !(hears && end.work.is_empty() && end.disk.is_empty()) {
                line.ends[side] = Some(end);
            }
            return hears && line.ends[side].is_none();
        };
        let own = line.nodes[side];
        self.trace.add(1 + side as u64);
        self.trace.bytes(&message);
        self.messages += 1;
        let was_open = end.session.is_open();
        let now = at_clock(&self.nodes[own]);
        let outputs = end
            .session
            .receive(&message, now, &view(self.topology, &self.nodes, own));
        assert!(
            outputs.len() <= OUTPUTS_MAX,
            "{} outputs of one message",
            outputs.len()
        );
        if !was_open && end.session.is_open() {
            self.opened(at, side, &end.session);
        }
        end.work.extend(outputs);
        self.bounds(&end);
        self.lines[at].ends[side] = Some(end);
        true
    }

    /// A session opened: only between the two whose keys were proven. The shell has ended an
    /// older one with the same peer before it lets this one begin.
    fn opened(&mut self, at: usize, side: usize, session: &Session) {
        let (nodes, stolen) = (self.lines[at].nodes, self.lines[at].stolen);
        let peer = session.peer().unwrap().division.as_str();
        assert_eq!(
            peer,
            self.nodes[nodes[1 - side]].name,
            "the peer is another"
        );
        assert!(!(stolen && side == 1), "a stolen charter opened a session");
        let is_revoked = self.nodes[nodes[side]].revoked == Some(nodes[1 - side]);
        assert!(!is_revoked, "a revoked charter opened a session");
        for (other, line) in self.lines.iter_mut().enumerate() {
            if other != at && line.nodes == nodes {
                line.ends[side] = None;
            }
        }
    }

    fn bounds(&self, end: &End) {
        let outputs = || end.work.iter().chain(&end.disk);
        let loads = outputs().filter(|output| matches!(output, Output::Load(_)));
        let stores = outputs().filter(|output| matches!(output, Output::Store(_)));
        assert!(loads.count() <= TRANSFERS_MAX, "too many loads at a time");
        let bound = TRANSFERS_MAX * STORING_MAX;
        assert!(stores.count() <= bound, "too many stores at a time");
    }

    /// The shell's second: revocations, heads that moved, and what was not taken the last time.
    fn tick(&mut self, at: usize, side: usize) -> bool {
        let line = &mut self.lines[at];
        let Some(mut end) = line.ends[side].take() else {
            return false;
        };
        let (own, peer) = (line.nodes[side], line.nodes[1 - side]);
        let before = end.work.len();
        if end.session.is_open() {
            let view = view(self.topology, &self.nodes, own);
            for (ledger, size) in view.offers(peer) {
                if end.offered.get(&ledger) == Some(&size) {
                    continue;
                }
                let truth = &self.topology.ledgers[ledger];
                let branch = branch_of(self.trouble, &self.nodes, truth, own, ledger, end.face);
                let note = truth.branches[branch].notes[size].clone().unwrap();
                end.offered.insert(ledger, size);
                end.work.extend(
                    end.session
                        .offer(truth.origin.clone(), note.clone())
                        .unwrap(),
                );
                if !self.healing && self.dice.below(16) == 0 {
                    end.work
                        .extend(end.session.tell(truth.origin.clone(), vec![note]));
                }
            }
            if !line.bent {
                truthful(&end.session, &self.nodes[peer], self.topology);
            }
        }
        let more = end.work.len() > before;
        line.ends[side] = Some(end);
        more
    }

    // ---- the shell ------------------------------------------------------------------------

    fn work(&mut self, at: usize, side: usize) -> bool {
        let Some(end) = self.lines[at].ends[side].as_mut() else {
            return false;
        };
        let Some(output) = end.work.pop_front() else {
            return false;
        };
        let later = matches!(
            output,
            Output::Load(_) | Output::Store(_) | Output::Cosign { .. }
        );
        // A store waits for those of its ledger that came before it.
        let waits = matches!(&output, Output::Store(delivery)
            if end.disk.iter().any(|before| is_store_of(before, delivery.origin())));
        if waits || later && !self.drains && self.dice.per_mille(self.slow_disk) {
            end.disk.push(output);
        } else {
            self.perform(at, side, output);
        }
        true
    }

    fn disk(&mut self, at: usize, side: usize) -> bool {
        let Some(end) = self.lines[at].ends[side].as_mut() else {
            return false;
        };
        if end.disk.is_empty() {
            return false;
        }
        let mut one = self.dice.index(end.disk.len());
        if let Output::Store(delivery) = &end.disk[one] {
            // Those of one ledger in the order in which they came.
            let first = |before: &Output| is_store_of(before, delivery.origin());
            one = end.disk.iter().position(first).unwrap_or(one);
        }
        let output = end.disk.remove(one);
        self.perform(at, side, output);
        true
    }

    fn perform(&mut self, at: usize, side: usize, output: Output) {
        let Some(mut end) = self.lines[at].ends[side].take() else {
            return;
        };
        let nodes = self.lines[at].nodes;
        let (own, peer) = (nodes[side], nodes[1 - side]);
        let fails = !self.healing && self.dice.per_mille(self.bad_disk);
        let bent = self.lines[at].bent;
        let mut answers = vec![];
        let mut closed = false;
        match output {
            Output::Send(bytes) => closed = self.send(at, side, &end, bytes.0),
            Output::Load(load) => {
                let ledger = self.ledger(load.origin.as_str());
                let truth = &self.topology.ledgers[ledger];
                assert!(load.max_bytes <= CHUNK_BYTES_MAX);
                let branch = branch_of(self.trouble, &self.nodes, truth, own, ledger, end.face);
                let view = view(self.topology, &self.nodes, own);
                let loaded = (!fails)
                    .then(|| view.load(&load, branch, &mut self.dice))
                    .flatten();
                answers = match loaded {
                    Some(loaded) => end.session.loaded(loaded),
                    None => {
                        end.offered.remove(&ledger);
                        end.session.cannot_load(&load.origin, "not here")
                    }
                };
            }
            Output::Store(delivery) => {
                let origin = delivery.origin().clone();
                let kept = if fails {
                    None
                } else {
                    self.store(own, peer, &delivery)
                };
                let view = view(self.topology, &self.nodes, own);
                answers = match kept {
                    Some(size) => end.session.stored(&origin, size, &view),
                    None => end.session.not_stored(&origin, "not kept", &view),
                };
            }
            Output::Cosign { .. } if fails => end.disk.push(output),
            Output::Cosign { origin, verified } => {
                let head = verified.checkpoint();
                let lines = self.cosign(own, origin.as_str(), head.size() as usize, head.root());
                if let Some(lines) = lines {
                    answers = end.session.cosigned(&origin, head.size(), lines);
                }
            }
            Output::Cosigned {
                origin,
                size,
                lines,
            } => self.cosigned(own, peer, origin.as_str(), size as usize, &lines),
            Output::Fork { origin, evidence } => {
                let ledger = &self.topology.ledgers[self.ledger(origin.as_str())];
                assert_eq!(evidence.check(&ledger.verifier), Ok(()));
                assert!(
                    self.equivocates(ledger.owner),
                    "evidence against an honest owner"
                );
            }
            Output::Seen { origin, note, .. } => {
                let ledger = &self.topology.ledgers[self.ledger(origin.as_str())];
                let of = |branch: &crate::tape::Branch| branch.notes.contains(&Some(note.clone()));
                assert!(
                    ledger.branches.iter().any(of),
                    "a head that nobody signed was seen"
                );
            }
            Output::Alarm {
                origin,
                code,
                reason,
                ..
            } => {
                self.blame(at, origin.as_str(), code, &reason);
            }
            Output::Rejected {
                origin,
                code,
                reason,
                ..
            } => {
                assert!(reason.len() <= REASON_BYTES_MAX);
                let ledger = self
                    .topology
                    .ledgers
                    .iter()
                    .position(|l| l.origin == origin);
                match code {
                    RejectCode::NotAccepted | RejectCode::Unavailable => {
                        ledger.and_then(|ledger| end.offered.remove(&ledger));
                    }
                    _ => self.blame(at, origin.as_str(), code, &reason),
                }
            }
            Output::Refused { code, by, .. } => self.refused(at, side, code, by),
            Output::ClockSkew { millis } => {
                let skewed = |node: &Node| node.clock != 0;
                // The clock may have been set right while the greeting was under way.
                assert!(millis != 0 && (bent || self.steps > 0 || self.nodes.iter().any(skewed)));
            }
            Output::Opened { .. } | Output::Declined { .. } => {}
            Output::Close { .. } => closed = true,
            Output::EnrolRequested(_)
            | Output::Enrolled { .. }
            | Output::RenewRequested(_)
            | Output::RecoveryAsked(_)
            | Output::RecoveryPiece(_)
            | Output::Succeeded(_) => {
                assert!(bent, "nobody enrols here");
            }
        }
        if self.drains {
            // As `node::peer` does: what an answer leads to comes before the rest of the batch.
            for answer in answers.into_iter().rev() {
                end.work.push_front(answer);
            }
        } else {
            end.work.extend(answers);
        }
        self.bounds(&end);
        if !closed {
            self.lines[at].ends[side] = Some(end);
        }
    }

    /// Whether the session must end because the peer takes too little.
    fn send(&mut self, at: usize, side: usize, end: &End, bytes: Vec<u8>) -> bool {
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert!(end.session.is_open() || bytes.len() <= OPENING_BYTES_MAX);
        let forger =
            matches!(self.trouble, Trouble::Forger(of) if of == self.lines[at].nodes[side]);
        let keeps = self.archive.len() < ARCHIVE;
        let place = if keeps {
            self.archive.len()
        } else {
            self.dice.index(ARCHIVE)
        };
        if keeps {
            self.archive.push(bytes.clone());
        } else if self.dice.below(8) == 0 {
            self.archive[place] = bytes.clone();
        }
        let forged = forger && !self.healing && self.dice.below(3) == 0;
        let bytes = if forged {
            garble(&bytes, &self.archive, &mut self.dice)
        } else {
            bytes
        };
        let line = &mut self.lines[at];
        let wire = &mut line.wires[1 - side];
        if line.ends[1 - side].is_some() {
            wire.push_back(bytes);
        }
        wire.len() > WAITING_MAX
    }

    /// Commits a delivery, if it still continues what is held; checks first that it is true.
    fn store(&mut self, own: usize, peer: usize, delivery: &Delivery) -> Option<u64> {
        assert_ne!(
            self.nodes[own].revoked,
            Some(peer),
            "kept from a revoked child"
        );
        self.commit(own, delivery)
            .then_some(delivery.held().frontier.size())
    }

    fn commit(&mut self, own: usize, delivery: &Delivery) -> bool {
        let at = self.ledger(delivery.origin().as_str());
        let ledger = &self.topology.ledgers[at];
        assert_ne!(
            ledger.owner, self.nodes[own].name,
            "nobody writes the ledger of another"
        );
        let first = delivery.first() as usize;
        let size = first + delivery.items().len();
        let (target, root) = head_of(&delivery.held().note);
        let branch = ledger
            .branches
            .iter()
            .position(|branch| {
                let held = &branch.notes.get(target).cloned().flatten();
                let true_items = || {
                    let mut items = delivery.items().iter().zip(first..);
                    items.all(|(item, index)| branch.is(index, item))
                };
                held.as_ref().is_some_and(|note| head_of(note).1 == root) && true_items()
            })
            .expect("only what the owner signed is kept");
        assert!(branch == 0 || self.equivocates(ledger.owner));
        let truth = &ledger.branches[branch];
        assert!(size <= target);
        assert_eq!(delivery.held().frontier, truth.frontiers[size]);
        assert_eq!(delivery.held().tail, truth.tails[size]);
        assert_eq!(delivery.is_complete(), size == target);
        let held = &mut self.nodes[own].held[at];
        if held.size != first {
            return false;
        }
        assert!(
            held.branch == branch
                || held.size <= crate::tape::FORK && held.target <= crate::tape::FORK,
            "a replica went over to another history"
        );
        assert!(target >= held.target, "a head that was seen is dropped");
        for (item, index) in delivery.items().iter().zip(first..) {
            if item.gone.is_some() {
                held.missing |= 1 << index;
            }
        }
        (held.branch, held.size, held.target) = (branch, size, target);
        if size == target {
            held.whole = size;
        }
        self.trace.add(size as u64);
        true
    }

    /// Signs that a head is held, if it is the one that is durable.
    fn cosign(
        &mut self,
        own: usize,
        origin: &str,
        size: usize,
        root: &[u8; 32],
    ) -> Option<Vec<String>> {
        let at = self.ledger(origin);
        let node = &mut self.nodes[own];
        let held = &mut node.held[at];
        let truth = &self.topology.ledgers[at].branches[held.branch];
        assert!(size <= held.size, "asked to sign for what is not durable");
        assert_eq!(
            *root,
            truth.frontiers[size].root(),
            "asked to sign another history"
        );
        if held.whole < size {
            return None;
        }
        held.cosigned = held.cosigned.max(size);
        node.promised[at] = node.promised[at].max(size);
        Some(truth.lines(node.name, size, node.clock))
    }

    /// What the peer acknowledged is there, now and after every crash.
    fn cosigned(&mut self, own: usize, peer: usize, origin: &str, size: usize, lines: &[String]) {
        let at = self.ledger(origin);
        let (branches, name) = (&self.topology.ledgers[at].branches, self.nodes[peer].name);
        let by_peer = |line: &String| {
            branches.iter().any(|branch| {
                let mut clocks = 0..CLOCKS.len();
                clocks.any(|clock| branch.lines(name, size, clock).contains(line))
            })
        };
        assert!(
            lines.iter().all(by_peer),
            "a cosignature that the peer never made"
        );
        assert!(size <= self.nodes[peer].promised[at]);
        let held = &mut self.nodes[own].held[at];
        if held.whole >= size {
            held.cosigned = held.cosigned.max(size);
        }
    }

    /// Whether anybody may be blamed for an alarm or a rejection.
    fn blame(&self, at: usize, origin: &str, code: RejectCode, reason: &str) {
        let mut ledgers = self.topology.ledgers.iter();
        let owner = ledgers
            .find(|ledger| ledger.origin.as_str() == origin)
            .map(|l| l.owner);
        let bent = self.lines[at].bent;
        assert!(
            bent || owner.is_some_and(|owner| self.equivocates(owner))
                || code == RejectCode::Shorter && owner.is_some_and(|owner| self.restored(owner)),
            "honest nodes on a good line: {origin} {code:?}: {reason}"
        );
    }

    fn refused(&self, at: usize, side: usize, code: RefusalCode, by: Side) {
        let line = &self.lines[at];
        let revoked = line
            .nodes
            .iter()
            .any(|node| self.nodes[*node].revoked.is_some());
        let explained = match code {
            _ if line.bent => true,
            RefusalCode::WrongKey => line.stolen,
            RefusalCode::Revoked => revoked,
            // By a slow clock, perhaps set right meanwhile.
            RefusalCode::Expired => true,
            _ => false,
        };
        assert!(explained, "{code:?} by {by:?} at {side}");
    }

    fn equivocates(&self, owner: &str) -> bool {
        matches!(self.trouble, Trouble::Equivocator(node) if self.nodes[node].name == owner)
    }

    fn restored(&self, owner: &str) -> bool {
        matches!(self.trouble, Trouble::Restored(node) if self.nodes[node].name == owner)
    }

    fn ledger(&self, origin: &str) -> usize {
        let mut ledgers = self.topology.ledgers.iter();
        ledgers
            .position(|ledger| ledger.origin.as_str() == origin)
            .expect("a ledger that nobody has")
    }

    // ---- invariants and the end -------------------------------------------------------------

    /// What must hold at any time.
    pub fn check(&self) {
        for node in &self.nodes {
            for (held, promised) in node.held.iter().zip(&node.promised) {
                // An owner that was restored may have lost its own; nobody else has.
                assert!(held.size >= *promised, "acknowledged and lost");
                assert!(held.whole <= held.size && held.size <= held.target);
            }
        }
    }

    /// Faults stop. Whatever is whole goes on; what is broken is noticed.
    pub fn heal(&mut self) {
        self.healing = true;
        for node in &mut self.nodes {
            (node.up, node.clock) = (true, 0);
        }
        self.blocked.fill([false; 2]);
        self.lines
            .retain(|line| !line.bent && !line.silent && line.ends.iter().all(Option::is_some));
    }

    /// Runs fairly until nothing more happens.
    ///
    /// # Panics
    /// When that takes more steps than the work that is left explains, or leaves work undone.
    pub fn converge(&mut self) {
        let lacking: usize = self.topology.ledgers.len() * 64 * self.nodes.len();
        let bound = self.steps + 2_000 + 30 * lacking as u64;
        loop {
            let mut moved = false;
            for child in 1..self.nodes.len() {
                let lines = self.lines.len();
                self.dial(child);
                moved |= self.lines.len() > lines;
            }
            for at in 0..self.lines.len() {
                for side in 0..2 {
                    for what in 0..3 {
                        while self.happens(at, side, what) {
                            self.steps += 1;
                            moved = true;
                        }
                    }
                    moved |= self.tick(at, side);
                }
            }
            self.lines
                .retain(|line| line.ends.iter().any(Option::is_some));
            assert!(self.steps < bound, "no end after {bound} steps");
            if !moved {
                break;
            }
        }
        self.converged();
    }

    fn converged(&self) {
        let cut: Vec<usize> = (1..self.nodes.len())
            .filter(|child| self.nodes[self.nodes[*child].parent.unwrap()].revoked == Some(*child))
            .collect();
        for (at, ledger) in self.topology.ledgers.iter().enumerate() {
            let owner = index_of(&self.nodes, ledger.owner);
            let apart = |node: usize| cut.iter().any(|cut| within(&self.nodes, node, *cut));
            if self.equivocates(ledger.owner) || self.restored(ledger.owner) {
                continue;
            }
            let own = &self.nodes[owner].held[at];
            for (index, node) in self.nodes.iter().enumerate() {
                let shared = is_authority(ledger) || ledger.holder == Some(node.name);
                let may = within(&self.nodes, owner, index) || shared;
                if !may || apart(owner) != apart(index) || !cut.is_empty() && shared {
                    continue;
                }
                let held = &node.held[at];
                assert_eq!(
                    (held.size, held.whole, held.branch),
                    (own.size, own.size, 0),
                    "{} at {} after the faults",
                    ledger.origin,
                    node.name
                );
            }
            let has_parent = self.nodes[owner].parent.is_some();
            assert!(
                !has_parent || apart(owner) || own.cosigned == own.size,
                "{}: {own:?} was not cosigned",
                ledger.origin
            );
        }
        if matches!(self.trouble, Trouble::Equivocator(_) | Trouble::Restored(_)) || !cut.is_empty()
        {
            return;
        }
        for end in self
            .lines
            .iter()
            .flat_map(|line| line.ends.iter().flatten())
        {
            for status in end.session.status() {
                assert_eq!((status.behind(), &status.error), (0, &None), "{status:?}");
            }
        }
    }
}

fn is_store_of(output: &Output, origin: &Origin) -> bool {
    matches!(output, Output::Store(delivery) if delivery.origin() == origin)
}

fn at_clock(node: &Node) -> record::id::UnixMillis {
    at(node.clock)
}

/// Which history a node shows: its replica's, or the face that an equivocating owner puts on.
fn branch_of(
    trouble: Trouble,
    nodes: &[Node],
    ledger: &crate::tape::Ledger,
    own: usize,
    at: usize,
    face: usize,
) -> usize {
    let two = ledger.branches.len() > 1 && ledger.owner == nodes[own].name;
    match trouble {
        Trouble::Equivocator(node) if node == own && two => face,
        _ => nodes[own].held[at].branch,
    }
}

/// What a session says that the peer holds, the peer holds.
fn truthful(session: &Session, peer: &Node, topology: &Topology) {
    for status in session.status() {
        let at = topology
            .ledgers
            .iter()
            .position(|ledger| ledger.origin == status.origin);
        let held = at.map_or(0, |at| peer.held[at].size as u64);
        assert!(
            status.offered_by == Side::Peer || status.held_size <= held,
            "{} is said to hold more than {held}: {status:?}",
            peer.name
        );
    }
}
