//! A realm of nodes inside the test's own process, wired together by messages in memory.
//!
//! Owns how a test makes nodes, operators and records, and carries a session's messages. It
//! refuses to know the network: the nodes of [`daemon`] are processes. The clock is an argument.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test may fail by panicking"
)]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use record::authority::{Charter, Level, Role};
use record::id::{DivisionId, Kind, Origin, Purpose, Realm, UnixMillis};
use registry::Registry;
use registry::config::KeyCustody;
use registry::keys::Opener;
use registry::node::{Applicant, NewNode};
use registry::plan::approve::plan_id;
use registry::plan::request::PlanRequest;
use registry::read::{Comparison, Filter, ReadRequest};
use registry::register::{Amendment, IMPORT_ROWS, ImportChunk, ImportReport, Registered};
use registry::replicate::NewInvitation;
use registry::session::{NewOperator, Session};
use sha2::{Digest, Sha256};
use sync::code::RejectCode;
use sync::output::Output;
use sync::session::Config;

pub mod daemon;
pub mod forge;
pub mod proxy;

/// A time for tests that need no clock: 2026-11-18.
pub const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
/// A day.
pub const DAY: u64 = 86_400_000;
/// The passphrase of every operator of a test.
pub const PASSPHRASE: &str = "correct horse battery";
/// The realm's domain.
pub const REALM: &str = "jiangjin.example";

/// The time of this machine.
pub fn clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(since.as_millis() as u64)
}

/// A word of the realm.
pub fn division(text: &str) -> DivisionId {
    DivisionId::new(text).unwrap()
}

/// A kind of record.
pub fn kind(text: &str) -> Kind {
    Kind::new(text).unwrap()
}

/// A purpose.
pub fn purpose(text: &str) -> Purpose {
    Purpose::new(text).unwrap()
}

/// Asks for every field of every record of a kind, those out of force too.
pub fn reading(of: &str, why: &str) -> ReadRequest {
    ReadRequest {
        kind: kind(of),
        filters: Vec::new(),
        fields: None,
        purpose: purpose(why),
        basis: None,
        closed: true,
        limit: None,
    }
}

/// The same of the one person with this number.
pub fn reading_person(person: &Row, why: &str) -> ReadRequest {
    ReadRequest {
        filters: vec![Filter {
            field: "citizen_number".into(),
            comparison: Comparison::Equals,
            value: person["citizen_number"].clone(),
        }],
        ..reading("person", why)
    }
}

/// A ledger of [`REALM`].
pub fn origin(division: &str, ledger: &str) -> Origin {
    Origin::parse(&format!("{REALM}/{division}/{ledger}")).unwrap()
}

/// A node that is open in this process, and its security officer.
pub struct Site {
    /// Its directory.
    pub dir: PathBuf,
    /// The node.
    pub registry: Arc<Registry>,
    /// The first security officer, `anquan`, logged in.
    pub officer: Session,
}

fn new_node(realm: &str, name: &str, level: Level) -> NewNode {
    NewNode {
        realm: Realm::new(realm).unwrap(),
        division: division(name),
        name: name.into(),
        level,
        codes: vec![],
        http: crate::site::free_address(),
        listen: crate::site::free_address(),
        custody: KeyCustody::File,
        quorum: 1,
    }
}

impl Site {
    /// The root of a realm, in `base/<division>`.
    pub fn root(base: &Path, realm: &str, name: &str, now: UnixMillis) -> Self {
        let dir = base.join(name);
        let new = new_node(realm, name, Level::District);
        registry::node::init(&dir, new, &Opener::File, now).unwrap();
        Self::first(dir, now)
    }

    /// A node that joins under `parent`, in `base/<division>`.
    pub fn join(parent: &Site, base: &Path, name: &str, level: Level, now: UnixMillis) -> Self {
        let dir = base.join(name);
        let invitation = parent
            .registry
            .invite(
                &parent.officer,
                &NewInvitation {
                    division: division(name),
                    name: name.into(),
                    level,
                    codes: vec![],
                    address: parent.registry.config().listen.clone(),
                },
                now,
            )
            .unwrap();
        let new = new_node(invitation.realm.as_str(), name, level);
        let applicant = Applicant::create(&dir, new, &Opener::File).unwrap();
        let secret = registry::config::key_from_hex(&invitation.secret).unwrap();
        let chain = parent
            .registry
            .enrol(&division(name), &secret, &applicant.public(), now)
            .unwrap();
        let root = registry::config::key_from_hex(&invitation.root).unwrap();
        applicant
            .chartered(&chain, &root, Some(invitation.parent), now)
            .unwrap();
        Self::first(dir, now)
    }

