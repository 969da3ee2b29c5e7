//! Records that move between divisions, as the tests of transfers and of whole shards look at them.

use std::collections::BTreeMap;
use std::path::Path;

use record::act::{Act, Capacity};
use record::authority::{AuthorityEntry, Statement};
use record::entry::{Entry, RecordEntry, SUITE};
use record::id::{Origin, RecordId, UnixMillis};
use registry::audit::realm::{Severity, audit};
use registry::session::Session;
use store::Snapshot;

use crate::realm::forge::{self, keystore};
use crate::realm::{NOW, PASSPHRASE, Row, Site, origin, reading_person};

/// A closed node's directory verifies, and its audit finds no fault.
#[track_caller]
pub fn clean(dir: &Path, now: UnixMillis) {
    let report = registry::verify::verify(dir).unwrap();
    assert!(report.ok, "{}: {:#?}", dir.display(), report.findings);
    let report = audit(dir, now).unwrap();
    let faults: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Fault)
        .collect();
    assert!(faults.is_empty(), "{}: {faults:#?}", dir.display());
}

/// Records that a node counts, of whichever division.
pub fn total(site: &Site) -> u64 {
    let counts = site.registry.counts().unwrap();
    counts.iter().map(|line| line.records).sum()
}

/// Persons of a division that a node counts.
pub fn count_at(site: &Site, name: &str) -> u64 {
    let counts = site.registry.counts().unwrap();
    let of = counts
        .iter()
        .find(|line| line.origin == origin(name, "person"));
    of.map_or(0, |line| line.records)
}

/// The node's clerk, logged in.
pub fn clerk(site: &Site) -> Session {
    site.registry.login("clerk", PASSPHRASE, NOW).unwrap()
}

/// What a clerk reads of a person.
pub fn fields(
    site: &Site,
    person: &Row,
    now: UnixMillis,
) -> Option<(RecordId, u64, BTreeMap<String, String>)> {
    let request = reading_person(person, "registration");
    let answer = site.registry.read(&clerk(site), &request, now).unwrap();
    let rows = &answer.value().rows;
    assert!(rows.len() <= 1);
    let row = rows.first()?;
    Some((row.record, row.version, row.fields.clone()))
}

/// The entries of a record in a shard, as a directory has them.
pub fn entries(dir: &Path, shard: &Origin, record: RecordId) -> Vec<(RecordEntry, bool)> {
    let store = Snapshot::open(dir).unwrap();
    forge::leaves(&store, shard)
        .into_iter()
        .filter_map(|(entry, body)| match entry {
            Entry::Record(entry) if entry.record == record => Some((entry, body.is_some())),
            _ => None,
        })
        .collect()
}

/// Puts a statement into a closed node's authority ledger, signed with the node's own key; gives
/// its index.
pub fn state(dir: &Path, name: &str, statement: Statement) -> u64 {
    let authority = origin(name, "authority");
    let store = forge::open_store(dir);
    let head = forge::head(&store, &authority);
    drop(store);
    let sign = keystore(dir).sign.signing_key();
    let entry = Entry::Authority(AuthorityEntry {
        suite: SUITE,
        statement,
        recorded_at: NOW,
    });
    let Entry::Act(act) = forge::act(name, (head.size, head.root), NOW) else {
        panic!("an act");
    };
    let act = Act {
        capacity: Capacity::Service,
        ..act
    };
    forge::append(dir, &authority, &sign, (entry, vec![]), (act, &sign));
    let _ = std::fs::remove_dir_all(dir.join("working-index"));
    head.size
}
