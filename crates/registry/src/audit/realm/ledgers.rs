//! Findings about ledgers: who signed their heads, and what verification leaves of acts and time.

use ledger::tile::TreeEdge;
use record::act::{Act, Capacity};
use record::entry::Entry;
use record::id::{Origin, UnixMillis};

use super::{Auditor, LedgerLine, Severity};
use crate::audit::check::{SignerLine, signatures};
use crate::audit::history::Roster;
use crate::audit::view::Shown;
use crate::audit::words;
use crate::error::Result;
use crate::verify::VerifiedLedger;

/// How far clocks may differ before it is said.
const CLOCK_MILLIS: u64 = 10 * 60 * 1000;

impl Auditor<'_> {
    pub(super) fn ledger(&mut self, verified: &VerifiedLedger) -> Result<LedgerLine> {
        let origin = &verified.origin;
        let (cosigned, signers) = self.head(origin)?;
        self.acts(origin, &signers, cosigned)?;
        Ok(LedgerLine {
            origin: origin.clone(),
            size: verified.size,
            root: verified.root.clone(),
            acts: verified.acts,
            bodies: verified.bodies,
            cosigned,
            signers,
        })
    }

    /// The shown checkpoint: its size when cosigned, and whose signatures hold.
    fn head(&mut self, origin: &Origin) -> Result<(Option<u64>, Vec<SignerLine>)> {
        let view = self.view;
        let head = view.head(origin)?;
        let Some(shown) = view.shown(origin)? else {
            if head.target.is_some() {
                self.find(
                    Severity::Note,
                    "in-transfer",
                    origin,
                    "正在复制，尚未收全",
                    "it is being replicated and not whole yet",
                );
            }
            return Ok((None, Vec::new()));
        };
        let checked = view
            .signers(origin, Some(&shown.note))
            .map_err(|e| words(&e))
            .and_then(|keys| signatures(shown.note.as_bytes(), &keys).map_err(|e| words(&e)));
        let signers = match checked {
            Ok((_, signatures)) => {
                for name in signatures.unknown {
                    self.find(
                        Severity::Warning,
                        "unknown-signer",
                        origin,
                        format!("账头上有不认识的签名者 `{name}`，不作数"),
                        format!("the checkpoint carries a line of `{name}`, whose key no charter here has; it counts for nothing"),
                    );
                }
                signatures.holding
            }
            Err(error) => {
                self.find(
                    Severity::Fault,
                    "checkpoint",
                    origin,
                    "账头的签名不成立",
                    error,
                );
                return Ok((None, Vec::new()));
            }
        };
        let size = shown.checkpoint.size();
        let there = TreeEdge::load(&view.tiles(origin), size).map(|e| e.frontier().root());
        if size <= head.size && !there.is_ok_and(|root| root == *shown.checkpoint.root()) {
            self.find(
                Severity::Fault,
                "cosigned-differs",
                origin,
                format!("已联署的第 {size} 条账头与此处账本不是同一历史"),
                format!("the checkpoint of {size} that is shown to others is not of the history that is here"),
            );
        }
        self.cosignatures(origin, &shown, &signers, head.size);
        Ok((shown.cosigned.then_some(size), signers))
    }

    fn cosignatures(&mut self, origin: &Origin, shown: &Shown, signers: &[SignerLine], size: u64) {
        if self.view.is_root(origin) {
            return;
        }
        if !shown.cosigned {
            self.find(
                Severity::Warning,
                "not-cosigned",
                origin,
                "账头尚无足够的联署，只有账本自己的签名",
                "no checkpoint has its quorum of cosignatures; there is the log's own word alone",
            );
        } else if shown.checkpoint.size() < size {
            let behind = size - shown.checkpoint.size();
            self.find(
                Severity::Note,
                "cosigned-behind",
                origin,
                format!("最新 {behind} 条尚未联署"),
                format!("the newest {behind} entries are not cosigned yet"),
            );
        }
        if shown.cosigned && !signers.iter().any(|s| s.role == "held") {
            self.find(
                Severity::Warning,
                "not-held",
                origin,
                "没有上级的收存签名：条目和正文只在所有者处",
                "nobody above says that entries and bodies are durable there (`held`)",
            );
        }
    }

    /// What verification leaves of acts: disabled operators, ended certificates, time.
    fn acts(
        &mut self,
        origin: &Origin,
        signers: &[SignerLine],
        cosigned: Option<u64>,
    ) -> Result<()> {
        let view = self.view;
        let division = origin.division();
        let mut found: Vec<(u64, &'static str)> = Vec::new();
        let explained = view.authority().explained(origin);
        let mut last = UnixMillis(0);
        let mut covered = UnixMillis(0);
        let roster = self.rosters.get(&division);
        view.walk(origin, |at, _, entry| {
            let Entry::Act(act) = entry else {
                return Ok(());
            };
            // What verification lists as explained is no sign of a wrong clock any more.
            if !explained.iter().any(|e| e.covers(at, act.signed_at)) {
                if act.signed_at.0.saturating_add(CLOCK_MILLIS) < last.0 {
                    found.push((at, "clock-back"));
                }
                last = last.max(act.signed_at);
                if cosigned.is_some_and(|size| at < size) {
                    covered = covered.max(act.signed_at);
                }
            }
            found.extend(not_entitled(&act, roster).map(|code| (at, code)));
            Ok(())
        })?;
        for (at, code) in found {
            let (severity, zh, en) = match code {
                "act-after-disabling" => (
                    Severity::Fault,
                    "由已停用的操作员签署",
                    "is signed by an operator who was disabled in the authority ledger that it relied on",
                ),
                "act-after-certificate" => (
                    Severity::Fault,
                    "签署于操作员证书到期之后",
                    "is signed after its operator's certificate ended",
                ),
                "act-organization" => (
                    Severity::Fault,
                    "所写机构不是操作员证书上的机构",
                    "names another organization than its operator's certificate",
                ),
                _ => (
                    Severity::Warning,
                    "的时间早于前面的经办十分钟以上：时钟曾被回拨",
                    "is timed over ten minutes before an act that precedes it: the clock jumped back",
                ),
            };
            self.find(
                severity,
                code,
                origin,
                format!("第 {at} 条经办{zh}"),
                format!("the act at {at} {en}"),
            );
        }
        let witnessed = signers
            .iter()
            .filter(|s| s.role == "witness")
            .filter_map(|s| s.time_secs)
            .max();
        if let Some(secs) = witnessed
            && covered.0 > secs.saturating_mul(1000).saturating_add(CLOCK_MILLIS)
        {
            self.find(
                Severity::Warning,
                "clock-ahead",
                origin,
                "经办时间晚于覆盖它的联署时间十分钟以上：两处时钟不一致",
                "an act is timed over ten minutes after the cosignature that covers it: one of the clocks is wrong",
            );
        }
        Ok(())
    }
}

/// Why an operator's act was not to be, beyond what verification says.
fn not_entitled(act: &Act, roster: Option<&Roster>) -> Option<&'static str> {
    if act.capacity != Capacity::Operator {
        return None;
    }
    let roster = roster?;
    let (_, certificate) = roster.by_key(&act.key)?;
    let disabled = roster.disabled(&certificate.operator);
    if disabled.is_some_and(|size| size <= act.authority_size) {
        Some("act-after-disabling")
    } else if act.signed_at > certificate.not_after {
        Some("act-after-certificate")
    } else if act.organization != certificate.organization {
        Some("act-organization")
    } else {
        None
    }
}
