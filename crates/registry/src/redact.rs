//! Redacting (销项): the cells of a group of fields are destroyed when their term is over, and the
//! record stays.
//!
//! Owns which groups are past their term, and the entries that seal what stays of a body without
//! them: of each cell only its commitment is left, so `content` and every proof hold
//! ([0016](../../../docs/decisions/0016-redaction-keeps-commitments.md)). Refuses to do anything
//! without a standing order of the task `fields`, which two officers approved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use ledger::hash::leaf_hash;
use record::cbor;
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{Origin, RecordId, UnixMillis};
use record::plan::{ClassTerm, Task};
use record::schema::{Position, Schema};
use seal::body::{Body, Opened, SealedBody};

use crate::book::Leaf;
use crate::chain;
use crate::epoch::ShardKeys;
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Version};
use crate::node::{Registry, lock, purpose};
use crate::retention::RetentionLine;
use crate::table::{self, Newest};

const DAY_MILLIS: u64 = 86_400_000;
/// Records redacted in one act, about.
const STEP: usize = 64;
/// Bodies sealed again in one act, about: what is left over is done the next time.
const BODIES: usize = 2048;
/// Fields that say what a record is: without them it cannot stay.
const CONTROL: &str = "control";

/// A body without the cells that are past their term.
struct Rest {
    version: Version,
    sealed: SealedBody,
}

/// Refuses a term that is none, and a group of fields that is not there or stays with its record.
fn destroyable(schema: &Schema, class: &ClassTerm) -> Result<()> {
    let ClassTerm { kind, group, days } = class;
    let words = if *days == 0 {
        format!(
            "`{kind}:{group}` 的期限为 0 天，等于没有期限，请写 1 天以上 / the period of `{kind}:{group}` is 0 days, which is none; give at least 1 day"
        )
    } else if group.as_str() == CONTROL {
        format!(
            "字段组 `{group}` 随记录留存，不能先行销毁，请改选别的字段组 / the group `{group}` stays as long as its record; choose another group of `{kind}`"
        )
    } else if !schema.fields.iter().any(|field| field.group == *group) {
        let groups: BTreeSet<&str> = { schema.fields.iter() }
            .map(|field| field.group.as_str())
            .filter(|group| *group != CONTROL)
            .collect();
        let groups = Vec::from_iter(groups).join(", ");
        format!(
            "类别 `{kind}` 没有字段组 `{group}`，现有 {groups} / kind `{kind}` has no group `{group}` of fields; it has {groups}"
        )
    } else {
        return Ok(());
    };
    Err(RegistryError::BadRequest(words))
}

impl Registry {
    /// The shard of a group of fields that may be destroyed.
    pub(crate) fn class_shard(&self, class: &ClassTerm) -> Result<Origin> {
        let schema = self.schema(&class.kind)?;
        destroyable(schema, class)?;
        Ok(self.shard(&class.kind))
    }

    /// The groups that standing orders in force name.
    fn classes_in_force(&self, now: UnixMillis) -> BTreeSet<ClassTerm> {
        let shards = self.catalogue().kinds();
        let shards = shards.into_iter().map(|schema| self.shard(&schema.kind));
        let authority = self.authority();
        let mut classes = BTreeSet::new();
        for shard in shards {
            for (_, order) in authority.standing_orders(Task::Fields, &shard, now) {
                let of = order.classes.iter().flatten();
                classes.extend(of.filter(|c| c.kind == shard.ledger()).cloned());
            }
        }
        classes
    }

    /// What is past its term by groups of fields.
    pub(crate) fn fields_retention(&self, now: UnixMillis) -> Result<Vec<RetentionLine>> {
        let lines = self.classes_in_force(now).into_iter().map(|class| {
            let (closed, due) = self.fields_due(&class, now)?;
            Ok(RetentionLine {
                kind: class.kind,
                years: 0,
                basis: String::new(),
                closed,
                due: due.len() as u64,
                ordered: true,
                group: Some(class.group),
                days: Some(class.days),
            })
        });
        lines.collect()
    }

    /// Destroys what is past its term by groups of fields, where a standing order says so.
    pub(crate) fn tend_fields(&self, now: UnixMillis) -> Result<()> {
        for class in self.classes_in_force(now) {
            let (_, due) = self.fields_due(&class, now)?;
            let shard = self.shard(&class.kind);
            let positions = self.positions_of(&class)?;
            for part in due.chunks(STEP) {
                if self.resealable_up_to(&shard, now)? != u64::MAX {
                    // A grant works up to a checkpoint and needs the bodies: the next time.
                    return Ok(());
                }
                self.redact(&shard, part, &positions, now)?;
            }
            if !due.is_empty() {
                self.finish_destroying(now)?;
            }
        }
        Ok(())
    }

    fn positions_of(&self, class: &ClassTerm) -> Result<BTreeSet<Position>> {
        let schema = self.schema(&class.kind)?;
        let of = schema.fields.iter().filter(|f| f.group == class.group);
        Ok(of.map(|field| field.position).collect())
    }

    /// How many records are out of force, and those past the term that still have such cells.
    fn fields_due(&self, class: &ClassTerm, now: UnixMillis) -> Result<(u64, Vec<RecordId>)> {
        let shard = self.shard(&class.kind);
        let positions = self.positions_of(class)?;
        let term = u64::from(class.days) * DAY_MILLIS;
        let (closed, past) = self.closed_for(&shard, term, now)?;
        let mut due = Vec::new();
        for record in past {
            if !self.bodies_with(&shard, &record, &positions)?.is_empty() {
                due.push(record);
            }
        }
        Ok((closed, due))
    }

