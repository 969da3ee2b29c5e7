//! Reading a stretch of a ledger: what of each entry holds by itself, whatever came before it.
//!
//! This is most of the work, and any thread can do any stretch. What an entry means after those
//! before it is [`super::walk`]'s.

use std::collections::BTreeMap;
use std::ops::Range;

use ledger::hash::{digests, leaf_hash, leaf_hashes};
use record::entry::{Entry, GrantEntry, GrantOperation};
use record::id::{Hash, Origin};
use seal::parcel::Parcel;
use store::{Snapshot, Store};

use crate::table;

/// Entries of a stretch: enough to outweigh the handing over, few enough to keep every core busy.
pub(super) const STRETCH: u64 = 512;
/// Bodies in memory at a time.
const BODIES: usize = 64;

/// A stretch of a ledger, read and hashed.
pub(super) struct Stretch {
    /// Index of the first entry.
    pub first: u64,
    /// Of each entry its leaf hash, and the entry if it can be decoded.
    pub rows: Vec<(Hash, Option<Entry>)>,
    /// The checkpoints that heartbeats cite, by index.
    pub cited: BTreeMap<u64, Vec<u8>>,
    /// What does not hold, by index.
    pub faults: Vec<(u64, String)>,
    /// Acts whose signature holds.
    pub acts: u64,
    /// Bodies whose hash holds.
    pub bodies: u64,
    /// Whether the ledger goes on after it.
    pub end: End,
}

/// How a stretch ends.
pub(super) enum End {
    /// The ledger may go on.
    More,
    /// Here the ledger ends.
    Last,
    /// Here it breaks off, for this reason.
    Broken(String),
}

/// Reads the entries of `range` with their bodies.
pub(super) fn stretch(snapshot: &Snapshot, origin: &Origin, range: Range<u64>) -> Stretch {
    let first = range.start;
    let mut stretch = Stretch {
        first,
        rows: Vec::new(),
        cited: BTreeMap::new(),
        faults: Vec::new(),
        acts: 0,
        bodies: 0,
        end: End::More,
    };
    let wanted = usize::try_from(range.end - first).unwrap_or(usize::MAX);
    let from = first.to_be_bytes();
    let mut rows = match snapshot.scan(origin.as_str(), table::ENTRY, &from, wanted) {
        Ok(rows) => rows,
        Err(error) => {
            stretch.end = End::Broken(format!(
                "第 {first} 条起读不出 / entries from {first} cannot be read: {error}"
            ));
            return stretch;
        }
    };
    if rows.len() < wanted {
        stretch.end = End::Last;
    }
    let gap = (first..)
        .zip(&rows)
        .find(|(at, (rest, _))| rest.as_slice() != at.to_be_bytes());
    if let Some((at, _)) = gap {
        stretch.end = End::Broken(format!("缺第 {at} 条 / entry {at} is missing"));
        rows.truncate((at - first) as usize);
    }
    let rows: Vec<Vec<u8>> = rows.into_iter().map(|(_, bytes)| bytes).collect();
    stretch.rows.reserve(rows.len());
    for ((at, bytes), leaf) in (first..).zip(&rows).zip(leaf_hashes(&rows)) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => Some(entry),
            Err(error) => {
                let what = format!("第 {at} 条读不懂 / entry {at} cannot be read: {error}");
                stretch.faults.push((at, what));
                None
            }
        };
        if let Some(Entry::Act(act)) = &entry {
            match act.verify(origin) {
                Ok(()) => stretch.acts += 1,
                Err(error) => {
                    let what = format!("第 {at} 条经办的签名不成立 / the act at {at}: {error}");
                    stretch.faults.push((at, what));
                }
            }
        }
        stretch.rows.push((leaf, entry));
    }
    drop(rows);
    stretch.check_bodies(snapshot, origin);
    stretch
}

impl Stretch {
    fn check_bodies(&mut self, snapshot: &Snapshot, origin: &Origin) {
        let rows = std::mem::take(&mut self.rows);
        let named: Vec<(u64, Hash, &Entry)> = (self.first..)
            .zip(&rows)
            .filter_map(|(at, (_, entry))| {
                let entry = entry.as_ref()?;
                Some((at, entry.body_hash()?, entry))
            })
            .collect();
        for part in named.chunks(BODIES) {
            let from = part[0].0.to_be_bytes();
            let scanned = snapshot.scan(origin.as_str(), table::BODY, &from, part.len());
            // One that cannot be read hides none of its neighbours.
            let mut scanned = scanned.unwrap_or_default().into_iter().peekable();
            let mut bodies = Vec::with_capacity(part.len());
            for (at, ..) in part {
                let here = scanned.next_if(|(rest, _)| rest.as_slice() == at.to_be_bytes());
                let body = match here {
                    Some((_, body)) => Ok(Some(body)),
                    None => snapshot.get(&table::body(origin, *at)),
                };
                match &body {
                    Ok(Some(_)) => {}
                    Ok(None) => self.fault(*at, format!("第 {at} 条缺正文 / the body of entry {at} is missing")),
                    Err(error) => self.fault(
                        *at,
                        format!("第 {at} 条的正文读不出 / the body of entry {at} cannot be read: {error}"),
                    ),
                }
                bodies.push(body.ok().flatten());
            }
            let (there, bodies): (Vec<_>, Vec<Vec<u8>>) = part
                .iter()
                .zip(bodies)
                .filter_map(|(named, body)| Some((named, body?)))
                .unzip();
            let hashes = digests(&bodies);
            for (((at, hash, entry), body), found) in there.into_iter().zip(bodies).zip(hashes) {
                if found != hash {
                    let what = format!(
                        "第 {at} 条的正文不是它所指的 / the body of entry {at} is not the one that it names"
                    );
                    self.fault(at, what);
                    continue;
                }
                self.bodies += 1;
                if let Entry::Grant(entry) = entry {
                    self.parcel(origin, at, entry, body);
                }
            }
        }
        self.rows = rows;
    }

    fn fault(&mut self, at: u64, what: String) {
        self.faults.push((at, what));
    }

    /// What a grant's ledger carried: a row that is proven to be in the shard, or the checkpoint
    /// that a heartbeat cites.
    fn parcel(&mut self, origin: &Origin, at: u64, entry: &GrantEntry, body: Vec<u8>) {
        match entry.operation {
            GrantOperation::Enter | GrantOperation::Update => {
                if let Err(error) = proven(entry, &body) {
                    let shard = origin.shard();
                    self.fault(
                        at,
                        format!("第 {at} 条的行未证明在 `{shard}` 中 / the row of entry {at} is not proven to be in `{shard}`: {error}"),
                    );
                }
            }
            GrantOperation::Heartbeat => drop(self.cited.insert(at, body)),
            GrantOperation::Keys | GrantOperation::Retract => {}
        }
    }
}

fn proven(entry: &GrantEntry, body: &[u8]) -> Result<(), String> {
    let parcel = Parcel::decode(body).map_err(|e| e.to_string())?;
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
}
