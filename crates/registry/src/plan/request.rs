//! Making a plan: what an officer asks for, and what it comes to.
//!
//! Owns the figures that whoever approves is shown. Refuses what makes no sense here, and a second
//! plan for the same thing while one is open.

use record::entry::{Entry, Operation};
use record::id::{DivisionId, GrantId, Kind, Origin, RecordId, UnixMillis};
use record::plan::{ClassTerm, Figure, ShareHolder, StandingOrder, Task, Work};
use serde::{Deserialize, Serialize};

use super::list::{PlanLine, PlanState};
use crate::error::{RegistryError, Result};
use crate::node::{Registry, lock, word};
use crate::session::{BASIS_MAX, Session};
use crate::table;

/// How many bodies are read at a time.
const SCAN: usize = 256;
/// Bodies resealed in a second, by one core of a small machine; an estimate for people.
const BODIES_PER_SECOND: u64 = 4_000;
/// The longest standing order.
const ORDER_DAYS_MAX: u32 = 366;

/// What a security officer wants done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PlanRequest {
    /// A new key epoch of an own shard.
    RotateEpoch {
        /// Of which kind.
        kind: Kind,
        /// A key is known to others.
        #[serde(default)]
        compromised: bool,
    },
    /// The secret of an old epoch is destroyed.
    RetireEpoch {
        /// Of which kind.
        kind: Kind,
        /// The epoch.
        epoch: u32,
    },
    /// A grant ends before its time.
    EndGrant {
        /// The grant.
        grant: GrantId,
        /// A reason code.
        reason: Kind,
    },
    /// A record is destroyed.
    Erase {
        /// Of which kind.
        kind: Kind,
        /// The record.
        record: RecordId,
        /// The legal basis.
        basis: String,
    },
    /// A grant is narrowed or widened.
    AmendGrant {
        /// The grant.
        grant: GrantId,
        /// What is to be other.
        to: crate::grant::amend::AmendRequest,
    },
    /// Records of an own shard move to another division.
    MoveShard(crate::moving::MoveRequest),
    /// What another division moves here is registered as it comes.
    ReceiveShard {
        /// The plan of its owner, hexadecimal.
        plan: String,
    },
    /// Acts of a time when the clock was ahead are explained.
    ExplainClock {
        /// The ledger, as `verify` names it.
        origin: Origin,
        /// What happened; names no person.
        reason: String,
    },
    /// This node gets other keys.
    RotateNode {},
    /// A node below lost its keys.
    ReplaceCharter {
        /// Which node.
        division: DivisionId,
        /// SHA-256 of its node keys, hexadecimal, when they are known already.
        #[serde(default)]
        keys: Option<String>,
    },
    /// The root is shared among officers.
    Share {
        /// How many of the shares open.
        threshold: u8,
        /// Who gets one.
        holders: Vec<ShareHolder>,
    },
    /// The keystore gets another key-encryption key.
    RotateKek {},
    /// Routine work is allowed in advance.
    Order {
        /// What.
        tasks: Vec<Task>,
        /// On which kinds; all when empty.
        #[serde(default)]
        kinds: Vec<Kind>,
        /// For how many days.
        days: u32,
    },
    /// Groups of fields are destroyed when their term is over, while their records stay.
    Fields {
        /// Which groups of which kinds, and after how many days.
        classes: Vec<ClassTerm>,
        /// For how many days this is ordered.
        days: u32,
    },
}

fn bad(words: impl Into<String>) -> RegistryError {
    RegistryError::BadRequest(words.into())
}

pub(crate) fn figure(name: &'static str, count: u64) -> Figure {
    Figure {
        name: word(name),
        count,
    }
}

impl Registry {
    /// Makes a plan: computes what it comes to, signs it in the officer's name, and writes it down.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] by policy, [`RegistryError::BadRequest`] for what makes no sense
    /// here, [`RegistryError::Underway`] while another plan for the same thing is open.
    pub fn plan(
        &self,
        session: &Session,
        request: &PlanRequest,
        now: UnixMillis,
    ) -> Result<PlanLine> {
        self.may(
            session,
            policy::Action::Rotate,
            &crate::node::purpose("security"),
        )?;
        let work = self.work(session, request, now)?;
        let figures = self.figures(&work, now)?;
        // Held to the end: of two made at once for the same thing, one is refused.
        let _one = lock(&self.planning);
        self.refuse_second(&work, now)?;
        let plan = self.state_plan(session, work, figures, now)?;
        self.plan_line(&plan.id(), now)
    }

