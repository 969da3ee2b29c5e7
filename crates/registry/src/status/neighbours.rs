//! Where replication stands (同步状况), per neighbour and ledger: what each holds and lacks, since
//! when, and what it runs.
//!
//! What a peer lacks comes from what lies in the store: its signatures on the heads here, and what
//! it said is durable there. So it is known of a peer that is off, and after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::note::Note;
use record::entry::Entry;
use record::id::{DivisionId, Origin, UnixMillis};
use serde::Serialize;

use crate::addresses::Transport;
use crate::authority::Authority;
use crate::error::Result;
use crate::ferry::{FerryLine, FerryState};
use crate::grant::checkpoint_of;
use crate::heads::Line;
use crate::node::{Registry, lock};
use crate::reach::Reach;
use crate::replicate::PeerLine;
use crate::table;
use crate::versions::{Version, versions};

/// How a neighbour stands to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// Above.
    Parent,
    /// Directly below.
    Child,
    /// Neither, or not known: it was refused.
    Stranger,
}

/// Which way a ledger goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From here to the peer.
    To,
    /// From the peer to here.
    From,
}

/// One ledger between this node and a neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerSync {
    /// Which.
    pub origin: Origin,
    /// `authority`, `access`, `recovery`, a kind, or `grant`.
    pub kind: String,
    /// Which way it goes.
    pub way: Way,
    /// Entries that the giving side is known to have.
    pub size: u64,
    /// Entries that the taking side holds durably.
    pub held: u64,
    /// Of a ledger that the taking side signs: the size that it signed last.
    pub cosigned: Option<u64>,
    /// Entries that the taking side lacks.
    pub behind: u64,
    /// Since when: the time of the first entry it lacks, or when that was learned.
    pub behind_since: Option<UnixMillis>,
    /// What went wrong last, in words.
    pub error: Option<String>,
}

/// One neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct PeerSync {
    /// The division, or the transport key's first digits when it is not known.
    pub peer: String,
    /// How it stands to this node.
    pub relation: Relation,
    /// Whether a session is open.
    pub connected: bool,
    /// What carries the session, while one is open.
    pub transport: Option<Transport>,
    /// Why that is not the preferred transport, in words; only of the parent.
    pub fell_back: Option<String>,
    /// When that last changed, or when it last spoke before this start.
    pub since: Option<UnixMillis>,
    /// The last refusal or fault, in words.
    pub last_error: Option<String>,
    /// Sessions refused, by either side, since the start.
    pub refused: u64,
    /// When it is dialled again; only of the parent.
    pub next_try: Option<UnixMillis>,
    /// Bytes of messages to it since the start.
    pub sent: u64,
    /// Bytes of messages from it since the start.
    pub received: u64,
    /// Entries that it lacks.
    pub lacks: u64,
    /// The oldest of them.
    pub lacks_since: Option<UnixMillis>,
    /// Entries known to be there that this node lacks.
    pub owes: u64,
    /// Since when.
    pub owes_since: Option<UnixMillis>,
    /// Ledgers given to a child that it holds whole; they are not listed.
    pub whole: u64,
    /// The ledgers between the two.
    pub ledgers: Vec<LedgerSync>,
    /// What a child runs, as its own ledger states it.
    pub versions: Vec<Version>,
    /// How far files that are carried came, if there were any.
    pub ferry: Option<FerryLine>,
    /// Sums over all ledgers, listed or not, for the metrics.
    #[serde(skip)]
    pub(super) sums: BTreeMap<(Way, String), Sum>,
}

/// What the metrics say of one kind of ledger.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub held: u64,
    pub cosigned: u64,
    pub behind: u64,
    pub since: Option<UnixMillis>,
}

/// Where replication stands.
#[derive(Debug, Clone, Serialize)]
pub struct SyncStatus {
    /// The division that tells.
    pub division: DivisionId,
    /// By its clock.
    pub at: UnixMillis,
    /// What it runs.
    pub versions: Vec<Version>,
    /// Its neighbours: the parent first, then children, then whoever was refused.
    pub peers: Vec<PeerSync>,
}

