//! One replication session: `sync` decides, `registry` keeps, `p2p` carries.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ledger::evidence::{Evidence, Form};
use ledger::verify::Verified;
use p2p::{Conversation, ReceiveError};
use record::authority::Charter;
use record::id::Origin;
use registry::addresses::Transport;
use registry::heads::Looked;
use registry::standing::PeerStanding;
use registry::{Registry, error::RegistryError};
use sync::code::{RefusalCode, RejectCode};
use sync::output::{Output, Side};
use sync::session::Session;
use sync::trust::Trust;

use crate::carry::{Ahead, Keeping, Kept};
use crate::ways;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// A head that moves is offered at once; those that move within this time after it, together. To the
/// parent, for whom an edit is not to wait; and to others.
const PACE_UP: Duration = Duration::from_millis(2);
const PACE_DOWN: Duration = Duration::from_millis(50);
/// Everything is looked at anew so often, whether it is known to have moved or not.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// For each head that a peer was told of it is told no head for so long: nobody waits for these.
const TELL_PACE: Duration = Duration::from_millis(200);
/// For each head that any peer was told of all together: with many children each waits longer.
const TELL_PACE_ALL: Duration = Duration::from_millis(4);
/// That many are told at once without a pause but the usual one.
const TELL_FREE: usize = 16;
/// A ledger that was not taken is offered again after a tick, then after twice as long, up to this.
const AGAIN_MAX: Duration = Duration::from_secs(8);
/// Ledgers that the peer did not take are offered again, and revocations looked for.
const TICK: Duration = Duration::from_secs(1);
/// Where a session stands is reported after so many of them, also when nothing was said.
const REPORT_TICKS: u32 = 10;
/// Whether charters are over is looked at so often; that one was revoked, at once.
const STANDING_AGAIN: Duration = Duration::from_secs(5);
/// For what was sent last, a refusal say, to reach the peer.
const FAREWELL: Duration = Duration::from_secs(10);
/// The most ledgers of a session that are logged because they were not taken.
const DECLINED_MAX: usize = 64;
/// After so many times, some seconds, it is no longer likely that a charter is on its way.
const DECLINED_LOGGED: u32 = 4;
/// A peer that has not said who it is by then makes room for others.
const OPENING: Duration = Duration::from_secs(30);
/// A peer that asks for more than it takes is dropped at this many bytes waiting for it.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a session ended.
#[derive(Debug)]
pub struct Ended {
    /// The peer, once it was known.
    pub peer: Option<Charter>,
    /// In words.
    pub reason: String,
    /// Whether one side refused the other.
    pub refused: bool,
    /// Whether the peer's standing ended while the session was open: its connection is to be cut.
    pub cut: bool,
    /// The charter chain, when the session was an enrolment that succeeded.
    pub enrolled: Option<Vec<Charter>>,
}

