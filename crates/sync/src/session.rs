//! One session between two nodes: messages in, outputs out.
//!
//! Owns who may say what, when, and who the peer is. Refuses everything before both charters are
//! checked, peers that are neither parent nor child, and every message out of turn.

use ledger::checkpoint::Checkpoint;
use ledger::evidence::Evidence;
use ledger::hash::Hash;
use ledger::note::Note;
use record::authority::{
    Charter, CharterError, NodeKeys, Renewal, Succession, follow_root, verify_chain,
};
use record::id::{DivisionId, Origin, Realm, UnixMillis};

use crate::code::{RefusalCode, tidy};
use crate::inbound::Inbound;
use crate::limits::{CLOCK_SKEW_MAX_MS, MESSAGE_BYTES_MAX, OPENING_BYTES_MAX};
use crate::message::{
    Enrol, Enrolled, Hello, Message, MessageError, Refused, Seen, Successions, Welcome,
};
use crate::outbound::{OfferError, Outbound};
use crate::output::{Bytes, Enrolment, LedgerStatus, Loaded, Output, Side};
use crate::recovery::{Recovery, RecoveryAsk, RecoveryPiece};
use crate::trust::Trust;

/// What a session must know of this node and of the connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// The realm of this node.
    pub realm: Realm,
    /// This node's charter first, the root's last; empty before enrolment.
    pub chain: Vec<Charter>,
    /// The Ed25519 key that the transport proved the peer to have.
    pub peer_key: [u8; 32],
}

/// One session, from the first message to the last.
///
/// It keeps nothing that a cut connection loses: what matters is what the shell committed.
#[derive(Debug)]
pub struct Session {
    config: Config,
    phase: Phase,
    /// What this node knows of how the root came to its key.
    successions: Successions,
    inbound: Inbound,
    outbound: Outbound,
}

#[derive(Debug)]
enum Phase {
    /// The dialer has not spoken yet.
    Dialing,
    /// The dialer has not asked for its charter yet.
    Enrolling(Box<Enrolment>),
    /// The dialer has not asked for a charter of its new keys yet.
    Renewing(Box<Renewal>),
    /// The listener awaits the first message.
    Listening,
    /// The dialer awaits the listener's charter.
    HelloSent,
    /// The dialer awaits its own charter.
    EnrolSent(Box<Asked>),
    /// The listener's officers decide.
    EnrolAsked,
    /// The dialer has not asked for its recovery yet.
    Recovering(Box<RecoveryAsk>),
    /// The dialer awaits a piece of its recovery, or has to ask for the next.
    RecoverySent,
    /// The listener is to give a piece of a recovery.
    RecoveryAsked,
    /// The listener gave a piece of a recovery, and may be asked for more.
    RecoveryGiven,
    /// Both know each other; the peer's charter first.
    Open(Vec<Charter>),
    Closed,
}

/// For whom a charter was asked, and for which keys.
#[derive(Debug)]
struct Asked {
    division: DivisionId,
    keys: NodeKeys,
}

impl Session {
    /// The session of the node that opened the connection.
    pub fn dial(config: Config) -> Self {
        Self::new(config, Phase::Dialing)
    }

    /// The session of a node that asks the listener for its charter.
    pub fn enrol(config: Config, enrolment: Enrolment) -> Self {
        Self::new(config, Phase::Enrolling(Box::new(enrolment)))
    }

    /// The session of a chartered node that asks its parent for a charter of new keys, over a
    /// connection that proves the new transport key.
    pub fn renew(config: Config, renewal: Renewal) -> Self {
        Self::new(config, Phase::Renewing(Box::new(renewal)))
    }

    /// The session of a new machine that asks the parent of a lost node for what it is made from.
    pub fn recover(config: Config, ask: RecoveryAsk) -> Self {
        Self::new(config, Phase::Recovering(Box::new(ask)))
    }

    /// Shows the peer how the root came to its key.
    #[must_use]
    pub fn knowing(mut self, successions: Vec<Succession>) -> Self {
        self.successions = Successions(successions);
        self
    }

    /// The session of the node that was dialed.
    pub fn listen(config: Config) -> Self {
        Self::new(config, Phase::Listening)
    }

    fn new(config: Config, phase: Phase) -> Self {
        Self {
            config,
            phase,
            successions: Successions::default(),
            inbound: Inbound::default(),
            outbound: Outbound::default(),
        }
    }

