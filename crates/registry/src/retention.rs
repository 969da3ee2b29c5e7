//! Retention (保存期限): records out of force for longer than their fields' classes allow are erased.
//!
//! The terms are `policies/retention.json`, years after a record went out of force, by kind and
//! class of field. A record is erased whole, so the longest term of the classes that its kind has
//! counts; a value that must go earlier is removed and the record closed by its clerk.
//! Owns which records are past their term. Refuses to erase any without a standing order of the
//! task `retention` for their shard, which two officers approved.

use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError};

use policy::Action;
use record::entry::{Entry, Operation};
use record::id::{Kind, Origin, RecordId, UnixMillis};
use record::plan::Task;
use record::schema::Sensitivity;
use serde::{Deserialize, Serialize};

use crate::chain;
use crate::error::{RegistryError, Result};
use crate::node::{Registry, purpose};
use crate::session::Session;
use crate::table;

/// A year of the term, leap days included.
const YEAR_MILLIS: u64 = 31_557_600_000;
/// Records looked at together.
const PAGE: usize = 1000;
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    format: u32,
    rules: Vec<Rule>,
}

/// How long records of a kind are kept after they went out of force.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// Years by class of field.
    pub years: BTreeMap<Sensitivity, u32>,
    /// The legal basis.
    pub basis: String,
}

/// What is past its term, of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct RetentionLine {
    /// The kind.
    pub kind: Kind,
    /// Years after closing.
    pub years: u32,
    /// The legal basis.
    pub basis: String,
    /// Records that are out of force.
    pub closed: u64,
    /// Of these, records past their term; after a run, those that were erased.
    pub due: u64,
    /// Whether a standing order allows to erase them.
    pub ordered: bool,
    /// When not records but the cells of one group of fields are destroyed: the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Kind>,
    /// Then, days after closing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// The rules of this program.
///
/// # Errors
/// [`RegistryError::Directory`] when the file that it was built with is malformed.
pub fn rules() -> Result<&'static [Rule]> {
    static RULES: OnceLock<std::result::Result<Vec<Rule>, String>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let text = include_str!("../../../policies/retention.json");
        let terms: Terms = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match terms.format {
            FORMAT => Ok(terms.rules),
            other => Err(format!("format {other}")),
        }
    });
    rules.as_deref().map_err(|e| {
        RegistryError::Directory(format!("`policies/retention.json` of this program: {e}"))
    })
}