struct Driver {
    registry: Arc<Registry>,
    session: Session,
    peer_key: [u8; 32],
    /// What carries the session.
    over: Transport,
    /// How often the node's keys were opened or locked when the session began.
    turns: u64,
    /// How many keys of the root were known to be succeeded when the session began.
    successions: usize,
    /// Unbounded in form; `waiting` bounds it.
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes handed over and not yet with the transport.
    waiting: Arc<AtomicUsize>,
    /// The peer's charters, its own first, once the session is open.
    chain: Vec<Charter>,
    /// How far the peer's clock is ahead of this one, in milliseconds, when that is too much.
    skew: i64,
    /// What was known of who is who when that chain was last looked at, and when to look again.
    looked_at_chain: Option<(u64, Instant)>,
    keeping: Keeping,
    ahead: Ahead,
    /// How far the heads were looked at: for offers, and for telling.
    looked: Looked,
    looked_to_tell: Looked,
    /// Ledgers to be offered again although they did not move, and from when on.
    again: BTreeMap<Origin, Instant>,
    /// How long to wait before that, of ledgers that were not taken.
    patience: BTreeMap<Origin, Duration>,
    /// When everything is looked at anew, and the peer is told more.
    look_again: Instant,
    tell_at: Instant,
    /// Ledgers that were not taken from this peer, each logged once.
    declined: BTreeMap<Origin, u32>,
    /// Heads that could not be signed when they came; tried again each second.
    unsigned: BTreeMap<Origin, Box<Verified>>,
    /// The note last offered of each ledger.
    offered: BTreeMap<Origin, String>,
    /// What the peer was last told was seen of each ledger, both as hashes: a parent of hundreds
    /// tells each of them of thousands. Should two fall together, a head is told when it moves.
    told: HashMap<u64, u64>,
    hashing: RandomState,
    /// How many alarms there had been when evidence was looked for.
    alarms: Option<u64>,
    ended: Ended,
    closing: bool,
    /// When a message of the peer came last.
    heard: Instant,
    /// The peer takes less than it asks for.
    deaf: bool,
    /// Bytes sent and received that the registry was not told of yet.
    bytes: (u64, u64),
    /// For how many ticks it was told nothing.
    unreported: u32,
}

/// Runs a session to its end, or until `stop` says that a newer connection takes its place.
pub async fn drive(
    registry: Arc<Registry>,
    session: Session,
    conversation: Conversation,
    mut heads: watch::Receiver<u64>,
    mut stop: oneshot::Receiver<()>,
) -> Ended {
    let peer_key = conversation.peer();
    let over = ways::transport(&conversation);
    let (sender, mut receiver) = conversation.split();
    // A task of its own sends, so that waiting for the peer's credit never stops the reading.
    let (outgoing, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sent = waiting.clone();
    let sending = tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            let cost = cost(&message);
            if sender.send(message).await.is_err() {
                return;
            }
            sent.fetch_sub(cost, Ordering::AcqRel);
        }
        let _ = sender.close().await;
    });
    let mut driver = Driver {
        turns: registry.custody_turns(),
        successions: registry.successions().len(),
        registry,
        session,
        peer_key,
        over,
        outgoing,
        waiting,
        chain: Vec::new(),
        skew: 0,
        looked_at_chain: None,
        keeping: Keeping::default(),
        ahead: Ahead::default(),
        looked: Looked::default(),
        looked_to_tell: Looked::default(),
        again: BTreeMap::new(),
        patience: BTreeMap::new(),
        look_again: Instant::now() + LOOK_AGAIN,
        tell_at: Instant::now(),
        declined: BTreeMap::new(),
        unsigned: BTreeMap::new(),
        offered: BTreeMap::new(),
        told: HashMap::new(),
        hashing: RandomState::new(),
        alarms: None,
        ended: Ended {
            peer: None,
            reason: String::new(),
            refused: false,
            cut: false,
            enrolled: None,
        },
        closing: false,
        heard: Instant::now(),
        deaf: false,
        bytes: (0, 0),
        unreported: 0,
    };
    let outputs = driver.session.start(api::now());
    driver.perform(outputs);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut offer_at: Option<Instant> = None;
    let mut offered_at = began;
    let mut replaced = false;
    while !driver.closing {
        tokio::select! {
            _ = &mut stop => {
                replaced = true;
                driver.end("同一节点的新连接取代了本连接 / a newer connection of the same node takes the place of this one");
            }
            message = receiver.next() => match message {
                Some(Ok(message)) => {
                    let was_open = driver.session.is_open();
                    driver.receive(&message);
                    if !was_open && driver.session.is_open() {
                        offer_at = Some(Instant::now());
                    }
                }
                Some(Err(error)) => driver.broken(&error),
                None => driver.end("对方已断开 / the peer closed the connection"),
            },
            changed = heads.changed() => {
                if changed.is_err() {
                    driver.end("节点正在停止 / the node is stopping");
                }
                // What moved may be a revocation: it cuts live sessions at once.
                driver.check_standing();
                offer_at.get_or_insert(Instant::now().max(offered_at + driver.pace()));
            }
            kept = driver.keeping.next() => driver.kept(kept),
            () = sleep_until(offer_at.unwrap_or_else(Instant::now)), if offer_at.is_some() => {
                offer_at = None;
                offered_at = Instant::now();
                if driver.offer() {
                    driver.tell();
                } else {
                    offer_at = Some(Instant::now() + PACE_DOWN);
                }
            }
            _ = tick.tick() => {
                driver.check_standing();
                driver.sign_again();
                driver.report_at_times();
                // A recovery takes its time, as long as the new machine goes on asking.
                let since = if driver.session.is_giving() { driver.heard } else { began };
                if !driver.session.is_open() && since.elapsed() > OPENING {
                    driver.silent();
                }
                if driver.has_to_look() {
                    offer_at.get_or_insert(Instant::now());
                }
            }
        }
    }
    driver.report(true);
    let Driver {
        outgoing,
        ended,
        deaf,
        keeping,
        ..
    } = driver;
    // The next session with this peer begins from what is durable then.
    keeping.finish().await;
    drop(outgoing);
    // A line that was replaced is most likely dead, and a peer that takes nothing takes no
    // farewell either: nothing waits for them.
    let patience = if replaced || deaf {
        Duration::ZERO
    } else {
        FAREWELL
    };
    let abort = sending.abort_handle();
    if timeout(patience, sending).await.is_err() {
        abort.abort();
    }
    ended
}