    fn own_shard(&self, kind: &Kind) -> Result<Origin> {
        self.schema(kind)?;
        Ok(self.shard(kind))
    }

    /// The work that a request means on this node.
    fn work(&self, session: &Session, request: &PlanRequest, now: UnixMillis) -> Result<Work> {
        Ok(match request {
            PlanRequest::RotateEpoch { kind, compromised } => Work::RotateEpoch {
                origin: self.own_shard(kind)?,
                compromised: *compromised,
            },
            PlanRequest::RetireEpoch { kind, epoch } => {
                let origin = self.own_shard(kind)?;
                self.may_be_retired(&origin, *epoch)?;
                Work::RetireEpoch {
                    origin,
                    epoch: *epoch,
                }
            }
            PlanRequest::EndGrant { grant, reason } => {
                let known = self.authority().grant(grant).cloned();
                if known.is_none_or(|g| g.origin.division() != self.config.division) {
                    return Err(RegistryError::NotFound {
                        what: "授权 / grant",
                        name: grant.to_string(),
                        next: "see `fangzhi grant list`; only its owner ends a grant",
                    });
                }
                if self.authority().grant_ended(grant).is_some() {
                    return Err(bad("该授权已终止 / this grant has ended already"));
                }
                Work::EndGrant {
                    grant: *grant,
                    reason: reason.clone(),
                }
            }
            PlanRequest::Erase {
                kind,
                record,
                basis,
            } => {
                let origin = self.own_shard(kind)?;
                if basis.trim().is_empty() || basis.len() > BASIS_MAX {
                    return Err(bad(format!(
                        "销毁须注明法律依据，至多 {BASIS_MAX} 字节 / erasing needs its legal basis, at most {BASIS_MAX} bytes"
                    )));
                }
                let newest = self.newest(&origin, record)?;
                let newest = newest.map(|newest| self.newest_entry(&origin, &newest));
                match newest.transpose()? {
                    Some(entry) if entry.operation != Operation::Erase => {}
                    _ => {
                        return Err(RegistryError::NotFound {
                            what: "记录 / record",
                            name: record.to_string(),
                            next: "look the record up with `fangzhi read` first; one that was erased is not erased again",
                        });
                    }
                }
                Work::Erase {
                    origin,
                    record: *record,
                    basis: basis.clone(),
                }
            }
            PlanRequest::AmendGrant { grant, to } => self.amendment(session, grant, to, now)?,
            PlanRequest::MoveShard(request) => self.move_work(request, now)?,
            PlanRequest::ReceiveShard { plan } => self.receive_work(plan)?,
            PlanRequest::ExplainClock { origin, reason } => self.explain_work(origin, reason)?,
            PlanRequest::RotateNode {} => {
                // A plan that could not be run is not made.
                if let Some(underway) = self.renewal()? {
                    return Err(RegistryError::Underway {
                        plan: underway.plan,
                    });
                }
                Work::RotateNode {
                    division: self.config.division.clone(),
                }
            }
            PlanRequest::ReplaceCharter { division, keys } => {
                self.child_charter(division)?;
                let keys = keys
                    .as_deref()
                    .map(crate::config::key_from_hex)
                    .transpose()?;
                Work::ReplaceCharter {
                    division: division.clone(),
                    keys,
                }
            }
            PlanRequest::Share { threshold, holders } => {
                let shares = u8::try_from(holders.len()).unwrap_or(u8::MAX);
                let mut seen = holders.clone();
                seen.sort_by(|a, b| {
                    (&a.organization, a.operator).cmp(&(&b.organization, b.operator))
                });
                seen.dedup();
                if *threshold < 2 || *threshold > shares || seen.len() != holders.len() {
                    return Err(bad(
                        "份数须不少于门限，门限至少为二，每人一份 / give each officer one share, at least as many as the threshold, which is at least 2",
                    ));
                }
                Work::Share {
                    shares,
                    threshold: *threshold,
                    holders: self.share_holders(holders, now)?,
                }
            }
            PlanRequest::RotateKek {} => Work::RotateKek {
                division: self.config.division.clone(),
            },
            PlanRequest::Fields { classes, days } => {
                if classes.is_empty() || *days == 0 || *days > ORDER_DAYS_MAX {
                    return Err(bad(format!(
                        "常令须列明字段组，期限 1 至 {ORDER_DAYS_MAX} 天 / the order names its groups of fields and lasts 1 to {ORDER_DAYS_MAX} days"
                    )));
                }
                let mut classes = classes.clone();
                classes.sort();
                let one_each = classes
                    .windows(2)
                    .all(|pair| (&pair[0].kind, &pair[0].group) != (&pair[1].kind, &pair[1].group));
                if !one_each {
                    return Err(bad(
                        "每一字段组只能有一个期限 / a group of fields has one term",
                    ));
                }
                let mut origins = classes
                    .iter()
                    .map(|class| self.class_shard(class))
                    .collect::<Result<Vec<_>>>()?;
                origins.sort();
                origins.dedup();
                Work::Order(StandingOrder {
                    tasks: vec![Task::Fields],
                    origins,
                    not_after: UnixMillis(now.0 + u64::from(*days) * 86_400_000),
                    classes: Some(classes),
                })
            }
            PlanRequest::Order { tasks, kinds, days } => {
                if tasks.is_empty() || *days == 0 || *days > ORDER_DAYS_MAX {
                    return Err(bad(format!(
                        "常令须列明事项，期限 1 至 {ORDER_DAYS_MAX} 天 / a standing order names its tasks and lasts 1 to {ORDER_DAYS_MAX} days"
                    )));
                }
                if tasks.contains(&Task::Fields) {
                    return Err(bad(
                        "销项常令须列明字段组，见 `fangzhi retention fields` / an order for fields names their groups; use `fangzhi retention fields`",
                    ));
                }
                let mut tasks = tasks.clone();
                tasks.sort_unstable();
                tasks.dedup();
                let mut origins = kinds
                    .iter()
                    .map(|kind| self.own_shard(kind))
                    .collect::<Result<Vec<_>>>()?;
                origins.sort();
                origins.dedup();
                Work::Order(StandingOrder {
                    tasks,
                    origins,
                    not_after: UnixMillis(now.0 + u64::from(*days) * 86_400_000),
                    classes: None,
                })
            }
        })
    }

