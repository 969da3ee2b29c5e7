//! One record, several grants (一人一行): what the holdings of one shard say of a record together.
//!
//! Owns the joining of rows that a holder has through more than one grant: one row for each record,
//! with every field that any of the grants gives. Refuses to mix two versions of a record in a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLockReadGuard;

use index::{FindError, Match};
use policy::{Decision, Denied, Permit, RowAttributes, Shown};
use record::id::{DivisionId, Origin, RecordId};
use record::schema::{Position, Schema};

use super::DeniedField;
use crate::holding::Holding;

const NOT_GRANTED: &str = "not-granted";

/// A holding that was decided upon.
pub(super) struct Source<'a> {
    pub holding: RwLockReadGuard<'a, Holding>,
    pub decision: Decision,
    /// None when the holding has no field that was asked for: then it only finds.
    pub permit: Option<Permit>,
    /// Whether the holding has every field that the reading searches by.
    pub searched: bool,
}

/// Where a row's values lie: the entry of one grant's ledger, and the fields taken of it.
pub(super) struct Part {
    pub holding: Origin,
    pub at: u64,
    pub fields: BTreeMap<Position, Shown>,
}

/// One record of an answer, before anything of it is opened.
pub(super) struct Hit {
    pub record: RecordId,
    pub version: u64,
    pub parts: Vec<Part>,
    pub withheld: Withheld,
}

/// Fields that were asked for and are not given, and why.
pub(super) type Withheld = BTreeMap<Position, Refused>;

/// Why a field is not in a row.
pub(super) enum Refused {
    /// No grant gives it: the owner is asked.
    NotGranted(DivisionId),
    /// A grant gives it, but of an earlier version of the record.
    Behind(DivisionId),
    /// Policy.
    Rule { rule: String, ask: String },
}

/// What is searched for.
pub(super) struct Search<'a> {
    pub filters: &'a [(Position, Match)],
    /// Whether records out of force are answered, too.
    pub closed: bool,
    /// The fields that were asked for.
    pub wanted: &'a BTreeSet<Position>,
}

impl Source<'_> {
    fn version_of(&self, record: RecordId) -> Option<u64> {
        Some(self.holding.index.get(record)?.version)
    }

    fn is_closed(&self, record: RecordId) -> bool {
        let attributes = self.holding.index.attributes_of(record);
        attributes.is_some_and(|row| row.status == index::CLOSED)
    }
}