impl Driver {
    fn end(&mut self, reason: impl Into<String>) {
        if !self.closing {
            self.closing = true;
            if self.ended.reason.is_empty() {
                self.ended.reason = reason.into();
            }
        }
    }

    /// Whether there may be something to offer or to tell; of hundreds of children most are idle in
    /// any one second.
    fn has_to_look(&self) -> bool {
        let Some(peer) = self.session.peer() else {
            return false;
        };
        let (now, registry) = (Instant::now(), &self.registry);
        let is_child = peer.parent == registry.config().division;
        !is_child
            || !self.again.is_empty()
            || now >= self.look_again
            || self.alarms != Some(registry.alarms_raised())
            || registry.has_more_for_child(&self.looked)
            || (now >= self.tell_at && registry.has_more_to_tell(&self.looked_to_tell))
    }

    /// Reports each second in which something went over the line, and now and then without.
    fn report_at_times(&mut self) {
        self.unreported += 1;
        if self.bytes != (0, 0) || self.unreported >= REPORT_TICKS {
            self.unreported = 0;
            self.report(false);
        }
    }

    /// Tells the registry where the session stands and what went over the line.
    fn report(&mut self, ended: bool) {
        let Some(peer) = &self.ended.peer else {
            return;
        };
        let bytes = std::mem::take(&mut self.bytes);
        let ledgers = self.session.status();
        block_in_place(|| {
            let name = peer.division.as_str();
            self.registry
                .peer_stands(name, ledgers, bytes, ended, api::now());
        });
    }

    fn receive(&mut self, message: &[u8]) {
        self.heard = Instant::now();
        self.bytes.1 += message.len() as u64;
        let outputs = block_in_place(|| {
            self.session
                .receive(message, api::now(), self.registry.as_ref())
        });
        self.perform(outputs);
    }

