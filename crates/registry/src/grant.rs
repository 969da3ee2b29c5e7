//! Granting (授权): which fields of which rows a holder may open, and keeping that current.
//!
//! The holder gets field keys in one envelope, and for each row in scope a parcel with its
//! row keys, cells and proofs, through the grant's own ledger. Rows enter, change and leave
//! by signed entries; a heartbeat says up to where nothing is missing.

pub mod amend;
pub mod ending;
pub mod export;
pub mod judged;
mod keying;
pub mod proof;
mod resume;
mod rows;
pub mod show;

use ending::GrantState;
use rows::Stretch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use minicbor::{Decode, Encode};
use policy::Action;
use record::authority::{GrantStatement, History, Statement};
use record::cbor;
use record::entry::{Entry, GrantEntry, GrantOperation, RecordEntry, SUITE};
use record::id::{DivisionId, GrantId, Hash, Kind, Origin, Purpose, RecordId, UnixMillis};
use record::schema::{Position, Schema};
use seal::body::Body;
use seal::parcel::{GrantScope, Parcel, ShardLeaf};
use seal::secret::{FieldKey, GrantSecret};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::Batch;

use crate::book::{Leaf, commit};
use crate::error::{RegistryError, Result};
use crate::holding::{Access, Version, envelope_info};
use crate::keys::rng;
use crate::node::{Registry, lock, purpose};
use crate::session::{self, Session};
use crate::table::{self, Head, Tiles};

/// How many entries of the shard one act of a grant's ledger works through.
const STEP: u64 = 512;
/// The longest grant.
const DAYS_MAX: u32 = 366;

/// What a security officer wants to grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The kind.
    pub kind: Kind,
    /// Who receives.
    pub holder: DivisionId,
    /// Field ids.
    pub fields: Vec<String>,
    /// Field id to value: a row is in scope when all hold; every row when empty.
    #[serde(default)]
    pub rows: BTreeMap<String, String>,
    /// What for.
    pub purpose: Purpose,
    /// Legal basis.
    pub basis: String,
    /// Reference of the impact assessment.
    pub assessment: String,
    /// For how many days.
    pub days: u32,
    /// Which versions of a record in scope.
    #[serde(default)]
    pub history: History,
}

/// A grant as listed: from the authority ledger, and how far its own ledger came.
#[derive(Debug, Clone, Serialize)]
pub struct GrantLine {
    /// The grant.
    pub id: GrantId,
    /// The shard.
    pub origin: Origin,
    /// The grant's ledger.
    pub ledger: Origin,
    /// Who receives.
    pub holder: DivisionId,
    /// Field ids.
    pub fields: Vec<String>,
    /// What for.
    pub purpose: Purpose,
    /// Legal basis.
    pub basis: String,
    /// Ends by itself.
    pub not_after: UnixMillis,
    /// Records in scope here: at the holder, records held; absent at others.
    pub records: Option<u64>,
    /// Entries of its ledger held here.
    pub size: u64,
    /// When the owner recorded the newest heartbeat that is here: nothing of a later time is known to
    /// have come whole. Nobody tells a holder that the owner suspended a grant; this stops then.
    pub heartbeat_at: Option<UnixMillis>,
    /// At the owner: whether the shard was worked through to its newest cosigned checkpoint.
    pub current: bool,
    /// Where it stands.
    pub state: GrantState,
    /// Why it ended, if its owner ended it.
    pub reason: Option<Kind>,
    /// At the owner: why the policies in force would refuse it. Then its holder gets nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<judged::Refused>,
    /// The key epoch whose keys the holder was given last.
    pub epoch: u32,
    /// Which versions of a record in scope the holder gets.
    pub history: History,
    /// At the owner: retractions whose receipts have not all come.
    pub receipts_missing: u64,
    /// Of these, those for which a receipt is late.
    pub receipts_overdue: u64,
}

