//! Moving a shard, or a part of it, to another division (整本迁移): a division is split, merged, or
//! gets its first node.
//!
//! Two officers of the old owner approve which records go where, two of the new owner that they take
//! them; the rest both nodes do alone, in bounded batches: the old owner offers ([`offer`]), the new
//! owner registers and states it with one proof for the batch ([`take`]), the old owner closes the
//! records ([`settle`]). A record of a batch is a transfer like any other ([`crate::transfer`]):
//! the same rule says where it counts. A shard in which nothing is left is closed, and names who
//! follows it ([`close`]).
//! Owns who may move what, and how far it came: all of it from ledgers. Refuses to offer anything
//! before the new owner's officers have said that they take it.

pub mod close;
pub mod offer;
pub mod settle;
pub mod show;
pub mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use minicbor::{Decode, Encode};
use record::cbor;
use record::id::{DivisionId, Hash, Kind, Origin, RecordId, UnixMillis};
use record::plan::{Figure, Outcome, Plan, Work};
use record::schema::Position;
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::error::{RegistryError, Result};
use crate::keys::rng;
use crate::node::Registry;
use crate::plan::request::figure;
use crate::session::BASIS_MAX;
use crate::table;
use crate::transfer::bad;

/// How many grids are listed to whoever named one that is not there.
const GRIDS_SHOWN: usize = 40;
/// The most values that a selection names.
const VALUES_MAX: usize = 200;

/// What an officer wants moved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The kind.
    pub kind: Kind,
    /// Who is to own it.
    pub to: DivisionId,
    /// Records of these grids; of all when empty.
    #[serde(default)]
    pub grids: Vec<String>,
    /// Field id to value, of searchable fields: records for which all hold.
    #[serde(default)]
    pub rows: BTreeMap<String, String>,
    /// Close the shard when nothing is left in it.
    #[serde(default)]
    pub close: bool,
    /// The reason or legal basis, as a reference; not a person's name.
    pub basis: String,
}

/// Which records of a shard move. It may describe persons, so it is kept sealed, and the plan has a
/// keyed hash of it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Selection {
    /// So that equal selections do not show as equal.
    #[cbor(n(0), with = "minicbor::bytes")]
    nonce: [u8; 16],
    /// Ascending; any grid, and none, when empty.
    #[n(1)]
    pub grids: Vec<String>,
    #[n(2)]
    pub rows: Vec<(Position, String)>,
}

impl Selection {
    fn is_all(&self) -> bool {
        self.grids.is_empty() && self.rows.is_empty()
    }
}

/// A plan of this node that moves records, and was run.
#[derive(Debug, Clone)]
pub(crate) struct OwnMoving {
    pub plan: Hash,
    pub origin: Origin,
    pub to: DivisionId,
    pub rows: Hash,
    pub closes: bool,
    pub basis: String,
}

impl Authority {
    /// The plan of a shard's owner that moves records of it, when it was run and not stopped since.
    pub(crate) fn moving_plan(&self, id: &Hash) -> Option<&Plan> {
        let plan = self.plan(id)?;
        let own = matches!(&plan.work, Work::MoveShard { origin, .. }
            if origin.division() == plan.division && origin.is_shard());
        (own && self.plan_closed(id) == Some(Outcome::Run)).then_some(plan)
    }

    /// Whether the division that a plan moves records to said, under a plan of its own that was run,
    /// that it takes them.
    pub(crate) fn is_received(&self, id: &Hash, to: &DivisionId) -> bool {
        self.plans().any(|(own, plan)| {
            plan.division == *to
                && matches!(&plan.work, Work::ReceiveShard { plan, .. } if plan == id)
                && self.plan_closed(own) == Some(Outcome::Run)
                && self.was_approved(plan)
        })
    }

    /// Whether another officer than the maker approved a plan, and none refused it: also when the
    /// officer's certificate ended since.
    pub(crate) fn was_approved(&self, plan: &Plan) -> bool {
        let mut approved = false;
        for word in self.approvals(&plan.id()) {
            let counts = self.within(&plan.division, &word.organization) && {
                self.certificates(&word.organization, &word.operator).iter()
            }
            .any(|c| {
                c.role == record::authority::Role::SecurityOfficer
                    && word.is_signed_by(&c.key)
                    && !self.made(plan, &word.operator, &c.key)
            });
            if counts && !word.approved {
                return false;
            }
            approved |= counts;
        }
        approved
    }
}

fn selection_key(rows: &Hash) -> Vec<u8> {
    [b"rows".as_slice(), rows].concat()
}