/// A ledger here, with its divisions above, so that each is looked up once.
struct Known {
    line: Arc<Line>,
    /// Its division and those above.
    path: Vec<DivisionId>,
    /// Whether everybody needs it: the authority ledger of one that has others under it.
    by_all: bool,
    /// Who else needs it, and those above them: of a grant's ledger the holder, of one of letters
    /// the addressee, of an authority ledger those with whom its division deals.
    by: BTreeSet<DivisionId>,
}

fn path(authority: &Authority, division: &DivisionId) -> Vec<DivisionId> {
    let mut path = vec![division.clone()];
    path.extend(authority.ancestors(division));
    path
}

impl Known {
    /// Whether the ledger goes down to a division: what `offers` decides.
    fn goes_down_to(&self, division: &DivisionId) -> bool {
        !self.path.contains(division) && (self.by_all || self.by.contains(division))
    }
}

impl Registry {
    /// Where replication stands, per neighbour and ledger.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn sync_status(&self, now: UnixMillis) -> Result<SyncStatus> {
        let own = &self.config.division;
        let lines = self.heads()?;
        let (known, neighbours, own_versions) = {
            let authority = self.authority();
            let known: Vec<Known> = lines
                .into_iter()
                .map(|line| {
                    let receiver = authority.receiver(&line.origin);
                    let dealing = authority.dealing_with(&line.division);
                    let dealing = dealing.filter(|_| line.is_authority);
                    let by = receiver.iter().chain(dealing);
                    Known {
                        path: path(&authority, &line.division),
                        by_all: line.is_authority && authority.has_issued(&line.division),
                        by: by.flat_map(|division| path(&authority, division)).collect(),
                        line,
                    }
                })
                .collect();
            let parent = self.config.parent.iter();
            let parent = parent.map(|p| (p.division.clone(), Relation::Parent, Vec::new()));
            let children = authority
                .charters()
                .filter(|c| c.parent == *own && c.division != *own)
                .filter(|c| !authority.revoked(&c.id()))
                .map(|c| {
                    let versions = versions(&authority, &c.division, own);
                    (c.division.clone(), Relation::Child, versions)
                });
            let neighbours: Vec<_> = parent.chain(children).collect();
            (known, neighbours, versions(&authority, own, own))
        };
        let (mut talked, reaches) = {
            let peers = lock(&self.peers);
            (peers.lines.clone(), peers.reaches.clone())
        };
        let mut peers = Vec::new();
        for (division, relation, versions) in neighbours {
            let reach = reaches.get(division.as_str()).cloned().unwrap_or_default();
            let line = talked.remove(division.as_str());
            let mut peer = of(division.to_string(), relation, line, &reach);
            peer.versions = versions;
            peer.ferry = self.ferry_line(&division)?;
            for ledger in &known {
                self.between(&mut peer, &division, ledger, &reach)?;
            }
            peers.push(peer);
        }
        for (name, line) in talked {
            let reach = reaches.get(&name).cloned().unwrap_or_default();
            peers.push(of(name, Relation::Stranger, Some(line), &reach));
        }
        Ok(SyncStatus {
            division: own.clone(),
            at: now,
            versions: own_versions,
            peers,
        })
    }

    /// Adds a ledger to a neighbour's, if it goes either way between the two.
    fn between(
        &self,
        peer: &mut PeerSync,
        division: &DivisionId,
        ledger: &Known,
        reach: &Reach,
    ) -> Result<()> {
        let own = &self.config.division;
        let line = &ledger.line;
        let parent = peer.relation == Relation::Parent;
        let (way, above) = if parent && ledger.path.contains(own) {
            (Way::To, true)
        } else if parent && ledger.goes_down_to(own) {
            (Way::From, false)
        } else if !parent && ledger.path.contains(division) {
            (Way::From, true)
        } else if !parent && ledger.goes_down_to(division) {
            (Way::To, false)
        } else {
            return Ok(());
        };
        let origin = &line.origin;
        let (size, held, signer) = match way {
            Way::To => {
                let size = match line.published() {
                    _ if above => line.head.size,
                    Some(note) => checkpoint_of(note)?.size(),
                    None => 0,
                };
                let said = reach.held.get(origin).copied().unwrap_or(0);
                (size, said, division)
            }
            Way::From => {
                let target = line.head.target.as_deref().map(checkpoint_of).transpose()?;
                let target = target.map_or(0, |checkpoint| checkpoint.size());
                let offered = reach.offered.get(origin).copied().unwrap_or(0);
                let size = line.head.size.max(target).max(offered);
                (size, line.head.size, own)
            }
        };
        let cosigned = above.then(|| self.signed_by(line, signer)).transpose()?;
        let held = held.max(cosigned.unwrap_or(0)).min(size);
        let behind = size - held;
        let behind_since = match (behind, way) {
            (0, _) => None,
            (_, Way::To) => self.recorded_at(origin, held)?,
            (_, Way::From) => reach.waiting.get(origin).copied().or(peer.since),
        };
        let kind = match origin.grant_id() {
            Some(_) => "grant".to_owned(),
            None => origin.ledger().to_string(),
        };
        let older = |a: Option<UnixMillis>, b: Option<UnixMillis>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let (total, since) = match way {
            Way::To => (&mut peer.lacks, &mut peer.lacks_since),
            Way::From => (&mut peer.owes, &mut peer.owes_since),
        };
        *total += behind;
        *since = older(*since, behind_since);
        let sum = peer.sums.entry((way, kind.clone())).or_default();
        sum.held += held;
        sum.cosigned += cosigned.unwrap_or(0);
        sum.behind += behind;
        sum.since = older(sum.since, behind_since);
        let error = reach.errors.get(origin).cloned();
        if !above && way == Way::To && behind == 0 && error.is_none() {
            peer.whole += 1;
            return Ok(());
        }
        peer.ledgers.push(LedgerSync {
            origin: origin.clone(),
            kind,
            way,
            size,
            held,
            cosigned,
            behind,
            behind_since,
            error,
        });
        Ok(())
    }

    /// Size of the newest head here that a node signed as held.
    fn signed_by(&self, line: &Line, division: &DivisionId) -> Result<u64> {
        let name = format!("{}/{division}/held", self.config.realm);
        let mut newest = 0;
        for note in [&line.head.whole, &line.head.cosigned]
            .into_iter()
            .flatten()
        {
            let signed = Note::parse(note.as_bytes())
                .is_ok_and(|note| note.signatures().iter().any(|line| line.name() == name));
            if signed {
                newest = newest.max(checkpoint_of(note)?.size());
            }
        }
        Ok(newest)
    }

    /// When an entry was recorded, by its writer's clock. An act has the time of what it signs.
    fn recorded_at(&self, origin: &Origin, index: u64) -> Result<Option<UnixMillis>> {
        let bytes = self.store.get(&table::entry(origin, index))?;
        Ok(bytes
            .and_then(|bytes| Entry::decode(&bytes).ok())
            .map(|entry| time_of(&entry)))
    }
}

