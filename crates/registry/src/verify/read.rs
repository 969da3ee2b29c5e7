//! Reading a stretch of a ledger out of what was noted when the segments were scanned: which body
//! belongs to which entry, the roots under acts and tiles, and what grants proved.
//!
//! Any thread can do any stretch, and reads any entry for it. What an entry means after those before
//! it is [`super::walk`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ledger::hash::{digests, leaf_hash, root_of};
use ledger::tile::TILE_WIDTH;
use record::act::{ACT_ENTRIES_MAX, Act};
use record::entry::{Entry, GrantEntry, GrantOperation};
use record::id::{Hash, Origin};
use seal::parcel::Parcel;
use store::{Snapshot, Store};

use super::look::{Fact, Line};
use crate::table;

/// Entries of a stretch: whole tiles, enough to outweigh the handing over, few enough to keep every
/// core busy.
pub(super) const STRETCH: u64 = 2 * TILE_WIDTH as u64;
/// Parcels in memory at a time.
const PARCELS: usize = 64;

/// A stretch of a ledger, looked through.
pub(super) struct Stretch<'a> {
    /// Index of the first entry.
    pub first: u64,
    /// The leaf hash of each entry.
    pub leaves: Vec<Hash>,
    /// Each entry, if it can be decoded.
    pub lines: Vec<Option<Line<'a>>>,
    /// The roots of the whole tiles of leaves.
    pub tiles: Vec<Hash>,
    /// The root over the entries that an act says it signs, by the act's index.
    pub signed: Vec<(u64, Hash)>,
    /// The checkpoints that heartbeats cite, by index.
    pub cited: BTreeMap<u64, Vec<u8>>,
    /// Entries whose body is not here, by index, ascending.
    pub missing: Vec<u64>,
    /// Entries whose body was destroyed while this ran, by a node that is in use: by index.
    pub destroyed: BTreeSet<u64>,
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

/// What was noted of entries from `from` on, with their keys.
fn entries<'a>(
    snapshot: &'a Snapshot<Fact>,
    origin: &Origin,
    from: u64,
) -> impl Iterator<Item = (store::Rest<'a>, Option<&'a Fact>)> {
    snapshot.notes(origin.as_str(), table::ENTRY, &from.to_be_bytes())
}

/// Looks through the entries of `range` with their bodies.
pub(super) fn stretch<'a>(
    snapshot: &'a Snapshot<Fact>,
    origin: &Origin,
    range: Range<u64>,
) -> Stretch<'a> {
    let first = range.start;
    let mut stretch = Stretch {
        first,
        leaves: Vec::with_capacity(STRETCH as usize),
        lines: Vec::with_capacity(STRETCH as usize),
        tiles: Vec::new(),
        signed: Vec::new(),
        cited: BTreeMap::new(),
        missing: Vec::new(),
        destroyed: BTreeSet::new(),
        faults: Vec::new(),
        acts: 0,
        bodies: 0,
        end: End::More,
    };
    let mut rows = entries(snapshot, origin, first);
    for at in range {
        let Some((rest, fact)) = rows.next() else {
            stretch.end = End::Last;
            break;
        };
        if *rest != at.to_be_bytes() {
            stretch.end = End::Broken(format!("缺第 {at} 条 / entry {at} is missing"));
            break;
        }
        let Some((fact, leaf)) = fact.and_then(|fact| Some((fact, fact.leaf()?))) else {
            let why = match snapshot.get(&table::entry(origin, at)) {
                Err(error) => error.to_string(),
                Ok(_) => "it is not there any more".to_owned(),
            };
            stretch.end = End::Broken(format!(
                "第 {at} 条起读不出 / entries from {at} cannot be read: {why}"
            ));
            break;
        };
        stretch.entry(snapshot, origin, at, fact);
        stretch.leaves.push(leaf);
        stretch.lines.push(fact.line());
    }
    let (tiles, _) = stretch.leaves.as_chunks::<TILE_WIDTH>();
    stretch.tiles = tiles.iter().map(|tile| root_of(tile)).collect();
    stretch.check_bodies(snapshot, origin);
    stretch
}

