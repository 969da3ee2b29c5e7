//! Verifying (核验): every root, signature, chain and body of a directory, from the segment files
//! alone, with public keys alone. Neither the index nor a secret is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Instant;

use ledger::frontier::Frontier;
use ledger::hash::{leaf_hash, root_of};
use ledger::note::{KeyKind, Note, Verifier};
use ledger::tile::{TreeEdge, plan_append};
use record::act::{Act, Capacity};
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, RecordEntry};
use record::id::{DivisionId, Hash, Origin, RecordId};
use seal::parcel::Parcel;
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::{Snapshot, Store};

use crate::authority::Authority;
use crate::chain;
use crate::clock::TOLERANCE_MILLIS;
use crate::config::NodeConfig;
use crate::error::Result;
use crate::replicate::log_verifier;
use crate::table::{self, Head};

const SCAN: usize = 1024;
/// The most findings listed; the rest are counted.
const FINDINGS_MAX: usize = 1000;

/// What was checked, and what does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Whether everything holds.
    pub ok: bool,
    /// The directory's division.
    pub division: String,
    /// Segment files read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Per ledger.
    pub ledgers: Vec<VerifiedLedger>,
    /// What does not hold.
    pub findings: Vec<VerifyFinding>,
    /// How many more findings there are than are listed.
    pub more_findings: u64,
    /// What is unfinished but not wrong, such as a write in progress.
    pub remarks: Vec<String>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// One ledger that was checked.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedLedger {
    /// Which.
    pub origin: Origin,
    /// Entries.
    pub size: u64,
    /// The root rebuilt from them, hexadecimal.
    pub root: String,
    /// Acts whose signature holds.
    pub acts: u64,
    /// Bodies whose hash holds.
    pub bodies: u64,
    /// Signatures on its checkpoint that hold, the log's own among them.
    pub signatures: u64,
}

/// One thing that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyFinding {
    /// The segment file, if it lies in one.
    pub file: Option<String>,
    /// Byte offset in it.
    pub offset: Option<u64>,
    /// The ledger, if one is concerned.
    pub origin: Option<String>,
    /// The entry's index, if one is concerned.
    pub index: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What one thread found.
type Checked = (Vec<VerifiedLedger>, Vec<VerifyFinding>, Vec<String>);

struct Checker<'a> {
    /// Whose directory it is.
    own: &'a DivisionId,
    snapshot: &'a Snapshot,
    authority: &'a Authority,
    /// For each authority ledger, the root at each size.
    authority_roots: &'a BTreeMap<Origin, Vec<Hash>>,
    findings: Vec<VerifyFinding>,
    remarks: Vec<String>,
}