/// What a grant is given on.
pub(crate) struct Terms<'a> {
    pub shard: &'a Origin,
    pub assessment: &'a str,
    pub purpose: &'a Purpose,
    /// The grant that this is the renewal or amendment of.
    pub instead_of: Option<GrantId>,
}

/// What the owner keeps of a grant, sealed.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(crate) struct Kept {
    #[cbor(n(0), with = "minicbor::bytes")]
    secret: [u8; 32],
    #[n(1)]
    rows: Vec<(Position, String)>,
    /// The envelope that has the secret: parcels are sealed once it is stated.
    #[cbor(n(2), with = "minicbor::bytes")]
    envelope: Option<Hash>,
}

impl Kept {
    /// Of a grant that needs no condition on rows.
    pub(crate) fn of(secret: &GrantSecret) -> Self {
        Self {
            secret: *secret.expose(),
            rows: Vec::new(),
            envelope: None,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

/// What new terms leave to be worked through: every record of the shard.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct Rework {
    /// The last record that was worked through.
    #[n(0)]
    after: Option<RecordId>,
    /// What the holder has is given anew: the keys for it are others.
    #[n(1)]
    anew: bool,
    /// What the holder has is more than it is to have: it is retracted first, and receipted.
    #[n(2)]
    drops: bool,
}

/// How far a grant's ledger came, in the same commit as its entries.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Cursor {
    /// Entries of the shard worked through.
    #[n(0)]
    shard_size: u64,
    /// The shard's checkpoint that is being worked up to; all rows on the way are proven under it.
    #[n(1)]
    target: Option<String>,
    /// After the terms were changed, until every record was looked at under them.
    #[n(2)]
    rework: Option<Rework>,
    /// Made again from the ledger, which does not say what was left to be worked through: see
    /// [`resume`].
    #[n(3)]
    made_again: Option<bool>,
    /// While policies refuse the grant: entries of the shard looked at for what they take away.
    #[n(4)]
    looked: Option<u64>,
}

/// Puts a grant's cursor where everything of the shard up to a size was worked through.
pub(crate) fn put_cursor(batch: &mut Batch, ledger: &Origin, shard_size: u64) {
    let cursor = Cursor {
        shard_size,
        target: None,
        rework: None,
        made_again: None,
        looked: None,
    };
    let key = table::key(ledger, table::SCOPE, b"cursor");
    batch.put(key, cbor::to_vec(&cursor));
}

impl Registry {
    /// Grants a subset of an own shard to another node of the realm.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::NoCharter`] when the holder is not
    /// known here, [`RegistryError::BadRequest`] for unknown fields.
    pub fn grant(
        &self,
        session: &Session,
        request: &GrantRequest,
        now: UnixMillis,
    ) -> Result<GrantId> {
        let schema = self.schema(&request.kind)?;
        let positions = positions(schema, &request.fields)?;
        let rows = row_conditions(schema, &request.rows, self.catalogue())?;
        if request.days == 0 || request.days > DAYS_MAX {
            return Err(RegistryError::BadRequest(format!(
                "a grant lasts 1 to {DAYS_MAX} days; renew it later"
            )));
        }
        if request.basis.trim().is_empty() || request.assessment.trim().is_empty() {
            return Err(RegistryError::BadRequest(
                "授权必须注明法律依据和影响评估 / a grant needs its legal basis and its impact assessment; state both".into(),
            ));
        }
        session::short("basis", &request.basis)?;
        session::short("assessment", &request.assessment)?;
        let holder = self
            .authority()
            .charter(&request.holder)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(request.holder.clone()))?;
        let shard = self.shard(&request.kind);
        let terms = Terms {
            shard: &shard,
            assessment: &request.assessment,
            purpose: &request.purpose,
            instead_of: None,
        };
        self.may_hold(session, schema, &positions, &holder, &terms)?;

