//! Walking along one ledger, stretch by stretch: the tree, its tiles, what acts cover, the chains of
//! versions, and at the end the signed head.
//!
//! Everything here depends on what came before, so a ledger is walked by one thread at a time.

use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeMap, BTreeSet};

use ledger::checkpoint::Checkpoint;
use ledger::hash::empty_root;
use ledger::levels::Levels;
use ledger::note::Note;
use record::act::{Act, Capacity};
use record::entry::{Entry, GrantEntry, GrantOperation, Operation, RecordEntry};
use record::id::{Hash, Origin, RecordId};
use store::{Snapshot, Store};

use super::look::{Fact, Line};
use super::over::Over;
use super::read::{End, Stretch};
use super::{Known, VerifiedLedger, VerifyFinding};
use crate::chain;
use crate::clock::TOLERANCE_MILLIS;
use crate::explained::Explained;
use crate::replicate::log_verifier;
use crate::table::{self, Head};

/// Bytes that a record's entry takes in a segment at least.
const ENTRY_LEAST: u64 = 128;

/// What is remembered while a ledger is walked.
pub(super) struct Walk<'a> {
    known: &'a Known<'a>,
    origin: &'a Origin,
    takes: Takes,
    head: Head,
    /// The newest whole checkpoint, with the number of signatures on it that hold.
    whole: Option<(Checkpoint, u64)>,
    leaves: Vec<Hash>,
    /// The roots of the whole tiles of leaves.
    tiles: Vec<Hash>,
    /// How many entries follow the last act.
    tail: u64,
    /// The epochs that bodies after the last act are sealed under.
    tail_epochs: BTreeSet<u32>,
    previous_act: Option<Hash>,
    /// The latest time of an act so far.
    latest: u64,
    /// The most of the authority ledger that an act relied on so far.
    authority_size: u64,
    /// What came of each record so far.
    records: HashMap<RecordId, Record>,
    /// Entries without their body that no later entry accounts for so far.
    missing: BTreeMap<RecordId, Vec<(u64, Entry)>>,
    /// Shard heads that parcels since the last heartbeat were proven under.
    cited: BTreeSet<(u64, Hash)>,
    /// The size that the newest heartbeat so far spoke of.
    heartbeat: u64,
    /// Serial of the newest charter whose key signed a service act so far.
    serial: u32,
    acts: u64,
    bodies: u64,
    /// Bodies that were destroyed while this ran.
    destroyed: usize,
    /// Why nothing of it needs to be here, of a grant to this node that is over.
    over: Option<Over>,
    /// Bodies that are not here because of that.
    dropped: u64,
    pub findings: Vec<VerifyFinding>,
    /// What officers explained of its acts' times, and of how many acts each.
    late: Vec<(Explained, u64)>,
    pub explained: Vec<VerifyFinding>,
    pub remarks: Vec<String>,
    /// What there is to say of the ledger, once it was walked to its end.
    pub done: Option<VerifiedLedger>,
}

impl<'a> Walk<'a> {
    /// Stands before the first entry of a ledger.
    pub(super) fn new(known: &'a Known<'a>, origin: &'a Origin) -> Self {
        let mut walk = Self {
            known,
            origin,
            takes: Takes::of(origin),
            head: Head::empty(),
            whole: None,
            leaves: Vec::new(),
            tiles: Vec::new(),
            tail: 0,
            tail_epochs: BTreeSet::new(),
            previous_act: None,
            latest: 0,
            authority_size: 0,
            records: HashMap::new(),
            missing: BTreeMap::new(),
            serial: 0,
            cited: BTreeSet::new(),
            heartbeat: 0,
            acts: 0,
            bodies: 0,
            destroyed: 0,
            over: known.times.over(origin, known.own, known.authority),
            dropped: 0,
            findings: Vec::new(),
            late: Vec::new(),
            explained: Vec::new(),
            remarks: Vec::new(),
            done: None,
        };
        match Head::read(known.snapshot, origin) {
            Ok(head) => walk.head = head,
            Err(error) => walk.find(
                None,
                format!("账头读不出 / the head cannot be read: {error}"),
            ),
        }
        let late = known.authority.explained(origin);
        walk.late = late.into_iter().map(|explained| (explained, 0)).collect();
        if walk.takes == Takes::Records {
            // What the head claims, but no more than there is room for in the files.
            let entries = walk
                .head
                .size
                .min(known.snapshot.stats().bytes / ENTRY_LEAST);
            walk.records.reserve(entries as usize);
        }
        if let Some(note) = walk.head.whole.clone() {
            walk.whole = walk.checkpoint(origin, &note);
        }
        walk
    }