    /// The first message of the dialer; nothing for the listener.
    pub fn start(&mut self, now: UnixMillis) -> Vec<Output> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let (phase, message) = match phase {
            Phase::Dialing => {
                let hello = Hello {
                    realm: self.config.realm.clone(),
                    chain: self.config.chain.clone(),
                    now,
                    successions: self.successions.clone(),
                };
                (Phase::HelloSent, Message::Hello(hello))
            }
            Phase::Enrolling(enrolment) => {
                let enrol = Enrol {
                    division: enrolment.division.clone(),
                    secret: crate::message::Secret::new(*enrolment.secret.expose()),
                    keys: enrolment.keys.clone(),
                };
                let asked = Asked {
                    division: enrolment.division,
                    keys: enrolment.keys,
                };
                (Phase::EnrolSent(Box::new(asked)), Message::Enrol(enrol))
            }
            Phase::Renewing(renewal) => {
                let asked = Asked {
                    division: renewal.division.clone(),
                    keys: renewal.keys.clone(),
                };
                (Phase::EnrolSent(Box::new(asked)), Message::Renew(*renewal))
            }
            Phase::Recovering(ask) => (Phase::RecoverySent, Message::Recovery(Recovery::Ask(*ask))),
            other => {
                self.phase = other;
                return Vec::new();
            }
        };
        self.phase = phase;
        vec![Output::Send(Bytes(message.encode()))]
    }

    /// Takes one message from the peer.
    pub fn receive(&mut self, bytes: &[u8], now: UnixMillis, trust: &dyn Trust) -> Vec<Output> {
        let mut out = Vec::new();
        let max = match self.phase {
            Phase::Closed => return out,
            Phase::Open(_) => MESSAGE_BYTES_MAX,
            _ => OPENING_BYTES_MAX,
        };
        match Message::decode_within(bytes, max) {
            Ok(message) => self.dispatch(message, now, trust, &mut out),
            Err(MessageError::Version { .. }) => self.refuse(RefusalCode::Version, None, &mut out),
            Err(error) => {
                self.refuse(RefusalCode::Malformed, Some(&error.to_string()), &mut out);
            }
        }
        out
    }

    fn dispatch(
        &mut self,
        message: Message,
        now: UnixMillis,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) {
        match (&self.phase, message) {
            (_, Message::Refused(refused)) => self.refused(refused, out),
            (Phase::Listening, Message::Hello(hello)) => self.hello(hello, now, trust, out),
            (Phase::Listening, Message::Enrol(enrol)) => self.enrol_asked(enrol, out),
            (Phase::Listening, Message::Renew(renewal)) => self.renew_asked(renewal, out),
            (Phase::Listening | Phase::RecoveryGiven, Message::Recovery(Recovery::Ask(ask))) => {
                self.phase = Phase::RecoveryAsked;
                out.push(Output::RecoveryAsked(Box::new(ask)));
            }
            (Phase::RecoverySent, Message::Recovery(Recovery::Piece(piece))) => {
                out.push(Output::RecoveryPiece(Box::new(piece)));
            }
            (Phase::HelloSent, Message::Welcome(welcome)) => {
                let theirs = welcome.now;
                match self.check_peer(welcome.chain, &welcome.successions, now, trust, out) {
                    Ok(chain) => self.open(chain, theirs, now, out),
                    Err(code) => self.refuse(code, None, out),
                }
            }
            (Phase::EnrolSent(asked), Message::Enrolled(Enrolled { chain })) => {
                match self.check_own(asked, &chain, now, trust) {
                    Ok(()) => {
                        self.phase = Phase::Closed;
                        out.push(Output::Enrolled { chain });
                        close(
                            out,
                            "已取得节点证书，请重新连接 / the charter was received; dial again",
                        );
                    }
                    Err(code) => self.refuse(code, None, out),
                }
            }
            (Phase::Open(_), message) => self.replicate(message, trust, out),
            (_, message) => {
                let detail = format!("{} came out of turn", message.name());
                self.refuse(RefusalCode::Malformed, Some(&detail), out);
            }
        }
    }

    fn replicate(&mut self, message: Message, trust: &dyn Trust, out: &mut Vec<Output>) {
        let Phase::Open(chain) = &self.phase else {
            return;
        };
        let Some(peer) = chain.first() else { return };
        match message {
            Message::Offer(offer) => self.inbound.offered(peer, offer, trust, out),
            Message::Entries(entries) => self.inbound.entries(peer, entries, trust, out),
            Message::Cosigned(cosigned) => self.outbound.cosigned(peer, cosigned, out),
            Message::Rejected(rejected) => {
                // Each ledger has one offering side, so only one of the two knows it.
                self.inbound.withdrawn(peer, &rejected, trust, out);
                self.outbound.rejected(&rejected, out);
            }
            Message::Seen(seen) => heads_seen(seen, trust, out),
            Message::Want(want) => {
                if let Err(error) = self.outbound.want(want, out) {
                    self.refuse(RefusalCode::Malformed, Some(&error.to_string()), out);
                }
            }
            other => {
                let detail = format!("{} came out of turn", other.name());
                self.refuse(RefusalCode::Malformed, Some(&detail), out);
            }
        }
    }

    fn hello(&mut self, hello: Hello, now: UnixMillis, trust: &dyn Trust, out: &mut Vec<Output>) {
        let checked = if hello.realm != self.config.realm {
            Err(RefusalCode::OtherRealm)
        } else {
            self.check_peer(hello.chain, &hello.successions, now, trust, out)
        };
        let chain = match checked {
            Ok(chain) => chain,
            Err(code) => {
                self.refuse(code, None, out);
                return;
            }
        };
        let welcome = Welcome {
            chain: self.config.chain.clone(),
            now,
            successions: self.successions.clone(),
        };
        out.push(Output::Send(Bytes(Message::Welcome(welcome).encode())));
        self.open(chain, hello.now, now, out);
    }

    fn open(
        &mut self,
        chain: Vec<Charter>,
        theirs: UnixMillis,
        now: UnixMillis,
        out: &mut Vec<Output>,
    ) {
        if theirs.0.abs_diff(now.0) > CLOCK_SKEW_MAX_MS {
            let millis = i128::from(theirs.0) - i128::from(now.0);
            let bound = i128::from(i64::MAX);
            let millis = i64::try_from(millis.clamp(-bound, bound))
                .expect("a number between the bounds of i64 is one");
            out.push(Output::ClockSkew { millis });
        }
        self.phase = Phase::Open(chain.clone());
        out.push(Output::Opened { chain });
    }

    /// Checks that the chain is the peer's, holds, and makes it our parent or child; gives the
    /// chain in force.
    fn check_peer(
        &self,
        shown: Vec<Charter>,
        successions: &Successions,
        now: UnixMillis,
        trust: &dyn Trust,
        out: &mut Vec<Output>,
    ) -> Result<Vec<Charter>, RefusalCode> {
        shown.first().ok_or(RefusalCode::Missing)?;
        let known = trust.realm_root();
        // A chain to a root that follows the known one counts, too; one to a root before does not.
        let next = follow_root(&known, &successions.0).map(|charter| charter.keys.sign);
        let next = next.filter(|next| shown.last().is_some_and(|top| top.keys.sign == *next));
        let root = next.unwrap_or(known);
        let chain = match self.check_chain(&shown, &root, now, trust) {
            Ok(()) => {
                out.extend(next.map(|_| Output::Succeeded(successions.0.clone())));
                shown
            }
            Err(code) => {
                let renewed = trust.renewed(&shown).ok_or(code)?;
                self.check_chain(&renewed, &known, now, trust)?;
                renewed
            }
        };
        let peer = chain.first().ok_or(RefusalCode::Missing)?;
        if peer.keys.transport != self.config.peer_key {
            return Err(RefusalCode::WrongKey);
        }
        let own = self.config.chain.first().ok_or(RefusalCode::Missing)?;
        let related = own.parent == peer.division || peer.parent == own.division;
        if !related || own.division == peer.division {
            return Err(RefusalCode::NotParentOrChild);
        }
        Ok(chain)
    }

    /// Checks a charter that was just issued to this node by the peer.
    fn check_own(
        &self,
        asked: &Asked,
        chain: &[Charter],
        now: UnixMillis,
        trust: &dyn Trust,
    ) -> Result<(), RefusalCode> {
        let own = chain.first().ok_or(RefusalCode::Missing)?;
        self.check_chain(chain, &trust.realm_root(), now, trust)?;
        if own.keys != asked.keys || own.division != asked.division {
            return Err(RefusalCode::WrongKey);
        }
        match chain.get(1) {
            Some(issuer) if issuer.keys.transport == self.config.peer_key => Ok(()),
            Some(_) => Err(RefusalCode::WrongKey),
            None => Err(RefusalCode::NotParentOrChild),
        }
    }

    fn check_chain(
        &self,
        chain: &[Charter],
        root: &[u8; 32],
        now: UnixMillis,
        trust: &dyn Trust,
    ) -> Result<(), RefusalCode> {
        if chain
            .iter()
            .any(|charter| charter.realm != self.config.realm)
        {
            return Err(RefusalCode::OtherRealm);
        }
        let revoked = |id: &Hash| trust.is_revoked(id);
        verify_chain(chain, &self.config.realm, root, now, revoked).map_err(|error| match error {
            CharterError::Format(_) | CharterError::BadSignature { .. } => RefusalCode::Malformed,
            CharterError::Expired { .. } => RefusalCode::Expired,
            CharterError::Revoked { .. } => RefusalCode::Revoked,
            CharterError::NoChain { .. } => RefusalCode::OtherRealm,
        })
    }

    fn enrol_asked(&mut self, enrol: Enrol, out: &mut Vec<Output>) {
        if enrol.keys.transport != self.config.peer_key {
            self.refuse(RefusalCode::WrongKey, None, out);
            return;
        }
        self.phase = Phase::EnrolAsked;
        out.push(Output::EnrolRequested(Box::new(Enrolment {
            division: enrol.division,
            secret: enrol.secret,
            keys: enrol.keys,
        })));
    }

    fn renew_asked(&mut self, renewal: Renewal, out: &mut Vec<Output>) {
        if renewal.keys.transport != self.config.peer_key {
            self.refuse(RefusalCode::WrongKey, None, out);
            return;
        }
        self.phase = Phase::EnrolAsked;
        out.push(Output::RenewRequested(Box::new(renewal)));
    }

    /// Answers [`Output::EnrolRequested`] with the charter just issued and those above it.
    pub fn enrolled(&mut self, chain: Vec<Charter>) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::EnrolAsked) {
            self.phase = Phase::Closed;
            let message = Message::Enrolled(Enrolled { chain });
            out.push(Output::Send(Bytes(message.encode())));
            close(&mut out, "已签发节点证书 / the charter was issued");
        }
        out
    }

    /// Answers [`Output::RecoveryAsked`] with a piece.
    pub fn recovery_piece(&mut self, piece: RecoveryPiece) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::RecoveryAsked) {
            self.phase = Phase::RecoveryGiven;
            let message = Message::Recovery(Recovery::Piece(piece));
            out.push(Output::Send(Bytes(message.encode())));
        }
        out
    }

    /// Asks for the next piece after [`Output::RecoveryPiece`].
    pub fn ask_recovery(&mut self, ask: RecoveryAsk) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::RecoverySent) {
            let message = Message::Recovery(Recovery::Ask(ask));
            out.push(Output::Send(Bytes(message.encode())));
        }
        out
    }

    /// Whether the listener gives a recovery, which takes longer than an opening may.
    pub fn is_giving(&self) -> bool {
        matches!(self.phase, Phase::RecoveryAsked | Phase::RecoveryGiven)
    }

    /// Answers [`Output::EnrolRequested`], [`Output::RenewRequested`] or [`Output::RecoveryAsked`]
    /// with a refusal; `reason` adds to the code's own words.
    pub fn enrol_refused(&mut self, code: RefusalCode, reason: &str) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::EnrolAsked | Phase::RecoveryAsked) {
            self.refuse(
                code,
                Some(reason).filter(|reason| !reason.is_empty()),
                &mut out,
            );
        }
        out
    }

    /// Offers the head of a ledger that the peer may have; again whenever it moves.
    ///
    /// # Errors
    /// [`OfferError`]; the session goes on.
    pub fn offer(&mut self, origin: Origin, note: String) -> Result<Vec<Output>, OfferError> {
        if !self.is_open() {
            return Err(OfferError::NotOpen { origin });
        }
        let mut out = Vec::new();
        self.outbound.offer(origin, note, &mut out)?;
        Ok(out)
    }

    /// Tells the peer of signed heads: one that was seen, or two that contradict each other.
    pub fn tell(&self, origin: Origin, notes: Vec<String>) -> Vec<Output> {
        if !self.is_open() || notes.is_empty() || notes.len() > 2 {
            return Vec::new();
        }
        vec![Output::Send(Bytes(
            Message::Seen(Seen { origin, notes }).encode(),
        ))]
    }

    /// Answers [`Output::Load`].
    pub fn loaded(&mut self, loaded: Loaded) -> Vec<Output> {
        self.while_open(|session, out| session.outbound.loaded(loaded, out))
    }

    /// Answers [`Output::Load`] when the entries cannot be read; the peer waits for another offer.
    pub fn cannot_load(&mut self, origin: &Origin, reason: &str) -> Vec<Output> {
        self.while_open(|session, out| session.outbound.cannot_load(origin, reason, out))
    }

    /// Answers [`Output::Store`] after the commit: `size` entries are durable.
    pub fn stored(&mut self, origin: &Origin, size: u64, trust: &dyn Trust) -> Vec<Output> {
        self.with_peer(|inbound, peer, out| inbound.stored(peer, origin, size, trust, out))
    }

    /// Answers [`Output::Store`] when the commit failed; another offer begins again.
    pub fn not_stored(&mut self, origin: &Origin, reason: &str, trust: &dyn Trust) -> Vec<Output> {
        self.with_peer(|inbound, peer, out| inbound.not_stored(peer, origin, reason, trust, out))
    }

    /// Answers [`Output::Cosign`] with signature lines, each with its newline.
    pub fn cosigned(&mut self, origin: &Origin, size: u64, lines: Vec<String>) -> Vec<Output> {
        self.while_open(|session, out| session.inbound.cosigned(origin, size, lines, out))
    }

    /// Whether ledgers may be offered.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The peer's charter, while the session is open.
    pub fn peer(&self) -> Option<&Charter> {
        match &self.phase {
            Phase::Open(chain) => chain.first(),
            _ => None,
        }
    }

    /// Every ledger of this session: first those offered here, then those offered by the peer.
    pub fn status(&self) -> Vec<LedgerStatus> {
        self.outbound
            .status()
            .chain(self.inbound.status())
            .collect()
    }

    fn while_open(&mut self, act: impl FnOnce(&mut Self, &mut Vec<Output>)) -> Vec<Output> {
        let mut out = Vec::new();
        if self.is_open() {
            act(self, &mut out);
        }
        out
    }

    fn with_peer(
        &mut self,
        act: impl FnOnce(&mut Inbound, &Charter, &mut Vec<Output>),
    ) -> Vec<Output> {
        let mut out = Vec::new();
        if let Phase::Open(chain) = &self.phase
            && let Some(peer) = chain.first()
        {
            act(&mut self.inbound, peer, &mut out);
        }
        out
    }

    /// Ends the session and tells the peer why.
    fn refuse(&mut self, code: RefusalCode, detail: Option<&str>, out: &mut Vec<Output>) {
        let reason = match detail {
            Some(detail) => tidy(&format!("{}: {detail}", code.text())),
            None => code.text().to_owned(),
        };
        let message = Message::Refused(Refused {
            code,
            reason: reason.clone(),
        });
        out.push(Output::Send(Bytes(message.encode())));
        self.end(code, reason, Side::Own, out);
    }

    fn refused(&mut self, refused: Refused, out: &mut Vec<Output>) {
        self.end(refused.code, refused.reason, Side::Peer, out);
    }

    fn end(&mut self, code: RefusalCode, reason: String, by: Side, out: &mut Vec<Output>) {
        self.phase = Phase::Closed;
        close(out, &reason);
        let at = out.len() - 1;
        out.insert(at, Output::Refused { code, reason, by });
    }
}