        let mut rng = rng()?;
        let mut id = [0u8; 16];
        rand_core::Rng::fill_bytes(&mut rng, &mut id);
        let id = GrantId(id);
        let secret = GrantSecret::generate(&mut rng);
        let (epoch, keys) = self.granted_keys(&shard, &positions)?;
        let mut statement = GrantStatement {
            id,
            origin: shard.clone(),
            holder: request.holder.clone(),
            holder_charter: holder.id(),
            fields: positions.iter().copied().collect(),
            schema: schema.version,
            rows: self.keys.blind("grant-rows", &row_bytes(&id, &rows))?,
            purpose: request.purpose.clone(),
            basis: request.basis.clone(),
            assessment: request.assessment.clone(),
            epoch,
            envelope: [0; 32],
            policy: self.policies().hash(),
            not_after: UnixMillis(now.0 + u64::from(request.days) * 86_400_000),
            owner_charter: self.own_charter()?,
            history: Some(request.history),
        };
        let info = envelope_info(&statement);
        let envelope =
            seal::grant::seal_envelope(&info, &holder.keys.seal, &secret, &keys, &mut rng)
                .map_err(|e| {
                    RegistryError::BadRequest(format!(
                        "the holder's charter has no usable seal key: {e}"
                    ))
                })?;
        statement.envelope = Sha256::digest(&envelope).into();

        // Order: the owner's own copy of the secret, then the grant's ledger with the envelope, then
        // the statement that makes it a grant. What a crash leaves before the last opens nothing.
        let ledger = shard.grant(&id);
        let kept = Kept {
            secret: *secret.expose(),
            rows,
            envelope: Some(statement.envelope),
        };
        let sealed = self.seal_kept(&ledger, &kept)?;
        let mut batch = Batch::new(ledger.as_str(), Some(0));
        batch.put_body(table::key(&ledger, table::GRANT, b""), sealed);
        commit(self.store.as_ref(), &ledger, &batch)?;
        let keys_entry = GrantEntry {
            suite: SUITE,
            operation: GrantOperation::Keys,
            record: None,
            shard_size: 0,
            shard_root: ledger::hash::empty_root(),
            parcel: Some(statement.envelope),
            recorded_at: now,
        };
        let book = self.book(&ledger)?;
        let leaf = Leaf {
            entry: Entry::Grant(keys_entry),
            body: Some(envelope),
        };
        self.append(
            &mut lock(&book),
            &session.signer(request.purpose.clone(), None),
            vec![leaf],
            now,
            |_, _, _| {},
        )?;
        self.state(
            vec![Statement::Grant(statement)],
            &session.signer(request.purpose.clone(), None),
            now,
        )?;
        self.advance_grants(now)?;
        Ok(id)
    }

    /// The present epoch of an own shard, and its keys of some fields.
    pub(crate) fn granted_keys(
        &self,
        shard: &Origin,
        positions: &BTreeSet<Position>,
    ) -> Result<(u32, BTreeMap<Position, FieldKey>)> {
        let holding = self.holding(shard)?;
        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        let Access::Own(keys) = &holding.access else {
            return Err(RegistryError::damaged("an own shard is held by grant"));
        };
        let (epoch, keys) = keys.current();
        let positions: Vec<Position> = positions.iter().copied().collect();
        Ok((epoch, keys.subset(&positions)))
    }

    pub(crate) fn own_charter(&self) -> Result<Hash> {
        let own = &self.config.division;
        let charter = self.authority().charter(own).map(|c| c.id());
        charter.ok_or_else(|| RegistryError::NoCharter(own.clone()))
    }

    /// Works every own grant up to the newest cosigned checkpoint of its shard.
    ///
    /// # Errors
    /// A failure of the store; then it is tried again with the next checkpoint.
    pub fn advance_grants(&self, now: UnixMillis) -> Result<()> {
        if self.keys.is_locked() {
            return Ok(());
        }
        let own = self.grants_in_force(now);
        for grant in own {
            while self.advance_grant(&grant, now)? {}
        }
        Ok(())
    }