impl Registry {
    /// What is past its term, and whether it may be erased.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn retention(&self, now: UnixMillis) -> Result<Vec<RetentionLine>> {
        let lines = rules()?.iter().map(|rule| {
            let shard = self.shard(&rule.kind);
            let (closed, due) = self.past_term(rule, &shard, now)?;
            Ok(RetentionLine {
                kind: rule.kind.clone(),
                years: self.term(rule)?,
                basis: rule.basis.clone(),
                closed,
                due: due.len() as u64,
                ordered: self
                    .standing_warrant(Task::Retention, &shard, now)
                    .is_some(),
                group: None,
                days: None,
            })
        });
        let mut lines: Vec<RetentionLine> = lines.collect::<Result<_>>()?;
        lines.extend(self.fields_retention(now)?);
        Ok(lines)
    }

    /// Erases what is past its term, where a standing order allows it.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, or a failure of the store; what was erased stays erased.
    pub fn run_retention(&self, session: &Session, now: UnixMillis) -> Result<Vec<RetentionLine>> {
        self.may(session, Action::Rotate, &purpose("security"))?;
        let before = self.retention(now)?;
        self.tend_retention(now)?;
        Ok(before)
    }

    /// What a running node does of it by itself, once a day.
    ///
    /// # Errors
    /// A failure of the store; what was erased stays erased.
    pub fn tend_retention(&self, now: UnixMillis) -> Result<()> {
        for rule in rules()? {
            let shard = self.shard(&rule.kind);
            let Some(warrant) = self.standing_warrant(Task::Retention, &shard, now) else {
                continue;
            };
            let (_, due) = self.past_term(rule, &shard, now)?;
            if !due.is_empty() {
                self.erase_retained(&shard, &due, &warrant, now)?;
            }
        }
        self.tend_fields(now)
    }

    /// The longest term of the classes that the kind's fields have.
    fn term(&self, rule: &Rule) -> Result<u32> {
        let schema = self.schema(&rule.kind)?;
        let terms = schema.fields.iter().map(|field| {
            // A class without a term is kept for good, and the record with it; public and derived
            // fields say nothing of a person.
            match (rule.years.get(&field.sensitivity), field.sensitivity) {
                (Some(years), _) => *years,
                (None, Sensitivity::P0) => 0,
                (None, _) => u32::MAX,
            }
        });
        Ok(terms.max().unwrap_or(u32::MAX))
    }

    /// How many records are out of force, and which of them for longer than the term.
    fn past_term(
        &self,
        rule: &Rule,
        shard: &Origin,
        now: UnixMillis,
    ) -> Result<(u64, Vec<RecordId>)> {
        let term = u64::from(self.term(rule)?).saturating_mul(YEAR_MILLIS);
        self.closed_for(shard, term, now)
    }

    /// How many records are out of force, and which of them for longer than so many milliseconds.
    pub(crate) fn closed_for(
        &self,
        shard: &Origin,
        term: u64,
        now: UnixMillis,
    ) -> Result<(u64, Vec<RecordId>)> {
        let holding = self.holding(shard)?;
        let (mut closed, mut due) = (0, Vec::new());
        let mut after = None;
        loop {
            let page = {
                let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
                let out_of_force = |row: &index::Attributes<'_>| row.status == index::CLOSED;
                holding
                    .index
                    .find(&[], &out_of_force, PAGE, after)
                    .map_err(|e| RegistryError::damaged(e.to_string()))?
            };
            closed += page.found.len() as u64;
            for found in &page.found {
                let since = self.last_change(shard, &found.record)?;
                if since.is_some_and(|since| now.0.saturating_sub(since.0) > term) {
                    due.push(found.record);
                }
            }
            after = page.found.last().map(|found| found.record);
            if !page.more || after.is_none() {
                return Ok((closed, due));
            }
        }
    }

    /// When a record was last changed; sealing it anew is no change.
    fn last_change(&self, shard: &Origin, record: &RecordId) -> Result<Option<UnixMillis>> {
        let store = self.store.as_ref();
        for at in chain::entries_of(store, shard, record, 0)?
            .into_iter()
            .rev()
        {
            let bytes = store
                .get(&table::entry(shard, at))?
                .ok_or_else(|| RegistryError::damaged(format!("`{shard}` lacks entry {at}")))?;
            if let Entry::Record(entry) = chain::decode(shard, at, &bytes)?
                && !entry.operation.is_anew()
            {
                let here = entry.recorded_at;
                return Ok(Some(match entry.operation {
                    // Its term began where it was closed.
                    Operation::TransferInClosed => self.closed_elsewhere(shard, at).unwrap_or(here),
                    _ => here,
                }));
            }
        }
        Ok(None)
    }

    /// Since when a record of an own shard is out of force; none when it is in force.
    pub(crate) fn out_of_force_since(
        &self,
        shard: &Origin,
        record: &RecordId,
    ) -> Result<Option<UnixMillis>> {
        match self.last_event(shard, record, u64::MAX)? {
            Some((_, entry)) if entry.operation.puts_out_of_force() => {
                self.last_change(shard, record)
            }
            _ => Ok(None),
        }
    }

    /// When a record that came out of force was closed, as its old owner stated.
    fn closed_elsewhere(&self, shard: &Origin, at: u64) -> Option<UnixMillis> {
        let authority = self.authority();
        let closed = { authority.claimants(shard, at) }.filter_map(|offer| offer.closed_at);
        closed.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_a_kind_with_a_term_for_every_class_of_its_fields() {
        let catalogue = record::schema::Catalogue::builtin();
        for rule in rules().unwrap() {
            let schema = catalogue.schema(&rule.kind).unwrap();
            for field in &schema.fields {
                let known = rule.years.contains_key(&field.sensitivity);
                assert!(
                    known || field.sensitivity == Sensitivity::P0,
                    "{}",
                    field.id
                );
            }
            assert!(!rule.basis.is_empty());
        }
    }
}