    /// The charter of a node right below this one.
    pub(crate) fn child_charter(
        &self,
        division: &DivisionId,
    ) -> Result<record::authority::Charter> {
        self.authority()
            .charter(division)
            .filter(|c| c.parent == self.config.division && c.division != self.config.division)
            .cloned()
            .ok_or_else(|| RegistryError::NoCharter(division.clone()))
    }

    /// Two open plans for one thing would both be approved, and both be run.
    pub(crate) fn refuse_second(&self, work: &Work, now: UnixMillis) -> Result<()> {
        if matches!(work, Work::Order(_)) {
            return Ok(());
        }
        let same = |other: &Work| match (work, other) {
            (
                Work::RotateEpoch { origin: a, .. } | Work::RetireEpoch { origin: a, .. },
                Work::RotateEpoch { origin: b, .. } | Work::RetireEpoch { origin: b, .. },
            ) => a == b,
            (
                Work::EndGrant { grant: a, .. } | Work::AmendGrant { grant: a, .. },
                Work::EndGrant { grant: b, .. } | Work::AmendGrant { grant: b, .. },
            ) => a == b,
            (Work::Erase { record: a, .. }, Work::Erase { record: b, .. }) => a == b,
            (
                Work::ReplaceCharter { division: a, .. },
                Work::ReplaceCharter { division: b, .. },
            ) => a == b,
            (Work::MoveShard { origin: a, .. }, Work::MoveShard { origin: b, .. }) => a == b,
            (Work::ReceiveShard { plan: a, .. }, Work::ReceiveShard { plan: b, .. }) => a == b,
            (Work::Publish { what: a, .. }, Work::Publish { what: b, .. }) => a.line() == b.line(),
            (Work::ExplainClock { origin: a, .. }, Work::ExplainClock { origin: b, .. }) => a == b,
            _ => std::mem::discriminant(work) == std::mem::discriminant(other),
        };
        let open = self.plans(now).into_iter().find(|line| {
            line.division == self.config.division
                && matches!(
                    line.state,
                    PlanState::Waiting { .. } | PlanState::Approved | PlanState::Refused
                )
                && same(&line.work)
        });
        match open {
            Some(line) if line.state != PlanState::Refused => {
                Err(RegistryError::Underway { plan: line.id })
            }
            _ => Ok(()),
        }
    }