impl Registry {
    /// The work of a plan that moves records of an own shard. Which records is put aside, sealed.
    pub(crate) fn move_work(&self, request: &MoveRequest, now: UnixMillis) -> Result<Work> {
        let schema = self.schema(&request.kind)?;
        let basis = request.basis.trim();
        if basis.is_empty() || basis.len() > BASIS_MAX {
            return Err(bad(format!(
                "迁移必须注明依据，至多 {BASIS_MAX} 字节 / moving needs its basis, of at most {BASIS_MAX} bytes; state the reference"
            )));
        }
        if request.grids.len() > VALUES_MAX {
            return Err(bad(format!(
                "至多 {VALUES_MAX} 个网格 / name at most {VALUES_MAX} grids; make more than one plan"
            )));
        }
        self.may_own(&request.to, now)?;
        let mut nonce = [0; 16];
        rand_core::Rng::fill_bytes(&mut rng()?, &mut nonce);
        let mut rows = Vec::new();
        for (id, value) in &request.rows {
            let field = { schema.field(id) }
                .filter(|field| field.searchable || field.position == record::schema::GRID)
                .ok_or_else(|| {
                    bad("条件字段不存在或不可检索 / the condition names a field that the kind lacks or that is not searchable; see `fangzhi schema show`")
                })?;
            let value = record::check::canonical(field, self.catalogue(), value)
                .ok()
                .flatten()
                .ok_or_else(|| {
                    bad(format!(
                        "条件值不合 `{id}` 的格式 / the condition's value is no value of `{id}`"
                    ))
                })?;
            rows.push((field.position, value));
        }
        let mut grids = request.grids.clone();
        grids.sort();
        grids.dedup();
        let selection = Selection { nonce, grids, rows };
        if request.close && !selection.is_all() {
            return Err(bad(
                "并入他处并结账的，须迁出全部记录 / a shard is closed when all of it moves; leave grids and conditions out",
            ));
        }
        let origin = self.shard(&request.kind);
        self.refuse_closed(&origin)?;
        self.grids_are_there(&origin, &selection.grids)?;
        let hash = self.keys.blind("moving-rows", &cbor::to_vec(&selection))?;
        let plain = zeroize::Zeroizing::new(cbor::to_vec(&selection));
        let key = self.keys.kept_key()?;
        let sealed = seal::blob::seal_blob(&key, &selection_key(&hash), &plain, &mut rng()?);
        self.keep_local(table::MOVING, &selection_key(&hash), sealed)?;
        Ok(Work::MoveShard {
            origin,
            to: request.to.clone(),
            rows: hash,
            closes: request.close,
            basis: basis.to_owned(),
        })
    }

    /// Refuses a grid in which no record of the shard is: a plan for it would move nothing.
    fn grids_are_there(&self, origin: &Origin, grids: &[String]) -> Result<()> {
        let holding = self.holding(origin)?;
        let holding = holding.read().unwrap_or_else(PoisonError::into_inner);
        let rows = holding.index.distinct();
        let known: BTreeSet<&str> = rows.iter().filter_map(|row| row.grid).collect();
        let unknown = grids.iter().filter(|grid| !known.contains(grid.as_str()));
        let unknown = Vec::from_iter(unknown.map(String::as_str)).join(", ");
        if unknown.is_empty() {
            return Ok(());
        }
        let shown = Vec::from_iter(known.iter().copied().take(GRIDS_SHOWN)).join(", ");
        let (all, more) = (known.len(), known.len().saturating_sub(GRIDS_SHOWN));
        Err(bad(format!(
            "`{origin}` 没有记录在网格 `{unknown}` 中；有记录的网格共 {all} 个：{shown}（另有 {more} 个未列） / no record of `{origin}` is in the grid `{unknown}`; the {all} grids that have records are: {shown} ({more} more are not listed); name one of them, or leave `--grid` out to move all"
        )))
    }

    /// The work of a plan that takes what another division moves here.
    pub(crate) fn receive_work(&self, plan: &str) -> Result<Work> {
        let id = crate::plan::approve::plan_id(plan)?;
        let unknown = || RegistryError::NotFound {
            what: "迁出方案 / plan that moves a shard",
            name: plan.to_owned(),
            next: "see `fangzhi transfer list`; it is known here once the old owner's authority ledger has been replicated",
        };
        let authority = self.authority();
        let theirs = authority.plan(&id).ok_or_else(unknown)?;
        match &theirs.work {
            Work::MoveShard { origin, to, .. }
                if *to == self.config.division && origin.division() == theirs.division =>
            {
                let origin = origin.clone();
                if authority.plan_closed(&id) == Some(Outcome::Withdrawn) {
                    return Err(bad(
                        "对方已撤回该方案 / the old owner withdrew this plan; ask for another",
                    ));
                }
                drop(authority);
                self.refuse_closed(&self.shard(&origin.ledger()))?;
                Ok(Work::ReceiveShard { origin, plan: id })
            }
            _ => Err(unknown()),
        }
    }