    /// How many entries were walked along.
    pub(super) fn size(&self) -> u64 {
        match &self.done {
            Some(done) => done.size,
            None => self.leaves.len() as u64,
        }
    }

    fn snapshot(&self) -> &'a Snapshot<Fact> {
        self.known.snapshot
    }

    fn find(&mut self, index: Option<u64>, what: impl Into<String>) {
        let finding = self.finding(index, what);
        self.findings.push(finding);
    }

    fn finding(&self, index: Option<u64>, what: impl Into<String>) -> VerifyFinding {
        let place = index.and_then(|at| self.snapshot().place(&table::entry(self.origin, at)));
        let (file, offset) = place.map_or((None, None), |(file, offset)| {
            (Some(file.display().to_string()), Some(offset))
        });
        VerifyFinding {
            file,
            offset,
            origin: Some(self.origin.to_string()),
            index,
            what: what.into(),
        }
    }

    /// Goes on by a stretch that begins where the one before ended.
    pub(super) fn go_on(&mut self, mut stretch: Stretch<'_>) {
        if self.done.is_some() {
            return;
        }
        for (at, what) in std::mem::take(&mut stretch.faults) {
            self.find(Some(at), what);
        }
        self.acts += stretch.acts;
        self.bodies += stretch.bodies;
        self.destroyed += stretch.destroyed.len();
        let mut signed = stretch.signed.iter().peekable();
        // What a record says of its newest entry is looked up here.
        self.leaves.extend_from_slice(&stretch.leaves);
        for (at, line) in (stretch.first..).zip(&stretch.lines) {
            match *line {
                Some(Line::Other(Entry::Act(act))) => {
                    let signed = signed.next_if(|(act, _)| *act == at);
                    self.act(at, act, signed.map(|(_, root)| *root));
                    self.tail = 0;
                    self.previous_act = self.leaf(at);
                }
                Some(line) => {
                    self.entry(at, line, &stretch);
                    self.tail += 1;
                }
                None => self.tail += 1,
            }
        }
        self.tiles.append(&mut stretch.tiles);
        match stretch.end {
            End::More => return,
            End::Last => {}
            End::Broken(what) => self.find(Some(self.size()), what),
        }
        self.end();
    }

    fn entry(&mut self, at: u64, line: Line<'_>, stretch: &Stretch<'_>) {
        if !self.takes.takes(line) {
            self.find(
                Some(at),
                format!("第 {at} 条不属于本账本 / entry {at} is of a kind that this ledger does not take"),
            );
        }
        if !stretch.missing.is_empty() && stretch.missing.binary_search(&at).is_ok() {
            // A later entry may say that it was to be destroyed; the end of the ledger decides.
            let entry = line.to_entry();
            match entry.record().filter(|_| chain::has_chains(self.origin)) {
                Some(record) => {
                    let missing = self.missing.entry(record).or_default();
                    missing.push((at, entry));
                }
                None => self.unaccounted(at),
            }
        }
        if line.orders_destruction() {
            self.destruction(at, &line.to_entry());
        }
        let entry = match line {
            Line::Record(entry) => {
                self.version(at, entry);
                // Neither has a sealed body.
                if !matches!(entry.operation, Operation::Erase | Operation::TransferOut)
                    && self.tail_epochs.last() != Some(&entry.epoch)
                {
                    self.tail_epochs.insert(entry.epoch);
                }
                return;
            }
            Line::Other(entry) => entry,
        };
        match entry {
            Entry::Grant(entry) => self.granted(at, entry, stretch),
            Entry::Letter(letter) if !letter.fits(self.origin.is_proposals()) => self.find(
                Some(at),
                format!("第 {at} 条函件内容不全或错置 / the letter at {at} lacks something or belongs elsewhere"),
            ),
            _ => {}
        }
        if let Some(record) = entry.record() {
            match self.records.entry(record) {
                Slot::Vacant(slot) => drop(slot.insert(Record::One(at))),
                Slot::Occupied(slot) => {
                    let many = slot.into_mut().many(self.known.snapshot, self.origin);
                    many.places.push(at);
                }
            }
        }
    }

    /// A body that is not here, though nothing says that it was to be destroyed.
    fn unaccounted(&mut self, at: u64) {
        if self.over.is_some() {
            // A holder drops what it has of a grant that is over, and signs for it afterwards.
            self.dropped += 1;
            return;
        }
        self.find(
            Some(at),
            format!(
                "第 {at} 条缺正文，其后无条目命其销毁 / the body of entry {at} is missing, and no later entry says that it was to be destroyed"
            ),
        );
    }

    /// An entry that orders bodies to be destroyed accounts for those that are missing; one of
    /// those that is still here was kept against the order.
    fn destruction(&mut self, at: u64, entry: &Entry) {
        let Some(record) = entry.record() else {
            return;
        };
        if let Some(missing) = self.missing.get_mut(&record) {
            missing.retain(|(_, earlier)| !entry.destroys_body_of(earlier));
            if missing.is_empty() {
                self.missing.remove(&record);
            }
        }
        let places = self.records.get(&record).map(Record::places);
        for index in places.unwrap_or_default() {
            let Some(before) = noted(self.snapshot(), self.origin, index) else {
                continue;
            };
            let here = table::body(self.origin, index);
            let here = self
                .snapshot()
                .note(self.origin.as_str(), table::BODY, here.rest());
            if here.is_some() && entry.destroys_body_of(&before.to_entry()) {
                self.find(
                    Some(index),
                    format!(
                        "第 {index} 条的正文仍在，第 {at} 条已命其销毁；启动节点即可完成 / the body of entry {index} is still here, which entry {at} ordered to be destroyed; start the node, which finishes it"
                    ),
                );
            }
        }
    }

    /// Rows of a grant and the heartbeats that vouch for the heads that they are proven under.
    fn granted(&mut self, at: u64, entry: &GrantEntry, stretch: &Stretch<'_>) {
        match entry.operation {
            GrantOperation::Enter | GrantOperation::Update | GrantOperation::Reseal => {
                self.cited.insert((entry.shard_size, entry.shard_root));
            }
            GrantOperation::Heartbeat => {
                let Some(body) = stretch.cited.get(&at) else {
                    if stretch.destroyed.contains(&at) || self.over.is_some() {
                        // What it vouched for cannot be known any more.
                        self.cited.clear();
                    }
                    return;
                };
                let shard = self.origin.shard();
                let note = String::from_utf8_lossy(body);
                let Some((checkpoint, signatures)) = self.checkpoint(&shard, &note) else {
                    return;
                };
                let same =
                    checkpoint.size() == entry.shard_size && *checkpoint.root() == entry.shard_root;
                if !same || signatures < 2 {
                    self.find(
                        Some(at),
                        format!(
                            "第 {at} 条心跳未引用已联署的账头 / the heartbeat at {at} does not cite a cosigned checkpoint of `{shard}`"
                        ),
                    );
                }
                if checkpoint.size() < self.heartbeat {
                    self.find(
                        Some(at),
                        format!("第 {at} 条心跳比前一心跳旧 / the heartbeat at {at} cites an older checkpoint of `{shard}` than the one before it"),
                    );
                }
                self.heartbeat = self.heartbeat.max(checkpoint.size());
                // Every row since the heartbeat before must be proven under this very head.
                let vouched = (checkpoint.size(), *checkpoint.root());
                let others = self.cited.iter().filter(|cited| **cited != vouched).count();
                self.cited.clear();
                if others > 0 {
                    self.find(
                        Some(at),
                        format!("第 {at} 条心跳之前的行所依账头未获作证 / rows before the heartbeat at {at} are proven under {others} heads that it does not vouch for"),
                    );
                }
            }
            GrantOperation::Keys | GrantOperation::Retract => {}
        }
    }

    /// Opens a checkpoint; gives it with the number of signatures that hold.
    fn checkpoint(
        &mut self,
        origin: &Origin,
        note: &str,
    ) -> Option<(ledger::checkpoint::Checkpoint, u64)> {
        let Some(charter) = self.known.authority.signer_of(origin, note) else {
            self.find(
                None,
                "不知该账本节点的证书，账头无从核对 / no charter of the ledger's division is known, so its checkpoint cannot be checked",
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
                    None,
                    format!("账头不成立 / the checkpoint does not hold: {error}"),
                );
                return None;
            }
        };
        let owner = origin.division();
        let held = Note::parse(note.as_bytes())
            .map_err(|e| e.to_string())
            .and_then(|note| {
                let known = self.known.authority.cosigners(&owner, &note);
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
                    None,
                    format!(
                        "账头的联署不成立 / a cosignature on the checkpoint does not hold: {error}"
                    ),
                );
                None
            }
        }
    }

    /// Of an entry that was walked along.
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.leaves.get(usize::try_from(index).ok()?).copied()
    }

    fn version(&mut self, at: u64, entry: &RecordEntry) {
        let first = !entry.operation.is_anew() && entry.version == 1 && entry.previous.is_none();
        let follows = match self.records.entry(entry.record) {
            Slot::Vacant(slot) => {
                slot.insert(Record::One(at));
                first
            }
            Slot::Occupied(slot) => {
                let (snapshot, origin) = (self.known.snapshot, self.origin);
                let many = slot.into_mut().many(snapshot, origin);
                let follows = many.newest.as_ref().map_or(first, |known| {
                    let leaf = self.leaves.get(known.at as usize);
                    let previous = leaf.is_some() && entry.previous.as_ref() == leaf;
                    previous && known.is_followed_by(entry, &many.places, snapshot, origin)
                });
                many.push(at, entry);
                follows
            }
        };
        if !follows {
            self.find(
                Some(at),
                format!("第 {at} 条与该记录的前一版不衔接 / entry {at} does not follow the version of its record before it"),
            );
        }
    }

    /// An act; `root` is that over the entries from the first that it says it signs up to it.
    fn act(&mut self, at: u64, act: &Act, root: Option<Hash>) {
        let origin = self.origin;
        let covers = act.first.checked_add(u64::from(act.count)) == Some(at)
            && self.tail == u64::from(act.count)
            && root == Some(act.root);
        if !covers {
            self.find(
                Some(at),
                format!("第 {at} 条经办未签其前各条 / the act at {at} does not sign the entries before it"),
            );
        }
        if act.previous != self.previous_act {
            self.find(
                Some(at),
                format!(
                    "第 {at} 条经办未接上前一经办 / the act at {at} does not name the act before it"
                ),
            );
        }
        let division = origin.division();
        let entitled = match act.capacity {
            Capacity::Service => self
                .known
                .authority
                .charters_ever(&division)
                .iter()
                .rev()
                .find(|charter| charter.keys.sign == act.key)
                .is_some_and(|charter| {
                    // A key that was replaced signs nothing after its successor did.
                    let follows = charter.serial >= self.serial;
                    self.serial = self.serial.max(charter.serial);
                    follows
                }),
            Capacity::Operator => self
                .known
                .authority
                .term(&division, &act.key)
                .is_some_and(|term| term.covers(act.authority_size)),
        };
        let authority = Origin::new(&origin.realm(), &division, &crate::node::word("authority"));
        let roots = self.known.authority_roots.get(&authority);
        // A replica may hold less of the authority ledger than the act relied on: then who signed
        // is not known here yet, and is checked where it is.
        let known_here = roots.is_some_and(|roots| act.authority_size < roots.len() as u64);
        if !entitled && known_here {
            self.find(
                Some(at),
                format!(
                    "第 {at} 条经办所用密钥当时未登记 / the act at {at} is signed by a key that was not enrolled when it was signed"
                ),
            );
        }
        let root = roots.and_then(|roots| roots.get(act.authority_size as usize));
        if root.is_some_and(|root| *root != act.authority_root) {
            let what = format!(
                "第 {at} 条经办所依权限账本另有历史 / the act at {at} relies on another history of `{authority}`"
            );
            self.find(Some(at), what);
        }
        let in_force = self.known.authority.epoch_at(origin, act.authority_size);
        let epochs = std::mem::take(&mut self.tail_epochs);
        for other in epochs.into_iter().filter(|e| known_here && *e != in_force) {
            // Else whoever knows the keys of an old epoch reads what is written today.
            let what = format!(
                "第 {at} 条经办的正文封于第 {other} 期，当时应为第 {in_force} 期 / entries of the act at {at} are sealed under epoch {other}, while {in_force} was in force"
            );
            self.find(Some(at), what);
        }
        if act.authority_size < self.authority_size {
            // Else a key that was disabled could sign as of the time before.
            let what = format!(
                "第 {at} 条经办所依权限账本比前一经办短 / the act at {at} relies on less of `{authority}` than the act before it"
            );
            self.find(Some(at), what);
        }
        self.authority_size = self.authority_size.max(act.authority_size);
        let mut late = self.late.iter_mut();
        if let Some((_, acts)) = late.find(|(known, _)| known.covers(at, act.signed_at)) {
            *acts += 1;
            return;
        }
        if act.signed_at.0.saturating_add(TOLERANCE_MILLIS) < self.latest {
            let minutes = (self.latest - act.signed_at.0) / 60_000;
            self.remarks.push(format!(
                "`{origin}` {at}: 时间倒退 {minutes} 分钟 / the act's time is {minutes} minutes before that of an act before it"
            ));
        }
        self.latest = self.latest.max(act.signed_at.0);
    }

    /// Compares every tile that the entries give with the one stored.
    fn compare_tiles(&mut self, tree: &Levels) {
        for (level, index, hashes) in tree.tiles() {
            let stored = self.snapshot().get(&table::tile(self.origin, level, index));
            let holds = match &stored {
                Ok(Some(stored)) => stored.starts_with(hashes.as_flattened()),
                _ => false,
            };
            if !holds {
                self.find(
                    None,
                    format!(
                        "哈希块 {level}/{index} 与条目不符 / tile {level}/{index} is not the one that the entries give"
                    ),
                );
            }
        }
    }

    /// Compares what was walked along with the head, and the head with those who signed it.
    fn end(&mut self) {
        let leaves = std::mem::take(&mut self.leaves);
        let tree = Levels::with_roots(leaves, std::mem::take(&mut self.tiles));
        self.compare_tiles(&tree);
        let size = tree.size();
        let root = tree.root_at(size).unwrap_or_else(empty_root);
        let (head, tail) = (self.head.clone(), self.tail);
        if size != head.size {
            let there = head.size;
            self.find(
                None,
                format!("应有 {there} 条，实有 {size} 条 / {size} entries were found, {there} should be there"),
            );
        } else if root != head.root {
            self.find(
                None,
                "条目与账头的根不符 / the entries do not give the root of the head",
            );
        }
        if head.tail != tail {
            self.find(
                None,
                format!(
                    "末尾 {tail} 条无经办签名 / {tail} entries at the end are signed by no act"
                ),
            );
        }
        if head.target.is_none() && head.size > 0 && head.whole.is_none() {
            self.find(None, "没有签名账头 / there is no signed checkpoint");
        }
        let missing: Vec<u64> = self.missing.values().flatten().map(|(at, _)| *at).collect();
        if head.target.is_none() {
            missing.iter().for_each(|at| self.unaccounted(*at));
        } else if !missing.is_empty() {
            // Proven by entries under the head that is being fetched, which are not here yet.
            self.remarks.push(format!(
                "`{0}`: 传输中，{1} 个正文待后续条目说明 / in transfer, {1} bodies are accounted for by entries still to come",
                self.origin,
                missing.len()
            ));
        }
        if self.destroyed > 0 {
            self.remarks.push(format!(
                "`{0}`: 核验时节点销毁了 {1} 个正文，未及核对；再次核验会核对其依据 / the node destroyed {1} bodies while they were read, and they were not checked; another run checks what ordered it",
                self.origin, self.destroyed
            ));
        }
        let dropped = self.over.filter(|_| self.dropped > 0);
        let dropped = dropped.and_then(|over| over.words(self.origin, self.dropped));
        self.remarks.extend(dropped);
        // One that ended gets no heartbeat any more, and its holder dropped those that it had.
        let authority = self.known.authority;
        let grant = self.origin.grant_id();
        let ended = grant.is_some_and(|id| {
            let holder = authority.grant(&id).map(|grant| &grant.holder);
            self.over.is_some()
                || authority.grant_ended(&id).is_some()
                || holder.is_some_and(|holder| authority.dropped(holder, self.origin))
        });
        if !self.cited.is_empty() && !ended {
            self.remarks.push(format!(
                "`{}`: 末尾的授权记录尚无心跳作证 / the last rows granted have no heartbeat yet that vouches for their proof",
                self.origin
            ));
        }
        // In transfer there are entries that the whole checkpoint does not cover.
        let covering = head.whole.as_deref().filter(|_| head.target.is_none());
        if let Some(cosigned) =
            covering.and_then(|note| authority.first_cosigned(self.origin, note))
            && self.latest > cosigned.0.saturating_add(TOLERANCE_MILLIS)
        {
            self.find(
                None,
                "有经办的时间晚于其联署；时钟曾超前的，由两名安全员说明：fangzhi keys plan explain-clock / an act claims a time after the witnesses' cosignatures on it; if the clock was ahead, two officers explain it: fangzhi keys plan explain-clock",
            );
        }
        for (known, acts) in std::mem::take(&mut self.late) {
            if acts > 0 {
                let explained = self.finding(Some(known.first), known.words(acts));
                self.explained.push(explained);
            }
        }
        let signatures = self.whole.as_ref().map_or(0, |(_, signatures)| *signatures);
        let signed = self.whole.as_ref().map(|(checkpoint, _)| checkpoint);
        // What is missing of the signed entries was said above.
        let differs = signed.filter(|signed| {
            let root = tree.root_at(signed.size());
            root.is_some_and(|root| root != *signed.root())
        });
        if let Some(size) = differs.map(Checkpoint::size) {
            self.find(
                None,
                format!("条目与 {size} 条的签名账头不符 / the entries do not give the root of the signed checkpoint of {size}"),
            );
        }
        self.done = Some(VerifiedLedger {
            origin: self.origin.clone(),
            size,
            root: data_encoding::HEXLOWER.encode(&root),
            acts: self.acts,
            bodies: self.bodies,
            dropped: self.dropped,
            signatures,
        });
    }
}

