//! Disclosing fields of a record to a third person.
//!
//! A reading: policy decides, the access entry is committed first, and what leaves is marked with
//! its receipt. Owns which version and fields are meant, and what is asked of one record.
//! Refuses to disclose what was granted to this node: onward use is the owner's to decide, so only
//! the owner of a record discloses it; and a field that policy shows masked, which a proof would
//! show whole.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use policy::{Action, Permit, Question, Shown};
use record::entry::{Entry, Operation, RecordEntry};
use record::id::{Kind, Origin, Purpose, RecordId, UnixMillis};
use record::schema::{Position, Schema};
use seal::content;
use serde::{Deserialize, Serialize};
use watermark::{Marked, Opened};

use super::disclosure::{Disclosure, FORMAT, Field};
use super::prove::not_covered;
use super::{hex, words};
use crate::error::{RegistryError, Result};
use crate::grant::checkpoint_of;
use crate::holding::{Access, Holding, Version};
use crate::node::Registry;
use crate::read::{ReadRequest, Returned};
use crate::session::Session;
use crate::table::{self, Head, Tiles};

const SCAN: usize = 1024;

/// What is to be disclosed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiscloseRequest {
    /// The kind.
    pub kind: Kind,
    /// The record.
    pub record: RecordId,
    /// Field ids.
    pub fields: Vec<String>,
    /// Which version; the newest when absent.
    #[serde(default)]
    pub version: Option<u64>,
    /// What for.
    pub purpose: Purpose,
    /// Legal basis or case number, as the operator states it.
    #[serde(default)]
    pub basis: Option<String>,
}

/// What is asked of a record: the words of its access entry.
pub(super) struct Asked<'a> {
    pub(super) kind: &'a Kind,
    pub(super) record: RecordId,
    pub(super) purpose: &'a Purpose,
    pub(super) basis: Option<&'a String>,
    pub(super) action: Action,
    pub(super) fields: &'a BTreeSet<Position>,
}

impl Registry {
    /// Makes a file that proves fields of a record's version to a third person.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] (which is itself recorded), [`RegistryError::NotFound`] for a
    /// record or version that this node does not own, [`RegistryError::BadRequest`].
    pub fn disclose(
        &self,
        session: &Session,
        request: &DiscloseRequest,
        now: UnixMillis,
    ) -> Result<Marked<Disclosure>> {
        if now >= session.expires || !self.in_good_standing(session) {
            return Err(RegistryError::NoSession);
        }
        crate::session::short("basis", request.basis.as_deref().unwrap_or_default())?;
        let schema = self.schema(&request.kind)?;
        let wanted = positions(schema, &request.fields)?;
        let origin = self.shard(&request.kind);
        let holding = self.holding(&origin)?;
        let (at, bytes, entry) = self.version_of(&origin, &request.record, request.version)?;
        let whole_entry = Entry::Record(entry.clone());
        if entry.operation == Operation::Erase || self.is_gone(&origin, at, &whole_entry)? {
            return Err(RegistryError::NotFound {
                what: "记录内容 / content of record",
                name: request.record.to_string(),
                next: "it was erased, or sealed anew under a later entry; its entries stay in the history",
            });
        }
        let of_version = self.schema_version(&request.kind, entry.schema)?;
        if let Some(position) = wanted.iter().find(|p| of_version.at(**p).is_none()) {
            return Err(RegistryError::BadRequest(format!(
                "第 {} 版所用规范没有第 {position} 项 / schema {} of that version has no field at position {position}; leave it out, or disclose a later version",
                entry.version, entry.schema
            )));
        }
        // What cannot be proven is not opened either.
        let note = self.note_covering(&origin, at)?;
        let asked = Asked {
            kind: &request.kind,
            record: request.record,
            purpose: &request.purpose,
            basis: request.basis.as_ref(),
            action: Action::Export,
            fields: &wanted,
        };
        let permit = {
            let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
            self.permit_for(session, &holding, schema, &asked)
                .and_then(|permit| whole(&permit, &wanted))
        };
        if let Err(denied) = permit {
            return self.refused(session, &asked, denied, now);
        }
        let returned = vec![(at, entry.version)];
        // The commit: from here on the reading is known, whatever becomes of the file.
        let receipt = self.record_reading(session, &asked, &origin, returned, now)?;

        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        let opened = self.open_version(&holding, at)?;
        let disclosure =
            self.disclosure(&origin, of_version, &wanted, &opened, (at, bytes), note)?;
        self.counters.answered(1);
        Ok(watermark::mark(
            &self.keys.mark_key()?,
            &receipt,
            Opened::new(disclosure),
        ))
    }