    /// Ends the session of a peer whose charter was revoked meanwhile.
    fn check_standing(&mut self) {
        // A locked node cosigns nothing: once it is open, everything is offered to it again.
        if self.registry.custody_turns() != self.turns {
            self.end("密钥已打开或锁定，重新连接 / the keys were opened or locked; the session begins anew");
        }
        // The peer has to know the root's next key before it is shown what that key signed.
        if self.registry.successions().len() != self.successions {
            self.end("根钥已继任，重新连接 / the root has another key; the session begins anew");
        }
        if self.closing || self.chain.is_empty() {
            return;
        }
        // Asked whenever any head moves: hashing charters is left for when it may say something else.
        let (known, now) = (self.registry.charters_known(), Instant::now());
        if matches!(self.looked_at_chain, Some((then, next)) if then == known && now < next) {
            return;
        }
        self.looked_at_chain = Some((known, now + STANDING_AGAIN));
        let code = match self.registry.peer_standing(&self.chain, api::now()) {
            PeerStanding::Holds(chain) => {
                self.chain = chain;
                return;
            }
            PeerStanding::OtherKeys => {
                self.ended.cut = true;
                self.end(
                    "对方已换密钥，重新连接 / the peer has other keys; the session begins anew",
                );
                return;
            }
            PeerStanding::Revoked => RefusalCode::Revoked,
            PeerStanding::Expired => RefusalCode::Expired,
        };
        tracing::warn!(
            code = code.as_str(),
            reason = code.text(),
            "a live replication session was cut"
        );
        self.registry.count_refusal(code.as_str(), 1);
        self.ended.refused = true;
        self.ended.cut = true;
        self.end(format!(
            "refused by this node: {} ({})",
            code.as_str(),
            code.text()
        ));
    }

    /// Ends a session that never opened.
    fn silent(&mut self) {
        tracing::warn!(code = "silent", "a peer did not say who it is");
        self.registry.count_refusal("silent", 1);
        self.ended.cut = true;
        self.end("对方没有及时表明身份 / the peer did not say in time who it is");
    }

    /// Ends the session because the transport did, and counts what the peer is to blame for.
    fn broken(&mut self, error: &ReceiveError) {
        let reason = match error {
            ReceiveError::Broken(_) => Some("frame"),
            ReceiveError::Stalled { .. } => Some("stalled"),
            ReceiveError::Lost | ReceiveError::Refused | ReceiveError::TooSlow => None,
        };
        if let Some(reason) = reason {
            tracing::warn!(code = reason, %error, "the peer's frames were refused");
            self.registry.count_refusal(reason, 1);
        }
        self.end(error.to_string());
    }

    /// Signs the heads that could not be signed before.
    fn sign_again(&mut self) {
        let unsigned = std::mem::take(&mut self.unsigned);
        let again = unsigned
            .into_iter()
            .map(|(origin, verified)| Output::Cosign { origin, verified });
        self.perform(again.collect());
    }

    /// Offers every ledger whose head moved since it was last offered. False when the peer has to
    /// take some of it first.
    fn offer(&mut self) -> bool {
        self.check_standing();
        let Some(peer) = self.session.peer().cloned().filter(|_| !self.closing) else {
            return true;
        };
        let now = Instant::now();
        if now >= self.look_again {
            self.look_again = now + LOOK_AGAIN;
            self.looked = Looked::default();
        }
        let due = self.again.extract_if(.., |_, at| *at <= now);
        let again: BTreeSet<Origin> = due.map(|(origin, _)| origin).collect();
        let look = || self.registry.offers_moved(&peer, &mut self.looked, &again);
        let offers = match block_in_place(look) {
            Ok(offers) => offers,
            Err(error) => {
                tracing::error!(%error, "the ledgers to offer could not be read");
                self.again
                    .extend(again.into_iter().map(|o| (o, now + TICK)));
                return true;
            }
        };
        let mut offers = offers.into_iter();
        while let Some((origin, note)) = offers.next() {
            if self.offered.get(&origin) == Some(&note) {
                continue;
            }
            if self.waiting.load(Ordering::Acquire) > WAITING_BYTES_MAX / 4 {
                let left = offers.map(|(origin, _)| origin).chain([origin]);
                self.again.extend(left.map(|origin| (origin, now)));
                return false;
            }
            match self.session.offer(origin.clone(), note.clone()) {
                Ok(outputs) => {
                    self.offered.insert(origin, note);
                    self.perform(outputs);
                }
                Err(error) => tracing::warn!(%origin, %error, "a ledger could not be offered"),
            }
        }
        true
    }