/// What came of a record so far: most have one entry, and there are millions of them.
enum Record {
    /// The index of its only entry.
    One(u64),
    Many(Box<Many>),
}

/// Several entries of a record.
struct Many {
    places: Vec<u64>,
    newest: Option<Newest>,
}

impl Record {
    fn places(&self) -> Vec<u64> {
        match self {
            Record::One(at) => vec![*at],
            Record::Many(many) => many.places.clone(),
        }
    }

    /// The same, as it takes a further entry.
    fn many(&mut self, snapshot: &Snapshot<Fact>, origin: &Origin) -> &mut Many {
        loop {
            match self {
                Record::Many(many) => return many,
                Record::One(at) => {
                    let newest = match noted(snapshot, origin, *at) {
                        Some(Line::Record(entry)) => Some(Newest::of(*at, entry)),
                        _ => None,
                    };
                    let places = vec![*at];
                    *self = Record::Many(Box::new(Many { places, newest }));
                }
            }
        }
    }
}

impl Many {
    /// Takes the next version.
    fn push(&mut self, at: u64, entry: &RecordEntry) {
        self.places.push(at);
        let mut newest = Newest::of(at, entry);
        if let Some(known) = &self.newest {
            newest.version = newest.version.max(known.version);
        }
        self.newest = Some(newest);
    }
}