/// Verifies everything in a node's directory. Reads only; the node may run meanwhile.
///
/// # Errors
/// When there is no node, or its files cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    let start = Instant::now();
    let config = NodeConfig::read(dir)?;
    // Read before the segments: a node that runs meanwhile signs more, never less.
    let signed_last = signed_of_all(dir, &config);
    let mut findings = Vec::new();
    let mut remarks = Vec::new();
    let mut more = 0;
    let snapshot = store::scan_segments(dir, &mut |seen| {
        if let store::Seen::Finding(finding) = seen {
            if matches!(finding, store::Finding::Unfinished { .. }) {
                remarks.push(finding.to_string());
            } else if findings.len() < FINDINGS_MAX {
                findings.push(VerifyFinding {
                    file: Some(finding.file().display().to_string()),
                    offset: Some(finding.offset()),
                    origin: None,
                    index: None,
                    what: finding.to_string(),
                });
            } else {
                more += 1;
            }
        }
    })?;
    let mut report = VerifyReport {
        ok: false,
        division: config.division.to_string(),
        files: snapshot.stats().segments,
        bytes: snapshot.stats().bytes,
        ledgers: Vec::new(),
        findings,
        more_findings: more,
        remarks,
        elapsed_ms: 0,
    };
    let origins: Vec<Origin> = snapshot
        .shards()?
        .iter()
        .filter_map(|shard| Origin::parse(shard).ok())
        .collect();
    let mut note = |origin: Option<&Origin>, what: String| {
        report.findings.push(VerifyFinding {
            file: None,
            offset: None,
            origin: origin.map(ToString::to_string),
            index: None,
            what,
        });
    };
    let chain = config.charters()?;
    let now = chain
        .first()
        .map_or(record::id::UnixMillis(0), |c| c.not_before);
    if let Err(error) =
        record::authority::verify_chain(&chain, &config.realm, &config.root_key()?, now, |_| false)
    {
        note(None, error.to_string());
    }
    let authority = match Authority::load(&snapshot, &config) {
        Ok(authority) => authority,
        Err(error) => {
            note(
                None,
                format!("the authority ledgers cannot be read: {error}"),
            );
            Authority::default()
        }
    };
    let mut authority_roots = BTreeMap::new();
    for origin in origins
        .iter()
        .filter(|o| o.ledger().as_str() == "authority")
    {
        authority_roots.insert(origin.clone(), prefix_roots(&snapshot, origin));
    }
    // Ledgers are independent of each other: both cores work.
    let halves: Vec<Vec<&Origin>> = (0..2)
        .map(|half| {
            origins
                .iter()
                .enumerate()
                .filter(|(at, _)| at % 2 == half)
                .map(|(_, o)| o)
                .collect()
        })
        .collect();
    let results: Vec<Checked> = std::thread::scope(|scope| {
        let threads: Vec<_> = halves
            .iter()
            .map(|half| {
                let mut checker = Checker {
                    own: &config.division,
                    snapshot: &snapshot,
                    authority: &authority,
                    authority_roots: &authority_roots,
                    findings: Vec::new(),
                    remarks: Vec::new(),
                };
                scope.spawn(move || {
                    let ledgers = half.iter().map(|origin| checker.ledger(origin)).collect();
                    (ledgers, checker.findings, checker.remarks)
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    if results.len() != 2 {
        note(
            None,
            "a checker stopped before its end; run it again and report this".into(),
        );
    }
    for (ledgers, findings, remarks) in results {
        report.remarks.extend(remarks);
        report.ledgers.extend(ledgers);
        report.findings.extend(findings);
    }
    check_signed_last(&mut report, &signed_last);
    report.ledgers.sort_by(|a, b| a.origin.cmp(&b.origin));
    if report.findings.len() > FINDINGS_MAX {
        report.more_findings += (report.findings.len() - FINDINGS_MAX) as u64;
        report.findings.truncate(FINDINGS_MAX);
    }
    report.ok = report.findings.is_empty();
    report.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// What the second place says was signed of each own ledger of a kind that there is.
fn signed_of_all(dir: &Path, config: &NodeConfig) -> BTreeMap<Origin, u64> {
    let kinds = record::schema::Catalogue::builtin()
        .kinds()
        .into_iter()
        .map(|s| s.kind.clone());
    kinds
        .chain([crate::node::word("authority"), crate::node::word("access")])
        .map(|name| Origin::new(&config.realm, &config.division, &name))
        .filter_map(|origin| {
            let (size, _) = crate::guard::signed_last(dir, &origin)?;
            Some((origin, size))
        })
        .collect()
}

/// An own ledger that is shorter than what was signed was cut, whatever its files look like.
fn check_signed_last(report: &mut VerifyReport, signed: &BTreeMap<Origin, u64>) {
    for (origin, signed) in signed {
        let found = report
            .ledgers
            .iter()
            .find(|l| l.origin == *origin)
            .map_or(0, |l| l.size);
        if found < *signed {
            report.findings.push(VerifyFinding {
                file: None,
                offset: None,
                origin: Some(origin.to_string()),
                index: Some(found),
                what: format!(
                    "本机签过 {signed} 条，此处只有 {found} 条 / {signed} entries were signed here, {found} are left; the directory was cut or restored from an old copy"
                ),
            });
        }
    }
}

/// The root of an authority ledger at each size.
fn prefix_roots(snapshot: &Snapshot, origin: &Origin) -> Vec<Hash> {
    let mut frontier = Frontier::new();
    let mut roots = vec![frontier.root()];
    let mut at = 0u64;
    while let Ok(rows) = snapshot.scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), SCAN) {
        for (_, bytes) in &rows {
            frontier.append(leaf_hash(bytes));
            roots.push(frontier.root());
            at += 1;
        }
        if rows.len() < SCAN {
            break;
        }
    }
    roots
}

/// What is remembered while a ledger is walked.
#[derive(Default)]
struct Walk {
    frontier: Frontier,
    edge: TreeEdge,
    /// Leaf hashes after the last act.
    tail: Vec<Hash>,
    /// The epochs that bodies after the last act are sealed under.
    tail_epochs: BTreeSet<u32>,
    previous_act: Option<Hash>,
    /// The latest time of an act so far.
    latest: u64,
    /// The most of the authority ledger that an act relied on so far.
    authority_size: u64,
    newest: HashMap<RecordId, Newest>,
    /// Where the entries of each record are.
    entries_of: HashMap<RecordId, Places>,
    /// Entries without their body that no later entry accounts for so far.
    missing: BTreeMap<RecordId, Vec<(u64, Entry)>>,
    /// Shard heads that parcels since the last heartbeat were proven under.
    cited: BTreeSet<(u64, Hash)>,
    /// Serial of the newest charter whose key signed a service act so far.
    serial: u32,
    acts: u64,
    bodies: u64,
    whole_root: Option<Hash>,
}

/// Where the entries of a record are: most have one, and there are millions of them.
enum Places {
    One(u64),
    Many(Vec<u64>),
}

impl Places {
    fn push(&mut self, at: u64) {
        match self {
            Places::One(first) => *self = Places::Many(vec![*first, at]),
            Places::Many(places) => places.push(at),
        }
    }

    fn all(&self) -> Vec<u64> {
        match self {
            Places::One(at) => vec![*at],
            Places::Many(places) => places.clone(),
        }
    }
}

/// The newest entry of a record.
struct Newest {
    version: u64,
    leaf: Hash,
    erased: bool,
}

impl Checker<'_> {
    fn find(&mut self, origin: &Origin, index: Option<u64>, what: impl Into<String>) {
        let place = index.and_then(|at| self.snapshot.place(&table::entry(origin, at)));
        let (file, offset) = place.map_or((None, None), |(file, offset)| {
            (Some(file.display().to_string()), Some(offset))
        });
        self.findings.push(VerifyFinding {
            file,
            offset,
            origin: Some(origin.to_string()),
            index,
            what: what.into(),
        });
    }

    fn ledger(&mut self, origin: &Origin) -> VerifiedLedger {
        let mut walk = Walk::default();
        let head = match Head::read(self.snapshot, origin) {
            Ok(head) => head,
            Err(error) => {
                self.find(origin, None, format!("the head cannot be read: {error}"));
                Head::empty()
            }
        };
        let whole = head
            .whole
            .as_deref()
            .and_then(|note| self.checkpoint(origin, note));
        let whole_size = whole
            .as_ref()
            .map_or(u64::MAX, |(checkpoint, _)| checkpoint.size());
        let mut at = 0u64;
        loop {
            let rows =
                match self
                    .snapshot
                    .scan(origin.as_str(), table::ENTRY, &at.to_be_bytes(), SCAN)
                {
                    Ok(rows) => rows,
                    Err(error) => {
                        self.find(
                            origin,
                            Some(at),
                            format!("entries from {at} cannot be read: {error}"),
                        );
                        break;
                    }
                };
            let mut leaves = Vec::with_capacity(rows.len());
            for (rest, bytes) in &rows {
                if rest.as_slice() != at.to_be_bytes() {
                    self.find(origin, Some(at), format!("entry {at} is missing"));
                    break;
                }
                let leaf = leaf_hash(bytes);
                walk.frontier.append(leaf);
                leaves.push(leaf);
                if walk.frontier.size() == whole_size {
                    walk.whole_root = Some(walk.frontier.root());
                }
                self.entry(origin, at, bytes, leaf, &mut walk);
                at += 1;
            }
            self.tiles(origin, &leaves, &mut walk);
            if rows.len() < SCAN || leaves.len() < rows.len() {
                break;
            }
        }
        let missing: Vec<u64> = walk.missing.values().flatten().map(|(at, _)| *at).collect();
        if head.target.is_none() {
            missing.iter().for_each(|at| self.missing(origin, *at));
        } else if !missing.is_empty() {
            // Proven by entries under the head that is being fetched, which are not here yet.
            self.remarks.push(format!(
                "`{origin}`: 传输中，{} 个正文待后续条目说明 / in transfer, {} bodies are accounted for by entries still to come",
                missing.len(),
                missing.len()
            ));
        }
        self.end(origin, &head, &walk);
        // In transfer there are entries that the whole checkpoint does not cover.
        let covering = head.whole.as_deref().filter(|_| head.target.is_none());
        if let Some(secs) = covering.and_then(|note| self.first_cosigned(origin, note))
            && walk.latest > secs.saturating_mul(1000).saturating_add(TOLERANCE_MILLIS)
        {
            self.find(
                origin,
                None,
                "an act claims a time after the witnesses' cosignatures on it",
            );
        }
        let signatures = whole.map_or(0, |(checkpoint, signatures)| {
            if walk
                .whole_root
                .is_some_and(|root| root != *checkpoint.root())
            {
                self.find(
                    origin,
                    None,
                    format!(
                        "the entries do not give the root of the signed checkpoint of {}",
                        checkpoint.size()
                    ),
                );
            }
            signatures
        });
        VerifiedLedger {
            origin: origin.clone(),
            size: walk.frontier.size(),
            root: data_encoding::HEXLOWER.encode(&walk.frontier.root()),
            acts: walk.acts,
            bodies: walk.bodies,
            signatures,
        }
    }

    /// Opens a checkpoint; gives it with the number of signatures that hold.
    fn checkpoint(
        &mut self,
        origin: &Origin,
        note: &str,
    ) -> Option<(ledger::checkpoint::Checkpoint, u64)> {
        let Some(charter) = self.authority.signer_of(origin, note) else {
            self.find(
                origin,
                None,
                "no charter of the ledger's division is known, so its checkpoint cannot be checked",
            );
            return None;
        };
        let opened = log_verifier(origin, &charter.keys.sign)
            .map_err(|e| e.to_string())
            .and_then(|log| {
                ledger::checkpoint::open(note.as_bytes(), &log).map_err(|e| e.to_string())
            });
        let checkpoint = match opened {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.find(
                    origin,
                    None,
                    format!("the checkpoint does not hold: {error}"),
                );
                return None;
            }
        };
        let mut known: Vec<Verifier> = Vec::new();
        for charter in self.authority.witnesses_ever(&origin.division()) {
            for (role, key) in [
                ("witness", &charter.keys.witness),
                ("held", &charter.keys.held),
            ] {
                let name = format!("{}/{}/{role}", charter.realm, charter.division);
                known.extend(Verifier::new(&name, KeyKind::Cosignature, key).ok());
            }
        }
        let held = Note::parse(note.as_bytes())
            .map_err(|e| e.to_string())
            .and_then(|note| {
                note.verify(&known)
                    .map(|signed| signed.len() as u64)
                    .map_err(|e| e.to_string())
            });
        match held {
            Ok(cosignatures) => Some((checkpoint, cosignatures + 1)),
            // Without any cosignature that is known there is only the log's own signature.
            Err(_) if !note.contains("/witness ") && !note.contains("/held ") => {
                Some((checkpoint, 1))
            }
            Err(error) => {
                self.find(
                    origin,
                    None,
                    format!("a cosignature on the checkpoint does not hold: {error}"),
                );
                None
            }
        }
    }

    fn entry(&mut self, origin: &Origin, at: u64, bytes: &[u8], leaf: Hash, walk: &mut Walk) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                self.find(origin, Some(at), error.to_string());
                walk.tail.push(leaf);
                return;
            }
        };
        if !belongs(origin, &entry) {
            self.find(
                origin,
                Some(at),
                format!("entry {at} is of a kind that this ledger does not take"),
            );
        }
        if let Some(hash) = entry.body_hash() {
            match self.snapshot.get(&table::body(origin, at)) {
                Ok(Some(body)) if Hash::from(Sha256::digest(&body)) == hash => {
                    walk.bodies += 1;
                    if let Entry::Grant(entry) = &entry {
                        self.parcel(origin, at, entry, &body, walk);
                    }
                }
                Ok(Some(_)) => self.find(
                    origin,
                    Some(at),
                    format!("the body of entry {at} is not the one that it names"),
                ),
                // A later entry may say that it was to be destroyed; the end of the ledger decides.
                Ok(None) => {
                    let record = entry.record().filter(|_| chain::has_chains(origin));
                    match record {
                        Some(record) => {
                            let missing = walk.missing.entry(record).or_default();
                            missing.push((at, entry.clone()));
                        }
                        None => self.missing(origin, at),
                    }
                }
                Err(error) => self.find(
                    origin,
                    Some(at),
                    format!("the body of entry {at} cannot be read: {error}"),
                ),
            }
        }
        if entry.orders_destruction() {
            self.destruction(origin, at, &entry, walk);
        }
        if let Some(record) = entry.record() {
            walk.entries_of
                .entry(record)
                .and_modify(|places| places.push(at))
                .or_insert(Places::One(at));
        }
        match &entry {
            Entry::Act(act) => {
                self.act(origin, at, act, walk);
                walk.tail.clear();
                walk.previous_act = Some(leaf);
                return;
            }
            Entry::Record(entry) => {
                self.version(origin, at, entry, leaf, walk);
                if entry.operation != Operation::Erase {
                    walk.tail_epochs.insert(entry.epoch);
                }
            }
            _ => {}
        }
        walk.tail.push(leaf);
    }

    fn missing(&mut self, origin: &Origin, at: u64) {
        if origin.grant_id().is_some() && self.authority.dropped(self.own, origin) {
            // The grant ended, and this node signed that it dropped everything of it.
            return;
        }
        self.find(
            origin,
            Some(at),
            format!(
                "the body of entry {at} is missing, and no later entry says that it was to be destroyed"
            ),
        );
    }

    /// An entry that orders bodies to be destroyed accounts for those that are missing; one of
    /// those that is still here was kept against the order.
    fn destruction(&mut self, origin: &Origin, at: u64, entry: &Entry, walk: &mut Walk) {
        let Some(record) = entry.record() else {
            return;
        };
        if let Some(missing) = walk.missing.get_mut(&record) {
            missing.retain(|(_, earlier)| !entry.destroys_body_of(earlier));
            if missing.is_empty() {
                walk.missing.remove(&record);
            }
        }
        let places = walk.entries_of.get(&record);
        for index in places.map(Places::all).unwrap_or_default() {
            let bytes = self.snapshot.get(&table::entry(origin, index));
            let Ok(Some(Ok(before))) = bytes.map(|bytes| bytes.map(|b| Entry::decode(&b))) else {
                continue;
            };
            let here = self.snapshot.get(&table::body(origin, index));
            if entry.destroys_body_of(&before) && matches!(here, Ok(Some(_))) {
                self.find(
                    origin,
                    Some(index),
                    format!(
                        "the body of entry {index} is still here, which entry {at} ordered to be destroyed; start the node, which finishes it"
                    ),
                );
            }
        }
    }

    /// The time of the earliest cosignature on a checkpoint: nothing under it is later.
    fn first_cosigned(&self, origin: &Origin, note: &str) -> Option<u64> {
        let owner = origin.division();
        self.authority
            .witnesses_ever(&owner)
            .filter_map(|charter| {
                let name = format!("{}/{}/witness", charter.realm, charter.division);
                let key = &charter.keys.witness;
                let verifier = Verifier::new(&name, KeyKind::Cosignature, key).ok()?;
                ledger::checkpoint::verify_cosignature(note.as_bytes(), &verifier).ok()
            })
            .min()
    }

    fn version(
        &mut self,
        origin: &Origin,
        at: u64,
        entry: &RecordEntry,
        leaf: Hash,
        walk: &mut Walk,
    ) {
        let known = walk.newest.get(&entry.record);
        let resealed = entry.operation == Operation::Reseal;
        let follows = match known {
            None => !resealed && entry.version == 1 && entry.previous.is_none(),
            Some(newest) => {
                let version = match resealed {
                    // The same version once more, of those before.
                    true => (1..=newest.version).contains(&entry.version),
                    false => entry.version == newest.version + 1,
                };
                let content = !resealed || self.seals_content_anew(origin, entry, walk);
                version && content && !newest.erased && entry.previous == Some(newest.leaf)
            }
        };
        if !follows {
            self.find(
                origin,
                Some(at),
                format!("entry {at} does not follow the version of its record before it"),
            );
        }
        let version = known.map_or(entry.version, |newest| newest.version.max(entry.version));
        let newest = Newest {
            version,
            leaf,
            erased: entry.operation == Operation::Erase,
        };
        walk.newest.insert(entry.record, newest);
    }

    /// Whether a reseal has the content of the version that it says it seals anew.
    fn seals_content_anew(&self, origin: &Origin, reseal: &RecordEntry, walk: &Walk) -> bool {
        let places = walk.entries_of.get(&reseal.record);
        let mut before = places.map(Places::all).unwrap_or_default().into_iter();
        before.any(|index| {
            let bytes = self.snapshot.get(&table::entry(origin, index));
            matches!(
                bytes.map(|bytes| bytes.map(|b| Entry::decode(&b))),
                Ok(Some(Ok(Entry::Record(entry))))
                    if entry.version == reseal.version && entry.content == reseal.content
            )
        })
    }

    fn act(&mut self, origin: &Origin, at: u64, act: &Act, walk: &mut Walk) {
        walk.acts += 1;
        if let Err(error) = act.verify(origin) {
            walk.acts -= 1;
            self.find(origin, Some(at), error.to_string());
        }
        let covers = act.first + u64::from(act.count) == at
            && walk.tail.len() as u64 == u64::from(act.count)
            && act.root == root_of(&walk.tail);
        if !covers {
            self.find(
                origin,
                Some(at),
                format!("the act at {at} does not sign the entries before it"),
            );
        }
        if act.previous != walk.previous_act {
            self.find(
                origin,
                Some(at),
                format!("the act at {at} does not name the act before it"),
            );
        }
        let division = origin.division();
        let entitled = match act.capacity {
            Capacity::Service => self
                .authority
                .charters_ever(&division)
                .iter()
                .rev()
                .find(|charter| charter.keys.sign == act.key)
                .is_some_and(|charter| {
                    // A key that was replaced signs nothing after its successor did.
                    let follows = charter.serial >= walk.serial;
                    walk.serial = walk.serial.max(charter.serial);
                    follows
                }),
            Capacity::Operator => self
                .authority
                .term(&division, &act.key)
                .is_some_and(|term| term.covers(act.authority_size)),
        };
        let authority = Origin::new(&origin.realm(), &division, &crate::node::word("authority"));
        let roots = self.authority_roots.get(&authority);
        // A replica may hold less of the authority ledger than the act relied on: then who signed
        // is not known here yet, and is checked where it is.
        let known_here = roots.is_some_and(|roots| act.authority_size < roots.len() as u64);
        if !entitled && known_here {
            self.find(
                origin,
                Some(at),
                format!(
                    "the act at {at} is signed by a key that was not enrolled when it was signed"
                ),
            );
        }
        let root = roots.and_then(|roots| roots.get(act.authority_size as usize));
        if root.is_some_and(|root| *root != act.authority_root) {
            let what = format!("the act at {at} relies on another history of `{authority}`");
            self.find(origin, Some(at), what);
        }
        let in_force = self.authority.epoch_at(origin, act.authority_size);
        let epochs = std::mem::take(&mut walk.tail_epochs);
        for other in epochs.into_iter().filter(|e| known_here && *e != in_force) {
            // Else whoever knows the keys of an old epoch reads what is written today.
            let what = format!(
                "entries of the act at {at} are sealed under epoch {other}, while {in_force} was in force"
            );
            self.find(origin, Some(at), what);
        }
        if act.authority_size < walk.authority_size {
            // Else a key that was disabled could sign as of the time before.
            let what =
                format!("the act at {at} relies on less of `{authority}` than the act before it");
            self.find(origin, Some(at), what);
        }
        walk.authority_size = walk.authority_size.max(act.authority_size);
        if act.signed_at.0.saturating_add(TOLERANCE_MILLIS) < walk.latest {
            let minutes = (walk.latest - act.signed_at.0) / 60_000;
            self.remarks.push(format!(
                "`{origin}` {at}: 时间倒退 {minutes} 分钟 / the act's time is {minutes} minutes before that of an act before it"
            ));
        }
        walk.latest = walk.latest.max(act.signed_at.0);
    }

    /// What a grant's ledger carried: proven under a head that the shard's owner signed.
    fn parcel(
        &mut self,
        origin: &Origin,
        at: u64,
        entry: &GrantEntry,
        body: &[u8],
        walk: &mut Walk,
    ) {
        let shard = origin.shard();
        match entry.operation {
            GrantOperation::Enter | GrantOperation::Update | GrantOperation::Reseal => {
                let proven = Parcel::decode(body)
                    .map_err(|e| e.to_string())
                    .and_then(|parcel| {
                        if entry.record != Some(parcel.entry().record) {
                            return Err("the parcel is another record's".into());
                        }
                        ledger::proof::verify_inclusion(
                            &leaf_hash(parcel.leaf()),
                            parcel.index(),
                            entry.shard_size,
                            &parcel.inclusion(),
                            &entry.shard_root,
                        )
                        .map_err(|e| e.to_string())
                    });
                if let Err(error) = proven {
                    self.find(
                        origin,
                        Some(at),
                        format!("the row of entry {at} is not proven to be in `{shard}`: {error}"),
                    );
                }
                walk.cited.insert((entry.shard_size, entry.shard_root));
            }
            GrantOperation::Heartbeat => {
                let note = String::from_utf8_lossy(body);
                if let Some((checkpoint, signatures)) = self.checkpoint(&shard, &note) {
                    let same = checkpoint.size() == entry.shard_size
                        && *checkpoint.root() == entry.shard_root;
                    if !same || signatures < 2 {
                        self.find(origin, Some(at), format!("the heartbeat at {at} does not cite a cosigned checkpoint of `{shard}`"));
                    }
                    // Every row since the heartbeat before must be proven under this very head.
                    let vouched = (checkpoint.size(), *checkpoint.root());
                    let others = walk.cited.iter().filter(|cited| **cited != vouched).count();
                    walk.cited.clear();
                    if others > 0 {
                        self.find(
                            origin,
                            Some(at),
                            format!("rows before the heartbeat at {at} are proven under {others} heads that it does not vouch for"),
                        );
                    }
                }
            }
            GrantOperation::Keys | GrantOperation::Retract => {}
        }
    }

    fn tiles(&mut self, origin: &Origin, leaves: &[Hash], walk: &mut Walk) {
        let (edge, writes) = plan_append(&walk.edge, leaves);
        walk.edge = edge;
        for write in writes {
            // A partial tile is compared once, at its final width, by the caller's last stretch.
            let stored = self
                .snapshot
                .get(&table::tile(origin, write.level, write.index));
            let holds = match &stored {
                Ok(Some(stored)) => stored.starts_with(&write.bytes),
                _ => false,
            };
            if !holds {
                self.find(
                    origin,
                    None,
                    format!(
                        "tile {}/{} is not the one that the entries give",
                        write.level, write.index
                    ),
                );
            }
        }
    }

    fn end(&mut self, origin: &Origin, head: &Head, walk: &Walk) {
        if walk.frontier.size() != head.size {
            self.find(
                origin,
                None,
                format!(
                    "{} entries were found, {} should be there",
                    walk.frontier.size(),
                    head.size
                ),
            );
        } else if walk.frontier.root() != head.root {
            self.find(origin, None, "the entries do not give the root of the head");
        }
        if head.tail != walk.tail.len() as u64 {
            self.find(
                origin,
                None,
                format!(
                    "{} entries at the end are signed by no act",
                    walk.tail.len()
                ),
            );
        }
        let whole = head.target.is_none();
        if whole && head.size > 0 && head.whole.is_none() {
            self.find(origin, None, "there is no signed checkpoint");
        }
        if !walk.cited.is_empty() {
            self.remarks.push(format!(
                "`{origin}`: 末尾的授权记录尚无心跳作证 / the last rows granted have no heartbeat yet that vouches for their proof"
            ));
        }
    }
}

fn belongs(origin: &Origin, entry: &Entry) -> bool {
    match entry {
        Entry::Act(_) => true,
        Entry::Record(_) => origin.is_shard(),
        Entry::Grant(_) => origin.grant_id().is_some(),
        Entry::Authority(_) => {
            origin.grant_id().is_none() && origin.ledger().as_str() == "authority"
        }
        Entry::Access(_) => origin.grant_id().is_none() && origin.ledger().as_str() == "access",
    }
}