fn of(name: String, relation: Relation, line: Option<PeerLine>, reach: &Reach) -> PeerSync {
    let connected = line.as_ref().is_some_and(|line| line.connected);
    PeerSync {
        peer: name,
        relation,
        connected,
        transport: reach.transport.filter(|_| connected),
        fell_back: reach.fell_back.clone(),
        since: line.as_ref().map(|line| line.since).or(reach.seen),
        refused: line.as_ref().map_or(0, |line| line.refused),
        last_error: line.and_then(|line| line.last_error),
        next_try: reach.next_try.filter(|_| !connected),
        sent: reach.sent,
        received: reach.received,
        lacks: 0,
        lacks_since: None,
        owes: 0,
        owes_since: None,
        whole: 0,
        ledgers: Vec::new(),
        versions: Vec::new(),
        ferry: None,
        sums: BTreeMap::new(),
    }
}

fn time_of(entry: &Entry) -> UnixMillis {
    match entry {
        Entry::Record(e) => e.recorded_at,
        Entry::Act(e) => e.signed_at,
        Entry::Authority(e) => e.recorded_at,
        Entry::Access(e) => e.recorded_at,
        Entry::Grant(e) => e.recorded_at,
        Entry::Recovery(e) => e.recorded_at,
        Entry::Letter(e) => e.recorded_at,
    }
}