    /// One step; `true` when there is more to do.
    fn advance_grant(&self, grant: &GrantStatement, now: UnixMillis) -> Result<bool> {
        let ledger = grant.origin.grant(&grant.id);
        let book = self.book(&ledger)?;
        let mut book = lock(&book);
        // As it is stated at this moment: it may have been given other keys or terms meanwhile.
        let Some(grant) = self.authority().grant(&grant.id).cloned() else {
            return Ok(false);
        };
        if self.why_refused(&grant).is_some() {
            return self.take_away(&grant, &mut book, now);
        }
        let Some(note) = self.target(&grant, &ledger)? else {
            return Ok(false);
        };
        let checkpoint = checkpoint_of(&note)?;
        let (target, root) = (checkpoint.size(), *checkpoint.root());
        let Some(cursor) = self.resumed(&grant, &mut book)? else {
            return Ok(false);
        };
        let from = cursor.shard_size;
        if from > target || (from == target && cursor.rework.is_none()) {
            return Ok(false);
        }
        let kept = self.kept(&ledger)?;
        if kept.envelope.is_some_and(|of| of != grant.envelope) {
            // Sealed, and not stated yet: nobody could open what is given now.
            return Ok(false);
        }
        // A heartbeat says that nothing is missing: what is still to be sealed anew under the keys
        // that the holder has, or was after the checkpoint, is waited for.
        let keyed = grant.epoch == self.authority().current_epoch(&grant.origin);
        let needed = match (&cursor.rework, grant.history()) {
            (None, History::None | History::Since) => from,
            _ => 0,
        };
        let begun = cursor.target.is_some();
        if !begun && (!keyed || !self.is_whole_at(&grant.origin, needed, target)?) {
            return Ok(false);
        }
        let mut stretch = Stretch::new(self, (&grant, &kept, &ledger), (target, root), now);
        let mut next = match &cursor.rework {
            Some(rework) => self.rework_step(&mut stretch, &grant, rework, from)?,
            None => self.entries_step(&mut stretch, &grant, from, target)?,
        };
        let finished = next.rework.is_none() && next.shard_size == target;
        if finished {
            stretch.heartbeat(note);
        } else {
            next.target = Some(note);
        }
        let (leaves, rows) = stretch.done();
        let extend = |batch: &mut Batch| {
            batch.put(cursor_key(&ledger), cbor::to_vec(&next));
            rows.write(batch);
        };
        let signer = self.service(purpose("sharing"));
        if leaves.is_empty() {
            // Nothing for the holder in this stretch: only the cursor moves.
            drop(signer);
            book.extend(self.store.as_ref(), extend)?;
        } else {
            self.append(&mut book, &signer, leaves, now, |batch, _, _| extend(batch))?;
        }
        drop(book);
        self.changed();
        Ok(!finished)
    }

    /// Works through entries of the shard.
    fn entries_step(
        &self,
        stretch: &mut Stretch<'_>,
        grant: &GrantStatement,
        from: u64,
        target: u64,
    ) -> Result<Cursor> {
        let mut at = from;
        while at < target.min(from + STEP) && !stretch.is_full() {
            if let Some((bytes, entry)) = self.record_entry(&grant.origin, at)? {
                stretch.entry(at, bytes, entry)?;
            }
            at += 1;
        }
        Ok(Cursor {
            shard_size: at,
            target: None,
            rework: None,
            made_again: None,
            looked: None,
        })
    }

    /// Works through records of the shard, whose terms are new, as they are at the checkpoint.
    fn rework_step(
        &self,
        stretch: &mut Stretch<'_>,
        grant: &GrantStatement,
        rework: &Rework,
        from: u64,
    ) -> Result<Cursor> {
        let limit = STEP as usize;
        let records = rows::records_after(self, &grant.origin, rework.after, limit)?;
        let (mut after, mut left) = (rework.after, records.len());
        for record in &records {
            if stretch.is_full() {
                break;
            }
            stretch.rework(*record, rework)?;
            after = Some(*record);
            left -= 1;
        }
        let more = left > 0 || records.len() == limit;
        Ok(Cursor {
            // What lies between was looked at in every record.
            shard_size: if more { from } else { stretch.target },
            target: None,
            rework: more.then(|| Rework {
                after,
                ..rework.clone()
            }),
            made_again: None,
            looked: None,
        })
    }