    fn disclosure(
        &self,
        origin: &Origin,
        schema: &Schema,
        wanted: &BTreeSet<Position>,
        version: &Version,
        (at, bytes): (u64, Vec<u8>),
        note: String,
    ) -> Result<Disclosure> {
        let gone = |position: &Position| {
            version
                .values
                .get(position)
                .is_some_and(|opened| opened.is_destroyed())
        };
        if wanted.iter().any(gone) {
            return Err(RegistryError::BadRequest(
                "所要字段已按保存期限销毁，无从出示 / a field that is asked for was destroyed at the end of its term; ask for the others".into(),
            ));
        }
        let given = version.values.iter().map(|(p, o)| (*p, o.commitment(*p)));
        let commitments = content::commitments(schema.leaves(), given);
        let positions: Vec<Position> = wanted.iter().copied().collect();
        let fields = wanted
            .iter()
            .filter_map(|position| {
                let field = schema.at(*position)?;
                let opened = version.values.get(position);
                Some(Field {
                    position: *position,
                    id: field.id.clone(),
                    name: field.name.clone(),
                    value: opened.and_then(|o| o.value()).map(str::to_owned),
                    salt: opened.map(|o| hex(o.salt())),
                })
            })
            .collect();
        let tiles = Tiles {
            store: self.store.as_ref(),
            origin,
        };
        let size = checkpoint_of(&note)?.size();
        let inclusion = ledger::proof::inclusion(&tiles, at, size)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {}", words(&e))))?;
        let disclosure = Disclosure {
            format: FORMAT.into(),
            origin: origin.clone(),
            record: version.record,
            version: version.entry.version,
            schema: schema.version,
            fields,
            leaves: schema.leaves(),
            siblings: content::prove(&commitments, &positions)
                .iter()
                .map(|hash| hex(hash))
                .collect(),
            entry: hex(&bytes),
            index: at,
            inclusion: inclusion.iter().map(|hash| hex(hash)).collect(),
            checkpoint: note,
        };
        disclosure
            .content_holds(&bytes)
            .map_err(|e| RegistryError::damaged(format!("`{origin}` {at}: {e}")))?;
        Ok(disclosure)
    }

    /// Decides for one record: the fields, and that its row is in scope.
    pub(super) fn permit_for(
        &self,
        session: &Session,
        holding: &Holding,
        schema: &Schema,
        asked: &Asked<'_>,
    ) -> Result<Permit> {
        let division = holding.origin.division();
        let ancestors = self.authority().ancestors(&division);
        let held_by_grant = match &holding.access {
            Access::Own(_) => None,
            Access::Grant { statement, .. } => Some(&statement.purpose),
        };
        let decision = policy::decide(
            self.policies(),
            &Question {
                asker: &self.asker(session),
                action: asked.action,
                schema,
                division: &division,
                ancestors: &ancestors,
                held_by_grant,
                purpose: asked.purpose,
            },
        )?;
        let permit = decision.permit(asked.fields, &[])?;
        let in_scope = |row: &index::Attributes<'_>| {
            permit.rows().matches(&policy::RowAttributes {
                grid: row.grid,
                status: row.status,
                division: division.as_str(),
            })
        };
        // The first record from this id on that is in scope: it must be this very one.
        let before = u128::from_be_bytes(asked.record.0).checked_sub(1);
        let after = before.map(|id| RecordId(id.to_be_bytes()));
        let page = holding
            .index
            .find(&[], &in_scope, 1, after)
            .map_err(|e| RegistryError::BadRequest(e.to_string()))?;
        if page.found.first().map(|found| found.record) != Some(asked.record) {
            return Err(no_record(&asked.record));
        }
        Ok(permit)
    }

    /// Records a denied reading, and denies.
    pub(super) fn refused<T>(
        &self,
        session: &Session,
        asked: &Asked<'_>,
        denied: RegistryError,
        now: UnixMillis,
    ) -> Result<T> {
        if let RegistryError::Denied { rule, .. } = &denied {
            let request = asked.request();
            let reading = self.reading(session, &request, vec![], 0, Some(rule.clone()));
            self.record_access(session, reading, vec![], now)?;
            self.counters.denied();
        }
        Err(denied)
    }

    pub(super) fn record_reading(
        &self,
        session: &Session,
        asked: &Asked<'_>,
        holding: &Origin,
        places: Vec<(u64, u64)>,
        now: UnixMillis,
    ) -> Result<watermark::Receipt> {
        let schema = self.schema(asked.kind)?;
        let fields = asked.fields.iter().filter_map(|p| schema.at(*p));
        let fields = fields.map(|field| field.id.clone()).collect();
        let count = places.len() as u64;
        let reading = self.reading(session, &asked.request(), fields, count, None);
        let returned = places
            .into_iter()
            .map(|(at, version)| Returned {
                origin: holding.clone(),
                record: asked.record,
                at,
                version,
            })
            .collect();
        self.record_access(session, reading, returned, now)
    }

    /// Index, bytes and entry of a version of an own record.
    fn version_of(
        &self,
        origin: &Origin,
        record: &RecordId,
        version: Option<u64>,
    ) -> Result<(u64, Vec<u8>, RecordEntry)> {
        let newest = self
            .newest(origin, record)?
            .ok_or_else(|| no_record(record))?;
        let wanted = version.unwrap_or(newest.version);
        let mut found = None;
        if wanted == newest.version {
            found = self
                .store
                .get(&table::entry(origin, newest.at))?
                .map(|bytes| (newest.at, bytes));
        } else {
            self.entries(origin, newest.at, |at, bytes, entry| {
                if let Entry::Record(entry) = entry
                    && entry.record == *record
                    && entry.version == wanted
                {
                    found = Some((at, bytes.to_vec()));
                }
            })?;
        }
        let (at, bytes) = found.ok_or(RegistryError::NotFound {
            what: "版本 / version",
            name: wanted.to_string(),
            next: "see the versions with `fangzhi audit history`",
        })?;
        match Entry::decode(&bytes) {
            Ok(Entry::Record(entry)) => Ok((at, bytes, entry)),
            _ => Err(RegistryError::damaged(format!(
                "`{origin}` {at} is not a record"
            ))),
        }
    }

    /// Goes through the entries of a ledger below an index.
    ///
    /// A history is found by walking the ledger: nothing indexes old versions by record.
    pub(super) fn entries(
        &self,
        origin: &Origin,
        end: u64,
        mut visit: impl FnMut(u64, &[u8], Entry),
    ) -> Result<()> {
        let mut at = 0u64;
        while at < end {
            let limit = usize::try_from(end - at).unwrap_or(SCAN).min(SCAN);
            let from = at.to_be_bytes();
            let rows = self
                .store
                .scan(origin.as_str(), table::ENTRY, &from, limit)?;
            if rows.is_empty() {
                return Err(RegistryError::damaged(format!(
                    "`{origin}` lacks entry {at}"
                )));
            }
            for (_, bytes) in &rows {
                let entry =
                    Entry::decode(bytes).map_err(|e| RegistryError::damaged(e.to_string()))?;
                visit(at, bytes, entry);
                at += 1;
            }
        }
        Ok(())
    }

    /// The checkpoint that a third person is shown, if it covers an index.
    fn note_covering(&self, origin: &Origin, at: u64) -> Result<String> {
        let published = self.published(origin)?;
        // A ledger that nobody ever cosigned has its own word only; the file shows that.
        let note = match published {
            Some(note) => Some(note),
            None => Head::read(self.store.as_ref(), origin)?.whole,
        };
        let note = note.ok_or_else(|| not_covered(origin, at))?;
        if checkpoint_of(&note)?.size() > at {
            Ok(note)
        } else {
            Err(not_covered(origin, at))
        }
    }
}

