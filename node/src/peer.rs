//! One replication session: `sync` decides, `registry` keeps, `p2p` carries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ledger::evidence::{Evidence, Form};
use p2p::Conversation;
use record::authority::Charter;
use record::id::Origin;
use registry::Registry;
use sync::code::RejectCode;
use sync::output::{Output, Side};
use sync::session::Session;
use sync::trust::Trust;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Heads that move one after another are offered together.
const GATHER: Duration = Duration::from_millis(50);
/// Ledgers that the peer did not take are offered again, and revocations looked for.
const TICK: Duration = Duration::from_secs(1);
/// A peer that asks for more than it takes is dropped at this many messages waiting for it.
const WAITING_MAX: usize = 64;

/// How a session ended.
#[derive(Debug)]
pub struct Ended {
    /// The peer, once it was known.
    pub peer: Option<Charter>,
    /// In words.
    pub reason: String,
    /// Whether one side refused the other.
    pub refused: bool,
    /// The charter chain, when the session was an enrolment that succeeded.
    pub enrolled: Option<Vec<Charter>>,
}

struct Driver {
    registry: Arc<Registry>,
    session: Session,
    peer_key: [u8; 32],
    /// How often the node's keys were opened or locked when the session began.
    turns: u64,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// The note last offered of each ledger.
    offered: BTreeMap<Origin, String>,
    /// What the peer was last told was seen of each ledger.
    told: BTreeMap<Origin, Vec<String>>,
    ended: Ended,
    closing: bool,
}