    /// Other keys for a node that is closed, chartered by its parent, which has leave to do so.
    pub fn renew(parent: &Site, dir: &Path, now: UnixMillis) -> Self {
        let config = registry::config::NodeConfig::read(dir).unwrap();
        let name = config.division.as_str();
        let new = NewInvitation {
            division: config.division.clone(),
            name: config.name.clone(),
            level: config.level,
            codes: vec![],
            address: parent.registry.config().listen.clone(),
        };
        let invitation = parent.registry.invite(&parent.officer, &new, now).unwrap();
        let new = new_node(invitation.realm.as_str(), name, config.level);
        let applicant = Applicant::renew(dir, new, &Opener::File).unwrap();
        let secret = registry::config::key_from_hex(&invitation.secret).unwrap();
        let keys = applicant.public();
        let chain = parent
            .registry
            .enrol(&config.division, &secret, &keys, now)
            .unwrap();
        let root = registry::config::key_from_hex(&invitation.root).unwrap();
        applicant
            .chartered(&chain, &root, Some(invitation.parent), now)
            .unwrap();
        Self::open(dir, now)
    }

    fn first(dir: PathBuf, now: UnixMillis) -> Self {
        let registry = open(&dir, now);
        let new = NewOperator {
            login: "anquan".into(),
            passphrase: PASSPHRASE.into(),
            role: Role::SecurityOfficer,
            grid: None,
        };
        registry.enrol_operator(None, &new, now).unwrap();
        keep_passphrase(&dir, "anquan");
        let officer = registry.login("anquan", PASSPHRASE, now).unwrap();
        Self {
            dir,
            registry: Arc::new(registry),
            officer,
        }
    }

    /// Opens a node that was closed.
    pub fn open(dir: &Path, now: UnixMillis) -> Self {
        let registry = open(dir, now);
        let officer = registry.login("anquan", PASSPHRASE, now).unwrap();
        Self {
            dir: dir.to_owned(),
            registry: Arc::new(registry),
            officer,
        }
    }

    /// Closes the node; its directory.
    pub fn close(self) -> PathBuf {
        self.registry.persist_indexes().unwrap();
        assert_eq!(Arc::strong_count(&self.registry), 1, "the node is in use");
        self.dir
    }

    /// Enrols an operator, whose login is the role's word, and logs in.
    pub fn operator(&self, role: Role, grid: Option<&str>, now: UnixMillis) -> Session {
        self.enrol(role.as_str(), role, grid, now)
    }

    /// Enrols an operator under a login, and logs in.
    pub fn enrol(&self, login: &str, role: Role, grid: Option<&str>, now: UnixMillis) -> Session {
        let new = NewOperator {
            login: login.into(),
            passphrase: PASSPHRASE.into(),
            role,
            grid: grid.map(str::to_owned),
        };
        self.registry
            .enrol_operator(Some(&self.officer), &new, now)
            .unwrap();
        keep_passphrase(&self.dir, login);
        self.registry.login(login, PASSPHRASE, now).unwrap()
    }

    /// Revokes the charter of a node below and lets it be chartered again, on the word of two
    /// more officers, who are enrolled for it.
    pub fn replace_charter(&self, name: &str, now: UnixMillis) {
        let others =
            ["fu-yi", "fu-er"].map(|login| self.enrol(login, Role::SecurityOfficer, None, now));
        let request = PlanRequest::ReplaceCharter {
            division: division(name),
            keys: None,
        };
        let plan = self.registry.plan(&self.officer, &request, now).unwrap();
        let id = plan_id(&plan.id).unwrap();
        for officer in &others {
            self.registry.approve(officer, &id, true, now).unwrap();
        }
        self.registry.run_plan(&self.officer, &id, now).unwrap();
    }

    /// Registers rows; all of them are accepted.
    pub fn import(&self, clerk: &Session, of: &str, rows: &[Row], now: UnixMillis) {
        let report = self.try_import(clerk, of, rows, now);
        assert_eq!(report.rejected, 0, "{:?}", report.violations);
        assert_eq!(report.accepted, rows.len() as u64);
    }