impl Asked<'_> {
    fn request(&self) -> ReadRequest {
        ReadRequest {
            closed: false,
            kind: self.kind.clone(),
            filters: Vec::new(),
            fields: None,
            purpose: self.purpose.clone(),
            basis: self.basis.cloned(),
            limit: None,
        }
    }
}

pub(super) fn no_record(record: &RecordId) -> RegistryError {
    RegistryError::NotFound {
        what: "记录 / record",
        name: record.to_string(),
        next: "it is not among this node's own records, or not in your scope; only the owner of a record discloses it",
    }
}

fn positions(schema: &Schema, ids: &[String]) -> Result<BTreeSet<Position>> {
    let known: Option<BTreeSet<Position>> = ids
        .iter()
        .map(|id| schema.field(id).map(|field| field.position))
        .collect();
    known.filter(|known| !known.is_empty()).ok_or_else(|| {
        // A mistyped field name may be personal data in the wrong place: it is not repeated.
        RegistryError::BadRequest(format!(
            "请指明该类别的字段 / name at least one field, and only fields of kind `{0}`; see `fangzhi schema show {0}`",
            schema.kind
        ))
    })
}

/// Every wanted field must be shown whole: a proof shows a value or nothing.
pub(super) fn whole(permit: &Permit, wanted: &BTreeSet<Position>) -> Result<()> {
    for position in wanted {
        if let Some(refusal) = permit.denied().get(position) {
            return Err(RegistryError::Denied {
                rule: refusal.rule.clone(),
                ask: refusal.ask.clone(),
                reason: format!(
                    "第 {position} 位字段不得外传 / the field at position {position} may not leave"
                ),
            });
        }
        if permit.shown().get(position) != Some(&Shown::Shown) {
            return Err(RegistryError::Denied {
                rule: "masked".into(),
                ask: "本社区登记员 / a clerk of this community".into(),
                reason: format!(
                    "第 {position} 位字段只可脱敏显示，证明则须全文 / the field at position {position} is shown masked, and a proof would show it whole"
                ),
            });
        }
    }
    Ok(())
}