/// One metric: name, type, help, and lines of labels and value.
type Metric = (&'static str, &'static str, &'static str, Vec<(String, u64)>);

/// The metrics of parent and children. Labels are divisions with a charter and kinds of ledgers, so
/// no peer can make more of them.
pub(super) fn metrics(status: &SyncStatus) -> Vec<Metric> {
    let peers: Vec<&PeerSync> = status
        .peers
        .iter()
        .filter(|peer| peer.relation != Relation::Stranger)
        .collect();
    let by_peer = |value: fn(&PeerSync) -> Option<u64>| -> Vec<(String, u64)> {
        let lines = peers.iter().filter_map(|peer| {
            let value = value(peer)?;
            Some((format!("{{peer=\"{}\"}}", peer.peer), value))
        });
        lines.collect()
    };
    let by_kind = |value: fn(&Sum) -> Option<u64>| -> Vec<(String, u64)> {
        let mut lines = Vec::new();
        for peer in &peers {
            for ((way, kind), sum) in &peer.sums {
                let way = if *way == Way::To { "to" } else { "from" };
                let labels = format!("{{peer=\"{}\",way=\"{way}\",kind=\"{kind}\"}}", peer.peer);
                lines.extend(value(sum).map(|value| (labels, value)));
            }
        }
        lines
    };
    vec![
        (
            "fangzhi_sync_held_entries",
            "gauge",
            "Entries that the taking side holds, to or from the peer.",
            by_kind(|sum| Some(sum.held)),
        ),
        (
            "fangzhi_sync_cosigned_entries",
            "gauge",
            "Entries that the taking side signed as held.",
            by_kind(|sum| Some(sum.cosigned)),
        ),
        (
            "fangzhi_sync_behind_entries",
            "gauge",
            "Entries that the taking side lacks.",
            by_kind(|sum| Some(sum.behind)),
        ),
        (
            "fangzhi_sync_behind_since_timestamp_seconds",
            "gauge",
            "The time of the oldest entry that the taking side lacks.",
            by_kind(|sum| sum.since.map(UnixMillis::secs)),
        ),
        (
            "fangzhi_sync_sent_bytes_total",
            "counter",
            "Bytes of messages to the peer since the start.",
            by_peer(|peer| Some(peer.sent)),
        ),
        (
            "fangzhi_sync_received_bytes_total",
            "counter",
            "Bytes of messages from the peer since the start.",
            by_peer(|peer| Some(peer.received)),
        ),
        (
            "fangzhi_sync_failing",
            "gauge",
            "Whether there is an error that nothing cleared since.",
            by_peer(|peer| {
                let ledger = peer.ledgers.iter().any(|l| l.error.is_some());
                Some(u64::from(peer.last_error.is_some() || ledger))
            }),
        ),
        (
            "fangzhi_sync_connected",
            "gauge",
            "Whether a session is open, and over which transport.",
            peers
                .iter()
                .filter_map(|peer| {
                    let over = peer.transport?.as_str();
                    Some((
                        format!("{{peer=\"{}\",transport=\"{over}\"}}", peer.peer),
                        1,
                    ))
                })
                .collect(),
        ),
        (
            "fangzhi_ferry_unknown",
            "gauge",
            "Whether files were carried to the peer that it did not acknowledge: what it holds is unknown.",
            by_peer(|peer| {
                let ferry = peer.ferry.as_ref()?;
                Some(u64::from(ferry.state == FerryState::Unknown))
            }),
        ),
        (
            "fangzhi_ferry_packed_bundle",
            "gauge",
            "Number of the bundle packed last for the peer.",
            by_peer(|peer| peer.ferry.as_ref().map(|ferry| ferry.packed)),
        ),
        (
            "fangzhi_ferry_acknowledged_bundle",
            "gauge",
            "Number of the newest bundle that the peer acknowledged.",
            by_peer(|peer| peer.ferry.as_ref().map(|ferry| ferry.acknowledged)),
        ),
        (
            "fangzhi_sync_fell_back",
            "gauge",
            "Whether the parent is not reached by the transport that is preferred.",
            by_peer(|peer| {
                let parent = peer.relation == Relation::Parent;
                parent.then_some(u64::from(peer.fell_back.is_some()))
            }),
        ),
        (
            "fangzhi_sync_next_try_timestamp_seconds",
            "gauge",
            "When the peer is dialled again.",
            by_peer(|peer| peer.next_try.map(UnixMillis::secs)),
        ),
    ]
}