    /// The indices of a record's bodies that have a cell at one of the positions.
    fn bodies_with(
        &self,
        shard: &Origin,
        record: &RecordId,
        positions: &BTreeSet<Position>,
    ) -> Result<Vec<u64>> {
        let store = self.store.as_ref();
        let mut found = Vec::new();
        for at in chain::entries_of(store, shard, record, 0)? {
            let Some(bytes) = store.get(&table::body(shard, at))? else {
                continue;
            };
            let Some((_, entry)) = self.record_entry(shard, at)? else {
                continue;
            };
            if entry.operation == Operation::Erase {
                continue;
            }
            let body = Body::decode(&bytes)
                .map_err(|e| RegistryError::damaged(format!("`{shard}` {at}: {e}")))?;
            if body.positions().any(|at| positions.contains(&at)) {
                found.push(at);
            }
        }
        Ok(found)
    }

    /// Seals every body of some records again without the cells at some positions, in one act.
    fn redact(
        &self,
        origin: &Origin,
        records: &[RecordId],
        positions: &BTreeSet<Position>,
        now: UnixMillis,
    ) -> Result<()> {
        let keys = self.own_keys(origin)?;
        let (epoch, _) = keys.current();
        let book = self.book(origin)?;
        let mut book = lock(&book);
        let holding = self.holding(origin)?;
        let mut holding = holding.write().unwrap_or_else(PoisonError::into_inner);
        match &holding.access {
            Access::Own(in_force) if Arc::ptr_eq(in_force, &keys) => {}
            // Another epoch began meanwhile: the next time.
            _ => return Ok(()),
        }
        let mut rests = Vec::new();
        'records: for record in records {
            for at in self.bodies_with(origin, record, positions)? {
                if rests.len() >= BODIES {
                    break 'records;
                }
                rests.push(self.without(origin, &keys, at, positions)?);
            }
        }
        if rests.is_empty() {
            return Ok(());
        }
        let mut newest: BTreeMap<RecordId, Newest> = BTreeMap::new();
        let mut leaves = Vec::with_capacity(rests.len());
        for (index, rest) in (book.size()..).zip(&rests) {
            let record = rest.version.record;
            let before = match newest.get(&record) {
                Some(before) => before.clone(),
                None => self.newest(origin, &record)?.ok_or_else(|| {
                    RegistryError::damaged(format!("`{origin}`: record {record} is not known"))
                })?,
            };
            let entry = RecordEntry {
                operation: Operation::Redact,
                previous: Some(before.leaf),
                epoch,
                body: rest.sealed.hash,
                recorded_at: now,
                ..rest.version.entry.clone()
            };
            let whole = Entry::Record(entry.clone());
            let leaf = leaf_hash(&whole.encode());
            newest.insert(record, Newest::after(Some(before), &entry, index, leaf));
            leaves.push(Leaf {
                entry: whole,
                body: Some(rest.sealed.bytes.clone()),
            });
        }
        let signer = self.service(purpose("security"));
        let appended = self.append(&mut book, &signer, leaves, now, |batch, _, _| {
            for (record, newest) in &newest {
                let key = table::key(origin, table::RECORD, &record.0);
                batch.put(key, cbor::to_vec(newest));
            }
        })?;
        for (index, rest) in (appended.first..).zip(&rests) {
            let (record, version) = (rest.version.record, rest.version.entry.version);
            let known = holding.index.get(record);
            if known.is_some_and(|known| known.version == version) {
                let texts = rest.version.texts();
                holding.index.upsert(record, version, index, &texts);
            }
        }
        holding.index.set_applied(appended.size);
        drop(holding);
        drop(book);
        self.changed();
        Ok(())
    }

    /// A body opened, and sealed again under the present epoch with what stays of it.
    fn without(
        &self,
        origin: &Origin,
        keys: &ShardKeys,
        at: u64,
        positions: &BTreeSet<Position>,
    ) -> Result<Rest> {
        let mut version = self.open_own(origin, keys, at)?;
        for (position, opened) in &mut version.values {
            if positions.contains(position) {
                *opened = Opened::destroyed(*position, opened.commitment(*position));
            }
        }
        let sealed = self.sealed_anew(origin, keys, at, &version)?;
        Ok(Rest { version, sealed })
    }
}

#[cfg(test)]
mod tests {
    use record::id::Kind;
    use record::schema::Catalogue;

    use super::*;

    #[test]
    fn a_class_that_cannot_be_destroyed_is_refused_with_the_true_reason() {
        let kind = Kind::new("person").unwrap();
        let schema = Catalogue::builtin().schema(&kind).unwrap();
        let told = |group: &str, days| {
            let group = Kind::new(group).unwrap();
            let kind = kind.clone();
            destroyable(schema, &ClassTerm { kind, group, days })
        };
        assert!(told("contact", 1).is_ok());
        for (group, days, chinese, english) in [
            ("contact", 0, "0 天", "at least 1 day"),
            ("control", 30, "随记录留存", "stays as long as its record"),
            ("contacts", 30, "没有字段组", "it has care, contact"),
        ] {
            let words = told(group, days).unwrap_err().to_string();
            let (zh, en) = words.split_once(" / ").unwrap();
            assert!(zh.contains(chinese) && en.contains(english), "{words}");
        }
    }
}