    /// What a plan that moves records comes to, for whoever approves it.
    pub(crate) fn moving_figures(&self, work: &Work) -> Result<Vec<Figure>> {
        match work {
            Work::MoveShard { origin, rows, .. } => {
                let selection = self.selection(rows)?;
                let counted = self.count_selected(origin, &selection)?;
                Ok(vec![
                    figure("records", counted.records),
                    figure("versions", counted.versions),
                    figure("bytes", counted.bytes),
                    figure("closed", counted.closed),
                    figure("unmovable", counted.unmovable),
                    figure("holders", 1),
                ])
            }
            Work::ReceiveShard { plan, .. } => {
                let authority = self.authority();
                let theirs = authority.plan(plan).map(|plan| plan.figures.clone());
                Ok(theirs
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|f| f.name.as_str() != "unreachable")
                    .collect())
            }
            _ => Ok(vec![]),
        }
    }

    /// Which records a plan of this node names.
    pub(crate) fn selection(&self, rows: &Hash) -> Result<Selection> {
        let gone = || {
            RegistryError::damaged(
                "本机没有该迁移方案的范围 / which records the plan names is not kept here; withdraw the plan and make it again",
            )
        };
        let key = table::local(table::MOVING, &selection_key(rows));
        let sealed = self.store.get(&key)?.ok_or_else(gone)?;
        let plain = seal::blob::open_blob(&self.keys.kept_key()?, &selection_key(rows), &sealed)
            .map_err(|_| gone())?;
        let selection: Selection = table::decode("selection", &plain)?;
        match self.keys.blind("moving-rows", &cbor::to_vec(&selection))? == *rows {
            true => Ok(selection),
            false => Err(gone()),
        }
    }

    /// Refuses a division that cannot own records, or whose charter does not hold.
    pub(crate) fn may_own(
        &self,
        to: &DivisionId,
        now: UnixMillis,
    ) -> Result<record::authority::Charter> {
        let authority = self.authority();
        let holder = authority.charter(to).cloned();
        let holder = holder.ok_or_else(|| RegistryError::NoCharter(to.clone()))?;
        if *to == self.config.division || holder.level == record::authority::Level::Department {
            return Err(bad(
                "请指定另一个登记单位 / name another division that keeps a register, not this one and no department",
            ));
        }
        if authority.revoked(&holder.id()) || holder.not_after < now {
            return Err(RegistryError::NoCharter(to.clone()));
        }
        Ok(holder)
    }

    /// Plans of this node that move records, were run, and are not stopped.
    pub(crate) fn own_movings(&self) -> Vec<OwnMoving> {
        let authority = self.authority();
        let ids: Vec<Hash> = authority.plans().map(|(id, _)| *id).collect();
        let own = ids.into_iter().filter_map(|id| {
            let plan = authority.moving_plan(&id)?;
            let Work::MoveShard {
                origin,
                to,
                rows,
                closes,
                basis,
            } = &plan.work
            else {
                return None;
            };
            let open = plan.division == self.config.division && authority.closing(origin).is_none();
            open.then(|| OwnMoving {
                plan: id,
                origin: origin.clone(),
                to: to.clone(),
                rows: *rows,
                closes: *closes,
                basis: basis.clone(),
            })
        });
        own.collect()
    }

    /// Does one bounded piece of what moves: offers a batch, or takes one; `true` when there may be
    /// more to do at once.
    ///
    /// # Errors
    /// A failure of the store; nothing is lost, and the next call goes on.
    pub fn moving_step(&self, now: UnixMillis) -> Result<bool> {
        if self.keys.is_locked() {
            return Ok(false);
        }
        let mut more = false;
        for moving in self.own_movings() {
            more |= self.offer_batch(&moving, now)?;
        }
        Ok(self.take_batch(now)? || more)
    }
}

/// A record that cannot move under a plan, as it is kept.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Failure {
    #[n(0)]
    pub record: RecordId,
    /// The version that could not.
    #[n(1)]
    pub version: u64,
    #[n(2)]
    pub reason: Kind,
}

fn failure_key(plan: &Hash, record: &RecordId) -> Vec<u8> {
    [b"fail".as_slice(), plan, &record.0].concat()
}