    /// Tells the peer of evidence at once, and of heads that were seen when it is time, each once.
    fn tell(&mut self) {
        let Some(peer) = self.session.peer().cloned() else {
            return;
        };
        let (now, raised) = (Instant::now(), self.registry.alarms_raised());
        let is_due = now >= self.tell_at;
        if !is_due && self.alarms == Some(raised) {
            return;
        }
        let look = || match is_due {
            true => self.registry.heads_to_tell(&peer, &mut self.looked_to_tell),
            false => self.registry.evidence_to_tell(),
        };
        let seen = match block_in_place(look) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%error, "the heads seen could not be read");
                return;
            }
        };
        self.alarms = Some(raised);
        let mut count = 0usize;
        for (origin, notes) in seen {
            if self.waiting.load(Ordering::Acquire) > WAITING_BYTES_MAX / 4 {
                // The rest is looked at once more.
                self.looked_to_tell = Looked::default();
                self.alarms = None;
                break;
            }
            let said = self.hashing.hash_one(&notes);
            if self.told.insert(self.hashing.hash_one(&origin), said) != Some(said) {
                count += 1;
                let outputs = self.session.tell(origin, notes);
                self.perform(outputs);
            }
        }
        if is_due {
            self.tell_at = now + pause_after(count, self.registry.peers_connected());
        }
    }

    /// How long heads that move gather before they are offered.
    fn pace(&self) -> Duration {
        let parent = self.registry.config().parent.as_ref();
        let peer = self.ended.peer.as_ref();
        let is_parent = parent.map(|p| &p.division) == peer.map(|p| &p.division);
        if is_parent { PACE_UP } else { PACE_DOWN }
    }

    /// Has a ledger offered again although it did not move, later each time.
    fn offer_again(&mut self, origin: &Origin) {
        self.offered.remove(origin);
        let patience = self.patience.entry(origin.clone()).or_insert(TICK / 2);
        *patience = AGAIN_MAX.min(*patience * 2);
        self.again
            .insert(origin.clone(), Instant::now() + *patience);
    }

    /// A commit ended: the session goes on from it.
    fn kept(&mut self, kept: Option<Kept>) {
        let Some(kept) = kept else {
            self.end("收存时出错 / keeping entries stopped before its end");
            return;
        };
        self.keeping.begin(&self.registry);
        let Kept {
            origin,
            sizes,
            done,
        } = kept;
        if let Err(error) = &done {
            tracing::error!(%origin, %error, "entries could not be stored");
        }
        for size in sizes {
            let outputs = match &done {
                Ok(()) => self.session.stored(&origin, size, self.registry.as_ref()),
                Err(_) => self.session.not_stored(
                    &origin,
                    "the entries cannot be stored at the receiver",
                    self.registry.as_ref(),
                ),
            };
            self.perform(outputs);
        }
    }

    /// Does what the session asks, and what it asks after that, in order.
    fn perform(&mut self, outputs: Vec<Output>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            let more = match output {
                Output::Send(bytes) => {
                    self.send(bytes.0);
                    continue;
                }
                Output::Store(delivery) => {
                    self.keeping.push(&self.registry, *delivery);
                    continue;
                }
                output => block_in_place(|| self.one(output)),
            };
            // Answers come before what was asked later, so that a ledger's messages stay in order.
            for output in more.into_iter().rev() {
                outputs.push_front(output);
            }
        }
    }

    fn send(&mut self, message: Vec<u8>) {
        if self.deaf {
            return;
        }
        self.bytes.0 += message.len() as u64;
        let before = self.waiting.fetch_add(cost(&message), Ordering::AcqRel);
        if before > WAITING_BYTES_MAX {
            tracing::warn!(code = "too-slow", "the peer asks for more than it takes");
            self.registry.count_refusal("too-slow", 1);
            self.deaf = true;
            self.end("对方不收数据 / the peer asks for more than it takes");
        } else if self.outgoing.send(message).is_err() {
            self.end("对方已断开 / the peer closed the connection");
        }
    }

    fn one(&mut self, output: Output) -> Vec<Output> {
        let now = api::now();
        match output {
            // Done by `perform`.
            Output::Send(_) | Output::Store(_) => Vec::new(),
            Output::Opened { chain } => {
                self.ended.peer = chain.first().cloned();
                self.chain.clone_from(&chain);
                self.registry.met(&chain, now);
                if let Some(peer) = chain.first() {
                    let theirs = record::id::UnixMillis(now.0.saturating_add_signed(self.skew));
                    let (name, over) = (peer.division.as_str(), self.over);
                    self.registry.compare_clock(name, theirs, now, now);
                    tracing::info!(
                        peer = name,
                        over = over.as_str(),
                        "replication session open"
                    );
                    self.registry.peer_over(name, over);
                    self.registry.peer_seen(name, true, None, false, now);
                }
                Vec::new()
            }
            Output::Succeeded(successions) => {
                tracing::info!("the root has another key");
                self.registry.succeeded(&successions, now);
                self.successions = self.registry.successions().len();
                Vec::new()
            }
            Output::RenewRequested(request) => match self.registry.renew_charter(&request, now) {
                Ok(chain) => {
                    tracing::info!(division = %request.division, "charter issued for other keys");
                    self.session.enrolled(chain)
                }
                Err(error) => {
                    tracing::warn!(division = %request.division, %error, "no charter for other keys");
                    self.session
                        .enrol_refused(RefusalCode::Enrolment, &error.to_string())
                }
            },
            Output::EnrolRequested(enrolment) => {
                if enrolment.keys.transport != self.peer_key {
                    return self.session.enrol_refused(RefusalCode::WrongKey, "");
                }
                match self.registry.enrol(
                    &enrolment.division,
                    enrolment.secret.expose(),
                    &enrolment.keys,
                    now,
                ) {
                    Ok(chain) => {
                        tracing::info!(division = %enrolment.division, "charter issued");
                        self.session.enrolled(chain)
                    }
                    Err(error) => {
                        tracing::warn!(division = %enrolment.division, "enrolment refused");
                        self.session
                            .enrol_refused(RefusalCode::Enrolment, &error.to_string())
                    }
                }
            }
            Output::RecoveryAsked(ask) => {
                match self.registry.recovery_piece(&ask, &self.peer_key, now) {
                    Ok(piece) => self.session.recovery_piece(piece),
                    Err(error) => {
                        tracing::warn!(division = %ask.division, code = "recovery", "a recovery was refused");
                        self.registry.count_refusal("recovery", 1);
                        self.session
                            .enrol_refused(RefusalCode::Enrolment, &error.to_string())
                    }
                }
            }
            // Asked for by `fetch` alone, which is no session of a running node.
            Output::RecoveryPiece(_) => Vec::new(),
            Output::Enrolled { chain } => {
                self.ended.enrolled = Some(chain);
                Vec::new()
            }
            Output::Load(load) => match self.ahead.load(&self.registry, &load) {
                Ok(loaded) => self.session.loaded(loaded),
                Err(error) => {
                    tracing::error!(origin = %load.origin, %error, "entries could not be loaded");
                    // The peer lets the ledger go; it is offered again.
                    self.offer_again(&load.origin);
                    self.session
                        .cannot_load(&load.origin, "the entries cannot be read at the sender")
                }
            },
            Output::Cosign { origin, verified } => match self.registry.cosign(&verified, now) {
                // The peer checks it with the keys that this session began under.
                Ok(_) if self.registry.custody_turns() != self.turns => {
                    self.check_standing();
                    Vec::new()
                }
                Ok((size, lines)) => self.session.cosigned(&origin, size, lines),
                // More was stored meanwhile, and its own head follows.
                Err(RegistryError::Conflict(_)) => Vec::new(),
                Err(error) => {
                    tracing::warn!(%origin, %error, "a head was not cosigned; it is tried again");
                    self.unsigned.insert(origin, verified);
                    Vec::new()
                }
            },
            Output::Cosigned {
                origin,
                size,
                lines,
            } => {
                self.patience.remove(&origin);
                if let Err(error) = self.registry.cosigned(&origin, size, &lines, now) {
                    tracing::error!(%origin, %error, "a cosignature could not be kept");
                }
                Vec::new()
            }
            Output::Fork { origin, evidence } => {
                tracing::error!(%origin, code = "fork", "two signed histories: evidence kept");
                self.registry.count_refusal("fork", 1);
                self.registry.fork(&origin, signed_notes(&evidence), now);
                Vec::new()
            }
            Output::Seen {
                origin,
                checkpoint,
                note,
            } => {
                if let Err(error) = self.registry.head_seen(&origin, &checkpoint, &note, now) {
                    tracing::error!(%origin, %error, "a head that the peer saw could not be compared");
                }
                Vec::new()
            }
            Output::Alarm {
                origin,
                code,
                held,
                reason,
            } => {
                tracing::error!(%origin, code = code.as_str(), held, %reason, "alarm");
                self.registry.count_refusal(code.as_str(), 1);
                if code == RejectCode::Shorter {
                    self.registry.owner_is_behind(&origin);
                }
                self.registry
                    .alarm(&origin, code.as_str(), &reason, Vec::new(), now);
                Vec::new()
            }
            Output::Declined {
                origin,
                code,
                reason,
                passing,
            } => {
                // From a flooding peer it comes all the time: counted always, logged once. While a
                // charter may be on its way, only when offering it again did not help.
                if self.declined.len() < DECLINED_MAX || self.declined.contains_key(&origin) {
                    let times = self.declined.entry(origin.clone()).or_default();
                    *times = times.saturating_add(1);
                    if *times == if passing { DECLINED_LOGGED } else { 1 } {
                        tracing::warn!(%origin, code = code.as_str(), %reason, "a ledger was not taken");
                    }
                }
                self.registry.count_refusal(code.as_str(), 1);
                Vec::new()
            }
            Output::Rejected {
                origin,
                code,
                size,
                reason,
                note,
            } => {
                if code == RejectCode::Shorter
                    && self.registry.told_of_more(&origin, note.as_deref())
                {
                    return Vec::new();
                }
                self.rejected(&origin, code, size, &reason);
                Vec::new()
            }
            Output::Refused { code, reason, by } => {
                let who = if by == Side::Own {
                    "refused by this node"
                } else {
                    "refused by the peer"
                };
                tracing::warn!(code = code.as_str(), %reason, who, "replication session refused");
                if by == Side::Own {
                    self.registry.count_refusal(code.as_str(), 1);
                }
                self.ended.refused = true;
                self.ended.reason = format!("{who}: {} ({reason})", code.as_str());
                Vec::new()
            }
            Output::ClockSkew { millis } => {
                // Who it is comes with the chain, next.
                self.skew = millis;
                Vec::new()
            }
            Output::Close { reason } => {
                self.end(reason);
                Vec::new()
            }
        }
    }

    fn rejected(&mut self, origin: &Origin, code: RejectCode, size: u64, reason: &str) {
        self.ahead.forget(origin);
        match code {
            // Charters may be on their way, or the peer is busy.
            RejectCode::NotAccepted | RejectCode::Unavailable => {
                tracing::debug!(%origin, code = code.as_str(), reason, "not taken yet");
                self.offer_again(origin);
            }
            _ => {
                tracing::error!(%origin, code = code.as_str(), size, reason, "the peer rejects a ledger");
                let words = format!("the peer rejects this ledger: {reason}");
                self.registry.alarm(
                    origin,
                    &format!("rejected-{}", code.as_str()),
                    &words,
                    Vec::new(),
                    api::now(),
                );
            }
        }
    }
}