/// The newest entry of a record.
struct Newest {
    /// Its index, under which its leaf hash is found.
    at: u64,
    /// The highest version so far.
    version: u64,
    erased: bool,
}

impl Newest {
    fn of(at: u64, entry: &RecordEntry) -> Self {
        Self {
            at,
            version: entry.version,
            erased: entry.operation == Operation::Erase,
        }
    }

    /// Whether an entry may come next, but for the hash that it names.
    fn is_followed_by(
        &self,
        entry: &RecordEntry,
        places: &[u64],
        snapshot: &Snapshot<Fact>,
        origin: &Origin,
    ) -> bool {
        let follows = match entry.operation.is_anew() {
            // The same version once more, of those before.
            true => {
                (1..=self.version).contains(&entry.version)
                    && seals_content_anew(snapshot, origin, entry, places)
            }
            false => Some(entry.version) == self.version.checked_add(1),
        };
        follows && !self.erased
    }
}

/// An entry of a ledger, if it can be read.
fn noted<'a>(snapshot: &'a Snapshot<Fact>, origin: &Origin, index: u64) -> Option<Line<'a>> {
    let rest = index.to_be_bytes();
    snapshot.note(origin.as_str(), table::ENTRY, &rest)?.line()
}

/// Whether a reseal has the content of the version that it says it seals anew, which is at one of
/// these places.
fn seals_content_anew(
    snapshot: &Snapshot<Fact>,
    origin: &Origin,
    reseal: &RecordEntry,
    places: &[u64],
) -> bool {
    places.iter().any(|index| {
        matches!(
            noted(snapshot, origin, *index),
            Some(Line::Record(entry))
                if entry.version == reseal.version && entry.content == reseal.content
        )
    })
}

/// Which entries a ledger takes, beside acts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Records,
    Grants,
    Statements,
    Readings,
    Recovery,
    Letters,
}

impl Takes {
    fn of(origin: &Origin) -> Self {
        match origin.ledger().as_str() {
            _ if origin.grant_id().is_some() => Self::Grants,
            _ if origin.addressee().is_some() => Self::Letters,
            "authority" => Self::Statements,
            "access" => Self::Readings,
            "recovery" => Self::Recovery,
            _ => Self::Records,
        }
    }

    fn takes(self, line: Line<'_>) -> bool {
        let entry = match line {
            Line::Record(_) => return self == Self::Records,
            Line::Other(entry) => entry,
        };
        match entry {
            Entry::Act(_) => true,
            Entry::Record(_) => self == Self::Records,
            Entry::Grant(_) => self == Self::Grants,
            Entry::Authority(_) => self == Self::Statements,
            Entry::Access(_) => self == Self::Readings,
            Entry::Recovery(_) => self == Self::Recovery,
            Entry::Letter(_) => self == Self::Letters,
        }
    }
}