    pub(crate) fn parcel(
        &self,
        grant: &GrantStatement,
        kept: &Kept,
        version: &Version,
        entry: &[u8],
        at: u64,
        size: u64,
    ) -> Result<Vec<u8>> {
        let shard = &grant.origin;
        let damaged =
            |e: &dyn std::fmt::Display| RegistryError::damaged(format!("`{shard}` {at}: {e}"));
        let tiles = Tiles {
            store: self.store.as_ref(),
            origin: shard,
        };
        let inclusion = ledger::proof::inclusion(&tiles, at, size).map_err(|e| damaged(&e))?;
        let body = Body::decode(&self.body(shard, at)?).map_err(|e| damaged(&e))?;
        let newest = self
            .newest(shard, &version.record)?
            .ok_or_else(|| damaged(&"the record has no secret"))?;
        let secret = self.secret(shard, &version.record, &newest)?;
        let schema = self.schema_version(&shard.ledger(), version.entry.schema)?;
        let groups: BTreeSet<&Kind> = schema
            .fields
            .iter()
            .filter(|field| grant.fields.contains(&field.position))
            .map(|field| &field.group)
            .collect();
        let row_keys = groups
            .into_iter()
            .map(|group| {
                (
                    group.clone(),
                    seal::derive::row_key(&secret, shard, &version.record, group),
                )
            })
            .collect();
        let parcel = Parcel::build(
            ShardLeaf {
                entry: entry.to_vec(),
                index: at,
                inclusion,
            },
            &body,
            &version.values,
            schema,
            &row_keys,
            &GrantScope {
                grant: grant.id,
                origin: shard,
                fields: &grant.fields,
                secret: &GrantSecret::from_bytes(kept.secret),
                whole: crate::transfer::carries(grant),
            },
            &mut rng()?,
        )
        .map_err(|e| damaged(&e))?;
        Ok(parcel.encode())
    }

    fn is_current(&self, grant: &GrantStatement, ledger: &Origin) -> Result<bool> {
        if grant.origin.division() != self.config.division {
            return Ok(false);
        }
        let shard = Head::read(self.store.as_ref(), &grant.origin)?;
        Ok(shard.size > 0 && self.cursor(ledger)?.shard_size == shard.size)
    }

    /// How many entries of the shard a grant's ledger has worked through.
    fn cursor(&self, ledger: &Origin) -> Result<Cursor> {
        match self.store.get(&cursor_key(ledger))? {
            None => Ok(Cursor {
                shard_size: 0,
                target: None,
                rework: None,
                made_again: None,
                looked: None,
            }),
            Some(bytes) => table::decode("grant cursor", &bytes),
        }
    }

    /// The end of what a grant may not lose to a reseal at present: while it works up to a
    /// checkpoint, it needs the bodies from here on.
    pub(crate) fn resealable_up_to(&self, shard: &Origin, now: UnixMillis) -> Result<u64> {
        let mut end = u64::MAX;
        for grant in self.grants_in_force(now) {
            if grant.origin == *shard {
                let cursor = self.cursor(&shard.grant(&grant.id))?;
                if cursor.target.is_some() {
                    let needed = match (&cursor.rework, grant.history()) {
                        (None, History::None | History::Since) => cursor.shard_size,
                        // Any record's bodies may be needed.
                        _ => 0,
                    };
                    end = end.min(needed);
                }
            }
        }
        Ok(end)
    }

    /// Own grants that neither ended nor expired. One that carries a transfer is worked off by
    /// [`crate::transfer`] alone.
    pub(crate) fn grants_in_force(&self, now: UnixMillis) -> Vec<GrantStatement> {
        let authority = self.authority();
        let own = authority
            .grants()
            .filter(|g| g.origin.division() == self.config.division && g.not_after > now)
            .filter(|g| authority.grant_ended(&g.id).is_none())
            .filter(|g| !crate::transfer::carries(g));
        own.cloned().collect()
    }