/// How long a peer is told no more heads after so many, with so many peers connected.
fn pause_after(told: usize, peers: usize) -> Duration {
    let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let pace = TELL_PACE.max(TELL_PACE_ALL.saturating_mul(bounded(peers)));
    TICK.max(pace.saturating_mul(bounded(told.saturating_sub(TELL_FREE))))
}

/// What a message that waits counts, so that many small ones are bounded too.
fn cost(message: &[u8]) -> usize {
    message.len() + p2p::MESSAGE_OVERHEAD
}

/// The signed checkpoints of a piece of evidence.
fn signed_notes(evidence: &Evidence) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match evidence.form() {
        Form::Roots { notes } => notes.iter().map(|note| text(note)).collect(),
        Form::Leaves { proofs, .. } => proofs.iter().map(|proof| text(proof.note())).collect(),
    }
}

/// Asks the parent for a charter and gives the chain, own first.
pub async fn ask_charter(
    session: Session,
    conversation: Conversation,
    trust: &(dyn Trust + Sync),
) -> Result<Vec<Charter>, String> {
    asked(
        session,
        conversation,
        trust,
        "the parent closed the connection",
    )
    .await
}

/// Trust of a node that has no store yet: only the chain that comes back is looked at, later.
pub struct NoStore {
    /// The realm root's `sign` key, as the invitation has it.
    pub root: [u8; 32],
}