    /// Registers rows in acts of 256.
    pub fn try_import(
        &self,
        clerk: &Session,
        of: &str,
        rows: &[Row],
        now: UnixMillis,
    ) -> ImportReport {
        let mut total = ImportReport::default();
        let mut number = 0;

        for chunk in rows.chunks(IMPORT_ROWS) {
            let numbers = chunk.iter().map(|_| {
                number += 1;
                number
            });
            let chunk = ImportChunk {
                kind: kind(of),
                source: source_of(of, rows),
                numbers: numbers.collect(),
                rows: chunk.to_vec(),
                dry_run: false,
            };
            let report = self.registry.import(clerk, &chunk, now).unwrap();
            total.rows += report.rows;
            total.accepted += report.accepted;
            total.rejected += report.rejected;
            total.violations.extend(report.violations);
        }
        total
    }

    /// Amends one record.
    pub fn amend(
        &self,
        clerk: &Session,
        of: &str,
        record: record::id::RecordId,
        version: u64,
        changes: &[(&str, &str)],
        now: UnixMillis,
    ) -> Registered {
        let amendment = Amendment {
            reopen: false,
            kind: kind(of),
            record,
            version,
            changes: changes
                .iter()
                .map(|(field, value)| ((*field).into(), (*value).into()))
                .collect(),
            close: false,
            purpose: purpose("correction"),
        };
        self.registry.amend(clerk, &amendment, now).unwrap()
    }

    /// Puts one record out of force.
    pub fn close_record(
        &self,
        clerk: &Session,
        of: &str,
        (record, version): (record::id::RecordId, u64),
        now: UnixMillis,
    ) -> Registered {
        let amendment = Amendment {
            kind: kind(of),
            record,
            version,
            changes: BTreeMap::new(),
            close: true,
            reopen: false,
            purpose: purpose("correction"),
        };
        self.registry.amend(clerk, &amendment, now).unwrap()
    }

    /// The node's charter.
    pub fn charter(&self) -> Charter {
        self.registry.chain().unwrap().swap_remove(0)
    }

    fn config(&self, peer: &Site) -> Config {
        Config {
            realm: self.registry.config().realm.clone(),
            chain: self.registry.chain().unwrap(),
            peer_key: peer.charter().keys.transport,
        }
    }
}

/// Opens a node. A process that another test starts at this moment has the lock of a node closed
/// just now until it becomes another program: hence the patience.
fn open(dir: &Path, now: UnixMillis) -> Registry {
    for _ in 0..100 {
        match Registry::open(dir, &Opener::File, now) {
            Err(registry::RegistryError::Directory(why)) if why.contains("in use") => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => return other.unwrap(),
        }
    }
    panic!("`{}` stays in use", dir.display());
}

/// Operators' passphrases lie beside the keys, so that commands need not ask for them.
fn keep_passphrase(dir: &Path, login: &str) {
    std::fs::write(
        dir.join("operators").join(format!("{login}.pass")),
        PASSPHRASE,
    )
    .unwrap();
}

/// One row: field id to text.
pub type Row = BTreeMap<String, String>;

/// Rows of one kind of a made-up community.
pub fn rows(of: &str, seed: u64, persons: usize, serial: u16) -> Vec<Row> {
    let community = sample::community(seed, persons, &sample::Place::numbered(serial));
    let (_, table) = community
        .tables()
        .into_iter()
        .find(|(name, _)| *name == of)
        .unwrap();
    table.drafts().map(|draft| draft.fields).collect()
}

/// What happened in a session, as far as tests ask.
#[derive(Debug, Default)]
pub struct Seen {
    /// Ledgers that one side did not take, and why.
    pub rejected: Vec<(Origin, RejectCode)>,
    /// Words of refusals.
    pub refused: Vec<String>,
    /// Ledgers of which something was verified and yet not kept, and why.
    pub not_kept: Vec<(Origin, String)>,
    /// Ledgers of which something was stored.
    pub stored: Vec<Origin>,
}

struct End<'a> {
    site: &'a Site,
    session: sync::session::Session,
    offered: BTreeMap<Origin, String>,
}