    /// The checkpoint to work up to: the one begun, else the newest that is cosigned.
    fn target(&self, grant: &GrantStatement, ledger: &Origin) -> Result<Option<String>> {
        match self.cursor(ledger)?.target {
            Some(begun) => Ok(Some(begun)),
            None => Ok(Head::read(self.store.as_ref(), &grant.origin)?.cosigned),
        }
    }

    pub(crate) fn seal_kept(&self, ledger: &Origin, kept: &Kept) -> Result<Vec<u8>> {
        let plain = zeroize::Zeroizing::new(cbor::to_vec(kept));
        let key = self.keys.kept_key()?;
        Ok(seal::blob::seal_blob(
            &key,
            &kept_aad(ledger),
            &plain,
            &mut rng()?,
        ))
    }

    fn kept(&self, ledger: &Origin) -> Result<Kept> {
        self.kept_at(ledger, table::key(ledger, table::GRANT, b""))
    }

    fn kept_at(&self, ledger: &Origin, key: store::Key) -> Result<Kept> {
        let sealed = self
            .store
            .get(&key)?
            .ok_or_else(|| RegistryError::damaged(format!("`{ledger}` has no kept secret")))?;
        let plain = seal::blob::open_blob(&self.keys.kept_key()?, &kept_aad(ledger), &sealed)
            .map_err(|e| RegistryError::damaged(format!("`{ledger}`: {e}")))?;
        table::decode("kept grant", &plain)
    }

    pub(crate) fn in_scope(&self, ledger: &Origin, record: &RecordId) -> Result<bool> {
        Ok(self
            .store
            .get(&table::key(ledger, table::SCOPE, &record.0))?
            .is_some())
    }

    pub(crate) fn record_entry(
        &self,
        origin: &Origin,
        at: u64,
    ) -> Result<Option<(Vec<u8>, RecordEntry)>> {
        let bytes = self
            .store
            .get(&table::entry(origin, at))?
            .ok_or_else(|| RegistryError::damaged(format!("`{origin}` lacks entry {at}")))?;
        match Entry::decode(&bytes) {
            Ok(Entry::Record(entry)) => Ok(Some((bytes, entry))),
            Ok(_) => Ok(None),
            Err(e) => Err(RegistryError::damaged(format!("`{origin}` {at}: {e}"))),
        }
    }

    fn open_shard(&self, shard: &Origin, at: u64) -> Result<Version> {
        let holding = self.holding(shard)?;
        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        match &holding.access {
            Access::Own(keys) => self.open_own(shard, &Arc::clone(keys), at),
            Access::Grant { .. } => Err(RegistryError::damaged("an own shard is held by grant")),
        }
    }