/// Runs a session to its end.
pub async fn drive(
    registry: Arc<Registry>,
    session: Session,
    conversation: Conversation,
    mut heads: watch::Receiver<u64>,
) -> Ended {
    let peer_key = conversation.peer();
    let (sender, mut receiver) = conversation.split();
    // A task of its own sends, so that waiting for the peer's credit never stops the reading.
    let (outgoing, mut queue) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
    let sending = tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
        // What was sent last, a refusal say, reaches the peer before the line is cut.
        let _ = tokio::time::timeout(Duration::from_secs(5), sender.close()).await;
    });
    let mut driver = Driver {
        turns: registry.custody_turns(),
        registry,
        session,
        peer_key,
        outgoing,
        offered: BTreeMap::new(),
        told: BTreeMap::new(),
        ended: Ended {
            peer: None,
            reason: String::new(),
            refused: false,
            enrolled: None,
        },
        closing: false,
    };
    let outputs = driver.session.start(api::now());
    driver.perform(outputs);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut offer_at: Option<Instant> = None;
    while !driver.closing {
        tokio::select! {
            message = receiver.next() => match message {
                Some(Ok(message)) => {
                    let was_open = driver.session.is_open();
                    driver.receive(&message);
                    if !was_open && driver.session.is_open() {
                        offer_at = Some(Instant::now());
                    }
                }
                Some(Err(error)) => driver.end(error.to_string()),
                None => driver.end("对方已断开 / the peer closed the connection"),
            },
            changed = heads.changed() => {
                if changed.is_err() {
                    driver.end("节点正在停止 / the node is stopping");
                }
                offer_at.get_or_insert(Instant::now() + GATHER);
            }
            () = sleep_until(offer_at.unwrap_or_else(Instant::now)), if offer_at.is_some() => {
                offer_at = None;
                driver.offer();
                driver.tell();
            }
            _ = tick.tick() => {
                driver.check_standing();
                offer_at.get_or_insert(Instant::now());
            }
        }
    }
    let Driver {
        outgoing, ended, ..
    } = driver;
    drop(outgoing);
    let _ = sending.await;
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

    fn receive(&mut self, message: &[u8]) {
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
        let revoked = self.session.peer().is_some_and(|peer| {
            self.registry.is_revoked(&peer.id()) || peer.not_after < api::now()
        });
        if revoked {
            self.ended.refused = true;
            self.end("对方证书已吊销或过期 / the peer's charter was revoked or has expired");
        }
    }

    /// Offers every ledger whose head moved since it was last offered.
    fn offer(&mut self) {
        let Some(peer) = self.session.peer().cloned() else {
            return;
        };
        let offers = match block_in_place(|| self.registry.offers(&peer)) {
            Ok(offers) => offers,
            Err(error) => {
                tracing::error!(%error, "the ledgers to offer could not be read");
                return;
            }
        };
        for (origin, note) in offers {
            if self.offered.get(&origin) == Some(&note) {
                continue;
            }
            match self.session.offer(origin.clone(), note.clone()) {
                Ok(outputs) => {
                    self.offered.insert(origin, note);
                    self.perform(outputs);
                }
                Err(error) => tracing::warn!(%origin, %error, "a ledger could not be offered"),
            }
        }
    }

    /// Tells the peer of heads that were seen, and of evidence, each once.
    fn tell(&mut self) {
        let Some(peer) = self.session.peer().cloned() else {
            return;
        };
        let seen = match block_in_place(|| self.registry.heads_to_tell(&peer)) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%error, "the heads seen could not be read");
                return;
            }
        };
        for (origin, notes) in seen {
            if self.told.get(&origin) != Some(&notes) {
                let outputs = self.session.tell(origin.clone(), notes.clone());
                self.told.insert(origin, notes);
                self.perform(outputs);
            }
        }
    }

    /// Does what the session asks, and what it asks after that, in order.
    fn perform(&mut self, outputs: Vec<Output>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            let more = block_in_place(|| self.one(output));
            // Answers come before what was asked later, so that a ledger's messages stay in order.
            for output in more.into_iter().rev() {
                outputs.push_front(output);
            }
        }
    }

    fn one(&mut self, output: Output) -> Vec<Output> {
        let now = api::now();
        match output {
            Output::Send(bytes) => {
                if self.outgoing.try_send(bytes.0).is_err() {
                    self.end("对方不收数据 / the peer asks for more than it takes");
                }
                Vec::new()
            }
            Output::Opened { chain } => {
                self.ended.peer = chain.first().cloned();
                if let Some(peer) = chain.first() {
                    tracing::info!(peer = %peer.division, "replication session open");
                    self.registry
                        .peer_seen(peer.division.as_str(), true, None, false, now);
                }
                Vec::new()
            }
            Output::EnrolRequested(enrolment) => {
                if enrolment.keys.transport != self.peer_key {
                    return self
                        .session
                        .enrol_refused(sync::code::RefusalCode::WrongKey, "");
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
                            .enrol_refused(sync::code::RefusalCode::Enrolment, &error.to_string())
                    }
                }
            }
            Output::Enrolled { chain } => {
                self.ended.enrolled = Some(chain);
                Vec::new()
            }
            Output::Load(load) => match self.registry.load(&load) {
                Ok(loaded) => self.session.loaded(loaded),
                Err(error) => {
                    tracing::error!(origin = %load.origin, %error, "entries could not be loaded");
                    self.session
                        .cannot_load(&load.origin, "the entries cannot be read at the sender")
                }
            },
            Output::Store(delivery) => {
                let origin = delivery.origin().clone();
                match self.registry.keep(*delivery, now) {
                    Ok(size) => self.session.stored(&origin, size, self.registry.as_ref()),
                    Err(error) => {
                        tracing::error!(%origin, %error, "entries could not be stored");
                        self.session.not_stored(
                            &origin,
                            "the entries cannot be stored at the receiver",
                            self.registry.as_ref(),
                        )
                    }
                }
            }
            Output::Cosign { origin, verified } => match self.registry.cosign(&verified, now) {
                Ok((size, lines)) => self.session.cosigned(&origin, size, lines),
                Err(error) => {
                    tracing::warn!(%origin, %error, "a head was not cosigned; the next offer does it");
                    Vec::new()
                }
            },
            Output::Cosigned {
                origin,
                size,
                lines,
            } => {
                if let Err(error) = self.registry.cosigned(&origin, size, &lines, now) {
                    tracing::error!(%origin, %error, "a cosignature could not be kept");
                }
                Vec::new()
            }
            Output::Fork { origin, evidence } => {
                tracing::error!(%origin, "two signed histories: evidence kept");
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
                if code == RejectCode::Shorter {
                    self.registry.owner_is_behind(&origin);
                }
                self.registry
                    .alarm(&origin, code.as_str(), &reason, Vec::new(), now);
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
                self.ended.refused = true;
                self.ended.reason = format!("{who}: {} ({reason})", code.as_str());
                Vec::new()
            }
            Output::ClockSkew { millis } => {
                let theirs = now.0.saturating_add_signed(millis);
                self.registry
                    .compare_clock(record::id::UnixMillis(theirs), now);
                Vec::new()
            }
            Output::Close { reason } => {
                self.end(reason);
                Vec::new()
            }
        }
    }

    fn rejected(&mut self, origin: &Origin, code: RejectCode, size: u64, reason: &str) {
        match code {
            // Charters may be on their way, or the peer is busy: the next tick offers it again.
            RejectCode::NotAccepted | RejectCode::Unavailable => {
                tracing::debug!(%origin, code = code.as_str(), reason, "not taken yet");
                self.offered.remove(origin);
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

/// The signed checkpoints of a piece of evidence.
fn signed_notes(evidence: &Evidence) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match evidence.form() {
        Form::Roots { notes } => notes.iter().map(|note| text(note)).collect(),
        Form::Leaves { proofs, .. } => proofs.iter().map(|proof| text(proof.note())).collect(),
    }
}

/// Trust of a node that has no store yet: only the chain that comes back is looked at, later.
struct NoStore {
    root: [u8; 32],
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
        })
    }
}

/// Runs an enrolment to its end and gives the charter chain, own first.
pub async fn enrol(
    mut session: Session,
    conversation: Conversation,
    root: [u8; 32],
) -> Result<Vec<Charter>, String> {
    let (sender, mut receiver) = conversation.split();
    let trust = NoStore { root };
    let mut outputs = session.start(api::now());
    let mut reason =
        String::from("the parent closed the connection; ask whether the invitation is still valid");
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
            Some(Ok(message)) => outputs = session.receive(&message, api::now(), &trust),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(reason),
        }
    }
}