fn close(out: &mut Vec<Output>, reason: &str) {
    out.push(Output::Close {
        reason: reason.to_owned(),
    });
}

/// What a peer has seen counts only as far as the ledger's owner signed it.
fn heads_seen(seen: Seen, trust: &dyn Trust, out: &mut Vec<Output>) {
    let Seen { origin, notes } = seen;
    // Of a ledger whose owner is not known here nothing can be said.
    let first = notes.first().map_or("", String::as_str);
    if let [note] = notes.as_slice() {
        let unsigned = Note::parse(note.as_bytes()).ok();
        let head = unsigned.and_then(|note| Checkpoint::parse(note.text().as_bytes()).ok());
        if !head.is_some_and(|head| trust.is_news(&origin, &head)) {
            return;
        }
    }
    let Some(log) = trust.log(&origin, first) else {
        return;
    };
    match notes.as_slice() {
        [note] => {
            if let Ok(checkpoint) = ledger::checkpoint::open(note.as_bytes(), &log) {
                out.push(Output::Seen {
                    origin,
                    checkpoint,
                    note: note.clone(),
                });
            }
        }
        [first, second] => {
            if let Ok(evidence) = Evidence::from_notes(first.as_bytes(), second.as_bytes(), &log) {
                out.push(Output::Fork {
                    origin,
                    evidence: Box::new(evidence),
                });
            }
        }
        _ => {}
    }
}