    /// Every grant known here, with what is held of it.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn grants(&self, now: UnixMillis) -> Result<Vec<GrantLine>> {
        let statements: Vec<GrantStatement> = self.authority().grants().cloned().collect();
        let destructions = self.destructions(now)?;
        let holdings = self.holdings.read().unwrap_or_else(PoisonError::into_inner);
        statements
            .into_iter()
            .map(|grant| {
                let ledger = grant.origin.grant(&grant.id);
                let head = Head::read(self.store.as_ref(), &ledger)?;
                let records = match holdings.get(&ledger) {
                    Some(holding) => Some(
                        holding
                            .read()
                            .unwrap_or_else(PoisonError::into_inner)
                            .index
                            .len() as u64,
                    ),
                    None if grant.origin.division() == self.config.division => {
                        // All scope rows but the cursor.
                        let rows =
                            self.store
                                .scan(ledger.as_str(), table::SCOPE, b"", usize::MAX)?;
                        Some(rows.iter().filter(|(rest, _)| rest.len() == 16).count() as u64)
                    }
                    None => None,
                };
                let fields = self
                    .catalogue()
                    .version(&grant.origin.ledger(), grant.schema)
                    .map(|schema| {
                        grant
                            .fields
                            .iter()
                            .filter_map(|p| schema.at(*p))
                            .map(|f| f.id.clone())
                            .collect()
                    })
                    .unwrap_or_default();
                let current = self.is_current(&grant, &ledger)?;
                let of = destructions.iter().filter(|line| line.origin == ledger);
                let missing = of.clone().filter(|line| !line.missing.is_empty());
                let overdue = of.filter(|line| line.overdue);
                let state = self.grant_state(&grant, now);
                let refused = match state {
                    GrantState::Refused => self.why_refused(&grant),
                    _ => None,
                };
                let ended = self.authority().grant_ended(&grant.id).cloned();
                let heartbeat = self.newest_heartbeat(&ledger, head.size)?;
                Ok(GrantLine {
                    heartbeat_at: heartbeat.map(|entry| entry.recorded_at),
                    state,
                    reason: ended.map(|ended| ended.reason),
                    refused,
                    epoch: grant.epoch,
                    history: grant.history(),
                    receipts_missing: missing.count() as u64,
                    receipts_overdue: overdue.count() as u64,
                    id: grant.id,
                    origin: grant.origin,
                    ledger,
                    holder: grant.holder,
                    fields,
                    purpose: grant.purpose,
                    basis: grant.basis,
                    not_after: grant.not_after,
                    records,
                    size: head.size,
                    current,
                })
            })
            .collect()
    }

    pub(crate) fn may(&self, session: &Session, action: Action, purpose: &Purpose) -> Result<()> {
        let ancestors = self.authority().ancestors(&self.config.division);
        policy::may(
            self.policies(),
            &self.asker(session),
            action,
            &policy::Target::Division {
                division: &self.config.division,
                ancestors: &ancestors,
            },
            purpose,
        )?;
        Ok(())
    }

    /// Whether the operator may write these fields of a kind, and of which rows.
    pub(crate) fn may_write(
        &self,
        session: &Session,
        schema: &Schema,
        positions: &BTreeSet<Position>,
        purpose: &Purpose,
    ) -> Result<policy::Allowed> {
        let ancestors = self.authority().ancestors(&self.config.division);
        let allowed = policy::may(
            self.policies(),
            &self.asker(session),
            Action::Amend,
            &policy::Target::Fields {
                schema,
                positions,
                division: &self.config.division,
                ancestors: &ancestors,
                held_by_grant: None,
            },
            purpose,
        )?;
        Ok(allowed)
    }

    /// Whether policy lets a holder have these fields beside all that it holds already.
    pub(crate) fn may_hold(
        &self,
        session: &Session,
        schema: &Schema,
        positions: &BTreeSet<Position>,
        holder: &record::authority::Charter,
        terms: &Terms<'_>,
    ) -> Result<()> {
        let asker = self.asker(session);
        Ok(self.judge(&asker, schema, positions, holder, terms)?)
    }

    /// Whether policy lets whoever asks give a holder these fields beside all that it holds.
    fn judge(
        &self,
        asker: &policy::Asker,
        schema: &Schema,
        positions: &BTreeSet<Position>,
        holder: &record::authority::Charter,
        terms: &Terms<'_>,
    ) -> std::result::Result<(), policy::Denied> {
        let authority = self.authority();
        let ancestors = authority.ancestors(&self.config.division);
        // What counts is all that the holder could open: rows of one grant with fields of another.
        let mut all = positions.clone();
        let held: Vec<GrantStatement> = authority
            .grants()
            .filter(|g| {
                g.holder == holder.division
                    && g.origin == *terms.shard
                    && Some(g.id) != terms.instead_of
                    && authority.grant_ended(&g.id).is_none()
                    && !crate::transfer::carries(g)
            })
            .cloned()
            .collect();
        for grant in &held {
            all.extend(grant.fields.iter().copied());
        }
        drop(authority);
        let judge = |positions: &BTreeSet<Position>, assessment: &str, purpose: &Purpose| {
            policy::may(
                self.policies(),
                asker,
                Action::Grant,
                &policy::Target::Grant {
                    schema,
                    positions,
                    division: &self.config.division,
                    ancestors: &ancestors,
                    holder_level: holder.level,
                    has_assessment: !assessment.trim().is_empty(),
                },
                purpose,
            )
        };
        judge(&all, terms.assessment, terms.purpose)?;
        // The other way round, too: the new fields open in the rows that came for another purpose,
        // wherever they share a group, and so a row key.
        for grant in &held {
            let of: BTreeSet<Position> = grant.fields.iter().copied().collect();
            let joined = in_groups_of(schema, &of, &all);
            if joined != of {
                judge(&joined, &grant.assessment, &grant.purpose)?;
            }
        }
        Ok(())
    }
}