/// Whether the holdings of one shard answer nothing at all, and what denies it: that no grant has a
/// field that is searched by, of which an empty answer would be a lie.
pub(super) fn unanswerable(sources: &[Source<'_>], filters: &[Position]) -> Option<Option<Denied>> {
    let shows = sources.iter().any(|source| source.permit.is_some());
    let finds = sources.iter().any(|source| source.searched);
    let owner = sources
        .first()
        .map(|source| source.holding.origin.division());
    match owner {
        Some(_) if shows && finds => None,
        None => Some(None),
        Some(owner) => Some(Some(Denied {
            rule: NOT_GRANTED.into(),
            ask: ask(&owner),
            reason: policy::Reason::NothingPermits,
            field: sources
                .iter()
                .find_map(|source| super::ungranted_filter(&source.holding, filters)),
        })),
    }
}

/// The records of one shard that match, by ascending id, at most `limit`; and whether there are more.
pub(super) fn join(
    sources: &[Source<'_>],
    search: &Search<'_>,
    limit: usize,
) -> Result<(Vec<Hit>, bool), FindError> {
    let mut more = false;
    let mut found: BTreeMap<RecordId, u64> = BTreeMap::new();
    let mut by_source = Vec::new();
    for source in sources {
        let mut mine = BTreeSet::new();
        if source.searched {
            let division = source.holding.origin.division();
            let rows = |row: &index::Attributes<'_>| {
                (search.closed || row.status != index::CLOSED)
                    && source.decision.rows().matches(&RowAttributes {
                        grid: row.grid,
                        status: row.status,
                        division: division.as_str(),
                    })
            };
            let page = source
                .holding
                .index
                .find(search.filters, &rows, limit, None)?;
            more |= page.more;
            for row in page.found {
                mine.insert(row.record);
                let newest = found.entry(row.record).or_default();
                *newest = row.version.max(*newest);
            }
        }
        by_source.push(mine);
    }
    let mut hits = Vec::new();
    for (record, version) in found {
        // One grant may be a moment behind another, or have come when no entry told any more that
        // the record was closed.
        let outdated = sources.iter().zip(&by_source).any(|(source, mine)| {
            let theirs = source.version_of(record);
            let finds = source.searched && source.permit.is_some();
            let moved_on = theirs > Some(version) && finds && !mine.contains(&record);
            let closed = theirs >= Some(version) && source.is_closed(record);
            moved_on || (closed && !search.closed)
        });
        if outdated {
            continue;
        }
        let Some(hit) = hit(sources, search.wanted, record, version) else {
            continue;
        };
        if hits.len() == limit {
            more = true;
            break;
        }
        hits.push(hit);
    }
    Ok((hits, more))
}

/// A record with what each of the sources gives of it; `None` when none gives anything.
fn hit(
    sources: &[Source<'_>],
    wanted: &BTreeSet<Position>,
    record: RecordId,
    version: u64,
) -> Option<Hit> {
    let holding_it = |source: &&Source<'_>| source.version_of(record) == Some(version);
    let same: Vec<&Source<'_>> = sources.iter().filter(holding_it).collect();
    // Which grid it lies in is known as soon as one of the grants says so.
    let known = same
        .iter()
        .filter_map(|source| source.holding.index.attributes_of(record));
    let (mut grid, mut status) = (None, "");
    for attributes in known {
        grid = grid.or(attributes.grid);
        status = if status.is_empty() {
            attributes.status
        } else {
            status
        };
    }
    let mut hit = Hit {
        record,
        version,
        parts: Vec::new(),
        withheld: Withheld::new(),
    };
    let mut given: BTreeMap<Position, Shown> = BTreeMap::new();
    let mut ruled = Withheld::new();
    for source in &same {
        let division = source.holding.origin.division();
        let row = RowAttributes {
            grid,
            status,
            division: division.as_str(),
        };
        let (Some(permit), Some(at)) = (&source.permit, source.holding.index.get(record)) else {
            continue;
        };
        if !source.decision.rows().matches(&row) {
            continue;
        }
        ruled.extend(rules_of(permit));
        let mut fields = BTreeMap::new();
        for (position, how) in permit.shown() {
            // Whole is better than masked; what one grant gave already is not opened twice.
            let better = match given.get(position) {
                None => true,
                Some(before) => *how == Shown::Shown && *before != Shown::Shown,
            };
            if better {
                given.insert(*position, *how);
                fields.insert(*position, *how);
            }
        }
        if !fields.is_empty() {
            hit.parts.push(Part {
                holding: source.holding.origin.clone(),
                at: at.at,
                fields,
            });
        }
    }
    if hit.parts.is_empty() {
        return None;
    }
    for position in wanted.difference(&given.keys().copied().collect()) {
        let refused = match ruled.remove(position) {
            Some(ruled) => ruled,
            None => missing(sources, record, version, *position),
        };
        hit.withheld.insert(*position, refused);
    }
    Some(hit)
}

fn rules_of(permit: &Permit) -> impl Iterator<Item = (Position, Refused)> {
    permit.denied().iter().map(|(position, refusal)| {
        let (rule, ask) = (refusal.rule.clone(), refusal.ask.clone());
        (*position, Refused::Rule { rule, ask })
    })
}

/// Why no source gave a field that policy does not refuse.
fn missing(sources: &[Source<'_>], record: RecordId, version: u64, position: Position) -> Refused {
    let owner = sources[0].holding.origin.division();
    let gives = |source: &&Source<'_>| {
        let permit = source.permit.as_ref();
        permit.is_some_and(|permit| permit.shown().contains_key(&position))
    };
    for source in sources.iter().filter(gives) {
        match source.version_of(record) {
            Some(other) if other != version => return Refused::Behind(owner),
            Some(_) => {
                return Refused::Rule {
                    rule: source.decision.row_rule().to_owned(),
                    ask: source.decision.ask(position).to_owned(),
                };
            }
            None => {}
        }
    }
    Refused::NotGranted(owner)
}

/// What no row of a shard could give.
pub(super) fn withheld(sources: &[Source<'_>], wanted: &BTreeSet<Position>) -> Withheld {
    let permits = || sources.iter().filter_map(|source| source.permit.as_ref());
    let mut ruled: Withheld = permits().flat_map(rules_of).collect();
    let shown: BTreeSet<Position> = permits()
        .flat_map(|permit| permit.shown().keys().copied())
        .collect();
    let Some(first) = sources.first() else {
        return Withheld::new();
    };
    let owner = first.holding.origin.division();
    let named = wanted.difference(&shown).map(|position| {
        let ruled = ruled.remove(position);
        (
            *position,
            ruled.unwrap_or_else(|| Refused::NotGranted(owner.clone())),
        )
    });
    named.collect()
}

/// What is not in an answer's rows although it was asked for. A field that other rows have is said
/// to be missing in so many.
pub(super) fn denied_fields<'a>(
    schema: &Schema,
    withheld: impl Iterator<Item = &'a Withheld>,
) -> Vec<DeniedField> {
    let mut of = 0;
    let mut lines: BTreeMap<(Position, String, String), u64> = BTreeMap::new();
    for row in withheld {
        of += 1;
        for (position, refused) in row {
            let (rule, ask) = refused.words();
            *lines.entry((*position, rule, ask)).or_default() += 1;
        }
    }
    let line = |((position, rule, ask), rows): ((Position, String, String), u64)| {
        Some(DeniedField {
            field: schema.at(position)?.id.clone(),
            rule,
            ask,
            rows: (rows < of).then_some(rows),
        })
    };
    lines.into_iter().filter_map(line).collect()
}

impl Hit {
    /// The fields in the row, and how each is shown.
    pub(super) fn shown(&self) -> BTreeMap<Position, Shown> {
        let fields = self.parts.iter().flat_map(|part| &part.fields);
        fields.map(|(position, how)| (*position, *how)).collect()
    }
}

impl Refused {
    /// The rule, and whom to ask.
    fn words(&self) -> (String, String) {
        match self {
            Refused::NotGranted(owner) => (NOT_GRANTED.into(), ask(owner)),
            Refused::Behind(owner) => (
                "grant-behind".into(),
                format!(
                    "稍后再查；{owner} 的另一授权尚在旧版本 / try again shortly: another grant of `{owner}` still has an earlier version"
                ),
            ),
            Refused::Rule { rule, ask } => (rule.clone(), ask.clone()),
        }
    }
}

fn ask(owner: &DivisionId) -> String {
    format!("{owner} 的安全员 / the security officer of `{owner}`")
}