impl End<'_> {
    fn offer(&mut self) -> Vec<Output> {
        let Some(peer) = self.session.peer().cloned() else {
            return vec![];
        };
        let mut outputs = vec![];
        for (origin, note) in self.site.registry.offers(&peer).unwrap() {
            if self.offered.get(&origin) != Some(&note) {
                outputs.extend(self.session.offer(origin.clone(), note.clone()).unwrap());
                self.offered.insert(origin, note);
            }
        }
        outputs
    }

    /// Does what the session asks; gives the messages to send.
    fn perform(&mut self, outputs: Vec<Output>, now: UnixMillis, seen: &mut Seen) -> Vec<Vec<u8>> {
        let registry = self.site.registry.as_ref();
        let mut sent = vec![];
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            let more = match output {
                Output::Send(bytes) => {
                    sent.push(bytes.0);
                    vec![]
                }
                Output::Load(load) => self.session.loaded(registry.load(&load).unwrap()),
                Output::Store(delivery) => {
                    let origin = delivery.origin().clone();
                    match registry.keep(*delivery, now) {
                        Ok(size) => {
                            seen.stored.push(origin.clone());
                            self.session.stored(&origin, size, registry)
                        }
                        Err(error) => {
                            seen.not_kept.push((origin.clone(), error.to_string()));
                            self.session.not_stored(&origin, "not kept", registry)
                        }
                    }
                }
                Output::Cosign { origin, verified } => {
                    let (size, lines) = registry.cosign(&verified, now).unwrap();
                    self.session.cosigned(&origin, size, lines)
                }
                Output::Cosigned {
                    origin,
                    size,
                    lines,
                } => {
                    registry.cosigned(&origin, size, &lines, now).unwrap();
                    vec![]
                }
                Output::Rejected {
                    origin, code, note, ..
                } => {
                    // As a running node does: the rest of an own ledger is with the peer.
                    if code == RejectCode::Shorter {
                        registry.told_of_more(&origin, note.as_deref());
                    }
                    // As a running node does: what is not taken yet is offered again.
                    if matches!(code, RejectCode::NotAccepted | RejectCode::Unavailable) {
                        self.offered.remove(&origin);
                    }
                    seen.rejected.push((origin, code));
                    vec![]
                }
                Output::Alarm { origin, code, .. } => {
                    if code == RejectCode::Shorter {
                        registry.owner_is_behind(&origin);
                    }
                    registry.alarm(&origin, code.as_str(), "", vec![], now);
                    vec![]
                }
                Output::Fork { origin, .. } => {
                    registry.alarm(&origin, "fork", "", vec![], now);
                    vec![]
                }
                Output::Succeeded(successions) => {
                    registry.succeeded(&successions, now);
                    vec![]
                }
                Output::Refused { reason, .. } => {
                    seen.refused.push(reason);
                    vec![]
                }
                _ => vec![],
            };
            for output in more.into_iter().rev() {
                outputs.push_front(output);
            }
        }
        sent
    }
}

/// The hash that a file with these rows is imported under.
pub fn source_of(of: &str, rows: &[Row]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(format!("{of} {rows:?}")))
}

/// One session between child and parent, until neither has anything to say.
pub fn replicate(child: &Site, parent: &Site, now: UnixMillis) -> Seen {
    let mut seen = Seen::default();
    let mut ends = [
        End {
            site: child,
            session: sync::session::Session::dial(child.config(parent))
                .knowing(child.registry.successions()),
            offered: BTreeMap::new(),
        },
        End {
            site: parent,
            session: sync::session::Session::listen(parent.config(child))
                .knowing(parent.registry.successions()),
            offered: BTreeMap::new(),
        },
    ];
    // Messages on their way to each end.
    let mut wires: [VecDeque<Vec<u8>>; 2] = Default::default();
    let hello = ends[0].session.start(now);
    let sent = ends[0].perform(hello, now, &mut seen);
    wires[1].extend(sent);
    // A ledger that is refused for good is offered again in every round; rounds are few.
    for _ in 0..12 {
        while wires.iter().any(|wire| !wire.is_empty()) {
            for at in 0..2 {
                while let Some(message) = wires[at].pop_front() {
                    let end = &mut ends[at];
                    let outputs = end
                        .session
                        .receive(&message, now, end.site.registry.as_ref());
                    let sent = end.perform(outputs, now, &mut seen);
                    wires[1 - at].extend(sent);
                }
            }
        }
        for at in 0..2 {
            let outputs = ends[at].offer();
            let sent = ends[at].perform(outputs, now, &mut seen);
            wires[1 - at].extend(sent);
        }
        if wires.iter().all(VecDeque::is_empty) {
            break;
        }
    }
    seen
}

/// Sessions over every link, child first, until all nodes hold what they may.
pub fn settle(links: &[(&Site, &Site)], now: UnixMillis) {
    let heads = || -> Vec<String> {
        links
            .iter()
            .flat_map(|(child, parent)| [child, parent])
            .map(|site| {
                let status = site.registry.status().unwrap();
                serde_json::to_string(&status.ledgers).unwrap()
            })
            .collect()
    };
    let mut before = heads();
    for _ in 0..10 {
        for (child, parent) in links {
            replicate(child, parent, now);
        }
        let after = heads();
        if after == before {
            return;
        }
        before = after;
    }
    panic!("the realm does not come to rest");
}