/// Those of `all` that lie in the groups of `fields`: one row key opens a whole group.
fn in_groups_of(
    schema: &Schema,
    fields: &BTreeSet<Position>,
    all: &BTreeSet<Position>,
) -> BTreeSet<Position> {
    let group = |at: &Position| schema.at(*at).map(|field| &field.group);
    let groups: BTreeSet<&Kind> = fields.iter().filter_map(group).collect();
    let joins = |at: &&Position| group(at).is_some_and(|group| groups.contains(group));
    all.iter().filter(joins).copied().collect()
}

fn cursor_key(ledger: &Origin) -> store::Key {
    table::key(ledger, table::SCOPE, b"cursor")
}

fn positions(schema: &Schema, ids: &[String]) -> Result<BTreeSet<Position>> {
    if ids.is_empty() {
        return Err(RegistryError::BadRequest(
            "a grant names at least one field".into(),
        ));
    }
    ids.iter()
        .map(|id| {
            schema.field(id).map(|field| field.position).ok_or_else(|| {
                RegistryError::BadRequest(format!(
                    "kind `{}` lacks a field that the grant names; see `fangzhi schema show {0}`",
                    schema.kind
                ))
            })
        })
        .collect()
}

fn row_conditions(
    schema: &Schema,
    rows: &BTreeMap<String, String>,
    catalogue: &record::schema::Catalogue,
) -> Result<Vec<(Position, String)>> {
    rows.iter()
        .map(|(id, value)| {
            let field = schema.field(id).ok_or_else(|| {
                RegistryError::BadRequest(
                    "the row condition names a field that the kind lacks".into(),
                )
            })?;
            let value = record::check::canonical(field, catalogue, value)
                .ok()
                .flatten()
                .ok_or_else(|| {
                    RegistryError::BadRequest(format!(
                        "the row condition's value is no value of `{id}`"
                    ))
                })?;
            Ok((field.position, value))
        })
        .collect()
}

/// The row condition as it is hashed: with the grant, so that equal conditions do not show as equal.
fn row_bytes(grant: &GrantId, rows: &[(Position, String)]) -> Vec<u8> {
    let mut bytes = grant.0.to_vec();
    bytes.extend(cbor::to_vec(&rows.to_vec()));
    bytes
}

fn matches(version: &Version, rows: &[(Position, String)]) -> bool {
    rows.iter().all(|(position, value)| {
        version
            .values
            .get(position)
            .and_then(|opened| opened.value())
            == Some(value.as_str())
    })
}

fn kept_aad(ledger: &Origin) -> Vec<u8> {
    cbor::to_vec(&("fangzhi/grant-kept/v1", ledger.as_str()))
}

pub(crate) fn checkpoint_of(note: &str) -> Result<ledger::checkpoint::Checkpoint> {
    let note = ledger::note::Note::parse(note.as_bytes())
        .map_err(|e| RegistryError::damaged(e.to_string()))?;
    ledger::checkpoint::Checkpoint::parse(note.text().as_bytes())
        .map_err(|e| RegistryError::damaged(e.to_string()))
}
