//! Findings about grants, and the alarms and evidence that the node keeps.

use std::collections::BTreeSet;

use ledger::evidence::Evidence;
use record::authority::GrantStatement;
use record::entry::{Entry, GrantOperation};
use record::id::{Origin, UnixMillis};
use store::Store;

use super::{Auditor, GrantLine, Severity};
use crate::error::Result;
use crate::grant::checkpoint_of;
use crate::replicate::Alarm;
use crate::table::{self, LOCAL};

impl Auditor<'_> {
    pub(super) fn grants(&mut self) -> Result<Vec<GrantLine>> {
        let view = self.view;
        let grants: Vec<GrantStatement> = view.authority().grants().cloned().collect();
        let held: BTreeSet<Origin> = view.origins()?.into_iter().collect();
        let mut lines = Vec::new();
        for grant in &grants {
            let over = view.authority().grant_ended(&grant.id).is_some();
            // Of one that ended nobody needs keys any more.
            if !over {
                self.holder(grant);
            }
            let ledger = grant.origin.grant(&grant.id);
            let (state, heartbeat) = if held.contains(&ledger) {
                self.grant(grant, &ledger)?
            } else {
                ("elsewhere", None)
            };
            lines.push(GrantLine {
                id: grant.id.to_string(),
                origin: grant.origin.clone(),
                holder: grant.holder.clone(),
                fields: grant.fields.len(),
                purpose: grant.purpose.to_string(),
                not_after: self.until(grant),
                state,
                heartbeat,
            });
        }
        Ok(lines)
    }

    /// When a grant ends, or ended before its time.
    fn until(&self, grant: &GrantStatement) -> UnixMillis {
        let ended = self.view.authority().grant_ended(&grant.id);
        ended.map_or(grant.not_after, |ended| ended.ended_at.min(grant.not_after))
    }

    fn holder(&mut self, grant: &GrantStatement) {
        let authority = self.view.authority();
        let subject = grant.origin.grant(&grant.id);
        let holder = &grant.holder;
        if grant.not_after < self.now {
            return;
        }
        // Keys that were rotated, or a charter that was replaced, leave a holder in good standing.
        let in_force = authority
            .charter(holder)
            .is_some_and(|charter| !authority.revoked(&charter.id()));
        if authority.revoked(&grant.holder_charter) && !in_force {
            self.find(
                Severity::Fault,
                "grant-to-revoked",
                subject,
                format!("持有方 `{holder}` 的节点证书已吊销，授权仍未到期"),
                format!("the holder `{holder}` had its charter revoked, and the grant goes on; rotate the shard's epoch"),
            );
            return;
        }
        match authority.charter(holder) {
            None => self.find(
                Severity::Warning,
                "grant-holder-unknown",
                subject,
                format!("此处没有持有方 `{holder}` 的节点证书"),
                format!("no charter of the holder `{holder}` is known here"),
            ),
            Some(charter) if charter.id() != grant.holder_charter => self.find(
                Severity::Warning,
                "grant-older-charter",
                subject,
                format!("授权封给 `{holder}` 的旧证书，应重新授权"),
                format!(
                    "the keys are sealed to an older charter of `{holder}`; make the grant anew"
                ),
            ),
            Some(_) => {}
        }
    }

    fn grant(
        &mut self,
        grant: &GrantStatement,
        ledger: &Origin,
    ) -> Result<(&'static str, Option<u64>)> {
        let view = self.view;
        let mut heartbeat = None;
        let mut envelope = false;
        let mut late = None;
        view.walk(ledger, |at, _, entry| {
            if let Entry::Grant(entry) = entry {
                match entry.operation {
                    GrantOperation::Heartbeat => {
                        heartbeat = heartbeat.max(Some(entry.shard_size));
                    }
                    GrantOperation::Keys => envelope |= entry.parcel == Some(grant.envelope),
                    _ => {}
                }
                let gives = entry.operation != GrantOperation::Retract;
                if entry.recorded_at > grant.not_after && gives && late.is_none() {
                    late = Some(at);
                }
            }
            Ok(())
        })?;
        if !envelope {
            self.find(
                Severity::Fault,
                "grant-envelope",
                ledger,
                "账本里没有授权书所写的密钥封套",
                "the ledger does not carry the envelope of keys that the grant's statement names",
            );
        }
        if let Some(at) = late {
            self.find(
                Severity::Fault,
                "grant-after-end",
                ledger,
                format!("第 {at} 条写于授权到期之后"),
                format!("entry {at} was recorded after the grant ended"),
            );
        }
        if grant.not_after < self.now {
            return Ok(("expired", heartbeat));
        }
        if view.authority().grant_ended(&grant.id).is_some() {
            return Ok(("ended", heartbeat));
        }
        if crate::transfer::carries(grant) {
            return Ok(("transfer", heartbeat));
        }
        let Some(shown) = view.shown(&grant.origin)? else {
            return Ok(("uncompared", heartbeat));
        };
        let due = if shown.cosigned {
            shown.checkpoint.size()
        } else {
            0
        };
        if heartbeat.unwrap_or(0) < due {
            self.find(
                Severity::Warning,
                "grant-behind",
                ledger,
                format!("心跳只到第 {} 条，分片已联署到第 {due} 条", heartbeat.unwrap_or(0)),
                format!(
                    "the newest heartbeat speaks of {} entries, the shard is cosigned up to {due}: the holder may lack rows or retractions",
                    heartbeat.unwrap_or(0)
                ),
            );
            return Ok(("behind", heartbeat));
        }
        Ok(("current", heartbeat))
    }

    pub(super) fn alarms(&mut self) -> Result<()> {
        let rows = self.view.store().scan(LOCAL, table::ALARM, b"", 10_000)?;
        for (_, bytes) in &rows {
            let alarm: Alarm = table::decode("alarm", bytes)?;
            let evidence = match alarm.notes.as_slice() {
                [first, second, ..] => self.view.log(&alarm.origin, Some(first)).is_ok_and(|log| {
                    Evidence::from_notes(first.as_bytes(), second.as_bytes(), &log).is_ok()
                }),
                _ => false,
            };
            if evidence {
                let size = checkpoint_of(&alarm.notes[0]).map_or(0, |c| c.size());
                self.find(
                    Severity::Fault,
                    "evidence",
                    &alarm.origin,
                    format!("账本分叉的证据：所有者对第 {size} 条签了两个不同的根，任何人都可复核"),
                    format!("evidence of two histories: its owner signed two roots at size {size}, which convinces anybody"),
                );
            } else {
                self.find(
                    Severity::Warning,
                    "alarm",
                    &alarm.origin,
                    format!("本节点留有告警 `{}`", alarm.code),
                    format!(
                        "this node keeps an alarm `{}`: {}",
                        alarm.code, alarm.reason
                    ),
                );
            }
        }
        Ok(())
    }
}