    /// What a plan comes to.
    fn figures(&self, work: &Work, now: UnixMillis) -> Result<Vec<Figure>> {
        let mut figures = match work {
            Work::RotateEpoch { origin, .. } => {
                let (bodies, bytes) = self.bodies_of(origin, None)?;
                vec![
                    figure("records", self.records_of(origin)?),
                    figure("bodies", bodies),
                    figure("bytes", bytes),
                    figure("holders", self.holders_of(origin, now)),
                    figure("seconds", bodies.div_ceil(BODIES_PER_SECOND)),
                ]
            }
            Work::RetireEpoch { origin, epoch } => {
                let (bodies, bytes) = self.bodies_of(origin, Some(*epoch))?;
                vec![
                    figure("bodies", bodies),
                    figure("bytes", bytes),
                    figure("grant-parcels", self.parcels_under(origin, *epoch)?),
                ]
            }
            Work::EndGrant { grant, .. } => {
                let ledger = self.authority().grant(grant).map(|g| g.origin.grant(grant));
                let rows = ledger.map_or(Ok(0), |ledger| self.rows_in_scope(&ledger))?;
                vec![figure("records", rows), figure("holders", 1)]
            }
            Work::AmendGrant { .. } => self.amendment_figures(work, now)?,
            Work::Erase { origin, record, .. } => {
                let newest = self.newest(origin, record)?;
                let held = self.grants_with(origin, record)?;
                vec![
                    figure("records", 1),
                    figure("bodies", newest.map_or(0, |newest| newest.version)),
                    figure("holders", held),
                ]
            }
            Work::RotateNode { .. } => {
                let granted = self.grants_to_me(now);
                vec![
                    figure("ledgers", self.own_ledgers()?.len() as u64),
                    figure("grants", granted),
                ]
            }
            Work::Share {
                shares, threshold, ..
            } => vec![
                figure("shares", u64::from(*shares)),
                figure("threshold", u64::from(*threshold)),
            ],
            Work::MoveShard { .. } | Work::ReceiveShard { .. } => self.moving_figures(work)?,
            Work::ExplainClock {
                claimed, cosigned, ..
            } => vec![figure(
                "minutes-ahead",
                claimed.0.saturating_sub(cosigned.0) / 60_000,
            )],
            Work::ReplaceCharter { .. }
            | Work::RotateKek { .. }
            | Work::Order(_)
            | Work::Officer { .. }
            | Work::Publish { .. } => vec![],
        };
        let unreachable = self.unreachable(work).len() as u64;
        figures.push(figure("unreachable", unreachable));
        Ok(figures)
    }

    fn records_of(&self, origin: &Origin) -> Result<u64> {
        let holding = self.holding(origin)?;
        let holding = holding
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(holding.index.len() as u64)
    }