impl Trust for NoStore {
    fn realm_root(&self) -> [u8; 32] {
        self.root
    }

    fn is_revoked(&self, _: &[u8; 32]) -> bool {
        false
    }

    fn log(&self, _: &Origin, _: &str) -> Option<ledger::note::Verifier> {
        None
    }

    fn accept(
        &self,
        _: &Charter,
        _: &Origin,
        _: &str,
    ) -> Result<sync::trust::Accept, sync::trust::Refusal> {
        Err(sync::trust::Refusal {
            reason: "this node is not enrolled yet".into(),
            passing: false,
        })
    }
}

/// Runs an enrolment to its end and gives the charter chain, own first.
pub async fn enrol(
    session: Session,
    conversation: Conversation,
    root: [u8; 32],
) -> Result<Vec<Charter>, String> {
    let otherwise = "the parent closed the connection; ask whether the invitation is still valid";
    asked(session, conversation, &NoStore { root }, otherwise).await
}

async fn asked(
    mut session: Session,
    conversation: Conversation,
    trust: &(dyn Trust + Sync),
    otherwise: &str,
) -> Result<Vec<Charter>, String> {
    let (sender, mut receiver) = conversation.split();
    let mut outputs = session.start(api::now());
    let mut reason = String::from(otherwise);
    loop {
        for output in outputs {
            match output {
                Output::Send(bytes) => sender.send(bytes.0).await.map_err(|e| e.to_string())?,
                Output::Enrolled { chain } => return Ok(chain),
                Output::Refused { reason: words, .. } => reason = words,
                Output::Close { .. } => return Err(reason),
                _ => {}
            }
        }
        match receiver.next().await {
            Some(Ok(message)) => outputs = session.receive(&message, api::now(), trust),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_heads_are_told_each_second_and_all_peers_together_are_told_no_more_than_250() {
        assert_eq!(pause_after(TELL_FREE, 300), TICK);
        assert_eq!(pause_after(TELL_FREE + 10, 2), TELL_PACE * 10);
        for peers in [100, 300, 2_400] {
            // Every child is told of every other's head, as fast as may be.
            let each_second = (peers - TELL_FREE) as f64 / pause_after(peers, peers).as_secs_f64();
            let all = each_second * peers as f64;
            assert!((240.0..=250.0).contains(&all), "{peers}: {all}");
        }
        assert!(pause_after(usize::MAX, usize::MAX) > LOOK_AGAIN);
    }
}
