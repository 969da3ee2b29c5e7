//! What a simulated node keeps, what it may be offered, and what it answers a session.
//!
//! Owns the rules of `registry::replicate` in small: which ledgers go to whom, and from whom which
//! are taken. What is here is durable; everything else of a node is lost when it crashes.

use record::authority::Charter;
use record::id::{Hash, Origin};
use sync::{Accept, Held, Item, Load, Loaded, Refusal, Trust};

use crate::dice::Dice;
use crate::sim::public;
use crate::tape::{Ledger, Topology};

/// What is durable of one ledger at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    pub branch: usize,
    pub size: usize,
    /// The signed head that was seen last; larger than `size` after an interruption.
    pub target: usize,
    /// The largest signed head of which everything is here.
    pub whole: usize,
    /// The largest head that was cosigned, here or above.
    pub cosigned: usize,
    /// Bit by bit, the bodies that are not here.
    pub missing: u64,
}

pub struct Node {
    pub name: &'static str,
    pub parent: Option<usize>,
    pub chain: Vec<Charter>,
    pub up: bool,
    pub clock: usize,
    pub held: Vec<Replica>,
    /// Of each ledger, how much this node has ever said under its signature to hold.
    pub promised: Vec<usize>,
    /// The child whose charter this node knows to be revoked.
    pub revoked: Option<usize>,
}

/// Answers of a node to a session.
pub struct View<'a> {
    pub topology: &'a Topology,
    pub nodes: &'a [Node],
    pub own: usize,
}

/// Whether a node is another one or lies under it.
pub fn within(nodes: &[Node], of: usize, above: usize) -> bool {
    of == above
        || nodes[of]
            .parent
            .is_some_and(|parent| within(nodes, parent, above))
}

pub fn index_of(nodes: &[Node], name: &str) -> usize {
    nodes.iter().position(|node| node.name == name).unwrap()
}

impl View<'_> {
    fn node(&self) -> &Node {
        &self.nodes[self.own]
    }

    fn ledger(&self, origin: &Origin) -> Option<usize> {
        self.topology
            .ledgers
            .iter()
            .position(|ledger| ledger.origin == *origin)
    }

    fn owner(&self, ledger: &Ledger) -> usize {
        index_of(self.nodes, ledger.owner)
    }

    /// Whether the charter of a division has reached this node: by the authority ledgers that it
    /// holds, or because it is on its own line.
    fn knows(&self, of: usize) -> bool {
        let parent = self.nodes[of].parent;
        let stated = |parent: usize| {
            let name = self.nodes[parent].name;
            let ledgers = self.topology.ledgers.iter().zip(&self.node().held);
            ledgers
                .filter(|(ledger, _)| ledger.owner == name && is_authority(ledger))
                .any(|(_, held)| held.size > 0)
        };
        within(self.nodes, self.own, of) || parent == Some(self.own) || parent.is_some_and(stated)
    }

    /// The ledgers that a peer may have, each up to which head.
    pub fn offers(&self, peer: usize) -> Vec<(usize, usize)> {
        let up = self.node().parent == Some(peer);
        let mut offers = vec![];
        for (at, ledger) in self.topology.ledgers.iter().enumerate() {
            let (owner, held) = (self.owner(ledger), &self.node().held[at]);
            let holder = ledger.holder.map(|name| index_of(self.nodes, name));
            let outside = !within(self.nodes, owner, peer);
            let give = if up {
                within(self.nodes, owner, self.own)
            } else {
                outside
                    && (is_authority(ledger)
                        || holder.is_some_and(|holder| within(self.nodes, holder, peer)))
            };
            // The root has nobody above it who cosigns.
            let published = up || self.nodes[owner].parent.is_none();
            let size = if published { held.whole } else { held.cosigned };
            if give && size > 0 {
                offers.push((at, size));
            }
        }
        offers
    }

    /// Entries up to the head, a random number of them; nothing when a body is missing that the
    /// head does not excuse.
    pub fn load(&self, load: &Load, branch: usize, dice: &mut Dice) -> Option<Loaded> {
        let at = self.ledger(&load.origin)?;
        let (held, from, head) = (
            &self.node().held[at],
            load.from as usize,
            load.head_size as usize,
        );
        let branch = &self.topology.ledgers[at].branches[branch];
        let end = (from + 1 + dice.below(12) as usize).min(head);
        if end > held.size {
            return None;
        }
        let item = |index: usize| {
            if held.missing & (1 << index) == 0 {
                Some(branch.items[index].clone())
            } else {
                branch.gone(index, head)
            }
        };
        let items: Vec<Item> = (from..end).map_while(item).collect();
        let end = from + items.len();
        (end > from).then(|| Loaded {
            origin: load.origin.clone(),
            from: load.from,
            head_size: load.head_size,
            proof: branch.proof(end, head),
            extends: load
                .known_size
                .map_or_else(Vec::new, |known| branch.proof(known as usize, head)),
            items,
        })
    }
}

pub fn is_authority(ledger: &Ledger) -> bool {
    ledger.origin.ledger().as_str() == "authority"
}

impl Trust for View<'_> {
    fn realm_root(&self) -> [u8; 32] {
        public("district", "sign")
    }

    fn is_revoked(&self, charter: &Hash) -> bool {
        self.node()
            .revoked
            .is_some_and(|child| self.nodes[child].chain[0].id() == *charter)
    }

    fn log(&self, origin: &Origin, _note: &str) -> Option<ledger::note::Verifier> {
        let ledger = &self.topology.ledgers[self.ledger(origin)?];
        Some(ledger.verifier.clone())
    }

    fn accept(&self, peer: &Charter, origin: &Origin, _note: &str) -> Result<Accept, Refusal> {
        let refuse = |reason: &str| Refusal {
            reason: reason.to_owned(),
            passing: false,
        };
        let at = self
            .ledger(origin)
            .ok_or_else(|| refuse("no such ledger"))?;
        let ledger = &self.topology.ledgers[at];
        let (owner, peer) = (
            self.owner(ledger),
            index_of(self.nodes, peer.division.as_str()),
        );
        if owner == self.own || !self.knows(owner) {
            return Err(refuse("own, or not known yet"));
        }
        let from_child = self.nodes[peer].parent == Some(self.own);
        let holder = ledger.holder.map(|name| index_of(self.nodes, name));
        let allowed = if from_child {
            within(self.nodes, owner, peer)
        } else {
            !within(self.nodes, owner, self.own)
                && (is_authority(ledger)
                    || holder.is_some_and(|holder| within(self.nodes, holder, self.own)))
        };
        if !allowed {
            return Err(refuse("not from this peer"));
        }
        let held = &self.node().held[at];
        let branch = &ledger.branches[held.branch];
        Ok(Accept {
            verifier: ledger.verifier.clone(),
            held: (held.size > 0).then(|| Held {
                frontier: branch.frontiers[held.size].clone(),
                note: branch.notes[held.target].clone().unwrap(),
                tail: branch.tails[held.size].clone(),
            }),
            cosign: from_child,
        })
    }
}