    /// Bodies that are still here, and their bytes; those of one epoch, or all.
    fn bodies_of(&self, origin: &Origin, epoch: Option<u32>) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let mut from = 0u64;
        loop {
            let rows = self
                .store
                .scan(origin.as_str(), table::BODY, &from.to_be_bytes(), SCAN)?;
            for (at, body) in &rows {
                let at = at
                    .as_slice()
                    .try_into()
                    .map(u64::from_be_bytes)
                    .map_err(|_| RegistryError::damaged(format!("`{origin}`: a body's key")))?;
                from = at + 1;
                if let Some(epoch) = epoch {
                    let entry = self.store.get(&table::entry(origin, at))?;
                    let of = entry.as_deref().and_then(|e| Entry::decode(e).ok());
                    if !matches!(of, Some(Entry::Record(entry)) if entry.epoch == epoch) {
                        continue;
                    }
                }
                count += 1;
                bytes += body.len() as u64;
            }
            if rows.len() < SCAN {
                return Ok((count, bytes));
            }
        }
    }

    fn holders_of(&self, origin: &Origin, now: UnixMillis) -> u64 {
        let authority = self.authority();
        let holders: std::collections::BTreeSet<_> = authority
            .grants()
            .filter(|g| {
                g.origin == *origin && g.not_after > now && authority.grant_ended(&g.id).is_none()
            })
            .map(|g| &g.holder)
            .collect();
        holders.len() as u64
    }

    fn grants_to_me(&self, now: UnixMillis) -> u64 {
        let authority = self.authority();
        let mine = authority
            .grants()
            .filter(|g| g.holder == self.config.division && g.not_after > now);
        mine.count() as u64
    }

    fn rows_in_scope(&self, ledger: &Origin) -> Result<u64> {
        let (mut count, mut from) = (0, Vec::new());
        loop {
            let rows = self
                .store
                .scan(ledger.as_str(), table::SCOPE, &from, SCAN)?;
            // Beside the records, the table has the grant's cursor.
            count += rows.iter().filter(|(rest, _)| rest.len() == 16).count() as u64;
            match rows.last() {
                Some((last, _)) if rows.len() == SCAN => {
                    from.clone_from(last);
                    from.push(0);
                }
                _ => return Ok(count),
            }
        }
    }

    fn grants_with(&self, origin: &Origin, record: &RecordId) -> Result<u64> {
        let ledgers: Vec<Origin> = self
            .authority()
            .grants()
            .filter(|g| g.origin == *origin)
            .map(|g| origin.grant(&g.id))
            .collect();
        let mut count = 0;
        for ledger in ledgers {
            let key = table::key(&ledger, table::SCOPE, &record.0);
            count += u64::from(self.store.get(&key)?.is_some());
        }
        Ok(count)
    }

    /// Who has to take part and is not connected: the nodes right above and below through which
    /// everybody concerned is reached.
    pub(crate) fn unreachable(&self, work: &Work) -> Vec<DivisionId> {
        let authority = self.authority();
        let own = &self.config.division;
        let parent = self.config.parent.as_ref().map(|p| p.division.clone());
        let below = |division: &DivisionId| {
            let mut path = vec![division.clone()];
            path.extend(authority.ancestors(division));
            let at = path.iter().position(|d| d == own)?;
            at.checked_sub(1).and_then(|at| path.get(at)).cloned()
        };
        let mut concerned: Vec<DivisionId> = parent.iter().cloned().collect();
        let holders: Vec<DivisionId> = authority
            .grants()
            .filter(|g| match work {
                Work::RotateEpoch { origin, .. } | Work::Erase { origin, .. } => {
                    g.origin == *origin
                }
                Work::EndGrant { grant, .. } | Work::AmendGrant { grant, .. } => g.id == *grant,
                _ => false,
            })
            .map(|g| g.holder.clone())
            .collect();
        concerned.extend(holders.iter().filter_map(below));
        let other = match work {
            Work::MoveShard { to, .. } => Some(to.clone()),
            Work::ReceiveShard { origin, .. } => Some(origin.division()),
            _ => None,
        };
        concerned.extend(other.as_ref().and_then(below));
        if let Work::ReplaceCharter { division, .. } = work {
            concerned = vec![division.clone()];
        }
        concerned.sort();
        concerned.dedup();
        drop(authority);
        let peers = lock(&self.peers);
        concerned.retain(|division| {
            let line = peers.lines.get(division.as_str());
            !line.is_some_and(|line| line.connected)
        });
        concerned
    }
}