impl<'a> Stretch<'a> {
    fn entry(&mut self, snapshot: &Snapshot<Fact>, origin: &Origin, at: u64, fact: &Fact) {
        let Fact::Entry(seen) = fact else {
            return;
        };
        if let Err(error) = &seen.entry {
            let what = format!("第 {at} 条读不懂 / entry {at} cannot be read: {error}");
            self.fault(at, what);
        }
        if let Ok(Entry::Act(act)) = &seen.entry {
            match &seen.act {
                None => self.acts += 1,
                Some(error) => {
                    let what = format!("第 {at} 条经办的签名不成立 / the act at {at}: {error}");
                    self.fault(at, what);
                }
            }
            if let Some(root) = self.root_under(snapshot, origin, at, act) {
                self.signed.push((at, root));
            }
        }
    }

    /// The root over the entries between the first that an act says it signs and itself.
    fn root_under(
        &self,
        snapshot: &Snapshot<Fact>,
        origin: &Origin,
        at: u64,
        act: &Act,
    ) -> Option<Hash> {
        let count = at.checked_sub(act.first)?;
        if count > u64::from(ACT_ENTRIES_MAX) {
            return None;
        }
        let before = self.first.saturating_sub(act.first).min(count);
        let here = &self.leaves[self.leaves.len() - (count - before) as usize..];
        if before == 0 {
            return Some(root_of(here));
        }
        let earlier = entries(snapshot, origin, act.first).take(before as usize);
        let leaves: Vec<Hash> = earlier
            .filter_map(|(_, fact)| fact?.leaf())
            .chain(here.iter().copied())
            .collect();
        (leaves.len() as u64 == count).then(|| root_of(&leaves))
    }

    fn check_bodies(&mut self, snapshot: &Snapshot<Fact>, origin: &Origin) {
        let lines = std::mem::take(&mut self.lines);
        let from = self.first.to_be_bytes();
        let mut bodies = snapshot
            .notes(origin.as_str(), table::BODY, &from)
            .peekable();
        let mut parcels: Vec<(u64, &GrantEntry)> = Vec::new();
        for (at, line) in (self.first..).zip(&lines) {
            let Some((line, hash)) = line.and_then(|line| Some((line, line.body_hash()?))) else {
                continue;
            };
            let index = at.to_be_bytes();
            while bodies.next_if(|(rest, _)| **rest < index[..]).is_some() {}
            let found = match bodies.next_if(|(rest, _)| **rest == index[..]) {
                Some((_, Some(Fact::Body(found)))) => *found,
                // It fails its checksum, which reading it says, or was destroyed since.
                Some(_) => match snapshot.get(&table::body(origin, at)) {
                    Ok(Some(body)) => digests(&[body])[0],
                    Ok(None) => {
                        self.destroyed.insert(at);
                        continue;
                    }
                    Err(error) => {
                        let what = format!(
                            "第 {at} 条的正文读不出 / the body of entry {at} cannot be read: {error}"
                        );
                        self.fault(at, what);
                        continue;
                    }
                },
                None => {
                    self.missing.push(at);
                    continue;
                }
            };
            if found != hash {
                let what = format!(
                    "第 {at} 条的正文不是它所指的 / the body of entry {at} is not the one that it names"
                );
                self.fault(at, what);
                continue;
            }
            self.bodies += 1;
            if let Line::Other(Entry::Grant(entry)) = line {
                parcels.push((at, entry));
            }
        }
        for part in parcels.chunks(PARCELS) {
            let keys: Vec<_> = part
                .iter()
                .map(|(at, _)| table::body(origin, *at))
                .collect();
            let bodies = snapshot.get_many(&keys).unwrap_or_else(|_| {
                // One that cannot be read hides none of its neighbours.
                let each = keys.iter().map(|key| snapshot.get(key).ok().flatten());
                each.collect()
            });
            for ((at, entry), body) in part.iter().zip(bodies) {
                match body {
                    Some(body) => self.parcel(origin, *at, entry, body),
                    None => match snapshot.get(&table::body(origin, *at)) {
                        Ok(_) => drop(self.destroyed.insert(*at)),
                        Err(error) => self.fault(
                            *at,
                            format!("第 {at} 条的正文读不出 / the body of entry {at} cannot be read: {error}"),
                        ),
                    },
                }
            }
        }
        self.lines = lines;
    }

    fn fault(&mut self, at: u64, what: String) {
        self.faults.push((at, what));
    }

    /// What a grant's ledger carried: a row that is proven to be in the shard, or the checkpoint
    /// that a heartbeat cites.
    fn parcel(&mut self, origin: &Origin, at: u64, entry: &GrantEntry, body: Vec<u8>) {
        match entry.operation {
            GrantOperation::Enter | GrantOperation::Update | GrantOperation::Reseal => {
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
